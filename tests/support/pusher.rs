//! A publisher of one path by hand, which says yes to all that it is asked for and pushes what a play wants; and
//! who asks for that.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use quinn_proto::Dir;
use shardcast::wire::*;
use tokio::time::timeout;

use super::camera::{active, is_request};
use super::raw::Raw;

pub const VERSION: Version = Version::Lite06;

/// A publisher of a path, and what it does when its tracks are wanted.
pub struct Pusher {
    pub raw: Raw,
    answered: usize,
    /// Group streams, by the subscription that they are for.
    pub streams: Vec<u64>,
    pub wanted: Vec<u64>,
}

impl Pusher {
    pub async fn new(from: Ipv4Addr, relay: SocketAddr, path: &str) -> Option<Pusher> {
        let raw = Raw::try_from(from, relay, VERSION.alpn()).await?;
        let request = raw.accepted("ANNOUNCE_REQUEST", is_request(BidiType::Announce)).await;
        let mut bytes = Vec::new();
        AnnounceOk { hop: 1, active: 1 }.encode(&mut bytes);
        active(path).encode(VERSION, &mut bytes);
        raw.send(request, &bytes, false);
        Some(Pusher { raw, answered: 0, streams: Vec::new(), wanted: Vec::new() })
    }

    /// Says yes to all that it is asked for.
    pub fn answer(&mut self) {
        for (id, request) in self.raw.requests().into_iter().skip(self.answered) {
            let Some((_, length)) = request.get(1..).and_then(decode_varint) else { return };
            let mut answer = Vec::new();
            match BidiType::from_u64(request[0].into()) {
                Some(BidiType::Track) => {
                    TrackInfo { priority: 1, max_age_ms: 60_000, timescale: 1000 }
                        .encode(VERSION, &mut answer);
                    self.raw.send(id, &answer, true);
                }
                Some(BidiType::Subscribe) => {
                    let asked = Subscribe::decode(VERSION, &request[1 + length..]);
                    self.wanted.push(asked.expect("a subscription").id);
                    SubscribeResponse::Start { group: 0 }.encode(VERSION, &mut answer);
                    self.raw.send(id, &answer, false);
                }
                _ => {}
            }
            self.answered += 1;
        }
    }

    /// A group of this size begins for each of its subscriptions, as far as streams are granted.
    pub fn begin(&mut self, sequence: u64, size: u64) {
        self.streams.clear();
        for id in &self.wanted {
            let bytes = begin(*id, sequence, size);
            self.streams.extend(self.raw.try_open(Dir::Uni, &bytes, false));
        }
    }

    /// The same for those that have none, and says how many have.
    pub fn begin_more(&mut self, sequence: u64, size: u64) -> usize {
        for id in &self.wanted[self.streams.len()..] {
            let bytes = begin(*id, sequence, size);
            let Some(stream) = self.raw.try_open(Dir::Uni, &bytes, false) else { break };
            self.streams.push(stream);
        }
        self.streams.len()
    }

    /// A whole group of the first track, in frames of one size.
    pub async fn group(&self, sequence: u64, frames: u64, size: u64) {
        let mut bytes = begin(self.wanted[0], sequence, size);
        bytes.resize(bytes.len() + size as usize, 7);
        for _ in 1..frames {
            FrameHeader { timestamp_delta: 0, size }.encode(VERSION, &mut bytes);
            bytes.resize(bytes.len() + size as usize, 7);
        }
        self.raw.open(Dir::Uni, &bytes, true).await;
    }

    /// So many bytes more of each, where flow control has taken what was before; the last ones end them.
    pub fn push(&self, bytes: usize, is_last: bool) {
        for id in self.streams.iter().filter(|id| self.raw.has_sent(**id)) {
            self.raw.send(*id, &vec![7; bytes], is_last);
        }
    }
}

/// What a group begins with, whose first frame has this size.
fn begin(subscribe_id: u64, sequence: u64, size: u64) -> Vec<u8> {
    let mut bytes = vec![UniType::Group as u8];
    GroupHeader { subscribe_id, sequence, frame_start: 0 }.encode(VERSION, &mut bytes);
    FrameHeader { timestamp_delta: sequence as i64 * 100, size }.encode(VERSION, &mut bytes);
    bytes
}

/// Subscribes to so many tracks, `t0` and so on.
pub async fn subscribes(viewer: &Raw, path: &str, tracks: usize) {
    for id in 0..tracks as u64 {
        let preferences = Preferences {
            priority: 1,
            max_age_ms: 60_000,
            group_start: None,
            group_end: None,
            frame_start: 0,
            frame_end: None,
        };
        let (broadcast, track) = (Path::parse(path).expect("a path"), format!("t{id}"));
        let mut bytes = vec![BidiType::Subscribe as u8];
        Subscribe { id, broadcast, track, preferences }.encode(VERSION, &mut bytes);
        if timeout(Duration::from_secs(2), viewer.open(Dir::Bi, &bytes, false)).await.is_err() {
            return;
        }
    }
}
