//! What a key is called.

use std::fmt;

/// Characters of a key's name, as in the reference.
const KEY_ID_MAX: usize = 128;

/// The name of a key, safe as the name of a file: letters, digits, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyIdFault {
    #[error("its name (kid) is empty")]
    Empty,
    #[error("its name (kid) has more than {KEY_ID_MAX} characters")]
    TooLong,
    #[error("its name (kid) has characters that are not letters, digits, - or _")]
    Characters,
}

impl KeyId {
    pub fn parse(text: &str) -> Result<KeyId, KeyIdFault> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        match text {
            "" => Err(KeyIdFault::Empty),
            _ if text.len() > KEY_ID_MAX => Err(KeyIdFault::TooLong),
            _ if !text.bytes().all(is_allowed) => Err(KeyIdFault::Characters),
            _ => Ok(KeyId(text.to_owned())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
