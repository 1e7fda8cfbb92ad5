//! The golden vectors judged by moq-net 0.3.18, above all the rows that were only computed from the
//! layout. Its codecs are private (`mod lite`, `mod coding`), but its session runs over any
//! transport: here over one that records what moq-net writes on each stream, byte by byte, and
//! feeds it what our encoder wrote.
//!
//! A row that moq-net can be made to say is compared as it stands. A row that it never says (FETCH
//! with an end, bounds within groups, which it rounds to whole ones) is told to it, and what it
//! does then is what the row means.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use moq_net::web_transport_trait::{self as transport, poll};
use moq_net::{Hop, Timescale, Timestamp, group, origin, track};
use shardcast::wire::*;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(5);

const MODERN: [Version; 4] = [Version::Lite03, Version::Lite04, Version::Lite05, Version::Lite06];

/// moq-net's own hop, as in the vectors.
const HOP: u64 = 1000;

/// The bytes of a row of the vector file.
fn row(number: usize, version: Version) -> Vec<u8> {
    rows(number, version).next().unwrap_or_else(|| panic!("row {number} of {version}"))
}

fn rows(number: usize, version: Version) -> impl Iterator<Item = Vec<u8>> {
    let digit = version as usize + 1;
    let covers = move |versions: &str| {
        versions.split(',').any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let number = |digits: &str| digits.parse::<usize>().expect("a version");
            (number(first)..=number(last)).contains(&digit)
        })
    };
    let text = include_str!("wire_vectors.txt");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.filter_map(move |line| {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let is_meant = fields[0].parse() == Ok(number) && covers(fields[1]);
        let byte = |byte| u8::from_str_radix(byte, 16).expect("hex");
        is_meant.then(|| fields[3].split_whitespace().map(byte).collect())
    })
}

fn path(text: &str) -> Path {
    Path::parse(text).expect("a path")
}

/// A message as our encoder writes it.
fn ours(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    bytes
}

fn bidi(kind: BidiType, encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    [vec![kind as u8], ours(encode)].concat()
}

// ---- what moq-net says of itself ----

#[tokio::test]
async fn setup() {
    for version in [Version::Lite05, Version::Lite06] {
        let said = |configure: fn(moq_net::Client) -> moq_net::Client| async move {
            let moq = Moq::connect(version, configure, Stats::default()).await;
            let line = moq.tape.opened(UniType::Setup as u64, true, 0).await;
            let bytes = moq.tape.to_the_end(line).await;
            let (body, used) = split_message(&bytes[1..], CONTROL_MESSAGE_BYTES_MAX)
                .expect("a message")
                .expect("all of it");
            assert_eq!(used + 1, bytes.len(), "{version}: nothing but SETUP");
            (parameters(body), Setup::decode(body).expect("a SETUP"))
        };
        let hop = parameter(5, HOP);

        let (bytes, value) = said(|client| client).await;
        assert_eq!(value, Setup { hop: HOP, ..Setup::default() }, "{version}");
        assert_eq!(bytes, BTreeSet::from([hop.clone()]), "{version}");

        let (bytes, value) = said(|client| client.with_cost(100)).await;
        assert_eq!(value, Setup { hop: HOP, cost: Some(100), ..Setup::default() }, "{version}");
        // Row 7, and the hop.
        assert_eq!(bytes, &parameters(&row(7, version)[2..]) | &BTreeSet::from([hop.clone()]));

        let (bytes, value) = said(|client| client.with_path("/room?jwt=abc")).await;
        assert_eq!(value.path.as_deref(), Some("/room?jwt=abc"), "{version}");
        // The first parameter of row 6, and the hop.
        let mut expected = parameters(&row(6, version)[2..]);
        expected.retain(|(id, _)| *id == 2);
        expected.insert(hop);
        assert_eq!(bytes, expected, "{version}");

        // Row 5: it states a probe level when its transport can measure.
        let stats = Stats { rtt_ms: Some(25), bitrate: Some(5_000_000) };
        let moq = Moq::connect(version, |client| client, stats).await;
        let line = moq.tape.opened(UniType::Setup as u64, true, 0).await;
        let bytes = moq.tape.to_the_end(line).await;
        assert_eq!(parameters(&bytes[2..]), parameters(&row(5, version)[2..]), "{version}");
    }
}

/// The parameters of a SETUP's body: their order is arbitrary.
fn parameters(body: &[u8]) -> BTreeSet<(u64, Vec<u8>)> {
    let (count, mut at) = decode_varint(body).expect("a count");
    let mut next = || {
        let (value, used) = decode_varint(&body[at..]).expect("a number");
        at += used;
        value
    };
    let mut found = BTreeSet::new();
    for _ in 0..count {
        let (id, size) = (next(), next() as usize);
        // The values of these vectors are read as numbers would be skipped: byte by byte.
        found.insert((id, body[at_after(body, &found, id, size)].to_vec()));
        at = 0;
        let _ = at;
        unreachable!()
    }
    found
}
