//! The connections of a shard whose peers listen to announcements, and which of them are to be told
//! something: one after the other, some in each turn.

use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(super) struct Listeners {
    all: Vec<usize>,
    behind: VecDeque<usize>,
    /// By connection slot: whether it is in `all`, and in `behind`.
    is_known: Vec<bool>,
    is_behind: Vec<bool>,
}

impl Listeners {
    /// There is something to tell one of them, who may be new.
    pub fn note(&mut self, slot: usize) {
        if self.is_known.len() <= slot {
            self.is_known.resize(slot + 1, false);
            self.is_behind.resize(slot + 1, false);
        }
        if !std::mem::replace(&mut self.is_known[slot], true) {
            self.all.push(slot);
        }
        if !std::mem::replace(&mut self.is_behind[slot], true) {
            self.behind.push_back(slot);
        }
    }

    /// There is something to tell everybody.
    pub fn note_all(&mut self) {
        for &slot in &self.all {
            if !std::mem::replace(&mut self.is_behind[slot], true) {
                self.behind.push_back(slot);
            }
        }
    }

    /// Whose turn it is.
    pub fn next(&mut self) -> Option<usize> {
        let slot = self.behind.pop_front()?;
        self.is_behind[slot] = false;
        Some(slot)
    }

    pub fn forget(&mut self, slot: usize) {
        if self.is_known.get_mut(slot).is_some_and(std::mem::take) {
            self.all.retain(|listener| *listener != slot);
            self.is_behind[slot] = false;
            self.behind.retain(|listener| *listener != slot);
        }
    }

    /// How many there is something to tell.
    pub fn behind(&self) -> usize {
        self.behind.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_one_turn_after_the_others() {
        let mut listeners = Listeners::default();
        for slot in [4, 0, 7] {
            listeners.note(slot);
        }
        assert_eq!(listeners.next(), Some(4));
        listeners.note(4);
        listeners.note_all();
        let turns: Vec<_> = std::iter::from_fn(|| listeners.next()).collect();
        assert_eq!(turns, [0, 7, 4]);
        listeners.note_all();
        listeners.forget(0);
        assert_eq!(listeners.behind(), 2);
        listeners.note(4);
        let turns: Vec<_> = std::iter::from_fn(|| listeners.next()).collect();
        assert_eq!(turns, [4, 7]);
        listeners.note(0);
        listeners.forget(4);
        listeners.note_all();
        let turns: Vec<_> = std::iter::from_fn(|| listeners.next()).collect();
        assert_eq!(turns, [0, 7]);
    }
}
