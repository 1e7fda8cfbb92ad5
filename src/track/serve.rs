//! The serve loop of a track at its home: when to ask a publisher, when to subscribe, when to
//! change and when to end the subscription (spec §5).
//!
//! A plain state machine: demand and news of the feed go in, commands to the publisher's session
//! come out.

use std::sync::Arc;

use super::demand::Demand;
use super::{Content, Feed, PullRef, TrackRef};
use crate::route::{Route, SessionRef};
use crate::wire::{Path, Preferences, StreamCode};

/// What the home wants of the session that pulls a track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullCommand {
    /// What is this track like? The first of all commands.
    Ask {
        pull: PullRef,
        broadcast: Path,
        track: Arc<str>,
    },
    Subscribe {
        pull: PullRef,
        wanted: Preferences,
    },
    Update {
        pull: PullRef,
        wanted: Preferences,
    },
    Unsubscribe {
        pull: PullRef,
    },
    /// Forget this track.
    Release {
        pull: PullRef,
    },
}

/// What all readers of a track need together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Somebody waits to learn what the track is like.
    pub info: bool,
    pub demand: Option<Demand>,
}

impl Need {
    pub fn merge(self, other: Need) -> Need {
        Need {
            info: self.info || other.info,
            demand: Demand::merged(self.demand.into_iter().chain(other.demand)),
        }
    }

    pub fn is_none(&self) -> bool {
        !self.info && self.demand.is_none()
    }
}

#[derive(Debug, PartialEq)]
pub enum Act {
    Command(SessionRef, PullCommand),
    /// The feed was closed: its groups would leave a gap before those of the next feed.
    ForgetGroups,
    /// Nobody can serve this track.
    Fail(StreamCode),
}

#[derive(Debug)]
enum Upstream {
    /// Nobody has been asked.
    None,
    /// The publisher has been asked what the track is like.
    Asked(SessionRef),
    /// The track is known, and no subscription is open.
    Known(SessionRef),
    Subscribed(SessionRef, Preferences),
    /// The feed has ended or failed; the session has forgotten it.
    Over,
}

#[derive(Debug)]
pub struct ServeLoop {
    track: TrackRef,
    /// Tells the commands and news of one publisher from those of the one before.
    attempt: u32,
    upstream: Upstream,
    route: Option<Arc<Route>>,
    /// Subscriptions that the session was told to end and has not yet said are closed.
    closing: u32,
}

impl ServeLoop {
    pub fn new(track: TrackRef) -> ServeLoop {
        ServeLoop { track, attempt: 0, upstream: Upstream::None, route: None, closing: 0 }
    }

    /// The name under which the present publisher's session knows this track.
    pub fn pull(&self) -> PullRef {
        PullRef { track: self.track, attempt: self.attempt }
    }

    /// Takes note of news of the feed, and gives what is to be told to readers. News of a
    /// subscription that was closed meanwhile is not: its groups are not those of the next.
    pub fn admit(&mut self, feed: Feed) -> Option<Feed> {
        match feed {
            Feed::Ended | Feed::Failed(_) => {
                self.upstream = Upstream::Over;
                // Of the track that ended, those who came after the closing have seen nothing.
                let is_theirs = self.closing == 0 || !matches!(feed, Feed::Ended);
                Some(if is_theirs { feed } else { Feed::Failed(StreamCode::NOT_FOUND) })
            }
            Feed::Closed => {
                self.closing -= 1;
                None
            }
            Feed::Start(_) | Feed::Final(_) | Feed::Piece(_) => (self.closing == 0).then_some(feed),
            Feed::Info(_) | Feed::Synced => Some(feed),
        }
    }

    /// The route that the track was last asked for.
    pub fn route(&self) -> Option<&Arc<Route>> {
        self.route.as_ref()
    }

    /// Does what demand and content call for now. `route` finds the publisher to ask.
    pub fn steer<'a>(
        &mut self,
        need: Need,
        content: &Content,
        broadcast: &Path,
        name: &Arc<str>,
        route: impl FnOnce() -> Option<&'a Arc<Route>>,
    ) -> Vec<Act> {
        let mut acts = Vec::new();
        if matches!(self.upstream, Upstream::None) && !need.is_none() {
            let Some(route) = route() else {
                self.upstream = Upstream::Over;
                return vec![Act::Fail(StreamCode::UNROUTABLE)];
            };
            self.attempt += 1;
            self.upstream = Upstream::Asked(route.session);
            self.route = Some(route.clone());
            let (broadcast, track) = (broadcast.clone(), name.clone());
            let ask = PullCommand::Ask { pull: self.pull(), broadcast, track };
            acts.push(Act::Command(route.session, ask));
        }
        let pull = self.pull();
        if let (Upstream::Asked(session), Some(_)) = (&self.upstream, &content.info) {
            self.upstream = Upstream::Known(*session);
        }
        let max_age_ms = content.info.as_ref().map_or(0, |info| info.max_age_ms);
        let wanted = need.demand.map(|demand| demand.upstream(max_age_ms));
        let (next, command) = match (&self.upstream, wanted) {
            (Upstream::Known(session), Some(wanted)) => (
                Upstream::Subscribed(*session, wanted),
                Act::Command(*session, PullCommand::Subscribe { pull, wanted }),
            ),
            (Upstream::Subscribed(session, sent), Some(wanted)) if *sent != wanted => (
                Upstream::Subscribed(*session, wanted),
                Act::Command(*session, PullCommand::Update { pull, wanted }),
            ),
            (Upstream::Subscribed(session, _), None) => (
                Upstream::Known(*session),
                Act::Command(*session, PullCommand::Unsubscribe { pull }),
            ),
            _ => return acts,
        };
        if matches!(next, Upstream::Known(_)) {
            self.closing += 1;
            acts.push(Act::ForgetGroups);
        }
        self.upstream = next;
        acts.push(command);
        acts
    }

    /// The track is given up; what is to be told to the session, if anything is open there.
    pub fn release(&mut self) -> Option<(SessionRef, PullCommand)> {
        match std::mem::replace(&mut self.upstream, Upstream::Over) {
            Upstream::Asked(session)
            | Upstream::Known(session)
            | Upstream::Subscribed(session, _) => {
                Some((session, PullCommand::Release { pull: self.pull() }))
            }
            Upstream::None | Upstream::Over => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::RouteId;
    use crate::wire::{Cost, Hops, TrackInfo};

    const SESSION: SessionRef = SessionRef { shard: 1, slot: 2, generation: 3 };
    const TRACK: TrackRef = TrackRef { shard: 0, slot: 4, generation: 5 };

    fn route() -> Arc<Route> {
        Arc::new(Route {
            id: RouteId(1),
            path: Path::parse("live").unwrap(),
            hops: Hops::from_slice(&[7]).unwrap(),
            cost: Cost::ZERO,
            via: 7,
            session: SESSION,
        })
    }

    /// A serve loop with its publisher, and the log of what it has been told.
    struct Play {
        serve: ServeLoop,
        content: Content,
        route: Option<Arc<Route>>,
    }

    impl Play {
        fn new() -> Play {
            Play { serve: ServeLoop::new(TRACK), content: Content::default(), route: Some(route()) }
        }

        fn know(&mut self) {
            let info = TrackInfo { priority: 0, max_age_ms: 100, timescale: 1000 };
            self.content.apply(Feed::Info(info));
        }

        #[track_caller]
        fn check(&mut self, info: bool, demand: Option<u8>, expect: &str) {
            let demand =
                demand.map(|priority| Demand { priority, max_age_ms: 500, start: None, end: None });
            let (path, name) = (Path::parse("live/cam").unwrap(), Arc::from("video"));
            let route = self.route.clone();
            let acts = self
                .serve
                .steer(Need { info, demand }, &self.content, &path, &name, || route.as_ref());
            let words: Vec<String> = acts
                .iter()
                .map(|act| match act {
                    Act::Command(session, command) => {
                        assert_eq!(*session, SESSION);
                        match command {
                            PullCommand::Ask { .. } => "ask".to_owned(),
                            PullCommand::Subscribe { wanted, .. } => {
                                assert_eq!(
                                    wanted.max_age_ms, 100,
                                    "no longer than the track keeps"
                                );
                                format!("subscribe {}", wanted.priority)
                            }
                            PullCommand::Update { wanted, .. } => {
                                format!("update {}", wanted.priority)
                            }
                            PullCommand::Unsubscribe { .. } => "unsubscribe".to_owned(),
                            PullCommand::Release { .. } => "release".to_owned(),
                        }
                    }
                    Act::ForgetGroups => "forget".to_owned(),
                    Act::Fail(code) => format!("fail {code}"),
                })
                .collect();
            assert_eq!(words.join(", "), expect);
        }
    }

    #[test]
    fn a_life_of_demand() {
        let mut play = Play::new();
        play.check(false, None, "");
        play.check(true, None, "ask");
        play.check(true, Some(3), "");
        play.know();
        play.check(false, Some(3), "subscribe 3");
        play.check(false, Some(3), "");
        play.check(false, Some(9), "update 9");
        play.check(false, Some(3), "update 3");
        play.check(false, None, "forget, unsubscribe");
        play.check(false, None, "");
        play.check(false, Some(1), "subscribe 1");
        assert!(play.serve.release().is_some());
        assert!(play.serve.release().is_none());
    }

    #[test]
    fn news_of_a_closed_subscription_is_kept_from_the_next() {
        let mut play = Play::new();
        play.check(false, Some(1), "ask");
        play.know();
        play.check(false, Some(1), "subscribe 1");
        assert!(play.serve.admit(Feed::Start(0)).is_some());
        play.check(false, None, "forget, unsubscribe");
        play.check(false, Some(1), "subscribe 1");
        assert!(play.serve.admit(Feed::Start(1)).is_none());
        assert!(play.serve.admit(Feed::Closed).is_none());
        assert!(play.serve.admit(Feed::Start(2)).is_some());
    }

    #[test]
    fn the_end_of_a_closed_subscription_is_no_end_for_those_who_came_later() {
        let mut play = Play::new();
        play.check(false, Some(1), "ask");
        play.know();
        play.check(false, Some(1), "subscribe 1");
        play.check(false, None, "forget, unsubscribe");
        play.check(false, Some(1), "subscribe 1");
        assert!(matches!(play.serve.admit(Feed::Ended), Some(Feed::Failed(_))));
    }

    #[test]
    fn without_a_route_the_track_fails_at_once() {
        let mut play = Play::new();
        play.route = None;
        play.check(false, Some(1), &format!("fail {}", StreamCode::UNROUTABLE));
        play.check(false, Some(1), "");
    }

    #[test]
    fn a_feed_that_is_over_is_not_asked_again() {
        let mut play = Play::new();
        play.check(false, Some(1), "ask");
        assert!(matches!(play.serve.admit(Feed::Ended), Some(Feed::Ended)));
        play.check(false, Some(2), "");
        assert!(play.serve.release().is_none());
    }
}
