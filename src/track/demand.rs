//! What readers want of a track, merged over viewers and then over shards (spec §5.2).

use std::collections::BTreeMap;

use crate::wire::{Preferences, Version};

/// A place in a track: a group and a frame within it.
pub type Position = (u64, u64);

/// The merged preferences of any number of viewers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    pub priority: u8,
    pub max_age_ms: u64,
    /// The lowest first frame asked for; None when some viewer named no start.
    pub start: Option<Position>,
    /// The highest last frame asked for, with None for a whole group; None when some viewer named
    /// no end.
    pub end: Option<(u64, Option<u64>)>,
    pub reach: Reach,
}

/// How far back viewers can see of what has come already: the newest group, whatever they ask for,
/// and all from the first one on that any of this names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The lowest group that counts however old it is; none is as high as this by default.
    pub start: u64,
    /// Groups that are not older than this do too.
    pub max_age_ms: Option<u64>,
}

impl Reach {
    pub const NEWEST: Reach = Reach { start: u64::MAX, max_age_ms: None };
    pub const ALL: Reach = Reach { start: 0, max_age_ms: Some(u64::MAX) };

    /// Only lite-06 lets the age decide where to begin, even behind the start; elsewhere no start
    /// means the newest group (spec §4.7).
    pub fn of(version: Version, preferences: &Preferences) -> Reach {
        if version >= Version::Lite06 {
            return Reach { max_age_ms: Some(preferences.max_age_ms), ..Reach::NEWEST };
        }
        Reach { start: preferences.group_start.unwrap_or(u64::MAX), max_age_ms: None }
    }

    /// Of somebody who wants this, or nothing at all.
    pub fn of_demand(demand: Option<Demand>) -> Reach {
        demand.map_or(Reach::NEWEST, |demand| demand.reach)
    }

    pub fn merge(self, other: Reach) -> Reach {
        Reach {
            start: self.start.min(other.start),
            max_age_ms: self.max_age_ms.max(other.max_age_ms),
        }
    }

    pub fn covers(self, other: Reach) -> bool {
        self.merge(other) == self
    }
}

impl Demand {
    /// Of somebody who only waits to see which group is the newest.
    pub const NEWEST: Demand =
        Demand { priority: 0, max_age_ms: 0, start: None, end: None, reach: Reach::NEWEST };

    /// One viewer's demand; None for an empty range, which the wire cannot express.
    pub fn of(version: Version, preferences: &Preferences) -> Option<Demand> {
        let start = preferences.group_start.map(|group| (group, preferences.frame_start));
        let end = preferences.group_end.map(|group| (group, preferences.frame_end));
        if let Some((group, frame)) = end {
            let first = start.unwrap_or((0, 0));
            if (group, frame.unwrap_or(u64::MAX)) < first {
                return None;
            }
        }
        Some(Demand {
            priority: preferences.priority,
            max_age_ms: preferences.max_age_ms,
            start,
            end,
            reach: Reach::of(version, preferences),
        })
    }

    /// The same in numbers that are lower by `shift`: what came before them is past, and so is who
    /// wants nothing else.
    pub fn after(self, shift: u64) -> Option<Demand> {
        let lower = |group: u64| group.checked_sub(shift);
        let start = self.start.and_then(|(group, frame)| Some((lower(group)?, frame)));
        let end = match self.end {
            Some((group, frame)) => Some((lower(group)?, frame)),
            None => None,
        };
        let lowest = Some(self.reach.start).filter(|start| *start < u64::MAX);
        let start_reached = lowest.map_or(u64::MAX, |start| start.saturating_sub(shift));
        let reach = Reach { start: start_reached, ..self.reach };
        Some(Demand { start, end, reach, ..self })
    }

    pub fn merge(self, other: Demand) -> Demand {
        Demand {
            priority: self.priority.max(other.priority),
            max_age_ms: self.max_age_ms.max(other.max_age_ms),
            start: self.start.zip(other.start).map(|(a, b)| a.min(b)),
            end: self.end.zip(other.end).map(|(a, b)| {
                let key = |end: (u64, Option<u64>)| (end.0, end.1.unwrap_or(u64::MAX));
                if key(a) >= key(b) { a } else { b }
            }),
            reach: self.reach.merge(other.reach),
        }
    }

    pub fn merged(demands: impl IntoIterator<Item = Demand>) -> Option<Demand> {
        demands.into_iter().reduce(Demand::merge)
    }

    /// What goes upstream: from the head of its first group, so that the copy serves later
    /// readers too, and no older than the track keeps. Only lite-06 can name a last frame.
    pub fn upstream(&self, track_max_age_ms: u64, version: Version) -> Preferences {
        let frame_end = self.end.and_then(|(_, frame)| frame);
        Preferences {
            priority: self.priority,
            max_age_ms: self.max_age_ms.min(track_max_age_ms),
            group_start: self.start.map(|(group, _)| group),
            group_end: self.end.map(|(group, _)| group),
            frame_start: 0,
            frame_end: frame_end.filter(|_| version >= Version::Lite06),
        }
    }
}

/// The demands of any number of viewers: merged at any time, however many come, go and change.
#[derive(Debug, Default)]
pub struct Demands {
    priorities: Tally<u8>,
    max_ages_ms: Tally<u64>,
    /// No start is below all others.
    starts: Tally<Option<Position>>,
    ends: Tally<End>,
    reach_starts: Tally<u64>,
    reach_ages_ms: Tally<Option<u64>>,
}

/// The last frame asked for. What is open counts as the highest there is.
type End = (u64, u64);

fn end_of(demand: &Demand) -> End {
    demand.end.map_or((u64::MAX, 0), |(group, frame)| (group, frame.unwrap_or(u64::MAX)))
}

impl Demands {
    pub fn add(&mut self, demand: Demand) {
        self.priorities.add(demand.priority);
        self.max_ages_ms.add(demand.max_age_ms);
        self.starts.add(demand.start);
        self.ends.add(end_of(&demand));
        self.reach_starts.add(demand.reach.start);
        self.reach_ages_ms.add(demand.reach.max_age_ms);
    }

    /// One that was added goes.
    pub fn remove(&mut self, demand: Demand) {
        self.priorities.remove(demand.priority);
        self.max_ages_ms.remove(demand.max_age_ms);
        self.starts.remove(demand.start);
        self.ends.remove(end_of(&demand));
        self.reach_starts.remove(demand.reach.start);
        self.reach_ages_ms.remove(demand.reach.max_age_ms);
    }

    pub fn merged(&self) -> Option<Demand> {
        let priority = self.priorities.highest()?;
        let max_age_ms = self.max_ages_ms.highest()?;
        let start = self.starts.lowest()?;
        let (group, frame) = self.ends.highest()?;
        let frame = Some(frame).filter(|frame| *frame != u64::MAX);
        let end = (group != u64::MAX).then_some((group, frame));
        let reach =
            Reach { start: self.reach_starts.lowest()?, max_age_ms: self.reach_ages_ms.highest()? };
        Some(Demand { priority, max_age_ms, start, end, reach })
    }
}

/// How often each value is there.
#[derive(Debug)]
struct Tally<T>(BTreeMap<T, usize>);

impl<T> Default for Tally<T> {
    fn default() -> Tally<T> {
        Tally(BTreeMap::new())
    }
}

impl<T: Ord + Copy> Tally<T> {
    fn add(&mut self, value: T) {
        *self.0.entry(value).or_default() += 1;
    }

    fn remove(&mut self, value: T) {
        if let Some(count) = self.0.get_mut(&value) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&value);
            }
        }
    }

    fn lowest(&self) -> Option<T> {
        self.0.first_key_value().map(|(value, _)| *value)
    }

    fn highest(&self) -> Option<T> {
        self.0.last_key_value().map(|(value, _)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preferences(priority: u8, age: u64, start: Option<u64>, end: Option<u64>) -> Preferences {
        Preferences {
            priority,
            max_age_ms: age,
            group_start: start,
            group_end: end,
            frame_start: 0,
            frame_end: None,
        }
    }

    #[track_caller]
    fn check(viewers: &[Preferences], track_max_age_ms: u64, expect: Option<Preferences>) {
        let merged =
            Demand::merged(viewers.iter().filter_map(|viewer| Demand::of(Version::Lite05, viewer)));
        assert_eq!(merged.map(|d| d.upstream(track_max_age_ms, Version::Lite05)), expect);
        // However they come and go.
        let mut demands = Demands::default();
        let others =
            [preferences(255, 9000, None, None), preferences(255, 9000, Some(0), Some(99))];
        let of = |viewer| Demand::of(Version::Lite05, viewer);
        let all: Vec<Demand> = viewers.iter().filter_map(of).collect();
        others.iter().filter_map(of).for_each(|demand| demands.add(demand));
        all.iter().chain(&all).for_each(|demand| demands.add(*demand));
        all.iter().for_each(|demand| demands.remove(*demand));
        others.iter().filter_map(of).for_each(|demand| demands.remove(demand));
        assert_eq!(demands.merged(), merged);
    }

    #[test]
    fn merge_table() {
        let p = preferences;
        check(&[], 5000, None);
        check(&[p(3, 100, None, None)], 5000, Some(p(3, 100, None, None)));
        // Highest priority, longest age, clamped to what the track keeps.
        check(&[p(3, 100, None, None), p(9, 50, None, None)], 80, Some(p(9, 80, None, None)));
        // Lowest start, unless somebody named none; highest end, unless somebody is unbounded.
        check(
            &[p(1, 0, Some(5), Some(9)), p(1, 0, Some(7), Some(20))],
            0,
            Some(p(1, 0, Some(5), Some(20))),
        );
        check(
            &[p(1, 0, Some(5), Some(9)), p(1, 0, None, Some(20))],
            0,
            Some(p(1, 0, None, Some(20))),
        );
        check(
            &[p(1, 0, Some(5), Some(9)), p(1, 0, Some(7), None)],
            0,
            Some(p(1, 0, Some(5), None)),
        );
        // An empty range is no demand.
        check(&[p(200, 0, Some(5), Some(4))], 0, None);
        check(&[p(200, 0, Some(5), Some(4)), p(1, 0, None, None)], 0, Some(p(1, 0, None, None)));
    }

    #[test]
    fn who_reaches_back_how_far() {
        let reach = |version, age, start| Reach::of(version, &preferences(1, age, start, None));
        use Version::{Lite03, Lite05, Lite06};
        assert_eq!(reach(Lite03, 9000, None), Reach::NEWEST, "an age is no start");
        assert_eq!(reach(Lite05, 9000, None), Reach::NEWEST);
        let from = |start| Reach { start, max_age_ms: None };
        let aged = |max_age_ms| Reach { start: u64::MAX, max_age_ms: Some(max_age_ms) };
        assert_eq!(reach(Lite05, 9000, Some(4)), from(4), "and a start has no age");
        assert_eq!(reach(Lite06, 9000, None), aged(9000));
        assert_eq!(reach(Lite06, 9000, Some(4)), aged(9000), "no group is served for its start");

        assert!(from(4).covers(from(5)) && !from(5).covers(from(4)));
        assert!(aged(5).covers(aged(4)) && !aged(4).covers(aged(5)));
        assert!(!aged(9000).covers(from(4)) && !from(0).covers(aged(0)));
        for reach in [from(4), aged(5), Reach::ALL] {
            assert!(reach.covers(Reach::NEWEST) && reach.covers(reach));
            assert!(Reach::ALL.covers(reach) && from(3).merge(reach).covers(reach));
        }
        // Viewers of one shard together, in the numbers of a run that begins at 3.
        let of = |version, age, start| Demand::of(version, &preferences(1, age, start, None));
        let viewers = [of(Lite05, 9000, Some(7)), of(Lite06, 50, Some(2)), of(Lite05, 0, None)];
        let merged = Demand::merged(viewers.into_iter().flatten()).unwrap();
        assert_eq!(merged.reach, Reach { start: 7, max_age_ms: Some(50) });
        assert_eq!(merged.after(3).unwrap().reach, Reach { start: 4, max_age_ms: Some(50) });
    }

    #[test]
    fn frame_bounds_widen_to_whole_groups() {
        let viewer = Preferences {
            frame_start: 3,
            frame_end: Some(7),
            ..preferences(1, 0, Some(5), Some(9))
        };
        check(&[viewer], 0, Some(preferences(1, 0, Some(5), Some(9))));
        // lite-06 can say where to stop, and nothing else may be cut off at its head.
        let demand = Demand::of(Version::Lite06, &viewer).unwrap();
        let expect = Preferences { frame_start: 0, ..viewer };
        assert_eq!(demand.upstream(0, Version::Lite06), expect);
        let empty = Preferences { group_end: Some(5), frame_end: Some(2), ..viewer };
        check(&[empty], 0, None);
    }
}
