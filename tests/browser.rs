//! Pages in a real browser judge the relay: every play is acted by `@moq/net` over the browser's
//! own WebTransport, alone or together with clients in Rust and Python.

#[allow(dead_code, reason = "each test needs a part of what all share")]
mod clients {
    pub mod actor;
    pub mod program;
}
#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod client;
    pub mod relay;
    pub mod tokens;
}

use clients::actor::{Actor, certificate_hash, hex, parse_group};
use support::client::*;
use support::relay::Relay;
use support::tokens::{Issuer, Keys};

/// Fixes every payload.
const SEED: u64 = 0x5eed_ca57_0000_000b;

const PATH: &str = "live/cam";
const TRACK: &str = "video";

const SHARDS: usize = 2;

/// Empty, minimal, one datagram, several, a large key frame, and more than a flow control window
/// opens with.
const SIZES: [usize; 6] = [0, 1, 300, 4096, 64 << 10, 1 << 20];

/// Small groups for plays that are about who hears, not about how much.
const SIZES_SMALL: [usize; 3] = [300, 0, 1200];

/// What `@moq/net` offers by default is answered with its first choice.
const BY_DEFAULT: &str = "webtransport moq-lite-05";

/// What the browser says of a connection that did not come about.
const NO_HANDSHAKE: &str = "Opening handshake failed";

fn script(first: u64, count: u64, sizes: &[usize]) -> Script {
    Script::new(SEED, first, count, sizes)
}

/// A page with a session of its own.
async fn connected(relay: &Relay) -> Actor {
    let page = Actor::page().await;
    assert_eq!(page.connect(&relay.web(), "").await.as_deref(), Ok(BY_DEFAULT));
    page
}

async fn python(relay: &Relay) -> Actor {
    let python = Actor::python();
    python.connect(&relay.web(), "").await.expect("a session");
    python
}

/// One more that watches the track of a broadcast that is announced already or will be.
async fn watches(viewer: &Actor) {
    assert_eq!(viewer.tell("hear()").await, format!("{PATH} up"));
    viewer.tell(format!("subscribe('{PATH}','{TRACK}')")).await;
}

async fn announces(publisher: &Actor) {
    publisher.tell(format!("announce('{PATH}','{TRACK}')")).await;
}

async fn is_wanted(publisher: &Actor) {
    publisher.tell(format!("wanted('{TRACK}')")).await;
}

async fn finishes(publisher: &Actor) {
    publisher.tell(format!("finish('{TRACK}')")).await;
}

#[tokio::test]
async fn a_certificate_is_known_by_its_hash() {
    let relay = Relay::start(SHARDS).await.web();
    let accepted = relay.accepting().await;
    connected(&relay).await;
    accepted.shard(LITE_05).await;
}

/// With a URL that begins with http:, the client itself asks the relay for the hash.
#[tokio::test]
async fn the_hash_is_fetched_in_development() {
    let relay = Relay::start(SHARDS).await;
    let page = Actor::page().await;
    let connect = format!("connect('http://{}/')", relay.address());
    assert_eq!(page.tell(connect).await, BY_DEFAULT);
}

#[tokio::test]
async fn another_certificate_is_refused() {
    let relay = Relay::start(SHARDS).await.web();
    let page = Actor::page().await;
    let (url, other) = (relay.url(), "5a".repeat(32));
    let refused = page.ask(format!("connect('{url}','{other}')")).await.expect_err("another hash");
    assert!(refused.contains(NO_HANDSHAKE), "{refused}");

    let accepted = relay.accepting().await;
    connected(&relay).await;
    accepted.shard(LITE_05).await;
    assert_eq!(relay.sessions(), 1, "the relay took a session that the browser refused");
}

#[tokio::test]
async fn a_path_that_is_not_public_is_refused() {
    let relay = Relay::open_to(SHARDS, "anon/**").await.web();
    let page = Actor::page().await;
    for path in ["secret", "anonymous/room"] {
        let refused = page.connect(&relay, path).await.expect_err("a path that is not public");
        assert!(refused.contains(NO_HANDSHAKE), "{path}: {refused}");
    }
    assert_eq!(page.connect(&relay, "anon/room").await.as_deref(), Ok(BY_DEFAULT));
}

/// A page shows its token in the URL; one that shows none, or one that is of no use there, has no session.
#[tokio::test]
async fn a_page_shows_its_token() {
    let (issuer, stranger) = (Issuer::new("k1"), Issuer::new("k1"));
    let keys = Keys::new("page", &[("k1", &issuer)]);
    let relay = Relay::guarded(SHARDS, &["--auth-key", &keys.file("k1")]).await.web();
    let (publisher, viewer) = (Actor::page().await, Actor::page().await);
    let past = Some(1_700_000_000);
    for target in [
        "rooms/1".to_owned(),
        stranger.dials("rooms/1", "", &["**"], &["**"], None),
        issuer.dials("rooms/1", "", &["**"], &["**"], past),
        issuer.dials("rooms/1", "rooms/12", &["**"], &["**"], None),
    ] {
        let refused = publisher.connect(&relay, &target).await.expect_err("a bad token");
        assert!(refused.contains(NO_HANDSHAKE), "{target}: {refused}");
    }
    let publishes = issuer.dials("rooms/1", "rooms/1", &["live/**"], &[], None);
    let watches = issuer.dials("", "rooms", &[], &["1/**"], None);
    for (page, target) in [(&publisher, publishes), (&viewer, watches)] {
        assert_eq!(page.connect(&relay, &target).await.as_deref(), Ok(BY_DEFAULT));
    }
    announces(&publisher).await;
    assert_eq!(viewer.tell("hear()").await, format!("rooms/1/{PATH} up"));
    viewer.tell(format!("subscribe('rooms/1/{PATH}','{TRACK}')")).await;
    is_wanted(&publisher).await;
    let script = script(0, 1, &SIZES_SMALL);
    publisher.publish(TRACK, &script).await;
    viewer.expect(&script, true).await;
}

/// Broadcasts are relative to the path of the URL.
#[tokio::test]
async fn a_path_is_the_root_of_its_session() {
    let relay = Relay::open_to(SHARDS, "anon/**").await.web();
    let (publisher, viewer) = (Actor::page().await, Actor::page().await);
    for (page, path) in [(&publisher, "anon/room"), (&viewer, "anon")] {
        assert_eq!(page.connect(&relay, path).await.as_deref(), Ok(BY_DEFAULT));
    }
    announces(&publisher).await;
    assert_eq!(viewer.tell("hear()").await, format!("room/{PATH} up"));
    viewer.tell(format!("subscribe('room/{PATH}','{TRACK}')")).await;
    is_wanted(&publisher).await;
    let script = script(0, 1, &SIZES_SMALL);
    publisher.publish(TRACK, &script).await;
    viewer.expect(&script, true).await;
}

#[tokio::test]
async fn one_page_publishes_and_three_watch() {
    let relay = Relay::start(SHARDS).await;
    let publisher = connected(&relay).await;
    let viewers = [connected(&relay).await, connected(&relay).await, connected(&relay).await];
    let prologue = script(0, 1, &SIZES_SMALL);
    let script = script(1, 3, &SIZES);

    announces(&publisher).await;
    // A viewer who has read the prologue is certainly subscribed, so nothing later may pass it by.
    publisher.publish(TRACK, &prologue).await;
    for viewer in &viewers {
        watches(viewer).await;
        assert_eq!(viewer.tell("info()").await, "90000 60000", "timescale, and what is kept");
        viewer.expect(&prologue, true).await;
    }
    publisher.publish(TRACK, &script).await;
    for viewer in &viewers {
        viewer.expect(&script, true).await;
    }
    finishes(&publisher).await;
    for viewer in &viewers {
        assert_eq!(viewer.tell("group()").await, "end");
    }
    publisher.tell(format!("retract('{PATH}')")).await;
    for viewer in &viewers {
        assert_eq!(viewer.tell("hear()").await, format!("{PATH} down"));
    }
}

#[tokio::test]
async fn what_is_not_there_is_refused() {
    let relay = Relay::start(SHARDS).await;
    let (publisher, viewer) = (connected(&relay).await, connected(&relay).await);
    announces(&publisher).await;
    assert_eq!(viewer.tell("hear()").await, format!("{PATH} up"));
    viewer.tell(format!("subscribe('elsewhere','{TRACK}')")).await;
    let refused = viewer.ask("info()").await.expect_err("nobody publishes that");
    // Unroutable.
    assert!(refused.contains("remote error: 54"), "{refused}");
}

#[tokio::test]
async fn a_past_group_is_fetched_beside_the_live_ones() {
    let relay = Relay::start(SHARDS).await;
    let (publisher, viewer) = (connected(&relay).await, connected(&relay).await);
    let past = script(0, 3, &SIZES_SMALL);
    announces(&publisher).await;
    publisher.publish(TRACK, &past).await;
    watches(&viewer).await;
    // A viewer begins at the newest group.
    viewer.expect(&script(2, 1, &SIZES_SMALL), true).await;

    for group in &past.groups {
        let fetch = format!("fetchGroup('{PATH}','{TRACK}',{})", group.sequence);
        let (sequence, frames) = parse_group(&viewer.tell(fetch).await);
        assert_eq!(sequence, group.sequence);
        past.compare_from("fetched", sequence, 0, &frames, true);
    }
    let live = script(3, 2, &SIZES);
    publisher.publish(TRACK, &live).await;
    viewer.expect(&live, true).await;
}

#[tokio::test]
async fn datagrams_travel_beside_the_groups() {
    let relay = Relay::start(SHARDS).await;
    let publisher = connected(&relay).await;
    let viewers = [connected(&relay).await, connected(&relay).await];
    let prologue = script(0, 1, &SIZES_SMALL);
    announces(&publisher).await;
    publisher.publish(TRACK, &prologue).await;
    for viewer in &viewers {
        watches(viewer).await;
        viewer.expect(&prologue, true).await;
    }
    // One that is lost is lost: on a quiet loopback none of so few is.
    for (number, size) in [(1, 0), (2, 1), (3, 1000)] {
        let payload = hex(&vec![number as u8; size]);
        let ticks = number * 3000;
        let sent = publisher.tell(format!("send('{TRACK}',{ticks},'{payload}')")).await;
        assert_eq!(sent, number.to_string(), "sequences are shared with groups");
        for viewer in &viewers {
            let told = viewer.tell("receive()").await;
            assert_eq!(told, format!("{number} {ticks}/90000:{payload}"));
        }
    }
    let epilogue = script(4, 1, &SIZES_SMALL);
    publisher.publish(TRACK, &epilogue).await;
    for viewer in &viewers {
        viewer.expect(&epilogue, true).await;
    }
}

#[tokio::test]
async fn a_viewer_closes_and_returns() {
    let relay = Relay::start(SHARDS).await;
    let publisher = connected(&relay).await;
    announces(&publisher).await;
    let script = script(0, 3, &SIZES_SMALL);
    // The session is closed; the tab is closed, with no word from its script; the page stays.
    for (group, leave) in script.groups.iter().zip(["leave()", "quit", "unsubscribe()"]) {
        let viewer = connected(&relay).await;
        watches(&viewer).await;
        is_wanted(&publisher).await;
        publisher.publish_group(TRACK, &script, group).await;
        viewer.reads_up_to(&script, group.sequence).await;
        viewer.tell(leave).await;
    }
}

#[tokio::test]
async fn viewers_hear_that_the_publisher_is_gone() {
    let relay = Relay::start(SHARDS).await;
    let viewer = connected(&relay).await;
    for (sequence, leave) in [(0, "leave()"), (1, "quit")] {
        let publisher = connected(&relay).await;
        announces(&publisher).await;
        watches(&viewer).await;
        is_wanted(&publisher).await;
        let script = script(sequence, 1, &SIZES_SMALL);
        publisher.publish(TRACK, &script).await;
        viewer.expect(&script, true).await;
        publisher.tell(leave).await;
        assert_eq!(viewer.tell("hear()").await, format!("{PATH} down"));
        // Cut off, not finished: whether the client reports an end or a failure is its own affair.
        let last = viewer.ask("group()").await;
        assert!(last.as_ref().is_err() || last.as_ref().is_ok_and(|end| end == "end"), "{last:?}");
    }
}

#[tokio::test]
async fn pages_hear_that_the_relay_is_gone() {
    let relay = Relay::start(SHARDS).await;
    let (client, raw) = (connected(&relay).await, Actor::page().await);
    let (url, sha256) = (relay.web().url(), certificate_hash(&relay));
    raw.tell(format!("rawConnect('{url}','{sha256}',['moq-lite-05'])")).await;
    relay.stop().await.expect_success();
    // Told, and not found out by silence; as a loss, after which clients dial again.
    for (page, closed) in [(client, "closed()"), (raw, "rawClosed()")] {
        let told = tokio::time::timeout(PROMPTLY, page.ask(closed)).await;
        let lost = told.expect("the end of the session").expect_err("no proper end");
        assert!(lost.contains("Connection lost"), "{lost}");
    }
}

/// Every version that the client has, as a publisher and as a viewer of each other.
#[tokio::test]
async fn every_version_to_every_version() {
    const VERSIONS: [(&str, &str); 4] = [
        ("moq-lite-05", "moq-lite-05"),
        ("moq-lite-04", "moq-lite-04"),
        ("moq-lite-03", "moq-lite-03"),
        ("moql", "moq-lite-02"),
    ];
    let relay = Relay::start(SHARDS).await;
    let script = script(0, VERSIONS.len() as u64, &SIZES_SMALL);
    let mut viewers = Vec::new();
    for (protocol, version) in VERSIONS {
        viewers.push((version, pinned(&relay, protocol, version).await));
    }
    for (protocol, publisher_version) in VERSIONS {
        let publisher = pinned(&relay, protocol, publisher_version).await;
        announces(&publisher).await;
        for (sequence, (version, viewer)) in viewers.iter().enumerate() {
            println!("{publisher_version} to {version}");
            watches(viewer).await;
            is_wanted(&publisher).await;
            let group = &script.groups[sequence];
            publisher.publish_group(TRACK, &script, group).await;
            viewer.reads_up_to(&script, group.sequence).await;
            viewer.tell("unsubscribe()").await;
        }
        publisher.tell("leave()").await;
        for (_, viewer) in &viewers {
            assert_eq!(viewer.tell("hear()").await, format!("{PATH} down"));
        }
    }
}

async fn pinned(relay: &Relay, protocol: &str, version: &str) -> Actor {
    let page = Actor::page().await;
    let (url, sha256) = (relay.web().url(), certificate_hash(relay));
    let told = page.tell(format!("connect('{url}','{sha256}','{protocol}')")).await;
    assert_eq!(told, format!("webtransport {version}"));
    page
}

/// The browser's own interface: the first protocol of its list that the relay has is taken.
#[tokio::test]
async fn the_client_chooses_the_protocol() {
    let relay = Relay::start(SHARDS).await;
    let (page, url) = (Actor::page().await, relay.web().url());
    let sha256 = certificate_hash(&relay);
    let connect = |protocols: &str| format!("rawConnect('{url}','{sha256}',[{protocols}])");
    for (protocols, chosen) in [
        ("'moq-lite-06','moq-lite-05','moq-lite-04','moq-lite-03'", "moq-lite-06"),
        ("'moq-lite-03','moq-lite-04','moq-lite-05','moq-lite-06'", "moq-lite-03"),
        ("'moq-lite-04','moq-lite-06'", "moq-lite-04"),
        ("'moqt-20','moq-lite-07-wip','moq-lite-05','moql'", "moq-lite-05"),
        ("'moql','moq-lite-05'", "moql"),
    ] {
        assert_eq!(page.tell(connect(protocols)).await, chosen, "{protocols}");
        page.tell("rawClose(0,'')").await;
    }
}

#[tokio::test]
async fn sessions_close_with_a_code_and_a_reason() {
    let relay = Relay::start(SHARDS).await;
    let (page, url) = (Actor::page().await, relay.web().url());
    let sha256 = certificate_hash(&relay);
    let connect = format!("rawConnect('{url}','{sha256}',['moq-lite-05'])");

    page.tell(&connect).await;
    page.tell("rawClose(7,'enough for today')").await;
    assert_eq!(page.tell("rawClosed()").await, "7 enough for today", "the browser's own view");
    // The relay knows why.
    relay.says("enough for today").await;
    relay.deserted().await;

    // A second SETUP is a protocol violation.
    page.tell(&connect).await;
    page.tell("rawSend('010100')").await;
    // It may be answered before the browser has heard that all of it arrived.
    let _ = page.ask("rawSend('010100')").await;
    let told = page.tell("rawClosed()").await;
    let (code, reason) = told.split_once(' ').expect("a code and a reason");
    assert_eq!(code, "3", "{told}");
    assert!(!reason.is_empty(), "a refusal says why");
}

#[tokio::test]
async fn a_page_publishes_to_rust_and_python() {
    let relay = Relay::start(SHARDS).await;
    let publisher = connected(&relay).await;
    let page = connected(&relay).await;
    let python = python(&relay).await;
    let mut peer = Peer::connect(&relay, LITE_06, Role::Viewer).await;
    let prologue = script(0, 1, &SIZES_SMALL);
    let script = script(1, 3, &SIZES);

    announces(&publisher).await;
    publisher.publish(TRACK, &prologue).await;
    for viewer in [&page, &python] {
        watches(viewer).await;
        viewer.expect(&prologue, true).await;
    }
    peer.sees(PATH).await;
    let mut view = peer.subscribe(PATH, TRACK).await.expect("subscription");
    view.expect("rust", &prologue, true).await;

    publisher.publish(TRACK, &script).await;
    page.expect(&script, true).await;
    python.expect(&script, true).await;
    view.expect("rust", &script, true).await;
    finishes(&publisher).await;
    view.expect_end("rust").await;
    for viewer in [&page, &python] {
        assert_eq!(viewer.tell("group()").await, "end", "{}", viewer.name());
    }
    publisher.tell("leave()").await;
    for viewer in [&page, &python] {
        assert_eq!(viewer.tell("hear()").await, format!("{PATH} down"), "{}", viewer.name());
    }
    peer.loses(PATH).await;
}

#[tokio::test]
async fn rust_publishes_to_pages_and_python() {
    let relay = Relay::start(SHARDS).await;
    let script = script(0, 3, &SIZES);
    for version in [LITE_06, LITE_05, LITE_04, LITE_03] {
        let timestamps = carries_timestamps(version);
        let viewers = [connected(&relay).await, connected(&relay).await, python(&relay).await];
        let publisher = Peer::connect(&relay, version, Role::Publisher).await;
        let mut channel = publisher.announce(PATH, &[TRACK]);
        for (sequence, viewer) in viewers.iter().enumerate() {
            watches(viewer).await;
            channel.wanted(TRACK).await;
            // Each of them has read something, so each is subscribed when the rest comes.
            if sequence == 0 {
                channel.publish_group(TRACK, &script, &script.groups[0]);
            }
            let first = Script { seed: SEED, groups: script.groups[..1].to_vec() };
            viewer.expect(&first, timestamps).await;
        }
        let rest = Script { seed: SEED, groups: script.groups[1..].to_vec() };
        channel.publish(TRACK, &rest);
        for viewer in &viewers {
            viewer.expect(&rest, timestamps).await;
        }
        publisher.leave().await;
        for viewer in &viewers {
            assert_eq!(viewer.tell("hear()").await, format!("{PATH} down"), "{}", viewer.name());
            viewer.tell("leave()").await;
        }
    }
}

#[tokio::test]
async fn python_publishes_to_pages_and_rust() {
    let relay = Relay::start(SHARDS).await;
    let publisher = python(&relay).await;
    let page = connected(&relay).await;
    let mut peer = Peer::connect(&relay, LITE_06, Role::Viewer).await;
    let prologue = script(0, 1, &SIZES_SMALL);
    let script = script(1, 3, &SIZES);

    announces(&publisher).await;
    publisher.publish(TRACK, &prologue).await;
    watches(&page).await;
    page.expect(&prologue, true).await;
    peer.sees(PATH).await;
    let mut view = peer.subscribe(PATH, TRACK).await.expect("subscription");
    view.expect("rust", &prologue, true).await;

    publisher.publish(TRACK, &script).await;
    page.expect(&script, true).await;
    view.expect("rust", &script, true).await;
    finishes(&publisher).await;
    view.expect_end("rust").await;
    assert_eq!(page.tell("group()").await, "end");
}
