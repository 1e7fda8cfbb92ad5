//! WebSocket frames of a client. The first byte says how they arrive, the second what a message may have.
//!
//! * However the bytes arrive, they say the same, up to the same violation.
//! * A message has no more bytes than it may have, and a control frame none that it may not.
//! * What we write of what was said reads as that.

use shardcast::mux::Violation;
use shardcast::mux::ws::{self, CONTROL_BYTES_MAX, Opcode, Reader, unmask};

use crate::random::{Random, pieces};
use crate::trace::Trace;

/// An empty Ping of six bytes is noted in some eighty, for either way to arrive.
pub const BYTES_PER_BYTE: usize = 64;

#[derive(Clone, Debug, PartialEq)]
enum Said {
    Message(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

pub fn run(input: &[u8], trace: &mut Trace) {
    let Some((&[seed, most], bytes)) = input.split_first_chunk::<2>() else { return };
    let most = [16_382, 200, 10][usize::from(most) % 3];
    let whole = read(most, &[bytes]);
    let apart = read(most, &pieces(bytes, &mut Random::new(seed.into())));
    assert_eq!(whole, apart, "what is said depends on how it arrives");
    let (said, end) = whole;
    trace.note((most, end.map_err(|violation| violation.reason)));
    for said in said {
        let (opcode, payload) = match &said {
            Said::Message(payload) => {
                assert!(payload.len() <= most);
                (Opcode::Binary, &payload[..])
            }
            Said::Ping(payload) => {
                assert!(payload.len() <= CONTROL_BYTES_MAX);
                (Opcode::Ping, &payload[..])
            }
            Said::Pong => (Opcode::Pong, &b""[..]),
            Said::Close(_) => continue,
        };
        trace.note((opcode as u8, payload.len().checked_ilog2()));
        let mut written = Vec::new();
        ws::write(opcode, payload, &mut written);
        assert_eq!(read(most, &[&masked(&written, seed)]), (vec![said], Ok(())));
    }
}

fn read(most: usize, parts: &[&[u8]]) -> (Vec<Said>, Result<(), Violation>) {
    let (mut reader, mut said) = (Reader::new(most), Vec::new());
    for part in parts {
        let end = reader.read(&mut part.to_vec(), &mut |one| {
            said.push(match one {
                ws::Said::Message(payload) => Said::Message(payload.to_vec()),
                ws::Said::Ping(payload) => Said::Ping(payload.to_vec()),
                ws::Said::Pong => Said::Pong,
                ws::Said::Close(status) => Said::Close(status),
            });
            Ok(())
        });
        if end.is_err() {
            return (said, end);
        }
    }
    (said, Ok(()))
}

/// A frame of a server as a client would have sent it.
fn masked(frame: &[u8], seed: u8) -> Vec<u8> {
    let mask = [seed, seed ^ 0x5a, 0x3c, !seed];
    let head = if frame[1] == 126 { 4 } else { 2 };
    let mut out = frame[..head].to_vec();
    out[1] |= 0x80;
    out.extend(mask);
    let at = out.len();
    out.extend_from_slice(&frame[head..]);
    unmask(&mut out[at..], mask, 0);
    out
}

pub fn seeds() -> Vec<Vec<u8>> {
    let frame = |first: u8, payload: &[u8]| {
        let mut head = vec![first];
        match payload.len() {
            length @ ..126 => head.push(length as u8),
            length => {
                head.push(126);
                head.extend((length as u16).to_be_bytes());
            }
        }
        masked(&[&head, payload].concat(), 7)
    };
    let streams = [
        frame(0x82, b"hello"),
        frame(0x82, &[3; 300]),
        [frame(0x02, b"in "), frame(0x89, b"there?"), frame(0x00, b""), frame(0x80, b"parts")]
            .concat(),
        [frame(0x8a, b""), frame(0x82, b""), frame(0x88, &[0x03, 0xe8])].concat(),
        frame(0x88, b""),
        frame(0x88, b"\x03"),
        frame(0x81, b"text"),
        frame(0x80, b"what"),
        frame(0xc2, b"packed"),
        frame(0x09, b"in parts"),
        [vec![0x82, 0xff], vec![0; 6], vec![1, 0, 1, 2, 3, 4]].concat(),
        [vec![0x82, 0xff], vec![0xff; 12]].concat(),
        vec![0x82, 0x05, 1, 2, 3, 4, 5, 6],
    ];
    streams.iter().flat_map(|bytes| [0, 1].map(|most| [&[5, most], &bytes[..]].concat())).collect()
}
