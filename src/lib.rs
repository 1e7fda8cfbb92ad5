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
//! * [`mux`]: many streams on one stream of bytes, for WebSockets. Knows no socket and no moq message.
//! * [`mailbox`]: mail between shards, whatever it says. Never blocks.
//! * [`net`]: the UDP sockets and which shard a datagram belongs to.
//! * [`tcp`]: TCP connections that a shard has taken over. Knows no stream and no message.
//! * [`shard`]: the only folder that sees all of the above.
//! * [`web`]: HTTP on a thread of its own. Asks shards by mail; knows no session and no QUIC.
//! * [`observe`]: what is counted, and its text. Knows numbers and words, and not why anything is counted.
//! * [`control`]: what operators ask of a relay that runs, over HTTP of its own. Asks shards by mail.
//! * [`access`]: who may do what, from a token, a path, keys and the time. Knows no session and no socket.
//! * [`acme`]: certificates from an authority, ordered on a thread of its own.
//! * [`rt`]: glommio behind a handful of functions. Knows turns, not what they do.
//! * [`relay`], [`config`], [`tls`], [`host`], [`state`]: start-up.
//! * [`cluster`]: other relays that this one is linked to. Knows no moq message and no shard's insides.
//! * [`command`]: what the program does in the place of a relay.
//! * [`check`]: what a relay would be told, looked at without starting one.
//! * [`doctor`]: the host, the network and the certificate, looked at for a relay that is to run or runs.
//! * [`notify`]: what systemd is told of this process.
//! * [`watch`]: whether every shard turns.
//! * [`shares`]: what the memory that the process may use is for.
//! * [`gauge`]: how much of it is used, and whether that is near the most.
//! * [`signals`], [`drain`]: the end, and sessions that are asked to move before it.
//! * [`text`]: what people read, from what is not made for them.
//! * [`memory`]: the allocator, and the last line of a process that has no memory left.
//! * [`origin`]: which pages of the web may use the relay.
//! * [`authority`]: the operator's auth server, asked who may do what.
//! * [`tool`]: keys and tokens for operators, on the command line.
//! * [`top`]: what a relay does, looked at from a terminal.
//! * [`log`]: lines by a bounded queue to a thread that writes them. Nobody waits for it.
//! * [`source`]: where peers come from, as far as an address can tell.
//! * [`secret`]: numbers that only this relay can make.
//! * [`wall`]: the time of day beside the clock that only goes forward.
//! * [`keyring`]: files of keys, read again when they change.
//! * [`reload`]: the thread that reads certificates and keys again when they change, and [`files`] how that is
//!   seen.
//! * `bucket`: what comes in at a rate and may be saved up to a bound.
//! * `window`: how much a peer may have under way towards us.
//! * `prefetch`: telling the processor what is needed next.
//! * [`limits`]: every bound by name.

pub mod access;
pub mod acme;
pub mod authority;
mod bucket;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod command;
pub mod config;
pub mod control;
pub mod doctor;
pub mod drain;
pub mod estate;
pub mod files;
pub mod gauge;
pub mod h3;
pub mod host;
pub mod keyring;
pub mod limits;
pub mod log;
pub mod mailbox;
pub mod memory;
pub mod mux;
pub mod net;
pub mod notify;
pub mod observe;
pub mod origin;
mod prefetch;
pub mod quic;
pub mod relay;
pub mod reload;
pub mod route;
pub mod rt;
pub mod secret;
pub mod session;
pub mod shard;
pub mod shares;
pub mod signals;
pub mod source;
pub mod state;
pub mod store;
pub mod tcp;
pub mod text;
pub mod tls;
pub mod tool;
pub mod top;
pub mod track;
pub mod upgrade;
pub mod wall;
pub mod watch;
pub mod web;
mod window;
pub mod wire;
