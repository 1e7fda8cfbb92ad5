//! What a shard keeps of groups: the order in which they were last of use, and how much they
//! weigh together (spec §5.6).

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::CacheBounds;
use crate::limits::{CACHE_LIVE, CACHE_SHRINK_INTERVAL, CACHE_SHRINK_SHARE, CACHE_SPARES_FOR};
use crate::track::TrackRef;

/// Groups whose time is up within this of each other leave together.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A group of some track, by its arrival number, as it was last of use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Entry {
    pub used: Instant,
    pub track: TrackRef,
    pub arrival: u64,
}

#[derive(Debug)]
pub(super) struct Cache {
    bounds: CacheBounds,
    /// Groups that have left their track otherwise are listed until they are looked at.
    entries: BTreeSet<Entry>,
    /// The last of them that was looked at in turn.
    looked_at: Option<Entry>,
    /// Bytes of all groups of this shard.
    pub held: u64,
    /// Memory is, and the cache has to become smaller.
    is_short: bool,
    short_since: Option<Instant>,
    shrunk_at: Option<Instant>,
}

impl Cache {
    pub fn new(bounds: CacheBounds) -> Cache {
        Cache {
            bounds,
            entries: BTreeSet::new(),
            looked_at: None,
            held: 0,
            is_short: false,
            short_since: None,
            shrunk_at: None,
        }
    }

    pub fn insert(&mut self, entry: Entry) {
        self.entries.insert(entry);
    }

    pub fn remove(&mut self, entry: &Entry) {
        self.entries.remove(entry);
    }

    /// All of them in turn, over and over.
    pub fn look_at_next(&mut self) -> Option<Entry> {
        let after = self.looked_at.map_or(Bound::Unbounded, Bound::Excluded);
        self.looked_at = self.entries.range((after, Bound::Unbounded)).next().copied();
        self.looked_at
    }

    pub fn set_short(&mut self, is_short: bool) {
        self.is_short = is_short;
        if !is_short {
            self.short_since = None;
        }
    }

    /// What it should hold now, if that is less than it does: it holds more than it may, or memory is short
    /// and it was made smaller a while ago. A part of the room is made at once, so that not every turn has to
    /// look for more.
    pub fn goal(&mut self, now: Instant) -> Option<u64> {
        if self.is_over() {
            return Some(self.bounds.bytes - self.bounds.bytes / 16);
        }
        let is_due = self.shrunk_at.is_none_or(|at| now >= at + CACHE_SHRINK_INTERVAL);
        (self.is_short && is_due).then(|| {
            self.short_since.get_or_insert(now);
            self.shrunk_at = Some(now);
            self.held - (self.held as f64 * CACHE_SHRINK_SHARE).ceil() as u64
        })
    }

    /// Whether those who hold little keep theirs, as long as memory has not been short for long: what others have
    /// let go of is not free at once.
    pub fn spares_few(&self, now: Instant) -> bool {
        self.short_since.is_none_or(|since| now < since + CACHE_SPARES_FOR)
    }

    /// When it is to become smaller again.
    pub fn next_shrink(&self) -> Option<Instant> {
        let oldest = self.entries.first().filter(|_| self.is_short)?;
        let at = oldest.used + CACHE_LIVE;
        Some(self.shrunk_at.map_or(at, |shrunk_at| at.max(shrunk_at + CACHE_SHRINK_INTERVAL)))
    }

    /// It holds more than it may.
    pub fn is_over(&self) -> bool {
        self.held > self.bounds.bytes
    }

    /// The bytes that it may hold.
    pub fn room(&self) -> u64 {
        self.bounds.bytes
    }

    pub fn duration(&self) -> Duration {
        self.bounds.duration
    }

    /// The group that was of use least recently, if its time is up.
    pub fn take_expired(&mut self, now: Instant) -> Option<Entry> {
        self.take_unused_for(self.bounds.duration, now)
    }

    /// The group that was of use least recently, if it is not live.
    pub fn take_idle(&mut self, now: Instant) -> Option<Entry> {
        self.take_unused_for(CACHE_LIVE, now)
    }

    pub fn take_oldest(&mut self) -> Option<Entry> {
        self.entries.pop_first()
    }

    fn take_unused_for(&mut self, time: Duration, now: Instant) -> Option<Entry> {
        self.entries.first().filter(|oldest| oldest.used + time <= now)?;
        self.entries.pop_first()
    }

    /// When the time of some group is up.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.entries.first().map(|oldest| oldest.used + self.bounds.duration + SWEEP_INTERVAL)
    }
}

/// What each may hold if all together are to hold `goal`: those who hold less are in nobody's way.
pub(super) fn fair_share(held: impl IntoIterator<Item = u64>, goal: u64) -> u64 {
    let mut held = Vec::from_iter(held);
    held.sort_unstable();
    let mut left = goal;
    for (at, bytes) in held.iter().enumerate() {
        let each = left / (held.len() - at) as u64;
        if *bytes > each {
            return each;
        }
        left -= bytes;
    }
    u64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_hold_little_keep_it() {
        assert_eq!(fair_share([], 10), u64::MAX);
        assert_eq!(fair_share([3, 4], 7), u64::MAX);
        assert_eq!(fair_share([10, 10], 10), 5);
        assert_eq!(fair_share([100, 1, 20], 60), 39);
        assert_eq!(fair_share([100, 1, 50], 60), 29);
        assert_eq!(fair_share([5], 0), 0);
    }

    #[test]
    fn entries_are_looked_at_in_turn() {
        let bounds = CacheBounds { bytes: 0, duration: Duration::ZERO };
        let mut cache = Cache::new(bounds);
        assert_eq!(cache.look_at_next(), None);
        let track = TrackRef { shard: 0, slot: 0, generation: 0 };
        let used = Instant::now();
        (0..4).for_each(|arrival| cache.insert(Entry { used, track, arrival }));
        let mut seen = Vec::new();
        for _ in 0..9 {
            let entry = cache.look_at_next();
            seen.push(entry.map(|entry| entry.arrival));
            if let Some(entry) = entry.filter(|entry| entry.arrival == 1) {
                cache.remove(&entry);
            }
        }
        let (first, rest) = seen.split_at(5);
        assert_eq!(first, [Some(0), Some(1), Some(2), Some(3), None]);
        assert_eq!(rest, [Some(0), Some(2), Some(3), None]);
    }
}
