//! A datagram reaches the shard that owns its connection, whatever address it comes from: clients
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
use shardcast::net::{Datagrams, Received, Sent, Train, steer};
use shardcast::quic::{Config as QuicConfig, CongestionControl, Keys};
use shardcast::secret::Secret;
use shardcast::session::Policy;
use shardcast::shard::clients::ClientBounds;
use shardcast::shard::mailbox::mesh;
use shardcast::shard::{CacheBounds, Setting, Shard};
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
    assert_eq!(port.sent, 0, "this shard has nothing to answer");

    shards[1].turn(started, &mut port);
    let counts = shards[1].counters();
    assert_eq!((counts.datagrams_total, counts.misrouted_datagrams_total), (0, 0));
    assert_eq!(shards[1].held().connections, 1, "the connection lives where its ID says");
    assert!(port.sent > 0, "and is answered from there");

    // The control of the control: the same datagram on the right shard is not misrouted.
    let mut shards = self::shards(SHARDS, started);
    port.inbox.push_back(flight);
    shards[1].turn(started, &mut port);
    assert_eq!(shards[1].counters().misrouted_datagrams_total, 0);
    assert_eq!(shards[1].held().connections, 1);
}

fn shards(count: usize, started: Instant) -> Vec<Shard> {
    let hosts = vec!["localhost".try_into().expect("a name")];
    let source = IdentitySource::Generated { hosts };
    let alpn = Version::Lite06.alpn().as_bytes();
    let identity = Identity::load(&source, &[], &[alpn]).expect("an identity");
    let keys = Keys { cid: [1; 32], reset: [2; 32], token: [3; 32] };
    let quic = QuicConfig::new(identity.config, keys, CongestionControl::default())
        .expect("a QUIC configuration");
    let policy = Arc::new(Policy::open(7, Secret::new(&[4; 32])));
    let posts = mesh(count, LANE_MESSAGES);
    let setting = |shard| Setting {
        shard,
        shards: count,
        quic: quic.clone(),
        policy: policy.clone(),
        access: Arc::new(Access::open()),
        authority: None,
        seed: SEED,
        started,
        wall: Wall::new(started, Duration::ZERO),
        linger: LINGER_DEFAULT,
        cache: CacheBounds { bytes: 1 << 20, duration: CACHE_DURATION_DEFAULT },
        memory: 1 << 30,
        bounds: ClientBounds::default(),
    };
    posts.into_iter().enumerate().map(|(shard, post)| Shard::new(setting(shard), post)).collect()
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
    sent: usize,
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

    fn send(&mut self, _train: &Train<'_>) -> Sent {
        self.sent += 1;
        Sent::Taken
    }

    fn max_segments(&self) -> usize {
        1
    }
}
