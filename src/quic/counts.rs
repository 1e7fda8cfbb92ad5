//! What connections count: plain cells that all connections of a shard share.

use crate::observe::Histogram;

#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub handshakes: Handshakes,
    /// From a client's first datagram to the end of its handshake.
    pub handshake_time: Histogram,
    /// Round trips, and the part of packets that was lost: of each connection at its end, and of some whenever
    /// somebody looks.
    pub rtt: Histogram,
    pub loss: Histogram,
    /// Microseconds in which connections had something to send and did not: congestion control had them wait,
    /// what was written before had to be acknowledged first, or the socket took nothing.
    pub held_by_congestion: u64,
    pub held_by_queue: u64,
    pub held_by_socket: u64,
}

/// What becomes of clients' handshakes.
#[derive(Clone, Debug, Default)]
pub struct Handshakes {
    pub completed: u64,
    /// TLS or HTTP/3 came to nothing.
    pub failed: u64,
    pub timed_out: u64,
    /// They made room for others.
    pub displaced: u64,
    /// Clients that were to prove their address first.
    pub retried: u64,
}
