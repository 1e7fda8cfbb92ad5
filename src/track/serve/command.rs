//! What the serve loop is told of those who read a track, and what it wants done.

use std::sync::Arc;

use crate::route::SessionRef;
use crate::track::demand::{Demand, Reach};
use crate::track::fetch::{Ask, Asker, FetchId};
use crate::track::{Feed, PullRef};
use crate::wire::{Path, Preferences, StreamCode};

/// What the home wants of the session that pulls a track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullCommand {
    /// What is this track like? The first of all commands.
    Ask {
        pull: PullRef,
        broadcast: Path,
        track: Arc<str>,
        /// The one that this copy's timestamps have, where that is settled: those of another
        /// publisher are converted.
        timescale: Option<u64>,
    },
    /// Subscribe already: what this is to bring waits for the first [`PullCommand::Want`] or
    /// [`PullCommand::Pause`].
    Wish {
        pull: PullRef,
        wanted: Preferences,
    },
    /// Subscribe, or change the subscription that is open or was paused.
    Want {
        pull: PullRef,
        wanted: Preferences,
    },
    /// Nobody is interested for now: preferences that keep the stream open and quiet.
    Pause {
        pull: PullRef,
        wanted: Preferences,
    },
    Fetch {
        pull: PullRef,
        fetch: FetchId,
        ask: Ask,
    },
    /// Somebody else waits for that too, if it has not come.
    JoinFetch {
        pull: PullRef,
        fetch: FetchId,
        asker: Asker,
    },
    /// Nobody waits for that any more.
    Abandon {
        pull: PullRef,
        fetch: FetchId,
    },
    /// Close whatever is open for this track and forget it.
    Release {
        pull: PullRef,
    },
}

/// What all readers of a track need together, fetches aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Somebody waits to learn what the track is like.
    pub info: bool,
    /// Somebody subscribes, if only to an empty range.
    pub feed: bool,
    pub demand: Option<Demand>,
}

impl Need {
    /// How far back those who subscribe reach, if anybody does.
    pub fn reach(&self) -> Option<Reach> {
        self.feed.then(|| self.demand.map_or(Reach::NEWEST, |demand| demand.reach))
    }

    pub fn merge(self, other: Need) -> Need {
        Need {
            info: self.info || other.info,
            feed: self.feed || other.feed,
            demand: Demand::merged(self.demand.into_iter().chain(other.demand)),
        }
    }
}

#[derive(Debug)]
pub enum Act {
    Command(SessionRef, PullCommand),
    /// What readers are to be told.
    Tell(Feed),
    /// This fetch has come to nothing.
    FailFetch(FetchId, StreamCode),
    /// Nobody can serve this track.
    Fail(StreamCode),
}
