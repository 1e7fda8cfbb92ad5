//! The released clients judge the relay: every play is acted by `moq-net` clients over raw QUIC
//! against the built binary. Whatever differs between what a publisher said and what a viewer
//! heard is the relay's doing.

#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod client;
    pub mod relay;
}

use std::time::Duration;

use bytes::Bytes;
use moq_net::Timestamp;
use moq_net::track::{Position, Subscription};
use shardcast::shard::placement::home_of;
use support::client::*;
use support::relay::Relay;

/// Fixes every payload. Printed by each play, so a failure can be repeated elsewhere.
const SEED: u64 = 0x5eed_ca57_0000_0006;

const PATH: &str = "live/cam";
const TRACK: &str = "video";

/// Empty, minimal, one datagram, several, a large key frame, and more than a flow control window
/// opens with.
const SIZES: [usize; 6] = [0, 1, 300, 4096, 64 << 10, 1 << 20];

/// Small groups for plays that are about who hears, not about how much.
const SIZES_SMALL: [usize; 3] = [300, 0, 1200];

/// The versions whose wire can ask for a past group.
const FETCHING: [&str; 2] = [LITE_05, LITE_06];

/// The versions whose wire can pause a subscription.
const PAUSING: [&str; 4] = [LITE_03, LITE_04, LITE_05, LITE_06];

/// Every pair of those that fetch: who publishes, who views.
const FETCHING_PAIRS: [(&str, &str); 4] =
    [(LITE_05, LITE_05), (LITE_05, LITE_06), (LITE_06, LITE_05), (LITE_06, LITE_06)];

/// A linger that a play can outlast.
const LINGER_SHORT: Duration = Duration::from_millis(300);

/// The groups of a play that starts at group 0.
fn script(count: u64, sizes: &[usize]) -> Script {
    println!("seed {SEED:#x}");
    Script::new(SEED, 0, count, sizes)
}

#[tokio::test]
async fn matrix_on_one_shard() {
    matrix(1, Dial::Quic).await;
}

#[tokio::test]
async fn matrix_on_two_shards() {
    matrix(2, Dial::Quic).await;
}

#[tokio::test]
async fn matrix_on_four_shards() {
    matrix(4, Dial::Quic).await;
}

#[tokio::test]
async fn matrix_over_webtransport() {
    matrix(2, Dial::Web).await;
}

#[tokio::test]
async fn matrix_over_websocket() {
    matrix(2, Dial::Socket).await;
}

/// Over TLS too, with the certificate that QUIC has; on another shard, and on the same one.
#[tokio::test]
async fn websockets_over_tls() {
    let https = ["--web-http-listen", "off", "--web-https-listen", "same"];
    for shards in [1, 2] {
        let relay = Relay::prepared(shards, &https, |_| {}).await;
        let script = script(4, &SIZES);
        let secure = relay.secure_websocket();
        for (from, to) in [(&secure, &relay), (&relay, &secure), (&secure, &secure)] {
            for version in [LITE_02, LITE_06] {
                let publisher = Peer::connect(from, version, Role::Publisher).await;
                let viewer = Peer::connect(to, version, Role::Viewer).await;
                let who = format!("{version}, {} to {}, {shards} shards", from.url(), to.url());
                println!("{who}");
                deliver(publisher, viewer, TRACK, &script, &who).await;
            }
        }
        relay.stop().await.expect_success();
    }
}

/// Every version publishes to every version: bytes, frames and sequences always arrive, timestamps
/// wherever both wires carry them.
async fn matrix(shards: usize, dial: Dial) {
    let relay = dial.to(&Relay::start(shards).await);
    let script = script(4, &SIZES);
    for publisher_version in VERSIONS {
        for viewer_version in VERSIONS {
            let publisher = Peer::connect(&relay, publisher_version, Role::Publisher).await;
            let viewer = Peer::connect(&relay, viewer_version, Role::Viewer).await;
            let who = format!(
                "{publisher_version} (shard {}) to {viewer_version} (shard {}) of {shards}",
                publisher.shard, viewer.shard
            );
            println!("{who}");
            deliver(publisher, viewer, TRACK, &script, &who).await;
        }
    }
}

/// Every way of dialling to every other, among them the one that finds the certificate's hash over
/// HTTP and takes no other certificate.
#[tokio::test]
async fn ways_of_dialling() {
    let relay = Relay::start(2).await;
    let script = script(4, &SIZES);
    let ways = [Dial::Quic, Dial::Web, Dial::Http, Dial::Socket];
    for (dial_in, dial_out) in ways.iter().flat_map(|one| ways.iter().map(move |two| (one, two))) {
        let publisher = Peer::connect(&dial_in.to(&relay), LITE_06, Role::Publisher).await;
        let viewer = Peer::connect(&dial_out.to(&relay), LITE_06, Role::Viewer).await;
        let who = format!("{dial_in:?} to {dial_out:?}");
        println!("{who}");
        deliver(publisher, viewer, TRACK, &script, &who).await;
    }
}

/// Datagrams keep their number and timestamp, for every viewer whose wire has any.
#[tokio::test]
async fn datagrams_between_released_clients() {
    let relay = Relay::start(2).await;
    for (dial_in, dial_out) in [
        (Dial::Quic, Dial::Quic),
        (Dial::Web, Dial::Quic),
        (Dial::Quic, Dial::Web),
        // Released clients take none over WebSocket: they ask before they can know that there are any.
        (Dial::Socket, Dial::Quic),
    ] {
        for (version_in, version_out) in FETCHING_PAIRS {
            let who = format!("{version_in} {dial_in:?} to {version_out} {dial_out:?}");
            let publisher = Peer::connect(&dial_in.to(&relay), version_in, Role::Publisher).await;
            let mut viewer = Peer::connect(&dial_out.to(&relay), version_out, Role::Viewer).await;
            let mut old = Peer::connect(&relay, LITE_04, Role::Viewer).await;
            let mut channel = publisher.announce(PATH, &[TRACK]);
            viewer.sees(PATH).await;
            old.sees(PATH).await;
            let mut view = subscribe_plainly(&viewer).await;
            let mut view_old = subscribe_plainly(&old).await;
            // Everybody is in place once a group has come.
            let start = script(1, &SIZES_SMALL);
            channel.publish(TRACK, &start);
            for view in [&mut view, &mut view_old] {
                let group = within("the first group", view.recv_group()).await;
                assert!(group.expect("a group").is_some(), "{who}");
            }
            let stamp = |n: u64| Timestamp::new(90 * n, timescale()).expect("a timestamp");
            for n in 1..=20 {
                let payload = Bytes::from(vec![n as u8; 50 * n as usize]);
                let sequence = channel.track(TRACK).append_datagram(stamp(n), payload);
                assert_eq!(sequence.expect("a datagram"), n);
            }
            for n in 1..=20 {
                let heard = within("a datagram", view.recv_datagram()).await;
                let heard = heard.expect("a datagram").expect("the track goes on");
                assert_eq!((heard.sequence, heard.timestamp), (n, stamp(n)), "{who}");
                assert_eq!(heard.payload, vec![n as u8; 50 * n as usize], "{who}");
            }
            // The next group is what all get next: no datagram was made one.
            channel.track(TRACK).append_group().expect("a group").finish().expect("its end");
            for view in [&mut view, &mut view_old] {
                let group = within("the next group", view.recv_group()).await;
                assert_eq!(group.expect("a group").map(|group| group.sequence), Some(21), "{who}");
            }
            publisher.leave().await;
            viewer.loses(PATH).await;
            viewer.leave().await;
            old.leave().await;
        }
    }
    relay.stop().await.expect_success();
}

/// A publisher that has announced these tracks, and viewers who were there before and have heard of it.
async fn acquainted<const VIEWERS: usize>(
    relay: &Relay,
    (publisher, viewer): (&'static str, &'static str),
    tracks: &[&str],
) -> (Peer, Channel, [Peer; VIEWERS]) {
    let publisher = Peer::connect(relay, publisher, Role::Publisher).await;
    let mut viewers = Vec::new();
    for _ in 0..VIEWERS {
        viewers.push(Peer::connect(relay, viewer, Role::Viewer).await);
    }
    let channel = publisher.announce(PATH, tracks);
    for viewer in &mut viewers {
        viewer.sees(PATH).await;
    }
    let viewers = viewers.try_into().ok().expect("as many as were connected");
    (publisher, channel, viewers)
}

async fn subscribe_plainly(viewer: &Peer) -> moq_net::track::Subscriber {
    viewer.shelf(PATH, TRACK).await.expect("a track").subscribe_plainly().await
}

/// How a client dials.
#[derive(Clone, Copy, Debug)]
enum Dial {
    Quic,
    Web,
    Http,
    Socket,
}

impl Dial {
    fn to(self, relay: &Relay) -> Relay {
        match self {
            Dial::Quic => relay.clone(),
            Dial::Web => relay.web(),
            Dial::Http => relay.found_over_http(),
            Dial::Socket => relay.websocket(),
        }
    }
}

/// One broadcast from its announcement to its publisher's disappearance.
async fn deliver(publisher: Peer, mut viewer: Peer, track: &str, script: &Script, who: &str) {
    let timestamps = carries_timestamps(publisher.version) && carries_timestamps(viewer.version);

    let mut channel = publisher.announce(PATH, &[track]);
    viewer.sees(PATH).await;
    let subscribed = viewer.subscribe(PATH, track).await;
    let mut view = subscribed.unwrap_or_else(|error| panic!("{who}: {error}"));
    if timestamps {
        let heard = (view.info().timescale, view.info().max_age);
        assert_eq!(heard, (timescale(), MAX_AGE), "{who}: track information");
    }

    channel.wanted(track).await;
    channel.publish(track, script);
    view.expect(who, script, timestamps).await;

    channel.finish(track);
    if carries_ends(publisher.version) && carries_ends(viewer.version) {
        view.expect_end(who).await;
    }

    publisher.leave().await;
    viewer.loses(PATH).await;
    assert!(viewer.connected(), "{who}: the viewer outlives the publisher");
    viewer.leave().await;
}

/// Where a track is published, where it lives and where it is watched: all on one shard, each pair
/// together, and all apart.
const PLACEMENTS: [Placement; 9] = [
    Placement::new(0, 0, 0),
    Placement::new(3, 3, 3),
    Placement::new(0, 0, 1),
    Placement::new(1, 0, 0),
    Placement::new(0, 1, 0),
    Placement::new(2, 3, 2),
    Placement::new(0, 1, 2),
    Placement::new(3, 1, 0),
    Placement::new(2, 0, 3),
];

struct Placement {
    publisher: usize,
    home: usize,
    viewer: usize,
}

impl Placement {
    const fn new(publisher: usize, home: usize, viewer: usize) -> Self {
        Self { publisher, home, viewer }
    }
}

#[tokio::test]
async fn placements_forced() {
    const SHARDS: usize = 4;
    let relay = Relay::start(SHARDS).await;
    let script = script(4, &SIZES);
    let ways = [Dial::Quic, Dial::Socket];
    for (dial_in, dial_out) in ways.iter().flat_map(|one| ways.iter().map(move |two| (one, two))) {
        let (from, to) = (dial_in.to(&relay), dial_out.to(&relay));
        for Placement { publisher, home, viewer } in &PLACEMENTS {
            let track = track_homed_on(*home, SHARDS);
            let who =
                format!("{dial_in:?} on {publisher}, {track} on {home}, {dial_out:?} on {viewer}");
            println!("{who}");
            let publisher = Peer::connect_on(&from, LITE_06, Role::Publisher, *publisher).await;
            let viewer = Peer::connect_on(&to, LITE_06, Role::Viewer, *viewer).await;
            deliver(publisher, viewer, &track, &script, &who).await;
        }
    }
}

/// A track name that the relay places on the wanted shard.
fn track_homed_on(shard: usize, shards: usize) -> String {
    tracks_homed_on(shard, shards).next().expect("some name lands on every shard")
}

fn tracks_homed_on(shard: usize, shards: usize) -> impl Iterator<Item = String> {
    (0..)
        .map(|number| format!("{TRACK}-{number}"))
        .filter(move |name| home_of(PATH, name, shards) == shard)
}

/// Twenty viewers over all versions: each hears all of it, whatever shard it landed on.
#[tokio::test]
async fn twenty_viewers_of_one_track() {
    const VIEWERS: usize = 20;
    let relay = Relay::start(4).await;
    let prologue = script(1, &SIZES_SMALL);
    let script = Script::new(SEED, 1, 3, &SIZES);

    let publisher = Peer::connect(&relay, LITE_06, Role::Publisher).await;
    let mut channel = publisher.announce(PATH, &[TRACK]);
    // A viewer who has read the prologue is certainly subscribed, so nothing later may pass it by.
    channel.publish(TRACK, &prologue);

    let mut audience = Vec::new();
    for number in 0..VIEWERS {
        let version = VERSIONS[number % VERSIONS.len()];
        let mut viewer = Peer::connect(&relay, version, Role::Viewer).await;
        let who = format!("viewer {number} ({version}, shard {})", viewer.shard);
        viewer.sees(PATH).await;
        let mut view = viewer.subscribe(PATH, TRACK).await.expect("subscription");
        view.expect(&who, &prologue, carries_timestamps(version)).await;
        audience.push((who, viewer, view));
    }

    channel.publish(TRACK, &script);
    for (who, viewer, view) in &mut audience {
        view.expect(who, &script, carries_timestamps(viewer.version)).await;
    }
    channel.finish(TRACK);
    for (who, viewer, view) in &mut audience {
        if carries_ends(viewer.version) {
            view.expect_end(who).await;
        }
    }
    publisher.leave().await;
    for (_, viewer, _) in &mut audience {
        viewer.loses(PATH).await;
    }
}

/// Two broadcasts with tracks of the same name do not mix.
#[tokio::test]
async fn two_publishers_one_viewer() {
    let relay = Relay::start(2).await;
    println!("seed {SEED:#x}");
    let said = [
        ("live/one", Script::new(SEED + 1, 0, 3, &SIZES)),
        ("live/two", Script::new(SEED + 2, 0, 3, &SIZES)),
    ];
    let one = Peer::connect(&relay, LITE_06, Role::Publisher).await;
    let two = Peer::connect(&relay, LITE_05, Role::Publisher).await;
    let mut viewer = Peer::connect(&relay, LITE_06, Role::Viewer).await;

    let mut channels = [one.announce("live/one", &[TRACK]), two.announce("live/two", &[TRACK])];
    viewer.sees_all(&["live/one", "live/two"]).await;
    for (channel, (path, script)) in channels.iter_mut().zip(&said) {
        let mut view = viewer.subscribe(path, TRACK).await.expect("subscription");
        channel.wanted(TRACK).await;
        channel.publish(TRACK, script);
        view.expect(path, script, true).await;
    }

    one.leave().await;
    viewer.loses("live/one").await;
    two.leave().await;
    viewer.loses("live/two").await;
}

/// Two tracks of one broadcast, asked for by the same viewer, live on different shards.
#[tokio::test]
async fn two_tracks_of_one_broadcast() {
    const SHARDS: usize = 2;
    let relay = Relay::start(SHARDS).await;
    println!("seed {SEED:#x}");
    let said = [
        (track_homed_on(0, SHARDS), Script::new(SEED + 1, 0, 3, &SIZES)),
        (track_homed_on(1, SHARDS), Script::new(SEED + 2, 0, 3, &SIZES)),
    ];
    let publisher = Peer::connect(&relay, LITE_06, Role::Publisher).await;
    let mut viewer = Peer::connect(&relay, LITE_06, Role::Viewer).await;

    let mut channel = publisher.announce(PATH, &[&said[0].0, &said[1].0]);
    viewer.sees(PATH).await;
    let mut views = Vec::new();
    for (track, script) in &said {
        let view = viewer.subscribe(PATH, track).await.expect("subscription");
        channel.wanted(track).await;
        channel.publish(track, script);
        views.push(view);
    }
    for ((track, script), view) in said.iter().zip(&mut views) {
        view.expect(track, script, true).await;
    }
}

/// Demand goes up, down and up again all the way to the publisher.
#[tokio::test]
async fn unsubscribe_and_return() {
    let relay = Relay::lingering(2, LINGER_SHORT).await;
    for version in VERSIONS {
        let before = script(2, &SIZES_SMALL);
        let after = Script::new(SEED, 2, 2, &SIZES_SMALL);
        let (publisher, mut channel, [mut viewer]) =
            acquainted(&relay, (version, version), &[TRACK]).await;

        let mut view = viewer.subscribe(PATH, TRACK).await.expect("subscription");
        channel.wanted(TRACK).await;
        channel.publish(TRACK, &before);
        view.expect(version, &before, carries_timestamps(version)).await;
        drop(view);
        channel.unwanted(TRACK).await;

        // With no patience for old groups the viewer starts at what is newest when it returns.
        let again = viewer.subscribe_within(PATH, TRACK, Duration::ZERO).await;
        let mut view = again.expect("a second subscription");
        channel.wanted(TRACK).await;
        channel.publish_group(TRACK, &after, &after.groups[0]);
        loop {
            let (sequence, _) = view.group(version).await.expect("the track goes on");
            if sequence == after.groups[0].sequence {
                break;
            }
        }
        publisher.leave().await;
        viewer.loses(PATH).await;
    }
}

/// A viewer that was there first hears of a broadcast when it begins, ends and begins again.
#[tokio::test]
async fn viewer_comes_first() {
    let relay = Relay::start(2).await;
    let script = script(2, &SIZES_SMALL);
    for version in VERSIONS {
        let mut viewer = Peer::connect(&relay, version, Role::Viewer).await;
        let publisher = Peer::connect(&relay, version, Role::Publisher).await;
        for _ in 0..2 {
            let mut channel = publisher.announce(PATH, &[TRACK]);
            viewer.sees(PATH).await;
            let mut view = viewer.subscribe(PATH, TRACK).await.expect("subscription");
            channel.wanted(TRACK).await;
            channel.publish(TRACK, &script);
            view.expect(version, &script, carries_timestamps(version)).await;
            channel.finish(TRACK);
            if carries_ends(version) {
                view.expect_end(version).await;
            }
            channel.close();
            viewer.loses(PATH).await;
        }
    }
}

/// A late joiner with no patience for old groups starts at the newest one, from its first frame.
#[tokio::test]
async fn late_joiner_starts_at_the_newest_group() {
    let relay = Relay::start(4).await;
    let script = script(4, &SIZES);
    let newest = Script::new(SEED, 3, 1, &SIZES);
    for version in VERSIONS {
        let (publisher, mut channel, [mut early]) =
            acquainted(&relay, (LITE_06, version), &[TRACK]).await;
        let mut view = early.subscribe(PATH, TRACK).await.expect("subscription");
        channel.wanted(TRACK).await;
        channel.publish(TRACK, &script);
        view.expect(version, &script, carries_timestamps(version)).await;

        let mut late = Peer::connect(&relay, version, Role::Viewer).await;
        late.sees(PATH).await;
        let joined = late.subscribe_within(PATH, TRACK, Duration::ZERO).await;
        let mut view = joined.expect("subscription");
        view.expect("late joiner", &newest, carries_timestamps(version)).await;

        publisher.leave().await;
        late.loses(PATH).await;
        early.loses(PATH).await;
    }
}

/// A track its publisher does not have is refused, and nothing else suffers.
#[tokio::test]
async fn absent_track_is_refused() {
    let relay = Relay::start(2).await;
    let script = script(1, &SIZES_SMALL);
    for publisher_version in VERSIONS {
        for viewer_version in VERSIONS {
            let who = format!("{publisher_version} to {viewer_version}");
            let (publisher, mut channel, [mut viewer]) =
                acquainted(&relay, (publisher_version, viewer_version), &[TRACK]).await;

            let reason = viewer.refused(PATH, "absent").await;
            assert!(
                matches!(reason.stream(), Some(moq_net::StreamError::NotFound)),
                "{who}: refused with {reason:?}, not with NotFound"
            );

            let mut view = viewer.subscribe(PATH, TRACK).await.expect("subscription");
            channel.wanted(TRACK).await;
            channel.publish(TRACK, &script);
            view.expect(&who, &script, false).await;
            publisher.leave().await;
            viewer.loses(PATH).await;
        }
    }
}

/// An announcement covers the paths below it; one that nobody serves is refused at once.
#[tokio::test]
async fn unserved_path_is_refused() {
    let relay = Relay::start(2).await;
    for version in VERSIONS {
        let (publisher, _channel, [mut viewer]) =
            acquainted(&relay, (LITE_06, version), &[TRACK]).await;
        // The client asks the relay, since an announced route covers the path.
        let below = format!("{PATH}/nothing-here");
        let reason = viewer.refused(&below, TRACK).await;
        println!("{version}: {reason:?}");
        // A path that no announcement covers does not get past the viewer's own client.
        let reason = viewer.refused("nobody/announced/this", TRACK).await;
        assert!(matches!(reason, moq_net::Error::Unroutable), "{version}: {reason:?}");
        assert!(viewer.connected(), "{version}: the session survives refusals");
        publisher.leave().await;
        viewer.loses(PATH).await;
    }
}

/// A session in both roles hears others and is heard, and is never told of its own broadcast.
#[tokio::test]
async fn both_roles_in_one_session() {
    let script = script(2, &SIZES_SMALL);
    for version in VERSIONS {
        // One for each version: nobody hears of an Alice before.
        let relay = Relay::start(2).await;
        let mut alice = Peer::connect(&relay, version, Role::Both).await;
        let mut bob = Peer::connect(&relay, version, Role::Both).await;

        let mut hers = alice.announce("call/alice", &[TRACK]);
        // Bob heard, so the relay has told everybody it was going to tell.
        bob.sees("call/alice").await;
        let mut his = bob.announce("call/bob", &[TRACK]);
        alice.sees("call/bob").await;

        let mut of_bob = alice.subscribe("call/bob", TRACK).await.expect("of bob");
        let mut of_alice = bob.subscribe("call/alice", TRACK).await.expect("of alice");
        for channel in [&mut hers, &mut his] {
            channel.wanted(TRACK).await;
            channel.publish(TRACK, &script);
        }
        of_bob.expect("alice", &script, carries_timestamps(version)).await;
        of_alice.expect("bob", &script, carries_timestamps(version)).await;

        // The next thing Alice hears is Bob leaving, and still nothing of herself.
        bob.leave().await;
        alice.loses("call/bob").await;
    }
}

/// A track that ends while its last groups are still on their way loses none of them.
#[tokio::test]
async fn end_right_behind_the_last_group() {
    let relay = Relay::start(2).await;
    let script = script(4, &SIZES);
    for version in [LITE_05, LITE_06] {
        let (publisher, mut channel, [mut viewer]) =
            acquainted(&relay, (version, version), &[TRACK]).await;
        let mut view = viewer.subscribe(PATH, TRACK).await.expect("subscription");
        channel.wanted(TRACK).await;
        channel.publish(TRACK, &script);
        channel.finish(TRACK);
        view.expect(version, &script, true).await;
        view.expect_end(version).await;
        publisher.leave().await;
        viewer.loses(PATH).await;
    }
}

/// A group that its publisher gives up reaches the viewer as given up, never as complete.
#[tokio::test]
async fn aborted_group_is_not_complete() {
    const REASON: u16 = 7;
    let relay = Relay::start(2).await;
    let script = script(2, &SIZES_SMALL);
    for version in VERSIONS {
        let (publisher, mut channel, [mut viewer]) =
            acquainted(&relay, (version, version), &[TRACK]).await;
        let mut view = viewer.subscribe(PATH, TRACK).await.expect("subscription");
        channel.wanted(TRACK).await;

        let broken = channel.begin_group(TRACK, &script, &script.groups[0]);
        for _ in &script.groups[0].frames {
            let heard = view.next("a frame of the open group").await;
            assert!(matches!(heard, Heard::Frame(0, ..)), "{version}: {heard:?}");
        }
        broken.abort(moq_net::Error::App(REASON)).expect("abort");
        // A client keeps a broken group at the live edge open, in case another route completes it,
        // until a later group begins.
        channel.publish_group(TRACK, &script, &script.groups[1]);
        match view.next("the group to be given up").await {
            Heard::Broken(0, error) => {
                let reason = error.stream().map(|error| error.to_code());
                let said = moq_net::StreamError::App(REASON).to_code();
                assert_eq!(reason, Some(said), "{version}: {error:?}");
            }
            heard => panic!("{version}: {heard:?} instead of a broken group"),
        }
        let (sequence, frames) = view.group(version).await.expect("the track goes on");
        let heard = (sequence, frames.len());
        assert_eq!(heard, (1, script.groups[1].frames.len()), "{version}");
        publisher.leave().await;
        viewer.loses(PATH).await;
    }
}

#[tokio::test]
async fn past_groups_on_one_shard() {
    past_groups(1, Dial::Quic).await;
}

#[tokio::test]
async fn past_groups_on_two_shards() {
    past_groups(2, Dial::Quic).await;
}

#[tokio::test]
async fn past_groups_on_four_shards() {
    past_groups(4, Dial::Quic).await;
}

#[tokio::test]
async fn past_groups_over_webtransport() {
    past_groups(2, Dial::Web).await;
}

/// While a subscription runs, past groups come beside it, all at once: those that the publisher
/// keeps and those that it brings on demand. Who comes later gets them from the relay.
async fn past_groups(shards: usize, dial: Dial) {
    let relay = dial.to(&Relay::start(shards).await);
    let elsewhere = script(2, &SIZES);
    let kept = Script::new(SEED, 2, 2, &SIZES_SMALL);
    let newest = Script::new(SEED, 4, 1, &SIZES_SMALL);
    let live = Script::new(SEED, 5, 2, &SIZES);
    for (publisher_version, viewer_version) in FETCHING_PAIRS {
        let publisher = Peer::connect(&relay, publisher_version, Role::Publisher).await;
        let mut viewer = Peer::connect(&relay, viewer_version, Role::Viewer).await;
        let mut late = Peer::connect(&relay, viewer_version, Role::Viewer).await;
        let who = format!(
            "{publisher_version} (shard {}) to {viewer_version} (shards {} and {}) of {shards}",
            publisher.shard, viewer.shard, late.shard
        );
        println!("{who}");
        let mut channel = publisher.announce(PATH, &[TRACK]);
        channel.publish(TRACK, &kept);
        channel.publish(TRACK, &newest);
        let archive = channel.archive(TRACK).serve(elsewhere.clone());
        viewer.sees(PATH).await;
        late.sees(PATH).await;

        let shelf = viewer.shelf(PATH, TRACK).await.expect("broadcast");
        let mut view = shelf.subscribe_from(4).await.expect("subscription");
        view.expect(&who, &newest, true).await;
        let mut open = channel.open_group(TRACK, 5);
        live.write(&mut open, 0..3);
        view.begins(&who, 3).await;

        let far = shelf.expect(&who, &elsewhere, true);
        let near = shelf.expect(&who, &kept, true);
        live.write(&mut open, 3..SIZES.len());
        open.finish().expect("finish group");
        channel.publish_group(TRACK, &live, &live.groups[1]);
        far.await;
        near.await;
        view.expect(&who, &live, true).await;
        let asked = Asked { subscriptions: 1, ended: 0, fetches: 4 };
        assert_eq!(publisher.asked(), asked, "{who}");
        assert_eq!(archive.asked(), [0, 1], "{who}");

        let shelf = late.shelf(PATH, TRACK).await.expect("broadcast");
        let far = shelf.expect(&who, &elsewhere, true);
        let near = shelf.expect(&who, &kept, true);
        far.await;
        near.await;
        assert_eq!(publisher.asked(), asked, "{who}: the relay holds what was fetched");

        publisher.leave().await;
        viewer.loses(PATH).await;
        late.loses(PATH).await;
    }
}

/// A past group finds its way whatever shards publisher, track and viewer are on, and so does the
/// subscription that comes after it.
#[tokio::test]
async fn past_groups_for_forced_placements() {
    const SHARDS: usize = 4;
    let relay = Relay::start(SHARDS).await;
    let elsewhere = script(1, &SIZES);
    let kept = Script::new(SEED, 1, 2, &SIZES_SMALL);
    let live = Script::new(SEED, 3, 1, &SIZES_SMALL);
    let mut publishers = Vec::new();
    let mut viewers = Vec::new();
    for shard in 0..SHARDS {
        publishers.push(Peer::connect_on(&relay, LITE_06, Role::Publisher, shard).await);
        viewers.push(Peer::connect_on(&relay, LITE_06, Role::Viewer, shard).await);
    }
    for (number, placement) in PLACEMENTS.iter().enumerate() {
        // A name of its own: a publisher that comes back with the same track is the same content.
        let track = tracks_homed_on(placement.home, SHARDS).nth(number).expect("endless");
        let who = format!(
            "publisher on {}, {track} on {}, viewer on {}",
            placement.publisher, placement.home, placement.viewer
        );
        println!("{who}");
        let publisher = &publishers[placement.publisher];
        let before = publisher.asked();
        let mut channel = publisher.announce(PATH, &[&track]);
        channel.publish(&track, &kept);
        let _archive = channel.archive(&track).serve(elsewhere.clone());
        for viewer in &mut viewers {
            viewer.sees(PATH).await;
        }

        let shelf = viewers[placement.viewer].shelf(PATH, &track).await.expect("broadcast");
        let far = shelf.expect(&who, &elsewhere, true);
        let near = shelf.expect(&who, &kept, true);
        far.await;
        near.await;
        let mut view = shelf.subscribe_from(3).await.expect("subscription");
        channel.asked_to("a subscription", &track, |wish| wish.is_some()).await;
        channel.publish(&track, &live);
        view.expect(&who, &live, true).await;
        let asked = publisher.asked();
        let more = (asked.subscriptions - before.subscriptions, asked.fetches - before.fetches);
        assert_eq!(more, (1, 3), "{who}");

        channel.close();
        for viewer in &mut viewers {
            viewer.loses(PATH).await;
        }
    }
}

/// Whoever wants the same past group at the same time shares one fetch of it, from its first byte
/// on, wherever they are.
#[tokio::test]
async fn one_fetch_for_all_who_want_a_group() {
    const SHARDS: usize = 4;
    let relay = Relay::start(SHARDS).await;
    let elsewhere = script(1, &SIZES);
    let kept = Script::new(SEED, 1, 1, &SIZES_SMALL);
    for publisher_version in FETCHING {
        let who = format!("published on {publisher_version}");
        let publisher = Peer::connect(&relay, publisher_version, Role::Publisher).await;
        let mut channel = publisher.announce(PATH, &[TRACK]);
        channel.publish(TRACK, &kept);
        let archive = channel.archive(TRACK);
        let mut viewers = Vec::new();
        let mut shelves = Vec::new();
        for shard in 0..SHARDS {
            let version = FETCHING[shard % FETCHING.len()];
            let mut viewer = Peer::connect_on(&relay, version, Role::Viewer, shard).await;
            viewer.sees(PATH).await;
            shelves.push(viewer.shelf(PATH, TRACK).await.expect("broadcast"));
            viewers.push(viewer);
        }

        let wanted: Vec<_> =
            shelves.iter().map(|shelf| shelf.expect(&who, &elsewhere, true)).collect();
        let request = archive.request().await;
        // What a viewer asked for later is answered, so the relay has what it asked for first.
        for shelf in &shelves {
            shelf.expect(&who, &kept, true).await;
        }
        let mut group = request.accept(None).expect("a group that nobody has made");
        elsewhere.write(&mut group, 0..4);

        let mut late = Peer::connect(&relay, LITE_06, Role::Viewer).await;
        late.sees(PATH).await;
        let shelf = late.shelf(PATH, TRACK).await.expect("broadcast");
        let mut growing = shelf.open(0, 0).await.expect("a group that grows");
        let mut frames = read(&mut growing, 4).await.expect("frames of a group that grows");
        elsewhere.write(&mut group, 4..SIZES.len());
        group.finish().expect("finish group");
        frames.extend(read(&mut growing, usize::MAX).await.expect("the rest"));
        elsewhere.compare_from(&who, 0, 0, &frames, true);
        for frames in wanted {
            frames.await;
        }
        let asked = Asked { subscriptions: 0, ended: 0, fetches: 2 };
        assert_eq!(publisher.asked(), asked, "{who}: two groups");
        publisher.leave().await;
    }
}

/// A fetch needs no subscription and opens none; what it brought is not told to a subscriber.
#[tokio::test]
async fn fetch_first_then_subscribe() {
    let relay = Relay::start(2).await;
    let elsewhere = script(2, &SIZES);
    let newest = Script::new(SEED, 4, 1, &SIZES_SMALL);
    let live = Script::new(SEED, 5, 1, &SIZES_SMALL);
    let both = Script::new(SEED, 4, 2, &SIZES_SMALL);
    for (publisher_version, viewer_version) in FETCHING_PAIRS {
        let who = format!("{publisher_version} to {viewer_version}");
        let publisher = Peer::connect(&relay, publisher_version, Role::Publisher).await;
        let mut viewer = Peer::connect(&relay, viewer_version, Role::Viewer).await;
        let mut late = Peer::connect(&relay, viewer_version, Role::Viewer).await;
        let mut channel = publisher.announce(PATH, &[TRACK]);
        channel.publish(TRACK, &newest);
        let _archive = channel.archive(TRACK).serve(elsewhere.clone());
        viewer.sees(PATH).await;
        late.sees(PATH).await;

        let shelf = viewer.shelf(PATH, TRACK).await.expect("broadcast");
        shelf.expect(&who, &elsewhere, true).await;
        assert_eq!(
            publisher.asked(),
            Asked { subscriptions: 0, ended: 0, fetches: 2 },
            "{who}: fetches alone"
        );
        let mut view = viewer.subscribe(PATH, TRACK).await.expect("subscription");
        view.expect(&who, &newest, true).await;
        channel.publish(TRACK, &live);
        view.expect(&who, &live, true).await;

        // From 06 on a patient viewer starts at the oldest group of the feed, before that at the
        // newest; what was only fetched is older than both.
        let start = if viewer_version == LITE_06 { &both } else { &live };
        let mut view = late.subscribe(PATH, TRACK).await.expect("subscription");
        view.expect(&who, start, true).await;
        assert_eq!(
            publisher.asked(),
            Asked { subscriptions: 1, ended: 0, fetches: 2 },
            "{who}: one subscription later"
        );
        publisher.leave().await;
        viewer.loses(PATH).await;
        late.loses(PATH).await;
    }
}

/// A fetch may begin within a group. A publisher on 06 is asked for just that, and again when
/// somebody wants the whole; a publisher on 05 can only be asked for the whole.
#[tokio::test]
async fn fetch_from_the_middle_of_a_group() {
    let relay = Relay::start(2).await;
    let elsewhere = script(1, &SIZES);
    for (publisher_version, viewer_version) in FETCHING_PAIRS {
        let who = format!("{publisher_version} to {viewer_version}");
        let publisher = Peer::connect(&relay, publisher_version, Role::Publisher).await;
        let mut channel = publisher.announce(PATH, &[TRACK]);
        let archive = channel.archive(TRACK);
        let mut shelves = Vec::new();
        let mut viewers = Vec::new();
        for _ in 0..3 {
            let mut viewer = Peer::connect(&relay, viewer_version, Role::Viewer).await;
            viewer.sees(PATH).await;
            shelves.push(viewer.shelf(PATH, TRACK).await.expect("broadcast"));
            viewers.push(viewer);
        }

        let narrow = publisher_version == LITE_06 && viewer_version == LITE_06;
        let fetch = tokio::spawn({
            let shelf = shelves[0].clone();
            async move { shelf.fetch_from(0, 2).await }
        });
        let request = archive.request().await;
        assert_eq!(request.frame_start(), if narrow { 2 } else { 0 }, "{who}");
        let first = request.frame_start() as usize;
        let mut group = request.accept(None).expect("a group that nobody has made");
        elsewhere.write(&mut group, first..SIZES.len());
        group.finish().expect("finish group");
        let frames = within("the fetch", fetch).await.expect("no panic").expect("the tail");
        elsewhere.compare_from(&who, 0, 2, &frames, true);

        let serving = archive.serve(elsewhere.clone());
        shelves[1].expect(&who, &elsewhere, true).await;
        let fetches = if narrow { 2 } else { 1 };
        assert_eq!(publisher.asked().fetches, fetches, "{who}: the whole group");
        let frames = shelves[2].fetch_from(0, 5).await.expect("the last frame");
        elsewhere.compare_from(&who, 0, 5, &frames, true);
        assert_eq!(publisher.asked().fetches, fetches, "{who}: from the whole group");
        // The wire of 05 has no first frame: its client asks for the group and looks by itself.
        if viewer_version == LITE_06 {
            let mut viewer = Peer::connect(&relay, viewer_version, Role::Viewer).await;
            viewer.sees(PATH).await;
            let shelf = viewer.shelf(PATH, TRACK).await.expect("broadcast");
            let reason = shelf.refused_from(0, SIZES.len() as u64 + 1).await;
            assert!(
                matches!(reason.stream(), Some(moq_net::StreamError::TooFarBehind)),
                "{who}: refused with {reason:?}, not with TooFarBehind"
            );
        }
        drop(serving);
        publisher.leave().await;
    }
}

/// What cannot be fetched is refused at once and for the right reason, and nothing else suffers.
#[tokio::test]
async fn fetches_that_are_refused() {
    const REASON: u16 = 7;
    let relay = Relay::start(2).await;
    let elsewhere = script(1, &SIZES_SMALL);
    let newest = Script::new(SEED, 2, 1, &SIZES_SMALL);
    let live = Script::new(SEED, 3, 2, &SIZES);
    let all = Script::new(SEED, 3, 1, &SIZES);
    for (publisher_version, viewer_version) in FETCHING_PAIRS {
        let who = format!("{publisher_version} to {viewer_version}");
        let publisher = Peer::connect(&relay, publisher_version, Role::Publisher).await;
        let mut viewer = Peer::connect(&relay, viewer_version, Role::Viewer).await;
        let mut late = Peer::connect(&relay, viewer_version, Role::Viewer).await;
        let mut channel = publisher.announce(PATH, &[TRACK]);
        channel.publish(TRACK, &newest);
        viewer.sees(PATH).await;
        late.sees(PATH).await;
        let shelf = viewer.shelf(PATH, TRACK).await.expect("broadcast");
        let mut view = shelf.subscribe_from(2).await.expect("subscription");
        view.expect(&who, &newest, true).await;
        let mut open = channel.open_group(TRACK, 3);
        live.write(&mut open, 0..3);
        view.begins(&who, 3).await;

        // A group that the publisher does not have, and one that it gives a reason for.
        expect_not_found(&who, &shelf.refused(0).await);
        let archive = channel.archive(TRACK);
        let refusal = shelf.refused(0);
        let refusal = tokio::spawn(refusal);
        archive.request().await.reject(moq_net::Error::App(REASON));
        let reason = refusal.await.expect("a refusal");
        let said = moq_net::StreamError::App(REASON);
        assert_eq!(reason.stream(), Some(&said), "{who}: {reason:?}");
        // No refusal is remembered.
        let serving = archive.serve(elsewhere.clone());
        shelf.expect(&who, &elsewhere, true).await;
        assert_eq!(publisher.asked().fetches, 3, "{who}: each was a question of its own");
        drop(serving);

        // A track that the publisher does not have, and a path that nobody serves.
        let absent = viewer.shelf(PATH, "absent").await.expect("broadcast");
        expect_not_found(&who, &absent.refused(0).await);
        let below = format!("{PATH}/nothing-here");
        let below = viewer.shelf(&below, TRACK).await.expect("a covered path");
        let reason = below.refused(0).await;
        let unroutable = matches!(reason.stream(), Some(moq_net::StreamError::Unroutable));
        assert!(unroutable, "{who}: refused with {reason:?}, not with Unroutable");

        live.write(&mut open, 3..SIZES.len());
        open.finish().expect("finish group");
        channel.publish_group(TRACK, &live, &live.groups[1]);
        view.expect(&who, &live, true).await;

        // The end is known from the subscription, so nobody needs to be asked what lies past it.
        channel.finish(TRACK);
        view.expect_end(&who).await;
        let shelf = late.shelf(PATH, TRACK).await.expect("broadcast");
        let before = publisher.asked().fetches;
        for sequence in [5, 6, 1 << 40] {
            expect_not_found(&who, &shelf.refused(sequence).await);
        }
        assert_eq!(publisher.asked().fetches, before, "{who}: past the end");
        shelf.expect(&who, &all, true).await;

        publisher.leave().await;
        viewer.loses(PATH).await;
        late.loses(PATH).await;
    }
}

/// The session that the content came from is gone.
#[track_caller]
fn expect_lost(who: &str, reason: &moq_net::Error) {
    let lost = matches!(reason.stream(), Some(moq_net::StreamError::Session(_)));
    assert!(lost, "{who}: {reason:?}, not the loss of the publisher");
}

#[track_caller]
fn expect_not_found(who: &str, reason: &moq_net::Error) {
    let not_found = matches!(reason.stream(), Some(moq_net::StreamError::NotFound));
    assert!(not_found, "{who}: refused with {reason:?}, not with NotFound");
}

/// A group that is still being written is fetched as it grows, whether a subscription brings it or
/// nobody else wants it, and fails as it fails.
#[tokio::test]
async fn fetch_of_a_group_that_grows() {
    const REASON: u16 = 7;
    const OTHER: &str = "audio";
    let relay = Relay::start(2).await;
    let script = script(3, &SIZES);
    for (publisher_version, viewer_version) in FETCHING_PAIRS {
        let who = format!("{publisher_version} to {viewer_version}");
        let (publisher, mut channel, [mut viewer, mut late]) =
            acquainted(&relay, (publisher_version, viewer_version), &[TRACK, OTHER]).await;

        let mut view = viewer.subscribe(PATH, TRACK).await.expect("subscription");
        channel.asked_to("a subscription", TRACK, |wish| wish.is_some()).await;
        let shelf = late.shelf(PATH, TRACK).await.expect("broadcast");
        for sequence in 0..2 {
            let mut group = channel.open_group(TRACK, sequence);
            script.write(&mut group, 0..4);
            view.begins(&who, 4).await;
            let mut growing = shelf.open(sequence, 0).await.expect("a group that grows");
            let mut frames = read(&mut growing, 4).await.expect("frames of a group that grows");
            if sequence == 0 {
                script.write(&mut group, 4..SIZES.len());
                group.finish().expect("finish group");
                frames.extend(read(&mut growing, usize::MAX).await.expect("the rest"));
                script.compare_from(&who, sequence, 0, &frames, true);
                let (sequence, frames) = view.group(&who).await.expect("the track goes on");
                script.compare_from(&who, sequence, 0, &frames, true);
            } else {
                group.abort(moq_net::Error::App(REASON)).expect("abort");
                // The publisher's client keeps a broken group at the live edge open, until a later
                // one begins.
                channel.publish_group(TRACK, &script, &script.groups[2]);
                let reason = read(&mut growing, 1).await.expect_err("a group that failed");
                let said = moq_net::StreamError::App(REASON);
                assert_eq!(reason.stream(), Some(&said), "{who}: {reason:?}");
            }
        }
        let asked = Asked { subscriptions: 1, ended: 0, fetches: 0 };
        assert_eq!(publisher.asked(), asked, "{who}: the feed is there");

        let mut group = channel.open_group(OTHER, 0);
        script.write(&mut group, 0..3);
        let shelf = viewer.shelf(PATH, OTHER).await.expect("broadcast");
        let mut first = shelf.open(0, 0).await.expect("a group that grows");
        let mut frames = read(&mut first, 3).await.expect("frames of a group that grows");
        let shelf = late.shelf(PATH, OTHER).await.expect("broadcast");
        let mut second = shelf.open(0, 0).await.expect("a group that grows");
        let mut same = read(&mut second, 3).await.expect("frames of a group that grows");
        script.write(&mut group, 3..SIZES.len());
        group.finish().expect("finish group");
        frames.extend(read(&mut first, usize::MAX).await.expect("the rest"));
        same.extend(read(&mut second, usize::MAX).await.expect("the rest"));
        script.compare_from(&who, 0, 0, &frames, true);
        script.compare_from(&who, 0, 0, &same, true);
        let asked = Asked { subscriptions: 1, ended: 0, fetches: 1 };
        assert_eq!(publisher.asked(), asked, "{who}: no feed, one fetch");

        publisher.leave().await;
        viewer.loses(PATH).await;
        late.loses(PATH).await;
    }
}

/// A fetch that nobody waits for any more is given up at the publisher, and not before; the next
/// one begins anew and is whole.
#[tokio::test]
async fn a_fetch_nobody_waits_for() {
    let relay = Relay::start(2).await;
    let elsewhere = script(2, &SIZES_SMALL);
    for (publisher_version, viewer_version) in FETCHING_PAIRS {
        let who = format!("{publisher_version} to {viewer_version}");
        let publisher = Peer::connect(&relay, publisher_version, Role::Publisher).await;
        let mut channel = publisher.announce(PATH, &[TRACK]);
        let archive = channel.archive(TRACK);
        let mut viewers = Vec::new();
        let mut shelves = Vec::new();
        for _ in 0..2 {
            let mut viewer = Peer::connect(&relay, viewer_version, Role::Viewer).await;
            viewer.sees(PATH).await;
            shelves.push(viewer.shelf(PATH, TRACK).await.expect("broadcast"));
            viewers.push(viewer);
        }

        // Before it is answered.
        let waiting = shelves[0].clone();
        let waiting = tokio::spawn(async move { waiting.fetch(0).await });
        let request = archive.request().await;
        waiting.abort();
        abandoned(&request).await;
        drop(request);

        // In the middle of it: one of two who wait may leave, not both.
        let mut first = tokio::spawn({
            let shelf = shelves[0].clone();
            async move { shelf.open(1, 0).await }
        });
        let mut group = archive.request().await.accept(None).expect("a group nobody has made");
        elsewhere.write(&mut group, 0..1);
        let first = within("the group", &mut first).await.expect("no panic");
        let mut first = first.expect("a group that grows");
        let mut second = shelves[1].open(1, 0).await.expect("a group that grows");
        read(&mut first, 1).await.expect("a frame");
        read(&mut second, 1).await.expect("a frame");
        drop(first);
        elsewhere.write(&mut group, 1..2);
        read(&mut second, 1).await.expect("a frame for who still waits");
        drop(second);
        within("the fetch to be given up", group.unused()).await.expect("the group lives");
        // Or the publisher's client would keep what there is of it, and wait for the rest.
        group.abort(moq_net::Error::Cancel).expect("abort");

        let _serving = archive.serve(elsewhere.clone());
        shelves[0].expect(&who, &elsewhere, true).await;
        shelves[1].expect(&who, &elsewhere, true).await;
        let asked = Asked { subscriptions: 0, ended: 0, fetches: 4 };
        assert_eq!(publisher.asked(), asked, "{who}: each group twice");
        publisher.leave().await;
    }
}

/// A fetch ends with its publisher, answered or not, and never as if it were whole.
#[tokio::test]
async fn a_fetch_loses_its_publisher() {
    let relay = Relay::start(2).await;
    let elsewhere = script(2, &SIZES_SMALL);
    for (publisher_version, viewer_version) in FETCHING_PAIRS {
        let who = format!("{publisher_version} to {viewer_version}");
        let (publisher, mut channel, [mut viewer]) =
            acquainted(&relay, (publisher_version, viewer_version), &[TRACK]).await;
        let archive = channel.archive(TRACK);
        let shelf = viewer.shelf(PATH, TRACK).await.expect("broadcast");

        let opened = tokio::spawn({
            let shelf = shelf.clone();
            async move { shelf.open(0, 0).await }
        });
        let mut group = archive.request().await.accept(None).expect("a group nobody has made");
        elsewhere.write(&mut group, 0..1);
        let opened = within("the group", opened).await.expect("no panic");
        let mut opened = opened.expect("a group that grows");
        read(&mut opened, 1).await.expect("a frame");
        let waiting = shelf.refused(1);
        let waiting = tokio::spawn(waiting);
        let _request = archive.request().await;

        publisher.leave().await;
        expect_lost(&who, &within("the loss", waiting).await.expect("no panic"));
        let reason = read(&mut opened, usize::MAX).await.expect_err("a group cut short");
        expect_lost(&who, &reason);
        viewer.loses(PATH).await;
        assert!(viewer.connected(), "{who}: the viewer outlives the publisher");
    }
}

/// A publisher whose wire has no FETCH: what the feed brought and what it may still bring can be
/// fetched, and nothing else.
#[tokio::test]
async fn fetch_from_a_publisher_without_fetch() {
    let relay = Relay::start(2).await;
    let feed = script(2, &SIZES);
    for publisher_version in [LITE_01, LITE_02, LITE_03, LITE_04] {
        for viewer_version in FETCHING {
            let who = format!("{publisher_version} to {viewer_version}");
            let (publisher, mut channel, [mut viewer, mut late]) =
                acquainted(&relay, (publisher_version, viewer_version), &[TRACK]).await;
            let shelf = late.shelf(PATH, TRACK).await.expect("broadcast");
            expect_not_found(&who, &shelf.refused(0).await);

            let mut view = viewer.subscribe(PATH, TRACK).await.expect("subscription");
            channel.asked_to("a subscription", TRACK, |wish| wish.is_some()).await;
            channel.publish_group(TRACK, &feed, &feed.groups[0]);
            let (sequence, frames) = view.group(&who).await.expect("the track goes on");
            feed.compare_from(&who, sequence, 0, &frames, false);
            let both = shelf.expect(&who, &feed, false);
            channel.publish_group(TRACK, &feed, &feed.groups[1]);
            both.await;
            let (sequence, frames) = view.group(&who).await.expect("the track goes on");
            feed.compare_from(&who, sequence, 0, &frames, false);
            let asked = Asked { subscriptions: 1, ended: 0, fetches: 0 };
            assert_eq!(publisher.asked(), asked, "{who}");
            publisher.leave().await;
            viewer.loses(PATH).await;
            late.loses(PATH).await;
        }
    }
}

/// The last viewer leaves and comes back soon, or another one comes: their publisher is asked to
/// pause and to go on, in one and the same subscription.
#[tokio::test]
async fn viewer_returns_within_the_linger() {
    const PRIORITY: u8 = 9;
    let relay = Relay::start(2).await;
    for version in PAUSING {
        let (publisher, mut channel, [mut viewer, mut other]) =
            acquainted(&relay, (version, version), &[TRACK]).await;
        let wanted = Subscription::default().with_priority(PRIORITY).with_max_age(MAX_AGE);
        let is_wanted = |wish: Option<&Subscription>| {
            wish.is_some_and(|wish| wish.priority == PRIORITY && wish.end.is_none())
        };
        for (round, viewer) in [&viewer, &viewer, &other, &viewer].into_iter().enumerate() {
            let newest = round as u64;
            let shelf = viewer.shelf(PATH, TRACK).await.expect("broadcast");
            let mut view = shelf.subscribe(wanted.clone()).await.expect("subscription");
            channel.asked_to("the subscription", TRACK, is_wanted).await;
            channel.publish(TRACK, &Script::new(SEED, newest, 1, &SIZES_SMALL));
            hear_until(&mut view, version, newest).await;
            drop(view);
            let paused = |wish: Option<&Subscription>| {
                wish.is_some_and(|wish| {
                    wish.priority == 0 && wish.end == Position::after_group(newest)
                })
            };
            channel.asked_to("the pause", TRACK, paused).await;
        }
        let asked = Asked { subscriptions: 1, ended: 0, fetches: 0 };
        assert_eq!(publisher.asked(), asked, "{version}");
        publisher.leave().await;
        viewer.loses(PATH).await;
        other.loses(PATH).await;
    }
}

/// Reads up to a group that must be whole. What a returning viewer is told again before that is
/// its client's affair.
async fn hear_until(view: &mut View, who: &str, sequence: u64) {
    let script = Script::new(SEED, 0, sequence + 1, &SIZES_SMALL);
    loop {
        let (heard, frames) = view.group(who).await.expect("the track goes on");
        script.compare_from(who, heard, 0, &frames, carries_timestamps(who));
        if heard == sequence {
            break;
        }
    }
}

/// Once the linger is over the subscription is closed, and who comes back opens another one.
#[tokio::test]
async fn viewer_returns_after_the_linger() {
    let relay = Relay::lingering(2, LINGER_SHORT).await;
    for version in VERSIONS {
        let (publisher, mut channel, [mut viewer]) =
            acquainted(&relay, (version, version), &[TRACK]).await;
        for round in 0..2 {
            let mut view = viewer.subscribe(PATH, TRACK).await.expect("subscription");
            channel.asked_to("a subscription", TRACK, |wish| wish.is_some()).await;
            channel.publish(TRACK, &Script::new(SEED, round, 1, &SIZES_SMALL));
            hear_until(&mut view, version, round).await;
            drop(view);
            channel.asked_to("no subscription", TRACK, |wish| wish.is_none()).await;
            channel.unwanted(TRACK).await;
            let asked = Asked { subscriptions: round + 1, ended: round + 1, fetches: 0 };
            assert_eq!(publisher.asked(), asked, "{version}");
        }
        publisher.leave().await;
        viewer.loses(PATH).await;
    }
}

/// Without a linger the subscription is closed with the last viewer, and never paused.
#[tokio::test]
async fn viewer_returns_where_nothing_lingers() {
    let relay = Relay::lingering(2, Duration::ZERO).await;
    for version in VERSIONS {
        let (publisher, mut channel, [mut viewer]) =
            acquainted(&relay, (version, version), &[TRACK]).await;
        for round in 0..2 {
            let mut view = viewer.subscribe(PATH, TRACK).await.expect("subscription");
            channel.asked_to("a subscription", TRACK, |wish| wish.is_some()).await;
            channel.publish(TRACK, &Script::new(SEED, round, 1, &SIZES_SMALL));
            hear_until(&mut view, version, round).await;
            drop(view);
            channel.asked_next("no subscription", TRACK, |wish| wish.is_none()).await;
        }
        publisher.leave().await;
        viewer.loses(PATH).await;
    }
}

/// While a fetch runs nothing is closed, however long that is; the linger begins after it.
#[tokio::test]
async fn a_fetch_outlasts_the_linger() {
    let relay = Relay::lingering(2, LINGER_SHORT).await;
    let elsewhere = script(1, &SIZES);
    let newest = Script::new(SEED, 1, 1, &SIZES_SMALL);
    for version in FETCHING {
        let publisher = Peer::connect(&relay, version, Role::Publisher).await;
        let mut viewer = Peer::connect(&relay, version, Role::Viewer).await;
        let mut late = Peer::connect(&relay, version, Role::Viewer).await;
        let mut channel = publisher.announce(PATH, &[TRACK]);
        channel.publish(TRACK, &newest);
        let archive = channel.archive(TRACK);
        viewer.sees(PATH).await;
        late.sees(PATH).await;
        let mut view = viewer.subscribe(PATH, TRACK).await.expect("subscription");
        view.expect(version, &newest, true).await;
        let fetched = late.shelf(PATH, TRACK).await.expect("broadcast");
        let fetched = fetched.expect(version, &elsewhere, true);
        let mut group = archive.request().await.accept(None).expect("a group nobody has made");
        elsewhere.write(&mut group, 0..2);

        drop(view);
        let paused = |wish: Option<&Subscription>| wish.is_some_and(|wish| wish.end.is_some());
        channel.asked_to("the pause", TRACK, paused).await;
        // Nothing is to happen, and only time shows that nothing does.
        tokio::time::sleep(2 * LINGER_SHORT).await;
        let asked = Asked { subscriptions: 1, ended: 0, fetches: 1 };
        assert_eq!(publisher.asked(), asked, "{version}: a fetch is running");
        elsewhere.write(&mut group, 2..SIZES.len());
        group.finish().expect("finish group");
        drop(group);
        fetched.await;
        channel.asked_to("no subscription", TRACK, |wish| wish.is_none()).await;
        publisher.leave().await;
        viewer.loses(PATH).await;
        late.loses(PATH).await;
    }
}

/// Two publishers of one identity: when the one that serves is gone, the other goes on at the frame
/// where it stopped and brings what was fetched, and no viewer hears of it.
#[tokio::test]
async fn another_publisher_of_the_same_content_takes_over() {
    const MARK: &str = "live/mark";
    let relay = Relay::start(2).await;
    let past = script(1, &SIZES);
    let newest = Script::new(SEED, 1, 1, &SIZES_SMALL);
    let live = Script::new(SEED, 2, 2, &SIZES);
    for (version, viewer_version) in FETCHING_PAIRS {
        let who = format!("{version} to {viewer_version}");
        let hop = moq_net::Hop::random();
        let mut viewer = Peer::connect(&relay, viewer_version, Role::Viewer).await;
        let mut publishers = Vec::new();
        for _ in 0..2 {
            let publisher = Peer::connect_as(&relay, version, Role::Publisher, hop).await;
            let mut channel = publisher.announce(PATH, &[TRACK]);
            channel.publish(TRACK, &newest);
            let archive = channel.archive(TRACK);
            publishers.push((publisher, channel, archive));
        }
        // The relay has heard of both, since it heard of what the second announced later.
        let mark = publishers[1].0.announce(MARK, &[]);
        viewer.sees_all(&[PATH, MARK]).await;
        mark.close();
        viewer.loses(MARK).await;

        let shelf = viewer.shelf(PATH, TRACK).await.expect("broadcast");
        let mut view = shelf.subscribe_from(1).await.expect("subscription");
        view.expect(&who, &newest, true).await;
        let mut begun = Vec::new();
        for (_, channel, _) in &mut publishers {
            let mut group = channel.open_group(TRACK, 2);
            live.write(&mut group, 0..4);
            begun.push(group);
        }
        view.begins(&who, 4).await;
        let serves = publishers.iter().position(|(peer, ..)| peer.asked().subscriptions > 0);
        let serves = serves.expect("a subscription");
        let (first, _channel, archive) = publishers.remove(serves);
        let _cut = begun.remove(serves);
        let fetched = shelf.expect(&who, &past, true);
        let _unanswered = archive.request().await;
        let (second, mut channel, archive) = publishers.remove(0);
        let mut open = begun.remove(0);
        let nothing = Asked { subscriptions: 0, ended: 0, fetches: 0 };
        assert_eq!(second.asked(), nothing, "{who}: one is enough");
        let _archive = archive.serve(past.clone());
        first.leave().await;
        channel.asked_to("a subscription", TRACK, |wish| wish.is_some()).await;
        live.write(&mut open, 4..SIZES.len());
        open.finish().expect("finish group");
        channel.publish_group(TRACK, &live, &live.groups[1]);
        view.expect(&who, &live, true).await;
        fetched.await;
        let asked = Asked { subscriptions: 1, ended: 0, fetches: 1 };
        assert_eq!(second.asked(), asked, "{who}");
        second.leave().await;
        viewer.loses(PATH).await;
    }
}

/// A publisher that comes back under its identity is heard again, by those who were there before.
#[tokio::test]
async fn publisher_returns_under_its_identity() {
    let relay = Relay::start(2).await;
    for version in FETCHING {
        let hop = moq_net::Hop::random();
        let mut viewer = Peer::connect(&relay, version, Role::Viewer).await;
        for life in 0..3 {
            let publisher = Peer::connect_as(&relay, version, Role::Publisher, hop).await;
            let past = Script::new(SEED, 10 * life, 1, &SIZES);
            let live = Script::new(SEED, 10 * life + 1, 2, &SIZES);
            let mut channel = publisher.announce(PATH, &[TRACK]);
            channel.publish(TRACK, &past);
            viewer.sees(PATH).await;
            let shelf = viewer.shelf(PATH, TRACK).await.expect("broadcast");
            let view = shelf.subscribe_from(10 * life + 1).await;
            let mut view = view.expect("subscription");
            channel.asked_to("a subscription", TRACK, |wish| wish.is_some()).await;
            channel.publish_group(TRACK, &live, &live.groups[0]);
            let (sequence, frames) = view.group(version).await.expect("the track goes on");
            live.compare_from(version, sequence, 0, &frames, true);
            let open = channel.begin_group(TRACK, &live, &live.groups[1]);
            view.begins(version, SIZES.len()).await;
            shelf.expect(version, &past, true).await;
            publisher.leave().await;
            match view.next("the loss").await {
                Heard::Broken(_, reason) | Heard::Failed(reason) => expect_lost(version, &reason),
                heard => panic!("{version}: {heard:?} instead of the loss"),
            }
            viewer.loses(PATH).await;
            drop(open);
        }
    }
}

/// A client that wants to know how fast the relay could send is told, on every version that has a
/// word for it.
#[tokio::test]
async fn the_link_is_reported_to_those_who_ask() {
    let relay = Relay::start(2).await;
    for version in [LITE_03, LITE_04, LITE_05, LITE_06] {
        let viewer = Peer::connect(&relay, version, Role::Viewer).await;
        let rate = viewer.reported_rate().await;
        println!("{version}: {rate} b/s");
        // Loopback: a window of a few packets within a millisecond or so.
        assert!(rate > 1_000_000, "{version}: {rate} b/s");
        assert!(viewer.connected(), "{version}");
        viewer.leave().await;
    }
}
