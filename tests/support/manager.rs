//! As much of systemd as a relay has to do with: it hears what it is told, keeps descriptors by name, and starts
//! a process with them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::process::without_settings;

pub struct Manager {
    pub root: PathBuf,
    socket: UnixDatagram,
    /// By name, as it was told; and whether it was to look whether they are still good.
    pub kept: BTreeMap<String, OwnedFd>,
    pub polls: bool,
    /// Everything else that it was told.
    pub told: Vec<String>,
}

impl Manager {
    pub fn new(name: &str) -> Manager {
        let root = std::env::temp_dir().join(format!("shardcast-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).expect("a directory");
        let socket = UnixDatagram::bind(root.join("notify")).expect("a socket");
        Manager { root, socket, kept: BTreeMap::new(), polls: false, told: Vec::new() }
    }

    /// Our binary with what is kept for it.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        without_settings(&mut command);
        let names: Vec<&str> = self.kept.keys().map(String::as_str).collect();
        command.env("NOTIFY_SOCKET", self.root.join("notify"));
        command.env_remove("WATCHDOG_USEC").env_remove("RUNTIME_DIRECTORY");
        command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        command.args(["-c", "LISTEN_PID=$$ exec \"$@\"", "sh", env!("CARGO_BIN_EXE_shardcast")]);
        command.args(args).stdin(Stdio::null());
        let kept: Vec<RawFd> = self.kept.values().map(AsRawFd::as_raw_fd).collect();
        let pass = move || {
            // Out of the way first, for some may be where others belong.
            let moved = kept.iter().map(|fd| {
                // SAFETY: takes plain numbers.
                unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, 1000) }
            });
            for (moved, place) in moved.collect::<Vec<_>>().into_iter().zip(3..) {
                // SAFETY: as above; the copy goes on across the program that is started.
                if moved < 0 || unsafe { libc::dup2(moved, place) } < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: duplicates descriptors, and allocates a little, in a child of a process that has no
        // allocator of its own.
        unsafe { command.pre_exec(pass) };
        command
    }

    /// Hears all that it is told until this line.
    #[track_caller]
    pub fn is_told(&mut self, line: &str, within: Duration) {
        let until = Instant::now() + within;
        while !self.told.iter().any(|told| told == line) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not told {line} in {within:?}: {:?}", self.told);
            self.hear(left);
        }
    }

    /// All that is there to be heard, and what comes soon.
    pub fn hears_out(&mut self, pause: Duration) {
        while self.hear(pause) {}
    }

    fn hear(&mut self, within: Duration) -> bool {
        self.socket.set_read_timeout(Some(within)).expect("a time");
        let Some((text, descriptors)) = receive(&self.socket) else { return false };
        let lines: Vec<&str> = text.lines().collect();
        let name = lines.iter().find_map(|line| line.strip_prefix("FDNAME="));
        if lines.contains(&"FDSTORE=1") {
            let name = name.expect("a name");
            assert!(!name.contains(':') && descriptors.len() == 1, "{lines:?}");
            self.polls |= !lines.contains(&"FDPOLL=0");
            // The one that it has stays, as with systemd, which keeps both.
            self.kept
                .entry(name.to_owned())
                .or_insert_with(|| descriptors.into_iter().next().expect("one"));
        } else if lines.contains(&"FDSTOREREMOVE=1") {
            self.kept.remove(name.expect("a name"));
        } else {
            self.told.extend(lines.into_iter().map(str::to_owned));
        }
        true
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn receive(socket: &UnixDatagram) -> Option<(String, Vec<OwnedFd>)> {
    use std::os::fd::FromRawFd;
    let mut bytes = [0u8; 4096];
    let mut control = [0u64; 64];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut descriptors = Vec::new();
    // SAFETY: a header of zeros is valid, and what it points to outlives the call; descriptors that the
    // kernel has written are ours.
    let length = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        let length = libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC);
        let rights = libc::CMSG_FIRSTHDR(&raw const header);
        if length >= 0 && !rights.is_null() {
            let count = ((*rights).cmsg_len - libc::CMSG_LEN(0) as usize) / 4;
            let numbers = libc::CMSG_DATA(rights).cast::<RawFd>();
            descriptors.extend((0..count).map(|at| OwnedFd::from_raw_fd(*numbers.add(at))));
        }
        length
    };
    let length = usize::try_from(length).ok()?;
    Some((String::from_utf8(bytes[..length].to_vec()).expect("text"), descriptors))
}
