//! The released clients judge the relay: every play is acted by `moq-net` clients over raw QUIC
//! against the built binary. Whatever differs between what a publisher said and what a viewer
//! heard is the relay's doing.

mod support {
    pub mod client;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod relay;
}

use std::time::Duration;

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

/// The groups of a play that starts at group 0.
fn script(count: u64, sizes: &[usize]) -> Script {
    println!("seed {SEED:#x}");
    Script::new(SEED, 0, count, sizes)
}

#[tokio::test]
async fn matrix_on_one_shard() {
    matrix(1).await;
}

#[tokio::test]
async fn matrix_on_two_shards() {
    matrix(2).await;
}

#[tokio::test]
async fn matrix_on_four_shards() {
    matrix(4).await;
}

/// Every version publishes to every version: bytes, frames and sequences always arrive, timestamps
/// wherever both wires carry them.
async fn matrix(shards: usize) {
    let relay = Relay::start(shards).await;
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
    for placement in &PLACEMENTS {
        let publisher =
            Peer::connect_on(&relay, LITE_06, Role::Publisher, placement.publisher).await;
        let viewer = Peer::connect_on(&relay, LITE_06, Role::Viewer, placement.viewer).await;
        let track = track_homed_on(placement.home, SHARDS);
        let who = format!(
            "publisher on {}, {track} on {}, viewer on {}",
            placement.publisher, placement.home, placement.viewer
        );
        println!("{who}");
        deliver(publisher, viewer, &track, &script, &who).await;
    }
}

/// A track name that the relay places on the wanted shard.
fn track_homed_on(shard: usize, shards: usize) -> String {
    (0..)
        .map(|number| format!("{TRACK}-{number}"))
        .find(|name| home_of(PATH, name, shards) == shard)
        .expect("some name lands on every shard")
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
    let relay = Relay::start(2).await;
    for version in VERSIONS {
        let before = script(2, &SIZES_SMALL);
        let after = Script::new(SEED, 2, 2, &SIZES_SMALL);
        let publisher = Peer::connect(&relay, version, Role::Publisher).await;
        let mut viewer = Peer::connect(&relay, version, Role::Viewer).await;
        let mut channel = publisher.announce(PATH, &[TRACK]);
        viewer.sees(PATH).await;

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
        let publisher = Peer::connect(&relay, LITE_06, Role::Publisher).await;
        let mut early = Peer::connect(&relay, version, Role::Viewer).await;
        let mut channel = publisher.announce(PATH, &[TRACK]);
        early.sees(PATH).await;
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
            let publisher = Peer::connect(&relay, publisher_version, Role::Publisher).await;
            let mut viewer = Peer::connect(&relay, viewer_version, Role::Viewer).await;
            let mut channel = publisher.announce(PATH, &[TRACK]);
            viewer.sees(PATH).await;

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
        let publisher = Peer::connect(&relay, LITE_06, Role::Publisher).await;
        let mut viewer = Peer::connect(&relay, version, Role::Viewer).await;
        let _channel = publisher.announce(PATH, &[TRACK]);
        viewer.sees(PATH).await;
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
    let relay = Relay::start(2).await;
    let script = script(2, &SIZES_SMALL);
    for version in VERSIONS {
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
        let publisher = Peer::connect(&relay, version, Role::Publisher).await;
        let mut viewer = Peer::connect(&relay, version, Role::Viewer).await;
        let mut channel = publisher.announce(PATH, &[TRACK]);
        viewer.sees(PATH).await;
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
        let publisher = Peer::connect(&relay, version, Role::Publisher).await;
        let mut viewer = Peer::connect(&relay, version, Role::Viewer).await;
        let mut channel = publisher.announce(PATH, &[TRACK]);
        viewer.sees(PATH).await;
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
