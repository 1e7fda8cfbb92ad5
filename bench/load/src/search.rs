//! How many viewers are too many: doubles until a probe fails, then halves the gap. Knows no relay.

/// The gap between what held and what did not is small enough at this share of the former.
const GAP_PERCENT: u32 = 5;

/// A search in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    /// The most that held, 0 for none.
    good: u32,
    /// The fewest that did not.
    bad: Option<u32>,
    next: u32,
    most: u32,
}

impl Search {
    /// Begins with `first` and never asks for more than `most`.
    pub fn new(first: u32, most: u32) -> Search {
        Search { good: 0, bad: None, next: first.clamp(1, most), most }
    }

    /// What to try next; `None` when the answer is known.
    pub fn next(&self) -> Option<u32> {
        let is_settled = match self.bad {
            None => self.good >= self.most,
            Some(bad) => bad - self.good <= (self.good * GAP_PERCENT / 100).max(1),
        };
        (!is_settled).then_some(self.next)
    }

    /// What came of it.
    pub fn tried(&mut self, held: bool) {
        match held {
            true => self.good = self.next,
            false => self.bad = Some(self.next),
        }
        self.next = match self.bad {
            None => self.good.saturating_mul(2).min(self.most),
            // Also where nothing has held so far: downwards by halves.
            Some(bad) => self.good + (bad - self.good) / 2,
        }
    }

    /// The most that held.
    pub fn answer(&self) -> u32 {
        self.good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches where `limit` is the most that holds; what was tried, and the answer.
    fn search(first: u32, limit: u32, most: u32) -> (Vec<u32>, u32) {
        let mut search = Search::new(first, most);
        let mut tried = Vec::new();
        while let Some(viewers) = search.next() {
            assert!(tried.len() < 64, "no end: {tried:?}");
            tried.push(viewers);
            search.tried(viewers <= limit);
        }
        (tried, search.answer())
    }

    #[test]
    fn doubles_and_then_bisects() {
        let tried = vec![100, 200, 400, 800, 600, 700, 650, 675];
        assert_eq!(search(100, 660, 10_000), (tried, 650));
    }

    #[test]
    fn the_answer_is_within_the_gap() {
        for limit in [1, 2, 3, 17, 99, 100, 101, 1234, 54_321] {
            let (tried, answer) = search(100, limit, 1_000_000);
            assert!(answer <= limit && limit - answer <= limit / 20 + 1, "{limit}: {tried:?}");
        }
    }

    #[test]
    fn a_relay_that_holds_nobody_is_found_out() {
        assert_eq!(search(8, 0, 100), (vec![8, 4, 2, 1], 0));
    }

    #[test]
    fn there_is_a_most() {
        assert_eq!(search(30, 1000, 100), (vec![30, 60, 100], 100));
    }
}
