//! The end of a shard: every peer is told, and there is time for that to leave.

use std::time::Instant;

use super::conns::Conns;
use super::{RETRY_AFTER, Shard};
use crate::limits::{LAST_WORDS_GRACE, LAST_WORDS_MAX};
use crate::net::Datagrams;
use crate::quic::trains::Transmitted;
use crate::rt::Next;

/// What a shard that ends has still to say.
#[derive(Clone, Copy)]
pub(super) struct LastWords {
    /// When it is over, whoever is still there.
    ends_at: Instant,
    /// Connections with words left, and when that last was another number.
    left: usize,
    moved_at: Instant,
}

impl Shard {
    /// From here on the shard says goodbye, and nothing else is done.
    pub(super) fn begin_goodbye(&mut self, now: Instant) {
        let ends_at = now + LAST_WORDS_MAX;
        self.goodbye.get_or_insert(LastWords { ends_at, left: 0, moved_at: now });
    }

    /// Closes every connection, and is done when the last words have left or there was time enough for
    /// them.
    pub(super) fn say_goodbye(
        &mut self,
        now: Instant,
        mut goodbye: LastWords,
        io: &mut impl Datagrams,
    ) -> Next {
        let reason = self.drain.goodbye();
        if goodbye.left == 0 {
            // Before anything that was to be sent otherwise.
            self.conns.quic.close_next(now, reason);
            let Conns { quic, pipes } = &mut self.conns;
            pipes.close_all(now, reason, quic.budget());
        }
        loop {
            match self.conns.quic.transmit(now, io) {
                Transmitted::More => {}
                Transmitted::Blocked => break,
                Transmitted::All if self.conns.quic.close_next(now, reason) => {}
                Transmitted::All => return Next::Stop,
            }
        }
        let left = self.conns.quic.unsent();
        if left != goodbye.left {
            (goodbye.left, goodbye.moved_at) = (left, now);
        }
        self.goodbye = Some(goodbye);
        let ends_at = goodbye.ends_at.min(goodbye.moved_at + LAST_WORDS_GRACE);
        if now < ends_at { Next::Until(now + RETRY_AFTER) } else { Next::Stop }
    }
}
