//! The auth server, asked over every way that there is, and the relay that asks it: with the reference
//! server of crate `moq-auth` on the one side and released clients on the other.

#[allow(dead_code, reason = "this needs a part of what the plays with processes share")]
#[path = "support/process.rs"]
mod process;

#[allow(dead_code, reason = "this needs a part of what the plays with certificates share")]
#[path = "support/cards.rs"]
mod cards;

#[path = "authority/judge.rs"]
mod judge;
#[path = "authority/relay.rs"]
mod relay;
#[path = "authority/ways.rs"]
mod ways;
