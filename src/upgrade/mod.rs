//! Another process takes over from this one while both live, and nobody loses anything.
//!
//! Somebody asks for it (`command`, `place`). The running process starts its own program anew, gives it
//! all that it needs ([`crate::estate`]) over a line between the two (`line`), and waits for its word:
//!
//! ```text
//! old                                  new
//!  | offer, descriptors                 |
//!  |----------------------------------->|  reads settings, starts shards on the other row of sockets, and
//!  |                             ready  |  dials the old one (or says in a line why not: nothing has happened)
//!  |<-----------------------------------|
//!  | go                                 |
//!  |----------------------------------->|  has the kernel steer first flights to itself, takes HTTP connections
//!  |                           serving  |
//!  |<-----------------------------------|  (takes no HTTP connections any more)
//!  | main                               |  tells systemd; asks its sessions to move, and drains
//!  |----------------------------------->|
//!  | left, from time to time            |  tells operators
//!  |----------------------------------->|
//!  |  end of the line                   |  all is its own: answers for what is forgotten
//! ```
//!
//! A line that ends before `serving` is an heir that is lost: the old process has the kernel steer everything to
//! itself again and goes on. So it does later too: it stays for a while even where nobody has a session with it. At most two processes are there, for the generation is one bit.
//!
//! * `desk`: the thread of a process that speaks to who asks, to the one before and to the one after.
//! * `heir`: what the new process does before it has shards.
//! * `line`, `pass`: messages, and descriptors with them.
//! * `link`: the session between the two, by which each has what is published at the other.
//! * `place`: where requests come to.
//! * `command`: `shardcast upgrade`.

mod command;
mod desk;
mod heir;
mod line;
mod link;
mod pass;
mod place;

pub use command::run;
pub use desk::{Desk, Program};
pub use heir::{Heir, HeirError};
pub use place::{directory, wait_until_free};
