//! What a play has viewers ask for, and what they have of it.

use std::time::Instant;

use quinn_proto::Dir;
use shardcast::limits::TAIL_WAIT_MAX;
use shardcast::wire::*;

use super::super::peer::{AGES, End, Fetched, Peer, Shown, Subscription, Want};
use super::runs::are_one_film;
use super::{EVERYWHERE, LOSS_NOTICED, World};

/// A subscription of a viewer.
#[derive(Clone, Copy, Debug)]
pub struct Sub {
    pub peer: usize,
    pub index: usize,
}

/// A FETCH of a viewer.
#[derive(Clone, Copy, Debug)]
pub struct Get {
    pub peer: usize,
    pub index: usize,
}

impl World {
    pub fn subscribe(&mut self, peer: usize, path: &str, track: &str, wanted: Preferences) -> Sub {
        Sub { peer, index: self.peers[peer].subscribe(path, track, wanted, self.now) }
    }

    pub fn sub(&self, sub: Sub) -> &Subscription {
        &self.peers[sub.peer].subscriptions[sub.index]
    }

    /// When a subscription had a frame, which is counted within its group.
    pub fn came(&self, sub: Sub, group: u64, frame: usize) -> Option<Instant> {
        self.sub(sub).groups.get(&group)?.came.get(frame).copied()
    }

    pub fn update(&mut self, sub: Sub, wanted: Preferences) {
        self.peers[sub.peer].update(sub.index, wanted);
    }

    pub fn leave(&mut self, sub: Sub) {
        self.peers[sub.peer].leave(sub.index, false);
    }

    pub fn fetch(&mut self, peer: usize, path: &str, track: &str, want: Want) -> Get {
        let now = self.now;
        Get { peer, index: self.peers[peer].fetch(path, track, want, now) }
    }

    pub fn fetched(&self, get: Get) -> &Fetched {
        &self.peers[get.peer].fetches[get.index]
    }

    /// The frames that have come, and how it ended.
    pub fn outcome(&self, get: Get) -> (usize, Option<End>) {
        let seen = &self.fetched(get).seen;
        (seen.frames.len(), seen.end)
    }

    pub fn leave_fetch(&mut self, get: Get) {
        self.peers[get.peer].leave_fetch(get.index);
    }

    /// Everybody knows of every subscription: whatever is opened from now on is owed to them.
    pub fn all_settled(&mut self) {
        for peer in 0..self.peers.len() {
            if !self.peers[peer].is_up() || !self.peers[peer].reads_groups {
                continue;
            }
            for index in 0..self.peers[peer].subscriptions.len() {
                let film = self.film_for(peer, index);
                let are_players = film.is_some_and(|film| self.is_of_player(film));
                let is_unshifted = !are_players && self.is_unshifted(peer, index);
                let known = &mut self.peers[peer].subscriptions[index];
                known.settled = film;
                if let Some(film) = film.filter(|_| is_unshifted) {
                    known.runs.entry(film).or_insert(Shown { shift: 0, first: u64::MAX, end: 0 });
                }
            }
        }
    }

    /// Whether the next run that a viewer is shown has its publisher's numbers: nothing was before, neither here
    /// nor, for a relay further away, on the way.
    fn is_unshifted(&self, peer: usize, index: usize) -> bool {
        let known = &self.peers[peer].subscriptions[index];
        let is_first = self.stage.relays == 1 && known.runs.is_empty();
        is_first || are_one_film(&self.sources(peer, &known.path, &known.track))
    }

    fn is_of_player(&self, film: u64) -> bool {
        let has_it = |peer: &&Peer| peer.sources.iter().any(|source| source.film == film);
        self.peers.iter().find(has_it).is_some_and(|peer| peer.spec.is_player)
    }

    /// The film that a subscription is fed, if that is sure.
    fn film_for(&self, peer: usize, index: usize) -> Option<u64> {
        let known = &self.peers[peer].subscriptions[index];
        let sources = self.sources(peer, &known.path, &known.track);
        // Of a loss that nobody has noticed yet, not everybody knows.
        let is_noticed = |at: Instant| self.now >= at + LOSS_NOTICED;
        let mut lost = sources.iter().filter_map(|(at, _)| self.peers[*at].lost_at);
        let is_sure = sources.len() == 1 || lost.all(is_noticed);
        if known.end.is_some() || known.has_left || !is_sure {
            return None;
        }
        if are_one_film(&sources) && !self.peers[sources.first()?.0].spec.is_player {
            return Some(sources.first()?.1.film);
        }
        let is_known = |at: Instant| self.now >= at + EVERYWHERE;
        let mut fed = sources.iter().filter(|(at, source)| {
            let mut its = self.peers[*at].sources.iter();
            let index = its.position(|other| other.film == source.film);
            index.is_some_and(|index| self.peers[*at].is_feeding(index))
        });
        let (_, source) = fed.next()?;
        let begun = source.subscribed_at?;
        let is_known = is_known(begun) && is_known(known.asked_at);
        // Something may wait of a run that has ended: a tail, or what is above the viewer's end.
        let is_past = self.now > begun + TAIL_WAIT_MAX + EVERYWHERE;
        let goes_on = is_past && known.wanted.group_end.is_none()
            || known.asked_at > begun + EVERYWHERE
            || known.runs.contains_key(&source.film);
        (fed.next().is_none() && is_known && goes_on).then_some(source.film)
    }

    /// The groups that a viewer has complete, in order of arrival.
    pub fn got(&self, sub: Sub) -> Vec<u64> {
        let known = self.sub(sub);
        let is_whole = |sequence: &&u64| known.groups[*sequence].end == Some(End::Finished);
        known.arrivals.iter().filter(is_whole).copied().collect()
    }

    pub fn got_sorted(&self, sub: Sub) -> Vec<u64> {
        let mut got = self.got(sub);
        got.sort_unstable();
        got
    }

    /// The datagrams that a viewer has, in order.
    pub fn heard(&self, sub: Sub) -> Vec<u64> {
        let mut heard: Vec<u64> = self.sub(sub).datagrams.iter().map(|(n, _)| *n).collect();
        heard.sort_unstable();
        heard
    }

    pub fn raw(&mut self, peer: usize, dir: Dir, bytes: &[u8], fin: bool) -> u64 {
        self.peers[peer].raw(dir, bytes, fin)
    }
}

/// Everything from where a viewer begins by itself.
pub fn live() -> Preferences {
    Preferences {
        priority: 128,
        max_age_ms: AGES,
        group_start: None,
        group_end: None,
        frame_start: 0,
        frame_end: None,
    }
}

pub fn range(first: impl Into<Option<u64>>, last: impl Into<Option<u64>>) -> Preferences {
    Preferences { group_start: first.into(), group_end: last.into(), ..live() }
}

/// A whole group.
pub fn whole(group: u64) -> Want {
    Want { group, priority: 128, frame_start: 0, frame_end: None }
}

/// A group from a frame on.
pub fn from_frame(group: u64, frame_start: u64) -> Want {
    Want { frame_start, ..whole(group) }
}
