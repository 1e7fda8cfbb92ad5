//! One moq-lite peer as a state machine: stream events in, stream writes and effects out.
//!
//! Both roles on every session: `announce_in`, `pull` and `fetch_in` ask the peer for what it
//! publishes, `announce_out`, `serve` and `fetch_out` give it what others publish. A session knows
//! neither QUIC nor other sessions; what it needs of the world it states as an [`Effect`].

mod announce_in;
mod announce_out;
mod control;
mod counts;
mod datagrams;
mod effect;
mod entry;
#[cfg(test)]
mod fake;
mod fetch_in;
mod fetch_out;
mod fetch_turns;
mod goaway;
mod info_out;
mod legacy;
mod order;
mod outflow;
mod policy;
mod probe;
mod pull;
mod request;
mod serve;
pub mod streams;

pub use announce_in::RouteIds;
pub use announce_out::Round;
pub use counts::{Class, Control, Counts, Traffic};
pub use effect::Effect;
pub use entry::{Call, Pass};
pub use policy::{Names, Policy};
pub use serve::Service;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use rustc_hash::FxHashMap;
use slab::Slab;

use crate::access::{Refusal, Target};
use crate::bucket::Bucket;
use crate::limits::{ANNOUNCE_READ_BYTES, SETUP_TIMEOUT};
use crate::route::{SessionRef, Trust};
use crate::track::PullRef;
use crate::wire::{
    CONTROL_MESSAGE_BYTES_MAX, GROUP_HEADER_BYTES_MAX, Path, Protocol, Role, SessionCode, Setup,
    StreamCode, Version,
};
use announce_in::AnnounceSource;
use announce_out::AnnounceFeed;
use control::Unsent;
use fetch_in::FetchIn;
use fetch_out::{FetchOut, FetchQueued};
use fetch_turns::FetchTurns;
use goaway::Parting;
use probe::Reports;
use pull::{GroupIn, Pull};
use serve::Served;
use streams::{Estimate, ReadEnd, StreamId, Streams};

/// Enough for the type and header of a group stream.
const UNI_HEADER_BYTES: usize = 8 + 8 + GROUP_HEADER_BYTES_MAX;

/// Reads of one control stream in one turn, each of at most one message's size.
const READS_PER_TURN: usize = 16;

/// What surrounds a session while it handles one event.
pub struct Context<'a, S> {
    pub now: Instant,
    pub streams: &'a mut S,
    pub effects: &'a mut Vec<Effect>,
    pub route_ids: &'a mut RouteIds,
    /// Milliseconds since the relay started: the timestamp of frames that carry none.
    pub arrival_ms: u64,
    /// So much waits for other shards already that nothing is to be read that makes it more.
    pub is_crowded: bool,
    /// Changes of routes that may be taken in before others have their turn.
    pub changes_left: usize,
    /// Messages, and groups on their way to the peer, that are looked at meanwhile.
    pub visits: u32,
    pub counts: &'a mut Counts,
}

/// What one stream is for.
#[derive(Debug)]
enum Use {
    /// A bidirectional stream of the peer whose first message is not complete.
    Request,
    AnnounceFeed,
    Subscription,
    /// A TRACK request that is not answered yet.
    InfoRequest,
    /// A FETCH whose answer is not complete.
    FetchRequest,
    Goaway,
    Probe,
    /// A unidirectional stream of the peer whose type or header is not complete.
    UniHeader,
    Setup,
    /// The first stream of a lite-01 or 02 peer, before its SETUP and after it.
    ClientSetup,
    SessionStream,
    GroupIn(Box<GroupIn>),
    /// A group that is asked for and not wanted yet, and how the read of its header left the stream.
    EarlyGroup(ReadEnd),
    AnnounceSource(Box<AnnounceSource>),
    PullInfo {
        pull: usize,
    },
    PullSubscription {
        pull: usize,
    },
    FetchReply(Box<FetchIn>),
    /// Nothing more is expected; what comes is read and dropped.
    Draining,
}

impl Use {
    /// What the bytes of such a stream are about, unless they are groups.
    fn class(&self) -> Option<Class> {
        match self {
            Use::AnnounceFeed | Use::AnnounceSource(_) => Some(Class::Announce),
            Use::Subscription | Use::PullSubscription { .. } => Some(Class::Subscribe),
            Use::InfoRequest | Use::PullInfo { .. } => Some(Class::TrackInfo),
            Use::FetchRequest => Some(Class::Fetch),
            Use::Goaway => Some(Class::Goaway),
            Use::Probe => Some(Class::Probe),
            Use::Setup | Use::ClientSetup | Use::SessionStream => Some(Class::Session),
            Use::Request | Use::Draining => Some(Class::Other),
            Use::UniHeader | Use::EarlyGroup(_) | Use::GroupIn(_) | Use::FetchReply(_) => None,
        }
    }
}

#[derive(Debug)]
struct Stream {
    purpose: Use,
    /// Bytes of an incomplete message.
    buf: BytesMut,
}

/// What became of a stream after one look at its buffer.
enum Step {
    /// It needs more bytes.
    Wait,
    /// A message was taken, or the purpose became known: look again.
    Again,
    /// The session is done with it.
    Forget,
}

#[derive(Debug)]
pub struct Session {
    version: Version,
    me: SessionRef,
    policy: Arc<Policy>,
    /// All paths on the wire are relative to its root.
    pass: Pass,
    /// The peer is the other process of this relay, of which one takes over from the other.
    is_twin: bool,
    is_admitted: bool,
    /// Where it wants to be by its URL, until that is used.
    dialled: Target,
    /// What this relay has dialled it with, if it has.
    call: Option<Call>,
    /// Until when it is to be known whether the peer may come in.
    entry_deadline: Option<Instant>,
    /// The peer's SETUP, while that is not used.
    setup: Option<Setup>,
    role: Role,
    /// When it began, until the peer is sent its first group.
    joins_since: Option<Instant>,
    /// Prefixes whose announcements are to be asked for as soon as there is credit for a stream.
    unasked: Vec<Path>,
    trust: Trust,
    /// In hop chains and for split horizon: what the peer declared, or a number private to us.
    identity: u64,
    /// First hop given to broadcasts whose publisher has no name.
    stamp: u64,
    /// Price of this link, for routes of lite-06 peers.
    price: u64,
    /// The peer's SETUP has been read, or its version has none, and it has been let in.
    is_ready: bool,
    /// Why this side closed the session.
    failure: Option<Cow<'static, str>>,
    setup_seen: bool,
    owes_setup: bool,
    /// The first bidirectional stream of a lite-01 or 02 peer has not come.
    lacks_session_stream: bool,
    setup_deadline: Option<Instant>,
    /// The earliest deadline of a pull, or one that has been met since.
    pull_deadline: Option<Instant>,
    goaway_seen: bool,
    /// The peer has sent GOAWAY.
    is_leaving: bool,
    /// Requests that arrived before the peer's SETUP.
    held: Vec<StreamId>,
    inputs: FxHashMap<StreamId, Stream>,
    /// Bytes in the buffers of `inputs`.
    input_bytes: usize,
    /// Group streams that go to the peer, with the subscription that each belongs to.
    outputs: FxHashMap<StreamId, StreamId>,
    unsent: FxHashMap<StreamId, Unsent>,
    /// Bytes of `unsent` that count.
    unsent_bytes: usize,
    feeds: BTreeMap<StreamId, AnnounceFeed>,
    /// The one that had its turn last.
    last_fed: StreamId,
    /// Announcement bytes that the peer may be sent while it watches, and when there are some again.
    telling: Bucket,
    telling_deadline: Option<Instant>,
    /// When it may be told of a broadcast that has taken the place of one that has ended.
    ended_deadline: Option<Instant>,
    served: FxHashMap<StreamId, Served>,
    /// Subscriptions by broadcast, to count those.
    watched: FxHashMap<Path, u32>,
    /// Groups on their way, of all subscriptions.
    open_groups: usize,
    /// There are so many that some subscription waits for others.
    crowded: bool,
    /// Counts what takes turns.
    turn: usize,
    fetches_queued: BTreeMap<StreamId, FetchQueued>,
    fetches_out: FxHashMap<StreamId, FetchOut>,
    allowance: Bucket,
    probes: FxHashMap<StreamId, Reports>,
    /// When the link is next to be looked at for them.
    probe_deadline: Option<Instant>,
    /// What was believed of the link at the last look.
    link: Estimate,
    /// Subscriptions with groups that wait for stream credit; the first one is given the next stream.
    starved: VecDeque<StreamId>,
    announcements: usize,
    announced_bytes: usize,
    /// Changes of routes that the peer may bring; when there are some again, and what is not read until then.
    hearing: Bucket,
    hearing_deadline: Option<Instant>,
    unheard: BTreeSet<StreamId>,
    /// The one of these that had its turn last.
    heard: StreamId,
    /// It is to be asked to move elsewhere, or was.
    parting: Parting,
    /// It has announced a path that was too long, and more than it may.
    has_long_path: bool,
    has_surplus: bool,
    /// What it may not it has announced, and asked for.
    has_overstepped: Overstepped,
    pulls: Slab<Pull>,
    pull_keys: FxHashMap<PullRef, usize>,
    pull_ids: FxHashMap<u64, usize>,
    next_subscribe_id: u64,
    /// Those that are open to the peer.
    subscriptions: usize,
    fetch_turns: FetchTurns,
    scratch: Vec<u8>,
}

/// How a peer has gone beyond what it may.
#[derive(Debug, Default)]
struct Overstepped {
    by_publishing: bool,
    by_asking: bool,
}

impl Session {
    /// A session on a connection whose protocol is known. Where the transport has a URL the peer was let in
    /// by that.
    pub fn new(
        protocol: Protocol,
        pass: Option<Pass>,
        me: SessionRef,
        policy: Arc<Policy>,
        now: Instant,
        names: Names,
    ) -> Session {
        let version = match protocol {
            Protocol::Version(version) => version,
            // Until the peer's SETUP tells which of the two; nothing is read before.
            Protocol::Legacy => Version::Lite02,
        };
        let has_setup = protocol == Protocol::Legacy || version >= Version::Lite05;
        let Names { trust, identity, stamp } = names;
        Session {
            version,
            me,
            policy,
            is_twin: false,
            is_admitted: pass.is_some(),
            pass: pass.unwrap_or_default(),
            dialled: Target::default(),
            call: None,
            entry_deadline: None,
            setup: None,
            role: Role::Both,
            joins_since: Some(now),
            unasked: Vec::new(),
            trust,
            identity,
            stamp,
            price: 1,
            is_ready: false,
            failure: None,
            setup_seen: false,
            owes_setup: version >= Version::Lite05,
            lacks_session_stream: protocol == Protocol::Legacy,
            setup_deadline: has_setup.then(|| now + SETUP_TIMEOUT),
            pull_deadline: None,
            goaway_seen: false,
            is_leaving: false,
            held: Vec::new(),
            inputs: FxHashMap::default(),
            input_bytes: 0,
            outputs: FxHashMap::default(),
            unsent: FxHashMap::default(),
            unsent_bytes: 0,
            feeds: BTreeMap::new(),
            last_fed: StreamId(0),
            telling: Bucket::default(),
            telling_deadline: None,
            ended_deadline: None,
            served: FxHashMap::default(),
            watched: FxHashMap::default(),
            open_groups: 0,
            crowded: false,
            turn: 0,
            fetches_queued: BTreeMap::new(),
            fetches_out: FxHashMap::default(),
            allowance: Bucket::default(),
            probes: FxHashMap::default(),
            probe_deadline: None,
            link: Estimate::default(),
            starved: VecDeque::new(),
            announcements: 0,
            announced_bytes: 0,
            hearing: Bucket::default(),
            hearing_deadline: None,
            unheard: BTreeSet::new(),
            heard: StreamId(0),
            parting: Parting::default(),
            has_long_path: false,
            has_surplus: false,
            has_overstepped: Overstepped::default(),
            pulls: Slab::new(),
            pull_keys: FxHashMap::default(),
            pull_ids: FxHashMap::default(),
            next_subscribe_id: 0,
            subscriptions: 0,
            fetch_turns: FetchTurns::default(),
            scratch: Vec::new(),
        }
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// Why this side has closed the session, if it has. Nothing more is to be done with it.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The transport is up.
    pub fn start<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        // First: a peer that was dialled serves nothing before it has read that.
        self.send_setup(cx);
        if self.asks_at_once() {
            self.unasked = self.pass.admission.grant.publish_heads();
            self.ask_for_announcements(cx);
        }
        // Without a SETUP that is to come, all is known.
        if self.setup_deadline.is_none() {
            self.introduced(Setup::default(), cx);
        }
    }

    /// The next moment at which [`Session::timeout`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.setup_deadline,
            self.entry_deadline,
            self.pass.ends_at,
            self.pull_deadline,
            self.fetch_turns.deadline(),
            self.probe_deadline,
            self.hearing_deadline,
            self.telling_deadline,
            self.ended_deadline,
            self.parting_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    pub fn timeout<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        if self.setup_deadline.is_some_and(|deadline| deadline <= cx.now) {
            return self.fail(SessionCode::CONTROL_TIMEOUT, "no SETUP in time", cx);
        }
        if self.entry_deadline.is_some_and(|deadline| deadline <= cx.now) {
            return self.turn_away(&Refusal::ServerAway, cx);
        }
        if self.pass.ends_at.is_some_and(|at| at <= cx.now) {
            let at = self.pass.admission.expires.unwrap_or_default();
            return self.turn_away(&Refusal::Expired { at }, cx);
        }
        self.pull_timeouts(cx);
        self.fetch_timeouts(cx);
        self.probe_timeout(cx);
        self.parting_timeout(cx);
        self.hearing_timeout(cx);
        for deadline in [&mut self.telling_deadline, &mut self.ended_deadline] {
            if deadline.take_if(|deadline| *deadline <= cx.now).is_some() {
                cx.effects.push(Effect::Listening);
            }
        }
    }

    /// The peer opened a stream.
    pub fn opened<S: Streams>(&mut self, id: StreamId, cx: &mut Context<'_, S>) {
        if self.failure.is_some() {
            return;
        }
        let purpose = match id.is_uni() {
            true => Use::UniHeader,
            false if self.is_ready => Use::Request,
            false if std::mem::take(&mut self.lacks_session_stream) => Use::ClientSetup,
            false => return self.held.push(id),
        };
        self.inputs.insert(id, Stream { purpose, buf: BytesMut::new() });
        self.readable(id, cx);
    }

    pub fn readable<S: Streams>(&mut self, id: StreamId, cx: &mut Context<'_, S>) {
        let Some(mut stream) = self.inputs.remove(&id) else { return };
        self.input_bytes -= stream.buf.len();
        for _ in 0..READS_PER_TURN {
            if self.failure.is_some() {
                return;
            }
            match stream.purpose {
                Use::GroupIn(group) => return self.read_group(id, group, &[], ReadEnd::More, cx),
                Use::FetchReply(fetch) => return self.read_fetch(id, fetch, cx),
                _ if !self.may_read(id, &stream, cx) => return self.keep_input(id, stream, cx),
                _ => {}
            }
            // Of a group stream, only the header passes through this buffer.
            let most = match stream.purpose {
                Use::UniHeader => UNI_HEADER_BYTES,
                Use::AnnounceSource(_) => ANNOUNCE_READ_BYTES,
                _ => CONTROL_MESSAGE_BYTES_MAX,
            };
            let buf = &mut stream.buf;
            let before = buf.len();
            let end = cx.streams.read(id, most, &mut |part| buf.extend_from_slice(part));
            let read = buf.len() - before;
            let mut class = stream.purpose.class();
            let is_kept = loop {
                let step = self.step(id, &mut stream, end, cx);
                // What a stream is for may show, and be over, in what was read at once.
                class = stream.purpose.class().filter(|is| *is != Class::Other).or(class);
                match step {
                    Step::Again => {}
                    Step::Wait => break true,
                    Step::Forget => break false,
                }
            };
            if let Some(class) = class {
                cx.counts.control_received.note(class, read);
            }
            if !is_kept {
                return;
            }
            if let Use::EarlyGroup(left) = &mut stream.purpose {
                *left = end;
                return self.keep_input(id, stream, cx);
            }
            if let Use::GroupIn(group) = stream.purpose {
                return self.read_group(id, group, &stream.buf, end, cx);
            }
            match end {
                ReadEnd::More => {}
                ReadEnd::Pending => return self.keep_input(id, stream, cx),
                ReadEnd::Finished | ReadEnd::Reset(_) => {
                    return self.input_ended(id, stream, end, cx);
                }
            }
        }
        self.keep_input(id, stream, cx);
        cx.effects.push(Effect::Unread { stream: id });
    }

    /// Handles one message at the front of a stream's buffer.
    fn step<S: Streams>(
        &mut self,
        id: StreamId,
        stream: &mut Stream,
        end: ReadEnd,
        cx: &mut Context<'_, S>,
    ) -> Step {
        if self.failure.is_some() {
            return Step::Forget;
        }
        cx.visits += 1;
        match &mut stream.purpose {
            Use::Request => self.take_request(id, stream, end, cx),
            Use::UniHeader => self.take_uni_header(id, stream, cx),
            Use::Setup => self.take_setup(stream, cx),
            Use::ClientSetup => self.take_client_setup(id, stream, cx),
            Use::SessionStream => self.take_session_info(&mut stream.buf, cx),
            Use::Goaway => self.take_goaway(id, stream, cx),
            Use::Subscription => self.take_update(id, &mut stream.buf, cx),
            Use::AnnounceSource(source) => {
                let mut source = std::mem::take(source);
                let step = self.take_announcement(&mut source, &mut stream.buf, cx);
                stream.purpose = Use::AnnounceSource(source);
                step
            }
            Use::PullInfo { .. } => self.take_info(id, stream, cx),
            Use::PullSubscription { pull } => self.take_response(*pull, &mut stream.buf, cx),
            // The type is all that a peer has to say on a Probe stream (spec §3.8).
            Use::Probe if !stream.buf.is_empty() => {
                self.forget_probe(id);
                self.refuse(id, StreamCode::CANCEL, cx);
                Step::Forget
            }
            // One byte after a TRACK or FETCH request is one too many (spec §4.12).
            Use::InfoRequest if !stream.buf.is_empty() => {
                cx.effects.push(Effect::Left { key: id });
                self.refuse(id, StreamCode::CANCEL, cx);
                Step::Forget
            }
            Use::FetchRequest if !stream.buf.is_empty() => {
                self.drop_fetch(id, cx);
                self.refuse(id, StreamCode::CANCEL, cx);
                Step::Forget
            }
            Use::AnnounceFeed
            | Use::InfoRequest
            | Use::FetchRequest
            | Use::Probe
            | Use::Draining => {
                stream.buf.clear();
                Step::Wait
            }
            Use::EarlyGroup(_) | Use::GroupIn(_) | Use::FetchReply(_) => Step::Wait,
        }
    }

    /// The peer's direction of a stream is over.
    fn input_ended<S: Streams>(
        &mut self,
        id: StreamId,
        stream: Stream,
        end: ReadEnd,
        cx: &mut Context<'_, S>,
    ) {
        match stream.purpose {
            // It said too little to be answered.
            Use::Request => self.refuse(id, StreamCode::CANCEL, cx),
            // Our direction of it may still be open.
            Use::Draining if !id.is_uni() => self.finish(id, cx),
            Use::UniHeader
            | Use::EarlyGroup(_)
            | Use::GroupIn(_)
            | Use::FetchReply(_)
            | Use::Draining => {}
            Use::Setup | Use::ClientSetup => {
                self.fail(SessionCode::PROTOCOL_VIOLATION, "SETUP is cut short", cx);
            }
            Use::SessionStream => self.fail(SessionCode::NO_ERROR, "session stream ended", cx),
            Use::AnnounceFeed => {
                self.forget_feed(id, cx);
                self.finish(id, cx);
            }
            Use::Probe => {
                self.forget_probe(id);
                self.finish(id, cx);
            }
            Use::Subscription => self.unsubscribe(id, cx),
            Use::InfoRequest => {
                cx.effects.push(Effect::Left { key: id });
                self.refuse(id, StreamCode::CANCEL, cx);
            }
            Use::FetchRequest => self.fetch_request_ended(id, end, cx),
            Use::Goaway => self.finish(id, cx),
            Use::AnnounceSource(source) => self.source_ended(id, *source, &stream.buf, end, cx),
            Use::PullInfo { pull } => self.info_ended(id, pull, end, cx),
            Use::PullSubscription { pull } => self.responses_ended(pull, &stream.buf, end, cx),
        }
    }

    pub fn writable<S: Streams>(&mut self, id: StreamId, cx: &mut Context<'_, S>) {
        if let Some(&key) = self.outputs.get(&id) {
            self.unblock(key);
            cx.effects.push(Effect::Unblocked { key });
            return;
        }
        if self.unblock_fetch(id) {
            cx.effects.push(Effect::Unblocked { key: id });
            return;
        }
        if !self.resend(id, cx) {
            return;
        }
        if self.feeds.contains_key(&id) {
            cx.effects.push(Effect::Listening);
        }
        if let Some(Stream { purpose: Use::PullSubscription { pull }, .. }) = self.inputs.get(&id) {
            self.send_update(*pull, cx);
        }
        self.open_pulls(cx);
    }

    /// Everything on a stream that we finished was acknowledged.
    pub fn finished<S: Streams>(&mut self, id: StreamId, cx: &mut Context<'_, S>) {
        if let Some(key) = self.outputs.remove(&id) {
            if self.group_closed(key, id) {
                cx.effects.push(Effect::Unblocked { key });
            }
            self.thin_out(cx);
        }
    }

    /// The peer wants no more of a stream. A reset is due in any case: without it the transport
    /// would keep the stream for ever.
    pub fn stopped<S: Streams>(&mut self, id: StreamId, cx: &mut Context<'_, S>) {
        match self.inputs.get(&id).map(|stream| &stream.purpose) {
            Some(Use::Subscription) => {
                self.drain_input(id);
                self.unsubscribe(id, cx);
            }
            Some(Use::AnnounceFeed) => {
                self.drain_input(id);
                self.forget_feed(id, cx);
            }
            Some(Use::Probe) => {
                self.drain_input(id);
                self.forget_probe(id);
            }
            Some(Use::InfoRequest) => {
                self.forget_input(id);
                cx.effects.push(Effect::Left { key: id });
                cx.streams.stop(id, StreamCode::CANCEL);
            }
            Some(Use::FetchRequest) => {
                self.forget_input(id);
                cx.streams.stop(id, StreamCode::CANCEL);
            }
            _ => {}
        }
        // Also one whose peer has said its last word before.
        self.drop_fetch(id, cx);
        self.reset(id, StreamCode::CANCEL, cx);
        self.finished(id, cx);
    }

    /// The peer grants more streams of one kind.
    pub fn available<S: Streams>(&mut self, uni: bool, cx: &mut Context<'_, S>) {
        if !uni {
            self.send_goaway(cx);
            self.ask_for_announcements(cx);
            self.open_pulls(cx);
            return;
        }
        self.send_setup(cx);
        self.open_starved(cx);
    }

    fn fail<S: Streams>(
        &mut self,
        code: SessionCode,
        reason: impl Into<Cow<'static, str>>,
        cx: &mut Context<'_, S>,
    ) {
        let reason = reason.into();
        self.failure = Some(reason.clone());
        cx.streams.close(code, reason);
    }
}
