//! What honest peers say to a relay, as scripts to be mangled: one who publishes, one who watches, and
//! one who does both, on every wire.

use shardcast::wire::*;

use crate::script::{Script, Step};
use crate::session::{Kind, OURS};

struct Talk {
    version: Version,
    script: Script,
    opened: u8,
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for version in Version::ALL {
        // A peer with room for all, one that takes little at a time.
        for setting in [0, 0x80] {
            for (publishes, watches) in [(true, false), (false, true), (true, true)] {
                let mut talk = Talk::new(version, setting);
                if publishes {
                    talk.publish();
                }
                if watches {
                    talk.watch(if publishes { "room/cam" } else { "pub/cam" });
                }
                talk.goes_away();
                seeds.push(talk.script.encode());
            }
        }
    }
    seeds
}

impl Talk {
    fn new(version: Version, setting: u8) -> Talk {
        let protocol = match version {
            Version::Lite01 | Version::Lite02 => Protocol::Legacy,
            version => Protocol::Version(version),
        };
        let at = Protocol::ALL.iter().position(|other| *other == protocol).expect("it is listed");
        // The protocol is the setting modulo five.
        let setting = (setting..).find(|byte| byte % 5 == at as u8).expect("one of five");
        let script = Script { setting: [setting, 1], steps: Vec::new() };
        let mut talk = Talk { version, script, opened: 0 };
        talk.introduces_itself();
        talk
    }

    fn step(&mut self, kind: Kind, which: u8, bytes: Vec<u8>) {
        self.script.steps.push(Step { kind: kind as u8, which, bytes });
    }

    fn opens(&mut self, kind: Kind, head: u64, body: impl FnOnce(&mut Vec<u8>)) -> u8 {
        self.step(kind, 0, written(&[head], body));
        self.opened += 1;
        self.opened - 1
    }

    fn introduces_itself(&mut self) {
        match self.version {
            Version::Lite01 | Version::Lite02 => {
                let (versions, parameters) = (vec![self.version.code()], Vec::new());
                let setup = ClientSetup { versions, parameters };
                self.opens(Kind::OpenBidi, BidiType::ClientSetup as u64, |out| setup.encode(out));
            }
            Version::Lite03 | Version::Lite04 => {}
            _ => {
                let setup = Setup { hop: 1000, probe: ProbeLevel::Report, ..Setup::default() };
                let id = self.opens(Kind::OpenUni, UniType::Setup as u64, |out| setup.encode(out));
                self.step(Kind::Finish, id, Vec::new());
            }
        }
    }

    /// The session's streams come in this order: its SETUP, its request for announcements, then what
    /// it asks of the track.
    fn publish(&mut self) {
        let version = self.version;
        let has_tracks = version >= Version::Lite05;
        let mut ours = OURS + u8::from(has_tracks);
        let suffix = Path::parse("room/cam").expect("a path");
        let hops = match version {
            Version::Lite01 | Version::Lite02 => Hops::new(),
            Version::Lite03 => Hops::anonymous(1).expect("one"),
            _ => Hops::from_slice(&[9]).expect("one"),
        };
        let start =
            Announce::Start { suffix: suffix.clone(), hops: hops.clone(), cost: Cost::ZERO };
        let announces = ours;
        let live = written(&[], |out| match version {
            Version::Lite01 | Version::Lite02 => {
                AnnounceInit { suffixes: vec![suffix.clone()] }.encode(out);
            }
            Version::Lite03 | Version::Lite04 => start.encode(version, out),
            _ => {
                AnnounceOk { hop: 1000, active: 1 }.encode(out);
                start.encode(version, out);
            }
        });
        self.step(Kind::Say, announces, live);
        self.step(Kind::Pull, 0, Vec::new());
        if has_tracks {
            ours += 1;
            let info = TrackInfo { priority: 3, max_age_ms: 2000, timescale: 1000 };
            self.step(Kind::Say, ours, written(&[], |out| info.encode(version, out)));
            self.step(Kind::Finish, ours, Vec::new());
        }
        self.step(Kind::Pull, 1, vec![20]);
        ours += 1;
        let subscription = ours;
        let accepted = if has_tracks {
            SubscribeResponse::Start { group: 5 }
        } else {
            let (max_age_ms, group_start, group_end) = (0, None, None);
            SubscribeResponse::Ok { priority: 3, max_age_ms, group_start, group_end }
        };
        self.step(Kind::Say, subscription, written(&[], |out| accepted.encode(version, out)));
        for sequence in 5..8 {
            let header = GroupHeader { subscribe_id: 0, sequence, frame_start: 0 };
            let id = self.opens(Kind::OpenUni, UniType::Group as u64, |out| {
                header.encode(version, out);
                frames(version, sequence * 33, out);
            });
            self.step(Kind::Say, id, written(&[], |out| frames(version, 1, out)));
            self.step(Kind::Finish, id, Vec::new());
        }
        if has_tracks {
            let payload = bytes::Bytes::from_static(b"now");
            let datagram = Datagram { subscribe_id: 0, sequence: 8, timestamp: 300, payload };
            self.step(Kind::Datagram, 0, written(&[], |out| datagram.encode(out)));
            self.step(Kind::Pull, 3, vec![2]);
            ours += 1;
            self.step(Kind::Say, ours, written(&[], |out| frames(version, 66, out)));
            self.step(Kind::Finish, ours, Vec::new());
        }
        self.step(Kind::Pull, 2, vec![0]);
        self.step(Kind::Wait, 1, Vec::new());
        self.step(Kind::Pull, 1, vec![0x43, 0xe8]);
        if has_tracks {
            let end = SubscribeResponse::End { group: 9 };
            self.step(Kind::Say, subscription, written(&[], |out| end.encode(version, out)));
        }
        self.step(Kind::Finish, subscription, Vec::new());
        self.step(Kind::Wait, 2, Vec::new());
        let restart = match version {
            Version::Lite06 => Announce::Restart { id: 0, hops, cost: Cost::MAX },
            _ => start,
        };
        self.step(Kind::Say, announces, written(&[], |out| restart.encode(version, out)));
        let gone = match version {
            Version::Lite06 => Announce::End { id: 0 },
            _ => Announce::Ended { suffix },
        };
        self.step(Kind::Say, announces, written(&[], |out| gone.encode(version, out)));
    }

    fn watch(&mut self, broadcast: &str) {
        let version = self.version;
        let broadcast = Path::parse(broadcast).expect("a path");
        self.step(Kind::Route, 0, b"pub/cam".to_vec());
        let request = AnnounceRequest { prefix: Path::root(), exclude_hop: 0 };
        let listens = self.opens(Kind::OpenBidi, BidiType::Announce as u64, |out| {
            request.encode(version, out);
        });
        self.step(Kind::Route, 2, b"pub/talk".to_vec());
        if version >= Version::Lite05 {
            let question = TrackRequest { broadcast: broadcast.clone(), track: "video".to_owned() };
            self.opens(Kind::OpenBidi, BidiType::Track as u64, |out| question.encode(out));
        }
        let preferences = Preferences {
            priority: 100,
            max_age_ms: 500,
            group_start: None,
            group_end: None,
            frame_start: 0,
            frame_end: None,
        };
        let track = "video".to_owned();
        let subscribe = Subscribe { id: 3, broadcast: broadcast.clone(), track, preferences };
        let reads = self.opens(Kind::OpenBidi, BidiType::Subscribe as u64, |out| {
            subscribe.encode(version, out);
        });
        self.step(Kind::Publish, 0, vec![0x47, 0xd0]);
        self.step(Kind::Publish, 1, vec![0]);
        for sequence in 0..4 {
            let group = written(&[sequence], |out| frames(Version::Lite05, sequence * 33, out));
            self.step(Kind::Publish, 7, group);
            self.step(Kind::Window, 0, vec![0x40, 100]);
        }
        self.step(Kind::Publish, 5, b"\x04late".to_vec());
        self.step(Kind::Grant, 1, vec![4]);
        self.step(Kind::Acknowledge, OURS + 3, Vec::new());
        let update = Preferences { priority: 7, group_end: Some(5), ..preferences };
        self.step(Kind::Say, reads, written(&[], |out| update.encode_update(version, out)));
        if version >= Version::Lite03 {
            self.opens(Kind::OpenBidi, BidiType::Probe as u64, |_| ());
            self.step(Kind::Wait, 2, Vec::new());
        }
        if version >= Version::Lite05 {
            let track = "video".to_owned();
            let (priority, frame_start, frame_end) = (3, 0, None);
            let fetch = Fetch { broadcast, track, priority, group: 2, frame_start, frame_end };
            self.opens(Kind::OpenBidi, BidiType::Fetch as u64, |out| fetch.encode(version, out));
        }
        self.step(Kind::Route, 1, Vec::new());
        self.step(Kind::Publish, 4, Vec::new());
        self.step(Kind::Publish, 7, written(&[0], |out| frames(Version::Lite05, 0, out)));
        self.step(Kind::Window, 0, vec![0x80, 0, 0xff, 0xff]);
        self.step(Kind::Publish, 3, Vec::new());
        self.step(Kind::Finish, reads, Vec::new());
        self.step(Kind::Stop, listens, Vec::new());
    }

    fn goes_away(&mut self) {
        if self.version >= Version::Lite04 {
            let uri = "https://other.example/".to_owned();
            let goaway = Goaway { uri };
            self.opens(Kind::OpenBidi, BidiType::Goaway as u64, |out| goaway.encode(out));
        }
        self.step(Kind::Wait, 3, Vec::new());
    }
}

fn written(numbers: &[u64], body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    for number in numbers {
        encode_varint(*number, &mut out);
    }
    body(&mut out);
    out
}

/// Two frames, the first so long after what came before.
fn frames(version: Version, delta: u64, out: &mut Vec<u8>) {
    for (timestamp_delta, payload) in [(delta as i64, &b"key frame"[..]), (33, b"delta")] {
        let size = payload.len() as u64;
        FrameHeader { timestamp_delta, size }.encode(version, out);
        out.extend_from_slice(payload);
    }
}
