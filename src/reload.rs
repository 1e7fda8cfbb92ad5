//! The thread that looks at files: certificates, who vouches for clients, and keys. What changes is in use for
//! whoever comes from then on; where it is bad, what was there before stays, and the log says why.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::{oneshot, watch};

use crate::access::{Access, KeySet, Remark};
use crate::files::Look;
use crate::keyring::{self, Keyring};
use crate::limits::{FILES_LOOK_INTERVAL, FILES_LOOK_REST};
use crate::mailbox::Outside;
use crate::shard::message::ToShard;
use crate::tls::Keeper;

/// How soon a shard is tried again whose lane is full.
const RETRY_AFTER: Duration = Duration::from_millis(1);

/// What is looked at.
pub struct Files {
    pub certificates: Keeper,
    /// None where there are no keys.
    pub keys: Option<Keyring>,
    /// Of HTTP, which sees what is in it at once.
    pub access: watch::Sender<Arc<Access>>,
    /// Which are told by mail.
    pub shards: Vec<Outside<ToShard>>,
}

pub struct Reload {
    thread: JoinHandle<()>,
    asks: mpsc::Sender<Ask>,
}

/// What the thread is asked to do.
#[derive(Debug)]
pub enum Ask {
    /// To look at once; to answer, if somebody listens, when every shard has what was found.
    Look(Option<oneshot::Sender<()>>),
    Stop,
}

impl Reload {
    pub fn start(files: Files) -> io::Result<Reload> {
        let (asks, asked) = mpsc::channel();
        let body = move || run(files, &asked);
        let thread = thread::Builder::new().name("files".to_owned()).spawn(body)?;
        Ok(Reload { thread, asks })
    }

    pub fn asks(&self) -> mpsc::Sender<Ask> {
        self.asks.clone()
    }

    pub fn stop(self) -> thread::Result<()> {
        let _ = self.asks.send(Ask::Stop);
        self.thread.join()
    }
}

fn run(mut files: Files, asked: &mpsc::Receiver<Ask>) {
    let mut untold: Vec<Outside<ToShard>> = Vec::new();
    let mut pause = FILES_LOOK_INTERVAL;
    let mut looked_at = Instant::now();
    let mut askers = Vec::new();
    loop {
        let wait = if untold.is_empty() { pause } else { RETRY_AFTER };
        let is_asked = match asked.recv_timeout(wait) {
            Ok(Ask::Look(asker)) => {
                askers.extend(asker);
                true
            }
            Err(RecvTimeoutError::Timeout) => false,
            Ok(Ask::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        };
        if is_asked || looked_at.elapsed() >= pause {
            looked_at = Instant::now();
            let look = Look { now: looked_at, is_asked };
            let has_certificates = files.certificates.look(look, OffsetDateTime::now_utc());
            let has_keys = look_at_keys(&mut files, look, &mut untold);
            drop_removed_keys(&mut files, &mut untold);
            if is_asked && !has_certificates && !has_keys {
                tracing::info!("certificates and keys are as they were");
            }
            pause = FILES_LOOK_INTERVAL.max(looked_at.elapsed() * FILES_LOOK_REST);
        }
        let now = files.access.borrow().clone();
        untold.retain(|shard| shard.send(ToShard::Access(now.clone())).is_err());
        if untold.is_empty() {
            // Who has asked may have given up.
            for asker in askers.drain(..) {
                let _ = asker.send(());
            }
        }
    }
}

/// Whether anything is new; who is to be told of it then is in the list.
fn look_at_keys(files: &mut Files, look: Look, untold: &mut Vec<Outside<ToShard>>) -> bool {
    match files.keys.as_mut().and_then(|keys| keys.look(look)) {
        None => return false,
        Some(Ok(keys)) => {
            tracing::info!(keys = keys.len(), "other keys: sessions of those that are gone end");
            let before = files.access.borrow().clone();
            let known: HashSet<&Remark> = before.keys.remarks().iter().collect();
            keyring::tell(keys.remarks().iter().filter(|remark| !known.contains(remark)));
            use_keys(files, keys, untold);
        }
        Some(Err(error)) => {
            tracing::warn!(
                %error,
                "keys cannot be used, and those from before stay until all files are good; but those whose \
                 file was removed from --auth-key-dir do not count"
            );
        }
    }
    true
}

/// Whoever removes a key is not to wait until somebody has mended another file.
fn drop_removed_keys(files: &mut Files, untold: &mut Vec<Outside<ToShard>>) {
    let Some(keyring) = files.keys.as_mut().filter(|keys| keys.is_bad()) else { return };
    let Some(keys) = keyring.without_removed(&files.access.borrow().keys) else { return };
    tracing::info!(keys = keys.len(), "keys were removed: sessions of those end");
    use_keys(files, keys, untold);
}

/// HTTP has them at once, and all shards are to be told.
fn use_keys(files: &Files, keys: KeySet, untold: &mut Vec<Outside<ToShard>>) {
    let before = Access::clone(&files.access.borrow());
    files.access.send_replace(Arc::new(Access { keys: Arc::new(keys), ..before }));
    *untold = files.shards.clone();
}
