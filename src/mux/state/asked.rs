//! What a session asks of its streams.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use super::{Mux, NORMAL};
use crate::limits::{
    DATAGRAM_BUFFER_BYTES, MUX_STREAM_QUEUE_BYTES, MUX_STREAM_QUEUE_BYTES_MIN,
    STREAMS_UNI_PUBLISHER,
};
use crate::mux::frame::NUMBERS_BYTES_MAX;
use crate::mux::stream::{Receiving, Sending, Stream};
use crate::session::streams::{Estimate, ReadEnd, StreamId, Streams, WriteEnd};
use crate::wire::{SessionCode, StreamCode};

impl Mux {
    fn open(&mut self, is_uni: bool) -> Option<StreamId> {
        let outgoing = &mut self.outgoing[usize::from(is_uni)];
        let Some(allowed) =
            self.parameters.filter(|_| !self.is_lost && outgoing.next < outgoing.max)
        else {
            outgoing.is_refused = true;
            return None;
        };
        let id = StreamId(outgoing.next << 2 | u64::from(is_uni) << 1 | 1);
        outgoing.next += 1;
        let max = match is_uni {
            true => allowed.max_stream_data_uni,
            false => allowed.max_stream_data_bidi_remote,
        };
        let receiving = (!is_uni).then(Receiving::new);
        let stream = Stream { sending: Some(Sending::new(max)), receiving, ..Stream::default() };
        self.streams.insert(id, stream);
        Some(id)
    }
}

impl Streams for Mux {
    fn open_uni(&mut self) -> Option<StreamId> {
        self.open(true)
    }

    fn open_bidi(&mut self) -> Option<StreamId> {
        self.open(false)
    }

    fn write(&mut self, id: StreamId, chunks: &mut [Bytes]) -> WriteEnd {
        let (queued, window) = (self.queued, self.send_window as usize);
        let Some(sending) = self.sending(id).filter(|sending| !sending.is_closed()) else {
            return WriteEnd::Stopped;
        };
        let here = sending.queued();
        let room = window
            .saturating_sub(queued)
            .max(MUX_STREAM_QUEUE_BYTES_MIN.saturating_sub(here))
            .min(MUX_STREAM_QUEUE_BYTES - here);
        let taken = sending.take(chunks, room);
        let is_blocked = chunks.iter().any(|chunk| !chunk.is_empty());
        sending.is_blocked = is_blocked;
        self.queued += taken;
        self.note_ready(id);
        if is_blocked { WriteEnd::Blocked(taken) } else { WriteEnd::All }
    }

    fn finish(&mut self, id: StreamId) {
        let Some(sending) = self.sending(id) else { return };
        if sending.is_stopped {
            return self.reset(id, StreamCode::CANCEL);
        }
        sending.is_finished = true;
        self.note_ready(id);
    }

    fn reset(&mut self, id: StreamId, code: StreamCode) {
        let Some(sending) = self.sending(id) else { return };
        if sending.owes_reset.is_none() {
            sending.owes_reset = Some(code);
            self.drop_queue(id);
            self.list(id);
        }
    }

    fn stop(&mut self, id: StreamId, code: StreamCode) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(receiving) = &mut stream.receiving else { return };
        let is_first = receiving.is_wanted();
        let unread = receiving.stop();
        if receiving.is_over() {
            self.end_receiving(id);
        } else if is_first {
            stream.owes_stop = Some(code);
            self.list(id);
        }
        self.count_read(unread);
    }

    fn set_priority(&mut self, id: StreamId, priority: i32) {
        let Some(sending) = self.sending(id) else { return };
        sending.priority = priority;
        if let Some(place) = sending.place.take() {
            self.schedule.remove(place);
            self.note_ready(id);
        }
    }

    fn read(&mut self, id: StreamId, max: usize, take: &mut dyn FnMut(&[u8])) -> ReadEnd {
        let Some(receiving) = self.receiving(id).filter(|receiving| receiving.is_wanted()) else {
            return ReadEnd::Pending;
        };
        let (bytes, end) = receiving.read(max, take);
        let owes_max = receiving.replenish();
        match end {
            ReadEnd::Finished | ReadEnd::Reset(_) => self.end_receiving(id),
            ReadEnd::Pending | ReadEnd::More if owes_max => self.list(id),
            ReadEnd::Pending | ReadEnd::More => {}
        }
        self.window.note_read(bytes);
        self.count_read(bytes);
        end
    }

    fn send_datagram(&mut self, head: &[u8], payload: &[u8]) {
        let bytes = head.len() + payload.len();
        let most = self.parameters.map_or(0, |allowed| {
            allowed.max_datagram_frame_size.min(self.wire.message_bytes_max() as u64)
        });
        // Nobody waits for one: what is too large, or finds no room, was lost on the way.
        if !self.wire.has_records() || (NUMBERS_BYTES_MAX + bytes) as u64 > most {
            return;
        }
        let payload = Bytes::copy_from_slice(payload);
        self.datagrams.push_back([Bytes::copy_from_slice(head), payload]);
        self.datagram_bytes += bytes;
        while self.datagram_bytes > DATAGRAM_BUFFER_BYTES {
            let Some([head, payload]) = self.datagrams.pop_front() else { break };
            self.datagram_bytes -= head.len() + payload.len();
        }
    }

    fn expect_groups(&mut self) {
        self.window.expect_groups();
        let uni = &mut self.incoming[1];
        uni.wanted = uni.wanted.max(STREAMS_UNI_PUBLISHER);
    }

    fn rtt(&self) -> Duration {
        self.link.rtt
    }

    fn window(&self) -> u64 {
        self.link.window
    }

    fn estimate(&self) -> Estimate {
        self.link.estimate
    }

    fn shown(&self) -> Estimate {
        self.link.shown
    }

    fn close(&mut self, code: SessionCode, reason: Cow<'static, str>) {
        self.say_farewell(Some((true, code.0, reason)), NORMAL);
        self.is_lost = true;
        self.forget();
    }
}
