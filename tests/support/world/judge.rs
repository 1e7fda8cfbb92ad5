//! Whatever comes to a viewer is compared with what was published, when it comes.

use shardcast::wire::*;

use super::super::peer::{End, Fetched, Frame, Group, Seen, Source, Subscription, covers};
use super::runs::are_one_film;
use super::{World, ms};

/// A frame of no fewer bytes is of one group alone.
pub const FRAME_BYTES_TELLING: usize = 8;

impl World {
    /// Every source that a viewer may be fed from.
    pub(super) fn sources(&self, peer: usize, path: &str, track: &str) -> Vec<(usize, &Source)> {
        let path = self.peers[peer].absolute(path);
        let mut found = Vec::new();
        for (index, publisher) in self.peers.iter().enumerate() {
            for source in &publisher.sources {
                if source.track == track && source.absolute == path {
                    found.push((index, source));
                }
            }
        }
        found
    }

    /// Compares what has come to a viewer since it was last asked with what was published.
    pub(super) fn judge(&mut self, peer: usize) {
        for index in 0..self.peers[peer].subscriptions.len() {
            self.judge_datagrams(peer, index);
            let known = &mut self.peers[peer].subscriptions[index];
            let touched = std::mem::take(&mut known.touched);
            let has_ended = std::mem::take(&mut known.has_ended) && !known.has_left;
            for sequence in touched {
                let shown = self.judge_group(peer, index, sequence);
                let verdict = shown.and_then(|(film, its)| match film {
                    Some(film) => self.note_shown((peer, index), film, sequence, its),
                    None => Ok(()),
                });
                if let Err(what) = verdict {
                    panic!(
                        "at {:?}: {} subscription {index} of {}: group {sequence}: {what}",
                        self.since_start(),
                        self.peers[peer].name,
                        self.peers[peer].subscriptions[index].path,
                    );
                }
            }
            let known = &self.peers[peer].subscriptions[index];
            match known.end {
                Some(End::Finished) if has_ended => drop(self.judge_whole(peer, index)),
                Some(End::Reset(_)) if has_ended => self.judge_cut(peer, index),
                _ => {}
            }
        }
        for index in 0..self.peers[peer].fetches.len() {
            if std::mem::take(&mut self.peers[peer].fetches[index].is_touched)
                && let Err(what) = self.judge_fetch(peer, index)
            {
                let Fetched { path, track, want, .. } = &self.peers[peer].fetches[index];
                let (since, name) = (self.since_start(), &self.peers[peer].name);
                panic!("at {since:?}: {name} fetch {index} of {path} {track} {want:?}: {what}");
            }
        }
    }

    /// What has come as a datagram was sent as one, as often at least, and was asked for.
    fn judge_datagrams(&mut self, peer: usize, index: usize) {
        let viewer = &self.peers[peer];
        let known = &viewer.subscriptions[index];
        let count = known.datagrams.len();
        if known.datagrams_judged == count {
            return;
        }
        let sources = self.sources(peer, &known.path, &known.track);
        for at in known.datagrams_judged..count {
            let heard = &known.datagrams[at];
            let sequence = heard.0;
            let is_it = |other: &&(u64, Frame)| *other == heard;
            let times = known.datagrams[..=at].iter().filter(is_it).count();
            let sent =
                |(_, source): &(usize, &Source)| source.datagrams.iter().filter(is_it).count();
            let sent = sources.iter().map(sent).max().unwrap_or(0);
            let who = format!(
                "at {:?}: {} subscription {index} of {}: datagram {sequence}",
                self.since_start(),
                viewer.name,
                known.path
            );
            assert!(times <= sent, "{who} was sent {sent} times, and comes for the {times}. time");
            let mut ever = known.wanted_before.iter().chain([&known.wanted]);
            assert!(
                ever.any(|wanted| covers(wanted, sequence)),
                "{who} is not within {:?}",
                known.wanted
            );
        }
        self.peers[peer].subscriptions[index].datagrams_judged = count;
    }

    /// Finds out which group a viewer was given under some number: its number as its publisher
    /// counts, and the film, if what there is of it tells.
    fn judge_group(
        &self,
        peer: usize,
        index: usize,
        sequence: u64,
    ) -> Result<(Option<u64>, u64), String> {
        let known = &self.peers[peer].subscriptions[index];
        let sources = self.sources(peer, &known.path, &known.track);
        let seen = &known.groups[&sequence];
        let tells = |frame: &Frame| frame.payload.len() >= FRAME_BYTES_TELLING;
        let tells = are_one_film(&sources) || seen.frames.iter().any(tells);
        let mut complaints = Vec::new();
        // Most likely it is of the present run.
        for &(at, source) in sources.iter().rev() {
            let numbers = match known.runs.get(&source.film) {
                None if are_one_film(&sources) => [Some(sequence), None],
                Some(shown) if are_one_film(&sources) || self.tells_runs(peer, at) => {
                    [sequence.checked_sub(shown.shift), None]
                }
                // Another way to it may have it under other numbers.
                Some(shown) => [sequence.checked_sub(shown.shift), source.number_of(&seen.frames)],
                None => [Some(sequence), source.number_of(&seen.frames)],
            };
            for its in numbers.into_iter().flatten().filter(|its| *its <= sequence) {
                match self.compare(peer, known, (sequence, its), at, source) {
                    Ok(()) => return Ok((tells.then_some(source.film), its)),
                    Err(what) => complaints.push(format!("{what} by {:x} as {its}", source.film)),
                }
            }
        }
        // Nothing says whose it was.
        let was_nothing = seen.frames.is_empty() && seen.end != Some(End::Finished);
        match was_nothing && !are_one_film(&sources) {
            true => Ok((None, 0)),
            false => Err(complaints.join("; ")),
        }
    }

    fn compare(
        &self,
        peer: usize,
        known: &Subscription,
        (sequence, its): (u64, u64),
        publisher: usize,
        source: &Source,
    ) -> Result<(), String> {
        let tells_runs = self.tells_runs(peer, publisher);
        let (viewer, publisher) = (&self.peers[peer], &self.peers[publisher]);
        let seen = &known.groups[&sequence];
        let group = source.groups.get(&its).ok_or("no such group was published")?;
        let is_timed = viewer.version.min(publisher.version) >= Version::Lite05;
        let skipped = seen.frame_start as usize;
        let wanted_first = match known.wanted.group_start {
            Some(first) if first == sequence => known.wanted.frame_start as usize,
            _ => 0,
        };
        if viewer.version >= Version::Lite06 && known.updates == 0 && skipped != wanted_first {
            return Err(format!("begins with frame {skipped} instead of {wanted_first}"));
        }
        if known.updates == 0 && !covers(&known.wanted, sequence) {
            return Err(format!("is not within {:?}", known.wanted));
        }
        seen.compare(group, is_timed)?;
        let last = match known.wanted.group_end {
            Some(last) if last == sequence => known.wanted.frame_end.map(|last| last as usize + 1),
            _ => None,
        };
        match seen.end {
            None => Ok(()),
            Some(End::Finished) => {
                let whole = group.frames.len();
                let until = last.map_or(whole, |last| last.min(whole));
                let count = skipped + seen.frames.len();
                if known.updates == 0 && count != until {
                    return Err(format!("FIN after {count} frames of {until}"));
                }
                if group.end != Some(End::Finished) && last.is_none() && !known.was_capped {
                    return Err(format!("FIN, but the publisher says {:?}", group.end));
                }
                Ok(())
            }
            Some(End::Reset(code)) => {
                let is_theirs = group.end == Some(End::Reset(code));
                let is_lost = !publisher.is_up() || known.end.is_some() || known.has_left;
                let is_brief = publisher.version <= Version::Lite04;
                let is_old = (self.groups_expire || is_brief) && code == StreamCode::OLD.0;
                let is_late =
                    self.groups_expire && viewer.is_slow() && code == StreamCode::TOO_FAR_BEHIND.0;
                // By whoever went on with it, too.
                let ways = self.sources(peer, &known.path, &known.track);
                let is_broken = ways.iter().any(|(_, way)| !way.broken.is_empty());
                // One that another way has under other numbers begins once more.
                let is_renumbered = !tells_runs && !are_one_film(&ways);
                // Too old for the one who goes on, nothing that it has, or not asked for any more, it
                // ends as the first one did.
                // One that is reset at once shows nobody which it was.
                let is_alone = self.groups_expire
                    || publisher.spec.is_player
                    || matches!(group.end, Some(End::Reset(_)))
                    || !covers(&known.wanted, sequence);
                let is_away =
                    is_alone && publisher.is_leaving() && code == StreamCode::GOING_AWAY.0;
                // The rest of it is nowhere to be had.
                let is_capped = source.capped.contains(&its)
                    || source.once_capped.contains(&(its, group.frames.len()));
                let is_capped = is_capped && code == StreamCode::TOO_FAR_BEHIND.0;
                let is_excused =
                    is_theirs || is_lost || is_broken || is_old || is_late || is_renumbered;
                if is_excused || is_away || is_capped || self.evicts(code) {
                    return Ok(());
                }
                Err(format!("reset {code:#x}, but the publisher says {:?}", group.end))
            }
        }
    }

    /// Nobody is cut off while there is another way to the same broadcast.
    fn judge_cut(&self, peer: usize, index: usize) {
        let known = &self.peers[peer].subscriptions[index];
        let sources = self.sources(peer, &known.path, &known.track);
        let Some(&(first, _)) = sources.first() else { return };
        let has_another = sources.iter().any(|(publisher, _)| *publisher != first);
        // Of several relays it is not known here which can reach which.
        if !has_another || self.stage.relays > 1 || !self.are_one_broadcast(&sources) {
            return;
        }
        for &(at, source) in &sources {
            let publisher = &self.peers[at];
            // Announced for long enough that every shard knows of it.
            let is_known = publisher.up_at.is_some_and(|at| self.now >= at + ms(3000));
            let has_broken =
                |(its, other): &(usize, &Source)| *its == at && !other.broken.is_empty();
            let is_sound = publisher.is_up()
                && !publisher.is_leaving()
                && !sources.iter().any(has_broken)
                && source.refuses.is_none();
            assert!(
                !is_known || !is_sound || source.never_answers.is_some(),
                "at {:?}: {} subscription {index} of {} is cut off ({:?}), and there is {}",
                self.since_start(),
                self.peers[peer].name,
                known.path,
                known.end,
                publisher.name
            );
        }
    }

    /// A group may go while somebody reads it.
    pub(super) fn evicts(&self, code: u64) -> bool {
        self.groups_are_evicted && code == StreamCode::EVICTED.0
    }
}

impl Seen {
    /// Every frame is the publisher's, from the first one on.
    pub(super) fn compare(&self, group: &Group, is_timed: bool) -> Result<(), String> {
        for (at, frame) in self.frames.iter().enumerate() {
            let Some(made) = group.frames.get(self.frame_start as usize + at) else {
                return Err(format!("frame {at} was never made"));
            };
            if frame.payload != made.payload {
                return Err(format!("frame {at} has other bytes"));
            }
            if is_timed && frame.timestamp != made.timestamp {
                let (is, was) = (frame.timestamp, made.timestamp);
                return Err(format!("frame {at} is at {is} instead of {was}"));
            }
        }
        Ok(())
    }
}
