//! What a turn looks at of what peers make many of, counted in pieces: the measure of its work that
//! needs no clock.

/// By kind, in one turn.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Visits {
    /// Mail of other shards.
    pub mail: u32,
    pub datagrams: u32,
    /// Events of connections, what sessions ask for, and timers.
    pub events: u32,
    /// Messages, and groups on their way to one viewer.
    pub messages: u32,
    /// Changes of routes.
    pub routes: u32,
    /// Announced paths, to tell listeners.
    pub paths: u32,
    /// Tracks of which a route has changed, whose time has come, or that a lost peer was at.
    pub tracks: u32,
    /// Pieces of groups that are taken in or passed on.
    pub pieces: u32,
    /// Subscriptions and fetches that are served.
    pub readers: u32,
    /// Groups, to find those that viewers are sent or that leave the cache.
    pub groups: u32,
    /// Those who wait for single groups.
    pub fetchers: u32,
}

impl Visits {
    pub fn sum(&self) -> u64 {
        let Visits { mail, datagrams, events, messages, routes, .. } = *self;
        let Visits { paths, tracks, pieces, readers, groups, fetchers, .. } = *self;
        let kinds = [mail, datagrams, events, messages, routes, paths, tracks, pieces, readers];
        kinds.into_iter().chain([groups, fetchers]).map(u64::from).sum()
    }

    /// The most of each kind.
    pub fn max(self, other: Visits) -> Visits {
        Visits {
            mail: self.mail.max(other.mail),
            datagrams: self.datagrams.max(other.datagrams),
            events: self.events.max(other.events),
            messages: self.messages.max(other.messages),
            routes: self.routes.max(other.routes),
            paths: self.paths.max(other.paths),
            tracks: self.tracks.max(other.tracks),
            pieces: self.pieces.max(other.pieces),
            readers: self.readers.max(other.readers),
            groups: self.groups.max(other.groups),
            fetchers: self.fetchers.max(other.fetchers),
        }
    }
}
