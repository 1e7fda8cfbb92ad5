//! Connections over TCP: a socket that bytes go through and a state machine that makes streams of them, side
//! by side; which have something to do, and when.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::pki_types::CertificateDer;

use crate::limits::{
    CLOSE_GRACE_MAX, SEND_WINDOW_BYTES, SENDERS_PER_TURN, SESSION_BYTES, TCP_LINK_LOOK,
    TCP_READ_BYTES_PER_TURN, TCP_WRITE_BYTES_PER_TURN, TIMER_SLACK,
};
use crate::mux::{Mux, Wire};
use crate::observe::{Departures, Histogram, Tick};
use crate::quic::trains::Transmitted;
use crate::quic::{Allowance, Budget, Goodbye, Timers};
use crate::session::streams::{Estimate, Event, ReadEnd, StreamId, Streams, WriteEnd};
use crate::source::Source;
use crate::tcp::{self, Handover, Poll, Socket};
use crate::wire::{SessionCode, StreamCode};

/// Who is at the other end of a connection that is handed over.
#[derive(Clone, Debug)]
pub struct Caller {
    pub remote: SocketAddr,
    pub local_ip: Option<IpAddr>,
    /// By what name it has called this relay.
    pub server_name: Option<String>,
    /// The certificate that it has shown, its own one alone.
    pub certificate: Option<CertificateDer<'static>>,
}

pub struct Pipe {
    socket: Socket,
    mux: Mux,
    caller: Caller,
    generation: u32,
    /// When the session wants to be woken.
    session_deadline: Option<Instant>,
    /// The session has done something that may have to be sent.
    is_touched: bool,
    /// When content came that is to be sent.
    fresh: Option<Tick>,
    /// On the lists of those with something to read, with events, and with something to send.
    is_ready: bool,
    has_events: bool,
    is_dirty: bool,
    allowance: Allowance,
    /// Where it comes from, and what it was granted of the budget.
    source: Source,
    granted: u64,
    /// When it is forgotten, whatever it still has to say.
    ends_at: Option<Instant>,
    is_shut: bool,
    /// Nothing more comes, or goes.
    is_broken: bool,
    /// When it was last looked what the kernel knows of the path.
    linked_at: Option<Instant>,
}

#[derive(Default)]
pub(super) struct Pipes {
    poll: Option<Poll>,
    pipes: Vec<Option<Box<Pipe>>>,
    free: Vec<usize>,
    live: usize,
    generation: u32,
    ready: VecDeque<usize>,
    with_events: Vec<usize>,
    dirty: VecDeque<usize>,
    timers: Option<Timers>,
    departures: Departures,
    /// Empty; keep their memory.
    due: Vec<usize>,
    out: Vec<u8>,
    /// Where bytes lie while they are read.
    input: Vec<u8>,
}

impl Pipes {
    /// None are taken before this.
    pub fn open(&mut self, poll: Poll, started: Instant) -> RawFd {
        self.timers = Some(Timers::new(started));
        self.input = vec![0; TCP_READ_BYTES_PER_TURN];
        self.poll.insert(poll).as_raw_fd()
    }

    pub fn live(&self) -> usize {
        self.live
    }

    pub fn get(&mut self, index: usize) -> Option<&mut Pipe> {
        self.pipes.get_mut(index)?.as_deref_mut()
    }

    /// Takes a connection over, of which the budget has admitted what a session begins with.
    pub fn insert(
        &mut self,
        now: Instant,
        handover: Handover,
        caller: Caller,
        wire: Wire,
    ) -> io::Result<usize> {
        let poll = self.poll.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let socket = Socket::new(handover)?;
        let index = self.free.last().copied().unwrap_or(self.pipes.len());
        let generation = self.generation.wrapping_add(1);
        poll.add(&socket, u64::from(generation) << 32 | index as u64)?;
        let pipe = Pipe {
            socket,
            mux: Mux::new(wire, now),
            source: Source::of(caller.remote.ip()),
            caller,
            generation,
            session_deadline: None,
            is_touched: false,
            fresh: None,
            is_ready: false,
            has_events: false,
            is_dirty: false,
            allowance: Allowance::START,
            granted: SESSION_BYTES,
            ends_at: None,
            is_shut: false,
            is_broken: false,
            linked_at: None,
        };
        self.generation = generation;
        self.live += 1;
        match self.free.pop() {
            Some(index) => self.pipes[index] = Some(Box::new(pipe)),
            None => self.pipes.push(Some(Box::new(pipe))),
        }
        self.note_ready(index);
        self.note_dirty(index);
        Ok(index)
    }

    /// Takes in what clients have said, of so many of them and so much of each. True if there is more.
    pub fn receive(&mut self, now: Instant) -> bool {
        if self.live == 0 {
            return false;
        }
        let Some(mut poll) = self.poll.take() else { return false };
        let more = poll.take(&mut |name, ready| {
            let (generation, index) = ((name >> 32) as u32, name as u32 as usize);
            // What is said of one that has left is said too late.
            let Some(pipe) = self.get(index).filter(|pipe| pipe.generation == generation) else {
                return;
            };
            if ready.writable {
                pipe.socket.note_writable();
            }
            if ready.readable {
                pipe.socket.note_readable(ready.ending);
                self.note_ready(index);
            }
            self.note_dirty(index);
        });
        self.poll = Some(poll);
        let mut input = std::mem::take(&mut self.input);
        for _ in 0..self.ready.len().min(SENDERS_PER_TURN) {
            let Some(index) = self.ready.pop_front() else { break };
            let Some(pipe) = self.get(index) else { continue };
            pipe.is_ready = false;
            pipe.read(now, &mut input);
            if pipe.socket.is_readable() && !pipe.is_broken {
                self.note_ready(index);
            }
            self.note_events(index);
        }
        self.input = input;
        more || !self.ready.is_empty()
    }

    fn note_ready(&mut self, index: usize) {
        if let Some(pipe) = self.get(index)
            && !std::mem::replace(&mut pipe.is_ready, true)
        {
            self.ready.push_back(index);
        }
    }

    /// Something has happened on a connection: it may have events, and something to send.
    fn note_events(&mut self, index: usize) {
        if let Some(pipe) = self.get(index)
            && pipe.mux.has_events()
            && !std::mem::replace(&mut pipe.has_events, true)
        {
            self.with_events.push(index);
        }
        self.note_dirty(index);
    }

    pub fn note_dirty(&mut self, index: usize) {
        if let Some(pipe) = self.get(index)
            && !std::mem::replace(&mut pipe.is_dirty, true)
        {
            self.dirty.push_back(index);
        }
    }

    /// The next connection with events.
    pub fn next_with_events(&mut self) -> Option<usize> {
        let index = self.with_events.pop()?;
        if let Some(pipe) = self.get(index) {
            pipe.has_events = false;
        }
        Some(index)
    }

    pub fn poll(&mut self, index: usize) -> Option<Event> {
        self.get(index)?.mux.poll()
    }

    /// Fires every timer that is due; those whose session asked to be woken are added to `woken`.
    pub fn fire_timers(&mut self, now: Instant, woken: &mut Vec<usize>) {
        let Some(timers) = &mut self.timers else { return };
        let mut due = std::mem::take(&mut self.due);
        timers.take_due(now, &mut due);
        for index in due.drain(..) {
            let Some(pipe) = self.get(index) else { continue };
            if pipe.session_deadline.take_if(|deadline| *deadline <= now).is_some() {
                woken.push(index);
            }
            if pipe.mux.deadline().is_some_and(|deadline| deadline <= now) {
                pipe.mux.timeout(now);
            }
            self.note_events(index);
        }
        self.due = due;
    }

    pub fn next_timer(&self) -> Option<Instant> {
        Some(self.timers.as_ref()?.next()? + TIMER_SLACK)
    }

    /// Sets when a connection is to be looked at next.
    pub fn schedule(&mut self, index: usize) {
        let at = self.get(index).and_then(|pipe| {
            let deadlines = [pipe.mux.deadline(), pipe.session_deadline, pipe.ends_at];
            deadlines.into_iter().flatten().min()
        });
        if let Some(timers) = &mut self.timers {
            timers.set(index, at);
        }
    }

    /// Sends what connections have to say, each once and only so much, and forgets those that are over.
    pub fn transmit(&mut self, now: Instant, budget: &mut Budget) -> Transmitted {
        let mut out = std::mem::take(&mut self.out);
        for _ in 0..self.dirty.len().min(SENDERS_PER_TURN) {
            let Some(index) = self.dirty.pop_front() else { break };
            let Some(pipe) = self.pipes[index].as_deref_mut() else { continue };
            pipe.is_dirty = false;
            let has_sent = pipe.send(now, budget, &mut out);
            if let Some(came) = pipe.fresh.take()
                && has_sent
            {
                self.departures.note(came);
            }
            if pipe.is_over(now) {
                self.forget(index, budget);
                continue;
            }
            if pipe.may_send() || pipe.mux.has_events() {
                self.note_events(index);
            }
            self.schedule(index);
        }
        self.out = out;
        if self.dirty.is_empty() { Transmitted::All } else { Transmitted::More }
    }

    /// What was sent in this turn has left.
    pub fn note_departures(&mut self, now: Tick, added: &mut Histogram) {
        self.departures.left(now, added);
    }

    fn forget(&mut self, index: usize, budget: &mut Budget) {
        let Some(pipe) = self.pipes[index].take() else { return };
        budget.give_back(pipe.source, pipe.granted);
        self.free.push(index);
        self.live -= 1;
        if let Some(timers) = &mut self.timers {
            timers.set(index, None);
        }
    }

    /// Closes all connections, as a relay does that ends, and says so to those who take it at once.
    pub fn close_all(&mut self, now: Instant, goodbye: Goodbye, budget: &mut Budget) {
        let (code, reason) = goodbye.words();
        for index in 0..self.pipes.len() {
            if let Some(pipe) = self.get(index) {
                pipe.mux.close_now(code, reason);
                pipe.send(now, budget, &mut Vec::new());
                pipe.socket.shut_down();
                self.forget(index, budget);
            }
        }
    }
}

impl Pipe {
    pub fn generation(&self) -> u32 {
        self.generation
    }

    pub fn remote(&self) -> SocketAddr {
        self.caller.remote
    }

    pub fn local_ip(&self) -> Option<IpAddr> {
        self.caller.local_ip
    }

    /// Whether it is over TLS.
    pub fn is_secure(&self) -> bool {
        self.socket.is_secure()
    }

    pub fn server_name(&self) -> Option<String> {
        self.caller.server_name.clone()
    }

    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.caller.certificate.clone()
    }

    pub fn moved(&self) -> (u64, u64) {
        self.socket.moved()
    }

    pub fn heard_at(&self) -> Instant {
        self.mux.heard_at()
    }

    pub fn ping(&mut self) {
        self.mux.ping();
    }

    pub fn take_touched(&mut self) -> bool {
        std::mem::take(&mut self.is_touched)
    }

    pub fn set_session_deadline(&mut self, deadline: Option<Instant>) {
        self.session_deadline = deadline;
    }

    /// The session is about to write what came at this time.
    pub fn note_fresh(&mut self, came: Tick) {
        self.fresh = Some(self.fresh.map_or(came, |before| before.min(came)));
    }

    /// Takes in what has come, as much as there is room for.
    fn read(&mut self, now: Instant, input: &mut [u8]) {
        let mut filled = 0;
        while filled < input.len() && self.socket.is_readable() {
            match self.socket.read(&mut input[filled..]) {
                Ok(tcp::Read::Bytes(bytes)) => filled += bytes,
                Ok(tcp::Read::Nothing) => {}
                end => {
                    self.mux.receive(now, &mut input[..filled]);
                    return match end {
                        Err(error) => self.broke(&error),
                        _ => {
                            self.is_broken = true;
                            self.mux.ended("the client has hung up");
                        }
                    };
                }
            }
        }
        self.mux.receive(now, &mut input[..filled]);
    }

    fn broke(&mut self, error: &io::Error) {
        self.is_broken = true;
        self.mux.ended(&error.to_string());
    }

    /// Sends what it has to say, if the kernel takes it. True if that has taken anything new.
    fn send(&mut self, now: Instant, budget: &mut Budget, out: &mut Vec<u8>) -> bool {
        if self.is_broken {
            return false;
        }
        if self.linked_at.is_none_or(|at| now >= at + TCP_LINK_LOOK) {
            self.linked_at = Some(now);
            if let Some(link) = self.socket.link() {
                self.mux.set_link(link);
            }
        }
        self.mux.set_send_window(budget.send_window(SEND_WINDOW_BYTES));
        let (source, granted) = (self.source, &mut self.granted);
        let mut grant = |bytes| {
            let is_granted = budget.grow(source, *granted, bytes, false);
            *granted += if is_granted { bytes } else { 0 };
            is_granted
        };
        self.allowance.grow(&mut grant);
        self.mux.grow(now, &mut grant);
        let sent = self.socket.flush().and_then(|_| {
            if !self.may_send() {
                return Ok(false);
            }
            out.clear();
            self.mux.transmit(now, TCP_WRITE_BYTES_PER_TURN, out);
            self.socket.write(out)
        });
        sent.unwrap_or_else(|error| {
            self.broke(&error);
            false
        })
    }

    /// Whether it has something to say that would leave now.
    fn may_send(&self) -> bool {
        !self.is_broken && self.mux.has_output() && self.socket.takes_more()
    }

    /// Whether it is to be forgotten: the client has heard its last word, had the time to, or will not.
    fn is_over(&mut self, now: Instant) -> bool {
        if !self.mux.is_over() {
            return false;
        }
        let ends_at = *self.ends_at.get_or_insert(now + CLOSE_GRACE_MAX);
        // A socket that is closed before the client has hung up may take back what was said.
        let is_said = !self.mux.has_output() && !self.socket.has_unsent();
        if is_said && !std::mem::replace(&mut self.is_shut, true) {
            self.socket.shut_down();
        }
        self.is_broken || ends_at <= now
    }
}

impl Streams for Pipe {
    fn open_uni(&mut self) -> Option<StreamId> {
        self.mux.open_uni()
    }

    fn open_bidi(&mut self) -> Option<StreamId> {
        self.mux.open_bidi()
    }

    fn write(&mut self, id: StreamId, chunks: &mut [Bytes]) -> WriteEnd {
        self.is_touched = true;
        self.mux.write(id, chunks)
    }

    fn finish(&mut self, id: StreamId) {
        self.is_touched = true;
        self.mux.finish(id);
    }

    fn reset(&mut self, id: StreamId, code: StreamCode) {
        self.is_touched = true;
        self.mux.reset(id, code);
    }

    fn stop(&mut self, id: StreamId, code: StreamCode) {
        self.is_touched = true;
        self.mux.stop(id, code);
    }

    fn set_priority(&mut self, id: StreamId, priority: i32) {
        self.mux.set_priority(id, priority);
    }

    fn read(&mut self, id: StreamId, max: usize, take: &mut dyn FnMut(&[u8])) -> ReadEnd {
        self.is_touched = true;
        self.mux.read(id, max, take)
    }

    fn send_datagram(&mut self, head: &[u8], payload: &[u8]) {
        self.is_touched = true;
        self.mux.send_datagram(head, payload);
    }

    fn expect_groups(&mut self) {
        self.is_touched = true;
        self.mux.expect_groups();
    }

    fn may_hold(&mut self, bytes: u64) -> bool {
        let is_covered = self.allowance.covers(bytes);
        self.is_touched |= self.allowance.is_wanting();
        is_covered
    }

    fn rtt(&self) -> Duration {
        self.mux.rtt()
    }

    fn window(&self) -> u64 {
        self.mux.window()
    }

    fn estimate(&self) -> Estimate {
        self.mux.estimate()
    }

    fn shown(&self) -> Estimate {
        self.mux.shown()
    }

    fn close(&mut self, code: SessionCode, reason: Cow<'static, str>) {
        self.is_touched = true;
        self.mux.close(code, reason);
    }
}
