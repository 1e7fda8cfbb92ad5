//! quinn-proto held by hand, on the client's side: connections over a few UDP sockets, a list of
//! those with something to do, a heap of timers, and one sleep for all. Knows no moq.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, EcnCodepoint,
    Endpoint, EndpointConfig, Event, FinishError, ReadError, StreamId, TransportConfig, VarInt,
    WriteError,
};
use rustc_hash::FxHashMap;
use shardcast::net::{self, Datagrams, Received, Socket};
use shardcast::quic::trains::{self, Transmitted, Unsent, recycle};

/// Idle timeout and pings of released clients.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// Streams that the relay may open towards a peer that has use for them, and towards one that has
/// none but a SETUP. quinn-proto allocates a slot for each.
const STREAMS_WANTED: u32 = 1024;
const STREAMS_UNWANTED: u32 = 8;

/// What a kind of connection wants of its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Requests: it publishes.
    pub requests: bool,
    /// Groups: it watches.
    pub groups: bool,
}

/// Where the relay is and how to speak to it.
pub struct Target {
    pub address: SocketAddr,
    pub server_name: String,
    pub crypto: Arc<QuicClientConfig>,
}

#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    #[error("cannot bind a UDP socket: {0}")]
    Bind(String),
    #[error("cannot connect to {address}: {reason}")]
    Connect { address: SocketAddr, reason: String },
    #[error("ppoll failed: {0}")]
    Poll(io::Error),
}

pub struct Quic {
    proto: Endpoint,
    target: Target,
    sockets: Vec<Outlet>,
    /// By quinn-proto's handle.
    links: Vec<Option<Box<Link>>>,
    opened: usize,
    with_events: VecDeque<usize>,
    dirty: VecDeque<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize, u32)>>,
    /// Transmit buffers between uses.
    pool: Vec<Vec<u8>>,
}

struct Outlet {
    socket: Socket,
    /// There may be something to receive.
    is_readable: bool,
    /// The kernel's buffer was full at the last try.
    is_full: bool,
}

/// One connection.
pub struct Link {
    proto: Connection,
    /// Whose it is, for the program above.
    pub owner: usize,
    outlet: usize,
    generation: u32,
    has_events: bool,
    is_dirty: bool,
    scheduled: Option<Instant>,
    unsent: Unsent,
    /// What flow control did not take yet.
    backlogs: FxHashMap<StreamId, Backlog>,
}

#[derive(Default)]
struct Backlog {
    chunks: VecDeque<Bytes>,
    is_last: bool,
}

/// What happened on a connection.
#[derive(Debug)]
pub enum Happening {
    Connected,
    /// The relay opened a stream: there may be something to read.
    Opened(StreamId),
    Readable(StreamId),
    /// The relay wants no more of this stream, which is reset.
    Stopped(StreamId),
    /// The relay grants more streams.
    Available(Dir),
    Lost(ConnectionError),
}

/// How a read left the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    Pending,
    Finished,
    Reset(u64),
}

impl Quic {
    pub fn new(target: Target, sockets: usize) -> Result<Quic, QuicError> {
        let local = SocketAddr::new(local_ip(target.address.ip()), 0);
        let bind = |_| {
            let group = net::bind_group(local, 1);
            let mut group = group.map_err(|error| QuicError::Bind(error.to_string()))?;
            let socket = group.pop().expect("one socket was asked for");
            Ok(Outlet { socket, is_readable: false, is_full: false })
        };
        Ok(Quic {
            proto: Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None),
            target,
            sockets: (0..sockets).map(bind).collect::<Result<_, _>>()?,
            links: Vec::new(),
            opened: 0,
            with_events: VecDeque::new(),
            dirty: VecDeque::new(),
            timers: BinaryHeap::new(),
            pool: Vec::new(),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.target.address
    }

    /// Begins a connection; the slot it has as long as it lives.
    pub fn connect(
        &mut self,
        now: Instant,
        owner: usize,
        wants: Wants,
    ) -> Result<usize, QuicError> {
        let mut config = ClientConfig::new(self.target.crypto.clone());
        config.transport_config(Arc::new(transport(wants)));
        let address = self.target.address;
        let begun = self.proto.connect(now, config, address, &self.target.server_name);
        let (handle, proto) = begun.map_err(|error| {
            let reason = error.to_string();
            QuicError::Connect { address, reason }
        })?;
        let slot = handle.0;
        if self.links.len() <= slot {
            self.links.resize_with(slot + 1, || None);
        }
        self.links[slot] = Some(Box::new(Link {
            proto,
            owner,
            outlet: self.opened % self.sockets.len(),
            generation: self.opened as u32,
            has_events: false,
            is_dirty: false,
            scheduled: None,
            unsent: None,
            backlogs: FxHashMap::default(),
        }));
        self.opened += 1;
        self.note_events(slot);
        Ok(slot)
    }

    pub fn link(&mut self, slot: usize) -> Option<&mut Link> {
        self.links.get_mut(slot)?.as_deref_mut()
    }

    /// Takes one batch from every socket that has something; true if more may be waiting.
    pub fn receive(&mut self, now: Instant) -> bool {
        let Quic { proto, sockets, links, with_events, dirty, pool, .. } = self;
        let mut more = false;
        for outlet in sockets.iter_mut().filter(|outlet| outlet.is_readable) {
            outlet.is_readable = outlet.socket.receive(&mut |datagram| {
                receive_one(proto, links, with_events, dirty, pool, now, datagram);
            });
            more |= outlet.is_readable;
        }
        more
    }

    /// Puts a connection on the list of those whose events are to be looked at.
    fn note_events(&mut self, slot: usize) {
        let link = self.links[slot].as_deref_mut();
        note_events(link, slot, &mut self.with_events, &mut self.dirty);
    }

    /// Puts a connection on the list of those that may have something to send.
    pub fn note_dirty(&mut self, slot: usize) {
        if let Some(link) = self.links.get_mut(slot).and_then(|link| link.as_deref_mut()) {
            note_dirty(link, slot, &mut self.dirty);
        }
    }

    /// The next connection with events; each is listed once however much happened to it.
    pub fn next_with_events(&mut self) -> Option<usize> {
        let slot = self.with_events.pop_front()?;
        if let Some(link) = self.links[slot].as_deref_mut() {
            link.has_events = false;
        }
        Some(slot)
    }

    pub fn fire_timers(&mut self, now: Instant) {
        while let Some(&Reverse((at, slot, generation))) = self.timers.peek() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(link) = self.links[slot].as_deref_mut() else { continue };
            if link.generation != generation || link.scheduled != Some(at) {
                continue;
            }
            link.scheduled = None;
            if link.proto.poll_timeout().is_some_and(|deadline| deadline <= now) {
                link.proto.handle_timeout(now);
                self.note_events(slot);
            } else {
                self.schedule(slot);
            }
        }
    }

    pub fn next_timer(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, ..))| *at)
    }

    /// Enters a connection's next deadline into the heap, unless an earlier entry will look after
    /// it anyway.
    fn schedule(&mut self, slot: usize) {
        let Some(link) = self.links[slot].as_deref_mut() else { return };
        let Some(at) = link.proto.poll_timeout() else { return };
        if link.scheduled.is_none_or(|scheduled| at < scheduled) {
            link.scheduled = Some(at);
            self.timers.push(Reverse((at, slot, link.generation)));
        }
    }

    /// Transmits every dirty connection once. True if some have more to send at once.
    pub fn transmit(&mut self, now: Instant) -> bool {
        let mut more = false;
        for _ in 0..self.dirty.len() {
            let Some(slot) = self.dirty.pop_front() else { break };
            let Some(link) = self.links[slot].as_deref_mut() else { continue };
            link.is_dirty = false;
            let outlet = &mut self.sockets[link.outlet];
            let is_blocked = match transmit_one(link, now, outlet, &mut self.pool) {
                Transmitted::All => false,
                Transmitted::More => {
                    more = true;
                    true
                }
                // Tried again when the socket is writable.
                Transmitted::Blocked => true,
            };
            if is_blocked {
                self.note_dirty(slot);
            }
            self.after(slot);
        }
        for outlet in &mut self.sockets {
            outlet.is_full = outlet.is_full || outlet.socket.flush();
        }
        more
    }

    /// Lets the endpoint know what a connection has decided, and forgets it when it is done.
    fn after(&mut self, slot: usize) {
        let handle = ConnectionHandle(slot);
        while let Some(link) = self.links[slot].as_deref_mut() {
            let Some(event) = link.proto.poll_endpoint_events() else { break };
            let is_drained = event.is_drained();
            let answer = self.proto.handle_event(handle, event);
            if is_drained {
                self.links[slot] = None;
                return;
            }
            if let (Some(answer), Some(link)) = (answer, self.links[slot].as_deref_mut()) {
                link.proto.handle_event(answer);
                self.note_events(slot);
            }
        }
        self.schedule(slot);
    }

    /// Closes every connection, as a client does that has seen enough.
    pub fn close_all(&mut self, now: Instant) {
        for slot in 0..self.links.len() {
            if let Some(link) = self.links[slot].as_deref_mut() {
                link.proto.close(now, VarInt::from_u32(0), Bytes::from_static(b"measured"));
                self.note_dirty(slot);
            }
        }
    }

    /// Sleeps until a socket has something for us, takes something again after it was full, or the
    /// time has passed.
    pub fn wait(&mut self, timeout: Duration) -> Result<(), QuicError> {
        let mut polled: Vec<libc::pollfd> = Vec::with_capacity(self.sockets.len());
        for outlet in &self.sockets {
            let events = if outlet.is_full { libc::POLLIN | libc::POLLOUT } else { libc::POLLIN };
            polled.push(libc::pollfd { fd: outlet.socket.as_raw_fd(), events, revents: 0 });
        }
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: the descriptors and the timeout outlive the call, and the count is theirs.
        let ready = unsafe {
            let count = polled.len() as libc::nfds_t;
            libc::ppoll(polled.as_mut_ptr(), count, &raw const timeout, std::ptr::null())
        };
        if ready < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(QuicError::Poll(error));
            }
        }
        for (outlet, polled) in self.sockets.iter_mut().zip(&polled) {
            outlet.is_readable |= polled.revents & libc::POLLIN != 0;
            outlet.is_full &= polled.revents & libc::POLLOUT == 0;
        }
        Ok(())
    }
}

impl Link {
    /// The next thing that happened.
    pub fn poll(&mut self) -> Option<Happening> {
        loop {
            let mut streams = self.proto.streams();
            if let Some(id) = streams.accept(Dir::Uni).or_else(|| streams.accept(Dir::Bi)) {
                return Some(Happening::Opened(id));
            }
            let event = match self.proto.poll()? {
                Event::Connected => Happening::Connected,
                Event::ConnectionLost { reason } => Happening::Lost(reason),
                Event::Stream(event) => match event {
                    quinn_proto::StreamEvent::Readable { id } => Happening::Readable(id),
                    quinn_proto::StreamEvent::Stopped { id, .. } => {
                        self.reset(id, 0);
                        Happening::Stopped(id)
                    }
                    quinn_proto::StreamEvent::Available { dir } => Happening::Available(dir),
                    quinn_proto::StreamEvent::Writable { id } => {
                        self.flush(id);
                        continue;
                    }
                    quinn_proto::StreamEvent::Opened { .. }
                    | quinn_proto::StreamEvent::Finished { .. } => continue,
                },
                Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {
                    continue;
                }
            };
            return Some(event);
        }
    }

    /// None while the relay grants no credit; `Available` follows.
    pub fn open(&mut self, dir: Dir) -> Option<StreamId> {
        self.proto.streams().open(dir)
    }

    /// Sends all of `chunks`, now or when flow control permits, and then perhaps the end.
    pub fn send(&mut self, id: StreamId, chunks: &mut [Bytes], is_last: bool) {
        if let Some(backlog) = self.backlogs.get_mut(&id) {
            backlog.chunks.extend(chunks.iter_mut().map(std::mem::take));
            backlog.is_last |= is_last;
            return;
        }
        match write(&mut self.proto, id, chunks) {
            Written::All if is_last => self.finish(id),
            Written::All => {}
            Written::Blocked(first) => {
                let left = chunks[first..].iter_mut().map(std::mem::take).collect();
                self.backlogs.insert(id, Backlog { chunks: left, is_last });
            }
            Written::Stopped => self.reset(id, 0),
        }
    }

    fn flush(&mut self, id: StreamId) {
        let Some(mut backlog) = self.backlogs.remove(&id) else { return };
        match write(&mut self.proto, id, backlog.chunks.make_contiguous()) {
            Written::All if backlog.is_last => self.finish(id),
            Written::All => {}
            Written::Blocked(first) => {
                backlog.chunks.drain(..first);
                self.backlogs.insert(id, backlog);
            }
            Written::Stopped => self.reset(id, 0),
        }
    }

    fn finish(&mut self, id: StreamId) {
        // quinn-proto keeps a stream that the peer has stopped until it is reset.
        if let Err(FinishError::Stopped(_)) = self.proto.send_stream(id).finish() {
            self.reset(id, 0);
        }
    }

    pub fn reset(&mut self, id: StreamId, code: u64) {
        self.backlogs.remove(&id);
        let _ = self.proto.send_stream(id).reset(varint(code));
    }

    pub fn stop(&mut self, id: StreamId, code: u64) {
        let _ = self.proto.recv_stream(id).stop(varint(code));
    }

    /// Hands over what has arrived in order.
    pub fn read(&mut self, id: StreamId, mut take: impl FnMut(&[u8])) -> ReadEnd {
        let mut recv = self.proto.recv_stream(id);
        // Closed here means that it was stopped or read to its end before.
        let Ok(mut chunks) = recv.read(true) else { return ReadEnd::Pending };
        let end = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => take(&chunk.bytes),
                Ok(None) => break ReadEnd::Finished,
                Err(ReadError::Blocked) => break ReadEnd::Pending,
                Err(ReadError::Reset(code)) => break ReadEnd::Reset(code.into_inner()),
            }
        };
        // Whatever this allows the relay goes out when the turn transmits.
        let _ = chunks.finalize();
        end
    }
}

enum Written {
    All,
    /// The chunks before this one were taken, and maybe a part of it.
    Blocked(usize),
    Stopped,
}

fn write(proto: &mut Connection, id: StreamId, chunks: &mut [Bytes]) -> Written {
    let mut send = proto.send_stream(id);
    let mut first = 0;
    while first < chunks.len() {
        match send.write_chunks(&mut chunks[first..]) {
            Ok(written) => first += written.chunks,
            Err(WriteError::Blocked) => return Written::Blocked(first),
            Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return Written::Stopped,
        }
    }
    Written::All
}

fn receive_one(
    proto: &mut Endpoint,
    links: &mut [Option<Box<Link>>],
    with_events: &mut VecDeque<usize>,
    dirty: &mut VecDeque<usize>,
    pool: &mut Vec<Vec<u8>>,
    now: Instant,
    datagram: Received,
) {
    let Received { remote, ecn, data, .. } = datagram;
    let ecn = ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn.bits()));
    let mut buf = pool.pop().unwrap_or_default();
    // A response would be a stateless reset for a connection that is over: the relay hears no more.
    if let Some(DatagramEvent::ConnectionEvent(handle, event)) =
        proto.handle(now, remote, None, ecn, data, &mut buf)
        && let Some(link) = links.get_mut(handle.0).and_then(|link| link.as_deref_mut())
    {
        link.proto.handle_event(event);
        note_events(Some(link), handle.0, with_events, dirty);
    }
    recycle(pool, buf);
}

fn note_events(
    link: Option<&mut Link>,
    slot: usize,
    with_events: &mut VecDeque<usize>,
    dirty: &mut VecDeque<usize>,
) {
    let Some(link) = link else { return };
    if !std::mem::replace(&mut link.has_events, true) {
        with_events.push_back(slot);
    }
    note_dirty(link, slot, dirty);
}

fn note_dirty(link: &mut Link, slot: usize, dirty: &mut VecDeque<usize>) {
    if !std::mem::replace(&mut link.is_dirty, true) {
        dirty.push_back(slot);
    }
}

fn transmit_one(
    link: &mut Link,
    now: Instant,
    outlet: &mut Outlet,
    pool: &mut Vec<Vec<u8>>,
) -> Transmitted {
    if outlet.is_full {
        return Transmitted::Blocked;
    }
    let turnout =
        trains::transmit(&mut link.proto, &mut link.unsent, now, &mut outlet.socket, pool);
    let transmitted = turnout.transmitted;
    outlet.is_full = transmitted == Transmitted::Blocked;
    transmitted
}

/// Like a released client: quinn-proto's ACK behaviour, windows and first round trip, and no MTU
/// discovery.
fn transport(wants: Wants) -> TransportConfig {
    let credit = |wanted| if wanted { STREAMS_WANTED } else { STREAMS_UNWANTED };
    let mut transport = TransportConfig::default();
    let idle = IDLE_TIMEOUT.try_into().expect("ten seconds fit a varint");
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(credit(wants.requests)))
        .max_concurrent_uni_streams(VarInt::from_u32(credit(wants.groups)))
        .mtu_discovery_config(None);
    transport
}

/// Where to send from. On loopback the address itself, so that nobody outside can reach us.
fn local_ip(target: IpAddr) -> IpAddr {
    match target {
        target if target.is_loopback() => target,
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}
