//! Which run of a broadcast a viewer was shown, under which numbers, and whether it could be that one.

use std::time::Instant;

use super::super::peer::{Peer, Shown, Source, Subscription, covers};
use super::{EVERYWHERE, World};

impl World {
    /// A viewer sees each run under numbers that go on from the one before, and who comes when a run
    /// is known sees that under its own numbers, and nothing that was before.
    pub(super) fn note_shown(
        &mut self,
        (peer, index): (usize, usize),
        film: u64,
        number: u64,
        its: u64,
    ) -> Result<(), String> {
        let shown_at = *self.shown_at.entry(film).or_insert(self.now);
        let known = &self.peers[peer].subscriptions[index];
        let shift = number - its;
        let mut shown = Shown { shift, first: number, end: number + 1 };
        match known.runs.get(&film) {
            Some(before) if before.shift == shift => {
                (shown.first, shown.end) =
                    (shown.first.min(before.first), shown.end.max(before.end));
            }
            // From before it was shown under higher numbers.
            Some(before) if before.shift > shift => return Ok(()),
            _ => {}
        }
        for (other, before) in known.runs.iter().filter(|(other, _)| **other != film) {
            let (lower, upper) =
                if before.first < number { (before, &shown) } else { (&shown, before) };
            // Where the publisher of the one has gone on with the numbers of the other, both count alike.
            let is_sound = lower.shift == upper.shift || lower.end <= upper.shift;
            if lower.shift > upper.shift || lower.end > upper.first || !is_sound {
                return Err(format!("run {film:x} is {shown:?}, and {other:x} {before:?}"));
            }
        }
        if !known.runs.contains_key(&film) {
            let sources = self.sources(peer, &known.path, &known.track);
            let of = |film: u64| sources.iter().find(|(_, source)| source.film == film);
            let &(at, source) = of(film).ok_or("nobody publishes this")?;
            if self.is_past(peer, &sources, (at, source), known.asked_at) {
                return Err("is of a run that is past".to_owned());
            }
            if shift > 0 && self.tells_runs(peer, at) && known.asked_at > shown_at + EVERYWHERE {
                return Err(format!("is shown {shift} higher to a newcomer"));
            }
            let used = |source: &Source| source.end.max(source.order.iter().max().map(|n| n + 1));
            let others = sources.iter().filter(|(_, other)| other.film != film);
            let used: u64 = others.filter_map(|(_, other)| used(other)).sum();
            // Relays further away may each have it anew when they go another way.
            if shift > used && self.tells_runs(peer, at) {
                return Err(format!("is shown {shift} higher, and {used} numbers were used"));
            }
            for (other, shown) in &known.runs {
                let is_later =
                    of(*other).is_some_and(|(_, o)| o.subscribed_at > source.subscribed_at);
                if is_later != (shown.first > number) {
                    return Err(format!("runs {film:x} and {other:x} are in the wrong order"));
                }
            }
        }
        let known = &mut self.peers[peer].subscriptions[index];
        if known.runs.insert(film, shown).is_some_and(|before| before.shift != shift) {
            // Which of its groups came under which numbers is not kept.
            known.owed.retain(|(owed, _)| *owed != film);
        }
        Ok(())
    }

    /// Runs of players that viewers have seen beside the first of each track; and how often one went on
    /// with another run in mid-subscription.
    pub fn runs_shown(&self) -> (usize, usize) {
        let players = self.peers.iter().filter(|peer| peer.spec.is_player);
        let is_later = |peer: &Peer, at: usize| {
            let Source { path, track, .. } = &peer.sources[at];
            peer.sources[..at].iter().any(|before| before.path == *path && before.track == *track)
        };
        let is_shown = |peer: &Peer, at: usize| self.shown_at.contains_key(&peer.sources[at].film);
        let runs = players.map(|peer| {
            let sources = 0..peer.sources.len();
            sources.filter(|at| is_later(peer, *at) && is_shown(peer, *at)).count()
        });
        let known = self.peers.iter().flat_map(|peer| &peer.subscriptions);
        let went_on = known.flat_map(|known| known.runs.values()).filter(|shown| shown.shift > 0);
        (runs.sum(), went_on.count())
    }

    /// Whether a viewer's relay knows one run of a publisher from the next. To one further away it may all be one.
    pub(super) fn tells_runs(&self, peer: usize, publisher: usize) -> bool {
        self.peers[peer].spec.relay == self.peers[publisher].spec.relay
    }

    /// Whether everybody at a viewer's relay knew by then that the publisher has begun another run.
    pub(super) fn is_past(
        &self,
        peer: usize,
        sources: &[(usize, &Source)],
        (at, source): (usize, &Source),
        then: Instant,
    ) -> bool {
        let is_known = |film| self.shown_at.get(film).is_some_and(|at| then > *at + EVERYWHERE);
        let is_next = |(its, other): &&(usize, &Source)| {
            // What no subscription has ever been to is nobody's run yet.
            let was_begun = source.subscribed_at.is_some() || *its == at;
            was_begun && other.film != source.film && other.subscribed_at > source.subscribed_at
        };
        let mut next = sources.iter().filter(is_next);
        let may_be = self.tells_runs(peer, at) && self.are_one_broadcast(sources);
        may_be && next.any(|(_, other)| is_known(&other.film))
    }

    /// Whether whoever publishes this has it from the same origin.
    pub(super) fn are_one_broadcast(&self, sources: &[(usize, &Source)]) -> bool {
        let Some(&(first, source)) = sources.first() else { return false };
        let origin = self.peers[first].origin(&source.path);
        let is_same = |(at, other): &(usize, &Source)| {
            let is_named = origin.is_some() && self.peers[*at].origin(&other.path) == origin;
            let is_believed = self.stage.trusts_all
                || self.peers[*at].address.ip() == self.peers[first].address.ip();
            *at == first || is_believed && (other.film == source.film || is_named)
        };
        sources.iter().all(is_same)
    }
}

impl Subscription {
    /// Whether it asks for a group of a film, as far as that can be told.
    pub(super) fn covers(&self, film: u64, sequence: u64) -> bool {
        match self.runs.get(&film) {
            Some(shown) => covers(&self.wanted, sequence + shown.shift),
            None => self.wanted.group_start.is_none() && self.wanted.group_end.is_none(),
        }
    }

    /// The film that a number is of, and the number there.
    pub(super) fn origin(&self, number: u64) -> Option<(u64, u64)> {
        let holds = |shown: &Shown| (shown.first..shown.end).contains(&number);
        let (film, shown) = self.runs.iter().find(|(_, shown)| holds(shown))?;
        Some((*film, number - shown.shift))
    }
}

/// Whether all of these have the same frames.
pub(super) fn are_one_film(sources: &[(usize, &Source)]) -> bool {
    sources.windows(2).all(|pair| pair[0].1.film == pair[1].1.film)
}
