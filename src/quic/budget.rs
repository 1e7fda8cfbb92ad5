//! The memory that peers can make one shard hold. Sessions and windows are granted out of it, and what
//! was granted is never taken back before its session ends: who is refused is who asks when little is
//! left. Windows stop growing before sessions are refused, and of what there is for either a last part
//! is for sources that hold less than others. The little that a session needs first is granted as sessions are:
//! who holds much keeps others at his address from windows as large, and from nothing else.

use std::collections::BTreeMap;

use crate::limits::{
    SEND_WINDOW_SHORT_BYTES, SESSION_BYTES, SESSION_FIRST_BYTES, SESSION_HOLDS_BYTES,
    SESSIONS_SHARE_OPEN, WINDOWS_SHARE_MAX, WINDOWS_SHARE_OPEN,
};
use crate::source::Source;

#[derive(Debug)]
pub struct Budget {
    total: u64,
    granted: u64,
    /// Memory is, whatever was granted of this.
    is_short: bool,
    /// What each source holds; none holds nothing.
    sources: BTreeMap<Source, u64>,
}

impl Budget {
    pub fn new(total: u64) -> Budget {
        Budget { total, granted: 0, is_short: false, sources: BTreeMap::new() }
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// While memory is short nothing is granted.
    pub fn set_short(&mut self, is_short: bool) {
        self.is_short = is_short;
    }

    /// How much a connection may have written and not yet acknowledged that usually may have so much.
    pub fn send_window(&self, usual: u64) -> u64 {
        if self.is_short { SEND_WINDOW_SHORT_BYTES } else { usual }
    }

    /// Whether only those who hold less than others are admitted.
    pub fn is_scarce(&self) -> bool {
        self.granted >= self.part(SESSIONS_SHARE_OPEN)
    }

    /// Grants a new session so much, or refuses it.
    pub fn admit(&mut self, source: Source, bytes: u64) -> bool {
        self.grant(source, bytes, self.part(SESSIONS_SHARE_OPEN), self.total)
    }

    /// Whether a new session of what they begin with would be granted now.
    pub fn may_admit(&self, source: Source) -> bool {
        let after = self.granted + SESSION_BYTES;
        let is_open = after <= self.part(SESSIONS_SHARE_OPEN);
        !self.is_short && after <= self.total && (is_open || self.holds_less_than_others(source))
    }

    /// Grants a session that has so much in all so much more, or leaves it what it has. Relays are few, and others
    /// stand behind each: they go on when windows of clients do not grow any more.
    pub fn grow(&mut self, source: Source, has: u64, bytes: u64, is_relay: bool) -> bool {
        if has + bytes <= SESSION_BYTES + SESSION_FIRST_BYTES {
            return self.admit(source, bytes);
        }
        let (open, most) = match is_relay {
            false => (WINDOWS_SHARE_OPEN, WINDOWS_SHARE_MAX),
            true => (WINDOWS_SHARE_MAX, SESSIONS_SHARE_OPEN),
        };
        self.grant(source, bytes, self.part(open), self.part(most))
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
        if self.is_short || after > most || (after > open && !self.holds_less_than_others(source)) {
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

/// What one session may hold of what its peer has said and of what it was told. It grows as windows do: twice
/// as much before it is needed.
#[derive(Debug)]
pub struct Allowance {
    granted: u64,
    wanted: u64,
}

impl Allowance {
    /// What every session is counted with.
    pub const START: Allowance =
        Allowance { granted: SESSION_HOLDS_BYTES, wanted: SESSION_HOLDS_BYTES };

    /// Whether so much is granted.
    pub fn covers(&mut self, bytes: u64) -> bool {
        while self.wanted < 2 * bytes {
            self.wanted *= 2;
        }
        bytes <= self.granted
    }

    pub fn is_wanting(&self) -> bool {
        self.granted < self.wanted
    }

    /// Asks for what is wanted, as much at once as there is: of what is granted little by little a part may be.
    pub fn grow(&mut self, mut grant: impl FnMut(u64) -> bool) {
        while self.is_wanting() && grant(self.granted) {
            self.granted *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: u64 = 1000;
    const OPEN: u64 = (TOTAL as f64 * SESSIONS_SHARE_OPEN) as u64;
    const GROWTH_OPEN: u64 = (TOTAL as f64 * WINDOWS_SHARE_OPEN) as u64;
    const GROWTH_MAX: u64 = (TOTAL as f64 * WINDOWS_SHARE_MAX) as u64;
    /// Of a session that has had what it needs first.
    const MUCH: u64 = SESSION_BYTES + SESSION_FIRST_BYTES;

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
        assert_eq!(times(|| budget.grow(host(1), MUCH, 1, false)), GROWTH_OPEN);
        assert!(budget.admit(host(2), 1));
        assert!(budget.grow(host(2), MUCH, 9, false), "it holds less than the other");
        assert_eq!(times(|| budget.admit(host(3), 1)), OPEN - GROWTH_OPEN - 10);
        assert!(budget.granted() > GROWTH_MAX && !budget.grow(host(2), MUCH, 1, false));
        assert!(budget.admit(host(4), 1));
    }

    #[test]
    fn what_a_session_needs_first_does_not_wait_for_what_others_have() {
        let total = 100 * MUCH;
        let mut budget = Budget::new(total);
        // Somebody has all that windows may come to, and a neighbour at the same address comes in.
        let mut has = SESSION_BYTES;
        assert!(budget.admit(host(1), has));
        while budget.grow(host(1), has, MUCH, false) {
            has += MUCH;
        }
        assert!(budget.admit(host(1), SESSION_BYTES));
        assert!(budget.grow(host(1), SESSION_BYTES, SESSION_FIRST_BYTES, false));
        assert!(
            !budget.grow(host(1), MUCH, 1, false),
            "a neighbour has no window for which others have no room"
        );
        // However many neighbours come, something is left to those at other addresses.
        let comes = |budget: &mut Budget| {
            budget.admit(host(1), SESSION_BYTES)
                && budget.grow(host(1), SESSION_BYTES, SESSION_FIRST_BYTES, false)
        };
        while comes(&mut budget) {}
        assert!(budget.granted() <= (total as f64 * SESSIONS_SHARE_OPEN) as u64);
        assert!(budget.admit(host(2), SESSION_BYTES));
        assert!(budget.grow(host(2), SESSION_BYTES, SESSION_FIRST_BYTES, false));
    }

    #[test]
    fn a_link_grows_when_windows_of_clients_do_not() {
        let mut budget = Budget::new(TOTAL);
        assert!(budget.admit(host(1), GROWTH_OPEN) && budget.admit(host(2), 1));
        assert!(!budget.grow(host(1), MUCH, 1, false));
        let more = GROWTH_MAX - GROWTH_OPEN - 1;
        assert_eq!(times(|| budget.grow(host(1), MUCH, 1, true)), more);
        // It holds less than the other, and sessions are admitted on.
        assert_eq!(times(|| budget.grow(host(3), MUCH, 1, true)), OPEN - GROWTH_MAX);
        assert!(budget.admit(host(4), 1));
    }

    #[test]
    fn an_allowance_grows_ahead_of_need() {
        let mut allowance = Allowance::START;
        assert!(allowance.covers(SESSION_HOLDS_BYTES / 2) && !allowance.is_wanting());
        assert!(allowance.covers(SESSION_HOLDS_BYTES) && allowance.is_wanting());
        allowance.grow(|_| false);
        assert!(!allowance.covers(SESSION_HOLDS_BYTES + 1));
        // A part of what is wanted is better than nothing.
        allowance.grow(|bytes| bytes == SESSION_HOLDS_BYTES);
        assert!(allowance.covers(2 * SESSION_HOLDS_BYTES) && allowance.is_wanting());
        let mut granted = 0;
        allowance.grow(|bytes| {
            granted += bytes;
            true
        });
        assert_eq!(granted, 2 * SESSION_HOLDS_BYTES);
        assert!(allowance.covers(2 * SESSION_HOLDS_BYTES) && !allowance.is_wanting());
    }

    #[test]
    fn nothing_is_granted_while_memory_is_short() {
        let mut budget = Budget::new(10 * SESSION_BYTES);
        assert!(budget.admit(host(1), SESSION_BYTES) && budget.may_admit(host(2)));
        budget.set_short(true);
        assert!(
            !budget.admit(host(2), 1)
                && !budget.grow(host(1), SESSION_BYTES, 1, false)
                && !budget.may_admit(host(2))
        );
        budget.give_back(host(1), 1);
        budget.set_short(false);
        assert!(budget.grow(host(1), SESSION_BYTES, 1, false) && budget.may_admit(host(2)));
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
