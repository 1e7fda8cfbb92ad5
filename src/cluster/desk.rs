//! All links as one state machine: which there should be, when each is dialled and at which of its addresses,
//! what comes of that. Time comes in as an argument, and chance from a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::peer::{Key, Old, Peer, State, shard_of};
use super::said::Said;
use super::{LinkId, News};
use crate::config::{Entry, Place};
use crate::limits::{
    LINK_HANDOVER_MAX, LOST_AFTER_FAILURES, NAME_TTL_MAX, NAME_TTL_MIN, PEERS_MAX, REDIAL_AFTER,
    REDIAL_AFTER_MAX, SELF_LOOKED_AT_AFTER,
};
use crate::route::SessionRef;

/// What a name leads to.
#[derive(Debug)]
pub struct Known {
    pub addresses: Vec<SocketAddr>,
    /// For how long that is so.
    pub ttl: Duration,
    /// Why there may be others.
    pub fault: Option<String>,
}

pub type Found = Result<Known, String>;

/// Why a name leads nowhere that is there.
const NOWHERE: &str = "the name has no address";

/// What an operator can do about a peer that does not let this relay in.
const LET_IN_BY: &str = "see --cluster-token, or --connect-tls-cert and --auth-peer there";

/// Why there is no link with one that has our hop.
pub const SAME_HOP: &str = "another relay has our --cluster-id, or this is our own address";

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Answered by [`Desk::found`].
    Find(Place),
    Dial {
        link: LinkId,
        /// Whose link it is, whatever address it has.
        shard: usize,
        address: SocketAddr,
        entry: Entry,
    },
    HangUp {
        link: LinkId,
        shard: usize,
    },
}

/// How it is with one relay that there should be a link with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub place: Place,
    /// The one of many addresses, or the last one that was dialled.
    pub address: Option<SocketAddr>,
    pub state: &'static str,
    pub link: Option<LinkId>,
    pub shard: usize,
    pub hop: Option<u64>,
    /// Since when it is in this state.
    pub since: Instant,
    /// Times that it was dialled.
    pub dials: u64,
    pub last_error: Option<String>,
}

/// A name that stands for many.
#[derive(Debug)]
struct Name {
    entry: Entry,
    /// None while it is looked for.
    look_at: Option<Instant>,
    /// Since when it is wanted.
    since: Instant,
    /// Why it led nowhere, or not to all, when it was last looked for.
    last_error: Option<String>,
    /// Relays that there was no room for then.
    left_out: usize,
}

/// What this relay knows itself by.
pub struct Own {
    pub hop: u64,
    /// Whether what answers there with our hop is this relay, and not another one that was given the same.
    pub is_at: Box<dyn Fn(SocketAddr) -> bool + Send>,
}

pub struct Desk {
    own: Own,
    shards: usize,
    peers: BTreeMap<Key, Peer>,
    names: BTreeMap<Place, Name>,
    guests: FxHashMap<SessionRef, u64>,
    commands: VecDeque<Command>,
    /// What is worth a line.
    said: VecDeque<Said>,
    next_link: u64,
    random: u64,
    is_leaving: bool,
    is_resting: bool,
}

impl Desk {
    pub fn new(own: Own, shards: usize, seed: u64) -> Desk {
        Desk {
            own,
            shards,
            peers: BTreeMap::new(),
            names: BTreeMap::new(),
            guests: FxHashMap::default(),
            commands: VecDeque::new(),
            said: VecDeque::new(),
            next_link: 1,
            random: seed | 1,
            is_leaving: false,
            is_resting: false,
        }
    }

    pub fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    pub fn next_said(&mut self) -> Option<Said> {
        self.said.pop_front()
    }

    /// These are the relays that there should be links with.
    pub fn want(&mut self, now: Instant, entries: &[Entry]) {
        let wanted: BTreeMap<&Place, &Entry> =
            entries.iter().map(|entry| (&entry.place, entry)).collect();
        let is_as_it_was = |place: &Place, entry: &Entry| wanted.get(place) == Some(&entry);
        self.names.retain(|place, name| is_as_it_was(place, &name.entry));
        let gone: Vec<Key> = self
            .peers
            .iter()
            .filter(|(key, peer)| !is_as_it_was(&key.place, &peer.entry))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.forget(&key);
        }
        let mut left_out = 0;
        for entry in entries {
            let place = entry.place.clone();
            let has_room = match place.is_set {
                true => self.insert_name(now, entry),
                false => self.insert(now, Key { place, address: None }, entry),
            };
            left_out += usize::from(!has_room);
        }
        if left_out > 0 {
            self.said.push_back(Said::LeftOut { place: None, relays: left_out });
        }
        self.expire(now);
    }

    /// Whether there is room for it. Who is known has it.
    fn insert_name(&mut self, now: Instant, entry: &Entry) -> bool {
        if self.names.len() >= PEERS_MAX && !self.names.contains_key(&entry.place) {
            return false;
        }
        self.names.entry(entry.place.clone()).or_insert_with(|| Name {
            entry: entry.clone(),
            look_at: Some(now),
            since: now,
            last_error: None,
            left_out: 0,
        });
        true
    }

    /// The same for one relay.
    fn insert(&mut self, now: Instant, key: Key, entry: &Entry) -> bool {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&key) {
            return false;
        }
        let shard = shard_of(&key, self.shards);
        let peer = self.peers.entry(key).or_insert_with(|| Peer::new(now, entry, shard));
        peer.is_unwanted = false;
        true
    }

    fn forget(&mut self, key: &Key) {
        let Some(peer) = self.peers.remove(key) else { return };
        let Key { place, address } = key.clone();
        self.said.push_back(Said::Unwanted { place, address });
        let old = peer.old.map(|old| old.link);
        for link in peer.state.link().into_iter().chain(old) {
            self.commands.push_back(Command::HangUp { link, shard: peer.shard });
        }
    }

    /// Where a place is, or why that is not known.
    pub fn found(&mut self, now: Instant, place: &Place, found: Found) {
        if place.is_set {
            return self.found_set(now, place, found);
        }
        let rests = self.rests();
        let key = Key { place: place.clone(), address: None };
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.state == State::Looks) else {
            return;
        };
        match found {
            // It is looked for again when it is to be dialled.
            _ if rests => peer.set(now, State::Waits { until: now }),
            Ok(known) if !known.addresses.is_empty() => {
                peer.untried = known.addresses.into();
                self.dial_next(now, &key);
            }
            Ok(_) => self.failed(now, &key, NOWHERE, false),
            Err(error) => self.failed(now, &key, &error, false),
        }
    }

    fn found_set(&mut self, now: Instant, place: &Place, found: Found) {
        let Some(name) = self.names.get_mut(place) else { return };
        let Known { addresses, ttl, fault } = match found {
            Ok(known) => known,
            Err(error) => {
                // What was there is most likely there still.
                name.look_at = Some(now + NAME_TTL_MIN);
                return self.not_found(place, error);
            }
        };
        name.look_at = Some(now + ttl.clamp(NAME_TTL_MIN, NAME_TTL_MAX));
        let is_all = fault.is_none();
        match fault.or_else(|| addresses.is_empty().then(|| NOWHERE.to_owned())) {
            Some(error) => self.not_found(place, error),
            None => name.last_error = None,
        }
        let Some(name) = self.names.get(place) else { return };
        let entry = name.entry.clone();
        let addresses: BTreeSet<SocketAddr> = addresses.into_iter().collect();
        // Where there may be others, those are gone that are not there and have been nowhere for long.
        let is_gone = |(key, peer): &(&Key, &Peer)| {
            key.place == *place
                && key.address.is_none_or(|at| !addresses.contains(&at))
                && (is_all || peer.failures >= LOST_AFTER_FAILURES)
        };
        let gone = self.peers.iter().filter(is_gone).map(|(key, _)| key.clone());
        for key in gone.collect::<Vec<_>>() {
            // A relay that leaves is out of the name before it is gone: what it carries goes on.
            match self.peers.get_mut(&key) {
                Some(peer) if matches!(peer.state, State::Up { .. }) => peer.is_unwanted = true,
                _ => self.forget(&key),
            }
        }
        let mut left_out = 0;
        for address in addresses {
            let key = Key { place: place.clone(), address: Some(address) };
            left_out += usize::from(!self.insert(now, key, &entry));
        }
        self.has_left_out(place, left_out);
        self.expire(now);
    }

    /// Said once as long as it is the same.
    fn has_left_out(&mut self, place: &Place, relays: usize) {
        let Some(name) = self.names.get_mut(place) else { return };
        let before = std::mem::replace(&mut name.left_out, relays);
        if relays > 0 && relays != before {
            self.said.push_back(Said::LeftOut { place: Some(place.clone()), relays });
        }
    }

    /// Said once for each thing that is wrong.
    fn not_found(&mut self, place: &Place, error: String) {
        let Some(name) = self.names.get_mut(place) else { return };
        if name.last_error.as_ref() != Some(&error) {
            name.last_error = Some(error.clone());
            self.said.push_back(Said::NotFound { place: place.clone(), error });
        }
    }

    /// Does what is due.
    pub fn expire(&mut self, now: Instant) {
        if self.rests() {
            return;
        }
        for (place, name) in &mut self.names {
            if name.look_at.take_if(|at| *at <= now).is_some() {
                self.commands.push_back(Command::Find(place.clone()));
            }
        }
        let is_due = |peer: &Peer| peer.state.waits_until().is_some_and(|until| until <= now);
        let due = self.peers.iter().filter(|(_, peer)| is_due(peer)).map(|(key, _)| key.clone());
        for key in due.collect::<Vec<_>>() {
            self.begin(now, &key);
        }
        for peer in self.peers.values_mut() {
            let is_over = |old: &mut Old| old.until.is_some_and(|until| until <= now);
            if let Some(Old { link, .. }) = peer.old.take_if(is_over) {
                self.commands.push_back(Command::HangUp { link, shard: peer.shard });
            }
        }
        self.take_back(now);
    }

    pub fn deadline(&self) -> Option<Instant> {
        if self.rests() {
            return None;
        }
        let names = self.names.values().filter_map(|name| name.look_at);
        let peers = self.peers.values().filter_map(|peer| peer.state.waits_until());
        let old = self.peers.values().filter_map(|peer| peer.old?.until);
        names.chain(peers).chain(old).min()
    }

    /// Finds out where a peer is, and dials it.
    fn begin(&mut self, now: Instant, key: &Key) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let place = &peer.entry.place;
        let ip = place.ip().map(|ip| SocketAddr::new(ip, place.port));
        // Who sends us elsewhere means the same host, at the address that it was found at.
        let same = peer.address.filter(|_| peer.redirect.is_some());
        match same.or(key.address).or(ip) {
            Some(address) => {
                peer.untried = [address].into();
                self.dial_next(now, key);
            }
            None => {
                peer.set(now, State::Looks);
                self.commands.push_back(Command::Find(key.place.clone()));
            }
        }
    }

    fn dial_next(&mut self, now: Instant, key: &Key) {
        let link = LinkId(self.next_link);
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(mut address) = peer.untried.pop_front() else { return };
        let entry = peer.redirect.clone().unwrap_or_else(|| peer.entry.clone());
        if peer.redirect.is_some() {
            address.set_port(entry.place.port);
        }
        self.next_link += 1;
        peer.address = Some(address);
        peer.dials += 1;
        peer.set(now, State::Dials { link });
        let shard = peer.shard;
        self.said.push_back(Said::Dialing { place: entry.place.clone(), address });
        self.commands.push_back(Command::Dial { link, shard, address, entry });
    }

    fn failed(&mut self, now: Instant, key: &Key, error: &str, is_denied: bool) {
        let (chance, rests) = (self.chance(), self.rests());
        let Some(peer) = self.peers.get_mut(key) else { return };
        let error = match is_denied {
            true => format!("{error}; {LET_IN_BY}"),
            false => error.to_owned(),
        };
        peer.last_error = Some(error.clone());
        if peer.is_unwanted {
            // This link is over; the one before it may not be.
            peer.set(now, State::Waits { until: now });
            return self.forget(key);
        }
        peer.redirect = None;
        if !peer.untried.is_empty() && !is_denied && !rests {
            return self.dial_next(now, key);
        }
        if let Some(old) = peer.old.take_if(|old| old.until.is_none()) {
            // Nobody else is there yet: it is dialled again when this one is over.
            return peer.set(now, State::Up { link: old.link, hop: old.hop });
        }
        let longest = if is_denied { REDIAL_AFTER_MAX } else { peer.longest_pause() };
        peer.failures += 1;
        // Whoever is not let in will not be a moment later: that is for the operator.
        let share = if is_denied { 0.5 + chance / 2.0 } else { chance };
        let retry_in = longest.mul_f64(share);
        peer.set(now, State::Waits { until: now + retry_in });
        let place = key.place.clone();
        self.said.push_back(match rests {
            true => Said::Over { place, error },
            false => Said::Failed { place, error, retry_in, is_denied },
        });
    }

    /// From nothing to one.
    fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn hear(&mut self, now: Instant, news: News) {
        match news {
            News::Up { link, hop } => self.is_up(now, link, hop),
            News::Leaving { link, to } => self.leaves(now, link, &to),
            News::Down { link, reason, is_denied } => self.is_down(now, link, &reason, is_denied),
            News::Guest { session, hop } => {
                self.guests.insert(session, hop);
                let is_it = |state: State| matches!(state, State::Up { hop: is, .. } if is == hop);
                let is_double =
                    |(key, peer): &(&Key, &Peer)| is_it(peer.state) && key.place.is_whole();
                let double = self.peers.iter().find(is_double);
                let double = double.map(|(key, _)| key.clone());
                // The one that the lower of the two has dialled is kept, as both of them see it.
                if let Some(key) = double.filter(|_| hop < self.own.hop) {
                    self.give_way(now, &key, hop);
                }
            }
            News::GuestLeft { session } => {
                self.guests.remove(&session);
            }
        }
        self.take_back(now);
    }

    fn is_up(&mut self, now: Instant, link: LinkId, hop: u64) {
        let Some(key) = self.key_of(link) else { return };
        if hop == self.own.hop {
            return self.is_itself(now, &key);
        }
        // What is below another path there comes by no other link.
        let is_other = |(other, peer): (&Key, &Peer)| {
            *other != key
                && other.place.path == key.place.path
                && matches!(peer.state, State::Up { hop: is, .. } if is == hop)
        };
        let is_guest = hop < self.own.hop
            && key.place.is_whole()
            && self.guests.values().any(|guest| *guest == hop);
        if is_guest || self.peers.iter().any(is_other) {
            return self.give_way(now, &key, hop);
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.untried.clear();
        if let Some(old) = peer.old.take_if(|old| old.until.is_none() && old.hop == hop) {
            // It is the one that leaves.
            self.commands.push_back(Command::HangUp { link, shard: peer.shard });
            return peer.set(now, State::Up { link: old.link, hop });
        }
        peer.last_error = None;
        peer.set(now, State::Up { link, hop });
        peer.moves_over(now);
        self.said.push_back(Said::Up { place: key.place, hop });
    }

    /// It has dialled itself, or one that says so. It is dialled again only in case the place is somebody else's
    /// by then.
    fn is_itself(&mut self, now: Instant, key: &Key) {
        self.hang_up(key);
        let rests = self.rests();
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.redirect.is_some() {
            // Where it was to be is as good as before.
            return self.failed(now, key, "it sends this relay to itself", false);
        }
        if !peer.untried.is_empty() && !rests {
            return self.dial_next(now, key);
        }
        let (place, until) = (key.place.clone(), now + SELF_LOOKED_AT_AFTER);
        if peer.address.is_none_or(|at| (self.own.is_at)(at)) {
            peer.set(now, State::IsItself { until });
            peer.last_error = None;
            self.said.push_back(Said::Itself { place });
        } else {
            let hop = self.own.hop;
            peer.set(now, State::Waits { until });
            peer.last_error = Some(format!("{SAME_HOP}: {hop}"));
            self.said.push_back(Said::SameHop { place, hop });
        }
    }

    fn hang_up(&mut self, key: &Key) {
        let Some(peer) = self.peers.get(key) else { return };
        if let Some(link) = peer.state.link() {
            self.commands.push_back(Command::HangUp { link, shard: peer.shard });
        }
    }

    fn give_way(&mut self, now: Instant, key: &Key, hop: u64) {
        self.hang_up(key);
        if let Some(peer) = self.peers.get_mut(key) {
            // When that other one is over, what is configured counts.
            peer.redirect = None;
            peer.set(now, State::Yields { hop });
            peer.moves_over(now);
            self.said.push_back(Said::Yields { place: key.place.clone(), hop });
        }
    }

    /// Who gave way to another link with the same relay is dialled once that is over, or leads to somebody else.
    fn take_back(&mut self, now: Instant) {
        let yields = |peer: &Peer| match peer.state {
            State::Yields { hop } => Some(hop),
            _ => None,
        };
        if self.peers.values().all(|peer| yields(peer).is_none()) {
            return;
        }
        let until = now + REDIAL_AFTER.mul_f64(self.chance());
        let of = |(key, peer): (&Key, &Peer)| -> Vec<(String, u64)> {
            peer.hops().map(|hop| (key.place.path.clone(), hop)).collect()
        };
        let guests = self.guests.values().map(|hop| (Place::WHOLE.to_owned(), *hop));
        let linked: BTreeSet<_> = self.peers.iter().flat_map(of).chain(guests).collect();
        for (key, peer) in &mut self.peers {
            let other = yields(peer).map(|hop| (key.place.path.clone(), hop));
            if other.is_some_and(|other| !linked.contains(&other)) {
                peer.set(now, State::Waits { until });
            }
        }
    }

    fn leaves(&mut self, now: Instant, link: LinkId, to: &str) {
        let chance = self.chance();
        let Some(key) = self.key_of(link) else { return };
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let place = key.place.clone();
        let State::Up { hop, .. } = peer.state else { return };
        let until = if to.is_empty() {
            self.said.push_back(Said::Leaves { place });
            if peer.is_unwanted {
                return;
            }
            None
        } else {
            let entry = match peer.entry.redirected(to) {
                Ok(entry) => entry,
                Err(error) => return self.said.push_back(Said::NotRedirected { place, error }),
            };
            self.said.push_back(Said::Redirected { place, to: entry.place.clone() });
            peer.redirect = Some(entry);
            Some(now + LINK_HANDOVER_MAX)
        };
        if let Some(Old { link, .. }) = peer.old.replace(Old { link, hop, until }) {
            self.commands.push_back(Command::HangUp { link, shard: peer.shard });
        }
        peer.forgive(now);
        // Who sends us on from where we were sent might do so for ever.
        let pause = match peer.failures {
            0 => Duration::ZERO,
            _ => peer.longest_pause().mul_f64(chance),
        };
        peer.failures += 1;
        peer.set(now, State::Waits { until: now + pause });
        self.expire(now);
    }

    fn is_down(&mut self, now: Instant, link: LinkId, reason: &str, is_denied: bool) {
        if let Some(peer) =
            self.peers.values_mut().find(|peer| peer.old.is_some_and(|old| old.link == link))
        {
            peer.old = None;
            return;
        }
        let Some(key) = self.key_of(link) else { return };
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let has_lived = matches!(peer.state, State::Up { .. }) && peer.forgive(now);
        // What let it in has expired, and what has come in its place is not tried yet.
        self.failed(now, &key, reason, is_denied && !has_lived);
    }

    fn key_of(&self, link: LinkId) -> Option<Key> {
        let is_it = |peer: &Peer| peer.state.link() == Some(link);
        let mut peers = self.peers.iter();
        peers.find(|(_, peer)| is_it(peer)).map(|(key, _)| key.clone())
    }

    /// The relay ends: nobody is dialled any more.
    pub fn leave(&mut self) {
        self.is_leaving = true;
        self.commands.clear();
    }

    /// Another process has taken over: it has links of its own, and what would answer a dial goes there.
    pub fn rest(&mut self) {
        self.is_resting = true;
    }

    /// That one is gone: whoever was lost meanwhile is dialled.
    pub fn go_on(&mut self) {
        self.is_resting = false;
    }

    /// Nobody is looked for or dialled now.
    fn rests(&self) -> bool {
        self.is_leaving || self.is_resting
    }

    pub fn rows(&self) -> Vec<Row> {
        let row = |(key, peer): (&Key, &Peer)| Row {
            place: key.place.clone(),
            address: key.address.or(peer.address),
            state: match peer.state {
                State::Waits { .. } => "waiting",
                State::IsItself { .. } => "itself",
                State::Looks => "resolving",
                State::Dials { .. } => "dialing",
                State::Up { .. } => "up",
                State::Yields { .. } => "yielding",
            },
            link: peer.state.link(),
            shard: peer.shard,
            hop: match peer.state {
                State::Up { hop, .. } | State::Yields { hop } => Some(hop),
                _ => None,
            },
            since: peer.since,
            dials: peer.dials,
            last_error: peer.last_error.clone(),
        };
        let names = self.names.iter().filter(|(place, _)| {
            // Where it leads somewhere those are there instead.
            self.peers.keys().all(|key| key.place != **place)
        });
        let names = names.map(|(place, name)| Row {
            place: place.clone(),
            address: None,
            state: "resolving",
            link: None,
            shard: 0,
            hop: None,
            since: name.since,
            dials: 0,
            last_error: name.last_error.clone(),
        });
        self.peers.iter().map(row).chain(names).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{LINK_MOVES_WITHIN, LINK_PROVEN_AFTER};

    const ME: u64 = 500;

    struct Scene {
        desk: Desk,
        now: Instant,
    }

    fn entry(text: &str) -> Entry {
        text.parse().expect("an entry")
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// As many addresses, in their order.
    fn addresses(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("10.1.{}.{}:4443", n / 256, n % 256)).collect()
    }

    fn session(slot: u32) -> SessionRef {
        SessionRef { shard: 0, slot, generation: 1 }
    }

    impl Scene {
        fn new(entries: &[&str]) -> Scene {
            let is_at = Box::new(|address: SocketAddr| address == at("10.0.0.3:4443"));
            let own = Own { hop: ME, is_at };
            let mut scene = Scene { desk: Desk::new(own, 4, 7), now: Instant::now() };
            scene.want(entries);
            scene
        }

        fn want(&mut self, entries: &[&str]) {
            let entries: Vec<Entry> = entries.iter().map(|text| entry(text)).collect();
            self.desk.want(self.now, &entries);
        }

        fn hear(&mut self, news: News) {
            self.desk.hear(self.now, news);
        }

        fn up(&mut self, link: u64, hop: u64) {
            self.hear(News::Up { link: LinkId(link), hop });
        }

        fn down(&mut self, link: u64) {
            let reason = "lost".to_owned();
            self.hear(News::Down { link: LinkId(link), reason, is_denied: false });
        }

        fn found(&mut self, place: &str, addresses: &[&str], ttl: u64) {
            let addresses = addresses.iter().map(|text| at(text)).collect();
            let ttl = Duration::from_secs(ttl);
            let found = Ok(Known { addresses, ttl, fault: None });
            self.desk.found(self.now, &entry(place).place, found);
        }

        /// Lets time pass up to what comes next; gives how long that was.
        fn wait(&mut self) -> Duration {
            let next = self.desk.deadline().expect("something comes");
            let waited = next.saturating_duration_since(self.now);
            self.now = self.now.max(next);
            self.desk.expire(self.now);
            waited
        }

        /// What is to be done, in words.
        fn does(&mut self) -> Vec<String> {
            let words = |command| match command {
                Command::Find(place) => format!("find {}", place.host),
                Command::Dial { link, address, .. } => format!("dial {} {address}", link.0),
                Command::HangUp { link, .. } => format!("hang up {}", link.0),
            };
            std::iter::from_fn(|| self.desk.next_command()).map(words).collect()
        }

        fn says(&mut self) -> Vec<Said> {
            std::iter::from_fn(|| self.desk.next_said()).collect()
        }

        /// Of whom there was no room for.
        fn left_out(&mut self) -> Vec<Said> {
            let said = self.says().into_iter();
            said.filter(|said| matches!(said, Said::LeftOut { .. })).collect()
        }

        fn states(&self) -> Vec<&'static str> {
            self.desk.rows().iter().map(|row| row.state).collect()
        }
    }

    #[test]
    fn each_relay_is_dialled_once_at_the_first_of_its_addresses_that_answers() {
        let mut s = Scene::new(&["moqt://b:4443", "moqt://10.0.0.3:4443", "moqt://b:4443/"]);
        assert_eq!(s.does(), ["dial 1 10.0.0.3:4443", "find b"]);
        s.found("moqt://b:4443", &["[2001:db8::2]:4443", "10.0.0.2:4443"], 9);
        assert_eq!(s.does(), ["dial 2 [2001:db8::2]:4443"]);
        // Without a pause: it is the same attempt.
        s.down(2);
        assert_eq!(s.does(), ["dial 3 10.0.0.2:4443"]);
        s.up(3, 7);
        s.up(1, 8);
        assert_eq!((s.does(), s.states()), (vec![], vec!["up", "up"]));
        assert_eq!(s.desk.deadline(), None);
    }

    #[test]
    fn pauses_double_up_to_ten_seconds_and_begin_anew_after_a_link_that_lived() {
        let mut s = Scene::new(&["moqt://10.0.0.3:4443"]);
        let mut longest = Duration::ZERO;
        for attempt in 1..=200 {
            assert_eq!(s.does(), [format!("dial {attempt} 10.0.0.3:4443")]);
            s.down(attempt);
            let waited = s.wait();
            let most = REDIAL_AFTER.saturating_mul(1 << (attempt - 1).min(4)).min(REDIAL_AFTER_MAX);
            assert!(waited <= most, "{attempt}: {waited:?}");
            longest = longest.max(waited);
        }
        assert!(longest > REDIAL_AFTER_MAX.mul_f64(0.9), "the whole span is used: {longest:?}");
        // One that does not live long has shown nothing.
        for (attempt, lives, most) in [
            (201, LINK_PROVEN_AFTER - Duration::from_millis(1), REDIAL_AFTER_MAX),
            (202, LINK_PROVEN_AFTER, REDIAL_AFTER),
        ] {
            assert_eq!(s.does().len(), 1);
            s.up(attempt, 7);
            s.now += lives;
            s.down(attempt);
            let Some(Said::Failed { retry_in, .. }) =
                std::iter::from_fn(|| s.desk.next_said()).last()
            else {
                panic!("it is said")
            };
            assert!(retry_in <= most);
            if lives < LINK_PROVEN_AFTER {
                let peer = s.desk.peers.values().next().expect("one");
                assert!(peer.failures > 200);
            }
            s.wait();
        }
    }

    #[test]
    fn who_is_not_let_in_tries_again_late() {
        let mut s = Scene::new(&["moqt://10.0.0.3:4443"]);
        for attempt in 1..20 {
            assert_eq!(s.does().len(), 1);
            let reason = "unauthorized".to_owned();
            s.hear(News::Down { link: LinkId(attempt), reason, is_denied: true });
            let error = s.desk.rows()[0].last_error.clone().expect("it is known");
            assert!(error.starts_with("unauthorized; ") && error.contains("--cluster-token"));
            assert!(s.wait() >= REDIAL_AFTER_MAX / 2);
        }
    }

    /// What is shown next time may be renewed by now.
    #[test]
    fn a_link_whose_token_expires_is_dialled_again_at_once() {
        let mut s = Scene::new(&["moqt://10.0.0.3:4443"]);
        s.up(1, 7);
        s.now += LINK_PROVEN_AFTER;
        let denied = |link: u64| News::Down {
            link: LinkId(link),
            reason: "unauthorized".to_owned(),
            is_denied: true,
        };
        s.hear(denied(1));
        assert!(s.wait() <= REDIAL_AFTER);
        s.hear(denied(2));
        assert!(s.wait() >= REDIAL_AFTER_MAX / 2);
        // So it is where the peer says that only when there is a session.
        s.up(3, 7);
        s.hear(denied(3));
        assert!(s.wait() >= REDIAL_AFTER_MAX / 2);
    }

    #[test]
    fn other_addresses_of_a_name_are_tried_where_one_is_our_own() {
        const B: &str = "moqt://b:4443";
        let mut s = Scene::new(&[B]);
        s.found(B, &["10.0.0.3:4443", "10.0.0.4:4443"], 9);
        assert_eq!(s.does(), ["find b", "dial 1 10.0.0.3:4443"]);
        s.up(1, ME);
        assert_eq!(s.does(), ["hang up 1", "dial 2 10.0.0.4:4443"]);
        s.down(1);
        s.up(2, 7);
        assert_eq!(s.states(), ["up"]);
    }

    /// What is below each comes by none of the others.
    #[test]
    fn two_paths_of_one_relay_are_two_links() {
        let mut s =
            Scene::new(&["moqt://10.0.0.1:1/eu", "moqt://10.0.0.1:1/us", "moqt://10.0.0.1:1"]);
        s.does();
        s.hear(News::Guest { session: session(2), hop: ME - 1 });
        (1..=3).for_each(|link| s.up(link, ME - 1));
        let mut states = s.states();
        states.sort();
        assert_eq!(states, ["up", "up", "yielding"]);
        s.hear(News::GuestLeft { session: session(2) });
        s.does();
        s.wait();
        assert_eq!(s.does(), ["dial 4 10.0.0.1:1"]);
    }

    #[test]
    fn what_dns_does_not_know_for_a_while_is_dialled_on() {
        const NAME: &str = "dns+moqt://relay.svc:4443";
        let mut s = Scene::new(&[NAME]);
        s.found(NAME, &["10.0.0.1:4443", "10.0.0.2:4443"], 9);
        s.up(1, 1);
        let addresses = vec![at("10.0.0.2:4443"), at("10.0.0.3:4443")];
        let fault = Some("no answer for n1".to_owned());
        let known = Known { addresses, ttl: Duration::ZERO, fault };
        s.desk.found(s.now, &entry(NAME).place, Ok(known));
        s.does();
        s.down(1);
        assert_eq!(s.states(), ["waiting", "dialing", "dialing"]);
        let said = s.says();
        let is_fault =
            |said: &Said| matches!(said, Said::NotFound { error, .. } if error.contains("n1"));
        assert!(said.iter().any(is_fault), "{said:?}");
        // One that has been nowhere for long is not in it any more, whatever else is unknown.
        s.desk.peers.values_mut().for_each(|peer| peer.failures = LOST_AFTER_FAILURES);
        let addresses = vec![at("10.0.0.2:4443")];
        let known = Known { addresses, ttl: Duration::ZERO, fault: Some("the same".to_owned()) };
        s.desk.found(s.now, &entry(NAME).place, Ok(known));
        assert_eq!(s.states(), ["dialing"]);
    }

    #[test]
    fn itself_is_recognised_and_left_alone_for_long() {
        let mut s = Scene::new(&["moqt://10.0.0.3:4443"]);
        assert_eq!(s.does(), ["dial 1 10.0.0.3:4443"]);
        s.up(1, ME);
        assert_eq!((s.does(), s.states()), (vec!["hang up 1".to_owned()], vec!["itself"]));
        s.down(1);
        assert_eq!(s.wait(), SELF_LOOKED_AT_AFTER);
        assert_eq!(s.does(), ["dial 2 10.0.0.3:4443"]);
    }

    #[test]
    fn another_relay_with_our_id_is_not_taken_for_this_one() {
        let mut s = Scene::new(&["moqt://10.0.0.4:4443"]);
        assert_eq!(s.does().len(), 1);
        s.up(1, ME);
        assert_eq!((s.does(), s.states()), (vec!["hang up 1".to_owned()], vec!["waiting"]));
        let place = entry("moqt://10.0.0.4:4443").place;
        assert!(s.says().contains(&Said::SameHop { place, hop: ME }));
        let error = s.desk.rows()[0].last_error.clone().expect("it is known");
        assert!(error.contains("--cluster-id") && error.contains("500"), "{error}");
    }

    #[test]
    fn who_was_sent_to_itself_or_to_whom_it_is_linked_with_goes_back_to_what_is_configured() {
        for (hop, state) in [(ME, "waiting"), (9, "yielding")] {
            let mut s = Scene::new(&["moqt://10.0.0.3:4443"]);
            s.does();
            s.up(1, 7);
            s.hear(News::Guest { session: session(2), hop: 9 });
            let to = "moqt://10.0.0.3:5000".to_owned();
            s.hear(News::Leaving { link: LinkId(1), to });
            assert_eq!(s.does(), ["dial 2 10.0.0.3:5000"]);
            s.up(2, hop);
            assert_eq!((s.does(), s.states()), (vec!["hang up 2".to_owned()], vec![state]));
            s.down(1);
            s.down(2);
            s.hear(News::GuestLeft { session: session(2) });
            assert!(s.wait() <= REDIAL_AFTER_MAX);
            assert_eq!(s.does(), ["dial 3 10.0.0.3:4443"]);
        }
    }

    /// Both ends of a double link decide alike.
    #[test]
    fn of_two_links_the_one_of_the_lower_hop_is_kept() {
        for guest_first in [false, true] {
            for (hop, gives_way) in [(ME - 1, true), (ME + 1, false)] {
                let mut s = Scene::new(&["moqt://10.0.0.3:4443"]);
                assert_eq!(s.does().len(), 1);
                let guest = News::Guest { session: session(2), hop };
                if guest_first {
                    s.hear(guest);
                    s.up(1, hop);
                } else {
                    s.up(1, hop);
                    s.hear(guest);
                }
                let expect = if gives_way { vec!["hang up 1"] } else { vec![] };
                assert_eq!(s.does(), expect, "{hop}");
                s.down(if gives_way { 1 } else { 99 });
                s.hear(News::GuestLeft { session: session(2) });
                if gives_way {
                    assert!(s.wait() <= REDIAL_AFTER);
                    assert_eq!(s.does(), ["dial 2 10.0.0.3:4443"]);
                }
            }
        }
    }

    #[test]
    fn two_names_of_one_relay_make_one_link() {
        let mut s = Scene::new(&["moqt://10.0.0.3:4443", "moqt://10.0.0.4:4443"]);
        assert_eq!(s.does().len(), 2);
        s.up(2, 7);
        s.up(1, 7);
        assert_eq!((s.does(), s.states()), (vec!["hang up 1".to_owned()], vec!["yielding", "up"]));
        s.down(2);
        s.wait();
        s.wait();
        assert_eq!(s.does().len(), 2);
    }

    #[test]
    fn every_address_of_a_name_is_a_relay() {
        const NAME: &str = "dns+moqt://relay.svc:4443";
        let mut s = Scene::new(&[NAME]);
        assert_eq!(s.does(), ["find relay.svc"]);
        s.found(NAME, &["10.0.0.1:4443", "10.0.0.2:4443"], 1);
        assert_eq!(s.does(), ["dial 1 10.0.0.1:4443", "dial 2 10.0.0.2:4443"]);
        s.up(1, 1);
        s.up(2, 2);
        assert_eq!(s.wait(), NAME_TTL_MIN);
        assert_eq!(s.does(), ["find relay.svc"]);
        // One is new; one that is gone from there goes on as long as its link does.
        s.found(NAME, &["10.0.0.2:4443", "10.0.0.3:4443"], 3600);
        assert_eq!(s.does(), ["dial 3 10.0.0.3:4443"]);
        s.up(3, 3);
        s.down(1);
        assert_eq!(s.states(), ["up", "up"]);
        assert_eq!(s.wait(), NAME_TTL_MAX);
        assert_eq!(s.does(), ["find relay.svc"]);
        // A server that does not answer takes nobody away.
        s.desk.found(s.now, &entry(NAME).place, Err("timeout".to_owned()));
        assert_eq!((s.does(), s.states()), (vec![], vec!["up", "up"]));
        assert_eq!(s.wait(), NAME_TTL_MIN);
        assert_eq!(s.does(), ["find relay.svc"]);
        s.found(NAME, &[], 5);
        s.down(2);
        s.down(3);
        assert_eq!(s.states(), ["resolving"]);
    }

    #[test]
    fn relays_beyond_the_most_are_left_out_and_that_is_said_once() {
        const NAME: &str = "dns+moqt://relay.svc:4443";
        let all = addresses(PEERS_MAX + 3);
        let urls: Vec<String> = all.iter().map(|address| format!("moqt://{address}")).collect();
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        let mut s = Scene::new(&urls);
        assert_eq!(s.left_out(), [Said::LeftOut { place: None, relays: 3 }]);
        assert_eq!(s.desk.rows().len(), PEERS_MAX);
        // Who is known stays, and what there is no room for is counted anew with every list.
        s.want(&urls[2..]);
        assert_eq!(s.left_out(), [Said::LeftOut { place: None, relays: 1 }]);
        s.want(&urls[3..]);
        assert_eq!((s.left_out(), s.desk.rows().len()), (vec![], PEERS_MAX));

        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let mut s = Scene::new(&[NAME]);
        let place = Some(entry(NAME).place);
        for (found, relays) in [(3, 3), (3, 0), (1, 1), (0, 0), (1, 1)] {
            s.found(NAME, &all[..PEERS_MAX + found], 5);
            let said = (relays > 0).then(|| Said::LeftOut { place: place.clone(), relays });
            assert_eq!(s.left_out(), Vec::from_iter(said), "{found}");
            assert_eq!(s.desk.rows().len(), PEERS_MAX);
        }
        // So it is with names.
        let names: Vec<String> = (0..=PEERS_MAX).map(|n| format!("dns+moqt://r{n}")).collect();
        let mut s = Scene::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(s.left_out(), [Said::LeftOut { place: None, relays: 1 }]);
    }

    #[test]
    fn who_is_back_in_its_name_is_wanted_however_many_there_are() {
        const NAME: &str = "dns+moqt://relay.svc:4443";
        let all = addresses(PEERS_MAX);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let mut s = Scene::new(&[NAME]);
        s.found(NAME, &all, 5);
        s.up(1, 1);
        s.found(NAME, &all[1..], 5);
        s.found(NAME, &all, 5);
        s.down(1);
        assert_eq!((s.desk.rows().len(), s.states()[0]), (PEERS_MAX, "waiting"));
    }

    #[test]
    fn who_is_out_of_its_name_ends_with_the_link_before() {
        const NAME: &str = "dns+moqt://relay.svc:4443";
        let mut s = Scene::new(&[NAME]);
        s.found(NAME, &["10.0.0.1:4443"], 5);
        s.up(1, 1);
        s.hear(News::Leaving { link: LinkId(1), to: String::new() });
        s.up(2, 2);
        s.found(NAME, &["10.0.0.2:4443"], 5);
        assert_eq!(s.does().last().map(String::as_str), Some("dial 3 10.0.0.2:4443"));
        s.down(2);
        assert_eq!((s.does(), s.states()), (vec!["hang up 1".to_owned()], vec!["dialing"]));
    }

    #[test]
    fn a_name_that_leads_nowhere_is_seen_and_said_once() {
        const NAME: &str = "dns+moqt://relay.svc:4443";
        let mut s = Scene::new(&[NAME]);
        let error = |s: &Scene| s.desk.rows()[0].last_error.clone();
        assert_eq!((s.states(), error(&s)), (vec!["resolving"], None));
        for _ in 0..3 {
            s.found(NAME, &[], 1);
            s.wait();
        }
        assert_eq!((s.states(), error(&s)), (vec!["resolving"], Some(NOWHERE.to_owned())));
        s.desk.found(s.now, &entry(NAME).place, Err("timeout".to_owned()));
        let place = entry(NAME).place;
        let not_found =
            |error: &str| Said::NotFound { place: place.clone(), error: error.to_owned() };
        assert_eq!(s.says(), [not_found(NOWHERE), not_found("timeout")]);
        s.found(NAME, &["10.0.0.1:4443"], 1);
        assert_eq!((s.states(), error(&s)), (vec!["dialing"], None));
        s.want(&[]);
        assert_eq!(s.desk.rows(), []);
    }

    #[test]
    fn lists_that_change() {
        let mut s = Scene::new(&["moqt://10.0.0.1:1", "moqt://10.0.0.2:1"]);
        assert_eq!(s.does().len(), 2);
        s.up(1, 1);
        s.up(2, 2);
        s.want(&["moqt://10.0.0.1:1", "moqt://10.0.0.3:1"]);
        assert_eq!(s.does(), ["hang up 2", "dial 3 10.0.0.3:1"]);
        let place = entry("moqt://10.0.0.2:1").place;
        assert!(s.says().contains(&Said::Unwanted { place, address: None }));
        // Another price or token is another link.
        s.want(&["moqt://10.0.0.1:1/?cost=5", "moqt://10.0.0.3:1"]);
        assert_eq!(s.does(), ["hang up 1", "dial 4 10.0.0.1:1"]);
        s.down(1);
        s.down(2);
        s.want(&[]);
        let mut does = s.does();
        does.sort();
        assert_eq!(
            (does, s.states()),
            (vec!["hang up 3".to_owned(), "hang up 4".to_owned()], vec![])
        );
    }

    #[test]
    fn a_peer_that_leaves_is_dialled_again_where_it_says() {
        let mut s = Scene::new(&["moqt://10.0.0.1:4443/eu"]);
        assert_eq!(s.does().len(), 1);
        s.up(1, 1);
        let leaving = |link: u64, to: &str| News::Leaving { link: LinkId(link), to: to.to_owned() };
        // Nowhere else: it stays until the peer closes.
        for (to, word) in [("moqt://10.0.0.9:4443/eu", "Elsewhere"), ("xx", "NotUrl")] {
            s.hear(leaving(1, to));
            assert_eq!((s.does(), s.states()), (vec![], vec!["up"]));
            let said = format!("{:?}", std::iter::from_fn(|| s.desk.next_said()).last());
            assert!(said.contains(word), "{said}");
        }
        s.hear(leaving(1, "moqt://10.0.0.1:5000/eu"));
        assert_eq!(s.does(), ["dial 2 10.0.0.1:5000"]);
        s.up(2, 2);
        assert_eq!(s.does(), Vec::<String>::new());
        s.now += LINK_MOVES_WITHIN;
        s.desk.expire(s.now);
        assert_eq!(s.does(), ["hang up 1"]);
        s.down(1);
        // What is configured counts again when that is over.
        s.down(2);
        s.wait();
        assert_eq!(s.does(), ["dial 3 10.0.0.1:4443"]);
        s.up(3, 1);
        s.now += LINK_PROVEN_AFTER;
        // One that cannot be reached at the other place still ends in time.
        s.hear(leaving(3, "moqt://10.0.0.1:5000/eu"));
        assert_eq!(s.does(), ["dial 4 10.0.0.1:5000"]);
        s.now += LINK_HANDOVER_MAX;
        s.desk.expire(s.now);
        assert_eq!(s.does(), ["hang up 3"]);
    }

    #[test]
    fn a_peer_that_leaves_is_dialled_again_where_it_was() {
        let mut s = Scene::new(&["moqt://10.0.0.1:4443"]);
        assert_eq!(s.does(), ["dial 1 10.0.0.1:4443"]);
        s.up(1, 1);
        let leaving = |link: u64| News::Leaving { link: LinkId(link), to: String::new() };
        // Another process has its place: what there is goes over to it.
        s.hear(leaving(1));
        assert_eq!(s.does(), ["dial 2 10.0.0.1:4443"]);
        s.up(2, 2);
        assert_eq!(s.does(), Vec::<String>::new());
        assert_eq!(s.states()[0], "up");
        // That one may be upgraded as well, before the first is gone.
        s.now += LINK_MOVES_WITHIN / 2;
        s.hear(leaving(2));
        assert_eq!(s.does(), ["hang up 1"]);
        s.wait();
        assert_eq!(s.does(), ["dial 3 10.0.0.1:4443"]);
        s.up(3, 3);
        s.now += LINK_MOVES_WITHIN;
        s.desk.expire(s.now);
        assert_eq!(s.does(), ["hang up 2"]);
        s.now += LINK_PROVEN_AFTER;
        // It is still there itself, and serves until it is gone.
        s.hear(leaving(3));
        assert_eq!(s.does(), ["dial 4 10.0.0.1:4443"]);
        s.up(4, 3);
        assert_eq!((s.does(), s.states()[0]), (vec!["hang up 4".to_owned()], "up"));
        s.down(4);
        s.now += LINK_HANDOVER_MAX;
        s.desk.expire(s.now);
        assert_eq!((s.does(), s.states()[0]), (vec![], "up"));
        s.down(3);
        s.wait();
        assert_eq!(s.does(), ["dial 5 10.0.0.1:4443"]);
        s.up(5, 5);
        s.now += LINK_PROVEN_AFTER;
        // Nobody answers any more: the same.
        s.hear(leaving(5));
        assert_eq!(s.does(), ["dial 6 10.0.0.1:4443"]);
        s.down(6);
        assert_eq!((s.does(), s.states()[0]), (vec![], "up"));
        s.down(5);
        s.wait();
        assert_eq!(s.does(), ["dial 7 10.0.0.1:4443"]);
    }

    #[test]
    fn who_gave_way_is_dialled_when_that_link_leads_to_somebody_else_or_nowhere() {
        for moves in [true, false] {
            let mut s = Scene::new(&["moqt://10.0.0.1:1", "moqt://10.0.0.2:1"]);
            assert_eq!(s.does(), ["dial 1 10.0.0.1:1", "dial 2 10.0.0.2:1"]);
            s.up(1, 7);
            s.up(2, 7);
            assert_eq!((s.does(), s.states()), (vec!["hang up 2".into()], vec!["up", "yielding"]));
            s.hear(News::Leaving { link: LinkId(1), to: String::new() });
            assert_eq!(s.does(), ["dial 3 10.0.0.1:1"]);
            // The old link still is one with that relay.
            if moves {
                s.up(3, 8);
                assert_eq!(s.states(), ["up", "yielding"]);
                s.now += LINK_MOVES_WITHIN;
                s.desk.expire(s.now);
                assert_eq!(s.does(), ["hang up 1"]);
            }
            s.down(1);
            assert_eq!(s.states()[1], "waiting");
        }
    }

    #[test]
    fn a_name_that_led_to_who_leaves_is_looked_for_again_when_that_is_over() {
        let mut s = Scene::new(&["moqt://b:4443"]);
        s.found("moqt://b:4443", &["10.0.0.1:4443", "10.0.0.2:4443"], 9);
        s.up(1, 1);
        s.does();
        s.hear(News::Leaving { link: LinkId(1), to: String::new() });
        s.found("moqt://b:4443", &["10.0.0.1:4443", "10.0.0.2:4443"], 9);
        s.up(2, 1);
        assert_eq!(s.does(), ["find b", "dial 2 10.0.0.1:4443", "hang up 2"]);
        s.down(2);
        s.down(1);
        assert_eq!((s.does(), s.states()), (vec![], vec!["waiting"]));
        s.wait();
        assert_eq!(s.does(), ["find b"]);
    }

    #[test]
    fn two_that_send_us_to_each_other_are_dialled_with_pauses() {
        let mut s = Scene::new(&["moqt://10.0.0.1:4443"]);
        let (mut pauses, mut longest) = (0, Duration::ZERO);
        for attempt in 1..=100 {
            let port = [4443, 5000][attempt as usize % 2];
            s.does();
            s.up(attempt, attempt);
            let to = format!("moqt://10.0.0.1:{port}/");
            s.hear(News::Leaving { link: LinkId(attempt), to });
            if s.states() == ["waiting"] {
                (pauses, longest) = (pauses + 1, longest.max(s.wait()));
            }
            let address = format!("10.0.0.1:{port}");
            assert!(s.does().contains(&format!("dial {} {address}", attempt + 1)), "{attempt}");
        }
        // The first one is followed at once.
        assert_eq!(pauses, 99);
        assert!(longest > REDIAL_AFTER_MAX.mul_f64(0.9), "{longest:?}");
        // So is one after a link that has lived.
        s.up(101, 7);
        s.now += LINK_PROVEN_AFTER;
        s.hear(News::Leaving { link: LinkId(101), to: "moqt://10.0.0.1:5000/".to_owned() });
        assert_eq!(s.does(), ["hang up 100", "dial 102 10.0.0.1:5000"]);
    }

    #[test]
    fn a_relay_that_ends_dials_nobody() {
        let mut s = Scene::new(&["moqt://10.0.0.1:4443", "dns+moqt://name"]);
        s.does();
        s.up(1, 1);
        s.desk.leave();
        s.down(1);
        s.now += Duration::from_secs(60);
        s.desk.expire(s.now);
        assert_eq!((s.does(), s.desk.deadline()), (vec![], None));
    }

    #[test]
    fn a_relay_that_ends_dials_nobody_whom_it_looks_for_or_has_begun_to_try() {
        const B: &str = "moqt://b:4443";
        for has_begun in [false, true] {
            let mut s = Scene::new(&[B]);
            if has_begun {
                s.found(B, &["10.0.0.1:4443", "10.0.0.2:4443"], 9);
            }
            s.does();
            s.desk.leave();
            match has_begun {
                true => s.down(1),
                false => s.found(B, &["10.0.0.1:4443"], 9),
            }
            assert_eq!((s.does(), s.states()), (vec![], vec!["waiting"]), "{has_begun}");
            // Nor does it say that it will.
            assert!(!s.says().iter().any(|said| matches!(said, Said::Failed { .. })));
        }
    }

    #[test]
    fn who_was_taken_over_from_dials_nobody_until_that_is_undone() {
        const B: &str = "moqt://b:4443";
        const NAME: &str = "dns+moqt://name:4443";
        let mut s = Scene::new(&["moqt://10.0.0.1:4443", "moqt://10.0.0.2:4443", B, NAME]);
        assert_eq!(
            s.does(),
            ["find name", "dial 1 10.0.0.1:4443", "dial 2 10.0.0.2:4443", "find b"]
        );
        s.up(1, 1);
        s.desk.rest();
        assert_eq!(s.states()[0], "up");
        s.down(1);
        s.down(2);
        s.found(B, &["10.0.0.5:4443"], 9);
        s.found(NAME, &["10.0.0.9:4443"], 9);
        s.now += Duration::from_secs(60);
        s.desk.expire(s.now);
        assert_eq!((s.does(), s.desk.deadline()), (vec![], None));
        assert_eq!(s.states(), ["waiting"; 4]);
        let said = s.says();
        let count = |is_it: fn(&Said) -> bool| said.iter().filter(|said| is_it(said)).count();
        assert_eq!(count(|said| matches!(said, Said::Over { .. })), 2);
        assert_eq!(count(|said| matches!(said, Said::Failed { .. })), 0);
        s.desk.go_on();
        s.desk.expire(s.now);
        let dials = ["dial 3 10.0.0.1:4443", "dial 4 10.0.0.2:4443", "dial 5 10.0.0.9:4443"];
        assert_eq!(s.does(), ["find name", dials[0], dials[1], "find b", dials[2]]);
        // One that ends does not go on.
        s.desk.leave();
        s.desk.go_on();
        s.down(3);
        assert_eq!((s.does(), s.desk.deadline()), (vec![], None));
    }

    #[test]
    fn links_are_spread_over_the_shards() {
        let names: Vec<String> = (0..64).map(|n| format!("moqt://10.0.0.{n}:4443")).collect();
        let s = Scene::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut counts = [0; 4];
        s.desk.rows().iter().for_each(|row| counts[row.shard] += 1);
        assert!(counts.iter().all(|count| (6..=28).contains(count)), "{counts:?}");
    }
}
