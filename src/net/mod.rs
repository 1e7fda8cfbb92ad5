//! Datagrams in and out of the host. Knows sockets and which shard a datagram belongs to;
//! knows no QUIC state, no session and no task.

use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;

mod batch;
mod rows;
pub mod socket;
pub mod steer;

pub use rows::Rows;
pub use socket::{BindError, Fault, Socket, bind_group};

/// What a shard asks of its socket. The simulated world implements it too.
pub trait Datagrams {
    /// Hands over a bounded batch of received datagrams; true if more may be waiting.
    fn receive(&mut self, deliver: &mut dyn FnMut(Received)) -> bool;

    /// Takes one train to send, with the next flush at the latest.
    fn send(&mut self, train: &Train<'_>) -> Sent;

    /// Sends what was taken; true if some of it has to wait. Whoever sends at once needs none.
    fn flush(&mut self) -> bool {
        false
    }

    /// How many datagrams one train may hold. May fall at run time, never rises above its
    /// first value.
    fn max_segments(&self) -> usize;
}

/// One datagram that arrived.
#[derive(Debug)]
pub struct Received {
    pub remote: SocketAddr,
    /// Our address that the datagram was sent to: the one to answer from.
    pub local_ip: Option<IpAddr>,
    pub ecn: Option<Ecn>,
    pub data: BytesMut,
}

/// One or more datagrams for one peer, sent together.
#[derive(Clone, Copy, Debug)]
pub struct Train<'a> {
    pub destination: SocketAddr,
    pub source_ip: Option<IpAddr>,
    pub ecn: Option<Ecn>,
    pub contents: &'a [u8],
    /// Length of every datagram but the last; `None` when `contents` is a single datagram.
    pub segment_size: Option<usize>,
}

/// What became of a train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    Taken,
    /// There is no room: keep the train and try again.
    Blocked,
    /// Nothing that can be sent, and counted; QUIC will recover.
    Lost,
}

/// Explicit congestion notification, as the two low bits of the IP traffic class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    Ect1 = 0b01,
    Ect0 = 0b10,
    Ce = 0b11,
}

impl Ecn {
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits & 0b11 {
            0b01 => Some(Self::Ect1),
            0b10 => Some(Self::Ect0),
            0b11 => Some(Self::Ce),
            _ => None,
        }
    }

    pub fn bits(self) -> u8 {
        self as u8
    }
}
