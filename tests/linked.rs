//! Relays that are linked, as processes: ours in chains and triangles, and beside nodes of moq-relay in every
//! position and direction; released clients publish and watch.
//!
//! Plays with moq-relay are ignored unless they are asked for, as `scripts/test.sh` does where there is one: it is
//! found at `PEER_RELAY`, or where `scripts/compare.sh` has built it.

#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod cards;
    pub mod client;
    pub mod http;
    pub mod nat;
    pub mod relay;
}

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use support::cards::Authority;
use support::client::{Channel, LITE_05, LITE_06, PATIENCE, Peer, Role, Script, View, within};
use support::http::get;
use support::nat::Nat;
use support::relay::Relay;

const SEED: u64 = 0x11_4b;
const TRACK: &str = "video";
const SIZES: [usize; 4] = [3000, 20, 0, 700];
const OPERATORS: [&str; 2] = ["--internal-listen", "127.0.0.1:0"];
const INSECURE: &str = "--connect-tls-insecure";

/// A port that nobody has a moment later.
fn port() -> u16 {
    // Below those that the kernel gives to whoever asks for any, as other plays do.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 100) as u16 * 100;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        let at = ("127.0.0.1", port);
        if UdpSocket::bind(at).is_ok() && TcpListener::bind(at).is_ok() {
            return port;
        }
    }
}

/// A directory of a play, removed at the end.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Files {
        let dir = std::env::temp_dir().join(format!("shardcast-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        Files(dir)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let (path, fresh) = (self.0.join(name), self.0.join(".fresh"));
        std::fs::write(&fresh, text).expect("a file");
        std::fs::rename(&fresh, &path).expect("a file");
        path.to_str().expect("a path of ours").to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

/// What is published at one node is watched at all of these, twice at each, to the byte.
async fn plays(from: &str, to: &[&str], path: &str) {
    plays_in(LITE_06, from, to, path).await;
}

async fn plays_in(version: &'static str, from: &str, to: &[&str], path: &str) {
    let publisher = Peer::dial(from, version, Role::Publisher).await;
    let mut channel = publisher.announce(path, &[TRACK]);
    let (peers, mut views) = audience(version, &mut channel, to, path).await;
    all_hear(&mut channel, &mut views, path).await;
    // However many watch, wherever.
    assert_eq!(publisher.asked().subscriptions, 1, "{path}");
    for peer in peers {
        peer.leave().await;
    }
    publisher.leave().await;
}

async fn audience(
    version: &'static str,
    channel: &mut Channel,
    to: &[&str],
    path: &str,
) -> (Vec<Peer>, Vec<(String, View)>) {
    let (mut peers, mut views) = (Vec::new(), Vec::new());
    for at in to.iter().flat_map(|at| [at, at]) {
        let mut viewer = Peer::dial(at, version, Role::Viewer).await;
        viewer.sees(path).await;
        let (view, ()) = tokio::join!(viewer.subscribe(path, TRACK), channel.wanted(TRACK));
        views
            .push((at.to_string(), view.unwrap_or_else(|error| panic!("{path} at {at}: {error}"))));
        peers.push(viewer);
    }
    (peers, views)
}

/// All of a script reaches everybody. That somebody wants the track tells of the first viewer alone; the others have
/// asked when they have the beginning.
async fn all_hear(channel: &mut Channel, views: &mut [(String, View)], path: &str) {
    let script = Script::new(SEED, 0, 3, &SIZES);
    let (first, others) = script.groups.split_first().expect("three");
    channel.publish_group(TRACK, &script, first);
    for (at, view) in &mut *views {
        view.begins(&format!("{path} at {at}"), 1).await;
    }
    for group in others {
        channel.publish_group(TRACK, &script, group);
    }
    for (at, view) in views {
        view.expect(&format!("{path} at {at}"), &script, true).await;
    }
}

async fn shown(relay: &Relay) -> Value {
    let answer = get(relay.internal().await, "/nodes").await;
    serde_json::from_str(answer.text()).expect("JSON")
}

/// What `/nodes` says of the relays that one dials.
async fn nodes(relay: &Relay) -> Vec<Value> {
    shown(relay).await["nodes"].as_array().expect("nodes").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_by_both_transports_and_a_node_that_is_killed_and_returns() {
    let keep = Files::new("linked-chain");
    let state = text(&keep.0);
    let b_address = format!("127.0.0.1:{}", port());
    let a = Relay::start(2).await;
    let a_url = format!("moqt://{}", a.address());
    let place = ["--listen", &b_address, "--state-dir", state];
    let b_args = [&place[..], &["--cluster-connect", &a_url, INSECURE], &OPERATORS].concat();
    let b = a.beside(1, &b_args).await;
    let b_url = format!("https://{b_address}/");
    let args = [&["--cluster-connect", &b_url, INSECURE][..], &OPERATORS].concat();
    let c = a.beside(2, &args).await;
    b.says("cluster peer linked").await;
    c.says("cluster peer linked").await;
    let urls = [a.url(), b.url(), c.url()];
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    for (round, from) in urls.iter().enumerate() {
        plays(from, &urls, &format!("live/cam{round}")).await;
    }
    plays_in(LITE_05, urls[2], &urls[..1], "live/older").await;

    let links = nodes(&c).await;
    let link = &links[0];
    assert_eq!(link["node"], format!("https://{b_address}/"));
    assert_eq!((&link["state"], &link["alpn"]), (&"up".into(), &"moq-lite-06".into()), "{link}");
    assert_eq!(link["connections"].as_array().map(Vec::len), Some(1), "{link}");
    let rtt = link["rtt_ms"].as_f64().expect("a round trip");
    assert!(
        (0.0..1000.0).contains(&rtt) && link["received_bytes"].as_u64() > Some(10_000),
        "{link}"
    );
    let figures = get(c.internal().await, "/metrics").await;
    let up = format!("shardcast_link_up{{peer=\"{b_url}\",address=\"\"}} 1");
    assert!(figures.text().contains(&up), "{}", figures.text());

    // Who was killed without a word is found out at once by who is back: it has kept its keys.
    b.kill().await;
    let b = a.beside(1, &b_args).await;
    b.says("cluster peer linked").await;
    c.says_times("cluster peer linked", 2).await;
    assert!(c.log().iter().any(|line| line.contains("cluster peer error; will retry")));
    plays(urls[2], &urls, "live/again").await;
    b.stop().await.expect_success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_that_dial_each_other_have_one_link_and_know_themselves() {
    let ports = [port(), port()];
    let urls = ports.map(|port| format!("moqt://127.0.0.1:{port}"));
    let all = urls.join(",");
    let mut relays: Vec<Relay> = Vec::new();
    for (at, id) in ["7", "9"].iter().enumerate() {
        let listen = format!("127.0.0.1:{}", ports[at]);
        let cluster = ["--cluster-connect", &all, "--cluster-address", "127.0.0.0/8", INSECURE];
        let args = [&["--listen", &listen, "--cluster-id", id][..], &cluster, &OPERATORS].concat();
        relays.push(match relays.first() {
            None => Relay::prepared(1, &args, |_| {}).await,
            Some(first) => first.beside(2, &args).await,
        });
    }
    for relay in &relays {
        relay.says("cluster peer is this relay itself").await;
    }
    relays[0].says("cluster peer linked").await;
    // The link that the lower one has dialled is kept.
    relays[1].says("cluster peer is linked already").await;
    let states = async |relay: &Relay| {
        let links = nodes(relay).await;
        let mut states: Vec<String> =
            links.iter().map(|link| link["state"].as_str().expect("a word").to_owned()).collect();
        states.sort();
        states
    };
    // The other one is seen where it comes in.
    for (relay, expect) in relays.iter().zip([&["itself", "up"][..], &["itself", "up", "yielding"]])
    {
        within("the links to settle", async {
            while states(relay).await != expect {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    let figures = get(relays[1].internal().await, "/metrics").await;
    let up = figures.text().lines().filter(|line| line.starts_with("shardcast_link_up{"));
    assert_eq!(up.map(|line| line.ends_with(" 1")).collect::<Vec<_>>(), [true]);
    let both = [relays[0].url(), relays[1].url()];
    plays(&both[0], &[&both[1]], "live/a").await;
    plays(&both[1], &[&both[0]], "live/b").await;
    // Without that one the other dials again.
    let one = relays.remove(0);
    one.stop().await.expect_success();
    relays[0].says("cluster peer error; will retry").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_believed_and_who_lets_in() {
    let cards = Authority::new("linked-cards");
    let (own, edge) =
        (cards.issue("core", &["core.example"]), cards.issue("edge", &["edge.example"]));
    let root = text(&cards.root);
    let core = Relay::guarded(
        1,
        &[
            "--listen-tls-cert",
            text(&own.cert),
            "--listen-tls-key",
            text(&own.key),
            "--listen-tls-root",
            root,
            "--auth-peer",
            "edge.example",
            OPERATORS[0],
            OPERATORS[1],
        ],
    )
    .await;
    let url = format!("moqt://{}", core.address());
    let web = format!("https://{}", core.address());
    let shows = ["--connect-tls-cert", text(&edge.cert), "--connect-tls-key", text(&edge.key)];
    let fingerprint = own.facts().fingerprint;
    let named = ["--connect-tls-root", root, "--connect-tls-host-name", "core.example"];
    let pinned = ["--connect-tls-fingerprint", &fingerprint];
    let wrong = ["--connect-tls-fingerprint", &"00".repeat(32)];
    let shown =
        format!("its certificate has the SHA-256 {fingerprint}; see --connect-tls-fingerprint");
    let others = Authority::new("linked-others");
    let other = others.issue("stranger", &["edge.example"]);
    let stranger = ["--connect-tls-cert", text(&other.cert), "--connect-tls-key", text(&other.key)];
    for (url, believes, shows, says) in [
        (&url, &named[..], &shows[..], "cluster peer linked"),
        (&web, &pinned, &shows, "cluster peer linked"),
        // The certificate is for another name, or somebody else's.
        (&url, &named[..2], &shows, "--connect-tls-host-name"),
        (&url, &[], &shows, "UnknownIssuer); see --connect-tls-root"),
        (&url, &wrong, &shows, &*shown),
        (&url, &pinned, &stranger, "error=\"it does not take our certificate"),
        // Nobody is let in who does not show who he is.
        (&url, &pinned, &[], "see --cluster-token"),
        (&web, &pinned, &[], "see --cluster-token"),
    ] {
        let args = [&["--cluster-connect", url][..], believes, shows].concat();
        let edge = core.beside(1, &args).await;
        let line = edge.says(says).await;
        assert!(line.contains(url.as_str()), "{line}");
        if says.ends_with("linked") {
            let guests = nodes(&core).await;
            let [guest] = &guests[..] else { panic!("{guests:?}") };
            assert_eq!(
                (&guest["node"], &guest["direction"]),
                (&"edge.example".into(), &"in".into())
            );
            let heard = guest["heard_ms"].as_u64().expect("a time");
            assert!(guest["state"] == "up" && heard < 10_000, "{guest}");
        }
        edge.stop().await.expect_success();
        core.deserted().await;
    }
    let does_not_believe =
        core.log().iter().any(|line| line.contains("does not believe our certificate"));
    assert!(does_not_believe, "{:?}", core.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_are_not_believed_are_named_where_they_come_in() {
    let cards = Authority::new("linked-unnamed");
    let edge = cards.issue("edge", &["edge.example"]);
    let public = ["--auth-public", "**", "--listen-tls-root", text(&cards.root)];
    let core = Relay::guarded(1, &[&public[..], &["--auth-peer", "x.example"]].concat()).await;
    let shows = ["--connect-tls-cert", text(&edge.cert), "--connect-tls-key", text(&edge.key)];
    let url = format!("moqt://{}", core.address());
    let args = [&["--cluster-connect", &url, INSECURE][..], &shows].concat();
    let edge = core.beside(1, &args).await;
    edge.says("cluster peer linked").await;
    let line = core.says("is of no relay that --auth-peer names").await;
    assert!(line.contains("WARN") && line.contains("edge.example"), "{line}");
    let publisher = Peer::dial(&edge.url(), LITE_06, Role::Publisher).await;
    let _channel = publisher.announce("live/cam", &[TRACK]);
    let line = core.says("passes on what others publish").await;
    assert!(line.contains("INFO") && line.contains("--cluster-address"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_with_one_id_are_told_so() {
    let id = ["--cluster-id", "7"];
    let a = Relay::prepared(1, &id, |_| {}).await;
    let url = a.url();
    let args = [&id[..], &["--cluster-connect", &url, INSECURE], &OPERATORS].concat();
    let b = a.beside(1, &args).await;
    let line = b.says("another relay has our --cluster-id").await;
    assert!(line.contains("ERROR") && line.contains("cluster_id=7"), "{line}");
    assert_eq!(nodes(&b).await[0]["state"], "waiting");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_without_addresses_is_not_silent() {
    let args = ["--cluster-connect", "dns+moqt://nowhere.invalid:4443", INSECURE];
    let relay = Relay::prepared(1, &[&args[..], &OPERATORS].concat(), |_| {}).await;
    relay.says("cluster peers are not found").await;
    let set = &nodes(&relay).await[0];
    assert_eq!(set["state"], "resolving", "{set}");
    assert!(set["last_error"].is_string(), "{set}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_that_change_and_a_token_in_a_file() {
    let files = Files::new("linked-list");
    let a = Relay::start(1).await;
    let list_path = files.write("list.json", "[]");
    let args = ["--cluster-connect-api", &list_path, INSECURE];
    let b = a.beside(1, &[&args[..], &OPERATORS].concat()).await;
    b.says("the list of cluster peers is read").await;
    assert_eq!(nodes(&b).await, Vec::<Value>::new());
    files.write("list.json", &format!(r#"[{{"url": "{}", "cost": 3}}]"#, a.url()));
    b.says("cluster peer linked").await;
    plays(&a.url(), &[&b.url()], "live/cam").await;
    // A list that is bad takes nobody away.
    files.write("list.json", "{}");
    let line = b.says("the list of cluster peers is not read").await;
    assert!(line.contains(&list_path), "{line}");
    assert_eq!(nodes(&b).await.len(), 1);
    let of_list = shown(&b).await["list"].clone();
    assert_eq!((&of_list["from"], &of_list["relays"]), (&json!(list_path), &json!(1)));
    assert!(of_list["last_error"].is_string(), "{of_list}");
    // Nor does one that is gone, which is said as well; and it is no worse than before when it is back.
    std::fs::remove_file(&list_path).expect("it is there");
    b.says_times("the list of cluster peers is not read", 2).await;
    let figures = get(b.internal().await, "/metrics").await;
    assert!(figures.text().contains("shardcast_cluster_list_up 0\n"));
    files.write("list.json", "[]");
    b.says_times("relays=0", 2).await;
    within("a list that is read", async {
        while shown(&b).await["list"].get("last_error").is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let line = b.says("cluster peer is not wanted any more").await;
    assert!(line.contains(&a.url()), "{line}");
    a.deserted().await;
    b.stop().await.expect_success();

    // A server is told who asks, and its list counts as a file's.
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let api = format!("http://{}/list", server.local_addr().expect("an address"));
    let listed = format!(r#"["{}", "{}"]"#, a.url(), "moqt://b.example:4443");
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().expect("it asks");
        let mut request = [0; 2048];
        let read = stream.read(&mut request).expect("a request");
        let length = listed.len();
        let head = format!("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all((head + &listed).as_bytes()).expect("it reads");
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let token = files.write("token", "a.b.c\n");
    let args = ["--cluster-connect-api", &api, "--cluster-node", "moqt://b.example:4443", INSECURE];
    let more = ["--cluster-token", &token];
    let b = a.beside(1, &[&args[..], &more, &OPERATORS].concat()).await;
    // Nobody takes tokens there: so it was shown.
    b.says("cluster peer does not let this relay in").await;
    let request = asked.join().expect("it was asked");
    assert!(request.starts_with("GET /list?node=moqt%3A%2F%2Fb.example%3A4443%2F "), "{request}");
    assert_eq!(nodes(&b).await.len(), 1, "itself is not dialled");
    assert!(b.log().iter().all(|line| !line.contains("a.b.c")), "a token is not shown");
}

/// The shorter of two ways falls silent in the middle of a group. When that is noticed the viewer has the rest over
/// the other one, and nothing twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_is_cut_in_mid_group_and_there_is_another_way() {
    const PATH: &str = "live/cam";
    let a = Relay::start(2).await;
    let b = a.beside(1, &["--cluster-connect", &a.url(), INSECURE]).await;
    let wire = Nat::before(a.address()).await;
    let ways = format!("moqt://{},{}?cost=5", wire.address(), b.url());
    let c = a.beside(2, &["--cluster-connect", &ways, INSECURE]).await;
    b.says("cluster peer linked").await;
    c.says_times("cluster peer linked", 2).await;

    let publisher = Peer::dial(&a.url(), LITE_06, Role::Publisher).await;
    let mut channel = publisher.announce(PATH, &[TRACK]);
    let mut viewer = Peer::dial(&c.url(), LITE_06, Role::Viewer).await;
    viewer.sees(PATH).await;
    let (view, ()) = tokio::join!(viewer.subscribe(PATH, TRACK), channel.wanted(TRACK));
    let mut view = view.expect("a track");
    let script = Script::new(SEED, 0, 3, &SIZES);
    let mut group = channel.open_group(TRACK, 0);
    script.write(&mut group, 0..2);
    view.begins("the viewer", 2).await;

    let before = c.departures();
    drop(wire);
    script.write(&mut group, 2..SIZES.len());
    group.finish().expect("a group that goes on");
    channel.publish_group(TRACK, &script, &script.groups[1]);
    c.notices_departure(before).await;
    channel.publish_group(TRACK, &script, &script.groups[2]);
    view.expect("the viewer", &script, true).await;
    publisher.leave().await;
}

// ---- beside moq-relay ----

/// A node of moq-relay.
struct Upstream {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
    _files: Files,
}

impl Upstream {
    /// It dials these.
    async fn start(port: u16, dials: &[&str]) -> Upstream {
        let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/bin/moq-relay");
        let binary = std::env::var_os("PEER_RELAY").unwrap_or_else(|| tools.into());
        let address: SocketAddr = ([127, 0, 0, 1], port).into();
        let files = Files::new(&format!("upstream-{port}"));
        let config = files.write(
            "relay.toml",
            &format!(
                "drain_timeout = '4s'\n[listen]\nbind = '{address}'\ntls.generate = ['localhost']\n\
                 [auth]\npublic = '**'\n[connect.tls]\ninsecure = true\n[cluster]\nconnect = {dials:?}\n"
            ),
        );
        let log = files.0.join("log");
        let out = std::fs::File::create(&log).expect("a file");
        let child = Command::new(binary)
            .arg(config)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(out)
            .spawn()
            .expect("moq-relay: see PEER_RELAY");
        let upstream = Upstream { child, address, log, _files: files };
        upstream.says("listening").await;
        upstream
    }

    fn url(&self) -> String {
        format!("moqt://{}", self.address)
    }

    async fn says(&self, words: &str) {
        let said = async {
            while !std::fs::read_to_string(&self.log).is_ok_and(|log| log.contains(words)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, said).await.is_err() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            panic!("moq-relay does not say {words:?}: {log}");
        }
    }

    fn terminate(&self) {
        // SAFETY: kill takes no pointers, and the child is not reaped yet, so the id is its own.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const DIALS_US: &str = "negotiated";

/// Ours and theirs, each in the place of the other, whoever dials and by what.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "wants moq-relay 0.17.10"]
async fn a_pair_with_moq_relay_in_both_directions_by_both_transports() {
    for scheme in ["moqt", "https"] {
        // We dial.
        let theirs = Upstream::start(port(), &[]).await;
        let url = format!("{scheme}://{}/", theirs.address);
        let ours = Relay::prepared(2, &["--cluster-connect", &url, INSECURE], |_| {}).await;
        ours.says("cluster peer linked").await;
        plays(&theirs.url(), &[&ours.url()], "live/down").await;
        plays(&ours.url(), &[&theirs.url()], "live/up").await;
        drop(theirs);
        drop(ours);
        // They do.
        let ours = Relay::start(2).await;
        let url = format!("{scheme}://localhost:{}/", ours.address().port());
        let theirs = Upstream::start(port(), &[&url]).await;
        ours.says(DIALS_US).await;
        plays(&theirs.url(), &[&ours.url()], "live/up").await;
        plays(&ours.url(), &[&theirs.url()], "live/down").await;
    }
}

/// Of three in a line, the one in the middle and those at the ends are ours or theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "wants moq-relay 0.17.10"]
async fn chains_with_moq_relay_in_the_middle_and_at_the_ends() {
    // Ours at both ends of theirs; one of them is dialled, the other dials.
    let first = Relay::start(1).await;
    let theirs = Upstream::start(port(), &[&format!("moqt://{}/", first.address())]).await;
    let url = format!("https://{}/", theirs.address);
    let last = first.beside(2, &["--cluster-connect", &url, INSECURE]).await;
    first.says(DIALS_US).await;
    last.says("cluster peer linked").await;
    let all = [first.url(), theirs.url(), last.url()];
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for (round, from) in all.iter().enumerate() {
        plays(from, &all, &format!("live/ours-{round}")).await;
    }
    drop((first, last, theirs));
    // Theirs at both ends of ours.
    let one = Upstream::start(port(), &[]).await;
    let ours = Relay::prepared(2, &["--cluster-connect", &one.url(), INSECURE], |_| {}).await;
    ours.says("cluster peer linked").await;
    let url = format!("https://localhost:{}/", ours.address().port());
    let other = Upstream::start(port(), &[&url]).await;
    ours.says("transport=\"webtransport\"").await;
    let all = [one.url(), ours.url(), other.url()];
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for (round, from) in all.iter().enumerate() {
        plays(from, &all, &format!("live/theirs-{round}")).await;
    }
}

/// All linked with all: each sees what is published at any of them once, and plays it once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "wants moq-relay 0.17.10"]
async fn a_triangle_of_two_of_ours_and_one_of_theirs() {
    let first = Relay::start(2).await;
    let theirs = Upstream::start(port(), &[&format!("moqt://{}/", first.address())]).await;
    let dials = format!("{},{}", first.url(), theirs.url());
    let second = first.beside(1, &["--cluster-connect", &dials, INSECURE]).await;
    second.says_times("cluster peer linked", 2).await;
    first.says(DIALS_US).await;
    let all = [first.url(), theirs.url(), second.url()];
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for (round, from) in all.iter().enumerate() {
        let publisher = Peer::dial(from, LITE_06, Role::Publisher).await;
        let path = format!("live/cam{round}");
        let mut channel = publisher.announce(&path, &[TRACK]);
        let (mut peers, mut views) = audience(LITE_06, &mut channel, &all, &path).await;
        all_hear(&mut channel, &mut views, &path).await;
        // It is gone everywhere then: nobody keeps another's echo.
        drop(channel);
        for viewer in &mut peers {
            viewer.loses_in_the_end(&path).await;
        }
        publisher.leave().await;
    }
}

/// Each is told by the other that it leaves, and is dialled again when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "wants moq-relay 0.17.10"]
async fn goaway_and_return_both_ways() {
    // They leave.
    let port_of_theirs = port();
    let theirs = Upstream::start(port_of_theirs, &[]).await;
    let url = theirs.url();
    let ours = Relay::prepared(2, &["--cluster-connect", &url, INSECURE], |_| {}).await;
    ours.says("cluster peer linked").await;
    plays(&ours.url(), &[&url], "live/cam").await;
    theirs.terminate();
    // It is dialled at once, which leads to the one that leaves, and once more when that has gone.
    ours.says("cluster peer leaves").await;
    ours.says("cluster peer error; will retry").await;
    drop(theirs);
    let theirs = Upstream::start(port_of_theirs, &[]).await;
    ours.says_times("cluster peer linked", 2).await;
    plays(&ours.url(), &[&theirs.url()], "live/again").await;
    drop((ours, theirs));

    // We do.
    let listen = format!("127.0.0.1:{}", port());
    let args = ["--listen", &listen, "--drain-timeout", "3s"];
    let ours = Relay::prepared(1, &args, |_| {}).await;
    let theirs = Upstream::start(port(), &[&format!("moqt://{listen}/")]).await;
    ours.says(DIALS_US).await;
    plays(&theirs.url(), &[&ours.url()], "live/cam").await;
    ours.terminate();
    theirs.says("received goaway").await;
    ours.ended().await.expect_success();
    let ours = Relay::prepared(1, &args, |_| {}).await;
    ours.says(DIALS_US).await;
    within("a play", plays(&theirs.url(), &[&ours.url()], "live/again")).await;
}
