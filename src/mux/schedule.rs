//! Whose turn it is to send: of the highest priority, who has waited longest.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::session::streams::StreamId;

/// A place among those who wait.
pub type Place = (Reverse<i32>, u64);

#[derive(Debug, Default)]
pub struct Schedule {
    waiting: BTreeMap<Place, StreamId>,
    next: u64,
}

impl Schedule {
    /// Puts a stream behind all others of its priority.
    pub fn push(&mut self, priority: i32, id: StreamId) -> Place {
        let place = (Reverse(priority), self.next);
        self.next += 1;
        self.waiting.insert(place, id);
        place
    }

    pub fn remove(&mut self, place: Place) {
        self.waiting.remove(&place);
    }

    pub fn first(&self) -> Option<StreamId> {
        self.waiting.first_key_value().map(|(_, id)| *id)
    }

    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}
