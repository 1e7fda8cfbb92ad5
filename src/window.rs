//! How much a peer may have under way towards us, by what it has brought: numbers and time. The window
//! begins small and doubles before it is in the way.

use std::time::{Duration, Instant};

use crate::limits::{
    RECEIVE_WINDOW_BYTES, RECEIVE_WINDOW_PUBLISHER, RECEIVE_WINDOW_START, WINDOW_SPAN_MAX,
    WINDOW_SPAN_MIN,
};

/// The window is to be this many times what comes in one round trip: what was lost is sent again in the
/// next one, what it holds up waits behind it, and a sender that finds its rate doubles it.
const ROUND_TRIPS: u64 = 4;

#[derive(Debug)]
pub struct Window {
    size: u64,
    /// What was read since then.
    read: u64,
    since: Instant,
    /// The peer was asked for groups. Nobody else has reason to send much.
    publishes: bool,
}

impl Window {
    pub fn new(now: Instant) -> Window {
        Window { size: RECEIVE_WINDOW_START.into(), read: 0, since: now, publishes: false }
    }

    /// Whether the peer was asked for groups.
    pub fn publishes(&self) -> bool {
        self.publishes
    }

    pub fn expect_groups(&mut self) {
        self.publishes = true;
    }

    pub fn note_read(&mut self, bytes: u64) {
        self.read += bytes;
    }

    /// How much larger it should be.
    pub fn wanted(&mut self, now: Instant, rtt: Duration) -> Option<u64> {
        if !self.publishes || self.size >= RECEIVE_WINDOW_BYTES.into() {
            return None;
        }
        if self.size < RECEIVE_WINDOW_PUBLISHER.into() {
            return Some(u64::from(RECEIVE_WINDOW_PUBLISHER) - self.size);
        }
        if self.read < self.size / ROUND_TRIPS {
            return None;
        }
        let took = now - self.since;
        (self.read, self.since) = (0, now);
        (took <= rtt.clamp(WINDOW_SPAN_MIN, WINDOW_SPAN_MAX)).then_some(self.size)
    }

    /// The new size.
    pub fn grow(&mut self, bytes: u64) -> u64 {
        self.size += bytes;
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    /// What the window is after so many bytes a second for some seconds, read every millisecond.
    fn after(window: &mut Window, now: &mut Instant, rate: u64, seconds: u64) -> u64 {
        for _ in 0..seconds * 1000 {
            *now += Duration::from_millis(1);
            window.note_read(rate / 1000);
            if let Some(bytes) = window.wanted(*now, RTT) {
                window.grow(bytes);
            }
        }
        window.size
    }

    #[test]
    fn the_window_follows_what_a_publisher_brings() {
        let mut now = Instant::now();
        let mut window = Window::new(now);
        // Who was asked for nothing gets nothing for what it sends.
        assert_eq!(after(&mut window, &mut now, 10_000_000, 3), u64::from(RECEIVE_WINDOW_START));
        window.expect_groups();
        assert_eq!(after(&mut window, &mut now, 100_000, 3), u64::from(RECEIVE_WINDOW_PUBLISHER));
        // 50 Mb/s: 625 kB in a round trip.
        assert_eq!(after(&mut window, &mut now, 6_250_000, 3), 4 << 20);
        assert_eq!(after(&mut window, &mut now, 1_000_000, 3), 4 << 20);
        let most = u64::from(RECEIVE_WINDOW_BYTES);
        assert_eq!(after(&mut window, &mut now, 1_000_000_000, 3), most);
    }

    #[test]
    fn a_round_trip_of_the_peers_making_counts_within_bounds() {
        let mut now = Instant::now();
        let mut window = Window::new(now);
        window.expect_groups();
        window.grow((RECEIVE_WINDOW_PUBLISHER - RECEIVE_WINDOW_START).into());
        let quarter = window.size / ROUND_TRIPS;
        let mut wanted = |after: Duration, rtt: Duration| {
            now += after;
            window.note_read(quarter);
            window.wanted(now, rtt).is_some()
        };
        assert!(!wanted(WINDOW_SPAN_MAX * 2, WINDOW_SPAN_MAX * 3));
        assert!(wanted(WINDOW_SPAN_MAX, WINDOW_SPAN_MAX * 3));
        assert!(wanted(WINDOW_SPAN_MIN, Duration::ZERO));
        assert!(!wanted(WINDOW_SPAN_MIN * 2, WINDOW_SPAN_MIN));
    }
}
