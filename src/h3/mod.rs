//! The few pieces of HTTP/3 that a WebTransport server needs, as bytes ⇄ values (spec §7).
//!
//! Knows no connection and no moq message. What is ours here is taking frames and capsules from
//! a stream that arrives in parts; what is in them is `web-transport-proto`'s.

pub mod capsule;
pub mod frame;
pub mod request;

use web_transport_proto::{Frame, Settings, StreamUni};

use crate::wire::{decode_varint, encode_varint};

/// The first varint of a bidirectional stream that belongs to a WebTransport session.
pub const WEBTRANSPORT_BIDI: u64 = Frame::WEBTRANSPORT.0.into_inner();

/// Types of unidirectional streams.
pub const CONTROL: u64 = StreamUni::CONTROL.0.into_inner();
pub const PUSH: u64 = StreamUni::PUSH.0.into_inner();
pub const QPACK_ENCODER: u64 = StreamUni::QPACK_ENCODER.0.into_inner();
pub const QPACK_DECODER: u64 = StreamUni::QPACK_DECODER.0.into_inner();
pub const WEBTRANSPORT_UNI: u64 = StreamUni::WEBTRANSPORT.0.into_inner();

/// An error code of HTTP/3 itself, of a stream or of the connection (RFC 9114 §8.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Code(pub u64);

impl Code {
    pub const NO_ERROR: Code = Code(0x100);
    pub const STREAM_CREATION_ERROR: Code = Code(0x103);
    pub const CLOSED_CRITICAL_STREAM: Code = Code(0x104);
    pub const FRAME_UNEXPECTED: Code = Code(0x105);
    pub const FRAME_ERROR: Code = Code(0x106);
    pub const EXCESSIVE_LOAD: Code = Code(0x107);
    const SETTINGS_ERROR: Code = Code(0x109);
    pub const MISSING_SETTINGS: Code = Code(0x10a);
    pub const REQUEST_INCOMPLETE: Code = Code(0x10d);
    pub const MESSAGE_ERROR: Code = Code(0x10e);
    /// RFC 9204 §6.
    pub const QPACK_DECOMPRESSION_FAILED: Code = Code(0x200);
    /// A stream of a session that does not exist (draft-ietf-webtrans-http3 §8.5).
    pub const BUFFERED_STREAM_REJECTED: Code = Code(0x3994_bd84);
}

/// The client broke the rules of HTTP/3, and the connection has to end.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("{reason}")]
pub struct Violation {
    pub code: Code,
    pub reason: &'static str,
}

impl Violation {
    pub const fn new(code: Code, reason: &'static str) -> Violation {
        Violation { code, reason }
    }
}

/// The type and the length at the front of a frame or a capsule, and the bytes that they take.
fn head(buf: &[u8]) -> Option<(u64, u64, usize)> {
    let (kind, kind_len) = decode_varint(buf)?;
    let (length, length_len) = decode_varint(&buf[kind_len..])?;
    Some((kind, length, kind_len + length_len))
}

// §7.1
/// Our control stream as far as it ever goes: its type and SETTINGS.
pub fn control_stream() -> Vec<u8> {
    let mut settings = Settings::default();
    settings.enable_webtransport(1);
    let mut out = Vec::new();
    settings.encode(&mut out);
    out
}

// §7.1
/// Whether the client's SETTINGS allow WebTransport. `payload` is that of its SETTINGS frame.
pub fn allows_webtransport(payload: &[u8]) -> Result<(), Violation> {
    // The library reads them with what precedes them on a control stream.
    let mut stream = Vec::with_capacity(payload.len() + 8);
    encode_varint(CONTROL, &mut stream);
    encode_varint(Frame::SETTINGS.0.into_inner(), &mut stream);
    encode_varint(payload.len() as u64, &mut stream);
    stream.extend_from_slice(payload);
    let settings = Settings::decode(&mut &stream[..])
        .map_err(|_| Violation::new(Code::SETTINGS_ERROR, "malformed SETTINGS"))?;
    if settings.supports_webtransport() == 0 {
        return Err(Violation::new(
            Code::SETTINGS_ERROR,
            "SETTINGS allow no WebTransport with datagrams",
        ));
    }
    Ok(())
}

// §7.2
/// What precedes the bytes of a stream that we open in a session.
pub fn stream_prefix(is_uni: bool, session: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    encode_varint(if is_uni { WEBTRANSPORT_UNI } else { WEBTRANSPORT_BIDI }, &mut out);
    encode_varint(session, &mut out);
    out
}

// §7.2
/// What precedes the body of a datagram of a session.
pub fn datagram_prefix(session: u64, out: &mut Vec<u8>) {
    encode_varint(session / 4, out);
}

// §7.2
/// The session of a datagram and where its body begins; `None` for one without a session.
pub fn split_datagram(datagram: &[u8]) -> Option<(u64, usize)> {
    let (quarter, used) = decode_varint(datagram)?;
    Some((quarter.checked_mul(4)?, used))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `settings` as pairs of id and value.
    fn payload(settings: &[(u64, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (id, value) in settings {
            encode_varint(*id, &mut out);
            encode_varint(*value, &mut out);
        }
        out
    }

    #[test]
    fn settings_of_browsers_and_others() {
        let table: [(&[(u64, u64)], bool); 9] = [
            // Chrome of several years, with GREASE.
            (&[(1, 65536), (6, 16384), (7, 100), (0x33, 1), (0x2b60_3742, 1), (0x40, 9)], true),
            (&[(0x00ff_d277, 1), (0x2b60_3742, 1)], true),
            (&[(8, 1), (0x33, 1), (0xc671_706a, 1)], true),
            (&[(8, 1), (0x33, 1), (0xc671_706a, 0)], false),
            (&[(8, 1), (0x33, 1)], false),
            (&[(8, 1), (0xc671_706a, 1)], false),
            (&[(0x33, 0), (0xc671_706a, 1)], false),
            (&[(0x33, 1), (0x2b60_3742, 0)], false),
            (&[], false),
        ];
        for (settings, allows) in table {
            assert_eq!(allows_webtransport(&payload(settings)).is_ok(), allows, "{settings:x?}");
        }
        // An id without its value.
        let cut = allows_webtransport(&[0x33]);
        assert_eq!(cut.unwrap_err().code, Code::SETTINGS_ERROR);
    }

    #[test]
    fn our_own_settings_allow_webtransport() {
        let stream = control_stream();
        // Type, frame type, length, each of one byte.
        assert_eq!((stream[0], stream[1], usize::from(stream[2])), (0, 4, stream.len() - 3));
        assert_eq!(allows_webtransport(&stream[3..]), Ok(()));
    }

    #[test]
    fn prefixes() {
        assert_eq!(stream_prefix(true, 0), [0x40, 0x54, 0]);
        assert_eq!(stream_prefix(false, 0), [0x40, 0x41, 0]);
        assert_eq!(stream_prefix(false, 4), [0x40, 0x41, 4]);
        let mut out = Vec::new();
        datagram_prefix(8, &mut out);
        assert_eq!(out, [2]);
        assert_eq!(split_datagram(&[2, 9, 9]), Some((8, 1)));
        assert_eq!(split_datagram(&[]), None);
        assert_eq!(split_datagram(&[0x40]), None);
    }
}
