//! Who is asked next for a single group, and how many at a time (spec §4.13): released publishers send
//! what is fetched before what is live, so that whoever fetches takes their uplink from all viewers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::limits::{FETCH_BYTES_BESIDE_LIVE, FETCH_REST_MAX, FETCH_REST_TIMES, FETCHES_AT_ONCE};
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
    /// Asked for and not over; of these, those whose answer has begun.
    running: usize,
    running_bytes: u64,
    begun: usize,
    begun_at: Option<Instant>,
    rests_until: Option<Instant>,
}

impl FetchTurns {
    /// Each asker has one in every turn. Later ones have as long to be answered.
    pub fn enter(&mut self, asker: Asker, key: FetchKey, answer_by: Instant) -> Waits {
        let turn = self.last.get(&asker).map_or(self.turn, |last| last + 1).max(self.turn);
        self.last.insert(asker, turn);
        let waits = (turn, self.next);
        self.next += 1;
        self.waiting.insert(waits, key);
        self.unanswered.insert(waits.1, (answer_by, key));
        waits
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

    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub fn next(&self) -> Option<FetchKey> {
        self.waiting.first_key_value().map(|(_, key)| *key)
    }

    /// Whether one of so many bytes may be asked for now. Beside a live feed there are few at once,
    /// and what they take of the uplink it has to itself for several times as long.
    pub fn has_room(&self, now: Instant, is_live: bool, bytes: u64) -> bool {
        let is_small = self.running == 0 || self.running_bytes + bytes <= FETCH_BYTES_BESIDE_LIVE;
        let rests = self.rests_until.is_some_and(|until| now < until);
        self.running < FETCHES_AT_ONCE && (!is_live || is_small && !rests)
    }

    /// The next one, of about so many bytes, has been asked for.
    pub fn asked(&mut self, bytes: u64) {
        let Some(((turn, _), _)) = self.waiting.pop_first() else { return };
        self.running += 1;
        self.running_bytes += bytes;
        if turn > self.turn {
            self.turn = turn;
            self.last.retain(|_, last| *last >= turn);
        }
        if self.waiting.is_empty() {
            self.last.clear();
        }
    }

    /// The answer of one has begun.
    pub fn begun(&mut self, waits: Waits, now: Instant) {
        self.unanswered.remove(&waits.1);
        self.begun += 1;
        self.begun_at.get_or_insert(now);
    }

    /// One that was asked for is over.
    pub fn over(&mut self, waits: Waits, bytes: u64, now: Instant, has_begun: bool) {
        self.unanswered.remove(&waits.1);
        self.running -= 1;
        self.running_bytes -= bytes;
        self.begun -= usize::from(has_begun);
        if self.begun == 0
            && let Some(since) = self.begun_at.take()
        {
            let rest = (now.duration_since(since) * FETCH_REST_TIMES).min(FETCH_REST_MAX);
            self.rests_until = Some(now + rest).filter(|_| rest > Duration::ZERO);
        }
    }

    /// When something may be asked for that now has to wait, or is given up.
    pub fn deadline(&self) -> Option<Instant> {
        let rests_until = self.rests_until.filter(|_| self.is_waiting());
        let answer_by = self.unanswered.first_key_value().map(|(_, (by, _))| *by);
        rests_until.into_iter().chain(answer_by).min()
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
            self.turns.asked(bytes);
            Some(id)
        }

        fn begins(&mut self, id: u32) {
            self.turns.begun(self.entered[&id], self.now);
        }

        fn over(&mut self, id: u32, has_begun: bool) {
            self.turns.over(self.entered[&id], 0, self.now, has_begun);
        }

        /// One after the other.
        fn order(&mut self) -> Vec<u32> {
            let mut order = Vec::new();
            while let Some(id) = self.ask(false) {
                self.over(id, false);
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
            play.turns.over(play.entered[&0], bytes, play.now, false);
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
        for (after, id, ends) in [(500, 0, false), (50, 1, false), (50, 0, true), (100, 1, true)] {
            play.now += ms(after);
            match ends {
                true => play.over(id, true),
                false => play.begins(id),
            }
        }
        assert_eq!(play.turns.deadline(), Some(play.now + FETCH_REST_TIMES * ms(200)));
        play.now += FETCH_REST_TIMES * ms(200) - ms(1);
        assert_eq!(play.ask(true), None);
        assert_eq!(play.ask(false), Some(2), "there is no live feed");
        play.now += ms(1);
        assert_eq!(play.ask(true), Some(3));
        // However long that took.
        play.begins(3);
        play.now += 10 * FETCH_REST_MAX;
        play.over(3, true);
        assert_eq!(play.turns.rests_until, Some(play.now + FETCH_REST_MAX));
    }

    #[test]
    fn who_waits_for_an_answer_waits_no_longer_than_that() {
        let mut play = Play::new();
        play.enter(1, 0..1);
        play.now += ms(1000);
        play.enter(1, 1..4);
        (0..3).for_each(|_| _ = play.ask(false));
        play.begins(1);
        play.over(2, false);
        assert_eq!(play.turns.deadline(), Some(play.now + ms(7000)));
        play.now += ms(7000);
        assert_eq!(play.turns.due(play.now), Some((0, FetchId(0))));
        play.over(0, false);
        assert_eq!(play.turns.due(play.now), None);
        play.now += ms(1000);
        assert_eq!(play.turns.due(play.now), Some((0, FetchId(3))), "nobody was asked");
    }
}
