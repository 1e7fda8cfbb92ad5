//! Datagrams.

use super::*;

#[test]
fn datagrams_reach_every_viewer_that_can_take_them_as_datagrams() {
    for shards in 1..=4 {
        for home in 0..shards {
            let mut w = world(shards);
            let track = homed(PATH, home, shards);
            let is_second = home % 2 == 1;
            let web = Some(Manner { is_eager: false, is_second });
            let spec = Spec { web, ..Spec::new(Lite05, 0).hop(7) };
            let cam = w.publisher_like(spec, PATH, &track);
            let mut subs = Vec::new();
            for shard in 0..shards {
                let all = [
                    (Spec::new(Lite05, shard).web(), live()),
                    (Spec { web, ..Spec::new(Lite06, shard) }, live()),
                    (Spec::new(Lite06, shard), range(4, 12)),
                    (Spec::new(Lite05, shard), live()),
                    (Spec::new(Lite04, shard).web(), live()),
                    (Spec::new(Lite01, shard), live()),
                ];
                for (spec, wanted) in all {
                    let version = spec.version;
                    let peer = w.join(spec);
                    subs.push((version, wanted, w.subscribe(peer, PATH, &track, wanted)));
                }
            }
            w.run(ms(300));
            w.all_settled();
            let (groups, datagrams): (Vec<u64>, Vec<u64>) = (0..24).partition(|n| n % 5 == 0);
            for sequence in 0..24 {
                match groups.contains(&sequence) {
                    true => w.group(cam, sequence, &SIZES),
                    false => w.datagram(cam, sequence, [0, 1, 1000, 300][sequence as usize % 4]),
                }
            }
            // One is sent again, and one that is too large for any wire is nobody's loss.
            w.datagram(cam, 1, 1);
            w.datagram(cam, 24, 1400);
            w.run(ms(500));
            for (version, wanted, sub) in subs {
                let within = |all: &[u64]| -> Vec<u64> {
                    all.iter().copied().filter(|n| covers(&wanted, *n)).collect()
                };
                let who = format!("{shards} shards, home {home}, {version} {wanted:?}");
                assert_eq!(w.got_sorted(sub), within(&groups), "{who}");
                let mut expect = if version >= Lite05 { within(&datagrams) } else { Vec::new() };
                if expect.contains(&1) {
                    expect.insert(0, 1);
                }
                assert_eq!(w.heard(sub), expect, "{who}");
            }
            w.end();
        }
    }
}

#[test]
fn a_flood_of_datagrams_starves_no_group() {
    for spec in [Spec::new(Lite06, 1), Spec::new(Lite05, 1).web()] {
        let mut w = world(2);
        let swift = Spec { is_swift: true, ..Spec::new(Lite06, 0).hop(7).web() };
        let cam = w.publisher_like(swift, PATH, TRACK);
        // 4 Mb/s to the viewer.
        let weather = Weather { down_bytes_per_second: Some(500_000), ..Weather::FAIR };
        let ann = w.join(Spec { weather, ..spec });
        let sub = w.subscribe(ann, PATH, TRACK, live());
        w.run(ms(200));
        w.all_settled();
        let (mut next, mut made) = (0, Vec::new());
        let made_since = w.now;
        for round in 0..400 {
            // Groups want a third of the link, datagrams twice of it.
            if round % 10 == 0 {
                w.group(cam, next, &[3000, 10, 9000, 5000]);
                made.push((next, w.now));
                next += 1;
            }
            for _ in 0..10 {
                w.datagram(cam, next, 1000);
                next += 1;
            }
            w.run(ms(10));
        }
        w.run(ms(2000));
        for (sequence, at) in made {
            let seen = &w.sub(sub).groups[&sequence];
            assert_eq!(seen.end, Some(End::Finished), "group {sequence}");
            let took = seen.ended_at.expect("it has ended") - at;
            // What has come before the link is known to be full is worked off beside what comes then.
            let most = if at - made_since < ms(1000) { ms(2000) } else { ms(800) };
            assert!(took < most, "group {sequence} took {took:?}");
        }
        // And the other way round: a quarter of the link is theirs.
        let heard = w.heard(sub).len();
        assert!(heard > 500, "{heard} datagrams");
        w.end();
    }
}

/// On a link that loses 2 % although it is not full, control by loss holds back what would fit:
/// groups come too late to be wanted. Control by delay has every frame there in time.
#[test]
fn delay_is_not_misled_by_random_loss() {
    let lossy = Weather {
        latency: ms(40),
        jitter: ms(10),
        lost_down: 20,
        lost_up: 20,
        down_bytes_per_second: Some(1_000_000),
        ..Weather::FAIR
    };
    let slowest = |congestion_control| {
        let mut w = World::new(Stage { congestion_control, ..Stage::new(3, 1) });
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let ann = w.join(Spec { weather: lossy, ..Spec::new(Lite06, 0) });
        let sub = w.subscribe(ann, PATH, TRACK, live());
        w.run(ms(1000));
        let mut sent = Vec::new();
        for group in 0..8 {
            w.open_group(cam, group);
            for frame in 0..60 {
                w.frame(cam, group, 4096);
                sent.push((group, frame, w.now));
                w.run(Duration::from_secs(1) / 60);
            }
            w.end_group(cam, group, End::Finished);
        }
        w.run(ms(4000));
        let late = |(group, frame, sent)| match w.came(sub, group, frame) {
            Some(came) => came.duration_since(sent),
            None => Duration::MAX,
        };
        sent.into_iter().map(late).max().expect("some were sent")
    };
    let (loss, delay) = (slowest(CongestionControl::Loss), slowest(CongestionControl::Delay));
    assert!(delay < ms(500), "{delay:?}");
    assert!(loss > ms(1000), "{loss:?}: the link is too good for this play");
}
