//! Why somebody is not let in.

use super::algorithm::Algorithm;
use super::claims::ClaimsFault;
use super::jwk::{KeyId, KeyIdFault};
use super::token::TOKEN_BYTES_MAX;

/// Each says who erred. What strangers wrote is shown where it is short, and escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the client shows no token, and nothing is public at this path")]
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
    #[error("the token is not signed with a key of this relay, or the client changed it")]
    Signature,
    #[error("the token's issuer erred: {0}")]
    Claims(#[from] ClaimsFault),
    #[error("what the client was let in with expired at {at}")]
    Expired { at: i64 },
    #[error("the client's token is not valid before {from}")]
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
    #[error("the auth server grants less than before")]
    Narrowed,
    #[error("the auth server grants what this relay cannot honour")]
    ServerErrs,
}
