//! Making keys and tokens.

use std::fmt;

use jsonwebtoken::{EncodingKey, crypto};
use serde::Serialize;
use serde_json::value::RawValue;

use super::algorithm::Algorithm;
use super::claims::{Claims, Form};
use super::grant::Grant;
use super::json::{self, Members};
use super::jwk::{Jwk, KeyFault, encode, json_of};
use super::key_id::KeyId;
use crate::limits::{PATTERNS_MAX, TOKEN_BYTES_MAX};

/// A key with what is private in it. The relay itself holds none.
pub struct SigningKey {
    jwk: Jwk,
    signer: EncodingKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("the token would grant nothing; say what it may publish or subscribe to")]
    Useless,
    #[error("the token would grant more than the key may (scope)")]
    ScopeExceeded,
    #[error("it would have more than {PATTERNS_MAX} patterns of one kind, and no relay takes that")]
    Many,
    #[error("it would have {0} bytes, and relays take {TOKEN_BYTES_MAX}")]
    TooLong(usize),
    #[error("the key cannot sign")]
    Key,
}

impl SigningKey {
    /// A new one, from the system's randomness.
    pub fn generate(
        algorithm: Algorithm,
        id: Option<KeyId>,
        scope: Option<Grant>,
    ) -> Result<SigningKey, KeyFault> {
        SigningKey::new(Jwk::generate(algorithm, id, scope)?)
    }

    /// From the bytes of a file with one private key or shared secret.
    pub fn parse(bytes: &[u8]) -> Result<SigningKey, KeyFault> {
        let json = json_of(bytes)?;
        let mut members = Members::parse(&json)?;
        if members.take("keys").is_some() {
            return Err(KeyFault::SetSigns);
        }
        SigningKey::new(Jwk::parse(members)?)
    }

    fn new(jwk: Jwk) -> Result<SigningKey, KeyFault> {
        let signer = jwk.signer()?;
        Ok(SigningKey { jwk, signer })
    }

    pub fn algorithm(&self) -> Algorithm {
        self.jwk.algorithm
    }

    pub fn id(&self) -> Option<&KeyId> {
        self.jwk.id.as_ref()
    }

    /// The most that its tokens may grant.
    pub fn scope(&self) -> Option<&Grant> {
        self.jwk.scope.as_ref()
    }

    /// The whole key as JSON. Secret: its file is for its owner alone.
    pub fn private_json(&self) -> String {
        self.jwk.to_json()
    }

    /// What a relay needs to verify, as JSON; none for a shared secret, which has no public half.
    pub fn public_json(&self) -> Option<String> {
        self.jwk.public().map(|jwk| jwk.to_json())
    }

    pub fn sign(&self, claims: &Claims, form: Form) -> Result<String, SignError> {
        #[derive(Serialize)]
        struct Header<'a> {
            alg: &'static str,
            typ: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            kid: Option<&'a str>,
        }

        if claims.grant.is_empty() {
            return Err(SignError::Useless);
        }
        if claims.grant.publish().len().max(claims.grant.subscribe().len()) > PATTERNS_MAX {
            return Err(SignError::Many);
        }
        if self.jwk.scope.as_ref().is_some_and(|scope| !scope.covers(&claims.grant)) {
            return Err(SignError::ScopeExceeded);
        }
        let kid = self.id().map(KeyId::as_str);
        let header =
            serde_json::to_vec(&Header { alg: self.jwk.algorithm.name(), typ: "JWT", kid })
                .expect("strings are JSON");
        let message = format!("{}.{}", encode(header), encode(claims.to_json(form)));
        let signature =
            crypto::sign(message.as_bytes(), &self.signer, self.jwk.algorithm.library())
                .map_err(|_| SignError::Key)?;
        let token = format!("{message}.{signature}");
        if token.len() > TOKEN_BYTES_MAX { Err(SignError::TooLong(token.len())) } else { Ok(token) }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, algorithm) = (self.id(), self.algorithm());
        f.debug_struct("SigningKey")
            .field("id", &id)
            .field("algorithm", &algorithm)
            .finish_non_exhaustive()
    }
}

/// The same file of keys without what is private in it, as JSON.
pub fn public_half(bytes: &[u8]) -> Result<String, KeyFault> {
    let json = json_of(bytes)?;
    let mut members = Members::parse(&json)?;
    let public = |members: Members<'_>| {
        let jwk = Jwk::parse(members)?.public().ok_or(KeyFault::NoPublic)?;
        jwk.verifier()?;
        Ok(jwk.to_json())
    };
    let Some(keys) = members.take("keys") else { return public(members) };
    let keys: Vec<&RawValue> = json::read(keys, "keys", "a list")?;
    let keys = keys.into_iter().enumerate().map(|(index, key)| {
        let key = Members::parse(key.get().as_bytes()).map_err(KeyFault::from).and_then(public);
        key.map_err(|fault| KeyFault::InSet { index, fault: Box::new(fault) })
    });
    let keys: Vec<String> = keys.collect::<Result<_, _>>()?;
    Ok(format!("{{\"keys\":[{}]}}", keys.join(",")))
}

/// A key's JSON as some tools write it into files, where any loads.
pub fn base64url(json: &str) -> String {
    encode(json)
}
