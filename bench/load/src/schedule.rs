//! When each frame is to be sent, fixed before the first one is. Knows no connection.

use std::ops::Range;

use crate::clock::SECOND;
use crate::scenario::Track;

/// Numbers that look random and are the same for the same seed (splitmix64).
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Events at a fixed rate, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beat {
    pub first: u64,
    pub interval: u64,
}

impl Beat {
    pub fn new(first: u64, per_second: f64) -> Beat {
        Beat { first, interval: interval(per_second) }
    }

    pub fn at(&self, number: u64) -> u64 {
        self.first + number * self.interval
    }

    /// How many events are within the span.
    pub fn count(&self, span: &Range<u64>) -> u64 {
        self.before(span.end).saturating_sub(self.before(span.start))
    }

    /// How many events are before the time.
    pub fn before(&self, time: u64) -> u64 {
        time.saturating_sub(self.first).div_ceil(self.interval)
    }
}

pub fn interval(per_second: f64) -> u64 {
    ((SECOND as f64 / per_second).round() as u64).max(1)
}

/// The frames of all tracks.
#[derive(Clone)]
pub struct Schedule {
    /// By track.
    tracks: Vec<Pace>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pace {
    frames: Beat,
    frames_per_group: u64,
}

impl Schedule {
    /// From `start` on. Tracks begin at different times within the first interval: publishers
    /// know nothing of each other.
    pub fn new<'a>(
        start: u64,
        tracks: impl Iterator<Item = &'a Track>,
        random: &mut Random,
    ) -> Schedule {
        let pace = |track: &Track| {
            let interval = interval(track.rate);
            let frames = Beat { first: start + random.below(interval), interval };
            Pace { frames, frames_per_group: track.frames_per_group.into() }
        };
        Schedule { tracks: tracks.map(pace).collect() }
    }

    pub fn frames(&self, track: usize) -> &Beat {
        &self.tracks[track].frames
    }

    /// The first frames of groups.
    pub fn groups(&self, track: usize) -> Beat {
        let Pace { frames: Beat { first, interval }, frames_per_group } = self.tracks[track];
        Beat { first, interval: interval * frames_per_group }
    }

    /// How long the longest groups are.
    pub fn group_ns_max(&self) -> u64 {
        let lengths = (0..self.tracks.len()).map(|track| self.groups(track).interval);
        lengths.max().unwrap_or(0)
    }

    /// The group of a frame, and the frame's place in it.
    pub fn place(&self, track: usize, number: u64) -> (u64, u64) {
        let frames = self.frames_per_group(track);
        (number / frames, number % frames)
    }

    pub fn frames_per_group(&self, track: usize) -> u64 {
        self.tracks[track].frames_per_group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(start: u64, tracks: &[(f64, u32)], seed: u64) -> Schedule {
        let track =
            |&(rate, frames_per_group)| Track { rate, frames_per_group, ..Track::default() };
        let tracks: Vec<_> = tracks.iter().map(track).collect();
        Schedule::new(start, tracks.iter(), &mut Random::new(seed))
    }

    #[test]
    fn events_are_counted_where_they_are() {
        let beat = Beat { first: 100, interval: 10 };
        assert_eq!((beat.at(0), beat.at(3)), (100, 130));
        let table = [
            (0..100, 0),
            (0..101, 1),
            (100..110, 1),
            (100..111, 2),
            (101..110, 0),
            (101..111, 1),
            (95..135, 4),
        ];
        for (span, count) in table {
            assert_eq!(beat.count(&span), count, "{span:?}");
            let listed = (0..100).filter(|&number| span.contains(&beat.at(number))).count();
            assert_eq!(listed as u64, count, "{span:?}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule() {
        let tracks = |seed| schedule(0, &[(50.0, 5); 100], seed).tracks;
        assert_eq!(tracks(7), tracks(7));
        assert_ne!(tracks(7), tracks(8));
    }

    #[test]
    fn tracks_are_spread_over_the_interval() {
        let schedule = schedule(1000, &[(50.0, 5); 1000], 1);
        let firsts = || schedule.tracks.iter().map(|track| track.frames.first);
        assert!(firsts().all(|first| (1000..1000 + 20_000_000).contains(&first)));
        let early = firsts().filter(|&first| first < 1000 + 10_000_000).count();
        assert!((400..600).contains(&early), "{early} of 1000 in the first half");
    }

    #[test]
    fn frames_belong_to_groups() {
        let schedule = schedule(0, &[(60.0, 60), (50.0, 1)], 1);
        assert_eq!(schedule.place(0, 0), (0, 0));
        assert_eq!(schedule.place(0, 59), (0, 59));
        assert_eq!(schedule.place(0, 60), (1, 0));
        assert_eq!(schedule.place(1, 60), (60, 0));
        assert_eq!(schedule.groups(0).at(2), schedule.frames(0).at(120));
        assert_eq!(schedule.groups(1).at(2), schedule.frames(1).at(2));
        assert_eq!(schedule.group_ns_max(), schedule.groups(0).interval);
    }
}
