//! Calls that a program is refused, as container runtimes and units of systemd refuse them.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// One call, by its number and, if it is to be one of many, by the arguments at these places.
pub struct Rule {
    call: libc::c_long,
    arguments: &'static [(u32, libc::c_int)],
    /// 0: it seems to succeed, and does nothing.
    error: libc::c_int,
}

impl Rule {
    pub const fn refuse(call: libc::c_long, error: libc::c_int) -> Rule {
        Rule { call, arguments: &[], error }
    }

    pub const fn option(
        level_and_name: &'static [(u32, libc::c_int); 2],
        error: libc::c_int,
    ) -> Rule {
        Rule { call: libc::SYS_setsockopt, arguments: level_and_name, error }
    }
}

/// Has the program run under these rules.
pub fn refuse(command: &mut Command, rules: &[Rule]) {
    let mut steps: Vec<_> = rules.iter().flat_map(steps).collect();
    steps.push(step(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    // SAFETY: two system calls on memory that is there, as a forked child may do.
    unsafe { command.pre_exec(move || install(&mut steps)) };
}

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Where `struct seccomp_data` has the number of the call, and its arguments of eight bytes each.
const CALL: u32 = 0;
const ARGUMENTS: u32 = 16;

fn step(code: u32, jf: usize, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: jf as u8, k }
}

fn steps(rule: &Rule) -> Vec<libc::sock_filter> {
    let arguments = rule.arguments.iter().map(|(at, value)| (ARGUMENTS + 8 * at, *value as u32));
    let conditions: Vec<_> = [(CALL, rule.call as u32)].into_iter().chain(arguments).collect();
    let mut steps = Vec::new();
    for (at, (offset, value)) in conditions.iter().enumerate() {
        // Past the other conditions and the answer.
        let past = 2 * (conditions.len() - at - 1) + 1;
        steps.push(step(LOAD, 0, *offset));
        steps.push(step(IF_EQUAL, past, *value));
    }
    steps.push(step(RETURN, 0, libc::SECCOMP_RET_ERRNO | rule.error as u32));
    steps
}

fn install(steps: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program outlives the call, which copies it.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}
