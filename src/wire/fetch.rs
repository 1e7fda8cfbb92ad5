//! Fetch streams (§3.7): one request for one group. The reply is bare frames, with no header.

use super::Version;
use super::error::{DecodeError, Fault};
use super::path::Path;
use super::varint::{encode_bytes, encode_message, encode_optional, encode_varint, parse_body};

/// FETCH. It has a layout since 03 and is served since 05.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// Relative to the session root.
    pub broadcast: Path,
    pub track: String,
    /// Higher is more important.
    pub priority: u8,
    pub group: u64,
    /// (06) The first frame wanted.
    pub frame_start: u64,
    /// (06) The last frame wanted, inclusive; never before the first.
    pub frame_end: Option<u64>,
}

impl Fetch {
    pub fn decode(version: Version, body: &[u8]) -> Result<Fetch, DecodeError> {
        parse_body(body, |reader| {
            let mut fetch = Fetch {
                broadcast: reader.path()?,
                track: reader.string()?.to_owned(),
                priority: reader.u8()?,
                group: reader.varint()?,
                frame_start: 0,
                frame_end: None,
            };
            if version >= Version::Lite06 {
                fetch.frame_start = reader.varint()?;
                let start = reader.offset();
                fetch.frame_end = reader.optional()?;
                if fetch.frame_end.is_some_and(|end| end < fetch.frame_start) {
                    return Err(DecodeError::new(Fault::InvalidValue, start));
                }
            }
            Ok(fetch)
        })
    }

    /// 05 and older can only name the whole group.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        encode_message(out, |out| {
            self.broadcast.encode(out);
            encode_bytes(self.track.as_bytes(), out);
            out.push(self.priority);
            encode_varint(self.group, out);
            if version >= Version::Lite06 {
                encode_varint(self.frame_start, out);
                encode_optional(self.frame_end, out);
            }
        });
    }
}
