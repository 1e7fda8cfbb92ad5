//! Those on one shard who ask about a track or subscribe to it. Whoever comes, goes or changes his mind
//! costs the same however many others there are.

use std::collections::{BTreeMap, BTreeSet};

use crate::session::streams::StreamId;
use crate::track::demand::{Demand, Demands};

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
}

impl Readers {
    pub fn ask(&mut self, reader: Reader) {
        self.questions.insert(reader);
    }

    /// One who is new, or wants something else than before.
    pub fn subscribe(&mut self, reader: Reader, demand: Option<Demand>) {
        if let Some(before) = self.subscribers.insert(reader, demand).flatten() {
            self.demands.remove(before);
        }
        if let Some(demand) = demand {
            self.demands.add(demand);
        }
    }

    pub fn remove(&mut self, reader: Reader) {
        self.questions.remove(&reader);
        if let Some(before) = self.subscribers.remove(&reader).flatten() {
            self.demands.remove(before);
        }
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
