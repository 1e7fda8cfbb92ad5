//! Answering the peer's fetches: bare frames of one group on the stream that asked (spec §4.13).

use std::sync::Arc;

use bytes::Bytes;

use super::order::RANKS;
use super::outflow::{Flow, Outflow};
use super::streams::{ReadEnd, StreamId, Streams};
use super::{Context, Effect, Service, Session, Use};
use crate::limits::FETCHES_PER_VIEWER;
use crate::track::content::Content;
use crate::track::fetch::{Ask, Asker};
use crate::track::group::Form;
use crate::wire::{Fetch, Path, StreamCode};

/// One fetch of the peer that waits for others.
#[derive(Debug)]
pub(super) struct FetchQueued {
    broadcast: Path,
    track: Arc<str>,
    ask: Ask,
    frame_end: Option<u64>,
}

/// One that is under way.
#[derive(Debug)]
pub(super) struct FetchOut {
    ask: Ask,
    frame_end: Option<u64>,
    /// None until the group is here.
    flow: Option<Outflow>,
}

impl Session {
    pub(super) fn fetch_requested<S: Streams>(
        &mut self,
        id: StreamId,
        request: Fetch,
        cx: &mut Context<'_, S>,
    ) -> Result<Use, StreamCode> {
        let broadcast = self.absolute(&request.broadcast, &request.track, cx)?;
        cx.counts.sent.fetches += 1;
        let Fetch { priority, group, frame_start, frame_end, .. } = request;
        let asker = Asker(u64::from(self.me.shard) << 32 | u64::from(self.me.slot));
        let ask = Ask { group, frame_start, priority, asker };
        let track = request.track.into();
        self.fetches_queued.insert(id, FetchQueued { broadcast, track, ask, frame_end });
        self.start_fetches(cx);
        Ok(Use::FetchRequest)
    }

    /// Goes on with those that wait, in the order in which their streams were opened, as far as there
    /// is room.
    fn start_fetches<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        while self.fetches_out.len() < FETCHES_PER_VIEWER
            && let Some((key, queued)) = self.fetches_queued.pop_first()
        {
            let FetchQueued { broadcast, track, ask, frame_end } = queued;
            self.fetches_out.insert(key, FetchOut { ask, frame_end, flow: None });
            cx.effects.push(Effect::FetchWanted { key, broadcast, track, ask });
        }
    }

    /// The peer has said its last word on a fetch stream. Before the answer it means that nobody
    /// waits for one any more; from then on it means nothing (spec §4.12).
    pub(super) fn fetch_request_ended<S: Streams>(
        &mut self,
        id: StreamId,
        end: ReadEnd,
        cx: &mut Context<'_, S>,
    ) {
        let is_answered = self.fetches_out.get(&id).is_some_and(|fetch| fetch.flow.is_some());
        if end != ReadEnd::Finished || !is_answered {
            self.drop_fetch(id, cx);
            self.refuse(id, StreamCode::CANCEL, cx);
        }
    }

    /// Nobody waits for the answer any more.
    pub(super) fn drop_fetch<S: Streams>(&mut self, id: StreamId, cx: &mut Context<'_, S>) {
        self.fetches_queued.remove(&id);
        if self.fetches_out.remove(&id).is_some() {
            cx.effects.push(Effect::Left { key: id });
            self.start_fetches(cx);
        }
    }

    /// The group that a fetch asked for is here.
    pub fn begin_fetch<S: Streams>(
        &mut self,
        key: StreamId,
        arrival: u64,
        cx: &mut Context<'_, S>,
    ) {
        let Some(fetch) = self.fetches_out.get_mut(&key) else { return };
        cx.counts.sent.groups += 1;
        let form = Form::of(self.version);
        let first = fetch.ask.frame_start;
        fetch.flow = Some(Outflow::new(form, arrival, first, fetch.frame_end, Bytes::new()));
        // Behind the live groups of equal priority.
        cx.streams.set_priority(key, i32::from(fetch.ask.priority) * RANKS);
    }

    /// A fetch has come to nothing.
    pub fn fail_fetch<S: Streams>(
        &mut self,
        key: StreamId,
        code: StreamCode,
        cx: &mut Context<'_, S>,
    ) {
        if self.fetches_out.remove(&key).is_some() {
            self.forget_input(key);
            self.refuse(key, code, cx);
            self.start_fetches(cx);
        }
    }

    /// Sends whatever there is of a fetched group and its stream will take.
    pub(super) fn serve_fetch<S: Streams>(
        &mut self,
        key: StreamId,
        content: &mut Content,
        cx: &mut Context<'_, S>,
    ) -> Service {
        let Some(fetch) = self.fetches_out.get_mut(&key) else { return Service::Over };
        let Some(flow) = &mut fetch.flow else { return Service::Continues };
        let flow = match flow.available(content) {
            Ok(available) => flow.send(key, available, content, cx),
            Err(code) => Flow::Failed(code),
        };
        match flow {
            Flow::Dry | Flow::Blocked => return Service::Continues,
            Flow::Whole => {
                self.fetches_out.remove(&key);
                self.drain_input(key);
                self.finish(key, cx);
                self.start_fetches(cx);
            }
            Flow::Failed(code) => self.fail_fetch(key, code, cx),
        }
        Service::Over
    }

    pub(super) fn fetch_priority(&self, key: StreamId) -> Option<u8> {
        self.fetches_out.get(&key).map(|fetch| fetch.ask.priority)
    }

    /// The window has opened for a fetch's stream. False if that is none.
    pub(super) fn unblock_fetch(&mut self, id: StreamId) -> bool {
        let Some(fetch) = self.fetches_out.get_mut(&id) else { return false };
        if let Some(flow) = &mut fetch.flow {
            flow.is_blocked = false;
        }
        true
    }
}
