//! A session whose transport is a play's: what the peer says and how much it reads.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::streams::{Estimate, ReadEnd, StreamId, Streams, WriteEnd};
use super::{Call, Context, Counts, Effect, Names, Pass, Policy, RouteIds, Session};
use crate::route::{SessionRef, Trust};
use crate::secret::Secret;
use crate::wire::{Protocol, SessionCode, StreamCode, UniType, Version};

#[derive(Default)]
pub(super) struct Link {
    pub estimate: Estimate,
    pub rtt: Duration,
    pub window: u64,
    pub is_blocked: bool,
    /// Streams that the peer grants for groups, and how they rank.
    pub granted: u64,
    pub opened: u64,
    /// The same for requests.
    pub requests_granted: u64,
    pub requests_opened: u64,
    pub priorities: BTreeMap<StreamId, i32>,
    /// What the peer says next.
    pub says: Vec<u8>,
    pub has_finished: bool,
    pub told: BTreeMap<StreamId, Vec<u8>>,
    /// "finish", "reset 1" and "stop 1", as they come.
    pub done: Vec<String>,
}

impl Streams for Link {
    fn open_uni(&mut self) -> Option<StreamId> {
        if self.opened == self.granted {
            return None;
        }
        self.opened += 1;
        Some(StreamId(4 * self.opened + 3))
    }

    fn open_bidi(&mut self) -> Option<StreamId> {
        if self.requests_opened == self.requests_granted {
            return None;
        }
        self.requests_opened += 1;
        Some(StreamId(4 * self.requests_opened + 1))
    }

    fn write(&mut self, id: StreamId, chunks: &mut [Bytes]) -> WriteEnd {
        if self.is_blocked {
            return WriteEnd::Blocked(0);
        }
        for chunk in chunks {
            self.told.entry(id).or_default().extend_from_slice(chunk);
            *chunk = Bytes::new();
        }
        WriteEnd::All
    }

    fn finish(&mut self, _: StreamId) {
        self.done.push("finish".to_owned());
    }

    fn reset(&mut self, _: StreamId, code: StreamCode) {
        self.done.push(format!("reset {}", code.0));
    }

    fn stop(&mut self, _: StreamId, code: StreamCode) {
        self.done.push(format!("stop {}", code.0));
    }

    fn set_priority(&mut self, id: StreamId, priority: i32) {
        self.priorities.insert(id, priority);
    }

    fn send_datagram(&mut self, _: &[u8], _: &[u8]) {}

    fn read(&mut self, _: StreamId, _: usize, take: &mut dyn FnMut(&[u8])) -> ReadEnd {
        take(&std::mem::take(&mut self.says));
        if self.has_finished { ReadEnd::Finished } else { ReadEnd::Pending }
    }

    fn expect_groups(&mut self) {}

    fn rtt(&self) -> Duration {
        self.rtt
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn estimate(&self) -> Estimate {
        self.estimate
    }

    fn close(&mut self, _: SessionCode, reason: Cow<'static, str>) {
        panic!("{reason}");
    }
}

/// A session that has begun, with a peer that has no name.
pub(super) struct Play {
    pub session: Session,
    pub link: Link,
    pub now: Instant,
    pub counts: Counts,
}

impl Play {
    /// Speaks lite-04.
    pub fn new() -> Play {
        Play::speaking(Version::Lite04)
    }

    pub fn speaking(version: Version) -> Play {
        let mut play = Play::before(version, Some(Pass::unlimited()));
        play.with(|session, cx| session.start(cx));
        if version >= Version::Lite05 {
            play.opens(2, &[UniType::Setup as u8, 1, 0]);
        }
        play
    }

    fn before(version: Version, pass: Option<Pass>) -> Play {
        let now = Instant::now();
        let me = SessionRef { shard: 0, slot: 0, generation: 0 };
        let policy = Arc::new(Policy::open(7, Secret::new(&[4; 32])));
        let protocol = Protocol::Version(version);
        let names = Names { trust: Trust::Relay, identity: 1, stamp: 2 };
        let session = Session::new(protocol, pass, me, policy, now, names);
        Play { session, link: Link::default(), now, counts: Counts::default() }
    }

    /// A session with a peer that was dialled, and has not said anything.
    pub fn dialling(version: Version, call: Call) -> Play {
        let mut play = Play::before(version, None);
        (play.link.granted, play.link.requests_granted) = (10, 10);
        play.with(|session, cx| {
            session.dial(call);
            session.start(cx);
        });
        play
    }

    pub fn with(&mut self, run: impl FnOnce(&mut Session, &mut Context<'_, Link>)) -> Vec<Effect> {
        let (mut effects, mut route_ids) = (Vec::<Effect>::new(), RouteIds::new(0, self.now));
        run(
            &mut self.session,
            &mut Context {
                now: self.now,
                streams: &mut self.link,
                effects: &mut effects,
                route_ids: &mut route_ids,
                arrival_ms: 0,
                is_crowded: false,
                changes_left: usize::MAX,
                visits: 0,
                counts: &mut self.counts,
            },
        );
        effects
    }

    pub fn opens(&mut self, id: u64, says: &[u8]) {
        self.link.says = says.to_vec();
        self.with(|session, cx| session.opened(StreamId(id), cx));
    }
}
