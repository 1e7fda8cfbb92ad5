//! What peers say that other shards are to be told of: how much of it is read in one turn, and what waits for
//! the next ones.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use super::Shard;
use crate::limits::{OUTBOX_REQUESTS_MAX, ROUTE_CHANGES_PER_TURN};
use crate::session::streams::StreamId;

/// A stream to be read on, with the slot and generation of its connection.
pub(super) type Unread = (usize, u32, StreamId);

#[derive(Default)]
pub(super) struct Hearing {
    /// Streams that are read when less waits for other shards.
    crowded: BTreeSet<Unread>,
    /// Streams of announcements. Each is read once before one of them is read again.
    waiting: VecDeque<Unread>,
    is_waiting: BTreeSet<Unread>,
    /// Changes of routes that sessions may still bring in this turn.
    pub changes_left: usize,
}

impl Hearing {
    /// Whoever waits from the turn before has the first of this one.
    pub fn begin_turn(&mut self) {
        self.changes_left = if self.waiting.is_empty() { ROUTE_CHANGES_PER_TURN } else { 0 };
    }

    /// A change has cost as much as so many more.
    pub fn charge(&mut self, more: usize) {
        self.changes_left = self.changes_left.saturating_sub(more);
    }

    pub fn wait_for_room(&mut self, unread: Unread) {
        self.crowded.insert(unread);
    }

    pub fn wait(&mut self, unread: Unread) {
        if self.is_waiting.insert(unread) {
            self.waiting.push_back(unread);
        }
    }

    fn next(&mut self) -> Option<Unread> {
        let unread = self.waiting.pop_front()?;
        self.is_waiting.remove(&unread);
        Some(unread)
    }
}

impl Shard {
    /// Whether what waits for other shards is to become less before peers ask for more.
    pub(super) fn is_crowded(&self) -> bool {
        self.post.held() > OUTBOX_REQUESTS_MAX
    }

    /// Whether something can be read as soon as there is another turn.
    pub(super) fn can_hear_more(&self) -> bool {
        let Hearing { crowded, waiting, .. } = &self.hearing;
        let is_something = !crowded.is_empty() || !waiting.is_empty();
        is_something && !self.is_crowded()
    }

    /// Reads on what was not read before.
    pub(super) fn read_waiting(&mut self, now: Instant) {
        if !self.is_crowded() {
            self.unread.extend(std::mem::take(&mut self.hearing.crowded));
        }
        for unread in std::mem::take(&mut self.unread) {
            self.read_on(now, unread);
        }
        let waiting = self.hearing.waiting.len();
        if waiting > 0 {
            self.hearing.changes_left = ROUTE_CHANGES_PER_TURN;
        }
        // Whoever has to wait again does so behind the others.
        for _ in 0..waiting {
            if self.is_crowded() || self.hearing.changes_left == 0 {
                return;
            }
            if let Some(unread) = self.hearing.next() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_waits_once_and_who_waits_goes_before_who_comes() {
        let stream = |slot| (slot, 0, StreamId(3));
        let mut hearing = Hearing::default();
        hearing.begin_turn();
        assert_eq!(hearing.changes_left, ROUTE_CHANGES_PER_TURN);
        hearing.charge(ROUTE_CHANGES_PER_TURN + 1);
        assert_eq!(hearing.changes_left, 0);
        [1, 2, 1, 1].into_iter().for_each(|slot| hearing.wait(stream(slot)));
        hearing.begin_turn();
        assert_eq!(hearing.changes_left, 0);
        assert_eq!(hearing.next(), Some(stream(1)));
        hearing.wait(stream(1));
        let turns: Vec<_> = std::iter::from_fn(|| hearing.next()).collect();
        assert_eq!(turns, [2, 1].map(stream));
        hearing.begin_turn();
        assert_eq!(hearing.changes_left, ROUTE_CHANGES_PER_TURN);
    }
}
