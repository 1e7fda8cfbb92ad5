//! qmux in WebSocket messages: bytes that released clients have sent, plays of one rule each, and two ends
//! that talk at random over pipes that cut what they carry.

mod pipes;
mod plays;
mod support;
mod vectors;
