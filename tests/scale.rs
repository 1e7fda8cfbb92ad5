//! What one broadcast more, one link more and one track more cost a relay of a cluster, in the simulated world:
//! memory to the byte, by an allocator that counts, and bytes on links. `docs/SCALE.md` is made of these figures;
//! `scripts/scale.py` has them too, and this is what holds them to what is so.

mod support {
    pub mod memory;
    #[path = "simulated.rs"]
    mod simulated;

    pub use simulated::*;
}

use std::time::Duration;

use shardcast::session::{Class, Counts};
use shardcast::wire::Version::Lite06;
use shardcast::wire::*;
use support::memory;
use support::peer::*;
use support::world::*;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// All is done that was begun.
const WHILE: Duration = Duration::from_secs(4);

const ROUTES: usize = 2000;

/// A path of the usual length.
fn path(number: usize) -> String {
    format!("customer-0001/rooms/{number:06}/camera")
}

fn world(relays: usize, shards: usize) -> World {
    memory::in_relay(false);
    let mut w = World::new(Stage { relays, trusts_all: false, ..Stage::new(1, shards) });
    w.in_relay = memory::in_relay;
    w
}

fn sum(w: &World, relay: usize, of: impl Fn(&Counts) -> u64) -> u64 {
    (0..w.stage.shards).map(|shard| of(w.session_counts(w.core_of(relay, shard)))).sum()
}

/// Has a peer at a relay announce so much, and gives what that comes to: bytes that all relays hold more for
/// each route.
fn announced(w: &mut World, relay: usize, hop: u64) -> (usize, f64) {
    let peer = w.join(Spec { relay, ..Spec::new(Lite06, 0) }.hop(hop));
    w.run(WHILE);
    let before = memory::held();
    for number in 0..ROUTES {
        w.peers[peer].announce(&path(number), &[], Cost::ZERO);
    }
    w.run(WHILE);
    (peer, (memory::held() - before) as f64 / ROUTES as f64)
}

/// A figure of `scripts/scale.py`.
fn unit(name: &str) -> f64 {
    let script = include_str!("../scripts/scale.py");
    let mut lines = script.lines().filter_map(|line| line.strip_prefix(&format!("{name} = ")));
    let figure = lines.next().unwrap_or_else(|| panic!("no {name}"));
    figure.split('#').next().expect("the line itself").trim().replace('_', "").parse().expect(name)
}

/// What is so is what the figure says, give or take an eighth. With SCALE_FIGURES in the environment it is only
/// shown.
#[track_caller]
fn check(name: &str, is: f64) {
    println!("{name} = {is:.0}");
    if std::env::var_os("SCALE_FIGURES").is_some() {
        return;
    }
    let says = unit(name);
    assert!((says * 0.875..=says * 1.125).contains(&is), "{name} is {is:.1}, and not {says}");
}

/// On each shard for itself, and once for the session that it came by and for each that is told of it.
#[test]
fn a_route_takes_what_is_said() {
    let of = |shards| {
        let mut w = world(1, shards);
        let route = announced(&mut w, 0, 70).1;
        let before = memory::held();
        let listener = w.join(Spec::new(Lite06, 0));
        w.peers[listener].listen("", 0);
        w.run(WHILE);
        let told = (memory::held() - before) as f64 / ROUTES as f64;
        w.end();
        (route, told)
    };
    let ((one, told), (three, _)) = (of(1), of(3));
    check("ROUTE_BYTES_PER_SHARD", (three - one) / 2.0);
    check("ROUTE_BYTES_OF_SESSION", one - (three - one) / 2.0);
    check("TOLD_BYTES", told);
}

#[test]
fn announcements_are_so_long_on_links() {
    let mut w = world(3, 1);
    w.link(1, 0);
    w.link(2, 1);
    let sent = |w: &World| sum(w, 1, |counts| counts.control_sent.of(Class::Announce));
    let before = sent(&w);
    let (peer, _) = announced(&mut w, 0, 70);
    check("START_BYTES", (sent(&w) - before) as f64 / ROUTES as f64);
    let before = sent(&w);
    w.close(peer);
    w.run(WHILE);
    check("END_BYTES", (sent(&w) - before) as f64 / ROUTES as f64);
    w.end();
}

/// A viewer at the end of a chain who watches many tracks: what each of them costs the relay between.
#[test]
fn a_track_that_is_carried_takes_what_is_said() {
    const TRACKS: usize = 400;
    let mut w = world(3, 1);
    w.link(1, 0);
    w.link(2, 1);
    let peer = w.join(Spec { bidi_streams: 4096, ..Spec::new(Lite06, 0) }.hop(70));
    w.peers[peer].announce("live/cam", &[], Cost::ZERO);
    for track in 0..TRACKS {
        w.track(peer, "live/cam", &format!("track-{track:04}"));
    }
    let viewer = w.join(Spec { relay: 2, ..Spec::new(Lite06, 0) });
    w.run(WHILE);
    let before = (memory::held(), sum(&w, 1, |counts| counts.control_sent.of(Class::Subscribe)));
    for track in 0..TRACKS {
        w.subscribe(viewer, "live/cam", &format!("track-{track:04}"), live());
        w.run(ms(20));
    }
    w.run(WHILE);
    assert_eq!(sum(&w, 1, |counts| counts.sent.subscriptions_opened), TRACKS as u64);
    let held = (memory::held() - before.0) as f64 / TRACKS as f64 / 3.0;
    check("TRACK_BYTES", held);
    let asked = sum(&w, 1, |counts| {
        counts.control_sent.of(Class::Subscribe) + counts.control_sent.of(Class::TrackInfo)
    });
    check("SUBSCRIBE_BYTES", (asked - before.1) as f64 / TRACKS as f64);
    w.end();
}
