//! The key of an account that the authority knows already (External Account Binding, RFC 8555 §7.3.4).

use std::io;
use std::path::PathBuf;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use instant_acme::ExternalAccountKey;

use crate::config::ExternalAccount;
use crate::files;
use crate::limits::ACME_KEY_FILE_BYTES_MAX;

#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    #[error("cannot read {0}: {1}; it holds the key that the authority gave with --acme-eab-kid")]
    Unreadable(PathBuf, io::Error),
    #[error("{0} is no key in base64; write it there as the authority has written it")]
    NoKey(PathBuf),
}

/// An account that is known there, with what only its owner has.
pub struct External {
    pub kid: String,
    key: Vec<u8>,
}

impl External {
    pub fn read(account: &ExternalAccount) -> Result<External, ExternalError> {
        let path = &account.key;
        let read = files::read_regular(path, ACME_KEY_FILE_BYTES_MAX);
        let text = read.map_err(|error| ExternalError::Unreadable(path.clone(), error))?;
        let key = decoded(&text).ok_or_else(|| ExternalError::NoKey(path.clone()))?;
        Ok(External { kid: account.kid.clone(), key })
    }

    pub fn key(&self) -> ExternalAccountKey {
        ExternalAccountKey::new(self.kid.clone(), &self.key)
    }
}

/// Authorities write either alphabet, some with padding.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let text: Vec<u8> = text
        .trim_ascii()
        .iter()
        .map(|byte| match byte {
            b'+' => b'-',
            b'/' => b'_',
            byte => *byte,
        })
        .collect();
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let key = GeneralPurpose::new(&alphabet::URL_SAFE, config).decode(text).ok()?;
    (!key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_authorities_write_them() {
        for text in ["-_-_", "+/+/", "  -_+/\n"] {
            assert_eq!(decoded(text.as_bytes()), Some(vec![0xfb, 0xff, 0xbf]), "{text:?}");
        }
        assert_eq!(decoded(b"YQ=="), decoded(b"YQ"));
        for text in ["", "\n", "a b c", "{\"key\": \"YQ\"}", "YQ=="] {
            assert_eq!(decoded(text.as_bytes()).is_some(), text == "YQ==", "{text:?}");
        }
    }
}
