//! Sessions and tracks that end, and peers that break the rules.

use super::*;

#[test]
fn a_publisher_that_is_lost_ends_nothing_cleanly() {
    for (is_killed, home) in [(true, 0), (true, 1), (false, 0), (false, 1)] {
        let mut w = world(3);
        let track = homed(PATH, home, 3);
        let cam = w.publisher(Lite06, 0, PATH, &track);
        let viewers = VERSIONS.map(|version| w.viewer(version, 2));
        let listens = viewers.map(|viewer| w.peers[viewer].listen("", 0));
        let subs = viewers.map(|viewer| w.subscribe(viewer, PATH, &track, live()));
        w.run(ms(200));
        w.group(cam, 0, &[10]);
        w.open_group(cam, 1);
        w.frame(cam, 1, 100);
        w.run(ms(100));
        if is_killed {
            w.kill(cam.peer);
            w.run(LOSS_NOTICED);
        } else {
            w.close(cam.peer);
            w.run(ms(100));
        }
        for (viewer, (listen, sub)) in viewers.into_iter().zip(listens.into_iter().zip(subs)) {
            let known = w.sub(sub);
            assert!(matches!(known.end, Some(End::Reset(_))), "{:?}", known.end);
            assert!(matches!(known.groups[&1].end, Some(End::Reset(_))));
            assert!(w.peers[viewer].listens[listen].live().is_empty());
        }
        w.end();
    }
}

#[test]
fn a_publisher_that_returns_begins_anew() {
    for (is_killed, hop) in [(true, 7), (true, 8), (false, 7), (false, 8)] {
        let mut w = world(3);
        let track = homed(PATH, 1, 3);
        let cam = w.publisher(Lite06, 0, PATH, &track);
        let ann = w.viewer(Lite05, 2);
        let old = w.subscribe(ann, PATH, &track, live());
        w.run(ms(200));
        w.group(cam, 0, &[10]);
        w.open_group(cam, 1);
        w.frame(cam, 1, 10);
        w.run(ms(100));
        if is_killed {
            w.kill(cam.peer)
        } else {
            w.close(cam.peer)
        }
        w.run(if is_killed { LOSS_NOTICED } else { ms(200) });
        assert!(matches!(w.sub(old).end, Some(End::Reset(_))));

        let peer = w.join(Spec::new(Lite06, 2).hop(hop));
        w.peers[peer].announce(PATH, &[], Cost::ZERO);
        let cam = w.track(peer, PATH, &track);
        w.run(ms(200));
        let new = w.subscribe(ann, PATH, &track, live());
        w.run(ms(200));
        assert!(w.sub(new).groups.is_empty(), "nothing of the former publisher's");
        w.group(cam, 0, &[20]);
        w.group(cam, 1, &[30]);
        w.run(ms(200));
        assert_eq!(w.got_sorted(new), [0, 1]);
        w.end();
    }
}

#[test]
fn a_question_to_a_publisher_that_dies_is_answered() {
    let mut w = world(2);
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    w.source(cam).never_answers = Some(BidiType::Track);
    let ann = w.viewer(Lite05, 1);
    let info = w.peers[ann].ask(PATH, TRACK);
    let sub = w.subscribe(ann, PATH, TRACK, live());
    w.run(ms(200));
    w.kill(cam.peer);
    w.run(LOSS_NOTICED);
    assert!(matches!(w.peers[ann].infos[info].answer, Some(Err(_))));
    assert!(matches!(w.sub(sub).end, Some(End::Reset(_))));
    w.end();
}

#[test]
fn a_viewer_that_is_killed_costs_the_others_nothing() {
    let mut w = world(2);
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    let (ann, bob) = (w.viewer(Lite06, 1), w.viewer(Lite06, 1));
    w.subscribe(ann, PATH, TRACK, live());
    let sub = w.subscribe(bob, PATH, TRACK, live());
    w.run(ms(200));
    w.all_settled();
    w.kill(ann);
    for sequence in 0..30 {
        w.group(cam, sequence, &[2000]);
        w.run(ms(500));
    }
    assert_eq!(w.got(sub).len(), 30);
    let unsubscribed = w.asked(cam.peer).contains(&Asked::Unsubscribe);
    assert!(!unsubscribed, "there is still a viewer");
    w.end();
}

/// What becomes of one who sends bytes on a new stream.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    /// The stream is reset or stopped, and the session goes on.
    StreamDropped,
    StreamServed,
    SessionClosed(u64),
}

#[test]
fn who_breaks_the_rules_pays_alone() {
    use Fate::*;
    let ends = |version: Version, dir: Dir, bytes: &'static [u8], fate: Fate| {
        (version, dir, vec![bytes], fate)
    };
    let closed = SessionClosed(SessionCode::PROTOCOL_VIOLATION.0);
    let table = [
        ends(Lite06, Dir::Uni, b"\x01\x01\x00", closed),
        ends(Lite04, Dir::Uni, b"\x01\x01\x00", StreamDropped),
        ends(Lite06, Dir::Uni, b"\x3f\x00", StreamDropped),
        ends(Lite03, Dir::Uni, b"\x02", StreamDropped),
        ends(Lite06, Dir::Bi, b"\x3f\x00", StreamDropped),
        ends(Lite06, Dir::Bi, b"\x00\x00", StreamDropped),
        ends(Lite06, Dir::Bi, b"\x20\x00\x00", StreamDropped),
        ends(Lite04, Dir::Bi, b"\x06\x03\x01a\x00", StreamDropped),
        ends(Lite04, Dir::Bi, b"\x03\x04\x01a\x00\x00", StreamDropped),
        ends(Lite03, Dir::Bi, b"\x05\x01\x00", StreamDropped),
        // GROUP for an id that nobody subscribed with; a header that is none.
        ends(Lite06, Dir::Uni, b"\x00\x03\x63\x00\x00", StreamDropped),
        ends(Lite06, Dir::Uni, b"\x00\x3f", StreamDropped),
        // Requests with a byte too many or too few, or with bytes after a question.
        ends(Lite06, Dir::Bi, b"\x01\x03\x01a\x00", StreamDropped),
        ends(Lite05, Dir::Bi, b"\x02\x02\x00\x05", StreamDropped),
        ends(Lite06, Dir::Bi, b"\x01\x04\x03*/a", StreamDropped),
        ends(Lite05, Dir::Bi, b"\x06\x0f\x08live/cam\x05video\x00", StreamDropped),
        // A probe says no more than that it is one.
        ends(Lite05, Dir::Bi, b"\x04", StreamServed),
        ends(Lite05, Dir::Bi, b"\x04\x00", StreamDropped),
        ends(Lite06, Dir::Bi, b"\x01\x01\x00", StreamServed),
        ends(Lite06, Dir::Bi, b"\x05\x01\x00", StreamServed),
        (Lite06, Dir::Bi, vec![b"\x05\x01\x00", b"\x05\x01\x00"], closed),
    ];
    let cases = table.iter().flat_map(|case| TRANSPORTS.map(|web| (case, web)));
    for ((version, dir, streams, fate), web) in cases {
        let (version, dir, fate) = (*version, *dir, *fate);
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        // Nobody answers this one, so that a question stays open.
        w.source(cam).never_answers = Some(BidiType::Track);
        let good = w.track(cam.peer, PATH, "good");
        let ann = w.viewer(Lite05, 1);
        let mallory = w.join(Spec { web, ..Spec::new(version, 1) });
        let sub = w.subscribe(ann, PATH, "good", live());
        w.run(ms(200));
        w.all_settled();
        let raws: Vec<u64> =
            streams.iter().map(|bytes| w.raw(mallory, dir, bytes, false)).collect();
        w.run(ms(200));
        w.group(good, 0, &SIZES);
        w.run(ms(200));
        let raw = &w.peers[mallory].raws[raws.last().expect("at least one")];
        let is_dropped = matches!(raw.end, Some(End::Reset(_))) || raw.stopped.is_some();
        let is = match &w.peers[mallory].state {
            State::Over(_, Some(code)) => SessionClosed(*code),
            State::Up if is_dropped => StreamDropped,
            State::Up => StreamServed,
            state => panic!("{state:?}"),
        };
        assert_eq!(is, fate, "{version} {dir:?} {streams:x?}");
        assert_eq!(w.got(sub), [0]);
        assert!(w.peers[ann].is_up() && w.peers[cam.peer].is_up());
        w.end();
    }
}

#[test]
fn a_session_needs_a_setup_and_a_sound_one() {
    let violation = SessionCode::PROTOCOL_VIOLATION.0;
    let table: [(&[u8], u64); 5] = [
        // The same parameter twice; a body too long; too short; not there; text that is none.
        (b"\x01\x05\x02\x00\x00\x00\x00", violation),
        (b"\x01\x02\x00\x00", violation),
        (b"\x01\x05\x00", violation),
        (b"", SessionCode::CONTROL_TIMEOUT.0),
        (b"\x01\x04\x01\x02\x01\xff", violation),
    ];
    for ((raw, expect), web) in table.into_iter().flat_map(|case| TRANSPORTS.map(|web| (case, web)))
    {
        let mut w = world(2);
        let spec = Spec { raw_setup: Some(raw.to_vec()), web, ..Spec::new(Lite05, 1) };
        let mallory = w.join(spec);
        // What is asked before the relay knows who asks gets no answer.
        let listen = w.peers[mallory].is_up().then(|| w.peers[mallory].listen("", 0));
        w.run(SETUP_TIMEOUT + ms(500));
        let State::Over(_, code) = w.peers[mallory].state else { panic!("{raw:x?} was accepted") };
        assert_eq!(code, Some(expect), "{raw:x?}");
        if let Some(listen) = listen {
            assert!(w.peers[mallory].listens[listen].heard.is_empty());
        }
        w.end();
    }
}

#[test]
fn announcements_out_of_order_end_the_session_that_makes_them() {
    let closed = Some(SessionCode::PROTOCOL_VIOLATION.0);
    let table: [(Version, &[u8], Option<u64>); 9] = [
        (Lite06, b"\x01\x01\x2a", closed),
        (Lite06, b"\x02\x04\x2a\x00\x00\x00", closed),
        // The path is announced already.
        (Lite06, b"\x00\x0c\x08live/cam\x00\x00\x00", closed),
        (Lite04, b"\x0b\x01\x08live/cam\x00", closed),
        (Lite03, b"\x0b\x01\x08live/cam\x00", closed),
        (Lite05, b"\x0b\x01\x08live/cam\x00", None),
        (Lite05, b"\x0b\x02\x08live/cam\x00", None),
        (Lite06, b"\x09\x02\xaa\xbb", None),
        (Lite05, b"\x05\x00\x02xx\x00", None),
    ];
    for (version, bytes, expect) in table {
        let mut w = world(2);
        let cam = w.publisher(version, 0, PATH, TRACK);
        let good = w.publisher(Lite06, 1, "good", TRACK);
        let ann = w.viewer(Lite06, 1);
        let sub = w.subscribe(ann, "good", TRACK, live());
        let listen = w.peers[ann].listen("", 0);
        w.run(ms(200));
        let feed = w.peers[cam.peer].announce_streams()[0];
        w.peers[cam.peer].write_raw(feed, bytes, false);
        w.run(ms(500));
        w.group(good, 0, &[1]);
        w.run(ms(200));
        let code = match w.peers[cam.peer].state {
            State::Over(_, code) => code,
            _ => None,
        };
        assert_eq!(code, expect, "{version} {bytes:x?}");
        let live = w.peers[ann].listens[listen].live();
        assert_eq!(live.len(), if expect.is_some() { 1 } else { 2 }, "{version} {bytes:x?}");
        assert_eq!(w.got(sub), [0]);
        w.end();
    }
}

#[test]
fn an_announce_stream_that_ends_takes_its_routes_with_it() {
    for is_clean in [true, false] {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let ann = w.viewer(Lite06, 1);
        let listen = w.peers[ann].listen("", 0);
        w.run(ms(200));
        let feed = w.peers[cam.peer].announce_streams()[0];
        match is_clean {
            true => w.peers[cam.peer].write_raw(feed, b"", true),
            false => w.peers[cam.peer].reset_raw(feed, 1),
        }
        w.run(ms(500));
        assert!(w.peers[ann].listens[listen].live().is_empty());
        assert_eq!(w.peers[cam.peer].is_up(), is_clean);
        w.end();
    }
}

/// The released clients read no group that comes after the end and the last group: who is behind is told the end when
/// all others are there, and who is not at once, also while the last group still grows.
#[test]
fn whoever_knows_the_end_has_all_groups_before_the_last() {
    for (version, is_narrow) in [(Lite05, true), (Lite06, true), (Lite06, false)] {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let down_bytes_per_second = is_narrow.then_some(200_000);
        let weather = Weather { latency: ms(20), down_bytes_per_second, ..Weather::FAIR };
        let viewer = w.join(Spec { weather, ..Spec::new(version, 1) });
        let sub = w.subscribe(viewer, PATH, TRACK, live());
        w.run(ms(300));
        (0..7).for_each(|sequence| w.group(cam, sequence, &[30_000]));
        w.open_group(cam, 7);
        w.frame(cam, 7, 30_000);
        w.finish(cam, 8);
        assert!(w.run_until(ms(10_000), |w| w.sub(sub).track_end.is_some()), "{version:?}");
        assert_eq!(w.sub(sub).track_end, Some(8));
        let got: Vec<u64> = w.got_sorted(sub);
        assert_eq!(got, Vec::from_iter(0..7), "{version:?}, narrow: {is_narrow}");
        w.end_group(cam, 7, End::Finished);
        w.run(ms(2000));
        assert_eq!(w.sub(sub).end, Some(End::Finished));
        w.end();
    }
}
