//! Everything that one shard can say to another.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::clients::Client;
use super::guest::{GuestId, Line, PageLine};
use crate::access::Access;
use crate::authority::News;
use crate::authority::desk::LeaseId;
use crate::net::Received;
use crate::route::{Gone, Route, RouteId, SessionRef};
use crate::track::fetch::{Ask, Asker, FetchId};
use crate::track::serve::{Need, PullCommand};
use crate::track::{Feed, Fetched, PullRef, TrackRef};
use crate::wire::Path;

/// Which content a track copy holds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TrackKey {
    pub broadcast: Path,
    pub name: Arc<str>,
    /// First hop of the routes that carry it: different first hops are different broadcasts.
    pub origin: u64,
    /// Split horizon: a peer that the content may flow through gets a copy that avoids it.
    pub avoid: Option<u64>,
}

/// What has become of a route of one of the sender's sessions.
#[derive(Clone, Debug)]
pub enum RouteNews {
    /// It is new or has changed.
    Up(Arc<Route>),
    Down {
        path: Path,
        id: RouteId,
        gone: Gone,
    },
}

impl RouteNews {
    pub fn id(&self) -> RouteId {
        match self {
            RouteNews::Up(route) => route.id,
            RouteNews::Down { id, .. } => *id,
        }
    }
}

#[derive(Debug)]
pub enum ToShard {
    /// A datagram of a connection there, which steering brought here.
    Datagram(Received),
    /// To every shard.
    Route(RouteNews),
    /// To every shard: a session is not doubted any more, whose path is claimed by others.
    Settled { session: SessionRef },
    /// To every shard: a client has so many sessions more, or less, on the sender.
    Counted { client: Client, by: i32 },
    /// Mirror → home: what the readers there need. `route` is the one that they resolved, for a
    /// home that has not heard of it yet.
    Need { key: Arc<TrackKey>, route: Arc<Route>, mirror: TrackRef, need: Box<Need> },
    /// Mirror → home: somebody there wants one group.
    Fetch { key: Arc<TrackKey>, route: Arc<Route>, mirror: TrackRef, fetch: FetchId, ask: Ask },
    /// Mirror → home: somebody else there waits for that too.
    JoinFetch { mirror: TrackRef, fetch: FetchId, asker: Asker },
    /// Mirror → home: nobody there waits for that any more.
    LeaveFetch { mirror: TrackRef, fetch: FetchId },
    /// Mirror → home: the mirror is gone.
    Detach { mirror: TrackRef },
    /// Home → mirror.
    Fed { mirror: TrackRef, feeds: SmallVec<[Feed; 1]> },
    /// Home → mirror, of one fetch.
    FetchFed { mirror: TrackRef, fetch: FetchId, news: Fetched },
    /// Home → the shard of the publisher's session.
    Pull { session: SessionRef, command: PullCommand },
    /// That shard → home.
    Pulled { pull: PullRef, feed: Feed },
    /// That shard → home, of one fetch.
    FetchPulled { pull: PullRef, fetch: FetchId, news: Fetched },
    /// From outside: a guest wants one group of a track at home here, the newest where none is
    /// named.
    FetchForGuest {
        guest: GuestId,
        broadcast: Path,
        track: Arc<str>,
        group: Option<u64>,
        line: Line,
    },
    /// From outside: the newest group that is held will do.
    GuestSettles { guest: GuestId },
    /// From outside: it waits no more.
    GuestLeaves { guest: GuestId },
    /// From outside: the announced paths after this one, or from the first on.
    List { after: Option<Path>, page: PageLine },
    /// From outside: from now on this is who may do what.
    Access(Arc<Access>),
    /// From outside: what the auth server says of a session.
    Leased { session: SessionRef, lease: LeaseId, news: Box<News> },
    /// From outside: whether this shard turns.
    Turn { turned: oneshot::Sender<()> },
    /// From outside: close every session and end.
    Stop,
}
