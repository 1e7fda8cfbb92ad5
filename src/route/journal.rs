//! Which announced paths have changed, in the order in which listeners are to be told of it. Whoever
//! tells them reads on from a number of its own, when it can. Of a reader that is so far behind that what
//! it has not read is forgotten, it is known that it must look at everything once.

use std::collections::VecDeque;
use std::time::Instant;

use super::delayed::Delayed;
use crate::limits::{ROUTE_CHANGE_HOLD, ROUTE_CHANGES_KEPT, ROUTE_CHANGES_PER_TURN};
use crate::wire::Path;

#[derive(Debug, Default)]
pub struct Journal {
    /// Oldest first; a path that has changed twice is there twice.
    changes: VecDeque<Path>,
    /// How many came before those, and are forgotten.
    forgotten: u64,
    /// Paths that will have changed when their time has come.
    held: Delayed,
}

impl Journal {
    /// A path is new, or some route to it is gone: whoever waits for that is told at once.
    pub(super) fn note(&mut self, path: Path) {
        self.changes.push_back(path);
        if self.changes.len() > ROUTE_CHANGES_KEPT {
            self.changes.pop_front();
            self.forgotten += 1;
        }
    }

    /// A path that was announced is so in another way: that is told a little later, as it is then.
    pub(super) fn note_later(&mut self, path: &Path, now: Instant) {
        self.held.insert(path, now + ROUTE_CHANGE_HOLD, ());
    }

    /// Moves on to what is due, as far as one turn goes.
    pub(super) fn release(&mut self, now: Instant) {
        for _ in 0..ROUTE_CHANGES_PER_TURN {
            let Some(path) = self.held.pop_due(now) else { return };
            self.note(path);
        }
    }

    pub fn next_release(&self) -> Option<Instant> {
        self.held.next_due()
    }

    /// The number of the next change.
    pub fn end(&self) -> u64 {
        self.forgotten + self.changes.len() as u64
    }

    /// Whether all changes from this number on are known.
    pub fn reaches(&self, number: u64) -> bool {
        self.forgotten <= number
    }

    /// The path that has changed, if this number is one of a change.
    pub fn get(&self, number: u64) -> Option<&Path> {
        self.changes.get(number.checked_sub(self.forgotten)? as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::path;
    use super::*;

    fn read(journal: &Journal, from: u64) -> String {
        let paths = (from..journal.end()).map(|number| journal.get(number).expect("it is known"));
        paths.map(Path::as_str).collect()
    }

    #[test]
    fn each_reader_goes_on_where_it_is() {
        let mut journal = Journal::default();
        let before = journal.end();
        journal.note(path("a"));
        let between = journal.end();
        journal.note(path("b"));
        journal.note(path("a"));
        assert_eq!((read(&journal, before), read(&journal, between)), ("aba".into(), "ba".into()));
        assert_eq!(journal.get(journal.end()), None);
    }

    #[test]
    fn what_changes_while_it_is_held_is_told_once() {
        let (mut journal, now) = (Journal::default(), Instant::now());
        journal.note_later(&path("a"), now);
        let step = Duration::from_millis(1);
        journal.note_later(&path("b"), now + step);
        journal.note_later(&path("a"), now + step);
        // An end is.
        journal.note(path("b"));
        assert_eq!(read(&journal, 0), "b");
        journal.release(now + ROUTE_CHANGE_HOLD - step);
        assert_eq!(read(&journal, 0), "b");
        journal.release(now + ROUTE_CHANGE_HOLD);
        assert_eq!(read(&journal, 0), "ba");
        assert_eq!(journal.next_release(), Some(now + step + ROUTE_CHANGE_HOLD));
        journal.note_later(&path("a"), now + ROUTE_CHANGE_HOLD);
        journal.release(now + ROUTE_CHANGE_HOLD * 2);
        assert_eq!(read(&journal, 0), "baba");
        assert_eq!(journal.next_release(), None);
        assert!(!journal.held.contains(&path("a")));
    }

    #[test]
    fn what_is_long_past_is_forgotten() {
        let mut journal = Journal::default();
        (0..ROUTE_CHANGES_KEPT).for_each(|_| journal.note(path("a")));
        assert!(journal.reaches(0));
        journal.note(path("b"));
        assert!(!journal.reaches(0) && journal.reaches(1));
        assert_eq!(journal.get(0), None);
        assert_eq!(journal.get(ROUTE_CHANGES_KEPT as u64), Some(&path("b")));
        assert_eq!(journal.changes.len(), ROUTE_CHANGES_KEPT);
    }
}
