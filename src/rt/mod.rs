//! The executor of a shard: glommio, behind few enough functions that it remains a choice.
//! Knows threads, cores and sleeping; knows nothing of what a turn does.

use std::{
    future::{Future, poll_fn},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use glommio::{LocalExecutorBuilder, Placement, io::BufferedFile, net::UdpSocket, timer::Timer};

use crate::shard::mailbox::Parked;

/// Registered with each of glommio's three rings. We give it no storage work, so its minimum.
const IO_MEMORY_BYTES: usize = 64 << 10;

/// How soon glommio asks a task to step aside: never. Between hearing of an event and running the
/// task that awaits it, glommio 0.9 checks this timer, and if it has passed goes to sleep for ever
/// with that task still to run (measured: about once in 150,000 sleeps with 1 ms). The pump is the
/// only task and looks at socket, mail and clock itself, so nothing waits for this.
const PREEMPT_INTERVAL: Duration = Duration::from_secs(3600);

/// A pump that finds work without end still lets other tasks of its executor run this often.
const BUSY_SPAN_MAX: Duration = Duration::from_millis(1);

/// The first sleep of a process registers a memory barrier, which takes many milliseconds.
/// Sleeping this long once before the shard starts puts that cost where nobody waits.
const WARM_UP: Duration = Duration::from_micros(500);

/// A shard's thread.
pub struct ShardThread {
    handle: thread::JoinHandle<()>,
}

/// Why a shard's thread did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start a thread ({0}): raise the limit of processes (`ulimit -u`)")]
    Thread(io::Error),
    #[error("cannot pin a thread to core {0}: choose a core that `taskset -p` of the relay allows")]
    Pin(usize),
    #[error("cannot start the io_uring executor: {0}")]
    Executor(String),
}

/// Starts a thread pinned to `cpu` with an executor that runs `main` to its end.
///
/// Returns when the executor stands, or says why it does not.
pub fn spawn_on<M, F>(cpu: usize, name: &str, main: M) -> Result<ShardThread, StartError>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let (report, started) = mpsc::channel();
    let label = name.to_owned();
    let body = move || {
        // Before glommio does it, because its helper thread panics where this returns false.
        let representable = cpu < libc::CPU_SETSIZE as usize;
        if !representable || !core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
            let _ = report.send(Err(StartError::Pin(cpu)));
            return;
        }
        let executor = LocalExecutorBuilder::new(Placement::Fixed(cpu))
            .name(&label)
            .io_memory(IO_MEMORY_BYTES)
            .preempt_timer(PREEMPT_INTERVAL)
            .make();
        match executor {
            Err(error) => {
                let _ = report.send(Err(StartError::Executor(error.to_string())));
            }
            Ok(executor) => executor.run(async move {
                Timer::new(WARM_UP).await;
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
    started.recv().unwrap_or_else(|_| {
        Err(StartError::Executor("its thread panicked; see the message above".to_owned()))
    })?;
    Ok(ShardThread { handle })
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

/// Lets the executor's other tasks run. It looks at its rings only when all of them wait.
pub async fn yield_now() {
    glommio::executor().yield_task_queue_now().await;
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

/// Turns a shard until it stops: in place while there is work, asleep while there is none.
pub async fn pump(mut parking: Parking, mut turn: impl FnMut(Instant) -> Next) {
    let mut now = Instant::now();
    let mut busy_since = now;
    loop {
        let slept = match turn(now) {
            Next::Stop => return,
            Next::More => false,
            Next::Until(deadline) => parking.park(Some(deadline)).await == Woke::Slept,
            Next::Idle => parking.park(None).await == Woke::Slept,
        };
        now = Instant::now();
        if slept {
            busy_since = now;
        } else if now.duration_since(busy_since) >= BUSY_SPAN_MAX {
            yield_now().await;
            now = Instant::now();
            busy_since = now;
        }
    }
}

/// Whether a park gave the executor a chance to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woke {
    AtOnce,
    Slept,
}

/// Where one shard sleeps until its socket is readable, mail comes, or time is up.
///
/// Three properties of glommio 0.9 shape this. It counts live wakers in 16 bits and remembers
/// another one each time that a pending operation is polled; a wake from another thread can meet
/// the same hole as the preemption timer above; and cancelling costs more than keeping. So two
/// operations stay in the ring from park to park, are polled only when they have ended, and
/// other threads wake the shard by a descriptor instead of the executor's own wakers.
pub struct Parking {
    parked: Arc<Parked>,
    bell: Waker,
    socket: Rc<UdpSocket>,
    rung: Rc<BufferedFile>,
    readable: Option<Watch>,
    mail: Option<Watch>,
    timer: Option<(Instant, Timer)>,
}

impl Parking {
    /// To be called on the shard's executor. `socket` is duplicated; datagrams stay in it.
    pub fn new(socket: &impl AsRawFd, parked: Arc<Parked>) -> io::Result<Self> {
        let socket = duplicate(socket.as_raw_fd())?;
        let bell = Bell::new()?;
        let rung = duplicate(bell.0.as_raw_fd())?;
        // SAFETY: both descriptors are fresh, and nobody else closes them.
        let (socket, rung) =
            unsafe { (UdpSocket::from_raw_fd(socket), BufferedFile::from_raw_fd(rung)) };
        Ok(Self {
            parked,
            bell: Waker::from(Arc::new(bell)),
            socket: Rc::new(socket),
            rung: Rc::new(rung),
            readable: None,
            mail: None,
            timer: None,
        })
    }

    /// Returns when the socket is readable, mail waits, or the deadline has passed. May return
    /// early for no reason.
    pub async fn park(&mut self, deadline: Option<Instant>) -> Woke {
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Woke::AtOnce;
        }
        let mut woke = Woke::AtOnce;
        poll_fn(|context| {
            // Says that it sleeps before it looks at the mail, so that no mail slips between.
            let ready = !self.parked.park(&self.bell)
                || self.poll_socket(context, woke)
                || self.poll_timer(context, deadline);
            if ready {
                self.parked.unpark();
                return Poll::Ready(());
            }
            self.listen_for_mail(context);
            woke = Woke::Slept;
            Poll::Pending
        })
        .await;
        woke
    }

    /// True if the socket has something now. A peek that ended while the shard was busy speaks
    /// of a datagram long taken, so a new one is asked, which looks at the socket directly.
    fn poll_socket(&mut self, context: &Context<'_>, woke: Woke) -> bool {
        if let Some(watch) = self.readable.as_mut().filter(|watch| watch.serves(context)) {
            if !watch.has_ended() {
                return false;
            }
            if woke == Woke::Slept {
                self.readable = None;
                return true;
            }
        }
        let socket = self.socket.clone();
        let mut watch = Watch::new(context.waker(), async move {
            // An error is readable too: the next receive meets and counts it.
            let _ = socket.peek_from(&mut [0; 1]).await;
        });
        let ready = watch.has_ended();
        self.readable = (!ready).then_some(watch);
        ready
    }

    /// Whether it has rung does not matter, because the mail itself is looked at.
    fn listen_for_mail(&mut self, context: &Context<'_>) {
        if let Some(watch) = self.mail.as_mut().filter(|watch| watch.serves(context))
            && !watch.has_ended()
        {
            return;
        }
        let rung = self.rung.clone();
        let mut watch = Watch::new(context.waker(), async move {
            let _ = rung.read_at(0, size_of::<u64>()).await;
        });
        // Before its first poll an operation is not in the ring.
        if watch.has_ended() {
            context.waker().wake_by_ref();
        }
        self.mail = Some(watch);
    }

    fn poll_timer(&mut self, context: &mut Context<'_>, deadline: Option<Instant>) -> bool {
        let Some(deadline) = deadline else {
            self.timer = None;
            return false;
        };
        match &self.timer {
            // Armed for this very time by an earlier park.
            Some((armed, _)) if *armed == deadline => Instant::now() >= deadline,
            _ => {
                let span = deadline.saturating_duration_since(Instant::now());
                let mut timer = Timer::new(span);
                let ready = Pin::new(&mut timer).poll(context).is_ready();
                self.timer = Some((deadline, timer));
                ready
            }
        }
    }
}

/// An operation that stays in the ring, and an ear for its end.
struct Watch {
    operation: Pin<Box<dyn Future<Output = ()>>>,
    ended: bool,
    ear: Arc<Ear>,
    waker: Waker,
}

struct Ear {
    heard: AtomicBool,
    pump: Waker,
}

impl Watch {
    fn new(pump: &Waker, operation: impl Future<Output = ()> + 'static) -> Self {
        // As if heard, so that the first look starts the operation.
        let ear = Arc::new(Ear { heard: AtomicBool::new(true), pump: pump.clone() });
        let waker = Waker::from(ear.clone());
        Self { operation: Box::pin(operation), ended: false, ear, waker }
    }

    /// False if made for another task than the one that asks.
    fn serves(&self, context: &Context<'_>) -> bool {
        self.ear.pump.will_wake(context.waker())
    }

    fn has_ended(&mut self) -> bool {
        if !self.ended && self.ear.heard.swap(false, Ordering::Acquire) {
            let mut context = Context::from_waker(&self.waker);
            self.ended = self.operation.as_mut().poll(&mut context).is_ready();
        }
        self.ended
    }
}

impl Wake for Ear {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.heard.store(true, Ordering::Release);
        self.pump.wake_by_ref();
    }
}

/// An eventfd that other threads ring.
struct Bell(OwnedFd);

impl Bell {
    fn new() -> io::Result<Self> {
        // SAFETY: takes plain numbers; the descriptor that it returns is ours.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fresh and owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let one = 1u64;
        // It fails, or waits, only at a count of 2^64: nobody rings that often between reads.
        // SAFETY: eight readable bytes, as an eventfd demands.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of_val(&one)) };
    }
}

fn duplicate(descriptor: RawFd) -> io::Result<RawFd> {
    // SAFETY: takes and returns plain numbers.
    let copy = unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 { Err(io::Error::last_os_error()) } else { Ok(copy) }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, net, sync::atomic::AtomicUsize};

    use super::*;
    use crate::{
        host::allowed_cores,
        net::{Datagrams, Socket, bind_group},
        shard::mailbox::{Outside, Post, mesh},
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
            pump(parking, move |now| turn(now, &mut socket, &mut post)).await;
        })
        .unwrap()
    }

    #[test]
    fn a_core_out_of_reach_is_refused() {
        for core in [1000, 9999] {
            let refused = spawn_on(core, "shard", || async {}).err().unwrap();
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
        thread.unwrap().join().unwrap();
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
        let shards: Vec<_> = (0..4)
            .map(|_| spawn_on(core, "shard", || async { yield_now().await }).unwrap())
            .collect();
        for shard in shards {
            shard.join().unwrap();
        }
    }
}
