//! Announcements and routes that come and go on two shards: each with a directory, sessions, and news for
//! the other one in a lane that may be full.
//!
//! The input is a [`Script`]: peers join, announce, take back, listen, say what they like, do not read and
//! leave; a shard gets no time.
//!
//! * When all has been told, both directories hold what the peers announce, and every listener what it may
//!   see of that.
//! * What is held has a bound in what is live and what was told; of what has been, each change may leave an
//!   entry of the journal.
//! * When the peers have left, those entries are all that is left.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shardcast::limits::{ANNOUNCE_VISITS_PER_LISTENER, ROUTE_CHANGES_KEPT};
use shardcast::route::{Directory, Gone, RouteId, SessionRef, Trust};
use shardcast::secret::Secret;
use shardcast::session::streams::{ReadEnd, StreamId};
use shardcast::session::{Context, Counts, Effect, Names, Pass, Policy, RouteIds, Session};
use shardcast::shard::message::RouteNews;
use shardcast::shard::news::Untold;
use shardcast::wire::*;

use crate::heap;
use crate::link::{Link, is_ours};
use crate::script::{Script, Step};
use crate::trace::{Trace, processor_time};

const SHARDS: usize = 2;
const PEERS: usize = 6;

/// Streams that a peer opens; more take the place of none.
const STREAMS_MAX: usize = 8;

/// News that a lane holds, and that a shard takes in one turn.
const LANE: usize = 64;
const NEWS_PER_TURN: usize = 40;

/// Routes of a lost session that are ended in one turn.
const LOST_PER_TURN: usize = 64;

/// Turns in which everything is told, with this between them: longer than what is held back for a while.
const LAST_TURNS: usize = 1000;
const LAST_PAUSE: Duration = Duration::from_millis(400);

/// What is held at most, beside paths themselves: for a start, per session, announcement that is live,
/// path that a listener holds, and change of a route in what has been. The peers' side of it is included.
const BYTES_AT_LEAST: usize = 64 << 10;
const BYTES_PER_SESSION: usize = 24 << 10;
const BYTES_PER_LIVE: usize = 1024;
const BYTES_PER_TOLD: usize = 512;
const BYTES_PER_CHANGE: usize = 128;

/// A byte is an announcement of the longest path, which is told to all listeners; the bounds above are
/// narrower.
pub const BYTES_PER_BYTE: usize = 16 << 10;

const PREFIXES: [&str; 4] = ["", "p", "p/3", "q"];

/// What a step of a script is. The peer is [`Step::which`], and most of them take a byte per path.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Announce,
    Unannounce,
    /// On the stream of its announcements, whatever it likes.
    Say,
    Listen,
    Unlisten,
    Leave,
    /// A shard takes no news, or does again.
    Stall,
    Wait,
    /// How much a peer reads.
    Window,
    /// It wants no more of a stream.
    Stop,
}

const KINDS: [Kind; 10] = [
    Kind::Announce,
    Kind::Unannounce,
    Kind::Say,
    Kind::Listen,
    Kind::Unlisten,
    Kind::Leave,
    Kind::Stall,
    Kind::Wait,
    Kind::Window,
    Kind::Stop,
];

pub fn run(input: &[u8], trace: &mut Trace) {
    let script = Script::parse(input);
    let mut world = World::new(script.setting[0].into(), Instant::now());
    for step in &script.steps {
        let begin = processor_time();
        world.step(step);
        world.turn(trace);
        trace.note_step(begin);
        world.check_memory("while it runs");
    }
    world.settle(trace);
    world.check_views(trace);
    world.check_memory("when all is told");
    world.leave_all(trace);
}

struct World {
    now: Instant,
    start: Instant,
    policy: Arc<Policy>,
    versions: usize,
    halves: [Half; SHARDS],
    peers: [Option<Peer>; PEERS],
    sessions: u32,
    /// Bytes held before it began.
    before: isize,
    /// Changes of routes that there have been, and the bytes of their paths.
    changes: usize,
    changed_bytes: usize,
}

/// One shard.
struct Half {
    directory: Directory,
    /// For the other one, and in its lane.
    untold: Untold,
    lane: VecDeque<RouteNews>,
    lost: VecDeque<(RouteId, Path)>,
    route_ids: RouteIds,
    effects: Vec<Effect>,
    counts: Counts,
    is_stalled: bool,
}

struct Peer {
    me: SessionRef,
    session: Session,
    link: Link,
    /// Its routes, as the shard counts them.
    routes: BTreeMap<RouteId, Path>,
    /// What it announces: by path, with the number of each.
    live: BTreeMap<u8, u64>,
    next_id: u64,
    has_begun: bool,
    /// What it has heard on each stream.
    hears: BTreeMap<StreamId, Hearing>,
}

/// What a peer hears on one stream.
#[derive(Default)]
struct Hearing {
    prefix: Path,
    bytes: Vec<u8>,
    has_begun: bool,
    next_id: u64,
    live: BTreeMap<Path, u64>,
    is_over: bool,
}

impl World {
    fn new(versions: usize, now: Instant) -> World {
        let before = heap::held();
        let half = |shard| Half {
            directory: Directory::default(),
            untold: Untold::default(),
            lane: VecDeque::new(),
            lost: VecDeque::new(),
            route_ids: RouteIds::new(shard, now),
            effects: Vec::new(),
            counts: Counts::default(),
            is_stalled: false,
        };
        World {
            now,
            start: now,
            policy: Arc::new(Policy::open(7, Secret::new(&[4; 32]))),
            versions,
            halves: [half(0), half(1)],
            peers: [const { None }; PEERS],
            sessions: 0,
            before,
            changes: 0,
            changed_bytes: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        let at = usize::from(step.which & 0xf) % PEERS;
        let (variant, bytes) = (step.which >> 4, &step.bytes[..]);
        let first = bytes.first().copied().unwrap_or(0);
        match KINDS[usize::from(step.kind) % KINDS.len()] {
            Kind::Announce => {
                let said = self.peer(at).announces(bytes, variant, at);
                self.say(at, &said);
            }
            Kind::Unannounce => {
                let said = self.peer(at).takes_back(bytes);
                self.say(at, &said);
            }
            Kind::Say => self.say(at, bytes),
            Kind::Listen => self.listen(at, PREFIXES[usize::from(first) % PREFIXES.len()]),
            Kind::Unlisten => self.unlisten(at, first, |world, id| {
                let pipe = world.peer(at).link.pipes.get_mut(&id).expect("it was opened");
                pipe.ending = Some(ReadEnd::Finished);
                world.read(at, id);
            }),
            Kind::Stop => self.unlisten(at, first, |world, id| {
                let pipe = world.peer(at).link.pipes.get_mut(&id).expect("it was opened");
                pipe.is_stopped_by_peer = true;
                world.with(at, |session, cx| session.stopped(id, cx));
            }),
            Kind::Leave => self.lose(at),
            Kind::Stall => {
                let half = &mut self.halves[usize::from(first) % SHARDS];
                half.is_stalled = !half.is_stalled;
            }
            Kind::Wait => {
                let ms = [1, 20, 60, 400][usize::from(first) % 4];
                self.pass(Duration::from_millis(ms));
            }
            Kind::Window => self.reads(at, u64::from(first) * 16),
        }
    }

    /// A peer that is there, or joins.
    fn peer(&mut self, at: usize) -> &mut Peer {
        if self.peers[at].is_none() {
            self.join(at);
        }
        self.peers[at].as_mut().expect("it has joined")
    }

    fn join(&mut self, at: usize) {
        self.sessions += 1;
        let me =
            SessionRef { shard: (at % SHARDS) as u16, slot: at as u32, generation: self.sessions };
        let version = Version::ALL[(at + self.versions) % Version::ALL.len()];
        let protocol = match version {
            Version::Lite01 | Version::Lite02 => Protocol::Legacy,
            version => Protocol::Version(version),
        };
        let name = 1 << 50 | u64::from(self.sessions) << 1;
        // Some at one address, some at others, and some are relays.
        let trust = match at {
            0 | 3 => Trust::Relay,
            at => Trust::Stranger { at: at as u64 / 2 },
        };
        let names = Names { trust, identity: name, stamp: name + 1 };
        let session = Session::new(
            protocol,
            Some(Pass::unlimited()),
            me,
            self.policy.clone(),
            self.now,
            names,
        );
        let link = Link { keeps: true, ..Link::new(1 << 20, 8) };
        self.peers[at] = Some(Peer {
            me,
            session,
            link,
            routes: BTreeMap::new(),
            live: BTreeMap::new(),
            next_id: 0,
            has_begun: false,
            hears: BTreeMap::new(),
        });
        self.with(at, |session, cx| session.start(cx));
        let mut hello = Vec::new();
        let is_uni = match version {
            Version::Lite01 | Version::Lite02 => {
                encode_varint(BidiType::ClientSetup as u64, &mut hello);
                let (versions, parameters) = (vec![version.code()], Vec::new());
                ClientSetup { versions, parameters }.encode(&mut hello);
                false
            }
            Version::Lite03 | Version::Lite04 => return,
            _ => {
                encode_varint(UniType::Setup as u64, &mut hello);
                Setup { hop: 1000 + at as u64, ..Setup::default() }.encode(&mut hello);
                true
            }
        };
        self.open(at, is_uni, &hello);
    }

    fn open(&mut self, at: usize, is_uni: bool, says: &[u8]) -> StreamId {
        let link = &mut self.peers[at].as_mut().expect("it has joined").link;
        let id = link.open(is_uni);
        link.say(id, says);
        self.with(at, |session, cx| session.opened(id, cx));
        id
    }

    /// On the stream on which the session asks what is announced.
    fn say(&mut self, at: usize, says: &[u8]) {
        let peer = self.peer(at);
        let Some(id) = peer.link.by_us.iter().copied().find(|id| !id.is_uni()) else { return };
        if peer.link.say(id, says) {
            self.read(at, id);
        }
    }

    fn listen(&mut self, at: usize, prefix: &str) {
        let peer = self.peer(at);
        if peer.link.by_peer.len() == STREAMS_MAX {
            return;
        }
        let prefix = Path::parse(prefix).expect("a short one");
        let mut request = Vec::new();
        encode_varint(BidiType::Announce as u64, &mut request);
        let version = peer.session.version();
        AnnounceRequest { prefix: prefix.clone(), exclude_hop: 0 }.encode(version, &mut request);
        let id = self.open(at, false, &request);
        self.peer(at).hears.insert(id, Hearing { prefix, ..Hearing::default() });
    }

    /// Ends one of a peer's streams.
    fn unlisten(&mut self, at: usize, which: u8, end: impl FnOnce(&mut World, StreamId)) {
        let hears = &mut self.peer(at).hears;
        let Some(nth) = usize::from(which).checked_rem(hears.len()) else { return };
        let (id, hearing) = hears.iter_mut().nth(nth).expect("one of them");
        if !std::mem::replace(&mut hearing.is_over, true) {
            hearing.live.clear();
            let id = *id;
            end(self, id);
        }
    }

    /// So many bytes from now on, or some more.
    fn reads(&mut self, at: usize, bytes: u64) {
        let link = &mut self.peer(at).link;
        link.window = bytes;
        let ids: Vec<StreamId> = link.pipes.keys().copied().collect();
        for id in ids {
            let Some(peer) = &self.peers[at] else { return };
            let pipe = &peer.link.pipes[&id];
            let is_outgoing = is_ours(id) || !id.is_uni();
            let is_over = pipe.is_finished || pipe.reset.is_some() || pipe.is_stopped_by_peer;
            if is_outgoing && !is_over {
                self.with(at, |session, cx| session.writable(id, cx));
            }
        }
    }

    /// Runs a session, and does what it asks for.
    fn with<T>(
        &mut self,
        at: usize,
        run: impl FnOnce(&mut Session, &mut Context<'_, Link>) -> T,
    ) -> Option<T> {
        let peer = self.peers[at].as_mut()?;
        let half = &mut self.halves[usize::from(peer.me.shard)];
        let mut cx = Context {
            now: self.now,
            streams: &mut peer.link,
            effects: &mut half.effects,
            route_ids: &mut half.route_ids,
            arrival_ms: self.now.duration_since(self.start).as_millis() as u64,
            is_crowded: false,
            changes_left: usize::MAX,
            visits: 0,
            counts: &mut half.counts,
        };
        let result = run(&mut peer.session, &mut cx);
        assert_eq!(peer.session.failure(), peer.link.closed.as_deref());
        if peer.session.failure().is_some() {
            half.effects.clear();
            self.lose(at);
            return Some(result);
        }
        let shard = usize::from(peer.me.shard);
        for effect in std::mem::take(&mut half.effects) {
            let Some(peer) = &mut self.peers[at] else { break };
            match effect {
                Effect::RouteUp(route) => {
                    peer.routes.insert(route.id, route.path.clone());
                    self.changed(shard, RouteNews::Up(route));
                }
                Effect::RoutesDown(routes) => {
                    for (id, path) in routes {
                        self.peers[at].as_mut().map(|peer| peer.routes.remove(&id));
                        self.changed(shard, RouteNews::Down { path, id, gone: Gone::Withdrawn });
                    }
                }
                Effect::RouteDown { path, id } => {
                    peer.routes.remove(&id);
                    self.changed(shard, RouteNews::Down { path, id, gone: Gone::Withdrawn });
                }
                Effect::Unread { stream } => self.read(at, stream),
                _ => {}
            }
        }
        Some(result)
    }

    fn read(&mut self, at: usize, id: StreamId) {
        self.with(at, |session, cx| session.readable(id, cx));
    }

    /// A route of this shard: the other one is to know.
    fn changed(&mut self, shard: usize, news: RouteNews) {
        let half = &mut self.halves[shard];
        let is_new = matches!(&news, RouteNews::Up(route) if !half.directory.has(route));
        half.untold.note(news.clone(), is_new);
        self.changes += 1;
        self.changed_bytes += match &news {
            RouteNews::Up(route) => route.path.as_str().len(),
            RouteNews::Down { path, .. } => path.as_str().len(),
        };
        half.note(news, self.now);
    }

    fn lose(&mut self, at: usize) {
        if let Some(peer) = self.peers[at].take() {
            self.halves[usize::from(peer.me.shard)].lost.extend(peer.routes);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for at in 0..PEERS {
            let is_due = |peer: &Peer| peer.session.deadline().is_some_and(|due| due <= self.now);
            if self.peers[at].as_ref().is_some_and(is_due) {
                self.with(at, |session, cx| session.timeout(cx));
            }
        }
    }

    /// Both shards have a turn.
    fn turn(&mut self, trace: &mut Trace) {
        for shard in 0..SHARDS {
            let half = &mut self.halves[shard];
            let some = half.lost.len().min(LOST_PER_TURN);
            for (id, path) in half.lost.drain(..some).collect::<Vec<_>>() {
                self.changed(shard, RouteNews::Down { path, id, gone: Gone::Lost });
            }
            if !self.halves[shard].is_stalled {
                for _ in 0..NEWS_PER_TURN {
                    let Some(news) = self.halves[1 - shard].lane.pop_front() else { break };
                    self.halves[shard].note(news, self.now);
                }
            }
            let half = &mut self.halves[shard];
            while half.lane.len() < LANE
                && let Some(news) = half.untold.take()
            {
                half.lane.push_back(news);
            }
            half.directory.release(self.now);
            trace.note((shard, half.untold.len().min(3), half.lane.len().min(3)));
        }
        for at in 0..PEERS {
            self.tell(at, trace);
        }
    }

    fn tell(&mut self, at: usize, trace: &mut Trace) {
        let shard = at % SHARDS;
        let directory = std::mem::take(&mut self.halves[shard].directory);
        let room = ANNOUNCE_VISITS_PER_LISTENER;
        let mut has_more = true;
        while has_more {
            let round = self.with(at, |session, cx| session.announce(&directory, room, cx));
            has_more = round.is_some_and(|round| round.has_more);
        }
        self.halves[shard].directory = directory;
        if let Some(peer) = &mut self.peers[at] {
            peer.hear(trace);
        }
    }

    /// Nobody does anything, and everything is read, until all is told.
    fn settle(&mut self, trace: &mut Trace) {
        self.halves.iter_mut().for_each(|half| half.is_stalled = false);
        for at in 0..PEERS {
            if self.peers[at].is_some() {
                self.reads(at, 1 << 20);
            }
        }
        for _ in 0..LAST_TURNS {
            self.pass(LAST_PAUSE);
            self.turn(trace);
            if self.halves.iter().all(Half::is_quiet) {
                break;
            }
        }
        assert!(self.halves.iter().all(Half::is_quiet), "news has no end");
        // What is told a while after an end.
        for _ in 0..2 {
            self.pass(LAST_PAUSE);
            self.turn(trace);
        }
    }

    fn check_views(&self, trace: &mut Trace) {
        let [one, other] = [0, 1].map(|shard| self.halves[shard].routes());
        assert_eq!(one, other, "the directories differ");
        let announced = self.peers.iter().flatten().flat_map(|peer| peer.routes.iter());
        let announced: BTreeSet<_> = announced.map(|(id, path)| (path.clone(), *id)).collect();
        assert_eq!(one, announced, "a directory holds what is announced");
        for peer in self.peers.iter().flatten() {
            let directory = &self.halves[usize::from(peer.me.shard)].directory;
            for hearing in peer.hears.values().filter(|hearing| !hearing.is_over) {
                let live: BTreeSet<Path> = hearing.live.keys().cloned().collect();
                let expected = visible(directory, &hearing.prefix, peer.session.identity());
                assert_eq!(live, expected, "what {} hears", peer.session.version());
                trace.note((peer.session.version(), live.len().min(4)));
            }
        }
    }

    /// Everybody leaves, and what is left is the journals'.
    fn leave_all(mut self, trace: &mut Trace) {
        (0..PEERS).for_each(|at| self.lose(at));
        self.settle(trace);
        assert!(self.halves.iter().all(|half| half.directory.is_empty()), "routes are left");
        self.check_memory("when all have left");
    }

    fn check_memory(&self, when: &str) {
        let held = heap::held() - self.before;
        let most = self.most();
        assert!(held <= most as isize, "{held} bytes are held {when}, and not {most}");
    }

    /// What may be held now.
    fn most(&self) -> usize {
        let peers = || self.peers.iter().flatten();
        let live: usize = peers().map(|peer| peer.live.len().max(peer.routes.len())).sum();
        let lost: usize = self.halves.iter().map(|half| half.lost.len()).sum();
        let routes: usize = self.halves.iter().map(|half| half.directory.len()).sum();
        let told: usize = peers().map(|peer| peer.session.told()).sum();
        let kept = self.changes.min(ROUTE_CHANGES_KEPT) * SHARDS;
        BYTES_AT_LEAST
            + peers().count() * BYTES_PER_SESSION
            + live.max(routes).max(lost) * BYTES_PER_LIVE
            + told * BYTES_PER_TOLD
            + kept * BYTES_PER_CHANGE
            + self.changed_bytes
    }
}

impl Half {
    fn note(&mut self, news: RouteNews, now: Instant) {
        match news {
            RouteNews::Up(route) => self.directory.insert(route, now),
            RouteNews::Down { path, id, gone } => self.directory.remove(&path, id, gone, now),
        }
    }

    fn is_quiet(&self) -> bool {
        self.untold.is_empty() && self.lane.is_empty() && self.lost.is_empty()
    }

    fn routes(&self) -> BTreeSet<(Path, RouteId)> {
        let routes = |path| self.directory.at(path).map(|entry| (path.clone(), entry.route.id));
        self.directory.paths_after(None).flat_map(routes).collect()
    }
}

/// What a peer without a wish of its own is to hold below a prefix.
fn visible(directory: &Directory, prefix: &Path, identity: u64) -> BTreeSet<Path> {
    let sees = |path: &Path| match path == prefix {
        true => directory.covering(path).any(|entry| !entry.route.passes(identity)),
        false => directory.at(path).any(|entry| !entry.route.passes(identity)),
    };
    let paths = directory.paths_after(None).chain([prefix]);
    let seen = paths.filter(|path| path.has_prefix(prefix) && sees(path));
    let suffixes = seen.filter_map(|path| path.strip_prefix(prefix));
    suffixes.filter(|suffix| !suffix.has_hidden_segment()).collect()
}

impl Peer {
    /// What it says to announce these, or to announce them in another way.
    fn announces(&mut self, numbers: &[u8], variant: u8, me: usize) -> Vec<u8> {
        let version = self.session.version();
        let (mut said, name) = (self.begins(), 100 + me as u64);
        let hops: &[u64] = match (version, variant % 4) {
            (Version::Lite01 | Version::Lite02, _) | (_, 0) => &[],
            (Version::Lite03, _) => &[0],
            (_, 1) => &[name],
            (_, 2) => &[50],
            _ => &[50, name],
        };
        let hops = Hops::from_slice(hops).expect("a short chain");
        let cost = Cost { warm: variant.into(), cold: variant.into() };
        for number in numbers {
            let suffix = path(*number);
            let is_live = self.live.contains_key(number);
            match version {
                Version::Lite06 if is_live => {
                    let id = self.live[number];
                    Announce::Restart { id, hops: hops.clone(), cost }.encode(version, &mut said);
                    continue;
                }
                Version::Lite05 => {}
                _ if is_live => continue,
                _ => {}
            }
            Announce::Start { suffix, hops: hops.clone(), cost }.encode(version, &mut said);
            self.live.insert(*number, self.next_id);
            self.next_id += 1;
        }
        said
    }

    fn takes_back(&mut self, numbers: &[u8]) -> Vec<u8> {
        let version = self.session.version();
        let mut said = self.begins();
        for number in numbers {
            if let Some(id) = self.live.remove(number) {
                let end = match version {
                    Version::Lite06 => Announce::End { id },
                    _ => Announce::Ended { suffix: path(*number) },
                };
                end.encode(version, &mut said);
            }
        }
        said
    }

    /// What comes before the first announcement.
    fn begins(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        if !std::mem::replace(&mut self.has_begun, true) {
            match self.session.version() {
                Version::Lite01 | Version::Lite02 => AnnounceInit::default().encode(&mut said),
                Version::Lite03 | Version::Lite04 => {}
                _ => AnnounceOk { hop: 0, active: 0 }.encode(&mut said),
            }
        }
        said
    }

    /// Takes in what it was told.
    fn hear(&mut self, trace: &mut Trace) {
        let version = self.session.version();
        for (id, hearing) in &mut self.hears {
            let pipe = self.link.pipes.get_mut(id).expect("it was opened");
            hearing.bytes.append(&mut pipe.kept);
            if hearing.is_over {
                hearing.bytes = Vec::new();
            } else {
                hearing.take(version, trace);
            }
        }
    }
}

impl Hearing {
    fn take(&mut self, version: Version, trace: &mut Trace) {
        let mut at = 0;
        while let Some((announces, used)) = self.next(version, at) {
            at += used;
            announces.into_iter().for_each(|announce| self.heard(announce, version, trace));
        }
        self.bytes.drain(..at);
    }

    /// What is next, and its length.
    fn next(&mut self, version: Version, at: usize) -> Option<(Vec<Announce>, usize)> {
        let bytes = &self.bytes[at..];
        if self.has_begun || matches!(version, Version::Lite03 | Version::Lite04) {
            let (announce, used) = Announce::take(version, bytes).expect("it is well formed")?;
            return Some((vec![announce], used));
        }
        let (announces, used) = if version >= Version::Lite05 {
            let (_, used) = AnnounceOk::take(bytes).expect("it is well formed")?;
            (Vec::new(), used)
        } else {
            let (init, used) = AnnounceInit::take(bytes).expect("it is well formed")?;
            let (hops, cost) = (Hops::new(), Cost::ZERO);
            let start = |suffix| Announce::Start { suffix, hops: hops.clone(), cost };
            (init.suffixes.into_iter().map(start).collect(), used)
        };
        self.has_begun = true;
        Some((announces, used))
    }

    fn heard(&mut self, announce: Announce, version: Version, trace: &mut Trace) {
        trace.note(("heard", version, std::mem::discriminant(&announce)));
        match announce {
            Announce::Start { suffix, .. } => {
                let before = self.live.insert(suffix, self.next_id);
                assert!(before.is_none() || version == Version::Lite05, "announced twice");
                self.next_id += 1;
            }
            Announce::Ended { suffix } => {
                assert!(self.live.remove(&suffix).is_some(), "{suffix} ends, and was not there");
            }
            Announce::Restart { id, .. } => {
                assert!(self.live.values().any(|held| *held == id), "{id} is not there");
            }
            Announce::End { id } => {
                let before = self.live.len();
                self.live.retain(|_, held| *held != id);
                assert_eq!(self.live.len(), before - 1, "{id} ends, and was not there");
            }
            Announce::Restart05 { .. } | Announce::Unknown => panic!("{announce:?} is not said"),
        }
    }
}

/// The path of a number: few that are nested, some long, one hidden, one that leads nowhere.
fn path(number: u8) -> Path {
    let text = match number {
        0 => "p".to_owned(),
        1 => "p/.hidden".to_owned(),
        2 => "p/3".to_owned(),
        255 => "x".repeat(1100),
        _ if number % 16 == 15 => format!("q/{number}/{}", "long".repeat(40)),
        _ => format!("p/{}/{number}", number % 5),
    };
    Path::parse(&text).expect("a short one")
}

/// Peers that announce and listen, in several orders.
pub fn seeds() -> Vec<Vec<u8>> {
    let numbers = |from: u8, to: u8| (from..to).collect::<Vec<u8>>();
    let step = |kind: Kind, which: u8, bytes: Vec<u8>| Step { kind: kind as u8, which, bytes };
    let mut seeds = Vec::new();
    for setting in 0..6 {
        let mut steps = Vec::new();
        for peer in 0..PEERS as u8 {
            steps.push(step(Kind::Listen, peer, vec![peer]));
            steps.push(step(Kind::Announce, 0x10 | peer, numbers(peer * 8, peer * 8 + 12)));
        }
        steps.push(step(Kind::Stall, 0, vec![setting]));
        for round in 0..3 {
            for peer in 0..PEERS as u8 {
                steps.push(step(Kind::Unannounce, peer, numbers(peer * 8 + 2, peer * 8 + 6)));
                let variant = (round + peer) << 4;
                steps.push(step(Kind::Announce, variant | peer, numbers(peer * 4, peer * 8 + 9)));
                steps.push(step(Kind::Wait, 0, vec![round]));
            }
            steps.push(step(Kind::Window, setting, vec![round]));
            steps.push(step(Kind::Listen, round, vec![round, 0]));
        }
        steps.push(step(Kind::Stall, 0, vec![setting]));
        steps.push(step(Kind::Unlisten, 1, vec![0]));
        steps.push(step(Kind::Stop, 2, vec![0]));
        steps.push(step(Kind::Say, 3, b"\x01\x01".to_vec()));
        steps.push(step(Kind::Leave, setting, Vec::new()));
        steps.push(step(Kind::Announce, 0x20 | setting, numbers(0, 40)));
        seeds.push(Script { setting: [setting, 0], steps }.encode());
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths that come and go in one round of churn.
    const PATHS: u64 = 1000;

    /// Bytes that are still held when all have left, after so many rounds of everything that a publisher
    /// may announce coming and going, with somebody who listens on each shard.
    fn left_after(rounds: usize) -> isize {
        let before = heap::held();
        let mut world = World::new(5, Instant::now());
        let trace = &mut Trace::default();
        // Lite-06.
        world.listen(0, "");
        world.listen(1, "");
        let mut most = 0;
        for round in 0..rounds {
            let mut said = world.peer(0).begins();
            for number in 0..PATHS {
                let suffix = Path::parse(&format!("round/{round}/{number}")).unwrap();
                let start = Announce::Start { suffix, hops: Hops::new(), cost: Cost::ZERO };
                start.encode(Version::Lite06, &mut said);
            }
            world.say(0, &said);
            world.settle(trace);
            world.check_views(trace);
            let told: usize = world.peers.iter().flatten().map(|peer| peer.session.told()).sum();
            assert_eq!(told, PATHS as usize, "the one who announces it is not told");
            most = most.max(heap::held() - before);
            let first = round as u64 * PATHS;
            let mut said = Vec::new();
            for id in first..first + PATHS {
                Announce::End { id }.encode(Version::Lite06, &mut said);
            }
            world.say(0, &said);
            world.settle(trace);
        }
        (0..PEERS).for_each(|at| world.lose(at));
        world.settle(trace);
        world.check_memory("when all have left");
        let left = heap::held() - before;
        assert!(most - left > PATHS as isize * 200, "{most} were held, and {left} are left");
        left
    }

    #[test]
    fn what_churn_leaves_does_not_grow_with_its_rounds() {
        // As many as the journals remember, and much more.
        let rounds = ROUTE_CHANGES_KEPT / (2 * PATHS as usize) + 2;
        let (once, thrice) = (left_after(rounds), left_after(3 * rounds));
        assert!((thrice - once).abs() < 64 << 10, "{once} bytes are left, and {thrice}");
    }
}
