//! The cursors of viewers, against the same by lists of what is due and what was passed over.
//!
//! The input is a [`Script`]: groups that come, grow, end and leave, feeds and runs that follow each
//! other, viewers that join, change their bounds and take what there is.
//!
//! * Both pick the same groups in the same order, under the same numbers, and say the same of where the
//!   feed begins and whether something waits above the end that was asked for.
//! * No copy of a group is served twice, and no number but for a copy that came later.
//! * What a cursor holds does not grow with what has passed it.

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;
use shardcast::limits::{GROUPS_LOOKED_AT_MAX, TRACK_MAX_AGE_MS_MAX};
use shardcast::track::Feed;
use shardcast::track::content::{Content, Run};
use shardcast::track::cursor::{Cursor, Pick};
use shardcast::track::group::{FrameMark, Group, GroupEnd, Marks, Opening, Piece};
use shardcast::wire::{Preferences, Reader, StreamCode, TrackInfo, VARINT_MAX, Version};

use crate::heap;
use crate::random::Random;
use crate::script::{Script, Step};
use crate::trace::{Trace, processor_time};

/// A step of three bytes is a group, in the content and in each model, or a viewer.
pub const BYTES_PER_BYTE: usize = 512;

/// Viewers at once; another one takes the place of the first.
const VIEWERS_MAX: usize = 6;

/// Bytes that one cursor may hold: the ranges of what it was served.
const CURSOR_BYTES_MAX: isize = 4096;

/// Sequences are one of these and a little more, so that what there is stays fewer than a cursor remembers
/// and looks past. Behind the last there is no room for the next.
const BASES: [u64; 3] = [0, 1000, VARINT_MAX - 15];
const SEQUENCES: u64 = 16;

/// What a step of a script is.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    /// A group, whole.
    Group,
    /// One that grows, and more of it.
    Open,
    More,
    /// What grows is cut off.
    Cut,
    /// A group whose first frames are gone.
    Headless,
    Start,
    Closed,
    NewRun,
    Evict,
    Join,
    Update,
    /// A viewer takes so many groups.
    Take,
    End,
}

const KINDS: [Kind; 13] = [
    Kind::Group,
    Kind::Open,
    Kind::More,
    Kind::Cut,
    Kind::Headless,
    Kind::Start,
    Kind::Closed,
    Kind::NewRun,
    Kind::Evict,
    Kind::Join,
    Kind::Update,
    Kind::Take,
    Kind::End,
];

pub fn run(input: &[u8], trace: &mut Trace) {
    let script = Script::parse(input);
    let mut content = Content::new(true);
    let max_age_ms = [10_000, 0, 3000, VARINT_MAX][usize::from(script.setting[0]) % 4];
    let info = TrackInfo { priority: 0, max_age_ms, timescale: 1000 };
    content.apply(Feed::Info(info), Instant::now());
    let mut viewers = Vec::new();
    for step in &script.steps {
        let begin = processor_time();
        take(step, &mut content, &mut viewers, trace);
        trace.note_step(begin);
    }
    for viewer in &mut viewers {
        viewer.take(&content, usize::MAX, trace);
    }
}

fn take(step: &Step, content: &mut Content, viewers: &mut Vec<Viewer>, trace: &mut Trace) {
    let mut reader = Reader::new(&step.bytes);
    let mut number = || reader.varint().unwrap_or(0);
    let kind = KINDS[usize::from(step.kind) % KINDS.len()];
    let (base, near) = (BASES[usize::from(step.which >> 4) % 3], u64::from(step.which) % SEQUENCES);
    let sequence = base + near;
    let finished = Some(GroupEnd::Finished);
    let feed = match kind {
        Kind::Group => Feed::Piece(piece(sequence, 0, finished)),
        Kind::Open => Feed::Piece(piece(sequence, 0, None)),
        Kind::Headless => Feed::Piece(piece(sequence, number() % 4, finished)),
        Kind::More | Kind::Cut => {
            let ends = match kind {
                Kind::Cut => Some(GroupEnd::Aborted(StreamCode::CANCEL)),
                _ => finished,
            };
            let (opens, bytes, marks) = (None, Bytes::new(), Marks::new());
            Feed::Piece(Piece { sequence, opens, bytes, marks, ends })
        }
        Kind::Start => Feed::Start(sequence),
        Kind::Closed => Feed::Closed(StreamCode::CANCEL),
        // Where all numbers are used up, a run has the same name as the next.
        Kind::NewRun if content.run().0 == VARINT_MAX => return,
        Kind::NewRun => Feed::NewRun(StreamCode::CANCEL),
        Kind::End => Feed::Final(sequence),
        Kind::Evict => {
            let held = in_sequence(content);
            if let Some(at) = usize::from(step.which).checked_rem(held.len()) {
                content.evict(held[at], number() & 1 == 1);
            }
            return;
        }
        Kind::Join => {
            let versions = [Version::Lite04, Version::Lite05, Version::Lite06];
            let version = versions[usize::from(step.which) % versions.len()];
            if viewers.len() == VIEWERS_MAX {
                viewers.remove(0);
            }
            viewers.push(Viewer::join(content, version, bounds(number)));
            return;
        }
        Kind::Update => {
            if let Some(at) = usize::from(step.which).checked_rem(viewers.len()) {
                viewers[at].update(content, bounds(number));
            }
            return;
        }
        Kind::Take => {
            if let Some(at) = usize::from(step.which).checked_rem(viewers.len()) {
                let most = usize::try_from(number()).unwrap_or(usize::MAX);
                viewers[at].take(content, most, trace);
            }
            return;
        }
    };
    content.apply(feed, Instant::now());
}

fn piece(sequence: u64, frame_start: u64, ends: Option<GroupEnd>) -> Piece {
    // Later groups are not older: that is how a place is found.
    let timestamp = sequence.min(1 << 40) * 1000;
    Piece {
        sequence,
        opens: Some(Opening::at(frame_start)),
        bytes: Bytes::from_static(b"\x40\x00\x00"),
        marks: Marks::from_slice(&[FrameMark { start: 0, delta_len: 2, timestamp }]),
        ends,
    }
}

/// Five numbers: an age, a start and an end with one more, or none, and frames.
fn bounds(mut number: impl FnMut() -> u64) -> Preferences {
    let max_age_ms = number();
    let (group_start, group_end) = (number().checked_sub(1), number().checked_sub(1));
    let (frame_start, frame_end) = (number(), number().checked_sub(1));
    Preferences {
        priority: 0,
        max_age_ms,
        group_start,
        group_end,
        frame_start: group_start.map_or(0, |_| frame_start),
        frame_end: group_end.and(frame_end),
    }
}

struct Viewer {
    cursor: Cursor,
    lists: Lists,
    /// Copies of groups that it was served, and the run and number of each.
    copies: BTreeSet<u64>,
    numbers: BTreeSet<(u64, u64, u64)>,
    /// Bytes that its cursor holds beside itself.
    held: isize,
}

impl Viewer {
    fn join(content: &Content, version: Version, wanted: Preferences) -> Viewer {
        let before = heap::held();
        let cursor = Cursor::join(content, version, wanted);
        let held = heap::held() - before;
        let lists = Lists::join(content, version, wanted);
        Viewer { cursor, lists, copies: BTreeSet::new(), numbers: BTreeSet::new(), held }
    }

    fn update(&mut self, content: &Content, wanted: Preferences) {
        self.with_cursor(|cursor| cursor.update(content, wanted));
        self.lists.update(content, wanted);
    }

    fn with_cursor<T>(&mut self, run: impl FnOnce(&mut Cursor) -> T) -> T {
        let before = heap::held();
        let result = run(&mut self.cursor);
        self.held += heap::held() - before;
        assert!(self.held <= CURSOR_BYTES_MAX, "a cursor holds {} bytes", self.held);
        result
    }

    fn take(&mut self, content: &Content, most: usize, trace: &mut Trace) {
        for _ in 0..most {
            let mut pick = self.with_cursor(|cursor| cursor.pick(content));
            // Who finds none among many goes on later.
            while pick.is_none() && self.cursor.take_interruption() {
                pick = self.with_cursor(|cursor| cursor.pick(content));
            }
            assert_eq!(pick, self.lists.pick(content), "they pick the same");
            let Some(pick) = pick else { break };
            let (run, number, arrival) = (pick.run.0, pick.number, pick.arrival);
            assert!(self.copies.insert(arrival), "a copy is served twice");
            let mut later = self.numbers.range((run, number, arrival)..=(run, number, u64::MAX));
            assert!(number == VARINT_MAX || later.next().is_none(), "an earlier copy is served");
            self.numbers.insert((run, number, arrival));
            let start = self.cursor.start(content, pick.number);
            assert_eq!(start, self.lists.start(content, pick.number), "they begin at the same");
            trace.note((pick.frame_start, pick.frame_end, self.lists.version, pick.run.0 > 0));
        }
        let is_few = in_sequence(content).len() < GROUPS_LOOKED_AT_MAX;
        if most == usize::MAX && is_few && content.feed_start.is_some() {
            let is_parked = self.cursor.is_parked(content);
            assert_eq!(is_parked, self.lists.is_parked(content), "something waits for both");
            trace.note(("parked", is_parked));
        }
    }
}

/// A cursor by lists: of what is due, and of what was passed over.
struct Lists {
    version: Version,
    wanted: Preferences,
    run: Run,
    shift: u64,
    floor: u64,
    due: Vec<u64>,
    next: u64,
    passed: Vec<u64>,
    joined_at: u64,
    started: bool,
}

impl Lists {
    fn join(content: &Content, version: Version, wanted: Preferences) -> Lists {
        let mut lists = Lists {
            version,
            floor: floor_of(content, version, &wanted),
            wanted,
            run: content.run(),
            shift: 0,
            due: Vec::new(),
            next: content.next_arrival(),
            passed: in_sequence(content),
            joined_at: 0,
            started: false,
        };
        lists.revisit(content);
        let mut due = lists.due.iter().filter_map(|due| content.group(*due));
        let oldest = due.find(|group| !group.is_evicted);
        let oldest = oldest.filter(|_| content.feed_start.is_some());
        lists.joined_at = lists.floor.max(oldest.map_or(0, |group| group.sequence));
        lists
    }

    fn enter_run(&mut self, content: &Content) {
        if self.run == content.run() {
            return;
        }
        if !self.started {
            *self = Lists::join(content, self.version, self.wanted);
            return;
        }
        self.shift += content.run().0 - self.run.0;
        self.run = content.run();
        self.next = content.run_begins();
        self.due.clear();
        self.passed.clear();
    }

    fn pick(&mut self, content: &Content) -> Option<Pick> {
        self.enter_run(content);
        let feed_start = content.feed_start?;
        loop {
            let arrival = if self.due.is_empty() {
                let (arrival, _) = content.groups().find(|(at, _)| *at >= self.next)?;
                self.next = arrival + 1;
                arrival
            } else {
                self.due.remove(0)
            };
            let Some(group) = content.group(arrival) else { continue };
            let number = self.number(group.sequence);
            let is_left_over = group.sequence < feed_start && self.wanted.group_start.is_none();
            let is_first = self.wanted.group_start == Some(number);
            let frame_start = if is_first { self.wanted.frame_start } else { 0 };
            let lacks_head = group.frame_start > frame_start;
            let is_wanted = self.covers(number) && !is_left_over;
            if is_wanted && is_cut_off(group) {
                continue;
            }
            let is_where_it_begins = group.sequence == feed_start.max(self.joined_at);
            if is_wanted && lacks_head && !self.started && is_where_it_begins {
                self.joined_at = group.sequence + 1;
            }
            if !is_wanted || lacks_head {
                self.passed.push(arrival);
                continue;
            }
            let is_last = self.wanted.group_end == Some(number);
            let frame_end = self.wanted.frame_end.filter(|_| is_last);
            let (sequence, run) = (group.sequence, self.run);
            return Some(Pick { arrival, sequence, number, run, frame_start, frame_end });
        }
    }

    fn start(&mut self, content: &Content, sequence: u64) -> Option<u64> {
        if std::mem::replace(&mut self.started, true) {
            return None;
        }
        let feed = content.feed_start.unwrap_or(sequence).max(self.joined_at);
        let start = feed.min(sequence).min(VARINT_MAX);
        if self.version <= Version::Lite05 && self.wanted.group_start.is_none() {
            self.floor = self.floor.max(start);
        }
        Some(start)
    }

    fn update(&mut self, content: &Content, wanted: Preferences) {
        self.enter_run(content);
        let named = self.wanted.group_start.is_some() || wanted.group_start.is_some();
        self.wanted = wanted;
        if named {
            let shift = if wanted.group_start.is_none() { self.shift } else { 0 };
            self.floor = floor_of(content, self.version, &wanted) + shift;
        }
        self.passed.append(&mut self.due);
        self.revisit(content);
    }

    fn is_parked(&self, content: &Content) -> bool {
        let Some(last) = self.wanted.group_end else { return false };
        let held = self.passed.iter().filter_map(|arrival| content.group(*arrival));
        held.filter(|group| !is_cut_off(group)).any(|group| group.sequence + self.shift > last)
    }

    fn number(&self, sequence: u64) -> u64 {
        (sequence + self.shift).min(VARINT_MAX)
    }

    fn covers(&self, number: u64) -> bool {
        number >= self.floor && self.wanted.group_end.is_none_or(|last| number <= last)
    }

    fn revisit(&mut self, content: &Content) {
        let fresh = match self.version {
            Version::Lite06 => first_within(content, self.wanted.max_age_ms),
            _ => 0,
        };
        let is_due = |arrival: &u64| {
            let group = content.group(*arrival)?;
            let is_due = group.sequence >= fresh && self.covers(self.number(group.sequence));
            is_due.then_some(group.sequence)
        };
        let (mut due, passed): (Vec<u64>, Vec<u64>) =
            self.passed.iter().partition(|arrival| is_due(arrival).is_some());
        due.sort_by_key(is_due);
        (self.due, self.passed) = (due, passed);
    }
}

fn is_cut_off(group: &Group) -> bool {
    matches!(group.end, Some(GroupEnd::Aborted(_)))
}

/// Without a start, lite-05 and older mean the newest group, and lite-06 no floor.
fn floor_of(content: &Content, version: Version, wanted: &Preferences) -> u64 {
    let newest = if version >= Version::Lite06 { None } else { content.newest() };
    wanted.group_start.or(newest).unwrap_or(0)
}

/// What is held, as cursors find it.
fn in_sequence(content: &Content) -> Vec<u64> {
    let mut from = 0;
    let held = std::iter::from_fn(|| {
        let (arrival, group) = content.group_from(from)?;
        from = group.sequence + 1;
        Some(arrival)
    });
    held.collect()
}

/// The first group of which the next that has begun is young enough.
fn first_within(content: &Content, max_age_ms: u64) -> u64 {
    let held = in_sequence(content);
    let groups = held.iter().filter_map(|arrival| content.group(*arrival));
    let groups: Vec<&Group> = groups.collect();
    let newest = groups.last().map_or(0, |group| group.newest_timestamp());
    let kept_ms = content.info.map_or(u64::MAX, |info| info.max_age_ms).min(TRACK_MAX_AGE_MS_MAX);
    let is_old = |at: usize| {
        let begins = groups[at + 1..].iter().find_map(|group| group.first_timestamp());
        // A tick is a millisecond.
        begins.is_some_and(|at| newest.saturating_sub(at) >= max_age_ms.min(kept_ms))
    };
    let first = (0..groups.len()).find(|at| !is_old(*at));
    first.map_or(0, |at| groups[at].sequence)
}

/// Tracks that are watched, some of it at random.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut random = Random::new(7);
    (0..16)
        .map(|setting| Script { setting: [setting, 0], steps: steps(&mut random) }.encode())
        .collect()
}

fn steps(random: &mut Random) -> Vec<Step> {
    let mut steps = vec![Step { kind: Kind::Start as u8, which: 0, bytes: Vec::new() }];
    for turn in 0..60_u8 {
        let near = turn / 4 % 16;
        let (kind, which, bytes) = match random.below(12) {
            0 => (Kind::Join, random.next() as u8 % 3, vec![random.below(64) as u8]),
            1 => {
                let end = near + random.below(4) as u8;
                (Kind::Join, 2, vec![63, random.below(8) as u8, end, 0, 0])
            }
            2 | 3 => (Kind::Take, random.next() as u8, vec![random.below(5) as u8]),
            4 => (Kind::Update, random.next() as u8, vec![30, random.below(20) as u8, 0]),
            5 => (Kind::Open, near, Vec::new()),
            6 => (Kind::More, near.saturating_sub(1), Vec::new()),
            7 if turn > 40 => (Kind::NewRun, 0, Vec::new()),
            7 => (Kind::Start, near / 2, Vec::new()),
            8 => (Kind::Cut, near, Vec::new()),
            _ => (Kind::Group, near, Vec::new()),
        };
        steps.push(Step { kind: kind as u8, which, bytes });
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bounds about where groups come now.
    fn bounds_near(random: &mut Random, newest: u64) -> Preferences {
        let ages = [0, 500, 1500, 5000, 60_000];
        let near = |random: &mut Random| {
            (newest + random.below(6) as u64).saturating_sub(random.below(20) as u64)
        };
        let group_start = random.chance(50).then(|| near(random));
        let group_end = random.chance(50).then(|| near(random));
        let frame_start = match group_start {
            Some(_) if random.chance(33) => random.below(3) as u64,
            _ => 0,
        };
        let frame_end = group_end.filter(|_| random.chance(33));
        let max_age_ms = ages[random.below(5)];
        Preferences { priority: 0, max_age_ms, group_start, group_end, frame_start, frame_end }
    }

    /// A group begins, grows or ends, or comes again; feeds and runs follow each other.
    fn change(content: &mut Content, random: &mut Random) {
        let end = content.arrived_end();
        let sequence = end.saturating_sub(random.below(8) as u64) + random.below(3) as u64;
        let ends = match random.below(8) {
            0 => None,
            1 => Some(GroupEnd::Aborted(StreamCode::CANCEL)),
            _ => Some(GroupEnd::Finished),
        };
        let (bytes, marks) = (Bytes::new(), Marks::new());
        let feed = match random.below(40) {
            0 => Feed::NewRun(StreamCode::CANCEL),
            1 => Feed::Closed(StreamCode::CANCEL),
            2..6 => Feed::Start(sequence.saturating_sub(random.below(4) as u64)),
            6..10 => Feed::Piece(Piece { opens: None, bytes, marks, ..piece(sequence, 0, ends) }),
            10..12 => {
                let held = in_sequence(content);
                if !held.is_empty() {
                    content.evict(held[random.below(held.len())], random.chance(50));
                }
                return;
            }
            12..14 => Feed::Piece(Piece { bytes, marks, ..piece(sequence, 0, ends) }),
            14..16 => Feed::Piece(piece(sequence, random.below(3) as u64, ends)),
            _ => Feed::Piece(piece(sequence, 0, ends)),
        };
        content.apply(feed, Instant::now());
    }

    /// Groups whose numbers rise for as long as it goes on, where an input has a few of them.
    #[test]
    fn a_cursor_does_what_lists_of_groups_would() {
        let mut picks = 0;
        for seed in 1..=500 {
            let random = &mut Random::new(seed);
            let mut content = Content::default();
            let info = TrackInfo { priority: 0, max_age_ms: 10_000, timescale: 1000 };
            content.apply(Feed::Info(info), Instant::now());
            content.apply(Feed::Start(0), Instant::now());
            let mut viewers: Vec<(Cursor, Lists)> = Vec::new();
            for step in 0..200 {
                for _ in 0..random.below(6) {
                    change(&mut content, random);
                }
                if viewers.len() < 4 || random.chance(12) {
                    let versions = [Version::Lite04, Version::Lite05, Version::Lite06];
                    let version = versions[random.below(3)];
                    let bounds = bounds_near(random, content.arrived_end());
                    let cursor = Cursor::join(&content, version, bounds);
                    viewers.push((cursor, Lists::join(&content, version, bounds)));
                }
                if viewers.len() > 6 {
                    viewers.remove(random.below(6));
                }
                for (cursor, lists) in &mut viewers {
                    if random.chance(17) {
                        let bounds = bounds_near(random, content.arrived_end() + lists.shift);
                        cursor.update(&content, bounds);
                        lists.update(&content, bounds);
                    }
                    let most = if random.chance(33) { random.below(4) } else { usize::MAX };
                    for taken in 0.. {
                        let is_drained = taken < most && content.feed_start.is_some();
                        if taken == most {
                            break;
                        }
                        let pick = cursor.pick(&content);
                        assert!(!cursor.take_interruption());
                        assert_eq!(pick, lists.pick(&content), "seed {seed} step {step}");
                        let Some(pick) = pick else {
                            let are_parked =
                                (cursor.is_parked(&content), lists.is_parked(&content));
                            assert!(
                                !is_drained || are_parked.0 == are_parked.1,
                                "seed {seed} step {step}: {are_parked:?}"
                            );
                            break;
                        };
                        picks += 1;
                        let starts = (
                            cursor.start(&content, pick.number),
                            lists.start(&content, pick.number),
                        );
                        assert_eq!(starts.0, starts.1, "seed {seed} step {step}");
                    }
                }
            }
        }
        assert!(picks > 100_000, "{picks}");
    }
}
