//! The transport of a session as its peer has it: what the peer says, and what it is told. It
//! panics where the session does what no transport allows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use bytes::{Buf, Bytes};
use shardcast::session::streams::{Estimate, ReadEnd, StreamId, Streams, WriteEnd};
use shardcast::wire::{SessionCode, StreamCode};

/// One stream, in either direction.
#[derive(Default)]
pub struct Pipe {
    /// Bytes that the peer has said and nobody has read.
    said: Vec<u8>,
    /// How the peer's direction ends behind those.
    pub ending: Option<ReadEnd>,
    /// Whether the session knows of that, or wants to know of nothing.
    pub is_read: bool,
    pub is_stopped_by_peer: bool,
    told: DefaultHasher,
    told_bytes: u64,
    /// What was told and is still to be read, where that is kept.
    pub kept: Vec<u8>,
    pub is_finished: bool,
    pub reset: Option<StreamCode>,
    pub stop: Option<StreamCode>,
    /// The peer knows that all has come.
    pub is_acknowledged: bool,
}

/// What the peer has been told, stream by stream.
pub type Told = Vec<(StreamId, u64, u64, bool, Option<StreamCode>, Option<StreamCode>)>;

pub struct Link {
    pub pipes: BTreeMap<StreamId, Pipe>,
    pub by_peer: Vec<StreamId>,
    pub by_us: Vec<StreamId>,
    /// Bytes that the peer takes, and streams that it grants.
    pub window: u64,
    pub grants_uni: u64,
    pub grants_bidi: u64,
    pub estimate: Estimate,
    pub closed: Option<String>,
    pub datagrams: u64,
    /// Whether what is told is kept to be read.
    pub keeps: bool,
}

impl Link {
    pub fn new(window: u64, grants: u64) -> Link {
        Link {
            pipes: BTreeMap::new(),
            by_peer: Vec::new(),
            by_us: Vec::new(),
            window,
            grants_uni: grants,
            grants_bidi: grants,
            estimate: Estimate::default(),
            closed: None,
            datagrams: 0,
            keeps: false,
        }
    }

    /// The peer opens a stream.
    pub fn open(&mut self, is_uni: bool) -> StreamId {
        let id = StreamId(4 * self.by_peer.len() as u64 + if is_uni { 2 } else { 0 });
        self.by_peer.push(id);
        self.pipes.insert(id, Pipe::default());
        id
    }

    /// The peer says more on a stream, if it still can.
    pub fn say(&mut self, id: StreamId, bytes: &[u8]) -> bool {
        let can_speak = !is_ours(id) || !id.is_uni();
        let Some(pipe) = self.pipes.get_mut(&id) else { return false };
        if !can_speak || pipe.ending.is_some() || pipe.stop.is_some() {
            return false;
        }
        pipe.said.extend_from_slice(bytes);
        true
    }

    pub fn told(&self) -> Told {
        let told = |(id, pipe): (&StreamId, &Pipe)| {
            (*id, pipe.told_bytes, pipe.told.finish(), pipe.is_finished, pipe.reset, pipe.stop)
        };
        self.pipes.iter().map(told).collect()
    }

    fn open_ours(&mut self, is_uni: bool) -> StreamId {
        let id = StreamId(4 * self.by_us.len() as u64 + if is_uni { 3 } else { 1 });
        self.by_us.push(id);
        self.pipes.insert(id, Pipe::default());
        id
    }

    /// A stream that we may write to.
    fn outgoing(&mut self, id: StreamId) -> &mut Pipe {
        assert!(is_ours(id) || !id.is_uni(), "only the peer writes to {id:?}");
        self.pipes.get_mut(&id).expect("a stream that was opened")
    }
}

pub fn is_ours(id: StreamId) -> bool {
    id.0 & 1 == 1
}

impl Streams for Link {
    fn open_uni(&mut self) -> Option<StreamId> {
        self.grants_uni = self.grants_uni.checked_sub(1)?;
        Some(self.open_ours(true))
    }

    fn open_bidi(&mut self) -> Option<StreamId> {
        self.grants_bidi = self.grants_bidi.checked_sub(1)?;
        Some(self.open_ours(false))
    }

    fn write(&mut self, id: StreamId, chunks: &mut [Bytes]) -> WriteEnd {
        let (mut window, keeps) = (self.window, self.keeps);
        let pipe = self.outgoing(id);
        if pipe.is_stopped_by_peer || pipe.is_finished || pipe.reset.is_some() {
            return WriteEnd::Stopped;
        }
        let mut taken = 0;
        let mut end = WriteEnd::All;
        for chunk in chunks {
            let here = window.min(chunk.len() as u64);
            pipe.told.write(&chunk[..here as usize]);
            if keeps {
                pipe.kept.extend_from_slice(&chunk[..here as usize]);
            }
            chunk.advance(here as usize);
            (window, taken) = (window - here, taken + here);
            if !chunk.is_empty() {
                end = WriteEnd::Blocked(taken as usize);
                break;
            }
        }
        pipe.told_bytes += taken;
        self.window = window;
        end
    }

    fn finish(&mut self, id: StreamId) {
        let pipe = self.outgoing(id);
        if pipe.reset.is_none() {
            pipe.is_finished = true;
        }
    }

    fn reset(&mut self, id: StreamId, code: StreamCode) {
        let pipe = self.outgoing(id);
        if !pipe.is_acknowledged {
            pipe.reset.get_or_insert(code);
        }
    }

    fn stop(&mut self, id: StreamId, code: StreamCode) {
        assert!(!is_ours(id) || !id.is_uni(), "nobody else writes to {id:?}");
        let pipe = self.pipes.get_mut(&id).expect("a stream that was opened");
        if !pipe.is_read {
            pipe.stop.get_or_insert(code);
            pipe.said = Vec::new();
            pipe.is_read = true;
        }
    }

    fn set_priority(&mut self, id: StreamId, _: i32) {
        self.outgoing(id);
    }

    fn read(&mut self, id: StreamId, max: usize, take: &mut dyn FnMut(&[u8])) -> ReadEnd {
        let pipe = self.pipes.get_mut(&id).expect("a stream that was opened");
        if let Some(ReadEnd::Reset(code)) = pipe.ending {
            pipe.is_read = true;
            return ReadEnd::Reset(code);
        }
        let here = max.min(pipe.said.len());
        if here > 0 {
            take(&pipe.said[..here]);
            pipe.said.drain(..here);
        }
        match pipe.ending {
            _ if !pipe.said.is_empty() => ReadEnd::More,
            Some(end) => {
                pipe.is_read = true;
                end
            }
            None => ReadEnd::Pending,
        }
    }

    fn send_datagram(&mut self, _: &[u8], _: &[u8]) {
        self.datagrams += 1;
    }

    fn expect_groups(&mut self) {}

    fn rtt(&self) -> Duration {
        Duration::from_millis(30)
    }

    fn window(&self) -> u64 {
        64 << 10
    }

    fn estimate(&self) -> Estimate {
        self.estimate
    }

    fn close(&mut self, _: SessionCode, reason: Cow<'static, str>) {
        assert_eq!(self.closed, None, "closed for {reason} again");
        self.closed = Some(reason.into_owned());
    }
}
