//! The directory of routes: who has announced what, and which route a request takes.
//!
//! Every shard holds a full replica. Knows paths, hop chains and costs; what a session is it
//! does not know beyond a name for it (spec §4.4 to §4.6).

mod delayed;
mod journal;
mod owners;
mod withdrawn;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use crate::limits::{
    ROUTE_BYTES, ROUTES_ADDRESS_PART, ROUTES_BESIDE_MIN, ROUTES_MAX, ROUTES_PER_ADDRESS_MAX,
    ROUTES_PER_PATH_MAX,
};
use crate::wire::{Cost, Hops, Path, Version};
pub use delayed::Delayed;
pub use journal::Journal;
use owners::Owners;
use withdrawn::Withdrawn;

/// A session, wherever it lives. The generation tells a slot's tenants apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionRef {
    pub shard: u16,
    pub slot: u32,
    pub generation: u32,
}

/// Unique among all routes of this process, and ascending in the order of announcement as far as
/// one session is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RouteId(pub u64);

/// How far a peer is believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// A relay of the same cluster: chains, first hops and prices are as it says.
    Relay,
    /// Anybody else, with a secret number for the address.
    Stranger { at: u64 },
}

/// A claim to serve a path and all below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    pub id: RouteId,
    pub path: Path,
    /// Whoever announced it may publish all that lies below.
    pub is_whole: bool,
    /// Oldest first, without this relay.
    pub hops: Hops,
    /// Identity of the content: two routes with the same origin carry the same broadcast. That is the
    /// first hop, if those who say so are believed.
    pub origin: u64,
    pub trust: Trust,
    pub cost: Cost,
    /// Identity of the session that announced it: declared by the peer, or private to us.
    pub via: u64,
    pub session: SessionRef,
    /// That session is with a relay, which is asked for groups without waiting to hear what a track is like.
    pub is_linked: bool,
    /// What that session speaks.
    pub version: Version,
    /// That session has not answered when it was asked for a sign of life.
    pub is_silent: bool,
}

impl Route {
    /// Identity of the peer that announced it, on the wire; 0 if that has none there.
    fn announcer(&self) -> u64 {
        self.hops.last().unwrap_or(0)
    }

    /// Whether another relay of the cluster has it from its publisher.
    pub fn is_passed_on(&self) -> bool {
        self.trust == Trust::Relay && self.hops.len() > 1 && self.announcer() != 0
    }

    /// Whether somebody passes it on who is no relay of the cluster: what that says of it is not believed.
    pub fn is_hearsay(&self) -> bool {
        self.trust != Trust::Relay && self.hops.len() > 1 && self.announcer() != 0
    }

    /// Split horizon: a peer is not told of, nor served from, what flows through itself.
    pub fn passes(&self, identity: u64) -> bool {
        self.via == identity || self.hops.contains(identity)
    }

    /// Its session leaves or is silent, here or at the relay that announced it: anything else wins over it,
    /// yet it can be used (spec §4.16).
    fn is_leaving(&self) -> bool {
        self.cost == Cost::MAX || self.is_silent
    }

    /// What it takes, about.
    fn bytes(&self) -> u64 {
        (self.path.as_str().len() + ROUTE_BYTES) as u64
    }

    /// Lower wins (spec §4.5).
    fn rank(&self) -> (bool, bool, Cost, usize) {
        let is_anonymous = self.hops.is_anonymous();
        (self.is_leaving(), is_anonymous, self.cost, self.hops.len())
    }

    /// The same where nobody comes before others by what he says of himself, but behind them.
    fn claim(&self) -> (bool, u64) {
        let reserve = match self.trust {
            Trust::Relay => 0,
            Trust::Stranger { .. } => self.cost.warm.saturating_sub(1),
        };
        (self.is_leaving(), reserve)
    }

    /// Whether both may come from one publisher, which is back in a new session: names are known to all who
    /// listen, so it is the address that counts.
    pub fn may_return(&self, other: &Route) -> bool {
        self.session != other.session && self.trust == other.trust
    }

    /// Whether they are ways through two relays, or through one that has another name by now.
    pub fn is_another_way(&self, other: &Route) -> bool {
        self.trust == Trust::Relay && self.announcer() != other.announcer()
    }
}

/// One broadcast at one path, from the first route of its origin to the last: routes of one origin
/// that stand beside each other are ways to the same one. Numbers mean nothing outside of the
/// directory that gave them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Instance(u64);

/// A route in the directory.
#[derive(Debug)]
pub struct Entry {
    pub route: Arc<Route>,
    pub instance: Instance,
    /// The first route here from the same address, or of a relay's instance: who came first is the same on
    /// every shard.
    founder: RouteId,
    since: Instant,
    standing: Standing,
    /// Decides between equal ways that relays have passed on, alike on all of them.
    tie: u64,
}

/// Whether a route is still a way to what its path names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Standing {
    Live,
    /// A peer on its way has ended the path, and announced it anew: until this one changes, it may lead to
    /// the old broadcast.
    Old,
    /// A peer on its way has ended the path: its own end is to be expected. Neither shown nor used.
    Ended,
}

/// How a route came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// The peer that announced it says so.
    Withdrawn,
    /// With its session.
    Lost,
}

#[derive(Debug, Default)]
pub struct Directory {
    /// The routes of each announced path, best first.
    paths: BTreeMap<Path, Vec<Entry>>,
    /// Bytes that all of them may take.
    room: u64,
    /// How many there are, and what they take.
    held: Held,
    /// The same of those of strangers, by address.
    of_strangers: BTreeMap<u64, Held>,
    /// Those of them that leave.
    leaving: BTreeSet<RouteId>,
    /// Instances that there have been.
    instances: u64,
    journal: Journal,
    withdrawn: Withdrawn,
    takeover: Takeover,
    owners: Owners,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Held {
    routes: usize,
    bytes: u64,
}

impl Held {
    fn add(&mut self, route: &Route) {
        self.routes += 1;
        self.bytes += route.bytes();
    }

    fn remove(&mut self, route: &Route) {
        self.routes -= 1;
        self.bytes -= route.bytes();
    }
}

/// To whom a path belongs that several broadcasts claim.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Takeover {
    /// To the first one, for as long as it lives.
    #[default]
    Refused,
    /// To the one with the best route, and that is the newest among equals.
    Allowed,
}

impl Entry {
    /// Whether it is a way to the broadcast that an origin has here now.
    fn leads_to(&self, origin: u64) -> bool {
        self.route.origin == origin && self.standing == Standing::Live
    }

    fn is_usable(&self) -> bool {
        self.standing != Standing::Ended
    }

    /// Two sessions with one relay, over which the same comes at the same price.
    fn is_parallel_to(&self, other: &Entry) -> bool {
        self.route.trust == Trust::Relay
            && self.instance == other.instance
            && self.standing == other.standing
            && self.route.rank() == other.route.rank()
            && self.route.hops == other.route.hops
    }
}

impl Directory {
    /// One with so much room for routes, in bytes.
    pub fn new(takeover: Takeover, room: u64) -> Directory {
        Directory { takeover, room, ..Directory::default() }
    }

    /// Adds a route, or replaces the one with its id.
    pub fn insert(&mut self, route: Arc<Route>, now: Instant) {
        match self.paths.contains_key(&route.path) {
            true => self.journal.note_later(&route.path, now),
            false => self.journal.note(route.path.clone()),
        }
        let is_relay = route.trust == Trust::Relay;
        if is_relay {
            self.note_turn(&route);
        }
        if is_relay && self.withdrawn.announced(&route.path, route.announcer(), route.origin) {
            for entry in self.paths.get_mut(&route.path).into_iter().flatten() {
                if !entry.is_usable() && !self.withdrawn.is_on(&entry.route) {
                    entry.standing = Standing::Old;
                }
            }
        }
        let standing = match is_relay && self.withdrawn.is_on(&route) {
            true => Standing::Ended,
            false => Standing::Live,
        };
        let tie = if route.is_passed_on() { tie_of(&route) } else { 0 };
        let before = self.known_at(&route.path).find(|entry| entry.route.id == route.id);
        let since = match before.map(|before| (before.leads_to(route.origin), before.since)) {
            Some((true, since)) => since,
            Some((false, _)) => {
                self.forget(&route.path, route.id, Gone::Lost, now);
                now
            }
            None => now,
        };
        match route.is_leaving() {
            true => self.leaving.insert(route.id),
            false => self.leaving.remove(&route.id),
        };
        let entries = self.paths.entry(route.path.clone()).or_default();
        let same = entries.iter().find(|entry| entry.leads_to(route.origin));
        let (instance, founder) = match same {
            Some(entry) => (entry.instance, entry.founder),
            None => {
                let before = match route.trust {
                    Trust::Relay => None,
                    Trust::Stranger { at } => {
                        let same = entries.iter().find(|entry| entry.route.trust == route.trust);
                        let here = same.map(|entry| entry.founder);
                        here.or_else(|| self.owners.recall(&route.path, at, now))
                    }
                };
                (next_instance(&mut self.instances), before.unwrap_or(route.id))
            }
        };
        let known = entries.iter().position(|entry| entry.route.id == route.id);
        match known {
            Some(at) => {
                entries.remove(at);
            }
            None => {
                self.held.add(&route);
                if let Trust::Stranger { at } = route.trust {
                    self.of_strangers.entry(at).or_default().add(&route);
                }
            }
        }
        let path = route.path.clone();
        entries.push(Entry { route, instance, founder, since, standing, tie });
        order(entries, self.takeover);
        self.forget_withdrawals(&path);
    }

    /// Forgets a route. Its instance goes on if a way to it is left.
    pub fn remove(&mut self, path: &Path, id: RouteId, gone: Gone, now: Instant) {
        if self.forget(path, id, gone, now) {
            self.journal.note(path.clone());
            self.forget_withdrawals(path);
        }
    }

    /// Those of peers through which no way is known but to what they show.
    fn forget_withdrawals(&mut self, path: &Path) {
        let entries = self.paths.get(path).map_or(&[][..], Vec::as_slice);
        self.withdrawn.forget_all_but(path, |peer, shown| {
            let is_elsewhere = |route: &Route| Some(route.origin) != shown;
            entries
                .iter()
                .any(|entry| entry.route.hops.contains(peer) && is_elsewhere(&entry.route))
        });
    }

    /// A relay that shows another broadcast in the place of the one before has ended that, in no session showing
    /// it any more.
    fn note_turn(&mut self, route: &Route) {
        let peer = route.announcer();
        let entries = self.paths.get_mut(&route.path).map_or(&mut [][..], Vec::as_mut_slice);
        let before = entries.iter().find(|entry| entry.route.id == route.id);
        let Some(origin) = before.map(|entry| entry.route.origin) else { return };
        let is_about = |entry: &Entry| {
            entry.route.trust == Trust::Relay
                && entry.route.origin == origin
                && entry.route.id != route.id
        };
        let is_shown = |entry: &Entry| is_about(entry) && entry.route.announcer() == peer;
        if origin == route.origin || entries.iter().any(is_shown) {
            return;
        }
        let passes = |entry: &&mut Entry| is_about(entry) && entry.route.hops.contains(peer);
        let mut passing = entries.iter_mut().filter(passes).peekable();
        if passing.peek().is_some() {
            self.withdrawn.ended(&route.path, peer, Some(route.origin));
        }
        passing.for_each(|entry| entry.standing = Standing::Ended);
    }

    /// False if there was no such route.
    fn forget(&mut self, path: &Path, id: RouteId, gone: Gone, now: Instant) -> bool {
        self.leaving.remove(&id);
        let Some(entries) = self.paths.get_mut(path) else { return false };
        let Some(at) = entries.iter().position(|entry| entry.route.id == id) else { return false };
        let ended = entries.remove(at);
        self.held.remove(&ended.route);
        if let Trust::Stranger { at } = ended.route.trust {
            if let btree_map::Entry::Occupied(mut held) = self.of_strangers.entry(at) {
                held.get_mut().remove(&ended.route);
                if held.get().routes == 0 {
                    held.remove();
                }
            }
            let is_first = entries.iter().all(|entry| ended.founder < entry.founder);
            if is_first {
                self.owners.remember(path, at, ended.founder, now);
            }
        }
        let is_way =
            |entry: &Entry| entry.instance == ended.instance && entry.standing == Standing::Live;
        if gone == Gone::Withdrawn {
            let peer = ended.route.announcer();
            let is_relay = |route: &Route| route.trust == Trust::Relay;
            // Of others it counts for their own broadcast alone: nobody ends what he may not speak for.
            let is_about =
                |entry: &Entry| is_way(entry) || is_relay(&ended.route) && is_relay(&entry.route);
            let is_elsewhere = |entry: &Entry| is_about(entry) && entry.route.announcer() == peer;
            if !entries.iter().any(is_elsewhere) {
                let passes =
                    |entry: &&mut Entry| is_about(entry) && entry.route.hops.contains(peer);
                let mut passing = entries.iter_mut().filter(passes).peekable();
                if is_relay(&ended.route) && passing.peek().is_some() {
                    self.withdrawn.ended(path, peer, None);
                }
                passing.for_each(|entry| entry.standing = Standing::Ended);
            }
        }
        // Elsewhere this news may have come before that of a younger route, and tracks ended for
        // want of a way.
        let is_known =
            |entry: &Entry| entry.since <= ended.since || entry.since + ROUTES_BESIDE_MIN <= now;
        if !entries.iter().any(|entry| is_way(entry) && is_known(entry)) {
            let instance = next_instance(&mut self.instances);
            let left = entries.iter_mut().filter(|entry| is_way(entry));
            left.for_each(|entry| entry.instance = instance);
        }
        order(entries, self.takeover);
        if entries.is_empty() {
            self.paths.remove(path);
        }
        true
    }

    /// Moves the journal on to now.
    pub fn release(&mut self, now: Instant) {
        self.journal.release(now);
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Whether a route is announced, and not known to lead nowhere.
    pub fn is_way(&self, route: &Route) -> bool {
        self.at(&route.path).any(|entry| entry.route.id == route.id)
    }

    /// Whether a route is still announced.
    pub fn has(&self, route: &Route) -> bool {
        self.known_at(&route.path).any(|entry| entry.route.id == route.id)
    }

    /// Routes announced for exactly this path, those too that are not to be used.
    fn known_at(&self, path: &Path) -> impl Iterator<Item = &Entry> {
        self.paths.get(path).into_iter().flatten()
    }

    /// Routes to what is at exactly this path, best first.
    pub fn at(&self, path: &Path) -> impl Iterator<Item = &Entry> {
        self.known_at(path).filter(|entry| entry.is_usable())
    }

    /// The route that a request takes: of the longest covering path, the best.
    pub fn resolve(&self, path: &Path, identity: u64) -> Option<&Arc<Route>> {
        self.routes_covering(path).find(|route| !route.passes(identity))
    }

    /// The same among the routes that carry one content, without those that were tried. Of sessions with one
    /// peer over which it comes alike, that on this shard or one by this number: each carries a part.
    pub fn resolve_origin(
        &self,
        path: &Path,
        origin: u64,
        avoid: Option<u64>,
        tried: &[RouteId],
        (shard, number): (u16, u64),
    ) -> Option<&Arc<Route>> {
        let is_open = |entry: &&Entry| {
            entry.route.origin == origin
                && !tried.contains(&entry.route.id)
                && avoid.is_none_or(|identity| !entry.route.passes(identity))
        };
        let best = self.covering(path).find(is_open)?;
        let alike = || {
            let here = self.at(&best.route.path).filter(is_open);
            here.filter(|entry| entry.is_parallel_to(best)).map(|entry| &entry.route)
        };
        let near = alike().find(|route| route.session.shard == shard);
        // A publisher's own sessions are not alike, and come one after the other.
        let any = || alike().nth((number % alike().count().max(1) as u64) as usize);
        near.or_else(any).or(Some(&best.route))
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
        self.routes_covering(path)
            .filter(move |route| route.origin == origin && !tried.contains(&route.id))
            .filter(move |route| avoid.is_none_or(|identity| !route.passes(identity)))
    }

    /// Whether a route is one that leaves, by the latest news of it.
    pub fn is_leaving(&self, id: RouteId) -> bool {
        self.leaving.contains(&id)
    }

    /// Whether its session is silent, by the latest news of it.
    pub fn is_silent(&self, route: &Route) -> bool {
        self.known_at(&route.path).any(|entry| entry.route.id == route.id && entry.route.is_silent)
    }

    /// Whether a peer needs a copy of this content that avoids itself: the best way to it passes through
    /// the peer, or another one does by the word of a relay.
    pub fn passes(&self, path: &Path, origin: u64, identity: u64) -> bool {
        let ways = self.of_origin(path, origin, None, &[]).enumerate();
        ways.filter(|(at, route)| *at == 0 || route.trust == Trust::Relay)
            .any(|(_, route)| route.passes(identity))
    }

    /// Routes whose path covers `path`, longest first, then best first.
    pub fn covering<'a>(&'a self, path: &Path) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let known = path.ancestors().filter_map(|prefix| self.paths.get(&prefix)).flatten();
        known.filter(|entry| entry.is_usable())
    }

    fn routes_covering<'a>(
        &'a self,
        path: &Path,
    ) -> impl Iterator<Item = &'a Arc<Route>> + use<'a> {
        self.covering(path).map(|entry| &entry.route)
    }

    /// The best route of each announced path after this one, in order; all of them where none is named.
    pub fn best_after(&self, after: Option<&Path>) -> impl Iterator<Item = &Route> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let paths = self.paths.range((from, Bound::Unbounded));
        paths.filter_map(|(_, entries)| {
            Some(&*entries.iter().find(|entry| entry.is_usable())?.route)
        })
    }

    /// The announced paths after this one, in order; all of them where none is named.
    pub fn paths_after(&self, after: Option<&Path>) -> impl Iterator<Item = &Path> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.paths.range((from, Bound::Unbounded)).map(|(path, _)| path)
    }

    pub fn len(&self) -> usize {
        self.held.routes
    }

    /// Whether one more route may be announced.
    pub fn has_room(&self, route: &Route) -> bool {
        let bytes_of_address = self.room / ROUTES_ADDRESS_PART;
        let (routes, bytes) = (self.held.routes, self.held.bytes + route.bytes());
        match route.trust {
            // Whoever publishes here has room whatever is passed on.
            Trust::Relay => {
                routes < ROUTES_MAX - ROUTES_PER_ADDRESS_MAX
                    && bytes <= self.room - bytes_of_address
            }
            Trust::Stranger { at } => {
                let of_address = self.of_strangers.get(&at).copied().unwrap_or_default();
                routes < ROUTES_MAX
                    && bytes <= self.room
                    && self.has_room_at(&route.path, route.trust)
                    && of_address.routes < ROUTES_PER_ADDRESS_MAX
                    && of_address.bytes + route.bytes() <= bytes_of_address
            }
        }
    }

    /// The same at one path, whatever room there is elsewhere.
    pub fn has_room_at(&self, path: &Path, trust: Trust) -> bool {
        let same = self.known_at(path).filter(|known| known.route.trust == trust);
        trust == Trust::Relay || same.count() < ROUTES_PER_PATH_MAX
    }

    /// How many routes lead to exactly this path, or have led there.
    pub fn count_at(&self, path: &Path) -> usize {
        self.paths.get(path).map_or(0, Vec::len)
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}

/// Puts the routes of one path in the order in which they are taken.
fn order(entries: &mut [Entry], takeover: Takeover) {
    if takeover == Takeover::Allowed {
        return entries.sort_by_key(|Entry { standing, route, tie, .. }| {
            (*standing, route.rank(), *tie, Reverse(route.id))
        });
    }
    // Ways to one broadcast together, the best first; of equal ones the oldest, while it lives.
    entries.sort_by_key(|Entry { instance, standing, route, tie, .. }| {
        let rank = (route.trust == Trust::Relay).then(|| route.rank());
        (*instance, *standing, route.claim(), rank, *tie, route.id)
    });
    // What the best of each says for it.
    let mut claims = Vec::new();
    for Entry { instance, standing, route, .. } in entries.iter() {
        if claims.last().is_none_or(|(last, _)| last != instance) {
            claims.push((*instance, (*standing, route.claim())));
        }
    }
    entries.sort_by_key(|Entry { instance, founder, .. }| {
        let claim = claims.binary_search_by_key(instance, |(instance, _)| *instance);
        let (_, claim) = claims[claim.expect("every broadcast has made its claim")];
        (claim, *founder, *instance)
    });
}

/// What decides between equal ways through relays (spec §4.5): FNV-1a, by which all of them agree on one, and
/// not on the same one for every path.
fn tie_of(route: &Route) -> u64 {
    const SEED: u64 = 0x420c_0dec_b00b;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hops = route.hops.as_slice().iter().flat_map(|hop| hop.to_le_bytes());
    let bytes = route.path.as_str().bytes().chain(hops);
    bytes.fold(SEED, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

fn next_instance(instances: &mut u64) -> Instance {
    *instances += 1;
    Instance(*instances)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    pub(crate) fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    /// A route with number `id`, through the session with the same number.
    pub(crate) fn route(id: u64, at: &str, hops: &[u64], warm: u64) -> Arc<Route> {
        Arc::new(Route {
            id: RouteId(id),
            path: path(at),
            is_whole: true,
            is_linked: false,
            hops: Hops::from_slice(hops).unwrap(),
            origin: hops.first().copied().unwrap_or(0),
            trust: Trust::Relay,
            cost: Cost { warm, cold: warm },
            via: 1000 + id,
            session: SessionRef { shard: 0, slot: id as u32, generation: 1 },
            version: Version::Lite06,
            is_silent: false,
        })
    }

    fn directory(routes: &[Arc<Route>]) -> Directory {
        let mut directory = Directory::new(Takeover::Allowed, u64::MAX);
        let now = Instant::now();
        for route in routes {
            directory.insert(route.clone(), now);
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
    fn the_first_one_keeps_a_path_while_it_lives() {
        let by = |id: u64, origin, at: Option<u64>, cost| {
            let trust = at.map_or(Trust::Relay, |at| Trust::Stranger { at });
            Arc::new(Route { origin, trust, cost, ..(*route(id, "a", &[id], 0)).clone() })
        };
        let cost = |warm| Cost { warm, cold: warm };
        let order = |routes: &[Arc<Route>]| {
            let mut directory = Directory::default();
            routes.iter().for_each(|route| directory.insert(route.clone(), Instant::now()));
            directory.at(&path("a")).map(|entry| entry.route.id.0).collect::<Vec<_>>()
        };
        // Whoever it is, and whatever the others want for it.
        for at in [None, Some(30)] {
            let first = by(1, 100, at, cost(1));
            let second = by(2, 200, Some(20), Cost::UNPRICED);
            let third = by(3, 300, None, Cost::ZERO);
            assert_eq!(order(&[first.clone(), second.clone(), third.clone()]), [1, 2, 3]);
            // The order of news does not matter.
            assert_eq!(order(&[third, first, second]), [1, 2, 3]);
        }
        // Other ways to it are behind it and before all others, and a relay's price counts among them.
        let ways =
            [by(1, 100, None, cost(5)), by(2, 200, None, cost(1)), by(3, 100, None, cost(4))];
        assert_eq!(order(&ways), [3, 1, 2]);
        // A publisher's own older session before its newer one, until it is silent.
        let own = |id| by(id, 100, Some(30), cost(1));
        assert_eq!(order(&[own(1), by(2, 200, Some(20), cost(1)), own(3)]), [1, 3, 2]);
        let silent = Arc::new(Route { is_silent: true, ..(*own(1)).clone() });
        assert_eq!(order(&[silent.clone(), by(2, 200, Some(20), cost(1)), own(3)]), [3, 1, 2]);
        assert_eq!(order(&[silent, by(2, 200, Some(20), cost(1))]), [2, 1]);
        // Who wants to be behind is.
        assert_eq!(order(&[by(1, 100, Some(30), cost(3)), by(2, 200, Some(20), cost(2))]), [2, 1]);
        assert_eq!(
            order(&[by(1, 100, Some(30), Cost::MAX), by(2, 200, Some(20), cost(9))]),
            [2, 1]
        );
    }

    #[test]
    fn routes_are_counted_by_address() {
        let mut directory = Directory::new(Takeover::Refused, u64::MAX);
        let now = Instant::now();
        let by = |id: u64, trust| Arc::new(Route { trust, ..(*route(id, "a", &[id], 0)).clone() });
        let (here, there) = (Trust::Stranger { at: 1 }, Trust::Stranger { at: 2 });
        let most = ROUTES_PER_ADDRESS_MAX as u64;
        for id in 0..most {
            assert!(directory.has_room(&by(id, here)));
            let at = path(&id.to_string());
            directory.insert(Arc::new(Route { path: at, ..(*by(id, here)).clone() }), now);
        }
        assert!(!directory.has_room(&by(most, here)) && directory.has_room(&by(most, there)));
        assert!(directory.has_room(&by(most, Trust::Relay)));
        // A change is none more.
        directory.insert(Arc::new(Route { path: path("0"), ..(*by(0, here)).clone() }), now);
        assert_eq!(directory.len() as u64, most);
        directory.remove(&path("0"), RouteId(0), Gone::Lost, now);
        assert!(directory.has_room(&by(0, here)));
        for id in 1..most {
            directory.remove(&path(&id.to_string()), RouteId(id), Gone::Lost, now);
        }
        assert!(directory.is_empty() && directory.of_strangers.is_empty());
        assert_eq!((directory.len(), directory.held.bytes), (0, 0));
    }

    #[test]
    fn a_path_has_room_for_so_many_of_each_address() {
        let mut directory = Directory::new(Takeover::Refused, u64::MAX);
        let by = |id: u64, trust| Arc::new(Route { trust, ..(*route(id, "a", &[id], 0)).clone() });
        let (here, there) = (Trust::Stranger { at: 1 }, Trust::Stranger { at: 2 });
        let mut id = 0;
        while directory.has_room(&by(id, here)) {
            directory.insert(by(id, here), Instant::now());
            id += 1;
        }
        assert_eq!(directory.count_at(&path("a")), ROUTES_PER_PATH_MAX);
        // Others have room there, and these elsewhere.
        assert!(directory.has_room(&by(id, there)) && directory.has_room(&by(id, Trust::Relay)));
        assert!(directory.has_room(&Route { path: path("b"), ..(*by(id, here)).clone() }));
        directory.remove(&path("a"), RouteId(0), Gone::Lost, Instant::now());
        assert!(directory.has_room(&by(id, here)));
    }

    #[test]
    fn what_relays_pass_on_leaves_room_for_who_publishes_here() {
        let room = 8 * ROUTE_BYTES as u64 * ROUTES_ADDRESS_PART;
        let mut directory = Directory::new(Takeover::Refused, room);
        let by = |id: u64, trust| Route {
            trust,
            path: path(&id.to_string()),
            ..(*route(id, "a", &[id], 0)).clone()
        };
        let mut passed_on = 0;
        while directory.has_room(&by(passed_on, Trust::Relay)) {
            directory.insert(Arc::new(by(passed_on, Trust::Relay)), Instant::now());
            passed_on += 1;
        }
        assert!(passed_on > 40);
        assert!(directory.has_room(&by(passed_on, Trust::Stranger { at: 1 })));
    }

    #[test]
    fn routes_have_a_part_of_the_memory_by_what_they_take() {
        const LONG: usize = 900;
        let room = ROUTES_ADDRESS_PART * 3 * (LONG + ROUTE_BYTES) as u64;
        let mut directory = Directory::new(Takeover::Refused, room);
        let by = |id: u64, at| {
            let (trust, path) = (Trust::Stranger { at }, path(&format!("{id:0LONG$}")));
            Arc::new(Route { trust, path, ..(*route(id, "a", &[id], 0)).clone() })
        };
        let mut fit = |at: u64| {
            let ids = at * 100..at * 100 + 100;
            let routes = ids.map(|id| by(id, at));
            let fit = routes.take_while(|route| {
                let has_room = directory.has_room(route);
                if has_room {
                    directory.insert(route.clone(), Instant::now());
                }
                has_room
            });
            fit.count()
        };
        // Each address has its part, until all is taken.
        let fitting: Vec<usize> = (1..=ROUTES_ADDRESS_PART + 1).map(&mut fit).collect();
        assert_eq!(fitting, [3, 3, 3, 3, 3, 3, 3, 3, 0]);
    }

    #[test]
    fn nobody_is_served_from_what_passes_through_itself() {
        let routes = [route(1, "a", &[7], 0), route(2, "a", &[7, 8], 5), route(3, "", &[9], 0)];
        check(&routes, "a", 1001, Some(2));
        check(&routes, "a", 8, Some(1));
        check(&routes, "a", 7, Some(3));
        check(&routes[..2], "a", 7, None);
        let directory = directory(&routes);
        let to = |avoid| {
            directory.resolve_origin(&path("a/x"), 7, avoid, &[], (0, 0)).map(|route| route.id.0)
        };
        assert_eq!((to(None), to(Some(1001)), to(Some(7))), (Some(1), Some(2), None));
        let next = directory.resolve_origin(&path("a/x"), 7, None, &[RouteId(1)], (0, 0));
        assert_eq!(next.map(|route| route.id.0), Some(2));
        assert!(directory.passes(&path("a/x"), 7, 8));
        assert!(!directory.passes(&path("a/x"), 9, 8));
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
        let now = Instant::now();
        directory.insert(leaving(1, &[7]), now);
        assert_eq!(staying(&directory, &[]), None);
        assert!(directory.is_leaving(RouteId(1)));
        directory.insert(route(1, "a", &[7], 3), now);
        directory.remove(&path("a"), RouteId(2), Gone::Lost, now);
        assert!(directory.leaving.is_empty());
    }

    #[test]
    fn a_change_replaces_and_a_removal_removes() {
        let mut directory = directory(&[route(1, "a", &[7], 0), route(2, "a", &[8], 5)]);
        let now = Instant::now();
        directory.insert(route(1, "a", &[7], 9), now);
        let best = |directory: &Directory| directory.resolve(&path("a"), 5).map(|route| route.id.0);
        assert_eq!((best(&directory), directory.len()), (Some(2), 2));
        directory.remove(&path("a"), RouteId(2), Gone::Withdrawn, now);
        assert!(!directory.has(&route(2, "a", &[8], 5)) && directory.has(&route(1, "a", &[7], 9)));
        directory.remove(&path("a"), RouteId(1), Gone::Withdrawn, now);
        directory.remove(&path("a"), RouteId(1), Gone::Withdrawn, now);
        assert!(directory.is_empty());
    }

    /// Of the routes at one path, what each belongs to: `7` for the first instance of origin 7,
    /// `7'` for the next one.
    struct Watch {
        directory: Directory,
        now: Instant,
        seen: Vec<(u64, Instance)>,
    }

    impl Watch {
        fn new() -> Watch {
            Watch { directory: Directory::default(), now: Instant::now(), seen: Vec::new() }
        }

        fn up(&mut self, id: u64, hops: &[u64]) {
            self.up_at(id, hops, 0);
        }

        fn up_at(&mut self, id: u64, hops: &[u64], cost: u64) {
            self.directory.insert(route(id, "a", hops, cost), self.now);
        }

        fn down(&mut self, id: u64, gone: Gone) {
            self.directory.remove(&path("a"), RouteId(id), gone, self.now);
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
        }

        fn best(&self) -> Option<u64> {
            self.directory.resolve(&path("a"), 5).map(|route| route.id.0)
        }

        /// By the numbers of the routes.
        #[track_caller]
        fn check(&mut self, expect: &[(u64, &str)]) {
            let mut shown = Vec::new();
            for entry in self.directory.at(&path("a")) {
                let name = (entry.route.origin, entry.instance);
                if !self.seen.contains(&name) {
                    self.seen.push(name);
                }
                let older = self.seen.iter().take_while(|seen| **seen != name);
                let count = older.filter(|(origin, _)| *origin == name.0).count();
                shown.push((entry.route.id.0, format!("{}{}", name.0, "'".repeat(count))));
            }
            shown.sort();
            let expect: Vec<_> = expect.iter().map(|(id, name)| (*id, name.to_string())).collect();
            assert_eq!(shown, expect);
        }
    }

    #[test]
    fn routes_of_one_origin_that_stand_beside_each_other_lead_to_one_broadcast() {
        for gone in [Gone::Withdrawn, Gone::Lost] {
            let mut w = Watch::new();
            w.up(1, &[7]);
            w.up(2, &[8]);
            w.check(&[(1, "7"), (2, "8")]);
            // Over two relays, and the publisher's own session again.
            w.up(3, &[7, 9]);
            w.up(4, &[7, 10]);
            w.pass(ROUTES_BESIDE_MIN);
            w.down(3, gone);
            w.up(5, &[7]);
            w.check(&[(1, "7"), (2, "8"), (4, "7"), (5, "7")]);
            w.pass(ROUTES_BESIDE_MIN);
            w.down(1, gone);
            w.check(&[(2, "8"), (4, "7"), (5, "7")]);
            w.down(4, gone);
            w.check(&[(2, "8"), (5, "7")]);
            w.down(5, gone);
            w.down(5, gone);
            w.check(&[(2, "8")]);
            assert_eq!(w.directory.len(), 1);
        }
    }

    #[test]
    fn what_is_announced_after_the_last_route_of_its_origin_is_another_broadcast() {
        for gone in [Gone::Withdrawn, Gone::Lost] {
            let mut w = Watch::new();
            w.up(1, &[7]);
            w.up(2, &[8]);
            w.check(&[(1, "7"), (2, "8")]);
            w.down(1, gone);
            w.up(3, &[7]);
            w.check(&[(2, "8"), (3, "7'")]);
            w.down(2, gone);
            w.down(3, gone);
            w.check(&[]);
            w.up(3, &[7]);
            w.up(4, &[8, 7]);
            w.check(&[(3, "7''"), (4, "8'")]);
        }
    }

    #[test]
    fn a_route_that_changes_is_the_same_unless_its_origin_changes() {
        let mut w = Watch::new();
        w.up(1, &[7]);
        w.up_at(1, &[7, 9], 5);
        w.check(&[(1, "7")]);
        w.up_at(1, &[7, 9], Cost::MAX.warm);
        w.check(&[(1, "7")]);
        w.up(1, &[8]);
        w.check(&[(1, "8")]);
        w.up(1, &[7]);
        w.check(&[(1, "7'")]);
        w.up(2, &[8]);
        w.up(1, &[8]);
        w.check(&[(1, "8'"), (2, "8'")]);
    }

    /// Where the first one's end was heard of before the second one, nothing led on.
    #[test]
    fn a_way_that_may_not_have_been_known_everywhere_is_not_the_same_broadcast() {
        let brief = ROUTES_BESIDE_MIN - Duration::from_millis(1);
        for (beside, expect) in [(Duration::ZERO, "7'"), (brief, "7'"), (ROUTES_BESIDE_MIN, "7")] {
            let mut w = Watch::new();
            w.up(1, &[7]);
            w.check(&[(1, "7")]);
            w.pass(ROUTES_BESIDE_MIN);
            w.up(2, &[7, 9]);
            w.up(3, &[7, 10]);
            w.pass(beside);
            // A change does not make it younger.
            w.up(2, &[7, 11]);
            w.down(1, Gone::Lost);
            w.check(&[(2, expect), (3, expect)]);
        }
        // The older one of two was there first in any case.
        let mut w = Watch::new();
        w.up(1, &[7]);
        w.check(&[(1, "7")]);
        w.pass(brief);
        w.up(2, &[7, 9]);
        w.down(2, Gone::Lost);
        w.check(&[(1, "7")]);
    }

    #[test]
    fn what_a_peer_has_ended_is_over_on_every_way_through_it() {
        let scene = || {
            let mut w = Watch::new();
            w.up(1, &[7]);
            w.up(2, &[7, 9]);
            w.up(3, &[7, 10]);
            w.check(&[(1, "7"), (2, "7"), (3, "7")]);
            w.pass(ROUTES_BESIDE_MIN);
            w
        };
        // The publisher: whatever the relays show is its last broadcast, until they say otherwise.
        let mut w = scene();
        w.down(1, Gone::Withdrawn);
        w.check(&[]);
        w.up(4, &[7]);
        w.check(&[(2, "7"), (3, "7"), (4, "7'")]);
        assert_eq!(w.best(), Some(4), "what is announced since comes first");
        w.down(2, Gone::Withdrawn);
        w.up(5, &[7, 9]);
        w.up(3, &[7, 10]);
        w.check(&[(3, "7'"), (4, "7'"), (5, "7'")]);
        w.pass(ROUTES_BESIDE_MIN);
        w.down(4, Gone::Lost);
        w.check(&[(3, "7'"), (5, "7'")]);
        // A session that is lost, or of which the peer has another one, ends nothing.
        let mut w = scene();
        w.down(1, Gone::Lost);
        w.up(4, &[7]);
        w.check(&[(2, "7"), (3, "7"), (4, "7")]);
        w.up(5, &[7]);
        w.down(4, Gone::Withdrawn);
        w.up(6, &[7]);
        w.check(&[(2, "7"), (3, "7"), (5, "7"), (6, "7")]);
        // One of the relays: the others go on.
        let mut w = scene();
        w.down(2, Gone::Withdrawn);
        w.up(4, &[7, 9]);
        w.check(&[(1, "7"), (3, "7"), (4, "7")]);
        // Nobody is a hop of everybody.
        let mut w = Watch::new();
        w.up(1, &[7, 0]);
        w.up(2, &[7, 0, 0]);
        w.check(&[(1, "7"), (2, "7")]);
        w.pass(ROUTES_BESIDE_MIN);
        w.down(1, Gone::Withdrawn);
        w.up(3, &[7, 0]);
        w.check(&[(2, "7"), (3, "7")]);
    }

    #[test]
    fn ways_through_who_has_ended_a_path_are_not_tried() {
        let mut w = Watch::new();
        w.up(1, &[7, 8]);
        w.up(2, &[7, 8, 9]);
        w.up(3, &[7, 9]);
        w.up(4, &[7, 10, 8, 14]);
        // Another broadcast of the name, through it too.
        w.up(5, &[6, 8, 11]);
        w.down(1, Gone::Withdrawn);
        w.check(&[(3, "7")]);
        // Who is told of another such way has not heard of it yet.
        w.up(2, &[7, 8, 12, 9]);
        w.up(6, &[7, 8, 13]);
        w.check(&[(3, "7")]);
        w.down(3, Gone::Withdrawn);
        w.check(&[]);
        assert_eq!((w.best(), w.directory.len()), (None, 4));
        assert_eq!(w.directory.best_after(None).count(), 0);
        // Both have to be back for a way through both, and to that alone.
        w.up(7, &[7, 9]);
        w.check(&[(7, "7'")]);
        w.up(8, &[7, 8]);
        assert_eq!((w.best(), w.directory.at(&path("a")).count()), (Some(7), 5));
        for id in [2, 4, 5, 6, 7, 8] {
            w.down(id, Gone::Withdrawn);
        }
        assert!(w.directory.is_empty() && w.directory.withdrawn.is_empty());
        // Nothing is known through it: nothing is remembered.
        w.up(9, &[7, 9]);
        w.up(10, &[7, 10]);
        w.down(9, Gone::Withdrawn);
        assert!(w.directory.withdrawn.is_empty());
        w.up(9, &[7, 9]);
        assert_eq!(w.directory.at(&path("a")).count(), 2);
    }

    #[test]
    fn ways_to_what_a_relay_shows_no_more_are_not_tried() {
        let mut w = Watch::new();
        w.up(1, &[7, 8]);
        w.up(2, &[7, 8]);
        w.up(3, &[7, 8, 9]);
        w.up(4, &[7, 10]);
        w.up(5, &[6, 8, 11]);
        // Another session with it says otherwise.
        w.up(1, &[6, 8]);
        w.check(&[(1, "6"), (2, "7"), (3, "7"), (4, "7"), (5, "6")]);
        w.up(2, &[6, 8]);
        w.check(&[(1, "6"), (2, "6"), (4, "7"), (5, "6")]);
        // Who is told of another such way has not heard of it yet.
        w.up(6, &[7, 8, 12]);
        w.check(&[(1, "6"), (2, "6"), (4, "7"), (5, "6")]);
        // It shows the first one again.
        w.up(1, &[7, 8]);
        w.check(&[(1, "7"), (2, "6"), (3, "7"), (4, "7"), (5, "6"), (6, "7")]);
        for id in [2, 3, 5, 6] {
            w.down(id, Gone::Withdrawn);
        }
        assert!(w.directory.withdrawn.is_empty());
        // What it has ended is not what it begins after that.
        w.up(5, &[6, 8, 11]);
        w.down(1, Gone::Withdrawn);
        w.up(1, &[7, 8]);
        w.check(&[(1, "7"), (4, "7")]);
    }

    /// A stranger may say that it is anybody.
    #[test]
    fn a_stranger_ends_nothing_but_its_own() {
        let stranger = |id, hops: &[u64]| {
            let trust = Trust::Stranger { at: 5 };
            Arc::new(Route { origin: 55, trust, ..(*route(id, "a", hops, 0)).clone() })
        };
        let mut w = Watch::new();
        w.up(1, &[7, 9]);
        let now = w.now;
        w.directory.insert(stranger(2, &[55, 9]), now);
        w.down(2, Gone::Withdrawn);
        assert_eq!(w.best(), Some(1));
        w.directory.insert(stranger(3, &[55, 7]), now);
        w.up(4, &[7]);
        w.down(4, Gone::Withdrawn);
        w.check(&[(3, "55")]);
        w.directory.insert(stranger(3, &[55, 7]), now);
        assert_eq!(w.best(), Some(3));
    }

    /// By a hash that moq-relay shares: its nodes and these take the same way.
    #[test]
    fn equal_ways_through_relays_are_decided_alike_everywhere() {
        assert_eq!(tie_of(&route(1, "room/1", &[7, 9], 0)), 0x90b92748de978336);
        let winners: Vec<u64> = ["a", "b", "c", "d", "e", "f", "g", "h"]
            .into_iter()
            .map(|at| {
                let both = [route(1, at, &[7, 9], 0), route(2, at, &[7, 10], 0)];
                let one = directory(&both).resolve(&path(at), 5).map(|route| route.id);
                let mut refused = Directory::default();
                let now = Instant::now();
                both.iter().rev().for_each(|route| refused.insert(route.clone(), now));
                assert_eq!(refused.resolve(&path(at), 5).map(|route| route.id), one);
                one.expect("both are usable").0
            })
            .collect();
        assert_eq!(winners, [1, 2, 2, 2, 2, 1, 2, 1]);
    }

    #[test]
    fn sessions_with_one_peer_share_what_it_has() {
        let routes = [
            route(1, "a", &[7, 9], 0),
            route(2, "a", &[7, 9], 0),
            route(3, "a", &[7, 9], 0),
            route(4, "a", &[7, 10, 9], 0),
            route(5, "a", &[7, 9], 3),
        ];
        let mut directory = Directory::default();
        let now = Instant::now();
        for (shard, route) in routes.iter().enumerate() {
            let session = SessionRef { shard: shard as u16, ..route.session };
            directory.insert(Arc::new(Route { session, ..(**route).clone() }), now);
        }
        let taken = |shard, number, tried: &[RouteId]| {
            let route = directory.resolve_origin(&path("a/x"), 7, None, tried, (shard, number));
            route.map(|route| route.id.0)
        };
        assert_eq!([0, 1, 2, 3].map(|shard| taken(shard, 2, &[])), [1, 2, 3, 3].map(Some));
        let of =
            |tried: &[RouteId]| (0..6).map(|number| taken(9, number, tried)).collect::<Vec<_>>();
        assert_eq!(of(&[]), [1, 2, 3, 1, 2, 3].map(Some));
        assert_eq!(of(&[RouteId(2)]), [1, 3, 1, 3, 1, 3].map(Some));
        assert_eq!(of(&[RouteId(1), RouteId(2), RouteId(3)]), [Some(4); 6]);
        assert_eq!(of(&[1, 2, 3, 4, 5].map(RouteId)), [None; 6]);
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
}
