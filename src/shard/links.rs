//! Sessions with other relays of the cluster: those that this shard is told to dial, and those that have
//! dialled. Whoever keeps the links is told what becomes of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::Shard;
use super::conns;
use super::conns::{QUIC, WEBTRANSPORT};
use super::entry::Entry;
use crate::access::{Admission, Certificate, Grant, Target};
use crate::cluster::{Dial, Line, LinkId, News};
use crate::limits::PEERS_MAX;
use crate::quic::Cause;
use crate::route::{SessionRef, Trust};
use crate::session::Call;
use crate::session::streams::Streams;
use crate::text::hex;
use crate::wire::{Path, Protocol, SessionCode};

/// How it is with a link that is up.
#[derive(Debug)]
pub struct LinkRow {
    pub with: With,
    pub remote: SocketAddr,
    pub hop: u64,
    /// Since when there is a session, and when its peer was last heard.
    pub began: Instant,
    pub heard_at: Instant,
    pub transport: &'static str,
    pub protocol: &'static str,
    pub rtt: Duration,
    /// Millionths of packets.
    pub loss: u64,
    pub sent: u64,
    pub received: u64,
    /// Live announcements of the peer.
    pub routes: usize,
}

/// Whose link it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum With {
    /// A relay that this one has dialled.
    Dialled(LinkId),
    /// One that has dialled this one, by the name in its certificate.
    Guest(Option<String>),
}

/// What the process shows that is to take over from this one: as good as a certificate of a relay.
#[derive(Clone, PartialEq, Eq)]
pub struct HeirKey(String);

impl HeirKey {
    pub fn new(text: String) -> HeirKey {
        HeirKey(text)
    }

    pub fn random() -> HeirKey {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).expect("the system has entropy");
        HeirKey(hex(&bytes))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is(&self, shown: &str) -> bool {
        verify_slices_are_equal(self.0.as_bytes(), shown.as_bytes()).is_ok()
    }
}

/// What is secret is not shown.
impl std::fmt::Debug for HeirKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HeirKey")
    }
}

#[derive(Default)]
pub(super) struct Links {
    /// What the next process will show.
    heir_key: Option<HeirKey>,
    /// Its session, by connection slot.
    heir: Option<usize>,
    /// Who wants to know how it is with the process before this one.
    before: Option<mpsc::Sender<Result<(), String>>>,
    /// Whom to tell. Nobody, where there is no cluster.
    line: Option<Line>,
    /// By connection slot.
    dialled: BTreeMap<usize, Dialled>,
    guests: BTreeMap<usize, SessionRef>,
}

struct Dialled {
    link: LinkId,
    /// Until the session begins.
    call: Option<Call>,
}

impl Links {
    fn tell(&self, news: News) {
        let said = match &news {
            News::Up { link: LinkId::BEFORE, .. } => Some(Ok(())),
            News::Down { link: LinkId::BEFORE, reason, .. } => Some(Err(reason.clone())),
            _ => None,
        };
        if let (Some(said), Some(before)) = (said, &self.before) {
            // Who has asked may have given up.
            let _ = before.send(said);
            return;
        }
        if let Some(line) = &self.line {
            line.tell(news);
        }
    }

    /// What a session begins with on a connection of our own.
    pub fn take_call(&mut self, slot: usize) -> Option<Call> {
        self.dialled.get_mut(&slot)?.call.take()
    }

    pub fn guests(&self) -> usize {
        self.guests.len()
    }

    pub fn has_dialled(&self, slot: usize) -> bool {
        self.dialled.contains_key(&slot)
    }

    /// Whether a connection leads to the process before this one.
    pub fn leads_back(&self, slot: usize) -> bool {
        self.dialled.get(&slot).is_some_and(|dialled| dialled.link == LinkId::BEFORE)
    }

    /// Whether a peer is here as part of an upgrade, or may be: the process before this one is still there.
    pub fn are_moving(&self, slot: usize) -> bool {
        self.is_heir(slot) || self.dialled.keys().any(|slot| self.leads_back(*slot))
    }

    pub fn is_heir(&self, slot: usize) -> bool {
        self.heir == Some(slot)
    }
}

impl Shard {
    /// What lets the next process in. None: there is no other process, and what was linked with it is over. Who has
    /// moved from there is here by now, and is not to wait until that link has been silent for long.
    pub(super) fn expect_heir(&mut self, now: Instant, key: Option<HeirKey>) {
        if key.is_none() {
            if let Some(slot) = self.links.heir {
                const WORDS: &str = "the process that has taken over is gone";
                self.with_session(now, slot, |session, cx| session.leave(WORDS, cx));
            }
            self.hang_up(now, LinkId::BEFORE);
        }
        self.links.heir_key = key;
    }

    /// Begins a connection to the process before this one.
    pub(super) fn dial_before(
        &mut self,
        now: Instant,
        dial: Dial,
        line: mpsc::Sender<Result<(), String>>,
    ) {
        self.links.before = Some(line);
        self.dial(now, dial);
    }

    /// What the next process may do, if it is that.
    pub(super) fn admission_of_heir(&mut self, slot: usize, target: &Target) -> Option<Admission> {
        let shown = target.token.as_ref()?.as_str();
        self.links.heir_key.as_ref().filter(|key| key.is(shown))?;
        self.links.heir = Some(slot);
        if let Some(peer) = &mut self.peers[slot] {
            peer.session.be_twin();
        }
        let grant = Grant::everything();
        Some(Admission { grant, is_relay: true, ..Admission::default() })
    }

    /// From now on this is told what becomes of links.
    pub(super) fn keep_links(&mut self, line: Line) {
        self.links.line = Some(line);
    }

    /// Begins a connection to another relay.
    pub(super) fn dial(&mut self, now: Instant, dial: Dial) {
        let Dial { link, outgoing, callee, call } = dial;
        match self.conns.quic.connect(now, &outgoing, &callee) {
            Ok(handle) => {
                let slot = conns::of_quic(handle);
                self.make_room(slot);
                self.links.dialled.insert(slot, Dialled { link, call: Some(call) });
            }
            Err(reason) => self.links.tell(News::Down { link, reason, is_denied: false }),
        }
    }

    /// Ends a link, or what was to be one.
    pub(super) fn hang_up(&mut self, now: Instant, link: LinkId) {
        let mut dialled = self.links.dialled.iter();
        let Some((&slot, _)) = dialled.find(|(_, dialled)| dialled.link == link) else { return };
        const WORDS: &str = "the link is not wanted any more";
        if self.peers[slot].is_some() {
            return self.with_session(now, slot, |session, cx| session.leave(WORDS, cx));
        }
        if let Some(mut conn) = self.conns.get(slot) {
            conn.close(SessionCode::NO_ERROR, WORDS.into());
        }
        self.conns.note_dirty(slot);
        self.link_lost(slot, WORDS, Cause::Other);
    }

    /// A connection of our own is up: its session begins.
    pub(super) fn call_answered(&mut self, now: Instant, slot: usize, alpn: &[u8], call: Call) {
        let is_web = self.conns.quic(slot).is_some_and(|conn| conn.is_web());
        let transport = if is_web { WEBTRANSPORT } else { QUIC };
        match Protocol::from_name(alpn) {
            Some(protocol) => {
                self.begin_session(now, slot, protocol, Entry::Called(call), transport);
            }
            None => {
                const WORDS: &str = "no protocol in common";
                if let Some(mut conn) = self.conns.get(slot) {
                    conn.close(SessionCode::VERSION, WORDS.into());
                }
                self.link_lost(slot, WORDS, Cause::Other);
            }
        }
    }

    /// A session is ready. If its peer is a relay of the cluster, that matters to whoever keeps the links.
    pub(super) fn note_relay(&mut self, slot: usize) {
        let Some(peer) = self.peers[slot].as_deref() else { return };
        if peer.session.trust() != Trust::Relay {
            return;
        }
        let hop = peer.session.identity();
        let may_everything = {
            let grant = &peer.session.pass().admission.grant;
            grant.root().is_root()
                && grant.may_publish_all_below(&Path::root())
                && grant.may_subscribe_all()
        };
        if let Some(conn) = self.conns.quic(slot) {
            conn.expect_relay();
        }
        if let Some(Dialled { link, .. }) = self.links.dialled.get(&slot) {
            return self.links.tell(News::Up { link: *link, hop });
        }
        if may_everything
            && !self.links.is_heir(slot)
            && let Some(generation) = self.conns.generation(slot)
        {
            let session = SessionRef { shard: self.me as u16, slot: slot as u32, generation };
            self.links.guests.insert(slot, session);
            self.links.tell(News::Guest { session, hop });
        }
    }

    /// Links that are up, those that this shard has dialled first.
    pub(super) fn list_links(&mut self) -> Vec<LinkRow> {
        let Links { dialled, guests, .. } = &self.links;
        let dialled = dialled.iter().map(|(slot, to)| (*slot, Some(to.link)));
        // Whoever comes from --cluster-address is believed to be one.
        let guests = guests.keys().take(PEERS_MAX).map(|slot| (*slot, None));
        let all: Vec<_> = dialled.chain(guests).collect();
        let mut rows = Vec::new();
        for (slot, link) in all {
            let (Some(peer), Some(conn)) = (&self.peers[slot], self.conns.quic(slot)) else {
                continue;
            };
            let with = match link {
                Some(link) => With::Dialled(link),
                None => {
                    let shown = conn.certificate().and_then(|shown| Certificate::read(&shown));
                    With::Guest(shown.map(|certificate| certificate.name))
                }
            };
            let (sent, received) = conn.moved();
            rows.push(LinkRow {
                with,
                remote: conn.remote(),
                hop: peer.session.identity(),
                began: peer.began.at,
                heard_at: conn.heard_at(),
                transport: peer.began.transport,
                protocol: peer.began.protocol.name(),
                rtt: conn.rtt(),
                loss: conn.loss(),
                sent,
                received,
                routes: peer.routes.len(),
            });
        }
        rows
    }

    /// A peer passes on what others publish, as relays do, and is not known as one: said once.
    pub(super) fn say_hearsay(&mut self, now: Instant, slot: usize) {
        let Some(peer) = &mut self.peers[slot] else { return };
        if !std::mem::replace(&mut peer.said.hearsay, true) && self.may_say(now, slot) {
            let remote = self.conns.get(slot).map(|conn| conn.remote().to_string());
            tracing::info!(
                shard = self.me,
                conn = slot,
                remote,
                "passes on what others publish, and is not believed: there is no failover to it, and it hears of \
                 no hidden paths; if it is a relay of this cluster name it with --auth-peer or --cluster-address \
                 (a client that publishes what it watches does the same)"
            );
        }
    }

    pub(super) fn link_leaves(&mut self, slot: usize, to: String) {
        if let Some(Dialled { link, .. }) = self.links.dialled.get(&slot) {
            self.links.tell(News::Leaving { link: *link, to });
        }
    }

    /// A connection is gone; if it was a link, that is over.
    pub(super) fn link_lost(&mut self, slot: usize, reason: &str, cause: Cause) {
        self.links.heir.take_if(|heir| *heir == slot);
        if let Some(Dialled { link, .. }) = self.links.dialled.remove(&slot) {
            let (reason, is_denied) = (reason.to_owned(), cause == Cause::Denied);
            self.links.tell(News::Down { link, reason, is_denied });
        }
        if let Some(session) = self.links.guests.remove(&slot) {
            self.links.tell(News::GuestLeft { session });
        }
    }
}
