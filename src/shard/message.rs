//! Everything that one shard can say to another.

use std::sync::{Arc, mpsc};

use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::clients::Client;
use super::entry::{Knock, Newcomer};
use super::guest::{self, PageLine};
use super::links::HeirKey;
use super::names::{GuestId, TrackKey};
use super::report::{Report, SessionsPage, TracksPage};
use crate::access::Access;
use crate::authority::Leased;
use crate::cluster::{Dial, Line, LinkId, Order};
use crate::net::Received;
use crate::observe::Tick;
use crate::route::{Gone, Route, RouteId, SessionRef};
use crate::track::fetch::{Ask, Asker, FetchId};
use crate::track::serve::{Need, PullCommand};
use crate::track::{Feed, Fetched, PullRef, TrackRef};
use crate::wire::Path;

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
    /// To the shard of a session whose path somebody claims: requests wait here until it is settled.
    Doubted { session: SessionRef },
    /// To every shard, and to who has asked: a session is not doubted any more, whose path is claimed by others.
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
    /// When datagrams brought what comes next in [`ToShard::Fed`] and [`ToShard::Pulled`], where that is
    /// another time than before.
    Came(Tick),
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
    /// With other mail, now and then: when the turn that sent it began.
    Posted { at: Tick },
    /// From outside: a guest wants one group of a track at home here, the newest where none is
    /// named.
    FetchForGuest {
        guest: GuestId,
        broadcast: Path,
        track: Arc<str>,
        group: Option<u64>,
        line: guest::Line,
    },
    /// From outside: the newest group that is held will do.
    GuestSettles { guest: GuestId },
    /// From outside: it waits no more.
    GuestLeaves { guest: GuestId },
    /// From outside: somebody wants a session before there is a connection.
    Knock(Box<Knock>),
    /// From outside: a connection for a session that was let in.
    TakeOver(Box<Newcomer>),
    /// From outside: the announced paths after this one, or from the first on.
    List { after: Option<Path>, page: PageLine },
    /// From outside: from now on this is who may do what.
    Access(Arc<Access>),
    /// From outside: what the auth server says of a session.
    Leased(Leased),
    /// From outside: what it has counted, and so many of its tracks.
    Report { tracks: usize, line: oneshot::Sender<Box<Report>> },
    /// From outside: the next sessions from this connection slot on.
    Sessions { from: usize, line: oneshot::Sender<SessionsPage> },
    /// From outside: the next tracks after this one, or from the first on.
    Tracks { after: Option<Arc<TrackKey>>, line: oneshot::Sender<TracksPage> },
    /// From outside: whether these sessions may go on, by connection slot and generation.
    Check { sessions: Vec<(u32, u32)>, done: oneshot::Sender<()> },
    /// From outside: these sessions are to end.
    Kick { sessions: Vec<(u32, u32)>, done: oneshot::Sender<()> },
    /// From outside: whether this shard turns.
    Turn { turned: oneshot::Sender<()> },
    /// From outside: whether another process is there, of the other generation.
    Shared(bool),
    /// From outside: who is told what becomes of links.
    Links(Line),
    /// From outside: another relay is to be dialled.
    Dial(Box<Dial>),
    /// From outside: a link, or what is to become one, is not wanted any more.
    HangUp(LinkId),
    /// From outside: what the process shows that is to take over, when it dials; none is to any more.
    Heir(Option<HeirKey>),
    /// From outside: dial the process before this one, and say how that is.
    DialBefore(Box<Dial>, mpsc::Sender<Result<(), String>>),
    /// From outside: ask every session to move elsewhere, and those that begin from now on.
    Drain,
    /// From outside: ask nobody any more.
    Stay,
    /// From outside: how many connections there are.
    Load { line: oneshot::Sender<usize> },
    /// From outside: how many sessions there are.
    Count { line: mpsc::Sender<usize> },
    /// From outside: close every session and end.
    Stop,
}

impl From<Leased> for ToShard {
    fn from(leased: Leased) -> ToShard {
        ToShard::Leased(leased)
    }
}

impl From<Order> for ToShard {
    fn from(order: Order) -> ToShard {
        match order {
            Order::Report(line) => ToShard::Links(line),
            Order::Dial(dial) => ToShard::Dial(dial),
            Order::HangUp(link) => ToShard::HangUp(link),
        }
    }
}

impl ToShard {
    /// Whether somebody only looks at this shard, who is not to keep it awake.
    pub(super) fn is_a_look(&self) -> bool {
        use ToShard::{Count, Load, Report, Sessions, Tracks, Turn};
        matches!(
            self,
            Turn { .. }
                | Count { .. }
                | Load { .. }
                | Report { .. }
                | Sessions { .. }
                | Tracks { .. }
        )
    }
}
