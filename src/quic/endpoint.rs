//! All connections of one shard: which have something to do, and when.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use quinn_proto as proto;
use quinn_proto::{
    ConnectionHandle, ConnectionId, ConnectionIdGenerator, DatagramEvent, EcnCodepoint,
    EndpointEvent, Transmit,
};

use super::budget::Budget;
use super::cid::{CID_LEN, ShardCids};
use super::conn::Conn;
use super::counts::Counts;
use super::handshakes::Handshakes;
use super::timers::Timers;
use super::trains::{self, Transmitted, recycle, train};
use super::{Callee, Config, Event, Outgoing};
use crate::bucket::Bucket;
use crate::limits::{
    HANDSHAKES_BEFORE_RETRY, HANDSHAKES_MAX, INITIALS_BURST, INITIALS_PER_S, SENDERS_PER_TURN,
    SESSION_BYTES, TIMER_SLACK,
};
use crate::net::{Datagrams, Received, Sent};
use crate::observe::{Departures, Histogram, Tick};
use crate::prefetch::prefetch;
use crate::source::Source;
use crate::wire::SessionCode;

/// What a datagram brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    Nothing,
    /// A client that was not known.
    New(usize),
    /// One for whom there is no memory.
    Refused,
    /// One from where there are as many sessions as may be.
    TooMany,
    /// One of more than can be read.
    Dropped,
}

pub struct Endpoint {
    proto: proto::Endpoint,
    /// By quinn-proto's handle.
    conns: Vec<Option<Box<Conn>>>,
    live: usize,
    handshakes: Handshakes,
    /// Tells IDs of our own from those that clients begin with.
    cids: ShardCids,
    /// First packets that are still read.
    initials: Bucket,
    budget: Budget,
    generation: u32,
    /// Once all connections are to be closed: the slots up to here are.
    closed: Option<usize>,
    with_events: Vec<usize>,
    dirty: VecDeque<usize>,
    /// What has come for connections and not been given to them.
    arrived: Vec<(usize, proto::ConnectionEvent)>,
    timers: Timers,
    /// Empty; keeps its memory.
    due: Vec<usize>,
    /// Answers that belong to no connection: Retry, refusals, resets.
    responses: VecDeque<(Transmit, Vec<u8>)>,
    /// Transmit buffers between uses.
    pool: Vec<Vec<u8>>,
    started: Instant,
    counts: Box<Counts>,
    departures: Departures,
    /// Since when the socket takes nothing.
    blocked_since: Option<Instant>,
    /// The slot of the connection whose path was looked at last.
    looked_at: usize,
}

/// Whether a datagram is the first of a client.
enum First {
    Yes,
    No,
    /// It goes on with a handshake that a process of the other generation has begun. The client finds that
    /// out: what it says in the next packets is steered there.
    Elsewhere,
}

/// Why all sessions end: because the relay does, and they were asked to move before or were not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goodbye {
    Sudden,
    Drained,
}

impl Goodbye {
    pub fn words(self) -> (SessionCode, &'static str) {
        match self {
            Goodbye::Sudden => (SessionCode::NO_ERROR, "relay stopped"),
            Goodbye::Drained => {
                (SessionCode::GOAWAY_TIMEOUT, "relay stopped, and asked to move before")
            }
        }
    }
}

/// Responses that may wait for a full socket; more are dropped, as the network would.
const RESPONSES_MAX: usize = 256;

impl Endpoint {
    pub fn new(
        config: &Config,
        (shard, shards): (usize, usize),
        seed: u64,
        started: Instant,
        memory: u64,
    ) -> Endpoint {
        let cids = config.cids(shard, shards, seed);
        let endpoint = Arc::new(config.endpoint_with(cids.clone(), shard, seed));
        Endpoint {
            proto: proto::Endpoint::new(endpoint, Some(config.server()), true, None),
            conns: Vec::new(),
            live: 0,
            handshakes: Handshakes::default(),
            cids,
            initials: Bucket::default(),
            budget: Budget::new(memory),
            generation: 0,
            closed: None,
            with_events: Vec::new(),
            dirty: VecDeque::new(),
            arrived: Vec::new(),
            timers: Timers::new(started),
            due: Vec::new(),
            responses: VecDeque::new(),
            pool: Vec::new(),
            started,
            counts: Box::default(),
            departures: Departures::default(),
            blocked_since: None,
            looked_at: 0,
        }
    }

    pub fn conn(&mut self, slot: usize) -> Option<&mut Conn> {
        self.conns.get_mut(slot)?.as_deref_mut()
    }

    /// Has a connection brought into the caches, for what is done next.
    pub fn prefetch(&self, slot: usize) {
        if let Some(Some(conn)) = self.conns.get(slot) {
            prefetch(&**conn);
        }
    }

    pub fn live(&self) -> usize {
        self.live
    }

    /// Of the memory that the peers of this shard may take, whatever they are connected by.
    pub fn budget(&mut self) -> &mut Budget {
        &mut self.budget
    }

    /// What its connections may take of the memory, as they were granted it.
    pub fn granted(&self) -> u64 {
        self.budget.granted()
    }

    /// What they may take together.
    pub fn grantable(&self) -> u64 {
        self.budget.total()
    }

    /// Handshakes in progress.
    pub fn handshakes(&self) -> usize {
        self.handshakes.len()
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What was sent in this turn has left.
    pub fn note_departures(&mut self, now: Tick, added: &mut Histogram) {
        self.departures.left(now, added);
    }

    /// Looks at the paths of some connections, the next ones each time.
    pub fn look_at_paths(&mut self, most: usize) {
        let conns = self.conns.len();
        for _ in 0..most.min(conns) {
            self.looked_at = (self.looked_at + 1) % conns;
            if let Some(conn) = self.conns[self.looked_at].as_deref() {
                note_path(conn, &mut self.counts);
            }
        }
    }

    /// Whether a process of the other generation is there.
    pub fn share(&self, is_shared: bool) {
        self.cids.share(is_shared);
    }

    /// Whether a datagram is the first of a client that has no ID of ours yet (RFC 9000 §17.2.2).
    fn is_first(&self, datagram: &[u8]) -> First {
        const INITIAL: u8 = 0b1100_0000;
        const FORM_AND_TYPE: u8 = 0b1111_0000;
        const ID_LEN_AT: usize = 5;
        if datagram.first().is_none_or(|first| first & FORM_AND_TYPE != INITIAL) {
            return First::No;
        }
        let len = datagram.get(ID_LEN_AT).map_or(0, |len| usize::from(*len));
        let id = datagram.get(ID_LEN_AT + 1..ID_LEN_AT + 1 + len);
        match id.filter(|_| len == CID_LEN).map(ConnectionId::new) {
            Some(id) if self.cids.is_of_other(&id) => First::Elsewhere,
            Some(id) if self.cids.validate(&id).is_ok() => First::No,
            _ => First::Yes,
        }
    }

    /// Finds out whom a datagram is for. A connection has it with the next [`Endpoint::deliver`]. `room` is how
    /// many sessions more may be from an address.
    pub fn receive(
        &mut self,
        now: Instant,
        datagram: Received,
        room: impl Fn(IpAddr) -> usize,
    ) -> Arrival {
        match self.is_first(&datagram.data) {
            First::Yes if self.initials.fill(INITIALS_PER_S, INITIALS_BURST, now) <= 0.0 => {
                return Arrival::Dropped;
            }
            First::Yes => self.initials.take(1.0),
            First::Elsewhere => return Arrival::Nothing,
            First::No => {}
        }
        let mut buf = self.pool.pop().unwrap_or_default();
        let Received { remote, local_ip, ecn, data } = datagram;
        let ecn = ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn.bits()));
        let event = self.proto.handle(now, remote, local_ip, ecn, data, &mut buf);
        let mut arrival = Arrival::Nothing;
        let response = match event {
            None => None,
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                self.prefetch(handle.0);
                self.arrived.push((handle.0, event));
                None
            }
            Some(DatagramEvent::Response(transmit)) => Some(transmit),
            Some(DatagramEvent::NewConnection(incoming)) => {
                let (source, room) = (Source::of(remote.ip()), room(remote.ip()));
                if self.closed.is_some() {
                    Some(self.proto.refuse(incoming, &mut buf))
                } else if room == 0 {
                    arrival = Arrival::TooMany;
                    Some(self.proto.refuse(incoming, &mut buf))
                } else if self.is_crowded(source, room) && incoming.may_retry() {
                    self.counts.handshakes.retried += 1;
                    self.proto.retry(incoming, &mut buf).ok()
                } else if !self.budget.admit(source, SESSION_BYTES) {
                    arrival = Arrival::Refused;
                    Some(self.proto.refuse(incoming, &mut buf))
                } else {
                    match self.proto.accept(incoming, now, &mut buf, None) {
                        Ok((handle, conn)) => {
                            recycle(&mut self.pool, buf);
                            self.insert(now, handle.0, conn, room);
                            return Arrival::New(handle.0);
                        }
                        Err(error) => {
                            self.budget.give_back(source, SESSION_BYTES);
                            error.response
                        }
                    }
                }
            }
        };
        match response {
            Some(transmit) if self.responses.len() < RESPONSES_MAX => {
                self.responses.push_back((transmit, buf));
            }
            _ => recycle(&mut self.pool, buf),
        }
        arrival
    }

    /// Begins a connection of our own; gives its slot.
    pub fn connect(
        &mut self,
        now: Instant,
        outgoing: &Outgoing,
        callee: &Callee,
    ) -> Result<usize, String> {
        let source = Source::of(callee.remote.ip());
        if self.closed.is_some() {
            return Err("the relay is stopping".to_owned());
        }
        if !self.budget.admit(source, SESSION_BYTES) {
            return Err("no memory for one more session".to_owned());
        }
        let mut config = match callee.web {
            Some(_) => outgoing.web.clone(),
            None => outgoing.direct.clone(),
        };
        let first = match outgoing.process {
            Some(generation) => {
                let mut first = self.cids.first_of_server().to_vec();
                generation.mark(&mut first);
                ConnectionId::new(&first)
            }
            None => self.cids.first_of_server(),
        };
        config.initial_dst_cid_provider(Arc::new(move || first));
        match self.proto.connect(now, config, callee.remote, &callee.server_name) {
            Ok((handle, conn)) => {
                self.place(handle.0, |generation| {
                    Conn::dialled(conn, generation, callee.web.as_ref(), now)
                });
                Ok(handle.0)
            }
            Err(error) => {
                self.budget.give_back(source, SESSION_BYTES);
                Err(error.to_string())
            }
        }
    }

    /// A connection has its place.
    fn place(&mut self, slot: usize, make: impl FnOnce(u32) -> Conn) {
        if self.conns.len() <= slot {
            self.conns.resize_with(slot + 1, || None);
        }
        self.generation = self.generation.wrapping_add(1);
        self.conns[slot] = Some(Box::new(make(self.generation)));
        self.live += 1;
        self.note_events(slot);
    }

    /// Whether a new client is to prove its address.
    fn is_crowded(&self, source: Source, room: usize) -> bool {
        self.handshakes.len() >= HANDSHAKES_BEFORE_RETRY
            || self.budget.is_scarce()
            // Whoever forges an address gets no further here, and displaces nobody who is at it.
            || self.handshakes.of(source) >= room
    }

    /// Gives connections what has come for them.
    pub fn deliver(&mut self, now: Instant) {
        let mut arrived = std::mem::take(&mut self.arrived);
        for (slot, event) in arrived.drain(..) {
            if let Some(conn) = self.conn(slot) {
                conn.receive(now, event);
                self.note_events(slot);
            }
        }
        self.arrived = arrived;
    }

    /// `room` is how many sessions more may be from where it comes from.
    fn insert(&mut self, now: Instant, slot: usize, conn: proto::Connection, room: usize) {
        let source = Source::of(conn.remote_address().ip());
        let handshake = self.handshakes.begin(slot, source);
        self.place(slot, |generation| {
            let mut conn = Conn::new(conn, generation, now);
            conn.handshake = Some(handshake);
            conn
        });
        let leaves = if self.handshakes.len() > HANDSHAKES_MAX {
            self.handshakes.first_to_leave()
        } else if self.handshakes.of(source) > room {
            self.handshakes.oldest_of(source)
        } else {
            None
        };
        if let Some(slot) = leaves
            && let Some(conn) = self.conns[slot].as_deref_mut()
        {
            self.counts.handshakes.displaced += 1;
            conn.give_up(now);
            conn.handshake.take().into_iter().for_each(|ticket| self.handshakes.end(ticket));
            self.note_dirty(slot);
        }
    }

    /// Puts a connection on the list of those whose events are to be looked at.
    pub fn note_events(&mut self, slot: usize) {
        if let Some(conn) = self.conns[slot].as_deref_mut()
            && !std::mem::replace(&mut conn.has_events, true)
        {
            self.with_events.push(slot);
        }
        self.note_dirty(slot);
    }

    /// Puts a connection on the list of those that may have something to send.
    pub fn note_dirty(&mut self, slot: usize) {
        // Whoever is to be closed says nothing before.
        if self.closed.is_some_and(|closed| slot >= closed) {
            return;
        }
        if let Some(conn) = self.conns[slot].as_deref_mut()
            && !std::mem::replace(&mut conn.is_dirty, true)
        {
            self.dirty.push_back(slot);
        }
    }

    /// The next connection with events; each is listed once however much happened to it.
    pub fn next_with_events(&mut self) -> Option<usize> {
        let slot = self.with_events.pop()?;
        if let Some(conn) = self.conns[slot].as_deref_mut() {
            conn.has_events = false;
        }
        Some(slot)
    }

    /// The next event of a connection.
    pub fn poll(&mut self, now: Instant, slot: usize) -> Option<Event> {
        let conn = self.conns[slot].as_deref_mut().filter(|conn| !conn.is_forgotten)?;
        let event = conn.poll();
        // A connection may be lost more than once, as quinn-proto tells it.
        if matches!(event, Some(Event::Connected { .. } | Event::Requested(_) | Event::Lost { .. }))
            && let Some(ticket) = conn.handshake.take()
        {
            self.handshakes.end(ticket);
            match event {
                Some(Event::Lost { .. }) => self.counts.handshakes.failed += 1,
                _ => {
                    self.counts.handshakes.completed += 1;
                    self.counts.handshake_time.record_span(now - conn.began());
                }
            }
        }
        event
    }

    /// Fires every timer that is due. Connections whose session asked to be woken are added to
    /// `woken`.
    pub fn fire_timers(&mut self, now: Instant, woken: &mut Vec<usize>) {
        let mut due = std::mem::take(&mut self.due);
        self.timers.take_due(now, &mut due);
        for slot in due.drain(..) {
            let Some(conn) = self.conns[slot].as_deref_mut() else { continue };
            if conn.session_deadline.is_some_and(|deadline| deadline <= now) {
                conn.session_deadline = None;
                woken.push(slot);
            }
            let is_over = conn.ends_at().is_some_and(|at| at <= now);
            conn.expire(now);
            if conn.proto.poll_timeout().is_some_and(|deadline| deadline <= now) {
                conn.proto.handle_timeout(now);
                self.note_events(slot);
            } else if is_over {
                self.note_events(slot);
            } else {
                self.schedule(slot);
            }
        }
        self.due = due;
    }

    /// When to look at the timers, if nothing else happens before.
    pub fn next_timer(&self) -> Option<Instant> {
        self.timers.next().map(|at| at + TIMER_SLACK)
    }

    /// Sets when a connection is to be looked at next.
    pub fn schedule(&mut self, slot: usize) {
        let Some(conn) = self.conns[slot].as_deref_mut() else { return };
        let deadlines = [conn.proto.poll_timeout(), conn.session_deadline, conn.ends_at()];
        self.timers.set(slot, deadlines.into_iter().flatten().min());
    }

    /// Connections that are to be closed, or may have something to send.
    pub fn unsent(&self) -> usize {
        self.conns.len() - self.closed.unwrap_or(0) + self.dirty.len()
    }

    /// Transmits dirty connections, the first ones first, each once and only so many.
    pub fn transmit(&mut self, now: Instant, io: &mut impl Datagrams) -> Transmitted {
        while let Some((transmit, buf)) = self.responses.pop_front() {
            if io.send(&train(&transmit, &buf)) == Sent::Blocked {
                self.responses.push_front((transmit, buf));
                return Transmitted::Blocked;
            }
            recycle(&mut self.pool, buf);
        }
        let tick = Tick::new(self.started, now);
        let mut is_blocked = false;
        for _ in 0..self.dirty.len().min(SENDERS_PER_TURN) {
            let Some(slot) = self.dirty.pop_front() else { break };
            if let Some(next) = self.dirty.front() {
                self.prefetch(*next);
            }
            let Some(conn) = self.conns[slot].as_deref_mut() else { continue };
            conn.is_dirty = false;
            conn.settle(now);
            conn.grow(now, &mut self.budget);
            let turnout =
                trains::transmit(&mut conn.proto, &mut conn.unsent, now, io, &mut self.pool);
            conn.note_turnout(turnout, tick, &mut self.departures, &mut self.counts);
            match turnout.transmitted {
                Transmitted::All if conn.is_forgotten => {
                    let _ =
                        self.proto.handle_event(ConnectionHandle(slot), EndpointEvent::drained());
                    self.forget(slot);
                    continue;
                }
                Transmitted::All => {}
                Transmitted::More => self.note_dirty(slot),
                // It keeps its place, so that nobody is starved.
                Transmitted::Blocked => {
                    is_blocked = true;
                    conn.is_dirty = true;
                    self.dirty.push_front(slot);
                }
            }
            self.after(slot);
            if is_blocked {
                break;
            }
        }
        let is_blocked = io.flush() || is_blocked;
        if let Some(since) = self.blocked_since {
            self.counts.held_by_socket += (now - since).as_micros() as u64;
        }
        self.blocked_since = is_blocked.then_some(now);
        match is_blocked {
            true => Transmitted::Blocked,
            false if self.dirty.is_empty() => Transmitted::All,
            false => Transmitted::More,
        }
    }

    /// Lets the endpoint know what a connection has decided, and forgets it when it is done.
    fn after(&mut self, slot: usize) {
        let handle = ConnectionHandle(slot);
        while let Some(conn) = self.conns[slot].as_deref_mut() {
            let Some(event) = conn.proto.poll_endpoint_events() else { break };
            let is_drained = event.is_drained();
            let answer = self.proto.handle_event(handle, event);
            if is_drained {
                return self.forget(slot);
            }
            if let (Some(answer), Some(conn)) = (answer, self.conns[slot].as_deref_mut()) {
                conn.proto.handle_event(answer);
                self.note_events(slot);
            }
        }
        self.schedule(slot);
    }

    fn forget(&mut self, slot: usize) {
        let Some(conn) = self.conns[slot].take() else { return };
        if let Some(ticket) = conn.handshake {
            self.counts.handshakes.timed_out += 1;
            self.handshakes.end(ticket);
        }
        note_path(&conn, &mut self.counts);
        self.budget.give_back(conn.source, conn.granted);
        self.live -= 1;
        self.timers.set(slot, None);
    }

    /// Closes the next connections, as a relay does that ends, and takes no new ones from then on. False
    /// if all are closed. To a browser that is a loss: it hears of it at once, and clients that take a
    /// session's proper end for a wish dial again.
    ///
    /// Only so many as can be told soon: one that is closed is forgotten a moment later, whether it has
    /// said so or not.
    pub fn close_next(&mut self, now: Instant, goodbye: Goodbye) -> bool {
        let begin = self.closed.unwrap_or_else(|| {
            for slot in self.dirty.drain(..) {
                self.conns[slot].iter_mut().for_each(|conn| conn.is_dirty = false);
            }
            0
        });
        let end = self.conns.len().min(begin + SENDERS_PER_TURN);
        self.closed = Some(end);
        for slot in begin..end {
            if let Some(conn) = self.conns[slot].as_deref_mut() {
                let (code, reason) = goodbye.words();
                conn.close_now(now, code, reason);
                self.note_dirty(slot);
            }
        }
        begin < end
    }
}

/// Counts the round trip and the losses of a connection whose path is known.
fn note_path(conn: &Conn, counts: &mut Counts) {
    if conn.is_established() {
        counts.rtt.record_span(conn.proto.rtt());
        counts.loss.record(conn.loss());
    }
}
