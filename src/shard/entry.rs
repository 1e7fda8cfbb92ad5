//! Who comes in, where and with what; and who may stay when keys or the clock are others than before.

use std::time::{Duration, Instant};

use super::clients::Client;
use super::{Peer, Shard};
use crate::access::{self, Admission, Certificate, Refusal, Target, Token};
use crate::authority::contract::{Facts, Moved, Transport};
use crate::authority::desk::LeaseId;
use crate::authority::{Asker, News};
use crate::h3::request::{Request, Status};
use crate::limits::{LOGGED_REASON_BYTES_MAX, SESSIONS_CHECKED_PER_TURN};
use crate::route::SessionRef;
use crate::session::Pass;
use crate::wall::Wall;
use crate::wire::{Protocol, Role};

/// A clock that is corrected bit by bit is off by less in the second between two looks.
const CLOCK_JUMP: Duration = Duration::from_millis(100);

/// With what a session begins.
pub(super) enum Entry {
    Admitted {
        pass: Pass,
        /// What it is counted by beside its address.
        token: Option<Client>,
    },
    /// Where it wants to be by its URL. Whether it may is decided when it has said what it is.
    Dialled(Target),
}

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
            _ if self.is_source_full(slot) => {
                Err((Status::TooManyRequests, Refusal::AddressFull.to_string()))
            }
            // Somebody else decides, who is to hear all that the client says.
            (Ok(target), Some(protocol)) if self.authority.is_some() => {
                Ok((Entry::Dialled(target), protocol))
            }
            (Ok(target), Some(protocol)) => match self.pass(now, slot, &target) {
                Ok(_) if self.is_full(client_of(&target)) => {
                    Err((Status::TooManyRequests, Refusal::TokenFull.to_string()))
                }
                Ok(pass) => {
                    let token = client_of(&target);
                    Ok((Entry::Admitted { pass, token }, protocol))
                }
                Err(refusal) => Err((Status::Unauthorized, refusal.to_string())),
            },
            (Err(fault), _) => Err((Status::Malformed, fault.to_string())),
            (_, None) => Err((Status::Malformed, "no protocol in common".to_owned())),
        };
        match decided {
            Ok((entry, protocol)) => {
                if let Some(conn) = self.endpoint.conn(slot) {
                    conn.accept(named.map(Protocol::name));
                }
                self.begin_session(now, slot, protocol, entry, "webtransport");
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
    fn pass(&mut self, now: Instant, slot: usize, target: &Target) -> Result<Pass, Refusal> {
        if let Some(pass) = self.pass_of_relay(now, slot, target) {
            return Ok(pass);
        }
        let token = target.token.as_ref().map(Token::as_str);
        let admission = self.access.admit(&target.path, token, self.wall.second(now))?;
        Ok(self.pass_of(now, admission))
    }

    /// What a relay of this cluster may do by its certificate. A token that is shown decides alone.
    fn pass_of_relay(&mut self, now: Instant, slot: usize, target: &Target) -> Option<Pass> {
        if target.token.is_some() {
            return None;
        }
        let certificate = self.certificate(slot)?;
        let admission = self.access.admit_relay(&target.path, &certificate)?;
        if self.may_say(now) {
            let (shard, name) = (self.me, certificate.name);
            tracing::info!(shard, conn = slot, name, "let in as a relay, by its certificate");
        }
        Some(self.pass_of(now, admission))
    }

    fn certificate(&mut self, slot: usize) -> Option<Certificate> {
        Certificate::read(&self.endpoint.conn(slot)?.certificate()?)
    }

    fn pass_of(&self, now: Instant, admission: Admission) -> Pass {
        let ends_at = admission.expires.and_then(|second| self.wall.begins(second, now));
        Pass { admission, ends_at }
    }

    /// A session wants to be somewhere.
    pub(super) fn arrived_at(&mut self, now: Instant, slot: usize, target: Target, role: Role) {
        let pass = match self.authority {
            // Which is not asked about relays.
            Some(_) => Ok(self.pass_of_relay(now, slot, &target)),
            None => self.pass(now, slot, &target).map(Some),
        };
        match pass.and_then(|pass| self.show_token(slot, &target).map(|()| pass)) {
            Ok(None) => self.ask_authority(slot, target, role),
            Ok(Some(pass)) => self.with_session(now, slot, |session, cx| session.admit(pass, cx)),
            Err(refusal) => {
                self.say_refused(now, slot, target.path.as_str(), &refusal.to_string());
                self.with_session(now, slot, |session, cx| session.turn_away(&refusal, cx));
            }
        }
    }

    /// Counts a session by the token that it shows, and no more by one that it showed before.
    fn show_token(&mut self, slot: usize, target: &Target) -> Result<(), Refusal> {
        let token = client_of(target);
        let before = self.peers[slot].as_ref().and_then(|peer| peer.token);
        if token == before {
            return Ok(());
        }
        if self.is_full(token) {
            return Err(Refusal::TokenFull);
        }
        if let Some(peer) = &mut self.peers[slot] {
            peer.token = token;
            before.into_iter().for_each(|before| self.clients.end(before));
            token.into_iter().for_each(|token| self.clients.begin(token));
        }
        Ok(())
    }

    /// Whether one more session has to be sent away because of where it comes from. Relays of this cluster
    /// never have.
    pub(super) fn is_source_full(&mut self, slot: usize) -> bool {
        if self.certificate(slot).is_some_and(|certificate| self.access.is_relay(&certificate)) {
            return false;
        }
        let Some(ip) = self.endpoint.conn(slot).map(|conn| conn.remote().ip()) else {
            return false;
        };
        self.is_full(self.clients.bounds().client_at(ip))
    }

    fn is_full(&mut self, client: Option<Client>) -> bool {
        let is_full = client.is_some_and(|client| self.clients.room(client) == 0);
        self.counters.limited_clients_total += u64::from(is_full);
        is_full
    }

    fn ask_authority(&mut self, slot: usize, target: Target, role: Role) {
        let tls = self.certificate(slot);
        let (Some(authority), Some(peer)) = (&self.authority, &mut self.peers[slot]) else {
            return;
        };
        let Some(conn) = self.endpoint.conn(slot) else { return };
        let facts = Facts {
            transport: Transport::Quic,
            remote: conn.remote(),
            local: authority.local(),
            server_name: conn.server_name(),
            alpn: Some(peer.session.version().alpn()),
            tls,
            dialled: target,
            role,
        };
        let (shard, generation) = (self.me as u16, conn.generation());
        let session = SessionRef { shard, slot: slot as u32, generation };
        peer.lease = Some(authority.ask(Asker::Session(session), facts));
    }

    /// The auth server says something of a session, which may be gone.
    pub(super) fn leased(&mut self, now: Instant, session: SessionRef, lease: LeaseId, news: News) {
        let slot = session.slot as usize;
        let peer = self.peers.get(slot).and_then(Option::as_ref);
        if peer.is_none_or(|peer| peer.lease != Some(lease)) {
            self.counters.stale_mail_total += 1;
            return;
        }
        match news {
            News::Admitted(admission) => {
                let pass = self.pass_of(now, admission);
                self.with_session(now, slot, |session, cx| session.admit(pass, cx));
            }
            News::Until(expires) => {
                let ends_at = expires.and_then(|second| self.wall.begins(second, now));
                self.with_session(now, slot, |session, _| session.extend(expires, ends_at));
            }
            News::Over(refusal) => {
                self.with_session(now, slot, |session, cx| session.turn_away(&refusal, cx));
            }
        }
    }

    /// A session of which the auth server was asked is over.
    pub(super) fn end_lease(&mut self, now: Instant, slot: usize, peer: &Peer, reason: &str) {
        let (Some(authority), Some(lease)) = (&self.authority, peer.lease) else { return };
        let (sent, received) = self.endpoint.conn(slot).map_or((0, 0), |conn| conn.moved());
        let is_expired = peer.session.failure().is_some()
            && peer.session.pass().ends_at.is_some_and(|at| at <= now);
        let reason = match is_expired {
            true => "expired".to_owned(),
            false => reason[..reason.floor_char_boundary(LOGGED_REASON_BYTES_MAX)].to_owned(),
        };
        authority.end(lease, reason, Moved { sent, received });
    }

    pub(super) fn say_refused(&mut self, now: Instant, slot: usize, path: &str, reason: &str) {
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

/// As what somebody is counted who shows a token.
fn client_of(target: &Target) -> Option<Client> {
    target.token.as_ref().map(|token| Client::Token(token.digest()))
}
