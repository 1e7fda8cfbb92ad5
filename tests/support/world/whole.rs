//! Nobody lacks what must have come, once everything has calmed down or a subscription has ended cleanly.

use std::time::Instant;

use shardcast::limits::MISSING_GRACE_MAX;
use shardcast::wire::*;

use super::super::peer::{End, Seen, Source, Subscription, covers};
use super::{EVERYWHERE, LOSS_NOTICED, World};

impl World {
    /// A subscription that ended cleanly, or one at the end of a play, has all that it was owed.
    pub(super) fn judge_whole(&self, peer: usize, index: usize) -> usize {
        let viewer = &self.peers[peer];
        let known = &viewer.subscriptions[index];
        let sources = self.sources(peer, &known.path, &known.track);
        let who = format!(
            "at {:?}: {} subscription {index} of {} {}",
            self.since_start(),
            viewer.name,
            known.path,
            known.track
        );
        let Some(&(_, source)) = sources.first() else { return 0 };
        if !self.are_one_broadcast(&sources) {
            return 0;
        }
        let versions = sources.iter().map(|(publisher, _)| self.peers[*publisher].version);
        let oldest = versions.min().expect("there is one at least");
        if known.end == Some(End::Finished) {
            let is_told = viewer.version.min(oldest) >= Version::Lite05;
            let is_end = |(_, source): &(usize, &Source)| {
                let Some(end) = source.end else { return false };
                let before = known.runs.values().map(|shown| shown.end).max().unwrap_or(0);
                !is_told
                    || match known.runs.get(&source.film) {
                        Some(shown) => known.track_end == Some(end + shown.shift),
                        None => known.track_end >= Some(end + before),
                    }
            };
            let (end, runs) = (known.track_end, &known.runs);
            assert!(sources.iter().any(is_end), "{who} ended at {end:?} of {runs:?}");
        }
        // Without a gap in what the relay asked for, START is where it begins and all else follows.
        let is_plain = known.updates == 0 && !source.bounds_moved && sources.len() == 1;
        let is_told = oldest >= Version::Lite05;
        if let (Some(start), Some((first, _))) = (known.start, known.groups.first_key_value()) {
            let who = &who;
            let is_strict = is_plain && is_told && viewer.version == Version::Lite05;
            assert!(start <= *first || !is_strict, "{who}: START {start} above {first}");
        }
        // Nothing stays open that is over, unless its publisher is gone and nobody knows it yet.
        let mut lost = sources.iter().filter_map(|(publisher, _)| self.peers[*publisher].lost_at);
        let is_sure = lost.all(|at| self.now >= at + LOSS_NOTICED);
        let of_film = |film: u64| sources.iter().find(|(_, source)| source.film == film);
        // What another publisher was to go on with, and cannot, is given up in time.
        let has_another = sources.iter().any(|(at, _)| *at != sources[0].0);
        let is_quiet = sources.iter().all(|source| self.is_quiet(source));
        let is_over = |number: u64| {
            let Some((film, its)) = known.origin(number) else { return false };
            // It goes on with another run.
            if known.runs.values().any(|shown| shown.shift > number) {
                return true;
            }
            let Some((at, source)) = of_film(film) else { return false };
            let is_alone = self.peers[*at].spec.is_player;
            let end = source.groups.get(&its).and_then(|group| group.end);
            let is_brought = match end {
                Some(End::Reset(_)) => !has_another,
                _ => !source.is_old(its, known.wanted.max_age_ms) && !is_alone,
            };
            let is_lost = is_alone && !self.peers[*at].is_up();
            let is_over = if is_lost { is_quiet } else { is_quiet || is_brought || !has_another };
            is_over && (end.is_some() || is_lost)
        };
        let is_open = |(number, seen): &(&u64, &Seen)| seen.end.is_none() && is_over(**number);
        let open = known.groups.iter().find(is_open).filter(|_| viewer.reads_groups && is_sure);
        let open = open.map(|(sequence, _)| sequence);
        assert!(open.is_none(), "{who}: group {open:?} is still open");
        // Lite-04 and older cannot say how long they keep a group; the relay assumes seconds.
        let is_brief = oldest <= Version::Lite04;
        let is_lossy = self.groups_expire || self.groups_are_evicted;
        if is_lossy || !viewer.reads_groups || (is_brief && viewer.is_slow()) {
            return 0;
        }
        // A group that stays open keeps its stream; one who grants few may have none left.
        let is_open = |seen: &&Seen| seen.end.is_none();
        let groups = viewer.subscriptions.iter().flat_map(|known| known.groups.values());
        if groups.filter(is_open).count() >= viewer.spec.uni_streams as usize {
            return 0;
        }
        let lowest = known.start.or(known.groups.keys().next().copied());
        let mut due = known.owed.clone();
        if is_plain && !is_brief {
            let from_start = |sequence: &u64| {
                lowest.is_some_and(|lowest| *sequence >= lowest) && covers(&known.wanted, *sequence)
            };
            let groups = source.groups.keys().copied().filter(from_start);
            due.extend(groups.map(|sequence| (source.film, sequence)));
        }
        let mut confirmed = 0;
        for (film, sequence) in due {
            let Some(group) = of_film(film).and_then(|(_, s)| s.groups.get(&sequence)) else {
                continue;
            };
            let number = known.runs.get(&film).map(|shown| sequence + shown.shift);
            // Where a feed without START begins is what arrives first; so it is where another publisher goes on for
            // one from which nothing has come.
            let is_before = match (lowest, number) {
                (Some(lowest), Some(number)) => number < lowest && (!is_told || has_another),
                _ => !is_told,
            };
            if is_before {
                continue;
            }
            let seen = number.and_then(|number| known.groups.get(&number));
            if is_brief && seen.is_some_and(|seen| seen.end == Some(End::Reset(StreamCode::OLD.0)))
            {
                continue;
            }
            confirmed += 1;
            match group.end {
                Some(End::Finished) => assert!(
                    seen.is_some_and(|seen| seen.end == Some(End::Finished)),
                    "{who} lacks group {sequence} of {film:x} as {number:?}: {:?}, START {:?}, has {:?} of {:?}",
                    seen.map(|seen| (seen.frames.len(), seen.end)),
                    known.start,
                    known.arrivals,
                    known.runs,
                ),
                // What was reset need not arrive at all.
                Some(End::Reset(_)) => {}
                None => {
                    let count = seen.map(|seen| seen.frames.len() + seen.frame_start as usize);
                    assert!(
                        count == Some(group.frames.len()) || known.wanted.frame_end.is_some(),
                        "{who} has {count:?} frames of open group {sequence}, not {}",
                        group.frames.len()
                    );
                }
            }
        }
        confirmed
    }

    /// Nothing has happened to a publisher for so long that who goes on instead has brought what it
    /// can, and the rest is given up.
    fn is_quiet(&self, (at, source): &(usize, &Source)) -> bool {
        let peer = &self.peers[*at];
        let noticed = peer.lost_at.map(|at| at + LOSS_NOTICED);
        let told = peer.up_at.into_iter().chain(peer.left_at).chain(source.broken.iter().copied());
        let last = told.map(|at| at + EVERYWHERE).chain(noticed).max();
        last.is_none_or(|last| self.now >= last + MISSING_GRACE_MAX + EVERYWHERE)
    }

    /// Everything has calmed down: every viewer that is still there must have all it is owed,
    /// and those whose publisher is gone must know it.
    pub fn judge_all(&mut self) {
        for peer in 0..self.peers.len() {
            if !self.peers[peer].is_up() || self.peers[peer].spec.is_rude {
                continue;
            }
            for index in 0..self.peers[peer].subscriptions.len() {
                let known = &self.peers[peer].subscriptions[index];
                if known.has_left || matches!(known.end, Some(End::Reset(_))) {
                    continue;
                }
                match self.gone(peer, &known.path, &known.track) {
                    Some(at) => assert!(
                        known.end.is_some()
                            || self.now < at + LOSS_NOTICED
                            || self.is_parked(peer, known)
                            // The end comes after what it has not taken.
                            || !self.peers[peer].reads_groups,
                        "{} subscription {index} has not heard that its publisher is gone",
                        self.peers[peer].name
                    ),
                    None => {
                        self.groups_confirmed += self.judge_whole(peer, index);
                        self.judge_datagrams_whole(peer, index);
                    }
                }
            }
            for index in 0..self.peers[peer].fetches.len() {
                self.judge_fetch_over(peer, index);
            }
        }
    }

    /// Whether a track has ended, and a viewer may still ask for some of it, wherever its publisher is.
    fn is_parked(&self, peer: usize, known: &Subscription) -> bool {
        let sources = self.sources(peer, &known.path, &known.track);
        let mut ends = sources.iter().filter_map(|(_, source)| {
            let shift = known.runs.get(&source.film).map_or(0, |shown| shown.shift);
            Some(source.end? + shift)
        });
        known.wanted.group_end.is_some_and(|last| ends.any(|end| end > last + 1))
    }

    /// No datagram is missing that nothing could lose.
    fn judge_datagrams_whole(&mut self, peer: usize, index: usize) {
        let viewer = &mut self.peers[peer];
        let known = &mut viewer.subscriptions[index];
        let owed = std::mem::take(&mut known.owed_datagrams);
        self.datagrams_confirmed += owed.len();
        let has_come =
            |wanted: &u64| known.datagrams.iter().any(|(sequence, _)| sequence == wanted);
        let missing: Vec<u64> = owed.into_iter().filter(|wanted| !has_come(wanted)).collect();
        assert!(
            missing.is_empty(),
            "{} subscription {index} of {} lacks datagrams {missing:?}",
            viewer.name,
            known.path
        );
    }

    /// When the last publisher of a broadcast was lost, if it is one and nobody has it now.
    pub(super) fn gone(&self, peer: usize, path: &str, track: &str) -> Option<Instant> {
        let sources = self.sources(peer, path, track);
        let is_one = self.are_one_broadcast(&sources);
        let lost = sources.iter().map(|(at, _)| self.peers[*at].lost_at.filter(|_| is_one));
        lost.collect::<Option<Vec<Instant>>>()?.into_iter().max()
    }
}
