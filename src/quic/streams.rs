//! The streams of one connection as they are on the wire: bytes, and codes as numbers. What the
//! codes mean and what precedes the bytes is for the protocol above.

use bytes::Bytes;
use quinn_proto as proto;
use quinn_proto::{Dir, VarInt};

use super::varint;
use crate::session::streams::{StreamId, WriteEnd};

pub(super) struct RawStreams<'a>(pub &'a mut proto::Connection);

/// How a read left the stream.
pub(super) enum RawEnd {
    Pending,
    More,
    Finished,
    Reset(u64),
}

pub(super) fn id(id: StreamId) -> proto::StreamId {
    varint(id.0).into()
}

impl RawStreams<'_> {
    pub fn open(&mut self, dir: Dir) -> Option<StreamId> {
        self.0.streams().open(dir).map(|id| StreamId(id.into()))
    }

    /// The half of a stream that we send on, if it has one. quinn-proto would panic without.
    pub fn sending(&mut self, stream: StreamId) -> Option<proto::SendStream<'_>> {
        let stream = id(stream);
        let has_half = stream.dir() == Dir::Bi || stream.initiator() == self.0.side();
        has_half.then(|| self.0.send_stream(stream))
    }

    /// The half of a stream that the peer sends on, if it has one.
    fn receiving(&mut self, stream: StreamId) -> Option<proto::RecvStream<'_>> {
        let stream = id(stream);
        let has_half = stream.dir() == Dir::Bi || stream.initiator() != self.0.side();
        has_half.then(|| self.0.recv_stream(stream))
    }

    pub fn write(&mut self, stream: StreamId, chunks: &mut [Bytes]) -> WriteEnd {
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

    /// False if the peer has stopped the stream: then a reset is due.
    pub fn finish(&mut self, stream: StreamId) -> bool {
        let finished = self.sending(stream).map(|mut stream| stream.finish());
        !matches!(finished, Some(Err(proto::FinishError::Stopped(_))))
    }

    pub fn reset(&mut self, stream: StreamId, code: VarInt) {
        let _ = self.sending(stream).map(|mut stream| stream.reset(code));
    }

    pub fn stop(&mut self, stream: StreamId, code: VarInt) {
        let _ = self.receiving(stream).map(|mut stream| stream.stop(code));
    }

    /// Hands over what has arrived in order, at most `max` bytes.
    pub fn read(&mut self, stream: StreamId, max: usize, take: &mut dyn FnMut(&[u8])) -> RawEnd {
        let Some(mut recv) = self.receiving(stream) else { return RawEnd::Pending };
        // Closed here means that it was stopped or read to its end before.
        let Ok(mut chunks) = recv.read(true) else { return RawEnd::Pending };
        let mut left = max;
        let end = loop {
            if left == 0 {
                break RawEnd::More;
            }
            match chunks.next(left) {
                Ok(Some(chunk)) => {
                    left -= chunk.bytes.len();
                    take(&chunk.bytes);
                }
                Ok(None) => break RawEnd::Finished,
                Err(proto::ReadError::Blocked) => break RawEnd::Pending,
                Err(proto::ReadError::Reset(code)) => break RawEnd::Reset(code.into_inner()),
            }
        };
        // Whatever this allows the peer goes out when the turn transmits.
        let _ = chunks.finalize();
        end
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
