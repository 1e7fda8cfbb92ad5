//! What systemd is told of this process, as sd_notify(3) has it. Where nobody has asked for that nobody is told.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::limits::WATCH_INTERVAL;

/// Another process is the one that systemd hears.
static HOLDS: AtomicBool = AtomicBool::new(false);

/// This process has another one before it, which speaks for both.
pub fn hold() {
    HOLDS.store(true, Ordering::Relaxed);
}

/// From now on this one speaks. Whether another one did so far.
pub fn speak() -> bool {
    HOLDS.swap(false, Ordering::Relaxed)
}

/// The process that has taken over is the service's from now on.
pub fn hand_over(to: u32) {
    tell(&[NotifyState::MainPid(to), NotifyState::Ready]);
    hold();
}

/// It is gone, and this one is the service's again.
pub fn take_back() {
    speak();
    tell(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
}

/// Whether anybody hears what is told here.
pub fn is_heard() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// All is bound, and clients are served.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The end has begun, and may take so long.
pub fn leaving(within: Duration, status: &str) {
    let within = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
    tell(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(within),
        NotifyState::Status(status),
    ]);
}

/// To be called while every shard turns, every `WATCH_INTERVAL`.
pub fn alive() {
    if sd_notify::watchdog_enabled().is_some() {
        tell(&[NotifyState::Watchdog]);
    }
}

/// The watchdog's time, if we say too seldom for it that we are alive.
pub fn hasty_watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|time| *time < 2 * WATCH_INTERVAL)
}

fn tell(states: &[NotifyState<'_>]) {
    tell_with(states, &[]);
}

/// The same with descriptors.
pub fn tell_with(states: &[NotifyState<'_>], descriptors: &[BorrowedFd<'_>]) {
    if HOLDS.load(Ordering::Relaxed) {
        return;
    }
    let told = match descriptors {
        [] => sd_notify::notify(states),
        some => sd_notify::notify_with_fds(states, some),
    };
    if let Err(error) = told {
        tracing::warn!(%error, "systemd cannot be told how the relay is: look at NOTIFY_SOCKET");
    }
}
