//! What peers say that other shards are to be told of: how much of it is read in one turn, and what waits for
//! the next ones.

use std::collections::VecDeque;
use std::time::Instant;

use super::Shard;
use crate::limits::{OUTBOX_REQUESTS_MAX, ROUTE_CHANGES_PER_TURN};
use crate::session::streams::StreamId;

/// A stream to be read on, with the slot and generation of its connection.
pub(super) type Unread = (usize, u32, StreamId);

#[derive(Default)]
pub(super) struct Hearing {
    /// Each is read once before one of them is read again.
    waiting: VecDeque<Unread>,
    /// Changes of routes that sessions may still bring in this turn.
    pub changes_left: usize,
}

impl Hearing {
    pub fn begin_turn(&mut self) {
        self.changes_left = ROUTE_CHANGES_PER_TURN;
    }

    pub fn wait(&mut self, unread: Unread) {
        self.waiting.push_back(unread);
    }
}

impl Shard {
    /// Whether what waits for other shards is to become less before peers ask for more.
    pub(super) fn is_crowded(&self) -> bool {
        self.post.held() > OUTBOX_REQUESTS_MAX
    }

    /// Whether something can be read as soon as there is another turn.
    pub(super) fn can_hear_more(&self) -> bool {
        !self.hearing.waiting.is_empty() && !self.is_crowded()
    }

    /// Reads on what was not read before. Whoever has to wait again does so behind the others.
    pub(super) fn read_waiting(&mut self, now: Instant) {
        for unread in std::mem::take(&mut self.unread) {
            self.read_on(now, unread);
        }
        for _ in 0..self.hearing.waiting.len() {
            if self.is_crowded() || self.hearing.changes_left == 0 {
                return;
            }
            if let Some(unread) = self.hearing.waiting.pop_front() {
                self.read_on(now, unread);
            }
        }
    }

    fn read_on(&mut self, now: Instant, (slot, generation, stream): Unread) {
        self.visits.events += 1;
        if self.generation(slot) == Some(generation) {
            self.with_session(now, slot, |session, cx| session.readable(stream, cx));
            self.settle(now);
        }
    }
}
