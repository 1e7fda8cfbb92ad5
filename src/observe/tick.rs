//! A moment in four bytes, for spans that are short: what mail and connections carry along.

use std::time::Instant;

/// Microseconds since some begin, which begin anew after 71 minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick(u32);

impl Tick {
    pub fn new(begin: Instant, now: Instant) -> Tick {
        Tick(now.saturating_duration_since(begin).as_micros() as u32)
    }

    /// Microseconds from an earlier moment to this one. Clocks of two threads may be read in either order, so
    /// what seems to come later was just before.
    pub fn since(self, earlier: Tick) -> u64 {
        let span = self.0.wrapping_sub(earlier.0);
        if span > u32::MAX / 2 { 0 } else { u64::from(span) }
    }

    /// The earlier of two moments that are not far apart.
    pub fn min(self, other: Tick) -> Tick {
        if self.since(other) > 0 { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn spans_are_right_across_the_turn_of_the_count() {
        let begin = Instant::now();
        let at = |micros: u64| Tick::new(begin, begin + Duration::from_micros(micros));
        let turn = 1u64 << 32;
        for (earlier, later) in [(0, 0), (5, 17), (turn - 3, turn + 9), (turn * 3 - 1, turn * 3)] {
            let span = later - earlier;
            assert_eq!(at(later).since(at(earlier)), span);
            assert_eq!(at(later).min(at(earlier)), at(earlier));
            assert_eq!(at(earlier).min(at(later)), at(earlier));
        }
        assert_eq!(at(5).since(at(6)), 0, "a clock that is read a moment before");
    }
}
