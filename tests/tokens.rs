//! Tokens and keys with the real binary, files and released clients: right refusals, which are final or
//! are not, and sessions that end when they should.

#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod client;
    pub mod flow;
    pub mod http;
    pub mod relay;
    pub mod show;
    pub mod tokens;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::client::{
    LITE_03, LITE_05, LITE_06, PROMPTLY, Peer, Role, Script, carries_timestamps,
};
use support::http::get;
use support::relay::Relay;
use support::show::Show;
use support::tokens::{Issuer, Keys};

const SEED: u64 = 0x5eed_0000_70c4_1500;

const TRACK: &str = "video";

/// From the removal of a key to the end of its sessions, on a machine that does much else.
const REMOVED_WITHIN: Duration = Duration::from_millis(1500);

fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after the epoch")
}

/// Clients that dial again when a session fails do not when a token is refused, and the log says why it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_gives_up() {
    let (issuer, stranger) = (Issuer::new("k1"), Issuer::new("k1"));
    let keys = Keys::new("refused", &[("k1", &issuer)]);
    let relay = Relay::guarded(2, &["--auth-key-dir", keys.path()]).await;
    let past = unix().as_secs() as i64 - 1;
    let table = [
        ("/rooms/1".to_owned(), "no token is shown"),
        (issuer.dials("/rooms/1", "", &[], &["**"], Some(past)), "expired"),
        (stranger.dials("/rooms/1", "", &[], &["**"], None), "not signed with a key"),
        (issuer.dials("/rooms/1", "rooms/2", &[], &["**"], None), "not on the way"),
        (issuer.dials("/rooms/1", "rooms", &[], &["2/**"], None), "grants nothing"),
        ("/rooms/1?jwt=nonsense".to_owned(), "not a JWT"),
    ];
    let mut refused = 0;
    for way in [relay.clone(), relay.web()] {
        for (target, why) in &table {
            for version in [LITE_03, LITE_05, LITE_06] {
                // That cannot say where it wants to be.
                let target = match version {
                    LITE_03 if way.url().starts_with("moqt") => "",
                    _ => target,
                };
                let begun = Instant::now();
                let error = Peer::turned_away(&way.at(target), version).await;
                assert!(error.is_auth(), "{version} {target}: {error}");
                assert!(begun.elapsed() < PROMPTLY, "{version} {target}: {:?}", begun.elapsed());
                refused += 1;
                let line = relay.says_times("refused", refused).await;
                let why = if target.is_empty() { "no token is shown" } else { why };
                assert!(line.contains(why), "{version}: {line} lacks {why}");
            }
        }
    }
    let log = relay.log();
    assert!(!log.iter().any(|line| line.contains("jwt") || line.contains("nonsense")), "{log:#?}");
    // Nobody came twice.
    let came = log.iter().filter(|line| line.contains("refused")).count();
    assert_eq!(came, refused);
    relay.stop().await.expect_success();
}

/// Everybody watches, who has a token publishes, and that below its root alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrow_token_opens_what_it_says() {
    let issuer = Issuer::new("k1");
    let keys = Keys::new("narrow", &[("k1", &issuer)]);
    let file = keys.file("k1");
    let args = ["--auth-key", &file, "--auth-public-subscribe", "live/**"];
    let relay = Relay::guarded(2, &args).await;
    let ways = [(LITE_05, relay.clone()), (LITE_06, relay.clone()), (LITE_03, relay.web())];
    for (round, (version, way)) in ways.into_iter().enumerate() {
        let target = issuer.dials("/live/rooms", "live/rooms/1", &["alice/**"], &[], None);
        let publisher = Peer::connect(&way.at(&target), version, Role::Publisher).await;
        let mut viewer = Peer::connect(&relay.web().at("/live"), LITE_06, Role::Viewer).await;
        // What is outside is not asked for, and the session goes on.
        let _outside = publisher.announce("1/bob", &[TRACK]);
        let _beside = publisher.announce("1/alice-b", &[TRACK]);
        let line = relay.says_times("publisher accepted", 2 * round + 1).await;
        assert!(line.contains("publish=\"1/alice/**\" subscribe="), "{line}");
        let mut inside = publisher.announce("1/alice/cam", &[TRACK]);
        viewer.sees("rooms/1/alice/cam").await;
        // What cannot be asked for apart from the rest is ignored. The publisher is not told, the operator is.
        let target = issuer.dials("/live/rooms", "live/rooms/1", &["*/screen"], &[], None);
        let other = Peer::connect(&way.at(&target), version, Role::Publisher).await;
        let _outside = other.announce("1/zoe/cam", &[TRACK]);
        let line = relay.says_times("publishes what it may not", round + 1).await;
        assert!(line.contains("path=\"live/rooms/1/zoe/cam\""), "{line}");
        let script = Script::new(SEED, 0, 1, &[10, 5000]);
        inside.publish(TRACK, &script);
        let mut view = viewer.subscribe("rooms/1/alice/cam", TRACK).await.expect("a subscription");
        view.expect(version, &script, carries_timestamps(version)).await;
        assert!(publisher.connected());

        // One that is to watch this alone hears of nothing else.
        let reads = issuer.dials("/", "live/rooms/1", &[], &["alice/*"], None);
        let mut narrow = Peer::connect(&relay.at(&reads), LITE_06, Role::Viewer).await;
        narrow.sees("live/rooms/1/alice/cam").await;
        let mut view = narrow.subscribe("live/rooms/1/alice/cam", TRACK).await.expect("granted");
        view.expect(version, &script, carries_timestamps(version)).await;
        let _hidden = publisher.announce("1/alice/deep/cam", &[TRACK]);
        viewer.sees("rooms/1/alice/deep/cam").await;
        let last = publisher.announce("1/alice/last", &[TRACK]);
        viewer.sees("rooms/1/alice/last").await;
        narrow.sees("live/rooms/1/alice/last").await;
        last.close();
        narrow.loses("live/rooms/1/alice/last").await;
        viewer.loses("rooms/1/alice/last").await;

        let token = issuer.token("live/rooms", &[], &["1/alice/*"], None);
        let address = relay.address();
        get(address, &format!("/announced?jwt={token}"))
            .await
            .expect(200, "live/rooms/1/alice/cam\n");
        get(address, "/announced/live/rooms/1").await.expect(200, "alice/cam\nalice/deep/cam\n");
        get(address, "/announced?jwt=x").await.refuses(401, "not a JWT");
        let line = relay.says_times("path=\"/announced\" reason=", round + 1).await;
        assert!(line.contains(" refused remote=127.0.0.1:"), "{line}");
        assert!(line.contains("not a JWT") && !line.contains("jwt="), "{line}");
        let group = format!("/fetch/live/rooms/1/alice/cam/video?group=0&jwt={token}");
        assert_eq!(get(address, &group).await.status, 200);
        let deep = format!("/fetch/live/rooms/1/alice/deep/cam/video?jwt={token}");
        get(address, &deep).await.refuses(401, "grants nothing");
        for peer in [publisher, viewer, narrow, other] {
            peer.leave().await;
        }
    }
    relay.stop().await.expect_success();
}

/// A session that lives ends in the second that its token says, and the client does not come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_session_ends_with_its_token() {
    let issuer = Issuer::new("k1");
    let keys = Keys::new("expires", &[("k1", &issuer)]);
    let relay = Relay::guarded(2, &["--auth-key-dir", keys.path()]).await;
    for (version, way) in [(LITE_05, relay.clone()), (LITE_06, relay.web())] {
        let ends = unix().as_secs() as i64 + 3;
        let target = issuer.dials("", "", &["**"], &["**"], Some(ends));
        let peer = Peer::connect(&way.at(&target), version, Role::Both).await;
        let _channel = peer.announce("live/cam", &[TRACK]);
        let dials =
            tokio::spawn(
                async move { (Peer::turned_away(&way.at(&target), version).await, unix()) },
            );
        let error = peer.ended().await;
        let ended = unix();
        assert!(error.is_auth(), "{version}: {error}");
        let end = Duration::from_secs(ends as u64);
        assert!(
            (end..end + Duration::from_millis(500)).contains(&ended),
            "{version}: {ended:?} {end:?}"
        );
        // The one that would have dialled again knows that it is of no use.
        let (error, gave_up) = dials.await.expect("it ends");
        assert!(error.is_auth(), "{version}: {error}");
        assert!(
            (end..end + Duration::from_millis(900)).contains(&gave_up),
            "{version}: {gave_up:?}"
        );
    }
    relay.stop().await.expect_success();
}

/// A key is removed: its hundred sessions end, and nobody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_when_their_key_is_removed() {
    const SESSIONS: usize = 100;
    let (gone, stays) = (Issuer::new("gone"), Issuer::new("stays"));
    let keys = Keys::new("removed", &[("gone", &gone), ("stays", &stays)]);
    let relay = Relay::guarded(2, &["--auth-key-dir", keys.path()]).await;
    let watches = |issuer: &Issuer| issuer.dials("", "", &[], &["**"], None);
    let audience = [(LITE_05, relay.clone()), (LITE_06, relay.web()), (LITE_06, relay.clone())];
    let audience = audience.map(|(version, way)| (version, way.at(&watches(&stays))));
    let publishes = relay.at(&stays.dials("", "", &["**"], &[], None));
    let mut show = Show::with_viewers(&publishes, "live/cam", audience).await;
    let mut leaves = Vec::new();
    for number in 0..SESSIONS {
        let way = if number.is_multiple_of(2) { relay.clone() } else { relay.web() };
        let way = way.at(&watches(&gone));
        leaves.push(Peer::connect(&way, [LITE_05, LITE_06][number / 2 % 2], Role::Viewer).await);
    }
    show.flow.more(20).await;
    keys.remove("gone");
    let removed = Instant::now();
    for peer in &leaves {
        let error = peer.ended().await;
        assert!(error.is_auth(), "{error}");
    }
    println!("gone after {:?}", removed.elapsed());
    assert!(removed.elapsed() < REMOVED_WITHIN, "{:?}", removed.elapsed());
    show.flow.more(100).await;
    // Every group, and nothing twice.
    show.close().await;
    relay.stop().await.expect_success();
}

/// A file that is no key changes nothing, and the log says which one it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_changes_nothing() {
    let (first, second) = (Issuer::new("k1"), Issuer::new("k1"));
    let keys = Keys::new("bad", &[("k1", &first)]);
    let relay = Relay::guarded(2, &["--auth-key-dir", keys.path()]).await;
    let watches = |issuer: &Issuer| relay.at(&issuer.dials("", "", &[], &["**"], None));
    let before = Peer::connect(&watches(&first), LITE_06, Role::Viewer).await;
    keys.write("k1", &second.jwk()[..40]);
    let line = relay.says("keys cannot be used").await;
    assert!(line.contains("k1.jwk") && !line.contains(&second.jwk()[30..40]), "{line}");
    assert!(before.connected());
    let after = Peer::connect(&watches(&first), LITE_06, Role::Viewer).await;
    assert!(Peer::turned_away(&watches(&second), LITE_06).await.is_auth());
    keys.write("k1", second.jwk());
    assert!(before.ended().await.is_auth() && after.ended().await.is_auth());
    Peer::connect(&watches(&second), LITE_06, Role::Viewer).await.leave().await;
    relay.stop().await.expect_success();
}

/// While other keys come and go all the time nobody is refused whose key is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_while_clients_come() {
    const SWAPS: usize = 1000;
    const CLIENTS: usize = 100;
    // Of the looks that the relay takes, a third or so find what was there at the one before.
    const SEEN: usize = 5;
    let (stays, others) = (Issuer::new("stays"), [Issuer::new("other"), Issuer::new("other")]);
    let keys = Keys::new("rotated", &[("stays", &stays)]);
    let relay = Relay::guarded(2, &["--auth-key-dir", keys.path()]).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let swapping = {
        let is_over = is_over.clone();
        tokio::spawn(async move {
            let mut swaps = 0;
            while swaps < SWAPS || !is_over.load(Ordering::Relaxed) {
                match swaps % 3 {
                    2 => keys.remove("other"),
                    n => keys.write("other", others[n].jwk()),
                }
                swaps += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            keys
        })
    };
    for number in 0..CLIENTS {
        let way = if number.is_multiple_of(2) { relay.clone() } else { relay.web() };
        let way = way.at(&stays.dials("", "", &[], &["**"], None));
        let peer = Peer::connect(&way, [LITE_05, LITE_06][number / 2 % 2], Role::Viewer).await;
        assert!(peer.connected());
        peer.leave().await;
    }
    relay.says_times("other keys", SEEN).await;
    is_over.store(true, Ordering::Relaxed);
    let _keys = swapping.await.expect("it does not panic");
    let log = relay.log();
    assert!(
        !log.iter().any(|line| line.contains("refused") || line.contains("cannot be used")),
        "{log:#?}"
    );
    relay.stop().await.expect_success();
}

/// A client that finds no room dials again, and is let in once another one has left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_no_room_comes_back_when_there_is_some() {
    let issuer = Issuer::new("k1");
    let keys = Keys::new("room", &[("k1", &issuer)]);
    let relay = Relay::guarded(2, &["--auth-key-dir", keys.path(), "--limit-token", "1"]).await;
    let mut refused = 0;
    for (version, way) in
        [(LITE_05, relay.clone()), (LITE_06, relay.clone()), (LITE_03, relay.web())]
    {
        let target = issuer.dials("/rooms", "rooms", &[], &["**"], None);
        let first = Peer::connect(&way.at(&target), version, Role::Viewer).await;
        // Another token is another client.
        let other = issuer.dials("/rooms", "rooms", &["**"], &[], None);
        let publisher = Peer::connect(&way.at(&other), version, Role::Publisher).await;
        let _cam = publisher.announce("cam", &[TRACK]);
        let there = way.at(&target);
        let second = tokio::spawn(async move { Peer::insists(&there, version, "cam").await });
        refused += 1;
        let line = relay.says_times("refused", refused).await;
        assert!(line.contains("--limit-token"), "{line}");
        assert!(!second.is_finished() && first.connected());
        // Soon, for it dials at ever longer distances.
        first.leave().await;
        second.await.expect("it is let in");
        publisher.leave().await;
        // It may have dialled more than once meanwhile.
        refused = relay.log().iter().filter(|line| line.contains(" refused ")).count();
    }
    relay.stop().await.expect_success();
}
