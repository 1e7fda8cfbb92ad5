//! What a neighbour that does not keep up is spared: whole groups, and first of those who send it most.

use std::collections::BTreeSet;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::Counters;
use super::names::Owner;
use crate::limits::{OUTBOX_DATAGRAM_MAX, OUTBOX_LIVE_MAX, OUTBOX_LIVE_OF_FEW_MAX};
use crate::track::Feed;
use crate::track::group::{GroupEnd, Marks, Piece};
use crate::wire::StreamCode;

/// Whose live content waits for a neighbour since there was little of it.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    by_owner: FxHashMap<Owner, u32>,
    total: u32,
}

impl Backlog {
    /// Whether one more piece of this owner may wait behind so much. Who has sent less than the others lately
    /// is not in their way, and may go on for longer.
    fn admits(&mut self, owner: Owner, waiting: usize) -> bool {
        if waiting <= OUTBOX_DATAGRAM_MAX {
            if self.total > 0 {
                *self = Backlog::default();
            }
            return true;
        }
        let sent = self.by_owner.get(&owner).copied().unwrap_or(0);
        let is_heavy = u64::from(sent) * self.by_owner.len() as u64 >= u64::from(self.total);
        let most = if is_heavy { OUTBOX_LIVE_MAX } else { OUTBOX_LIVE_OF_FEW_MAX };
        if waiting > most {
            return false;
        }
        self.by_owner.insert(owner, sent + 1);
        self.total += 1;
        true
    }
}

/// Groups that are left out of a lane whose receiver does not keep up. Whole groups, so that no
/// viewer takes a part for all of it.
#[derive(Debug, Default)]
pub(super) struct Skips {
    sequences: BTreeSet<u64>,
}

impl Skips {
    /// What is to be sent of a piece of news of this owner, where so much waits before it.
    pub fn admit(
        &mut self,
        feed: Feed,
        owner: Owner,
        backlog: &mut Backlog,
        waiting: usize,
        counters: &mut Counters,
    ) -> Option<Feed> {
        let piece = match feed {
            Feed::Piece(piece) => piece,
            Feed::Datagram(_) if waiting > OUTBOX_DATAGRAM_MAX => {
                counters.dropped_groups_total += 1;
                counters.dropped_datagrams_total += 1;
                return None;
            }
            Feed::NewRun(_) => {
                self.sequences.clear();
                return Some(feed);
            }
            feed => return Some(feed),
        };
        if self.sequences.contains(&piece.sequence) {
            if piece.ends.is_some() {
                self.sequences.remove(&piece.sequence);
            }
            return None;
        }
        if backlog.admits(owner, waiting) {
            return Some(Feed::Piece(piece));
        }
        counters.dropped_groups_total += 1;
        if piece.ends.is_none() {
            self.sequences.insert(piece.sequence);
        }
        if piece.opens.is_some() {
            return None;
        }
        Some(Feed::Piece(Piece {
            ends: Some(GroupEnd::Aborted(StreamCode::TOO_FAR_BEHIND)),
            bytes: Bytes::new(),
            marks: Marks::new(),
            ..piece
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_most_is_left_out_first() {
        let (loud, quiet) = (Owner::Address(1), Owner::Address(2));
        let mut backlog = Backlog::default();
        let mut waiting = 0;
        while backlog.admits(loud, waiting) {
            waiting += 1;
        }
        assert_eq!(waiting, OUTBOX_LIVE_MAX + 1);
        for _ in 0..100 {
            assert!(backlog.admits(quiet, waiting));
            assert!(!backlog.admits(loud, waiting));
        }
        assert!(backlog.admits(quiet, OUTBOX_LIVE_OF_FEW_MAX));
        assert!(!backlog.admits(quiet, OUTBOX_LIVE_OF_FEW_MAX + 1));
        // When little waits all are equal again.
        assert!(backlog.admits(loud, OUTBOX_DATAGRAM_MAX));
        assert_eq!(backlog.total, 0);
    }

    #[test]
    fn equals_are_left_out_together() {
        let mut backlog = Backlog::default();
        for waiting in 0..=OUTBOX_LIVE_MAX {
            assert!(backlog.admits(Owner::Address(waiting as u64 % 2), waiting));
        }
        let late = [0, 1].map(|at| backlog.admits(Owner::Address(at), OUTBOX_LIVE_MAX + 2));
        assert!(late.contains(&false), "{late:?}");
    }
}
