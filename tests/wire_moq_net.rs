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
            let moq = Moq::connect(version, HOP, configure, Stats::default()).await;
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
        let moq = Moq::connect(version, HOP, |client| client, stats).await;
        let line = moq.tape.opened(UniType::Setup as u64, true, 0).await;
        let bytes = moq.tape.to_the_end(line).await;
        assert_eq!(parameters(&bytes[2..]), parameters(&row(5, version)[2..]), "{version}");
    }
}

/// The parameters of a SETUP's body: their order is arbitrary.
fn parameters(mut body: &[u8]) -> BTreeSet<(u64, Vec<u8>)> {
    let mut found = BTreeSet::new();
    for _ in 0..take_number(&mut body) {
        let id = take_number(&mut body);
        let size = take_number(&mut body) as usize;
        let (value, rest) = body.split_at(size);
        assert!(found.insert((id, value.to_vec())), "parameter {id} twice");
        body = rest;
    }
    assert!(body.is_empty(), "bytes after the parameters");
    found
}

fn parameter(id: u64, value: u64) -> (u64, Vec<u8>) {
    (id, ours(|out| encode_varint(value, out)))
}

fn take_number(bytes: &mut &[u8]) -> u64 {
    let (value, used) = decode_varint(bytes).expect("a number");
    *bytes = &bytes[used..];
    value
}

// ---- announcements ----

/// What a peer of each version is told of a broadcast that was at hop 7 before.
#[tokio::test]
async fn announcements() {
    for version in MODERN {
        let moq = Moq::publisher(version).await;
        let broadcast = moq.publishes.create_broadcast("cam").expect("a broadcast");
        broadcast.announce(route(&[7], 1)).expect("announce");

        let request = bidi(BidiType::Announce, |out| {
            AnnounceRequest { prefix: Path::root(), exclude_hop: 0 }.encode(version, out);
        });
        let line = moq.tape.open_bidi(&request, false);
        if version >= Version::Lite05 {
            moq.tape.hears(line, "ANNOUNCE_OK", &row(13, version)).await;
        }
        let announcement = match version {
            // Both count moq-net's own hop.
            Version::Lite03 => row(15, version),
            Version::Lite04 => row(17, version),
            // It is the receiver's to append, so it is not in the chain of row 17.
            Version::Lite05 => ours(|out| {
                let (suffix, hops) = (path("cam"), Hops::from_slice(&[7]).expect("a chain"));
                Announce::Start { suffix, hops, cost: Cost::ZERO }.encode(version, out);
            }),
            _ => row(18, version),
        };
        moq.tape.hears(line, "the announcement", &announcement).await;

        if version == Version::Lite06 {
            broadcast.announce(route(&[7, 9], 2)).expect("announce");
            moq.tape.hears(line, "RESTART", &row(20, version)).await;
        }
        broadcast.unannounce();
        let end = match version {
            // Row 19 has another id.
            Version::Lite06 => ours(|out| Announce::End { id: 0 }.encode(version, out)),
            _ => row(16, version),
        };
        moq.tape.hears(line, "the end", &end).await;
    }
}

/// What a peer asks to be told, and that it understands the answer.
#[tokio::test]
async fn announcements_asked_for() {
    for version in MODERN {
        // A peer whose own hop is in a chain drops the route, so it is not that of the rows here.
        for hop in [HOP, HOP + 1] {
            let mut moq = Moq::viewer_at(version, hop).await;
            let request = bidi(BidiType::Announce, |out| {
                AnnounceRequest { prefix: Path::root(), exclude_hop: hop }.encode(version, out);
            });
            if hop == HOP && matches!(version, Version::Lite04 | Version::Lite05) {
                assert_eq!(request, row(11, version), "{version}");
            }
            let line = moq.tape.opened(BidiType::Announce as u64, false, 0).await;
            moq.tape.hears(line, "ANNOUNCE_REQUEST", &request).await;
            if hop != HOP {
                hear_announcements(&mut moq, line).await;
            }
        }
    }
}

async fn hear_announcements(moq: &mut Moq, line: usize) {
    let version = moq.version;
    let numbers: &[usize] = match version {
        Version::Lite03 => &[15],
        Version::Lite04 => &[17],
        // Row 17 with the hop of row 13 behind it would be a loop.
        Version::Lite05 => &[17],
        _ => &[13, 18],
    };
    let mut said = Vec::new();
    if version == Version::Lite05 {
        AnnounceOk { hop: 77, active: 1 }.encode(&mut said);
    }
    numbers.iter().for_each(|number| said.extend(row(*number, version)));
    moq.tape.answer(line, &said, false);
    let heard = within("the announcement", moq.announced.next()).await.expect("an update");
    assert_eq!((heard.prefix.as_str(), heard.kind.is_active()), ("cam", true), "{version}");
    let end = match version {
        Version::Lite06 => ours(|out| Announce::End { id: 0 }.encode(version, out)),
        _ => row(16, version),
    };
    moq.tape.answer(line, &end, false);
    let heard = within("its end", moq.announced.next()).await.expect("an update");
    assert_eq!((heard.prefix.as_str(), heard.kind.is_active()), ("cam", false), "{version}");
}

fn route(hops: &[u64], cost: u64) -> origin::Route {
    let mut chain = moq_net::Hops::new();
    for hop in hops {
        chain.push(Hop::new(*hop).expect("a hop")).expect("room");
    }
    origin::Route::default().with_hops(chain).with_cost(cost)
}

// ---- requests of a viewer ----

#[tokio::test]
async fn subscriptions() {
    for version in MODERN {
        // The first subscription of a session, for everything that is no older than half a second.
        let moq = Moq::viewer(version).await;
        let broadcast = moq.announced_broadcast("room/cam").await;
        let wanted = track::Subscription::default()
            .with_priority(128)
            .with_max_age(Duration::from_millis(500));
        let subscribed = moq.subscribe(&broadcast, "video", wanted, 0).await;
        let number = if version == Version::Lite06 { 24 } else { 22 };
        moq.tape.hears(subscribed.line, "SUBSCRIBE", &row(number, version)).await;
        moq.accept(subscribed.line);

        let update = track::Subscription::default()
            .with_priority(200)
            .with_max_age(Duration::from_secs(1))
            .with_start(track::Position { group: 5, frame: 2 });
        subscribed.control.update(update).expect("update");
        // moq-net starts at the head of a group, or this would be row 27.
        let update = preferences(200, 1000, Some(5), None);
        let expected = ours(|out| update.encode_update(version, out));
        moq.tape.hears(subscribed.line, "SUBSCRIBE_UPDATE", &expected).await;
        drop(subscribed);

        // The second one, with bounds: id 1.
        let moq = Moq::viewer(version).await;
        let broadcast = moq.announced_broadcast("room/cam").await;
        let first = moq.subscribe(&broadcast, "audio", Default::default(), 0).await;
        moq.accept(first.line);
        let wanted = track::Subscription::default()
            .with_priority(128)
            .with_max_age(Duration::from_millis(500))
            .with_groups(10..=20);
        let second = moq.subscribe(&broadcast, "video", wanted, 1).await;
        let expected = match version {
            // Row 25 has bounds within groups too.
            Version::Lite06 => subscribe(1, version, preferences(128, 500, Some(10), Some(20))),
            _ => row(23, version),
        };
        moq.tape.hears(second.line, "SUBSCRIBE", &expected).await;
    }
}

fn subscribe(id: u64, version: Version, preferences: Preferences) -> Vec<u8> {
    let (broadcast, track) = (path("room/cam"), "video".to_owned());
    bidi(BidiType::Subscribe, |out| {
        Subscribe { id, broadcast, track, preferences }.encode(version, out);
    })
}

fn preferences(
    priority: u8,
    max_age_ms: u64,
    group_start: Option<u64>,
    group_end: Option<u64>,
) -> Preferences {
    Preferences { priority, max_age_ms, group_start, group_end, frame_start: 0, frame_end: None }
}

/// A viewer that wants one old group, of a broadcast with the name in the rows.
#[tokio::test]
async fn fetches() {
    for version in [Version::Lite05, Version::Lite06] {
        for frame_start in [0, 2] {
            let moq = Moq::viewer(version).await;
            let broadcast = moq.announced_broadcast("room").await;
            let track = broadcast.track("video").expect("a track");
            let options = group::Fetch::default().with_priority(3).with_frame_start(frame_start);
            let fetching = tokio::spawn(async move { track.fetch_group(7, options).await });
            let asked = moq.tape.opened(BidiType::Track as u64, false, 0).await;
            moq.tape.hears(asked, "TRACK", &row(35, version)).await;
            moq.tape.answer(asked, &info(version), true);

            let line = moq.tape.opened(BidiType::Fetch as u64, false, 0).await;
            let expected = match (version, frame_start) {
                // lite-05 fetches whole groups, which is all that row 38 and 39 say.
                (Version::Lite05, _) => row(38, version),
                (_, 0) => row(39, version),
                _ => bidi(BidiType::Fetch, |out| {
                    let (broadcast, track) = (path("room"), "video".to_owned());
                    let (priority, group, frame_end) = (3, 7, None);
                    Fetch { broadcast, track, priority, group, frame_start, frame_end }
                        .encode(version, out);
                }),
            };
            moq.tape.hears(line, "FETCH", &expected).await;
            moq.tape.answer(line, &row(41, version), true);
            let fetched = within("the group", fetching).await.expect("a task");
            let mut group = fetched.unwrap_or_else(|error| panic!("{version}: {error}"));
            if version == Version::Lite06 || frame_start == 0 {
                let mut frames = Vec::new();
                while let Some(frame) = within("frames", group.read_frame()).await.expect("whole") {
                    frames.push((frame.timestamp.value(), frame.payload));
                }
                let said = [(1000, Bytes::from("abc")), (1020, Bytes::from("de"))];
                assert_eq!(frames, said, "{version} from frame {frame_start}");
            }
        }
    }
}

/// TRACK_INFO as in the rows.
fn info(version: Version) -> Vec<u8> {
    row(if version == Version::Lite06 { 37 } else { 36 }, version)
}

#[tokio::test]
async fn probes() {
    let stats = Stats { rtt_ms: Some(25), bitrate: Some(5_000_000) };
    for version in MODERN {
        // Asked by it, as soon as somebody wants to know.
        let moq = Moq::viewer(version).await;
        let mut rate = moq.session.recv_bandwidth().expect("lite-03 and later can tell");
        let asking = tokio::spawn(async move { rate.changed().await });
        let line = moq.tape.opened(BidiType::Probe as u64, false, 0).await;
        moq.tape.hears(line, "PROBE", &row(42, version)).await;
        let number = if version == Version::Lite03 { 43 } else { 44 };
        moq.tape.answer(line, &row(number, version), false);
        let told = within("the rate", asking).await.expect("a task");
        let told = told.expect("a session").map(|rate| rate.as_bps());
        assert_eq!(told, Some(5_000_000), "{version}");

        // Asked of it.
        let moq = Moq::connect(version, HOP, |client| client, stats).await;
        moq.introduce(Setup::default());
        let line = moq.tape.open_bidi(&row(42, version), false);
        moq.tape.hears(line, "a report", &row(number, version)).await;
    }
}

// ---- answers of a publisher ----

/// A subscriber that wants all of a track with one group.
#[tokio::test]
async fn groups() {
    for version in MODERN {
        let moq = Moq::publisher(version).await;
        let track = moq.publish("room/cam");
        let group = track.create_group(5u64.into()).expect("a group");
        for (timestamp, payload) in [(90_000, &b"hello"[..]), (87_000, b"")] {
            group.clone().write_frame(time(timestamp), payload).expect("a frame");
        }
        group.finish().expect("finish");
        if version >= Version::Lite05 {
            let request = bidi(BidiType::Track, |out| {
                let (broadcast, track) = (path("room/cam"), "video".to_owned());
                TrackRequest { broadcast, track }.encode(out);
            });
            let line = moq.tape.open_bidi(&request, false);
            moq.tape.hears(line, "TRACK_INFO", &info(version)).await;
        }
        let number = if version == Version::Lite06 { 24 } else { 22 };
        let line = moq.tape.open_bidi(&row(number, version), false);
        let accepted = if version >= Version::Lite05 { 32 } else { 30 };
        moq.tape.hears(line, "the answer", &row(accepted, version)).await;
        let content = match version {
            Version::Lite03 | Version::Lite04 => 47,
            Version::Lite05 => 48,
            _ => 49,
        };
        let carried = moq.tape.opened(UniType::Group as u64, true, 0).await;
        assert_eq!(moq.tape.to_the_end(carried).await, row(content, version), "{version}");

        track.create_group(6u64.into()).expect("a group").finish().expect("finish");
        track.finish().expect("finish");
        if version >= Version::Lite05 {
            moq.tape.hears(line, "END", &row(33, version)).await;
        }
        moq.tape.to_the_end(line).await;
    }
}

/// Row 25 in, row 50 out: bounds within groups, which only a peer other than moq-net states.
#[tokio::test]
async fn groups_from_a_frame_on() {
    let version = Version::Lite06;
    let moq = Moq::publisher(version).await;
    let track = moq.publish("room/cam");
    for sequence in [9, 10, 20, 21] {
        let group = track.create_group(group::Info { sequence }).expect("a group");
        for frame in 0..10 {
            // Close together, so that nothing is too old.
            let payload = if (sequence, frame) == (10, 3) { "x" } else { "y" };
            group.clone().write_frame(time(90_000), payload).expect("a frame");
        }
        group.finish().expect("finish");
    }
    moq.tape.open_bidi(&row(25, version), false);
    let mut groups = BTreeMap::new();
    for number in 0..2 {
        let line = moq.tape.opened(UniType::Group as u64, true, number).await;
        let bytes = moq.tape.to_the_end(line).await;
        let header = GroupHeader::take(version, &bytes[1..]).expect("a header").expect("all of it");
        groups.insert(header.0.sequence, (bytes, header.0));
    }
    assert_eq!(groups.keys().copied().collect::<Vec<_>>(), [10, 20], "no other group");
    let (bytes, header) = &groups[&10];
    assert_eq!(*header, GroupHeader { subscribe_id: 1, sequence: 10, frame_start: 3 });
    assert_eq!(bytes[..row(50, version).len()], row(50, version), "row 50, and frames 4 to 9");
    // Of the last group, frames 0 to 7: the first with a time of its own, the others with none.
    let (bytes, header) = &groups[&20];
    assert_eq!(*header, GroupHeader { subscribe_id: 1, sequence: 20, frame_start: 0 });
    assert_eq!(bytes.iter().filter(|byte| **byte == b'y').count(), 8, "frames 0 to 7");
}

/// Row 27 in: priority 200, a second, and nothing before frame 2 of group 5.
#[tokio::test]
async fn a_floor_within_a_group() {
    let version = Version::Lite06;
    let moq = Moq::publisher(version).await;
    let track = moq.publish("room/cam");
    // Nothing is wanted yet: the range ends before it starts.
    let none = preferences(0, 1000, Some(9), Some(8));
    let line = moq.tape.open_bidi(&subscribe(3, version, none), false);
    moq.tape.answer(line, &row(27, version), false);
    for sequence in [4, 5] {
        let group = track.create_group(group::Info { sequence }).expect("a group");
        for payload in ["a", "b", "c"] {
            group.clone().write_frame(time(90_000), payload).expect("a frame");
        }
        group.finish().expect("finish");
    }
    let carried = moq.tape.opened(UniType::Group as u64, true, 0).await;
    let bytes = moq.tape.to_the_end(carried).await;
    let expected = ours(|out| {
        out.push(UniType::Group as u8);
        GroupHeader { subscribe_id: 3, sequence: 5, frame_start: 2 }.encode(version, out);
        FrameHeader { timestamp_delta: 90_000, size: 1 }.encode(version, out);
        out.push(b'c');
    });
    assert_eq!(bytes, expected);
}

/// Rows 38 to 40 in.
#[tokio::test]
async fn fetches_served() {
    for (version, number) in [(Version::Lite05, 38), (Version::Lite06, 39), (Version::Lite06, 40)] {
        let moq = Moq::publisher(version).await;
        let track = moq.publish("room");
        let group = track.create_group(7u64.into()).expect("a group");
        for frame in 0..10u8 {
            let at = time(1000 + u64::from(frame) * 20);
            group.clone().write_frame(at, vec![b'0' + frame]).expect("a frame");
        }
        group.finish().expect("finish");
        let frames = if number == 40 { 2..=6 } else { 0..=9 };
        let line = moq.tape.open_bidi(&row(number, version), false);
        let expected = ours(|out| {
            let mut before = 0;
            for frame in frames {
                let timestamp = 1000 + u64::from(frame) * 20;
                let timestamp_delta = timestamp_delta(before, timestamp).expect("in range");
                FrameHeader { timestamp_delta, size: 1 }.encode(version, out);
                out.push(b'0' + frame);
                before = timestamp;
            }
        });
        assert_eq!(moq.tape.to_the_end(line).await, expected, "{version} row {number}");
    }
}

/// Row 1: numbers of every length, as group sequences.
#[tokio::test]
async fn numbers() {
    for version in MODERN {
        for (value, bytes) in
            [15_293, 494_878_333, 151_288_809_941_952_652].into_iter().zip(rows(1, version))
        {
            let moq = Moq::publisher(version).await;
            let track = moq.publish("room/cam");
            track
                .create_group(group::Info { sequence: value })
                .expect("a group")
                .finish()
                .expect("finish");
            let number = if version == Version::Lite06 { 24 } else { 22 };
            moq.tape.open_bidi(&row(number, version), false);
            let line = moq.tape.opened(UniType::Group as u64, true, 0).await;
            let said = moq.tape.to_the_end(line).await;
            assert_eq!(said[3..3 + bytes.len()], bytes, "{version}: {value}");
            let expected = ours(|out| {
                out.push(UniType::Group as u8);
                GroupHeader { subscribe_id: 0, sequence: value, frame_start: 0 }
                    .encode(version, out);
            });
            assert_eq!(said, expected, "{version}: {value}");
        }
    }
}

fn time(ticks: u64) -> Timestamp {
    Timestamp::new(ticks, timescale()).expect("in range")
}

fn timescale() -> Timescale {
    Timescale::new(1000).expect("above zero")
}

// ---- moq-net on a tape ----

/// A moq-net client whose peer is the test.
struct Moq {
    version: Version,
    tape: Tape,
    publishes: origin::Producer,
    views: origin::Consumer,
    announced: moq_net::announce::Consumer,
    session: moq_net::Session,
}

/// A subscription that somebody listens to.
struct Subscribed {
    line: usize,
    control: track::Control,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Moq {
    async fn connect(
        version: Version,
        hop: u64,
        configure: fn(moq_net::Client) -> moq_net::Client,
        stats: Stats,
    ) -> Moq {
        let tape = Tape::new(version, stats);
        let config = || origin::Config::new(Hop::new(hop).expect("a hop"));
        let publishes = moq_tokio::origin::spawn_config(config());
        let receives = moq_tokio::origin::spawn_config(config());
        let views = receives.consume();
        let announced = views.announced();
        let named: moq_net::Version = version.alpn().parse().expect("a version it knows");
        let client = moq_net::Client::new()
            .with_versions(named.into())
            .with_publisher(&publishes)
            .with_subscriber(receives);
        let connecting = configure(client);
        let (session, driver) =
            connecting.connect(Instant::now(), tape.clone()).await.expect("a session");
        tokio::spawn(moq_net::time::run(driver));
        Moq { version, tape, publishes, views, announced, session }
    }

    async fn publisher(version: Version) -> Moq {
        let moq = Moq::connect(version, HOP, |client| client, Stats::default()).await;
        moq.introduce(Setup::default());
        moq
    }

    async fn viewer(version: Version) -> Moq {
        Moq::viewer_at(version, HOP).await
    }

    async fn viewer_at(version: Version, hop: u64) -> Moq {
        let moq = Moq::connect(version, hop, |client| client, Stats::default()).await;
        moq.introduce(Setup { probe: ProbeLevel::Report, hop: 77, ..Setup::default() });
        moq
    }

    /// What the peer says of itself, where it says so at all.
    fn introduce(&self, setup: Setup) {
        if self.version >= Version::Lite05 {
            let mut bytes = vec![UniType::Setup as u8];
            setup.encode(&mut bytes);
            self.tape.open_uni(&bytes, true);
        }
    }

    /// A track that moq-net publishes, as in the rows.
    fn publish(&self, path: &str) -> track::Producer {
        let broadcast = self.publishes.create_broadcast(path).expect("a broadcast");
        let info = track::Info::default()
            .with_priority(127)
            .with_max_age(Duration::from_secs(5))
            .with_timescale(timescale());
        let track = broadcast.create_track("video", info).expect("a track");
        broadcast.announce(Default::default()).expect("announce");
        // Dropping it would retract it.
        std::mem::forget(broadcast);
        track
    }

    /// A broadcast that the peer has announced.
    async fn announced_broadcast(&self, name: &str) -> moq_net::broadcast::Consumer {
        let line = self.tape.opened(BidiType::Announce as u64, false, 0).await;
        let bytes = ours(|out| {
            if self.version >= Version::Lite05 {
                AnnounceOk { hop: 77, active: 1 }.encode(out);
            }
            let hops = Hops::from_slice(&[7]).expect("a chain");
            let cost = Cost { warm: 1, cold: 1 };
            Announce::Start { suffix: path(name), hops, cost }.encode(self.version, out);
        });
        self.tape.answer(line, &bytes, false);
        let mut announced = self.views.announced();
        within("the announcement", announced.next()).await.expect("an update");
        within("the broadcast", self.views.request_broadcast(name)).await.expect("a broadcast")
    }

    /// Subscribes, and answers TRACK where the version asks.
    async fn subscribe(
        &self,
        broadcast: &moq_net::broadcast::Consumer,
        name: &str,
        wanted: track::Subscription,
        nth: usize,
    ) -> Subscribed {
        let pending = broadcast.track(name).expect("a track").subscribe(wanted);
        let answering = async {
            if self.version >= Version::Lite05 {
                let asked = self.tape.opened(BidiType::Track as u64, false, nth).await;
                let request = bidi(BidiType::Track, |out| {
                    TrackRequest { broadcast: path("room/cam"), track: name.to_owned() }
                        .encode(out);
                });
                self.tape.hears(asked, "TRACK", &request).await;
                self.tape.answer(asked, &info(self.version), true);
            }
        };
        let (subscriber, ()) = tokio::join!(within("track information", pending), answering);
        let mut subscriber = subscriber.expect("a subscriber");
        let control = subscriber.control();
        // The client sends SUBSCRIBE when somebody listens, and not before.
        let reader = tokio::spawn(async move { while subscriber.recv_group().await.is_ok() {} });
        let line = self.tape.opened(BidiType::Subscribe as u64, false, nth).await;
        Subscribed { line, control, reader }
    }

    /// Accepts a subscription where the version says so.
    fn accept(&self, line: usize) {
        if self.version < Version::Lite05 {
            self.tape.answer(line, &row(30, self.version), false);
        }
    }
}

#[track_caller]
fn within<T>(what: impl fmt::Display, event: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let happened = tokio::time::timeout(PATIENCE, event).await;
        happened.unwrap_or_else(|_| panic!("{caller}: waited {PATIENCE:?} for {what}"))
    }
}

/// What the transport says that it measures.
#[derive(Clone, Copy, Default)]
struct Stats {
    rtt_ms: Option<u64>,
    bitrate: Option<u64>,
}

impl transport::Stats for Stats {
    fn rtt(&self) -> Option<Duration> {
        self.rtt_ms.map(Duration::from_millis)
    }

    fn estimated_send_rate(&self) -> Option<u64> {
        self.bitrate
    }
}

/// A transport with no network: one end is moq-net's, and the test holds the other.
#[derive(Clone)]
struct Tape {
    version: Version,
    stats: Stats,
    state: Arc<Mutex<State>>,
    /// Touched at everything that moq-net does.
    changed: Arc<watch::Sender<()>>,
}

#[derive(Default)]
struct State {
    lines: Vec<Line>,
    /// Lines that the test has opened and moq-net has not accepted.
    uni: VecDeque<usize>,
    bidi: VecDeque<usize>,
    closed: Option<(u32, String)>,
    /// Of moq-net, to be woken at everything that the test does.
    wakers: Vec<Waker>,
}

/// One stream.
#[derive(Default)]
struct Line {
    is_uni: bool,
    is_ours: bool,
    /// What moq-net has written, and how much of it the test has looked at.
    said: Vec<u8>,
    said_end: Option<Result<(), u32>>,
    looked_at: usize,
    /// What the test has written and moq-net has not read.
    told: VecDeque<u8>,
    told_end: bool,
}

impl Tape {
    fn new(version: Version, stats: Stats) -> Tape {
        let changed = Arc::new(watch::Sender::new(()));
        Tape { version, stats, state: Arc::default(), changed }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("state")
    }

    // ---- the test's end ----

    fn open_uni(&self, bytes: &[u8], fin: bool) -> usize {
        self.open(true, bytes, fin)
    }

    fn open_bidi(&self, bytes: &[u8], fin: bool) -> usize {
        self.open(false, bytes, fin)
    }

    fn open(&self, is_uni: bool, bytes: &[u8], fin: bool) -> usize {
        let mut state = self.state();
        let line = state.lines.len();
        state.lines.push(Line { is_uni, is_ours: true, ..Line::default() });
        let queue = if is_uni { &mut state.uni } else { &mut state.bidi };
        queue.push_back(line);
        drop(state);
        self.answer(line, bytes, fin);
        line
    }

    fn answer(&self, line: usize, bytes: &[u8], fin: bool) {
        let mut state = self.state();
        state.lines[line].told.extend(bytes);
        state.lines[line].told_end |= fin;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The nth stream of a kind that moq-net has opened.
    #[track_caller]
    fn opened(&self, kind: u64, is_uni: bool, nth: usize) -> impl Future<Output = usize> {
        let what = format!("{}: stream {nth} of kind {kind}", self.version);
        self.until(what, move |state| {
            let is_it = |line: &Line| {
                let (is_kind, is_theirs) = (line.is_uni == is_uni, !line.is_ours);
                is_kind && is_theirs && decode_varint(&line.said).is_some_and(|(k, _)| k == kind)
            };
            let lines = state.lines.iter().enumerate().filter(|(_, line)| is_it(line));
            lines.map(|(index, _)| index).nth(nth)
        })
    }

    /// The next bytes of a stream are these.
    #[track_caller]
    fn hears(&self, line: usize, what: &str, expected: &[u8]) -> impl Future<Output = ()> {
        let what = format!("{}: {what} to be {expected:02x?}", self.version);
        let expected = expected.to_vec();
        let caller = std::panic::Location::caller();
        let next = self.until(what.clone(), move |state| {
            let line = &mut state.lines[line];
            let next = &line.said[line.looked_at..];
            // Shown as soon as it differs rather than when it does not come.
            let differs = !expected.starts_with(&next[..next.len().min(expected.len())]);
            if next.len() < expected.len() && line.said_end.is_none() && !differs {
                return None;
            }
            let next = next[..next.len().min(expected.len())].to_vec();
            line.looked_at += next.len();
            Some((next == expected, next))
        });
        async move {
            let (is_right, heard) = next.await;
            assert!(is_right, "{caller}: {what}, not {heard:02x?}");
        }
    }

    /// All bytes of a stream that ends as complete.
    #[track_caller]
    fn to_the_end(&self, line: usize) -> impl Future<Output = Vec<u8>> {
        self.until(format!("{}: the end of stream {line}", self.version), move |state| {
            let line = &state.lines[line];
            let end = line.said_end?;
            assert_eq!(end, Ok(()), "the stream was reset");
            Some(line.said.clone())
        })
    }

    #[track_caller]
    fn until<T>(
        &self,
        what: String,
        mut look: impl FnMut(&mut State) -> Option<T>,
    ) -> impl Future<Output = T> {
        let mut changed = self.changed.subscribe();
        let state = self.state.clone();
        within(what, async move {
            loop {
                if let Some(found) = look(&mut state.lock().expect("state")) {
                    return found;
                }
                changed.changed().await.expect("the tape outlives its readers");
            }
        })
    }

    // ---- moq-net's end ----

    fn opened_by_moq(&self, is_uni: bool) -> (Writer, Reader) {
        let mut state = self.state();
        let line = state.lines.len();
        state.lines.push(Line { is_uni, ..Line::default() });
        drop(state);
        self.ends(line)
    }

    fn ends(&self, line: usize) -> (Writer, Reader) {
        (Writer { tape: self.clone(), line }, Reader { tape: self.clone(), line })
    }

    fn accept(&self, cx: &mut Context<'_>, is_uni: bool) -> Poll<Result<(Writer, Reader), Closed>> {
        let mut state = self.state();
        let queue = if is_uni { &mut state.uni } else { &mut state.bidi };
        match queue.pop_front() {
            Some(line) => {
                drop(state);
                Poll::Ready(Ok(self.ends(line)))
            }
            None => state.wait(cx),
        }
    }

    /// Changes what moq-net has said on a stream.
    fn say(&self, line: usize, say: impl FnOnce(&mut Line)) {
        say(&mut self.state().lines[line]);
        self.changed.send_replace(());
    }
}

impl State {
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        self.wakers.push(cx.waker().clone());
        Poll::Pending
    }
}

impl poll::Session for Tape {
    type SendStream = Writer;
    type RecvStream = Reader;
    type Error = Closed;

    fn poll_accept_uni(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reader, Closed>> {
        self.accept(cx, true).map_ok(|(_, reader)| reader)
    }

    fn poll_accept_bi(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Writer, Reader), Closed>> {
        self.accept(cx, false)
    }

    fn poll_open_uni(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Writer, Closed>> {
        Poll::Ready(Ok(self.opened_by_moq(true).0))
    }

    fn poll_open_bi(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(Writer, Reader), Closed>> {
        Poll::Ready(Ok(self.opened_by_moq(false)))
    }

    fn poll_send_datagram(&mut self, _cx: &mut Context<'_>, _: &[u8]) -> Poll<Result<(), Closed>> {
        Poll::Ready(Ok(()))
    }

    fn poll_recv_datagram(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Closed>> {
        self.state().wait(cx)
    }

    fn max_datagram_size(&self) -> usize {
        1200
    }

    fn protocol(&self) -> Option<&str> {
        Some(self.version.alpn())
    }

    fn close(&mut self, code: u32, reason: &str) {
        self.state().closed.get_or_insert((code, reason.to_owned()));
        self.changed.send_replace(());
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        let mut state = self.state();
        match &state.closed {
            Some((code, reason)) => Poll::Ready(Closed(*code, reason.clone())),
            None => state.wait(cx),
        }
    }

    fn stats(&self) -> impl transport::Stats {
        self.stats
    }
}

struct Writer {
    tape: Tape,
    line: usize,
}

impl poll::SendStream for Writer {
    type Error = Closed;

    fn poll_write(&mut self, _cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize, Closed>> {
        self.tape.say(self.line, |line| line.said.extend_from_slice(buf));
        Poll::Ready(Ok(buf.len()))
    }

    fn set_priority(&mut self, _order: u8) {}

    fn finish(&mut self) -> Result<(), Closed> {
        self.tape.say(self.line, |line| line.said_end = line.said_end.or(Some(Ok(()))));
        Ok(())
    }

    fn reset(&mut self, code: u32) {
        self.tape.say(self.line, |line| line.said_end = line.said_end.or(Some(Err(code))));
    }

    /// A FIN counts as acknowledged at once.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        let mut state = self.tape.state();
        match state.lines[self.line].said_end {
            Some(_) => Poll::Ready(Ok(())),
            None => state.wait(cx),
        }
    }
}

struct Reader {
    tape: Tape,
    line: usize,
}

impl poll::RecvStream for Reader {
    type Error = Closed;

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        dst: &mut [u8],
    ) -> Poll<Result<Option<usize>, Closed>> {
        let mut state = self.tape.state();
        let line = &mut state.lines[self.line];
        if line.told.is_empty() {
            return if line.told_end { Poll::Ready(Ok(None)) } else { state.wait(cx) };
        }
        let size = line.told.len().min(dst.len());
        for (to, from) in dst.iter_mut().zip(line.told.drain(..size)) {
            *to = from;
        }
        Poll::Ready(Ok(Some(size)))
    }

    fn stop(&mut self, _code: u32) {}

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        let mut state = self.tape.state();
        let line = &state.lines[self.line];
        if line.told_end && line.told.is_empty() { Poll::Ready(Ok(())) } else { state.wait(cx) }
    }
}

/// How a session ended.
#[derive(Clone, Debug)]
struct Closed(u32, String);

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "closed with {:#x}: {}", self.0, self.1)
    }
}

impl std::error::Error for Closed {}

impl transport::Error for Closed {
    fn session_error(&self) -> Option<(u32, String)> {
        Some((self.0, self.1.clone()))
    }
}
