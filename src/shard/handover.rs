//! Publishers that leave: whatever else there is wins over what they announced, and what they bring
//! moves to another way to the same broadcast as soon as there is one (spec §4.16).

use std::sync::Arc;
use std::time::Instant;

use super::Shard;
use super::message::{ToShard, TrackKey};
use super::tracks::Place;
use crate::route::Route;
use crate::track::TrackRef;
use crate::track::serve::PullCommand;
use crate::wire::{Cost, StreamCode};

impl Shard {
    /// A peer of this shard leaves.
    pub(super) fn peer_leaves(&mut self, slot: usize) {
        let Some(peer) = &self.peers[slot] else { return };
        let announced = peer.routes.iter().filter_map(|(id, path)| {
            let route = self.directory.at(path).find(|route| route.id == *id)?;
            Some(Arc::new(Route { cost: Cost::MAX, ..(**route).clone() }))
        });
        for route in announced.collect::<Vec<_>>() {
            self.tell_all(|| ToShard::RouteUp(route.clone()));
            self.route_up(route);
        }
    }

    /// Moves every track at home here that has another way by now. Called once a turn, when routes
    /// have changed in it.
    pub(super) fn move_tracks(&mut self, now: Instant) {
        if !self.directory.has_leaving() {
            return;
        }
        let slots = self.tracks.slab.iter().map(|(slot, _)| slot);
        let moving = slots.filter(|slot| self.is_to_move(*slot));
        let moving: Vec<TrackRef> = moving.map(|slot| self.tracks.name(slot)).collect();
        for track in moving {
            if let Some(slot) = self.tracks.slot(track) {
                self.steer(now, slot);
            }
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

    /// Lets the publisher of a track go, so that another one goes on where it stops.
    pub(super) fn move_track(&mut self, now: Instant, slot: usize) {
        let Place::Home { serve, .. } = &self.tracks.slab[slot].place else { return };
        if let Some(route) = serve.route() {
            let (session, pull) = (route.session, serve.pull());
            self.command(now, session, PullCommand::Release { pull });
        }
        self.publisher_failed(now, slot, StreamCode::GOING_AWAY);
    }
}
