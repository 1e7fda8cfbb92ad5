//! The connections of a shard whose peers listen to announcements, and which of them are to be told
//! something: one after the other, some in each turn.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Shard;
use crate::limits::{ANNOUNCE_INTERVAL, ANNOUNCE_VISITS_PER_LISTENER, ANNOUNCE_VISITS_PER_TURN};
use crate::session::Round;

#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// By connection slot: the number of its turn, where there is something to tell.
    all: BTreeMap<usize, Option<u64>>,
    /// Those by that number.
    behind: BTreeMap<u64, usize>,
    next_turn: u64,
}

impl Listeners {
    /// There is something to tell one of them, who may be new.
    pub fn note(&mut self, slot: usize) {
        let turn = self.all.entry(slot).or_default();
        queue(slot, turn, &mut self.behind, &mut self.next_turn);
    }

    /// There is something to tell everybody.
    pub fn note_all(&mut self) {
        for (slot, turn) in &mut self.all {
            queue(*slot, turn, &mut self.behind, &mut self.next_turn);
        }
    }

    /// Whose turn it is.
    pub fn next(&mut self) -> Option<usize> {
        let (_, slot) = self.behind.pop_first()?;
        self.all.insert(slot, None);
        Some(slot)
    }

    pub fn forget(&mut self, slot: usize) {
        if let Some(Some(turn)) = self.all.remove(&slot) {
            self.behind.remove(&turn);
        }
    }

    /// How many there is something to tell.
    pub fn behind(&self) -> usize {
        self.behind.len()
    }
}

/// Has a listener its turn after the others, if it is to have none yet.
fn queue(slot: usize, turn: &mut Option<u64>, behind: &mut BTreeMap<u64, usize>, next: &mut u64) {
    if turn.is_none() {
        *turn = Some(*next);
        behind.insert(*next, slot);
        *next += 1;
    }
}

impl Shard {
    /// A peer listens to announcements, or may have stopped.
    pub(super) fn note_listener(&mut self, slot: usize) {
        let listens = self.peers[slot].as_ref().is_some_and(|peer| peer.session.listens());
        match listens {
            true => self.listeners.note(slot),
            false => self.listeners.forget(slot),
        }
    }

    /// Whether listeners have not been told that there is something new.
    pub(super) fn has_news(&self) -> bool {
        self.announced != self.directory.journal().end()
    }

    /// Moves tracks and tells listeners, as the routes that have changed have it, so many in a turn.
    pub(super) fn announce(&mut self, now: Instant) {
        self.move_tracks(now);
        let before = self.directory.journal().end();
        self.directory.release(now);
        self.visits.routes += (self.directory.journal().end() - before) as u32;
        if self.has_news() && self.announce_at <= now {
            self.announced = self.directory.journal().end();
            self.announce_at = now + ANNOUNCE_INTERVAL;
            self.listeners.note_all();
        }
        let mut visits = 0;
        for _ in 0..self.listeners.behind() {
            let room = (ANNOUNCE_VISITS_PER_TURN - visits).min(ANNOUNCE_VISITS_PER_LISTENER);
            let Some(slot) = (room > 0).then(|| self.listeners.next()).flatten() else { break };
            let round = self.announce_to(now, slot, room);
            // Also one that has nothing to hear was looked at.
            visits += round.visits.max(1);
            if round.has_more {
                self.listeners.note(slot);
            }
        }
        self.visits.paths += visits as u32;
    }

    fn announce_to(&mut self, now: Instant, slot: usize, room: usize) -> Round {
        let directory = std::mem::take(&mut self.directory);
        let mut round = Round { visits: 0, has_more: false };
        self.with_session(now, slot, |session, cx| round = session.announce(&directory, room, cx));
        self.directory = directory;
        round
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_one_turn_after_the_others() {
        let mut listeners = Listeners::default();
        for slot in [4, 0, 7] {
            listeners.note(slot);
        }
        assert_eq!(listeners.next(), Some(4));
        listeners.note(4);
        listeners.note_all();
        let turns: Vec<_> = std::iter::from_fn(|| listeners.next()).collect();
        assert_eq!(turns, [0, 7, 4]);
        listeners.note_all();
        listeners.forget(0);
        assert_eq!(listeners.behind(), 2);
        listeners.note(4);
        let turns: Vec<_> = std::iter::from_fn(|| listeners.next()).collect();
        assert_eq!(turns, [4, 7]);
        listeners.note(0);
        listeners.forget(4);
        listeners.note_all();
        let turns: Vec<_> = std::iter::from_fn(|| listeners.next()).collect();
        assert_eq!(turns, [0, 7]);
    }
}
