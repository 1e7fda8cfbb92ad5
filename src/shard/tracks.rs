//! The tracks of one shard: those at home here, with their serve loops, and mirrors of others.
//! Who reads what, and when a track is next to be looked at; what happens then is in `feed` and
//! `fetch`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use slab::Slab;
use smallvec::SmallVec;

use super::cache::{Cache, Entry};
use super::names::{GuestId, Owner, TrackKey};
use super::placement::home_of;
use super::readers::Readers;
use super::skips::Skips;
use super::{Held, Setting};
use crate::limits::{COPIES_PER_TRACK_MAX, TRACK_LINGER};
use crate::observe::Tick;
use crate::route::{Directory, Route};
use crate::session::streams::StreamId;
use crate::track::content::{Content, Told};
use crate::track::demand::Demand;
use crate::track::fetch::{FetchId, Fetches};
use crate::track::serve::{Need, ServeLoop};
use crate::track::{Datagram, Feed, TrackRef};
use crate::wire::Path;

/// The copy of a track that its publisher has ended, for one that was made when somebody subscribed
/// after that: what it holds is served as all there is if nothing new comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Predecessor {
    pub track: TrackRef,
    /// When nothing new is taken to come; none before the publisher is asked.
    pub until: Option<Instant>,
    /// Where the publisher has said that what is new ends, of which nothing has come.
    pub end: Option<u64>,
}

/// Somebody who wants one group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetcher {
    pub who: Who,
    pub at: At,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Who {
    Peer {
        conn: usize,
        key: StreamId,
    },
    /// Another shard, for those there.
    Mirror {
        mirror: TrackRef,
        fetch: FetchId,
    },
    /// Somebody outside of all shards.
    Guest(GuestId),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum At {
    /// It waits to see which group is the newest.
    Newest,
    Waiting(FetchId),
    /// A group that is here, by arrival number, and the fetch that is still bringing it.
    Reading {
        arrival: u64,
        fetch: Option<FetchId>,
    },
}

#[derive(Debug)]
pub(super) enum Place {
    Home {
        serve: Box<ServeLoop>,
        mirrors: Vec<Mirror>,
    },
    /// What the home was last told.
    Mirror {
        home: usize,
        told: Need,
    },
}

/// A shard with readers of a track at home here.
#[derive(Debug)]
pub(super) struct Mirror {
    pub track: TrackRef,
    pub need: Need,
    /// What it has been told of the live feed; it is told of every group from then on.
    pub told: Option<Told>,
    pub skips: Skips,
}

#[derive(Debug)]
pub(super) struct Track {
    pub key: Arc<TrackKey>,
    generation: u32,
    /// The route that the first reader resolved.
    pub route: Arc<Route>,
    pub content: Content,
    pub readers: Readers,
    pub fetchers: Vec<Fetcher>,
    pub fetches: Fetches,
    pub place: Place,
    /// At home, until something new has come.
    pub before: Option<Predecessor>,
    /// On the list of tracks that have changed.
    pub changed: Option<Change>,
    /// When the first of that came.
    pub fresh: Option<Tick>,
    /// What its publishers have brought, at home.
    pub came_groups: u64,
    pub came_bytes: u64,
    /// The groups that have grown since.
    pub grown: SmallVec<[u64; 4]>,
    /// Its readers are being served: what changes meanwhile is for the next round.
    pub is_in_round: bool,
    /// When nobody needed it any more.
    pub idle_since: Option<Instant>,
    /// When it is over if nothing comes until then, its way having ended.
    pub given_up_at: Option<Instant>,
    /// When it is next to be looked at.
    due: Option<Instant>,
}

/// Who is to be served.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Change {
    /// Those who fetch a group that has grown.
    Fetched,
    /// Subscribers too.
    Live,
    /// Everybody: some groups may be gone.
    All,
    /// Everybody, and before the next turn: by then word of why groups are gone is gone too.
    Evicted,
}

/// Those who are served what has changed about a track, some in each turn.
#[derive(Debug)]
pub(super) struct Round {
    pub track: TrackRef,
    /// Those whose turn is still to come.
    pub who: VecDeque<(usize, StreamId)>,
    /// What they are sent beside groups.
    pub datagrams: VecDeque<Datagram>,
    /// When the first of what is new came.
    pub fresh: Option<Tick>,
}

/// What a new reader wants of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// To be fed from here on, which one that has ended cannot do.
    Feed,
    /// What the track is like, or single groups.
    Other,
}

pub(super) struct Tracks {
    me: usize,
    shards: usize,
    pub linger: Duration,
    pub slab: Slab<Track>,
    /// The copy that new readers of a content are attached to.
    by_key: BTreeMap<Arc<TrackKey>, usize>,
    /// The track at home here that each mirror belongs to.
    by_mirror: FxHashMap<TrackRef, usize>,
    generation: u32,
    pub changed: Vec<usize>,
    /// The first one goes on first; a track has one at most.
    pub rounds: VecDeque<Round>,
    /// When tracks are to be looked at; all but a track's earliest are void.
    timers: BinaryHeap<Reverse<(Instant, TrackRef)>>,
    pub cache: Cache,
}

impl Tracks {
    pub fn new(setting: &Setting) -> Tracks {
        Tracks {
            me: setting.shard,
            shards: setting.shards,
            linger: setting.linger,
            slab: Slab::new(),
            by_key: BTreeMap::new(),
            by_mirror: FxHashMap::default(),
            generation: 0,
            changed: Vec::new(),
            rounds: VecDeque::new(),
            timers: BinaryHeap::new(),
            cache: Cache::new(setting.cache),
        }
    }

    /// Adds what the tracks hold.
    pub fn held(&self, held: Held) -> Held {
        let fetches = self.slab.iter().map(|(_, track)| track.fetches.len()).sum();
        let subscriptions =
            self.slab.iter().map(|(_, track)| track.readers.subscribers_len()).sum();
        let (tracks, cache_bytes) = (self.slab.len(), self.cache.held);
        Held { tracks, subscriptions, fetches, cache_bytes, ..held }
    }

    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// The first copies in the order of their names that new readers are attached to.
    pub fn first(&self, most: usize) -> impl Iterator<Item = &Track> {
        self.by_key.values().take(most).map(|slot| &self.slab[*slot])
    }

    /// Those copies after one, or all.
    pub fn after(&self, key: Option<&TrackKey>) -> impl Iterator<Item = &Track> {
        let begin = key.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.by_key.range::<TrackKey, _>((begin, Bound::Unbounded));
        rest.map(|(_, slot)| &self.slab[*slot])
    }

    /// Whether readers are to be served in the next turn.
    pub fn are_unserved(&self) -> bool {
        !self.changed.is_empty() || !self.rounds.is_empty()
    }

    /// The slot of a track that is still the one meant.
    pub fn slot(&self, track: TrackRef) -> Option<usize> {
        let slot = track.slot as usize;
        let held = self.slab.get(slot)?;
        (held.generation == track.generation).then_some(slot)
    }

    pub fn name(&self, slot: usize) -> TrackRef {
        let generation = self.slab[slot].generation;
        TrackRef { shard: self.me as u16, slot: slot as u32, generation }
    }

    /// Changes the content of a track, and keeps count of what it weighs.
    pub fn with_content<T>(&mut self, slot: usize, change: impl FnOnce(&mut Content) -> T) -> T {
        let content = &mut self.slab[slot].content;
        let before = content.held_bytes();
        let result = change(content);
        self.cache.held = self.cache.held + content.held_bytes() - before;
        result
    }

    /// What groups take here, by whose they are.
    pub fn held_by_owner(&self) -> FxHashMap<Owner, u64> {
        let mut held = FxHashMap::default();
        for (_, track) in &self.slab {
            *held.entry(track.owner()).or_default() += track.content.held_bytes();
        }
        held
    }

    /// A group is new on this shard.
    pub fn note_group(&mut self, slot: usize, arrival: u64, now: Instant) {
        let track = self.name(slot);
        self.cache.insert(Entry { used: now, track, arrival });
        // Two for one: those of groups that are gone are fewer than the others in the long run.
        for _ in 0..2 {
            if let Some(entry) = self.cache.look_at_next()
                && !self.holds(&entry)
            {
                self.cache.remove(&entry);
            }
        }
    }

    fn holds(&self, entry: &Entry) -> bool {
        let slot = self.slot(entry.track);
        slot.is_some_and(|slot| self.slab[slot].content.group(entry.arrival).is_some())
    }

    /// The copy for a new reader that resolved `route`, at home here or a mirror, made if need be.
    pub fn get_or_make(
        &mut self,
        key: &Arc<TrackKey>,
        route: &Arc<Route>,
        directory: &Directory,
        purpose: Purpose,
    ) -> usize {
        let mut before = None;
        if let Some(&slot) = self.by_key.get(key) {
            let held = &self.slab[slot];
            // A broadcast that is announced again is another one, even from the same publisher.
            let source = held.source();
            let is_another = source.id != route.id
                && (source.session == route.session || !directory.has(source));
            // Readers of an old copy keep what they have; nobody joins them.
            let has_ended = held.content.is_ending || held.content.outcome.is_some();
            let has_failed = held.content.has_failed();
            let is_open = !has_failed && (!has_ended || purpose == Purpose::Other);
            if is_open && !is_another {
                return slot;
            }
            if !has_failed && !is_another {
                let track = self.name(slot);
                before = Some(Predecessor { track, until: None, end: None });
            }
        }
        let home = home_of(key.broadcast.as_str(), &key.name, self.shards);
        self.generation = self.generation.wrapping_add(1);
        let slot = self.slab.vacant_key();
        let generation = self.generation;
        let track = TrackRef { shard: self.me as u16, slot: slot as u32, generation };
        let place = if home == self.me {
            Place::Home { serve: Box::new(ServeLoop::new(track)), mirrors: Vec::new() }
        } else {
            Place::Mirror { home, told: Need::default() }
        };
        let mut content = Content::new(home == self.me);
        let before = before.filter(|_| home == self.me);
        if let Some(slot) = before.and_then(|before| self.slot(before.track)) {
            content.info = self.slab[slot].content.info;
        }
        self.slab.insert(Track {
            key: key.clone(),
            generation,
            route: route.clone(),
            content,
            readers: Readers::default(),
            fetchers: Vec::new(),
            fetches: Fetches::default(),
            place,
            before,
            changed: None,
            fresh: None,
            came_groups: 0,
            came_bytes: 0,
            grown: SmallVec::new(),
            is_in_round: false,
            idle_since: None,
            given_up_at: None,
            due: None,
        });
        self.by_key.insert(key.clone(), slot);
        slot
    }

    /// Whether there may be a copy of this track for one peer.
    pub fn may_copy(&self, key: &Arc<TrackKey>) -> bool {
        let first = TrackKey { avoid: Some(0), ..(**key).clone() };
        let of_track = self.by_key.range(Arc::new(first)..).take_while(|(other, _)| {
            let TrackKey { broadcast, name, origin, .. } = &***other;
            (broadcast, name, origin) == (&key.broadcast, &key.name, &key.origin)
        });
        self.by_key.contains_key(key)
            || of_track.take(COPIES_PER_TRACK_MAX).count() < COPIES_PER_TRACK_MAX
    }

    /// The copies that new readers are attached to, of broadcasts that this path covers: in order, from
    /// the one after `after` on.
    pub fn covered_by<'a>(
        &'a self,
        path: &'a Path,
        after: Option<Arc<TrackKey>>,
    ) -> impl Iterator<Item = (Arc<TrackKey>, usize)> + use<'a> {
        let first = TrackKey { broadcast: path.clone(), name: "".into(), origin: 0, avoid: None };
        let from = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(Arc::new(first)),
        };
        self.by_key
            .range((from, Bound::Unbounded))
            .take_while(|(key, _)| key.broadcast.as_str().starts_with(path.as_str()))
            .filter(|(key, _)| key.broadcast.has_prefix(path))
            .map(|(key, slot)| (key.clone(), *slot))
    }

    /// The home of a mirror, which is made known to it if it is new: then with what it must hear
    /// of the track.
    pub fn home_of_mirror(
        &mut self,
        key: &Arc<TrackKey>,
        route: &Arc<Route>,
        mirror: TrackRef,
        directory: &Directory,
        purpose: Purpose,
    ) -> (usize, Vec<Feed>) {
        if let Some(&slot) = self.by_mirror.get(&mirror) {
            return (slot, Vec::new());
        }
        let slot = self.get_or_make(key, route, directory, purpose);
        let track = &mut self.slab[slot];
        if let Place::Home { mirrors, .. } = &mut track.place {
            self.by_mirror.insert(mirror, slot);
            let (need, skips) = (Need::default(), Skips::default());
            mirrors.push(Mirror { track: mirror, need, told: None, skips });
        }
        (slot, track.content.facts().collect())
    }

    /// The home that counts on a mirror.
    pub fn known_home(&self, mirror: TrackRef) -> Option<usize> {
        self.by_mirror.get(&mirror).copied()
    }

    /// Forgets a mirror; the slot of its home, if that still counted on it.
    pub fn remove_mirror(&mut self, mirror: TrackRef) -> Option<usize> {
        let slot = self.by_mirror.remove(&mirror)?;
        if let Place::Home { mirrors, .. } = &mut self.slab[slot].place {
            mirrors.retain(|known| known.track != mirror);
        }
        Some(slot)
    }

    /// Readers are to be served at the end of this turn.
    pub fn note_changed(&mut self, slot: usize, change: Change) {
        let track = &mut self.slab[slot];
        if track.changed.is_none() {
            self.changed.push(slot);
        }
        track.changed = track.changed.max(Some(change));
    }

    /// A group has grown; those who fetch it are to be served.
    pub fn note_grown(&mut self, slot: usize, arrival: u64) {
        self.note_changed(slot, Change::Fetched);
        let grown = &mut self.slab[slot].grown;
        if !grown.contains(&arrival) {
            grown.push(arrival);
        }
    }

    /// Makes sure that a track is looked at when it next has to be.
    pub fn arm(&mut self, slot: usize) {
        let (linger, kept) = (self.linger, self.cache.duration());
        let name = self.name(slot);
        let track = &mut self.slab[slot];
        let Place::Home { serve, .. } = &track.place else { return };
        let patience = if serve.is_open() { patience(serve, linger) } else { kept };
        let idle = track.idle_since.map(|since| since + patience);
        // What has to be done for nobody can wait until somebody comes, or for the release.
        let deadline = serve.deadline(&track.fetches).filter(|_| idle.is_none());
        let until = track.before.and_then(|before| before.until);
        let others = [deadline, until, track.given_up_at];
        let Some(at) = idle.into_iter().chain(others.into_iter().flatten()).min() else { return };
        if track.due.is_none_or(|due| at < due) {
            track.due = Some(at);
            self.timers.push(Reverse((at, name)));
        }
    }

    /// The tracks whose time has come.
    pub fn take_due(&mut self, now: Instant) -> Vec<TrackRef> {
        let mut due = Vec::new();
        while let Some(&Reverse((at, track))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            if let Some(slot) = self.slot(track)
                && self.slab[slot].due == Some(at)
            {
                self.slab[slot].due = None;
                due.push(track);
            }
        }
        due
    }

    /// When a track or a group is next to be looked at.
    pub fn next_timer(&self) -> Option<Instant> {
        let due = self.timers.peek().map(|Reverse((at, _))| *at);
        due.into_iter().chain(self.cache.next_expiry()).min()
    }

    /// Takes a track out of every table.
    pub fn remove(&mut self, slot: usize) -> Track {
        let track = self.slab.remove(slot);
        self.cache.held -= track.content.held_bytes();
        if self.by_key.get(&track.key) == Some(&slot) {
            self.by_key.remove(&track.key);
        }
        track
    }
}

/// How long what is open upstream is kept for nobody.
pub(super) fn patience(serve: &ServeLoop, linger: Duration) -> Duration {
    if serve.is_subscribed() { linger } else { TRACK_LINGER }
}

impl Track {
    /// What the readers on this shard need together.
    fn local_need(&self) -> Need {
        let awaits_newest = self.fetchers.iter().any(|fetcher| fetcher.at == At::Newest);
        let newest = awaits_newest.then_some(Demand::NEWEST);
        Need {
            info: self.content.info.is_none() && self.readers.has_questions(),
            feed: awaits_newest || self.readers.subscribers_len() > 0,
            demand: Demand::merged(self.readers.demand().into_iter().chain(newest)),
        }
    }

    pub fn need(&self) -> Need {
        match &self.place {
            Place::Mirror { .. } => self.local_need(),
            Place::Home { mirrors, .. } => {
                mirrors.iter().map(|mirror| mirror.need).fold(self.local_need(), Need::merge)
            }
        }
    }

    /// The route whose content this copy holds, as far as this shard knows.
    fn source(&self) -> &Arc<Route> {
        match &self.place {
            Place::Home { serve, .. } => serve.route().unwrap_or(&self.route),
            Place::Mirror { .. } => &self.route,
        }
    }

    pub fn is_used(&self) -> bool {
        let is_mirrored = matches!(&self.place, Place::Home { mirrors, .. } if !mirrors.is_empty());
        !self.readers.is_empty() || !self.fetchers.is_empty() || is_mirrored
    }

    pub fn owner(&self) -> Owner {
        Owner::of(self.route.trust, self.route.session)
    }

    /// Whether its newest group stays in the cache as long as it can.
    pub fn is_live(&self) -> bool {
        let is_fed = match &self.place {
            Place::Home { serve, .. } => serve.is_subscribed(),
            Place::Mirror { told, .. } => told.feed,
        };
        is_fed && self.content.outcome.is_none()
    }
}
