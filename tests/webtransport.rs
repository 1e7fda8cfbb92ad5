//! WebTransport at the level of its bytes: what a browser may send in whatever order, what nobody
//! may, how sessions are negotiated and how they end. `interop.rs` and the browser's own plays
//! judge what is carried in them.

#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod client;
    pub mod http3;
    pub mod raw;
    pub mod relay;
}

use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::Dir;
use shardcast::limits::SETUP_TIMEOUT;
use shardcast::wire::*;
use support::client::within;
use support::http3::*;
use support::raw::{End, Raw, setup};
use support::relay::Relay;

const LITE_05: &str = "moq-lite-05";

fn connect_05() -> Vec<u8> {
    connect("/", Some("\"moq-lite-05\""))
}

/// A connection on which a session was accepted.
struct Session {
    raw: Raw,
    /// The stream of its request.
    id: u64,
}

impl Session {
    async fn open(relay: &Relay) -> Session {
        let raw = Raw::connect_web(relay.address()).await;
        raw.open(Dir::Uni, &control(&[settings(CHROME)]), false).await;
        let id = raw.open(Dir::Bi, &connect_05(), false).await;
        let session = Session { raw, id };
        assert_eq!(session.status().await, (200, Some(LITE_05.to_owned())));
        session.introduce().await;
        session
    }

    async fn status(&self) -> (u16, Option<String>) {
        answered(&self.raw, self.id).await
    }

    /// Opens a stream of this session.
    async fn stream(&self, dir: Dir, bytes: &[u8], fin: bool) -> u64 {
        self.raw.open(dir, &[&stream_prefix(dir, self.id), bytes].concat(), fin).await
    }

    async fn introduce(&self) {
        self.stream(Dir::Uni, &setup(&Setup::default()), true).await;
    }

    /// The relay's own session works: it answers ANNOUNCE_REQUEST.
    async fn works(&self) {
        let id = self.stream(Dir::Bi, &[1, 2, 0, 0], false).await;
        let answer = |stream: &support::raw::Stream| !stream.received.is_empty();
        let stream = self.raw.stream_until("ANNOUNCE_OK", id, answer).await;
        assert_eq!((stream.end, stream.stopped), (None, None));
    }
}

async fn answered(raw: &Raw, id: u64) -> (u16, Option<String>) {
    let answer = |stream: &support::raw::Stream| status(&stream.received).is_some();
    let stream = raw.stream_until("an answer", id, answer).await;
    status(&stream.received).expect("it was waited for")
}

/// A relay on this machine is nothing for the pages of any website, but for those that are named.
#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let relay = Relay::allowing(1, "https://app.example").await;
    for (origins, status) in [
        (&[][..], 200),
        (&["http://127.0.0.1:8080"], 200),
        (&["https://app.example"], 200),
        (&["https://evil.example"], 403),
        (&["null"], 403),
        (&["http://localhost", "https://evil.example"], 403),
    ] {
        let raw = Raw::connect_web(relay.address()).await;
        raw.open(Dir::Uni, &control(&[settings(CHROME)]), false).await;
        let request = connect_from(origins, "/", Some("\"moq-lite-05\""));
        let id = raw.open(Dir::Bi, &request, false).await;
        assert_eq!(answered(&raw, id).await.0, status, "{origins:?}");
        raw.close().await;
    }
    let ended = relay.stop().await;
    ended.expect_success();
    assert_eq!(ended.counts("sessions"), [3]);
}

/// What a browser may do, in every order and in parts of every size.
#[tokio::test]
async fn any_order_and_any_parts() {
    let relay = Relay::start(2).await;
    let grease = frame(GREASE, b"grease");
    let start = control(&[grease.clone(), settings(CHROME), frame(7, &[0]), grease.clone()]);
    let request = [grease.clone(), connect_05(), grease.clone()].concat();
    for step in [1, 2, 3, 1000] {
        // QPACK and GREASE before control, the request before both, a stream before the request.
        let raw = Raw::connect_web(relay.address()).await;
        let before = raw.open(Dir::Uni, &numbers(&[0x54, 0]), false).await;
        let asks = raw.open(Dir::Bi, &[], false).await;
        let listens = [&numbers(&[0x41, 0])[..], &[1, 2, 0, 0]].concat();
        let early = raw.open(Dir::Bi, &listens, false).await;
        raw.open(Dir::Uni, &[2, 0x3f], false).await;
        let unknown = raw.open(Dir::Uni, &[GREASE as u8, 1, 2], false).await;
        raw.open(Dir::Uni, &[3], false).await;
        let control = raw.open(Dir::Uni, &[], false).await;
        for part in request.chunks(step) {
            raw.send(asks, part, false);
            tokio::task::yield_now().await;
        }
        assert!(status(&raw.stream(asks).received).is_none(), "SETTINGS are not here yet");
        for part in start.chunks(step) {
            raw.send(control, part, false);
            tokio::task::yield_now().await;
        }
        let session = Session { raw, id: asks };
        assert_eq!(session.status().await, (200, Some(LITE_05.to_owned())));
        session.raw.send(before, &setup(&Setup::default()), true);
        let answer = |stream: &support::raw::Stream| !stream.received.is_empty();
        session.raw.stream_until("an answer on the early stream", early, answer).await;
        let stopped = |stream: &support::raw::Stream| stream.stopped.is_some();
        let unknown = session.raw.stream_until("GREASE to be stopped", unknown, stopped).await;
        assert_eq!(unknown.stopped, Some(0x103));
        session.works().await;
    }
    relay.stop().await.expect_success();
}

/// A client that has used up its streams before it has a session is granted more with it.
#[tokio::test]
async fn streams_used_up_before_the_session() {
    let relay = Relay::start(1).await;
    let raw = Raw::connect_web(relay.address()).await;
    let listens = [&numbers(&[0x41, 0])[..], &[1, 2, 0, 0]].concat();
    let id = raw.open(Dir::Bi, &connect_05(), false).await;
    while raw.try_open(Dir::Bi, &listens, false).is_some() {}
    let start = control(&[settings(CHROME)]);
    raw.open(Dir::Uni, &start, false).await;
    let introduces = [&numbers(&[0x54, 0])[..], &setup(&Setup::default())].concat();
    raw.open(Dir::Uni, &introduces, true).await;
    let session = Session { raw, id };
    assert_eq!(session.status().await.0, 200);
    session.works().await;
    relay.stop().await.expect_success();
}

/// A connection that is lost already, by a violation, gets no session by a request that follows.
#[tokio::test]
async fn nothing_begins_after_a_violation() {
    let relay = Relay::start(1).await;
    let raw = Raw::connect_web(relay.address()).await;
    let violates = raw.open(Dir::Bi, &[], false).await;
    let asks = raw.open(Dir::Bi, &[], false).await;
    let settles = raw.open(Dir::Uni, &[], false).await;
    // All at once, so that the relay finds them in one turn.
    raw.send(violates, &frame(DATA, b"x"), false);
    raw.send(asks, &connect_05(), false);
    raw.send(settles, &control(&[settings(CHROME)]), false);
    assert_eq!(raw.lost("DATA first").await.code, Some(0x105));
    // Whoever comes next, to the same place, has a session of its own.
    Session::open(&relay).await.works().await;
    let ended = relay.stop().await;
    ended.expect_success();
    assert_eq!(ended.counts("sessions"), [1]);
}

/// Requests beside a session, or beside one another, are answered before they are read.
#[tokio::test]
async fn requests_that_cost_nothing() {
    let relay = Relay::start(1).await;
    let raw = Raw::connect_web(relay.address()).await;
    let half = &connect_05()[..9];
    let first = raw.open(Dir::Bi, half, false).await;
    let second = raw.open(Dir::Bi, half, false).await;
    assert_eq!(answered(&raw, second).await.0, 429);
    raw.send(first, &connect_05()[9..], false);
    raw.open(Dir::Uni, &control(&[settings(CHROME)]), false).await;
    let session = Session { raw, id: first };
    assert_eq!(session.status().await.0, 200);
    session.introduce().await;
    let third = session.raw.open(Dir::Bi, half, false).await;
    assert_eq!(answered(&session.raw, third).await.0, 429);
    session.works().await;
    relay.stop().await.expect_success();
}

/// What the relay opens begins with the name of the session; streams and codes are mapped.
#[tokio::test]
async fn streams_of_the_relay() {
    let relay = Relay::start(1).await;
    let session = Session::open(&relay).await;
    let starts = |prefix: &'static [u8]| move |_: u64, bytes: &[u8]| bytes.starts_with(prefix);
    session.raw.accepted("the control stream", starts(&[0, 4])).await;
    session.raw.accepted("SETUP", starts(&[0x40, 0x54, 0, 1])).await;
    session.raw.accepted("ANNOUNCE_REQUEST", starts(&[0x40, 0x41, 0, 1])).await;
    // TRACK of a broadcast that nobody announces.
    let mut track = vec![BidiType::Track as u8];
    let broadcast = Path::parse("nobody").unwrap();
    TrackRequest { broadcast, track: "video".to_owned() }.encode(&mut track);
    let id = session.stream(Dir::Bi, &track, false).await;
    let ended = |stream: &support::raw::Stream| stream.end.is_some();
    let stream = session.raw.stream_until("a refusal", id, ended).await;
    // The client of this play undoes the mapping where there is one.
    assert_eq!(stream.end, Some(End::Reset(StreamCode::UNROUTABLE.0)));
    relay.stop().await.expect_success();
}

/// The client's own order decides, unlike in TLS.
#[tokio::test]
async fn negotiation() {
    let relay = Relay::open_to(2, "anon/**").await;
    let cases: [(&str, Option<&str>, u16, Option<&str>); 16] = [
        ("/anon", Some("\"moq-lite-05\", \"moq-lite-06\""), 200, Some("moq-lite-05")),
        ("/anon", Some("\"moq-lite-06\", \"moq-lite-05\""), 200, Some("moq-lite-06")),
        ("/anon", Some("\"moqt-20\", \"moq-lite-03\""), 200, Some("moq-lite-03")),
        ("/anon", Some("\"moq-lite-06-wip\", \"moql\""), 200, Some("moql")),
        ("/anon/room", Some("\"moq-lite-04\""), 200, Some("moq-lite-04")),
        ("/anon?x=jwt", Some("\"moq-lite-05\""), 200, Some("moq-lite-05")),
        // Whoever shows a token is not let in as anybody.
        ("/anon?jwt=x", Some("\"moq-lite-05\""), 401, None),
        // The root has a part that is public.
        ("/", Some("\"moq-lite-05\""), 200, Some("moq-lite-05")),
        // Older clients offer nothing and mean lite-01 or 02.
        ("/anon", None, 200, None),
        ("/other", Some("\"moq-lite-05\""), 401, None),
        ("/anonymous", Some("\"moq-lite-05\""), 401, None),
        ("/anon/*", Some("\"moq-lite-05\""), 400, None),
        ("/anon", Some("\"moqt-20\", \"h3\""), 400, None),
        ("/anon", Some("moq-lite-05"), 400, None),
        ("/anon", Some("\"moq-lite-05"), 400, None),
        ("/anon", Some("17"), 400, None),
    ];
    for (path, offers, code, protocol) in cases {
        let raw = Raw::connect_web(relay.address()).await;
        raw.open(Dir::Uni, &control(&[settings(CHROME)]), false).await;
        let id = raw.open(Dir::Bi, &connect(path, offers), false).await;
        let expect = (code, protocol.map(str::to_owned));
        assert_eq!(answered(&raw, id).await, expect, "{path} {offers:?}");
        if code == 200 {
            continue;
        }
        let ended = |stream: &support::raw::Stream| stream.end.is_some();
        let stream = raw.stream_until("the end of the refusal", id, ended).await;
        assert_eq!(stream.end, Some(End::Finished), "{path} {offers:?}");
        // Another try on the same connection may be better.
        let id = raw.open(Dir::Bi, &connect("/anon", Some("\"moq-lite-05\"")), false).await;
        assert_eq!(answered(&raw, id).await.0, 200, "after {path} {offers:?}");
    }
    relay.stop().await.expect_success();
}

/// What may not be sent, and what comes of it.
enum Outcome {
    /// The connection is closed with this code.
    Closed(u64),
    /// The request, which is the first bidirectional stream, has this status.
    Status(u16),
    /// The last stream is stopped with this code.
    Stopped(u64),
}

#[tokio::test]
async fn negatives() {
    use Dir::{Bi, Uni};
    use Outcome::{Closed, Status, Stopped};
    let relay = Relay::start(2).await;
    let good = || (Uni, control(&[settings(CHROME)]), false);
    let request = |pairs: &[(&str, &str)]| (Bi, frame(HEADERS, &fields(pairs)), false);
    let huge = "x".repeat(17 << 10);
    let asks = [
        (":method", "CONNECT"),
        (":protocol", "webtransport"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/"),
    ];
    let without = |name: &str| {
        let pairs: Vec<_> = asks.iter().copied().filter(|(other, _)| *other != name).collect();
        (Bi, frame(HEADERS, &fields(&pairs)), false)
    };
    let with = |name: &str, value: &str| {
        let mut pairs = asks.to_vec();
        pairs.iter_mut().for_each(|pair| {
            if pair.0 == name {
                pair.1 = value;
            }
        });
        (Bi, frame(HEADERS, &fields(&pairs)), false)
    };
    let session = || (Bi, connect_05(), false);
    let capsule = |bytes: &[u8], fin| (Bi, [connect_05(), frame(DATA, bytes)].concat(), fin);

    type Streams = Vec<(Dir, Vec<u8>, bool)>;
    let cases: Vec<(&str, Streams, Outcome)> = vec![
        (
            "no datagrams",
            vec![(Uni, control(&[settings(&[(8, 1), (0xc671_706a, 1)])]), false)],
            Closed(0x109),
        ),
        (
            "no WebTransport",
            vec![(Uni, control(&[settings(&[(8, 1), (0x33, 1)])]), false)],
            Closed(0x109),
        ),
        (
            "SETTINGS cut short",
            vec![(Uni, control(&[frame(SETTINGS, &[0x33])]), false)],
            Closed(0x109),
        ),
        (
            "SETTINGS too long",
            vec![(Uni, [numbers(&[0, SETTINGS, 1 << 20])].concat(), false)],
            Closed(0x107),
        ),
        (
            "a frame too long",
            vec![(Uni, [numbers(&[0, GREASE, 1 << 20])].concat(), false)],
            Closed(0x107),
        ),
        ("SETTINGS missing", vec![(Uni, control(&[frame(DATA, b"")]), false)], Closed(0x10a)),
        (
            "SETTINGS twice",
            vec![(Uni, control(&[settings(CHROME), settings(CHROME)]), false)],
            Closed(0x105),
        ),
        (
            "HEADERS on control",
            vec![(Uni, control(&[settings(CHROME), connect_05()]), false)],
            Closed(0x105),
        ),
        (
            "a frame of HTTP/2",
            vec![(Uni, control(&[settings(CHROME), frame(8, b"")]), false)],
            Closed(0x105),
        ),
        ("control twice", vec![good(), good()], Closed(0x103)),
        ("QPACK twice", vec![(Uni, vec![2], false), (Uni, vec![2], false)], Closed(0x103)),
        ("a push stream", vec![(Uni, vec![1, 0], false)], Closed(0x103)),
        ("control ends", vec![(Uni, control(&[settings(CHROME)]), true)], Closed(0x104)),
        ("DATA first", vec![good(), (Bi, frame(DATA, b"x"), false)], Closed(0x105)),
        ("SETTINGS on a request", vec![good(), (Bi, settings(CHROME), false)], Closed(0x105)),
        (
            "fields out of range",
            vec![good(), (Bi, frame(HEADERS, &[0, 0, 0xff, 0xff, 0xff, 0x7f]), false)],
            Closed(0x200),
        ),
        (
            "fields of a dynamic table",
            vec![good(), (Bi, frame(HEADERS, &[2, 0, 0x80]), false)],
            Closed(0x200),
        ),
        ("an oversized block", vec![good(), request(&[("x", &huge)])], Status(431)),
        ("a field section too large", vec![good(), request(&[("x", "y"); 500])], Status(431)),
        (
            "an enormous block",
            vec![good(), (Bi, frame(HEADERS, &vec![0; 300 << 10]), false)],
            Status(431),
        ),
        (
            "a path too long",
            vec![
                good(),
                (Bi, connect(&format!("/{}", "p".repeat(1025)), Some("\"moq-lite-05\"")), false),
            ],
            Status(400),
        ),
        ("GET", vec![good(), with(":method", "GET")], Status(405)),
        ("no protocol", vec![good(), without(":protocol")], Status(400)),
        ("another protocol", vec![good(), with(":protocol", "websocket")], Status(400)),
        ("no path", vec![good(), without(":path")], Status(400)),
        ("no authority", vec![good(), without(":authority")], Status(400)),
        ("no method", vec![good(), without(":method")], Status(400)),
        ("no scheme", vec![good(), without(":scheme")], Status(400)),
        ("plain HTTP", vec![good(), with(":scheme", "http")], Status(400)),
        (
            "a request cut short",
            vec![good(), (Bi, connect_05()[..9].to_vec(), true), (Uni, vec![GREASE as u8], false)],
            Stopped(0x103),
        ),
        (
            "a stream of no session",
            vec![good(), session(), (Uni, numbers(&[0x54, 4]), false)],
            Stopped(0x3994_bd84),
        ),
        (
            "a bidirectional one",
            vec![good(), session(), (Bi, numbers(&[0x41, 8]), false)],
            Stopped(0x3994_bd84),
        ),
        (
            "a capsule that is no code",
            vec![good(), capsule(&numbers(&[0x2843, 2, 0, 0]), false)],
            Closed(0x10e),
        ),
        (
            "a capsule too long",
            vec![good(), capsule(&numbers(&[0x2843, 2000]), false)],
            Closed(0x10e),
        ),
        (
            "a reason that is no text",
            vec![good(), capsule(&[0x68, 0x43, 5, 0, 0, 0, 0, 0xff], false)],
            Closed(0x10e),
        ),
        (
            "a capsule cut short",
            vec![good(), capsule(&numbers(&[0x2843, 4, 0]), true)],
            Closed(0x106),
        ),
        (
            "a session's DATA cut short",
            vec![good(), (Bi, [connect_05(), numbers(&[DATA, 9, 0])].concat(), true)],
            Closed(0x106),
        ),
        (
            "SETTINGS in a session",
            vec![good(), (Bi, [connect_05(), settings(CHROME)].concat(), false)],
            Closed(0x105),
        ),
    ];
    let witness = Session::open(&relay).await;
    for (what, streams, outcome) in cases {
        println!("{what}");
        let raw = Raw::connect_web(relay.address()).await;
        let mut opened = Vec::new();
        for (dir, bytes, fin) in streams {
            opened.push(raw.open(dir, &bytes, fin).await);
        }
        match outcome {
            Closed(code) => {
                let lost = raw.lost(what).await;
                assert_eq!(lost.code, Some(code), "{what}: {}", lost.reason);
            }
            Status(code) => {
                assert_eq!(answered(&raw, opened[1]).await.0, code, "{what}");
                // A better request follows on the same connection.
                let id = raw.open(Dir::Bi, &connect_05(), false).await;
                assert_eq!(answered(&raw, id).await.0, 200, "after {what}");
            }
            Stopped(code) => {
                let last = *opened.last().expect("there is one");
                let stopped = |stream: &support::raw::Stream| stream.stopped.is_some();
                let stream = raw.stream_until(what, last, stopped).await;
                assert_eq!(stream.stopped, Some(code), "{what}");
                assert!(raw.is_open(), "{what}");
            }
        }
        witness.works().await;
    }
    relay.stop().await.expect_success();
}

#[tokio::test]
async fn one_session_per_connection() {
    let relay = Relay::start(1).await;
    let session = Session::open(&relay).await;
    let second = session.raw.open(Dir::Bi, &connect_05(), false).await;
    assert_eq!(answered(&session.raw, second).await, (429, None));
    session.works().await;
    let ended = relay.stop().await;
    ended.expect_success();
    assert_eq!(ended.counts("sessions"), [1]);
}

#[tokio::test]
async fn a_client_that_asks_for_nothing() {
    let relay = Relay::start(1).await;
    let began = Instant::now();
    let silent = Raw::connect_web(relay.address()).await;
    let asking = Raw::connect_web(relay.address()).await;
    // A request without SETTINGS is not answered either.
    asking.open(Dir::Bi, &connect_05(), false).await;
    for raw in [silent, asking] {
        let lost = raw.lost("no session in time").await;
        assert_eq!(lost.code, Some(0x10d), "{}", lost.reason);
        let took = lost.at - began;
        let late = Duration::from_secs(1);
        assert!(took >= SETUP_TIMEOUT && took < SETUP_TIMEOUT + late, "{took:?}");
    }
    relay.stop().await.expect_success();
}

/// The relay ends a session: a capsule with the code as it is, then the connection with it mapped.
#[tokio::test]
async fn closed_by_the_relay() {
    let relay = Relay::start(1).await;
    let session = Session::open(&relay).await;
    // A second SETUP.
    session.introduce().await;
    let ended = |stream: &support::raw::Stream| stream.end.is_some();
    let stream = session.raw.stream_until("the end of the session", session.id, ended).await;
    let answered = connect_answer_len(&stream.received);
    assert_eq!(stream.received[answered..], close_session(3, "second SETUP"));
    assert_eq!(stream.end, Some(End::Finished));
    let lost = session.raw.lost("after the capsule").await;
    assert_eq!(lost.code, Some(SessionCode::PROTOCOL_VIOLATION.to_http3()), "{}", lost.reason);
    relay.stop().await.expect_success();
}

fn connect_answer_len(answer: &[u8]) -> usize {
    let (_, kind) = decode_varint(answer).expect("a frame type");
    let (length, used) = decode_varint(&answer[kind..]).expect("a length");
    kind + used + length as usize
}

/// The client ends a session, in every way that there is; its routes go with it.
#[tokio::test]
async fn closed_by_the_client() {
    let relay = Relay::start(2).await;
    let bye = close_session(42, "bye");
    let ways: [(&str, Vec<u8>, bool, &str); 3] = [
        ("a capsule", bye.clone(), true, "closed by the client: unknown (0x2a): bye"),
        ("a capsule and no FIN", bye, false, "closed by the client: unknown (0x2a): bye"),
        ("FIN", Vec::new(), true, "closed by the client"),
    ];
    for (what, bytes, fin, reason) in ways {
        let session = Session::open(&relay).await;
        session.works().await;
        session.raw.send(session.id, &bytes, fin);
        let lost = session.raw.lost(what).await;
        assert_eq!(lost.code, Some(0x100), "{what}: {}", lost.reason);
        let log = relay.log();
        assert!(log.iter().any(|line| line.contains(reason)), "{what}: {log:#?}");
    }
    relay.deserted().await;
    relay.stop().await.expect_success();
}

/// A relay that stops closes connections and says nothing to sessions: to a browser, whose `closed`
/// then rejects, the session is lost, and clients dial again.
#[tokio::test]
async fn the_relay_stops() {
    let relay = Relay::start(1).await;
    let session = Session::open(&relay).await;
    session.works().await;
    let Session { raw, id } = session;
    let (lost, ended) = tokio::join!(raw.lost("the relay to stop"), relay.stop());
    ended.expect_success();
    assert_eq!(lost.code, Some(SessionCode::NO_ERROR.to_http3()));
    assert!(lost.reason.contains("relay stopped"), "{}", lost.reason);
    let stream = raw.stream(id);
    assert_eq!(
        stream.received.len(),
        connect_answer_len(&stream.received),
        "nothing but the answer"
    );
    assert_eq!(stream.end, None);
}

/// A publisher of datagrams and viewers of every kind, raw and in a session.
#[tokio::test]
async fn datagrams() {
    for shards in [1, 2, 4] {
        let relay = Relay::start(shards).await;
        let publisher = Session::open(&relay).await;
        let subscribe = serve_track(&publisher).await;

        let web = Session::open(&relay).await;
        let quic = Raw::introduced(relay.address(), Version::Lite06).await;
        let old = Raw::introduced(relay.address(), Version::Lite04).await;
        let path = Path::parse("live/cam").unwrap();
        let listens = [
            (&web.raw, web.stream(Dir::Bi, &[1, 2, 0, 0], false).await),
            (&quic, quic.open(Dir::Bi, &[1, 1, 0], false).await),
            (&old, old.open(Dir::Bi, &[1, 2, 0, 0], false).await),
        ];
        for (raw, id) in listens {
            let hears = |stream: &support::raw::Stream| {
                stream.received.windows(8).any(|part| part == b"live/cam")
            };
            raw.stream_until("the announcement", id, hears).await;
        }
        let ask = |id, version| {
            let preferences = Preferences {
                priority: 1,
                max_age_ms: 1000,
                group_start: None,
                group_end: None,
                frame_start: 0,
                frame_end: None,
            };
            let mut bytes = vec![BidiType::Subscribe as u8];
            Subscribe { id, broadcast: path.clone(), track: "audio".to_owned(), preferences }
                .encode(version, &mut bytes);
            bytes
        };
        web.stream(Dir::Bi, &ask(5, Version::Lite05), false).await;
        quic.open(Dir::Bi, &ask(9, Version::Lite06), false).await;
        old.open(Dir::Bi, &ask(3, Version::Lite04), false).await;
        // The relay subscribes once, whoever of them was first.
        let upstream = subscribe.await;
        // Every viewer is in its place once a group has reached it.
        let group = |sequence: u8| [&[0, 2, upstream as u8, sequence][..], &[0, 1, b'g']].concat();
        publisher.stream(Dir::Uni, &group(4), true).await;
        let has = |id: u8| {
            move |_: u64, bytes: &[u8]| {
                let at = if bytes.starts_with(&[0x40, 0x54, 0]) { 3 } else { 0 };
                bytes[at..].starts_with(&[0]) && bytes.len() > at + 3 && bytes[at + 2] == id
            }
        };
        web.raw.accepted("the group", has(5)).await;
        quic.accepted("the group", has(9)).await;
        old.accepted("the group", has(3)).await;

        let body = |id: u64, sequence: u64, payload: &[u8]| {
            [&numbers(&[id, sequence, 90_000 + sequence])[..], payload].concat()
        };
        // None is a datagram of the relay's subscription, so none has an effect.
        for noise in [vec![], vec![0], vec![0, 9], [&[0][..], &body(77, 6, b"x")].concat()] {
            publisher.raw.send_datagram(&noise);
        }
        publisher.raw.send_datagram(&[&[1][..], &body(upstream, 6, b"other session")].concat());
        for sequence in 5..25 {
            let payload = [b'd', sequence as u8];
            publisher.raw.send_datagram(&[&[0][..], &body(upstream, sequence, &payload)].concat());
        }
        let of_web = web.raw.datagrams(20).await;
        let of_quic = quic.datagrams(20).await;
        let expect = |id: u64, prefix: &'static [u8]| {
            let all = (5..25).map(|sequence| {
                Bytes::from([prefix, &body(id, sequence, &[b'd', sequence as u8])].concat())
            });
            all.collect::<Vec<_>>()
        };
        assert_eq!(of_web, expect(5, &[0]), "{shards} shards");
        assert_eq!(of_quic, expect(9, &[]), "{shards} shards");
        // Never turned into a group: the next group is the next that anybody gets.
        publisher.stream(Dir::Uni, &group(25), true).await;
        let next =
            |_: u64, bytes: &[u8]| bytes.starts_with(&[0, 2, 3]) && bytes.get(3) == Some(&25);
        old.accepted("the next group", next).await;
        relay.stop().await.expect_success();
    }
}

/// Announces `live/cam`, answers TRACK, and gives the relay's subscribe id when it comes.
async fn serve_track(publisher: &Session) -> impl Future<Output = u64> + '_ {
    let prefix = [0x40, 0x41, 0];
    let opened = move |kind: u8| {
        move |_: u64, bytes: &[u8]| bytes.starts_with(&prefix) && bytes.get(3) == Some(&kind)
    };
    let raw = &publisher.raw;
    let announces = raw.accepted("ANNOUNCE_REQUEST", opened(BidiType::Announce as u8)).await;
    let mut bytes = Vec::new();
    AnnounceOk { hop: 77, active: 1 }.encode(&mut bytes);
    let suffix = Path::parse("live/cam").unwrap();
    Announce::Start { suffix, hops: Hops::new(), cost: Cost::ZERO }
        .encode(Version::Lite05, &mut bytes);
    raw.send(announces, &bytes, false);
    let subscribed = async move {
        let asks = raw.accepted("TRACK", opened(BidiType::Track as u8)).await;
        let mut bytes = Vec::new();
        TrackInfo { priority: 1, max_age_ms: 5000, timescale: 1000 }
            .encode(Version::Lite05, &mut bytes);
        raw.send(asks, &bytes, true);
        let subscribes = raw.accepted("SUBSCRIBE", opened(BidiType::Subscribe as u8)).await;
        let whole = |stream: &support::raw::Stream| {
            split_message(&stream.received[4..], 1000).is_ok_and(|message| message.is_some())
        };
        let stream = raw.stream_until("SUBSCRIBE", subscribes, whole).await;
        let (body, _) = split_message(&stream.received[4..], 1000).unwrap().unwrap();
        let id = Subscribe::decode(Version::Lite05, body).expect("SUBSCRIBE").id;
        let mut start = Vec::new();
        SubscribeResponse::Start { group: 4 }.encode(Version::Lite05, &mut start);
        raw.send(subscribes, &start, false);
        id
    };
    within("the relay to subscribe", subscribed)
}
