//! A relay that ends and is back at its address: released clients dial it again by themselves, each
//! of them as a publisher and as a viewer, however it ended.

#[allow(dead_code, reason = "each test needs a part of what all share")]
mod clients {
    pub mod actor;
    pub mod program;
}
#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod client;
    pub mod relay;
}

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clients::actor::{Actor, Browser};
use moq_net::{Hop, Timestamp, origin, track};
use moq_tokio::{Connection, connect};
use shardcast::limits::DRAIN_TIMEOUT_DEFAULT;
use support::client::within;
use support::relay::Relay;
use tokio::sync::watch;
use tokio::task::JoinSet;

const TRACK: &str = "video";

/// A group of one frame, with the time at which it was written.
const PACE: Duration = Duration::from_millis(50);

/// From the end of the relay until frames flow again. Clients give up after ten seconds without a
/// relay, and those that nobody told find out within as many.
const BACK_WITHIN: Duration = Duration::from_secs(12);

/// The same for a native client that nobody told: its first ping into the silence, after three
/// seconds, restarts the ten of its idle timer once (RFC 9000 §10.1).
const BACK_WITHIN_UNTOLD: Duration = Duration::from_secs(15);

/// Browsers that start beside each other, on a machine that is busy.
const BROWSERS_BEGIN_WITHIN: Duration = Duration::from_secs(30);

/// The table shows who is late for so much longer.
const LATE: Duration = Duration::from_secs(3);

const BY_QUIC: &[Kind] = &[
    Kind::Page("0.1.9"),
    Kind::Page("0.2.8"),
    Kind::Page("0.3.4"),
    Kind::Native("http"),
    Kind::Native("moqt"),
];

/// By WebSocket, but for the last two: Firefox dials WebTransport with this client.
const BY_SOCKET: &[Kind] = &[
    Kind::WithoutWebTransport("0.2.8"),
    Kind::WithoutWebTransport("0.3.4"),
    Kind::Node("0.1.9"),
    Kind::Node("0.2.8"),
    Kind::Node("0.3.4"),
    Kind::Firefox("0.2.8"),
    Kind::Native("ws"),
    Kind::Firefox("0.3.4"),
    Kind::Native("moqt"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_and_back_at_once() {
    everybody_returns(BY_QUIC, End::Told, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_and_back_after_four_seconds() {
    everybody_returns(BY_QUIC, End::Told, Duration::from_secs(4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drained_and_back_at_once() {
    everybody_returns(BY_QUIC, End::Drained, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_back_at_once() {
    everybody_returns(BY_QUIC, End::Killed, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_by_socket_and_back_after_four_seconds() {
    everybody_returns(BY_SOCKET, End::Told, Duration::from_secs(4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drained_by_socket_and_back_at_once() {
    everybody_returns(BY_SOCKET, End::Drained, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_by_socket_and_back_at_once() {
    everybody_returns(BY_SOCKET, End::Killed, Duration::ZERO).await;
}

/// One play at a time: whoever waits for a relay is not to meet another one's.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[derive(Clone, Copy, PartialEq)]
enum End {
    Told,
    /// Asked to move before, for as long as relays do by default.
    Drained,
    Killed,
}

async fn everybody_returns(kinds: &[Kind], end: End, away: Duration) {
    let _turn = TURN.lock().await;
    let certificate = Certificate::issue();
    let drain = if end == End::Drained { DRAIN_TIMEOUT_DEFAULT } else { Duration::ZERO };
    let relay = certificate.relay(([127, 0, 0, 1], 0).into(), drain).await;
    let address = relay.address();
    let mut clients = Vec::new();
    for kind in kinds {
        clients.push(Arc::new(Client::start(*kind, address).await));
    }
    let begun = table(&clients, 0, Instant::now() + BROWSERS_BEGIN_WITHIN).await;
    assert!(begun.iter().flatten().all(Option::is_some), "{begun:?}");

    if end == End::Drained {
        relay.terminate();
        // Nobody hears of it but by the request to move: who is here is served, and comes in again.
        let until = Instant::now() + drain - Duration::from_secs(2);
        let served = table(&clients, now_ms() + 1000, until).await;
        assert!(served.iter().flatten().all(Option::is_some), "{served:?}");
        relay.says("drain deadline force-closed sessions").await;
    }
    let ended = Instant::now();
    match end {
        End::Told => relay.stop().await.expect_success(),
        End::Drained => relay.ended().await.expect_success(),
        End::Killed => relay.kill().await,
    }
    tokio::time::sleep(away).await;
    is_free(address).await;
    let relay = certificate.relay(address, Duration::ZERO).await;
    println!("the relay is back after {:?}", ended.elapsed());
    clients.retain(|client| client.kind.dials_again());
    let returned = table(&clients, now_ms(), ended + BACK_WITHIN_UNTOLD + LATE).await;
    println!("seconds until a viewer of each row had frames of a publisher of each column:");
    for (viewer, row) in clients.iter().zip(&returned) {
        let took = row.iter().map(|at| at.map_or(f64::NAN, |at| (at - ended).as_secs_f64()));
        println!("{:.1?} {:?}", took.collect::<Vec<_>>(), viewer.kind);
    }
    for (viewer, row) in clients.iter().zip(&returned) {
        for (publisher, at) in clients.iter().zip(row) {
            let (viewer, publisher) = (viewer.kind, publisher.kind);
            let has_native = [viewer, publisher].iter().any(|kind| matches!(kind, Kind::Native(_)));
            let within = match end {
                End::Killed if has_native => BACK_WITHIN_UNTOLD,
                _ => BACK_WITHIN,
            };
            let is_back = at.is_some_and(|at| at <= ended + within);
            assert!(is_back, "{viewer:?} does not see {publisher:?} in {within:?}");
        }
    }
    drop(clients);
    relay.stop().await.expect_success();
}

type Row = Vec<Option<Instant>>;

/// When each viewer had a frame of each publisher that was written after a time.
async fn table(clients: &[Arc<Client>], since: u64, until: Instant) -> Vec<Row> {
    let mut hearing = JoinSet::new();
    for (viewer, client) in clients.iter().enumerate() {
        for (publisher, of) in clients.iter().enumerate() {
            let (client, path) = (client.clone(), of.kind.path());
            hearing.spawn(async move {
                let heard = client.hears(&path, since);
                let heard = tokio::time::timeout_at(until.into(), heard).await;
                (viewer, publisher, heard.ok().map(|()| Instant::now()))
            });
        }
    }
    let mut rows = vec![vec![None; clients.len()]; clients.len()];
    while let Some(heard) = hearing.join_next().await {
        let (viewer, publisher, at) = heard.expect("no panic");
        rows[viewer][publisher] = at;
    }
    rows
}

/// Waits until nothing of the former relay holds the port: the kernel lets go of it a little later
/// than of the process.
async fn is_free(address: SocketAddr) {
    let free = async {
        while UdpSocket::bind(address).is_err() || TcpListener::bind(address).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within("the port", free).await;
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

// ---- clients ----

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// `@moq/net` of a version in a page of its own.
    Page(&'static str),
    /// The same in Chromium as if it were a browser that has none.
    WithoutWebTransport(&'static str),
    Firefox(&'static str),
    /// The same client in Node.
    Node(&'static str),
    /// `moq-tokio`, by URLs of a scheme.
    Native(&'static str),
}

impl Kind {
    /// Of the broadcast that it publishes.
    fn path(self) -> String {
        match self {
            Kind::Page(version) => format!("from/{version}"),
            Kind::WithoutWebTransport(version) => format!("from/socket-{version}"),
            Kind::Firefox(version) => format!("from/firefox-{version}"),
            Kind::Node(version) => format!("from/node-{version}"),
            Kind::Native(scheme) => format!("from/{scheme}"),
        }
    }

    /// By WebSocket the oldest of the clients takes every end for one that was wanted.
    fn dials_again(self) -> bool {
        !matches!(self, Kind::Node("0.1.9"))
    }
}

/// A client with two connections: by one it publishes a broadcast, by the other it watches all.
struct Client {
    kind: Kind,
    acts: Acts,
}

enum Acts {
    Actor(Actor),
    Native(Native),
}

impl Client {
    async fn start(kind: Kind, address: SocketAddr) -> Client {
        let (actor, version) = match kind {
            Kind::Page(version) => (Actor::page_in(Browser::Chromium, "restart").await, version),
            Kind::WithoutWebTransport(version) => {
                let page = Actor::page_in(Browser::Chromium, "restart").await;
                page.tell("forgetWebTransport()").await;
                (page, version)
            }
            Kind::Firefox(version) => (Actor::page_in(Browser::Firefox, "restart").await, version),
            Kind::Node(version) => (Actor::node("restart").await, version),
            Kind::Native(scheme) => {
                let native = Native::start(&format!("{scheme}://{address}"), &kind.path());
                return Client { kind, acts: Acts::Native(native) };
            }
        };
        let url = format!("http://{address}/");
        actor.tell(format!("publish('{version}','{url}','{}')", kind.path())).await;
        actor.tell(format!("watch('{version}','{url}')")).await;
        Client { kind, acts: Acts::Actor(actor) }
    }

    /// Waits for a frame of a broadcast that was written after a time.
    async fn hears(&self, path: &str, since: u64) {
        match &self.acts {
            Acts::Actor(actor) => {
                actor.tell(format!("hears('{path}',{since})")).await;
            }
            Acts::Native(native) => {
                let newest = |heard: &Heard| heard.get(path).is_some_and(|at| *at > since);
                let mut heard = native.heard.subscribe();
                heard.wait_for(newest).await.expect("it is kept here");
            }
        }
    }
}

/// By path: when the newest frame that was read had been written.
type Heard = HashMap<String, u64>;

struct Native {
    heard: watch::Sender<Heard>,
    /// Ended with the client.
    _acts: JoinSet<()>,
    _connections: [Connection; 2],
}

impl Native {
    fn start(url: &str, path: &str) -> Native {
        let mut config = connect::Config::default();
        config.websocket.enabled = Some(url.starts_with("ws"));
        config.tls.insecure = Some(!url.starts_with("http:"));
        config.bind = Some(([127, 0, 0, 1], 0).into());
        let url: url::Url = url.parse().expect("a URL");
        let dial = |config: connect::Config| config.init(Default::default()).expect("client");
        let publishes = moq_tokio::origin::spawn_config(origin::Config::new(Hop::random()));
        let receives = moq_tokio::origin::spawn_config(origin::Config::new(Hop::random()));
        let views = receives.consume();
        let publisher = dial(config.clone()).with_publisher(&publishes).connect(url.clone());
        let viewer = dial(config).with_subscriber(receives).connect(url);

        let heard = watch::Sender::new(Heard::new());
        let mut acts = JoinSet::new();
        acts.spawn(write(publishes, path.to_owned()));
        acts.spawn(watch_all(views, heard.clone()));
        Native { heard, _acts: acts, _connections: [publisher, viewer] }
    }
}

async fn write(publishes: origin::Producer, path: String) {
    let broadcast = publishes.create_broadcast(path).expect("broadcast");
    let track = broadcast.create_track(TRACK, track::Info::default()).expect("track");
    broadcast.announce(Default::default()).expect("announce");
    loop {
        let mut group = track.append_group().expect("group");
        group.write_frame(Timestamp::now(), now_ms().to_string()).expect("frame");
        group.finish().expect("the end of a group");
        tokio::time::sleep(PACE).await;
    }
}

async fn watch_all(views: origin::Consumer, heard: watch::Sender<Heard>) {
    let mut announced = views.announced();
    let mut reads = JoinSet::new();
    while let Some(update) = announced.next().await {
        if update.kind.is_active() {
            reads.spawn(read(views.clone(), update.prefix.to_string(), heard.clone()));
        }
    }
}

/// Until the track ends or fails.
async fn read(views: origin::Consumer, path: String, heard: watch::Sender<Heard>) {
    let Ok(broadcast) = views.request_broadcast(path.as_str()).await else { return };
    let Ok(track) = broadcast.track(TRACK) else { return };
    let Ok(mut subscriber) = track.subscribe(track::Subscription::default()).await else { return };
    while let Ok(Some(mut group)) = subscriber.recv_group().await {
        while let Ok(Some(frame)) = group.read_frame().await {
            let written = std::str::from_utf8(&frame.payload).expect("a number");
            let written = written.parse().expect("a number");
            heard.send_modify(|heard| {
                heard.insert(path.clone(), written);
            });
        }
    }
}

// ---- the relay's certificate ----

/// One that browsers pin by its hash: of P-256, and for less than two weeks.
struct Certificate {
    dir: PathBuf,
}

impl Certificate {
    fn issue() -> Certificate {
        let dir = std::env::temp_dir().join(format!("shardcast-restart-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).expect("names");
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
        params.not_after = params.not_before + time::Duration::days(10);
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        std::fs::write(dir.join("cert.pem"), cert.pem()).expect("a file");
        std::fs::write(dir.join("key.pem"), key.serialize_pem()).expect("a file");
        Certificate { dir }
    }

    async fn relay(&self, address: SocketAddr, drain: Duration) -> Relay {
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| self.dir.join(name));
        Relay::certified_at(address, &cert, &key, drain).await
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
