//! A shard with a publisher and many viewers of one track, all in memory: what a turn does can be
//! looked at, and measured, without a network.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::{Dir, StreamId};
use shardcast::access::Access;
use shardcast::config::IdentitySource;
use shardcast::limits::{LANE_MESSAGES, LINGER_DEFAULT};
use shardcast::mailbox::mesh;
use shardcast::net::socket::SocketCounts;
use shardcast::quic::{Config as QuicConfig, CongestionControl, Keys};
use shardcast::rt::Next;
use shardcast::secret::Secret;
use shardcast::session::Policy;
use shardcast::shard::message::ToShard;
use shardcast::shard::{CacheBounds, Setting, Shard};
use shardcast::source::ClientBounds;
use shardcast::tls::Identity;
use shardcast::wall::Wall;
use shardcast::wire::{
    Announce, AnnounceOk, BidiType, CONTROL_MESSAGE_BYTES_MAX, Cost, FrameHeader, GroupHeader,
    Hops, Path, Preferences, Role, Setup, Subscribe, SubscribeResponse, TrackInfo, UniType,
    Version, encode_varint, split_message,
};

use crate::rig::{Link, Rig, Turn};

const VERSION: Version = Version::Lite06;
const BROADCAST: &str = "live/cam";
const TRACK: &str = "video";

/// Longer than a client may take to acknowledge.
const ACKNOWLEDGED_AFTER: Duration = Duration::from_millis(30);

/// Frames before the first that counts.
const WARM_UP_LAPS: usize = 30;

/// What the publisher sends.
#[derive(Clone, Copy)]
pub struct Shape {
    frame_bytes: usize,
    frames_per_group: u64,
    interval: Duration,
}

pub const CHAT: Shape =
    Shape { frame_bytes: 300, frames_per_group: 1, interval: Duration::from_millis(50) };
pub const VIDEO: Shape =
    Shape { frame_bytes: 4096, frames_per_group: 60, interval: Duration::from_millis(40) };

impl Turn for Shard {
    fn turn(&mut self, now: Instant, link: &mut Link) -> Next {
        let next = Shard::turn(self, now, link);
        // As the relay does, but for its clock.
        self.turned(now, now, SocketCounts::default);
        next
    }
}

pub struct Stage {
    rig: Rig<Shard>,
    shape: Shape,
    publisher: usize,
    viewers: Vec<usize>,
    /// The number of the relay's subscription.
    subscribe_id: u64,
    /// The next frame of the track, and the group that is open.
    next: u64,
    open: Option<StreamId>,
    /// Bytes that every viewer should have got since the last delivery.
    owed: usize,
}

impl Stage {
    pub fn new(viewers: usize, shape: Shape) -> Stage {
        let mut rig = Rig::new(shard());
        let publisher = join(&mut rig, Role::Publisher);
        let mut announce = Vec::new();
        AnnounceOk { hop: 5, active: 1 }.encode(&mut announce);
        let suffix = Path::parse(BROADCAST).expect("a path");
        // The relay itself adds the publisher's hop.
        Announce::Start { suffix, hops: Hops::new(), cost: Cost::ZERO }
            .encode(VERSION, &mut announce);
        answer(&mut rig, publisher, BidiType::Announce, &announce, false);

        let viewers = (0..viewers).map(|_| join(&mut rig, Role::Subscriber)).collect::<Vec<_>>();
        let mut subscribe = vec![BidiType::Subscribe as u8];
        Subscribe {
            id: 0,
            broadcast: Path::parse(BROADCAST).expect("a path"),
            track: TRACK.to_owned(),
            preferences: Preferences {
                priority: 1,
                max_age_ms: 10_000,
                group_start: None,
                group_end: None,
                frame_start: 0,
                frame_end: None,
            },
        }
        .encode(VERSION, &mut subscribe);
        for viewer in &viewers {
            rig.clients[*viewer].open(Dir::Bi, &subscribe, false);
        }
        rig.run(ACKNOWLEDGED_AFTER);
        let mut info = Vec::new();
        TrackInfo { priority: 0, max_age_ms: 10_000, timescale: 1000 }.encode(VERSION, &mut info);
        answer(&mut rig, publisher, BidiType::Track, &info, true);
        let mut start = Vec::new();
        SubscribeResponse::Start { group: 0 }.encode(VERSION, &mut start);
        let asked = answer(&mut rig, publisher, BidiType::Subscribe, &start, false);
        let body = split_message(&asked, CONTROL_MESSAGE_BYTES_MAX).ok().flatten();
        let asked = Subscribe::decode(VERSION, body.expect("a whole message").0);
        let subscribe_id = asked.expect("a SUBSCRIBE").id;

        let mut stage =
            Stage { rig, shape, publisher, viewers, subscribe_id, next: 0, open: None, owed: 0 };
        // Until every connection has its window and has found the path's MTU.
        for _ in 0..WARM_UP_LAPS {
            stage.publish();
            stage.turns();
            stage.deliver();
            stage.turns();
        }
        stage
    }

    /// The publisher's next frame arrives at the shard's socket.
    pub fn publish(&mut self) {
        self.rig.now += self.shape.interval.saturating_sub(ACKNOWLEDGED_AFTER);
        let Shape { frame_bytes, frames_per_group, interval } = self.shape;
        let (sequence, index) = (self.next / frames_per_group, self.next % frames_per_group);
        let mut head = Vec::new();
        if index == 0 {
            encode_varint(UniType::Group as u64, &mut head);
            let subscribe_id = self.subscribe_id;
            GroupHeader { subscribe_id, sequence, frame_start: 0 }.encode(VERSION, &mut head);
        }
        let first_ms = sequence * frames_per_group * interval.as_millis() as u64;
        let delta_ms = if index == 0 { first_ms } else { interval.as_millis() as u64 };
        FrameHeader { timestamp_delta: delta_ms as i64, size: frame_bytes as u64 }
            .encode(VERSION, &mut head);
        head.resize(head.len() + frame_bytes, 7);
        self.next += 1;
        self.owed += frame_bytes;
        let is_last = index + 1 == frames_per_group;
        let publisher = &mut self.rig.clients[self.publisher];
        match self.open {
            None => self.open = Some(publisher.open(Dir::Uni, &head, is_last)),
            Some(stream) => publisher.write(stream, &head, is_last),
        }
        if is_last {
            self.open = None;
        }
        self.rig.upwards();
    }

    /// What is measured: the shard's turns at this instant.
    pub fn turns(&mut self) {
        self.rig.turns();
    }

    /// What the shard has sent reaches everybody, and everybody's acknowledgements its socket.
    pub fn deliver(&mut self) {
        self.rig.downwards();
        self.rig.now += ACKNOWLEDGED_AFTER;
        self.rig.upwards();
        for viewer in &self.viewers {
            let streams = &mut self.rig.clients[*viewer].streams;
            let got: usize = streams.values().map(|incoming| incoming.bytes.len()).sum();
            assert!(got >= self.owed, "a viewer has {got} of {} bytes", self.owed);
            streams.clear();
        }
        self.rig.clients[self.publisher].streams.clear();
        self.owed = 0;
    }
}

fn shard() -> Shard {
    let hosts = vec!["localhost".try_into().expect("a name")];
    let alpn = VERSION.alpn().as_bytes();
    let identity = Identity::load(&IdentitySource::Generated { hosts }, &[], &[alpn]);
    let keys = Keys { cid: [1; 32], reset: [2; 32], token: [3; 32] };
    let tls = identity.expect("an identity").config;
    let started = Instant::now();
    let setting = Setting {
        shard: 0,
        shards: 1,
        quic: QuicConfig::new(tls, keys, CongestionControl::default())
            .expect("a QUIC configuration"),
        policy: Arc::new(Policy::open(7, Secret::new(&[4; 32]))),
        access: Arc::new(Access::open()),
        authority: None,
        // quinn-proto updates the keys of each connection once after 10 to 1,000 packets, which its seed says. With this
        // one none has its turn when a frame is counted: two updates are as many instructions as 25 viewers.
        seed: 2,
        started,
        wall: Wall::new(started, Duration::ZERO),
        linger: LINGER_DEFAULT,
        cache: CacheBounds { bytes: 64 << 20, duration: Duration::from_secs(30) },
        memory: 1 << 40,
        routes: u64::MAX,
        bounds: ClientBounds::default(),
    };
    Shard::new(setting, mesh::<ToShard>(1, LANE_MESSAGES).pop().expect("one post"))
}

fn join(rig: &mut Rig<Shard>, role: Role) -> usize {
    let client = rig.connect(VERSION.alpn());
    let mut setup = vec![UniType::Setup as u8];
    Setup { role, ..Setup::default() }.encode(&mut setup);
    rig.clients[client].open(Dir::Uni, &setup, true);
    rig.run(Duration::from_millis(1));
    client
}

/// Answers the relay's request of this type, and returns the request without its type.
fn answer(
    rig: &mut Rig<Shard>,
    publisher: usize,
    kind: BidiType,
    bytes: &[u8],
    fin: bool,
) -> Vec<u8> {
    let client = &mut rig.clients[publisher];
    let asked =
        client.opened(Dir::Bi).find(|(_, asked)| asked.bytes.first() == Some(&(kind as u8)));
    let (stream, request) = asked
        .map(|(id, asked)| (id, asked.bytes[1..].to_vec()))
        .unwrap_or_else(|| panic!("a request of type {kind:?}"));
    client.write(stream, bytes, fin);
    rig.run(ACKNOWLEDGED_AFTER);
    request
}
