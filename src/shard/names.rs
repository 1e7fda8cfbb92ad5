//! What shards call things between them.

use std::sync::Arc;

use crate::route::{SessionRef, Trust};
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

/// Names a guest among all that this relay ever has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GuestId(pub u64);

/// Whose a track is, as far as what it takes has to be shared out: an address has many sessions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Owner {
    Address(u64),
    Relay(SessionRef),
}

impl Owner {
    pub fn of(trust: Trust, session: SessionRef) -> Owner {
        match trust {
            Trust::Stranger { at } => Owner::Address(at),
            Trust::Relay => Owner::Relay(session),
        }
    }
}
