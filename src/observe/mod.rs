//! What a shard counts and how that is read: plain cells that one shard owns, a span of time in few bytes,
//! and the text that Prometheus asks for. Knows numbers and words, and not why anything is counted.
//!
//! * [`Departures`]: when content came that leaves now.
//! * [`Histogram`]: how often a value was about so large, in buckets that grow with it.
//! * [`Tally`]: how often each of some words was the reason.
//! * [`Tick`]: a moment in four bytes, for spans of up to an hour.
//! * [`Text`]: the exposition format of Prometheus, version 0.0.4.

mod departures;
mod histogram;
mod tally;
mod text;
mod tick;

pub use departures::Departures;
pub use histogram::Histogram;
pub use tally::Tally;
pub use text::{Kind, Text};
pub use tick::Tick;
