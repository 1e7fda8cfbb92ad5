//! One subscription for all, and what becomes of it: pauses, the linger, returns.

use super::*;

#[test]
fn five_viewers_are_one_subscription() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        let viewers = [0, 1, 2, 3, 4].map(|nth| s.viewer(FETCHABLE[nth % 2], nth));
        let subs = viewers.map(|viewer| s.subscribe(viewer, live()));
        s.check(&[s.asks(), s.subscribes(live())]);
        s.w.all_settled();
        s.groups(0..3);
        s.w.run(SOON);
        for sub in subs {
            assert_eq!(s.w.got_sorted(sub), [0, 1, 2], "{place:?}");
        }
        s.check(&[]);
        s.w.end();
    });
}

#[test]
fn a_question_or_a_fetch_alone_opens_no_subscription() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..2);
        let ann = s.viewer(Lite05, 0);
        let track = s.track.clone();
        let info = s.w.peers[ann].ask(PATH, &track);
        s.check(&[s.asks()]);
        assert!(matches!(s.w.peers[ann].infos[info].answer, Some(Ok(_))));
        let get = s.fetch(ann, whole(1));
        s.check(&[s.fetches(whole(1))]);
        assert_eq!(s.w.outcome(get), (4, DONE));
        // Nothing else follows, not even when it is forgotten.
        s.w.run(LINGER_DEFAULT + ms(1000));
        s.check(&[]);
        s.w.end();
    });
}

#[test]
fn the_publisher_sees_what_all_viewers_want_together() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.w.source(s.cam).info.max_age_ms = 5000;
        s.w.groups_expire = true;
        let viewers = [0, 1, 2].map(|nth| s.viewer(Lite06, nth));
        let like = |priority, max_age_ms, wanted| Preferences { priority, max_age_ms, ..wanted };
        let seen = |wanted| Asked::Update(as_read_by(version, wanted));
        let until = |frame| Preferences { frame_end: Some(frame), ..range(3, 20) };

        let one = s.subscribe(viewers[0], like(100, 1000, live()));
        s.check(&[s.asks(), s.subscribes(like(100, 1000, live()))]);
        // No longer than the track keeps; the first still wants everything.
        let two = s.subscribe(viewers[1], like(200, 9000, range(5, 9)));
        s.check(&[seen(like(200, 5000, live()))]);
        s.w.leave(one);
        s.check(&[seen(like(200, 5000, range(5, 9)))]);
        let three = s.subscribe(viewers[2], like(50, 100, until(4)));
        s.check(&[seen(like(200, 5000, until(4)))]);
        // A frame more of the last group is news only where it can be said.
        s.w.update(three, like(50, 100, until(6)));
        match version {
            Lite06 => s.check(&[seen(like(200, 5000, until(6)))]),
            _ => s.check(&[]),
        }
        // Groups are asked for from their first frame.
        let within = Preferences { frame_start: 2, ..range(4, 20) };
        s.w.update(three, like(50, 100, within));
        s.check(&[seen(like(200, 5000, range(4, 20)))]);
        s.w.update(three, like(50, 100, range(4, 20)));
        s.check(&[]);
        s.w.update(two, like(200, 9000, range(4, None)));
        s.check(&[seen(like(200, 5000, range(4, None)))]);
        s.w.update(two, like(10, 50, range(6, 7)));
        s.check(&[seen(like(50, 100, range(4, 20)))]);
        s.w.leave(two);
        s.check(&[]);
        // An end below the start is no demand.
        s.w.update(three, like(50, 100, range(4, 3)));
        s.check(&[s.pauses(100, 0)]);
        s.w.update(three, like(50, 100, range(4, 5)));
        s.check(&[seen(like(50, 100, range(4, 5)))]);
        s.w.leave(three);
        s.check(&[s.pauses(100, 0)]);
        s.w.end();
    });
}

#[test]
fn a_group_that_was_wanted_up_to_a_frame_is_not_whole_for_others() {
    for place in PLACES {
        let mut s = scene(Lite06, place);
        let (ann, bob) = (s.viewer(Lite06, 0), s.viewer(Lite06, 1));
        let capped = s.subscribe(ann, Preferences { frame_end: Some(1), ..range(0, 2) });
        s.w.run(SOON);
        s.groups(0..3);
        s.w.run(SOON);
        assert_eq!(s.w.got_sorted(capped), [0, 1, 2]);
        assert_eq!(s.w.sub(capped).groups[&2].frames.len(), 2);
        // The judge sees to it that nobody takes two frames for all of group 2.
        let get = s.fetch(bob, whole(2));
        let sub = s.subscribe(bob, range(1, None));
        s.w.run(SOON);
        assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
        s.groups(3..4);
        s.w.run(SOON);
        let got = s.w.got_sorted(sub);
        assert!(got.contains(&1) && got.contains(&3), "{place:?}: {got:?}");
        s.w.end();
    }
}

#[test]
fn a_bound_that_was_lifted_long_ago_cuts_nothing_off() {
    for place in PLACES {
        let mut s = scene(Lite06, place);
        let viewers = [0, 1].map(|nth| s.viewer(FETCHABLE[1 - nth], nth));
        let first = s.subscribe(viewers[0], Preferences { frame_end: Some(1), ..range(0, 2) });
        s.w.run(SOON);
        s.w.update(first, range(0, None));
        s.w.run(ms(5000));
        let second = s.subscribe(viewers[1], range(0, None));
        s.w.run(SOON);
        // As many frames as were once wanted of it, and this is all of it.
        s.w.group(s.cam, 2, &[10, 20]);
        s.w.run(SOON);
        for sub in [first, second] {
            assert_eq!(s.w.got(sub), [2], "{place:?}");
        }
        s.w.end();
    }
}

#[test]
fn an_update_that_races_a_leave_leaves_nothing_behind() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        let viewers = [0, 1, 2].map(|nth| s.viewer(Lite06, nth));
        let subs = viewers.map(|viewer| s.subscribe(viewer, range(3, 9)));
        s.check(&[s.asks(), s.subscribes(range(3, 9))]);
        // All at once: one wants more and goes, one goes, one wants something else.
        s.w.update(subs[0], range(1, 20));
        s.w.leave(subs[0]);
        s.w.leave(subs[1]);
        s.w.update(subs[2], range(4, 5));
        s.w.run(SOON);
        let asked = s.w.asked(s.cam.peer);
        assert_eq!(asked.last(), Some(&Asked::Update(range(4, 5))), "{place:?}: {asked:?}");
        s.groups(4..5);
        s.w.run(SOON);
        assert_eq!(s.w.got(subs[2]), [4]);
        // The last one goes while another comes and goes.
        s.w.leave(subs[2]);
        let brief = s.subscribe(viewers[1], live());
        s.w.run(ms(1));
        s.w.leave(brief);
        s.w.run(SOON);
        let asked = s.w.asked(s.cam.peer);
        assert_eq!(asked.last(), Some(&s.pauses(AGES, 4)), "{place:?}: {asked:?}");
        let again = s.subscribe(viewers[0], live());
        s.check(&[Asked::Update(live())]);
        s.w.all_settled();
        s.groups(5..6);
        s.w.run(SOON);
        assert_eq!(s.w.got(again).last(), Some(&5));
        s.w.end();
    });
}

#[test]
fn the_last_one_who_leaves_pauses_the_subscription_and_the_next_one_resumes_it() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        let one = s.watch(Lite06, 0);
        let two = s.watch(Lite05, 1);
        s.w.asked(s.cam.peer);
        s.groups(0..2);
        s.w.open_group(s.cam, 2);
        s.w.frame(s.cam, 2, 100);
        s.w.run(SOON);
        s.w.leave(one);
        s.check(&[]);
        s.w.leave(two);
        s.check(&[s.pauses(AGES, 2)]);
        s.w.run(LINGER_DEFAULT - ms(1000));
        // Held back by the publisher, for it is beyond what the relay wants by now.
        s.w.end_group(s.cam, 2, End::Finished);
        s.groups(3..4);
        s.check(&[]);
        let three = s.watch(Lite05, 2);
        assert_eq!(s.w.asked(s.cam.peer), [Asked::Update(live())]);
        s.groups(4..6);
        s.w.run(SOON);
        let got = s.w.got_sorted(three);
        assert!(got.ends_with(&[4, 5]), "{place:?}: {got:?}");
        // And once more: what was paused was the subscription, not the relay.
        s.w.leave(three);
        s.check(&[s.pauses(AGES, 5)]);
        let four = s.watch(Lite06, 0);
        assert_eq!(s.w.asked(s.cam.peer), [Asked::Update(live())]);
        s.groups(6..7);
        s.w.run(SOON);
        assert_eq!(s.w.got_sorted(four), [0, 1, 2, 3, 4, 5, 6], "{place:?}");
        s.w.end();
    });
}

#[test]
fn a_paused_subscription_is_ended_exactly_at_the_linger() {
    for linger in [LINGER_DEFAULT, ms(700), ms(60_000)] {
        everywhere(|version, place| {
            let stage = Stage { linger, ..Stage::new(1, place.shards) };
            let mut s = scene_on(stage, version, place);
            let subs = [s.watch(Lite06, 0), s.watch(Lite05, 1)];
            s.groups(0..1);
            s.w.run(SOON);
            s.w.leave(subs[0]);
            s.w.run(ms(300));
            s.w.asked(s.cam.peer);
            let left = s.w.now;
            s.w.leave(subs[1]);
            s.w.run(linger + SOON);
            let asked = s.w.asked_when(s.cam.peer);
            let [(paused, pause), (ended, end)] = &asked[..] else { panic!("{asked:?}") };
            assert_eq!((pause, end), (&s.pauses(AGES, 0), &Asked::Unsubscribe));
            assert_near(*paused - left, WAY);
            assert_near(*ended - left, WAY + linger);
            s.w.end();
        });
    }
}

#[test]
fn without_a_linger_the_subscription_ends_at_once() {
    everywhere(|version, place| {
        let stage = Stage { linger: Duration::ZERO, ..Stage::new(1, place.shards) };
        let mut s = scene_on(stage, version, place);
        for round in 0..3 {
            let subs = [s.watch(Lite06, 0), s.watch(Lite05, 1)];
            let asked = s.w.asked(s.cam.peer);
            assert_eq!(asked, [s.asks(), s.subscribes(live())], "{place:?}");
            s.groups(round..round + 1);
            s.w.run(SOON);
            for sub in subs {
                assert_eq!(s.w.got(sub).last(), Some(&round), "{place:?}");
            }
            s.w.leave(subs[0]);
            s.check(&[]);
            s.w.leave(subs[1]);
            s.check(&[Asked::Unsubscribe]);
        }
        s.w.end();
    });
}

#[test]
fn a_fetch_keeps_a_paused_subscription_and_the_linger_begins_after_it() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..6);
        let ann = s.viewer(Lite06, 0);
        let sub = s.subscribe(ann, newest_from(5));
        s.w.run(SOON);
        s.pace(1);
        s.w.asked(s.cam.peer);
        s.w.leave(sub);
        s.check(&[s.pauses(0, 5)]);
        s.w.run(LINGER_DEFAULT - ms(500));
        // On its last half second somebody asks for a group, slowly.
        let bob = s.viewer(Lite05, 1);
        let get = s.fetch(bob, whole(2));
        s.w.run(LINGER_DEFAULT * 3);
        assert_eq!(s.w.asked(s.cam.peer), [s.fetches(whole(2))], "{place:?}");
        assert_eq!(s.w.outcome(get), (1, None));
        s.pace(None);
        let over = s.w.now;
        s.w.run(LINGER_DEFAULT + SOON);
        assert_eq!(s.w.outcome(get), (4, DONE));
        let asked = s.w.asked_when(s.cam.peer);
        let [(ended, Asked::Unsubscribe)] = asked[..] else { panic!("{place:?}: {asked:?}") };
        assert_near(ended - over, WAY + LINGER_DEFAULT);
        s.w.end();
    });
}

#[test]
fn the_pause_does_not_wait_for_a_fetch() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..6);
        s.pace(1);
        let ann = s.viewer(Lite06, 0);
        let sub = s.subscribe(ann, newest_from(5));
        let get = s.fetch(ann, whole(1));
        s.w.run(SOON);
        s.w.asked(s.cam.peer);
        s.w.leave(sub);
        s.check(&[s.pauses(0, 5)]);
        s.w.run(LINGER_DEFAULT * 2);
        s.check(&[]);
        s.w.leave_fetch(get);
        let left = s.w.now;
        s.w.run(LINGER_DEFAULT + SOON);
        let asked = s.w.asked_when(s.cam.peer);
        let [(_, given_up), (ended, Asked::Unsubscribe)] = &asked[..] else {
            panic!("{place:?}: {asked:?}")
        };
        assert_eq!(given_up, &Asked::FetchEnded(1, End::Reset(StreamCode::CANCEL.0)));
        assert_near(*ended - left, WAY + LINGER_DEFAULT);
        s.w.end();
    });
}

#[test]
fn who_returns_after_the_end_is_served_from_the_cache_and_live() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        let sub = s.watch(Lite06, 0);
        s.groups(0..3);
        s.w.run(SOON);
        s.w.leave(sub);
        s.w.run(LINGER_DEFAULT + SOON);
        let asked = s.w.asked(s.cam.peer);
        assert_eq!(asked.last(), Some(&Asked::Unsubscribe), "{asked:?}");

        let bob = s.viewer(Lite06, 1);
        let get = s.fetch(bob, whole(0));
        s.w.run(SOON);
        assert_eq!(s.w.outcome(get), (4, DONE));
        let asked = s.w.asked(s.cam.peer);
        assert!(asked.iter().all(|asked| *asked == s.asks()), "{place:?}: {asked:?}");

        let sub = s.subscribe(bob, live());
        s.w.run(SOON);
        let asked = s.w.asked(s.cam.peer);
        assert_eq!(asked.last(), Some(&s.subscribes(live())), "{place:?}: {asked:?}");
        s.w.all_settled();
        s.groups(3..5);
        s.w.run(SOON);
        let got = s.w.got_sorted(sub);
        match version {
            Lite06 => assert_eq!(got, [0, 1, 2, 3, 4], "{place:?}"),
            // Such a publisher begins with its newest, and what it skips is not asked for.
            _ => assert!(got.ends_with(&[2, 3, 4]), "{place:?}: {got:?}"),
        }
        s.check(&[]);
        s.w.end();
    });
}

#[test]
fn who_leaves_before_the_track_is_known_causes_no_subscription() {
    everywhere(|version, place| {
        for stops_too in [false, true] {
            let mut s = scene(version, place);
            s.groups(0..1);
            let (ann, bob) = (s.viewer(Lite06, 0), s.viewer(Lite05, 1));
            let sub = s.subscribe(ann, live());
            let get = s.fetch(bob, whole(0));
            s.w.run(ms(2));
            s.w.peers[ann].leave(sub.index, stops_too);
            s.w.leave_fetch(get);
            s.check(&[s.asks()]);
            s.w.run(LINGER_DEFAULT + SOON);
            s.check(&[]);
            s.w.end();
        }
    });
}

#[test]
fn who_leaves_before_there_is_a_stream_to_ask_on_causes_nothing() {
    everywhere(|version, place| {
        // One for announcements, and one more.
        let setup = Setup { hop: 7, ..Setup::default() };
        let spec = Spec { setup, bidi_streams: 2, ..Spec::new(version, place.publisher) };
        let mut s = scene_with(Stage::new(1, place.shards), spec, place);
        let blocker = s.w.track(s.cam.peer, PATH, "blocker");
        s.w.source(blocker).never_answers = Some(BidiType::Track);
        s.groups(0..1);
        let (ann, bob) = (s.viewer(Lite06, 0), s.viewer(Lite05, 1));
        let info = s.w.peers[ann].ask(PATH, "blocker");
        s.check(&[Asked::Track("blocker".to_owned())]);
        let (sub, get) = (s.subscribe(ann, live()), s.fetch(bob, whole(0)));
        s.check(&[]);
        s.w.leave(sub);
        s.w.leave_fetch(get);
        s.w.run(SOON);
        // Whoever stays gets it as soon as there is a stream.
        let sub = s.subscribe(bob, live());
        s.check(&[]);
        s.w.run(ANSWER_TIMEOUT);
        assert!(matches!(s.w.peers[ann].infos[info].answer, Some(Err(_))));
        assert_eq!(s.w.asked(s.cam.peer), [s.asks(), s.subscribes(live())], "{place:?}");
        s.w.all_settled();
        s.groups(1..2);
        s.w.run(SOON);
        assert_eq!(s.w.got(sub).last(), Some(&1), "{place:?}");
        s.w.end();
    });
}

#[test]
fn a_fetch_waits_for_a_stream_to_be_asked_on() {
    everywhere(|version, place| {
        let setup = Setup { hop: 7, ..Setup::default() };
        let spec = Spec { setup, bidi_streams: 3, ..Spec::new(version, place.publisher) };
        let mut s = scene_with(Stage::new(1, place.shards), spec, place);
        s.groups(0..8);
        s.pace(1);
        let ann = s.viewer(Lite06, 0);
        let gets: Vec<Get> = (0..8).map(|group| s.fetch(ann, whole(group))).collect();
        s.w.run(SOON);
        assert_eq!(s.w.asked(s.cam.peer).len(), 3, "TRACK, and two at a time");
        // One of those who wait has no patience; it is never asked for.
        s.w.leave_fetch(gets[7]);
        s.w.run(SOON);
        s.pace(None);
        s.w.run(SOON);
        for get in &gets[..7] {
            assert_eq!(s.w.outcome(*get), (4, DONE), "{place:?}");
        }
        let asked = s.w.asked(s.cam.peer);
        assert_eq!(asked.len(), 5, "{place:?}: {asked:?}");
        s.w.end();
    });
}

#[test]
fn who_leaves_before_the_first_group_pauses_at_none() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        let sub = s.watch(Lite06, 0);
        assert_eq!(s.w.asked(s.cam.peer), [s.asks(), s.subscribes(live())]);
        s.w.leave(sub);
        s.check(&[s.pauses(AGES, 0)]);
        let sub = s.watch(Lite05, 1);
        assert_eq!(s.w.asked(s.cam.peer), [Asked::Update(live())]);
        s.groups(0..2);
        s.w.run(SOON);
        assert_eq!(s.w.got_sorted(sub), [0, 1], "{place:?}");
        s.w.end();
    });
}

/// Who has subscribed before there was a group gets all of them, also where his shard hears of the
/// groups in the same turn in which it hears that there were none.
#[test]
fn what_comes_after_a_subscription_is_new_however_late_its_shard_hears_of_it() {
    for version in VERSIONS {
        let place = place(2, 0, 0, 1);
        let mut s = scene(version, place);
        let viewer = s.viewer(version, 0);
        s.w.run(SOON);
        s.w.all_settled();
        // What the viewer wants is known to his shard, and waits for the home.
        s.w.stall(place.home, SOON);
        let sub = s.subscribe(viewer, live());
        s.w.run(SOON / 2);
        // The home asks the publisher, and the viewer's shard hears nothing.
        s.w.stall(place.viewer, 3 * SOON);
        s.w.run(SOON);
        let asked = s.w.asked(s.cam.peer);
        assert!(asked.iter().any(|asked| matches!(asked, Asked::Subscribe(..))), "{asked:?}");
        s.groups(0..2);
        s.w.run(SOON);
        assert!(s.w.got(sub).is_empty(), "{version}: its shard is stalled");
        s.w.run(3 * SOON);
        assert_eq!(s.w.got_sorted(sub), [0, 1], "{version}");
        s.w.end();
    }
}

#[test]
fn nobody_minds_a_publisher_that_is_lost_while_nobody_watches() {
    everywhere(|version, place| {
        for is_broken in [false, true] {
            let mut s = scene(version, place);
            let sub = s.watch(Lite06, 0);
            s.groups(0..1);
            s.w.open_group(s.cam, 1);
            s.w.frame(s.cam, 1, 10);
            s.w.run(SOON);
            s.w.leave(sub);
            s.w.run(SOON);
            s.w.asked(s.cam.peer);
            let ann = sub.peer;
            if is_broken {
                s.w.break_off(s.cam, End::Reset(0x41), false);
                s.w.run(SOON);
            } else {
                s.w.close(s.cam.peer);
                s.w.run(SOON);
                let sub = s.subscribe(ann, live());
                s.w.run(SOON);
                assert_eq!(s.w.sub(sub).end, reset(StreamCode::UNROUTABLE), "{place:?}");
                let peer = s.w.join(Spec::new(version, place.publisher).hop(7));
                s.w.peers[peer].announce(PATH, &[], Cost::ZERO);
                s.cam = s.w.track(peer, PATH, &s.track);
                s.w.run(SOON);
            }
            let sub = s.subscribe(ann, live());
            s.w.run(SOON);
            let asked = s.w.asked(s.cam.peer);
            assert_eq!(asked.last(), Some(&s.subscribes(live())), "{place:?}: {asked:?}");
            s.w.all_settled();
            s.groups(5..6);
            s.w.run(SOON);
            assert_eq!(s.w.got(sub).last(), Some(&5), "{place:?}");
            s.w.end();
        }
    });
}
