//! A connection that fetches past groups.

use std::collections::VecDeque;

use bytes::Bytes;
use quinn_proto::{Dir, StreamId};
use shardcast::wire::{BidiType, Fetch, StreamCode, encode_varint};

use crate::frames::{Item, Reader};
use crate::quic::{Link, ReadEnd};
use crate::shared::Shared;

#[derive(Default)]
pub struct Fetcher {
    /// Fetches that the relay grants no stream for so far.
    waiting: VecDeque<Wanted>,
}

/// One group to be fetched.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub intended: u64,
    pub track: usize,
    pub group: u64,
}

/// A reply that is not read to its end.
pub struct Reply {
    wanted: Wanted,
    reader: Reader,
    frames: u64,
}

impl Fetcher {
    /// Asks for a group, or as soon as there is a stream for it.
    pub fn fetch(
        &mut self,
        link: &mut Link,
        wanted: Wanted,
        shared: &mut Shared,
    ) -> Option<(StreamId, Reply)> {
        shared.measure.asked(wanted.intended);
        self.waiting.push_back(wanted);
        self.fetch_waiting(link, shared)
    }

    /// Asks for the one that waits longest, if there is a stream for it.
    pub fn fetch_waiting(&mut self, link: &mut Link, shared: &Shared) -> Option<(StreamId, Reply)> {
        let wanted = *self.waiting.front()?;
        let stream = link.open(Dir::Bi)?;
        self.waiting.pop_front();
        let broadcast = shared.plan.broadcast_of(wanted.track) as usize;
        let fetch = Fetch {
            broadcast: shared.plan.paths[broadcast].clone(),
            track: shared.plan.track_name(wanted.track),
            priority: 0,
            group: wanted.group,
            frame_start: 0,
            frame_end: None,
        };
        let mut out = Vec::new();
        encode_varint(BidiType::Fetch as u64, &mut out);
        fetch.encode(shared.version, &mut out);
        // Our side stays open until the reply is there: its end would mean that we gave up.
        link.send(stream, &mut [Bytes::from(out)], false);
        let reader = Reader::of_reply(shared.version);
        Some((stream, Reply { wanted, reader, frames: 0 }))
    }
}

impl Reply {
    /// Reads frames; false if the reply is over.
    pub fn read(
        &mut self,
        link: &mut Link,
        stream: StreamId,
        shared: &mut Shared,
        now: u64,
    ) -> bool {
        let mut is_sound = true;
        let end = link.read(stream, |bytes| {
            let read = self.reader.push(bytes, &mut |item| {
                self.frames += u64::from(matches!(item, Item::Frame(Some(_))));
            });
            is_sound &= read.is_ok();
        });
        if end == ReadEnd::Pending && is_sound {
            return true;
        }
        link.send(stream, &mut [], true);
        let Wanted { intended, track, .. } = self.wanted;
        let frames = u64::from(shared.plan.track(track).frames_per_group);
        let is_whole = is_sound && self.reader.is_at_boundary() && self.frames == frames;
        match end {
            ReadEnd::Finished if is_whole => shared.measure.fetched(intended, now),
            ReadEnd::Reset(code) => shared
                .measure
                .error(now, || format!("a fetch was reset: {}", StreamCode::from_raw_quic(code))),
            ReadEnd::Finished | ReadEnd::Pending => {
                link.stop(stream, StreamCode::CANCEL.0);
                shared.measure.error(now, || "a fetch brought a broken group".to_owned());
            }
        }
        false
    }
}
