//! What tracks want of the publishers' sessions on this shard, and what those bring, on its way between session
//! and home, wherever that is.

use std::time::Instant;

use super::Shard;
use super::message::ToShard;
use super::names::Owner;
use crate::limits::OUTBOX_FETCH_MAX;
use crate::route::SessionRef;
use crate::track::fetch::FetchId;
use crate::track::serve::PullCommand;
use crate::track::{Feed, Fetched, PullRef};
use crate::wire::StreamCode;

impl Shard {
    /// A home's command for a session of this shard.
    pub(super) fn pull(&mut self, now: Instant, session: SessionRef, command: PullCommand) {
        let slot = session.slot as usize;
        let is_current = self.generation(slot) == Some(session.generation);
        let peer = self.peers.get(slot).and_then(Option::as_ref);
        if is_current && peer.is_some_and(|peer| peer.session.failure().is_none()) {
            if let PullCommand::Release { pull } = &command
                && let Some(peer) = &mut self.peers[slot]
            {
                peer.skips.remove(pull);
            }
            self.with_session(now, slot, |session, cx| session.pull(command, cx));
        } else if let PullCommand::Ask { pull, .. } = command {
            self.counters.stale_mail_total += 1;
            self.post_pulled(now, pull, Feed::Failed(StreamCode::SESSION_CLOSED));
        }
    }

    /// News of a track from its publisher's session on this shard.
    pub(super) fn session_fed(&mut self, now: Instant, slot: usize, pull: PullRef, feed: Feed) {
        let home = usize::from(pull.track.shard);
        let feed = match home == self.me {
            true => self.peers[slot].is_some().then_some(feed),
            false => self.admitted(slot, pull, feed),
        };
        if let Some(feed) = feed {
            self.post_pulled(now, pull, feed);
        }
    }

    /// What of that a home on another shard is sent, as far as it keeps up.
    fn admitted(&mut self, slot: usize, pull: PullRef, feed: Feed) -> Option<Feed> {
        // Its connection may be gone already.
        let generation = self.generation(slot).unwrap_or_default();
        let session = SessionRef { shard: self.me as u16, slot: slot as u32, generation };
        let peer = self.peers[slot].as_mut()?;
        let owner = Owner::of(peer.session.trust(), session);
        let home = usize::from(pull.track.shard);
        let waiting = self.post.outbox_len(home);
        let is_over = feed.is_over();
        let (skips, backlog) = (peer.skips.entry(pull).or_default(), &mut self.backlogs[home]);
        let admitted = skips.admit(feed, owner, backlog, waiting, &mut self.counters);
        if is_over {
            peer.skips.remove(&pull);
        }
        admitted
    }

    /// News of a group that a session on this shard fetches. A home that does not keep up is
    /// spared it: live groups go first.
    pub(super) fn session_fetched(
        &mut self,
        now: Instant,
        slot: usize,
        pull: PullRef,
        fetch: FetchId,
        news: Fetched,
    ) {
        let home = usize::from(pull.track.shard);
        if home == self.me {
            return self.fetch_pulled(now, pull, fetch, news);
        }
        if self.post.outbox_len(home) <= OUTBOX_FETCH_MAX {
            return self.post.send(home, ToShard::FetchPulled { pull, fetch, news });
        }
        self.counters.dropped_groups_total += 1;
        self.counters.dropped_fetches_total += 1;
        let news = Fetched::Failed(StreamCode::TOO_FAR_BEHIND);
        self.post.send(home, ToShard::FetchPulled { pull, fetch, news });
        let command = PullCommand::Abandon { pull, fetch };
        self.with_session(now, slot, |session, cx| session.pull(command, cx));
    }

    pub(super) fn post_pulled(&mut self, now: Instant, pull: PullRef, feed: Feed) {
        let home = usize::from(pull.track.shard);
        if home == self.me {
            self.pulled(now, pull, feed);
        } else {
            self.timing.date(home, self.came, &mut self.post);
            self.post.send(home, ToShard::Pulled { pull, feed });
        }
    }
}
