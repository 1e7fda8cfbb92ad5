//! A peer that means harm: some connections to one relay, and whatever a seed makes them do with what
//! the protocol allows and with what it does not.

use std::collections::BTreeMap;

use quinn_proto::Dir;
use shardcast::wire::*;

use super::network::Random;
use super::peer::*;
use super::world::*;

/// One thing that it does, over and over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Act {
    /// Paths of up to 60 kB, and RESTARTs of a few bytes that swap two hops.
    LongPaths,
    /// Up to ten thousand paths, of which the price changes.
    Prices,
    /// Paths that come and go.
    Flicker,
    /// Chains that begin with an honest publisher, or name honest peers, on paths of its own.
    Chains,
    /// A track of many tiny groups, and subscriptions and updates that reach back in it.
    TinyGroups,
    /// Groups that grow and have no end.
    EndlessGroups,
    /// Single groups of its own tracks and of honest ones, whether or not there are such.
    Fetches,
    /// Subscriptions that end as soon as they have begun, and begin again.
    Resubscribe,
    /// Updates of subscriptions to honest tracks.
    Updates,
    /// Questions about tracks that nobody has.
    Questions,
    /// Announce streams that are opened and dropped.
    Listens,
    /// It subscribes and reads nothing.
    NeverReads,
    /// Streams granted one by one.
    Grants,
    /// Messages of which the end never comes.
    Halves,
    /// Streams that are reset or stopped in the middle of something.
    Resets,
    Datagrams,
    Probes,
    /// SETUPs with as many parameters as fit.
    Setups,
    GoAway,
    /// Ends its announcements, and all its routes with them.
    Finish,
    /// Leaves without a word, or with one, and is back at once.
    Leave,
    /// Announces the path of an honest publisher that is live, as its equal.
    HonestPath,
    /// The same with a chain that names this publisher as its origin.
    HonestOrigin,
}

use Act::*;

/// What it may do at present.
pub const ACTS: [Act; 21] = [
    LongPaths,
    Prices,
    Flicker,
    Chains,
    TinyGroups,
    EndlessGroups,
    Fetches,
    Resubscribe,
    Updates,
    Questions,
    Listens,
    NeverReads,
    Grants,
    Halves,
    Resets,
    Datagrams,
    Probes,
    Setups,
    GoAway,
    Finish,
    Leave,
];

/// What takes honest viewers from their publisher where whoever announces a path is believed.
pub const TAKEOVERS: [Act; 2] = [HonestPath, HonestOrigin];

/// An honest publisher, as everybody knows it.
#[derive(Clone, Debug)]
pub struct Honest {
    pub path: String,
    pub track: String,
    pub hop: u64,
}

pub struct Hostile {
    r: Random,
    pub acts: Vec<Act>,
    /// How much it does in one step.
    scale: u64,
    honest: Vec<Honest>,
    conns: Vec<Conn>,
    steps: u64,
}

/// One of its connections.
#[derive(Debug)]
struct Conn {
    peer: usize,
    /// Paths that it has announced, by what for.
    paths: BTreeMap<Act, Vec<String>>,
    /// The next group of its tracks.
    next_group: u64,
    endless: Vec<u64>,
    subscriptions: Vec<u64>,
    listens: Vec<u64>,
    granted: u32,
    next_id: u64,
}

impl Hostile {
    /// `scale` is how much it does at a time: 1 is a nuisance, 12 a flood.
    pub fn new(
        w: &mut World,
        seed: u64,
        acts: Vec<Act>,
        scale: u64,
        honest: Vec<Honest>,
    ) -> Hostile {
        let mut hostile =
            Hostile { r: Random::new(seed), acts, scale, honest, conns: Vec::new(), steps: 0 };
        for _ in 0..1 + hostile.r.below(3) {
            hostile.join(w);
        }
        hostile
    }

    fn does(&self, act: Act) -> bool {
        self.acts.contains(&act)
    }

    fn join(&mut self, w: &mut World) {
        let shard = self.r.below(w.stage.shards as u64) as usize;
        let version =
            self.r.pick(&[Version::Lite03, Version::Lite05, Version::Lite06, Version::Lite06]);
        let mut spec = Spec::new(version, shard).hop(self.r.pick(&[0, 666, 666 + shard as u64]));
        (spec.is_rude, spec.is_swift) = (true, true);
        if self.r.one_in(4) {
            spec = spec.web();
        }
        if self.does(NeverReads) {
            spec.window = 20_000;
        }
        if self.does(Grants) {
            spec.uni_streams = 2;
        }
        if self.does(Setups) && version >= Version::Lite05 && self.r.one_in(2) {
            spec.raw_setup = Some(large_setup(60));
        }
        let granted = spec.uni_streams;
        let peer = w.arrive(spec);
        self.conns.push(Conn {
            peer,
            paths: BTreeMap::new(),
            next_group: 0,
            endless: Vec::new(),
            subscriptions: Vec::new(),
            listens: Vec::new(),
            granted,
            next_id: 1 << 20,
        });
    }

    /// Does some of what it does. Who is thrown out comes again.
    pub fn step(&mut self, w: &mut World) {
        self.steps += 1;
        for _ in 0..2 {
            let act = self.r.pick(&self.acts);
            let at = self.r.below(self.conns.len() as u64) as usize;
            let is_over =
                matches!(w.peers[self.conns[at].peer].state, State::Over(..) | State::Killed);
            if is_over {
                self.conns.remove(at);
                self.join(w);
            } else if w.peers[self.conns[at].peer].is_up() {
                let mut conn = self.conns.remove(at);
                self.act(w, &mut conn, act);
                self.conns.push(conn);
            }
        }
    }

    /// All its connections end, each in its own way.
    pub fn leave(&mut self, w: &mut World) {
        for conn in std::mem::take(&mut self.conns) {
            if w.peers[conn.peer].is_up() {
                part(w, conn.peer, self.r.below(3));
            }
        }
    }

    fn act(&mut self, w: &mut World, conn: &mut Conn, act: Act) {
        let scale = self.scale;
        match act {
            LongPaths => {
                let bytes = self.r.pick(&[900, 900, 60_000]);
                let count = (2 * scale as usize).min(64);
                self.announce(w, conn, act, count, "x".repeat(bytes).as_str());
                self.swap(w, conn, act, 4 * scale);
            }
            Prices => {
                self.announce(w, conn, act, (400 * scale as usize).min(9000), "");
                self.reprice(w, conn, 150 * scale);
            }
            Flicker => {
                self.announce(w, conn, act, (20 * scale) as usize, "");
                let paths = conn.paths.remove(&act).unwrap_or_default();
                for path in paths {
                    match self.r.one_in(2) {
                        true => w.peers[conn.peer].unannounce(&path),
                        false => conn.paths.entry(act).or_default().push(path),
                    }
                }
            }
            Chains => {
                self.announce(w, conn, act, (10 * scale) as usize, "");
                self.swap(w, conn, act, 10 * scale);
            }
            TinyGroups => {
                self.tiny_groups(w, conn, 60 * scale);
                self.reach_back(w, conn, 3 * scale);
            }
            EndlessGroups => self.endless_groups(w, conn),
            Fetches => {
                for _ in 0..10 * scale {
                    self.fetch(w, conn);
                }
            }
            Resubscribe => {
                for _ in 0..4 * scale {
                    let Some(sub) = self.subscribe(w, conn, None) else { break };
                    match self.r.below(3) {
                        0 => w.peers[conn.peer].write_raw(sub, &[], true),
                        1 => w.peers[conn.peer].reset_raw(sub, 7),
                        _ => conn.subscriptions.push(sub),
                    }
                }
                self.drop_some(w, conn, 4 * scale);
            }
            Updates => {
                if conn.subscriptions.len() < 8 {
                    let sub = self.subscribe(w, conn, None);
                    conn.subscriptions.extend(sub);
                }
                self.update(w, conn, 30 * scale);
            }
            Questions => {
                for n in 0..6 * scale {
                    let (broadcast, _) = self.some_track(conn);
                    let mut bytes = vec![BidiType::Track as u8];
                    let track = format!("nothing{}", self.steps * 100 + n);
                    TrackRequest { broadcast, track }.encode(&mut bytes);
                    w.peers[conn.peer].try_raw(Dir::Bi, &bytes, false);
                }
            }
            Listens => self.listen(w, conn, 3 * scale),
            NeverReads => {
                w.peers[conn.peer].read_groups(false);
                if conn.subscriptions.len() < 40 {
                    let sub = self.subscribe(w, conn, None);
                    conn.subscriptions.extend(sub);
                }
            }
            Grants => {
                if conn.subscriptions.len() < (20 * scale as usize).min(600) {
                    for _ in 0..4 {
                        let sub = self.subscribe(w, conn, None);
                        conn.subscriptions.extend(sub);
                    }
                }
                conn.granted += 1;
                w.peers[conn.peer].grant_uni(conn.granted);
            }
            Halves => {
                for _ in 0..3 * scale {
                    self.half(w, conn);
                }
            }
            Resets => self.resets(w, conn, 4 * scale),
            Datagrams => self.datagrams(w, conn, 20 * scale),
            Probes => {
                for _ in 0..3 * scale {
                    w.peers[conn.peer].try_raw(Dir::Bi, &[BidiType::Probe as u8], false);
                }
            }
            Setups => {
                let bytes = large_setup(20_000);
                w.peers[conn.peer].try_raw(Dir::Uni, &bytes, true);
            }
            GoAway if self.r.one_in(20) => w.peers[conn.peer].go_away(),
            Finish if self.r.one_in(20) => {
                self.announce(w, conn, Prices, (400 * scale as usize).min(9000), "");
                for stream in w.peers[conn.peer].announce_streams() {
                    w.peers[conn.peer].write_raw(stream, &[], true);
                }
            }
            Leave if self.r.one_in(20) => part(w, conn.peer, self.r.below(3)),
            GoAway | Finish | Leave => {}
            HonestPath | HonestOrigin => {
                let Honest { path, hop, .. } = self.some_honest();
                let hops = if act == HonestOrigin { vec![hop] } else { Vec::new() };
                w.peers[conn.peer].announce(&path, &hops, Cost::ZERO);
            }
        }
    }

    fn some_honest(&mut self) -> Honest {
        self.honest[self.r.below(self.honest.len() as u64) as usize].clone()
    }

    // ---- announcing ----

    /// Some more paths, up to so many.
    fn announce(&mut self, w: &mut World, conn: &mut Conn, act: Act, count: usize, tail: &str) {
        let known = conn.paths.entry(act).or_default();
        let more = count.saturating_sub(known.len()).min(1 + count / 2);
        for n in known.len()..known.len() + more {
            let path = format!("hostile/{}/{act:?}/{}-{n}{tail}", conn.peer, self.steps);
            let hops = self.hops(act);
            w.peers[conn.peer].announce(&path, &hops, Cost::ZERO);
            conn.paths.entry(act).or_default().push(path);
        }
    }

    fn hops(&mut self, act: Act) -> Vec<u64> {
        match act {
            Chains => {
                let (first, second) = (self.some_honest().hop, self.some_honest().hop);
                let random = 1 + self.r.below(1 << 40);
                let chains = [
                    vec![first],
                    vec![first, random],
                    vec![random, first],
                    if first == second { vec![random] } else { vec![first, second, random] },
                ];
                chains[self.r.below(4) as usize].clone()
            }
            _ if self.r.one_in(2) => vec![1, 2],
            _ => vec![2, 1],
        }
    }

    /// Other chains for some paths.
    fn swap(&mut self, w: &mut World, conn: &Conn, act: Act, count: u64) {
        let paths = conn.paths.get(&act).map_or(&[][..], Vec::as_slice);
        for _ in 0..count.min(paths.len() as u64) {
            let path = &paths[self.r.below(paths.len() as u64) as usize];
            let hops = self.hops(act);
            w.peers[conn.peer].announce(path, &hops, Cost::ZERO);
        }
    }

    fn reprice(&mut self, w: &mut World, conn: &Conn, count: u64) {
        let paths = conn.paths.get(&Prices).map_or(&[][..], Vec::as_slice);
        if paths.is_empty() {
            return;
        }
        let first = self.r.below(paths.len() as u64) as usize;
        let price = self.r.below(1000);
        for path in paths.iter().cycle().skip(first).take((count as usize).min(paths.len())) {
            let cost = Cost { warm: price, cold: price };
            w.peers[conn.peer].announce(path, &[1, 2], cost);
        }
    }

    /// Streams on which it is told of everything, some of which it drops.
    fn listen(&mut self, w: &mut World, conn: &mut Conn, count: u64) {
        for _ in 0..count {
            let prefix = self.r.pick(&["", "", "hostile", "live"]);
            let request = AnnounceRequest {
                prefix: Path::parse(prefix).expect("a valid prefix"),
                exclude_hop: 0,
            };
            let mut bytes = vec![BidiType::Announce as u8];
            request.encode(w.peers[conn.peer].version, &mut bytes);
            conn.listens.extend(w.peers[conn.peer].try_raw(Dir::Bi, &bytes, false));
        }
        while conn.listens.len() > 20 {
            let at = self.r.below(conn.listens.len() as u64) as usize;
            let stream = conn.listens.swap_remove(at);
            w.peers[conn.peer].reset_raw(stream, 0);
            w.peers[conn.peer].stop_raw(stream, 0);
        }
    }

    // ---- publishing ----

    /// The source of its track, which the relay may subscribe to.
    fn source(&mut self, w: &mut World, conn: &Conn) -> usize {
        let (path, _) = own_track(conn);
        if w.peers[conn.peer].sources.is_empty() {
            w.peers[conn.peer].announce(&path, &[], Cost::ZERO);
            w.peers[conn.peer].add_source(u64::MAX - conn.peer as u64, &path, "own");
        }
        0
    }

    fn tiny_groups(&mut self, w: &mut World, conn: &mut Conn, count: u64) {
        let source = self.source(w, conn);
        let peer = &mut w.peers[conn.peer];
        let Some(&subscribe_id) = peer.subscribe_ids(source).first() else { return };
        for _ in 0..count {
            let mut bytes = vec![UniType::Group as u8];
            let sequence = conn.next_group;
            GroupHeader { subscribe_id, sequence, frame_start: 0 }.encode(peer.version, &mut bytes);
            FrameHeader { timestamp_delta: sequence as i64, size: 1 }
                .encode(peer.version, &mut bytes);
            bytes.push(7);
            if peer.try_raw(Dir::Uni, &bytes, true).is_none() {
                return;
            }
            conn.next_group += 1;
        }
    }

    fn endless_groups(&mut self, w: &mut World, conn: &mut Conn) {
        let source = self.source(w, conn);
        let scale = self.scale;
        let peer = &mut w.peers[conn.peer];
        let Some(&subscribe_id) = peer.subscribe_ids(source).first() else { return };
        if conn.endless.len() < 4 * scale as usize {
            let mut bytes = vec![UniType::Group as u8];
            let sequence = conn.next_group;
            GroupHeader { subscribe_id, sequence, frame_start: 0 }.encode(peer.version, &mut bytes);
            conn.next_group += 1;
            conn.endless.extend(peer.try_raw(Dir::Uni, &bytes, false));
        }
        for stream in &conn.endless {
            let mut bytes = Vec::new();
            let size = self.r.pick(&[0, 0, 1000]);
            FrameHeader { timestamp_delta: 0, size }.encode(peer.version, &mut bytes);
            bytes.resize(bytes.len() + size as usize, 7);
            peer.write_raw(*stream, &bytes, false);
        }
    }

    fn datagrams(&mut self, w: &mut World, conn: &mut Conn, count: u64) {
        let source = self.source(w, conn);
        let peer = &mut w.peers[conn.peer];
        let ids = peer.subscribe_ids(source);
        for _ in 0..count {
            let mut bytes = vec![0; self.r.below(60) as usize];
            self.r.fill(&mut bytes);
            if let (Some(&subscribe_id), false) = (ids.first(), self.r.one_in(4)) {
                let payload = bytes.into();
                let (sequence, timestamp) = (conn.next_group, conn.next_group);
                conn.next_group += 1;
                bytes = Vec::new();
                Datagram { subscribe_id, sequence, timestamp, payload }.encode(&mut bytes);
            }
            peer.raw_datagram(&bytes);
        }
    }

    // ---- asking ----

    /// A track of its own, of another of its connections, or of an honest publisher.
    fn some_track(&mut self, conn: &Conn) -> (Path, String) {
        let (path, track) = match self.r.below(3) {
            0 => {
                let Honest { path, track, .. } = self.some_honest();
                (path, track)
            }
            1 if !self.conns.is_empty() => {
                let at = self.r.below(self.conns.len() as u64) as usize;
                own_track(&self.conns[at])
            }
            _ => own_track(conn),
        };
        (Path::parse(&path).expect("a valid path"), track)
    }

    fn preferences(&mut self, conn: &Conn) -> Preferences {
        let last = conn.next_group.max(20);
        let first = self.r.one_in(2).then(|| self.r.below(last));
        let end = self.r.one_in(4).then(|| first.unwrap_or(0) + self.r.below(last));
        let priority = self.r.pick(&[0, 128, 255]);
        let max_age_ms = self.r.pick(&[0, 100, AGES]);
        Preferences { priority, max_age_ms, ..range(first, end) }
    }

    fn subscribe(
        &mut self,
        w: &mut World,
        conn: &mut Conn,
        track: Option<(Path, String)>,
    ) -> Option<u64> {
        let (broadcast, track) = track.unwrap_or_else(|| self.some_track(conn));
        let preferences = self.preferences(conn);
        conn.next_id += 1;
        let mut bytes = vec![BidiType::Subscribe as u8];
        let subscribe = Subscribe { id: conn.next_id, broadcast, track, preferences };
        subscribe.encode(w.peers[conn.peer].version, &mut bytes);
        w.peers[conn.peer].try_raw(Dir::Bi, &bytes, false)
    }

    /// Subscriptions to its own track, from all its connections, and updates of them.
    fn reach_back(&mut self, w: &mut World, conn: &mut Conn, count: u64) {
        let (path, track) = own_track(conn);
        let path = Path::parse(&path).expect("a valid path");
        for at in 0..self.conns.len() {
            let mut other = self.conns.remove(at);
            if w.peers[other.peer].is_up() {
                for _ in 0..count {
                    let sub = self.subscribe(w, &mut other, Some((path.clone(), track.clone())));
                    other.subscriptions.extend(sub);
                }
                self.update(w, &other, 4 * count);
                self.drop_some(w, &mut other, count / 2);
            }
            self.conns.insert(at, other);
        }
        let sub = self.subscribe(w, conn, Some((path, track)));
        conn.subscriptions.extend(sub);
        self.update(w, conn, count);
    }

    fn update(&mut self, w: &mut World, conn: &Conn, count: u64) {
        if conn.subscriptions.is_empty() {
            return;
        }
        for _ in 0..count {
            let sub = conn.subscriptions[self.r.below(conn.subscriptions.len() as u64) as usize];
            let mut bytes = Vec::new();
            let wanted = self.preferences(conn);
            wanted.encode_update(w.peers[conn.peer].version, &mut bytes);
            w.peers[conn.peer].write_raw(sub, &bytes, false);
        }
    }

    fn drop_some(&mut self, w: &mut World, conn: &mut Conn, count: u64) {
        for _ in 0..count.min(conn.subscriptions.len() as u64) {
            let at = self.r.below(conn.subscriptions.len() as u64) as usize;
            let sub = conn.subscriptions.swap_remove(at);
            match self.r.one_in(2) {
                true => w.peers[conn.peer].write_raw(sub, &[], true),
                false => w.peers[conn.peer].stop_raw(sub, 0),
            }
        }
    }

    fn fetch(&mut self, w: &mut World, conn: &Conn) -> Option<()> {
        let (broadcast, track) = self.some_track(conn);
        let group = self.r.below(conn.next_group.max(40));
        let priority = self.r.pick(&[0, 128, 255]);
        let fetch = Fetch { broadcast, track, priority, group, frame_start: 0, frame_end: None };
        let mut bytes = vec![BidiType::Fetch as u8];
        fetch.encode(w.peers[conn.peer].version, &mut bytes);
        let stream = w.peers[conn.peer].try_raw(Dir::Bi, &bytes, false)?;
        if self.r.one_in(4) {
            w.peers[conn.peer].reset_raw(stream, 0);
            w.peers[conn.peer].stop_raw(stream, 0);
        }
        Some(())
    }

    // ---- disorder ----

    fn half(&mut self, w: &mut World, conn: &Conn) -> Option<()> {
        let kind = self.r.pick(&[1, 2, 3, 4, 5, 6, 0x20, 0x3f]);
        // A message of 30 kB, of which some comes.
        let mut bytes = vec![kind, 0x80, 0, 0x75, 0x30];
        let dir = if self.r.one_in(4) { Dir::Uni } else { Dir::Bi };
        let size = self.r.pick(&[1, 40, 1000, 20_000]);
        bytes.truncate(1 + self.r.below(5) as usize);
        bytes.resize(bytes.len() + size, 1);
        w.peers[conn.peer].try_raw(dir, &bytes, false)?;
        Some(())
    }

    fn resets(&mut self, w: &mut World, conn: &Conn, count: u64) {
        for _ in 0..count {
            let peer = &mut w.peers[conn.peer];
            let raws: Vec<u64> = peer.raws.keys().rev().take(50).copied().collect();
            let announcing = peer.announce_streams();
            let known = if self.r.one_in(40) { &announcing } else { &raws };
            if known.is_empty() {
                continue;
            }
            let stream = known[self.r.below(known.len() as u64) as usize];
            match self.r.one_in(2) {
                true => peer.reset_raw(stream, 7),
                false => peer.stop_raw(stream, 7),
            }
        }
    }
}

/// The path and the name of the track of a connection.
fn own_track(conn: &Conn) -> (String, String) {
    (format!("hostile/{}", conn.peer), "own".to_owned())
}

/// A SETUP with so many parameters that mean nothing.
fn large_setup(count: u64) -> Vec<u8> {
    let mut body = Vec::new();
    encode_varint(count, &mut body);
    for id in 0..count {
        encode_varint(100 + id, &mut body);
        encode_varint(0, &mut body);
    }
    let mut bytes = vec![UniType::Setup as u8];
    encode_varint(body.len() as u64, &mut bytes);
    bytes.extend(body);
    bytes
}

fn part(w: &mut World, peer: usize, way: u64) {
    match way {
        0 => w.close(peer),
        1 => w.kill(peer),
        _ => w.hang_up(peer),
    }
}
