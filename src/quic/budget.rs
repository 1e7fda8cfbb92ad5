//! The memory that peers can make one shard hold. Sessions and windows are granted out of it, and what
//! was granted is never taken back before its session ends: who is refused is who asks when little is
//! left. Windows stop growing before sessions are refused, and of what there is for either a last part
//! is for sources that hold less than others.

use std::collections::BTreeMap;

use crate::limits::{SESSIONS_SHARE_OPEN, WINDOWS_SHARE_MAX, WINDOWS_SHARE_OPEN};
use crate::source::Source;

#[derive(Debug)]
pub struct Budget {
    total: u64,
    granted: u64,
    /// What each source holds; none holds nothing.
    sources: BTreeMap<Source, u64>,
}

impl Budget {
    pub fn new(total: u64) -> Budget {
        Budget { total, granted: 0, sources: BTreeMap::new() }
    }

    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// Whether only those who hold less than others are admitted.
    pub fn is_scarce(&self) -> bool {
        self.granted >= self.part(SESSIONS_SHARE_OPEN)
    }

    /// Grants a new session so much, or refuses it.
    pub fn admit(&mut self, source: Source, bytes: u64) -> bool {
        self.grant(source, bytes, self.part(SESSIONS_SHARE_OPEN), self.total)
    }

    /// Grants a session so much more, or leaves it what it has.
    pub fn grow(&mut self, source: Source, bytes: u64) -> bool {
        self.grant(source, bytes, self.part(WINDOWS_SHARE_OPEN), self.part(WINDOWS_SHARE_MAX))
    }

    /// A session has ended that had so much in all.
    pub fn give_back(&mut self, source: Source, bytes: u64) {
        self.granted -= bytes;
        let held = self.sources.get_mut(&source).expect("who gives back holds something");
        *held -= bytes;
        if *held == 0 {
            self.sources.remove(&source);
        }
    }

    fn part(&self, share: f64) -> u64 {
        (self.total as f64 * share) as u64
    }

    /// Everybody may have what is `open`, and those who hold less than the average of all sources what is
    /// left up to `most`.
    fn grant(&mut self, source: Source, bytes: u64, open: u64, most: u64) -> bool {
        let after = self.granted + bytes;
        if after > most || (after > open && !self.holds_less_than_others(source)) {
            return false;
        }
        self.granted = after;
        *self.sources.entry(source).or_default() += bytes;
        true
    }

    fn holds_less_than_others(&self, source: Source) -> bool {
        let held = self.sources.get(&source).copied().unwrap_or(0);
        held * (self.sources.len() as u64) < self.granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: u64 = 1000;
    const OPEN: u64 = (TOTAL as f64 * SESSIONS_SHARE_OPEN) as u64;
    const GROWTH_OPEN: u64 = (TOTAL as f64 * WINDOWS_SHARE_OPEN) as u64;
    const GROWTH_MAX: u64 = (TOTAL as f64 * WINDOWS_SHARE_MAX) as u64;

    fn host(number: u32) -> Source {
        Source::V4(number)
    }

    /// How often it is granted.
    fn times(mut grant: impl FnMut() -> bool) -> u64 {
        (0..10 * TOTAL).take_while(|_| grant()).count() as u64
    }

    #[test]
    fn a_lone_source_leaves_something_to_others() {
        let mut budget = Budget::new(TOTAL);
        assert_eq!(times(|| budget.admit(host(1), 1)), OPEN);
        assert!(budget.is_scarce());
        // Whoever comes new gets in, and has as much as the others then.
        for number in 2..10 {
            assert!(budget.admit(host(number), 1));
        }
        assert!(!budget.admit(host(1), 1));
        assert_eq!(budget.granted(), OPEN + 8);
    }

    #[test]
    fn the_sources_with_the_most_are_refused_first() {
        let mut budget = Budget::new(TOTAL);
        (1..=4).for_each(|number| assert!(budget.admit(host(number), 100)));
        assert_eq!(times(|| budget.admit(host(5), 1)), OPEN - 400);
        // Many sources of one stranger are as one: none of them is below the average for long.
        let mut refused = 0;
        for number in (1..=5).cycle().take(5000) {
            refused += u64::from(!budget.admit(host(number), 1));
        }
        assert!(refused > 4000 && budget.granted() == TOTAL, "{refused} {}", budget.granted());
        assert_eq!(budget.sources[&host(5)], OPEN - 400);
        assert!(!budget.admit(host(6), 1), "all is granted");
    }

    #[test]
    fn sources_that_hold_the_same_leave_the_rest_to_those_who_come() {
        let mut budget = Budget::new(TOTAL);
        let mut number = (0..5).cycle();
        assert_eq!(times(|| budget.admit(host(number.next().unwrap()), 5)), OPEN / 5);
        (0..5).for_each(|number| assert!(!budget.admit(host(number), 5)));
        assert!(budget.admit(host(6), 5));
    }

    #[test]
    fn windows_stop_growing_before_sessions_are_refused() {
        let mut budget = Budget::new(TOTAL);
        assert_eq!(times(|| budget.grow(host(1), 1)), GROWTH_OPEN);
        assert!(budget.admit(host(2), 1));
        assert!(budget.grow(host(2), 9), "it holds less than the other");
        assert_eq!(times(|| budget.admit(host(3), 1)), OPEN - GROWTH_OPEN - 10);
        assert!(budget.granted() > GROWTH_MAX && !budget.grow(host(2), 1));
        assert!(budget.admit(host(4), 1));
    }

    #[test]
    fn what_is_given_back_is_there_for_others() {
        let mut budget = Budget::new(TOTAL);
        assert!(budget.admit(host(1), 800) && budget.admit(host(2), 60));
        assert!(!budget.admit(host(3), 200));
        budget.give_back(host(1), 800);
        assert!(!budget.is_scarce() && budget.admit(host(3), 200));
        budget.give_back(host(2), 60);
        budget.give_back(host(3), 200);
        assert!(budget.granted() == 0 && budget.sources.is_empty());
    }
}
