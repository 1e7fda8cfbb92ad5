//! Why somebody is not let in.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::algorithm::Algorithm;
use super::json;
use super::key_id::{KeyId, KeyIdFault};
use crate::limits::{PATTERNS_MAX, TOKEN_BYTES_MAX};

/// What is wrong with what a token says, or with the scope of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsFault {
    #[error("{0}")]
    Json(#[from] json::Fault),
    #[error("`{0}` is unknown here, and could be meant to grant less")]
    Unknown(String),
    #[error("put and get are mixed with publish and subscribe")]
    Mixed,
    #[error("`{0}` is null; leave it out or give a list")]
    Null(&'static str),
    #[error("`root` is not a path")]
    Root,
    #[error("`{field}` has \"{text}\": {reason}")]
    Pattern { field: &'static str, text: String, reason: &'static str },
    #[error("`{0}` has more than {PATTERNS_MAX} patterns")]
    Many(&'static str),
}

/// Each says who erred. What strangers wrote is shown where it is short, and escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no token is shown, and nothing is public at this path")]
    NotPublic,
    #[error(
        "the client shows a token, and this relay has no keys; its operator gives them with --auth-key"
    )]
    NoKeys,
    #[error("the client's token has {0} bytes, more than {TOKEN_BYTES_MAX}")]
    TooLong(usize),
    #[error("the client's token is not a JWT: {0}")]
    Malformed(&'static str),
    #[error("the token's issuer demands extensions (crit), and this relay has none")]
    Critical,
    #[error("the token's issuer signs with an algorithm that this relay does not take")]
    AlgorithmUnknown,
    #[error("the token's issuer signs with {token}, and the key is for {key} alone")]
    AlgorithmMismatch { token: Algorithm, key: Algorithm },
    #[error("the token names no key (kid), and this relay finds its keys by name alone")]
    KeyUnnamed,
    #[error("the token names no key that there can be: {0}")]
    KeyName(#[from] KeyIdFault),
    #[error("the token's issuer signs with key {0}, which this relay does not have")]
    KeyUnknown(KeyId),
    #[error(
        "the token is not signed with a key of this relay: it names {0}, which is not here, and no key that is \
         tried with every token has signed it, or the client changed it"
    )]
    KeyAway(KeyId),
    #[error(
        "the token is not signed with a key of this relay, or the client changed it: it names {0}, and the key \
         of that name is here and is another"
    )]
    KeyOther(KeyId),
    #[error(
        "the token is not signed with a key of this relay, or the client changed it; it names no key (kid)"
    )]
    Signature,
    #[error("the token's issuer erred: {0}")]
    Claims(#[from] ClaimsFault),
    #[error("the client's token (or certificate, or lease) expired at {}", utc(*at))]
    Expired { at: i64 },
    #[error("the client's token is not valid before {}", utc(*from))]
    TooEarly { from: i64 },
    #[error("the token's issuer grants nothing with it")]
    Useless,
    #[error("the token's issuer grants more than its key may (scope)")]
    ScopeExceeded,
    #[error("the client dialled a path that is not on the way to the token's root, nor below it")]
    RootMismatch,
    #[error("the client dialled a path at which the token grants nothing")]
    NoAccess,
    #[error("the token grants what lies deeper below the dialled path than paths can be")]
    TooDeep,
    #[error("the client wants to publish, and may only subscribe")]
    MayNotPublish,
    #[error("the client wants to subscribe, and may only publish")]
    MayNotSubscribe,
    #[error("the client publishes what it may not, and is ignored")]
    PublishesOutside,
    #[error("the client asks for what it may not watch")]
    AsksOutside,
    #[error("the key that vouched for the client was removed or replaced")]
    KeyGone,
    #[error("the auth server refuses: {0}")]
    ByServer(String),
    #[error(
        "the auth server does not answer as it should, and nobody is let in without it; try again later"
    )]
    ServerAway,
    #[error(
        "as many sessions are here from the client's address as may be (--limit-remote); try again later"
    )]
    AddressFull,
    #[error("as many sessions show the client's token as may (--limit-token); try again later")]
    TokenFull,
    #[error("there is no memory for one more session from the client's address; try again later")]
    NoMemory,
    #[error("the auth server grants less than before")]
    Narrowed,
    #[error("the auth server grants what this relay cannot honour")]
    ServerErrs,
}

/// A second as people write it, if it is one that they can.
pub fn utc(at: i64) -> String {
    let date = OffsetDateTime::from_unix_timestamp(at).ok();
    date.and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_else(|| at.to_string())
}

impl Refusal {
    /// The names that there are, by which refusals are counted.
    pub const NAMES: [&str; 27] = [
        "not_public",
        "no_keys",
        "too_long",
        "malformed",
        "critical",
        "algorithm",
        "key_unknown",
        "signature",
        "claims",
        "expired",
        "too_early",
        "useless",
        "scope",
        "root",
        "no_access",
        "too_deep",
        "role",
        "publishes_outside",
        "asks_outside",
        "key_gone",
        "by_server",
        "server_away",
        "address_full",
        "token_full",
        "no_memory",
        "narrowed",
        "server_errs",
    ];

    /// What kind it is, in one word that stays the same.
    pub fn name(&self) -> &'static str {
        match self {
            Refusal::NotPublic => "not_public",
            Refusal::NoKeys => "no_keys",
            Refusal::TooLong(_) => "too_long",
            Refusal::Malformed(_) => "malformed",
            Refusal::Critical => "critical",
            Refusal::AlgorithmUnknown | Refusal::AlgorithmMismatch { .. } => "algorithm",
            Refusal::KeyUnnamed
            | Refusal::KeyName(_)
            | Refusal::KeyUnknown(_)
            | Refusal::KeyAway(_) => "key_unknown",
            Refusal::KeyOther(_) | Refusal::Signature => "signature",
            Refusal::Claims(_) => "claims",
            Refusal::Expired { .. } => "expired",
            Refusal::TooEarly { .. } => "too_early",
            Refusal::Useless => "useless",
            Refusal::ScopeExceeded => "scope",
            Refusal::RootMismatch => "root",
            Refusal::NoAccess => "no_access",
            Refusal::TooDeep => "too_deep",
            Refusal::MayNotPublish | Refusal::MayNotSubscribe => "role",
            Refusal::PublishesOutside => "publishes_outside",
            Refusal::AsksOutside => "asks_outside",
            Refusal::KeyGone => "key_gone",
            Refusal::ByServer(_) => "by_server",
            Refusal::ServerAway => "server_away",
            Refusal::AddressFull => "address_full",
            Refusal::TokenFull => "token_full",
            Refusal::NoMemory => "no_memory",
            Refusal::Narrowed => "narrowed",
            Refusal::ServerErrs => "server_errs",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_among_the_names() {
        let some =
            [Refusal::NotPublic, Refusal::TooLong(9), Refusal::Expired { at: 1 }, Refusal::KeyGone];
        for refusal in some {
            assert!(Refusal::NAMES.contains(&refusal.name()), "{refusal}");
        }
        assert!(
            Refusal::NAMES
                .iter()
                .all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
    }
}
