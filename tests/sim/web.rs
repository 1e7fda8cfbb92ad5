//! WebTransport.

use super::*;

#[test]
fn a_session_is_agreed_on_in_a_storm() {
    let lossy = Weather { lost_up: 150, lost_down: 150, ..Weather::FAIR };
    let storm = Weather { jitter: ms(40), doubled: 100, ..lossy };
    for seed in 0..20 {
        let mut w = World::new(Stage::new(seed, 3));
        let manner = Manner { is_eager: seed % 2 == 0, is_second: seed % 3 == 0 };
        let version = VERSIONS[seed as usize % VERSIONS.len()];
        let spec = |shard| Spec { weather: storm, web: Some(manner), ..Spec::new(version, shard) };
        let cam = w.publisher_like(spec(0).hop(9), PATH, TRACK);
        w.run(ms(3000));
        let ann = w.arrive(spec(1));
        assert!(w.run_until(ms(10_000), |w| w.peers[ann].is_up()), "seed {seed}");
        // An eager one asks in the same breath as for the session.
        let (listen, sub) = (w.peers[ann].listen("", 0), w.subscribe(ann, PATH, TRACK, live()));
        w.run(ms(5000));
        assert_eq!(w.peers[ann].listens[listen].live(), [PATH], "seed {seed}");
        w.all_settled();
        for sequence in 0..6 {
            w.group(cam, sequence, &SIZES);
            w.run(ms(200));
        }
        w.run(ms(5000));
        assert_eq!(w.got_sorted(sub), [0, 1, 2, 3, 4, 5], "seed {seed}");
        w.end();
    }
}

#[test]
fn what_is_asked_before_the_session_is_there_is_answered() {
    for version in [Lite03, Lite04, Lite05, Lite06] {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        w.group(cam, 0, &[10]);
        let ann = w.arrive(Spec::new(version, 1).eager_web());
        assert!(w.run_until(ms(1000), |w| w.peers[ann].is_up()));
        let joined = w.since_start();
        let (listen, sub) = (w.peers[ann].listen("", 0), w.subscribe(ann, PATH, TRACK, live()));
        // A round trip to the relay, and two from there to the publisher, who is asked what the
        // track is like and then for it.
        let has_it = |w: &World| w.got(sub) == [0] && w.peers[ann].listens[listen].live() == [PATH];
        assert!(w.run_until(ms(1000), has_it), "{version}");
        let took = w.since_start() - joined;
        assert!(took <= 6 * Weather::FAIR.latency + ms(3), "{version}: {took:?}");
        w.end();
    }
}

#[test]
fn either_side_ends_a_session() {
    // With a capsule, which the other side answers by closing the connection; or with that alone.
    let ways: [fn(&mut World, usize); 2] = [World::close, World::hang_up];
    let table = [(Lite05, 0, ways[0]), (Lite06, 150, ways[0]), (Lite05, 0, ways[1])];
    for (version, lost, leave) in table {
        let mut w = world(2);
        let weather = Weather { lost_up: lost, lost_down: lost, ..Weather::FAIR };
        let spec = Spec { weather, ..Spec::new(version, 1).web() };
        let pause = if lost == 0 { ms(1000) } else { ms(9000) };
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let other = w.publisher_like(spec.clone().hop(8), "other", TRACK);
        let bob = w.viewer(Lite06, 0);
        let listen = w.peers[bob].listen("", 0);
        let all = w.subscribe(bob, PATH, TRACK, live());
        let cut = w.subscribe(bob, "other", TRACK, live());
        let (ann, mallory) = (w.join(spec.clone()), w.join(spec));
        w.subscribe(ann, PATH, TRACK, live());
        let check = |w: &World, connections: usize, live: &[&str]| {
            let held: usize = w.held().iter().map(|held| held.connections).sum();
            assert_eq!((held, w.peers[bob].listens[listen].live()), (connections, owned(live)));
        };
        w.run(pause);
        w.group(cam, 0, &SIZES);
        check(&w, 5, &[PATH, "other"]);
        // What they had is gone with their connections.
        leave(&mut w, ann);
        leave(&mut w, other.peer);
        w.run(pause);
        check(&w, 3, &[PATH]);
        assert!(matches!(w.sub(cut).end, Some(End::Reset(_))));

        // A second SETUP. The peer compares what the capsule says with what the connection says.
        w.raw(mallory, Dir::Uni, b"\x01\x01\x00", true);
        w.run(pause);
        let code = SessionCode::PROTOCOL_VIOLATION.0;
        let state = State::Over("second SETUP".to_owned(), Some(code));
        assert_eq!(w.peers[mallory].state, state, "{version}, {lost} lost");
        check(&w, 2, &[PATH]);
        w.group(cam, 1, &SIZES);
        w.run(ms(300));
        assert_eq!(w.got_sorted(all), [0, 1]);
        w.end();
    }
}

/// Data that the network cannot take yet does not keep a session's end from the client.
#[test]
fn a_viewer_that_is_behind_hears_why_it_is_sent_away() {
    // In WebTransport the data may go first, for a while.
    for (is_web, grace) in [(false, ms(500)), (true, ms(2500))] {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let weather = Weather { latency: ms(200), ..Weather::FAIR };
        let spec = Spec { weather, ..Spec::new(Lite06, 1) };
        let far = w.join(if is_web { spec.web() } else { spec });
        w.subscribe(far, PATH, TRACK, live());
        w.run(ms(3000));
        w.all_settled();
        // A second SETUP gets there when the relay has sent as much as it may, with more to send.
        w.raw(far, Dir::Uni, b"\x01\x01\x00", true);
        w.run(ms(100));
        w.group(cam, 0, &[500_000]);
        w.run(grace);
        let code = Some(SessionCode::PROTOCOL_VIOLATION.0);
        let state = &w.peers[far].state;
        let is_told = |what: &str| what.contains("second SETUP");
        assert!(matches!(state, State::Over(what, heard) if is_told(what) && *heard == code));
        w.end();
    }
}

/// Its socket is full, and it takes nothing any more, or is gone.
#[test]
fn a_client_that_cannot_hear_why_it_is_sent_away_is_forgotten() {
    for seed in 0..8 {
        let mut w = World::new(Stage::new(seed, 2));
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let weather = Weather { down_bytes_per_second: Some(100_000), ..Weather::FAIR };
        let spec = Spec { weather, ..Spec::new(Lite06, 1) };
        let far = w.join(spec.ws(WIRES[seed as usize % 3]));
        w.subscribe(far, PATH, TRACK, live());
        w.run(ms(200));
        w.group(cam, 0, &[900_000]);
        w.run(ms(500));
        w.raw(far, Dir::Uni, b"\x01\x01\x00", true);
        w.run(Weather::FAIR.latency + ms(1));
        w.kill(far);
        w.run(CLOSE_GRACE_MAX + ms(100));
        assert_eq!(w.held()[1].connections, 0, "{seed}");
        w.end();
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_client_that_dies_within_its_handshake_leaves_nothing() {
    let web = [Spec::new(Lite05, 1).web(), Spec::new(Lite06, 1).eager_web()];
    let ws = WIRES.map(|wire| Spec::new(Lite05, 1).ws(wire));
    for spec in web.into_iter().chain(ws) {
        for at in 0..32 {
            let mut w = world(2);
            let peer = w.arrive(spec.clone().hop(7));
            w.peers[peer].announce(PATH, &[], Cost::ZERO);
            w.run(ms(at));
            w.kill(peer);
            w.run(LOSS_NOTICED + CLOSE_GRACE_MAX);
            assert_eq!(w.held(), vec![Held::default(); 2], "killed after {at} ms");
            w.end();
        }
    }
}

#[test]
fn a_client_of_webtransport_moves_to_another_port() {
    for version in [Lite05, Lite06] {
        let mut w = world(3);
        let track = homed(PATH, 1, 3);
        let cam = w.publisher_like(Spec::new(version, 0).hop(7).web(), PATH, &track);
        let ann = w.join(Spec::new(version, 2).web());
        let sub = w.subscribe(ann, PATH, &track, live());
        w.run(ms(200));
        w.all_settled();
        for round in 0..12 {
            let (group, datagram) = (2 * round, 2 * round + 1);
            w.open_group(cam, group);
            w.frame(cam, group, 2500);
            w.run(ms(20));
            match round % 4 {
                1 => w.rebind(ann),
                2 => w.rebind(cam.peer),
                _ => {}
            }
            w.frame(cam, group, 100);
            w.end_group(cam, group, End::Finished);
            // Once the relay knows, by a ping at the latest: what goes to the old port is lost.
            w.run(ms(4000));
            w.datagram(cam, datagram, 300);
        }
        w.run(ms(5000));
        assert_eq!(w.got_sorted(sub), (0..12).map(|round| 2 * round).collect::<Vec<_>>());
        assert_eq!(w.heard(sub), (0..12).map(|round| 2 * round + 1).collect::<Vec<_>>());
        w.end();
    }
}
