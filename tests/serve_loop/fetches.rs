//! Single groups that viewers ask for, and those that fail.

use super::*;

#[test]
fn ten_slow_fetches_and_a_live_track_do_not_wait_for_each_other() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..10);
        let (ann, bob) = (s.viewer(Lite06, 0), s.viewer(Lite05, 1));
        let sub = s.subscribe(ann, range(10, None));
        s.w.run(SOON);
        s.w.all_settled();
        s.w.asked(s.cam.peer);
        s.pace(0);
        let gets: Vec<Get> =
            (0..10).map(|group| s.fetch([ann, bob][group as usize % 2], whole(group))).collect();
        let expect: Vec<Asked> = (0..10).map(|group| s.fetches(whole(group))).collect();
        s.w.run(SOON);
        let asked = s.w.asked(s.cam.peer);
        assert_eq!(asked.len(), 10, "before any is answered: {asked:?}");
        assert!(expect.iter().all(|fetch| asked.contains(fetch)), "{asked:?}");

        for sequence in 10..20 {
            s.w.open_group(s.cam, sequence);
            for _ in 0..4 {
                s.w.frame(s.cam, sequence, 700);
                let (made, count) = (s.w.now, s.w.source(s.cam).groups[&sequence].frames.len());
                s.w.run(WAY + ms(2));
                let seen = s.w.sub(sub).groups.get(&sequence);
                let came = seen.and_then(|seen| seen.came.get(count - 1));
                assert!(came.is_some_and(|at| *at - made <= WAY + ms(2)), "{place:?} {sequence}");
            }
            s.w.end_group(s.cam, sequence, End::Finished);
            // One frame of each fetched group every now and then.
            s.pace((sequence as usize - 9) / 3);
            s.w.run(ms(40));
        }
        for get in &gets {
            assert_eq!(s.w.outcome(*get), (3, None), "{place:?}");
        }
        s.pace(None);
        s.w.run(SOON);
        for get in gets {
            assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
        }
        assert_eq!(s.w.got(sub), (10..20).collect::<Vec<_>>());
        s.check(&[]);
        s.w.end();
    });
}

#[test]
fn fetches_of_one_group_are_one_fetch() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..2);
        s.pace(0);
        let viewers = [0, 1, 2, 3].map(|nth| s.viewer(Lite06, nth));
        // All before the track is known.
        let gets = [(5, 3), (90, 1), (20, 2), (7, 5)].map(|(priority, frame_start)| {
            let viewer = viewers[frame_start as usize % 4];
            s.fetch(viewer, Want { priority, ..from_frame(0, frame_start) })
        });
        let merged = Want { priority: 90, ..from_frame(0, 1) };
        s.check(&[s.asks(), s.fetches(fetch_as_read_by(version, merged))]);
        s.pace(2);
        // On its way already.
        let late = s.fetch(viewers[0], from_frame(0, 1));
        s.check(&[]);
        // A frame before is not on its way where the first frame was named.
        let lower = s.fetch(viewers[3], whole(0));
        match version {
            Lite06 => s.check(&[s.fetches(whole(0))]),
            _ => s.check(&[]),
        }
        s.pace(None);
        s.w.run(SOON);
        let expect = [(1, DONE), (3, DONE), (2, DONE), (0, reset(StreamCode::TOO_FAR_BEHIND))];
        assert_eq!(gets.map(|get| s.w.outcome(get)), expect, "{version} {place:?}");
        assert_eq!(s.w.outcome(late), (3, DONE));
        assert_eq!(s.w.outcome(lower), (4, DONE));
        // And then from the cache, wherever one asks.
        let gets = viewers.map(|viewer| s.fetch(viewer, whole(0)));
        s.check(&[]);
        s.outcomes(&gets, (4, DONE));
        s.w.end();
    });
}

#[test]
fn fetches_at_one_instant_are_one_fetch_where_the_track_is_known() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..2);
        let viewers = [0, 1, 2, 3].map(|nth| s.viewer(FETCHABLE[nth % 2], nth));
        s.fetch(viewers[0], whole(0));
        s.check(&[s.asks(), s.fetches(whole(0))]);
        let gets = viewers.map(|viewer| s.fetch(viewer, whole(1)));
        s.check(&[s.fetches(whole(1))]);
        s.outcomes(&gets, (4, DONE));
        s.w.end();
    });
}

#[test]
fn a_live_group_is_fetched_from_the_relay() {
    everywhere(|version, place| {
        for code in [None, Some(0x41)] {
            let mut s = scene(version, place);
            let sub = s.watch(Lite05, 0);
            s.groups(0..1);
            s.w.open_group(s.cam, 1);
            s.w.frame(s.cam, 1, 100);
            s.w.frame(s.cam, 1, 3000);
            s.w.run(SOON);
            s.w.asked(s.cam.peer);
            let viewers = [(Lite06, 0), (Lite05, 1), (Lite06, 2)];
            let viewers = viewers.map(|(version, nth)| s.viewer(version, nth));
            let complete = viewers.map(|viewer| s.fetch(viewer, whole(0)));
            let growing = viewers.map(|viewer| s.fetch(viewer, whole(1)));
            let rest = s.fetch(viewers[0], from_frame(1, 1));
            let later = s.fetch(viewers[2], from_frame(1, 3));
            let capped = s.fetch(viewers[2], Want { frame_end: Some(1), ..whole(1) });
            s.w.run(SOON);
            s.outcomes(&complete, (4, DONE));
            s.outcomes(&growing, (2, None));
            assert_eq!(s.w.outcome(rest), (1, None));
            assert_eq!(s.w.outcome(later), (0, None));
            // That this is all of its last frame shows with the next one, if not before.
            assert_eq!(s.w.outcome(capped).0, 2);
            for _ in 0..2 {
                s.w.frame(s.cam, 1, 50);
                s.w.run(WAY + ms(2));
            }
            s.outcomes(&growing, (4, None));
            assert_eq!(s.w.outcome(capped), (2, DONE), "{place:?}");
            let end = code.map_or(End::Finished, End::Reset);
            s.w.end_group(s.cam, 1, end);
            s.w.run(WAY + ms(2));
            s.outcomes(&growing, (4, Some(end)));
            assert_eq!(s.w.outcome(rest), (3, Some(end)));
            assert_eq!(s.w.outcome(later), (1, Some(end)));
            assert_eq!(s.w.sub(sub).groups[&1].end, Some(end));
            s.check(&[]);
            s.w.end();
        }
    });
}

#[test]
fn fetch_first_and_subscribe_later() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.w.source(s.cam).info = TrackInfo { priority: 3, max_age_ms: 7000, timescale: 90_000 };
        s.groups(0..3);
        let viewers = [0, 1].map(|nth| s.viewer(FETCHABLE[nth], nth));
        let gets = viewers.map(|viewer| s.fetch(viewer, whole(2)));
        s.check(&[s.asks(), s.fetches(whole(2))]);
        s.outcomes(&gets, (4, DONE));
        let track = s.track.clone();
        let info = s.w.peers[viewers[0]].ask(PATH, &track);
        s.check(&[]);
        let expect = Some(Ok(s.w.source(s.cam).info));
        assert_eq!(s.w.peers[viewers[0]].infos[info].answer, expect);
        let subs = viewers.map(|viewer| s.subscribe(viewer, live()));
        s.check(&[s.subscribes(Preferences { max_age_ms: 7000, ..live() })]);
        s.w.all_settled();
        s.groups(3..4);
        s.w.run(SOON);
        // What was fetched is no reason to leave it out of what is live.
        for sub in subs {
            let got = s.w.got_sorted(sub);
            assert!(got.ends_with(&[2, 3]), "{place:?}: {got:?}");
        }
        s.w.end();
    });
}

#[test]
fn a_fetched_group_is_not_brought_to_subscribers() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..6);
        let (ann, bob) = (s.viewer(Lite06, 0), s.viewer(Lite06, 1));
        let sub = s.subscribe(ann, range(5, None));
        s.w.run(SOON);
        let get = s.fetch(bob, whole(2));
        s.w.run(SOON);
        assert_eq!(s.w.outcome(get), (4, DONE));
        s.w.all_settled();
        s.groups(6..7);
        s.w.run(SOON);
        assert_eq!(s.w.got(sub), [5, 6], "{place:?}");
        s.w.end();
    });
}

#[test]
fn a_group_that_grows_at_its_publisher_is_forwarded_as_it_comes() {
    everywhere(|version, place| {
        for code in [None, Some(0x34), Some(0x2a)] {
            let mut s = scene(version, place);
            s.w.open_group(s.cam, 0);
            s.w.frame(s.cam, 0, 10);
            let viewers = [0, 1, 2].map(|nth| s.viewer(FETCHABLE[nth % 2], nth));
            let one = s.fetch(viewers[0], whole(0));
            s.check(&[s.asks(), s.fetches(whole(0))]);
            assert_eq!(s.w.outcome(one), (1, None));
            for count in 2..5 {
                s.w.frame(s.cam, 0, 3000);
                s.w.run(WAY + ms(2));
                assert_eq!(s.w.outcome(one), (count, None), "{place:?}");
            }
            let two = s.fetch(viewers[1], whole(0));
            s.check(&[]);
            assert_eq!(s.w.outcome(two), (4, None), "{place:?}");
            s.w.frame(s.cam, 0, 0);
            s.w.run(SOON);
            s.w.end_group(s.cam, 0, code.map_or(End::Finished, End::Reset));
            if code == Some(0x2a) {
                // Nobody has registered this one.
                s.w.run(ms(1));
                s.w.end_group(s.cam, 0, End::Reset(0));
            }
            s.w.run(SOON);
            let end = s.w.source(s.cam).groups[&0].end;
            assert_eq!([one, two].map(|get| s.w.outcome(get)), [(5, end); 2], "{place:?}");
            // What was cut off is asked for again, what is whole is not.
            let three = s.fetch(viewers[2], whole(0));
            match code {
                None => s.check(&[]),
                Some(_) => s.check(&[s.fetches(whole(0))]),
            }
            assert_eq!(s.w.outcome(three).1, end, "{place:?}");
            s.w.end();
        }
    });
}

#[test]
fn frame_bounds_of_a_fetch_are_kept_and_do_not_cut_the_cache() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..2);
        let (ann, bob) = (s.viewer(Lite06, 0), s.viewer(Lite06, 1));
        let want = Want { frame_end: Some(2), ..from_frame(0, 1) };
        let get = s.fetch(ann, want);
        let asked = fetch_as_read_by(version, Want { frame_end: None, ..want });
        s.check(&[s.asks(), s.fetches(asked)]);
        assert_eq!(s.w.outcome(get), (2, DONE), "{place:?}");
        // The rest of the group is in the cache, and before its first frame there is nothing.
        let get = s.fetch(bob, from_frame(0, 1));
        s.check(&[]);
        assert_eq!(s.w.outcome(get), (3, DONE), "{place:?}");
        let get = s.fetch(bob, whole(0));
        match version {
            Lite06 => s.check(&[s.fetches(whole(0))]),
            _ => s.check(&[]),
        }
        assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
        let last = s.fetch(ann, Want { frame_end: Some(3), ..from_frame(0, 3) });
        let wide = s.fetch(ann, Want { frame_end: Some(90), ..from_frame(0, 3) });
        let beyond = s.fetch(ann, from_frame(0, 9));
        s.check(&[]);
        assert_eq!(s.w.outcome(last), (1, DONE));
        assert_eq!(s.w.outcome(wide), (1, DONE));
        assert_eq!(s.w.outcome(beyond), (0, reset(StreamCode::TOO_FAR_BEHIND)), "{place:?}");
        // The same of a group that the relay does not have.
        let beyond = s.fetch(bob, from_frame(1, 9));
        s.w.run(SOON);
        assert_eq!(s.w.outcome(beyond), (0, reset(StreamCode::TOO_FAR_BEHIND)), "{place:?}");
        s.w.end();
    });
}

#[test]
fn an_empty_group_and_a_large_one_are_fetched() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.w.group(s.cam, 0, &[]);
        s.w.group(s.cam, 1, &[0, 0]);
        s.w.group(s.cam, 2, &[400 << 10, 1, 300 << 10]);
        let viewers = [0, 1].map(|nth| s.viewer(FETCHABLE[nth], nth));
        for _ in 0..2 {
            for (group, frames) in [(0, 0), (1, 2), (2, 3)] {
                let gets = viewers.map(|viewer| s.fetch(viewer, whole(group)));
                s.w.run(ms(1000));
                s.outcomes(&gets, (frames, DONE));
            }
        }
        let asked = s.w.asked(s.cam.peer);
        assert_eq!(asked.len(), 4, "each group once, {place:?}: {asked:?}");
        s.w.end();
    });
}

#[test]
fn a_refused_fetch_fails_with_the_code_of_the_publisher() {
    everywhere(|version, place| {
        for (code, relayed) in [(0x33, 0x33), (0x35, 0x35), (0x41, 0x41), (0x2a, 0)] {
            let mut s = scene(version, place);
            s.groups(0..2);
            let viewers = [0, 1].map(|nth| s.viewer(FETCHABLE[nth], nth));
            s.w.source(s.cam).refuses_fetch = Some(code);
            let gets = viewers.map(|viewer| s.fetch(viewer, whole(0)));
            s.w.run(WAY * 2 + ms(8));
            // What the source says is what the viewer must see; on the wire went the other code.
            s.w.source(s.cam).refuses_fetch = Some(relayed);
            s.w.run(SOON);
            let expect = (0, Some(End::Reset(relayed)));
            s.outcomes(&gets, expect);
            // A refusal is not kept.
            s.w.source(s.cam).refuses_fetch = None;
            s.w.asked(s.cam.peer);
            let get = s.fetch(viewers[1], whole(0));
            s.check(&[s.fetches(whole(0))]);
            assert_eq!(s.w.outcome(get), (4, DONE));
            s.w.end();
        }
    });
}

/// A publisher that was asked anew, its track having ended, has brought nothing: it is still asked for a group that has
/// left the cache since.
#[test]
fn a_group_of_a_track_that_is_over_is_asked_for_when_it_has_left_the_cache() {
    everywhere(|version, place| {
        let cache = CacheBounds { bytes: CACHE_BYTES, duration: ms(10_000) };
        let mut s = scene_on(Stage { cache, ..Stage::new(1, place.shards) }, version, place);
        s.w.groups_are_evicted = true;
        let sub = s.watch(Lite06, 0);
        s.groups(0..3);
        s.w.finish(s.cam, 3);
        s.w.run(SOON);
        s.ends(&[sub], DONE);
        s.w.source(s.cam).never_answers = Some(BidiType::Subscribe);
        let again = s.subscribe(sub.peer, range(2, None));
        s.w.run(REVIVAL_GRACE + SOON);
        s.ends(&[again], DONE);
        s.w.asked(s.cam.peer);
        // What is asked for stays, and its track.
        for _ in 0..3 {
            let get = s.fetch(sub.peer, whole(2));
            s.check(&[]);
            assert_eq!(s.w.outcome(get), (4, DONE));
            s.w.run(ms(4000));
        }
        let get = s.fetch(sub.peer, whole(0));
        s.check(&[s.asks(), s.fetches(whole(0))]);
        assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
        s.w.end();
    });
}

#[test]
fn what_is_past_the_end_or_was_never_announced_is_refused_at_once() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        let sub = s.watch(Lite05, 0);
        s.groups(0..3);
        s.w.finish(s.cam, 3);
        s.w.run(SOON);
        assert_eq!(s.w.sub(sub).end, DONE);
        s.w.asked(s.cam.peer);
        let ann = s.viewer(Lite05, 1);
        let past = [3, 4, 1 << 40].map(|group| s.fetch(ann, whole(group)));
        let held = s.fetch(ann, whole(2));
        let track = s.track.clone();
        let unknown = s.w.fetch(ann, "live/camera", &track, whole(0));
        s.w.run(ms(30));
        s.outcomes(&past, (0, reset(StreamCode::NOT_FOUND)));
        assert_eq!(s.w.outcome(held), (4, DONE), "{place:?}");
        assert_eq!(s.w.outcome(unknown), (0, reset(StreamCode::UNROUTABLE)));
        let asked = s.w.asked(s.cam.peer);
        let is_fetch = |asked: &Asked| matches!(asked, Asked::Fetch(..));
        assert!(!asked.iter().any(is_fetch), "{asked:?}");
        s.w.end();
    });
}

#[test]
fn a_track_that_has_ended_is_still_fetched() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        let (ann, sub) = s.at_the_last();
        s.pace(1);
        let bob = s.viewer(Lite05, 1);
        let get = s.fetch(bob, whole(1));
        s.w.run(SOON);
        s.w.finish(s.cam, 6);
        s.w.run(SOON);
        assert_eq!((s.w.got(sub), s.w.sub(sub).end), (vec![5], DONE), "{place:?}");
        s.pace(None);
        s.w.run(SOON);
        assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
        let get = s.fetch(ann, whole(2));
        s.w.run(SOON);
        assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
        s.w.end();
    });
}

#[test]
fn who_ends_a_fetch_before_the_answer_or_says_more_is_reset() {
    everywhere(|version, place| {
        for (bytes, fin, code) in [(&b""[..], true, Some(0x1)), (b"\0", false, None)] {
            let mut s = scene(version, place);
            s.groups(0..2);
            // Of a word too many it does not matter when it comes.
            s.pace(usize::from(!fin));
            let (ann, bob) = (s.viewer(Lite05, 0), s.viewer(Lite05, 1));
            let (get, other) = (s.fetch(ann, whole(0)), s.fetch(bob, whole(0)));
            s.w.run(SOON);
            s.w.asked(s.cam.peer);
            let say = |s: &mut Scene, get: Get| {
                s.w.peers[get.peer].fetches[get.index].has_left = true;
                let stream = s.w.fetched(get).stream;
                s.w.peers[get.peer].write_raw(stream, bytes, fin);
            };
            say(&mut s, get);
            s.check(&[]);
            let (_, end) = s.w.outcome(get);
            let Some(End::Reset(is)) = end else { panic!("{place:?} {bytes:?}: {end:?}") };
            assert!(code.is_none_or(|code| code == is), "{place:?} {bytes:?}: {is:#x}");
            assert!(s.w.peers[ann].is_up());
            // The other one is not concerned, until it goes the same way.
            assert_eq!(s.w.outcome(other).1, None, "{place:?}");
            say(&mut s, other);
            s.check(&[Asked::FetchEnded(0, End::Reset(StreamCode::CANCEL.0))]);
            s.w.end();
        }
    });
}

#[test]
fn who_ends_a_fetch_within_the_answer_gets_all_of_it() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..2);
        s.pace(1);
        let ann = s.viewer(Lite05, 0);
        let get = s.fetch(ann, whole(0));
        s.w.run(SOON);
        let stream = s.w.fetched(get).stream;
        s.w.peers[ann].write_raw(stream, b"", true);
        s.w.run(SOON);
        s.pace(None);
        s.w.run(SOON);
        assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
        s.w.end();
    });
}

#[test]
fn a_fetch_cut_within_a_frame_has_the_wrong_size() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..1);
        s.pace(2);
        let viewers = [0, 1].map(|nth| s.viewer(FETCHABLE[nth], nth));
        let gets = viewers.map(|viewer| s.fetch(viewer, whole(0)));
        s.w.run(SOON);
        s.w.peers[s.cam.peer].cut_fetches(s.cam.source, 3000);
        s.w.run(SOON);
        s.outcomes(&gets, (2, reset(StreamCode::WRONG_SIZE)));
        s.w.end();
    });
}

#[test]
fn a_fetch_that_nobody_waits_for_is_given_up() {
    let cancelled = |group| Asked::FetchEnded(group, End::Reset(StreamCode::CANCEL.0));
    everywhere(|version, place| {
        for pace in [0, 2] {
            let mut s = scene(version, place);
            s.groups(0..2);
            s.pace(pace);
            let viewers = [0, 1, 2].map(|nth| s.viewer(FETCHABLE[nth % 2], nth));
            let gets = viewers.map(|viewer| s.fetch(viewer, whole(0)));
            let alone = s.fetch(viewers[0], whole(1));
            s.w.run(SOON);
            s.w.asked(s.cam.peer);
            s.w.leave_fetch(alone);
            s.check(&[cancelled(1)]);
            s.w.leave_fetch(gets[0]);
            s.w.leave_fetch(gets[1]);
            s.check(&[]);
            s.pace(3);
            s.w.run(SOON);
            assert_eq!(s.w.outcome(gets[2]), (3, None), "{place:?}");
            s.w.close(viewers[2]);
            s.check(&[cancelled(0)]);
            // What came of it before is not the group.
            s.pace(None);
            let get = s.fetch(viewers[1], whole(0));
            s.check(&[s.fetches(whole(0))]);
            assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
            s.w.end();
        }
    });
}

#[test]
fn a_viewer_that_is_killed_takes_its_fetches_with_it() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..2);
        s.pace(1);
        let (ann, bob) = (s.viewer(Lite06, 0), s.viewer(Lite05, 1));
        let alone = s.fetch(ann, whole(1));
        let (_, shared) = (s.fetch(ann, whole(0)), s.fetch(bob, whole(0)));
        s.w.run(SOON);
        s.w.asked(s.cam.peer);
        s.w.kill(ann);
        s.w.run(LOSS_NOTICED);
        s.check(&[Asked::FetchEnded(1, End::Reset(StreamCode::CANCEL.0))]);
        assert_eq!(s.w.outcome(alone), (1, None));
        s.pace(None);
        s.w.run(SOON);
        assert_eq!(s.w.outcome(shared), (4, DONE), "{place:?}");
        s.w.end();
    });
}

#[test]
fn a_publisher_that_is_lost_fails_its_fetches() {
    everywhere(|version, place| {
        for is_killed in [true, false] {
            let mut s = scene(version, place);
            s.groups(0..2);
            s.pace(1);
            let viewers = [0, 1].map(|nth| s.viewer(FETCHABLE[nth], nth));
            let gets = viewers.map(|viewer| s.fetch(viewer, whole(0)));
            s.w.run(SOON);
            match is_killed {
                true => s.w.kill(s.cam.peer),
                false => s.w.close(s.cam.peer),
            }
            s.w.run(if is_killed { LOSS_NOTICED } else { SOON });
            let expect = (1, reset(StreamCode::SESSION_CLOSED));
            s.outcomes(&gets, expect);
            let get = s.fetch(viewers[0], whole(0));
            s.w.run(SOON);
            assert_eq!(s.w.outcome(get), (0, reset(StreamCode::UNROUTABLE)), "{place:?}");
            s.w.end();
        }
    });
}
