//! Groups that are asked for one by one: who waits for which, and what is asked further up
//! (spec §4.13, §5.4).
//!
//! The same table at a track's home, where asking further up is a FETCH to the publisher, and at
//! a mirror, where it is a message to the home.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

/// Names one fetch among those of a track copy on one shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FetchId(pub u32);

/// Who has asked, for taking turns: a number that others who ask at the time do not have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Asker(pub u64);

/// What is wanted of a group: all of it from a frame on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    pub group: u64,
    pub frame_start: u64,
    /// Higher is more important.
    pub priority: u8,
    /// The first of those who wait.
    pub asker: Asker,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Nobody has been asked.
    Unsent,
    /// Asked, and not a byte has come.
    Sent,
    /// The group is here, under this arrival number, and grows.
    Open(u64),
}

#[derive(Clone, Copy, Debug)]
pub struct Fetch {
    pub ask: Ask,
    pub stage: Stage,
    /// Those who wait for the group or read it while it grows.
    readers: u32,
}

/// The fetches of a track that are not over.
#[derive(Debug, Default)]
pub struct Fetches {
    running: FxHashMap<FetchId, Fetch>,
    /// The fetches of each group, newest last. In a tree, for peers choose the numbers.
    by_group: BTreeMap<u64, Vec<FetchId>>,
    /// Those that nobody has been asked for, in the order of asking.
    unsent: BTreeSet<FetchId>,
    next: u32,
}

impl Fetches {
    pub fn len(&self) -> usize {
        self.running.len()
    }

    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub fn get(&self, id: FetchId) -> Option<&Fetch> {
        self.running.get(&id)
    }

    /// The fetches of a group.
    pub fn of_group(&self, group: u64) -> &[FetchId] {
        self.by_group.get(&group).map_or(&[], Vec::as_slice)
    }

    /// One more reader of a group: of a fetch that brings what it wants, if there is one.
    pub fn join(&mut self, ask: Ask) -> FetchId {
        let same = self.by_group.entry(ask.group).or_default();
        for id in same.iter() {
            // The two tables are changed together.
            let Some(fetch) = self.running.get_mut(id) else { continue };
            let is_unsent = fetch.stage == Stage::Unsent;
            if is_unsent {
                fetch.ask.priority = fetch.ask.priority.max(ask.priority);
                fetch.ask.frame_start = fetch.ask.frame_start.min(ask.frame_start);
            }
            if fetch.ask.frame_start <= ask.frame_start {
                fetch.readers += 1;
                return *id;
            }
        }
        let id = FetchId(self.next);
        self.next = self.next.wrapping_add(1);
        same.push(id);
        self.running.insert(id, Fetch { ask, stage: Stage::Unsent, readers: 1 });
        self.unsent.insert(id);
        id
    }

    /// One more reader of a group that a fetch is bringing; that fetch.
    pub fn join_open(&mut self, group: u64, arrival: u64) -> Option<FetchId> {
        let same = self.by_group.get(&group)?;
        let is_it = |id: &&FetchId| {
            self.running.get(id).is_some_and(|fetch| fetch.stage == Stage::Open(arrival))
        };
        let id = *same.iter().find(is_it)?;
        self.running.get_mut(&id)?.readers += 1;
        Some(id)
    }

    /// One reader less. The fetch, if that was its last: it is forgotten.
    pub fn leave(&mut self, id: FetchId) -> Option<Fetch> {
        let fetch = self.running.get_mut(&id)?;
        fetch.readers -= 1;
        if fetch.readers == 0 { self.remove(id) } else { None }
    }

    /// Those that nobody has been asked for yet, in the order of asking.
    pub fn unsent(&self) -> impl Iterator<Item = (FetchId, &Fetch)> {
        self.unsent.iter().filter_map(|id| Some((*id, self.running.get(id)?)))
    }

    pub fn set_stage(&mut self, id: FetchId, stage: Stage) {
        let Some(fetch) = self.running.get_mut(&id) else { return };
        fetch.stage = stage;
        match stage {
            Stage::Unsent => self.unsent.insert(id),
            Stage::Sent | Stage::Open(_) => self.unsent.remove(&id),
        };
    }

    /// Whether any has begun to bring its group.
    pub fn has_open(&self) -> bool {
        self.running.values().any(|fetch| matches!(fetch.stage, Stage::Open(_)))
    }

    pub fn is_unsent(&self, id: FetchId) -> bool {
        self.unsent.contains(&id)
    }

    /// It is over, or nobody is to be asked for it any more.
    pub fn remove(&mut self, id: FetchId) -> Option<Fetch> {
        let fetch = self.running.remove(&id)?;
        self.unsent.remove(&id);
        if let Some(same) = self.by_group.get_mut(&fetch.ask.group) {
            same.retain(|other| *other != id);
            if same.is_empty() {
                self.by_group.remove(&fetch.ask.group);
            }
        }
        Some(fetch)
    }

    /// All of them, in the order of asking.
    pub fn ids(&self) -> Vec<FetchId> {
        let mut ids: Vec<FetchId> = self.running.keys().copied().collect();
        ids.sort_unstable();
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(group: u64, frame_start: u64, priority: u8) -> Ask {
        Ask { group, frame_start, priority, asker: Asker(1) }
    }

    #[test]
    fn asks_for_one_group_share_a_fetch() {
        let mut fetches = Fetches::default();
        let first = fetches.join(ask(5, 3, 1));
        assert_eq!(fetches.join(ask(5, 1, 9)), first, "not sent yet: it is widened");
        assert_eq!(fetches.get(first).unwrap().ask, ask(5, 1, 9));
        fetches.set_stage(first, Stage::Sent);
        assert_eq!(fetches.join(ask(5, 2, 200)), first);
        assert_eq!(fetches.get(first).unwrap().ask.priority, 9, "it is on its way");
        let lower = fetches.join(ask(5, 0, 1));
        assert_ne!(lower, first, "it begins too late for this one");
        assert_ne!(fetches.join(ask(6, 3, 1)), first);
        assert_eq!(fetches.unsent().count(), 2);
        assert_eq!(fetches.of_group(5), [first, lower]);
    }

    #[test]
    fn the_last_reader_takes_the_fetch_along() {
        let mut fetches = Fetches::default();
        let id = fetches.join(ask(5, 0, 1));
        fetches.join(ask(5, 0, 1));
        fetches.set_stage(id, Stage::Open(7));
        assert_eq!(fetches.join_open(5, 7), Some(id));
        assert_eq!(fetches.join_open(5, 6), None);
        assert!(fetches.leave(id).is_none());
        assert!(fetches.leave(id).is_none());
        assert_eq!(fetches.leave(id).map(|fetch| fetch.stage), Some(Stage::Open(7)));
        assert!(fetches.leave(id).is_none(), "it was forgotten");
        assert!(fetches.is_empty() && fetches.of_group(5).is_empty());
        assert_ne!(fetches.join(ask(5, 0, 1)), id);
    }
}
