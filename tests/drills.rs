//! What goes wrong around a relay, played with real processes: peers that die, stay silent, come in
//! crowds, lie or send noise. Whoever behaves meanwhile loses nothing.

mod support {
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod camera;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod client;
    pub mod flow;
    pub mod hole;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod nat;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod raw;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod relay;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod show;
}

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use quinn_proto::Dir;
use shardcast::limits::{
    IDLE_TIMEOUT, KEEP_ALIVE, LOG_FLUSH_MAX, RECEIVE_WINDOW_START, ROOT_BYTES_MAX, SESSION_BYTES,
    SETUP_TIMEOUT, STREAMS_MAX,
};
use shardcast::wire::*;
use support::camera::{
    Process, Publisher, active, amount, is_group, is_request, subscribe, viewing,
};
use support::client::{Heard, LITE_06, MAX_AGE, Peer, Role as Part, VERSIONS, carries_timestamps};
use support::flow::prologue;
use support::hole::Digger;
use support::nat::Nat;
use support::raw::{End, Raw, Stream, setup};
use support::relay::Relay;
use support::show::{SEED, Show, TRACK};
use tokio::task::JoinSet;

// ---- deaths ----

/// A publisher that is gone without a word: its viewers are told so and get an error, not an end;
/// when it returns they hear it at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_dies_and_returns() {
    const PATH: &str = "live/cam";
    /// Of the publisher, and so of its connection.
    const IDLE: Duration = Duration::from_secs(3);
    /// Our own keep-alive, the first thing sent into the silence, restarts the idle timer once
    /// (RFC 9000 §10.1).
    const TIMEOUT: Duration = IDLE_TIMEOUT.saturating_add(KEEP_ALIVE);
    const GRACE: Duration = Duration::from_millis(1500);
    /// The group that is not finished when it dies.
    const OPEN: u64 = 20;
    println!("seed {SEED:#x}");
    let relay = Relay::start(2).await;
    let silent = Raw::introduced(relay.address(), Version::Lite06).await;
    let publisher = Publisher::announce(relay.address(), IDLE, PATH).await;
    let mut audience = Vec::new();
    for version in VERSIONS {
        let mut viewer = Peer::connect(&relay, version, Part::Viewer).await;
        viewer.sees(PATH).await;
        let subscribing = viewer.subscribe(PATH, TRACK);
        let subscribed = if audience.is_empty() {
            let (subscribed, ()) = tokio::join!(subscribing, publisher.serve(0, MAX_AGE));
            publisher.group(0, true).await;
            subscribed
        } else {
            subscribing.await
        };
        let mut view = subscribed.expect("subscription");
        // Whoever has a group is certainly subscribed.
        view.group(version).await.expect("the first group");
        audience.push((version, viewer, view));
    }
    for sequence in 1..OPEN {
        publisher.group(sequence, true).await;
    }
    for (who, _, view) in &mut audience {
        for _ in 1..OPEN {
            view.group(who).await.expect("the track goes on");
        }
    }
    publisher.group(OPEN, false).await;
    for (who, _, view) in &mut audience {
        let heard = view.next("a frame of the open group").await;
        assert!(matches!(heard, Heard::Frame(OPEN, ..)), "{who}: {heard:?}");
    }

    // Two deaths at once: one that was impatient itself, and one that leaves it to the relay.
    let died = Instant::now();
    drop((publisher, silent));
    for (who, viewer, view) in &mut audience {
        loop {
            match view.next("the publisher's death").await {
                Heard::Failed(error) => {
                    println!("{who}: {error:?} after {:?}", died.elapsed());
                    break;
                }
                Heard::Broken(OPEN, _) => {}
                heard => panic!("{who}: {heard:?} of a publisher that died"),
            }
        }
        assert!(died.elapsed() <= IDLE + GRACE, "{who}: {:?}", died.elapsed());
        viewer.loses(PATH).await;
        assert!(died.elapsed() <= IDLE + GRACE, "{who}: {:?}", died.elapsed());
        assert!(viewer.connected(), "{who}: the viewer outlives the publisher");
    }

    let returned = Peer::connect(&relay, LITE_06, Part::Publisher).await;
    let announced = Instant::now();
    let mut channel = returned.announce(PATH, &[TRACK]);
    // Other payloads than before, so that nothing old could be taken for it.
    let prologue = prologue(SEED + 1, 0);
    channel.publish(TRACK, &prologue);
    for (who, viewer, view) in &mut audience {
        viewer.sees(PATH).await;
        *view = viewer.subscribe(PATH, TRACK).await.expect("subscription");
        view.expect(who, &prologue, carries_timestamps(viewer.version)).await;
    }
    println!("back after {:?}", announced.elapsed());
    assert!(announced.elapsed() <= Duration::from_secs(1), "{:?}", announced.elapsed());

    let is_timeout = |line: &str| line.contains("closed") && line.contains("timed out");
    while relay.log().iter().filter(|line| is_timeout(line)).count() < 2 {
        assert!(died.elapsed() <= TIMEOUT + GRACE, "the silent session is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("the silent session timed out after {:?}", died.elapsed());
    drop(audience);
    relay.stop().await.expect_success();
}

/// A relay that is asked to leave says goodbye to everybody, and goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_leaves_while_fifty_watch() {
    const VIEWERS: usize = 50;
    const EXIT_MAX: Duration = Duration::from_secs(5);
    const NOTICE_MAX: Duration = Duration::from_secs(1);
    println!("seed {SEED:#x}");
    let relay = Relay::start(2).await;
    let viewers = (0..VIEWERS).map(|number| {
        let way = if number < VIEWERS / 2 { relay.clone() } else { relay.web() };
        (VERSIONS[number % VERSIONS.len()], way)
    });
    let mut show = Show::with_viewers(&relay, "live/cam", viewers).await;
    show.flow.more(10).await;

    let asked = Instant::now();
    let stopping = tokio::spawn(relay.stop());
    for (who, _, view) in &mut show.audience {
        loop {
            match view.next("the relay's goodbye").await {
                Heard::Failed(_) => break,
                Heard::Ended => panic!("{who}: an end of the track that was none"),
                Heard::Frame(..) | Heard::Complete(_) | Heard::Broken(..) => {}
            }
        }
        assert!(asked.elapsed() <= NOTICE_MAX, "{who} heard of it after {:?}", asked.elapsed());
    }
    println!("everybody knew after {:?}", asked.elapsed());
    let ended = stopping.await.expect("the relay is waited for");
    ended.expect_success();
    println!("gone after {:?}", ended.took);
    assert!(ended.took <= EXIT_MAX, "{:?}", ended.took);
}

/// A relay is killed and back: where it kept its secrets, whoever has something to say to the old one
/// is told at once that it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_killed_and_back_tells_its_clients() {
    const CLIENTS: usize = 100;
    /// Much less than the timeout that they would wait for otherwise.
    const NOTICE_MAX: Duration = Duration::from_secs(2);
    let name = format!("shardcast-drill-state-{}", std::process::id());
    let state = std::env::temp_dir().join(name);
    let relay = Relay::keeping(([127, 0, 0, 1], 0).into(), &state).await;
    let address = relay.address();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let client = Raw::introduced(address, Version::Lite06).await;
        let stream = client.open(Dir::Bi, &[], false).await;
        clients.push((client, stream));
    }
    relay.kill().await;
    let relay = Relay::keeping(address, &state).await;
    let (back, mut last) = (Instant::now(), Duration::ZERO);
    for (client, stream) in &clients {
        client.send(*stream, &subscribe(Version::Lite06, "live/cam"), false);
    }
    for (client, _) in &clients {
        let lost = client.lost("the relay that was killed").await;
        assert!(lost.reason.contains("reset"), "{lost:?}");
        assert!(lost.at <= back + NOTICE_MAX, "{:?}", lost.at - back);
        last = last.max(lost.at - back);
    }
    println!("{CLIENTS} clients were told after {last:?} at most");
    relay.stop().await.expect_success();
    std::fs::remove_dir_all(&state).expect("a directory of ours");
}

// ---- a log that hangs ----

/// Whoever reads the log hangs: sessions come and go and groups flow as before, and the relay ends
/// when it is asked to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_nobody_reads_stops_nobody() {
    const PATH: &str = "still/life";
    /// Each says two lines: more than a pipe holds.
    const CONNECTIONS: usize = 500;
    /// With all of the patience that last lines deserve, and half a second of ours.
    const EXIT_MAX: Duration = LOG_FLUSH_MAX.saturating_add(Duration::from_millis(500));
    let relay = Relay::unheard(2).await;
    let publisher = Publisher::announce(relay.address(), Duration::from_secs(30), PATH).await;
    let viewer = viewing(&relay, PATH).await;
    publisher.serve(0, MAX_AGE).await;
    publisher.group(0, true).await;
    viewer.accepted("the first group", is_group(0)).await;
    come_and_go(&relay, CONNECTIONS, 20).await;
    for sequence in 1..10 {
        publisher.group(sequence, true).await;
        viewer.accepted("a group", is_group(sequence)).await;
    }
    let ended = relay.stop().await;
    ended.expect_success();
    println!("gone after {:?}", ended.took);
    assert!(ended.took <= EXIT_MAX, "{:?}", ended.took);
}

// ---- crowds ----

/// Many that come, watch and go leave nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_come_and_go() {
    const AT_ONCE: usize = 20;
    /// An allocator's idea of nothing.
    const RSS_GROWTH_MAX: u64 = 1 << 20;
    const SETTLE_MAX: Duration = Duration::from_secs(5);
    let connections = amount("CHURN_CONNECTIONS", 1000);
    println!("seed {SEED:#x}");
    let relay = Relay::start(2).await;
    // Nothing flows, because what the relay keeps of a track would be counted too.
    let publisher = Peer::connect(&relay, LITE_06, Part::Publisher).await;
    let mut channel = publisher.announce("still/life", &[TRACK]);
    channel.publish(TRACK, &prologue(SEED, 0));
    for shard in 0..relay.shards() {
        let mut watcher = Peer::connect_on(&relay, LITE_06, Part::Viewer, shard).await;
        watcher.sees("still/life").await;
    }
    // The first crowd makes room for as many as come at once.
    come_and_go(&relay, connections, AT_ONCE).await;
    let process = Process(relay.id());
    let (files, rss) = (process.files(), process.rss());

    let start = Instant::now();
    come_and_go(&relay, connections, AT_ONCE).await;
    println!("{connections} connections in {:?}", start.elapsed());
    let settled = Instant::now();
    while process.rss() > rss + RSS_GROWTH_MAX && settled.elapsed() < SETTLE_MAX {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("{files} files, RSS {} KiB, then {} KiB", rss >> 10, process.rss() >> 10);
    assert_eq!(process.files(), files, "open files");
    assert!(process.rss() <= rss + RSS_GROWTH_MAX, "RSS {rss} grew to {}", process.rss());

    publisher.leave().await;
    Show::open(&relay, "live/cam").await.close().await;
    relay.stop().await.expect_success();
}

/// Connections that subscribe, hear a group and leave without a word to the track.
async fn come_and_go(relay: &Relay, connections: usize, at_once: usize) {
    let mut visits = JoinSet::new();
    for number in 0..connections {
        if visits.len() >= at_once {
            visits.join_next().await.expect("some are there").expect("a visit");
        }
        let address = relay.address();
        let version = Version::ALL[2 + number % 4];
        visits.spawn(async move {
            let raw = Raw::introduced(address, version).await;
            raw.open(Dir::Bi, &subscribe(version, "still/life"), false).await;
            let is_group = |id: u64, bytes: &[u8]| id & 2 != 0 && bytes.first() == Some(&0);
            raw.accepted("a group", is_group).await;
            raw.close().await;
        });
    }
    while let Some(visit) = visits.join_next().await {
        visit.expect("a visit");
    }
}

/// Peers that complete the TLS handshake and then say nothing, or half of a SETUP, at once or byte by byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_peers_are_shown_out() {
    const GRACE: Duration = Duration::from_secs(1);
    let relay = Relay::start(2).await;
    let show = Show::open(&relay, "live/cam").await;
    let address = relay.address();
    // These versions have no SETUP: silence is all there is to say.
    let welcome = Raw::connect(address, Version::Lite04).await;
    let mut silent = JoinSet::new();
    for version in [Version::Lite05, Version::Lite06] {
        let begin = &[UniType::Setup as u8, 0x3f, 0x01][..];
        for (bytes, more) in [(&[][..], 0), (&begin[..1], 0), (begin, 0), (begin, 20)] {
            for _ in 0..amount("SILENT_PEERS", 160) / 8 {
                silent.spawn(async move {
                    let raw = Raw::connect(address, version).await;
                    let met = Instant::now();
                    if !bytes.is_empty() {
                        let stream = raw.open(Dir::Uni, bytes, false).await;
                        let mut ticks = tokio::time::interval(Duration::from_secs(1));
                        for _ in 0..more {
                            ticks.tick().await;
                            raw.send(stream, &[0], false);
                            if !raw.is_open() {
                                break;
                            }
                        }
                    }
                    let lost = raw.lost("silence").await;
                    assert_eq!(lost.code, Some(SessionCode::CONTROL_TIMEOUT.0), "{lost:?}");
                    lost.at - met
                });
            }
        }
    }
    let mut waits = Vec::new();
    while let Some(wait) = silent.join_next().await {
        waits.push(wait.expect("a silent peer"));
    }
    let (first, last) = (waits.iter().min().expect("many"), waits.iter().max().expect("many"));
    println!("{} silent peers were closed after {first:?} to {last:?}", waits.len());
    // The relay knew of the handshake's end a moment before or after its peer did.
    assert!(*first >= SETUP_TIMEOUT - Duration::from_millis(100), "{first:?}");
    assert!(*last <= SETUP_TIMEOUT + GRACE, "{last:?}");
    assert!(welcome.is_open(), "nothing is wrong with silence on lite-04");
    show.close().await;
    relay.stop().await.expect_success();
}

// ---- noise ----

/// Datagrams of noise, and damaged or repeated ones of real clients, from strangers and along the
/// path of a viewer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_harms_nobody() {
    const BURST: usize = 250;
    let datagrams = amount("NOISE_DATAGRAMS", 100_000);
    let relay = Relay::start(2).await;
    println!("seed {SEED:#x}");
    let nat = Nat::before(relay.address()).await;
    let viewers = VERSIONS.map(|version| {
        let dialled = if version == LITE_06 { relay.behind(nat.address()) } else { relay.clone() };
        (version, dialled)
    });
    let mut show = Show::with_viewers(&relay, "live/cam", viewers).await;
    let sessions = relay.sessions();
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    stranger.connect(relay.address()).expect("loopback has a route");

    let mut random = Random(SEED);
    let mut samples = Vec::new();
    for number in 0..datagrams {
        if number % BURST == 0 {
            // A burst that the relay's socket can hold, so that most of it is looked at.
            show.flow.more(1).await;
            samples = nat.overheard();
        }
        let datagram = random.datagram(&samples);
        if random.below(2) == 0 {
            nat.inject(datagram);
        } else {
            // A refusal is the host's affair.
            let _ = stranger.send(&datagram);
        }
    }
    assert_eq!(relay.sessions(), sessions, "noise is no client");
    show.close().await;
    let ended = relay.stop().await;
    ended.expect_success();
    let received: u64 = ended.counts("datagrams_received").iter().sum();
    println!("the relay received {received} datagrams");
    assert!(received as usize >= datagrams / 2, "most of the noise was lost on the way");
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    fn datagram(&mut self, samples: &[Vec<u8>]) -> Vec<u8> {
        let size = 1 + self.below(1400);
        let mut datagram = match self.below(8) {
            0 => return self.bytes(size),
            // The header of an Initial of version 1, for a connection that nobody knows.
            1 => {
                let mut datagram = vec![0xc0 | self.below(64) as u8, 0, 0, 0, 1, 8];
                datagram.extend(self.bytes(1200));
                return datagram;
            }
            // A version that nobody speaks.
            2 => {
                let mut datagram = vec![0x80 | self.below(128) as u8];
                datagram.extend(self.bytes(1200));
                return datagram;
            }
            // The samples begin with the client's handshake.
            3 => samples[self.below(4)].clone(),
            _ => samples[self.below(samples.len())].clone(),
        };
        match self.below(4) {
            0 => datagram.truncate(1 + size % datagram.len()),
            1 => datagram.extend(self.bytes(size)),
            // One of a real client, a second time.
            2 => {}
            _ => {
                for _ in 0..1 + self.below(8) {
                    let at = self.below(datagram.len());
                    datagram[at] ^= 1 << self.below(8);
                }
            }
        }
        datagram
    }
}

// ---- lies ----

/// Each line breaks one rule that ends a session, and only the liar's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_rules_end_the_session_that_broke_them() {
    let relay = Relay::start(2).await;
    let show = Show::open(&relay, "live/cam").await;
    let both = [Version::Lite05, Version::Lite06];
    for version in both {
        for (what, bytes) in malformed_setups() {
            let raw = Raw::connect(relay.address(), version).await;
            raw.open(Dir::Uni, &bytes, true).await;
            expect_violation(&raw, &format!("{version}: {what}")).await;
        }
        let raw = Raw::introduced(relay.address(), version).await;
        raw.open(Dir::Uni, &setup(&Setup::default()), true).await;
        expect_violation(&raw, &format!("{version}: a second SETUP")).await;
    }
    for version in [Version::Lite04, Version::Lite05, Version::Lite06] {
        let raw = Raw::introduced(relay.address(), version).await;
        let goaway = [BidiType::Goaway as u8, 1, 0];
        let first = raw.open(Dir::Bi, &goaway, true).await;
        raw.stream_until("the end of GOAWAY", first, |s| s.end == Some(End::Finished)).await;
        assert!(raw.is_open(), "{version}: one GOAWAY is nothing wrong");
        raw.open(Dir::Bi, &goaway, true).await;
        expect_violation(&raw, &format!("{version}: a second GOAWAY")).await;
    }
    for version in [Version::Lite03, Version::Lite04, Version::Lite06] {
        let twice = [active("mine/cam"), active("mine/cam")];
        let raw = announcing(&relay, version, &twice).await;
        expect_violation(&raw, &format!("{version}: a path announced twice")).await;
    }
    let (hops, cost) = (Hops::new(), Cost::ZERO);
    let unknown = [
        ("END of no announcement", vec![Announce::End { id: 0 }]),
        ("RESTART of no announcement", vec![Announce::Restart { id: 0, hops, cost }]),
        ("END twice", vec![active("mine/cam"), Announce::End { id: 0 }, Announce::End { id: 0 }]),
    ];
    for (what, announcements) in unknown {
        let raw = announcing(&relay, Version::Lite06, &announcements).await;
        expect_violation(&raw, what).await;
    }
    show.close().await;
    relay.stop().await.expect_success();
}

fn malformed_setups() -> Vec<(&'static str, Vec<u8>)> {
    let mut too_large = vec![1];
    encode_varint(CONTROL_MESSAGE_BYTES_MAX as u64 + 1, &mut too_large);
    // One parameter too many, each with an id of its own and no value.
    let mut too_many = Vec::new();
    encode_varint(SETUP_PARAMETERS_MAX as u64 + 1, &mut too_many);
    for id in 0..=SETUP_PARAMETERS_MAX as u64 {
        encode_varint(100 + id, &mut too_many);
        too_many.push(0);
    }
    let mut crowded = vec![1];
    encode_varint(too_many.len() as u64, &mut crowded);
    crowded.extend(too_many);
    let too_long = "p".repeat(ROOT_BYTES_MAX + 1);
    vec![
        ("a parameter twice", vec![1, 5, 2, 0, 0, 0, 0]),
        ("a path beyond the end", vec![1, 3, 1, 2, 5]),
        ("a path that is not text", vec![1, 5, 1, 2, 2, 0xff, 0xfe]),
        ("a role of two numbers", vec![1, 5, 1, 3, 2, 1, 1]),
        ("a spare byte", vec![1, 2, 0, 0]),
        ("cut short", vec![1, 9, 1, 5]),
        ("nothing but the type", vec![1]),
        ("too large", too_large),
        ("too many parameters", crowded),
        ("a path too long", setup(&Setup { path: Some(too_long), ..Setup::default() })),
    ]
}

#[track_caller]
fn expect_violation(raw: &Raw, what: &str) -> impl Future<Output = ()> {
    let lost = raw.lost(what);
    let what = what.to_owned();
    async move {
        let lost = lost.await;
        assert_eq!(lost.code, Some(SessionCode::PROTOCOL_VIOLATION.0), "{what}: {lost:?}");
    }
}

/// A publisher that answers the relay's ANNOUNCE_REQUEST with this.
async fn announcing(relay: &Relay, version: Version, announcements: &[Announce]) -> Raw {
    let raw = Raw::introduced(relay.address(), version).await;
    let request = raw.accepted("ANNOUNCE_REQUEST", is_request(BidiType::Announce)).await;
    let mut bytes = Vec::new();
    if version >= Version::Lite05 {
        AnnounceOk { hop: 77, active: 0 }.encode(&mut bytes);
    }
    announcements.iter().for_each(|announce| announce.encode(version, &mut bytes));
    raw.send(request, &bytes, false);
    raw
}

/// How a stream of the liar ends.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Reset and stopped with this code.
    Dropped(StreamCode),
    /// Stopped with this code; the relay has no direction of its own.
    Stopped(StreamCode),
}

impl Fate {
    fn has_come(self, stream: &Stream) -> bool {
        match self {
            Fate::Dropped(code) => {
                stream.end == Some(End::Reset(code.0)) && stream.stopped == Some(code.0)
            }
            Fate::Stopped(code) => stream.stopped == Some(code.0),
        }
    }
}

/// Each line breaks one rule that ends a stream, while the session lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_rules_end_the_stream_that_broke_them() {
    let relay = Relay::start(2).await;
    let show = Show::open(&relay, "live/cam").await;
    for version in [Version::Lite03, Version::Lite04, Version::Lite05, Version::Lite06] {
        let raw = Raw::introduced(relay.address(), version).await;
        for (what, dir, bytes, fate) in broken_streams(version) {
            let id = raw.open(dir, &bytes, false).await;
            let what = format!("{version}: {fate:?} after {what}");
            raw.stream_until(&what, id, |stream| fate.has_come(stream)).await;
        }
        // The same session is served as if nothing had happened.
        let mut request = vec![BidiType::Announce as u8];
        AnnounceRequest { prefix: Path::root(), exclude_hop: 0 }.encode(version, &mut request);
        let id = raw.open(Dir::Bi, &request, false).await;
        raw.stream_until("announcements", id, |stream| {
            stream.received.windows(8).any(|bytes| bytes == b"live/cam")
        })
        .await;
        assert!(raw.is_open());
        raw.close().await;
    }
    show.close().await;

    // An announcement of an unknown type takes no id and harms nothing.
    let mut watcher = Peer::connect(&relay, LITE_06, Part::Viewer).await;
    let mut announcements = vec![0x2a, 3, 1, 2, 3];
    active("mine/cam").encode(Version::Lite06, &mut announcements);
    Announce::End { id: 0 }.encode(Version::Lite06, &mut announcements);
    active("mine/again").encode(Version::Lite06, &mut announcements);
    let raw = announcing(&relay, Version::Lite06, &[]).await;
    let request = raw.accepted("ANNOUNCE_REQUEST", is_request(BidiType::Announce)).await;
    raw.send(request, &announcements, false);
    watcher.sees("mine/again").await;
    assert!(raw.is_open());
    relay.stop().await.expect_success();
}

fn broken_streams(version: Version) -> Vec<(String, Dir, Vec<u8>, Fate)> {
    let dropped = Fate::Dropped(StreamCode::CANCEL);
    let stopped = Fate::Stopped(StreamCode::CANCEL);
    let mut cases = Vec::new();
    let mut case = |what: &str, dir, bytes: &[u8], fate| {
        cases.push((what.to_owned(), dir, bytes.to_vec(), fate));
    };
    for kind in [0x07, 0x21, 0x2a, 0x3f] {
        case("an unknown kind of request", Dir::Bi, &[kind, 0], dropped);
    }
    let kinds = [
        BidiType::Session,
        BidiType::Fetch,
        BidiType::Probe,
        BidiType::Goaway,
        BidiType::Track,
        BidiType::ClientSetup,
    ];
    for kind in kinds.into_iter().filter(|kind| !kind.supported(version)) {
        case(&format!("{kind:?}, which it lacks"), Dir::Bi, &[kind as u8, 1, 0], dropped);
    }
    for kind in [0x02, 0x33] {
        case("an unknown kind of stream", Dir::Uni, &[kind, 0, 0], stopped);
    }
    if !UniType::Setup.supported(version) {
        case("SETUP, which it lacks", Dir::Uni, &[UniType::Setup as u8, 1, 0], stopped);
    }
    let mut group = vec![UniType::Group as u8];
    GroupHeader { subscribe_id: 99, sequence: 0, frame_start: 0 }.encode(version, &mut group);
    case("a group that nobody asked for", Dir::Uni, &group, stopped);

    let requests = [BidiType::Announce, BidiType::Subscribe, BidiType::Track];
    for kind in requests.into_iter().filter(|kind| kind.supported(version)) {
        let mut large = vec![kind as u8];
        encode_varint(CONTROL_MESSAGE_BYTES_MAX as u64 + 1, &mut large);
        case(&format!("{kind:?} of 64 KiB and more"), Dir::Bi, &large, dropped);
        case(&format!("{kind:?} with nothing in it"), Dir::Bi, &[kind as u8, 0], dropped);
    }
    let mut spare = subscribe(version, "live/cam");
    spare[1] += 1;
    spare.push(0);
    case("SUBSCRIBE with a spare byte", Dir::Bi, &spare, dropped);
    if version >= Version::Lite04 {
        let goaway = [BidiType::Goaway as u8, 2, 9, 9];
        case("a malformed GOAWAY", Dir::Bi, &goaway, dropped);
    }
    if version >= Version::Lite05 {
        let mut track = vec![BidiType::Track as u8];
        let broadcast = Path::parse("live/cam").expect("a path");
        TrackRequest { broadcast, track: TRACK.to_owned() }.encode(&mut track);
        track.push(0);
        case("a byte after TRACK", Dir::Bi, &track, dropped);
    }
    cases
}

/// As many half requests as the relay grants streams: the flood ends where the limit says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_streams_ends_at_the_credit() {
    /// What half a request and its stream may cost: some 2 KiB each, measured.
    const STREAM_BYTES_MAX: u64 = 4096;
    let relay = Relay::start(2).await;
    let show = Show::open(&relay, "live/cam").await;
    let process = Process(relay.id());
    let before = process.rss();
    let raw = Raw::introduced(relay.address(), Version::Lite06).await;
    for (dir, bytes) in [(Dir::Bi, &[BidiType::Subscribe as u8][..]), (Dir::Uni, &[0x00])] {
        for _ in 0..STREAMS_MAX {
            raw.open(dir, bytes, false).await;
        }
        assert_eq!(raw.try_open(dir, bytes, false), None, "{dir:?} streams without end");
    }
    let grown = process.rss().saturating_sub(before);
    println!("{} streams hold {} KiB", 2 * STREAMS_MAX, grown >> 10);
    assert!(grown <= 2 * STREAMS_MAX * STREAM_BYTES_MAX, "{grown} bytes");
    assert!(raw.is_open());
    raw.close().await;
    show.close().await;
    relay.stop().await.expect_success();
}

/// A hundred who leave a hole at the beginning of each of their streams and send what they may behind it:
/// each is held the window that a session begins with, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holes_hold_what_a_session_begins_with() {
    const DIGGERS: usize = 100;
    let relay = Relay::start(2).await;
    let show = Show::open(&relay, "live/cam").await;
    let process = Process(relay.id());
    let address = relay.address();
    let mut first = Digger::connect(address);
    first.dig();
    let before = process.rss();
    let digging = move || {
        let mut diggers: Vec<Digger> = (0..DIGGERS).map(|_| Digger::connect(address)).collect();
        let sent: Vec<usize> = diggers.iter_mut().map(Digger::dig).collect();
        (diggers, sent)
    };
    let (diggers, sent) = tokio::task::spawn_blocking(digging).await.expect("they dig");
    let grown = process.rss().saturating_sub(before) / DIGGERS as u64;
    println!("{} KiB sent by each, {} KiB held of each", sent[0] >> 10, grown >> 10);
    assert!(sent.iter().all(|sent| *sent <= RECEIVE_WINDOW_START as usize), "{sent:?}");
    assert!(grown <= SESSION_BYTES, "{grown} bytes");
    drop((first, diggers));
    show.close().await;
    relay.stop().await.expect_success();
}

// ---- sloth ----

/// A viewer of a 10 Mb/s track that reads nothing for a minute costs the relay less than 2 MiB and
/// nobody else a group; when it reads again it is served what is new. The minute is one of
/// presentation, which is what ages groups; it takes a few seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_that_stops_reading_costs_little() {
    const PATH: &str = "live/cam";
    const MINUTE: u64 = 60;
    const WARM_UP: u64 = 12;
    const FRAMES: u64 = 25;
    const FRAME_BYTES: u64 = 50_000;
    const COST_MAX: u64 = 2 << 20;
    let relay = Relay::start(2).await;
    let process = Process(relay.id());
    let publisher = Publisher::announce(relay.address(), IDLE_TIMEOUT, PATH).await;
    let (keen, lazy) = (viewing(&relay, PATH).await, viewing(&relay, PATH).await);
    publisher.serve(0, Duration::from_secs(5)).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(150));
    let mut before = 0;
    for sequence in 0..WARM_UP + MINUTE {
        ticks.tick().await;
        if sequence == WARM_UP {
            before = process.rss();
            lazy.stop_reading();
        }
        publisher.second(sequence, FRAMES, FRAME_BYTES).await;
        let stream = keen.accepted("a group", is_group(sequence)).await;
        let whole = |stream: &Stream| stream.end.is_some();
        let stream = keen.stream_until("the end of a group", stream, whole).await;
        assert_eq!(stream.end, Some(End::Finished), "group {sequence}");
        assert!(stream.received.len() as u64 > FRAMES * FRAME_BYTES, "group {sequence}");
    }
    let cost = process.rss().saturating_sub(before);
    println!("a minute of not reading: {} KiB", cost >> 10);
    assert!(cost < COST_MAX, "{cost} bytes");

    lazy.read_again();
    publisher.second(WARM_UP + MINUTE, FRAMES, FRAME_BYTES).await;
    let stream = lazy.accepted("a new group", is_group(WARM_UP + MINUTE)).await;
    let whole = |stream: &Stream| stream.end == Some(End::Finished);
    lazy.stream_until("the end of a new group", stream, whole).await;
    drop((keen, lazy, publisher));
    relay.stop().await.expect_success();
}

// ---- rest ----

/// A relay with nothing to do does nothing, and idle connections cost next to nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_relay_rests() {
    const SHARDS: usize = 4;
    const CONNECTIONS: usize = 100;
    /// The kernel counts in ticks of 10 ms: one per shard may be the last of its start.
    const TICKS_MAX: u64 = SHARDS as u64;
    /// Each connection is kept alive once in this time: 1 ms each.
    const TICKS_CONNECTED_MAX: u64 = TICKS_MAX + CONNECTIONS as u64 / 10;
    const SPAN: Duration = Duration::from_secs(3);
    let relay = Relay::start(SHARDS).await;
    let process = Process(relay.id());
    let ticks = process.ticks_in(SPAN).await;
    println!("idle: {ticks} ticks in {SPAN:?}");
    assert!(ticks <= TICKS_MAX, "{ticks} ticks");

    let mut peers = Vec::new();
    for _ in 0..CONNECTIONS {
        let peer = Raw::introduced(relay.address(), Version::Lite06).await;
        peer.accepted("the relay's SETUP", |id, bytes| id & 2 != 0 && bytes.len() > 1).await;
        peers.push(peer);
    }
    let ticks = process.ticks_in(SPAN).await;
    println!("{CONNECTIONS} idle connections: {ticks} ticks in {SPAN:?}");
    assert!(ticks <= TICKS_CONNECTED_MAX, "{ticks} ticks");
    assert!(peers.iter().all(Raw::is_open), "idle is nothing wrong");
    drop(peers);
    relay.stop().await.expect_success();
}
