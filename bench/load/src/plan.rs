//! Who does what: one entry per connection, made from a scenario before anything is connected.

use std::ops::Range;

use shardcast::wire::{Path, Role};

use crate::quic::Wants;
use crate::scenario::{Scenario, Track};

/// What one connection is for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// Broadcasts that it publishes.
    pub publishes: Range<u32>,
    /// The broadcast of each viewer on it.
    pub watches: Vec<u32>,
    pub listens: bool,
    pub fetches: bool,
}

impl Part {
    pub fn is_publisher(&self) -> bool {
        !self.publishes.is_empty()
    }

    pub fn role(&self) -> Role {
        let asks = !self.watches.is_empty() || self.listens || self.fetches;
        match (self.is_publisher(), asks) {
            (true, false) => Role::Publisher,
            (false, true) => Role::Subscriber,
            // An idle connection has no reason to say that it never will.
            (true, true) | (false, false) => Role::Both,
        }
    }

    pub fn wants(&self) -> Wants {
        Wants { requests: self.is_publisher(), groups: !self.watches.is_empty() }
    }
}

pub struct Plan {
    /// Publishers come first.
    pub parts: Vec<Part>,
    pub publishers: usize,
    pub fetchers: Range<usize>,
    /// By broadcast number.
    pub paths: Vec<Path>,
    /// Those of each broadcast.
    tracks: Vec<Track>,
}

impl Plan {
    pub fn new(scenario: &Scenario) -> Plan {
        let mut parts = Vec::new();
        let each = scenario.broadcasts_per_publisher;
        for publisher in 0..scenario.publishers {
            let publishes = publisher * each..(publisher + 1) * each;
            parts.push(Part { publishes, ..Part::default() });
        }
        let published = scenario.publishers * each;
        for user in 0..scenario.users {
            let next = (1..=scenario.watched_per_user).map(|n| (user + n) % scenario.users);
            parts.push(Part {
                publishes: published + user..published + user + 1,
                watches: next.map(|next| published + next).collect(),
                ..Part::default()
            });
        }
        let publishers = parts.len();
        let broadcasts = scenario.broadcasts();

        let viewers: Vec<u32> = (0..scenario.viewers).map(|viewer| viewer % broadcasts).collect();
        for watches in viewers.chunks(scenario.viewers_per_connection as usize) {
            parts.push(Part { watches: watches.to_vec(), ..Part::default() });
        }
        for _ in 0..scenario.listeners {
            parts.push(Part { listens: true, ..Part::default() });
        }
        let first_fetcher = parts.len();
        for _ in 0..scenario.fetchers {
            parts.push(Part { fetches: true, ..Part::default() });
        }
        let fetchers = first_fetcher..parts.len();
        parts.resize(parts.len() + scenario.idle as usize, Part::default());

        let path = |number| {
            let path = format!("load/{}/{number}", scenario.name);
            Path::parse(&path).expect("the name of a scenario is a path segment")
        };
        Plan {
            parts,
            publishers,
            fetchers,
            paths: (0..broadcasts).map(path).collect(),
            tracks: scenario.tracks.clone(),
        }
    }

    /// The tracks of a broadcast, among those of all.
    pub fn tracks(&self, broadcast: u32) -> Range<usize> {
        let each = self.tracks.len();
        broadcast as usize * each..(broadcast as usize + 1) * each
    }

    pub fn all_tracks(&self) -> Range<usize> {
        0..self.paths.len() * self.tracks.len()
    }

    pub fn broadcast_of(&self, track: usize) -> u32 {
        (track / self.tracks.len()) as u32
    }

    pub fn track_name(&self, track: usize) -> String {
        format!("t{}", track % self.tracks.len())
    }

    /// What a track is like.
    pub fn track(&self, track: usize) -> &Track {
        &self.tracks[track % self.tracks.len()]
    }

    /// The connection that publishes a broadcast.
    pub fn publisher_of(&self, broadcast: u32) -> usize {
        let publishers = &self.parts[..self.publishers];
        publishers.partition_point(|part| part.publishes.end <= broadcast)
    }

    /// The number in a path of ours.
    pub fn broadcast_at(&self, path: &str) -> Option<u32> {
        let number: u32 = path.rsplit('/').next()?.parse().ok()?;
        (self.paths.get(number as usize)?.as_str() == path).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_share_out_the_broadcasts_and_connections() {
        let scenario = Scenario {
            name: "test".to_owned(),
            publishers: 2,
            broadcasts_per_publisher: 2,
            tracks: [0, 1, 2].map(|priority| Track { priority, ..Track::default() }).to_vec(),
            viewers: 5,
            viewers_per_connection: 2,
            listeners: 1,
            fetchers: 2,
            idle: 1,
            ..Scenario::default()
        };
        let plan = Plan::new(&scenario);
        let watches: Vec<_> = plan.parts.iter().map(|part| part.watches.clone()).collect();
        let none = Vec::new;
        let viewers = [vec![0, 1], vec![2, 3], vec![0]];
        let expect = [vec![none(); 2], viewers.to_vec(), vec![none(); 4]].concat();
        assert_eq!(watches, expect);
        assert_eq!((plan.publishers, plan.fetchers.clone()), (2, 6..8));
        assert_eq!(plan.parts[1].publishes, 2..4);
        assert_eq!((plan.tracks(3), plan.all_tracks()), (9..12, 0..12));
        assert_eq!([9, 10, 11].map(|track| plan.track(track).priority), [0, 1, 2]);
        assert_eq!((plan.broadcast_of(11), plan.track_name(11)), (3, "t2".to_owned()));
        assert_eq!([0, 1, 2, 3].map(|broadcast| plan.publisher_of(broadcast)), [0, 0, 1, 1]);
        assert_eq!(plan.broadcast_at("load/test/3"), Some(3));
        assert_eq!(plan.broadcast_at("load/test/4"), None);
        assert_eq!(plan.broadcast_at("live/test/3"), None);
    }

    #[test]
    fn users_watch_the_next_ones() {
        for (watched_per_user, expect) in
            [(1, [vec![1], vec![2], vec![0]]), (2, [vec![1, 2], vec![2, 0], vec![0, 1]])]
        {
            let plan = Plan::new(&Scenario { users: 3, watched_per_user, ..Scenario::default() });
            let watches: Vec<_> = plan.parts.iter().map(|part| part.watches.clone()).collect();
            assert_eq!(watches, expect);
            let publishes = plan.parts.iter().map(|part| part.publishes.start);
            assert!(publishes.eq(0..3));
            assert!(plan.parts.iter().all(|part| part.role() == Role::Both));
        }
    }
}
