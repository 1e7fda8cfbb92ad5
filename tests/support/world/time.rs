//! How time passes: everybody who has something to do gets a turn, and the clock goes on to what comes next.

use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};

use shardcast::shard::Next;

use super::super::network::To;
use super::super::peer::{Peer, address_of};
use super::{World, sockets};

/// Turns at one instant before a shard counts as running in circles.
const TURNS_AT_ONCE_MAX: usize = 50_000;

impl World {
    pub fn started(&self) -> Instant {
        self.started
    }

    pub fn since_start(&self) -> Duration {
        self.now - self.started
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.settle();
            match self.next_event() {
                Some(at) if at <= until => self.now = self.now.max(at),
                _ => break,
            }
        }
        self.now = until;
    }

    /// Lets time pass until something is so; false if it is not within a generous time.
    #[must_use]
    pub fn run_until(&mut self, time: Duration, mut is_so: impl FnMut(&World) -> bool) -> bool {
        let until = self.now + time;
        loop {
            self.settle();
            if is_so(self) {
                return true;
            }
            match self.next_event() {
                Some(at) if at <= until => self.now = self.now.max(at),
                _ => break,
            }
        }
        self.now = until;
        false
    }

    fn next_event(&mut self) -> Option<Instant> {
        let bytes = self.next_bytes();
        let timers = self.peers.iter_mut().filter_map(Peer::next_timer);
        let wakes = self.cores.iter().filter_map(|core| {
            let at = if core.is_runnable { Some(core.stalled_until) } else { core.wakes_at };
            at.map(|at| at.max(core.stalled_until))
        });
        timers.chain(wakes).chain(self.network.next_arrival()).chain(bytes).min()
    }

    /// Does everything that can be done without time passing.
    fn settle(&mut self) {
        for turns in 0.. {
            self.deliver();
            let is_quiet = !self.turn_peers() & !self.turn_cores();
            if is_quiet {
                return;
            }
            assert!(
                turns < TURNS_AT_ONCE_MAX,
                "the relay runs in circles at {:?}",
                self.since_start()
            );
        }
    }

    fn deliver(&mut self) {
        while let Some(flight) = self.network.arrived(self.now) {
            match flight.to {
                To::Shard(shard) => {
                    let core = &mut self.cores[shard];
                    (self.in_relay)(true);
                    core.port.deliver(flight.client, &flight.data, flight.ecn);
                    (self.in_relay)(false);
                    core.is_runnable = true;
                }
                // Nobody is at an address that was left.
                To::Client => {
                    if let Some(&peer) = self.addresses.get(&flight.client) {
                        self.peers[peer].datagram(self.now, &flight.data, flight.ecn);
                    }
                }
            }
        }
        self.deliver_bytes();
    }

    fn turn_peers(&mut self) -> bool {
        let mut has_run = false;
        for index in 0..self.peers.len() {
            let peer = &mut self.peers[index];
            let is_due = peer.next_timer().is_some_and(|at| at <= self.now);
            if !peer.is_dirty && !is_due {
                continue;
            }
            has_run = true;
            let (address, weather) = (peer.address, peer.spec.weather);
            let (network, now) = (&mut self.network, self.now);
            let first = peer.spec.relay * self.stage.shards;
            match peer.spec.ws {
                None => peer.turn(now, |data, ecn| {
                    network.upwards(now, &weather, (address, first), data, ecn);
                }),
                Some(_) => self.turn_socket(index),
            }
            let peer = &mut self.peers[index];
            let since = now - self.started;
            for line in peer.log.drain(..) {
                self.history.note(since, format_args!("{} {line}", peer.name));
            }
            if peer.spec.is_rude {
                continue;
            }
            if let Some(fault) = peer.faults.first() {
                panic!("at {since:?}: {fault}");
            }
            self.judge(index);
        }
        has_run
    }

    fn turn_cores(&mut self) -> bool {
        let mut has_run = false;
        for shard in 0..self.cores.len() {
            let core = &mut self.cores[shard];
            let is_woken = core.flag.0.swap(false, Ordering::Relaxed);
            let is_due = core.wakes_at.is_some_and(|at| at <= self.now);
            core.is_runnable |= is_woken || is_due;
            core.is_runnable |=
                std::mem::take(&mut core.looks) && sockets::is_readable(core.beside);
            if !core.is_runnable || core.stalled_until > self.now {
                continue;
            }
            has_run = true;
            core.parked.unpark();
            (self.in_relay)(true);
            let next = core.shard.turn(self.now, &mut core.port);
            (self.in_relay)(false);
            let visits = core.shard.visits();
            if visits.sum() > core.heaviest.sum() {
                core.heaviest = visits;
            }
            core.stalled_until = self.now + self.visit_time * visits.sum() as u32;
            core.busy_turns += u64::from(next == Next::More);
            core.wakes_at = match next {
                Next::Until(at) => Some(at),
                _ => None,
            };
            // As the pump does: a shard sleeps only if no mail waits, and mail wakes it.
            core.is_runnable =
                next == Next::More || !core.parked.park(&Waker::from(core.flag.clone()));
            let (since, relay) = (self.now - self.started, core.relay);
            for (client, data, ecn) in std::mem::take(&mut core.port.sent) {
                let length = data.len();
                self.history.note(since, format_args!("shard {shard} > {client} {length}"));
                if let Some(to) = self.relay_at(client) {
                    if let Some(weather) = self.way(relay, to) {
                        let place = (address_of(relay), self.core_of(to, 0));
                        self.network.upwards(self.now, &weather, place, data, ecn);
                    }
                    continue;
                }
                if let Some(&peer) = self.addresses.get(&client) {
                    let weather = self.peers[peer].spec.weather;
                    self.network.downwards(self.now, &weather, client, &data, ecn);
                }
            }
            if self.cores[shard].has_sockets {
                self.drain_sockets(shard);
            }
        }
        has_run
    }
}
