//! One QUIC connection, as the transport of one session.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto as proto;
use quinn_proto::{ConnectionEvent, Dir, VarInt};
use rustls::pki_types::CertificateDer;
use url::Url;

use super::budget::{Allowance, Budget};
use super::counts::Counts;
use super::handshakes::Ticket;
use super::lost::lost;
use super::streams::{RawEnd, RawStreams};
use super::trains::{Turnout, Unsent};
use super::web::Web;
use super::{Cause, Event, INITIAL_RTT, varint};
use crate::h3::request::Status;
use crate::h3::{self, Code};
use crate::limits::{
    ACK_DELAY, CLOSE_GRACE_MAX, CLOSE_GRACE_MIN, DIAL_TIMEOUT, HANDSHAKE_TIMEOUT,
    LINK_SEND_WINDOW_BYTES, SEND_WINDOW_BYTES, SESSION_BYTES, SETUP_TIMEOUT, STREAM_BYTES,
    STREAMS_MAX, STREAMS_UNI_PUBLISHER,
};
use crate::observe::{Departures, Tick};
use crate::session::streams::{Estimate, ReadEnd, StreamId, Streams, WriteEnd};
use crate::source::Source;
use crate::window::Window;
use crate::wire::{SessionCode, StreamCode};

/// What a browser's connection agrees on in TLS; the moq version follows in the request.
pub const ALPN_HTTP3: &[u8] = b"h3";

#[derive(Debug)]
pub struct Conn {
    pub(super) proto: proto::Connection,
    pub(super) generation: u32,
    /// On the list of connections whose events are to be looked at.
    pub(super) has_events: bool,
    /// On the list of connections that may have something to send.
    pub(super) is_dirty: bool,
    /// The session has done something that may have to be sent.
    is_touched: bool,
    /// When the session wants to be woken.
    pub(super) session_deadline: Option<Instant>,
    pub(super) unsent: Unsent,
    /// When the first datagram came, and the last one.
    began: Instant,
    heard_at: Instant,
    /// Streams of the peer that are known to the session; those open count towards the credit.
    credit: [u64; 2],
    /// What the credit should be.
    wanted: [u64; 2],
    window: Window,
    /// How much may be written and not yet acknowledged.
    send_window: u64,
    allowance: Allowance,
    is_relay: bool,
    /// Where it comes from, and what it was granted of the budget.
    pub(super) source: Source,
    pub(super) granted: u64,
    /// When content came that is to be sent.
    fresh: Option<Tick>,
    /// Since when congestion control has something wait, and what was written before has more of it wait.
    held_since: Option<Tick>,
    queue_full_since: Option<Tick>,
    is_queue_full: bool,
    /// When it last had its turn to send.
    has_waited: bool,
    pub(super) close: Option<(SessionCode, Cow<'static, str>)>,
    is_established: bool,
    /// Some may wait to be taken.
    has_datagrams: bool,
    /// While it is a handshake in progress: until it has a session, or asks for one.
    pub(super) handshake: Option<Ticket>,
    /// Nothing is kept of it once its last words have left. It has no session.
    pub(super) is_forgotten: bool,
    binding: Binding,
    /// Events that are ready for the session.
    ready: VecDeque<Event>,
    /// When the connection ends by itself, and how.
    ends: Option<(Instant, VarInt, Cow<'static, str>)>,
}

/// Counts a wait up to now that goes on, has begun or is over.
fn note_wait(since: &mut Option<Tick>, goes_on: bool, now: Tick, waited: &mut u64) {
    *waited += since.map_or(0, |since| now.since(since));
    *since = goes_on.then_some(now);
}

/// How the session lies on the connection.
#[derive(Debug)]
enum Binding {
    Quic {
        /// Whether stream codes are sent as WebTransport maps them. The released native clients do
        /// so on raw QUIC too and take nothing else; a peer whose own codes are plain gets plain
        /// ones.
        maps_codes: bool,
    },
    Web(Box<Web>),
}

impl Conn {
    /// The budget has admitted it.
    pub(super) fn new(proto: proto::Connection, generation: u32, now: Instant) -> Conn {
        let source = Source::of(proto.remote_address().ip());
        let credit = [Dir::Bi, Dir::Uni].map(|dir| proto.max_concurrent_streams(dir));
        let code = varint(SessionCode::CONTROL_TIMEOUT.0);
        Conn {
            proto,
            generation,
            has_events: false,
            is_dirty: false,
            is_touched: false,
            session_deadline: None,
            unsent: None,
            began: now,
            heard_at: now,
            credit,
            wanted: credit,
            window: Window::new(now),
            send_window: SEND_WINDOW_BYTES,
            allowance: Allowance::START,
            is_relay: false,
            source,
            granted: SESSION_BYTES,
            fresh: None,
            held_since: None,
            queue_full_since: None,
            is_queue_full: false,
            has_waited: false,
            close: None,
            is_established: false,
            has_datagrams: false,
            handshake: None,
            is_forgotten: false,
            binding: Binding::Quic { maps_codes: true },
            ready: VecDeque::new(),
            ends: Some((now + HANDSHAKE_TIMEOUT, code, "no handshake in time".into())),
        }
    }

    /// One that this relay begins, for WebTransport with what is to be asked for.
    pub(super) fn dialled(
        proto: proto::Connection,
        generation: u32,
        web: Option<&Url>,
        now: Instant,
    ) -> Conn {
        let mut conn = Conn::new(proto, generation, now);
        if let Some(url) = web {
            conn.binding = Binding::Web(Box::new(Web::dialling(url)));
        }
        let code = varint(SessionCode::CONTROL_TIMEOUT.0);
        conn.ends = Some((
            now + DIAL_TIMEOUT,
            code,
            "no answer in time: is a relay there, and does UDP get through?".into(),
        ));
        conn
    }

    fn is_dialled(&self) -> bool {
        self.proto.side() == proto::Side::Client
    }

    /// Whether its session is one of WebTransport.
    pub fn is_web(&self) -> bool {
        matches!(self.binding, Binding::Web(_))
    }

    /// The peer is a relay of this cluster: it may have as much under way towards it as it takes, and grows on when
    /// clients do not.
    pub fn expect_relay(&mut self) {
        self.is_relay = true;
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    pub fn remote(&self) -> std::net::SocketAddr {
        self.proto.remote_address()
    }

    /// By what name the client has called this relay.
    pub fn server_name(&self) -> Option<String> {
        let data = self.proto.crypto_session().handshake_data()?;
        data.downcast::<proto::crypto::rustls::HandshakeData>().ok()?.server_name
    }

    /// The certificate that the client has shown, its own one alone.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        let chain = self.proto.crypto_session().peer_identity()?;
        let chain = chain.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        chain.into_iter().next()
    }

    /// Bytes that were sent and received, with all that QUIC adds to them.
    pub fn moved(&self) -> (u64, u64) {
        let stats = self.proto.stats();
        (stats.udp_tx.bytes, stats.udp_rx.bytes)
    }

    /// When the first datagram came.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// When the last datagram came.
    pub fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// The address of ours that the client has dialled.
    pub fn local_ip(&self) -> Option<std::net::IpAddr> {
        self.proto.local_ip()
    }

    /// Millionths of packets that were lost.
    pub fn loss(&self) -> u64 {
        let path = self.proto.stats().path;
        path.lost_packets * 1_000_000 / path.sent_packets.max(1)
    }

    pub(super) fn is_established(&self) -> bool {
        self.is_established
    }

    /// The session is about to write what came at this time.
    pub fn note_fresh(&mut self, came: Tick) {
        self.fresh = Some(self.fresh.map_or(came, |before| before.min(came)));
    }

    /// It has had its turn to send: counts what was sent, and how long it had to wait.
    #[inline]
    pub(super) fn note_turnout(
        &mut self,
        turnout: Turnout,
        now: Tick,
        departures: &mut Departures,
        counts: &mut Counts,
    ) {
        if let Some(came) = self.fresh.take()
            && turnout.has_sent
        {
            departures.note(came);
        }
        if turnout.is_held | self.is_queue_full | self.has_waited {
            self.count_waits(turnout.is_held, now, counts);
        }
    }

    #[cold]
    fn count_waits(&mut self, is_held: bool, now: Tick, counts: &mut Counts) {
        self.has_waited = is_held || self.is_queue_full;
        note_wait(&mut self.held_since, is_held, now, &mut counts.held_by_congestion);
        let queue = &mut self.queue_full_since;
        note_wait(queue, self.is_queue_full, now, &mut counts.held_by_queue);
    }

    /// Asks the peer for a sign of life.
    pub fn ping(&mut self) {
        self.proto.ping();
    }

    /// Whether the session has done anything since this was last asked that may have to be sent.
    pub fn take_touched(&mut self) -> bool {
        std::mem::take(&mut self.is_touched)
    }

    /// When the session wants [`crate::session::Session::timeout`] to be called.
    pub fn set_session_deadline(&mut self, deadline: Option<Instant>) {
        self.session_deadline = deadline;
    }

    /// Takes what a datagram brought.
    ///
    /// What comes alone is acknowledged in the same turn, while the connection is in the cache, and
    /// not by a timer that has to fetch it once more. A peer that sends often will send again
    /// before that timer, and one acknowledgement will do for several packets. Publishers are told in any
    /// case: there are few, and their window may be small.
    pub(super) fn receive(&mut self, now: Instant, event: ConnectionEvent) {
        let comes_alone = now - std::mem::replace(&mut self.heard_at, now) >= ACK_DELAY;
        self.proto.handle_event(event);
        let ack_at = now + ACK_DELAY;
        // No other timer is due at that very time, so no other believes that it is that late.
        if (comes_alone || self.window.publishes()) && self.proto.poll_timeout() == Some(ack_at) {
            self.proto.handle_timeout(ack_at);
        }
    }

    /// The next thing that happened, as far as it concerns a session.
    pub(super) fn poll(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let event = self.next_event()?;
            if let Event::Connected { alpn } = &event
                && alpn == ALPN_HTTP3
            {
                if !self.is_dialled() {
                    self.binding = Binding::Web(Box::default());
                }
                if let Binding::Web(web) = &mut self.binding {
                    web.start(&mut RawStreams(&mut self.proto));
                }
                continue;
            }
            match &mut self.binding {
                Binding::Quic { .. } => return Some(event),
                Binding::Web(web) => {
                    web.handle(&mut RawStreams(&mut self.proto), event, &mut self.ready);
                }
            }
        }
    }

    /// The next thing that happened on the connection.
    fn next_event(&mut self) -> Option<Event> {
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
            if self.has_datagrams {
                if let Some(datagram) = self.proto.datagrams().recv() {
                    return Some(Event::Datagram(datagram));
                }
                self.has_datagrams = false;
            }
            let event = match self.proto.poll()? {
                proto::Event::Connected => {
                    self.is_established = true;
                    self.ends = None;
                    let data = self.proto.crypto_session().handshake_data();
                    let data = data.and_then(|data| {
                        data.downcast::<proto::crypto::rustls::HandshakeData>().ok()
                    });
                    Event::Connected { alpn: data.and_then(|d| d.protocol).unwrap_or_default() }
                }
                proto::Event::ConnectionLost { reason } => lost(&reason),
                proto::Event::Stream(event) => match event {
                    proto::StreamEvent::Opened { .. } => continue,
                    proto::StreamEvent::Readable { id } => Event::Readable(StreamId(id.into())),
                    proto::StreamEvent::Writable { id } => {
                        self.is_queue_full = false;
                        Event::Writable(StreamId(id.into()))
                    }
                    proto::StreamEvent::Finished { id } => Event::Finished(StreamId(id.into())),
                    proto::StreamEvent::Stopped { id, error_code } => {
                        self.received(error_code.into_inner());
                        Event::Stopped(StreamId(id.into()))
                    }
                    proto::StreamEvent::Available { dir } => {
                        Event::Available { uni: dir == Dir::Uni }
                    }
                },
                proto::Event::DatagramReceived => {
                    self.has_datagrams = true;
                    continue;
                }
                proto::Event::HandshakeDataReady | proto::Event::DatagramsUnblocked => continue,
            };
            return Some(event);
        }
    }

    /// Accepts the session that was requested, in the protocol of this name if one was offered.
    pub fn accept(&mut self, protocol: Option<&str>) {
        if let Binding::Web(web) = &mut self.binding {
            web.accept(&mut RawStreams(&mut self.proto), protocol, &mut self.ready);
        }
        // The client may have used up what it had before.
        self.raise_credit(Dir::Bi);
        self.raise_credit(Dir::Uni);
    }

    /// Refuses the session that was requested.
    pub fn refuse(&mut self, status: Status) {
        if let Binding::Web(web) = &mut self.binding {
            web.refuse(&mut RawStreams(&mut self.proto), status);
        }
    }

    /// Carries out what was decided about the connection as a whole.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.proto.is_closed() {
            return;
        }
        let close = self.close.take();
        let Binding::Web(web) = &mut self.binding else {
            if let Some((code, reason)) = close {
                self.close_connection(now, varint(code.0), reason);
            }
            return;
        };
        if let Some(violation) = web.take_violation() {
            return self.close_connection(now, varint(violation.code.0), violation.reason.into());
        }
        if let Some((code, reason)) = close {
            web.close(&mut RawStreams(&mut self.proto), code, &reason);
            let grace = (3 * self.proto.rtt()).clamp(CLOSE_GRACE_MIN, CLOSE_GRACE_MAX);
            self.ends = Some((now + grace, varint(code.to_http3()), reason));
        } else if web.is_over() {
            // It is the client's to close the connection too.
            let code = varint(Code::NO_ERROR.0);
            self.ends.get_or_insert((now + CLOSE_GRACE_MIN, code, "the session is over".into()));
        } else if web.is_open() {
            self.ends = None;
        } else {
            let code = varint(Code::REQUEST_INCOMPLETE.0);
            self.ends.get_or_insert((now + SETUP_TIMEOUT, code, "no session in time".into()));
        }
    }

    /// When [`Conn::expire`] is due.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        self.ends.as_ref().map(|(at, ..)| *at)
    }

    /// Ends the connection if its time has come.
    pub(super) fn expire(&mut self, now: Instant) {
        if let Some((_, code, reason)) = self.ends.take_if(|(at, ..)| *at <= now) {
            // Who has dialled waits to hear of it.
            self.is_forgotten = !self.is_established && !self.is_dialled();
            if self.is_dialled() {
                let reason = reason.clone().into_owned();
                self.ready.push_back(Event::Lost { reason, cause: Cause::Other });
            }
            self.close_connection(now, code, reason);
        }
    }

    /// Gives up a connection whose handshake makes room for another one.
    pub(super) fn give_up(&mut self, now: Instant) {
        self.is_forgotten = true;
        self.close_connection(
            now,
            varint(SessionCode::CONTROL_TIMEOUT.0),
            "too many handshakes".into(),
        );
    }

    fn close_connection(&mut self, now: Instant, code: VarInt, reason: Cow<'static, str>) {
        let reason = match reason {
            Cow::Borrowed(words) => Bytes::from_static(words.as_bytes()),
            Cow::Owned(words) => words.into(),
        };
        self.proto.close(now, code, reason);
    }

    /// Ends the connection at once, and with it a session that is told nothing of its own.
    pub(super) fn close_now(&mut self, now: Instant, code: SessionCode, reason: &'static str) {
        let code = match self.binding {
            Binding::Quic { .. } => code.0,
            Binding::Web(_) => code.to_http3(),
        };
        self.close_connection(now, varint(code), reason.into());
    }

    /// Doubles the streams that the peer may have open once half of them are.
    fn raise_credit(&mut self, dir: Dir) {
        // Streams that wait for a session get no others.
        if matches!(&self.binding, Binding::Web(web) if !web.is_open()) {
            return;
        }
        let credit = self.credit[dir as usize];
        if credit < STREAMS_MAX && self.proto.streams().remote_open_streams(dir) * 2 >= credit {
            self.want_credit(dir, (credit * 2).min(STREAMS_MAX));
        }
    }

    fn want_credit(&mut self, dir: Dir, credit: u64) {
        let wanted = &mut self.wanted[dir as usize];
        *wanted = credit.max(*wanted);
    }

    /// Gives the peer more streams and a larger window where those that it has are in the way, as far as
    /// the budget has it.
    pub(super) fn grow(&mut self, now: Instant, budget: &mut Budget) {
        // Asked of every connection that sends.
        let usual = if self.is_relay { LINK_SEND_WINDOW_BYTES } else { SEND_WINDOW_BYTES };
        let send_window = budget.send_window(usual);
        if self.send_window != send_window {
            self.send_window = send_window;
            self.proto.set_send_window(send_window);
        }
        if self.wanted != self.credit || self.window.publishes() || self.allowance.is_wanting() {
            self.ask_for_more(now, budget);
        }
    }

    fn ask_for_more(&mut self, now: Instant, budget: &mut Budget) {
        for dir in [Dir::Bi, Dir::Uni] {
            let (credit, wanted) = (self.credit[dir as usize], self.wanted[dir as usize]);
            if credit < wanted && self.is_granted((wanted - credit) * STREAM_BYTES, budget) {
                self.credit[dir as usize] = wanted;
                self.proto.set_max_concurrent_streams(dir, varint(wanted));
            }
        }
        let (source, granted, is_relay) = (self.source, &mut self.granted, self.is_relay);
        self.allowance.grow(|bytes| {
            let is_granted = budget.grow(source, *granted, bytes, is_relay);
            *granted += if is_granted { bytes } else { 0 };
            is_granted
        });
        if let Some(more) = self.window.wanted(now, self.proto.rtt())
            && self.is_granted(more, budget)
        {
            self.proto.set_receive_window(varint(self.window.grow(more)));
        }
    }

    fn is_granted(&mut self, bytes: u64, budget: &mut Budget) -> bool {
        let is_granted = budget.grow(self.source, self.granted, bytes, self.is_relay);
        if is_granted {
            self.granted += bytes;
        }
        is_granted
    }

    /// The code to send for a stream.
    fn code(&self, code: StreamCode) -> VarInt {
        varint(match self.binding {
            Binding::Quic { maps_codes: false } => code.0,
            _ => code.to_http3(),
        })
    }

    /// What a code from the peer means.
    fn received(&mut self, code: u64) -> StreamCode {
        let Binding::Quic { maps_codes } = &mut self.binding else {
            // A browser that drops a stream sends a code of its transport.
            return StreamCode::from_http3(code).unwrap_or(StreamCode::INTERNAL);
        };
        let meant = StreamCode::from_raw_quic(code);
        // Zero is what a transport sends by itself, in either style.
        if code != 0 {
            *maps_codes = meant.0 != code;
        }
        meant
    }

    fn open(&mut self, dir: Dir) -> Option<StreamId> {
        // Also where there is no credit: the peer is told that it is wanted.
        self.is_touched = true;
        let id = RawStreams(&mut self.proto).open(dir)?;
        if let Binding::Web(web) = &mut self.binding {
            web.opened(id);
        }
        Some(id)
    }
}

impl Streams for Conn {
    fn open_uni(&mut self) -> Option<StreamId> {
        self.open(Dir::Uni)
    }

    fn open_bidi(&mut self) -> Option<StreamId> {
        self.open(Dir::Bi)
    }

    fn write(&mut self, stream: StreamId, chunks: &mut [Bytes]) -> WriteEnd {
        self.is_touched = true;
        let mut raw = RawStreams(&mut self.proto);
        if let Binding::Web(web) = &mut self.binding
            && !web.flush(&mut raw, stream)
        {
            return WriteEnd::Blocked(0);
        }
        let end = raw.write(stream, chunks);
        self.is_queue_full |= matches!(end, WriteEnd::Blocked(_));
        end
    }

    fn finish(&mut self, stream: StreamId) {
        self.is_touched = true;
        // quinn-proto keeps a stream that the peer has stopped until it is reset.
        if !RawStreams(&mut self.proto).finish(stream) {
            self.reset(stream, StreamCode::CANCEL);
        }
    }

    fn reset(&mut self, stream: StreamId, code: StreamCode) {
        self.is_touched = true;
        let code = self.code(code);
        if let Binding::Web(web) = &mut self.binding {
            web.forget(stream);
        }
        RawStreams(&mut self.proto).reset(stream, code);
    }

    fn stop(&mut self, stream: StreamId, code: StreamCode) {
        self.is_touched = true;
        let code = self.code(code);
        RawStreams(&mut self.proto).stop(stream, code);
    }

    fn set_priority(&mut self, stream: StreamId, priority: i32) {
        let mut raw = RawStreams(&mut self.proto);
        let _ = raw.sending(stream).map(|mut stream| stream.set_priority(priority));
    }

    fn read(&mut self, stream: StreamId, max: usize, take: &mut dyn FnMut(&[u8])) -> ReadEnd {
        self.is_touched = true;
        let mut bytes = 0;
        let end = RawStreams(&mut self.proto).read(stream, max, &mut |chunk| {
            bytes += chunk.len();
            take(chunk);
        });
        self.window.note_read(bytes as u64);
        match end {
            RawEnd::Pending => ReadEnd::Pending,
            RawEnd::More => ReadEnd::More,
            RawEnd::Finished => ReadEnd::Finished,
            RawEnd::Reset(code) => ReadEnd::Reset(self.received(code)),
        }
    }

    fn send_datagram(&mut self, head: &[u8], payload: &[u8]) {
        self.is_touched = true;
        let mut prefix = Vec::new();
        if let Binding::Web(web) = &self.binding {
            let Some(session) = web.session() else { return };
            h3::datagram_prefix(session.0, &mut prefix);
        }
        // Nobody waits for one: what is too large, or finds no room, was lost on the way.
        let _ = self.proto.datagrams().send([&prefix, head, payload].concat().into(), true);
    }

    fn expect_groups(&mut self) {
        self.is_touched = true;
        self.window.expect_groups();
        self.want_credit(Dir::Uni, STREAMS_UNI_PUBLISHER);
    }

    fn may_hold(&mut self, bytes: u64) -> bool {
        let is_covered = self.allowance.covers(bytes);
        self.is_touched |= self.allowance.is_wanting();
        is_covered
    }

    fn rtt(&self) -> Duration {
        self.proto.rtt()
    }

    fn window(&self) -> u64 {
        self.proto.congestion_state().window()
    }

    fn estimate(&self) -> Estimate {
        let rtt = self.proto.rtt();
        // Before the first sample this is what was assumed.
        if rtt == INITIAL_RTT {
            return Estimate::default();
        }
        let bits = self.window() as f64 * 8.0;
        let bitrate = (bits / rtt.as_secs_f64()).round() as u64;
        Estimate { bitrate: Some(bitrate), rtt: Some(rtt) }
    }

    fn shown(&self) -> Estimate {
        let estimate = self.estimate();
        let shown = self.proto.congestion_state().metrics().pacing_rate;
        Estimate { bitrate: estimate.bitrate.and(shown.or(estimate.bitrate)), ..estimate }
    }

    fn close(&mut self, code: SessionCode, reason: Cow<'static, str>) {
        self.is_touched = true;
        self.close.get_or_insert((code, reason));
    }
}
