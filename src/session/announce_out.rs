//! Telling the peer what others publish (spec §4.2).

use std::collections::{BTreeMap, BTreeSet};

use super::control::Unsent;
use super::streams::{StreamId, Streams};
use super::{Context, Effect, Session, Use};
use crate::limits::{ANNOUNCE_BACKLOG_BYTES, ANNOUNCE_CHANGES_MAX, ANNOUNCE_STREAMS_PER_PEER_MAX};
use crate::route::{Directory, Route};
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

#[derive(Debug, PartialEq, Eq)]
struct Advertised {
    id: u64,
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
            let mut bytes = Vec::new();
            if feed.has_begun {
                for path in std::mem::take(&mut feed.changed) {
                    if let Some(announce) = self.change(&mut feed, &path, directory) {
                        announce.encode(self.version, &mut bytes);
                    }
                }
            } else {
                feed.has_begun = true;
                feed.changed.clear();
                let prefix = feed.prefix.clone();
                let paths = directory.paths_for(&prefix);
                let initial = paths.filter_map(|path| self.change(&mut feed, path, directory));
                self.encode_initial(initial.collect(), &mut bytes);
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

    /// What the peer is to be told of one path, if anything.
    fn change(
        &self,
        feed: &mut AnnounceFeed,
        path: &Path,
        directory: &Directory,
    ) -> Option<Announce> {
        // A route that covers the prefix from above is shown as the prefix itself.
        let suffix = path.strip_prefix(&feed.prefix).unwrap_or_default();
        let wire = self.outgoing(feed, &suffix, directory);
        Some(match (feed.live.get_mut(&suffix), wire) {
            (None, None) => return None,
            (None, Some((hops, cost))) => {
                let id = feed.next_id;
                feed.next_id += 1;
                let held = Advertised { id, hops: hops.clone(), cost };
                feed.live.insert(suffix.clone(), held);
                Announce::Start { suffix, hops, cost }
            }
            (Some(held), Some((hops, cost))) => {
                if (held.hops == hops && held.cost == cost) || self.version < Version::Lite05 {
                    return None;
                }
                held.hops = hops.clone();
                held.cost = cost;
                match self.version {
                    Version::Lite05 => Announce::Start { suffix, hops, cost },
                    _ => Announce::Restart { id: held.id, hops, cost },
                }
            }
            (Some(held), None) => {
                let id = held.id;
                feed.live.remove(&suffix);
                match self.version {
                    Version::Lite06 => Announce::End { id },
                    _ => Announce::Ended { suffix },
                }
            }
        })
    }

    /// What the peer may see at one place below the prefix, as its wire says it.
    fn outgoing(
        &self,
        feed: &AnnounceFeed,
        suffix: &Path,
        directory: &Directory,
    ) -> Option<(Hops, Cost)> {
        let path = feed.prefix.join(suffix).ok()?;
        // Hidden below the prefix that was asked for (spec §4.5).
        if !self.permits(&path) || suffix.has_hidden_segment() || self.role == Role::Publisher {
            return None;
        }
        let identities = [self.identity, feed.exclude];
        let hidden_from = |route: &Route| identities.iter().any(|id| *id != 0 && route.passes(*id));
        let route = if suffix.is_root() {
            directory.covering(&path).find(|route| !hidden_from(route))?
        } else {
            directory.at(&path).find(|route| !hidden_from(route))?
        };
        let mut hops = route.hops.clone();
        if matches!(self.version, Version::Lite03 | Version::Lite04) {
            // There the sender appends itself; from lite-05 on the receiver does.
            hops.push(self.policy.hop).ok()?;
        }
        let cost = if self.version >= Version::Lite06 { route.cost } else { Cost::ZERO };
        Some((hops, cost))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::fake::Play;
    use super::*;
    use crate::route::{Route, RouteId, SessionRef};
    use crate::wire::BidiType;

    const ROUTES: u64 = 2000;

    fn directory() -> Directory {
        let mut directory = Directory::default();
        for id in 0..ROUTES {
            directory.insert(Arc::new(Route {
                id: RouteId(id),
                path: Path::parse(&format!("somewhere/in/a/tree/of/broadcasts/{id}")).unwrap(),
                hops: Hops::from_slice(&[1000]).unwrap(),
                cost: Cost::ZERO,
                via: 2000,
                session: SessionRef { shard: 0, slot: 9, generation: 1 },
                version: Version::Lite06,
            }));
        }
        directory
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
