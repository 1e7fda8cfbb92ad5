//! The home of a track, with a mirror and a publisher on another shard.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::Criterion;
use shardcast::access::Access;
use shardcast::config::IdentitySource;
use shardcast::limits::{LANE_MESSAGES, LINGER_DEFAULT, MAIL_PER_TURN};
use shardcast::mailbox::{Flush, Post, mesh};
use shardcast::net::{Datagrams, Received, Sent, Train};
use shardcast::quic::{Config as QuicConfig, CongestionControl, Keys};
use shardcast::route::{Route, RouteId, SessionRef, Trust};
use shardcast::secret::Secret;
use shardcast::session::Policy;
use shardcast::shard::message::{RouteNews, ToShard};
use shardcast::shard::names::TrackKey;
use shardcast::shard::placement::home_of;
use shardcast::shard::{CacheBounds, Setting, Shard};
use shardcast::source::ClientBounds;
use shardcast::tls::Identity;
use shardcast::track::demand::Demand;
use shardcast::track::fetch::{Ask, Asker, FetchId};
use shardcast::track::group::{FrameMark, Marks, Piece};
use shardcast::track::serve::{Need, PullCommand};
use shardcast::track::{Feed, Fetched, PullRef, TrackRef};
use shardcast::wall::Wall;
use shardcast::wire::{Cost, Hops, Path, Version};

use crate::content::{
    BROADCAST, FRAME_INTERVAL_MS, FRAMES_PER_GROUP, INFO, WANTED, frame, nth, whole,
};

/// Sequences from here on are never brought by the live feed.
const FAR: u64 = 1 << 40;

pub const MIRROR: TrackRef = TrackRef { shard: 1, slot: 0, generation: 1 };

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
        let identity = Identity::load(&source, &[], &[alpn]).expect("an identity");
        let keys = Keys { cid: [1; 32], reset: [2; 32], token: [3; 32] };
        let now = Instant::now();
        let setting = Setting {
            shard: 0,
            shards: 2,
            quic: QuicConfig::new(identity.config, keys, CongestionControl::default())
                .expect("a QUIC configuration"),
            policy: Arc::new(Policy::open(7, Secret::new(&[4; 32]))),
            access: Arc::new(Access::open()),
            authority: None,
            seed: 1,
            started: now,
            wall: Wall::new(now, Duration::ZERO),
            linger: LINGER_DEFAULT,
            cache: CacheBounds { bytes: u64::MAX, duration: Duration::from_secs(30) },
            memory: 1 << 40,
            routes: u64::MAX,
            bounds: ClientBounds::default(),
        };
        let [own, post] = mesh(2, LANE_MESSAGES).try_into().ok().expect("two posts");

        let names = (0..).map(|n| format!("video{n}"));
        let name = names.into_iter().find(|name| home_of(BROADCAST, name, 2) == 0);
        let broadcast = Path::parse(BROADCAST).expect("a path");
        let route = Arc::new(Route {
            id: RouteId(1),
            path: broadcast.clone(),
            is_whole: true,
            is_linked: false,
            hops: Hops::from_slice(&[8]).expect("a short chain"),
            origin: 8,
            trust: Trust::Relay,
            cost: Cost::ZERO,
            via: 8,
            session: SessionRef { shard: 1, slot: 0, generation: 1 },
            version: Version::Lite06,
            is_silent: false,
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

        home.post.send(0, ToShard::Route(RouteNews::Up(home.route.clone())));
        let need = Need { info: false, feed: true, demand: Demand::of(Version::Lite06, &WANTED) };
        let (need, key, route) = (Box::new(need), home.key.clone(), home.route.clone());
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
        let ask = Ask { group, frame_start: 0, priority: 1, asker: Asker(1) };
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
pub fn idle(criterion: &mut Criterion) {
    let mut home = Home::new();
    criterion.bench_function("home/idle_turn", |bencher| bencher.iter(|| home.turn()));
}

pub fn fetch_cached(criterion: &mut Criterion) {
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

pub fn fetch_missed(criterion: &mut Criterion) {
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

pub fn live(criterion: &mut Criterion) {
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
