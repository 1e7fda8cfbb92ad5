//! The directory of routes: who has announced what, and which route a request takes.
//!
//! Every shard holds a full replica. Knows paths, hop chains and costs; what a session is it
//! does not know beyond a name for it (spec §4.4 to §4.6).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::wire::{Cost, Hops, Path};

/// A session, wherever it lives. The generation tells a slot's tenants apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionRef {
    pub shard: u16,
    pub slot: u32,
    pub generation: u32,
}

/// Unique among all routes of this process, and ascending in the order of announcement as far as
/// one session is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RouteId(pub u64);

/// A claim to serve a path and all below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    pub id: RouteId,
    pub path: Path,
    /// Oldest first, without this relay.
    pub hops: Hops,
    pub cost: Cost,
    /// Identity of the session that announced it: declared by the peer, or private to us.
    pub via: u64,
    pub session: SessionRef,
}

impl Route {
    /// Identity of the content: two routes with the same origin carry the same broadcast.
    pub fn origin(&self) -> u64 {
        self.hops.first().unwrap_or(0)
    }

    /// Split horizon: a peer is not told of, nor served from, what flows through itself.
    pub fn passes(&self, identity: u64) -> bool {
        self.via == identity || self.hops.contains(identity)
    }

    /// Lower wins (spec §4.5).
    fn rank(&self) -> (bool, Cost, usize, std::cmp::Reverse<RouteId>) {
        (self.hops.is_anonymous(), self.cost, self.hops.len(), std::cmp::Reverse(self.id))
    }
}

#[derive(Debug, Default)]
pub struct Directory {
    /// The routes of each announced path, best first.
    paths: BTreeMap<Path, Vec<Arc<Route>>>,
}

impl Directory {
    /// Adds a route, or replaces the one with its id.
    pub fn insert(&mut self, route: Arc<Route>) {
        let routes = self.paths.entry(route.path.clone()).or_default();
        routes.retain(|other| other.id != route.id);
        let at = routes.partition_point(|other| other.rank() < route.rank());
        routes.insert(at, route);
    }

    pub fn remove(&mut self, path: &Path, id: RouteId) {
        if let Some(routes) = self.paths.get_mut(path) {
            routes.retain(|route| route.id != id);
            if routes.is_empty() {
                self.paths.remove(path);
            }
        }
    }

    /// Routes announced for exactly this path, best first.
    pub fn at(&self, path: &Path) -> impl Iterator<Item = &Arc<Route>> {
        self.paths.get(path).into_iter().flatten()
    }

    /// The route that a request takes: of the longest covering path, the best.
    pub fn resolve(&self, path: &Path, identity: u64) -> Option<&Arc<Route>> {
        self.covering(path).find(|route| !route.passes(identity))
    }

    /// The same among the routes that carry one content.
    pub fn resolve_origin(
        &self,
        path: &Path,
        origin: u64,
        avoid: Option<u64>,
    ) -> Option<&Arc<Route>> {
        self.covering(path)
            .filter(|route| route.origin() == origin)
            .find(|route| avoid.is_none_or(|identity| !route.passes(identity)))
    }

    /// Whether any route to this content passes through a peer, so that the peer needs a copy
    /// that avoids itself.
    pub fn any_passes(&self, path: &Path, origin: u64, identity: u64) -> bool {
        self.covering(path).any(|route| route.origin() == origin && route.passes(identity))
    }

    /// Routes whose path covers `path`, longest first, then best first.
    pub fn covering<'a>(&'a self, path: &Path) -> impl Iterator<Item = &'a Arc<Route>> + use<'a> {
        path.ancestors().filter_map(|prefix| self.paths.get(&prefix)).flatten()
    }

    /// Every announced path that `prefix` covers, or that covers `prefix`.
    pub fn paths_for<'a>(&'a self, prefix: &'a Path) -> impl Iterator<Item = &'a Path> + 'a {
        let above = prefix.ancestors().skip(1).filter_map(|p| self.paths.get_key_value(&p));
        let below = self
            .paths
            .range(prefix.clone()..)
            .take_while(|(path, _)| path.as_str().starts_with(prefix.as_str()))
            .filter(|(path, _)| path.has_prefix(prefix));
        above.chain(below).map(|(path, _)| path)
    }

    pub fn len(&self) -> usize {
        self.paths.values().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}
