//! Requests that wait for the auth server, which may be slow: some of all connections, and of each source no
//! more than its share of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::{WEB_QUESTIONS_MAX, WEB_QUESTIONS_PER_SOURCE_MAX};
use crate::source::Source;

#[derive(Debug, Default)]
pub struct Questions {
    /// Whose they are; none's where an address stands for many.
    waiting: Mutex<Vec<Option<Source>>>,
}

/// One of them, until it is answered or nobody waits for that.
pub struct Question {
    all: Arc<Questions>,
    source: Option<Source>,
}

impl Questions {
    /// None if there is no room.
    pub fn begin(self: &Arc<Self>, source: Option<Source>) -> Option<Question> {
        let mut waiting = self.lock();
        let own = waiting.iter().filter(|other| source.is_some() && **other == source).count();
        if waiting.len() >= WEB_QUESTIONS_MAX || own >= WEB_QUESTIONS_PER_SOURCE_MAX {
            return None;
        }
        waiting.push(source);
        Some(Question { all: self.clone(), source })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Source>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let mut waiting = self.all.lock();
        if let Some(at) = waiting.iter().position(|source| *source == self.source) {
            waiting.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_share_and_all_have_a_bound() {
        let questions = Arc::<Questions>::default();
        let mut held = Vec::new();
        let mut count = |source: Option<u32>, most: usize| {
            let all = (0..most).map_while(|_| questions.begin(source.map(Source::V4)));
            let before = held.len();
            held.extend(all);
            held.len() - before
        };
        assert_eq!(count(Some(1), 1000), WEB_QUESTIONS_PER_SOURCE_MAX);
        assert_eq!(count(Some(2), 1), 1);
        let rest = WEB_QUESTIONS_MAX - WEB_QUESTIONS_PER_SOURCE_MAX - 1;
        assert_eq!(count(None, 1000), rest);
        assert_eq!(count(Some(3), 1), 0);
        held.remove(0);
        assert!(questions.begin(Some(Source::V4(1))).is_some());
        held.clear();
        assert!(questions.lock().is_empty());
    }
}
