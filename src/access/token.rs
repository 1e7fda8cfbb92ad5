//! Verifying a token: a JWT (RFC 7519) in its compact form.

use jsonwebtoken::crypto;

use super::algorithm::Algorithm;
use super::claims::Claims;
use super::json::Members;
use super::jwk::decode_unpadded;
use super::key_id::KeyId;
use super::keys::{Key, KeySet};
use super::refusal::Refusal;
use crate::limits::TOKEN_BYTES_MAX;

/// What a token says, and the key that vouches for it.
#[derive(Debug)]
pub struct Verified<'a> {
    pub claims: Claims,
    pub key: &'a Key,
    /// What it calls that.
    pub named: Option<KeyId>,
}

struct Header {
    algorithm: Algorithm,
    id: Option<KeyId>,
}

impl Header {
    fn parse(text: &str) -> Result<Header, Refusal> {
        const NOT_ONE: Refusal = Refusal::Malformed("its header is not JSON in base64url");
        let json = decode_unpadded(text.as_bytes()).ok_or(NOT_ONE)?;
        let mut members = Members::parse(&json).map_err(|_| NOT_ONE)?;
        if members.take("crit").is_some() {
            return Err(Refusal::Critical);
        }
        let algorithm = members.string("alg").map_err(|_| NOT_ONE)?.ok_or(NOT_ONE)?;
        let algorithm = algorithm.parse().map_err(|_| Refusal::AlgorithmUnknown)?;
        let id = members.string("kid").map_err(|_| NOT_ONE)?;
        let id = id.map(|id| KeyId::parse(&id)).transpose()?;
        Ok(Header { algorithm, id })
    }
}

impl Verified<'_> {
    /// Whether it lets anybody in now.
    pub fn check(&self, now: i64) -> Result<(), Refusal> {
        self.claims.check_times(now)?;
        if self.claims.grant.is_empty() {
            return Err(Refusal::Useless);
        }
        if self.key.scope().is_some_and(|scope| !scope.covers(&self.claims.grant)) {
            return Err(Refusal::ScopeExceeded);
        }
        Ok(())
    }
}

impl KeySet {
    /// What a token says, if a key of this set vouches for it and it lets somebody in now.
    pub fn verify(&self, token: &str, now: i64) -> Result<Verified<'_>, Refusal> {
        let vouched = self.vouched(token)?;
        vouched.check(now)?;
        Ok(vouched)
    }

    /// What a token says, if a key of this set vouches for it, whether or not it lets anybody in.
    pub fn vouched(&self, token: &str) -> Result<Verified<'_>, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::TooLong(token.len()));
        }
        let three = Refusal::Malformed("it has not three parts with dots between them");
        let (message, signature) = token.rsplit_once('.').ok_or(three.clone())?;
        let (header, payload) = message.split_once('.').ok_or(three.clone())?;
        if payload.contains('.') {
            return Err(three);
        }
        let header = Header::parse(header)?;
        let key = self.vouching(&header, message, signature)?;
        let payload = decode_unpadded(payload.as_bytes())
            .ok_or(Refusal::Malformed("its claims are not in base64url"))?;
        let claims = Claims::parse(&payload)?;
        Ok(Verified { claims, key, named: header.id })
    }

    fn vouching(&self, header: &Header, message: &str, signature: &str) -> Result<&Key, Refusal> {
        let named = header.id.as_ref().and_then(|id| self.named(id));
        let mut refusal = match &header.id {
            _ if self.is_empty() => Refusal::NoKeys,
            Some(id) => Refusal::KeyUnknown(id.clone()),
            None => Refusal::KeyUnnamed,
        };
        for key in named.into_iter().chain(self.tried()) {
            match key.vouches(header, message, signature) {
                Ok(()) => return Ok(key),
                // Of keys that are tried, one of another algorithm says nothing about the token.
                Err(Refusal::AlgorithmMismatch { .. }) if refusal == Refusal::Signature => {}
                Err(reason) => refusal = reason,
            }
        }
        Err(match (&header.id, refusal) {
            (Some(id), Refusal::Signature) if self.has(id) => Refusal::KeyOther(id.clone()),
            (Some(id), Refusal::Signature | Refusal::AlgorithmMismatch { .. }) if !self.has(id) => {
                Refusal::KeyAway(id.clone())
            }
            (_, refusal) => refusal,
        })
    }

    /// Whether a key has this name, by whichever way tokens find it.
    fn has(&self, id: &KeyId) -> bool {
        self.named(id).is_some() || self.tried().iter().any(|key| key.label() == id.as_str())
    }
}

impl Key {
    /// It is the key that says how a signature is read; the token can only agree.
    fn vouches(&self, header: &Header, message: &str, signature: &str) -> Result<(), Refusal> {
        if header.algorithm != self.algorithm() {
            let (token, key) = (header.algorithm, self.algorithm());
            return Err(Refusal::AlgorithmMismatch { token, key });
        }
        match crypto::verify(
            signature,
            message.as_bytes(),
            self.verifier(),
            self.algorithm().library(),
        ) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::Signature),
            Err(_) => Err(Refusal::Malformed("its signature is not in base64url")),
        }
    }
}
