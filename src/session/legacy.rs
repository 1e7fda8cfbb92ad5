//! The session stream of lite-01 and 02: the first bidirectional stream of the peer, on which both
//! ends agree on a version, and which is open for as long as the session is (spec §1.5, §3.12).

use bytes::{Buf, BytesMut};

use super::counts::Class;
use super::streams::{StreamId, Streams};
use super::{Context, Session, Step, Stream, Use};
use crate::wire::{
    BidiType, ClientSetup, ServerSetup, SessionCode, SessionInfo, Setup, Version, decode_varint,
    encode_varint,
};

impl Session {
    pub(super) fn take_client_setup<S: Streams>(
        &mut self,
        id: StreamId,
        stream: &mut Stream,
        cx: &mut Context<'_, S>,
    ) -> Step {
        let Some((kind, type_len)) = decode_varint(&stream.buf) else { return Step::Wait };
        if kind != BidiType::ClientSetup as u64 {
            self.fail(SessionCode::PROTOCOL_VIOLATION, "the first stream brings no SETUP", cx);
            return Step::Forget;
        }
        match ClientSetup::take(&stream.buf[type_len..]) {
            Ok(None) => Step::Wait,
            Ok(Some((setup, used))) => {
                stream.buf.advance(type_len + used);
                stream.purpose = Use::SessionStream;
                self.choose_version(id, &setup, cx);
                Step::Again
            }
            Err(_) => {
                self.fail(SessionCode::PROTOCOL_VIOLATION, "malformed SETUP", cx);
                Step::Forget
            }
        }
    }

    /// Takes the first of the peer's versions that is spoken here, and says which.
    fn choose_version<S: Streams>(
        &mut self,
        id: StreamId,
        setup: &ClientSetup,
        cx: &mut Context<'_, S>,
    ) {
        let mut offered = setup.versions.iter().filter_map(|code| Version::from_code(*code));
        // Newer versions have names of their own, and are not agreed on here.
        let Some(version) = offered.find(|version| *version <= Version::Lite02) else {
            return self.fail(SessionCode::VERSION, "no version in common", cx);
        };
        self.version = version;
        let mut bytes = Vec::new();
        encode_varint(ServerSetup::TYPE, &mut bytes);
        ServerSetup { version: version.code(), parameters: Vec::new() }.encode(&mut bytes);
        self.send(Class::Session, id, &bytes, false, cx);
        // The peer has nothing to say of itself there.
        self.introduced(Setup::default(), cx);
    }

    /// Reads what the peer believes of the link, which changes nothing.
    pub(super) fn take_session_info<S: Streams>(
        &mut self,
        buf: &mut BytesMut,
        cx: &mut Context<'_, S>,
    ) -> Step {
        match SessionInfo::take(buf) {
            Ok(None) => Step::Wait,
            Ok(Some((_, used))) => {
                buf.advance(used);
                Step::Again
            }
            Err(_) => {
                self.fail(SessionCode::PROTOCOL_VIOLATION, "malformed SESSION_INFO", cx);
                Step::Forget
            }
        }
    }
}
