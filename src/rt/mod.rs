//! The executor of a shard: glommio, behind few enough functions that it remains a choice.
//! Knows threads, cores and sleeping; knows nothing of what a turn does.

mod park;

use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};

pub use park::Parking;

/// Registered with each of glommio's three rings. We give it no storage work, so its minimum.
const IO_MEMORY_BYTES: usize = 64 << 10;

/// A shard's thread.
pub struct ShardThread {
    handle: thread::JoinHandle<()>,
}

/// Why a shard's thread did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "cannot start a thread ({0}): raise the limits of processes and memory (`ulimit -u`, `ulimit -v`)"
    )]
    Thread(io::Error),
    #[error("cannot pin a thread to core {0}: choose a core that `taskset -p` of the relay allows")]
    Pin(usize),
    #[error("cannot start the io_uring executor: {0}")]
    Executor(String),
}

/// A shard's thread of which nobody knows yet whether its executor stands.
pub struct Starting {
    handle: thread::JoinHandle<()>,
    started: mpsc::Receiver<Result<(), StartError>>,
}

impl Starting {
    /// Returns when the executor stands, or says why it does not.
    pub fn wait(self) -> Result<ShardThread, StartError> {
        self.started.recv().unwrap_or_else(|_| {
            Err(StartError::Executor("its thread panicked; see the message above".to_owned()))
        })?;
        Ok(ShardThread { handle: self.handle })
    }
}

/// Starts a thread pinned to `cpu` with an executor that runs `main` to its end. An executor takes some
/// milliseconds, so whoever wants many starts all of them before he waits for one.
pub fn spawn_on<M, F>(cpu: usize, name: &str, main: M) -> Result<Starting, StartError>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let (report, started) = mpsc::channel();
    let label = name.to_owned();
    let body = move || {
        let representable = cpu < libc::CPU_SETSIZE as usize;
        if !representable || !core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
            let _ = report.send(Err(StartError::Pin(cpu)));
            return;
        }
        // The thread is where it is to be; to be told so, glommio would read all that the kernel says of every
        // core, for every shard.
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .name(&label)
            .io_memory(IO_MEMORY_BYTES)
            .make();
        match executor {
            Err(error) => {
                let _ = report.send(Err(StartError::Executor(error.to_string())));
            }
            Ok(executor) => executor.run(async move {
                let _ = report.send(Ok(()));
                main().await;
            }),
        }
    };
    let handle = {
        // Signals belong to the main thread: none is to cut into a turn or a sleep.
        let _blocked = SignalsBlocked::new();
        thread::Builder::new().name(name.to_owned()).spawn(body).map_err(StartError::Thread)?
    };
    Ok(Starting { handle, started })
}

impl ShardThread {
    /// Waits for the end of `main`; the error is the panic that ended it.
    pub fn join(self) -> thread::Result<()> {
        self.handle.join()
    }

    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

/// Blocks all signals in this thread while it lives; threads started meanwhile inherit that.
struct SignalsBlocked {
    before: libc::sigset_t,
}

impl SignalsBlocked {
    fn new() -> Self {
        // SAFETY: both sets are plain memory that these calls fill in.
        unsafe {
            let mut all = std::mem::zeroed();
            let mut before = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Self { before }
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: `before` was filled in by the call that blocked the signals.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut());
        }
    }
}

/// What a turn wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Work remains: turn again at once.
    More,
    /// Nothing to do before this time, unless a datagram or mail arrives.
    Until(Instant),
    /// Nothing to do unless a datagram or mail arrives.
    Idle,
    /// The shard is done.
    Stop,
}

/// Turns a shard until it stops: in place while there is work, asleep while there is none. Beside
/// what it wants next a turn says how long the next one should wait for company, if something comes
/// soon. Keeps the thread to itself.
pub fn pump(mut parking: Parking, mut turn: impl FnMut(Instant) -> (Next, Duration)) {
    loop {
        match turn(Instant::now()) {
            (Next::Stop, _) => return parking.let_go(),
            (Next::More, _) => {}
            (Next::Until(deadline), pace) => parking.park(Some(deadline), pace),
            (Next::Idle, pace) => parking.park(None, pace),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        net,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use super::*;
    use crate::{
        host::allowed_cores,
        limits::TURN_INTERVAL_MIN,
        mailbox::{Outside, Post, mesh},
        net::{Datagrams, Socket, bind_group},
    };

    const PATIENCE: Duration = Duration::from_secs(5);

    fn bind() -> Socket {
        bind_group("127.0.0.1:0".parse().unwrap(), 1).unwrap().pop().unwrap()
    }

    fn post() -> (Post<u64>, Outside<u64>) {
        let post = mesh(1, 8).pop().unwrap();
        let outside = post.outside();
        (post, outside)
    }

    /// Runs a shard that is nothing but `turn`.
    fn start<T>(socket: Socket, post: Post<u64>, turn: T) -> ShardThread
    where
        T: FnMut(Instant, &mut Socket, &mut Post<u64>) -> Next + Send + 'static,
    {
        spawn_on(allowed_cores()[0], "shard", move || async move {
            let parking = Parking::new(&socket, post.waker()).unwrap();
            let (mut socket, mut post, mut turn) = (socket, post, turn);
            pump(parking, move |now| (turn(now, &mut socket, &mut post), TURN_INTERVAL_MIN));
        })
        .and_then(Starting::wait)
        .unwrap()
    }

    #[test]
    fn a_core_out_of_reach_is_refused() {
        for core in [1000, 9999] {
            let started = spawn_on(core, "shard", || async {});
            let refused = started.and_then(Starting::wait).err().unwrap();
            assert!(matches!(refused, StartError::Pin(_)), "{refused}");
        }
    }

    #[test]
    fn a_shard_is_pinned_and_named() {
        let core = *allowed_cores().last().unwrap();
        let (report, seen) = mpsc::channel();
        let thread = spawn_on(core, "shard-7", move || async move {
            let name = thread::current().name().map(str::to_owned);
            report.send((name, allowed_cores())).unwrap();
        });
        thread.unwrap().wait().unwrap().join().unwrap();
        assert_eq!(seen.recv().unwrap(), (Some("shard-7".to_owned()), vec![core]));
    }

    /// More parks than the executor could count wakers, each ended by mail, with an operation
    /// pending on the socket and a deadline pending on the timer all the while.
    #[test]
    fn mail_wakes_a_parked_shard_every_time() {
        let (post, outside) = post();
        let (answer, answers) = mpsc::channel();
        let shard = start(bind(), post, move |now, _, post| {
            let mut taken = VecDeque::new();
            post.take(8, &mut taken);
            for (_, mail) in taken {
                if mail == u64::MAX {
                    return Next::Stop;
                }
                answer.send(mail).unwrap();
            }
            Next::Until(now + Duration::from_secs(60))
        });
        for mail in 0..70_000 {
            outside.send(mail).unwrap();
            assert_eq!(answers.recv_timeout(PATIENCE), Ok(mail), "a wake was lost");
        }
        outside.send(u64::MAX).unwrap();
        shard.join().unwrap();
    }

    #[test]
    fn a_datagram_wakes_a_parked_shard_every_time() {
        let (post, outside) = post();
        let socket = bind();
        let target = socket.local_address();
        let shard = start(socket, post, |_, socket, post| {
            let mut taken = VecDeque::new();
            post.take(1, &mut taken);
            let mut arrived = Vec::new();
            let more = socket.receive(&mut |received| arrived.push(received));
            for received in arrived {
                let answer = crate::net::Train {
                    destination: received.remote,
                    source_ip: received.local_ip,
                    ecn: None,
                    contents: &received.data,
                    segment_size: None,
                };
                let _ = socket.send(&answer);
            }
            socket.flush();
            match (taken.is_empty(), more) {
                (false, _) => Next::Stop,
                (true, true) => Next::More,
                (true, false) => Next::Idle,
            }
        });
        let client = net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        for n in 0..20_000u32 {
            if n % 100 == 0 {
                client.send_to(b"", target).unwrap();
            }
            client.send_to(&n.to_be_bytes(), target).unwrap();
            let mut buffer = [0; 4];
            client.recv(&mut buffer).expect("a wake was lost");
            assert_eq!(buffer, n.to_be_bytes());
        }
        outside.send(0).unwrap();
        shard.join().unwrap();
    }

    #[test]
    fn deadlines_are_kept_and_past_ones_return_at_once() {
        let (post, _outside) = post();
        let mut deadlines = 0;
        let mut due: Option<Instant> = None;
        let begin = Instant::now();
        let shard = start(bind(), post, move |now, _, _| {
            if due.is_some_and(|due| now < due) {
                return Next::Until(due.unwrap());
            }
            deadlines += 1;
            let ahead = match deadlines {
                1..=100 => Duration::from_micros(500),
                101..=200 => Duration::ZERO,
                201 => Duration::from_millis(30),
                _ => return Next::Stop,
            };
            due = Some(now + ahead);
            Next::Until(now + ahead)
        });
        shard.join().unwrap();
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(80), "{took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    #[test]
    fn an_idle_shard_does_not_turn() {
        let (post, outside) = post();
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = turns.clone();
        let shard = start(bind(), post, move |_, _, post| {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut taken = VecDeque::new();
            post.take(1, &mut taken);
            if taken.is_empty() { Next::Idle } else { Next::Stop }
        });
        thread::sleep(Duration::from_millis(100));
        let before = turns.load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(500));
        assert_eq!(turns.load(Ordering::Relaxed), before);
        outside.send(0).unwrap();
        shard.join().unwrap();
    }

    #[test]
    fn shards_may_share_a_core() {
        let core = allowed_cores()[0];
        let shards: Vec<_> =
            (0..4).map(|_| spawn_on(core, "shard", || async {}).unwrap()).collect();
        for shard in shards {
            shard.wait().unwrap().join().unwrap();
        }
    }
}
