//! What was offered, what arrived and when: an account per viewer and track, and histograms.
//! Knows no connection.

use std::ops::Range;

use hdrhistogram::Histogram;

use crate::clock::{MICROSECOND, SECOND};
use crate::schedule::Schedule;

/// Latencies beyond are counted as this one, in microseconds: nobody waits longer.
const LATENCY_MAX_US: u64 = 120_000_000;

/// Reasons of errors that are kept for the summary.
const REASONS_MAX: usize = 8;

/// A group that is complete this much after its last frame was due is late, whatever its max age.
pub const LATE_NS_MAX: u64 = SECOND;

/// What one viewer got of one track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub track: u32,
    /// Within the measured span, as all that follows.
    pub frames: u32,
    pub groups: u32,
    /// The relay has let a group or an answer through: there is a subscription.
    pub is_served: bool,
}

/// Latencies of one kind.
pub struct Latencies {
    pub total: Histogram<u64>,
    /// By second of the span.
    pub seconds: Vec<Histogram<u32>>,
}

impl Latencies {
    fn new(seconds: usize) -> Latencies {
        let fine = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        let coarse = Histogram::new_with_bounds(1, LATENCY_MAX_US, 2);
        let coarse = coarse.expect("bounds that a histogram can have");
        Latencies {
            total: fine.expect("bounds that a histogram can have"),
            seconds: vec![coarse; seconds],
        }
    }

    fn record(&mut self, second: usize, latency_ns: u64) {
        let latency = (latency_ns / MICROSECOND).max(1);
        self.total.saturating_record(latency);
        if let Some(second) = self.seconds.get_mut(second) {
            second.saturating_record(latency);
        }
    }
}

/// Everything that is counted. Until [`Measure::begin`] nothing is within the span.
pub struct Measure {
    /// What is offered within it counts, whenever it arrives.
    span: Range<u64>,
    late_after: u64,
    pub accounts: Vec<Account>,
    pub frames: Latencies,
    pub announcements: Latencies,
    pub fetches: Latencies,
    /// How much later than intended frames were handed to QUIC: our own part of the latency.
    pub lag: Latencies,
    pub late_groups: u64,
    pub resets: u64,
    pub errors: u64,
    pub reasons: Vec<String>,
    pub announcements_expected: u64,
    pub fetches_expected: u64,
}

impl Measure {
    pub fn new(accounts: Vec<Account>, max_age_ms: u64) -> Measure {
        let late_after = (max_age_ms * SECOND / 1000).min(LATE_NS_MAX);
        Measure {
            span: 0..0,
            late_after,
            accounts,
            frames: Latencies::new(0),
            announcements: Latencies::new(0),
            fetches: Latencies::new(0),
            lag: Latencies::new(0),
            late_groups: 0,
            resets: 0,
            errors: 0,
            reasons: Vec::new(),
            announcements_expected: 0,
            fetches_expected: 0,
        }
    }

    pub fn begin(&mut self, span: Range<u64>) {
        let seconds = (span.end - span.start).div_ceil(SECOND) as usize;
        self.frames = Latencies::new(seconds);
        self.announcements = Latencies::new(seconds);
        self.fetches = Latencies::new(seconds);
        self.lag = Latencies::new(seconds);
        self.span = span;
    }

    pub fn span(&self) -> Range<u64> {
        self.span.clone()
    }

    fn second(&self, intended: u64) -> Option<usize> {
        let is_within = self.span.contains(&intended);
        is_within.then(|| ((intended - self.span.start) / SECOND) as usize)
    }

    /// A frame has arrived as a whole.
    #[inline]
    pub fn frame(&mut self, account: usize, intended: u64, now: u64) {
        if let Some(second) = self.second(intended) {
            self.accounts[account].frames += 1;
            self.frames.record(second, now.saturating_sub(intended));
        }
    }

    /// A group has arrived as a whole, whose first and last frame were intended for these times.
    pub fn group(&mut self, account: usize, first: u64, last: u64, now: u64) {
        if self.span.contains(&first) {
            self.accounts[account].groups += 1;
            self.late_groups += u64::from(now.saturating_sub(last) > self.late_after);
        }
    }

    /// The relay has given a group up.
    pub fn reset(&mut self, now: u64) {
        self.resets += u64::from(self.has_begun(now));
    }

    /// Something went wrong that a viewer would notice.
    pub fn error(&mut self, now: u64, reason: impl FnOnce() -> String) {
        if !self.has_begun(now) {
            return;
        }
        self.errors += 1;
        if self.reasons.len() < REASONS_MAX {
            let reason = reason();
            if !self.reasons.contains(&reason) {
                self.reasons.push(reason);
            }
        }
    }

    /// A frame was handed to QUIC.
    pub fn sent(&mut self, intended: u64, now: u64) {
        if let Some(second) = self.second(intended) {
            self.lag.record(second, now.saturating_sub(intended));
        }
    }

    /// A change was announced that so many listeners are to hear of.
    pub fn announced(&mut self, intended: u64, listeners: u64) {
        if self.second(intended).is_some() {
            self.announcements_expected += listeners;
        }
    }

    /// A listener has heard of a change.
    pub fn heard(&mut self, intended: u64, now: u64) {
        if let Some(second) = self.second(intended) {
            self.announcements.record(second, now.saturating_sub(intended));
        }
    }

    pub fn asked(&mut self, intended: u64) {
        self.fetches_expected += u64::from(self.second(intended).is_some());
    }

    /// A fetched group has arrived as a whole.
    pub fn fetched(&mut self, intended: u64, now: u64) {
        if let Some(second) = self.second(intended) {
            self.fetches.record(second, now.saturating_sub(intended));
        }
    }

    fn has_begun(&self, now: u64) -> bool {
        self.span.start < self.span.end && now >= self.span.start
    }

    /// Totals over all accounts.
    pub fn balance(&self, schedule: Option<&Schedule>) -> Balance {
        let mut balance = Balance::default();
        let Some(schedule) = schedule else { return balance };
        for account in &self.accounts {
            let track = account.track as usize;
            let frames = schedule.frames(track).count(&self.span);
            let groups = schedule.groups(track).count(&self.span);
            balance.offered += frames;
            balance.delivered += u64::from(account.frames);
            balance.lost_frames += frames.saturating_sub(account.frames.into());
            balance.lost_groups += groups.saturating_sub(account.groups.into());
        }
        balance
    }

    /// Whether all that was offered has arrived.
    pub fn is_complete(&self, schedule: Option<&Schedule>) -> bool {
        let balance = self.balance(schedule);
        balance.lost_frames == 0
            && balance.lost_groups == 0
            && self.announcements.total.len() >= self.announcements_expected
            && self.fetches.total.len() >= self.fetches_expected
    }
}

/// What was offered within the span, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    pub offered: u64,
    pub delivered: u64,
    pub lost_frames: u64,
    /// Groups that began within the span and are not complete.
    pub lost_groups: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Track;
    use crate::schedule::Random;

    /// Two viewers of one track of 10 frames per second in groups of 5; the span is the second
    /// and third second.
    fn measure() -> (Measure, Schedule) {
        let track = Track { rate: 10.0, frames_per_group: 5, ..Track::default() };
        let schedule = Schedule::new(0, [track].iter(), &mut Random::new(1));
        let mut measure = Measure::new(vec![Account::default(); 2], 300);
        measure.begin(SECOND..3 * SECOND);
        (measure, schedule)
    }

    fn deliver(measure: &mut Measure, schedule: &Schedule, account: usize, after: u64) {
        let beat = schedule.frames(0);
        for group in 0..8 {
            for frame in group * 5..group * 5 + 5 {
                measure.frame(account, beat.at(frame), beat.at(frame) + after);
            }
            let last = beat.at(group * 5 + 4);
            measure.group(account, beat.at(group * 5), last, last + after);
        }
    }

    #[test]
    fn what_was_offered_within_the_span_counts() {
        let (mut measure, schedule) = measure();
        deliver(&mut measure, &schedule, 0, 0);
        let half = Balance { offered: 40, delivered: 20, lost_frames: 20, lost_groups: 4 };
        assert_eq!(measure.balance(Some(&schedule)), half);
        assert!(!measure.is_complete(Some(&schedule)));

        // So late that most arrive after the span.
        deliver(&mut measure, &schedule, 1, 5 * SECOND);
        let all = Balance { offered: 40, delivered: 40, lost_frames: 0, lost_groups: 0 };
        assert_eq!(measure.balance(Some(&schedule)), all);
        assert!(measure.is_complete(Some(&schedule)));
        assert_eq!(measure.late_groups, 4);
        assert_eq!(measure.frames.total.len(), 40);
        let seconds: Vec<_> = measure.frames.seconds.iter().map(|second| second.len()).collect();
        assert_eq!(seconds, [20, 20]);
        assert_eq!(measure.frames.total.max() / 100_000, 50);
    }

    #[test]
    fn what_happens_before_the_span_is_no_error() {
        let (mut measure, _) = measure();
        measure.error(SECOND - 1, || unreachable!("not counted"));
        measure.reset(SECOND - 1);
        measure.error(SECOND, || "a".to_owned());
        measure.error(9 * SECOND, || "a".to_owned());
        measure.reset(SECOND);
        assert_eq!((measure.errors, measure.resets), (2, 1));
        assert_eq!(measure.reasons, ["a"]);
    }

    #[test]
    fn announcements_and_fetches_are_waited_for() {
        let (mut measure, schedule) = measure();
        deliver(&mut measure, &schedule, 0, 0);
        deliver(&mut measure, &schedule, 1, 0);
        measure.announced(2 * SECOND, 2);
        measure.asked(2 * SECOND);
        measure.asked(3 * SECOND);
        measure.heard(2 * SECOND, 2 * SECOND + 5 * MICROSECOND);
        measure.fetched(2 * SECOND, 2 * SECOND + 5 * MICROSECOND);
        assert!(!measure.is_complete(Some(&schedule)));
        measure.heard(2 * SECOND, 2 * SECOND);
        assert!(measure.is_complete(Some(&schedule)));
        assert_eq!(measure.fetches_expected, 1);
        assert_eq!(measure.announcements.total.max(), 5);
    }
}
