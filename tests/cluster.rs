//! Relays that dial each other, in the simulated world: every version, raw QUIC and WebTransport, both ways;
//! what becomes of links that are cut, refused or not wanted.

#[path = "support/simulated.rs"]
mod support;

use std::time::Duration;

use shardcast::access::Access;
use shardcast::cluster::News;
use shardcast::limits::{DIAL_TIMEOUT, IDLE_TIMEOUT, ROUTE_CHANGE_HOLD};
use shardcast::session::Call;
use shardcast::shard::message::ToShard;
use shardcast::wire::*;
use support::network::Weather;
use support::peer::*;
use support::world::links::hop_of;
use support::world::*;

use Version::{Lite03, Lite04, Lite05, Lite06};

const PATH: &str = "live/cam";

/// Everybody knows of what is announced.
const SOON: Duration = ROUTE_CHANGE_HOLD.saturating_add(Duration::from_millis(500));

fn stage(relays: usize, shards: usize) -> Stage {
    Stage { relays, ..Stage::new(1, shards) }
}

/// Somebody at a relay.
fn at(relay: usize, version: Version) -> Spec {
    Spec { relay, ..Spec::new(version, 0) }
}

/// A film at one relay is shown at the other one, every group once and to the byte.
#[track_caller]
fn plays(w: &mut World, version: Version, from: usize, to: usize, path: &str) -> (Track, Sub) {
    let hop = 70 + from as u64;
    let track = w.publisher_like(at(from, version).hop(hop), path, "video");
    w.run(SOON);
    let viewer = w.join(at(to, version));
    let sub = w.subscribe(viewer, path, "video", live());
    w.run(ms(500));
    w.all_settled();
    for sequence in 0..5 {
        w.group(track, sequence, &[900, 40, 3000]);
        w.run(ms(100));
    }
    w.run(ms(500));
    assert_eq!(w.got_sorted(sub), [0, 1, 2, 3, 4], "{path} at {to}, from {from}");
    (track, sub)
}

fn news_of(w: &mut World, relay: usize) -> Vec<String> {
    w.said(relay).iter().map(|news| format!("{news:?}")).collect()
}

#[test]
fn what_is_at_one_relay_is_at_the_other_in_every_version() {
    for shards in [1, 3] {
        for version in [Lite03, Lite04, Lite05, Lite06] {
            let mut w = World::new(Stage { prefers: Some(version), ..stage(2, shards) });
            let link = w.dial(1, shards - 1, 0, Call::default());
            assert!(w.is_up_within(1, link, ms(1000)), "{version}: {:?}", w.said(1));
            // Times are lost on older wires, whatever comes behind.
            plays(&mut w, version, 0, 1, "live/down");
            plays(&mut w, version, 1, 0, "live/up");
            w.end();
        }
    }
}

#[test]
fn by_webtransport_too() {
    let mut w = World::new(stage(2, 2));
    let link = w.dial_web(1, 0, 0, Call::default());
    assert!(w.is_up_within(1, link, ms(1000)), "{:?}", w.said(1));
    plays(&mut w, Lite06, 0, 1, "live/down");
    plays(&mut w, Lite06, 1, 0, "live/up");
    w.end();
}

/// The dialler asks without waiting: the peer's SETUP and what it has announced come in one flight.
#[test]
fn a_link_shows_what_there_is_two_round_trips_after_the_first_datagram() {
    for version in [Lite05, Lite06] {
        let mut w = World::new(Stage { prefers: Some(version), ..stage(2, 1) });
        w.publisher_like(at(0, Lite06).hop(7), PATH, "video");
        let viewer = w.join(at(1, Lite06));
        let listen = w.peers[viewer].listen("", 0);
        w.run(ms(100));
        let begun = w.now;
        w.dial(1, 0, 0, Call::default());
        let is_told = w.run_until(ms(1000), |w| {
            w.peers[viewer].listens[listen].heard.iter().any(|line| line.contains(PATH))
        });
        assert!(is_told);
        // Five milliseconds each way: two round trips on the link, one way to the viewer.
        assert!(w.now - begun <= ms(26), "{version}: {:?}", w.now - begun);
        w.end();
    }
}

#[test]
fn a_chain_of_three_shows_hidden_paths_to_the_relay_that_was_dialled_and_to_no_viewer() {
    let mut w = World::new(stage(3, 2));
    w.link(1, 0);
    w.link(2, 1);
    plays(&mut w, Lite06, 0, 2, "live/cam");
    plays(&mut w, Lite06, 2, 0, ".stats/node/a");
    for relay in 0..3 {
        let viewer = w.join(at(relay, Lite06));
        let listen = w.peers[viewer].listen("", 0);
        w.run(SOON);
        let heard = &w.peers[viewer].listens[listen].heard;
        assert!(heard.iter().any(|line| line.contains("live/cam")), "{heard:?}");
        assert!(!heard.iter().any(|line| line.contains(".stats")), "{heard:?}");
    }
    w.end();
}

#[test]
fn a_dialler_is_told_who_is_there_and_itself_is_recognised() {
    let mut w = World::new(stage(2, 2));
    let (other, own) = (w.link(0, 1), w.dial(0, 1, 0, Call::default()));
    w.run(ms(500));
    let ups: Vec<_> = w.said(0).iter().filter(|news| matches!(news, News::Up { .. })).collect();
    let expect = [(other, hop_of(1)), (own, hop_of(0))].map(|(link, hop)| News::Up { link, hop });
    assert_eq!(ups, expect.iter().collect::<Vec<_>>());
    // The one that was dialled hears of its guest.
    assert!(
        w.said(1).iter().any(|news| matches!(news, News::Guest { hop, .. } if *hop == hop_of(0)))
    );
    w.end();
}

#[test]
fn a_relay_that_does_not_answer_is_given_up_in_time() {
    let mut w = World::new(stage(2, 1));
    w.cut(0, 1, true);
    w.dial(0, 0, 1, Call::default());
    w.run(DIAL_TIMEOUT - ms(100));
    assert_eq!(news_of(&mut w, 0), [""; 0]);
    w.run(ms(200));
    let said = news_of(&mut w, 0);
    assert!(said.len() == 1 && said[0].contains("no answer in time"), "{said:?}");
    w.end();
}

#[test]
fn a_link_that_is_cut_is_lost_when_the_silence_is_noticed() {
    let mut w = World::new(stage(2, 2));
    w.link(1, 0);
    let (_, sub) = plays(&mut w, Lite06, 0, 1, PATH);
    w.cut(0, 1, true);
    w.run(LOSS_NOTICED);
    assert!(w.said(1).iter().any(|news| matches!(news, News::Down { is_denied: false, .. })));
    assert!(w.said(0).iter().any(|news| matches!(news, News::GuestLeft { .. })));
    assert!(IDLE_TIMEOUT < LOSS_NOTICED && w.sub(sub).end.is_some(), "its viewers are told");
    // The way comes back, and so does what it led to.
    w.cut(0, 1, false);
    w.link(1, 0);
    plays(&mut w, Lite06, 0, 1, "live/other");
}

/// The way that the content has come by is cut in the middle of a group, and nobody says so: another relay has
/// the same broadcast from the same publisher, and the viewer gets the rest from there, to the byte.
#[test]
fn a_link_that_is_cut_in_mid_group_is_replaced_by_another_way() {
    for shards in [1, 2] {
        for version in [Lite05, Lite06] {
            let mut w = World::new(Stage { prefers: Some(version), ..stage(3, shards) });
            w.link(2, 0);
            w.link(1, 0);
            w.link(2, 1);
            let track = w.publisher_like(at(0, Lite06).hop(7), PATH, "video");
            w.run(SOON);
            let viewer = w.join(at(2, Lite06));
            let sub = w.subscribe(viewer, PATH, "video", live());
            w.run(ms(500));
            w.all_settled();
            w.group(track, 0, &[900, 40]);
            w.open_group(track, 1);
            w.frame(track, 1, 5000);
            w.run(ms(200));
            assert_eq!(w.sub(sub).groups[&1].frames.len(), 1, "half of it is there");
            w.cut(0, 2, true);
            w.frame(track, 1, 3000);
            w.end_group(track, 1, End::Finished);
            w.group(track, 2, &[700]);
            w.run(LOSS_NOTICED + ms(2000));
            w.group(track, 3, &[700]);
            w.run(ms(1000));
            assert_eq!(w.got_sorted(sub), [0, 1, 2, 3], "{version} {shards} shards");
            w.end();
        }
    }
}

/// Nobody watches yet, and the publisher is some links away: each of them costs a round trip and no more, for
/// SUBSCRIBE does not wait there until TRACK has been answered.
#[test]
fn the_first_frame_costs_a_round_trip_per_link() {
    const ROUND_TRIP: Duration = Duration::from_millis(10);
    let mut times = Vec::new();
    let mut w = World::new(stage(3, 2));
    w.link(1, 0);
    w.link(2, 1);
    for hops in 0..3 {
        let path = format!("live/cam{hops}");
        let track = w.publisher_like(at(0, Lite06).hop(7 + hops as u64), &path, "video");
        w.group(track, 0, &[900]);
        w.run(SOON);
        let viewer = w.join(at(hops, Lite06));
        let begun = w.now;
        let sub = w.subscribe(viewer, &path, "video", live());
        w.run(ms(500));
        let came = w.came(sub, 0, 0).expect("the newest group") - begun;
        times.push(came);
    }
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] <= ROUND_TRIP + ms(1), "{times:?}");
    }
    w.end();
}

/// On links that lose and reorder, groups are there before it is known what their track is like; and some viewers
/// leave before that. Whoever stays gets every group, to the byte.
#[test]
fn groups_that_overtake_what_their_track_is_like_wait_for_it() {
    for seed in 1..=12 {
        let mut w = World::new(Stage { seed, ..stage(3, 1 + seed as usize % 3) });
        w.link(1, 0);
        w.link(2, 1);
        let mut rain = Weather { jitter: ms(30), lost_up: 60, ..Weather::FAIR };
        rain.latency = ms(10);
        w.set_way(0, 1, rain);
        w.set_way(1, 2, rain);
        let mut plays = Vec::new();
        for number in 0..6 {
            let path = format!("live/cam{number}");
            let track = w.publisher_like(at(0, Lite06).hop(70 + number), &path, "video");
            w.group(track, 0, &[5]);
            w.run(SOON);
            let (hasty, patient) = (w.join(at(2, Lite06)), w.join(at(2, Lite06)));
            let left = w.subscribe(hasty, &path, "video", live());
            w.run(ms(seed * 7));
            w.leave(left);
            w.run(ms(number * 15));
            let sub = w.subscribe(patient, &path, "video", live());
            w.run(ms(1500));
            w.all_settled();
            for sequence in 1..4 {
                w.group(track, sequence, &[3, 2000]);
                w.run(ms(40));
            }
            plays.push(sub);
        }
        w.run(ms(3000));
        for sub in plays {
            assert_eq!(w.got_sorted(sub), [0, 1, 2, 3], "seed {seed}");
        }
        w.end();
    }
}

/// A thousand broadcasts at one end of a chain are known at the other end soon, and gone as soon.
#[test]
fn a_thousand_broadcasts_cross_a_chain_of_three_within_a_second() {
    const COUNT: usize = 1000;
    let mut w = World::new(stage(3, 2));
    w.link(1, 0);
    w.link(2, 1);
    let publisher = w.join(at(0, Lite06).hop(7));
    let listener = w.join(at(2, Lite06));
    let listen = w.peers[listener].listen("", 0);
    w.run(ms(100));
    let begun = w.now;
    for number in 0..COUNT {
        w.peers[publisher].announce(&format!("live/cam{number:04}"), &[], Cost::ZERO);
    }
    let count = |w: &World, sign: char| {
        let heard = &w.peers[listener].listens[listen].heard;
        heard.iter().filter(|line| line.starts_with(sign)).count()
    };
    assert!(w.run_until(ms(1000), |w| count(w, '+') == COUNT), "{}", count(&w, '+'));
    let came = w.now - begun;
    let begun = w.now;
    w.close(publisher);
    assert!(w.run_until(ms(1000), |w| count(w, '-') == COUNT), "{}", count(&w, '-'));
    println!(
        "{COUNT} broadcasts over two links: there after {came:?}, gone after {:?}",
        w.now - begun
    );
    w.end();
}

#[test]
fn who_may_not_come_in_is_told_so() {
    for by_web in [false, true] {
        let mut w = World::with_access(stage(2, 1), Access::default());
        let dial = if by_web { World::dial_web } else { World::dial };
        dial(&mut w, 0, 0, 1, Call::default());
        w.run(ms(500));
        let downs: Vec<_> = w.said(0).iter().filter(|n| matches!(n, News::Down { .. })).collect();
        assert!(
            matches!(downs[..], [News::Down { is_denied: true, .. }]),
            "by_web {by_web}: {:?}",
            w.said(0)
        );
        w.end();
    }
}

#[test]
fn a_relay_that_leaves_says_so_to_whoever_has_dialled_it_and_to_whom_it_has_dialled() {
    for leaves in [0, 1] {
        let mut w = World::new(stage(2, 2));
        let link = w.link(1, 0);
        // Who speaks lite-03 cannot be asked to move.
        let track = w.publisher_like(at(leaves, Lite03), PATH, "video");
        let viewer = w.join(at(1 - leaves, Lite06));
        let sub = w.subscribe(viewer, PATH, "video", live());
        w.run(SOON);
        w.all_settled();
        w.group(track, 0, &[100]);
        w.run(ms(200));
        for shard in 0..2 {
            let core = w.core_of(leaves, shard);
            w.tell(core, ToShard::Drain);
        }
        w.run(ms(5000));
        let expect = (leaves == 0).then(|| News::Leaving { link, to: String::new() });
        let said = w.said(1).iter().find(|news| matches!(news, News::Leaving { .. }));
        assert_eq!(said, expect.as_ref());
        // Meanwhile what it has goes on: there is no other way.
        w.group(track, 1, &[100]);
        w.run(ms(200));
        assert_eq!(w.got_sorted(sub), [0, 1]);
        w.end();
    }
}

#[test]
fn a_link_that_is_not_wanted_any_more_ends_at_both_ends() {
    let mut w = World::new(stage(2, 2));
    let link = w.link(1, 0);
    w.unlink(1, link);
    w.run(ms(200));
    assert!(w.said(1).iter().any(|news| matches!(news, News::Down { .. })));
    assert!(w.said(0).iter().any(|news| matches!(news, News::GuestLeft { .. })));
    // Nor is one that has not come about yet.
    w.cut(0, 1, true);
    let link = w.dial(1, 0, 0, Call::default());
    w.run(ms(100));
    w.unlink(1, link);
    w.run(ms(100));
    let downs = w.said(1).iter().filter(|news| matches!(news, News::Down { .. })).count();
    assert_eq!(downs, 2);
    w.end();
}
