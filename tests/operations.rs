//! What operators ask of a relay that runs: the real binary, released clients, and figures as a Prometheus
//! client library reads them.

#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod client;
    pub mod held;
    pub mod http;
    pub mod relay;
    pub mod tokens;
}

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use moq_net::origin;
use moq_tokio::{Connection, connect};
use serde_json::Value;
use shardcast::limits::{SIGNAL_TWICE_WITHIN, TRACKS_PER_PAGE};
use support::client::{LITE_03, LITE_05, LITE_06, Peer, Role, Script, within};
use support::held::Held;
use support::http::{Answer, ask, get};
use support::relay::Relay;
use support::tokens::Issuer;

const SEED: u64 = 0x0b5e_0000_0000_0017;

const PATH: &str = "live/cam";
const TRACK: &str = "video";

/// A small frame, none at all, and one of several datagrams.
const SIZES: [usize; 3] = [10, 0, 5000];

const INTERNAL: [&str; 2] = ["--internal-listen", "127.0.0.1:0"];

/// What sessions come by, with what that takes.
type Way = (&'static str, fn(&Relay) -> Relay, &'static [&'static str]);

const WAYS: [Way; 4] = [
    ("QUIC", Relay::clone, &[]),
    ("WebTransport", Relay::web, &[]),
    ("WebSocket", Relay::websocket, &[]),
    (
        "WebSocket over TLS",
        Relay::secure_websocket,
        &["--web-http-listen", "off", "--web-https-listen", "same"],
    ),
];

async fn post(address: SocketAddr, target: &str) -> Answer {
    ask(address, "POST", target, "Content-Length: 0\r\n").await
}

/// The family and its kind, the sample's own name and labels, and its value.
type Sample = (String, String, String, BTreeMap<String, String>, f64);

/// All samples of one scrape.
struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// As a client library reads them.
    async fn scrape(address: SocketAddr) -> Figures {
        let answer = get(address, "/metrics").await;
        assert_eq!(answer.status, 200);
        let kind = answer.header("content-type");
        assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
        const HERE: &str = env!("CARGO_MANIFEST_DIR");
        let mut python = Command::new(format!("{HERE}/target/demo-venv/bin/python"))
            .arg(format!("{HERE}/tests/clients/figures.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/setup.sh makes target/demo-venv");
        let mut text = python.stdin.take().expect("piped");
        text.write_all(&answer.body).expect("it reads");
        drop(text);
        let read = python.wait_with_output().expect("it ends");
        assert!(read.status.success(), "it cannot be read: {}", answer.text());
        let samples: Vec<Sample> = serde_json::from_slice(&read.stdout).expect("samples");
        let mut figures = BTreeMap::new();
        for (_, kind, name, labels, value) in samples {
            assert_ne!(kind, "unknown", "{name} has no type");
            let labels: Vec<_> =
                labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let name = format!("{name}{{{}}}", labels.join(","));
            assert!(figures.insert(name.clone(), value).is_none(), "{name} is there twice");
        }
        Figures(figures)
    }

    #[track_caller]
    fn of(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no {name} in {:#?}", self.0.keys()))
    }

    /// Over all rows of a family.
    #[track_caller]
    fn sum(&self, family: &str) -> f64 {
        let start = format!("{family}{{");
        let rows: Vec<f64> = self
            .0
            .iter()
            .filter(|(name, _)| name.starts_with(&start))
            .map(|(_, row)| *row)
            .collect();
        assert!(!rows.is_empty(), "no {family}");
        rows.iter().sum()
    }

    /// Between what the values of a histogram are that so many in a hundred are below, on all shards.
    fn percentile(&self, family: &str, percent: f64) -> Range<f64> {
        let mut below = BTreeMap::new();
        for (name, count) in &self.0 {
            let Some(labels) = name.strip_prefix(&format!("{family}_bucket{{")) else { continue };
            let end = labels.split(',').find_map(|label| label.strip_prefix("le="));
            let end = end.expect("an end").trim_end_matches('}').parse::<f64>().expect("a number");
            // Ends are positive, and of those what is larger has larger bits.
            *below.entry(end.to_bits()).or_insert(0.0) += count;
        }
        let rank = self.sum(&format!("{family}_count")) * percent / 100.0;
        let at = below.iter().find(|(_, below)| **below >= rank).expect("a bucket").0;
        let before = below.range(..at).next_back().map_or(0, |(end, _)| *end);
        f64::from_bits(before)..f64::from_bits(*at)
    }

    #[track_caller]
    fn expect(&self, rows: &[(&str, f64)]) {
        for (name, expect) in rows {
            assert_eq!(self.of(name), *expect, "{name}");
        }
    }
}

/// What was sent is what is counted, to the frame and to the byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_are_what_happened() {
    for way in WAYS {
        figures_are_what_happened_by(way).await;
    }
}

async fn figures_are_what_happened_by((way, by, listening): Way) {
    const VIEWERS: u64 = 5;
    const GROUPS: u64 = 7;
    println!("{way}");
    let more = [&INTERNAL[..], &["--track-metrics", "3"], listening].concat();
    let relay = Relay::prepared(2, &more, |_| {}).await;
    let dialled = by(&relay);
    let address = relay.internal().await;
    // Rows are there from the begin.
    let before = Figures::scrape(address).await;
    before.expect(&[
        ("moq_relay_frames_total{role=publisher,tier=}", 0.0),
        ("moq_relay_stale_groups_total{role=subscriber,tier=}", 0.0),
        ("moq_relay_sessions_opened_total{tier=}", 0.0),
        ("moq_relay_control_rx_bytes_total{class=subscribe,tier=}", 0.0),
        ("moq_relay_accept_failures_total{class=exhausted,listener=internal}", 0.0),
        ("moq_relay_accept_failures_total{class=connection,listener=web}", 0.0),
        ("moq_relay_accept_stalled_seconds{listener=web}", 0.0),
        ("moq_relay_draining_sessions{}", 0.0),
        ("shardcast_refusals_total{reason=not_public}", 0.0),
        ("shardcast_cut_groups_total{reason=too_far_behind}", 0.0),
        ("shardcast_dropped_groups_total{kind=live}", 0.0),
        ("shardcast_kernel_drops_total{shard=1}", 0.0),
        ("shardcast_shards{}", 2.0),
        ("shardcast_shard_up{shard=0}", 1.0),
        ("shardcast_shard_up{shard=1}", 1.0),
    ]);
    let version = format!("shardcast_build_info{{version={}}}", env!("CARGO_PKG_VERSION"));
    before.expect(&[(&version, 1.0)]);
    let days = before.of("shardcast_certificate_days_left{certificate=self-signed}");
    assert!((12.0..14.0).contains(&days), "{days}");

    let publisher = Peer::connect_on(&dialled, LITE_06, Role::Publisher, 0).await;
    let mut channel = publisher.announce(PATH, &[TRACK]);
    let mut viewers = Vec::new();
    for viewer in 0..VIEWERS {
        let version = if viewer % 2 == 0 { LITE_06 } else { LITE_05 };
        let mut peer = Peer::connect_on(&dialled, version, Role::Viewer, viewer as usize % 2).await;
        peer.sees(PATH).await;
        viewers.push(peer);
    }
    let script = Script::new(SEED, 0, GROUPS, &SIZES);
    let mut views = Vec::new();
    for viewer in &viewers {
        views.push(viewer.subscribe(PATH, TRACK).await.expect("a subscription"));
    }
    // Who subscribes later sees what is live then.
    const OPENED: &str = "moq_relay_subscriptions_opened_total{role=publisher,tier=}";
    within("all subscriptions", async {
        while Figures::scrape(address).await.of(OPENED) < VIEWERS as f64 {}
    })
    .await;
    channel.wanted(TRACK).await;
    channel.publish(TRACK, &script);
    channel.finish(TRACK);
    for (viewer, view) in views.iter_mut().enumerate() {
        view.expect(&format!("viewer {viewer}"), &script, true).await;
        view.expect_end(&format!("viewer {viewer}")).await;
    }
    drop(views);

    let figures = within("the ends of all subscriptions", async {
        loop {
            let figures = Figures::scrape(address).await;
            if figures.of("moq_relay_subscriptions_closed_total{role=publisher,tier=}")
                == VIEWERS as f64
            {
                return figures;
            }
        }
    })
    .await;
    let (frames, bytes) = (SIZES.len() as u64, SIZES.iter().sum::<usize>() as u64);
    let (viewers_all, sessions) = (VIEWERS as f64, relay.sessions() as f64);
    figures.expect(&[
        ("moq_relay_frames_total{role=publisher,tier=}", (VIEWERS * GROUPS * frames) as f64),
        ("moq_relay_frames_total{role=subscriber,tier=}", (GROUPS * frames) as f64),
        ("moq_relay_bytes_total{role=publisher,tier=}", (VIEWERS * GROUPS * bytes) as f64),
        ("moq_relay_bytes_total{role=subscriber,tier=}", (GROUPS * bytes) as f64),
        ("moq_relay_groups_total{role=publisher,tier=}", (VIEWERS * GROUPS) as f64),
        ("moq_relay_groups_total{role=subscriber,tier=}", GROUPS as f64),
        ("moq_relay_datagrams_total{role=publisher,tier=}", 0.0),
        ("moq_relay_stale_groups_total{role=publisher,tier=}", 0.0),
        ("moq_relay_subscriptions_opened_total{role=publisher,tier=}", viewers_all),
        ("moq_relay_subscriptions_opened_total{role=subscriber,tier=}", 1.0),
        ("moq_relay_viewers_opened_total{role=publisher,tier=}", viewers_all),
        ("moq_relay_viewers_closed_total{role=publisher,tier=}", viewers_all),
        ("moq_relay_announces_started_total{role=subscriber,tier=}", 1.0),
        ("moq_relay_announces_ended_total{role=subscriber,tier=}", 0.0),
        ("moq_relay_sessions_opened_total{tier=}", sessions),
        ("shardcast_join_seconds_count{}", viewers_all),
        ("shardcast_first_group_seconds_count{}", viewers_all),
        ("shardcast_track_groups_total{broadcast=live/cam,track=video}", GROUPS as f64),
    ]);
    let closed = figures.of("moq_relay_sessions_closed_total{tier=}");
    assert_eq!(sessions - closed, viewers_all + 1.0, "sessions that are there");
    // Those that have left are forgotten a little later.
    assert!(figures.sum("shardcast_connections") >= viewers_all + 1.0);
    for class in ["session", "announce", "subscribe", "track_info"] {
        for direction in ["tx", "rx"] {
            let name = format!("moq_relay_control_{direction}_bytes_total{{class={class},tier=}}");
            assert!(figures.of(&name) > 0.0, "{name}");
        }
    }
    // Every viewer was sent something at least once, and on this machine within a moment.
    let (added, seconds) =
        (figures.sum("shardcast_added_seconds_count"), figures.sum("shardcast_added_seconds_sum"));
    assert!(added >= viewers_all, "{added}");
    assert!(seconds / added < 0.1, "{seconds} s for {added}");
    // Half of the viewers are where the publisher is not.
    assert!(figures.sum("shardcast_mail_seconds_count") >= 1.0);
    assert!(figures.sum("shardcast_busy_seconds_total") > 0.0);
    assert!(
        figures.sum("shardcast_turn_seconds_count") > before.sum("shardcast_turn_seconds_count")
    );
    if !dialled.url().starts_with("ws") {
        figures.expect(&[
            ("shardcast_handshakes_total{outcome=completed}", sessions),
            ("shardcast_handshake_seconds_count{}", sessions),
        ]);
        assert!(figures.of("shardcast_rtt_seconds_count{}") >= 1.0);
        assert!(figures.of("shardcast_loss_ratio_count{}") >= 1.0);
    }
    assert!(figures.sum("shardcast_cache_bytes") >= (GROUPS * bytes) as f64);
    assert!(figures.sum("shardcast_cache_bytes") < figures.sum("shardcast_cache_bytes_max"));
}

/// What the relay says that it adds is a part of what clients see by a clock of theirs, group by group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_relay_adds_is_within_what_clients_measure() {
    const VIEWERS: usize = 3;
    const GROUPS: u64 = 100;
    for (way, by, listening) in WAYS {
        let more = [&INTERNAL[..], listening].concat();
        let relay = Relay::prepared(2, &more, |_| {}).await;
        let dialled = by(&relay);
        let publisher = Peer::connect_on(&dialled, LITE_06, Role::Publisher, 0).await;
        let mut channel = publisher.announce(PATH, &[TRACK]);
        let (mut viewers, mut views) = (Vec::new(), Vec::new());
        for viewer in 0..VIEWERS {
            let mut peer = Peer::connect_on(&dialled, LITE_06, Role::Viewer, viewer % 2).await;
            peer.sees(PATH).await;
            views.push(peer.subscribe(PATH, TRACK).await.expect("a subscription"));
            viewers.push(peer);
        }
        channel.wanted(TRACK).await;
        let script = Script::new(SEED, 0, 1 + GROUPS, &[1000]);
        // Viewers may find the first group when they come, and are not sent it because it is new.
        channel.publish_group(TRACK, &script, &script.groups[0]);
        for view in &mut views {
            view.group(way).await.expect("a group");
        }
        let mut took = Vec::new();
        for group in &script.groups[1..] {
            let sent = Instant::now();
            channel.publish_group(TRACK, &script, group);
            for view in &mut views {
                view.group(way).await.expect("a group");
                took.push(sent.elapsed().as_secs_f64());
            }
        }
        took.sort_by(f64::total_cmp);

        let figures = Figures::scrape(relay.internal().await).await;
        let added = figures.sum("shardcast_added_seconds_count");
        assert!(added >= took.len() as f64, "{way}: {added} samples of {} groups", took.len());
        for percent in [50, 90, 99] {
            let relay = figures.percentile("shardcast_added_seconds", percent as f64);
            let client = took[(took.len() * percent).div_ceil(100) - 1];
            println!("{way}: p{percent} {relay:?} of {client}");
            assert!(relay.start <= client, "{way}: p{percent} {relay:?} of {client}");
            // A system call takes longer than nothing.
            assert!(relay.end > 10e-6, "{way}: p{percent} {relay:?}");
        }
    }
}

/// A shard that stands still holds up what has come to this relay for its viewers, and says for how long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_up_is_added() {
    const HELD: Duration = Duration::from_millis(200);
    for (way, by, listening) in WAYS {
        let more = [&INTERNAL[..], listening].concat();
        let relay = Relay::prepared(2, &more, |_| {}).await;
        let dialled = by(&relay);
        let address = relay.internal().await;
        let publisher = Peer::connect_on(&dialled, LITE_06, Role::Publisher, 0).await;
        let mut channel = publisher.announce(PATH, &[TRACK]);
        let mut viewer = Peer::connect_on(&dialled, LITE_06, Role::Viewer, 1).await;
        viewer.sees(PATH).await;
        let mut view = viewer.subscribe(PATH, TRACK).await.expect("a subscription");
        channel.wanted(TRACK).await;
        let script = Script::new(SEED, 0, 2, &[1000]);
        channel.publish_group(TRACK, &script, &script.groups[0]);
        view.group(way).await.expect("a group");
        let before = Figures::scrape(address).await;

        let shard = Held::hold(relay.id(), "shard-1");
        let sent = Instant::now();
        channel.publish_group(TRACK, &script, &script.groups[1]);
        tokio::time::sleep(HELD).await;
        shard.let_go();
        view.group(way).await.expect("a group");
        let took = sent.elapsed().as_secs_f64();

        let after = Figures::scrape(address).await;
        let more = |name: &str| after.sum(name) - before.sum(name);
        let (samples, seconds) =
            (more("shardcast_added_seconds_count"), more("shardcast_added_seconds_sum"));
        println!("{way}: {seconds} s in {samples} of {took} s");
        // It came a moment after it was sent.
        assert!(samples >= 1.0 && seconds > 0.9 * HELD.as_secs_f64(), "{way}: {seconds}");
        // To the end of a turn, and a viewer may be faster.
        let worst = after.percentile("shardcast_added_seconds", 100.0);
        assert!(worst.end > HELD.as_secs_f64() && worst.start < took, "{way}: {worst:?}");
    }
}

/// Tracks one by one, however many pages of a shard they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_tracks_are_listed() {
    const TRACKS: usize = 2 * TRACKS_PER_PAGE + 2;
    let relay = Relay::prepared(1, &INTERNAL, |_| {}).await;
    let address = relay.internal().await;
    let publisher = Peer::connect(&relay, LITE_06, Role::Publisher).await;
    let names: Vec<String> = (0..TRACKS).map(|track| format!("{track:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut channel = publisher.announce(PATH, &names);
    let mut viewer = Peer::connect(&relay, LITE_05, Role::Viewer).await;
    viewer.sees(PATH).await;
    let mut views = Vec::new();
    for name in &names {
        views.push(viewer.subscribe(PATH, name).await.expect("a subscription"));
        channel.wanted(name).await;
    }
    let mut other = Peer::connect(&relay, LITE_06, Role::Viewer).await;
    other.sees(PATH).await;
    views.push(other.subscribe(PATH, "077").await.expect("a subscription"));
    let script = Script::new(SEED, 0, 2, &SIZES);
    channel.publish("101", &script);
    views[101].begins("viewer", SIZES.len()).await;
    let listed = async |query: &str| {
        let answer = get(address, &format!("/tracks{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_str::<Value>(answer.text()).expect("JSON")
    };
    // What is told was so a moment ago.
    let list = within("all of them", async {
        loop {
            let list = listed("?limit=3").await;
            if list["total"] == TRACKS && list["tracks"][1]["track"] == "101" {
                return list;
            }
        }
    })
    .await;
    let rows = list["tracks"].as_array().expect("rows");
    assert_eq!(rows.len(), 3);
    assert_eq!((&rows[0]["track"], &rows[0]["viewers"]), (&"077".into(), &2.into()));
    assert_eq!((&rows[1]["broadcast"], &rows[1]["groups"]), (&PATH.into(), &2.into()));
    assert!(rows[1]["bytes"].as_u64() >= Some(2 * SIZES.iter().sum::<usize>() as u64));
    assert_eq!(listed("").await["tracks"].as_array().map(Vec::len), Some(100));
    assert_eq!(listed("?limit=1000").await["tracks"].as_array().map(Vec::len), Some(TRACKS));
    assert_eq!(get(address, "/tracks?limit=1001").await.status, 400);
    assert_eq!(get(address, "/tracks?x=1").await.status, 400);
    drop(views);
}

/// Those whom nobody let in, by why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_counted_by_their_reason() {
    let issuer = Issuer::new("a");
    let keys = Keys::new("refusals", &[("a", &issuer)]);
    let more = ["--auth-key-dir", keys.path(), "--limit-token", "1"];
    let relay = Relay::prepared(1, &[&INTERNAL[..], &more].concat(), |_| {}).await;
    let address = relay.internal().await;
    let target = issuer.dials("/rooms", "rooms", &["**"], &["**"], None);
    let held = dial(&relay, &target).await.expect("it is a token");
    for (way, target) in [
        (&relay, "/live?jwt=a.b.c"),
        (&relay.web(), "/live?jwt=a.b.c"),
        (&relay, target.as_str()),
        (&relay.web(), target.as_str()),
    ] {
        dial(way, target).await.err().unwrap_or_else(|| panic!("{target} is let in"));
    }
    // And over HTTP.
    get(relay.address(), "/announced?jwt=a.b.c").await.refuses(401, "not a JWT");
    get(relay.address(), "/fetch/live/cam/video?jwt=a.b.c").await.refuses(401, "not a JWT");
    let figures = Figures::scrape(address).await;
    figures.expect(&[
        ("shardcast_refusals_total{reason=malformed}", 4.0),
        ("shardcast_refusals_total{reason=token_full}", 2.0),
        ("shardcast_refusals_total{reason=address_full}", 0.0),
        ("shardcast_handshakes_total{outcome=address_full}", 0.0),
        ("moq_relay_sessions_opened_total{tier=}", 3.0),
    ]);
    drop(held);
}

/// Routes, methods, and who is no operator.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_are_for_operators_alone() {
    let relay = Relay::prepared(1, &INTERNAL, |_| {}).await;
    let address = relay.internal().await;
    get(address, "/health").await.expect(200, "ok\n");
    get(address, "/ready").await.expect(200, "ok\n");
    get(address, "/sessions").await.expect(200, r#"{"sessions":[]}"#);
    get(address, "/nodes").await.expect(200, "{\"nodes\":[]}\n");
    get(address, "/nowhere").await.refuses(404, "/metrics");
    for (method, target) in
        [("POST", "/metrics"), ("GET", "/sessions/kick"), ("GET", "/sessions/revalidate")]
    {
        assert_eq!(ask(address, method, target, "Content-Length: 0\r\n").await.status, 405);
    }
    for target in ["/metrics", "/sessions", "/ready"] {
        ask(address, "GET", target, "Origin: http://localhost\r\n").await.refuses(403, "operators");
    }
    for (site, status) in
        [("none", 200), ("same-origin", 403), ("same-site", 403), ("cross-site", 403)]
    {
        let site = format!("Sec-Fetch-Site: {site}\r\n");
        assert_eq!(ask(address, "GET", "/sessions", &site).await.status, status, "{site}");
    }
    // Nothing of it is where everybody asks.
    for target in ["/metrics", "/ready", "/sessions"] {
        assert_eq!(get(relay.address(), target).await.status, 404, "{target}");
    }
}

/// A page may have made a name lead to it, on this machine or beyond, and then a browser takes it for the page's
/// own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_ask_by_addresses_and_names_of_one_word() {
    for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
        let relay = Relay::prepared(1, &["--internal-listen", listen], |_| {}).await;
        let address = relay.internal().await;
        for (host, status) in [("evil.example", 403), ("relay:9090", 200), ("10.1.2.3:9090", 200)] {
            let request = format!("GET /sessions HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let answer = support::http::Exchange::begin(address, &request).await.finish().await;
            assert_eq!(answer.expect("an answer").status, status, "{host} of {address}");
        }
    }
}

/// From the first signal on nobody is to be sent here, and operators see the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_leaves_is_not_ready() {
    let relay = Relay::prepared(2, &INTERNAL, |_| {}).await;
    let address = relay.internal().await;
    get(address, "/ready").await.expect(200, "ok\n");
    // A relay without sessions would be gone at once.
    let held = Held::hold(relay.id(), "shard-1");
    // SAFETY: a process of ours that runs.
    assert_eq!(unsafe { libc::kill(relay.id(), libc::SIGTERM) }, 0);
    let refused = within("the relay to leave", async {
        loop {
            let answer = get(address, "/ready").await;
            if answer.text().contains("leaving") {
                return answer;
            }
        }
    })
    .await;
    refused.refuses(503, "the relay is leaving");
    let figures = Figures::scrape(address).await;
    figures.expect(&[("shardcast_shard_up{shard=1}", 0.0)]);
    held.let_go();
    relay.ended().await.expect_success();
}

/// Those who can be asked to move leave in peace, and the relay with the last of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_ends_with_its_last_session() {
    let args = [&INTERNAL[..], &["--drain-timeout", "1h"]].concat();
    let relay = Relay::prepared(2, &args, |_| {}).await;
    let address = relay.internal().await;
    let mut old = Peer::connect(&relay, LITE_03, Role::Viewer).await;
    let new = Peer::connect(&relay.web(), LITE_06, Role::Viewer).await;
    Figures::scrape(address).await.expect(&[("moq_relay_draining_sessions{}", 0.0)]);
    relay.terminate();
    relay.says("shutdown signal received; draining sessions").await;
    get(address, "/ready").await.refuses(503, "the relay is leaving");
    get(address, "/health").await.expect(200, "ok\n");
    // Who hears that he is to move does, if he would not come back here.
    relay.says("closed").await;
    assert!(!new.connected());
    // Who comes is served.
    let late = Peer::connect(&relay, LITE_03, Role::Publisher).await;
    let _channel = late.announce(PATH, &[TRACK]);
    old.sees(PATH).await;
    for peer in [old, late] {
        peer.leave().await;
    }
    let ended = relay.ended().await;
    ended.expect_success();
    let last = ended.log.iter().find(|line| line.contains("drain complete")).expect("a line");
    assert!(last.contains("every session left; exiting") && last.contains("moved=2"), "{last}");
}

/// A second signal closes who is left, and a third one waits for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_signals_again_waits_no_more() {
    let args = ["--drain-timeout", "1h"];
    let relay = Relay::prepared(2, &args, |_| {}).await;
    let peer = Peer::connect(&relay, LITE_03, Role::Viewer).await;
    // What comes at once is the same signal.
    relay.terminate();
    relay.terminate();
    relay.says("draining sessions").await;
    tokio::time::sleep(SIGNAL_TWICE_WITHIN).await;
    relay.terminate();
    let ended = relay.ended().await;
    ended.expect_success();
    assert!(
        ended.log.iter().any(|line| line.contains("second shutdown signal")),
        "{:?}",
        ended.log
    );
    drop(peer);

    let relay = Relay::prepared(2, &args, |_| {}).await;
    let _held = Held::hold(relay.id(), "shard-1");
    relay.terminate();
    relay.says("draining sessions").await;
    tokio::time::sleep(SIGNAL_TWICE_WITHIN).await;
    relay.terminate();
    relay.says("second shutdown signal").await;
    tokio::time::sleep(SIGNAL_TWICE_WITHIN).await;
    relay.terminate();
    assert_eq!(relay.ended().await.status.code(), Some(130));
}

fn config(is_by_websocket: bool) -> connect::Config {
    let mut config = connect::Config::default();
    config.websocket.enabled = Some(is_by_websocket);
    config.tls.insecure = Some(true);
    config.version = vec![LITE_06.parse().expect("a version the client knows")];
    config.once = Some(true);
    config.bind = Some(([127, 0, 0, 1], 0).into());
    config
}

/// A session at a path and with a token, if it is let in.
async fn dial(relay: &Relay, target: &str) -> Result<(Connection, origin::Producer), String> {
    dial_as(relay, target, config(false)).await
}

async fn dial_as(
    relay: &Relay,
    target: &str,
    config: connect::Config,
) -> Result<(Connection, origin::Producer), String> {
    let receives = moq_tokio::origin::spawn_config(origin::Config::new(moq_net::Hop::random()));
    let client = config.init(Default::default()).expect("client");
    let client = client.with_subscriber(receives.clone());
    let url: url::Url = format!("{}{target}", relay.url()).parse().expect("an address");
    let connection = client.connect(url).established().await.map_err(|error| error.to_string())?;
    let dialled = connection.closed();
    match tokio::time::timeout(Duration::from_millis(300), dialled).await {
        Ok(closed) => Err(format!("{closed:?}")),
        Err(_) => Ok((connection, receives)),
    }
}

fn ids(answer: &Answer, status: u16) -> Vec<String> {
    assert_eq!(answer.status, status, "{}", answer.text());
    let value: Value = serde_json::from_str(answer.text()).expect("JSON");
    let ids = value["ids"].as_array().expect("ids");
    ids.iter().map(|id| id.as_str().expect("a name").to_owned()).collect()
}

async fn sessions(address: SocketAddr, query: &str) -> Vec<Value> {
    let answer = get(address, &format!("/sessions{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    assert!(!answer.text().contains("jwt") && !answer.text().contains("eyJ"), "{}", answer.text());
    let value: Value = serde_json::from_str(answer.text()).expect("JSON");
    value["sessions"].as_array().expect("sessions").clone()
}

/// A directory of keys, removed at the end.
struct Keys(PathBuf);

impl Keys {
    fn new(play: &str, issuers: &[(&str, &Issuer)]) -> Keys {
        let path = std::env::temp_dir().join(format!("shardcast-{play}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory");
        for (name, issuer) in issuers {
            std::fs::write(path.join(format!("{name}.jwk")), issuer.jwk()).expect("a file");
        }
        Keys(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path of ours")
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_listed_revalidated_and_closed() {
    let (a, b) = (Issuer::new("a"), Issuer::new("b"));
    let keys = Keys::new("sessions", &[("a", &a), ("b", &b)]);
    let relay =
        Relay::prepared(2, &[&INTERNAL[..], &["--auth-key-dir", keys.path()]].concat(), |_| {})
            .await;
    let address = relay.internal().await;
    let token = |issuer: &Issuer, path: &str| issuer.dials(path, "rooms", &["**"], &["**"], None);
    let first = dial(&relay, &token(&a, "/rooms/1")).await.expect("key a is there");
    let second = dial(&relay, &token(&b, "/rooms/2")).await.expect("key b is there");
    let third = dial(&relay.web(), &token(&b, "/rooms/3/x")).await.expect("key b is there");
    let publisher = Peer::connect(&relay, LITE_06, Role::Publisher).await;

    let all = sessions(address, "").await;
    assert_eq!(all.len(), 4, "{all:?}");
    let mut names: Vec<&str> = all.iter().map(|row| row["id"].as_str().expect("a name")).collect();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() == 4 && names.iter().all(|name| name.len() == 32), "{names:?}");
    for row in &all {
        assert_eq!(row["local"].as_str(), Some(relay.address().to_string().as_str()));
        assert!(row["remote"].as_str().expect("an address").starts_with("127.0.0.1:"));
        assert_eq!(row["alpn"].as_str(), Some(LITE_06).map(|_| "moq-lite-06"));
        let started = row["started"].as_u64().expect("a time");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(now.as_secs().abs_diff(started) < 60, "{started}");
    }
    for (query, count) in [
        ("?path=rooms/*", 2),
        ("?path=rooms/**", 3),
        ("?path=rooms%2F1", 1),
        ("?transport=webtransport", 1),
        ("?transport=quic", 4),
        ("?transport=tcp", 0),
        ("?remote=127.0.0.0/8", 4),
        ("?remote=10.0.0.1", 0),
        ("?alpn=moq-lite-06&path=rooms/2", 1),
        ("?server_name=nobody", 0),
        ("?tls.name=a", 0),
    ] {
        assert_eq!(sessions(address, query).await.len(), count, "{query}");
    }
    get(address, "/sessions?query=a").await.expect(400, "unknown filter field: query");
    get(address, "/sessions?remote=a").await.expect(400, "invalid remote: a");
    post(address, "/sessions/revalidate?x=a").await.expect(400, "unknown filter field: x");
    post(address, "/sessions/kick?x=a").await.expect(400, "unknown filter field: x");
    assert_eq!(post(address, "/sessions/kick").await.status, 400, "nobody is named");
    assert_eq!(ids(&post(address, "/sessions/kick?path=nobody").await, 200).len(), 0);
    assert_eq!(ids(&post(address, "/sessions/revalidate?path=nobody").await, 200).len(), 0);

    // Keys are there, so nobody leaves.
    assert_eq!(ids(&post(address, "/sessions/revalidate").await, 202).len(), 4);
    assert_eq!(sessions(address, "").await.len(), 4);
    // Those of a key that is gone have left when the answer is here.
    std::fs::remove_file(keys.0.join("a.jwk")).expect("a file of ours");
    assert_eq!(ids(&post(address, "/sessions/revalidate").await, 202).len(), 4);
    let left = sessions(address, "?path=rooms/**").await;
    assert_eq!(left.len(), 2, "{left:?}");
    within("the client to hear of it", first.0.closed()).await.expect_err("it was turned away");
    let figures = Figures::scrape(address).await;
    figures.expect(&[("shardcast_refusals_total{reason=key_gone}", 1.0)]);

    // One by name, and whoever is left by where they come from.
    let row = &sessions(address, "?path=rooms/2").await[0];
    let id = row["id"].as_str().expect("a name").to_owned();
    let kicked = ids(&post(address, &format!("/sessions/kick?id={id}")).await, 202);
    assert_eq!(kicked, std::slice::from_ref(&id));
    within("the client to hear of it", second.0.closed()).await.expect_err("it was closed");
    assert_eq!(ids(&post(address, &format!("/sessions/kick?id={id}")).await, 200).len(), 0);
    assert_eq!(ids(&post(address, "/sessions/kick?remote=127.0.0.1").await, 202).len(), 2);
    within("the client to hear of it", third.0.closed()).await.expect_err("it was closed");
    assert_eq!(sessions(address, "").await.len(), 0);
    drop(publisher);
}

/// Whatever a client came by, it is back soon, unless what let it in is gone meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_kicked_dials_again() {
    let relay = Relay::prepared(2, &INTERNAL, |_| {}).await;
    let address = relay.internal().await;
    let ways = [
        (relay.clone(), "quic", false),
        (relay.web(), "webtransport", false),
        (relay.websocket(), "websocket", true),
    ];
    for (way, by, is_by_websocket) in ways {
        let mut config = config(is_by_websocket);
        config.once = Some(false);
        let _held = dial_as(&way, "", config).await.expect("all may come in");
        let query = format!("?transport={by}");
        let kicked = ids(&post(address, &format!("/sessions/kick{query}")).await, 202);
        assert_eq!(kicked.len(), 1, "{by}");
        let back = within(format!("the client to be back by {by}"), async {
            loop {
                if let [row] = &sessions(address, &query).await[..] {
                    return row["id"].as_str().expect("a name").to_owned();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        assert_ne!(back.await, kicked[0], "{by}");
    }
}
