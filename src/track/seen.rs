//! Which groups of a feed have come: few numbers, however many groups.

/// Which groups have come, as ranges in order.
#[derive(Debug, Default)]
pub struct Seen {
    ranges: Vec<std::ops::Range<u64>>,
}

/// Ranges that are remembered. Publishers rarely leave gaps; past this many the oldest gap closes.
const SEEN_RANGES_MAX: usize = 64;

impl Seen {
    /// False if it had come before.
    pub fn insert(&mut self, sequence: u64) -> bool {
        if self.has_all(sequence, sequence + 1) {
            return false;
        }
        self.insert_all(sequence..sequence + 1);
        true
    }

    /// All of these count as come.
    pub fn insert_all(&mut self, mut sequences: std::ops::Range<u64>) {
        if sequences.is_empty() {
            return;
        }
        // Those that it overlaps or touches become one with it.
        let first = self.ranges.partition_point(|range| range.end < sequences.start);
        let after = self.ranges.partition_point(|range| range.start <= sequences.end);
        if first < after {
            sequences.start = sequences.start.min(self.ranges[first].start);
            sequences.end = sequences.end.max(self.ranges[after - 1].end);
        }
        self.ranges.splice(first..after, [sequences]);
        if self.ranges.len() > SEEN_RANGES_MAX {
            let oldest = self.ranges.remove(0);
            self.ranges[0].start = oldest.start;
        }
    }

    /// One past the highest.
    pub fn end(&self) -> u64 {
        self.ranges.last().map_or(0, |range| range.end)
    }

    pub fn has_all(&self, start: u64, end: u64) -> bool {
        start >= end || self.ranges.iter().any(|range| range.start <= start && end <= range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::Seen;

    #[track_caller]
    fn check(sequences: &[u64], again: &[u64], start: u64, end: u64, has_all: bool) {
        let mut seen = Seen::default();
        for sequence in sequences {
            assert_eq!(seen.insert(*sequence), !again.contains(sequence), "{sequence}");
        }
        assert_eq!(seen.has_all(start, end), has_all);
    }

    #[test]
    fn what_has_come() {
        check(&[], &[], 0, 0, true);
        check(&[], &[], 3, 4, false);
        check(&[5, 6, 7], &[], 5, 8, true);
        check(&[7, 5, 6], &[], 5, 8, true);
        check(&[5, 7], &[], 5, 8, false);
        check(&[5, 7], &[], 7, 8, true);
        let mut seen = Seen::default();
        assert!(seen.insert(9) && !seen.insert(9));
        assert_eq!(seen.end(), 10);
    }

    #[test]
    fn gaps_are_bounded_and_the_newest_stay_exact() {
        for count in [500, 501, 502] {
            let mut seen = Seen::default();
            for sequence in (0..count).map(|n| n * 2) {
                assert!(seen.insert(sequence));
            }
            assert!(seen.ranges.len() <= super::SEEN_RANGES_MAX);
            assert!(seen.ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            assert!(seen.insert(2 * count - 3), "a recent gap is still open");
            assert!(!seen.insert(1), "an old one has closed");
        }
    }
}
