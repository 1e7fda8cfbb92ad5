//! All connections: which have something to do, and when. The policies are those of the relay's own
//! `quic/endpoint.rs`, without what only a relay in the open needs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use quinn_proto as proto;
use quinn_proto::{ConnectionHandle, DatagramEvent, EcnCodepoint, Transmit};
use shardcast::limits::TIMER_SLACK;
use shardcast::net::{Datagrams, Received, Sent};
use shardcast::quic::trains::{self, Transmitted, recycle, train};
use shardcast::quic::{Config, Timers};

use crate::conn::Conn;
use crate::limits::{CONNECTIONS_MAX, RESPONSES_MAX};

/// A connection, whether or not it is still there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnRef {
    pub slot: usize,
    pub generation: u32,
}

pub struct Endpoint {
    proto: proto::Endpoint,
    /// By quinn-proto's handle.
    conns: Vec<Option<Box<Conn>>>,
    live: usize,
    generation: u32,
    with_events: Vec<usize>,
    dirty: Vec<usize>,
    timers: Timers,
    /// Empty; keeps its memory.
    due: Vec<usize>,
    /// Answers that belong to no connection.
    responses: VecDeque<(Transmit, Vec<u8>)>,
    /// Transmit buffers between uses.
    pool: Vec<Vec<u8>>,
}

impl Endpoint {
    pub fn new(config: &Config, seed: u64) -> Endpoint {
        let endpoint = Arc::new(config.endpoint(0, 1, seed));
        Endpoint {
            proto: proto::Endpoint::new(endpoint, Some(config.server()), true, None),
            conns: Vec::new(),
            live: 0,
            generation: 0,
            with_events: Vec::new(),
            dirty: Vec::new(),
            timers: Timers::new(Instant::now()),
            due: Vec::new(),
            responses: VecDeque::new(),
            pool: Vec::new(),
        }
    }

    /// The connection in a slot, and its name.
    pub fn at(&mut self, slot: usize) -> Option<(ConnRef, &mut Conn)> {
        let conn = self.conns.get_mut(slot)?.as_deref_mut()?;
        Some((ConnRef { slot, generation: conn.generation }, conn))
    }

    /// The connection, for a write: it will be transmitted.
    pub fn touch(&mut self, name: ConnRef) -> Option<&mut Conn> {
        let conn = self.conns.get_mut(name.slot)?.as_deref_mut()?;
        if conn.generation != name.generation {
            return None;
        }
        if !std::mem::replace(&mut conn.is_dirty, true) {
            self.dirty.push(name.slot);
        }
        Some(conn)
    }

    pub fn receive(&mut self, now: Instant, datagram: Received) {
        let mut buf = self.pool.pop().unwrap_or_default();
        let Received { remote, local_ip, ecn, data } = datagram;
        let ecn = ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn.bits()));
        let response = match self.proto.handle(now, remote, local_ip, ecn, data, &mut buf) {
            None => None,
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some((_, conn)) = self.at(handle.0) {
                    conn.proto.handle_event(event);
                    self.note_events(handle.0);
                }
                None
            }
            Some(DatagramEvent::Response(transmit)) => Some(transmit),
            Some(DatagramEvent::NewConnection(incoming)) if self.live >= CONNECTIONS_MAX => {
                Some(self.proto.refuse(incoming, &mut buf))
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                match self.proto.accept(incoming, now, &mut buf, None) {
                    Ok((handle, conn)) => {
                        self.insert(handle.0, conn);
                        None
                    }
                    Err(error) => error.response,
                }
            }
        };
        match response {
            Some(transmit) if self.responses.len() < RESPONSES_MAX => {
                self.responses.push_back((transmit, buf));
            }
            _ => recycle(&mut self.pool, buf),
        }
    }

    fn insert(&mut self, slot: usize, conn: proto::Connection) {
        if self.conns.len() <= slot {
            self.conns.resize_with(slot + 1, || None);
        }
        self.generation = self.generation.wrapping_add(1);
        self.conns[slot] = Some(Box::new(Conn::new(conn, self.generation)));
        self.live += 1;
        self.note_events(slot);
    }

    fn note_events(&mut self, slot: usize) {
        let Some(conn) = self.conns[slot].as_deref_mut() else { return };
        if !std::mem::replace(&mut conn.has_events, true) {
            self.with_events.push(slot);
        }
        if !std::mem::replace(&mut conn.is_dirty, true) {
            self.dirty.push(slot);
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

    pub fn fire_timers(&mut self, now: Instant) {
        let mut due = std::mem::take(&mut self.due);
        self.timers.take_due(now, &mut due);
        for slot in due.drain(..) {
            let Some(conn) = self.conns[slot].as_deref_mut() else { continue };
            if conn.proto.poll_timeout().is_some_and(|deadline| deadline <= now) {
                conn.proto.handle_timeout(now);
                self.note_events(slot);
            } else {
                self.schedule(slot);
            }
        }
        self.due = due;
    }

    pub fn next_timer(&self) -> Option<Instant> {
        self.timers.next().map(|at| at + TIMER_SLACK)
    }

    fn schedule(&mut self, slot: usize) {
        let Some(conn) = self.conns[slot].as_deref_mut() else { return };
        self.timers.set(slot, conn.proto.poll_timeout());
    }

    /// Transmits every dirty connection once. True if something had to be left for later.
    pub fn transmit(&mut self, now: Instant, io: &mut impl Datagrams) -> bool {
        while let Some((transmit, buf)) = self.responses.pop_front() {
            if io.send(&train(&transmit, &buf)) == Sent::Blocked {
                self.responses.push_front((transmit, buf));
                return true;
            }
            recycle(&mut self.pool, buf);
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        let mut done = 0;
        for &slot in &dirty {
            let Some(conn) = self.conns[slot].as_deref_mut() else {
                done += 1;
                continue;
            };
            conn.is_dirty = false;
            conn.settle(now);
            let turnout =
                trains::transmit(&mut conn.proto, &mut conn.unsent, now, io, &mut self.pool);
            let transmitted = turnout.transmitted;
            // A connection that is behind a full socket keeps its place.
            if transmitted != Transmitted::All {
                conn.is_dirty = true;
            }
            if transmitted == Transmitted::More {
                self.dirty.push(slot);
            }
            self.after(slot);
            if transmitted == Transmitted::Blocked {
                break;
            }
            done += 1;
        }
        let is_blocked = done < dirty.len();
        dirty.drain(..done);
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
        io.flush() || is_blocked || !self.dirty.is_empty()
    }

    /// Lets the endpoint know what a connection has decided, and forgets it when it is done.
    fn after(&mut self, slot: usize) {
        while let Some(conn) = self.conns[slot].as_deref_mut() {
            let Some(event) = conn.proto.poll_endpoint_events() else { break };
            let is_drained = event.is_drained();
            let answer = self.proto.handle_event(ConnectionHandle(slot), event);
            if is_drained {
                self.conns[slot] = None;
                self.live -= 1;
                self.timers.set(slot, None);
                return;
            }
            if let (Some(answer), Some(conn)) = (answer, self.conns[slot].as_deref_mut()) {
                conn.proto.handle_event(answer);
                self.note_events(slot);
            }
        }
        self.schedule(slot);
    }

    /// Every connection there is.
    pub fn all(&self) -> Vec<ConnRef> {
        let conns = self.conns.iter().enumerate();
        let named = conns.filter_map(|(slot, conn)| {
            Some(ConnRef { slot, generation: conn.as_ref()?.generation })
        });
        named.collect()
    }
}
