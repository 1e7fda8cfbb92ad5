//! The groups of one track on one shard.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Instant;

use super::demand::Reach;
use super::group::{Group, GroupEnd, Likeness, Opening, Piece};
use super::{Datagram, Feed};
use crate::limits::{
    DATAGRAMS_PER_TURN_MAX, GROUPS_PER_TRACK_MAX, TRACK_MAX_AGE_MS_MAX, UNFINISHED_MAX_AGE_MS,
};
use crate::wire::{StreamCode, TrackInfo, VARINT_MAX};

/// How a feed is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ended,
    Failed(StreamCode),
}

/// What is known of a track, and its groups: those of the live feed in order of arrival, and
/// those that were fetched one by one.
///
/// Arrival order is what viewers are served in: a burst may arrive slightly reordered, and a
/// cursor by sequence would skip what comes late for good (spec §4.7). Fetched groups take part
/// in no delivery but answer other fetches (spec §4.13).
///
/// A publisher that is asked anew may number its groups from the beginning again: that is another
/// *run* of the track. Only groups of the present run have a sequence here. Those of earlier runs
/// are left to whoever reads them already, by arrival number, until the cache lets go of them.
#[derive(Debug, Default)]
pub struct Content {
    pub info: Option<TrackInfo>,
    /// Where the feed starts, once it has said so. Viewers receive nothing before.
    pub feed_start: Option<u64>,
    /// Exclusive end, once known.
    pub end: Option<u64>,
    /// How far back this copy holds all that its home does, so that a viewer can find its place.
    synced: Option<Reach>,
    /// The publisher has ended the track, and what it owes may still come.
    pub is_ending: bool,
    pub outcome: Option<Outcome>,
    /// Datagrams that viewers have not been sent yet; few, and not for long.
    datagrams: VecDeque<Datagram>,
    live: Shelf,
    fetched: Shelf,
    /// One past the highest sequence that the live feed has brought in this run.
    arrived_end: u64,
    run: Run,
    /// The arrival number from which on groups belong to it. It falls as earlier ones are told.
    run_begins: u64,
    /// The arrival number of the next group, of either kind.
    next_arrival: u64,
    held_bytes: u64,
    /// Groups of which only word is left why they were let go of.
    evicted: usize,
    /// Groups that were looked at for viewers since this was last asked.
    looked_at: Cell<u64>,
    /// Sequences of groups that left for their age while they grew, since this was last asked.
    outgrown: Vec<u64>,
}

/// Names a run of a track by how many numbers earlier ones have used: for a viewer that has seen
/// those, numbers go on from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run(pub u64);

/// Arrival numbers that are left free before each run, for groups that had come before those a mirror
/// has.
const EARLIER_ROOM: u64 = 1 << 32;

/// What a mirror has been told of the live feed: all that has come since it was told first, and of
/// what had come by then what its readers can see. Of another run all has come since.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    reach: Reach,
    /// The lowest group of what had come.
    begins: u64,
    /// The arrival number of the first group that has come since.
    since: u64,
}

/// Groups that are looked at for their age when a new one arrives. More than one leaves for each
/// that comes, so none is kept for long for want of a look.
const EXPIRED_AT_ONCE_MAX: usize = 64;

/// Groups without a timestamp that are looked past for one that has one, where a viewer's place is
/// sought: publishers that give up groups leave some.
const UNTIMED_IN_A_ROW_MAX: usize = 16;

/// Groups by arrival number, and the one to use of each sequence.
#[derive(Debug, Default)]
struct Shelf {
    groups: BTreeMap<u64, Group>,
    by_sequence: BTreeMap<u64, u64>,
}

/// What a piece of news changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Changed,
    /// A group is here that was not; its arrival number.
    Opened(u64),
    Grew(u64),
    /// It waits for [`Content::take_datagrams`].
    Datagram,
    /// A group that is here already, or one that is gone: nobody needs to hear of it.
    Ignored,
}

impl Shelf {
    fn of_sequence(&self, sequence: u64) -> Option<(u64, &Group)> {
        let arrival = *self.by_sequence.get(&sequence)?;
        self.groups.get(&arrival).map(|group| (arrival, group))
    }

    fn insert(&mut self, arrival: u64, group: Group) {
        // One that serves more is the one to use.
        let held = self.of_sequence(group.sequence);
        if held.is_none_or(|(_, held)| !held.serves_from(group.frame_start)) {
            self.by_sequence.insert(group.sequence, arrival);
        }
        self.groups.insert(arrival, group);
    }

    fn remove(&mut self, arrival: u64) -> Option<Group> {
        let group = self.groups.remove(&arrival)?;
        // A later copy of it may have taken its place.
        if self.by_sequence.get(&group.sequence) == Some(&arrival) {
            self.by_sequence.remove(&group.sequence);
        }
        Some(group)
    }

    /// From now on no sequence names a group that is here.
    fn forget_sequences(&mut self) {
        self.by_sequence.clear();
    }

    /// Cuts off what still grows.
    fn abort_unfinished(&mut self, code: StreamCode) {
        for group in self.groups.values_mut() {
            group.end.get_or_insert(GroupEnd::Aborted(code));
        }
    }
}

impl Content {
    /// What is known of a new track: nothing. At its home that is all there is to know.
    pub fn new(is_home: bool) -> Content {
        let synced = is_home.then_some(Reach::ALL);
        let (run_begins, next_arrival) = (EARLIER_ROOM, EARLIER_ROOM);
        Content { synced, run_begins, next_arrival, ..Content::default() }
    }

    /// Whether this copy holds all that a viewer can see who reaches so far back.
    pub fn covers(&self, reach: Reach) -> bool {
        self.synced.is_some_and(|synced| synced.covers(reach))
    }

    pub fn has_failed(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Failed(_)))
    }

    /// News of the track and of its live feed.
    pub fn apply(&mut self, feed: Feed, now: Instant) -> Applied {
        if self.outcome.is_some() && !self.is_of_past(&feed) {
            return Applied::Ignored;
        }
        match feed {
            Feed::Info(info) => {
                self.info.get_or_insert(info);
            }
            Feed::Start(start) => self.feed_start = Some(start),
            // Not below what has come, also where who took over has ended before that.
            Feed::Final(end) => self.end = Some(end.max(self.arrived_end)),
            Feed::Piece(piece) => return self.apply_piece(piece, now),
            Feed::Datagram(datagram) => return self.apply_datagram(datagram),
            Feed::Closed(code) => {
                self.live.abort_unfinished(code);
                self.feed_start = None;
            }
            Feed::NewRun(code) => self.begin_run(code),
            Feed::Ending => self.is_ending = true,
            Feed::Synced(reach) => self.synced = Some(reach),
            Feed::Ended => {
                self.outcome = Some(Outcome::Ended);
                // What was promised and did not come in time never will.
                self.live.abort_unfinished(StreamCode::DELIVERY_TIMEOUT);
                let end = *self.end.get_or_insert(self.arrived_end);
                self.feed_start.get_or_insert(end);
            }
            Feed::Failed(code) => {
                self.outcome = Some(Outcome::Failed(code));
                self.live.abort_unfinished(code);
                self.fetched.abort_unfinished(code);
            }
        }
        Applied::Changed
    }

    /// A mirror may hear of the end before it hears of what there was.
    fn is_of_past(&self, feed: &Feed) -> bool {
        match feed {
            Feed::Start(_) => self.synced.is_none(),
            Feed::Piece(piece) => piece.opens.is_none_or(|opening| opening.is_earlier),
            Feed::Synced(_) => true,
            _ => false,
        }
    }

    /// What comes now has nothing to do with what came before.
    fn begin_run(&mut self, code: StreamCode) {
        self.live.abort_unfinished(code);
        self.live.forget_sequences();
        self.fetched.forget_sequences();
        let used = self.arrived_end.max(self.end.unwrap_or(0));
        self.run = Run((self.run.0 + used).min(VARINT_MAX));
        self.next_arrival += EARLIER_ROOM;
        self.run_begins = self.next_arrival;
        self.arrived_end = 0;
        self.feed_start = None;
        self.end = None;
    }

    fn apply_datagram(&mut self, datagram: Datagram) -> Applied {
        self.arrived_end = self.arrived_end.max(datagram.sequence + 1);
        if self.datagrams.len() == DATAGRAMS_PER_TURN_MAX {
            self.datagrams.pop_front();
        }
        self.datagrams.push_back(datagram);
        Applied::Datagram
    }

    /// The datagrams that have come since this was last asked.
    pub fn take_datagrams(&mut self) -> VecDeque<Datagram> {
        std::mem::take(&mut self.datagrams)
    }

    fn apply_piece(&mut self, piece: Piece, now: Instant) -> Applied {
        let held = self.live.of_sequence(piece.sequence);
        let Some(opening) = piece.opens else {
            let arrival = held.map(|(arrival, _)| arrival);
            return arrival.map_or(Applied::Ignored, |arrival| self.append(arrival, piece, now));
        };
        // One that was cut off may come again, whole.
        let is_whole =
            |group: &Group| matches!(group.end, Some(GroupEnd::Finished | GroupEnd::Capped));
        match held {
            Some((_, group)) if is_whole(group) => return Applied::Ignored,
            Some((arrival, _)) => self.abort(arrival, StreamCode::CANCEL),
            None => {}
        }
        self.arrived_end = self.arrived_end.max(piece.sequence + 1);
        let arrival = if opening.is_earlier {
            self.run_begins -= 1;
            self.run_begins
        } else {
            self.next_arrival += 1;
            self.next_arrival - 1
        };
        self.open(arrival, Group::new(piece.sequence, opening, now), true);
        self.append(arrival, piece, now);
        self.expire();
        Applied::Opened(arrival)
    }

    fn open(&mut self, arrival: u64, group: Group, is_live: bool) {
        self.held_bytes += group.held_bytes();
        let shelf = if is_live { &mut self.live } else { &mut self.fetched };
        shelf.insert(arrival, group);
    }

    /// Appends to a group of either kind.
    pub fn append(&mut self, arrival: u64, piece: Piece, now: Instant) -> Applied {
        let grown = self.change(arrival, |group| {
            if group.end.is_some() {
                return Applied::Ignored;
            }
            if group.append(piece.bytes, &piece.marks) {
                group.end = piece.ends;
                group.touched = now;
            } else {
                group.end = Some(GroupEnd::Aborted(StreamCode::INTERNAL));
            }
            Applied::Grew(arrival)
        });
        grown.unwrap_or(Applied::Ignored)
    }

    /// Makes room for a group that a fetch brings; its arrival number.
    pub fn open_fetched(&mut self, sequence: u64, opening: Opening, now: Instant) -> u64 {
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        self.open(arrival, Group::new(sequence, opening, now), false);
        arrival
    }

    /// Whether a group is one that the live feed still brings.
    pub fn is_fed(&self, arrival: u64) -> bool {
        self.live.groups.get(&arrival).is_some_and(|group| group.end.is_none())
    }

    /// The live groups that still grow.
    pub fn unfinished(&self) -> impl Iterator<Item = &Group> {
        self.live.groups.values().filter(|group| group.end.is_none())
    }

    /// Cuts a group off, if it still grows.
    pub fn abort(&mut self, arrival: u64, code: StreamCode) {
        if let Some(group) = self.held_mut(arrival) {
            group.end.get_or_insert(GroupEnd::Aborted(code));
        }
    }

    /// The group that answers a fetch from some frame on without asking anybody; its arrival
    /// number.
    pub fn get_group(&self, sequence: u64, frame_start: u64) -> Option<u64> {
        let usable = |shelf: &Shelf| {
            let (arrival, group) = shelf.of_sequence(sequence)?;
            group.serves_from(frame_start).then_some(arrival)
        };
        usable(&self.live).or_else(|| usable(&self.fetched))
    }

    /// The live groups of this run that are held, by arrival number.
    pub fn groups(&self) -> impl Iterator<Item = (u64, &Group)> {
        self.live.groups.range(self.run_begins..).map(|(arrival, group)| (*arrival, group))
    }

    /// The first live group that arrived at or after `arrival`.
    pub fn next_group(&self, arrival: u64) -> Option<(u64, &Group)> {
        self.note_look();
        self.live.groups.range(arrival..).next().map(|(arrival, group)| (*arrival, group))
    }

    /// The live group of this run with the lowest number that is not below `sequence`; of copies
    /// that were cut off the last.
    pub fn group_from(&self, sequence: u64) -> Option<(u64, &Group)> {
        self.note_look();
        let (_, arrival) = self.live.by_sequence.range(sequence..).next()?;
        self.live.groups.get(arrival).map(|group| (*arrival, group))
    }

    fn note_look(&self) {
        self.looked_at.set(self.looked_at.get() + 1);
    }

    /// How many groups were looked at for viewers since this was last asked.
    pub fn take_looked_at(&self) -> u64 {
        self.looked_at.take()
    }

    /// The arrival number of the first group of this run, or of the next one to come.
    pub fn run_begins(&self) -> u64 {
        self.run_begins
    }

    pub fn run(&self) -> Run {
        self.run
    }

    /// What a group that begins with this piece has in common with the one that is held.
    pub(super) fn likeness(&self, piece: &Piece, are_timed: bool) -> Likeness {
        let held = self.live.of_sequence(piece.sequence);
        held.map_or(Likeness::Unknown, |(_, group)| group.likeness(piece, are_timed))
    }

    /// Fetches are answered from here no more, but by whoever is asked.
    pub fn forget_fetched(&mut self) {
        self.fetched.forget_sequences();
    }

    /// A group of either kind.
    pub fn group(&self, arrival: u64) -> Option<&Group> {
        self.live.groups.get(&arrival).or_else(|| self.fetched.groups.get(&arrival))
    }

    fn held_mut(&mut self, arrival: u64) -> Option<&mut Group> {
        let fetched = self.fetched.groups.get_mut(&arrival);
        self.live.groups.get_mut(&arrival).or(fetched)
    }

    /// The number that the next group to arrive will have.
    pub fn next_arrival(&self) -> u64 {
        self.next_arrival
    }

    /// Changes a group, and keeps count of what it weighs. To read it in some encoding may make
    /// that encoding first.
    pub fn change<T>(&mut self, arrival: u64, change: impl FnOnce(&mut Group) -> T) -> Option<T> {
        let group = self.held_mut(arrival)?;
        let before = group.held_bytes();
        let result = change(group);
        let after = group.held_bytes();
        self.held_bytes = self.held_bytes - before + after;
        Some(result)
    }

    /// Somebody asks for a group: the cache has reason to keep it.
    pub fn touch(&mut self, arrival: u64, now: Instant) {
        if let Some(group) = self.held_mut(arrival) {
            group.touched = now;
        }
    }

    pub fn arrived_end(&self) -> u64 {
        self.arrived_end
    }

    /// Whether all has come that will below the end, as far as that is known: the feed is over, or nothing is missing
    /// from the oldest group that is held to the last.
    pub fn is_whole(&self) -> bool {
        let Some(end) = self.end else { return false };
        if self.outcome.is_some() {
            return true;
        }
        let held = &self.live.by_sequence;
        match (held.first_key_value(), held.last_key_value()) {
            (Some((first, _)), Some((last, _))) => {
                last + 1 >= end && last - first < held.len() as u64
            }
            _ => self.arrived_end >= end,
        }
    }

    /// The highest sequence of the live feed that is held.
    pub fn newest(&self) -> Option<u64> {
        self.live.by_sequence.last_key_value().map(|(sequence, _)| *sequence)
    }

    /// Whether this is the newest group of the live feed, which stays as long as it can.
    pub fn is_newest(&self, arrival: u64) -> bool {
        self.live.by_sequence.last_key_value().is_some_and(|(_, newest)| *newest == arrival)
    }

    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Groups that are held.
    pub fn groups_len(&self) -> usize {
        self.live.groups.len() + self.fetched.groups.len()
    }

    /// Whether no group is held.
    pub fn is_bare(&self) -> bool {
        self.live.groups.is_empty() && self.fetched.groups.is_empty()
    }

    /// Whether a group of some run is old enough to be dropped where it is stuck (spec §4.10).
    pub fn expired(&self, run: Run, sequence: u64, max_age_ms: u64) -> bool {
        if run != self.run {
            return true;
        }
        self.is_older(sequence, max_age_ms.min(self.kept_ms()), 1)
    }

    /// How far behind the newest group the track keeps others.
    fn kept_ms(&self) -> u64 {
        self.info.as_ref().map_or(u64::MAX, |info| info.max_age_ms.min(TRACK_MAX_AGE_MS_MAX))
    }

    /// The number from which on groups are not older than this, for who begins there. Timestamps rise
    /// with numbers, so that few groups tell.
    pub fn first_within(&self, max_age_ms: u64) -> u64 {
        let by_sequence = &self.live.by_sequence;
        let (first, newest) = (by_sequence.first_key_value(), by_sequence.last_key_value());
        let (Some((&first, _)), Some((&newest, _))) = (first, newest) else { return 0 };
        let age_ms = max_age_ms.min(self.kept_ms());
        let (mut low, mut high) = (first, newest);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.is_older(middle, age_ms, UNTIMED_IN_A_ROW_MAX) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Whether a newer group exists, and the one right after `sequence` began `age_ms` or more
    /// before the newest timestamp; the first that has begun of so many after it.
    fn is_older(&self, sequence: u64, age_ms: u64, successors: usize) -> bool {
        let after = (Bound::Excluded(sequence), Bound::Unbounded);
        let mut successors = self.live.by_sequence.range(after).take(successors);
        let begins = successors.find_map(|(_, arrival)| {
            self.note_look();
            self.group(*arrival).and_then(Group::first_timestamp)
        });
        let newest = self.live.by_sequence.last_key_value().and_then(|(_, a)| self.group(*a));
        let (Some(begins), Some(newest), Some(info)) = (begins, newest, &self.info) else {
            return false;
        };
        let age_ticks = u128::from(newest.newest_timestamp().saturating_sub(begins));
        age_ticks * 1000 >= u128::from(age_ms) * u128::from(info.timescale)
    }

    /// All that a copy which has heard the facts must hear to have the live feed too. Fetched
    /// groups stay: whoever asks for one gets it then.
    pub fn replay(&self) -> impl Iterator<Item = Feed> + '_ {
        let start = self.feed_start.map(Feed::Start);
        let held = self.groups().filter(|(_, group)| !group.is_evicted);
        let pieces = held.flat_map(|(_, group)| group.replay()).map(Feed::Piece);
        start.into_iter().chain(pieces)
    }

    /// What a mirror that has heard the facts must hear now that its readers reach so far back:
    /// nothing if they did before. No group is told twice.
    pub fn sync(&self, told: &mut Option<Told>, reach: Reach) -> Vec<Feed> {
        let is_new = told.is_none();
        let since = self.next_arrival;
        let told = told.get_or_insert(Told { reach, begins: u64::MAX, since });
        if !is_new && told.reach.covers(reach) {
            return Vec::new();
        }
        told.reach = told.reach.merge(reach);
        let begins = self.begin_of(told.reach, told.begins);
        let earlier = self.live.by_sequence.range(begins..told.begins).rev();
        // The newest first, so that each that comes is before all that the mirror has.
        let earlier = earlier.filter(|(_, arrival)| **arrival < told.since);
        let earlier = earlier.filter_map(|(_, arrival)| self.group(*arrival));
        // Of what was let go of there is word for those alone who read it.
        let pieces = earlier.filter(|group| !group.is_evicted).flat_map(Group::replay);
        let start = self.feed_start.map(Feed::Start).filter(|_| is_new);
        let synced = Feed::Synced(told.reach);
        told.begins = begins;
        let pieces = pieces.map(|mut piece| {
            piece.opens = piece.opens.map(|opening| Opening { is_earlier: true, ..opening });
            Feed::Piece(piece)
        });
        start.into_iter().chain(pieces).chain([synced]).collect()
    }

    /// The lowest group of a reach, or `before` where that is lower.
    fn begin_of(&self, reach: Reach, before: u64) -> u64 {
        let newest = self.newest().unwrap_or(0);
        let fresh = reach.max_age_ms.map_or(newest, |max_age_ms| self.first_within(max_age_ms));
        before.min(newest).min(reach.start).min(fresh)
    }

    /// What is known of the track beside its feed.
    pub fn facts(&self) -> impl Iterator<Item = Feed> + '_ {
        let outcome = self.outcome.map(|outcome| match outcome {
            Outcome::Ended => Feed::Ended,
            Outcome::Failed(code) => Feed::Failed(code),
        });
        let info = self.info.map(Feed::Info);
        let ending = self.is_ending.then_some(Feed::Ending);
        info.into_iter().chain(self.end.map(Feed::Final)).chain(ending).chain(outcome)
    }

    /// Live groups leave when they are older than the track keeps them. Readers of such a group
    /// find it gone; it is `OLD`.
    fn expire(&mut self) {
        let Some(newest) = self.newest() else { return };
        let max_age_ms = self.kept_ms();
        let mut gone = Vec::new();
        let groups = self.live.groups.range(self.run_begins..);
        for (arrival, group) in groups.take(EXPIRED_AT_ONCE_MAX) {
            // A group that still grows is given time to, however little the track keeps.
            let grace = if group.end.is_none() { UNFINISHED_MAX_AGE_MS } else { 0 };
            if group.sequence == newest {
                continue;
            }
            if self.is_older(group.sequence, max_age_ms.max(grace), 1) {
                gone.push(*arrival);
            } else if group.end.is_some() {
                break;
            }
        }
        for arrival in gone {
            if let Some(group) = self.live.groups.get(&arrival).filter(|group| group.end.is_none())
            {
                self.outgrown.push(group.sequence);
            }
            self.remove(arrival);
        }
    }

    /// The groups that have left for their age while they grew, since this was last asked. Another copy,
    /// which has let go of others, need not find them old.
    pub fn take_outgrown(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.outgrown)
    }

    /// The live group that has to go where there are too many: the one that came first, unless it is
    /// the newest.
    pub fn surplus(&self) -> Option<u64> {
        if self.live.groups.len() <= GROUPS_PER_TRACK_MAX {
            return None;
        }
        self.live.groups.keys().copied().find(|arrival| !self.is_newest(*arrival))
    }

    /// Drops a group for want of room or of interest. Where somebody may be reading, word of why
    /// is left in its place first.
    pub fn evict(&mut self, arrival: u64, is_read: bool) -> Evicted {
        let is_gone = self.group(arrival).is_none_or(|group| group.is_evicted);
        if !is_read || is_gone {
            self.remove(arrival);
            return Evicted::Gone;
        }
        self.change(arrival, Group::evict);
        self.evicted += 1;
        Evicted::Marked
    }

    /// Whether of this group only word is left why it was let go of.
    pub fn has_evicted(&self, arrival: u64) -> bool {
        self.evicted > 0 && self.group(arrival).is_some_and(|group| group.is_evicted)
    }

    fn remove(&mut self, arrival: u64) {
        let group = self.live.remove(arrival).or_else(|| self.fetched.remove(arrival));
        let Some(group) = group else { return };
        self.held_bytes -= group.held_bytes();
        self.evicted -= usize::from(group.is_evicted);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evicted {
    Gone,
    /// Readers are to be served, who find out why.
    Marked,
}
