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
mod whole;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use shardcast::access::Access;
use shardcast::authority;
use shardcast::limits::{
    CACHE_DURATION_DEFAULT, IDLE_TIMEOUT, KEEP_ALIVE, LINGER_DEFAULT, MUX_IDLE_TIMEOUT,
    SESSIONS_PER_SOURCE_DEFAULT, SESSIONS_PER_TOKEN_DEFAULT,
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
use super::peer::Peer;
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
