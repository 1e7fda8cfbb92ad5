//! What the streams of a peer are on: QUIC, or a WebSocket.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn_proto::Dir;
use shardcast::net::Ecn;

use super::End;
use super::quic::Quic;
use super::ws::Ws;

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    Connected,
    /// Why, and the code if the relay has closed it.
    Lost(String, Option<u64>),
    Readable(u64),
    Writable(u64),
    /// All of a stream has arrived, or is as good as that.
    Finished(u64),
    Stopped(u64, u64),
    /// There are datagrams.
    Datagrams,
}

/// What a write has come to.
pub(super) enum Written {
    Taken(usize),
    Blocked,
    /// Nobody wants it any more.
    Gone,
}

pub(super) enum Conn {
    Quic(Box<Quic>),
    Ws(Box<Ws>),
}

/// The same of either.
macro_rules! either {
    ($conn:expr, $it:ident => $what:expr) => {
        match $conn {
            Conn::Quic($it) => $what,
            Conn::Ws($it) => $what,
        }
    };
}

impl Conn {
    /// The end of a WebSocket.
    pub fn ws(&mut self) -> Option<&mut Ws> {
        match self {
            Conn::Quic(_) => None,
            Conn::Ws(ws) => Some(ws),
        }
    }

    pub fn poll(&mut self) -> Option<Event> {
        either!(self, it => it.poll())
    }

    pub fn next_timer(&mut self) -> Option<Instant> {
        either!(self, it => it.next_timer())
    }

    pub fn timeout(&mut self, now: Instant) {
        either!(self, it => it.timeout(now));
    }

    pub fn transmit(&mut self, now: Instant) -> Option<(Vec<u8>, Option<Ecn>)> {
        match self {
            Conn::Quic(quic) => quic.transmit(now),
            Conn::Ws(ws) => ws.transmit(now).map(|bytes| (bytes, None)),
        }
    }

    /// A stream, if the relay grants one.
    pub fn open(&mut self, dir: Dir) -> Option<u64> {
        either!(self, it => it.open(dir))
    }

    /// A stream that the relay has opened.
    pub fn accept(&mut self, dir: Dir) -> Option<u64> {
        either!(self, it => it.accept(dir))
    }

    /// Appends what has come on a stream. Nothing if that is not read any more.
    pub fn read(&mut self, id: u64, into: &mut BytesMut) -> Option<Option<End>> {
        either!(self, it => it.read(id, into))
    }

    pub fn write(&mut self, id: u64, bytes: &[u8]) -> Written {
        either!(self, it => it.write(id, bytes))
    }

    pub fn finish(&mut self, id: u64) {
        either!(self, it => it.finish(id));
    }

    pub fn reset(&mut self, id: u64, with: u64) {
        either!(self, it => it.reset(id, with));
    }

    pub fn stop(&mut self, id: u64, with: u64) {
        either!(self, it => it.stop(id, with));
    }

    /// All others go first.
    pub fn yields(&mut self, id: u64) {
        either!(self, it => it.yields(id));
    }

    /// Lets the relay have so many unidirectional streams open.
    pub fn grant_uni(&mut self, count: u32) {
        either!(self, it => it.grant_uni(count));
    }

    pub fn send_datagram(&mut self, datagram: Bytes) {
        either!(self, it => it.send_datagram(datagram));
    }

    pub fn recv_datagram(&mut self) -> Option<Bytes> {
        either!(self, it => it.recv_datagram())
    }
}
