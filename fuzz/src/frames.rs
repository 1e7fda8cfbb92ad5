//! The frames of a group: as a publisher sends them, as they are stored, as HTTP shows them. The
//! first byte chooses the wire, the second how the rest arrives.
//!
//! * However the bytes arrive, what is stored is the same, and so is the error.
//! * What is stored reads as itself, and its marks are where frames begin.
//! * Without its headers it is the payload, whatever was sent before it.

use bytes::Bytes;
use shardcast::track::group::Marks;
use shardcast::track::scan::{FrameScanner, Scale};
use shardcast::web::payload::Payloads;
use shardcast::wire::{FrameHeader, StreamCode, Version, encode_varint, zigzag};

use crate::random::{Random, pieces};
use crate::trace::Trace;

#[derive(Debug, PartialEq)]
struct Stored {
    bytes: Vec<u8>,
    marks: Marks,
    frames: u32,
    end: Result<bool, StreamCode>,
}

pub fn run(input: &[u8], trace: &mut Trace) {
    let Some((&[wire, seed], bytes)) = input.split_first_chunk::<2>() else { return };
    let is_timed = wire & 1 == 1;
    let scale = [
        None,
        Some(Scale { from: 90_000, to: 1000 }),
        Some(Scale { from: 1, to: u64::MAX }),
        Some(Scale { from: 1000, to: 48_000 }),
    ][usize::from(wire >> 1) % 4];
    let whole = scan(is_timed, scale, &[bytes]);
    let parts = pieces(bytes, &mut Random::new(seed.into()));
    let apart = scan(is_timed, scale, &parts);
    assert_eq!(whole, apart, "what is stored depends on how it arrives");
    trace.note((wire % 8, whole.end.map_err(|code| code.0), whole.frames.min(3)));

    let again = scan(true, None, &[&whole.bytes]);
    assert_eq!((&again.bytes, &again.marks), (&whole.bytes, &whole.marks));
    assert!(whole.end != Ok(true) || again.end == Ok(true), "a whole group is stored cut short");
    for (frame, mark) in whole.marks.iter().enumerate() {
        let at = &whole.bytes[mark.start as usize..];
        let (header, used) = FrameHeader::take(Version::Lite05, at).expect("a header");
        assert!(used > usize::from(mark.delta_len) && header.size <= 32 << 20, "frame {frame}");
    }

    // Pieces are cut where a turn ends: behind a header or within a payload.
    let (mut payloads, mut shown) = (Payloads::default(), Vec::<Bytes>::new());
    let (mut scanner, mut sent) = (FrameScanner::new(is_timed, scale), Vec::new());
    for part in parts {
        let (mut bytes, mut marks) = (Vec::new(), Marks::new());
        let end = scanner.scan(part, ARRIVAL_MS, &mut bytes, &mut marks);
        payloads.strip(bytes.into(), &mut shown).expect("no stored piece ends in a header");
        if end.is_err() {
            break;
        }
    }
    for (frame, mark) in whole.marks.iter().enumerate() {
        let at = &whole.bytes[mark.start as usize..];
        let (_, used) = FrameHeader::take(Version::Lite05, at).expect("a header");
        let end = whole.marks.get(frame + 1).map_or(whole.bytes.len(), |next| next.start as usize);
        sent.extend_from_slice(&whole.bytes[mark.start as usize + used..end]);
    }
    assert_eq!(shown.concat(), sent);
}

/// A frame of two bytes, or of one, has a mark of sixteen; several results are held side by side.
pub const BYTES_PER_BYTE: usize = 128;

const ARRIVAL_MS: u64 = 1_000_000;

fn scan(is_timed: bool, scale: Option<Scale>, parts: &[&[u8]]) -> Stored {
    let mut scanner = FrameScanner::new(is_timed, scale);
    let (mut bytes, mut marks) = (Vec::new(), Marks::new());
    let mut end = Ok(());
    for part in parts {
        end = end.and_then(|()| scanner.scan(part, ARRIVAL_MS, &mut bytes, &mut marks));
    }
    assert_eq!(marks.len(), scanner.frames() as usize);
    assert_eq!(bytes.len() as u64, scanner.bytes());
    Stored { bytes, marks, frames: scanner.frames(), end: end.map(|()| scanner.at_boundary()) }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for wire in 0..8 {
        let mut seed = vec![wire, 1];
        for (delta, payload) in [(90_000, &b"hello"[..]), (-3000, b""), (0, &[7; 100]), (1, b"x")] {
            if wire & 1 == 1 {
                encode_varint(zigzag(delta), &mut seed);
            }
            encode_varint(payload.len() as u64, &mut seed);
            seed.extend_from_slice(payload);
        }
        seeds.push(seed);
        seeds.push([&[wire, 2][..], &[0; 300]].concat());
    }
    seeds
}
