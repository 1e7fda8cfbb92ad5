//! What things cost, for the tables in README.md: each is made many times over, and the relay's own memory is looked
//! at before and after, or its time. `scripts/footprint.sh` runs this against the relay as it is released; an ordinary
//! test run leaves it out. The allocator gives back at once what is free, so that figures are of what is used.

#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod camera;
    pub mod client;
    pub mod pusher;
    pub mod raw;
    pub mod relay;
}

use std::net::Ipv4Addr;
use std::time::Duration;

use quinn_proto::Dir;
use shardcast::wire::*;
use support::camera::{Process, active, is_request};
use support::client::{LITE_06, Peer, Role};
use support::pusher::{Pusher, VERSION, subscribes};
use support::raw::Raw;
use support::relay::Relay;
use tokio::time::sleep;

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Until what was just made has settled.
const PAUSE: Duration = Duration::from_secs(1);

async fn relay(shards: usize) -> (Relay, Process) {
    let relay = Relay::prepared(shards, &["--cache-duration", "1h"], |command| {
        command.env("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0");
    })
    .await;
    let process = Process(relay.id());
    sleep(PAUSE).await;
    (relay, process)
}

/// What one of so many costs, by what the relay has more than before.
fn each(process: &Process, before: u64, count: usize) -> f64 {
    process.own().saturating_sub(before) as f64 / count as f64
}

#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_always_there() {
    for shards in [1, 2, 4] {
        let (relay, process) = relay(shards).await;
        println!("figure: {shards} shards and nobody: {:.1} MiB", each(&process, 0, 1 << 20));
        relay.stop().await.expect_success();
    }
}

#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections() {
    const FIRST: usize = 200;
    const COUNT: usize = 400;
    for name in TRANSPORTS {
        let (relay, process) = relay(2).await;
        let dialled = by(name, &relay);
        // What the first ones need is there for all: code that is touched, caches of the allocator, handshakes.
        let mut peers = viewers(&dialled, FIRST).await;
        sleep(PAUSE).await;
        let before = process.own();
        peers.extend(viewers(&dialled, COUNT).await);
        sleep(PAUSE).await;
        println!("figure: idle by {name}: {:.1} KiB", each(&process, before, COUNT) / 1024.0);
        drop((peers, dialled));
        relay.stop().await.expect_success();
    }
}

/// What idle connections take of the processor: they are kept alive, and timers look after them.
#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_of_idle_connections() {
    const COUNT: usize = 1000;
    const SPAN: Duration = Duration::from_secs(30);
    for name in TRANSPORTS {
        let (relay, process) = relay(1).await;
        let dialled = by(name, &relay);
        let peers = viewers(&dialled, COUNT).await;
        sleep(10 * PAUSE).await;
        let share = process.ticks_in(SPAN).await as f64 / SPAN.as_secs() as f64;
        println!("figure: {COUNT} idle by {name}: {share:.1} % of a core");
        drop((peers, dialled));
        relay.stop().await.expect_success();
    }
}

const TRANSPORTS: [&str; 3] = ["QUIC", "WebTransport", "WebSocket"];

fn by(name: &str, relay: &Relay) -> Relay {
    match name {
        "QUIC" => relay.clone(),
        "WebTransport" => relay.web(),
        _ => relay.websocket(),
    }
}

async fn viewers(dialled: &Relay, count: usize) -> Vec<Peer> {
    let mut viewers = Vec::new();
    for _ in 0..count {
        viewers.push(Peer::connect(dialled, LITE_06, Role::Viewer).await);
    }
    viewers
}

/// Tracks with one viewer, with another one, and a group under way on each.
#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tracks_subscriptions_and_groups() {
    const TRACKS: usize = 400;
    let (relay, process) = relay(2).await;
    let mut pusher = Pusher::new(HERE, relay.address(), "cam").await.expect("it is let in");
    let mut viewers = Vec::new();
    sleep(PAUSE).await;
    for what in ["a track with its first viewer", "one subscription more, on every shard"] {
        let version = VERSION.alpn();
        let more = if viewers.is_empty() { 1 } else { 2 };
        let mut costs = 0.0;
        for _ in 0..more {
            let viewer = Raw::try_from(HERE, relay.address(), version).await.expect("it is let in");
            sleep(PAUSE).await;
            let before = process.own();
            subscribes(&viewer, "cam", TRACKS).await;
            while pusher.wanted.len() < TRACKS {
                pusher.answer();
                sleep(Duration::from_millis(5)).await;
            }
            sleep(PAUSE).await;
            costs += each(&process, before, TRACKS) / more as f64;
            viewers.push(viewer);
        }
        println!("figure: {what}: {:.2} KiB", costs / 1024.0);
    }
    let before = process.own();
    let mut open = 0;
    while open < TRACKS {
        open = pusher.begin_more(0, 1000);
        sleep(Duration::from_millis(5)).await;
    }
    sleep(PAUSE).await;
    let costs = each(&process, before, TRACKS);
    println!("figure: a group under way, to three viewers: {:.2} KiB", costs / 1024.0);
    drop((viewers, pusher));
    relay.stop().await.expect_success();
}

#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_groups() {
    for (what, groups, frames, size) in
        [("video", 64, 50, 20_000), ("small frames", 500, 100, 200), ("audio", 500, 1, 160)]
    {
        let (relay, process) = relay(2).await;
        let mut pusher = Pusher::new(HERE, relay.address(), "cam").await.expect("it is let in");
        let viewer = Raw::try_from(HERE, relay.address(), VERSION.alpn()).await;
        let viewer = viewer.expect("it is let in");
        sleep(PAUSE).await;
        subscribes(&viewer, "cam", 1).await;
        while pusher.wanted.is_empty() {
            pusher.answer();
            sleep(Duration::from_millis(5)).await;
        }
        let before = process.own();
        for sequence in 0..groups {
            pusher.group(sequence, frames, size).await;
        }
        let last = support::camera::is_group(groups - 1);
        viewer.accepted("the last group", last).await;
        sleep(PAUSE).await;
        let (bytes, costs) = ((groups * frames * size) as f64, each(&process, before, 1));
        println!(
            "figure: cached {what} ({frames} frames of {size} bytes): {:.2} bytes for each byte, {:.1} KiB a group",
            costs / bytes,
            costs / groups as f64 / 1024.0
        );
        drop((viewer, pusher));
        relay.stop().await.expect_success();
    }
}

#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announced_paths() {
    const PATHS: usize = 9000;
    for shards in [1, 2, 4] {
        let (relay, process) = relay(shards).await;
        let raw = Raw::try_from(HERE, relay.address(), VERSION.alpn()).await.expect("it is let in");
        let request = raw.accepted("ANNOUNCE_REQUEST", is_request(BidiType::Announce)).await;
        let listener = Raw::try_from(HERE, relay.address(), VERSION.alpn()).await;
        let listener = listener.expect("it is let in");
        sleep(PAUSE).await;
        let before = process.own();
        let mut bytes = Vec::new();
        AnnounceOk { hop: 1, active: 0 }.encode(&mut bytes);
        for path in 0..PATHS {
            active(&format!("rooms/room-{path:08}/participant")).encode(VERSION, &mut bytes);
        }
        raw.send(request, &bytes, false);
        sleep(4 * PAUSE).await;
        let costs = each(&process, before, PATHS);
        println!("figure: an announced path of 31 bytes, {shards} shards: {costs:.0} bytes");
        let before = process.own();
        let mut listens = vec![BidiType::Announce as u8];
        AnnounceRequest { prefix: Path::root(), exclude_hop: 0 }.encode(VERSION, &mut listens);
        let heard = listener.open(Dir::Bi, &listens, false).await;
        let last = format!("room-{:08}", PATHS - 1);
        let is_there = |stream: &support::raw::Stream| {
            stream.received.windows(last.len()).any(|bytes| bytes == last.as_bytes())
        };
        listener.stream_until("the last path", heard, is_there).await;
        sleep(PAUSE).await;
        let costs = each(&process, before, PATHS);
        println!("figure: a path that a listener was told of: {costs:.0} bytes");
        drop((raw, listener));
        relay.stop().await.expect_success();
    }
}
