//! The wire module against golden vectors (wire_vectors.txt), against inputs that must fail, and
//! against noise.

use bytes::Bytes;
use shardcast::wire::*;

/// Anything a vector can decode to.
#[derive(Clone, PartialEq, Debug)]
enum Value {
    Varint(u64),
    ClientSetup(ClientSetup),
    ServerSetup(ServerSetup),
    Setup(Setup),
    AnnounceRequest(AnnounceRequest),
    AnnounceInit(AnnounceInit),
    AnnounceOk(AnnounceOk),
    Announce(Announce),
    Subscribe(Subscribe),
    Update(Preferences),
    Response(SubscribeResponse),
    Track(TrackRequest),
    TrackInfo(TrackInfo),
    Fetch(Fetch),
    Frames(Vec<(u64, Bytes)>),
    ProbeRequest,
    Probe(Probe),
    Goaway(Goaway),
    Group(GroupHeader, Vec<(u64, Bytes)>),
    Datagram(Datagram),
}

/// One row of the vector file for one of its versions.
struct Vector {
    row: usize,
    version: Version,
    /// What to decode: the part of the name before the colon.
    message: String,
    case: String,
    bytes: Vec<u8>,
}

const MESSAGES: &[&str] = &[
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
    "frames",
    "probe-request",
    "probe",
    "goaway",
    "group",
    "datagram",
];

fn vectors() -> Vec<Vector> {
    let text = include_str!("wire_vectors.txt");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.flat_map(parse_line).collect()
}

fn parse_line(line: &str) -> Vec<Vector> {
    let fields: Vec<&str> = line.split('|').map(str::trim).collect();
    let [row, versions, name, bytes] = fields[..] else { panic!("not a vector: {line}") };
    let (message, case) = name.split_once(':').expect("message:case");
    let vector = |version| Vector {
        row: row.parse().expect("row number"),
        version,
        message: message.to_owned(),
        case: case.to_owned(),
        bytes: hex(bytes),
    };
    parse_versions(versions).into_iter().map(vector).collect()
}

/// `01-03,06`
fn parse_versions(text: &str) -> Vec<Version> {
    let number = |digits: &str| digits.parse::<usize>().expect("version number");
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Version::ALL[number(first) - 1..number(last)].to_vec()
    };
    text.split(',').flat_map(range).collect()
}

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect()
}

fn path(text: &str) -> Path {
    Path::parse(text).expect("path")
}

fn hops(chain: &[u64]) -> Hops {
    Hops::from_slice(chain).expect("hops")
}

// ---- what each vector means ----

fn expected(vector: &Vector) -> Result<Value, Fault> {
    let version = vector.version;
    let legacy = version <= Version::Lite02;
    let subscribe = |id, preferences| {
        let (broadcast, track) = (path("room/cam"), "video".to_owned());
        Value::Subscribe(Subscribe { id, broadcast, track, preferences })
    };
    let preferences = Preferences {
        priority: 128,
        max_age_ms: if legacy { MAX_AGE_MS_UNBOUNDED } else { 500 },
        group_start: None,
        group_end: None,
        frame_start: 0,
        frame_end: None,
    };
    let ten_to_twenty = Preferences { group_start: Some(10), group_end: Some(20), ..preferences };
    let fetch = |frame_start, frame_end| {
        let (broadcast, track) = (path("room"), "video".to_owned());
        Value::Fetch(Fetch { broadcast, track, priority: 3, group: 7, frame_start, frame_end })
    };
    let accepted = |priority| {
        let (max_age_ms, group_start, group_end) = (0, None, None);
        Value::Response(SubscribeResponse::Ok { priority, max_age_ms, group_start, group_end })
    };
    let start = |hops, cost| Value::Announce(Announce::Start { suffix: path("cam"), hops, cost });
    let group = |subscribe_id, sequence, frame_start, frames: &[(u64, &'static str)]| {
        Value::Group(GroupHeader { subscribe_id, sequence, frame_start }, content(frames))
    };

    Ok(match (vector.message.as_str(), vector.case.as_str()) {
        ("varint", "two-bytes") => Value::Varint(15_293),
        ("varint", "four-bytes") => Value::Varint(494_878_333),
        ("varint", "eight-bytes") => Value::Varint(151_288_809_941_952_652),
        ("client-setup", "both-versions") => Value::ClientSetup(ClientSetup {
            versions: vec![Version::Lite02.code(), Version::Lite01.code()],
            parameters: vec![
                LegacyParameter::Number { id: 2, value: 42_069 },
                LegacyParameter::Bytes { id: 7, value: b"moq-lite-js".to_vec() },
            ],
        }),
        ("server-setup", "chose-02") => {
            Value::ServerSetup(ServerSetup { version: Version::Lite02.code(), parameters: vec![] })
        }
        ("setup", "empty") => Value::Setup(Setup::default()),
        ("setup", "probe-hop") => {
            Value::Setup(Setup { probe: ProbeLevel::Report, hop: 1000, ..Setup::default() })
        }
        ("setup", "path-role") => Value::Setup(Setup {
            path: Some("/room?jwt=abc".to_owned()),
            role: Role::Subscriber,
            ..Setup::default()
        }),
        ("setup", "cost") => Value::Setup(Setup { cost: Some(100), ..Setup::default() }),
        ("setup", "id-repeated") => return Err(Fault::ParameterRepeated),
        ("announce-request", "room") => {
            Value::AnnounceRequest(AnnounceRequest { prefix: path("room"), exclude_hop: 0 })
        }
        ("announce-request", "root-exclude-1000") => {
            Value::AnnounceRequest(AnnounceRequest { prefix: Path::root(), exclude_hop: 1000 })
        }
        ("announce-init", "two") => {
            Value::AnnounceInit(AnnounceInit { suffixes: vec![path("a"), path("b/c")] })
        }
        ("announce-init", "none") => Value::AnnounceInit(AnnounceInit::default()),
        ("announce-ok", "hop-1000") => Value::AnnounceOk(AnnounceOk { hop: 1000, active: 1 }),
        ("announce", "active") => start(Hops::new(), Cost::ZERO),
        ("announce", "active-two-hops") => start(hops(&[0, 0]), Cost::ZERO),
        ("announce", "active-chain") => start(hops(&[7, 1000]), Cost::ZERO),
        ("announce", "start") => start(hops(&[7]), Cost { warm: 1, cold: 1 }),
        ("announce", "ended") => Value::Announce(Announce::Ended { suffix: path("cam") }),
        ("announce", "end") => Value::Announce(Announce::End { id: 42 }),
        ("announce", "restart") => Value::Announce(Announce::Restart {
            id: 0,
            hops: hops(&[7, 9]),
            cost: Cost { warm: 2, cold: 2 },
        }),
        ("subscribe", "plain" | "500-ms") => subscribe(0, preferences),
        ("subscribe", "groups-10-20") => subscribe(1, ten_to_twenty),
        ("subscribe", "groups-10-20-frames-3-7") => {
            subscribe(1, Preferences { frame_start: 3, frame_end: Some(7), ..ten_to_twenty })
        }
        ("update", "pause") => Value::Update(Preferences {
            priority: 0,
            max_age_ms: 0,
            group_end: Some(9),
            ..preferences
        }),
        ("update", "floor") => Value::Update(Preferences {
            priority: 200,
            max_age_ms: 1000,
            group_start: Some(5),
            frame_start: 2,
            ..preferences
        }),
        ("response", "ok") => accepted(128),
        ("response", "ok-bare") => accepted(0),
        ("response", "start") => Value::Response(SubscribeResponse::Start { group: 5 }),
        ("response", "end") => Value::Response(SubscribeResponse::End { group: 7 }),
        ("response", "drop") => {
            Value::Response(SubscribeResponse::Drop { start: 5, end: 7, code: 0 })
        }
        ("track", "room-video") => {
            Value::Track(TrackRequest { broadcast: path("room"), track: "video".to_owned() })
        }
        ("track-info", "default") => {
            Value::TrackInfo(TrackInfo { priority: 127, max_age_ms: 5000, timescale: 1000 })
        }
        ("fetch", "whole-group") => fetch(0, None),
        ("fetch", "frames-2-6") => fetch(2, Some(6)),
        ("frames", "fetch-reply") => Value::Frames(content(&[(1000, "abc"), (1020, "de")])),
        ("probe-request", "bare") => Value::ProbeRequest,
        ("probe", "5-mbit") => Value::Probe(Probe { bitrate: 5_000_000, rtt_ms: 0 }),
        ("probe", "5-mbit-25-ms") => Value::Probe(Probe { bitrate: 5_000_000, rtt_ms: 25 }),
        ("goaway", "same-place") => Value::Goaway(Goaway::default()),
        ("goaway", "elsewhere") => Value::Goaway(Goaway { uri: "https://b.example/".to_owned() }),
        // Before 05 frames have no timestamps.
        ("group", "hello-empty") if version < Version::Lite05 => {
            group(0, 5, 0, &[(0, "hello"), (0, "")])
        }
        ("group", "hello-empty") => group(0, 5, 0, &[(90_000, "hello"), (87_000, "")]),
        ("group", "from-frame-3") => group(1, 10, 3, &[(90_000, "x")]),
        ("datagram", "world") => Value::Datagram(Datagram {
            subscribe_id: 1,
            sequence: 2,
            timestamp: 3,
            payload: Bytes::from_static(b"world"),
        }),
        (message, case) => panic!("no expectation for {message}:{case}"),
    })
}

fn content(frames: &[(u64, &'static str)]) -> Vec<(u64, Bytes)> {
    frames.iter().map(|&(at, text)| (at, Bytes::from_static(text.as_bytes()))).collect()
}

// ---- a reader and a writer of whole vectors ----

type Taken<T> = Result<Option<(T, usize)>, DecodeError>;

/// The stream type a vector of this message begins with.
fn stream_type(message: &str) -> Option<u64> {
    Some(match message {
        "client-setup" => BidiType::ClientSetup as u64,
        "server-setup" => ServerSetup::TYPE,
        "setup" => UniType::Setup as u64,
        "announce-request" => BidiType::Announce as u64,
        "subscribe" => BidiType::Subscribe as u64,
        "track" => BidiType::Track as u64,
        "fetch" => BidiType::Fetch as u64,
        "probe-request" => BidiType::Probe as u64,
        "goaway" => BidiType::Goaway as u64,
        "group" => UniType::Group as u64,
        _ => return None,
    })
}

/// Decodes what is at the front of `buf`: the value and the bytes it took.
fn take(message: &str, version: Version, buf: &[u8]) -> Taken<Value> {
    let mut head = 0;
    if let Some(expected) = stream_type(message) {
        let Some((found, used)) = decode_varint(buf) else {
            return Ok(None);
        };
        if found != expected {
            return Err(DecodeError::new(Fault::InvalidValue, 0));
        }
        head = used;
    }
    let taken = take_message(message, version, &buf[head..])?;
    Ok(taken.map(|(value, used)| (value, head + used)))
}

fn take_message(message: &str, version: Version, buf: &[u8]) -> Taken<Value> {
    fn request(
        buf: &[u8],
        decode: impl FnOnce(&[u8]) -> Result<Value, DecodeError>,
    ) -> Taken<Value> {
        let Some((body, used)) = split_message(buf, CONTROL_MESSAGE_BYTES_MAX)? else {
            return Ok(None);
        };
        Ok(Some((decode(body)?, used)))
    }
    fn wrap<T>(taken: Taken<T>, wrap: impl FnOnce(T) -> Value) -> Taken<Value> {
        Ok(taken?.map(|(value, used)| (wrap(value), used)))
    }
    match message {
        "varint" => wrap(Ok(decode_varint(buf)), Value::Varint),
        "client-setup" => wrap(ClientSetup::take(buf), Value::ClientSetup),
        "server-setup" => wrap(ServerSetup::take(buf), Value::ServerSetup),
        "setup" => request(buf, |body| Setup::decode(body).map(Value::Setup)),
        "announce-request" => {
            request(buf, |body| AnnounceRequest::decode(version, body).map(Value::AnnounceRequest))
        }
        "announce-init" => wrap(AnnounceInit::take(buf), Value::AnnounceInit),
        "announce-ok" => wrap(AnnounceOk::take(buf), Value::AnnounceOk),
        "announce" => wrap(Announce::take(version, buf), Value::Announce),
        "subscribe" => request(buf, |body| Subscribe::decode(version, body).map(Value::Subscribe)),
        "update" => {
            request(buf, |body| Preferences::decode_update(version, body).map(Value::Update))
        }
        "response" => wrap(SubscribeResponse::take(version, buf), Value::Response),
        "track" => request(buf, |body| TrackRequest::decode(body).map(Value::Track)),
        "track-info" => wrap(TrackInfo::take(version, buf), Value::TrackInfo),
        "fetch" => request(buf, |body| Fetch::decode(version, body).map(Value::Fetch)),
        "frames" => wrap(take_frames(version, buf), Value::Frames),
        "probe-request" => Ok(Some((Value::ProbeRequest, 0))),
        "probe" => wrap(Probe::take(version, buf), Value::Probe),
        "goaway" => request(buf, |body| Goaway::decode(body).map(Value::Goaway)),
        "group" => {
            let Some((header, used)) = GroupHeader::take(version, buf)? else {
                return Ok(None);
            };
            let frames = take_frames(version, &buf[used..])?;
            Ok(frames.map(|(frames, more)| (Value::Group(header, frames), used + more)))
        }
        "datagram" => {
            let datagram = Datagram::decode(Bytes::copy_from_slice(buf))?;
            Ok(Some((Value::Datagram(datagram), buf.len())))
        }
        _ => panic!("no decoder for {message}"),
    }
}

/// Frames until the end of `buf`, which stands for a FIN. An end inside a frame is incomplete.
fn take_frames(version: Version, buf: &[u8]) -> Taken<Vec<(u64, Bytes)>> {
    let (mut frames, mut at, mut timestamp) = (vec![], 0, 0);
    while at < buf.len() {
        let Some((header, used)) = FrameHeader::take(version, &buf[at..]) else {
            return Ok(None);
        };
        at += used;
        timestamp = timestamp_after(timestamp, header.timestamp_delta)
            .ok_or(DecodeError::new(Fault::InvalidValue, at))?;
        if header.size > (buf.len() - at) as u64 {
            return Ok(None);
        }
        let end = at + header.size as usize;
        frames.push((timestamp, Bytes::copy_from_slice(&buf[at..end])));
        at = end;
    }
    Ok(Some((frames, at)))
}

fn encode(value: &Value, message: &str, version: Version) -> Vec<u8> {
    let mut out = vec![];
    if let Some(kind) = stream_type(message) {
        encode_varint(kind, &mut out);
    }
    match value {
        Value::Varint(value) => encode_varint(*value, &mut out),
        Value::ClientSetup(setup) => setup.encode(&mut out),
        Value::ServerSetup(setup) => setup.encode(&mut out),
        Value::Setup(setup) => setup.encode(&mut out),
        Value::AnnounceRequest(request) => request.encode(version, &mut out),
        Value::AnnounceInit(init) => init.encode(&mut out),
        Value::AnnounceOk(ok) => ok.encode(&mut out),
        Value::Announce(announce) => announce.encode(version, &mut out),
        Value::Subscribe(subscribe) => subscribe.encode(version, &mut out),
        Value::Update(preferences) => preferences.encode_update(version, &mut out),
        Value::Response(response) => response.encode(version, &mut out),
        Value::Track(request) => request.encode(&mut out),
        Value::TrackInfo(info) => info.encode(version, &mut out),
        Value::Fetch(fetch) => fetch.encode(version, &mut out),
        Value::Frames(frames) => encode_frames(frames, version, &mut out),
        Value::ProbeRequest => {}
        Value::Probe(probe) => probe.encode(version, &mut out),
        Value::Goaway(goaway) => goaway.encode(&mut out),
        Value::Group(header, frames) => {
            header.encode(version, &mut out);
            encode_frames(frames, version, &mut out);
        }
        Value::Datagram(datagram) => datagram.encode(&mut out),
    }
    out
}

fn encode_frames(frames: &[(u64, Bytes)], version: Version, out: &mut Vec<u8>) {
    let mut previous = 0;
    for (timestamp, payload) in frames {
        let timestamp_delta = timestamp_delta(previous, *timestamp).expect("in range");
        FrameHeader { timestamp_delta, size: payload.len() as u64 }.encode(version, out);
        out.extend_from_slice(payload);
        previous = *timestamp;
    }
}

/// The bytes of a vector before its length prefix, its body, and the frames after it. `None`
/// where there is no length prefix.
fn split_vector(vector: &Vector) -> Option<(&[u8], &[u8], &[u8])> {
    let typed = match vector.message.as_str() {
        "varint" | "frames" | "probe-request" | "datagram" => return None,
        "announce" => vector.version >= Version::Lite06,
        "response" => vector.version >= Version::Lite03,
        message => stream_type(message).is_some(),
    };
    let (head, rest) = vector.bytes.split_at(usize::from(typed));
    let (start, end) = if has_wide_length(vector) {
        (2, 2 + usize::from(u16::from_be_bytes([rest[0], rest[1]])))
    } else {
        let (body, end) = split_message(rest, usize::MAX).expect("valid").expect("whole");
        (end - body.len(), end)
    };
    Some((head, &rest[start..end], &rest[end..]))
}

/// The legacy SETUP has two bytes of length.
fn has_wide_length(vector: &Vector) -> bool {
    matches!(vector.message.as_str(), "client-setup" | "server-setup")
}

/// The vector with another body, correctly framed.
fn reframe(vector: &Vector, body: &[u8]) -> Vec<u8> {
    let (head, _, frames) = split_vector(vector).expect("a framed vector");
    let mut out = head.to_vec();
    if has_wide_length(vector) {
        out.extend_from_slice(&(body.len() as u16).to_be_bytes());
    } else {
        encode_varint(body.len() as u64, &mut out);
    }
    out.extend_from_slice(body);
    out.extend_from_slice(frames);
    out
}

// ---- golden vectors ----

#[test]
fn every_row_is_present() {
    let rows: std::collections::BTreeSet<usize> = vectors().iter().map(|v| v.row).collect();
    assert!(rows.into_iter().eq(1..=51));
    assert!(vectors().iter().all(|vector| MESSAGES.contains(&vector.message.as_str())));
}

#[test]
fn vectors_decode_to_their_value_and_back() {
    for vector in vectors() {
        let Vector { row, version, message, bytes, .. } = &vector;
        let taken = take(message, *version, bytes);
        match expected(&vector) {
            Ok(value) => {
                assert_eq!(taken, Ok(Some((value.clone(), bytes.len()))), "row {row} {version}");
                assert_eq!(&encode(&value, message, *version), bytes, "row {row} {version}");
            }
            Err(fault) => {
                assert_eq!(taken.map_err(|e| e.fault), Err(fault), "row {row} {version}");
            }
        }
    }
}

#[test]
fn a_message_leaves_what_follows_it_alone() {
    for vector in vectors() {
        let Vector { row, version, message, bytes, .. } = &vector;
        let Ok(value) = expected(&vector) else {
            continue;
        };
        if matches!(message.as_str(), "frames" | "group" | "datagram") {
            continue; // these run to the end of their stream
        }
        let followed = [&bytes[..], &[0x2a, 0xff, 0x00]].concat();
        let taken = take(message, *version, &followed);
        assert_eq!(taken, Ok(Some((value, bytes.len()))), "row {row} {version}");
    }
}

#[test]
fn a_vector_cut_anywhere_is_incomplete() {
    for vector in vectors() {
        let Vector { row, version, message, bytes, .. } = &vector;
        let Ok(value) = expected(&vector) else {
            continue;
        };
        for cut in 0..bytes.len() {
            let taken = take(message, *version, &bytes[..cut]);
            let what = format!("row {row} {version} cut at {cut}: {taken:?}");
            match message.as_str() {
                // A cut between frames, or in the payload of a datagram, is not visible there.
                "frames" | "group" | "datagram" => {
                    assert!(taken.ok().flatten().is_none_or(|(found, _)| found != value), "{what}");
                }
                _ => assert_eq!(taken, Ok(None), "{what}"),
            }
        }
    }
}

#[test]
fn a_body_cut_anywhere_is_short() {
    for vector in vectors() {
        let Vector { row, version, message, .. } = &vector;
        let Some((_, body, _)) = split_vector(&vector) else {
            continue;
        };
        for cut in 0..body.len() {
            let taken = take(message, *version, &reframe(&vector, &body[..cut]));
            let fault = taken.map_err(|error| error.fault);
            let repeated = vector.case == "id-repeated" && fault == Err(Fault::ParameterRepeated);
            assert!(fault == Err(Fault::Short) || repeated, "row {row} {version} cut at {cut}");
        }
    }
}

#[test]
fn a_spare_byte_in_a_body_is_long() {
    for vector in vectors() {
        let Vector { row, version, message, .. } = &vector;
        let Some((_, body, _)) = split_vector(&vector) else {
            continue;
        };
        if expected(&vector).is_err() {
            continue;
        }
        let spare = [body, &[0]].concat();
        let error = DecodeError::new(Fault::Long, body.len());
        let taken = take(message, *version, &reframe(&vector, &spare));
        assert_eq!(taken, Err(error), "row {row} {version}");
    }
}

// ---- inputs that must fail ----

#[track_caller]
fn refuses(message: &str, version: Version, bytes: &str, fault: Fault, offset: usize) {
    let taken = take(message, version, &hex(bytes));
    assert_eq!(taken, Err(DecodeError::new(fault, offset)));
}

#[test]
fn a_timescale_of_zero() {
    refuses("track-info", Version::Lite05, "05 7f 00 53 88 00", Fault::InvalidValue, 4);
    refuses("track-info", Version::Lite06, "04 7f 53 88 00", Fault::InvalidValue, 3);
}

#[test]
fn a_frame_end_without_its_group_end() {
    let subscribe = "02 17 00 08 72 6f 6f 6d 2f 63 61 6d 05 76 69 64 65 6f 80 41 f4 00 00 00 08";
    refuses("subscribe", Version::Lite06, subscribe, Fault::InvalidValue, 22);
    refuses("update", Version::Lite06, "07 80 41 f4 00 00 00 08", Fault::InvalidValue, 6);
}

#[test]
fn a_fetch_that_ends_before_it_starts() {
    let fetch = "03 0f 04 72 6f 6f 6d 05 76 69 64 65 6f 03 07 03 03";
    refuses("fetch", Version::Lite06, fetch, Fault::InvalidValue, 14);
}

#[test]
fn a_group_cut_inside_a_payload_is_not_its_end() {
    let cut = hex("00 02 00 05 05 68 65");
    for version in [Version::Lite03, Version::Lite04] {
        assert_eq!(take("group", version, &cut), Ok(None));
        let (header, used) = FrameHeader::take(version, &cut[4..]).expect("a frame header");
        assert_eq!(header.size, 5);
        assert_eq!(cut[4 + used..].len(), 2);
    }
}

#[test]
fn an_announce_end_leaves_its_id_to_the_session() {
    let taken = Announce::take(Version::Lite06, &hex("01 01 2a"));
    assert_eq!(taken, Ok(Some((Announce::End { id: 42 }, 3))));
}

#[test]
fn setup_faults() {
    let refuses = |bytes, fault, offset| refuses("setup", Version::Lite06, bytes, fault, offset);
    refuses("01 05 02 00 00 00 00", Fault::ParameterRepeated, 3); // an unknown id twice
    refuses("01 07 02 05 01 01 05 01 02", Fault::ParameterRepeated, 4);
    refuses("01 05 01 05 02 01 01", Fault::Long, 4); // a varint shorter than its parameter
    refuses("01 04 01 05 01 40", Fault::Short, 3); // and one longer
    refuses("01 04 01 02 01 ff", Fault::InvalidUtf8, 3);
    refuses("01 04 01 02 05 61", Fault::Short, 2);
    refuses("01 02 40 41", Fault::ParametersTooMany, 0);
    refuses("01 80 01 00 01", Fault::TooLarge, 0);
    let oversized = vec![0; CONTROL_MESSAGE_BYTES_MAX + 1];
    assert_eq!(Setup::decode(&oversized), Err(DecodeError::new(Fault::TooLarge, 0)));
}

#[test]
fn announce_faults() {
    let refuses = |version, bytes, fault, at| refuses("announce", version, bytes, fault, at);
    refuses(Version::Lite05, "03 03 00 00", Fault::InvalidValue, 0); // no such status
    refuses(Version::Lite04, "06 02 03 63 61 6d 00", Fault::InvalidValue, 0); // restart is 05's
    refuses(Version::Lite05, "05 01 00 02 07 07", Fault::HopRepeated, 4);
    refuses(Version::Lite05, "03 01 00 21", Fault::HopsTooMany, 2);
    refuses(Version::Lite03, "03 01 00 21", Fault::HopsTooMany, 2);
    refuses(Version::Lite06, "00 05 01 2a 00 00 00", Fault::InvalidValue, 0); // "*"
    refuses(Version::Lite06, "00 06 02 2a 2a 00 00 00", Fault::InvalidValue, 0); // "**"
    refuses(Version::Lite01, "03 01 01 ff", Fault::InvalidUtf8, 2);
}

#[test]
fn response_faults() {
    let refuses = |version, bytes, fault| refuses("response", version, bytes, fault, 0);
    refuses(Version::Lite03, "02 03 05 07 00", Fault::InvalidValue);
    refuses(Version::Lite06, "03 00", Fault::InvalidValue);
}

#[test]
fn a_body_over_the_limit_is_refused_by_its_length_alone() {
    // 65537 and 2^62 - 1, with nothing behind them.
    for length in ["80 01 00 01", "ff ff ff ff ff ff ff ff"] {
        let error = Err(DecodeError::new(Fault::TooLarge, 0));
        assert_eq!(AnnounceInit::take(&hex(length)), error.map(|()| None));
        assert_eq!(split_message(&hex(length), 65536), error.map(|()| None));
    }
    assert_eq!(split_message(&hex("80 01 00 00"), 65536), Ok(None));
    let long_header = GroupHeader::take(Version::Lite06, &hex("19"));
    assert_eq!(long_header, Err(DecodeError::new(Fault::TooLarge, 0)));
}

#[test]
fn a_huge_count_reserves_nothing() {
    let init = hex("09 ff ff ff ff ff ff ff ff 00");
    assert_eq!(AnnounceInit::take(&init), Err(DecodeError::new(Fault::Short, 9)));
    let setup = hex("00 09 ff ff ff ff ff ff ff ff 00");
    assert_eq!(ClientSetup::take(&setup), Err(DecodeError::new(Fault::TooLarge, 0)));
}

#[test]
fn a_goaway_uri_has_a_limit() {
    let goaway = |length| Goaway { uri: "u".repeat(length) };
    let longest = goaway(GOAWAY_URI_BYTES_MAX);
    let bytes = encode(&Value::Goaway(longest.clone()), "goaway", Version::Lite06);
    assert_eq!(
        take("goaway", Version::Lite06, &bytes),
        Ok(Some((Value::Goaway(longest), bytes.len())))
    );
    let mut body = vec![];
    encode_varint(GOAWAY_URI_BYTES_MAX as u64 + 1, &mut body);
    body.extend_from_slice(goaway(GOAWAY_URI_BYTES_MAX + 1).uri.as_bytes());
    assert_eq!(Goaway::decode(&body), Err(DecodeError::new(Fault::TooLarge, 0)));
}

// ---- what the vectors do not show ----

#[test]
fn unknown_announcements_are_skipped_by_length() {
    let taken = Announce::take(Version::Lite06, &hex("07 03 ff ff ff 01 01 2a"));
    assert_eq!(taken, Ok(Some((Announce::Unknown, 5))));
}

#[test]
fn a_05_restart_is_read_in_its_explicit_form_and_written_as_active() {
    let restart = Announce::Restart05 { suffix: path("cam"), hops: hops(&[7]) };
    let taken = Announce::take(Version::Lite05, &hex("07 02 03 63 61 6d 01 07"));
    assert_eq!(taken, Ok(Some((restart.clone(), 8))));
    let bytes = encode(&Value::Announce(restart), "announce", Version::Lite05);
    assert_eq!(bytes, hex("07 01 03 63 61 6d 01 07"));
}

#[test]
fn a_message_its_version_lacks_is_not_written() {
    let ended = Announce::Ended { suffix: path("cam") };
    assert!(encode(&Value::Announce(ended), "announce", Version::Lite06).is_empty());
    let end = Announce::End { id: 1 };
    assert!(encode(&Value::Announce(end), "announce", Version::Lite05).is_empty());
    let start = SubscribeResponse::Start { group: 1 };
    assert!(encode(&Value::Response(start), "response", Version::Lite04).is_empty());
}

#[test]
fn a_floor_of_zero_counts_only_with_a_frame() {
    let decode = |bytes| Preferences::decode_update(Version::Lite06, &hex(bytes)).expect("valid");
    assert_eq!(decode("80 00 00 00 00 00").group_start, None);
    assert_eq!(decode("80 00 00 00 03 00").group_start, Some(0));
    assert_eq!(decode("80 00 04 00 00 00").group_start, Some(4));
}

#[test]
fn the_retired_ordered_byte_may_be_anything() {
    let update = Preferences::decode_update(Version::Lite05, &hex("80 ff 41 f4 01 00"));
    assert_eq!(update.expect("valid").group_start, Some(0));
}

#[test]
fn setup_forgives_what_it_does_not_know() {
    let decode = |bytes| Setup::decode(&hex(bytes)).expect("valid");
    assert_eq!(decode("01 01 01 09").probe, ProbeLevel::Increase);
    assert_eq!(decode("01 03 01 09").role, Role::Both);
    assert_eq!(decode("01 04 01 00").cost, Some(0)); // a free link, unlike none
    assert_eq!(decode("01 02 00").path, None);
    assert_eq!(decode("02 40 ff 02 de ad 05 01 07").hop, 7);
    // Parameters come in any order.
    assert_eq!(decode("02 05 01 07 01 01 01"), decode("02 01 01 01 05 01 07"));
}

#[test]
fn setup_writes_parameters_in_ascending_order() {
    let setup = Setup {
        probe: ProbeLevel::Increase,
        path: Some("/".to_owned()),
        role: Role::Publisher,
        cost: Some(0),
        hop: 9,
    };
    let bytes = encode(&Value::Setup(setup.clone()), "setup", Version::Lite06);
    assert_eq!(bytes, hex("01 10 05 01 01 02 02 01 2f 03 01 01 04 01 00 05 01 09"));
    assert_eq!(Setup::decode(&bytes[2..]), Ok(setup));
}

#[test]
fn paths_and_queries_split_at_the_first_question_mark() {
    assert_eq!(split_path_query("/room?jwt=a?b"), ("/room", Some("jwt=a?b")));
    assert_eq!(split_path_query("/room"), ("/room", None));
    assert_eq!(split_path_query("?"), ("", Some("")));
}

#[test]
fn long_messages_get_long_prefixes() {
    for length in [62, 63, 64, 16_379, 16_380, 16_384, 60_000] {
        let request = TrackRequest { broadcast: path("b"), track: "t".repeat(length) };
        let mut bytes = b"before".to_vec();
        request.encode(&mut bytes);
        let (body, used) = split_message(&bytes[6..], 65_536).expect("valid").expect("whole");
        assert_eq!(used, bytes.len() - 6);
        assert_eq!(used, varint_len(body.len() as u64) + body.len());
        assert_eq!(TrackRequest::decode(body), Ok(request));
        assert!(bytes.starts_with(b"before"));
    }
}

#[test]
fn varints_at_every_boundary() {
    let edges = [0, 1, 0x3f, 0x40, 0x3fff, 0x4000, 0x3fff_ffff, 0x4000_0000, VARINT_MAX];
    for (value, length) in edges.into_iter().zip([1, 1, 1, 2, 2, 4, 4, 8, 8]) {
        let mut out = vec![];
        encode_varint(value, &mut out);
        assert_eq!((out.len(), varint_len(value)), (length, length));
        assert_eq!(decode_varint(&out), Some((value, length)));
        assert!((0..length).all(|cut| decode_varint(&out[..cut]).is_none()));
    }
    assert_eq!(decode_varint(&hex("c0 00 00 00 00 00 00 25")), Some((0x25, 8)));
    assert_eq!(decode_varint(&hex("40 25")), Some((0x25, 2)));
}

#[test]
fn zigzag_folds_the_sign() {
    let edge = 1i64 << 61;
    for (n, folded) in [(0, 0), (-1, 1), (1, 2), (-2, 3), (-edge, VARINT_MAX)] {
        assert_eq!((zigzag(n), unzigzag(folded)), (folded, n));
    }
    for n in [i64::MIN, i64::MAX, edge - 1] {
        assert_eq!(unzigzag(zigzag(n)), n);
    }
}

#[test]
fn timestamps_stay_in_range() {
    assert_eq!(timestamp_after(90_000, -3_000), Some(87_000));
    assert_eq!(timestamp_after(5, -6), None);
    assert_eq!(timestamp_after(VARINT_MAX, 1), None);
    assert_eq!(timestamp_delta(90_000, 87_000), Some(-3_000));
    assert_eq!(timestamp_delta(0, (1 << 61) - 1), Some((1 << 61) - 1));
    assert_eq!(timestamp_delta(0, 1 << 61), None);
    assert_eq!(timestamp_delta(0, u64::MAX), None);
}

#[test]
fn paths_are_normalised() {
    for (raw, normal) in [
        ("", ""),
        ("/", ""),
        ("///", ""),
        ("a", "a"),
        ("a/b", "a/b"),
        ("/a//b/", "a/b"),
        ("a/b/", "a/b"),
        ("a*/**b", "a*/**b"),
    ] {
        assert_eq!(path(raw).as_str(), normal, "{raw:?}");
        assert_eq!(path(raw), path(normal));
    }
    assert!(path("/").is_root() && path("/") == Path::default());
    for raw in ["*", "**", "a/*", "/a//**/b"] {
        assert_eq!(Path::parse(raw), Err(Fault::InvalidValue), "{raw:?}");
    }
    let deepest = ["s"; PATH_SEGMENTS_MAX].join("/");
    assert_eq!(path(&deepest).segments().count(), PATH_SEGMENTS_MAX);
    assert_eq!(Path::parse(&format!("{deepest}/s")), Err(Fault::PathTooDeep));
}

#[test]
fn paths_cover_by_whole_segments() {
    assert!(path("foo").has_prefix(&path("foo")));
    assert!(path("foo/bar").has_prefix(&path("foo")));
    assert!(!path("foobar").has_prefix(&path("foo")));
    assert!(!path("foo").has_prefix(&path("foo/bar")));
    assert!(path("foo").has_prefix(&Path::root()) && Path::root().has_prefix(&Path::root()));
    assert!(!Path::root().has_prefix(&path("foo")));

    assert_eq!(path("a/b/c").strip_prefix(&path("a")), Some(path("b/c")));
    assert_eq!(path("a/b").strip_prefix(&path("a/b")), Some(Path::root()));
    assert_eq!(path("a/b").strip_prefix(&Path::root()), Some(path("a/b")));
    assert_eq!(path("ab").strip_prefix(&path("a")), None);

    assert_eq!(path("a").join(&path("b/c")), Ok(path("a/b/c")));
    assert_eq!(Path::root().join(&path("b")), Ok(path("b")));
    assert_eq!(path("a").join(&Path::root()), Ok(path("a")));
    let deepest = path(&["s"; PATH_SEGMENTS_MAX].join("/"));
    assert_eq!(deepest.join(&path("s")), Err(Fault::PathTooDeep));
}

#[test]
fn paths_know_what_is_hidden() {
    assert!(path(".stats/a").starts_hidden() && path(".stats/a").has_hidden_segment());
    assert!(!path("a/.b").starts_hidden() && path("a/.b").has_hidden_segment());
    assert!(!path("a.b/c").has_hidden_segment() && !Path::root().has_hidden_segment());
    assert!(Path::root().segments().next().is_none());
}

#[test]
fn hops_hold_each_identity_once() {
    let mut chain = hops(&[0, 7, 0]);
    assert_eq!(chain.push(7), Err(Fault::HopRepeated));
    assert_eq!(chain.push(0), Ok(()));
    assert_eq!(chain.insert_front(9), Ok(()));
    assert_eq!(chain.as_slice(), [9, 0, 7, 0, 0]);
    assert!(chain.contains(7) && !chain.contains(0) && chain.is_anonymous());
    assert_eq!((chain.first(), chain.len()), (Some(9), 5));
    assert!(!hops(&[1, 2]).is_anonymous() && Hops::new().first().is_none());

    let mut full = Hops::anonymous(HOPS_MAX).expect("fits");
    assert_eq!(full.push(1), Err(Fault::HopsTooMany));
    assert_eq!(full.insert_front(1), Err(Fault::HopsTooMany));
    assert_eq!(Hops::anonymous(HOPS_MAX + 1), Err(Fault::HopsTooMany));
}

#[test]
fn costs_compare_warm_first_and_saturate() {
    let cost = |warm, cold| Cost { warm, cold };
    assert!(cost(1, 9) < cost(2, 0) && cost(1, 1) < cost(1, 2));
    assert_eq!(cost(1, 2).saturating_add(3), cost(4, 5));
    assert_eq!(Cost::UNPRICED.saturating_add(1), cost(1, VARINT_MAX));
    assert_eq!(Cost::MAX.saturating_add(u64::MAX), Cost::MAX);
}

#[test]
fn versions_are_named_exactly() {
    for version in &Version::ALL[2..] {
        let named = Protocol::from_name(version.alpn().as_bytes());
        assert_eq!(named, Some(Protocol::Version(*version)));
        assert_eq!(version.alpn(), version.to_string());
    }
    assert_eq!(Protocol::from_name(b"moql"), Some(Protocol::Legacy));
    for alpn in ["moql2", "moq-lite-06-wip", "moq-lite-07-wip", "moq-lite-0", "moq-00", "h3", ""] {
        assert_eq!(Protocol::from_name(alpn.as_bytes()), None, "{alpn}");
    }
    assert_eq!(Version::Lite01.to_string(), "moq-lite-01");
    assert_eq!(Version::Lite06.code(), 0xff0d_ad06);
    assert_eq!(Version::from_code(0xff0d_ad02), Some(Version::Lite02));
    assert_eq!(Version::from_code(0xff0d_ad07), None);
}

#[test]
fn stream_types_by_version() {
    #[track_caller]
    fn check(supported: impl Fn(Version) -> bool, expected: &str) {
        let mark = |version| if supported(version) { 'x' } else { '.' };
        assert_eq!(Version::ALL.map(mark).iter().collect::<String>(), expected);
    }
    for (kind, name, expected) in [
        (0x0, BidiType::Session, "......"),
        (0x1, BidiType::Announce, "xxxxxx"),
        (0x2, BidiType::Subscribe, "xxxxxx"),
        (0x3, BidiType::Fetch, "....xx"),
        (0x4, BidiType::Probe, "..xxxx"),
        (0x5, BidiType::Goaway, "...xxx"),
        (0x6, BidiType::Track, "....xx"),
        (0x20, BidiType::ClientSetup, "xx...."),
    ] {
        assert_eq!((BidiType::from_u64(kind), name as u64), (Some(name), kind));
        check(|version| name.supported(version), expected);
    }
    for (kind, name, expected) in [(0, UniType::Group, "xxxxxx"), (1, UniType::Setup, "....xx")] {
        assert_eq!((UniType::from_u64(kind), name as u64), (Some(name), kind));
        check(|version| name.supported(version), expected);
    }
    assert_eq!((BidiType::from_u64(0x7), BidiType::from_u64(0x21)), (None, None));
    assert_eq!(UniType::from_u64(0x2), None);
}

#[test]
fn stream_codes_over_http3() {
    assert_eq!(StreamCode::CANCEL.to_http3(), 0x52e4_a40f_a8dc);
    assert_eq!(StreamCode::NOT_FOUND.to_http3(), 0x52e4_a40f_a90f);
    assert_eq!(StreamCode(u64::from(u32::MAX)).to_http3(), 0x52e5_ac98_3162);
    assert_eq!(StreamCode(1 << 32).to_http3(), StreamCode::INTERNAL.to_http3());
    for code in (0..2000).chain([u64::from(u32::MAX) - 1, u64::from(u32::MAX)]) {
        let code = StreamCode(code);
        assert_eq!(StreamCode::from_http3(code.to_http3()), Some(code));
        assert_eq!(StreamCode::from_raw_quic(code.to_http3()), code);
        assert_eq!(StreamCode::from_raw_quic(code.0), code);
    }
    for outside in [0, 0x52e4_a40f_a8da, 0x52e5_ac98_3163, u64::MAX] {
        assert_eq!(StreamCode::from_http3(outside), None);
    }
    // The first code HTTP/3 reserves inside the range.
    assert_eq!(StreamCode::from_http3(0x52e4_a40f_a8db + 30), None);
    assert_eq!(StreamCode::from_raw_quic(u64::MAX), StreamCode::INTERNAL);
    assert_eq!(SessionCode::from_http3(SessionCode::VERSION.to_http3()), Some(SessionCode(0x15)));
}

#[test]
fn stream_codes_are_relayed_if_they_mean_something() {
    for known in [0x0, 0x1, 0x5, 0x12, 0x31, 0x35, 0x39, 0x40, 0x1234] {
        assert_eq!(StreamCode(known).relayed(), StreamCode(known));
    }
    for unknown in [0x6, 0x11, 0x13, 0x20, 0x2f, 0x30, 0x3a, 0x3f] {
        assert_eq!(StreamCode(unknown).relayed(), StreamCode::INTERNAL);
    }
    assert_eq!(StreamCode::OLD.to_string(), "old (0x34)");
    assert_eq!(StreamCode(0x45).to_string(), "application 5 (0x45)");
    assert_eq!(SessionCode(0xf).to_string(), "unknown (0xf)");
}

#[test]
fn decode_errors_say_what_and_where() {
    let error = DecodeError::new(Fault::HopRepeated, 4);
    assert_eq!(error.to_string(), "hop repeated at byte 4");
}

// ---- noise ----

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        ((self.next() >> 32) as usize) % bound
    }
}

/// Whatever decodes must encode to something that decodes to the same.
fn survives(message: &str, version: Version, bytes: &[u8]) {
    let Ok(Some((value, used))) = take(message, version, bytes) else {
        return;
    };
    assert!(used <= bytes.len(), "{message} {version} took {used} of {bytes:02x?}");
    let unwritten = match &value {
        Value::Announce(announce) => {
            matches!(announce, Announce::Unknown | Announce::Restart05 { .. })
        }
        Value::Update(_) => version <= Version::Lite02,
        _ => false,
    };
    if !unwritten {
        let again = encode(&value, message, version);
        let length = again.len();
        assert_eq!(take(message, version, &again), Ok(Some((value, length))), "{bytes:02x?}");
    }
}

#[test]
fn noise_never_panics() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..40_000 {
        let mut bytes: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
        let message = MESSAGES[random.below(MESSAGES.len())];
        // Small numbers and a plausible length let the noise past the first checks.
        for byte in &mut bytes {
            if random.below(2) == 0 {
                *byte &= 0x07;
            }
        }
        if random.below(2) == 0 && bytes.len() > 2 {
            let typed = stream_type(message).is_some();
            bytes[0] = stream_type(message).unwrap_or(bytes[0].into()) as u8;
            bytes[usize::from(typed)] = (bytes.len() - 1 - usize::from(typed)) as u8;
        }
        survives(message, Version::ALL[random.below(6)], &bytes);
    }
}

#[test]
fn damaged_vectors_never_panic() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for vector in vectors() {
        for _ in 0..400 {
            let mut bytes = vector.bytes.clone();
            for _ in 0..=random.below(3) {
                let index = random.below(bytes.len());
                bytes[index] ^= 1 << random.below(8);
            }
            for version in Version::ALL {
                survives(&vector.message, version, &bytes);
            }
        }
    }
}
