//! Subscribe streams: SUBSCRIBE and its updates (§3.4), and what the publisher answers (§3.5).

use super::Version;
use super::error::{DecodeError, Fault};
use super::path::Path;
use super::varint::{
    Reader, encode_bytes, encode_message, encode_optional, encode_varint, parse_body, take_message,
    take_typed_message,
};

/// What the max age of a subscription on 01 and 02 counts as: those cannot state one. The largest
/// number a JavaScript peer can read.
pub const MAX_AGE_MS_UNBOUNDED: u64 = (1 << 53) - 1;

// §3.4
/// What a subscriber wants of a track, at first and after every update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Preferences {
    /// Higher is more important.
    pub priority: u8,
    /// How far behind the newest group a group may be and still be worth sending.
    pub max_age_ms: u64,
    /// The first group wanted. `None`: on 05 and older the newest, on 06 no floor.
    pub group_start: Option<u64>,
    /// The last group wanted, inclusive.
    pub group_end: Option<u64>,
    /// (06) The first frame wanted of the start group. Non-zero only with a group start.
    pub frame_start: u64,
    /// (06) The last frame wanted of the end group, inclusive. Only with a group end.
    pub frame_end: Option<u64>,
}

impl Preferences {
    /// SUBSCRIBE_UPDATE (03+), which replaces every field. There is none on 01 and 02; some peers
    /// send a bare priority there, which this reads and a session ignores.
    pub fn decode_update(version: Version, body: &[u8]) -> Result<Preferences, DecodeError> {
        parse_body(body, |reader| Preferences::decode(version, reader))
    }

    /// Writes nothing on 01 and 02.
    pub fn encode_update(&self, version: Version, out: &mut Vec<u8>) {
        if version >= Version::Lite03 {
            encode_message(out, |out| self.encode(version, out));
        }
    }

    fn decode(version: Version, reader: &mut Reader<'_>) -> Result<Preferences, DecodeError> {
        let mut preferences = Preferences {
            priority: reader.u8()?,
            max_age_ms: MAX_AGE_MS_UNBOUNDED,
            group_start: None,
            group_end: None,
            frame_start: 0,
            frame_end: None,
        };
        match version {
            Version::Lite01 | Version::Lite02 => {}
            Version::Lite03 | Version::Lite04 | Version::Lite05 => {
                let _ordered = reader.u8()?;
                preferences.max_age_ms = reader.duration_ms()?;
                preferences.group_start = reader.optional()?;
                preferences.group_end = reader.optional()?;
            }
            Version::Lite06 => {
                preferences.max_age_ms = reader.duration_ms()?;
                let floor = reader.varint()?;
                preferences.group_end = reader.optional()?;
                preferences.frame_start = reader.varint()?;
                let start = reader.offset();
                preferences.frame_end = reader.optional()?;
                // A floor of 0 is no floor, unless a frame of group 0 is named.
                let floored = floor > 0 || preferences.frame_start > 0;
                preferences.group_start = floored.then_some(floor);
                if preferences.frame_end.is_some() && preferences.group_end.is_none() {
                    return Err(DecodeError::new(Fault::InvalidValue, start));
                }
            }
        }
        Ok(preferences)
    }

    fn encode(&self, version: Version, out: &mut Vec<u8>) {
        out.push(self.priority);
        match version {
            Version::Lite01 | Version::Lite02 => {}
            Version::Lite03 | Version::Lite04 | Version::Lite05 => {
                out.push(0); // ordered, retired
                encode_varint(self.max_age_ms, out);
                encode_optional(self.group_start, out);
                encode_optional(self.group_end, out);
            }
            Version::Lite06 => {
                // A frame bound without its group is not expressible: drop it, widening the range.
                let frame_start = self.group_start.map_or(0, |_| self.frame_start);
                let frame_end = self.group_end.and(self.frame_end);
                encode_varint(self.max_age_ms, out);
                encode_varint(self.group_start.unwrap_or(0), out);
                encode_optional(self.group_end, out);
                encode_varint(frame_start, out);
                encode_optional(frame_end, out);
            }
        }
    }
}

// §3.4
/// SUBSCRIBE, the first message of its stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscribe {
    /// Chosen by the subscriber, unique in its session; group streams and datagrams carry it.
    pub id: u64,
    /// Relative to the session root.
    pub broadcast: Path,
    pub track: String,
    pub preferences: Preferences,
}

impl Subscribe {
    pub fn decode(version: Version, body: &[u8]) -> Result<Subscribe, DecodeError> {
        parse_body(body, |reader| {
            Ok(Subscribe {
                id: reader.varint()?,
                broadcast: reader.path()?,
                track: reader.string()?.to_owned(),
                preferences: Preferences::decode(version, reader)?,
            })
        })
    }

    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        encode_message(out, |out| {
            encode_varint(self.id, out);
            self.broadcast.encode(out);
            encode_bytes(self.track.as_bytes(), out);
            self.preferences.encode(version, out);
        });
    }
}

// §3.5
/// What a publisher says on a subscribe stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubscribeResponse {
    /// (01–04) The subscription is accepted. 01 carries the priority alone and 02 nothing; what
    /// is absent reads as 0 or none.
    Ok { priority: u8, max_age_ms: u64, group_start: Option<u64>, group_end: Option<u64> },
    /// (05+) The first group that will be served.
    Start { group: u64 },
    /// (05+) The track ends before this group: an exclusive bound, 0 for no groups at all.
    End { group: u64 },
    /// (03+) Groups `start` to `end`, inclusive, will not come. Parsed; never sent by deployed
    /// peers.
    Drop { start: u64, end: u64, code: u64 },
}

impl SubscribeResponse {
    pub fn take(
        version: Version,
        buf: &[u8],
    ) -> Result<Option<(SubscribeResponse, usize)>, DecodeError> {
        match version {
            Version::Lite01 => take_message(buf, |reader| {
                let priority = reader.u8()?;
                Ok(SubscribeResponse::accepted(priority))
            }),
            Version::Lite02 => take_message(buf, |_| Ok(SubscribeResponse::accepted(0))),
            _ => take_typed_message(buf, |kind, reader| {
                SubscribeResponse::read_typed(version, kind, reader)
            }),
        }
    }

    fn accepted(priority: u8) -> SubscribeResponse {
        SubscribeResponse::Ok { priority, max_age_ms: 0, group_start: None, group_end: None }
    }

    fn read_typed(
        version: Version,
        kind: u64,
        reader: &mut Reader<'_>,
    ) -> Result<SubscribeResponse, DecodeError> {
        let bounded = version >= Version::Lite05;
        Ok(match kind {
            0 if bounded => SubscribeResponse::Start { group: reader.varint()? },
            0 => {
                let priority = reader.u8()?;
                let _ordered = reader.u8()?;
                SubscribeResponse::Ok {
                    priority,
                    max_age_ms: reader.duration_ms()?,
                    group_start: reader.optional()?,
                    group_end: reader.optional()?,
                }
            }
            1 if bounded => SubscribeResponse::End { group: reader.varint()? },
            kind if kind == drop_type(version) => SubscribeResponse::Drop {
                start: reader.varint()?,
                end: reader.varint()?,
                code: reader.varint()?,
            },
            _ => return Err(DecodeError::new(Fault::InvalidValue, 0)),
        })
    }

    /// Writes nothing where the version has no such response.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let legacy = version <= Version::Lite02;
        let bounded = version >= Version::Lite05;
        match *self {
            SubscribeResponse::Ok { priority, .. } if legacy => encode_message(out, |out| {
                if version == Version::Lite01 {
                    out.push(priority);
                }
            }),
            SubscribeResponse::Ok { priority, max_age_ms, group_start, group_end } if !bounded => {
                encode_varint(0, out);
                encode_message(out, |out| {
                    out.push(priority);
                    out.push(0); // ordered, retired
                    encode_varint(max_age_ms, out);
                    encode_optional(group_start, out);
                    encode_optional(group_end, out);
                });
            }
            SubscribeResponse::Start { group } if bounded => {
                encode_varint(0, out);
                encode_message(out, |out| encode_varint(group, out));
            }
            SubscribeResponse::End { group } if bounded => {
                encode_varint(1, out);
                encode_message(out, |out| encode_varint(group, out));
            }
            SubscribeResponse::Drop { start, end, code } if !legacy => {
                encode_varint(drop_type(version), out);
                encode_message(out, |out| {
                    encode_varint(start, out);
                    encode_varint(end, out);
                    encode_varint(code, out);
                });
            }
            _ => {}
        }
    }
}

/// SUBSCRIBE_END took the number that SUBSCRIBE_DROP had.
fn drop_type(version: Version) -> u64 {
    if version >= Version::Lite05 { 2 } else { 1 }
}
