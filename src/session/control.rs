//! Control bytes in and out: what is half said by the peer, and what waits for its flow control.

use bytes::{Bytes, BytesMut};

use super::counts::Class;
use super::streams::{StreamId, Streams, WriteEnd};
use super::{Context, Effect, Session, Stream, Use};
use crate::limits::{
    CONTROL_BACKLOG_BYTES_MAX, CONTROL_INPUT_BYTES_MAX, SESSION_HOLDS_BYTES, SESSION_HOLDS_RETRY,
};
use crate::route::Trust;
use crate::wire::{SessionCode, StreamCode};

/// Send priority of everything that is not a group: above every group.
const CONTROL_PRIORITY: i32 = i32::MAX;

/// Control bytes that wait for the peer's flow control.
#[derive(Debug)]
pub(super) struct Unsent {
    chunks: Vec<Bytes>,
    fin: bool,
    /// Whether it counts towards the session's bound. Announcements have bounds of their own.
    is_counted: bool,
}

impl Unsent {
    pub(super) fn len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }
}

impl Session {
    /// Whether one more may come to what of one kind is held for the peer: a little of each in any case, so that
    /// who has much of one is not kept from the others, and more as all of it together is granted.
    pub(super) fn has_room_for<S: Streams>(&self, held: u64, cx: &mut Context<'_, S>) -> bool {
        let all = || self.announced_takes() + self.told_takes() + self.control_takes();
        held <= SESSION_HOLDS_BYTES / 2 || cx.streams.may_hold(all())
    }

    /// What the peer has half said, and what it does not take.
    pub(super) fn control_takes(&self) -> u64 {
        (self.input_bytes + self.unsent_bytes) as u64
    }

    /// Whether what a stream brings is to be read now. If not, what has it read later is seen to.
    pub(super) fn may_read<S: Streams>(
        &mut self,
        id: StreamId,
        stream: &Stream,
        cx: &mut Context<'_, S>,
    ) -> bool {
        match stream.purpose {
            Use::EarlyGroup(_) => return false,
            Use::PullSubscription { pull } if self.is_early(pull) => return false,
            // What is announced counts by who the peer is.
            Use::AnnounceSource(_) if !self.is_ready => {
                self.leave_unheard(id);
                return false;
            }
            Use::AnnounceSource(_) if cx.changes_left == 0 && self.trust != Trust::Relay => {
                cx.effects.push(Effect::HeardEnough { stream: id });
                return false;
            }
            Use::AnnounceSource(_) if !self.may_hear(id, cx) => return false,
            Use::UniHeader => return true,
            _ => {}
        }
        if !self.has_room_for(self.control_takes() + stream.buf.len() as u64, cx) {
            self.hear_later(id, cx.now + SESSION_HOLDS_RETRY);
            return false;
        }
        if cx.is_crowded {
            cx.effects.push(Effect::Unheard { stream: id });
        }
        !cx.is_crowded
    }

    pub(super) fn keep_input<S: Streams>(
        &mut self,
        id: StreamId,
        stream: Stream,
        cx: &mut Context<'_, S>,
    ) {
        self.input_bytes += stream.buf.len();
        self.inputs.insert(id, stream);
        if self.input_bytes > CONTROL_INPUT_BYTES_MAX {
            self.fail(SessionCode::INTERNAL, "too many incomplete control messages", cx);
        }
    }

    /// Forgets what a stream is for. Whatever else comes on it is ignored.
    pub(super) fn forget_input(&mut self, id: StreamId) -> bool {
        let stream = self.inputs.remove(&id);
        self.input_bytes -= stream.as_ref().map_or(0, |stream| stream.buf.len());
        stream.is_some()
    }

    /// From here on what else comes on a stream is read and dropped.
    pub(super) fn drain_input(&mut self, id: StreamId) {
        if self.forget_input(id) {
            self.inputs.insert(id, Stream { purpose: Use::Draining, buf: BytesMut::new() });
        }
    }

    /// Sends control bytes, now or when the peer's flow control allows.
    pub(super) fn send<S: Streams>(
        &mut self,
        class: Class,
        id: StreamId,
        bytes: &[u8],
        fin: bool,
        cx: &mut Context<'_, S>,
    ) {
        cx.counts.control_sent.note(class, bytes.len());
        let bytes = Bytes::copy_from_slice(bytes);
        if let Some(mut unsent) = self.take_unsent(id) {
            unsent.chunks.push(bytes);
            unsent.fin |= fin;
            return self.keep_unsent(id, unsent, cx);
        }
        cx.streams.set_priority(id, CONTROL_PRIORITY);
        let is_counted = !self.feeds.contains_key(&id);
        self.write(id, Unsent { chunks: vec![bytes], fin, is_counted }, cx);
    }

    /// Goes on with what waits on a stream. False if there was nothing, or if some still waits.
    pub(super) fn resend<S: Streams>(&mut self, id: StreamId, cx: &mut Context<'_, S>) -> bool {
        let Some(unsent) = self.take_unsent(id) else { return false };
        self.write(id, unsent, cx)
    }

    /// Writes what the peer's flow control takes and keeps the rest. True if nothing is left.
    fn write<S: Streams>(
        &mut self,
        id: StreamId,
        mut unsent: Unsent,
        cx: &mut Context<'_, S>,
    ) -> bool {
        match cx.streams.write(id, &mut unsent.chunks) {
            WriteEnd::Blocked(_) => {
                self.keep_unsent(id, unsent, cx);
                return false;
            }
            WriteEnd::All if unsent.fin => cx.streams.finish(id),
            WriteEnd::All | WriteEnd::Stopped => {}
        }
        true
    }

    fn take_unsent(&mut self, id: StreamId) -> Option<Unsent> {
        let unsent = self.unsent.remove(&id)?;
        if unsent.is_counted {
            self.unsent_bytes -= unsent.len();
        }
        Some(unsent)
    }

    fn keep_unsent<S: Streams>(
        &mut self,
        id: StreamId,
        mut unsent: Unsent,
        cx: &mut Context<'_, S>,
    ) {
        unsent.chunks.retain(|chunk| !chunk.is_empty());
        if unsent.is_counted {
            self.unsent_bytes += unsent.len();
        }
        self.unsent.insert(id, unsent);
        if self.unsent_bytes > CONTROL_BACKLOG_BYTES_MAX {
            self.fail(SessionCode::INTERNAL, "control streams are not read", cx);
        }
    }

    pub(super) fn finish<S: Streams>(&mut self, id: StreamId, cx: &mut Context<'_, S>) {
        match self.unsent.get_mut(&id) {
            Some(unsent) => unsent.fin = true,
            None => cx.streams.finish(id),
        }
    }

    pub(super) fn reset<S: Streams>(
        &mut self,
        id: StreamId,
        code: StreamCode,
        cx: &mut Context<'_, S>,
    ) {
        self.take_unsent(id);
        cx.streams.reset(id, code);
    }

    /// Ends both directions of a stream that is not served.
    pub(super) fn refuse<S: Streams>(
        &mut self,
        id: StreamId,
        code: StreamCode,
        cx: &mut Context<'_, S>,
    ) {
        self.reset(id, code, cx);
        cx.streams.stop(id, code);
    }
}
