//! A relay that is to end asks its sessions to move elsewhere, and goes on serving them meanwhile.

use std::time::Instant;

use super::Shard;
use crate::limits::SESSIONS_CHECKED_PER_TURN;
use crate::quic::Goodbye;

/// How far that is.
#[derive(Default)]
pub(super) struct Drain {
    is_on: bool,
    /// The connection slot from which on sessions have not been asked yet.
    next: Option<usize>,
}

impl Drain {
    pub fn begin(&mut self) {
        if !self.is_on {
            *self = Drain { is_on: true, next: Some(0) };
        }
    }

    pub fn stop(&mut self) {
        *self = Drain::default();
    }

    /// Whether sessions that begin are asked as well.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// What sessions are told that are still here when the relay ends.
    pub fn goodbye(&self) -> Goodbye {
        if self.is_on { Goodbye::Drained } else { Goodbye::Sudden }
    }

    pub fn is_behind(&self) -> bool {
        self.next.is_some()
    }
}

impl Shard {
    /// Nobody is asked any more who was not.
    pub(super) fn stay(&mut self) {
        self.drain.stop();
        self.peers.iter_mut().flatten().for_each(|peer| peer.session.stay());
    }

    /// Asks the next sessions, so many in a turn.
    pub(super) fn ask_to_move(&mut self, now: Instant) {
        let Some(first) = self.drain.next else { return };
        let last = (first + SESSIONS_CHECKED_PER_TURN).min(self.peers.len());
        self.drain.next = (last < self.peers.len()).then_some(last);
        for slot in first..last {
            if self.links.is_heir(slot) {
                continue;
            }
            self.with_session(now, slot, |session, cx| session.ask_to_move(now, cx));
            self.settle(now);
        }
        self.visits.events += (last - first) as u32;
    }

    /// Sessions that were asked to move and are still here.
    pub(super) fn parting(&self) -> usize {
        match self.drain.is_on {
            true => self.peers.iter().flatten().filter(|peer| peer.session.is_parting()).count(),
            false => 0,
        }
    }
}
