//! HTTP/3 frames, taken from a stream that arrives in parts (RFC 9114 §7).

use bytes::{Buf, Bytes, BytesMut};
use web_transport_proto::Frame as Kind;

use super::{Code, Violation, head};
use crate::limits::{HTTP3_FIELD_SECTION_BYTES_MAX, HTTP3_FRAME_BYTES_MAX};

const DATA: u64 = Kind::DATA.0.into_inner();
const HEADERS: u64 = Kind::HEADERS.0.into_inner();
const SETTINGS: u64 = Kind::SETTINGS.0.into_inner();

/// Frame types of HTTP/2 that HTTP/3 reserves, so that nobody mixes them up (RFC 9114 §7.2.8).
const RESERVED: [u64; 4] = [0x2, 0x6, 0x8, 0x9];

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    Headers(Bytes),
    /// HEADERS that are longer than we read; they are skipped.
    HeadersTooLarge,
    Settings(Bytes),
    /// Some of the payload of a DATA frame.
    Data(Bytes),
    /// A frame that means nothing here; its payload is skipped.
    Other,
}

/// The frames of one stream.
#[derive(Debug, Default)]
pub struct Frames {
    buf: BytesMut,
    /// Bytes of the present frame that are passed on or skipped as they come.
    rest: u64,
    is_data: bool,
}

impl Frames {
    pub fn push(&mut self, part: &[u8]) {
        self.buf.extend_from_slice(part);
    }

    /// Whether the bytes so far end with a frame.
    pub fn at_boundary(&self) -> bool {
        self.buf.is_empty() && self.rest == 0
    }

    /// The next frame, or part of one; none while bytes are missing.
    pub fn take(&mut self) -> Result<Option<Frame>, Violation> {
        if self.rest > 0 {
            let part = self.take_rest();
            if self.is_data && !part.is_empty() {
                return Ok(Some(Frame::Data(part)));
            }
            if self.rest > 0 {
                return Ok(None);
            }
        }
        let Some((kind, length, head)) = head(&self.buf) else { return Ok(None) };
        match kind {
            HEADERS | SETTINGS => {
                let is_headers = kind == HEADERS;
                let most =
                    if is_headers { HTTP3_FIELD_SECTION_BYTES_MAX } else { HTTP3_FRAME_BYTES_MAX };
                if length > most as u64 {
                    if is_headers {
                        self.skip(head, length, false);
                        return Ok(Some(Frame::HeadersTooLarge));
                    }
                    return Err(Violation::new(Code::EXCESSIVE_LOAD, "SETTINGS are too long"));
                }
                let length = length as usize;
                if self.buf.len() < head + length {
                    return Ok(None);
                }
                self.buf.advance(head);
                let payload = self.buf.split_to(length).freeze();
                Ok(Some(if is_headers {
                    Frame::Headers(payload)
                } else {
                    Frame::Settings(payload)
                }))
            }
            DATA => {
                self.skip(head, length, true);
                Ok(Some(Frame::Data(self.take_rest())))
            }
            kind if RESERVED.contains(&kind) => {
                Err(Violation::new(Code::FRAME_UNEXPECTED, "a frame of HTTP/2"))
            }
            _ if length > HTTP3_FRAME_BYTES_MAX as u64 => {
                Err(Violation::new(Code::EXCESSIVE_LOAD, "a frame is too long"))
            }
            _ => {
                self.skip(head, length, false);
                Ok(Some(Frame::Other))
            }
        }
    }

    fn skip(&mut self, head: usize, length: u64, is_data: bool) {
        self.buf.advance(head);
        self.rest = length;
        self.is_data = is_data;
    }

    fn take_rest(&mut self) -> Bytes {
        let here = self.buf.len().min(usize::try_from(self.rest).unwrap_or(usize::MAX));
        self.rest -= here as u64;
        self.buf.split_to(here).freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::encode_varint;

    fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_varint(kind, &mut out);
        encode_varint(payload.len() as u64, &mut out);
        out.extend_from_slice(payload);
        out
    }

    /// What a stream brings that arrives `step` bytes at a time, with adjacent DATA joined.
    fn read(stream: &[u8], step: usize) -> Result<Vec<Frame>, Violation> {
        let mut frames = Frames::default();
        let mut out: Vec<Frame> = Vec::new();
        for part in stream.chunks(step) {
            frames.push(part);
            while let Some(frame) = frames.take()? {
                match (out.last_mut(), frame) {
                    (Some(Frame::Data(before)), Frame::Data(more)) => {
                        *before = [&before[..], &more[..]].concat().into();
                    }
                    (_, frame) => out.push(frame),
                }
            }
        }
        assert!(frames.at_boundary());
        Ok(out)
    }

    #[test]
    fn frames_in_parts_of_any_size() {
        let stream = [
            frame(0x21, b"grease"),
            frame(HEADERS, b"fields"),
            frame(DATA, b""),
            frame(DATA, &[7; 300]),
            frame(0x7, &[0]),
            frame(SETTINGS, b""),
        ]
        .concat();
        let expect = vec![
            Frame::Other,
            Frame::Headers(Bytes::from_static(b"fields")),
            Frame::Data(vec![7; 300].into()),
            Frame::Other,
            Frame::Settings(Bytes::new()),
        ];
        for step in [1, 2, 3, 7, 100, 1000] {
            assert_eq!(read(&stream, step).as_ref(), Ok(&expect), "{step} bytes at a time");
        }
    }

    #[test]
    fn headers_up_to_the_limit() {
        let most = vec![0; HTTP3_FIELD_SECTION_BYTES_MAX];
        let expect = vec![Frame::Headers(most.clone().into())];
        assert_eq!(read(&frame(HEADERS, &most), 4096), Ok(expect));
        let more = vec![0; HTTP3_FIELD_SECTION_BYTES_MAX + 1];
        let stream = [frame(HEADERS, &more), frame(0x21, b"")].concat();
        // Known from the length alone, and the stream goes on behind it.
        assert_eq!(read(&stream, 4096), Ok(vec![Frame::HeadersTooLarge, Frame::Other]));
    }

    #[test]
    fn refused_frames() {
        let long = |kind| {
            let mut out = frame(kind, b"");
            out.pop();
            encode_varint(HTTP3_FRAME_BYTES_MAX as u64 + 1, &mut out);
            out
        };
        for kind in RESERVED {
            assert_eq!(read(&frame(kind, b""), 9).unwrap_err().code, Code::FRAME_UNEXPECTED);
        }
        let most = frame(0x21, &vec![0; HTTP3_FRAME_BYTES_MAX]);
        assert_eq!(read(&most, 4096), Ok(vec![Frame::Other]));
        for kind in [SETTINGS, 0x21, 0x7] {
            assert_eq!(read(&long(kind), 9).unwrap_err().code, Code::EXCESSIVE_LOAD);
        }
    }
}
