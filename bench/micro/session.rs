//! A session that answers fetches from the cache.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::Criterion;
use shardcast::route::{SessionRef, Trust};
use shardcast::secret::Secret;
use shardcast::session::streams::{Estimate, ReadEnd, StreamId, Streams, WriteEnd};
use shardcast::session::{
    Context, Counts, Effect, Names, Pass, Policy, RouteIds, Service, Session,
};
use shardcast::track::Feed;
use shardcast::wire::{
    BidiType, Fetch, Path, Protocol, Role, SessionCode, Setup, StreamCode, UniType, Version,
    encode_varint,
};

use crate::content::{BROADCAST, FRAMES_PER_GROUP, INFO, content, frame, nth};

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

    fn window(&self) -> u64 {
        u64::MAX
    }

    fn estimate(&self) -> Estimate {
        Estimate::default()
    }

    fn close(&mut self, _: SessionCode, reason: Cow<'static, str>) {
        panic!("{reason}");
    }
}

pub fn fetch(criterion: &mut Criterion) {
    for (frames, size) in [(FRAMES_PER_GROUP, 4096), (1, 300)] {
        let now = Instant::now();
        let bytes = frame(size);
        let mut content = content(INFO, now);
        for n in 0..frames {
            content.apply(Feed::Piece(nth(n, frames, &bytes)), now);
        }

        let mut peer = Peer::default();
        let mut effects = Vec::new();
        let mut counts = Counts::default();
        let mut route_ids = RouteIds::new(0, now);
        let policy = Arc::new(Policy::open(7, Secret::new(&[4; 32])));
        let me = SessionRef { shard: 0, slot: 0, generation: 0 };
        let names = Names { trust: Trust::Relay, identity: 1, stamp: 2 };
        let protocol = Protocol::Version(Version::Lite06);
        let mut session = Session::new(protocol, Some(Pass::unlimited()), me, policy, now, names);
        encode_varint(UniType::Setup as u64, &mut peer.says);
        Setup { role: Role::Subscriber, ..Setup::default() }.encode(&mut peer.says);
        let mut cx = Context {
            now,
            streams: &mut peer,
            effects: &mut effects,
            route_ids: &mut route_ids,
            arrival_ms: 0,
            is_crowded: false,
            changes_left: usize::MAX,
            visits: 0,
            counts: &mut counts,
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
