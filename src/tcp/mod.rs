//! TCP connections that a shard has taken over: bytes in and out, with or without TLS, which of them can go
//! on (`poll`), and what the kernel knows of their paths.
//!
//! Whoever accepted a connection hands it over as it is ([`Handover`]): the socket, TLS after its handshake,
//! and what came behind the bytes that were read. From then on one shard has it, and nobody else.

mod poll;
mod socket;

pub use poll::{Poll, Ready};
pub use socket::{Handover, Read, Socket};
