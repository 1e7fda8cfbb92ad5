//! Reads the frames of a publisher's GROUP stream as they arrive and gives the group's stored
//! encoding. Payload passes through before its frame is complete; a header never does.

use super::group::{FrameMark, Marks};
use crate::limits::{FRAME_BYTES_MAX, GROUP_BYTES_MAX, GROUP_FRAMES_MAX};
use crate::wire::{StreamCode, VARINT_MAX, decode_varint, encode_varint, unzigzag, zigzag};

/// A delta and a size, each at most eight bytes.
const HEADER_BYTES_MAX: usize = 16;

/// From one timescale to another, in ticks per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    pub from: u64,
    pub to: u64,
}

impl Scale {
    /// None where no number of ticks says the same.
    pub fn apply(self, timestamp: u64) -> Option<u64> {
        let ticks = u128::from(timestamp) * u128::from(self.to) / u128::from(self.from);
        ticks.try_into().ok()
    }
}

#[derive(Debug)]
pub struct FrameScanner {
    /// Whether the publisher's wire carries timestamp deltas (lite-05 and newer).
    timed: bool,
    scale: Option<Scale>,
    /// A header of which some bytes are missing.
    partial: [u8; HEADER_BYTES_MAX],
    partial_len: usize,
    payload_left: u64,
    /// Of the frame before: on the publisher's wire, and as it is stored.
    timestamp: u64,
    stored: u64,
    frames: u32,
    payload_total: u64,
    /// Length of the stored encoding so far.
    offset: u64,
}

impl FrameScanner {
    pub fn new(timed: bool, scale: Option<Scale>) -> FrameScanner {
        FrameScanner {
            timed,
            scale,
            partial: [0; HEADER_BYTES_MAX],
            partial_len: 0,
            payload_left: 0,
            timestamp: 0,
            stored: 0,
            frames: 0,
            payload_total: 0,
            offset: 0,
        }
    }

    /// Takes the next bytes of the stream; adds what may be passed on to `bytes` and `marks`.
    /// `arrival_ms` is the timestamp of frames that carry none. An error is the code to abort
    /// the group with.
    pub fn scan(
        &mut self,
        mut input: &[u8],
        arrival_ms: u64,
        bytes: &mut Vec<u8>,
        marks: &mut Marks,
    ) -> Result<(), StreamCode> {
        while !input.is_empty() {
            if self.payload_left > 0 {
                let take = (input.len() as u64).min(self.payload_left) as usize;
                bytes.extend_from_slice(&input[..take]);
                input = &input[take..];
                self.payload_left -= take as u64;
                self.offset += take as u64;
                continue;
            }
            // A header may straddle two packets: complete it from the front of the input.
            let held = self.partial_len;
            let add = input.len().min(HEADER_BYTES_MAX - held);
            self.partial[held..held + add].copy_from_slice(&input[..add]);
            let header = &self.partial[..held + add];
            let Some((delta, size, used)) = self.header(header) else {
                self.partial_len += add;
                return Ok(());
            };
            input = &input[used - held..];
            self.partial_len = 0;
            self.frame(delta, size, arrival_ms, bytes, marks)?;
        }
        Ok(())
    }

    /// What the frames that have begun come to.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Payload that has come.
    pub fn payload(&self) -> u64 {
        self.payload_total - self.payload_left
    }

    /// Frames that have begun.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Whether a FIN here is a clean end.
    pub fn at_boundary(&self) -> bool {
        self.payload_left == 0 && self.partial_len == 0
    }

    /// Delta, size and bytes used, once all of a header is here.
    fn header(&self, buf: &[u8]) -> Option<(Option<u64>, u64, usize)> {
        if !self.timed {
            let (size, used) = decode_varint(buf)?;
            return Some((None, size, used));
        }
        let (delta, first) = decode_varint(buf)?;
        let (size, second) = decode_varint(&buf[first..])?;
        Some((Some(delta), size, first + second))
    }

    fn frame(
        &mut self,
        delta: Option<u64>,
        size: u64,
        arrival_ms: u64,
        bytes: &mut Vec<u8>,
        marks: &mut Marks,
    ) -> Result<(), StreamCode> {
        if size > FRAME_BYTES_MAX {
            return Err(StreamCode::FRAME_TOO_LARGE);
        }
        if self.frames == GROUP_FRAMES_MAX || self.payload_total + size > GROUP_BYTES_MAX {
            return Err(StreamCode::GROUP_TOO_LARGE);
        }
        let timestamp = match delta {
            Some(delta) => self.timestamp as i64 + unzigzag(delta),
            None => arrival_ms as i64,
        };
        // Above half the varint range a later viewer's first, absolute delta has no encoding.
        const TIMESTAMP_MAX: u64 = VARINT_MAX / 2;
        let timestamp = u64::try_from(timestamp).ok().filter(|t| *t <= TIMESTAMP_MAX);
        let timestamp = timestamp.ok_or(StreamCode::MALFORMED_TRACK)?;
        let stored = match self.scale {
            None => timestamp,
            Some(scale) => scale
                .apply(timestamp)
                .filter(|stored| *stored <= TIMESTAMP_MAX)
                .ok_or(StreamCode::TIMESTAMP_MISMATCH)?,
        };
        let before = bytes.len();
        encode_varint(zigzag(stored as i64 - self.stored as i64), bytes);
        let delta_len = (bytes.len() - before) as u8;
        encode_varint(size, bytes);
        marks.push(FrameMark { start: self.offset as u32, delta_len, timestamp: stored });
        self.offset += (bytes.len() - before) as u64;
        self.timestamp = timestamp;
        self.stored = stored;
        self.frames += 1;
        self.payload_total += size;
        self.payload_left = size;
        Ok(())
    }
}

// Offsets are kept in 32 bits: the largest group with all its headers fits.
const _: () =
    assert!(GROUP_BYTES_MAX + GROUP_FRAMES_MAX as u64 * HEADER_BYTES_MAX as u64 <= u32::MAX as u64);

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(timed: bool, input: &[u8], step: usize) -> (Result<bool, StreamCode>, Vec<u8>, Marks) {
        let mut scanner = FrameScanner::new(timed, None);
        let (mut bytes, mut marks) = (Vec::new(), Marks::new());
        for part in input.chunks(step) {
            if let Err(code) = scanner.scan(part, 1000, &mut bytes, &mut marks) {
                return (Err(code), bytes, marks);
            }
        }
        (Ok(scanner.at_boundary()), bytes, marks)
    }

    #[track_caller]
    fn check(timed: bool, input: &[u8], bytes: &[u8], timestamps: &[u64], whole: bool) {
        for step in 1..=input.len() {
            let (end, got, marks) = scan(timed, input, step);
            assert_eq!(end, Ok(whole), "in steps of {step}");
            assert_eq!(got, bytes, "in steps of {step}");
            let got: Vec<u64> = marks.iter().map(|mark| mark.timestamp).collect();
            assert_eq!(got, timestamps, "in steps of {step}");
            for mark in &marks {
                assert!((mark.start as usize) < bytes.len());
            }
        }
    }

    #[test]
    fn timed_frames_pass_as_they_are() {
        let wire = b"\x80\x02\xbf\x20\x05hello\x57\x6f\x00";
        check(true, wire, wire, &[90000, 87000], true);
        check(true, &wire[..8], &wire[..8], &[90000], false);
    }

    #[test]
    fn a_header_waits_until_it_is_whole() {
        check(true, b"\x80\x02\xbf", b"", &[], false);
        check(true, b"\x80\x02\xbf\x20", b"", &[], false);
    }

    #[test]
    fn untimed_frames_get_the_time_of_arrival() {
        check(false, b"\x05hello\x00", b"\x47\xd0\x05hello\x00\x00", &[1000, 1000], true);
    }

    #[test]
    fn timestamps_are_converted_without_losing_ticks_on_the_way() {
        let mut wire = Vec::new();
        for _ in 0..3 {
            // One third of a tick of the copy each.
            encode_varint(zigzag(30), &mut wire);
            wire.push(0);
        }
        let scale = Some(Scale { from: 90_000, to: 1000 });
        let mut scanner = FrameScanner::new(true, scale);
        let (mut bytes, mut marks) = (Vec::new(), Marks::new());
        scanner.scan(&wire, 0, &mut bytes, &mut marks).unwrap();
        let timestamps: Vec<u64> = marks.iter().map(|mark| mark.timestamp).collect();
        assert_eq!(timestamps, [0, 0, 1]);
        assert_eq!(bytes, [0, 0, 0, 0, 2, 0]);
        let far = FrameScanner::new(true, Some(Scale { from: 1, to: u64::MAX }))
            .scan(&wire, 0, &mut bytes, &mut marks);
        assert_eq!(far, Err(StreamCode::TIMESTAMP_MISMATCH));
    }

    #[test]
    fn bounds_name_their_code() {
        let size = |n: u64| {
            let mut wire = vec![0];
            encode_varint(n, &mut wire);
            wire
        };
        assert_eq!(scan(true, &size(FRAME_BYTES_MAX), 9).0, Ok(false));
        assert_eq!(scan(true, &size(FRAME_BYTES_MAX + 1), 9).0, Err(StreamCode::FRAME_TOO_LARGE));
        let empty = vec![0; 2 * GROUP_FRAMES_MAX as usize];
        assert_eq!(scan(true, &empty, 1000).0, Ok(true));
        let one_more = vec![0; 2 * GROUP_FRAMES_MAX as usize + 2];
        assert_eq!(scan(true, &one_more, 1000).0, Err(StreamCode::GROUP_TOO_LARGE));
        // A first delta of -1 is a timestamp before zero.
        assert_eq!(scan(true, b"\x01\x00", 2).0, Err(StreamCode::MALFORMED_TRACK));
    }
}
