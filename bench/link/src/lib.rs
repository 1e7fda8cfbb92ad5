//! A link between clients and a relay: what it is like, for the simulated world too, and one that
//! stands between real sockets.

pub mod link;
pub mod path;
pub mod random;
pub mod wire;
