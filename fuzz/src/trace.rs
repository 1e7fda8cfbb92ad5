//! What an input led to, in one number: inputs that lead to something new are worth keeping. And what
//! its steps took.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

#[derive(Default)]
pub struct Trace {
    /// A set of things that have happened, as far as 64 bits tell them apart.
    happened: u64,
    slowest_step: Option<Duration>,
}

impl Trace {
    pub fn note(&mut self, what: impl Hash) {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        self.happened |= 1 << (hasher.finish() >> 58);
    }

    pub fn value(&self) -> u64 {
        self.happened
    }

    /// A step of a conversation has begun at this time of the processor's.
    pub fn note_step(&mut self, begin: Duration) {
        self.slowest_step = self.slowest_step.max(Some(processor_time() - begin));
    }

    pub fn slowest_step(&self) -> Option<Duration> {
        self.slowest_step
    }
}

/// What this thread has taken.
pub fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes to this one.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "Linux has this clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
