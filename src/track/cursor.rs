//! Where one viewer is in a track: which group comes next, and where delivery began (spec §4.7,
//! §4.9).

use std::collections::VecDeque;

use super::content::{Content, Run};
use super::group::GroupEnd;
use crate::wire::{Preferences, Version};

/// A group to serve now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    pub arrival: u64,
    /// Its number in its run, and the one that this viewer knows it by.
    pub sequence: u64,
    pub number: u64,
    pub run: Run,
    /// First frame to send, counted from the group's frame 0.
    pub frame_start: u64,
    /// Last frame to send, where this viewer asked for an end within this group.
    pub frame_end: Option<u64>,
}

/// Once delivery has begun, numbers only go on: a viewer that has seen an earlier run of the track
/// knows a group by its sequence and what earlier runs have used since. Bounds are in its numbers.
#[derive(Debug)]
pub struct Cursor {
    version: Version,
    wanted: Preferences,
    /// The run that it is in, and how much higher it counts than that does.
    run: Run,
    shift: u64,
    /// Groups below are not served.
    floor: u64,
    /// Groups that are due before anything newer.
    due: VecDeque<u64>,
    /// Arrival numbers of the first group that was looked at, and of the next one to look at.
    first: u64,
    next: u64,
    /// Groups that were passed over; an update may bring them back.
    passed: Vec<u64>,
    /// Length at which `passed` is rid of groups that are gone.
    passed_max: usize,
    /// Where the feed began for this viewer: START says this or more.
    joined_at: u64,
    started: bool,
}

impl Cursor {
    /// A viewer joins. What it sees of the groups that are here already depends on its version:
    /// without a start, lite-05 and older mean the newest group, lite-06 the oldest that its max
    /// age still covers.
    pub fn join(content: &Content, version: Version, wanted: Preferences) -> Cursor {
        let mut cursor = Cursor {
            version,
            floor: floor_of(content, version, &wanted),
            wanted,
            run: content.run(),
            shift: 0,
            due: VecDeque::new(),
            first: content.run_begins(),
            next: content.next_arrival(),
            passed: content.groups().map(|(arrival, _)| arrival).collect(),
            passed_max: 64,
            joined_at: 0,
            started: false,
        };
        cursor.revisit(content);
        // Before the feed has said where it starts, what is here says nothing of that.
        let due = cursor.due.iter().filter_map(|arrival| content.group(*arrival));
        let oldest = due.map(|group| group.sequence).min().filter(|_| content.feed_start.is_some());
        cursor.joined_at = cursor.floor.max(oldest.unwrap_or(0));
        cursor
    }

    /// How much higher this viewer counts than this run does, which it is in or comes to next.
    pub fn shift(&self, run: Run) -> u64 {
        if self.started { self.shift + (run.0 - self.run.0) } else { 0 }
    }

    /// Leaves what is left of an earlier run behind.
    fn enter_run(&mut self, content: &Content) {
        if !self.started {
            // It was told of nothing, and so begins with this one.
            *self = Cursor::join(content, self.version, self.wanted);
            return;
        }
        self.shift = self.shift(content.run());
        self.run = content.run();
        self.first = content.run_begins();
        self.next = self.first;
        self.due.clear();
        self.passed.clear();
    }

    /// The next group to serve, if one is ready.
    pub fn pick(&mut self, content: &Content) -> Option<Pick> {
        if self.run != content.run() {
            self.enter_run(content);
        }
        // START must not name a group above one that this relay's own feed will still bring.
        let feed_start = content.feed_start?;
        loop {
            let arrival = match self.due.pop_front() {
                Some(arrival) => arrival,
                None => {
                    let (arrival, _) = content.next_group(self.next)?;
                    self.next = arrival + 1;
                    arrival
                }
            };
            let Some(group) = content.group(arrival) else { continue };
            // What an earlier feed has left is for those who ask for it.
            let is_left_over = group.sequence < feed_start && self.wanted.group_start.is_none();
            let number = group.sequence + self.shift;
            if !self.covers(number) || is_left_over {
                self.pass(content, arrival);
                continue;
            }
            if matches!(group.end, Some(GroupEnd::Aborted(_))) {
                continue;
            }
            let frame_start = match self.wanted.group_start {
                Some(first) if first == number => self.wanted.frame_start,
                _ => 0,
            };
            if group.frame_start > frame_start {
                // Its head is gone, and a part that nobody asked for is of no use. START does not
                // name it either.
                if !self.started && group.sequence == feed_start.max(self.joined_at) {
                    self.joined_at = group.sequence + 1;
                }
                self.pass(content, arrival);
                continue;
            }
            let frame_end = match self.wanted.group_end {
                Some(last) if last == number => self.wanted.frame_end,
                _ => None,
            };
            let (sequence, run) = (group.sequence, self.run);
            return Some(Pick { arrival, sequence, number, run, frame_start, frame_end });
        }
    }

    /// The value of START when `sequence` is the first group served; None once it was given.
    pub fn start(&mut self, content: &Content, sequence: u64) -> Option<u64> {
        if std::mem::replace(&mut self.started, true) {
            return None;
        }
        let feed = content.feed_start.unwrap_or(sequence).max(self.joined_at);
        let start = feed.min(sequence);
        if self.version <= Version::Lite05 && self.wanted.group_start.is_none() {
            self.floor = self.floor.max(start);
        }
        Some(start)
    }

    /// New bounds. Groups that were passed over and now lie within them are served after all;
    /// none is served twice.
    pub fn update(&mut self, content: &Content, wanted: Preferences) {
        if self.run != content.run() {
            self.enter_run(content);
        }
        let named = self.wanted.group_start.is_some() || wanted.group_start.is_some();
        self.wanted = wanted;
        if named {
            self.floor = floor_of(content, self.version, &wanted);
            if wanted.group_start.is_none() {
                self.floor += self.shift;
            }
        }
        self.passed.extend(self.due.drain(..));
        // A mirror may have been told of them since.
        let earlier = content.groups().map(|(arrival, _)| arrival);
        self.passed.extend(earlier.take_while(|arrival| *arrival < self.first));
        self.first = self.first.min(content.run_begins());
        self.passed.sort_unstable();
        self.revisit(content);
    }

    /// Whether a group waits above the end that was asked for: an update may still call for it,
    /// so the subscription is not over.
    pub fn is_parked(&self, content: &Content) -> bool {
        let Some(last) = self.wanted.group_end else { return false };
        self.passed
            .iter()
            .filter_map(|arrival| content.group(*arrival))
            .any(|group| group.sequence + self.shift > last)
    }

    fn covers(&self, number: u64) -> bool {
        number >= self.floor && self.wanted.group_end.is_none_or(|last| number <= last)
    }

    /// Moves what is now wanted from `passed` to `due`, in sequence order: it may have arrived
    /// slightly reordered, and all of it is here.
    fn revisit(&mut self, content: &Content) {
        for arrival in std::mem::take(&mut self.passed) {
            let Some(group) = content.group(arrival) else { continue };
            // Only lite-06 lets the age decide where to begin; elsewhere it acts on stuck
            // streams alone (spec §4.7, §4.10).
            let stale = self.version >= Version::Lite06
                && content.expired(self.run, group.sequence, self.wanted.max_age_ms);
            if self.covers(group.sequence + self.shift) && !stale {
                self.due.push_back(arrival);
            } else {
                self.passed.push(arrival);
            }
        }
        let sequence = |arrival: &u64| content.group(*arrival).map(|group| group.sequence);
        self.due.make_contiguous().sort_by_key(sequence);
    }

    fn pass(&mut self, content: &Content, arrival: u64) {
        if self.passed.len() >= self.passed_max {
            self.passed.retain(|arrival| content.group(*arrival).is_some());
            self.passed_max = 64.max(2 * self.passed.len());
        }
        self.passed.push(arrival);
    }
}

/// Without a start, lite-05 and older mean the newest group, and lite-06 no floor.
fn floor_of(content: &Content, version: Version, wanted: &Preferences) -> u64 {
    match wanted.group_start {
        Some(start) => start,
        None if version >= Version::Lite06 => 0,
        None => content.newest().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::Feed;
    use crate::track::content::{Applied, Told};
    use crate::track::demand::Reach;
    use crate::track::group::{FrameMark, Marks, Opening, Piece};
    use crate::wire::{StreamCode, TrackInfo};
    use bytes::Bytes;
    use std::time::Instant;

    /// Finished groups of one frame at second `sequence`, on a track that keeps ten seconds.
    fn content(sequences: &[u64]) -> Content {
        let mut content = Content::default();
        tell(
            &mut content,
            Feed::Info(TrackInfo { priority: 0, max_age_ms: 10_000, timescale: 1000 }),
        );
        tell(&mut content, Feed::Start(sequences.iter().copied().min().unwrap_or(0)));
        for sequence in sequences {
            add(&mut content, *sequence);
        }
        content
    }

    fn tell(content: &mut Content, feed: Feed) -> Applied {
        content.apply(feed, Instant::now())
    }

    fn piece(sequence: u64) -> Piece {
        let mark = FrameMark { start: 0, delta_len: 2, timestamp: sequence * 1000 };
        Piece {
            sequence,
            opens: Some(Opening::at(0)),
            bytes: Bytes::from_static(b"\x40\x00\x00"),
            marks: Marks::from_slice(&[mark]),
            ends: Some(GroupEnd::Finished),
        }
    }

    fn add(content: &mut Content, sequence: u64) {
        let applied = tell(content, Feed::Piece(piece(sequence)));
        assert!(matches!(applied, Applied::Opened(_)));
    }

    fn wanted(max_age_ms: u64, start: Option<u64>, end: Option<u64>) -> Preferences {
        Preferences {
            priority: 0,
            max_age_ms,
            group_start: start,
            group_end: end,
            frame_start: 0,
            frame_end: None,
        }
    }

    fn drain(cursor: &mut Cursor, content: &Content) -> Vec<u64> {
        std::iter::from_fn(|| cursor.pick(content)).map(|pick| pick.sequence).collect()
    }

    #[track_caller]
    fn check(version: Version, wanted: Preferences, expect: &[u64], start: u64) {
        let content = content(&[2, 4, 3, 5]);
        let mut cursor = Cursor::join(&content, version, wanted);
        let got = drain(&mut cursor, &content);
        assert_eq!(got, expect);
        if let Some(first) = got.first() {
            assert_eq!(cursor.start(&content, *first), Some(start));
            assert_eq!(cursor.start(&content, *first), None);
        }
    }

    #[test]
    fn where_a_viewer_begins() {
        use Version::*;
        // No start: the newest group, or on lite-06 whatever the age covers.
        check(Lite03, wanted(9000, None, None), &[5], 5);
        check(Lite05, wanted(9000, None, None), &[5], 5);
        check(Lite06, wanted(0, None, None), &[5], 5);
        check(Lite06, wanted(500, None, None), &[4, 5], 4);
        check(Lite06, wanted(1500, None, None), &[3, 4, 5], 3);
        check(Lite06, wanted(9000, None, None), &[2, 3, 4, 5], 2);
        // A start: that group and later, on lite-06 within the age.
        check(Lite05, wanted(0, Some(3), None), &[3, 4, 5], 3);
        check(Lite06, wanted(9000, Some(3), None), &[3, 4, 5], 3);
        check(Lite06, wanted(0, Some(3), None), &[5], 5);
        // An end.
        check(Lite05, wanted(0, Some(2), Some(3)), &[2, 3], 2);
        check(Lite05, wanted(0, Some(9), None), &[], 0);
    }

    /// A mirror of a home with these groups, told of as much as is asked for.
    struct Mirror {
        home: Content,
        told: Option<Told>,
        copy: Content,
    }

    impl Mirror {
        fn new(sequences: &[u64]) -> Mirror {
            let mut copy = Content::new(false);
            let home = content(sequences);
            for fact in home.facts() {
                tell(&mut copy, fact);
            }
            Mirror { home, told: None, copy }
        }

        /// The groups of which the mirror is told now.
        fn sync(&mut self, version: Version, wanted: Preferences) -> Vec<u64> {
            let reach = Reach::of(version, &wanted);
            let feeds = self.home.sync(&mut self.told, reach);
            let mut groups = Vec::new();
            for feed in feeds {
                assert!(!self.copy.covers(reach), "it says so last of all");
                if let Feed::Piece(piece) = &feed {
                    groups.extend(piece.opens.map(|_| piece.sequence));
                }
                tell(&mut self.copy, feed);
            }
            assert!(self.copy.covers(reach));
            groups
        }

        fn live(&mut self, sequence: u64) {
            add(&mut self.home, sequence);
            add(&mut self.copy, sequence);
        }
    }

    #[test]
    fn a_mirror_is_told_what_its_viewers_can_see_and_nothing_twice() {
        use Version::*;
        let table: [(Version, Preferences, &[u64]); 8] = [
            (Lite05, wanted(9000, None, None), &[5]),
            (Lite05, wanted(0, Some(4), None), &[5, 4]),
            (Lite05, wanted(0, Some(9), None), &[5]),
            (Lite05, wanted(0, Some(0), Some(2)), &[5, 4, 3, 2]),
            (Lite06, wanted(0, None, None), &[5]),
            (Lite06, wanted(1500, None, None), &[5, 4, 3]),
            (Lite06, wanted(0, Some(2), None), &[5]),
            (Lite06, wanted(9000, Some(3), None), &[5, 4, 3, 2]),
        ];
        for (version, wanted, expect) in table {
            let mut mirror = Mirror::new(&[2, 4, 3, 5]);
            assert_eq!(mirror.sync(version, wanted), expect, "{version} {wanted:?}");
            // A viewer there sees what one at the home does.
            let mut there = Cursor::join(&mirror.copy, version, wanted);
            let mut here = Cursor::join(&mirror.home, version, wanted);
            let mut there = drain(&mut there, &mirror.copy);
            let mut here = drain(&mut here, &mirror.home);
            there.sort_unstable();
            here.sort_unstable();
            assert_eq!(there, here, "{version} {wanted:?}");
        }
        let mut mirror = Mirror::new(&[2, 4, 3, 6]);
        assert_eq!(mirror.sync(Lite05, wanted(0, None, None)), [6]);
        // What has come since has been told, however low its number is.
        mirror.live(5);
        mirror.live(7);
        assert_eq!(mirror.sync(Lite05, wanted(0, Some(4), None)), [4]);
        assert_eq!(mirror.sync(Lite05, wanted(0, Some(5), None)), []);
        assert_eq!(mirror.sync(Lite06, wanted(3500, None, None)), [3]);
        assert_eq!(mirror.sync(Lite05, wanted(0, Some(0), None)), [2]);
        assert_eq!(mirror.sync(Lite06, wanted(u64::MAX, None, None)), []);
        assert_eq!(mirror.home.sync(&mut mirror.told, Reach::ALL).len(), 0);
        // Of another run everything.
        let mut mirror = Mirror::new(&[2, 3, 6]);
        assert_eq!(mirror.sync(Lite05, wanted(0, None, None)), [6]);
        for content in [&mut mirror.home, &mut mirror.copy] {
            tell(content, Feed::NewRun(StreamCode::CANCEL));
        }
        (0..9).for_each(|sequence| mirror.live(sequence));
        assert_eq!(mirror.sync(Lite06, wanted(2000, None, None)), []);
        assert_eq!(mirror.sync(Lite05, wanted(0, Some(1), None)), []);
        let mut late = Cursor::join(&mirror.copy, Lite05, wanted(0, Some(1), None));
        tell(&mut mirror.copy, Feed::Start(0));
        assert_eq!(drain(&mut late, &mirror.copy), [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn what_a_mirror_is_told_later_is_old_to_who_is_there() {
        for version in [Version::Lite05, Version::Lite06] {
            let mut mirror = Mirror::new(&[0, 1, 2, 3]);
            mirror.sync(version, wanted(0, None, None));
            let mut live = Cursor::join(&mirror.copy, version, wanted(0, None, None));
            mirror.live(4);
            assert_eq!(drain(&mut live, &mirror.copy), [3, 4], "{version}");
            let past = wanted(9000, Some(1), None);
            mirror.sync(version, past);
            mirror.live(5);
            assert_eq!(drain(&mut live, &mirror.copy), [5], "{version}");
            // Who comes now is served them in order, and so is who asks for them now.
            let mut late = Cursor::join(&mirror.copy, version, past);
            assert_eq!(drain(&mut late, &mirror.copy), [1, 2, 3, 4, 5], "{version}");
            live.update(&mirror.copy, past);
            assert_eq!(drain(&mut live, &mirror.copy), [1, 2], "{version}");
        }
    }

    #[test]
    fn nothing_is_served_before_the_feed_says_where_it_starts() {
        let mut content = content(&[]);
        content.feed_start = None;
        let mut cursor = Cursor::join(&content, Version::Lite05, wanted(0, None, None));
        add(&mut content, 7);
        assert_eq!(cursor.pick(&content), None);
        tell(&mut content, Feed::Start(6));
        assert_eq!(drain(&mut cursor, &content), [7]);
        assert_eq!(cursor.start(&content, 7), Some(6));
        add(&mut content, 6);
        add(&mut content, 5);
        assert_eq!(drain(&mut cursor, &content), [6], "START raised the floor to 6");
    }

    #[test]
    fn an_update_brings_back_what_was_passed_over_once() {
        let mut content = content(&[1, 2, 3]);
        let mut cursor = Cursor::join(&content, Version::Lite05, wanted(0, Some(2), Some(2)));
        assert_eq!(drain(&mut cursor, &content), [2]);
        assert!(cursor.is_parked(&content));
        add(&mut content, 4);
        assert!(drain(&mut cursor, &content).is_empty());
        cursor.update(&content, wanted(0, Some(1), None));
        assert_eq!(drain(&mut cursor, &content), [1, 3, 4]);
        assert!(!cursor.is_parked(&content));
        // Dropping the start pins lite-05 to the newest group again, which was served.
        cursor.update(&content, wanted(0, None, None));
        assert!(drain(&mut cursor, &content).is_empty());
    }

    #[test]
    fn a_group_without_its_head_is_served_only_to_who_asked_for_that_frame() {
        let mut content = content(&[]);
        tell(
            &mut content,
            Feed::Piece(Piece { opens: Some(Opening::at(3)), ends: None, ..piece(0) }),
        );
        let mut cursor = Cursor::join(&content, Version::Lite06, wanted(0, None, None));
        assert_eq!(cursor.pick(&content), None);
        add(&mut content, 1);
        assert_eq!(drain(&mut cursor, &content), [1]);
        assert_eq!(cursor.start(&content, 1), Some(1), "START does not name what never comes");
        let resumed = Preferences { frame_start: 3, ..wanted(9000, Some(0), None) };
        cursor.update(&content, resumed);
        assert_eq!(cursor.pick(&content).map(|pick| pick.frame_start), Some(3));
    }

    #[test]
    fn a_new_feed_begins_where_it_says_and_not_with_what_an_old_one_left() {
        for version in [Version::Lite05, Version::Lite06] {
            let mut content = content(&[1, 2]);
            tell(&mut content, Feed::Closed(StreamCode::CANCEL));
            let mut live = Cursor::join(&content, version, wanted(9000, None, None));
            let mut past = Cursor::join(&content, version, wanted(9000, Some(1), None));
            tell(&mut content, Feed::Start(7));
            add(&mut content, 7);
            assert_eq!(drain(&mut live, &content), [7], "{version}");
            assert_eq!(live.start(&content, 7), Some(7));
            assert_eq!(drain(&mut past, &content), [1, 2, 7], "{version}");
        }
    }

    #[test]
    fn a_group_that_was_cut_off_is_served_when_it_comes_again() {
        let mut content = content(&[]);
        let mut cursor = Cursor::join(&content, Version::Lite06, wanted(9000, None, None));
        let cut = Some(GroupEnd::Aborted(StreamCode::CANCEL));
        tell(&mut content, Feed::Piece(Piece { ends: cut, ..piece(0) }));
        assert!(drain(&mut cursor, &content).is_empty());
        add(&mut content, 0);
        assert_eq!(drain(&mut cursor, &content), [0]);
    }
}
