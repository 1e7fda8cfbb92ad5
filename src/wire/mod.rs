//! moq-lite bytes ⇄ messages, lite-01 to lite-06.
//!
//! Everything here is a function from bytes to values and back. This module does not know QUIC,
//! clocks, tasks or logs, and keeps no state between messages: announce ids, duplicate paths and
//! timestamps are the session's to remember. No input makes it panic, and no input makes it
//! allocate more than a small multiple of the bytes received.
//!
//! Section numbers (§) refer to the moq-lite wire reference.
//!
//! Three shapes recur:
//!
//! * `decode(body)` parses one message whose length prefix was already split off;
//! * `take(buf)` parses one message from the front of a receive buffer and says how many bytes it
//!   used, or `None` while bytes are missing;
//! * `encode(out)` appends the message with its length prefix, but never the stream type.
//!
//! A `Version` is passed only where the layout depends on it. Encoding a message on a version
//! that has no such message appends nothing.

pub mod announce;
pub mod error;
pub mod fetch;
pub mod goaway;
pub mod group;
pub mod path;
pub mod probe;
pub mod setup;
pub mod subscribe;
pub mod track;
pub mod varint;

use std::fmt;

pub use announce::{Announce, AnnounceInit, AnnounceOk, AnnounceRequest};
pub use error::{DecodeError, Fault, SessionCode, StreamCode};
pub use fetch::Fetch;
pub use goaway::{GOAWAY_URI_BYTES_MAX, Goaway};
pub use group::{Datagram, FrameHeader, GROUP_HEADER_BYTES_MAX, GroupHeader};
pub use group::{timestamp_after, timestamp_delta};
pub use path::{Cost, HOPS_MAX, Hops, PATH_SEGMENTS_MAX, Path};
pub use probe::Probe;
pub use setup::{ClientSetup, LegacyParameter, ProbeLevel, Role, ServerSetup, SessionInfo, Setup};
pub use setup::{SETUP_PARAMETERS_MAX, split_path_query};
pub use subscribe::{MAX_AGE_MS_UNBOUNDED, Preferences, Subscribe, SubscribeResponse};
pub use track::{TrackInfo, TrackRequest};
pub use varint::{Reader, VARINT_MAX, split_message};
pub use varint::{decode_varint, encode_varint, unzigzag, varint_len, varint_len_by, zigzag};

/// Bytes in the body of one control message.
///
/// The reference permits 64 MiB; no legitimate control message comes near 64 KiB, and a relay
/// buffers one per stream. SETUP has this very limit in the reference too (§2.3).
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 64 * 1024;

// §1.1
/// A released moq-lite version. Ordered by age: `version >= Version::Lite05` reads "05+".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Version {
    Lite01,
    Lite02,
    Lite03,
    Lite04,
    Lite05,
    Lite06,
}

impl Version {
    pub const ALL: [Version; 6] = [
        Version::Lite01,
        Version::Lite02,
        Version::Lite03,
        Version::Lite04,
        Version::Lite05,
        Version::Lite06,
    ];

    /// The TLS ALPN and WebTransport subprotocol. 01 and 02 share one and tell each other apart
    /// in the legacy SETUP.
    pub fn alpn(self) -> &'static str {
        match self {
            Version::Lite01 | Version::Lite02 => "moql",
            Version::Lite03 => "moq-lite-03",
            Version::Lite04 => "moq-lite-04",
            Version::Lite05 => "moq-lite-05",
            Version::Lite06 => "moq-lite-06",
        }
    }

    /// The version code, seen on the wire only in the legacy SETUP.
    pub fn code(self) -> u64 {
        0xff0d_ad01 + self as u64
    }

    /// The inverse of [`Version::code`].
    pub fn from_code(code: u64) -> Option<Version> {
        Version::ALL.into_iter().find(|version| version.code() == code)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "moq-lite-0{}", *self as u8 + 1)
    }
}

// §1.1
/// What the two ends of a connection have agreed to speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Version(Version),
    /// 01 or 02: the legacy SETUP tells which.
    Legacy,
}

impl Protocol {
    /// In our order of preference.
    pub const ALL: [Protocol; 5] = [
        Protocol::Version(Version::Lite06),
        Protocol::Version(Version::Lite05),
        Protocol::Version(Version::Lite04),
        Protocol::Version(Version::Lite03),
        Protocol::Legacy,
    ];

    /// The TLS ALPN and WebTransport subprotocol.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Version(version) => version.alpn(),
            Protocol::Legacy => Version::Lite02.alpn(),
        }
    }

    /// The inverse of [`Protocol::name`], by exact match: `moq-lite-06-wip` has another ANNOUNCE
    /// layout and is not spoken here.
    pub fn from_name(name: &[u8]) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|protocol| protocol.name().as_bytes() == name)
    }
}

// §3.1
/// The first varint of a bidirectional stream. `as u64` gives the wire value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u64)]
pub enum BidiType {
    Session = 0x0,
    Announce = 0x1,
    Subscribe = 0x2,
    Fetch = 0x3,
    Probe = 0x4,
    Goaway = 0x5,
    Track = 0x6,
    ClientSetup = 0x20,
}

impl BidiType {
    pub fn from_u64(value: u64) -> Option<BidiType> {
        Some(match value {
            0x0 => BidiType::Session,
            0x1 => BidiType::Announce,
            0x2 => BidiType::Subscribe,
            0x3 => BidiType::Fetch,
            0x4 => BidiType::Probe,
            0x5 => BidiType::Goaway,
            0x6 => BidiType::Track,
            0x20 => BidiType::ClientSetup,
            _ => return None,
        })
    }

    /// Whether a relay may open or serve this stream. FETCH has a layout on 03 and 04, yet no
    /// deployed peer serves it there.
    pub fn supported(self, version: Version) -> bool {
        match self {
            BidiType::Session => false,
            BidiType::Announce | BidiType::Subscribe => true,
            BidiType::Fetch | BidiType::Track => version >= Version::Lite05,
            BidiType::Probe => version >= Version::Lite03,
            BidiType::Goaway => version >= Version::Lite04,
            BidiType::ClientSetup => version <= Version::Lite02,
        }
    }
}

// §3.1
/// The first varint of a unidirectional stream. `as u64` gives the wire value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u64)]
pub enum UniType {
    Group = 0x0,
    Setup = 0x1,
}

impl UniType {
    pub fn from_u64(value: u64) -> Option<UniType> {
        match value {
            0x0 => Some(UniType::Group),
            0x1 => Some(UniType::Setup),
            _ => None,
        }
    }

    /// Whether a relay may open or serve this stream.
    pub fn supported(self, version: Version) -> bool {
        match self {
            UniType::Group => true,
            UniType::Setup => version >= Version::Lite05,
        }
    }
}
