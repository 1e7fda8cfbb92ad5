//! Where one viewer is in a track: which group comes next, and where delivery began (spec §4.7,
//! §4.9).

use super::content::{Content, Run};
use super::group::{Group, GroupEnd};
use super::seen::Seen;
use crate::limits::GROUPS_LOOKED_AT_MAX;
use crate::wire::{Preferences, VARINT_MAX, Version};

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
///
/// It is as small and as quick however many groups there are. What was passed over is not listed: it is
/// what came before `next` and is not among those that were served.
#[derive(Debug)]
pub struct Cursor {
    version: Version,
    wanted: Preferences,
    /// The run that it is in, and how much higher it counts than that does.
    run: Run,
    shift: u64,
    /// Groups below are not served.
    floor: u64,
    /// From this sequence on groups that came before `next` are due, in sequence order and before
    /// anything newer: they may have arrived slightly reordered, and all of them are here.
    backlog: Option<u64>,
    /// Arrival number of the next group to look at.
    next: u64,
    /// The sequences of groups of this run that were served.
    served: Seen,
    /// There is more to look at than one go allows.
    is_interrupted: bool,
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
            backlog: None,
            next: content.next_arrival(),
            served: Seen::default(),
            is_interrupted: false,
            joined_at: 0,
            started: false,
        };
        let oldest = cursor.revisit(content);
        // Before the feed has said where it starts, what is here says nothing of that.
        let oldest = oldest.filter(|_| content.feed_start.is_some());
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
        self.next = content.run_begins();
        self.backlog = None;
        self.served = Seen::default();
    }

    /// The next group to serve, if one is ready.
    pub fn pick(&mut self, content: &Content) -> Option<Pick> {
        if self.run != content.run() {
            self.enter_run(content);
        }
        // START must not name a group above one that this relay's own feed will still bring.
        let feed_start = content.feed_start?;
        for _ in 0..GROUPS_LOOKED_AT_MAX {
            let due = self.next_due(content, feed_start);
            let is_new = due.is_none();
            let (arrival, group) = match due {
                Some(due) => due,
                None => content.next_group(self.next)?,
            };
            if is_new {
                self.next = arrival + 1;
            } else if arrival >= self.next {
                // Its turn comes with what is new.
                continue;
            }
            if let Some(pick) = self.consider(arrival, group, feed_start) {
                self.note_served(content, pick.sequence);
                return Some(pick);
            }
            if is_new {
                // Whatever came of it before, this copy was not served.
                self.served.remove(group.sequence);
            }
        }
        self.is_interrupted = true;
        None
    }

    /// Whether the last of these found none among as many groups as are looked at in one go.
    pub fn take_interruption(&mut self) -> bool {
        std::mem::take(&mut self.is_interrupted)
    }

    /// The next group of the backlog.
    fn next_due<'a>(&mut self, content: &'a Content, feed_start: u64) -> Option<(u64, &'a Group)> {
        let mut from = self.backlog?.max(self.lowest());
        if self.wanted.group_start.is_none() {
            from = from.max(feed_start);
        }
        let due = self
            .unserved(content, from)
            .filter(|(_, group)| self.covers(self.number(group.sequence)));
        self.backlog = due.map(|(_, group)| group.sequence + 1);
        due
    }

    /// Whether and how a group is served, now that its turn has come.
    #[inline]
    fn consider(&mut self, arrival: u64, group: &Group, feed_start: u64) -> Option<Pick> {
        let (sequence, run) = (group.sequence, self.run);
        // What an earlier feed has left is for those who ask for it.
        let is_left_over = sequence < feed_start && self.wanted.group_start.is_none();
        let number = self.number(sequence);
        if !self.covers(number) || is_left_over {
            return None;
        }
        if matches!(group.end, Some(GroupEnd::Aborted(_))) {
            return None;
        }
        let frame_start = match self.wanted.group_start {
            Some(first) if first == number => self.wanted.frame_start,
            _ => 0,
        };
        if group.frame_start > frame_start {
            // Its head is gone, and a part that nobody asked for is of no use. START does not
            // name it either.
            if !self.started && sequence == feed_start.max(self.joined_at) {
                self.joined_at = sequence + 1;
            }
            return None;
        }
        let frame_end = match self.wanted.group_end {
            Some(last) if last == number => self.wanted.frame_end,
            _ => None,
        };
        Some(Pick { arrival, sequence, number, run, frame_start, frame_end })
    }

    fn note_served(&mut self, content: &Content, sequence: u64) {
        if self.served.extend(sequence) {
            return;
        }
        if self.served.is_full() {
            // No update brings back what is gone.
            let next = |gap: u64| content.group_from(gap).map(|(_, group)| group.sequence);
            self.served.thin_out(|gap| next(gap.start).is_none_or(|held| held >= gap.end));
        }
        self.served.insert(sequence);
    }

    /// The value of START when `sequence` is the first group served; None once it was given.
    pub fn start(&mut self, content: &Content, sequence: u64) -> Option<u64> {
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
        self.revisit(content);
    }

    /// Whether a group waits above the end that was asked for: an update may still call for it,
    /// so the subscription is not over.
    pub fn is_parked(&self, content: &Content) -> bool {
        let Some(last) = self.wanted.group_end else { return false };
        if self.run != content.run() {
            return false;
        }
        let mut from = (last + 1).saturating_sub(self.shift);
        for _ in 0..GROUPS_LOOKED_AT_MAX {
            let Some((_, group)) = self.unserved(content, from) else { return false };
            if !matches!(group.end, Some(GroupEnd::Aborted(_))) {
                return true;
            }
            from = group.sequence + 1;
        }
        true
    }

    /// What this viewer knows a group of this run by. A publisher that uses up all numbers gets no more.
    fn number(&self, sequence: u64) -> u64 {
        (sequence + self.shift).min(VARINT_MAX)
    }

    fn covers(&self, number: u64) -> bool {
        number >= self.floor && self.wanted.group_end.is_none_or(|last| number <= last)
    }

    /// The floor, as this run counts.
    fn lowest(&self) -> u64 {
        self.floor.saturating_sub(self.shift)
    }

    /// The first group from a sequence on that was not served.
    fn unserved<'a>(&self, content: &'a Content, from: u64) -> Option<(u64, &'a Group)> {
        let mut from = self.served.first_missing(from);
        loop {
            let (arrival, group) = content.group_from(from)?;
            from = self.served.first_missing(group.sequence);
            if from == group.sequence {
                return Some((arrival, group));
            }
        }
    }

    /// Begins anew with what is here and was not served; the lowest sequence of that.
    fn revisit(&mut self, content: &Content) -> Option<u64> {
        // Only lite-06 lets the age decide where to begin; elsewhere it acts on stuck streams
        // alone (spec §4.7, §4.10).
        let fresh = match self.version {
            Version::Lite06 => content.first_within(self.wanted.max_age_ms),
            _ => 0,
        };
        let mut first = self.unserved(content, fresh.max(self.lowest()));
        // What is only there for its readers to learn that it is not is nothing to begin with.
        for _ in 0..GROUPS_LOOKED_AT_MAX {
            let Some((_, gone)) = first.filter(|(_, group)| group.is_evicted) else { break };
            first = self.unserved(content, gone.sequence + 1);
        }
        let first = first.map(|(_, group)| group.sequence);
        self.backlog = first.filter(|sequence| self.covers(self.number(*sequence)));
        self.backlog
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

    /// It would tell its viewers that they begin there.
    #[test]
    fn a_mirror_is_not_told_of_groups_that_were_let_go_of() {
        let mut mirror = Mirror::new(&[2, 3, 4, 5]);
        let arrivals: Vec<u64> = mirror.home.groups().map(|(arrival, _)| arrival).collect();
        mirror.home.evict(arrivals[0], true);
        mirror.home.evict(arrivals[1], true);
        let wanted = wanted(9000, None, None);
        assert_eq!(mirror.sync(Version::Lite06, wanted), [5, 4]);
        let starts = [&mirror.home, &mirror.copy].map(|content| {
            let mut cursor = Cursor::join(content, Version::Lite06, wanted);
            let first = cursor.pick(content).expect("a group");
            cursor.start(content, first.number)
        });
        assert_eq!(starts, [Some(4), Some(4)]);
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
        assert_eq!(mirror.sync(Lite05, wanted(0, Some(5), None)), [0; 0]);
        assert_eq!(mirror.sync(Lite06, wanted(3500, None, None)), [3]);
        assert_eq!(mirror.sync(Lite05, wanted(0, Some(0), None)), [2]);
        assert_eq!(mirror.sync(Lite06, wanted(u64::MAX, None, None)), [0; 0]);
        assert_eq!(mirror.home.sync(&mut mirror.told, Reach::ALL).len(), 0);
        // Of another run everything.
        let mut mirror = Mirror::new(&[2, 3, 6]);
        assert_eq!(mirror.sync(Lite05, wanted(0, None, None)), [6]);
        for content in [&mut mirror.home, &mut mirror.copy] {
            tell(content, Feed::NewRun(StreamCode::CANCEL));
        }
        (0..9).for_each(|sequence| mirror.live(sequence));
        assert_eq!(mirror.sync(Lite06, wanted(2000, None, None)), [0; 0]);
        assert_eq!(mirror.sync(Lite05, wanted(0, Some(1), None)), [0; 0]);
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

    #[test]
    fn a_viewer_is_told_to_come_again_where_there_is_much_to_pass_over() {
        let mut content = content(&[0]);
        content.info = Some(TrackInfo { timescale: 1_000_000, ..content.info.unwrap() });
        let mut cursor = Cursor::join(&content, Version::Lite05, wanted(0, Some(1000), None));
        (1..=1000).for_each(|sequence| add(&mut content, sequence));
        let mut goes = 1;
        let pick = loop {
            match cursor.pick(&content) {
                Some(pick) => break pick,
                None => assert!(cursor.take_interruption(), "after {goes}"),
            }
            goes += 1;
        };
        assert_eq!((pick.sequence, goes), (1000, 1000_usize.div_ceil(GROUPS_LOOKED_AT_MAX)));
        assert_eq!(cursor.pick(&content), None);
        assert!(!cursor.take_interruption());
    }

    /// Groups that one run of this looks at.
    fn looked_at(content: &Content, run: impl FnOnce()) -> u64 {
        content.take_looked_at();
        run();
        content.take_looked_at()
    }

    #[test]
    fn a_place_is_found_among_many_groups_by_looking_at_few() {
        let count = 100_000;
        let mut content = Content::default();
        let max_age_ms = crate::limits::TRACK_MAX_AGE_MS_MAX;
        tell(&mut content, Feed::Info(TrackInfo { priority: 0, max_age_ms, timescale: 1_000_000 }));
        tell(&mut content, Feed::Start(0));
        (0..count).for_each(|sequence| add(&mut content, sequence));
        for version in [Version::Lite05, Version::Lite06] {
            let bounds = [
                wanted(0, None, None),
                wanted(50_000, None, None),
                wanted(u64::MAX, Some(3), Some(5)),
                wanted(u64::MAX, Some(count - 9), None),
                wanted(u64::MAX, Some(2), None),
                wanted(u64::MAX, None, Some(7)),
                wanted(0, Some(count), None),
            ];
            for first in bounds {
                let mut cursor = None;
                let join = || cursor = Some(Cursor::join(&content, version, first));
                assert!(looked_at(&content, join) <= 20, "{version} {first:?}");
                let mut cursor = cursor.unwrap();
                for then in bounds {
                    let update = || cursor.update(&content, then);
                    assert!(looked_at(&content, update) <= 20, "{version} {then:?}");
                    let pick = || _ = (cursor.pick(&content), cursor.is_parked(&content));
                    assert!(looked_at(&content, pick) <= 4, "{version} {then:?}");
                }
            }
        }
    }

    #[test]
    fn what_a_viewer_costs_has_a_bound_and_nothing_is_served_twice() {
        let mut content = content(&[]);
        let served = |cursor: &mut Cursor, content: &Content, bounds| {
            cursor.update(content, bounds);
            drain(cursor, content)
        };
        let mut cursor = Cursor::join(&content, Version::Lite05, wanted(0, Some(0), None));
        // A publisher that counts in tens, and keeps little.
        for sequence in (0..20_000).step_by(10) {
            add(&mut content, sequence);
            assert_eq!(drain(&mut cursor, &content), [sequence]);
        }
        assert!(served(&mut cursor, &content, wanted(0, Some(0), None)).is_empty());

        // A viewer that takes every other group.
        let held: Vec<u64> = (20_000..21_000).collect();
        cursor.update(&content, wanted(0, Some(30_000), None));
        let info = TrackInfo { priority: 0, max_age_ms: 10_000, timescale: 1_000_000 };
        content.info = Some(info);
        held.iter().for_each(|sequence| add(&mut content, *sequence));
        for sequence in held.iter().copied().step_by(2) {
            let bounds = wanted(0, Some(sequence), Some(sequence));
            assert_eq!(served(&mut cursor, &content, bounds), [sequence]);
        }
        let rest = served(&mut cursor, &content, wanted(0, Some(20_000), None));
        assert!(rest.iter().all(|sequence| sequence % 2 == 1), "{rest:?}");
        assert!(rest.len() >= 30, "the latest gaps are still open: {rest:?}");
        assert!(served(&mut cursor, &content, wanted(0, Some(0), None)).is_empty());
    }
}
