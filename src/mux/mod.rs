//! Many streams on one stream of bytes: qmux, the drafts 00, 01 and 02, in messages of a WebSocket.
//!
//! * `ws`: bytes in any pieces ⇄ WebSocket messages.
//! * `frame`: messages ⇄ frames and transport parameters.
//! * `stream`: one stream, both halves: what waits, and credit.
//! * `schedule`: whose turn it is to send.
//! * `state`: all of one connection. Bytes and time go in, events come out; bytes come out on demand, so
//!   many at a time, so that what is late can be dropped as long as possible.
//!
//! Nothing here knows a socket, TLS, a clock or a moq message.

pub mod frame;
mod schedule;
mod state;
mod stream;
pub mod ws;

pub use frame::{Frame, Parameters, Wire};
pub use state::Mux;

/// What is wrong with what a client has sent, and the status of the Close that tells it: the same number is
/// the code of a CONNECTION_CLOSE, as released peers have it.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("{reason}")]
pub struct Violation {
    pub code: u16,
    pub reason: &'static str,
}

impl Violation {
    fn protocol(reason: &'static str) -> Violation {
        Violation { code: 1002, reason }
    }

    fn text() -> Violation {
        Violation { code: 1003, reason: "text, where bytes are spoken" }
    }

    fn too_large() -> Violation {
        Violation { code: 1009, reason: "a message that is too large" }
    }
}
