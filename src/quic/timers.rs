//! When each connection is to be looked at: a timing wheel with two levels.
//!
//! Deadlines of a connection move with every packet, nearly always to later and nearly always
//! before they are due. So the truth is a dense array, an entry in the wheel only says when to look
//! at that, and a connection whose time has not come is never touched.

use std::time::{Duration, Instant};

use crate::limits::TIMER_TICK;

/// Buckets of one level.
const BUCKETS: usize = 256;

/// The longest way ahead, in buckets: one more would be the bucket that is passed now.
const AHEAD_MAX: u64 = BUCKETS as u64 - 1;

/// Ticks of the near level that one bucket of the far level holds.
const FAR_TICKS: u64 = 64;

const NEVER: u64 = u64::MAX;

const TICK_NANOS: u64 = TIMER_TICK.as_nanos() as u64;

pub struct Timers {
    /// Tick 0.
    start: Instant,
    /// The last tick that has passed.
    now: u64,
    /// By slot.
    entries: Vec<Entry>,
    near: Level,
    far: Level,
    /// Empty; keeps its memory.
    taken: Vec<u32>,
}

/// Ticks, but `far`, which counts in buckets of the far level.
#[derive(Clone, Copy)]
struct Entry {
    due: u64,
    /// The earliest bucket of each level that has this slot.
    near: u64,
    far: u64,
}

const NO_ENTRY: Entry = Entry { due: NEVER, near: NEVER, far: NEVER };

impl Timers {
    pub fn new(start: Instant) -> Timers {
        let (near, far) = (Level::new(), Level::new());
        Timers { start, now: 0, entries: Vec::new(), near, far, taken: Vec::new() }
    }

    /// Sets when a slot is due, whatever was said of it before.
    pub fn set(&mut self, slot: usize, at: Option<Instant>) {
        if self.entries.len() <= slot {
            self.entries.resize(slot + 1, NO_ENTRY);
        }
        self.entries[slot].due = at.map_or(NEVER, |at| self.tick_after(at).max(self.now + 1));
        self.place(slot);
    }

    /// The next time at which [`Timers::take_due`] has something to do.
    pub fn next(&self) -> Option<Instant> {
        let ticks = self.next_tick()?;
        Some(self.start + Duration::from_nanos(ticks * TICK_NANOS))
    }

    /// Takes the slots that are due.
    pub fn take_due(&mut self, now: Instant, due: &mut Vec<usize>) {
        let passed = ticks(now.saturating_duration_since(self.start));
        let mut slots = std::mem::take(&mut self.taken);
        while let Some(tick) = self.next_tick().filter(|tick| *tick <= passed) {
            self.now = tick;
            if tick.is_multiple_of(FAR_TICKS) {
                let bucket = tick / FAR_TICKS;
                self.far.swap(bucket, &mut slots);
                for slot in slots.drain(..).map(|slot| slot as usize) {
                    if self.entries[slot].far == bucket {
                        self.entries[slot].far = NEVER;
                        self.place(slot);
                    }
                }
            }
            self.near.swap(tick, &mut slots);
            for slot in slots.drain(..).map(|slot| slot as usize) {
                let entry = &mut self.entries[slot];
                if entry.near != tick {
                    continue;
                }
                entry.near = NEVER;
                if entry.due <= tick {
                    entry.due = NEVER;
                    due.push(slot);
                } else {
                    self.place(slot);
                }
            }
        }
        self.taken = slots;
        self.now = self.now.max(passed);
    }

    /// Sees to it that some bucket no later than a slot's due time has it.
    fn place(&mut self, slot: usize) {
        let Entry { due, near, far } = &mut self.entries[slot];
        if *due == NEVER {
            return;
        }
        // Taken from the far level at the first tick of its bucket, some may be due at once.
        if due.saturating_sub(self.now) <= AHEAD_MAX {
            let tick = *due;
            if tick < *near {
                *near = tick;
                self.near.put(tick, slot);
            }
        } else {
            let bucket = (*due / FAR_TICKS).min(self.now / FAR_TICKS + AHEAD_MAX);
            if bucket < *far {
                *far = bucket;
                self.far.put(bucket, slot);
            }
        }
    }

    fn next_tick(&self) -> Option<u64> {
        let near = self.near.next_after(self.now);
        let far = self.far.next_after(self.now / FAR_TICKS).map(|bucket| bucket * FAR_TICKS);
        near.into_iter().chain(far).min()
    }

    /// The first tick at which that time has passed.
    fn tick_after(&self, at: Instant) -> u64 {
        let span = at.saturating_duration_since(self.start);
        ticks(span.saturating_add(TIMER_TICK - Duration::from_nanos(1)))
    }
}

/// Whole ticks in this span.
fn ticks(span: Duration) -> u64 {
    span.as_nanos() as u64 / TICK_NANOS
}

/// Buckets of slots, by number modulo their count, and which of them are not empty.
struct Level {
    buckets: Box<[Vec<u32>]>,
    filled: [u64; BUCKETS / 64],
}

impl Level {
    fn new() -> Level {
        Level { buckets: vec![Vec::new(); BUCKETS].into(), filled: [0; BUCKETS / 64] }
    }

    fn put(&mut self, number: u64, slot: usize) {
        let index = number as usize % BUCKETS;
        self.filled[index / 64] |= 1 << (index % 64);
        self.buckets[index].push(slot as u32);
    }

    /// Empties a bucket into `empty`, whose memory it gets.
    fn swap(&mut self, number: u64, empty: &mut Vec<u32>) {
        let index = number as usize % BUCKETS;
        self.filled[index / 64] &= !(1 << (index % 64));
        std::mem::swap(&mut self.buckets[index], empty);
    }

    /// The number of the first bucket after this one that is not empty.
    fn next_after(&self, number: u64) -> Option<u64> {
        let mut ahead = 1;
        while ahead <= AHEAD_MAX {
            let index = (number + ahead) as usize % BUCKETS;
            let word = self.filled[index / 64] >> (index % 64);
            if word != 0 {
                return Some(number + ahead + u64::from(word.trailing_zeros()));
            }
            ahead += 64 - (index as u64 % 64);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A small generator; the sequence is the same in every run.
    fn random(state: &mut u64, below: u64) -> u64 {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % below
    }

    /// Against a plain map: every slot comes out once, never early, and at most a tick after its
    /// time if somebody looks whenever `next` says so.
    #[test]
    fn slots_come_out_when_they_are_due() {
        for seed in 0..20u64 {
            let start = Instant::now();
            let mut timers = Timers::new(start);
            let mut model: BTreeMap<usize, Instant> = BTreeMap::new();
            let mut state = seed;
            let mut now = start;
            for _ in 0..4000 {
                for _ in 0..random(&mut state, 4) {
                    let slot = random(&mut state, 50) as usize;
                    let micros = match random(&mut state, 5) {
                        0 => random(&mut state, 3_000),
                        1 => random(&mut state, 300_000),
                        2 => random(&mut state, 17_000_000),
                        3 => random(&mut state, 90_000_000),
                        _ => {
                            timers.set(slot, None);
                            model.remove(&slot);
                            continue;
                        }
                    };
                    let at = now + Duration::from_micros(micros);
                    timers.set(slot, Some(at));
                    model.insert(slot, at);
                }
                let jump = Duration::from_micros(random(&mut state, 2_000_000));
                let until = now + jump;
                while let Some(next) = timers.next().filter(|next| *next <= until) {
                    assert!(next > now, "seed {seed}: no progress");
                    now = next;
                    check(&mut timers, &mut model, now, TIMER_TICK, seed);
                }
                now = until;
                check(&mut timers, &mut model, now, TIMER_TICK, seed);
            }
        }
    }

    #[track_caller]
    fn check(
        timers: &mut Timers,
        model: &mut BTreeMap<usize, Instant>,
        now: Instant,
        late_max: Duration,
        seed: u64,
    ) {
        let mut due = Vec::new();
        timers.take_due(now, &mut due);
        for slot in due {
            let at = model.remove(&slot).expect("set, and not taken before");
            assert!(at <= now, "seed {seed}: slot {slot} is early");
        }
        let overdue = model.values().find(|at| **at + late_max <= now);
        assert_eq!(overdue, None, "seed {seed}");
    }

    #[test]
    fn a_long_sleep_loses_nothing() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        for slot in 0..1000 {
            timers.set(slot, Some(start + Duration::from_millis(slot as u64 * 37)));
        }
        let mut due = Vec::new();
        timers.take_due(start + Duration::from_secs(100), &mut due);
        due.sort_unstable();
        assert_eq!(due, (0..1000).collect::<Vec<_>>());
        assert_eq!(timers.next(), None);
    }

    /// A connection that is always sent to and always answers wakes nobody but for a look at the
    /// far level now and then.
    #[test]
    fn deadlines_that_move_away_cost_few_looks() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        let mut looks = 0;
        let mut due = Vec::new();
        for step in 0..10_000u64 {
            let now = start + Duration::from_millis(step);
            while timers.next().is_some_and(|next| next <= now) {
                looks += 1;
                timers.take_due(now, &mut due);
            }
            timers.set(0, Some(now + Duration::from_secs(4)));
        }
        assert!(due.is_empty() && looks < 10, "{looks} looks, {due:?}");
    }
}
