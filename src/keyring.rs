//! Files of keys, read again when they change. A set that is whole takes the place of the one before, on
//! every shard; where a file is bad the one before stays, and the log says why.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use tokio::sync::watch;

use crate::access::{Access, KeyError, KeyFile, KeySet, read_key_files};
use crate::limits::{KEYS_LOOK_INTERVAL, KEYS_LOOK_REST};
use crate::shard::mailbox::Outside;
use crate::shard::message::ToShard;

/// How soon a shard is tried again whose lane is full.
const RETRY_AFTER: Duration = Duration::from_millis(1);

/// Where keys are, and what was there at the last look.
pub struct Keyring {
    files: Vec<PathBuf>,
    directory: Option<PathBuf>,
    /// Of the files whose keys are in use. What is in them is secret and not kept.
    in_use: Sum,
    /// What could not be used at the last look, and whether that was told.
    bad: Option<(Result<Sum, KeyError>, bool)>,
}

type Sum = [u8; 32];

impl Keyring {
    /// With the keys of now.
    pub fn open(
        files: Vec<PathBuf>,
        directory: Option<PathBuf>,
    ) -> Result<(Keyring, KeySet), KeyError> {
        let read = read_key_files(&files, directory.as_deref())?;
        let keys = KeySet::new(&read)?;
        Ok((Keyring { files, directory, in_use: sum(&read), bad: None }, keys))
    }

    /// Reads the files again: other keys, or why there are none. A file may be looked at while somebody
    /// writes it, so what is bad is told when it was so at two looks.
    fn look(&mut self) -> Option<Result<KeySet, KeyError>> {
        let read = read_key_files(&self.files, self.directory.as_deref());
        let seen = read.as_deref().map(sum).map_err(KeyError::clone);
        if seen == Ok(self.in_use) {
            self.bad = None;
            return None;
        }
        match (read.and_then(|read| KeySet::new(&read)), &mut self.bad) {
            (Ok(keys), _) => {
                (self.in_use, self.bad) = (seen.expect("there are keys"), None);
                Some(Ok(keys))
            }
            (Err(error), Some((before, is_told))) if *before == seen => {
                (!std::mem::replace(is_told, true)).then_some(Err(error))
            }
            (Err(_), bad) => {
                *bad = Some((seen, false));
                None
            }
        }
    }
}

/// The same for the same files with the same bytes.
fn sum(files: &[KeyFile]) -> Sum {
    let mut context = digest::Context::new(&digest::SHA256);
    for file in files {
        for part in [file.path.as_os_str().as_encoded_bytes(), &file.bytes] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    context.finish().as_ref().try_into().expect("SHA-256 is 32 bytes")
}

/// The thread that looks at a keyring.
pub struct Watcher {
    thread: JoinHandle<()>,
    /// Dropped to stop it.
    stop: mpsc::Sender<Infallible>,
}

impl Watcher {
    /// From now on all shards and HTTP have the keys that are in the files.
    pub fn start(
        keyring: Keyring,
        access: watch::Sender<Arc<Access>>,
        shards: Vec<Outside<ToShard>>,
    ) -> io::Result<Watcher> {
        let (stop, stopped) = mpsc::channel();
        let body = move || run(keyring, &access, &shards, &stopped);
        let thread = thread::Builder::new().name("keys".to_owned()).spawn(body)?;
        Ok(Watcher { thread, stop })
    }

    pub fn stop(self) -> thread::Result<()> {
        drop(self.stop);
        self.thread.join()
    }
}

fn run(
    mut keyring: Keyring,
    access: &watch::Sender<Arc<Access>>,
    shards: &[Outside<ToShard>],
    stopped: &mpsc::Receiver<Infallible>,
) {
    let mut untold: Vec<&Outside<ToShard>> = Vec::new();
    let mut pause = KEYS_LOOK_INTERVAL;
    let mut looked_at = Instant::now();
    loop {
        let wait = if untold.is_empty() { pause } else { RETRY_AFTER };
        let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(wait) else { return };
        if looked_at.elapsed() >= pause {
            looked_at = Instant::now();
            match keyring.look() {
                None => {}
                Some(Ok(keys)) => {
                    tracing::info!(
                        keys = keys.len(),
                        "other keys: sessions of those that are gone end"
                    );
                    let before = Access::clone(&access.borrow());
                    access.send_replace(Arc::new(Access { keys: Arc::new(keys), ..before }));
                    untold = shards.iter().collect();
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "keys cannot be used, and those from before stay");
                }
            }
            pause = KEYS_LOOK_INTERVAL.max(looked_at.elapsed() * KEYS_LOOK_REST);
        }
        let now = access.borrow().clone();
        untold.retain(|shard| shard.send(ToShard::Access(now.clone())).is_err());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::access::{Algorithm, KeyFault, SigningKey};

    /// A directory of keys, removed at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let path =
                std::env::temp_dir().join(format!("shardcast-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Directory(path)
        }

        fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
            fs::write(self.0.join(name), bytes).unwrap();
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn key() -> String {
        SigningKey::generate(Algorithm::ES256, None, None).unwrap().public_json().unwrap()
    }

    fn count(look: Option<Result<KeySet, KeyError>>) -> usize {
        look.expect("something is new").expect("keys").len()
    }

    #[test]
    fn what_changes_is_read_whole() {
        let directory = Directory::new("keyring");
        directory.write("a.jwk", key());
        let (mut keyring, keys) = Keyring::open(Vec::new(), Some(directory.0.clone())).unwrap();
        assert_eq!(keys.len(), 1);
        assert!(keyring.look().is_none());
        directory.write("b.jwk", key());
        assert_eq!(count(keyring.look()), 2);
        assert!(keyring.look().is_none());
        // Of one length, and within whatever a file system takes for an instant.
        for _ in 0..5 {
            directory.write("b.jwk", key());
            assert_eq!(count(keyring.look()), 2);
        }
        fs::rename(directory.0.join("b.jwk"), directory.0.join("c.jwk")).unwrap();
        assert_eq!(count(keyring.look()), 2);
        fs::remove_file(directory.0.join("a.jwk")).unwrap();
        fs::remove_file(directory.0.join("c.jwk")).unwrap();
        assert_eq!(count(keyring.look()), 0);
    }

    #[test]
    fn what_is_bad_is_told_once_and_changes_nothing() {
        let directory = Directory::new("bad-keyring");
        let good = key();
        directory.write("a.jwk", &good);
        let file = directory.0.join("a.jwk");
        let (mut keyring, _) = Keyring::open(vec![file.clone()], None).unwrap();
        directory.write("a.jwk", &good[..good.len() / 2]);
        assert!(keyring.look().is_none(), "somebody may be writing it");
        let error = keyring.look().expect("it stays so").expect_err("it is half a key");
        assert_eq!(error.path, file);
        assert!(keyring.look().is_none(), "it was told");
        fs::remove_file(&file).unwrap();
        assert!(keyring.look().is_none());
        let error = keyring.look().expect("it stays so").expect_err("it is gone");
        assert!(matches!(error.fault, KeyFault::Unreadable(_)), "{error}");
        directory.write("a.jwk", &good);
        assert!(keyring.look().is_none(), "the keys in use are there again");
        directory.write("a.jwk", key());
        assert_eq!(count(keyring.look()), 1);
    }

    #[test]
    fn what_is_bad_at_first_is_an_error() {
        let directory = Directory::new("no-keyring");
        assert!(Keyring::open(vec![directory.0.join("a.jwk")], None).is_err());
        assert!(Keyring::open(Vec::new(), Some(directory.0.join("keys"))).is_err());
        directory.write("a.jwk", "{}");
        assert!(Keyring::open(Vec::new(), Some(directory.0.clone())).is_err());
    }
}
