//! Fetching single groups from the peer, each on its own stream and as many at once as the peer
//! grants streams (spec §4.13, §5.4). Which to fetch is decided at the track's home.

use std::time::Instant;

use bytes::BytesMut;

use super::streams::{ReadEnd, StreamId, Streams};
use super::{Context, Effect, Session, Stream, Use};
use crate::limits::ANSWER_TIMEOUT;
use crate::track::fetch::{Ask, FetchId};
use crate::track::group::{GroupEnd, Opening, Piece};
use crate::track::scan::FrameScanner;
use crate::track::{Fetched, PullRef};
use crate::wire::{BidiType, Fetch, StreamCode, Version, encode_varint};

/// One fetch of a track that is pulled through this session.
#[derive(Debug)]
pub(super) struct PullFetch {
    id: FetchId,
    ask: Ask,
    /// None while the peer grants no stream.
    stream: Option<StreamId>,
    /// When the publisher must have begun to answer.
    pub answer_by: Option<Instant>,
}

impl PullFetch {
    pub fn is_unsent(&self) -> bool {
        self.stream.is_none()
    }
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
        let answer_by = Some(cx.now + ANSWER_TIMEOUT);
        self.pulls[key].fetches.push(PullFetch { id, ask, stream: None, answer_by });
        self.note_deadline(key);
        self.open_pull(key, cx);
    }

    /// Sends the requests of one pull that wait for a stream, as far as the peer grants any.
    pub(super) fn open_fetches<S: Streams>(&mut self, key: usize, cx: &mut Context<'_, S>) {
        let unsent = |fetch: &PullFetch| fetch.is_unsent();
        while let Some(at) = self.pulls[key].fetches.iter().position(unsent) {
            let Some(stream) = cx.streams.open_bidi() else { return };
            let pull = &mut self.pulls[key];
            let PullFetch { id, ask, .. } = pull.fetches[at];
            pull.fetches[at].stream = Some(stream);
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
            self.send(stream, &bytes, false, cx);
        }
    }

    /// Gives up requests that have not been sent to a peer that leaves.
    pub(super) fn refuse_unsent_fetches<S: Streams>(
        &mut self,
        key: usize,
        cx: &mut Context<'_, S>,
    ) {
        let pull = self.pulls[key].name;
        let unsent = self.pulls[key].fetches.extract_if(.., |fetch| fetch.is_unsent());
        cx.effects.extend(unsent.map(|fetch| {
            let news = Fetched::Failed(StreamCode::GOING_AWAY);
            Effect::FetchFed { pull, fetch: fetch.id, news }
        }));
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
        let fetches = &mut self.pulls[key].fetches;
        let Some(at) = fetches.iter().position(|fetch| fetch.id == id) else { return };
        let fetch = fetches.swap_remove(at);
        if let Some(stream) = fetch.stream {
            self.forget_input(stream);
            self.refuse(stream, StreamCode::CANCEL, cx);
        }
    }

    pub(super) fn close_fetches<S: Streams>(&mut self, key: usize, cx: &mut Context<'_, S>) {
        while let Some(id) = self.pulls[key].fetches.last().map(|fetch| fetch.id) {
            self.close_fetch(key, id, cx);
        }
    }

    /// Gives up fetches that the publisher has not begun to answer.
    pub(super) fn time_out_fetches<S: Streams>(&mut self, key: usize, cx: &mut Context<'_, S>) {
        let Some(pull) = self.pulls.get(key) else { return };
        let name = pull.name;
        let is_due = |fetch: &&PullFetch| fetch.answer_by.is_some_and(|by| by <= cx.now);
        let due: Vec<FetchId> = pull.fetches.iter().filter(is_due).map(|fetch| fetch.id).collect();
        for id in due {
            self.close_fetch(key, id, cx);
            let news = Fetched::Failed(StreamCode::CONTROL_TIMEOUT);
            cx.effects.push(Effect::FetchFed { pull: name, fetch: id, news });
        }
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
        let is_begun = fetch.opens.is_none();
        let news = match read.ends {
            Some(GroupEnd::Aborted(code)) if !is_begun => Some(Fetched::Failed(code)),
            None if read.bytes.is_empty() => None,
            ends => {
                let (bytes, marks) = (read.bytes, read.marks);
                let (sequence, opens) = (fetch.sequence, fetch.opens.take());
                Some(Fetched::Pieces(vec![Piece { sequence, opens, bytes, marks, ends }]))
            }
        };
        let fetches = &mut self.pulls[key].fetches;
        let at = fetches.iter().position(|other| other.id == fetch.id);
        if let Some(news) = news {
            if let Some(at) = at {
                fetches[at].answer_by = None;
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
        if let Some(at) = at {
            fetches.swap_remove(at);
        }
        match read.ends {
            Some(GroupEnd::Finished) => self.finish(id, cx),
            _ => self.reset(id, StreamCode::CANCEL, cx),
        }
        self.open_pulls(cx);
    }
}
