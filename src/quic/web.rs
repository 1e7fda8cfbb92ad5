//! WebTransport on one connection (spec §7): the HTTP/3 streams around its session, and which of
//! the peer's streams belong to that. The session hears of those alone, and of no HTTP. Where this relay has
//! dialled it asks for the session, and else it is asked.

use std::collections::VecDeque;

use bytes::Bytes;
use quinn_proto::Dir;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use url::Url;

use super::streams::{RawEnd, RawStreams};
use super::{Cause, Event, dialled_protocols, varint};
use crate::h3::capsule::{Capsules, close_session};
use crate::h3::frame::{Frame, Frames};
use crate::h3::request::{self, Asked, Request, Status};
use crate::h3::{self, Code, Violation};
use crate::limits::HTTP3_READ_BYTES_MAX;
use crate::session::streams::{StreamId, WriteEnd};
use crate::wire::{SessionCode, StreamCode, decode_varint};

/// Above everything that a session sends.
const PRIORITY: i32 = i32::MAX;

#[derive(Debug, Default)]
pub(super) struct Web {
    /// Ours, which carries SETTINGS and stays open.
    control: Option<StreamId>,
    /// What this relay asks for, where it has dialled, until it has.
    wanted: Option<Bytes>,
    dials: bool,
    /// Unidirectional streams that a peer opens once: control and two of QPACK.
    has_opened: [bool; 3],
    /// The peer's SETTINGS allow a session.
    is_allowed: bool,
    /// The request that waits for SETTINGS or for its answer.
    asked: Option<(StreamId, Request)>,
    /// The stream of the request that was accepted; it stands for the session.
    session: Option<StreamId>,
    is_over: bool,
    /// What broke the connection.
    violation: Option<Violation>,
    /// Streams of the peer that are not, or not yet, known to be of the session.
    streams: FxHashMap<StreamId, Purpose>,
    /// Streams of a session that is not accepted yet, with the session that they name.
    early: Vec<(StreamId, u64)>,
    /// What flow control has not taken yet of what we put on a stream ourselves.
    unwritten: FxHashMap<StreamId, Unwritten>,
}

#[derive(Debug)]
enum Purpose {
    /// Its type is not complete.
    Head(SmallVec<[u8; 16]>),
    Control {
        frames: Frames,
        has_settings: bool,
    },
    Request(Frames),
    /// Our own request, which is not answered yet.
    Answer(Frames),
    Session {
        frames: Frames,
        capsules: Capsules,
        /// The peer has said its last word.
        is_ended: bool,
    },
    Ignored,
}

#[derive(Debug)]
struct Unwritten {
    bytes: Bytes,
    fin: bool,
}

/// What the first bytes of a stream say.
enum Head {
    /// This many bytes are missing, at least.
    Missing(usize),
    Kind(u64),
    /// A stream of a session.
    Session(u64),
}

impl Head {
    fn of(bytes: &[u8], is_uni: bool) -> Head {
        let Some((kind, used)) = decode_varint(bytes) else { return missing(bytes) };
        let of_session = if is_uni { h3::WEBTRANSPORT_UNI } else { h3::WEBTRANSPORT_BIDI };
        if kind != of_session {
            return Head::Kind(kind);
        }
        match decode_varint(&bytes[used..]) {
            Some((session, _)) => Head::Session(session),
            None => missing(&bytes[used..]),
        }
    }
}

/// What an incomplete varint lacks. Nothing beyond it may be read: it is the session's.
fn missing(varint: &[u8]) -> Head {
    let length = varint.first().map_or(1, |first| 1 << (first >> 6));
    Head::Missing(length - varint.len())
}

impl Web {
    /// One on which this relay asks for a session.
    pub fn dialling(url: &Url) -> Web {
        let wanted = request::ask(url, dialled_protocols().map(str::to_owned));
        Web { wanted: Some(wanted), dials: true, ..Web::default() }
    }

    /// The connection is up, or the peer grants another stream: until it does nothing else can go on.
    pub fn start(&mut self, raw: &mut RawStreams<'_>) {
        if self.control.is_none()
            && let Some(control) = raw.open(Dir::Uni)
        {
            self.control = Some(control);
            self.write(raw, control, h3::control_stream().into(), false);
        }
        if self.is_allowed
            && self.wanted.is_some()
            && let Some(id) = raw.open(Dir::Bi)
        {
            let request = self.wanted.take().unwrap_or_default();
            self.streams.insert(id, Purpose::Answer(Frames::default()));
            self.write(raw, id, request, false);
        }
    }

    /// Whether there is a session.
    pub fn is_open(&self) -> bool {
        self.session().is_some()
    }

    /// The stream that stands for the session, as long as that lives.
    pub fn session(&self) -> Option<StreamId> {
        self.session.filter(|_| !self.is_over)
    }

    /// Nothing more is to be expected of this connection.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    pub fn take_violation(&mut self) -> Option<Violation> {
        self.violation.take()
    }

    /// Takes what happened on the connection; what concerns the session is added to `out`.
    pub fn handle(&mut self, raw: &mut RawStreams<'_>, event: Event, out: &mut VecDeque<Event>) {
        match event {
            Event::Lost { .. } => {
                self.is_over = true;
                out.push_back(event);
            }
            // Nothing begins on a connection that is to end.
            _ if self.is_over => {}
            Event::Opened(id) => {
                self.streams.insert(id, Purpose::Head(SmallVec::new()));
                self.look(raw, id, out);
            }
            Event::Readable(id) if self.streams.contains_key(&id) => self.look(raw, id, out),
            // It is read when the session is told of it.
            Event::Readable(id) if self.early.iter().any(|(early, _)| *early == id) => {}
            Event::Writable(id) if self.unwritten.contains_key(&id) => {
                if self.flush(raw, id) && self.is_open() {
                    out.push_back(Event::Writable(id));
                }
            }
            Event::Stopped(id) => self.stopped(raw, id, out),
            Event::Available { uni } => {
                self.start(raw);
                if self.is_open() {
                    out.push_back(Event::Available { uni });
                }
            }
            Event::Datagram(datagram) => {
                if let Some((session, used)) = h3::split_datagram(&datagram)
                    && self.session() == Some(StreamId(session))
                {
                    out.push_back(Event::Datagram(datagram.slice(used..)));
                }
            }
            event => out.push_back(event),
        }
    }

    fn stopped(&mut self, raw: &mut RawStreams<'_>, id: StreamId, out: &mut VecDeque<Event>) {
        self.unwritten.remove(&id);
        if self.control == Some(id) {
            let reason = "the control stream was stopped";
            self.fail(Violation::new(Code::CLOSED_CRITICAL_STREAM, reason), out);
        } else if self.session == Some(id) {
            self.end(format!("the {} stopped the session's stream", self.peer()), out);
        } else if matches!(self.streams.get(&id), Some(Purpose::Answer(_))) {
            // An answer may be on its way all the same.
        } else if self.streams.contains_key(&id) {
            // Also the request that waits for its answer: nobody would read it.
            self.asked.take_if(|(asked, _)| *asked == id);
            self.streams.remove(&id);
            // Its first bytes may be late: as a stream of the session it needs a code of a session,
            // and HTTP/3 takes a code that it does not know for NO_ERROR.
            let code = varint(StreamCode::CANCEL.to_http3());
            raw.reset(id, code);
            raw.stop(id, code);
        } else {
            out.push_back(Event::Stopped(id));
        }
    }

    /// Reads what there is of a stream that is not the session's, and does what it asks for.
    fn look(&mut self, raw: &mut RawStreams<'_>, id: StreamId, out: &mut VecDeque<Event>) {
        let Some(purpose) = self.streams.remove(&id) else { return };
        match self.read(raw, id, purpose, out) {
            Ok(Some(purpose)) => {
                self.streams.insert(id, purpose);
            }
            Ok(None) => {}
            Err(violation) => self.fail(violation, out),
        }
    }

    /// What the stream is for from here on; none when we are done with it.
    fn read(
        &mut self,
        raw: &mut RawStreams<'_>,
        id: StreamId,
        purpose: Purpose,
        out: &mut VecDeque<Event>,
    ) -> Result<Option<Purpose>, Violation> {
        match purpose {
            Purpose::Head(head) => self.read_head(raw, id, head, out),
            Purpose::Control { mut frames, mut has_settings } => {
                let end = read_all(raw, id, &mut |part| frames.push(part));
                while let Some(frame) = frames.take()? {
                    match frame {
                        Frame::Settings(payload) if !has_settings => {
                            h3::allows_webtransport(&payload)?;
                            has_settings = true;
                            self.is_allowed = true;
                            self.ask(out);
                            self.start(raw);
                        }
                        Frame::Other => {}
                        _ if !has_settings => {
                            let reason = "the control stream begins without SETTINGS";
                            return Err(Violation::new(Code::MISSING_SETTINGS, reason));
                        }
                        _ => {
                            let reason = "a frame that no control stream has";
                            return Err(Violation::new(Code::FRAME_UNEXPECTED, reason));
                        }
                    }
                }
                if has_ended(&end)? {
                    let reason = "the control stream was closed";
                    return Err(Violation::new(Code::CLOSED_CRITICAL_STREAM, reason));
                }
                Ok(Some(Purpose::Control { frames, has_settings }))
            }
            Purpose::Request(frames) => self.read_request(raw, id, frames, out),
            Purpose::Answer(frames) => self.read_answer(raw, id, frames, out),
            Purpose::Session { .. } if self.session != Some(id) => Ok(Some(purpose)),
            Purpose::Session { frames, capsules, is_ended } => {
                self.read_session(raw, id, frames, capsules, is_ended, out)
            }
            Purpose::Ignored => {
                let is_ended = has_ended(&read_all(raw, id, &mut |_| {}))?;
                Ok((!is_ended).then_some(Purpose::Ignored))
            }
        }
    }

    fn read_head(
        &mut self,
        raw: &mut RawStreams<'_>,
        id: StreamId,
        mut head: SmallVec<[u8; 16]>,
        out: &mut VecDeque<Event>,
    ) -> Result<Option<Purpose>, Violation> {
        let kind = loop {
            match Head::of(&head, id.is_uni()) {
                Head::Missing(bytes) => {
                    match raw.read(id, bytes, &mut |part| head.extend_from_slice(part)) {
                        RawEnd::More => {}
                        RawEnd::Pending => return Ok(Some(Purpose::Head(head))),
                        // It said too little to be answered.
                        RawEnd::Finished | RawEnd::Reset(_) => {
                            raw.reset(id, varint(Code::REQUEST_INCOMPLETE.0));
                            return Ok(None);
                        }
                    }
                }
                Head::Session(session) => {
                    self.session_stream(raw, id, session, out);
                    return Ok(None);
                }
                Head::Kind(kind) => break kind,
            }
        };
        if !id.is_uni() && self.dials {
            let reason = "servers make no requests";
            return Err(Violation::new(Code::STREAM_CREATION_ERROR, reason));
        }
        if !id.is_uni() {
            // One request at a time is read, and none beside a session: they would cost memory
            // for nothing.
            let is_request = |purpose: &Purpose| matches!(purpose, Purpose::Request(_));
            let is_asked = self.session.is_some() || self.asked.is_some();
            if is_asked || self.streams.values().any(is_request) {
                self.answer(raw, id, Status::TooManyRequests);
                return Ok(None);
            }
            let mut frames = Frames::default();
            frames.push(&head);
            return self.read(raw, id, Purpose::Request(frames), out);
        }
        let once = match kind {
            h3::CONTROL => 0,
            h3::QPACK_ENCODER => 1,
            h3::QPACK_DECODER => 2,
            h3::PUSH => {
                let reason = "nobody may push here";
                return Err(Violation::new(Code::STREAM_CREATION_ERROR, reason));
            }
            // GREASE, or an extension that we do not know.
            _ => {
                raw.stop(id, varint(Code::STREAM_CREATION_ERROR.0));
                return Ok(None);
            }
        };
        if std::mem::replace(&mut self.has_opened[once], true) {
            let reason = "a stream that there may be only one of";
            return Err(Violation::new(Code::STREAM_CREATION_ERROR, reason));
        }
        let purpose = match kind {
            h3::CONTROL => Purpose::Control { frames: Frames::default(), has_settings: false },
            // We have no dynamic table, so QPACK has nothing to tell us.
            _ => Purpose::Ignored,
        };
        self.read(raw, id, purpose, out)
    }

    /// A stream of a session: ours, one that may still be accepted, or none that there is.
    fn session_stream(
        &mut self,
        raw: &mut RawStreams<'_>,
        id: StreamId,
        session: u64,
        out: &mut VecDeque<Event>,
    ) {
        match self.session {
            None => self.early.push((id, session)),
            Some(open) if open.0 == session && !self.is_over => out.push_back(Event::Opened(id)),
            Some(_) => refuse_stream(raw, id),
        }
    }

    fn read_request(
        &mut self,
        raw: &mut RawStreams<'_>,
        id: StreamId,
        mut frames: Frames,
        out: &mut VecDeque<Event>,
    ) -> Result<Option<Purpose>, Violation> {
        let end = read_all(raw, id, &mut |part| frames.push(part));
        while let Some(frame) = frames.take()? {
            let asked = match frame {
                Frame::Headers(fields) => request::read(&fields)?,
                Frame::HeadersTooLarge => Asked::Other(Status::FieldsTooLarge),
                Frame::Other => continue,
                Frame::Data(_) | Frame::Settings(_) => {
                    let reason = "a request begins without HEADERS";
                    return Err(Violation::new(Code::FRAME_UNEXPECTED, reason));
                }
            };
            match asked {
                Asked::Session(request) => {
                    let is_ended = has_ended(&end)?;
                    self.asked = Some((id, request));
                    self.ask(out);
                    let capsules = Capsules::default();
                    return Ok(Some(Purpose::Session { frames, capsules, is_ended }));
                }
                Asked::Other(status) => self.answer(raw, id, status),
            }
            return Ok(None);
        }
        if has_ended(&end)? {
            raw.reset(id, varint(Code::REQUEST_INCOMPLETE.0));
            return Ok(None);
        }
        Ok(Some(Purpose::Request(frames)))
    }

    fn read_answer(
        &mut self,
        raw: &mut RawStreams<'_>,
        id: StreamId,
        mut frames: Frames,
        out: &mut VecDeque<Event>,
    ) -> Result<Option<Purpose>, Violation> {
        let end = read_all(raw, id, &mut |part| frames.push(part));
        let is_ended = has_ended(&end)?;
        while let Some(frame) = frames.take()? {
            let answer = match frame {
                Frame::Headers(fields) => request::read_answer(&fields)?,
                Frame::Other => continue,
                Frame::HeadersTooLarge | Frame::Data(_) | Frame::Settings(_) => {
                    let reason = "an answer begins without HEADERS";
                    return Err(Violation::new(Code::FRAME_UNEXPECTED, reason));
                }
            };
            let protocol = match answer {
                Ok(protocol) => protocol.unwrap_or_default(),
                Err(status) => {
                    let is_denied = [401, 403].contains(&status.as_u16());
                    let cause = if is_denied { Cause::Denied } else { Cause::Other };
                    self.lose(format!("the request was refused: {status}"), cause, out);
                    return Ok(None);
                }
            };
            self.session = Some(id);
            out.push_back(Event::Connected { alpn: protocol.into_bytes() });
            for (early, session) in std::mem::take(&mut self.early) {
                self.session_stream(raw, early, session, out);
            }
            return self.read_session(raw, id, frames, Capsules::default(), is_ended, out);
        }
        if is_ended {
            self.end("the request was not answered".to_owned(), out);
            return Ok(None);
        }
        Ok(Some(Purpose::Answer(frames)))
    }

    fn read_session(
        &mut self,
        raw: &mut RawStreams<'_>,
        id: StreamId,
        mut frames: Frames,
        mut capsules: Capsules,
        mut is_ended: bool,
        out: &mut VecDeque<Event>,
    ) -> Result<Option<Purpose>, Violation> {
        let mut end = RawEnd::Finished;
        if !is_ended {
            end = read_all(raw, id, &mut |part| frames.push(part));
            is_ended = has_ended(&end)?;
        }
        while let Some(frame) = frames.take()? {
            match frame {
                Frame::Data(part) => capsules.push(&part),
                Frame::Settings(_) => {
                    let reason = "SETTINGS belong on the control stream";
                    return Err(Violation::new(Code::FRAME_UNEXPECTED, reason));
                }
                Frame::Headers(_) | Frame::HeadersTooLarge | Frame::Other => {}
            }
            if let Some(close) = capsules.take()? {
                let (code, reason) = (SessionCode(close.code.into()), close.reason);
                let is_denied = code == SessionCode::UNAUTHORIZED;
                let cause = if is_denied { Cause::Denied } else { Cause::Other };
                self.lose(format!("closed by the {}: {code}: {reason}", self.peer()), cause, out);
                return Ok(None);
            }
        }
        match end {
            RawEnd::Reset(_) => self.end(format!("the {} reset the session", self.peer()), out),
            _ if is_ended && !(frames.at_boundary() && capsules.at_boundary()) => {
                return Err(Violation::new(Code::FRAME_ERROR, "the session is cut short"));
            }
            _ if is_ended => self.end(format!("closed by the {}", self.peer()), out),
            _ => return Ok(Some(Purpose::Session { frames, capsules, is_ended })),
        }
        Ok(None)
    }

    /// Puts the request to whoever decides, once the client has said that it can take a session.
    fn ask(&mut self, out: &mut VecDeque<Event>) {
        if let (true, Some((_, request))) = (self.is_allowed, &self.asked) {
            out.push_back(Event::Requested(request.clone()));
        }
    }

    /// Answers the request. From here on there is a session.
    pub fn accept(
        &mut self,
        raw: &mut RawStreams<'_>,
        protocol: Option<&str>,
        out: &mut VecDeque<Event>,
    ) {
        let Some((id, _)) = self.asked.take() else { return };
        self.session = Some(id);
        self.write(raw, id, request::accept(protocol), false);
        for (early, session) in std::mem::take(&mut self.early) {
            self.session_stream(raw, early, session, out);
        }
        self.look(raw, id, out);
    }

    /// Answers the request; the client may try another one.
    pub fn refuse(&mut self, raw: &mut RawStreams<'_>, status: Status) {
        if let Some((id, _)) = self.asked.take() {
            self.streams.remove(&id);
            self.answer(raw, id, status);
        }
    }

    fn answer(&mut self, raw: &mut RawStreams<'_>, id: StreamId, status: Status) {
        self.write(raw, id, request::refuse(status), true);
        raw.stop(id, varint(Code::NO_ERROR.0));
    }

    /// The peer has ended the session, and with it the use of this connection.
    fn end(&mut self, reason: String, out: &mut VecDeque<Event>) {
        self.lose(reason, Cause::Other, out);
    }

    fn lose(&mut self, reason: String, cause: Cause, out: &mut VecDeque<Event>) {
        self.is_over = true;
        out.push_back(Event::Lost { reason, cause });
    }

    fn fail(&mut self, violation: Violation, out: &mut VecDeque<Event>) {
        self.violation.get_or_insert(violation);
        self.end(format!("HTTP/3 broken by the {}: {violation}", self.peer()), out);
    }

    /// In words.
    fn peer(&self) -> &'static str {
        if self.dials { "relay" } else { "client" }
    }

    /// Ends the session from our side, as far as flow control allows.
    pub fn close(&mut self, raw: &mut RawStreams<'_>, code: SessionCode, reason: &str) {
        if let Some(session) = self.session() {
            let code = u32::try_from(code.0).unwrap_or(SessionCode::INTERNAL.0 as u32);
            self.write(raw, session, close_session(code, reason), true);
        }
        self.is_over = true;
    }

    /// A stream that we open begins with the name of its session, as soon as it is written to.
    pub fn opened(&mut self, id: StreamId) {
        if let Some(session) = self.session {
            let bytes = h3::stream_prefix(id.is_uni(), session.0).into();
            self.unwritten.insert(id, Unwritten { bytes, fin: false });
        }
    }

    /// What has to precede anything else on a stream is gone. False while flow control holds it.
    pub fn flush(&mut self, raw: &mut RawStreams<'_>, id: StreamId) -> bool {
        let Some(unwritten) = self.unwritten.get_mut(&id) else { return true };
        match raw.write(id, std::slice::from_mut(&mut unwritten.bytes)) {
            WriteEnd::Blocked(_) => return false,
            WriteEnd::All if unwritten.fin => {
                raw.finish(id);
            }
            WriteEnd::All | WriteEnd::Stopped => {}
        }
        self.unwritten.remove(&id);
        true
    }

    /// The stream is over.
    pub fn forget(&mut self, id: StreamId) {
        self.unwritten.remove(&id);
    }

    /// Writes bytes of HTTP/3 itself, now or when flow control allows.
    fn write(&mut self, raw: &mut RawStreams<'_>, id: StreamId, bytes: Bytes, fin: bool) {
        let _ = raw.sending(id).map(|mut stream| stream.set_priority(PRIORITY));
        let before = self.unwritten.remove(&id);
        let bytes = match before {
            Some(before) => [&before.bytes[..], &bytes[..]].concat().into(),
            None => bytes,
        };
        self.unwritten.insert(id, Unwritten { bytes, fin });
        self.flush(raw, id);
    }
}

/// Reads to where the peer has got, or as far as anybody should have.
fn read_all(raw: &mut RawStreams<'_>, id: StreamId, take: &mut dyn FnMut(&[u8])) -> RawEnd {
    raw.read(id, HTTP3_READ_BYTES_MAX, take)
}

fn has_ended(end: &RawEnd) -> Result<bool, Violation> {
    match end {
        RawEnd::Pending => Ok(false),
        RawEnd::Finished | RawEnd::Reset(_) => Ok(true),
        RawEnd::More => Err(Violation::new(Code::EXCESSIVE_LOAD, "too much where no media is")),
    }
}

/// A stream of a session that there is not.
fn refuse_stream(raw: &mut RawStreams<'_>, id: StreamId) {
    let code = varint(Code::BUFFERED_STREAM_REJECTED.0);
    raw.reset(id, code);
    raw.stop(id, code);
}
