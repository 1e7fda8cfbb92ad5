//! Peers that have ended a path, or show another broadcast there, while ways through them to the old one are still
//! known: those lead nowhere, whatever others say who have not heard of it yet. That is what keeps a mesh from
//! trying one such way after the other.

use std::collections::BTreeMap;

use super::Route;
use crate::wire::Path;

#[derive(Debug, Default)]
pub struct Withdrawn {
    /// The hops of those peers, each with the origin to which it still is a way; no path has none.
    peers: BTreeMap<Path, Vec<(u64, Option<u64>)>>,
}

impl Withdrawn {
    /// A peer has ended a path, or shows only this origin there, and others know other ways through it.
    pub fn ended(&mut self, path: &Path, peer: u64, shown: Option<u64>) {
        // Nobody is a hop of everybody.
        if peer == 0 {
            return;
        }
        let peers = self.peers.entry(path.clone()).or_default();
        peers.retain(|(other, _)| *other != peer);
        peers.push((peer, shown));
    }

    /// A peer has announced the path. True if it had ended it, or shown something else there.
    pub fn announced(&mut self, path: &Path, peer: u64, origin: u64) -> bool {
        let peers = self.peers.get_mut(path).into_iter().flatten();
        let Some((_, shown)) = peers.into_iter().find(|(other, _)| *other == peer) else {
            return false;
        };
        shown.replace(origin) != Some(origin)
    }

    /// Whether such a peer is on this way.
    pub fn is_on(&self, route: &Route) -> bool {
        let mut peers = self.peers.get(&route.path).into_iter().flatten();
        peers.any(|(peer, shown)| *shown != Some(route.origin) && route.hops.contains(*peer))
    }

    pub fn forget_all_but(&mut self, path: &Path, keep: impl Fn(u64, Option<u64>) -> bool) {
        if let Some(peers) = self.peers.get_mut(path) {
            peers.retain(|(peer, shown)| keep(*peer, *shown));
            if peers.is_empty() {
                self.peers.remove(path);
            }
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}
