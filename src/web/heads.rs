//! Connections, and whether the head of their request has come to its end. Where there are too many, those
//! whose head has not leave first: the oldest of whoever has most of them. So whoever asks at once is
//! heard, however many others never end what they begin.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::limits::{WEB_CONNECTIONS_MAX, WEB_CONNECTIONS_PER_SOURCE_MAX};
use crate::source::Source;

#[derive(Debug, Default)]
pub struct Heads {
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    next_number: u64,
    /// The oldest first, without those that have been cut off.
    by_number: BTreeMap<u64, One>,
}

#[derive(Debug)]
struct One {
    /// None where addresses stand for many.
    source: Option<Source>,
    cut: Arc<Notify>,
    has_asked: bool,
}

/// One connection, until it is over.
pub struct Head {
    heads: Arc<Heads>,
    number: u64,
}

impl Heads {
    /// Another one comes, if need be in the place of one that has not asked. None if its source has its share
    /// and has asked on all of them.
    pub fn begin(self: &Arc<Self>, source: Option<Source>, cut: Arc<Notify>) -> Option<Head> {
        let mut connections = self.lock();
        let of_source = |one: &One| source.is_some() && one.source == source;
        let count = connections.by_number.values().filter(|one| of_source(one)).count();
        if count >= WEB_CONNECTIONS_PER_SOURCE_MAX {
            let mut waiting = connections.waiting().filter(|(_, one)| of_source(one));
            let oldest = waiting.next().map(|(number, _)| number);
            drop(waiting);
            connections.cut(oldest?);
        }
        if connections.by_number.len() >= WEB_CONNECTIONS_MAX {
            connections.cut_of_most();
        }
        let number = connections.next_number;
        connections.next_number += 1;
        connections.by_number.insert(number, One { source, cut, has_asked: false });
        Some(Head { heads: self.clone(), number })
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    fn waiting(&self) -> impl Iterator<Item = (u64, &One)> {
        let all = self.by_number.iter().map(|(number, one)| (*number, one));
        all.filter(|(_, one)| !one.has_asked)
    }

    /// The oldest of the source that has most of those that have not asked; among equals the oldest.
    fn cut_of_most(&mut self) {
        let mut sources: BTreeMap<Option<Source>, (usize, Reverse<u64>)> = BTreeMap::new();
        for (number, one) in self.waiting() {
            sources.entry(one.source).or_insert((0, Reverse(number))).0 += 1;
        }
        if let Some((_, Reverse(oldest))) = sources.into_values().max() {
            self.cut(oldest);
        }
    }

    fn cut(&mut self, number: u64) {
        if let Some(one) = self.by_number.remove(&number) {
            one.cut.notify_one();
        }
    }
}

impl Head {
    /// The head is complete.
    pub fn end(&self) {
        if let Some(one) = self.heads.lock().by_number.get_mut(&self.number) {
            one.has_asked = true;
        }
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.heads.lock().by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::FutureExt;

    use super::*;

    struct Play {
        heads: Arc<Heads>,
        held: Vec<(Arc<Notify>, Option<Head>)>,
    }

    impl Play {
        fn new() -> Play {
            Play { heads: Arc::default(), held: Vec::new() }
        }

        /// Where the new one is found, if there is room for it.
        fn comes(&mut self, source: Option<u32>) -> Option<usize> {
            let cut = Arc::<Notify>::default();
            let head = self.heads.begin(source.map(Source::V4), cut.clone())?;
            self.held.push((cut, Some(head)));
            Some(self.held.len() - 1)
        }

        fn asks(&self, at: usize) {
            self.held[at].1.as_ref().unwrap().end();
        }

        fn is_cut(&self, at: usize) -> bool {
            futures_lite::future::block_on(
                async {
                    self.held[at].0.notified().await;
                    true
                }
                .or(async { false }),
            )
        }
    }

    #[test]
    fn one_source_takes_nothing_from_others() {
        let mut play = Play::new();
        let far = play.comes(Some(1)).unwrap();
        let own: Vec<usize> = (0..1000).map(|_| play.comes(Some(2)).unwrap()).collect();
        assert!(!play.is_cut(far));
        let cut = own.iter().filter(|at| play.is_cut(**at)).count();
        assert_eq!(cut, 1000 - WEB_CONNECTIONS_PER_SOURCE_MAX);
        assert!(!play.is_cut(own[999]));
    }

    #[test]
    fn a_source_that_has_asked_on_its_share_has_no_more_until_one_ends() {
        let mut play = Play::new();
        for at in 0..WEB_CONNECTIONS_PER_SOURCE_MAX {
            assert_eq!(play.comes(Some(1)), Some(at));
            play.asks(at);
        }
        assert_eq!(play.comes(Some(1)), None);
        assert!(play.comes(Some(2)).is_some());
        play.held[0].1 = None;
        assert!(play.comes(Some(1)).is_some());
    }

    #[test]
    fn where_all_is_taken_whoever_has_most_loses_its_oldest() {
        let mut play = Play::new();
        let lone = play.comes(Some(0)).unwrap();
        // Many sources of a few each, one of more, and of those the first one has asked.
        let more: Vec<usize> = (0..4).map(|_| play.comes(Some(1)).unwrap()).collect();
        play.asks(more[0]);
        for source in 2.. {
            if play.held.len() == WEB_CONNECTIONS_MAX {
                break;
            }
            play.comes(Some(source)).unwrap();
        }
        play.comes(Some(9999)).unwrap();
        let cut: Vec<usize> = (0..play.held.len()).filter(|at| play.is_cut(*at)).collect();
        assert_eq!((cut, lone), (vec![more[1]], 0));
        // Where none is counted they are all of one.
        let mut play = Play::new();
        let first = play.comes(None).unwrap();
        (0..WEB_CONNECTIONS_MAX).for_each(|_| assert!(play.comes(None).is_some()));
        assert!(play.is_cut(first));
    }
}
