//! HTTP connections whose request has not come to the end of its head. Where there are too many
//! connections, the oldest of these leaves first: whoever asks at once is heard, however many others
//! never end what they begin.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub struct Heads {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next_number: u64,
    /// How each is cut off, the oldest first.
    by_number: BTreeMap<u64, Arc<Notify>>,
}

/// One connection, until its head is complete or the connection is over.
pub struct Head {
    heads: Arc<Heads>,
    number: u64,
}

impl Heads {
    pub fn begin(self: &Arc<Self>, cut: Arc<Notify>) -> Head {
        let mut waiting = self.lock();
        let number = waiting.next_number;
        waiting.next_number += 1;
        waiting.by_number.insert(number, cut);
        Head { heads: self.clone(), number }
    }

    /// Cuts the oldest off, if there is any.
    pub fn drop_oldest(&self) {
        if let Some((_, cut)) = self.lock().by_number.pop_first() {
            cut.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Head {
    /// The head is complete.
    pub fn end(&self) {
        self.heads.lock().by_number.remove(&self.number);
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.end();
    }
}
