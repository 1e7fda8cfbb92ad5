//! Handshakes in progress, by where they come from. When there are too many, the source with the most
//! loses its oldest: a lone one may have all the room that there is, and nobody locks others out. A source
//! that may have no more sessions than so many has no more handshakes either, and loses its oldest too.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::source::Source;

/// Names a handshake in progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    source: Source,
    /// Counts up, so the least is the oldest.
    number: u64,
}

/// A source that has more comes after one that has less, and of equals the one whose oldest is older.
type Rank = (usize, Reverse<u64>, Source);

#[derive(Debug, Default)]
pub struct Handshakes {
    next_number: u64,
    len: usize,
    /// The connection slots of each source, by number; no source has none.
    sources: BTreeMap<Source, BTreeMap<u64, usize>>,
    ranks: BTreeSet<Rank>,
}

impl Handshakes {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn begin(&mut self, slot: usize, source: Source) -> Ticket {
        let number = self.next_number;
        self.next_number += 1;
        self.len += 1;
        self.change(source, |slots| slots.insert(number, slot));
        Ticket { source, number }
    }

    /// A handshake is complete, or given up. Each ends once.
    pub fn end(&mut self, ticket: Ticket) {
        self.len -= 1;
        self.change(ticket.source, |slots| slots.remove(&ticket.number));
    }

    /// The connection that is to leave first: the oldest of the source that has the most.
    pub fn first_to_leave(&self) -> Option<usize> {
        let (_, Reverse(oldest), source) = self.ranks.last()?;
        Some(self.sources[source][oldest])
    }

    /// How many a source has.
    pub fn of(&self, source: Source) -> usize {
        self.sources.get(&source).map_or(0, BTreeMap::len)
    }

    /// The connection of its oldest.
    pub fn oldest_of(&self, source: Source) -> Option<usize> {
        let (_, slot) = self.sources.get(&source)?.first_key_value()?;
        Some(*slot)
    }

    fn change<T>(&mut self, source: Source, change: impl FnOnce(&mut BTreeMap<u64, usize>) -> T) {
        let slots = self.sources.entry(source).or_default();
        if let Some(rank) = rank(source, slots) {
            self.ranks.remove(&rank);
        }
        change(slots);
        match rank(source, slots) {
            Some(rank) => {
                self.ranks.insert(rank);
            }
            None => {
                self.sources.remove(&source);
            }
        }
    }
}

fn rank(source: Source, slots: &BTreeMap<u64, usize>) -> Option<Rank> {
    let (oldest, _) = slots.first_key_value()?;
    Some((slots.len(), Reverse(*oldest), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ip: &str) -> Source {
        Source::of(ip.parse().unwrap())
    }

    #[test]
    fn the_source_with_the_most_loses_its_oldest() {
        let mut table = Handshakes::default();
        assert_eq!(table.first_to_leave(), None);
        let few: Vec<Ticket> = (0..2).map(|slot| table.begin(slot, at("10.0.0.1"))).collect();
        let many: Vec<Ticket> = (2..6).map(|slot| table.begin(slot, at("10.0.0.2"))).collect();
        assert_eq!((table.len(), table.first_to_leave()), (6, Some(2)));
        assert_eq!((table.of(at("10.0.0.1")), table.oldest_of(at("10.0.0.1"))), (2, Some(0)));
        assert_eq!((table.of(at("10.0.0.3")), table.oldest_of(at("10.0.0.3"))), (0, None));
        table.end(many[1]);
        assert_eq!(table.first_to_leave(), Some(2));
        table.end(many[0]);
        // Both have as many now: the older one leaves.
        assert_eq!(table.first_to_leave(), Some(0));
        for ticket in few.iter().chain(&many[2..]) {
            table.end(*ticket);
        }
        assert_eq!((table.len(), table.first_to_leave()), (0, None));
        assert!(table.sources.is_empty() && table.ranks.is_empty());
    }

    #[test]
    fn a_lone_source_has_all_the_room_and_loses_its_own_oldest() {
        let mut table = Handshakes::default();
        (0..100).for_each(|slot| _ = table.begin(slot, at("10.0.0.1")));
        assert_eq!(table.first_to_leave(), Some(0));
        // Others who come, one each, do not change that.
        (100..150).for_each(|slot| {
            table.begin(slot, at(&format!("10.1.0.{slot}")));
        });
        assert_eq!(table.first_to_leave(), Some(0));
    }
}
