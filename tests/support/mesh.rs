//! Relays that are linked in some shape, in the simulated world: who is linked to whom, what is published where,
//! and what should be known where, by nothing but which links there are.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use shardcast::cluster::{LinkId, News};
use shardcast::limits::{STRAY_TRACK_GRACE, WORSE_WAY_HOLD};
use shardcast::route::SessionRef;
use shardcast::session::Call;
use shardcast::wire::*;

use super::network::Random;
use super::peer::*;
use super::world::*;

/// What has changed is known everywhere after this, as soon as those know it whom it is about.
pub const CONVERGED: Duration = Duration::from_secs(1);

/// The same where a way has ended and a worse one is left: that is not told at once.
pub const GONE_AROUND: Duration = WORSE_WAY_HOLD.saturating_add(CONVERGED);

/// And stays so, whatever was held back for a while.
const STAYS: Duration = Duration::from_millis(2500);

/// From the end of a link to the next try to have it back.
const REDIAL: Duration = Duration::from_millis(100);

const STEP: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    Line,
    Ring,
    Tree,
    Full,
    /// A tree, and so many links beside it.
    Random(usize),
}

impl Shape {
    /// Who dials whom.
    pub fn edges(self, relays: usize, random: &mut Random) -> Vec<(usize, usize)> {
        let line = (1..relays).map(|at| (at, at - 1));
        match self {
            Shape::Line => line.collect(),
            Shape::Ring => line.chain([(0, relays - 1)]).collect(),
            Shape::Tree => (1..relays).map(|at| (at, (at - 1) / 2)).collect(),
            Shape::Full => (1..relays).flat_map(|at| (0..at).map(move |to| (at, to))).collect(),
            Shape::Random(more) => {
                let tree = (1..relays).map(|at| (at, random.below(at as u64) as usize));
                let mut edges: Vec<_> = tree.collect();
                while edges.len() < relays - 1 + more {
                    let [a, b] = [0; 2].map(|_| random.below(relays as u64) as usize);
                    if a != b && !edges.iter().any(|edge| [(a, b), (b, a)].contains(edge)) {
                        edges.push((a, b));
                    }
                }
                edges
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Whole,
    /// Nothing passes, and nobody says so.
    Silent,
    /// Whoever has dialled has hung up.
    HungUp,
}

pub struct Edge {
    pub from: usize,
    pub to: usize,
    pub way: Way,
    pub link: Option<LinkId>,
    is_up: bool,
    dials_at: Instant,
}

pub struct Node {
    pub is_up: bool,
    /// Who listens there, and who watches.
    pub listener: usize,
    pub viewer: usize,
    /// What it has said is known as far as here.
    heard: usize,
    guests: HashSet<SessionRef>,
}

/// A broadcast of one track.
pub struct Show {
    pub path: String,
    pub relay: usize,
    pub hop: u64,
    /// Nobody publishes it at the moment where there is none.
    pub track: Option<Track>,
    /// Whoever is there is at this peer's address.
    pub house: Option<usize>,
    pub next_group: u64,
    pub open: Option<u64>,
}

pub struct Mesh {
    pub w: World,
    pub edges: Vec<Edge>,
    pub nodes: Vec<Node>,
    pub shows: Vec<Show>,
    pub subs: BTreeMap<(usize, String), Sub>,
    pub random: Random,
    version: Version,
    changed_at: Instant,
    /// The longest that it took until what had changed was known everywhere.
    pub slowest: Duration,
    /// What relays had told and been told before they were killed.
    retired: (u64, u64),
    dials: usize,
}

impl Mesh {
    pub fn new(shape: Shape, stage: Stage) -> Mesh {
        Mesh::of(shape, stage, Version::Lite06)
    }

    /// Whose audience speaks this.
    pub fn of(shape: Shape, stage: Stage, version: Version) -> Mesh {
        let mut random = Random::new(stage.seed ^ 0x3e54);
        let w = World::new(stage);
        let edges = shape.edges(stage.relays, &mut random);
        let edge = |(from, to)| Edge {
            from,
            to,
            way: Way::Whole,
            link: None,
            is_up: false,
            dials_at: w.now,
        };
        let edges = edges.into_iter().map(edge).collect();
        let now = w.now;
        let mut mesh = Mesh {
            w,
            edges,
            nodes: Vec::new(),
            shows: Vec::new(),
            subs: BTreeMap::new(),
            random,
            version,
            changed_at: now,
            slowest: Duration::ZERO,
            retired: (0, 0),
            dials: 0,
        };
        for relay in 0..stage.relays {
            let [listener, viewer] = mesh.audience(relay);
            let guests = HashSet::new();
            mesh.nodes.push(Node { is_up: true, listener, viewer, heard: 0, guests });
        }
        mesh.calm();
        mesh
    }

    fn audience(&mut self, relay: usize) -> [usize; 2] {
        let shard = self.random.below(self.w.stage.shards as u64) as usize;
        let spec = Spec { relay, ..Spec::new(self.version, shard) };
        let [listener, viewer] = [0; 2].map(|_| self.w.join(spec.clone()));
        self.w.peers[listener].listen("", 0);
        [listener, viewer]
    }

    // ---- links ----

    pub fn edge_between(&self, a: usize, b: usize) -> usize {
        let is_it = |edge: &Edge| [(a, b), (b, a)].contains(&(edge.from, edge.to));
        self.edges.iter().position(is_it).expect("they are linked")
    }

    fn is_whole(&self, edge: &Edge) -> bool {
        edge.way == Way::Whole && self.nodes[edge.from].is_up && self.nodes[edge.to].is_up
    }

    pub fn set_way(&mut self, edge: usize, way: Way) {
        let Edge { from, to, link, .. } = self.edges[edge];
        self.edges[edge].way = way;
        self.w.cut(from, to, way == Way::Silent);
        if let Some(link) = link.filter(|_| way == Way::HungUp) {
            self.w.unlink(from, link);
        }
        self.changed();
    }

    pub fn kill_relay(&mut self, relay: usize) {
        self.nodes[relay].is_up = false;
        self.w.kill_relay(relay);
        let Node { listener, viewer, .. } = self.nodes[relay];
        self.w.kill(listener);
        self.w.kill(viewer);
        for at in 0..self.shows.len() {
            if self.shows[at].relay == relay && self.shows[at].track.is_some() {
                self.stop(at, true);
            }
        }
        self.subs.retain(|(at, _), _| *at != relay);
        for edge in self.edges.iter_mut().filter(|edge| edge.from == relay) {
            (edge.link, edge.is_up) = (None, false);
        }
        self.changed();
    }

    pub fn return_relay(&mut self, relay: usize) {
        let counts = self.counts_of(relay);
        self.retired = (self.retired.0 + counts.0, self.retired.1 + counts.1);
        self.w.return_relay(relay);
        let [listener, viewer] = self.audience(relay);
        let guests = HashSet::new();
        self.nodes[relay] = Node { is_up: true, listener, viewer, heard: 0, guests };
        self.changed();
    }

    fn changed(&mut self) {
        self.changed_at = self.changed_at.max(self.w.now);
    }

    /// Lets a little time pass, and dials what is not there.
    pub fn step(&mut self) {
        self.w.run(STEP);
        for relay in 0..self.nodes.len() {
            let news = self.w.said(relay)[self.nodes[relay].heard..].to_vec();
            self.nodes[relay].heard += news.len();
            if !news.is_empty() {
                self.changed();
            }
            for news in news {
                self.hear(relay, news);
            }
        }
        for at in 0..self.edges.len() {
            let edge = &self.edges[at];
            if edge.link.is_none() && self.is_whole(edge) && edge.dials_at <= self.w.now {
                self.dials += 1;
                let shard = self.dials % self.w.stage.shards;
                let link = self.w.dial(edge.from, shard, edge.to, Call::default());
                self.edges[at].link = Some(link);
            }
        }
    }

    fn hear(&mut self, relay: usize, news: News) {
        let now = self.w.now;
        let with = |edges: &mut Vec<Edge>, link, change: fn(&mut Edge, Instant)| {
            let mut its = edges.iter_mut().filter(|edge| edge.link == Some(link));
            its.next().into_iter().for_each(|edge| change(edge, now));
        };
        match news {
            News::Up { link, .. } => with(&mut self.edges, link, |edge, _| edge.is_up = true),
            News::Down { link, .. } => with(&mut self.edges, link, |edge, now| {
                (edge.link, edge.is_up, edge.dials_at) = (None, false, now + REDIAL);
            }),
            News::Guest { session, .. } => {
                self.nodes[relay].guests.insert(session);
            }
            News::GuestLeft { session } => {
                self.nodes[relay].guests.remove(&session);
            }
            News::Leaving { .. } => {}
        }
    }

    /// Whether both ends of every link know how it is.
    fn are_links_settled(&self) -> bool {
        let are_dialled = self
            .edges
            .iter()
            .all(|edge| if self.is_whole(edge) { edge.is_up } else { edge.link.is_none() });
        let guests = |relay: usize| {
            let its = self.edges.iter().filter(|edge| edge.to == relay && self.is_whole(edge));
            its.count()
        };
        let mut nodes = self.nodes.iter().enumerate().filter(|(_, node)| node.is_up);
        are_dialled && nodes.all(|(at, node)| node.guests.len() == guests(at))
    }

    // ---- what is published ----

    pub fn publish(&mut self, path: &str, relay: usize, hop: u64) -> usize {
        let show = Show {
            path: path.to_owned(),
            relay,
            hop,
            track: None,
            house: None,
            next_group: 0,
            open: None,
        };
        self.shows.push(show);
        self.start(self.shows.len() - 1);
        self.shows.len() - 1
    }

    /// Whoever publishes it is there, or back: the same by name and address, and with nothing of before.
    pub fn start(&mut self, show: usize) {
        let Show { path, relay, hop, house, .. } = &self.shows[show];
        let (path, relay, house) = (path.clone(), *relay, *house);
        let shard = self.random.below(self.w.stage.shards as u64) as usize;
        let spec = Spec { relay, house, ..Spec::new(self.version, shard) }.hop(*hop);
        let peer = self.w.join(spec);
        self.w.peers[peer].announce(&path, &[], Cost::ZERO);
        let track = self.w.track(peer, &path, "video");
        let its = &mut self.shows[show];
        (its.track, its.next_group, its.open) = (Some(track), 0, None);
        its.house.get_or_insert(peer);
        self.changed();
    }

    /// It is over; nobody says so, if they are killed.
    pub fn stop(&mut self, show: usize, is_killed: bool) {
        let track = self.shows[show].track.take().expect("somebody publishes it");
        match is_killed {
            true => {
                self.w.kill(track.peer);
                // Nobody can know it before.
                self.changed_at = self.changed_at.max(self.w.now + LOSS_NOTICED);
            }
            false => self.w.close(track.peer),
        }
        self.changed();
    }

    /// A group of everything that is published, in two steps with time between.
    pub fn film(&mut self) {
        self.film_at(|_| true);
    }

    fn film_at(&mut self, is_meant: fn(&Show) -> bool) {
        for show in self.shows.iter_mut().filter(|show| is_meant(show)) {
            let Some(track) = show.track else { continue };
            match show.open.take() {
                Some(open) => {
                    self.w.frame(track, open, 700);
                    self.w.end_group(track, open, End::Finished);
                }
                None => {
                    self.w.open_group(track, show.next_group);
                    self.w.frame(track, show.next_group, 300);
                    show.open = Some(show.next_group);
                    show.next_group += 1;
                }
            }
        }
    }

    /// Whoever is told of something watches it.
    pub fn watch(&mut self) {
        for relay in 0..self.nodes.len() {
            for path in self.expected(relay) {
                let viewer = self.nodes[relay].viewer;
                let key = (relay, path);
                let is_over = |sub: &Sub| sub.peer != viewer || self.w.sub(*sub).end.is_some();
                if self.subs.get(&key).is_none_or(is_over) {
                    let sub = self.w.subscribe(viewer, &key.1, "video", live());
                    self.subs.insert(key, sub);
                }
            }
        }
    }

    /// Lets time pass in which all of that goes on.
    pub fn live(&mut self, time: Duration) {
        let until = self.w.now + time;
        while self.w.now < until {
            self.film();
            self.watch();
            for _ in 0..3 {
                self.step();
            }
        }
    }

    /// Whoever is told of something is given whatever is made from now on, in the middle of which this is; and
    /// nobody else is.
    #[track_caller]
    pub fn plays(&mut self) {
        // What somebody watches that his relay knows no way to any more has had its time.
        self.w.run(STRAY_TRACK_GRACE + CONVERGED);
        self.watch();
        self.w.run(CONVERGED);
        self.film_at(|show| show.open.is_some());
        self.w.run(CONVERGED);
        self.w.all_settled();
        let got = |mesh: &Mesh| -> Vec<((usize, String), usize)> {
            let subs = mesh.subs.iter();
            subs.map(|(key, sub)| (key.clone(), mesh.w.got(*sub).len())).collect()
        };
        let before = got(self);
        const GROUPS: usize = 3;
        for _ in 0..2 * GROUPS {
            self.film();
            self.w.run(STEP);
        }
        self.w.run(CONVERGED);
        for (((relay, path), before), (_, now)) in before.into_iter().zip(got(self)) {
            let is_due = self.expected(relay).contains(&path);
            let due = before + if is_due { GROUPS } else { 0 };
            let end = self.w.sub(self.subs[&(relay, path.clone())]).end;
            let since = self.w.since_start();
            assert_eq!(now, due, "{path} at relay {relay}, due: {is_due}, {end:?}, at {since:?}");
        }
    }

    /// Everything is joined again.
    pub fn heal(&mut self) {
        for relay in 0..self.nodes.len() {
            if !self.nodes[relay].is_up {
                self.return_relay(relay);
            }
        }
        for edge in 0..self.edges.len() {
            self.set_way(edge, Way::Whole);
        }
    }

    // ---- what should be so ----

    /// Routes that a relay may have to what is published at another one: from each neighbour that can reach it in
    /// another way than through this relay.
    pub fn ways(&self, relay: usize, publisher: usize) -> usize {
        if relay == publisher {
            return 1;
        }
        let beyond = self.joined_without(publisher, Some(relay));
        let whole = self.edges.iter().filter(|edge| self.is_whole(edge));
        let its = whole.filter(|edge| {
            edge.from == relay && beyond.contains(&edge.to)
                || edge.to == relay && beyond.contains(&edge.from)
        });
        its.count()
    }

    /// The relays that a relay is joined to.
    pub fn joined(&self, relay: usize) -> BTreeSet<usize> {
        self.joined_without(relay, None)
    }

    fn joined_without(&self, relay: usize, without: Option<usize>) -> BTreeSet<usize> {
        let mut joined = BTreeSet::from([relay]);
        let mut left = vec![relay];
        while let Some(at) = left.pop() {
            for edge in self.edges.iter().filter(|edge| self.is_whole(edge)) {
                let there = match () {
                    () if edge.from == at => edge.to,
                    () if edge.to == at => edge.from,
                    () => continue,
                };
                if Some(there) != without && joined.insert(there) {
                    left.push(there);
                }
            }
        }
        joined
    }

    /// What is to be known at a relay.
    pub fn expected(&self, relay: usize) -> Vec<String> {
        if !self.nodes[relay].is_up {
            return Vec::new();
        }
        let joined = self.joined(relay);
        let live = self.shows.iter().filter(|show| show.track.is_some());
        let there = live.filter(|show| joined.contains(&show.relay));
        let paths: BTreeSet<String> = there.map(|show| show.path.clone()).collect();
        paths.into_iter().collect()
    }

    pub fn known(&self, relay: usize) -> Vec<String> {
        self.w.peers[self.nodes[relay].listener].listens[0].live()
    }

    fn disagreement(&self) -> Option<String> {
        let up = (0..self.nodes.len()).filter(|relay| self.nodes[*relay].is_up);
        let mut wrong = up.filter(|relay| self.known(*relay) != self.expected(*relay));
        let at = wrong.next()?;
        let (known, expected) = (self.known(at), self.expected(at));
        Some(format!("relay {at} knows {known:?} instead of {expected:?}"))
    }

    /// Waits until whoever is at the end of a link knows how that is; then all is known everywhere, within the
    /// time for that, and stays so.
    #[track_caller]
    pub fn calm(&mut self) {
        self.calm_within(CONVERGED);
    }

    #[track_caller]
    pub fn calm_within(&mut self, time: Duration) {
        let begun = self.w.now;
        loop {
            self.step();
            let is_late = self.w.now >= self.changed_at + time;
            let is_known = self.w.now >= self.changed_at;
            let agree = is_known && self.disagreement().is_none();
            if self.are_links_settled() && (is_late || agree) {
                break;
            }
            let edges = self.edges.iter().map(|edge| (edge.from, edge.to, edge.way, edge.is_up));
            assert!(
                self.w.now < begun + 4 * LOSS_NOTICED,
                "links do not come to rest: {:?}",
                edges.collect::<Vec<_>>()
            );
        }
        let since = self.w.since_start();
        assert_eq!(self.disagreement(), None, "at {since:?}");
        self.slowest = self.slowest.max(self.w.now.saturating_duration_since(self.changed_at));
        let until = self.w.now + STAYS;
        while self.w.now < until {
            self.step();
            let since = self.w.since_start();
            assert_eq!(self.disagreement(), None, "at {since:?}, later");
        }
    }

    /// What a relay has told its peers of announcements so far, and what it was told that had passed it before.
    fn counts_of(&self, relay: usize) -> (u64, u64) {
        let mut sums = (0, 0);
        for shard in 0..self.w.stage.shards {
            let counts = self.w.session_counts(self.w.core_of(relay, shard));
            let sent = &counts.sent;
            sums.0 += sent.announces_started + sent.announces_ended + counts.announces_changed;
            sums.1 += counts.announces_reflected;
        }
        sums
    }

    /// Announcements that relays have told each other, with one end of each that a lost session held.
    pub fn messages(&self) -> u64 {
        let told: u64 = (0..self.nodes.len()).map(|relay| self.counts_of(relay).0).sum();
        let listens = self.w.peers.iter().flat_map(|peer| &peer.listens);
        let heard = listens.flat_map(|listen| &listen.heard).filter(|line| *line != ".").count();
        self.retired.0 + told - heard as u64
    }

    pub fn reflected(&self) -> u64 {
        self.retired.1 + (0..self.nodes.len()).map(|relay| self.counts_of(relay).1).sum::<u64>()
    }
}
