//! Which groups of a feed have come, or which of a track a viewer was served: few numbers, however
//! many groups.

use std::ops::Range;

/// Which groups have come, as ranges in order.
#[derive(Debug, Default)]
pub struct Seen {
    older: Vec<Range<u64>>,
    /// Empty where none has come.
    newest: Range<u64>,
}

/// Ranges that are remembered. Publishers rarely leave gaps; past this many the oldest gap closes.
const SEEN_RANGES_MAX: usize = 64;

impl Seen {
    /// False if it had come before.
    #[inline]
    pub fn insert(&mut self, sequence: u64) -> bool {
        let is_next = self.extend(sequence);
        is_next || self.insert_late(sequence)
    }

    /// The same where it follows the newest, as nearly always, or is the first; else it does nothing.
    #[inline]
    pub fn extend(&mut self, sequence: u64) -> bool {
        if self.newest.end == sequence {
            self.newest.end += 1;
            return true;
        }
        let is_first = self.newest.is_empty();
        if is_first {
            self.newest = sequence..sequence + 1;
        }
        is_first
    }

    fn insert_late(&mut self, sequence: u64) -> bool {
        let is_missing = self.first_missing(sequence) == sequence;
        if is_missing {
            self.insert_all(sequence..sequence + 1);
        }
        is_missing
    }

    /// All of these count as come.
    pub fn insert_all(&mut self, mut sequences: Range<u64>) {
        if sequences.is_empty() {
            return;
        }
        self.change(|ranges| {
            // Those that it overlaps or touches become one with it.
            let first = ranges.partition_point(|range| range.end < sequences.start);
            let after = ranges.partition_point(|range| range.start <= sequences.end);
            if first < after {
                sequences.start = sequences.start.min(ranges[first].start);
                sequences.end = sequences.end.max(ranges[after - 1].end);
            }
            ranges.splice(first..after, [sequences]);
        });
    }

    /// It counts as not come.
    pub fn remove(&mut self, sequence: u64) {
        if self.first_missing(sequence) == sequence {
            return;
        }
        self.change(|ranges| {
            let at = ranges.partition_point(|range| range.end <= sequence);
            let Range { start, end } = ranges[at];
            let left = [start..sequence, sequence + 1..end];
            ranges.splice(at..=at, left.into_iter().filter(|range| !range.is_empty()));
        });
    }

    /// One past the highest.
    pub fn end(&self) -> u64 {
        self.newest.end
    }

    pub fn has_all(&self, start: u64, end: u64) -> bool {
        start >= end || self.first_missing(start) >= end
    }

    /// The lowest from this one on that has not come.
    pub fn first_missing(&self, from: u64) -> u64 {
        if self.newest.start <= from {
            return from.max(self.newest.end);
        }
        let at = self.older.partition_point(|range| range.end <= from);
        match self.older.get(at) {
            Some(range) if range.start <= from => range.end,
            _ => from,
        }
    }

    /// Whether one more gap may close the oldest.
    pub fn is_full(&self) -> bool {
        self.older.len() + 1 >= SEEN_RANGES_MAX
    }

    /// Closes the gaps that are of no interest, and the oldest of the others until half as many as may
    /// be are left.
    pub fn thin_out(&mut self, is_idle: impl Fn(Range<u64>) -> bool) {
        self.change(|ranges| {
            ranges.dedup_by(|range, before| {
                let is_idle = is_idle(before.end..range.start);
                if is_idle {
                    before.end = range.end;
                }
                is_idle
            });
            keep(ranges, SEEN_RANGES_MAX / 2);
        });
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<Range<u64>>)) {
        if !self.newest.is_empty() {
            self.older.push(self.newest.clone());
        }
        change(&mut self.older);
        keep(&mut self.older, SEEN_RANGES_MAX);
        self.newest = self.older.pop().unwrap_or_default();
    }
}

/// Closes the oldest gaps until there are no more ranges than these.
fn keep(ranges: &mut Vec<Range<u64>>, most: usize) {
    let surplus = ranges.len().saturating_sub(most);
    if surplus > 0 {
        ranges[surplus].start = ranges[0].start;
        ranges.drain(..surplus);
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
            let ranges: Vec<_> = seen.older.iter().chain([&seen.newest]).collect();
            assert!(ranges.len() <= super::SEEN_RANGES_MAX);
            assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            assert!(seen.insert(2 * count - 3), "a recent gap is still open");
            assert!(!seen.insert(1), "an old one has closed");
        }
    }

    #[test]
    fn what_is_taken_back_is_missing() {
        for taken in 0..12 {
            let mut seen = Seen::default();
            seen.insert_all(2..5);
            seen.insert_all(7..9);
            seen.remove(taken);
            let missing = |sequence| !(2..5).contains(&sequence) && !(7..9).contains(&sequence);
            for sequence in 0..12 {
                let is_missing = missing(sequence) || sequence == taken;
                assert_eq!(seen.first_missing(sequence) == sequence, is_missing, "{sequence}");
            }
            assert!(seen.insert(taken));
        }
    }

    #[test]
    fn gaps_of_no_interest_close_first() {
        let mut seen = Seen::default();
        (0..60).for_each(|n| seen.insert_all(n * 10..n * 10 + 5));
        assert!(!seen.is_full());
        seen.thin_out(|gap| gap.start != 15 && gap.start != 585);
        let missing: Vec<u64> = (0..600).filter(|n| seen.first_missing(*n) == *n).collect();
        assert_eq!(missing, [15, 16, 17, 18, 19, 585, 586, 587, 588, 589, 595, 596, 597, 598, 599]);
        (0..200).for_each(|n| seen.insert_all(1000 + n * 10..1000 + n * 10 + 5));
        assert!(seen.is_full());
        seen.thin_out(|_| false);
        let gaps = (0..3000).filter(|n| seen.first_missing(*n) == *n && *n % 10 == 5).count();
        assert!(gaps >= super::SEEN_RANGES_MAX / 2 && !seen.is_full(), "{gaps}");
    }
}
