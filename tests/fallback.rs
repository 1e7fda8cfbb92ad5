//! What comes by WebSocket: `@moq/net` in Chromium without WebTransport, in Firefox and in Node, beside pages that
//! come by WebTransport and peers in Rust that come by QUIC. And Firefox as it comes by WebTransport.

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

use clients::actor::{Actor, Browser, parse_group};
use support::client::*;
use support::relay::Relay;

/// Fixes every payload.
const SEED: u64 = 0x5eed_ca57_0000_0018;

const PATH: &str = "live/cam";
const TRACK: &str = "video";

const SHARDS: usize = 2;

/// Empty, minimal, one datagram, several, a large key frame, and all that a client allows to be under way.
const SIZES: [usize; 6] = [0, 1, 300, 4096, 64 << 10, 1 << 20];

/// Small groups for plays that are about who hears, not about how much.
const SIZES_SMALL: [usize; 3] = [300, 0, 1200];

fn script(first: u64, count: u64, sizes: &[usize]) -> Script {
    Script::new(SEED, first, count, sizes)
}

/// Where the client runs.
#[derive(Clone, Copy, Debug)]
enum Host {
    Chromium,
    Firefox,
    Node,
}

impl Host {
    async fn actor(self) -> Actor {
        match self {
            Host::Chromium => Actor::page_in(Browser::Chromium, "browser").await,
            Host::Firefox => Actor::page_in(Browser::Firefox, "browser").await,
            Host::Node => Actor::node("browser").await,
        }
    }

    /// With a session of its own, and no transport but WebSocket.
    async fn by_socket(self, relay: &Relay) -> Actor {
        let actor = self.actor().await;
        let connect = format!("connectBySocket('{}')", relay.found_over_http().url());
        assert_eq!(actor.tell(connect).await, "websocket moq-lite-05");
        actor
    }
}

/// A page that comes by WebTransport.
async fn by_webtransport(relay: &Relay) -> Actor {
    let page = Actor::page().await;
    assert_eq!(page.connect(&relay.web(), "").await.as_deref(), Ok("webtransport moq-lite-05"));
    page
}

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

/// Every past group, beside the live ones.
async fn fetches(viewer: &Actor, past: &Script, timestamps: bool) {
    for group in &past.groups {
        let fetch = format!("fetchGroup('{PATH}','{TRACK}',{})", group.sequence);
        let (sequence, frames) = parse_group(&viewer.tell(fetch).await);
        assert_eq!(sequence, group.sequence);
        past.compare_from(viewer.name(), sequence, 0, &frames, timestamps);
    }
}

async fn loses(viewer: &Actor) {
    assert_eq!(viewer.tell("hear()").await, format!("{PATH} down"), "{}", viewer.name());
}

async fn publishes_to_all(host: Host) {
    let relay = Relay::start(SHARDS).await;
    let past = script(0, 3, &SIZES_SMALL);
    let newest = script(2, 1, &SIZES_SMALL);
    let live = script(3, 3, &SIZES);
    let publisher = host.by_socket(&relay).await;
    announces(&publisher).await;
    publisher.publish(TRACK, &past).await;

    let viewers = [host.by_socket(&relay).await, by_webtransport(&relay).await];
    let mut peer = Peer::connect(&relay, LITE_06, Role::Viewer).await;
    for viewer in &viewers {
        watches(viewer).await;
        assert_eq!(viewer.tell("info()").await, "90000 60000", "timescale, and what is kept");
        viewer.expect(&newest, true).await;
    }
    peer.sees(PATH).await;
    let mut view = peer.subscribe(PATH, TRACK).await.expect("subscription");
    view.expect("rust", &newest, true).await;

    publisher.publish(TRACK, &live).await;
    view.expect("rust", &live, true).await;
    for viewer in &viewers {
        viewer.expect(&live, true).await;
        fetches(viewer, &past, true).await;
    }
    publisher.tell(format!("finish('{TRACK}')")).await;
    view.expect_end("rust").await;
    for viewer in &viewers {
        assert_eq!(viewer.tell("group()").await, "end");
    }
    publisher.tell(format!("retract('{PATH}')")).await;
    peer.loses(PATH).await;
    for viewer in &viewers {
        loses(viewer).await;
    }
}

#[tokio::test]
async fn chromium_publishes_to_all() {
    publishes_to_all(Host::Chromium).await;
}

#[tokio::test]
async fn firefox_publishes_to_all() {
    publishes_to_all(Host::Firefox).await;
}

#[tokio::test]
async fn node_publishes_to_all() {
    publishes_to_all(Host::Node).await;
}

/// What peers of the newest and the oldest of our drafts publish by QUIC.
async fn watches_all(host: Host) {
    let relay = Relay::start(SHARDS).await;
    let prologue = script(0, 1, &SIZES_SMALL);
    let live = script(1, 3, &SIZES);
    for version in [LITE_06, LITE_03] {
        println!("{version} to {host:?}");
        let timestamps = carries_timestamps(version);
        let viewer = host.by_socket(&relay).await;
        let publisher = Peer::connect(&relay, version, Role::Publisher).await;
        let mut channel = publisher.announce(PATH, &[TRACK]);
        watches(&viewer).await;
        channel.wanted(TRACK).await;
        // Who has read something is subscribed when the rest comes.
        channel.publish(TRACK, &prologue);
        viewer.expect(&prologue, timestamps).await;
        channel.publish(TRACK, &live);
        viewer.expect(&live, timestamps).await;
        fetches(&viewer, &prologue, timestamps).await;
        publisher.leave().await;
        loses(&viewer).await;
    }
}

#[tokio::test]
async fn chromium_watches_all() {
    watches_all(Host::Chromium).await;
}

#[tokio::test]
async fn firefox_watches_all() {
    watches_all(Host::Firefox).await;
}

#[tokio::test]
async fn node_watches_all() {
    watches_all(Host::Node).await;
}

/// The session is closed; the tab is closed, with no word from its script; or only the subscription is.
async fn comes_and_goes(host: Host) {
    let relay = Relay::start(SHARDS).await;
    let publisher = host.by_socket(&relay).await;
    announces(&publisher).await;
    let first = script(0, 3, &SIZES_SMALL);
    for (group, leave) in first.groups.iter().zip(["unsubscribe()", "leave()", "quit"]) {
        let viewer = host.by_socket(&relay).await;
        watches(&viewer).await;
        is_wanted(&publisher).await;
        publisher.publish_group(TRACK, &first, group).await;
        viewer.reads_up_to(&first, group.sequence).await;
        viewer.tell(leave).await;
        if leave == "leave()" {
            assert_eq!(viewer.tell("closed()").await, "closed");
        }
    }
    publisher.tell("leave()").await;
    relay.deserted().await;

    // Publishers do the same.
    let viewer = host.by_socket(&relay).await;
    for (sequence, leave) in [(0, "leave()"), (1, "quit")] {
        let publisher = host.by_socket(&relay).await;
        announces(&publisher).await;
        watches(&viewer).await;
        is_wanted(&publisher).await;
        let script = script(sequence, 1, &SIZES_SMALL);
        publisher.publish(TRACK, &script).await;
        viewer.expect(&script, true).await;
        publisher.tell(leave).await;
        loses(&viewer).await;
    }

    // Told, and not found out by silence; as a loss, after which clients dial again.
    relay.stop().await.expect_success();
    let told = tokio::time::timeout(PROMPTLY, viewer.ask("closed()")).await;
    let lost = told.expect("the end of the session").expect_err("no proper end");
    assert!(lost.contains("relay stopped"), "{lost}");
}

#[tokio::test]
async fn chromium_comes_and_goes() {
    comes_and_goes(Host::Chromium).await;
}

#[tokio::test]
async fn firefox_comes_and_goes() {
    comes_and_goes(Host::Firefox).await;
}

#[tokio::test]
async fn node_comes_and_goes() {
    comes_and_goes(Host::Node).await;
}

/// Firefox offers no protocol to choose from, so the client asks for a version by SETUP, and the newest that
/// can be had that way is moq-lite-02.
async fn firefox_by_webtransport(relay: &Relay) -> Actor {
    let page = Host::Firefox.actor().await;
    assert_eq!(page.connect(&relay.web(), "").await.as_deref(), Ok("webtransport moq-lite-02"));
    page
}

#[tokio::test]
async fn firefox_comes_by_webtransport() {
    let relay = Relay::start(SHARDS).await;
    let publisher = firefox_by_webtransport(&relay).await;
    let viewers = [
        firefox_by_webtransport(&relay).await,
        by_webtransport(&relay).await,
        Host::Firefox.by_socket(&relay).await,
    ];
    let mut peer = Peer::connect(&relay, LITE_06, Role::Both).await;
    let prologue = script(0, 1, &SIZES_SMALL);
    let live = script(1, 3, &SIZES);
    announces(&publisher).await;
    publisher.publish(TRACK, &prologue).await;
    for viewer in &viewers {
        watches(viewer).await;
        viewer.expect(&prologue, false).await;
    }
    peer.sees(PATH).await;
    let mut view = peer.subscribe(PATH, TRACK).await.expect("subscription");
    view.expect("rust", &prologue, false).await;
    publisher.publish(TRACK, &live).await;
    view.expect("rust", &live, false).await;
    for viewer in &viewers {
        viewer.expect(&live, false).await;
    }
    publisher.tell("leave()").await;
    peer.loses(PATH).await;
    for viewer in &viewers {
        loses(viewer).await;
    }

    let [viewer, ..] = &viewers;
    let publisher = Peer::connect(&relay, LITE_06, Role::Publisher).await;
    let mut channel = publisher.announce(PATH, &[TRACK]);
    watches(viewer).await;
    channel.wanted(TRACK).await;
    channel.publish(TRACK, &live);
    viewer.expect(&live, false).await;
    let before = relay.departures();
    viewer.tell("quit").await;
    relay.notices_departure(before).await;

    let left = firefox_by_webtransport(&relay).await;
    relay.stop().await.expect_success();
    let told = tokio::time::timeout(PROMPTLY, left.ask("closed()")).await;
    told.expect("the end of the session").expect_err("no proper end");
}
