//! News of this shard's routes on their way to one neighbour. What does not fit a lane waits as a set:
//! of each route that it has not been told of yet how it is now, in the order of the last change.

use std::collections::BTreeMap;

use super::Shard;
use super::message::{RouteNews, ToShard};
use crate::limits::{CLIENT_NEWS_PER_TURN, ROUTE_NEWS_PER_TURN};
use crate::route::RouteId;

#[derive(Debug, Default)]
pub struct Untold {
    queue: BTreeMap<u64, Waiting>,
    /// Where each route is in the queue.
    places: BTreeMap<RouteId, u64>,
    next_place: u64,
}

#[derive(Debug)]
struct Waiting {
    news: RouteNews,
    /// The neighbour has heard of this route before.
    is_known: bool,
}

impl Untold {
    /// `is_new`: nobody has heard of this route before.
    pub fn note(&mut self, news: RouteNews, is_new: bool) {
        let before = self.places.remove(&news.id()).and_then(|place| self.queue.remove(&place));
        let is_known = before.map_or(!is_new, |before| before.is_known);
        if !is_known && matches!(news, RouteNews::Down { .. }) {
            return;
        }
        self.places.insert(news.id(), self.next_place);
        self.queue.insert(self.next_place, Waiting { news, is_known });
        self.next_place += 1;
    }

    pub fn take(&mut self) -> Option<RouteNews> {
        let (_, Waiting { news, .. }) = self.queue.pop_first()?;
        self.places.remove(&news.id());
        Some(news)
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Shard {
    /// Puts news of routes on their way, before this turn's mail: no home asks a session again that is
    /// gone. True if some wait.
    pub(super) fn tell_neighbours(&mut self) -> bool {
        for (shard, untold) in self.untold.iter_mut().enumerate() {
            if !untold.is_empty() {
                self.post
                    .send_first(shard, ROUTE_NEWS_PER_TURN, || untold.take().map(ToShard::Route));
            }
        }
        let mut has_more = self.untold.iter().any(|untold| !untold.is_empty());
        for shard in 0..self.shards {
            if self.clients.has_untold(shard) {
                let mut next = || self.clients.take_untold(shard);
                let next = || next().map(|(client, by)| ToShard::Counted { client, by });
                self.post.send_first(shard, CLIENT_NEWS_PER_TURN, next);
                has_more |= self.clients.has_untold(shard);
            }
        }
        has_more
    }

    /// News of routes that wait for a neighbour that does not keep up.
    pub fn untold(&self) -> usize {
        self.untold.iter().map(Untold::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Gone;
    use crate::route::tests::{path, route};

    fn up(id: u64, price: u64) -> RouteNews {
        RouteNews::Up(route(id, "a", &[7], price))
    }

    fn down(id: u64) -> RouteNews {
        RouteNews::Down { path: path("a"), id: RouteId(id), gone: Gone::Lost }
    }

    /// `3@9` is route 3 at price 9, `-3` its end.
    fn told(untold: &mut Untold) -> String {
        let words = std::iter::from_fn(|| untold.take()).map(|news| match news {
            RouteNews::Up(route) => format!("{}@{} ", route.id.0, route.cost.warm),
            RouteNews::Down { id, .. } => format!("-{} ", id.0),
        });
        words.collect()
    }

    #[test]
    fn of_each_route_the_latest_is_told_in_the_order_of_change() {
        let mut untold = Untold::default();
        for id in 1..=3 {
            untold.note(up(id, 0), true);
        }
        untold.note(up(1, 5), false);
        assert_eq!((untold.len(), told(&mut untold)), (3, "2@0 3@0 1@5 ".to_owned()));
        for price in 0..1000 {
            untold.note(up(1, price), false);
            untold.note(up(2, price), false);
        }
        assert_eq!((untold.len(), told(&mut untold)), (2, "1@999 2@999 ".to_owned()));
        assert!(untold.is_empty() && untold.places.is_empty());
    }

    #[test]
    fn nothing_is_told_of_what_came_and_went_meanwhile() {
        let mut untold = Untold::default();
        untold.note(up(1, 0), true);
        untold.note(up(1, 1), false);
        untold.note(down(1), false);
        assert!(untold.is_empty());
        untold.note(up(1, 0), true);
        assert_eq!(told(&mut untold), "1@0 ");
        // The neighbour knows it now.
        untold.note(down(1), false);
        untold.note(up(2, 0), true);
        assert_eq!(told(&mut untold), "-1 2@0 ");
        untold.note(up(2, 3), false);
        untold.note(down(2), false);
        assert_eq!(told(&mut untold), "-2 ");
    }
}
