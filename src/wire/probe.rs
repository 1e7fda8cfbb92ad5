//! Probe streams (03+) (§3.8): the request is the stream type alone, the answer a run of reports.

use super::Version;
use super::error::DecodeError;
use super::varint::{encode_message, encode_varint, take_message};

/// PROBE, one report. A measured 0 is reported as 1, because 0 says "unknown".
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Bits per second, 0 if unknown.
    pub bitrate: u64,
    /// (04+) Milliseconds, 0 if unknown.
    pub rtt_ms: u64,
}

impl Probe {
    pub fn take(version: Version, buf: &[u8]) -> Result<Option<(Probe, usize)>, DecodeError> {
        take_message(buf, |reader| {
            Ok(Probe {
                bitrate: reader.varint()?,
                rtt_ms: if version >= Version::Lite04 { reader.varint()? } else { 0 },
            })
        })
    }

    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        encode_message(out, |out| {
            encode_varint(self.bitrate, out);
            if version >= Version::Lite04 {
                encode_varint(self.rtt_ms, out);
            }
        });
    }
}
