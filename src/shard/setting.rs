//! What a shard is told at its birth.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::access::Access;
use crate::authority;
use crate::quic::Config as QuicConfig;
use crate::session::Policy;
use crate::source::ClientBounds;
use crate::wall::Wall;

/// What a shard is told at its birth.
pub struct Setting {
    pub shard: usize,
    pub shards: usize,
    pub quic: QuicConfig,
    pub policy: Arc<Policy>,
    pub access: Arc<Access>,
    /// Whoever is asked instead, if somebody is.
    pub authority: Option<authority::Handle>,
    /// Of everything random in this shard, so that a simulation replays; the same for all shards.
    pub seed: u64,
    /// When the relay started, and the time of day then.
    pub started: Instant,
    pub wall: Wall,
    /// How long an upstream subscription that nobody needs is kept; zero closes it at once.
    pub linger: Duration,
    pub cache: CacheBounds,
    /// Bytes that its peers may make it hold, by what they are granted.
    pub memory: u64,
    /// Bytes that announced routes may take.
    pub routes: u64,
    pub bounds: ClientBounds,
}

/// What one shard may keep of groups.
#[derive(Clone, Copy, Debug)]
pub struct CacheBounds {
    pub bytes: u64,
    /// How long a group is kept that nobody asks for.
    pub duration: Duration,
}
