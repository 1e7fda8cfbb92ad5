//! shardcast: a relay for Media over QUIC Lite, one pinned io_uring executor per core.
//!
//! N pinned shards; each owns one socket, its connections and its tracks; a turn takes datagrams
//! and mail in and gives datagrams and mail out.
//!
//! * [`wire`]: moq-lite bytes ⇄ messages. Knows no QUIC, no clock and no task.
//! * [`track`]: groups, cursors, demand and the serve loop. Knows no peer and no stream.
//! * [`route`]: the directory of announced routes. Knows no session beyond its name.
//! * [`session`]: one peer as a state machine. Knows neither QUIC nor other sessions.
//! * [`h3`]: the pieces of HTTP/3 under WebTransport, bytes ⇄ values. Knows no connection.
//! * [`quic`]: quinn-proto held by hand, and WebTransport on it. The only folder that names it.
//! * [`net`]: the UDP sockets and which shard a datagram belongs to.
//! * [`shard`]: the only folder that sees all of the above.
//! * [`web`]: HTTP on a thread of its own. Asks shards by mail; knows no session and no QUIC.
//! * [`access`]: who may do what, from a token, a path, keys and the time. Knows no session and no socket.
//! * [`rt`]: glommio behind a handful of functions. Knows turns, not what they do.
//! * [`relay`], [`config`], [`tls`], [`host`], [`state`]: start-up.
//! * [`watch`]: whether every shard turns, and whether memory runs short.
//! * [`memory`]: the allocator, and the last line of a process that has no memory left.
//! * [`origin`]: which pages of the web may use the relay.
//! * [`authority`]: the operator's auth server, asked who may do what.
//! * [`tool`]: keys and tokens for operators, on the command line.
//! * [`log`]: lines by a bounded queue to a thread that writes them. Nobody waits for it.
//! * [`source`]: where peers come from, as far as an address can tell.
//! * [`secret`]: numbers that only this relay can make.
//! * [`wall`]: the time of day beside the clock that only goes forward.
//! * [`keyring`]: files of keys, read again when they change.
//! * `bucket`: what comes in at a rate and may be saved up to a bound.
//! * `prefetch`: telling the processor what is needed next.
//! * [`limits`]: every bound by name.

pub mod access;
pub mod authority;
mod bucket;
pub mod config;
pub mod h3;
pub mod host;
pub mod keyring;
pub mod limits;
pub mod log;
pub mod memory;
pub mod net;
pub mod origin;
mod prefetch;
pub mod quic;
pub mod relay;
pub mod route;
pub mod rt;
pub mod secret;
pub mod session;
pub mod shard;
pub mod source;
pub mod state;
pub mod tls;
pub mod tool;
pub mod track;
pub mod wall;
pub mod watch;
pub mod web;
pub mod wire;
