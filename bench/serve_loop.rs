//! What the steps of the serve loop cost, each by itself: no network, one thread, a made-up clock.
//!
//!     cargo bench --bench serve_loop                  all, in less than a minute
//!     cargo bench --bench serve_loop -- home_fetch    those whose name contains that
//!
//! Every figure is wall time of one operation, in the unit that is printed beside it; `--verbose`
//! adds the median, which is the one to read on a machine that does other things. A number at the
//! end of a name is how many there were of what the name says: cursors, groups that are held,
//! frames of a group, fetches that are open.
//!
//! | Name | One operation |
//! |---|---|
//! | `mailbox/…` | that much mail sent, flushed and taken at the other end |
//! | `group/fan_out_…` | a group of one frame appended to a track and picked by every cursor |
//! | `group/append_…` | a frame appended to a group that is open, its share of opening included |
//! | `group/held_…` | a group of one frame appended to a track that holds many, and picked by one cursor |
//! | `session_fetch/…` | a cached group, from the bytes of FETCH to the FIN behind its answer |
//! | `home/idle_turn` | a turn of the home in which nothing happens |
//! | `home_fetch/…` | a group for a mirror, from its mail to the answer's, turns of the home included |
//! | `home_live/…` | a live piece of 4 KiB, from the publisher's mail to the mirror's; one turn |
//!
//! Both ends of the mail run on one core, so that cache misses between cores are not in here, and
//! payload is shared rather than copied, as it is in the relay: its size should hardly show.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::Criterion;
use shardcast::config::IdentitySource;
use shardcast::limits::{LANE_MESSAGES, LINGER_DEFAULT, MAIL_PER_TURN};
use shardcast::net::{Datagrams, Received, Sent, Train};
use shardcast::quic::{Config as QuicConfig, Keys};
use shardcast::route::{Route, RouteId, SessionRef};
use shardcast::session::streams::{Estimate, ReadEnd, StreamId, Streams, WriteEnd};
use shardcast::session::{Context, Effect, Names, Policy, RouteIds, Service, Session};
use shardcast::shard::mailbox::{Flush, Post, mesh};
use shardcast::shard::message::{ToShard, TrackKey};
use shardcast::shard::placement::home_of;
use shardcast::shard::{CacheBounds, Setting, Shard};
use shardcast::tls::Identity;
use shardcast::track::content::Content;
use shardcast::track::cursor::Cursor;
use shardcast::track::demand::Demand;
use shardcast::track::fetch::{Ask, FetchId};
use shardcast::track::group::{FrameMark, GroupEnd, Marks, Opening, Piece};
use shardcast::track::serve::{Need, PullCommand};
use shardcast::track::{Feed, Fetched, PullRef, TrackRef};
use shardcast::wire::{
    BidiType, Cost, Fetch, Hops, Path, Preferences, Protocol, Role, SessionCode, Setup, StreamCode,
    TrackInfo, UniType, Version, encode_varint, zigzag,
};

const BROADCAST: &str = "live/cam";
const FRAMES_PER_GROUP: u64 = 60;
const FRAME_INTERVAL_MS: u64 = 16;
/// Timestamps are milliseconds.
const INFO: TrackInfo = TrackInfo { priority: 0, max_age_ms: 10_000, timescale: 1000 };
const WANTED: Preferences = Preferences {
    priority: 1,
    max_age_ms: 10_000,
    group_start: None,
    group_end: None,
    frame_start: 0,
    frame_end: None,
};
/// Sequences from here on are never brought by the live feed.
const FAR: u64 = 1 << 40;

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700))
        // Samples shorter than a time slice: a busy machine spoils some of them, not all.
        .sample_size(200)
        .nresamples(2000)
        .configure_from_args();
    mailbox(&mut criterion);
    fan_out(&mut criterion);
    append(&mut criterion);
    held_groups(&mut criterion);
    session_fetch(&mut criterion);
    home_idle(&mut criterion);
    home_fetch_cached(&mut criterion);
    home_fetch_missed(&mut criterion);
    home_live(&mut criterion);
    criterion.final_summary();
}

// ---- mail ----

fn mailbox(criterion: &mut Criterion) {
    for batch in [1, 64] {
        let mut posts = mesh::<ToShard>(2, LANE_MESSAGES);
        let mut taken = VecDeque::new();
        for _ in 0..batch {
            let feeds = [Feed::Piece(whole(0, 0, &frame(4096)))].into();
            taken.push_back((0, ToShard::Fed { mirror: MIRROR, feeds }));
        }
        criterion.bench_function(&format!("mailbox/hop_of_{batch}"), |bencher| {
            bencher.iter(|| {
                // The mail of the round before, so that making it is not measured.
                for (_, mail) in taken.drain(..) {
                    posts[0].send(1, mail);
                }
                assert_eq!(posts[0].flush(), Flush::Clear);
                posts[1].take(MAIL_PER_TURN, &mut taken);
                assert_eq!(taken.len(), batch);
            });
        });
    }
}

// ---- groups and cursors ----

fn fan_out(criterion: &mut Criterion) {
    for size in [300, 4096] {
        let bytes = frame(size);
        for viewers in [1, 10, 100] {
            let now = Instant::now();
            let mut content = content(INFO, now);
            let join = || Cursor::join(&content, Version::Lite06, WANTED);
            let mut cursors: Vec<Cursor> = std::iter::repeat_with(join).take(viewers).collect();
            let mut sequence = 0;
            criterion.bench_function(&format!("group/fan_out_{size}B_to_{viewers}"), |bencher| {
                bencher.iter(|| {
                    let piece = whole(sequence, sequence * 1000, &bytes);
                    sequence += 1;
                    content.apply(Feed::Piece(piece), now);
                    let mut picks = 0;
                    for cursor in &mut cursors {
                        while let Some(pick) = cursor.pick(&content) {
                            black_box(pick);
                            picks += 1;
                        }
                    }
                    assert_eq!(picks, viewers);
                });
            });
        }
    }
}

fn append(criterion: &mut Criterion) {
    let bytes = frame(4096);
    for frames in [FRAMES_PER_GROUP, 8192] {
        let now = Instant::now();
        let mut content = content(INFO, now);
        let mut next = 0;
        criterion.bench_function(&format!("group/append_4096B_frames_{frames}"), |bencher| {
            bencher.iter(|| {
                let piece = nth(next, frames, &bytes);
                next += 1;
                black_box(content.apply(Feed::Piece(piece), now))
            });
        });
    }
}

/// Each new group expires one, so that their number stays.
fn held_groups(criterion: &mut Criterion) {
    let bytes = frame(300);
    for (name, ends) in [("whole", Some(GroupEnd::Finished)), ("unfinished", None)] {
        for held in [10, 100, 1000] {
            let now = Instant::now();
            let ticks_per_group = 100_000;
            let timescale = ticks_per_group * held / 10;
            let mut content = content(TrackInfo { timescale, ..INFO }, now);
            let mut cursor = Cursor::join(&content, Version::Lite06, WANTED);
            let mut sequence = 0;
            let mut add = || {
                let piece = whole(sequence, sequence * ticks_per_group, &bytes);
                sequence += 1;
                content.apply(Feed::Piece(Piece { ends, ..piece }), now);
                while let Some(pick) = cursor.pick(&content) {
                    black_box(pick);
                }
                content.groups().next().map(|(oldest, _)| sequence - oldest)
            };
            for _ in 0..2 * held {
                add();
            }
            assert_eq!(add(), Some(held + 1));
            criterion.bench_function(&format!("group/held_{name}_{held}"), |bencher| {
                bencher.iter(&mut add);
            });
        }
    }
}

// ---- a session ----

/// Streams of a peer that takes everything.
#[derive(Default)]
struct Peer {
    /// What a stream of it still has to say; empty when that was read.
    says: Vec<u8>,
    has_finished: bool,
    opened: u64,
    taken_bytes: usize,
    finished: usize,
}

impl Streams for Peer {
    fn open_uni(&mut self) -> Option<StreamId> {
        self.opened += 1;
        Some(StreamId(4 * self.opened + 3))
    }

    fn open_bidi(&mut self) -> Option<StreamId> {
        None
    }

    fn write(&mut self, _: StreamId, chunks: &mut [Bytes]) -> WriteEnd {
        for chunk in chunks {
            self.taken_bytes += chunk.len();
            *chunk = Bytes::new();
        }
        WriteEnd::All
    }

    fn finish(&mut self, _: StreamId) {
        self.finished += 1;
    }

    fn reset(&mut self, _: StreamId, code: StreamCode) {
        panic!("nothing is to be reset here: {code}");
    }

    fn stop(&mut self, _: StreamId, code: StreamCode) {
        panic!("nothing is to be stopped here: {code}");
    }

    fn set_priority(&mut self, _: StreamId, _: i32) {}

    fn read(&mut self, _: StreamId, _: usize, take: &mut dyn FnMut(&[u8])) -> ReadEnd {
        take(&self.says);
        self.says.clear();
        if self.has_finished { ReadEnd::Finished } else { ReadEnd::Pending }
    }

    fn send_datagram(&mut self, _head: &[u8], _payload: &[u8]) {}

    fn expect_groups(&mut self) {}

    fn rtt(&self) -> Duration {
        Duration::from_millis(10)
    }

    fn estimate(&self) -> Estimate {
        Estimate::default()
    }

    fn close(&mut self, _: SessionCode, reason: &'static str) {
        panic!("{reason}");
    }
}

fn session_fetch(criterion: &mut Criterion) {
    for (frames, size) in [(FRAMES_PER_GROUP, 4096), (1, 300)] {
        let now = Instant::now();
        let bytes = frame(size);
        let mut content = content(INFO, now);
        for n in 0..frames {
            content.apply(Feed::Piece(nth(n, frames, &bytes)), now);
        }

        let mut peer = Peer::default();
        let mut effects = Vec::new();
        let mut route_ids = RouteIds::new(0, now);
        let policy = Arc::new(Policy { hop: 7, public: vec![Path::root()] });
        let me = SessionRef { shard: 0, slot: 0, generation: 0 };
        let names = Names { identity: 1, stamp: 2 };
        let protocol = Protocol::Version(Version::Lite06);
        let mut session = Session::new(protocol, Path::root(), me, policy, now, names);
        encode_varint(UniType::Setup as u64, &mut peer.says);
        Setup { role: Role::Subscriber, ..Setup::default() }.encode(&mut peer.says);
        let mut cx = Context {
            now,
            streams: &mut peer,
            effects: &mut effects,
            route_ids: &mut route_ids,
            arrival_ms: 0,
        };
        session.start(&mut cx);
        session.opened(StreamId(2), &mut cx);
        assert!(matches!(cx.effects[..], [Effect::Ready]));
        cx.effects.clear();

        let mut request = Vec::new();
        encode_varint(BidiType::Fetch as u64, &mut request);
        Fetch {
            broadcast: Path::parse(BROADCAST).expect("a path"),
            track: "video".to_owned(),
            priority: 1,
            group: 0,
            frame_start: 0,
            frame_end: None,
        }
        .encode(Version::Lite06, &mut request);
        let mut asked = 0;
        criterion.bench_function(&format!("session_fetch/cached_{frames}x{size}B"), |bencher| {
            bencher.iter(|| {
                let id = StreamId(4 * asked);
                asked += 1;
                cx.streams.says.extend_from_slice(&request);
                cx.streams.has_finished = false;
                (cx.streams.taken_bytes, cx.streams.finished) = (0, 0);
                session.opened(id, &mut cx);
                let Some(Effect::FetchWanted { key, ask, .. }) = cx.effects.pop() else {
                    panic!("a request was sent");
                };
                let arrival = content.get_group(ask.group, ask.frame_start).expect("it is cached");
                session.begin_fetch(key, arrival, &mut cx);
                assert_eq!(session.serve(key, &mut content, &mut cx), Service::Over);
                assert_eq!(cx.streams.taken_bytes, frames as usize * bytes.len());
                assert_eq!(cx.streams.finished, 1);
                // Without the peer's own FIN the session would remember the stream.
                cx.streams.has_finished = true;
                session.readable(id, &mut cx);
            });
        });
    }
}

// ---- across shards ----

const MIRROR: TrackRef = TrackRef { shard: 1, slot: 0, generation: 1 };

/// A host that nobody sends anything to.
struct Silence;

impl Datagrams for Silence {
    fn receive(&mut self, _: &mut dyn FnMut(Received)) -> bool {
        false
    }

    fn send(&mut self, _: &Train<'_>) -> Sent {
        panic!("there are no connections");
    }

    fn max_segments(&self) -> usize {
        1
    }
}

/// Shard 0 of two, home of a track. The other is played here: the publisher's session is there,
/// and a mirror, which subscribes.
struct Home {
    shard: Shard,
    /// The other shard's.
    post: Post<ToShard>,
    /// What the last turn has brought there.
    mail: VecDeque<(usize, ToShard)>,
    now: Instant,
    key: Arc<TrackKey>,
    route: Arc<Route>,
    /// Under which the home has asked for the track.
    pull: PullRef,
    fetches: u32,
}

impl Home {
    fn new() -> Home {
        let hosts = vec!["localhost".try_into().expect("a name")];
        let source = IdentitySource::Generated { hosts };
        let alpn = Version::Lite06.alpn().as_bytes();
        let identity = Identity::load(&source, &[alpn]).expect("an identity");
        let keys = Keys { cid: [1; 32], reset: [2; 32], token: [3; 32] };
        let now = Instant::now();
        let setting = Setting {
            shard: 0,
            shards: 2,
            quic: QuicConfig::new(identity.config, keys).expect("a QUIC configuration"),
            policy: Arc::new(Policy { hop: 7, public: vec![Path::root()] }),
            seed: 1,
            started: now,
            linger: LINGER_DEFAULT,
            cache: CacheBounds { bytes: u64::MAX, duration: Duration::from_secs(30) },
        };
        let [own, post] = mesh(2, LANE_MESSAGES).try_into().ok().expect("two posts");

        let names = (0..).map(|n| format!("video{n}"));
        let name = names.into_iter().find(|name| home_of(BROADCAST, name, 2) == 0);
        let broadcast = Path::parse(BROADCAST).expect("a path");
        let route = Arc::new(Route {
            id: RouteId(1),
            path: broadcast.clone(),
            hops: Hops::from_slice(&[8]).expect("a short chain"),
            cost: Cost::ZERO,
            via: 8,
            session: SessionRef { shard: 1, slot: 0, generation: 1 },
            version: Version::Lite06,
        });
        let name = name.expect("one of two tracks is at home there").into();
        let key = Arc::new(TrackKey { broadcast, name, origin: 8, avoid: None });
        let mut home = Home {
            shard: Shard::new(setting, own),
            post,
            mail: VecDeque::new(),
            now,
            key,
            route,
            pull: PullRef { track: MIRROR, attempt: 0 },
            fetches: 0,
        };

        home.post.send(0, ToShard::RouteUp(home.route.clone()));
        let need = Need { info: false, feed: true, demand: Demand::of(&WANTED) };
        let (key, route) = (home.key.clone(), home.route.clone());
        home.post.send(0, ToShard::Need { key, route, mirror: MIRROR, need });
        home.turn();
        let asked = home.mail.iter().find_map(|(_, mail)| match mail {
            ToShard::Pull { command: PullCommand::Ask { pull, .. }, .. } => Some(*pull),
            _ => None,
        });
        home.pull = asked.expect("the home asks what the track is like");
        home.publish(Feed::Info(INFO));
        home.publish(Feed::Start(0));
        home.turn();
        home
    }

    /// One turn of the home, with what was sent to it before.
    fn turn(&mut self) {
        assert_eq!(self.post.flush(), Flush::Clear);
        self.shard.turn(self.now, &mut Silence);
        self.mail.clear();
        self.post.take(MAIL_PER_TURN, &mut self.mail);
    }

    fn publish(&mut self, feed: Feed) {
        self.post.send(0, ToShard::Pulled { pull: self.pull, feed });
    }

    /// The mirror asks for a group.
    fn ask(&mut self, group: u64) {
        let (key, route) = (self.key.clone(), self.route.clone());
        let fetch = FetchId(self.fetches);
        self.fetches += 1;
        let ask = Ask { group, frame_start: 0, priority: 1 };
        self.post.send(0, ToShard::Fetch { key, route, mirror: MIRROR, fetch, ask });
    }

    /// The fetch that the home has made of that.
    fn asked(&self) -> FetchId {
        match &self.mail[0].1 {
            ToShard::Pull { command: PullCommand::Fetch { fetch, .. }, .. } => *fetch,
            other => panic!("a fetch was due: {other:?}"),
        }
    }

    /// The publisher answers.
    fn answer(&mut self, fetch: FetchId, piece: Piece) {
        let news = Fetched::Pieces(vec![piece]);
        self.post.send(0, ToShard::FetchPulled { pull: self.pull, fetch, news });
    }

    /// What has come to the mirror of its fetch.
    fn answered(&self) -> &[Piece] {
        match &self.mail[0].1 {
            ToShard::FetchFed { news: Fetched::Pieces(pieces), .. } => pieces,
            other => panic!("an answer was due: {other:?}"),
        }
    }

    /// Fetches that stay open, without a byte or with a first frame.
    fn open_fetches(&mut self, fetches: u64, have_begun: bool) {
        let bytes = frame(4096);
        for n in 0..fetches {
            self.ask(2 * FAR + n);
            self.turn();
            if have_begun {
                let fetch = self.asked();
                self.answer(fetch, Piece { ends: None, ..whole(2 * FAR + n, 0, &bytes) });
                self.turn();
                assert_eq!(self.answered().len(), 1);
            }
        }
        assert_eq!(self.shard.held().fetches as u64, fetches);
    }
}

/// What is part of every turn.
fn home_idle(criterion: &mut Criterion) {
    let mut home = Home::new();
    criterion.bench_function("home/idle_turn", |bencher| bencher.iter(|| home.turn()));
}

fn home_fetch_cached(criterion: &mut Criterion) {
    // Frames of a group and their size, groups that are held, other fetches that wait.
    let cases = [
        ("cached_60x4096B_held_1", 60, 4096, 1, 0),
        ("cached_60x4096B_held_1000", 60, 4096, 1000, 0),
        ("cached_1x300B_held_1", 1, 300, 1, 0),
        ("cached_1x300B_held_1000", 1, 300, 1000, 0),
        ("cached_1x300B_waiting_64", 1, 300, 1, 64),
        ("cached_1x300B_waiting_1024", 1, 300, 1, 1024),
    ];
    for (name, frames, size, held, waiting) in cases {
        let bytes = frame(size);
        let mut home = Home::new();
        for n in 0..held * frames {
            // All at once, so that none expires.
            let piece = nth(n, frames, &bytes);
            let marks = piece.marks.iter().map(|mark| FrameMark { timestamp: 0, ..*mark });
            home.publish(Feed::Piece(Piece { marks: marks.collect(), ..piece }));
            home.turn();
        }
        home.open_fetches(waiting, false);
        let mut group = 0;
        criterion.bench_function(&format!("home_fetch/{name}"), |bencher| {
            bencher.iter(|| {
                group = (group + 1) % held;
                home.ask(group);
                home.turn();
                assert_eq!(home.answered().len() as u64, frames);
            });
        });
    }
}

fn home_fetch_missed(criterion: &mut Criterion) {
    let bytes = frame(4096);
    let frames = FRAMES_PER_GROUP;
    // How the publisher's answer comes, and other fetches that have begun.
    let cases = [
        ("missed_60x4096B_in_1_piece", true, 0),
        ("missed_60x4096B_in_60_turns", false, 0),
        ("missed_60x4096B_in_60_turns_reading_64", false, 64),
        ("missed_60x4096B_in_60_turns_reading_1024", false, 1024),
    ];
    for (name, is_one_piece, reading) in cases {
        let mut home = Home::new();
        home.open_fetches(reading, true);
        let (mut sequence, mut all) = (FAR, Marks::new());
        all.extend((0..frames).flat_map(|n| nth(n, frames, &bytes).marks));
        let all_bytes = Bytes::from(bytes.repeat(frames as usize));
        criterion.bench_function(&format!("home_fetch/{name}"), |bencher| {
            bencher.iter(|| {
                sequence += 1;
                // The cache lets go of what was fetched half a minute ago.
                home.now += Duration::from_millis(10);
                home.ask(sequence);
                home.turn();
                let fetch = home.asked();
                if is_one_piece {
                    let marks = all.clone();
                    home.answer(fetch, Piece { marks, ..whole(sequence, 0, &all_bytes) });
                    home.turn();
                    assert_eq!(home.answered().len(), 1);
                    return;
                }
                for n in 0..frames {
                    home.answer(fetch, Piece { sequence, ..nth(n, frames, &bytes) });
                    home.turn();
                    assert_eq!(home.answered().len(), 1);
                }
            });
        });
        assert_eq!(home.shard.held().fetches as u64, reading);
    }
}

fn home_live(criterion: &mut Criterion) {
    let bytes = frame(4096);
    let cases = [
        ("fetches_0", 0, false),
        ("fetches_waiting_64", 64, false),
        ("fetches_waiting_1024", 1024, false),
        ("fetches_reading_64", 64, true),
        ("fetches_reading_1024", 1024, true),
    ];
    for (name, fetches, have_begun) in cases {
        let mut home = Home::new();
        home.open_fetches(fetches, have_begun);
        let mut next = 0;
        criterion.bench_function(&format!("home_live/{name}"), |bencher| {
            bencher.iter(|| {
                home.publish(Feed::Piece(nth(next, FRAMES_PER_GROUP, &bytes)));
                next += 1;
                home.now += Duration::from_millis(FRAME_INTERVAL_MS);
                home.turn();
                assert!(matches!(home.mail[0].1, ToShard::Fed { .. }));
            });
        });
        assert_eq!(home.shard.held().fetches as u64, fetches);
    }
}

// ---- content ----

/// A track whose feed has begun.
fn content(info: TrackInfo, now: Instant) -> Content {
    let mut content = Content::new(true);
    content.apply(Feed::Info(info), now);
    content.apply(Feed::Start(0), now);
    content
}

/// A frame of this payload as it is stored, one interval after the one before.
fn frame(size: usize) -> Bytes {
    let mut bytes = Vec::new();
    encode_varint(zigzag(FRAME_INTERVAL_MS as i64), &mut bytes);
    encode_varint(size as u64, &mut bytes);
    bytes.resize(bytes.len() + size, 7);
    bytes.into()
}

/// A whole group of one frame.
fn whole(sequence: u64, timestamp: u64, bytes: &Bytes) -> Piece {
    Piece {
        sequence,
        opens: Some(Opening::at(0)),
        bytes: bytes.clone(),
        marks: [FrameMark { start: 0, delta_len: 1, timestamp }].into(),
        ends: Some(GroupEnd::Finished),
    }
}

/// The `n`th frame of a track whose groups have `frames` each.
fn nth(n: u64, frames: u64, bytes: &Bytes) -> Piece {
    let (sequence, index) = (n / frames, n % frames);
    let start = index as u32 * bytes.len() as u32;
    let timestamp = n * FRAME_INTERVAL_MS;
    Piece {
        sequence,
        opens: (index == 0).then_some(Opening::at(0)),
        bytes: bytes.clone(),
        marks: [FrameMark { start, delta_len: 1, timestamp }].into(),
        ends: (index + 1 == frames).then_some(GroupEnd::Finished),
    }
}
