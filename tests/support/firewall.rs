//! What a host's firewall, routes and memory do to a process that sends: some of its sends are refused.
//! seccomp(2) asks us about every one, and we look where it goes.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex};

/// Where the child leaves what its filter asks by.
const LISTENER: RawFd = 200;

/// Of one call we look at so many messages: more than a relay sends in one.
const MESSAGES_MAX: usize = 64;

#[derive(Clone, Default)]
pub struct Firewall {
    rules: Arc<Mutex<Rules>>,
}

#[derive(Default)]
struct Rules {
    /// By the port that a datagram goes to.
    to: HashMap<u16, libc::c_int>,
    all: Option<libc::c_int>,
    refused: u64,
}

impl Firewall {
    /// Has a program ask; call [`Firewall::watch`] once it runs.
    pub fn prepare(command: &mut Command) {
        // SAFETY: a few system calls on memory of their own, as a forked child may do.
        unsafe { command.pre_exec(ask_about_sends) };
    }

    pub fn watch(process: libc::pid_t) -> Firewall {
        let listener = listener_of(process).expect("a program that was prepared");
        let firewall = Firewall::default();
        let judge = firewall.clone();
        std::thread::spawn(move || judge.run(&listener));
        firewall
    }

    /// Refuses all that goes to this port.
    pub fn refuse(&self, port: u16, error: libc::c_int) {
        self.rules().to.insert(port, error);
    }

    pub fn refuse_all(&self, error: libc::c_int) {
        self.rules().all = Some(error);
    }

    /// Refuses nothing any more; says how often it did.
    pub fn allow(&self) -> u64 {
        let mut rules = self.rules();
        rules.to.clear();
        rules.all = None;
        std::mem::take(&mut rules.refused)
    }

    pub fn refused(&self) -> u64 {
        self.rules().refused
    }

    fn rules(&self) -> std::sync::MutexGuard<'_, Rules> {
        self.rules.lock().expect("nobody panics here")
    }

    /// Until the process has ended.
    fn run(&self, listener: &OwnedFd) {
        loop {
            // SAFETY: plain numbers, for which zero is a value, and the kernel wants them so.
            let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            // SAFETY: a live structure of the kind that the request fills.
            let got = unsafe {
                libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call)
            };
            if got != 0 {
                match io::Error::last_os_error().raw_os_error() {
                    // One that asked has gone away meanwhile.
                    Some(libc::EINTR | libc::ENOENT) if is_asking(listener) => continue,
                    _ => return,
                }
            }
            let error = self.judge(&call);
            let mut answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags: 0 };
            match error {
                Some(error) => answer.error = -error,
                None => answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
            }
            // SAFETY: a live structure of the kind that the request reads. It fails where the asker is gone.
            unsafe {
                libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer)
            };
        }
    }

    /// A call with several messages is refused for any of them: who is told so sends them one by one.
    fn judge(&self, call: &libc::seccomp_notif) -> Option<libc::c_int> {
        let mut rules = self.rules();
        let error = rules.all.or_else(|| {
            let many = i64::from(call.data.nr) == libc::SYS_sendmmsg;
            let count = if many { (call.data.args[2] as usize).min(MESSAGES_MAX) } else { 1 };
            let stride = if many { size_of::<libc::mmsghdr>() } else { 0 };
            (0..count).find_map(|at| {
                let message = call.data.args[1] + (at * stride) as u64;
                rules.to.get(&port_of(call.pid as libc::pid_t, message)?).copied()
            })
        });
        rules.refused += u64::from(error.is_some());
        error
    }
}

/// The port that a message of another process goes to.
fn port_of(process: libc::pid_t, message: u64) -> Option<u16> {
    let header: [u64; 1] = read(process, message)?;
    // The family, and then the port as it is sent, of either family.
    let address: [u8; 4] = read(process, header[0])?;
    Some(u16::from_be_bytes([address[2], address[3]]))
}

fn read<T: Copy + Default, const N: usize>(process: libc::pid_t, at: u64) -> Option<[T; N]> {
    let mut value = [T::default(); N];
    let len = size_of_val(&value);
    let here = libc::iovec { iov_base: value.as_mut_ptr().cast(), iov_len: len };
    let there = libc::iovec { iov_base: at as *mut _, iov_len: len };
    // SAFETY: `here` is ours and as long as it says; the kernel checks the other.
    let got = unsafe { libc::process_vm_readv(process, &here, 1, &there, 1, 0) };
    (got == len as isize).then_some(value)
}

fn is_asking(listener: &OwnedFd) -> bool {
    let mut poll = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live structure.
    unsafe { libc::poll(&mut poll, 1, 0) };
    poll.revents & libc::POLLHUP == 0
}

fn listener_of(process: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; what is returned is ours.
    unsafe {
        let process = descriptor(libc::syscall(libc::SYS_pidfd_open, process, 0))?;
        descriptor(libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), LISTENER, 0))
    }
}

fn ask_about_sends() -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// The first field of what a filter sees.
    const SYSCALL_NUMBER: u32 = 0;
    const fn step(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code, jt, jf, k }
    }
    let mut steps = [
        step(LOAD, 0, 0, SYSCALL_NUMBER),
        step(IF_EQUAL, 1, 0, libc::SYS_sendmmsg as u32),
        step(IF_EQUAL, 0, 1, libc::SYS_sendmsg as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program outlives the calls, which copy it; the descriptor is ours.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        let listener = descriptor(libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &program,
        ))?;
        // The copy stays open when the program begins.
        match libc::dup2(listener.as_raw_fd(), LISTENER) {
            LISTENER => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// # Safety
///
/// The descriptor, if it is one, belongs to nobody else.
unsafe fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: as the caller promised.
        Ok(number @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(io::Error::last_os_error()),
    }
}
