//! Track streams (05+) (§3.6): a question about a track, and its one answer.

use super::Version;
use super::error::{DecodeError, Fault};
use super::path::Path;
use super::varint::{encode_bytes, encode_message, encode_varint, parse_body, take_message};

/// TRACK: what is this track like?
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrackRequest {
    /// Relative to the session root.
    pub broadcast: Path,
    pub track: String,
}

impl TrackRequest {
    pub fn decode(body: &[u8]) -> Result<TrackRequest, DecodeError> {
        parse_body(body, |reader| {
            Ok(TrackRequest { broadcast: reader.path()?, track: reader.string()?.to_owned() })
        })
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_message(out, |out| {
            self.broadcast.encode(out);
            encode_bytes(self.track.as_bytes(), out);
        });
    }
}

/// TRACK_INFO: what the publisher says of a track, fixed for the life of the broadcast.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrackInfo {
    /// The publisher's own, informational.
    pub priority: u8,
    /// How long the publisher retains a group after a newer one.
    pub max_age_ms: u64,
    /// Ticks per second of the timestamps; never 0.
    pub timescale: u64,
}

impl TrackInfo {
    pub fn take(version: Version, buf: &[u8]) -> Result<Option<(TrackInfo, usize)>, DecodeError> {
        take_message(buf, |reader| {
            let priority = reader.u8()?;
            if carries_ordered(version) {
                reader.u8()?;
            }
            let max_age_ms = reader.duration_ms()?;
            let start = reader.offset();
            let timescale = reader.varint()?;
            if timescale == 0 {
                return Err(DecodeError::new(Fault::InvalidValue, start));
            }
            Ok(TrackInfo { priority, max_age_ms, timescale })
        })
    }

    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        encode_message(out, |out| {
            out.push(self.priority);
            if carries_ordered(version) {
                out.push(0);
            }
            encode_varint(self.max_age_ms, out);
            encode_varint(self.timescale, out);
        });
    }
}

/// The retired Ordered byte: written 0, and any value is read.
fn carries_ordered(version: Version) -> bool {
    version <= Version::Lite05
}
