//! Which track is whose, and who views it. Knows names only.

use quinn_proto::StreamId;
use rustc_hash::FxHashMap;
use shardcast::wire::{Path, Version};

use crate::endpoint::ConnRef;

/// A subscription of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Viewer {
    pub conn: ConnRef,
    pub version: Version,
    /// The number that it has given its subscription.
    pub id: u64,
    /// The stream of its SUBSCRIBE, and our half of it.
    pub stream: StreamId,
    pub output: usize,
    /// It knows its first group.
    pub has_begun: bool,
}

/// A track that somebody views.
#[derive(Debug)]
pub struct Track {
    pub name: Name,
    pub publisher: ConnRef,
    /// Our half of the stream of our SUBSCRIBE.
    pub output: usize,
    /// Ordered by what the heads of their groups depend on, so that equal ones are neighbours.
    viewers: Vec<Viewer>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Name {
    pub broadcast: Path,
    pub track: String,
}

#[derive(Default)]
pub struct Tracks {
    /// By the number of our subscription, which is never used again.
    by_id: FxHashMap<u64, Track>,
    by_name: FxHashMap<Name, u64>,
    next_id: u64,
}

impl Track {
    pub fn new(name: Name, publisher: ConnRef, output: usize) -> Track {
        Track { name, publisher, output, viewers: Vec::new() }
    }

    pub fn viewers(&mut self) -> &mut [Viewer] {
        &mut self.viewers
    }

    pub fn into_viewers(self) -> Vec<Viewer> {
        self.viewers
    }

    pub fn add(&mut self, viewer: Viewer) {
        let key = (viewer.version, viewer.id);
        let at = self.viewers.partition_point(|other| (other.version, other.id) <= key);
        self.viewers.insert(at, viewer);
    }

    fn remove(&mut self, conn: ConnRef, stream: StreamId) -> Option<Viewer> {
        let is_meant = |viewer: &Viewer| viewer.conn == conn && viewer.stream == stream;
        let at = self.viewers.iter().position(is_meant)?;
        Some(self.viewers.remove(at))
    }
}

impl Tracks {
    /// The number that the next track will have.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    pub fn insert(&mut self, track: Track) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.by_name.insert(track.name.clone(), id);
        self.by_id.insert(id, track);
        id
    }

    pub fn find(&self, name: &Name) -> Option<u64> {
        self.by_name.get(name).copied()
    }

    pub fn get(&mut self, id: u64) -> Option<&mut Track> {
        self.by_id.get_mut(&id)
    }

    pub fn remove(&mut self, id: u64) -> Option<Track> {
        let track = self.by_id.remove(&id)?;
        self.by_name.remove(&track.name);
        Some(track)
    }

    /// A viewer leaves; and the track that nobody views any more.
    pub fn leave(
        &mut self,
        id: u64,
        conn: ConnRef,
        stream: StreamId,
    ) -> (Option<Viewer>, Option<Track>) {
        let Some(track) = self.by_id.get_mut(&id) else { return (None, None) };
        let viewer = track.remove(conn, stream);
        let is_alone = track.viewers.is_empty();
        (viewer, if is_alone { self.remove(id) } else { None })
    }

    /// The tracks of one broadcast that a publisher brings.
    pub fn of(&self, publisher: ConnRef, broadcast: &Path) -> Vec<u64> {
        let tracks = self.by_id.iter();
        let of_it = tracks.filter(|(_, track)| {
            track.publisher == publisher && track.name.broadcast == *broadcast
        });
        of_it.map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quinn_proto::{Dir, Side};

    fn stream(index: u64) -> StreamId {
        StreamId::new(Side::Client, Dir::Bi, index)
    }

    fn conn(slot: usize) -> ConnRef {
        ConnRef { slot, generation: 1 }
    }

    fn name(broadcast: &str) -> Name {
        Name { broadcast: Path::parse(broadcast).unwrap(), track: "t0".to_owned() }
    }

    fn viewer(slot: usize, version: Version, id: u64) -> Viewer {
        let stream = stream(id);
        Viewer { conn: conn(slot), version, id, stream, output: 0, has_begun: false }
    }

    fn track(broadcast: &str) -> Track {
        Track::new(name(broadcast), conn(0), 0)
    }

    #[test]
    fn viewers_with_equal_heads_are_neighbours() {
        let mut track = track("load/chat/0");
        let joined = [
            viewer(1, Version::Lite06, 0),
            viewer(2, Version::Lite06, 7),
            viewer(3, Version::Lite05, 0),
            viewer(4, Version::Lite06, 0),
        ];
        joined.into_iter().for_each(|viewer| track.add(viewer));
        let slots: Vec<usize> = track.viewers().iter().map(|viewer| viewer.conn.slot).collect();
        assert_eq!(slots, [3, 1, 4, 2]);
    }

    #[test]
    fn the_last_viewer_takes_the_track_along() {
        let mut tracks = Tracks::default();
        let id = tracks.insert(track("load/chat/0"));
        for slot in [1, 2] {
            tracks.get(id).unwrap().add(viewer(slot, Version::Lite06, 0));
        }
        let (left, track) = tracks.leave(id, conn(1), stream(0));
        assert_eq!((left.unwrap().conn, track.is_none()), (conn(1), true));
        assert!(tracks.leave(id, conn(2), stream(5)).0.is_none(), "it has no such stream");
        let (left, track) = tracks.leave(id, conn(2), stream(0));
        assert_eq!((left.unwrap().conn, track.is_some()), (conn(2), true));
        assert_eq!(tracks.find(&name("load/chat/0")), None);
    }

    #[test]
    fn numbers_are_not_used_again() {
        let mut tracks = Tracks::default();
        let first = tracks.insert(track("a"));
        tracks.remove(first);
        let second = tracks.insert(track("a"));
        assert_ne!(first, second);
        assert!(tracks.get(first).is_none());
        assert_eq!(tracks.find(&name("a")), Some(second));
    }

    #[test]
    fn tracks_of_a_broadcast() {
        let mut tracks = Tracks::default();
        let (a, _b) = (tracks.insert(track("a")), tracks.insert(track("b")));
        assert_eq!(tracks.of(conn(0), &name("a").broadcast), [a]);
        assert_eq!(tracks.of(conn(1), &name("a").broadcast), [0; 0]);
    }
}
