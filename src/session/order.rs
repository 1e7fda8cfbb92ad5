//! In which order the open groups of one subscription leave (spec §4.11).
//!
//! In sequence order where the link carries all of them at once: who reads a track in that order
//! skips whatever comes after something newer. Newest first where it does not: there what is old only
//! delays what is new.

use std::time::Duration;

use crate::limits::IN_SEQUENCE_DELAY;

/// Ranks within one track priority; older groups share the last.
pub(super) const RANKS: i32 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    InSequence,
    NewestFirst,
}

impl Order {
    /// Of groups of so many bytes on a link that takes a window in each round trip.
    pub fn of(bytes: u64, window: u64, rtt: Duration) -> Order {
        if bytes <= carried_soon(window, rtt) { Order::InSequence } else { Order::NewestFirst }
    }

    /// The rank of a group behind `others` of its subscription. In sequence all have the same: the
    /// transport begins with the first.
    pub fn rank(self, others: usize) -> i32 {
        match self {
            Order::InSequence => 0,
            Order::NewestFirst => others.min(RANKS as usize - 1) as i32,
        }
    }
}

/// A window at least: nothing in it waits for the path.
fn carried_soon(window: u64, rtt: Duration) -> u64 {
    let rtt = rtt.as_micros().max(1) as u64;
    let soon = rtt.max(IN_SEQUENCE_DELAY.as_micros() as u64);
    window.saturating_mul(soon) / rtt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_soon_leaves_in_sequence() {
        // A window, however long the way; on a short one what that makes in the time allowed.
        let table =
            [(12_000, 300, true), (12_001, 300, false), (60_000, 10, true), (60_001, 10, false)];
        for (bytes, rtt_ms, is_in_sequence) in table {
            let order = Order::of(bytes, 12_000, Duration::from_millis(rtt_ms));
            assert_eq!(order == Order::InSequence, is_in_sequence, "{bytes} bytes at {rtt_ms} ms");
        }
        let not_measured = Order::of(1 << 20, 12_000, Duration::ZERO);
        assert_eq!(not_measured, Order::InSequence);
        let unlimited = Order::of(1 << 30, u64::MAX, Duration::from_secs(1));
        assert_eq!(unlimited, Order::InSequence);
    }

    #[test]
    fn newest_first_one_ranks_after_the_other() {
        assert_eq!([0, 1, 300].map(|others| Order::NewestFirst.rank(others)), [0, 1, 255]);
        assert_eq!([0, 1, 300].map(|others| Order::InSequence.rank(others)), [0, 0, 0]);
    }
}
