//! One rule each.

use std::time::Duration;

use bytes::Bytes;
use shardcast::limits::*;
use shardcast::mux::ws::Opcode;
use shardcast::mux::{Frame, Parameters, Wire};
use shardcast::session::streams::{Event, ReadEnd, StreamId, Streams, WriteEnd};
use shardcast::wire::{SessionCode, StreamCode};

use crate::support::*;

const WIRES: [Wire; 3] = [Wire::Qmux00, Wire::Qmux01, Wire::Qmux02];

fn chunk(bytes: usize) -> [Bytes; 1] {
    [vec![7; bytes].into()]
}

/// Bytes of streams among what was sent, with their order.
fn told(sent: &[Sent]) -> Vec<(u64, usize, bool)> {
    let told = |sent: &Sent| match sent {
        Sent::Bytes { id, data, is_last } => Some((*id, data.len(), *is_last)),
        _ => None,
    };
    sent.iter().filter_map(told).collect()
}

fn read(play: &mut Play, id: u64) -> (Vec<u8>, ReadEnd) {
    let mut got = Vec::new();
    let end = play.mux.read(StreamId(id), 1 << 20, &mut |part| got.extend_from_slice(part));
    (got, end)
}

fn opened(id: u64) -> Event {
    Event::Opened(StreamId(id))
}

#[test]
fn nothing_but_parameters_leaves_before_the_peer_allows_anything() {
    for wire in WIRES {
        let mut play = Play::new(wire);
        assert_eq!((play.mux.open_uni(), play.mux.open_bidi()), (None, None));
        let sent = play.sent();
        assert!(matches!(&sent[..], [Sent::Frame(frame)] if frame.starts_with("Parameters")));
        let parameters = Parameters { max_streams_uni: 1, ..Parameters::default() };
        play.says(&[Frame::Parameters(parameters)]);
        assert_eq!(play.events(), [Event::Available { uni: true }]);
        let id = play.mux.open_uni().unwrap();
        assert_eq!((id, play.mux.open_uni()), (StreamId(3), None));
        assert_eq!(play.mux.write(id, &mut chunk(10)), WriteEnd::All);
        assert_eq!(play.sent(), []);
        play.says(&[Frame::MaxStreamData { id, max: 4 }]);
        assert_eq!(play.sent(), [], "the connection has no credit");
        play.says(&[Frame::MaxData(100)]);
        assert_eq!(told(&play.sent()), [(3, 4, false)]);
        play.says(&[Frame::MaxStreams { is_uni: true, max: 2 }]);
        assert_eq!(play.events(), [Event::Available { uni: true }]);
        play.says(&[Frame::MaxStreams { is_uni: true, max: 3 }]);
        assert_eq!(play.events(), [], "nobody waits");
        assert!(play.lost().is_none());
    }
}

/// Only draft 02 is strict, and only its clients are.
#[test]
fn parameters_come_first_and_once_in_draft_02() {
    for (wire, is_strict) in [(Wire::Qmux00, false), (Wire::Qmux01, false), (Wire::Qmux02, true)] {
        let mut play = Play::new(wire);
        play.says(&[Frame::Nothing, bytes(0, b"early", false)]);
        assert_eq!(play.lost().is_some(), is_strict);
        let mut play = Play::begun(wire);
        play.says(&[Frame::Parameters(Parameters { max_data: 1, ..generous() })]);
        assert_eq!(play.lost().is_some(), is_strict);
    }
    // What was opened early may be answered once there is credit.
    let mut play = Play::new(Wire::Qmux01);
    play.says(&[bytes(0, b"early", true)]);
    play.sent();
    assert_eq!(play.mux.write(StreamId(0), &mut chunk(3)), WriteEnd::All);
    assert_eq!(play.sent(), []);
    play.says(&[Frame::Parameters(generous())]);
    assert_eq!(told(&play.sent()), [(0, 3, false)]);
}

#[test]
fn credit_is_kept_to() {
    let parameters = Parameters { max_data: 50_000, max_stream_data_uni: 20_000, ..generous() };
    let mut play = Play::allowing(Wire::Qmux01, parameters);
    let ids = [0; 3].map(|_| play.mux.open_uni().unwrap());
    for id in ids {
        assert_eq!(play.mux.write(id, &mut chunk(30_000)), WriteEnd::All);
    }
    let total = |sent: &[Sent]| told(sent).iter().map(|(_, bytes, _)| bytes).sum::<usize>();
    assert_eq!(total(&play.sent()), 50_000);
    play.says(&[Frame::MaxData(70_000)]);
    assert_eq!(total(&play.sent()), 10_000, "no stream has more");
    play.says(&[Frame::MaxStreamData { id: ids[2], max: 40_000 }]);
    assert_eq!(told(&play.sent()), [(ids[2].0, 10_000, false)]);
    // A limit that is lower takes nothing away.
    play.says(&[Frame::MaxData(1), Frame::MaxStreamData { id: ids[2], max: 1 }]);
    play.mux.finish(ids[2]);
    assert_eq!(told(&play.sent()), [(ids[2].0, 0, true)], "an end needs no credit");
    assert_eq!(play.events(), [Event::Finished(ids[2])]);
    assert_eq!(play.lost(), None);
}

#[test]
fn who_is_most_urgent_goes_first_and_equals_take_turns() {
    let mut play = Play::begun(Wire::Qmux02);
    let [old, new, control, other] = [0; 4].map(|_| play.mux.open_uni().unwrap());
    for (id, priority) in [(old, 1), (new, 2), (control, i32::MAX), (other, 1)] {
        play.mux.set_priority(id, priority);
        assert_eq!(play.mux.write(id, &mut chunk(20_000)), WriteEnd::All);
    }
    let order: Vec<u64> = told(&play.sent_once(1)).iter().map(|(id, ..)| *id).collect();
    assert_eq!(order, [control.0], "one message at a time");
    let order: Vec<u64> = told(&play.sent()).iter().map(|(id, ..)| *id).collect();
    let [old, new, control, other] = [old, new, control, other].map(|id| id.0);
    let mut turns = order.clone();
    turns.dedup();
    assert_eq!(turns[..3], [control, new, old]);
    assert!(turns[3] == other && turns[4] == old, "{order:?}");
    // What becomes more urgent while it waits leaves sooner.
    for id in [old, other] {
        let _ = play.mux.write(StreamId(id), &mut chunk(5_000));
    }
    play.mux.set_priority(StreamId(other), 3);
    assert_eq!(told(&play.sent()).first(), Some(&(other, 5_000, false)));
}

#[test]
fn a_reset_drops_what_waits() {
    for wire in WIRES {
        let mut play = Play::begun(wire);
        let id = play.mux.open_uni().unwrap();
        assert_eq!(play.mux.write(id, &mut chunk(60_000)), WriteEnd::All);
        let sent = told(&play.sent_once(1))[0].1;
        assert!(sent < 20_000);
        play.mux.reset(id, StreamCode::OLD);
        assert_eq!(play.mux.write(id, &mut chunk(1)), WriteEnd::Stopped);
        let reset = Frame::Reset { id, code: 0x34, final_size: sent as u64 };
        assert_eq!(play.sent(), [Sent::Frame(format!("{reset:?}"))]);
        play.mux.reset(id, StreamCode::CANCEL);
        assert_eq!(play.sent(), [], "once is enough");
        assert_eq!(play.mux.streams(), 0);
        // A stream that never said anything was opened all the same.
        let id = play.mux.open_uni().unwrap();
        play.mux.reset(id, StreamCode::OLD);
        assert_eq!(play.sent().len(), 1);
    }
}

#[test]
fn the_peer_stops_a_stream() {
    let mut play = Play::begun(Wire::Qmux01);
    let id = play.mux.open_uni().unwrap();
    assert_eq!(play.mux.write(id, &mut chunk(1000)), WriteEnd::All);
    play.says(&[Frame::Stop { id, code: 0 }, Frame::Stop { id, code: 0 }]);
    assert_eq!(play.events(), [Event::Stopped(id)]);
    assert_eq!(play.sent(), [], "what waited is dropped");
    assert_eq!(play.mux.write(id, &mut chunk(1)), WriteEnd::Stopped);
    play.mux.finish(id);
    let reset = Frame::Reset { id, code: 1, final_size: 0 };
    assert_eq!(play.sent(), [Sent::Frame(format!("{reset:?}"))]);
    play.says(&[Frame::Stop { id, code: 0 }]);
    assert_eq!((play.events(), play.mux.streams()), (vec![], 0));
}

#[test]
fn streams_of_the_peer_are_read_to_their_end() {
    for wire in WIRES {
        let mut play = Play::begun(wire);
        play.says(&[bytes(2, b"ab", false), bytes(2, b"c", true), bytes(0, b"x", false)]);
        assert_eq!(play.events(), [opened(2), opened(0)], "what came since is not told again");
        assert_eq!(read(&mut play, 2), (b"abc".to_vec(), ReadEnd::Finished));
        assert_eq!(read(&mut play, 0), (b"x".to_vec(), ReadEnd::Pending));
        play.says(&[bytes(2, b"late", true), bytes(0, b"y", false), bytes(0, b"z", false)]);
        assert_eq!(play.events(), [Event::Readable(StreamId(0))]);
        let mut first = Vec::new();
        let end = play.mux.read(StreamId(0), 1, &mut |part| first.extend_from_slice(part));
        assert_eq!((&first[..], end), (&b"y"[..], ReadEnd::More));
        // A reset takes what is unread, and states no size with some peers.
        play.says(&[Frame::Reset { id: StreamId(0), code: 0x34, final_size: 0 }]);
        assert_eq!(read(&mut play, 0), (vec![], ReadEnd::Reset(StreamCode::OLD)));
        play.mux.finish(StreamId(0));
        assert_eq!(told(&play.sent()), [(0, 0, true)]);
        assert_eq!(play.mux.streams(), 0);
        assert_eq!(play.lost(), None);
    }
}

#[test]
fn a_stream_above_others_opens_those_below() {
    let mut play = Play::begun(Wire::Qmux02);
    play.says(&[bytes(4 * 3 + 2, b"d", true), bytes(4 + 2, b"b", true)]);
    assert_eq!(play.events(), [opened(14), opened(6)]);
    for id in [14, 6] {
        assert_eq!(read(&mut play, id).1, ReadEnd::Finished);
    }
    // Those that are over stay so.
    play.says(&[bytes(14, b"d", false), bytes(6, b"b", true), bytes(2, b"a", true)]);
    assert_eq!(play.events(), [opened(2)]);
    assert_eq!(play.lost(), None);
}

#[test]
fn what_we_stop_is_dropped_until_the_peer_ends_it() {
    let mut play = Play::begun(Wire::Qmux01);
    play.says(&[bytes(2, &[0; 30_000], false)].map(|frame| split(frame)).concat());
    play.events();
    play.mux.stop(StreamId(2), StreamCode::CANCEL);
    play.mux.stop(StreamId(2), StreamCode::OLD);
    let stop = Frame::Stop { id: StreamId(2), code: 1 };
    assert_eq!(play.sent(), [Sent::Frame(format!("{stop:?}"))]);
    // It counts as read: the connection goes on.
    for _ in 0..10 {
        play.says(&split(bytes(2, &[0; 10_000], false)));
        play.sent();
    }
    assert_eq!((play.lost(), read(&mut play, 2)), (None, (vec![], ReadEnd::Pending)));
    play.says(&[Frame::Reset { id: StreamId(2), code: 0, final_size: 0 }]);
    assert_eq!((play.mux.streams(), play.events()), (0, vec![]));
    // One that has come whole needs no word.
    play.says(&[bytes(6, b"all", true)]);
    play.mux.stop(StreamId(6), StreamCode::CANCEL);
    let max = Frame::MaxStreams { is_uni: true, max: STREAMS_UNI_START + 2 };
    assert_eq!((play.sent(), play.mux.streams()), (vec![Sent::Frame(format!("{max:?}"))], 0));
}

/// In frames that fit a message.
fn split(frame: Frame<'_>) -> Vec<Frame<'_>> {
    let Frame::Stream { id, data, is_last } = frame else { return vec![frame] };
    let count = data.len().div_ceil(8_000);
    let parts = data.chunks(8_000).enumerate();
    parts.map(|(n, data)| Frame::Stream { id, data, is_last: is_last && n + 1 == count }).collect()
}

#[test]
fn credit_is_given_again_for_what_was_read() {
    let mut play = Play::begun(Wire::Qmux01);
    let half = RECEIVE_WINDOW_START as usize / 2;
    play.says(&split(bytes(2, &vec![1; half - 1], false)));
    assert_eq!(play.sent(), [], "nothing was read");
    assert_eq!(read(&mut play, 2).0.len(), half - 1);
    assert_eq!(play.sent(), [], "less than half");
    play.says(&[bytes(2, b"1", false)]);
    read(&mut play, 2);
    let max = Frame::MaxData(u64::from(RECEIVE_WINDOW_START) + half as u64);
    assert_eq!(play.sent(), [Sent::Frame(format!("{max:?}"))]);
    // A publisher has more, as far as that is granted.
    play.mux.expect_groups();
    let now = play.now;
    play.mux.grow(now, &mut |_| false);
    assert_eq!(play.sent(), []);
    let mut granted = 0;
    play.mux.grow(now, &mut |bytes| {
        granted += bytes;
        true
    });
    assert_eq!(
        granted,
        u64::from(RECEIVE_WINDOW_PUBLISHER - RECEIVE_WINDOW_START)
            + (STREAMS_UNI_PUBLISHER - STREAMS_UNI_START) * STREAM_BYTES
    );
    let max = [
        Frame::MaxData(u64::from(RECEIVE_WINDOW_PUBLISHER) + half as u64),
        Frame::MaxStreams { is_uni: true, max: STREAMS_UNI_PUBLISHER },
    ];
    assert_eq!(play.sent(), max.map(|max| Sent::Frame(format!("{max:?}"))));
}

#[test]
fn streams_that_are_over_make_room_for_others() {
    let mut play = Play::begun(Wire::Qmux01);
    for index in 0..2000 {
        play.says(&[bytes(4 * index + 2, b"g", true)]);
        assert_eq!(play.events(), [opened(4 * index + 2)]);
        assert_eq!(read(&mut play, 4 * index + 2).1, ReadEnd::Finished);
        play.sent();
    }
    assert_eq!((play.lost(), play.mux.streams()), (None, 0));
    // Half of what it may have open is open: it may have twice as many.
    for index in 2000..2000 + STREAMS_UNI_START / 2 {
        play.says(&[bytes(4 * index + 2, b"g", false)]);
    }
    let (now, mut granted) = (play.now, 0);
    play.mux.grow(now, &mut |bytes| {
        granted += bytes;
        true
    });
    assert_eq!(granted, STREAMS_UNI_START * STREAM_BYTES);
}

/// What is newest begins, however much of what is older waits.
#[test]
fn a_stream_that_waits_for_others_may_begin() {
    let parameters = Parameters { max_data: 0, ..generous() };
    let mut play = Play::allowing(Wire::Qmux01, parameters);
    let mut ids = Vec::new();
    for _ in 0..40 {
        let id = play.mux.open_uni().unwrap();
        let WriteEnd::Blocked(taken) = play.mux.write(id, &mut chunk(1 << 20)) else {
            panic!("all of it was taken")
        };
        assert!((MUX_STREAM_QUEUE_BYTES_MIN..=MUX_STREAM_QUEUE_BYTES).contains(&taken), "{taken}");
        assert_eq!(play.mux.write(id, &mut chunk(1)), WriteEnd::Blocked(0));
        ids.push(id);
    }
    let newest = ids[39];
    play.mux.set_priority(newest, 9);
    play.says(&[Frame::MaxData(MUX_STREAM_QUEUE_BYTES_MIN as u64)]);
    let sent = told(&play.sent());
    assert!(sent.iter().all(|(id, ..)| *id == newest.0), "{sent:?}");
    assert_eq!(play.events(), [Event::Writable(newest)]);
    assert_eq!(
        play.mux.write(newest, &mut chunk(1 << 20)),
        WriteEnd::Blocked(MUX_STREAM_QUEUE_BYTES_MIN)
    );
    // All go on in the end.
    play.says(&[Frame::MaxData(1 << 40)]);
    play.sent();
    let writable = play.events();
    assert_eq!(writable.len(), 40, "{writable:?}");
}

#[test]
fn datagrams_go_both_ways_where_there_are_any() {
    for wire in WIRES {
        let mut play = Play::begun(wire);
        play.mux.send_datagram(b"he", b"llo");
        let datagram = Sent::Frame(format!("{:?}", Frame::Datagram(b"hello")));
        let has_any = wire != Wire::Qmux00;
        assert_eq!(play.sent(), if has_any { vec![datagram] } else { vec![] });
        play.says(&[Frame::Datagram(b"dog")]);
        match has_any {
            true => assert_eq!(play.events(), [Event::Datagram(Bytes::from_static(b"dog"))]),
            false => assert!(play.lost().unwrap().contains("no known kind")),
        }
    }
    let mut play =
        Play::allowing(Wire::Qmux01, Parameters { max_datagram_frame_size: 100, ..generous() });
    play.mux.send_datagram(&[0; 50], &[0; 50]);
    assert_eq!(play.sent(), [], "too large for this peer");
    // Of more than may wait the oldest are lost.
    let mut play = Play::begun(Wire::Qmux01);
    (0..100_u8).for_each(|n| play.mux.send_datagram(&[n], &[0; 999]));
    let sent = play.sent();
    assert_eq!(sent.len(), DATAGRAM_BUFFER_BYTES / 1000);
    let Sent::Frame(last) = &sent[sent.len() - 1] else { panic!("{sent:?}") };
    assert!(last.starts_with("Datagram([99, 0"), "{last}");
}

#[test]
fn pings_are_answered_the_last_ones_at_least() {
    let mut play = Play::begun(Wire::Qmux02);
    for n in 0..100_u64 {
        play.hears(masked(Opcode::Ping as u8, true, &n.to_be_bytes(), [1, 2, 3, 4]));
        play.says(&[Frame::Ping(n)]);
    }
    let pong = Sent::Frame(format!("{:?}", Frame::Pong(99)));
    assert_eq!(play.sent(), [Sent::Pong(99_u64.to_be_bytes().to_vec()), pong]);
    play.says(&[Frame::Ping(99)]);
    assert!(play.lost().unwrap().contains("not higher"));
    // Draft 01 says nothing of their order.
    let mut play = Play::begun(Wire::Qmux01);
    play.says(&[Frame::Ping(5), Frame::Ping(0), Frame::Pong(77)]);
    assert_eq!(play.lost(), None);
    let mut play = Play::begun(Wire::Qmux02);
    play.says(&[Frame::Pong(0)]);
    assert!(play.lost().unwrap().contains("not sent"));
}

#[test]
fn a_silent_peer_is_pinged_and_given_up() {
    for wire in WIRES {
        let mut play = Play::begun(wire);
        let mut pings = 0;
        let begin = play.now;
        let reason = loop {
            let deadline = play.mux.deadline().unwrap();
            play.after(deadline - play.now);
            let sent = play.sent();
            pings += sent.iter().filter(|sent| **sent == Sent::Ping).count();
            if let Some(reason) = play.lost() {
                assert!(sent.contains(&Sent::Close(1001)), "{sent:?}");
                break reason;
            }
        };
        assert_eq!((reason.as_str(), pings), ("the client is silent", 2));
        assert_eq!(play.now - begin, MUX_IDLE_TIMEOUT);
        // Who answers stays.
        let mut play = Play::begun(wire);
        for _ in 0..20 {
            play.after(MUX_KEEP_ALIVE);
            let sent = play.sent();
            assert!(sent.contains(&Sent::Ping));
            let pong = Sent::Frame(format!("{:?}", Frame::Ping(0)));
            assert!(wire == Wire::Qmux00 || sent.len() == 2, "{sent:?} {pong:?}");
            play.hears(masked(Opcode::Pong as u8, true, b"", [0; 4]));
        }
        assert_eq!(play.lost(), None);
    }
}

/// A page counts what it is sent, and nothing of what it says itself.
#[test]
fn a_peer_that_speaks_and_is_told_nothing_is_pinged() {
    let mut play = Play::begun(Wire::Qmux01);
    let mut pings = 0;
    for _ in 0..60 {
        play.after(Duration::from_secs(1));
        play.says(&[Frame::Nothing]);
        pings += play.sent().len();
    }
    assert_eq!(pings, 10);
}

#[test]
fn parameters_have_to_come_in_time() {
    let mut play = Play::new(Wire::Qmux01);
    play.hears(masked(Opcode::Ping as u8, true, b"", [0; 4]));
    play.after(SETUP_TIMEOUT - Duration::from_millis(1));
    assert_eq!(play.lost(), None);
    play.after(Duration::from_millis(1));
    let sent = play.sent();
    assert!(matches!(&sent[..], [Sent::Frame(a), Sent::Frame(b), Sent::Close(1001)]
        if a.starts_with("Parameters") && b.starts_with("Close { is_orderly: false, code: 17")));
    assert_eq!(play.lost().as_deref(), Some("no transport parameters in time"));
    assert!(play.mux.is_over());
}

#[test]
fn we_end_a_session_in_good_order_or_all_at_once() {
    let reason = |sent: &[Sent]| match sent {
        [Sent::Frame(close), Sent::Close(status)] => (close.clone(), *status),
        other => panic!("{other:?}"),
    };
    let mut play = Play::begun(Wire::Qmux02);
    let id = play.mux.open_uni().unwrap();
    let _ = play.mux.write(id, &mut chunk(100));
    play.says(&[bytes(0, b"x", false)]);
    play.mux.close(SessionCode::UNAUTHORIZED, "no".into());
    let (close, status) = reason(&play.sent());
    let expect = Frame::Close { is_orderly: true, code: 2, reason: b"no" };
    assert_eq!((close, status), (format!("{expect:?}"), 1000));
    assert!(play.mux.is_over() && play.events().is_empty());
    play.says(&[bytes(0, b"x", false)]);
    play.mux.close(SessionCode::INTERNAL, "again".into());
    play.mux.close_now(SessionCode::NO_ERROR, "again");
    assert!(play.mux.is_over() && !play.mux.has_output());

    let mut play = Play::begun(Wire::Qmux01);
    play.mux.close_now(SessionCode::NO_ERROR, "relay stopped");
    let (close, status) = reason(&play.sent());
    let expect = Frame::Close { is_orderly: false, code: 0, reason: b"relay stopped" };
    assert_eq!((close, status), (format!("{expect:?}"), 1001));

    let mut play = Play::begun(Wire::Qmux01);
    play.mux.close(SessionCode::INTERNAL, "é".repeat(CLOSE_REASON_BYTES_MAX).into());
    assert!(reason(&play.sent()).0.len() < 6 * CLOSE_REASON_BYTES_MAX);
}

/// What came before is heard first.
#[test]
fn the_peer_ends_a_session() {
    let close = |is_orderly, code, reason| Frame::Close { is_orderly, code, reason };
    for (frame, expect) in [
        (close(true, 0, b"done"), "closed by the client: no error (0x0): done"),
        (
            close(false, 1002, b"oops"),
            "closed by the client, abnormally: application 938 (0x3ea): oops",
        ),
    ] {
        let mut play = Play::begun(Wire::Qmux02);
        play.says(&[bytes(2, b"last", true), frame, bytes(6, b"later", true)]);
        assert_eq!(play.sent(), [Sent::Close(1000)]);
        assert_eq!(play.mux.poll(), Some(opened(2)));
        assert_eq!(read(&mut play, 2), (b"last".to_vec(), ReadEnd::Finished));
        assert_eq!(play.mux.poll(), Some(Event::Lost { reason: expect.to_owned() }));
        assert!(play.mux.is_over());
    }
    for (body, expect) in [(&b""[..], "no status"), (b"\x03\xe9bye", "1001")] {
        let mut play = Play::begun(Wire::Qmux00);
        play.hears(masked(Opcode::Close as u8, true, body, [9; 4]));
        assert_eq!(play.sent(), [Sent::Close(1000)]);
        assert_eq!(play.lost(), Some(format!("closed by the client: {expect}")));
    }
    let mut play = Play::begun(Wire::Qmux01);
    play.mux.ended("the connection broke");
    assert_eq!(play.lost().as_deref(), Some("the connection broke"));
    assert!(play.mux.is_over() && !play.mux.has_output());
}

/// Whoever breaks a rule is told which by a status, and hears of nothing else.
#[test]
fn violations_close_with_their_code() {
    let frame = |frame: Frame<'_>| {
        let mut payload = Vec::new();
        frame.encode(&mut payload);
        message(&payload)
    };
    let ours = StreamId(3);
    let uni = StreamId(2);
    let over = [0; MUX_RECORD_BYTES_MAX - 10];
    let over = std::iter::repeat_n(frame(bytes(2, &over, false)), 5).flatten().collect();
    let table: Vec<(&str, Vec<u8>, u16)> = vec![
        ("no known kind", message(b"\x40\x99"), 1002),
        ("cut short", message(b"\x0a\x00\x05\x01"), 1002),
        ("text", masked(Opcode::Text as u8, true, b"hi", [0; 4]), 1003),
        ("too large", message(&[0; MUX_RECORD_BYTES_MAX + 1]), 1009),
        ("without a mask", vec![0x82, 0x01, 0, 0, 0, 0], 1002),
        ("of no kind", vec![0xc2, 0x80, 0, 0, 0, 0], 1002),
        ("of no kind", masked(3, true, b"", [0; 4]), 1002),
        ("of no kind", masked(0xb, true, b"", [0; 4]), 1002),
        ("out of order", masked(Opcode::Continuation as u8, true, b"", [0; 4]), 1002),
        (
            "out of order",
            [masked(2, false, b"\0", [0; 4]), masked(2, true, b"\0", [0; 4])].concat(),
            1002,
        ),
        ("in parts", masked(Opcode::Ping as u8, false, b"", [0; 4]), 1002),
        ("too long", masked(Opcode::Ping as u8, true, &[0; 126], [0; 4]), 1002),
        ("half a status", masked(Opcode::Close as u8, true, b"\x03", [0; 4]), 1002),
        ("too large", [vec![0x82, 0xff], vec![0xff; 8], vec![0; 4]].concat(), 1009),
        (
            "too large",
            [masked(2, false, &[0; MUX_RECORD_BYTES_MAX], [0; 4]), masked(0, true, b"\0", [0; 4])]
                .concat(),
            1009,
        ),
        ("stream limit exceeded", frame(bytes(4 * STREAMS_BIDI_START, b"", false)), 1002),
        ("stream limit exceeded", frame(bytes(4 * STREAMS_UNI_START + 2, b"", false)), 1002),
        ("stream limit exceeded", frame(bytes((1 << 62) - 4, b"", false)), 1002),
        (
            "stream limit exceeded",
            frame(Frame::Reset { id: StreamId(4 * STREAMS_UNI_START + 2), code: 0, final_size: 0 }),
            1002,
        ),
        ("flow control error", over, 1002),
        (
            "flow control error",
            frame(Frame::Reset { id: uni, code: 0, final_size: (1 << 62) - 1 }),
            1002,
        ),
        ("only we send", frame(bytes(3, b"", false)), 1002),
        ("only we send", frame(Frame::Reset { id: ours, code: 0, final_size: 0 }), 1002),
        ("only the client sends", frame(Frame::Stop { id: uni, code: 0 }), 1002),
        ("not opened", frame(bytes(1, b"", false)), 1002),
        ("not opened", frame(Frame::Stop { id: StreamId(7), code: 0 }), 1002),
    ];
    for (words, wrong, status) in table {
        let mut play = Play::begun(Wire::Qmux01);
        assert_eq!(play.mux.open_uni(), Some(ours));
        play.hears([wrong.clone(), frame(bytes(0, b"after", true))].concat());
        let sent = play.sent();
        let [Sent::Frame(close), Sent::Close(code)] = &sent[..] else {
            panic!("{words}: {sent:?}")
        };
        let expect = format!("Close {{ is_orderly: false, code: {status},");
        assert!(close.starts_with(&expect) && *code == status, "{words}: {sent:?}");
        let events = play.events();
        assert!(!events.contains(&opened(0)), "{words}: {events:?}");
        let Some(Event::Lost { reason }) = events.last() else { panic!("{words}: {events:?}") };
        assert!(reason.contains(words), "{words}: {reason}");
        assert!(play.mux.is_over(), "{words}");
        // Byte by byte it is the same.
        let mut play = Play::begun(Wire::Qmux01);
        play.mux.open_uni();
        wrong.iter().for_each(|byte| play.hears(vec![*byte]));
        assert_eq!(play.lost(), Some(reason.clone()), "{words}");
    }
}

#[test]
fn messages_may_come_in_parts_with_pings_between() {
    let payload: Vec<u8> = {
        let mut payload = Vec::new();
        bytes(2, &[5; 1000], true).encode(&mut payload);
        payload
    };
    let parts = [
        masked(2, false, &payload[..1], [1, 2, 3, 4]),
        masked(Opcode::Ping as u8, true, b"now", [5, 6, 7, 8]),
        masked(0, false, b"", [0; 4]),
        masked(0, false, &payload[1..500], [9, 10, 11, 12]),
        masked(0, true, &payload[500..], [13, 14, 15, 16]),
    ]
    .concat();
    for pieces in [1, 2, 7, parts.len()] {
        let mut play = Play::begun(Wire::Qmux02);
        parts.chunks(pieces).for_each(|piece| play.hears(piece.to_vec()));
        assert_eq!(play.events(), [opened(2)], "in pieces of {pieces}");
        assert_eq!(read(&mut play, 2), (vec![5; 1000], ReadEnd::Finished));
        assert_eq!(play.sent(), [Sent::Pong(b"now".to_vec())]);
    }
    // Empty messages and paddings say nothing.
    let mut play = Play::begun(Wire::Qmux02);
    play.hears([message(b""), message(&[0; 300])].concat());
    assert_eq!((play.events(), play.sent()), (vec![], vec![]));
}

/// Whoever opens, resets and asks without end costs no more than one turn's bytes.
#[test]
fn a_flood_is_answered_with_little() {
    let mut play = Play::begun(Wire::Qmux01);
    let now = play.now;
    play.mux.expect_groups();
    // It has got all the streams there are.
    loop {
        let before = play.mux.streams();
        let max = play.sent().iter().find_map(|sent| match sent {
            Sent::Frame(frame) => frame
                .strip_prefix("MaxStreams { is_uni: true, max: ")?
                .trim_end_matches(" }")
                .parse()
                .ok(),
            _ => None,
        });
        let max: u64 = max.unwrap_or(STREAMS_UNI_START);
        (before as u64..max).for_each(|n| play.says(&[bytes(4 * n + 2, b"x", false)]));
        play.events();
        play.mux.grow(now, &mut |_| true);
        if before == play.mux.streams() {
            break;
        }
    }
    let open = play.mux.streams() as u64;
    assert_eq!(open, STREAMS_MAX);
    // Each resets, is seen, and gives way to another one, over and over.
    for round in 0..4 {
        for n in round * open..(round + 1) * open {
            let id = StreamId(4 * n + 2);
            play.says(&[Frame::Reset { id, code: 0, final_size: 0 }, Frame::Ping(n)]);
            play.hears(masked(Opcode::Ping as u8, true, b"?", [0; 4]));
            read(&mut play, id.0);
        }
        let events = play.events();
        assert!(events.len() as u64 <= open, "{}", events.len());
        let sent = play.sent();
        assert!(sent.len() <= 4, "{sent:?}");
        (open * (round + 1)..open * (round + 2))
            .for_each(|n| play.says(&[bytes(4 * n + 2, b"x", false)]));
        assert_eq!(play.mux.streams() as u64, open);
        play.events();
    }
    assert_eq!(play.lost(), None);
}
