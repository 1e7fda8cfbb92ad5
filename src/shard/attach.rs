//! Requests of peers and the tracks that they are about: who subscribes or asks, wants something else, and leaves.

use std::sync::Arc;
use std::time::Instant;

use super::Shard;
use super::names::TrackKey;
use super::tracks::{Purpose, Track, Who};
use crate::session::streams::StreamId;
use crate::track::content::Outcome;
use crate::wire::{Path, StreamCode};

impl Shard {
    /// Attaches a subscription, or a question where that is not its purpose, to its track.
    pub(super) fn attach(
        &mut self,
        now: Instant,
        conn: usize,
        key: StreamId,
        (broadcast, name): (Path, Arc<str>),
        purpose: Purpose,
    ) {
        let Some(slot) = self.copy_for(conn, key, broadcast, name, purpose) else {
            return self.refuse(now, conn, key, StreamCode::UNROUTABLE);
        };
        let track = &mut self.tracks.slab[slot];
        if purpose == Purpose::Feed
            && let Some(peer) = &mut self.peers[conn]
        {
            let is_placed = peer.session.place(key, &track.content);
            let demand = peer.session.demand(key, &track.content);
            track.readers.subscribe((conn, key), demand, is_placed);
        } else {
            track.readers.ask((conn, key));
        }
        let name = self.tracks.name(slot);
        self.steer(now, slot);
        if self.tracks.slot(name).is_some() {
            self.answer_questions(now, slot);
        }
        if purpose == Purpose::Feed && self.tracks.slot(name).is_some() {
            self.serve_soon(now, slot, conn, key);
        }
    }

    /// The copy of a track that a request of a peer is about; None without a route to it.
    pub(super) fn copy_for(
        &mut self,
        conn: usize,
        key: StreamId,
        broadcast: Path,
        name: Arc<str>,
        purpose: Purpose,
    ) -> Option<usize> {
        let peer = self.peers[conn].as_mut()?;
        let identity = peer.session.identity();
        let route = self.directory.resolve(&broadcast, identity)?.clone();
        let origin = route.origin;
        let avoid = self.directory.passes(&broadcast, origin, identity).then_some(identity);
        let track = Arc::new(TrackKey { broadcast, name, origin, avoid });
        if avoid.is_some() && !self.tracks.may_copy(&track) {
            return None;
        }
        let slot = self.tracks.get_or_make(&track, &route, &self.directory, purpose);
        peer.attached.insert(key, self.tracks.name(slot));
        Some(slot)
    }

    /// Answers those who asked what a track is like, as soon as that is known or hopeless.
    pub(super) fn answer_questions(&mut self, now: Instant, slot: usize) {
        let Some(track) = self.tracks.slab.get_mut(slot) else { return };
        let answer = match (&track.content.info, track.content.outcome) {
            (Some(info), _) => Ok(*info),
            (None, Some(Outcome::Failed(code))) => Err(code),
            (None, Some(Outcome::Ended)) => Err(StreamCode::NOT_FOUND),
            (None, None) => return,
        };
        let asked = track.readers.take_questions();
        if asked.is_empty() {
            return;
        }
        for (conn, key) in asked {
            self.detach(conn, key);
            self.with_session(now, conn, |session, cx| session.answer_info(key, answer, cx));
        }
        self.steer(now, slot);
    }

    /// A subscription has other bounds.
    pub(super) fn subscription_updated(&mut self, now: Instant, conn: usize, key: StreamId) {
        let Some(slot) = self.attached(conn, key) else { return };
        if let Some(peer) = &mut self.peers[conn] {
            let Track { content, readers, .. } = &mut self.tracks.slab[slot];
            let is_placed = peer.session.place(key, content);
            let demand = peer.session.demand(key, content);
            readers.subscribe((conn, key), demand, is_placed);
        }
        let name = self.tracks.name(slot);
        self.steer(now, slot);
        if self.tracks.slot(name).is_some() {
            self.serve_soon(now, slot, conn, key);
        }
    }

    /// A peer has given up whatever it wanted of a track.
    pub(super) fn leave(&mut self, now: Instant, slot: usize, conn: usize, key: StreamId) {
        let track = &mut self.tracks.slab[slot];
        track.readers.remove((conn, key));
        self.forget_fetcher(now, slot, Who::Peer { conn, key });
        self.steer(now, slot);
    }

    pub(super) fn refuse(&mut self, now: Instant, conn: usize, key: StreamId, code: StreamCode) {
        self.with_session(now, conn, |session, cx| {
            session.fail_subscription(key, code, cx);
            session.fail_fetch(key, code, cx);
            session.answer_info(key, Err(code), cx);
        });
    }

    pub(super) fn attached(&self, slot: usize, key: StreamId) -> Option<usize> {
        let track = *self.peers[slot].as_ref()?.attached.get(&key)?;
        self.tracks.slot(track)
    }

    pub(super) fn detach(&mut self, slot: usize, key: StreamId) {
        if let Some(peer) = &mut self.peers[slot] {
            peer.attached.remove(&key);
        }
    }
}
