//! Making keys and tokens.

use std::fmt;

use jsonwebtoken::{EncodingKey, crypto};
use serde::Serialize;

use super::algorithm::Algorithm;
use super::claims::{Claims, Form, PATTERNS_MAX};
use super::grant::Grant;
use super::json::Members;
use super::jwk::{Jwk, KeyFault, KeyId, encode, json_of};
use super::token::TOKEN_BYTES_MAX;

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
        SigningKey::new(Jwk::parse(Members::parse(&json)?)?)
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

/// A key's JSON as some tools write it into files, where any loads.
pub fn base64url(json: &str) -> String {
    encode(json)
}
