//! When each frame is to be sent, fixed before the first one is. Knows no connection.

use std::ops::Range;

use crate::clock::SECOND;

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
    frames_per_group: u64,
    /// By track.
    beats: Vec<Beat>,
}

impl Schedule {
    /// From `start` on. Tracks begin at different times within the first interval: publishers
    /// know nothing of each other.
    pub fn new(
        start: u64,
        rate: f64,
        frames_per_group: u64,
        tracks: usize,
        random: &mut Random,
    ) -> Schedule {
        let interval = interval(rate);
        let beats = (0..tracks).map(|_| Beat { first: start + random.below(interval), interval });
        Schedule { frames_per_group, beats: beats.collect() }
    }

    pub fn frames(&self, track: usize) -> &Beat {
        &self.beats[track]
    }

    /// The first frames of groups.
    pub fn groups(&self, track: usize) -> Beat {
        let Beat { first, interval } = self.beats[track];
        Beat { first, interval: interval * self.frames_per_group }
    }

    /// The group of a frame, and the frame's place in it.
    pub fn place(&self, number: u64) -> (u64, u64) {
        (number / self.frames_per_group, number % self.frames_per_group)
    }

    pub fn frames_per_group(&self) -> u64 {
        self.frames_per_group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let schedule = |seed| Schedule::new(0, 50.0, 5, 100, &mut Random::new(seed));
        assert_eq!(schedule(7).beats, schedule(7).beats);
        assert_ne!(schedule(7).beats, schedule(8).beats);
    }

    #[test]
    fn tracks_are_spread_over_the_interval() {
        let schedule = Schedule::new(1000, 50.0, 5, 1000, &mut Random::new(1));
        let firsts = || schedule.beats.iter().map(|beat| beat.first);
        assert!(firsts().all(|first| (1000..1000 + 20_000_000).contains(&first)));
        let early = firsts().filter(|&first| first < 1000 + 10_000_000).count();
        assert!((400..600).contains(&early), "{early} of 1000 in the first half");
    }

    #[test]
    fn frames_belong_to_groups() {
        let schedule = Schedule::new(0, 60.0, 60, 1, &mut Random::new(1));
        assert_eq!(schedule.place(0), (0, 0));
        assert_eq!(schedule.place(59), (0, 59));
        assert_eq!(schedule.place(60), (1, 0));
        assert_eq!(schedule.groups(0).at(2), schedule.frames(0).at(120));
    }
}
