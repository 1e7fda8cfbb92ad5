//! What the peer says: frames of its messages, each with what it does.

use bytes::Bytes;

use super::{Mux, NORMAL, index, is_ours};
use crate::mux::Violation;
use crate::mux::frame::{Frame, Parameters, Wire};
use crate::mux::stream::{Receiving, Sending, Stream};
use crate::mux::ws::Said;
use crate::session::streams::{Event, StreamId};
use crate::wire::{SessionCode, StreamCode};

const FLOW_CONTROL: Violation = Violation { code: 1002, reason: "flow control error" };

impl Mux {
    pub(super) fn heard(&mut self, said: Said<'_>) -> Result<(), Violation> {
        if self.is_lost {
            return Ok(());
        }
        match said {
            Said::Message(mut message) => {
                while !message.is_empty() && !self.is_lost {
                    let frame = Frame::take(self.wire, &mut message)?;
                    self.take(frame)?;
                }
            }
            Said::Ping(payload) => self.owes_pong = Some(payload.to_vec()),
            Said::Pong => {}
            Said::Close(status) => {
                self.say_farewell(None, NORMAL);
                let status = status.map_or("no status".to_owned(), |status| status.to_string());
                self.lose(format!("closed by the client: {status}"));
            }
        }
        Ok(())
    }

    fn take(&mut self, frame: Frame<'_>) -> Result<(), Violation> {
        if self.wire == Wire::Qmux02 && frame != Frame::Nothing {
            let is_parameters = matches!(frame, Frame::Parameters(_));
            if is_parameters == self.parameters.is_some() {
                return Err(Violation::protocol("parameters come first, and once"));
            }
        }
        match frame {
            Frame::Nothing => {}
            Frame::Stream { id, data, is_last } => self.take_bytes(id, data, is_last)?,
            Frame::Reset { id, code, final_size } => {
                self.take_reset(id, StreamCode(code), final_size)?;
            }
            Frame::Stop { id, .. } => self.take_stop(id)?,
            Frame::MaxData(max) => self.send_max = self.send_max.max(max),
            Frame::MaxStreamData { id, max } => {
                if let Some(sending) = self.sending(id) {
                    sending.max = sending.max.max(max);
                    self.note_ready(id);
                }
            }
            Frame::MaxStreams { is_uni, max } => self.allow_streams(is_uni, max),
            Frame::Close { is_orderly, code, reason } => {
                self.say_farewell(None, NORMAL);
                let reason = String::from_utf8_lossy(reason);
                let (how, code) = (if is_orderly { "" } else { ", abnormally" }, SessionCode(code));
                self.lose(format!("closed by the client{how}: {code}: {reason}"));
            }
            Frame::Datagram(payload) => {
                self.events.push_back(Event::Datagram(Bytes::copy_from_slice(payload)));
            }
            Frame::Parameters(parameters) => self.take_parameters(parameters),
            Frame::Ping(sequence) => {
                let is_next = self.last_mux_ping.is_none_or(|last| last < sequence);
                if self.wire == Wire::Qmux02 && !is_next {
                    return Err(Violation::protocol("a ping with a number that is not higher"));
                }
                self.last_mux_ping = Some(sequence);
                self.owes_mux_pong = Some(sequence);
            }
            Frame::Pong(sequence) => {
                if self.wire == Wire::Qmux02 && sequence >= self.mux_pings {
                    return Err(Violation::protocol("an answer to a ping that was not sent"));
                }
            }
        }
        Ok(())
    }

    fn take_parameters(&mut self, parameters: Parameters) {
        if self.parameters.is_some() {
            return;
        }
        self.parameters = Some(parameters);
        self.parameters_deadline = None;
        self.send_max = self.send_max.max(parameters.max_data);
        // Those that the peer opened before it said so.
        let early: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in early {
            if let Some(sending) = self.sending(id) {
                sending.max = sending.max.max(parameters.max_stream_data_bidi_local);
                self.note_ready(id);
            }
        }
        self.allow_streams(false, parameters.max_streams_bidi);
        self.allow_streams(true, parameters.max_streams_uni);
    }

    fn allow_streams(&mut self, is_uni: bool, max: u64) {
        let outgoing = &mut self.outgoing[usize::from(is_uni)];
        if max > outgoing.max {
            outgoing.max = max;
            if std::mem::take(&mut outgoing.is_refused) {
                self.events.push_back(Event::Available { uni: is_uni });
            }
        }
    }

    /// Finds or opens the stream that a frame is for; none if it is over.
    fn find(&mut self, id: StreamId) -> Result<Option<&mut Stream>, Violation> {
        let kind = usize::from(id.is_uni());
        if is_ours(id) {
            if index(id) >= self.outgoing[kind].next {
                return Err(Violation::protocol("a stream that we have not opened"));
            }
        } else if !self.streams.contains_key(&id) {
            if !self.incoming[kind].opens(index(id))? {
                return Ok(None);
            }
            let mut stream = Stream { receiving: Some(Receiving::new()), ..Stream::default() };
            if !id.is_uni() {
                let allowed =
                    self.parameters.map_or(0, |allowed| allowed.max_stream_data_bidi_local);
                stream.sending = Some(Sending::new(allowed));
            }
            self.streams.insert(id, stream);
            self.incoming[kind].raise();
            if let Some(receiving) = self.receiving(id) {
                receiving.is_told = true;
            }
            self.events.push_back(Event::Opened(id));
        }
        Ok(self.streams.get_mut(&id))
    }

    /// The half of a stream that the peer sends on, if it has one that is not over.
    fn find_receiving(&mut self, id: StreamId) -> Result<Option<&mut Receiving>, Violation> {
        if is_ours(id) && id.is_uni() {
            return Err(Violation::protocol("only we send on this stream"));
        }
        let stream = self.find(id)?;
        let receiving = stream.and_then(|stream| stream.receiving.as_mut());
        Ok(receiving.filter(|receiving| !receiving.has_ended()))
    }

    fn take_bytes(&mut self, id: StreamId, data: &[u8], is_last: bool) -> Result<(), Violation> {
        let (bytes, received, max) = (data.len() as u64, self.received, self.receive_max);
        let Some(receiving) = self.find_receiving(id)? else { return Ok(()) };
        if !receiving.allows(bytes) || received + bytes > max {
            return Err(FLOW_CONTROL);
        }
        let read = receiving.push(data, is_last);
        self.received += bytes;
        self.count_read(read);
        self.heard_on(id);
        Ok(())
    }

    fn take_reset(
        &mut self,
        id: StreamId,
        code: StreamCode,
        final_size: u64,
    ) -> Result<(), Violation> {
        let (received, max) = (self.received, self.receive_max);
        let Some(receiving) = self.find_receiving(id)? else { return Ok(()) };
        let missing = receiving.missing(final_size);
        if !receiving.allows(missing) || received.saturating_add(missing) > max {
            return Err(FLOW_CONTROL);
        }
        let read = receiving.reset(code, missing);
        self.received += missing;
        self.count_read(read);
        self.heard_on(id);
        Ok(())
    }

    /// Something has come on a stream: the session is to read it, if anybody waits for it.
    fn heard_on(&mut self, id: StreamId) {
        let Some(receiving) = self.receiving(id) else { return };
        if receiving.is_over() {
            return self.end_receiving(id);
        }
        if receiving.is_wanted() && !std::mem::replace(&mut receiving.is_told, true) {
            self.events.push_back(Event::Readable(id));
        }
    }

    fn take_stop(&mut self, id: StreamId) -> Result<(), Violation> {
        if !is_ours(id) && id.is_uni() {
            return Err(Violation::protocol("only the client sends on this stream"));
        }
        let stream = self.find(id)?;
        let Some(sending) = stream.and_then(|stream| stream.sending.as_mut()) else {
            return Ok(());
        };
        if sending.owes_reset.is_some() || std::mem::replace(&mut sending.is_stopped, true) {
            return Ok(());
        }
        self.drop_queue(id);
        self.events.push_back(Event::Stopped(id));
        Ok(())
    }
}
