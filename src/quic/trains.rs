//! What a connection has to send, as trains; shared with the programs that measure the relay.

use std::time::Instant;

use quinn_proto::{Connection, Transmit};

use super::congestion::{room, yielding};
use crate::limits::{TRAIN_SEGMENTS_MAX, TRAINS_PER_TURN};
use crate::net::{Datagrams, Ecn, Sent, Train};

/// A train that the socket would not take yet.
pub type Unsent = Option<(Transmit, Vec<u8>)>;

/// How a connection's turn to send ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transmitted {
    All,
    /// Its share of this turn is used up.
    More,
    /// The socket takes nothing.
    Blocked,
}

/// What came of a connection's turn to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turnout {
    pub transmitted: Transmitted,
    /// Something has left, or is in a batch that will.
    pub has_sent: bool,
    /// Congestion control has something wait.
    pub is_held: bool,
}

/// Sends what one connection may send in one turn. Buffers come from `pool` and go back to it.
pub fn transmit(
    proto: &mut Connection,
    unsent: &mut Unsent,
    now: Instant,
    io: &mut impl Datagrams,
    pool: &mut Vec<Vec<u8>>,
) -> Turnout {
    let segments = io.max_segments().min(TRAIN_SEGMENTS_MAX);
    let mut has_sent = false;
    for _ in 0..TRAINS_PER_TURN {
        let (transmit, buf) = match unsent.take() {
            Some(unsent) => unsent,
            None => {
                let mut buf = pool.pop().unwrap_or_default();
                let is_closing = proto.is_closed();
                match yielding(now, is_closing, || proto.poll_transmit(now, segments, &mut buf)) {
                    Some(transmit) => (transmit, buf),
                    None => {
                        pool.push(buf);
                        // quinn-proto sends whole packets.
                        let is_held = room().is_some_and(|room| room <= proto.current_mtu().into());
                        return Turnout { transmitted: Transmitted::All, has_sent, is_held };
                    }
                }
            }
        };
        if io.send(&train(&transmit, &buf)) == Sent::Blocked {
            *unsent = Some((transmit, buf));
            return Turnout { transmitted: Transmitted::Blocked, has_sent, is_held: false };
        }
        has_sent = true;
        recycle(pool, buf);
    }
    Turnout { transmitted: Transmitted::More, has_sent, is_held: false }
}

/// Keeps a buffer for the next train, which must find it empty.
pub fn recycle(pool: &mut Vec<Vec<u8>>, mut buf: Vec<u8>) {
    buf.clear();
    pool.push(buf);
}

pub fn train<'a>(transmit: &Transmit, buf: &'a [u8]) -> Train<'a> {
    Train {
        destination: transmit.destination,
        source_ip: transmit.src_ip,
        ecn: transmit.ecn.and_then(|ecn| Ecn::from_bits(ecn as u8)),
        contents: &buf[..transmit.size],
        segment_size: transmit.segment_size,
    }
}
