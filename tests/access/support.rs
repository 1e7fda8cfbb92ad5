//! Tokens and key sets in a line.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, crypto};
use shardcast::access::{KeyFile, KeySet, Place};
use shardcast::wire::Path;

/// Half a minute past the making of the vectors.
pub const NOW: i64 = 1_795_748_116;

pub const SECRET: &[u8] = b"a test secret of thirty-four bytes";

pub fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn file(name: &str, place: Place, bytes: impl AsRef<[u8]>) -> KeyFile {
    KeyFile { path: name.into(), place, bytes: bytes.as_ref().to_vec() }
}

/// One key, given by `--auth-key`.
pub fn one_key(jwk: &str) -> KeySet {
    KeySet::new(&[file("root.jwk", Place::File, jwk)]).unwrap()
}

/// The test secret as a key, with more members.
pub fn secret_jwk(more: &str) -> String {
    format!(r#"{{"kty":"oct","alg":"HS256","k":"{}"{more}}}"#, base64url(SECRET))
}

/// Anything at all, signed.
pub fn signed(
    header: &str,
    claims: &str,
    key: &EncodingKey,
    algorithm: jsonwebtoken::Algorithm,
) -> String {
    let message = format!("{}.{}", base64url(header), base64url(claims));
    let signature = crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// Claims of any kind, signed with the test secret.
pub fn token(claims: &str) -> String {
    token_with(r#"{"alg":"HS256","typ":"JWT"}"#, claims)
}

pub fn token_with(header: &str, claims: &str) -> String {
    signed(header, claims, &EncodingKey::from_secret(SECRET), jsonwebtoken::Algorithm::HS256)
}
