//! Pulling tracks from the peer: TRACK, SUBSCRIBE and the group streams that follow (spec §4.8,
//! §5.4). What to pull is decided by the serve loop at the track's home.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};

use super::counts::Class;
use super::fetch_in::PullFetch;
use super::streams::{ReadEnd, StreamId, Streams};
use super::{Context, Effect, Session, Step, Stream, Use};
use crate::limits::{
    ANSWER_TIMEOUT, CONTROL_BACKLOG_BYTES_MAX, GROUP_BYTES_GUESS, GROUPS_BEHIND, LEFT_BEHIND_AFTER,
    LEFT_BEHIND_LOOKS, PRIORITY_DEFAULT, READ_BYTES_PER_TURN, TAIL_GRACE, TAIL_WAIT_MAX,
    TAIL_WAIT_MIN, TIMESCALE_DEFAULT, TRACK_MAX_AGE_MS_DEFAULT,
};
use crate::track::fetch::FetchId;
use crate::track::group::{GroupEnd, Marks, Opening, Piece};
use crate::track::scan::{FrameScanner, Scale};
use crate::track::seen::Seen;
use crate::track::serve::PullCommand;
use crate::track::{Feed, PullRef};
use crate::wire::{
    BidiType, GroupHeader, Path, Preferences, StreamCode, Subscribe, SubscribeResponse, TrackInfo,
    TrackRequest, VARINT_MAX, Version, encode_varint,
};

/// One track that a home pulls through this session.
#[derive(Debug)]
pub(super) struct Pull {
    pub name: PullRef,
    /// Relative to the session root.
    pub broadcast: Path,
    pub track: Arc<str>,
    max_age_ms: u64,
    /// What the copy's timestamps count in, where that was settled by another publisher.
    timescale: Option<u64>,
    /// How this publisher's timestamps become those, if they differ.
    pub scale: Option<Scale>,
    /// TRACK is to be asked as soon as there is credit for a stream.
    info_wanted: bool,
    info_stream: Option<StreamId>,
    /// When the publisher must have answered TRACK, or SUBSCRIBE where OK is due, whatever it
    /// was that the question waited for.
    answer_by: Option<Instant>,
    /// The subscription to open as soon as there is credit for a stream.
    wanted: Option<Preferences>,
    subscription: Option<Subscription>,
    /// SUBSCRIBE goes out before the home wants it: what it brings waits until then, and these group streams.
    early: Option<Vec<StreamId>>,
    /// The publisher has finished the track: there is nothing more to subscribe to.
    is_ended: bool,
    pub fetches: BTreeMap<FetchId, PullFetch>,
    /// How much viewers of the live feed want it, while there are any.
    pub live_priority: Option<u8>,
    /// What the last group came to, and the present one at least.
    pub group_bytes: u64,
}

#[derive(Debug)]
struct Subscription {
    id: u64,
    stream: StreamId,
    /// What it began with.
    first: Preferences,
    /// OK has come (lite-04 and older), or none is due.
    is_accepted: bool,
    /// Preferences that wait for the publisher to take the last.
    update: Option<Preferences>,
    /// The group start, where the wire has one, and the max age that were last asked for.
    asked: Option<u64>,
    max_age_ms: u64,
    /// The last frame that was asked for of a group, which the publisher ends there.
    caps: Vec<Cap>,
    /// How far back an update has reached since.
    reaches: u64,
    /// What the publisher has said: where the first subscription starts, and the exclusive end.
    start: Option<u64>,
    end: Option<u64>,
    /// Group streams that are being read.
    open: Vec<StreamId>,
    seen: Seen,
    /// The publisher has said FIN; groups that it owes are waited for until then.
    tail: Option<Instant>,
}

/// One group stream being read.
#[derive(Debug)]
pub(super) struct GroupIn {
    pull: usize,
    header: GroupHeader,
    is_announced: bool,
    scanner: FrameScanner,
    /// When something of it last came.
    heard_at: Instant,
}

/// What one look at a stream of frames has brought, in the stored encoding.
pub(super) struct Frames {
    pub bytes: Bytes,
    pub marks: Marks,
    pub ends: Option<GroupEnd>,
    pub has_more: bool,
}

#[derive(Debug)]
struct Cap {
    group: u64,
    frame: u64,
    /// Until when a group may still arrive that was ended there; none while it is asked for.
    until: Option<Instant>,
}

/// Caps that are remembered; viewers rarely name a last frame at all.
const CAPS_MAX: usize = 16;

/// How long after a cap was lifted a group may arrive that had been ended there.
const CAP_GRACE: Duration = Duration::from_secs(2);

impl Subscription {
    fn note_cap(&mut self, wanted: &Preferences, now: Instant) {
        for cap in &mut self.caps {
            cap.until.get_or_insert(now + CAP_GRACE);
        }
        if let Some((group, frame)) = wanted.group_end.zip(wanted.frame_end) {
            self.caps.truncate(CAPS_MAX - 1);
            self.caps.insert(0, Cap { group, frame, until: None });
        }
    }

    /// Whether a group may be ended for our sake.
    fn bounds(&self, group: u64, now: Instant) -> bool {
        self.caps.iter().any(|cap| cap.group == group && cap.counts(now))
    }

    /// Whether a group that ended with this frame may have been ended for our sake.
    fn is_capped(&self, group: u64, frame: u64, now: Instant) -> bool {
        let ends_it = |cap: &Cap| (cap.group, cap.frame) == (group, frame);
        self.caps.iter().any(|cap| ends_it(cap) && cap.counts(now))
    }
}

impl Cap {
    fn counts(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Pull {
    /// Takes note of a group that came as a datagram. False where the track has ended before it.
    pub fn note_datagram(&mut self, sequence: u64) -> bool {
        let Some(subscription) = self.subscription.as_mut().filter(|_| self.early.is_none()) else {
            return false;
        };
        if sequence == VARINT_MAX || subscription.end.is_some_and(|end| sequence >= end) {
            return false;
        }
        subscription.seen.insert(sequence);
        true
    }

    /// A group has come to so much, and may go on.
    pub fn note_group_bytes(&mut self, bytes: u64, ends: Option<GroupEnd>) {
        let is_whole = ends == Some(GroupEnd::Finished);
        self.group_bytes = if is_whole { bytes } else { self.group_bytes.max(bytes) };
    }

    fn deadline(&self) -> Option<Instant> {
        let tail = self.subscription.as_ref().and_then(|subscription| subscription.tail);
        self.answer_by.into_iter().chain(tail).min()
    }
}

impl Session {
    /// Carries out what the home of a track has decided.
    pub fn pull<S: Streams>(&mut self, command: PullCommand, cx: &mut Context<'_, S>) {
        match command {
            PullCommand::Ask { pull, broadcast, track, timescale } => {
                self.ask(pull, &broadcast, track, timescale, cx);
            }
            PullCommand::Wish { pull, wanted } => self.wish(pull, wanted, cx),
            PullCommand::Want { pull, wanted } => self.want(pull, wanted, cx),
            PullCommand::Pause { pull, wanted } => self.pause(pull, wanted, cx),
            PullCommand::Fetch { pull, fetch, ask } => self.fetch(pull, fetch, ask, cx),
            PullCommand::JoinFetch { pull, fetch, asker } => {
                self.join_fetch(pull, fetch, asker, cx);
            }
            PullCommand::Abandon { pull, fetch } => self.abandon_fetch(pull, fetch, cx),
            PullCommand::Release { pull } => {
                let Some(&key) = self.pull_keys.get(&pull) else { return };
                self.forget_pull(key, cx);
                self.open_pulls(cx);
            }
        }
    }

    fn ask<S: Streams>(
        &mut self,
        name: PullRef,
        broadcast: &Path,
        track: Arc<str>,
        timescale: Option<u64>,
        cx: &mut Context<'_, S>,
    ) {
        // What it has announced stands for all below it, of which it may not have everything.
        let may_have = self.pass.admission.grant.may_publish(broadcast);
        let Some(broadcast) =
            broadcast.strip_prefix(self.root()).filter(|_| may_have && self.failure.is_none())
        else {
            let feed = Feed::Failed(StreamCode::UNROUTABLE);
            return cx.effects.push(Effect::Fed { pull: name, feed });
        };
        if self.is_leaving {
            let feed = Feed::Failed(StreamCode::GOING_AWAY);
            return cx.effects.push(Effect::Fed { pull: name, feed });
        }
        let has_track_stream = self.version >= Version::Lite05;
        let key = self.pulls.insert(Pull {
            name,
            broadcast,
            track,
            max_age_ms: TRACK_MAX_AGE_MS_DEFAULT,
            timescale,
            scale: None,
            info_wanted: has_track_stream,
            info_stream: None,
            answer_by: has_track_stream.then(|| cx.now + ANSWER_TIMEOUT),
            wanted: None,
            subscription: None,
            early: None,
            is_ended: false,
            fetches: BTreeMap::new(),
            live_priority: None,
            group_bytes: GROUP_BYTES_GUESS,
        });
        self.pull_keys.insert(name, key);
        if has_track_stream {
            self.note_deadline(key);
            self.open_pull(key, cx);
        } else {
            let info = TrackInfo {
                priority: PRIORITY_DEFAULT,
                max_age_ms: TRACK_MAX_AGE_MS_DEFAULT,
                timescale: TIMESCALE_DEFAULT,
            };
            self.adopt_info(key, info, cx);
        }
    }

    /// Opens the streams that wait for credit.
    pub(super) fn open_pulls<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        let waiting = |pull: &Pull| {
            let is_subscribing = pull.wanted.is_some() && pull.subscription.is_none();
            pull.info_wanted || is_subscribing
        };
        let keys: Vec<usize> =
            self.pulls.iter().filter(|(_, pull)| waiting(pull)).map(|(key, _)| key).collect();
        for key in keys {
            self.open_pull(key, cx);
        }
        self.open_fetches(cx);
    }

    pub(super) fn open_pull<S: Streams>(&mut self, key: usize, cx: &mut Context<'_, S>) {
        // What viewers ask for must not cost a publisher its session: it waits its turn.
        if self.unsent_bytes > CONTROL_BACKLOG_BYTES_MAX / 2 {
            return;
        }
        if self.pulls[key].info_wanted {
            self.open_info(key, cx);
        }
        if self.pulls[key].info_wanted {
            return;
        }
        if self.pulls[key].subscription.is_none() {
            self.open_subscription(key, cx);
        }
    }

    /// Gives up what was to be asked of a peer that leaves.
    pub(super) fn refuse_unsent<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        let keys: Vec<usize> = self.pulls.iter().map(|(key, _)| key).collect();
        for key in keys {
            let pull = &self.pulls[key];
            if pull.info_wanted || (pull.wanted.is_some() && pull.subscription.is_none()) {
                self.pull_failed(key, StreamCode::GOING_AWAY, cx);
            }
        }
        self.refuse_unsent_fetches(cx);
    }

    fn open_info<S: Streams>(&mut self, key: usize, cx: &mut Context<'_, S>) {
        let Some(id) = cx.streams.open_bidi() else { return };
        let pull = &mut self.pulls[key];
        pull.info_wanted = false;
        pull.info_stream = Some(id);
        let mut bytes = Vec::new();
        encode_varint(BidiType::Track as u64, &mut bytes);
        let request =
            TrackRequest { broadcast: pull.broadcast.clone(), track: pull.track.to_string() };
        request.encode(&mut bytes);
        let purpose = Use::PullInfo { pull: key };
        self.inputs.insert(id, Stream { purpose, buf: BytesMut::new() });
        self.send(Class::TrackInfo, id, &bytes, false, cx);
    }

    fn open_subscription<S: Streams>(&mut self, key: usize, cx: &mut Context<'_, S>) {
        let pull = &mut self.pulls[key];
        let Some(preferences) = pull.wanted else { return };
        let Some(stream) = cx.streams.open_bidi() else { return };
        pull.wanted = None;
        let id = self.next_subscribe_id;
        self.next_subscribe_id += 1;
        let mut subscription = Subscription {
            id,
            stream,
            first: preferences,
            is_accepted: self.version >= Version::Lite05,
            update: None,
            asked: preferences.group_start.filter(|_| self.version >= Version::Lite03),
            max_age_ms: preferences.max_age_ms,
            caps: Vec::new(),
            reaches: u64::MAX,
            start: None,
            end: None,
            open: Vec::new(),
            seen: Seen::default(),
            tail: None,
        };
        subscription.note_cap(&preferences, cx.now);
        pull.subscription = Some(subscription);
        self.subscriptions += 1;
        cx.counts.received.subscriptions_opened += 1;
        if self.version >= Version::Lite05 && pull.early.is_none() {
            // Nothing answers there before the first group is known.
            pull.answer_by = None;
        }
        // Known before it is written: a group may overtake the response.
        self.pull_ids.insert(id, key);
        let mut bytes = Vec::new();
        encode_varint(BidiType::Subscribe as u64, &mut bytes);
        let broadcast = pull.broadcast.clone();
        Subscribe { id, broadcast, track: pull.track.to_string(), preferences }
            .encode(self.version, &mut bytes);
        let purpose = Use::PullSubscription { pull: key };
        self.inputs.insert(stream, Stream { purpose, buf: BytesMut::new() });
        cx.streams.expect_groups();
        self.send(Class::Subscribe, stream, &bytes, false, cx);
    }

    /// Somebody will be interested: opens the subscription while it is not known yet what the track is like.
    fn wish<S: Streams>(&mut self, name: PullRef, wanted: Preferences, cx: &mut Context<'_, S>) {
        let Some(&key) = self.pull_keys.get(&name) else { return };
        let pull = &mut self.pulls[key];
        let is_unknown = pull.info_wanted || pull.info_stream.is_some();
        if is_unknown && pull.subscription.is_none() && !self.is_leaving {
            (pull.wanted, pull.early) = (Some(wanted), Some(Vec::new()));
            self.open_pull(key, cx);
        }
    }

    pub(super) fn is_early(&self, key: usize) -> bool {
        self.pulls.get(key).is_some_and(|pull| pull.early.is_some())
    }

    /// Whether a group's header shows that it is asked for and not wanted yet: it waits then.
    pub(super) fn comes_early(&mut self, id: StreamId, header: &[u8]) -> bool {
        let Ok(Some((header, _))) = GroupHeader::take(self.version, header) else { return false };
        let Some(&key) = self.pull_ids.get(&header.subscribe_id) else { return false };
        let Some(early) = &mut self.pulls[key].early else { return false };
        early.push(id);
        true
    }

    /// What a subscription has brought so far is wanted now.
    fn take_early<S: Streams>(&mut self, key: usize, cx: &mut Context<'_, S>) {
        let Some(groups) = self.pulls[key].early.take() else { return };
        let name = self.pulls[key].name;
        if let Some(stream) = self.pulls[key].subscription.as_ref().map(|known| known.stream) {
            self.readable(stream, cx);
        }
        for id in groups {
            // What has come may have ended it.
            let is_open = self.pull_keys.contains_key(&name);
            let Some(mut stream) = self.inputs.remove(&id) else { continue };
            self.input_bytes -= stream.buf.len();
            let Use::EarlyGroup(end) = stream.purpose else { continue };
            match self.take_group_header(id, &stream.buf, cx) {
                Ok(Some((group, used))) if is_open => {
                    stream.buf.advance(used);
                    self.read_group(id, Box::new(group), &stream.buf, end, cx);
                }
                _ => cx.streams.stop(id, StreamCode::CANCEL),
            }
        }
    }

    /// Somebody is interested: opens the subscription, or changes the one that is open.
    fn want<S: Streams>(&mut self, name: PullRef, wanted: Preferences, cx: &mut Context<'_, S>) {
        let Some(&key) = self.pull_keys.get(&name) else { return };
        let pull = &mut self.pulls[key];
        if pull.is_ended {
            return;
        }
        pull.live_priority = Some(wanted.priority);
        let Some(subscription) = &mut pull.subscription else {
            pull.early = None;
            if self.is_leaving {
                return self.pull_failed(key, StreamCode::GOING_AWAY, cx);
            }
            pull.wanted = Some(wanted);
            pull.answer_by = Some(cx.now + ANSWER_TIMEOUT);
            self.note_deadline(key);
            return self.open_pull(key, cx);
        };
        // There the first word of viewers is the last (spec §3.4).
        if self.version < Version::Lite03 {
            return;
        }
        if pull.early.is_some() && subscription.first == wanted {
            return self.take_early(key, cx);
        }
        // No START answers an update, yet one that reaches further back brings what is older
        // (spec §4.9).
        let is_wider = subscription.asked.is_some() || wanted.max_age_ms > subscription.max_age_ms;
        let reaches = match wanted.group_start {
            Some(start) => start,
            None if self.version >= Version::Lite06 && is_wider => 0,
            None => u64::MAX,
        };
        subscription.asked = wanted.group_start;
        subscription.max_age_ms = wanted.max_age_ms;
        subscription.note_cap(&wanted, cx.now);
        subscription.update = Some(wanted);
        if reaches < subscription.reaches {
            subscription.reaches = reaches;
            if subscription.start.is_some_and(|start| reaches < start) {
                let feed = Feed::Start(reaches);
                cx.effects.push(Effect::Fed { pull: name, feed });
            }
        }
        self.send_update(key, cx);
        self.take_early(key, cx);
    }

    /// Nobody is interested for now.
    fn pause<S: Streams>(&mut self, name: PullRef, wanted: Preferences, cx: &mut Context<'_, S>) {
        let Some(&key) = self.pull_keys.get(&name) else { return };
        let pull = &mut self.pulls[key];
        pull.live_priority = None;
        match &mut pull.subscription {
            // It was not opened, and need not be.
            None => {
                (pull.wanted, pull.early) = (None, None);
                pull.answer_by = None;
            }
            Some(subscription) => {
                subscription.note_cap(&wanted, cx.now);
                subscription.update = Some(wanted);
                self.send_update(key, cx);
                self.take_early(key, cx);
            }
        }
    }

    /// Sends the newest preferences, once the publisher has taken those before: it is owed the
    /// last word of its viewers, not every word.
    pub(super) fn send_update<S: Streams>(&mut self, key: usize, cx: &mut Context<'_, S>) {
        let Some(subscription) = &mut self.pulls[key].subscription else { return };
        let stream = subscription.stream;
        if self.unsent.contains_key(&stream) {
            return;
        }
        if let Some(wanted) = subscription.update.take() {
            let mut bytes = Vec::new();
            wanted.encode_update(self.version, &mut bytes);
            self.send(Class::Subscribe, stream, &bytes, false, cx);
        }
    }

    /// Ends the subscription from our side; whatever still arrives for it is refused.
    fn end_subscription<S: Streams>(&mut self, key: usize, cx: &mut Context<'_, S>) {
        let Some(subscription) = self.pulls[key].subscription.take() else { return };
        self.subscriptions -= 1;
        cx.counts.received.subscriptions_closed += 1;
        self.pull_ids.remove(&subscription.id);
        let early = self.pulls[key].early.take().unwrap_or_default();
        for group in subscription.open.into_iter().chain(early) {
            self.forget_input(group);
            cx.streams.stop(group, StreamCode::CANCEL);
        }
        let is_open = self.inputs.contains_key(&subscription.stream);
        if is_open || subscription.tail.is_some() {
            self.finish(subscription.stream, cx);
        }
        if is_open {
            self.drain_input(subscription.stream);
        }
    }

    fn forget_pull<S: Streams>(&mut self, key: usize, cx: &mut Context<'_, S>) {
        self.end_subscription(key, cx);
        self.close_fetches(key, cx);
        if let Some(id) = self.pulls[key].info_stream.take()
            && self.forget_input(id)
        {
            self.refuse(id, StreamCode::CANCEL, cx);
        }
        let pull = self.pulls.remove(key);
        self.pull_keys.remove(&pull.name);
    }

    /// The copy has failed: the home hears why, once.
    fn pull_failed<S: Streams>(&mut self, key: usize, code: StreamCode, cx: &mut Context<'_, S>) {
        let pull = self.pulls[key].name;
        self.forget_pull(key, cx);
        cx.effects.push(Effect::Fed { pull, feed: Feed::Failed(code) });
    }

    /// The names of all copies, for a session that is over.
    pub fn pull_names(&self) -> impl Iterator<Item = PullRef> + '_ {
        self.pulls.iter().map(|(_, pull)| pull.name)
    }

    pub(super) fn take_info<S: Streams>(
        &mut self,
        id: StreamId,
        stream: &mut Stream,
        cx: &mut Context<'_, S>,
    ) -> Step {
        let Use::PullInfo { pull: key } = stream.purpose else { return Step::Wait };
        match TrackInfo::take(self.version, &stream.buf) {
            Ok(None) => Step::Wait,
            Ok(Some((info, _))) => {
                let pull = &mut self.pulls[key];
                pull.info_stream = None;
                pull.answer_by = None;
                self.adopt_info(key, info, cx);
                stream.purpose = Use::Draining;
                self.finish(id, cx);
                Step::Again
            }
            Err(_) => {
                self.pulls[key].info_stream = None;
                self.refuse(id, StreamCode::CANCEL, cx);
                self.pull_failed(key, StreamCode::MALFORMED_TRACK, cx);
                Step::Forget
            }
        }
    }

    fn adopt_info<S: Streams>(&mut self, key: usize, info: TrackInfo, cx: &mut Context<'_, S>) {
        let pull = &mut self.pulls[key];
        pull.max_age_ms = info.max_age_ms;
        let from = info.timescale;
        pull.scale = pull.timescale.filter(|to| *to != from).map(|to| Scale { from, to });
        cx.effects.push(Effect::Fed { pull: pull.name, feed: Feed::Info(info) });
    }

    pub(super) fn info_ended<S: Streams>(
        &mut self,
        id: StreamId,
        key: usize,
        end: ReadEnd,
        cx: &mut Context<'_, S>,
    ) {
        self.pulls[key].info_stream = None;
        self.reset(id, StreamCode::CANCEL, cx);
        self.pull_failed(key, reason(end), cx);
    }

    pub(super) fn take_response<S: Streams>(
        &mut self,
        key: usize,
        buf: &mut BytesMut,
        cx: &mut Context<'_, S>,
    ) -> Step {
        let response = match SubscribeResponse::take(self.version, buf) {
            Ok(Some((response, used))) => {
                buf.advance(used);
                response
            }
            Ok(None) => return Step::Wait,
            Err(_) => return self.abandon(key, StreamCode::MALFORMED_TRACK, cx),
        };
        let pull = &mut self.pulls[key];
        let name = pull.name;
        let Some(subscription) = &mut pull.subscription else { return Step::Forget };
        match response {
            SubscribeResponse::Ok { .. } => {
                subscription.is_accepted = true;
                pull.answer_by = None;
            }
            _ if !subscription.is_accepted => {
                return self.abandon(key, StreamCode::MALFORMED_TRACK, cx);
            }
            SubscribeResponse::Start { group } => {
                subscription.start = Some(group);
                let feed = Feed::Start(group.min(subscription.reaches));
                cx.effects.push(Effect::Fed { pull: name, feed });
            }
            SubscribeResponse::End { group } => {
                let reached = subscription.seen.end();
                if group < reached && self.version >= Version::Lite06 {
                    return self.abandon(key, StreamCode::SESSION_CLOSED, cx);
                }
                // Some lite-05 publishers name their last group instead of the one after it.
                let end = group.max(reached);
                subscription.end = Some(end);
                cx.effects.push(Effect::Fed { pull: name, feed: Feed::Final(end) });
            }
            SubscribeResponse::Drop { start, end, .. } => {
                subscription.seen.insert_all(start..end.saturating_add(1));
            }
        }
        Step::Again
    }

    fn abandon<S: Streams>(
        &mut self,
        key: usize,
        code: StreamCode,
        cx: &mut Context<'_, S>,
    ) -> Step {
        if let Some(subscription) = &self.pulls[key].subscription {
            let stream = subscription.stream;
            self.forget_input(stream);
            self.refuse(stream, StreamCode::CANCEL, cx);
        }
        self.pull_failed(key, code, cx);
        Step::Forget
    }

    pub(super) fn responses_ended<S: Streams>(
        &mut self,
        key: usize,
        buf: &[u8],
        end: ReadEnd,
        cx: &mut Context<'_, S>,
    ) {
        let Some(pull) = self.pulls.get_mut(key) else { return };
        let Some(subscription) = &mut pull.subscription else { return };
        let stream = subscription.stream;
        let is_clean = end == ReadEnd::Finished && buf.is_empty() && subscription.is_accepted;
        // Without END a lite-05 publisher has given up rather than finished.
        if !is_clean || (self.version >= Version::Lite05 && subscription.end.is_none()) {
            self.reset(stream, StreamCode::CANCEL, cx);
            return self.pull_failed(key, reason(end), cx);
        }
        // Our own FIN would cancel the groups that are still on their way (spec §4.8).
        subscription.tail = Some(cx.now);
        cx.effects.push(Effect::Fed { pull: pull.name, feed: Feed::Ending });
        self.prolong_tail(key, cx.now);
        self.end_tail(key, cx);
    }

    /// What a finished subscription still waits for may take as long again, from now on.
    fn prolong_tail(&mut self, key: usize, now: Instant) {
        let Some(pull) = self.pulls.get_mut(key) else { return };
        let Some(subscription) = &mut pull.subscription else { return };
        if let Some(tail) = &mut subscription.tail {
            let owes_unknown = self.version <= Version::Lite04 && subscription.open.is_empty();
            *tail = now + if owes_unknown { TAIL_GRACE } else { tail_wait(pull.max_age_ms) };
            self.note_deadline(key);
        }
    }

    /// Gives up on publishers that have not answered, and on groups that will not come.
    pub(super) fn pull_timeouts<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        if self.pull_deadline.is_none_or(|deadline| deadline > cx.now) {
            return;
        }
        let keys: Vec<usize> = self.pulls.iter().map(|(key, _)| key).collect();
        for key in keys {
            if self.pulls[key].answer_by.is_some_and(|deadline| deadline <= cx.now) {
                self.pull_failed(key, StreamCode::CONTROL_TIMEOUT, cx);
            } else {
                self.end_tail(key, cx);
            }
        }
        self.pull_deadline = self.pulls.iter().filter_map(|(_, pull)| pull.deadline()).min();
        self.open_pulls(cx);
    }

    /// Makes sure that a pull's deadline is kept.
    fn note_deadline(&mut self, key: usize) {
        let deadline = self.pulls.get(key).and_then(Pull::deadline);
        self.pull_deadline = self.pull_deadline.into_iter().chain(deadline).min();
    }

    /// Reports a finished track once all that its publisher owes has come, or will not.
    fn end_tail<S: Streams>(&mut self, key: usize, cx: &mut Context<'_, S>) {
        let Some(pull) = self.pulls.get(key) else { return };
        let Some(subscription) = &pull.subscription else { return };
        let Some(deadline) = subscription.tail else { return };
        let is_whole = subscription.open.is_empty()
            && subscription.end.is_some_and(|end| {
                subscription.seen.has_all(subscription.start.unwrap_or(end), end)
            });
        if !is_whole && cx.now < deadline {
            return;
        }
        let name = pull.name;
        // Its groups can still be fetched: the pull stays until it is released.
        self.end_subscription(key, cx);
        self.pulls[key].is_ended = true;
        cx.effects.push(Effect::Fed { pull: name, feed: Feed::Ended });
    }

    pub(super) fn take_group_header<S: Streams>(
        &mut self,
        id: StreamId,
        buf: &[u8],
        cx: &mut Context<'_, S>,
    ) -> Result<Option<(GroupIn, usize)>, StreamCode> {
        let taken = GroupHeader::take(self.version, buf).map_err(|_| StreamCode::CANCEL)?;
        let Some((header, used)) = taken else { return Ok(None) };
        // The end of a track is the number after its last group, and has to have a name.
        if header.sequence == VARINT_MAX {
            return Err(StreamCode::MALFORMED_TRACK);
        }
        let key = *self.pull_ids.get(&header.subscribe_id).ok_or(StreamCode::CANCEL)?;
        let subscription = self.pulls[key].subscription.as_mut().ok_or(StreamCode::CANCEL)?;
        if subscription.end.is_some_and(|end| header.sequence >= end) {
            if self.version >= Version::Lite06 {
                self.abandon(key, StreamCode::SESSION_CLOSED, cx);
            }
            return Err(StreamCode::CANCEL);
        }
        // A sequence that was here already is refused (spec §5.6), yet it settles what was owed.
        if !subscription.seen.insert(header.sequence) {
            return Err(StreamCode::CANCEL);
        }
        subscription.open.push(id);
        if self.version <= Version::Lite04 && subscription.start.is_none() {
            // No START exists there: the feed begins where it was asked to, or else with the
            // first group to arrive.
            let first = header.sequence;
            let start = subscription.asked.map_or(first, |asked| asked.min(first));
            subscription.start = Some(start);
            let feed = Feed::Start(start);
            cx.effects.push(Effect::Fed { pull: self.pulls[key].name, feed });
        }
        let scale = self.pulls[key].scale;
        let scanner = FrameScanner::new(self.version >= Version::Lite05, scale);
        let heard_at = cx.now;
        Ok(Some((GroupIn { pull: key, header, is_announced: false, scanner, heard_at }, used)))
    }

    /// Reads what has arrived of a group and passes it on as one piece. `first` is what came
    /// with the header, and `end` how that read left the stream.
    pub(super) fn read_group<S: Streams>(
        &mut self,
        id: StreamId,
        mut group: Box<GroupIn>,
        first: &[u8],
        end: ReadEnd,
        cx: &mut Context<'_, S>,
    ) {
        let read = self.read_frames(id, &mut group.scanner, first, end, cx);
        let GroupHeader { subscribe_id, sequence, frame_start } = group.header;
        let is_first = !std::mem::replace(&mut group.is_announced, true);
        cx.counts.received.groups += u64::from(is_first);
        let pull = &mut self.pulls[group.pull];
        pull.note_group_bytes(group.scanner.bytes(), read.ends);
        let opens = is_first.then(|| {
            let bounds = |known: &Subscription| known.bounds(sequence, cx.now);
            let is_bounded = pull.subscription.as_ref().is_some_and(bounds);
            Opening { is_bounded, ..Opening::at(frame_start) }
        });
        let mut ends = read.ends;
        if let (Some(GroupEnd::Finished), Some(subscription)) = (ends, &pull.subscription) {
            let last = (frame_start + u64::from(group.scanner.frames())).checked_sub(1);
            if last.is_some_and(|last| subscription.is_capped(sequence, last, cx.now)) {
                ends = Some(GroupEnd::Capped);
            }
        }
        if !read.bytes.is_empty() {
            group.heard_at = cx.now;
        }
        if opens.is_some() || !read.bytes.is_empty() || ends.is_some() {
            let piece = Piece { sequence, opens, bytes: read.bytes, marks: read.marks, ends };
            cx.effects.push(Effect::Fed { pull: pull.name, feed: Feed::Piece(piece) });
        }
        let key = group.pull;
        if ends.is_some()
            && let Some(subscription) = &mut pull.subscription
        {
            debug_assert_eq!(subscription.id, subscribe_id);
            subscription.open.retain(|open| *open != id);
        }
        // A group that flows is not one that will not come.
        self.prolong_tail(key, cx.now);
        if ends.is_none() {
            if read.has_more {
                cx.effects.push(Effect::Unread { stream: id });
            }
            let purpose = Use::GroupIn(group);
            self.inputs.insert(id, Stream { purpose, buf: BytesMut::new() });
        } else {
            self.end_tail(key, cx);
        }
        if is_first {
            self.stop_left_behind(key, cx);
        }
    }

    /// Wants no more of groups that a publisher has left behind in the middle of a frame: its link takes less
    /// than its tracks, newer groups go first, and these are older than anybody wants. What it holds of them
    /// counts towards the data that it may send (RFC 9000 §4.1); in the end nothing would be left for what is
    /// new.
    fn stop_left_behind<S: Streams>(&mut self, key: usize, cx: &mut Context<'_, S>) {
        let Some(pull) = self.pulls.get_mut(key) else { return };
        let Some(subscription) = &mut pull.subscription else { return };
        let beyond = subscription.open.len().saturating_sub(GROUPS_BEHIND);
        let max_age_ms = subscription.max_age_ms.min(pull.max_age_ms);
        let patience = Duration::from_millis(max_age_ms).max(LEFT_BEHIND_AFTER);
        let mut left = Vec::new();
        for &stream in subscription.open.iter().take(beyond.min(LEFT_BEHIND_LOOKS)) {
            let Some(Stream { purpose: Use::GroupIn(group), .. }) = self.inputs.get(&stream) else {
                continue;
            };
            // Where a frame has begun there is more of it; between frames nothing may have been published.
            if cx.now - group.heard_at >= patience && !group.scanner.at_boundary() {
                left.push((stream, group.header.sequence));
            }
        }
        subscription.open.retain(|open| !left.iter().any(|(stream, _)| stream == open));
        let name = pull.name;
        for (stream, sequence) in left {
            self.forget_input(stream);
            cx.streams.stop(stream, StreamCode::OLD);
            let ends = Some(GroupEnd::Aborted(StreamCode::OLD));
            let (bytes, marks) = (Bytes::new(), Marks::new());
            let piece = Piece { sequence, opens: None, bytes, marks, ends };
            cx.effects.push(Effect::Fed { pull: name, feed: Feed::Piece(piece) });
        }
    }

    /// Reads frames off a stream, whatever brought them.
    pub(super) fn read_frames<S: Streams>(
        &mut self,
        id: StreamId,
        scanner: &mut FrameScanner,
        first: &[u8],
        end: ReadEnd,
        cx: &mut Context<'_, S>,
    ) -> Frames {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        let before = (scanner.frames(), scanner.payload());
        let mut marks = Marks::new();
        let arrival_ms = cx.arrival_ms;
        let mut fault = scanner.scan(first, arrival_ms, &mut bytes, &mut marks).err();
        let end = match end {
            ReadEnd::More => cx.streams.read(id, READ_BYTES_PER_TURN, &mut |part| {
                if fault.is_none() {
                    fault = scanner.scan(part, arrival_ms, &mut bytes, &mut marks).err();
                }
            }),
            end => end,
        };
        let ends = match (fault, end) {
            (Some(code), _) => {
                cx.streams.stop(id, code);
                Some(GroupEnd::Aborted(code))
            }
            (None, ReadEnd::Finished) if scanner.at_boundary() => Some(GroupEnd::Finished),
            (None, ReadEnd::Finished) => Some(GroupEnd::Aborted(StreamCode::WRONG_SIZE)),
            (None, ReadEnd::Reset(code)) => Some(GroupEnd::Aborted(code.relayed())),
            (None, ReadEnd::Pending | ReadEnd::More) => None,
        };
        cx.counts.received.frames += u64::from(scanner.frames() - before.0);
        cx.counts.received.bytes += scanner.payload() - before.1;
        // An exact copy: received bytes would keep the datagrams alive that brought them.
        let copy = Bytes::copy_from_slice(&bytes);
        self.scratch = bytes;
        Frames { bytes: copy, marks, ends, has_more: end == ReadEnd::More }
    }
}

/// How long a finished subscription waits for news of the groups it is owed.
fn tail_wait(max_age_ms: u64) -> Duration {
    Duration::from_millis(max_age_ms).clamp(TAIL_WAIT_MIN, TAIL_WAIT_MAX)
}

/// The code for readers when a stream that should have answered ended instead.
fn reason(end: ReadEnd) -> StreamCode {
    match end {
        ReadEnd::Reset(code) => code.relayed(),
        _ => StreamCode::INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Play;
    use super::super::{Call, Effect};
    use super::*;
    use crate::track::{PullRef, TrackRef};

    const PULL: PullRef =
        PullRef { track: TrackRef { shard: 0, slot: 0, generation: 0 }, attempt: 1 };
    /// Vectors 37, 32 and 49 of the spec.
    const INFO: &[u8] = &[5, 0x7f, 0x53, 0x88, 0x43, 0xe8];
    const START_5: &[u8] = &[0, 1, 5];
    const GROUP_5: &[u8] = b"\x00\x03\x00\x05\x00\x80\x02\xbf\x20\x05hello\x57\x6f\x00";

    fn preferences(priority: u8) -> Preferences {
        Preferences {
            priority,
            max_age_ms: 500,
            group_start: None,
            group_end: None,
            frame_start: 0,
            frame_end: None,
        }
    }

    /// What the home is told.
    fn told(effects: &[Effect]) -> Vec<String> {
        let words = |effect: &Effect| match effect {
            Effect::Fed { feed: Feed::Info(_), .. } => "info".to_owned(),
            Effect::Fed { feed: Feed::Start(start), .. } => format!("start {start}"),
            Effect::Fed { feed: Feed::Piece(piece), .. } => {
                let is_whole = piece.ends == Some(GroupEnd::Finished);
                format!("group {} {} {is_whole}", piece.sequence, piece.marks.len())
            }
            other => format!("{other:?}"),
        };
        effects.iter().map(words).collect()
    }

    struct Early {
        play: Play,
        track: StreamId,
        subscribe: StreamId,
    }

    impl Early {
        /// A relay is asked what a track is like, and for its groups.
        fn new() -> Early {
            let mut play = Play::dialling(Version::Lite06, Call::default());
            play.opens(3, &[1, 1, 0]);
            let before: Vec<StreamId> = play.link.told.keys().copied().collect();
            let (broadcast, track) = (Path::parse("live/cam").expect("a path"), "video".into());
            play.with(|session, cx| {
                session
                    .pull(PullCommand::Ask { pull: PULL, broadcast, track, timescale: None }, cx);
                session.pull(PullCommand::Wish { pull: PULL, wanted: preferences(9) }, cx);
            });
            let new = play.link.told.keys().filter(|id| !before.contains(id));
            let [track, subscribe] = new.copied().collect::<Vec<_>>()[..] else {
                panic!("two questions at once: {:?}", play.link.told)
            };
            assert_eq!(play.link.told[&track][0], BidiType::Track as u8);
            assert_eq!(play.link.told[&subscribe][0], BidiType::Subscribe as u8);
            Early { play, track, subscribe }
        }

        fn reads(&mut self, id: StreamId, says: &[u8]) -> Vec<String> {
            self.play.link.says = says.to_vec();
            told(&self.play.with(|session, cx| session.readable(id, cx)))
        }

        /// A whole group comes, and then what the track is like: the home hears of that alone.
        fn group_and_info(&mut self) {
            self.play.link.has_finished = true;
            self.play.link.says = GROUP_5.to_vec();
            let effects = self.play.with(|session, cx| session.opened(StreamId(7), cx));
            assert_eq!(told(&effects), [""; 0]);
            self.play.link.has_finished = false;
            assert_eq!(self.reads(self.track, INFO), ["info"]);
            assert_eq!(self.reads(self.subscribe, START_5), [""; 0]);
            assert_eq!(self.play.link.says, START_5, "it was not read");
        }
    }

    #[test]
    fn what_a_relay_brings_before_it_is_wanted_waits_for_that() {
        let mut early = Early::new();
        early.group_and_info();
        let asked = early.play.link.told.clone();
        let wanted = preferences(9);
        let effects = early
            .play
            .with(|session, cx| session.pull(PullCommand::Want { pull: PULL, wanted }, cx));
        assert_eq!(told(&effects), ["start 5", "group 5 2 true"]);
        assert_eq!(early.play.link.told, asked, "as it was asked for");
    }

    #[test]
    fn what_is_wanted_otherwise_is_said() {
        for command in [
            PullCommand::Want { pull: PULL, wanted: preferences(200) },
            PullCommand::Pause { pull: PULL, wanted: preferences(0) },
        ] {
            let mut early = Early::new();
            early.group_and_info();
            let asked = early.play.link.told[&early.subscribe].len();
            let effects = early.play.with(|session, cx| session.pull(command, cx));
            assert_eq!(told(&effects), ["start 5", "group 5 2 true"]);
            assert!(early.play.link.told[&early.subscribe].len() > asked);
        }
    }

    #[test]
    fn what_nobody_wants_in_the_end_is_given_up() {
        let mut early = Early::new();
        early.group_and_info();
        early.play.with(|session, cx| session.pull(PullCommand::Release { pull: PULL }, cx));
        assert!(
            early.play.link.done.iter().any(|done| done == "stop 1"),
            "{:?}",
            early.play.link.done
        );
        let session = &early.play.session;
        assert!(session.pulls.is_empty() && session.pull_ids.is_empty());
        assert_eq!(session.input_bytes, 0);
    }

    #[test]
    fn a_wish_that_comes_late_changes_nothing() {
        let mut early = Early::new();
        assert_eq!(early.reads(early.track, INFO), ["info"]);
        // It is known by now: there is nothing to wish for.
        let asked = early.play.link.told.clone();
        let wanted = preferences(9);
        early.play.with(|session, cx| session.pull(PullCommand::Wish { pull: PULL, wanted }, cx));
        assert_eq!(early.play.link.told, asked);
    }
}
