//! How much memory the process uses, and whether it is short: near the most that it may use. Whichever shard turns
//! looks, so that nothing grows between two looks but what one turn takes in, or all of them in a few
//! milliseconds. What was found is one word that all of them read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::Instant;

use crate::host::Meter;
use crate::limits::{
    MEMORY_AMPLE_SHARE, MEMORY_LOOK_INTERVAL, MEMORY_PURGE_INTERVAL, MEMORY_SHORT_SHARE,
};
use crate::memory;
use crate::text::in_units;

#[derive(Debug)]
pub struct Gauge {
    max: u64,
    /// None where the kernel does not say.
    meter: Option<Meter>,
    started: Instant,
    /// In microseconds since then.
    looked_at: AtomicU64,
    used: AtomicU64,
    is_short: AtomicBool,
    /// How often it has become so.
    shortages: AtomicU64,
    /// Who is woken then.
    keeper: OnceLock<Thread>,
}

impl Gauge {
    pub fn new(max: u64, meter: Option<Meter>, started: Instant) -> Gauge {
        let gauge = Gauge {
            max,
            meter,
            started,
            looked_at: AtomicU64::new(0),
            used: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
            shortages: AtomicU64::new(0),
            keeper: OnceLock::new(),
        };
        gauge.measure();
        gauge
    }

    pub fn max(&self) -> u64 {
        self.max
    }

    /// As of the last look.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }

    pub fn shortages(&self) -> u64 {
        self.shortages.load(Ordering::Relaxed)
    }

    /// Whether memory is short. It is measured again if the last time was a while ago.
    pub fn look(&self, now: Instant) -> bool {
        let at = now.saturating_duration_since(self.started).as_micros() as u64;
        let before = self.looked_at.load(Ordering::Relaxed);
        let is_due = at >= before + MEMORY_LOOK_INTERVAL.as_micros() as u64;
        let takes_it = || {
            let taken =
                self.looked_at.compare_exchange(before, at, Ordering::Relaxed, Ordering::Relaxed);
            taken.is_ok()
        };
        if is_due && takes_it() {
            self.measure();
        }
        self.is_short()
    }

    fn measure(&self) {
        if let Some(used) = self.meter.as_ref().and_then(|meter| meter.used(self.max)) {
            self.note(used);
        }
    }

    fn note(&self, used: u64) {
        self.used.store(used, Ordering::Relaxed);
        let share = used as f64 / self.max as f64;
        let limit = self.max;
        if share >= MEMORY_SHORT_SHARE {
            if !self.is_short.swap(true, Ordering::Relaxed) {
                self.shortages.fetch_add(1, Ordering::Relaxed);
                self.keeper.get().into_iter().for_each(Thread::unpark);
                tracing::warn!(
                    used,
                    limit,
                    "memory is short, {} of {}: nobody new is let in, and the cache shrinks; more is set by \
                     --memory-max, or the limit of the cgroup",
                    in_units(used),
                    in_units(limit)
                );
            }
        } else if share < MEMORY_AMPLE_SHARE && self.is_short.swap(false, Ordering::Relaxed) {
            tracing::info!(used, limit, "memory is not short any more: all may come in again");
        }
    }
}

/// The thread that gives memory back to the kernel while that is short: what is free is kept for seconds
/// otherwise, and a shard that would have to do it would stand still.
pub struct Keeper {
    thread: JoinHandle<()>,
    is_over: Arc<AtomicBool>,
}

impl Keeper {
    pub fn start(gauge: Arc<Gauge>) -> std::io::Result<Keeper> {
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = is_over.clone();
        let keep = move || {
            let _ = gauge.keeper.set(thread::current());
            while !ends.load(Ordering::Relaxed) {
                match gauge.look(Instant::now()) {
                    true => {
                        memory::give_back();
                        thread::park_timeout(MEMORY_PURGE_INTERVAL);
                    }
                    false => thread::park(),
                }
            }
        };
        let thread = thread::Builder::new().name("memory".to_owned()).spawn(keep)?;
        Ok(Keeper { thread, is_over })
    }

    pub fn stop(self) -> thread::Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge(max: u64) -> Gauge {
        Gauge::new(max, None, Instant::now())
    }

    #[test]
    fn it_becomes_short_once_and_ample_again_later() {
        let gauge = gauge(1000);
        let (short, ample) =
            ((1000.0 * MEMORY_SHORT_SHARE) as u64, (1000.0 * MEMORY_AMPLE_SHARE) as u64);
        let seen = [0, short - 1, short, ample, short, ample - 1, short - 1, 2000].map(|used| {
            gauge.note(used);
            (gauge.is_short(), gauge.shortages())
        });
        let expect = [
            (false, 0),
            (false, 0),
            (true, 1),
            (true, 1),
            (true, 1),
            (false, 1),
            (false, 1),
            (true, 2),
        ];
        assert_eq!(seen, expect);
        assert_eq!(gauge.used(), 2000);
    }

    #[test]
    fn it_is_measured_as_often_as_is_due() {
        let gauge = Gauge::new(1, Some(crate::host::meter().unwrap()), Instant::now());
        assert!(gauge.is_short(), "a byte is short for any process");
        gauge.note(0);
        assert!(!gauge.look(gauge.started), "it is not due");
        assert!(gauge.look(gauge.started + MEMORY_LOOK_INTERVAL));
        gauge.note(0);
        assert!(!gauge.look(gauge.started + MEMORY_LOOK_INTERVAL), "somebody has looked already");
    }
}
