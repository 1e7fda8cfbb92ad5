//! What the desk says of links.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{BadEntry, Place};

/// What is worth a line in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    Dialing {
        place: Place,
        address: SocketAddr,
    },
    Up {
        place: Place,
        hop: u64,
    },
    Failed {
        place: Place,
        error: String,
        retry_in: Duration,
        is_denied: bool,
    },
    /// There is no link any more, and nobody is dialled now.
    Over {
        place: Place,
        error: String,
    },
    Itself {
        place: Place,
    },
    /// Another relay has our hop id, as far as that can be known.
    SameHop {
        place: Place,
        hop: u64,
    },
    Yields {
        place: Place,
        hop: u64,
    },
    Leaves {
        place: Place,
    },
    /// It is named or listed no more.
    Unwanted {
        place: Place,
        address: Option<SocketAddr>,
    },
    Redirected {
        place: Place,
        to: Place,
    },
    /// It would have us go where we do not.
    NotRedirected {
        place: Place,
        error: BadEntry,
    },
    NotFound {
        place: Place,
        error: String,
    },
    /// There are more than one relay dials: of a name, or of all that are named and listed.
    LeftOut {
        place: Option<Place>,
        relays: usize,
    },
}
