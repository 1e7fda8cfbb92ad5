//! Clusters of relays in the simulated world, in every shape: what is published anywhere is known and played
//! wherever there is a way to it, and nowhere else, whatever becomes of links, relays and publishers.

mod support {
    pub mod mesh;
    #[path = "simulated.rs"]
    mod simulated;

    pub use simulated::*;
}

use std::time::Duration;

use shardcast::cluster::LinkId;
use shardcast::route::Takeover;
use shardcast::session::Call;
use shardcast::shard::CacheBounds;
use shardcast::shard::message::ToShard;
use shardcast::wire::Version::Lite06;
use shardcast::wire::*;
use support::mesh::*;
use support::peer::*;
use support::world::*;

/// Announcements on all links together for one broadcast that begins, ends or goes another way: no more than so
/// many times the links.
const MESSAGES_PER_LINK: u64 = 4;

fn stage(relays: usize, shards: usize, seed: u64) -> Stage {
    let takeover = if seed.is_multiple_of(2) { Takeover::Refused } else { Takeover::Allowed };
    Stage { relays, trusts_all: false, takeover, ..Stage::new(seed, shards) }
}

/// One thing happens, and what it costs in announcements is bounded.
#[track_caller]
fn changes(mesh: &mut Mesh, what: impl FnOnce(&mut Mesh), broadcasts: usize) {
    let before = mesh.messages();
    what(mesh);
    mesh.calm();
    let (told, links) = (mesh.messages() - before, mesh.edges.len() as u64);
    if std::env::var_os("MESH").is_some() {
        eprintln!("{told} messages, {links} links, {broadcasts} broadcasts, {:?}", mesh.slowest);
    }
    let most = MESSAGES_PER_LINK * links * broadcasts as u64;
    assert!(told <= most, "{told} messages for {broadcasts} broadcasts on {links} links");
    assert_eq!(mesh.reflected(), 0, "told by whom it was told");
}

/// Three, five and sixteen relays, of one to three shards.
const CLUSTERS: [(Shape, usize, usize); 11] = [
    (Shape::Line, 3, 3),
    (Shape::Ring, 3, 1),
    (Shape::Full, 3, 2),
    (Shape::Line, 5, 2),
    (Shape::Ring, 5, 3),
    (Shape::Tree, 5, 1),
    (Shape::Full, 5, 2),
    (Shape::Ring, 16, 1),
    (Shape::Tree, 16, 2),
    (Shape::Random(8), 16, 1),
    (Shape::Full, 16, 1),
];

#[test]
fn a_broadcast_that_begins_and_ends_is_known_everywhere_and_then_nowhere() {
    for (seed, (shape, relays, shards)) in CLUSTERS.into_iter().enumerate() {
        let mut mesh = Mesh::new(shape, stage(relays, shards, seed as u64));
        for at in [0, relays / 2] {
            let mut show = 0;
            changes(&mut mesh, |mesh| show = mesh.publish(&format!("live/{at}"), at, 70), 1);
            mesh.plays();
            for relay in 0..relays {
                let held = mesh.w.held()[mesh.w.core_of(relay, 0)].routes;
                let most = mesh.ways(relay, at);
                assert!((1..=most).contains(&held), "{shape:?}: {held} at relay {relay} of {most}");
            }
            changes(&mut mesh, |mesh| mesh.stop(show, false), 1);
            changes(&mut mesh, |mesh| mesh.start(show), 1);
            mesh.plays();
            changes(&mut mesh, |mesh| mesh.stop(show, true), 1);
        }
        mesh.w.end();
    }
}

/// Whether a link is hung up or falls silent: both what is beyond it and what has another way.
#[test]
fn what_a_cut_link_led_to_is_known_no_more_unless_there_is_another_way() {
    for (seed, (shape, relays, shards)) in CLUSTERS.into_iter().enumerate() {
        let mut mesh = Mesh::new(shape, stage(relays, shards, seed as u64));
        for at in [0, relays - 1] {
            mesh.publish(&format!("live/{at}"), at, 70 + at as u64);
        }
        mesh.calm();
        for way in [Way::HungUp, Way::Silent] {
            let edge = mesh.random.below(mesh.edges.len() as u64) as usize;
            changes(&mut mesh, |mesh| mesh.set_way(edge, way), 2);
            mesh.plays();
            changes(&mut mesh, |mesh| mesh.set_way(edge, Way::Whole), 2);
            mesh.plays();
        }
        mesh.w.end();
    }
}

#[test]
fn a_relay_that_is_killed_and_is_back_is_a_part_of_it_again() {
    for (seed, (shape, relays, shards)) in CLUSTERS.into_iter().enumerate() {
        let mut mesh = Mesh::new(shape, stage(relays, shards, seed as u64));
        let killed = relays / 2;
        let shows: Vec<usize> =
            [0, killed].map(|at| mesh.publish(&format!("live/{at}"), at, 70 + at as u64)).into();
        mesh.calm();
        mesh.plays();
        mesh.kill_relay(killed);
        mesh.calm();
        mesh.plays();
        mesh.return_relay(killed);
        mesh.start(shows[1]);
        mesh.calm();
        mesh.plays();
        // Before anybody has noticed.
        mesh.kill_relay(killed);
        mesh.live(ms(2000));
        mesh.return_relay(killed);
        mesh.start(shows[1]);
        mesh.live(ms(2000));
        mesh.calm();
        mesh.plays();
        assert_eq!(mesh.reflected(), 0);
        mesh.w.end();
    }
}

#[test]
fn two_publishers_of_one_name_are_shown_one_of_them_each_and_the_other_when_that_ends() {
    for (seed, (shape, relays, shards)) in CLUSTERS.into_iter().enumerate() {
        let mut mesh = Mesh::new(shape, stage(relays, shards, seed as u64));
        let mut shows = [0; 2];
        for (at, relay) in [0, relays - 1].into_iter().enumerate() {
            let hop = 70 + at as u64;
            changes(&mut mesh, |mesh| shows[at] = mesh.publish("live/cam", relay, hop), 1);
        }
        mesh.plays();
        for (at, show) in [(0, shows[0]), (1, shows[1])] {
            changes(&mut mesh, |mesh| mesh.stop(show, at == 1), 1);
            mesh.plays();
            changes(&mut mesh, |mesh| mesh.start(show), 1);
            mesh.plays();
        }
        mesh.w.end();
    }
}

/// What happens to a cluster for a while, by a seed.
fn random_play(shape: Shape, relays: usize, shards: usize, seed: u64) -> (u64, u64) {
    let mut mesh = Mesh::new(shape, stage(relays, shards, seed));
    for at in 0..3 {
        let relay = mesh.random.below(relays as u64) as usize;
        mesh.publish(&format!("live/{at}"), relay, 70 + at);
    }
    mesh.calm();
    for _ in 0..4 {
        for _ in 0..4 {
            let edge = mesh.random.below(mesh.edges.len() as u64) as usize;
            let relay = mesh.random.below(relays as u64) as usize;
            let show = mesh.random.below(mesh.shows.len() as u64) as usize;
            let is_up = mesh.nodes[mesh.shows[show].relay].is_up;
            match mesh.random.below(8) {
                0..3 if mesh.edges[edge].way == Way::Whole => {
                    let way = mesh.random.pick(&[Way::Silent, Way::HungUp]);
                    mesh.set_way(edge, way);
                }
                0..3 => mesh.set_way(edge, Way::Whole),
                3 if mesh.nodes[relay].is_up => mesh.kill_relay(relay),
                3 | 4 if !mesh.nodes[relay].is_up => mesh.return_relay(relay),
                5.. if mesh.shows[show].track.is_some() => {
                    let is_killed = mesh.random.per_mille(300);
                    mesh.stop(show, is_killed);
                }
                5.. if is_up => mesh.start(show),
                _ => {}
            }
            let pause = mesh.random.pick(&[0, 50, 300, 1000, 4000]);
            mesh.live(ms(pause));
        }
        mesh.calm_within(GONE_AROUND);
        mesh.plays();
    }
    mesh.heal();
    mesh.calm_within(GONE_AROUND);
    mesh.plays();
    assert_eq!(mesh.reflected(), 0);
    mesh.w.end()
}

#[test]
fn whatever_happens_to_a_cluster_all_that_can_be_known_is() {
    for seed in seeds(0..8) {
        let (relays, more) = [(3, 1), (5, 2), (5, 4), (16, 6)][seed as usize % 4];
        let shards = if relays == 16 { 1 } else { 1 + seed as usize % 3 };
        eprintln!("MESH_SEEDS={seed}..{}", seed + 1);
        random_play(Shape::Random(more), relays, shards, seed);
    }
}

/// Others than usual: `MESH_SEEDS=100..200`.
fn seeds(usual: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let Ok(said) = std::env::var("MESH_SEEDS") else { return usual };
    let (first, end) = said.split_once("..").expect("a range");
    first.parse().expect("a number")..end.parse().expect("a number")
}

#[test]
fn the_same_seed_is_the_same_history() {
    let play = || random_play(Shape::Random(2), 5, 2, 3);
    assert_eq!(play(), play());
}

/// A publisher is back before anybody knows that it was gone, and numbers its groups anew. Who is in the middle of
/// the track is shown numbers that go on, and so is a relay: to those who come later beyond it all of that is one
/// run. At the publisher's own relay they are shown the new one alone.
#[test]
fn a_run_that_follows_another_is_one_with_it_beyond_the_next_relay() {
    let cache = CacheBounds { bytes: CACHE_BYTES, duration: ms(120_000) };
    for shards in 1..4 {
        let stage = Stage { cache, ..stage(3, shards, shards as u64) };
        let mut mesh = Mesh::new(Shape::Line, stage);
        let show = mesh.publish("live/cam", 0, 70);
        mesh.calm();
        mesh.plays();
        mesh.stop(show, true);
        mesh.start(show);
        // All have gone over to it when its first group comes.
        mesh.w.run(ms(20_000));
        mesh.plays();
        mesh.w.run(ms(5000));
        let newcomer = |mesh: &mut Mesh, relay| {
            let viewer = mesh.w.join(Spec { relay, ..Spec::new(Lite06, 0) });
            mesh.w.subscribe(viewer, "live/cam", "video", live())
        };
        let late = [0, 2].map(|relay| newcomer(&mut mesh, relay));
        mesh.w.run(CONVERGED);
        assert_eq!(late.map(|sub| mesh.w.got_sorted(sub)), [vec![0, 1, 2], vec![0, 1, 2, 3, 4, 5]]);
        for relay in 0..3 {
            let watches = mesh.subs[&(relay, "live/cam".to_owned())];
            assert_eq!(mesh.w.got_sorted(watches), [0, 1, 2, 3, 4, 5], "relay {relay}");
        }
        mesh.w.end();
    }
}

// ---- ways around ----

/// The viewer's relay has the publisher's on one side and a third one on the other.
fn triangle(shards: usize, seed: u64) -> (Mesh, Track, Sub) {
    let mut mesh = Mesh::new(Shape::Ring, stage(3, shards, seed));
    let show = mesh.publish("live/cam", 0, 70);
    mesh.calm();
    mesh.watch();
    mesh.w.run(CONVERGED);
    mesh.w.all_settled();
    let track = mesh.shows[show].track.expect("it is there");
    let sub = mesh.subs[&(1, "live/cam".to_owned())];
    (mesh, track, sub)
}

#[test]
fn a_link_that_is_cut_in_mid_group_is_gone_around_within_the_group() {
    for (way, time) in [(Way::HungUp, ms(100)), (Way::Silent, LOSS_NOTICED)] {
        for shards in 1..4 {
            let (mut mesh, track, sub) = triangle(shards, shards as u64);
            let w = &mut mesh.w;
            w.group(track, 0, &[900, 40]);
            w.open_group(track, 1);
            w.frame(track, 1, 3000);
            w.run(ms(100));
            assert_eq!((w.got(sub), w.sub(sub).groups[&1].frames.len()), (vec![0], 1));
            let edge = mesh.edge_between(1, 0);
            mesh.set_way(edge, way);
            let cut_at = mesh.w.now;
            let w = &mut mesh.w;
            w.run(ms(10));
            w.frame(track, 1, 2000);
            w.end_group(track, 1, End::Finished);
            let has_gone_on = w.run_until(2 * time, |w| w.got(sub) == [0, 1]);
            assert!(has_gone_on && w.now - cut_at <= time, "{way:?}: {:?}", w.now - cut_at);
            for sequence in 2..5 {
                w.group(track, sequence, &[100, 200]);
                w.run(ms(100));
            }
            assert_eq!(w.got_sorted(sub), [0, 1, 2, 3, 4], "{way:?}");
            assert_eq!(w.sub(sub).end, None);
            mesh.w.end();
        }
    }
}

/// Relays that have gone around to each other would else wait for each other for ever. One that brings something is
/// kept.
#[test]
fn a_track_that_nothing_comes_of_goes_the_better_way_as_soon_as_there_is_one() {
    for (shards, flows) in (1..4).flat_map(|shards| [false, true].map(|flows| (shards, flows))) {
        let mut mesh = Mesh::new(Shape::Ring, stage(3, shards, shards as u64));
        let edge = mesh.edge_between(1, 0);
        mesh.set_way(edge, Way::HungUp);
        let show = mesh.publish("live/cam", 0, 70);
        mesh.calm();
        let track = mesh.shows[show].track.expect("it is there");
        let sub = mesh.w.subscribe(mesh.nodes[1].viewer, "live/cam", "video", live());
        mesh.w.run(CONVERGED);
        if flows {
            mesh.w.group(track, 0, &[900]);
            mesh.w.run(CONVERGED);
        }
        let around = |mesh: &Mesh| {
            sum(mesh, 2, |counts| counts.sent.subscriptions_opened)
                - sum(mesh, 2, |counts| counts.sent.subscriptions_closed)
        };
        assert_eq!(around(&mesh), 1);
        mesh.set_way(edge, Way::Whole);
        mesh.calm();
        assert_eq!(around(&mesh), u64::from(flows), "{shards} shards");
        mesh.w.group(track, 1, &[900]);
        mesh.w.run(CONVERGED);
        let expect: &[u64] = if flows { &[0, 1] } else { &[1] };
        assert_eq!(mesh.w.got_sorted(sub), expect);
        mesh.w.end();
    }
}

/// Before it is gone its viewers elsewhere have moved, and miss nothing.
#[test]
fn a_relay_that_leaves_is_gone_around_before_it_is_gone() {
    for shards in 1..4 {
        // Nobody who speaks lite-03 can be asked to move: only relays are.
        let mut mesh = Mesh::of(Shape::Ring, stage(4, shards, shards as u64), Version::Lite03);
        mesh.publish("live/cam", 0, 70);
        mesh.calm();
        mesh.plays();
        // Two hops away on both sides.
        let sub = mesh.subs[&(2, "live/cam".to_owned())];
        let by = |mesh: &Mesh, relay: usize| {
            let of = |shard| mesh.w.session_counts(mesh.w.core_of(relay, shard));
            let open =
                |shard| of(shard).sent.subscriptions_opened - of(shard).sent.subscriptions_closed;
            (0..shards).map(open).sum::<u64>()
        };
        let leaves = if by(&mesh, 1) == 2 { 1 } else { 3 };
        assert_eq!((by(&mesh, leaves), by(&mesh, 4 - leaves)), (2, 1));
        for shard in 0..shards {
            let core = mesh.w.core_of(leaves, shard);
            mesh.w.tell(core, ToShard::Drain);
        }
        mesh.live(ms(2000));
        assert_eq!((by(&mesh, leaves), by(&mesh, 4 - leaves)), (1, 2), "its own viewer is left");
        let before = mesh.w.got(sub).len();
        mesh.kill_relay(leaves);
        mesh.live(ms(1000));
        assert!(mesh.w.got(sub).len() > before + 5 && mesh.w.sub(sub).end.is_none());
        mesh.calm();
        mesh.plays();
        mesh.return_relay(leaves);
        mesh.calm();
        mesh.plays();
        mesh.w.end();
    }
}

// ---- far from the publisher ----

/// How many there are on all shards of a relay.
fn sum(mesh: &Mesh, relay: usize, of: fn(&shardcast::session::Counts) -> u64) -> u64 {
    let shards = 0..mesh.w.stage.shards;
    shards.map(|shard| of(mesh.w.session_counts(mesh.w.core_of(relay, shard)))).sum()
}

/// A chain, at one end of which something is published, and so many viewers at each.
fn chain(first: usize, shards: usize, viewers: usize) -> (Mesh, Track, Vec<Vec<usize>>) {
    let mut mesh = Mesh::new(Shape::Line, stage(4, shards, shards as u64));
    let show = mesh.publish("live/cam", first, 70);
    let all = (0..4).map(|relay| {
        let specs = (0..viewers).map(|at| Spec { relay, ..Spec::new(Lite06, at % shards) });
        specs.map(|spec| mesh.w.join(spec)).collect()
    });
    let all = all.collect();
    mesh.calm();
    let track = mesh.shows[show].track.expect("it is there");
    (mesh, track, all)
}

#[test]
fn each_link_carries_one_subscription_however_many_watch() {
    for shards in 1..4 {
        let (mut mesh, track, viewers) = chain(0, shards, 6);
        let mut subs = Vec::new();
        for relay in (0..4).rev() {
            for viewer in &viewers[relay] {
                subs.push(mesh.w.subscribe(*viewer, "live/cam", "video", live()));
            }
            mesh.w.run(ms(200));
        }
        mesh.w.all_settled();
        for sequence in 0..3 {
            mesh.w.group(track, sequence, &[900, 3000]);
            mesh.w.run(ms(100));
        }
        for sub in subs {
            assert_eq!(mesh.w.got_sorted(sub), [0, 1, 2]);
        }
        for relay in 0..4 {
            let asked = sum(&mesh, relay, |counts| counts.received.subscriptions_opened);
            let served = sum(&mesh, relay, |counts| counts.sent.subscriptions_opened);
            assert_eq!((asked, served), (1, 6 + u64::from(relay < 3)), "relay {relay}");
            let bytes = sum(&mesh, relay, |counts| counts.received.bytes);
            assert_eq!(bytes, 3 * 3900, "relay {relay}");
        }
        mesh.w.end();
    }
}

#[test]
fn a_group_is_fetched_once_over_each_link_and_then_had() {
    for shards in 1..4 {
        let (mut mesh, track, viewers) = chain(0, shards, 6);
        for sequence in 0..3 {
            mesh.w.group(track, sequence, &[900, 3000]);
        }
        let fetched = |mesh: &Mesh| {
            let of = |relay| sum(mesh, relay, |counts| counts.received.fetches);
            [0, 1, 2, 3].map(of)
        };
        let fetch = |mesh: &mut Mesh, relay: usize, group| {
            let its = viewers[relay].iter();
            let gets: Vec<Get> = its
                .map(|viewer| mesh.w.fetch(*viewer, "live/cam", "video", whole(group)))
                .collect();
            mesh.w.run(ms(300));
            for get in gets {
                assert_eq!(mesh.w.outcome(get), (2, Some(End::Finished)), "relay {relay}");
            }
        };
        // All at once, at the far end.
        fetch(&mut mesh, 3, 0);
        assert_eq!(fetched(&mesh), [1, 1, 1, 1]);
        // Once more, and on the way there.
        for relay in [3, 2, 1, 0] {
            fetch(&mut mesh, relay, 0);
        }
        assert_eq!(fetched(&mesh), [1, 1, 1, 1]);
        fetch(&mut mesh, 1, 1);
        assert_eq!(fetched(&mesh), [2, 2, 1, 1]);
        fetch(&mut mesh, 3, 1);
        assert_eq!(fetched(&mesh), [2, 2, 2, 2]);
        mesh.w.end();
    }
}

/// Also where all had watched before, a link was cut, and is back; whichever end of a link has dialled.
#[test]
fn the_first_frame_is_a_round_trip_later_for_each_hop() {
    for first in [0, 3] {
        for shards in 1..4 {
            for cut in [None, Some(0), Some(2)] {
                first_frames(first, shards, cut);
            }
        }
    }
}

fn first_frames(first: usize, shards: usize, cut: Option<usize>) {
    const ROUND_TRIP: Duration = Duration::from_millis(10);
    const PER_HOP: Duration = ROUND_TRIP.saturating_add(Duration::from_millis(5));
    let times = [0, 1, 2, 3].map(|hops| first_frame(first, hops, shards, cut));
    eprintln!("first frame from {first}, {shards} shards, 0 to 3 hops, cut {cut:?}: {times:?}");
    // Its publisher is asked what it is like first, as everybody is.
    let alone = 3 * ROUND_TRIP;
    for (hops, time) in (0..).zip(times) {
        assert!(time <= alone + hops * PER_HOP, "from {first}, cut {cut:?}: {times:?}");
    }
}

fn first_frame(first: usize, hops: usize, shards: usize, cut: Option<usize>) -> Duration {
    let (mut mesh, track, viewers) = chain(first, shards, 1);
    if let Some(edge) = cut {
        mesh.plays();
        for way in [Way::HungUp, Way::Whole, Way::Silent, Way::Whole] {
            mesh.set_way(edge, way);
            mesh.calm();
        }
        let watching = std::mem::take(&mut mesh.subs);
        watching.into_values().for_each(|sub| mesh.w.leave(sub));
        mesh.w.run(ms(10_000));
    } else {
        mesh.w.group(track, 0, &[900]);
    }
    let asked_at = mesh.w.now;
    let viewer = viewers[hops.abs_diff(first)][0];
    let sub = mesh.w.subscribe(viewer, "live/cam", "video", live());
    assert!(mesh.w.run_until(ms(1000), |w| !w.got(sub).is_empty()));
    let took = mesh.w.now - asked_at;
    mesh.w.run(CONVERGED);
    mesh.w.all_settled();
    mesh.w.end();
    took
}

#[test]
fn a_thousand_broadcasts_are_known_at_the_end_of_a_chain_soon() {
    const BROADCASTS: usize = 1000;
    let mut mesh = Mesh::new(Shape::Line, stage(3, 2, 1));
    let peer = mesh.w.join(Spec::new(Lite06, 0).hop(70));
    let listener = mesh.nodes[2].listener;
    let began = mesh.w.now;
    for at in 0..BROADCASTS {
        mesh.w.peers[peer].announce(&format!("live/{at:04}"), &[], Cost::ZERO);
    }
    let all = |w: &World| w.peers[listener].listens[0].live().len();
    assert!(mesh.w.run_until(ms(2000), |w| all(w) == BROADCASTS));
    let up = mesh.w.now - began;
    let began = mesh.w.now;
    mesh.w.close(peer);
    assert!(mesh.w.run_until(ms(2000), |w| all(w) == 0));
    let down = mesh.w.now - began;
    eprintln!(
        "{BROADCASTS} broadcasts over a chain of three: {up:?}, and {down:?} until they are gone"
    );
    assert!(up.max(down) <= ms(500), "{up:?} {down:?}");
    mesh.w.end();
}

// ---- links that carry much ----

/// Two relays, and a link from each shard of the second.
fn joined_by_all_shards(shards: usize) -> (Mesh, Vec<LinkId>) {
    let mut mesh = Mesh::new(Shape::Line, stage(2, shards, shards as u64));
    mesh.set_way(0, Way::HungUp);
    mesh.w.run(ms(100));
    let links: Vec<LinkId> =
        (0..shards).map(|shard| mesh.w.dial(1, shard, 0, Call::default())).collect();
    for link in &links {
        assert!(mesh.w.is_up_within(1, *link, ms(1000)));
    }
    (mesh, links)
}

#[test]
fn tracks_are_spread_over_the_links_between_two_relays_and_go_on_over_another() {
    const TRACKS: usize = 24;
    for shards in 2..4 {
        let (mut mesh, links) = joined_by_all_shards(shards);
        let w = &mut mesh.w;
        let first = w.publisher_like(Spec::new(Lite06, 0).hop(70), "live/cam", "0");
        let names: Vec<String> = (0..TRACKS).map(|at| at.to_string()).collect();
        let mut tracks = vec![first];
        tracks.extend(names[1..].iter().map(|name| w.track(first.peer, "live/cam", name)));
        w.run(CONVERGED);
        let viewer = w.join(Spec { relay: 1, ..Spec::new(Lite06, 0) });
        let mut subs = Vec::new();
        for name in &names {
            subs.push(w.subscribe(viewer, "live/cam", name, live()));
            w.run(ms(20));
        }
        w.run(ms(300));
        w.all_settled();
        for track in &tracks {
            w.group(*track, 0, &[100]);
            w.open_group(*track, 1);
            w.frame(*track, 1, 500);
        }
        w.run(ms(200));
        let carried = |w: &World| -> Vec<u64> {
            let of = |shard| w.session_counts(w.core_of(1, shard)).received.subscriptions_opened;
            (0..shards).map(of).collect()
        };
        let each = carried(w);
        assert_eq!(each.iter().sum::<u64>(), TRACKS as u64);
        assert!(each.iter().all(|count| *count >= TRACKS as u64 / shards as u64 / 2), "{each:?}");
        w.unlink(1, links[0]);
        w.run(ms(10));
        for track in &tracks {
            w.frame(*track, 1, 700);
            w.end_group(*track, 1, End::Finished);
        }
        w.run(ms(300));
        for track in &tracks {
            w.group(*track, 2, &[100]);
        }
        w.run(ms(300));
        for sub in &subs {
            assert_eq!(w.got_sorted(*sub), [0, 1, 2], "of {shards}");
        }
        // Only what that one had carried was asked for again.
        assert_eq!(carried(w).iter().sum::<u64>(), TRACKS as u64 + each[0]);
        mesh.w.end();
    }
}
