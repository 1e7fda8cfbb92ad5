//! A shard: one socket, its connections, its sessions and its tracks, as a plain state machine.
//!
//! `turn` takes datagrams and mail in, runs what changed, writes streams, transmits each dirty
//! connection once and posts mail. It reads no clock, spawns nothing and awaits nothing, so a
//! test can run many shards in one thread on a virtual clock.

mod attach;
mod cache;
mod claims;
mod clients;
mod conns;
mod counters;
mod drain;
pub mod entry;
mod feed;
mod fetch;
mod goodbye;
pub mod guest;
mod handover;
mod hearing;
pub mod links;
mod listeners;
pub mod message;
pub mod names;
pub mod news;
pub mod pipes;
pub mod placement;
mod pulls;
mod random;
mod readers;
mod refused;
pub mod report;
mod revival;
mod rounds;
mod routes;
mod sessions;
mod setting;
mod skips;
mod timing;
mod tracks;
mod trim;
pub mod visits;

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::access::Access;
use crate::authority;
use crate::limits::{
    MAIL_PER_TURN, OUTBOX_LIVE_MAX, QUIET_AFTER, TURN_INTERVAL_MIN, TURN_INTERVAL_QUIET,
    TURN_INTERVAL_QUIET_MAX,
};
use crate::log::Quota;
use crate::mailbox::{Flush, Post};
use crate::net::{Datagrams, steer};
use crate::observe::Tick;
use crate::prefetch::prefetch;
use crate::quic::trains::Transmitted;
use crate::quic::{Endpoint, Event};
use crate::route::{Directory, RouteId};
use crate::session::streams::StreamId;
use crate::session::{Context, Counts as SessionCounts, Effect, Policy, RouteIds, Session};
use crate::tcp;
use crate::track::{PullRef, TrackRef};
use crate::wall::Wall;
use crate::wire::Path;
use claims::{Claims, Doubt};
use clients::{Client, Clients};
use conns::{Conns, Transport};
use drain::Drain;
use entry::Lease;
use goodbye::LastWords;
use guest::{Announced, Guests};
use handover::Moves;
use hearing::{Hearing, Unread};
use links::Links;
use listeners::Listeners;
use message::ToShard;
use news::Untold;
use pipes::Pipes;
use random::SplitMix;
use refused::{Looks, Refused};
use report::Began;
use routes::{Fading, Said};
use skips::{Backlog, Skips};
use timing::Timing;
use tracks::{Purpose, Tracks, Who};
use visits::Visits;

pub use crate::rt::Next;
pub use counters::{Counters, Held};
pub use setting::{CacheBounds, Setting};

/// How soon a full lane or a full socket is tried again.
const RETRY_AFTER: Duration = Duration::from_micros(200);

/// One connection's session, and what the shard holds for it.
struct Peer {
    session: Session,
    /// The tracks that its subscriptions and questions are attached to.
    attached: FxHashMap<StreamId, TrackRef>,
    /// The routes that it has announced.
    routes: FxHashMap<RouteId, Path>,
    /// Groups of its tracks that a busy home is spared.
    skips: FxHashMap<PullRef, Skips>,
    doubt: Option<Doubt>,
    /// What the auth server was asked for it.
    lease: Option<Lease>,
    /// As what it is counted: the address that it came from, and the token that it shows.
    source: Option<Client>,
    token: Option<Client>,
    began: Began,
    said: Said,
    refused: Refused,
}

pub struct Shard {
    me: usize,
    shards: usize,
    started: Instant,
    policy: Arc<Policy>,
    access: Arc<Access>,
    authority: Option<authority::Handle>,
    wall: Wall,
    /// The connection slot from which on it is to be looked whether sessions may go on; none when that is done.
    unchecked: Option<usize>,
    drain: Drain,
    conns: Conns,
    clients: Clients,
    /// By connection slot.
    peers: Vec<Option<Box<Peer>>>,
    directory: Directory,
    moves: Moves,
    listeners: Listeners,
    links: Links,
    looks: Looks,
    /// The end of the directory's journal when listeners were last told that there is something new, and
    /// when they may be told so again.
    announced: u64,
    announce_at: Instant,
    claims: Claims,
    /// Routes that are over, or leave, of which nobody knows yet.
    fading: VecDeque<Fading>,
    /// By neighbour, what it has not been told of the routes of this shard's sessions.
    untold: Vec<Untold>,
    tracks: Tracks,
    guests: Guests,
    post: Post<ToShard>,
    /// By neighbour, whose live content waits for it.
    backlogs: Vec<Backlog>,
    inbox: VecDeque<(usize, ToShard)>,
    route_ids: RouteIds,
    random: SplitMix,
    /// What the session that runs asks for.
    effects: Vec<Effect>,
    /// What sessions have asked for, by connection slot and generation.
    asked: VecDeque<(usize, u32, Effect)>,
    /// Streams that had more to read than one turn allows.
    unread: Vec<Unread>,
    hearing: Hearing,
    /// Subscriptions and fetches that can make progress.
    unblocked: Vec<(usize, u32, StreamId)>,
    /// The last connection that had its turn.
    last_unblocked: usize,
    counters: Counters,
    session_counts: Box<SessionCounts>,
    timing: Box<Timing>,
    /// When what is being done came to this relay, or the turn began.
    came: Tick,
    /// When that came which readers are served now, if it is new to them.
    fresh: Option<Tick>,
    /// What this turn has looked at.
    visits: Visits,
    /// When a session last heard something.
    heard_at: Option<Instant>,
    /// How much may be said of sessions that come and go.
    quota: Quota,
    /// Has sources told apart in a way that they cannot foresee.
    salt: u64,
    /// How far this shard is with its last words.
    goodbye: Option<LastWords>,
}

impl Shard {
    pub fn new(setting: Setting, post: Post<ToShard>) -> Shard {
        let tracks = Tracks::new(&setting);
        let Setting {
            shard,
            shards,
            quic,
            policy,
            access,
            authority,
            seed,
            started,
            wall,
            memory,
            routes,
            bounds,
            ..
        } = setting;
        let takeover = policy.takeover;
        Shard {
            me: shard,
            shards,
            started,
            policy,
            access,
            authority,
            wall,
            unchecked: None,
            drain: Drain::default(),
            conns: Conns {
                quic: Endpoint::new(&quic, (shard, shards), seed, started, memory),
                pipes: Pipes::default(),
            },
            clients: Clients::new(bounds, shard, shards),
            peers: Vec::new(),
            directory: Directory::new(takeover, routes),
            moves: Moves::default(),
            listeners: Listeners::default(),
            links: Links::default(),
            looks: Looks::default(),
            announced: 0,
            announce_at: started,
            claims: Claims::default(),
            fading: VecDeque::new(),
            untold: (0..shards).map(|_| Untold::default()).collect(),
            tracks,
            guests: Guests::default(),
            post,
            backlogs: (0..shards).map(|_| Backlog::default()).collect(),
            inbox: VecDeque::new(),
            route_ids: RouteIds::new(shard as u16, started),
            random: SplitMix::new(seed, shard),
            effects: Vec::new(),
            asked: VecDeque::new(),
            unread: Vec::new(),
            hearing: Hearing::default(),
            unblocked: Vec::new(),
            last_unblocked: 0,
            counters: Counters::default(),
            session_counts: Box::default(),
            timing: Box::new(Timing::new(started, shards)),
            came: Tick::default(),
            fresh: None,
            visits: Visits::default(),
            heard_at: None,
            quota: Quota::default(),
            salt: seed,
            goodbye: None,
        }
    }

    /// From here on it takes TCP connections over; returns what its ring is to watch for that.
    pub fn open_pipes(&mut self, poll: tcp::Poll) -> RawFd {
        self.conns.pipes.open(poll, self.started)
    }

    /// Whether the memory of the process is short: nobody is let in then or granted anything, and the cache
    /// shrinks.
    pub fn set_short(&mut self, is_short: bool) {
        self.conns.quic.budget().set_short(is_short);
        self.tracks.cache.set_short(is_short);
    }

    /// One lap of a shard. Each phase takes a bounded batch, so a lap has a worst case.
    pub fn turn(&mut self, now: Instant, io: &mut impl Datagrams) -> Next {
        let before = std::mem::take(&mut self.visits);
        self.counters.visits_max = self.counters.visits_max.max(before);
        self.came = Tick::new(self.started, now);
        self.hearing.begin_turn();
        self.drop_expired(now);
        let more_mail = self.take_mail(now);
        let more_datagrams = self.receive(now, io);
        self.fire_timers(now);
        self.check_sessions(now);
        self.ask_to_move(now);
        self.tell_of_fading(now);
        self.run_sessions(now);
        self.trim_cache(now);
        self.serve_tracks(now);
        self.serve_unblocked(now);
        self.follow_guests(now);
        self.announce(now);
        self.settle(now);
        // Before what takes long: other shards need not wait for that.
        let untold = self.tell_neighbours();
        self.timing.stamp(now, self.came, &mut self.post);
        let unposted = self.post.flush() == Flush::Held || untold;
        if let Some(goodbye) = self.goodbye {
            return self.say_goodbye(now, goodbye, io);
        }
        let transmitted = self.transmit(now, io);
        let is_behind = !self.unread.is_empty()
            || self.can_hear_more()
            || !self.unblocked.is_empty()
            || self.moves.is_behind()
            || self.unchecked.is_some()
            || self.drain.is_behind()
            || !self.fading.is_empty()
            || self.listeners.behind() > 0
            || self.guests.have_changed()
            || self.tracks.are_unserved();
        let unsent = transmitted == Transmitted::More;
        if more_mail || more_datagrams || is_behind || unsent {
            return Next::More;
        }
        // Nobody tells when a full socket or lane drains.
        let is_blocked = transmitted == Transmitted::Blocked;
        let retry = (is_blocked || unposted).then(|| now + RETRY_AFTER);
        let release = self.directory.journal().next_release();
        let announce = self.has_news().then_some(self.announce_at);
        let (conns, tracks) = (self.conns.next_timer(), self.tracks.next_timer());
        let (claims, looks) = (self.claims.next(), self.looks.next());
        let shrink = self.tracks.cache.next_shrink();
        let timers = [retry, conns, tracks, release, announce, claims, looks, shrink];
        timers.into_iter().flatten().min().map_or(Next::Idle, Next::Until)
    }

    /// How long the next turn may wait for company.
    pub fn pace(&self, now: Instant) -> Duration {
        let is_quiet = self.heard_at.is_none_or(|at| at + QUIET_AFTER <= now);
        if !is_quiet || self.conns.quic.handshakes() > 0 || self.goodbye.is_some() {
            return TURN_INTERVAL_MIN;
        }
        let quiet = TURN_INTERVAL_QUIET.saturating_mul(self.conns.live() as u32);
        quiet.clamp(TURN_INTERVAL_MIN, TURN_INTERVAL_QUIET_MAX)
    }

    fn take_mail(&mut self, now: Instant) -> bool {
        let mut inbox = std::mem::take(&mut self.inbox);
        let more = self.post.take(MAIL_PER_TURN, &mut inbox);
        self.visits.mail += inbox.len() as u32;
        for (from, mail) in inbox.drain(..) {
            // Whoever looks whether this shard turns is not to keep it awake.
            if !mail.is_a_look() {
                self.heard_at = Some(now);
            }
            let turn = self.came;
            self.handle_mail(now, from, mail);
            self.settle(now);
            self.came = turn;
        }
        self.inbox = inbox;
        more
    }

    fn handle_mail(&mut self, now: Instant, from: usize, mail: ToShard) {
        match mail {
            ToShard::Datagram(datagram) => self.arrived(now, datagram),
            ToShard::Route(news) => self.note_route(now, news),
            ToShard::Doubted { session } => self.doubted_elsewhere(now, from, session),
            ToShard::Settled { session } => self.doubt_is_settled(session),
            ToShard::Counted { client, by } => self.clients.changed(client, by),
            ToShard::Need { key, route, mirror, need } => {
                self.need_changed(now, &key, &route, mirror, *need);
            }
            ToShard::Fetch { key, route, mirror, fetch, ask } => {
                self.fetch_for_mirror(now, &key, &route, (mirror, fetch), ask);
            }
            ToShard::JoinFetch { mirror, fetch, asker } => {
                if let Some(slot) = self.tracks.known_home(mirror) {
                    self.mirror_joins(now, slot, (mirror, fetch), asker);
                }
            }
            ToShard::LeaveFetch { mirror, fetch } => {
                if let Some(slot) = self.tracks.known_home(mirror) {
                    self.leave_fetch(now, slot, Who::Mirror { mirror, fetch });
                }
            }
            ToShard::Detach { mirror } => self.mirror_gone(now, mirror),
            ToShard::Came(came) => self.timing.heard(from, came),
            ToShard::Fed { mirror, feeds } => {
                self.came = self.timing.came(from);
                for feed in feeds {
                    match self.tracks.slot(mirror) {
                        Some(slot) => self.feed(now, slot, feed),
                        None => self.counters.stale_mail_total += 1,
                    }
                }
            }
            ToShard::FetchFed { mirror, fetch, news } => match self.tracks.slot(mirror) {
                Some(slot) => self.fetched(now, slot, fetch, news),
                None => self.counters.stale_mail_total += 1,
            },
            ToShard::Pull { session, command } => self.pull(now, session, command),
            ToShard::Pulled { pull, feed } => {
                self.came = self.timing.came(from);
                self.pulled(now, pull, feed);
            }
            ToShard::Posted { at } => self.timing.delivered(self.came, at),
            ToShard::FetchPulled { pull, fetch, news } => {
                self.fetch_pulled(now, pull, fetch, news);
            }
            ToShard::FetchForGuest { guest, broadcast, track, group, line } => {
                self.fetch_for_guest(now, (guest, line), (broadcast, track), group);
            }
            ToShard::GuestSettles { guest } => self.guest_settles(now, guest),
            ToShard::GuestLeaves { guest } => self.guest_leaves(now, guest),
            ToShard::List { after, page } => {
                let routes = self.directory.best_after(after.as_ref());
                page.answer(
                    routes.map(|route| Announced {
                        path: route.path.clone(),
                        is_whole: route.is_whole,
                    }),
                );
            }
            ToShard::Access(access) => {
                self.access = access;
                self.unchecked = Some(0);
            }
            ToShard::Leased(leased) => self.leased(now, leased.session, leased.lease, *leased.news),
            ToShard::Knock(knock) => self.knocked(now, *knock),
            ToShard::TakeOver(newcomer) => self.take_over(now, *newcomer),
            ToShard::Report { tracks, line } => self.timing.note_asked(tracks, line),
            ToShard::Sessions { from, line } => {
                let _ = line.send(self.list_sessions(from));
            }
            ToShard::Tracks { after, line } => {
                let _ = line.send(self.list_tracks(after.as_deref()));
            }
            ToShard::Check { sessions, done } => {
                self.check_these(now, &sessions);
                let _ = done.send(());
            }
            ToShard::Kick { sessions, done } => {
                self.kick(now, &sessions);
                let _ = done.send(());
            }
            ToShard::Turn { turned } => {
                // Who has asked may have given up.
                let _ = turned.send(());
            }
            ToShard::Shared(is_shared) => self.conns.quic.share(is_shared),
            ToShard::Heir(key) => self.expect_heir(now, key),
            ToShard::DialBefore(dial, line) => self.dial_before(now, *dial, line),
            ToShard::Links(line) => self.keep_links(line),
            ToShard::Dial(dial) => self.dial(now, *dial),
            ToShard::HangUp(link) => self.hang_up(now, link),
            ToShard::Drain => self.drain.begin(),
            ToShard::Stay => self.stay(),
            ToShard::Load { line } => {
                let _ = line.send(self.conns.live());
            }
            ToShard::Count { line } => {
                // The next process stays to the end, and whom this relay has dialled: they are for its sessions.
                let sessions = self.peers.iter().enumerate().filter(|(_, peer)| peer.is_some());
                let stays = |slot| self.links.is_heir(slot) || self.links.has_dialled(slot);
                let _ = line.send(sessions.filter(|(slot, _)| !stays(*slot)).count());
            }
            ToShard::Stop => self.begin_goodbye(now),
        }
    }

    fn receive(&mut self, now: Instant, io: &mut impl Datagrams) -> bool {
        let mut batch = Vec::new();
        let more = io.receive(&mut |datagram| batch.push(datagram));
        self.visits.datagrams += batch.len() as u32;
        for datagram in batch {
            self.counters.datagrams_total += 1;
            match steer::shard_of(&datagram.data, self.shards) {
                Some(shard) if shard != self.me => {
                    self.counters.misrouted_datagrams_total += 1;
                    // Under overload a stray datagram is lost like any other.
                    if self.post.outbox_len(shard) < OUTBOX_LIVE_MAX {
                        self.post.send(shard, ToShard::Datagram(datagram));
                    }
                }
                _ => self.arrived(now, datagram),
            }
        }
        self.conns.quic.deliver(now);
        more | self.conns.pipes.receive(now)
    }

    fn make_room(&mut self, slot: usize) {
        if self.peers.len() <= slot {
            self.peers.resize_with(slot + 1, || None);
        }
    }

    fn transmit(&mut self, now: Instant, io: &mut impl Datagrams) -> Transmitted {
        let Conns { quic, pipes } = &mut self.conns;
        let by_pipes = pipes.transmit(now, quic.budget());
        match quic.transmit(now, io) {
            // Those do not wait for the UDP socket.
            Transmitted::All => by_pipes,
            transmitted if by_pipes == Transmitted::All => transmitted,
            _ => Transmitted::More,
        }
    }

    /// Has a connection and its session brought into the caches, for what is done next.
    fn prefetch(&self, slot: usize) {
        if let Some(peer) = self.peers[slot].as_deref() {
            prefetch(peer);
        }
        self.conns.prefetch(slot);
    }

    fn fire_timers(&mut self, now: Instant) {
        let mut woken = Vec::new();
        self.conns.fire_timers(now, &mut woken);
        self.visits.events += woken.len() as u32;
        for slot in woken {
            self.with_session(now, slot, |session, cx| session.timeout(cx));
            self.settle(now);
        }
        self.look_at_claims(now);
        self.look_at_refused(now);
        let due = self.tracks.take_due(now);
        self.visits.tracks += due.len() as u32;
        for track in due {
            if let Some(slot) = self.tracks.slot(track) {
                self.look_at(now, slot);
            }
        }
    }

    fn run_sessions(&mut self, now: Instant) {
        self.read_waiting(now);
        while let Some(handle) = self.conns.quic.next_with_events() {
            while let Some(event) = self.conns.quic.poll(now, handle) {
                self.heard_at = Some(now);
                self.visits.events += 1;
                self.handle_event(now, conns::of_quic(handle), event);
                self.settle(now);
            }
        }
        while let Some(index) = self.conns.pipes.next_with_events() {
            while let Some(event) = self.conns.pipes.poll(index) {
                self.heard_at = Some(now);
                self.visits.events += 1;
                self.handle_event(now, conns::of_pipe(index), conns::as_of_quic(event));
                self.settle(now);
            }
        }
    }

    fn handle_event(&mut self, now: Instant, slot: usize, event: Event) {
        match event {
            Event::Connected { alpn } => self.connected(now, slot, &alpn),
            Event::Requested(request) => self.requested(now, slot, &request),
            Event::Opened(id) => self.with_session(now, slot, |session, cx| session.opened(id, cx)),
            Event::Readable(id) => {
                self.with_session(now, slot, |session, cx| session.readable(id, cx));
            }
            Event::Writable(id) => {
                self.with_session(now, slot, |session, cx| session.writable(id, cx));
            }
            Event::Finished(id) => {
                self.with_session(now, slot, |session, cx| session.finished(id, cx));
            }
            Event::Stopped(id) => {
                self.with_session(now, slot, |session, cx| session.stopped(id, cx));
            }
            Event::Available { uni } => {
                self.with_session(now, slot, |session, cx| session.available(uni, cx));
            }
            Event::Datagram(datagram) => {
                self.with_session(now, slot, |session, cx| session.datagram(datagram, cx));
            }
            Event::Lost { reason, cause } => self.connection_lost(now, slot, &reason, cause),
        }
    }

    /// Runs a session. What it asks for waits in a queue, so that nothing it causes can happen
    /// in the middle of something else.
    fn with_session(
        &mut self,
        now: Instant,
        slot: usize,
        run: impl FnOnce(&mut Session, &mut Context<'_, Transport<'_>>),
    ) {
        let is_crowded = self.is_crowded();
        let Some(peer) = self.peers.get_mut(slot).and_then(Option::as_deref_mut) else { return };
        let Some(mut conn) = self.conns.get(slot) else { return };
        if peer.session.failure().is_some() {
            return;
        }
        let generation = conn.generation();
        let mut cx = Context {
            now,
            streams: &mut conn,
            effects: &mut self.effects,
            route_ids: &mut self.route_ids,
            arrival_ms: now.saturating_duration_since(self.started).as_millis() as u64,
            is_crowded,
            changes_left: self.hearing.changes_left,
            visits: 0,
            counts: &mut self.session_counts,
        };
        run(&mut peer.session, &mut cx);
        self.visits.messages += cx.visits;
        self.hearing.changes_left = cx.changes_left;
        conn.set_session_deadline(peer.session.deadline());
        let is_touched = conn.take_touched();
        if let Some(came) = self.fresh.filter(|_| is_touched) {
            conn.note_fresh(came);
        }
        let asked = self.effects.drain(..).map(|effect| (slot, generation, effect));
        self.asked.extend(asked);
        if let Some(reason) = peer.session.failure() {
            let reason = reason.to_owned().into();
            self.asked.push_back((slot, generation, Effect::Failed { reason }));
        }
        // A look at the link, or at a track without news, costs no transmission.
        match is_touched {
            true => self.conns.note_dirty(slot),
            false => self.conns.schedule(slot),
        }
    }

    /// Does what sessions have asked for, and what that makes others ask for.
    fn settle(&mut self, now: Instant) {
        while let Some((slot, generation, effect)) = self.next_asked() {
            self.visits.events += 1;
            if self.generation(slot) == Some(generation) {
                self.handle_effect(now, slot, generation, effect);
            }
        }
    }

    fn next_asked(&mut self) -> Option<(usize, u32, Effect)> {
        if self.claims.is_idle() { self.asked.pop_front() } else { self.next_beside_claims() }
    }

    fn generation(&mut self, slot: usize) -> Option<u32> {
        self.peers.get(slot)?.as_ref()?;
        self.conns.generation(slot)
    }

    fn handle_effect(&mut self, now: Instant, slot: usize, generation: u32, effect: Effect) {
        match effect {
            Effect::Failed { reason } => self.lost(now, slot, &reason),
            Effect::Arrived { target, role } => self.arrived_at(now, slot, target, role),
            Effect::Ready => {
                self.note_relay(slot);
                self.say_accepted(now, slot);
            }
            Effect::RouteUp(route) => self.route_up(now, slot, route),
            Effect::RouteDown { path, id } => self.route_down(now, slot, path, id),
            Effect::RoutesDown(routes) => self.routes_down(now, slot, routes),
            Effect::Leaving { to } => self.peer_leaves(now, slot, to),
            Effect::BadGoaway => self.say_bad_goaway(now, slot),
            Effect::Listening => self.note_listener(slot),
            Effect::PathTooLong { is_first } => self.note_long_path(slot, is_first),
            Effect::TooManyAnnounced { is_first } => self.note_surplus(now, slot, is_first),
            Effect::Denied { path, refusal } => {
                self.session_counts.refusals.note(refusal.name());
                self.say_refused(now, slot, path.as_str(), &refusal.to_string());
            }
            Effect::InfoWanted { key, broadcast, track } => {
                self.attach(now, slot, key, (broadcast, track), Purpose::Other);
            }
            Effect::Subscribed { key, broadcast, track } => {
                self.attach(now, slot, key, (broadcast, track), Purpose::Feed);
            }
            Effect::SubscriptionUpdated { key } => self.subscription_updated(now, slot, key),
            Effect::Left { key } => {
                let Some(track) = self.attached(slot, key) else { return };
                self.detach(slot, key);
                self.leave(now, track, slot, key);
            }
            Effect::FetchWanted { key, broadcast, track, ask } => {
                self.fetch_for_peer(now, slot, key, (broadcast, track), ask);
            }
            Effect::Unblocked { key } => self.unblocked.push((slot, generation, key)),
            Effect::Fed { pull, feed } => self.session_fed(now, slot, pull, feed),
            Effect::FetchFed { pull, fetch, news } => {
                self.session_fetched(now, slot, pull, fetch, news);
            }
            Effect::Unread { stream } => {
                self.unread.push((slot, generation, stream));
            }
            Effect::Unheard { stream } => {
                self.hearing.wait_for_room((slot, generation, stream));
            }
            Effect::HeardEnough { stream } => {
                self.hearing.wait((slot, generation, stream));
            }
        }
    }
}
