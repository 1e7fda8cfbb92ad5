//! What a relay that runs is told from outside, and an end that comes in time whatever hangs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Instant;

use crate::limits::{END_MAX, SIGNAL_TWICE_WITHIN};
use crate::log;

/// 128 + SIGINT, as a shell reports it.
const EXIT_AT_ONCE: i32 = 130;
const EXIT_LATE: i32 = 1;

/// What the main thread is told.
#[derive(Debug)]
pub enum Notice {
    /// The relay is to end, by a signal of this name.
    End(&'static str),
    /// The process that has taken over is to end, and this one with it.
    EndWithNext,
    /// Somebody has put other files in place.
    Hangup,
    /// A thread of this name panicked, and said so.
    Panic(String),
    /// The process before this one has handed over to it.
    Main,
    /// Another process has taken over.
    HandedOver,
    /// That one is gone.
    TakenBack,
}

/// Set once clients are served, or are about to be: they are asked to move before the end.
static BEGUN: AtomicBool = AtomicBool::new(false);

/// From now on notices are read, or will be.
pub fn begin() {
    BEGUN.store(true, Ordering::SeqCst);
}

/// Set once the process is to end whatever happens.
static ENDING: OnceLock<()> = OnceLock::new();

pub fn is_ending() -> bool {
    ENDING.get().is_some()
}

/// From now on the process ends in time, and at the next signal at once.
pub fn end_in_time() {
    if ENDING.set(()).is_err() {
        return;
    }
    let guard = || {
        std::thread::sleep(END_MAX);
        log::line("shardcast: the relay did not end in time");
        log::flush();
        end_at_once(EXIT_LATE);
    };
    // Without a thread for it somebody has to be patient, or signal again.
    let _ = std::thread::Builder::new().name("end".to_owned()).spawn(guard);
}

/// Ends the process without running anything of ours, whose state is not to be trusted.
pub fn end_at_once(code: i32) -> ! {
    // SAFETY: no preconditions.
    unsafe { libc::_exit(code) }
}

/// SIGINT, SIGTERM and SIGHUP, taken by one thread. A terminal that closes is no reason to end.
pub struct Signals {
    set: libc::sigset_t,
}

impl Signals {
    /// Before [`begin`] nobody would be asked to move, and the first signal has the process end in time.
    pub fn take_over(self, notices: mpsc::Sender<Notice>) -> std::io::Result<()> {
        let set = self.set;
        let mut last: Option<Instant> = None;
        let body = move || loop {
            let notice = match Self::next(&set) {
                // It is read when the relay has started.
                libc::SIGHUP => Notice::Hangup,
                signal => {
                    // `timeout` and terminals signal the process and its group: that is one wish.
                    if last.is_some_and(|at| at.elapsed() < SIGNAL_TWICE_WITHIN) {
                        continue;
                    }
                    last = Some(Instant::now());
                    if is_ending() {
                        end_at_once(EXIT_AT_ONCE);
                    }
                    Notice::End(if signal == libc::SIGINT { "SIGINT" } else { "SIGTERM" })
                }
            };
            if matches!(notice, Notice::End(_)) && !BEGUN.load(Ordering::SeqCst) {
                end_in_time();
            }
            // Nobody listens if the start failed, and then the process is about to end.
            let _ = notices.send(notice);
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(body)?;
        Ok(())
    }

    /// Call while there is one thread.
    pub fn block() -> std::io::Result<Signals> {
        // SAFETY: sigemptyset initialises the set before anything reads it.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGINT);
            libc::sigaddset(&mut set, libc::SIGTERM);
            libc::sigaddset(&mut set, libc::SIGHUP);
            match libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) {
                0 => Ok(Signals { set }),
                code => Err(std::io::Error::from_raw_os_error(code)),
            }
        }
    }

    fn next(set: &libc::sigset_t) -> libc::c_int {
        let mut signal = 0;
        // SAFETY: both point to live values. It fails only for a set with invalid signals.
        let code = unsafe { libc::sigwait(set, &mut signal) };
        assert_eq!(code, 0, "sigwait of SIGINT, SIGTERM and SIGHUP");
        signal
    }
}
