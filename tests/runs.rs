//! Tracks whose publishers end them and begin them again: numbers that start over, names that are
//! taken over, and what viewers see of it, who come, stay or return. Played under a virtual clock,
//! like `sim`.

#[path = "support/simulated.rs"]
mod support;

use std::time::Duration;

use Version::{Lite03, Lite04, Lite05, Lite06};
use shardcast::limits::{
    LINGER_DEFAULT, RESUME_GRACE, REVIVAL_ANSWER_GRACE, REVIVAL_GRACE, TAIL_GRACE, UNTOLD_GRACE,
};
use shardcast::wire::*;
use support::network::Weather;
use support::peer::*;
use support::world::*;

const PATH: &str = "live/cam";

const VERSIONS: [Version; 4] = [Lite03, Lite04, Lite05, Lite06];

/// A question goes all the way and is answered.
const SOON: Duration = Duration::from_millis(150);

/// The publisher's identity.
const HOP: u64 = 7;

/// Shards, and which of them have the publisher, the track and the first viewer: all on one; a
/// mirror; all elsewhere.
const PLACES: [(usize, usize, usize, usize); 4] =
    [(1, 0, 0, 0), (2, 0, 0, 1), (2, 0, 1, 0), (3, 2, 0, 1)];

/// Groups of two small frames.
const SIZES: [usize; 2] = [700, 30];

struct Scene {
    w: World,
    cam: Track,
    track: String,
    place: (usize, usize, usize, usize),
    /// Of the publisher and of the viewers that come next.
    publisher: Version,
    viewers: Version,
}

fn scene(publisher: Version, viewers: Version, place: (usize, usize, usize, usize)) -> Scene {
    let (shards, at, home, _) = place;
    let track = homed(PATH, home, shards);
    let mut w = World::new(Stage::new(1, shards));
    let spec = Spec { is_hasty: true, ..Spec::new(publisher, at).hop(HOP) };
    let cam = w.publisher_like(spec, PATH, &track);
    Scene { w, cam, track, place, publisher, viewers }
}

fn everywhere(play: impl Fn(Scene)) {
    for publisher in VERSIONS {
        for viewers in [Lite04, Lite05, Lite06] {
            PLACES.into_iter().for_each(|place| play(scene(publisher, viewers, place)));
        }
    }
}

impl Scene {
    /// A new peer that subscribes as players do: to whatever is live.
    fn watch(&mut self, nth: usize) -> Sub {
        let (shards, _, _, at) = self.place;
        let peer = self.w.viewer(self.viewers, (at + nth) % shards);
        self.subscribe(peer)
    }

    fn subscribe(&mut self, peer: usize) -> Sub {
        let track = self.track.clone();
        let wanted = Preferences { max_age_ms: 0, ..live() };
        self.w.subscribe(peer, PATH, &track, wanted)
    }

    fn groups(&mut self, track: Track, sequences: std::ops::Range<u64>) {
        for sequence in sequences {
            self.w.group(track, sequence, &SIZES);
            self.w.run(Duration::from_millis(20));
        }
    }

    /// Somebody watches so many groups and the end of the track.
    fn show_ends(&mut self, count: u64) {
        let sub = self.watch(0);
        self.w.run(SOON);
        self.groups(self.cam, 0..count);
        self.w.finish(self.cam, count);
        self.w.run(ms(1500));
        assert_eq!(self.w.sub(sub).end, Some(End::Finished), "{}", self.context());
    }

    /// How often the publisher was asked for the track since this was last looked at.
    fn subscribes(&mut self, peer: usize) -> usize {
        let asked = self.w.asked(peer);
        asked.iter().filter(|asked| matches!(asked, Asked::Subscribe(..))).count()
    }

    /// The whole groups of this run that a viewer has, as the publisher numbers them, in order of
    /// arrival.
    fn got_of(&self, sub: Sub, run: Track) -> Vec<u64> {
        let source = &self.w.peers[run.peer].sources[run.source];
        let known = self.w.sub(sub);
        let seen = known.arrivals.iter().map(|sequence| &known.groups[sequence]);
        let whole = seen.filter(|seen| seen.end == Some(End::Finished));
        whole.filter_map(|seen| source.number_of(&seen.frames)).collect()
    }

    fn context(&self) -> String {
        format!("{} to {} {:?}", self.publisher, self.viewers, self.place)
    }
}

// ---- a track that has ended ----

#[test]
fn who_comes_after_the_end_has_the_publisher_asked_anew_at_once() {
    for after in [ms(100), ms(2000), ms(6000)] {
        everywhere(|mut s| {
            let old = s.watch(0);
            s.w.run(SOON);
            s.groups(s.cam, 0..3);
            // Its last group is still under way.
            s.w.open_group(s.cam, 3);
            s.w.finish(s.cam, 4);
            for _ in 0..after.as_millis() / 100 {
                s.w.frame(s.cam, 3, 100);
                s.w.run(ms(100));
            }
            let run = s.w.rerun(s.cam);
            s.groups(run, 0..2);
            s.subscribes(run.peer);

            let new = s.watch(1);
            s.w.run(SOON);
            let context = s.context();
            assert_eq!(s.subscribes(run.peer), 1, "{context} {after:?} after the end");
            s.groups(run, 2..4);
            s.w.run(SOON);
            assert_eq!(s.got_of(new, run), [1, 2, 3], "{context} {after:?}");
            assert_eq!(s.w.got(new), [1, 2, 3], "under their own numbers: {context}");
            assert_eq!(s.got_of(new, s.cam), [0; 0], "nothing of the old run: {context}");

            // The tail is there for who was.
            s.w.end_group(s.cam, 3, End::Finished);
            s.w.run(TAIL_GRACE + SOON);
            assert_eq!(s.got_of(old, s.cam), [0, 1, 2, 3], "{context}");
            assert_eq!(s.w.sub(old).end, Some(End::Finished), "{context}");
            assert_eq!(s.w.sub(new).end, None, "{context}");
            s.w.end();
        });
    }
}

#[test]
fn on_older_versions_the_tail_is_over_shortly_after_the_last_group() {
    for version in [Lite03, Lite04] {
        for place in PLACES {
            let mut s = scene(version, Lite04, place);
            let sub = s.watch(0);
            s.w.run(SOON);
            s.groups(s.cam, 0..3);
            s.w.open_group(s.cam, 3);
            s.w.frame(s.cam, 3, 100);
            s.w.run(SOON);
            s.w.finish(s.cam, 4);
            s.w.run(ms(2000));
            assert_eq!(s.w.sub(sub).end, None, "a group is under way: {place:?}");
            s.w.end_group(s.cam, 3, End::Finished);
            s.w.run(TAIL_GRACE + SOON);
            assert_eq!(s.w.sub(sub).end, Some(End::Finished), "{version} {place:?}");
            assert_eq!(s.w.got(sub), [0, 1, 2, 3]);
            s.w.end();
        }
    }
}

/// What a publisher does with a track that has ended and is asked for again.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Refuses,
    IsSilent,
    /// It says what the track is like, and no more.
    OnlyAnswers,
    /// Another run, of no group.
    EndsAgain,
}

#[test]
fn where_nothing_new_comes_what_is_held_is_all_there_is() {
    for then in [Then::Refuses, Then::IsSilent, Then::OnlyAnswers, Then::EndsAgain] {
        everywhere(|mut s| {
            s.show_ends(5);
            let context = format!("{} {then:?}", s.context());
            let run = if then == Then::EndsAgain { s.w.rerun(s.cam) } else { s.cam };
            let source = s.w.source(run);
            match then {
                Then::EndsAgain => s.w.finish(run, 0),
                Then::Refuses => source.refuses = Some(StreamCode::NOT_FOUND.0),
                Then::IsSilent if s.publisher <= Lite04 => {
                    source.never_answers = Some(BidiType::Subscribe);
                }
                Then::IsSilent => source.never_answers = Some(BidiType::Track),
                Then::OnlyAnswers => source.never_answers = Some(BidiType::Subscribe),
            }
            let track = s.track.clone();
            let peer = s.w.viewer(s.viewers, s.place.3);
            let new = s.w.subscribe(peer, PATH, &track, range(0, None));
            s.w.run(ms(20));
            let get = (s.viewers >= Lite05).then(|| s.w.fetch(peer, PATH, &track, whole(2)));
            s.w.run(SOON);
            if let Some(get) = get {
                let whole = (SIZES.len(), Some(End::Finished));
                assert_eq!(s.w.outcome(get), whole, "FETCH of what is held: {context}");
            }
            s.w.run(match then {
                Then::Refuses => SOON,
                Then::IsSilent if s.publisher >= Lite05 => REVIVAL_ANSWER_GRACE,
                _ => REVIVAL_GRACE,
            });
            // What its max age covers, from where it asked.
            assert_eq!(s.w.got_sorted(new), [0, 1, 2, 3, 4], "{context}");
            assert_eq!(s.w.sub(new).end, Some(End::Finished), "{context}");
            let late = s.w.viewer(Lite06, 0);
            let get = s.w.fetch(late, PATH, &track, whole(1));
            s.w.run(SOON);
            assert_eq!(s.w.outcome(get), (SIZES.len(), Some(End::Finished)), "{context}");
            s.w.end();
        });
    }
}

// ---- numbers that begin again ----

/// Where the numbers of a run begin that follows one of groups 0 to 9.
const BEGINS: [(&str, u64); 4] = [("at 0", 0), ("lower", 4), ("with the next", 10), ("higher", 15)];

#[test]
fn who_returns_sees_what_is_live_and_nothing_else() {
    for (how, first) in BEGINS {
        everywhere(|mut s| {
            let old = s.watch(0);
            s.w.run(SOON);
            s.groups(s.cam, 0..10);
            s.w.leave(old);
            s.w.run(LINGER_DEFAULT + SOON);
            assert_eq!(s.w.asked(s.cam.peer).last(), Some(&Asked::Unsubscribe));
            let run = s.w.rerun(s.cam);
            let new = s.watch(1);
            s.w.run(SOON);
            s.groups(run, first..first + 4);
            s.w.run(SOON);
            let context = format!("{} {how}", s.context());
            let expect: Vec<u64> = (first..first + 4).collect();
            assert_eq!(s.w.got(new), expect, "{context}");
            assert_eq!(s.got_of(new, run), expect, "{context}");
            if s.publisher >= Lite05 && first < 10 {
                let track = s.track.clone();
                let peer = s.w.viewer(Lite06, 0);
                let get = s.w.fetch(peer, PATH, &track, whole(first));
                let gone = s.w.fetch(peer, PATH, &track, whole(9));
                s.w.run(SOON);
                let seen = &s.w.fetched(get).seen;
                let group = &s.w.peers[run.peer].sources[run.source].groups[&first];
                assert_eq!(seen.frames, group.frames, "fetches know one run: {context}");
                assert_eq!(s.w.outcome(gone).0, 0, "and not the other: {context}");
            }
            s.w.end();
        });
    }
}

/// The catalog of a player: one group, which is another one next time.
#[test]
fn a_track_of_one_group_is_not_served_from_the_last_time() {
    everywhere(|mut s| {
        s.groups(s.cam, 0..1);
        let old = s.watch(0);
        s.w.run(SOON);
        assert_eq!(s.got_of(old, s.cam), [0]);
        s.w.leave(old);
        s.w.run(LINGER_DEFAULT + SOON);
        let run = s.w.rerun(s.cam);
        s.groups(run, 0..1);
        let new = s.watch(1);
        s.w.run(SOON);
        let context = s.context();
        assert_eq!((s.got_of(new, s.cam), s.got_of(new, run)), (vec![], vec![0]), "{context}");
        // The same once more is no news, and is served all the same.
        s.w.leave(new);
        s.w.run(LINGER_DEFAULT + SOON);
        let again = s.watch(0);
        s.w.run(SOON);
        assert_eq!(s.got_of(again, run), [0], "{context}");
        s.groups(run, 1..2);
        s.w.run(SOON);
        assert_eq!(s.got_of(again, run), [0, 1], "{context}");
        s.w.end();
    });
}

/// Each of those who come is a reason to ask anew, and none to hold the same once more.
#[test]
fn what_has_ended_is_held_once_however_often_it_is_asked_for() {
    everywhere(|mut s| {
        s.show_ends(50);
        let context = s.context();
        s.w.source(s.cam).refuses = Some(StreamCode::NOT_FOUND.0);
        let held = |w: &World| -> u64 { w.held().iter().map(|held| held.cache_bytes).sum() };
        let before = held(&s.w);
        for _ in 0..10 {
            let track = s.track.clone();
            let peer = s.w.viewer(s.viewers, s.place.3);
            let new = s.w.subscribe(peer, PATH, &track, range(0, None));
            s.w.run(2 * SOON + TAIL_GRACE);
            assert_eq!(s.w.sub(new).end, Some(End::Finished), "{context}");
            assert!(!s.w.got(new).is_empty(), "{context}");
        }
        let after = held(&s.w);
        assert!(after <= 3 * before, "{context}: {before}, then {after}");
        s.w.end();
    });
}

/// A process of the same identity takes the place of one that is gone, and counts from 0: viewers
/// in mid-subscription see its groups under numbers that go on, and those who come see its own.
#[test]
fn viewers_of_a_run_go_on_with_the_next_one() {
    for is_killed in [false, true] {
        everywhere(|mut s| {
            let stay = s.watch(0);
            s.w.run(SOON);
            s.groups(s.cam, 100..110);
            let spec = Spec::new(s.publisher, s.place.1).hop(HOP);
            if is_killed {
                s.w.kill(s.cam.peer);
            }
            let track = s.track.clone();
            let next = s.w.publisher_like(spec, PATH, &track);
            s.w.run(SOON);
            s.w.close(s.cam.peer);
            s.w.run(RESUME_GRACE + SOON);
            s.groups(next, 0..3);
            // Nothing is held of what is so low, and so it could have been long ago.
            s.w.run(UNTOLD_GRACE);
            let context = format!("{} killed {is_killed}", s.context());
            // Chains have no names on lite-03: there another process is another broadcast.
            if s.publisher >= Lite04 {
                let got = s.got_of(stay, next);
                assert!(got.ends_with(&[1, 2]), "{context}: {got:?} of {:?}", s.w.got(stay));
                let numbers = s.w.got(stay);
                assert!(numbers.is_sorted(), "numbers go on: {context}: {numbers:?}");
            }
            let come = s.watch(1);
            s.w.run(SOON);
            s.groups(next, 3..5);
            s.w.run(SOON);
            assert_eq!(s.w.got(come), [2, 3, 4], "{context}");
            assert_eq!(s.got_of(come, next), [2, 3, 4], "{context}");
            // Who reaches further back, where somebody else watches, has all of it and nothing else.
            let peer = s.w.viewer(s.viewers, s.place.3);
            let all = s.w.subscribe(peer, PATH, &track, range(0, None));
            s.w.run(SOON);
            if s.publisher >= Lite04 {
                assert_eq!(s.w.got_sorted(all), [0, 1, 2, 3, 4], "{context}");
            }
            s.w.run(Weather::FAIR.latency);
            s.w.end();
        });
    }
}

/// A process is started again while a group of the one before is on its way, whose number its own first group has
/// too. No viewer gets a group that is made of both.
#[test]
fn a_group_is_never_made_of_two_runs() {
    for frames in [1, 2] {
        everywhere(|mut s| {
            let stay = s.watch(0);
            s.w.run(SOON);
            s.w.open_group(s.cam, 0);
            (0..frames).for_each(|_| s.w.frame(s.cam, 0, 700));
            s.w.run(SOON);
            let spec = Spec::new(s.publisher, s.place.1).hop(HOP);
            let track = s.track.clone();
            let next = s.w.publisher_like(spec, PATH, &track);
            s.w.group(next, 0, &[700, 700, 700]);
            s.w.run(SOON);
            s.w.close(s.cam.peer);
            s.w.run(RESUME_GRACE + SOON);
            s.groups(next, 1..3);
            s.w.run(SOON);
            if s.publisher >= Lite04 {
                let got = s.got_of(stay, next);
                assert!(got.ends_with(&[1, 2]), "{}, {frames}: {got:?}", s.context());
            }
            s.w.end();
        });
    }
}

/// The other relay that is asked where it is has just begun its copy, which fills from below with what
/// viewers have had long ago.
#[test]
fn a_copy_that_fills_up_is_no_other_run() {
    everywhere(|mut s| {
        // Older ones do not tell how long a group is kept.
        if s.publisher < Lite05 {
            return;
        }
        let info = &mut s.w.source(s.cam).info;
        (info.max_age_ms, info.timescale) = (2000, 1000);
        let stay = s.watch(0);
        s.w.run(SOON);
        s.groups(s.cam, 0..30);
        let spec = Spec::new(s.publisher, s.place.1).hop(HOP + 1);
        let copy = s.w.second_way(s.cam, spec);
        let source = s.w.source(copy);
        let groups = std::mem::take(&mut source.groups);
        source.order.clear();
        s.w.run(SOON);
        s.w.close(s.cam.peer);
        s.w.run(RESUME_GRACE + SOON);
        for (sequence, group) in groups {
            let source = s.w.source(copy);
            source.groups.insert(sequence, group);
            source.order.push(sequence);
            s.w.run(ms(5));
        }
        s.groups(copy, 30..33);
        s.w.run(SOON);
        let all: Vec<u64> = (0..33).collect();
        assert_eq!(s.w.got(stay), all, "{}", s.context());
        s.w.end();
    });
}

// ---- names that are taken over ----

/// The line of a publisher is dead, and nobody has noticed: it is back in a new session, or another
/// one has its name.
#[test]
fn who_is_back_wins_at_once_over_its_dead_session() {
    for hop in [HOP, HOP + 1] {
        everywhere(|mut s| {
            let stay = s.watch(0);
            s.w.run(SOON);
            s.groups(s.cam, 0..3);
            s.w.run(SOON);
            s.w.kill(s.cam.peer);
            s.w.run(ms(500));
            let spec = Spec::new(s.publisher, s.place.1).hop(hop);
            let track = s.track.clone();
            let next = s.w.publisher_like(spec, PATH, &track);
            s.w.run(SOON);
            let come = s.watch(1);
            s.w.run(SOON);
            s.groups(next, 3..6);
            s.w.run(SOON);
            let context = format!("{} hop {hop}", s.context());
            assert_eq!(s.got_of(come, next), [3, 4, 5], "{context}");
            if hop == HOP && s.publisher >= Lite04 {
                assert_eq!(s.got_of(stay, next), [3, 4, 5], "who stays sees it too: {context}");
            }
            s.w.end();
        });
    }
}

/// The newest of a name is gone, and the one before it is asked again.
#[test]
fn an_older_publisher_of_a_name_is_asked_again_and_seen_at_once() {
    everywhere(|mut s| {
        let old = s.watch(0);
        s.w.run(SOON);
        s.groups(s.cam, 0..8);
        let track = s.track.clone();
        let spec = Spec::new(s.publisher, s.place.1).hop(HOP + 1);
        let second = s.w.publisher_like(spec, PATH, &track);
        s.w.run(SOON);
        s.w.leave(old);
        let with_second = s.watch(1);
        s.w.run(SOON);
        s.groups(second, 0..2);
        s.w.run(LINGER_DEFAULT + SOON);
        let context = s.context();
        assert_eq!(s.got_of(with_second, second), [0, 1], "{context}");
        let run = s.w.rerun(s.cam);
        s.w.close(second.peer);
        s.w.run(SOON);
        let back = s.watch(0);
        s.w.run(SOON);
        s.groups(run, 0..2);
        s.w.run(SOON);
        assert_eq!(s.got_of(back, run), [0, 1], "{context}");
        s.w.end();
    });
}

/// A publisher that takes no notice of a pause: on return there is what is live and no backlog.
#[test]
fn a_viewer_that_resumes_is_not_sent_what_came_meanwhile() {
    everywhere(|mut s| {
        let peer = s.w.viewer(s.viewers, s.place.3);
        let first = s.subscribe(peer);
        s.w.run(SOON);
        s.groups(s.cam, 0..3);
        s.w.source(s.cam).heeds_no_update = true;
        s.w.leave(first);
        s.w.run(SOON);
        s.groups(s.cam, 3..40);
        let again = s.subscribe(peer);
        s.w.run(SOON);
        s.groups(s.cam, 40..42);
        s.w.run(SOON);
        let got = s.w.got(again);
        let context = s.context();
        assert!(got.ends_with(&[40, 41]), "{context}: {got:?}");
        assert!(got.len() <= 3, "one group before those at most: {context}: {got:?}");
        s.w.end();
    });
}
