//! HTTP/3 and WebTransport as a client writes them: streams, frames, requests and capsules as bytes.

use quinn_proto::Dir;
use shardcast::wire::{decode_varint, encode_varint};

/// Frame types.
pub const DATA: u64 = 0;
pub const HEADERS: u64 = 1;
pub const SETTINGS: u64 = 4;
pub const GREASE: u64 = 0x21;

/// The capsule that ends a session.
pub const CLOSE_SESSION: u64 = 0x2843;

/// What Chrome sends, more or less.
pub const CHROME: &[(u64, u64)] = &[(1, 65536), (6, 16384), (7, 100), (0x33, 1), (0x2b60_3742, 1)];

/// Encodes varints in a row.
pub fn numbers(values: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        encode_varint(*value, &mut out);
    }
    out
}

pub fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    [&numbers(&[kind, payload.len() as u64])[..], payload].concat()
}

/// The type and the payload of the frame or capsule at the front of `buf`, and the bytes it takes;
/// none while some are missing.
pub fn split_frame(buf: &[u8]) -> Option<(u64, &[u8], usize)> {
    let (kind, kind_len) = decode_varint(buf)?;
    let (length, length_len) = decode_varint(&buf[kind_len..])?;
    let head = kind_len + length_len;
    let used = head + usize::try_from(length).ok()?;
    Some((kind, buf.get(head..used)?, used))
}

/// A control stream: its type and these frames.
pub fn control(frames: &[Vec<u8>]) -> Vec<u8> {
    [numbers(&[0]), frames.concat()].concat()
}

pub fn settings(pairs: &[(u64, u64)]) -> Vec<u8> {
    let flat: Vec<u64> = pairs.iter().flat_map(|(id, value)| [*id, *value]).collect();
    frame(SETTINGS, &numbers(&flat))
}

/// A field section that uses neither table nor Huffman (RFC 9204 §4.5.6).
pub fn fields(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![0, 0];
    let mut text = |first: u8, bits: u32, text: &str| {
        let most = (1usize << bits) - 1;
        if text.len() < most {
            out.push(first | text.len() as u8);
        } else {
            out.push(first | most as u8);
            let mut rest = text.len() - most;
            while rest >= 128 {
                out.push(rest as u8 & 127 | 128);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
        out.extend_from_slice(text.as_bytes());
    };
    for (name, value) in pairs {
        text(0x20, 3, name);
        text(0, 7, value);
    }
    out
}

/// A request as browsers make it, for this path; `offers` as it stands in the header.
pub fn connect(path: &str, offers: Option<&str>) -> Vec<u8> {
    connect_from(&["http://localhost:8080"], path, offers)
}

/// The same of a page of these origins, of which a browser sends one.
pub fn connect_from(origins: &[&str], path: &str, offers: Option<&str>) -> Vec<u8> {
    let mut pairs = vec![
        (":method", "CONNECT"),
        (":protocol", "webtransport"),
        (":scheme", "https"),
        (":authority", "localhost:4443"),
        (":path", path),
    ];
    pairs.extend(origins.iter().map(|origin| ("origin", *origin)));
    pairs.extend(offers.map(|offers| ("wt-available-protocols", offers)));
    frame(HEADERS, &fields(&pairs))
}

/// What the relay says of a request: status and protocol. It is read with the library that made
/// it, which refuses statuses above 299; those are found by their number.
pub fn status(answer: &[u8]) -> Option<(u16, Option<String>)> {
    use web_transport_proto::{ConnectError, ConnectResponse};
    match ConnectResponse::decode(&mut &answer[..]) {
        Ok(response) => Some((response.status.as_u16(), response.protocol)),
        Err(ConnectError::WrongStatus(Some(status))) => Some((status.as_u16(), None)),
        Err(ConnectError::UnexpectedEnd) => None,
        Err(error) => panic!("the relay's answer {answer:02x?}: {error}"),
    }
}

/// The varint with which a stream of a session begins.
pub fn stream_kind(dir: Dir) -> u64 {
    match dir {
        Dir::Uni => 0x54,
        Dir::Bi => 0x41,
    }
}

/// What precedes the bytes of a stream of a session on the side that opens it.
pub fn stream_prefix(dir: Dir, session: u64) -> Vec<u8> {
    numbers(&[stream_kind(dir), session])
}

/// The frame that ends a session.
pub fn close_session(code: u32, reason: &str) -> Vec<u8> {
    let body = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
    frame(DATA, &frame(CLOSE_SESSION, &body))
}
