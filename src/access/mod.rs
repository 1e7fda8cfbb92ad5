//! Who may do what: pure functions of a token, a path, keys and the time. Knows no session, no socket
//! and no HTTP.
//!
//! * [`Grant`]: two sets of patterns at a root, and the questions that a session asks of them. What a
//!   token allows, the limits of a key and the rules for everybody are grants alike.
//! * [`KeySet`]: the keys that tokens are verified with, an immutable value made from files.
//! * [`Claims`]: what a token says, in both forms that are in use.
//! * [`Certificate`]: what a client's certificate says of it.
//! * [`Refusal`]: why not, and who erred.
//! * [`Remark`]: what its operator hardly means.
//! * [`SigningKey`]: making keys and tokens, for the operator's tool.
//!
//! [`Access::admit`] puts them together. Times are whole unix seconds, as tokens have them.

mod algorithm;
mod certificate;
mod claims;
mod grant;
mod json;
mod jwk;
mod key_id;
mod keys;
mod refusal;
mod remark;
mod sign;
mod target;
mod token;

use std::sync::Arc;

pub use algorithm::{Algorithm, NoAlgorithm};
pub use certificate::Certificate;
pub use claims::{Claims, Form};
pub use grant::{Grant, RuleError, is_hidden, rule};
pub use json::Fault as JsonFault;
pub use jwk::{KeyFault, shown_name};
pub use key_id::{KeyId, KeyIdFault};
pub use keys::{
    Key, KeyError, KeyFile, KeySet, Voucher, find_key_files, is_gone, read_key_file, read_key_files,
};
pub use refusal::{ClaimsFault, Refusal, utc};
pub use remark::{Place, Remark};
pub use sign::{SignError, SigningKey, base64url, public_half};
pub use target::{BadTarget, Target, Token, TokenDigest, said, shown, token_in};
pub use token::Verified;

use crate::wire::Path;

/// What the operator has laid down. Immutable: where anything changes, another takes its place.
#[derive(Clone, Debug, Default)]
pub struct Access {
    pub keys: Arc<KeySet>,
    /// What everybody may, at the empty root.
    pub public: Grant,
    /// The names of relays, whose certificates let them in.
    pub relays: Vec<String>,
}

/// What somebody was let in with, at the path that was dialled. By default with nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    pub grant: Grant,
    /// The second in which it ends.
    pub expires: Option<i64>,
    /// The key that vouched for it; none where something else did.
    pub key: Option<Voucher>,
    /// As a relay of this cluster, by its certificate.
    pub is_relay: bool,
}

impl Access {
    /// Everybody may do everything, and nobody can show a token.
    pub fn open() -> Access {
        Access { public: Grant::everything(), ..Access::default() }
    }

    /// Whether somebody may come in at a path. A token that is shown decides alone: whoever shows a bad
    /// one is not let in as anybody.
    pub fn admit(&self, path: &Path, token: Option<&str>, now: i64) -> Result<Admission, Refusal> {
        let Some(token) = token else {
            let grant = self.public.at(path).map_err(|_| Refusal::NotPublic)?;
            return Ok(Admission { grant, ..Admission::default() });
        };
        let Verified { claims, key, named } = self.keys.verify(token, now)?;
        let grant = claims.grant.at(path)?;
        let (expires, key) = (claims.expires, Some(key.voucher(named.as_ref())));
        Ok(Admission { grant, expires, key, is_relay: false })
    }

    /// What somebody may do at a path whose certificate is that of a relay: everything, as long as that is
    /// valid. None is anybody else's.
    pub fn admit_relay(&self, path: &Path, certificate: &Certificate) -> Option<Admission> {
        let is_relay = self.is_relay(certificate);
        is_relay.then(|| Admission {
            grant: Grant::everything_below(path.clone()),
            expires: Some(certificate.expires),
            key: None,
            is_relay,
        })
    }

    pub fn is_relay(&self, certificate: &Certificate) -> bool {
        self.relays.iter().any(|name| certificate.is_named(name))
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
