//! Content as bytes: what a frame of ours looks like, and a reader of group streams and fetch
//! replies that keeps nothing of a payload but its stamp.

use bytes::Bytes;
use shardcast::wire::{FrameHeader, GroupHeader, UniType, Version, decode_varint, encode_varint};

/// Bytes at the begin of a payload that are ours to read.
pub const STAMP_BYTES: usize = 12;

/// Bytes of a stream type and a group header, or of a frame header, in their longest form.
const HEAD_BYTES_MAX: usize = 48;

/// What a payload begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// When the frame was to be sent, CLOCK_MONOTONIC nanoseconds.
    pub intended: u64,
    /// Counts the frames of the track.
    pub number: u32,
}

impl Stamp {
    pub fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..8].copy_from_slice(&self.intended.to_be_bytes());
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; STAMP_BYTES]) -> Stamp {
        let (intended, number) = bytes.split_at(8);
        Stamp {
            intended: u64::from_be_bytes(intended.try_into().expect("eight bytes")),
            number: u32::from_be_bytes(number.try_into().expect("four bytes")),
        }
    }
}

/// The begin of a group stream.
pub fn encode_group(version: Version, header: &GroupHeader, out: &mut Vec<u8>) {
    encode_varint(UniType::Group as u64, out);
    header.encode(version, out);
}

/// A frame up to and with its stamp; `size` counts the whole payload.
pub fn encode_frame(
    version: Version,
    timestamp_delta: i64,
    stamp: Stamp,
    size: usize,
    out: &mut Vec<u8>,
) {
    FrameHeader { timestamp_delta, size: size as u64 }.encode(version, out);
    out.extend_from_slice(&stamp.to_bytes());
}

/// What follows the stamp, shared by all frames.
pub fn filler(frame_bytes: usize) -> Bytes {
    Bytes::from(vec![b'.'; frame_bytes - STAMP_BYTES])
}

/// What a reader finds on a stream, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item {
    /// The stream is a group.
    Group(GroupHeader),
    /// A frame has arrived as a whole. Without a stamp if its payload is too short for one, which
    /// none of ours is.
    Frame(Option<Stamp>),
}

/// The stream is not what the protocol says.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("the relay sent a malformed stream")]
pub struct Malformed;

/// Reads one stream, in whatever pieces it arrives.
pub struct Reader {
    version: Version,
    stage: Stage,
    /// The begin of a header whose end has not arrived.
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: u8,
    stamp: [u8; STAMP_BYTES],
    stamp_bytes: u8,
    /// Bytes of the payload that are to come.
    left: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Begin,
    Frame,
    Payload,
    /// Not a group: nothing in it is for us.
    Ignored,
}

impl Reader {
    /// Of a unidirectional stream.
    pub fn of_stream(version: Version) -> Reader {
        Reader {
            version,
            stage: Stage::Begin,
            head: [0; HEAD_BYTES_MAX],
            head_bytes: 0,
            stamp: [0; STAMP_BYTES],
            stamp_bytes: 0,
            left: 0,
        }
    }

    /// Of a reply to FETCH, which is frames from the start.
    pub fn of_reply(version: Version) -> Reader {
        Reader { stage: Stage::Frame, ..Reader::of_stream(version) }
    }

    /// Whether the stream may end here.
    pub fn is_at_boundary(&self) -> bool {
        match self.stage {
            Stage::Frame => self.head_bytes == 0,
            Stage::Ignored => true,
            Stage::Begin | Stage::Payload => false,
        }
    }

    pub fn push(&mut self, mut bytes: &[u8], take: &mut impl FnMut(Item)) -> Result<(), Malformed> {
        loop {
            match self.stage {
                Stage::Begin | Stage::Frame if bytes.is_empty() => return Ok(()),
                Stage::Begin => {
                    let Some(header) = self.header(&mut bytes, decode_begin)? else {
                        return Ok(());
                    };
                    match header {
                        Some(header) => {
                            self.stage = Stage::Frame;
                            take(Item::Group(header));
                        }
                        None => self.stage = Stage::Ignored,
                    }
                }
                Stage::Frame => {
                    let decode = |version, buf: &[u8]| Ok(FrameHeader::take(version, buf));
                    let Some(header) = self.header(&mut bytes, decode)? else { return Ok(()) };
                    self.stage = Stage::Payload;
                    self.left = header.size;
                    self.stamp_bytes = 0;
                }
                Stage::Payload => {
                    self.payload(&mut bytes);
                    if self.left > 0 {
                        return Ok(());
                    }
                    self.stage = Stage::Frame;
                    let is_whole = usize::from(self.stamp_bytes) == STAMP_BYTES;
                    take(Item::Frame(is_whole.then(|| Stamp::from_bytes(&self.stamp))));
                }
                Stage::Ignored => return Ok(()),
            }
        }
    }

    /// A header from the front of `bytes`, and from what was kept of it before; `None` while
    /// bytes are missing, which are then all kept.
    fn header<T>(
        &mut self,
        bytes: &mut &[u8],
        decode: impl Fn(Version, &[u8]) -> Result<Option<(T, usize)>, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        let kept = usize::from(self.head_bytes);
        if kept == 0
            && let Some((header, used)) = decode(self.version, bytes)?
        {
            *bytes = &bytes[used..];
            return Ok(Some(header));
        }
        let more = bytes.len().min(HEAD_BYTES_MAX - kept);
        self.head[kept..kept + more].copy_from_slice(&bytes[..more]);
        match decode(self.version, &self.head[..kept + more])? {
            Some((header, used)) => {
                self.head_bytes = 0;
                *bytes = &bytes[used - kept..];
                Ok(Some(header))
            }
            None if kept + more == HEAD_BYTES_MAX => Err(Malformed),
            None => {
                self.head_bytes = (kept + more) as u8;
                Ok(None)
            }
        }
    }

    fn payload(&mut self, bytes: &mut &[u8]) {
        let here = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let kept = usize::from(self.stamp_bytes);
        let stamp = here.min(STAMP_BYTES - kept);
        self.stamp[kept..kept + stamp].copy_from_slice(&bytes[..stamp]);
        self.stamp_bytes += stamp as u8;
        self.left -= here as u64;
        *bytes = &bytes[here..];
    }
}

/// The type of a stream and, if it is a group, its header.
fn decode_begin(
    version: Version,
    buf: &[u8],
) -> Result<Option<(Option<GroupHeader>, usize)>, Malformed> {
    let Some((kind, used)) = decode_varint(buf) else { return Ok(None) };
    if UniType::from_u64(kind) != Some(UniType::Group) {
        return Ok(Some((None, used)));
    }
    let header = GroupHeader::take(version, &buf[used..]).map_err(|_| Malformed)?;
    Ok(header.map(|(header, more)| (Some(header), used + more)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMPS: [Stamp; 2] = [
        Stamp { intended: 0x0123_4567_89ab_cdef, number: 7 },
        Stamp { intended: 77, number: u32::MAX },
    ];

    fn stream(version: Version) -> (Vec<u8>, Vec<Item>) {
        let header = GroupHeader { subscribe_id: 3, sequence: 70_000, frame_start: 0 };
        let mut bytes = Vec::new();
        encode_group(version, &header, &mut bytes);
        let mut items = vec![Item::Group(header)];
        for (stamp, size) in STAMPS.into_iter().zip([300, STAMP_BYTES]) {
            encode_frame(version, 90_000, stamp, size, &mut bytes);
            bytes.extend_from_slice(&filler(size));
            items.push(Item::Frame(Some(stamp)));
        }
        // Frames of somebody else, too short for a stamp.
        for size in [5, 0] {
            FrameHeader { timestamp_delta: 0, size }.encode(version, &mut bytes);
            bytes.extend(std::iter::repeat_n(b'x', size as usize));
            items.push(Item::Frame(None));
        }
        (bytes, items)
    }

    fn read(reader: &mut Reader, pieces: &[&[u8]]) -> Vec<Item> {
        let mut items = Vec::new();
        for piece in pieces {
            reader.push(piece, &mut |item| items.push(item)).unwrap();
        }
        items
    }

    #[test]
    fn a_stream_is_read_across_every_cut() {
        for version in [Version::Lite05, Version::Lite06] {
            let (bytes, items) = stream(version);
            for first in 0..=bytes.len() {
                for second in [first, (first + 1).min(bytes.len()), (first + 13).min(bytes.len())] {
                    let mut reader = Reader::of_stream(version);
                    let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    assert_eq!(read(&mut reader, &pieces), items, "cut at {first} and {second}");
                    assert!(reader.is_at_boundary());
                }
            }
        }
    }

    #[test]
    fn a_stream_is_read_byte_by_byte() {
        let (bytes, items) = stream(Version::Lite06);
        let mut reader = Reader::of_stream(Version::Lite06);
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&mut reader, &pieces), items);
    }

    #[test]
    fn only_ends_between_frames_are_boundaries() {
        let (bytes, items) = stream(Version::Lite06);
        let mut boundaries = 0;
        for length in 0..=bytes.len() {
            let mut reader = Reader::of_stream(Version::Lite06);
            read(&mut reader, &[&bytes[..length]]);
            boundaries += usize::from(reader.is_at_boundary());
        }
        // One after the group header and one after each frame.
        assert_eq!(boundaries, items.len());
    }

    #[test]
    fn a_reply_has_no_header() {
        let mut bytes = Vec::new();
        encode_frame(Version::Lite05, 0, STAMPS[0], STAMP_BYTES, &mut bytes);
        let mut reader = Reader::of_reply(Version::Lite05);
        assert!(reader.is_at_boundary());
        assert_eq!(read(&mut reader, &[&bytes]), [Item::Frame(Some(STAMPS[0]))]);
    }

    #[test]
    fn other_streams_are_ignored() {
        let mut reader = Reader::of_stream(Version::Lite06);
        assert_eq!(read(&mut reader, &[&[UniType::Setup as u8, 1], &[0]]), []);
        assert!(reader.is_at_boundary());
    }

    #[test]
    fn nonsense_is_refused() {
        // A group header longer than any can be.
        let mut reader = Reader::of_stream(Version::Lite06);
        assert_eq!(reader.push(&[0, 60, 0, 0], &mut |_| ()), Err(Malformed));
    }
}
