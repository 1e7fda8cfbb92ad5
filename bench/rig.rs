//! A server and its clients in one thread, without sockets and on a made-up clock, for programs that
//! drive turns by hand. Knows streams and bytes, no message.

#[path = "../tests/support/trusting.rs"]
mod trusting;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto as proto;
use quinn_proto::{Dir, StreamId, VarInt};
use rustls::SignatureScheme;
use shardcast::net::{Datagrams, Received, Sent, Train};
use shardcast::rt::Next;

use trusting::trusting;

const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 4433);

/// From one end to the other.
const LATENCY: Duration = Duration::from_micros(100);

/// What a client lets the server open, and send ahead of being read.
const STREAMS: u32 = 1000;
const WINDOW_BYTES: u32 = 8 << 20;

/// What a Linux kernel takes in one send.
const SEGMENTS_MAX: usize = 64;

/// Rounds at one instant before somebody counts as running in circles.
const ROUNDS_MAX: usize = 10_000;

/// What is driven.
pub trait Turn {
    fn turn(&mut self, now: Instant, link: &mut Link) -> Next;
}

/// The server's end of the network.
#[derive(Default)]
pub struct Link {
    pub inbox: VecDeque<Received>,
    /// Trains on their way to clients: where to, their datagrams, and the length of each.
    pub sent: Vec<(SocketAddr, Vec<u8>, usize)>,
    /// Nothing can be sent.
    pub is_full: bool,
}

impl Datagrams for Link {
    fn receive(&mut self, deliver: &mut dyn FnMut(Received)) -> bool {
        self.inbox.drain(..).for_each(deliver);
        false
    }

    fn send(&mut self, train: &Train<'_>) -> Sent {
        if self.is_full {
            return Sent::Blocked;
        }
        let segment = train.segment_size.unwrap_or(train.contents.len());
        self.sent.push((train.destination, train.contents.to_vec(), segment));
        Sent::Taken
    }

    fn max_segments(&self) -> usize {
        SEGMENTS_MAX
    }
}

pub struct Rig<S> {
    pub server: S,
    pub link: Link,
    pub clients: Vec<Client>,
    pub now: Instant,
}

impl<S: Turn> Rig<S> {
    pub fn new(server: S) -> Rig<S> {
        Rig { server, link: Link::default(), clients: Vec::new(), now: Instant::now() }
    }

    /// Adds a client and lets its handshake happen; returns its number.
    pub fn connect(&mut self, alpn: &str) -> usize {
        let number = self.clients.len();
        self.clients.push(Client::connect(alpn, number, self.now));
        self.run(Duration::from_millis(5));
        assert!(self.clients[number].is_up, "the handshake of client {number}");
        number
    }

    /// Lets time pass, and everything happen that has to.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..ROUNDS_MAX {
            self.upwards();
            let next = self.turns();
            let is_quiet = self.link.sent.is_empty();
            self.now += LATENCY;
            self.downwards();
            if is_quiet && self.clients.iter().all(|client| client.unsent.is_empty()) {
                let mine = self.clients.iter_mut().filter_map(|c| c.conn.poll_timeout()).min();
                let theirs = if let Next::Until(at) = next { Some(at) } else { None };
                match [mine, theirs].into_iter().flatten().min() {
                    Some(at) if at < end => self.now = self.now.max(at),
                    _ => {
                        self.now = self.now.max(end);
                        return;
                    }
                }
            }
        }
        panic!("no end of news within {span:?}");
    }

    /// The server's turns at this instant, until it wants no more.
    pub fn turns(&mut self) -> Next {
        for _ in 0..ROUNDS_MAX {
            match self.server.turn(self.now, &mut self.link) {
                Next::More => {}
                next => return next,
            }
        }
        panic!("turns without end");
    }

    /// What clients want to send reaches the server's socket.
    pub fn upwards(&mut self) {
        for client in &mut self.clients {
            client.transmit(self.now);
            for data in client.unsent.drain(..) {
                let remote = client.address;
                self.link.inbox.push_back(Received { remote, local_ip: None, ecn: None, data });
            }
        }
    }

    /// What the server has sent reaches its clients.
    pub fn downwards(&mut self) {
        for (destination, contents, segment) in self.link.sent.drain(..) {
            let number = usize::from(destination.port() - CLIENT_PORT_MIN);
            let client = &mut self.clients[number];
            for datagram in contents.chunks(segment) {
                client.receive(self.now, datagram.into());
            }
        }
        for client in &mut self.clients {
            client.transmit(self.now);
        }
    }
}

/// A client's port tells its number.
const CLIENT_PORT_MIN: u16 = 10_000;

pub struct Client {
    pub address: SocketAddr,
    endpoint: proto::Endpoint,
    handle: proto::ConnectionHandle,
    pub conn: proto::Connection,
    pub is_up: bool,
    /// Why it is over.
    pub lost: Option<String>,
    /// Whether it takes what comes on streams.
    pub reads: bool,
    pub streams: BTreeMap<StreamId, Incoming>,
    unsent: Vec<BytesMut>,
}

/// What has come on a stream.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Incoming {
    pub bytes: Vec<u8>,
    pub end: Option<End>,
    /// The server wants no more of ours.
    pub is_stopped: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Finished,
    Reset(u64),
}

impl Client {
    fn connect(alpn: &str, number: usize, now: Instant) -> Client {
        let reset = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[1; 32]);
        let mut config = proto::EndpointConfig::new(Arc::new(reset));
        // The packets are the same in every run, all but their keys.
        config.rng_seed(Some([number as u8; 32]));
        let mut endpoint = proto::Endpoint::new(Arc::new(config), None, true, None);
        let (handle, conn) = endpoint
            .connect(now, client_config(alpn), SERVER.into(), "localhost")
            .expect("a configuration that suits");
        let port = CLIENT_PORT_MIN + u16::try_from(number).expect("few clients");
        Client {
            address: ([10, 0, 0, 2], port).into(),
            endpoint,
            handle,
            conn,
            is_up: false,
            lost: None,
            reads: true,
            streams: BTreeMap::new(),
            unsent: Vec::new(),
        }
    }

    /// Opens a stream and writes on it.
    pub fn open(&mut self, dir: Dir, bytes: &[u8], fin: bool) -> StreamId {
        let stream = self.conn.streams().open(dir).expect("the server grants streams");
        self.write(stream, bytes, fin);
        stream
    }

    pub fn write(&mut self, stream: StreamId, bytes: &[u8], fin: bool) {
        let mut chunks = [Bytes::copy_from_slice(bytes)];
        let mut send = self.conn.send_stream(stream);
        let written = send.write_chunks(&mut chunks).expect("an open stream with a window");
        assert_eq!(written.bytes, bytes.len(), "the window is large enough");
        if fin {
            send.finish().expect("it was not stopped");
        }
    }

    fn receive(&mut self, now: Instant, datagram: BytesMut) {
        let mut buf = Vec::new();
        let event = self.endpoint.handle(now, SERVER.into(), None, None, datagram, &mut buf);
        if let Some(proto::DatagramEvent::ConnectionEvent(_, event)) = event {
            self.conn.handle_event(event);
        }
    }

    fn transmit(&mut self, now: Instant) {
        if self.conn.poll_timeout().is_some_and(|at| at <= now) {
            self.conn.handle_timeout(now);
        }
        self.take_events();
        let mut buf = Vec::new();
        while let Some(transmit) = self.conn.poll_transmit(now, SEGMENTS_MAX, &mut buf) {
            let segment = transmit.segment_size.unwrap_or(transmit.size);
            self.unsent.extend(buf[..transmit.size].chunks(segment).map(BytesMut::from));
            buf.clear();
        }
        while let Some(event) = self.conn.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.conn.handle_event(event);
            }
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.conn.poll() {
            match event {
                proto::Event::Connected => self.is_up = true,
                proto::Event::ConnectionLost { reason } => self.lost = Some(reason.to_string()),
                proto::Event::Stream(proto::StreamEvent::Opened { dir }) => {
                    while let Some(stream) = self.conn.streams().accept(dir) {
                        self.read(stream);
                    }
                }
                proto::Event::Stream(proto::StreamEvent::Readable { id }) => self.read(id),
                proto::Event::Stream(proto::StreamEvent::Stopped { id, .. }) => {
                    self.streams.entry(id).or_default().is_stopped = true;
                }
                _ => {}
            }
        }
    }

    fn read(&mut self, stream: StreamId) {
        let incoming = self.streams.entry(stream).or_default();
        if !self.reads {
            return;
        }
        let mut recv = self.conn.recv_stream(stream);
        let Ok(mut chunks) = recv.read(true) else { return };
        loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => incoming.bytes.extend_from_slice(&chunk.bytes),
                Ok(None) => incoming.end = Some(End::Finished),
                Err(proto::ReadError::Reset(code)) => {
                    incoming.end = Some(End::Reset(code.into_inner()));
                }
                Err(proto::ReadError::Blocked) => break,
            }
            if incoming.end.is_some() {
                break;
            }
        }
        let _ = chunks.finalize();
    }

    /// Takes what it has not read so far.
    pub fn catch_up(&mut self) {
        self.reads = true;
        let streams: Vec<StreamId> = self.streams.keys().copied().collect();
        for stream in streams {
            if stream.dir() == Dir::Bi || stream.initiator() == proto::Side::Server {
                self.read(stream);
            }
        }
    }

    /// Streams of one kind that the server has opened, in order.
    pub fn opened(&self, dir: Dir) -> impl Iterator<Item = (StreamId, &Incoming)> {
        let streams = self.streams.iter();
        streams
            .map(|(id, incoming)| (*id, incoming))
            .filter(move |(id, _)| id.dir() == dir && id.initiator() == proto::Side::Server)
    }

    pub fn close(&mut self, now: Instant) {
        self.conn.close(now, VarInt::from_u32(0), Bytes::new());
    }
}

fn client_config(alpn: &str) -> proto::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(trusting(&[SignatureScheme::ECDSA_NISTP256_SHA256]))
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.into()];
    let crypto = proto::crypto::rustls::QuicClientConfig::try_from(tls).expect("its suites");
    let mut transport = proto::TransportConfig::default();
    transport
        .max_concurrent_uni_streams(STREAMS.into())
        .max_concurrent_bidi_streams(STREAMS.into())
        .stream_receive_window(WINDOW_BYTES.into())
        .receive_window(WINDOW_BYTES.into());
    let mut config = proto::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    config
}
