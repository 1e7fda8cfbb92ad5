//! A serve loop with its publishers, who are told and say in words.

use super::*;
use crate::limits::{LIFTED_MAX_AGE, RESUME_GRACE, UNTOLD_BYTES_MAX, UNTOLD_GRACE};
use crate::route::{RouteId, Trust};
use crate::track::fetch::Asker;
use crate::track::group::{FrameMark, GroupEnd, Marks, Opening};
use crate::wire::{Cost, Hops, TrackInfo};
use bytes::Bytes;

const TRACK: TrackRef = TrackRef { shard: 0, slot: 4, generation: 5 };
const LINK_LOST: StreamCode = StreamCode::SESSION_CLOSED;

/// A group of one empty frame, finished or not.
fn piece(sequence: u64, timestamp: u64, ends: Option<GroupEnd>) -> Piece {
    let mark = FrameMark { start: 0, delta_len: 1, timestamp };
    Piece {
        sequence,
        opens: Some(Opening::at(0)),
        bytes: Bytes::from_static(b"\x00\x00"),
        marks: Marks::from_slice(&[mark]),
        ends,
    }
}

fn word(feed: &Feed) -> &'static str {
    match feed {
        Feed::NewRun(_) => "run",
        Feed::Start(_) => "start",
        Feed::Piece(_) => "piece",
        _ => "else",
    }
}

/// A serve loop with its publishers, which speak these versions, and the words it has for them.
struct Play {
    serve: ServeLoop,
    content: Content,
    fetches: Fetches,
    routes: Vec<Arc<Route>>,
    now: Instant,
    need: Need,
    /// The one to be asked for, which is no longer than the track keeps groups.
    max_age_ms: u64,
}

impl Play {
    fn new(versions: &[Version]) -> Play {
        let route = |(n, version): (usize, &Version)| {
            Arc::new(Route {
                id: RouteId(n as u64),
                path: Path::parse("live").unwrap(),
                is_whole: true,
                is_linked: false,
                hops: Hops::from_slice(&[7]).unwrap(),
                origin: 7,
                trust: Trust::Relay,
                cost: Cost::ZERO,
                via: n as u64,
                session: SessionRef { shard: 1, slot: n as u32, generation: 3 },
                version: *version,
                is_silent: false,
            })
        };
        Play {
            serve: ServeLoop::new(TRACK),
            content: Content::default(),
            fetches: Fetches::default(),
            routes: versions.iter().enumerate().map(route).collect(),
            now: Instant::now(),
            need: Need::default(),
            max_age_ms: 100,
        }
    }

    /// One that is subscribed, at the priority given.
    fn active(versions: &[Version], priority: u8) -> Play {
        let mut play = Play::new(versions);
        play.wants(Some(priority));
        play.check("0 ask");
        play.know();
        play.check(&format!("0 want {priority} None"));
        play
    }

    fn wants(&mut self, priority: Option<u8>) {
        let demand =
            priority.map(|priority| Demand { priority, max_age_ms: 500, ..Demand::NEWEST });
        self.need = Need { info: false, feed: demand.is_some(), demand };
    }

    fn ask(&mut self, group: u64) -> FetchId {
        self.fetches.join(Ask { group, frame_start: 0, priority: 9, asker: Asker(1) })
    }

    fn know(&mut self) {
        let info = TrackInfo { priority: 0, max_age_ms: 100, timescale: 1000 };
        self.news(Feed::Info(info));
    }

    fn news(&mut self, feed: Feed) -> usize {
        self.tell(feed).len()
    }

    /// The same, in words.
    fn told(&mut self, feed: Feed) -> String {
        self.tell(feed).join(", ")
    }

    fn tell(&mut self, feed: Feed) -> Vec<&'static str> {
        let told = self.serve.admit(self.now, feed, &self.content);
        self.apply(told)
    }

    fn apply(&mut self, told: impl IntoIterator<Item = Feed>) -> Vec<&'static str> {
        let mut words = Vec::new();
        for feed in told {
            words.push(word(&feed));
            self.content.apply(feed, self.now);
        }
        words
    }

    fn settled(&mut self) -> String {
        let told = self.serve.settle(self.now, &self.content);
        self.apply(told).join(", ")
    }

    fn group(&mut self, sequence: u64, ends: Option<GroupEnd>) {
        self.news(Feed::Piece(piece(sequence, 0, ends)));
    }

    #[track_caller]
    fn check(&mut self, expect: &str) {
        let (path, name) = (Path::parse("live/cam").unwrap(), Arc::from("video"));
        let acts = self.serve.steer(
            self.now,
            &self.need,
            &self.content,
            &mut self.fetches,
            (&path, &name),
            |tried| self.routes.iter().find(|route| !tried.contains(&route.id)),
        );
        let words: Vec<String> = acts.into_iter().map(|act| self.words(act)).collect();
        assert_eq!(words.join(", "), expect);
    }

    #[track_caller]
    fn lost(&mut self, code: StreamCode, expect: &str) {
        let acts = self.serve.lost(code, &self.need, &self.content, &mut self.fetches);
        let words: Vec<String> = acts.into_iter().map(|act| self.words(act)).collect();
        assert_eq!(words.join(", "), expect);
    }

    fn words(&mut self, act: Act) -> String {
        let (to, command) = match act {
            Act::Command(session, command) => (session.slot, command),
            Act::Tell(feed) => {
                let word = match &feed {
                    Feed::Closed(code) => format!("close {code}"),
                    Feed::Piece(Piece { sequence, opens: None, ends, .. }) => match ends {
                        Some(GroupEnd::Aborted(code)) => format!("cut off {sequence} {code}"),
                        _ => "piece".to_owned(),
                    },
                    feed => word(feed).to_owned(),
                };
                self.apply([feed]);
                return word;
            }
            Act::Fail(code) => return format!("fail {code}"),
            Act::FailFetch(id, code) => {
                self.fetches.remove(id);
                return format!("fail fetch {code}");
            }
        };
        let words = match command {
            PullCommand::Ask { .. } => "ask".into(),
            PullCommand::Wish { wanted, .. } => format!("wish {}", wanted.priority),
            PullCommand::Want { wanted, .. } => {
                assert_eq!(wanted.max_age_ms, self.max_age_ms);
                let start = wanted.group_start.map(|group| (group, wanted.frame_start));
                format!("want {} {start:?}", wanted.priority)
            }
            PullCommand::Pause { wanted, .. } => {
                assert_eq!((wanted.priority, wanted.group_start), (0, None));
                format!("pause at {:?}", wanted.group_end)
            }
            PullCommand::Fetch { ask, .. } => format!("fetch {}", ask.group),
            PullCommand::JoinFetch { fetch, .. } => format!("join {}", fetch.0),
            PullCommand::Abandon { .. } => "abandon".into(),
            PullCommand::Release { .. } => "release".into(),
        };
        format!("{to} {words}")
    }
}

use Version::{Lite02, Lite04, Lite05, Lite06};
const WHOLE: Option<GroupEnd> = Some(GroupEnd::Finished);

#[test]
fn a_life_of_demand() {
    let mut play = Play::new(&[Lite05]);
    play.check("");
    play.need.info = true;
    play.check("0 ask");
    play.wants(Some(3));
    play.check("");
    play.know();
    play.check("0 want 3 None");
    play.check("");
    play.wants(Some(9));
    play.check("0 want 9 None");
    play.wants(Some(3));
    play.check("0 want 3 None");
    play.wants(None);
    play.check("0 pause at Some(0)");
    play.check("");
    play.wants(Some(1));
    play.check("0 want 1 None");
    play.group(4, WHOLE);
    play.wants(None);
    play.check("0 pause at Some(4)");
    assert!(play.serve.release().is_some());
    assert!(play.serve.release().is_none());
    play.wants(Some(1));
    play.check("0 ask");
    play.know();
    play.check("0 want 1 None");
}

#[test]
fn a_publisher_that_cannot_be_told_to_wait_is_left() {
    let mut play = Play::active(&[Lite02], 1);
    play.wants(None);
    play.check(&format!("0 release, close {}", StreamCode::CANCEL));
}

#[test]
fn fetches_run_beside_the_subscription_and_without_it() {
    let mut play = Play::new(&[Lite06]);
    play.ask(5);
    play.check("0 ask");
    play.ask(6);
    play.check("");
    play.know();
    play.check("0 fetch 5, 0 fetch 6");
    play.ask(6);
    play.check("");
    play.wants(Some(1));
    play.ask(7);
    play.check("0 want 1 None, 0 fetch 7");
    play.news(Feed::Final(20));
    play.ask(20);
    play.check(&format!("fail fetch {}", StreamCode::NOT_FOUND));
    play.news(Feed::Ended);
    play.ask(8);
    play.check("0 fetch 8");
}

#[test]
fn a_publisher_without_fetch_may_bring_the_group_by_itself() {
    let missing = format!("fail fetch {}", StreamCode::NOT_FOUND);
    let mut play = Play::new(&[Lite04]);
    play.ask(5);
    play.check("0 ask");
    play.know();
    play.check(&missing);
    play.wants(Some(1));
    play.ask(5);
    play.ask(2);
    play.check("0 want 1 None");
    play.news(Feed::Start(3));
    play.check(&missing);
    play.group(4, WHOLE);
    play.check("");
    play.group(6, WHOLE);
    play.check("");
    let deadline = play.serve.deadline(&play.fetches).unwrap();
    assert_eq!(deadline, play.now + Duration::from_secs(1));
    play.now = deadline;
    play.check(&missing);
    play.check("");
    assert_eq!(play.serve.deadline(&play.fetches), None);
}

#[test]
fn without_a_route_the_track_fails_at_once() {
    let mut play = Play::new(&[]);
    play.wants(Some(1));
    play.check(&format!("fail {}", StreamCode::UNROUTABLE));
}

#[test]
fn another_publisher_goes_on_where_one_stopped() {
    for (second, start) in [(Lite06, "Some((3, 1))"), (Lite05, "Some((3, 0))")] {
        let mut play = Play::active(&[Lite06, second, Lite05], 1);
        play.news(Feed::Start(2));
        play.group(2, WHOLE);
        play.group(3, None);
        let mark = FrameMark { start: 2, delta_len: 1, timestamp: 0 };
        let second = Piece { opens: None, marks: Marks::from_slice(&[mark]), ..piece(3, 0, None) };
        play.news(Feed::Piece(second));
        play.group(4, None);
        play.lost(LINK_LOST, "");
        play.check("1 ask");
        play.know();
        // From a frame that is here, if it can be asked for.
        play.check(&format!("1 want 1 {start}"));
        assert_eq!(play.news(Feed::Start(4)), 1, "group 3 is given up, and START is no news");
        assert!(play.content.get_group(3, 0).is_none());
        assert!(play.content.get_group(4, 0).is_some());
        // It has served; so the first may be asked again, after the one that never was.
        play.lost(LINK_LOST, "");
        play.check("2 ask");
        play.lost(StreamCode::INTERNAL, "");
        play.check("0 ask");
        play.lost(StreamCode::INTERNAL, "");
        play.check(&format!("fail {}", StreamCode::INTERNAL));
    }
    let mut play = Play::active(&[Lite05, Lite05], 1);
    play.group(3, WHOLE);
    play.lost(LINK_LOST, "");
    play.check("1 ask");
    play.know();
    play.check("1 want 1 Some((4, 0))");
    play.wants(Some(5));
    play.check("1 want 5 Some((4, 0))");
}

/// A relay that had begun later because of others says so first, and is only then asked for more.
#[test]
fn a_relay_that_says_that_it_begins_later_may_still_go_on_with_a_group() {
    let resumed = || {
        let mut play = Play::new(&[Lite06, Lite06]);
        for route in &mut play.routes {
            Arc::make_mut(route).is_linked = true;
        }
        play.wants(Some(1));
        play.check("0 ask, 0 wish 1");
        play.know();
        play.check("0 want 1 None");
        play.news(Feed::Start(2));
        play.group(3, None);
        play.lost(LINK_LOST, "");
        play.check("1 ask");
        play.know();
        play.check("1 want 1 Some((3, 0))");
        assert_eq!(play.told(Feed::Start(5)), "");
        assert_eq!(play.serve.deadline(&play.fetches), Some(play.now + RESUME_GRACE));
        play
    };
    let mut play = resumed();
    play.group(3, WHOLE);
    assert!(play.content.get_group(3, 0).is_some());
    let mut play = resumed();
    play.now += RESUME_GRACE;
    play.check(&format!("cut off 3 {LINK_LOST}"));
}

#[test]
fn a_group_that_the_next_publisher_does_not_complete_is_given_up() {
    let mut play = Play::active(&[Lite05, Lite05], 1);
    play.group(1, None);
    play.group(2, None);
    play.lost(LINK_LOST, "");
    play.check("1 ask");
    play.know();
    play.check("1 want 1 Some((1, 0))");
    play.group(2, WHOLE);
    play.group(3, WHOLE);
    play.check("");
    play.now = play.serve.deadline(&play.fetches).unwrap();
    play.check(&format!("cut off 1 {LINK_LOST}"));
    assert_eq!(play.serve.deadline(&play.fetches), None);
}

/// It is asked for its newest groups, and not to drop what it owes since it was asked to go on.
#[test]
fn who_is_only_late_drops_nothing_because_it_is_asked_where_it_is() {
    let mut play = Play::new(&[Lite06, Lite06]);
    let info = TrackInfo { priority: 0, max_age_ms: 60_000, timescale: 1000 };
    let demand = Demand { priority: 1, max_age_ms: 60_000, ..Demand::NEWEST };
    play.need = Need { info: false, feed: true, demand: Some(demand) };
    play.max_age_ms = 60_000;
    play.check("0 ask");
    play.news(Feed::Info(info));
    play.check("0 want 1 None");
    play.group(3, WHOLE);
    play.lost(LINK_LOST, "");
    play.check("1 ask");
    play.news(Feed::Info(info));
    play.check("1 want 1 Some((4, 0))");
    play.now += RESUME_GRACE;
    play.max_age_ms = LIFTED_MAX_AGE.as_millis() as u64;
    play.check("1 want 1 None");
}

#[test]
fn a_group_that_nobody_goes_on_with_is_given_up_in_any_case() {
    let mut play = Play::active(&[Lite05, Lite05], 1);
    play.group(1, None);
    play.lost(LINK_LOST, "");
    play.check("1 ask");
    play.know();
    play.check("1 want 1 Some((1, 0))");
    play.now += RESUME_GRACE;
    play.check("1 want 1 None");
    play.now = play.serve.deadline(&play.fetches).unwrap();
    play.check(&format!("cut off 1 {LINK_LOST}"));
    assert_eq!(play.serve.deadline(&play.fetches), None);
}

/// What is told of a group that comes to a subscription opened anew on groups 0 to 4.
#[track_caller]
fn reopened(sequence: u64, timestamp: u64, expect: &str) {
    let mut play = Play::active(&[Lite05], 1);
    play.news(Feed::Start(0));
    (0..5).for_each(|sequence| play.group(sequence, WHOLE));
    assert!(play.serve.release().is_some());
    play.content.apply(Feed::Closed(StreamCode::CANCEL), play.now);
    play.check("0 ask");
    play.know();
    play.check("0 want 1 None");
    assert_eq!(play.told(Feed::Start(sequence)), if sequence < 5 { "" } else { "start" });
    assert_eq!(play.told(Feed::Piece(piece(sequence, timestamp, WHOLE))), expect);
    // Whatever it was, it is settled.
    assert_eq!(play.told(Feed::Piece(piece(sequence + 1, 9, WHOLE))), "piece");
}

#[test]
fn a_subscription_that_is_opened_anew_may_bring_another_run() {
    reopened(0, 0, "run, start, piece");
    reopened(3, 0, "run, start, piece");
    // The newest again, or another one under its number.
    reopened(4, 0, "start, piece");
    reopened(4, 77, "run, start, piece");
    reopened(5, 77, "piece");
    reopened(9, 77, "piece");
}

#[test]
fn an_end_below_what_is_known_is_that_of_another_run() {
    for (end, expect) in [(0, "run, else"), (4, "run, else"), (5, "else")] {
        let mut play = Play::active(&[Lite05], 1);
        (0..5).for_each(|sequence| play.group(sequence, WHOLE));
        assert!(play.serve.release().is_some());
        play.check("0 ask");
        play.know();
        play.check("0 want 1 None");
        assert_eq!(play.told(Feed::Final(end)), expect, "{end}");
    }
}

#[test]
fn who_takes_over_may_be_far_below_and_is_asked_where_it_is() {
    let resumed = || {
        let mut play = Play::active(&[Lite06, Lite06], 1);
        (0..103).for_each(|sequence| play.group(sequence, WHOLE));
        for gone in 0..100 {
            let arrival = play.content.get_group(gone, 0).unwrap();
            play.content.evict(arrival, false);
        }
        play.lost(LINK_LOST, "");
        play.check("1 ask");
        play.know();
        play.check("1 want 1 Some((103, 0))");
        play
    };
    let lifted = || {
        let mut play = resumed();
        play.now = play.serve.deadline(&play.fetches).unwrap();
        play.check("1 want 1 None");
        play
    };
    let mut play = lifted();
    assert_eq!(play.told(Feed::Piece(piece(3, 0, WHOLE))), "");
    assert_eq!(play.told(Feed::Piece(piece(2, 0, None))), "");
    assert_eq!(play.told(Feed::cut_off(2, LINK_LOST)), "");
    play.now += UNTOLD_GRACE;
    assert_eq!(play.serve.deadline(&play.fetches), Some(play.now));
    play.check(&format!("run, start, piece, piece, cut off 2 {LINK_LOST}"));
    play.check("");
    assert_eq!(play.content.feed_start, Some(2));
    assert_eq!(play.serve.deadline(&play.fetches), None);
    // What shows it, at once: a group that differs, an end that is too low or is all that is said, so much that it
    // is enough, a publisher that fails.
    let mut play = lifted();
    assert_eq!(play.told(Feed::Start(1)), "");
    assert_eq!(play.told(Feed::Piece(piece(2, 0, WHOLE))), "");
    assert_eq!(play.told(Feed::Piece(piece(101, 77, WHOLE))), "run, start, piece, piece");
    assert_eq!(play.content.feed_start, Some(1));
    for last in [Feed::Final(3), Feed::Ending] {
        let mut play = lifted();
        assert_eq!(play.told(Feed::Piece(piece(2, 0, WHOLE))), "");
        assert_eq!(play.told(last), "run, start, piece, else");
        assert_eq!(play.content.feed_start, Some(2));
    }
    let mut play = lifted();
    let bytes = vec![0; UNTOLD_BYTES_MAX].into();
    let large = Feed::Piece(Piece { bytes, ..piece(2, 0, None) });
    assert_eq!(play.told(large), "run, start, piece");
    let mut play = lifted();
    assert_eq!(play.told(Feed::Piece(piece(2, 0, WHOLE))), "");
    assert_eq!(play.settled(), "run, start, piece");
    play.lost(LINK_LOST, "");
    // A copy that had just begun shows first what readers have had, which is gone here.
    let unclear = || Feed::Piece(Piece { marks: Marks::new(), ..piece(101, 0, None) });
    let same = [
        (Feed::Piece(piece(102, 0, WHOLE)), "", "1 want 1 Some((103, 0))"),
        (Feed::Piece(piece(103, 9, WHOLE)), "piece", "1 want 1 Some((103, 0))"),
        (Feed::Start(103), "start", "1 want 1 Some((103, 0))"),
        (Feed::Final(103), "else", ""),
    ];
    for (shows, expect, asks) in same {
        let mut play = lifted();
        assert_eq!(play.told(Feed::Piece(piece(2, 0, WHOLE))), "");
        assert_eq!(play.told(unclear()), "");
        assert_eq!(play.told(shows), expect);
        assert_eq!(play.content.run().0, 0);
        play.check(asks);
        assert_eq!(play.serve.deadline(&play.fetches), None);
    }
    let mut play = lifted();
    assert_eq!(play.told(Feed::Piece(piece(2, 0, WHOLE))), "");
    assert_eq!(play.told(unclear()), "");
    assert_eq!((play.settled().as_str(), play.content.run().0), ("", 0));
    // Nobody reads any more.
    let mut play = lifted();
    assert_eq!(play.told(Feed::Piece(piece(2, 0, None))), "");
    play.wants(None);
    play.check("1 pause at Some(102)");
    assert_eq!((play.settled().as_str(), play.serve.deadline(&play.fetches)), ("", None));
    // One that only has nothing new shows its newest, and is asked to go on.
    let mut play = resumed();
    play.now = play.serve.deadline(&play.fetches).unwrap();
    play.check("1 want 1 None");
    play.told(Feed::Piece(piece(102, 0, WHOLE)));
    play.check("1 want 1 Some((103, 0))");
    // One that is behind is asked to go on when it has caught up, and may come to another run before.
    for (timestamp, expect) in [(0, ""), (77, "run, start, piece")] {
        let mut play = resumed();
        play.now = play.serve.deadline(&play.fetches).unwrap();
        play.check("1 want 1 None");
        assert_eq!(play.told(Feed::Piece(piece(100, 0, WHOLE))), "");
        play.check("");
        assert_eq!(play.told(Feed::Piece(piece(101, timestamp, WHOLE))), expect);
    }
    // Nor is it asked for all that it has by readers who named a start and name none any more.
    let named = |play: &mut Play, start| {
        let demand = Demand { priority: 1, max_age_ms: 500, start, ..Demand::NEWEST };
        play.need = Need { info: false, feed: true, demand: Some(demand) };
    };
    for is_known in [false, true] {
        let mut play = Play::new(&[Lite06, Lite06]);
        named(&mut play, Some((100, 0)));
        play.check("0 ask");
        play.know();
        play.check("0 want 1 Some((100, 0))");
        (100..103).for_each(|sequence| play.group(sequence, WHOLE));
        play.lost(LINK_LOST, "");
        play.check("1 ask");
        if is_known {
            play.know();
            play.check("1 want 1 Some((103, 0))");
        }
        named(&mut play, None);
        if !is_known {
            play.know();
        }
        play.check("1 want 1 None");
        play.told(Feed::Piece(piece(102, 0, WHOLE)));
        play.check("");
        assert_eq!(play.told(Feed::Piece(piece(50, 0, WHOLE))), "piece");
    }
    // Nor do those who named a start, and are beyond it, wait until it has counted as far; others do.
    for (start, expect) in [(50, "1 want 1 None"), (200, "")] {
        let mut play = Play::new(&[Lite06, Lite06]);
        named(&mut play, Some((50, 0)));
        play.check("0 ask");
        play.know();
        play.check("0 want 1 Some((50, 0))");
        (100..103).for_each(|sequence| play.group(sequence, WHOLE));
        named(&mut play, Some((start, 0)));
        play.check(if start == 50 { "" } else { "0 want 1 Some((200, 0))" });
        play.lost(LINK_LOST, "");
        play.check("1 ask");
        play.know();
        play.check(&format!("1 want 1 Some(({}, 0))", start.max(103)));
        play.now = play.serve.deadline(&play.fetches).unwrap();
        play.check(expect);
        assert_eq!(play.serve.deadline(&play.fetches), None);
    }
    // One that goes on is not asked.
    let mut play = resumed();
    assert_eq!(play.told(Feed::Piece(piece(103, 0, WHOLE))), "piece");
    assert_eq!(play.serve.deadline(&play.fetches), None);
    play.check("");
    // Those that it was asked for are the same ones, or another run.
    let mut play = Play::active(&[Lite06, Lite06], 1);
    play.group(100, None);
    play.group(101, WHOLE);
    play.lost(LINK_LOST, "");
    play.check("1 ask");
    play.know();
    play.check("1 want 1 Some((100, 0))");
    assert_eq!(play.told(Feed::Piece(piece(101, 5, WHOLE))), "run, start, piece");
}

#[test]
fn what_readers_have_had_does_not_come_again() {
    let mut play = Play::active(&[Lite05, Lite05], 1);
    play.group(1, None);
    play.group(2, WHOLE);
    play.lost(LINK_LOST, "");
    play.check("1 ask");
    play.know();
    play.check("1 want 1 Some((1, 0))");
    let arrival = play.content.get_group(2, 0).unwrap();
    play.content.evict(arrival, false);
    play.group(2, WHOLE);
    assert!(play.content.get_group(2, 0).is_none());
    play.group(3, WHOLE);
    assert!(play.content.get_group(3, 0).is_some());
    // Nor while nobody wants any more: a pause may call for what is old.
    play.group(4, Some(GroupEnd::Aborted(StreamCode::INTERNAL)));
    play.wants(None);
    play.check("1 pause at Some(4)");
    assert_eq!(play.told(Feed::Piece(piece(4, 0, WHOLE))), "");
}

#[test]
fn a_definite_refusal_is_the_one_that_is_reported() {
    let mut play = Play::active(&[Lite05, Lite05], 1);
    play.lost(StreamCode::NOT_FOUND, "");
    play.check("1 ask");
    play.lost(StreamCode::INTERNAL, "");
    play.check(&format!("fail {}", StreamCode::NOT_FOUND));
}

#[test]
fn a_publisher_that_fails_while_nobody_reads_is_forgiven() {
    let mut play = Play::active(&[Lite05], 1);
    play.wants(None);
    play.check("0 pause at Some(0)");
    play.lost(LINK_LOST, &format!("close {LINK_LOST}"));
    play.check("");
    play.wants(Some(1));
    play.check("0 ask");
}

#[test]
fn what_nobody_completes_is_closed_when_interest_ends() {
    let mut play = Play::active(&[Lite05, Lite05], 1);
    play.group(3, None);
    play.lost(LINK_LOST, "");
    play.check("1 ask");
    play.wants(None);
    play.check("");
    play.know();
    play.check(&format!("close {LINK_LOST}"));
}

#[test]
fn after_all_has_come_single_groups_are_asked_for() {
    let mut play = Play::active(&[Lite05], 1);
    play.group(3, WHOLE);
    assert!(play.serve.conclude().is_some());
    play.check("");
    play.news(Feed::Final(4));
    play.content.apply(Feed::Ended, play.now);
    play.check("");
    play.ask(2);
    play.check("0 ask");
    play.know();
    play.check("0 fetch 2");
    play.ask(4);
    play.check(&format!("fail fetch {}", StreamCode::NOT_FOUND));
    play.lost(StreamCode::NOT_FOUND, "");
    play.check(&format!("fail {}", StreamCode::NOT_FOUND));
}

#[test]
fn fetches_that_have_not_begun_move_to_the_next_publisher() {
    let mut play = Play::new(&[Lite05, Lite06]);
    let begun = play.ask(1);
    play.ask(2);
    play.check("0 ask");
    play.know();
    play.check("0 fetch 1, 0 fetch 2");
    play.fetches.set_stage(begun, Stage::Open(0));
    play.lost(LINK_LOST, &format!("fail fetch {LINK_LOST}, close {LINK_LOST}"));
    play.check("1 ask");
    play.know();
    play.check("1 fetch 2");
}
