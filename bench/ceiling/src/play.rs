//! Plays: clients of this program in memory, on a made-up clock.

#[path = "../../rig.rs"]
mod rig;

use std::time::{Duration, Instant};

use quinn_proto::{Dir, StreamId, VarInt};
use shardcast::mailbox::{Outside, mesh};
use shardcast::rt::Next;
use shardcast::wire::*;

use crate::limits::QUEUED_BYTES_MAX;
use crate::server::{Counters, Server, Stop};
use rig::{End, Incoming, Link, Rig, Turn};

impl Turn for Server {
    fn turn(&mut self, now: Instant, link: &mut Link) -> Next {
        Server::turn(self, now, link)
    }
}

const BROADCAST: &str = "load/chat/0";
const MOMENT: Duration = Duration::from_millis(20);

struct Play {
    rig: Rig<Server>,
    outside: Outside<Stop>,
}

impl Play {
    fn new() -> Play {
        let post = mesh(1, 1).pop().unwrap();
        let outside = post.outside();
        let server = Server::new(&crate::quic_config().unwrap(), 1, post);
        Play { rig: Rig::new(server), outside }
    }

    fn moment(&mut self) {
        self.rig.run(MOMENT);
    }

    fn join(&mut self, version: Version, role: Role) -> usize {
        let client = self.rig.connect(version.alpn());
        let mut setup = Vec::new();
        encode_varint(UniType::Setup as u64, &mut setup);
        Setup { role, ..Setup::default() }.encode(&mut setup);
        self.rig.clients[client].open(Dir::Uni, &setup, true);
        self.moment();
        client
    }

    /// A publisher that announces one broadcast.
    fn publisher(&mut self, version: Version) -> usize {
        let client = self.join(version, Role::Publisher);
        let peer = &mut self.rig.clients[client];
        let (stream, request) = peer.opened(Dir::Bi).next().expect("a request");
        assert_eq!(request.bytes[0], BidiType::Announce as u8);
        let (body, _) = split_message(&request.bytes[1..], 100).unwrap().unwrap();
        assert!(AnnounceRequest::decode(version, body).unwrap().prefix.is_root());
        let mut answer = Vec::new();
        AnnounceOk { hop: 5, active: 1 }.encode(&mut answer);
        let suffix = Path::parse(BROADCAST).unwrap();
        Announce::Start { suffix, hops: Hops::new(), cost: Cost::ZERO }
            .encode(version, &mut answer);
        // In pieces, as a network may.
        let (first, rest) = answer.split_at(4);
        peer.write(stream, first, false);
        self.moment();
        self.rig.clients[client].write(stream, rest, false);
        self.moment();
        client
    }

    fn subscribe(&mut self, client: usize, version: Version, id: u64) -> StreamId {
        let mut request = Vec::new();
        encode_varint(BidiType::Subscribe as u64, &mut request);
        Subscribe {
            id,
            broadcast: Path::parse(BROADCAST).unwrap(),
            track: "t0".to_owned(),
            preferences: crate::server::requests::WANTED,
        }
        .encode(version, &mut request);
        let stream = self.rig.clients[client].open(Dir::Bi, &request, false);
        self.moment();
        stream
    }

    fn viewer(&mut self, version: Version, id: u64) -> usize {
        let client = self.join(version, Role::Subscriber);
        self.subscribe(client, version, id);
        client
    }

    /// The number under which the server has asked a publisher for a track.
    fn asked(&self, publisher: usize, version: Version) -> u64 {
        let (_, request) = self.rig.clients[publisher].opened(Dir::Bi).last().unwrap();
        assert_eq!(request.bytes[0], BidiType::Subscribe as u8, "it asks for a track");
        let (body, _) = split_message(&request.bytes[1..], 100).unwrap().unwrap();
        let subscribe = Subscribe::decode(version, body).unwrap();
        assert_eq!((subscribe.broadcast.as_str(), &*subscribe.track), (BROADCAST, "t0"));
        subscribe.id
    }

    /// A publisher begins a group.
    fn begin(&mut self, publisher: usize, head: &[u8], bytes: &[u8], fin: bool) -> StreamId {
        let stream = self.rig.clients[publisher].open(Dir::Uni, &[head, bytes].concat(), fin);
        self.moment();
        stream
    }

    /// What a viewer has of groups, SETUP apart.
    fn groups(&self, client: usize) -> Vec<&Incoming> {
        let opened = self.rig.clients[client].opened(Dir::Uni).map(|(_, incoming)| incoming);
        opened.filter(|incoming| incoming.bytes.first() != Some(&(UniType::Setup as u8))).collect()
    }

    fn counters(&self) -> Counters {
        self.rig.server.counters()
    }
}

fn head(version: Version, subscribe_id: u64, sequence: u64) -> Vec<u8> {
    let mut head = vec![UniType::Group as u8];
    GroupHeader { subscribe_id, sequence, frame_start: 0 }.encode(version, &mut head);
    head
}

fn whole(version: Version, id: u64, sequence: u64, bytes: &[u8]) -> Incoming {
    let bytes = [&head(version, id, sequence), bytes].concat();
    Incoming { bytes, end: Some(End::Finished), is_stopped: false }
}

fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 % 251) as u8).collect()
}

#[test]
fn every_viewer_gets_every_group_as_it_was() {
    use Version::{Lite05, Lite06};
    let mut play = Play::new();
    let publisher = play.publisher(Lite06);
    let viewers =
        [(Lite06, 0), (Lite06, 0), (Lite05, 3)].map(|(v, id)| (play.viewer(v, id), v, id));
    let id = play.asked(publisher, Lite06);
    for sequence in 0..5 {
        play.begin(publisher, &head(Lite06, id, sequence), b"a frame", true);
    }
    for (viewer, version, id) in viewers {
        let expect: Vec<_> = (0..5).map(|n| whole(version, id, n, b"a frame")).collect();
        assert_eq!(play.groups(viewer), expect.iter().collect::<Vec<_>>());
        let peer = &play.rig.clients[viewer];
        let said = &peer.streams.iter().find(|(id, _)| id.dir() == Dir::Bi).unwrap().1.bytes;
        let (first, used) = SubscribeResponse::take(version, said).unwrap().unwrap();
        assert_eq!((first, used), (SubscribeResponse::Start { group: 0 }, said.len()));
    }
    let counters = Counters { groups_total: 5, copies_total: 15, missed_copies_total: 0 };
    assert_eq!(play.counters(), counters);
}

#[test]
fn a_group_that_grows_is_passed_on_as_it_comes() {
    let version = Version::Lite05;
    let mut play = Play::new();
    let publisher = play.publisher(version);
    let viewer = play.viewer(Version::Lite06, 0);
    let id = play.asked(publisher, version);
    let bytes = noise(600_000);
    // The head itself comes in two pieces.
    let head = head(version, id, 7);
    let stream = play.begin(publisher, &head[..2], &[], false);
    play.rig.clients[publisher].write(stream, &head[2..], false);
    for (n, piece) in bytes.chunks(100_000).enumerate() {
        play.rig.clients[publisher].write(stream, piece, n == 5);
        play.moment();
        let has = play.groups(viewer)[0].bytes.len();
        assert!(has > (n + 1) * 100_000, "{has} bytes after {n}");
    }
    assert_eq!(play.groups(viewer), [&whole(Version::Lite06, 0, 7, &bytes)]);
}

#[test]
fn a_group_that_is_cut_off_is_cut_off_for_viewers() {
    let version = Version::Lite06;
    let mut play = Play::new();
    let publisher = play.publisher(version);
    let viewer = play.viewer(version, 0);
    let id = play.asked(publisher, version);
    let stream = play.begin(publisher, &head(version, id, 0), b"half", false);
    play.rig.clients[publisher].conn.send_stream(stream).reset(VarInt::from_u32(0x34)).unwrap();
    play.begin(publisher, &head(version, id, 1), b"half of another", false);
    // Groups of a publisher that leaves are as good as reset.
    let now = play.rig.now;
    play.rig.clients[publisher].close(now);
    play.moment();
    let ends: Vec<_> = play.groups(viewer).iter().map(|group| group.end).collect();
    let reset = |code: StreamCode| Some(End::Reset(code.to_http3()));
    assert_eq!(ends, [reset(StreamCode::OLD), reset(StreamCode::CANCEL)]);
    let subscription = play.rig.clients[viewer].streams.iter().find(|(id, _)| id.dir() == Dir::Bi);
    assert_eq!(subscription.unwrap().1.end, Some(End::Finished));
}

#[test]
fn who_comes_too_early_is_told_and_comes_again() {
    let version = Version::Lite06;
    let mut play = Play::new();
    let viewer = play.join(version, Role::Subscriber);
    let early = play.subscribe(viewer, version, 0);
    let refused = Some(End::Reset(StreamCode::UNROUTABLE.to_http3()));
    assert_eq!(play.rig.clients[viewer].streams[&early].end, refused);
    let publisher = play.publisher(version);
    play.subscribe(viewer, version, 1);
    let id = play.asked(publisher, version);
    play.begin(publisher, &head(version, id, 4), b"x", true);
    assert_eq!(play.groups(viewer), [&whole(version, 1, 4, b"x")]);
}

#[test]
fn the_last_viewer_ends_the_subscription() {
    let version = Version::Lite06;
    let mut play = Play::new();
    let publisher = play.publisher(version);
    let (first, second) = (play.viewer(version, 0), play.join(version, Role::Subscriber));
    let stream = play.subscribe(second, version, 0);
    let id = play.asked(publisher, version);
    let asks = |play: &Play| play.rig.clients[publisher].opened(Dir::Bi).last().unwrap().1.end;
    let now = play.rig.now;
    play.rig.clients[first].close(now);
    play.moment();
    assert_eq!(asks(&play), None);
    play.begin(publisher, &head(version, id, 0), b"x", true);
    assert_eq!(play.groups(second).len(), 1);
    play.rig.clients[second].conn.send_stream(stream).finish().unwrap();
    play.moment();
    assert_eq!(asks(&play), Some(End::Finished));
    let late = play.begin(publisher, &head(version, id, 1), b"x", false);
    assert!(play.rig.clients[publisher].streams[&late].is_stopped);
    assert_eq!(play.groups(second).len(), 1);
}

#[test]
fn a_viewer_that_does_not_read_holds_what_it_may_and_nobody_up() {
    let version = Version::Lite06;
    let mut play = Play::new();
    let publisher = play.publisher(version);
    let (slow, fast) = (play.viewer(version, 0), play.viewer(version, 0));
    let id = play.asked(publisher, version);
    let bytes = noise(256 << 10);
    // Its window has 8 MiB, less what it has not said yet that it took.
    let groups = (8 << 20) / bytes.len() + QUEUED_BYTES_MAX / bytes.len() + 10;
    // What waited is counted off when it is sent: the second time is like the first.
    for round in 0..2 {
        for client in [slow, fast] {
            play.rig.clients[client].streams.clear();
        }
        play.rig.clients[slow].reads = false;
        for n in 0..groups {
            let sequence = (round * groups + n) as u64;
            play.begin(publisher, &head(version, id, sequence), &bytes, true);
            play.moment();
        }
        let whole = |play: &Play, viewer| {
            let groups = play.groups(viewer);
            groups.iter().filter(|group| group.end == Some(End::Finished)).count()
        };
        assert_eq!(whole(&play, fast), groups);
        play.rig.clients[slow].catch_up();
        play.rig.run(Duration::from_secs(2));
        let got = whole(&play, slow);
        assert!((groups - 16..groups).contains(&got), "{got} of {groups}");
    }
}

#[test]
fn a_broadcast_that_is_withdrawn_is_withdrawn_for_viewers() {
    for version in [Version::Lite05, Version::Lite06] {
        let mut play = Play::new();
        let publisher = play.publisher(version);
        let viewer = play.join(version, Role::Subscriber);
        let early = play.subscribe(viewer, version, 0);
        let end = match version {
            Version::Lite06 => Announce::End { id: 0 },
            _ => Announce::Ended { suffix: Path::parse(BROADCAST).unwrap() },
        };
        let mut bytes = Vec::new();
        end.encode(version, &mut bytes);
        let peer = &mut play.rig.clients[publisher];
        let announce = peer.opened(Dir::Bi).next().unwrap().0;
        peer.write(announce, &bytes, false);
        play.moment();
        let viewer_has = |play: &Play, stream| play.rig.clients[viewer].streams[&stream].end;
        assert_eq!(viewer_has(&play, early), Some(End::Finished));
        let late = play.subscribe(viewer, version, 1);
        assert!(matches!(viewer_has(&play, late), Some(End::Reset(_))));
    }
}

#[test]
fn of_two_publishers_the_last_one_counts() {
    let version = Version::Lite06;
    let mut play = Play::new();
    play.publisher(version);
    let viewer = play.join(version, Role::Subscriber);
    let before = play.subscribe(viewer, version, 0);
    let second = play.publisher(version);
    assert_eq!(play.rig.clients[viewer].streams[&before].end, Some(End::Finished));
    play.subscribe(viewer, version, 1);
    let id = play.asked(second, version);
    play.begin(second, &head(version, id, 0), b"x", true);
    assert_eq!(play.groups(viewer), [&whole(version, 1, 0, b"x")]);
}

#[test]
fn groups_wait_for_streams() {
    let version = Version::Lite06;
    let mut play = Play::new();
    let publisher = play.publisher(version);
    let viewer = play.viewer(version, 0);
    let id = play.asked(publisher, version);
    // Streams that are not read are not given back: the client grants a thousand.
    play.rig.clients[viewer].reads = false;
    for sequence in 0..1100 {
        play.begin(publisher, &head(version, id, sequence), b"x", true);
    }
    assert!(play.rig.clients[viewer].opened(Dir::Uni).count() <= 1000);
    play.rig.clients[viewer].catch_up();
    play.rig.run(Duration::from_secs(1));
    let expect: Vec<_> = (0..1100).map(|n| whole(version, 0, n, b"x")).collect();
    assert!(play.groups(viewer).into_iter().eq(&expect));
}

#[test]
fn a_full_socket_loses_nothing() {
    let version = Version::Lite06;
    let mut play = Play::new();
    let publisher = play.publisher(version);
    let viewers = [0, 1, 2].map(|id| play.viewer(version, id));
    let id = play.asked(publisher, version);
    let bytes = noise(50_000);
    let stream = play.begin(publisher, &head(version, id, 0), &bytes[..10], false);
    play.rig.clients[publisher].write(stream, &bytes[10..], true);
    play.rig.upwards();
    play.rig.link.is_full = true;
    assert!(matches!(play.rig.turns(), Next::Until(_)), "a full socket is tried again");
    play.rig.link.is_full = false;
    play.moment();
    for (viewer, id) in viewers.into_iter().zip(0..) {
        assert_eq!(play.groups(viewer), [&whole(version, id, 0, &bytes)]);
    }
}

#[test]
fn nonsense_ends_its_own_connection_only() {
    let version = Version::Lite06;
    let mut play = Play::new();
    let publisher = play.publisher(version);
    let viewer = play.viewer(version, 0);
    let id = play.asked(publisher, version);
    let mut long_name = vec![BidiType::Subscribe as u8];
    Subscribe {
        id: 0,
        broadcast: Path::parse(BROADCAST).unwrap(),
        track: "t".repeat(5000),
        preferences: crate::server::requests::WANTED,
    }
    .encode(version, &mut long_name);
    // On a stream of which kind; what; and whether that is more than a stream's own end.
    let cases: [(Dir, &[u8], bool); 8] = [
        (Dir::Uni, &[0, 0x3f], true),
        (Dir::Uni, &[0, 1, 0xff], true),
        (Dir::Uni, &[9], false),
        (Dir::Uni, &head(version, 77, 0), false),
        // A group of a track that another publisher brings.
        (Dir::Uni, &head(version, id, 5), false),
        (Dir::Bi, &[2, 3, 0, 0xff, 0], true),
        (Dir::Bi, &[3], false),
        (Dir::Bi, &long_name, false),
    ];
    for (dir, bytes, is_fatal) in cases {
        let client = play.join(version, Role::Both);
        play.rig.clients[client].open(dir, bytes, false);
        play.moment();
        let lost = &play.rig.clients[client].lost;
        assert_eq!(lost.is_some(), is_fatal, "{bytes:?}: {lost:?}");
    }
    play.begin(publisher, &head(version, id, 0), b"x", true);
    assert_eq!(play.groups(viewer), [&whole(version, 0, 0, b"x")]);
}

#[test]
fn partial_messages_are_bounded() {
    let version = Version::Lite06;
    let mut play = Play::new();
    let client = play.join(version, Role::Subscriber);
    // 60,000 bytes were to come, and one is missing on every stream.
    let mut request = vec![BidiType::Subscribe as u8];
    encode_varint(60_000, &mut request);
    request.resize(request.len() + 59_999, 0);
    let mut streams = 0;
    while play.rig.clients[client].lost.is_none() {
        assert!(streams < 20, "{streams} streams of 60 kB");
        play.rig.clients[client].open(Dir::Bi, &request, false);
        play.rig.run(Duration::from_millis(200));
        streams += 1;
    }
    assert_eq!(streams, 18, "1 MiB in messages of 60 kB");
}

#[test]
fn the_end_is_said() {
    let mut play = Play::new();
    let viewer = play.join(Version::Lite06, Role::Subscriber);
    assert!(play.outside.send(Stop).is_ok());
    assert_eq!(play.rig.turns(), Next::Stop);
    play.rig.downwards();
    let lost = play.rig.clients[viewer].lost.clone();
    assert!(lost.as_ref().is_some_and(|why| why.contains("ceiling stopped")), "{lost:?}");
}
