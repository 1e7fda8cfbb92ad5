//! Announcements.

use super::*;

#[test]
fn a_listener_hears_the_present_and_then_every_change() {
    // Hops are there from lite-04 on, and name the relay only where the sender appends itself.
    let table: [(Version, &[&str]); 6] = [
        (Lite01, &["+a", "+b/c", ".", "-a", "+a", "-b/c", "-a"]),
        (Lite02, &["+a", "+b/c", ".", "-a", "+a", "-b/c", "-a"]),
        (Lite03, &["+a", "+b/c", "-a", "+a", "-b/c", "-a"]),
        (Lite04, &["+a [7, 1000]", "+b/c [3, 7, 1000]", "-a", "+a [7, 1000]", "-b/c", "-a"]),
        (Lite05, &["+a [7]", "+b/c [3, 7]", ".", "-a", "+a [7]", "~b/c [3, 4, 7]", "-b/c", "-a"]),
        (
            Lite06,
            &["+a [7] 1", "+b/c [3, 7] 1", ".", "-a", "+a [7] 1", "~b/c [3, 4, 7] 5", "-b/c", "-a"],
        ),
    ];
    for (version, expect) in table {
        let mut w = world(2);
        let cam = w.join(Spec::new(Lite06, 0).hop(7));
        w.peers[cam].announce("a", &[], Cost::ZERO);
        w.peers[cam].announce("b/c", &[3], Cost::ZERO);
        w.run(ms(100));
        let ann = w.viewer(version, 1);
        let listen = w.peers[ann].listen("", 0);
        w.run(ms(1000));
        w.peers[cam].unannounce("a");
        w.run(ms(1000));
        w.peers[cam].announce("a", &[], Cost::ZERO);
        w.run(ms(1000));
        w.peers[cam].announce("b/c", &[3, 4], Cost { warm: 4, cold: 4 });
        w.run(ms(1000));
        w.peers[cam].unannounce("b/c");
        w.run(ms(1000));
        w.close(cam);
        w.run(ms(1000));
        assert_eq!(w.peers[ann].listens[listen].heard, expect, "{version}");
        w.end();
    }
}

#[test]
fn a_listener_hears_what_lies_below_its_prefix() {
    let table: [(&str, &[&str]); 8] = [
        ("", &["live/cam", "live/cam/low", "room"]),
        ("live", &["cam", "cam/low"]),
        ("live/cam", &["", "low"]),
        ("liv", &[]),
        ("live/camera", &[]),
        ("room/7", &[""]),
        (".stats", &["relay"]),
        ("live/.test", &[""]),
    ];
    for version in VERSIONS {
        let mut w = world(2);
        let cam = w.join(Spec::new(version, 0).hop(7));
        for path in ["live/cam", "live/cam/low", "room", ".stats/relay", "live/.test"] {
            w.peers[cam].announce(path, &[], Cost::ZERO);
        }
        w.run(ms(100));
        let ann = w.viewer(version, 1);
        let listens = table.map(|(prefix, _)| w.peers[ann].listen(prefix, 0));
        w.run(ms(200));
        for ((prefix, expect), listen) in table.into_iter().zip(listens) {
            assert_eq!(w.peers[ann].listens[listen].live(), expect, "{version} {prefix:?}");
        }
        w.end();
    }
}

#[test]
fn nobody_is_told_of_what_flows_through_itself() {
    for version in VERSIONS {
        let mut w = world(2);
        // A relay with hop 9 brings what 7 publishes.
        let spec = Spec::new(version, 0).hop(9);
        let other = w.join(spec);
        w.peers[other].announce("a", &[7], Cost::ZERO);
        w.run(ms(100));
        let own = w.peers[other].listen("", 9);
        let listener = |w: &mut World, version, hop| {
            let peer = w.join(Spec::new(version, 1).hop(hop));
            let listen = w.peers[peer].listen("", hop);
            (peer, listen)
        };
        let seven = listener(&mut w, Lite06, 7);
        let eight = listener(&mut w, Lite06, 8);
        let excluded = listener(&mut w, Lite04, 7);
        w.run(ms(200));
        let heard = |(peer, listen): (usize, usize)| w.peers[peer].listens[listen].live();
        assert!(heard((other, own)).is_empty(), "{version}");
        assert_eq!(heard(eight), ["a"], "{version}");
        if version >= Lite04 {
            assert!(heard(seven).is_empty(), "{version}");
            assert!(heard(excluded).is_empty(), "{version}");
            let sub = w.subscribe(seven.0, "a", TRACK, live());
            w.run(ms(200));
            assert_eq!(w.sub(sub).end, Some(End::Reset(StreamCode::UNROUTABLE.0)));
        }
        w.end();
    }
}

#[test]
fn a_peer_that_asks_is_told_what_the_link_is_like() {
    for version in VERSIONS.into_iter().filter(|version| *version >= Lite03) {
        let mut w = world(2);
        let ann = w.viewer(version, 1);
        let is_stated = |setup: &Setup| setup.probe == ProbeLevel::Report;
        assert!(version < Lite05 || w.peers[ann].relay_setup.as_ref().is_some_and(is_stated));
        let probe = w.raw(ann, Dir::Bi, b"\x04", false);
        let told = |w: &World| {
            let mut rest = &w.peers[ann].raws[&probe].received[..];
            let mut told = Vec::new();
            while let Some((report, used)) = Probe::take(version, rest).expect("a report") {
                told.push(report);
                rest = &rest[used..];
            }
            told
        };
        w.run(ms(100));
        let first = told(&w);
        assert_eq!(first.len(), 1, "{version}: {first:?}");
        let latency = w.peers[ann].spec.weather.latency;
        let rtt = 2 * latency.as_millis() as u64;
        let said = if version == Lite03 { 0 } else { first[0].rtt_ms };
        assert!(
            said.abs_diff(if version == Lite03 { 0 } else { rtt }) <= 2,
            "{version}: {first:?}"
        );
        // The first window, 32 packets, in the shortest time that counts as a round trip.
        assert_eq!(first[0].bitrate, 32 * 1200 * 8 * 1000 / 50, "{version}");
        // Nothing is news any more for ten seconds, and then all is.
        w.run(ms(9000));
        assert_eq!(told(&w).len(), 1, "{version}");
        w.run(ms(2000));
        assert_eq!(told(&w).len(), 2, "{version}");
        // The way becomes longer, which pings show.
        w.peers[ann].spec.weather.latency = 12 * latency;
        w.run(ms(30_000));
        let last = *told(&w).last().expect("there were some");
        assert!(last.bitrate < first[0].bitrate / 2, "{version}: {last:?}");
        assert!(version == Lite03 || last.rtt_ms > 2 * rtt, "{version}: {last:?}");
        w.peers[ann].write_raw(probe, b"", true);
        w.run(ms(200));
        assert_eq!(w.peers[ann].raws[&probe].end, Some(End::Finished), "{version}");
        let count = told(&w).len();
        w.run(ms(11_000));
        assert_eq!(told(&w).len(), count, "{version}");
        w.end();
    }
}

#[test]
fn a_publisher_without_a_name_gets_one_and_does_not_hear_itself() {
    let mut w = world(2);
    let cam = w.join(Spec::new(Lite06, 0));
    w.peers[cam].announce(PATH, &[], Cost::ZERO);
    w.run(ms(100));
    let own = w.peers[cam].listen("", 0);
    let ann = w.viewer(Lite05, 1);
    let listen = w.peers[ann].listen("", 0);
    w.run(ms(200));
    assert!(w.peers[cam].listens[own].live().is_empty());
    let heard = &w.peers[ann].listens[listen].heard;
    assert!(heard[0].starts_with("+live/cam [") && heard[0].ends_with(", 0]"), "{heard:?}");
    w.end();
}

#[test]
fn what_has_passed_this_relay_before_leads_nowhere() {
    let mut w = world(2);
    let other = w.join(Spec::new(Lite06, 0).hop(9));
    w.peers[other].announce("a", &[7, HOP], Cost::ZERO);
    w.run(ms(100));
    let ann = w.viewer(Lite05, 1);
    let listen = w.peers[ann].listen("", 0);
    w.run(ms(100));
    assert!(w.peers[ann].listens[listen].live().is_empty());
    // Recorded all the same: it may come back over another way, and it may end.
    w.peers[other].announce("a", &[7], Cost::ZERO);
    w.run(ms(1000));
    assert_eq!(w.peers[ann].listens[listen].live(), ["a"]);
    w.peers[other].announce("a", &[HOP], Cost::ZERO);
    w.run(ms(1000));
    assert!(w.peers[ann].listens[listen].live().is_empty());
    w.peers[other].unannounce("a");
    w.run(ms(100));
    assert!(w.peers[other].is_up());
    w.end();
}

#[test]
fn of_two_publishers_the_cheaper_one_serves_newcomers() {
    let mut w = world(2);
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    let ann = w.viewer(Lite06, 1);
    let listen = w.peers[ann].listen("live", 0);
    let old = w.subscribe(ann, PATH, TRACK, live());
    w.run(ms(200));
    w.group(cam, 0, &[10]);
    w.run(ms(100));

    let setup = Setup { hop: 50, cost: Some(0), ..Setup::default() };
    let peer = w.join(Spec { setup, ..Spec::new(Lite06, 1) });
    w.peers[peer].announce(PATH, &[], Cost::ZERO);
    let cam2 = w.track(peer, PATH, TRACK);
    w.run(ms(1000));
    let new = w.subscribe(ann, PATH, TRACK, live());
    w.run(ms(200));
    w.group(cam, 1, &[20]);
    w.group(cam2, 7, &[30]);
    w.run(ms(100));
    assert_eq!((w.got(old), w.got(new)), (vec![0, 1], vec![7]));

    w.close(peer);
    w.run(ms(1000));
    assert!(matches!(w.sub(new).end, Some(End::Reset(_))));
    assert_eq!(w.sub(old).end, None);
    let heard = ["+cam [7] 1", ".", "~cam [50] 0", "~cam [7] 1"];
    assert_eq!(w.peers[ann].listens[listen].heard, heard);
    w.end();
}

#[test]
fn a_peer_that_only_publishes_hears_nothing_and_one_that_only_views_is_asked_nothing() {
    let mut w = world(2);
    w.publisher(Lite06, 0, PATH, TRACK);
    let with_role =
        |role| Spec { setup: Setup { role, ..Setup::default() }, ..Spec::new(Lite05, 1) };
    let publisher = w.join(with_role(Role::Publisher));
    let listen = w.peers[publisher].listen("", 0);
    let viewer = w.join(with_role(Role::Subscriber));
    w.run(ms(200));
    assert!(w.peers[publisher].listens[listen].live().is_empty());
    assert_eq!(w.peers[publisher].listens[listen].end, None, "the stream stays open");
    assert_eq!(w.peers[publisher].announce_streams().len(), 1);
    assert_eq!(w.peers[viewer].announce_streams().len(), 0);
    w.end();
}
