//! Which sockets can go on: one epoll descriptor, which the shard's ring watches beside its UDP socket.
//!
//! A socket is put in once and for both directions. Each says once that it has become readable, or writable
//! again, so one that is idle costs no system call.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::Socket;
use crate::limits::TCP_READY_PER_TURN;

pub struct Poll {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

/// What has become possible.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    pub readable: bool,
    pub writable: bool,
    /// The peer has said its last word, or something broke: reading tells.
    pub ending: bool,
}

impl Poll {
    pub fn new() -> io::Result<Poll> {
        // SAFETY: takes a plain number; the descriptor that it returns is ours.
        let descriptor = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fresh and owned by nobody else.
        let epoll = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Poll { epoll, events: Vec::with_capacity(TCP_READY_PER_TURN) })
    }

    /// From here on the socket's news comes under this name, until it is closed.
    pub fn add(&self, socket: &Socket, name: u64) -> io::Result<()> {
        let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let mut event = libc::epoll_event { events: events as u32, u64: name };
        // SAFETY: one live event, which the kernel copies.
        let result = unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                socket.as_raw_fd(),
                &mut event,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Hands over what has become possible, at most so much in one go. True if there may be more.
    pub fn take(&mut self, take: &mut dyn FnMut(u64, Ready)) -> bool {
        // SAFETY: room for as many events as it says; those that were written are counted.
        let count = unsafe {
            let count = libc::epoll_wait(
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                TCP_READY_PER_TURN as libc::c_int,
                0,
            );
            // An error is a wait that was cut short: the next one finds the same.
            self.events.set_len(count.max(0) as usize);
            count.max(0) as usize
        };
        for event in &self.events {
            let events = event.events as libc::c_int;
            let ending = events & (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) != 0;
            let readable = ending || events & libc::EPOLLIN != 0;
            let writable = events & (libc::EPOLLOUT | libc::EPOLLERR) != 0;
            take(event.u64, Ready { readable, writable, ending });
        }
        count == TCP_READY_PER_TURN
    }
}

impl AsRawFd for Poll {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}
