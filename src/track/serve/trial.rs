//! A subscription that was opened anew on a track of which groups are known: does it go on with
//! those, or does its publisher number its groups anew?

use std::time::Instant;

use smallvec::{SmallVec, smallvec};

use super::ServeLoop;
use crate::limits::{MISSING_GRACE_MAX, RESUME_GRACE, UNTOLD_BYTES_MAX, UNTOLD_GRACE};
use crate::track::Feed;
use crate::track::content::Content;
use crate::track::group::Likeness;

#[derive(Debug)]
pub(super) struct Trial {
    /// One past the highest group known.
    pub known_end: u64,
    /// Groups from here on were asked for, known or not.
    pub asked_from: u64,
    /// The newest group that is known, which a publisher that goes on may begin with.
    pub newest: Option<u64>,
    /// Readers are in the middle of the run that is known, and so a publisher that brings the same
    /// groups goes on with it. With nobody there it is as well to begin with whatever comes.
    pub is_read: bool,
    /// What has come belongs to the run that is known, as far as that can be told.
    pub is_proven: bool,
    /// Where the feed starts. Readers are told when it is known of which run.
    pub start: Option<u64>,
    pub untold: Untold,
}

impl Trial {
    /// Whether the run that is known cannot have this end.
    pub fn ends_below(&self, end: u64) -> bool {
        !self.is_proven && end < self.known_end
    }

    /// Whether a group that comes begins another run, by what it has in common with the one that is
    /// held under its number.
    pub fn is_another(&self, sequence: u64, likeness: Likeness) -> bool {
        if sequence >= self.known_end {
            return false;
        }
        if sequence >= self.asked_from || self.is_proven {
            return likeness == Likeness::Differs;
        }
        match likeness {
            Likeness::Same => !self.is_read && self.newest != Some(sequence),
            Likeness::Unclear => !self.is_read,
            Likeness::Differs | Likeness::Unknown => true,
        }
    }
}

/// Groups of a publisher that was asked where it is, while nothing shows of which run they are: a relay
/// whose copy has just begun brings groups first that readers have had long ago, and of which nothing is
/// held.
#[derive(Debug, Default)]
pub(super) struct Untold {
    feeds: Vec<Feed>,
    bytes: usize,
    /// Among them is one of which too little has come, and a group is held under its number.
    has_unclear: bool,
    /// When they are told if nothing has shown it.
    pub until: Option<Instant>,
}

impl Untold {
    /// False if there is no room for more.
    fn keep(&mut self, now: Instant, feed: Feed) -> bool {
        self.bytes += size_of::<Feed>();
        self.bytes += match &feed {
            Feed::Piece(piece) => piece.bytes.len() + size_of_val(&piece.marks[..]),
            Feed::Datagram(datagram) => datagram.payload.len(),
            _ => 0,
        };
        self.feeds.push(feed);
        self.until.get_or_insert(now + UNTOLD_GRACE);
        self.bytes <= UNTOLD_BYTES_MAX
    }

    fn lowest_group(&self) -> Option<u64> {
        let sequences = self.feeds.iter().filter_map(|feed| match feed {
            Feed::Piece(piece) => Some(piece.sequence),
            Feed::Datagram(datagram) => Some(datagram.sequence),
            _ => None,
        });
        sequences.min()
    }
}

impl ServeLoop {
    /// Whether a publisher was asked where it is, and what it has brought does not show of which run it is.
    pub(super) fn is_undecided(&self) -> bool {
        self.is_lifted() && self.trial.as_ref().is_some_and(|trial| !trial.is_proven)
    }

    /// Takes note of news while it is not decided of which run they are.
    pub(super) fn weigh(
        &mut self,
        now: Instant,
        feed: Feed,
        content: &Content,
    ) -> SmallVec<[Feed; 1]> {
        let Some(trial) = &mut self.trial else { return self.take(now, feed, content) };
        let is_alone = trial.untold.feeds.is_empty();
        let is_another = match &feed {
            Feed::Piece(piece) if piece.opens.is_some() => {
                match content.likeness(piece, self.are_timed) {
                    Likeness::Unknown if piece.sequence < trial.asked_from => None,
                    Likeness::Unclear if !is_alone => {
                        trial.untold.has_unclear = true;
                        None
                    }
                    likeness => Some(trial.is_another(piece.sequence, likeness)),
                }
            }
            _ if is_alone => Some(false),
            Feed::Piece(_) | Feed::Datagram(_) => None,
            Feed::Final(end) => Some(trial.ends_below(*end)),
            Feed::Ending | Feed::Ended => Some(!trial.untold.has_unclear),
            // What the track is like and where the feed starts wait for nothing, and the latter may show it.
            _ => {
                let mut told = self.take(now, feed, content);
                if !self.is_undecided() {
                    told.extend(self.tell_untold(now, false, None, content));
                }
                return told;
            }
        };
        let Some(is_another) = is_another else {
            self.has_brought = true;
            let has_room = trial.untold.keep(now, feed);
            return if has_room { SmallVec::new() } else { self.settle(now, content) };
        };
        let mut told = SmallVec::new();
        if !is_alone {
            let sequence = if let Feed::Piece(piece) = &feed { Some(piece.sequence) } else { None };
            told = self.tell_untold(now, is_another, sequence, content);
        }
        told.extend(self.take(now, feed, content));
        told
    }

    /// It ends below what is known, and so is another run without a group.
    pub(super) fn ends_run(&self, end: u64) -> bool {
        self.trial.as_ref().is_some_and(|trial| trial.ends_below(end))
    }

    /// What readers are to be told of groups that were kept back, now that this has shown whose they are.
    fn tell_untold(
        &mut self,
        now: Instant,
        is_another: bool,
        sequence: Option<u64>,
        content: &Content,
    ) -> SmallVec<[Feed; 1]> {
        let Some(trial) = &mut self.trial else { return SmallVec::new() };
        let untold = std::mem::take(&mut trial.untold);
        trial.is_proven = !is_another;
        let mut told = SmallVec::new();
        if is_another {
            told = self.begin_run(sequence.into_iter().chain(untold.lowest_group()).min());
        }
        for feed in untold.feeds {
            told.extend(self.take(now, feed, content));
        }
        told
    }

    /// Nothing more shows whose the groups are that were kept back: they are another run's, unless one of them
    /// may be what is held. What readers are to be told.
    pub fn settle(&mut self, now: Instant, content: &Content) -> SmallVec<[Feed; 1]> {
        match self.trial.as_ref().map(|trial| &trial.untold) {
            Some(untold) if !untold.feeds.is_empty() => {
                self.tell_untold(now, !untold.has_unclear, None, content)
            }
            _ => SmallVec::new(),
        }
    }

    pub(super) fn settle_due(&mut self, now: Instant, content: &Content) -> SmallVec<[Feed; 1]> {
        match self.trial.as_ref().and_then(|trial| trial.untold.until) {
            Some(at) if at <= now => self.settle(now, content),
            _ => SmallVec::new(),
        }
    }

    /// The publisher has said where its feed starts.
    pub(super) fn start(
        &mut self,
        now: Instant,
        start: u64,
        content: &Content,
    ) -> SmallVec<[Feed; 1]> {
        if let Some(trial) = &mut self.trial
            && !trial.is_proven
        {
            if start < trial.asked_from {
                trial.start = Some(start);
                return SmallVec::new();
            }
            self.go_on(start);
        }
        if self.resume.is_none() {
            return smallvec![Feed::Start(start)];
        }
        self.forgive();
        let mut told = self.give_up_below(now, start);
        // Readers began long ago; only what reaches further back is news to them.
        if content.feed_start.is_none_or(|known| start < known) {
            told.push(Feed::Start(start));
        }
        told
    }

    /// The run that is known goes on, with this group. A publisher that is behind may still come to another run before
    /// it has caught up, and is not asked to go on until it has.
    fn go_on(&mut self, sequence: u64) {
        if let Some(trial) = &mut self.trial {
            trial.is_proven = true;
        }
        if let Some(resume) = &mut self.resume
            && sequence.saturating_add(1) >= resume.from.0
        {
            (resume.lift_at, resume.is_lifted) = (None, false);
        }
    }

    /// A group begins to come: what readers are to be told before it, now that this shows of which
    /// run it is.
    pub(super) fn try_group(
        &mut self,
        now: Instant,
        sequence: u64,
        likeness: Likeness,
        content: &Content,
    ) -> SmallVec<[Feed; 1]> {
        let Some(trial) = &mut self.trial else { return SmallVec::new() };
        if trial.is_another(sequence, likeness) {
            return self.begin_run(Some(sequence));
        }
        let start = trial.start.take();
        self.go_on(sequence);
        start.map_or_else(SmallVec::new, |start| self.start(now, start, content))
    }

    /// The publisher begins another run, with this group at the latest.
    pub(super) fn begin_run(&mut self, sequence: Option<u64>) -> SmallVec<[Feed; 1]> {
        let code = self.abort_code();
        let said = self.trial.as_ref().and_then(|trial| trial.start);
        let start = said.into_iter().chain(sequence).min();
        self.end_feed();
        self.are_timed = self.is_timed;
        [Feed::NewRun(code)].into_iter().chain(start.map(Feed::Start)).collect()
    }

    /// A subscription is opened anew.
    pub(super) fn begin_trial(&mut self, now: Instant, content: &Content) {
        let known_end = content.arrived_end();
        let asked_from = self.resume.as_ref().map_or(known_end, |resume| resume.from.0);
        self.trial = (known_end > 0).then_some(Trial {
            known_end,
            asked_from,
            newest: content.newest(),
            is_read: self.resume.is_some(),
            is_proven: false,
            start: None,
            untold: Untold::default(),
        });
        if let Some(resume) = &mut self.resume {
            resume.lift_at = Some(now + RESUME_GRACE);
        }
        // Where nothing later comes, nothing else shows that they do not.
        for splice in self.splices.values_mut() {
            splice.begin_by = Some(now + MISSING_GRACE_MAX);
        }
    }
}
