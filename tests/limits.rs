//! Bounds that a peer can reach, each at its most and at one more, in the simulated world: the most
//! works, one more ends as it says here, and whoever else is there notices neither.
//!
//! Bounds of a pure function have their two sides beside it: frames of a group and HTTP/3 frames
//! (`src/track/scan.rs`, `src/h3`), hops and segments of a path (`tests/wire.rs`). Handshakes have them
//! in `tests/initials.rs`, streams in `tests/drills.rs`, HTTP in `tests/web.rs`, rates of announcements
//! in `tests/floods.rs`, and times where what is waited for is played.

#[path = "support/simulated.rs"]
mod support;

use std::time::Duration;

use quinn_proto::Dir;
use shardcast::limits::*;
use shardcast::wire::*;
use support::peer::*;
use support::world::*;

const PATH: &str = "live/cam";
const TRACK: &str = "video";

use Version::{Lite03, Lite05, Lite06};

/// What comes of somebody who goes so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Works,
    /// The stream or the group ends with this code, and the session goes on.
    Refused(StreamCode),
    /// The session ends with this code.
    Closed(SessionCode),
    /// It is heard and leads nowhere.
    Ignored,
    /// The last one has to wait.
    Waits,
}

struct Limit {
    name: &'static str,
    most: u64,
    /// What one more leads to.
    over: Fate,
    /// Somebody goes so far.
    play: fn(&mut Ground, u64) -> Fate,
}

use Fate::*;

const LIMITS: [Limit; 15] = [
    Limit {
        name: "FRAME_BYTES_MAX",
        most: FRAME_BYTES_MAX,
        over: Refused(StreamCode::FRAME_TOO_LARGE),
        play: |ground, bytes| ground.publishes(&[bytes as usize]),
    },
    Limit {
        name: "GROUP_BYTES_MAX",
        most: GROUP_BYTES_MAX,
        over: Refused(StreamCode::GROUP_TOO_LARGE),
        play: |ground, bytes| ground.publishes(&[9, bytes as usize - 9]),
    },
    Limit {
        name: "GROUP_FRAMES_MAX",
        most: GROUP_FRAMES_MAX as u64,
        over: Refused(StreamCode::GROUP_TOO_LARGE),
        play: |ground, frames| ground.publishes(&vec![0; frames as usize]),
    },
    Limit {
        name: "CONTROL_MESSAGE_BYTES_MAX",
        most: CONTROL_MESSAGE_BYTES_MAX as u64,
        over: Closed(SessionCode::PROTOCOL_VIOLATION),
        // One parameter that nobody knows: how many there are, which one, and its length.
        play: |ground, bytes| ground.introduces(&[&[1, 0x40, 100], &field(bytes as usize - 3)[..]]),
    },
    Limit {
        name: "SETUP_PARAMETERS_MAX",
        most: SETUP_PARAMETERS_MAX as u64,
        over: Closed(SessionCode::PROTOCOL_VIOLATION),
        play: |ground, count| {
            let parameters: Vec<u8> =
                (0..count).flat_map(|id| [varint(100 + id), vec![0]].concat()).collect();
            ground.introduces(&[&varint(count), &parameters])
        },
    },
    Limit {
        name: "ROOT_BYTES_MAX",
        most: ROOT_BYTES_MAX as u64,
        over: Closed(SessionCode::PROTOCOL_VIOLATION),
        play: |ground, bytes| {
            let path = Some("p".repeat(bytes as usize));
            ground.enters(Spec { setup: Setup { path, ..Setup::default() }, ..stranger() })
        },
    },
    Limit {
        name: "REQUEST_NAME_BYTES_MAX",
        most: REQUEST_NAME_BYTES_MAX as u64,
        over: Refused(StreamCode::NOT_FOUND),
        play: Ground::subscribes,
    },
    Limit {
        name: "ANNOUNCED_PATH_BYTES_MAX",
        most: ANNOUNCED_PATH_BYTES_MAX as u64,
        over: Ignored,
        play: |ground, bytes| ground.announces(&["x".repeat(bytes as usize)], &[]),
    },
    Limit {
        name: "HOPS_MAX",
        // The relay adds whom it has it from.
        most: HOPS_MAX as u64 - 1,
        over: Ignored,
        play: |ground, hops| ground.announces(&["x".to_owned()], &Vec::from_iter(100..100 + hops)),
    },
    Limit {
        name: "ANNOUNCEMENTS_PER_PEER_MAX",
        most: ANNOUNCEMENTS_PER_PEER_MAX as u64,
        over: Ignored,
        play: |ground, count| {
            ground.announces(&Vec::from_iter((0..count).map(|n| format!("x{n}"))), &[])
        },
    },
    Limit {
        name: "ANNOUNCED_BYTES_PER_PEER_MAX",
        most: ANNOUNCED_BYTES_PER_PEER_MAX as u64,
        over: Ignored,
        play: |ground, bytes| {
            let parts = in_parts(bytes as usize, ANNOUNCED_PATH_BYTES_MAX);
            let paths = parts.enumerate().map(|(n, part)| {
                let path = format!("{n:x>part$}");
                path[path.len() - part..].to_owned()
            });
            ground.announces(&Vec::from_iter(paths), &[])
        },
    },
    Limit {
        name: "ANNOUNCE_STREAMS_PER_PEER_MAX",
        most: ANNOUNCE_STREAMS_PER_PEER_MAX as u64,
        over: Refused(StreamCode::CANCEL),
        play: |ground, count| {
            let mut request = vec![BidiType::Announce as u8];
            AnnounceRequest { prefix: Path::root(), exclude_hop: 0 }.encode(Lite06, &mut request);
            ground.asks((0..count).map(|_| request.clone()))
        },
    },
    Limit {
        name: "PROBE_STREAMS_PER_PEER_MAX",
        most: PROBE_STREAMS_PER_PEER_MAX as u64,
        over: Refused(StreamCode::CANCEL),
        play: |ground, count| ground.asks((0..count).map(|_| vec![BidiType::Probe as u8])),
    },
    Limit {
        name: "CONTROL_INPUT_BYTES_MAX",
        most: CONTROL_INPUT_BYTES_MAX as u64,
        over: Closed(SessionCode::INTERNAL),
        // The begins of messages that are as long as one may be.
        play: |ground, bytes| {
            let head = [vec![BidiType::Subscribe as u8], varint(CONTROL_MESSAGE_BYTES_MAX as u64)]
                .concat();
            ground.asks(in_parts(bytes as usize, CONTROL_MESSAGE_BYTES_MAX).map(|part| {
                let mut begin = head.clone();
                begin.resize(part, 0);
                begin
            }))
        },
    },
    Limit {
        name: "FETCHES_PER_VIEWER",
        most: FETCHES_PER_VIEWER as u64,
        over: Waits,
        play: Ground::fetches,
    },
];

#[test]
fn the_most_works_and_one_more_ends_as_it_says() {
    for Limit { name, most, over, play } in LIMITS {
        for (amount, expected) in [(most, Works), (most + 1, over)] {
            let mut ground = Ground::new();
            assert_eq!(play(&mut ground, amount), expected, "{name}: {amount}");
            ground.others_notice_nothing(name);
        }
        println!("{name}: {most} works, and one more is {over:?}");
    }
}

/// What is more than a peer may announce leads nowhere, whatever it says of it later, and whatever else it publishes
/// goes on. When there is room again it is asked for what it has; before lite-05 it has to say that by itself.
#[test]
fn what_is_announced_beyond_the_bound_hurts_nothing_else() {
    for version in [Lite03, Lite05, Lite06] {
        let mut ground = Ground::new();
        let before = ground.w.held()[1].routes;
        let peer = ground.w.join(Spec { is_rude: true, ..Spec::new(version, 0) }.hop(3));
        let last = ANNOUNCEMENTS_PER_PEER_MAX;
        for n in 0..last + 2 {
            ground.w.peers[peer].announce(&format!("x{n:05}"), &[], Cost::ZERO);
        }
        let knows = |routes: usize| move |w: &World| w.held()[1].routes == before + routes;
        assert!(ground.w.run_until(Duration::from_secs(120), knows(last)), "{version:?}");
        assert!(ground.w.counters(0).refused_routes_total >= 2, "{version:?}");
        // A cost, and an end.
        let (cost, more) = (Cost { warm: 7, cold: 7 }, format!("x{last:05}"));
        ground.w.peers[peer].announce(&more, &[], cost);
        ground.w.peers[peer].unannounce(&more);
        ground.w.run(ms(300));
        let asked = ground.w.peers[peer].announce_streams().len();
        // The end of two that count.
        ground.w.peers[peer].unannounce("x00005");
        ground.w.peers[peer].unannounce("x00006");
        assert!(ground.w.run_until(Duration::from_secs(60), knows(last - 2)), "{version:?}");
        if version < Lite05 {
            let waits = format!("x{:05}", last + 1);
            ground.w.peers[peer].unannounce(&waits);
            ground.w.peers[peer].announce(&waits, &[], Cost::ZERO);
        }
        assert!(ground.w.run_until(Duration::from_secs(60), knows(last - 1)), "{version:?}");
        ground.w.peers[peer].announce("x00005", &[], Cost::ZERO);
        assert!(ground.w.run_until(Duration::from_secs(60), knows(last)), "{version:?}");
        assert!(ground.w.peers[peer].is_up(), "{version:?}");
        assert_eq!(ground.w.peers[peer].announce_streams().len(), asked, "{version:?}");
        ground.others_notice_nothing("surplus");
    }
}

/// A camera with a viewer, and room for strangers.
struct Ground {
    w: World,
    cam: Track,
    sub: Sub,
}

fn stranger() -> Spec {
    Spec { is_rude: true, ..Spec::new(Lite06, 0) }
}

fn varint(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_varint(value, &mut bytes);
    bytes
}

/// A length and as many zeros, so many bytes together.
fn field(bytes: usize) -> Vec<u8> {
    let mut field = varint(bytes as u64 - 4);
    assert_eq!(field.len(), 4);
    field.resize(bytes, 0);
    field
}

/// Sums up to a total, in parts of a size and one of the rest.
fn in_parts(total: usize, size: usize) -> impl Iterator<Item = usize> {
    let rest = total % size;
    (0..total / size).map(move |_| size).chain((rest > 0).then_some(rest))
}

impl Ground {
    fn new() -> Ground {
        let mut w = World::new(Stage { trusts_all: false, ..Stage::new(1, 2) });
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let ann = w.viewer(Lite06, 1);
        let sub = w.subscribe(ann, PATH, TRACK, live());
        w.run(ms(300));
        w.all_settled();
        Ground { w, cam, sub }
    }

    fn others_notice_nothing(mut self, name: &str) {
        let settled = self.w.now;
        self.w.group(self.cam, 0, &[1000]);
        self.w.run(ms(300));
        assert_eq!(self.w.got(self.sub), [0], "{name}");
        let came = self.w.came(self.sub, 0, 0).expect("a frame");
        assert!(came - settled < ms(100), "{name}: {:?}", came - settled);
        self.w.end();
    }

    fn is_closed(&self, peer: usize) -> Option<Fate> {
        match &self.w.peers[peer].state {
            State::Over(_, Some(code)) => Some(Closed(SessionCode(*code))),
            State::Up => None,
            state => panic!("{state:?}"),
        }
    }

    /// Somebody comes, and may ask for what there is.
    fn enters(&mut self, spec: Spec) -> Fate {
        let peer = self.w.arrive(spec);
        self.w.run(ms(300));
        if let Some(fate) = self.is_closed(peer) {
            return fate;
        }
        let listen = self.w.peers[peer].listen("", 0);
        self.w.run(ms(300));
        assert_eq!(self.w.peers[peer].listens[listen].end, None);
        assert!(!self.w.peers[peer].listens[listen].heard.is_empty());
        Works
    }

    /// Somebody comes with such a SETUP.
    fn introduces(&mut self, parts: &[&[u8]]) -> Fate {
        let body = parts.concat();
        let setup = [vec![UniType::Setup as u8], varint(body.len() as u64), body].concat();
        self.enters(Spec { raw_setup: Some(setup), ..stranger() })
    }

    /// Somebody publishes a group with such frames, and somebody else wants it.
    fn publishes(&mut self, frames: &[usize]) -> Fate {
        let theirs = self.w.publisher_like(stranger().hop(3), "theirs", TRACK);
        let eve = self.w.join(Spec { window: 64 << 20, ..stranger() });
        let sub = self.w.subscribe(eve, "theirs", TRACK, live());
        self.w.group(theirs, 0, &[1]);
        self.w.run(ms(300));
        let mut bytes = vec![UniType::Group as u8];
        GroupHeader { subscribe_id: 0, sequence: 1, frame_start: 0 }.encode(Lite06, &mut bytes);
        for size in frames {
            FrameHeader { timestamp_delta: 0, size: *size as u64 }.encode(Lite06, &mut bytes);
            bytes.resize(bytes.len() + size, 0);
        }
        let stream = self.w.raw(theirs.peer, Dir::Uni, &bytes, false);
        self.w.run(ms(2000));
        self.w.peers[theirs.peer].write_raw(stream, &[], true);
        let ended = |w: &World| {
            w.peers[theirs.peer].raws[&stream].stopped.is_some() || w.got(sub) == [0, 1]
        };
        let has_ended = self.w.run_until(Duration::from_secs(10), ended);
        assert!(has_ended, "it never ends");
        assert!(self.is_closed(theirs.peer).is_none());
        if let Some(code) = self.w.peers[theirs.peer].raws[&stream].stopped {
            // Whoever has begun to read it hears that it is not whole.
            self.w.run(ms(300));
            let seen = self.w.sub(sub).groups.get(&1);
            assert!(seen.is_none_or(|seen| matches!(seen.end, Some(End::Reset(_)))));
            return Refused(StreamCode(code));
        }
        let seen = &self.w.sub(sub).groups[&1];
        let sizes: Vec<usize> = seen.frames.iter().map(|frame| frame.payload.len()).collect();
        assert!(sizes == frames, "not all of it came");
        Works
    }

    /// Somebody subscribes to a track whose name and path have so many bytes.
    fn subscribes(&mut self, bytes: u64) -> Fate {
        let name = "t".repeat(bytes as usize - PATH.len());
        let track = self.w.track(self.cam.peer, PATH, &name);
        let eve = self.w.join(stranger());
        let sub = self.w.subscribe(eve, PATH, &name, live());
        self.w.run(ms(300));
        self.w.group(track, 0, &[5]);
        self.w.run(ms(300));
        match self.w.sub(sub).end {
            Some(End::Reset(code)) => Refused(StreamCode(code)),
            end => {
                assert_eq!((self.w.got(sub), end), (vec![0], None));
                Works
            }
        }
    }

    /// Somebody announces paths, all of which everybody may hear of.
    fn announces(&mut self, paths: &[String], hops: &[u64]) -> Fate {
        let before = self.w.held()[1].routes;
        let peer = self.w.join(stranger().hop(3));
        for path in paths {
            self.w.peers[peer].announce(path, hops, Cost::ZERO);
        }
        // Those that come faster than they may are read later.
        let known = |w: &World| w.held()[1].routes == before + paths.len();
        let are_known =
            self.w.run_until(Duration::from_secs(120), |w| known(w) || !w.peers[peer].is_up());
        self.w.run(ms(300));
        match self.is_closed(peer) {
            Some(fate) => fate,
            None if are_known && known(&self.w) => Works,
            None => Ignored,
        }
    }

    /// Somebody opens streams with such begins; the fate of the last one.
    fn asks(&mut self, requests: impl Iterator<Item = Vec<u8>>) -> Fate {
        let peer = self.w.join(stranger());
        let mut last = None;
        for request in requests {
            let credit = |w: &mut World| w.peers[peer].try_raw(Dir::Bi, &request, false);
            let mut opened = credit(&mut self.w);
            for _ in 0..50 {
                if opened.is_some() {
                    break;
                }
                self.w.run(ms(20));
                opened = credit(&mut self.w);
            }
            last = opened;
        }
        self.w.run(ms(300));
        let raw = &self.w.peers[peer].raws[&last.expect("streams are granted")];
        match (self.is_closed(peer), raw.end) {
            (Some(fate), _) => fate,
            (None, Some(End::Reset(code))) => Refused(StreamCode(code)),
            (None, _) => Works,
        }
    }

    /// Somebody fetches so many groups, half of them from each of two publishers that do not answer.
    fn fetches(&mut self, count: u64) -> Fate {
        let other = self.w.publisher(Lite06, 1, "other", TRACK);
        let eve = self.w.join(stranger());
        for track in [self.cam, other] {
            self.w.source(track).never_answers = Some(BidiType::Fetch);
            self.w.asked(track.peer);
        }
        for group in 0..count {
            let path = if group % 2 == 0 { PATH } else { "other" };
            let want = Want { group: 100 + group, priority: 1, frame_start: 0, frame_end: None };
            self.w.fetch(eve, path, TRACK, want);
            // Until more streams are granted.
            self.w.run(ms(20));
        }
        self.w.run(ms(500));
        let asked = [self.cam, other].map(|track| self.w.asked(track.peer));
        let is_fetch = |asked: &&Asked| matches!(asked, Asked::Fetch(..));
        match asked.iter().flatten().filter(is_fetch).count() as u64 {
            asked if asked == count => Works,
            asked if asked + 1 == count => Waits,
            asked => panic!("{asked} of {count} fetches are asked for"),
        }
    }
}
