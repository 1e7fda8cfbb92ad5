//! Capsules on the stream of a session: how the client ends it (RFC 9297 §3, spec §7.2).

use bytes::{Buf, Bytes, BytesMut};
use web_transport_proto::{Capsule, Frame};

use super::{Code, Violation, head};
use crate::limits::CLOSE_REASON_BYTES_MAX;
use crate::wire::encode_varint;

const CLOSE_SESSION: u64 = 0x2843;

/// A code and a reason.
const CLOSE_BYTES_MAX: u64 = 4 + CLOSE_REASON_BYTES_MAX as u64;

/// The client has ended the session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Close {
    pub code: u32,
    pub reason: String,
}

/// The capsules of one session, from the payload of its DATA frames.
#[derive(Debug, Default)]
pub struct Capsules {
    buf: BytesMut,
    /// Bytes of an unknown capsule that are still to come.
    skip: u64,
}

impl Capsules {
    pub fn push(&mut self, part: &[u8]) {
        self.buf.extend_from_slice(part);
    }

    /// Whether the bytes so far end with a capsule.
    pub fn at_boundary(&self) -> bool {
        self.buf.is_empty() && self.skip == 0
    }

    /// Skips what is of no interest, and finds the capsule that ends the session.
    pub fn take(&mut self) -> Result<Option<Close>, Violation> {
        const MALFORMED: Violation = Violation::new(Code::MESSAGE_ERROR, "malformed capsule");
        loop {
            let here = self.buf.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.buf.advance(here);
            self.skip -= here as u64;
            let Some((kind, length, head)) = head(&self.buf) else { return Ok(None) };
            if kind != CLOSE_SESSION {
                self.buf.advance(head);
                self.skip = length;
                continue;
            }
            if length > CLOSE_BYTES_MAX {
                return Err(MALFORMED);
            }
            if self.buf.len() < head + length as usize {
                return Ok(None);
            }
            return match Capsule::decode(&mut self.buf) {
                Ok(Capsule::CloseWebTransportSession { code, reason }) => {
                    Ok(Some(Close { code, reason }))
                }
                _ => Err(MALFORMED),
            };
        }
    }
}

/// The last frame on the stream of a session that we end.
pub fn close_session(code: u32, reason: &str) -> Bytes {
    let mut capsule = Vec::new();
    let reason = reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)].to_owned();
    Capsule::CloseWebTransportSession { code, reason }.encode(&mut capsule);
    let mut out = Vec::new();
    encode_varint(Frame::DATA.0.into_inner(), &mut out);
    encode_varint(capsule.len() as u64, &mut out);
    out.extend_from_slice(&capsule);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capsule(kind: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_varint(kind, &mut out);
        encode_varint(payload.len() as u64, &mut out);
        out.extend_from_slice(payload);
        out
    }

    fn read(bytes: &[u8], step: usize) -> Result<Option<Close>, Violation> {
        let mut capsules = Capsules::default();
        for part in bytes.chunks(step) {
            capsules.push(part);
            if let Some(close) = capsules.take()? {
                return Ok(Some(close));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_close_among_others() {
        let stream = [
            capsule(0x17, b"grease"),
            capsule(0x78ae, b""),
            capsule(0x1234, &[1; 70_000]),
            capsule(CLOSE_SESSION, b"\0\0\0\x2abye"),
        ]
        .concat();
        let expect = Close { code: 42, reason: "bye".to_owned() };
        for step in [1, 5, 100_000] {
            assert_eq!(read(&stream, step), Ok(Some(expect.clone())));
        }
        assert_eq!(read(&stream[..stream.len() - 1], 9), Ok(None));
    }

    #[test]
    fn malformed_closes() {
        let too_long = [&[0; 4][..], &[b'x'; CLOSE_REASON_BYTES_MAX + 1]].concat();
        for payload in [&b""[..], b"\0\0\0", b"\0\0\0\0\xff", &too_long] {
            let error = read(&capsule(CLOSE_SESSION, payload), 7).unwrap_err();
            assert_eq!(error.code, Code::MESSAGE_ERROR, "{} bytes", payload.len());
        }
        let most = [&[0; 4][..], &[b'x'; CLOSE_REASON_BYTES_MAX]].concat();
        assert!(read(&capsule(CLOSE_SESSION, &most), 7).unwrap().is_some());
    }

    /// Spec §6, vectors 54 and 55.
    #[test]
    fn what_we_write() {
        let bye = [0, 0x0a, 0x68, 0x43, 7, 0, 0, 0, 3, b'b', b'y', b'e'];
        assert_eq!(close_session(3, "bye")[..], bye);
        assert_eq!(close_session(0, "")[..], [0, 7, 0x68, 0x43, 4, 0, 0, 0, 0]);
    }
}
