//! What all connections share: the plan, the schedule, what is due, and the accounts.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use shardcast::wire::{StreamCode, Version};

use crate::clock::MILLISECOND;
use crate::frames::{self, STAMP_BYTES, Stamp};
use crate::measure::{Account, Measure};
use crate::plan::Plan;
use crate::scenario::Scenario;
use crate::schedule::Schedule;

/// Something to do at a time that is known in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// The next frame of a track is due.
    Frame(u32),
    /// A viewer subscribes, at first or again.
    Subscribe {
        peer: u32,
        account: u32,
    },
    /// A broadcast ends, to be announced again after the gap.
    End {
        broadcast: u32,
    },
    Announce {
        broadcast: u32,
    },
    /// A past group is fetched.
    Fetch,
}

#[derive(Default)]
pub struct Agenda(BinaryHeap<Reverse<(u64, Action)>>);

impl Agenda {
    pub fn add(&mut self, at: u64, action: Action) {
        self.0.push(Reverse((at, action)));
    }

    pub fn next(&self) -> Option<u64> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// The next action that is due, with the time it was intended for.
    pub fn due(&mut self, now: u64) -> Option<(u64, Action)> {
        let Reverse((at, action)) = *self.0.peek()?;
        if at > now {
            return None;
        }
        self.0.pop();
        Some((at, action))
    }
}

/// When a broadcast last began and ended on purpose, 0 for never.
#[derive(Clone, Copy, Default)]
pub struct Changed {
    pub announced: u64,
    pub ended: u64,
}

/// The last thing that kept a connection or a subscription from being there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub what: String,
    pub code: StreamCode,
}

pub struct Shared {
    pub version: Version,
    /// The path and query of the relay's URL.
    pub root: Option<String>,
    pub plan: Plan,
    pub max_age_ms: u64,
    /// Once content has begun.
    pub schedule: Option<Schedule>,
    /// By track: the number of the next frame.
    pub next_frames: Vec<u64>,
    pub agenda: Agenda,
    pub measure: Measure,
    /// By broadcast.
    pub changed: Vec<Changed>,
    /// Publishers that were asked for all that they announce.
    pub asked_publishers: usize,
    /// Accounts without a subscription, and when that number changed last.
    pub unsubscribed: usize,
    pub unsubscribed_since: u64,
    pub refusal: Option<Refusal>,
    /// That of the largest frames.
    filler: Bytes,
}

impl Shared {
    pub fn new(version: Version, root: Option<String>, scenario: &Scenario, plan: Plan) -> Shared {
        let watched = plan.parts.iter().flat_map(|part| &part.watches);
        let tracks = watched.flat_map(|&broadcast| plan.tracks(broadcast));
        let accounts: Vec<_> =
            tracks.map(|track| Account { track: track as u32, ..Account::default() }).collect();
        let broadcasts = plan.paths.len();
        let frame_bytes = scenario.tracks.iter().map(|track| track.frame_bytes as usize);
        Shared {
            version,
            root,
            max_age_ms: scenario.max_age_ms,
            schedule: None,
            next_frames: vec![0; plan.all_tracks().len()],
            agenda: Agenda::default(),
            unsubscribed: accounts.len(),
            unsubscribed_since: 0,
            measure: Measure::new(accounts, scenario.max_age_ms),
            changed: vec![Changed::default(); broadcasts],
            asked_publishers: 0,
            refusal: None,
            filler: frames::filler(frame_bytes.max().unwrap_or(STAMP_BYTES)),
            plan,
        }
    }

    /// The first group of the track that nobody has been sent anything of.
    pub fn next_group(&self, track: usize) -> u64 {
        let Some(schedule) = &self.schedule else { return 0 };
        let next = self.next_frames[track];
        let (group, place) = schedule.place(track, next);
        group + u64::from(place > 0)
    }

    /// A frame with what precedes it on its stream, and what follows its stamp.
    pub fn frame(&self, track: usize, number: u64, head: Vec<u8>) -> [Bytes; 2] {
        let (_, place) = self.schedule().place(track, number);
        self.frame_of_stream(track, number, place == 0, head)
    }

    /// The same where the stream may begin with any frame of the group.
    pub fn frame_of_stream(
        &self,
        track: usize,
        number: u64,
        is_first: bool,
        mut head: Vec<u8>,
    ) -> [Bytes; 2] {
        let beat = self.schedule().frames(track);
        let ms = |number| ((beat.at(number) - beat.first) / MILLISECOND) as i64;
        let previous = if is_first { 0 } else { ms(number - 1) };
        let stamp = Stamp { intended: beat.at(number), number: number as u32 };
        let delta = ms(number) - previous;
        let frame_bytes = self.plan.track(track).frame_bytes as usize;
        frames::encode_frame(self.version, delta, stamp, frame_bytes, &mut head);
        [Bytes::from(head), self.filler.slice(..frame_bytes - STAMP_BYTES)]
    }

    fn schedule(&self) -> &Schedule {
        self.schedule.as_ref().expect("frames are made once content has begun")
    }

    pub fn subscribed(&mut self, now: u64) {
        self.unsubscribed -= 1;
        self.unsubscribed_since = now;
    }

    pub fn refused(&mut self, now: u64, refusal: Refusal) {
        self.unsubscribed += 1;
        self.unsubscribed_since = now;
        self.refusal = Some(refusal);
    }
}
