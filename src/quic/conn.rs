//! One QUIC connection, as the transport of one session.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto as proto;
use quinn_proto::{Dir, VarInt};

use super::{INITIAL_RTT, varint};
use crate::limits::{STREAMS_MAX, STREAMS_UNI_PUBLISHER};
use crate::session::streams::{Estimate, ReadEnd, StreamId, Streams, WriteEnd};
use crate::wire::{SessionCode, StreamCode};

/// What happened on a connection.
#[derive(Debug)]
pub enum Event {
    /// The handshake is complete; the protocol that was agreed on.
    Connected {
        alpn: Vec<u8>,
    },
    Opened(StreamId),
    Readable(StreamId),
    Writable(StreamId),
    Finished(StreamId),
    Stopped(StreamId),
    /// The peer grants more streams; true for unidirectional ones.
    Available {
        uni: bool,
    },
    Lost {
        reason: String,
    },
}

#[derive(Debug)]
pub struct Conn {
    pub(super) proto: proto::Connection,
    pub(super) generation: u32,
    /// On the list of connections whose events are to be looked at.
    pub(super) has_events: bool,
    /// On the list of connections that may have something to send.
    pub(super) is_dirty: bool,
    /// The earliest entry in the timer heap.
    pub(super) scheduled: Option<Instant>,
    /// When the session wants to be woken.
    pub(super) session_deadline: Option<Instant>,
    /// A train that the socket would not take yet.
    pub(super) unsent: Option<(proto::Transmit, Vec<u8>)>,
    /// Streams of the peer that are known to the session; those open count towards the credit.
    credit: [u64; 2],
    pub(super) close: Option<(SessionCode, &'static str)>,
    is_established: bool,
    /// Counts as a handshake in progress.
    pub(super) is_handshaking: bool,
    /// Whether stream codes are sent as WebTransport maps them. The released native clients do
    /// so on raw QUIC too and take nothing else; a peer whose own codes are plain gets plain ones.
    maps_codes: bool,
}

impl Conn {
    pub(super) fn new(proto: proto::Connection, generation: u32) -> Conn {
        let credit = [Dir::Bi, Dir::Uni].map(|dir| proto.max_concurrent_streams(dir));
        Conn {
            proto,
            generation,
            has_events: false,
            is_dirty: false,
            scheduled: None,
            session_deadline: None,
            unsent: None,
            credit,
            close: None,
            is_established: false,
            is_handshaking: true,
            maps_codes: true,
        }
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    pub fn remote(&self) -> std::net::SocketAddr {
        self.proto.remote_address()
    }

    /// When the session wants [`crate::session::Session::timeout`] to be called.
    pub fn set_session_deadline(&mut self, deadline: Option<Instant>) {
        self.session_deadline = deadline;
    }

    /// The next thing that happened.
    pub(super) fn poll(&mut self) -> Option<Event> {
        loop {
            // Streams are taken as they come, so a stream may have been read to its end by the
            // time that its readable event is seen; the session ignores those. Before the
            // handshake is complete there is no session to give them to.
            for dir in [Dir::Bi, Dir::Uni].into_iter().filter(|_| self.is_established) {
                if let Some(id) = self.proto.streams().accept(dir) {
                    self.raise_credit(dir);
                    return Some(Event::Opened(StreamId(id.into())));
                }
            }
            let event = match self.proto.poll()? {
                proto::Event::Connected => {
                    self.is_established = true;
                    let data = self.proto.crypto_session().handshake_data();
                    let data = data.and_then(|data| {
                        data.downcast::<proto::crypto::rustls::HandshakeData>().ok()
                    });
                    Event::Connected { alpn: data.and_then(|d| d.protocol).unwrap_or_default() }
                }
                proto::Event::ConnectionLost { reason } => {
                    Event::Lost { reason: reason.to_string() }
                }
                proto::Event::Stream(event) => match event {
                    proto::StreamEvent::Opened { .. } => continue,
                    proto::StreamEvent::Readable { id } => Event::Readable(StreamId(id.into())),
                    proto::StreamEvent::Writable { id } => Event::Writable(StreamId(id.into())),
                    proto::StreamEvent::Finished { id } => Event::Finished(StreamId(id.into())),
                    proto::StreamEvent::Stopped { id, error_code } => {
                        self.received(error_code);
                        Event::Stopped(StreamId(id.into()))
                    }
                    proto::StreamEvent::Available { dir } => {
                        Event::Available { uni: dir == Dir::Uni }
                    }
                },
                proto::Event::HandshakeDataReady
                | proto::Event::DatagramReceived
                | proto::Event::DatagramsUnblocked => continue,
            };
            return Some(event);
        }
    }

    /// Carries out what the session decided about the connection as a whole.
    pub(super) fn settle(&mut self, now: Instant) {
        if let Some((code, reason)) = self.close.take() {
            self.proto.close(now, varint(code.0), Bytes::from_static(reason.as_bytes()));
        }
    }

    /// Doubles the streams that the peer may have open once half of them are.
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

    /// The half of a stream that we send on, if it has one. quinn-proto would panic without.
    fn sending(&mut self, stream: StreamId) -> Option<proto::SendStream<'_>> {
        let stream = id(stream);
        let has_half = stream.dir() == Dir::Bi || stream.initiator() == proto::Side::Server;
        has_half.then(|| self.proto.send_stream(stream))
    }

    /// The half of a stream that the peer sends on, if it has one.
    fn receiving(&mut self, stream: StreamId) -> Option<proto::RecvStream<'_>> {
        let stream = id(stream);
        let has_half = stream.dir() == Dir::Bi || stream.initiator() == proto::Side::Client;
        has_half.then(|| self.proto.recv_stream(stream))
    }

    /// The code to send for a stream.
    fn code(&self, code: StreamCode) -> VarInt {
        varint(if self.maps_codes { code.to_http3() } else { code.0 })
    }

    /// What a code from the peer means.
    fn received(&mut self, code: VarInt) -> StreamCode {
        let raw = code.into_inner();
        let meant = StreamCode::from_raw_quic(raw);
        // Zero is what a transport sends by itself, in either style.
        if raw != 0 {
            self.maps_codes = meant.0 != raw;
        }
        meant
    }

    fn open(&mut self, dir: Dir) -> Option<StreamId> {
        self.proto.streams().open(dir).map(|id| StreamId(id.into()))
    }
}

fn id(id: StreamId) -> proto::StreamId {
    varint(id.0).into()
}

impl Streams for Conn {
    fn open_uni(&mut self) -> Option<StreamId> {
        self.open(Dir::Uni)
    }

    fn open_bidi(&mut self) -> Option<StreamId> {
        self.open(Dir::Bi)
    }

    fn write(&mut self, stream: StreamId, chunks: &mut [Bytes]) -> WriteEnd {
        let mut first = 0;
        let mut taken = 0;
        let Some(mut send) = self.sending(stream) else { return WriteEnd::Stopped };
        while chunks[first..].iter().any(|chunk| !chunk.is_empty()) {
            match send.write_chunks(&mut chunks[first..]) {
                Ok(written) => {
                    taken += written.bytes;
                    first += written.chunks;
                }
                Err(proto::WriteError::Blocked) => return WriteEnd::Blocked(taken),
                Err(proto::WriteError::Stopped(_) | proto::WriteError::ClosedStream) => {
                    return WriteEnd::Stopped;
                }
            }
        }
        WriteEnd::All
    }

    fn finish(&mut self, stream: StreamId) {
        // quinn-proto keeps a stream that the peer has stopped until it is reset.
        let finished = self.sending(stream).map(|mut stream| stream.finish());
        if let Some(Err(proto::FinishError::Stopped(_))) = finished {
            self.reset(stream, StreamCode::CANCEL);
        }
    }

    fn reset(&mut self, stream: StreamId, code: StreamCode) {
        let code = self.code(code);
        let _ = self.sending(stream).map(|mut stream| stream.reset(code));
    }

    fn stop(&mut self, stream: StreamId, code: StreamCode) {
        let code = self.code(code);
        let _ = self.receiving(stream).map(|mut stream| stream.stop(code));
    }

    fn set_priority(&mut self, stream: StreamId, priority: i32) {
        let _ = self.sending(stream).map(|mut stream| stream.set_priority(priority));
    }

    fn read(&mut self, stream: StreamId, max: usize, take: &mut dyn FnMut(&[u8])) -> ReadEnd {
        let Some(mut recv) = self.receiving(stream) else { return ReadEnd::Pending };
        // Closed here means that it was stopped or read to its end before.
        let Ok(mut chunks) = recv.read(true) else { return ReadEnd::Pending };
        let mut left = max;
        let mut reset = None;
        let end = loop {
            if left == 0 {
                break ReadEnd::More;
            }
            match chunks.next(left) {
                Ok(Some(chunk)) => {
                    left -= chunk.bytes.len();
                    take(&chunk.bytes);
                }
                Ok(None) => break ReadEnd::Finished,
                Err(proto::ReadError::Blocked) => break ReadEnd::Pending,
                Err(proto::ReadError::Reset(code)) => {
                    reset = Some(code);
                    break ReadEnd::Finished;
                }
            }
        };
        // Whatever this allows the peer goes out when the turn transmits.
        let _ = chunks.finalize();
        reset.map_or(end, |code| ReadEnd::Reset(self.received(code)))
    }

    fn expect_groups(&mut self) {
        if self.credit[Dir::Uni as usize] < STREAMS_UNI_PUBLISHER {
            self.set_credit(Dir::Uni, STREAMS_UNI_PUBLISHER);
        }
    }

    fn rtt(&self) -> Duration {
        self.proto.rtt()
    }

    fn estimate(&self) -> Estimate {
        let rtt = self.proto.rtt();
        // Before the first sample this is what was assumed.
        if rtt == INITIAL_RTT {
            return Estimate::default();
        }
        let bits = self.proto.congestion_state().window() as f64 * 8.0;
        let bitrate = (bits / rtt.as_secs_f64()).round() as u64;
        Estimate { bitrate: Some(bitrate), rtt: Some(rtt) }
    }

    fn close(&mut self, code: SessionCode, reason: &'static str) {
        self.close.get_or_insert((code, reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_ids_survive_the_round_trip() {
        for raw in [0, 1, 2, 3, 4, 4_000_000_003] {
            assert_eq!(u64::from(id(StreamId(raw))), raw);
        }
    }
}
