//! Announce streams (§3.3): one request, then the broadcasts that come and go below its prefix.

use super::Version;
use super::error::{DecodeError, Fault};
use super::path::{Cost, Hops, Path};
use super::varint::{
    Reader, encode_message, encode_varint, parse_body, take_message, take_typed_message,
};

const STATUS_ENDED: u8 = 0;
const STATUS_ACTIVE: u8 = 1;
const STATUS_RESTART: u8 = 2;

const TYPE_START: u64 = 0;
const TYPE_END: u64 = 1;
const TYPE_RESTART: u64 = 2;

/// ANNOUNCE_REQUEST: the subscriber asks what lies below `prefix`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnnounceRequest {
    pub prefix: Path,
    /// Routes through this identity are of no use to the requester. 0 for none, and on every
    /// version but 04 and 05, which alone carry it.
    pub exclude_hop: u64,
}

impl AnnounceRequest {
    pub fn decode(version: Version, body: &[u8]) -> Result<AnnounceRequest, DecodeError> {
        parse_body(body, |reader| {
            let prefix = reader.path()?;
            let exclude_hop = if carries_exclude_hop(version) { reader.varint()? } else { 0 };
            Ok(AnnounceRequest { prefix, exclude_hop })
        })
    }

    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        encode_message(out, |out| {
            self.prefix.encode(out);
            if carries_exclude_hop(version) {
                encode_varint(self.exclude_hop, out);
            }
        });
    }
}

fn carries_exclude_hop(version: Version) -> bool {
    matches!(version, Version::Lite04 | Version::Lite05)
}

/// ANNOUNCE_INIT (01, 02): everything live when the stream was opened.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct AnnounceInit {
    pub suffixes: Vec<Path>,
}

impl AnnounceInit {
    pub fn take(buf: &[u8]) -> Result<Option<(AnnounceInit, usize)>, DecodeError> {
        take_message(buf, |reader| {
            let count = reader.varint()?;
            // Grows as paths arrive: the count is the peer's word, and a path takes a byte.
            let mut suffixes = Vec::new();
            for _ in 0..count {
                suffixes.push(reader.path()?);
            }
            Ok(AnnounceInit { suffixes })
        })
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_message(out, |out| {
            encode_varint(self.suffixes.len() as u64, out);
            for suffix in &self.suffixes {
                suffix.encode(out);
            }
        });
    }
}

/// ANNOUNCE_OK (05+): who answers, and how long the initial set is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnnounceOk {
    /// The responder's identity, 0 if withheld. The receiver appends it to every chain.
    pub hop: u64,
    /// Announcements that follow at once and form the initial set.
    pub active: u64,
}

impl AnnounceOk {
    pub fn take(buf: &[u8]) -> Result<Option<(AnnounceOk, usize)>, DecodeError> {
        take_message(buf, |reader| {
            Ok(AnnounceOk { hop: reader.varint()?, active: reader.varint()? })
        })
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_message(out, |out| {
            encode_varint(self.hop, out);
            encode_varint(self.active, out);
        });
    }
}

/// One change to the set of live broadcasts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Announce {
    /// `suffix` is live: "active" on 05 and older, ANNOUNCE_START on 06.
    ///
    /// `hops` is empty on 01 and 02, and all zeros on 03, which sends only their number. `cost`
    /// is zero on 05 and older, which have none. On 05 a suffix that is already live restarts.
    Start { suffix: Path, hops: Hops, cost: Cost },
    /// (05) The explicit form of a restart. Deployed peers accept it and send the other one, so
    /// encoding writes that one too.
    Restart05 { suffix: Path, hops: Hops },
    /// (01–05) `suffix` is gone.
    Ended { suffix: Path },
    /// (06) The announcement that was the `id`-th START of this stream, counted from 0, is gone.
    End { id: u64 },
    /// (06) Announcement `id` goes on over another route.
    Restart { id: u64, hops: Hops, cost: Cost },
    /// (06) A type this version does not define. It takes no id, and encoding it writes nothing.
    Unknown,
}

impl Announce {
    pub fn take(version: Version, buf: &[u8]) -> Result<Option<(Announce, usize)>, DecodeError> {
        if version >= Version::Lite06 {
            take_typed_message(buf, Announce::read_typed)
        } else {
            take_message(buf, |reader| Announce::read_status(version, reader))
        }
    }

    fn read_typed(kind: u64, reader: &mut Reader<'_>) -> Result<Announce, DecodeError> {
        Ok(match kind {
            TYPE_START => Announce::Start {
                suffix: reader.path()?,
                hops: Hops::decode(reader)?,
                cost: Cost::decode(reader)?,
            },
            TYPE_END => Announce::End { id: reader.varint()? },
            TYPE_RESTART => Announce::Restart {
                id: reader.varint()?,
                hops: Hops::decode(reader)?,
                cost: Cost::decode(reader)?,
            },
            _ => {
                reader.skip_rest();
                Announce::Unknown
            }
        })
    }

    fn read_status(version: Version, reader: &mut Reader<'_>) -> Result<Announce, DecodeError> {
        let start = reader.offset();
        let status = reader.u8()?;
        let known = match status {
            STATUS_ENDED | STATUS_ACTIVE => true,
            STATUS_RESTART => version == Version::Lite05,
            _ => false,
        };
        if !known {
            return Err(DecodeError::new(Fault::InvalidValue, start));
        }
        let suffix = reader.path()?;
        let hops = match version {
            Version::Lite01 | Version::Lite02 => Hops::new(),
            Version::Lite03 => Hops::decode_anonymous(reader)?,
            _ => Hops::decode(reader)?,
        };
        Ok(match status {
            STATUS_ENDED => Announce::Ended { suffix },
            STATUS_ACTIVE => Announce::Start { suffix, hops, cost: Cost::ZERO },
            _ => Announce::Restart05 { suffix, hops },
        })
    }

    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        if version >= Version::Lite06 {
            self.encode_typed(out);
        } else {
            self.encode_status(version, out);
        }
    }

    fn encode_typed(&self, out: &mut Vec<u8>) {
        match self {
            Announce::Start { suffix, hops, cost } => {
                encode_varint(TYPE_START, out);
                encode_message(out, |out| {
                    suffix.encode(out);
                    hops.encode(out);
                    cost.encode(out);
                });
            }
            Announce::End { id } => {
                encode_varint(TYPE_END, out);
                encode_message(out, |out| encode_varint(*id, out));
            }
            Announce::Restart { id, hops, cost } => {
                encode_varint(TYPE_RESTART, out);
                encode_message(out, |out| {
                    encode_varint(*id, out);
                    hops.encode(out);
                    cost.encode(out);
                });
            }
            Announce::Restart05 { .. } | Announce::Ended { .. } | Announce::Unknown => {}
        }
    }

    fn encode_status(&self, version: Version, out: &mut Vec<u8>) {
        let none = Hops::new();
        let (status, suffix, hops) = match self {
            Announce::Start { suffix, hops, .. } => (STATUS_ACTIVE, suffix, hops),
            Announce::Restart05 { suffix, hops } if version == Version::Lite05 => {
                (STATUS_ACTIVE, suffix, hops)
            }
            Announce::Ended { suffix } => (STATUS_ENDED, suffix, &none),
            _ => return,
        };
        encode_message(out, |out| {
            out.push(status);
            suffix.encode(out);
            match version {
                Version::Lite01 | Version::Lite02 => {}
                Version::Lite03 => encode_varint(hops.len() as u64, out),
                _ => hops.encode(out),
            }
        });
    }
}
