//! The turn: datagrams in, what came on group streams out again on a stream per viewer, datagrams
//! out. Beyond the head of each stream no byte of content is looked at.

pub mod requests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{Dir, StreamId};
use rustc_hash::FxHashMap;
use shardcast::limits::CONTROL_INPUT_BYTES_MAX;
use shardcast::mailbox::Post;
use shardcast::net::Datagrams;
use shardcast::quic::Config;
use shardcast::rt::Next;
use shardcast::wire::{
    DecodeError, GroupHeader, Path, SessionCode, Setup, StreamCode, SubscribeResponse, UniType,
    Version, encode_varint,
};

use crate::conn::{End, Event, ReadEnd};
use crate::endpoint::{ConnRef, Endpoint};
use crate::head::{self, Heads, UniHead};
use crate::tracks::Tracks;

/// How soon a full socket is tried again, as in the relay.
const RETRY_AFTER: Duration = Duration::from_micros(200);

/// Tells the server to end.
pub struct Stop;

/// What there was to do.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counters {
    pub groups_total: u64,
    pub copies_total: u64,
    /// Groups that a viewer did not get, because too many waited for a stream already.
    pub missed_copies_total: u64,
}

pub struct Server {
    endpoint: Endpoint,
    /// By connection slot.
    peers: Vec<Option<Peer>>,
    /// Who has announced a broadcast last.
    broadcasts: FxHashMap<Path, ConnRef>,
    tracks: Tracks,
    /// Streams that had more to read than one turn takes.
    unread: Vec<(ConnRef, StreamId)>,
    post: Post<Stop>,
    inbox: VecDeque<(usize, Stop)>,
    counters: Counters,
}

/// A connection whose handshake is complete.
struct Peer {
    version: Version,
    /// Streams that it may say more on.
    inputs: FxHashMap<StreamId, Input>,
    /// Bytes of messages that have not come as a whole, over all streams.
    partial_bytes: usize,
    /// Broadcasts that it has announced, by the number of their START, and the bytes of their paths.
    announced: FxHashMap<u64, Path>,
    announced_bytes: usize,
    starts: u64,
    is_asked: bool,
}

enum Input {
    /// What it is for has not come as a whole.
    Head(BytesMut),
    /// A group that comes in, and its copies that go out.
    Group(Vec<CopyOut>),
    /// The publisher's answer to our ANNOUNCE_REQUEST.
    Announcements {
        buf: BytesMut,
        has_ok: bool,
    },
    /// Answers to our SUBSCRIBE for this track: only their end matters.
    Answers(u64),
    /// A viewer's SUBSCRIBE for this track: only its end matters.
    Subscription(u64),
    Ignored,
}

struct CopyOut {
    conn: ConnRef,
    output: usize,
}

/// Why a client's connection ends.
struct Refusal(SessionCode, &'static str);

impl From<DecodeError> for Refusal {
    fn from(_: DecodeError) -> Refusal {
        Refusal(SessionCode::PROTOCOL_VIOLATION, "a message that cannot be read")
    }
}

impl Server {
    pub fn new(quic: &Config, seed: u64, post: Post<Stop>) -> Server {
        Server {
            endpoint: Endpoint::new(quic, seed),
            peers: Vec::new(),
            broadcasts: FxHashMap::default(),
            tracks: Tracks::default(),
            unread: Vec::new(),
            post,
            inbox: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    pub fn turn(&mut self, now: Instant, io: &mut impl Datagrams) -> Next {
        self.post.take(1, &mut self.inbox);
        if self.inbox.pop_front().is_some() {
            self.stop(now, io);
            return Next::Stop;
        }
        let more = io.receive(&mut |datagram| self.endpoint.receive(now, datagram));
        self.endpoint.fire_timers(now);
        for (name, stream) in std::mem::take(&mut self.unread) {
            if self.endpoint.touch(name).is_some() {
                self.readable(name.slot, stream);
            }
        }
        while let Some(slot) = self.endpoint.next_with_events() {
            while let Some(event) = self.endpoint.at(slot).and_then(|(_, conn)| conn.poll()) {
                match event {
                    Event::Connected { alpn } => self.connected(slot, &alpn),
                    Event::Readable(stream) => self.readable(slot, stream),
                    Event::Lost => self.gone(slot),
                }
            }
        }
        let unsent = self.endpoint.transmit(now, io);
        if more || !self.unread.is_empty() {
            return Next::More;
        }
        let retry = unsent.then(|| now + RETRY_AFTER);
        let timers = [retry, self.endpoint.next_timer()];
        timers.into_iter().flatten().min().map_or(Next::Idle, Next::Until)
    }

    fn stop(&mut self, now: Instant, io: &mut impl Datagrams) {
        for name in self.endpoint.all() {
            if let Some(conn) = self.endpoint.touch(name) {
                conn.close(SessionCode::NO_ERROR, "ceiling stopped");
            }
        }
        self.endpoint.transmit(now, io);
    }

    // ---- a client comes and goes ----

    fn connected(&mut self, slot: usize, alpn: &[u8]) {
        let Some((name, _)) = self.endpoint.at(slot) else { return };
        let versions = [Version::Lite06, Version::Lite05].into_iter();
        let version = versions.into_iter().find(|version| version.alpn().as_bytes() == alpn);
        let Some(version) = version else {
            return self.refuse(name, Refusal(SessionCode::VERSION, "unknown protocol"));
        };
        if self.peers.len() <= slot {
            self.peers.resize_with(slot + 1, || None);
        }
        self.peers[slot] = Some(Peer {
            version,
            inputs: FxHashMap::default(),
            partial_bytes: 0,
            announced: FxHashMap::default(),
            announced_bytes: 0,
            starts: 0,
            is_asked: false,
        });
        let mut setup = Vec::new();
        encode_varint(UniType::Setup as u64, &mut setup);
        Setup::default().encode(&mut setup);
        if let Some(conn) = self.endpoint.touch(name)
            && let Some(output) = conn.open_uni()
        {
            conn.write(output, &mut [setup.into()]);
            conn.end(output, End::Finish);
        }
    }

    /// Ends a connection because of what its client did.
    fn refuse(&mut self, name: ConnRef, Refusal(code, reason): Refusal) {
        if let Some(conn) = self.endpoint.touch(name) {
            conn.close(code, reason);
        }
        self.gone(name.slot);
    }

    /// Forgets a client and what it was to others.
    fn gone(&mut self, slot: usize) {
        let Some((name, _)) = self.endpoint.at(slot) else { return };
        let Some(peer) = self.peers.get_mut(slot).and_then(Option::take) else { return };
        for (stream, input) in peer.inputs {
            match input {
                Input::Group(copies) => {
                    self.forward(copies, Bytes::new(), ReadEnd::Reset(StreamCode::CANCEL));
                }
                Input::Answers(track) => self.track_over(track),
                Input::Subscription(track) => self.leave(track, name, stream),
                Input::Head(_) | Input::Announcements { .. } | Input::Ignored => {}
            }
        }
        for path in peer.announced.into_values() {
            self.withdraw(name, &path);
        }
    }

    fn withdraw(&mut self, name: ConnRef, path: &Path) {
        if self.broadcasts.get(path) == Some(&name) {
            self.broadcasts.remove(path);
        }
        self.end_tracks(name, path);
    }

    fn end_tracks(&mut self, publisher: ConnRef, broadcast: &Path) {
        for track in self.tracks.of(publisher, broadcast) {
            self.track_over(track);
        }
    }

    // ---- what comes on streams ----

    fn readable(&mut self, slot: usize, stream: StreamId) {
        let Some((name, conn)) = self.endpoint.at(slot) else { return };
        let Some((bytes, end)) = conn.read(stream) else { return };
        let Some(peer) = self.peers.get_mut(slot).and_then(Option::as_mut) else { return };
        if end == ReadEnd::More {
            self.unread.push((name, stream));
        }
        let input = peer.inputs.remove(&stream).unwrap_or(Input::Head(BytesMut::new()));
        peer.partial_bytes -= input.partial_bytes();
        match self.take(name, stream, input, bytes, end) {
            Ok(Some(input)) => self.keep(name, stream, input),
            Ok(None) => {}
            Err(refusal) => self.refuse(name, refusal),
        }
    }

    fn keep(&mut self, name: ConnRef, stream: StreamId, input: Input) {
        let Some(peer) = self.peers[name.slot].as_mut() else { return };
        peer.partial_bytes += input.partial_bytes();
        let is_too_much = peer.partial_bytes > CONTROL_INPUT_BYTES_MAX;
        peer.inputs.insert(stream, input);
        if is_too_much {
            self.refuse(
                name,
                Refusal(SessionCode::PROTOCOL_VIOLATION, "too many partial messages"),
            );
        }
    }

    /// Deals with what has come; returns what is to be known of the stream when more comes.
    fn take(
        &mut self,
        name: ConnRef,
        stream: StreamId,
        input: Input,
        bytes: Bytes,
        end: ReadEnd,
    ) -> Result<Option<Input>, Refusal> {
        let is_over = matches!(end, ReadEnd::Finished | ReadEnd::Reset(_));
        let input = match input {
            Input::Group(copies) => return Ok(self.forward(copies, bytes, end)),
            Input::Head(head) => {
                let head = match head.is_empty() {
                    true => bytes,
                    false => [head.freeze(), bytes].concat().into(),
                };
                return match stream.dir() {
                    Dir::Uni => self.uni(name, stream, head, end),
                    Dir::Bi => self.request(name, stream, head, is_over),
                };
            }
            Input::Announcements { mut buf, has_ok } => {
                buf.extend_from_slice(&bytes);
                self.announcements(name, buf, has_ok)?
            }
            Input::Answers(track) if is_over => {
                self.track_over(track);
                Input::Ignored
            }
            Input::Subscription(track) if is_over => {
                self.leave(track, name, stream);
                Input::Ignored
            }
            other => other,
        };
        Ok((!is_over).then_some(input))
    }

    fn uni(
        &mut self,
        name: ConnRef,
        stream: StreamId,
        bytes: Bytes,
        end: ReadEnd,
    ) -> Result<Option<Input>, Refusal> {
        match head::take(self.version(name), &bytes)? {
            // Cut off before it said what it is.
            None if end != ReadEnd::Pending => Ok(None),
            None => Ok(Some(Input::Head(BytesMut::from(&bytes[..])))),
            Some(UniHead::Group(header, used)) => {
                Ok(self.begin(name, stream, header, bytes.slice(used..), end))
            }
            Some(UniHead::Setup(body)) => {
                self.introduced(name, &Setup::decode(&body)?)?;
                Ok(None)
            }
            Some(UniHead::Unknown) => {
                self.stop_reading(name, stream);
                Ok(None)
            }
        }
    }

    // ---- content ----

    /// A group begins: its head is read, and all of it that has come is in `first`.
    fn begin(
        &mut self,
        name: ConnRef,
        stream: StreamId,
        header: GroupHeader,
        first: Bytes,
        end: ReadEnd,
    ) -> Option<Input> {
        let track = self.tracks.get(header.subscribe_id);
        let Some(track) = track.filter(|track| track.publisher == name) else {
            self.stop_reading(name, stream);
            return None;
        };
        self.counters.groups_total += 1;
        let end = copied(end);
        let mut heads = Heads::of(header);
        let mut copies = Vec::new();
        for viewer in track.viewers() {
            let Some(conn) = self.endpoint.touch(viewer.conn) else { continue };
            if !std::mem::replace(&mut viewer.has_begun, true) {
                let mut start = Vec::new();
                SubscribeResponse::Start { group: header.sequence }
                    .encode(viewer.version, &mut start);
                conn.write(viewer.output, &mut [start.into()]);
            }
            let Some(output) = conn.open_uni() else {
                self.counters.missed_copies_total += 1;
                continue;
            };
            self.counters.copies_total += 1;
            let head = heads.for_viewer(viewer.version, viewer.id);
            conn.write(output, &mut [head, first.clone()]);
            match end {
                Some(end) => conn.end(output, end),
                None => copies.push(CopyOut { conn: viewer.conn, output }),
            }
        }
        end.is_none().then_some(Input::Group(copies))
    }

    fn forward(&mut self, copies: Vec<CopyOut>, bytes: Bytes, end: ReadEnd) -> Option<Input> {
        let end = copied(end);
        for copy in &copies {
            let Some(conn) = self.endpoint.touch(copy.conn) else { continue };
            if !bytes.is_empty() {
                conn.write(copy.output, &mut [bytes.clone()]);
            }
            if let Some(end) = end {
                conn.end(copy.output, end);
            }
        }
        end.is_none().then_some(Input::Group(copies))
    }

    // ---- small things ----

    fn version(&self, name: ConnRef) -> Version {
        let peer = self.peers.get(name.slot).and_then(Option::as_ref);
        peer.map_or(Version::Lite06, |peer| peer.version)
    }

    fn stop_reading(&mut self, name: ConnRef, stream: StreamId) {
        if let Some(conn) = self.endpoint.touch(name) {
            conn.stop(stream, StreamCode::CANCEL);
        }
    }

    /// Ends both directions of a stream that is not served.
    fn decline(&mut self, name: ConnRef, stream: StreamId, code: StreamCode) {
        let Some(conn) = self.endpoint.touch(name) else { return };
        let output = conn.adopt(stream);
        conn.end(output, End::Reset(code));
        conn.stop(stream, code);
    }
}

impl Input {
    /// Bytes of it that wait for others.
    fn partial_bytes(&self) -> usize {
        match self {
            Input::Head(buf) | Input::Announcements { buf, .. } => buf.len(),
            _ => 0,
        }
    }
}

/// How copies end when their group does.
fn copied(end: ReadEnd) -> Option<End> {
    match end {
        ReadEnd::Pending | ReadEnd::More => None,
        ReadEnd::Finished => Some(End::Finish),
        ReadEnd::Reset(code) => Some(End::Reset(code)),
    }
}
