//! Who comes in, where and with what; and who may stay when keys or the clock are others than before.

use std::time::{Duration, Instant};

use super::Shard;
use crate::access::{self, Refusal, Target, Token};
use crate::h3::request::{Request, Status};
use crate::limits::SESSIONS_CHECKED_PER_TURN;
use crate::session::Pass;
use crate::wall::Wall;
use crate::wire::Protocol;

/// A clock that is corrected bit by bit is off by less in the second between two looks.
const CLOCK_JUMP: Duration = Duration::from_millis(100);

impl Shard {
    /// What the time of day is. Where it is another than was to be expected somebody has set the clock, and
    /// sessions end when it says so.
    pub fn set_wall(&mut self, now: Instant, unix: Duration) {
        if self.wall.unix(now).abs_diff(unix) >= CLOCK_JUMP {
            self.wall = Wall::new(now, unix);
            self.unchecked = Some(0);
        }
    }

    /// A WebTransport client wants a session. Unlike in TLS, its own preference decides.
    pub(super) fn requested(&mut self, now: Instant, slot: usize, request: &Request) {
        let offered = &request.protocols;
        let named = offered.iter().find_map(|name| Protocol::from_name(name.as_bytes()));
        let protocol = match named {
            // Clients older than the header speak what needs no name.
            None if offered.is_empty() => Some(Protocol::Legacy),
            named => named,
        };
        let decided = match (Target::parse(&request.target), protocol) {
            _ if !self.policy.origins.permit(request.origin.as_deref()) => {
                Err((Status::Forbidden, "pages of this origin may not use this relay".to_owned()))
            }
            (Ok(target), Some(protocol)) => match self.pass(now, &target) {
                Ok(pass) => Ok((pass, protocol)),
                Err(refusal) => Err((Status::Unauthorized, refusal.to_string())),
            },
            (Err(fault), _) => Err((Status::Malformed, fault.to_string())),
            (_, None) => Err((Status::Malformed, "no protocol in common".to_owned())),
        };
        match decided {
            Ok((pass, protocol)) => {
                if let Some(conn) = self.endpoint.conn(slot) {
                    conn.accept(named.map(Protocol::name));
                }
                self.begin_session(now, slot, protocol, Some(pass), "webtransport");
            }
            Err((status, reason)) => {
                if let Some(conn) = self.endpoint.conn(slot) {
                    conn.refuse(status);
                }
                let path = access::shown(&request.target);
                self.say_refused(now, slot, &path, &reason);
            }
        }
    }

    /// What somebody may do who wants to be at a path.
    fn pass(&self, now: Instant, target: &Target) -> Result<Pass, Refusal> {
        let token = target.token.as_ref().map(Token::as_str);
        let admission = self.access.admit(&target.path, token, self.wall.second(now))?;
        let ends_at = admission.expires.and_then(|second| self.wall.begins(second, now));
        Ok(Pass { admission, ends_at })
    }

    /// A session wants to be somewhere.
    pub(super) fn arrived_at(&mut self, now: Instant, slot: usize, target: &Target) {
        match self.pass(now, target) {
            Ok(pass) => self.with_session(now, slot, |session, cx| session.admit(pass, cx)),
            Err(refusal) => {
                self.say_refused(now, slot, target.path.as_str(), &refusal.to_string());
                self.with_session(now, slot, |session, cx| session.turn_away(&refusal, cx));
            }
        }
    }

    fn say_refused(&mut self, now: Instant, slot: usize, path: &str, reason: &str) {
        if self.may_say(now)
            && let Some(conn) = self.endpoint.conn(slot)
        {
            let (shard, remote) = (self.me, conn.remote());
            tracing::info!(shard, conn = slot, %remote, path, reason, "refused");
        }
    }

    /// Looks whether sessions may go on as things are now, so many in a turn.
    pub(super) fn check_sessions(&mut self, now: Instant) {
        let Some(first) = self.unchecked else { return };
        let last = (first + SESSIONS_CHECKED_PER_TURN).min(self.peers.len());
        self.unchecked = (last < self.peers.len()).then_some(last);
        let second = self.wall.second(now);
        for slot in first..last {
            let Some(peer) = &self.peers[slot] else { continue };
            let Pass { admission, ends_at } = peer.session.pass();
            if let Err(refusal) = admission.check(&self.access.keys, second) {
                self.with_session(now, slot, |session, cx| session.turn_away(&refusal, cx));
                self.settle(now);
                continue;
            }
            let ends = admission.expires.and_then(|second| self.wall.begins(second, now));
            if ends != *ends_at {
                self.with_session(now, slot, |session, _| session.set_end(ends));
            }
        }
        self.visits.events += (last - first) as u32;
    }
}
