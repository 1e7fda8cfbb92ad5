//! How often a value was about so large. Buckets grow with what they count: two for each power of two, so
//! that what is read off is wrong by a fifth at most, whether it is microseconds or seconds.

use std::time::Duration;

/// What is below this is one bucket: in microseconds less than a system call takes.
const FLOOR_BITS: u32 = 3;

/// Powers of two above it. In microseconds the last bucket with an end ends at 16.8 seconds, longer than any
/// connection that hears nothing lives; in millionths all of one is within.
const OCTAVES: usize = 21;

/// One for what is below, one for what is above.
const BUCKETS: usize = 2 * OCTAVES + 2;

/// Plain cells. Values are whole numbers: microseconds, or millionths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: [0; BUCKETS], sum: 0 }
    }
}

impl Histogram {
    /// What values are counted in: so many make one second, or one.
    pub const UNIT: f64 = 1e6;

    pub fn record(&mut self, value: u64) {
        self.record_times(value, 1);
    }

    /// The same value several times.
    pub fn record_times(&mut self, value: u64, times: u64) {
        self.counts[bucket(value)] += times;
        self.sum += value * times;
    }

    pub fn record_span(&mut self, span: Duration) {
        self.record(span.as_micros() as u64);
    }

    pub fn add(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// For each bucket its end, which none of its values reaches, and how many values are below that. The last
    /// one has no end.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let mut below = 0;
        self.counts.iter().enumerate().map(move |(bucket, count)| {
            below += count;
            ((bucket + 1 < BUCKETS).then(|| end(bucket)), below)
        })
    }
}

fn bucket(value: u64) -> usize {
    if value < 1 << FLOOR_BITS {
        return 0;
    }
    let bits = value.ilog2();
    let is_upper_half = (value >> (bits - 1) & 1) as usize;
    (1 + 2 * (bits - FLOOR_BITS) as usize + is_upper_half).min(BUCKETS - 1)
}

fn end(bucket: usize) -> u64 {
    let Some(above) = bucket.checked_sub(1) else { return 1 << FLOOR_BITS };
    let (octave, half) = (above / 2, above as u64 % 2);
    (3 + half) << (octave as u32 + FLOOR_BITS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_whose_bounds_hold_it() {
        let mut values: Vec<u64> = (0..4096).collect();
        values.extend((0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]));
        values.push(u64::MAX);
        for value in values {
            let bucket = bucket(value);
            let begin = if bucket == 0 { 0 } else { end(bucket - 1) };
            assert!(begin <= value, "{value} is below bucket {bucket}");
            assert!(bucket + 1 == BUCKETS || value < end(bucket), "{value} is above {bucket}");
        }
    }

    #[test]
    fn buckets_grow_by_half_at_most() {
        assert_eq!((0..6).map(end).collect::<Vec<_>>(), [8, 12, 16, 24, 32, 48]);
        for bucket in 1..BUCKETS - 1 {
            let growth = end(bucket) as f64 / end(bucket - 1) as f64;
            assert!((1.3..=1.5).contains(&growth), "{growth} at {bucket}");
        }
        assert_eq!(end(BUCKETS - 2), 1 << 24);
    }

    #[test]
    fn what_is_recorded_is_found_again() {
        let mut one = Histogram::default();
        let mut other = Histogram::default();
        one.record(0);
        one.record_times(10, 3);
        other.record_span(Duration::from_millis(2));
        other.record(u64::from(u32::MAX));
        one.add(&other);
        assert_eq!((one.count(), one.sum()), (6, 30 + 2000 + u64::from(u32::MAX)));
        let below = |limit: u64| {
            let mut buckets = one.cumulative();
            buckets.find(|(end, _)| *end == Some(limit)).expect("a bucket ends there").1
        };
        assert_eq!([below(8), below(12), below(1536), below(2048)], [1, 4, 4, 5]);
        assert_eq!(one.cumulative().last(), Some((None, 6)));
    }
}
