//! HTTP beside the relay: the real binary, released publishers, and clients of every temper.

#[path = "support/process.rs"]
#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod process;
mod support {
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod client;
    pub mod flow;
    pub mod http;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod relay;
}

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use process::{Process, shardcast};
use shardcast::limits::{
    END_MAX, REQUEST_NAME_BYTES_MAX, SHARD_ANSWER_MAX, WEB_CONNECTIONS_MAX, WEB_FETCHES_MAX,
    WEB_HEAD_TIMEOUT, WEB_UNREAD_BYTES_MAX,
};
use shardcast::shard::placement::home_of;
use support::client::{Channel, LITE_03, LITE_05, LITE_06, Peer, Role, Script, abandoned, within};
use support::flow::{Flow, prologue};
use support::http::{Answer, Exchange, ask, get};
use support::relay::Relay;
use tokio::io::AsyncReadExt;

const SEED: u64 = 0x5eed_0000_4e77_1500;

const PATH: &str = "live/cam";
const TRACK: &str = "video";

/// A small frame, none at all, and one of several datagrams.
const SIZES: [usize; 3] = [10, 0, 5000];

const LISTENING_WITHIN: Duration = Duration::from_secs(10);

fn group(script: &Script, sequence: u64) -> Vec<u8> {
    let frames = script.find(sequence).expect("a scripted group").frames.len();
    (0..frames).flat_map(|index| script.payload(sequence, index)).collect()
}

#[track_caller]
fn expect_group(answer: &Answer, script: &Script, sequence: u64) {
    let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]);
    assert_eq!(answer.status, 200, "{text}");
    assert!(answer.is_whole, "cut off after {} bytes", answer.body.len());
    assert!(answer.body == group(script, sequence), "another group than {sequence}");
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
}

/// Waits until the listing below a prefix is this one.
async fn lists(address: SocketAddr, prefix: &str, expect: &str) {
    let listed = async {
        loop {
            let answer = get(address, &format!("/announced{prefix}")).await;
            assert_eq!(answer.status, 200);
            if answer.is_whole && answer.text() == expect {
                return;
            }
        }
    };
    within(format!("{expect:?} to be listed below {prefix:?}"), listed).await;
}

/// A relay with one publisher of one track, which is announced.
struct Scene {
    relay: Relay,
    publisher: Peer,
    channel: Channel,
}

impl Scene {
    async fn new(shards: usize) -> Scene {
        Scene::with(Relay::start(shards).await, LITE_06, TRACK).await
    }

    async fn with(relay: Relay, version: &'static str, track: &str) -> Scene {
        println!("seed {SEED:#x}");
        let publisher = Peer::connect(&relay, version, Role::Publisher).await;
        let channel = publisher.announce(PATH, &[track]);
        lists(relay.address(), "", &format!("{PATH}\n")).await;
        Scene { relay, publisher, channel }
    }

    fn address(&self) -> SocketAddr {
        self.relay.address()
    }

    async fn get(&self, query: &str) -> Answer {
        get(self.address(), &format!("/fetch/{PATH}/{TRACK}{query}")).await
    }

    async fn begin(&self, query: &str) -> Exchange {
        let request = format!("GET /fetch/{PATH}/{TRACK}{query} HTTP/1.1\r\nHost: relay\r\n\r\n");
        Exchange::begin(self.address(), &request).await
    }
}

// ---- what is the same for everybody ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_routes_and_methods() {
    let relay = Relay::start(1).await;
    let address = relay.address();
    let health = get(address, "/health").await;
    health.expect(200, "ok\n");
    assert_eq!(health.header("access-control-allow-origin"), Some("*"));
    assert_eq!(health.header("cache-control"), Some("no-store"));

    let certificate = get(address, "/certificate.sha256").await;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    assert!(certificate.body.len() == 64 && certificate.body.iter().all(|byte| is_hex(*byte)));

    let page = get(address, "/").await;
    assert_eq!(page.status, 200);
    let host = format!("http://{address}/");
    for word in ["<!doctype html>", host.as_str(), certificate.text(), "/announced"] {
        assert!(page.text().contains(word), "{word:?} is not on the page");
    }
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    for target in ["/nothing", "/health/x", "/fetch", "/favicon.ico"] {
        let lost = get(address, target).await;
        assert_eq!((lost.status, lost.text() == page.text()), (404, true), "{target}");
    }

    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let refused = ask(address, method, "/health", "Content-Length: 0\r\n").await;
        refused.refuses(405, "only GET and HEAD");
        assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    }
    let asked = "Origin: http://localhost:3000\r\nAccess-Control-Request-Method: GET\r\n\
                 Access-Control-Request-Headers: x-thing\r\n";
    let preflight = ask(address, "OPTIONS", "/announced", asked).await;
    assert_eq!((preflight.status, preflight.body.len()), (204, 0));
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    assert_eq!(preflight.header("access-control-allow-methods"), Some("GET, HEAD"));
    assert_eq!(preflight.header("access-control-allow-headers"), Some("x-thing"));

    // Another protocol may be offered, and need not be taken.
    ask(address, "GET", "/health", "Connection: Upgrade\r\nUpgrade: h2c\r\n")
        .await
        .expect(200, "ok\n");

    // Whatever a client makes up, it hears what was wrong with it or is cut off, and nobody else
    // notices.
    let long = format!("X-Long: {}\r\n", "x".repeat(100_000));
    assert_eq!(ask(address, "GET", "/health", &long).await.status, 431);
    assert_eq!(get(address, "/fetch/a/%ff").await.status, 400);
    for garbage in ["\x16\x03\x01\x02\x00\x01\r\n\r\n", "GET\r\n\r\n", "\r\n\r\n\r\n\r\n\0\r\n\r\n"]
    {
        let answer = Exchange::begin(address, garbage).await.finish().await;
        assert!(answer.is_none_or(|answer| answer.status == 400), "{garbage:?}");
    }
    get(address, "/health").await.expect(200, "ok\n");
}

/// What a client says that wants a WebSocket, with these protocols.
fn wish(protocols: &str) -> String {
    format!(
        "Connection: keep-alive, Upgrade\r\nUpgrade: h2c, WebSocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocols}\r\n"
    )
}

/// At whatever path; what is spoken there released clients judge (`interop.rs`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_are_agreed_on_or_refused() {
    let relay = Relay::allowing(2, "https://app.example").await;
    let address = relay.address();
    let good = wish("qmux-03.moq-lite-05, qmux-01.moq-lite-05, webtransport");
    for target in ["/", "/anon/room?x=jwt", "/health", "/announced", "/fetch/a/b", "/nothing"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n{good}\r\n");
        let mut exchange = Exchange::begin(address, &request).await;
        let mut head = vec![0; 17];
        exchange.stream.read_exact(&mut head).await.expect("an answer");
        assert_eq!(String::from_utf8_lossy(&head), "HTTP/1.1 101 Swit", "{target}");
        while !head.ends_with(b"\r\n\r\n") {
            head.push(exchange.stream.read_u8().await.expect("the rest of the head"));
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        for field in [
            "connection: upgrade\r\n",
            "upgrade: websocket\r\n",
            "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n",
            "sec-websocket-protocol: qmux-01.moq-lite-05\r\n",
        ] {
            assert!(head.contains(field), "{field:?} is not in {head:?}");
        }
        // The relay says first what it allows.
        assert_eq!(exchange.stream.read_u8().await.expect("a message"), 0x82);
    }
    let without = |line: &str| {
        let lines = good.split_inclusive("\r\n").filter(|field| !field.starts_with(line));
        lines.collect::<String>()
    };
    let nothing_known = wish("moq-lite-05, qmux-03, webtransport");
    for (fields, target, status, words) in [
        (nothing_known.clone(), "/", 400, "no protocol in common"),
        (wish(""), "/", 400, "no protocol in common"),
        (without("Sec-WebSocket-Protocol"), "/", 400, "no protocol in common"),
        (without("Sec-WebSocket-Version"), "/", 426, "version 13"),
        (without("Sec-WebSocket-Key"), "/", 400, "no request for a WebSocket"),
        (good.replace("Bub25jZQ==", "B"), "/", 400, "no request for a WebSocket"),
        (good.clone(), "/anon/room?jwt=x", 401, "token is not a JWT"),
        (good.clone(), "/**/x", 400, "malformed path"),
        (good.clone(), &format!("/{}", "x".repeat(2000)), 400, "too long"),
        (format!("{good}Origin: https://evil.example\r\n"), "/", 403, "--allow-origin"),
    ] {
        ask(address, "GET", target, &fields).await.refuses(status, words);
    }
    relay.says_times("no protocol in common", 3).await;
    let length = "Content-Length: 5\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (fields, body) in [
        (String::new(), ""),
        (format!("Host: {address}\r\nHost: b.example\r\n"), ""),
        (format!("Host: {address}\r\n{length}"), "hello"),
        (format!("Host: {address}\r\n{chunked}"), "5\r\nhello\r\n0\r\n\r\n"),
        (format!("Host: {address}\r\n{length}{chunked}"), "5\r\nhello\r\n0\r\n\r\n"),
    ] {
        let request = format!("GET / HTTP/1.1\r\n{fields}{good}\r\n{body}");
        let answer = Exchange::begin(address, &request).await.finish().await.expect("an answer");
        answer.refuses(400, "no request for a WebSocket");
    }
    let posted = ask(address, "POST", "/", &format!("{good}Content-Length: 0\r\n")).await;
    posted.refuses(400, "no request for a WebSocket");
    let origin = format!("{good}Origin: https://app.example\r\n");
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\n{origin}\r\n");
    let mut exchange = Exchange::begin(address, &request).await;
    let mut head = [0; 12];
    exchange.stream.read_exact(&mut head).await.expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 101");
    drop(exchange);
    relay.stop().await.expect_success();

    let relay = Relay::prepared(1, &["--web-ws", "off"], |_| {}).await;
    let address = relay.address();
    ask(address, "GET", "/a", &good).await.refuses(400, "--web-ws is off");
    let line = relay.says("--web-ws is off").await;
    assert!(line.contains("refused") && line.contains("transport=\"http\""), "{line}");
    // Who may not come in need not look for another way.
    ask(address, "GET", "/a?jwt=x", &good).await.refuses(401, "token is not a JWT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_answered_without_bodies() {
    let mut scene = Scene::new(2).await;
    let script = Script::new(SEED, 0, 1, &SIZES);
    scene.channel.publish(TRACK, &script);
    let fetch = format!("/fetch/{PATH}/{TRACK}");
    let table = [
        ("/health", 200),
        ("/certificate.sha256", 200),
        ("/announced", 200),
        ("/", 200),
        ("/nothing", 404),
        (&fetch, 200),
        ("/fetch/nobody/video", 404),
    ];
    for (target, status) in table {
        let head = ask(scene.address(), "HEAD", target, "").await;
        assert_eq!((head.status, head.body.len()), (status, 0), "{target}");
        assert_eq!(head.header("access-control-allow-origin"), Some("*"), "{target}");
    }
    // Nobody reads what the last fetch but one has opened.
    scene.channel.unwanted(TRACK).await;
}

/// On one's own machine the page says who watches what, and how fast that comes, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_who_watches() {
    const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/browser/landing.mjs");
    let mut scene = Scene::new(2).await;
    let address = scene.address();
    let _quiet = scene.publisher.announce("live/quiet", &[TRACK]);
    let mut viewers = Vec::new();
    for viewer in 0..2 {
        let mut peer = Peer::connect_on(&scene.relay, LITE_06, Role::Viewer, viewer).await;
        peer.sees(PATH).await;
        let view = peer.subscribe(PATH, TRACK).await.expect("a subscription");
        viewers.push((peer, view));
    }
    scene.channel.wanted(TRACK).await;
    let script = Script::new(SEED, 0, 2000, &[2500]);
    let shown = tokio::task::spawn_blocking(move || {
        let pattern = r"live/cam\s+2 viewers, [1-9][0-9.]* (k|M)bit/s\s+live/quiet";
        let mut node = Command::new("node");
        node.args([SCRIPT, &format!("http://{address}/"), pattern]);
        Process::spawn(node).ended(Duration::from_secs(40))
    });
    let publishing = async {
        for group in &script.groups {
            scene.channel.publish_group(TRACK, &script, group);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let shown = tokio::select! {
        shown = shown => shown.expect("it ends"),
        () = publishing => panic!("it takes forty seconds"),
    };
    assert_eq!(shown.code(), 0, "{shown:?}");
    // What it was told by.
    let live = get(address, "/live.json").await;
    let told: serde_json::Value = serde_json::from_str(live.text()).expect("JSON");
    let cam = &told["broadcasts"][PATH];
    assert_eq!(cam["viewers"], 2, "{told}");
    assert!(cam["bytes"].as_u64().is_some_and(|bytes| bytes >= 2500), "{told}");
    drop(viewers);
}

/// Whoever may not watch is told of nobody who does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_is_not_for_everybody() {
    let relay = Relay::open_to(1, "anon/**").await;
    let address = relay.address();
    get(address, "/live.json?jwt=a.b.c").await.refuses(401, "not a JWT");
    assert_eq!(get(address, "/live.json").await.status, 200);
    assert!(get(address, "/").await.text().contains("LIVE = true"));
    relay.stop().await.expect_success();
    // For others than this machine there is none, nor does the page ask.
    let exposed = Relay::prepared(
        1,
        &[
            "--listen",
            "0.0.0.0:0",
            "--listen-tls-generate",
            "a.example",
            "--web-http-listen",
            "127.0.0.1:0",
        ],
        |_| {},
    )
    .await;
    let line = exposed.says("kind=http").await;
    let at = line.split_once("addr=").and_then(|(_, at)| at.split(' ').next()?.parse().ok());
    let at: SocketAddr = at.expect("an address");
    get(at, "/live.json").await.refuses(404, "--internal-listen");
    assert!(get(at, "/").await.text().contains("LIVE = false"));
}

/// A relay on this machine is nothing for the pages of any website, but for those that are named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_sites_are_refused() {
    let relay = Relay::allowing(1, "https://app.example").await;
    let targets = ["/", "/health", "/certificate.sha256", "/announced", "/fetch/a/b", "/nothing"];
    for (origins, is_refused) in [
        ("", false),
        ("Origin: http://127.0.0.1:8080\r\n", false),
        ("Origin: https://app.example\r\n", false),
        ("Origin: https://evil.example\r\n", true),
        ("Origin: null\r\n", true),
        ("Origin: http://localhost\r\nOrigin: https://evil.example\r\n", true),
    ] {
        for target in targets {
            let answer = ask(relay.address(), "GET", target, origins).await;
            assert_eq!(answer.status == 403, is_refused, "{target} {origins:?}");
            if is_refused {
                answer.refuses(403, "--allow-origin");
            }
        }
        let asked = format!("{origins}Access-Control-Request-Method: GET\r\n");
        let preflight = ask(relay.address(), "OPTIONS", "/announced", &asked).await;
        assert_eq!(preflight.status, if is_refused { 403 } else { 204 }, "{origins:?}");
    }
}

/// A name of somebody else's that leads here would have the answers taken for its own page's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_on_this_machine_goes_by_its_own_names() {
    let relay = Relay::allowing(1, "https://app.example").await;
    let hosts = [("localhost:1", 200), ("app.example", 200), ("evil.example:4443", 403)];
    for (host, status) in hosts {
        let request = format!("GET /announced HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer =
            Exchange::begin(relay.address(), &request).await.finish().await.expect("an answer");
        assert_eq!(answer.status, status, "{host}");
    }
}

/// As people and scripts ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_gets_a_group() {
    let mut scene = Scene::new(2).await;
    let script = Script::new(SEED, 0, 2, &SIZES);
    scene.channel.publish(TRACK, &script);
    let url = format!("http://{}/fetch/{PATH}/{TRACK}?group=latest", scene.address());
    let curl = tokio::task::spawn_blocking(move || {
        Command::new("curl").args(["--silent", "--fail", "--max-time", "20", &url]).output()
    });
    let output = curl.await.expect("no panic").expect("curl is installed");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout == group(&script, 1), "{} bytes", output.stdout.len());
}

// ---- what is announced ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcements_are_listed_while_they_last() {
    for shards in [1, 4] {
        let relay = Relay::start(shards).await;
        let address = relay.address();
        lists(address, "", "").await;
        let publisher = Peer::connect(&relay, LITE_06, Role::Publisher).await;
        let paths = ["live/b", "live/a", "other", "live-not"];
        let mut channels: Vec<Channel> =
            paths.iter().map(|path| publisher.announce(path, &[])).collect();
        lists(address, "", "live-not\nlive/a\nlive/b\nother\n").await;
        lists(address, "/", "live-not\nlive/a\nlive/b\nother\n").await;
        lists(address, "/live", "a\nb\n").await;
        lists(address, "//live//", "a\nb\n").await;
        lists(address, "/live/a", "\n").await;
        lists(address, "/l%69ve", "a\nb\n").await;
        lists(address, "/nothing", "").await;
        channels.remove(1).close();
        lists(address, "/live", "b\n").await;
        publisher.leave().await;
        lists(address, "", "").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_public_is_shown() {
    let relay = Relay::open_to(2, "anon/**,live/open/**").await;
    let address = relay.address();
    let publisher = Peer::connect(&relay, LITE_06, Role::Publisher).await;
    let mut channel = publisher.announce("anon/cam", &[TRACK]);
    let _other = publisher.announce("live/open/cam", &[]);
    let _closed = publisher.announce("live/closed", &[TRACK]);
    lists(address, "", "anon/cam\nlive/open/cam\n").await;
    lists(address, "/live", "open/cam\n").await;
    lists(address, "/anon", "cam\n").await;
    get(address, "/announced/live/closed").await.refuses(401, "nothing is public");
    get(address, "/announced/anonymous").await.refuses(401, "nothing is public");
    get(address, "/announced/a/**").await.refuses(400, "not a path");
    let script = Script::new(SEED, 0, 1, &SIZES);
    channel.publish(TRACK, &script);
    expect_group(&get(address, "/fetch/anon/cam/video").await, &script, 0);
    get(address, "/fetch/live/closed/video").await.refuses(401, "nothing is public");
    get(address, "/fetch/live/video").await.refuses(401, "not this broadcast");
    get(address, "/fetch/anon/cam/video?jwt=x").await.refuses(401, "token is not a JWT");
    get(address, "/announced?jwt=x").await.refuses(401, "token is not a JWT");
}

// ---- groups ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_come_from_every_home() {
    for (shards, version) in [(1, LITE_05), (2, LITE_06), (4, LITE_05)] {
        // At each home it is waited for.
        let relay = Relay::lingering(shards, Duration::from_secs(1)).await;
        for home in 0..shards {
            let mut names = (0..).map(|n| format!("video{n}"));
            let track = names.find(|name| home_of(PATH, name, shards) == home).expect("a name");
            let Scene { publisher, mut channel, .. } =
                Scene::with(relay.clone(), version, &track).await;
            let script = Script::new(SEED, 0, 4, &SIZES);
            channel.publish(&track, &script);
            let fetch = |query| format!("/fetch/{PATH}/{track}{query}");
            // Three at once, of which two are the same.
            let (past, latest, default) = (fetch("?group=1"), fetch("?group=latest"), fetch(""));
            let address = relay.address();
            let (past, latest, default) =
                tokio::join!(get(address, &past), get(address, &latest), get(address, &default));
            expect_group(&past, &script, 1);
            expect_group(&latest, &script, 3);
            expect_group(&default, &script, 3);
            // From the cache, however often.
            let asked = publisher.asked().fetches;
            for _ in 0..3 {
                expect_group(&get(address, &fetch("?group=1")).await, &script, 1);
            }
            assert_eq!(publisher.asked().fetches, asked);
            get(address, &fetch("?group=99")).await.refuses(404, "no such track or group");
            channel.unwanted(&track).await;
            publisher.leave().await;
            lists(address, "", "").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_group_of_a_resumed_subscription_and_of_a_viewer() {
    let mut scene = Scene::new(2).await;
    let script = Script::new(SEED, 0, 6, &SIZES);
    let publish = |channel: &mut Channel, sequence: u64| {
        channel.publish_group(TRACK, &script, script.find(sequence).expect("scripted"));
    };
    publish(&mut scene.channel, 0);
    expect_group(&scene.get("").await, &script, 0);
    // The publisher has sent that one already, and says nothing.
    expect_group(&scene.get("").await, &script, 0);
    publish(&mut scene.channel, 1);
    expect_group(&scene.get("").await, &script, 1);
    // Somebody watches: what he has last is it.
    let mut viewer = Peer::connect(&scene.relay, LITE_03, Role::Viewer).await;
    viewer.sees(PATH).await;
    let mut view = viewer.subscribe(PATH, TRACK).await.expect("subscription");
    publish(&mut scene.channel, 2);
    while view.group("viewer").await.expect("a group").0 != 2 {}
    let asked = scene.publisher.asked().subscriptions;
    expect_group(&scene.get("").await, &script, 2);
    assert_eq!(scene.publisher.asked().subscriptions, asked);
    viewer.leave().await;
    scene.channel.finish(TRACK);
    expect_group(&scene.get("").await, &script, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_growing_group_is_passed_on_as_it_grows() {
    let mut scene = Scene::new(2).await;
    let script = Script::new(SEED, 0, 2, &[10, 2000, 300, 1]);
    let mut growing = scene.channel.open_group(TRACK, 1);
    script.write(&mut growing, 0..2);
    let mut latest = scene.begin("").await;
    let begun: Vec<u8> = (0..2).flat_map(|index| script.payload(1, index)).collect();
    latest.body_begins(&begun).await;
    let mut numbered = scene.begin("?group=1").await;
    numbered.body_begins(&begun).await;
    script.write(&mut growing, 2..3);
    latest.body_begins(&[&begun[..], &script.payload(1, 2)].concat()).await;
    script.write(&mut growing, 3..4);
    growing.finish().expect("finish");
    for exchange in [latest, numbered] {
        let answer = within("the rest", exchange.finish()).await.expect("an answer");
        expect_group(&answer, &script, 1);
    }
    scene.channel.unwanted(TRACK).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_breaks_off_is_cut_off() {
    let mut scene = Scene::new(2).await;
    let script = Script::new(SEED, 5, 1, &[10, 2000]);
    let archive = scene.channel.archive(TRACK);
    let mut exchange = scene.begin("?group=5").await;
    let mut growing = archive.request().await.accept(None).expect("a group that nobody has made");
    script.write(&mut growing, 0..1);
    exchange.body_begins(&script.payload(5, 0)).await;
    growing.abort(moq_net::Error::App(7)).expect("abort");
    let answer = within("the end", exchange.finish()).await.expect("an answer");
    assert_eq!((answer.status, answer.is_whole), (200, false));
    assert_eq!(answer.body, script.payload(5, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_had_is_refused_in_one_line() {
    let mut scene = Scene::new(2).await;
    let address = scene.address();
    let refuses = async |target: &str, status, words| {
        get(address, target).await.refuses(status, words);
    };
    refuses("/fetch/nobody/video", 404, "nobody has announced").await;
    refuses("/fetch/nobody/video?group=3", 404, "nobody has announced").await;
    refuses("/fetch/live/cam/audio", 404, "no such track").await;
    refuses("/fetch/live/cam/audio?group=0", 404, "no such track").await;
    refuses("/fetch/live/cam/video?group=0", 404, "no such track or group").await;
    refuses("/fetch/video", 400, "/fetch/BROADCAST/TRACK").await;
    refuses("/fetch/live/cam/", 400, "/fetch/BROADCAST/TRACK").await;
    refuses("/fetch/a/*/b", 400, "not a path").await;
    refuses("/fetch/live/cam/video?group=first", 400, "group=NUMBER").await;
    refuses("/fetch/live/cam/video?group=99999999999999999999", 400, "group=NUMBER").await;
    let named = |bytes: usize| format!("/fetch/nobody/{}", "n".repeat(bytes - "nobody/".len()));
    refuses(&named(REQUEST_NAME_BYTES_MAX), 404, "nobody has announced").await;
    refuses(&named(REQUEST_NAME_BYTES_MAX + 1), 400, "the path is too long").await;
    scene.channel.finish(TRACK);
    refuses("/fetch/live/cam/video", 404, "no such track or group").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_leaves_is_named() {
    let mut scene = Scene::new(2).await;
    let archive = scene.channel.archive(TRACK);
    let waiting = scene.begin("?group=5").await;
    let request = archive.request().await;
    assert_eq!(request.sequence(), 5);
    scene.publisher.leave().await;
    let answer = within("a refusal", waiting.finish()).await.expect("an answer");
    answer.refuses(502, "the publisher has left");
}

// ---- clients of every temper ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_up_wants_nothing_any_more() {
    for shards in [1, 2, 4] {
        let mut scene = Scene::new(shards).await;
        let archive = scene.channel.archive(TRACK);
        let waiting = scene.begin("?group=5").await;
        let request = archive.request().await;
        drop(waiting);
        abandoned(&request).await;
        // Nothing is published yet, so this one waits for the first group.
        let waiting = scene.begin("").await;
        scene.channel.wanted(TRACK).await;
        drop(waiting);
        scene
            .channel
            .asked_to("a pause", TRACK, |wanted| wanted.is_none_or(|wanted| wanted.end.is_some()))
            .await;
    }
}

/// More than what all together may leave unread: who has read nothing for the longest is cut off,
/// and everybody else has what he asks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_reads_makes_room_for_others() {
    const FRAME_BYTES: usize = 4 << 20;
    const FRAMES: usize = 7;
    /// What they leave unread is all that there is room for.
    const FIT: usize = WEB_UNREAD_BYTES_MAX / (FRAME_BYTES * FRAMES);
    let mut scene = Scene::new(2).await;
    let script = Script::new(SEED, 0, 1, &[FRAME_BYTES; FRAMES]);
    scene.channel.publish(TRACK, &script);
    expect_group(&scene.get("?group=0").await, &script, 0);
    let mut silent = Vec::new();
    for _ in 0..2 * FIT {
        silent.push(scene.begin("?group=0").await);
        // It has its share when the first bytes have come.
        silent.last_mut().expect("just pushed").stream.readable().await.expect("an answer");
    }
    for _ in 0..3 {
        expect_group(&scene.get("?group=0").await, &script, 0);
    }
    for (number, exchange) in silent.into_iter().enumerate() {
        let answer = exchange.finish().await.expect("an answer");
        assert!(number >= FIT || !answer.is_whole, "reader {number} has everything");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_at_once_are_bounded() {
    let mut scene = Scene::new(2).await;
    let archive = scene.channel.archive(TRACK);
    let mut waiting = Vec::new();
    for _ in 0..WEB_FETCHES_MAX {
        waiting.push(scene.begin("?group=5").await);
    }
    let request = archive.request().await;
    let refused = async {
        loop {
            let answer = scene.get("?group=6").await;
            if answer.status == 503 {
                return answer;
            }
        }
    };
    let busy = within("a refusal", refused).await;
    busy.refuses(503, "too many groups");
    assert_eq!(busy.header("retry-after"), Some("1"));
    get(scene.address(), "/health").await.expect(200, "ok\n");
    drop(waiting);
    abandoned(&request).await;
    let served = async { while scene.get("?group=99").await.status == 503 {} };
    within("room for another", served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_ends_a_request_is_cut_off_in_time() {
    let relay = Relay::start(1).await;
    let address = relay.address();
    let began = Instant::now();
    let mute = Exchange::begin(address, "").await;
    let slow = Exchange::begin(address, "GET /health HTTP/1.1\r\nHost:").await;
    for exchange in [mute, slow] {
        let answer = within("the end", exchange.finish()).await;
        assert!(answer.is_none_or(|answer| answer.status == 408));
    }
    let took = began.elapsed();
    assert!(took >= WEB_HEAD_TIMEOUT - Duration::from_millis(100), "after {took:?}");
    get(address, "/health").await.expect(200, "ok\n");
}

/// More than there are places for begin a request and never end it: who asks at once is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_never_come_keep_nobody_out() {
    const CLIENTS: usize = 700;
    const _: () = assert!(CLIENTS > 2 * WEB_CONNECTIONS_MAX);
    let relay = Relay::start(1).await;
    let address = relay.address();
    let mut halves = Vec::new();
    let began = Instant::now();
    for _ in 0..CLIENTS {
        halves.push(Exchange::begin(address, "GET /health HTTP/1.1\r\nHost:").await);
    }
    for _ in 0..10 {
        get(address, "/health").await.expect(200, "ok\n");
    }
    // None of them has left by itself.
    let took = began.elapsed();
    assert!(took < WEB_HEAD_TIMEOUT, "after {took:?}");
}

/// One shard hangs: whoever asks hears of it in time, and when it turns again all is well. A relay
/// of which a shard hangs for good ends in time too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_hangs_is_told_of() {
    const GRACE: Duration = Duration::from_secs(1);
    let relay = Relay::start(2).await;
    let address = relay.address();
    get(address, "/health").await.expect(200, "ok\n");
    let hang = Hang::of(relay.id(), "shard-1");
    let began = Instant::now();
    let (health, ..) = tokio::join!(get(address, "/health"), get(address, "/health"));
    health.refuses(503, "no answer from shard 1");
    assert!(began.elapsed() < SHARD_ANSWER_MAX + GRACE, "{:?}", began.elapsed());
    // They are asked in turns.
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let began = Instant::now();
        statuses.push(get(address, "/announced").await.status);
        assert!(began.elapsed() < SHARD_ANSWER_MAX + GRACE, "{:?}", began.elapsed());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
    drop(hang);
    get(address, "/health").await.expect(200, "ok\n");
    assert_eq!(get(address, "/announced").await.status, 200);
    assert_eq!(get(address, "/announced").await.status, 200);

    let hang = Hang::of(relay.id(), "shard-1");
    let ended = relay.stop_upset().await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.took >= END_MAX && ended.took < END_MAX + GRACE, "{:?}", ended.took);
    let says = |words: &str| ended.log.iter().any(|line| line.contains(words));
    assert!(says("did not end in time"), "{:?}", ended.log);
    drop(hang);
}

/// A thread of another process that is held where it is, as a debugger does it, until this is
/// dropped. Who holds a thread is a thread too.
struct Hang {
    release: Option<mpsc::Sender<()>>,
    holder: Option<std::thread::JoinHandle<()>>,
}

impl Hang {
    fn of(process: libc::pid_t, thread: &str) -> Hang {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("a process");
        let id = tasks.filter_map(Result::ok).find(|task| {
            let name = std::fs::read_to_string(task.path().join("comm"));
            name.is_ok_and(|name| name.trim() == thread)
        });
        let id = id.expect("a thread of this name").file_name();
        let id: libc::pid_t = id.to_str().and_then(|id| id.parse().ok()).expect("a number");
        let (release, released) = mpsc::channel();
        let (holding, held) = mpsc::channel();
        let holder = std::thread::spawn(move || {
            let nothing = std::ptr::null_mut::<libc::c_void>();
            // SAFETY: no memory is shared with the other process, and the calls write nothing here.
            unsafe {
                let seized = libc::ptrace(libc::PTRACE_SEIZE, id, nothing, nothing);
                assert_eq!(seized, 0, "{}", std::io::Error::last_os_error());
                assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, id, nothing, nothing), 0);
                assert_eq!(libc::waitpid(id, std::ptr::null_mut(), libc::__WALL), id);
            }
            holding.send(()).expect("somebody waits");
            while released.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout)
            {
                // SAFETY: as above. The end of a thread that is held is its holder's to see.
                unsafe { libc::waitpid(id, std::ptr::null_mut(), libc::__WALL | libc::WNOHANG) };
            }
            // SAFETY: as above. Where the process is gone, there is nothing to release.
            unsafe { libc::ptrace(libc::PTRACE_DETACH, id, nothing, nothing) };
        });
        held.recv().expect("the thread is held");
        Hang { release: Some(release), holder: Some(holder) }
    }
}

impl Drop for Hang {
    fn drop(&mut self) {
        drop(self.release.take());
        let _ = self.holder.take().expect("dropped once").join();
    }
}

/// Thousands of connections of which half never end their request: who watches loses nothing, and
/// HTTP is there again afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_costs_no_viewer_anything() {
    const CLIENTS: usize = 2000;
    let relay = Relay::start(2).await;
    let address = relay.address();
    let publisher = Peer::connect(&relay, LITE_06, Role::Publisher).await;
    let mut channel = publisher.announce(PATH, &[TRACK]);
    let first = prologue(SEED, 0);
    channel.publish(TRACK, &first);
    let mut viewer = Peer::connect(&relay, LITE_06, Role::Viewer).await;
    viewer.sees(PATH).await;
    let mut view = viewer.subscribe(PATH, TRACK).await.expect("subscription");
    view.expect("viewer", &first, true).await;
    let mut flow = Flow::start(channel, TRACK, SEED, 1);

    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let target = match client % 4 {
            0 => "/announced".to_owned(),
            1 => format!("/fetch/{PATH}/{TRACK}"),
            _ => String::new(),
        };
        clients.spawn(async move {
            let end = if target.is_empty() { "" } else { "\r\n\r\n" };
            let request = format!("GET {target} HTTP/1.1\r\nHost: relay{end}");
            let exchange = Exchange::begin(address, &request);
            // Those that find no place may wait for the end of the play.
            let Ok(exchange) = tokio::time::timeout(Duration::from_secs(8), exchange).await else {
                return false;
            };
            let finish = tokio::time::timeout(Duration::from_secs(8), exchange.finish());
            matches!(finish.await, Ok(Some(answer)) if answer.status == 200)
        });
    }
    flow.more(500).await;
    let mut served = 0;
    while let Some(client) = clients.join_next().await {
        served += usize::from(client.expect("no panic"));
    }
    flow.more(10).await;
    let (mut channel, said) = flow.end().await;
    channel.finish(TRACK);
    view.expect("viewer", &said, true).await;
    view.expect_end("viewer").await;
    println!("{} groups, {served} of {CLIENTS} clients served", said.groups.len());
    assert!(served > 0);
    get(address, "/health").await.expect(200, "ok\n");
}

// ---- ports ----

#[test]
fn the_kernel_chooses_one_port_for_both() {
    for _ in 0..3 {
        let mut relay = Process::spawn(shardcast(&["--listen", "127.0.0.1:0"]));
        let quic = relay.listening(LISTENING_WITHIN);
        let http = format!("listening addr={quic} kind=\"http\"");
        let plain = format!("listening addr={quic} kind=http");
        let line = relay.stderr_line("kind=http", LISTENING_WITHIN);
        assert!(line.contains(&http) || line.contains(&plain), "{line}");
        let welcome = relay.stdout_line("  http ", LISTENING_WITHIN);
        assert!(welcome.contains(&format!("curl http://{quic}/announced")), "{welcome}");
        let sha256 = relay.stdout_line("  sha256 ", LISTENING_WITHIN);
        let url = format!("http://{quic}/certificate.sha256");
        let output = Command::new("curl").args(["--silent", &url]).output().expect("curl");
        let hash = String::from_utf8(output.stdout).expect("text");
        assert_eq!(sha256.trim_start().trim_start_matches("sha256").trim(), hash);
        // Also while somebody is connected.
        let _idle = std::net::TcpStream::connect(quic).expect("a connection");
        relay.signal(libc::SIGTERM);
        assert_eq!(relay.ended(LISTENING_WITHIN).code(), 0);
    }
}

#[test]
fn http_may_be_off_or_elsewhere() {
    let mut relay =
        Process::spawn(shardcast(&["--listen", "127.0.0.1:0", "--web-http-listen", "off"]));
    let quic = relay.listening(LISTENING_WITHIN);
    relay.stderr_line("cache:", LISTENING_WITHIN);
    std::net::TcpStream::connect(quic).expect_err("nobody listens");
    relay.signal(libc::SIGTERM);
    let ended = relay.ended(LISTENING_WITHIN);
    assert!(!ended.stderr.contains("kind=http") && !ended.stdout.contains("http://"));

    let mut command = shardcast(&["--listen", "127.0.0.1:0"]);
    command.env("MOQ_WEB_HTTP_LISTEN", "[::1]:0");
    let mut relay = Process::spawn(command);
    relay.listening(LISTENING_WITHIN);
    let line = relay.stderr_line("kind=http", LISTENING_WITHIN);
    assert!(line.contains("addr=[::1]:"), "{line}");
}

#[test]
fn a_taken_port_is_named_with_its_protocol() {
    // Free for UDP, or another one is found.
    let (taken, address) = loop {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("bound");
        if std::net::UdpSocket::bind(address).is_ok() {
            break (taken, address.to_string());
        }
    };
    let ended = Process::spawn(shardcast(&["--listen", &address])).ended(LISTENING_WITHIN);
    assert_eq!((ended.code(), ended.stdout.as_str()), (1, ""));
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    for word in ["TCP", &address, "in use", "--web-http-listen off"] {
        assert!(ended.stderr.contains(word), "{:?} lacks {word:?}", ended.stderr);
    }
    drop(taken);
}
