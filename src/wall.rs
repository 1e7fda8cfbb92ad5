//! The time of day beside the clock that only goes forward: tokens expire by the one, timers fire by the
//! other.

use std::time::{Duration, Instant};

/// Further ahead than this nothing is waited for.
const AHEAD_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// What the time of day was at an instant, since the epoch of unix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wall {
    at: Instant,
    unix: Duration,
}

impl Wall {
    pub fn new(at: Instant, unix: Duration) -> Wall {
        Wall { at, unix }
    }

    /// The time of day, if nobody has set the clock since.
    pub fn unix(&self, now: Instant) -> Duration {
        self.unix + now.saturating_duration_since(self.at)
    }

    /// The same in whole seconds, as tokens have it.
    pub fn second(&self, now: Instant) -> i64 {
        self.unix(now).as_secs() as i64
    }

    /// When a second begins: now for one that has begun, never for one that nobody lives to see.
    pub fn begins(&self, second: i64, now: Instant) -> Option<Instant> {
        let begin = Duration::from_secs(u64::try_from(second).unwrap_or(0));
        let ahead = begin.saturating_sub(self.unix(now));
        (ahead <= AHEAD_MAX).then(|| now + ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_begin_when_they_do() {
        let now = Instant::now();
        let wall = Wall::new(now, Duration::from_millis(1_000_250));
        assert_eq!(wall.second(now), 1000);
        let begins = wall.begins(1003, now).unwrap();
        assert_eq!(begins, now + Duration::from_millis(2750));
        assert_eq!(wall.second(begins - Duration::from_nanos(1)), 1002);
        assert_eq!(wall.second(begins), 1003);
        // However late one asks.
        let later = now + Duration::from_millis(1700);
        assert_eq!(wall.begins(1003, later), Some(begins));
        for past in [1000, 0, -1, i64::MIN] {
            assert_eq!(wall.begins(past, now), Some(now), "{past}");
        }
        assert!(wall.begins(3_000_000_000, now).is_some());
        assert_eq!(wall.begins(i64::MAX, now), None);
    }
}
