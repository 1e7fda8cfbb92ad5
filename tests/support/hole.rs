//! A QUIC client that leaves a hole at the beginning of every stream and sends what the relay lets it
//! send behind that. The relay can read none of it, and cannot know that the rest never comes.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto as proto;
use quinn_proto::Dir;
use shardcast::wire::{Setup, Version};

use super::raw::{client_config, client_endpoint, client_tls, setup};

/// More than any relay grants.
const UNLIMITED: u64 = 1 << 30;

/// Longer than a drill.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the relay may take to answer, and after what time it has not got what was sent.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const LOST_AFTER: Duration = Duration::from_millis(50);

/// Datagrams after which the relay is waited for: it has to take them, or nothing is held.
const DATAGRAMS_AT_ONCE: usize = 32;

pub struct Digger {
    socket: UdpSocket,
    relay: SocketAddr,
    endpoint: proto::Endpoint,
    handle: proto::ConnectionHandle,
    conn: proto::Connection,
}

impl Digger {
    /// One whose session is up.
    pub fn connect(relay: SocketAddr) -> Digger {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        socket.connect(relay).expect("loopback has a route");
        socket.set_read_timeout(Some(ANSWER_MAX)).expect("a timeout");
        let mut config = client_config(client_tls(Version::Lite06.alpn()), IDLE_TIMEOUT);
        let mut congestion = proto::congestion::CubicConfig::default();
        congestion.initial_window(UNLIMITED);
        let mut transport = proto::TransportConfig::default();
        transport
            .congestion_controller_factory(Arc::new(congestion))
            .send_window(UNLIMITED)
            .mtu_discovery_config(None);
        config.transport_config(Arc::new(transport));
        let mut endpoint = client_endpoint();
        let (handle, conn) =
            endpoint.connect(Instant::now(), config, relay, "localhost").expect("a name");
        let mut digger = Digger { socket, relay, endpoint, handle, conn };
        while digger.conn.is_handshaking() {
            digger.send(true);
            digger.hear();
        }
        let said = digger.conn.streams().open(Dir::Uni).expect("the relay grants streams");
        let mut stream = digger.conn.send_stream(said);
        stream.write(&setup(&Setup::default())).expect("it takes a SETUP");
        stream.finish().expect("it is open");
        digger.send(true);
        // Its acknowledgement: what comes later is not listened to.
        digger.hear();
        digger
    }

    /// Sends all that the relay takes, but for the first byte of each stream. Returns how much that was.
    pub fn dig(&mut self) -> usize {
        let mut streams = Vec::new();
        for dir in [Dir::Uni, Dir::Bi] {
            while let Some(id) = self.conn.streams().open(dir) {
                assert_eq!(self.conn.send_stream(id).write(&[0]), Ok(1));
                streams.push(id);
            }
        }
        self.send(false);
        self.socket.set_read_timeout(Some(LOST_AFTER)).expect("a timeout");
        let chunk = [0; 16 << 10];
        let mut sent = 0;
        for id in streams {
            while let Ok(taken) = self.conn.send_stream(id).write(&chunk) {
                sent += taken;
            }
        }
        self.send(true);
        sent
    }

    /// Sends what there is to be sent, or loses it for good: no acknowledgement is heeded and no timer
    /// fires from then on that could tell of the loss.
    fn send(&mut self, arrives: bool) {
        let mut buf = Vec::new();
        let mut unheard = 0;
        while let Some(transmit) = self.conn.poll_transmit(Instant::now(), 1, &mut buf) {
            if arrives {
                self.socket.send(&buf[..transmit.size]).expect("loopback takes it");
                unheard += 1;
            }
            if unheard == DATAGRAMS_AT_ONCE {
                self.await_acknowledgement();
                unheard = 0;
            }
            buf.clear();
        }
    }

    fn await_acknowledgement(&self) {
        // None comes where the host has dropped all of them.
        let _ = self.socket.recv(&mut [0; 2048]);
        self.socket.set_nonblocking(true).expect("a flag");
        while self.socket.recv(&mut [0; 2048]).is_ok() {}
        self.socket.set_nonblocking(false).expect("a flag");
    }

    fn hear(&mut self) {
        let mut data = BytesMut::zeroed(2048);
        let size = self.socket.recv(&mut data).expect("the relay answers");
        data.truncate(size);
        let mut answer = Vec::new();
        let event = self.endpoint.handle(Instant::now(), self.relay, None, None, data, &mut answer);
        if let Some(proto::DatagramEvent::ConnectionEvent(_, event)) = event {
            self.conn.handle_event(event);
        }
        while let Some(event) = self.conn.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.conn.handle_event(event);
            }
        }
        while self.conn.poll().is_some() {}
    }
}
