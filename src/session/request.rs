//! What a stream is for that the peer opens: its type, and what it asks with its first message.

use super::streams::{ReadEnd, StreamId, Streams};
use super::{Context, Effect, Session, Step, Stream, Use};
use crate::access::Refusal;
use crate::limits::REQUEST_NAME_BYTES_MAX;
use crate::wire::{
    AnnounceRequest, BidiType, CONTROL_MESSAGE_BYTES_MAX, Fetch, Path, SessionCode, StreamCode,
    Subscribe, TrackRequest, UniType, Version, decode_varint, split_message,
};

impl Session {
    pub(super) fn take_request<S: Streams>(
        &mut self,
        id: StreamId,
        stream: &mut Stream,
        end: ReadEnd,
        cx: &mut Context<'_, S>,
    ) -> Step {
        let buf = &mut stream.buf;
        let Some((kind, type_len)) = decode_varint(buf) else { return Step::Wait };
        let kind = BidiType::from_u64(kind).filter(|kind| kind.supported(self.version));
        let Some(kind) = kind else {
            self.refuse(id, StreamCode::CANCEL, cx);
            return Step::Forget;
        };
        match kind {
            BidiType::Goaway if self.goaway_seen => {
                self.fail(SessionCode::PROTOCOL_VIOLATION, "second GOAWAY", cx);
                return Step::Forget;
            }
            BidiType::ClientSetup => {
                self.fail(SessionCode::PROTOCOL_VIOLATION, "second SETUP", cx);
                return Step::Forget;
            }
            BidiType::Goaway => {
                self.goaway_seen = true;
                let _ = buf.split_to(type_len);
                stream.purpose = Use::Goaway;
                return Step::Again;
            }
            BidiType::Probe => {
                let _ = buf.split_to(type_len);
                return self.probe_requested(id, stream, cx);
            }
            _ => {}
        }
        let taken = match split_message(&buf[type_len..], CONTROL_MESSAGE_BYTES_MAX) {
            Ok(Some((body, used))) => Ok((Request::decode(kind, self.version, body), used)),
            Ok(None) => return Step::Wait,
            Err(_) => Err(StreamCode::CANCEL),
        };
        let purpose = taken.and_then(|(request, used)| {
            let _ = buf.split_to(type_len + used);
            match request.ok_or(StreamCode::CANCEL)? {
                Request::Announce(request) => self.announce_requested(id, request, cx),
                Request::Subscribe(request) => self.subscribe_requested(id, request, cx),
                // A requester that stops listening before the answer has given it up (spec §4.12).
                _ if end == ReadEnd::Finished => Err(StreamCode::CANCEL),
                Request::Track(request) => self.info_requested(id, request, cx),
                Request::Fetch(request) => self.fetch_requested(id, request, cx),
            }
        });
        match purpose {
            Ok(purpose) => {
                stream.purpose = purpose;
                Step::Again
            }
            Err(code) => {
                self.refuse(id, code, cx);
                Step::Forget
            }
        }
    }

    pub(super) fn take_uni_header<S: Streams>(
        &mut self,
        id: StreamId,
        stream: &mut Stream,
        cx: &mut Context<'_, S>,
    ) -> Step {
        let buf = &mut stream.buf;
        let Some((kind, type_len)) = decode_varint(buf) else { return Step::Wait };
        let kind = UniType::from_u64(kind).filter(|kind| kind.supported(self.version));
        match kind {
            Some(UniType::Setup) if self.setup_seen => {
                self.fail(SessionCode::PROTOCOL_VIOLATION, "second SETUP", cx);
                Step::Forget
            }
            Some(UniType::Setup) => {
                self.setup_seen = true;
                let _ = buf.split_to(type_len);
                stream.purpose = Use::Setup;
                Step::Again
            }
            Some(UniType::Group) if self.comes_early(id, &buf[type_len..]) => {
                let _ = buf.split_to(type_len);
                stream.purpose = Use::EarlyGroup(ReadEnd::Pending);
                Step::Wait
            }
            Some(UniType::Group) => match self.take_group_header(id, &buf[type_len..], cx) {
                Ok(Some((group, used))) => {
                    let _ = buf.split_to(type_len + used);
                    stream.purpose = Use::GroupIn(Box::new(group));
                    Step::Wait
                }
                Ok(None) => Step::Wait,
                Err(code) => {
                    cx.streams.stop(id, code);
                    Step::Forget
                }
            },
            None => {
                cx.streams.stop(id, StreamCode::CANCEL);
                Step::Forget
            }
        }
    }

    /// The absolute path of a request, if this peer may watch it. Whoever may not is told the same whether
    /// there is such a broadcast or not.
    pub(super) fn absolute<S: Streams>(
        &mut self,
        broadcast: &Path,
        track: &str,
        cx: &mut Context<'_, S>,
    ) -> Result<Path, StreamCode> {
        if broadcast.as_str().len() + track.len() > REQUEST_NAME_BYTES_MAX {
            return Err(StreamCode::NOT_FOUND);
        }
        let path = self.root().join(broadcast).map_err(|_| StreamCode::UNROUTABLE)?;
        if self.pass.admission.grant.may_subscribe(&path) {
            return Ok(path);
        }
        if !std::mem::replace(&mut self.has_overstepped.by_asking, true) {
            cx.effects.push(Effect::Denied { path, refusal: Refusal::AsksOutside });
        }
        Err(StreamCode::SESSION_CLOSED)
    }
}

/// The first message of a stream that the peer opened.
enum Request {
    Announce(AnnounceRequest),
    Subscribe(Subscribe),
    Track(TrackRequest),
    Fetch(Fetch),
}

impl Request {
    fn decode(kind: BidiType, version: Version, body: &[u8]) -> Option<Request> {
        match kind {
            BidiType::Announce => {
                AnnounceRequest::decode(version, body).map(Request::Announce).ok()
            }
            BidiType::Subscribe => Subscribe::decode(version, body).map(Request::Subscribe).ok(),
            BidiType::Track => TrackRequest::decode(body).map(Request::Track).ok(),
            BidiType::Fetch => Fetch::decode(version, body).map(Request::Fetch).ok(),
            BidiType::Session | BidiType::Probe | BidiType::Goaway | BidiType::ClientSetup => None,
        }
    }
}
