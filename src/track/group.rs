//! One group: append-only bytes, already in the encoding that viewers receive.
//!
//! A group is kept as the frames of a lite-05 GROUP stream (delta, size, payload; spec §3.10) in
//! a few shared pieces, so that sending it to a viewer is slicing, whatever the number of frames.
//! lite-03 and 04 viewers have no deltas on their wire; for them a second list of pieces is made
//! once per group and shard, when the first of them asks.

use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use crate::wire::{StreamCode, Version, decode_varint, encode_varint, varint_len_by, zigzag};

/// Where one frame begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameMark {
    /// Offset of the frame's first byte in the group.
    pub start: u32,
    /// Bytes of the timestamp delta, which precede the size.
    pub delta_len: u8,
    /// In ticks of the track's timescale.
    pub timestamp: u64,
}

pub type Marks = SmallVec<[FrameMark; 1]>;

/// How a group ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupEnd {
    /// This is the whole group.
    Finished,
    /// The publisher was asked for no more frames than these; there may be more.
    Capped,
    Aborted(StreamCode),
}

/// News of one group, as it travels from the publisher's session to every shard with viewers.
/// One turn's worth of a group stream is one piece: header, frames and end together.
#[derive(Clone, Debug)]
pub struct Piece {
    pub sequence: u64,
    /// In a group's first piece.
    pub opens: Option<Opening>,
    pub bytes: Bytes,
    pub marks: Marks,
    pub ends: Option<GroupEnd>,
}

/// How a group begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The index of the first frame.
    pub frame_start: u64,
    /// The publisher was asked for no more than some of its frames.
    pub is_bounded: bool,
    /// To a mirror: it had come before all that the mirror has.
    pub is_earlier: bool,
}

impl Opening {
    /// All frames from this one on.
    pub fn at(frame_start: u64) -> Opening {
        Opening { frame_start, is_bounded: false, is_earlier: false }
    }
}

/// What a group that comes has in common with the one that is held under its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// None is held.
    Unknown,
    /// One of them has shown too little.
    Unclear,
    Same,
    Differs,
}

/// How far a viewer may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Available {
    /// Offset of the end.
    pub end: u64,
    /// What becomes of the group for this viewer behind that: nothing follows, it is cut short,
    /// or none, for a group that grows.
    pub then: Option<GroupEnd>,
    /// Index after the last frame that has begun there, and the payload up to there: for those who count.
    pub frames: u64,
    pub payload: u64,
}

/// How much of an unfinished group is here: what another publisher's copy has to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seam {
    /// Index of the first frame that has not begun, counted from the group's frame 0.
    pub next: u64,
    /// The last frame that has.
    pub last: Option<LastFrame>,
    /// Length of all that is held.
    pub offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastFrame {
    pub timestamp: u64,
    /// Its payload bytes: in all, and those that are here.
    pub size: u64,
    pub held: u64,
}

impl Seam {
    /// Index of the first frame that is not here as a whole.
    pub fn frame(&self) -> u64 {
        let is_cut = self.last.is_some_and(|last| last.held < last.size);
        self.next - u64::from(is_cut)
    }

    /// Index of the last frame that has begun: a copy that begins there shows whether it is one of this group.
    pub fn frame_in_common(&self) -> u64 {
        self.next - u64::from(self.last.is_some())
    }
}

/// Which encoding a viewer receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Frames with timestamp deltas (lite-05 and newer).
    Timed,
    /// Frames without (lite-04 and older).
    Untimed,
}

/// Beside its bytes: a list entry, and the header of the allocation it shares.
const PIECE_COST_BYTES: usize = size_of::<(u64, Bytes)>() + 32;

/// Of a group beside itself: its places among its track's groups and in the shard's cache.
const GROUP_COST_BYTES: usize = size_of::<Group>() + 128;

impl Form {
    pub fn of(version: Version) -> Form {
        if version >= Version::Lite05 { Form::Timed } else { Form::Untimed }
    }
}

#[derive(Debug, Default)]
struct Pieces {
    /// Each with the offset of its end.
    list: Vec<(u64, Bytes)>,
}

impl Pieces {
    fn len(&self) -> u64 {
        self.list.last().map_or(0, |(end, _)| *end)
    }

    /// Memory, with what each piece costs beside its bytes.
    fn held_bytes(&self) -> u64 {
        self.len() + (self.list.len() * PIECE_COST_BYTES) as u64
    }

    fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.list.push((self.len() + bytes.len() as u64, bytes));
        }
    }

    fn slice(&self, from: u64, to: u64, out: &mut Vec<Bytes>, pieces_max: usize) {
        let first = self.list.partition_point(|(end, _)| *end <= from);
        for (end, bytes) in self.list[first..].iter().take(pieces_max) {
            let begin = end - bytes.len() as u64;
            if begin >= to {
                return;
            }
            let low = from.saturating_sub(begin) as usize;
            let high = (to.min(*end) - begin) as usize;
            if low == 0 && high == bytes.len() {
                out.push(bytes.clone());
            } else {
                out.push(bytes.slice(low..high));
            }
        }
    }
}

#[derive(Debug, Default)]
struct Untimed {
    pieces: Pieces,
    /// Offset of each frame in this encoding.
    starts: Vec<u32>,
}

#[derive(Debug)]
pub struct Group {
    pub sequence: u64,
    /// Index of the first frame that this copy holds.
    pub frame_start: u64,
    /// It may end before its last frame.
    is_bounded: bool,
    pub end: Option<GroupEnd>,
    /// It was let go of, and this is but word of it.
    pub is_evicted: bool,
    /// When it last grew or was asked for.
    pub touched: Instant,
    timed: Pieces,
    /// Bytes of it that are no payload.
    framing: u64,
    untimed: Option<Box<Untimed>>,
    marks: Vec<FrameMark>,
    first_timestamp: Option<u64>,
    newest_timestamp: u64,
}

impl Group {
    pub fn new(sequence: u64, opening: Opening, now: Instant) -> Group {
        Group {
            sequence,
            frame_start: opening.frame_start,
            is_bounded: opening.is_bounded,
            end: None,
            is_evicted: false,
            touched: now,
            timed: Pieces::default(),
            framing: 0,
            untimed: None,
            marks: Vec::new(),
            first_timestamp: None,
            newest_timestamp: 0,
        }
    }

    /// False, and nothing else, if the frames are not those of these bytes.
    pub fn append(&mut self, bytes: Bytes, marks: &[FrameMark]) -> bool {
        debug_assert!(self.end.is_none(), "a group that ended does not grow");
        let place = self.timed.len()..self.timed.len() + bytes.len() as u64;
        if !marks.iter().all(|mark| place.contains(&u64::from(mark.start))) {
            return false;
        }
        if let Some(untimed) = &mut self.untimed {
            untimed.append(self.timed.len(), &bytes, marks);
        }
        self.first_timestamp = self.first_timestamp.or(marks.first().map(|mark| mark.timestamp));
        for mark in marks {
            self.newest_timestamp = self.newest_timestamp.max(mark.timestamp);
            let size_at = u64::from(mark.start) - place.start + u64::from(mark.delta_len);
            let size_len = bytes.get(size_at as usize).map_or(0, |first| varint_len_by(*first));
            self.framing += (usize::from(mark.delta_len) + size_len) as u64;
        }
        self.marks.extend_from_slice(marks);
        self.timed.push(bytes);
        true
    }

    /// Memory held for this group: every encoding, and what an empty group costs too.
    pub fn held_bytes(&self) -> u64 {
        let index = self.marks.len() * size_of::<FrameMark>();
        let untimed = self.untimed.as_ref().map_or(0, |untimed| untimed.pieces.held_bytes());
        (GROUP_COST_BYTES + index) as u64 + self.timed.held_bytes() + untimed
    }

    /// Bytes that are here.
    pub fn bytes(&self) -> u64 {
        self.timed.len()
    }

    /// What of them is payload of frames.
    pub fn payload(&self) -> u64 {
        self.timed.len() - self.framing
    }

    /// Known also when the frame itself is not here any more.
    pub fn first_timestamp(&self) -> Option<u64> {
        self.first_timestamp
    }

    /// The largest timestamp so far; 0 before the first frame.
    pub fn newest_timestamp(&self) -> u64 {
        self.newest_timestamp
    }

    /// Whether frame `frame` and all that follow it are here or on their way.
    pub fn serves_from(&self, frame: u64) -> bool {
        let is_usable = match self.end {
            None => !self.is_bounded,
            Some(end) => end == GroupEnd::Finished,
        };
        is_usable && self.frame_start <= frame
    }

    /// What a group that begins with this piece has in common with this one: their first frames,
    /// as far as both have come.
    pub(super) fn likeness(&self, piece: &Piece, are_timed: bool) -> Likeness {
        let differs = |differs| if differs { Likeness::Differs } else { Likeness::Same };
        self.differs(piece, are_timed).map_or(Likeness::Unclear, differs)
    }

    fn differs(&self, piece: &Piece, are_timed: bool) -> Option<bool> {
        let theirs = piece.marks.first()?;
        let index = piece.opens?.frame_start.checked_sub(self.frame_start)?;
        let ours = self.marks.get(usize::try_from(index).ok()?)?;
        if are_timed && ours.timestamp != theirs.timestamp {
            return Some(true);
        }
        let size_at = |mark: &FrameMark| u64::from(mark.start) + u64::from(mark.delta_len);
        let mut held = Vec::new();
        self.timed.slice(size_at(ours), self.timed.len(), &mut held, 1);
        let held = held.first()?;
        let shown = piece.bytes.get(size_at(theirs) as usize..)?;
        // Size and payload; what follows the frame is told by the size.
        let (size, used) = decode_varint(shown)?;
        let frame = (used as u64).saturating_add(size);
        let both = frame.min(held.len() as u64).min(shown.len() as u64) as usize;
        Some(held[..both] != shown[..both])
    }

    /// Gives its bytes back, and leaves word of why to those who read it.
    pub fn evict(&mut self) {
        let gone = Group::new(self.sequence, Opening::at(self.frame_start), self.touched);
        let end = Some(GroupEnd::Aborted(StreamCode::EVICTED));
        // Its age still says when it and those before it are too old.
        *self = Group {
            end,
            is_evicted: true,
            first_timestamp: self.first_timestamp,
            newest_timestamp: self.newest_timestamp,
            ..gone
        };
    }

    /// Where another copy of this group has to go on.
    pub(super) fn seam(&self) -> Seam {
        let last = self.marks.last().and_then(|mark| {
            let header = u64::from(mark.start) + u64::from(mark.delta_len);
            let mut bytes = Vec::new();
            self.timed.slice(header, self.timed.len(), &mut bytes, 1);
            // A header is never cut: its mark is made when all of it is here.
            let (size, used) = decode_varint(bytes.first()?)?;
            let held = self.timed.len() - header - used as u64;
            Some(LastFrame { timestamp: mark.timestamp, size, held })
        });
        Seam { next: self.frames_end(), last, offset: self.timed.len() }
    }

    /// All that has arrived: what a shard that joins late is told.
    pub fn replay(&self) -> impl Iterator<Item = Piece> + '_ {
        let (frame_start, is_bounded) = (self.frame_start, self.is_bounded);
        let opening = Opening { frame_start, is_bounded, is_earlier: false };
        let empty = (0, Bytes::new());
        // A group without bytes is still one piece of news.
        let stored = match &self.timed.list[..] {
            [] => vec![empty],
            list => list.to_vec(),
        };
        let last = stored.len() - 1;
        stored.into_iter().enumerate().map(move |(index, (end, bytes))| Piece {
            sequence: self.sequence,
            opens: (index == 0).then_some(opening),
            marks: Marks::from_slice(self.marks_between(end - bytes.len() as u64, end)),
            bytes,
            ends: self.end.filter(|_| index == last),
        })
    }

    /// The frames that begin in a range of bytes.
    fn marks_between(&self, begin: u64, end: u64) -> &[FrameMark] {
        let low = self.marks.partition_point(|mark| u64::from(mark.start) < begin);
        let high = self.marks.partition_point(|mark| u64::from(mark.start) < end);
        &self.marks[low..high]
    }

    /// How far a viewer may read now that wants frames up to `last`, or all.
    pub fn available(&mut self, form: Form, last: Option<u64>) -> Available {
        // The frame after the last one wanted, once it is here, is where to stop.
        if let Some(end) = last.and_then(|last| self.offset_of(form, last + 1)) {
            let (frames, payload) = (last.map_or(0, |last| last + 1), self.payload().min(end));
            return Available { end, then: Some(GroupEnd::Finished), frames, payload };
        }
        let (frames, payload) = (self.frames_end(), self.payload());
        // The last one wanted may be whole before that.
        if last.is_some_and(|last| last + 1 == self.frames_end() && self.seam().frame() > last) {
            let then = Some(GroupEnd::Finished);
            return Available { end: self.len(form), then, frames, payload };
        }
        let then = match self.end {
            Some(GroupEnd::Capped) if last.is_some_and(|last| last < self.frames_end()) => {
                Some(GroupEnd::Finished)
            }
            end => end,
        };
        Available { end: self.len(form), then, frames, payload }
    }

    /// Index after the last frame that has begun, counted from the group's frame 0.
    pub fn frames_end(&self) -> u64 {
        self.frame_start + self.marks.len() as u64
    }

    /// Bytes available in an encoding.
    pub fn len(&mut self, form: Form) -> u64 {
        match form {
            Form::Timed => self.timed.len(),
            Form::Untimed => self.untimed().pieces.len(),
        }
    }

    /// Offset at which a frame begins, once its header is here. `frame` counts from the group's
    /// frame 0.
    pub fn offset_of(&mut self, form: Form, frame: u64) -> Option<u64> {
        let index = usize::try_from(frame.checked_sub(self.frame_start)?).ok()?;
        match form {
            Form::Timed => self.marks.get(index).map(|mark| u64::from(mark.start)),
            Form::Untimed => self.untimed().starts.get(index).map(|start| u64::from(*start)),
        }
    }

    /// Adds up to `pieces_max` slices of the bytes in `from..to` to `out`.
    pub fn slice(
        &mut self,
        form: Form,
        from: u64,
        to: u64,
        out: &mut Vec<Bytes>,
        pieces_max: usize,
    ) {
        match form {
            Form::Timed => self.timed.slice(from, to, out, pieces_max),
            Form::Untimed => self.untimed().pieces.slice(from, to, out, pieces_max),
        }
    }

    /// For a viewer that starts in mid-group: the first delta it needs (the absolute timestamp,
    /// spec §3.10) and the offset of what follows that delta here. None before the frame is here.
    pub fn enter(&mut self, form: Form, frame: u64) -> Option<(Bytes, u64)> {
        let offset = self.offset_of(form, frame)?;
        if form == Form::Untimed || frame == self.frame_start {
            return Some((Bytes::new(), offset));
        }
        let mark = self.marks[(frame - self.frame_start) as usize];
        let mut delta = Vec::with_capacity(8);
        encode_varint(zigzag(mark.timestamp as i64), &mut delta);
        Some((delta.into(), offset + u64::from(mark.delta_len)))
    }

    fn untimed(&mut self) -> &mut Untimed {
        if self.untimed.is_none() {
            let mut untimed = Box::new(Untimed::default());
            for (end, bytes) in &self.timed.list {
                let begin = end - bytes.len() as u64;
                untimed.append(begin, bytes, self.marks_between(begin, *end));
            }
            self.untimed = Some(untimed);
        }
        self.untimed.as_mut().expect("it was made above")
    }
}

impl Untimed {
    /// Appends one timed piece that begins at `begin`, leaving out its deltas.
    fn append(&mut self, begin: u64, bytes: &Bytes, marks: &[FrameMark]) {
        if marks.is_empty() {
            self.pieces.push(bytes.clone());
            return;
        }
        let mut kept = BytesMut::with_capacity(bytes.len());
        let mut at = 0usize;
        for mark in marks {
            let start = (u64::from(mark.start) - begin) as usize;
            kept.put_slice(&bytes[at..start]);
            self.starts.push((self.pieces.len() + kept.len() as u64) as u32);
            at = start + usize::from(mark.delta_len);
        }
        kept.put_slice(&bytes[at..]);
        self.pieces.push(kept.freeze());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames "ab" at 10, "" at 7, "c" at 20, cut into pieces of the given sizes.
    fn group(cuts: &[usize]) -> Group {
        let mut wire = Vec::new();
        let mut marks = Vec::new();
        let mut last = 0i64;
        for (timestamp, payload) in [(10i64, &b"ab"[..]), (7, b""), (20, b"c")] {
            let start = wire.len();
            encode_varint(zigzag(timestamp - last), &mut wire);
            let delta_len = (wire.len() - start) as u8;
            encode_varint(payload.len() as u64, &mut wire);
            wire.extend_from_slice(payload);
            marks.push(FrameMark { start: start as u32, delta_len, timestamp: timestamp as u64 });
            last = timestamp;
        }
        let wire = Bytes::from(wire);
        let mut group = Group::new(5, Opening::at(3), Instant::now());
        let mut at = 0;
        for cut in cuts.iter().copied().chain([wire.len()]) {
            let here: Vec<_> =
                marks.iter().copied().filter(|m| (at..cut).contains(&(m.start as usize))).collect();
            assert!(group.append(wire.slice(at..cut), &here));
            at = cut;
        }
        group
    }

    fn all(group: &mut Group, form: Form, from: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let to = group.len(form);
        group.slice(form, from, to, &mut out, usize::MAX);
        out.concat()
    }

    #[test]
    fn both_encodings_are_the_same_however_the_bytes_arrived() {
        for cuts in [&[][..], &[4], &[3, 4], &[2, 4, 6]] {
            let mut group = group(cuts);
            assert_eq!(all(&mut group, Form::Timed, 0), b"\x14\x02ab\x05\x00\x1a\x01c");
            assert_eq!(all(&mut group, Form::Untimed, 0), b"\x02ab\x00\x01c");
            assert_eq!(group.newest_timestamp(), 20);
            assert_eq!(group.offset_of(Form::Timed, 6), None);
        }
    }

    #[test]
    fn an_untimed_encoding_made_early_grows_with_the_group() {
        let mut group = Group::new(0, Opening::at(0), Instant::now());
        assert_eq!(group.len(Form::Untimed), 0);
        let mark = FrameMark { start: 0, delta_len: 1, timestamp: 1 };
        assert!(group.append(Bytes::from_static(b"\x02\x03ab"), &[mark]));
        assert!(group.append(Bytes::from_static(b"c"), &[]));
        assert!(!group.append(Bytes::from_static(b"d"), &[mark]), "these are not its frames");
        assert_eq!(all(&mut group, Form::Untimed, 0), b"\x03abc");
    }

    #[test]
    fn entering_in_mid_group_restates_the_absolute_timestamp() {
        let mut group = group(&[4]);
        let (delta, offset) = group.enter(Form::Timed, 5).unwrap();
        assert_eq!(&delta[..], b"\x28");
        assert_eq!(all(&mut group, Form::Timed, offset), b"\x01c");
        let (delta, offset) = group.enter(Form::Untimed, 5).unwrap();
        assert!(delta.is_empty());
        assert_eq!(all(&mut group, Form::Untimed, offset), b"\x01c");
        assert_eq!(group.enter(Form::Timed, 6), None);
        assert_eq!(group.enter(Form::Timed, 2), None);
    }

    #[test]
    fn a_replay_rebuilds_the_group() {
        let mut original = group(&[3, 4]);
        original.end = Some(GroupEnd::Finished);
        let mut copy = Group::new(5, Opening::at(3), Instant::now());
        for piece in original.replay() {
            assert!(copy.append(piece.bytes, &piece.marks));
            copy.end = piece.ends;
        }
        assert_eq!(copy.marks, original.marks);
        assert_eq!(copy.end, original.end);
        assert_eq!(all(&mut copy, Form::Timed, 0), all(&mut original, Form::Timed, 0));
    }
}
