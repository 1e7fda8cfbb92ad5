//! Paths that a session of this shard announces, and somebody else claims who may be the same publisher: it
//! is back, and the old session is dead and nobody has noticed. The old one is asked for a sign of life. If
//! none comes, its routes are the last choice until it says something again or is lost.

use std::sync::Arc;
use std::time::Instant;

use super::{Peer, Shard};
use crate::limits::{CLAIM_GRACE_MAX, CLAIM_GRACE_MIN};
use crate::route::{Route, Takeover};
use crate::session::streams::Streams;

/// A session that has been asked for a sign of life.
pub(super) struct Doubt {
    since: Instant,
    /// None has come in time.
    is_silent: bool,
}

impl Shard {
    /// Somebody claims a path.
    pub(super) fn note_claim(&mut self, now: Instant, claim: &Route) {
        // Where the first one keeps the path, the others do not matter.
        let most = if self.policy.takeover == Takeover::Refused { 1 } else { usize::MAX };
        let held = self.directory.at(&claim.path).take(most).map(|entry| &entry.route);
        let is_here = |held: &&Arc<Route>| usize::from(held.session.shard) == self.me;
        let doubted = held.filter(is_here).filter(|held| claim.may_return(held));
        for session in doubted.map(|held| held.session).collect::<Vec<_>>() {
            let slot = session.slot as usize;
            if self.generation(slot) == Some(session.generation) {
                self.doubt(now, slot);
            }
        }
    }

    fn doubt(&mut self, now: Instant, slot: usize) {
        let (Some(peer), Some(conn)) = (&mut self.peers[slot], self.endpoint.conn(slot)) else {
            return;
        };
        if peer.doubt.is_some() {
            return;
        }
        peer.doubt = Some(Doubt { since: now, is_silent: false });
        let grace = (3 * conn.rtt()).clamp(CLAIM_GRACE_MIN, CLAIM_GRACE_MAX);
        self.doubts.insert((now + grace, slot, conn.generation()));
        conn.ping();
        self.endpoint.note_dirty(slot);
    }

    /// Looks at those that have had their time.
    pub(super) fn settle_doubts(&mut self, now: Instant) {
        while let Some(&(at, slot, generation)) = self.doubts.first()
            && at <= now
        {
            self.doubts.pop_first();
            if self.generation(slot) != Some(generation) {
                continue;
            }
            let heard_at = self.endpoint.conn(slot).map(|conn| conn.heard_at());
            let Some(Peer { doubt: Some(doubt), .. }) = self.peers[slot].as_deref_mut() else {
                continue;
            };
            if heard_at > Some(doubt.since) {
                self.believe(now, slot);
                continue;
            }
            if !doubt.is_silent {
                tracing::debug!(
                    shard = self.me,
                    conn = slot,
                    "is silent, and its paths are claimed"
                );
                doubt.is_silent = true;
                self.change_routes(now, slot, |route| Route { is_silent: true, ..route });
            }
            self.doubts.insert((now + CLAIM_GRACE_MIN, slot, generation));
        }
    }

    /// A session that was doubted lives: it has what it had before.
    pub(super) fn believe(&mut self, now: Instant, slot: usize) {
        let doubt = self.peers[slot].as_mut().and_then(|peer| peer.doubt.take());
        if doubt.is_some_and(|doubt| doubt.is_silent) {
            self.change_routes(now, slot, |route| Route { is_silent: false, ..route });
        }
    }
}
