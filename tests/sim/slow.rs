//! Slow and unlucky ones.

use super::*;

#[test]
fn a_viewer_that_stops_reading_holds_up_nobody_and_gets_the_rest_later() {
    let over = [None].into_iter().chain(WIRES.map(Some));
    for (version, ws) in over.flat_map(|ws| VERSIONS.map(|version| (version, ws))) {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let slow = w.join(Spec { window: 20_000, ws, ..Spec::new(version, 1) });
        let bob = w.viewer(Lite05, 1);
        let late = w.subscribe(slow, PATH, TRACK, live());
        let sub = w.subscribe(bob, PATH, TRACK, live());
        w.run(ms(200));
        w.all_settled();
        w.peers[slow].read_groups(false);
        for sequence in 0..10 {
            w.group(cam, sequence, &[3000, 9000]);
            w.run(ms(100));
        }
        w.run(ms(5000));
        assert_eq!(w.got(sub).len(), 10);
        assert!(w.got(late).is_empty());
        w.peers[slow].read_groups(true);
        w.run(ms(3000));
        assert_eq!(w.got_sorted(late), (0..10).collect::<Vec<_>>(), "{version} {ws:?}");
        w.end();
    }
}

#[test]
fn groups_that_are_stuck_and_old_are_given_up() {
    for home in 0..2 {
        let mut w = world(2);
        w.groups_expire = true;
        let track = homed(PATH, home, 2);
        let cam = w.publisher(Lite06, 0, PATH, &track);
        let slow = w.join(Spec { window: 20_000, ..Spec::new(Lite05, 1) });
        let bob = w.viewer(Lite05, 1);
        let late = w.subscribe(slow, PATH, &track, Preferences { max_age_ms: 2500, ..live() });
        let sub = w.subscribe(bob, PATH, &track, live());
        w.run(ms(200));
        w.peers[slow].read_groups(false);
        for sequence in 0..10 {
            w.group(cam, sequence, &[30_000]);
            w.run(ms(100));
        }
        w.run(ms(1000));
        assert_eq!(w.got(sub).len(), 10);
        w.peers[slow].read_groups(true);
        w.run(ms(2000));
        let got = w.got_sorted(late);
        assert!(got.len() < 10, "{got:?}");
        assert!(got.ends_with(&[7, 8, 9]), "{got:?}");
        w.end();
    }
}

#[test]
fn a_viewer_without_stream_credit_gets_one_group_after_the_other() {
    for version in VERSIONS {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let slow = w.join(Spec { uni_streams: 1, ..Spec::new(version, 1) });
        let sub = w.subscribe(slow, PATH, TRACK, live());
        w.run(ms(200));
        w.all_settled();
        w.peers[slow].read_groups(false);
        (0..12).for_each(|sequence| w.group(cam, sequence, &[700]));
        w.run(ms(1000));
        assert!(w.got(sub).is_empty());
        w.peers[slow].read_groups(true);
        w.run(ms(3000));
        assert_eq!(w.got_sorted(sub), (0..12).collect::<Vec<_>>(), "{version}");
        w.end();
    }
}

#[test]
fn peers_move_to_another_port_in_mid_play() {
    let mut w = world(3);
    let track = homed(PATH, 1, 3);
    let cam = w.publisher(Lite06, 0, PATH, &track);
    let ann = w.viewer(Lite05, 2);
    let sub = w.subscribe(ann, PATH, &track, live());
    w.run(ms(200));
    w.all_settled();
    for sequence in 0..12 {
        w.open_group(cam, sequence);
        w.frame(cam, sequence, 2500);
        w.run(ms(20));
        match sequence % 4 {
            1 => w.rebind(ann),
            2 => w.rebind(cam.peer),
            _ => {}
        }
        w.frame(cam, sequence, 100);
        w.end_group(cam, sequence, End::Finished);
        w.run(ms(1000));
    }
    w.run(ms(5000));
    assert_eq!(w.got_sorted(sub), (0..12).collect::<Vec<_>>());
    w.end();
}

/// A publisher on the only shard, and an audience that takes several turns to serve.
fn crowd(w: &mut World) -> (Track, Vec<Sub>) {
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    let subs = (0..5 * READERS_PER_TURN)
        .map(|at| {
            let viewer = w.viewer(VERSIONS[2 + at % 4], 0);
            w.subscribe(viewer, PATH, TRACK, live())
        })
        .collect();
    w.run(ms(300));
    w.all_settled();
    (cam, subs)
}

/// Whoever else wants something of the shard waits for a part of an audience and not for all of it.
#[test]
fn an_audience_is_served_over_several_turns() {
    let mut w = world(1);
    let (cam, subs) = crowd(&mut w);
    // Nothing leaves: turns that want another one at once have somebody left to serve.
    w.block(0, true);
    w.run(ms(300));
    let before = w.busy_turns(0);
    w.group(cam, 0, &[100]);
    w.run(ms(200));
    assert_eq!(w.busy_turns(0) - before, 4);
    w.block(0, false);
    w.run(ms(2000));
    for sub in subs {
        assert_eq!(w.got(sub), [0]);
    }
    w.end();
}

/// The group comes first, and the shard hears of those who leave between the turns that serve it.
#[test]
fn viewers_leave_while_others_are_served() {
    let mut w = world(1);
    let (cam, subs) = crowd(&mut w);
    w.stall(0, ms(50));
    w.group(cam, 0, &[100]);
    w.run(ms(20));
    let stay = |at: usize| at % 3 == 2;
    for (at, sub) in subs.iter().enumerate() {
        match at % 3 {
            0 => w.leave(*sub),
            1 => w.close(sub.peer),
            _ => {}
        }
    }
    w.run(ms(1000));
    w.group(cam, 1, &[100]);
    w.run(ms(1000));
    for (_, sub) in subs.iter().enumerate().filter(|(at, _)| stay(*at)) {
        assert_eq!(w.got(*sub), [0, 1]);
    }
    w.end();
}

#[test]
fn mail_that_does_not_fit_waits() {
    for lanes in [1, 2, 3] {
        let mut w = World::new(Stage { lanes, ..Stage::new(1, 3) });
        let track = homed(PATH, 1, 3);
        let cam = w.publisher(Lite06, 0, PATH, &track);
        let subs = [0, 1, 2].map(|shard| {
            let viewer = w.viewer(VERSIONS[shard + 1], shard);
            w.subscribe(viewer, PATH, &track, live())
        });
        w.run(ms(300));
        w.all_settled();
        for sequence in 0..40 {
            w.group(cam, sequence, &[10, 2000, 0]);
            if sequence % 10 == 0 {
                w.stall((sequence / 10) as usize % 3, ms(30));
            }
        }
        w.run(ms(2000));
        for sub in subs {
            assert_eq!(w.got_sorted(sub), (0..40).collect::<Vec<_>>());
        }
        w.end();
    }
}

/// A shard that gets no time for half a second, and mail for it that soon fills its lane: viewers of it
/// wait, and those of other shards notice nothing.
#[test]
fn a_shard_that_stalls_holds_up_no_other() {
    const STALL: Duration = Duration::from_millis(500);
    for home in 0..2 {
        let mut w = World::new(Stage { lanes: 64, ..Stage::new(1, 3) });
        let track = homed(PATH, home, 3);
        let cam = w.publisher(Lite06, 0, PATH, &track);
        let viewers = [0, 1, 2].map(|shard| w.viewer(Lite06, shard));
        let subs = viewers.map(|viewer| w.subscribe(viewer, PATH, &track, live()));
        w.run(ms(300));
        w.all_settled();
        let mut made = Vec::new();
        for sequence in 0..400 {
            if sequence == 100 {
                w.stall(2, STALL);
            }
            w.group(cam, sequence, &[800]);
            made.push(w.now);
            w.run(ms(5));
        }
        w.run(ms(2000));
        let late = subs.map(|sub| {
            let late = |(group, made): (usize, &Instant)| {
                w.came(sub, group as u64, 0).map_or(Duration::MAX, |came| came - *made)
            };
            made.iter().enumerate().map(late).max().expect("groups")
        });
        let full: u64 = (0..3).map(|shard| w.counters(shard).full_lanes_total).sum();
        println!(
            "home {home}: shard 2 stalls: viewers are late by {late:?}; {full} times a lane was full"
        );
        assert!(late[0] <= ms(50) && late[1] <= ms(50), "{late:?}");
        assert!(late[2] >= STALL - ms(50) && full > 0, "it did not stall: {late:?}, {full}");
        w.end();
    }
}

/// What one publisher has waiting for a shard that stalls is left out in groups; what another sends, who sends
/// little, waits behind it and is not.
#[test]
fn a_shard_that_stalls_is_spared_most_of_those_who_send_most() {
    const QUIET: u64 = 40;
    // Their home is told by sessions, or tells mirrors.
    for home in 0..2 {
        let mut w = World::new(Stage { lanes: 64, trusts_all: false, ..Stage::new(4, 2) });
        let (loud, quiet) = (homed("loud/cam", home, 2), homed(PATH, home, 2));
        let other = w.publisher(Lite06, 0, "loud/cam", &loud);
        let cam = w.publisher(Lite06, 0, PATH, &quiet);
        let viewers = [0, 1].map(|_| w.viewer(Lite06, 1));
        let heard = w.subscribe(viewers[0], PATH, &quiet, live());
        let loudly = w.subscribe(viewers[1], "loud/cam", &loud, live());
        w.run(ms(300));
        w.all_settled();
        w.stall(1, ms(500));
        for sequence in 0..QUIET {
            for n in 0..60 {
                w.group(other, sequence * 60 + n, &[100]);
            }
            w.group(cam, sequence, &[800]);
            w.run(ms(10));
        }
        w.groups_are_evicted = true;
        w.run(ms(2000));
        let dropped: u64 = (0..2).map(|shard| w.counters(shard).dropped_groups_total).sum();
        println!("{dropped} of {}", QUIET * 60);
        assert!(dropped > 0 && w.got(loudly).len() < QUIET as usize * 60, "nothing was too much");
        assert_eq!(w.got_sorted(heard), (0..QUIET).collect::<Vec<_>>());
        w.end();
    }
}

#[test]
fn datagrams_that_reach_the_wrong_shard_are_passed_on() {
    let mut w = World::new(Stage { strays: 500, ..Stage::new(3, 4) });
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    let ann = w.viewer(Lite05, 3);
    let sub = w.subscribe(ann, PATH, TRACK, live());
    w.run(ms(300));
    w.all_settled();
    (0..10).for_each(|sequence| w.group(cam, sequence, &[4000]));
    // Passed on at once: nobody has to send anything again.
    w.run(ms(60));
    assert_eq!(w.got_sorted(sub), (0..10).collect::<Vec<_>>());
    let misrouted: u64 = (0..4).map(|shard| w.counters(shard).misrouted_datagrams_total).sum();
    assert!(misrouted > 10);
    w.end();
}
