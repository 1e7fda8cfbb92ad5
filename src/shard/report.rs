//! What operators ask of a shard: what it has counted, who is there, and that some leave. All of it is
//! answered by mail, and each answer costs about as much as a few datagrams.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;

use super::links::LinkRow;
use super::names::TrackKey;
use super::tracks::{Place, Track};
use super::{Counters, Shard};
use crate::authority::desk::LeaseId;
use crate::limits::{PATHS_PER_REPORT, SESSIONS_PER_PAGE, TRACKS_PER_PAGE};
use crate::net::socket::SocketCounts;
use crate::observe::{Histogram, Tick};
use crate::quic::Counts as QuicCounts;
use crate::session::Counts as SessionCounts;
use crate::wire::{Path, Protocol, Role};

/// All that a shard has counted, and what it holds now.
#[derive(Debug)]
pub struct Report {
    pub counters: Counters,
    pub sessions: SessionCounts,
    pub quic: QuicCounts,
    pub socket: SocketCounts,
    pub times: Times,
    pub now: Now,
    pub tracks: Vec<TrackRow>,
    /// With other relays, whoever of the two has dialled.
    pub links: Vec<LinkRow>,
}

/// How it is at the moment.
#[derive(Debug)]
pub struct Now {
    pub connections: usize,
    pub handshakes: usize,
    pub routes: usize,
    pub tracks: usize,
    pub guests: usize,
    /// Relays of the cluster that have dialled.
    pub guest_links: usize,
    /// Mail that waits in the lanes to this shard, and here for room in others'.
    pub mail_in: usize,
    pub mail_out: usize,
    pub cache_bytes: u64,
    pub cache_room: u64,
    pub granted_bytes: u64,
    pub granted_room: u64,
    /// Sessions that were asked to move elsewhere and are still here.
    pub parting: usize,
}

/// Where the time of a shard goes, in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Times {
    pub busy: u64,
    pub turns: Histogram,
    /// From the begin of the turn that sent mail to the begin of the one that took it.
    pub mail: Histogram,
    /// From what brought content to the first that left with it, for each viewer and turn.
    pub added: Histogram,
    /// What it took to answer who wanted to know all this.
    pub reports: Histogram,
}

/// One track, as far as this shard has to do with it.
#[derive(Debug)]
pub struct TrackRow {
    pub broadcast: Path,
    pub name: Arc<str>,
    pub viewers: usize,
    /// What publishers have brought, where it is at home.
    pub groups: u64,
    pub bytes: u64,
}

/// Some of the tracks of a shard.
#[derive(Debug)]
pub struct TracksPage {
    pub tracks: Vec<TrackRow>,
    /// The last one of these, where there are more.
    pub last: Option<Arc<TrackKey>>,
}

/// How a session began.
#[derive(Clone, Copy)]
pub(super) struct Began {
    pub at: Instant,
    pub transport: &'static str,
    pub protocol: Protocol,
}

/// One session. Nothing in it is secret.
#[derive(Debug)]
pub struct SessionRow {
    pub slot: u32,
    pub generation: u32,
    pub transport: &'static str,
    pub is_secure: bool,
    pub protocol: &'static str,
    pub remote: SocketAddr,
    pub local_ip: Option<IpAddr>,
    pub server_name: Option<String>,
    pub certificate: Option<CertificateDer<'static>>,
    /// As the auth server knows it.
    pub lease: Option<LeaseId>,
    /// The dialled one.
    pub path: Path,
    pub role: Role,
    /// Since the epoch of unix.
    pub started: Duration,
}

/// Some of the sessions of a shard.
#[derive(Debug)]
pub struct SessionsPage {
    pub sessions: Vec<SessionRow>,
    /// The connection slot from which on there may be more.
    pub next: Option<usize>,
}

impl Shard {
    /// A turn is over: what it has sent has left, and now is the time for those who want to know what this
    /// shard has counted.
    pub fn turned(
        &mut self,
        begun: Instant,
        ended: Instant,
        socket: impl FnOnce() -> SocketCounts,
    ) {
        let took = ended.saturating_duration_since(begun);
        self.timing.times.busy += took.as_micros() as u64;
        self.timing.times.turns.record_span(took);
        let ended = Tick::new(self.started, ended);
        self.conns.note_departures(ended, &mut self.timing.times.added);
        if !self.timing.asked.is_empty() {
            self.report(socket());
        }
    }

    fn report(&mut self, socket: SocketCounts) {
        self.conns.quic.look_at_paths(PATHS_PER_REPORT);
        for (tracks, line) in std::mem::take(&mut self.timing.asked) {
            let report = Report {
                counters: self.counters(),
                sessions: SessionCounts::clone(&self.session_counts),
                quic: self.conns.quic.counts().clone(),
                socket,
                times: self.timing.times.clone(),
                now: self.now(),
                tracks: self.tracks.first(tracks).map(TrackRow::of).collect(),
                links: self.list_links(),
            };
            // Who has asked may have given up.
            let _ = line.send(Box::new(report));
        }
    }

    /// What it took to answer.
    pub fn note_reported(&mut self, took: Duration) {
        self.timing.times.reports.record_span(took);
    }

    /// Whether somebody waits to hear what this shard has counted.
    pub fn is_asked(&self) -> bool {
        !self.timing.asked.is_empty()
    }

    fn now(&self) -> Now {
        Now {
            connections: self.conns.live(),
            handshakes: self.conns.quic.handshakes(),
            routes: self.directory.len(),
            tracks: self.tracks.len(),
            guests: self.guests.len(),
            guest_links: self.links.guests(),
            mail_in: self.post.waiting(),
            mail_out: self.post.held(),
            cache_bytes: self.tracks.cache.held,
            cache_room: self.tracks.cache.room(),
            granted_bytes: self.conns.quic.granted(),
            granted_room: self.conns.quic.grantable(),
            parting: self.parting(),
        }
    }

    pub(super) fn list_sessions(&mut self, from: usize) -> SessionsPage {
        let slots = self.peers.len();
        let mut page = SessionsPage { sessions: Vec::new(), next: None };
        for slot in from..slots {
            // Those that are free are looked at too.
            if page.sessions.len() == SESSIONS_PER_PAGE || slot - from == 4 * SESSIONS_PER_PAGE {
                page.next = Some(slot);
                break;
            }
            let (Some(peer), Some(conn)) = (&self.peers[slot], self.conns.get(slot)) else {
                continue;
            };
            let Began { at, transport, protocol } = peer.began;
            let lease = peer.lease.as_ref();
            let root = peer.session.pass().admission.grant.root();
            page.sessions.push(SessionRow {
                slot: slot as u32,
                generation: conn.generation(),
                transport,
                is_secure: conn.is_secure(),
                protocol: protocol.name(),
                remote: conn.remote(),
                local_ip: conn.local_ip(),
                server_name: conn.server_name(),
                certificate: conn.certificate(),
                lease: lease.map(|lease| lease.id),
                path: lease.map_or(root, |lease| &lease.dialled).clone(),
                role: peer.session.role(),
                started: self.wall.unix(at),
            });
        }
        self.visits.events += page.sessions.len() as u32;
        page
    }

    pub(super) fn list_tracks(&mut self, after: Option<&TrackKey>) -> TracksPage {
        let mut rest = self.tracks.after(after);
        let page: Vec<&Track> = rest.by_ref().take(TRACKS_PER_PAGE).collect();
        let last = rest.next().and_then(|_| page.last()).map(|track| track.key.clone());
        let tracks: Vec<TrackRow> = page.into_iter().map(TrackRow::of).collect();
        self.visits.tracks += tracks.len() as u32;
        TracksPage { tracks, last }
    }

    /// Has sessions end, because somebody wants that.
    pub(super) fn kick(&mut self, now: Instant, sessions: &[(u32, u32)]) {
        for slot in self.living(sessions) {
            self.with_session(now, slot, |session, cx| session.kick(cx));
            self.settle(now);
        }
    }

    /// Looks whether sessions may go on, or has the auth server asked that.
    pub(super) fn check_these(&mut self, now: Instant, sessions: &[(u32, u32)]) {
        for slot in self.living(sessions) {
            self.check_session(now, slot);
            if let (Some(authority), Some(peer)) = (&self.authority, &self.peers[slot])
                && let Some(lease) = &peer.lease
            {
                authority.check(lease.id);
            }
        }
    }

    /// The slots of those that are still there.
    fn living(&mut self, sessions: &[(u32, u32)]) -> Vec<usize> {
        self.visits.events += sessions.len() as u32;
        let sessions = sessions.iter().map(|(slot, generation)| (*slot as usize, *generation));
        let living = sessions.filter(|(slot, known)| self.generation(*slot) == Some(*known));
        living.map(|(slot, _)| slot).collect()
    }
}

impl TrackRow {
    fn of(track: &Track) -> TrackRow {
        let is_home = matches!(track.place, Place::Home { .. });
        TrackRow {
            broadcast: track.key.broadcast.clone(),
            name: track.key.name.clone(),
            viewers: track.readers.subscribers_len(),
            groups: if is_home { track.came_groups } else { 0 },
            bytes: if is_home { track.came_bytes } else { 0 },
        }
    }
}
