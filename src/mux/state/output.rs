//! What is said next, and in which messages.

use std::time::Instant;

use super::credit::our_parameters;
use super::{Farewell, Mux};
use crate::limits::{CLOSE_REASON_BYTES_MAX, MUX_PAYLOAD_BYTES_LEAST, MUX_PAYLOAD_BYTES_MAX};
use crate::mux::frame::{
    Frame, NUMBERS_BYTES_MAX, STREAM_HEAD_BYTES_MAX, Wire, encode_datagram, encode_stream_head,
};
use crate::mux::stream::Sending;
use crate::mux::ws::{self, Opcode};
use crate::session::streams::{Event, StreamId};
use crate::wire::StreamCode;

impl Mux {
    /// Whether [`Mux::transmit`] has something to say.
    pub fn has_output(&self) -> bool {
        if self.is_lost {
            return self.farewell.is_some();
        }
        self.owes_parameters
            || self.owes_max_data
            || self.incoming.iter().any(|incoming| incoming.owes_max)
            || self.owes_pong.is_some()
            || self.owes_mux_pong.is_some()
            || self.owes_ping
            || self.owes_mux_ping
            || !self.listed.is_empty()
            || !self.datagrams.is_empty()
            || self.schedule.first().is_some_and(|id| self.may_send(id))
    }

    /// Whether the credit of the connection lets a stream send that waits to.
    fn may_send(&self, id: StreamId) -> bool {
        let stream = self.streams.get(&id).and_then(|stream| stream.sending.as_ref());
        self.sent < self.send_max || stream.is_some_and(|sending| sending.queued() == 0)
    }

    /// Appends what is to be said next, about `budget` bytes and one message more at most: first what keeps
    /// the connection going, then datagrams, then bytes of streams.
    pub fn transmit(&mut self, now: Instant, budget: usize, out: &mut Vec<u8>) {
        let (begin, end) = (out.len(), out.len() + budget);
        if self.is_lost {
            return self.write_farewell(out);
        }
        if let Some(payload) = self.owes_pong.take() {
            ws::write(Opcode::Pong, &payload, out);
        }
        if std::mem::take(&mut self.owes_ping) {
            ws::write(Opcode::Ping, &[], out);
        }
        let before = out.len();
        let mut messages = Messages { wire: self.wire, out, start: None };
        self.write_control(end, &mut messages);
        while messages.out.len() < end
            && let Some([head, payload]) = self.datagrams.pop_front()
        {
            let bytes = head.len() + payload.len();
            self.datagram_bytes -= bytes;
            messages.begin(NUMBERS_BYTES_MAX + bytes);
            encode_datagram(&[&head, &payload], messages.out);
            messages.end_frame();
        }
        while messages.out.len() < end
            && let Some(id) = self.schedule.first().filter(|id| self.may_send(*id))
        {
            self.send_on(id, &mut messages);
        }
        messages.end();
        if out.len() > before {
            self.sent_at = now;
        }
        debug_assert!(out.len() - begin <= budget + 2 * self.wire.message_bytes_max());
    }

    fn write_farewell(&mut self, out: &mut Vec<u8>) {
        let Some(Farewell { close, status }) = self.farewell.take() else { return };
        let mut messages = Messages { wire: self.wire, out, start: None };
        if let Some((is_orderly, code, reason)) = close {
            if std::mem::take(&mut self.owes_parameters) {
                messages.frame(&Frame::Parameters(our_parameters(self.wire)));
            }
            let reason = &reason.as_bytes()[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
            messages.begin(NUMBERS_BYTES_MAX + reason.len());
            messages.frame(&Frame::Close { is_orderly, code, reason });
            messages.end();
        }
        ws::write(Opcode::Close, &status.to_be_bytes(), out);
    }

    /// All that keeps the connection going, except for what there may be much of and no room for.
    fn write_control(&mut self, end: usize, messages: &mut Messages<'_>) {
        if std::mem::take(&mut self.owes_parameters) {
            messages.frame(&Frame::Parameters(our_parameters(self.wire)));
        }
        if let Some(sequence) = self.owes_mux_pong.take() {
            messages.frame(&Frame::Pong(sequence));
        }
        if std::mem::take(&mut self.owes_mux_ping) {
            messages.frame(&Frame::Ping(self.mux_pings));
            self.mux_pings += 1;
        }
        if std::mem::take(&mut self.owes_max_data) {
            messages.frame(&Frame::MaxData(self.receive_max));
        }
        for (incoming, is_uni) in self.incoming.iter_mut().zip([false, true]) {
            if std::mem::take(&mut incoming.owes_max) {
                messages.frame(&Frame::MaxStreams { is_uni, max: incoming.max });
            }
        }
        while messages.out.len() < end
            && let Some(id) = self.listed.pop_front()
        {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.is_listed = false;
            if let Some(StreamCode(code)) = stream.owes_stop.take() {
                messages.frame(&Frame::Stop { id, code });
            }
            if let Some(receiving) = &mut stream.receiving
                && std::mem::take(&mut receiving.owes_max)
            {
                messages.frame(&Frame::MaxStreamData { id, max: receiving.max() });
            }
            let sending = stream.sending.take_if(|sending| sending.owes_reset.is_some());
            if let Some(Sending { owes_reset: Some(StreamCode(code)), sent, .. }) = sending {
                messages.frame(&Frame::Reset { id, code, final_size: sent });
            }
            self.retire(id);
        }
    }

    /// Sends some bytes of a stream whose turn it is, or its end.
    fn send_on(&mut self, id: StreamId, messages: &mut Messages<'_>) {
        let credit = usize::try_from(self.send_max - self.sent).unwrap_or(usize::MAX);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(sending) = &mut stream.sending else { return };
        let wanted = sending.allowed().min(credit).min(MUX_PAYLOAD_BYTES_MAX);
        messages.begin(STREAM_HEAD_BYTES_MAX + wanted.min(MUX_PAYLOAD_BYTES_LEAST));
        let bytes = wanted.min(messages.room() - STREAM_HEAD_BYTES_MAX);
        let is_last = sending.is_finished && sending.queued() == bytes;
        encode_stream_head(id, sending.sent, bytes, is_last, messages.out);
        sending.send(bytes, messages.out);
        messages.end_frame();
        self.queued -= bytes;
        self.sent += bytes as u64;
        if let Some(place) = sending.place.take() {
            self.schedule.remove(place);
        }
        if is_last {
            stream.sending = None;
            self.events.push_back(Event::Finished(id));
            return self.retire(id);
        }
        if sending.is_blocked && sending.has_room() {
            sending.is_blocked = false;
            self.events.push_back(Event::Writable(id));
        }
        self.note_ready(id);
    }
}

/// Frames on their way into messages.
struct Messages<'a> {
    wire: Wire,
    out: &'a mut Vec<u8>,
    /// Where the present message begins.
    start: Option<usize>,
}

impl Messages<'_> {
    /// Sees to it that so many bytes fit the present message.
    fn begin(&mut self, bytes: usize) {
        if self.start.is_some() && self.room() < bytes {
            self.end();
        }
        if self.start.is_none() {
            self.start = Some(ws::begin(self.out));
        }
    }

    fn room(&self) -> usize {
        let payload = self.start.map_or(0, |start| ws::payload_len(start, self.out));
        self.wire.message_bytes_max().saturating_sub(payload)
    }

    fn frame(&mut self, frame: &Frame<'_>) {
        self.begin(NUMBERS_BYTES_MAX);
        frame.encode(self.out);
        self.end_frame();
    }

    fn end_frame(&mut self) {
        if !self.wire.has_records() {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some(start) = self.start.take() {
            ws::end(Opcode::Binary, start, self.out);
        }
    }
}
