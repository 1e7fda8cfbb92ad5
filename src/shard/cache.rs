//! What a shard keeps of groups: the order in which they were last of use, and how much they
//! weigh together (spec §5.6).

use std::collections::BTreeSet;
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
    /// Groups that have left their track otherwise are still listed until they are looked at.
    entries: BTreeSet<Entry>,
    /// Bytes of all groups of this shard.
    pub held: u64,
}

impl Cache {
    pub fn new(bounds: CacheBounds) -> Cache {
        Cache { bounds, entries: BTreeSet::new(), held: 0 }
    }

    pub fn insert(&mut self, entry: Entry) {
        self.entries.insert(entry);
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
