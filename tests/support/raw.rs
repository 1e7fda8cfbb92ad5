//! A QUIC client that says on its streams whatever a drill wants, right or wrong, and tells how
//! the relay answered. It shares no code with the relay above quinn-proto.

#[path = "trusting.rs"]
mod trusting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use quinn_proto as proto;
use quinn_proto::{Dir, VarInt};
use rustls::pki_types::CertificateDer;
use shardcast::wire::{Setup, StreamCode, UniType, Version};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::client::within;
use trusting::trusting;

/// Longer than the relay's own, which then decides.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long somebody waits who may be turned away.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// What the relay may open, and send ahead of being read.
const STREAMS: u32 = 1000;
const WINDOW_BYTES: u32 = 8 << 20;

const DATAGRAM_BYTES_MAX: usize = 65_535;

/// One connection. Dropping it says nothing to the relay.
pub struct Raw {
    address: SocketAddr,
    shared: Arc<Shared>,
    driver: JoinHandle<()>,
}

struct Shared {
    state: Mutex<State>,
    /// Touched whenever something may have changed.
    changed: watch::Sender<()>,
    /// There may be something to send.
    kick: Notify,
}

struct State {
    endpoint: proto::Endpoint,
    handle: proto::ConnectionHandle,
    conn: proto::Connection,
    relay: SocketAddr,
    is_up: bool,
    lost: Option<Lost>,
    streams: BTreeMap<u64, Stream>,
    /// Streams that the relay opened, in order.
    accepted: Vec<u64>,
    datagrams: Vec<Bytes>,
    /// Streams with something to read, while nothing is read.
    unread: Option<BTreeSet<u64>>,
}

/// How a connection ended.
#[derive(Clone, Debug)]
pub struct Lost {
    /// The code, if the relay closed the session.
    pub code: Option<u64>,
    pub reason: String,
    pub at: Instant,
}

/// What came of one stream.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    pub received: Vec<u8>,
    /// How the relay ended its direction.
    pub end: Option<End>,
    /// The code with which the relay wants no more of ours.
    pub stopped: Option<u64>,
    unsent: VecDeque<Bytes>,
    fin: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Finished,
    Reset(u64),
}

pub fn client_tls(alpn: &str) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(trusting(&schemes))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.into()];
    Arc::new(config)
}

pub fn client_config(
    tls: Arc<rustls::ClientConfig>,
    idle_timeout: Duration,
) -> proto::ClientConfig {
    let crypto =
        proto::crypto::rustls::QuicClientConfig::try_from(tls).expect("the suites of TLS 1.3");
    let mut transport = proto::TransportConfig::default();
    transport
        .max_idle_timeout(Some(idle_timeout.try_into().expect("it fits a varint")))
        .max_concurrent_uni_streams(STREAMS.into())
        .max_concurrent_bidi_streams(STREAMS.into())
        .stream_receive_window(WINDOW_BYTES.into())
        .receive_window(WINDOW_BYTES.into())
        .mtu_discovery_config(None);
    let mut config = proto::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    config
}

pub fn client_endpoint() -> proto::Endpoint {
    let reset = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[1; 32]);
    let config = proto::EndpointConfig::new(Arc::new(reset));
    proto::Endpoint::new(Arc::new(config), None, true, None)
}

fn stream(id: u64) -> proto::StreamId {
    VarInt::from_u64(id).expect("a stream id").into()
}

impl Raw {
    /// Returns when the TLS handshake is over. Nothing was said on a stream then.
    pub async fn connect(relay: SocketAddr, version: Version) -> Raw {
        Raw::connect_impatient(relay, version, IDLE_TIMEOUT).await
    }

    /// As a browser does: what is spoken in the session is agreed on later.
    pub async fn connect_web(relay: SocketAddr) -> Raw {
        Raw::connect_with(relay, "h3", IDLE_TIMEOUT).await
    }

    /// As `connect`, with an idle timeout of the client's own.
    pub async fn connect_impatient(
        relay: SocketAddr,
        version: Version,
        idle_timeout: Duration,
    ) -> Raw {
        Raw::connect_with(relay, version.alpn(), idle_timeout).await
    }

    /// As `connect`, by who dials the relay by this name.
    pub async fn connect_named(relay: SocketAddr, version: Version, name: &str) -> Raw {
        Raw::connect_as(relay, version.alpn(), IDLE_TIMEOUT, name).await
    }

    async fn connect_with(relay: SocketAddr, alpn: &str, idle_timeout: Duration) -> Raw {
        Raw::connect_as(relay, alpn, idle_timeout, "localhost").await
    }

    async fn connect_as(relay: SocketAddr, alpn: &str, idle_timeout: Duration, name: &str) -> Raw {
        let raw = Raw::dial(Ipv4Addr::LOCALHOST, relay, alpn, idle_timeout, name).await;
        raw.until("the handshake", |state| state.is_up.then_some(())).await;
        raw
    }

    /// As `introduced`, from another address of this machine; nothing if the relay takes nobody in.
    pub async fn try_from(from: Ipv4Addr, relay: SocketAddr, alpn: &str) -> Option<Raw> {
        let raw = Raw::dial(from, relay, alpn, IDLE_TIMEOUT, "localhost").await;
        let is_up = |state: &mut State| match (state.is_up, &state.lost) {
            (_, Some(_)) => Some(false),
            (is_up, None) => is_up.then_some(true),
        };
        let up = tokio::time::timeout(DIAL_TIMEOUT, raw.until("an answer", is_up)).await;
        if !up.unwrap_or(false) {
            return None;
        }
        if alpn != "h3" {
            raw.open(Dir::Uni, &setup(&Setup::default()), true).await;
        }
        Some(raw)
    }

    async fn dial(
        from: Ipv4Addr,
        relay: SocketAddr,
        alpn: &str,
        idle_timeout: Duration,
        name: &str,
    ) -> Raw {
        let socket = UdpSocket::bind((from, 0)).await.expect("a free port");
        socket.connect(relay).await.expect("loopback has a route");
        let address = socket.local_addr().expect("it is bound");
        let mut endpoint = client_endpoint();
        let config = client_config(client_tls(alpn), idle_timeout);
        let (handle, conn) = endpoint.connect(Instant::now(), config, relay, name).expect("a name");
        let state = State {
            endpoint,
            handle,
            conn,
            relay,
            is_up: false,
            lost: None,
            streams: BTreeMap::new(),
            accepted: Vec::new(),
            datagrams: Vec::new(),
            unread: None,
        };
        let changed = watch::Sender::new(());
        let shared = Arc::new(Shared { state: state.into(), changed, kick: Notify::new() });
        let driver = tokio::spawn(drive(shared.clone(), socket));
        Raw { address, shared, driver }
    }

    /// The certificate that the relay has shown.
    pub fn certificate(&self) -> Vec<u8> {
        let shown = self.state().conn.crypto_session().peer_identity();
        let chain = shown.and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
        chain.expect("the handshake is over")[0].to_vec()
    }

    /// Where the relay sees it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As `connect`, followed by a SETUP that says nothing where the version has one.
    pub async fn introduced(relay: SocketAddr, version: Version) -> Raw {
        let raw = Raw::connect(relay, version).await;
        if version >= Version::Lite05 {
            raw.open(Dir::Uni, &setup(&Setup::default()), true).await;
        }
        raw
    }

    /// Opens a stream as soon as the relay grants one, and writes to it.
    pub async fn open(&self, dir: Dir, bytes: &[u8], fin: bool) -> u64 {
        let id = self.until("stream credit", |state| state.open(dir)).await;
        self.send(id, bytes, fin);
        id
    }

    /// Opens a stream if the relay grants one now.
    pub fn try_open(&self, dir: Dir, bytes: &[u8], fin: bool) -> Option<u64> {
        let id = self.state().open(dir)?;
        self.send(id, bytes, fin);
        Some(id)
    }

    pub fn send(&self, id: u64, bytes: &[u8], fin: bool) {
        let mut state = self.state();
        let stream = state.streams.entry(id).or_default();
        stream.unsent.push_back(Bytes::copy_from_slice(bytes));
        stream.fin |= fin;
        state.flush(id);
        drop(state);
        self.shared.kick.notify_one();
    }

    pub fn send_datagram(&self, bytes: &[u8]) {
        let datagram = Bytes::copy_from_slice(bytes);
        self.state().conn.datagrams().send(datagram, false).expect("the relay takes datagrams");
        self.shared.kick.notify_one();
    }

    /// Waits for so many datagrams, and returns all that have come.
    pub async fn datagrams(&self, count: usize) -> Vec<Bytes> {
        let look =
            |state: &mut State| (state.datagrams.len() >= count).then(|| state.datagrams.clone());
        self.until(format!("{count} datagrams"), look).await
    }

    /// Leaves as a client does that was told to, and returns once that was sent.
    pub async fn close(self) {
        self.state().conn.close(Instant::now(), VarInt::from_u32(0), Bytes::new());
        self.shared.kick.notify_one();
        self.until("the close to be sent", |state| state.lost.is_some().then_some(())).await;
    }

    /// What came of a stream so far.
    pub fn stream(&self, id: u64) -> Stream {
        self.state().streams.get(&id).cloned().unwrap_or_default()
    }

    /// Waits until a stream is as the drill wants it.
    pub async fn stream_until(
        &self,
        what: &str,
        id: u64,
        wanted: impl Fn(&Stream) -> bool,
    ) -> Stream {
        let look = |state: &mut State| state.streams.get(&id).filter(|s| wanted(s)).cloned();
        self.until(what, look).await
    }

    /// The bytes of the first stream of the relay that satisfies the predicate.
    pub async fn accepted(&self, what: &str, wanted: impl Fn(u64, &[u8]) -> bool) -> u64 {
        let look = |state: &mut State| {
            let mut ids = state.accepted.iter().copied();
            ids.find(|id| wanted(*id, &state.streams[id].received))
        };
        self.until(what, look).await
    }

    /// Whether such a stream of the relay has come by now.
    pub fn has_accepted(&self, wanted: impl Fn(u64, &[u8]) -> bool) -> bool {
        let state = self.state();
        state.accepted.iter().any(|id| wanted(*id, &state.streams[id].received))
    }

    /// How the connection ended.
    #[track_caller]
    pub fn lost(&self, what: &str) -> impl Future<Output = Lost> {
        self.until(format!("the session to be closed: {what}"), |state| state.lost.clone())
    }

    /// What the relay has asked so far, each on a stream of its own.
    pub fn requests(&self) -> Vec<(u64, Vec<u8>)> {
        let state = self.state();
        let asked = state.accepted.iter().filter(|id| **id & 2 == 0);
        asked.map(|id| (*id, state.streams[id].received.clone())).collect()
    }

    /// Whether flow control has taken all that was written to a stream.
    pub fn has_sent(&self, id: u64) -> bool {
        self.state().streams.get(&id).is_none_or(|stream| stream.unsent.is_empty())
    }

    /// From now on it neither hears nor says anything.
    pub fn die(&self) {
        self.driver.abort();
    }

    pub fn is_open(&self) -> bool {
        self.state().lost.is_none()
    }

    /// From now on whatever comes stays where it is.
    pub fn stop_reading(&self) {
        self.state().unread.get_or_insert_default();
    }

    pub fn read_again(&self) {
        let mut state = self.state();
        for id in state.unread.take().unwrap_or_default() {
            state.read(id);
        }
        drop(state);
        self.shared.kick.notify_one();
    }

    #[track_caller]
    fn until<T>(
        &self,
        what: impl Display,
        mut look: impl FnMut(&mut State) -> Option<T>,
    ) -> impl Future<Output = T> {
        let mut changed = self.shared.changed.subscribe();
        let search = async move {
            loop {
                if let Some(found) = look(&mut self.state()) {
                    return found;
                }
                changed.changed().await.expect("the connection outlives its readers");
            }
        };
        within(what, search)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("state")
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A SETUP stream.
pub fn setup(setup: &Setup) -> Vec<u8> {
    let mut bytes = vec![UniType::Setup as u8];
    setup.encode(&mut bytes);
    bytes
}

async fn drive(shared: Arc<Shared>, socket: UdpSocket) {
    let mut buf = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let (datagrams, deadline, is_over) = {
            let mut state = shared.state.lock().expect("state");
            let datagrams = state.turn(Instant::now());
            (datagrams, state.conn.poll_timeout(), state.conn.is_drained())
        };
        for datagram in datagrams {
            // What the host refuses is lost, and QUIC makes up for it.
            let _ = socket.send(&datagram).await;
        }
        shared.changed.send_replace(());
        if is_over {
            return;
        }
        let timer = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = socket.readable() => {
                let mut state = shared.state.lock().expect("state");
                while let Ok(size) = socket.try_recv(&mut buf) {
                    state.datagram(Instant::now(), &buf[..size]);
                }
            }
            () = timer => {}
            () = shared.kick.notified() => {}
        }
    }
}

impl State {
    fn datagram(&mut self, now: Instant, data: &[u8]) {
        let mut answer = Vec::new();
        let data = BytesMut::from(data);
        let event = self.endpoint.handle(now, self.relay, None, None, data, &mut answer);
        if let Some(proto::DatagramEvent::ConnectionEvent(_, event)) = event {
            self.conn.handle_event(event);
        }
    }

    /// Does everything there is to do; returns what is to be sent.
    fn turn(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if self.conn.poll_timeout().is_some_and(|at| at <= now) {
            self.conn.handle_timeout(now);
        }
        while let Some(event) = self.conn.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.conn.handle_event(event);
            }
        }
        while let Some(event) = self.conn.poll() {
            self.happened(now, event);
        }
        for dir in [Dir::Uni, Dir::Bi] {
            while let Some(id) = self.conn.streams().accept(dir) {
                let id = VarInt::from(id).into_inner();
                self.accepted.push(id);
                self.streams.entry(id).or_default();
                self.read(id);
            }
        }
        let mut sent = Vec::new();
        let mut buf = Vec::new();
        while let Some(transmit) = self.conn.poll_transmit(now, 1, &mut buf) {
            buf.truncate(transmit.size);
            sent.push(std::mem::take(&mut buf));
        }
        // What was just sent may have been a close, which has no event of its own.
        if self.conn.is_closed() && self.lost.is_none() {
            self.lost = Some(Lost { code: None, reason: "closed by us".to_owned(), at: now });
        }
        sent
    }

    fn happened(&mut self, now: Instant, event: proto::Event) {
        match event {
            proto::Event::Connected => self.is_up = true,
            proto::Event::ConnectionLost { reason } => {
                let code = match &reason {
                    proto::ConnectionError::ApplicationClosed(close) => {
                        Some(close.error_code.into_inner())
                    }
                    _ => None,
                };
                self.lost.get_or_insert(Lost { code, reason: reason.to_string(), at: now });
            }
            proto::Event::Stream(proto::StreamEvent::Readable { id }) => {
                self.read(VarInt::from(id).into_inner());
            }
            proto::Event::Stream(proto::StreamEvent::Writable { id }) => {
                self.flush(VarInt::from(id).into_inner());
            }
            proto::Event::Stream(proto::StreamEvent::Stopped { id, error_code }) => {
                let stream = self.streams.entry(VarInt::from(id).into_inner()).or_default();
                stream.stopped = Some(StreamCode::from_raw_quic(error_code.into_inner()).0);
            }
            proto::Event::DatagramReceived => {
                while let Some(datagram) = self.conn.datagrams().recv() {
                    self.datagrams.push(datagram);
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, dir: Dir) -> Option<u64> {
        let id = VarInt::from(self.conn.streams().open(dir)?).into_inner();
        self.streams.insert(id, Stream::default());
        Some(id)
    }

    fn read(&mut self, id: u64) {
        if let Some(unread) = &mut self.unread {
            unread.insert(id);
            return;
        }
        let known = self.streams.entry(id).or_default();
        let mut recv = self.conn.recv_stream(stream(id));
        let Ok(mut chunks) = recv.read(true) else { return };
        loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => known.received.extend_from_slice(&chunk.bytes),
                Ok(None) => known.end = Some(End::Finished),
                Err(proto::ReadError::Reset(code)) => {
                    let code = StreamCode::from_raw_quic(code.into_inner());
                    known.end = Some(End::Reset(code.0));
                }
                Err(proto::ReadError::Blocked) => break,
            }
            if known.end.is_some() {
                break;
            }
        }
        let _ = chunks.finalize();
    }

    fn flush(&mut self, id: u64) {
        let Some(known) = self.streams.get_mut(&id) else { return };
        let mut send = self.conn.send_stream(stream(id));
        while let Some(chunk) = known.unsent.front_mut() {
            match send.write(chunk) {
                Ok(taken) => chunk.advance(taken),
                Err(proto::WriteError::Blocked) => return,
                Err(_) => chunk.clear(),
            }
            if chunk.is_empty() {
                known.unsent.pop_front();
            }
        }
        if std::mem::take(&mut known.fin) {
            let _ = send.finish();
        }
    }
}
