//! How a session begins, and how a peer leaves it.

use std::time::Instant;

use bytes::{Buf, BytesMut};
use quinn_proto::Dir;
use shardcast::wire::*;

use super::conn::Conn;
use super::raw::Raw;
use super::streams::Use;
use super::{Input, Peer, State};

impl Peer {
    /// Asks the relay to move elsewhere, once, where the wire has a word for it.
    pub fn go_away(&mut self) {
        if self.version < Version::Lite04 || self.is_leaving() {
            return;
        }
        let mut bytes = vec![BidiType::Goaway as u8];
        Goaway::default().encode(&mut bytes);
        self.left_at = self.try_raw(Dir::Bi, &bytes, true).map(|_| self.now);
    }

    pub fn is_leaving(&self) -> bool {
        self.left_at.is_some()
    }

    pub fn close(&mut self, now: Instant, with: u64) {
        self.is_dirty = true;
        if let Some(ws) = self.conn.ws() {
            ws.close(with);
        } else if !self.close_session(with) {
            self.hang_up(now, with);
        }
        self.state = State::Over("closed".to_owned(), None);
    }

    /// Closes the connection without a word on the session.
    pub fn hang_up(&mut self, now: Instant, with: u64) {
        self.is_dirty = true;
        let with = if self.web.is_some() { SessionCode(with).to_http3() } else { with };
        match &mut self.conn {
            Conn::Quic(quic) => quic.close(now, with),
            Conn::Ws(ws) => ws.hang_up(),
        }
        self.state = State::Over("closed".to_owned(), None);
    }

    pub(super) fn connected(&mut self) {
        self.log.push("connected".to_owned());
        match self.spec.web {
            None => self.begin(),
            Some(manner) => {
                self.ask_for_session(manner);
                if manner.is_eager {
                    self.begin();
                }
            }
        }
    }

    pub(super) fn came_up(&mut self) {
        self.state = State::Up;
        self.up_at = Some(self.now);
    }

    /// The session begins, as far as this end can tell.
    pub(super) fn begin(&mut self) {
        // There the first stream must arrive before any other, and in a session they may overtake
        // each other.
        if self.web.is_none() || self.version >= Version::Lite03 {
            self.came_up();
        }
        if self.version <= Version::Lite02 {
            let bytes =
                self.spec.raw_setup.clone().unwrap_or_else(|| client_setup(&[self.version.code()]));
            if !bytes.is_empty() {
                let id = self.open(Dir::Bi, Use::SessionStream);
                self.session_stream = Some(id);
                self.send(id, &bytes, false);
            }
        }
        if self.version >= Version::Lite05 {
            let bytes = self.spec.raw_setup.clone().unwrap_or_else(|| {
                let mut bytes = vec![UniType::Setup as u8];
                // A request has said the path.
                let has_asked = self.web.is_some() || self.spec.ws.is_some();
                let path = self.spec.setup.path.clone().filter(|_| !has_asked);
                Setup { path, ..self.spec.setup.clone() }.encode(&mut bytes);
                bytes
            });
            if !bytes.is_empty() {
                let id = self.open(Dir::Uni, Use::Raw);
                self.raws.insert(id, Raw::default());
                self.send(id, &bytes, true);
            }
        }
    }

    pub(super) fn take_relay_setup(&mut self, input: &mut Input) -> bool {
        match split_message(&input.buf, CONTROL_MESSAGE_BYTES_MAX) {
            Ok(None) => {}
            Ok(Some((body, used))) => match Setup::decode(body) {
                Ok(setup) => {
                    if setup.hop == 0 || setup.path.is_some() || setup.cost.is_some() {
                        self.faults.push(format!("{}: SETUP {setup:?}", self.name));
                    }
                    self.log.push(format!("SETUP hop {}", setup.hop));
                    self.relay_setup = Some(setup);
                    input.buf.advance(used);
                    if !input.buf.is_empty() {
                        self.fault("bytes after SETUP".to_owned());
                    }
                    input.purpose = Use::Ignored;
                }
                Err(error) => self.fault(format!("SETUP: {error}")),
            },
            Err(error) => self.fault(format!("SETUP: {error}")),
        }
        false
    }

    pub(super) fn take_server_setup(&mut self, buf: &mut BytesMut) -> bool {
        let Some((kind, head)) = decode_varint(buf) else { return false };
        if self.is_answered || kind != ServerSetup::TYPE {
            self.fault(format!("type {kind} on the session stream"));
            buf.clear();
            return false;
        }
        match ServerSetup::take(&buf[head..]) {
            Ok(None) => {}
            Ok(Some((setup, used))) => {
                self.log.push(format!("{setup:?}"));
                if setup.version != self.version.code() || !setup.parameters.is_empty() {
                    self.fault(format!("{setup:x?}"));
                }
                buf.advance(head + used);
                self.is_answered = true;
                if self.state == State::Connecting {
                    self.came_up();
                }
                return true;
            }
            Err(error) => self.fault(format!("SERVER_SETUP: {error}")),
        }
        false
    }
}

/// CLIENT_SETUP with its stream type, offering versions by their codes.
pub fn client_setup(versions: &[u64]) -> Vec<u8> {
    let mut bytes = vec![BidiType::ClientSetup as u8];
    let parameters = vec![
        LegacyParameter::Number { id: 2, value: 42069 },
        LegacyParameter::Bytes { id: 7, value: b"a peer of plays".to_vec() },
    ];
    ClientSetup { versions: versions.to_vec(), parameters }.encode(&mut bytes);
    bytes
}
