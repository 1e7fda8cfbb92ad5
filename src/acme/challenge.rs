//! Answers to the challenges of the authority, which finds them over HTTP.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is to be found now. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Challenges(Arc<Mutex<HashMap<String, String>>>);

/// An answer, which is to be found until this is dropped.
pub struct Shown {
    challenges: Challenges,
    token: String,
}

impl Challenges {
    pub fn show(&self, token: &str, answer: &str) -> Shown {
        self.lock().insert(token.to_owned(), answer.to_owned());
        Shown { challenges: self.clone(), token: token.to_owned() }
    }

    pub fn answer(&self, token: &str) -> Option<String> {
        self.lock().get(token).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.challenges.lock().remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_there_for_as_long_as_they_are_shown() {
        let challenges = Challenges::default();
        let (one, two) = (challenges.show("a", "1"), challenges.show("b", "2"));
        assert_eq!(challenges.clone().answer("a").as_deref(), Some("1"));
        drop(one);
        assert_eq!((challenges.answer("a"), challenges.answer("b").is_some()), (None, true));
        drop(two);
        assert_eq!(challenges.answer("b"), None);
    }
}
