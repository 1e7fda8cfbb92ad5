//! What goes from a process to the one that comes after it: the sockets at its address, its listeners for HTTP,
//! its secrets. And what is to be done with them when one takes over, and when the other is gone.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::limits::{HEIR_MAIL_PAUSE, HEIR_MAIL_WAIT_MAX};
use crate::mailbox::Outside;
use crate::net::{BindError, Rows};
use crate::quic::CongestionControl;
use crate::shard::links::HeirKey;
use crate::shard::message::ToShard;
use crate::state::{self, Secrets, StateError};
use crate::tls::Certificates;

/// What listeners are for.
pub const HTTP: &str = "http";
pub const HTTPS: &str = "https";
pub const INTERNAL: &str = "internal";
pub const LISTENERS: [&str; 3] = [HTTP, HTTPS, INTERNAL];

/// What a relay begins with that another process has had.
#[derive(Default)]
pub struct Inherited {
    /// Of that process.
    pub secrets: Option<Secrets>,
    pub rows: Option<Rows>,
    /// By what they are for.
    pub listeners: Vec<(String, TcpListener)>,
    /// That process is still there.
    pub is_shared: bool,
    /// systemd keeps all this.
    pub is_kept: bool,
    /// The hop id of that process.
    pub hop: Option<u64>,
}

impl Inherited {
    /// The listener for something, if it is at this address.
    pub fn listener(&mut self, name: &str, address: SocketAddr) -> Option<TcpListener> {
        let is_it = |(known, listener): &(String, TcpListener)| {
            let fits = |bound: SocketAddr| {
                bound.ip() == address.ip() && [0, bound.port()].contains(&address.port())
            };
            known == name && listener.local_addr().is_ok_and(fits)
        };
        let at = self.listeners.iter().position(is_it)?;
        Some(self.listeners.swap_remove(at).1)
    }
}

/// The process before this one, which is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    pub process: u32,
    pub sessions: usize,
    /// Until it ends in any case.
    pub seconds: u64,
}

/// What a relay has that another process may need.
#[derive(Clone)]
pub struct Estate {
    pub rows: Arc<Rows>,
    /// Of this process.
    pub secrets: Secrets,
    pub listeners: Arc<Vec<(String, TcpListener)>>,
    pub shards: Vec<Outside<ToShard>>,
    /// Whether HTTP connections are taken.
    pub gate: watch::Sender<bool>,
    pub before: watch::Sender<Option<Before>>,
    /// Where secrets are kept.
    pub state_dir: Option<PathBuf>,
    pub hop: u64,
    pub certificates: Arc<Certificates>,
    pub congestion_control: CongestionControl,
}

impl Estate {
    /// From now on clients come to this process. That of the other generation has what is for its connections,
    /// if it is still there.
    pub fn take_over(&self, is_shared: bool) -> Result<(), BindError> {
        self.tell(is_shared);
        self.rows.steer(self.secrets.generation, is_shared)?;
        self.gate.send_replace(true);
        Ok(())
    }

    /// The next process finds the secrets of this one, whatever becomes of it.
    pub fn keep(&self) -> Result<(), StateError> {
        self.keep_secrets(&self.secrets)
    }

    /// Those of the process before this one, which has kept them already, are written once more: where that cannot
    /// be, those of this one could not be kept either, and nothing has changed yet.
    pub fn can_keep(&self) -> Result<(), StateError> {
        self.keep_secrets(&self.secrets.clone().next())
    }

    /// Where clients come already that cannot be undone.
    pub fn keep_or_say(&self) {
        if let Err(error) = self.keep() {
            tracing::warn!(%error, "clients of this process will not be told of its end by the next one");
        }
    }

    fn keep_secrets(&self, secrets: &Secrets) -> Result<(), StateError> {
        self.state_dir.as_ref().map_or(Ok(()), |directory| state::keep(directory, secrets))
    }

    /// Another process is there, which may take over: it has what is for its connections, and whoever comes
    /// comes to this one. `heir` is what it will show when it dials.
    pub fn share(&self, heir: &HeirKey) -> Result<(), BindError> {
        self.send(|| ToShard::Heir(Some(heir.clone())));
        self.tell(true);
        self.rows.steer(self.secrets.generation, true)
    }

    /// That one has taken over: HTTP connections are its own.
    pub fn make_way(&self) {
        self.gate.send_replace(false);
    }

    /// The other process is gone: whoever still speaks to it is told so, and what waits for it is answered in
    /// its place.
    pub fn be_alone(&self) -> Result<(), BindError> {
        self.take_over(false)?;
        self.send(|| ToShard::Heir(None));
        self.rows.left_behind(self.secrets.generation.other(), &mut |shard, datagram| {
            // Under overload it is lost like any other.
            let _ = self.shards[shard].send(ToShard::Datagram(datagram));
        });
        Ok(())
    }

    /// Sessions were asked to move for nothing: nobody else is asked.
    pub fn stay(&self) {
        self.send(|| ToShard::Stay);
    }

    fn tell(&self, is_shared: bool) {
        self.send(|| ToShard::Shared(is_shared));
    }

    fn send(&self, mail: impl Fn() -> ToShard) {
        for shard in untold(&self.shards, mail) {
            tracing::warn!(
                shard,
                "a shard takes no mail, and is not told how it is with another process: clients of one that is gone \
                 may find that out by silence, and those that come may be asked to move to it"
            );
        }
    }
}

/// Sends mail to each shard, and says which did not take it. A lane is full only while its shard works through it;
/// one that stands still takes no time from the others.
fn untold(shards: &[Outside<ToShard>], mail: impl Fn() -> ToShard) -> Vec<usize> {
    let until = Instant::now() + HEIR_MAIL_WAIT_MAX;
    let mut untold: Vec<usize> = (0..shards.len()).collect();
    loop {
        untold.retain(|shard| shards[*shard].send(mail()).is_err());
        if untold.is_empty() || Instant::now() >= until {
            return untold;
        }
        std::thread::sleep(HEIR_MAIL_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;

    use super::*;
    use crate::mailbox::{Post, mesh};

    /// The lanes of two are full. One stands still, and there is room in the other's for a moment only.
    #[test]
    fn a_shard_that_stands_still_takes_no_time_from_the_others() {
        let mut posts = mesh(3, 1);
        let shards: Vec<_> = posts.iter().map(Post::outside).collect();
        for shard in &shards[..2] {
            shard.send(ToShard::Stay).unwrap();
        }
        let (busy, tries) = (RefCell::new(posts.swap_remove(1)), Cell::new(0));
        let untold = untold(&shards, || {
            tries.set(tries.get() + 1);
            match tries.get() {
                10 => _ = busy.borrow_mut().take(1, &mut VecDeque::new()),
                // Nothing where it was told meanwhile.
                20 => _ = shards[1].send(ToShard::Stay),
                _ => {}
            }
            ToShard::Shared(false)
        });
        assert_eq!(untold, [0]);
    }
}
