//! The directory of routes: who has announced what, and which route a request takes.
//!
//! Every shard holds a full replica. Knows paths, hop chains and costs; what a session is it
//! does not know beyond a name for it (spec §4.4 to §4.6).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::wire::{Cost, Hops, Path, Version};

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
    /// What that session speaks.
    pub version: Version,
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

    /// The peer that announced it is the one that announced `other`, in a new session: of the old one
    /// nothing more is to be expected.
    pub fn returns(&self, other: &Route) -> bool {
        let announcer = self.hops.last().filter(|hop| *hop != 0);
        self.session != other.session && announcer.is_some() && announcer == other.hops.last()
    }

    /// Its session leaves, here or at the relay that announced it: anything else wins over it, yet
    /// it can be used (spec §4.16).
    fn is_leaving(&self) -> bool {
        self.cost == Cost::MAX
    }

    /// Lower wins (spec §4.5).
    fn rank(&self) -> (bool, bool, Cost, usize, std::cmp::Reverse<RouteId>) {
        let newest_first = std::cmp::Reverse(self.id);
        let is_anonymous = self.hops.is_anonymous();
        (self.is_leaving(), is_anonymous, self.cost, self.hops.len(), newest_first)
    }
}

#[derive(Debug, Default)]
pub struct Directory {
    /// The routes of each announced path, best first.
    paths: BTreeMap<Path, Vec<Arc<Route>>>,
    /// Those of them that leave.
    leaving: BTreeSet<RouteId>,
}

impl Directory {
    /// Adds a route, or replaces the one with its id.
    pub fn insert(&mut self, route: Arc<Route>) {
        let routes = self.paths.entry(route.path.clone()).or_default();
        routes.retain(|other| other.id != route.id);
        match route.is_leaving() {
            true => self.leaving.insert(route.id),
            false => self.leaving.remove(&route.id),
        };
        let at = routes.partition_point(|other| other.rank() < route.rank());
        routes.insert(at, route);
    }

    pub fn remove(&mut self, path: &Path, id: RouteId) {
        self.leaving.remove(&id);
        if let Some(routes) = self.paths.get_mut(path) {
            routes.retain(|route| route.id != id);
            if routes.is_empty() {
                self.paths.remove(path);
            }
        }
    }

    /// Whether a route is still announced.
    pub fn has(&self, route: &Route) -> bool {
        self.at(&route.path).any(|held| held.id == route.id)
    }

    /// Routes announced for exactly this path, best first.
    pub fn at(&self, path: &Path) -> impl Iterator<Item = &Arc<Route>> {
        self.paths.get(path).into_iter().flatten()
    }

    /// The route that a request takes: of the longest covering path, the best.
    pub fn resolve(&self, path: &Path, identity: u64) -> Option<&Arc<Route>> {
        self.covering(path).find(|route| !route.passes(identity))
    }

    /// The same among the routes that carry one content, without those that were tried.
    pub fn resolve_origin(
        &self,
        path: &Path,
        origin: u64,
        avoid: Option<u64>,
        tried: &[RouteId],
    ) -> Option<&Arc<Route>> {
        self.of_origin(path, origin, avoid, tried).next()
    }

    /// The same among those that do not leave.
    pub fn resolve_staying(
        &self,
        path: &Path,
        origin: u64,
        avoid: Option<u64>,
        tried: &[RouteId],
    ) -> Option<&Arc<Route>> {
        self.of_origin(path, origin, avoid, tried).find(|route| !route.is_leaving())
    }

    fn of_origin<'a>(
        &'a self,
        path: &Path,
        origin: u64,
        avoid: Option<u64>,
        tried: &[RouteId],
    ) -> impl Iterator<Item = &'a Arc<Route>> {
        self.covering(path)
            .filter(move |route| route.origin() == origin && !tried.contains(&route.id))
            .filter(move |route| avoid.is_none_or(|identity| !route.passes(identity)))
    }

    pub fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Whether a route is one that leaves, by the latest news of it.
    pub fn is_leaving(&self, id: RouteId) -> bool {
        self.leaving.contains(&id)
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

    /// The announced paths after this one, in order; all of them where none is named.
    pub fn paths_after(&self, after: Option<&Path>) -> impl Iterator<Item = &Path> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.paths.range((from, Bound::Unbounded)).map(|(path, _)| path)
    }

    pub fn len(&self) -> usize {
        self.paths.values().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    /// A route with number `id`, through the session with the same number.
    fn route(id: u64, at: &str, hops: &[u64], warm: u64) -> Arc<Route> {
        Arc::new(Route {
            id: RouteId(id),
            path: path(at),
            hops: Hops::from_slice(hops).unwrap(),
            cost: Cost { warm, cold: warm },
            via: 1000 + id,
            session: SessionRef { shard: 0, slot: id as u32, generation: 1 },
            version: Version::Lite06,
        })
    }

    fn directory(routes: &[Arc<Route>]) -> Directory {
        let mut directory = Directory::default();
        for route in routes {
            directory.insert(route.clone());
        }
        directory
    }

    #[track_caller]
    fn check(routes: &[Arc<Route>], request: &str, identity: u64, expect: Option<u64>) {
        let request = path(request);
        let got = |routes: &[Arc<Route>]| {
            directory(routes).resolve(&request, identity).map(|route| route.id.0)
        };
        assert_eq!(got(routes), expect);
        let reversed: Vec<_> = routes.iter().rev().cloned().collect();
        assert_eq!(got(&reversed), expect, "the order of news does not matter");
    }

    #[test]
    fn the_longest_covering_path_wins_outright() {
        let routes = [route(1, "", &[7], 0), route(2, "a", &[7], 50), route(3, "a/b", &[7, 0], 99)];
        check(&routes, "a/b/c", 5, Some(3));
        check(&routes, "a/b", 5, Some(3));
        check(&routes, "a/bc", 5, Some(2));
        check(&routes, "ab", 5, Some(1));
        check(&routes[1..], "ab", 5, None);
        check(&[], "", 5, None);
    }

    #[test]
    fn of_one_path_the_best_route_wins() {
        // Named before anonymous, then cost, then hops, then the newest.
        check(&[route(1, "a", &[7, 0], 0), route(2, "a", &[8], 9)], "a", 5, Some(2));
        check(&[route(1, "a", &[7], 1), route(2, "a", &[8], 2)], "a", 5, Some(1));
        check(&[route(1, "a", &[7, 9], 1), route(2, "a", &[8], 1)], "a", 5, Some(2));
        check(&[route(1, "a", &[7], 1), route(2, "a", &[8], 1)], "a", 5, Some(2));
    }

    #[test]
    fn nobody_is_served_from_what_passes_through_itself() {
        let routes = [route(1, "a", &[7], 0), route(2, "a", &[7, 8], 5), route(3, "", &[9], 0)];
        check(&routes, "a", 1001, Some(2));
        check(&routes, "a", 8, Some(1));
        check(&routes, "a", 7, Some(3));
        check(&routes[..2], "a", 7, None);
        let directory = directory(&routes);
        let to =
            |avoid| directory.resolve_origin(&path("a/x"), 7, avoid, &[]).map(|route| route.id.0);
        assert_eq!((to(None), to(Some(1001)), to(Some(7))), (Some(1), Some(2), None));
        let next = directory.resolve_origin(&path("a/x"), 7, None, &[RouteId(1)]);
        assert_eq!(next.map(|route| route.id.0), Some(2));
        assert!(directory.any_passes(&path("a/x"), 7, 8));
        assert!(!directory.any_passes(&path("a/x"), 9, 8));
    }

    #[test]
    fn anything_wins_over_a_route_that_leaves() {
        let leaving = |id, hops: &[u64]| {
            let route = route(id, "a", hops, 0);
            Arc::new(Route { cost: Cost::MAX, ..(*route).clone() })
        };
        check(&[leaving(1, &[7]), route(2, "a", &[8, 0, 9], 1 << 60)], "a", 5, Some(2));
        check(&[leaving(1, &[7]), leaving(2, &[8, 0])], "a", 5, Some(1));
        check(&[leaving(1, &[7])], "a", 5, Some(1));
        let mut directory = directory(&[route(1, "a", &[7], 0), leaving(2, &[7, 8])]);
        let staying = |directory: &Directory, tried: &[RouteId]| {
            let route = directory.resolve_staying(&path("a/x"), 7, None, tried);
            route.map(|route| route.id.0)
        };
        assert_eq!(staying(&directory, &[]), Some(1));
        assert_eq!(staying(&directory, &[RouteId(1)]), None);
        assert!(!directory.is_leaving(RouteId(1)) && directory.is_leaving(RouteId(2)));
        directory.insert(leaving(1, &[7]));
        assert_eq!(staying(&directory, &[]), None);
        assert!(directory.is_leaving(RouteId(1)));
        directory.insert(route(1, "a", &[7], 3));
        directory.remove(&path("a"), RouteId(2));
        assert!(!directory.has_leaving());
    }

    #[test]
    fn a_change_replaces_and_a_removal_removes() {
        let mut directory = directory(&[route(1, "a", &[7], 0), route(2, "a", &[8], 5)]);
        directory.insert(route(1, "a", &[7], 9));
        let best = |directory: &Directory| directory.resolve(&path("a"), 5).map(|route| route.id.0);
        assert_eq!((best(&directory), directory.len()), (Some(2), 2));
        directory.remove(&path("a"), RouteId(2));
        assert!(!directory.has(&route(2, "a", &[8], 5)) && directory.has(&route(1, "a", &[7], 9)));
        directory.remove(&path("a"), RouteId(1));
        directory.remove(&path("a"), RouteId(1));
        assert!(directory.is_empty());
    }

    #[test]
    fn paths_are_listed_from_where_a_listing_stopped() {
        let directory = directory(&["", "a", "a/b", "b"].map(|at| route(1, at, &[7], 0)));
        let list = |after: Option<&Path>| {
            let paths = directory.paths_after(after).map(|path| format!("{path}."));
            paths.collect::<String>()
        };
        assert_eq!(list(None), ".a.a/b.b.");
        assert_eq!(list(Some(&path(""))), "a.a/b.b.");
        assert_eq!(list(Some(&path("a"))), "a/b.b.");
        assert_eq!(list(Some(&path("a-gone"))), "a/b.b.");
        assert_eq!(list(Some(&path("b"))), "");
    }

    #[test]
    fn a_listener_is_shown_what_its_prefix_covers_and_what_covers_it() {
        let routes: Vec<_> = ["", "a", "a/b", "a/b/c", "a-b", "ab", "b"]
            .iter()
            .enumerate()
            .map(|(id, at)| route(id as u64, at, &[7], 0))
            .collect();
        let directory = directory(&routes);
        let shown = |prefix: &str| {
            let mut paths: Vec<_> =
                directory.paths_for(&path(prefix)).map(|path| path.as_str().to_owned()).collect();
            paths.sort();
            paths.join(" ")
        };
        assert_eq!(shown("a/b"), " a a/b a/b/c");
        assert_eq!(shown("a"), " a a/b a/b/c");
        assert_eq!(shown("c"), "");
        assert_eq!(shown(""), " a a-b a/b a/b/c ab b");
    }
}
