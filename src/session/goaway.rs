//! One of the two is to move elsewhere (spec §4.16). Where the peer asks for that, nothing new is asked of it,
//! what it brings goes on, and its own requests are served as before. Where the relay does, it only says so.

use std::time::Instant;

use bytes::BytesMut;

use super::counts::Class;
use super::streams::{StreamId, Streams};
use super::{Context, Effect, Session, Step, Stream, Use};
use crate::wire::{
    BidiType, CONTROL_MESSAGE_BYTES_MAX, Goaway, StreamCode, Version, encode_varint, split_message,
};

/// Whether the relay has asked the peer to move elsewhere.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    #[default]
    No,
    /// Not before this time.
    Later(Instant),
    /// As soon as it is known what it speaks, and it grants a stream.
    Owed,
    Said,
}

impl Session {
    /// Asks the peer at a time to dial again where it has dialled, once. Who speaks 03 or older cannot be
    /// asked, and is served like everybody until it is closed.
    pub fn ask_to_move<S: Streams>(&mut self, at: Instant, cx: &mut Context<'_, S>) {
        if self.parting == Parting::No {
            self.parting = Parting::Later(at);
            self.parting_timeout(cx);
        }
    }

    /// It was to be asked, and is not.
    pub fn stay(&mut self) {
        if !self.is_parting() {
            self.parting = Parting::No;
        }
    }

    pub(super) fn parting_deadline(&self) -> Option<Instant> {
        match self.parting {
            Parting::Later(at) => Some(at),
            _ => None,
        }
    }

    pub(super) fn parting_timeout<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        if self.parting_deadline().is_some_and(|at| at <= cx.now) {
            self.parting = Parting::Owed;
            self.send_goaway(cx);
        }
    }

    /// Whether the peer was asked to move.
    pub fn is_parting(&self) -> bool {
        self.parting == Parting::Said
    }

    pub(super) fn send_goaway<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        if self.parting != Parting::Owed || !self.is_ready || self.version < Version::Lite04 {
            return;
        }
        let Some(id) = cx.streams.open_bidi() else { return };
        self.parting = Parting::Said;
        let mut bytes = Vec::new();
        encode_varint(BidiType::Goaway as u64, &mut bytes);
        Goaway::default().encode(&mut bytes);
        self.inputs.insert(id, Stream { purpose: Use::Draining, buf: BytesMut::new() });
        self.send(Class::Goaway, id, &bytes, true, cx);
    }

    pub(super) fn take_goaway<S: Streams>(
        &mut self,
        id: StreamId,
        stream: &mut Stream,
        cx: &mut Context<'_, S>,
    ) -> Step {
        let taken = split_message(&stream.buf, CONTROL_MESSAGE_BYTES_MAX);
        match taken.and_then(|taken| taken.map(|(body, _)| Goaway::decode(body)).transpose()) {
            Ok(None) => Step::Wait,
            // Where it would have us go is for whoever has dialled: routes are found by their announcements.
            Ok(Some(Goaway { uri })) => {
                stream.buf.clear();
                stream.purpose = Use::Draining;
                self.finish(id, cx);
                self.is_leaving = true;
                self.unasked.clear();
                cx.effects.push(Effect::Leaving { to: uri });
                self.refuse_unsent(cx);
                Step::Wait
            }
            Err(_) => {
                cx.effects.push(Effect::BadGoaway);
                self.refuse(id, StreamCode::CANCEL, cx);
                Step::Forget
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fake::Play;
    use super::*;

    /// A stream with GOAWAY and an empty URI (spec §3.9).
    const GOAWAY: &[u8] = &[5, 1, 0];

    #[test]
    fn who_can_read_it_is_asked_to_move_once() {
        for (version, says) in [
            (Version::Lite06, &[GOAWAY][..]),
            (Version::Lite05, &[GOAWAY]),
            (Version::Lite04, &[GOAWAY]),
            (Version::Lite03, &[]),
        ] {
            let mut play = Play::speaking(version);
            play.with(|session, cx| session.ask_to_move(cx.now, cx));
            assert!(!play.session.is_parting(), "the peer grants no stream");
            play.link.requests_granted = 10;
            play.with(|session, cx| session.available(false, cx));
            play.with(|session, cx| session.ask_to_move(cx.now, cx));
            let told = play.link.told.values().filter(|bytes| bytes.first() == Some(&5));
            assert_eq!(told.collect::<Vec<_>>(), says, "{version:?}");
            assert_eq!(play.session.is_parting(), !says.is_empty());
            assert_eq!(play.session.parting_deadline(), None);
        }
    }

    /// It stays where it is.
    #[test]
    fn one_that_cannot_be_read_is_told_of() {
        let mut play = Play::new();
        play.link.says = [&[5, 0x60, 3, 0x60, 1][..], &[b'x'; 0x2001]].concat();
        let effects = play.with(|session, cx| session.opened(StreamId(0), cx));
        assert!(matches!(effects[..], [Effect::BadGoaway]), "{effects:?}");
    }

    #[test]
    fn who_has_just_come_is_asked_later() {
        let mut play = Play::new();
        play.link.requests_granted = 10;
        let at = play.now + Duration::from_secs(1);
        play.with(|session, cx| session.ask_to_move(at, cx));
        play.with(|session, cx| session.timeout(cx));
        assert!(!play.session.is_parting() && play.session.deadline().is_some_and(|due| due <= at));
        play.now = at;
        play.with(|session, cx| session.timeout(cx));
        assert!(play.session.is_parting());
    }
}
