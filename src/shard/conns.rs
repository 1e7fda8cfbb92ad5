//! The connections of a shard by slot, whatever they are made of: QUIC has the even slots, TCP the odd ones.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::pki_types::CertificateDer;

use super::pipes::{Pipe, Pipes};
use crate::observe::{Histogram, Tick};
use crate::quic::{self, Conn, Endpoint};
use crate::session::streams::{Estimate, Event, ReadEnd, StreamId, Streams, WriteEnd};
use crate::wire::{SessionCode, StreamCode};

/// Transports, as logs and operators know them.
pub const QUIC: &str = "quic";
pub const WEBTRANSPORT: &str = "webtransport";
pub const WEBSOCKET: &str = "websocket";

pub(super) struct Conns {
    pub quic: Endpoint,
    pub pipes: Pipes,
}

/// The slot of a QUIC connection, by its handle.
pub(super) fn of_quic(handle: usize) -> usize {
    handle << 1
}

/// The slot of a TCP connection, by its index.
pub(super) fn of_pipe(index: usize) -> usize {
    index << 1 | 1
}

/// What happens on a TCP connection may happen on one of QUIC too.
pub(super) fn as_of_quic(event: Event) -> quic::Event {
    match event {
        Event::Opened(id) => quic::Event::Opened(id),
        Event::Readable(id) => quic::Event::Readable(id),
        Event::Writable(id) => quic::Event::Writable(id),
        Event::Finished(id) => quic::Event::Finished(id),
        Event::Stopped(id) => quic::Event::Stopped(id),
        Event::Available { uni } => quic::Event::Available { uni },
        Event::Datagram(datagram) => quic::Event::Datagram(datagram),
        Event::Lost { reason } => quic::Event::Lost { reason, cause: quic::Cause::Other },
    }
}

/// Where a slot is looked for.
enum Place {
    Quic(usize),
    Pipe(usize),
}

fn place(slot: usize) -> Place {
    if slot & 1 == 0 { Place::Quic(slot >> 1) } else { Place::Pipe(slot >> 1) }
}

impl Conns {
    #[inline]
    pub fn get(&mut self, slot: usize) -> Option<Transport<'_>> {
        Some(match place(slot) {
            Place::Quic(handle) => Transport::Quic(self.quic.conn(handle)?),
            Place::Pipe(index) => Transport::Pipe(self.pipes.get(index)?),
        })
    }

    /// The connection that a WebTransport session is asked for on.
    pub fn quic(&mut self, slot: usize) -> Option<&mut Conn> {
        match place(slot) {
            Place::Quic(handle) => self.quic.conn(handle),
            Place::Pipe(_) => None,
        }
    }

    pub fn generation(&mut self, slot: usize) -> Option<u32> {
        self.get(slot).map(|conn| conn.generation())
    }

    /// Has a connection brought into the caches, for what is done next.
    pub fn prefetch(&self, slot: usize) {
        if let Place::Quic(handle) = place(slot) {
            self.quic.prefetch(handle);
        }
    }

    /// It may have something to send.
    #[inline]
    pub fn note_dirty(&mut self, slot: usize) {
        match place(slot) {
            Place::Quic(handle) => self.quic.note_dirty(handle),
            Place::Pipe(index) => self.pipes.note_dirty(index),
        }
    }

    /// Sets when it is to be looked at next.
    #[inline]
    pub fn schedule(&mut self, slot: usize) {
        match place(slot) {
            Place::Quic(handle) => self.quic.schedule(handle),
            Place::Pipe(index) => self.pipes.schedule(index),
        }
    }

    /// Fires every timer that is due. Slots whose session asked to be woken are added to `woken`.
    pub fn fire_timers(&mut self, now: Instant, woken: &mut Vec<usize>) {
        self.quic.fire_timers(now, woken);
        woken.iter_mut().for_each(|slot| *slot = of_quic(*slot));
        let of_tcp = woken.len();
        self.pipes.fire_timers(now, woken);
        woken[of_tcp..].iter_mut().for_each(|slot| *slot = of_pipe(*slot));
    }

    pub fn next_timer(&self) -> Option<Instant> {
        [self.quic.next_timer(), self.pipes.next_timer()].into_iter().flatten().min()
    }

    /// What was sent in this turn has left.
    pub fn note_departures(&mut self, now: Tick, added: &mut Histogram) {
        self.quic.note_departures(now, added);
        self.pipes.note_departures(now, added);
    }

    pub fn live(&self) -> usize {
        self.quic.live() + self.pipes.live()
    }
}

/// What a session's streams are on.
pub enum Transport<'a> {
    Quic(&'a mut Conn),
    Pipe(&'a mut Pipe),
}

/// The same of either.
macro_rules! either {
    ($transport:expr, $conn:ident => $what:expr) => {
        match $transport {
            Transport::Quic($conn) => $what,
            Transport::Pipe($conn) => $what,
        }
    };
}

impl Transport<'_> {
    #[inline]
    pub fn generation(&self) -> u32 {
        either!(self, conn => conn.generation())
    }

    pub fn remote(&self) -> SocketAddr {
        either!(self, conn => conn.remote())
    }

    /// As logs name it.
    pub fn name(&self) -> &'static str {
        match self {
            Transport::Quic(conn) if conn.is_web() => WEBTRANSPORT,
            Transport::Quic(_) => QUIC,
            Transport::Pipe(_) => WEBSOCKET,
        }
    }

    /// Whether nobody on the way can read along.
    pub fn is_secure(&self) -> bool {
        match self {
            Transport::Quic(_) => true,
            Transport::Pipe(pipe) => pipe.is_secure(),
        }
    }

    pub fn local_ip(&self) -> Option<IpAddr> {
        either!(self, conn => conn.local_ip())
    }

    pub fn server_name(&self) -> Option<String> {
        either!(self, conn => conn.server_name())
    }

    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        either!(self, conn => conn.certificate())
    }

    pub fn moved(&self) -> (u64, u64) {
        either!(self, conn => conn.moved())
    }

    pub fn heard_at(&self) -> Instant {
        either!(self, conn => conn.heard_at())
    }

    pub fn ping(&mut self) {
        either!(self, conn => conn.ping());
    }

    #[inline]
    pub fn take_touched(&mut self) -> bool {
        either!(self, conn => conn.take_touched())
    }

    #[inline]
    pub fn set_session_deadline(&mut self, deadline: Option<Instant>) {
        either!(self, conn => conn.set_session_deadline(deadline));
    }

    /// What is to be sent came at this time.
    #[inline]
    pub fn note_fresh(&mut self, came: Tick) {
        either!(self, conn => conn.note_fresh(came));
    }
}

impl Streams for Transport<'_> {
    #[inline]
    fn open_uni(&mut self) -> Option<StreamId> {
        either!(self, conn => conn.open_uni())
    }

    #[inline]
    fn open_bidi(&mut self) -> Option<StreamId> {
        either!(self, conn => conn.open_bidi())
    }

    #[inline]
    fn write(&mut self, id: StreamId, chunks: &mut [Bytes]) -> WriteEnd {
        either!(self, conn => conn.write(id, chunks))
    }

    #[inline]
    fn finish(&mut self, id: StreamId) {
        either!(self, conn => conn.finish(id));
    }

    #[inline]
    fn reset(&mut self, id: StreamId, code: StreamCode) {
        either!(self, conn => conn.reset(id, code));
    }

    #[inline]
    fn stop(&mut self, id: StreamId, code: StreamCode) {
        either!(self, conn => conn.stop(id, code));
    }

    #[inline]
    fn set_priority(&mut self, id: StreamId, priority: i32) {
        either!(self, conn => conn.set_priority(id, priority));
    }

    #[inline]
    fn read(&mut self, id: StreamId, max: usize, take: &mut dyn FnMut(&[u8])) -> ReadEnd {
        either!(self, conn => conn.read(id, max, take))
    }

    #[inline]
    fn send_datagram(&mut self, head: &[u8], payload: &[u8]) {
        either!(self, conn => conn.send_datagram(head, payload));
    }

    fn may_hold(&mut self, bytes: u64) -> bool {
        either!(self, conn => conn.may_hold(bytes))
    }

    fn expect_groups(&mut self) {
        either!(self, conn => conn.expect_groups());
    }

    #[inline]
    fn rtt(&self) -> Duration {
        either!(self, conn => conn.rtt())
    }

    #[inline]
    fn window(&self) -> u64 {
        either!(self, conn => conn.window())
    }

    fn estimate(&self) -> Estimate {
        either!(self, conn => conn.estimate())
    }

    fn shown(&self) -> Estimate {
        either!(self, conn => conn.shown())
    }

    fn close(&mut self, code: SessionCode, reason: Cow<'static, str>) {
        either!(self, conn => conn.close(code, reason));
    }
}
