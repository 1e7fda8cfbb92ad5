//! What leaves the cache, and why: its time is up, there is too much, or memory is short (spec §5.6).

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::Shard;
use super::cache::{Entry, fair_share};
use super::tracks::Change;
use crate::limits::{CACHE_LIVE, CACHE_SPARED_MAX};
use crate::track::Feed;
use crate::track::content::Evicted;
use crate::wire::StreamCode;

impl Shard {
    /// Lets go of groups that nobody has asked for in a while: before whoever comes in this turn, who would be
    /// told to begin with what is not there when it is served.
    pub(super) fn drop_expired(&mut self, now: Instant) {
        let (mut kept, mut marked) = (Vec::new(), Vec::new());
        while let Some(entry) = self.tracks.cache.take_expired(now) {
            match self.judge(now, entry, Duration::ZERO) {
                Verdict::Gone => {}
                Verdict::Used(entry) => self.tracks.cache.insert(entry),
                Verdict::Live(live) => kept.push(live.entry),
                Verdict::Idle(slot, entry) => self.evict(now, slot, entry, &mut marked),
            }
        }
        kept.into_iter().chain(marked).for_each(|entry| self.tracks.cache.insert(entry));
    }

    /// Where the cache holds too much, or memory is short, groups go of those owners who hold more than a fair
    /// share of it, then of others, where that lasts, those first who hold most; and what is live where it holds
    /// more than it may.
    pub(super) fn trim_cache(&mut self, now: Instant) {
        let Some(goal) = self.tracks.cache.goal(now) else { return };
        let mut marked = Vec::new();
        let mut held = self.tracks.held_by_owner();
        let share = fair_share(held.values().copied(), goal);
        let is_over = self.tracks.cache.is_over();
        let (mut spared, mut live) = (Vec::new(), Vec::new());
        while self.tracks.cache.held > goal
            && let Some(entry) = self.tracks.cache.take_idle(now)
        {
            match self.judge(now, entry, CACHE_LIVE) {
                Verdict::Gone => {}
                Verdict::Used(entry) => self.tracks.cache.insert(entry),
                Verdict::Live(found) => live.push(found),
                Verdict::Idle(slot, entry) => {
                    let owner = held.entry(self.tracks.slab[slot].owner()).or_default();
                    if *owner <= share && spared.len() < CACHE_SPARED_MAX {
                        spared.push(Live { entry, is_newest: false });
                        continue;
                    }
                    let before = self.tracks.cache.held;
                    self.evict(now, slot, entry, &mut marked);
                    *owner = owner.saturating_sub(before - self.tracks.cache.held);
                }
            }
        }
        if is_over && self.tracks.cache.held > goal {
            while let Some(entry) = self.tracks.cache.take_oldest() {
                match self.judge(now, entry, CACHE_LIVE) {
                    Verdict::Gone => {}
                    Verdict::Live(found) => live.push(found),
                    Verdict::Used(entry) | Verdict::Idle(_, entry) => {
                        live.push(Live { entry, is_newest: false });
                    }
                }
            }
            spared.append(&mut live);
        }
        let weight = |entry: &Entry| {
            let slot = self.tracks.slot(entry.track)?;
            held.get(&self.tracks.slab[slot].owner()).copied()
        };
        spared.sort_by_cached_key(|Live { entry, is_newest }| {
            (Reverse(weight(entry)), *is_newest, *entry)
        });
        let spares = !is_over && self.tracks.cache.spares_few(now);
        for Live { entry, .. } in spared {
            match self.tracks.slot(entry.track) {
                Some(slot) if self.tracks.cache.held > goal && !spares => {
                    self.evict(now, slot, entry, &mut marked);
                }
                _ => self.tracks.cache.insert(entry),
            }
        }
        // Those marks go when readers have seen them.
        let kept = live.into_iter().map(|Live { entry, .. }| entry).chain(marked);
        kept.for_each(|entry| self.tracks.cache.insert(entry));
    }

    /// `live_for` is how long a group is live after it was of use.
    fn judge(&mut self, now: Instant, entry: Entry, live_for: Duration) -> Verdict {
        self.visits.groups += 1;
        let Some(slot) = self.tracks.slot(entry.track) else { return Verdict::Gone };
        let track = &self.tracks.slab[slot];
        let Some(group) = track.content.group(entry.arrival) else { return Verdict::Gone };
        // What still grows is not idle, however slowly it does.
        let is_growing = group.end.is_none();
        let is_newest = track.is_live() && track.content.is_newest(entry.arrival);
        let is_listed = entry.used == group.touched;
        let entry = Entry { used: group.touched, ..entry };
        if is_growing || is_newest {
            Verdict::Live(Live { entry: Entry { used: now, ..entry }, is_newest })
        } else if entry.used + live_for > now {
            Verdict::Live(Live { entry, is_newest })
        } else if is_listed {
            Verdict::Idle(slot, entry)
        } else {
            Verdict::Used(entry)
        }
    }

    /// Where a track has too many groups the oldest goes, as for its age.
    pub(super) fn drop_surplus(&mut self, now: Instant, slot: usize) {
        let Some(arrival) = self.tracks.slab[slot].content.surplus() else { return };
        self.cut_off(now, slot, arrival, StreamCode::OLD);
        self.tracks.with_content(slot, |content| content.evict(arrival, false));
        self.counters.evicted_groups_total += 1;
    }

    /// Ends a group of the live feed that is to go; what mirrors have of it grows no more either.
    fn cut_off(&mut self, now: Instant, slot: usize, arrival: u64, code: StreamCode) {
        let content = &self.tracks.slab[slot].content;
        if let Some(group) = content.group(arrival)
            && content.is_fed(arrival)
        {
            self.feed(now, slot, Feed::cut_off(group.sequence, code));
        }
    }

    fn evict(&mut self, now: Instant, slot: usize, entry: Entry, marked: &mut Vec<Entry>) {
        self.cut_off(now, slot, entry.arrival, StreamCode::EVICTED);
        let Some(slot) = self.tracks.slot(entry.track) else { return };
        let track = &self.tracks.slab[slot];
        let is_read = !track.readers.is_empty() || !track.fetchers.is_empty();
        let evicted =
            self.tracks.with_content(slot, |content| content.evict(entry.arrival, is_read));
        self.counters.evicted_groups_total += 1;
        if evicted == Evicted::Marked {
            marked.push(entry);
            self.tracks.note_changed(slot, Change::Evicted);
        }
    }
}

/// What a group in the cache is, each as it was last of use.
enum Verdict {
    Gone,
    /// It was of use since.
    Used(Entry),
    Live(Live),
    Idle(usize, Entry),
}

/// A group that somebody may be in the middle of, or who comes will want first.
struct Live {
    entry: Entry,
    is_newest: bool,
}
