//! A publisher and viewers of one track, each by hand on a connection of its own, and what the kernel
//! knows of the relay that they use.

use std::net::SocketAddr;
use std::time::Duration;

use quinn_proto::Dir;
use shardcast::wire::*;

use super::raw::{Raw, Stream, setup};
use super::relay::Relay;

pub const TRACK: &str = "video";

/// How much of something a drill does: more than is ordinary where a variable says so.
pub fn amount(variable: &str, ordinary: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => ordinary,
    }
}

/// A publisher by hand, of lite-06, which can die with a group half said.
pub struct Publisher {
    pub raw: Raw,
}

impl Publisher {
    pub async fn announce(relay: SocketAddr, idle_timeout: Duration, path: &str) -> Publisher {
        let version = Version::Lite06;
        let raw = Raw::connect_impatient(relay, version, idle_timeout).await;
        raw.open(Dir::Uni, &setup(&Setup { hop: 77, ..Setup::default() }), true).await;
        let request = raw.accepted("ANNOUNCE_REQUEST", is_request(BidiType::Announce)).await;
        let mut bytes = Vec::new();
        AnnounceOk { hop: 77, active: 1 }.encode(&mut bytes);
        active(path).encode(version, &mut bytes);
        raw.send(request, &bytes, false);
        Publisher { raw }
    }

    /// Answers what the relay asks when somebody wants the track, which starts at a group.
    pub async fn serve(&self, group: u64, max_age: Duration) {
        let version = Version::Lite06;
        let max_age_ms = max_age.as_millis() as u64;
        let mut info = Vec::new();
        TrackInfo { priority: 127, max_age_ms, timescale: 1000 }.encode(version, &mut info);
        let request = self.raw.accepted("TRACK", is_request(BidiType::Track)).await;
        self.raw.send(request, &info, true);
        let mut start = Vec::new();
        SubscribeResponse::Start { group }.encode(version, &mut start);
        let request = self.raw.accepted("SUBSCRIBE", is_request(BidiType::Subscribe)).await;
        self.raw.send(request, &start, false);
    }

    /// A second of video in frames of equal size.
    pub async fn second(&self, sequence: u64, frames: u64, size: u64) {
        let mut bytes = vec![UniType::Group as u8];
        GroupHeader { subscribe_id: 0, sequence, frame_start: 0 }
            .encode(Version::Lite06, &mut bytes);
        for frame in 0..frames {
            let timestamp_delta =
                if frame == 0 { sequence as i64 * 1000 } else { 1000 / frames as i64 };
            FrameHeader { timestamp_delta, size }.encode(Version::Lite06, &mut bytes);
            bytes.resize(bytes.len() + size as usize, sequence as u8);
        }
        self.raw.open(Dir::Uni, &bytes, true).await;
    }

    /// One frame, and the end or the beginning of a second.
    pub async fn group(&self, sequence: u64, is_whole: bool) {
        let mut bytes = vec![UniType::Group as u8];
        GroupHeader { subscribe_id: 0, sequence, frame_start: 0 }
            .encode(Version::Lite06, &mut bytes);
        for (timestamp_delta, size) in [(sequence as i64 * 10, 5), (1, 9)] {
            FrameHeader { timestamp_delta, size }.encode(Version::Lite06, &mut bytes);
            bytes.extend_from_slice(b"hello");
            if is_whole {
                break;
            }
        }
        self.raw.open(Dir::Uni, &bytes, is_whole).await;
    }
}

pub fn is_request(kind: BidiType) -> impl Fn(u64, &[u8]) -> bool {
    move |id, bytes| id & 2 == 0 && bytes.first() == Some(&(kind as u8)) && bytes.len() > 1
}

pub fn active(path: &str) -> Announce {
    let suffix = Path::parse(path).expect("a path");
    Announce::Start { suffix, hops: Hops::new(), cost: Cost::ZERO }
}

pub fn subscribe(version: Version, path: &str) -> Vec<u8> {
    let preferences = Preferences {
        priority: 1,
        max_age_ms: 1000,
        group_start: None,
        group_end: None,
        frame_start: 0,
        frame_end: None,
    };
    let broadcast = Path::parse(path).expect("a path");
    let mut bytes = vec![BidiType::Subscribe as u8];
    Subscribe { id: 0, broadcast, track: TRACK.to_owned(), preferences }
        .encode(version, &mut bytes);
    bytes
}

/// A viewer who has heard of the broadcast: before that its shard may know of none.
pub async fn viewing(relay: &Relay, path: &str) -> Raw {
    viewing_at(relay.address(), path).await
}

pub async fn viewing_at(relay: SocketAddr, path: &str) -> Raw {
    let version = Version::Lite06;
    let viewer = Raw::introduced(relay, version).await;
    let mut request = vec![BidiType::Announce as u8];
    AnnounceRequest { prefix: Path::root(), exclude_hop: 0 }.encode(version, &mut request);
    let id = viewer.open(Dir::Bi, &request, false).await;
    let names_it =
        |stream: &Stream| stream.received.windows(path.len()).any(|bytes| bytes == path.as_bytes());
    viewer.stream_until("the announcement", id, names_it).await;
    viewer.open(Dir::Bi, &subscribe(Version::Lite06, path), false).await;
    viewer
}

pub fn is_group(sequence: u64) -> impl Fn(u64, &[u8]) -> bool {
    move |id, bytes| {
        let is_uni = id & 2 != 0 && bytes.first() == Some(&(UniType::Group as u8));
        let header = is_uni.then(|| GroupHeader::take(Version::Lite06, &bytes[1..]));
        matches!(header, Some(Ok(Some((header, _)))) if header.sequence == sequence)
    }
}

/// What the kernel knows of a process.
pub struct Process(pub libc::pid_t);

impl Process {
    pub fn files(&self) -> usize {
        let directory = std::fs::read_dir(format!("/proc/{}/fd", self.0));
        directory.expect("a process of ours").count()
    }

    pub fn rss(&self) -> u64 {
        self.status("VmRSS:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a size");
        let kib = line.trim().trim_end_matches(" kB").parse::<u64>();
        kib.expect("a number of KiB") << 10
    }

    /// What it has for itself, without pages of files.
    pub fn own(&self) -> u64 {
        self.status("RssAnon:")
    }

    /// The most that it ever had for itself, without pages of files.
    pub fn most_of_its_own(&self) -> u64 {
        self.status("VmHWM:").saturating_sub(self.status("RssFile:"))
    }

    /// Processor time of all threads, in the program and in the kernel.
    pub fn ticks(&self) -> u64 {
        let stat = self.read("stat");
        // The name before it, in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(") ").expect("a name");
        let time = fields.split(' ').skip(11).take(2);
        time.map(|ticks| ticks.parse::<u64>().expect("ticks")).sum()
    }

    pub async fn ticks_in(&self, span: Duration) -> u64 {
        let before = self.ticks();
        tokio::time::sleep(span).await;
        self.ticks() - before
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.0)).expect("a process of ours")
    }
}
