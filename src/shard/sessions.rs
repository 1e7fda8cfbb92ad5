//! Sessions begin on connections and end with them.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Instant;

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::entry::Entry;
use super::refused::Refused;
use super::report::Began;
use super::routes::{Fate, Said};
use super::{Peer, Shard};
use crate::access::{self, Refusal, Target};
use crate::limits::NEWCOMER_MOVES_AFTER;
use crate::log;
use crate::quic::Cause;
use crate::route::{Gone, SessionRef};
use crate::session::streams::Streams;
use crate::session::{Names, Session};
use crate::tls::faults;
use crate::track::Feed;
use crate::wire::{Protocol, SessionCode, StreamCode};

impl Shard {
    pub(super) fn connected(&mut self, now: Instant, slot: usize, alpn: &[u8]) {
        if let Some(call) = self.links.take_call(slot) {
            return self.call_answered(now, slot, alpn, call);
        }
        match Protocol::from_name(alpn) {
            Some(_) if self.is_source_full(slot) => {
                let refusal = Refusal::AddressFull;
                self.session_counts.refusals.note(refusal.name());
                self.say_refused(now, slot, "", &refusal.to_string());
                if let Some(mut conn) = self.conns.get(slot) {
                    conn.close(SessionCode::TOO_MANY_REQUESTS, refusal.to_string().into());
                }
            }
            Some(protocol) => {
                self.begin_session(now, slot, protocol, Entry::Dialled(Target::default()), "quic");
            }
            // TLS agrees on nothing that is not on our list; this is a list and a parser apart.
            None => {
                if let Some(mut conn) = self.conns.get(slot) {
                    conn.close(SessionCode::VERSION, "unknown protocol".into());
                }
            }
        }
    }

    /// A session begins on a connection.
    pub(super) fn begin_session(
        &mut self,
        now: Instant,
        slot: usize,
        protocol: Protocol,
        entry: Entry,
        transport: &'static str,
    ) {
        let is_said = self.may_say(now, slot);
        let Some(conn) = self.conns.get(slot) else { return };
        let generation = conn.generation();
        let me = SessionRef { shard: self.me as u16, slot: slot as u32, generation };
        if is_said {
            tracing::info!(
                shard = self.me,
                conn = slot,
                remote = %conn.remote(),
                version = protocol.name(),
                transport,
                "negotiated"
            );
        }
        let ip = conn.remote().ip();
        let (trust, source) = (self.policy.trust(ip), self.clients.client_at(ip));
        let names = Names { trust, identity: self.random.hop(), stamp: self.random.hop() };
        let new = |pass| Session::new(protocol, pass, me, self.policy.clone(), now, names);
        let (session, source, token) = match entry {
            Entry::Admitted { pass, token } => (new(Some(pass)), source, token),
            Entry::Dialled(target) => {
                let mut session = new(None);
                session.set_dialled(target);
                (session, source, None)
            }
            Entry::Called(call) => {
                let mut session = new(None);
                session.dial(call);
                if self.links.leads_back(slot) {
                    session.be_twin();
                }
                (session, None, None)
            }
        };
        self.counters.sessions_total += 1;
        self.session_counts.transports.note(transport);
        debug_assert!(self.peers[slot].is_none(), "a connection has one session");
        self.peers[slot] = Some(Box::new(Peer {
            session,
            attached: FxHashMap::default(),
            routes: FxHashMap::default(),
            skips: FxHashMap::default(),
            doubt: None,
            lease: None,
            source,
            token,
            began: Began { at: now, transport, protocol },
            said: Said::default(),
            refused: Refused::default(),
        }));
        source.into_iter().chain(token).for_each(|client| self.clients.begin(client));
        let is_draining = self.drain.is_on();
        self.with_session(now, slot, |session, cx| {
            if is_draining {
                session.ask_to_move(now + NEWCOMER_MOVES_AFTER, cx);
            }
            session.start(cx);
        });
    }

    /// The connection is gone, with or without a session.
    pub(super) fn connection_lost(
        &mut self,
        now: Instant,
        slot: usize,
        reason: &str,
        cause: Cause,
    ) {
        // The peer may have said again what was secret of what it was told.
        let reason = access::said(reason);
        if self.links.has_dialled(slot) {
            let reason = match cause {
                Cause::Tls => faults::of_server(&reason),
                _ => reason,
            };
            self.link_lost(slot, &reason, cause);
            return self.lost(now, slot, &reason);
        }
        if cause == Cause::Tls && self.peers[slot].is_none() {
            return self.say_refused(now, slot, "", &faults::of_client(&reason));
        }
        self.lost(now, slot, &reason);
    }

    /// The connection is gone, and everything that it published or watched with it.
    pub(super) fn lost(&mut self, now: Instant, slot: usize, reason: &str) {
        let Some(peer) = self.peers[slot].take() else { return };
        self.link_lost(slot, reason, Cause::Other);
        peer.session.count_end(&mut self.session_counts);
        if self.may_say(now, slot) {
            let reason = log::shortened(reason);
            tracing::info!(shard = self.me, conn = slot, reason, "closed");
        }
        self.listeners.forget(slot);
        self.end_lease(now, slot, &peer, reason);
        peer.source.into_iter().chain(peer.token).for_each(|client| self.clients.end(client));
        // Routes first, so that no home asks this session again.
        self.fade(now, peer.routes, Fate::Over(Gone::Lost));
        if let Some(conn) = self.conns.get(slot).filter(|_| peer.doubt.is_some()) {
            let generation = conn.generation();
            self.tell_of_doubted(slot, generation);
        }
        for pull in peer.session.pull_names() {
            self.visits.tracks += 1;
            self.post_pulled(now, pull, Feed::Failed(StreamCode::SESSION_CLOSED));
        }
        self.visits.tracks += peer.attached.len() as u32;
        for (key, track) in peer.attached {
            if let Some(track) = self.tracks.slot(track) {
                self.leave(now, track, slot, key);
            }
        }
    }

    /// Whether one more session that comes or goes, or cannot come, is worth a line.
    pub(super) fn may_say(&mut self, now: Instant, slot: usize) -> bool {
        let ip = self.conns.get(slot).map(|conn| conn.remote().ip());
        self.may_say_of(now, ip)
    }

    pub(super) fn may_say_of(&mut self, now: Instant, ip: Option<IpAddr>) -> bool {
        let client = ip.and_then(|ip| self.clients.client_at(ip));
        let hash = client.map(|client| FxBuildHasher.hash_one((self.salt, client)));
        let unsaid = self.quota.take(now, hash);
        if let Some(unsaid) = unsaid.filter(|unsaid| *unsaid > 0) {
            tracing::info!(shard = self.me, unsaid, "sessions came and went too often to say");
        }
        unsaid.is_some()
    }
}
