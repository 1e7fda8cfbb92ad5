//! A session of either role and any version, and just enough of a shard around it: what is announced
//! is in a directory, what is pulled and what others publish is in tracks, and both are served.
//!
//! The input is a [`Script`]: what the peer does, what the shard asks, what others do, and time.
//!
//! * However the bytes of a stream arrive, the peer is told the same on every stream, where it is not
//!   its own groups that it is given, and nothing was crowded.
//! * The session does with its streams only what a transport allows (`link.rs`).
//! * It is closed when it says that it has failed, and only then.
//! * A deadline that has been met is not asked for again.
//! * Nothing comes of a pull that has failed.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shardcast::access::{self, Access, Grant, Token};
use shardcast::limits::ANNOUNCE_VISITS_PER_LISTENER;
use shardcast::route::{Directory, Gone, Route, RouteId, SessionRef, Trust};
use shardcast::secret::Secret;
use shardcast::session::streams::{Estimate, ReadEnd, StreamId};
use shardcast::session::{
    Context, Counts, Effect, Names, Pass, Policy, RouteIds, Service, Session,
};
use shardcast::track::content::{Applied, Content};
use shardcast::track::fetch::{Ask, Asker, FetchId};
use shardcast::track::group::{GroupEnd, Marks, Opening, Piece};
use shardcast::track::scan::FrameScanner;
use shardcast::track::serve::PullCommand;
use shardcast::track::{Datagram, Feed, Fetched, PullRef, TrackRef};
use shardcast::wire::{
    Cost, Hops, Path, Preferences, Protocol, Reader, StreamCode, TrackInfo, Version,
};

pub use crate::honest::seeds;
use crate::link::{Link, Told};
use crate::random::{Random, pieces};
use crate::script::{Script, Step};
use crate::trace::{Trace, processor_time};

/// What a step of a script is.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Kind {
    /// The peer opens a stream and says something.
    OpenBidi,
    OpenUni,
    /// It says more: on a stream of its own, or on one of the session's.
    Say,
    Finish,
    Reset,
    /// It wants no more of what the session says.
    Stop,
    /// It takes more bytes, or grants streams.
    Window,
    Grant,
    /// What was sent has arrived.
    Acknowledge,
    Datagram,
    /// Time passes.
    Wait,
    /// Somebody else publishes.
    Publish,
    /// A route of somebody else comes or goes.
    Route,
    /// The home of a track wants something of the peer.
    Pull,
    /// A question of the peer that waits is answered with a refusal.
    Refuse,
    /// Much waits for other shards, or does no more.
    Crowd,
}

const KINDS: [Kind; 16] = [
    Kind::OpenBidi,
    Kind::OpenUni,
    Kind::Say,
    Kind::Finish,
    Kind::Reset,
    Kind::Stop,
    Kind::Window,
    Kind::Grant,
    Kind::Acknowledge,
    Kind::Datagram,
    Kind::Wait,
    Kind::Publish,
    Kind::Route,
    Kind::Pull,
    Kind::Refuse,
    Kind::Crowd,
];

/// Of [`Step::which`]: a stream that the session has opened.
pub const OURS: u8 = 0x80;

/// A step of four bytes opens a stream, which costs both the session and the fake transport an entry
/// in several maps; one of a dozen is a subscription, or a route in the directory.
pub const BYTES_PER_BYTE: usize = 256;

const ME: SessionRef = SessionRef { shard: 0, slot: 0, generation: 0 };
const OTHER: SessionRef = SessionRef { shard: 1, slot: 0, generation: 0 };

pub fn run(input: &[u8], trace: &mut Trace) {
    let script = Script::parse(input);
    let start = Instant::now();
    let whole = World::play(&script, start, None, trace);
    let mut random = Random::new(script.setting[1].into());
    let apart = World::play(&script, start, Some(&mut random), &mut Trace::default());
    // What is kept and what a viewer begins with is decided when a group begins, by what is known then
    // of its time; of one that breaks the rules viewers get what came before that was found. Of what
    // came before it was crowded, everything is read that was there.
    if !whole.may_differ && !apart.may_differ {
        assert_eq!(whole, apart, "what the peer is told depends on how its bytes arrive");
    }
}

/// What has come of a script.
#[derive(Debug, PartialEq)]
struct Outcome {
    told: Told,
    closed: Option<String>,
    datagrams: u64,
    /// Groups of the peer were for viewers, or it was crowded.
    may_differ: bool,
}

struct Track {
    path: Path,
    name: Arc<str>,
    content: Content,
    readers: BTreeSet<StreamId>,
    pull: Option<Pull>,
    is_changed: bool,
    /// Content of the peer has come, and somebody was to have it.
    is_pulled: bool,
    is_wanted: bool,
}

struct Pull {
    name: PullRef,
    has_info: bool,
    is_over: bool,
}

struct World {
    version: u8,
    access: Access,
    session: Session,
    link: Link,
    effects: Vec<Effect>,
    counts: Counts,
    route_ids: RouteIds,
    now: Instant,
    start: Instant,
    directory: Directory,
    routes: Vec<Arc<Route>>,
    others: Vec<Arc<Route>>,
    tracks: Vec<Track>,
    attempts: u32,
    asks: u32,
    failed: BTreeSet<u32>,
    /// By fetch: the track, and the group once it has begun.
    fetches: BTreeMap<u32, (usize, Option<u64>)>,
    /// What the peer waits for: questions and fetches.
    asked: Vec<StreamId>,
    is_crowded: bool,
    was_crowded: bool,
    /// Streams that are not read before it is crowded no more.
    unheard: Vec<StreamId>,
    is_ready: bool,
}

impl World {
    fn new(script: &Script, start: Instant) -> World {
        let [setting, _] = script.setting;
        let protocol = Protocol::ALL[usize::from(setting) % 5];
        let is_narrow = setting & 0x40 != 0;
        let public = access::rule(if is_narrow { "pub/**" } else { "**" }).expect("a rule");
        let access = Access { public: Grant::public(&[public], &[], &[]), ..Access::default() };
        let policy = Arc::new(Policy::open(7, Secret::new(&[4; 32])));
        let names = Names { trust: Trust::Stranger { at: 3 }, identity: 1, stamp: 2 };
        let session = Session::new(protocol, None, ME, policy, start, names);
        let window = if setting & 0x80 != 0 { 64 } else { 1 << 20 };
        World {
            version: setting % 5,
            access,
            session,
            link: Link::new(window, 8),
            effects: Vec::new(),
            counts: Counts::default(),
            route_ids: RouteIds::new(0, start),
            now: start,
            start,
            directory: Directory::default(),
            routes: Vec::new(),
            others: Vec::new(),
            tracks: Vec::new(),
            attempts: 0,
            asks: 0,
            failed: BTreeSet::new(),
            fetches: BTreeMap::new(),
            asked: Vec::new(),
            is_crowded: false,
            was_crowded: false,
            unheard: Vec::new(),
            is_ready: false,
        }
    }

    fn play(
        script: &Script,
        start: Instant,
        mut apart: Option<&mut Random>,
        trace: &mut Trace,
    ) -> Outcome {
        let mut world = World::new(script, start);
        world.with(|session, cx| session.start(cx));
        world.settle(trace);
        for step in &script.steps {
            if world.link.closed.is_some() {
                break;
            }
            let begin = processor_time();
            world.step(step, apart.as_deref_mut());
            world.settle(trace);
            trace.note_step(begin);
            assert_eq!(world.session.failure(), world.link.closed.as_deref());
        }
        for pipe in world.link.pipes.values() {
            trace.note(("stream", world.version, pipe.reset, pipe.stop, pipe.is_finished));
        }
        trace.note(("closed", &world.link.closed));
        Outcome {
            told: world.link.told(),
            closed: world.link.closed,
            datagrams: world.link.datagrams,
            may_differ: world.was_crowded
                || world.tracks.iter().any(|track| track.is_pulled && track.is_wanted),
        }
    }

    fn with<T>(&mut self, run: impl FnOnce(&mut Session, &mut Context<'_, Link>) -> T) -> T {
        let arrival_ms = self.now.duration_since(self.start).as_millis() as u64;
        let mut cx = Context {
            now: self.now,
            streams: &mut self.link,
            effects: &mut self.effects,
            route_ids: &mut self.route_ids,
            arrival_ms,
            is_crowded: self.is_crowded,
            changes_left: usize::MAX,
            visits: 0,
            counts: &mut self.counts,
        };
        run(&mut self.session, &mut cx)
    }

    fn step(&mut self, step: &Step, apart: Option<&mut Random>) {
        let stream = {
            let (mine, of) = (step.which & !OURS, step.which & OURS != 0);
            let streams = if of { &self.link.by_us } else { &self.link.by_peer };
            let at = usize::from(mine).checked_rem(streams.len());
            at.map(|at| streams[at])
        };
        let mut reader = Reader::new(&step.bytes);
        let number = reader.varint().unwrap_or(0);
        let rest = &step.bytes[reader.offset()..];
        match (KINDS[usize::from(step.kind) % KINDS.len()], stream) {
            (kind @ (Kind::OpenBidi | Kind::OpenUni), _) => {
                let id = self.link.open(matches!(kind, Kind::OpenUni));
                let parts = split(&step.bytes, apart);
                self.link.say(id, parts.first().unwrap_or(&&[][..]));
                self.with(|session, cx| session.opened(id, cx));
                parts.iter().skip(1).for_each(|part| self.say(id, part));
            }
            (Kind::Say, Some(id)) => {
                split(&step.bytes, apart).iter().for_each(|part| self.say(id, part));
            }
            (Kind::Finish, Some(id)) => self.end(id, ReadEnd::Finished),
            (Kind::Reset, Some(id)) => self.end(id, ReadEnd::Reset(StreamCode(number))),
            (Kind::Stop, Some(id)) => self.stop(id),
            (Kind::Window, _) => {
                self.link.window = (self.link.window + number).min(1 << 20);
                let ids: Vec<StreamId> = self.link.pipes.keys().copied().collect();
                for id in ids {
                    if self.link.closed.is_none() && self.is_open(id) {
                        self.with(|session, cx| session.writable(id, cx));
                    }
                }
            }
            (Kind::Grant, _) => {
                let is_uni = step.which & 1 == 1;
                let Link { grants_uni, grants_bidi, .. } = &mut self.link;
                *(if is_uni { grants_uni } else { grants_bidi }) += number % 16;
                self.with(|session, cx| session.available(is_uni, cx));
            }
            (Kind::Acknowledge, Some(id)) => {
                let pipe = self.link.pipes.get_mut(&id).expect("it was opened");
                if pipe.is_finished && !pipe.is_acknowledged && pipe.reset.is_none() {
                    pipe.is_acknowledged = true;
                    self.with(|session, cx| session.finished(id, cx));
                }
            }
            (Kind::Datagram, _) => {
                let datagram = Bytes::copy_from_slice(&step.bytes);
                self.with(|session, cx| session.datagram(datagram, cx));
            }
            (Kind::Wait, _) => self.wait([1, 30, 1000, 10_000][usize::from(step.which) % 4]),
            (Kind::Publish, _) => self.publish(step.which, number, rest),
            (Kind::Route, _) => self.route(step.which, &step.bytes),
            (Kind::Pull, _) => self.pull(step.which, number, rest),
            (Kind::Refuse, _) => {
                if let Some(key) = self.asked.pop() {
                    let code = StreamCode(number);
                    self.with(|session, cx| {
                        session.fail_fetch(key, code, cx);
                        session.answer_info(key, Err(code), cx);
                    });
                }
            }
            (Kind::Crowd, _) => {
                self.is_crowded = step.which & 1 == 1;
                self.was_crowded |= self.is_crowded;
                for id in self.unheard.split_off(0) {
                    self.with(|session, cx| session.readable(id, cx));
                }
            }
            (_, None) => {}
        }
    }

    fn say(&mut self, id: StreamId, bytes: &[u8]) {
        if self.link.closed.is_none() && self.link.say(id, bytes) {
            self.with(|session, cx| session.readable(id, cx));
        }
    }

    fn end(&mut self, id: StreamId, end: ReadEnd) {
        if self.link.say(id, &[]) {
            self.link.pipes.get_mut(&id).expect("it was opened").ending = Some(end);
            self.with(|session, cx| session.readable(id, cx));
        }
    }

    fn is_open(&self, id: StreamId) -> bool {
        let is_outgoing = crate::link::is_ours(id) || !id.is_uni();
        let pipe = &self.link.pipes[&id];
        let is_over = pipe.is_finished || pipe.reset.is_some() || pipe.is_stopped_by_peer;
        is_outgoing && !is_over
    }

    fn stop(&mut self, id: StreamId) {
        let is_outgoing = crate::link::is_ours(id) || !id.is_uni();
        let pipe = self.link.pipes.get_mut(&id).expect("it was opened");
        if !is_outgoing || pipe.is_acknowledged || pipe.reset.is_some() {
            return;
        }
        if !mem::replace(&mut pipe.is_stopped_by_peer, true) {
            self.with(|session, cx| session.stopped(id, cx));
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.link.estimate = Estimate {
            bitrate: Some(1_000_000 + ms * 1000),
            rtt: Some(Duration::from_millis(30 + ms % 7)),
        };
        // One that was met meanwhile may come once more.
        for _ in 0..3 {
            if self.link.closed.is_none() && self.is_due() {
                self.with(|session, cx| session.timeout(cx));
            }
        }
        assert!(self.link.closed.is_some() || !self.is_due(), "a deadline comes again and again");
        self.directory.release(self.now);
        self.announce();
    }

    fn is_due(&self) -> bool {
        self.session.deadline().is_some_and(|deadline| deadline <= self.now)
    }

    /// Does what the session has asked for.
    fn settle(&mut self, trace: &mut Trace) {
        while !self.effects.is_empty() {
            for effect in mem::take(&mut self.effects) {
                trace.note((self.version, mem::discriminant(&effect)));
                self.handle(effect, trace);
            }
            for track in 0..self.tracks.len() {
                if mem::take(&mut self.tracks[track].is_changed) {
                    self.serve(track, None);
                }
            }
        }
    }

    fn handle(&mut self, effect: Effect, trace: &mut Trace) {
        if self.link.closed.is_some() {
            return;
        }
        match effect {
            Effect::Failed { .. }
            | Effect::Leaving { .. }
            | Effect::BadGoaway
            | Effect::PathTooLong { .. }
            | Effect::TooManyAnnounced { .. }
            | Effect::Denied { .. } => {}
            Effect::Ready => assert!(!mem::replace(&mut self.is_ready, true), "ready again"),
            Effect::Arrived { target, .. } => {
                let token = target.token.as_ref().map(Token::as_str);
                match self.access.admit(&target.path, token, 0) {
                    Ok(admission) => {
                        let pass = Pass { admission, ends_at: None };
                        self.with(|session, cx| session.admit(pass, cx));
                    }
                    Err(refusal) => self.with(|session, cx| session.turn_away(&refusal, cx)),
                }
            }
            Effect::RouteUp(route) => {
                self.directory.insert(route.clone(), self.now);
                self.routes.retain(|other| other.id != route.id);
                self.routes.push(route);
                self.announce();
            }
            Effect::RouteDown { path, id } => self.route_gone(&path, id),
            Effect::RoutesDown(routes) => {
                routes.iter().for_each(|(id, path)| self.route_gone(path, *id));
            }
            Effect::Listening => self.announce(),
            Effect::InfoWanted { key, broadcast, track } => {
                let track = self.track(&broadcast, track);
                match self.tracks[track].content.info {
                    Some(info) => self.with(|session, cx| session.answer_info(key, Ok(info), cx)),
                    None => self.asked.push(key),
                }
            }
            Effect::Subscribed { key, broadcast, track } => {
                let track = self.track(&broadcast, track);
                self.session.place(key, &self.tracks[track].content);
                self.tracks[track].readers.insert(key);
                self.tracks[track].is_wanted = true;
                self.tracks[track].is_changed = true;
            }
            Effect::SubscriptionUpdated { key } => {
                if let Some(track) = self.read_by(key) {
                    self.session.place(key, &self.tracks[track].content);
                    self.tracks[track].is_changed = true;
                }
            }
            Effect::FetchWanted { key, broadcast, track, ask } => {
                let track = self.track(&broadcast, track);
                self.tracks[track].is_wanted = true;
                match self.tracks[track].content.get_group(ask.group, ask.frame_start) {
                    Some(arrival) => {
                        self.tracks[track].readers.insert(key);
                        self.tracks[track].is_changed = true;
                        self.with(|session, cx| session.begin_fetch(key, arrival, cx));
                    }
                    None => self.asked.push(key),
                }
            }
            Effect::Left { key } => {
                self.asked.retain(|asked| *asked != key);
                for track in &mut self.tracks {
                    track.readers.remove(&key);
                }
            }
            Effect::Unblocked { key } => {
                if let Some(track) = self.read_by(key) {
                    self.serve(track, Some(key));
                }
            }
            Effect::Fed { pull, feed } => self.fed(pull, feed, trace),
            Effect::FetchFed { pull, fetch, news } => self.fetch_fed(pull, fetch, news),
            Effect::Unread { stream } => self.with(|session, cx| session.readable(stream, cx)),
            Effect::Unheard { stream } | Effect::HeardEnough { stream } => {
                self.unheard.push(stream)
            }
        }
    }

    fn announce(&mut self) {
        let directory = mem::take(&mut self.directory);
        let room = ANNOUNCE_VISITS_PER_LISTENER;
        while self.with(|session, cx| session.announce(&directory, room, cx)).has_more {}
        self.directory = directory;
    }

    fn route_gone(&mut self, path: &Path, id: RouteId) {
        self.directory.remove(path, id, Gone::Withdrawn, self.now);
        self.routes.retain(|route| route.id != id);
        self.announce();
    }

    fn track(&mut self, path: &Path, name: Arc<str>) -> usize {
        let is_it = |track: &Track| track.path == *path && track.name == name;
        self.tracks.iter().position(is_it).unwrap_or_else(|| {
            self.tracks.push(Track {
                path: path.clone(),
                name,
                content: Content::new(true),
                readers: BTreeSet::new(),
                pull: None,
                is_changed: false,
                is_pulled: false,
                is_wanted: false,
            });
            self.tracks.len() - 1
        })
    }

    fn read_by(&self, key: StreamId) -> Option<usize> {
        self.tracks.iter().position(|track| track.readers.contains(&key))
    }

    fn serve(&mut self, track: usize, only: Option<StreamId>) {
        let mut content = mem::take(&mut self.tracks[track].content);
        let readers = mem::take(&mut self.tracks[track].readers);
        let datagrams: Vec<Datagram> = content.take_datagrams().into();
        let mut stay = BTreeSet::new();
        for key in readers {
            let is_served = self.link.closed.is_none() && only.is_none_or(|only| only == key);
            let mut service = Service::Continues;
            if is_served {
                service = self.with(|session, cx| session.serve(key, &mut content, cx));
                let run = content.run();
                self.with(|session, cx| session.send_datagrams(key, run, &datagrams, cx));
            }
            if service == Service::Continues {
                stay.insert(key);
            }
        }
        let track = &mut self.tracks[track];
        track.content = content;
        track.readers.extend(stay);
    }

    fn fed(&mut self, name: PullRef, feed: Feed, trace: &mut Trace) {
        trace.note(("fed", mem::discriminant(&feed)));
        let track = &mut self.tracks[name.track.slot as usize];
        assert!(!self.failed.contains(&name.attempt), "{feed:?} comes of a pull that has failed");
        let Some(pull) = track.pull.as_mut().filter(|pull| pull.name == name) else { return };
        match &feed {
            Feed::Info(_) => pull.has_info = true,
            Feed::Ended => pull.is_over = true,
            Feed::Failed(_) => {
                self.failed.insert(name.attempt);
                track.pull = None;
                // Another attempt may be made.
                track.is_changed = true;
                return;
            }
            _ => {}
        }
        track.is_pulled |= matches!(feed, Feed::Piece(_));
        track.content.apply(feed, self.now);
        track.is_changed = true;
    }

    fn fetch_fed(&mut self, name: PullRef, FetchId(fetch): FetchId, news: Fetched) {
        let Some((track, arrival)) = self.fetches.get_mut(&fetch) else { return };
        assert_eq!(name.track.slot as usize, *track);
        match news {
            Fetched::Failed(code) => {
                if let Some((track, Some(arrival))) = self.fetches.remove(&fetch) {
                    self.tracks[track].content.abort(arrival, code);
                }
            }
            Fetched::Pieces(parts) => {
                self.tracks[*track].is_pulled = true;
                let content = &mut self.tracks[*track].content;
                for piece in parts {
                    let arrival = match (piece.opens, &mut *arrival) {
                        (Some(opening), arrival) => {
                            *arrival.insert(content.open_fetched(piece.sequence, opening, self.now))
                        }
                        (None, Some(arrival)) => *arrival,
                        (None, None) => panic!("a fetched group does not begin"),
                    };
                    content.append(arrival, piece, self.now);
                }
            }
        }
        self.tracks[name.track.slot as usize].is_changed = true;
    }

    /// Somebody else's track: `rest` is a path and a name in one, or frames.
    fn publish(&mut self, which: u8, number: u64, rest: &[u8]) {
        let track = match usize::from(which >> 4).checked_rem(self.tracks.len()) {
            Some(track) => track,
            None => self.track(&path(b"pub/cam"), "video".into()),
        };
        let feed = match which % 8 {
            0 => Feed::Info(TrackInfo { priority: 100, max_age_ms: number, timescale: 1000 }),
            1 => Feed::Start(number),
            2 => Feed::Final(number),
            3 => Feed::Ended,
            4 => Feed::NewRun(StreamCode::CANCEL),
            5 => {
                let payload = Bytes::copy_from_slice(rest);
                Feed::Datagram(Datagram { sequence: number, timestamp: number, payload })
            }
            6 => Feed::Failed(StreamCode(number)),
            _ => {
                let (mut bytes, mut marks) = (Vec::new(), Marks::new());
                let mut scanner = FrameScanner::new(true, None);
                if scanner.scan(rest, 0, &mut bytes, &mut marks).is_err() {
                    return;
                }
                let ends = scanner.at_boundary().then_some(GroupEnd::Finished);
                let opens = Some(Opening::at(0));
                Feed::Piece(Piece { sequence: number, opens, bytes: bytes.into(), marks, ends })
            }
        };
        let applied = self.tracks[track].content.apply(feed, self.now);
        self.tracks[track].is_changed = applied != Applied::Ignored;
    }

    fn route(&mut self, which: u8, bytes: &[u8]) {
        if which & 1 == 1 {
            if let Some(route) = self.others.pop() {
                self.route_gone(&route.path, route.id);
            }
            return;
        }
        let hops = if which & 2 == 0 { &[40][..] } else { &[40, 41] };
        let route = Arc::new(Route {
            id: RouteId(u64::from(u32::MAX) << 16 | self.others.len() as u64),
            path: path(bytes),
            is_whole: which & 4 == 0,
            is_linked: false,
            hops: Hops::from_slice(hops).expect("a short chain"),
            origin: 40,
            trust: Trust::Relay,
            cost: Cost::ZERO,
            via: 40,
            session: OTHER,
            version: Version::Lite06,
            is_silent: false,
        });
        self.directory.insert(route.clone(), self.now);
        self.others.push(route);
        self.announce();
    }

    fn pull(&mut self, which: u8, number: u64, rest: &[u8]) {
        let Some(at) = usize::from(which >> 4).checked_rem(self.routes.len()) else { return };
        let broadcast = self.routes[at].path.clone();
        let index = self.track(&broadcast, "video".into());
        let track = &mut self.tracks[index];
        let name = self.attempts;
        let command = match (which % 8, &mut track.pull) {
            (0, None) => {
                self.attempts += 1;
                let slot = TrackRef { shard: 0, slot: index as u32, generation: 0 };
                let pull = PullRef { track: slot, attempt: name };
                track.pull = Some(Pull { name: pull, has_info: false, is_over: false });
                let timescale = track.content.info.map(|info| info.timescale);
                PullCommand::Ask { pull, broadcast, track: track.name.clone(), timescale }
            }
            (1 | 2, Some(pull)) if pull.has_info && !pull.is_over => {
                let wanted = Preferences::decode_update(Version::Lite06, rest);
                let wanted = wanted.unwrap_or(Preferences {
                    priority: 1,
                    max_age_ms: number,
                    group_start: None,
                    group_end: None,
                    frame_start: 0,
                    frame_end: None,
                });
                match which % 8 {
                    1 => PullCommand::Want { pull: pull.name, wanted },
                    _ => PullCommand::Pause { pull: pull.name, wanted },
                }
            }
            (3, Some(pull)) if pull.has_info => {
                let fetch = self.asks;
                self.asks += 1;
                self.fetches.insert(fetch, (index, None));
                let ask =
                    Ask { group: number, frame_start: 0, priority: 9, asker: Asker(number % 3) };
                PullCommand::Fetch { pull: pull.name, fetch: FetchId(fetch), ask }
            }
            (4, Some(pull)) => {
                PullCommand::Abandon { pull: pull.name, fetch: FetchId(number as u32) }
            }
            (5, pull @ Some(_)) => {
                let pull = pull.take().expect("it is there").name;
                PullCommand::Release { pull }
            }
            _ => return,
        };
        self.with(|session, cx| session.pull(command, cx));
    }
}

fn path(bytes: &[u8]) -> Path {
    Path::parse(&String::from_utf8_lossy(bytes)).unwrap_or_default()
}

fn split<'a>(bytes: &'a [u8], apart: Option<&mut Random>) -> Vec<&'a [u8]> {
    match apart {
        Some(random) => pieces(bytes, random),
        None => Vec::from_iter(Some(bytes).filter(|bytes| !bytes.is_empty())),
    }
}
