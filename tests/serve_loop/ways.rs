//! Another way to the same broadcast.

use super::*;

#[test]
fn without_another_way_every_reader_gets_the_code_at_once() {
    everywhere(|version, place| {
        for how in FAILURES {
            let mut s = scene(version, place);
            // Another broadcast that happens to have the same name, a little dearer.
            let other = s.w.publisher(Lite06, 0, PATH, &s.track);
            let viewers = [0, 1, 2, 3].map(|nth| s.viewer(VERSIONS[nth], nth));
            let subs = viewers.map(|viewer| s.subscribe(viewer, live()));
            s.w.run(SOON);
            s.groups(0..1);
            s.w.open_group(s.cam, 1);
            s.w.frame(s.cam, 1, 2000);
            s.w.run(SOON);
            let gets = [viewers[2], viewers[3]].map(|viewer| s.fetch(viewer, whole(1)));
            s.w.run(SOON);
            s.fail(s.cam, how);
            s.w.run(SOON);
            let code = match how {
                Failure::Reset => reset(StreamCode(0x41)),
                Failure::FinWithoutEnd => s.w.sub(subs[0]).end,
                Failure::Closed | Failure::Killed => reset(StreamCode::SESSION_CLOSED),
            };
            assert!(matches!(code, Some(End::Reset(_))), "{how:?} {place:?}: {code:?}");
            for sub in subs {
                assert_eq!(s.w.sub(sub).end, code, "{how:?} {place:?}");
                assert_eq!(s.w.sub(sub).groups[&0].end, DONE, "{how:?} {place:?}");
                assert_eq!(s.w.sub(sub).groups[&1].end, code, "{how:?} {place:?}");
            }
            s.outcomes(&gets, (1, code));
            assert_eq!(s.w.asked(other.peer), [], "{how:?} {place:?}");
            s.w.end();
        }
    });
}

#[test]
fn another_way_to_the_same_broadcast_takes_over_in_mid_group() {
    for (first, second) in PAIRS {
        for (place, how) in PLACES.into_iter().flat_map(|place| FAILURES.map(|how| (place, how))) {
            let what = format!("{first} then {second}, {how:?}, {place:?}");
            let mut s = scene(first, place);
            let spare = s.second_way(second, place.publisher + 1);
            let (viewers, subs) = s.in_mid_group();
            let gets = [viewers[2], viewers[3]].map(|viewer| s.fetch(viewer, whole(1)));
            s.w.run(SOON);
            assert_eq!(s.w.asked(s.cam.peer), [s.asks(), s.subscribes(live())], "{what}");
            assert_eq!(s.w.asked(spare.peer), [], "{what}");

            s.fail(s.cam, how);
            s.w.run(SOON);
            // From the last frame that is here: it shows that this is the same group.
            let wanted = Preferences { frame_start: 1, ..range(1, None) };
            let expect = [s.asks(), s.subscribes(as_read_by(second, wanted))];
            assert_eq!(s.w.asked(spare.peer), expect, "{what}");
            s.w.frame(s.cam, 1, 3000);
            s.w.run(SOON);
            for sub in subs {
                let known = s.w.sub(sub);
                assert_eq!((known.end, known.groups[&1].frames.len()), (None, 3), "{what}");
            }
            s.w.end_group(s.cam, 1, End::Finished);
            s.groups(2..4);
            s.w.run(SOON);
            for sub in subs {
                assert_eq!(s.w.got_sorted(sub), [0, 1, 2, 3], "{what}");
            }
            s.outcomes(&gets, (3, DONE));
            s.w.finish(s.cam, 4);
            s.w.run(SOON);
            s.ends(&subs, DONE);
            s.w.end();
        }
    }
}

#[test]
fn a_large_frame_that_is_cut_goes_on_at_the_byte_it_stopped_at() {
    for (first, second) in PAIRS {
        for (place, how) in PLACES.into_iter().flat_map(|place| FAILURES.map(|how| (place, how))) {
            let what = format!("{first} then {second}, {how:?}, {place:?}");
            let mut s = scene(first, place);
            let spare = s.second_way(second, place.publisher + 1);
            let subs = [0, 1].map(|nth| s.watch(FETCHABLE[nth], nth));
            s.w.open_group(s.cam, 0);
            s.w.frame(s.cam, 0, 100);
            s.w.run(SOON);
            s.w.frame(s.cam, 0, 400 << 10);
            s.w.frame(s.cam, 0, 50);
            // It takes several round trips, and this is some of them.
            s.w.run(ms(26));
            s.fail(s.cam, how);
            s.w.end_group(s.cam, 0, End::Finished);
            s.w.run(ms(2000));
            let asked = s.w.asked(spare.peer);
            let wanted = Preferences { frame_start: 1, ..range(0, None) };
            assert_eq!(asked, [s.asks(), s.subscribes(as_read_by(second, wanted))], "{what}");
            for sub in subs {
                assert_eq!(s.w.got(sub), [0], "{what}");
            }
            s.w.end();
        }
    }
}

#[test]
fn two_groups_that_are_open_both_go_on() {
    for (first, second) in PAIRS {
        for place in PLACES {
            let what = format!("{first} then {second}, {place:?}");
            let mut s = scene(first, place);
            let spare = s.second_way(second, place.publisher + 1);
            let subs = [0, 1].map(|nth| s.watch(FETCHABLE[nth], nth));
            s.groups(0..3);
            for group in [3, 4] {
                s.w.open_group(s.cam, group);
                (0..group).for_each(|_| s.w.frame(s.cam, group, 500));
            }
            s.groups(5..6);
            s.w.run(SOON);
            s.fail(s.cam, Failure::Reset);
            s.w.run(SOON);
            let wanted = Preferences { frame_start: 2, ..range(3, None) };
            let expect = [s.asks(), s.subscribes(as_read_by(second, wanted))];
            assert_eq!(s.w.asked(spare.peer), expect, "{what}");
            for group in [4, 3] {
                s.w.frame(s.cam, group, 500);
                s.w.end_group(s.cam, group, End::Finished);
            }
            s.groups(6..7);
            s.w.run(SOON);
            for sub in subs {
                assert_eq!(s.w.got_sorted(sub), [0, 1, 2, 3, 4, 5, 6], "{what}");
            }
            s.w.end();
        }
    }
}

#[test]
fn what_readers_have_had_does_not_come_again_with_another_way() {
    for (first, second) in PAIRS {
        for place in PLACES {
            let what = format!("{first} then {second}, {place:?}");
            let cache = CacheBounds { bytes: CACHE_BYTES, duration: ms(3000) };
            let stage = Stage { cache, ..Stage::new(1, place.shards) };
            let mut s = scene_on(stage, first, place);
            s.second_way(second, place.publisher + 1);
            let subs = [0, 1].map(|nth| s.watch(FETCHABLE[nth], nth));
            s.w.open_group(s.cam, 0);
            s.w.frame(s.cam, 0, 100);
            s.groups(1..4);
            // The relay forgets those that are whole, and the first one grows.
            for _ in 0..10 {
                s.w.run(ms(1000));
                s.w.frame(s.cam, 0, 100);
            }
            s.fail(s.cam, Failure::Reset);
            s.w.run(SOON);
            s.w.end_group(s.cam, 0, End::Finished);
            s.groups(4..5);
            s.w.run(SOON);
            for sub in subs {
                assert_eq!(s.w.got_sorted(sub), [0, 1, 2, 3, 4], "{what}");
            }
            s.w.end();
        }
    }
}

#[test]
fn between_two_groups_another_way_begins_with_the_next() {
    for (first, second) in PAIRS {
        for place in PLACES {
            let what = format!("{first} then {second}, {place:?}");
            let mut s = scene(first, place);
            let spare = s.second_way(second, place.publisher + 1);
            let ann = s.viewer(Lite06, 0);
            let sub = s.subscribe(ann, Preferences { frame_end: Some(1), ..range(0, 9) });
            s.w.run(SOON);
            s.groups(0..3);
            s.w.run(SOON);
            // Made while nobody is there to bring it.
            s.fail(s.cam, Failure::Closed);
            s.groups(3..4);
            s.w.run(SOON);
            let wanted = Preferences { frame_end: Some(1), ..range(3, 9) };
            let expect = [s.asks(), s.subscribes(as_read_by(second, wanted))];
            assert_eq!(s.w.asked(spare.peer), expect, "{what}");
            s.groups(4..10);
            s.w.run(SOON);
            assert_eq!(s.w.got_sorted(sub), (0..10).collect::<Vec<_>>(), "{what}");
            assert_eq!(s.w.sub(sub).groups[&9].frames.len(), 2, "{what}");
            s.w.end();
        }
    }
}

#[test]
fn each_way_is_tried_once_and_then_the_last_code_is_given() {
    for (first, second) in PAIRS {
        for place in PLACES {
            let what = format!("{first} then {second}, {place:?}");
            let mut s = scene(first, place);
            let spares = [1, 2].map(|nth| s.second_way(second, place.publisher + nth));
            let subs = [0, 1].map(|nth| s.watch(FETCHABLE[nth], nth));
            s.w.open_group(s.cam, 0);
            s.w.frame(s.cam, 0, 100);
            s.w.run(SOON);
            s.fail(s.cam, Failure::Reset);
            s.w.run(SOON);
            s.w.frame(s.cam, 0, 100);
            s.w.run(SOON);
            let asked = spares.map(|spare| s.w.asked(spare.peer).len());
            assert_eq!(asked.iter().sum::<usize>(), 2, "TRACK and SUBSCRIBE of one, {what}");
            let (now, next) = if asked[0] > 0 { (0, 1) } else { (1, 0) };
            // The third refuses, and so does the first when it is asked once more; nobody is left.
            s.w.asked(s.cam.peer);
            s.w.source(spares[next]).refuses = Some(0x77);
            s.w.source(s.cam).refuses = Some(0x78);
            s.fail(spares[now], Failure::Closed);
            s.w.run(SOON);
            assert_eq!(s.w.asked(spares[next].peer), [s.asks()], "{what}");
            assert_eq!(s.w.asked(s.cam.peer), [s.asks()], "{what}");
            for sub in subs {
                assert!(matches!(s.w.sub(sub).end, Some(End::Reset(_))), "{what}");
                assert_eq!(s.w.sub(sub).groups[&0].frames.len(), 2, "{what}");
                assert_eq!(s.w.sub(sub).groups[&0].end, s.w.sub(sub).end, "{what}");
            }
            s.w.end();
        }
    }
}

#[test]
fn the_next_way_is_left_behind_too() {
    for place in PLACES {
        let mut s = scene(Lite06, place);
        let spares = [1, 2, 3].map(|nth| {
            let version = FETCHABLE[nth % 2];
            s.second_way(version, place.publisher + nth)
        });
        let subs = [0, 1, 2].map(|nth| s.watch(VERSIONS[nth + 1], nth));
        s.w.open_group(s.cam, 0);
        let mut ways = vec![s.cam];
        ways.extend(spares);
        while let Some(at) = {
            s.w.frame(s.cam, 0, 3000);
            s.w.run(SOON);
            let is_asked = |way: &Track| !s.w.peers[way.peer].asked.is_empty();
            ways.iter().position(is_asked)
        } {
            let way = ways.remove(at);
            if ways.is_empty() {
                break;
            }
            s.fail(way, FAILURES[ways.len() % 3]);
            s.w.run(SOON);
        }
        assert!(ways.is_empty(), "{place:?}: never asked: {ways:?}");
        s.w.end_group(s.cam, 0, End::Finished);
        s.w.run(SOON);
        for sub in subs {
            assert_eq!(s.w.got(sub), [0], "{place:?}");
            assert_eq!(s.w.sub(sub).groups[&0].frames.len(), 4, "{place:?}");
        }
        s.w.end();
    }
}

#[test]
fn a_publisher_that_resets_its_groups_too_gives_up_no_more_than_those() {
    for (first, second) in PAIRS {
        for place in PLACES {
            let what = format!("{first} then {second}, {place:?}");
            let mut s = scene(first, place);
            s.second_way(second, place.publisher + 1);
            let subs = [0, 1].map(|nth| s.watch(FETCHABLE[nth], nth));
            s.groups(0..1);
            s.w.open_group(s.cam, 1);
            s.w.frame(s.cam, 1, 10);
            s.w.run(SOON);
            s.w.break_off(s.cam, End::Reset(0x41), true);
            s.w.run(SOON);
            s.w.frame(s.cam, 1, 10);
            s.w.end_group(s.cam, 1, End::Finished);
            s.groups(2..4);
            s.w.run(SOON);
            for sub in subs {
                let got = s.w.got_sorted(sub);
                assert!([0, 2, 3].iter().all(|group| got.contains(group)), "{what}: {got:?}");
                let end = s.w.sub(sub).groups[&1].end;
                assert!([DONE, reset(StreamCode(0x41))].contains(&end), "{what}: {end:?}");
            }
            s.w.end();
        }
    }
}

#[test]
fn what_is_fetched_is_asked_of_whoever_is_there() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..9);
        let spare = s.second_way(version, place.publisher + 1);
        let ann = s.viewer(Lite06, 0);
        let sub = s.subscribe(ann, range(8, None));
        s.w.run(SOON);
        s.fail(s.cam, Failure::Reset);
        s.w.run(SOON);
        s.w.asked(s.cam.peer);
        s.w.asked(spare.peer);
        let get = s.fetch(ann, whole(3));
        s.w.run(SOON);
        assert_eq!(s.w.asked(s.cam.peer), [], "{place:?}");
        assert_eq!(s.w.asked(spare.peer), [s.fetches(whole(3))], "{place:?}");
        assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
        assert_eq!(s.w.got(sub), [8], "{place:?}");
        s.w.end();
    });
}
