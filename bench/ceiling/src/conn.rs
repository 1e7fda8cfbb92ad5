//! One connection: reading streams, and writing them without losing what flow control does not take
//! at once. Knows no message.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn_proto as proto;
use quinn_proto::{Dir, StreamId, VarInt};
use rustc_hash::FxHashMap;
use shardcast::limits::{
    READ_BYTES_PER_TURN, RECEIVE_WINDOW_BYTES, STREAMS_MAX, STREAMS_UNI_PUBLISHER,
};
use shardcast::quic::trains::Unsent;
use shardcast::wire::{SessionCode, StreamCode};
use slab::Slab;

use crate::limits::{QUEUED_BYTES_MAX, STARVED_GROUPS_MAX};

pub struct Conn {
    pub proto: proto::Connection,
    pub generation: u32,
    /// On the list of connections whose events are to be looked at.
    pub has_events: bool,
    /// On the list of connections that may have something to send.
    pub is_dirty: bool,
    pub unsent: Unsent,
    /// Why it is to be closed.
    closes: Option<(SessionCode, &'static str)>,
    is_established: bool,
    /// Streams of each kind that the client may have open.
    credit: [u64; 2],
    outputs: Slab<Output>,
    /// Outputs by their streams, which take nothing now.
    blocked: FxHashMap<StreamId, usize>,
    /// Outputs without a stream: the client grants none.
    starved: VecDeque<usize>,
    /// Bytes in the queues of all outputs.
    queued: usize,
}

/// One stream that we write, or will write.
#[derive(Default)]
struct Output {
    stream: Option<StreamId>,
    queue: VecDeque<Bytes>,
    /// What is due behind the queue. Whoever asked for it has let go of the output.
    end: Option<End>,
    /// Reset, or stopped by the client: what is written to it is dropped.
    is_dead: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Finish,
    Reset(StreamCode),
}

pub enum Event {
    Connected { alpn: Vec<u8> },
    Readable(StreamId),
    Lost,
}

/// How a read left the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadEnd {
    Pending,
    /// There is more than one turn takes.
    More,
    Finished,
    Reset(StreamCode),
}

impl Conn {
    /// With the window that a publisher's grows to.
    pub fn new(mut proto: proto::Connection, generation: u32) -> Conn {
        proto.set_receive_window(RECEIVE_WINDOW_BYTES.into());
        let credit = [Dir::Bi, Dir::Uni].map(|dir| proto.max_concurrent_streams(dir));
        Conn {
            proto,
            generation,
            has_events: false,
            is_dirty: false,
            unsent: None,
            closes: None,
            is_established: false,
            credit,
            outputs: Slab::new(),
            blocked: FxHashMap::default(),
            starved: VecDeque::new(),
            queued: 0,
        }
    }

    /// The next thing that happened and is not dealt with here.
    pub fn poll(&mut self) -> Option<Event> {
        loop {
            // Before the handshake is complete nobody knows what streams are for.
            for dir in [Dir::Bi, Dir::Uni].into_iter().filter(|_| self.is_established) {
                if let Some(id) = self.proto.streams().accept(dir) {
                    self.raise_credit(dir);
                    return Some(Event::Readable(id));
                }
            }
            match self.proto.poll()? {
                proto::Event::Connected => {
                    self.is_established = true;
                    let data = self.proto.crypto_session().handshake_data();
                    let data = data.and_then(|data| {
                        data.downcast::<proto::crypto::rustls::HandshakeData>().ok()
                    });
                    let alpn = data.and_then(|data| data.protocol).unwrap_or_default();
                    return Some(Event::Connected { alpn });
                }
                proto::Event::ConnectionLost { .. } => return Some(Event::Lost),
                proto::Event::Stream(event) => match event {
                    proto::StreamEvent::Readable { id } => return Some(Event::Readable(id)),
                    proto::StreamEvent::Writable { id } => self.writable(id),
                    proto::StreamEvent::Stopped { id, .. } => self.stopped(id),
                    proto::StreamEvent::Available { dir: Dir::Uni } => self.feed_starved(),
                    proto::StreamEvent::Opened { .. }
                    | proto::StreamEvent::Finished { .. }
                    | proto::StreamEvent::Available { dir: Dir::Bi } => {}
                },
                proto::Event::DatagramReceived => while self.proto.datagrams().recv().is_some() {},
                proto::Event::HandshakeDataReady | proto::Event::DatagramsUnblocked => {}
            }
        }
    }

    // ---- reading ----

    /// What has come on a stream, as one piece; None if nothing is to be known of it.
    pub fn read(&mut self, stream: StreamId) -> Option<(Bytes, ReadEnd)> {
        // Closed means that it was stopped, or read to its end before.
        let mut recv = self.proto.recv_stream(stream);
        let mut chunks = recv.read(true).ok()?;
        let mut first = Bytes::new();
        let mut joined = BytesMut::new();
        let mut left = READ_BYTES_PER_TURN;
        let end = loop {
            if left == 0 {
                break ReadEnd::More;
            }
            match chunks.next(left) {
                Ok(Some(chunk)) => {
                    left -= chunk.bytes.len();
                    if first.is_empty() {
                        first = chunk.bytes;
                        continue;
                    }
                    // Copied once here, or counted and kept as a slice of its own by every viewer.
                    if joined.is_empty() {
                        joined.extend_from_slice(&first);
                    }
                    joined.extend_from_slice(&chunk.bytes);
                }
                Ok(None) => break ReadEnd::Finished,
                Err(proto::ReadError::Blocked) => break ReadEnd::Pending,
                Err(proto::ReadError::Reset(code)) => {
                    break ReadEnd::Reset(StreamCode::from_raw_quic(code.into_inner()));
                }
            }
        };
        // Whatever this allows the peer goes out when the turn transmits.
        let _ = chunks.finalize();
        Some((if joined.is_empty() { first } else { joined.freeze() }, end))
    }

    pub fn stop(&mut self, stream: StreamId, code: StreamCode) {
        let _ = self.proto.recv_stream(stream).stop(varint(code.to_http3()));
    }

    // ---- writing ----

    /// A bidirectional stream of ours, if the client grants one.
    pub fn open_bidi(&mut self) -> Option<(StreamId, usize)> {
        let stream = self.proto.streams().open(Dir::Bi)?;
        Some((stream, self.adopt(stream)))
    }

    /// The half that we send on of a stream that is open.
    pub fn adopt(&mut self, stream: StreamId) -> usize {
        self.outputs.insert(Output { stream: Some(stream), ..Output::default() })
    }

    /// A unidirectional stream, as soon as the client grants one; None if too many wait for that.
    pub fn open_uni(&mut self) -> Option<usize> {
        if self.starved.is_empty()
            && let Some(stream) = self.proto.streams().open(Dir::Uni)
        {
            return Some(self.adopt(stream));
        }
        if self.starved.len() >= STARVED_GROUPS_MAX {
            return None;
        }
        let key = self.outputs.insert(Output::default());
        self.starved.push_back(key);
        Some(key)
    }

    /// Writes what flow control takes and keeps the rest, within bounds.
    pub fn write(&mut self, key: usize, chunks: &mut [Bytes]) {
        let output = &mut self.outputs[key];
        if output.is_dead {
            return;
        }
        if let (Some(stream), true) = (output.stream, output.queue.is_empty()) {
            match write_chunks(&mut self.proto, stream, chunks) {
                Written::All => return,
                Written::Blocked => {
                    self.blocked.insert(stream, key);
                }
                Written::Stopped => return self.kill(key, StreamCode::CANCEL),
            }
        }
        for chunk in chunks.iter_mut().filter(|chunk| !chunk.is_empty()) {
            self.queued += chunk.len();
            output.queue.push_back(std::mem::take(chunk));
        }
        if self.queued > QUEUED_BYTES_MAX {
            self.kill(key, StreamCode::TOO_FAR_BEHIND);
        }
    }

    /// Ends an output behind what was written to it. The caller must forget its key.
    pub fn end(&mut self, key: usize, end: End) {
        let output = &mut self.outputs[key];
        if let End::Reset(code) = end
            && !output.is_dead
        {
            self.kill(key, code);
        }
        let output = &mut self.outputs[key];
        match output.stream {
            _ if output.is_dead => {
                self.outputs.remove(key);
            }
            Some(stream) if output.queue.is_empty() => self.carry_out(key, stream, end),
            _ => output.end = Some(end),
        }
    }

    fn carry_out(&mut self, key: usize, stream: StreamId, end: End) {
        self.outputs.remove(key);
        let mut send = self.proto.send_stream(stream);
        match end {
            End::Finish => {
                // quinn-proto keeps a stream that the peer has stopped until it is reset.
                if let Err(proto::FinishError::Stopped(_)) = send.finish() {
                    let _ = send.reset(varint(StreamCode::CANCEL.to_http3()));
                }
            }
            End::Reset(code) => {
                let _ = send.reset(varint(code.to_http3()));
            }
        }
    }

    /// Gives up what an output holds.
    fn kill(&mut self, key: usize, code: StreamCode) {
        let output = &mut self.outputs[key];
        output.is_dead = true;
        self.queued -= output.queue.drain(..).map(|chunk| chunk.len()).sum::<usize>();
        let is_left = output.end.is_some();
        match output.stream {
            Some(stream) => {
                self.blocked.remove(&stream);
                let _ = self.proto.send_stream(stream).reset(varint(code.to_http3()));
            }
            None => self.starved.retain(|starved| *starved != key),
        }
        if is_left {
            self.outputs.remove(key);
        }
    }

    fn writable(&mut self, stream: StreamId) {
        if let Some(key) = self.blocked.remove(&stream) {
            self.flush(key, stream);
        }
    }

    fn stopped(&mut self, stream: StreamId) {
        match self.blocked.get(&stream) {
            Some(key) => self.kill(*key, StreamCode::CANCEL),
            // Its next write, if there is one, finds it closed.
            None => {
                let _ = self.proto.send_stream(stream).reset(varint(StreamCode::CANCEL.to_http3()));
            }
        }
    }

    fn feed_starved(&mut self) {
        while let Some(key) = self.starved.front().copied() {
            let Some(stream) = self.proto.streams().open(Dir::Uni) else { return };
            self.starved.pop_front();
            self.outputs[key].stream = Some(stream);
            self.flush(key, stream);
        }
    }

    fn flush(&mut self, key: usize, stream: StreamId) {
        let output = &mut self.outputs[key];
        let before: usize = output.queue.iter().map(Bytes::len).sum();
        let written = write_chunks(&mut self.proto, stream, output.queue.make_contiguous());
        output.queue.retain(|chunk| !chunk.is_empty());
        let after: usize = output.queue.iter().map(Bytes::len).sum();
        self.queued -= before - after;
        match (written, output.end) {
            (Written::All, Some(end)) => self.carry_out(key, stream, end),
            (Written::All, None) => {}
            (Written::Blocked, _) => {
                self.blocked.insert(stream, key);
            }
            (Written::Stopped, _) => self.kill(key, StreamCode::CANCEL),
        }
    }

    // ---- the connection as a whole ----

    /// Ends the connection when it is next transmitted.
    pub fn close(&mut self, code: SessionCode, reason: &'static str) {
        self.closes.get_or_insert((code, reason));
    }

    /// Carries that out.
    pub fn settle(&mut self, now: Instant) {
        if let Some((code, reason)) = self.closes.take()
            && !self.proto.is_closed()
        {
            self.proto.close(now, varint(code.0), Bytes::from_static(reason.as_bytes()));
        }
    }

    /// The client publishes: it may have as many groups under way as with the relay.
    pub fn expect_groups(&mut self) {
        if self.credit[Dir::Uni as usize] < STREAMS_UNI_PUBLISHER {
            self.set_credit(Dir::Uni, STREAMS_UNI_PUBLISHER);
        }
    }

    /// As the relay does: doubles the streams that the client may have open once half of them are.
    fn raise_credit(&mut self, dir: Dir) {
        let credit = self.credit[dir as usize];
        if credit < STREAMS_MAX && self.proto.streams().remote_open_streams(dir) * 2 >= credit {
            self.set_credit(dir, (credit * 2).min(STREAMS_MAX));
        }
    }

    fn set_credit(&mut self, dir: Dir, credit: u64) {
        self.credit[dir as usize] = credit;
        self.proto.set_max_concurrent_streams(dir, varint(credit));
    }
}

enum Written {
    All,
    Blocked,
    Stopped,
}

/// Empties chunks that are written, and cuts off what is written of one.
fn write_chunks(proto: &mut proto::Connection, stream: StreamId, chunks: &mut [Bytes]) -> Written {
    let mut send = proto.send_stream(stream);
    let mut first = 0;
    while chunks[first..].iter().any(|chunk| !chunk.is_empty()) {
        match send.write_chunks(&mut chunks[first..]) {
            Ok(written) => first += written.chunks,
            Err(proto::WriteError::Blocked) => return Written::Blocked,
            Err(proto::WriteError::Stopped(_) | proto::WriteError::ClosedStream) => {
                return Written::Stopped;
            }
        }
    }
    Written::All
}

fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}
