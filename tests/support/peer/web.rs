//! What WebTransport puts below a session, as a browser does it: the request that opens it, its
//! name on streams and datagrams, its codes, and the capsule that ends it.

use bytes::{Buf, Bytes, BytesMut};
use quinn_proto::Dir;
use shardcast::wire::*;

use super::super::http3::{self, DATA, HEADERS, SETTINGS};
use super::streams::Use;
use super::{Input, Peer, State};

/// Codes of HTTP/3.
const NO_ERROR: u64 = 0x100;
const REQUEST_CANCELLED: u64 = 0x10c;
const REQUEST_INCOMPLETE: u64 = 0x10d;

/// A status.
const UNAUTHORIZED: u16 = 401;
const TOO_MANY_REQUESTS: u16 = 429;

/// How a peer joins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Opens streams of the session before that is accepted.
    pub is_eager: bool,
    /// Has given up another request before, so that the session is not number 0.
    pub is_second: bool,
}

/// A session, from its request on.
#[derive(Debug)]
pub(super) struct Web {
    /// The stream of the request, which stands for the session.
    session: u64,
    has_settings: bool,
    is_accepted: bool,
    /// Either side has ended it.
    is_over: bool,
}

impl Peer {
    pub(super) fn ask_for_session(&mut self, manner: Manner) {
        let control = self.open_plain(Dir::Uni).expect("credit for a control stream");
        let settings = http3::settings(http3::CHROME);
        self.send(control, &http3::control(&[settings]), false);
        if manner.is_second {
            let given_up = self.open_plain(Dir::Bi).expect("credit for a request");
            self.conn.reset(given_up, REQUEST_CANCELLED);
        }
        let session = self.open_plain(Dir::Bi).expect("credit for a request");
        self.inputs.insert(session, Input { purpose: Use::Session, buf: BytesMut::new() });
        let root = self.spec.setup.path.as_deref().unwrap_or("");
        let path = format!("/{}", root.trim_start_matches('/'));
        let offers = format!("\"{}\"", self.version.alpn());
        self.send(session, &http3::connect(&path, Some(&offers)), false);
        self.web = Some(Web { session, has_settings: false, is_accepted: false, is_over: false });
    }

    /// A stream of no session.
    pub(super) fn open_plain(&mut self, dir: Dir) -> Option<u64> {
        let id = self.conn.open(dir)?;
        self.is_dirty = true;
        Some(id)
    }

    /// Whether this end looks at streams of the relay.
    pub(super) fn takes_streams(&self) -> bool {
        let is_eager = self.spec.web.is_some_and(|manner| manner.is_eager);
        self.web.as_ref().is_none_or(|web| (web.is_accepted || is_eager) && !web.is_over)
    }

    /// What precedes everything on a stream that this end opens.
    pub(super) fn stream_prefix(&self, dir: Dir) -> Option<Vec<u8>> {
        self.web.as_ref().map(|web| http3::stream_prefix(dir, web.session))
    }

    pub(super) fn datagram_prefix(&self) -> Vec<u8> {
        self.web.as_ref().map_or(Vec::new(), |web| http3::numbers(&[web.session / 4]))
    }

    /// The code to send for a stream.
    pub(super) fn sent(&self, with: u64) -> u64 {
        if self.web.is_some() { StreamCode(with).to_http3() } else { with }
    }

    /// What a code of the relay means. On raw QUIC it may be mapped or not, and in a WebSocket it is not.
    pub(super) fn meant(&mut self, id: u64, with: u64) -> u64 {
        if self.spec.ws.is_some() {
            return with;
        }
        let Some(web) = self.web.as_ref().filter(|web| !web.is_over) else {
            return StreamCode::from_raw_quic(with).0;
        };
        if id == web.session && !web.is_accepted && with == NO_ERROR {
            // The answer, which comes with it, is a refusal.
            return NO_ERROR;
        }
        if id == web.session {
            self.fault(format!("the session's stream is reset or stopped: {with:#x}"));
        }
        match StreamCode::from_http3(with) {
            Some(code) => code.0,
            None => {
                self.fault(format!("code {with:#x} on stream {id}, which is not mapped"));
                0
            }
        }
    }

    /// What the code of a closed connection means.
    pub(super) fn closed_with(&mut self, with: u64) -> Option<u64> {
        let Some(web) = &self.web else { return Some(with) };
        let meant = SessionCode::from_http3(with).map(|code| code.0);
        // The relay waits no longer for a request, or for us after the end.
        let is_known =
            with == REQUEST_INCOMPLETE && !web.is_accepted || with == NO_ERROR && web.is_over;
        if meant.is_none() && !is_known {
            self.fault(format!("the connection is closed with {with:#x}"));
        }
        if let State::Over(_, Some(said)) = self.state
            && meant != Some(said)
        {
            self.fault(format!("the capsule says {said:#x}, the connection {with:#x}"));
        }
        meant
    }

    /// Ends the session, which the relay answers by closing the connection. False without one.
    pub(super) fn close_session(&mut self, with: u64) -> bool {
        let Some(web) = &mut self.web else { return false };
        web.is_over = true;
        let session = web.session;
        self.send(session, &http3::close_session(with as u32, "bye"), true);
        true
    }

    // ---- what the relay says ----

    /// Finds what a stream of the relay is for.
    pub(super) fn take_head(&mut self, id: u64, input: &mut Input) -> bool {
        let Some((kind, used)) = decode_varint(&input.buf) else { return false };
        let (dir, purpose) =
            if id & 2 != 0 { (Dir::Uni, Use::UniNew) } else { (Dir::Bi, Use::BidiNew) };
        if kind != http3::stream_kind(dir) {
            input.purpose = Use::Control;
            if dir != Dir::Uni || kind != 0 {
                self.fault(format!("stream {id} of type {kind:#x}"));
                input.purpose = Use::Ignored;
            }
            input.buf.advance(used);
            return true;
        }
        let Some((named, more)) = decode_varint(&input.buf[used..]) else { return false };
        input.buf.advance(used + more);
        input.purpose = purpose;
        if self.web.as_ref().is_none_or(|web| web.session != named) {
            self.fault(format!("stream {id} of session {named}"));
            input.purpose = Use::Ignored;
        }
        true
    }

    /// SETTINGS, and nothing else.
    pub(super) fn take_control(&mut self, buf: &mut BytesMut) -> bool {
        let Some((kind, payload, used)) = http3::split_frame(buf) else { return false };
        let settings = shardcast::h3::allows_webtransport(payload);
        buf.advance(used);
        let Some(web) = &mut self.web else { return false };
        let is_first = !std::mem::replace(&mut web.has_settings, true);
        if kind != SETTINGS || settings.is_err() || !is_first {
            self.fault(format!("frame {kind:#x} on the control stream: {settings:?}"));
        }
        true
    }

    /// The answer to the request, and the end.
    pub(super) fn take_session(&mut self, buf: &mut BytesMut) -> bool {
        let Some((kind, payload, used)) = http3::split_frame(buf) else { return false };
        let Some(web) = &mut self.web else { return false };
        let end = match (kind, web.is_accepted) {
            (HEADERS, false) => {
                let answer = http3::status(&buf[..used]);
                self.log.push(format!("answered: {answer:?}"));
                if let Some((status @ (UNAUTHORIZED | TOO_MANY_REQUESTS), None)) = answer {
                    web.is_over = true;
                    self.state = State::Over(format!("refused with {status}"), None);
                    self.lost_at = Some(self.now);
                    buf.advance(used);
                    return true;
                }
                web.is_accepted = true;
                if answer != Some((200, Some(self.version.alpn().to_owned()))) {
                    self.fault(format!("the request is answered with {answer:?}"));
                }
                if self.spec.web.is_some_and(|manner| !manner.is_eager) {
                    self.begin();
                }
                None
            }
            (DATA, true) => close_of(payload),
            _ => {
                self.fault(format!("frame {kind:#x} on the session's stream"));
                None
            }
        };
        buf.advance(used);
        if kind == DATA {
            match end {
                Some((with, reason)) => self.session_closed(with, reason),
                None => self.fault("DATA without a capsule that ends the session".to_owned()),
            }
        }
        true
    }

    fn session_closed(&mut self, with: u64, reason: String) {
        self.log.push(format!("closed with {with:#x}: {reason}"));
        self.web.as_mut().expect("it is a session").is_over = true;
        if !matches!(self.state, State::Over(..)) {
            self.state = State::Over(reason, Some(with));
            self.lost_at = Some(self.now);
        }
    }

    /// The body of a datagram of the session; none if it is of another.
    pub(super) fn datagram_body(&self, datagram: Bytes) -> Option<Bytes> {
        let prefix = self.datagram_prefix();
        datagram.starts_with(&prefix).then(|| datagram.slice(prefix.len()..))
    }

    /// The stream of the session, or the one that carries SETTINGS, has ended.
    pub(super) fn critical_ended(&mut self, what: &str) {
        if self.web.as_ref().is_some_and(|web| !web.is_over) {
            self.fault(format!("{what} ended"));
        }
    }
}

/// Code and reason of a capsule that ends a session.
fn close_of(payload: &[u8]) -> Option<(u64, String)> {
    let (kind, body, used) = http3::split_frame(payload)?;
    let (with, reason) = body.split_first_chunk()?;
    let is_sound = kind == http3::CLOSE_SESSION && used == payload.len();
    let reason = String::from_utf8(reason.to_vec()).ok()?;
    is_sound.then(|| (u32::from_be_bytes(*with).into(), reason))
}
