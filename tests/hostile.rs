//! A peer that means harm beside honest ones, in the simulated world: honest viewers have every group of
//! honest publishers in time, where each thing that a shard looks at takes its time; no turn looks at
//! more than its share; and what the relay holds stays within bounds and is given back.
//!
//! `SIM_SEEDS=5000` plays more of it, `SIM_SEED=17` one, `SIM_TRACE=1` prints what happens.

mod support {
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod hostile;
    pub mod memory;
    #[path = "simulated.rs"]
    mod simulated;

    pub use simulated::*;
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use shardcast::shard::CacheBounds;
use shardcast::shard::visits::Visits;
use shardcast::wire::*;
use support::hostile::*;
use support::memory;
use support::network::Random;
use support::peer::*;
use support::world::*;

use Version::{Lite04, Lite05, Lite06};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Seeds in an ordinary run.
const SEEDS: u64 = 320;

/// Whether the hostile peer also announces what honest publishers have live.
const TAKES_OVER: bool = false;

/// What a shard takes for each thing that a turn looks at: the most expensive of them, an announced
/// path that a listener may have to be told of, takes as long.
const VISIT_TIME: Duration = Duration::from_micros(1);

/// From the end of a group at its publisher to the last of it at a viewer: ten milliseconds on the way,
/// and two or three of the longest turns below.
const LATE_MAX: Duration = Duration::from_millis(50);

/// What one turn may look at: a batch of 512 or less of most kinds of things, and for viewers of long
/// tracks two times as much as `SERVE_VISITS_PER_TURN` says, with two or three looks for each group that
/// they are sent. By [`VISIT_TIME`] that is a video frame's time.
const VISITS_MAX: u64 = 16_384;

/// Of that, what listeners are told, and what viewers of long tracks look through.
const PATHS_MAX: u32 = 640;
const GROUPS_MAX: u32 = 10_240;

/// What the relay may hold while up to three hostile connections last: 4 MiB of groups on each shard, and
/// 8 MiB for what each connection has announced, has not read or has not said to the end.
const HELD_MAX: isize = 36 << 20;

/// The same when they are gone and the cache has had its time: what it remembers of changed paths, and
/// room in its tables.
const HELD_AFTER_MAX: isize = 6 << 20;

const STEP: Duration = Duration::from_millis(20);

/// Groups that each honest publisher makes, and steps that one takes, with a frame in each.
const GROUPS: usize = 15;
const GROUP_STEPS: usize = 5;

/// Honest viewers and publishers, and what viewers are to have.
struct Cast {
    publishers: Vec<Track>,
    honest: Vec<Honest>,
    subs: Vec<(usize, Sub)>,
    /// When groups of each publisher were complete.
    made: Vec<Vec<Instant>>,
}

impl Cast {
    fn new(w: &mut World, r: &mut Random) -> Cast {
        let mut cast =
            Cast { publishers: Vec::new(), honest: Vec::new(), subs: Vec::new(), made: Vec::new() };
        let shards = w.stage.shards as u64;
        for n in 0..2 {
            let (path, track) = (format!("live/cam{n}"), "video".to_owned());
            let hop = 5000 + n;
            let version = r.pick(&[Lite04, Lite05, Lite06]);
            let spec = Spec::new(version, r.below(shards) as usize).hop(hop);
            cast.publishers.push(w.publisher_like(spec, &path, &track));
            cast.honest.push(Honest { path, track, hop });
            cast.made.push(Vec::new());
        }
        for n in 0..3 {
            let version = r.pick(&[Lite04, Lite05, Lite05, Lite06, Lite06]);
            let spec = Spec::new(version, n % w.stage.shards);
            let viewer = w.join(if r.one_in(3) { spec.web() } else { spec });
            if r.one_in(2) {
                w.peers[viewer].listen("", 0);
            }
            for (at, Honest { path, track, .. }) in cast.honest.iter().enumerate() {
                if n == 0 || r.one_in(2) {
                    cast.subs.push((at, w.subscribe(viewer, path, track, live())));
                }
            }
        }
        w.run(ms(500));
        w.all_settled();
        cast
    }

    fn step(&mut self, w: &mut World, step: usize) {
        let (sequence, frame) = ((step / GROUP_STEPS) as u64, step % GROUP_STEPS);
        for (at, track) in self.publishers.iter().enumerate() {
            if frame == 0 {
                w.open_group(*track, sequence);
            }
            w.frame(*track, sequence, if frame == 0 { 3000 } else { 400 });
            if frame == GROUP_STEPS - 1 {
                w.end_group(*track, sequence, End::Finished);
                self.made[at].push(w.now);
            }
        }
    }

    /// How long the slowest group took.
    fn slowest(&self, w: &World) -> Duration {
        let mut slowest = Duration::ZERO;
        for (at, sub) in &self.subs {
            for (sequence, made) in self.made[*at].iter().enumerate() {
                let seen = w.sub(*sub).groups.get(&(sequence as u64));
                let ended = seen.filter(|seen| seen.end == Some(End::Finished));
                let ended = ended.and_then(|seen| seen.ended_at);
                let took = ended.map_or(Duration::MAX, |ended| ended.duration_since(*made));
                slowest = slowest.max(took);
            }
        }
        slowest
    }
}

/// What a play has cost.
#[derive(Clone, Copy, Default, Debug)]
struct Price {
    slowest: Duration,
    /// The most of each kind in one turn, and the turn that looked at most.
    visits: Visits,
    heaviest: Visits,
    held_max: isize,
    held_after: isize,
    /// Groups that honest viewers had to get, and got.
    groups: usize,
}

impl Price {
    fn check(&self) {
        let Price { slowest, visits, heaviest, held_max, held_after, groups } = *self;
        assert!(slowest <= LATE_MAX, "a group took {slowest:?}");
        assert!(
            heaviest.sum() <= VISITS_MAX,
            "a turn looked at {} in {heaviest:?}",
            heaviest.sum()
        );
        assert!(visits.paths <= PATHS_MAX, "a turn looked at {} paths", visits.paths);
        assert!(visits.groups <= GROUPS_MAX, "a turn looked at {} groups", visits.groups);
        assert!(held_max <= HELD_MAX, "{held_max} bytes were held");
        assert!(held_after <= HELD_AFTER_MAX, "{held_after} bytes were not given back");
        assert!(groups >= GROUPS, "{groups} groups");
    }

    fn max(self, other: Price) -> Price {
        let heaviest = match self.heaviest.sum() < other.heaviest.sum() {
            true => other.heaviest,
            false => self.heaviest,
        };
        Price {
            slowest: self.slowest.max(other.slowest),
            visits: self.visits.max(other.visits),
            heaviest,
            held_max: self.held_max.max(other.held_max),
            held_after: self.held_after.max(other.held_after),
            groups: self.groups + other.groups,
        }
    }
}

fn play(seed: u64) -> Price {
    let mut r = Random::new(seed ^ 0x4057_11e5);
    let shards = r.pick(&[1, 2, 2, 3]);
    let stage = Stage {
        linger: ms(r.pick(&[0, 500])),
        cache: CacheBounds { bytes: 4 << 20, duration: ms(3000) },
        ..Stage::new(seed, shards)
    };
    // A play before may have ended in the middle of a turn.
    memory::in_relay(false);
    let before = memory::held();
    let mut w = World::new(stage);
    // No honest viewer lags so far that its groups may go.
    w.groups_are_evicted = false;
    (w.visit_time, w.in_relay) = (VISIT_TIME, memory::in_relay);
    let mut cast = Cast::new(&mut w, &mut r);
    let known = if TAKES_OVER { ACTS.iter().chain(&TAKEOVERS) } else { ACTS.iter().chain(&[]) };
    let known: Vec<Act> = known.copied().collect();
    let acts: Vec<Act> = (0..2 + r.below(4)).map(|_| r.pick(&known)).collect();
    // A flood takes seconds to play.
    let scale = match r.below(48) {
        0 => 12,
        1..7 => 4,
        _ => 1,
    };
    if std::env::var_os("SIM_SEED").is_some() {
        eprintln!("seed {seed}: {shards} shards, scale {scale}: {acts:?}");
    }
    let mut hostile = Hostile::new(&mut w, r.next(), acts, scale, cast.honest.clone());
    let mut held_max = 0;
    for step in 0..GROUPS * GROUP_STEPS {
        cast.step(&mut w, step);
        hostile.step(&mut w);
        w.run(STEP);
        held_max = held_max.max(memory::held() - before);
    }
    hostile.leave(&mut w);
    w.run(LOSS_NOTICED + ms(10_000));
    w.judge_all();
    let shards = 0..shards;
    let price = Price {
        slowest: cast.slowest(&w),
        visits: shards
            .clone()
            .map(|s| w.counters(s).visits_max)
            .fold(Visits::default(), Visits::max),
        heaviest: shards.map(|s| w.heaviest(s)).max_by_key(Visits::sum).expect("there is a shard"),
        held_max,
        held_after: memory::held() - before,
        groups: w.groups_confirmed,
    };
    price.check();
    for peer in w.peers.iter().filter(|peer| !peer.spec.is_rude) {
        assert!(!matches!(peer.state, State::Over(..)), "{}: {:?}", peer.name, peer.state);
    }
    w.end();
    price
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn honest_peers_do_not_notice() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(SEEDS),
    };
    let (mut failed, mut most) = (Vec::new(), Price::default());
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| play(seed))) {
            Ok(price) => most = most.max(price),
            Err(_) => {
                eprintln!("seed {seed} failed: SIM_SEED={seed} cargo test --test hostile");
                failed.push(seed);
            }
        }
    }
    println!("{most:?}");
    assert!(failed.is_empty(), "seeds {failed:?} failed");
}
