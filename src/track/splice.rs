//! Continuing a group that one publisher began with another publisher's copy of it (spec §5.4):
//! what readers have is dropped from the copy, to the byte, and the rest follows.

use std::time::Instant;

use super::group::{FrameMark, GroupEnd, Marks, Piece, Seam};
use crate::limits::{GROUP_BYTES_MAX, GROUP_FRAMES_MAX};
use crate::wire::{StreamCode, decode_varint, encode_varint, zigzag};

#[derive(Debug)]
pub struct Splice {
    seam: Seam,
    /// Index of the next frame of the copy.
    frame: u64,
    /// Length of the copy so far, and of the group.
    read: u64,
    written: u64,
    /// Payload bytes of the copy's present frame that are still to be dropped.
    drop: u64,
    /// Of the frame before, which the next delta is against.
    timestamp: u64,
    /// The copy is on its way.
    pub has_begun: bool,
    /// Until when it must be, once a later group has come.
    pub begin_by: Option<Instant>,
}

impl Splice {
    pub fn new(seam: Seam) -> Splice {
        let timestamp = seam.last.map_or(0, |last| last.timestamp);
        Splice {
            seam,
            frame: 0,
            read: 0,
            written: seam.offset,
            drop: 0,
            timestamp,
            has_begun: false,
            begin_by: None,
        }
    }

    /// What a piece of the copy adds to the group, if anything. An error is the code to abort the
    /// group with: the copy is another group, or does not reach the seam.
    pub fn graft(&mut self, piece: &Piece) -> Result<Option<Piece>, StreamCode> {
        if let Some(opening) = piece.opens {
            (self.has_begun, self.begin_by) = (true, None);
            self.frame = opening.frame_start;
            if self.frame > self.seam.frame() {
                return Err(StreamCode::TOO_FAR_BEHIND);
            }
        }
        let mut bytes = Vec::new();
        let mut marks = Marks::new();
        let mut at = 0;
        for mark in &piece.marks {
            let start = (u64::from(mark.start) - self.read) as usize;
            self.pass(&piece.bytes[at..start], &mut bytes);
            let size_start = start + usize::from(mark.delta_len);
            // A header is never cut: it is stored when all of it is here.
            let (size, used) =
                decode_varint(&piece.bytes[size_start..]).ok_or(StreamCode::MALFORMED_TRACK)?;
            at = size_start + used;
            self.begin_frame(mark, size, &mut bytes, &mut marks)?;
        }
        self.pass(&piece.bytes[at..], &mut bytes);
        self.read += piece.bytes.len() as u64;
        self.written += bytes.len() as u64;
        let is_short = self.frame < self.seam.next || self.drop > 0;
        if matches!(piece.ends, Some(GroupEnd::Finished)) && is_short {
            return Err(StreamCode::WRONG_SIZE);
        }
        if bytes.is_empty() && piece.ends.is_none() {
            return Ok(None);
        }
        let (sequence, ends) = (piece.sequence, piece.ends);
        Ok(Some(Piece { sequence, opens: None, bytes: bytes.into(), marks, ends }))
    }

    fn begin_frame(
        &mut self,
        mark: &FrameMark,
        size: u64,
        bytes: &mut Vec<u8>,
        marks: &mut Marks,
    ) -> Result<(), StreamCode> {
        let frame = self.frame;
        self.frame += 1;
        if frame < self.seam.next {
            let last = self.seam.last.filter(|_| frame + 1 == self.seam.next);
            if last.is_some_and(|last| last.size != size) {
                return Err(StreamCode::WRONG_SIZE);
            }
            self.drop = last.map_or(size, |last| last.held);
            return Ok(());
        }
        self.drop = 0;
        let start = self.written + bytes.len() as u64;
        // Each copy is within the bounds of a group; what is made of several has to be too.
        if frame >= u64::from(GROUP_FRAMES_MAX) || start + size > GROUP_BYTES_MAX {
            return Err(StreamCode::GROUP_TOO_LARGE);
        }
        let header = bytes.len();
        encode_varint(zigzag(mark.timestamp as i64 - self.timestamp as i64), bytes);
        let delta_len = (bytes.len() - header) as u8;
        encode_varint(size, bytes);
        self.timestamp = mark.timestamp;
        marks.push(FrameMark { start: start as u32, delta_len, timestamp: mark.timestamp });
        Ok(())
    }

    fn pass(&mut self, payload: &[u8], bytes: &mut Vec<u8>) {
        let dropped = self.drop.min(payload.len() as u64);
        self.drop -= dropped;
        bytes.extend_from_slice(&payload[dropped as usize..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::group::{Form, Group, Opening};
    use crate::track::scan::FrameScanner;
    use bytes::Bytes;

    const FRAMES: [(u64, &[u8]); 4] = [(100, b"abc"), (90, b""), (200, b"defgh"), (300, b"i")];

    /// A publisher's stream of the group from a frame on.
    fn wire(first: usize) -> Vec<u8> {
        let (mut wire, mut before) = (Vec::new(), 0i64);
        for (timestamp, payload) in &FRAMES[first..] {
            encode_varint(zigzag(*timestamp as i64 - before), &mut wire);
            encode_varint(payload.len() as u64, &mut wire);
            wire.extend_from_slice(payload);
            before = *timestamp as i64;
        }
        wire
    }

    /// The same as pieces of `step` bytes each, and the last of them with the end.
    fn pieces(first: usize, wire: &[u8], step: usize) -> Vec<Piece> {
        let mut scanner = FrameScanner::new(true, None);
        let mut pieces: Vec<Piece> = Vec::new();
        for part in wire.chunks(step) {
            let (mut bytes, mut marks) = (Vec::new(), Marks::new());
            scanner.scan(part, 0, &mut bytes, &mut marks).unwrap();
            let opens = pieces.is_empty().then_some(Opening::at(first as u64));
            pieces.push(Piece { sequence: 7, opens, bytes: bytes.into(), marks, ends: None });
        }
        pieces.last_mut().unwrap().ends = Some(GroupEnd::Finished);
        pieces
    }

    fn add(group: &mut Group, piece: Piece) {
        assert!(group.append(piece.bytes, &piece.marks));
        group.end = piece.ends;
    }

    #[test]
    fn wherever_the_first_copy_breaks_off_the_second_completes_it() {
        let whole = wire(0);
        for cut in 0..whole.len() {
            for step in 1..=whole.len() {
                let mut broken = Group::new(7, Opening::at(0), Instant::now());
                for mut piece in pieces(0, &whole[..cut.max(1)], 3) {
                    piece.ends = None;
                    add(&mut broken, piece);
                }
                let seam = broken.seam();
                // From the start, from the last frame that is held, or from the first one that is not as a whole.
                for first in [0, seam.frame_in_common() as usize, seam.frame() as usize] {
                    let mut group = Group::new(7, Opening::at(0), Instant::now());
                    broken.replay().for_each(|piece| add(&mut group, piece));
                    let mut splice = Splice::new(seam);
                    for piece in pieces(first, &wire(first), step) {
                        if let Some(piece) = splice.graft(&piece).unwrap() {
                            add(&mut group, piece);
                        }
                    }
                    let mut bytes: Vec<Bytes> = Vec::new();
                    group.slice(Form::Timed, 0, u64::MAX, &mut bytes, usize::MAX);
                    assert_eq!(bytes.concat(), whole, "cut at {cut}, from {first} by {step}");
                    assert_eq!(group.end, Some(GroupEnd::Finished));
                    for frame in 0..4 {
                        let (delta, offset) = group.enter(Form::Timed, frame).unwrap();
                        bytes.clear();
                        group.slice(Form::Timed, offset, u64::MAX, &mut bytes, usize::MAX);
                        assert_eq!([&delta[..], &bytes.concat()].concat(), wire(frame as usize));
                    }
                }
            }
        }
    }

    #[test]
    fn a_copy_that_does_not_fit_is_refused() {
        let mut broken = Group::new(7, Opening::at(0), Instant::now());
        add(&mut broken, Piece { ends: None, ..pieces(0, &wire(0)[..5], 5).remove(0) });
        let graft = |first, wire: &[u8]| {
            let mut splice = Splice::new(broken.seam());
            splice.graft(&pieces(first, wire, wire.len()).remove(0)).map(|_| ())
        };
        assert_eq!(graft(0, &wire(0)), Ok(()));
        // It begins behind the seam; its frame is longer.
        assert_eq!(graft(2, &wire(2)), Err(StreamCode::TOO_FAR_BEHIND));
        assert_eq!(graft(0, b"\x40\xc8\x04abcd"), Err(StreamCode::WRONG_SIZE));
    }
}
