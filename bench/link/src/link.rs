//! A bottleneck on the way to clients: one queue, served in order, at a rate that may change. What it
//! does follows from lists of times, which a play draws from its seed: it is the same for every
//! congestion control, however much that sends.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::random::Random;

/// A queue holds so many bytes however short it is meant to be: a burst of a sender fits.
const QUEUE_BYTES_MIN: u64 = 3 * 1452;

/// What a link is like. Times count from when it is laid.
#[derive(Clone, Debug)]
pub struct Link {
    /// Bytes per second, from when on. The first is from the beginning.
    pub rate: Vec<(Duration, u64)>,
    pub queue: Queue,
    /// What finds a longer queue is marked, or lost if its sender does not heed marks.
    pub marks_above: Option<Duration>,
    /// In order, and apart from each other.
    pub spells: Vec<Spell>,
    /// What the way behind it adds to the latency, from when on.
    pub detour: Vec<(Duration, Duration)>,
    /// Jitter makes nothing overtake what left before it.
    pub in_order: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Queue {
    /// What waits for so long at the rate of that moment.
    Time(Duration),
    Bytes(u64),
}

/// A time in which a link does not do what it should.
#[derive(Clone, Copy, Debug)]
pub struct Spell {
    pub from: Duration,
    pub until: Duration,
    pub what: What,
    /// Whether the way from the clients has it too.
    pub is_both_ways: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// What leaves the queue is lost.
    Lost,
    /// Nothing leaves the queue.
    Held,
    /// What has left the queue arrives when this is over, at the earliest.
    Stalled,
}

impl Link {
    pub fn of(bytes_per_second: u64, queue: Duration) -> Link {
        Link {
            rate: vec![(Duration::ZERO, bytes_per_second)],
            queue: Queue::Time(queue),
            marks_above: None,
            spells: Vec::new(),
            detour: Vec::new(),
            in_order: false,
        }
    }

    /// Spells of which one begins `gap` after the end of the last, each as `lasts` says, up to `end`.
    pub fn with_spells(
        mut self,
        what: What,
        end: Duration,
        mut gap: impl FnMut() -> Duration,
        mut lasts: impl FnMut() -> Duration,
    ) -> Link {
        let mut from = gap();
        while from < end {
            let until = from + lasts();
            self.spells.push(Spell { from, until, what, is_both_ways: false });
            from = until + gap();
        }
        self
    }
}

/// A time that has no memory, of this length on average (Gilbert and Elliott's chain has such ones).
pub fn exponential(random: &mut Random, mean: Duration) -> Duration {
    let share = (random.below(1 << 53) + 1) as f64 / (1u64 << 53) as f64;
    mean.mul_f64(-share.ln())
}

/// When a datagram has left a link, and what became of it there.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    pub at: Instant,
    pub is_lost: bool,
    pub is_marked: bool,
}

/// A link in use.
#[derive(Debug)]
pub struct Laid {
    pub link: Link,
    since: Instant,
    /// When nothing is served from then on, for a while.
    holds: Vec<Duration>,
    /// What is in the queue: when it will have left, and its bytes.
    queue: VecDeque<(Instant, u64)>,
    queued_bytes: u64,
    last_arrival: Instant,
}

impl Laid {
    pub fn new(link: Link, now: Instant) -> Laid {
        let holds = link.spells.iter().filter(|spell| spell.what == What::Held);
        let holds = holds.map(|spell| spell.from).collect();
        let queue = VecDeque::new();
        Laid { link, since: now, holds, queue, queued_bytes: 0, last_arrival: now }
    }

    /// A datagram comes to the queue; none if there is no room for it.
    pub fn pass(&mut self, now: Instant, bytes: usize) -> Option<Left> {
        let bytes = bytes as u64;
        while let Some((_, gone)) = self.queue.pop_front_if(|(leaves, _)| *leaves <= now) {
            self.queued_bytes -= gone;
        }
        let room = match self.link.queue {
            Queue::Bytes(bytes) => bytes,
            Queue::Time(time) => (time.as_secs_f64() * self.rate_at(now) as f64) as u64,
        };
        if self.queued_bytes > room.max(QUEUE_BYTES_MIN) {
            return None;
        }
        let begins = self.queue.back().map_or(now, |(leaves, _)| *leaves);
        let leaves = self.served(begins, bytes);
        self.queue.push_back((leaves, bytes));
        self.queued_bytes += bytes;
        let is_lost = self.spell_at(leaves).is_some_and(|spell| spell.what == What::Lost);
        let is_marked = self.link.marks_above.is_some_and(|most| begins - now > most);
        Some(Left { at: leaves, is_lost, is_marked })
    }

    /// When everything has left that is in the queue.
    pub fn empty_at(&self, now: Instant) -> Instant {
        self.queue.back().map_or(now, |(leaves, _)| *leaves)
    }

    /// When what left at a time arrives, if nothing else delays it.
    pub fn arrives(&mut self, left: Instant, latency: Duration, jitter: Duration) -> Instant {
        let mut left = left;
        if let Some(spell) = self.spell_at(left)
            && spell.what == What::Stalled
        {
            left = self.since + spell.until;
        }
        let detour = step(&self.link.detour, left - self.since).unwrap_or_default();
        let mut at = left + latency + detour + jitter;
        if self.link.in_order {
            at = at.max(self.last_arrival);
            self.last_arrival = at;
        }
        at
    }

    /// When a datagram leaves that clients send now; none if it is lost.
    pub fn back(&self, now: Instant) -> Option<Instant> {
        match self.spell_at(now).filter(|spell| spell.is_both_ways) {
            Some(Spell { what: What::Lost, .. }) => None,
            Some(spell) => Some(self.since + spell.until),
            None => Some(now),
        }
    }

    fn spell_at(&self, at: Instant) -> Option<Spell> {
        let at = at - self.since;
        let next = self.link.spells.partition_point(|spell| spell.from <= at);
        let spell = self.link.spells[..next].last()?;
        (at < spell.until).then_some(*spell)
    }

    fn rate_at(&self, at: Instant) -> u64 {
        step(&self.link.rate, at - self.since).expect("it has one from the beginning")
    }

    /// When so many bytes are served that are begun at a time.
    fn served(&self, begins: Instant, bytes: u64) -> Instant {
        let mut at = begins;
        let mut left = bytes as f64;
        loop {
            if let Some(spell) = self.spell_at(at)
                && spell.what == What::Held
            {
                at = self.since + spell.until;
                continue;
            }
            let rate = self.rate_at(at) as f64;
            let ends = at + Duration::from_secs_f64(left / rate);
            match self.next_change(at) {
                Some(change) if change < ends => {
                    left -= rate * (change - at).as_secs_f64();
                    at = change;
                }
                _ => return ends,
            }
        }
    }

    /// When the rate changes next, or nothing is served.
    fn next_change(&self, at: Instant) -> Option<Instant> {
        let after = at - self.since;
        let rates = &self.link.rate;
        let rate = rates.get(rates.partition_point(|(from, _)| *from <= after)).map(|(at, _)| *at);
        let hold = self.holds.get(self.holds.partition_point(|from| *from <= after)).copied();
        let change = [rate, hold].into_iter().flatten().min();
        change.map(|change| self.since + change)
    }
}

/// The value that holds at a time.
fn step<T: Copy>(steps: &[(Duration, T)], at: Duration) -> Option<T> {
    let next = steps.partition_point(|(from, _)| *from <= at);
    steps[..next].last().map(|(_, value)| *value)
}
