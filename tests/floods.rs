//! What strangers announce, and how often they change their mind, in the simulated world: nobody who
//! watches waits for it, no turn has more than its share of it, and nothing piles up.

#[path = "support/simulated.rs"]
mod support;

use std::time::{Duration, Instant};

use shardcast::limits::*;
use shardcast::wire::*;
use support::network::Weather;
use support::peer::*;
use support::world::*;

const PATH: &str = "live/cam";
const TRACK: &str = "video";

use Version::{Lite05, Lite06};

/// 10 Mb/s.
const NARROW: Weather = Weather {
    latency: Duration::from_millis(10),
    down_bytes_per_second: Some(1_250_000),
    ..Weather::FAIR
};

/// Somebody who announces much and changes all of it again and again.
struct Stranger {
    peer: usize,
    paths: Vec<String>,
    rounds: u64,
}

impl Stranger {
    /// With so many paths of about so many bytes each, which are announced from now on.
    fn new(w: &mut World, shard: usize, count: usize, bytes: usize) -> Stranger {
        Stranger::under(w, "noise", shard, count, bytes)
    }

    fn under(w: &mut World, root: &str, shard: usize, count: usize, bytes: usize) -> Stranger {
        let peer = w.join(Spec::new(Lite06, shard).hop(3));
        let paths = (0..count).map(|n| format!("{root}/{n:05}{}", "x".repeat(bytes)));
        let paths = Vec::from_iter(paths);
        for path in &paths {
            w.peers[peer].announce(path, &[1, 2], Cost::ZERO);
        }
        Stranger { peer, paths, rounds: 0 }
    }

    /// Every path over another chain.
    fn swap(&mut self, w: &mut World) {
        self.rounds += 1;
        let hops = if self.rounds.is_multiple_of(2) { [1, 2] } else { [2, 1] };
        for path in &self.paths {
            w.peers[self.peer].announce(path, &hops, Cost::ZERO);
        }
    }

    /// Every path at another price.
    fn reprice(&mut self, w: &mut World) {
        self.rounds += 1;
        let cost = Cost { warm: self.rounds, cold: self.rounds };
        for path in &self.paths {
            w.peers[self.peer].announce(path, &[1, 2], cost);
        }
    }
}

/// A camera that makes four groups a second, and somebody who watches.
struct Show {
    cam: Track,
    sub: Sub,
    made: Vec<(u64, Instant)>,
}

impl Show {
    fn new(w: &mut World, cam: Track, viewer: usize) -> Show {
        let sub = w.subscribe(viewer, PATH, TRACK, live());
        w.run(ms(500));
        w.all_settled();
        Show { cam, sub, made: Vec::new() }
    }

    fn group(&mut self, w: &mut World, sizes: &[usize]) {
        let sequence = self.made.len() as u64;
        w.group(self.cam, sequence, sizes);
        self.made.push((sequence, w.now));
    }

    /// How long the slowest group took.
    fn slowest(&self, w: &World) -> Duration {
        let took = |(sequence, at): &(u64, Instant)| match w.sub(self.sub).groups.get(sequence) {
            Some(seen) if seen.end == Some(End::Finished) => {
                seen.ended_at.map_or(Duration::MAX, |ended| ended - *at)
            }
            _ => Duration::MAX,
        };
        self.made.iter().map(took).max().expect("some were made")
    }
}

fn world(shards: usize) -> World {
    World::new(Stage { trusts_all: false, ..Stage::new(1, shards) })
}

/// 1 KiB of path is what a listener pays for nine bytes of RESTART.
#[test]
fn a_viewer_that_listens_gets_every_group_in_time() {
    for bytes in [1000, 60_000] {
        let mut w = world(1);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let viewer = w.join(Spec { weather: NARROW, ..Spec::new(Lite05, 0) });
        let listener = w.viewer(Lite05, 0);
        let mut show = Show::new(&mut w, cam, viewer);
        let mut stranger = Stranger::new(&mut w, 0, 64, bytes);
        w.peers[viewer].listen("", 0);
        w.peers[listener].listen("", 0);
        w.run(ms(1000));
        let (said, told) = (w.peers[stranger.peer].bytes_out, w.peers[listener].bytes_in);
        for round in 0..500 {
            // 4 Mb/s.
            if round % 25 == 0 {
                show.group(&mut w, &[20_000, 40_000, 20_000, 45_000]);
            }
            stranger.swap(&mut w);
            w.run(ms(10));
        }
        let said = w.peers[stranger.peer].bytes_out - said;
        let told = w.peers[listener].bytes_in - told;
        w.run(ms(5000));
        let slowest = show.slowest(&w);
        assert!(slowest < ms(500), "a group took {slowest:?}");
        // As many changes as are taken, each counted by its path's length.
        let most = 5 * ROUTE_CHANGES_PER_S as usize * ROUTE_CHANGE_PATH_BYTES;
        assert!(told <= most, "{told} bytes told for {said}");
        assert!(bytes < 2000 || told < 1000, "{told} bytes told of what leads nowhere");
        let long_paths = if bytes > ANNOUNCED_PATH_BYTES_MAX { 64 } else { 0 };
        assert_eq!(w.counters(0).long_paths_total, long_paths);
        w.end();
    }
}

/// Every route of a stranger changes twice a second, for many listeners on two shards.
#[test]
fn no_turn_visits_more_than_its_share_and_no_mail_piles_up() {
    let mut w = world(2);
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    let viewer = w.viewer(Lite05, 1);
    let mut show = Show::new(&mut w, cam, viewer);
    for n in 0..20 {
        let listener = w.viewer(Version::ALL[n % Version::ALL.len()], n % 2);
        w.peers[listener].listen("", 0);
    }
    let mut stranger = Stranger::new(&mut w, 0, 5000, 20);
    w.run(ms(2000));
    assert_eq!(w.told(), 20 * 5001, "listeners know everything");
    let mut untold = 0;
    for round in 0..20 {
        // A shard gets no time for a second.
        if round == 1 {
            w.stall(1, ms(1000));
        }
        show.group(&mut w, &[3000, 3000]);
        stranger.reprice(&mut w);
        w.run(ms(250));
        untold = untold.max(w.untold());
        show.group(&mut w, &[3000, 3000]);
        w.run(ms(250));
    }
    assert!((1..=5000).contains(&untold), "{untold} pieces of news of 5000 routes waited");
    w.run(ms(3000));
    let slowest = show.slowest(&w);
    let visits = [0, 1].map(|shard| w.counters(shard).visits_max.paths);
    let mail = [0, 1].map(|shard| w.counters(shard).held_mail_max);
    assert!(slowest < ms(1200), "a group took {slowest:?}");
    assert!(visits.iter().all(|visits| *visits <= ANNOUNCE_VISITS_PER_TURN as u32), "{visits:?}");
    assert!(mail.iter().all(|mail| *mail <= 200), "{mail:?}");
    w.end();
}

/// A crowd of whom each has what it may change in no time, and all do so in the same moment.
#[test]
fn no_turn_takes_in_more_changes_than_its_share_whoever_brings_them() {
    const CROWD: usize = 40;
    const PATHS: usize = 500;
    let mut w = world(1);
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    let viewer = w.viewer(Lite05, 0);
    let mut show = Show::new(&mut w, cam, viewer);
    let mut crowd: Vec<_> =
        (0..CROWD).map(|n| Stranger::under(&mut w, &format!("noise/{n}"), 0, PATHS, 10)).collect();
    w.run(ms(2000));
    for _ in 0..4 {
        show.group(&mut w, &[3000, 3000]);
        for stranger in &mut crowd {
            stranger.reprice(&mut w);
        }
        w.run(ms(250));
    }
    w.run(ms(1000));
    let (slowest, visits) = (show.slowest(&w), w.counters(0).visits_max.routes as usize);
    // Each is looked at beside the one that is there; what one read brings is taken in.
    let most = 2 * (ROUTE_CHANGES_PER_TURN + ANNOUNCE_READ_BYTES / 7);
    assert!(visits <= most, "{visits} of {most}");
    assert!(visits > ROUTE_CHANGES_PER_TURN, "it was no flood: {visits}");
    assert!(slowest < ms(500), "a group took {slowest:?}");
    let listener = w.viewer(Lite06, 0);
    let listen = w.peers[listener].listen("noise", 0);
    w.run(ms(2000));
    let live = w.peers[listener].listens[listen].live();
    assert_eq!(live.len(), CROWD * PATHS);
    w.end();
}

/// Sixty-four requests of a few bytes, each of which wants everything.
#[test]
fn streams_that_want_everything_cost_a_share_of_each_turn() {
    const ROUTES: usize = 5000;
    let mut w = world(1);
    let _stranger = Stranger::new(&mut w, 0, ROUTES, 20);
    w.run(ms(1000));
    let greedy = w.viewer(Lite06, 0);
    let honest = w.viewer(Lite06, 0);
    for _ in 0..ANNOUNCE_STREAMS_PER_PEER_MAX / 8 {
        // As many as the relay grants at first.
        for _ in 0..8 {
            w.peers[greedy].listen("", 0);
        }
        w.run(ms(20));
    }
    let listen = w.peers[honest].listen("", 0);
    w.run(ms(5000));
    let (told, visits) = (w.told(), w.counters(0).visits_max.paths);
    assert_eq!(w.peers[honest].listens[listen].live().len(), ROUTES);
    assert_eq!(w.peers[greedy].listens[0].live().len(), ROUTES, "one of them is told everything");
    assert!(visits <= ANNOUNCE_VISITS_PER_TURN as u32, "{visits}");
    assert!(told <= 2 * ROUTES + ANNOUNCED_TO_PEER_MAX, "{told}");
    w.end();
}

/// Ten thousand broadcasts at once, and a fifth of them that come and go faster than anybody's should.
#[test]
fn an_honest_publisher_is_heard_at_once() {
    let mut w = world(2);
    let listener = w.viewer(Lite06, 1);
    w.peers[listener].listen("", 0);
    w.run(ms(100));
    let crowd = Stranger::new(&mut w, 0, ANNOUNCEMENTS_PER_PEER_MAX - 1, 20);
    let live = |w: &World| w.peers[listener].listens[0].live().len();
    let all = crowd.paths.len();
    assert!(w.run_until(ms(500), |w| live(w) == all), "{} of {all}", live(&w));
    for n in 0..1000 {
        // A hundred in a second end, and begin again half a second later.
        if n >= 50 {
            w.peers[crowd.peer].announce(&crowd.paths[n - 50], &[1, 2], Cost::ZERO);
        }
        w.peers[crowd.peer].unannounce(&crowd.paths[n]);
        w.run(ms(10));
        let expect = all - (n + 1).min(50);
        // Half a round trip on either side.
        assert!((expect - 1..=expect + 1).contains(&live(&w)), "{} in round {n}", live(&w));
    }
    w.end();
}

/// Who changes its mind too often is read more slowly, and waits for nobody but itself.
#[test]
fn changes_beyond_the_rate_wait_at_their_peer() {
    let mut w = world(1);
    let listener = w.viewer(Lite06, 0);
    w.peers[listener].listen("", 0);
    let mut stranger = Stranger::new(&mut w, 0, 1000, 20);
    w.run(ms(500));
    // As many as it may bring, and five seconds' worth.
    let rounds = ROUTE_CHANGES_BURST / 1000 + 5;
    for _ in 1..rounds {
        stranger.reprice(&mut w);
    }
    // Its first hop is one of ours.
    let (path, last) = (format!("~{} [", stranger.paths[999]), format!(", 2, 3] {rounds}"));
    w.run(ms(1000));
    let honest = w.join(Spec::new(Lite06, 0).hop(9));
    w.peers[honest].announce("honest", &[], Cost::ZERO);
    w.run(ms(20));
    let heard = |w: &World, begin: &str, end: &str| {
        let heard = &w.peers[listener].listens[0].heard;
        heard.iter().any(|heard| heard.starts_with(begin) && heard.ends_with(end))
    };
    assert!(heard(&w, "+honest [", "] 1"));
    w.run(ms(2000));
    assert!(!heard(&w, &path, &last), "it is not read before its time");
    w.run(ms(2000));
    assert!(heard(&w, &path, &last), "{:?}", w.peers[listener].listens[0].heard.last());
    w.end();
}

/// One change in each millisecond is not a packet in each millisecond for everybody who listens.
#[test]
fn a_trickle_of_changes_is_told_in_few_packets() {
    let mut w = world(1);
    let listener = w.viewer(Lite06, 0);
    w.peers[listener].listen("", 0);
    let stranger = w.join(Spec::new(Lite06, 0).hop(3));
    w.run(ms(500));
    let before = w.peers[listener].datagrams_in;
    for n in 0..1000 {
        w.peers[stranger].announce(&format!("noise/{n}"), &[], Cost::ZERO);
        w.run(ms(1));
    }
    let most = Duration::from_secs(1).div_duration_f64(ANNOUNCE_INTERVAL) as usize;
    let packets = w.peers[listener].datagrams_in - before;
    // Others acknowledge what it acknowledges.
    assert!((most / 2..=most + most / 4).contains(&packets), "{packets} packets");
    w.run(ANNOUNCE_INTERVAL + ms(20));
    assert_eq!(w.peers[listener].listens[0].live().len(), 1000);
    w.end();
}

/// A peer that has announced all that it may, and is lost, ends its announcements, or leaves.
#[test]
fn the_routes_of_one_peer_fade_over_several_turns() {
    let lost = |w: &mut World, peer: usize| w.close(peer);
    let finished = |w: &mut World, peer: usize| {
        for stream in w.peers[peer].announce_streams() {
            w.peers[peer].write_raw(stream, &[], true);
        }
    };
    let leaves = |w: &mut World, peer: usize| w.peers[peer].go_away();
    routes_fade(lost, 0);
    routes_fade(finished, 0);
    routes_fade(leaves, ANNOUNCEMENTS_PER_PEER_MAX);
}

/// `left`: so many routes are still there.
fn routes_fade(end: impl Fn(&mut World, usize), left: usize) {
    let mut w = world(2);
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    let viewer = w.viewer(Lite05, 0);
    w.peers[viewer].listen("", 0);
    let mut show = Show::new(&mut w, cam, viewer);
    let crowd = Stranger::new(&mut w, 0, ANNOUNCEMENTS_PER_PEER_MAX, 20);
    w.run(ms(2000));
    let before = w.busy_turns(0);
    end(&mut w, crowd.peer);
    show.group(&mut w, &[3000, 3000]);
    w.run(ms(2500));
    let turns = (w.busy_turns(0) - before) as usize;
    assert!(turns >= ANNOUNCEMENTS_PER_PEER_MAX / FADING_ROUTES_PER_TURN, "{turns} turns");
    assert!(show.slowest(&w) < ms(50), "{:?}", show.slowest(&w));
    assert_eq!(w.peers[viewer].listens[0].live().len(), 1 + left);
    assert!(w.held().iter().all(|held| held.routes == 1 + left));
    w.end();
}

/// Requests that each cause mail, for a shard that gets no time.
#[test]
fn requests_are_not_read_while_much_waits_for_a_neighbour() {
    let mut w = world(2);
    let track = homed(PATH, 1, 2);
    let cam = w.publisher(Lite06, 1, PATH, &track);
    let viewer = w.viewer(Lite06, 0);
    let sub = w.subscribe(viewer, PATH, &track, live());
    w.run(ms(300));
    w.all_settled();
    w.stall(1, ms(7000));
    for round in 0..6500u64 {
        w.update(sub, range(round % 2, None));
        w.run(ms(1));
    }
    let held = w.counters(0).held_mail_max as usize;
    // And what one millisecond brings.
    let most = OUTBOX_REQUESTS_MAX + 16;
    assert!((OUTBOX_REQUESTS_MAX..most).contains(&held), "{held}");
    w.run(ms(2000));
    assert!(!w.asked(cam.peer).is_empty());
    w.group(cam, 5, &[100]);
    w.run(ms(100));
    assert_eq!(w.got(sub), [5]);
    w.end();
}

/// A relay passes on more than there is room for; what it has when there is some again is known, though nobody
/// announces it again.
#[test]
fn what_found_no_room_over_a_link_is_asked_for_when_there_is_some() {
    for version in [Lite05, Lite06] {
        let mut w = World::new(Stage { routes: 40_000, ..Stage::new(7, 2) });
        let link = w.join(Spec::new(version, 0).hop(3));
        let listener = w.viewer(Lite06, 1);
        w.peers[listener].listen("", 0);
        let knows =
            |w: &World| w.peers[listener].listens[0].live().iter().any(|path| path == "far/away");
        let flood: Vec<String> = (0..200).map(|n| format!("flood/{n}")).collect();
        flood.iter().for_each(|path| w.peers[link].announce(path, &[40], Cost::ZERO));
        w.run(ms(1000));
        w.peers[link].announce("far/away", &[50], Cost::ZERO);
        // It is looked for more than once while there is no room.
        w.run(ms(15_000));
        let full = w.held()[0].routes;
        assert!((50..200).contains(&full) && !knows(&w), "{full}");
        flood.iter().for_each(|path| w.peers[link].unannounce(path));
        assert!(w.run_until(ms(20_000), knows), "{version:?}: {}", w.held()[0].routes);
        assert_eq!([w.held()[0].routes, w.held()[1].routes], [1, 1]);
        w.peers[link].unannounce("far/away");
        w.run(ms(1000));
        assert_eq!([w.held()[0].routes, w.held()[1].routes], [0, 0]);
        w.end();
    }
}
