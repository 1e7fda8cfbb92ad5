//! The relay under a virtual clock: shards, mail and QUIC as they are, network and peers as a
//! seed makes them. Every play is exact: the same seed gives the same history.
//!
//! `SIM_SEEDS=5000` plays more of the random play, `SIM_SEED=17` one of it, `SIM_REPLAYED=1` each of it
//! twice, `SIM_TRACE=1` prints what happens.

mod announced;
mod asked;
mod datagrams;
mod delivery;
mod ends;
mod random;
mod slow;
mod web;

#[path = "../support/simulated.rs"]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use quinn_proto::Dir;
use shardcast::limits::{
    CLOSE_GRACE_MAX, GROUPS_PER_TRACK_MAX, LINGER_DEFAULT, READERS_PER_TURN, SETUP_TIMEOUT,
    TURN_INTERVAL_MIN, TURN_INTERVAL_QUIET,
};
use shardcast::mux::Wire;
use shardcast::quic::CongestionControl;
use shardcast::route::Takeover;
use shardcast::shard::{CacheBounds, Held};
use shardcast::wire::*;
use support::network::{Random, Weather};
use support::peer::*;
use support::world::*;

const PATH: &str = "live/cam";
const TRACK: &str = "video";

const VERSIONS: [Version; 6] = Version::ALL;
use Version::{Lite01, Lite02, Lite03, Lite04, Lite05, Lite06};

/// Raw QUIC, and WebTransport.
const TRANSPORTS: [Option<Manner>; 2] = [None, Some(Manner { is_eager: false, is_second: false })];

/// The drafts of qmux in WebSockets.
const WIRES: [Wire; 3] = [Wire::Qmux00, Wire::Qmux01, Wire::Qmux02];

/// Seeds of the random play in an ordinary run.
const SEEDS: u64 = 1000;

/// One in this many seeds is played twice, and its histories are compared.
const REPLAYED: u64 = 8;

/// Empty, minimal, one datagram, several.
const SIZES: [usize; 5] = [0, 1, 900, 0, 5000];

fn world(shards: usize) -> World {
    World::new(Stage::new(1, shards))
}
