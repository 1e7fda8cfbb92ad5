//! Paths that have their turn a while from now: each once, in the order in which they came, and with
//! something to be remembered until then.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::wire::Path;

#[derive(Debug)]
pub struct Delayed<T = ()> {
    in_order: VecDeque<(Instant, Path)>,
    /// The same paths.
    paths: BTreeMap<Path, T>,
}

impl<T> Default for Delayed<T> {
    fn default() -> Delayed<T> {
        Delayed { in_order: VecDeque::new(), paths: BTreeMap::new() }
    }
}

impl<T> Delayed<T> {
    /// Its turn comes then, unless it was to have one already; not before that of those that came earlier.
    pub fn insert(&mut self, path: &Path, at: Instant, what: T) {
        if self.paths.insert(path.clone(), what).is_none() {
            self.in_order.push_back((at, path.clone()));
        }
    }

    pub fn get(&self, path: &Path) -> Option<&T> {
        self.paths.get(path)
    }

    pub fn contains(&self, path: &Path) -> bool {
        self.paths.contains_key(path)
    }

    /// One whose turn has come.
    pub fn pop_due(&mut self, now: Instant) -> Option<Path> {
        let (_, path) = self.in_order.pop_front_if(|(at, _)| *at <= now)?;
        self.paths.remove(&path);
        Some(path)
    }

    /// When the next one has its turn.
    pub fn next_due(&self) -> Option<Instant> {
        self.in_order.front().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::path;
    use super::*;

    #[test]
    fn each_path_has_one_turn_in_its_time() {
        let (mut delayed, now) = (Delayed::<()>::default(), Instant::now());
        let step = Duration::from_millis(1);
        delayed.insert(&path("b"), now + step, ());
        delayed.insert(&path("a"), now + 2 * step, ());
        delayed.insert(&path("b"), now + 3 * step, ());
        assert!(delayed.contains(&path("b")) && !delayed.contains(&path("c")));
        assert_eq!(delayed.pop_due(now), None);
        assert_eq!(delayed.next_due(), Some(now + step));
        let all = std::iter::from_fn(|| delayed.pop_due(now + 2 * step)).collect::<Vec<_>>();
        assert_eq!(all, [path("b"), path("a")]);
        assert!(delayed.next_due().is_none() && !delayed.contains(&path("b")));
        // Again.
        delayed.insert(&path("b"), now + 3 * step, ());
        assert_eq!(delayed.pop_due(now + 3 * step), Some(path("b")));
    }
}
