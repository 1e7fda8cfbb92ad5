//! Who comes in, where and with what; and who may stay when keys or the clock are others than before.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use moq_pattern::Patterns;
use tokio::sync::oneshot;

use super::clients::Client;
use super::conns::{self, Conns};
pub use super::conns::{QUIC, WEBSOCKET, WEBTRANSPORT};
use super::pipes::Caller;
use super::{Peer, Shard};
use crate::access::{self, Admission, Certificate, Refusal, Target, Token};
use crate::authority::contract::{Facts, Moved, Transport};
use crate::authority::desk::LeaseId;
use crate::authority::{Asker, News};
use crate::h3::request::{Request, Status};
use crate::limits::{LOGGED_TEXT_BYTES_MAX, SESSION_BYTES, SESSIONS_CHECKED_PER_TURN};
use crate::log;
use crate::mux::Wire;
use crate::net::Received;
use crate::quic::Arrival;
use crate::route::SessionRef;
use crate::session::{Call, Pass};
use crate::source::Source;
use crate::tcp::Handover;
use crate::wall::Wall;
use crate::wire::{Path, Protocol, Role};

/// A clock that is corrected bit by bit is off by less in the second between two looks.
const CLOCK_JUMP: Duration = Duration::from_millis(100);

/// With what a session begins.
#[derive(Debug)]
pub enum Entry {
    Admitted {
        pass: Pass,
        /// What it is counted by beside its address.
        token: Option<Client>,
    },
    /// Where it wants to be by its URL. Whether it may is decided when it has said what it is.
    Dialled(Target),
    /// This relay has dialled it.
    Called(Call),
}

/// Somebody wants a session before there is a connection here: over HTTP on TCP.
#[derive(Debug)]
pub struct Knock {
    /// The path with its query, as it was dialled.
    pub target: String,
    pub protocol: Protocol,
    pub caller: Caller,
    /// Where the answer goes.
    pub line: oneshot::Sender<Answer>,
}

/// With what a session may begin; or why not, as HTTP says it and in words.
pub type Answer = Result<Entry, (Status, String)>;

/// A connection on which a session begins that was let in.
#[derive(Debug)]
pub struct Newcomer {
    pub handover: Handover,
    pub caller: Caller,
    pub wire: Wire,
    pub protocol: Protocol,
    pub entry: Entry,
}

/// What the auth server was asked for a session, and where by its word that wanted to be.
pub(super) struct Lease {
    pub id: LeaseId,
    pub dialled: Path,
}

impl Shard {
    /// A datagram, which may be the first of a client: if there is room for it, it comes in.
    pub(super) fn arrived(&mut self, now: Instant, datagram: Received) {
        let remote = datagram.remote;
        match self.conns.quic.receive(now, datagram, |ip| self.clients.room_at(ip)) {
            Arrival::New(handle) => self.make_room(conns::of_quic(handle)),
            Arrival::Refused => {
                self.counters.refused_clients_total += 1;
                self.refuse_for_memory(now, remote);
            }
            Arrival::TooMany => {
                let refusal = Refusal::AddressFull;
                self.counters.limited_clients_total += 1;
                self.counters.full_addresses_total += 1;
                self.session_counts.refusals.note(refusal.name());
                if self.may_say_of(now, Some(remote.ip())) {
                    // As all are said, of a client that has not said where it wants to be.
                    let (path, reason) = ("", refusal.to_string());
                    let transport = QUIC;
                    tracing::info!(shard = self.me, %remote, transport, path, reason, "refused");
                }
            }
            Arrival::Dropped => self.counters.dropped_initials_total += 1,
            Arrival::Nothing => {}
        }
    }

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
        let certificate = self.certificate(slot);
        let Some(ip) = self.conns.get(slot).map(|conn| conn.remote().ip()) else { return };
        let decided = match protocol {
            _ if !self.policy.origins.permit(request.origin.as_deref()) => {
                let words = "pages of this origin may not use this relay".to_owned();
                Err((Status::Forbidden, "origin", words))
            }
            None => Err((Status::Malformed, "protocol", "no protocol in common".to_owned())),
            Some(protocol) => {
                let who = (ip, certificate.as_ref());
                self.decide(now, &request.target, who).map(|entry| (entry, protocol))
            }
        };
        match decided {
            Ok((entry, protocol)) => {
                if let Some(conn) = self.conns.quic(slot) {
                    conn.accept(named.map(Protocol::name));
                }
                self.begin_session(now, slot, protocol, entry, WEBTRANSPORT);
            }
            Err((status, why, reason)) => {
                self.session_counts.refusals.note(why);
                if let Some(conn) = self.conns.quic(slot) {
                    conn.refuse(status);
                }
                self.say_refused(now, slot, &request.target, &reason);
            }
        }
    }

    /// Whether somebody may have a session at what it has dialled, and with what that begins.
    fn decide(
        &mut self,
        now: Instant,
        dialled: &str,
        (ip, certificate): (IpAddr, Option<&Certificate>),
    ) -> Result<Entry, (Status, &'static str, String)> {
        if self.is_full_at(ip, certificate) {
            return Err(turned_away(Status::TooManyRequests, &Refusal::AddressFull));
        }
        let target = match Target::parse(dialled) {
            Ok(target) => target,
            Err(fault) => return Err((Status::Malformed, "path", fault.to_string())),
        };
        // Somebody else decides, who is to hear all that the client says.
        if self.authority.is_some() {
            return Ok(Entry::Dialled(target));
        }
        match self.pass(now, certificate, &target) {
            Ok(_) if self.is_full(client_of(&target)) => {
                Err(turned_away(Status::TooManyRequests, &Refusal::TokenFull))
            }
            Ok(pass) => Ok(Entry::Admitted { pass, token: client_of(&target) }),
            Err(refusal) => Err(turned_away(Status::Unauthorized, &refusal)),
        }
    }

    /// Answers somebody who wants a session before there is a connection here.
    pub(super) fn knocked(&mut self, now: Instant, knock: Knock) {
        let Knock { target, protocol, caller, line } = knock;
        let ip = caller.remote.ip();
        let certificate = caller.certificate.as_ref().and_then(|shown| Certificate::read(shown));
        let decided = self.decide(now, &target, (ip, certificate.as_ref()));
        let answer = match decided {
            Ok(_) if self.goodbye.is_some() => {
                Err((Status::Unavailable, "the relay is stopping".to_owned()))
            }
            Ok(_) if !self.conns.quic.budget().may_admit(Source::of(ip)) => {
                Err((Status::Unavailable, self.count_no_memory()))
            }
            Ok(entry) => Ok(entry),
            Err((status, why, reason)) => {
                self.session_counts.refusals.note(why);
                Err((status, reason))
            }
        };
        if let Err((_, reason)) = &answer
            && self.may_say_of(now, Some(ip))
        {
            let (shard, remote, version) = (self.me, caller.remote, protocol.name());
            let (path, reason) = (access::shown(&target), log::shortened(reason));
            let transport = WEBSOCKET;
            tracing::info!(shard, %remote, transport, version, path = %path, reason, "refused");
        }
        // Who has asked may have given up.
        let _ = line.send(answer);
    }

    /// Takes a connection over, and begins the session for which it was let in.
    pub(super) fn take_over(&mut self, now: Instant, newcomer: Newcomer) {
        let Newcomer { handover, caller, wire, protocol, entry } = newcomer;
        let (remote, source) = (caller.remote, Source::of(caller.remote.ip()));
        let Conns { quic, pipes } = &mut self.conns;
        if self.goodbye.is_some() {
            return;
        }
        if !quic.budget().admit(source, SESSION_BYTES) {
            return self.refuse_for_memory(now, remote);
        }
        let index = match pipes.insert(now, handover, caller, wire) {
            Ok(index) => index,
            Err(error) => {
                quic.budget().give_back(source, SESSION_BYTES);
                if self.may_say_of(now, Some(remote.ip())) {
                    tracing::warn!(shard = self.me, %remote, %error, "cannot take a connection over");
                }
                return;
            }
        };
        let slot = conns::of_pipe(index);
        self.make_room(slot);
        self.begin_session(now, slot, protocol, entry, WEBSOCKET);
        // Keys may have gone, and time passed, since it was let in.
        self.check_session(now, slot);
    }

    /// What somebody may do who wants to be at a path.
    fn pass(
        &mut self,
        now: Instant,
        certificate: Option<&Certificate>,
        target: &Target,
    ) -> Result<Pass, Refusal> {
        if let Some(pass) = self.pass_of_relay(now, certificate, target) {
            return Ok(pass);
        }
        let token = target.token.as_ref().map(Token::as_str);
        let admission = self.access.admit(&target.path, token, self.wall.second(now))?;
        Ok(self.pass_of(now, admission))
    }

    /// What a relay of this cluster may do by its certificate. A token that is shown decides alone.
    fn pass_of_relay(
        &mut self,
        now: Instant,
        certificate: Option<&Certificate>,
        target: &Target,
    ) -> Option<Pass> {
        let certificate = certificate.filter(|_| target.token.is_none())?;
        let admission = self.access.admit_relay(&target.path, certificate);
        if !self.access.relays.is_empty() && self.may_say_of(now, None) {
            let (shard, name) = (self.me, log::shortened(&certificate.name));
            match admission {
                Some(_) => {
                    tracing::info!(shard, name, "let in as a relay, by its certificate");
                }
                None => {
                    tracing::warn!(
                        shard,
                        name,
                        "its certificate is of no relay that --auth-peer names: it may what everybody may, and is \
                         not believed; if it is a relay of this cluster --auth-peer has to name it"
                    );
                }
            }
        }
        Some(self.pass_of(now, admission?))
    }

    fn certificate(&mut self, slot: usize) -> Option<Certificate> {
        Certificate::read(&self.conns.get(slot)?.certificate()?)
    }

    fn pass_of(&self, now: Instant, admission: Admission) -> Pass {
        let ends_at = admission.expires.and_then(|second| self.wall.begins(second, now));
        Pass { admission, ends_at }
    }

    /// A session wants to be somewhere.
    pub(super) fn arrived_at(&mut self, now: Instant, slot: usize, target: Target, role: Role) {
        if let Some(admission) = self.admission_of_heir(slot, &target) {
            let pass = self.pass_of(now, admission);
            return self.with_session(now, slot, |session, cx| session.admit(pass, cx));
        }
        let certificate = self.certificate(slot);
        let pass = match self.authority {
            // Which is not asked about relays.
            Some(_) => Ok(self.pass_of_relay(now, certificate.as_ref(), &target)),
            None => self.pass(now, certificate.as_ref(), &target).map(Some),
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

    /// Whether one more session has to be sent away because of where it comes from.
    pub(super) fn is_source_full(&mut self, slot: usize) -> bool {
        let certificate = self.certificate(slot);
        let Some(ip) = self.conns.get(slot).map(|conn| conn.remote().ip()) else {
            return false;
        };
        self.is_full_at(ip, certificate.as_ref())
    }

    /// Relays of this cluster never are too many.
    fn is_full_at(&mut self, ip: IpAddr, certificate: Option<&Certificate>) -> bool {
        let is_relay = certificate.is_some_and(|certificate| self.access.is_relay(certificate));
        !is_relay && self.is_full(self.clients.client_at(ip))
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
        let Some(conn) = self.conns.get(slot) else { return };
        let dialled = target.path.clone();
        let facts = Facts {
            transport: match peer.began.transport {
                WEBSOCKET => Transport::WebSocket,
                _ => Transport::Quic,
            },
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
        let id = authority.ask(Asker::Session(session), facts);
        peer.lease = Some(Lease { id, dialled });
    }

    /// The auth server says something of a session, which may be gone.
    pub(super) fn leased(&mut self, now: Instant, session: SessionRef, lease: LeaseId, news: News) {
        let slot = session.slot as usize;
        let peer = self.peers.get(slot).and_then(Option::as_ref);
        let held = peer.and_then(|peer| peer.lease.as_ref());
        if held.is_none_or(|held| held.id != lease) {
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
        let (Some(authority), Some(lease)) = (&self.authority, &peer.lease) else { return };
        let (sent, received) = self.conns.get(slot).map_or((0, 0), |conn| conn.moved());
        let is_expired = peer.session.failure().is_some()
            && peer.session.pass().ends_at.is_some_and(|at| at <= now);
        let reason = match is_expired {
            true => "expired".to_owned(),
            false => log::shortened(reason).to_owned(),
        };
        authority.end(lease.id, reason, Moved { sent, received });
    }

    /// With what a session was let in. What it is by that is said in the words that operators know.
    pub(super) fn say_accepted(&mut self, now: Instant, slot: usize) {
        let is_said = self.may_say(now, slot);
        let Some(peer) = self.peers[slot].as_ref().filter(|_| is_said) else { return };
        let Admission { grant, expires, is_relay, .. } = &peer.session.pass().admission;
        let expires = expires.map(access::utc);
        let accepted = match (grant.publish().is_empty(), grant.subscribe().is_empty()) {
            _ if *is_relay => "relay accepted",
            (false, true) => "publisher accepted",
            (true, false) => "subscriber accepted",
            _ => "session accepted",
        };
        tracing::info!(
            shard = self.me,
            conn = slot,
            root = access::shown(grant.root().as_str()),
            publish = listed(grant.publish()),
            subscribe = listed(grant.subscribe()),
            expires,
            "{accepted}"
        );
    }

    /// Of a path no query is said, nor what else may be a token.
    pub(super) fn say_refused(&mut self, now: Instant, slot: usize, path: &str, reason: &str) {
        if self.may_say(now, slot)
            && let Some(conn) = self.conns.get(slot)
        {
            let (shard, remote, transport) = (self.me, conn.remote(), conn.name());
            let path = access::shown(path);
            let (path, reason) = (log::shortened(&path), log::shortened(reason));
            tracing::info!(shard, conn = slot, %remote, transport, path, reason, "refused");
        }
    }

    /// Somebody is not let in of whom nothing is known but where he is.
    pub(super) fn refuse_for_memory(&mut self, now: Instant, remote: SocketAddr) {
        let reason = self.count_no_memory();
        if self.may_say_of(now, Some(remote.ip())) {
            tracing::warn!(shard = self.me, %remote, path = "", reason, "refused");
        }
    }

    /// The same is counted, and why in words.
    fn count_no_memory(&mut self) -> String {
        let refusal = Refusal::NoMemory;
        self.session_counts.refusals.note(refusal.name());
        refusal.to_string()
    }

    /// Looks whether sessions may go on as things are now, so many in a turn.
    pub(super) fn check_sessions(&mut self, now: Instant) {
        let Some(first) = self.unchecked else { return };
        let last = (first + SESSIONS_CHECKED_PER_TURN).min(self.peers.len());
        self.unchecked = (last < self.peers.len()).then_some(last);
        for slot in first..last {
            self.check_session(now, slot);
        }
        self.visits.events += (last - first) as u32;
    }

    /// Looks whether one may go on.
    pub(super) fn check_session(&mut self, now: Instant, slot: usize) {
        let Some(peer) = &self.peers[slot] else { return };
        let Pass { admission, ends_at } = peer.session.pass();
        if let Err(refusal) = admission.check(&self.access.keys, self.wall.second(now)) {
            self.with_session(now, slot, |session, cx| session.turn_away(&refusal, cx));
            return self.settle(now);
        }
        let ends = admission.expires.and_then(|second| self.wall.begins(second, now));
        if ends != *ends_at {
            self.with_session(now, slot, |session, _| session.set_end(ends));
        }
    }
}

/// How a client is told of it, and what is counted and logged.
fn turned_away(status: Status, refusal: &Refusal) -> (Status, &'static str, String) {
    (status, refusal.name(), refusal.to_string())
}

/// As what somebody is counted who shows a token.
fn client_of(target: &Target) -> Option<Client> {
    target.token.as_ref().map(|token| Client::Token(token.digest()))
}

/// Patterns with commas between, as many as a line takes.
fn listed(patterns: &Patterns) -> String {
    let mut text = String::new();
    for pattern in patterns {
        if text.len() + pattern.as_str().len() > LOGGED_TEXT_BYTES_MAX {
            return text + ",…";
        }
        let comma = if text.is_empty() { "" } else { "," };
        text.extend([comma, pattern.as_str()]);
    }
    text
}
