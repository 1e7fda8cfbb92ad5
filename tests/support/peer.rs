//! A moq-lite peer that shares no code with the relay above the wire: it publishes, views, keeps
//! what it was told, and complains about whatever no relay should ever say.
//!
//! It knows streams and messages but no clock and no network: the world gives it packets or bytes and the
//! time, and takes such from it. What its streams are on is in `conn`: QUIC, or a WebSocket. By WebTransport
//! it is the same peer on streams that `web` prepares.

mod announcements;
mod conn;
mod quic;
mod raw;
mod serving;
mod setup;
mod source;
mod spec;
mod streams;
mod viewing;
mod web;
mod ws;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use shardcast::net::Ecn;
use shardcast::wire::*;

pub use announcements::Listen;
use announcements::{AnnounceServed, Claim};
use conn::{Conn, Event};
use quic::Quic;
pub use raw::Raw;
pub use serving::Asked;
use serving::{Reply, Upstream};
pub use setup::client_setup;
pub use source::{Frame, Group, Source, covers};
pub use spec::Spec;
use streams::{Input, Output};
pub use viewing::{Fetched, Info, Seen, Shown, Subscription, Want};
pub use web::Manner;
use web::Web;
use ws::Ws;

/// The first relay, as every peer knows it.
pub const RELAY: ([u8; 4], u16) = ([10, 0, 0, 1], 4433);

/// Where a relay is.
pub fn address_of(relay: usize) -> SocketAddr {
    let ([a, b, c, d], port) = RELAY;
    ([a, b, c, d + relay as u8], port).into()
}

/// Long enough that no group of a play ever is too old.
pub const AGES: u64 = 3_600_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Finished,
    Reset(u64),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    Connecting,
    Up,
    /// Gone without a word: nothing goes in or out any more.
    Killed,
    /// Why, as the transport says it; the code if the relay closed the session.
    Over(String, Option<u64>),
}

pub struct Peer {
    pub name: String,
    pub version: Version,
    pub spec: Spec,
    pub address: SocketAddr,
    pub state: State,
    conn: Conn,
    /// Once a session is asked for by WebTransport.
    web: Option<Web>,
    /// The world has to give it a turn.
    pub is_dirty: bool,
    /// Of its last turn.
    now: Instant,
    /// Whether it takes what comes on group streams.
    pub reads_groups: bool,
    /// It did not always.
    pub was_slow: bool,
    unread: BTreeSet<u64>,
    inputs: BTreeMap<u64, Input>,
    outputs: BTreeMap<u64, Output>,
    pub relay_setup: Option<Setup>,
    /// On lite-01 and 02: the stream of the SETUP exchange, and whether the relay has answered.
    pub session_stream: Option<u64>,
    pub is_answered: bool,
    /// When it has sent GOAWAY.
    pub left_at: Option<Instant>,
    // As a publisher.
    pub sources: Vec<Source>,
    claims: BTreeMap<Path, Claim>,
    feeds: BTreeMap<u64, AnnounceServed>,
    upstreams: BTreeMap<u64, Upstream>,
    upstream_ids: BTreeSet<u64>,
    replies: BTreeMap<u64, Reply>,
    pub asked: Vec<(Instant, Asked)>,
    // As a viewer.
    pub listens: Vec<Listen>,
    pub infos: Vec<Info>,
    pub subscriptions: Vec<Subscription>,
    pub fetches: Vec<Fetched>,
    pub raws: BTreeMap<u64, Raw>,
    /// Datagrams from the relay, and bytes of those from it and to it.
    pub datagrams_in: usize,
    pub bytes_in: usize,
    pub bytes_out: usize,
    pub up_at: Option<Instant>,
    pub lost_at: Option<Instant>,
    /// What happened, for the history.
    pub log: Vec<String>,
    /// What no relay should ever say.
    pub faults: Vec<String>,
}

impl Peer {
    pub fn join(
        index: usize,
        spec: Spec,
        tls: Arc<rustls::ClientConfig>,
        seed: u64,
        shards: usize,
        now: Instant,
    ) -> Peer {
        let conn = match spec.ws {
            None => Conn::Quic(Box::new(Quic::connect(&spec, tls, seed, shards, now))),
            Some(wire) => Conn::Ws(Box::new(Ws::new(&spec, wire, seed, now))),
        };
        let over = match (spec.web, spec.ws) {
            (Some(_), _) => ", web".to_owned(),
            (None, Some(wire)) => format!(", {wire:?}"),
            (None, None) => String::new(),
        };
        Peer {
            name: format!("peer {index} ({}{over})", spec.version),
            version: spec.version,
            address: match spec.house {
                None => ([10, 1, (index >> 8) as u8, index as u8], 5000).into(),
                Some(house) => {
                    ([10, 1, (house >> 8) as u8, house as u8], 5000 + index as u16).into()
                }
            },
            spec,
            state: State::Connecting,
            conn,
            web: None,
            is_dirty: true,
            now,
            reads_groups: true,
            was_slow: false,
            unread: BTreeSet::new(),
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
            relay_setup: None,
            session_stream: None,
            is_answered: false,
            left_at: None,
            sources: Vec::new(),
            claims: BTreeMap::new(),
            feeds: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            upstream_ids: BTreeSet::new(),
            replies: BTreeMap::new(),
            asked: Vec::new(),
            listens: Vec::new(),
            infos: Vec::new(),
            subscriptions: Vec::new(),
            fetches: Vec::new(),
            raws: BTreeMap::new(),
            datagrams_in: 0,
            bytes_in: 0,
            bytes_out: 0,
            up_at: None,
            lost_at: None,
            log: Vec::new(),
            faults: Vec::new(),
        }
    }

    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// The absolute path of one that this peer writes.
    pub fn absolute(&self, path: &str) -> Path {
        let root = self.spec.setup.path.as_deref().unwrap_or("");
        let root = Path::parse(split_path_query(root).0).expect("a valid root");
        root.join(&Path::parse(path).expect("a valid path")).expect("not too deep")
    }

    // ---- the transport ----

    pub fn datagram(&mut self, now: Instant, data: &[u8], ecn: Option<Ecn>) {
        if self.state == State::Killed {
            return;
        }
        self.is_dirty = true;
        self.datagrams_in += 1;
        self.bytes_in += data.len();
        if let Conn::Quic(quic) = &mut self.conn {
            quic.datagram(now, data, ecn);
        }
    }

    /// The relay has answered its request for a WebSocket.
    pub fn answered(&mut self, now: Instant, answer: Result<(), u16>) {
        self.is_dirty = true;
        match answer {
            Ok(()) => self.conn.ws().expect("it asked for one").opened(now),
            Err(status) => {
                self.state = State::Over(format!("refused with {status}"), None);
                self.lost_at = Some(now);
            }
        }
    }

    /// Bytes of its WebSocket have come.
    pub fn bytes(&mut self, now: Instant, bytes: &[u8]) {
        self.is_dirty = true;
        self.bytes_in += bytes.len();
        if let Some(ws) = self.conn.ws() {
            ws.bytes(now, bytes);
        }
    }

    /// None will come any more.
    pub fn ended(&mut self) {
        self.is_dirty = true;
        if let Some(ws) = self.conn.ws() {
            ws.ended();
        }
    }

    /// The link takes so many bytes.
    pub fn set_room(&mut self, room: usize) {
        if let Some(ws) = self.conn.ws() {
            ws.room = room;
        }
    }

    /// It says nothing more in its WebSocket.
    pub fn is_done(&mut self) -> bool {
        self.conn.ws().is_some_and(|ws| ws.is_done())
    }

    pub fn next_timer(&mut self) -> Option<Instant> {
        if self.state == State::Killed { None } else { self.conn.next_timer() }
    }

    /// Does everything there is to do, and hands over what is to be sent.
    pub fn turn(&mut self, now: Instant, mut send: impl FnMut(Vec<u8>, Option<Ecn>)) {
        self.is_dirty = false;
        self.now = now;
        if self.state == State::Killed {
            return;
        }
        if self.conn.next_timer().is_some_and(|at| at <= now) {
            self.conn.timeout(now);
        }
        loop {
            let mut is_quiet = true;
            let mut readable = BTreeSet::new();
            while let Some(event) = self.conn.poll() {
                is_quiet = false;
                self.handle(now, event, &mut readable);
            }
            if self.takes_streams() {
                self.accept(&mut readable);
            }
            self.read_all(readable);
            if self.is_up() {
                self.serve();
            }
            while let Some((data, ecn)) = self.conn.transmit(now) {
                is_quiet = false;
                self.bytes_out += data.len();
                send(data, ecn);
            }
            if is_quiet {
                break;
            }
        }
        if let Some(ws) = self.conn.ws() {
            let faults = std::mem::take(&mut ws.faults);
            faults.into_iter().for_each(|what| self.fault(what));
        }
    }

    fn handle(&mut self, now: Instant, event: Event, readable: &mut BTreeSet<u64>) {
        match event {
            Event::Connected => self.connected(),
            Event::Lost(reason, with) => {
                let with = with.and_then(|with| self.closed_with(with));
                self.log.push(format!("lost: {reason}"));
                if !matches!(self.state, State::Over(..)) {
                    self.state = State::Over(reason, with);
                    self.lost_at = Some(now);
                }
            }
            Event::Readable(id) => drop(readable.insert(id)),
            Event::Writable(id) => self.flush(id),
            Event::Finished(id) => self.group_closed(id),
            Event::Stopped(id, code) => {
                let with = self.meant(id, code);
                self.stopped(id, with);
            }
            Event::Datagrams => {
                while let Some(datagram) = self.conn.recv_datagram() {
                    self.take_datagram(datagram);
                }
            }
        }
    }

    fn fault(&mut self, what: String) {
        self.faults.push(format!("{}: {what}", self.name));
    }
}
