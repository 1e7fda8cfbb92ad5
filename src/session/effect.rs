//! What a session asks of its shard.

use std::borrow::Cow;
use std::sync::Arc;

use super::streams::StreamId;
use crate::access::{Refusal, Target};
use crate::route::{Route, RouteId};
use crate::track::fetch::{Ask, FetchId};
use crate::track::{Feed, Fetched, PullRef};
use crate::wire::{Path, Role};

/// What a session asks of the shard.
#[derive(Debug)]
pub enum Effect {
    /// This side has closed the session; nothing more is to be done with it.
    Failed {
        reason: Cow<'static, str>,
    },
    /// The peer has said where it wants to be, and as what: [`Session::admit`] or [`Session::turn_away`]
    /// answers.
    Arrived {
        target: Target,
        role: Role,
    },
    /// Who the peer is and what it may do is known; requests are served from here on.
    Ready,
    /// A route is new or has changed.
    RouteUp(Arc<Route>),
    RouteDown {
        path: Path,
        id: RouteId,
    },
    /// All routes of an announce stream that has ended.
    RoutesDown(Vec<(RouteId, Path)>),
    /// The peer has announced a path that is too long to be told to others; for the first time.
    PathTooLong {
        is_first: bool,
    },
    /// The peer has announced more than it may have live, in paths or their bytes; for the first time.
    TooManyAnnounced {
        is_first: bool,
    },
    /// The peer announces or asks for something outside of what it may; for the first time of its kind.
    Denied {
        path: Path,
        refusal: Refusal,
    },
    /// The peer leaves: its routes are to be the last choice. It would have us go there, or dial the same
    /// place again where it names none.
    Leaving {
        to: String,
    },
    /// It says so as it cannot be read.
    BadGoaway,
    /// The peer listens to announcements: show this session the directory.
    Listening,
    /// The peer asks what a track is like. `key` names the request in the answer.
    InfoWanted {
        key: StreamId,
        broadcast: Path,
        track: Arc<str>,
    },
    Subscribed {
        key: StreamId,
        broadcast: Path,
        track: Arc<str>,
    },
    /// A subscription has other bounds.
    SubscriptionUpdated {
        key: StreamId,
    },
    /// The peer asks for one group.
    FetchWanted {
        key: StreamId,
        broadcast: Path,
        track: Arc<str>,
        ask: Ask,
    },
    /// The peer has given up a question, a subscription or a fetch.
    Left {
        key: StreamId,
    },
    /// A subscription or a fetch can make progress: serve it again.
    Unblocked {
        key: StreamId,
    },
    /// News of a track that this session pulls from the peer.
    Fed {
        pull: PullRef,
        feed: Feed,
    },
    /// News of a group that this session fetches from the peer.
    FetchFed {
        pull: PullRef,
        fetch: FetchId,
        news: Fetched,
    },
    /// A stream had more to read than one turn allows: call [`Session::readable`] again.
    Unread {
        stream: StreamId,
    },
    /// The same of a stream of requests or announcements that was not read because the shard is crowded:
    /// when it is so no more.
    Unheard {
        stream: StreamId,
    },
    /// The same of one of announcements, of which the shard has heard enough in this turn.
    HeardEnough {
        stream: StreamId,
    },
}
