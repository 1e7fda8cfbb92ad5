//! HTTP/3 under WebTransport: the first byte chooses what the stream is, the second how it arrives.
//!
//! * However the bytes of a stream arrive, they say the same, up to the same violation.
//! * What we write of each kind reads as what it was.

use shardcast::h3::capsule::{Capsules, close_session};
use shardcast::h3::frame::{Frame, Frames};
use shardcast::h3::request::{self, Asked, Status};
use shardcast::h3::{Violation, allows_webtransport, datagram_prefix, split_datagram};
use shardcast::limits::CLOSE_REASON_BYTES_MAX;
use shardcast::wire::encode_varint;

use crate::random::{Random, pieces};
use crate::trace::Trace;

/// What an empty frame of two bytes says is noted here in some eighty, for either way to arrive.
pub const BYTES_PER_BYTE: usize = 128;

const DATA: u64 = 0;
const HEADERS: u64 = 1;
const SETTINGS: u64 = 4;
const GREASE: u64 = 0x21;
const CLOSE_SESSION: u64 = 0x2843;

/// What a stream says, with neighbouring content joined.
#[derive(Debug, PartialEq)]
enum Said {
    Settings(Result<(), Violation>),
    Request(Result<Asked, Violation>),
    Content(Vec<u8>),
    Nothing,
    Closed(u32, String),
}

pub fn run(input: &[u8], trace: &mut Trace) {
    let Some((&[kind, seed], bytes)) = input.split_first_chunk::<2>() else { return };
    let read = match kind % 4 {
        0 => frames,
        1 => capsules,
        2 => return datagram(bytes, trace),
        _ => return close(bytes, trace),
    };
    let whole = read(&[bytes]);
    let apart = read(&pieces(bytes, &mut Random::new(seed.into())));
    assert_eq!(whole, apart, "what a stream says depends on how it arrives");
    let (said, end) = whole;
    trace.note((kind % 4, end.map_err(|violation| violation.code.0)));
    for said in said {
        note(&said, trace);
    }
}

fn note(said: &Said, trace: &mut Trace) {
    match said {
        Said::Settings(allows) => trace.note((10, allows.map_err(|violation| violation.code.0))),
        Said::Request(Ok(Asked::Session(request))) => {
            let target = &request.target;
            assert!(target.is_empty() || target.starts_with(['/', '?']), "{request:?}");
            trace.note((11, request.protocols.len().min(3), target.len() > 1));
        }
        Said::Request(Ok(Asked::Other(status))) => {
            assert!(!request::refuse(*status).is_empty());
            trace.note((12, format!("{status:?}")));
        }
        Said::Request(Err(violation)) => trace.note((13, violation.code.0)),
        Said::Content(_) => trace.note(14),
        Said::Nothing => trace.note(15),
        Said::Closed(..) => trace.note(16),
    }
}

/// The frames of a stream and what is in them, up to the capsule that ends the session.
fn frames(parts: &[&[u8]]) -> (Vec<Said>, Result<bool, Violation>) {
    let (mut frames, mut capsules, mut said) = (Frames::default(), Capsules::default(), Vec::new());
    for part in parts {
        frames.push(part);
        loop {
            let frame = match frames.take() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(violation) => return (said, Err(violation)),
            };
            let Frame::Data(part) = frame else {
                said.push(match frame {
                    Frame::Headers(fields) => Said::Request(request::read(&fields)),
                    Frame::HeadersTooLarge => {
                        Said::Request(Ok(Asked::Other(Status::FieldsTooLarge)))
                    }
                    Frame::Settings(payload) => Said::Settings(allows_webtransport(&payload)),
                    Frame::Other | Frame::Data(_) => Said::Nothing,
                });
                continue;
            };
            capsules.push(&part);
            let closed = capsules.take();
            // How much content was seen by then depends on how it arrives.
            if !matches!(closed, Ok(None)) && matches!(said.last(), Some(Said::Content(_))) {
                said.pop();
            }
            match closed {
                Ok(None) => {}
                Ok(Some(close)) => {
                    said.push(Said::Closed(close.code, close.reason));
                    return (said, Ok(true));
                }
                Err(violation) => return (said, Err(violation)),
            }
            match said.last_mut() {
                Some(Said::Content(before)) => before.extend_from_slice(&part),
                _ => said.push(Said::Content(part.to_vec())),
            }
        }
    }
    (said, Ok(frames.at_boundary() && capsules.at_boundary()))
}

fn capsules(parts: &[&[u8]]) -> (Vec<Said>, Result<bool, Violation>) {
    let (mut capsules, mut said) = (Capsules::default(), Vec::new());
    for part in parts {
        capsules.push(part);
        match capsules.take() {
            Ok(None) => {}
            // Nothing is read behind it.
            Ok(Some(close)) => {
                assert!(close.reason.len() <= CLOSE_REASON_BYTES_MAX);
                said.push(Said::Closed(close.code, close.reason));
                return (said, Ok(true));
            }
            Err(violation) => return (said, Err(violation)),
        }
    }
    (said, Ok(capsules.at_boundary()))
}

fn datagram(bytes: &[u8], trace: &mut Trace) {
    let split = split_datagram(bytes);
    trace.note((20, split.is_some()));
    let Some((session, body)) = split else { return };
    let mut out = Vec::new();
    datagram_prefix(session, &mut out);
    out.extend_from_slice(&bytes[body..]);
    assert!(out.len() <= bytes.len());
    let again = split_datagram(&out).expect("a prefix");
    assert_eq!((again.0, &out[again.1..]), (session, &bytes[body..]));
}

/// A session that we end for this reason.
fn close(bytes: &[u8], trace: &mut Trace) {
    let reason = String::from_utf8_lossy(bytes);
    let (said, end) = frames(&[&close_session(bytes.len() as u32, &reason)]);
    assert_eq!(end, Ok(true));
    let Some(Said::Closed(code, told)) = said.last() else { panic!("no capsule: {said:?}") };
    assert_eq!(*code, bytes.len() as u32);
    assert!(reason.starts_with(told.as_str()));
    assert!(told.len() + 4 > reason.len().min(CLOSE_REASON_BYTES_MAX));
    trace.note((21, told.len() < reason.len()));
}

pub fn seeds() -> Vec<Vec<u8>> {
    let chrome = [(1, 65536), (6, 16384), (7, 100), (0x33, 1), (0x2b60_3742, 1)];
    let newer = [(8, 1), (0x33, 1), (0xc671_706a, 1)];
    let settings = |pairs: &[(u64, u64)]| {
        let numbers: Vec<u64> = pairs.iter().flat_map(|(id, value)| [*id, *value]).collect();
        frame(SETTINGS, &varints(&numbers))
    };
    let close = [&7_u32.to_be_bytes()[..], b"the end"].concat();
    let close = frame(CLOSE_SESSION, &close);
    let bye = frame(DATA, &close);
    let plain = request("/room/cam", None);
    let offers = request("/?a=b", Some("\"moq-lite-04\", \"moql\""));
    let get = frame(HEADERS, b"\x00\x00\xd1\xd7\x50\x03a.b\xc1");
    let grease = frame(GREASE, b"grease");
    let streams = [
        (0, settings(&chrome)),
        (0, [settings(&newer), grease.clone()].concat()),
        (0, [plain.clone(), bye.clone()].concat()),
        (0, [grease.clone(), offers, grease, frame(DATA, b""), bye].concat()),
        (0, get),
        (0, [plain.clone(), frame(DATA, &close[..5]), frame(DATA, &close[5..])].concat()),
        (0, [frame(0x6, b"h2"), plain].concat()),
        (0, varints(&[HEADERS, 16 << 10, 0])),
        (0, varints(&[GREASE, 64 << 10, 0])),
        (1, [frame(0x40, b"unknown"), close].concat()),
        (1, varints(&[0x190b_4d3d, 1 << 40, 0])),
        (2, b"\x02\x09\x09".to_vec()),
        (3, b"because \xc3\xa9".to_vec()),
        (3, "\u{1f3a5}".repeat(300).into_bytes()),
    ];
    streams.into_iter().map(|(kind, bytes)| [&[kind, 1], &bytes[..]].concat()).collect()
}

fn varints(numbers: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    for number in numbers {
        encode_varint(*number, &mut out);
    }
    out
}

fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    [&varints(&[kind, payload.len() as u64])[..], payload].concat()
}

/// A request as browsers make it, with neither table nor Huffman (RFC 9204 §4.5.6).
fn request(path: &str, offers: Option<&str>) -> Vec<u8> {
    let pairs = [
        (":method", "CONNECT"),
        (":protocol", "webtransport"),
        (":scheme", "https"),
        (":authority", "localhost:4443"),
        (":path", path),
        ("origin", "https://example.com"),
    ];
    let offers = offers.map(|offers| ("wt-available-protocols", offers));
    let mut fields = vec![0, 0];
    for (name, value) in pairs.into_iter().chain(offers) {
        match name.len() {
            length @ ..7 => fields.push(0x20 | length as u8),
            length => fields.extend([0x27, length as u8 - 7]),
        }
        fields.extend_from_slice(name.as_bytes());
        fields.push(value.len() as u8);
        fields.extend_from_slice(value.as_bytes());
    }
    frame(HEADERS, &fields)
}
