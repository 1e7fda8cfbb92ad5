//! Publishers that say that they leave.

use super::*;

/// Those that can say so.
const LEAVING: [Version; 3] = [Lite04, Lite05, Lite06];

impl Scene {
    fn goes_away(&mut self, peer: usize) {
        self.w.peers[peer].go_away();
        self.w.run(SOON);
    }
}

#[test]
fn one_that_leaves_brings_what_it_was_asked_for_and_is_asked_nothing_new() {
    for (version, place) in LEAVING.into_iter().flat_map(|version| PLACES.map(|p| (version, p))) {
        let mut s = scene(version, place);
        let other = s.w.track(s.cam.peer, PATH, "other");
        let one = s.watch(Lite06, 0);
        s.groups(0..1);
        s.w.open_group(s.cam, 1);
        s.w.frame(s.cam, 1, 2000);
        s.w.run(SOON);
        s.goes_away(s.cam.peer);
        s.w.asked(s.cam.peer);
        s.w.frame(s.cam, 1, 3000);
        s.w.end_group(s.cam, 1, End::Finished);
        let two = s.watch(Lite05, 1);
        s.groups(2..4);
        s.w.run(SOON);
        assert_eq!(s.w.got_sorted(one), [0, 1, 2, 3], "{version} {place:?}");
        assert!(s.w.got_sorted(two).ends_with(&[2, 3]), "{version} {place:?}");
        // What it would have to be asked for is refused, and nobody is kept waiting.
        let viewer = s.viewer(Lite06, 2);
        let new = s.w.subscribe(viewer, PATH, "other", live());
        let get = s.fetch(viewer, whole(9));
        s.w.run(SOON);
        assert_eq!(s.w.sub(new).end, reset(StreamCode::GOING_AWAY), "{version} {place:?}");
        if FETCHABLE.contains(&version) {
            assert_eq!(s.w.outcome(get), (0, reset(StreamCode::GOING_AWAY)), "{place:?}");
        }
        s.w.leave_fetch(get);
        // The subscription that it has is paused and resumed like any other.
        s.w.leave(one);
        s.w.leave(two);
        s.w.run(LINGER_DEFAULT - ms(1000));
        let three = s.watch(Lite06, 0);
        s.groups(4..5);
        s.w.run(SOON);
        assert_eq!(s.w.got(three).last(), Some(&4), "{version} {place:?}");
        let asked = s.w.asked(s.cam.peer);
        let is_update = |asked: &Asked| matches!(asked, Asked::Update(_));
        assert!(!asked.is_empty() && asked.iter().all(is_update), "{version}: {asked:?}");
        // Released, it is of no more use.
        s.w.leave(three);
        s.w.run(LINGER_DEFAULT + ms(1000));
        let late = s.subscribe(viewer, live());
        s.w.run(SOON);
        assert_eq!(s.w.sub(late).end, reset(StreamCode::GOING_AWAY), "{version} {place:?}");
        assert!(s.w.asked(s.cam.peer).ends_with(&[Asked::Unsubscribe]), "{version} {place:?}");
        assert!(s.w.source(other).broken.is_empty());
        s.w.end();
    }
}

#[test]
fn another_way_takes_over_from_one_that_leaves_in_mid_group() {
    let pairs = PAIRS.into_iter().chain([(Lite04, Lite06)]);
    for ((first, second), place) in pairs.flat_map(|pair| PLACES.map(|place| (pair, place))) {
        for comes_later in [false, true] {
            let what = format!("{first} then {second}, {comes_later}, {place:?}");
            let mut s = scene(first, place);
            let early = (!comes_later).then(|| s.second_way(second, place.publisher + 1));
            let (viewers, subs) = s.in_mid_group();
            s.w.asked(s.cam.peer);
            s.goes_away(s.cam.peer);
            let spare = early.unwrap_or_else(|| s.second_way(second, place.publisher + 1));
            assert_eq!(s.w.asked(s.cam.peer), [Asked::Unsubscribe], "{what}");
            // What the first one is like was learned from it, or assumed.
            let max_age_ms = if first == Lite04 { TRACK_MAX_AGE_MS_DEFAULT } else { AGES };
            let wanted = Preferences { frame_start: 1, max_age_ms, ..range(1, None) };
            let expect = [s.asks(), s.subscribes(as_read_by(second, wanted))];
            assert_eq!(s.w.asked(spare.peer), expect, "{what}");
            s.w.frame(s.cam, 1, 3000);
            s.w.end_group(s.cam, 1, End::Finished);
            s.groups(2..4);
            s.w.run(SOON);
            for sub in subs {
                assert_eq!(
                    (s.w.sub(sub).end, s.w.got_sorted(sub)),
                    (None, vec![0, 1, 2, 3]),
                    "{what}"
                );
            }
            // Newcomers, and those who fetch, are served by the other one too.
            let get = s.fetch(viewers[3], whole(1));
            let new = s.subscribe(viewers[2], live());
            s.w.run(SOON);
            s.w.close(s.cam.peer);
            s.groups(4..5);
            s.w.run(SOON);
            assert_eq!(s.w.outcome(get), (3, DONE), "{what}");
            assert_eq!(s.w.got(new).last(), Some(&4), "{what}");
            assert_eq!(s.w.asked(s.cam.peer), [], "{what}");
            s.w.end();
        }
    }
}

#[test]
fn what_is_idle_moves_too_and_a_fetch_that_has_begun_does_not() {
    for place in PLACES {
        let mut s = scene(Lite06, place);
        let spare = s.second_way(Lite05, place.publisher + 1);
        s.groups(0..3);
        let ann = s.viewer(Lite06, 0);
        s.pace(1);
        let begun = s.fetch(ann, whole(1));
        s.w.run(SOON);
        s.goes_away(s.cam.peer);
        assert_eq!(s.w.asked(spare.peer), [], "{place:?}");
        s.pace(None);
        s.w.run(SOON);
        assert_eq!(s.w.outcome(begun), (4, DONE), "{place:?}");
        let next = s.fetch(ann, whole(2));
        s.w.run(SOON);
        assert_eq!(s.w.outcome(next), (4, DONE), "{place:?}");
        assert_eq!(s.w.asked(spare.peer), [s.asks(), s.fetches(whole(2))], "{place:?}");
        assert_eq!(s.w.asked(s.cam.peer), [s.asks(), s.fetches(whole(1))], "{place:?}");
        s.w.end();

        // What is paused is let go, and the next viewer is brought by the other one.
        let mut s = scene(Lite06, place);
        let spare = s.second_way(Lite05, place.publisher + 1);
        let sub = s.watch(Lite06, 0);
        s.groups(0..2);
        s.w.run(SOON);
        s.w.leave(sub);
        s.w.run(SOON);
        s.w.asked(s.cam.peer);
        s.goes_away(s.cam.peer);
        assert_eq!(s.w.asked(s.cam.peer), [Asked::Unsubscribe], "{place:?}");
        let sub = s.watch(Lite06, 0);
        s.groups(2..3);
        s.w.run(SOON);
        assert_eq!(s.w.got(sub).last(), Some(&2), "{place:?}");
        assert_eq!(s.w.asked(spare.peer), [s.asks(), s.subscribes(live())], "{place:?}");
        s.w.end();
    }
}

#[test]
fn a_way_that_has_failed_does_not_take_over_from_one_that_leaves() {
    for place in PLACES {
        let mut s = scene(Lite06, place);
        let spare = s.second_way(Lite05, place.publisher + 1);
        let sub = s.watch(Lite06, 0);
        s.groups(0..1);
        s.w.run(SOON);
        // To the other one, which fails, and back.
        s.fail(s.cam, Failure::Reset);
        s.w.run(SOON);
        s.groups(1..2);
        s.w.run(SOON);
        s.fail(spare, Failure::Reset);
        s.w.run(SOON);
        s.groups(2..3);
        s.w.run(SOON);
        s.w.asked(spare.peer);
        s.goes_away(s.cam.peer);
        s.w.asked(s.cam.peer);
        s.groups(3..4);
        s.w.run(SOON);
        assert_eq!(s.w.asked(spare.peer), [], "{place:?}");
        assert_eq!((s.w.sub(sub).end, s.w.got_sorted(sub)), (None, vec![0, 1, 2, 3]), "{place:?}");
        s.w.end();
    }
}

#[test]
fn one_that_leaves_before_it_has_answered_is_not_asked_to_go_on() {
    for place in PLACES {
        let mut s = scene(Lite06, place);
        let ann = s.viewer(Lite06, 0);
        let track = s.track.clone();
        let info = s.w.peers[ann].ask(PATH, &track);
        s.check(&[s.asks()]);
        s.goes_away(s.cam.peer);
        // It has said what the track is like, and that is still known.
        assert!(matches!(s.w.peers[ann].infos[info].answer, Some(Ok(_))));
        let sub = s.subscribe(ann, live());
        s.w.run(SOON);
        assert_eq!(s.w.sub(sub).end, reset(StreamCode::GOING_AWAY), "{place:?}");
        s.check(&[]);
        s.w.end();
    }
}

#[test]
fn one_that_leaves_is_served_and_not_asked_what_else_it_has() {
    for version in LEAVING {
        let mut s = scene(Lite06, APART);
        let leaver = s.w.join(Spec::new(version, 1).hop(30));
        s.goes_away(leaver);
        let sub = s.subscribe(leaver, live());
        let listen = s.w.peers[leaver].listen("", 0);
        s.w.run(SOON);
        s.w.all_settled();
        s.groups(0..2);
        s.w.run(SOON);
        assert_eq!(s.w.got_sorted(sub), [0, 1], "{version}");
        assert_eq!(s.w.peers[leaver].listens[listen].live(), [PATH], "{version}");
        s.w.end();
    }
}

#[test]
fn a_goaway_that_is_none_changes_nothing() {
    for bytes in [&b"\x05\x02\x05\x00"[..], b"\x05\x00", b"\x05\x02\x01\xff", b"\x05"] {
        let mut s = scene(Lite06, APART);
        let raw = s.w.raw(s.cam.peer, Dir::Bi, bytes, true);
        s.w.run(SOON);
        let end = s.w.peers[s.cam.peer].raws[&raw].end;
        assert!(end.is_some(), "{bytes:x?}");
        let sub = s.watch(Lite06, 0);
        s.groups(0..1);
        s.w.run(SOON);
        assert_eq!(s.w.got(sub), [0], "{bytes:x?}");
        s.w.end();
    }
}

#[test]
fn listeners_hear_of_what_wins_over_one_that_leaves() {
    let max = VARINT_MAX;
    let told = SOON + ROUTE_CHANGE_HOLD;
    let expect = [
        (
            Lite06,
            [
                format!("+{PATH} [7] 0"),
                ".".to_owned(),
                format!("~{PATH} [7] {max}"),
                format!("+late [7] {max}"),
                format!("~{PATH} [9] 101"),
                "~late [9] 101".to_owned(),
            ]
            .to_vec(),
        ),
        (
            Lite05,
            [
                format!("+{PATH} [7]"),
                ".".to_owned(),
                "+late [7]".to_owned(),
                format!("~{PATH} [9]"),
                "~late [9]".to_owned(),
            ]
            .to_vec(),
        ),
        // Where there are no restarts, another broadcast begins when the one before it ends.
        (
            Lite03,
            [
                format!("+{PATH}"),
                "+late".to_owned(),
                format!("-{PATH}"),
                format!("+{PATH}"),
                "-late".to_owned(),
                "+late".to_owned(),
            ]
            .to_vec(),
        ),
    ];
    for (version, expect) in expect {
        for place in PLACES {
            let mut s = scene(Lite06, place);
            let ann = s.viewer(version, 0);
            let listen = s.w.peers[ann].listen("", 0);
            s.w.run(SOON);
            s.goes_away(s.cam.peer);
            s.w.run(told);
            // What it announces from now on is no better.
            s.w.peers[s.cam.peer].announce("late", &[], Cost::ZERO);
            s.w.run(told);
            let dear = Cost { warm: 100, cold: 100 };
            let other = s.w.join(Spec::new(Lite06, 0).hop(9));
            for path in [PATH, "late"] {
                s.w.peers[other].announce(path, &[], dear);
                s.w.run(told);
            }
            s.w.peers[s.cam.peer].announce(PATH, &[8], Cost::ZERO);
            s.w.run(told);
            assert_eq!(s.w.peers[ann].listens[listen].heard, expect, "{version} {place:?}");
            s.w.end();
        }
    }
}
