//! Content: groups, the cursors of those who read them, and the demand that brings them here.
//!
//! Knows groups and sequences, but no peer, no stream and no clock.

pub mod cursor;
pub mod demand;
pub mod group;
pub mod scan;
pub mod serve;

use std::collections::BTreeMap;

use crate::limits::{TRACK_CACHE_BYTES_MAX, UNFINISHED_MAX_AGE_MS};
use crate::wire::{StreamCode, TrackInfo};
use group::{Group, GroupEnd, Piece};

/// A track on one shard. The generation tells a slot's tenants apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TrackRef {
    pub shard: u16,
    pub slot: u32,
    pub generation: u32,
}

/// One attempt of a track's home to pull it from some session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PullRef {
    pub track: TrackRef,
    pub attempt: u32,
}

/// News of a track on its way from the publisher's session to its home, and from there to every
/// shard with viewers.
#[derive(Clone, Debug)]
pub enum Feed {
    /// The track exists; fixed for as long as this copy lives.
    Info(TrackInfo),
    /// The lowest group that the feed will bring.
    Start(u64),
    /// The exclusive end of the track.
    Final(u64),
    Piece(Piece),
    /// The subscription was closed; a later one may begin anywhere.
    Closed,
    /// A mirror has now been told all that its home knew when the mirror was made.
    Synced,
    /// All groups that will come have come.
    Ended,
    /// The feed broke off, or never began.
    Failed(StreamCode),
}

impl Feed {
    /// Nothing comes after this.
    pub fn is_over(&self) -> bool {
        matches!(self, Feed::Ended | Feed::Failed(_))
    }
}

/// How a feed is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ended,
    Failed(StreamCode),
}

/// The groups of one track on one shard, in order of arrival.
///
/// Arrival order is what viewers are served in: a burst may arrive slightly reordered, and a
/// cursor by sequence would skip what comes late for good (spec §4.7).
#[derive(Debug, Default)]
pub struct Content {
    pub info: Option<TrackInfo>,
    /// Where the feed starts, once it has said so. Viewers receive nothing before.
    pub feed_start: Option<u64>,
    /// Exclusive end, once known.
    pub end: Option<u64>,
    /// Whether this copy holds all that its home does, so that a viewer can find its place.
    pub is_synced: bool,
    pub outcome: Option<Outcome>,
    /// By arrival number.
    groups: BTreeMap<u64, Group>,
    next_arrival: u64,
    by_sequence: BTreeMap<u64, u64>,
    held_bytes: u64,
}

/// Whether a piece of news changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Changed,
    /// A group that is here already, or one that is gone: nobody needs to hear of it.
    Ignored,
}

impl Content {
    pub fn apply(&mut self, feed: Feed) -> Applied {
        if self.outcome.is_some() {
            return Applied::Ignored;
        }
        match feed {
            Feed::Info(info) => {
                self.info.get_or_insert(info);
            }
            Feed::Start(start) => self.feed_start = Some(start),
            Feed::Final(end) => self.end = Some(end),
            Feed::Piece(piece) => return self.apply_piece(piece),
            Feed::Closed => self.clear_groups(),
            Feed::Synced => self.is_synced = true,
            Feed::Ended => {
                self.outcome = Some(Outcome::Ended);
                // What was promised and did not come in time never will.
                for group in self.groups.values_mut() {
                    group.end.get_or_insert(GroupEnd::Aborted(StreamCode::DELIVERY_TIMEOUT));
                }
                let end = self.newest().map_or(0, |newest| newest + 1);
                self.end.get_or_insert(end);
                self.feed_start.get_or_insert(end);
            }
            Feed::Failed(code) => self.outcome = Some(Outcome::Failed(code)),
        }
        Applied::Changed
    }

    fn apply_piece(&mut self, piece: Piece) -> Applied {
        let is_new = piece.opens.is_some();
        let arrival = match piece.opens {
            Some(frame_start) => {
                if self.by_sequence.contains_key(&piece.sequence) {
                    return Applied::Ignored;
                }
                let arrival = self.next_arrival;
                self.next_arrival += 1;
                self.by_sequence.insert(piece.sequence, arrival);
                self.groups.insert(arrival, Group::new(piece.sequence, frame_start));
                arrival
            }
            None => match self.by_sequence.get(&piece.sequence) {
                Some(arrival) => *arrival,
                None => return Applied::Ignored,
            },
        };
        let Some(group) = self.groups.get_mut(&arrival).filter(|group| group.end.is_none()) else {
            return Applied::Ignored;
        };
        let before = if is_new { 0 } else { group.held_bytes() };
        group.append(piece.bytes, &piece.marks);
        group.end = piece.ends;
        self.held_bytes += group.held_bytes() - before;
        if is_new || self.held_bytes > TRACK_CACHE_BYTES_MAX {
            self.evict();
        }
        Applied::Changed
    }

    /// The groups that are held, by arrival number.
    pub fn groups(&self) -> impl Iterator<Item = (u64, &Group)> {
        self.groups.iter().map(|(arrival, group)| (*arrival, group))
    }

    /// The first group that arrived at or after `arrival`.
    pub fn next_group(&self, arrival: u64) -> Option<(u64, &Group)> {
        self.groups.range(arrival..).next().map(|(arrival, group)| (*arrival, group))
    }

    pub fn group(&self, arrival: u64) -> Option<&Group> {
        self.groups.get(&arrival)
    }

    /// The number that the next group to arrive will have.
    pub fn next_arrival(&self) -> u64 {
        self.next_arrival
    }

    /// Reads a group in some encoding, which may make that encoding first.
    pub fn read<T>(&mut self, arrival: u64, read: impl FnOnce(&mut Group) -> T) -> Option<T> {
        let group = self.groups.get_mut(&arrival)?;
        let before = group.held_bytes();
        let result = read(group);
        self.held_bytes += group.held_bytes() - before;
        Some(result)
    }

    pub fn newest(&self) -> Option<u64> {
        self.by_sequence.last_key_value().map(|(sequence, _)| *sequence)
    }

    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Whether a group is old enough to be dropped where it is stuck (spec §4.10).
    pub fn expired(&self, sequence: u64, max_age_ms: u64) -> bool {
        let kept_ms = self.info.as_ref().map_or(u64::MAX, |info| info.max_age_ms);
        self.is_older(sequence, max_age_ms.min(kept_ms))
    }

    /// Whether a newer group exists, and the one right after `sequence` began `age_ms` or more
    /// before the newest timestamp.
    fn is_older(&self, sequence: u64, age_ms: u64) -> bool {
        let after = (std::ops::Bound::Excluded(sequence), std::ops::Bound::Unbounded);
        let Some((_, successor)) = self.by_sequence.range(after).next() else { return false };
        let begins = self.group(*successor).and_then(Group::first_timestamp);
        let newest = self.by_sequence.last_key_value().and_then(|(_, a)| self.group(*a));
        let (Some(begins), Some(newest), Some(info)) = (begins, newest, &self.info) else {
            return false;
        };
        let age_ticks = u128::from(newest.newest_timestamp().saturating_sub(begins));
        age_ticks * 1000 >= u128::from(age_ms) * u128::from(info.timescale)
    }

    /// Every piece of news that brings an empty copy to this state.
    pub fn replay(&self) -> impl Iterator<Item = Feed> + '_ {
        let info = self.info.map(Feed::Info);
        let start = self.feed_start.map(Feed::Start);
        let end = self.end.map(Feed::Final);
        let pieces = self.groups.values().flat_map(Group::replay).map(Feed::Piece);
        let outcome = self.outcome.map(|outcome| match outcome {
            Outcome::Ended => Feed::Ended,
            Outcome::Failed(code) => Feed::Failed(code),
        });
        info.into_iter().chain(start).chain(end).chain(pieces).chain(outcome)
    }

    /// Forgets the groups, keeping what is known of the track. Arrival numbers go on, so that no
    /// cursor can mistake new for old.
    fn clear_groups(&mut self) {
        self.groups.clear();
        self.by_sequence.clear();
        self.held_bytes = 0;
        self.feed_start = None;
        self.end = None;
    }

    /// Groups leave when they are older than the track keeps them, and any but the newest when
    /// the track holds too much.
    fn evict(&mut self) {
        let Some(newest) = self.newest() else { return };
        let max_age_ms = self.info.as_ref().map_or(u64::MAX, |info| info.max_age_ms);
        let mut gone = Vec::new();
        let mut held_bytes = self.held_bytes;
        for (arrival, group) in &self.groups {
            // A group that still grows is given time to, however little the track keeps.
            let grace = if group.end.is_none() { UNFINISHED_MAX_AGE_MS } else { 0 };
            let is_over = held_bytes > TRACK_CACHE_BYTES_MAX;
            if group.sequence == newest {
                continue;
            }
            if is_over || self.is_older(group.sequence, max_age_ms.max(grace)) {
                held_bytes -= group.held_bytes();
                gone.push(*arrival);
            } else if group.end.is_some() {
                break;
            }
        }
        for arrival in gone {
            if let Some(group) = self.groups.remove(&arrival) {
                self.by_sequence.remove(&group.sequence);
                self.held_bytes -= group.held_bytes();
            }
        }
    }
}
