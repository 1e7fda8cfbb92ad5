//! One direction of a link: when a datagram arrives that enters it now, or what becomes of it.

use std::time::{Duration, Instant};

use crate::link::{Laid, Link, Spell, What, exponential};
use crate::random::Random;

/// What fits an Ethernet's frame; anything larger is lost, as on a real path.
const DATAGRAM_BYTES_MAX: usize = 1472;

/// Times of silence are drawn before a link is laid; so many have room.
pub const SPELLS_MAX: f64 = 1e6;

/// What both directions are like.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Bits per second.
    pub rate: u64,
    /// One way.
    pub delay: Duration,
    /// Share of what is lost by chance, from 0 to 1.
    pub loss: f64,
    /// How long everything is lost when anything is, on average; each datagram has its own luck if this
    /// is no time.
    pub burst: Duration,
    /// Every datagram is late by a random part of this.
    pub jitter: Duration,
    /// Jitter makes nothing overtake what left before it.
    pub in_order: bool,
    /// What waits longer for the link is lost.
    pub queue: Duration,
    pub outage: Option<Outage>,
    /// For how long it stands.
    pub lasts: Duration,
    pub seed: u64,
}

/// Silence both ways, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    pub every: Duration,
    pub lasts: Duration,
}

impl Options {
    /// A link on which nothing goes wrong.
    pub fn clean(bits_per_second: u64, delay: Duration) -> Options {
        Options {
            rate: bits_per_second,
            delay,
            loss: 0.0,
            burst: Duration::ZERO,
            jitter: Duration::ZERO,
            in_order: false,
            queue: Duration::from_millis(100),
            outage: None,
            lasts: Duration::from_secs(3600),
            seed: 1,
        }
    }

    /// How many times of silence there will be, about.
    pub fn spells(&self) -> f64 {
        let lasts = self.lasts.as_secs_f64();
        let bursts = match self.burst.is_zero() {
            true => 0.0,
            false => lasts * self.loss / self.burst.as_secs_f64(),
        };
        bursts + self.outage.map_or(0.0, |outage| lasts / outage.every.as_secs_f64())
    }

    /// The way to the relay and the way from it, each with its own luck.
    pub fn lay(&self, now: Instant) -> [Path; 2] {
        let mut seeds = Random::new(self.seed);
        [0, 1].map(|_| self.way(&mut Random::new(seeds.next()), now))
    }

    fn way(&self, random: &mut Random, now: Instant) -> Path {
        let mut link = Link::of((self.rate / 8).max(1), self.queue);
        link.in_order = self.in_order;
        let is_bursty = !self.burst.is_zero() && self.loss > 0.0;
        if is_bursty {
            let (mut gaps, mut times) = (Random::new(random.next()), Random::new(random.next()));
            let gap = self.burst.mul_f64((1.0 - self.loss) / self.loss);
            let (gap, time) =
                (|| exponential(&mut gaps, gap), || exponential(&mut times, self.burst));
            link = link.with_spells(What::Lost, self.lasts, gap, time);
        }
        if let Some(Outage { every, lasts }) = self.outage {
            let count = self.lasts.as_nanos() / every.as_nanos();
            let out = |n: u32| Spell {
                from: every * n,
                until: every * n + lasts,
                what: What::Lost,
                is_both_ways: true,
            };
            link.spells.extend((1..=count as u32).map(out));
            link.spells = apart(link.spells);
        }
        let lost_per_million = if is_bursty { 0 } else { (self.loss * 1e6).round() as u64 };
        Path {
            laid: Laid::new(link, now),
            delay: self.delay,
            jitter: self.jitter,
            lost_per_million,
            random: random.clone(),
        }
    }
}

/// Spells of loss in order, where some may have overlapped.
fn apart(mut spells: Vec<Spell>) -> Vec<Spell> {
    spells.sort_by_key(|spell| spell.from);
    spells.dedup_by(|next, last| {
        let overlaps = next.from <= last.until;
        if overlaps {
            last.until = last.until.max(next.until);
        }
        overlaps
    });
    spells
}

/// Why a datagram does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// By chance, or in a time of silence.
    Link,
    Queue,
    TooLarge,
}

/// One direction.
#[derive(Debug)]
pub struct Path {
    laid: Laid,
    delay: Duration,
    jitter: Duration,
    lost_per_million: u64,
    random: Random,
}

impl Path {
    /// When a datagram arrives that enters now.
    pub fn enter(&mut self, now: Instant, bytes: usize) -> Result<Instant, Lost> {
        if bytes > DATAGRAM_BYTES_MAX {
            return Err(Lost::TooLarge);
        }
        let left = self.laid.pass(now, bytes).ok_or(Lost::Queue)?;
        let has_bad_luck = self.random.below(1_000_000) < self.lost_per_million;
        if left.is_lost || has_bad_luck {
            return Err(Lost::Link);
        }
        let jitter = self.random.below((self.jitter.as_nanos() as u64).max(1));
        Ok(self.laid.arrives(left.at, self.delay, Duration::from_nanos(jitter)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// What becomes of datagrams of 1000 bytes, one each millisecond, on the way from the relay.
    fn played(options: &Options, count: u64) -> Vec<Result<Duration, Lost>> {
        let start = Instant::now();
        let [_, mut path] = options.lay(start);
        let one = |n: u64| {
            let now = start + ms(n);
            path.enter(now, 1000).map(|arrives| arrives - now)
        };
        (0..count).map(one).collect()
    }

    fn lost(fates: &[Result<Duration, Lost>]) -> usize {
        fates.iter().filter(|fate| **fate == Err(Lost::Link)).count()
    }

    #[test]
    fn a_clean_link_delays_and_nothing_else() {
        // A millisecond for each datagram, and twenty on the way.
        let fates = played(&Options::clean(8_000_000, ms(20)), 100);
        assert!(fates.iter().all(|fate| *fate == Ok(ms(21))), "{fates:?}");
    }

    #[test]
    fn what_waits_too_long_is_lost() {
        let narrow = Options { queue: ms(50), ..Options::clean(4_000_000, ms(20)) };
        let fates = played(&narrow, 1000);
        let full = fates.iter().filter(|fate| **fate == Err(Lost::Queue)).count();
        assert!((450..500).contains(&full), "{full}");
        let latest = fates.iter().filter_map(|fate| fate.ok()).max();
        assert!(latest.is_some_and(|latest| latest <= ms(20 + 50 + 4)), "{latest:?}");
    }

    #[test]
    fn the_same_share_is_lost_one_by_one_and_in_bursts() {
        let single = Options { loss: 0.02, ..Options::clean(20_000_000, ms(20)) };
        let bursts = Options { burst: ms(10), ..single.clone() };
        let runs = |fates: &[Result<Duration, Lost>]| {
            fates.windows(2).filter(|two| two[0].is_ok() && two[1].is_err()).count()
        };
        let [single, bursts] = [single, bursts].map(|options| {
            let fates = played(&options, 100_000);
            assert!((1500..2500).contains(&lost(&fates)), "{}", lost(&fates));
            lost(&fates) as f64 / runs(&fates) as f64
        });
        assert!(single < 1.1, "{single} in a row");
        assert!((8.0..14.0).contains(&bursts), "{bursts} in a row");
    }

    #[test]
    fn an_outage_is_silence_both_ways_and_bursts_do_not_hide_it() {
        let outage = Some(Outage { every: ms(1000), lasts: ms(100) });
        let calm = Options { outage, ..Options::clean(20_000_000, ms(20)) };
        let rough = Options { loss: 0.05, burst: ms(10), ..calm.clone() };
        let start = Instant::now();
        for options in [&calm, &rough] {
            for mut path in options.lay(start) {
                for n in [1000, 1050, 1099, 3050] {
                    assert_eq!(path.enter(start + ms(n), 1000), Err(Lost::Link), "{n}");
                }
            }
        }
        assert_eq!(lost(&played(&calm, 4000)), 300);
        assert!(lost(&played(&rough, 4000)) > 350);
    }

    #[test]
    fn a_seed_is_one_play_and_each_way_has_its_own() {
        let rough = Options { loss: 0.1, jitter: ms(10), ..Options::clean(20_000_000, ms(20)) };
        assert_eq!(played(&rough, 1000), played(&rough, 1000));
        assert_ne!(played(&rough, 1000), played(&Options { seed: 2, ..rough.clone() }, 1000));
        let start = Instant::now();
        let [mut there, mut back] = rough.lay(start);
        let fates = |path: &mut Path| (0..100).map(|_| path.enter(start, 10)).collect::<Vec<_>>();
        assert_ne!(fates(&mut there), fates(&mut back));
    }

    #[test]
    fn jitter_overtakes_unless_it_must_not() {
        let rough = Options { jitter: ms(10), ..Options::clean(20_000_000, ms(20)) };
        let arrivals = |options: &Options| {
            let fates = played(options, 1000);
            let at = |(n, fate): (usize, &Result<Duration, Lost>)| ms(n as u64) + fate.unwrap();
            fates.iter().enumerate().map(at).collect::<Vec<_>>()
        };
        assert!(!arrivals(&rough).is_sorted());
        assert!(arrivals(&Options { in_order: true, ..rough }).is_sorted());
    }

    #[test]
    fn what_fits_no_frame_is_lost() {
        let [mut path, _] = Options::clean(20_000_000, ms(20)).lay(Instant::now());
        assert_eq!(path.enter(Instant::now(), 1473), Err(Lost::TooLarge));
    }
}
