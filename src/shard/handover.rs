//! Tracks that another publisher goes on with before theirs fails: theirs leaves, and there is another
//! way to the same broadcast (spec §4.16); or it is back in a new session, and the old one is dead
//! and nobody has noticed.

use std::sync::Arc;
use std::time::Instant;

use super::Shard;
use super::message::{RouteNews, TrackKey};
use super::tracks::Place;
use crate::limits::MOVE_VISITS_PER_TURN;
use crate::route::Route;
use crate::track::serve::PullCommand;
use crate::wire::{Cost, Path, StreamCode};

impl Shard {
    /// A peer of this shard leaves.
    pub(super) fn peer_leaves(&mut self, now: Instant, slot: usize) {
        let Some(peer) = &self.peers[slot] else { return };
        let announced = peer.routes.iter().filter_map(|(id, path)| {
            let entry = self.directory.at(path).find(|entry| entry.route.id == *id)?;
            Some(Arc::new(Route { cost: Cost::MAX, ..(*entry.route).clone() }))
        });
        for route in announced.collect::<Vec<_>>() {
            self.route_changed(now, RouteNews::Up(route));
        }
    }

    /// Moves the tracks at home here that others are to go on with, of broadcasts at paths of which
    /// the routes have changed. As many in one turn as leave time for the rest.
    pub(super) fn move_tracks(&mut self, now: Instant) {
        let mut left = MOVE_VISITS_PER_TURN;
        while left > 0
            && let Some((path, after)) = self.next_to_move()
        {
            let covered: Vec<_> = self.tracks.covered_by(&path, after).take(left).collect();
            if covered.len() == left {
                self.moving = covered.last().map(|(key, _)| (path, key.clone()));
            }
            left -= covered.len().max(1);
            let names: Vec<_> = covered.iter().map(|(_, slot)| self.tracks.name(*slot)).collect();
            for track in names {
                if let Some(slot) = self.tracks.slot(track)
                    && (self.is_to_move(slot) || self.is_outdone(slot))
                {
                    self.move_track(now, slot);
                }
            }
        }
    }

    /// A path of which the routes have changed, and after which of its tracks to go on.
    fn next_to_move(&mut self) -> Option<(Path, Option<Arc<TrackKey>>)> {
        match self.moving.take() {
            Some((path, after)) => Some((path, Some(after))),
            None => self.changed_paths.pop_first().map(|path| (path, None)),
        }
    }

    /// Whether the publisher of a track at home here leaves and another one, that has not failed
    /// before, can go on. Fetches that have begun cannot move: they are waited for.
    pub(super) fn is_to_move(&self, slot: usize) -> bool {
        let track = &self.tracks.slab[slot];
        let Place::Home { serve, .. } = &track.place else { return false };
        let leaves = serve.route().is_some_and(|route| self.directory.is_leaving(route.id));
        if !serve.is_open() || !leaves || track.fetches.has_open() {
            return false;
        }
        let TrackKey { broadcast, origin, avoid, .. } = &*track.key;
        let failed = serve.failed();
        self.directory.resolve_staying(broadcast, *origin, *avoid, &failed).is_some()
    }

    /// Whether the publisher of a track at home here is back in another session, that has not failed
    /// before. Only news of routes can make it so.
    fn is_outdone(&self, slot: usize) -> bool {
        let track = &self.tracks.slab[slot];
        let Place::Home { serve, .. } = &track.place else { return false };
        let Some(source) = serve.route().filter(|_| serve.is_open()) else { return false };
        let TrackKey { broadcast, origin, avoid, .. } = &*track.key;
        let is_over = track.content.is_ending || track.content.outcome.is_some();
        if is_over || self.directory.is_leaving(source.id) {
            return false;
        }
        let best = self.directory.resolve_origin(broadcast, *origin, *avoid, &[]);
        best.is_some_and(|best| best.returns(source) && !serve.failed().contains(&best.id))
    }

    /// Lets the publisher of a track go, so that another one goes on where it stops.
    pub(super) fn move_track(&mut self, now: Instant, slot: usize) {
        let Place::Home { serve, .. } = &self.tracks.slab[slot].place else { return };
        if let Some(route) = serve.route() {
            let (session, pull) = (route.session, serve.pull());
            let leaves = self.directory.is_leaving(route.id);
            let code = if leaves { StreamCode::GOING_AWAY } else { StreamCode::SESSION_CLOSED };
            self.command(now, session, PullCommand::Release { pull });
            self.publisher_failed(now, slot, code);
        }
    }
}
