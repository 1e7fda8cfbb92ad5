//! What a relay asks of publishers on behalf of all its viewers, and what viewers get of it: one
//! subscription that follows the demand, fetches beside it, a cache, and another way to the same
//! broadcast when one fails. Played under a virtual clock, like `sim.rs`.

mod support {
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod http3;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod network;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod peer;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod world;
}

use std::time::Duration;

use quinn_proto::Dir;

use Version::{Lite03, Lite04, Lite05, Lite06};
use shardcast::limits::{
    ANSWER_TIMEOUT, FETCH_QUIET, FETCHES_AT_ONCE, LINGER_DEFAULT, MISSING_GRACE_MAX,
    ROUTE_CHANGE_HOLD, TRACK_MAX_AGE_MS_DEFAULT,
};
use shardcast::shard::CacheBounds;
use shardcast::wire::*;
use support::network::Weather;
use support::peer::*;
use support::world::*;

const PATH: &str = "live/cam";

const VERSIONS: [Version; 4] = [Lite03, Lite04, Lite05, Lite06];

/// Those that can be asked for a group.
const FETCHABLE: [Version; 2] = [Lite05, Lite06];

/// From a publisher to a viewer or back: two legs of a fair network.
const WAY: Duration = Weather::FAIR.latency.saturating_mul(2);

/// Long enough for a question to go all the way and its answer to come back.
const SOON: Duration = Duration::from_millis(100);

/// What a time that is known exactly may be off by: acknowledgements and timers are late by this.
const SLACK: Duration = Duration::from_millis(30);

/// Which shard has whom.
#[derive(Clone, Copy, Debug)]
struct Place {
    shards: usize,
    publisher: usize,
    home: usize,
    viewer: usize,
}

const fn place(shards: usize, publisher: usize, home: usize, viewer: usize) -> Place {
    Place { shards, publisher, home, viewer }
}

/// All on one; and each of them alone somewhere.
const PLACES: [Place; 6] = [
    place(1, 0, 0, 0),
    place(2, 0, 0, 1),
    place(2, 0, 1, 0),
    place(2, 0, 1, 1),
    place(3, 2, 0, 1),
    place(4, 1, 3, 3),
];

/// All are elsewhere.
const APART: Place = PLACES[4];

/// A world with one track of one publisher.
struct Scene {
    w: World,
    cam: Track,
    track: String,
    place: Place,
}

fn scene(version: Version, place: Place) -> Scene {
    scene_on(Stage::new(1, place.shards), version, place)
}

fn scene_on(stage: Stage, version: Version, place: Place) -> Scene {
    // The cheapest there is: whoever comes later with the same film is second choice.
    let setup = Setup { cost: Some(0), hop: 7, ..Setup::default() };
    scene_with(stage, Spec { setup, ..Spec::new(version, place.publisher) }, place)
}

fn scene_with(stage: Stage, spec: Spec, place: Place) -> Scene {
    let track = homed(PATH, place.home, place.shards);
    let mut w = World::new(stage);
    let cam = w.publisher_like(spec, PATH, &track);
    Scene { w, cam, track, place }
}

fn everywhere(play: impl Fn(Version, Place)) {
    for version in FETCHABLE {
        PLACES.into_iter().for_each(|place| play(version, place));
    }
}

impl Scene {
    /// The first one is where the place says, the others are on the shards after it.
    fn viewer(&mut self, version: Version, nth: usize) -> usize {
        self.w.viewer(version, (self.place.viewer + nth) % self.place.shards)
    }

    fn subscribe(&mut self, peer: usize, wanted: Preferences) -> Sub {
        let track = self.track.clone();
        self.w.subscribe(peer, PATH, &track, wanted)
    }

    fn fetch(&mut self, peer: usize, want: Want) -> Get {
        let track = self.track.clone();
        self.w.fetch(peer, PATH, &track, want)
    }

    /// A viewer on the track from its next group on, whom everybody knows.
    fn watch(&mut self, version: Version, nth: usize) -> Sub {
        let peer = self.viewer(version, nth);
        let sub = self.subscribe(peer, live());
        self.w.run(SOON);
        self.w.all_settled();
        sub
    }

    /// Groups of a few small frames.
    fn groups(&mut self, sequences: std::ops::Range<u64>) {
        sequences.for_each(|sequence| self.w.group(self.cam, sequence, &[10, 0, 2000, 7]));
    }

    fn pace(&mut self, frames: impl Into<Option<usize>>) {
        self.w.source(self.cam).fetch_pace = frames.into();
    }

    /// Lets time pass and compares what the relay asked of the publisher meanwhile.
    #[track_caller]
    fn check(&mut self, expect: &[Asked]) {
        self.w.run(SOON);
        assert_eq!(self.w.asked(self.cam.peer), expect, "{:?}", self.place);
    }

    #[track_caller]
    fn outcomes(&self, gets: &[Get], expect: (usize, Option<End>)) {
        for get in gets {
            let version = self.w.peers[get.peer].version;
            assert_eq!(self.w.outcome(*get), expect, "{version} {:?}", self.place);
        }
    }

    #[track_caller]
    fn ends(&self, subs: &[Sub], expect: Option<End>) {
        for sub in subs {
            let version = self.w.peers[sub.peer].version;
            assert_eq!(self.w.sub(*sub).end, expect, "{version} {:?}", self.place);
        }
    }

    fn asks(&self) -> Asked {
        Asked::Track(self.track.clone())
    }

    fn subscribes(&self, wanted: Preferences) -> Asked {
        Asked::Subscribe(self.track.clone(), wanted)
    }

    fn fetches(&self, want: Want) -> Asked {
        Asked::Fetch(self.track.clone(), want)
    }

    /// What a relay says that has nobody to bring groups to.
    fn pauses(&self, max_age_ms: u64, newest: u64) -> Asked {
        Asked::Update(Preferences { priority: 0, max_age_ms, ..range(None, newest) })
    }
}

fn reset(code: StreamCode) -> Option<End> {
    Some(End::Reset(code.0))
}

const DONE: Option<End> = Some(End::Finished);

/// A request as a publisher of this version can read it.
fn as_read_by(version: Version, wanted: Preferences) -> Preferences {
    match version {
        Lite06 => wanted,
        _ => Preferences { frame_start: 0, frame_end: None, ..wanted },
    }
}

fn fetch_as_read_by(version: Version, want: Want) -> Want {
    match version {
        Lite06 => want,
        _ => Want { frame_start: 0, ..want },
    }
}

/// The newest groups from this one on. A pause names no start, and a publisher on lite-06 then
/// brings whatever is not too old: with this it is too old.
fn newest_from(group: u64) -> Preferences {
    Preferences { max_age_ms: 0, ..range(group, None) }
}

#[track_caller]
fn assert_near(is: Duration, expect: Duration) {
    assert!(is.abs_diff(expect) <= SLACK, "{is:?} instead of {expect:?}");
}

// ---- one subscription for all ----

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

// ---- pause, linger, return ----

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

// ---- fetches ----

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

// ---- fetches that fail ----

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
        s.groups(0..6);
        let ann = s.viewer(Lite06, 0);
        let sub = s.subscribe(ann, range(5, None));
        s.w.run(SOON);
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

// ---- silence ----

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

// ---- leaving while it is being opened ----

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

// ---- a publisher that leaves ----

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
            let viewers = [0, 1, 2, 3].map(|nth| s.viewer(VERSIONS[nth], nth));
            let subs = viewers.map(|viewer| s.subscribe(viewer, live()));
            s.w.run(SOON);
            s.w.all_settled();
            s.groups(0..1);
            s.w.open_group(s.cam, 1);
            s.w.frame(s.cam, 1, 2000);
            s.w.frame(s.cam, 1, 10);
            s.w.run(SOON);
            s.w.asked(s.cam.peer);
            s.goes_away(s.cam.peer);
            let spare = early.unwrap_or_else(|| s.second_way(second, place.publisher + 1));
            assert_eq!(s.w.asked(s.cam.peer), [Asked::Unsubscribe], "{what}");
            // What the first one is like was learned from it, or assumed.
            let max_age_ms = if first == Lite04 { TRACK_MAX_AGE_MS_DEFAULT } else { AGES };
            let wanted = Preferences { frame_start: 2, max_age_ms, ..range(1, None) };
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

// ---- another way to the same broadcast ----

/// How a publisher fails.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Failure {
    Reset,
    FinWithoutEnd,
    Closed,
    Killed,
}

const FAILURES: [Failure; 4] =
    [Failure::Reset, Failure::FinWithoutEnd, Failure::Closed, Failure::Killed];

impl Scene {
    fn fail(&mut self, track: Track, how: Failure) {
        match how {
            Failure::Reset => self.w.break_off(track, End::Reset(0x41), false),
            Failure::FinWithoutEnd => self.w.break_off(track, End::Finished, false),
            Failure::Closed => self.w.close(track.peer),
            Failure::Killed => self.w.kill(track.peer),
        }
        if how == Failure::Killed {
            self.w.run(LOSS_NOTICED);
        }
    }

    /// The same film, one hop farther away.
    fn second_way(&mut self, version: Version, shard: usize) -> Track {
        let spec = Spec::new(version, shard % self.place.shards).hop(50 + shard as u64);
        let second = self.w.second_way(self.cam, spec);
        self.w.run(SOON);
        assert!(self.w.peers[second.peer].is_up());
        second
    }
}

/// Who is asked first, and who after that.
const PAIRS: [(Version, Version); 4] =
    [(Lite05, Lite05), (Lite06, Lite06), (Lite05, Lite06), (Lite06, Lite05)];

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
            let viewers = [0, 1, 2, 3].map(|nth| s.viewer(VERSIONS[nth], nth));
            let subs = viewers.map(|viewer| s.subscribe(viewer, live()));
            s.w.run(SOON);
            s.w.all_settled();
            s.groups(0..1);
            s.w.open_group(s.cam, 1);
            s.w.frame(s.cam, 1, 2000);
            s.w.frame(s.cam, 1, 10);
            s.w.run(SOON);
            let gets = [viewers[2], viewers[3]].map(|viewer| s.fetch(viewer, whole(1)));
            s.w.run(SOON);
            assert_eq!(s.w.asked(s.cam.peer), [s.asks(), s.subscribes(live())], "{what}");
            assert_eq!(s.w.asked(spare.peer), [], "{what}");

            s.fail(s.cam, how);
            s.w.run(SOON);
            let wanted = Preferences { frame_start: 2, ..range(1, None) };
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
            let wanted = Preferences { frame_start: 3, ..range(3, None) };
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

// ---- load ----

/// The longest time a frame of a live track took to a viewer, of frames made every few ms.
fn live_delay(s: &mut Scene, sub: Sub, groups: std::ops::Range<u64>) -> Duration {
    let mut made = Vec::new();
    for sequence in groups.clone() {
        s.w.open_group(s.cam, sequence);
        for _ in 0..10 {
            s.w.frame(s.cam, sequence, 1000);
            made.push(s.w.now);
            s.w.run(ms(4));
        }
        s.w.end_group(s.cam, sequence, End::Finished);
    }
    s.w.run(ms(1000));
    let came = groups.flat_map(|sequence| s.w.sub(sub).groups[&sequence].came.clone());
    let came: Vec<_> = came.collect();
    assert_eq!(came.len(), made.len(), "{:?}: frames are missing", s.place);
    came.into_iter().zip(made).map(|(came, made)| came - made).max().expect("frames")
}

/// Past groups that are large, and a live viewer of what follows them.
fn heavy(version: Version, place: Place) -> (Scene, Sub) {
    let setup = Setup { hop: 7, ..Setup::default() };
    let spec = Spec { setup, is_swift: true, ..Spec::new(version, place.publisher) };
    let mut s = scene_with(Stage::new(1, place.shards), spec, place);
    for sequence in 0..64 {
        s.w.group(s.cam, sequence, &[30_000, 1, 30_000]);
    }
    let ann = s.viewer(Lite06, 0);
    let sub = s.subscribe(ann, range(100, None));
    s.w.run(SOON);
    s.w.all_settled();
    (s, sub)
}

fn dropped(s: &Scene) -> u64 {
    (0..s.place.shards).map(|shard| s.w.counters(shard).dropped_groups_total).sum()
}

#[test]
fn sixty_four_fetches_do_not_hold_up_what_is_live() {
    for version in FETCHABLE {
        for place in PLACES {
            let (mut s, sub) = heavy(version, place);
            let before = live_delay(&mut s, sub, 100..105);
            let viewers = [0, 1, 2, 3].map(|nth| s.viewer(FETCHABLE[nth % 2], nth));
            let gets: Vec<Get> =
                (0..64).map(|group| s.fetch(viewers[group as usize % 4], whole(group))).collect();
            let during = live_delay(&mut s, sub, 105..125);
            assert!(during <= before + ms(2), "{place:?}: {before:?}, then {during:?}");
            s.outcomes(&gets, (3, DONE));
            assert_eq!((s.w.got(sub).len(), dropped(&s)), (25, 0), "{place:?}");
            s.w.end();
        }
    }
}

#[test]
fn a_viewer_that_fetches_sees_what_is_live_first() {
    for version in FETCHABLE {
        for place in PLACES {
            let (mut s, sub) = heavy(version, place);
            let before = live_delay(&mut s, sub, 100..105);
            let gets: Vec<Get> = (0..14).map(|group| s.fetch(sub.peer, whole(group))).collect();
            let during = live_delay(&mut s, sub, 105..125);
            // What the congestion window has taken already is ahead.
            assert!(during <= before + WAY, "{place:?}: {before:?}, then {during:?}");
            s.outcomes(&gets, (3, DONE));
            assert_eq!((s.w.got(sub).len(), dropped(&s)), (25, 0), "{place:?}");
            s.w.end();
        }
    }
}

#[test]
fn one_who_does_not_read_for_a_minute_costs_the_others_nothing() {
    let mut s = scene(Lite06, APART);
    s.w.groups_expire = true;
    s.w.source(s.cam).info.max_age_ms = 5000;
    let bob = s.watch(Lite05, 0);
    let slow = s.watch(Lite05, 1);
    s.w.peers[slow.peer].read_groups(false);
    // 10 Mb/s: a group a second of 25 frames.
    let mut next = 0;
    let mut film = |s: &mut Scene, seconds: u64| {
        for _ in 0..seconds {
            s.w.open_group(s.cam, next);
            for _ in 0..25 {
                s.w.frame(s.cam, next, 50_000);
                s.w.run(ms(40));
            }
            s.w.end_group(s.cam, next, End::Finished);
            next += 1;
        }
    };
    film(&mut s, 60);
    assert!(s.w.got(slow).len() < 10, "{:?}", s.w.got(slow));
    s.w.peers[slow.peer].read_groups(true);
    film(&mut s, 10);
    s.w.run(ms(1000));
    assert_eq!(s.w.got(bob), (0..70).collect::<Vec<_>>());
    let known = s.w.sub(slow);
    assert_eq!(known.end, None, "it is behind, not gone");
    let late = [reset(StreamCode::OLD), reset(StreamCode::TOO_FAR_BEHIND)];
    for (sequence, seen) in &known.groups {
        assert!(seen.end == DONE || late.contains(&seen.end), "group {sequence}: {:?}", seen.end);
    }
    let got = s.w.got_sorted(slow);
    assert!(got.ends_with(&[62, 63, 64, 65, 66, 67, 68, 69]), "{got:?}");
    s.w.end();
}

// ---- the cache ----

fn small_cache(shards: usize, bytes: u64) -> Stage {
    let duration = ms(4000);
    Stage { cache: CacheBounds { bytes, duration }, linger: ms(1000), ..Stage::new(1, shards) }
}

/// What a group of 40 KB takes, with its frames' share.
const GROUP_BYTES: u64 = 44_000;

impl Scene {
    fn large_groups(&mut self, sequences: std::ops::Range<u64>) {
        for sequence in sequences {
            self.w.group(self.cam, sequence, &[10_000, 10_000, 10_000, 10_000]);
            self.w.run(ms(60));
        }
    }

    #[track_caller]
    fn assert_cache(&self, at_most: u64) {
        let bytes: Vec<u64> = self.w.held().iter().map(|held| held.cache_bytes).collect();
        assert!(bytes.iter().all(|bytes| *bytes <= at_most), "{bytes:?} above {at_most}");
    }
}

#[test]
fn a_full_cache_keeps_the_newest_group_of_each_live_track() {
    everywhere(|version, place| {
        let mut s = scene_on(small_cache(place.shards, 5 * GROUP_BYTES), version, place);
        let quiet = s.w.track(s.cam.peer, PATH, "quiet");
        let ann = s.viewer(Lite06, 0);
        let sub = s.subscribe(ann, live());
        let other = s.w.subscribe(ann, PATH, "quiet", live());
        s.w.run(SOON);
        s.w.all_settled();
        s.w.group(quiet, 0, &[40_000]);
        s.w.run(ms(60));
        for sequence in 0..20 {
            s.large_groups(sequence..sequence + 1);
            s.assert_cache(7 * GROUP_BYTES);
        }
        assert_eq!(s.w.got(sub), (0..20).collect::<Vec<_>>(), "{place:?}");
        assert_eq!(s.w.got(other), [0]);
        let held = s.w.held().iter().map(|held| held.cache_bytes).max();
        assert!(held > Some(3 * GROUP_BYTES), "it is a cache after all: {held:?}");

        s.w.asked(s.cam.peer);
        let bob = s.viewer(Lite05, 1);
        let newest = [s.w.fetch(bob, PATH, "quiet", whole(0)), s.fetch(bob, whole(19))];
        s.check(&[]);
        assert_eq!(newest.map(|get| s.w.outcome(get)), [(1, DONE), (4, DONE)], "{place:?}");
        // Gone, so fetched; and then there.
        for _ in 0..2 {
            let get = s.fetch(bob, whole(3));
            s.check(&[s.fetches(whole(3))]);
            assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
            let get = s.fetch(bob, whole(3));
            s.check(&[]);
            assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
            let next = s.w.source(s.cam).groups.len() as u64;
            s.large_groups(next..next + 10);
            s.assert_cache(7 * GROUP_BYTES);
        }
        s.w.end();
    });
}

#[test]
fn fetched_groups_stay_within_the_bounds_of_the_cache() {
    everywhere(|version, place| {
        let mut s = scene_on(small_cache(place.shards, 5 * GROUP_BYTES), version, place);
        (0..40).for_each(|group| s.w.group(s.cam, group, &[20_000, 20_000]));
        let viewers = [0, 1, 2].map(|nth| s.viewer(FETCHABLE[nth % 2], nth));
        for group in 0..40 {
            let get = s.fetch(viewers[group as usize % 3], whole(group));
            s.w.run(ms(150));
            assert_eq!(s.w.outcome(get), (2, DONE), "{place:?}");
            s.assert_cache(6 * GROUP_BYTES);
        }
        s.w.end();
    });
}

#[test]
fn who_reads_a_group_that_is_evicted_is_told_so() {
    everywhere(|version, place| {
        let mut s = scene_on(small_cache(place.shards, 8 * GROUP_BYTES), version, place);
        let live_one = s.watch(Lite06, 0);
        s.w.group(s.cam, 0, &[100_000, 100_000]);
        s.w.run(ms(300));
        assert_eq!(s.w.got(live_one), [0]);
        let shard = place.viewer;
        let slow = s.w.join(Spec { window: 20_000, ..Spec::new(Lite06, shard) });
        s.w.peers[slow].read_groups(false);
        let get = s.fetch(slow, whole(0));
        s.w.run(SOON);
        s.large_groups(1..20);
        s.assert_cache(10 * GROUP_BYTES);
        s.w.peers[slow].read_groups(true);
        // A round trip, and what fills a small window.
        s.w.run(ms(100));
        let (_, end) = s.w.outcome(get);
        assert_eq!(end, reset(StreamCode::EVICTED), "{place:?}");
        assert_eq!(s.w.got(live_one), (0..20).collect::<Vec<_>>(), "{place:?}");
        s.w.end();
    });
}

#[test]
fn who_reads_a_group_that_makes_room_for_a_larger_one_is_told_so() {
    everywhere(|version, place| {
        let mut s = scene_on(small_cache(place.shards, 20_000), version, place);
        let live_one = s.watch(Lite06, 0);
        s.w.group(s.cam, 0, &[8000]);
        s.w.run(SOON);
        assert_eq!(s.w.got(live_one), [0]);
        let slow = s.w.join(Spec { window: 2000, ..Spec::new(Lite06, place.viewer) });
        s.w.peers[slow].read_groups(false);
        let get = s.fetch(slow, whole(0));
        s.w.run(SOON);
        // So large that to let go of the one is not enough.
        s.w.group(s.cam, 1, &[100_000]);
        s.w.run(ms(300));
        s.w.peers[slow].read_groups(true);
        s.w.run(ms(500));
        assert_eq!(s.w.outcome(get).1, reset(StreamCode::EVICTED), "{place:?}");
        s.w.end();
    });
}

#[test]
fn what_is_too_large_for_the_cache_is_whole_or_cut_off_for_all() {
    everywhere(|version, place| {
        let mut s = scene_on(small_cache(place.shards, 10_000), version, place);
        let subs = [0, 1, 2].map(|nth| s.watch(FETCHABLE[nth % 2], nth));
        let (ann, bob) = (subs[0].peer, subs[1].peer);
        for sequence in 0..3 {
            s.w.open_group(s.cam, sequence);
            s.w.frame(s.cam, sequence, 8000);
            s.w.run(SOON);
            let gets = [ann, bob].map(|peer| s.fetch(peer, whole(sequence)));
            for _ in 0..4 {
                s.w.run(SOON);
                s.w.frame(s.cam, sequence, 8000);
            }
            s.w.end_group(s.cam, sequence, End::Finished);
            s.w.run(SOON);
            let is_told = |end| end == DONE || end == reset(StreamCode::EVICTED);
            for sub in subs {
                let end = s.w.sub(sub).groups.get(&sequence).and_then(|seen| seen.end);
                assert!(is_told(end), "{place:?} group {sequence}: {end:?}");
            }
            for get in gets {
                let (_, end) = s.w.outcome(get);
                assert!(is_told(end), "{place:?} fetch of {sequence}: {end:?}");
            }
        }
        s.w.end();
    });
}

#[test]
fn what_the_home_lets_go_of_does_not_stay_open_elsewhere() {
    everywhere(|version, place| {
        let mut s = scene_on(small_cache(place.shards, 30_000), version, place);
        let sub = s.watch(Lite06, 0);
        s.w.open_group(s.cam, 0);
        s.w.frame(s.cam, 0, 8000);
        s.w.run(SOON);
        let bob = s.viewer(Lite05, 0);
        let get = s.fetch(bob, whole(0));
        // Something large that has its home there as well, and no viewer anywhere else.
        let large = homed("live/large", place.home, place.shards);
        s.w.peers[s.cam.peer].announce("live/large", &[], Cost::ZERO);
        let film = s.w.track(s.cam.peer, "live/large", &large);
        s.w.run(SOON);
        let ann = s.w.viewer(Lite06, place.home);
        let other = s.w.subscribe(ann, "live/large", &large, live());
        s.w.run(SOON);
        s.w.open_group(film, 0);
        for _ in 0..5 {
            s.w.frame(film, 0, 8000);
            s.w.run(SOON);
        }
        s.w.end_group(film, 0, End::Finished);
        s.w.run(SOON);
        for _ in 0..2 {
            s.w.frame(s.cam, 0, 100);
            s.w.run(SOON);
        }
        s.w.end_group(s.cam, 0, End::Finished);
        s.w.run(SOON);
        let (_, fetched) = s.w.outcome(get);
        let ends = [s.w.sub(sub).groups[&0].end, s.w.sub(other).groups[&0].end, fetched];
        let is_told = |end: &Option<End>| *end == DONE || *end == reset(StreamCode::EVICTED);
        assert!(ends.iter().all(is_told), "{place:?}: {ends:?}");
        s.w.end();
    });
}

#[test]
fn a_group_that_pauses_is_of_use_to_those_who_wait_for_it() {
    everywhere(|version, place| {
        let mut s = scene_on(small_cache(place.shards, CACHE_BYTES), version, place);
        let subs = [0, 1].map(|nth| s.watch(FETCHABLE[nth], nth));
        s.w.open_group(s.cam, 0);
        s.w.frame(s.cam, 0, 10);
        let other = s.w.track(s.cam.peer, PATH, "other");
        s.w.open_group(other, 0);
        s.w.frame(other, 0, 10);
        s.w.run(SOON);
        let viewers = [0, 1, 2].map(|nth| s.viewer(FETCHABLE[nth % 2], nth));
        let gets = viewers.map(|viewer| s.w.fetch(viewer, PATH, "other", whole(0)));
        for count in 1..4 {
            // Longer than the cache keeps what nobody asks for.
            s.w.run(s.w.stage.cache.duration * 2);
            s.outcomes(&gets, (count, None));
            s.w.frame(s.cam, 0, 10);
            s.w.frame(other, 0, 10);
            s.w.run(SOON);
        }
        s.w.end_group(s.cam, 0, End::Finished);
        s.w.end_group(other, 0, End::Finished);
        s.w.run(SOON);
        s.outcomes(&gets, (4, DONE));
        for sub in subs {
            assert_eq!(s.w.got(sub), [0], "{place:?}");
        }
        s.w.end();
    });
}

#[test]
fn what_nobody_asks_for_leaves_the_cache_in_time() {
    everywhere(|version, place| {
        let (linger, duration) = (ms(2000), ms(7000));
        let cache = CacheBounds { bytes: CACHE_BYTES, duration };
        let stage = Stage { linger, cache, ..Stage::new(1, place.shards) };
        let mut s = scene_on(stage, version, place);
        let sub = s.watch(Lite06, 0);
        s.large_groups(0..3);
        s.w.leave(sub);
        s.w.run(linger + SOON);
        let bytes = |s: &Scene| s.w.held().iter().map(|held| held.cache_bytes).sum::<u64>();
        assert!(bytes(&s) >= 120_000, "{place:?}: {}", bytes(&s));
        // Used once more, and only that one.
        s.w.run(ms(3000));
        let bob = s.viewer(Lite05, 0);
        let get = s.fetch(bob, whole(1));
        s.w.run(SOON);
        assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
        s.w.run(ms(3500));
        assert!((40_000..100_000).contains(&bytes(&s)), "{place:?}: {}", bytes(&s));
        s.w.run(duration + linger);
        assert_eq!(bytes(&s), 0, "{place:?}");
        let get = s.fetch(bob, whole(1));
        s.w.asked(s.cam.peer);
        s.check(&[s.asks(), s.fetches(whole(1))]);
        assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
        s.w.end();
    });
}

// ---- publishers that cannot be asked for a group ----

/// Lite-03 and 04.
fn of_old(play: impl Fn(Scene)) {
    for version in [Lite03, Lite04] {
        PLACES.into_iter().for_each(|place| play(scene(version, place)));
    }
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
        let sub = s.watch(Lite06, 0);
        s.groups(0..2);
        s.w.run(SOON);
        let bob = s.viewer(Lite05, 1);
        let get = s.fetch(bob, whole(7));
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
        let sub = s.watch(Lite06, 0);
        s.groups(0..2);
        s.groups(4..5);
        s.w.run(SOON);
        let bob = s.viewer(Lite05, 1);
        let get = s.fetch(bob, whole(3));
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
        let sub = s.watch(Lite06, 0);
        s.groups(0..2);
        s.groups(4..5);
        s.w.run(SOON);
        let bob = s.viewer(Lite05, 1);
        let get = s.fetch(bob, whole(3));
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
        let sub = s.watch(Lite06, 0);
        s.groups(0..2);
        s.w.run(SOON);
        let bob = s.viewer(Lite05, 1);
        let get = s.fetch(bob, whole(2));
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
        s.groups(0..6);
        let ann = s.viewer(Lite06, 0);
        let sub = s.subscribe(ann, range(5, None));
        s.w.run(SOON);
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

// ---- guests, who are outside of all shards ----

/// What a guest waits with for the newest group.
fn newest() -> Preferences {
    Preferences { priority: 0, max_age_ms: 0, ..live() }
}

impl Scene {
    fn guest(&mut self, group: Option<u64>) -> Guest {
        let track = self.track.clone();
        self.w.guest(PATH, &track, group)
    }

    fn guests(&self) -> usize {
        self.w.held().iter().map(|held| held.guests).sum()
    }
}

#[test]
fn guests_share_a_fetch_with_viewers_and_the_cache() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..3);
        let mut one = s.guest(Some(1));
        let ann = s.viewer(Lite05, 0);
        let two = s.fetch(ann, whole(1));
        s.check(&[s.asks(), s.fetches(Want { priority: 0, ..whole(1) })]);
        assert_eq!((one.outcome(), s.w.outcome(two)), ((4, Some(Ok(()))), (4, DONE)));
        let mut again = s.guest(Some(1));
        let mut unknown = s.w.guest("live/nobody", "video", Some(1));
        s.check(&[]);
        assert_eq!(again.outcome(), (4, Some(Ok(()))));
        assert_eq!(unknown.outcome(), (0, Some(Err(StreamCode::UNROUTABLE))));
        let mut missing = s.guest(Some(9));
        s.w.run(SOON);
        assert_eq!(missing.outcome(), (0, Some(Err(StreamCode::NOT_FOUND))));
        assert_eq!(s.guests(), 0);
        s.w.end();
    });
}

#[test]
fn the_newest_group_is_subscribed_to_until_it_is_known() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        let mut one = s.guest(None);
        s.check(&[s.asks(), s.subscribes(newest())]);
        assert_eq!((one.outcome(), s.guests()), ((0, None), 1));
        s.w.open_group(s.cam, 7);
        s.w.frame(s.cam, 7, 100);
        s.check(&[s.pauses(0, 7)]);
        assert_eq!(one.outcome(), (1, None));
        // It is the newest that this relay knows, but the publisher may have others by now.
        let mut two = s.guest(None);
        s.check(&[Asked::Update(newest())]);
        assert_eq!(two.outcome(), (0, None));
        s.w.guest_settles(&two);
        s.check(&[s.pauses(0, 7)]);
        assert_eq!(two.outcome(), (1, None));
        s.w.frame(s.cam, 7, 100);
        s.w.end_group(s.cam, 7, End::Finished);
        s.check(&[]);
        assert_eq!((one.outcome(), two.outcome()), ((2, Some(Ok(()))), (2, Some(Ok(())))));
        // Where somebody watches there is no doubt.
        let viewer = s.watch(Lite06, 0);
        s.groups(8..10);
        s.w.run(SOON);
        s.w.asked(s.cam.peer);
        let mut three = s.guest(None);
        s.check(&[]);
        assert_eq!((three.outcome(), s.guests()), ((4, Some(Ok(()))), 0));
        s.w.leave(viewer);
        s.w.end();
    });
}

#[test]
fn a_guest_that_leaves_leaves_nothing_behind() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.pace(1);
        s.groups(0..2);
        let fetching = s.guest(Some(0));
        s.check(&[s.asks(), s.fetches(Want { priority: 0, ..whole(0) })]);
        s.w.guest_leaves(fetching);
        s.check(&[Asked::FetchEnded(0, End::Reset(StreamCode::CANCEL.0))]);
        let track = homed("live/other", place.home, place.shards);
        let other = s.w.track(s.cam.peer, "live/other", &track);
        s.w.peers[s.cam.peer].announce("live/other", &[], Cost::ZERO);
        s.w.run(SOON);
        let waiting = s.w.guest("live/other", &track, None);
        s.check(&[Asked::Track(track.clone()), Asked::Subscribe(track.clone(), newest())]);
        s.w.guest_leaves(waiting);
        s.check(&[s.pauses(0, 0)]);
        let reading = s.w.guest("live/other", &track, None);
        s.w.run(SOON);
        s.w.open_group(other, 3);
        s.w.frame(other, 3, 100);
        s.w.run(SOON);
        assert_eq!(s.guests(), 1);
        s.w.guest_leaves(reading);
        s.w.run(SOON);
        assert_eq!(s.guests(), 0);
        s.w.end();
    });
}

#[test]
fn a_track_that_ends_or_fails_is_over_for_guests_too() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        let mut none = s.guest(None);
        s.w.run(SOON);
        s.w.close(s.cam.peer);
        s.w.run(SOON);
        assert!(matches!(none.outcome(), (0, Some(Err(_)))), "{place:?}");
        assert_eq!(s.guests(), 0);
        s.w.end();
    });
}

/// Those who read nothing make room for others, and the home holds nothing for them.
#[test]
fn guests_that_do_not_read_are_cut_off() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..1);
        let unread = shardcast::shard::guest::Unread::new(4000);
        let track = s.track.clone();
        let one = s.w.guest_with(PATH, &track, Some(0), &unread);
        s.w.run(SOON);
        let mut two = s.w.guest_with(PATH, &track, Some(0), &unread);
        s.w.run(SOON);
        assert!(one.is_cut_off() && !two.is_cut_off(), "{place:?}");
        assert_eq!((two.outcome(), s.guests()), ((4, Some(Ok(()))), 0));
        // What was read makes room.
        let mut three = s.w.guest_with(PATH, &track, Some(0), &unread);
        s.w.run(SOON);
        assert_eq!(three.outcome(), (4, Some(Ok(()))));
        assert!(!two.is_cut_off());
        // Nobody has room for what is more than there is.
        let little = shardcast::shard::guest::Unread::new(100);
        let mut four = s.w.guest_with(PATH, &track, Some(0), &little);
        s.w.run(SOON);
        assert_eq!(four.outcome(), (0, Some(Err(StreamCode::TOO_FAR_BEHIND))));
        s.w.end();
    });
}
