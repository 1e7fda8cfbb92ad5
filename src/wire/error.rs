//! What can be wrong with bytes, and the two code registries of §4.17.

use std::fmt;

/// A message that breaks the rules, and where.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("{fault} at byte {offset}")]
pub struct DecodeError {
    pub fault: Fault,
    /// Bytes from the start of the message body to the field at fault.
    pub offset: usize,
}

impl DecodeError {
    pub fn new(fault: Fault, offset: usize) -> DecodeError {
        DecodeError { fault, offset }
    }
}

/// Which rule was broken.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// A field reaches past the end of its message.
    #[error("message too short")]
    Short,
    /// Bytes are left over after the last field.
    #[error("message too long")]
    Long,
    /// A declared length or count is beyond its limit.
    #[error("over the size limit")]
    TooLarge,
    #[error("invalid UTF-8")]
    InvalidUtf8,
    #[error("invalid value")]
    InvalidValue,
    #[error("too many path segments")]
    PathTooDeep,
    #[error("too many hops")]
    HopsTooMany,
    /// The same identity twice in one chain: the route is a loop.
    #[error("hop repeated")]
    HopRepeated,
    #[error("parameter repeated")]
    ParameterRepeated,
    #[error("too many parameters")]
    ParametersTooMany,
}

/// The first HTTP/3 error code of the WebTransport range.
const HTTP3_CODE_MIN: u64 = 0x52e4_a40f_a8db;
/// The last one: code `u32::MAX`.
const HTTP3_CODE_MAX: u64 = 0x52e5_ac98_3162;
/// HTTP/3 reserves one code in this many, and the mapping steps over those.
const HTTP3_RESERVED_EVERY: u64 = 0x1f;

// §4.18
fn to_http3(code: u64) -> Option<u64> {
    let code = u64::from(u32::try_from(code).ok()?);
    Some(HTTP3_CODE_MIN + code + code / (HTTP3_RESERVED_EVERY - 1))
}

// §4.18
fn from_http3(code: u64) -> Option<u64> {
    if !(HTTP3_CODE_MIN..=HTTP3_CODE_MAX).contains(&code) {
        return None;
    }
    let distance = code - HTTP3_CODE_MIN;
    // A reserved code would alias its neighbour; nobody may send it, so it names nothing.
    if distance % HTTP3_RESERVED_EVERY == HTTP3_RESERVED_EVERY - 1 {
        return None;
    }
    Some(distance - distance / HTTP3_RESERVED_EVERY)
}

/// One registry: a constant and a printable name per code.
macro_rules! registry {
    ($registry:ident { $($(#[$doc:meta])* $constant:ident = $code:literal, $name:literal;)+ }) => {
        impl $registry {
            $($(#[$doc])* pub const $constant: $registry = $registry($code);)+

            /// The registered name, `None` outside the registry.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($name),)+
                    _ => None,
                }
            }
        }

        impl fmt::Display for $registry {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => write!(f, "{name} ({:#x})", self.0),
                    None if self.0 >= APPLICATION_CODE_MIN => {
                        write!(f, "application {} ({:#x})", self.0 - APPLICATION_CODE_MIN, self.0)
                    }
                    None => write!(f, "unknown ({:#x})", self.0),
                }
            }
        }
    };
}

/// Both registries leave everything from here up to applications.
const APPLICATION_CODE_MIN: u64 = 0x40;

// §4.17
/// The code of a RESET_STREAM or STOP_SENDING, unmapped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StreamCode(pub u64);

registry!(StreamCode {
    /// Unspecified; also what an abort without a code looks like.
    INTERNAL = 0x0, "internal";
    /// Routine: unsubscribed, abandoned.
    CANCEL = 0x1, "cancel";
    DELIVERY_TIMEOUT = 0x2, "delivery timeout";
    SESSION_CLOSED = 0x3, "session closed";
    GOING_AWAY = 0x4, "going away";
    /// The requested frame is no longer held.
    TOO_FAR_BEHIND = 0x5, "too far behind";
    MALFORMED_TRACK = 0x12, "malformed track";
    CONTROL_TIMEOUT = 0x31, "control timeout";
    GROUP_TOO_LARGE = 0x32, "group too large";
    NOT_FOUND = 0x33, "not found";
    /// The group was superseded and expired.
    OLD = 0x34, "old";
    /// The group was dropped for memory while current; fetching it again may work.
    EVICTED = 0x35, "evicted";
    /// No announced route covers the broadcast.
    UNROUTABLE = 0x36, "unroutable";
    /// A payload shorter or longer than declared.
    WRONG_SIZE = 0x37, "wrong size";
    FRAME_TOO_LARGE = 0x38, "frame too large";
    TIMESTAMP_MISMATCH = 0x39, "timestamp mismatch";
});

impl StreamCode {
    /// The code to put on the downstream stream when this one arrived from upstream.
    pub fn relayed(self) -> StreamCode {
        let known = self.name().is_some() || self.0 >= APPLICATION_CODE_MIN;
        if known { self } else { StreamCode::INTERNAL }
    }

    // §4.18
    /// The code a raw QUIC peer meant. Older native peers map stream codes as if they spoke
    /// WebTransport, so a value in or above that range is unmapped.
    pub fn from_raw_quic(code: u64) -> StreamCode {
        if code < HTTP3_CODE_MIN {
            return StreamCode(code);
        }
        StreamCode::from_http3(code).unwrap_or(StreamCode::INTERNAL)
    }

    /// The code a WebTransport peer meant. `None` outside the mapped range; treat that as
    /// [`StreamCode::INTERNAL`], which is what dropping a receive half without a code sends.
    pub fn from_http3(code: u64) -> Option<StreamCode> {
        from_http3(code).map(StreamCode)
    }

    /// The HTTP/3 code that carries this one. A code wider than 32 bits exists only on raw QUIC
    /// and becomes internal.
    pub fn to_http3(self) -> u64 {
        to_http3(self.0).unwrap_or(HTTP3_CODE_MIN)
    }
}

// §4.17
/// The code of a CONNECTION_CLOSE or WebTransport close capsule, unmapped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionCode(pub u64);

registry!(SessionCode {
    NO_ERROR = 0x0, "no error";
    INTERNAL = 0x1, "internal";
    UNAUTHORIZED = 0x2, "unauthorized";
    PROTOCOL_VIOLATION = 0x3, "protocol violation";
    KEY_VALUE = 0x6, "key-value formatting";
    GOAWAY_TIMEOUT = 0x10, "goaway timeout";
    CONTROL_TIMEOUT = 0x11, "control timeout";
    VERSION = 0x15, "version negotiation failed";
});

impl SessionCode {
    /// An application's code, which the reference uses like HTTP's 502: somebody whom the relay has to ask
    /// does not answer. Clients try again.
    pub const BAD_GATEWAY: SessionCode = SessionCode(APPLICATION_CODE_MIN + 502);

    /// The same for HTTP's 429: the client has as many sessions as it may. It tries again.
    pub const TOO_MANY_REQUESTS: SessionCode = SessionCode(APPLICATION_CODE_MIN + 429);

    /// The code a WebTransport peer put in CONNECTION_CLOSE. `None` outside the mapped range:
    /// the session was lost rather than closed.
    pub fn from_http3(code: u64) -> Option<SessionCode> {
        from_http3(code).map(SessionCode)
    }

    /// The HTTP/3 code for CONNECTION_CLOSE. The close capsule carries the code unmapped.
    pub fn to_http3(self) -> u64 {
        to_http3(self.0).unwrap_or(HTTP3_CODE_MIN + SessionCode::INTERNAL.0)
    }
}
