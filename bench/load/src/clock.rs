//! One clock for everything: CLOCK_MONOTONIC in nanoseconds, which also stands in the payloads.

use std::time::{Duration, Instant};

pub const SECOND: u64 = 1_000_000_000;
pub const MILLISECOND: u64 = 1_000_000;
pub const MICROSECOND: u64 = 1_000;

/// Ties nanoseconds to the `Instant`s that quinn-proto is told.
#[derive(Clone, Copy)]
pub struct Clock {
    origin: Instant,
    origin_ns: u64,
}

impl Clock {
    pub fn new() -> Clock {
        // Whatever passes between the two readings only shifts timers of QUIC, never a latency.
        Clock { origin: Instant::now(), origin_ns: monotonic_ns() }
    }

    pub fn now(&self) -> u64 {
        monotonic_ns()
    }

    pub fn instant(&self, ns: u64) -> Instant {
        self.origin + Duration::from_nanos(ns.saturating_sub(self.origin_ns))
    }

    pub fn nanos(&self, instant: Instant) -> u64 {
        self.origin_ns + instant.saturating_duration_since(self.origin).as_nanos() as u64
    }
}

fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that outlives the call.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(status, 0, "Linux has a monotonic clock");
    time.tv_sec as u64 * SECOND + time.tv_nsec as u64
}
