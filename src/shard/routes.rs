//! Routes of the sessions here come, change and go: the directory is told, and every other shard.

use std::sync::Arc;
use std::time::Instant;

use super::Shard;
use super::message::RouteNews;
use crate::limits::{
    ANNOUNCED_BYTES_PER_PEER_MAX, ANNOUNCEMENTS_PER_PEER_MAX, FADING_ROUTES_PER_TURN,
    ROUTES_PER_ADDRESS_MAX, ROUTES_PER_CHANGE,
};
use crate::route::{Gone, Route, RouteId, Takeover, Trust};
use crate::wire::{Cost, Path};

/// What was said of the announcements of a session, which is said once.
#[derive(Default)]
pub(super) struct Said {
    /// That it passes on what others publish, and is not believed.
    pub hearsay: bool,
    /// That somebody else has announced what it does.
    waits: bool,
}

/// A route of which nobody knows yet what has become of its peer.
pub(super) struct Fading {
    id: RouteId,
    path: Path,
    fate: Fate,
}

#[derive(Clone, Copy)]
pub(super) enum Fate {
    Over(Gone),
    Changes(RouteChange),
}

/// What becomes of a route that is still there.
#[derive(Clone, Copy)]
pub(super) enum RouteChange {
    Leaves,
    FallsSilent,
    Answers,
}

impl Shard {
    /// A session here has announced a path, or says something else of it.
    pub(super) fn route_up(&mut self, now: Instant, slot: usize, route: Arc<Route>) {
        self.believe(now, slot);
        // Who was asked for all that it announces says what is known too.
        if self.directory.at(&route.path).any(|entry| entry.route == route) {
            return self.charge_for(&route.path);
        }
        if !self.directory.has(&route) && !self.directory.has_room(&route) {
            self.charge_for(&route.path);
            return self.refuse_route(now, slot, route);
        }
        if let Some(peer) = &mut self.peers[slot] {
            peer.routes.insert(route.id, route.path.clone());
        }
        tracing::debug!(shard = self.me, conn = slot, path = %route.path, "announced");
        if route.is_hearsay() {
            self.say_hearsay(now, slot);
        }
        let holder = self.directory.at(&route.path).next().map(|entry| &entry.route);
        let has_it = holder
            .is_none_or(|holder| holder.session == route.session || holder.origin == route.origin);
        // Who moves to the next process of an upgrade is followed by what it has announced before.
        let waits = self.policy.takeover == Takeover::Refused && !has_it;
        if waits && !self.links.are_moving(slot) {
            self.say_waits(now, slot, &route.path);
        }
        self.route_changed(now, RouteNews::Up(route));
    }

    /// All routes at a path are looked at for one.
    fn charge_for(&mut self, path: &Path) {
        let beside = self.directory.count_at(path);
        self.visits.routes += 1 + beside as u32;
        self.hearing.charge(beside / ROUTES_PER_CHANGE);
    }

    /// What a peer announces is somebody else's so far: said once of each.
    fn say_waits(&mut self, now: Instant, slot: usize, path: &Path) {
        let Some(peer) = &mut self.peers[slot] else { return };
        if !std::mem::replace(&mut peer.said.waits, true) && self.may_say(now, slot) {
            tracing::info!(
                shard = self.me,
                conn = slot,
                path = %path,
                "waits: somebody else has announced the path before; for others that this session announces that \
                 is not said"
            );
        }
    }

    /// A peer announces a path that is too long.
    pub(super) fn note_long_path(&mut self, slot: usize, is_first: bool) {
        self.counters.long_paths_total += 1;
        if is_first {
            tracing::debug!(shard = self.me, conn = slot, "announces paths that are too long");
        }
    }

    /// A peer announces more than one may.
    pub(super) fn note_surplus(&mut self, now: Instant, slot: usize, is_first: bool) {
        self.counters.refused_routes_total += 1;
        self.look_later(now, slot, None);
        if is_first && self.may_say(now, slot) {
            let remote = self.conns.get(slot).map(|conn| conn.remote().to_string());
            tracing::warn!(
                shard = self.me,
                conn = slot,
                remote,
                paths = ANNOUNCEMENTS_PER_PEER_MAX,
                bytes = ANNOUNCED_BYTES_PER_PEER_MAX,
                "announces more paths than one peer may, or more bytes of them: what is more leads nowhere until \
                 it has ended others; if it is a relay of this cluster name it with --auth-peer or \
                 --cluster-address"
            );
        }
    }

    /// A peer announces more than there is room for.
    fn refuse_route(&mut self, now: Instant, slot: usize, route: Arc<Route>) {
        let refused = self.counters.refused_routes_total;
        self.counters.refused_routes_total += 1;
        let is_link = route.trust == Trust::Relay;
        // Where it is the path that is full, others may have room: its session is asked again in any case.
        let has_room_there = self.directory.has_room_at(&route.path, route.trust);
        self.look_later(now, slot, has_room_there.then_some(route));
        // One line for many.
        if refused.is_multiple_of(ROUTES_PER_ADDRESS_MAX as u64) && self.may_say(now, slot) {
            let remote = self.conns.get(slot).map(|conn| conn.remote().to_string());
            tracing::warn!(
                shard = self.me,
                conn = slot,
                remote,
                is_link,
                "there is no room for more announcements, of all, from this address or at this path: more lead nowhere \
                 until others have ended; routes have a sixteenth of --memory-max"
            );
        }
    }

    pub(super) fn route_down(&mut self, now: Instant, slot: usize, path: Path, id: RouteId) {
        self.believe(now, slot);
        if let Some(peer) = &mut self.peers[slot] {
            peer.routes.remove(&id);
        }
        tracing::debug!(shard = self.me, conn = slot, path = %path, "unannounced");
        self.route_changed(now, RouteNews::Down { path, id, gone: Gone::Withdrawn });
    }

    pub(super) fn routes_down(&mut self, now: Instant, slot: usize, routes: Vec<(RouteId, Path)>) {
        self.believe(now, slot);
        tracing::debug!(shard = self.me, conn = slot, routes = routes.len(), "unannounced");
        if let Some(peer) = &mut self.peers[slot] {
            routes.iter().for_each(|(id, _)| drop(peer.routes.remove(id)));
        }
        self.fade(now, routes, Fate::Over(Gone::Withdrawn));
    }

    /// Many routes of one peer are over, or leave: some now, and the others in the next turns.
    pub(super) fn fade(
        &mut self,
        now: Instant,
        routes: impl IntoIterator<Item = (RouteId, Path)>,
        fate: Fate,
    ) {
        let waits = !self.fading.is_empty();
        self.fading.extend(routes.into_iter().map(|(id, path)| Fading { id, path, fate }));
        if !waits {
            self.tell_of_fading(now);
        }
    }

    /// Something has become of a peer of this shard that changes all its routes.
    pub(super) fn change_routes(&mut self, now: Instant, slot: usize, change: RouteChange) {
        let Some(peer) = &self.peers[slot] else { return };
        let routes: Vec<_> = peer.routes.iter().map(|(id, path)| (*id, path.clone())).collect();
        self.fade(now, routes, Fate::Changes(change));
    }

    pub(super) fn tell_of_fading(&mut self, now: Instant) {
        let mut left = FADING_ROUTES_PER_TURN;
        while left > 0
            && let Some(Fading { id, path, fate }) = self.fading.pop_front()
        {
            left = left.saturating_sub(1 + self.directory.count_at(&path) / ROUTES_PER_CHANGE);
            let news = match fate {
                Fate::Over(gone) => Some(RouteNews::Down { path, id, gone }),
                Fate::Changes(change) => self.faded(id, &path, change).map(RouteNews::Up),
            };
            if let Some(news) = news {
                self.route_changed(now, news);
            }
        }
    }

    /// A route as it is to be from now on, if it is still there.
    fn faded(&self, id: RouteId, path: &Path, change: RouteChange) -> Option<Arc<Route>> {
        let entry = self.directory.at(path).find(|entry| entry.route.id == id)?;
        let route = (*entry.route).clone();
        Some(Arc::new(match change {
            RouteChange::Leaves => Route { cost: Cost::MAX, ..route },
            RouteChange::FallsSilent => Route { is_silent: true, ..route },
            RouteChange::Answers => Route { is_silent: false, ..route },
        }))
    }

    /// A route of a session here is new, has changed or is gone: every shard is to know.
    fn route_changed(&mut self, now: Instant, news: RouteNews) {
        let is_new = matches!(&news, RouteNews::Up(route) if !self.directory.has(route));
        for shard in (0..self.shards).filter(|shard| *shard != self.me) {
            self.untold[shard].note(news.clone(), is_new);
        }
        self.note_route(now, news);
    }

    pub(super) fn note_route(&mut self, now: Instant, news: RouteNews) {
        let path = match &news {
            RouteNews::Up(route) => route.path.clone(),
            RouteNews::Down { path, .. } => path.clone(),
        };
        self.charge_for(&path);
        let before = self.directory.at(&path).next().map(|entry| entry.route.session);
        match news {
            RouteNews::Up(route) => {
                if !self.directory.has(&route) {
                    self.note_claim(now, &route);
                }
                self.directory.insert(route, now);
            }
            RouteNews::Down { path, id, gone } => self.directory.remove(&path, id, gone, now),
        }
        self.note_heir(now, &path, before);
        self.moves.note(path);
    }
}
