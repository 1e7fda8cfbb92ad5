//! Learning what the peer publishes (spec §4.3).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, BytesMut};
use rustc_hash::FxHashMap;

use super::counts::Class;
use super::streams::{ReadEnd, StreamId, Streams};
use super::{Context, Effect, Session, Step, Stream, Use};
use crate::access::Refusal;
use crate::limits::{
    ANNOUNCED_BYTES, ANNOUNCED_BYTES_PER_PEER_MAX, ANNOUNCED_BYTES_PER_RELAY_MAX,
    ANNOUNCED_PATH_BYTES_MAX, ANNOUNCEMENTS_PER_PEER_MAX, ANNOUNCEMENTS_PER_RELAY_MAX,
    ROUTE_CHANGE_PATH_BYTES, ROUTE_CHANGES_BURST, ROUTE_CHANGES_PER_S,
    ROUTE_CHANGES_PER_S_OF_RELAY, SESSION_HOLDS_RETRY,
};
use crate::route::{Route, RouteId, Trust};
use crate::secret::Kind;
use crate::wire::{
    Announce, AnnounceInit, AnnounceOk, AnnounceRequest, BidiType, Cost, DecodeError, Hops, Path,
    SessionCode, Version, encode_varint,
};

/// Unique numbers for routes, ascending with time so that the newest announcement can be told.
#[derive(Debug)]
pub struct RouteIds {
    last: u64,
    shard: u16,
    started: Instant,
}

impl RouteIds {
    pub fn new(shard: u16, started: Instant) -> RouteIds {
        RouteIds { last: 0, shard, started }
    }

    fn next(&mut self, now: Instant) -> RouteId {
        let micros = now.saturating_duration_since(self.started).as_micros() as u64;
        self.last = micros.max(self.last + 1);
        RouteId(self.last << 8 | u64::from(self.shard))
    }
}

/// One Announce stream that we opened towards the peer.
#[derive(Debug, Default)]
pub(super) struct AnnounceSource {
    /// Absolute.
    prefix: Path,
    /// What comes before all announcements is here: ANNOUNCE_OK (lite-05 and newer) or
    /// ANNOUNCE_INIT (lite-01 and 02).
    has_begun: bool,
    /// The responder's hop, where ANNOUNCE_OK has named it.
    responder: Option<u64>,
    /// What the peer has live on this stream, by suffix; with its route, unless that was dropped.
    live: BTreeMap<Path, Option<(RouteId, Path)>>,
    /// The suffix of each live announcement id (lite-06).
    ids: FxHashMap<u64, Path>,
    next_id: u64,
    /// More was announced than a peer may have. Nothing is known of the surplus, its ids are taken for ended ones.
    has_surplus: bool,
    /// What was live on the stream that this one is in the place of, until it is announced here, or all is that is live.
    past: BTreeMap<Path, Option<(RouteId, Path)>>,
    /// How much of that is still to come, where it is known.
    initial: u64,
}

/// What a peer may announce.
struct Bounds {
    live: usize,
    live_bytes: usize,
    changes_burst: usize,
    changes_per_s: f64,
}

impl Bounds {
    fn of(trust: Trust) -> Bounds {
        match trust {
            Trust::Relay => Bounds {
                live: ANNOUNCEMENTS_PER_RELAY_MAX,
                live_bytes: ANNOUNCED_BYTES_PER_RELAY_MAX,
                changes_burst: 2 * ANNOUNCEMENTS_PER_RELAY_MAX,
                changes_per_s: ROUTE_CHANGES_PER_S_OF_RELAY,
            },
            Trust::Stranger { .. } => Bounds {
                live: ANNOUNCEMENTS_PER_PEER_MAX,
                live_bytes: ANNOUNCED_BYTES_PER_PEER_MAX,
                changes_burst: ROUTE_CHANGES_BURST,
                changes_per_s: ROUTE_CHANGES_PER_S,
            },
        }
    }
}

impl AnnounceSource {
    fn know(&mut self, version: Version, id: u64, suffix: &Path) {
        if version >= Version::Lite06 {
            self.ids.insert(id, suffix.clone());
        }
    }

    /// What an announcement's whole path takes, more or less a slash.
    fn path_len(&self, suffix: &Path) -> usize {
        self.prefix.as_str().len() + suffix.as_str().len()
    }
}

impl Session {
    /// Opens an Announce stream for every prefix that the peer may publish under, as far as it
    /// grants streams.
    pub(super) fn ask_for_announcements<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        while let Some(prefix) = self.unasked.pop() {
            let Some(id) = cx.streams.open_bidi() else {
                self.unasked.push(prefix);
                return;
            };
            self.ask_on(id, AnnounceSource { prefix, ..AnnounceSource::default() }, cx);
        }
    }

    fn ask_on<S: Streams>(
        &mut self,
        id: StreamId,
        mut source: AnnounceSource,
        cx: &mut Context<'_, S>,
    ) {
        let relative = source.prefix.strip_prefix(self.root()).unwrap_or_default();
        // Hop ids stay below 2^53, so ours can be left out by lite-04 and 05 peers.
        let request = AnnounceRequest { prefix: relative, exclude_hop: self.policy.hop };
        let mut bytes = Vec::new();
        encode_varint(BidiType::Announce as u64, &mut bytes);
        request.encode(self.version, &mut bytes);
        // Only there announcements come without a word before them.
        source.has_begun = matches!(self.version, Version::Lite03 | Version::Lite04);
        let stream =
            Stream { purpose: Use::AnnounceSource(Box::new(source)), buf: BytesMut::new() };
        self.inputs.insert(id, stream);
        self.send(Class::Announce, id, &bytes, false, cx);
    }

    /// Has the peer announce anew what it has live, for there is room again for what found none. What is known goes on;
    /// what is not announced again is over. Before lite-05 nobody says when that is all, and nothing is asked for. False
    /// while the peer grants no stream.
    pub fn ask_again<S: Streams>(&mut self, cx: &mut Context<'_, S>) -> bool {
        if self.version < Version::Lite05 || self.failure.is_some() || self.is_leaving {
            return true;
        }
        let is_known = |stream: &Stream| {
            let Use::AnnounceSource(source) = &stream.purpose else { return false };
            source.has_begun && source.initial == 0
        };
        let known = self.inputs.iter().filter(|(_, stream)| is_known(stream)).map(|(id, _)| *id);
        for id in known.collect::<Vec<_>>() {
            let Some(fresh) = cx.streams.open_bidi() else { return false };
            let stream = self.inputs.get_mut(&id).map(|stream| &mut stream.purpose);
            let Some(Use::AnnounceSource(source)) = stream else { continue };
            let AnnounceSource { prefix, live: past, .. } = std::mem::take(&mut **source);
            self.finish(id, cx);
            self.drain_input(id);
            self.ask_on(fresh, AnnounceSource { prefix, past, ..AnnounceSource::default() }, cx);
        }
        true
    }

    /// Whether the peer may announce something more.
    pub fn may_announce_more(&self) -> bool {
        let Bounds { live, live_bytes, .. } = Bounds::of(self.trust);
        self.announcements < live && self.announced_bytes < live_bytes
    }

    /// Whether an announce stream may be read on; else it is when the peer may bring changes again, and what it
    /// has announced has room.
    pub(super) fn may_hear<S: Streams>(&mut self, id: StreamId, cx: &mut Context<'_, S>) -> bool {
        if !self.has_room_for(self.announced_takes(), cx) {
            self.hear_later(id, cx.now + SESSION_HOLDS_RETRY);
            return false;
        }
        let Bounds { changes_per_s, changes_burst, .. } = Bounds::of(self.trust);
        if self.hearing.fill(changes_per_s, changes_burst as f64, cx.now) > 0.0 {
            return true;
        }
        self.hear_later(id, self.hearing.has_at(1.0, changes_per_s, cx.now));
        false
    }

    /// Reads a stream on at a time.
    pub(super) fn hear_later(&mut self, id: StreamId, at: Instant) {
        self.leave_unheard(id);
        self.hearing_deadline = Some(self.hearing_deadline.map_or(at, |before| before.min(at)));
    }

    /// Reads a stream on when others are.
    pub(super) fn leave_unheard(&mut self, id: StreamId) {
        self.unheard.insert(id);
    }

    /// Reads on what was not read before, in turns; where one has to wait for memory again the others would too.
    pub(super) fn hear<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        for _ in 0..self.unheard.len() {
            let after = (Bound::Excluded(self.heard), Bound::Unbounded);
            let next = self.unheard.range(after).next().or(self.unheard.first());
            let Some(&id) = next else { return };
            self.heard = id;
            self.unheard.remove(&id);
            self.readable(id, cx);
            let is_soon = |at: &Instant| *at <= cx.now + SESSION_HOLDS_RETRY;
            if self.unheard.contains(&id) && self.hearing_deadline.as_ref().is_some_and(is_soon) {
                return;
            }
        }
    }

    /// What the announcements of the peer take here.
    pub(super) fn announced_takes(&self) -> u64 {
        self.announcements as u64 * ANNOUNCED_BYTES + 2 * self.announced_bytes as u64
    }

    pub(super) fn hearing_timeout<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        if self.hearing_deadline.is_some_and(|deadline| deadline <= cx.now) {
            self.hearing_deadline = None;
            self.hear(cx);
        }
    }

    pub(super) fn take_announcement<S: Streams>(
        &mut self,
        source: &mut AnnounceSource,
        buf: &mut BytesMut,
        cx: &mut Context<'_, S>,
    ) -> Step {
        match self.take_one(source, buf, cx) {
            Ok(Some(used)) => {
                buf.advance(used);
                Step::Again
            }
            Ok(None) => Step::Wait,
            Err(_) => {
                self.fail(SessionCode::PROTOCOL_VIOLATION, "malformed announcement", cx);
                Step::Forget
            }
        }
    }

    /// Handles what is at the front of the buffer, and gives its length.
    fn take_one<S: Streams>(
        &mut self,
        source: &mut AnnounceSource,
        buf: &[u8],
        cx: &mut Context<'_, S>,
    ) -> Result<Option<usize>, DecodeError> {
        if source.has_begun {
            let Some((announce, used)) = Announce::take(self.version, buf)? else {
                return Ok(None);
            };
            self.announced(source, announce, cx);
            return Ok(Some(used));
        }
        if self.version >= Version::Lite05 {
            let Some((ok, used)) = AnnounceOk::take(buf)? else { return Ok(None) };
            source.has_begun = true;
            source.responder = Some(ok.hop);
            source.initial = ok.active;
            if source.initial == 0 {
                self.end_past(source, cx);
            }
            return Ok(Some(used));
        }
        let Some((init, used)) = AnnounceInit::take(buf)? else { return Ok(None) };
        source.has_begun = true;
        for suffix in init.suffixes {
            if self.failure.is_none() {
                let (hops, cost) = (Hops::new(), Cost::ZERO);
                self.announced(source, Announce::Start { suffix, hops, cost }, cx);
            }
        }
        Ok(Some(used))
    }

    fn announced<S: Streams>(
        &mut self,
        source: &mut AnnounceSource,
        announce: Announce,
        cx: &mut Context<'_, S>,
    ) {
        let path_len = match &announce {
            Announce::Start { suffix, .. }
            | Announce::Restart05 { suffix, .. }
            | Announce::Ended { suffix } => source.path_len(suffix),
            Announce::Restart { id, .. } | Announce::End { id } => {
                source.ids.get(id).map_or(0, |suffix| source.path_len(suffix))
            }
            Announce::Unknown => 0,
        };
        // What is longer leads nowhere.
        let path_len = path_len.min(ANNOUNCED_PATH_BYTES_MAX);
        self.hearing.take((1 + path_len / ROUTE_CHANGE_PATH_BYTES) as f64);
        if self.trust != Trust::Relay {
            cx.changes_left = cx.changes_left.saturating_sub(1);
        }
        match announce {
            Announce::Start { suffix, hops, cost } => {
                let id = source.next_id;
                source.next_id += 1;
                if let Some(known) = source.past.remove(&suffix) {
                    source.know(self.version, id, &suffix);
                    source.live.insert(suffix.clone(), known);
                    self.restart_route(source, suffix, hops, cost, cx);
                } else if !source.live.contains_key(&suffix) {
                    self.start_route(source, id, suffix, hops, cost, cx);
                } else if self.version == Version::Lite05 {
                    self.restart_route(source, suffix, hops, cost, cx);
                } else {
                    self.fail(SessionCode::PROTOCOL_VIOLATION, "path announced twice", cx);
                }
                if source.initial > 0 {
                    source.initial -= 1;
                    if source.initial == 0 {
                        self.end_past(source, cx);
                    }
                }
            }
            Announce::Restart05 { suffix, hops } if source.live.contains_key(&suffix) => {
                self.restart_route(source, suffix, hops, Cost::ZERO, cx);
            }
            Announce::Restart05 { suffix, hops } => {
                let id = source.next_id;
                self.start_route(source, id, suffix, hops, Cost::ZERO, cx);
            }
            Announce::Restart { id, hops, cost } => match source.ids.get(&id).cloned() {
                Some(suffix) => self.restart_route(source, suffix, hops, cost, cx),
                None => self.look_if_surplus(source, id, cx),
            },
            Announce::End { id } => match source.ids.remove(&id) {
                Some(suffix) => self.end_route(source, &suffix, cx),
                None => self.look_if_surplus(source, id, cx),
            },
            Announce::Ended { suffix } => self.end_route(source, &suffix, cx),
            Announce::Unknown => {}
        }
    }

    fn start_route<S: Streams>(
        &mut self,
        source: &mut AnnounceSource,
        announce_id: u64,
        suffix: Path,
        hops: Hops,
        cost: Cost,
        cx: &mut Context<'_, S>,
    ) {
        let Bounds { live, live_bytes, .. } = Bounds::of(self.trust);
        let announced_bytes = self.announced_bytes + source.path_len(&suffix);
        if self.announcements >= live || announced_bytes > live_bytes {
            source.has_surplus = true;
            let is_first = !std::mem::replace(&mut self.has_surplus, true);
            cx.effects.push(Effect::TooManyAnnounced { is_first });
            return;
        }
        self.announcements += 1;
        self.announced_bytes = announced_bytes;
        cx.counts.received.announces_started += 1;
        source.know(self.version, announce_id, &suffix);
        let id = cx.route_ids.next(cx.now);
        if self.is_too_long(source, &suffix) {
            let is_first = !std::mem::replace(&mut self.has_long_path, true);
            cx.effects.push(Effect::PathTooLong { is_first });
        }
        self.look_if_denied(source, &suffix, cx);
        self.look_if_reflected(&hops, cx);
        let route = self.route(source, id, &suffix, hops, cost);
        source.live.insert(suffix, route.as_ref().map(|route| (id, route.path.clone())));
        cx.effects.extend(route.map(|route| Effect::RouteUp(Arc::new(route))));
    }

    /// What was live before is announced anew, or is over.
    fn end_past<S: Streams>(&mut self, source: &mut AnnounceSource, cx: &mut Context<'_, S>) {
        let past = std::mem::take(&mut source.past);
        if !past.is_empty() {
            let routes = self.forget_routes(source, past, cx);
            cx.effects.push(Effect::RoutesDown(routes));
        }
    }

    fn forget_routes<S: Streams>(
        &mut self,
        source: &AnnounceSource,
        live: BTreeMap<Path, Option<(RouteId, Path)>>,
        cx: &mut Context<'_, S>,
    ) -> Vec<(RouteId, Path)> {
        cx.counts.received.announces_ended += live.len() as u64;
        self.announcements -= live.len();
        for suffix in live.keys() {
            self.announced_bytes -= source.path_len(suffix);
        }
        live.into_values().flatten().collect()
    }

    /// A live announcement goes on with another chain or cost. Its place in the order of
    /// announcement stays.
    fn restart_route<S: Streams>(
        &mut self,
        source: &mut AnnounceSource,
        suffix: Path,
        hops: Hops,
        cost: Cost,
        cx: &mut Context<'_, S>,
    ) {
        self.look_if_reflected(&hops, cx);
        let before = source.live.get(&suffix).cloned().flatten();
        let id = match &before {
            Some((id, _)) => *id,
            None => cx.route_ids.next(cx.now),
        };
        let route = self.route(source, id, &suffix, hops, cost);
        match (before, &route) {
            (Some((id, path)), None) => cx.effects.push(Effect::RouteDown { path, id }),
            (None, None) => return,
            (_, Some(route)) => cx.effects.push(Effect::RouteUp(Arc::new(route.clone()))),
        }
        source.live.insert(suffix, route.map(|route| (id, route.path)));
    }

    fn end_route<S: Streams>(
        &mut self,
        source: &mut AnnounceSource,
        suffix: &Path,
        cx: &mut Context<'_, S>,
    ) {
        if let Some(route) = source.live.remove(suffix) {
            self.announcements -= 1;
            cx.counts.received.announces_ended += 1;
            self.announced_bytes -= source.path_len(suffix);
            cx.effects.extend(route.map(|(id, path)| Effect::RouteDown { path, id }));
        }
    }

    /// Of what led nowhere from the start nothing is known.
    fn look_if_surplus<S: Streams>(
        &mut self,
        source: &AnnounceSource,
        id: u64,
        cx: &mut Context<'_, S>,
    ) {
        if !source.has_surplus || id >= source.next_id {
            self.fail(SessionCode::PROTOCOL_VIOLATION, "unknown announce id", cx);
        }
    }

    /// A publisher is not told that it may not, so whoever runs the relay is, once.
    fn look_if_denied<S: Streams>(
        &mut self,
        source: &AnnounceSource,
        suffix: &Path,
        cx: &mut Context<'_, S>,
    ) {
        let Ok(path) = source.prefix.join(suffix) else { return };
        if !self.has_overstepped.by_publishing && !self.pass.admission.grant.may_publish(&path) {
            self.has_overstepped.by_publishing = true;
            cx.effects.push(Effect::Denied { path, refusal: Refusal::PublishesOutside });
        }
    }

    fn look_if_reflected<S: Streams>(&self, hops: &Hops, cx: &mut Context<'_, S>) {
        cx.counts.announces_reflected += u64::from(hops.contains(self.policy.hop));
    }

    fn is_too_long(&self, source: &AnnounceSource, suffix: &Path) -> bool {
        source.path_len(suffix) > ANNOUNCED_PATH_BYTES_MAX
    }

    /// The route that an announcement makes, or None where it is recorded but leads nowhere:
    /// reflections, chains without room, paths that are too long or that this peer may not publish.
    fn route(
        &self,
        source: &AnnounceSource,
        id: RouteId,
        suffix: &Path,
        mut hops: Hops,
        cost: Cost,
    ) -> Option<Route> {
        if let Some(responder) = source.responder {
            // Refuses a chain that has passed the responder before, or that is full.
            hops.push(responder).ok()?;
        }
        if hops.contains(self.policy.hop) {
            return None;
        }
        let origin = self.origin(&mut hops)?;
        // lite-01 and 02 do not say how many there were.
        if self.version >= Version::Lite03 && hops.len() > self.policy.max_hops {
            return None;
        }
        let path = source.prefix.join(suffix).ok()?;
        if self.is_too_long(source, suffix) || !self.pass.admission.grant.may_publish(&path) {
            return None;
        }
        let cost = match self.version {
            _ if self.is_leaving => Cost::MAX,
            Version::Lite06 => cost.saturating_add(self.price),
            _ => Cost::UNPRICED,
        };
        let mut route = Route {
            id,
            is_whole: self.pass.admission.grant.may_publish_all_below(&path),
            is_linked: false,
            path,
            hops,
            origin,
            trust: self.trust,
            cost,
            via: self.identity,
            session: self.me,
            version: self.version,
            is_silent: false,
        };
        // One that is believed for its address may be a publisher as well.
        let is_relay = self.pass.admission.is_relay || route.is_passed_on();
        route.is_linked = is_relay && self.version >= Version::Lite05;
        Some(route)
    }

    /// What a broadcast that came over this chain is known by. Whoever claims to be somebody else, or to
    /// pass on what somebody else publishes, gets a first hop of our own for it, unless it is a relay: what
    /// is said of one publisher by some stranger is never taken for what it says itself.
    fn origin(&self, hops: &mut Hops) -> Option<u64> {
        // A publisher without a name gets one, so that its broadcasts can be told apart.
        if hops.is_empty() {
            hops.push(0).ok()?;
        }
        let first = hops.first().filter(|first| *first != 0);
        let Some(first) = first else {
            hops.insert_front(self.stamp).ok()?;
            return Some(self.stamp);
        };
        let Trust::Stranger { at } = self.trust else { return Some(first) };
        let is_named = self.version < Version::Lite05 || self.identity == first;
        if hops.len() == 1 && is_named {
            return Some(self.policy.secret.of_hop(Kind::Own, at, first));
        }
        let ours = self.policy.secret.of_hop(Kind::PassedOn, at, first);
        hops.replace_first(ours).ok()?;
        Some(ours)
    }

    pub(super) fn source_ended<S: Streams>(
        &mut self,
        id: StreamId,
        mut source: AnnounceSource,
        buf: &[u8],
        end: ReadEnd,
        cx: &mut Context<'_, S>,
    ) {
        if end != ReadEnd::Finished || !buf.is_empty() {
            return self.fail(SessionCode::PROTOCOL_VIOLATION, "announce stream broke off", cx);
        }
        // This prefix is over, the session is not.
        let all = [std::mem::take(&mut source.live), std::mem::take(&mut source.past)];
        let routes =
            all.into_iter().flat_map(|live| self.forget_routes(&source, live, cx)).collect();
        cx.effects.push(Effect::RoutesDown(routes));
        self.finish(id, cx);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Policy;
    use super::super::fake::Play;
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn a_chain_that_is_longer_than_allowed_leads_nowhere() {
        let taken = |version, hops: &[u64]| {
            let mut play = Play::speaking(version);
            let policy = Policy { max_hops: 3, ..Policy::open(7, Secret::new(&[4; 32])) };
            play.session.policy = Arc::new(policy);
            let responder = (version >= Version::Lite05).then_some(90);
            let source = AnnounceSource { responder, ..AnnounceSource::default() };
            let (suffix, hops) = (Path::parse("a").unwrap(), Hops::from_slice(hops).unwrap());
            play.session
                .route(&source, RouteId(1), &suffix, hops, Cost::ZERO)
                .map(|route| route.hops)
        };
        let hops = |hops: &[u64]| Some(Hops::from_slice(hops).unwrap());
        assert_eq!(taken(Version::Lite06, &[3, 9]), hops(&[3, 9, 90]));
        assert_eq!(taken(Version::Lite06, &[3, 9, 10]), None);
        assert_eq!(taken(Version::Lite04, &[3, 9, 10]), hops(&[3, 9, 10]));
        assert_eq!(taken(Version::Lite04, &[3, 9, 10, 11]), None);
        // Those do not say how many there were.
        assert!(taken(Version::Lite02, &[3, 9, 10, 11]).is_some());
    }

    #[test]
    fn where_one_stream_has_to_wait_the_others_are_not_looked_at_and_each_has_its_turn() {
        let mut play = Play::speaking(Version::Lite06);
        play.session.is_ready = true;
        play.session.hearing.fill(1.0, 1.0, play.now);
        play.session.hearing.take(1.5);
        for id in [4, 8, 12] {
            let purpose = Use::AnnounceSource(Box::default());
            play.session.inputs.insert(StreamId(id), Stream { purpose, buf: BytesMut::new() });
            play.session.leave_unheard(StreamId(id));
        }
        let mut looked_at = Vec::new();
        for _ in 0..4 {
            play.session.hearing_deadline = None;
            play.with(|session, cx| session.hear(cx));
            looked_at.push(play.session.heard.0);
        }
        assert_eq!(looked_at, [4, 8, 12, 4]);
        assert_eq!(play.session.unheard.len(), 3);
    }
}
