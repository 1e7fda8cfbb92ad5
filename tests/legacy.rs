//! lite-01 and 02: the SETUP exchange, the session stream, and what those versions lack. Played
//! under a virtual clock, like `sim`, where both of them act in every other play too.

#[path = "support/simulated.rs"]
mod support;

use quinn_proto::Dir;

use Version::{Lite01, Lite02, Lite05, Lite06};
use shardcast::limits::SETUP_TIMEOUT;
use shardcast::wire::*;
use support::peer::*;
use support::world::*;

const PATH: &str = "live/cam";
const TRACK: &str = "video";

const LEGACY: [Version; 2] = [Lite01, Lite02];

/// moq-transport draft-14, which released clients offer last.
const DRAFT_14: u64 = 0xff00_000e;

/// Golden vectors 2 and 3 (spec §6).
const CLIENT_SETUP: [u8; 39] = *b"\x20\x00\x24\x02\xc0\x00\x00\x00\xff\x0d\xad\x02\
    \xc0\x00\x00\x00\xff\x0d\xad\x01\x02\x02\x80\x00\xa4\x55\x07\x0b\
    moq-lite-js";
const SERVER_SETUP_02: [u8; 12] = *b"\x21\x00\x09\xc0\x00\x00\x00\xff\x0d\xad\x02\x00";

fn world(shards: usize) -> World {
    World::new(Stage::new(1, shards))
}

/// A peer that has said nothing yet.
fn mute(w: &mut World, version: Version) -> usize {
    w.join(Spec { raw_setup: Some(Vec::new()), ..Spec::new(version, 1) })
}

fn closed_with(w: &World, peer: usize) -> Option<u64> {
    match w.peers[peer].state {
        State::Over(_, code) => code,
        _ => None,
    }
}

#[test]
fn the_first_version_of_the_client_that_is_spoken_here_is_chosen() {
    let (one, two) = (Lite01.code(), Lite02.code());
    let table: [(Vec<u8>, Version); 6] = [
        (CLIENT_SETUP.to_vec(), Lite02),
        (client_setup(&[one, two]), Lite01),
        (client_setup(&[two, one, DRAFT_14]), Lite02),
        (client_setup(&[DRAFT_14, one]), Lite01),
        // Newer ones have names of their own in TLS.
        (client_setup(&[Lite06.code(), Version::Lite03.code(), two]), Lite02),
        (client_setup(&[one]), Lite01),
    ];
    for (setup, version) in table {
        let mut w = world(2);
        let peer = mute(&mut w, version);
        let stream = w.raw(peer, Dir::Bi, &setup, false);
        w.run(ms(100));
        let mut answer = SERVER_SETUP_02.to_vec();
        answer[10] = version.code() as u8;
        assert_eq!(w.peers[peer].raws[&stream].received, answer, "{setup:x?}");
        // And it is spoken from here on: SUBSCRIBE_OK differs.
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let subscribe = b"\x02\x11\x00\x08live/cam\x05video\x80";
        let stream = w.raw(peer, Dir::Bi, subscribe, false);
        w.run(ms(200));
        let ok: &[u8] = if version == Lite01 { b"\x01\x80" } else { b"\x00" };
        assert_eq!(w.peers[peer].raws[&stream].received, ok, "{setup:x?}");
        w.finish(cam, 0);
        w.run(ms(200));
        assert_eq!(w.peers[peer].raws[&stream].end, Some(End::Finished), "{setup:x?}");
        w.end();
    }
}

#[test]
fn a_setup_that_is_none_ends_the_session() {
    let violation = SessionCode::PROTOCOL_VIOLATION.0;
    let mut with_spare_byte = CLIENT_SETUP.to_vec();
    with_spare_byte[2] += 1;
    with_spare_byte.push(0);
    let mut too_short = CLIENT_SETUP.to_vec();
    too_short[2] -= 1;
    let table: [(&[u8], bool, u64); 9] = [
        (b"\x01\x01\x00", false, violation),
        (b"\x21\x00\x02\x00\x00", false, violation),
        // More versions, and more parameters, than anybody has.
        (b"\x20\x00\x03\x40\x80\x00", false, violation),
        (b"\x20\x00\x04\x00\x40\x80\x00", false, violation),
        (&with_spare_byte, false, violation),
        (&too_short, false, violation),
        (&CLIENT_SETUP[..20], true, violation),
        (b"", true, violation),
        (&client_setup(&[DRAFT_14, 7]), false, SessionCode::VERSION.0),
    ];
    for (setup, fin, code) in table {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let ann = w.viewer(Lite05, 1);
        let sub = w.subscribe(ann, PATH, TRACK, live());
        w.run(ms(200));
        w.all_settled();
        let mallory = mute(&mut w, Lite02);
        w.raw(mallory, Dir::Bi, setup, fin);
        w.run(ms(100));
        assert_eq!(closed_with(&w, mallory), Some(code), "{setup:x?}");
        w.group(cam, 0, &[100]);
        w.run(ms(200));
        assert_eq!(w.got(sub), [0]);
        w.end();
    }
}

#[test]
fn who_says_nothing_in_time_is_let_go() {
    for part in [0, 1, 2, 20, CLIENT_SETUP.len() - 1] {
        for version in LEGACY {
            let mut w = world(2);
            let mallory = mute(&mut w, version);
            let up_at = w.peers[mallory].up_at.expect("it has joined");
            if part > 0 {
                w.raw(mallory, Dir::Bi, &CLIENT_SETUP[..part], false);
                // Whoever asks before is not answered.
                let asked = w.raw(mallory, Dir::Bi, b"\x01\x01\x00", false);
                w.run(up_at + SETUP_TIMEOUT - ms(100) - w.now);
                assert!(w.peers[mallory].is_up(), "{version} {part}");
                assert_eq!(w.peers[mallory].raws[&asked].received, b"");
            }
            w.run(up_at + SETUP_TIMEOUT + ms(100) - w.now);
            let code = closed_with(&w, mallory);
            assert_eq!(code, Some(SessionCode::CONTROL_TIMEOUT.0), "{version} {part}");
            w.end();
        }
    }
}

#[test]
fn requests_before_the_setup_wait_for_it() {
    for version in LEGACY {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, "a", TRACK);
        let setup = client_setup(&[version.code()]);
        let peer = mute(&mut w, version);
        let session = w.raw(peer, Dir::Bi, &setup[..7], false);
        let listen = w.raw(peer, Dir::Bi, b"\x01\x01\x00", false);
        w.run(ms(500));
        assert_eq!(w.peers[peer].raws[&listen].received, b"");
        w.peers[peer].write_raw(session, &setup[7..], false);
        w.run(ms(200));
        assert_eq!(w.peers[peer].raws[&listen].received, b"\x03\x01\x01a", "{version}");
        // It has lived longer than a peer without SETUP would.
        w.run(SETUP_TIMEOUT);
        w.close(cam.peer);
        w.run(ms(200));
        assert_eq!(w.peers[peer].raws[&listen].received, b"\x03\x01\x01a\x03\x00\x01a");
        w.end();
    }
}

#[test]
fn the_session_ends_with_its_stream_and_not_before() {
    for version in LEGACY {
        for is_reset in [false, true] {
            let mut w = world(2);
            let cam = w.publisher(version, 0, PATH, TRACK);
            let ann = w.viewer(Lite06, 1);
            let listen = w.peers[ann].listen("", 0);
            let session = w.peers[cam.peer].session_stream.expect("it has joined");
            // SESSION_INFO, in any pieces, is no news to the relay.
            for part in [&b"\x04\x80\x4c"[..], b"\x4b\x40\x01\x00\x01", b"\x07"] {
                w.peers[cam.peer].write_raw(session, part, false);
                w.run(ms(100));
            }
            assert!(w.peers[cam.peer].is_up() && w.peers[cam.peer].is_answered);
            assert_eq!(w.peers[ann].listens[listen].live(), [PATH]);
            match is_reset {
                true => w.peers[cam.peer].reset_raw(session, 0),
                false => w.peers[cam.peer].write_raw(session, b"", true),
            }
            w.run(ms(200));
            assert_eq!(closed_with(&w, cam.peer), Some(SessionCode::NO_ERROR.0), "{version}");
            assert!(w.peers[ann].listens[listen].live().is_empty(), "{version}");
            w.end();
        }
    }
}

#[test]
fn what_is_no_session_info_and_a_second_setup_end_the_session() {
    let violation = Some(SessionCode::PROTOCOL_VIOLATION.0);
    for version in LEGACY {
        for bytes in [&b"\x02\x00\x00"[..], b"\x00", b"\x80\x01\x00\x01"] {
            let mut w = world(1);
            let mallory = w.viewer(version, 0);
            let session = w.peers[mallory].session_stream.expect("it has joined");
            w.peers[mallory].write_raw(session, bytes, false);
            w.run(ms(100));
            assert_eq!(closed_with(&w, mallory), violation, "{version} {bytes:x?}");
            w.end();
        }
        let mut w = world(1);
        let mallory = w.viewer(version, 0);
        w.raw(mallory, Dir::Bi, &CLIENT_SETUP, false);
        w.run(ms(100));
        assert_eq!(closed_with(&w, mallory), violation, "{version}");
        w.end();
    }
}

#[test]
fn streams_that_those_versions_lack_are_dropped() {
    let table: [(Dir, &[u8]); 7] = [
        (Dir::Bi, b"\x00\x00"),
        (Dir::Bi, b"\x03\x0d\x08live/cam\x05video\x03\x07"),
        (Dir::Bi, b"\x04"),
        (Dir::Bi, b"\x05\x01\x00"),
        (Dir::Bi, b"\x06\x0f\x08live/cam\x05video"),
        (Dir::Uni, b"\x01\x01\x00"),
        (Dir::Uni, b"\x00\x02\x63\x00"),
    ];
    for version in LEGACY {
        let mut w = world(1);
        let mallory = w.viewer(version, 0);
        for (dir, bytes) in table {
            let stream = w.raw(mallory, dir, bytes, false);
            w.run(ms(100));
            let raw = &w.peers[mallory].raws[&stream];
            assert_eq!(raw.stopped, Some(StreamCode::CANCEL.0), "{version} {bytes:x?}");
            assert_eq!(raw.received, b"", "{version} {bytes:x?}");
        }
        assert!(w.peers[mallory].is_up(), "{version}");
        w.end();
    }
}

/// Golden vectors 12 and 14.
#[test]
fn the_first_word_to_a_listener_is_the_whole_set() {
    for version in LEGACY {
        let mut w = world(2);
        let ann = w.viewer(version, 1);
        let listens = [b"\x01\x01\x00", b"\x01\x01\x00"];
        let early = w.raw(ann, Dir::Bi, listens[0], false);
        w.run(ms(100));
        assert_eq!(w.peers[ann].raws[&early].received, b"\x01\x00", "{version}");
        let cam = w.join(Spec::new(Lite06, 0).hop(7));
        for path in ["a", "b/c"] {
            w.peers[cam].announce(path, &[], Cost::ZERO);
        }
        w.run(ms(100));
        let late = w.raw(ann, Dir::Bi, listens[1], false);
        w.run(ms(100));
        let set = b"\x07\x02\x01a\x03b/c";
        assert_eq!(w.peers[ann].raws[&late].received, set, "{version}");
        w.peers[cam].announce("cam", &[], Cost::ZERO);
        w.run(ms(100));
        assert_eq!(w.peers[ann].raws[&late].received[set.len()..], *b"\x05\x01\x03cam");
        w.end();
    }
}

#[test]
fn a_set_that_names_a_path_twice_ends_the_session() {
    for version in LEGACY {
        let mut w = world(1);
        let mallory = w.join(Spec { is_rude: true, ..Spec::new(version, 0) });
        let ann = w.viewer(Lite06, 0);
        let listen = w.peers[ann].listen("", 0);
        let feed = w.peers[mallory].announce_streams()[0];
        // The set was empty; what follows is one announcement that is there already.
        w.peers[mallory].write_raw(feed, b"\x03\x01\x01a\x03\x01\x01a", false);
        w.run(ms(100));
        let violation = Some(SessionCode::PROTOCOL_VIOLATION.0);
        assert_eq!(closed_with(&w, mallory), violation, "{version}");
        assert!(w.peers[ann].listens[listen].live().is_empty(), "{version}");
        w.end();
    }
}

#[test]
fn an_old_publisher_is_asked_once_and_left_at_once() {
    for version in LEGACY {
        for home in 0..2 {
            let mut w = world(2);
            let track = homed(PATH, home, 2);
            let cam = w.publisher(version, 0, PATH, &track);
            let viewers = [Lite06, Lite05, version].map(|version| w.viewer(version, 1));
            let subs = viewers.map(|viewer| w.subscribe(viewer, PATH, &track, live()));
            w.run(ms(200));
            w.all_settled();
            // What they want changes, and there is no way to say so.
            let wanted = Preferences { priority: 200, max_age_ms: 100, ..range(0, 3) };
            w.update(subs[0], wanted);
            w.run(ms(200));
            w.update(subs[0], live());
            w.run(ms(200));
            (0..3).for_each(|sequence| w.group(cam, sequence, &[10, 0, 2000]));
            w.run(ms(200));
            for sub in subs {
                assert_eq!(w.got_sorted(sub), [0, 1, 2], "{version}");
            }
            let unsaid = Preferences { max_age_ms: MAX_AGE_MS_UNBOUNDED, ..live() };
            let asked = Asked::Subscribe(track.clone(), unsaid);
            assert_eq!(w.asked(cam.peer), std::slice::from_ref(&asked), "{version}");
            // Whoever cannot be told to wait is not kept waiting: no linger.
            subs.into_iter().for_each(|sub| w.leave(sub));
            w.run(ms(200));
            assert_eq!(w.asked(cam.peer), [Asked::Unsubscribe], "{version}");
            let again = w.subscribe(viewers[1], PATH, &track, live());
            w.run(ms(200));
            w.all_settled();
            assert_eq!(w.asked(cam.peer), [asked], "{version}");
            w.group(cam, 3, &[5]);
            w.run(ms(200));
            assert_eq!(w.got(again).last(), Some(&3), "{version}");
            w.end();
        }
    }
}

#[test]
fn an_update_of_a_javascript_client_changes_nothing() {
    for version in LEGACY {
        let mut w = world(2);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let ann = w.viewer(version, 1);
        let subscribe = b"\x02\x11\x00\x08live/cam\x05video\x80";
        let stream = w.raw(ann, Dir::Bi, subscribe, false);
        w.run(ms(200));
        let asked = w.asked(cam.peer);
        // A bare priority, and whatever else somebody may think of.
        for update in [&b"\x01\xc8"[..], b"\x01", b"\x03\x05\xff\xff\xff\xff\xff"] {
            w.peers[ann].write_raw(stream, update, false);
            w.run(ms(100));
        }
        assert_eq!((asked.len(), w.asked(cam.peer)), (2, vec![]), "{version}");
        let raw = &w.peers[ann].raws[&stream];
        assert_eq!((raw.end, raw.stopped), (None, None), "{version}");
        w.peers[ann].write_raw(stream, b"", true);
        w.run(ms(100));
        assert_eq!(w.peers[ann].raws[&stream].end, Some(End::Finished), "{version}");
        w.end();
    }
}

#[test]
fn who_was_wanted_up_to_somewhere_brings_all_and_viewers_get_what_they_want() {
    for version in LEGACY {
        let mut w = world(2);
        let cam = w.publisher(version, 0, PATH, TRACK);
        (0..3).for_each(|sequence| w.group(cam, sequence, &[5]));
        let (ann, bob) = (w.viewer(Lite06, 1), w.viewer(Lite05, 0));
        let some = w.subscribe(ann, PATH, TRACK, range(3, 4));
        w.run(ms(200));
        let all = w.subscribe(bob, PATH, TRACK, live());
        w.run(ms(200));
        w.all_settled();
        (3..7).for_each(|sequence| w.group(cam, sequence, &[10, 20]));
        w.run(ms(200));
        assert_eq!(w.got_sorted(some), [3, 4], "{version}");
        assert!(w.got_sorted(all).ends_with(&[2, 3, 4, 5, 6]), "{version}");
        // That somebody wants more of the past does not bring it, so nobody waits for it.
        w.leave(all);
        w.update(some, range(1, 4));
        w.run(ms(100));
        let get = w.fetch(ann, PATH, TRACK, whole(1));
        w.run(ms(100));
        let end = Some(End::Reset(StreamCode::NOT_FOUND.0));
        assert_eq!(w.outcome(get), (0, end), "{version}");
        w.end();
    }
}
