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
mod viewing;
mod web;
mod ws;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use quinn_proto::Dir;
use shardcast::net::Ecn;
use shardcast::wire::*;

pub use announcements::Listen;
use announcements::{AnnounceServed, Claim};
use conn::{Conn, Event, Written};
use quic::Quic;
pub use raw::Raw;
pub use serving::Asked;
use serving::{Reply, Upstream};
pub use setup::client_setup;
pub use source::{Frame, Group, Source, covers};
pub use spec::Spec;
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

#[derive(Clone, Copy, PartialEq, Debug)]
enum Use {
    /// By WebTransport: it is not known yet what for; SETTINGS; the session itself.
    Head,
    Control,
    Session,
    UniNew,
    RelaySetup,
    SessionStream,
    Group {
        subscription: usize,
        sequence: u64,
    },
    Ignored,
    BidiNew,
    AnnounceServed,
    TrackAsked,
    FetchAsked,
    Upstream,
    Listen(usize),
    Info(usize),
    Answers(usize),
    Fetch(usize),
    Raw,
}

#[derive(Debug)]
struct Input {
    purpose: Use,
    buf: BytesMut,
}

#[derive(Debug, Default)]
struct Output {
    chunks: VecDeque<Bytes>,
    fin: bool,
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

    fn accept(&mut self, readable: &mut BTreeSet<u64>) {
        for (dir, purpose) in [(Dir::Uni, Use::UniNew), (Dir::Bi, Use::BidiNew)] {
            while let Some(id) = self.conn.accept(dir) {
                let purpose = if self.web.is_some() { Use::Head } else { purpose };
                self.inputs.insert(id, Input { purpose, buf: BytesMut::new() });
                readable.insert(id);
            }
        }
    }

    fn read_all(&mut self, mut readable: BTreeSet<u64>) {
        if self.reads_groups {
            readable.append(&mut self.unread);
        }
        // Groups first: what a FIN on a control stream says of them can be judged only then.
        let is_uni = |id: &u64| id & 2 != 0;
        let (uni, bidi): (Vec<u64>, Vec<u64>) = readable.into_iter().partition(is_uni);
        for id in uni.into_iter().chain(bidi) {
            if self.reads_groups || !self.is_content(id) {
                self.read(id);
            } else {
                self.unread.insert(id);
            }
        }
    }

    fn is_content(&self, id: u64) -> bool {
        // The relay's SETTINGS and SETUP are its first streams, and no content.
        let ahead = u64::from(self.web.is_some()) + u64::from(self.version >= Version::Lite05);
        let is_setup = id / 4 < ahead;
        let is_fetch =
            self.inputs.get(&id).is_some_and(|input| matches!(input.purpose, Use::Fetch(_)));
        is_fetch || (id & 2 != 0 && !is_setup)
    }

    fn read(&mut self, id: u64) {
        let Some(mut input) = self.inputs.remove(&id) else { return };
        let Some(end) = self.conn.read(id, &mut input.buf) else { return };
        let end = end.map(|end| match end {
            End::Finished => End::Finished,
            End::Reset(with) => End::Reset(self.meant(id, with)),
        });
        while self.step(id, &mut input, end) {}
        match end {
            None => drop(self.inputs.insert(id, input)),
            Some(end) => self.input_ended(id, input, end),
        }
    }

    fn open(&mut self, dir: Dir, purpose: Use) -> u64 {
        let id = self.try_open(dir).expect("the relay grants a stream");
        if dir == Dir::Bi {
            self.inputs.insert(id, Input { purpose, buf: BytesMut::new() });
        }
        id
    }

    /// A stream of the session, if the relay grants one.
    fn try_open(&mut self, dir: Dir) -> Option<u64> {
        let id = self.open_plain(dir)?;
        if let Some(prefix) = self.stream_prefix(dir) {
            self.send(id, &prefix, false);
        }
        Some(id)
    }

    fn send(&mut self, id: u64, bytes: &[u8], fin: bool) {
        self.is_dirty = true;
        let output = self.outputs.entry(id).or_default();
        if !bytes.is_empty() {
            output.chunks.push_back(Bytes::copy_from_slice(bytes));
        }
        output.fin |= fin;
        self.flush(id);
    }

    fn flush(&mut self, id: u64) {
        let Some(output) = self.outputs.get_mut(&id) else { return };
        while let Some(chunk) = output.chunks.front_mut() {
            match self.conn.write(id, chunk) {
                Written::Taken(taken) if taken == chunk.len() => drop(output.chunks.pop_front()),
                Written::Taken(taken) => chunk.advance(taken),
                Written::Blocked => return,
                Written::Gone => {
                    self.outputs.remove(&id);
                    return;
                }
            }
        }
        if output.fin {
            self.conn.finish(id);
            self.outputs.remove(&id);
        }
    }

    fn reset(&mut self, id: u64, with: u64) {
        self.outputs.remove(&id);
        let with = self.sent(with);
        self.conn.reset(id, with);
    }

    fn stop(&mut self, id: u64, with: u64) {
        let with = self.sent(with);
        self.conn.stop(id, with);
    }

    fn refuse(&mut self, id: u64, with: u64) {
        self.reset(id, with);
        self.stop(id, with);
    }

    fn fault(&mut self, what: String) {
        self.faults.push(format!("{}: {what}", self.name));
    }

    // ---- what the relay says ----

    /// Takes one message; true if there may be another.
    fn step(&mut self, id: u64, input: &mut Input, end: Option<End>) -> bool {
        match input.purpose {
            Use::Head => self.take_head(id, input),
            Use::Control => self.take_control(&mut input.buf),
            Use::Session => self.take_session(&mut input.buf),
            Use::UniNew => self.take_uni(id, input),
            Use::RelaySetup => self.take_relay_setup(input),
            Use::SessionStream => self.take_server_setup(&mut input.buf),
            Use::Group { subscription, sequence } => {
                self.take_frames(subscription, sequence, &mut input.buf);
                false
            }
            Use::BidiNew => self.take_request(id, input),
            Use::Upstream => self.take_update(id, &mut input.buf),
            Use::Listen(index) => self.take_announcement(index, &mut input.buf),
            Use::Info(index) => self.take_info(id, index, &mut input.buf, end),
            Use::Answers(index) => self.take_answer(index, &mut input.buf),
            Use::Fetch(index) => {
                let known = &mut self.fetches[index];
                known.is_touched = true;
                known.seen.take_frames(self.version, self.now, &mut input.buf);
                false
            }
            Use::Raw => {
                if let Some(raw) = self.raws.get_mut(&id) {
                    raw.received.extend_from_slice(&input.buf);
                }
                input.buf.clear();
                false
            }
            Use::AnnounceServed | Use::TrackAsked | Use::FetchAsked => {
                if !input.buf.is_empty() {
                    self.fault(format!("bytes after the request on stream {id}"));
                    input.buf.clear();
                }
                false
            }
            Use::Ignored => {
                input.buf.clear();
                false
            }
        }
    }

    fn take_uni(&mut self, id: u64, input: &mut Input) -> bool {
        let Some((kind, used)) = decode_varint(&input.buf) else { return false };
        match UniType::from_u64(kind) {
            Some(UniType::Setup) if self.version >= Version::Lite05 => {
                if self.relay_setup.is_some() {
                    self.fault("a second SETUP".to_owned());
                }
                input.buf.advance(used);
                input.purpose = Use::RelaySetup;
                true
            }
            Some(UniType::Group) => {
                let header = match GroupHeader::take(self.version, &input.buf[used..]) {
                    Ok(Some((header, more))) => {
                        input.buf.advance(used + more);
                        header
                    }
                    Ok(None) => return false,
                    Err(error) => {
                        self.fault(format!("group header: {error}"));
                        return false;
                    }
                };
                input.purpose = self.group_began(id, header);
                true
            }
            _ => {
                self.fault(format!("unidirectional stream of type {kind}"));
                input.purpose = Use::Ignored;
                true
            }
        }
    }

    fn take_request(&mut self, id: u64, input: &mut Input) -> bool {
        let Some((kind, head)) = decode_varint(&input.buf) else { return false };
        let kind = BidiType::from_u64(kind).filter(|kind| kind.supported(self.version));
        let taken = split_message(&input.buf[head..], CONTROL_MESSAGE_BYTES_MAX);
        let (body, used) = match taken {
            Ok(Some((body, used))) => (Bytes::copy_from_slice(body), head + used),
            Ok(None) => return false,
            Err(error) => {
                self.fault(format!("request: {error}"));
                return false;
            }
        };
        input.buf.advance(used);
        let purpose = match kind {
            Some(BidiType::Announce) => self.announce_asked(id, &body),
            Some(BidiType::Track) => self.track_asked(id, &body),
            Some(BidiType::Subscribe) => self.subscribe_asked(id, &body),
            Some(BidiType::Fetch) => self.fetch_asked(id, &body),
            kind => Err(format!("request {kind:?}")),
        };
        match purpose {
            Ok(purpose) => input.purpose = purpose,
            Err(what) => {
                self.fault(what);
                input.purpose = Use::Ignored;
            }
        }
        true
    }

    fn input_ended(&mut self, id: u64, input: Input, end: End) {
        let is_clean = input.buf.is_empty();
        match input.purpose {
            Use::Control => self.critical_ended("the control stream"),
            Use::Session => self.critical_ended("the session's stream"),
            Use::UniNew | Use::Head if end == End::Finished => {
                self.fault(format!("stream {id} ended before its header"));
            }
            Use::RelaySetup => self.fault("SETUP cut short".to_owned()),
            Use::Group { subscription, sequence } => {
                self.log.push(format!("GROUP {subscription} {sequence} {end:?}"));
                if end == End::Finished && !is_clean {
                    self.fault(format!("FIN within a frame of group {sequence}"));
                }
                let known = &mut self.subscriptions[subscription];
                known.touched.insert(sequence);
                if let Some(seen) = known.groups.get_mut(&sequence) {
                    (seen.end, seen.ended_at) = (Some(end), Some(self.now));
                }
            }
            Use::Upstream => {
                self.log.push(format!("UNSUBSCRIBE {end:?}"));
                let Some(upstream) = self.upstreams.remove(&id) else { return };
                self.told(Asked::Unsubscribe);
                for group in upstream.groups.values().filter(|group| !group.is_closed) {
                    if let Some(stream) = group.stream {
                        self.reset(stream, StreamCode::CANCEL.0);
                    }
                }
                if !upstream.fin_sent {
                    self.send(id, &[], true);
                }
            }
            Use::AnnounceServed => drop(self.feeds.remove(&id)),
            Use::Listen(index) => {
                self.log.push(format!("announce stream {index} {end:?}"));
                self.listens[index].end = Some(end);
            }
            Use::Info(index) => {
                if let End::Reset(with) = end {
                    self.log.push(format!("TRACK {index} refused {with}"));
                    self.infos[index].answer.get_or_insert(Err(with));
                }
            }
            Use::Answers(index) => {
                self.log.push(format!("subscription {index} {end:?}"));
                let known = &mut self.subscriptions[index];
                known.end = Some(end);
                known.has_ended = true;
                let has_left = known.has_left;
                known.touched.extend(known.groups.keys().copied());
                let open: Vec<u64> =
                    known.groups.iter().filter(|(_, g)| g.end.is_none()).map(|(s, _)| *s).collect();
                let lacks_end = self.version >= Version::Lite05 && known.track_end.is_none();
                if end == End::Finished && !has_left {
                    if !open.is_empty() && self.reads_groups {
                        self.fault(format!(
                            "FIN of subscription {index} with groups {open:?} open"
                        ));
                    }
                    if lacks_end {
                        self.fault(format!("FIN of subscription {index} without END"));
                    }
                }
                // Answered, or the relay would hold the stream for ever.
                if !has_left {
                    self.send(id, &[], true);
                }
            }
            Use::FetchAsked => self.fetch_ended(id, end),
            Use::Fetch(index) => {
                self.log.push(format!("fetch {index} {end:?}"));
                if end == End::Finished && !is_clean {
                    self.fault(format!("FIN within a frame of fetch {index}"));
                }
                let known = &mut self.fetches[index];
                known.is_touched = true;
                (known.seen.end, known.seen.ended_at) = (Some(end), Some(self.now));
                // The released clients differ in how they say that they are done.
                match self.version {
                    Version::Lite06 => self.reset(id, StreamCode::CANCEL.0),
                    _ => self.send(id, &[], true),
                }
            }
            Use::Raw => {
                if let Some(raw) = self.raws.get_mut(&id) {
                    raw.end = Some(end);
                }
            }
            Use::SessionStream => self.fault(format!("the session stream ended: {end:?}")),
            Use::Head | Use::UniNew | Use::BidiNew | Use::TrackAsked | Use::Ignored => {}
        }
    }

    fn stopped(&mut self, id: u64, with: u64) {
        self.log.push(format!("stream {id} stopped {with}"));
        if let Some(raw) = self.raws.get_mut(&id) {
            raw.stopped = Some(with);
        }
        self.fetch_ended(id, End::Reset(with));
        self.reset(id, StreamCode::CANCEL.0);
        self.group_closed(id);
    }

    fn send_nonempty(&mut self, id: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.send(id, bytes, false);
        }
    }
}
