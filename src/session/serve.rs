//! Serving subscriptions of the peer: which groups go out, on which streams, how urgently, and
//! how each of them ends (spec §4.7, §4.9 to §4.11).

use std::cmp::Reverse;
use std::time::Instant;

use bytes::{Buf, BytesMut};

use super::counts::{Class, Counts};
use super::order::{Order, RANKS};
use super::outflow::{Flow, Outflow};
use super::streams::{StreamId, Streams};
use super::{Context, Effect, Session, Step, Use};
use crate::limits::{ACK_DELAY, OPEN_GROUPS_MAX, OPEN_GROUPS_PER_PEER_MAX, STUCK_GROUPS_PER_GO};
use crate::track::content::{Content, Outcome, Run};
use crate::track::cursor::{Cursor, Pick};
use crate::track::demand::{Demand, Reach};
use crate::track::group::Form;
use crate::wire::{
    CONTROL_MESSAGE_BYTES_MAX, GroupHeader, Path, Preferences, StreamCode, Subscribe,
    SubscribeResponse, UniType, VARINT_MAX, Version, encode_varint, split_message,
};

/// One subscription of the peer.
#[derive(Debug)]
pub(super) struct Served {
    pub id: u64,
    broadcast: Path,
    /// When it was asked for, until a group of it is sent.
    asked: Option<Instant>,
    wanted: Preferences,
    /// Where the peer is in the track, once this shard's copy of it can tell.
    cursor: Option<Cursor>,
    /// It is not yet where `wanted` has it.
    is_unplaced: bool,
    /// OK was sent (lite-04 and older).
    is_accepted: bool,
    /// In the order in which they are to leave.
    open: Vec<GroupOut>,
    /// The run of the track whose end it was told.
    end_sent: Option<Run>,
    /// Another group may start, or the subscription end, when one of those open is done.
    is_waiting: bool,
    /// The priorities of its groups are to be worked out again.
    is_reordered: bool,
    /// It is among those that wait for streams.
    is_starved: bool,
    /// Which of those that are stuck is looked at next.
    next_stuck: usize,
}

/// One group on its way to the peer.
#[derive(Debug)]
struct GroupOut {
    /// As the track counts it, and as this viewer does.
    sequence: u64,
    run: Run,
    number: u64,
    flow: Outflow,
    /// None while the peer grants no stream.
    stream: Option<StreamId>,
    /// When FIN was sent: all that is missing is the acknowledgement.
    finished: Option<Instant>,
    priority: i32,
}

impl Served {
    /// How much higher than in this run of the track the peer counts.
    pub fn shift(&self, run: Run) -> u64 {
        self.cursor.as_ref().map_or(0, |cursor| cursor.shift(run))
    }

    fn demand(&self, version: Version, content: &Content) -> Option<Demand> {
        Demand::of(version, &self.wanted)?.after(self.shift(content.run()))
    }

    fn place(&mut self, version: Version, content: &Content) {
        let reach = Reach::of_demand(self.demand(version, content));
        if !content.covers(reach) {
            return;
        }
        (self.is_unplaced, self.is_reordered) = (false, true);
        match &mut self.cursor {
            Some(cursor) => cursor.update(content, self.wanted),
            None => self.cursor = Some(Cursor::join(content, version, self.wanted)),
        }
    }

    /// Whether a group is asked for that this viewer knows by this number.
    pub fn wants(&self, number: u64) -> bool {
        let Preferences { group_start, group_end, .. } = self.wanted;
        group_start.is_none_or(|start| start <= number) && group_end.is_none_or(|end| number <= end)
    }
}

/// What is left to do for a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Continues,
    /// It has ended, and the session has forgotten it.
    Over,
}

enum Progress {
    Open,
    Closed,
}

impl Session {
    pub(super) fn subscribe_requested<S: Streams>(
        &mut self,
        id: StreamId,
        request: Subscribe,
        cx: &mut Context<'_, S>,
    ) -> Result<Use, StreamCode> {
        let broadcast = self.absolute(&request.broadcast, &request.track, cx)?;
        let wanted = request.preferences;
        self.count_subscription(&broadcast, cx.counts);
        self.served.insert(
            id,
            Served {
                id: request.id,
                broadcast: broadcast.clone(),
                asked: Some(cx.now),
                wanted,
                cursor: None,
                is_unplaced: true,
                is_accepted: false,
                open: Vec::new(),
                end_sent: None,
                is_waiting: false,
                is_reordered: false,
                is_starved: false,
                next_stuck: 0,
            },
        );
        let track = request.track.into();
        cx.effects.push(Effect::Subscribed { key: id, broadcast, track });
        Ok(Use::Subscription)
    }

    /// Reads one SUBSCRIBE_UPDATE.
    pub(super) fn take_update<S: Streams>(
        &mut self,
        id: StreamId,
        buf: &mut BytesMut,
        cx: &mut Context<'_, S>,
    ) -> Step {
        // No version before lite-03 has any, yet some peers send one of their own (spec §3.4).
        if self.version < Version::Lite03 {
            buf.clear();
            return Step::Wait;
        }
        let update = match split_message(buf, CONTROL_MESSAGE_BYTES_MAX) {
            Ok(None) => return Step::Wait,
            Ok(Some((body, used))) => {
                Preferences::decode_update(self.version, body).map(|u| (u, used))
            }
            Err(fault) => Err(fault),
        };
        let Ok((wanted, used)) = update else {
            self.fail_subscription(id, StreamCode::CANCEL, cx);
            cx.effects.push(Effect::Left { key: id });
            return Step::Forget;
        };
        buf.advance(used);
        if let Some(served) = self.served.get_mut(&id) {
            (served.wanted, served.is_unplaced) = (wanted, true);
            // Of several at once the last one counts.
            let is_last =
                |last: &Effect| matches!(last, Effect::SubscriptionUpdated { key } if *key == id);
            if !cx.effects.last().is_some_and(is_last) {
                cx.effects.push(Effect::SubscriptionUpdated { key: id });
            }
        }
        Step::Again
    }

    /// The peer has had enough.
    pub(super) fn unsubscribe<S: Streams>(&mut self, id: StreamId, cx: &mut Context<'_, S>) {
        let Some(served) = self.served.remove(&id) else { return };
        self.count_unsubscription(&served.broadcast, cx.counts);
        self.close_groups(served, StreamCode::CANCEL, cx);
        self.finish(id, cx);
        cx.effects.push(Effect::Left { key: id });
    }

    /// Ends a subscription with a reason.
    pub fn fail_subscription<S: Streams>(
        &mut self,
        id: StreamId,
        code: StreamCode,
        cx: &mut Context<'_, S>,
    ) {
        let Some(served) = self.served.remove(&id) else { return };
        self.count_unsubscription(&served.broadcast, cx.counts);
        self.close_groups(served, code, cx);
        self.forget_input(id);
        self.refuse(id, code, cx);
    }

    /// Finds the place of a subscription that is new or has new bounds, as of now, if what it
    /// reaches back to is here. One that has its place keeps it. False if it has none then.
    pub fn place(&mut self, key: StreamId, content: &Content) -> bool {
        let version = self.version;
        let Some(served) = self.served.get_mut(&key) else { return true };
        if served.is_unplaced {
            served.place(version, content);
        }
        !served.is_unplaced
    }

    /// What a subscription wants of its track as that is numbered now.
    pub fn demand(&self, key: StreamId, content: &Content) -> Option<Demand> {
        self.served.get(&key)?.demand(self.version, content)
    }

    /// Sends whatever the track has for one subscription or fetch and its streams will take.
    pub fn serve<S: Streams>(
        &mut self,
        key: StreamId,
        content: &mut Content,
        cx: &mut Context<'_, S>,
    ) -> Service {
        if self.fetches_out.contains_key(&key) {
            return self.serve_fetch(key, content, cx);
        }
        let Some(mut served) = self.served.remove(&key) else { return Service::Over };
        self.open_groups -= served.open.len();
        let is_over = self.serve_groups(key, &mut served, content, cx);
        self.open_groups += served.open.len();
        self.thin_out(cx);
        if !is_over {
            self.served.insert(key, served);
            return Service::Continues;
        }
        self.count_unsubscription(&served.broadcast, cx.counts);
        if let Some(Outcome::Failed(code)) = content.outcome {
            self.forget_input(key);
            self.refuse(key, code, cx);
        } else {
            // The peer's own FIN may still follow.
            self.drain_input(key);
            self.finish(key, cx);
        }
        Service::Over
    }

    /// Tells where the track ends, once the peer has whatever comes before the last group: the released clients take
    /// a track for over when they know its end and have its last group, and read no group that comes later. False
    /// while that has to wait.
    fn tell_end<S: Streams>(
        &mut self,
        key: StreamId,
        served: &mut Served,
        is_full: bool,
        content: &Content,
        cx: &mut Context<'_, S>,
    ) -> bool {
        let (Some(end), None) = (content.end, served.end_sent) else { return true };
        if self.version < Version::Lite05 {
            return true;
        }
        let run = content.run();
        let group = (end + served.shift(run)).min(VARINT_MAX);
        let is_last = |open: &GroupOut| open.number + 1 >= group;
        if !content.is_whole() || is_full || !served.open.iter().all(is_last) {
            return false;
        }
        served.end_sent = Some(run);
        let mut response = Vec::new();
        SubscribeResponse::End { group }.encode(self.version, &mut response);
        self.send(Class::Subscribe, key, &response, false, cx);
        true
    }

    fn serve_groups<S: Streams>(
        &mut self,
        key: StreamId,
        served: &mut Served,
        content: &mut Content,
        cx: &mut Context<'_, S>,
    ) -> bool {
        let emits_range = self.version >= Version::Lite05;
        let mut responses = Vec::new();
        if served.is_unplaced {
            served.place(self.version, content);
        }
        let has_failed = content.has_failed();
        let (Some(cursor), Some(_)) = (&mut served.cursor, &content.info) else {
            return has_failed;
        };
        if !emits_range && !std::mem::replace(&mut served.is_accepted, true) {
            let priority = served.wanted.priority;
            let (max_age_ms, group_start, group_end) = (0, None, None);
            SubscribeResponse::Ok { priority, max_age_ms, group_start, group_end }
                .encode(self.version, &mut responses);
        }
        let room = OPEN_GROUPS_PER_PEER_MAX.saturating_sub(self.open_groups);
        let most = room.clamp(1, OPEN_GROUPS_MAX);
        // Who was told the end of an earlier run has had all that there is.
        let is_past = served.end_sent.is_some_and(|run| run != content.run());
        while served.open.len() < most
            && !is_past
            && let Some(pick) = cursor.pick(content)
        {
            if let Some(group) = cursor.start(content, pick.number)
                && emits_range
            {
                SubscribeResponse::Start { group }.encode(self.version, &mut responses);
            }
            served.open.push(GroupOut::new(pick, served.id, self.version));
            served.is_reordered = true;
        }
        let is_interrupted = cursor.take_interruption();
        let is_full = served.open.len() >= most;
        self.crowded |= is_full && most < OPEN_GROUPS_MAX;
        if !responses.is_empty() {
            self.send(Class::Subscribe, key, &responses, false, cx);
        }
        if std::mem::take(&mut served.is_reordered) {
            rank(served, content, cx);
        }
        // What has come whole is served first, however the track has ended.
        let has_ended = is_past || content.outcome.is_some();
        let mut open = std::mem::take(&mut served.open);
        let mut stuck = 0;
        let looked_at = served.next_stuck..served.next_stuck + STUCK_GROUPS_PER_GO;
        // Most urgent first, so that a window that has opened a little serves those.
        open.retain_mut(|group| {
            if group.is_stuck(served.is_starved) {
                let is_next = looked_at.contains(&stuck);
                stuck += 1;
                if !is_next && !has_ended && !content.has_evicted(group.flow.arrival) {
                    return true;
                }
            }
            cx.visits += 1;
            let progress = self.advance(key, group, served.wanted.max_age_ms, content, cx);
            matches!(progress, Progress::Open)
        });
        served.next_stuck = if looked_at.end < stuck { looked_at.end } else { 0 };
        served.open = open;
        if served.asked.is_some() && served.open.iter().any(|group| group.stream.is_some()) {
            let spans = [served.asked.take(), self.joins_since.take()];
            let [first_group, join] = spans.map(|since| since.map(|since| cx.now - since));
            first_group.into_iter().for_each(|span| cx.counts.first_group.record_span(span));
            join.into_iter().for_each(|span| cx.counts.join.record_span(span));
        }
        if has_failed {
            // Of what cannot even begin there is nothing to complete.
            served.open.retain(|group| group.stream.is_some());
        }
        let knows_end = self.tell_end(key, served, is_full, content, cx);
        if !served.is_starved && served.open.iter().any(|group| group.stream.is_none()) {
            served.is_starved = true;
            self.queue_starved(key);
        }
        served.is_waiting = has_ended || !knows_end || served.open.len() >= most;
        if is_interrupted || (is_full && served.open.len() < most) {
            // There is more to look at, or room for those that waited.
            cx.effects.push(Effect::Unblocked { key });
            return false;
        }
        let is_parked = |cursor: &Cursor| !has_failed && cursor.is_parked(content);
        has_ended && served.open.is_empty() && !served.cursor.as_ref().is_some_and(is_parked)
    }

    /// Moves one group as far as it goes.
    fn advance<S: Streams>(
        &mut self,
        key: StreamId,
        group: &mut GroupOut,
        max_age_ms: u64,
        content: &mut Content,
        cx: &mut Context<'_, S>,
    ) -> Progress {
        let (run, sequence) = (group.run, group.sequence);
        let is_old = |content: &Content| content.expired(run, sequence, max_age_ms);
        if let Some(since) = group.finished {
            // Only a stream that is stuck is given up for its age (spec §4.10); one whose
            // acknowledgement is merely under way is not.
            if cx.now > since + 2 * cx.streams.rtt() + ACK_DELAY && is_old(content) {
                self.close_group(group, StreamCode::OLD, cx);
                return Progress::Closed;
            }
            return Progress::Open;
        }
        let available = match group.flow.available(content) {
            Ok(available) => available,
            Err(code) => {
                if code == StreamCode::OLD {
                    note_stale(group, content, cx.counts);
                }
                self.close_group(group, code, cx);
                return Progress::Closed;
            }
        };
        if group.stream.is_none() {
            self.open_group(key, group, cx);
        }
        let flow = match group.stream {
            Some(stream) => group.flow.send(stream, available, content, cx),
            None => Flow::Blocked,
        };
        match (flow, group.stream) {
            (Flow::Blocked, _) if is_old(content) => {
                note_stale(group, content, cx.counts);
                self.close_group(group, StreamCode::OLD, cx);
                Progress::Closed
            }
            (Flow::Failed(code), _) => {
                self.close_group(group, code, cx);
                Progress::Closed
            }
            (Flow::Whole, Some(stream)) => {
                cx.streams.finish(stream);
                group.finished = Some(cx.now);
                Progress::Open
            }
            _ => Progress::Open,
        }
    }

    /// Opens a group's stream, if the peer grants one.
    fn open_group<S: Streams>(
        &mut self,
        key: StreamId,
        group: &mut GroupOut,
        cx: &mut Context<'_, S>,
    ) {
        let Some(stream) = cx.streams.open_uni() else { return };
        cx.streams.set_priority(stream, group.priority);
        group.stream = Some(stream);
        self.outputs.insert(stream, key);
        cx.counts.sent.groups += 1;
    }

    fn queue_starved(&mut self, key: StreamId) {
        // Some of those that wait may have ended since.
        if self.starved.len() > 2 * self.served.len() {
            self.starved.retain(|key| self.served.contains_key(key));
        }
        self.starved.push_back(key);
    }

    /// Gives the streams that the peer now grants to the subscriptions that wait for some, in turn.
    /// Nothing is done for those that get none.
    pub(super) fn open_starved<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        while let Some(key) = self.starved.pop_front() {
            let Some(mut served) = self.served.remove(&key) else { continue };
            // Most urgent first.
            let waiting = served.open.iter_mut().find(|group| group.stream.is_none());
            let is_granted = waiting.map(|group| {
                self.open_group(key, group, cx);
                group.stream.is_some()
            });
            served.is_starved = is_granted.is_some();
            self.served.insert(key, served);
            match is_granted {
                Some(true) => {
                    self.starved.push_back(key);
                    cx.effects.push(Effect::Unblocked { key });
                }
                Some(false) => return self.starved.push_front(key),
                None => {}
            }
        }
    }

    fn close_groups<S: Streams>(
        &mut self,
        served: Served,
        code: StreamCode,
        cx: &mut Context<'_, S>,
    ) {
        self.open_groups -= served.open.len();
        for group in served.open {
            self.close_group(&group, code, cx);
        }
        self.thin_out(cx);
    }

    /// Lets subscriptions go on that waited for others, once there is room.
    pub(super) fn thin_out<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        if self.crowded && self.open_groups < OPEN_GROUPS_PER_PEER_MAX {
            self.crowded = false;
            cx.effects.extend(self.served.keys().map(|key| Effect::Unblocked { key: *key }));
        }
    }

    fn close_group<S: Streams>(
        &mut self,
        group: &GroupOut,
        code: StreamCode,
        cx: &mut Context<'_, S>,
    ) {
        if group.finished.is_none() {
            cx.counts.note_cut(code);
        }
        if let Some(stream) = group.stream {
            self.outputs.remove(&stream);
            cx.streams.reset(stream, code);
        }
    }

    fn count_subscription(&mut self, broadcast: &Path, counts: &mut Counts) {
        counts.sent.subscriptions_opened += 1;
        let subscriptions = self.watched.entry(broadcast.clone()).or_default();
        *subscriptions += 1;
        if *subscriptions == 1 {
            counts.sent.viewers_opened += 1;
        }
    }

    fn count_unsubscription(&mut self, broadcast: &Path, counts: &mut Counts) {
        counts.sent.subscriptions_closed += 1;
        let Some(subscriptions) = self.watched.get_mut(broadcast) else { return };
        *subscriptions -= 1;
        if *subscriptions == 0 {
            self.watched.remove(broadcast);
            counts.sent.viewers_closed += 1;
        }
    }

    /// The session is over, and with it all that it had open.
    pub fn count_end(&self, counts: &mut Counts) {
        counts.sessions_closed += 1;
        counts.sent.subscriptions_closed += self.served.len() as u64;
        counts.sent.viewers_closed += self.watched.len() as u64;
        counts.sent.announces_ended += self.told() as u64;
        counts.received.subscriptions_closed += self.subscriptions as u64;
        counts.received.announces_ended += self.announcements as u64;
    }

    /// The window has opened: any of a subscription's groups may use it, not only the one that the
    /// transport names.
    pub(super) fn unblock(&mut self, key: StreamId) {
        let Some(served) = self.served.get_mut(&key) else { return };
        for group in &mut served.open {
            group.flow.is_blocked = false;
        }
    }

    /// Puts subscriptions and fetches that the transport takes more of in the order in which they are to
    /// use it: by priority (spec §4.11), and those of equal priority in turn.
    pub fn order_unblocked<T>(&mut self, items: &mut [T], key: impl Fn(&T) -> StreamId) {
        let priority = |item: &T| {
            let key = key(item);
            let live = self.served.get(&key).map(|served| (served.wanted.priority, true));
            live.or_else(|| self.fetch_priority(key).map(|priority| (priority, false)))
        };
        items.sort_by_key(|item| Reverse(priority(item)));
        for equals in items.chunk_by_mut(|a, b| priority(a) == priority(b)) {
            equals.rotate_left(self.turn % equals.len());
        }
        self.turn = self.turn.wrapping_add(1);
    }

    /// True if that lets the subscription go on.
    pub(super) fn group_closed(&mut self, key: StreamId, stream: StreamId) -> bool {
        let Some(served) = self.served.get_mut(&key) else { return false };
        let before = served.open.len();
        served.open.retain(|group| group.stream != Some(stream));
        self.open_groups -= before - served.open.len();
        served.is_waiting
    }
}

impl GroupOut {
    fn new(pick: Pick, subscribe_id: u64, version: Version) -> GroupOut {
        let Pick { arrival, sequence, number, run, frame_start, frame_end } = pick;
        let mut head = Vec::with_capacity(16);
        encode_varint(UniType::Group as u64, &mut head);
        GroupHeader { subscribe_id, sequence: number, frame_start }.encode(version, &mut head);
        let form = Form::of(version);
        let flow = Outflow::new(form, arrival, frame_start, frame_end, head.into());
        GroupOut { sequence, run, number, flow, stream: None, finished: None, priority: 0 }
    }

    /// Nothing can be done for it but to give it up, until the peer acknowledges, or takes more.
    fn is_stuck(&self, is_starved: bool) -> bool {
        let waits_for_stream = self.stream.is_none() && is_starved;
        waits_for_stream || self.flow.is_blocked || self.finished.is_some()
    }
}

/// A group is too old for its viewer, and what is left of it is not sent.
fn note_stale(group: &GroupOut, content: &Content, counts: &mut Counts) {
    let (frames, bytes) = group.flow.unsent(content);
    counts.sent.stale_groups += 1;
    counts.sent.stale_frames += frames;
    counts.sent.stale_bytes += bytes;
}

/// Orders the groups of a subscription and tells the transport. Tracks go by their priority (spec
/// §4.11); subscriptions of equal priority take turns.
fn rank<S: Streams>(served: &mut Served, content: &Content, cx: &mut Context<'_, S>) {
    // Most often there is one, which has no order.
    let mut order = Order::InSequence;
    if served.open.len() > 1 {
        let bytes = served.open.iter().map(|group| group.flow.bytes(content)).sum();
        order = Order::of(bytes, cx.streams.window(), cx.streams.rtt());
    }
    match order {
        Order::InSequence => served.open.sort_unstable_by_key(|group| group.number),
        Order::NewestFirst => served.open.sort_unstable_by_key(|group| Reverse(group.number)),
    }
    for (others, group) in served.open.iter_mut().enumerate() {
        let below_first = order.rank(others);
        let priority = i32::from(served.wanted.priority) * RANKS + RANKS - 1 - below_first;
        if priority != group.priority {
            group.priority = priority;
            if let Some(stream) = group.stream {
                cx.streams.set_priority(stream, priority);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::GROUPS_LOOKED_AT_MAX;
    use crate::session::fake::Play;
    use crate::track::Feed;
    use crate::track::group::{FrameMark, GroupEnd, Marks, Opening, Piece};
    use crate::wire::{BidiType, Path, TrackInfo, decode_varint};

    const KEY: StreamId = StreamId(0);
    const PRIORITY: u8 = 9;

    /// A subscription to a track, and what the transport is told of it.
    struct Stage {
        play: Play,
        content: Content,
    }

    impl Stage {
        /// On a link that takes a window of 12,000 bytes in each round trip of 100 ms.
        fn new() -> Stage {
            let mut play = Play::new();
            (play.link.window, play.link.rtt) = (12_000, Duration::from_millis(100));
            play.link.granted = 1000;
            play.opens(KEY.0, &subscribe(7, wanted(PRIORITY)));
            let mut stage = Stage { play, content: Content::new(true) };
            let info = TrackInfo { priority: 0, max_age_ms: 60_000, timescale: 1000 };
            stage.tell(Feed::Info(info));
            stage.tell(Feed::Start(0));
            stage
        }

        fn tell(&mut self, feed: Feed) {
            self.content.apply(feed, self.play.now);
        }

        /// A whole group of one frame.
        fn group(&mut self, sequence: u64, size: u16) {
            let head = [0x40, 0, 0x80, 0, (size >> 8) as u8, size as u8];
            let bytes = [&head[..], &vec![0; size.into()]].concat().into();
            let mark = FrameMark { start: 0, delta_len: 2, timestamp: sequence };
            let marks = Marks::from_slice(&[mark]);
            let (opens, ends) = (Some(Opening::at(0)), Some(GroupEnd::Finished));
            self.tell(Feed::Piece(Piece { sequence, opens, bytes, marks, ends }));
        }

        fn join(&mut self) {
            self.play.session.place(KEY, &self.content);
        }

        /// A viewer that has had group 0 and is given these at once.
        fn burst(sequences: [u64; 3], size: u16) -> Stage {
            let mut stage = Stage::new();
            stage.join();
            stage.group(0, 10);
            stage.serve();
            stage.acknowledge(0);
            sequences.into_iter().for_each(|sequence| stage.group(sequence, size));
            stage.serve();
            stage
        }

        fn serve(&mut self) {
            self.serve_one(KEY);
        }

        fn serve_one(&mut self, key: StreamId) -> Vec<Effect> {
            let Stage { play, content } = self;
            play.with(|session, cx| {
                assert_eq!(session.serve(key, content, cx), Service::Continues);
            })
        }

        /// The peer has acknowledged all of a group.
        fn acknowledge(&mut self, sequence: u64) {
            let (stream, ..) = *self.ranked().iter().find(|(_, of, _)| *of == sequence).unwrap();
            self.play.link.told.remove(&stream);
            self.play.with(|session, cx| session.finished(stream, cx));
        }

        /// Group streams in the order in which they were opened, each with its group's sequence and
        /// its rank.
        fn ranked(&self) -> Vec<(StreamId, u64, i32)> {
            let told = self.play.link.told.iter().filter(|(stream, _)| stream.is_uni());
            let ranked = told.map(|(stream, bytes)| {
                // Type, length, subscribe id, sequence.
                let (sequence, _) = decode_varint(&bytes[3..]).unwrap();
                let best = i32::from(PRIORITY + 1) * RANKS - 1;
                (*stream, sequence, best - self.play.link.priorities[stream])
            });
            ranked.collect()
        }

        fn ranks(&self) -> Vec<(u64, i32)> {
            self.ranked().into_iter().map(|(_, sequence, rank)| (sequence, rank)).collect()
        }
    }

    fn subscribe(id: u64, preferences: Preferences) -> Vec<u8> {
        let mut request = vec![BidiType::Subscribe as u8];
        let (broadcast, track) = (Path::parse("cam").unwrap(), "video".to_owned());
        Subscribe { id, broadcast, track, preferences }.encode(Version::Lite04, &mut request);
        request
    }

    fn wanted(priority: u8) -> Preferences {
        Preferences {
            priority,
            max_age_ms: 60_000,
            group_start: Some(0),
            group_end: None,
            frame_start: 0,
            frame_end: None,
        }
    }

    #[test]
    fn a_window_that_has_opened_a_little_is_for_what_is_most_urgent() {
        let mut stage = Stage::new();
        // Beside that of priority 9: two of equal priority, and one above.
        for (stream, priority) in [(4, 200), (8, PRIORITY), (12, 3)] {
            stage.play.opens(stream, &subscribe(stream, wanted(priority)));
        }
        let mut orders = Vec::new();
        for _ in 0..4 {
            let mut keys = [12, 8, 4, 0].map(StreamId);
            stage.play.session.order_unblocked(&mut keys, |key| *key);
            orders.push(keys.map(|key| key.0));
        }
        assert_eq!(orders, [[4, 8, 0, 12], [4, 0, 8, 12], [4, 8, 0, 12], [4, 0, 8, 12]]);
    }

    #[test]
    fn a_burst_leaves_in_sequence_order_where_the_link_takes_it() {
        let stage = Stage::burst([3, 1, 2], 3500);
        assert_eq!(stage.ranks(), [(1, 0), (2, 0), (3, 0)]);
    }

    #[test]
    fn more_than_the_link_takes_leaves_newest_first() {
        let mut stage = Stage::burst([1, 3, 2], 5000);
        assert_eq!(stage.ranks(), [(3, 0), (2, 1), (1, 2)]);
        stage.group(4, 10);
        stage.serve();
        assert_eq!(stage.ranks(), [(3, 1), (2, 2), (1, 3), (4, 0)]);
        // The link has carried most of it.
        stage.acknowledge(1);
        stage.acknowledge(3);
        stage.group(5, 10);
        stage.serve();
        assert_eq!(stage.ranks(), [(2, 0), (4, 0), (5, 0)]);
    }

    #[test]
    fn streams_that_are_granted_one_by_one_go_round_and_each_serves_one_subscription() {
        let mut stage = Stage::new();
        let keys = [KEY, StreamId(4), StreamId(8)];
        for key in &keys[1..] {
            stage.play.opens(key.0, &subscribe(7 + key.0, wanted(PRIORITY)));
        }
        stage.play.link.granted = 0;
        (0..3).for_each(|sequence| stage.group(sequence, 10));
        for key in keys {
            stage.play.session.place(key, &stage.content);
            stage.serve_one(key);
        }
        let mut unblocked = Vec::new();
        for _ in 0..10 {
            stage.play.link.granted += 1;
            let effects = stage.play.with(|session, cx| session.available(true, cx));
            unblocked.push(effects.len());
            for effect in effects {
                let Effect::Unblocked { key } = effect else { panic!("{effect:?}") };
                stage.serve_one(key);
            }
        }
        assert_eq!(unblocked, [1, 1, 1, 1, 1, 1, 1, 1, 1, 0]);
        let told = stage.play.link.told.iter().filter(|(stream, _)| stream.is_uni());
        // Type, length, subscribe id, sequence.
        let order: Vec<_> = told.map(|(_, bytes)| (bytes[2], bytes[3])).collect();
        let rounds = (0..3).flat_map(|sequence| keys.map(|key| (7 + key.0 as u8, sequence)));
        assert_eq!(order, rounds.collect::<Vec<_>>());
    }

    #[test]
    fn who_finds_no_group_among_many_is_served_again() {
        let mut stage = Stage::new();
        let key = StreamId(4);
        let first = 500;
        let preferences = Preferences { group_start: Some(first), ..wanted(PRIORITY) };
        stage.play.opens(key.0, &subscribe(8, preferences));
        stage.play.session.place(key, &stage.content);
        (0..=first).for_each(|sequence| stage.group(sequence, 10));
        let mut goes = 1;
        while matches!(stage.serve_one(key)[..], [Effect::Unblocked { key: again }] if again == key)
        {
            goes += 1;
        }
        assert_eq!(goes, (first as usize + 1).div_ceil(GROUPS_LOOKED_AT_MAX));
        let streams = stage.play.link.told.keys().filter(|stream| stream.is_uni());
        assert_eq!(streams.count(), 1);
    }

    /// A viewer that takes no older groups than of a second, and does not read.
    fn stuck(groups: u64) -> Stage {
        let mut stage = Stage::new();
        stage.play.opens(4, &subscribe(8, Preferences { max_age_ms: 1000, ..wanted(PRIORITY) }));
        stage.play.session.place(STUCK, &stage.content);
        stage.play.link.is_blocked = true;
        (0..groups).for_each(|sequence| stage.group(sequence, 10));
        stage.serve_one(STUCK);
        assert!(stage.play.link.done.is_empty());
        stage
    }

    const STUCK: StreamId = StreamId(4);

    #[test]
    fn of_many_groups_that_are_stuck_a_few_are_given_up_in_each_go() {
        let mut stage = stuck(100);
        // The one before it is as old as this one says.
        stage.group(5000, 10);
        let old = format!("reset {}", StreamCode::OLD.0);
        let mut given_up = 0;
        for _ in 0..20 {
            stage.serve_one(STUCK);
            let so_far = stage.play.link.done.iter().filter(|done| **done == old).count();
            assert!(so_far <= given_up + STUCK_GROUPS_PER_GO);
            given_up = so_far;
        }
        assert_eq!(given_up, 99);
    }

    #[test]
    fn who_is_stuck_hears_at_once_that_a_group_was_let_go_of() {
        let mut stage = stuck(100);
        let arrivals: Vec<_> = stage.content.groups().map(|(arrival, _)| arrival).collect();
        for arrival in [arrivals[20], arrivals[80]] {
            stage.content.evict(arrival, true);
        }
        stage.serve_one(STUCK);
        assert_eq!(stage.play.link.done, vec![format!("reset {}", StreamCode::EVICTED.0); 2]);
    }

    #[test]
    fn an_update_moves_all_groups_of_a_subscription() {
        let mut stage = Stage::new();
        (0..2).for_each(|sequence| stage.group(sequence, 5000));
        stage.join();
        stage.serve();
        let mut update = Vec::new();
        wanted(PRIORITY + 1).encode_update(Version::Lite04, &mut update);
        stage.play.link.says = update;
        stage.play.with(|session, cx| session.readable(KEY, cx));
        stage.play.session.place(KEY, &stage.content);
        stage.serve();
        assert_eq!(stage.ranks(), [(0, -RANKS), (1, -RANKS)]);
    }
}
