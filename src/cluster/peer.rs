//! One relay that there should be a link with: what it is known by, where it is, and how it is with its link.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::LinkId;
use crate::config::{Entry, Place};
use crate::limits::{LINK_MOVES_WITHIN, LINK_PROVEN_AFTER, REDIAL_AFTER, REDIAL_AFTER_MAX};

/// What a peer is known by: the entry, and of a name that stands for many one address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    pub place: Place,
    pub address: Option<SocketAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It is dialled then.
    Waits {
        until: Instant,
    },
    /// It was this relay itself when it was dialled.
    IsItself {
        until: Instant,
    },
    Looks,
    Dials {
        link: LinkId,
    },
    Up {
        link: LinkId,
        hop: u64,
    },
    /// The other one of two links between the same relays is kept.
    Yields {
        hop: u64,
    },
}

#[derive(Debug)]
pub struct Peer {
    pub entry: Entry,
    /// Where it has sent us, until that link is over.
    pub redirect: Option<Entry>,
    pub shard: usize,
    pub state: State,
    pub since: Instant,
    /// Addresses that are dialled one after the other, before there is a pause.
    pub untried: VecDeque<SocketAddr>,
    pub address: Option<SocketAddr>,
    pub failures: u32,
    pub dials: u64,
    pub last_error: Option<String>,
    pub old: Option<Old>,
    /// It is forgotten when its link ends.
    pub is_unwanted: bool,
}

/// A link that its peer leaves, beside the one in its place.
#[derive(Clone, Copy, Debug)]
pub struct Old {
    pub link: LinkId,
    pub hop: u64,
    /// When it is hung up in any case. None while it is not known whether anybody else is where it leads.
    pub until: Option<Instant>,
}

impl State {
    pub fn link(self) -> Option<LinkId> {
        match self {
            State::Dials { link } | State::Up { link, .. } => Some(link),
            _ => None,
        }
    }

    pub fn waits_until(self) -> Option<Instant> {
        match self {
            State::Waits { until } | State::IsItself { until } => Some(until),
            _ => None,
        }
    }
}

impl Peer {
    /// To be dialled at once, from that shard.
    pub fn new(now: Instant, entry: &Entry, shard: usize) -> Peer {
        Peer {
            entry: entry.clone(),
            redirect: None,
            shard,
            state: State::Waits { until: now },
            since: now,
            untried: VecDeque::new(),
            address: None,
            failures: 0,
            dials: 0,
            last_error: None,
            old: None,
            is_unwanted: false,
        }
    }

    /// Of whom it has links with.
    pub fn hops(&self) -> impl Iterator<Item = u64> {
        let up = match self.state {
            State::Up { hop, .. } => Some(hop),
            _ => None,
        };
        up.into_iter().chain(self.old.map(|old| old.hop))
    }

    pub fn set(&mut self, now: Instant, state: State) {
        (self.state, self.since) = (state, now);
    }

    /// A link ends. Where it has lived, what failed before it does not count any more; whether it has.
    pub fn forgive(&mut self, now: Instant) -> bool {
        let has_lived = now.saturating_duration_since(self.since) >= LINK_PROVEN_AFTER;
        if has_lived {
            self.failures = 0;
        }
        has_lived
    }

    /// There is another link: what the old one carries moves over.
    pub fn moves_over(&mut self, now: Instant) {
        if let Some(old) = &mut self.old {
            old.until = Some(now + LINK_MOVES_WITHIN);
        }
    }

    pub fn longest_pause(&self) -> Duration {
        REDIAL_AFTER.saturating_mul(1 << self.failures.min(16)).min(REDIAL_AFTER_MAX)
    }
}

/// Which shard has the link, whatever becomes of it.
pub fn shard_of(key: &Key, shards: usize) -> usize {
    use std::hash::BuildHasher;
    let name = (key.place.to_string(), key.address);
    (rustc_hash::FxBuildHasher.hash_one(name) % shards as u64) as usize
}
