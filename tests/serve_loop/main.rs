//! What a relay asks of publishers on behalf of all its viewers, and what viewers get of it: one
//! subscription that follows the demand, fetches beside it, a cache, and another way to the same
//! broadcast when one fails. Played under a virtual clock, like `sim`.

mod cache;
mod demand;
mod fetches;
mod guests;
mod leaving;
mod old;
mod silence;
mod ways;

#[path = "../support/simulated.rs"]
mod support;

use std::time::Duration;

use quinn_proto::Dir;

use Version::{Lite03, Lite04, Lite05, Lite06};
use shardcast::limits::{
    ANSWER_TIMEOUT, FETCH_QUIET, FETCHES_AT_ONCE, LINGER_DEFAULT, MISSING_GRACE_MAX, REVIVAL_GRACE,
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

    /// A viewer of each version, on the track in the middle of group 1, whom everybody knows.
    fn in_mid_group(&mut self) -> ([usize; 4], [Sub; 4]) {
        let viewers = [0, 1, 2, 3].map(|nth| self.viewer(VERSIONS[nth], nth));
        let subs = viewers.map(|viewer| self.subscribe(viewer, live()));
        self.w.run(SOON);
        self.w.all_settled();
        self.groups(0..1);
        self.w.open_group(self.cam, 1);
        self.w.frame(self.cam, 1, 2000);
        self.w.frame(self.cam, 1, 10);
        self.w.run(SOON);
        (viewers, subs)
    }

    /// A viewer that has come for the last of six groups alone, and so the relay for no other.
    fn at_the_last(&mut self) -> (usize, Sub) {
        self.groups(0..6);
        let peer = self.viewer(Lite06, 0);
        let sub = self.subscribe(peer, range(5, None));
        self.w.run(SOON);
        (peer, sub)
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
