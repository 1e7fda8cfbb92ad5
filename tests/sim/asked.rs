//! What the publisher sees.

use super::*;

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
