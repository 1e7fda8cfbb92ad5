//! One connection: its streams, signs of life and both ways to end. What each side allows the other is in
//! `credit`, what the peer says in `input`, what is said next in `output`, and what a session asks in `asked`.

mod asked;
mod credit;
mod input;
mod output;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::Violation;
use super::frame::{Parameters, Wire};
use super::schedule::Schedule;
use super::stream::{Receiving, Sending, Stream};
use super::ws;
use crate::limits::{
    MUX_IDLE_TIMEOUT, MUX_KEEP_ALIVE, RECEIVE_WINDOW_START, SEND_WINDOW_BYTES, SETUP_TIMEOUT,
    STREAM_BYTES, STREAMS_BIDI_START, STREAMS_UNI_START,
};
use crate::session::streams::{Event, Link, StreamId};
use crate::window::Window;
use crate::wire::SessionCode;
use credit::{Incoming, Outgoing};

/// What is still to be said when nothing else is.
#[derive(Debug)]
struct Farewell {
    /// Whether all was in order, the code and the reason; nothing where the peer has said it first.
    close: Option<(bool, u64, Cow<'static, str>)>,
    status: u16,
}

const GOING_AWAY: u16 = 1001;
const NORMAL: u16 = 1000;

#[derive(Debug)]
pub struct Mux {
    wire: Wire,
    reader: ws::Reader,
    /// What the peer allows, once it has said so.
    parameters: Option<Parameters>,
    owes_parameters: bool,
    streams: FxHashMap<StreamId, Stream>,
    /// Bidirectional and unidirectional ones.
    incoming: [Incoming; 2],
    outgoing: [Outgoing; 2],
    /// Bytes of streams that were handed to the socket, and that the peer allows.
    sent: u64,
    send_max: u64,
    /// Bytes of streams that have come, that count as read, and that the peer may send.
    received: u64,
    consumed: u64,
    receive_max: u64,
    /// Bytes of all streams that may wait here to be sent.
    send_window: u64,
    receive_window: u64,
    window: Window,
    owes_max_data: bool,
    schedule: Schedule,
    /// Bytes of streams that wait to be sent.
    queued: usize,
    /// Streams with something to say beside their bytes.
    listed: VecDeque<StreamId>,
    datagrams: VecDeque<[Bytes; 2]>,
    datagram_bytes: usize,
    events: VecDeque<Event>,
    /// The last Ping of the client, and the last of qmux, that are not answered: who asks faster than it
    /// takes answers gets fewer.
    owes_pong: Option<Vec<u8>>,
    owes_mux_pong: Option<u64>,
    owes_ping: bool,
    owes_mux_ping: bool,
    /// How many pings of qmux we have sent, and the last one of the peer's.
    mux_pings: u64,
    last_mux_ping: Option<u64>,
    /// Until when the peer's parameters are to come.
    parameters_deadline: Option<Instant>,
    heard_at: Instant,
    pinged_at: Instant,
    sent_at: Instant,
    /// Nobody hears of anything more: the session was told, or has closed.
    is_lost: bool,
    farewell: Option<Farewell>,
    link: Link,
}

impl Mux {
    /// A connection that was agreed on, as a server has it.
    pub fn new(wire: Wire, now: Instant) -> Mux {
        Mux {
            wire,
            reader: ws::Reader::new(wire.message_bytes_max()),
            parameters: None,
            owes_parameters: true,
            streams: FxHashMap::default(),
            incoming: [STREAMS_BIDI_START, STREAMS_UNI_START].map(Incoming::new),
            outgoing: Default::default(),
            sent: 0,
            send_max: 0,
            received: 0,
            consumed: 0,
            send_window: SEND_WINDOW_BYTES,
            receive_max: RECEIVE_WINDOW_START.into(),
            receive_window: RECEIVE_WINDOW_START.into(),
            window: Window::new(now),
            owes_max_data: false,
            schedule: Schedule::default(),
            queued: 0,
            listed: VecDeque::new(),
            datagrams: VecDeque::new(),
            datagram_bytes: 0,
            events: VecDeque::new(),
            owes_pong: None,
            owes_mux_pong: None,
            owes_ping: false,
            owes_mux_ping: false,
            mux_pings: 0,
            last_mux_ping: None,
            parameters_deadline: Some(now + SETUP_TIMEOUT),
            heard_at: now,
            pinged_at: now,
            sent_at: now,
            is_lost: false,
            farewell: None,
            link: Link::default(),
        }
    }

    /// When something was last heard of the peer.
    pub fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// Streams of either side that are not over.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// What is now known of the path.
    pub fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// Takes in what has come. It is unmasked where it lies.
    pub fn receive(&mut self, now: Instant, input: &mut [u8]) {
        if self.is_lost || input.is_empty() {
            return;
        }
        self.heard_at = now;
        let mut reader = std::mem::replace(&mut self.reader, ws::Reader::new(0));
        let read = reader.read(input, &mut |said| self.heard(said));
        self.reader = reader;
        if let Err(violation) = read {
            self.fail(violation);
        }
    }

    /// The peer has ended the stream of bytes without another word.
    pub fn ended(&mut self, reason: &str) {
        self.lose(reason.to_owned());
    }

    /// Asks the peer for a sign of life.
    pub fn ping(&mut self) {
        self.owes_ping = true;
    }

    /// The next thing that happened.
    pub fn poll(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        match event {
            Event::Opened(id) | Event::Readable(id) => {
                if let Some(receiving) = self.receiving(id) {
                    receiving.is_told = false;
                }
            }
            Event::Lost { .. } => self.forget(),
            _ => {}
        }
        Some(event)
    }

    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether nobody is to hear anything of it, but for the peer a last word.
    pub fn is_over(&self) -> bool {
        self.is_lost && self.events.is_empty()
    }

    /// When [`Mux::timeout`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        if self.is_lost {
            return None;
        }
        let ping = (self.heard_at.max(self.pinged_at) + MUX_KEEP_ALIVE)
            .min(self.heard_at + MUX_IDLE_TIMEOUT);
        let mux_ping = self.wire.has_records().then(|| self.sent_at + MUX_KEEP_ALIVE);
        [Some(ping), mux_ping, self.parameters_deadline].into_iter().flatten().min()
    }

    pub fn timeout(&mut self, now: Instant) {
        if self.is_lost {
            return;
        }
        let too_late = if self.parameters_deadline.is_some_and(|deadline| deadline <= now) {
            Some("no transport parameters in time")
        } else if self.heard_at + MUX_IDLE_TIMEOUT <= now {
            Some("the client is silent")
        } else {
            None
        };
        if let Some(reason) = too_late {
            let code = SessionCode::CONTROL_TIMEOUT.0;
            self.say_farewell(Some((false, code, reason.into())), GOING_AWAY);
            return self.lose(reason.to_owned());
        }
        if self.heard_at.max(self.pinged_at) + MUX_KEEP_ALIVE <= now {
            self.pinged_at = now;
            self.owes_ping = true;
        }
        // A browser's Pong is not seen by the page, which counts what it is sent itself.
        if self.wire.has_records() && self.sent_at + MUX_KEEP_ALIVE <= now {
            self.sent_at = now;
            self.owes_mux_ping = self.parameters.is_some();
        }
    }

    /// Ends the connection at once, and with it a session that is told nothing of its own: clients take
    /// that for a loss, and dial again.
    pub fn close_now(&mut self, code: SessionCode, reason: &'static str) {
        self.say_farewell(Some((false, code.0, reason.into())), GOING_AWAY);
        self.is_lost = true;
        self.forget();
    }

    /// Gives the peer more streams and a larger window where those that it has are in the way, as far as
    /// that is granted.
    pub fn grow(&mut self, now: Instant, grant: &mut dyn FnMut(u64) -> bool) {
        for incoming in &mut self.incoming {
            let more = incoming.wanted - incoming.credit;
            if more > 0 && grant(more * STREAM_BYTES) {
                incoming.credit = incoming.wanted;
                incoming.replenish();
            }
        }
        if let Some(more) = self.window.wanted(now, self.link.rtt)
            && grant(more)
        {
            self.receive_window = self.window.grow(more);
            self.count_read(0);
        }
    }

    /// How much may wait to be sent, of all streams.
    pub fn set_send_window(&mut self, bytes: u64) {
        self.send_window = bytes;
    }
    /// So many bytes count as read; the peer is allowed as much again, once that is half of its window.
    fn count_read(&mut self, bytes: u64) {
        self.consumed += bytes;
        let max = self.consumed + self.receive_window;
        if max - self.receive_max >= self.receive_window / 2 {
            self.receive_max = max;
            self.owes_max_data = true;
        }
    }

    fn sending(&mut self, id: StreamId) -> Option<&mut Sending> {
        self.streams.get_mut(&id)?.sending.as_mut()
    }

    fn receiving(&mut self, id: StreamId) -> Option<&mut Receiving> {
        self.streams.get_mut(&id)?.receiving.as_mut()
    }

    fn end_receiving(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.receiving = None;
        }
        self.retire(id);
    }

    /// Forgets a stream that is over.
    fn retire(&mut self, id: StreamId) {
        if self.streams.get(&id).is_none_or(|stream| !stream.is_over()) {
            return;
        }
        self.streams.remove(&id);
        if !is_ours(id) {
            let incoming = &mut self.incoming[usize::from(id.is_uni())];
            incoming.over += 1;
            incoming.replenish();
        }
    }

    /// Puts a stream on the list of those with something to say beside their bytes.
    fn list(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.is_listed, true)
        {
            self.listed.push_back(id);
        }
    }

    /// Gives a stream its place among those who wait to send, or takes it away.
    fn note_ready(&mut self, id: StreamId) {
        let Some(sending) = self.streams.get_mut(&id).and_then(|stream| stream.sending.as_mut())
        else {
            return;
        };
        match (sending.is_ready(), sending.place) {
            (true, None) => sending.place = Some(self.schedule.push(sending.priority, id)),
            (false, Some(place)) => {
                self.schedule.remove(place);
                sending.place = None;
            }
            _ => {}
        }
    }

    /// Drops what waits to be sent on a stream.
    fn drop_queue(&mut self, id: StreamId) {
        if let Some(sending) = self.sending(id) {
            let dropped = sending.discard();
            self.queued -= dropped;
            self.note_ready(id);
        }
    }

    /// The client has broken the rules.
    fn fail(&mut self, violation: Violation) {
        let close = (false, violation.code.into(), violation.reason.into());
        self.say_farewell(Some(close), violation.code);
        self.lose(format!("qmux broken by the client: {violation}"));
    }

    /// The connection is over for the session, which has still to hear what came before.
    fn lose(&mut self, reason: String) {
        if !std::mem::replace(&mut self.is_lost, true) {
            self.events.push_back(Event::Lost { reason });
        }
    }

    fn say_farewell(&mut self, close: Option<(bool, u64, Cow<'static, str>)>, status: u16) {
        if !self.is_lost {
            self.farewell = Some(Farewell { close, status });
        }
    }

    /// Nobody asks for anything that is here.
    fn forget(&mut self) {
        self.streams = FxHashMap::default();
        self.schedule.clear();
        self.queued = 0;
        self.listed = VecDeque::new();
        self.datagrams = VecDeque::new();
        self.datagram_bytes = 0;
        self.events = VecDeque::new();
    }
}

/// Whether we have opened it.
fn is_ours(id: StreamId) -> bool {
    id.0 & 1 == 1
}

fn index(id: StreamId) -> u64 {
    id.0 >> 2
}
