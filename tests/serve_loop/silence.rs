//! Publishers that do not answer.

use super::*;

#[test]
fn a_publisher_that_never_says_what_a_track_is_like_is_given_up() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..1);
        s.w.source(s.cam).never_answers = Some(BidiType::Track);
        let viewers = [0, 1].map(|nth| s.viewer(FETCHABLE[nth], nth));
        let track = s.track.clone();
        let infos = viewers.map(|viewer| s.w.peers[viewer].ask(PATH, &track));
        let subs = viewers.map(|viewer| s.subscribe(viewer, live()));
        let gets = viewers.map(|viewer| s.fetch(viewer, whole(0)));
        s.w.run(ANSWER_TIMEOUT - SLACK);
        assert_eq!(s.w.asked(s.cam.peer), [s.asks()], "{place:?}");
        s.outcomes(&gets, (0, None));
        s.w.run(SLACK + SOON);
        for nth in 0..2 {
            let code = StreamCode::CONTROL_TIMEOUT;
            let info = &s.w.peers[viewers[nth]].infos[infos[nth]];
            assert_eq!(info.answer, Some(Err(code.0)), "{place:?}");
            assert_eq!(s.w.sub(subs[nth]).end, reset(code), "{place:?}");
            assert_eq!(s.w.outcome(gets[nth]), (0, reset(code)), "{place:?}");
        }
        // It has found its tongue.
        s.w.source(s.cam).never_answers = None;
        let get = s.fetch(viewers[1], whole(0));
        s.check(&[s.asks(), s.fetches(whole(0))]);
        assert_eq!(s.w.outcome(get), (4, DONE));
        s.w.end();
    });
}

#[test]
fn a_publisher_that_never_answers_a_fetch_is_given_up() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..6);
        let viewers = [0, 1].map(|nth| s.viewer(FETCHABLE[nth], nth));
        let sub = s.subscribe(viewers[0], range(5, None));
        s.w.run(SOON);
        s.w.all_settled();
        s.w.asked(s.cam.peer);
        s.pace(0);
        let gets = viewers.map(|viewer| s.fetch(viewer, whole(0)));
        s.w.run(ANSWER_TIMEOUT - SLACK);
        assert_eq!(s.w.asked(s.cam.peer), [s.fetches(whole(0))], "{place:?}");
        s.outcomes(&gets, (0, None));
        s.w.source(s.cam).never_answers = Some(BidiType::Fetch);
        s.w.run(SLACK + SOON);
        let expect = (0, reset(StreamCode::CONTROL_TIMEOUT));
        s.outcomes(&gets, expect);
        let asked = s.w.asked(s.cam.peer);
        assert!(matches!(asked[..], [Asked::FetchEnded(0, End::Reset(_))]), "{asked:?}");
        // One byte in time is an answer, however long the rest takes.
        s.w.source(s.cam).never_answers = None;
        s.pace(1);
        let get = s.fetch(viewers[1], whole(0));
        s.w.run(ANSWER_TIMEOUT * 3);
        assert_eq!(s.w.outcome(get), (1, None), "{place:?}");
        s.pace(None);
        s.groups(6..7);
        s.w.run(SOON);
        assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
        assert_eq!(s.w.got(sub), [5, 6]);
        s.w.end();
    });
}

/// Groups that grow for hours, as those of a chat, and fetches that never end.
#[test]
fn fetches_of_which_nothing_comes_hold_up_no_others() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..20);
        let viewers = [0, 1].map(|nth| s.viewer(FETCHABLE[nth], nth));
        s.subscribe(viewers[1], range(19, None));
        s.w.run(SOON);
        s.w.all_settled();
        s.pace(1);
        for group in 0..FETCHES_AT_ONCE as u64 {
            s.fetch(viewers[0], whole(group));
        }
        s.w.run(SOON);
        s.w.asked(s.cam.peer);
        let get = s.fetch(viewers[1], whole(18));
        s.w.run(FETCH_QUIET + SOON);
        assert_eq!(s.w.asked(s.cam.peer), [s.fetches(whole(18))], "{place:?}");
        assert_eq!(s.w.outcome(get), (1, None), "{place:?}");
        s.w.end();
    });
}

/// Whoever wants what somebody else has waited for long has his own time for it.
#[test]
fn who_joins_a_fetch_that_waits_has_as_long_as_for_his_own() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..6);
        let viewers = [0, 1, 2].map(|nth| s.viewer(FETCHABLE[nth % 2], nth));
        s.w.source(s.cam).never_answers = Some(BidiType::Fetch);
        let first = s.fetch(viewers[0], whole(0));
        s.w.run(ANSWER_TIMEOUT - SLACK);
        let late = [1, 2].map(|nth| s.fetch(viewers[nth], whole(0)));
        s.w.run(ANSWER_TIMEOUT - SLACK);
        s.outcomes(&[first, late[0], late[1]], (0, None));
        s.w.run(SLACK + SOON);
        s.outcomes(&[first, late[0], late[1]], (0, reset(StreamCode::CONTROL_TIMEOUT)));
        s.w.end();
    });
}

#[test]
fn a_publisher_that_never_accepts_a_subscription_is_given_up() {
    for (version, place) in [Lite03, Lite04].into_iter().flat_map(|v| PLACES.map(|p| (v, p))) {
        let mut s = scene(version, place);
        s.w.source(s.cam).never_answers = Some(BidiType::Subscribe);
        let subs = [0, 1].map(|nth| {
            let viewer = s.viewer(FETCHABLE[nth], nth);
            s.subscribe(viewer, live())
        });
        s.w.run(ANSWER_TIMEOUT - SLACK * 6);
        s.ends(&subs, None);
        s.w.run(SLACK * 6 + SOON);
        let expect = reset(StreamCode::CONTROL_TIMEOUT);
        s.ends(&subs, expect);
        s.w.source(s.cam).never_answers = None;
        let sub = s.watch(Lite06, 0);
        s.groups(0..1);
        s.w.run(SOON);
        assert_eq!(s.w.got(sub), [0], "{version} {place:?}");
        s.w.end();
    }
}
