//! Publishers that cannot be asked for a group.

use super::*;

/// Lite-03 and 04.
fn of_old(play: impl Fn(Scene)) {
    for version in [Lite03, Lite04] {
        PLACES.into_iter().for_each(|place| play(scene(version, place)));
    }
}

/// One watches these groups, and another one fetches a group that is not among them.
fn awaited(s: &mut Scene, groups: &[u64], group: u64) -> (Sub, Get) {
    let sub = s.watch(Lite06, 0);
    groups.iter().for_each(|sequence| s.groups(*sequence..sequence + 1));
    s.w.run(SOON);
    let bob = s.viewer(Lite05, 1);
    (sub, s.fetch(bob, whole(group)))
}

#[test]
fn a_fetch_without_a_feed_finds_nothing_where_nobody_can_be_asked() {
    of_old(|mut s| {
        s.groups(0..2);
        let ann = s.viewer(Lite05, 0);
        let get = s.fetch(ann, whole(1));
        s.check(&[]);
        assert_eq!(s.w.outcome(get), (0, reset(StreamCode::NOT_FOUND)), "{:?}", s.place);
        s.w.end();
    });
}

#[test]
fn a_fetch_is_held_until_the_feed_brings_the_group() {
    of_old(|mut s| {
        s.watch(Lite06, 0);
        s.groups(0..2);
        s.w.run(SOON);
        let viewers = [0, 1].map(|nth| s.viewer(FETCHABLE[nth], nth));
        s.w.asked(s.cam.peer);
        let gets = viewers.map(|viewer| s.fetch(viewer, whole(2)));
        let held = s.fetch(viewers[1], whole(1));
        s.check(&[]);
        assert_eq!(s.w.outcome(held), (4, DONE));
        s.w.run(ANSWER_TIMEOUT * 2);
        s.outcomes(&gets, (0, None));
        s.w.open_group(s.cam, 2);
        s.w.frame(s.cam, 2, 100);
        s.w.run(WAY + ms(2));
        s.outcomes(&gets, (1, None));
        s.w.frame(s.cam, 2, 0);
        s.w.end_group(s.cam, 2, End::Finished);
        s.w.run(WAY + ms(2));
        s.outcomes(&gets, (2, DONE));
        s.check(&[]);
        s.w.end();
    });
}

#[test]
fn a_fetch_finds_nothing_once_the_feed_cannot_bring_the_group() {
    let missing = (0, reset(StreamCode::NOT_FOUND));
    of_old(|mut s| {
        // Before where the feed was asked to begin.
        let ann = s.viewer(Lite06, 0);
        let sub = s.subscribe(ann, range(3, None));
        s.w.run(SOON);
        s.groups(0..5);
        s.w.run(SOON);
        let before = s.fetch(ann, whole(2));
        s.w.run(ms(6000));
        assert_eq!(s.w.outcome(before), missing, "{:?}", s.place);
        // Left out: others after it have been here for long enough.
        let left_out = s.fetch(ann, whole(5));
        s.w.run(ms(500));
        assert_eq!(s.w.outcome(left_out), (0, None), "{:?}", s.place);
        s.groups(6..7);
        s.w.run(ms(6000));
        assert_eq!(s.w.outcome(left_out), missing, "{:?}", s.place);
        // After the end.
        let after = s.fetch(ann, whole(9));
        s.w.run(ms(500));
        assert_eq!(s.w.outcome(after), (0, None), "{:?}", s.place);
        s.w.finish(s.cam, 7);
        s.w.run(ms(6000));
        assert_eq!(s.w.outcome(after), missing, "{:?}", s.place);
        assert_eq!(s.w.got_sorted(sub), [3, 4, 6], "{:?}", s.place);
        s.w.end();
    });
}

#[test]
fn a_fetch_that_is_held_does_not_hold_a_feed_that_nobody_watches() {
    of_old(|mut s| {
        let (sub, get) = awaited(&mut s, &[0, 1], 7);
        s.w.run(SOON);
        assert_eq!(s.w.outcome(get), (0, None));
        s.w.leave(sub);
        s.w.run(LINGER_DEFAULT + ms(10_000));
        assert_eq!(s.w.outcome(get), (0, reset(StreamCode::NOT_FOUND)), "{:?}", s.place);
        let asked = s.w.asked(s.cam.peer);
        assert_eq!(asked.last(), Some(&Asked::Unsubscribe), "{:?}: {asked:?}", s.place);
        s.w.end();
    });
}

#[test]
fn a_fetch_whose_grace_runs_ends_with_the_feed() {
    of_old(|mut s| {
        let (sub, get) = awaited(&mut s, &[0, 1, 4], 3);
        s.w.run(ms(1000));
        assert_eq!(s.w.outcome(get), (0, None), "{:?}", s.place);
        s.w.leave(sub);
        s.w.run(SOON);
        assert_eq!(s.w.outcome(get), (0, reset(StreamCode::NOT_FOUND)), "{:?}", s.place);
        // Its grace is over before the linger is, and there is nothing left to be done then.
        s.w.run(LINGER_DEFAULT);
        let asked = s.w.asked(s.cam.peer);
        assert_eq!(asked.last(), Some(&Asked::Unsubscribe), "{:?}: {asked:?}", s.place);
        s.w.end();
    });
}

#[test]
fn a_fetch_whose_grace_runs_moves_to_another_way() {
    for place in PLACES {
        let mut s = scene(Lite04, place);
        let spare = s.second_way(Lite05, place.publisher + 1);
        s.w.source(spare).never_answers = Some(BidiType::Track);
        let (sub, get) = awaited(&mut s, &[0, 1, 4], 3);
        s.w.run(ms(1000));
        s.fail(s.cam, Failure::Reset);
        // The other one has said nothing yet when the grace is over.
        s.w.run(ms(6000));
        assert_eq!((s.w.sub(sub).end, s.w.outcome(get)), (None, (0, None)), "{place:?}");
        s.w.run(ANSWER_TIMEOUT);
        assert!(matches!(s.w.sub(sub).end, Some(End::Reset(_))), "{place:?}");
        assert!(matches!(s.w.outcome(get), (0, Some(End::Reset(_)))), "{place:?}");
        s.w.end();
    }
}

#[test]
fn a_fetch_that_is_held_fails_with_its_publisher() {
    of_old(|mut s| {
        let (sub, get) = awaited(&mut s, &[0, 1], 2);
        s.w.run(SOON);
        s.w.close(s.cam.peer);
        s.w.run(SOON);
        assert!(matches!(s.w.sub(sub).end, Some(End::Reset(_))));
        assert!(matches!(s.w.outcome(get), (0, Some(End::Reset(_)))), "{:?}", s.place);
        s.w.end();
    });
}

#[test]
fn old_publishers_are_paused_and_resumed_too() {
    of_old(|mut s| {
        let sub = s.watch(Lite06, 0);
        s.groups(0..2);
        s.w.run(SOON);
        s.w.asked(s.cam.peer);
        let max_age_ms = s.w.sub(sub).wanted.max_age_ms.min(5000);
        s.w.leave(sub);
        s.check(&[s.pauses(max_age_ms, 1)]);
        s.watch(Lite05, 1);
        let resumed = Asked::Update(Preferences { max_age_ms, ..live() });
        assert_eq!(s.w.asked(s.cam.peer), [resumed], "{:?}", s.place);
        s.w.end();
    });
}

#[test]
fn a_track_that_has_ended_is_fetched_from_long_after() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        let (ann, sub) = s.at_the_last();
        s.w.finish(s.cam, 6);
        s.w.run(SOON);
        assert_eq!((s.w.got(sub), s.w.sub(sub).end), (vec![5], DONE), "{place:?}");
        // All that was open upstream has been released.
        s.w.run(LINGER_DEFAULT * 2);
        s.w.asked(s.cam.peer);
        let get = s.fetch(ann, whole(2));
        s.w.run(SOON);
        assert_eq!(s.w.asked(s.cam.peer), [s.asks(), s.fetches(whole(2))], "{place:?}");
        assert_eq!(s.w.outcome(get).1, DONE, "{place:?}");
        s.w.end();
    });
}

#[test]
fn what_is_released_says_nothing_more() {
    let place = place(2, 0, 1, 1);
    for delay in 0..40u64 {
        let stage = Stage { lanes: 1, linger: Duration::ZERO, ..Stage::new(1, 2) };
        let mut s = scene_on(stage, Lite06, place);
        let sub = s.watch(Lite06, 0);
        s.groups(0..1);
        s.w.run(SOON);
        s.w.leave(sub);
        s.w.run(Duration::from_micros(delay * 50));
        // Some of it is on its way when the home has already closed the subscription.
        for sequence in 1..9 {
            s.w.open_group(s.cam, sequence);
            s.w.frame(s.cam, sequence, 100);
        }
        s.w.run(SOON);
        for sequence in 1..9 {
            s.w.frame(s.cam, sequence, 10);
            s.w.end_group(s.cam, sequence, End::Finished);
        }
        s.w.run(SOON);
        let bob = s.viewer(Lite06, 0);
        let gets: Vec<Get> = (1..9).map(|sequence| s.fetch(bob, whole(sequence))).collect();
        s.w.run(ms(500));
        for get in gets {
            assert_eq!(s.w.outcome(get), (2, DONE), "{delay}");
        }
        s.w.end();
    }
}

#[test]
fn who_returns_after_a_takeover_asks_for_what_is_new() {
    for place in PLACES {
        let mut s = scene(Lite06, place);
        let spare = s.second_way(Lite06, place.publisher + 1);
        let sub = s.watch(Lite06, 0);
        s.groups(0..3);
        s.w.run(SOON);
        s.fail(s.cam, Failure::Closed);
        s.w.run(SOON);
        s.w.leave(sub);
        s.w.run(SOON);
        s.w.asked(spare.peer);
        s.watch(Lite06, 0);
        s.w.run(SOON);
        assert_eq!(s.w.asked(spare.peer), [Asked::Update(live())], "{place:?}");
        s.w.end();
    }
}

#[test]
fn a_deadline_that_nobody_waits_for_keeps_no_core_busy() {
    let mut s = scene(Lite06, PLACES[0]);
    // It cannot say that it lacks the first group.
    let spare = s.second_way(Lite04, 0);
    let sub = s.watch(Lite05, 0);
    for sequence in 0..2 {
        s.w.open_group(s.cam, sequence);
        s.w.frame(s.cam, sequence, 100);
    }
    s.w.run(SOON);
    s.w.source(spare).groups.remove(&0);
    s.w.source(spare).order.retain(|sequence| *sequence != 0);
    s.fail(s.cam, Failure::Closed);
    // The group is given up within the linger.
    s.w.run(MISSING_GRACE_MAX - LINGER_DEFAULT / 2);
    s.w.leave(sub);
    // The world complains about a shard that turns without end.
    s.w.run(LINGER_DEFAULT * 3);
    s.w.end();
}
