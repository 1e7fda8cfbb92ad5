//! Who had a path last, from which address, for some time after: who was only away is not behind those who
//! waited for that.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::RouteId;
use crate::limits::{OWNER_REMEMBERED, OWNERS_REMEMBERED_MAX};
use crate::wire::Path;

#[derive(Debug, Default)]
pub struct Owners {
    gone: BTreeMap<Path, Owner>,
    /// The same in order of time; what was remembered anew is there twice.
    until: VecDeque<(Instant, Path)>,
}

#[derive(Debug)]
struct Owner {
    at: u64,
    founder: RouteId,
    until: Instant,
}

impl Owners {
    /// The last route from an address is over at a path that it had, since this route.
    pub fn remember(&mut self, path: &Path, at: u64, founder: RouteId, now: Instant) {
        let until = now + OWNER_REMEMBERED;
        self.gone.insert(path.clone(), Owner { at, founder, until });
        self.until.push_back((until, path.clone()));
        if self.until.len() > OWNERS_REMEMBERED_MAX {
            self.forget_first();
        }
    }

    /// Since when this address has had a path, if it has been away for a short time only.
    pub fn recall(&mut self, path: &Path, at: u64, now: Instant) -> Option<RouteId> {
        while self.until.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_first();
        }
        self.gone.get(path).filter(|owner| owner.at == at).map(|owner| owner.founder)
    }

    fn forget_first(&mut self) {
        if let Some((until, path)) = self.until.pop_front()
            && self.gone.get(&path).is_some_and(|owner| owner.until <= until)
        {
            self.gone.remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::path;
    use super::*;

    #[test]
    fn an_owner_is_remembered_for_a_while() {
        let (mut owners, now) = (Owners::default(), Instant::now());
        owners.remember(&path("a"), 1, RouteId(7), now);
        assert_eq!(owners.recall(&path("a"), 1, now), Some(RouteId(7)));
        assert_eq!(owners.recall(&path("a"), 2, now), None);
        assert_eq!(owners.recall(&path("b"), 1, now), None);
        let later = now + OWNER_REMEMBERED / 2;
        owners.remember(&path("a"), 1, RouteId(7), later);
        let then = now + OWNER_REMEMBERED;
        assert_eq!(owners.recall(&path("a"), 1, then), Some(RouteId(7)));
        assert_eq!(owners.recall(&path("a"), 1, then + OWNER_REMEMBERED / 2), None);
        assert!(owners.gone.is_empty() && owners.until.is_empty());
    }

    #[test]
    fn of_too_many_the_oldest_is_forgotten() {
        let (mut owners, now) = (Owners::default(), Instant::now());
        for number in 0..=OWNERS_REMEMBERED_MAX {
            let at = now + Duration::from_micros(number as u64);
            owners.remember(&path(&number.to_string()), 1, RouteId(7), at);
        }
        assert_eq!(owners.recall(&path("0"), 1, now), None);
        assert_eq!(owners.recall(&path("1"), 1, now), Some(RouteId(7)));
        assert_eq!(owners.gone.len(), OWNERS_REMEMBERED_MAX);
    }
}
