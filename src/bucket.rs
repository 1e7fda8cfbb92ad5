//! What comes in at a rate and may be saved up to a bound.

use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub struct Bucket {
    level: f64,
    /// When that was so; none before the first look, which finds it full.
    since: Option<Instant>,
}

impl Bucket {
    /// What is in it now. Not above zero where more was taken than there was.
    pub fn fill(&mut self, per_second: f64, most: f64, now: Instant) -> f64 {
        self.level = match self.since {
            Some(since) => {
                let grown = now.saturating_duration_since(since).as_secs_f64() * per_second;
                (self.level + grown).min(most)
            }
            None => most,
        };
        self.since = Some(now);
        self.level
    }

    pub fn take(&mut self, amount: f64) {
        self.level -= amount;
    }

    /// When so much will be in it, at this rate.
    pub fn has_at(&self, amount: f64, per_second: f64, now: Instant) -> Instant {
        now + Duration::from_secs_f64((amount - self.level).max(0.0) / per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_overdrawn_is_paid_back() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.fill(10.0, 100.0, start), 100.0);
        bucket.take(130.0);
        assert_eq!(bucket.fill(10.0, 100.0, start), -30.0);
        assert_eq!(bucket.has_at(1.0, 10.0, start), start + second * 31 / 10);
        assert_eq!(bucket.fill(10.0, 100.0, start + second * 5), 20.0);
        assert_eq!(bucket.has_at(1.0, 10.0, start), start);
        assert_eq!(bucket.fill(10.0, 100.0, start + second * 3600), 100.0);
    }
}
