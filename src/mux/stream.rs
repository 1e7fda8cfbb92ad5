//! One stream: what waits in either direction, and the credit for it.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::schedule::Place;
use crate::limits::{MUX_STREAM_QUEUE_BYTES, STREAM_WINDOW_BYTES};
use crate::session::streams::ReadEnd;
use crate::wire::StreamCode;

/// A stream; a half that is over, or never was, is none.
#[derive(Debug, Default)]
pub struct Stream {
    pub sending: Option<Sending>,
    pub receiving: Option<Receiving>,
    /// The peer is to be told to stop.
    pub owes_stop: Option<StreamCode>,
    /// On the list of streams that have something to say beside their bytes.
    pub is_listed: bool,
}

impl Stream {
    /// Nothing more is to come of it, in either direction.
    pub fn is_over(&self) -> bool {
        self.sending.is_none() && self.receiving.is_none() && self.owes_stop.is_none()
    }
}

#[derive(Debug)]
pub struct Sending {
    /// What the session has given and the socket has not taken.
    queue: VecDeque<Bytes>,
    queued: usize,
    /// Bytes that were handed to the socket, and how many the peer allows.
    pub sent: u64,
    pub max: u64,
    pub priority: i32,
    /// Its place among those who wait to send.
    pub place: Option<Place>,
    /// No more comes behind the queue.
    pub is_finished: bool,
    /// The session is to be told when there is room again.
    pub is_blocked: bool,
    /// The peer wants no more of it.
    pub is_stopped: bool,
    pub owes_reset: Option<StreamCode>,
}

impl Sending {
    pub fn new(max: u64) -> Sending {
        Sending {
            queue: VecDeque::new(),
            queued: 0,
            sent: 0,
            max,
            priority: 0,
            place: None,
            is_finished: false,
            is_blocked: false,
            is_stopped: false,
            owes_reset: None,
        }
    }

    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Whether nothing more can be written.
    pub fn is_closed(&self) -> bool {
        self.is_finished || self.is_stopped || self.owes_reset.is_some()
    }

    /// Takes so many bytes of what the session writes, at most.
    pub fn take(&mut self, chunks: &mut [Bytes], mut room: usize) -> usize {
        let before = self.queued;
        for chunk in chunks.iter_mut().filter(|chunk| !chunk.is_empty()) {
            let here = room.min(chunk.len());
            if here == 0 {
                break;
            }
            self.queue.push_back(chunk.split_to(here));
            (self.queued, room) = (self.queued + here, room - here);
        }
        self.queued - before
    }

    /// Bytes of the queue that the peer allows.
    pub fn allowed(&self) -> usize {
        let credit = usize::try_from(self.max - self.sent).unwrap_or(usize::MAX);
        self.queued.min(credit)
    }

    /// Whether it has something to send that the peer allows.
    pub fn is_ready(&self) -> bool {
        let has_end = self.is_finished && self.queued == 0;
        self.owes_reset.is_none() && !self.is_stopped && (self.allowed() > 0 || has_end)
    }

    /// Appends the first bytes of the queue.
    pub fn send(&mut self, mut bytes: usize, out: &mut Vec<u8>) {
        self.queued -= bytes;
        self.sent += bytes as u64;
        while bytes > 0 {
            let Some(chunk) = self.queue.front_mut() else { break };
            let here = bytes.min(chunk.len());
            out.extend_from_slice(&chunk[..here]);
            bytes -= here;
            match here == chunk.len() {
                true => drop(self.queue.pop_front()),
                false => chunk.advance(here),
            }
        }
    }

    /// Whether a session that waits for room is to go on.
    pub fn has_room(&self) -> bool {
        self.queued <= MUX_STREAM_QUEUE_BYTES / 2
    }

    /// Drops what waits. Returns how much that was.
    pub fn discard(&mut self) -> usize {
        self.queue = VecDeque::new();
        std::mem::take(&mut self.queued)
    }
}

/// How the peer has ended its direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Finished,
    Reset(StreamCode),
}

#[derive(Debug)]
pub struct Receiving {
    unread: BytesMut,
    /// Bytes that have come, that were read or dropped, and that the peer may send in all.
    received: u64,
    consumed: u64,
    max: u64,
    end: Option<End>,
    /// The session wants no more.
    is_stopped: bool,
    /// The session is about to hear that there is something to read.
    pub is_told: bool,
    /// The peer is to be told of more credit.
    pub owes_max: bool,
}

impl Receiving {
    pub fn new() -> Receiving {
        Receiving {
            unread: BytesMut::new(),
            received: 0,
            consumed: 0,
            max: STREAM_WINDOW_BYTES.into(),
            end: None,
            is_stopped: false,
            is_told: false,
            owes_max: false,
        }
    }

    pub fn max(&self) -> u64 {
        self.max
    }

    /// Bytes that a reset at this size counts with beyond those that have come. Released peers state zero.
    pub fn missing(&self, final_size: u64) -> u64 {
        final_size.saturating_sub(self.received)
    }

    /// Whether so many bytes more are within its credit.
    pub fn allows(&self, bytes: u64) -> bool {
        self.received.saturating_add(bytes) <= self.max
    }

    /// Whether the peer has ended it.
    pub fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Whether the session wants to read it.
    pub fn is_wanted(&self) -> bool {
        !self.is_stopped
    }

    /// Whether nobody waits for anything of it.
    pub fn is_over(&self) -> bool {
        self.is_stopped && self.end.is_some()
    }

    /// Takes in bytes that the peer may send. Returns how many of them count as read.
    pub fn push(&mut self, data: &[u8], is_last: bool) -> u64 {
        let bytes = data.len() as u64;
        self.received += bytes;
        if is_last {
            self.end = Some(End::Finished);
        }
        if self.is_stopped {
            self.consumed += bytes;
            return bytes;
        }
        self.unread.extend_from_slice(data);
        0
    }

    /// The peer ends it without having sent so many bytes. Returns how many count as read with that.
    pub fn reset(&mut self, code: StreamCode, missing: u64) -> u64 {
        self.end = Some(End::Reset(code));
        self.received += missing;
        self.drop_unread()
    }

    /// The session wants no more. Returns how many bytes count as read with that.
    pub fn stop(&mut self) -> u64 {
        self.is_stopped = true;
        self.drop_unread()
    }

    fn drop_unread(&mut self) -> u64 {
        self.unread = BytesMut::new();
        let unread = self.received - self.consumed;
        self.consumed = self.received;
        unread
    }

    /// Hands over what has come, at most so many bytes. Returns how many there were.
    pub fn read(&mut self, max: usize, take: &mut dyn FnMut(&[u8])) -> (u64, ReadEnd) {
        if let Some(End::Reset(code)) = self.end {
            return (0, ReadEnd::Reset(code));
        }
        let here = max.min(self.unread.len());
        if here > 0 {
            take(&self.unread[..here]);
            self.unread.advance(here);
            self.consumed += here as u64;
        }
        if !self.unread.is_empty() {
            return (here as u64, ReadEnd::More);
        }
        // What was read is no reason to hold memory.
        self.unread = BytesMut::new();
        let end = if self.end.is_some() { ReadEnd::Finished } else { ReadEnd::Pending };
        (here as u64, end)
    }

    /// Allows the peer as much again as was read, once that is half of what it may have under way. True if
    /// it is to be told.
    pub fn replenish(&mut self) -> bool {
        let window = u64::from(STREAM_WINDOW_BYTES);
        if self.end.is_some() || self.is_stopped || self.consumed + window - self.max < window / 2 {
            return false;
        }
        self.max = self.consumed + window;
        self.owes_max = true;
        true
    }
}
