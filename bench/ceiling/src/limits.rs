//! What a client can make this program hold, beside the relay's own bounds that it uses too.

/// Connections at once: more than a load client opens on one machine.
pub const CONNECTIONS_MAX: usize = 1 << 14;

/// Bytes that wait for one client's flow control: what a connection of the relay may have in flight,
/// four times. The group that exceeds it is reset.
pub const QUEUED_BYTES_MAX: usize = 4 << 20;

/// Groups that wait for a stream of one client.
pub const STARVED_GROUPS_MAX: usize = 4096;

/// Answers that belong to no connection and wait for a full socket.
pub const RESPONSES_MAX: usize = 256;
