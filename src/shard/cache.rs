//! What a shard keeps of groups: the order in which they were last of use, and how much they
//! weigh together (spec §5.6).

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::CacheBounds;
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
}

impl Cache {
    pub fn new(bounds: CacheBounds) -> Cache {
        Cache { bounds, entries: BTreeSet::new(), looked_at: None, held: 0 }
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

    pub fn is_over(&self) -> bool {
        self.held > self.bounds.bytes
    }

    pub fn duration(&self) -> Duration {
        self.bounds.duration
    }

    fn is_expired(&self, entry: &Entry, now: Instant) -> bool {
        entry.used + self.bounds.duration <= now
    }

    /// The group that was of use least recently, if it or any other has to go.
    pub fn take_oldest(&mut self, now: Instant) -> Option<Entry> {
        let oldest = self.entries.first()?;
        if !self.is_over() && !self.is_expired(oldest, now) {
            return None;
        }
        self.entries.pop_first()
    }

    /// When the time of some group is up.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.entries.first().map(|oldest| oldest.used + self.bounds.duration + SWEEP_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
