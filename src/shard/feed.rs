//! Tracks at work: demand is steered upstream, news of the feed goes to mirrors and readers, and
//! what nobody needs is let go.

use std::iter;
use std::sync::Arc;
use std::time::Instant;

use smallvec::smallvec;

use super::handover::way_to;
use super::message::ToShard;
use super::names::{Owner, TrackKey};
use super::skips::Backlog;
use super::timing::Timing;
use super::tracks::{Change, Mirror, Place, Purpose, Track, patience};
use super::{Counters, Shard};
use crate::limits::{REVIVAL_GRACE, STRAY_TRACK_GRACE};
use crate::mailbox::Post;
use crate::observe::Tick;
use crate::route::{Route, SessionRef};
use crate::track::content::Applied;
use crate::track::serve::{Act, Need, PullCommand};
use crate::track::{Feed, PullRef, TrackRef};
use crate::wire::StreamCode;

impl Shard {
    /// A mirror says what its readers need.
    pub(super) fn need_changed(
        &mut self,
        now: Instant,
        key: &Arc<TrackKey>,
        route: &Arc<Route>,
        mirror: TrackRef,
        need: Need,
    ) {
        let purpose = if need.feed { Purpose::Feed } else { Purpose::Other };
        let slot = self.meet_mirror(key, route, mirror, purpose);
        let track = &mut self.tracks.slab[slot];
        if let Place::Home { mirrors, .. } = &mut track.place
            && let Some(known) = mirrors.iter_mut().find(|known| known.track == mirror)
        {
            known.need = need;
            let sync = |reach| track.content.sync(&mut known.told, reach);
            let feeds = need.reach().map_or_else(Vec::new, sync);
            self.visits.pieces += feeds.len() as u32;
            if !feeds.is_empty() {
                let feeds = feeds.into();
                let shard = usize::from(mirror.shard);
                self.timing.date(shard, self.came, &mut self.post);
                self.post.send(shard, ToShard::Fed { mirror, feeds });
            }
        }
        self.steer(now, slot);
    }

    /// The home of a mirror here, which tells it what there is to know if it is new.
    pub(super) fn meet_mirror(
        &mut self,
        key: &Arc<TrackKey>,
        route: &Arc<Route>,
        mirror: TrackRef,
        purpose: Purpose,
    ) -> usize {
        let (slot, facts) =
            self.tracks.home_of_mirror(key, route, mirror, &self.directory, purpose);
        if !facts.is_empty() {
            let feeds = facts.into();
            let shard = usize::from(mirror.shard);
            self.timing.date(shard, self.came, &mut self.post);
            self.post.send(shard, ToShard::Fed { mirror, feeds });
        }
        slot
    }

    /// Does what the demand for a track now calls for, at its home or by telling the home.
    pub(super) fn steer(&mut self, now: Instant, slot: usize) {
        if self.is_to_move(slot) {
            return self.move_track(now, slot);
        }
        let name = self.tracks.name(slot);
        let track = &mut self.tracks.slab[slot];
        let need = track.need();
        let is_used = track.is_used();
        let acts = match &mut track.place {
            Place::Mirror { home, told } => {
                // A home that is over has nothing more to give but what it holds.
                let is_over = track.content.outcome.is_some();
                let is_held_there = need.reach().is_some_and(|reach| !track.content.covers(reach));
                if is_used && *told != need && (!is_over || is_held_there) {
                    *told = need;
                    let (key, route) = (track.key.clone(), track.route.clone());
                    let need = Box::new(need);
                    self.post.send(*home, ToShard::Need { key, route, mirror: name, need });
                }
                Vec::new()
            }
            // Its subscription is closed rather than paused.
            Place::Home { serve, .. }
                if !is_used && self.tracks.linger.is_zero() && serve.is_subscribed() =>
            {
                Vec::new()
            }
            Place::Home { serve, .. } => {
                let (key, directory, first) = (&*track.key, &self.directory, &track.route);
                let (me, named) = (self.me, (&key.broadcast, &key.name));
                let (content, fetches) = (&track.content, &mut track.fetches);
                serve.steer(now, &need, content, fetches, named, |tried| {
                    let first = Some(first).filter(|route| !tried.contains(&route.id));
                    way_to(directory, me, key, tried).or(first)
                })
            }
        };
        self.expect_revival(now, slot);
        self.act(now, name, acts);
        if let Some(slot) = self.tracks.slot(name) {
            self.send_fetches(slot);
            self.note_use(now, name);
        }
    }

    fn act(&mut self, now: Instant, name: TrackRef, acts: Vec<Act>) {
        for act in acts {
            let Some(slot) = self.tracks.slot(name) else { return };
            match act {
                Act::Command(session, command) => self.command(now, session, command),
                Act::Tell(feed) => self.feed(now, slot, feed),
                Act::FailFetch(fetch, code) => self.fail_fetch(now, slot, fetch, code),
                Act::Fail(_) if self.fall_back(now, slot) => {}
                Act::Fail(code) => {
                    self.fail_fetches(now, slot, code);
                    if let Some(slot) = self.tracks.slot(name) {
                        self.feed(now, slot, Feed::Failed(code));
                    }
                }
            }
        }
    }

    /// Notes whether anybody uses a track. At home what is open upstream is kept for the linger
    /// and groups for the cache's time; one that has failed, or a mirror, goes at once.
    pub(super) fn note_use(&mut self, now: Instant, name: TrackRef) {
        let Some(slot) = self.tracks.slot(name) else { return };
        let track = &mut self.tracks.slab[slot];
        if track.is_used() {
            track.idle_since = None;
            return self.tracks.arm(slot);
        }
        if track.content.has_failed() || matches!(track.place, Place::Mirror { .. }) {
            return self.drop_track(now, slot);
        }
        if track.idle_since.is_none() {
            track.idle_since = Some(now);
            if self.tracks.linger.is_zero() {
                return self.look_at(now, slot);
            }
        }
        self.tracks.arm(slot);
    }

    /// A track's time has come: a fetch has waited long enough for the feed, or nobody has needed
    /// the track for a while.
    pub(super) fn look_at(&mut self, now: Instant, slot: usize) {
        let name = self.tracks.name(slot);
        let before = self.tracks.slab[slot].before;
        if before.and_then(|before| before.until).is_some_and(|until| until <= now) {
            self.fall_back(now, slot);
        }
        let Some(slot) = self.tracks.slot(name) else { return };
        if self.give_up_stray(now, slot) {
            return;
        }
        let track = &mut self.tracks.slab[slot];
        let Place::Home { serve, .. } = &mut track.place else { return };
        let Some(since) = track.idle_since else { return self.steer(now, slot) };
        if serve.is_open() && since + patience(serve, self.tracks.linger) <= now {
            let release = serve.release();
            if let Some((session, command)) = release {
                self.command(now, session, command);
            }
            self.feed(now, slot, Feed::Closed(StreamCode::CANCEL));
        }
        let Some(slot) = self.tracks.slot(name) else { return };
        let kept = self.tracks.cache.duration();
        let track = &self.tracks.slab[slot];
        let is_open = matches!(&track.place, Place::Home { serve, .. } if serve.is_open());
        if !is_open && (track.content.is_bare() || since + kept <= now) {
            return self.drop_track(now, slot);
        }
        self.tracks.arm(slot);
    }

    pub(super) fn command(&mut self, now: Instant, session: SessionRef, command: PullCommand) {
        let shard = usize::from(session.shard);
        if shard == self.me {
            self.pull(now, session, command);
        } else {
            self.post.send(shard, ToShard::Pull { session, command });
        }
    }

    /// News of a track at home here.
    pub(super) fn pulled(&mut self, now: Instant, pull: PullRef, feed: Feed) {
        let Some(slot) = self.current(pull) else { return };
        let name = self.tracks.name(slot);
        let track = &mut self.tracks.slab[slot];
        // Where nothing comes before it, what is held of the old one is served with its own end.
        if let (Feed::Final(end), Some(before)) = (&feed, &mut track.before) {
            before.end = Some(*end);
            return;
        }
        let Place::Home { serve, .. } = &mut track.place else { return };
        let mut withheld = None;
        let feed = match feed {
            Feed::Failed(_) if serve.ends_if_lost() => Feed::Ended,
            Feed::Failed(code) => return self.publisher_failed(now, slot, code),
            Feed::Start(_) | Feed::Piece(_) | Feed::Datagram(_) => {
                if let Some(at) = &mut track.given_up_at {
                    *at = now + STRAY_TRACK_GRACE;
                }
                withheld = self.note_revived(slot);
                feed
            }
            Feed::Ended if track.before.is_some() && self.fall_back(now, slot) => return,
            feed => feed,
        };
        let track = &mut self.tracks.slab[slot];
        let Place::Home { serve, .. } = &mut track.place else { return };
        if let (Feed::Info(info), Some(settled)) = (&feed, &track.content.info)
            && info.timescale != settled.timescale
        {
            let (shard, track) = (self.me, &track.key);
            let (from, to) = (info.timescale, settled.timescale);
            // Publishers can cause this line, as often as they like.
            tracing::debug!(shard, ?track, from, to, "converting timestamps");
        }
        let is_info = matches!(feed, Feed::Info(_));
        if let Some(before) = track.before.as_mut().filter(|_| is_info) {
            before.until = Some(now + REVIVAL_GRACE);
        }
        let was_lifted = serve.is_lifted();
        let told = serve.admit(now, feed, &track.content);
        let has_proven = was_lifted && !serve.is_lifted();
        self.feed_all(now, name, told.into_iter().chain(withheld));
        match self.tracks.slot(name) {
            // Of an ended track it is no news, and yet what its fetches wait for.
            Some(slot) if is_info || has_proven => self.steer(now, slot),
            Some(slot) => self.tracks.arm(slot),
            None => {}
        }
    }

    /// The publisher of a track at home here has given it up.
    pub(super) fn publisher_failed(&mut self, now: Instant, slot: usize, code: StreamCode) {
        let name = self.tracks.name(slot);
        let track = &mut self.tracks.slab[slot];
        tracing::debug!(shard = self.me, track = ?track.key, %code, "publisher failed");
        let Place::Home { serve, .. } = &mut track.place else { return };
        let settled = serve.settle(now, &track.content);
        self.feed_all(now, name, settled);
        let Some(slot) = self.tracks.slot(name) else { return };
        let track = &mut self.tracks.slab[slot];
        let need = track.need();
        let Place::Home { serve, .. } = &mut track.place else { return };
        let acts = serve.lost(code, &need, &track.content, &mut track.fetches);
        self.act(now, name, acts);
        if let Some(slot) = self.tracks.slot(name) {
            self.steer(now, slot);
        }
    }

    /// The track at home here that news is about, unless they are of an earlier attempt to pull it.
    pub(super) fn current(&mut self, pull: PullRef) -> Option<usize> {
        let slot = self.tracks.slot(pull.track).filter(|slot| {
            let place = &self.tracks.slab[*slot].place;
            matches!(place, Place::Home { serve, .. } if serve.is_open() && serve.pull() == pull)
        });
        if slot.is_none() {
            self.counters.stale_mail_total += 1;
        }
        slot
    }

    /// The same as [`Shard::feed`] for each of these, as long as the track is there.
    pub(super) fn feed_all(
        &mut self,
        now: Instant,
        name: TrackRef,
        feeds: impl IntoIterator<Item = Feed>,
    ) {
        for feed in feeds {
            let Some(slot) = self.tracks.slot(name) else { return };
            self.feed(now, slot, feed);
        }
    }

    /// News of a track, from its publisher's session at its home or from the home at a mirror.
    pub(super) fn feed(&mut self, now: Instant, slot: usize, feed: Feed) {
        let name = self.tracks.name(slot);
        let is_info = matches!(feed, Feed::Info(_));
        let is_new_run = matches!(feed, Feed::NewRun(_));
        let is_synced = matches!(feed, Feed::Synced(_));
        let is_over = feed.is_over();
        self.visits.pieces += 1;
        self.counters.frames_total += match &feed {
            Feed::Piece(piece) => piece.marks.len() as u64,
            Feed::Datagram(_) => 1,
            _ => 0,
        };
        let is_opening = matches!(&feed, Feed::Piece(piece) if piece.opens.is_some());
        let applied = self.tracks.with_content(slot, |content| content.apply(feed.clone(), now));
        if applied == Applied::Ignored {
            // A publisher that begins with a group that is here says that it is the newest.
            if is_opening {
                self.show_newest(now, slot);
            }
            return;
        }
        if let Applied::Opened(arrival) = applied {
            self.tracks.note_group(slot, arrival, now);
        }
        let track = &mut self.tracks.slab[slot];
        let owner = track.owner();
        let outgrown = track.content.take_outgrown();
        if let Place::Home { mirrors, .. } = &mut track.place {
            let cut_off = |sequence| Feed::cut_off(sequence, StreamCode::OLD);
            let cut_off: Vec<Feed> = outgrown.into_iter().map(cut_off).collect();
            for mirror in mirrors.iter_mut() {
                let backlog = &mut self.backlogs[usize::from(mirror.track.shard)];
                for feed in iter::once(&feed).chain(&cut_off) {
                    let timing = (self.came, &mut *self.timing);
                    let (post, counters) = (&mut self.post, &mut self.counters);
                    tell_mirror(mirror, feed, (owner, &mut *backlog), timing, post, counters);
                }
            }
            if let Feed::Piece(piece) = &feed {
                track.came_groups += u64::from(is_opening);
                track.came_bytes += piece.bytes.len() as u64;
            }
        }
        if is_new_run {
            let subscribers: Vec<_> = track.readers.subscribers().collect();
            for (conn, key) in subscribers {
                if let Some(peer) = &mut self.peers[conn] {
                    let is_placed = peer.session.place(key, &track.content);
                    let demand = peer.session.demand(key, &track.content);
                    track.readers.subscribe((conn, key), demand, is_placed);
                }
            }
        }
        if is_synced {
            self.place_waiting(slot);
        }
        let is_plain = matches!(applied, Applied::Grew(_) | Applied::Datagram);
        self.tracks.slab[slot].fresh.get_or_insert(self.came);
        self.tracks.note_changed(slot, if is_plain { Change::Live } else { Change::All });
        if let Applied::Grew(arrival) = applied {
            self.tracks.note_grown(slot, arrival);
        }
        match (applied, feed) {
            (Applied::Opened(arrival), Feed::Piece(piece)) => {
                self.settle_fetches(now, slot, piece.sequence, arrival);
            }
            (Applied::Grew(arrival), Feed::Piece(piece)) => {
                self.forward_piece(now, slot, arrival, &piece);
            }
            (_, Feed::Failed(code)) => self.fail_fetches(now, slot, code),
            _ => {}
        }
        if (is_info || is_over)
            && let Some(slot) = self.tracks.slot(name)
        {
            self.answer_questions(now, slot);
        }
        if (is_opening || is_over)
            && let Some(slot) = self.tracks.slot(name)
        {
            self.show_newest(now, slot);
        }
        if matches!(applied, Applied::Opened(_))
            && let Some(slot) = self.tracks.slot(name)
        {
            self.drop_surplus(now, slot);
        }
        // What the feed has brought may show that it will not bring what a fetch waits for.
        if let Some(slot) = self.tracks.slot(name)
            && (is_info
                || is_over
                || is_new_run
                || self.tracks.slab[slot].fetches.unsent().next().is_some())
        {
            self.steer(now, slot);
        }
    }

    /// Those who waited for what a mirror has now find their places before it hears more, be it in this
    /// very turn: what comes after is new to them.
    fn place_waiting(&mut self, slot: usize) {
        let Track { content, readers, .. } = &mut self.tracks.slab[slot];
        for (conn, key) in readers.take_covered(|reach| content.covers(reach)) {
            self.visits.readers += 1;
            if let Some(peer) = &mut self.peers[conn] {
                peer.session.place(key, content);
            }
        }
    }

    /// Forgets a track that nobody needs.
    pub(super) fn drop_track(&mut self, now: Instant, slot: usize) {
        let name = self.tracks.name(slot);
        let track = self.tracks.remove(slot);
        self.visits.groups += track.content.groups_len() as u32;
        match track.place {
            Place::Mirror { home, .. } => {
                self.post.send(home, ToShard::Detach { mirror: name });
            }
            Place::Home { mut serve, .. } => {
                if let Some((session, command)) = serve.release() {
                    self.command(now, session, command);
                }
            }
        }
    }
}

/// Passes news on to a mirror. Content is for those that have asked for it, and is left out, whole
/// groups at a time, while the mirror's shard does not keep up.
fn tell_mirror(
    mirror: &mut Mirror,
    feed: &Feed,
    (owner, backlog): (Owner, &mut Backlog),
    (came, timing): (Tick, &mut Timing),
    post: &mut Post<ToShard>,
    counters: &mut Counters,
) {
    if mirror.told.is_none()
        && matches!(feed, Feed::Start(_) | Feed::Piece(_) | Feed::Datagram(_) | Feed::Closed(_))
    {
        return;
    }
    let shard = usize::from(mirror.track.shard);
    let waiting = post.outbox_len(shard);
    if let Some(feed) = mirror.skips.admit(feed.clone(), owner, backlog, waiting, counters) {
        timing.date(shard, came, post);
        post.send(shard, ToShard::Fed { mirror: mirror.track, feeds: smallvec![feed] });
    }
}
