//! Content: group streams and their frames (§3.10), and groups in a datagram (§3.11).

use bytes::Bytes;

use super::Version;
use super::error::DecodeError;
use super::varint::{
    Reader, VARINT_MAX, decode_varint, encode_message, encode_varint, parse_body, split_message,
    unzigzag, zigzag,
};

/// Bytes in the body of a group header: three varints in their longest form.
pub const GROUP_HEADER_BYTES_MAX: usize = 24;

/// The head of a group stream, after its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupHeader {
    pub subscribe_id: u64,
    pub sequence: u64,
    /// (06) The index of the first frame that follows; 0 on older versions.
    pub frame_start: u64,
}

impl GroupHeader {
    pub fn take(version: Version, buf: &[u8]) -> Result<Option<(GroupHeader, usize)>, DecodeError> {
        let Some((body, used)) = split_message(buf, GROUP_HEADER_BYTES_MAX)? else {
            return Ok(None);
        };
        let header = parse_body(body, |reader| {
            Ok(GroupHeader {
                subscribe_id: reader.varint()?,
                sequence: reader.varint()?,
                frame_start: if version >= Version::Lite06 { reader.varint()? } else { 0 },
            })
        })?;
        Ok(Some((header, used)))
    }

    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        encode_message(out, |out| {
            encode_varint(self.subscribe_id, out);
            encode_varint(self.sequence, out);
            if version >= Version::Lite06 {
                encode_varint(self.frame_start, out);
            }
        });
    }
}

/// What precedes each payload on a group stream and in a fetch reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// (05+) Timestamp units since the previous frame of this stream, or since 0 for the first.
    /// 0 on older versions.
    pub timestamp_delta: i64,
    /// Payload bytes. Unchecked: the limits on frames and groups are the reader's to apply.
    pub size: u64,
}

impl FrameHeader {
    /// The header at the front of `buf` and the bytes it took; `None` while bytes are missing.
    #[inline]
    pub fn take(version: Version, buf: &[u8]) -> Option<(FrameHeader, usize)> {
        let (delta, head) = if version >= Version::Lite05 { decode_varint(buf)? } else { (0, 0) };
        let (size, tail) = decode_varint(&buf[head..])?;
        Some((FrameHeader { timestamp_delta: unzigzag(delta), size }, head + tail))
    }

    #[inline]
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        if version >= Version::Lite05 {
            encode_varint(zigzag(self.timestamp_delta), out);
        }
        encode_varint(self.size, out);
    }
}

/// The timestamp `delta` after `previous`; `None` if no timestamp is that low or high.
#[inline]
pub fn timestamp_after(previous: u64, delta: i64) -> Option<u64> {
    previous.checked_add_signed(delta).filter(|&timestamp| timestamp <= VARINT_MAX)
}

/// The delta that leads from `previous` to `timestamp`; `None` if a frame cannot carry it.
#[inline]
pub fn timestamp_delta(previous: u64, timestamp: u64) -> Option<i64> {
    let delta = timestamp.checked_signed_diff(previous)?;
    (zigzag(delta) <= VARINT_MAX).then_some(delta)
}

/// DATAGRAM (05+): a whole group of one frame. There is no type and no length; the payload is
/// what the datagram has left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    pub subscribe_id: u64,
    pub sequence: u64,
    /// Absolute, in units of the track's timescale.
    pub timestamp: u64,
    pub payload: Bytes,
}

impl Datagram {
    /// The payload shares the memory of `datagram`.
    pub fn decode(datagram: Bytes) -> Result<Datagram, DecodeError> {
        let mut reader = Reader::new(&datagram);
        let subscribe_id = reader.varint()?;
        let sequence = reader.varint()?;
        let timestamp = reader.varint()?;
        let head = reader.offset();
        Ok(Datagram { subscribe_id, sequence, timestamp, payload: datagram.slice(head..) })
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_varint(self.subscribe_id, out);
        encode_varint(self.sequence, out);
        encode_varint(self.timestamp, out);
        out.extend_from_slice(&self.payload);
    }
}
