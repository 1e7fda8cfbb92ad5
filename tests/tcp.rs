//! Sessions over TCP on one shard, over real sockets: how they come in, what they cost, how they end. What is
//! said on them is `tests/mux/`, and released clients are in `interop.rs`.

#[allow(dead_code, reason = "each play needs a part of what all plays share")]
#[path = "mux/support.rs"]
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use shardcast::access::Access;
use shardcast::config::IdentitySource;
use shardcast::h3::request::Status;
use shardcast::limits::{LANE_MESSAGES, LINGER_DEFAULT, SESSION_BYTES};
use shardcast::mailbox::{Outside, mesh};
use shardcast::mux::ws::Opcode;
use shardcast::mux::{Frame, Wire};
use shardcast::net::{Datagrams, Received, Sent, Train};
use shardcast::quic::{Config as QuicConfig, CongestionControl, Keys};
use shardcast::secret::Secret;
use shardcast::session::Policy;
use shardcast::shard::entry::{Answer, Entry, Knock, Newcomer};
use shardcast::shard::message::ToShard;
use shardcast::shard::pipes::Caller;
use shardcast::shard::{CacheBounds, Next, Setting, Shard};
use shardcast::source::ClientBounds;
use shardcast::tcp::{Handover, Poll};
use shardcast::tls::Identity;
use shardcast::wall::Wall;
use shardcast::wire::{Protocol, Version};
use tokio::sync::oneshot;

use support::{bytes, generous, masked, message, take_sent};

/// Longer than anything on one machine takes.
const PATIENCE: Duration = Duration::from_secs(10);

const LITE_05: Protocol = Protocol::Version(Version::Lite05);

/// No datagrams come or go.
struct NoDatagrams;

impl Datagrams for NoDatagrams {
    fn receive(&mut self, _: &mut dyn FnMut(Received)) -> bool {
        false
    }

    fn send(&mut self, _: &Train<'_>) -> Sent {
        Sent::Taken
    }

    fn max_segments(&self) -> usize {
        1
    }
}

struct Stage {
    shard: Shard,
    outside: Outside<ToShard>,
    listener: TcpListener,
    ended: bool,
}

impl Stage {
    fn new() -> Stage {
        Stage::with(1 << 30, ClientBounds::default())
    }

    /// With so much memory for peers.
    fn with(memory: u64, bounds: ClientBounds) -> Stage {
        let hosts = vec!["localhost".try_into().unwrap()];
        let identity = Identity::load(&IdentitySource::Generated { hosts }, &[], &[b"h3"]);
        let keys = Keys { cid: [1; 32], reset: [2; 32], token: [3; 32] };
        let tls = identity.unwrap().config;
        let started = Instant::now();
        let setting = Setting {
            shard: 0,
            shards: 1,
            quic: QuicConfig::new(tls, keys, CongestionControl::default()).unwrap(),
            policy: Arc::new(Policy::open(7, Secret::new(&[4; 32]))),
            access: Arc::new(Access::open()),
            authority: None,
            seed: 1,
            started,
            wall: Wall::new(started, Duration::ZERO),
            linger: LINGER_DEFAULT,
            cache: CacheBounds { bytes: 64 << 20, duration: Duration::from_secs(30) },
            memory,
            routes: u64::MAX,
            bounds,
        };
        let post = mesh::<ToShard>(1, LANE_MESSAGES).pop().unwrap();
        let outside = post.outside();
        let mut shard = Shard::new(setting, post);
        shard.open_pipes(Poll::new().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Stage { shard, outside, listener, ended: false }
    }

    fn turn(&mut self) {
        self.ended |= self.shard.turn(Instant::now(), &mut NoDatagrams) == Next::Stop;
    }

    fn send(&self, mail: ToShard) {
        assert!(self.outside.send(mail).is_ok(), "a full lane");
    }

    /// Somebody wants a session.
    fn knock(&mut self, remote: &str, target: &str) -> Answer {
        let (line, mut answer) = oneshot::channel();
        let caller = caller(remote.parse().unwrap());
        let knock = Knock { target: target.to_owned(), protocol: LITE_05, caller, line };
        self.send(ToShard::Knock(Box::new(knock)));
        self.turn();
        answer.try_recv().expect("an answer in one turn")
    }

    /// Both ends of a connection.
    fn connection(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (server, _) = self.listener.accept().unwrap();
        client.set_nonblocking(true).unwrap();
        (client, server)
    }

    fn hand_over(&mut self, handover: Handover, remote: &str, entry: Entry) {
        let caller = caller(remote.parse().unwrap());
        let wire = Wire::Qmux01;
        let newcomer = Newcomer { handover, caller, wire, protocol: LITE_05, entry };
        self.send(ToShard::TakeOver(Box::new(newcomer)));
        self.turn();
    }

    /// A client that was let in.
    fn client(&mut self, early: &[u8]) -> Client {
        let Ok(entry) = self.knock("192.0.2.1:1", "/room") else { panic!("it is turned away") };
        let (stream, server) = self.connection();
        let handover = Handover { stream: server, tls: None, early: early.to_vec() };
        self.hand_over(handover, "192.0.2.1:1", entry);
        Client { stream, tls: None, heard: Vec::new(), has_ended: false }
    }

    /// Turns until something holds.
    #[track_caller]
    fn until(&mut self, client: &mut Client, what: &str, it: impl Fn(&Stage, &Client) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !it(self, client) {
            assert!(Instant::now() < deadline, "waited for {what}; heard {:?}", client.said());
            self.turn();
            client.hear();
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

fn caller(remote: SocketAddr) -> Caller {
    Caller { remote, local_ip: None, server_name: None, certificate: None }
}

struct Client {
    stream: TcpStream,
    tls: Option<ClientConnection>,
    heard: Vec<u8>,
    has_ended: bool,
}

impl Client {
    fn say(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            None => self.stream.write_all(bytes).unwrap(),
            Some(tls) => {
                tls.writer().write_all(bytes).unwrap();
                while tls.wants_write() {
                    tls.write_tls(&mut self.stream).unwrap();
                }
            }
        }
    }

    fn hear(&mut self) {
        let mut part = [0; 65_536];
        loop {
            let read = match &mut self.tls {
                None => self.stream.read(&mut part),
                Some(tls) => match tls.read_tls(&mut self.stream) {
                    Err(error) => Err(error),
                    Ok(bytes) => {
                        tls.process_new_packets().unwrap();
                        match tls.reader().read(&mut part) {
                            Err(error) if error.kind() == ErrorKind::WouldBlock && bytes > 0 => {
                                continue;
                            }
                            read => read,
                        }
                    }
                },
            };
            match read {
                Ok(0) => return self.has_ended = true,
                Ok(bytes) => self.heard.extend_from_slice(&part[..bytes]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.has_ended = true,
            }
        }
    }

    /// What it was told, in words.
    fn said(&self) -> Vec<String> {
        let (mut rest, mut said) = (&self.heard[..], Vec::new());
        while let Some((opcode, payload, used)) = take_sent(rest) {
            rest = &rest[used..];
            let mut payload = payload;
            if opcode != Opcode::Binary as u8 {
                said.push(format!("{opcode:x} {payload:?}"));
                continue;
            }
            while !payload.is_empty() {
                said.push(format!("{:?}", Frame::take(Wire::Qmux01, &mut payload).unwrap()));
            }
        }
        said
    }

    fn was_told(&self, words: &str) -> bool {
        self.said().iter().any(|said| said.contains(words))
    }
}

/// What a lite-05 client says first: parameters, its SETUP, and that it wants to hear of everything.
fn hello() -> Vec<u8> {
    let frames =
        [Frame::Parameters(generous()), bytes(2, &[1, 1, 0], true), bytes(0, &[1, 2, 0, 0], false)];
    frames
        .iter()
        .flat_map(|frame| {
            let mut payload = Vec::new();
            frame.encode(&mut payload);
            message(&payload)
        })
        .collect()
}

fn closed() -> Vec<u8> {
    masked(Opcode::Close as u8, true, &1000_u16.to_be_bytes(), [1, 2, 3, 4])
}

/// The answer to Announce: there is nothing.
const ANNOUNCED: &str = "Stream { id: StreamId(0), data: [";

#[test]
fn a_session_begins_and_ends_and_leaves_nothing() {
    let mut stage = Stage::new();
    let mut client = stage.client(&[]);
    stage.until(&mut client, "parameters", |_, client| client.was_told("Parameters"));
    assert!(!client.was_told("Stream"), "before it has allowed anything: {:?}", client.said());
    client.say(&hello());
    stage.until(&mut client, "an answer", |_, client| client.was_told(ANNOUNCED));
    let held = stage.shard.held();
    assert_eq!((held.connections, held.granted_bytes), (1, SESSION_BYTES));
    client.say(&closed());
    stage.until(&mut client, "the end", |_, client| client.has_ended);
    assert_eq!(client.said().last().unwrap(), "8 [3, 232]");
    drop(client.stream.shutdown(std::net::Shutdown::Both));
    stage.until(&mut client, "nothing to be left", |stage, _| stage.shard.held().connections == 0);
    let held = stage.shard.held();
    assert_eq!((held.granted_bytes, held.clients), (0, 0));
}

#[test]
fn what_came_behind_the_request_is_read_first_and_the_rest_in_any_pieces() {
    let hello = hello();
    for cut in [0, 1, 7, hello.len() / 2, hello.len() - 1, hello.len()] {
        let mut stage = Stage::new();
        let mut client = stage.client(&hello[..cut]);
        for byte in &hello[cut..] {
            client.say(&[*byte]);
            stage.turn();
        }
        stage.until(&mut client, "an answer", |_, client| client.was_told(ANNOUNCED));
    }
}

#[test]
fn tls_goes_on_where_the_acceptor_left_it() {
    let mut stage = Stage::new();
    let (mut stream, mut server) = stage.connection();
    stream.set_nonblocking(false).unwrap();
    let (mut tls, mut accepted) = tls_pair();
    let handshake = std::thread::spawn(move || {
        while accepted.is_handshaking() {
            accepted.complete_io(&mut server).unwrap();
        }
        (accepted, server)
    });
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).unwrap();
    }
    let (accepted, server) = handshake.join().unwrap();
    stream.set_nonblocking(true).unwrap();
    let Ok(entry) = stage.knock("192.0.2.1:1", "/") else { panic!("it is turned away") };
    let handover = Handover { stream: server, tls: Some(Box::new(accepted)), early: Vec::new() };
    stage.hand_over(handover, "192.0.2.1:1", entry);
    let mut client = Client { stream, tls: Some(tls), heard: Vec::new(), has_ended: false };
    client.say(&hello());
    stage.until(&mut client, "an answer", |_, client| client.was_told(ANNOUNCED));
    client.say(&closed());
    stage.until(&mut client, "the end", |_, client| client.has_ended);
    assert_eq!(client.said().last().unwrap(), "8 [3, 232]");
}

/// Of who trusts the certificate of whom.
fn tls_pair() -> (ClientConnection, ServerConnection) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    (
        ClientConnection::new(Arc::new(client), name).unwrap(),
        ServerConnection::new(Arc::new(server)).unwrap(),
    )
}

#[test]
fn who_may_not_come_in_is_told_so_as_http_says_it() {
    let bounds = ClientBounds { per_source: 1, ..ClientBounds::default() };
    let mut stage = Stage::with(1 << 30, bounds);
    let refused = |answer: Answer| answer.err().map(|(status, _)| status);
    let long = format!("/{}", "x".repeat(2000));
    for (target, status) in [
        ("/room", None),
        ("/?jwt=nothing", Some(Status::Unauthorized)),
        (long.as_str(), Some(Status::Malformed)),
    ] {
        assert_eq!(refused(stage.knock("192.0.2.1:1", target)), status, "{target}");
    }
    let client = stage.client(&[]);
    assert_eq!(refused(stage.knock("192.0.2.1:9", "/")), Some(Status::TooManyRequests));
    assert_eq!(refused(stage.knock("192.0.2.9:1", "/")), None);
    drop(client);

    // There is memory for one, and then for none.
    let mut stage = Stage::with(SESSION_BYTES * 3 / 2, ClientBounds::default());
    let client = stage.client(&[]);
    let other = stage.knock("192.0.2.9:1", "/");
    assert_eq!(refused(other), Some(Status::Unavailable));
    let refusals = &stage.shard.session_counts().refusals;
    assert!(refusals.rows().any(|row| row == ("no_memory", 1)), "{refusals:?}");
    drop(client);
    stage.send(ToShard::Stop);
    stage.turn();
    assert_eq!(refused(stage.knock("192.0.2.9:1", "/")), Some(Status::Unavailable));
}

#[test]
fn violations_and_breaks_end_one_session_and_no_other() {
    let mut stage = Stage::new();
    let mut other = stage.client(&hello());
    stage.until(&mut other, "an answer", |_, client| client.was_told(ANNOUNCED));
    // Text.
    let mut client = stage.client(&hello());
    client.say(&masked(Opcode::Text as u8, true, b"hello", [0; 4]));
    stage.until(&mut client, "the end", |_, client| client.has_ended);
    assert!(client.was_told("is_orderly: false, code: 1003") && client.was_told("8 [3, 235]"));
    drop(client);
    // Gone without a word.
    let client = stage.client(&hello());
    drop(client);
    // Half a message, and nothing more.
    let mut client = stage.client(&hello());
    client.say(&hello()[..9]);
    drop(client);
    stage
        .until(&mut other, "the others to be gone", |stage, _| stage.shard.held().connections == 1);
    other.say(&masked(Opcode::Ping as u8, true, b"still there?", [9; 4]));
    stage.until(&mut other, "a pong", |_, client| client.was_told("a [115"));
    assert_eq!(stage.shard.held().granted_bytes, SESSION_BYTES);
}

#[test]
fn a_relay_that_ends_says_so_abnormally() {
    let mut stage = Stage::new();
    let mut client = stage.client(&hello());
    stage.until(&mut client, "an answer", |_, client| client.was_told(ANNOUNCED));
    stage.send(ToShard::Stop);
    stage.until(&mut client, "the end", |stage, client| client.has_ended && stage.ended);
    assert!(client.was_told("is_orderly: false, code: 0") && client.was_told("8 [3, 233]"));
}

/// Nobody is left to hear the last word.
#[test]
fn who_says_goodbye_and_hangs_up_at_once_leaves_nothing() {
    let mut stage = Stage::new();
    let mut other = stage.client(&hello());
    let mut client = stage.client(&hello());
    stage.until(&mut client, "an answer", |_, client| client.was_told(ANNOUNCED));
    client.say(&closed());
    drop(client);
    stage.until(&mut other, "the other to be gone", |stage, _| stage.shard.held().connections == 1);
    // And costs no turns.
    assert_ne!(stage.shard.turn(Instant::now(), &mut NoDatagrams), Next::More);
    assert_eq!(stage.shard.held().granted_bytes, SESSION_BYTES);
}

/// A session that an operator ends is told why, in good order.
#[test]
fn a_session_is_kicked_in_good_order() {
    let mut stage = Stage::new();
    let mut client = stage.client(&hello());
    stage.until(&mut client, "an answer", |_, client| client.was_told(ANNOUNCED));
    let (line, mut page) = oneshot::channel();
    stage.send(ToShard::Sessions { from: 0, line });
    stage.turn();
    let page = page.try_recv().unwrap();
    let [row] = &page.sessions[..] else { panic!("{page:?}") };
    assert_eq!((row.transport, row.remote.to_string().as_str()), ("websocket", "192.0.2.1:1"));
    assert!(!row.is_secure);
    let (done, _) = oneshot::channel();
    let sessions = vec![(row.slot, row.generation)];
    stage.send(ToShard::Kick { sessions, done });
    stage.until(&mut client, "the end", |_, client| client.has_ended);
    assert!(client.was_told("Close { is_orderly: true"), "{:?}", client.said());
}
