//! The client's end of qmux in a WebSocket: streams, credit and messages as released clients have them, and
//! complaints about what no relay should ever send. It knows the bytes of a connection and no link.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::Dir;
use shardcast::mux::{Frame, Parameters, Wire};
use shardcast::session::streams::StreamId;
use shardcast::wire::encode_varint;

use super::super::network::Random;
use super::conn::{Event, Written};
use super::{End, Spec};

/// Bytes of a message, and of what one frame brings of a stream.
const MESSAGE_BYTES: usize = 16_382;
const PAYLOAD_BYTES: usize = 16_352;

/// What precedes that.
const HEAD_BYTES: usize = 32;

/// Bytes of a stream that are taken before the socket takes them.
const QUEUE_BYTES: usize = 64 << 10;

/// A client that hears nothing for so long gives up, and says something after a third of that.
const IDLE: Duration = Duration::from_secs(30);

const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

#[derive(Debug, Default)]
struct Send {
    queue: Vec<u8>,
    sent: u64,
    max: u64,
    is_finished: bool,
    is_blocked: bool,
    yields: bool,
}

#[derive(Debug)]
struct Recv {
    unread: Vec<u8>,
    received: u64,
    consumed: u64,
    max: u64,
    end: Option<End>,
    is_stopped: bool,
}

#[derive(Debug)]
pub(super) struct Ws {
    wire: Wire,
    random: Random,
    /// STREAM frames have an offset, which one released client leaves out.
    has_offsets: bool,
    /// Streams go on in the order of their ids, and not in any.
    is_in_order: bool,
    ours: Parameters,
    theirs: Option<Parameters>,
    is_open: bool,
    has_begun: bool,
    input: Vec<u8>,
    /// What the link has not taken.
    out: Vec<u8>,
    /// How much it takes.
    pub room: usize,
    sends: BTreeMap<u64, Send>,
    recvs: BTreeMap<u64, Recv>,
    /// Streams that this end opens, of both kinds: the next one, and how many it may open.
    next: [u64; 2],
    max_streams: [u64; 2],
    /// Streams of the relay: how many it has opened, we have accepted, are over, it may open at once, and in
    /// all.
    opened: [u64; 2],
    accepted: [u64; 2],
    over: [u64; 2],
    credit: [u64; 2],
    granted: [u64; 2],
    sent: u64,
    send_max: u64,
    received: u64,
    consumed: u64,
    receive_max: u64,
    /// Frames beside those with bytes of streams.
    owed: VecDeque<Vec<u8>>,
    owed_pong: Option<Vec<u8>>,
    datagrams_out: VecDeque<Bytes>,
    datagrams_in: VecDeque<Bytes>,
    events: VecDeque<Event>,
    heard_at: Instant,
    said_at: Instant,
    pings: u64,
    last_ping: Option<u64>,
    /// Nothing is said any more but what is in `out`, and nothing is heard.
    is_over: bool,
    pub faults: Vec<String>,
}

fn kind(dir: Dir) -> usize {
    usize::from(dir == Dir::Uni)
}

fn kind_of(id: u64) -> usize {
    usize::from(id & 2 != 0)
}

/// Whether this end has opened it.
fn is_ours(id: u64) -> bool {
    id & 1 == 0
}

impl Ws {
    pub fn new(spec: &Spec, wire: Wire, seed: u64, now: Instant) -> Ws {
        let mut random = Random::new(seed);
        let window = spec.window.into();
        let credit = [spec.bidi_streams.into(), spec.uni_streams.into()];
        let has_records = wire != Wire::Qmux00;
        let ours = Parameters {
            max_idle_timeout: if has_records { IDLE.as_millis() as u64 } else { 0 },
            max_data: window,
            max_stream_data_bidi_local: window,
            max_stream_data_bidi_remote: window,
            max_stream_data_uni: window,
            max_streams_bidi: credit[0],
            max_streams_uni: credit[1],
            max_datagram_frame_size: if has_records { MESSAGE_BYTES as u64 } else { 0 },
            max_record_size: if has_records { MESSAGE_BYTES as u64 } else { 0 },
        };
        Ws {
            wire,
            has_offsets: !random.one_in(3),
            is_in_order: spec.is_player || random.one_in(3),
            random,
            ours,
            theirs: None,
            is_open: false,
            has_begun: false,
            input: Vec::new(),
            out: Vec::new(),
            room: 0,
            sends: BTreeMap::new(),
            recvs: BTreeMap::new(),
            next: [0; 2],
            max_streams: [0; 2],
            opened: [0; 2],
            accepted: [0; 2],
            over: [0; 2],
            credit,
            granted: credit,
            sent: 0,
            send_max: 0,
            received: 0,
            consumed: 0,
            receive_max: window,
            owed: VecDeque::new(),
            owed_pong: None,
            datagrams_out: VecDeque::new(),
            datagrams_in: VecDeque::new(),
            events: VecDeque::new(),
            heard_at: now,
            said_at: now,
            pings: 0,
            last_ping: None,
            is_over: false,
            faults: Vec::new(),
        }
    }

    fn has_records(&self) -> bool {
        self.wire != Wire::Qmux00
    }

    /// The request is answered: this is a WebSocket.
    pub fn opened(&mut self, now: Instant) {
        self.is_open = true;
        (self.heard_at, self.said_at) = (now, now);
    }

    /// The relay says nothing more.
    pub fn ended(&mut self) {
        self.lose("the relay has hung up".to_owned(), None);
    }

    /// All has been said, and the link may end.
    pub fn is_done(&self) -> bool {
        self.is_over && self.out.is_empty()
    }

    fn lose(&mut self, reason: String, with: Option<u64>) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.events.push_back(Event::Lost(reason, with));
        }
    }

    pub fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub fn next_timer(&self) -> Option<Instant> {
        if self.is_over || !self.is_open {
            return None;
        }
        let ping = self.has_records().then(|| self.said_at + IDLE / 3);
        [Some(self.heard_at + IDLE), ping].into_iter().flatten().min()
    }

    pub fn timeout(&mut self, now: Instant) {
        if self.is_over {
            return;
        }
        if self.heard_at + IDLE <= now {
            return self.lose("the relay is silent".to_owned(), None);
        }
        if self.has_records() && self.said_at + IDLE / 3 <= now {
            self.said_at = now;
            self.owe(&Frame::Ping(self.pings));
            self.pings += 1;
        }
    }

    // ---- what the relay says ----

    /// Bytes of the connection have come.
    pub fn bytes(&mut self, now: Instant, bytes: &[u8]) {
        if self.is_over {
            return;
        }
        self.heard_at = now;
        self.input.extend_from_slice(bytes);
        let mut input = std::mem::take(&mut self.input);
        let mut used = 0;
        while let Some((opcode, head, length)) = split_head(&input[used..]) {
            let Some(payload) = input[used..].get(head..head + length) else { break };
            self.message(opcode, payload);
            used += head + length;
        }
        input.drain(..used);
        self.input = input;
    }

    fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    fn message(&mut self, opcode: u8, mut payload: &[u8]) {
        if self.is_over {
            return self.fault(format!("a frame {opcode:x} after the end"));
        }
        match opcode {
            BINARY => {
                if payload.is_empty()
                    || payload.len() > MESSAGE_BYTES + 2 * usize::from(!self.has_records())
                {
                    self.fault(format!("a message of {} bytes", payload.len()));
                }
                let mut count = 0;
                while !payload.is_empty() && !self.is_over {
                    count += 1;
                    match Frame::take(self.wire, &mut payload) {
                        Ok(frame) => self.frame(frame),
                        Err(error) => return self.fault(format!("qmux: {error}")),
                    }
                }
                if count > 1 && !self.has_records() {
                    self.fault(format!("{count} frames in one message"));
                }
            }
            PING => self.owed_pong = Some(payload.to_vec()),
            PONG => {}
            CLOSE => {
                let status = payload.first_chunk().map(|status| u16::from_be_bytes(*status));
                self.say_close(status.unwrap_or(1000));
                self.lose(format!("the WebSocket is closed with {status:?}"), None);
            }
            _ => self.fault(format!("a WebSocket frame of kind {opcode:x}")),
        }
    }

    fn frame(&mut self, frame: Frame<'_>) {
        if self.theirs.is_none() && !matches!(frame, Frame::Parameters(_) | Frame::Close { .. }) {
            self.fault(format!("{frame:?} before parameters"));
        }
        match frame {
            Frame::Nothing => {}
            Frame::Parameters(theirs) => {
                if self.theirs.replace(theirs).is_some() {
                    self.fault("parameters a second time".to_owned());
                }
                self.send_max = theirs.max_data;
                self.max_streams = [theirs.max_streams_bidi, theirs.max_streams_uni];
                self.events.push_back(Event::Connected);
            }
            Frame::Stream { id, data, is_last } => self.take_bytes(id.0, data, is_last),
            Frame::Reset { id, code, final_size } => self.take_reset(id.0, code, final_size),
            Frame::Stop { id, code } => {
                let id = id.0;
                if !is_ours(id) && kind_of(id) == 1 {
                    return self.fault(format!("STOP_SENDING of {id}, which is the relay's"));
                }
                self.meet(id);
                if let Some(send) = self.sends.get_mut(&id) {
                    send.queue.clear();
                    send.is_finished = false;
                    self.events.push_back(Event::Stopped(id, code));
                }
            }
            Frame::MaxData(max) => self.send_max = self.send_max.max(max),
            Frame::MaxStreamData { id, max } => {
                if let Some(send) = self.sends.get_mut(&id.0) {
                    send.max = send.max.max(max);
                }
            }
            Frame::MaxStreams { is_uni, max } => {
                let known = &mut self.max_streams[usize::from(is_uni)];
                *known = (*known).max(max);
            }
            Frame::Close { is_orderly, code, reason } => {
                let reason = String::from_utf8_lossy(reason);
                let how = if is_orderly { "" } else { "abnormally " };
                let reason = format!("{how}closed with {code:#x}: {reason}");
                self.say_close(1000);
                self.lose(reason, Some(code));
            }
            Frame::Datagram(payload) => {
                self.datagrams_in.push_back(Bytes::copy_from_slice(payload));
                self.events.push_back(Event::Datagrams);
            }
            Frame::Ping(sequence) => {
                if self.last_ping.is_some_and(|last| sequence <= last) {
                    self.fault(format!("ping {sequence} after {:?}", self.last_ping));
                }
                self.last_ping = Some(sequence);
                self.owe(&Frame::Pong(sequence));
            }
            Frame::Pong(sequence) => {
                if sequence >= self.pings {
                    self.fault(format!("an answer to ping {sequence}, of {}", self.pings));
                }
            }
        }
    }

    /// A stream of the relay opens all below it.
    fn meet(&mut self, id: u64) {
        let (kind, index) = (kind_of(id), id >> 2);
        if is_ours(id) {
            if index >= self.next[kind] {
                self.fault(format!("stream {id} is not open"));
            }
            return;
        }
        if index >= self.granted[kind] {
            self.fault(format!(
                "stream {id} is beyond the {} that there may be",
                self.granted[kind]
            ));
        }
        for index in self.opened[kind]..=index {
            let id = index << 2 | (kind as u64) << 1 | 1;
            let max = match kind {
                0 => self.ours.max_stream_data_bidi_remote,
                _ => self.ours.max_stream_data_uni,
            };
            self.recvs.insert(id, Recv::new(max));
            if kind == 0 {
                let max = self.theirs.map_or(0, |theirs| theirs.max_stream_data_bidi_local);
                self.sends.insert(id, Send { max, ..Send::default() });
            }
        }
        self.opened[kind] = self.opened[kind].max(index + 1);
    }

    fn take_bytes(&mut self, id: u64, data: &[u8], is_last: bool) {
        if data.len() > PAYLOAD_BYTES {
            self.fault(format!("{} bytes of stream {id} in a frame", data.len()));
        }
        self.meet(id);
        let bytes = data.len() as u64;
        self.received += bytes;
        if self.received > self.receive_max {
            self.fault(format!("{} bytes of {} allowed", self.received, self.receive_max));
        }
        let Some(recv) = self.recvs.get_mut(&id) else {
            // It may have been under way.
            return self.consume(bytes);
        };
        recv.received += bytes;
        let (received, max) = (recv.received, recv.max);
        let has_ended = recv.end.is_some();
        let is_stopped = recv.is_stopped;
        if is_last {
            recv.end = Some(End::Finished);
        }
        if !is_stopped {
            recv.unread.extend_from_slice(data);
        }
        if received > max || has_ended {
            self.fault(format!("{received} bytes of {max} on stream {id}, ended: {has_ended}"));
        }
        if is_stopped {
            self.consume(bytes);
            if is_last {
                self.end_recv(id);
            }
            return;
        }
        self.events.push_back(Event::Readable(id));
    }

    fn take_reset(&mut self, id: u64, code: u64, final_size: u64) {
        self.meet(id);
        let Some(recv) = self.recvs.get_mut(&id) else { return };
        let (received, has_ended) = (recv.received, recv.end.is_some());
        recv.end = Some(End::Reset(code));
        recv.unread.clear();
        let left = recv.received - recv.consumed;
        recv.consumed = recv.received;
        let is_stopped = recv.is_stopped;
        if received != final_size || has_ended {
            self.fault(format!("stream {id} is reset at {final_size}, and has {received}"));
        }
        self.consume(left);
        match is_stopped {
            true => self.end_recv(id),
            false => self.events.push_back(Event::Readable(id)),
        }
    }

    fn consume(&mut self, bytes: u64) {
        self.consumed += bytes;
        let max = self.consumed + self.ours.max_data;
        if max - self.receive_max >= self.ours.max_data / 2 {
            self.receive_max = max;
            self.owe(&Frame::MaxData(max));
        }
    }

    fn end_recv(&mut self, id: u64) {
        self.recvs.remove(&id);
        self.retire(id);
    }

    fn end_send(&mut self, id: u64) {
        self.sends.remove(&id);
        self.retire(id);
    }

    /// The relay may open another one for each that is over.
    fn retire(&mut self, id: u64) {
        if is_ours(id) || self.recvs.contains_key(&id) || self.sends.contains_key(&id) {
            return;
        }
        let kind = kind_of(id);
        self.over[kind] += 1;
        self.grant(kind);
    }

    fn grant(&mut self, kind: usize) {
        let max = self.over[kind] + self.credit[kind];
        if max >= self.granted[kind] + (self.credit[kind] / 4).max(1) {
            self.granted[kind] = max;
            self.owe(&Frame::MaxStreams { is_uni: kind == 1, max });
        }
    }

    // ---- what this end says ----

    fn owe(&mut self, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.owed.push_back(bytes);
    }

    pub fn open(&mut self, dir: Dir) -> Option<u64> {
        let kind = kind(dir);
        let theirs = self.theirs.filter(|_| self.next[kind] < self.max_streams[kind])?;
        let id = self.next[kind] << 2 | (kind as u64) << 1;
        self.next[kind] += 1;
        let max = match dir {
            Dir::Bi => theirs.max_stream_data_bidi_remote,
            Dir::Uni => theirs.max_stream_data_uni,
        };
        self.sends.insert(id, Send { max, ..Send::default() });
        if dir == Dir::Bi {
            self.recvs.insert(id, Recv::new(self.ours.max_stream_data_bidi_local));
        }
        Some(id)
    }

    pub fn accept(&mut self, dir: Dir) -> Option<u64> {
        let kind = kind(dir);
        let index = self.accepted[kind];
        (index < self.opened[kind]).then(|| {
            self.accepted[kind] += 1;
            index << 2 | (kind as u64) << 1 | 1
        })
    }

    pub fn read(&mut self, id: u64, into: &mut BytesMut) -> Option<Option<End>> {
        let recv = self.recvs.get_mut(&id).filter(|recv| !recv.is_stopped)?;
        into.extend_from_slice(&std::mem::take(&mut recv.unread));
        let (end, here) = (recv.end, recv.received - recv.consumed);
        recv.consumed = recv.received;
        let max = recv.consumed + self.ours.max_stream_data_uni;
        let is_low = end.is_none() && max - recv.max >= self.ours.max_stream_data_uni / 2;
        if is_low {
            recv.max = max;
            self.owe(&Frame::MaxStreamData { id: StreamId(id), max });
        }
        self.consume(here);
        if end.is_some() {
            self.end_recv(id);
        }
        Some(end)
    }

    pub fn write(&mut self, id: u64, bytes: &[u8]) -> Written {
        let Some(send) = self.sends.get_mut(&id) else { return Written::Gone };
        let room = QUEUE_BYTES - send.queue.len();
        if room == 0 {
            send.is_blocked = true;
            return Written::Blocked;
        }
        let taken = room.min(bytes.len());
        send.queue.extend_from_slice(&bytes[..taken]);
        Written::Taken(taken)
    }

    pub fn finish(&mut self, id: u64) {
        if let Some(send) = self.sends.get_mut(&id) {
            send.is_finished = true;
        }
    }

    pub fn reset(&mut self, id: u64, code: u64) {
        if let Some(send) = self.sends.get(&id) {
            // Some released clients never say how much they have sent.
            let final_size = if self.has_offsets { send.sent } else { 0 };
            self.owe(&Frame::Reset { id: StreamId(id), code, final_size });
            self.end_send(id);
        }
    }

    pub fn stop(&mut self, id: u64, code: u64) {
        let Some(recv) = self.recvs.get_mut(&id).filter(|recv| !recv.is_stopped) else { return };
        recv.is_stopped = true;
        recv.unread.clear();
        let left = recv.received - recv.consumed;
        recv.consumed = recv.received;
        let has_ended = recv.end.is_some();
        self.consume(left);
        match has_ended {
            true => self.end_recv(id),
            false => self.owe(&Frame::Stop { id: StreamId(id), code }),
        }
    }

    pub fn yields(&mut self, id: u64) {
        if let Some(send) = self.sends.get_mut(&id) {
            send.yields = true;
        }
    }

    pub fn grant_uni(&mut self, count: u32) {
        self.credit[1] = count.into();
        self.grant(1);
    }

    pub fn send_datagram(&mut self, datagram: Bytes) {
        if self.has_records() {
            self.datagrams_out.push_back(datagram);
        }
    }

    pub fn recv_datagram(&mut self) -> Option<Bytes> {
        self.datagrams_in.pop_front()
    }

    /// Ends the session in good order.
    pub fn close(&mut self, code: u64) {
        if self.is_over {
            return;
        }
        if !self.is_open {
            return self.hang_up();
        }
        if self.has_begun {
            let mut bytes = Vec::new();
            Frame::Close { is_orderly: true, code, reason: b"bye" }.encode(&mut bytes);
            self.say(BINARY, &bytes);
        }
        self.say_close(1000);
        self.is_over = true;
    }

    /// Hangs up, in the middle of whatever is being said.
    pub fn hang_up(&mut self) {
        self.is_over = true;
        self.out.clear();
    }

    /// Bytes that no client says.
    pub fn babble(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn say_close(&mut self, status: u16) {
        self.say(CLOSE, &status.to_be_bytes());
    }

    /// Says a message, masked, and perhaps in parts.
    fn say(&mut self, opcode: u8, payload: &[u8]) {
        let (mut rest, mut next) = (payload, opcode);
        while opcode == BINARY && self.random.one_in(6) {
            let (part, after) = rest.split_at(self.random.below(rest.len() as u64 + 1) as usize);
            self.say_part(next, false, part);
            (rest, next) = (after, 0);
            if self.random.one_in(4) {
                self.say_part(PING, true, b"there?");
            }
        }
        self.say_part(next, true, rest);
    }

    fn say_part(&mut self, opcode: u8, is_last: bool, payload: &[u8]) {
        self.out.push(opcode | if is_last { 0x80 } else { 0 });
        match payload.len() {
            length @ ..126 => self.out.push(0x80 | length as u8),
            length => {
                self.out.push(0x80 | 126);
                self.out.extend((length as u16).to_be_bytes());
            }
        }
        let mut mask = [0; 4];
        self.random.fill(&mut mask);
        self.out.extend(mask);
        self.out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }

    /// What the link takes, which may end anywhere.
    pub fn transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.room == 0 || !self.is_open {
            return None;
        }
        if self.out.is_empty() && !self.is_over {
            self.compose(now);
        }
        let here = self.room.min(self.out.len());
        self.room -= here;
        (here > 0).then(|| self.out.drain(..here).collect())
    }

    fn compose(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.has_begun, true) {
            let mut bytes = Vec::new();
            Frame::Parameters(self.ours).encode(&mut bytes);
            return self.say(BINARY, &bytes);
        }
        if self.theirs.is_none() {
            return;
        }
        if let Some(payload) = self.owed_pong.take() {
            return self.say(PONG, &payload);
        }
        let most = match self.has_records() {
            true => self.random.pick(&[1, 500, MESSAGE_BYTES]),
            false => 1,
        };
        let mut message = Vec::new();
        while message.is_empty() || message.len() + HEAD_BYTES < most {
            if let Some(frame) = self.owed.pop_front() {
                message.extend(frame);
            } else if let Some(datagram) = self.datagrams_out.front() {
                if !message.is_empty()
                    && message.len() + HEAD_BYTES + datagram.len() > MESSAGE_BYTES
                {
                    break;
                }
                Frame::Datagram(datagram).encode(&mut message);
                self.datagrams_out.pop_front();
            } else if !self.say_some(&mut message) {
                break;
            }
        }
        if !message.is_empty() {
            self.said_at = now;
            self.say(BINARY, &message);
        }
    }

    /// Adds some of a stream to a message. False if there is nothing that may be said.
    fn say_some(&mut self, message: &mut Vec<u8>) -> bool {
        let credit = self.send_max - self.sent;
        let is_ready = |send: &Send| {
            let allowed = (send.queue.len() as u64).min(credit).min(send.max - send.sent);
            allowed > 0 || send.is_finished && send.queue.is_empty()
        };
        let ready = self.sends.iter().filter(|(_, send)| is_ready(send));
        let ready: Vec<(bool, u64)> = ready.map(|(id, send)| (send.yields, *id)).collect();
        let Some(&(yields, first)) = ready.iter().min() else { return false };
        let first_ones: Vec<u64> =
            ready.iter().filter(|(other, _)| *other == yields).map(|(_, id)| *id).collect();
        // What opens a session goes before what is said in it.
        let id = match self.is_in_order || self.sent == 0 {
            true => first,
            false => self.random.pick(&first_ones),
        };
        let send = self.sends.get_mut(&id).expect("it is ready");
        let room = (MESSAGE_BYTES - HEAD_BYTES).saturating_sub(message.len()).max(1);
        let most = self.random.pick(&[1, 100, PAYLOAD_BYTES, PAYLOAD_BYTES]).min(room);
        let allowed = credit.min(send.max - send.sent) as usize;
        let here = send.queue.len().min(allowed).min(most);
        let data: Vec<u8> = send.queue.drain(..here).collect();
        let is_last = send.is_finished && send.queue.is_empty();
        let offset = send.sent;
        send.sent += here as u64;
        self.sent += here as u64;
        if std::mem::take(&mut send.is_blocked) {
            self.events.push_back(Event::Writable(id));
        }
        let (fin, offsets) = (u64::from(is_last), 4 * u64::from(self.has_offsets));
        encode_varint(0x0a | offsets | fin, message);
        encode_varint(id, message);
        if self.has_offsets {
            encode_varint(offset, message);
        }
        encode_varint(data.len() as u64, message);
        message.extend(data);
        if is_last {
            self.events.push_back(Event::Finished(id));
            self.end_send(id);
        }
        true
    }
}

impl Recv {
    fn new(max: u64) -> Recv {
        Recv { unread: Vec::new(), received: 0, consumed: 0, max, end: None, is_stopped: false }
    }
}

/// The kind of a WebSocket frame of a server, and the bytes of its header and of what it carries.
fn split_head(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let &[first, second] = bytes.first_chunk()?;
    // Neither in parts nor masked, or it has no kind that there is.
    let opcode = if first & 0xf0 == 0x80 && second < 127 { first & 0x0f } else { 0xf };
    match second {
        126 => {
            let length = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
            Some((opcode, 4, length.into()))
        }
        length => Some((opcode, 2, usize::from(length & 0x7f))),
    }
}
