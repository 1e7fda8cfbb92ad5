//! The tracks of one shard: those at home here, with their serve loops, and mirrors of others.

use std::sync::Arc;
use std::time::Instant;

use rustc_hash::FxHashMap;
use slab::Slab;

use super::mailbox::Post;
use super::message::{ToShard, TrackKey};
use super::placement::home_of;
use super::{Counters, Shard, Skips};
use crate::limits::{OUTBOX_LIVE_MAX, TRACK_LINGER};
use crate::route::{Directory, Route};
use crate::session::Service;
use crate::session::streams::StreamId;
use crate::track::demand::Demand;
use crate::track::serve::{Act, Need, PullCommand, ServeLoop};
use crate::track::{Applied, Content, Feed, Outcome, PullRef, TrackRef};
use crate::wire::{Path, Preferences, StreamCode};

/// Somebody on this shard who is attached to a track.
#[derive(Debug)]
struct Reader {
    conn: usize,
    key: StreamId,
    wants: Wants,
}

#[derive(Clone, Copy, Debug)]
enum Wants {
    /// To learn what the track is like.
    Info,
    /// Groups; an empty range is no demand.
    Groups(Option<Demand>),
}

impl Reader {
    fn is_question(&self) -> bool {
        matches!(self.wants, Wants::Info)
    }

    fn demand(&self) -> Option<Demand> {
        match self.wants {
            Wants::Info => None,
            Wants::Groups(demand) => demand,
        }
    }
}

#[derive(Debug)]
enum Place {
    Home {
        serve: ServeLoop,
        mirrors: Vec<Mirror>,
    },
    /// What the home was last told.
    Mirror {
        home: usize,
        told: Need,
    },
}

/// A shard with readers of a track at home here.
#[derive(Debug)]
struct Mirror {
    track: TrackRef,
    need: Need,
    skips: Skips,
}

#[derive(Debug)]
struct Track {
    key: Arc<TrackKey>,
    generation: u32,
    /// The route that the first reader resolved.
    route: Arc<Route>,
    content: Content,
    readers: Vec<Reader>,
    place: Place,
    /// On the list of tracks whose readers are to be served.
    has_changed: bool,
    /// When nobody needed it any more.
    idle_since: Option<Instant>,
}

pub(super) struct Tracks {
    me: usize,
    shards: usize,
    slab: Slab<Track>,
    /// The copy that new readers of a content are attached to.
    by_key: FxHashMap<Arc<TrackKey>, usize>,
    /// The track at home here that each mirror belongs to.
    by_mirror: FxHashMap<TrackRef, usize>,
    generation: u32,
    changed: Vec<usize>,
    /// Tracks that became idle, in that order; checked again when their time is up.
    idle: std::collections::VecDeque<(Instant, TrackRef)>,
}

impl Tracks {
    pub fn new(me: usize, shards: usize) -> Tracks {
        Tracks {
            me,
            shards,
            slab: Slab::new(),
            by_key: FxHashMap::default(),
            by_mirror: FxHashMap::default(),
            generation: 0,
            changed: Vec::new(),
            idle: std::collections::VecDeque::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.slab.len()
    }

    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The slot of a track that is still the one meant.
    pub fn slot(&self, track: TrackRef) -> Option<usize> {
        let slot = track.slot as usize;
        let held = self.slab.get(slot)?;
        (held.generation == track.generation).then_some(slot)
    }

    pub fn name(&self, slot: usize) -> TrackRef {
        let generation = self.slab[slot].generation;
        TrackRef { shard: self.me as u16, slot: slot as u32, generation }
    }

    pub fn content(&self, slot: usize) -> &Content {
        &self.slab[slot].content
    }

    /// The copy for a new reader that resolved `route`, at home here or a mirror, made if need be.
    pub fn get_or_make(
        &mut self,
        key: &Arc<TrackKey>,
        route: &Arc<Route>,
        directory: &Directory,
    ) -> usize {
        if let Some(&slot) = self.by_key.get(key) {
            let held = &self.slab[slot];
            // A broadcast that is announced again is another one, even from the same publisher.
            let source = held.source();
            let is_another = source.id != route.id
                && (source.session == route.session || !directory.has(source));
            // Readers of an old copy keep what they have; nobody joins them.
            if held.content.outcome.is_none() && !is_another {
                return slot;
            }
        }
        let home = home_of(key.broadcast.as_str(), &key.name, self.shards);
        self.generation = self.generation.wrapping_add(1);
        let slot = self.slab.vacant_key();
        let generation = self.generation;
        let track = TrackRef { shard: self.me as u16, slot: slot as u32, generation };
        let place = if home == self.me {
            Place::Home { serve: ServeLoop::new(track), mirrors: Vec::new() }
        } else {
            Place::Mirror { home, told: Need::default() }
        };
        let mut content = Content::default();
        if home == self.me {
            content.apply(Feed::Synced);
        }
        self.slab.insert(Track {
            key: key.clone(),
            generation,
            route: route.clone(),
            content,
            readers: Vec::new(),
            place,
            has_changed: false,
            idle_since: None,
        });
        self.by_key.insert(key.clone(), slot);
        slot
    }

    /// Notes what a mirror needs, and tells a new one all that is known. The slot of its home.
    pub fn set_mirror(
        &mut self,
        key: &Arc<TrackKey>,
        route: &Arc<Route>,
        mirror: TrackRef,
        need: Need,
        directory: &Directory,
        post: &mut Post<ToShard>,
    ) -> usize {
        if let Some(&slot) = self.by_mirror.get(&mirror) {
            if let Place::Home { mirrors, .. } = &mut self.slab[slot].place
                && let Some(known) = mirrors.iter_mut().find(|known| known.track == mirror)
            {
                known.need = need;
            }
            return slot;
        }
        let slot = self.get_or_make(key, route, directory);
        let track = &mut self.slab[slot];
        let Place::Home { mirrors, .. } = &mut track.place else { return slot };
        self.by_mirror.insert(mirror, slot);
        mirrors.push(Mirror { track: mirror, need, skips: Skips::default() });
        for feed in track.content.replay().chain([Feed::Synced]) {
            post.send(usize::from(mirror.shard), ToShard::Fed { mirror, feed });
        }
        slot
    }

    /// Forgets a mirror; the slot of its home, if that still counted on it.
    pub fn remove_mirror(&mut self, mirror: TrackRef) -> Option<usize> {
        let slot = self.by_mirror.remove(&mirror)?;
        if let Place::Home { mirrors, .. } = &mut self.slab[slot].place {
            mirrors.retain(|known| known.track != mirror);
        }
        Some(slot)
    }

    pub fn set_wanted(&mut self, slot: usize, conn: usize, key: StreamId, wanted: Preferences) {
        let readers = &mut self.slab[slot].readers;
        if let Some(reader) = readers.iter_mut().find(|r| r.conn == conn && r.key == key) {
            reader.wants = Wants::Groups(Demand::of(&wanted));
        }
    }

    pub fn detach(&mut self, slot: usize, conn: usize, key: StreamId) {
        self.slab[slot].readers.retain(|reader| reader.conn != conn || reader.key != key);
    }

    fn note_changed(&mut self, slot: usize) {
        let track = &mut self.slab[slot];
        if !std::mem::replace(&mut track.has_changed, true) {
            self.changed.push(slot);
        }
    }

    /// When the next idle track is to be looked at.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.idle.front().map(|(since, _)| *since + TRACK_LINGER)
    }

    /// The tracks that nobody has needed for long enough.
    pub fn expired(&mut self, now: Instant) -> Vec<usize> {
        let mut expired = Vec::new();
        while let Some(&(since, track)) = self.idle.front()
            && since + TRACK_LINGER <= now
        {
            self.idle.pop_front();
            if let Some(slot) = self.slot(track)
                && self.slab[slot].idle_since == Some(since)
            {
                // It may have been idle twice at one moment; it is listed once.
                self.slab[slot].idle_since = None;
                expired.push(slot);
            }
        }
        expired
    }
}

impl Track {
    /// What the readers on this shard need together.
    fn local_need(&self) -> Need {
        Need {
            info: self.content.info.is_none() && self.readers.iter().any(Reader::is_question),
            demand: Demand::merged(self.readers.iter().filter_map(Reader::demand)),
        }
    }

    fn need(&self) -> Need {
        match &self.place {
            Place::Mirror { .. } => self.local_need(),
            Place::Home { mirrors, .. } => {
                mirrors.iter().map(|mirror| mirror.need).fold(self.local_need(), Need::merge)
            }
        }
    }

    /// The route whose content this copy holds, as far as this shard knows.
    fn source(&self) -> &Arc<Route> {
        match &self.place {
            Place::Home { serve, .. } => serve.route().unwrap_or(&self.route),
            Place::Mirror { .. } => &self.route,
        }
    }

    fn is_used(&self) -> bool {
        !self.readers.is_empty()
            || matches!(&self.place, Place::Home { mirrors, .. } if !mirrors.is_empty())
    }
}

impl Shard {
    /// Attaches a subscription, or a question where `wanted` is none, to its track.
    pub(super) fn attach(
        &mut self,
        now: Instant,
        conn: usize,
        key: StreamId,
        broadcast: Path,
        name: Arc<str>,
        wanted: Option<Preferences>,
    ) {
        let Some(peer) = &mut self.peers[conn] else { return };
        let identity = peer.session.identity();
        let Some(route) = self.directory.resolve(&broadcast, identity).cloned() else {
            return self.refuse(now, conn, key, StreamCode::UNROUTABLE);
        };
        let origin = route.origin();
        let avoid = self.directory.any_passes(&broadcast, origin, identity).then_some(identity);
        let track = Arc::new(TrackKey { broadcast, name, origin, avoid });
        let slot = self.tracks.get_or_make(&track, &route, &self.directory);
        peer.attached.insert(key, self.tracks.name(slot));
        let wants = wanted.map_or(Wants::Info, |wanted| Wants::Groups(Demand::of(&wanted)));
        let held = &mut self.tracks.slab[slot];
        held.readers.push(Reader { conn, key, wants });
        if held.content.is_synced
            && let Some(peer) = &mut self.peers[conn]
        {
            peer.session.join(key, &held.content);
        }
        let name = self.tracks.name(slot);
        self.steer(now, slot);
        if self.tracks.slot(name).is_some() {
            self.answer_questions(now, slot);
        }
        if wanted.is_some() && self.tracks.slot(name).is_some() {
            self.serve(now, slot, &[(conn, key)]);
        }
    }

    fn refuse(&mut self, now: Instant, conn: usize, key: StreamId, code: StreamCode) {
        self.with_session(now, conn, |session, cx| {
            session.fail_subscription(key, code, cx);
            session.answer_info(key, Err(code), cx);
        });
    }

    /// Does what the demand for a track now calls for, at its home or by telling the home.
    pub(super) fn steer(&mut self, now: Instant, slot: usize) {
        let track = &mut self.tracks.slab[slot];
        let need = track.need();
        let is_used = track.is_used();
        let acts = match &mut track.place {
            Place::Mirror { home, told } => {
                // A home that is over has nothing more to give.
                if is_used && track.content.outcome.is_none() && *told != need {
                    *told = need;
                    let (home, key, route) = (*home, track.key.clone(), track.route.clone());
                    let mirror = self.tracks.name(slot);
                    self.post.send(home, ToShard::Need { key, route, mirror, need });
                }
                Vec::new()
            }
            Place::Home { serve, .. } => {
                let TrackKey { broadcast, name, origin, avoid } = &*track.key;
                let (directory, first) = (&self.directory, &track.route);
                serve.steer(need, &track.content, broadcast, name, || {
                    directory.resolve_origin(broadcast, *origin, *avoid).or(Some(first))
                })
            }
        };
        let name = self.tracks.name(slot);
        for act in acts {
            match act {
                Act::Command(session, command) => self.command(now, session, command),
                Act::ForgetGroups => self.feed(now, slot, Feed::Closed),
                Act::Fail(code) => self.feed(now, slot, Feed::Failed(code)),
            }
        }
        self.note_use(now, name);
    }

    /// Notes whether anybody uses a track. At home it is kept for a while, with what is known of
    /// it; one that is over, or a mirror, goes at once.
    fn note_use(&mut self, now: Instant, name: TrackRef) {
        let Some(slot) = self.tracks.slot(name) else { return };
        let track = &mut self.tracks.slab[slot];
        let is_mirror = matches!(track.place, Place::Mirror { .. });
        if track.is_used() {
            track.idle_since = None;
        } else if is_mirror || track.content.outcome.is_some() {
            self.drop_track(now, slot);
        } else if track.idle_since.is_none() {
            track.idle_since = Some(now);
            self.tracks.idle.push_back((now, name));
        }
    }

    fn command(&mut self, now: Instant, session: crate::route::SessionRef, command: PullCommand) {
        let shard = usize::from(session.shard);
        if shard == self.me {
            self.pull(now, session, command);
        } else {
            self.post.send(shard, ToShard::Pull { session, command });
        }
    }

    /// News of a track at home here.
    pub(super) fn pulled(&mut self, now: Instant, pull: PullRef, feed: Feed) {
        let Some(slot) = self.tracks.slot(pull.track) else {
            self.counters.stale_mail_total += 1;
            return;
        };
        match &mut self.tracks.slab[slot].place {
            Place::Home { serve, .. } if serve.pull() == pull => {
                if let Some(feed) = serve.admit(feed) {
                    self.feed(now, slot, feed);
                }
            }
            _ => self.counters.stale_mail_total += 1,
        }
    }

    /// News of a track, from its publisher's session at its home or from the home at a mirror.
    pub(super) fn feed(&mut self, now: Instant, slot: usize, feed: Feed) {
        let name = self.tracks.name(slot);
        let track = &mut self.tracks.slab[slot];
        let is_info = matches!(feed, Feed::Info(_));
        let is_synced = matches!(feed, Feed::Synced);
        let is_over = feed.is_over();
        if let Feed::Piece(piece) = &feed {
            self.counters.frames_total += piece.marks.len() as u64;
        }
        if track.content.apply(feed.clone()) == Applied::Ignored {
            return;
        }
        if let Place::Home { mirrors, .. } = &mut track.place {
            for mirror in mirrors.iter_mut() {
                tell_mirror(mirror, feed.clone(), &mut self.post, &mut self.counters);
            }
            if is_over {
                for mirror in mirrors.drain(..) {
                    self.tracks.by_mirror.remove(&mirror.track);
                }
            }
        }
        if let (Place::Mirror { home, .. }, true) = (&track.place, is_over) {
            // The home counts on this mirror no longer, and must not count it towards the next.
            self.post.send(*home, ToShard::Detach { mirror: name });
        }
        if is_synced {
            // Only now is it known what is old and what is new to those who wait here.
            for reader in &track.readers {
                if let Some(peer) = &mut self.peers[reader.conn] {
                    peer.session.join(reader.key, &track.content);
                }
            }
        }
        self.tracks.note_changed(slot);
        if is_info {
            self.steer(now, slot);
        }
        if is_info || is_over {
            self.answer_questions(now, slot);
        }
    }

    /// Answers those who asked what a track is like, as soon as that is known or hopeless.
    fn answer_questions(&mut self, now: Instant, slot: usize) {
        let Some(track) = self.tracks.slab.get_mut(slot) else { return };
        let answer = match (&track.content.info, track.content.outcome) {
            (Some(info), _) => Ok(*info),
            (None, Some(Outcome::Failed(code))) => Err(code),
            (None, Some(Outcome::Ended)) => Err(StreamCode::NOT_FOUND),
            (None, None) => return,
        };
        let mut asked = Vec::new();
        track.readers.retain(|reader| {
            if reader.is_question() {
                asked.push((reader.conn, reader.key));
            }
            !reader.is_question()
        });
        if asked.is_empty() {
            return;
        }
        for (conn, key) in asked {
            self.detach(conn, key);
            self.with_session(now, conn, |session, cx| session.answer_info(key, answer, cx));
        }
        self.steer(now, slot);
    }

    /// Serves every reader of every track that has changed in this turn.
    pub(super) fn serve_tracks(&mut self, now: Instant) {
        for slot in std::mem::take(&mut self.tracks.changed) {
            let Some(track) = self.tracks.slab.get_mut(slot) else { continue };
            track.has_changed = false;
            let subscriptions = track.readers.iter().filter(|reader| !reader.is_question());
            let who: Vec<_> = subscriptions.map(|reader| (reader.conn, reader.key)).collect();
            self.serve(now, slot, &who);
        }
    }

    /// Serves some subscriptions of a track.
    pub(super) fn serve(&mut self, now: Instant, slot: usize, who: &[(usize, StreamId)]) {
        let name = self.tracks.name(slot);
        let track = &mut self.tracks.slab[slot];
        // Serving has no effect on tracks, so nobody misses the content meanwhile.
        let mut content = std::mem::take(&mut track.content);
        let mut over = Vec::new();
        for &(conn, key) in who {
            let mut service = Service::Continues;
            self.with_session(now, conn, |session, cx| {
                service = session.serve(key, &mut content, cx);
            });
            if service == Service::Over {
                over.push((conn, key));
            }
        }
        self.tracks.slab[slot].content = content;
        if !over.is_empty() {
            for &(conn, key) in &over {
                self.detach(conn, key);
            }
            let readers = &mut self.tracks.slab[slot].readers;
            readers.retain(|reader| !over.contains(&(reader.conn, reader.key)));
            self.steer(now, slot);
        } else {
            self.note_use(now, name);
        }
    }

    /// Forgets a track that nobody needs.
    pub(super) fn drop_track(&mut self, now: Instant, slot: usize) {
        let name = self.tracks.name(slot);
        let track = self.tracks.slab.remove(slot);
        if self.tracks.by_key.get(&track.key) == Some(&slot) {
            self.tracks.by_key.remove(&track.key);
        }
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

/// Passes news on to a mirror; content is left out, whole groups at a time, while the mirror's
/// shard does not keep up.
fn tell_mirror(mirror: &mut Mirror, feed: Feed, post: &mut Post<ToShard>, counters: &mut Counters) {
    let shard = usize::from(mirror.track.shard);
    let crowded = post.outbox_len(shard) > OUTBOX_LIVE_MAX;
    if let Some(feed) = mirror.skips.admit(feed, crowded, counters) {
        post.send(shard, ToShard::Fed { mirror: mirror.track, feed });
    }
}
