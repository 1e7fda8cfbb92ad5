//! Fetching single groups from the peer, each on its own stream and as many at once as the peer
//! grants streams (spec §4.13, §5.4). Which to fetch is decided at the track's home.

use bytes::BytesMut;

use super::counts::Class;
use super::fetch_turns::Waits;
use super::streams::{ReadEnd, StreamId, Streams};
use super::{Context, Effect, Session, Stream, Use};
use crate::limits::{ANSWER_TIMEOUT, CONTROL_BACKLOG_BYTES_MAX};
use crate::track::fetch::{Ask, Asker, FetchId};
use crate::track::group::{GroupEnd, Opening, Piece};
use crate::track::scan::FrameScanner;
use crate::track::{Fetched, PullRef};
use crate::wire::{BidiType, Fetch, StreamCode, Version, encode_varint};

/// One fetch of a track that is pulled through this session.
#[derive(Debug)]
pub(super) struct PullFetch {
    ask: Ask,
    /// Its place among all of the session.
    waits: Waits,
    /// None before it is asked for.
    stream: Option<StreamId>,
}

/// The answer, being read.
#[derive(Debug)]
pub(super) struct FetchIn {
    pull: usize,
    id: FetchId,
    sequence: u64,
    /// The first frame that comes; None when that has been passed on.
    opens: Option<Opening>,
    scanner: FrameScanner,
}

impl Session {
    pub(super) fn fetch<S: Streams>(
        &mut self,
        pull: PullRef,
        id: FetchId,
        ask: Ask,
        cx: &mut Context<'_, S>,
    ) {
        let Some(&key) = self.pull_keys.get(&pull) else { return };
        if self.is_leaving {
            let news = Fetched::Failed(StreamCode::GOING_AWAY);
            return cx.effects.push(Effect::FetchFed { pull, fetch: id, news });
        }
        let waits = self.fetch_turns.enter(ask.asker, (key, id), cx.now + ANSWER_TIMEOUT);
        self.pulls[key].fetches.insert(id, PullFetch { ask, waits, stream: None });
        self.open_fetches(cx);
    }

    /// Somebody else waits for a group too.
    pub(super) fn join_fetch<S: Streams>(
        &mut self,
        pull: PullRef,
        id: FetchId,
        asker: Asker,
        cx: &mut Context<'_, S>,
    ) {
        let Some(&key) = self.pull_keys.get(&pull) else { return };
        let Some(fetch) = self.pulls[key].fetches.get_mut(&id) else { return };
        let answer_by = cx.now + ANSWER_TIMEOUT;
        fetch.waits = self.fetch_turns.enter_again(fetch.waits, asker, answer_by);
        self.open_fetches(cx);
    }

    /// Asks for groups whose turn it is, as far as the peer grants streams.
    pub(super) fn open_fetches<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        let is_live = self.subscriptions > 0;
        while let Some((key, id)) = self.fetch_turns.next() {
            let pull = &mut self.pulls[key];
            let bytes = pull.group_bytes;
            // What viewers ask for must not cost a publisher its session: it waits its turn.
            if !self.fetch_turns.has_room(cx.now, is_live, bytes)
                || self.unsent_bytes > CONTROL_BACKLOG_BYTES_MAX / 2
            {
                return;
            }
            let Some(stream) = cx.streams.open_bidi() else { return };
            self.fetch_turns.asked(cx.now, bytes);
            cx.counts.received.fetches += 1;
            let Some(fetch) = pull.fetches.get_mut(&id) else { continue };
            fetch.stream = Some(stream);
            // What is past is not more urgent than what is live. Not every publisher heeds that.
            let most = pull.live_priority.unwrap_or(u8::MAX);
            let ask = Ask { priority: fetch.ask.priority.min(most), ..fetch.ask };
            // Older publishers have no way to begin in mid-group.
            let names_frames = self.version >= Version::Lite06;
            let frame_start = if names_frames { ask.frame_start } else { 0 };
            // Always to the end of the group: the copy is to serve everybody (spec §4.13).
            let request = Fetch {
                broadcast: pull.broadcast.clone(),
                track: pull.track.to_string(),
                priority: ask.priority,
                group: ask.group,
                frame_start,
                frame_end: None,
            };
            let scanner = FrameScanner::new(true, pull.scale);
            let mut bytes = Vec::new();
            encode_varint(BidiType::Fetch as u64, &mut bytes);
            request.encode(self.version, &mut bytes);
            let opens = Some(Opening::at(frame_start));
            let reply = FetchIn { pull: key, id, sequence: ask.group, opens, scanner };
            let purpose = Use::FetchReply(Box::new(reply));
            self.inputs.insert(stream, Stream { purpose, buf: BytesMut::new() });
            cx.streams.expect_groups();
            self.send(Class::Fetch, stream, &bytes, false, cx);
        }
    }

    /// Gives up requests that have not been sent to a peer that leaves.
    pub(super) fn refuse_unsent_fetches<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        while let Some((key, id)) = self.fetch_turns.next() {
            self.fail_pull_fetch(key, id, StreamCode::GOING_AWAY, cx);
        }
    }

    /// Nobody waits for that group any more.
    pub(super) fn abandon_fetch<S: Streams>(
        &mut self,
        pull: PullRef,
        id: FetchId,
        cx: &mut Context<'_, S>,
    ) {
        if let Some(&key) = self.pull_keys.get(&pull) {
            self.close_fetch(key, id, cx);
            self.open_pulls(cx);
        }
    }

    fn close_fetch<S: Streams>(&mut self, key: usize, id: FetchId, cx: &mut Context<'_, S>) {
        let Some(fetch) = self.pulls[key].fetches.remove(&id) else { return };
        let Some(stream) = fetch.stream else { return self.fetch_turns.withdraw(fetch.waits) };
        self.fetch_turns.over(fetch.waits, (key, id));
        self.forget_input(stream);
        self.refuse(stream, StreamCode::CANCEL, cx);
    }

    pub(super) fn close_fetches<S: Streams>(&mut self, key: usize, cx: &mut Context<'_, S>) {
        while let Some((&id, _)) = self.pulls[key].fetches.first_key_value() {
            self.close_fetch(key, id, cx);
        }
    }

    /// Gives up fetches that the publisher has not begun to answer, and asks for others for which there
    /// is room now.
    pub(super) fn fetch_timeouts<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        if self.fetch_turns.deadline().is_none_or(|deadline| deadline > cx.now) {
            return;
        }
        while let Some((key, id)) = self.fetch_turns.due(cx.now) {
            self.fail_pull_fetch(key, id, StreamCode::CONTROL_TIMEOUT, cx);
        }
        self.open_fetches(cx);
    }

    fn fail_pull_fetch<S: Streams>(
        &mut self,
        key: usize,
        id: FetchId,
        code: StreamCode,
        cx: &mut Context<'_, S>,
    ) {
        let pull = self.pulls[key].name;
        self.close_fetch(key, id, cx);
        cx.effects.push(Effect::FetchFed { pull, fetch: id, news: Fetched::Failed(code) });
    }

    /// Reads what has arrived of an answer and passes it on.
    pub(super) fn read_fetch<S: Streams>(
        &mut self,
        id: StreamId,
        mut fetch: Box<FetchIn>,
        cx: &mut Context<'_, S>,
    ) {
        let read = self.read_frames(id, &mut fetch.scanner, &[], ReadEnd::More, cx);
        let key = fetch.pull;
        let name = self.pulls[key].name;
        self.pulls[key].note_group_bytes(fetch.scanner.bytes(), read.ends);
        let is_begun = fetch.opens.is_none();
        cx.counts.received.groups += u64::from(!is_begun && !read.bytes.is_empty());
        let news = match read.ends {
            Some(GroupEnd::Aborted(code)) if !is_begun => Some(Fetched::Failed(code)),
            None if read.bytes.is_empty() => None,
            ends => {
                let (bytes, marks) = (read.bytes, read.marks);
                let (sequence, opens) = (fetch.sequence, fetch.opens.take());
                Some(Fetched::Pieces(vec![Piece { sequence, opens, bytes, marks, ends }]))
            }
        };
        if let Some(news) = news {
            if let Some(asked) = self.pulls[key].fetches.get(&fetch.id) {
                self.fetch_turns.came(asked.waits, (key, fetch.id), cx.now);
            }
            cx.effects.push(Effect::FetchFed { pull: name, fetch: fetch.id, news });
        }
        if read.ends.is_none() {
            if read.has_more {
                cx.effects.push(Effect::Unread { stream: id });
            }
            let purpose = Use::FetchReply(fetch);
            self.inputs.insert(id, Stream { purpose, buf: BytesMut::new() });
            return;
        }
        if let Some(asked) = self.pulls[key].fetches.remove(&fetch.id) {
            self.fetch_turns.over(asked.waits, (key, fetch.id));
        }
        match read.ends {
            Some(GroupEnd::Finished) => self.finish(id, cx),
            _ => self.reset(id, StreamCode::CANCEL, cx),
        }
        self.open_pulls(cx);
    }
}
