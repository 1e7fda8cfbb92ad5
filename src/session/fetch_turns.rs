//! Who is asked next for a single group, and how many at a time (spec §4.13): released publishers send
//! what is fetched before what is live, so that whoever fetches takes their uplink from all viewers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::limits::{
    FETCH_BYTES_BESIDE_LIVE, FETCH_QUIET, FETCH_REST_MAX, FETCH_REST_TIMES, FETCHES_AT_ONCE,
};
use crate::track::fetch::{Asker, FetchId};

/// Names a fetch of a session: its pull, and its name there.
pub(super) type FetchKey = (usize, FetchId);

/// Where a fetch waits: by turn, then by the order in which they came.
pub(super) type Waits = (u64, u64);

#[derive(Debug, Default)]
pub(super) struct FetchTurns {
    waiting: BTreeMap<Waits, FetchKey>,
    /// By when the publisher must have begun to answer, in the order in which they came.
    unanswered: BTreeMap<u64, (Instant, FetchKey)>,
    /// Which turn it is, and the last one of each asker who still has one to come.
    turn: u64,
    last: FxHashMap<Asker, u64>,
    next: u64,
    /// Asked for and not over, without those of which nothing has come for a while: they cost the
    /// uplink nothing.
    running: FxHashMap<FetchKey, Running>,
    running_bytes: u64,
    /// The same in the order in which they are then left out.
    quiet: BTreeSet<(Instant, FetchKey)>,
    /// Those that have begun, since when there are any, and when something last came.
    begun: usize,
    begun_at: Option<Instant>,
    came_at: Option<Instant>,
    rests_until: Option<Instant>,
}

#[derive(Debug)]
struct Running {
    bytes: u64,
    has_begun: bool,
    quiet_at: Instant,
}

impl FetchTurns {
    /// Each asker has one in every turn. Later ones have as long to be answered.
    pub fn enter(&mut self, asker: Asker, key: FetchKey, answer_by: Instant) -> Waits {
        let waits = self.place(asker);
        self.waiting.insert(waits, key);
        self.unanswered.insert(waits.1, (answer_by, key));
        waits
    }

    fn place(&mut self, asker: Asker) -> Waits {
        let turn = self.last.get(&asker).map_or(self.turn, |last| last + 1).max(self.turn);
        self.last.insert(asker, turn);
        self.next += 1;
        (turn, self.next)
    }

    /// Somebody else waits for it too, in whose turn it comes if that is earlier, and who waits as
    /// long as for one of his own.
    pub fn enter_again(&mut self, waits: Waits, asker: Asker, answer_by: Instant) -> Waits {
        let Some((_, key)) = self.unanswered.remove(&waits.1) else { return waits };
        let mut place = self.place(asker);
        place.0 = place.0.min(waits.0);
        self.unanswered.insert(place.1, (answer_by, key));
        if self.waiting.remove(&waits).is_some() {
            self.waiting.insert(place, key);
        }
        place
    }

    /// It is not wanted any more, before it was asked for.
    pub fn withdraw(&mut self, waits: Waits) {
        self.waiting.remove(&waits);
        self.unanswered.remove(&waits.1);
    }

    /// One that the publisher has not begun to answer in time.
    pub fn due(&self, now: Instant) -> Option<FetchKey> {
        let (by, key) = self.unanswered.first_key_value()?.1;
        (*by <= now).then_some(*key)
    }

    /// The next one, whether or not it may be asked for.
    pub fn next(&self) -> Option<FetchKey> {
        self.waiting.first_key_value().map(|(_, key)| *key)
    }

    /// Whether one of so many bytes may be asked for now. Beside a live feed there are few at once,
    /// and what they take of the uplink it has to itself for several times as long.
    pub fn has_room(&mut self, now: Instant, is_live: bool, bytes: u64) -> bool {
        while let Some((_, key)) = self.quiet.first().filter(|(quiet_at, _)| *quiet_at <= now) {
            self.stop(*key);
        }
        self.rests_until.take_if(|until| *until <= now);
        let is_one = self.running.is_empty();
        let is_small = is_one || self.running_bytes + bytes <= FETCH_BYTES_BESIDE_LIVE;
        let rests = self.rests_until.is_some();
        self.running.len() < FETCHES_AT_ONCE && (!is_live || is_small && !rests)
    }

    /// The next one, of about so many bytes, has been asked for.
    pub fn asked(&mut self, now: Instant, bytes: u64) {
        let Some(((turn, _), key)) = self.waiting.pop_first() else { return };
        self.run(now, key, bytes, false);
        if turn > self.turn {
            self.turn = turn;
            self.last.retain(|_, last| *last >= turn);
        }
        if self.waiting.is_empty() {
            self.last.clear();
        }
    }

    /// Some of the answer to one has come.
    pub fn came(&mut self, waits: Waits, key: FetchKey, now: Instant) {
        self.unanswered.remove(&waits.1);
        self.came_at = Some(now);
        let bytes = match self.running.remove(&key) {
            Some(running) => {
                self.forget(key, &running);
                running.bytes
            }
            None => 0,
        };
        self.begun_at.get_or_insert(now);
        self.run(now, key, bytes, true);
    }

    /// One that was asked for is over.
    pub fn over(&mut self, waits: Waits, key: FetchKey) {
        self.unanswered.remove(&waits.1);
        self.stop(key);
    }

    fn run(&mut self, now: Instant, key: FetchKey, bytes: u64, has_begun: bool) {
        let quiet_at = now + FETCH_QUIET;
        self.running.insert(key, Running { bytes, has_begun, quiet_at });
        self.quiet.insert((quiet_at, key));
        self.running_bytes += bytes;
        self.begun += usize::from(has_begun);
    }

    fn forget(&mut self, key: FetchKey, running: &Running) {
        self.quiet.remove(&(running.quiet_at, key));
        self.running_bytes -= running.bytes;
        self.begun -= usize::from(running.has_begun);
    }

    fn stop(&mut self, key: FetchKey) {
        let Some(running) = self.running.remove(&key) else { return };
        self.forget(key, &running);
        if self.begun > 0 {
            return;
        }
        if let (Some(since), Some(until)) = (self.begun_at.take(), self.came_at) {
            let rest = (until.duration_since(since) * FETCH_REST_TIMES).min(FETCH_REST_MAX);
            self.rests_until = Some(until + rest).filter(|_| rest > Duration::ZERO);
        }
    }

    /// When something may be asked for that now has to wait, or is given up.
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        // Most peers are asked for nothing. What waits is unanswered too.
        let (_, (answer_by, _)) = self.unanswered.first_key_value()?;
        let room_at = self.quiet.first().map(|(quiet_at, _)| *quiet_at);
        let waits_for = self.rests_until.into_iter().chain(room_at);
        waits_for.filter(|_| !self.waiting.is_empty()).chain([*answer_by]).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fetches that are known by their number alone.
    struct Play {
        turns: FetchTurns,
        now: Instant,
        entered: BTreeMap<u32, Waits>,
    }

    impl Play {
        fn new() -> Play {
            Play { turns: FetchTurns::default(), now: Instant::now(), entered: BTreeMap::new() }
        }

        fn enter(&mut self, asker: u64, ids: std::ops::Range<u32>) {
            for id in ids {
                let answer_by = self.now + ms(8000);
                let waits = self.turns.enter(Asker(asker), (0, FetchId(id)), answer_by);
                self.entered.insert(id, waits);
            }
        }

        fn ask(&mut self, is_live: bool) -> Option<u32> {
            self.ask_for(is_live, 0)
        }

        fn ask_for(&mut self, is_live: bool, bytes: u64) -> Option<u32> {
            let (_, FetchId(id)) = self.turns.next()?;
            if !self.turns.has_room(self.now, is_live, bytes) {
                return None;
            }
            self.turns.asked(self.now, bytes);
            Some(id)
        }

        fn comes(&mut self, id: u32) {
            self.turns.came(self.entered[&id], (0, FetchId(id)), self.now);
        }

        fn over(&mut self, id: u32) {
            self.turns.over(self.entered[&id], (0, FetchId(id)));
        }

        /// One after the other.
        fn order(&mut self) -> Vec<u32> {
            let mut order = Vec::new();
            while let Some(id) = self.ask(false) {
                self.over(id);
                order.push(id);
            }
            order
        }
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn askers_take_turns() {
        let mut play = Play::new();
        play.enter(1, 0..5);
        play.enter(2, 10..12);
        play.turns.withdraw(play.entered[&10]);
        play.enter(3, 20..21);
        assert_eq!(play.order(), [0, 20, 1, 11, 2, 3, 4]);
        assert!(play.turns.last.is_empty() && play.turns.unanswered.is_empty());
        // Who had many before is not behind for that.
        play.enter(1, 5..6);
        play.enter(2, 12..13);
        assert_eq!(play.order(), [5, 12]);
    }

    #[test]
    fn who_comes_later_is_not_ahead_of_all() {
        let mut play = Play::new();
        play.enter(1, 0..4);
        assert_eq!([play.ask(false), play.ask(false)], [Some(0), Some(1)]);
        play.enter(2, 10..12);
        assert_eq!(play.order(), [10, 2, 11, 3]);
    }

    #[test]
    fn few_at_once_beside_a_live_feed() {
        let budget = FETCH_BYTES_BESIDE_LIVE;
        let table = [
            (false, u64::MAX / 100, FETCHES_AT_ONCE),
            (true, 2 * budget, 1),
            (true, budget, 1),
            (true, budget / 4, 4),
            (true, 1, FETCHES_AT_ONCE),
        ];
        for (is_live, bytes, most) in table {
            let mut play = Play::new();
            play.enter(1, 0..100);
            assert_eq!(std::iter::from_fn(|| play.ask_for(is_live, bytes)).count(), most);
            play.over(0);
            let again = [play.ask_for(is_live, bytes), play.ask_for(is_live, bytes)];
            assert_eq!(again, [Some(most as u32), None]);
        }
    }

    #[test]
    fn the_live_feed_has_the_uplink_to_itself_for_longer() {
        let mut play = Play::new();
        play.enter(1, 0..9);
        assert_eq!([play.ask(true), play.ask(true)], [Some(0), Some(1)]);
        // Only while something comes.
        for (after, id) in [(500, 0), (50, 1), (50, 0), (100, 1)] {
            play.now += ms(after);
            play.comes(id);
        }
        play.over(0);
        play.over(1);
        let rests_until = play.now + FETCH_REST_TIMES * ms(200);
        assert_eq!(play.turns.deadline(), Some(rests_until));
        play.now = rests_until - ms(1);
        assert_eq!(play.ask(true), None);
        assert_eq!(play.ask(false), Some(2), "there is no live feed");
        play.now += ms(1);
        assert_eq!(play.ask(true), Some(3));
        // However long that took.
        for _ in 0..100 {
            play.comes(3);
            play.now += FETCH_REST_MAX / 10;
        }
        play.comes(3);
        play.over(2);
        play.over(3);
        assert_eq!(play.turns.rests_until, Some(play.now + FETCH_REST_MAX));
    }

    #[test]
    fn one_of_which_nothing_comes_holds_up_nobody() {
        for (is_live, bytes) in [(true, 2 * FETCH_BYTES_BESIDE_LIVE), (true, 0), (false, 0)] {
            let mut play = Play::new();
            play.enter(1, 0..50);
            while let Some(id) = play.ask_for(is_live, bytes) {
                play.comes(id);
            }
            let asked = play.turns.running.len() as u32;
            let room_at = play.now + FETCH_QUIET;
            assert_eq!(play.turns.deadline(), Some(room_at));
            play.now = room_at - ms(1);
            assert_eq!(play.ask_for(is_live, bytes), None);
            play.now = room_at;
            assert_eq!(play.ask_for(is_live, bytes), Some(asked));
            // It goes on, and is over.
            play.comes(0);
            assert!(play.turns.running.contains_key(&(0, FetchId(0))));
            (0..=asked).for_each(|id| play.over(id));
            assert!(play.turns.running.is_empty() && play.turns.quiet.is_empty());
            assert_eq!((play.turns.running_bytes, play.turns.begun), (0, 0));
        }
    }

    #[test]
    fn who_joins_another_does_not_wait_in_his_place() {
        let mut play = Play::new();
        play.enter(1, 0..9);
        play.now += ms(7000);
        let answer_by = play.now + ms(8000);
        let again = play.turns.enter_again(play.entered[&7], Asker(2), answer_by);
        play.entered.insert(7, again);
        assert_eq!([play.ask(false), play.ask(false)], [Some(0), Some(7)]);
        // And has his own time.
        play.now += ms(1000);
        for id in [0, 1, 2, 3, 4, 5, 6, 8] {
            assert_eq!(play.turns.due(play.now), Some((0, FetchId(id))));
            play.turns.withdraw(play.entered[&id]);
        }
        assert_eq!(play.turns.deadline(), Some(answer_by));
        let again = play.turns.enter_again(again, Asker(3), answer_by + ms(5));
        assert_eq!(play.turns.deadline(), Some(answer_by + ms(5)), "it was asked for");
        // One that has begun to come has no more to wait for.
        play.entered.insert(7, again);
        play.comes(7);
        assert_eq!(play.turns.enter_again(again, Asker(4), answer_by), again);
        assert!(play.turns.unanswered.is_empty());
    }

    #[test]
    fn who_waits_for_an_answer_waits_no_longer_than_that() {
        let mut play = Play::new();
        play.enter(1, 0..1);
        play.now += ms(1000);
        play.enter(1, 1..4);
        (0..3).for_each(|_| _ = play.ask(false));
        play.comes(1);
        play.over(2);
        play.now += ms(7000) - ms(1);
        assert_eq!(play.turns.due(play.now), None);
        play.now += ms(1);
        assert_eq!(play.turns.due(play.now), Some((0, FetchId(0))));
        play.over(0);
        assert_eq!(play.turns.due(play.now), None);
        play.now += ms(1000);
        assert_eq!(play.turns.due(play.now), Some((0, FetchId(3))), "nobody was asked");
    }
}
