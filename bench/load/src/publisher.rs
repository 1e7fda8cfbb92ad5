//! The publishing half of a connection: answers what the relay asks and sends frames as they are
//! due.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use quinn_proto::{Dir, StreamId};
use shardcast::wire::{
    Announce, AnnounceOk, AnnounceRequest, Cost, Fetch, GroupHeader, Hops, Path, Preferences,
    StreamCode, Subscribe, SubscribeResponse, TrackInfo, TrackRequest, Version,
};

use crate::frames::encode_group;
use crate::quic::Link;
use crate::shared::Shared;

/// Groups that wait for the relay to grant a stream. Beyond, the oldest is given up, as it would
/// be late anyway.
const WAITING_GROUPS_MAX: usize = 256;

/// Ticks per second of timestamps.
const TIMESCALE: u64 = 1000;

pub struct Publisher {
    /// Names this connection in hop chains, as released clients have themselves named.
    hop: u64,
    broadcasts: Range<u32>,
    /// By broadcast of ours: whether it is live now.
    is_live: Vec<bool>,
    announcing: Vec<Announcing>,
    /// The relay was told of every broadcast.
    is_asked: bool,
    /// By track of ours.
    feeds: Vec<Vec<Feed>>,
    first_track: usize,
    waiting: VecDeque<Waiting>,
}

/// One announce stream that we serve.
struct Announcing {
    stream: StreamId,
    prefix: Path,
    /// By broadcast of ours: the id of its announcement, while it is announced.
    ids: Vec<Option<u64>>,
    next_id: u64,
}

/// One subscription that we serve.
struct Feed {
    /// The stream of its SUBSCRIBE.
    stream: StreamId,
    id: u64,
    preferences: Preferences,
    first_group: u64,
    current: Current,
}

/// Where the frames of the newest group go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Current {
    Nowhere,
    Stream(StreamId),
    Waiting,
}

/// A group without a stream so far.
struct Waiting {
    track: usize,
    subscribe_id: u64,
    group: u64,
    chunks: Vec<Bytes>,
    is_complete: bool,
}

impl Publisher {
    pub fn new(hop: u64, broadcasts: Range<u32>, tracks: Range<usize>) -> Publisher {
        Publisher {
            hop,
            is_live: vec![true; broadcasts.len()],
            broadcasts,
            announcing: Vec::new(),
            is_asked: false,
            feeds: tracks.clone().map(|_| Vec::new()).collect(),
            first_track: tracks.start,
            waiting: VecDeque::new(),
        }
    }

    pub fn hop(&self) -> u64 {
        self.hop
    }

    /// ANNOUNCE: says what is live below the prefix, and from then on what changes.
    pub fn serve_announce(
        &mut self,
        link: &mut Link,
        stream: StreamId,
        request: AnnounceRequest,
        shared: &mut Shared,
    ) {
        let prefix = request.prefix;
        let mut announcing =
            Announcing { stream, prefix, ids: vec![None; self.is_live.len()], next_id: 0 };
        let mut out = Vec::new();
        let mut active = 0;
        for (index, broadcast) in self.broadcasts.clone().enumerate() {
            let path = &shared.plan.paths[broadcast as usize];
            if self.is_live[index] && announcing.start(index, path, shared.version, &mut out) {
                active += 1;
            }
        }
        let mut head = Vec::new();
        AnnounceOk { hop: self.hop, active }.encode(&mut head);
        link.send(stream, &mut [head.into(), out.into()], false);
        self.announcing.push(announcing);
        let is_covered =
            |index: usize| self.announcing.iter().any(|announcing| announcing.ids[index].is_some());
        if !self.is_asked && (0..self.is_live.len()).all(is_covered) {
            self.is_asked = true;
            shared.asked_publishers += 1;
        }
    }

    /// TRACK.
    pub fn serve_track(
        &mut self,
        link: &mut Link,
        stream: StreamId,
        request: &TrackRequest,
        shared: &Shared,
    ) {
        let Some(track) = self.find(&request.broadcast, &request.track, shared) else {
            return refuse(link, stream, StreamCode::NOT_FOUND);
        };
        let mut out = Vec::new();
        let priority = shared.plan.track(track).priority;
        let info = TrackInfo { priority, max_age_ms: shared.max_age_ms, timescale: TIMESCALE };
        info.encode(shared.version, &mut out);
        link.send(stream, &mut [out.into()], true);
    }

    /// SUBSCRIBE: from the next group on. True if the subscription is served.
    pub fn serve_subscribe(
        &mut self,
        link: &mut Link,
        stream: StreamId,
        subscribe: Subscribe,
        shared: &Shared,
    ) -> bool {
        let Some(track) = self.find(&subscribe.broadcast, &subscribe.track, shared) else {
            refuse(link, stream, StreamCode::NOT_FOUND);
            return false;
        };
        let first_group = shared.next_group(track);
        let mut out = Vec::new();
        SubscribeResponse::Start { group: first_group }.encode(shared.version, &mut out);
        link.send(stream, &mut [out.into()], false);
        self.feeds[track - self.first_track].push(Feed {
            stream,
            id: subscribe.id,
            preferences: subscribe.preferences,
            first_group,
            current: Current::Nowhere,
        });
        true
    }

    /// SUBSCRIBE_UPDATE.
    pub fn update(&mut self, stream: StreamId, preferences: Preferences) {
        let feeds = self.feeds.iter_mut().flatten();
        for feed in feeds.filter(|feed| feed.stream == stream) {
            feed.preferences = preferences;
        }
    }

    /// The relay wants no more of a subscription.
    pub fn unsubscribed(&mut self, link: &mut Link, stream: StreamId) {
        for (index, feeds) in self.feeds.iter_mut().enumerate() {
            let Some(place) = feeds.iter().position(|feed| feed.stream == stream) else { continue };
            let feed = feeds.swap_remove(place);
            let track = self.first_track + index;
            self.waiting.retain(|group| (group.track, group.subscribe_id) != (track, feed.id));
            if let Current::Stream(group) = feed.current {
                link.reset(group, StreamCode::CANCEL.0);
            }
            link.send(stream, &mut [], true);
        }
    }

    pub fn unannounced(&mut self, link: &mut Link, stream: StreamId) {
        self.announcing.retain(|announcing| announcing.stream != stream);
        link.send(stream, &mut [], true);
    }

    /// FETCH: the frames of a past group, as they were when they were live.
    pub fn serve_fetch(
        &mut self,
        link: &mut Link,
        stream: StreamId,
        fetch: &Fetch,
        shared: &Shared,
    ) {
        let found = self.find(&fetch.broadcast, &fetch.track, shared);
        let past = found.filter(|&track| {
            shared.schedule.as_ref().is_some_and(|schedule| {
                let last = (fetch.group + 1).saturating_mul(schedule.frames_per_group(track));
                last <= shared.next_frames[track]
            })
        });
        let (Some(track), Some(schedule)) = (past, &shared.schedule) else {
            return refuse(link, stream, StreamCode::NOT_FOUND);
        };
        let frames = schedule.frames_per_group(track);
        let first = fetch.group * frames;
        let end = fetch.frame_end.map_or(u64::MAX, |end| end.saturating_add(1));
        let wanted = fetch.frame_start..end.min(frames);
        let mut chunks = Vec::new();
        for (count, place) in wanted.enumerate() {
            chunks.extend(shared.frame_of_stream(track, first + place, count == 0, Vec::new()));
        }
        link.send(stream, &mut chunks, true);
    }

    /// Sends a frame that is due to everybody who subscribes to the track.
    pub fn produce(&mut self, link: &mut Link, track: usize, number: u64, shared: &Shared) {
        let schedule = shared.schedule.as_ref().expect("frames are due once content has begun");
        let (group, place) = schedule.place(track, number);
        let is_last = place + 1 == schedule.frames_per_group(track);
        for feed in &mut self.feeds[track - self.first_track] {
            if place == 0 {
                feed.current = Current::Nowhere;
                if !feed.wants(group) {
                    continue;
                }
                let mut head = Vec::with_capacity(64);
                let header = GroupHeader { subscribe_id: feed.id, sequence: group, frame_start: 0 };
                encode_group(shared.version, &header, &mut head);
                let mut chunks = shared.frame(track, number, head);
                // Groups that wait for a stream come first.
                let stream = if self.waiting.is_empty() { link.open(Dir::Uni) } else { None };
                feed.current = match stream {
                    Some(stream) => {
                        link.send(stream, &mut chunks, is_last);
                        Current::Stream(stream)
                    }
                    None => {
                        if self.waiting.len() == WAITING_GROUPS_MAX {
                            self.waiting.pop_front();
                        }
                        self.waiting.push_back(Waiting {
                            track,
                            subscribe_id: feed.id,
                            group,
                            chunks: chunks.into(),
                            is_complete: is_last,
                        });
                        Current::Waiting
                    }
                };
            } else {
                let mut chunks = match feed.current {
                    Current::Nowhere => continue,
                    _ => shared.frame(track, number, Vec::with_capacity(32)),
                };
                match feed.current {
                    Current::Nowhere => {}
                    Current::Stream(stream) => link.send(stream, &mut chunks, is_last),
                    Current::Waiting => {
                        let mine = |waiting: &&mut Waiting| {
                            (waiting.track, waiting.subscribe_id, waiting.group)
                                == (track, feed.id, group)
                        };
                        // Absent if it was given up.
                        if let Some(waiting) = self.waiting.iter_mut().find(mine) {
                            waiting.chunks.extend(chunks);
                            waiting.is_complete = is_last;
                        }
                    }
                }
            }
        }
    }

    /// The relay grants more streams.
    pub fn send_waiting(&mut self, link: &mut Link, shared: &Shared) {
        while !self.waiting.is_empty() {
            let Some(stream) = link.open(Dir::Uni) else { return };
            let mut group = self.waiting.pop_front().expect("not empty");
            link.send(stream, &mut group.chunks, group.is_complete);
            // A group that is still growing is the newest of its feed.
            let feeds = &mut self.feeds[group.track - self.first_track];
            let feed = feeds.iter_mut().find(|feed| feed.id == group.subscribe_id);
            let newest = shared.next_group(group.track).checked_sub(1);
            if let Some(feed) = feed
                && newest == Some(group.group)
            {
                feed.current = Current::Stream(stream);
            }
        }
    }

    /// The relay wants no more of one group.
    pub fn stopped(&mut self, stream: StreamId) {
        for feed in self.feeds.iter_mut().flatten() {
            if feed.current == Current::Stream(stream) {
                feed.current = Current::Nowhere;
            }
        }
    }

    /// Ends a broadcast, or has it back.
    pub fn change(&mut self, link: &mut Link, broadcast: u32, is_live: bool, shared: &Shared) {
        let index = (broadcast - self.broadcasts.start) as usize;
        self.is_live[index] = is_live;
        let path = &shared.plan.paths[broadcast as usize];
        for announcing in &mut self.announcing {
            let mut out = Vec::new();
            if is_live {
                announcing.start(index, path, shared.version, &mut out);
            } else {
                announcing.end(index, path, shared.version, &mut out);
            }
            if !out.is_empty() {
                link.send(announcing.stream, &mut [out.into()], false);
            }
        }
    }

    /// The track of that name, if it is ours.
    fn find(&self, broadcast: &Path, name: &str, shared: &Shared) -> Option<usize> {
        let broadcast = shared.plan.broadcast_at(broadcast.as_str())?;
        if !self.broadcasts.contains(&broadcast) {
            return None;
        }
        shared.plan.tracks(broadcast).find(|&track| shared.plan.track_name(track) == name)
    }
}

impl Announcing {
    /// False if the path is not below the prefix.
    fn start(&mut self, index: usize, path: &Path, version: Version, out: &mut Vec<u8>) -> bool {
        let Some(suffix) = path.strip_prefix(&self.prefix) else { return false };
        Announce::Start { suffix, hops: Hops::new(), cost: Cost::ZERO }.encode(version, out);
        self.ids[index] = Some(self.next_id);
        self.next_id += 1;
        true
    }

    fn end(&mut self, index: usize, path: &Path, version: Version, out: &mut Vec<u8>) {
        let Some(id) = self.ids[index].take() else { return };
        let Some(suffix) = path.strip_prefix(&self.prefix) else { return };
        match version {
            Version::Lite06 => Announce::End { id }.encode(version, out),
            _ => Announce::Ended { suffix }.encode(version, out),
        }
    }
}

impl Feed {
    fn wants(&self, group: u64) -> bool {
        let floor = self.preferences.group_start.unwrap_or(0).max(self.first_group);
        group >= floor && self.preferences.group_end.is_none_or(|end| group <= end)
    }
}

pub fn refuse(link: &mut Link, stream: StreamId, code: StreamCode) {
    link.reset(stream, code.0);
    link.stop(stream, code.0);
}
