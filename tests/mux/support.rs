//! The client's end: bytes as it sends them, and what it is sent.

use std::time::{Duration, Instant};

use shardcast::limits::{MUX_FRAME_BYTES_MAX, MUX_RECORD_BYTES_MAX};
use shardcast::mux::ws::Opcode;
use shardcast::mux::{Frame, Mux, Parameters, Wire};
use shardcast::session::streams::{Event, StreamId};

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter(|c| *c != ' ').map(|c| c.to_digit(16).expect("hex") as u8).collect();
    assert_eq!(digits.len() % 2, 0, "{text}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A WebSocket frame as clients send them.
pub fn masked(opcode: u8, is_last: bool, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut out = vec![opcode | if is_last { 0x80 } else { 0 }];
    match payload.len() {
        length @ ..126 => out.push(0x80 | length as u8),
        length @ ..0x1_0000 => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// A binary message.
pub fn message(payload: &[u8]) -> Vec<u8> {
    masked(Opcode::Binary as u8, true, payload, [0xa5, 0x3c, 0x01, 0x96])
}

/// Takes one frame from what a server has sent, if it is whole.
pub fn take_sent(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
    assert!(first & 0xf0 == 0x80 && second < 127, "{first:x} {second:x}: whole and not masked");
    let (length, head) = match second {
        126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        length => (usize::from(length), 2),
    };
    let payload = bytes.get(head..head + length)?;
    Some((first & 0x0f, payload, head + length))
}

/// A server's state, and a client that does what its play says.
pub struct Play {
    pub mux: Mux,
    pub wire: Wire,
    pub now: Instant,
}

/// What the client was sent.
#[derive(Clone, PartialEq, Debug)]
pub enum Sent {
    Bytes { id: u64, data: Vec<u8>, is_last: bool },
    Frame(String),
    Ping,
    Pong(Vec<u8>),
    Close(u16),
}

impl Play {
    /// Nothing has been said.
    pub fn new(wire: Wire) -> Play {
        let now = Instant::now();
        Play { mux: Mux::new(wire, now), wire, now }
    }

    /// The client allows much.
    pub fn begun(wire: Wire) -> Play {
        Play::allowing(wire, generous())
    }

    pub fn allowing(wire: Wire, parameters: Parameters) -> Play {
        let mut play = Play::new(wire);
        play.sent();
        play.says(&[Frame::Parameters(parameters)]);
        play
    }

    /// The client says some frames, each in a message of its own.
    pub fn says(&mut self, frames: &[Frame<'_>]) {
        for frame in frames {
            let mut payload = Vec::new();
            frame.encode(&mut payload);
            self.hears(message(&payload));
        }
    }

    pub fn hears(&mut self, mut bytes: Vec<u8>) {
        self.mux.receive(self.now, &mut bytes);
    }

    pub fn after(&mut self, time: Duration) {
        self.now += time;
        while self.mux.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.mux.timeout(self.now);
        }
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.mux.poll()).collect()
    }

    /// How the connection was lost, if it was.
    pub fn lost(&mut self) -> Option<String> {
        self.events().into_iter().find_map(|event| match event {
            Event::Lost { reason } => Some(reason),
            _ => None,
        })
    }

    /// All that is sent.
    pub fn sent(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        while self.mux.has_output() {
            sent.extend(self.sent_once(64 << 10));
        }
        sent
    }

    /// What is sent at once.
    pub fn sent_once(&mut self, budget: usize) -> Vec<Sent> {
        let mut out = Vec::new();
        self.mux.transmit(self.now, budget, &mut out);
        let (mut rest, mut sent) = (&out[..], Vec::new());
        while !rest.is_empty() {
            let (opcode, payload, used) = take_sent(rest).expect("whole messages");
            rest = &rest[used..];
            match opcode {
                0x2 => sent.extend(frames(self.wire, payload)),
                0x8 => sent.push(Sent::Close(u16::from_be_bytes(payload.try_into().unwrap()))),
                0x9 => sent.push(Sent::Ping),
                0xa => sent.push(Sent::Pong(payload.to_vec())),
                _ => panic!("{opcode:x}"),
            }
        }
        sent
    }
}

fn frames(wire: Wire, mut message: &[u8]) -> Vec<Sent> {
    let most = if wire == Wire::Qmux00 { MUX_FRAME_BYTES_MAX } else { MUX_RECORD_BYTES_MAX };
    assert!(message.len() <= most && !message.is_empty());
    let mut sent = Vec::new();
    while !message.is_empty() {
        sent.push(match Frame::take(wire, &mut message).expect("frames of ours") {
            Frame::Stream { id, data, is_last } => {
                assert!(data.len() <= MUX_FRAME_BYTES_MAX - 32);
                Sent::Bytes { id: id.0, data: data.to_vec(), is_last }
            }
            frame => Sent::Frame(format!("{frame:?}")),
        });
    }
    assert!(wire != Wire::Qmux00 || sent.len() == 1, "draft 00 has one frame in a message");
    sent
}

/// What a client allows that is never in the way.
pub fn generous() -> Parameters {
    Parameters {
        max_idle_timeout: 30_000,
        max_data: 1 << 40,
        max_stream_data_bidi_local: 1 << 40,
        max_stream_data_bidi_remote: 1 << 40,
        max_stream_data_uni: 1 << 40,
        max_streams_bidi: 10_000,
        max_streams_uni: 10_000,
        max_datagram_frame_size: 16_382,
        max_record_size: 16_382,
    }
}

/// Bytes of a stream of the client's.
pub fn bytes(id: u64, data: &[u8], is_last: bool) -> Frame<'_> {
    Frame::Stream { id: StreamId(id), data, is_last }
}

/// A random number generator with a seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

pub fn mix(value: u64) -> u64 {
    let z = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
