//! One group's bytes on their way to the peer, whatever stream they take.

use bytes::{Buf, Bytes};

use super::Context;
use super::streams::{StreamId, Streams, WriteEnd};
use crate::track::content::Content;
use crate::track::group::{Available, Form, Group, GroupEnd};
use crate::wire::StreamCode;

/// Slices handed to the transport in one write.
const SLICES_PER_WRITE: usize = 32;

#[derive(Debug)]
pub(super) struct Outflow {
    form: Form,
    /// Which group, by arrival number, and which of its frames: the first, and the last if not all.
    pub arrival: u64,
    first: u64,
    last: Option<u64>,
    /// What precedes the group's own bytes: of a group stream its type and header; the absolute
    /// timestamp of the first frame, where that is not the group's own first.
    head: Bytes,
    /// Next byte of the group to send; None until the first frame to send is here.
    offset: Option<u64>,
    pub is_blocked: bool,
    /// Frames, by the index after the last one, and payload that are counted as sent.
    counted_frames: u64,
    counted_bytes: u64,
}

/// How one attempt to send ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// Everything that is here was taken; more may come.
    Dry,
    /// Flow control has taken what it will.
    Blocked,
    /// All was taken, and no more will come: FIN is due.
    Whole,
    /// A reset is due.
    Failed(StreamCode),
}

impl Outflow {
    pub fn new(form: Form, arrival: u64, first: u64, last: Option<u64>, head: Bytes) -> Outflow {
        Outflow {
            form,
            arrival,
            first,
            last,
            head,
            offset: None,
            is_blocked: false,
            counted_frames: first,
            counted_bytes: 0,
        }
    }

    /// How far the group can be sent now; the reason to reset it if it cannot.
    pub fn available(&self, content: &mut Content) -> Result<Available, StreamCode> {
        let look = |group: &mut Group| (group.available(self.form, self.last), group.frames_end());
        // A group that is not here any more has expired.
        let (available, frames_end) = content.change(self.arrival, look).ok_or(StreamCode::OLD)?;
        match available.then {
            Some(GroupEnd::Aborted(code)) => Err(code),
            // There is no such frame.
            Some(_) if self.offset.is_none() && self.first > frames_end => {
                Err(StreamCode::TOO_FAR_BEHIND)
            }
            _ => Ok(available),
        }
    }

    /// Bytes that are here to be sent, or were sent.
    pub fn bytes(&self, content: &Content) -> u64 {
        content.group(self.arrival).map(Group::bytes).max(self.offset).unwrap_or(0)
    }

    fn uncounted(&self, frames: u64, bytes: u64) -> (u64, u64) {
        (frames.saturating_sub(self.counted_frames), bytes.saturating_sub(self.counted_bytes))
    }

    /// Frames and payload that are here and were not sent.
    pub fn unsent(&self, content: &Content) -> (u64, u64) {
        let group = content.group(self.arrival);
        group.map_or((0, 0), |group| self.uncounted(group.frames_end(), group.payload()))
    }

    /// Sends what is there and what the stream takes.
    pub fn send<S: Streams>(
        &mut self,
        stream: StreamId,
        available: Available,
        content: &mut Content,
        cx: &mut Context<'_, S>,
    ) -> Flow {
        if self.is_blocked {
            return Flow::Blocked;
        }
        if self.offset.is_none() {
            self.enter(content);
        }
        let mut sent = 0;
        loop {
            let mut slices: Vec<Bytes> = Vec::with_capacity(4);
            let head_len = self.head.len() as u64;
            if head_len > 0 {
                slices.push(self.head.clone());
            }
            if let Some(from) = self.offset.filter(|from| *from < available.end) {
                content.change(self.arrival, |group| {
                    group.slice(self.form, from, available.end, &mut slices, SLICES_PER_WRITE);
                });
            }
            if slices.is_empty() {
                break;
            }
            let offered: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
            let (taken, is_blocked) = match cx.streams.write(stream, &mut slices) {
                WriteEnd::All => (offered, false),
                WriteEnd::Blocked(taken) => (taken as u64, true),
                WriteEnd::Stopped => return Flow::Failed(StreamCode::CANCEL),
            };
            self.head.advance(taken.min(head_len) as usize);
            let body = taken.saturating_sub(head_len);
            sent += body;
            if let Some(offset) = &mut self.offset {
                *offset += body;
            }
            if is_blocked {
                self.is_blocked = true;
                self.counted_bytes += sent;
                cx.counts.sent.bytes += sent;
                return Flow::Blocked;
            }
        }
        if self.offset.is_some() {
            // Whatever is here has left, so it is known how much of it was payload.
            let (frames, bytes) = self.uncounted(available.frames, available.payload);
            cx.counts.sent.frames += frames;
            cx.counts.sent.bytes += bytes;
            (self.counted_frames, self.counted_bytes) = (available.frames, available.payload);
        }
        match available.then {
            None => Flow::Dry,
            Some(GroupEnd::Finished) => Flow::Whole,
            // What is missing was never asked for upstream.
            Some(GroupEnd::Capped) => Flow::Failed(StreamCode::TOO_FAR_BEHIND),
            Some(GroupEnd::Aborted(code)) => Flow::Failed(code),
        }
    }

    /// Finds the first byte to send, which restates the absolute timestamp in mid-group.
    fn enter(&mut self, content: &mut Content) {
        let entry = content.change(self.arrival, |group| group.enter(self.form, self.first));
        if let Some((delta, offset)) = entry.flatten() {
            if !delta.is_empty() {
                self.head = [&self.head[..], &delta[..]].concat().into();
            }
            self.offset = Some(offset);
            // As near as can be told without going through all frames before.
            self.counted_bytes = offset;
        }
    }
}
