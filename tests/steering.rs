//! A datagram reaches the shard that owns its connection, whatever address it comes from, and the process: clients
//! change their ports under load and lose nothing, and no shard ever sees another's datagram. Two
//! controls show that a datagram which does go astray is counted, and passed on.

mod support {
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod client;
    pub mod flow;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod nat;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod raw;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod relay;
}

use std::collections::{BTreeSet, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use shardcast::access::Access;
use shardcast::config::IdentitySource;
use shardcast::limits::{CACHE_DURATION_DEFAULT, IDLE_TIMEOUT, LANE_MESSAGES, LINGER_DEFAULT};
use shardcast::mailbox::{Outside, mesh};
use shardcast::net::steer::{self, Generation, Steering};
use shardcast::net::{Datagrams, Received, Sent, Train};
use shardcast::quic::{Config as QuicConfig, CongestionControl, Keys};
use shardcast::secret::Secret;
use shardcast::session::Policy;
use shardcast::shard::message::ToShard;
use shardcast::shard::{CacheBounds, Next, Setting, Shard};
use shardcast::source::ClientBounds;
use shardcast::tls::Identity;
use shardcast::wall::Wall;
use shardcast::wire::Version;
use support::client::*;
use support::flow::{Flow, prologue};
use support::nat::Nat;
use support::relay::Relay;

/// Fixes every payload. Printed by each play, so a failure can be repeated elsewhere.
const SEED: u64 = 0x5eed_0000_57ee_4000;

const PATH: &str = "live/cam";
const TRACK: &str = "video";

/// How often each client's port changes.
const REBINDS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_change_ports_on_two_shards() {
    change_ports(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_change_ports_on_four_shards() {
    change_ports(4).await;
}

/// A publisher and a viewer of every version, spread over all shards, each behind a NAT that
/// changes its port again and again while groups flow.
async fn change_ports(shards: usize) {
    println!("seed {SEED:#x}");
    let relay = Relay::start(shards).await;
    let mut nats = vec![Nat::before(relay.address()).await];
    let behind = relay.behind(nats[0].address());
    let publisher = Peer::connect_on(&behind, LITE_06, Role::Publisher, 0).await;
    let mut channel = publisher.announce(PATH, &[TRACK]);
    let prologue = prologue(SEED, 0);
    channel.publish(TRACK, &prologue);

    let mut audience = Vec::new();
    for (number, version) in VERSIONS.into_iter().enumerate() {
        let nat = Nat::before(relay.address()).await;
        let behind = relay.behind(nat.address());
        let mut viewer = Peer::connect_on(&behind, version, Role::Viewer, number % shards).await;
        let who = format!("{version} on shard {}", viewer.shard);
        viewer.sees(PATH).await;
        let mut view = viewer.subscribe(PATH, TRACK).await.expect("subscription");
        view.expect(&who, &prologue, carries_timestamps(version)).await;
        audience.push((who, viewer, view));
        nats.push(nat);
    }
    let sessions = relay.sessions();

    let mut flow = Flow::start(channel, TRACK, SEED, 1);
    let mut ports = BTreeSet::new();
    for _ in 1..REBINDS {
        for nat in &nats {
            ports.insert(nat.rebind().await);
            flow.more(1).await;
        }
    }
    // The last time what is under way is lost too. All at once, because viewers then hear nothing
    // until they keep their connections alive; and once, because a client of lite-03 or 04 gives
    // up whatever is 5 s late.
    let rebinding: Vec<_> = nats.iter().map(Nat::rebind_and_forget).collect();
    for port in rebinding {
        ports.insert(port.await);
    }
    flow.more(1).await;
    assert_eq!(ports.len(), REBINDS * nats.len(), "every port is new");

    let (mut channel, said) = flow.end().await;
    channel.finish(TRACK);
    println!("{shards} shards: {} groups, {} ports", said.groups.len(), ports.len());
    for (who, viewer, view) in &mut audience {
        view.expect(who, &said, carries_timestamps(viewer.version)).await;
        if carries_ends(viewer.version) {
            view.expect_end(who).await;
        }
    }
    assert_eq!(relay.sessions(), sessions, "nobody had to connect again");
    publisher.leave().await;
    for (_, mut viewer, _) in audience {
        viewer.loses(PATH).await;
        viewer.leave().await;
    }
    // While shards end one after another, the kernel gives the datagrams of those that are gone to
    // those that are left.
    relay.deserted().await;
    let ended = relay.stop().await;
    ended.expect_success();
    assert_eq!(ended.counts("misrouted_datagrams"), vec![0; shards]);
    assert_eq!(ended.counts("dropped_groups"), vec![0; shards]);
}

/// The kernel steers a train by its first datagram, so the rest of one that names several shards
/// goes astray: the one way to make the kernel do so from outside.
#[tokio::test]
async fn a_train_for_two_shards_is_counted() {
    const SHARDS: usize = 2;
    static SEGMENT_BYTES: libc::c_int = DATAGRAM_BYTES as libc::c_int;
    /// After the first of a train, datagrams for shard 0 and for shard 1 by turns.
    const ASTRAY: u64 = 3;
    let relay = Relay::start(SHARDS).await;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.connect(relay.address()).expect("loopback has a route");
    // SAFETY: the kernel copies the integer before the call returns, and the length matches.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const SEGMENT_BYTES).cast(),
            size_of_val(&SEGMENT_BYTES) as libc::socklen_t,
        )
    };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
    let datagrams = (0..2 * ASTRAY).map(|number| short_header(number as u8));
    let train = datagrams.collect::<Vec<_>>().concat();
    socket.send(&train).expect("the kernel takes a train");

    // Whoever is answered behind the train proves that it was received.
    let viewer = Peer::connect_on(&relay, LITE_06, Role::Viewer, 0).await;
    viewer.leave().await;
    let ended = relay.stop().await;
    ended.expect_success();
    assert_eq!(ended.counts("misrouted_datagrams"), [ASTRAY, 0]);
}

const DATAGRAM_BYTES: usize = 40;

/// A packet for a connection whose ID begins with this byte.
fn short_header(cid: u8) -> Vec<u8> {
    let mut datagram = vec![0xa5; DATAGRAM_BYTES];
    (datagram[0], datagram[1]) = (0x40, cid);
    datagram
}

/// A client's first flight that reaches the wrong shard is counted there, travels on by mail, and
/// opens the connection where its ID says.
#[test]
fn a_datagram_of_another_shard_is_counted_and_passed_on() {
    const SHARDS: usize = 2;
    let started = Instant::now();
    let mut shards = shards(SHARDS, started);
    let mut port = Port::default();
    let flight = first_flight(started, 1);
    assert_eq!(steer::shard_of(&flight, SHARDS), Some(1));

    port.inbox.push_back(flight.clone());
    shards[0].turn(started, &mut port);
    let counts = shards[0].counters();
    assert_eq!((counts.datagrams_total, counts.misrouted_datagrams_total), (1, 1));
    assert_eq!(shards[0].held().connections, 0, "it is not a connection of this shard");
    assert!(port.sent.is_empty(), "this shard has nothing to answer");

    shards[1].turn(started, &mut port);
    let counts = shards[1].counters();
    assert_eq!((counts.datagrams_total, counts.misrouted_datagrams_total), (0, 0));
    assert_eq!(shards[1].held().connections, 1, "the connection lives where its ID says");
    assert!(!port.sent.is_empty(), "and is answered from there");

    // The control of the control: the same datagram on the right shard is not misrouted.
    let mut shards = self::shards(SHARDS, started);
    port.inbox.push_back(flight);
    shards[1].turn(started, &mut port);
    assert_eq!(shards[1].counters().misrouted_datagrams_total, 0);
    assert_eq!(shards[1].held().connections, 1);
}

/// While another process takes over from this one, each answers for its own connections alone; when one is
/// gone the other tells its peers so.
#[test]
fn two_processes_answer_for_their_own() {
    let begun = Instant::now();
    let mut old = Process::of(Generation::Even, begun);
    let mut new = Process::of(Generation::Odd, begun);
    let mut client = Client::connect(begun);
    let mut said = Vec::new();
    for turn in 0..20 {
        let now = begun + turn * Duration::from_millis(1);
        let says = client.says(now);
        said.extend(says.clone());
        client.hears(now, old.turn(now, says));
    }
    assert!(!client.conn.is_handshaking(), "the handshake is complete");

    // What goes on with the handshake reaches the newer one where that takes over in the midst of it.
    let steering = |is_shared| Steering { shards: 1, current: Generation::Odd, is_shared };
    let now = begun + Duration::from_millis(20);
    // Whatever the fixed bit is: who knows that the other does not mind sets it at random (RFC 9287).
    let is_initial = |datagram: &[u8]| datagram[0] & 0xb0 == 0x80;
    let first_id = said[0][6..14].to_vec();
    let later = said.iter().filter(|datagram| is_initial(datagram) && datagram[6..14] != first_id);
    let later: Vec<_> = later.collect();
    assert!(!later.is_empty(), "the client has gone on to our ID");
    for datagram in later {
        assert_eq!(steering(true).place_of(datagram), Some(1));
        assert!(new.turn(now, vec![datagram.clone()]).is_empty(), "not its own: no answer");
    }
    assert_eq!(new.shard.held().connections, 0, "nor a connection");

    // The older one ends, and its client learns that by the first that it says.
    client.conn.ping();
    let ping = client.says(now).pop().expect("a ping");
    assert_eq!(steering(true).place_of(&ping), Some(0));
    assert_eq!(steering(false).place_of(&ping), Some(1));
    assert!(new.turn(now, vec![ping.clone()]).is_empty(), "its process lives");
    new.outside.send(ToShard::Shared(false)).expect("room");
    let reset = new.turn(now, vec![ping]);
    assert_eq!(reset.len(), 1);
    client.hears(now, reset);
    assert!(client.conn.is_drained(), "the client has understood");
}

/// One with a shard, beside another one.
struct Process {
    shard: Shard,
    outside: Outside<ToShard>,
    port: Port,
}

impl Process {
    fn of(generation: Generation, started: Instant) -> Process {
        let post = mesh(1, LANE_MESSAGES).pop().expect("one");
        let outside = post.outside();
        let shard = Shard::new(setting((0, 1), started, (generation, true)), post);
        Process { shard, outside, port: Port::default() }
    }

    /// What it answers.
    fn turn(&mut self, now: Instant, datagrams: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        self.port.inbox.extend(datagrams);
        while self.shard.turn(now, &mut self.port) == Next::More {}
        std::mem::take(&mut self.port.sent)
    }
}

/// A client of quinn's, datagram by datagram.
struct Client {
    endpoint: quinn_proto::Endpoint,
    handle: quinn_proto::ConnectionHandle,
    conn: quinn_proto::Connection,
}

const RELAY: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4443);

impl Client {
    fn connect(now: Instant) -> Client {
        let tls = support::raw::client_tls(Version::Lite06.alpn());
        let config = support::raw::client_config(tls, IDLE_TIMEOUT);
        let mut endpoint = support::raw::client_endpoint();
        let (handle, conn) = endpoint.connect(now, config, RELAY, "localhost").expect("a name");
        Client { endpoint, handle, conn }
    }

    fn says(&mut self, now: Instant) -> Vec<Vec<u8>> {
        while let Some(event) = self.conn.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.conn.handle_event(event);
            }
        }
        let mut said = Vec::new();
        let mut datagram = Vec::new();
        while let Some(transmit) = self.conn.poll_transmit(now, 1, &mut datagram) {
            said.push(datagram[..transmit.size].to_vec());
            datagram.clear();
        }
        said
    }

    fn hears(&mut self, now: Instant, datagrams: Vec<Vec<u8>>) {
        for datagram in datagrams {
            let data = BytesMut::from(&datagram[..]);
            let mut answer = Vec::new();
            let event = self.endpoint.handle(now, RELAY, None, None, data, &mut answer);
            if let Some(quinn_proto::DatagramEvent::ConnectionEvent(_, event)) = event {
                self.conn.handle_event(event);
            }
        }
        while self.conn.poll().is_some() {}
    }
}

fn shards(count: usize, started: Instant) -> Vec<Shard> {
    let alone = (Generation::default(), false);
    let posts = mesh(count, LANE_MESSAGES).into_iter().enumerate();
    let shard = |(shard, post)| Shard::new(setting((shard, count), started, alone), post);
    posts.map(shard).collect()
}

/// Of one of so many shards, in a process of a generation that is alone or not.
fn setting(
    (shard, shards): (usize, usize),
    started: Instant,
    (generation, is_shared): (Generation, bool),
) -> Setting {
    let hosts = vec!["localhost".try_into().expect("a name")];
    let source = IdentitySource::Generated { hosts };
    let alpn = Version::Lite06.alpn().as_bytes();
    let identity = Identity::load(&source, &[], &[alpn]).expect("an identity");
    let keys = Keys { cid: [1; 32], reset: [2; 32], token: [3; 32] };
    let quic = QuicConfig::new(identity.config, keys, CongestionControl::default())
        .expect("a QUIC configuration");
    Setting {
        shard,
        shards,
        quic: quic.of(generation, is_shared),
        policy: Arc::new(Policy::open(7, Secret::new(&[4; 32]))),
        access: Arc::new(Access::open()),
        authority: None,
        seed: SEED,
        started,
        wall: Wall::new(started, Duration::ZERO),
        linger: LINGER_DEFAULT,
        cache: CacheBounds { bytes: 1 << 20, duration: CACHE_DURATION_DEFAULT },
        memory: 1 << 30,
        routes: u64::MAX,
        bounds: ClientBounds::default(),
    }
}

/// The first datagram of a client whose connection ID names a shard.
fn first_flight(now: Instant, shard: u8) -> Vec<u8> {
    let tls = support::raw::client_tls(Version::Lite06.alpn());
    let mut config = support::raw::client_config(tls, IDLE_TIMEOUT);
    let id = quinn_proto::ConnectionId::new(&[shard; 8]);
    config.initial_dst_cid_provider(Arc::new(move || id));
    let mut endpoint = support::raw::client_endpoint();
    let relay = SocketAddr::from(([127, 0, 0, 1], 4443));
    let (_, mut conn) = endpoint.connect(now, config, relay, "localhost").expect("a name");
    let mut flight = Vec::new();
    let transmit = conn.poll_transmit(now, 1, &mut flight).expect("a first flight");
    flight.truncate(transmit.size);
    flight
}

/// A shard's socket.
#[derive(Default)]
struct Port {
    inbox: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

impl Datagrams for Port {
    fn receive(&mut self, deliver: &mut dyn FnMut(Received)) -> bool {
        for datagram in self.inbox.drain(..) {
            let data = BytesMut::from(&datagram[..]);
            let remote = SocketAddr::from(([127, 0, 0, 1], 5000));
            deliver(Received { remote, local_ip: None, ecn: None, data });
        }
        false
    }

    fn send(&mut self, train: &Train<'_>) -> Sent {
        let length = train.segment_size.unwrap_or(train.contents.len());
        self.sent.extend(train.contents.chunks(length).map(<[u8]>::to_vec));
        Sent::Taken
    }

    fn max_segments(&self) -> usize {
        1
    }
}
