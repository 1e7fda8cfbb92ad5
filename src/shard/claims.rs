//! Paths that a session announces, and somebody else claims who may be the same publisher: it is back, and
//! the old session is dead and nobody has noticed. The old one is asked for a sign of life by its shard. If
//! none comes, its routes are the last choice until it says something again or is lost. What is asked of
//! such a path meanwhile waits, on every shard, for a round trip or so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::message::ToShard;
use super::routes::RouteChange;
use super::{Peer, Shard};
use crate::limits::{CLAIM_GRACE_MAX, CLAIM_GRACE_MIN, CLAIM_LOOK};
use crate::route::{Route, SessionRef, Takeover};
use crate::session::Effect;
use crate::session::streams::Streams;
use crate::wire::Path;

/// A session that has been asked for a sign of life.
pub(super) struct Doubt {
    since: Instant,
    until: Instant,
    /// None has come in time.
    is_silent: bool,
}

/// What waits here for what becomes of claims.
#[derive(Default)]
pub(super) struct Claims {
    /// Claimed paths, with the sessions that have them, and when no more is to be expected.
    held: BTreeMap<Path, (SessionRef, Instant)>,
    /// The same in order of time, and by session.
    until: BTreeSet<(Instant, Path)>,
    of_session: BTreeSet<(SessionRef, Path)>,
    /// Requests for what is below them, by connection slot and generation; and those that wait no more.
    waiting: VecDeque<(usize, u32, Effect)>,
    ready: VecDeque<(usize, u32, Effect)>,
    /// When to look at a session here again, by connection slot and generation.
    looks: BTreeSet<(Instant, usize, u32)>,
}

impl Claims {
    pub fn next(&self) -> Option<Instant> {
        let until = self.until.first().map(|(at, _)| *at);
        until.into_iter().chain(self.looks.first().map(|(at, ..)| *at)).min()
    }

    /// Whether nothing waits, and nothing has to.
    pub fn is_idle(&self) -> bool {
        self.held.is_empty() && self.ready.is_empty()
    }

    fn doubts(&self, route: &Route) -> bool {
        self.held.get(&route.path).is_some_and(|(session, _)| *session == route.session)
    }

    /// Whether that is new. Claims that follow change nothing: what becomes of the first one settles them too.
    fn hold(&mut self, path: &Path, session: SessionRef, until: Instant) -> bool {
        if self.held.get(path).is_some_and(|(held, _)| *held == session) {
            return false;
        }
        self.release(path);
        self.held.insert(path.clone(), (session, until));
        self.until.insert((until, path.clone()));
        self.of_session.insert((session, path.clone()));
        true
    }

    fn release(&mut self, path: &Path) {
        if let Some((session, until)) = self.held.remove(path) {
            self.until.remove(&(until, path.clone()));
            self.of_session.remove(&(session, path.clone()));
        }
    }

    fn release_session(&mut self, session: SessionRef) {
        let from = (session, Path::default());
        while let Some((_, path)) =
            self.of_session.range(&from..).next().filter(|(of, _)| *of == session).cloned()
        {
            self.release(&path);
        }
    }
}

impl Shard {
    /// Somebody claims a path that has been announced before.
    pub(super) fn note_claim(&mut self, now: Instant, claim: &Route) {
        // Where the first one keeps the path, the others do not matter.
        let most = if self.policy.takeover == Takeover::Refused { 1 } else { usize::MAX };
        let held = self.directory.at(&claim.path).take(most).map(|entry| &entry.route);
        let doubted = held.filter(|held| claim.may_return(held) && !held.is_silent);
        let doubted = doubted.map(|held| (held.session, claim.is_another_way(held)));
        for (session, is_another_way) in doubted.collect::<Vec<_>>() {
            // A way that is there beside another one is most likely no sign that the other is dead.
            let is_new = self.policy.takeover == Takeover::Refused
                && !is_another_way
                && self.claims.hold(&claim.path, session, now + 2 * CLAIM_GRACE_MAX);
            let slot = session.slot as usize;
            if usize::from(session.shard) != self.me {
                // It may have settled that before the claim has come here: nothing would end the hold.
                if is_new {
                    self.post.send(usize::from(session.shard), ToShard::Doubted { session });
                }
            } else if self.generation(slot) == Some(session.generation) {
                self.doubt(now, slot);
            }
        }
    }

    /// The routes of a path have changed. Who has it now, and did not before, may be as dead as who had it,
    /// where somebody waits who may be the same.
    pub(super) fn note_heir(&mut self, now: Instant, path: &Path, before: Option<SessionRef>) {
        let mut routes = self.directory.at(path).map(|entry| &entry.route);
        let Some(heir) = routes.next() else { return };
        if before.is_none_or(|before| before == heir.session) {
            return;
        }
        let claim = routes.find(|route| route.may_return(heir) && !route.is_silent).cloned();
        drop(routes);
        if let Some(claim) = claim {
            self.note_claim(now, &claim);
        }
    }

    /// What is next to be done for sessions: a request waits until it is clear whose the path is, and once only.
    pub(super) fn next_beside_claims(&mut self) -> Option<(usize, u32, Effect)> {
        if let Some(ready) = self.claims.ready.pop_front() {
            return Some(ready);
        }
        while let Some(asked) = self.asked.pop_front() {
            if !self.has_to_wait(&asked) {
                return Some(asked);
            }
            self.claims.waiting.push_back(asked);
        }
        None
    }

    fn has_to_wait(&self, (slot, _, effect): &(usize, u32, Effect)) -> bool {
        let (Effect::InfoWanted { broadcast, .. }
        | Effect::Subscribed { broadcast, .. }
        | Effect::FetchWanted { broadcast, .. }) = effect
        else {
            return false;
        };
        let identity = self.peers[*slot].as_ref().map(|peer| peer.session.identity());
        let route = identity.and_then(|identity| self.directory.resolve(broadcast, identity));
        route.is_some_and(|route| self.claims.doubts(route))
    }

    fn doubt(&mut self, now: Instant, slot: usize) {
        let (Some(peer), Some(mut conn)) = (&mut self.peers[slot], self.conns.get(slot)) else {
            return;
        };
        if peer.doubt.is_some() {
            return;
        }
        let grace = (3 * conn.rtt()).clamp(CLAIM_GRACE_MIN, CLAIM_GRACE_MAX);
        peer.doubt = Some(Doubt { since: now, until: now + grace, is_silent: false });
        self.claims.looks.insert((now + CLAIM_LOOK, slot, conn.generation()));
        conn.ping();
        self.conns.note_dirty(slot);
    }

    /// Looks at doubted sessions.
    pub(super) fn look_at_claims(&mut self, now: Instant) {
        while let Some(&(at, slot, generation)) = self.claims.looks.first()
            && at <= now
        {
            self.claims.looks.pop_first();
            if self.generation(slot) == Some(generation) {
                self.look_at_doubted(now, slot, generation);
            }
        }
        while let Some((until, path)) = self.claims.until.first().cloned()
            && until <= now
        {
            self.claims.release(&path);
            self.claims.ready.append(&mut self.claims.waiting);
        }
        self.settle(now);
    }

    /// Another shard holds what asks for a session here, until it hears what becomes of that.
    pub(super) fn doubted_elsewhere(&mut self, now: Instant, shard: usize, session: SessionRef) {
        let slot = session.slot as usize;
        if self.generation(slot) == Some(session.generation) {
            self.doubt(now, slot);
            let peer = self.peers[slot].as_deref();
            if peer.and_then(|peer| peer.doubt.as_ref()).is_some_and(|doubt| !doubt.is_silent) {
                return;
            }
        }
        self.post.send(shard, ToShard::Settled { session });
    }

    fn look_at_doubted(&mut self, now: Instant, slot: usize, generation: u32) {
        let heard_at = self.conns.get(slot).map(|conn| conn.heard_at());
        let Some(Peer { doubt: Some(doubt), .. }) = self.peers[slot].as_deref_mut() else { return };
        if heard_at > Some(doubt.since) {
            return self.believe(now, slot);
        }
        if !doubt.is_silent && doubt.until <= now {
            doubt.is_silent = true;
            let remote = self.conns.get(slot).map(|conn| conn.remote());
            let remote = remote.map(tracing::field::display);
            tracing::info!(
                shard = self.me,
                conn = slot,
                remote,
                "silent; who claims its paths has them"
            );
            self.change_routes(now, slot, RouteChange::FallsSilent);
            self.tell_of_doubted(slot, generation);
        }
        self.claims.looks.insert((now + CLAIM_LOOK, slot, generation));
    }

    /// A session lives that was doubted: it has what it had before.
    pub(super) fn believe(&mut self, now: Instant, slot: usize) {
        let Some(doubt) = self.peers[slot].as_mut().and_then(|peer| peer.doubt.take()) else {
            return;
        };
        if doubt.is_silent {
            self.change_routes(now, slot, RouteChange::Answers);
        } else if let Some(generation) = self.generation(slot) {
            self.tell_of_doubted(slot, generation);
        }
    }

    /// It is clear what a session is: every shard goes on with what waits for that. News of routes is told
    /// before.
    pub(super) fn tell_of_doubted(&mut self, slot: usize, generation: u32) {
        let session = SessionRef { shard: self.me as u16, slot: slot as u32, generation };
        for shard in (0..self.shards).filter(|shard| *shard != self.me) {
            self.post.send(shard, ToShard::Settled { session });
        }
        self.doubt_is_settled(session);
    }

    pub(super) fn doubt_is_settled(&mut self, session: SessionRef) {
        self.claims.release_session(session);
        self.claims.ready.append(&mut self.claims.waiting);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_path_is_held_once_however_often_it_is_claimed() {
        let now = Instant::now();
        let path = |text: &str| Path::parse(text).expect("a path");
        let session = |slot| SessionRef { shard: 0, slot, generation: 0 };
        let at = |second| now + Duration::from_secs(second);
        let mut claims = Claims::default();
        for second in 0..100 {
            assert_eq!(claims.hold(&path("a"), session(1), at(second)), second == 0);
        }
        assert!(claims.hold(&path("b"), session(2), at(50)));
        assert_eq!((claims.until.len(), claims.of_session.len()), (2, 2));
        assert_eq!(claims.next(), Some(at(0)));
        assert!(claims.hold(&path("a"), session(3), at(60)), "it has another owner");
        assert_eq!(claims.next(), Some(at(50)));
        claims.hold(&path("c"), session(1), at(3));
        claims.hold(&path("d"), session(1), at(4));
        claims.release_session(session(1));
        assert_eq!(claims.next(), Some(at(50)));
        claims.release(&path("b"));
        claims.release_session(session(3));
        assert!(claims.is_idle() && claims.until.is_empty() && claims.of_session.is_empty());
    }
}
