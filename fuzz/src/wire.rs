//! Every message of every version: the first byte chooses the message, the second the version.
//!
//! * What is read is written, and that reads as the same and is no longer than what was read.
//! * A message that lacks its last byte is waited for.
//! * An error names a place in the message.

use std::fmt::Debug;

use bytes::Bytes;
use shardcast::wire::*;

use crate::trace::Trace;

type Taken<T> = Result<Option<(T, usize)>, DecodeError>;

pub fn run(input: &[u8], trace: &mut Trace) {
    let Some((&[kind, version], bytes)) = input.split_first_chunk::<2>() else { return };
    let version = Version::ALL[usize::from(version) % Version::ALL.len()];
    let kind = kind % KINDS.len() as u8;
    let see = &mut |what: Seen| trace.note((kind, version, what));
    match KINDS[usize::from(kind)] {
        "varint" => number(bytes, see),
        "client-setup" => both(bytes, ClientSetup::take, ClientSetup::encode, see),
        "server-setup" => both(bytes, ServerSetup::take, ServerSetup::encode, see),
        "setup" => both(bytes, |b| bodied(b, Setup::decode), Setup::encode, see),
        "announce-request" => both(
            bytes,
            |b| bodied(b, |body| AnnounceRequest::decode(version, body)),
            |message, out| message.encode(version, out),
            see,
        ),
        "announce-init" => both(bytes, AnnounceInit::take, AnnounceInit::encode, see),
        "announce-ok" => both(bytes, AnnounceOk::take, AnnounceOk::encode, see),
        "announce" => both(
            bytes,
            |b| Ok(Announce::take(version, b)?.map(|(message, used)| (as_written(message), used))),
            |message, out| message.encode(version, out),
            see,
        ),
        "subscribe" => both(
            bytes,
            |b| bodied(b, |body| Subscribe::decode(version, body)),
            |message, out| message.encode(version, out),
            see,
        ),
        "update" => both(
            bytes,
            |b| bodied(b, |body| Preferences::decode_update(version, body)),
            |message, out| message.encode_update(version, out),
            see,
        ),
        "response" => both(
            bytes,
            |b| SubscribeResponse::take(version, b),
            |message, out| message.encode(version, out),
            see,
        ),
        "track" => both(bytes, |b| bodied(b, TrackRequest::decode), TrackRequest::encode, see),
        "track-info" => both(
            bytes,
            |b| TrackInfo::take(version, b),
            |message, out| message.encode(version, out),
            see,
        ),
        "fetch" => both(
            bytes,
            |b| bodied(b, |body| Fetch::decode(version, body)),
            |message, out| message.encode(version, out),
            see,
        ),
        "probe" => both(
            bytes,
            |b| Probe::take(version, b),
            |message, out| message.encode(version, out),
            see,
        ),
        "goaway" => both(bytes, |b| bodied(b, Goaway::decode), Goaway::encode, see),
        "group" => both(
            bytes,
            |b| GroupHeader::take(version, b),
            |message, out| message.encode(version, out),
            see,
        ),
        "frame" => both(
            bytes,
            |b| Ok(FrameHeader::take(version, b)),
            |message, out| message.encode(version, out),
            see,
        ),
        "session-info" => check(bytes, SessionInfo::take, see),
        "datagram" => datagram(bytes, see),
        "codes" => codes(bytes),
        other => unreachable!("{other} is in the list"),
    }
}

const KINDS: [&str; 21] = [
    "varint",
    "client-setup",
    "server-setup",
    "setup",
    "announce-request",
    "announce-init",
    "announce-ok",
    "announce",
    "subscribe",
    "update",
    "response",
    "track",
    "track-info",
    "fetch",
    "probe",
    "goaway",
    "group",
    "frame",
    "session-info",
    "datagram",
    "codes",
];

#[derive(Hash)]
enum Seen {
    Message,
    /// A message that no version writes.
    Unwritten,
    Incomplete,
    Fault(Fault),
}

/// Reads one message, as far as that is all there is to say.
fn check<T>(bytes: &[u8], take: impl Fn(&[u8]) -> Taken<T>, see: &mut impl FnMut(Seen)) {
    match take(bytes) {
        Ok(None) => see(Seen::Incomplete),
        Ok(Some((_, used))) => {
            assert!(used <= bytes.len(), "{used} bytes were used of {}", bytes.len());
            for cut in [used - 1, used / 2, 0] {
                assert!(
                    matches!(take(&bytes[..cut]), Ok(None)),
                    "{cut} bytes of {used} are enough"
                );
            }
            see(Seen::Message);
        }
        Err(DecodeError { fault, offset }) => {
            assert!(offset <= bytes.len(), "{fault} at {offset} of {}", bytes.len());
            see(Seen::Fault(fault));
        }
    }
}

/// Reads one message and writes it.
fn both<T: PartialEq + Debug>(
    bytes: &[u8],
    take: impl Fn(&[u8]) -> Taken<T>,
    encode: impl Fn(&T, &mut Vec<u8>),
    see: &mut impl FnMut(Seen),
) {
    check(bytes, &take, see);
    let Ok(Some((message, used))) = take(bytes) else { return };
    let mut written = b"before".to_vec();
    encode(&message, &mut written);
    let written = written.strip_prefix(b"before").expect("encoding appends");
    if written.is_empty() {
        return see(Seen::Unwritten);
    }
    assert!(written.len() <= used, "{message:?}: {} bytes became {}", used, written.len());
    let again = take(written);
    assert_eq!(again, Ok(Some((message, written.len()))), "what was written reads differently");
}

/// A message whose length stands before its body.
fn bodied<T>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, DecodeError>) -> Taken<T> {
    let Some((body, used)) = split_message(bytes, CONTROL_MESSAGE_BYTES_MAX)? else {
        return Ok(None);
    };
    Ok(Some((decode(body)?, used)))
}

/// Of two forms of one message only one is written.
fn as_written(message: Announce) -> Announce {
    match message {
        Announce::Restart05 { suffix, hops } => Announce::Start { suffix, hops, cost: Cost::ZERO },
        // No version writes the hops of what has ended.
        other => other,
    }
}

fn number(bytes: &[u8], see: &mut impl FnMut(Seen)) {
    let take = |bytes: &[u8]| Ok(decode_varint(bytes));
    both(bytes, take, |value, out| encode_varint(*value, out), see);
    let Some((value, _)) = decode_varint(bytes) else { return };
    let mut out = Vec::new();
    encode_varint(value, &mut out);
    assert_eq!(out.len(), varint_len(value));
    assert_eq!(zigzag(unzigzag(value)), value);
    let Some((other, _)) = decode_varint(&bytes[1..]) else { return };
    if let Some(delta) = timestamp_delta(value, other) {
        assert_eq!(timestamp_after(value, delta), Some(other));
    }
}

fn datagram(bytes: &[u8], see: &mut impl FnMut(Seen)) {
    match Datagram::decode(Bytes::copy_from_slice(bytes)) {
        Ok(datagram) => {
            let mut written = Vec::new();
            datagram.encode(&mut written);
            assert!(written.len() <= bytes.len());
            assert_eq!(Datagram::decode(written.into()), Ok(datagram));
            see(Seen::Message);
        }
        Err(DecodeError { fault, offset }) => {
            assert!(offset <= bytes.len());
            see(Seen::Fault(fault));
        }
    }
}

/// Codes survive the mapping of HTTP/3, and what a code is called can be written.
fn codes(bytes: &[u8]) {
    let Some((code, _)) = decode_varint(bytes) else { return };
    if let Some(stream) = StreamCode::from_http3(code) {
        assert_eq!(stream.to_http3(), code);
    }
    let narrow = StreamCode(code & u64::from(u32::MAX));
    assert_eq!(StreamCode::from_http3(narrow.to_http3()), Some(narrow));
    assert_eq!(StreamCode::from_raw_quic(narrow.to_http3()), narrow);
    assert_eq!(narrow.relayed().relayed(), narrow.relayed());
    let _ = (StreamCode(code).to_string(), SessionCode(code).to_string());
}

/// The golden vectors, and each of them as what it is not.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (message, bytes) in vectors() {
        // Vectors of setups, requests and groups begin with the type of their stream.
        let typed = ["setup", "subscribe", "fetch", "track", "goaway", "group"];
        let is_typed = typed.contains(&message) || message.ends_with("-setup");
        let body = &bytes[usize::from(is_typed || message == "announce-request")..];
        for (kind, _) in KINDS.iter().enumerate().filter(|(_, name)| **name == message) {
            for version in 0..Version::ALL.len() {
                seeds.push([&[kind as u8, version as u8], body].concat());
            }
        }
    }
    seeds.push([&[17, 4][..], &[0x47, 0xd0, 3]].concat());
    seeds.push(vec![18, 0, 2, 0x43, 0xe8]);
    seeds.push([&[20, 0, 0xc0, 0][..], &[0x52, 0xe4, 0xa4, 0x0f, 0xa8, 0xdb]].concat());
    seeds
}

/// What `tests/wire_vectors.txt` has: the name of the message and its bytes.
pub fn vectors() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let lines = include_str!("../../tests/wire_vectors.txt").lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let message = fields[2].split(':').next().expect("a name");
        (message, crate::unhex(fields[3]).expect("hex"))
    })
}
