//! Paths that have their turn a while from now: each once, in the order in which they came.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use crate::wire::Path;

#[derive(Debug, Default)]
pub struct Delayed {
    in_order: VecDeque<(Instant, Path)>,
    /// The same paths.
    paths: BTreeSet<Path>,
}

impl Delayed {
    /// Its turn comes then, unless it was to have one already; not before that of those that came earlier.
    pub fn insert(&mut self, path: &Path, at: Instant) {
        if self.paths.insert(path.clone()) {
            self.in_order.push_back((at, path.clone()));
        }
    }

    pub fn contains(&self, path: &Path) -> bool {
        self.paths.contains(path)
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
        let (mut delayed, now) = (Delayed::default(), Instant::now());
        let step = Duration::from_millis(1);
        delayed.insert(&path("b"), now + step);
        delayed.insert(&path("a"), now + 2 * step);
        delayed.insert(&path("b"), now + 3 * step);
        assert!(delayed.contains(&path("b")) && !delayed.contains(&path("c")));
        assert_eq!(delayed.pop_due(now), None);
        assert_eq!(delayed.next_due(), Some(now + step));
        let all = std::iter::from_fn(|| delayed.pop_due(now + 2 * step)).collect::<Vec<_>>();
        assert_eq!(all, [path("b"), path("a")]);
        assert!(delayed.next_due().is_none() && !delayed.contains(&path("b")));
        // Again.
        delayed.insert(&path("b"), now + 3 * step);
        assert_eq!(delayed.pop_due(now + 3 * step), Some(path("b")));
    }
}
