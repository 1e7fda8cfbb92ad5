//! Serving subscriptions of the peer: which groups go out, on which streams, how urgently, and
//! how each of them ends (spec §4.7, §4.9 to §4.11).

use std::time::Instant;

use bytes::{Buf, BytesMut};

use super::outflow::{Flow, Outflow};
use super::streams::{StreamId, Streams};
use super::{Context, Effect, Session, Step, Use};
use crate::limits::{ACK_DELAY, OPEN_GROUPS_MAX, OPEN_GROUPS_PER_PEER_MAX};
use crate::track::content::{Content, Outcome, Run};
use crate::track::cursor::{Cursor, Pick};
use crate::track::demand::Demand;
use crate::track::group::Form;
use crate::wire::{
    CONTROL_MESSAGE_BYTES_MAX, GroupHeader, Preferences, StreamCode, Subscribe, SubscribeResponse,
    UniType, Version, encode_varint, split_message,
};

/// Ranks within one track priority; older groups share the last.
pub(super) const RANKS: i32 = 256;

/// One subscription of the peer.
#[derive(Debug)]
pub(super) struct Served {
    pub id: u64,
    wanted: Preferences,
    /// Where the peer is in the track, once this shard's copy of it can tell.
    cursor: Option<Cursor>,
    /// OK was sent (lite-04 and older).
    is_accepted: bool,
    open: Vec<GroupOut>,
    /// The run of the track whose end it was told.
    end_sent: Option<Run>,
    /// Another group may start, or the subscription end, when one of those open is done.
    is_waiting: bool,
    /// The priorities of its groups are to be worked out again.
    is_reordered: bool,
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
        let broadcast = self.absolute(&request.broadcast, &request.track)?;
        let wanted = request.preferences;
        self.served.insert(
            id,
            Served {
                id: request.id,
                wanted,
                cursor: None,
                is_accepted: false,
                open: Vec::new(),
                end_sent: None,
                is_waiting: false,
                is_reordered: false,
            },
        );
        let track = request.track.into();
        cx.effects.push(Effect::Subscribed { key: id, broadcast, track, wanted });
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
            served.wanted = wanted;
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
        self.close_groups(served, code, cx);
        self.forget_input(id);
        self.refuse(id, code, cx);
    }

    /// Finds a subscription's place in its track, as of now.
    pub fn join(&mut self, key: StreamId, content: &Content) {
        let Some(served) = self.served.get_mut(&key) else { return };
        if served.cursor.is_none() {
            served.cursor = Some(Cursor::join(content, self.version, served.wanted));
        }
    }

    /// What a subscription wants of its track as that is numbered now.
    pub fn demand(&self, key: StreamId, content: &Content) -> Option<Demand> {
        let served = self.served.get(&key)?;
        match &served.cursor {
            Some(cursor) => cursor.demand(content),
            None => Demand::of(&served.wanted),
        }
    }

    /// New bounds for a subscription that has its place.
    pub fn reposition(&mut self, key: StreamId, content: &Content) {
        let Some(served) = self.served.get_mut(&key) else { return };
        served.is_reordered = true;
        if let Some(cursor) = &mut served.cursor {
            cursor.update(content, served.wanted);
        }
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
        if let Some(Outcome::Failed(code)) = content.outcome {
            self.served.insert(key, served);
            self.fail_subscription(key, code, cx);
            return Service::Over;
        }
        self.open_groups -= served.open.len();
        let is_over = self.serve_groups(key, &mut served, content, cx);
        self.open_groups += served.open.len();
        self.thin_out(cx);
        if !is_over {
            self.served.insert(key, served);
            return Service::Continues;
        }
        // The peer's own FIN may still follow.
        self.drain_input(key);
        self.finish(key, cx);
        Service::Over
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
        let (Some(cursor), Some(_)) = (&mut served.cursor, &content.info) else { return false };
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
        let is_full = served.open.len() >= most;
        self.crowded |= is_full && most < OPEN_GROUPS_MAX;
        if emits_range
            && served.end_sent.is_none()
            && let Some(group) = content.end
        {
            served.end_sent = Some(content.run());
            let group = group + cursor.shift(content.run());
            SubscribeResponse::End { group }.encode(self.version, &mut responses);
        }
        if !responses.is_empty() {
            self.send(key, &responses, false, cx);
        }
        if std::mem::take(&mut served.is_reordered) {
            rank(served, cx);
        }
        // Most urgent first, so that a window that has opened a little serves those.
        let mut open = std::mem::take(&mut served.open);
        open.retain_mut(|group| {
            let progress = self.advance(key, group, served.wanted.max_age_ms, content, cx);
            matches!(progress, Progress::Open)
        });
        served.open = open;
        let has_ended = is_past || content.outcome == Some(Outcome::Ended);
        served.is_waiting = has_ended || served.open.len() >= most;
        if is_full && served.open.len() < most {
            // There is room for those that waited.
            cx.effects.push(Effect::Unblocked { key });
            return false;
        }
        let is_parked = |cursor: &Cursor| cursor.is_parked(content);
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
        let Some(stream) = cx.streams.open_uni() else {
            self.starved = true;
            return;
        };
        cx.streams.set_priority(stream, group.priority);
        group.stream = Some(stream);
        self.outputs.insert(stream, key);
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
            self.unblock_all(cx);
        }
    }

    pub(super) fn unblock_all<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        cx.effects.extend(self.served.keys().map(|key| Effect::Unblocked { key: *key }));
    }

    fn close_group<S: Streams>(
        &mut self,
        group: &GroupOut,
        code: StreamCode,
        cx: &mut Context<'_, S>,
    ) {
        if let Some(stream) = group.stream {
            self.outputs.remove(&stream);
            cx.streams.reset(stream, code);
        }
    }

    /// The window has opened: any of a subscription's groups may use it, not only the one that the
    /// transport names.
    pub(super) fn unblock(&mut self, key: StreamId) {
        let Some(served) = self.served.get_mut(&key) else { return };
        for group in &mut served.open {
            group.flow.is_blocked = false;
        }
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
}

/// Newest group first within a track, tracks by their priority (spec §4.11). Subscriptions of
/// equal priority take turns.
fn rank<S: Streams>(served: &mut Served, cx: &mut Context<'_, S>) {
    served.open.sort_unstable_by_key(|group| std::cmp::Reverse(group.number));
    for (rank, group) in served.open.iter_mut().enumerate() {
        let below_newest = (rank as i32).min(RANKS - 1);
        let priority = i32::from(served.wanted.priority) * RANKS + RANKS - 1 - below_newest;
        if priority != group.priority {
            group.priority = priority;
            if let Some(stream) = group.stream {
                cx.streams.set_priority(stream, priority);
            }
        }
    }
}
