//! What the relay asks of a publisher, and what that gives it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BytesMut};
use quinn_proto::Dir;
use shardcast::wire::*;

use super::source::{Frame, Source, covers};
use super::streams::Use;
use super::{End, Peer, Want};

/// What the relay asked of a publisher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    Track(String),
    Subscribe(String, Preferences),
    Update(Preferences),
    Unsubscribe,
    Fetch(String, Want),
    /// The relay has given up a FETCH of this group before it was answered to the end.
    FetchEnded(u64, End),
}

/// A subscription of the relay with this publisher.
#[derive(Debug)]
pub(super) struct Upstream {
    id: u64,
    source: usize,
    /// What was asked for, heeded or not.
    asked: Preferences,
    wanted: Preferences,
    floor: u64,
    /// Too old when the relay subscribed or last changed its mind.
    stale: BTreeSet<u64>,
    is_accepted: bool,
    has_started: bool,
    end_sent: bool,
    pub(super) fin_sent: bool,
    pub(super) groups: BTreeMap<u64, GroupOut>,
}

#[derive(Debug, Default)]
pub(super) struct GroupOut {
    pub(super) stream: Option<u64>,
    /// The next one to be sent.
    frames: usize,
    timestamp: u64,
    end_sent: bool,
    /// Acknowledged, reset or refused.
    pub(super) is_closed: bool,
}

/// A FETCH of the relay that is being answered.
#[derive(Debug)]
pub(super) struct Reply {
    source: usize,
    want: Want,
    /// The next one to be sent.
    frames: usize,
    timestamp: u64,
}

impl Peer {
    /// Whether it brings the relay whatever is made of a source.
    pub fn is_feeding(&self, source: usize) -> bool {
        let feeds = |upstream: &Upstream| upstream.source == source && !upstream.fin_sent;
        self.is_up() && self.sources[source].end.is_none() && self.upstreams.values().any(feeds)
    }

    /// Gives up what it owes to subscriptions of a source: resets them, or says FIN without END.
    /// Groups that are open stay so, or are reset too.
    pub fn break_subscriptions(&mut self, source: usize, end: End, cuts_groups: bool) {
        self.is_dirty = true;
        self.sources[source].broken.push(self.now);
        let is_meant = |(_, upstream): &(&u64, &Upstream)| upstream.source == source;
        let meant: Vec<u64> = self.upstreams.iter().filter(is_meant).map(|(id, _)| *id).collect();
        for id in meant {
            let upstream = self.upstreams.remove(&id).expect("its key was just listed");
            match end {
                End::Finished => self.send(id, &[], true),
                End::Reset(with) => self.reset(id, with),
            }
            let End::Reset(with) = end else { continue };
            let open = upstream.groups.values().filter(|group| !group.is_closed && cuts_groups);
            open.filter_map(|group| group.stream).for_each(|stream| self.reset(stream, with));
        }
    }

    /// Ends what it still owes to every FETCH of a source, within a frame of `size` bytes.
    pub fn cut_fetches(&mut self, source: usize, size: u64) {
        self.sources[source].broken.push(self.now);
        let is_meant = |(_, reply): &(&u64, &Reply)| reply.source == source;
        let meant: Vec<u64> = self.replies.iter().filter(is_meant).map(|(id, _)| *id).collect();
        for id in meant {
            self.replies.remove(&id);
            let mut bytes = Vec::new();
            FrameHeader { timestamp_delta: 1, size }.encode(self.version, &mut bytes);
            bytes.extend(std::iter::repeat_n(7, size as usize / 2));
            self.send(id, &bytes, true);
        }
    }

    /// The subscriptions of the relay to a source, by their ids.
    pub fn subscribe_ids(&self, source: usize) -> Vec<u64> {
        let of_source = self.upstreams.values().filter(|upstream| upstream.source == source);
        of_source.map(|upstream| upstream.id).collect()
    }

    /// Sends a whole group of one frame to the relay. False if that has not subscribed to it.
    pub fn send_datagram(&mut self, source: usize, sequence: u64, frame: &Frame) -> bool {
        self.sources[source].datagrams.push((sequence, frame.clone()));
        if self.version < Version::Lite05 || !self.is_up() {
            return false;
        }
        let wants = |upstream: &&Upstream| {
            let is_meant = upstream.source == source && sequence >= upstream.floor;
            is_meant && covers(&upstream.wanted, sequence)
        };
        let ids: Vec<u64> = self.upstreams.values().filter(wants).map(|known| known.id).collect();
        for &subscribe_id in &ids {
            let Frame { timestamp, payload } = frame.clone();
            let mut bytes = self.datagram_prefix();
            Datagram { subscribe_id, sequence, timestamp, payload }.encode(&mut bytes);
            self.raw_datagram(&bytes);
        }
        !ids.is_empty()
    }

    pub(super) fn told(&mut self, asked: Asked) {
        self.asked.push((self.now, asked));
    }

    pub(super) fn track_asked(&mut self, id: u64, body: &[u8]) -> Result<Use, String> {
        let request = TrackRequest::decode(body).map_err(|e| e.to_string())?;
        self.log.push(format!("TRACK {} {}", request.broadcast, request.track));
        self.told(Asked::Track(request.track.clone()));
        let Some(source) = self.source_of(&request.broadcast, &request.track) else {
            self.refuse(id, StreamCode::NOT_FOUND.0);
            return Ok(Use::Ignored);
        };
        let source = &self.sources[source];
        if source.never_answers == Some(BidiType::Track) {
            return Ok(Use::TrackAsked);
        }
        match source.refuses {
            Some(with) => self.refuse(id, with),
            None => {
                let mut bytes = Vec::new();
                source.info.encode(self.version, &mut bytes);
                self.send(id, &bytes, true);
            }
        }
        Ok(Use::TrackAsked)
    }

    pub(super) fn subscribe_asked(&mut self, id: u64, body: &[u8]) -> Result<Use, String> {
        let request = Subscribe::decode(self.version, body).map_err(|e| e.to_string())?;
        let Subscribe { id: subscribe_id, broadcast, track, preferences: wanted } = request;
        self.log.push(format!("SUBSCRIBE {subscribe_id} {broadcast} {track} {wanted:?}"));
        self.told(Asked::Subscribe(track.clone(), wanted));
        if !self.upstream_ids.insert(subscribe_id) {
            return Err(format!("subscribe id {subscribe_id} used again"));
        }
        let mut source = self.source_of(&broadcast, &track);
        let (asked, mut wanted) = (wanted, wanted);
        if let Some(last) = source.filter(|_| self.spec.is_player) {
            source = Some(self.player_source(last));
            let (group_start, group_end, frame_start, frame_end) = (None, None, 0, None);
            wanted = Preferences { group_start, group_end, frame_start, frame_end, ..wanted };
        }
        let refusal = source.map_or(Some(StreamCode::NOT_FOUND.0), |s| self.sources[s].refuses);
        let (None, Some(source)) = (refusal, source) else {
            self.refuse(id, refusal.unwrap_or_default());
            return Ok(Use::Ignored);
        };
        let mut upstream = Upstream {
            id: subscribe_id,
            source,
            asked,
            wanted,
            floor: 0,
            stale: BTreeSet::new(),
            is_accepted: false,
            has_started: false,
            end_sent: false,
            fin_sent: false,
            groups: BTreeMap::new(),
        };
        let source = &mut self.sources[source];
        upstream.position(self.version, source, true);
        source.bounds_moved |= source.subscribed_at.replace(self.now).is_some();
        self.upstreams.insert(id, upstream);
        Ok(Use::Upstream)
    }

    pub(super) fn fetch_asked(&mut self, id: u64, body: &[u8]) -> Result<Use, String> {
        let request = Fetch::decode(self.version, body).map_err(|e| e.to_string())?;
        let Fetch { broadcast, track, priority, group, frame_start, frame_end } = request;
        let want = Want { group, priority, frame_start, frame_end };
        self.log.push(format!("FETCH {broadcast} {track} {want:?}"));
        self.told(Asked::Fetch(track.clone(), want));
        let Some(source) = self.source_of(&broadcast, &track) else {
            self.refuse(id, StreamCode::NOT_FOUND.0);
            return Ok(Use::Ignored);
        };
        let known = &self.sources[source];
        let missing = (!known.groups.contains_key(&group)).then_some(StreamCode::NOT_FOUND.0);
        if known.never_answers != Some(BidiType::Fetch)
            && let Some(with) = known.refuses.or(known.refuses_fetch).or(missing)
        {
            self.sources[source].failed.insert((group, with));
            self.refuse(id, with);
            return Ok(Use::Ignored);
        }
        // What is live goes first.
        self.conn.yields(id);
        let reply = Reply { source, want, frames: frame_start as usize, timestamp: 0 };
        self.replies.insert(id, reply);
        Ok(Use::FetchAsked)
    }

    /// The relay has given up a FETCH.
    pub(super) fn fetch_ended(&mut self, id: u64, end: End) {
        let Some(reply) = self.replies.remove(&id) else { return };
        self.log.push(format!("FETCH of {} given up: {end:?}", reply.want.group));
        self.told(Asked::FetchEnded(reply.want.group, end));
        self.reset(id, StreamCode::CANCEL.0);
    }

    pub(super) fn take_update(&mut self, id: u64, buf: &mut BytesMut) -> bool {
        if self.version <= Version::Lite02 && !buf.is_empty() {
            self.fault("an UPDATE, which there is none of".to_owned());
            buf.clear();
        }
        let update = match split_message(buf, CONTROL_MESSAGE_BYTES_MAX) {
            Ok(None) => return false,
            Ok(Some((body, used))) => {
                let update = Preferences::decode_update(self.version, body);
                buf.advance(used);
                update
            }
            Err(error) => Err(error),
        };
        match update {
            Ok(wanted) => {
                self.log.push(format!("UPDATE {wanted:?}"));
                self.told(Asked::Update(wanted));
                if let Some(upstream) = self.upstreams.get_mut(&id) {
                    let before = std::mem::replace(&mut upstream.asked, wanted);
                    if let Some((group, frame)) = before.group_end.zip(before.frame_end) {
                        let source = &mut self.sources[upstream.source];
                        source.once_capped.insert((group, frame as usize + 1));
                    }
                }
                let upstream = self.upstreams.get_mut(&id);
                let is_player = self.spec.is_player;
                let heeds = |source: usize| !is_player && !self.sources[source].heeds_no_update;
                if let Some(upstream) = upstream.filter(|upstream| heeds(upstream.source)) {
                    let had_start = upstream.wanted.group_start.is_some();
                    let before = std::mem::replace(&mut upstream.wanted, wanted);
                    let source = &mut self.sources[upstream.source];
                    let bounds = |w: &Preferences| (w.group_start, w.group_end, w.max_age_ms);
                    source.bounds_moved |= bounds(&before) != bounds(&wanted);
                    upstream.position(self.version, source, had_start);
                }
                true
            }
            Err(error) => {
                self.fault(format!("SUBSCRIBE_UPDATE: {error}"));
                false
            }
        }
    }

    pub(super) fn group_closed(&mut self, id: u64) {
        for upstream in self.upstreams.values_mut() {
            for group in upstream.groups.values_mut() {
                group.is_closed |= group.stream == Some(id);
            }
        }
    }

    pub(super) fn serve(&mut self) {
        let ids: Vec<u64> = self.upstreams.keys().copied().collect();
        for id in ids {
            let mut upstream = self.upstreams.remove(&id).expect("its key was just listed");
            self.serve_upstream(id, &mut upstream);
            self.upstreams.insert(id, upstream);
        }
        let ids: Vec<u64> = self.replies.keys().copied().collect();
        for id in ids {
            let mut reply = self.replies.remove(&id).expect("its key was just listed");
            if !self.serve_fetch(id, &mut reply) {
                self.replies.insert(id, reply);
            }
        }
    }

    /// Gives out what there is by now; true if that was all.
    fn serve_fetch(&mut self, id: u64, reply: &mut Reply) -> bool {
        let source = &self.sources[reply.source];
        if source.never_answers == Some(BidiType::Fetch) {
            return false;
        }
        let group = &source.groups[&reply.want.group];
        let cap = reply.want.frame_end.map_or(usize::MAX, |last| last as usize + 1);
        let until = group.frames.len().min(cap).min(source.fetch_pace.unwrap_or(usize::MAX));
        let end = match group.end {
            _ if source.fetch_pace.is_some() => None,
            None if group.frames.len() >= cap => Some(End::Finished),
            end => end,
        };
        if end.is_some() && reply.frames > group.frames.len() {
            self.refuse(id, StreamCode::TOO_FAR_BEHIND.0);
            return true;
        }
        let mut bytes = Vec::new();
        for frame in group.frames.get(reply.frames..until).unwrap_or_default() {
            frame.encode(self.version, &mut reply.timestamp, &mut bytes);
        }
        reply.frames = reply.frames.max(until);
        if end.is_none() && bytes.is_empty() {
            let timeout = StreamCode::CONTROL_TIMEOUT.0;
            self.sources[reply.source].failed.insert((reply.want.group, timeout));
        }
        if end == Some(End::Finished) || !bytes.is_empty() {
            self.send(id, &bytes, end == Some(End::Finished));
        }
        if let Some(End::Reset(with)) = end {
            self.reset(id, with);
        }
        end.is_some()
    }

    fn serve_upstream(&mut self, id: u64, upstream: &mut Upstream) {
        if upstream.fin_sent {
            return self.serve_groups(upstream);
        }
        let source = &self.sources[upstream.source];
        if source.never_answers == Some(BidiType::Subscribe) {
            return;
        }
        let mut bytes = Vec::new();
        let mut answer = |answer: SubscribeResponse| answer.encode(self.version, &mut bytes);
        let is_bounded = self.version >= Version::Lite05;
        if !std::mem::replace(&mut upstream.is_accepted, true) && !is_bounded {
            let Preferences { priority, max_age_ms, group_start, group_end, .. } = upstream.wanted;
            answer(SubscribeResponse::Ok { priority, max_age_ms, group_start, group_end });
        }
        let due: Vec<u64> =
            source.order.iter().copied().filter(|sequence| upstream.is_due(*sequence)).collect();
        if let Some(first) = due.iter().copied().min()
            && !std::mem::replace(&mut upstream.has_started, true)
        {
            if upstream.wanted.group_start.is_none() && self.version <= Version::Lite05 {
                upstream.floor = upstream.floor.max(first);
            }
            answer(SubscribeResponse::Start { group: first });
        }
        let due = due.into_iter().filter(|sequence| *sequence >= upstream.floor);
        upstream.groups.extend(due.map(|sequence| (sequence, GroupOut::default())));
        if let Some(group) = source.end
            && !std::mem::replace(&mut upstream.end_sent, true)
        {
            answer(SubscribeResponse::End { group });
        }
        let is_parked = upstream
            .wanted
            .group_end
            .is_some_and(|last| source.order.iter().any(|sequence| *sequence > last));
        let is_over = source.end.is_some() && !is_parked;
        self.send_nonempty(id, &bytes);
        self.serve_groups(upstream);
        let is_done = upstream.groups.values().all(|group| group.is_closed);
        if is_over && (is_done || self.spec.is_hasty) {
            upstream.fin_sent = true;
            self.send(id, &[], true);
        }
    }

    fn serve_groups(&mut self, upstream: &mut Upstream) {
        let wanted = upstream.wanted;
        for (sequence, out) in &mut upstream.groups {
            if out.is_closed || out.end_sent {
                continue;
            }
            let mut bytes = Vec::new();
            let stream = match out.stream {
                Some(stream) => stream,
                None => {
                    let Some(stream) = self.try_open(Dir::Uni) else { return };
                    out.stream = Some(stream);
                    let is_first = wanted.group_start == Some(*sequence);
                    let frame_start = if is_first { wanted.frame_start } else { 0 };
                    out.frames = frame_start as usize;
                    bytes.push(UniType::Group as u8);
                    GroupHeader { subscribe_id: upstream.id, sequence: *sequence, frame_start }
                        .encode(self.version, &mut bytes);
                    stream
                }
            };
            let group = &self.sources[upstream.source].groups[sequence];
            // The end group may be wanted up to a frame only, which comes too late for one of which
            // more is on its way.
            let is_last = wanted.group_end == Some(*sequence);
            let cap = wanted.frame_end.filter(|_| is_last).map(|last| last as usize + 1);
            let cap = cap.filter(|cap| out.frames <= *cap);
            let until = group.frames.len().min(cap.unwrap_or(usize::MAX));
            for frame in group.frames.get(out.frames..until).unwrap_or_default() {
                frame.encode(self.version, &mut out.timestamp, &mut bytes);
            }
            out.frames = out.frames.max(until);
            let is_capped = cap.is_some_and(|cap| group.frames.len() >= cap);
            let end = if is_capped { Some(End::Finished) } else { group.end };
            out.end_sent = end.is_some();
            if is_capped {
                self.sources[upstream.source].capped.insert(*sequence);
            }
            if let Some(End::Reset(with)) = end {
                out.is_closed = true;
                self.send_nonempty(stream, &bytes);
                self.reset(stream, with);
            } else if end.is_some() || !bytes.is_empty() {
                self.send(stream, &bytes, end.is_some());
            }
        }
    }
}

impl Upstream {
    /// Where delivery begins under new bounds. `moves` says that a named start was there before,
    /// or that this is the beginning.
    fn position(&mut self, version: Version, source: &Source, moves: bool) {
        let newest = source.groups.keys().next_back().copied().unwrap_or(0);
        match self.wanted.group_start {
            Some(first) => self.floor = first,
            None if version >= Version::Lite06 => self.floor = 0,
            None if moves => self.floor = newest,
            None => {}
        }
        self.stale = match version {
            Version::Lite06 => {
                let is_old = |s: &&u64| source.is_old(**s, self.wanted.max_age_ms);
                source.groups.keys().filter(is_old).copied().collect()
            }
            _ => BTreeSet::new(),
        };
    }

    fn is_due(&self, sequence: u64) -> bool {
        sequence >= self.floor
            && self.wanted.group_end.is_none_or(|last| sequence <= last)
            && !self.stale.contains(&sequence)
            && !self.groups.contains_key(&sequence)
    }
}
