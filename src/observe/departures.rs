//! When content came that leaves, for all who are sent it together.

use super::{Histogram, Tick};

/// When content came that connections have sent in this turn, and to how many.
#[derive(Debug, Default)]
pub struct Departures {
    list: Vec<(Tick, u64)>,
}

impl Departures {
    pub fn note(&mut self, came: Tick) {
        // All viewers of a frame are served what came at one time.
        match self.list.last_mut() {
            Some((last, viewers)) if *last == came => *viewers += 1,
            _ => self.list.push((came, 1)),
        }
    }

    /// All of them have left now.
    pub fn left(&mut self, now: Tick, added: &mut Histogram) {
        for (came, viewers) in self.list.drain(..) {
            added.record_times(now.since(came), viewers);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_leaves_together_is_counted_by_when_it_came() {
        let begin = Instant::now();
        let at = |micros| Tick::new(begin, begin + Duration::from_micros(micros));
        let (mut departures, mut added) = (Departures::default(), Histogram::default());
        for came in [100, 100, 400, 100] {
            departures.note(at(came));
        }
        departures.left(at(1000), &mut added);
        assert_eq!((added.count(), added.sum()), (4, 3 * 900 + 600));
        departures.left(at(2000), &mut added);
        assert_eq!(added.count(), 4, "each leaves once");
    }
}
