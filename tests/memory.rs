//! What peers may make a shard hold, in the simulated world: windows begin small and are in nobody's way,
//! and who gets no more goes on with what it has.

#[path = "support/simulated.rs"]
mod support;

use std::time::Duration;

use quinn_proto::Dir;
use shardcast::limits::*;
use shardcast::shard::CacheBounds;
use shardcast::wire::*;
use support::network::Weather;
use support::peer::*;
use support::world::*;

const PATH: &str = "live/cam";
const TRACK: &str = "video";

use Version::Lite06;

const RTT: Duration = Duration::from_millis(100);
const FAR: Weather = Weather { latency: Duration::from_millis(50), ..Weather::FAIR };

/// A publisher and a viewer, on a shard with so much memory for them.
struct Show {
    w: World,
    cam: Track,
    sub: Sub,
    groups: u64,
}

impl Show {
    fn new(publisher: Spec, viewer: Spec, memory: u64) -> Show {
        let mut w = World::new(Stage { memory, ..Stage::new(1, 1) });
        let cam = w.publisher_like(publisher.hop(7), PATH, TRACK);
        let viewer = w.join(viewer);
        let sub = w.subscribe(viewer, PATH, TRACK, live());
        w.run(ms(500));
        w.all_settled();
        Show { w, cam, sub, groups: 0 }
    }

    /// How long a group of so many frames takes to be there whole.
    fn group(&mut self, sizes: &[usize]) -> Duration {
        let (sequence, made) = (self.groups, self.w.now);
        self.groups += 1;
        self.w.group(self.cam, sequence, sizes);
        let sub = self.sub;
        let is_whole = |w: &World| {
            let seen = w.sub(sub).groups.get(&sequence);
            seen.is_some_and(|seen| seen.end == Some(End::Finished))
        };
        assert!(self.w.run_until(ms(20_000), is_whole), "group {sequence} is not there");
        self.w.now - made
    }

    fn granted(&self) -> u64 {
        self.w.held()[0].granted_bytes
    }
}

fn spec(weather: Weather) -> Spec {
    Spec { weather, ..Spec::new(Lite06, 0) }
}

/// 2 MiB take a sender that begins with 14 KiB and doubles that in each round trip eight of them.
#[test]
fn the_first_group_of_a_publisher_far_away_waits_for_no_window() {
    let mut show = Show::new(spec(FAR), spec(Weather::FAIR), MEMORY_BYTES);
    let took = show.group(&[128 << 10; 16]);
    println!("{took:?}");
    assert!(took <= 8 * RTT + ms(50), "{took:?}");
    // And no more than it needs is granted.
    let sessions = 2 * SESSION_BYTES + (STREAMS_UNI_PUBLISHER - STREAMS_UNI_START) * STREAM_BYTES;
    assert!(show.granted() - sessions <= 8 << 20, "{}", show.granted());
    show.w.end();
}

/// 50 Mb/s of somebody who sends as fast as flow control has it.
#[test]
fn a_publisher_far_away_reaches_its_rate_within_a_few_round_trips() {
    let mut show =
        Show::new(Spec { is_swift: true, ..spec(FAR) }, spec(Weather::FAIR), MEMORY_BYTES);
    let first = show.group(&[128 << 10; 16]);
    println!("{first:?}");
    assert!(first <= 4 * RTT, "{first:?}");
    for _ in 0..20 {
        let took = show.group(&[125_000; 5]);
        assert!(took <= RTT, "{took:?}");
        show.w.run(RTT - ms(60));
    }
    show.w.end();
}

/// Where all is granted, nobody who is there loses anything but speed.
#[test]
fn who_gets_no_more_goes_on_with_what_it_has() {
    let mut show = Show::new(spec(FAR), spec(FAR), 2 * SESSION_BYTES + SESSION_BYTES / 2);
    let granted = show.granted();
    assert_eq!(granted, 2 * SESSION_BYTES);
    let took = show.group(&[128 << 10; 4]);
    println!("{took:?}");
    assert!(took <= 20 * RTT, "{took:?}");
    assert_eq!(show.granted(), granted);
    show.w.end();
}

/// Nobody new is let in, whatever he comes by, and who is there is granted nothing and loses nothing.
#[test]
fn who_comes_while_memory_is_short_has_to_come_later() {
    let mut show = Show::new(spec(Weather::FAIR), spec(FAR), MEMORY_BYTES);
    show.group(&[64 << 10; 4]);
    let granted = show.granted();
    show.w.set_short(true);
    for web in [None, Some(Manner::default())] {
        let late = show.w.arrive(Spec { web, ..spec(Weather::FAIR) });
        let refused = show.w.counters(0).refused_clients_total;
        assert!(!show.w.run_until(ms(2000), |w| w.peers[late].is_up()));
        let handshakes = show.w.counters(0).refused_clients_total;
        assert!(handshakes > refused);
        let refusals = &show.w.session_counts(0).refusals;
        assert!(refusals.rows().any(|row| row == ("no_memory", handshakes)), "{refusals:?}");
    }
    for _ in 0..5 {
        let took = show.group(&[64 << 10; 4]);
        println!("{took:?}");
        assert!(took <= 8 * RTT, "{took:?} through a window of 64 KiB");
    }
    assert_eq!(show.granted(), granted);
    show.w.set_short(false);
    for web in [None, Some(Manner::default())] {
        show.w.join(Spec { web, ..spec(Weather::FAIR) });
    }
    show.group(&[64 << 10; 4]);
    show.w.some_are_refused = true;
    show.w.end();
}

/// What somebody may be in the middle of stays, and what is newest.
#[test]
fn the_cache_shrinks_while_memory_is_short() {
    const GROUPS: u64 = 20;
    const BYTES: u64 = 4 * (64 << 10);
    let mut show = Show::new(spec(Weather::FAIR), spec(Weather::FAIR), MEMORY_BYTES);
    let held = |show: &Show| show.w.held()[0].cache_bytes;
    for _ in 0..GROUPS {
        show.group(&[64 << 10; 4]);
    }
    show.w.set_short(true);
    show.w.run(CACHE_LIVE / 2);
    assert!(held(&show) >= GROUPS * BYTES, "all of it is live");
    show.w.run(CACHE_LIVE);
    let live = held(&show);
    assert!((BYTES..2 * BYTES).contains(&live), "{live} bytes are left");
    show.w.groups_are_evicted = true;
    show.w.set_short(false);
    show.group(&[64 << 10; 4]);
    show.w.run(CACHE_LIVE * 2);
    assert!(held(&show) >= 2 * BYTES, "there is room again");
    show.w.end();
}

/// Who fills the cache with what is live loses some of it, and nobody else does.
#[test]
fn of_what_is_live_those_lose_some_who_have_most() {
    const ROOM: u64 = 4 << 20;
    const TRACKS: usize = 16;
    let cache = CacheBounds { bytes: ROOM, duration: CACHE_DURATION_DEFAULT };
    let mut w = World::new(Stage { cache, trusts_all: false, ..Stage::new(1, 1) });
    let viewer = w.viewer(Lite06, 0);
    let honest = w.publisher_like(spec(Weather::FAIR).hop(7), PATH, TRACK);
    let sub = w.subscribe(viewer, PATH, TRACK, live());
    let greedy = w.viewer(Lite06, 0);
    let other = w.publisher_like(spec(Weather::FAIR).hop(8), "greedy", "0");
    let publisher = other.peer;
    let tracks: Vec<Track> = (0..TRACKS)
        .map(|n| if n == 0 { other } else { w.track(publisher, "greedy", &n.to_string()) })
        .collect();
    for n in 0..TRACKS {
        w.subscribe(greedy, "greedy", &n.to_string(), live());
    }
    w.run(ms(200));
    // The honest group is larger than any other, and of use less often.
    w.open_group(honest, 0);
    w.frame(honest, 0, 900 << 10);
    w.run(ms(200));
    tracks.iter().for_each(|track| w.open_group(*track, 0));
    w.groups_are_evicted = true;
    for _ in 0..10 {
        for track in &tracks {
            w.frame(*track, 0, 40 << 10);
        }
        w.run(ms(50));
        let held = w.held()[0].cache_bytes;
        assert!(held <= ROOM + (1 << 20), "{held}");
    }
    assert!(w.counters(0).evicted_groups_total > 0);
    w.frame(honest, 0, 1000);
    w.end_group(honest, 0, End::Finished);
    w.run(ms(500));
    assert_eq!(w.sub(sub).groups[&0].end, Some(End::Finished));
    w.end();
}

/// Who fills the cache with what nobody asks for again pushes out his own, and not what others have less of.
#[test]
fn what_is_idle_stays_where_others_hold_more() {
    const ROOM: u64 = 4 << 20;
    let cache = CacheBounds { bytes: ROOM, duration: CACHE_DURATION_DEFAULT };
    for is_short in [false, true] {
        let mut w = World::new(Stage { cache, trusts_all: false, ..Stage::new(1, 1) });
        let viewer = w.viewer(Lite06, 0);
        let honest = w.publisher_like(spec(Weather::FAIR).hop(7), PATH, TRACK);
        w.subscribe(viewer, PATH, TRACK, live());
        let greedy = w.viewer(Lite06, 0);
        let other = w.publisher_like(spec(Weather::FAIR).hop(8), "greedy", "0");
        w.subscribe(greedy, "greedy", "0", live());
        w.run(ms(200));
        for sequence in 0..4 {
            w.group(honest, sequence, &[10 << 10]);
        }
        w.run(CACHE_LIVE + ms(100));
        w.groups_are_evicted = true;
        for sequence in 0..12 {
            w.group(other, sequence, &[500 << 10]);
            w.run(CACHE_LIVE / 2);
        }
        w.set_short(is_short);
        w.run(CACHE_SPARES_FOR / 2);
        w.set_short(false);
        assert!(w.counters(0).evicted_groups_total > 0);
        w.asked(honest.peer);
        let fetches: Vec<_> = (0..4).map(|n| w.fetch(viewer, PATH, TRACK, whole(n))).collect();
        w.run(ms(500));
        for fetch in fetches {
            assert_eq!(w.outcome(fetch), (1, Some(End::Finished)), "short: {is_short}");
        }
        assert_eq!(w.asked(honest.peer), [], "short: {is_short}: it was in the cache");
        w.end();
    }
}

/// What peers announce, and what they are told of it, is counted: beyond a little it waits until there is room,
/// and nobody is kept from anything else.
#[test]
fn announcements_wait_for_room() {
    const PATHS: usize = 1000;
    /// What one read brings.
    const LITTLE: usize = ANNOUNCE_READ_BYTES / 10;
    let mut show = Show::new(spec(Weather::FAIR), spec(Weather::FAIR), MEMORY_BYTES);
    let announcer = show.w.join(spec(Weather::FAIR).hop(9));
    let routes = show.w.held()[0].routes;
    show.w.set_short(true);
    for path in 0..PATHS {
        show.w.peers[announcer].announce(&format!("many/{path}"), &[], Cost::ZERO);
    }
    show.w.run(ms(2000));
    let heard = show.w.held()[0].routes - routes;
    println!("{heard} were heard");
    assert!((1..LITTLE).contains(&heard), "{heard}");
    show.group(&[1000; 4]);
    show.w.set_short(false);
    show.w.run(ms(2000));
    assert_eq!(show.w.held()[0].routes - routes, PATHS);

    // Who comes later is told a part, and all when there is room.
    let told = show.w.told();
    let late = show.w.viewer(Lite06, 0);
    show.w.set_short(true);
    show.w.peers[late].listen("", 0);
    show.w.run(ms(2000));
    let passed_on = show.w.told() - told;
    println!("{passed_on} told");
    assert!((1..PATHS).contains(&passed_on), "{passed_on}");
    show.w.set_short(false);
    show.w.run(ms(2000));
    assert!(show.w.told() - told >= PATHS);
    show.w.end();
}

/// A publisher has what windows may come to, and somebody else is behind the same address.
#[test]
fn a_neighbour_of_somebody_who_holds_much_hears_what_is_announced() {
    const PATHS: usize = 500;
    let mut show = Show::new(spec(FAR), spec(Weather::FAIR), 12 * SESSION_BYTES);
    let crowd = show.w.join(spec(Weather::FAIR).hop(9));
    for path in 0..PATHS {
        show.w.peers[crowd].announce(&format!("crowd/{path}"), &[], Cost::ZERO);
    }
    show.w.run(ms(1000));
    let (house, told) = (Some(show.cam.peer), show.w.told());
    let neighbour = show.w.join(Spec { house, ..spec(Weather::FAIR) });
    let granted = show.granted();
    assert!(granted >= 6 * SESSION_BYTES, "windows grow for all: {granted}");
    show.w.peers[neighbour].listen("crowd", 0);
    show.w.run(ms(500));
    assert!(show.w.told() - told >= PATHS, "{} of {PATHS}", show.w.told() - told);
    assert!(show.granted() > granted && show.granted() <= granted + SESSION_FIRST_BYTES);
    show.group(&[1000; 4]);
    show.w.end();
}

/// Messages of which the end does not come: of the first some bytes are held, and the others are not read before
/// there is room.
#[test]
fn half_messages_wait_for_room() {
    let mut show = Show::new(spec(Weather::FAIR), spec(Weather::FAIR), MEMORY_BYTES);
    let rude = show.w.join(Spec { is_rude: true, ..spec(Weather::FAIR) });
    show.w.set_short(true);
    let before = show.granted();
    let mut half = vec![BidiType::Subscribe as u8, 0x80, 0, 0xf0, 0];
    half.resize(12 << 10, 1);
    for _ in 0..STREAMS_BIDI_START {
        show.w.raw(rude, Dir::Bi, &half, false);
    }
    show.w.run(ms(2000));
    assert_eq!(show.granted(), before);
    show.group(&[1000; 4]);
    show.w.set_short(false);
    show.w.run(ms(2000));
    assert!(show.granted() > before, "what it says has room now");
    show.w.end();
}
