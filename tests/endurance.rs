//! Figures of `docs/SPECIFICATION.md` that take minutes, or a machine of their own: memory of viewers that
//! never read or never get anything, a full cache, a flood. `scripts/reliability.sh` runs them against the
//! relay as it is released; an ordinary test run leaves them out.

#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod camera;
    pub mod client;
    pub mod forger;
    pub mod raw;
    pub mod relay;
}

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quinn_proto::Dir;
use shardcast::wire::*;
use support::camera::{Process, Publisher, is_group, subscribe, viewing};
use support::forger::{Forger, PING, RETRY};
use support::raw::{Raw, Stream};
use support::relay::Relay;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::interval;

const PATH: &str = "live/cam";
const MIB: u64 = 1 << 20;

/// A publisher that is patient with everything, and a first group of its track.
async fn publisher(relay: &Relay, audience: usize, max_age: Duration) -> (Publisher, Vec<Raw>) {
    let publisher = Publisher::announce(relay.address(), Duration::from_secs(30), PATH).await;
    let first = viewing(relay, PATH).await;
    publisher.serve(0, max_age).await;
    publisher.group(0, true).await;
    let mut viewers = vec![first];
    while viewers.len() < audience {
        viewers.push(viewing(relay, PATH).await);
    }
    for viewer in &viewers {
        viewer.accepted("the first group", is_group(0)).await;
    }
    (publisher, viewers)
}

/// How late groups are, each from when its last frame was given to QUIC to its end at a viewer.
#[derive(Clone, Default)]
struct Lateness {
    /// By group, from 1 on.
    sent: Arc<Mutex<Vec<Instant>>>,
    /// Of which group, and how late.
    came: Arc<Mutex<Vec<(usize, Duration)>>>,
}

impl Lateness {
    fn sent(&self, at: Instant) {
        self.sent.lock().expect("times").push(at);
    }

    /// A viewer that reads groups for as long as they come; who misses one ends the drill.
    fn watches(&self, viewer: Raw, groups: usize) -> JoinHandle<()> {
        let shared = self.clone();
        tokio::spawn(async move {
            for group in 1..=groups {
                let stream = viewer.accepted("a group", is_group(group as u64)).await;
                let whole = |stream: &Stream| stream.end.is_some();
                viewer.stream_until("the end of a group", stream, whole).await;
                let (now, sent) = (Instant::now(), shared.sent.lock().expect("times")[group - 1]);
                let late = now.saturating_duration_since(sent);
                shared.came.lock().expect("times").push((group, late));
            }
        })
    }

    /// The 99th percentile of some of the groups.
    fn p99(&self, groups: std::ops::RangeInclusive<usize>) -> Duration {
        let came = self.came.lock().expect("times");
        let mut late: Vec<Duration> = came
            .iter()
            .filter(|(group, _)| groups.contains(group))
            .map(|(_, late)| *late)
            .collect();
        late.sort_unstable();
        late[late.len() * 99 / 100]
    }
}

/// A group of frames of one size, in equal steps. Its lateness counts from the last of them.
async fn film(
    publisher: &Publisher,
    lateness: &Lateness,
    group: u64,
    frames: u64,
    size: usize,
    gap: Duration,
) {
    let mut ticks = interval(gap);
    let mut stream = 0;
    for frame in 0..frames {
        ticks.tick().await;
        let mut bytes = Vec::new();
        if frame == 0 {
            bytes.push(UniType::Group as u8);
            GroupHeader { subscribe_id: 0, sequence: group, frame_start: 0 }
                .encode(Version::Lite06, &mut bytes);
        }
        let span = gap.as_millis() as i64;
        let timestamp_delta = if frame == 0 { group as i64 * span * frames as i64 } else { span };
        FrameHeader { timestamp_delta, size: size as u64 }.encode(Version::Lite06, &mut bytes);
        bytes.resize(bytes.len() + size, group as u8);
        let is_last = frame + 1 == frames;
        if is_last {
            lateness.sent(Instant::now());
        }
        match frame {
            0 => stream = publisher.raw.open(Dir::Uni, &bytes, is_last).await,
            _ => publisher.raw.send(stream, &bytes, is_last),
        }
    }
}

/// A 10 Mb/s track for a minute, eight who watch it, and others who ask for it and never read.
async fn some_never_read(stuck: usize) {
    const LIVE: usize = 8;
    const BEFORE: usize = 30;
    const AFTER: usize = 60;
    /// Until the cache is as full as it gets, and what clients take in without reading it too.
    const WARM_UP: usize = 10;
    const EACH_MAX: u64 = 2 * MIB;
    let relay = Relay::start(2).await;
    let process = Process(relay.id());
    let (publisher, viewers) = publisher(&relay, LIVE, Duration::from_secs(5)).await;
    let lateness = Lateness::default();
    let watching: Vec<_> =
        viewers.into_iter().map(|viewer| lateness.watches(viewer, BEFORE + AFTER)).collect();
    let mut lazy = Vec::new();
    let (mut before, mut most) = (0, 0);
    for group in 1..=BEFORE + AFTER {
        if group == BEFORE + 1 {
            before = process.rss();
            let mut coming = JoinSet::new();
            for _ in 0..stuck {
                let address = relay.address();
                coming.spawn(async move {
                    let viewer = Raw::introduced(address, Version::Lite06).await;
                    viewer.stop_reading();
                    viewer.open(Dir::Bi, &subscribe(Version::Lite06, PATH), false).await;
                    viewer
                });
            }
            lazy = coming.join_all().await;
        }
        film(&publisher, &lateness, group as u64, 25, 50_000, Duration::from_millis(40)).await;
        if group > BEFORE {
            most = most.max(process.rss());
        }
    }
    for watching in watching {
        watching.await.expect("every group came to everybody");
    }
    let is_there = lazy.iter().filter(|viewer| viewer.is_open()).count();
    let cost = most.saturating_sub(before);
    let (alone, beside) =
        (lateness.p99(WARM_UP..=BEFORE), lateness.p99(BEFORE + WARM_UP..=BEFORE + AFTER));
    println!(
        "figure: {stuck} never read ({is_there} still connected): {} KiB each, 0 groups lost; p99 of {LIVE} \
         others {beside:.1?}, {alone:.1?} before",
        (cost >> 10) / stuck as u64
    );
    assert!(cost <= stuck as u64 * EACH_MAX, "{cost} bytes");
    drop((lazy, publisher));
    relay.stop().await.expect_success();
}

#[ignore = "takes two minutes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_never_reads() {
    some_never_read(1).await;
}

#[ignore = "takes two minutes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_never_read() {
    some_never_read(100).await;
}

/// A thousand who have subscribed to a track of which nothing comes.
#[ignore = "takes a core for a while"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_wait_for_a_silent_track() {
    const VIEWERS: usize = 1000;
    const AT_ONCE: usize = 50;
    const EACH_MAX: u64 = 100 << 10;
    let relay = Relay::start(2).await;
    let process = Process(relay.id());
    let (publisher, first) = publisher(&relay, 1, Duration::from_secs(60)).await;
    let before = process.rss();
    let mut waiting = Vec::new();
    for _ in 0..VIEWERS / AT_ONCE {
        let mut coming = JoinSet::new();
        for _ in 0..AT_ONCE {
            let address = relay.address();
            coming.spawn(async move {
                let viewer = Raw::introduced(address, Version::Lite06).await;
                viewer.open(Dir::Bi, &subscribe(Version::Lite06, PATH), false).await;
                viewer.accepted("the first group", is_group(0)).await;
                viewer
            });
        }
        waiting.extend(coming.join_all().await);
    }
    // What a handshake has cost is given back meanwhile.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let each = process.rss().saturating_sub(before) / VIEWERS as u64;
    println!("figure: {VIEWERS} viewers of a silent track: {:.1} KiB each", each as f64 / 1024.0);
    assert!(waiting.iter().all(Raw::is_open));
    assert!(each <= EACH_MAX, "{each} bytes");
    drop((waiting, first, publisher));
    relay.stop().await.expect_success();
}

/// Ten times as much as the cache holds.
#[ignore = "takes 640 MiB through a relay"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_caches_full_leave_one() {
    const CAPACITY: u64 = 64 * MIB;
    const GROUPS: u64 = 640;
    const MOST: u64 = CAPACITY + CAPACITY / 4;
    let relay = Relay::caching(2, "64MiB").await;
    let process = Process(relay.id());
    // Nothing is too old.
    let (publisher, viewers) = publisher(&relay, 1, Duration::from_secs(60)).await;
    let (before, lateness) = (process.rss(), Lateness::default());
    let mut most = 0;
    for group in 1..=GROUPS {
        film(&publisher, &lateness, group, 1, MIB as usize, Duration::from_millis(10)).await;
        let stream = viewers[0].accepted("a group", is_group(group)).await;
        let whole = |stream: &Stream| stream.end.is_some();
        viewers[0].stream_until("the end of a group", stream, whole).await;
        most = most.max(process.rss());
    }
    let grown = most.saturating_sub(before);
    println!("figure: {GROUPS} MiB through a cache of {} MiB: {} MiB", CAPACITY / MIB, grown / MIB);
    // Otherwise it was not full.
    assert!(grown >= CAPACITY / 4, "{grown} bytes");
    assert!(grown <= MOST, "{grown} bytes");
    drop((publisher, viewers));
    relay.stop().await.expect_success();
}

/// Initial packets from ever new ports, as fast as one core sends them, beside a live track.
#[ignore = "takes two cores for a minute"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_initials() {
    const BEFORE: usize = 500;
    const FLOODED: usize = 1500;
    const GROWTH_MAX: u64 = 64 * MIB;
    let relay = Relay::start(2).await;
    let process = Process(relay.id());
    let (publisher, viewers) = publisher(&relay, 1, Duration::from_secs(5)).await;
    let lateness = Lateness::default();
    let viewer = viewers.into_iter().next().expect("one");
    let watching = lateness.watches(viewer, BEFORE + FLOODED);
    let is_over = Arc::new(AtomicBool::new(false));
    let (mut before, mut most, mut flood) = (0, 0, None);
    for group in 1..=BEFORE + FLOODED {
        if group == BEFORE + 1 {
            before = process.rss();
            let (address, is_over) = (relay.address(), is_over.clone());
            flood = Some(std::thread::spawn(move || pour(address, &is_over)));
        }
        film(&publisher, &lateness, group as u64, 1, 2000, Duration::from_millis(20)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        if group > BEFORE && group % 50 == 0 {
            most = most.max(process.rss());
        }
    }
    is_over.store(true, Ordering::Relaxed);
    let Poured { datagrams, retries, ratio, seconds } =
        flood.expect("begun").join().expect("a flood");
    watching.await.expect("every group came");
    let (alone, beside) = (lateness.p99(50..=BEFORE), lateness.p99(BEFORE + 1..=BEFORE + FLOODED));
    let grown = most.saturating_sub(before);
    println!(
        "figure: {:.0} Initials a second for {seconds:.0} s: {} MiB, {retries} Retry packets, {ratio:.2} times \
         what an address sent at most; p99 {beside:.1?}, {alone:.1?} before",
        datagrams as f64 / seconds,
        grown / MIB
    );
    assert!(grown <= GROWTH_MAX, "{grown} bytes");
    assert!(retries > 0, "nobody was asked to prove an address");
    assert!(ratio <= 3.0, "{ratio}");
    relay.stop().await.expect_success();
}

struct Poured {
    datagrams: u64,
    retries: u64,
    /// The most that an address got, beside what it has sent.
    ratio: f64,
    seconds: f64,
}

/// One address, and what went to and fro.
struct Source {
    socket: UdpSocket,
    sent: usize,
    received: usize,
}

impl Source {
    fn new(relay: SocketAddr) -> Source {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.connect(relay).expect("loopback has a route");
        socket.set_nonblocking(true).expect("a socket of ours");
        Source { socket, sent: 0, received: 0 }
    }

    /// Takes what has come, and returns how many Retry packets that were.
    fn listen(&mut self) -> u64 {
        let (mut buf, mut retries) = ([0; 2048], 0);
        while let Ok(size) = self.socket.recv(&mut buf) {
            self.received += size;
            retries += u64::from(buf[0] & 0xf0 == RETRY);
        }
        retries
    }
}

fn pour(relay: SocketAddr, is_over: &AtomicBool) -> Poured {
    const SOURCES: usize = 256;
    let begun = Instant::now();
    let mut sources: Vec<Source> = (0..SOURCES).map(|_| Source::new(relay)).collect();
    let mut poured = Poured { datagrams: 0, retries: 0, ratio: 0.0, seconds: 0.0 };
    while !is_over.load(Ordering::Relaxed) {
        for source in &mut sources {
            let datagram = Forger::new(poured.datagrams as usize).initial(0, 0, PING);
            if let Ok(size) = source.socket.send(&datagram) {
                source.sent += size;
                poured.datagrams += 1;
            }
            poured.retries += source.listen();
            if source.sent > 0 {
                poured.ratio = poured.ratio.max(source.received as f64 / source.sent as f64);
            }
        }
        // Ports change.
        let oldest = poured.datagrams as usize / SOURCES % SOURCES;
        sources[oldest] = Source::new(relay);
    }
    poured.seconds = begun.elapsed().as_secs_f64();
    poured
}
