//! Tracks that another publisher goes on with before theirs fails: theirs leaves, and there is another
//! way to the same broadcast (spec §4.16).

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use super::Shard;
use super::names::TrackKey;
use super::placement::hash_of;
use super::routes::RouteChange;
use super::tracks::Place;
use crate::limits::{MOVE_PATHS_PER_TURN, MOVE_VISITS_PER_TURN, STRAY_TRACK_GRACE};
use crate::route::{Directory, Route, RouteId};
use crate::track::serve::PullCommand;
use crate::wire::{Path, StreamCode};

/// Paths of which the routes have changed, and tracks may have to move for it.
#[derive(Default)]
pub(super) struct Moves {
    changed: BTreeSet<Path>,
    /// One of them, and the last of its tracks that was looked at.
    amid: Option<(Path, Arc<TrackKey>)>,
    /// The last of them that had its turn.
    last: Path,
}

impl Moves {
    pub fn note(&mut self, path: Path) {
        self.changed.insert(path);
    }

    pub fn is_behind(&self) -> bool {
        !self.changed.is_empty() || self.amid.is_some()
    }

    /// A path, and after which of its tracks to go on. Each has its turn, whatever those before it change meanwhile.
    fn next(&mut self) -> Option<(Path, Option<Arc<TrackKey>>)> {
        if let Some((path, after)) = self.amid.take() {
            return Some((path, Some(after)));
        }
        let after = (Bound::Excluded(&self.last), Bound::Unbounded);
        let path = self.changed.range(after).next().or(self.changed.first())?.clone();
        self.changed.remove(&path);
        self.last = path.clone();
        Some((path, None))
    }
}

impl Shard {
    /// A peer of this shard leaves, and would have us go elsewhere too.
    pub(super) fn peer_leaves(&mut self, now: Instant, slot: usize, to: String) {
        self.link_leaves(slot, to);
        self.believe(now, slot);
        tracing::debug!(shard = self.me, conn = slot, "going away");
        self.change_routes(now, slot, RouteChange::Leaves);
    }

    pub(super) fn say_bad_goaway(&mut self, now: Instant, slot: usize) {
        if self.may_say(now, slot) {
            let shard = self.me;
            tracing::warn!(shard, conn = slot, "a GOAWAY that cannot be read is not followed");
        }
    }

    /// Moves the tracks at home here that others are to go on with, of broadcasts at paths of which
    /// the routes have changed. As many in one turn as leave time for the rest.
    pub(super) fn move_tracks(&mut self, now: Instant) {
        let (mut left, mut paths) = (MOVE_VISITS_PER_TURN, MOVE_PATHS_PER_TURN);
        while left > 0
            && paths > 0
            && let Some((path, after)) = self.moves.next()
        {
            let covered: Vec<_> = self.tracks.covered_by(&path, after).take(left).collect();
            if covered.len() == left {
                self.moves.amid = covered.last().map(|(key, _)| (path, key.clone()));
            }
            left -= covered.len();
            paths -= usize::from(covered.is_empty());
            self.visits.tracks += covered.len().max(1) as u32;
            let names: Vec<_> = covered.iter().map(|(_, slot)| self.tracks.name(*slot)).collect();
            for track in names {
                if let Some(slot) = self.tracks.slot(track)
                    && (self.is_to_move(slot) || self.is_replaced(slot) || self.waits_aside(slot))
                {
                    self.move_track(now, slot);
                } else if let Some(slot) = self.tracks.slot(track) {
                    self.note_if_stray(now, slot);
                }
            }
        }
    }

    /// Whether the publisher of a track at home here leaves and another one, that has not failed
    /// before, can go on. Fetches that have begun cannot move: they are waited for where there is hope.
    pub(super) fn is_to_move(&self, slot: usize) -> bool {
        let track = &self.tracks.slab[slot];
        let Place::Home { serve, .. } = &track.place else { return false };
        let leaves = |route: &&Arc<Route>| {
            self.directory.is_leaving(route.id) || self.has_lost_its_way(route)
        };
        let Some(route) = serve.route().filter(leaves).filter(|_| serve.is_open()) else {
            return false;
        };
        if track.fetches.has_open() && !self.directory.is_silent(route) {
            return false;
        }
        let TrackKey { broadcast, origin, avoid, .. } = &*track.key;
        let failed = serve.failed();
        self.directory.resolve_staying(broadcast, *origin, *avoid, &failed).is_some()
    }

    /// Whether a relay that passed something on has ended it. Where relays have gone around to each other
    /// meanwhile, it may even have it from here.
    fn has_lost_its_way(&self, route: &Route) -> bool {
        route.is_passed_on() && !self.directory.is_way(route)
    }

    /// Whether nothing has come of a track from the relay that was asked for it, and another way is better by now.
    /// Relays that have gone around to each other meanwhile would wait for each other for ever: the ways that they
    /// announce lead to the publisher, and this one is none of those.
    fn waits_aside(&self, slot: usize) -> bool {
        let track = &self.tracks.slab[slot];
        let Place::Home { serve, .. } = &track.place else { return false };
        let is_aside = |route: &&Arc<Route>| route.is_passed_on() && serve.awaits_news();
        let Some(route) = serve.route().filter(is_aside) else { return false };
        if track.fetches.has_open() || track.need().demand.is_none() {
            return false;
        }
        let best = way_to(&self.directory, self.me, &track.key, &serve.failed());
        best.is_some_and(|best| best.id != route.id)
    }

    /// A track of which the way has ended, and there is no other, has a while to come to its end.
    fn note_if_stray(&mut self, now: Instant, slot: usize) {
        let track = &self.tracks.slab[slot];
        let Place::Home { serve, .. } = &track.place else { return };
        let route = serve.route().filter(|_| serve.is_open());
        let is_stray = route.is_some_and(|route| self.has_lost_its_way(route));
        let track = &mut self.tracks.slab[slot];
        track.given_up_at = is_stray.then(|| track.given_up_at.unwrap_or(now + STRAY_TRACK_GRACE));
        self.tracks.arm(slot);
    }

    /// Gives up a track that nothing has come for since its way ended. True if it has.
    pub(super) fn give_up_stray(&mut self, now: Instant, slot: usize) -> bool {
        let track = &mut self.tracks.slab[slot];
        if track.given_up_at.take_if(|at| *at <= now).is_none() {
            self.tracks.arm(slot);
            return false;
        }
        self.move_track(now, slot);
        true
    }

    /// Whether the publisher of a track at home here is silent, and another broadcast has its path: who
    /// watches is told, rather than left with a picture that stands still.
    fn is_replaced(&self, slot: usize) -> bool {
        let track = &self.tracks.slab[slot];
        let Place::Home { serve, .. } = &track.place else { return false };
        let is_silent = |route: &&Arc<Route>| self.directory.is_silent(route);
        let Some(route) = serve.route().filter(is_silent).filter(|_| serve.is_open()) else {
            return false;
        };
        let heir = self.directory.at(&route.path).next().map(|entry| &entry.route);
        heir.is_some_and(|heir| heir.origin != route.origin && !self.directory.is_leaving(heir.id))
    }

    /// Lets the publisher of a track go, so that another one goes on where it stops.
    pub(super) fn move_track(&mut self, now: Instant, slot: usize) {
        let Place::Home { serve, .. } = &self.tracks.slab[slot].place else { return };
        if let Some(route) = serve.route() {
            let (session, pull) = (route.session, serve.pull());
            self.command(now, session, PullCommand::Release { pull });
            self.publisher_failed(now, slot, StreamCode::GOING_AWAY);
        }
    }
}

/// The way that a track at home on a shard is asked for by, without those that were tried.
pub(super) fn way_to<'a>(
    directory: &'a Directory,
    me: usize,
    key: &TrackKey,
    tried: &[RouteId],
) -> Option<&'a Arc<Route>> {
    let TrackKey { broadcast, name, origin, avoid } = key;
    let number = hash_of(broadcast.as_str(), name);
    directory.resolve_origin(broadcast, *origin, *avoid, tried, (me as u16, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_changes_again_and_again_keeps_no_other_waiting() {
        let path = |text: &str| Path::parse(text).expect("a path");
        let mut moves = Moves::default();
        ["a", "b", "c"].into_iter().for_each(|text| moves.note(path(text)));
        let turns = std::iter::from_fn(|| {
            let (next, _) = moves.next()?;
            moves.note(path("a"));
            Some(next)
        });
        let turns: Vec<_> = turns.take(4).collect();
        assert_eq!(turns, ["a", "b", "c", "a"].map(path));
        assert!(moves.is_behind());
    }
}
