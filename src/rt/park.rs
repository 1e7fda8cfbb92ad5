//! Where a shard sleeps: a ring of its own that waits for the socket, for mail and for time in one
//! system call.
//!
//! glommio's own sleep costs nine entries into the kernel and a memory barrier across all threads.
//! A pump that has its thread to itself needs one.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};

use crate::mailbox::Parked;

/// Three operations are in the ring at most.
const RING_ENTRIES: u32 = 4;

/// The kernel's shortest sleep ends by itself only if the longest one has a length too.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// What an operation was, as the ring tells it at its end.
const SOCKET: u64 = 1;
const BELL: u64 = 2;
const OTHERS: u64 = 3;
const REMOVED: u64 = 4;

/// How long the end of a shard may wait for its ring.
const LET_GO_MAX: Duration = Duration::from_millis(100);

/// Where one shard sleeps until its socket, or what stands for its others, is readable, mail comes, or time
/// is up.
pub struct Parking {
    ring: IoUring,
    socket: RawFd,
    /// What else is to be readable, if anything.
    others: Option<RawFd>,
    parked: Arc<Parked>,
    bell: Arc<Bell>,
    waker: Waker,
    /// Whether the ring watches the socket, and the bell.
    watches_socket: bool,
    watches_bell: bool,
    watches_others: bool,
    /// The kernel can let us sleep for a shortest time.
    has_min_wait: bool,
}

/// `IORING_ENTER_GETEVENTS` and `IORING_ENTER_EXT_ARG` of the kernel.
const WAIT_WITH_ARGUMENTS: u32 = 1 << 0 | 1 << 3;

/// `struct io_uring_getevents_arg` of the kernel: how long a wait lasts.
#[repr(C)]
struct Wait {
    sigmask: u64,
    sigmask_bytes: u32,
    min_wait_us: u32,
    timespec: u64,
}

impl Parking {
    /// To be called on the shard's thread. The socket must outlive this.
    pub fn new(socket: &impl AsRawFd, parked: Arc<Parked>) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(RING_ENTRIES)
            // Kernels before 6.1 know neither flag.
            .or_else(|_| IoUring::new(RING_ENTRIES))?;
        let bell = Arc::new(Bell::new()?);
        Ok(Self {
            has_min_wait: ring.params().is_feature_min_timeout(),
            ring,
            socket: socket.as_raw_fd(),
            others: None,
            parked,
            waker: Waker::from(bell.clone()),
            bell,
            watches_socket: false,
            watches_bell: false,
            watches_others: false,
        })
    }

    /// Watches one more descriptor, which must outlive this.
    pub fn watch_beside(&mut self, descriptor: RawFd) {
        self.others = Some(descriptor);
    }

    /// Returns when the socket is readable, mail waits, or the deadline has passed. May return
    /// early for no reason.
    ///
    /// What comes within `pace` of now waits for the rest of it: a hundred acknowledgements that
    /// trickle in cost a few turns and not a hundred.
    pub fn park(&mut self, deadline: Option<Instant>, pace: Duration) {
        let span = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => return,
            span => span.unwrap_or(SLEEP_MAX).min(SLEEP_MAX),
        };
        // Says that it sleeps before it looks at the mail, so that no mail slips between.
        if self.parked.park(&self.waker) {
            self.watch();
            // An error is a wait that was cut short, which the caller cannot tell from a wake.
            let _ = self.wait(span, pace);
            self.reap();
        }
        self.parked.unpark();
    }

    /// Has the ring let go of what it watches. The kernel keeps a socket, and with it the port, while an operation
    /// waits on it, and that outlives the process by some milliseconds.
    pub fn let_go(&mut self) {
        let watched = [
            (self.watches_socket, SOCKET),
            (self.watches_bell, BELL),
            (self.watches_others, OTHERS),
        ];
        let mut queue = self.ring.submission();
        for (_, what) in watched.into_iter().filter(|(is_watched, _)| *is_watched) {
            let remove = opcode::PollRemove::new(what).build().user_data(REMOVED);
            // SAFETY: reads no memory of ours.
            let _ = unsafe { queue.push(&remove) };
        }
        drop(queue);
        let deadline = Instant::now() + LET_GO_MAX;
        while (self.watches_socket || self.watches_bell || self.watches_others)
            && Instant::now() < deadline
        {
            let _ = self.wait(LET_GO_MAX, Duration::ZERO);
            self.reap();
        }
    }

    fn watch(&mut self) {
        let mut queue = self.ring.submission();
        if !self.watches_socket {
            let readable = opcode::PollAdd::new(types::Fd(self.socket), libc::POLLIN as u32);
            // SAFETY: reads no memory of ours; the descriptor outlives the ring.
            self.watches_socket =
                unsafe { queue.push(&readable.build().user_data(SOCKET)) }.is_ok();
        }
        if !self.watches_bell {
            let rung =
                opcode::PollAdd::new(types::Fd(self.bell.0.as_raw_fd()), libc::POLLIN as u32);
            // SAFETY: as above.
            self.watches_bell = unsafe { queue.push(&rung.build().user_data(BELL)) }.is_ok();
        }
        if let Some(others) = self.others.filter(|_| !self.watches_others) {
            let readable = opcode::PollAdd::new(types::Fd(others), libc::POLLIN as u32);
            // SAFETY: as above.
            self.watches_others =
                unsafe { queue.push(&readable.build().user_data(OTHERS)) }.is_ok();
        }
    }

    fn wait(&mut self, span: Duration, pace: Duration) -> io::Result<usize> {
        let timespec = types::Timespec::from(span);
        let min_wait = if self.has_min_wait { pace.min(span) } else { Duration::ZERO };
        let wait = Wait {
            sigmask: 0,
            sigmask_bytes: 0,
            min_wait_us: min_wait.as_micros() as u32,
            timespec: &raw const timespec as u64,
        };
        // One more event than there can be, so that one does not end the shortest sleep.
        let wanted = if min_wait.is_zero() { 1 } else { 4 };
        let waiting = self.ring.submission().len() as u32;
        // SAFETY: `wait` is laid out as the kernel has it, and with what it points to outlives
        // the call.
        unsafe { self.ring.submitter().enter(waiting, wanted, WAIT_WITH_ARGUMENTS, Some(&wait)) }
    }

    fn reap(&mut self) {
        for event in self.ring.completion() {
            match event.user_data() {
                SOCKET => self.watches_socket = false,
                OTHERS => self.watches_others = false,
                BELL => {
                    self.watches_bell = false;
                    self.bell.hush();
                }
                _ => {}
            }
        }
    }
}

/// An eventfd that other threads ring.
struct Bell(OwnedFd);

impl Bell {
    fn new() -> io::Result<Self> {
        // SAFETY: takes plain numbers; the descriptor that it returns is ours.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fresh and owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// Forgets that it was rung.
    fn hush(&self) {
        let mut count = 0u64;
        // SAFETY: eight writable bytes, as an eventfd demands.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), size_of_val(&count)) };
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let one = 1u64;
        // It fails only at a count of 2^64: nobody rings that often between reads.
        // SAFETY: eight readable bytes, as an eventfd demands.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of_val(&one)) };
    }
}
