//! Floods of a relay that may use 256 MiB, on real processes: it stays below that, a publisher and its viewers
//! notice nothing, and afterwards whoever comes is let in. Where this machine lets us make a cgroup the relay is
//! in one with that limit, and is told nothing of it.

#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod cage;
    pub mod camera;
    pub mod client;
    pub mod flow;
    pub mod forger;
    pub mod http;
    pub mod pusher;
    pub mod raw;
    pub mod relay;
    pub mod show;
}

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use quinn_proto::Dir;
use shardcast::limits::MEMORY_SHORT_SHARE;
use shardcast::wire::*;
use support::cage::Cage;
use support::camera::{Process, active, is_request};
use support::client::VERSIONS;
use support::forger::{Forger, PING};
use support::http::{Exchange, get};
use support::pusher::{Pusher, VERSION, subscribes};
use support::raw::Raw;
use support::relay::Relay;
use support::show::Show;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{self, MissedTickBehavior, sleep, timeout};

const MIB: u64 = 1 << 20;
const MEMORY: u64 = 256 * MIB;
const HONEST: &str = "honest";

/// How long each flood goes on, and all of them at once.
const FLOOD: Duration = Duration::from_secs(3);
const FLOODS: Duration = Duration::from_secs(10);

/// How long it may take until whoever comes is let in again: connections that died in silence are forgotten
/// after their idle timeout and our own ping, which restarts it.
const RECOVERY: Duration = Duration::from_secs(30);

/// Where floods come from.
const fn stranger(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, number)
}

struct Drill {
    relay: Relay,
    cage: Option<Cage>,
    show: Show,
}

impl Drill {
    async fn begin() -> Drill {
        Drill::with(&[]).await
    }

    async fn with(more: &[&str]) -> Drill {
        let cage = Cage::new(MEMORY);
        let most = MEMORY.to_string();
        let args = [&INTERNAL, more].concat();
        let relay = match &cage {
            Some(cage) => Relay::prepared(2, &args, |command| cage.keeps(command)).await,
            None => {
                let args = [&["--memory-max", &most][..], &args].concat();
                Relay::prepared(2, &args, |_| {}).await
            }
        };
        // None of them hears of what strangers announce elsewhere.
        let viewers = VERSIONS.map(|version| (version, relay.web().at("/live")));
        let show = Show::with_viewers(&relay.at("/live"), HONEST, viewers).await;
        Drill { relay, cage, show }
    }

    /// What has come of it.
    async fn end(self, name: &str) {
        let Drill { relay, cage, show } = self;
        let address = relay.address();
        let begun = Instant::now();
        for alpn in [VERSION.alpn(), "h3"] {
            while Raw::try_from(stranger(99), address, alpn).await.is_none() {
                assert!(begun.elapsed() < RECOVERY, "nobody is let in after the flood");
                sleep(Duration::from_millis(100)).await;
            }
        }
        while !upgrades(relay.address_of_http()).await {
            assert!(begun.elapsed() < RECOVERY, "no WebSocket is let in after the flood");
            sleep(Duration::from_millis(100)).await;
        }
        let recovered = begun.elapsed();
        show.close().await;
        let figures = get(relay.internal().await, "/metrics").await;
        let figures = Figures(figures.text().to_owned());
        let figure = |name: &str| figures.of(name);
        let process = Process(relay.id());
        let peak = process.most_of_its_own();
        println!(
            "{name}: {} MiB at most (cgroup {:?}), {} MiB now, short {} times, {} groups evicted, {} turned away, \
             {} routes refused, {} handshakes; all may come in {recovered:.1?} after it",
            peak / MIB,
            cage.as_ref().map(|cage| cage.peak() / MIB),
            figure("shardcast_memory_bytes ") / MIB,
            figure("shardcast_memory_shortages_total"),
            figure("shardcast_evicted_groups_total"),
            figure("shardcast_refusals_total{reason=\"no_memory\"}"),
            figure("shardcast_refused_routes_total"),
            figure("shardcast_handshakes_total{outcome=\"completed\"}"),
        );
        assert_eq!(figure("shardcast_memory_bytes_max"), MEMORY);
        assert!(peak <= MEMORY, "{} MiB", peak / MIB);
        relay.stop().await.expect_success();
    }
}

/// What the relay has counted.
struct Figures(String);

impl Figures {
    /// Of all shards.
    fn of(&self, name: &str) -> u64 {
        let lines = self.0.lines().filter(|line| line.starts_with(name));
        let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        values.sum::<f64>() as u64
    }
}

/// Runs a flood on threads of its own, which leave the processor to all others.
async fn flooded<F: Future<Output = ()> + Send + 'static>(flood: F) {
    let thread = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let nice = || {
            // SAFETY: a number for this thread alone, as Linux has it.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
        };
        let runtime = runtime.worker_threads(2).enable_all().on_thread_start(nice).build();
        runtime.expect("threads").block_on(async { tokio::spawn(flood).await.expect("a flood") });
    });
    while !thread.is_finished() {
        sleep(Duration::from_millis(20)).await;
    }
    thread.join().expect("a flood");
}

const INTERNAL: [&str; 2] = ["--internal-listen", "127.0.0.1:0"];

/// Whether a WebSocket begins.
async fn upgrades(http: SocketAddr) -> bool {
    let Some(mut stream) = connect_from(stranger(99), http).await else { return false };
    ask_for_websocket(&mut stream, http).await
}

async fn connect_from(from: Ipv4Addr, to: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.bind((from, 0).into()).ok()?;
    timeout(Duration::from_secs(1), socket.connect(to)).await.ok()?.ok()
}

async fn ask_for_websocket(stream: &mut TcpStream, http: SocketAddr) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let request = format!(
        "GET /any HTTP/1.1\r\nHost: {http}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: qmux-01.moq-lite-05\r\n\r\n"
    );
    let mut answer = [0; 12];
    let said = async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_exact(&mut answer).await
    };
    let said = timeout(Duration::from_secs(3), said).await;
    matches!(said, Ok(Ok(_))) && answer.ends_with(b"101")
}

/// Publishers whose groups have no end, on as many tracks as they are let.
async fn large_groups(relay: SocketAddr, until: Instant) {
    const PUBLISHERS: u8 = 4;
    const TRACKS: usize = 24;
    let mut floods = JoinSet::new();
    for number in 0..PUBLISHERS {
        floods.spawn(async move {
            let path = format!("flood/{number}");
            let Some(mut pusher) = Pusher::new(stranger(1), relay, &path).await else { return };
            let Some(viewer) = Raw::try_from(stranger(2), relay, VERSION.alpn()).await else {
                return;
            };
            sleep(Duration::from_millis(200)).await;
            subscribes(&viewer, &path, TRACKS).await;
            viewer.stop_reading();
            let mut known = 0;
            while Instant::now() < until && pusher.raw.is_open() {
                pusher.answer();
                if pusher.wanted.len() > known {
                    known = pusher.wanted.len();
                    pusher.begin(0, 24 * MIB);
                }
                pusher.push(128 << 10, false);
                sleep(Duration::from_millis(5)).await;
            }
            viewer.close().await;
            pusher.raw.close().await;
        });
    }
    floods.join_all().await;
}

/// Viewers who come one after the other, see a little of a fast track, and are never heard of again.
async fn dead_viewers(relay: SocketAddr, until: Instant) {
    const EACH: Duration = Duration::from_millis(10);
    const AT_ONCE: usize = 8;
    let Some(mut pusher) = Pusher::new(stranger(3), relay, "flood/fast").await else { return };
    sleep(Duration::from_millis(200)).await;
    let push = async {
        let (mut sequence, mut known) = (0, 0);
        while Instant::now() < until {
            pusher.answer();
            if pusher.wanted.len() > known || sequence > 0 {
                known = pusher.wanted.len();
                pusher.begin(sequence, 512 << 10);
                pusher.push(512 << 10, true);
                sequence += 1;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let view = async {
        let mut floods = JoinSet::new();
        for _ in 0..AT_ONCE {
            floods.spawn(async move {
                let mut viewers = Vec::new();
                while Instant::now() < until {
                    if let Some(viewer) = Raw::try_from(stranger(4), relay, VERSION.alpn()).await {
                        subscribes(&viewer, "flood/fast", 1).await;
                        sleep(EACH).await;
                        viewer.die();
                        viewers.push(viewer);
                    }
                }
            });
        }
        floods.join_all().await;
    };
    tokio::join!(push, view);
    pusher.raw.close().await;
}

/// Publishers that announce as much as is taken from them, and some who listen to all of it.
async fn announcements(relay: SocketAddr, until: Instant) {
    const PATH_BYTES: usize = 900;
    let mut floods = JoinSet::new();
    for number in 0..8 {
        floods.spawn(async move {
            let mut peers = Vec::new();
            while Instant::now() < until {
                let from = stranger(10 + number);
                let Some(raw) = Raw::try_from(from, relay, VERSION.alpn()).await else { continue };
                let asks = raw.accepted("ANNOUNCE_REQUEST", is_request(BidiType::Announce));
                let Ok(request) = timeout(Duration::from_secs(2), asks).await else { continue };
                let mut bytes = Vec::new();
                AnnounceOk { hop: 1, active: 0 }.encode(&mut bytes);
                for path in 0..2000 {
                    let name = format!("{number}-{}-{path}", peers.len());
                    active(&format!("{name:x<PATH_BYTES$}")).encode(VERSION, &mut bytes);
                }
                raw.send(request, &bytes, false);
                let mut listens = vec![BidiType::Announce as u8];
                AnnounceRequest { prefix: Path::root(), exclude_hop: 0 }
                    .encode(VERSION, &mut listens);
                let _ = raw.try_open(Dir::Bi, &listens, false);
                raw.stop_reading();
                peers.push(raw);
                sleep(Duration::from_millis(20)).await;
            }
            for peer in peers {
                peer.close().await;
            }
        });
    }
    floods.join_all().await;
}

/// Clients that come as fast as they can and stay, each with a message that never ends on every stream that it
/// has; and first packets behind which there is nobody.
async fn connections(relay: SocketAddr, until: Instant) {
    let mut floods = JoinSet::new();
    for number in 0..4 {
        floods.spawn(async move {
            let mut peers = Vec::new();
            while Instant::now() < until {
                let from = stranger(20 + number);
                let Some(raw) = Raw::try_from(from, relay, VERSION.alpn()).await else { continue };
                // A subscription of 60 KiB, of which the last byte is missing.
                let mut half = vec![BidiType::Subscribe as u8, 0x80, 0, 0xf0, 0];
                half.resize(60 << 10, 1);
                while raw.try_open(Dir::Bi, &half, false).is_some() && peers.len() % 4 == 0 {}
                peers.push(raw);
            }
            for peer in peers {
                peer.close().await;
            }
        });
    }
    floods.spawn(async move {
        let socket = UdpSocket::bind((stranger(30), 0)).await.expect("a free port");
        for index in 0.. {
            if Instant::now() >= until {
                break;
            }
            let _ = socket.send_to(&Forger::new(index).initial(0, 0, PING), relay).await;
            if index % 16 == 0 {
                sleep(Duration::from_millis(2)).await;
            }
        }
    });
    floods.join_all().await;
}

/// WebSockets, as many as begin, and fetches of large groups that nobody reads.
async fn web(relay: SocketAddr, http: SocketAddr, until: Instant) {
    let Some(mut pusher) = Pusher::new(stranger(40), relay, "flood/web").await else { return };
    let Some(viewer) = Raw::try_from(stranger(40), relay, VERSION.alpn()).await else { return };
    sleep(Duration::from_millis(200)).await;
    subscribes(&viewer, "flood/web", 1).await;
    let push = async {
        let mut sequence = 0;
        while Instant::now() < until {
            pusher.answer();
            pusher.begin(sequence, 8 * MIB);
            for part in 1..=32 {
                let is_sent = async {
                    while pusher.streams.iter().any(|id| !pusher.raw.has_sent(*id)) {
                        sleep(Duration::from_millis(1)).await;
                    }
                };
                let _ = timeout(Duration::from_secs(1), is_sent).await;
                pusher.push(256 << 10, part == 32);
            }
            sequence += 1;
            sleep(Duration::from_millis(10)).await;
        }
    };
    let fetch = async {
        let mut fetches = Vec::new();
        let request = format!("GET /fetch/flood/web/t0 HTTP/1.1\r\nHost: {http}\r\n\r\n");
        while Instant::now() < until {
            if fetches.len() < 64
                && let Some(stream) = connect_from(stranger(41), http).await
            {
                fetches.push(Exchange::over(stream, &request).await);
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let sockets = async {
        let mut open = Vec::new();
        while Instant::now() < until {
            let Some(mut stream) = connect_from(stranger(42), http).await else { continue };
            if ask_for_websocket(&mut stream, http).await {
                open.push(stream);
            } else {
                sleep(Duration::from_millis(10)).await;
            }
        }
    };
    tokio::join!(push, fetch, sockets);
    viewer.close().await;
    pusher.raw.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_groups_on_many_tracks() {
    let drill = Drill::begin().await;
    flooded(large_groups(drill.relay.address(), Instant::now() + FLOOD)).await;
    drill.end("large groups").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_who_are_never_heard_of_again() {
    let drill = Drill::begin().await;
    flooded(dead_viewers(drill.relay.address(), Instant::now() + FLOOD)).await;
    drill.end("dead viewers").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcements_of_many_long_paths() {
    let drill = Drill::begin().await;
    flooded(announcements(drill.relay.address(), Instant::now() + FLOOD)).await;
    drill.end("announcements").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_and_handshakes() {
    let drill = Drill::begin().await;
    flooded(connections(drill.relay.address(), Instant::now() + FLOOD)).await;
    drill.end("connections").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_and_fetches_that_are_not_read() {
    let drill = Drill::begin().await;
    let (relay, http) = (drill.relay.address(), drill.relay.address_of_http());
    flooded(web(relay, http, Instant::now() + FLOOD)).await;
    drill.end("web").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_that_at_once() {
    let drill = Drill::begin().await;
    let (relay, http) = (drill.relay.address(), drill.relay.address_of_http());
    let until = Instant::now() + FLOODS;
    flooded(async move {
        tokio::join!(
            large_groups(relay, until),
            dead_viewers(relay, until),
            announcements(relay, until),
            connections(relay, until),
            web(relay, http, until),
        );
    })
    .await;
    drill.end("all at once").await;
}

/// A cache that may be as large as all memory: it fills until memory is short, and shrinks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_would_take_all() {
    const TRACKS: usize = 16;
    const GROUP_BYTES: usize = 64 << 10;
    let drill = Drill::with(&["--cache-capacity", "100%"]).await;
    let (address, internal) = (drill.relay.address(), drill.relay.internal().await);
    flooded(async move {
        let begun = Instant::now();
        let mut pusher = Pusher::new(stranger(50), address, "flood/much").await.expect("room");
        let viewer = Raw::try_from(stranger(50), address, VERSION.alpn()).await.expect("room");
        subscribes(&viewer, "flood/much", TRACKS).await;
        viewer.stop_reading();
        let is_short = async || {
            let figures = Figures(get(internal, "/metrics").await.text().to_owned());
            figures.of("shardcast_memory_shortages_total") > 0
        };
        let mut rounds = time::interval(Duration::from_millis(80));
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for sequence in 0.. {
            // It is to fill memory and to leave the processor to others, also to a relay that is not optimized.
            rounds.tick().await;
            while !pusher.streams.iter().all(|id| pusher.raw.has_sent(*id)) {
                sleep(Duration::from_millis(1)).await;
            }
            pusher.answer();
            pusher.begin(sequence, GROUP_BYTES as u64);
            pusher.push(GROUP_BYTES, true);
            if sequence % 10 == 9 && begun.elapsed() >= FLOODS && is_short().await {
                break;
            }
            assert!(begun.elapsed() < 6 * FLOODS, "nothing was short");
        }
        viewer.close().await;
        pusher.raw.close().await;
    })
    .await;
    drill.end("a cache that would take all").await;
}

/// Somebody else in the same cgroup takes what there is, and gives it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_clients_are_to_be_sent_while_memory_is_short() {
    let Some(cage) = Cage::new(MEMORY) else {
        return println!("no cgroup can be made here");
    };
    let relay = Relay::prepared(2, &INTERNAL, |command| cage.keeps(command)).await;
    let internal = relay.internal().await;
    get(internal, "/ready").await.expect(200, "ok\n");
    // Keeps all that it reads, until a line ends.
    let taken = (MEMORY as f64 * (MEMORY_SHORT_SHARE + 0.02)) as u64;
    let script = format!("(head -c {taken} /dev/zero; exec sleep 60) | tail -n 1");
    let mut other = Command::new("sh");
    other.args(["-c", &script]).process_group(0);
    cage.keeps(&mut other);
    let mut other = other.spawn().expect("a shell");
    let group = -(other.id() as libc::pid_t);
    let becomes = async |status| {
        let begun = Instant::now();
        loop {
            let answer = get(internal, "/ready").await;
            if answer.status == status {
                return answer;
            }
            assert!(begun.elapsed() < RECOVERY, "{} {}", answer.status, answer.text());
            sleep(Duration::from_millis(10)).await;
        }
    };
    becomes(503).await.refuses(503, "memory is short, and nobody new is let in");
    assert!(Raw::try_from(stranger(1), relay.address(), VERSION.alpn()).await.is_none());
    get(internal, "/health").await.expect(200, "ok\n");
    let figures = Figures(get(internal, "/metrics").await.text().to_owned());
    let counts = ["handshakes_total{outcome", "refusals_total{reason"]
        .map(|name| figures.of(&format!("shardcast_{name}=\"no_memory\"}}")));
    assert!(counts[0] > 0 && counts[0] == counts[1], "{counts:?}");
    // SAFETY: processes of ours.
    assert_eq!(unsafe { libc::kill(group, libc::SIGKILL) }, 0);
    other.wait().expect("a child of ours");
    becomes(200).await;
    assert!(Raw::try_from(stranger(1), relay.address(), VERSION.alpn()).await.is_some());
    relay.stop().await.expect_success();
}
