//! One thread of a process of ours, held by ptrace(2): to the rest of the process it is one whose core
//! others keep busy. It can be let go, or be led into a panic as if a fault of its own had taken it there.

use std::ffi::c_void;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::ptr::null_mut;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

/// From one look whether a thread that is held is still there to the next.
const GLANCE: Duration = Duration::from_millis(20);

pub struct Held {
    /// Where it goes on: where it was, or at this address.
    release: mpsc::Sender<Option<u64>>,
    /// Only the thread that has taken it may let it go.
    tracer: JoinHandle<()>,
}

impl Held {
    /// Returns when the thread of this name stands still.
    pub fn hold(process: libc::pid_t, name: &str) -> Held {
        let thread = thread_of(process, name);
        let (release, released) = mpsc::channel();
        let (hold, held) = mpsc::channel();
        let tracer = std::thread::spawn(move || {
            trace(libc::PTRACE_SEIZE, thread, null_mut());
            trace(libc::PTRACE_INTERRUPT, thread, null_mut());
            let mut status = 0;
            // SAFETY: one live int.
            let stopped = unsafe { libc::waitpid(thread, &mut status, libc::__WALL) };
            assert_eq!(stopped, thread, "{}", std::io::Error::last_os_error());
            assert!(libc::WIFSTOPPED(status), "{status:#x}");
            hold.send(()).expect("somebody waits");
            loop {
                match released.recv_timeout(GLANCE) {
                    // The process has ended; its parent hears of that when we have.
                    Err(RecvTimeoutError::Timeout) if has_ended(thread) => return,
                    Err(RecvTimeoutError::Timeout) => continue,
                    #[cfg(target_arch = "x86_64")]
                    Ok(Some(address)) => lead(thread, address),
                    // A play that fails lets it go too.
                    _ => {}
                }
                break trace(libc::PTRACE_DETACH, thread, null_mut());
            }
        });
        held.recv().expect("the thread can be held");
        Held { release, tracer }
    }

    pub fn let_go(self) {
        self.go_on(None);
    }

    /// Has it go on in a function of the standard library that panics: the one for a vector that is
    /// asked to be larger than anything can be. It takes no arguments.
    #[cfg(target_arch = "x86_64")]
    pub fn panic(self, process: libc::pid_t) {
        self.go_on(Some(address_of(process, "raw_vec17capacity_overflow")));
    }

    fn go_on(self, address: Option<u64>) {
        self.release.send(address).expect("the tracer waits");
        self.tracer.join().expect("the tracer does not panic");
    }
}

fn has_ended(thread: libc::pid_t) -> bool {
    // SAFETY: nothing is to be written.
    unsafe { libc::waitpid(thread, null_mut(), libc::__WALL | libc::WNOHANG) == thread }
}

/// The first thread of this name; those that it has started may have the same.
fn thread_of(process: libc::pid_t, name: &str) -> libc::pid_t {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("a process of ours");
    let tasks = tasks.map(|task| task.expect("a thread").path());
    let named = tasks.filter(|task| {
        fs::read_to_string(task.join("comm")).is_ok_and(|found| found.trim() == name)
    });
    let id = |task: &Path| task.file_name()?.to_str()?.parse::<libc::pid_t>().ok();
    named.filter_map(|task| id(&task)).min().unwrap_or_else(|| panic!("no thread {name}"))
}

/// Where a function of the program is in the process.
#[cfg(target_arch = "x86_64")]
fn address_of(process: libc::pid_t, symbol: &str) -> u64 {
    let program = fs::read_link(format!("/proc/{process}/exe")).expect("a process of ours");
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("a process of ours");
    let begin = maps.lines().find(|line| line.ends_with(program.to_str().expect("a path of ours")));
    let begin = begin.and_then(|line| line.split('-').next()).expect("a program is mapped");
    let symbols = Command::new("nm").arg(&program).output().expect("nm, of the binutils");
    let symbols = String::from_utf8(symbols.stdout).expect("symbols are text");
    let known = symbols.lines().find(|line| line.contains(symbol));
    let known = known.unwrap_or_else(|| panic!("no {symbol} in {program:?}"));
    let number = |text: &str| u64::from_str_radix(text, 16).expect("a number");
    number(begin) + number(known.split(' ').next().expect("an address"))
}

/// Has a thread that stands go on in a function, which never returns.
#[cfg(target_arch = "x86_64")]
fn lead(thread: libc::pid_t, address: u64) {
    // SAFETY: plain numbers, for which zero is a value.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    trace(libc::PTRACE_GETREGS, thread, (&raw mut registers).cast());
    registers.rip = address;
    // As a call leaves it, with room for what a leaf keeps below its stack.
    registers.rsp = (registers.rsp - 256) / 16 * 16 - 8;
    // It is in no system call any more that could be begun again.
    registers.orig_rax = u64::MAX;
    trace(libc::PTRACE_SETREGS, thread, (&raw mut registers).cast());
}

fn trace(request: libc::c_uint, thread: libc::pid_t, data: *mut c_void) {
    // SAFETY: `data` is null, or what the request reads or fills.
    let status = unsafe { libc::ptrace(request, thread, null_mut::<c_void>(), data) };
    assert_eq!(status, 0, "ptrace {request:#x}: {}", std::io::Error::last_os_error());
}
