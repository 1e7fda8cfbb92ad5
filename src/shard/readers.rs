//! Those on one shard who ask about a track or subscribe to it. Whoever comes, goes or changes his mind
//! costs the same however many others there are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::session::streams::StreamId;
use crate::track::demand::{Demand, Demands, Reach};

/// A request of a connection.
pub(super) type Reader = (usize, StreamId);

#[derive(Debug, Default)]
pub(super) struct Readers {
    /// Those who ask what the track is like.
    questions: BTreeSet<Reader>,
    /// An empty range is no demand.
    subscribers: BTreeMap<Reader, Option<Demand>>,
    /// All of those.
    demands: Demands,
    waiting: Waiting,
}

/// Subscribers who reach further back than what is here, in the order in which they will be covered: a viewer reaches
/// to an age or, on older versions, to a start.
#[derive(Debug, Default)]
struct Waiting {
    to_age: BTreeMap<(u64, Reader), Reach>,
    to_start: BTreeMap<(Reverse<u64>, Reader), Reach>,
}

impl Waiting {
    fn insert(&mut self, reader: Reader, reach: Reach) {
        match reach.max_age_ms {
            Some(age) => self.to_age.insert((age, reader), reach),
            None => self.to_start.insert((Reverse(reach.start), reader), reach),
        };
    }

    fn remove(&mut self, reader: Reader, reach: Reach) {
        match reach.max_age_ms {
            Some(age) => self.to_age.remove(&(age, reader)),
            None => self.to_start.remove(&(Reverse(reach.start), reader)),
        };
    }
}

impl Readers {
    pub fn ask(&mut self, reader: Reader) {
        self.questions.insert(reader);
    }

    /// One who is new, or wants something else than before. Without a place he waits for what he reaches back to.
    pub fn subscribe(&mut self, reader: Reader, demand: Option<Demand>, is_placed: bool) {
        self.unsubscribe(reader);
        self.subscribers.insert(reader, demand);
        if let Some(demand) = demand {
            self.demands.add(demand);
        }
        if !is_placed {
            self.waiting.insert(reader, Reach::of_demand(demand));
        }
    }

    pub fn remove(&mut self, reader: Reader) {
        self.questions.remove(&reader);
        self.unsubscribe(reader);
    }

    fn unsubscribe(&mut self, reader: Reader) {
        let Some(demand) = self.subscribers.remove(&reader) else { return };
        self.waiting.remove(reader, Reach::of_demand(demand));
        if let Some(demand) = demand {
            self.demands.remove(demand);
        }
    }

    /// Those who waited and reach no further than this covers. It costs nothing of those who wait on.
    pub fn take_covered(&mut self, covers: impl Fn(Reach) -> bool) -> Vec<Reader> {
        let mut covered = Vec::new();
        while let Some(first) = self.waiting.to_age.first_entry()
            && covers(*first.get())
        {
            covered.push(first.remove_entry().0.1);
        }
        while let Some(first) = self.waiting.to_start.first_entry()
            && covers(*first.get())
        {
            covered.push(first.remove_entry().0.1);
        }
        covered
    }

    pub fn is_empty(&self) -> bool {
        self.questions.is_empty() && self.subscribers.is_empty()
    }

    pub fn has_questions(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Those who ask what the track is like, who then are readers no more.
    pub fn take_questions(&mut self) -> BTreeSet<Reader> {
        std::mem::take(&mut self.questions)
    }

    pub fn subscribers_len(&self) -> usize {
        self.subscribers.len()
    }

    pub fn subscribers(&self) -> impl Iterator<Item = Reader> + '_ {
        self.subscribers.keys().copied()
    }

    /// What subscribers want together.
    pub fn demand(&self) -> Option<Demand> {
        self.demands.merged()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn demand(start: u64, max_age_ms: Option<u64>) -> Option<Demand> {
        Some(Demand { reach: Reach { start, max_age_ms }, ..Demand::NEWEST })
    }

    #[test]
    fn who_waits_is_looked_at_when_it_is_covered_and_not_before() {
        let mut readers = Readers::default();
        for at in 0..100 {
            let key = StreamId(at);
            readers.subscribe((0, key), demand(u64::MAX, Some(at)), false);
            readers.subscribe((1, key), demand(at, None), false);
            readers.subscribe((2, key), demand(u64::MAX, Some(at)), true);
        }
        // One leaves, one wants less, one was placed meanwhile.
        readers.remove((0, StreamId(3)));
        readers.subscribe((1, StreamId(0)), demand(99, None), false);
        readers.subscribe((0, StreamId(4)), demand(u64::MAX, Some(4)), true);
        for (here, expect) in [
            (Reach::NEWEST, 0),
            (Reach { start: u64::MAX, max_age_ms: Some(9) }, 8),
            (Reach { start: 98, max_age_ms: Some(9) }, 3),
            (Reach::ALL, 90 + 97),
            (Reach::ALL, 0),
        ] {
            let looked = Cell::new(0);
            let covers = |reach| {
                looked.set(looked.get() + 1);
                here.covers(reach)
            };
            assert_eq!(readers.take_covered(covers).len(), expect, "{here:?}");
            assert!(looked.get() <= expect + 2, "{here:?}: {looked:?}");
        }
    }
}
