//! Telling the peer what others publish (spec §4.2).

use std::collections::{BTreeMap, BTreeSet};

use super::control::Unsent;
use super::streams::{StreamId, Streams};
use super::{Context, Effect, Session, Use};
use crate::limits::{ANNOUNCE_BACKLOG_BYTES, ANNOUNCE_CHANGES_MAX, ANNOUNCE_STREAMS_PER_PEER_MAX};
use crate::route::{Directory, Entry, Instance};
use crate::wire::{
    Announce, AnnounceInit, AnnounceOk, AnnounceRequest, Cost, Hops, Path, Role, SessionCode,
    StreamCode, Version,
};

/// One Announce stream that the peer opened.
#[derive(Debug)]
pub(super) struct AnnounceFeed {
    /// Absolute.
    prefix: Path,
    /// Identity that the request asked to leave out; 0 for none.
    exclude: u64,
    /// What the peer holds, by suffix.
    live: BTreeMap<Path, Advertised>,
    next_id: u64,
    /// Announced paths whose best route may have changed since the peer was told.
    changed: BTreeSet<Path>,
    has_begun: bool,
}

#[derive(Debug)]
struct Advertised {
    id: u64,
    shown: Shown,
}

/// What a peer may see at one place, as its wire says it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Shown {
    instance: Instance,
    hops: Hops,
    cost: Cost,
}

impl Session {
    pub(super) fn announce_requested<S: Streams>(
        &mut self,
        id: StreamId,
        request: AnnounceRequest,
        cx: &mut Context<'_, S>,
    ) -> Result<Use, StreamCode> {
        let prefix = self.root.join(&request.prefix).map_err(|_| StreamCode::CANCEL)?;
        if self.feeds.len() == ANNOUNCE_STREAMS_PER_PEER_MAX {
            return Err(StreamCode::CANCEL);
        }
        self.feeds.insert(
            id,
            AnnounceFeed {
                prefix,
                exclude: request.exclude_hop,
                live: BTreeMap::new(),
                next_id: 0,
                changed: BTreeSet::new(),
                has_begun: false,
            },
        );
        cx.effects.push(Effect::Listening);
        Ok(Use::AnnounceFeed)
    }

    /// A route at `path` came, went or changed. Nothing is sent before [`Session::announce`].
    pub fn note_route(&mut self, path: &Path) {
        for feed in self.feeds.values_mut() {
            if path.has_prefix(&feed.prefix) || feed.prefix.has_prefix(path) {
                feed.changed.insert(path.clone());
            }
        }
    }

    /// Brings the peer's view up to date with the directory, as far as its flow control allows.
    pub fn announce<S: Streams>(&mut self, directory: &Directory, cx: &mut Context<'_, S>) {
        if self.failure.is_some() {
            return;
        }
        let ids: Vec<StreamId> = self.feeds.keys().copied().collect();
        for id in ids {
            let backlog = self.unsent.get(&id).map_or(0, Unsent::len);
            let backlogs = self.feeds.keys().filter_map(|id| self.unsent.get(id)).map(Unsent::len);
            // All that there is, once for every stream, is too much for a peer that reads none.
            let is_crowded = backlogs.sum::<usize>() > ANNOUNCE_BACKLOG_BYTES;
            let Some(mut feed) = self.feeds.remove(&id) else { continue };
            if backlog > ANNOUNCE_BACKLOG_BYTES || (is_crowded && !feed.has_begun) {
                let waiting = feed.changed.len();
                self.feeds.insert(id, feed);
                if waiting > ANNOUNCE_CHANGES_MAX {
                    return self.fail(SessionCode::INTERNAL, "announcements are not read", cx);
                }
                continue;
            }
            let (mut news, mut bytes) = (Vec::new(), Vec::new());
            if feed.has_begun {
                for path in std::mem::take(&mut feed.changed) {
                    self.change(&mut feed, &path, directory, &mut news);
                }
                for announce in news {
                    announce.encode(self.version, &mut bytes);
                }
            } else {
                feed.has_begun = true;
                feed.changed.clear();
                for path in directory.paths_for(&feed.prefix.clone()) {
                    self.change(&mut feed, path, directory, &mut news);
                }
                self.encode_initial(news, &mut bytes);
            }
            self.feeds.insert(id, feed);
            if !bytes.is_empty() {
                self.send(id, &bytes, false, cx);
            }
        }
    }

    /// Everything that is live when a stream begins.
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

    /// Adds what the peer is to be told of one path, if anything. However much has changed since it
    /// was last told: another broadcast is never passed over in silence.
    fn change(
        &self,
        feed: &mut AnnounceFeed,
        path: &Path,
        directory: &Directory,
        news: &mut Vec<Announce>,
    ) {
        // A route that covers the prefix from above is shown as the prefix itself.
        let suffix = path.strip_prefix(&feed.prefix).unwrap_or_default();
        let shown = self.outgoing(feed, &suffix, directory);
        if let Some(held) = feed.live.get(&suffix)
            && shown.as_ref().is_none_or(|shown| self.is_replaced(&held.shown, shown))
        {
            news.push(match self.version {
                Version::Lite06 => Announce::End { id: held.id },
                _ => Announce::Ended { suffix: suffix.clone() },
            });
            feed.live.remove(&suffix);
        }
        let Some(shown) = shown else { return };
        let Shown { hops, cost, .. } = shown.clone();
        news.push(match feed.live.get_mut(&suffix) {
            None => {
                feed.live.insert(suffix.clone(), Advertised { id: feed.next_id, shown });
                feed.next_id += 1;
                Announce::Start { suffix, hops, cost }
            }
            Some(held) if held.shown == shown || self.version < Version::Lite05 => return,
            Some(held) => {
                held.shown = shown;
                match self.version {
                    Version::Lite05 => Announce::Start { suffix, hops, cost },
                    _ => Announce::Restart { id: held.id, hops, cost },
                }
            }
        });
    }

    /// Whether what the peer holds has to end before it is shown this. A restart that another
    /// origin can be seen in is enough; with the same one it would be taken for another way to the
    /// same broadcast (spec §4.4).
    fn is_replaced(&self, held: &Shown, shown: &Shown) -> bool {
        let is_same_origin = held.hops.first() == shown.hops.first();
        held.instance != shown.instance && (is_same_origin || self.version < Version::Lite05)
    }

    /// What the peer may see at one place below the prefix, as its wire says it.
    fn outgoing(&self, feed: &AnnounceFeed, suffix: &Path, directory: &Directory) -> Option<Shown> {
        let path = feed.prefix.join(suffix).ok()?;
        // Hidden below the prefix that was asked for (spec §4.5).
        if !self.permits(&path) || suffix.has_hidden_segment() || self.role == Role::Publisher {
            return None;
        }
        let identities = [self.identity, feed.exclude];
        let is_visible =
            |entry: &&Entry| identities.iter().all(|id| *id == 0 || !entry.route.passes(*id));
        let Entry { route, instance, .. } = if suffix.is_root() {
            directory.covering(&path).find(is_visible)?
        } else {
            directory.at(&path).find(is_visible)?
        };
        let mut hops = route.hops.clone();
        if matches!(self.version, Version::Lite03 | Version::Lite04) {
            // There the sender appends itself; from lite-05 on the receiver does.
            hops.push(self.policy.hop).ok()?;
        }
        let cost = if self.version >= Version::Lite06 { route.cost } else { Cost::ZERO };
        Some(Shown { instance: *instance, hops, cost })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::fake::Play;
    use super::*;
    use crate::route::tests::{path, route};
    use crate::route::{Gone, RouteId};
    use crate::wire::BidiType;

    const ROUTES: u64 = 2000;

    fn directory() -> Directory {
        let mut directory = Directory::default();
        for id in 0..ROUTES {
            let at = format!("somewhere/in/a/tree/of/broadcasts/{id}");
            directory.insert(route(id, &at, &[1000], 0), Instant::now());
        }
        directory
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
                directory: Directory::default(),
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
            self.directory.insert(route(id, at, hops, warm), self.play.now);
            self.play.session.note_route(&path(at));
        }

        fn down(&mut self, id: u64, at: &str) {
            self.directory.remove(&path(at), RouteId(id), Gone::Withdrawn, self.play.now);
            self.play.session.note_route(&path(at));
        }

        fn replace(&mut self, id: u64, with: u64, at: &str) {
            self.down(id, at);
            self.up(with, at, &[3]);
        }

        fn announce(&mut self) {
            let directory = std::mem::take(&mut self.directory);
            self.play.with(|session, cx| session.announce(&directory, cx));
            self.directory = directory;
        }

        fn told(&self) -> &[u8] {
            self.play.link.told.get(&STREAM).map_or(&[], Vec::as_slice)
        }

        /// What it is told now: `+a 3` is a broadcast of origin 3, `-a` its end, `~a 4` another one
        /// in its place, and `=a 3` the same one over another chain.
        #[track_caller]
        fn check(&mut self, expect: &[&str]) {
            self.announce();
            let mut told = Vec::new();
            let mut rest = self.told()[self.read..].to_vec();
            self.read += rest.len();
            while let Some((announce, used)) = Announce::take(self.version, &rest).unwrap() {
                rest.drain(..used);
                told.push(self.hear(announce));
            }
            assert_eq!(told, self.wording(expect), "{}", self.version);
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
            l.check(&["~ 4", "+d 4"]);
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
            l.read = l.told().len();
            assert!(l.read > ANNOUNCE_BACKLOG_BYTES);
            l.next_id += ROUTES;
            l.check(&["-a", "+a 3", "-c", "+c 3", "~d 4", "-e", "+f 3"]);
        }
    }

    /// Everything is encoded for one of its streams and not for all of them at once; as it reads,
    /// each has its turn.
    #[test]
    fn a_listener_that_reads_nothing_costs_one_telling() {
        let directory = directory();
        let mut play = Play::new();
        play.link.is_blocked = true;
        let ids: Vec<u64> = (0..ANNOUNCE_STREAMS_PER_PEER_MAX as u64).map(|n| 4 * n).collect();
        for &id in &ids {
            play.opens(id, &[BidiType::Announce as u8, 2, 0, 0]);
            play.with(|session, cx| session.announce(&directory, cx));
        }
        let waiting = |play: &Play| play.session.unsent.values().map(Unsent::len).sum::<usize>();
        let once = waiting(&play);
        assert!(once > ANNOUNCE_BACKLOG_BYTES, "{once} bytes say it all");

        play.link.is_blocked = false;
        while waiting(&play) > 0 {
            assert!(waiting(&play) <= once + ANNOUNCE_BACKLOG_BYTES);
            let blocked: Vec<StreamId> = play.session.unsent.keys().copied().collect();
            for id in blocked {
                play.with(|session, cx| session.writable(id, cx));
            }
            play.link.is_blocked = true;
            play.with(|session, cx| session.announce(&directory, cx));
            play.link.is_blocked = false;
        }
        for id in ids {
            assert_eq!(play.link.told.get(&StreamId(id)).map(Vec::len), Some(once), "stream {id}");
        }
    }
}
