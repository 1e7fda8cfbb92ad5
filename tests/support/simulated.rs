//! What plays in the simulated world share.
#![allow(dead_code, unused_imports, reason = "each play needs a part of it")]

pub mod http3;
pub mod network;
pub mod peer;
pub mod world;
