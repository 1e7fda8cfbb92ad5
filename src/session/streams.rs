//! What a session asks of its transport, raw QUIC or WebTransport. What differs between them, a
//! prefix per stream and how codes are mapped, stays below this line.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use crate::wire::{SessionCode, StreamCode};

/// A QUIC stream id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct StreamId(pub u64);

impl StreamId {
    pub fn is_uni(self) -> bool {
        self.0 & 2 != 0
    }
}

/// How a read left the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// Nothing more has arrived.
    Pending,
    /// The budget is used up; more may be there.
    More,
    Finished,
    Reset(StreamCode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteEnd {
    /// Every chunk was taken.
    All,
    /// Flow control took this many bytes; a writable event follows.
    Blocked(usize),
    /// The peer has stopped the stream, or it is closed.
    Stopped,
}

/// What the link to the peer is believed to be like.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Estimate {
    /// Bits per second that could be sent.
    pub bitrate: Option<u64>,
    pub rtt: Option<Duration>,
}

/// What the path to the peer is like, as whoever has the socket knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub rtt: Duration,
    /// Bytes that may be on their way at once.
    pub window: u64,
    /// Nothing before it was measured.
    pub estimate: Estimate,
    pub shown: Estimate,
}

impl Default for Link {
    fn default() -> Link {
        Link {
            rtt: Duration::from_millis(100),
            window: 14_000,
            estimate: Estimate::default(),
            shown: Estimate::default(),
        }
    }
}

/// What happened on a transport, as far as it concerns a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Opened(StreamId),
    Readable(StreamId),
    Writable(StreamId),
    /// All that we have sent on a stream has arrived, or is as good as that.
    Finished(StreamId),
    Stopped(StreamId),
    /// The peer grants more streams; true for unidirectional ones.
    Available {
        uni: bool,
    },
    Datagram(Bytes),
    Lost {
        reason: String,
    },
}

pub trait Streams {
    /// None while the peer grants no credit; an available event follows.
    fn open_uni(&mut self) -> Option<StreamId>;
    fn open_bidi(&mut self) -> Option<StreamId>;
    /// Queues chunks; those that were taken are emptied or shortened.
    fn write(&mut self, id: StreamId, chunks: &mut [Bytes]) -> WriteEnd;
    fn finish(&mut self, id: StreamId);
    fn reset(&mut self, id: StreamId, code: StreamCode);
    fn stop(&mut self, id: StreamId, code: StreamCode);
    /// Higher goes first.
    fn set_priority(&mut self, id: StreamId, priority: i32);
    /// Hands over what has arrived in order, at most about `max` bytes.
    fn read(&mut self, id: StreamId, max: usize, take: &mut dyn FnMut(&[u8])) -> ReadEnd;
    /// Sends a datagram, or drops it where the peer's transport takes none, or none so large.
    fn send_datagram(&mut self, head: &[u8], payload: &[u8]);
    /// The peer publishes: it will need more streams than the few that everybody gets.
    fn expect_groups(&mut self);
    /// Whether the session may hold so much for its peer, beside what all have. If not it asks again later, when
    /// more may have been granted.
    fn may_hold(&mut self, _bytes: u64) -> bool {
        true
    }
    fn rtt(&self) -> Duration;
    /// Bytes that may be on their way at once, as far as congestion goes.
    fn window(&self) -> u64;
    /// What may leave. Nothing before it was measured.
    fn estimate(&self) -> Estimate;
    /// What the link has shown that it carries, as far as that is known.
    fn shown(&self) -> Estimate {
        self.estimate()
    }
    fn close(&mut self, code: SessionCode, reason: Cow<'static, str>);
}
