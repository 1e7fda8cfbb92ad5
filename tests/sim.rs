//! The relay under a virtual clock: shards, mail and QUIC as they are, network and peers as a
//! seed makes them. Every play is exact: the same seed gives the same history.
//!
//! `SIM_SEEDS=5000` plays more of the random play, `SIM_SEED=17` one of it, `SIM_REPLAYED=1` each of it
//! twice, `SIM_TRACE=1` prints what happens.

mod support {
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod http3;
    pub mod network;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod peer;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod world;
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use quinn_proto::Dir;
use shardcast::limits::{
    GROUPS_PER_TRACK_MAX, LINGER_DEFAULT, READERS_PER_TURN, SETUP_TIMEOUT, TURN_INTERVAL_MIN,
    TURN_INTERVAL_QUIET,
};
use shardcast::quic::CongestionControl;
use shardcast::route::Takeover;
use shardcast::shard::{CacheBounds, Held};
use shardcast::wire::*;
use support::network::{Random, Weather};
use support::peer::*;
use support::world::*;

const PATH: &str = "live/cam";
const TRACK: &str = "video";

const VERSIONS: [Version; 6] = Version::ALL;
use Version::{Lite01, Lite02, Lite03, Lite04, Lite05, Lite06};

/// Raw QUIC, and WebTransport.
const TRANSPORTS: [Option<Manner>; 2] = [None, Some(Manner { is_eager: false, is_second: false })];

/// Seeds of the random play in an ordinary run.
const SEEDS: u64 = 1000;

/// One in this many seeds is played twice, and its histories are compared.
const REPLAYED: u64 = 8;

/// Empty, minimal, one datagram, several.
const SIZES: [usize; 5] = [0, 1, 900, 0, 5000];

fn world(shards: usize) -> World {
    World::new(Stage::new(1, shards))
}

// ---- who gets what ----

#[test]
fn a_group_reaches_a_viewer_wherever_publisher_home_and_viewer_live() {
    for shards in 1..=3 {
        for (at, home) in (0..shards).flat_map(|at| (0..shards).map(move |home| (at, home))) {
            let mut w = world(shards);
            let track = homed(PATH, home, shards);
            let cam = w.publisher(Lite06, at, PATH, &track);
            let ann = w.viewer(Lite06, shards - 1);
            let sub = w.subscribe(ann, PATH, &track, live());
            w.run(ms(200));
            w.all_settled();
            w.group(cam, 0, &[10, 0, 2000, 7]);
            w.group(cam, 1, &[1, 300]);
            w.run(ms(300));
            w.finish(cam, 2);
            w.run(ms(300));
            assert_eq!(w.got_sorted(sub), [0, 1], "{shards} shards, publisher {at}, home {home}");
            assert_eq!(w.sub(sub).start, Some(0));
            assert_eq!(w.sub(sub).track_end, Some(2));
            assert_eq!(w.sub(sub).end, Some(End::Finished));
            w.end();
        }
    }
}

/// Pings and their acknowledgements may wait for each other; a handshake and content do not.
#[test]
fn shards_that_hear_nothing_take_their_time() {
    const BRISK: [Duration; 2] = [TURN_INTERVAL_MIN; 2];
    const CROWD: u32 = 30;
    let mut w = world(2);
    // Few need not wait for each other.
    assert_eq!(w.paces(), BRISK);
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    let ann = w.viewer(Lite06, 1);
    for _ in 1..CROWD {
        w.viewer(Lite06, 0);
        w.viewer(Lite05, 1);
    }
    let quiet = [CROWD * TURN_INTERVAL_QUIET; 2];
    assert!(quiet[0] > TURN_INTERVAL_MIN);
    let sub = w.subscribe(ann, PATH, TRACK, live());
    w.run(ms(200));
    w.all_settled();
    assert_eq!(w.paces(), BRISK);
    // Everybody pings several times.
    w.run(ms(9000));
    assert_eq!(w.paces(), quiet);
    w.group(cam, 0, &[100]);
    w.run(ms(100));
    assert_eq!((w.got(sub).len(), w.paces()), (1, BRISK.to_vec()));
    w.end();
}

#[test]
fn every_version_hears_every_version() {
    let versions = VERSIONS.into_iter().flat_map(|from| VERSIONS.map(|to| (from, to)));
    for (from, to) in versions {
        for [here, there] in TRANSPORTS.iter().flat_map(|a| TRANSPORTS.map(|b| [*a, b])) {
            let mut w = world(2);
            let spec = Spec { web: here, ..Spec::new(from, 0).hop(7) };
            let cam = w.publisher_like(spec, PATH, TRACK);
            let ann = w.join(Spec { web: there, ..Spec::new(to, 1) });
            let sub = w.subscribe(ann, PATH, TRACK, live());
            w.run(ms(200));
            w.all_settled();
            w.group(cam, 0, &SIZES);
            w.run(ms(100));
            w.group(cam, 1, &[]);
            w.run(ms(100));
            w.group(cam, 2, &SIZES);
            w.run(ms(300));
            assert_eq!(w.got_sorted(sub), [0, 1, 2], "from {from} to {to}");
            w.finish(cam, 3);
            w.run(ms(6000));
            assert_eq!(w.sub(sub).end, Some(End::Finished), "from {from} to {to}");
            w.end();
        }
    }
}

#[test]
fn large_frames_pass_whole() {
    for lanes in [1024, 2] {
        let mut w = World::new(Stage { lanes, ..Stage::new(1, 3) });
        let track = homed(PATH, 1, 3);
        let cam = w.publisher(Lite05, 0, PATH, &track);
        let viewers = VERSIONS.map(|version| w.viewer(version, 2));
        let subs = viewers.map(|viewer| w.subscribe(viewer, PATH, &track, live()));
        w.run(ms(200));
        w.all_settled();
        w.group(cam, 0, &[300 << 10, 0, 64 << 10, 1]);
        w.group(cam, 1, &[0, 0, 100 << 10]);
        w.run(ms(3000));
        for sub in subs {
            assert_eq!(w.got_sorted(sub), [0, 1]);
        }
        w.end();
    }
}

#[test]
fn frames_flow_before_their_group_ends_and_groups_overlap() {
    let mut w = world(2);
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    let subs = VERSIONS.map(|version| {
        let viewer = w.viewer(version, 1);
        w.subscribe(viewer, PATH, TRACK, live())
    });
    w.run(ms(200));
    w.all_settled();
    w.open_group(cam, 0);
    w.frame(cam, 0, 100);
    w.run(ms(50));
    w.open_group(cam, 1);
    w.frame(cam, 1, 10);
    w.frame(cam, 0, 50);
    w.run(ms(50));
    for sub in subs {
        assert_eq!(w.sub(sub).groups[&0].frames.len(), 2);
        assert_eq!(w.sub(sub).groups[&1].frames.len(), 1);
    }
    w.end_group(cam, 1, End::Finished);
    w.run(ms(50));
    w.frame(cam, 0, 0);
    w.end_group(cam, 0, End::Finished);
    w.run(ms(50));
    for sub in subs {
        assert_eq!(w.got(sub), [0, 1]);
    }
    w.end();
}

#[test]
fn a_group_that_its_publisher_resets_is_reset_with_the_same_code() {
    for (code, relayed) in [(0x34, 0x34), (0x41, 0x41), (0x5, 0x5), (0x2a, 0)] {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let subs = VERSIONS.map(|version| {
            let viewer = w.viewer(version, 1);
            w.subscribe(viewer, PATH, TRACK, live())
        });
        w.run(ms(200));
        w.open_group(cam, 0);
        w.frame(cam, 0, 100);
        w.run(ms(100));
        // What the source says is what the viewer must see; on the wire goes the other code.
        w.end_group(cam, 0, End::Reset(code));
        w.run(ms(1));
        w.end_group(cam, 0, End::Reset(relayed));
        w.group(cam, 1, &[1]);
        w.run(ms(300));
        for sub in subs {
            assert_eq!(w.sub(sub).groups[&0].end, Some(End::Reset(relayed)), "{code:#x}");
            assert_eq!(w.got(sub), [1]);
        }
        w.end();
    }
}

#[test]
fn a_late_joiner_gets_the_newest_group_and_on_lite_06_what_its_max_age_covers() {
    let aged = |max_age_ms| Preferences { max_age_ms, ..live() };
    let table: [(Version, Preferences, &[u64]); 9] = [
        (Lite01, live(), &[4, 5]),
        (Lite02, live(), &[4, 5]),
        (Lite03, live(), &[4, 5]),
        (Lite05, live(), &[4, 5]),
        (Lite06, live(), &[0, 1, 2, 3, 4, 5]),
        (Lite06, aged(2500), &[1, 2, 3, 4, 5]),
        (Lite06, aged(0), &[4, 5]),
        (Lite05, range(2, None), &[2, 3, 4, 5]),
        (Lite06, range(2, 3), &[2, 3]),
    ];
    for (version, wanted, expect) in table {
        for home in 0..2 {
            let mut w = world(2);
            let track = homed(PATH, home, 2);
            let cam = w.publisher(Lite06, 0, PATH, &track);
            let ann = w.viewer(Lite06, 0);
            w.subscribe(ann, PATH, &track, live());
            w.run(ms(200));
            (0..5).for_each(|sequence| w.group(cam, sequence, &[5]));
            w.run(ms(200));
            let bob = w.viewer(version, 1);
            let sub = w.subscribe(bob, PATH, &track, wanted);
            w.run(ms(200));
            w.groups_expire = wanted.max_age_ms < AGES;
            w.group(cam, 5, &[5]);
            w.run(ms(200));
            assert_eq!(w.got_sorted(sub), expect, "{version} {wanted:?}");
            w.end();
        }
    }
}

/// A track that has so many old groups of this size at its home, where somebody has had them all.
const OLD: u64 = 10;
const OLD_BYTES: usize = 4_000;

fn cached(home: usize) -> (World, Track, String) {
    let mut w = world(2);
    let track = homed(PATH, home, 2);
    let cam = w.publisher(Lite06, home, PATH, &track);
    let ann = w.viewer(Lite05, home);
    let all = w.subscribe(ann, PATH, &track, range(0, None));
    w.run(ms(200));
    (0..OLD).for_each(|sequence| w.group(cam, sequence, &[OLD_BYTES]));
    w.run(ms(200));
    assert_eq!(w.got(all).len() as u64, OLD);
    (w, cam, track)
}

/// How many of these groups have come to a shard, which holds no others.
#[track_caller]
fn brought(w: &World, shard: usize) -> u64 {
    let brought = w.counters(shard).frames_total;
    let held = w.held()[shard].cache_bytes as f64 / (brought * OLD_BYTES as u64) as f64;
    // Twice their bytes where somebody is served the encoding without timestamps, and what pieces cost.
    assert!((1.0..2.2).contains(&held), "{held}");
    brought
}

#[test]
fn a_mirror_is_told_of_what_its_viewers_can_see() {
    let aged = |max_age_ms| Preferences { max_age_ms, ..live() };
    let table: [(Version, Preferences, u64); 8] = [
        (Lite01, live(), 9),
        (Lite03, live(), 9),
        (Lite04, range(7, None), 7),
        (Lite05, live(), 9),
        (Lite05, range(4, None), 4),
        (Lite06, aged(0), 9),
        (Lite06, aged(2500), 6),
        (Lite06, live(), 0),
    ];
    for (version, wanted, first) in table {
        for (other, past) in [(Lite03, 0), (Lite05, 2), (Lite06, 0)] {
            for home in 0..2 {
                let context = format!("{version} {wanted:?}, then {other} from {past}");
                let (mut w, cam, track) = cached(home);
                let there = 1 - home;
                let bob = w.viewer(version, there);
                let near = w.subscribe(bob, PATH, &track, wanted);
                w.run(ms(200));
                assert_eq!(w.got_sorted(near), (first..OLD).collect::<Vec<_>>(), "{context}");
                assert_eq!(brought(&w, there), OLD - first, "{context}");

                // Somebody else there wants more, while the track goes on.
                w.groups_expire = wanted.max_age_ms < AGES;
                let cyd = w.viewer(other, there);
                w.group(cam, OLD, &[OLD_BYTES]);
                let far = w.subscribe(cyd, PATH, &track, range(past, None));
                w.group(cam, OLD + 1, &[OLD_BYTES]);
                w.run(ms(200));
                assert_eq!(w.got_sorted(far), (past..OLD + 2).collect::<Vec<_>>(), "{context}");
                assert_eq!(w.got_sorted(near), (first..OLD + 2).collect::<Vec<_>>(), "{context}");
                assert_eq!(brought(&w, there), OLD + 2 - first.min(past), "{context}");
                w.end();
            }
        }
    }
}

#[test]
fn demand_that_widens_bit_by_bit_brings_each_group_to_a_mirror_once() {
    let aged = |seconds: u64| Preferences { max_age_ms: 1000 * seconds, ..live() };
    for version in [Lite04, Lite05, Lite06] {
        for pause in [ms(0), ms(1), ms(50)] {
            let (mut w, cam, track) = cached(0);
            let bob = w.viewer(version, 1);
            let narrow = if version >= Lite06 { aged(0) } else { live() };
            let sub = w.subscribe(bob, PATH, &track, narrow);
            w.run(ms(200));
            assert_eq!((w.got(sub), brought(&w, 1)), (vec![9], 1), "{version}");
            // Back and forth, further each time.
            for seconds in 1..=OLD {
                let wider =
                    if version >= Lite06 { aged(seconds) } else { range(OLD - seconds, None) };
                w.update(sub, wider);
                w.run(pause);
                w.update(sub, narrow);
                w.run(pause);
                w.update(sub, wider);
            }
            w.run(ms(200));
            assert_eq!(w.got_sorted(sub), (0..OLD).collect::<Vec<_>>(), "{version}");
            assert_eq!(brought(&w, 1), OLD, "{version}");
            w.group(cam, OLD, &[OLD_BYTES]);
            w.run(ms(200));
            assert_eq!(brought(&w, 1), OLD + 1, "{version}");
            w.end();
        }
    }
}

#[test]
fn an_old_group_that_still_grows_reaches_a_mirror_whole() {
    for version in VERSIONS.into_iter().filter(|version| *version >= Lite03) {
        let mut w = world(2);
        let track = homed(PATH, 0, 2);
        let cam = w.publisher(Lite06, 0, PATH, &track);
        let (ann, bob) = (w.viewer(Lite05, 0), w.viewer(Lite05, 1));
        w.subscribe(ann, PATH, &track, range(0, None));
        w.run(ms(200));
        w.open_group(cam, 0);
        w.frame(cam, 0, 100);
        w.run(ms(20));
        (1..4).for_each(|sequence| w.group(cam, sequence, &[9]));
        w.run(ms(200));
        let near = w.subscribe(bob, PATH, &track, live());
        w.run(ms(100));
        assert_eq!(w.sub(near).arrivals, [3]);
        w.frame(cam, 0, 200);
        w.run(ms(100));
        let cyd = w.viewer(version, 1);
        let far = w.subscribe(cyd, PATH, &track, range(0, None));
        w.run(ms(100));
        assert_eq!(w.sub(far).groups[&0].frames.len(), 2, "{version}");
        w.frame(cam, 0, 300);
        w.end_group(cam, 0, End::Finished);
        w.run(ms(100));
        assert_eq!(w.got_sorted(far), [0, 1, 2, 3], "{version}");
        assert_eq!(w.sub(near).arrivals, [3], "{version}");
        w.end();
    }
}

/// Its end is known before what it asks for has come.
#[test]
fn who_asks_a_mirror_for_the_past_of_a_track_that_has_ended_gets_it() {
    for version in [Lite04, Lite05] {
        let (mut w, cam, track) = cached(0);
        let bob = w.viewer(version, 1);
        let sub = w.subscribe(bob, PATH, &track, range(8, 8));
        w.run(ms(200));
        w.finish(cam, OLD);
        w.run(ms(6000));
        // One group waits above its end.
        assert_eq!((w.got_sorted(sub), w.sub(sub).end), (vec![8], None), "{version}");
        w.update(sub, range(0, None));
        w.run(ms(200));
        assert_eq!(w.got_sorted(sub), (0..OLD).collect::<Vec<_>>(), "{version}");
        assert_eq!(w.sub(sub).end, Some(End::Finished), "{version}");
        w.end();
    }
}

#[test]
fn frame_bounds_are_served_to_the_frame() {
    let mut w = world(2);
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    let ann = w.viewer(Lite06, 1);
    let wanted = Preferences { frame_start: 2, frame_end: Some(1), ..range(1, 3) };
    let sub = w.subscribe(ann, PATH, TRACK, wanted);
    w.run(ms(200));
    (0..5).for_each(|sequence| w.group(cam, sequence, &[3, 4, 5, 6]));
    w.run(ms(300));
    assert_eq!(w.got_sorted(sub), [1, 2, 3]);
    let frames = |sequence| {
        let seen = &w.sub(sub).groups[&sequence];
        (seen.frame_start, seen.frames.len())
    };
    assert_eq!([1, 2, 3].map(frames), [(2, 2), (0, 4), (0, 2)]);
    w.end();
}

#[test]
fn a_track_that_ends_without_a_group_ends() {
    for version in VERSIONS {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let ann = w.viewer(version, 1);
        let sub = w.subscribe(ann, PATH, TRACK, live());
        w.run(ms(200));
        w.finish(cam, 0);
        w.run(ms(300));
        let known = w.sub(sub);
        assert_eq!((known.start, known.end), (None, Some(End::Finished)), "{version}");
        w.end();
    }
}

#[test]
fn a_publisher_that_says_fin_early_still_owes_its_groups() {
    for seed in 0..8 {
        let mut w = World::new(Stage::new(seed, 2));
        let weather = Weather { jitter: ms(40), lost_up: 100, ..Weather::FAIR };
        let spec = Spec { is_hasty: true, weather, ..Spec::new(Lite05, 0).hop(9) };
        let peer = w.join(spec);
        w.peers[peer].announce(PATH, &[], Cost::ZERO);
        let cam = w.track(peer, PATH, TRACK);
        w.run(ms(2000));
        let ann = w.viewer(Lite05, 1);
        let sub = w.subscribe(ann, PATH, TRACK, live());
        w.run(ms(3000));
        w.all_settled();
        (0..6).for_each(|sequence| w.group(cam, sequence, &[3000, 10]));
        w.finish(cam, 6);
        w.run(ms(12_000));
        assert_eq!(w.got_sorted(sub), [0, 1, 2, 3, 4, 5]);
        assert_eq!(w.sub(sub).end, Some(End::Finished));
        w.end();
    }
}

/// A publisher that drops its track, or hangs up, takes nothing back of what it has brought whole,
/// however far that has come on its way to viewers.
#[test]
fn what_came_whole_is_delivered_though_its_publisher_gives_up() {
    let ways: [fn(&mut World, Track); 2] =
        [|w, cam| w.break_off(cam, End::Reset(0x41), false), |w, cam| w.hang_up(cam.peer)];
    for (version, gives_up) in VERSIONS.into_iter().flat_map(|v| ways.map(|way| (v, way))) {
        for home in 0..2 {
            let mut w = world(2);
            let track = homed(PATH, home, 2);
            let cam = w.publisher(version, 0, PATH, &track);
            let far = Weather { latency: ms(200), ..Weather::FAIR };
            let ann = w.join(Spec { weather: far, ..Spec::new(version, 1) });
            let sub = w.subscribe(ann, PATH, &track, live());
            w.run(ms(1500));
            // The viewer's congestion window takes a small part of each.
            (0..3).for_each(|sequence| w.group(cam, sequence, &[100 << 10]));
            w.run(ms(300));
            w.open_group(cam, 3);
            w.frame(cam, 3, 10);
            w.run(ms(100));
            assert!(w.got(sub).is_empty(), "{version}: too early to show anything");
            gives_up(&mut w, cam);
            w.run(ms(6000));
            assert_eq!(w.got_sorted(sub), [0, 1, 2], "{version}, home {home}");
            assert!(matches!(w.sub(sub).end, Some(End::Reset(_))), "{version}, home {home}");
            w.end();
        }
    }
}

// ---- what the publisher sees ----

#[test]
fn a_publisher_sees_one_subscription_that_follows_the_merged_demand() {
    let mut w = world(3);
    let track = homed(PATH, 1, 3);
    let cam = w.publisher(Lite06, 0, PATH, &track);
    let viewers: Vec<usize> = (0..3).map(|shard| w.viewer(Lite06, shard)).collect();
    let loud = |wanted| Preferences { priority: 200, ..wanted };
    let check = |w: &mut World, expect: &[Asked]| {
        w.run(ms(200));
        assert_eq!(w.asked(cam.peer), expect);
    };

    let one = w.subscribe(viewers[0], PATH, &track, live());
    check(&mut w, &[Asked::Track(track.clone()), Asked::Subscribe(track.clone(), live())]);
    // Nothing that one without bounds has not asked for already.
    let two = w.subscribe(viewers[1], PATH, &track, range(5, 9));
    check(&mut w, &[]);
    w.leave(one);
    check(&mut w, &[Asked::Update(range(5, 9))]);
    let three = w.subscribe(viewers[2], PATH, &track, loud(range(3, 20)));
    check(&mut w, &[Asked::Update(loud(range(3, 20)))]);
    w.update(three, range(4, 12));
    check(&mut w, &[Asked::Update(range(4, 12))]);
    w.update(two, range(8, None));
    check(&mut w, &[Asked::Update(range(4, None))]);
    w.update(two, range(8, 9));
    check(&mut w, &[Asked::Update(range(4, 12))]);
    w.leave(two);
    check(&mut w, &[]);
    // An end below the start is no demand.
    let pause = Asked::Update(Preferences { priority: 0, ..range(None, 0) });
    w.update(three, range(4, 3));
    check(&mut w, std::slice::from_ref(&pause));
    w.update(three, range(4, 5));
    check(&mut w, &[Asked::Update(range(4, 5))]);
    w.leave(three);
    check(&mut w, &[pause]);
    w.run(LINGER_DEFAULT);
    check(&mut w, &[Asked::Unsubscribe]);
    w.end();
}

#[test]
fn bounds_that_move_bring_every_group_once() {
    for version in [Lite04, Lite05, Lite06] {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let (ann, bob) = (w.viewer(Lite06, 0), w.viewer(version, 1));
        w.subscribe(ann, PATH, TRACK, live());
        let sub = w.subscribe(bob, PATH, TRACK, range(2, 3));
        w.run(ms(200));
        (0..6).for_each(|sequence| w.group(cam, sequence, &[9]));
        w.run(ms(200));
        assert_eq!(w.got_sorted(sub), [2, 3]);
        w.update(sub, range(1, 4));
        w.run(ms(200));
        assert_eq!(w.got_sorted(sub), [1, 2, 3, 4]);
        w.update(sub, range(2, 2));
        w.group(cam, 6, &[9]);
        w.run(ms(200));
        assert_eq!(w.got_sorted(sub), [1, 2, 3, 4]);
        w.update(sub, range(1, None));
        w.run(ms(200));
        assert_eq!(w.got_sorted(sub), [1, 2, 3, 4, 5, 6]);
        w.end();
    }
}

#[test]
fn groups_above_the_end_keep_a_subscription_open() {
    let mut w = world(2);
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    let ann = w.viewer(Lite05, 1);
    let sub = w.subscribe(ann, PATH, TRACK, range(0, 1));
    // Another viewer has the relay ask for all of it.
    let bob = w.viewer(Lite05, 0);
    let all = w.subscribe(bob, PATH, TRACK, range(0, None));
    w.run(ms(200));
    (0..4).for_each(|sequence| w.group(cam, sequence, &[9]));
    w.finish(cam, 4);
    w.run(ms(500));
    assert_eq!(w.sub(all).end, Some(End::Finished));
    assert_eq!((w.got_sorted(sub), w.sub(sub).end), (vec![0, 1], None));
    w.update(sub, range(0, None));
    w.run(ms(500));
    assert_eq!((w.got_sorted(sub), w.sub(sub).end), (vec![0, 1, 2, 3], Some(End::Finished)));
    w.end();
}

/// What the relay does is counted in groups that it looks at.
#[test]
fn a_place_in_a_long_track_costs_little_however_often_it_is_asked_for() {
    const GROUPS: u64 = 2000;
    const ASKED: u64 = 300;
    const NEW: u64 = 10;
    /// To find a place among so many, and to serve what is there.
    const LOOKS_EACH: u64 = 30;
    for version in [Lite05, Lite06] {
        let mut w = world(1);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        w.source(cam).info = TrackInfo { priority: 0, max_age_ms: u64::MAX >> 2, timescale: 1000 };
        let (ann, eve) = (w.viewer(Lite06, 0), w.viewer(version, 0));
        let all = w.subscribe(ann, PATH, TRACK, range(0, None));
        w.run(ms(200));
        for sequence in 0..GROUPS {
            w.group(cam, sequence, &[1]);
            if sequence % 100 == 0 {
                w.run(ms(20));
            }
        }
        w.run(ms(1000));
        assert_eq!(w.got(all).len() as u64, GROUPS);
        w.all_settled();

        let before = w.counters(0).groups_looked_at_total;
        // What has not come yet, then a single group anywhere, then what only age decides.
        let future = range(GROUPS * 2, None);
        let mut subs = Vec::new();
        while (subs.len() as u64) < ASKED {
            subs.extend((0..5).map(|_| w.subscribe(eve, PATH, TRACK, future)));
            w.run(ms(50));
        }
        for (n, sub) in (0..).zip(&subs) {
            let group = n * (GROUPS / ASKED);
            w.update(*sub, range(group, group));
            w.run(ms(2));
            let max_age_ms = n * 7000;
            w.update(*sub, Preferences { group_end: Some(0), max_age_ms, ..live() });
            if n % (ASKED / NEW) == 0 {
                w.group(cam, GROUPS + n * NEW / ASKED, &[1]);
            }
            w.run(ms(2));
        }
        w.run(ms(1000));
        let looked_at = w.counters(0).groups_looked_at_total - before;
        let bound = (3 * ASKED + NEW * ASKED) * LOOKS_EACH;
        assert!(looked_at <= bound, "{version}: {looked_at} are more than {bound}");
        let got = subs.iter().filter(|sub| !w.got(**sub).is_empty()).count();
        assert_eq!(got as u64, ASKED, "{version}");
        assert_eq!(w.got(all).len() as u64, GROUPS + NEW);
        assert_eq!(w.held()[0].subscriptions as u64, ASKED + 1);
        w.end();
    }
}

#[test]
fn a_track_has_so_many_groups_and_the_newest_stay() {
    let mut w = world(2);
    w.groups_expire = true;
    let track = homed(PATH, 0, 2);
    let cam = w.publisher(Lite06, 0, PATH, &track);
    w.source(cam).info = TrackInfo { priority: 0, max_age_ms: u64::MAX >> 2, timescale: 1000 };
    let ann = w.viewer(Lite06, 1);
    let all = w.subscribe(ann, PATH, &track, range(0, None));
    w.run(ms(200));
    w.open_group(cam, 0);
    w.frame(cam, 0, 1);
    let most = GROUPS_PER_TRACK_MAX as u64;
    for sequence in 1..=most {
        w.group(cam, sequence, &[]);
        if sequence % 200 == 0 {
            w.run(ms(20));
        }
    }
    w.run(ms(1000));
    // The first had not ended: it is cut off, and the others are whole.
    assert_eq!(w.sub(all).groups[&0].end, Some(End::Reset(StreamCode::OLD.0)));
    assert_eq!(w.got(all).len() as u64, most);
    assert_eq!(w.counters(0).evicted_groups_total + w.counters(1).evicted_groups_total, 2);
    w.end();
}

#[test]
fn the_last_of_all_numbers_can_be_asked_for() {
    for (publisher, version) in [(Lite05, Lite06), (Lite06, Lite05), (Lite06, Lite06)] {
        let mut w = world(1);
        let cam = w.publisher(publisher, 0, PATH, TRACK);
        let ann = w.viewer(version, 0);
        // No older version can name what can never come.
        let nothing = version == Lite06;
        let nothing = nothing.then(|| w.subscribe(ann, PATH, TRACK, range(VARINT_MAX, None)));
        w.run(ms(200));
        let last = w.subscribe(ann, PATH, TRACK, range(VARINT_MAX - 1, None));
        w.run(ms(200));
        w.open_group(cam, VARINT_MAX - 1);
        w.frame_at(cam, VARINT_MAX - 1, 1, 9);
        w.end_group(cam, VARINT_MAX - 1, End::Finished);
        w.run(ms(200));
        assert_eq!(w.got(last), [VARINT_MAX - 1], "{publisher} to {version}");
        assert!(nothing.is_none_or(|sub| w.sub(sub).groups.is_empty()));
        w.finish(cam, VARINT_MAX);
        w.run(ms(2000));
        assert_eq!(w.sub(last).end, Some(End::Finished));
        w.end();
    }
}

#[test]
fn track_then_subscribe_asks_the_publisher_once() {
    for shard in 0..2 {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        w.source(cam).info = TrackInfo { priority: 3, max_age_ms: 7000, timescale: 90_000 };
        let ann = w.viewer(Lite05, shard);
        let info = w.peers[ann].ask(PATH, TRACK);
        w.run(ms(200));
        let answer = TrackInfo { priority: 3, max_age_ms: 7000, timescale: 90_000 };
        assert_eq!(w.peers[ann].infos[info].answer, Some(Ok(answer)));
        w.subscribe(ann, PATH, TRACK, live());
        w.run(ms(200));
        let wanted = Preferences { max_age_ms: 7000, ..live() };
        let asked = [Asked::Track(TRACK.to_owned()), Asked::Subscribe(TRACK.to_owned(), wanted)];
        assert_eq!(w.asked(cam.peer), asked);
        w.end();
    }
}

#[test]
fn a_viewer_that_returns_makes_the_relay_subscribe_again() {
    for home in 0..2 {
        let mut w = world(2);
        let track = homed(PATH, home, 2);
        let cam = w.publisher(Lite06, 0, PATH, &track);
        let ann = w.viewer(Lite05, 1);
        for round in 0..4 {
            let sub = w.subscribe(ann, PATH, &track, live());
            w.run(ms(200));
            w.all_settled();
            w.group(cam, round * 2, &[100]);
            w.run(ms(100));
            assert_eq!(w.got(sub).last(), Some(&(round * 2)));
            w.open_group(cam, round * 2 + 1);
            w.frame(cam, round * 2 + 1, 10);
            w.run(ms(100));
            w.leave(sub);
            // At once, while news of the old subscription is under way, and later.
            w.run(ms([0, 0, 5, 7000][round as usize]));
        }
        w.run(ms(500));
        w.end();
    }
}

#[test]
fn a_refusal_is_relayed_word_for_word() {
    let codes = [(Lite06, 0x33), (Lite05, 0x41), (Lite03, 0x33), (Lite04, 0x77), (Lite01, 0x41)];
    for (version, code) in codes {
        let mut w = world(2);
        let cam = w.publisher(version, 0, PATH, TRACK);
        w.source(cam).refuses = Some(code);
        for viewer in VERSIONS {
            let ann = w.viewer(viewer, 1);
            let sub = w.subscribe(ann, PATH, TRACK, live());
            w.run(ms(200));
            assert_eq!(w.sub(sub).end, Some(End::Reset(code)), "{version} to {viewer}");
            if viewer >= Lite05 && version >= Lite05 {
                let info = w.peers[ann].ask(PATH, TRACK);
                w.run(ms(200));
                assert_eq!(w.peers[ann].infos[info].answer, Some(Err(code)));
            }
        }
        w.end();
    }
}

#[test]
fn what_nobody_announced_is_unroutable_at_once() {
    let mut w = world(2);
    w.publisher(Lite06, 0, PATH, TRACK);
    let (ann, before) = (w.viewer(Lite05, 1), StreamCode::UNROUTABLE.0);
    let sub = w.subscribe(ann, "live", TRACK, live());
    let info = w.peers[ann].ask("live/camera", TRACK);
    w.run(ms(30));
    assert_eq!(w.sub(sub).end, Some(End::Reset(before)));
    assert_eq!(w.peers[ann].infos[info].answer, Some(Err(before)));
    w.end();
}

#[test]
fn a_route_claims_everything_below_it() {
    let mut w = world(2);
    let cam = w.publisher(Lite06, 0, "room", TRACK);
    let deep = w.track(cam.peer, "room/7/cam", TRACK);
    let ann = w.viewer(Lite06, 1);
    let sub = w.subscribe(ann, "room/7/cam", TRACK, live());
    let none = w.subscribe(ann, "room/8", TRACK, live());
    w.run(ms(200));
    w.group(deep, 0, &[1]);
    w.run(ms(200));
    assert_eq!(w.got(sub), [0]);
    assert_eq!(w.sub(none).end, Some(End::Reset(StreamCode::NOT_FOUND.0)));
    w.end();
}

#[test]
fn paths_are_relative_to_the_path_of_the_session() {
    for web in TRANSPORTS {
        paths_are_relative(web);
    }
}

fn paths_are_relative(web: Option<Manner>) {
    let mut w = world(2);
    let rooted = |version, shard, path: &str| {
        let setup = Setup { path: Some(path.to_owned()), hop: 77, ..Setup::default() };
        Spec { setup, web, ..Spec::new(version, shard) }
    };
    let peer = w.join(rooted(Lite06, 0, "/studio?x=1"));
    w.peers[peer].announce("cam", &[], Cost::ZERO);
    let cam = w.track(peer, "cam", TRACK);
    let ann = w.viewer(Lite05, 1);
    let listen = w.peers[ann].listen("", 0);
    let sub = w.subscribe(ann, "studio/cam", TRACK, live());
    let bob = w.join(Spec {
        setup: Setup { hop: 0, ..rooted(Lite05, 1, "studio/cam").setup },
        ..rooted(Lite05, 1, "studio/cam")
    });
    let same = w.subscribe(bob, "", TRACK, live());
    w.run(ms(200));
    w.group(cam, 0, &[5]);
    w.run(ms(200));
    assert_eq!(w.peers[ann].listens[listen].live(), ["studio/cam"]);
    assert_eq!((w.got(sub), w.got(same)), (vec![0], vec![0]));
    w.end();
}

// ---- announcements ----

#[test]
fn a_listener_hears_the_present_and_then_every_change() {
    // Hops are there from lite-04 on, and name the relay only where the sender appends itself.
    let table: [(Version, &[&str]); 6] = [
        (Lite01, &["+a", "+b/c", ".", "-a", "+a", "-b/c", "-a"]),
        (Lite02, &["+a", "+b/c", ".", "-a", "+a", "-b/c", "-a"]),
        (Lite03, &["+a", "+b/c", "-a", "+a", "-b/c", "-a"]),
        (Lite04, &["+a [7, 1000]", "+b/c [3, 7, 1000]", "-a", "+a [7, 1000]", "-b/c", "-a"]),
        (Lite05, &["+a [7]", "+b/c [3, 7]", ".", "-a", "+a [7]", "~b/c [3, 4, 7]", "-b/c", "-a"]),
        (
            Lite06,
            &["+a [7] 1", "+b/c [3, 7] 1", ".", "-a", "+a [7] 1", "~b/c [3, 4, 7] 5", "-b/c", "-a"],
        ),
    ];
    for (version, expect) in table {
        let mut w = world(2);
        let cam = w.join(Spec::new(Lite06, 0).hop(7));
        w.peers[cam].announce("a", &[], Cost::ZERO);
        w.peers[cam].announce("b/c", &[3], Cost::ZERO);
        w.run(ms(100));
        let ann = w.viewer(version, 1);
        let listen = w.peers[ann].listen("", 0);
        w.run(ms(1000));
        w.peers[cam].unannounce("a");
        w.run(ms(1000));
        w.peers[cam].announce("a", &[], Cost::ZERO);
        w.run(ms(1000));
        w.peers[cam].announce("b/c", &[3, 4], Cost { warm: 4, cold: 4 });
        w.run(ms(1000));
        w.peers[cam].unannounce("b/c");
        w.run(ms(1000));
        w.close(cam);
        w.run(ms(1000));
        assert_eq!(w.peers[ann].listens[listen].heard, expect, "{version}");
        w.end();
    }
}

#[test]
fn a_listener_hears_what_lies_below_its_prefix() {
    let table: [(&str, &[&str]); 8] = [
        ("", &["live/cam", "live/cam/low", "room"]),
        ("live", &["cam", "cam/low"]),
        ("live/cam", &["", "low"]),
        ("liv", &[]),
        ("live/camera", &[]),
        ("room/7", &[""]),
        (".stats", &["relay"]),
        ("live/.test", &[""]),
    ];
    for version in VERSIONS {
        let mut w = world(2);
        let cam = w.join(Spec::new(version, 0).hop(7));
        for path in ["live/cam", "live/cam/low", "room", ".stats/relay", "live/.test"] {
            w.peers[cam].announce(path, &[], Cost::ZERO);
        }
        w.run(ms(100));
        let ann = w.viewer(version, 1);
        let listens = table.map(|(prefix, _)| w.peers[ann].listen(prefix, 0));
        w.run(ms(200));
        for ((prefix, expect), listen) in table.into_iter().zip(listens) {
            assert_eq!(w.peers[ann].listens[listen].live(), expect, "{version} {prefix:?}");
        }
        w.end();
    }
}

#[test]
fn nobody_is_told_of_what_flows_through_itself() {
    for version in VERSIONS {
        let mut w = world(2);
        // A relay with hop 9 brings what 7 publishes.
        let spec = Spec::new(version, 0).hop(9);
        let other = w.join(spec);
        w.peers[other].announce("a", &[7], Cost::ZERO);
        w.run(ms(100));
        let own = w.peers[other].listen("", 9);
        let listener = |w: &mut World, version, hop| {
            let peer = w.join(Spec::new(version, 1).hop(hop));
            let listen = w.peers[peer].listen("", hop);
            (peer, listen)
        };
        let seven = listener(&mut w, Lite06, 7);
        let eight = listener(&mut w, Lite06, 8);
        let excluded = listener(&mut w, Lite04, 7);
        w.run(ms(200));
        let heard = |(peer, listen): (usize, usize)| w.peers[peer].listens[listen].live();
        assert!(heard((other, own)).is_empty(), "{version}");
        assert_eq!(heard(eight), ["a"], "{version}");
        if version >= Lite04 {
            assert!(heard(seven).is_empty(), "{version}");
            assert!(heard(excluded).is_empty(), "{version}");
            let sub = w.subscribe(seven.0, "a", TRACK, live());
            w.run(ms(200));
            assert_eq!(w.sub(sub).end, Some(End::Reset(StreamCode::UNROUTABLE.0)));
        }
        w.end();
    }
}

#[test]
fn a_peer_that_asks_is_told_what_the_link_is_like() {
    for version in VERSIONS.into_iter().filter(|version| *version >= Lite03) {
        let mut w = world(2);
        let ann = w.viewer(version, 1);
        let is_stated = |setup: &Setup| setup.probe == ProbeLevel::Report;
        assert!(version < Lite05 || w.peers[ann].relay_setup.as_ref().is_some_and(is_stated));
        let probe = w.raw(ann, Dir::Bi, b"\x04", false);
        let told = |w: &World| {
            let mut rest = &w.peers[ann].raws[&probe].received[..];
            let mut told = Vec::new();
            while let Some((report, used)) = Probe::take(version, rest).expect("a report") {
                told.push(report);
                rest = &rest[used..];
            }
            told
        };
        w.run(ms(100));
        let first = told(&w);
        assert_eq!(first.len(), 1, "{version}: {first:?}");
        let latency = w.peers[ann].spec.weather.latency;
        let rtt = 2 * latency.as_millis() as u64;
        let said = if version == Lite03 { 0 } else { first[0].rtt_ms };
        assert!(
            said.abs_diff(if version == Lite03 { 0 } else { rtt }) <= 2,
            "{version}: {first:?}"
        );
        // The first window, 32 packets, in the shortest time that counts as a round trip.
        assert_eq!(first[0].bitrate, 32 * 1200 * 8 * 1000 / 50, "{version}");
        // Nothing is news any more for ten seconds, and then all is.
        w.run(ms(9000));
        assert_eq!(told(&w).len(), 1, "{version}");
        w.run(ms(2000));
        assert_eq!(told(&w).len(), 2, "{version}");
        // The way becomes longer, which pings show.
        w.peers[ann].spec.weather.latency = 12 * latency;
        w.run(ms(30_000));
        let last = *told(&w).last().expect("there were some");
        assert!(last.bitrate < first[0].bitrate / 2, "{version}: {last:?}");
        assert!(version == Lite03 || last.rtt_ms > 2 * rtt, "{version}: {last:?}");
        w.peers[ann].write_raw(probe, b"", true);
        w.run(ms(200));
        assert_eq!(w.peers[ann].raws[&probe].end, Some(End::Finished), "{version}");
        let count = told(&w).len();
        w.run(ms(11_000));
        assert_eq!(told(&w).len(), count, "{version}");
        w.end();
    }
}

#[test]
fn a_publisher_without_a_name_gets_one_and_does_not_hear_itself() {
    let mut w = world(2);
    let cam = w.join(Spec::new(Lite06, 0));
    w.peers[cam].announce(PATH, &[], Cost::ZERO);
    w.run(ms(100));
    let own = w.peers[cam].listen("", 0);
    let ann = w.viewer(Lite05, 1);
    let listen = w.peers[ann].listen("", 0);
    w.run(ms(200));
    assert!(w.peers[cam].listens[own].live().is_empty());
    let heard = &w.peers[ann].listens[listen].heard;
    assert!(heard[0].starts_with("+live/cam [") && heard[0].ends_with(", 0]"), "{heard:?}");
    w.end();
}

#[test]
fn what_has_passed_this_relay_before_leads_nowhere() {
    let mut w = world(2);
    let other = w.join(Spec::new(Lite06, 0).hop(9));
    w.peers[other].announce("a", &[7, HOP], Cost::ZERO);
    w.run(ms(100));
    let ann = w.viewer(Lite05, 1);
    let listen = w.peers[ann].listen("", 0);
    w.run(ms(100));
    assert!(w.peers[ann].listens[listen].live().is_empty());
    // Recorded all the same: it may come back over another way, and it may end.
    w.peers[other].announce("a", &[7], Cost::ZERO);
    w.run(ms(1000));
    assert_eq!(w.peers[ann].listens[listen].live(), ["a"]);
    w.peers[other].announce("a", &[HOP], Cost::ZERO);
    w.run(ms(1000));
    assert!(w.peers[ann].listens[listen].live().is_empty());
    w.peers[other].unannounce("a");
    w.run(ms(100));
    assert!(w.peers[other].is_up());
    w.end();
}

#[test]
fn of_two_publishers_the_cheaper_one_serves_newcomers() {
    let mut w = world(2);
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    let ann = w.viewer(Lite06, 1);
    let listen = w.peers[ann].listen("live", 0);
    let old = w.subscribe(ann, PATH, TRACK, live());
    w.run(ms(200));
    w.group(cam, 0, &[10]);
    w.run(ms(100));

    let setup = Setup { hop: 50, cost: Some(0), ..Setup::default() };
    let peer = w.join(Spec { setup, ..Spec::new(Lite06, 1) });
    w.peers[peer].announce(PATH, &[], Cost::ZERO);
    let cam2 = w.track(peer, PATH, TRACK);
    w.run(ms(1000));
    let new = w.subscribe(ann, PATH, TRACK, live());
    w.run(ms(200));
    w.group(cam, 1, &[20]);
    w.group(cam2, 7, &[30]);
    w.run(ms(100));
    assert_eq!((w.got(old), w.got(new)), (vec![0, 1], vec![7]));

    w.close(peer);
    w.run(ms(1000));
    assert!(matches!(w.sub(new).end, Some(End::Reset(_))));
    assert_eq!(w.sub(old).end, None);
    let heard = ["+cam [7] 1", ".", "~cam [50] 0", "~cam [7] 1"];
    assert_eq!(w.peers[ann].listens[listen].heard, heard);
    w.end();
}

#[test]
fn a_peer_that_only_publishes_hears_nothing_and_one_that_only_views_is_asked_nothing() {
    let mut w = world(2);
    w.publisher(Lite06, 0, PATH, TRACK);
    let with_role =
        |role| Spec { setup: Setup { role, ..Setup::default() }, ..Spec::new(Lite05, 1) };
    let publisher = w.join(with_role(Role::Publisher));
    let listen = w.peers[publisher].listen("", 0);
    let viewer = w.join(with_role(Role::Subscriber));
    w.run(ms(200));
    assert!(w.peers[publisher].listens[listen].live().is_empty());
    assert_eq!(w.peers[publisher].listens[listen].end, None, "the stream stays open");
    assert_eq!(w.peers[publisher].announce_streams().len(), 1);
    assert_eq!(w.peers[viewer].announce_streams().len(), 0);
    w.end();
}

// ---- ends ----

#[test]
fn a_publisher_that_is_lost_ends_nothing_cleanly() {
    for (is_killed, home) in [(true, 0), (true, 1), (false, 0), (false, 1)] {
        let mut w = world(3);
        let track = homed(PATH, home, 3);
        let cam = w.publisher(Lite06, 0, PATH, &track);
        let viewers = VERSIONS.map(|version| w.viewer(version, 2));
        let listens = viewers.map(|viewer| w.peers[viewer].listen("", 0));
        let subs = viewers.map(|viewer| w.subscribe(viewer, PATH, &track, live()));
        w.run(ms(200));
        w.group(cam, 0, &[10]);
        w.open_group(cam, 1);
        w.frame(cam, 1, 100);
        w.run(ms(100));
        if is_killed {
            w.kill(cam.peer);
            w.run(LOSS_NOTICED);
        } else {
            w.close(cam.peer);
            w.run(ms(100));
        }
        for (viewer, (listen, sub)) in viewers.into_iter().zip(listens.into_iter().zip(subs)) {
            let known = w.sub(sub);
            assert!(matches!(known.end, Some(End::Reset(_))), "{:?}", known.end);
            assert!(matches!(known.groups[&1].end, Some(End::Reset(_))));
            assert!(w.peers[viewer].listens[listen].live().is_empty());
        }
        w.end();
    }
}

#[test]
fn a_publisher_that_returns_begins_anew() {
    for (is_killed, hop) in [(true, 7), (true, 8), (false, 7), (false, 8)] {
        let mut w = world(3);
        let track = homed(PATH, 1, 3);
        let cam = w.publisher(Lite06, 0, PATH, &track);
        let ann = w.viewer(Lite05, 2);
        let old = w.subscribe(ann, PATH, &track, live());
        w.run(ms(200));
        w.group(cam, 0, &[10]);
        w.open_group(cam, 1);
        w.frame(cam, 1, 10);
        w.run(ms(100));
        if is_killed {
            w.kill(cam.peer)
        } else {
            w.close(cam.peer)
        }
        w.run(if is_killed { LOSS_NOTICED } else { ms(200) });
        assert!(matches!(w.sub(old).end, Some(End::Reset(_))));

        let peer = w.join(Spec::new(Lite06, 2).hop(hop));
        w.peers[peer].announce(PATH, &[], Cost::ZERO);
        let cam = w.track(peer, PATH, &track);
        w.run(ms(200));
        let new = w.subscribe(ann, PATH, &track, live());
        w.run(ms(200));
        assert!(w.sub(new).groups.is_empty(), "nothing of the former publisher's");
        w.group(cam, 0, &[20]);
        w.group(cam, 1, &[30]);
        w.run(ms(200));
        assert_eq!(w.got_sorted(new), [0, 1]);
        w.end();
    }
}

#[test]
fn a_question_to_a_publisher_that_dies_is_answered() {
    let mut w = world(2);
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    w.source(cam).never_answers = Some(BidiType::Track);
    let ann = w.viewer(Lite05, 1);
    let info = w.peers[ann].ask(PATH, TRACK);
    let sub = w.subscribe(ann, PATH, TRACK, live());
    w.run(ms(200));
    w.kill(cam.peer);
    w.run(LOSS_NOTICED);
    assert!(matches!(w.peers[ann].infos[info].answer, Some(Err(_))));
    assert!(matches!(w.sub(sub).end, Some(End::Reset(_))));
    w.end();
}

#[test]
fn a_viewer_that_is_killed_costs_the_others_nothing() {
    let mut w = world(2);
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    let (ann, bob) = (w.viewer(Lite06, 1), w.viewer(Lite06, 1));
    w.subscribe(ann, PATH, TRACK, live());
    let sub = w.subscribe(bob, PATH, TRACK, live());
    w.run(ms(200));
    w.all_settled();
    w.kill(ann);
    for sequence in 0..30 {
        w.group(cam, sequence, &[2000]);
        w.run(ms(500));
    }
    assert_eq!(w.got(sub).len(), 30);
    let unsubscribed = w.asked(cam.peer).contains(&Asked::Unsubscribe);
    assert!(!unsubscribed, "there is still a viewer");
    w.end();
}

// ---- peers that break the rules ----

/// What becomes of one who sends bytes on a new stream.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    /// The stream is reset or stopped, and the session goes on.
    StreamDropped,
    StreamServed,
    SessionClosed(u64),
}

#[test]
fn who_breaks_the_rules_pays_alone() {
    use Fate::*;
    let ends = |version: Version, dir: Dir, bytes: &'static [u8], fate: Fate| {
        (version, dir, vec![bytes], fate)
    };
    let closed = SessionClosed(SessionCode::PROTOCOL_VIOLATION.0);
    let table = [
        ends(Lite06, Dir::Uni, b"\x01\x01\x00", closed),
        ends(Lite04, Dir::Uni, b"\x01\x01\x00", StreamDropped),
        ends(Lite06, Dir::Uni, b"\x3f\x00", StreamDropped),
        ends(Lite03, Dir::Uni, b"\x02", StreamDropped),
        ends(Lite06, Dir::Bi, b"\x3f\x00", StreamDropped),
        ends(Lite06, Dir::Bi, b"\x00\x00", StreamDropped),
        ends(Lite06, Dir::Bi, b"\x20\x00\x00", StreamDropped),
        ends(Lite04, Dir::Bi, b"\x06\x03\x01a\x00", StreamDropped),
        ends(Lite04, Dir::Bi, b"\x03\x04\x01a\x00\x00", StreamDropped),
        ends(Lite03, Dir::Bi, b"\x05\x01\x00", StreamDropped),
        // GROUP for an id that nobody subscribed with; a header that is none.
        ends(Lite06, Dir::Uni, b"\x00\x03\x63\x00\x00", StreamDropped),
        ends(Lite06, Dir::Uni, b"\x00\x3f", StreamDropped),
        // Requests with a byte too many or too few, or with bytes after a question.
        ends(Lite06, Dir::Bi, b"\x01\x03\x01a\x00", StreamDropped),
        ends(Lite05, Dir::Bi, b"\x02\x02\x00\x05", StreamDropped),
        ends(Lite06, Dir::Bi, b"\x01\x04\x03*/a", StreamDropped),
        ends(Lite05, Dir::Bi, b"\x06\x0f\x08live/cam\x05video\x00", StreamDropped),
        // A probe says no more than that it is one.
        ends(Lite05, Dir::Bi, b"\x04", StreamServed),
        ends(Lite05, Dir::Bi, b"\x04\x00", StreamDropped),
        ends(Lite06, Dir::Bi, b"\x01\x01\x00", StreamServed),
        ends(Lite06, Dir::Bi, b"\x05\x01\x00", StreamServed),
        (Lite06, Dir::Bi, vec![b"\x05\x01\x00", b"\x05\x01\x00"], closed),
    ];
    let cases = table.iter().flat_map(|case| TRANSPORTS.map(|web| (case, web)));
    for ((version, dir, streams, fate), web) in cases {
        let (version, dir, fate) = (*version, *dir, *fate);
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        // Nobody answers this one, so that a question stays open.
        w.source(cam).never_answers = Some(BidiType::Track);
        let good = w.track(cam.peer, PATH, "good");
        let ann = w.viewer(Lite05, 1);
        let mallory = w.join(Spec { web, ..Spec::new(version, 1) });
        let sub = w.subscribe(ann, PATH, "good", live());
        w.run(ms(200));
        w.all_settled();
        let raws: Vec<u64> =
            streams.iter().map(|bytes| w.raw(mallory, dir, bytes, false)).collect();
        w.run(ms(200));
        w.group(good, 0, &SIZES);
        w.run(ms(200));
        let raw = &w.peers[mallory].raws[raws.last().expect("at least one")];
        let is_dropped = matches!(raw.end, Some(End::Reset(_))) || raw.stopped.is_some();
        let is = match &w.peers[mallory].state {
            State::Over(_, Some(code)) => SessionClosed(*code),
            State::Up if is_dropped => StreamDropped,
            State::Up => StreamServed,
            state => panic!("{state:?}"),
        };
        assert_eq!(is, fate, "{version} {dir:?} {streams:x?}");
        assert_eq!(w.got(sub), [0]);
        assert!(w.peers[ann].is_up() && w.peers[cam.peer].is_up());
        w.end();
    }
}

#[test]
fn a_session_needs_a_setup_and_a_sound_one() {
    let violation = SessionCode::PROTOCOL_VIOLATION.0;
    let table: [(&[u8], u64); 5] = [
        // The same parameter twice; a body too long; too short; not there; text that is none.
        (b"\x01\x05\x02\x00\x00\x00\x00", violation),
        (b"\x01\x02\x00\x00", violation),
        (b"\x01\x05\x00", violation),
        (b"", SessionCode::CONTROL_TIMEOUT.0),
        (b"\x01\x04\x01\x02\x01\xff", violation),
    ];
    for ((raw, expect), web) in table.into_iter().flat_map(|case| TRANSPORTS.map(|web| (case, web)))
    {
        let mut w = world(2);
        let spec = Spec { raw_setup: Some(raw.to_vec()), web, ..Spec::new(Lite05, 1) };
        let mallory = w.join(spec);
        // What is asked before the relay knows who asks gets no answer.
        let listen = w.peers[mallory].is_up().then(|| w.peers[mallory].listen("", 0));
        w.run(SETUP_TIMEOUT + ms(500));
        let State::Over(_, code) = w.peers[mallory].state else { panic!("{raw:x?} was accepted") };
        assert_eq!(code, Some(expect), "{raw:x?}");
        if let Some(listen) = listen {
            assert!(w.peers[mallory].listens[listen].heard.is_empty());
        }
        w.end();
    }
}

#[test]
fn announcements_out_of_order_end_the_session_that_makes_them() {
    let closed = Some(SessionCode::PROTOCOL_VIOLATION.0);
    let table: [(Version, &[u8], Option<u64>); 9] = [
        (Lite06, b"\x01\x01\x2a", closed),
        (Lite06, b"\x02\x04\x2a\x00\x00\x00", closed),
        // The path is announced already.
        (Lite06, b"\x00\x0c\x08live/cam\x00\x00\x00", closed),
        (Lite04, b"\x0b\x01\x08live/cam\x00", closed),
        (Lite03, b"\x0b\x01\x08live/cam\x00", closed),
        (Lite05, b"\x0b\x01\x08live/cam\x00", None),
        (Lite05, b"\x0b\x02\x08live/cam\x00", None),
        (Lite06, b"\x09\x02\xaa\xbb", None),
        (Lite05, b"\x05\x00\x02xx\x00", None),
    ];
    for (version, bytes, expect) in table {
        let mut w = world(2);
        let cam = w.publisher(version, 0, PATH, TRACK);
        let good = w.publisher(Lite06, 1, "good", TRACK);
        let ann = w.viewer(Lite06, 1);
        let sub = w.subscribe(ann, "good", TRACK, live());
        let listen = w.peers[ann].listen("", 0);
        w.run(ms(200));
        let feed = w.peers[cam.peer].announce_streams()[0];
        w.peers[cam.peer].write_raw(feed, bytes, false);
        w.run(ms(500));
        w.group(good, 0, &[1]);
        w.run(ms(200));
        let code = match w.peers[cam.peer].state {
            State::Over(_, code) => code,
            _ => None,
        };
        assert_eq!(code, expect, "{version} {bytes:x?}");
        let live = w.peers[ann].listens[listen].live();
        assert_eq!(live.len(), if expect.is_some() { 1 } else { 2 }, "{version} {bytes:x?}");
        assert_eq!(w.got(sub), [0]);
        w.end();
    }
}

#[test]
fn an_announce_stream_that_ends_takes_its_routes_with_it() {
    for is_clean in [true, false] {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let ann = w.viewer(Lite06, 1);
        let listen = w.peers[ann].listen("", 0);
        w.run(ms(200));
        let feed = w.peers[cam.peer].announce_streams()[0];
        match is_clean {
            true => w.peers[cam.peer].write_raw(feed, b"", true),
            false => w.peers[cam.peer].reset_raw(feed, 1),
        }
        w.run(ms(500));
        assert!(w.peers[ann].listens[listen].live().is_empty());
        assert_eq!(w.peers[cam.peer].is_up(), is_clean);
        w.end();
    }
}

// ---- slow and unlucky ones ----

#[test]
fn a_viewer_that_stops_reading_holds_up_nobody_and_gets_the_rest_later() {
    for version in VERSIONS {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let slow = w.join(Spec { window: 20_000, ..Spec::new(version, 1) });
        let bob = w.viewer(Lite05, 1);
        let late = w.subscribe(slow, PATH, TRACK, live());
        let sub = w.subscribe(bob, PATH, TRACK, live());
        w.run(ms(200));
        w.all_settled();
        w.peers[slow].read_groups(false);
        for sequence in 0..10 {
            w.group(cam, sequence, &[3000, 9000]);
            w.run(ms(100));
        }
        w.run(ms(5000));
        assert_eq!(w.got(sub).len(), 10);
        assert!(w.got(late).is_empty());
        w.peers[slow].read_groups(true);
        w.run(ms(3000));
        assert_eq!(w.got_sorted(late), (0..10).collect::<Vec<_>>(), "{version}");
        w.end();
    }
}

#[test]
fn groups_that_are_stuck_and_old_are_given_up() {
    for home in 0..2 {
        let mut w = world(2);
        w.groups_expire = true;
        let track = homed(PATH, home, 2);
        let cam = w.publisher(Lite06, 0, PATH, &track);
        let slow = w.join(Spec { window: 20_000, ..Spec::new(Lite05, 1) });
        let bob = w.viewer(Lite05, 1);
        let late = w.subscribe(slow, PATH, &track, Preferences { max_age_ms: 2500, ..live() });
        let sub = w.subscribe(bob, PATH, &track, live());
        w.run(ms(200));
        w.peers[slow].read_groups(false);
        for sequence in 0..10 {
            w.group(cam, sequence, &[30_000]);
            w.run(ms(100));
        }
        w.run(ms(1000));
        assert_eq!(w.got(sub).len(), 10);
        w.peers[slow].read_groups(true);
        w.run(ms(2000));
        let got = w.got_sorted(late);
        assert!(got.len() < 10, "{got:?}");
        assert!(got.ends_with(&[7, 8, 9]), "{got:?}");
        w.end();
    }
}

#[test]
fn a_viewer_without_stream_credit_gets_one_group_after_the_other() {
    for version in VERSIONS {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let slow = w.join(Spec { uni_streams: 1, ..Spec::new(version, 1) });
        let sub = w.subscribe(slow, PATH, TRACK, live());
        w.run(ms(200));
        w.all_settled();
        w.peers[slow].read_groups(false);
        (0..12).for_each(|sequence| w.group(cam, sequence, &[700]));
        w.run(ms(1000));
        assert!(w.got(sub).is_empty());
        w.peers[slow].read_groups(true);
        w.run(ms(3000));
        assert_eq!(w.got_sorted(sub), (0..12).collect::<Vec<_>>(), "{version}");
        w.end();
    }
}

#[test]
fn peers_move_to_another_port_in_mid_play() {
    let mut w = world(3);
    let track = homed(PATH, 1, 3);
    let cam = w.publisher(Lite06, 0, PATH, &track);
    let ann = w.viewer(Lite05, 2);
    let sub = w.subscribe(ann, PATH, &track, live());
    w.run(ms(200));
    w.all_settled();
    for sequence in 0..12 {
        w.open_group(cam, sequence);
        w.frame(cam, sequence, 2500);
        w.run(ms(20));
        match sequence % 4 {
            1 => w.rebind(ann),
            2 => w.rebind(cam.peer),
            _ => {}
        }
        w.frame(cam, sequence, 100);
        w.end_group(cam, sequence, End::Finished);
        w.run(ms(1000));
    }
    w.run(ms(5000));
    assert_eq!(w.got_sorted(sub), (0..12).collect::<Vec<_>>());
    w.end();
}

/// A publisher on the only shard, and an audience that takes several turns to serve.
fn crowd(w: &mut World) -> (Track, Vec<Sub>) {
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    let subs = (0..5 * READERS_PER_TURN)
        .map(|at| {
            let viewer = w.viewer(VERSIONS[2 + at % 4], 0);
            w.subscribe(viewer, PATH, TRACK, live())
        })
        .collect();
    w.run(ms(300));
    w.all_settled();
    (cam, subs)
}

/// Whoever else wants something of the shard waits for a part of an audience and not for all of it.
#[test]
fn an_audience_is_served_over_several_turns() {
    let mut w = world(1);
    let (cam, subs) = crowd(&mut w);
    // Nothing leaves: turns that want another one at once have somebody left to serve.
    w.block(0, true);
    w.run(ms(300));
    let before = w.busy_turns(0);
    w.group(cam, 0, &[100]);
    w.run(ms(200));
    assert_eq!(w.busy_turns(0) - before, 4);
    w.block(0, false);
    w.run(ms(2000));
    for sub in subs {
        assert_eq!(w.got(sub), [0]);
    }
    w.end();
}

/// The group comes first, and the shard hears of those who leave between the turns that serve it.
#[test]
fn viewers_leave_while_others_are_served() {
    let mut w = world(1);
    let (cam, subs) = crowd(&mut w);
    w.stall(0, ms(50));
    w.group(cam, 0, &[100]);
    w.run(ms(20));
    let stay = |at: usize| at % 3 == 2;
    for (at, sub) in subs.iter().enumerate() {
        match at % 3 {
            0 => w.leave(*sub),
            1 => w.close(sub.peer),
            _ => {}
        }
    }
    w.run(ms(1000));
    w.group(cam, 1, &[100]);
    w.run(ms(1000));
    for (_, sub) in subs.iter().enumerate().filter(|(at, _)| stay(*at)) {
        assert_eq!(w.got(*sub), [0, 1]);
    }
    w.end();
}

#[test]
fn mail_that_does_not_fit_waits() {
    for lanes in [1, 2, 3] {
        let mut w = World::new(Stage { lanes, ..Stage::new(1, 3) });
        let track = homed(PATH, 1, 3);
        let cam = w.publisher(Lite06, 0, PATH, &track);
        let subs = [0, 1, 2].map(|shard| {
            let viewer = w.viewer(VERSIONS[shard + 1], shard);
            w.subscribe(viewer, PATH, &track, live())
        });
        w.run(ms(300));
        w.all_settled();
        for sequence in 0..40 {
            w.group(cam, sequence, &[10, 2000, 0]);
            if sequence % 10 == 0 {
                w.stall((sequence / 10) as usize % 3, ms(30));
            }
        }
        w.run(ms(2000));
        for sub in subs {
            assert_eq!(w.got_sorted(sub), (0..40).collect::<Vec<_>>());
        }
        w.end();
    }
}

/// A shard that gets no time for half a second, and mail for it that soon fills its lane: viewers of it
/// wait, and those of other shards notice nothing.
#[test]
fn a_shard_that_stalls_holds_up_no_other() {
    const STALL: Duration = Duration::from_millis(500);
    for home in 0..2 {
        let mut w = World::new(Stage { lanes: 64, ..Stage::new(1, 3) });
        let track = homed(PATH, home, 3);
        let cam = w.publisher(Lite06, 0, PATH, &track);
        let viewers = [0, 1, 2].map(|shard| w.viewer(Lite06, shard));
        let subs = viewers.map(|viewer| w.subscribe(viewer, PATH, &track, live()));
        w.run(ms(300));
        w.all_settled();
        let mut made = Vec::new();
        for sequence in 0..400 {
            if sequence == 100 {
                w.stall(2, STALL);
            }
            w.group(cam, sequence, &[800]);
            made.push(w.now);
            w.run(ms(5));
        }
        w.run(ms(2000));
        let late = subs.map(|sub| {
            let late = |(group, made): (usize, &Instant)| {
                w.came(sub, group as u64, 0).map_or(Duration::MAX, |came| came - *made)
            };
            made.iter().enumerate().map(late).max().expect("groups")
        });
        let full: u64 = (0..3).map(|shard| w.counters(shard).full_lanes_total).sum();
        println!(
            "home {home}: shard 2 stalls: viewers are late by {late:?}; {full} times a lane was full"
        );
        assert!(late[0] <= ms(50) && late[1] <= ms(50), "{late:?}");
        assert!(late[2] >= STALL - ms(50) && full > 0, "it did not stall: {late:?}, {full}");
        w.end();
    }
}

#[test]
fn datagrams_that_reach_the_wrong_shard_are_passed_on() {
    let mut w = World::new(Stage { strays: 500, ..Stage::new(3, 4) });
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    let ann = w.viewer(Lite05, 3);
    let sub = w.subscribe(ann, PATH, TRACK, live());
    w.run(ms(300));
    w.all_settled();
    (0..10).for_each(|sequence| w.group(cam, sequence, &[4000]));
    // Passed on at once: nobody has to send anything again.
    w.run(ms(60));
    assert_eq!(w.got_sorted(sub), (0..10).collect::<Vec<_>>());
    let misrouted: u64 = (0..4).map(|shard| w.counters(shard).misrouted_datagrams_total).sum();
    assert!(misrouted > 10);
    w.end();
}

// ---- in which order ----

/// A link without loss, on which a window is soon through.
fn clear(random: &mut Random) -> Weather {
    let down_bytes_per_second = Some(random.pick(&[500_000, 2_000_000, 50_000_000]));
    Weather { latency: ms(random.pick(&[1, 5, 20, 60])), down_bytes_per_second, ..Weather::FAIR }
}

/// Whoever joins late and reads in sequence order must not be given the newest group first.
#[test]
fn the_past_comes_in_sequence_order() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let shards = 1 + random.below(3) as usize;
        let mut w = World::new(Stage::new(seed, shards));
        let [home, source, at] = [(); 3].map(|()| random.below(shards as u64) as usize);
        let track = homed(PATH, home, shards);
        let version = VERSIONS[2 + seed as usize % 4];
        let (web, has_ended) = (random.pick(&TRANSPORTS), random.one_in(2));
        let cam = w.publisher(Lite06, source, PATH, &track);
        // Otherwise the publisher is asked for the past.
        if !random.one_in(4) {
            let ann = w.viewer(Lite06, random.below(shards as u64) as usize);
            w.subscribe(ann, PATH, &track, live());
            w.run(ms(200));
        }
        let size = random.pick(&[5, 300, 1000]);
        for first in (0..10).step_by(2) {
            let is_ordered = first == 0 || random.one_in(2);
            let pair = if is_ordered { [first, first + 1] } else { [first + 1, first] };
            for sequence in pair {
                w.group(cam, sequence, &[1, size]);
                w.run(ms(random.pick(&[0, 20])));
            }
        }
        if has_ended {
            w.finish(cam, 10);
        }
        w.run(ms(500));
        let weather = clear(&mut random);
        let bob = w.join(Spec { web, weather, ..Spec::new(version, at) });
        let sub = w.subscribe(bob, PATH, &track, range(0, None));
        let what = format!("seed {seed}: {version} {web:?}, ended: {has_ended}, {weather:?}");
        assert!(w.run_until(ms(3000), |w| w.got(sub).len() == 10), "{what}: {:?}", w.got(sub));
        assert_eq!(w.sub(sub).arrivals, (0..10).collect::<Vec<_>>(), "{what}");
        w.end();
    }
}

/// A track that a link does not carry: the newest group goes first, and what is too old is given up.
#[test]
fn on_a_narrow_link_the_newest_group_goes_first() {
    let narrow = Weather { latency: ms(20), down_bytes_per_second: Some(100_000), ..Weather::FAIR };
    for version in [Lite03, Lite04, Lite05, Lite06] {
        let mut w = world(1);
        w.groups_expire = true;
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let bob = w.join(Spec { weather: narrow, ..Spec::new(version, 0) });
        let sub = w.subscribe(bob, PATH, TRACK, Preferences { max_age_ms: 3000, ..live() });
        w.run(ms(200));
        let mut sent = Vec::new();
        for sequence in 0..75 {
            w.open_group(cam, sequence);
            for (frame, size) in (0..).zip([100, 15_000, 15_000]) {
                w.frame_at(cam, sequence, sequence * 200 + 10 * frame, size);
            }
            w.end_group(cam, sequence, End::Finished);
            sent.push((sequence, w.now));
            w.run(ms(200));
        }
        // Until then the link has room.
        sent.drain(..25);
        let comes_at_once = |(sequence, sent): &&(u64, Instant)| {
            w.came(sub, *sequence, 0).is_some_and(|came| came < *sent + ms(300))
        };
        let is_old = |(sequence, _): &&(u64, Instant)| {
            let seen = w.sub(sub).groups.get(sequence);
            seen.is_some_and(|seen| seen.end == Some(End::Reset(StreamCode::OLD.0)))
        };
        let newest = sent.iter().filter(comes_at_once).count();
        let old = sent.iter().filter(is_old).count();
        assert!(newest >= 45 && old >= 10, "{version}: {newest} at once, {old} too old");
        w.run(ms(8000));
        w.end();
    }
}

/// What has gathered while nobody was served leaves in sequence order.
#[test]
fn a_burst_comes_in_sequence_order() {
    let weather = Weather { down_bytes_per_second: Some(2_000_000), ..Weather::FAIR };
    for version in [Lite03, Lite04, Lite05, Lite06] {
        for (home, web) in [(0, TRANSPORTS[0]), (1, TRANSPORTS[0]), (0, TRANSPORTS[1])] {
            let mut w = world(2);
            let track = homed(PATH, home, 2);
            let cam = w.publisher(Lite06, 0, PATH, &track);
            let bob = w.join(Spec { web, weather, ..Spec::new(version, 1) });
            let sub = w.subscribe(bob, PATH, &track, live());
            w.run(ms(200));
            w.all_settled();
            for first in (0..30).step_by(3) {
                for sequence in [first, first + 2, first + 1] {
                    w.group(cam, sequence, &[200]);
                }
                w.run(ms(60));
            }
            for (shard, first) in [(0, 30), (1, 80)] {
                w.stall(shard, ms(1000));
                for sequence in first..first + 50 {
                    w.group(cam, sequence, &[80]);
                    w.run(ms(20));
                }
                w.run(ms(300));
            }
            // The socket takes nothing.
            w.block(1, true);
            for sequence in 130..140 {
                w.group(cam, sequence, &[80]);
                w.run(ms(20));
            }
            w.block(1, false);
            w.run(ms(300));
            assert_eq!(w.sub(sub).arrivals, (0..140).collect::<Vec<_>>(), "{version} {web:?}");
            w.end();
        }
    }
}

/// Whoever catches up with one track is not behind with another of the same priority for that.
#[test]
fn the_past_of_one_track_leaves_another_its_turns() {
    let narrow = Weather { latency: ms(20), down_bytes_per_second: Some(200_000), ..Weather::FAIR };
    for (count, size) in [(10, 60_000), (200, 3000)] {
        let mut w = world(1);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let talk = w.track(cam.peer, PATH, "audio");
        let ann = w.viewer(Lite06, 0);
        w.subscribe(ann, PATH, TRACK, live());
        w.run(ms(200));
        (0..count).for_each(|sequence| w.group(cam, sequence, &[100, size]));
        w.run(ms(500));
        let bob = w.join(Spec { weather: narrow, ..Spec::new(Lite05, 0) });
        let past = w.subscribe(bob, PATH, TRACK, range(0, None));
        let sub = w.subscribe(bob, PATH, "audio", live());
        w.run(ms(200));
        let mut sent = Vec::new();
        for sequence in 0..100 {
            w.group(talk, sequence, &[80]);
            sent.push(w.now);
            w.run(ms(20));
        }
        w.run(ms(3000));
        assert_eq!(w.got(past).len() as u64, count);
        let late = |(sequence, sent)| match w.came(sub, sequence, 0) {
            Some(came) => came.duration_since(sent),
            None => Duration::MAX,
        };
        let slowest = (0..).zip(sent).map(late).max().expect("some were sent");
        assert!(slowest < ms(400), "{slowest:?}");
        w.end();
    }
}

// ---- WebTransport ----

#[test]
fn a_session_is_agreed_on_in_a_storm() {
    let lossy = Weather { lost_up: 150, lost_down: 150, ..Weather::FAIR };
    let storm = Weather { jitter: ms(40), doubled: 100, ..lossy };
    for seed in 0..20 {
        let mut w = World::new(Stage::new(seed, 3));
        let manner = Manner { is_eager: seed % 2 == 0, is_second: seed % 3 == 0 };
        let version = VERSIONS[seed as usize % VERSIONS.len()];
        let spec = |shard| Spec { weather: storm, web: Some(manner), ..Spec::new(version, shard) };
        let cam = w.publisher_like(spec(0).hop(9), PATH, TRACK);
        w.run(ms(3000));
        let ann = w.arrive(spec(1));
        assert!(w.run_until(ms(10_000), |w| w.peers[ann].is_up()), "seed {seed}");
        // An eager one asks in the same breath as for the session.
        let (listen, sub) = (w.peers[ann].listen("", 0), w.subscribe(ann, PATH, TRACK, live()));
        w.run(ms(5000));
        assert_eq!(w.peers[ann].listens[listen].live(), [PATH], "seed {seed}");
        w.all_settled();
        for sequence in 0..6 {
            w.group(cam, sequence, &SIZES);
            w.run(ms(200));
        }
        w.run(ms(5000));
        assert_eq!(w.got_sorted(sub), [0, 1, 2, 3, 4, 5], "seed {seed}");
        w.end();
    }
}

#[test]
fn what_is_asked_before_the_session_is_there_is_answered() {
    for version in [Lite03, Lite04, Lite05, Lite06] {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        w.group(cam, 0, &[10]);
        let ann = w.arrive(Spec::new(version, 1).eager_web());
        assert!(w.run_until(ms(1000), |w| w.peers[ann].is_up()));
        let joined = w.since_start();
        let (listen, sub) = (w.peers[ann].listen("", 0), w.subscribe(ann, PATH, TRACK, live()));
        // A round trip to the relay, and two from there to the publisher, who is asked what the
        // track is like and then for it.
        let has_it = |w: &World| w.got(sub) == [0] && w.peers[ann].listens[listen].live() == [PATH];
        assert!(w.run_until(ms(1000), has_it), "{version}");
        let took = w.since_start() - joined;
        assert!(took <= 6 * Weather::FAIR.latency + ms(3), "{version}: {took:?}");
        w.end();
    }
}

#[test]
fn either_side_ends_a_session() {
    // With a capsule, which the other side answers by closing the connection; or with that alone.
    let ways: [fn(&mut World, usize); 2] = [World::close, World::hang_up];
    let table = [(Lite05, 0, ways[0]), (Lite06, 150, ways[0]), (Lite05, 0, ways[1])];
    for (version, lost, leave) in table {
        let mut w = world(2);
        let weather = Weather { lost_up: lost, lost_down: lost, ..Weather::FAIR };
        let spec = Spec { weather, ..Spec::new(version, 1).web() };
        let pause = if lost == 0 { ms(1000) } else { ms(9000) };
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let other = w.publisher_like(spec.clone().hop(8), "other", TRACK);
        let bob = w.viewer(Lite06, 0);
        let listen = w.peers[bob].listen("", 0);
        let all = w.subscribe(bob, PATH, TRACK, live());
        let cut = w.subscribe(bob, "other", TRACK, live());
        let (ann, mallory) = (w.join(spec.clone()), w.join(spec));
        w.subscribe(ann, PATH, TRACK, live());
        let check = |w: &World, connections: usize, live: &[&str]| {
            let held: usize = w.held().iter().map(|held| held.connections).sum();
            assert_eq!((held, w.peers[bob].listens[listen].live()), (connections, owned(live)));
        };
        w.run(pause);
        w.group(cam, 0, &SIZES);
        check(&w, 5, &[PATH, "other"]);
        // What they had is gone with their connections.
        leave(&mut w, ann);
        leave(&mut w, other.peer);
        w.run(pause);
        check(&w, 3, &[PATH]);
        assert!(matches!(w.sub(cut).end, Some(End::Reset(_))));

        // A second SETUP. The peer compares what the capsule says with what the connection says.
        w.raw(mallory, Dir::Uni, b"\x01\x01\x00", true);
        w.run(pause);
        let code = SessionCode::PROTOCOL_VIOLATION.0;
        let state = State::Over("second SETUP".to_owned(), Some(code));
        assert_eq!(w.peers[mallory].state, state, "{version}, {lost} lost");
        check(&w, 2, &[PATH]);
        w.group(cam, 1, &SIZES);
        w.run(ms(300));
        assert_eq!(w.got_sorted(all), [0, 1]);
        w.end();
    }
}

/// Data that the network cannot take yet does not keep a session's end from the client.
#[test]
fn a_viewer_that_is_behind_hears_why_it_is_sent_away() {
    // In WebTransport the data may go first, for a while.
    for (is_web, grace) in [(false, ms(500)), (true, ms(2500))] {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let weather = Weather { latency: ms(200), ..Weather::FAIR };
        let spec = Spec { weather, ..Spec::new(Lite06, 1) };
        let far = w.join(if is_web { spec.web() } else { spec });
        w.subscribe(far, PATH, TRACK, live());
        w.run(ms(3000));
        w.all_settled();
        // A second SETUP gets there when the relay has sent as much as it may, with more to send.
        w.raw(far, Dir::Uni, b"\x01\x01\x00", true);
        w.run(ms(100));
        w.group(cam, 0, &[500_000]);
        w.run(grace);
        let code = Some(SessionCode::PROTOCOL_VIOLATION.0);
        let state = &w.peers[far].state;
        let is_told = |what: &str| what.contains("second SETUP");
        assert!(matches!(state, State::Over(what, heard) if is_told(what) && *heard == code));
        w.end();
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_client_that_dies_within_its_handshake_leaves_nothing() {
    for spec in [Spec::new(Lite05, 1).web(), Spec::new(Lite06, 1).eager_web()] {
        for at in 0..32 {
            let mut w = world(2);
            let peer = w.arrive(spec.clone().hop(7));
            w.peers[peer].announce(PATH, &[], Cost::ZERO);
            w.run(ms(at));
            w.kill(peer);
            w.run(LOSS_NOTICED);
            assert_eq!(w.held(), vec![Held::default(); 2], "killed after {at} ms");
            w.end();
        }
    }
}

#[test]
fn a_client_of_webtransport_moves_to_another_port() {
    for version in [Lite05, Lite06] {
        let mut w = world(3);
        let track = homed(PATH, 1, 3);
        let cam = w.publisher_like(Spec::new(version, 0).hop(7).web(), PATH, &track);
        let ann = w.join(Spec::new(version, 2).web());
        let sub = w.subscribe(ann, PATH, &track, live());
        w.run(ms(200));
        w.all_settled();
        for round in 0..12 {
            let (group, datagram) = (2 * round, 2 * round + 1);
            w.open_group(cam, group);
            w.frame(cam, group, 2500);
            w.run(ms(20));
            match round % 4 {
                1 => w.rebind(ann),
                2 => w.rebind(cam.peer),
                _ => {}
            }
            w.frame(cam, group, 100);
            w.end_group(cam, group, End::Finished);
            // Once the relay knows, by a ping at the latest: what goes to the old port is lost.
            w.run(ms(4000));
            w.datagram(cam, datagram, 300);
        }
        w.run(ms(5000));
        assert_eq!(w.got_sorted(sub), (0..12).map(|round| 2 * round).collect::<Vec<_>>());
        assert_eq!(w.heard(sub), (0..12).map(|round| 2 * round + 1).collect::<Vec<_>>());
        w.end();
    }
}

// ---- datagrams ----

#[test]
fn datagrams_reach_every_viewer_that_can_take_them_as_datagrams() {
    for shards in 1..=4 {
        for home in 0..shards {
            let mut w = world(shards);
            let track = homed(PATH, home, shards);
            let is_second = home % 2 == 1;
            let web = Some(Manner { is_eager: false, is_second });
            let spec = Spec { web, ..Spec::new(Lite05, 0).hop(7) };
            let cam = w.publisher_like(spec, PATH, &track);
            let mut subs = Vec::new();
            for shard in 0..shards {
                let all = [
                    (Spec::new(Lite05, shard).web(), live()),
                    (Spec { web, ..Spec::new(Lite06, shard) }, live()),
                    (Spec::new(Lite06, shard), range(4, 12)),
                    (Spec::new(Lite05, shard), live()),
                    (Spec::new(Lite04, shard).web(), live()),
                    (Spec::new(Lite01, shard), live()),
                ];
                for (spec, wanted) in all {
                    let version = spec.version;
                    let peer = w.join(spec);
                    subs.push((version, wanted, w.subscribe(peer, PATH, &track, wanted)));
                }
            }
            w.run(ms(300));
            w.all_settled();
            let (groups, datagrams): (Vec<u64>, Vec<u64>) = (0..24).partition(|n| n % 5 == 0);
            for sequence in 0..24 {
                match groups.contains(&sequence) {
                    true => w.group(cam, sequence, &SIZES),
                    false => w.datagram(cam, sequence, [0, 1, 1000, 300][sequence as usize % 4]),
                }
            }
            // One is sent again, and one that is too large for any wire is nobody's loss.
            w.datagram(cam, 1, 1);
            w.datagram(cam, 24, 1400);
            w.run(ms(500));
            for (version, wanted, sub) in subs {
                let within = |all: &[u64]| -> Vec<u64> {
                    all.iter().copied().filter(|n| covers(&wanted, *n)).collect()
                };
                let who = format!("{shards} shards, home {home}, {version} {wanted:?}");
                assert_eq!(w.got_sorted(sub), within(&groups), "{who}");
                let mut expect = if version >= Lite05 { within(&datagrams) } else { Vec::new() };
                if expect.contains(&1) {
                    expect.insert(0, 1);
                }
                assert_eq!(w.heard(sub), expect, "{who}");
            }
            w.end();
        }
    }
}

#[test]
fn a_flood_of_datagrams_starves_no_group() {
    for spec in [Spec::new(Lite06, 1), Spec::new(Lite05, 1).web()] {
        let mut w = world(2);
        let swift = Spec { is_swift: true, ..Spec::new(Lite06, 0).hop(7).web() };
        let cam = w.publisher_like(swift, PATH, TRACK);
        // 4 Mb/s to the viewer.
        let weather = Weather { down_bytes_per_second: Some(500_000), ..Weather::FAIR };
        let ann = w.join(Spec { weather, ..spec });
        let sub = w.subscribe(ann, PATH, TRACK, live());
        w.run(ms(200));
        w.all_settled();
        let (mut next, mut made) = (0, Vec::new());
        let made_since = w.now;
        for round in 0..400 {
            // Groups want a third of the link, datagrams twice of it.
            if round % 10 == 0 {
                w.group(cam, next, &[3000, 10, 9000, 5000]);
                made.push((next, w.now));
                next += 1;
            }
            for _ in 0..10 {
                w.datagram(cam, next, 1000);
                next += 1;
            }
            w.run(ms(10));
        }
        w.run(ms(2000));
        for (sequence, at) in made {
            let seen = &w.sub(sub).groups[&sequence];
            assert_eq!(seen.end, Some(End::Finished), "group {sequence}");
            let took = seen.ended_at.expect("it has ended") - at;
            // What has come before the link is known to be full is worked off beside what comes then.
            let most = if at - made_since < ms(1000) { ms(2000) } else { ms(800) };
            assert!(took < most, "group {sequence} took {took:?}");
        }
        // And the other way round: a quarter of the link is theirs.
        let heard = w.heard(sub).len();
        assert!(heard > 500, "{heard} datagrams");
        w.end();
    }
}

/// On a link that loses 2 % although it is not full, control by loss holds back what would fit:
/// groups come too late to be wanted. Control by delay has every frame there in time.
#[test]
fn delay_is_not_misled_by_random_loss() {
    let lossy = Weather {
        latency: ms(40),
        jitter: ms(10),
        lost_down: 20,
        lost_up: 20,
        down_bytes_per_second: Some(1_000_000),
        ..Weather::FAIR
    };
    let slowest = |congestion_control| {
        let mut w = World::new(Stage { congestion_control, ..Stage::new(3, 1) });
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let ann = w.join(Spec { weather: lossy, ..Spec::new(Lite06, 0) });
        let sub = w.subscribe(ann, PATH, TRACK, live());
        w.run(ms(1000));
        let mut sent = Vec::new();
        for group in 0..8 {
            w.open_group(cam, group);
            for frame in 0..60 {
                w.frame(cam, group, 4096);
                sent.push((group, frame, w.now));
                w.run(Duration::from_secs(1) / 60);
            }
            w.end_group(cam, group, End::Finished);
        }
        w.run(ms(4000));
        let late = |(group, frame, sent)| match w.came(sub, group, frame) {
            Some(came) => came.duration_since(sent),
            None => Duration::MAX,
        };
        sent.into_iter().map(late).max().expect("some were sent")
    };
    let (loss, delay) = (slowest(CongestionControl::Loss), slowest(CongestionControl::Delay));
    assert!(delay < ms(500), "{delay:?}");
    assert!(loss > ms(1000), "{loss:?}: the link is too good for this play");
}

// ---- the random play ----

/// What random peers do to each other under random faults. They do not move to other ports:
/// quinn-proto 0.11.19 stumbles, where assertions are on, over a path that is never validated
/// (quinn issue 2658, fixed after that release).
fn random_play(seed: u64, tally: &mut Tally) -> (u64, u64) {
    let mut r = Random::new(seed ^ 0x5eed);
    let stage = Stage {
        seed,
        shards: r.pick(&[1, 2, 2, 3, 4]),
        lanes: r.pick(&[1024, 1024, 64, 2]),
        strays: r.pick(&[0, 0, 0, 100, 600]),
        blocked: r.pick(&[0, 0, 20, 200]),
        refused: r.pick(&[0, 0, 0, 10]),
        linger: ms(r.pick(&[5000, 5000, 800, 0])),
        // Large and lasting, or full all the time.
        cache: CacheBounds {
            bytes: r.pick(&[CACHE_BYTES, CACHE_BYTES, CACHE_BYTES, 100_000]),
            duration: ms(r.pick(&[100_000, 100_000, 100_000, 2000])),
        },
        memory: MEMORY_BYTES,
        congestion_control: CongestionControl::ALL[seed as usize % 2],
        trusts_all: true,
        takeover: if (seed / 2).is_multiple_of(2) { Takeover::Refused } else { Takeover::Allowed },
        ..Stage::new(seed, 1)
    };
    let (tracks, ways, next) = (Vec::new(), Vec::new(), Vec::new());
    let mut play = Troupe { w: World::new(stage), r, tracks, ways, next };
    play.w.groups_expire = play.r.one_in(6);
    let is_rude_about = play.r.one_in(3);
    if is_rude_about {
        let spec = Spec { is_rude: true, ..play.spec() };
        play.w.arrive(spec);
    }
    for path in ["a", "b/c"] {
        play.add_publisher(path);
    }
    for _ in 0..2 + play.r.below(4) {
        play.add_viewer();
    }
    play.w.run(ms(1000));
    for _ in 0..play.r.below(3) {
        play.add_way();
    }
    for _ in 0..4 {
        for _ in 0..24 + play.r.below(36) {
            play.act();
            let pause = play.r.pick(&[0, 0, 1, 10, 50, 200]);
            play.w.run(ms(pause));
        }
        play.replace_publishers();
        play.calm();
    }
    play.finale();
    play.count(tally);
    // Nobody who keeps to the rules is sent away.
    for peer in play.w.peers.iter().filter(|peer| !peer.spec.is_rude) {
        assert!(!matches!(peer.state, State::Over(_, Some(_))), "{}: {:?}", peer.name, peer.state);
    }
    play.w.end()
}

/// What has come of plays: one in which nothing happens proves nothing.
#[derive(Clone, Copy, Default, Debug)]
struct Tally {
    /// Groups that viewers had to get, and got.
    groups: usize,
    /// The same of datagrams.
    datagrams: usize,
    /// Fetches that brought a group, or the part of it that was asked for.
    fetches: usize,
    /// Publishers that went on with what another one had begun.
    takeovers: usize,
    /// Runs of players that viewers have seen, other than the first of a track.
    runs: usize,
    /// Viewers that went on with another run in the middle of a subscription.
    went_on: usize,
}

struct Troupe {
    w: World,
    r: Random,
    tracks: Vec<Track>,
    /// Each of the tracks, with every other way to it.
    ways: Vec<Track>,
    /// The next sequence of each track, where its publisher is no player.
    next: Vec<u64>,
}

impl Troupe {
    fn spec(&mut self) -> Spec {
        let version = self.r.pick(&[
            Lite01, Lite02, Lite03, Lite04, Lite05, Lite05, Lite05, Lite05, Lite06, Lite06, Lite06,
            Lite06,
        ]);
        let shard = self.r.below(self.w.stage.shards as u64) as usize;
        let weather = if self.r.one_in(2) { Weather::FAIR } else { stormy(&mut self.r) };
        let window = self.r.pick(&[8 << 20, 8 << 20, 50_000]);
        let uni_streams = self.r.pick(&[1000, 1000, 3]);
        let manner = Manner { is_eager: self.r.one_in(2), is_second: self.r.one_in(3) };
        let web = self.r.one_in(2).then_some(manner);
        Spec { weather, window, uni_streams, web, ..Spec::new(version, shard) }
    }

    fn add_publisher(&mut self, path: &str) {
        let hop = if self.r.one_in(4) { 0 } else { 5000 + self.w.peers.len() as u64 };
        let is_player = self.r.one_in(3);
        let spec = Spec { is_hasty: self.r.one_in(3), ..self.spec().hop(hop) };
        let peer = self.w.arrive(if is_player { player_like(spec) } else { spec });
        self.w.peers[peer].announce(path, &[], Cost::ZERO);
        self.add_tracks(peer, path);
    }

    fn add_tracks(&mut self, peer: usize, path: &str) {
        for track in ["video", "audio"] {
            let track = self.w.track(peer, path, track);
            self.tracks.push(track);
            self.ways.push(track);
            self.next.push(0);
        }
    }

    fn is_player(&self, track: Track) -> bool {
        self.w.peers[track.peer].spec.is_player
    }

    /// A track as it is published now, and the next sequence of that.
    fn present(&self, index: usize) -> (Track, u64) {
        let track = self.w.current(self.tracks[index]);
        if !self.is_player(track) {
            return (track, self.next[index]);
        }
        let order = &self.w.peers[track.peer].sources[track.source].order;
        (track, order.last().map_or(0, |last| last + 1))
    }

    /// Somebody else who brings what a publisher makes.
    fn add_way(&mut self) -> Option<()> {
        let track = self.r.pick(&self.tracks);
        let first = &self.w.peers[track.peer];
        // Content whose maker is not known is nobody else's.
        let is_named = first.version >= Lite04 && first.spec.setup.hop != 0;
        if !is_named || !first.is_up() || self.w.peers.len() >= 13 {
            return None;
        }
        let version = self.r.pick(&[Lite04, Lite05, Lite06]);
        let spec = Spec { version, ..self.spec().hop(5000 + self.w.peers.len() as u64) };
        if self.is_player(track) {
            self.add_player(track, spec);
            return Some(());
        }
        let peer = self.w.second_way(track, spec).peer;
        let sources = 0..self.w.peers[peer].sources.len();
        self.ways.extend(sources.map(|source| Track { peer, source }));
        Some(())
    }

    /// The same player in another session: it numbers its groups by itself.
    fn add_player(&mut self, track: Track, spec: Spec) {
        let hops = [self.w.peers[track.peer].spec.setup.hop];
        let path = self.w.source(track).path.clone();
        // What one brings that leaves, nobody goes on with.
        if self.w.peers[track.peer].is_leaving() {
            self.w.unsettle(track.peer);
        }
        let peer = self.w.arrive(player_like(spec));
        self.w.peers[peer].announce(&path, &hops, Cost::ZERO);
        self.add_tracks(peer, &path);
    }

    fn some_way(&mut self) -> Option<Track> {
        let way = self.r.pick(&self.ways);
        self.w.peers[way.peer].is_up().then_some(self.w.current(way))
    }

    fn some_get(&mut self) -> Option<Get> {
        let peer = self.some_viewer()?;
        let count = self.w.peers[peer].fetches.len() as u64;
        (count > 0).then(|| Get { peer, index: self.r.below(count) as usize })
    }

    /// A group that is there, that comes, that is long gone, or that was a datagram.
    fn want(&mut self, track: usize, version: Version) -> Want {
        let (present, next) = self.present(track);
        let mut group = next.saturating_sub(self.r.below(8)) + self.r.below(3);
        let groups = &self.w.source(present).groups;
        let recent: Vec<u64> = groups.keys().rev().take(6).copied().collect();
        if !recent.is_empty() && !self.r.one_in(4) {
            group = self.r.pick(&recent);
        }
        let want = Want { priority: self.r.pick(&[1, 128, 200]), ..whole(group) };
        if version < Lite06 || self.r.one_in(2) {
            return want;
        }
        let frame_start = self.r.below(3);
        let frame_end = self.r.one_in(3).then(|| frame_start + self.r.below(3));
        Want { frame_start, frame_end, ..want }
    }

    fn fetch(&mut self) -> Option<()> {
        let peer = self.some_viewer()?;
        let version = self.w.peers[peer].version;
        let open = self.w.peers[peer].fetches.iter().filter(|get| get.seen.end.is_none()).count();
        if version < Lite05 || open >= 4 {
            return None;
        }
        let track = self.r.below(self.tracks.len() as u64) as usize;
        let want = self.want(track, version);
        let Track { peer: publisher, source } = self.tracks[track];
        let source = &self.w.peers[publisher].sources[source];
        let (path, name) = (source.path.clone(), source.track.clone());
        self.w.fetch(peer, &path, &name, want);
        Some(())
    }

    /// A publisher is slow, has nothing to give, or fails while its session goes on.
    fn be_faulty(&mut self) -> Option<()> {
        let way = self.some_way()?;
        match self.r.below(6) {
            0 => self.w.source(way).refuses_fetch = Some(self.r.pick(&[0x33, 0x35, 0x41])),
            1 | 2 => self.w.source(way).fetch_pace = Some(self.r.below(3) as usize),
            3 | 4 => {
                self.w.source(way).refuses_fetch = None;
                self.w.source(way).fetch_pace = None;
            }
            _ => {
                let mut end = self.r.pick(&[End::Reset(0x41), End::Reset(0), End::Finished]);
                // Without END, FIN is the end of the track there.
                if self.w.peers[way.peer].version <= Lite04 {
                    end = End::Reset(0x41);
                }
                let cuts_groups = self.r.one_in(3);
                self.w.break_off(way, end, cuts_groups);
            }
        }
        Some(())
    }

    fn add_viewer(&mut self) {
        let spec = self.spec();
        self.w.arrive(spec);
    }

    /// A viewer that is up, if the one that was thought of is.
    fn some_viewer(&mut self) -> Option<usize> {
        let peer = self.r.below(self.w.peers.len() as u64) as usize;
        let is_viewer = self.w.peers[peer].sources.is_empty() && !self.w.peers[peer].spec.is_rude;
        (is_viewer && self.w.peers[peer].is_up()).then_some(peer)
    }

    fn some_sub(&mut self) -> Option<Sub> {
        let peer = self.some_viewer()?;
        let count = self.w.peers[peer].subscriptions.len() as u64;
        if count == 0 {
            return None;
        }
        let sub = Sub { peer, index: self.r.below(count) as usize };
        let known = self.w.sub(sub);
        (known.end.is_none() && !known.has_left).then_some(sub)
    }

    fn wanted(&mut self, track: usize, version: Version) -> Preferences {
        let near = self.present(track).1.saturating_sub(2) + self.r.below(4);
        let wanted = match self.r.below(6) {
            0 => range(near, None),
            1 => range(near, near + self.r.below(6)),
            5 if version >= Lite06 => {
                let frame_end = Some(self.r.below(3));
                Preferences { frame_end, ..range(near, near + self.r.below(3)) }
            }
            2 => range(None, near + self.r.below(6)),
            _ => live(),
        };
        let max_age_ms = match self.w.groups_expire {
            true => self.r.pick(&[0, 100, 2000, AGES]),
            false => AGES,
        };
        // Few priorities, so that not every newcomer changes what the relay asks for.
        Preferences { priority: self.r.pick(&[1, 128, 128, 128]), max_age_ms, ..wanted }
    }

    fn act(&mut self) -> Option<()> {
        match self.r.below(135) {
            0..6 if self.w.peers.len() < 10 => self.add_viewer(),
            6..25 => {
                let peer = self.some_viewer()?;
                let track = self.r.below(self.tracks.len() as u64) as usize;
                let wanted = self.wanted(track, self.w.peers[peer].version);
                let Track { peer: publisher, source } = self.tracks[track];
                let source = &self.w.peers[publisher].sources[source];
                let (path, name) = (source.path.clone(), source.track.clone());
                if self.w.peers[peer].subscriptions.len() < 8 {
                    self.w.subscribe(peer, &path, &name, wanted);
                }
            }
            25..30 => {
                let sub = self.some_sub()?;
                let track = self.r.below(self.tracks.len() as u64) as usize;
                let wanted = self.wanted(track, self.w.peers[sub.peer].version);
                self.w.update(sub, wanted);
            }
            30..34 => {
                let sub = self.some_sub()?;
                let stops_too = self.r.one_in(2);
                self.w.peers[sub.peer].leave(sub.index, stops_too);
            }
            34..36 => {
                let peer = self.some_viewer()?;
                self.w.peers[peer].listen("", 0);
            }
            36..38 => {
                let peer = self.some_viewer()?;
                if self.w.peers[peer].version >= Lite05 {
                    self.w.peers[peer].ask("a", "video");
                }
            }
            38 => {
                let peer = self.some_viewer()?;
                self.w.kill(peer);
            }
            39 => {
                let peer = self.some_viewer()?;
                match self.r.one_in(3) {
                    true => self.w.hang_up(peer),
                    false => self.w.close(peer),
                }
            }
            40..43 => self.be_rude()?,
            43..46 => {
                let peer = self.some_viewer()?;
                let reads = !self.w.peers[peer].reads_groups;
                self.w.peers[peer].read_groups(reads);
            }
            46..49 => {
                let shard = self.r.below(self.w.stage.shards as u64) as usize;
                let time = self.r.below(300);
                self.w.stall(shard, ms(time));
            }
            49 if self.r.one_in(3) => {
                let way = self.some_way()?;
                match self.r.one_in(2) {
                    true => self.w.kill(way.peer),
                    false => self.w.close(way.peer),
                }
            }
            50..68 => self.fetch()?,
            68 => {
                let get = self.some_get()?;
                self.w.leave_fetch(get);
            }
            69..72 => self.be_faulty()?,
            72 => self.add_way()?,
            73 if self.r.one_in(3) => {
                let way = self.some_way()?;
                if self.is_player(way) {
                    self.w.unsettle(way.peer);
                }
                self.w.peers[way.peer].go_away();
            }
            74..120 => self.publish()?,
            120..135 => self.publish_datagrams()?,
            _ => {}
        }
        Some(())
    }

    /// Something like a message, on a stream of its own.
    fn be_rude(&mut self) -> Option<()> {
        let peer = self.w.peers.iter().position(|peer| peer.spec.is_rude && peer.is_up())?;
        let templates: [(Dir, &[u8]); 8] = [
            (Dir::Bi, b"\x01\x01\x00"),
            (Dir::Bi, b"\x01\x03\x01a\x00"),
            (Dir::Bi, b"\x02\x10\x00\x01a\x05video\x80\x41\xf4\x00\x00\x00\x00"),
            (Dir::Bi, b"\x02\x0f\x07\x01a\x05video\x80\x00\x41\xf4\x00\x00"),
            (Dir::Bi, b"\x06\x08\x01a\x05video"),
            (Dir::Bi, b"\x03\x0b\x01a\x05video\x03\x07\x00\x00"),
            (Dir::Uni, b"\x00\x03\x00\x05\x00\x02\x05hello"),
            (Dir::Uni, b"\x3a\x01\x00"),
        ];
        if self.r.one_in(4) {
            let mut bytes = vec![0; self.r.below(9) as usize];
            self.r.fill(&mut bytes);
            // Now and then in the session, or of an id that there is.
            bytes.iter_mut().take(2).for_each(|byte| *byte &= 3);
            self.w.peers[peer].raw_datagram(&bytes);
        }
        let (dir, template) = self.r.pick(&templates);
        let mut bytes = template.to_vec();
        for _ in 0..self.r.below(3) {
            let at = self.r.below(bytes.len() as u64) as usize;
            bytes[at] = self.r.next() as u8;
        }
        if self.r.one_in(4) {
            bytes.truncate(self.r.below(bytes.len() as u64) as usize + 1);
        }
        let fin = self.r.one_in(3);
        // By WebTransport there are streams of no session too.
        let stream = match self.r.one_in(4) {
            true => self.w.peers[peer].try_plain(dir, &bytes, fin)?,
            false => self.w.peers[peer].try_raw(dir, &bytes, fin)?,
        };
        if self.r.one_in(4) {
            self.w.peers[peer].reset_raw(stream, 7);
        }
        Some(())
    }

    fn publish(&mut self) -> Option<()> {
        let index = self.r.below(self.tracks.len() as u64) as usize;
        let (track, next) = self.present(index);
        let mut prints = self.w.prints(track).into_iter();
        if !prints.any(|print| self.w.peers[print.peer].is_up())
            || self.w.source(track).end.is_some()
        {
            return None;
        }
        let is_player = self.is_player(track);
        let open = self.open_groups(track);
        // A player makes what it is asked for.
        if is_player && !self.w.peers[track.peer].is_feeding(track.source) {
            return None;
        }
        if is_player && self.r.one_in(30) {
            self.end_run(track, next);
            return Some(());
        }
        if open.is_empty() || self.r.one_in(3) {
            // Now and then one is left out.
            let sequence = next + u64::from(!is_player && self.r.one_in(10));
            self.next[index] = sequence + 1;
            self.w.open_group(track, sequence);
            for _ in 0..self.r.below(3) + u64::from(is_player) {
                self.write(track, sequence);
            }
            if self.r.one_in(2) {
                self.w.end_group(track, sequence, End::Finished);
            }
            return Some(());
        }
        let sequence = self.r.pick(&open);
        match self.r.below(10) {
            0 => {
                let code = self.r.pick(&[0x1, 0x34, 0x41]);
                self.w.end_group(track, sequence, End::Reset(code));
            }
            1..5 => self.w.end_group(track, sequence, End::Finished),
            _ => self.write(track, sequence),
        }
        Some(())
    }

    fn open_groups(&mut self, track: Track) -> Vec<u64> {
        let groups = self.w.source(track).groups.iter();
        groups.filter(|(_, group)| group.end.is_none()).map(|(sequence, _)| *sequence).collect()
    }

    fn write(&mut self, track: Track, sequence: u64) {
        let size = self.r.pick(&[0, 1, 100, 100, 1500, 8000, 30_000]);
        // Which run it is of is to be seen.
        let size = if self.is_player(track) { size.max(FRAME_BYTES_TELLING) } else { size };
        self.w.frame(track, sequence, size);
    }

    /// As when a microphone is switched off.
    fn end_run(&mut self, track: Track, next: u64) {
        for sequence in self.open_groups(track) {
            self.w.end_group(track, sequence, End::Finished);
        }
        self.w.finish(track, next);
    }

    fn publish_datagrams(&mut self) -> Option<()> {
        let index = self.r.below(self.tracks.len() as u64) as usize;
        let track = self.tracks[index];
        let is_up = self.w.peers[track.peer].is_up();
        // Players have none.
        if !is_up || self.is_player(track) || self.w.source(track).end.is_some() {
            return None;
        }
        for _ in 0..1 + self.r.below(6) {
            self.write_datagram(index);
        }
        Some(())
    }

    /// A datagram with the next number, or the last one again. Some are too large for any wire.
    fn write_datagram(&mut self, index: usize) {
        let sent = &self.w.source(self.tracks[index]).datagrams;
        let size = self.r.pick(&[0, 1, 60, 60, 300, 1400]);
        match sent.last() {
            Some((sequence, frame)) if self.r.one_in(8) => {
                let (sequence, size) = (*sequence, frame.payload.len());
                self.w.datagram(self.tracks[index], sequence, size);
            }
            _ => {
                self.w.datagram(self.tracks[index], self.next[index], size);
                self.next[index] += 1;
            }
        }
    }

    /// Where a publisher has gone, another one comes with paths of its own.
    fn replace_publishers(&mut self) {
        let known = self.w.peers.iter().filter(|peer| !peer.sources.is_empty());
        let gone = known.filter(|peer| !peer.is_up()).count();
        if gone > 0 && self.w.peers.len() < 11 {
            let path = format!("b/c/{}", self.w.peers.len());
            self.add_publisher(&path);
        }
    }

    /// The storm pauses for long enough that everybody knows what everybody wants.
    fn calm(&mut self) {
        let weathers: Vec<Weather> = self.w.peers.iter().map(|peer| peer.spec.weather).collect();
        for peer in &mut self.w.peers {
            let Weather { latency, .. } = peer.spec.weather;
            peer.spec.weather = Weather { latency, ..Weather::FAIR };
        }
        for peer in &mut self.w.peers {
            for source in &mut peer.sources {
                peer.is_dirty = true;
                (source.refuses_fetch, source.fetch_pace) = (None, None);
            }
        }
        self.w.run(ms(8000));
        self.w.judge_all();
        self.w.all_settled();
        for (peer, weather) in self.w.peers.iter_mut().zip(weathers) {
            peer.spec.weather = weather;
        }
    }

    fn count(&self, tally: &mut Tally) {
        tally.groups += self.w.groups_confirmed;
        tally.datagrams += self.w.datagrams_confirmed;
        let fetches = self.w.peers.iter().flat_map(|peer| &peer.fetches);
        tally.fetches += fetches.filter(|get| get.seen.end == Some(End::Finished)).count();
        let is_first = |way: &Track| {
            self.tracks.iter().any(|track| (track.peer, track.source) == (way.peer, way.source))
        };
        let has_taken_over = |way: &&Track| {
            let asked = &self.w.peers[way.peer].asked;
            !is_first(way) && asked.iter().any(|(_, asked)| matches!(asked, Asked::Subscribe(..)))
        };
        tally.takeovers += self.ways.iter().filter(has_taken_over).count();
        let (runs, went_on) = self.w.runs_shown();
        tally.runs += runs;
        tally.went_on += went_on;
    }

    fn finale(&mut self) {
        for peer in 0..self.w.peers.len() {
            self.w.peers[peer].read_groups(true);
        }
        for index in 0..self.tracks.len() {
            let (track, next) = self.present(index);
            if self.r.one_in(3) {
                continue;
            }
            if self.r.one_in(2) {
                self.end_run(track, next);
                continue;
            }
            for sequence in self.open_groups(track) {
                self.w.end_group(track, sequence, End::Finished);
            }
        }
        self.calm();
        self.w.run(ms(7000));
    }
}

/// A player whose groups arrive in order: one that overtakes the first of its run may seem to go on
/// with the run before.
fn player_like(spec: Spec) -> Spec {
    let weather = Weather { jitter: Duration::ZERO, lost_up: 0, ..spec.weather };
    Spec { is_player: true, weather, ..spec }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn random_peers_under_random_faults() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(SEEDS),
    };
    let (mut failed, mut tally, count) = (Vec::new(), Tally::default(), seeds.clone().count());
    for seed in seeds {
        let played = catch_unwind(AssertUnwindSafe(|| {
            let first = random_play(seed, &mut tally);
            if seed % number("SIM_REPLAYED").unwrap_or(REPLAYED) == 0 {
                let again = random_play(seed, &mut Tally::default());
                assert_eq!(again, first, "the same seed gave another history");
            }
        }));
        if played.is_err() {
            eprintln!("seed {seed} failed: SIM_SEED={seed} cargo test --test sim random_peers");
            failed.push(seed);
        }
    }
    println!("{tally:?} in {count} plays");
    assert!(failed.is_empty(), "seeds {failed:?} failed");
    let Tally { groups, datagrams, fetches, takeovers, runs, went_on } = tally;
    let is_rich = groups > 10 * count
        && 4 * datagrams > count
        && fetches > 2 * count
        && 10 * takeovers > count
        && 10 * runs > count
        && 40 * went_on > count;
    assert!(is_rich || count < 100, "{tally:?} in {count} plays");
}
