//! A whole relay in one thread on a virtual clock, or several: N shards joined by real mail, a simulated
//! network with faults, and peers of our own. The same seed plays the same history.
//!
//! A play says what peers do and lets time pass. Meanwhile the world compares every frame that a
//! viewer gets with what the publisher made, and ends the play at the first difference.

mod company;
mod fetches;
mod founding;
mod guests;
mod judge;
mod keys;
#[allow(dead_code, reason = "few plays have more than one relay")]
pub mod links;
mod publishing;
mod runs;
mod sockets;
mod time;
mod viewing;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use shardcast::access::Access;
use shardcast::authority;
use shardcast::limits::{
    CACHE_DURATION_DEFAULT, IDLE_TIMEOUT, KEEP_ALIVE, LINGER_DEFAULT, MISSING_GRACE_MAX,
    MUX_IDLE_TIMEOUT, SESSIONS_PER_SOURCE_DEFAULT, SESSIONS_PER_TOKEN_DEFAULT,
};
use shardcast::mailbox::Outside;
use shardcast::quic::{CongestionControl, Controllers};
use shardcast::route::Takeover;
use shardcast::session::Counts as SessionCounts;
use shardcast::shard::guest::Unread;
use shardcast::shard::message::ToShard;
use shardcast::shard::placement::home_of;
use shardcast::shard::visits::Visits;
use shardcast::shard::{CacheBounds, Counters, Held};
use shardcast::wire::*;

use super::network::{History, Network, Random, Weather};
use super::peer::{End, Peer, Seen, Source, Subscription, covers};
use founding::{Core, Founding};
pub use guests::Guest;
pub use judge::FRAME_BYTES_TELLING;
use links::{Links, Ways};
pub use publishing::Track;
use sockets::Socket;
pub use viewing::{Get, Sub, from_frame, live, range, whole};

/// The hop id of the first relay.
pub const HOP: u64 = 1000;

/// A cache that no play fills.
pub const CACHE_BYTES: u64 = 1 << 30;

/// The time of day at which a play begins.
pub const EPOCH: Duration = Duration::from_millis(1_800_000_000_250);

/// A budget that no play spends.
pub const MEMORY_BYTES: u64 = 1 << 40;

/// A peer that falls silent is noticed after this. The relay's first unanswered keep-alive starts
/// the idle timeout anew (RFC 9000 §10.1), and no such thing is on TCP.
pub const LOSS_NOTICED: Duration = {
    let quic = IDLE_TIMEOUT.saturating_add(KEEP_ALIVE);
    let longer =
        if quic.as_millis() > MUX_IDLE_TIMEOUT.as_millis() { quic } else { MUX_IDLE_TIMEOUT };
    longer.saturating_add(Duration::from_secs(1))
};

/// Every shard knows of what one has heard, whatever its mail has to wait for.
const EVERYWHERE: Duration = Duration::from_secs(3);

pub fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// What a world is like.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    pub seed: u64,
    pub shards: usize,
    /// Each with so many shards.
    pub relays: usize,
    /// What relays speak with whoever offers it.
    pub prefers: Option<Version>,
    /// Mail that fits between two shards.
    pub lanes: usize,
    /// Shares, per mille: datagrams given to a random shard; trains that find a full socket, or
    /// that the host refuses.
    pub strays: u64,
    pub blocked: u64,
    pub refused: u64,
    pub linger: Duration,
    pub cache: CacheBounds,
    /// What the peers of one shard may make it hold.
    pub memory: u64,
    /// What routes may take on one shard.
    pub routes: u64,
    /// Sessions that there may be from one address and with one token, and where addresses do not count.
    pub per_source: u32,
    pub per_token: u32,
    pub exempt: Option<IpNet>,
    pub congestion_control: CongestionControl,
    /// Every peer is believed as a relay is; else those at the address of one.
    pub trusts_all: bool,
    pub takeover: Takeover,
}

impl Stage {
    pub fn new(seed: u64, shards: usize) -> Stage {
        let cache = CacheBounds { bytes: CACHE_BYTES, duration: CACHE_DURATION_DEFAULT };
        Stage {
            seed,
            shards,
            relays: 1,
            prefers: None,
            lanes: 1024,
            strays: 0,
            blocked: 0,
            refused: 0,
            linger: LINGER_DEFAULT,
            cache,
            memory: MEMORY_BYTES,
            routes: u64::MAX,
            per_source: SESSIONS_PER_SOURCE_DEFAULT,
            per_token: SESSIONS_PER_TOKEN_DEFAULT,
            exempt: None,
            congestion_control: CongestionControl::default(),
            trusts_all: true,
            takeover: Takeover::Allowed,
        }
    }

    /// Between the network and a session nothing is lost.
    fn is_sure(&self) -> bool {
        self.strays == 0 && self.refused == 0
    }
}

pub struct World {
    pub stage: Stage,
    founding: Founding,
    started: Instant,
    pub now: Instant,
    pub random: Random,
    pub network: Network,
    /// Relay after relay.
    cores: Vec<Core>,
    links: Vec<Links>,
    ways: Ways,
    /// Of relays that were killed and are back.
    lives: u8,
    pub peers: Vec<Peer>,
    addresses: BTreeMap<SocketAddr, usize>,
    sockets: Vec<Socket>,
    pub history: History,
    /// Groups may be given up for their age in this play.
    pub groups_expire: bool,
    /// The cache may let go of groups that somebody still has to get.
    pub groups_are_evicted: bool,
    /// Not everybody may watch everything; the play says who may.
    pub some_are_refused: bool,
    /// How long a shard takes for each thing that a turn looks at.
    pub visit_time: Duration,
    /// Told when a shard begins to do something, and when that is done.
    pub in_relay: fn(bool),
    /// Groups that viewers had to get, and got; the same of datagrams.
    pub groups_confirmed: usize,
    pub datagrams_confirmed: usize,
    /// When a viewer first had something of each film.
    shown_at: BTreeMap<u64, Instant>,
    /// The way into each shard from outside.
    outsides: Vec<Outside<ToShard>>,
    unread: Arc<Unread>,
    guests: u64,
}

impl World {
    pub fn new(stage: Stage) -> World {
        World::with_controllers(stage, stage.congestion_control.controllers())
    }

    /// One whose connections have other controllers than the stage says.
    pub fn with_controllers(stage: Stage, controllers: Controllers) -> World {
        World::with(stage, controllers, Access::open(), None)
    }

    /// One where not everybody may do everything.
    pub fn with_access(stage: Stage, access: Access) -> World {
        World::with(stage, stage.congestion_control.controllers(), access, None)
    }

    /// One where somebody is asked who may do what.
    pub fn with_authority(stage: Stage, authority: authority::Handle) -> World {
        let controllers = stage.congestion_control.controllers();
        World::with(stage, controllers, Access::default(), Some(authority))
    }

    fn with(
        stage: Stage,
        controllers: Controllers,
        access: Access,
        authority: Option<authority::Handle>,
    ) -> World {
        let mut random = Random::new(stage.seed);
        let started = Instant::now();
        let mut network = Network::new(random.next(), stage.shards);
        network.strays = stage.strays;
        let founding = Founding { controllers, access: Arc::new(access), authority };
        let (mut cores, mut outsides, mut links) = (Vec::new(), Vec::new(), Vec::new());
        for relay in 0..stage.relays {
            let founded = founding.relay(&stage, (relay, 0), &mut random, (started, started));
            cores.extend(founded.0);
            outsides.extend(founded.1);
            links.push(founded.2);
        }
        World {
            stage,
            founding,
            started,
            now: started,
            random,
            network,
            cores,
            links,
            ways: Ways::default(),
            lives: 0,
            peers: Vec::new(),
            addresses: BTreeMap::new(),
            sockets: Vec::new(),
            history: History::new(),
            groups_expire: false,
            groups_are_evicted: stage.cache.bytes < CACHE_BYTES
                || stage.cache.duration < CACHE_DURATION_DEFAULT,
            some_are_refused: false,
            visit_time: Duration::ZERO,
            in_relay: |_| {},
            groups_confirmed: 0,
            datagrams_confirmed: 0,
            shown_at: BTreeMap::new(),
            outsides,
            unread: Unread::new(1 << 30),
            guests: 0,
        }
    }

    pub fn tell(&mut self, shard: usize, mail: ToShard) {
        assert!(self.outsides[shard].send(mail).is_ok(), "the lane is full");
    }

    /// From now on this is who may do what.
    pub fn set_access(&mut self, access: Access) {
        let access = Arc::new(access);
        for shard in 0..self.cores.len() {
            self.tell(shard, ToShard::Access(access.clone()));
        }
    }

    /// Whether memory is short, on all shards.
    pub fn set_short(&mut self, is_short: bool) {
        for core in &mut self.cores {
            core.shard.set_short(is_short);
            core.is_runnable = true;
        }
    }

    /// Somebody sets the clock of the relay's machine.
    pub fn set_clock(&mut self, unix: Duration) {
        for core in &mut self.cores {
            core.shard.set_wall(self.now, unix);
            core.is_runnable = true;
        }
    }

    /// A shard gets no time for a while.
    pub fn stall(&mut self, shard: usize, time: Duration) {
        self.cores[shard].stalled_until = self.now + time;
    }

    /// A shard's socket takes nothing, or everything again.
    pub fn block(&mut self, shard: usize, is_blocked: bool) {
        self.cores[shard].port.blocked = if is_blocked { 1000 } else { 0 };
    }

    /// Turns of a shard after which it wanted another one at once.
    pub fn busy_turns(&self, shard: usize) -> u64 {
        self.cores[shard].busy_turns
    }

    /// The turn of a shard that looked at most.
    pub fn heaviest(&self, shard: usize) -> Visits {
        self.cores[shard].heaviest
    }

    pub fn session_counts(&self, shard: usize) -> &SessionCounts {
        self.cores[shard].shard.session_counts()
    }

    pub fn counters(&self, shard: usize) -> Counters {
        self.cores[shard].shard.counters()
    }

    /// How long each shard's next turn may wait for company.
    pub fn paces(&self) -> Vec<Duration> {
        self.cores.iter().map(|core| core.shard.pace(self.now)).collect()
    }

    pub fn held(&self) -> Vec<Held> {
        self.cores.iter().map(|core| core.shard.held()).collect()
    }

    /// News of routes that wait for shards that do not keep up.
    pub fn untold(&self) -> usize {
        self.cores.iter().map(|core| core.shard.untold()).sum()
    }

    /// Announced paths that the listeners of all shards hold, each on each of its streams.
    pub fn told(&self) -> usize {
        self.cores.iter().map(|core| core.shard.told()).sum()
    }

    // ---- judging ----

    /// A subscription that ended cleanly, or one at the end of a play, has all that it was owed.
    fn judge_whole(&self, peer: usize, index: usize) -> usize {
        let viewer = &self.peers[peer];
        let known = &viewer.subscriptions[index];
        let sources = self.sources(peer, &known.path, &known.track);
        let who = format!(
            "at {:?}: {} subscription {index} of {} {}",
            self.since_start(),
            viewer.name,
            known.path,
            known.track
        );
        let Some(&(_, source)) = sources.first() else { return 0 };
        if !self.are_one_broadcast(&sources) {
            return 0;
        }
        let versions = sources.iter().map(|(publisher, _)| self.peers[*publisher].version);
        let oldest = versions.min().expect("there is one at least");
        if known.end == Some(End::Finished) {
            let is_told = viewer.version.min(oldest) >= Version::Lite05;
            let is_end = |(_, source): &(usize, &Source)| {
                let Some(end) = source.end else { return false };
                let before = known.runs.values().map(|shown| shown.end).max().unwrap_or(0);
                !is_told
                    || match known.runs.get(&source.film) {
                        Some(shown) => known.track_end == Some(end + shown.shift),
                        None => known.track_end >= Some(end + before),
                    }
            };
            let (end, runs) = (known.track_end, &known.runs);
            assert!(sources.iter().any(is_end), "{who} ended at {end:?} of {runs:?}");
        }
        // Without a gap in what the relay asked for, START is where it begins and all else follows.
        let is_plain = known.updates == 0 && !source.bounds_moved && sources.len() == 1;
        let is_told = oldest >= Version::Lite05;
        if let (Some(start), Some((first, _))) = (known.start, known.groups.first_key_value()) {
            let who = &who;
            let is_strict = is_plain && is_told && viewer.version == Version::Lite05;
            assert!(start <= *first || !is_strict, "{who}: START {start} above {first}");
        }
        // Nothing stays open that is over, unless its publisher is gone and nobody knows it yet.
        let mut lost = sources.iter().filter_map(|(publisher, _)| self.peers[*publisher].lost_at);
        let is_sure = lost.all(|at| self.now >= at + LOSS_NOTICED);
        let of_film = |film: u64| sources.iter().find(|(_, source)| source.film == film);
        // What another publisher was to go on with, and cannot, is given up in time.
        let has_another = sources.iter().any(|(at, _)| *at != sources[0].0);
        let is_quiet = sources.iter().all(|source| self.is_quiet(source));
        let is_over = |number: u64| {
            let Some((film, its)) = known.origin(number) else { return false };
            // It goes on with another run.
            if known.runs.values().any(|shown| shown.shift > number) {
                return true;
            }
            let Some((at, source)) = of_film(film) else { return false };
            let is_alone = self.peers[*at].spec.is_player;
            let end = source.groups.get(&its).and_then(|group| group.end);
            let is_brought = match end {
                Some(End::Reset(_)) => !has_another,
                _ => !source.is_old(its, known.wanted.max_age_ms) && !is_alone,
            };
            let is_lost = is_alone && !self.peers[*at].is_up();
            let is_over = if is_lost { is_quiet } else { is_quiet || is_brought || !has_another };
            is_over && (end.is_some() || is_lost)
        };
        let is_open = |(number, seen): &(&u64, &Seen)| seen.end.is_none() && is_over(**number);
        let open = known.groups.iter().find(is_open).filter(|_| viewer.reads_groups && is_sure);
        let open = open.map(|(sequence, _)| sequence);
        assert!(open.is_none(), "{who}: group {open:?} is still open");
        // Lite-04 and older cannot say how long they keep a group; the relay assumes seconds.
        let is_brief = oldest <= Version::Lite04;
        let is_lossy = self.groups_expire || self.groups_are_evicted;
        if is_lossy || !viewer.reads_groups || (is_brief && viewer.is_slow()) {
            return 0;
        }
        // A group that stays open keeps its stream; one who grants few may have none left.
        let is_open = |seen: &&Seen| seen.end.is_none();
        let groups = viewer.subscriptions.iter().flat_map(|known| known.groups.values());
        if groups.filter(is_open).count() >= viewer.spec.uni_streams as usize {
            return 0;
        }
        let lowest = known.start.or(known.groups.keys().next().copied());
        let mut due = known.owed.clone();
        if is_plain && !is_brief {
            let from_start = |sequence: &u64| {
                lowest.is_some_and(|lowest| *sequence >= lowest) && covers(&known.wanted, *sequence)
            };
            let groups = source.groups.keys().copied().filter(from_start);
            due.extend(groups.map(|sequence| (source.film, sequence)));
        }
        let mut confirmed = 0;
        for (film, sequence) in due {
            let Some(group) = of_film(film).and_then(|(_, s)| s.groups.get(&sequence)) else {
                continue;
            };
            let number = known.runs.get(&film).map(|shown| sequence + shown.shift);
            // Where a feed without START begins is what arrives first.
            if !is_told && lowest.is_none_or(|lowest| number.is_none_or(|number| number < lowest)) {
                continue;
            }
            let seen = number.and_then(|number| known.groups.get(&number));
            if is_brief && seen.is_some_and(|seen| seen.end == Some(End::Reset(StreamCode::OLD.0)))
            {
                continue;
            }
            confirmed += 1;
            match group.end {
                Some(End::Finished) => assert!(
                    seen.is_some_and(|seen| seen.end == Some(End::Finished)),
                    "{who} lacks group {sequence} of {film:x} as {number:?}: {:?}, START {:?}, has {:?} of {:?}",
                    seen.map(|seen| (seen.frames.len(), seen.end)),
                    known.start,
                    known.arrivals,
                    known.runs,
                ),
                // What was reset need not arrive at all.
                Some(End::Reset(_)) => {}
                None => {
                    let count = seen.map(|seen| seen.frames.len() + seen.frame_start as usize);
                    assert!(
                        count == Some(group.frames.len()) || known.wanted.frame_end.is_some(),
                        "{who} has {count:?} frames of open group {sequence}, not {}",
                        group.frames.len()
                    );
                }
            }
        }
        confirmed
    }

    /// Nothing has happened to a publisher for so long that who goes on instead has brought what it
    /// can, and the rest is given up.
    fn is_quiet(&self, (at, source): &(usize, &Source)) -> bool {
        let peer = &self.peers[*at];
        let noticed = peer.lost_at.map(|at| at + LOSS_NOTICED);
        let told = peer.up_at.into_iter().chain(peer.left_at).chain(source.broken.iter().copied());
        let last = told.map(|at| at + EVERYWHERE).chain(noticed).max();
        last.is_none_or(|last| self.now >= last + MISSING_GRACE_MAX + EVERYWHERE)
    }

    /// Everything has calmed down: every viewer that is still there must have all it is owed,
    /// and those whose publisher is gone must know it.
    pub fn judge_all(&mut self) {
        for peer in 0..self.peers.len() {
            if !self.peers[peer].is_up() || self.peers[peer].spec.is_rude {
                continue;
            }
            for index in 0..self.peers[peer].subscriptions.len() {
                let known = &self.peers[peer].subscriptions[index];
                if known.has_left || matches!(known.end, Some(End::Reset(_))) {
                    continue;
                }
                match self.gone(peer, &known.path, &known.track) {
                    Some(at) => assert!(
                        known.end.is_some()
                            || self.now < at + LOSS_NOTICED
                            || self.is_parked(peer, known)
                            // The end comes after what it has not taken.
                            || !self.peers[peer].reads_groups,
                        "{} subscription {index} has not heard that its publisher is gone",
                        self.peers[peer].name
                    ),
                    None => {
                        self.groups_confirmed += self.judge_whole(peer, index);
                        self.judge_datagrams_whole(peer, index);
                    }
                }
            }
            for index in 0..self.peers[peer].fetches.len() {
                self.judge_fetch_over(peer, index);
            }
        }
    }

    /// Whether a track has ended, and a viewer may still ask for some of it, wherever its publisher is.
    fn is_parked(&self, peer: usize, known: &Subscription) -> bool {
        let sources = self.sources(peer, &known.path, &known.track);
        let mut ends = sources.iter().filter_map(|(_, source)| {
            let shift = known.runs.get(&source.film).map_or(0, |shown| shown.shift);
            Some(source.end? + shift)
        });
        known.wanted.group_end.is_some_and(|last| ends.any(|end| end > last + 1))
    }

    /// No datagram is missing that nothing could lose.
    fn judge_datagrams_whole(&mut self, peer: usize, index: usize) {
        let viewer = &mut self.peers[peer];
        let known = &mut viewer.subscriptions[index];
        let owed = std::mem::take(&mut known.owed_datagrams);
        self.datagrams_confirmed += owed.len();
        let has_come =
            |wanted: &u64| known.datagrams.iter().any(|(sequence, _)| sequence == wanted);
        let missing: Vec<u64> = owed.into_iter().filter(|wanted| !has_come(wanted)).collect();
        assert!(
            missing.is_empty(),
            "{} subscription {index} of {} lacks datagrams {missing:?}",
            viewer.name,
            known.path
        );
    }

    /// When the last publisher of a broadcast was lost, if it is one and nobody has it now.
    fn gone(&self, peer: usize, path: &str, track: &str) -> Option<Instant> {
        let sources = self.sources(peer, path, track);
        let is_one = self.are_one_broadcast(&sources);
        let lost = sources.iter().map(|(at, _)| self.peers[*at].lost_at.filter(|_| is_one));
        lost.collect::<Option<Vec<Instant>>>()?.into_iter().max()
    }

    /// The end of a play: viewers leave, then publishers, and the relay must forget them.
    pub fn end(mut self) -> (u64, u64) {
        self.judge_all();
        for core in &mut self.cores {
            core.stalled_until = self.now;
        }
        self.close_all(|peer| peer.sources.is_empty());
        // One relay after the other.
        let linger = self.stage.linger * self.stage.relays as u32;
        self.run(LOSS_NOTICED + linger + self.stage.cache.duration + ms(5000));
        for held in self.held() {
            let left = Held { connections: 0, clients: 0, granted_bytes: 0, routes: 0, ..held };
            assert_eq!(left, Held::default(), "tracks, fetches and groups that nobody needs");
        }
        self.close_all(|_| true);
        self.unlink_all();
        self.run(LOSS_NOTICED + ms(5000));
        let nothing = vec![Held::default(); self.cores.len()];
        assert_eq!(self.held(), nothing, "connections, tracks and routes that nobody needs");
        if self.stage.strays == 0 {
            for shard in 0..self.cores.len() {
                assert_eq!(self.counters(shard).misrouted_datagrams_total, 0, "shard {shard}");
            }
        }
        self.history.digest()
    }
}

// ---- words that plays use ----

/// A track name whose home is the given shard.
pub fn homed(path: &str, shard: usize, shards: usize) -> String {
    let names = (0..).map(|n| format!("video{n}"));
    let mut at_home = names.filter(|name| home_of(path, name, shards) == shard);
    at_home.next().expect("names do not run out")
}

/// A network like a bad day's.
pub fn stormy(random: &mut Random) -> Weather {
    Weather {
        latency: ms(random.pick(&[1, 5, 20, 60])),
        jitter: ms(random.pick(&[0, 0, 2, 10, 40])),
        lost_up: random.pick(&[0, 0, 5, 20, 50]),
        lost_down: random.pick(&[0, 0, 5, 20, 50]),
        doubled: random.pick(&[0, 0, 10, 50]),
        down_bytes_per_second: None,
        link: None,
    }
}
