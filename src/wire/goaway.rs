//! Goaway streams (04+) (§3.9): one message asking the peer to move elsewhere.

use super::error::{DecodeError, Fault};
use super::varint::{encode_bytes, encode_message, parse_body};

/// Bytes in the URI of a GOAWAY.
pub const GOAWAY_URI_BYTES_MAX: usize = 8192;

/// GOAWAY.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Goaway {
    /// Where to reconnect, at most [`GOAWAY_URI_BYTES_MAX`] bytes. Empty for the same place.
    pub uri: String,
}

impl Goaway {
    pub fn decode(body: &[u8]) -> Result<Goaway, DecodeError> {
        parse_body(body, |reader| {
            let start = reader.offset();
            let uri = reader.string()?;
            if uri.len() > GOAWAY_URI_BYTES_MAX {
                return Err(DecodeError::new(Fault::TooLarge, start));
            }
            Ok(Goaway { uri: uri.to_owned() })
        })
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.uri.len() <= GOAWAY_URI_BYTES_MAX);
        encode_message(out, |out| encode_bytes(self.uri.as_bytes(), out));
    }
}
