//! What a shard has counted, and what it holds.

use super::Shard;
use super::visits::Visits;
use crate::session::Counts as SessionCounts;

/// What a shard holds: none of it may be left when all peers are gone and the cache has had its
/// time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub connections: usize,
    /// Addresses and tokens that have sessions, on any shard.
    pub clients: usize,
    /// Bytes that they may hold, as they were granted them.
    pub granted_bytes: u64,
    pub tracks: usize,
    pub routes: usize,
    pub subscriptions: usize,
    /// Fetches that wait for a group or receive one.
    pub fetches: usize,
    /// Those outside who wait for a group or receive one.
    pub guests: usize,
    pub cache_bytes: u64,
}

/// Plain counters of one shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub datagrams_total: u64,
    /// Datagrams of connections that live on another shard, passed on by mail.
    pub misrouted_datagrams_total: u64,
    pub sessions_total: u64,
    /// First datagrams of clients that were sent away for want of memory; some begin with two.
    pub refused_clients_total: u64,
    /// Clients that were sent away because as many sessions were there from their address, or with their
    /// token, as may be.
    pub limited_clients_total: u64,
    /// The same because of their address, at their first datagram.
    pub full_addresses_total: u64,
    /// First datagrams of clients that were more than can be read.
    pub dropped_initials_total: u64,
    /// Mail for a session or a track that is gone.
    pub stale_mail_total: u64,
    /// Groups cut off or left out because a neighbour did not keep up: all, those that were fetched, and
    /// datagrams.
    pub dropped_groups_total: u64,
    pub dropped_fetches_total: u64,
    pub dropped_datagrams_total: u64,
    /// Groups that left the cache for want of room or of interest.
    pub evicted_groups_total: u64,
    /// Groups that were looked at to find those that viewers are sent.
    pub groups_looked_at_total: u64,
    /// Times that mail had to wait because a lane was full.
    pub full_lanes_total: u64,
    /// The most mail that ever waited for room in a lane, to all neighbours.
    pub held_mail_max: u64,
    /// Announcements of paths that are too long, which lead nowhere.
    pub long_paths_total: u64,
    /// Announcements for which there was no room.
    pub refused_routes_total: u64,
    /// The most that one turn looked at of each kind.
    pub visits_max: Visits,
    pub frames_total: u64,
}

impl Shard {
    pub fn counters(&self) -> Counters {
        Counters {
            full_lanes_total: self.post.lane_full_total(),
            held_mail_max: self.post.held_max() as u64,
            visits_max: self.counters.visits_max.max(self.visits),
            ..self.counters
        }
    }

    pub fn session_counts(&self) -> &SessionCounts {
        &self.session_counts
    }

    /// What the last turn looked at.
    pub fn visits(&self) -> Visits {
        self.visits
    }

    /// Announced paths that the listeners here hold, each on each of its streams.
    pub fn told(&self) -> usize {
        self.peers.iter().flatten().map(|peer| peer.session.told()).sum()
    }

    pub fn held(&self) -> Held {
        self.tracks.held(Held {
            connections: self.conns.live(),
            clients: self.clients.count(),
            granted_bytes: self.conns.quic.granted(),
            routes: self.directory.len(),
            guests: self.guests.len(),
            ..Held::default()
        })
    }
}
