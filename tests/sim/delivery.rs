//! Who gets what, and in which order.

use super::*;

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

/// Groups of one to the other, the last of such frames, and the end.
#[track_caller]
fn hears(from: Spec, to: Spec, last: &[usize]) {
    let name = format!("from {} {:?} to {} {:?}", from.version, from.ws, to.version, to.ws);
    let mut w = world(2);
    let cam = w.publisher_like(from, PATH, TRACK);
    let ann = w.join(to);
    let sub = w.subscribe(ann, PATH, TRACK, live());
    w.run(ms(200));
    w.all_settled();
    w.group(cam, 0, &SIZES);
    w.run(ms(100));
    w.group(cam, 1, &[]);
    w.run(ms(100));
    w.group(cam, 2, last);
    w.run(ms(300));
    assert_eq!(w.got_sorted(sub), [0, 1, 2], "{name}");
    w.finish(cam, 3);
    w.run(ms(6000));
    assert_eq!(w.sub(sub).end, Some(End::Finished), "{name}");
    w.end();
}

#[test]
fn every_version_hears_every_version() {
    let versions = VERSIONS.into_iter().flat_map(|from| VERSIONS.map(|to| (from, to)));
    for (from, to) in versions {
        for [here, there] in TRANSPORTS.iter().flat_map(|a| TRANSPORTS.map(|b| [*a, b])) {
            let from = Spec { web: here, ..Spec::new(from, 0).hop(7) };
            hears(from, Spec { web: there, ..Spec::new(to, 1) }, &SIZES);
        }
    }
}

#[test]
fn every_version_is_heard_in_a_websocket_and_hears_there() {
    let versions = VERSIONS.into_iter().flat_map(|from| VERSIONS.map(|to| (from, to)));
    for (at, (from, to)) in versions.enumerate() {
        let wire = Some(WIRES[at % 3]);
        for [here, there] in [[wire, None], [None, wire], [wire, Some(WIRES[at / 3 % 3])]] {
            let from = Spec { ws: here, ..Spec::new(from, 0).hop(7) };
            hears(from, Spec { ws: there, ..Spec::new(to, 1) }, &[100_000]);
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
