//! What a play writes by hand.

use bytes::{Bytes, BytesMut};
use quinn_proto::Dir;

use super::streams::Use;
use super::{End, Input, Peer};

/// A stream that a play writes by hand.
#[derive(Debug, Default)]
pub struct Raw {
    pub received: Vec<u8>,
    pub end: Option<End>,
    pub stopped: Option<u64>,
}

impl Peer {
    /// None without stream credit.
    pub fn try_raw(&mut self, dir: Dir, bytes: &[u8], fin: bool) -> Option<u64> {
        let id = self.try_open(dir)?;
        self.write_first(id, dir, bytes, fin);
        Some(id)
    }

    /// The same on a stream of the connection itself, where WebTransport has a session on it.
    pub fn try_plain(&mut self, dir: Dir, bytes: &[u8], fin: bool) -> Option<u64> {
        let id = self.open_plain(dir)?;
        self.write_first(id, dir, bytes, fin);
        Some(id)
    }

    fn write_first(&mut self, id: u64, dir: Dir, bytes: &[u8], fin: bool) {
        if dir == Dir::Bi {
            self.inputs.insert(id, Input { purpose: Use::Raw, buf: BytesMut::new() });
        }
        self.raws.insert(id, Raw::default());
        self.send(id, bytes, fin);
    }

    pub fn raw(&mut self, dir: Dir, bytes: &[u8], fin: bool) -> u64 {
        let id = self.open(dir, Use::Raw);
        self.raws.insert(id, Raw::default());
        self.send(id, bytes, fin);
        id
    }

    pub fn write_raw(&mut self, id: u64, bytes: &[u8], fin: bool) {
        self.send(id, bytes, fin);
    }

    pub fn reset_raw(&mut self, id: u64, with: u64) {
        self.is_dirty = true;
        self.reset(id, with);
    }

    /// Has no effect on a stream that is its own alone.
    pub fn stop_raw(&mut self, id: u64, with: u64) {
        if id & 2 == 0 {
            self.is_dirty = true;
            self.stop(id, with);
        }
    }

    /// Lets the relay have so many unidirectional streams open.
    pub fn grant_uni(&mut self, count: u32) {
        self.is_dirty = true;
        self.conn.grant_uni(count);
    }

    /// Sends one that the relay may make of what it will.
    pub fn raw_datagram(&mut self, bytes: &[u8]) {
        self.is_dirty = true;
        self.conn.send_datagram(Bytes::copy_from_slice(bytes));
    }

    /// Bytes beside all that a WebSocket has, if it is on one.
    pub fn babble(&mut self, bytes: &[u8]) {
        self.is_dirty = true;
        if let Some(ws) = self.conn.ws() {
            ws.babble(bytes);
        }
    }
}
