//! What a FETCH brought is compared with what was published, and none goes without an answer.

use std::time::Instant;

use shardcast::limits::{ANSWER_TIMEOUT, MISSING_GRACE_MAX};
use shardcast::wire::*;

use super::super::peer::{End, Fetched, Source};
use super::{EVERYWHERE, LOSS_NOTICED, World, ms};

impl World {
    pub(super) fn judge_fetch(&self, peer: usize, index: usize) -> Result<(), String> {
        let known = &self.peers[peer].fetches[index];
        let sources = self.sources(peer, &known.path, &known.track);
        let is_refused = self.some_are_refused
            && known.seen.frames.is_empty()
            && known.seen.end == Some(End::Reset(StreamCode::SESSION_CLOSED.0));
        if is_refused || sources.is_empty() && matches!(known.seen.end, Some(End::Reset(_))) {
            return Ok(());
        }
        let present =
            |&&source: &&(usize, &Source)| !self.is_past(peer, &sources, source, known.asked_at);
        let compare =
            |&(at, source): &(usize, &Source)| self.compare_fetched(peer, known, at, source);
        one_holds(sources.iter().filter(present).map(compare))
    }

    fn compare_fetched(
        &self,
        peer: usize,
        known: &Fetched,
        publisher: usize,
        source: &Source,
    ) -> Result<(), String> {
        let (viewer, publisher) = (&self.peers[peer], &self.peers[publisher]);
        let Fetched { want, seen, .. } = known;
        let Some(group) = source.groups.get(&want.group) else {
            return match seen.end {
                None if seen.frames.is_empty() => Ok(()),
                Some(End::Reset(_)) if seen.frames.is_empty() => Ok(()),
                _ => Err("no such group was published".to_owned()),
            };
        };
        seen.compare(group, viewer.version.min(publisher.version) >= Version::Lite05)?;
        let count = seen.frame_start as usize + seen.frames.len();
        let cap = want.frame_end.map_or(usize::MAX, |last| last as usize + 1);
        if count > cap {
            return Err(format!("{count} frames of {cap} wanted"));
        }
        let whole = group.frames.len();
        match seen.end {
            None => Ok(()),
            Some(End::Finished) if count != whole.min(cap) => {
                Err(format!("FIN after {count} frames of {}", whole.min(cap)))
            }
            Some(End::Finished) if group.end != Some(End::Finished) && whole < cap => {
                Err(format!("FIN, but the publisher says {:?}", group.end))
            }
            Some(End::Finished) => Ok(()),
            Some(End::Reset(code)) => {
                let is_theirs = [group.end, source.refuses.map(End::Reset)].contains(&seen.end)
                    || source.refuses_fetch == Some(code)
                    || source.failed.contains(&(want.group, code));
                let is_lost = !publisher.is_up() || !source.broken.is_empty() || known.has_left;
                let is_beyond = known.want.frame_start as usize >= whole
                    && group.end.is_some()
                    && code == StreamCode::TOO_FAR_BEHIND.0;
                let is_mute =
                    source.never_answers.is_some() && code == StreamCode::CONTROL_TIMEOUT.0;
                // It cannot be asked, so what the relay lacks, or has had for too long, is not there.
                let is_brief = publisher.version <= Version::Lite04
                    && [StreamCode::NOT_FOUND.0, StreamCode::OLD.0].contains(&code);
                let is_away = publisher.is_leaving() && code == StreamCode::GOING_AWAY.0;
                // A feed that cannot be paused ends with its last viewer, and what it was bringing.
                let is_cut = publisher.version <= Version::Lite02 && code == StreamCode::CANCEL.0;
                // Not every shard knew of it.
                let is_early = code == StreamCode::UNROUTABLE.0
                    && publisher.up_at.is_none_or(|at| known.asked_at < at + ms(3000));
                let is_excused = is_theirs || is_lost || is_beyond || is_mute || is_brief;
                if is_excused || is_away || is_cut || is_early || self.evicts(code) {
                    return Ok(());
                }
                Err(format!("reset {code:#x}, but the publisher says {:?}", group.end))
            }
        }
    }

    /// A fetch that is still open waits for somebody who is to be waited for.
    pub(super) fn judge_fetch_over(&self, peer: usize, index: usize) {
        let viewer = &self.peers[peer];
        let known = &viewer.fetches[index];
        if known.seen.end.is_some() || known.has_left || !viewer.reads_groups {
            return;
        }
        let Fetched { path, track, want, .. } = known;
        let (since, name) = (self.since_start(), &viewer.name);
        let who = format!("at {since:?}: {name} fetch {index} of {path} {track} {want:?}");
        let patience = ANSWER_TIMEOUT + LOSS_NOTICED;
        let is_early = |at: Instant| self.now < at + patience;
        if let Some(at) = self.gone(peer, &known.path, &known.track) {
            return assert!(is_early(at), "{who} has not heard that its publisher is gone");
        }
        let sources = self.sources(peer, &known.path, &known.track);
        let is_growing = sources.iter().any(|(at, source)| {
            let group = source.groups.get(&known.want.group);
            let is_held = source.fetch_pace.is_some() || self.peers[*at].version <= Version::Lite04;
            is_held || group.is_some_and(|group| group.end.is_none())
        });
        // One that is lost, and not known to be, may have been about to answer.
        // Nor is what it had begun given up before another one has had time to go on with it.
        let patience = LOSS_NOTICED + MISSING_GRACE_MAX + EVERYWHERE;
        let is_mourned = |(at, _): &(usize, &Source)| {
            self.peers[*at].lost_at.is_some_and(|at| self.now < at + patience)
        };
        let is_waiting = is_growing || sources.iter().any(is_mourned);
        assert!(is_waiting || is_early(known.asked_at), "{who} is never answered");
    }
}

/// One verdict is enough; else the last complaint.
fn one_holds(verdicts: impl Iterator<Item = Result<(), String>>) -> Result<(), String> {
    let mut worst = Err("nobody publishes this".to_owned());
    for verdict in verdicts {
        worst = verdict;
        if worst.is_ok() {
            break;
        }
    }
    worst
}
