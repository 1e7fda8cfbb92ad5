//! A connection of qmux with a client that says anything, and a session that does anything with it.
//!
//! The input is a [`Script`]: messages of the client, what the session does, time, and how much leaves.
//!
//! * What leaves is whole messages of whole frames, none too large, and bytes of streams that the client has
//!   allowed, of streams that are there and have not ended.
//! * The session is given no more than the client has sent.
//! * A frame that was read is read again from what is written of it.
//! * When the session has heard that all is over it hears nothing else, and nothing leaves but a farewell.
//! * A deadline that has been met is not asked for again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use shardcast::limits::{MUX_FRAME_BYTES_MAX, MUX_IDLE_TIMEOUT, MUX_RECORD_BYTES_MAX, STREAMS_MAX};
use shardcast::mux::ws::{Opcode, unmask};
use shardcast::mux::{Frame, Mux, Parameters, Wire};
use shardcast::session::streams::{Event, ReadEnd, StreamId, Streams, WriteEnd};
use shardcast::wire::{SessionCode, StreamCode};

use crate::script::{Script, Step};
use crate::trace::{Trace, processor_time};

/// A frame of four bytes opens a stream, with an entry in two maps here and one there; one for a stream far
/// above opens all below.
pub const BYTES_PER_BYTE: usize = 512;

const WIRES: [Wire; 3] = [Wire::Qmux00, Wire::Qmux01, Wire::Qmux02];

const MASK: [u8; 4] = [0x51, 0, 0xc3, 0x9e];

struct World {
    wire: Wire,
    mux: Mux,
    now: Instant,
    /// What the client has sent on streams in all, and what it has allowed.
    said: u64,
    allows_data: u64,
    allows_streams: [u64; 2],
    allows_on: BTreeMap<StreamId, u64>,
    parameters: Option<Parameters>,
    /// Streams as the session knows them, and as the client was told of them.
    known: BTreeSet<StreamId>,
    told: BTreeMap<StreamId, u64>,
    ended: BTreeSet<StreamId>,
    told_bytes: u64,
    read_bytes: u64,
    is_lost: bool,
    is_over: bool,
}

pub fn run(input: &[u8], trace: &mut Trace) {
    let script = Script::parse(input);
    let wire = WIRES[usize::from(script.setting[0]) % 3];
    let now = Instant::now();
    let mut world = World {
        wire,
        mux: Mux::new(wire, now),
        now,
        said: 0,
        allows_data: 0,
        allows_streams: [0; 2],
        allows_on: BTreeMap::new(),
        parameters: None,
        known: BTreeSet::new(),
        told: BTreeMap::new(),
        ended: BTreeSet::new(),
        told_bytes: 0,
        read_bytes: 0,
        is_lost: false,
        is_over: false,
    };
    for step in &script.steps {
        let begin = processor_time();
        world.step(step, trace);
        trace.note_step(begin);
    }
    // Whatever has happened, it comes to an end.
    world.now += MUX_IDLE_TIMEOUT;
    world.mux.timeout(world.now);
    world.hear(trace);
    while world.mux.has_output() {
        world.transmit(1 << 16, trace);
    }
    assert!(world.is_lost && world.mux.is_over());
}

impl World {
    fn step(&mut self, step: &Step, trace: &mut Trace) {
        let Step { kind, which, bytes } = step;
        let any = || self.known.iter().nth(usize::from(*which) % self.known.len().max(1)).copied();
        match kind % 16 {
            0..=3 => self.say(bytes),
            4 => self.hear_raw(bytes),
            5 => {
                let opened =
                    if which & 1 == 0 { self.mux.open_bidi() } else { self.mux.open_uni() };
                trace.note((1, opened.is_some()));
                if let Some(id) = opened {
                    let allowed = self.allows_streams[usize::from(id.is_uni())];
                    assert!(id.0 & 1 == 1 && id.0 >> 2 < allowed, "{id:?} of {allowed}");
                    assert!(self.known.insert(id), "{id:?} again");
                    let allowed = self.parameters.expect("nothing is allowed before");
                    let allowed = match id.is_uni() {
                        true => allowed.max_stream_data_uni,
                        false => allowed.max_stream_data_bidi_remote,
                    };
                    self.allow_on(id, allowed);
                }
            }
            6 => {
                let Some(id) = any() else { return };
                let length = [3, 100, 17_000, 70_000][usize::from(which >> 6)];
                // All of them share it.
                static BYTES: [u8; 70_000] = [7; 70_000];
                let end = self.mux.write(id, &mut [bytes::Bytes::from_static(&BYTES[..length])]);
                let taken = match end {
                    WriteEnd::All => length,
                    WriteEnd::Blocked(taken) => taken,
                    WriteEnd::Stopped => 0,
                };
                assert!(taken <= length);
                trace.note((2, taken > 0, taken < length));
            }
            7 => any().into_iter().for_each(|id| self.mux.finish(id)),
            8 => any().into_iter().for_each(|id| self.mux.reset(id, StreamCode(9))),
            9 => any().into_iter().for_each(|id| self.mux.stop(id, StreamCode(8))),
            10 => {
                let Some(id) = any() else { return };
                self.read(id, 1 + 50 * bytes.len(), trace);
            }
            11 => {
                any().into_iter().for_each(|id| self.mux.set_priority(id, i32::from(*which)));
                self.mux.send_datagram(bytes, b"payload");
            }
            12 => {
                self.now += Duration::from_millis(100 * u64::from(*which));
                for _ in 0..3 {
                    let due = self.mux.deadline().is_some_and(|deadline| deadline <= self.now);
                    if due {
                        self.mux.timeout(self.now);
                    }
                }
                assert!(self.mux.deadline().is_none_or(|deadline| self.now < deadline));
            }
            13 => {
                self.mux.expect_groups();
                self.mux.grow(self.now, &mut |_| which & 1 == 0);
            }
            14 => self.transmit(64 * usize::from(*which), trace),
            _ => match which % 8 {
                0 => {
                    self.mux
                        .close(SessionCode(1), String::from_utf8_lossy(bytes).into_owned().into());
                    self.is_lost = true;
                }
                1 => self.mux.ended("broken"),
                2 => {
                    self.mux.close_now(SessionCode(16), "stopped");
                    self.is_lost = true;
                }
                3 => self.mux.ping(),
                _ => self.hear(trace),
            },
        }
        assert!(
            self.mux.streams() as u64 <= 4 * STREAMS_MAX + self.allows_streams.iter().sum::<u64>()
        );
        assert!(self.read_bytes <= self.said);
    }

    /// The client says one message.
    fn say(&mut self, payload: &[u8]) {
        let length = (payload.len() as u16).to_be_bytes();
        let mut bytes = [&[0x82, 0xfe], &length[..], &MASK, payload].concat();
        let at = bytes.len() - payload.len();
        unmask(&mut bytes[at..], MASK, 0);
        self.note(payload);
        self.mux.receive(self.now, &mut bytes);
    }

    /// The client says what may be nothing at all.
    fn hear_raw(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        // As long as nobody can tell what that says, all is allowed that it could.
        self.mux.receive(self.now, &mut bytes);
        self.said = u64::MAX;
        self.allows_data = u64::MAX;
        self.allows_streams = [1 << 40; 2];
        self.allows_on.clear();
        self.parameters.get_or_insert(Parameters {
            max_stream_data_uni: u64::MAX,
            max_stream_data_bidi_remote: u64::MAX,
            max_stream_data_bidi_local: u64::MAX,
            ..Parameters::default()
        });
    }

    /// What a message allows and brings, as far as it can be read.
    fn note(&mut self, mut payload: &[u8]) {
        while !payload.is_empty()
            && let Ok(frame) = Frame::take(self.wire, &mut payload)
        {
            self.check_writing(&frame);
            match frame {
                Frame::Parameters(parameters) if self.parameters.is_none() => {
                    self.parameters = Some(parameters);
                    self.allows_data = self.allows_data.max(parameters.max_data);
                    let streams = [parameters.max_streams_bidi, parameters.max_streams_uni];
                    for (allows, streams) in self.allows_streams.iter_mut().zip(streams) {
                        *allows = (*allows).max(streams);
                    }
                }
                Frame::MaxData(max) => self.allows_data = self.allows_data.max(max),
                Frame::MaxStreams { is_uni, max } => {
                    let allows = &mut self.allows_streams[usize::from(is_uni)];
                    *allows = (*allows).max(max);
                }
                Frame::MaxStreamData { id, max } => self.allow_on(id, max),
                Frame::Stream { data, .. } => {
                    self.said = self.said.saturating_add(data.len() as u64)
                }
                _ => {}
            }
        }
    }

    fn check_writing(&self, frame: &Frame<'_>) {
        // There a size that is not stated and one of nothing are alike.
        if matches!(frame, Frame::Parameters(_)) && self.wire == Wire::Qmux00 {
            return;
        }
        let mut written = Vec::new();
        frame.encode(&mut written);
        let mut rest = &written[..];
        assert_eq!(Frame::take(self.wire, &mut rest).as_ref(), Ok(frame));
        assert!(rest.is_empty(), "{frame:?}");
    }

    fn allow_on(&mut self, id: StreamId, max: u64) {
        let allows = self.allows_on.entry(id).or_default();
        *allows = (*allows).max(max);
    }

    fn hear(&mut self, trace: &mut Trace) {
        while let Some(event) = self.mux.poll() {
            assert!(!self.is_lost, "{event:?} after the end");
            match event {
                Event::Opened(id) => {
                    assert!(id.0 & 1 == 0 && self.known.insert(id), "{id:?} again");
                    trace.note((3, id.is_uni()));
                    self.read(id, 1000, trace);
                }
                Event::Readable(id) => self.read(id, 1 << 20, trace),
                Event::Writable(id) | Event::Finished(id) | Event::Stopped(id) => {
                    assert!(self.known.contains(&id), "{id:?}");
                    trace.note((
                        4,
                        matches!(event, Event::Writable(_)),
                        matches!(event, Event::Stopped(_)),
                    ));
                }
                Event::Available { uni } => trace.note((5, uni)),
                Event::Datagram(_) => assert!(self.wire != Wire::Qmux00),
                Event::Lost { reason } => {
                    trace.note((
                        6,
                        reason.chars().filter(|c| c.is_alphabetic()).take(60).collect::<String>(),
                    ));
                    self.is_lost = true;
                }
            }
        }
    }

    fn read(&mut self, id: StreamId, most: usize, trace: &mut Trace) {
        let mut bytes = 0;
        let end = self.mux.read(id, most, &mut |part| bytes += part.len());
        assert!(bytes <= most);
        self.read_bytes += bytes as u64;
        trace.note((
            7,
            end == ReadEnd::More,
            end == ReadEnd::Finished,
            matches!(end, ReadEnd::Reset(_)),
        ));
    }

    fn transmit(&mut self, budget: usize, trace: &mut Trace) {
        let mut out = Vec::new();
        let was_lost = self.is_lost;
        self.mux.transmit(self.now, budget, &mut out);
        let mut rest = &out[..];
        while let Some((&[opcode, second], tail)) = rest.split_first_chunk::<2>() {
            let (length, tail) = match second {
                126 => {
                    let (length, tail) = tail.split_first_chunk().expect("a length");
                    (usize::from(u16::from_be_bytes(*length)), tail)
                }
                length => (usize::from(length), tail),
            };
            let (payload, tail) = tail.split_at(length);
            rest = tail;
            assert!(!self.is_over, "something after the farewell");
            trace.note((8, opcode));
            match opcode {
                0x82 => self.check_message(payload, was_lost, trace),
                0x88 => self.is_over = true,
                _ => assert!([Opcode::Ping as u8, Opcode::Pong as u8].contains(&(opcode & 0x0f))),
            }
        }
        assert!(rest.is_empty());
    }

    fn check_message(&mut self, mut payload: &[u8], was_lost: bool, trace: &mut Trace) {
        let most =
            if self.wire == Wire::Qmux00 { MUX_FRAME_BYTES_MAX } else { MUX_RECORD_BYTES_MAX };
        assert!(payload.len() <= most && !payload.is_empty());
        while !payload.is_empty() {
            let frame = Frame::take(self.wire, &mut payload).expect("a frame of ours");
            let is_last_word = matches!(frame, Frame::Close { .. } | Frame::Parameters(_));
            assert!(!was_lost || is_last_word, "{frame:?} after the end");
            trace.note((9, format!("{frame:?}").chars().take(4).collect::<String>()));
            let (id, bytes, ends) = match frame {
                Frame::Stream { id, data, is_last } => (id, data.len() as u64, is_last),
                Frame::Reset { id, final_size, .. } => {
                    assert_eq!(final_size, self.told.get(&id).copied().unwrap_or(0), "{id:?}");
                    (id, 0, true)
                }
                _ => continue,
            };
            assert!(!self.ended.contains(&id), "{id:?} has ended");
            if ends {
                self.ended.insert(id);
            }
            self.told_bytes += bytes;
            assert!(
                self.told_bytes <= self.allows_data,
                "{} of {}",
                self.told_bytes,
                self.allows_data
            );
            let told = self.told.entry(id).or_default();
            *told += bytes;
            if self.said < u64::MAX {
                let by_parameters = match (id.0 & 1, self.parameters) {
                    (0, Some(allowed)) => allowed.max_stream_data_bidi_local,
                    _ => 0,
                };
                let allowed = self.allows_on.get(&id).copied().unwrap_or(0).max(by_parameters);
                assert!(*told <= allowed, "{told} of {allowed} on {id:?}");
            }
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let frames = |frames: &[Frame<'_>]| {
        let mut out = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut out));
        out
    };
    let generous = Parameters {
        max_data: 1 << 20,
        max_stream_data_bidi_local: 1 << 18,
        max_stream_data_bidi_remote: 1 << 18,
        max_stream_data_uni: 1 << 18,
        max_streams_bidi: 100,
        max_streams_uni: 100,
        max_datagram_frame_size: 16_382,
        ..Parameters::default()
    };
    let begin = frames(&[Frame::Parameters(generous)]);
    let little = frames(&[Frame::Parameters(Parameters { max_data: 50, ..generous })]);
    let data =
        |id: u64, data: &'static [u8], is_last| Frame::Stream { id: StreamId(id), data, is_last };
    let say = |bytes: Vec<u8>| (0, 0, bytes);
    let act = |kind: u8, which: u8| (kind, which, vec![1, 2, 3]);
    let (hear, send) = (act(15, 7), act(14, 255));
    let conversations: Vec<Vec<(u8, u8, Vec<u8>)>> = vec![
        // A publisher.
        vec![
            say(begin.clone()),
            act(13, 0),
            say(frames(&[
                data(2, b"group", false),
                data(6, b"more", true),
                data(0, b"ask", false),
            ])),
            hear.clone(),
            say(frames(&[data(2, b"rest", true), Frame::Ping(1)])),
            hear.clone(),
            send.clone(),
        ],
        // A viewer.
        vec![
            say(begin.clone()),
            act(5, 1),
            act(5, 0),
            act(6, 0xc0),
            act(6, 1),
            act(11, 1),
            send.clone(),
            act(7, 1),
            act(8, 0),
            send.clone(),
            say(frames(&[Frame::Stop { id: StreamId(1), code: 0 }])),
            hear.clone(),
        ],
        // One with little credit.
        vec![
            say(little),
            act(5, 1),
            act(6, 0x40),
            send.clone(),
            say(frames(&[
                Frame::MaxData(200),
                Frame::MaxStreamData { id: StreamId(3), max: 1 << 19 },
                Frame::MaxStreams { is_uni: true, max: 200 },
            ])),
            send.clone(),
        ],
        // Resets, and streams far above.
        vec![
            say(begin.clone()),
            say(frames(&[
                data(26, b"x", false),
                Frame::Reset { id: StreamId(26), code: 1, final_size: 9 },
                Frame::Reset { id: StreamId(2), code: 1, final_size: 0 },
            ])),
            hear.clone(),
            act(9, 0),
            say(frames(&[data(26, b"x", true)])),
            hear.clone(),
            send.clone(),
        ],
        // Datagrams, pings and time.
        vec![
            say(begin.clone()),
            say(frames(&[Frame::Datagram(b"dog"), Frame::Ping(0)])),
            act(12, 70),
            send.clone(),
            say(frames(&[Frame::Pong(0), Frame::Nothing])),
            hear.clone(),
            act(12, 200),
            hear.clone(),
        ],
        // All ends.
        vec![
            say(begin.clone()),
            say(frames(&[Frame::Close { is_orderly: true, code: 0, reason: b"bye" }])),
        ],
        vec![say(begin.clone()), act(15, 0), send.clone()],
        vec![say(begin.clone()), act(15, 2), send.clone()],
        vec![say(begin.clone()), act(15, 1), hear.clone()],
        vec![say(begin), (4, 0, vec![0x88, 0x80, 0, 0, 0, 0]), hear, send],
    ];
    let script = |wire: u8, steps: &[(u8, u8, Vec<u8>)]| {
        let steps = steps.iter().cloned();
        let steps = steps.map(|(kind, which, bytes)| Step { kind, which, bytes }).collect();
        Script { setting: [wire, 0], steps }.encode()
    };
    conversations.iter().flat_map(|steps| [0, 1, 2].map(|wire| script(wire, steps))).collect()
}
