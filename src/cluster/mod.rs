//! Other relays that this one is linked to: which there should be, who dials, and how links are.
//!
//! * [`desk`]: all links as one state machine. Time comes in as an argument. `peer`: one relay of it.
//! * `find`: where names lead. `list`: a list of relays that changes.
//! * `thread`: the thread on which all that runs.
//!
//! Shards make connections and say what becomes of them ([`News`]); they know nothing of why.

pub mod desk;
mod find;
mod list;
mod peer;
mod said;
mod thread;

use tokio::sync::{mpsc, oneshot};

use crate::config::{Entry, Place};
use crate::quic::{Callee, Outgoing};
use crate::route::SessionRef;
use crate::session::Call;
use desk::{Found, Row};

pub use list::list_in;
pub use thread::{About, Cluster, Handle, Ready, StartError, token_in};

/// One connection that a shard was asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

impl LinkId {
    /// To the process before this one, which is no relay of the cluster.
    pub const BEFORE: LinkId = LinkId(u64::MAX);
}

/// A connection that is to be made.
#[derive(Debug)]
pub struct Dial {
    pub link: LinkId,
    pub outgoing: Outgoing,
    pub callee: Callee,
    pub call: Call,
}

/// What shards are told of links.
#[derive(Debug)]
pub enum Order {
    /// From now on whoever has this line hears what becomes of them.
    Report(Line),
    Dial(Box<Dial>),
    /// One is not wanted any more, or what is to become one.
    HangUp(LinkId),
}

/// What a shard says of links.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// It is up, and this is the hop id of the peer: the relay's own where that is itself.
    Up {
        link: LinkId,
        hop: u64,
    },
    /// The peer leaves, and would have us go there; or dial again where it was dialled, if that is empty.
    Leaving {
        link: LinkId,
        to: String,
    },
    /// It is over, or has not come about.
    Down {
        link: LinkId,
        reason: String,
        /// The peer does not let this relay in.
        is_denied: bool,
    },
    /// A relay of this cluster has dialled this one, and may do everything here.
    Guest {
        session: SessionRef,
        hop: u64,
    },
    GuestLeft {
        session: SessionRef,
    },
}

/// What whoever keeps the links is told.
#[derive(Debug)]
pub enum Mail {
    News(News),
    Found {
        place: Place,
        found: Found,
    },
    /// From now on these are the relays that are listed.
    Listed(Vec<Entry>),
    /// Why the list cannot be read, or that it can be.
    ListFault(Option<String>),
    /// Somebody wants to know how links are.
    Show(oneshot::Sender<Shown>),
    /// The relay ends: nobody is to be dialled any more.
    Leave,
    /// Another process has taken over: nobody is to be dialled for now.
    Rest,
    /// It is gone, and this one goes on.
    GoOn,
    Stop,
}

/// How it is with all relays that there should be links with, and with the list that names some of them.
#[derive(Debug, Default)]
pub struct Shown {
    pub rows: Vec<Row>,
    pub list: Option<Listing>,
}

/// A list of relays that changes.
#[derive(Debug)]
pub struct Listing {
    /// Where it is, without what may be secret.
    pub from: String,
    /// How many it named when it could last be read.
    pub relays: usize,
    /// Why it cannot be read now.
    pub last_error: Option<String>,
}

/// The way to whoever keeps the links, for shards. What waits there is bounded by what sessions there can be.
#[derive(Clone, Debug)]
pub struct Line(mpsc::UnboundedSender<Mail>);

impl Line {
    pub fn new() -> (Line, mpsc::UnboundedReceiver<Mail>) {
        let (to, from) = mpsc::unbounded_channel();
        (Line(to), from)
    }

    pub fn tell(&self, news: News) {
        // Whoever has asked for links may be gone before them.
        let _ = self.0.send(Mail::News(news));
    }
}
