//! Who may do what: pure functions of a token, a path, keys and the time. Knows no session, no socket
//! and no HTTP.
//!
//! * [`Grant`]: two sets of patterns at a root, and the questions that a session asks of them. What a
//!   token allows, the limits of a key and the rules for everybody are grants alike.
//! * [`KeySet`]: the keys that tokens are verified with, an immutable value made from files.
//! * [`Claims`]: what a token says, in both forms that are in use.
//! * [`Refusal`]: why not, and who erred.
//! * [`SigningKey`]: making keys and tokens, for the operator's tool.
//!
//! [`Access::admit`] puts them together. Times are whole unix seconds, as tokens have them.

mod algorithm;
mod claims;
mod grant;
mod json;
mod jwk;
mod keys;
mod refusal;
mod sign;
mod target;
mod token;

use std::sync::Arc;

pub use algorithm::{Algorithm, NoAlgorithm};
pub use claims::{Claims, ClaimsFault, Form, PATTERNS_MAX};
pub use grant::{Grant, RuleError, is_hidden, rule};
pub use json::Fault as JsonFault;
pub use jwk::{KeyFault, KeyId, KeyIdFault};
pub use keys::{Key, KeyError, KeyFile, KeyIdentity, KeySet, Place, read_key_files};
pub use refusal::Refusal;
pub use sign::{SignError, SigningKey, base64url};
pub use target::{BadTarget, Target, Token, shown, token_in};
pub use token::{TOKEN_BYTES_MAX, Verified};

use crate::wire::Path;

/// What the operator has laid down. Immutable: where anything changes, another takes its place.
#[derive(Clone, Debug, Default)]
pub struct Access {
    pub keys: Arc<KeySet>,
    /// What everybody may, at the empty root.
    pub public: Grant,
}

/// What somebody was let in with, at the path that was dialled. By default with nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    pub grant: Grant,
    /// The second in which it ends.
    pub expires: Option<i64>,
    /// The key that vouched for it; none where the rules for everybody did.
    pub key: Option<KeyIdentity>,
}

impl Access {
    /// Everybody may do everything, and nobody can show a token.
    pub fn open() -> Access {
        Access { keys: Arc::default(), public: Grant::everything() }
    }

    /// Whether somebody may come in at a path. A token that is shown decides alone: whoever shows a bad
    /// one is not let in as anybody.
    pub fn admit(&self, path: &Path, token: Option<&str>, now: i64) -> Result<Admission, Refusal> {
        let Some(token) = token else {
            let grant = self.public.at(path).map_err(|_| Refusal::NotPublic)?;
            return Ok(Admission { grant, expires: None, key: None });
        };
        let Verified { claims, key } = self.keys.verify(token, now)?;
        let grant = claims.grant.at(path)?;
        Ok(Admission { grant, expires: claims.expires, key: Some(key.identity()) })
    }
}

impl Admission {
    /// Whether it still stands, with the keys of now.
    pub fn check(&self, keys: &KeySet, now: i64) -> Result<(), Refusal> {
        if let Some(at) = self.expires.filter(|at| *at <= now) {
            return Err(Refusal::Expired { at });
        }
        match self.key.is_none_or(|key| keys.holds(key)) {
            true => Ok(()),
            false => Err(Refusal::KeyGone),
        }
    }
}
