//! What a viewer asks the relay for, and what it gets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use quinn_proto::Dir;
use shardcast::wire::*;

use super::source::{Frame, covers};
use super::streams::Use;
use super::{End, Peer};

/// What FETCH asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    pub group: u64,
    pub priority: u8,
    pub frame_start: u64,
    pub frame_end: Option<u64>,
}

#[derive(Debug)]
pub struct Info {
    pub answer: Option<Result<TrackInfo, u64>>,
}

/// One group as a viewer has it.
#[derive(Debug, Default)]
pub struct Seen {
    pub frame_start: u64,
    pub frames: Vec<Frame>,
    /// When each of them was complete.
    pub came: Vec<Instant>,
    pub end: Option<End>,
    pub ended_at: Option<Instant>,
}

/// A FETCH of a viewer, and what has come of it.
#[derive(Debug)]
pub struct Fetched {
    pub stream: u64,
    pub path: String,
    pub track: String,
    pub want: Want,
    pub asked_at: Instant,
    /// Begins with the frame that was asked for: the reply has no header to say otherwise.
    pub seen: Seen,
    pub has_left: bool,
    /// There is news that nobody has judged yet.
    pub is_touched: bool,
}

#[derive(Debug)]
pub struct Subscription {
    stream: u64,
    pub path: String,
    pub track: String,
    pub asked_at: Instant,
    pub wanted: Preferences,
    pub updates: usize,
    /// What it wanted before.
    pub wanted_before: Vec<Preferences>,
    /// It once named a last frame.
    pub was_capped: bool,
    pub is_accepted: bool,
    pub start: Option<u64>,
    pub track_end: Option<u64>,
    pub end: Option<End>,
    pub has_left: bool,
    pub groups: BTreeMap<u64, Seen>,
    pub arrivals: Vec<u64>,
    /// Groups that came as datagrams, in order of arrival.
    pub datagrams: Vec<(u64, Frame)>,
    /// How many of them are judged.
    pub datagrams_judged: usize,
    /// Groups with news that nobody has judged yet.
    pub touched: BTreeSet<u64>,
    /// Nor its end.
    pub has_ended: bool,
    /// The films that it has had groups of. Publishers of one broadcast may begin the numbers anew,
    /// and for a viewer in the middle of it they go on.
    pub runs: BTreeMap<u64, Shown>,
    /// Groups that must come, by film and number there, because they began when all knew of this
    /// subscription.
    pub owed: BTreeSet<(u64, u64)>,
    /// The same of datagrams, which nothing could lose.
    pub owed_datagrams: BTreeSet<u64>,
    /// The film whose publisher everybody knows to bring it what it wants.
    pub settled: Option<u64>,
}

/// What a viewer has had of a film.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// How much higher it counts than the publisher.
    pub shift: u64,
    /// The lowest number that it has had a group of this film under, and one past the highest.
    pub first: u64,
    pub end: u64,
}

impl Peer {
    /// A group may have to wait for it.
    pub fn is_slow(&self) -> bool {
        self.was_slow || self.spec.uni_streams < 100 || self.spec.window < 1 << 20
    }

    pub fn ask(&mut self, path: &str, track: &str) -> usize {
        let id = self.open(Dir::Bi, Use::Info(self.infos.len()));
        let mut bytes = vec![BidiType::Track as u8];
        let broadcast = Path::parse(path).expect("a valid path");
        TrackRequest { broadcast, track: track.to_owned() }.encode(&mut bytes);
        self.send(id, &bytes, false);
        self.infos.push(Info { answer: None });
        self.infos.len() - 1
    }

    pub fn subscribe(
        &mut self,
        path: &str,
        track: &str,
        wanted: Preferences,
        now: Instant,
    ) -> usize {
        let index = self.subscriptions.len();
        let wanted = match self.version {
            // There the wire says no more than this.
            Version::Lite01 | Version::Lite02 => Preferences {
                group_start: None,
                group_end: None,
                frame_start: 0,
                frame_end: None,
                ..wanted
            },
            _ => wanted,
        };
        let stream = self.open(Dir::Bi, Use::Answers(index));
        let mut bytes = vec![BidiType::Subscribe as u8];
        let broadcast = Path::parse(path).expect("a valid path");
        let subscribe =
            Subscribe { id: index as u64, broadcast, track: track.to_owned(), preferences: wanted };
        subscribe.encode(self.version, &mut bytes);
        self.subscriptions.push(Subscription {
            stream,
            path: path.to_owned(),
            track: track.to_owned(),
            asked_at: now,
            wanted,
            updates: 0,
            wanted_before: Vec::new(),
            was_capped: wanted.frame_end.is_some(),
            is_accepted: false,
            start: None,
            track_end: None,
            end: None,
            has_left: false,
            groups: BTreeMap::new(),
            arrivals: Vec::new(),
            datagrams: Vec::new(),
            datagrams_judged: 0,
            touched: BTreeSet::new(),
            has_ended: false,
            runs: BTreeMap::new(),
            owed: BTreeSet::new(),
            owed_datagrams: BTreeSet::new(),
            settled: None,
        });
        self.send(stream, &bytes, false);
        index
    }

    pub fn update(&mut self, subscription: usize, wanted: Preferences) {
        if self.version <= Version::Lite02 {
            return;
        }
        let subscription = &mut self.subscriptions[subscription];
        // There, to drop a named start is to ask for the newest group again (spec §4.9).
        let begins_anew = self.version <= Version::Lite05
            && subscription.wanted.group_start.is_some()
            && wanted.group_start.is_none();
        let (groups, runs) = (&subscription.groups, &subscription.runs);
        subscription.owed.retain(|(film, sequence)| {
            // Where that is unknown, it cannot be said whether it is still wanted.
            let number = runs.get(film).map(|shown| sequence + shown.shift);
            let is_known = |number: &u64| !begins_anew || groups.contains_key(number);
            number.is_some_and(|number| covers(&wanted, number) && is_known(&number))
        });
        let before = std::mem::replace(&mut subscription.wanted, wanted);
        subscription.wanted_before.push(before);
        subscription.updates += 1;
        subscription.was_capped |= wanted.frame_end.is_some();
        subscription.settled = None;
        subscription.owed_datagrams.retain(|sequence| covers(&wanted, *sequence));
        let stream = subscription.stream;
        let mut bytes = Vec::new();
        wanted.encode_update(self.version, &mut bytes);
        self.send(stream, &bytes, false);
    }

    pub fn leave(&mut self, subscription: usize, stops_too: bool) {
        let subscription = &mut self.subscriptions[subscription];
        if std::mem::replace(&mut subscription.has_left, true) || subscription.end.is_some() {
            return;
        }
        subscription.owed.clear();
        let id = subscription.stream;
        self.send(id, &[], true);
        if stops_too {
            self.stop(id, 0);
        }
    }

    pub fn fetch(&mut self, path: &str, track: &str, want: Want, now: Instant) -> usize {
        let index = self.fetches.len();
        let stream = self.open(Dir::Bi, Use::Fetch(index));
        let Want { group, priority, frame_start, frame_end } = want;
        let broadcast = Path::parse(path).expect("a valid path");
        let track = track.to_owned();
        let fetch =
            Fetch { broadcast, track: track.clone(), priority, group, frame_start, frame_end };
        let mut bytes = vec![BidiType::Fetch as u8];
        fetch.encode(self.version, &mut bytes);
        self.fetches.push(Fetched {
            stream,
            path: path.to_owned(),
            track,
            want,
            asked_at: now,
            seen: Seen { frame_start, ..Seen::default() },
            has_left: false,
            is_touched: false,
        });
        self.send(stream, &bytes, false);
        index
    }

    pub fn leave_fetch(&mut self, fetch: usize) {
        let fetch = &mut self.fetches[fetch];
        if std::mem::replace(&mut fetch.has_left, true) || fetch.seen.end.is_some() {
            return;
        }
        let id = fetch.stream;
        self.is_dirty = true;
        self.reset(id, StreamCode::CANCEL.0);
        self.stop(id, 0);
    }

    pub fn read_groups(&mut self, reads: bool) {
        self.reads_groups = reads;
        self.was_slow |= !reads;
        self.is_dirty = true;
    }

    pub(super) fn group_began(&mut self, id: u64, header: GroupHeader) -> Use {
        let GroupHeader { subscribe_id, sequence, frame_start } = header;
        let subscription = subscribe_id as usize;
        let Some(known) = self.subscriptions.get_mut(subscription) else {
            self.fault(format!("GROUP {sequence} for subscription {subscribe_id}, which is none"));
            return Use::Ignored;
        };
        let (path, track) = (&known.path, &known.track);
        self.log.push(format!("GROUP {subscribe_id} {path} {track} {sequence} {frame_start}"));
        if known.has_left {
            // It may have been under way.
            self.stop(id, 1);
            return Use::Ignored;
        }
        let mut faults = Vec::new();
        if known.groups.contains_key(&sequence) {
            faults.push(format!("GROUP {sequence} a second time for subscription {subscribe_id}"));
        }
        // Or before it, where this end has let it lie.
        if known.end == Some(End::Finished) && !self.was_slow {
            faults.push(format!("GROUP {sequence} after the end of subscription {subscribe_id}"));
        }
        if known.track_end.is_some_and(|end| sequence >= end) {
            faults.push(format!("GROUP {sequence} at or beyond END {:?}", known.track_end));
        }
        known.arrivals.push(sequence);
        known.touched.insert(sequence);
        known.groups.insert(sequence, Seen { frame_start, ..Seen::default() });
        faults.into_iter().for_each(|what| self.fault(what));
        Use::Group { subscription, sequence }
    }

    pub(super) fn take_datagram(&mut self, datagram: Bytes) {
        if self.version < Version::Lite05 {
            return self.fault("a datagram, which there is none of".to_owned());
        }
        let body = self.datagram_body(datagram).and_then(|body| Datagram::decode(body).ok());
        let Some(Datagram { subscribe_id, sequence, timestamp, payload }) = body else {
            return self.fault("a datagram that is none of this session's".to_owned());
        };
        self.log.push(format!("DATAGRAM {subscribe_id} {sequence}"));
        match self.subscriptions.get_mut(subscribe_id as usize) {
            Some(known) if known.has_left => {}
            Some(known) => known.datagrams.push((sequence, Frame { timestamp, payload })),
            None => self.fault(format!("a datagram for subscription {subscribe_id}")),
        }
    }

    pub(super) fn take_frames(&mut self, subscription: usize, sequence: u64, buf: &mut BytesMut) {
        let known = &mut self.subscriptions[subscription];
        known.touched.insert(sequence);
        let seen = known.groups.get_mut(&sequence).expect("it was entered when it began");
        seen.take_frames(self.version, self.now, buf);
    }

    pub(super) fn take_info(
        &mut self,
        id: u64,
        index: usize,
        buf: &mut BytesMut,
        end: Option<End>,
    ) -> bool {
        match TrackInfo::take(self.version, buf) {
            Ok(Some((info, used))) => {
                buf.advance(used);
                self.log.push(format!("TRACK_INFO {info:?}"));
                if self.infos[index].answer.replace(Ok(info)).is_some() {
                    self.fault("a second TRACK_INFO".to_owned());
                }
                self.send(id, &[], true);
                true
            }
            Ok(None) => {
                if end == Some(End::Finished) && self.infos[index].answer.is_none() {
                    self.fault("FIN instead of TRACK_INFO".to_owned());
                }
                false
            }
            Err(error) => {
                self.fault(format!("TRACK_INFO: {error}"));
                false
            }
        }
    }

    pub(super) fn take_answer(&mut self, index: usize, buf: &mut BytesMut) -> bool {
        let answer = match SubscribeResponse::take(self.version, buf) {
            Ok(Some((answer, used))) => {
                buf.advance(used);
                answer
            }
            Ok(None) => return false,
            Err(error) => {
                self.fault(format!("subscribe response: {error}"));
                return false;
            }
        };
        self.log.push(format!("{index}: {answer:?}"));
        let known = &mut self.subscriptions[index];
        let mut faults = Vec::new();
        match answer {
            SubscribeResponse::Ok { .. } => {
                if std::mem::replace(&mut known.is_accepted, true) {
                    faults.push("a second SUBSCRIBE_OK".to_owned());
                }
            }
            SubscribeResponse::Start { group } => {
                if known.start.replace(group).is_some() {
                    faults.push("a second START".to_owned());
                }
                // END may precede it: it is said as soon as it is known.
            }
            SubscribeResponse::End { group } => {
                if known.track_end.replace(group).is_some() {
                    faults.push("a second END".to_owned());
                }
                if known.groups.keys().any(|sequence| *sequence >= group) {
                    faults.push(format!("END {group}, with later groups here"));
                }
            }
            SubscribeResponse::Drop { .. } => faults.push("DROP, which nobody sends".to_owned()),
        }
        faults.into_iter().for_each(|what| self.fault(format!("subscription {index}: {what}")));
        true
    }
}

impl Seen {
    pub(super) fn take_frames(&mut self, version: Version, now: Instant, buf: &mut BytesMut) {
        while let Some((header, used)) = FrameHeader::take(version, buf) {
            let size = header.size as usize;
            if buf.len() < used + size {
                break;
            }
            buf.advance(used);
            let payload = buf.split_to(size).freeze();
            let before = self.frames.last().map_or(0, |frame| frame.timestamp);
            let timestamp = match timestamp_after(before, header.timestamp_delta) {
                Some(timestamp) if version >= Version::Lite05 => timestamp,
                _ => 0,
            };
            self.frames.push(Frame { timestamp, payload });
            self.came.push(now);
        }
    }
}
