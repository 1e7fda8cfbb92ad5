//! The end of a relay that lets its sessions move elsewhere first: they are asked to, and have so long.

use std::sync::mpsc;
use std::time::Instant;

use crate::limits::DRAIN_LOOK_INTERVAL;
use crate::mailbox::Outside;
use crate::shard::message::ToShard;

pub struct Drain {
    shards: Vec<Outside<ToShard>>,
    /// Those whose lane was full.
    untold: Vec<Outside<ToShard>>,
    until: Instant,
    /// Until then it is not over, even where nobody is left.
    stays_until: Instant,
    /// What shards are asked for and have not all answered.
    round: Option<Round>,
    /// Sessions when all shards were asked first, and last.
    seen: Option<(usize, usize)>,
}

struct Round {
    answers: mpsc::Receiver<usize>,
    missing: usize,
    open: usize,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    NotYet,
    All {
        moved: usize,
    },
    /// Time is over for some.
    Late {
        moved: usize,
        forced: usize,
    },
}

impl Drain {
    /// Asks all sessions to move, and those that come from now on.
    pub fn begin(shards: Vec<Outside<ToShard>>, until: Instant) -> Drain {
        let (untold, stays_until) = (shards.clone(), Instant::now());
        Drain { shards, untold, until, stays_until, round: None, seen: None }
    }

    /// So long at least.
    pub fn stays_until(self, at: Instant) -> Drain {
        Drain { until: self.until.max(at), stays_until: at, ..self }
    }

    /// The end is to come sooner.
    pub fn hurry(&mut self, until: Instant) {
        self.until = self.until.min(until);
        self.stays_until = Instant::now();
    }

    /// Sessions that are still here.
    pub fn open(&self) -> usize {
        self.seen.map_or(0, |(_, open)| open)
    }

    /// When time is over for all.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// To be called every `DRAIN_LOOK_INTERVAL`.
    pub fn look(&mut self, now: Instant) -> Drained {
        self.untold.retain(|shard| shard.send(ToShard::Drain).is_err());
        if let Some(open) = self.count() {
            let first = self.seen.map_or(open, |(first, _)| first);
            self.seen = Some((first, open));
        }
        let (first, open) = self.seen.unwrap_or_default();
        let moved = first.saturating_sub(open);
        match self.seen {
            Some((_, 0)) if now >= self.stays_until => Drained::All { moved },
            _ if now >= self.until => Drained::Late { moved, forced: open },
            _ => Drained::NotYet,
        }
    }

    /// None if a shard does not answer yet, or has not been told yet.
    fn count(&mut self) -> Option<usize> {
        if !self.untold.is_empty() {
            return None;
        }
        let mut round = match self.round.take() {
            Some(round) => round,
            None => self.ask()?,
        };
        while round.missing > 0 {
            match round.answers.recv_timeout(DRAIN_LOOK_INTERVAL) {
                Ok(open) => (round.missing, round.open) = (round.missing - 1, round.open + open),
                Err(_) => {
                    // Who leaves meanwhile was there when it was asked.
                    self.round = Some(round);
                    return None;
                }
            }
        }
        Some(round.open)
    }

    fn ask(&self) -> Option<Round> {
        let (line, answers) = mpsc::channel();
        for shard in &self.shards {
            shard.send(ToShard::Count { line: line.clone() }).ok()?;
        }
        Some(Round { answers, missing: self.shards.len(), open: 0 })
    }
}
