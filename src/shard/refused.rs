//! Announcements that found no room. Their peers are asked for all that they announce anew when there is room again:
//! nobody else could tell them, and a relay passes on what others publish, who know nothing of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shard;
use crate::limits::{ASKED_AGAIN_AFTER, ASKED_AGAIN_AFTER_MAX, ASKED_AGAIN_PER_TURN};
use crate::route::Route;

/// When it is looked whether there is room for what sessions have announced: once for each, by slot and generation.
#[derive(Default)]
pub(super) struct Looks(BTreeSet<(Instant, usize, u32)>);

impl Looks {
    pub fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, ..)| *at)
    }
}

/// What a session has announced that found no room.
#[derive(Default)]
pub(super) struct Refused {
    /// It is among the looks.
    is_looked_for: bool,
    /// The last such route, where it was for want of room for all.
    route: Option<Arc<Route>>,
    /// From the refusal to the look, twice as long with each time that it was asked.
    pause: Duration,
}

impl Shard {
    /// An announcement has found no room: among all, or where no route is named among those of its session.
    pub(super) fn look_later(&mut self, now: Instant, slot: usize, route: Option<Arc<Route>>) {
        let Some(generation) = self.conns.generation(slot) else { return };
        let Some(peer) = &mut self.peers[slot] else { return };
        let refused = &mut peer.refused;
        refused.route = route.or(refused.route.take());
        if !std::mem::replace(&mut refused.is_looked_for, true) {
            refused.pause = (2 * refused.pause).clamp(ASKED_AGAIN_AFTER, ASKED_AGAIN_AFTER_MAX);
            self.looks.0.insert((now + refused.pause, slot, generation));
        }
    }

    pub(super) fn look_at_refused(&mut self, now: Instant) {
        for _ in 0..ASKED_AGAIN_PER_TURN {
            let Some(&look) = self.looks.0.first().filter(|(at, ..)| *at <= now) else { return };
            self.looks.0.remove(&look);
            let (_, slot, generation) = look;
            if self.conns.generation(slot) != Some(generation) {
                continue;
            }
            let Some(peer) = &mut self.peers[slot] else { continue };
            let route = peer.refused.route.as_ref();
            let has_room = route.is_none_or(|route| self.directory.has_room(route));
            if !has_room || !peer.session.may_announce_more() {
                self.looks.0.insert((now + ASKED_AGAIN_AFTER, slot, generation));
                continue;
            }
            peer.refused.route = None;
            peer.refused.is_looked_for = false;
            let mut is_asked = true;
            self.with_session(now, slot, |session, cx| is_asked = session.ask_again(cx));
            if !is_asked {
                self.look_later(now, slot, None);
            }
            self.settle(now);
        }
    }
}
