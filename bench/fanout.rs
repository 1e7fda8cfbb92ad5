//! What one viewer costs: the relay on one core, a released client on another, loopback.
//!
//!     cargo bench --bench fanout            all shapes
//!     cargo bench --bench fanout -- chat    one of them
//!
//! Prints CPU of the relay process per delivered frame copy and memory per connection. The client
//! is a tokio program that shares the machine: read the figures as this machine's, not as limits.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use moq_net::{Hop, Timescale, Timestamp, group, origin, track};
use moq_tokio::{Client, Connection, connect};

struct Shape {
    name: &'static str,
    viewers: usize,
    frames_per_second: u64,
    frame_bytes: usize,
    frames_per_group: u64,
}

const SHAPES: [Shape; 3] = [
    Shape {
        name: "chat",
        viewers: 200,
        frames_per_second: 20,
        frame_bytes: 300,
        frames_per_group: 1,
    },
    Shape {
        name: "video",
        viewers: 100,
        frames_per_second: 60,
        frame_bytes: 4096,
        frames_per_group: 60,
    },
    Shape {
        name: "idle",
        viewers: 1000,
        frames_per_second: 0,
        frame_bytes: 0,
        frames_per_group: 1,
    },
];

const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(10);
const PATH: &str = "live/cam";
const TRACK: &str = "video";
/// Of Linux's clock ticks, in which /proc counts CPU time.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(core) = cores.get(1) {
        core_affinity::set_for_current(*core);
    }
    println!("| shape | delivered per second | CPU of a core | µs per copy | KiB per connection |");
    println!("|---|---|---|---|---|");
    for shape in SHAPES {
        if wanted.is_empty() || wanted.iter().any(|name| name == shape.name) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .expect("a runtime")
                .block_on(run(&shape, cores.first().map_or(0, |core| core.id)));
        }
    }
}

async fn run(shape: &Shape, core: usize) {
    let relay = Relay::start(core);
    let publisher = Peer::connect(&relay.url, true).await;
    let broadcast = publisher.publishes.create_broadcast(PATH).expect("broadcast");
    let scale = Timescale::new(1000).expect("a timescale");
    let info = track::Info::default().with_timescale(scale).with_max_age(Duration::from_secs(5));
    let track = broadcast.create_track(TRACK, info).expect("track");
    broadcast.announce(Default::default()).expect("announce");

    let before = relay.resident_kib();
    let frames = Arc::new(AtomicU64::new(0));
    let mut viewers = Vec::new();
    for _ in 0..shape.viewers {
        let viewer = Peer::connect(&relay.url, false).await;
        if shape.frames_per_second > 0 {
            viewer.watch(frames.clone()).await;
        }
        viewers.push(viewer);
    }
    let start = Instant::now();
    let mut mark = None;
    let mut sent = 0u64;
    let mut open: Option<group::Producer> = None;
    let payload = Bytes::from(vec![7; shape.frame_bytes]);
    while start.elapsed() < WARM_UP + MEASURED {
        if mark.is_none() && start.elapsed() >= WARM_UP {
            mark = Some((Instant::now(), relay.cpu_seconds(), frames.load(Relaxed)));
        }
        if shape.frames_per_second == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        if sent.is_multiple_of(shape.frames_per_group) {
            let sequence = sent / shape.frames_per_group;
            open = Some(track.create_group(group::Info { sequence }).expect("group"));
        }
        let group = open.as_mut().expect("a group was opened above");
        let millis = sent * 1000 / shape.frames_per_second;
        let timestamp = Timestamp::new(millis, scale).expect("a timestamp");
        group.write_frame(timestamp, payload.clone()).expect("frame");
        sent += 1;
        if sent.is_multiple_of(shape.frames_per_group) {
            open.take().expect("a group is open").finish().expect("finish");
        }
        let due = Duration::from_secs_f64(sent as f64 / shape.frames_per_second as f64);
        tokio::time::sleep_until((start + due).into()).await;
    }
    let (since, cpu, copies) = mark.expect("the measured span is longer than the warm-up");
    let seconds = since.elapsed().as_secs_f64();
    let cpu = relay.cpu_seconds() - cpu;
    let copies = (frames.load(Relaxed) - copies) as f64;
    let offered = (shape.viewers as u64 * shape.frames_per_second) as f64;
    let memory = (relay.resident_kib() - before) / shape.viewers as f64;
    let per_copy = match copies {
        0.0 => "-".to_owned(),
        _ => format!("{:.1}", cpu * 1e6 / copies),
    };
    println!(
        "| {} | {:.0} of {offered:.0} | {:.1} % | {per_copy} | {memory:.1} |",
        shape.name,
        copies / seconds,
        cpu / seconds * 100.0,
    );
}

struct Peer {
    publishes: origin::Producer,
    views: origin::Consumer,
    _client: Client,
    _connection: Connection,
}

impl Peer {
    async fn connect(url: &str, publishes_too: bool) -> Peer {
        let mut config = connect::Config::default();
        config.tls.insecure = Some(true);
        config.bind = Some(([127, 0, 0, 1], 0).into());
        let publishes = moq_tokio::origin::spawn_config(origin::Config::new(Hop::random()));
        let receives = moq_tokio::origin::spawn_config(origin::Config::new(Hop::random()));
        let views = receives.consume();
        let client = config.init(Default::default()).expect("client");
        let client = if publishes_too {
            client.with_publisher(&publishes)
        } else {
            client.with_subscriber(receives)
        };
        let url: url::Url = url.parse().expect("url");
        let connection = client.connect(url).established().await.expect("session");
        Peer { publishes, views, _client: client, _connection: connection }
    }

    async fn watch(&self, frames: Arc<AtomicU64>) {
        self.views.announced().next().await.expect("announcement");
        let broadcast = self.views.request_broadcast(PATH).await.expect("broadcast");
        let preferences = track::Subscription::default().with_max_age(Duration::from_secs(5));
        let pending = broadcast.track(TRACK).expect("track").subscribe(preferences);
        let mut subscriber = pending.await.expect("subscription");
        tokio::spawn(async move {
            while let Ok(Some(mut group)) = subscriber.recv_group().await {
                let frames = frames.clone();
                tokio::spawn(async move {
                    while let Ok(Some(_)) = group.read_frame().await {
                        frames.fetch_add(1, Relaxed);
                    }
                });
            }
        });
    }
}

struct Relay {
    process: Child,
    url: String,
}

impl Relay {
    fn start(core: usize) -> Relay {
        // Taken and let go, so that the relay finds it free.
        let port = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = port.expect("a free port").port();
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string(), env!("CARGO_BIN_EXE_shardcast")]);
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--log-level", "warn"]);
        let process = command.stdout(Stdio::null()).spawn().expect("taskset and the relay");
        let url = format!("moqt://127.0.0.1:{port}");
        let relay = Relay { process, url };
        // Its socket appears when it is ready.
        let deadline = Instant::now() + Duration::from_secs(5);
        while std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            assert!(Instant::now() < deadline, "the relay did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        relay
    }

    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()));
        let stat = stat.expect("the relay runs");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |index: usize| fields[index].parse::<f64>().expect("a number of ticks");
        (ticks(11) + ticks(12)) / TICKS_PER_SECOND
    }

    fn resident_kib(&self) -> f64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.process.id()));
        let pages = statm.expect("the relay runs");
        let pages: f64 =
            pages.split_whitespace().nth(1).and_then(|p| p.parse().ok()).unwrap_or(0.0);
        pages * 4.0
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // SAFETY: signals our own child, which has not been waited for.
        unsafe { libc::kill(self.process.id() as i32, libc::SIGTERM) };
        let _ = self.process.wait();
    }
}
