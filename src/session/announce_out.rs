//! Telling the peer what others publish (spec §4.2).
//!
//! Each stream goes through all that is announced below its prefix, path after path, and from then on
//! through what has changed; if it was too slow for that, through everything once more. What the peer holds
//! is compared with what is so when a path has its turn, so nothing is kept of what happens in between.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use super::control::Unsent;
use super::counts::Class;
use super::streams::{StreamId, Streams};
use super::{Context, Effect, Session, Use};
use crate::access::Admission;
use crate::limits::{
    ANNOUNCE_BACKLOG_BYTES, ANNOUNCE_BURST_BYTES, ANNOUNCE_BYTES_PER_S_MIN, ANNOUNCE_ENDED_GAP,
    ANNOUNCE_LINK_SHARE, ANNOUNCE_STREAMS_PER_PEER_MAX, ANNOUNCED_TO_PEER_MAX, SESSION_HOLDS_RETRY,
    TOLD_BYTES, WORSE_WAY_HOLD,
};
use crate::route::{Delayed, Directory, Entry, Instance, Route};
use crate::wire::{
    Announce, AnnounceInit, AnnounceOk, AnnounceRequest, Cost, Hops, Path, StreamCode, Version,
};

/// One Announce stream that the peer opened.
#[derive(Debug)]
pub(super) struct AnnounceFeed {
    /// Absolute.
    prefix: Path,
    /// Identity that the request asked to leave out; 0 for none.
    exclude: u64,
    /// What the peer holds, by announced path. What covers the prefix from above is held as the prefix.
    told: BTreeMap<Path, Told>,
    next_id: u64,
    place: Place,
    /// Changes of the directory before this one are told, or will be on the way.
    next_change: u64,
    /// Paths of which the end was told a moment ago, and when they have their turn again: released
    /// clients that hear of the next broadcast at once may go on with the old one.
    ended: Delayed,
    /// Paths of which the end was told, and which way to them was.
    retracted: Delayed<Way>,
    has_begun: bool,
}

/// What a way to a broadcast is worth.
#[derive(Debug)]
struct Way {
    origin: u64,
    is_anonymous: bool,
    worth: (Cost, usize),
}

impl Way {
    fn of(route: &Route) -> Way {
        let worth = (route.cost, route.hops.len());
        Way { origin: route.origin, is_anonymous: route.hops.is_anonymous(), worth }
    }

    /// Whether that one may be a way that has ended too, of which the end is not known here yet. Nobody knows
    /// who an anonymous one leads to.
    fn may_have_ended_with(&self, route: &Route) -> bool {
        let other = Way::of(route);
        !self.is_anonymous && self.origin == other.origin && self.worth < other.worth
    }
}

/// How far a stream has come.
#[derive(Debug)]
enum Place {
    Start,
    /// All paths up to this one have had their turn.
    After(Path),
    Changes,
}

/// What is next on a stream.
enum Next {
    Look(Path),
    /// Something that does not concern it.
    Pass,
    Nothing,
}

#[derive(Debug)]
struct Told {
    id: u64,
    shown: Shown,
}

/// What a peer may see at one path.
#[derive(Clone, Debug)]
struct Shown {
    instance: Instance,
    route: Arc<Route>,
}

/// What one turn of a listener took and left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Round {
    /// Paths that were looked at.
    pub visits: usize,
    pub has_more: bool,
}

impl AnnounceFeed {
    fn next(&mut self, directory: &Directory, now: Instant) -> Next {
        if let Some(path) = self.ended.pop_due(now).or_else(|| self.retracted.pop_due(now)) {
            return Next::Look(path);
        }
        let path = match &self.place {
            Place::Start => {
                self.next_change = directory.journal().end();
                Some(self.prefix.clone())
            }
            Place::After(path) => {
                let listed = directory.paths_after(Some(path)).next();
                let listed = listed.filter(|path| path.as_str().starts_with(self.prefix.as_str()));
                let held = self.told.range((Bound::Excluded(path), Bound::Unbounded)).next();
                listed.into_iter().chain(held.map(|(path, _)| path)).min().cloned()
            }
            Place::Changes => return self.next_change(directory),
        };
        let Some(path) = path else {
            self.place = Place::Changes;
            return Next::Pass;
        };
        self.place = Place::After(path.clone());
        if path.has_prefix(&self.prefix) { Next::Look(path) } else { Next::Pass }
    }

    fn next_change(&mut self, directory: &Directory) -> Next {
        let journal = directory.journal();
        if !journal.reaches(self.next_change) {
            self.place = Place::Start;
            return Next::Pass;
        }
        let Some(path) = journal.get(self.next_change) else { return Next::Nothing };
        self.next_change += 1;
        if path.has_prefix(&self.prefix) {
            Next::Look(path.clone())
        } else if self.prefix.has_prefix(path) {
            Next::Look(self.prefix.clone())
        } else {
            Next::Pass
        }
    }

    fn suffix(&self, path: &Path) -> Path {
        path.strip_prefix(&self.prefix).unwrap_or_default()
    }
}

impl Session {
    pub(super) fn announce_requested<S: Streams>(
        &mut self,
        id: StreamId,
        request: AnnounceRequest,
        cx: &mut Context<'_, S>,
    ) -> Result<Use, StreamCode> {
        let prefix = self.root().join(&request.prefix).map_err(|_| StreamCode::CANCEL)?;
        if self.feeds.len() == ANNOUNCE_STREAMS_PER_PEER_MAX {
            return Err(StreamCode::CANCEL);
        }
        self.feeds.insert(
            id,
            AnnounceFeed {
                prefix,
                exclude: request.exclude_hop,
                told: BTreeMap::new(),
                next_id: 0,
                place: Place::Start,
                next_change: 0,
                ended: Delayed::default(),
                retracted: Delayed::default(),
                has_begun: false,
            },
        );
        cx.effects.push(Effect::Listening);
        Ok(Use::AnnounceFeed)
    }

    /// The peer listens no more on a stream. Another one may have waited for that.
    pub(super) fn forget_feed<S: Streams>(&mut self, id: StreamId, cx: &mut Context<'_, S>) {
        let told = self.feeds.remove(&id).map_or(0, |feed| feed.told.len());
        cx.counts.sent.announces_ended += told as u64;
        cx.effects.push(Effect::Listening);
    }

    pub fn listens(&self) -> bool {
        !self.feeds.is_empty()
    }

    /// What is known of what the peer was told takes so much.
    pub(super) fn told_takes(&self) -> u64 {
        self.told() as u64 * TOLD_BYTES
    }

    /// Announced paths that the peer holds, on all its streams.
    pub fn told(&self) -> usize {
        self.feeds.values().map(|feed| feed.told.len()).sum()
    }

    /// Brings the peer's view up to date with the directory, as far as so many visits, its flow control
    /// and its allowance go. Its streams take turns.
    pub fn announce<S: Streams>(
        &mut self,
        directory: &Directory,
        room: usize,
        cx: &mut Context<'_, S>,
    ) -> Round {
        let mut ids: Vec<StreamId> = self.feeds.keys().copied().collect();
        let next = ids.partition_point(|id| *id <= self.last_fed);
        ids.rotate_left(next);
        let mut left = room;
        for id in ids {
            if left == 0 || self.failure.is_some() {
                break;
            }
            self.last_fed = id;
            self.announce_on(id, directory, &mut left, cx);
        }
        Round { visits: room - left, has_more: left == 0 }
    }

    fn announce_on<S: Streams>(
        &mut self,
        id: StreamId,
        directory: &Directory,
        left: &mut usize,
        cx: &mut Context<'_, S>,
    ) {
        while *left > 0 && self.may_tell(id) {
            let most = ANNOUNCE_BACKLOG_BYTES.min(self.telling_allowance(cx));
            if most == 0 {
                return;
            }
            if !self.has_room_for(self.told_takes(), cx) {
                self.telling_deadline = Some(cx.now + SESSION_HOLDS_RETRY);
                return;
            }
            let Some(mut feed) = self.feeds.remove(&id) else { return };
            let told_before = feed.told.len();
            let (mut news, mut size, mut is_done) = (Vec::new(), 0, false);
            while *left > 0 && size < most && !is_done {
                *left -= 1;
                match feed.next(directory, cx.now) {
                    Next::Look(path) => {
                        size += self.change(&mut feed, &path, directory, cx.now, &mut news);
                    }
                    Next::Pass => {}
                    Next::Nothing => is_done = true,
                }
            }
            let is_end =
                |news: &&Announce| matches!(news, Announce::End { .. } | Announce::Ended { .. });
            let ended = news.iter().filter(is_end).count();
            let started = feed.told.len() + ended - told_before;
            cx.counts.sent.announces_ended += ended as u64;
            cx.counts.sent.announces_started += started as u64;
            cx.counts.announces_changed += (news.len() - ended - started) as u64;
            let mut bytes = Vec::new();
            if std::mem::replace(&mut feed.has_begun, true) {
                for announce in news {
                    announce.encode(self.version, &mut bytes);
                }
            } else {
                self.encode_initial(news, &mut bytes);
            }
            let due = [self.ended_deadline, feed.ended.next_due(), feed.retracted.next_due()];
            self.ended_deadline = due.into_iter().flatten().min();
            self.feeds.insert(id, feed);
            if !bytes.is_empty() {
                self.telling.take(bytes.len() as f64);
                self.send(Class::Announce, id, &bytes, false, cx);
            }
            if is_done {
                return;
            }
        }
    }

    /// Whether the peer reads what it is told on a stream, and holds less than it may.
    fn may_tell(&self, id: StreamId) -> bool {
        let Some(feed) = self.feeds.get(&id) else { return false };
        let backlog = self.unsent.get(&id).map_or(0, Unsent::len);
        let backlogs = self.feeds.keys().filter_map(|id| self.unsent.get(id)).map(Unsent::len);
        // All that there is, once for every stream, is too much for a peer that reads none.
        let is_crowded = backlogs.sum::<usize>() > ANNOUNCE_BACKLOG_BYTES;
        let is_first = self.feeds.keys().next() == Some(&id);
        backlog <= ANNOUNCE_BACKLOG_BYTES
            && (feed.has_begun || !is_crowded)
            && (is_first || self.told() < ANNOUNCED_TO_PEER_MAX)
    }

    /// Bytes that the peer may be told now; if it may not, it is told when there are some again.
    fn telling_allowance<S: Streams>(&mut self, cx: &mut Context<'_, S>) -> usize {
        if self.served.is_empty() && self.fetches_out.is_empty() {
            return usize::MAX;
        }
        if self.telling_deadline.is_some_and(|at| cx.now < at) {
            return 0;
        }
        let bitrate = cx.streams.estimate().bitrate.unwrap_or(0) as f64;
        let per_second = (bitrate / 8.0 * ANNOUNCE_LINK_SHARE).max(ANNOUNCE_BYTES_PER_S_MIN);
        let most = ANNOUNCE_BURST_BYTES as f64;
        let level = self.telling.fill(per_second, most, cx.now);
        if level > 0.0 {
            return level as usize + 1;
        }
        // A part of it, not to wake for every byte.
        self.telling_deadline = Some(self.telling.has_at(most / 8.0, per_second, cx.now));
        0
    }

    /// What is live when a stream begins, as far as it has its turn at once.
    fn encode_initial(&self, initial: Vec<Announce>, out: &mut Vec<u8>) {
        if self.version <= Version::Lite02 {
            let suffixes = initial.into_iter().filter_map(|announce| match announce {
                Announce::Start { suffix, .. } => Some(suffix),
                _ => None,
            });
            return AnnounceInit { suffixes: suffixes.collect() }.encode(out);
        }
        if self.version >= Version::Lite05 {
            AnnounceOk { hop: self.policy.hop, active: initial.len() as u64 }.encode(out);
        }
        for announce in initial {
            announce.encode(self.version, out);
        }
    }

    /// Adds what the peer is to be told of one path, if anything, and gives about its bytes. However much
    /// has changed since it was last told: another broadcast is never passed over in silence.
    fn change(
        &self,
        feed: &mut AnnounceFeed,
        path: &Path,
        directory: &Directory,
        now: Instant,
        news: &mut Vec<Announce>,
    ) -> usize {
        if feed.ended.contains(path) {
            return 0;
        }
        let shown = self.shown(feed, path, directory);
        if let Some(told) = feed.told.get(path)
            && shown.as_ref().is_none_or(|shown| self.is_replaced(&told.shown, shown))
        {
            news.push(match self.version {
                Version::Lite06 => Announce::End { id: told.id },
                _ => Announce::Ended { suffix: feed.suffix(path) },
            });
            let was = Way::of(&told.shown.route);
            feed.told.remove(path);
            feed.ended.insert(path, now + ANNOUNCE_ENDED_GAP, ());
            feed.retracted.insert(path, now + WORSE_WAY_HOLD, was);
            return path.as_str().len();
        }
        let Some(shown) = shown else { return 0 };
        let was = feed.retracted.get(path).filter(|_| !feed.told.contains_key(path));
        if was.is_some_and(|was| was.may_have_ended_with(&shown.route)) {
            return 0;
        }
        if feed.told.get(path).is_some_and(|told| !self.is_another_way(&told.shown, &shown)) {
            return 0;
        }
        let suffix = feed.suffix(path);
        let hops = self.chain(&shown.route);
        let cost = if self.version >= Version::Lite06 { shown.route.cost } else { Cost::ZERO };
        let size = suffix.as_str().len() + hops.len() * 8 + 16;
        news.push(match feed.told.get_mut(path) {
            None => {
                feed.told.insert(path.clone(), Told { id: feed.next_id, shown });
                feed.next_id += 1;
                Announce::Start { suffix, hops, cost }
            }
            Some(told) => {
                told.shown = shown;
                match self.version {
                    Version::Lite05 => Announce::Start { suffix, hops, cost },
                    _ => Announce::Restart { id: told.id, hops, cost },
                }
            }
        });
        size
    }

    /// Whether what the peer holds has to end before it is shown this. A restart that another
    /// origin can be seen in is enough; with the same one it would be taken for another way to the
    /// same broadcast (spec §4.4).
    fn is_replaced(&self, told: &Shown, shown: &Shown) -> bool {
        let is_same_origin = told.route.origin == shown.route.origin;
        told.instance != shown.instance && (is_same_origin || self.version < Version::Lite05)
    }

    /// Whether the peer's wire can say what differs.
    fn is_another_way(&self, told: &Shown, shown: &Shown) -> bool {
        let differs = told.instance != shown.instance
            || told.route.hops != shown.route.hops
            || (self.version >= Version::Lite06 && told.route.cost != shown.route.cost);
        differs && self.version >= Version::Lite05
    }

    /// What the peer may see at a path, of its prefix or below.
    fn shown(&self, feed: &AnnounceFeed, path: &Path, directory: &Directory) -> Option<Shown> {
        // Paths that are hidden below the prefix that was asked for are for relays (spec §4.5).
        let Admission { grant, is_relay, .. } = &self.pass.admission;
        if !grant.may_hear_of(path, &feed.prefix, *is_relay) {
            return None;
        }
        let identities = [self.identity, feed.exclude];
        let is_visible = |entry: &&Entry| {
            // Whoever hears of it is one hop more.
            entry.route.hops.len() < self.policy.max_hops
                && identities.iter().all(|id| *id == 0 || !entry.route.passes(*id))
        };
        let Entry { route, instance, .. } = if *path == feed.prefix {
            directory.covering(path).find(is_visible)?
        } else {
            directory.at(path).find(is_visible)?
        };
        // What covers it from above claims it, if its publisher may (spec §4.6).
        let is_claimed = || route.is_whole && grant.may_hear_of_cover(&route.path, path, *is_relay);
        if route.path != *path && !is_claimed() {
            return None;
        }
        Some(Shown { instance: *instance, route: route.clone() })
    }

    /// The hops of a route as the peer's wire has them.
    fn chain(&self, route: &Route) -> Hops {
        let mut hops = route.hops.clone();
        if self.is_twin && hops.first() != Some(route.origin) {
            // What a client publishes here and there has one origin, which only these two can know. Where there is
            // no room for it, they are two broadcasts.
            let _ = hops.insert_front(route.origin);
        }
        if matches!(self.version, Version::Lite03 | Version::Lite04) {
            // There the sender appends itself; from lite-05 on the receiver does.
            hops.push(self.policy.hop).expect("what is shown has room for one more hop");
        }
        hops
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Instant;

    use super::super::Policy;
    use super::super::fake::Play;
    use super::*;
    use crate::limits::ROUTE_CHANGE_HOLD;
    use crate::route::tests::{path, route};
    use crate::route::{Gone, RouteId, Takeover, Trust};
    use crate::secret::Secret;
    use crate::wire::{BidiType, HOPS_MAX, Preferences, Subscribe};

    const ROUTES: u64 = 2000;

    /// In one turn.
    const VISITS: usize = 100;

    fn directory() -> Directory {
        let mut directory = Directory::new(Takeover::Allowed, u64::MAX);
        for id in 0..ROUTES {
            let at = format!("somewhere/in/a/tree/of/broadcasts/{id}");
            directory.insert(route(id, &at, &[1000], 0), Instant::now());
        }
        directory
    }

    fn announce(play: &mut Play, directory: &Directory) -> Round {
        let mut round = None;
        play.with(|session, cx| round = Some(session.announce(directory, VISITS, cx)));
        round.expect("it had its turn")
    }

    const STREAM: StreamId = StreamId(4);

    /// A peer that listens at one prefix, and what it holds.
    struct Listener {
        play: Play,
        version: Version,
        directory: Directory,
        /// Bytes that it has read.
        read: usize,
        live: BTreeSet<Path>,
        ids: BTreeMap<u64, Path>,
        next_id: u64,
    }

    impl Listener {
        fn new(version: Version, prefix: &str) -> Listener {
            let mut play = Play::speaking(version);
            let mut request = vec![BidiType::Announce as u8];
            AnnounceRequest { prefix: path(prefix), exclude_hop: 0 }.encode(version, &mut request);
            play.opens(STREAM.0, &request);
            let mut listener = Listener {
                play,
                version,
                directory: Directory::new(Takeover::Allowed, u64::MAX),
                read: 0,
                live: BTreeSet::new(),
                ids: BTreeMap::new(),
                next_id: 0,
            };
            listener.announce();
            listener.read = listener.told().len();
            listener
        }

        fn up(&mut self, id: u64, at: &str, hops: &[u64]) {
            self.up_at(id, at, hops, 0);
        }

        fn up_at(&mut self, id: u64, at: &str, hops: &[u64], warm: u64) {
            // Of equal ones of strangers the newest wins.
            let route = Arc::unwrap_or_clone(route(id, at, hops, warm));
            let route = Route { trust: Trust::Stranger { at: 1 }, ..route };
            self.directory.insert(Arc::new(route), self.play.now);
        }

        fn down(&mut self, id: u64, at: &str) {
            self.directory.remove(&path(at), RouteId(id), Gone::Withdrawn, self.play.now);
        }

        fn replace(&mut self, id: u64, with: u64, at: &str) {
            self.down(id, at);
            self.up(with, at, &[3]);
        }

        /// Tells it of everything, also of what is held.
        fn announce(&mut self) {
            self.directory.release(self.play.now + ROUTE_CHANGE_HOLD);
            while announce(&mut self.play, &self.directory).has_more {}
            // And of what has followed something that has ended.
            self.play.now += ANNOUNCE_ENDED_GAP;
            while announce(&mut self.play, &self.directory).has_more {}
        }

        fn told(&self) -> &[u8] {
            self.play.link.told.get(&STREAM).map_or(&[], Vec::as_slice)
        }

        /// What it is told now: `+a 3` is a broadcast of origin 3, `-a` its end, `~a 4` another one
        /// in its place, and `=a 3` the same one over another chain.
        #[track_caller]
        fn check(&mut self, expect: &[&str]) {
            self.announce();
            let told = self.take_told();
            assert_eq!(told, self.wording(expect), "{}", self.version);
        }

        fn take_told(&mut self) -> Vec<String> {
            let mut told = Vec::new();
            let all = self.told()[self.read..].to_vec();
            self.read += all.len();
            let mut rest = &all[..];
            while let Some((announce, used)) = Announce::take(self.version, rest).unwrap() {
                rest = &rest[used..];
                told.push(self.hear(announce));
            }
            told
        }

        fn hear(&mut self, announce: Announce) -> String {
            let shows_origins = self.version >= Version::Lite04;
            let origin = |hops: Hops| match hops.first().filter(|_| shows_origins) {
                Some(origin) => format!(" {origin}"),
                None => String::new(),
            };
            match announce {
                Announce::Start { suffix, hops, .. } if self.live.insert(suffix.clone()) => {
                    self.ids.insert(self.next_id, suffix.clone());
                    self.next_id += 1;
                    format!("+{suffix}{}", origin(hops))
                }
                Announce::Start { suffix, hops, .. } if self.version == Version::Lite05 => {
                    format!("~{suffix}{}", origin(hops))
                }
                Announce::Restart { id, hops, .. } => {
                    format!("~{}{}", self.ids[&id], origin(hops))
                }
                Announce::End { id } => {
                    let suffix = self.ids.remove(&id).expect("an id that is live");
                    self.live.remove(&suffix);
                    format!("-{suffix}")
                }
                Announce::Ended { suffix } => {
                    assert!(self.live.remove(&suffix), "{suffix} ended twice");
                    format!("-{suffix}")
                }
                other => panic!("{other:?}"),
            }
        }

        fn wording(&self, expect: &[&str]) -> Vec<String> {
            let mut words = Vec::new();
            for word in expect {
                let (sign, rest) = word.split_at(1);
                let suffix = rest.split(' ').next().unwrap_or_default();
                let what = if self.version >= Version::Lite04 { rest } else { suffix };
                match sign {
                    "+" => words.push(format!("+{what}")),
                    "-" => words.push(format!("-{suffix}")),
                    _ if self.version >= Version::Lite05 => words.push(format!("~{what}")),
                    "~" => words.extend([format!("-{suffix}"), format!("+{what}")]),
                    _ => {}
                }
            }
            words
        }
    }

    #[test]
    fn another_broadcast_of_the_name_is_told_however_alike_the_two_are() {
        for version in Version::ALL {
            let mut l = Listener::new(version, "");
            l.up(1, "a", &[3]);
            l.check(&["+a 3"]);
            l.replace(1, 2, "a");
            l.check(&["-a", "+a 3"]);
            l.replace(2, 3, "a");
            l.replace(3, 4, "a");
            l.check(&["-a", "+a 3"]);
            // Another origin wins, for a while.
            l.up(5, "a", &[4]);
            l.check(&["~a 4"]);
            l.replace(4, 6, "a");
            l.check(&["~a 3"]);
            l.down(6, "a");
            l.check(&["~a 4"]);
            l.down(5, "a");
            l.check(&["-a"]);
            l.up(7, "a", &[3]);
            l.check(&["+a 3"]);
            l.check(&[]);
        }
    }

    #[test]
    fn the_same_broadcast_restarts_where_the_wire_shows_a_change() {
        for version in Version::ALL {
            let mut l = Listener::new(version, "");
            l.up(1, "a", &[3]);
            l.check(&["+a 3"]);
            l.up(1, "a", &[3, 9]);
            l.check(&["=a 3"]);
            l.up_at(1, "a", &[3, 9], 5);
            l.check(if version == Version::Lite06 { &["=a 3"] } else { &[] });
            // Worse, and then as good.
            l.up_at(2, "a", &[3, 10, 9], 5);
            l.check(&[]);
            l.up_at(3, "a", &[3, 9], 5);
            l.check(&[]);
        }
    }

    #[test]
    fn what_covers_a_prefix_is_told_as_the_prefix_itself() {
        for version in Version::ALL {
            let mut l = Listener::new(version, "a/b/c");
            l.up(1, "a", &[3]);
            l.check(&["+ 3"]);
            l.replace(1, 2, "a");
            l.check(&["-", "+ 3"]);
            l.up(3, "a/b", &[4]);
            l.check(&["~ 4"]);
            // The longest one alone is shown.
            l.replace(2, 4, "a");
            l.check(&[]);
            l.down(3, "a/b");
            l.check(&["~ 3"]);
            // Who announces two paths has two broadcasts.
            l.up(5, "a/b", &[3]);
            l.check(&["-", "+ 3"]);
            l.down(5, "a/b");
            l.replace(4, 6, "a");
            l.check(&["-", "+ 3"]);
            l.up(7, "a/b/c", &[4]);
            l.up(8, "a/b/c/d", &[4]);
            l.announce();
            let expect = l.wording(&["~ 4", "+d 4"]);
            assert_eq!(sorted(l.take_told()), sorted(expect), "{version}");
            l.down(7, "a/b/c");
            l.down(6, "a");
            l.check(&["-"]);
        }
    }

    #[test]
    fn a_listener_that_lags_is_told_what_came_of_it_all() {
        for version in Version::ALL {
            let mut l = Listener::new(version, "");
            for (id, at) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
                l.up(id as u64, at, &[3]);
            }
            l.check(&["+a 3", "+b 3", "+c 3", "+d 3", "+e 3"]);
            l.play.link.is_blocked = true;
            for id in 0..ROUTES {
                l.up(100 + id, &format!("somewhere/in/a/tree/of/broadcasts/{id}"), &[3]);
            }
            l.check(&[]);

            // What changes in turns of their own comes to one telling.
            l.replace(0, 10, "a");
            l.announce();
            l.replace(10, 11, "a");
            l.up(12, "b", &[4]);
            l.up(13, "c", &[4]);
            l.replace(3, 14, "d");
            l.replace(4, 15, "e");
            l.announce();
            l.down(12, "b");
            l.down(13, "c");
            l.replace(2, 16, "c");
            l.up(17, "d", &[4]);
            l.down(15, "e");
            l.up(18, "f", &[3]);
            l.announce();
            l.replace(18, 19, "f");
            l.announce();
            assert_eq!(l.told().len(), l.read);

            l.play.link.is_blocked = false;
            l.play.with(|session, cx| session.writable(STREAM, cx));
            l.announce();
            let told = l.take_told();
            let (flood, others): (Vec<_>, Vec<_>) =
                told.into_iter().partition(|word| word.contains("somewhere"));
            assert_eq!(flood.len() as u64, ROUTES);
            let expect = l.wording(&["-a", "+a 3", "-c", "+c 3", "~d 4", "-e", "+f 3"]);
            assert_eq!(sorted(others), sorted(expect));
        }
    }

    /// What a peer that reads nothing can hold is not what there is times its streams; when it reads, each
    /// has its turn, and is told everything.
    #[test]
    fn streams_that_are_not_read_cost_little() {
        let directory = directory();
        let mut play = Play::new();
        play.link.is_blocked = true;
        let ids: Vec<u64> = (0..16).map(|n| 4 * n).collect();
        for &id in &ids {
            play.opens(id, &[BidiType::Announce as u8, 2, 0, 0]);
            while announce(&mut play, &directory).has_more {}
        }
        let waiting = |play: &Play| play.session.unsent.values().map(Unsent::len).sum::<usize>();
        while waiting(&play) > 0 {
            assert!(waiting(&play) <= (ids.len() + 1) * ANNOUNCE_BACKLOG_BYTES);
            play.link.is_blocked = false;
            let blocked: Vec<StreamId> = play.session.unsent.keys().copied().collect();
            for id in blocked {
                play.with(|session, cx| session.writable(id, cx));
            }
            play.link.is_blocked = true;
            while announce(&mut play, &directory).has_more {}
        }
        assert_eq!(play.session.told(), ids.len() * ROUTES as usize);
        let lengths: BTreeSet<usize> = play.link.told.values().map(Vec::len).collect();
        assert_eq!((play.link.told.len(), lengths.len()), (ids.len(), 1));
    }

    /// The first stream holds everything, whatever the others hold; they go on when there is room.
    #[test]
    fn what_all_streams_of_a_peer_hold_is_bounded() {
        let directory = directory();
        let mut play = Play::new();
        let ids: Vec<u64> = (0..ANNOUNCE_STREAMS_PER_PEER_MAX as u64).map(|n| 4 * n).collect();
        for &id in ids.iter().rev() {
            play.opens(id, &[BidiType::Announce as u8, 2, 0, 0]);
        }
        let tell = |play: &mut Play| {
            while announce(play, &directory).has_more {}
            play.session.feeds.values().map(|feed| feed.told.len()).collect::<Vec<_>>()
        };
        let held = tell(&mut play);
        assert_eq!(held[0], ROUTES as usize);
        let most = ANNOUNCED_TO_PEER_MAX + ROUTES as usize;
        assert!((ANNOUNCED_TO_PEER_MAX..most + VISITS).contains(&held.iter().sum()), "{held:?}");
        for id in &ids[..ids.len() - 3] {
            play.with(|session, cx| session.stopped(StreamId(*id), cx));
        }
        assert_eq!(tell(&mut play), [ROUTES as usize; 3]);
    }

    #[test]
    fn who_lags_beyond_what_is_remembered_looks_at_everything() {
        let mut l = Listener::new(Version::Lite06, "");
        for (id, at) in ["a", "b", "c", "d"].into_iter().enumerate() {
            l.up(id as u64, at, &[3]);
        }
        l.check(&["+a 3", "+b 3", "+c 3", "+d 3"]);
        l.down(0, "a");
        l.up(1, "b", &[4]);
        l.replace(2, 10, "c");
        l.down(3, "d");
        l.up(11, "bb", &[3]);
        for round in 0..crate::limits::ROUTE_CHANGES_KEPT as u64 / 2 + 1 {
            l.up(100 + round, "noise", &[5]);
            l.down(100 + round, "noise");
        }
        l.check(&["-a", "~b 4", "+bb 3", "-c", "-d", "+c 3"]);
        l.up(12, "a", &[3]);
        l.check(&["+a 3"]);
    }

    #[test]
    fn the_next_of_a_name_is_told_a_moment_after_the_end_of_the_last() {
        for version in Version::ALL {
            let mut l = Listener::new(version, "");
            l.up(1, "a", &[3]);
            l.up(2, "b", &[3]);
            l.check(&["+a 3", "+b 3"]);
            // There at once, or soon.
            l.replace(1, 3, "a");
            l.down(2, "b");
            while announce(&mut l.play, &l.directory).has_more {}
            assert_eq!(l.take_told(), ["-a", "-b"]);
            l.up(4, "b", &[3]);
            l.directory.release(l.play.now + ROUTE_CHANGE_HOLD);
            let ended = l.play.now;
            let due = ended + ANNOUNCE_ENDED_GAP;
            assert_eq!(l.play.session.deadline(), Some(due));
            l.play.now = due - std::time::Duration::from_millis(1);
            while announce(&mut l.play, &l.directory).has_more {}
            assert_eq!(l.take_told(), [""; 0]);
            l.play.now = due;
            let effects = l.play.with(|session, cx| session.timeout(cx));
            assert!(matches!(effects[..], [Effect::Listening]), "{effects:?}");
            while announce(&mut l.play, &l.directory).has_more {}
            let expect = l.wording(&["+a 3", "+b 3"]);
            assert_eq!(l.take_told(), expect);
            assert_eq!(l.play.session.deadline(), Some(ended + WORSE_WAY_HOLD));
        }
    }

    /// It may be of a relay that has not heard of the end yet.
    #[test]
    fn a_worse_way_to_what_has_ended_is_told_a_while_later() {
        for version in Version::ALL {
            let mut l = Listener::new(version, "");
            let ups: [(&str, u64, &[u64], u64); 5] = [
                ("longer", 1, &[3, 9, 4], 0),
                ("dearer", 2, &[3, 9], 1),
                ("alike", 3, &[3, 9], 0),
                ("another", 4, &[5, 9, 4], 8),
                ("unknown", 5, &[3, 0, 9], 8),
            ];
            for (at, id, ..) in ups {
                let hops: &[u64] = if at == "unknown" { &[3, 0] } else { &[3, 9] };
                l.up(id, at, hops);
            }
            l.announce();
            assert_eq!(l.take_told().len(), ups.len());
            let ended = l.play.now;
            for (at, id, ..) in ups {
                l.directory.remove(&path(at), RouteId(id), Gone::Lost, ended);
            }
            let mut ends = l.wording(&["-longer", "-dearer", "-alike", "-another", "-unknown"]);
            ends.sort();
            l.announce();
            assert_eq!(sorted(l.take_told()), ends);
            for (at, id, hops, cost) in ups {
                l.up_at(10 + id, at, hops, cost);
            }
            l.announce();
            let expect = l.wording(&["+alike 3", "+another 5", "+unknown 3"]);
            assert_eq!(sorted(l.take_told()), sorted(expect), "{version}");
            l.play.with(|session, cx| session.timeout(cx));
            l.announce();
            assert_eq!(l.play.session.deadline(), Some(ended + WORSE_WAY_HOLD));
            l.play.now = ended + WORSE_WAY_HOLD;
            let effects = l.play.with(|session, cx| session.timeout(cx));
            assert!(matches!(effects[..], [Effect::Listening]), "{effects:?}");
            while announce(&mut l.play, &l.directory).has_more {}
            let expect = l.wording(&["+longer 3", "+dearer 3"]);
            assert_eq!(sorted(l.take_told()), sorted(expect));
            assert_eq!(l.play.session.deadline(), None);
        }
    }

    #[test]
    fn of_chains_without_room_for_one_more_hop_a_shorter_one_is_told() {
        for version in Version::ALL {
            let mut l = Listener::new(version, "");
            l.up(1, "a", &[3, 9, 10]);
            l.up_at(2, "a", &[4, 9], 7);
            l.up(3, "b", &[3, 9, 10]);
            assert_eq!(l.play.session.policy.max_hops, HOPS_MAX);
            l.check(&["+a 3", "+b 3"]);
            let policy = Policy { max_hops: 3, ..Policy::open(7, Secret::new(&[4; 32])) };
            l.play.session.policy = Arc::new(policy);
            l.up(4, "c", &[3, 9, 10]);
            l.up(5, "a", &[3, 9, 11]);
            l.up(6, "d", &[3, 9]);
            l.check(&["+d 3", "~a 4"]);
        }
    }

    #[test]
    fn a_turn_looks_at_no_more_than_its_room() {
        let directory = directory();
        let mut play = Play::new();
        for id in [0, 4] {
            play.opens(id, &[BidiType::Announce as u8, 2, 0, 0]);
        }
        let mut turns = 0;
        loop {
            let round = announce(&mut play, &directory);
            assert!(round.visits <= VISITS);
            turns += 1;
            if !round.has_more {
                break;
            }
        }
        assert_eq!(turns, 2 * ROUTES as usize / VISITS + 1);
        // There is nothing new.
        assert_eq!(announce(&mut play, &directory), Round { visits: 2, has_more: false });
    }

    /// Of a link of 8 Mb/s that carries groups too.
    #[test]
    fn who_watches_is_told_with_a_part_of_the_link() {
        let directory = directory();
        let mut play = Play::speaking(Version::Lite06);
        play.link.estimate.bitrate = Some(8_000_000);
        play.opens(0, &[BidiType::Announce as u8, 1, 0]);
        let preferences = Preferences {
            priority: 1,
            max_age_ms: 0,
            group_start: None,
            group_end: None,
            frame_start: 0,
            frame_end: None,
        };
        let mut request = vec![BidiType::Subscribe as u8];
        Subscribe { id: 0, broadcast: path("x"), track: "v".to_owned(), preferences }
            .encode(Version::Lite06, &mut request);
        play.opens(4, &request);
        assert!(!play.session.served.is_empty(), "it watches");
        let told = |play: &Play| play.link.told.get(&StreamId(0)).map_or(0, Vec::len);
        while announce(&mut play, &directory).has_more {}
        let burst = ANNOUNCE_BURST_BYTES..ANNOUNCE_BURST_BYTES + 200;
        assert!(burst.contains(&told(&play)), "{}", told(&play));
        let (begun, before) = (play.now, told(&play));
        while let Some(at) = play.session.deadline() {
            play.now = at;
            play.with(|session, cx| session.timeout(cx));
            while announce(&mut play, &directory).has_more {}
        }
        assert_eq!(play.session.told(), ROUTES as usize);
        let per_second = (told(&play) - before) as f64 / (play.now - begun).as_secs_f64();
        assert!((115_000.0..135_000.0).contains(&per_second), "{per_second} bytes a second");
    }

    fn sorted(mut words: Vec<String>) -> Vec<String> {
        words.sort();
        words
    }
}
