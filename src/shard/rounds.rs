//! Readers are served: those of a track that has changed in a round, and those whose transport takes more.

use std::time::Instant;

use super::Shard;
use super::tracks::{At, Change, Round, Who};
use crate::limits::{READERS_PER_TURN, SERVE_VISITS_PER_TURN};
use crate::session::Service;
use crate::session::streams::StreamId;
use crate::track::Datagram;

impl Shard {
    /// Serves the readers of tracks that have changed, as many as one turn may.
    pub(super) fn serve_tracks(&mut self, now: Instant) {
        for slot in std::mem::take(&mut self.tracks.changed) {
            self.begin_round(now, slot);
        }
        let mut left = READERS_PER_TURN;
        while left > 0
            && let Some(mut round) = self.tracks.rounds.pop_front()
        {
            left -= self.serve_round(now, &mut round, left);
            let Some(slot) = self.tracks.slot(round.track) else { continue };
            if round.who.is_empty() {
                self.tracks.slab[slot].is_in_round = false;
            } else if left > 0 {
                // Its readers take long: others have their turn first.
                self.tracks.rounds.push_back(round);
                break;
            } else {
                self.tracks.rounds.push_front(round);
            }
        }
    }

    /// Finds out who is to be served what has changed about a track.
    fn begin_round(&mut self, now: Instant, slot: usize) {
        let Some(track) = self.tracks.slab.get_mut(slot) else { return };
        if track.is_in_round && track.changed < Some(Change::Evicted) {
            return self.tracks.changed.push(slot);
        }
        let Some(change) = track.changed.take() else { return };
        let grown = std::mem::take(&mut track.grown);
        let is_served = |at: At| match at {
            At::Reading { arrival, .. } => change >= Change::All || grown.contains(&arrival),
            At::Newest | At::Waiting(_) => false,
        };
        self.visits.fetchers += track.fetchers.len() as u32;
        let fetchers = track.fetchers.iter().filter(|fetcher| is_served(fetcher.at));
        let fetchers = fetchers.filter_map(|fetcher| match fetcher.who {
            Who::Peer { conn, key } => Some((conn, key)),
            Who::Mirror { .. } | Who::Guest(_) => None,
        });
        let who = match change {
            Change::Fetched => fetchers.collect(),
            Change::Live | Change::All | Change::Evicted => {
                track.readers.subscribers().chain(fetchers).collect()
            }
        };
        let datagrams = track.content.take_datagrams();
        let fresh = track.fresh.take();
        let mut round = Round { track: self.tracks.name(slot), who, datagrams, fresh };
        if change >= Change::All {
            self.report_lost_groups(now, slot);
        }
        if change == Change::Evicted {
            self.serve_round(now, &mut round, usize::MAX);
        } else {
            self.tracks.slab[slot].is_in_round = true;
            self.tracks.rounds.push_back(round);
        }
    }

    /// Serves up to `most` readers of a round, and says how many that were.
    fn serve_round(&mut self, now: Instant, round: &mut Round, most: usize) -> usize {
        let Some(slot) = self.tracks.slot(round.track) else { return 0 };
        let count = round.who.len().min(most);
        let who = round.who.drain(..count);
        // Some may have left since, or have been moved to another copy.
        let mut who: Vec<_> =
            who.filter(|(conn, key)| self.attached(*conn, *key) == Some(slot)).collect();
        let datagrams = round.datagrams.make_contiguous();
        // Nobody subscribes any more to a track that has ended, once all is served.
        let has_ended = self.tracks.slab[slot].content.outcome.is_some();
        // Those who must see it now, or have had their datagrams, are served in any case.
        let is_due = most == usize::MAX || (has_ended && !datagrams.is_empty());
        let visits = if is_due { u32::MAX } else { SERVE_VISITS_PER_TURN };
        if has_ended {
            self.send_datagrams(now, slot, &who, datagrams);
        }
        self.fresh = round.fresh;
        let served = self.serve_some(now, slot, &who, visits);
        self.fresh = None;
        let unserved = who.split_off(served);
        if !has_ended {
            self.send_datagrams(now, slot, &who, datagrams);
        }
        let count = count - unserved.len();
        unserved.into_iter().rev().for_each(|one| round.who.push_front(one));
        count
    }

    /// Passes datagrams on, after the groups: a burst of those must not hold these up.
    fn send_datagrams(
        &mut self,
        now: Instant,
        slot: usize,
        who: &[(usize, StreamId)],
        datagrams: &[Datagram],
    ) {
        if datagrams.is_empty() {
            return;
        }
        let Some(track) = self.tracks.slab.get(slot) else { return };
        let run = track.content.run();
        for &(conn, key) in who {
            self.visits.readers += 1;
            self.with_session(now, conn, |session, cx| {
                session.send_datagrams(key, run, datagrams, cx);
            });
        }
    }

    /// Serves those whose transport takes more than before, each once however often it said so:
    /// connections in turn, and what is most urgent of each of them first.
    pub(super) fn serve_unblocked(&mut self, now: Instant) {
        let mut unblocked = std::mem::take(&mut self.unblocked);
        unblocked.sort_unstable();
        unblocked.dedup();
        if unblocked.len() > 1 {
            let next = unblocked.partition_point(|(conn, ..)| *conn <= self.last_unblocked);
            unblocked.rotate_left(next);
            for of_one in unblocked.chunk_by_mut(|a, b| a.0 == b.0).filter(|of| of.len() > 1) {
                if let Some(peer) = self.peers.get_mut(of_one[0].0).and_then(Option::as_mut) {
                    peer.session.order_unblocked(of_one, |(_, _, key)| *key);
                }
            }
        }
        let before = self.visits.messages;
        for (at, &(conn, generation, key)) in unblocked.iter().enumerate() {
            if self.visits.messages - before > SERVE_VISITS_PER_TURN {
                self.unblocked.extend(&unblocked[at..]);
                break;
            }
            self.last_unblocked = conn;
            if self.generation(conn) == Some(generation)
                && let Some(slot) = self.attached(conn, key)
            {
                self.serve(now, slot, &[(conn, key)]);
            }
        }
    }

    /// Serves one who has come or wants something else: now, or in his turn if others have kept the shard
    /// busy.
    pub(super) fn serve_soon(&mut self, now: Instant, slot: usize, conn: usize, key: StreamId) {
        match self.generation(conn) {
            Some(generation) if self.visits.messages > SERVE_VISITS_PER_TURN => {
                self.unblocked.push((conn, generation, key));
            }
            _ => self.serve(now, slot, &[(conn, key)]),
        }
    }

    /// Serves some subscriptions and fetches of a track.
    pub(super) fn serve(&mut self, now: Instant, slot: usize, who: &[(usize, StreamId)]) {
        self.serve_some(now, slot, who, u32::MAX);
    }

    /// Serves as many of them as it takes to look at so many of their groups, and says how many.
    fn serve_some(
        &mut self,
        now: Instant,
        slot: usize,
        who: &[(usize, StreamId)],
        visits: u32,
    ) -> usize {
        if who.is_empty() {
            return 0;
        }
        let until = self.visits.messages.saturating_add(visits);
        let mut served = 0;
        let name = self.tracks.name(slot);
        // Serving has no effect on tracks, so nobody misses the content meanwhile.
        let mut content = std::mem::take(&mut self.tracks.slab[slot].content);
        let before = content.held_bytes();
        let mut over = Vec::new();
        for (at, &(conn, key)) in who.iter().enumerate() {
            if let Some((next, _)) = who.get(at + 1) {
                self.prefetch(*next);
            }
            let mut service = Service::Continues;
            self.with_session(now, conn, |session, cx| {
                service = session.serve(key, &mut content, cx);
            });
            if service == Service::Over {
                over.push((conn, key));
            }
            served = at + 1;
            if self.visits.messages > until {
                break;
            }
        }
        self.tracks.cache.held = self.tracks.cache.held + content.held_bytes() - before;
        let looked_at = content.take_looked_at();
        self.counters.groups_looked_at_total += looked_at;
        self.visits.groups += looked_at as u32;
        self.visits.readers += served as u32;
        self.tracks.slab[slot].content = content;
        for (conn, key) in over {
            self.detach(conn, key);
            if let Some(slot) = self.tracks.slot(name) {
                self.leave(now, slot, conn, key);
            }
        }
        served
    }
}
