//! What outlasts a process: the secrets by which clients of the relay that ran before are told that it has
//! forgotten them, and the files for their owner alone in which these, and what others keep, are.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::files::NOT_REGULAR;
use crate::net::steer::Generation;
use crate::quic::Keys;

/// In the directory of the state.
const SECRETS: &str = "secrets.key";

/// The file's owner, and nobody else.
const OWNER_ONLY: u32 = 0o600;

/// Bytes of one key, and which form its kind has in a file or between processes.
const KEY_BYTES: usize = 32;
const FORM: u8 = 1;

/// What is read of one file at most.
const STATE_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("cannot keep state in {0}: {1}; see --state-dir")]
    Io(PathBuf, io::Error),
    #[error("{0} is not what this relay has written; remove it, and another one is made")]
    Damaged(PathBuf),
    #[error("{0} holds secrets and others may read it; run: chmod 600 {0}")]
    Open(PathBuf),
    #[error(
        "{0} is of user {1}, not of this relay's, and who that is may know what is in it; remove it, or where that \
         user is trusted run: chown {own} {0}",
        own = own_user()
    )]
    Foreign(PathBuf, u32),
}

/// What a process must know of the one before it, to answer whoever still speaks to that one, and to take its
/// tickets.
#[derive(Clone)]
pub struct Secrets {
    pub keys: Keys,
    /// Of which those are made that tickets are encrypted with.
    pub tickets: [u8; KEY_BYTES],
    /// By which first hops are named that are not believed: what a client publishes is the same for the next
    /// process.
    pub hops: [u8; KEY_BYTES],
    /// Of the process that has them.
    pub generation: Generation,
}

impl Secrets {
    pub fn random() -> Secrets {
        let (mut tickets, mut hops) = ([0; KEY_BYTES], [0; KEY_BYTES]);
        for key in [&mut tickets, &mut hops] {
            aws_lc_rs::rand::fill(key).expect("the system has entropy at start-up");
        }
        Secrets { keys: Keys::random(), tickets, hops, generation: Generation::default() }
    }

    /// Those of the next process.
    pub fn next(self) -> Secrets {
        Secrets { generation: self.generation.other(), ..self }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let Secrets { keys, tickets, hops, generation } = self;
        let head = [FORM, generation.bit()];
        [&head[..], &keys.cid, &keys.reset, &keys.token, tickets, hops].concat()
    }

    /// None if that is something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Secrets> {
        let (head, keys) = bytes.split_first_chunk::<2>()?;
        let generation = match head {
            [FORM, 0] => Generation::Even,
            [FORM, 1] => Generation::Odd,
            _ => return None,
        };
        let (keys, []) = keys.as_chunks::<KEY_BYTES>() else { return None };
        let [cid, reset, token, tickets, hops] = *<&[_; 5]>::try_from(keys).ok()?;
        Some(Secrets { keys: Keys { cid, reset, token }, tickets, hops, generation })
    }
}

/// Those of the process before this one, if this directory has them.
pub fn secrets(directory: &Path) -> Result<Option<Secrets>, StateError> {
    let path = directory.join(SECRETS);
    let Some(bytes) = read(&path)? else { return Ok(None) };
    match Secrets::from_bytes(&bytes) {
        Some(secrets) => Ok(Some(secrets)),
        None if is_of_another_version(&bytes) => {
            let path = path.display();
            tracing::warn!(
                %path,
                "another version of this relay has written its secrets there: they are made anew, and clients of the \
                 process before find out by silence that it is gone"
            );
            Ok(None)
        }
        None => Err(StateError::Damaged(path)),
    }
}

/// Whether bytes are secrets of another form, or more or fewer of them than there are now: a number as no text
/// begins with, a generation, and whole keys.
fn is_of_another_version(bytes: &[u8]) -> bool {
    match bytes {
        [1..b' ', 0 | 1, keys @ ..] => !keys.is_empty() && keys.len().is_multiple_of(KEY_BYTES),
        _ => false,
    }
}

/// The directory has these from now on.
pub fn keep(directory: &Path, secrets: &Secrets) -> Result<(), StateError> {
    write(&directory.join(SECRETS), &secrets.to_bytes())
}

/// Whether what the directory has can be used. What it has not is made at the start.
pub fn look(directory: &Path) -> Result<(), StateError> {
    secrets(directory).map(|_| ())
}

/// What is kept in a file, if it is there, is ours, and nobody else may read it. Who has the directory may put
/// there what he likes: that is ours or the superuser's.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    let failed = |error| StateError::Io(path.to_owned(), error);
    let directory = path.parent().unwrap_or(path);
    match fs::metadata(directory) {
        Ok(found) if ![0, own_user()].contains(&found.uid()) => {
            return Err(StateError::Foreign(directory.to_owned(), found.uid()));
        }
        // It is made when there is something to be kept; else the file says what is wrong.
        _ => {}
    }
    // A pipe has nobody wait.
    let kept = match fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let found = kept.metadata().map_err(failed)?;
    if found.uid() != own_user() {
        return Err(StateError::Foreign(path.to_owned(), found.uid()));
    }
    if found.mode() & 0o077 != 0 {
        return Err(StateError::Open(path.to_owned()));
    }
    if !found.is_file() {
        return Err(failed(std::io::Error::other(NOT_REGULAR)));
    }
    let mut bytes = Vec::new();
    kept.take(STATE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

fn own_user() -> u32 {
    // SAFETY: no preconditions.
    unsafe { libc::geteuid() }
}

/// Whole or not at all, and for the file's owner alone.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let written = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let fresh = path.with_extension("new");
        let _ = fs::remove_file(&fresh);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    written().map_err(|error| StateError::Io(path.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Removed at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let path =
                std::env::temp_dir().join(format!("shardcast-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Directory(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn kept(directory: &Directory) -> Option<Vec<u8>> {
        secrets(&directory.0).unwrap().map(|secrets| secrets.to_bytes())
    }

    #[test]
    fn what_is_kept_is_found_again() {
        let directory = Directory::new("state");
        assert_eq!(kept(&directory), None);
        let first = Secrets::random();
        for secrets in [first.clone(), first.clone().next(), Secrets::random()] {
            keep(&directory.0, &secrets).unwrap();
            assert_eq!(kept(&directory), Some(secrets.to_bytes()));
        }
        let mode = fs::metadata(directory.0.join(SECRETS)).unwrap().mode();
        assert_eq!(mode & 0o777, OWNER_ONLY);
    }

    #[test]
    fn the_next_process_has_the_same_keys_and_another_generation() {
        let first = Secrets::random();
        let next = first.clone().next();
        assert_eq!(next.to_bytes()[2..], first.to_bytes()[2..]);
        assert_ne!(next.generation, first.generation);
        assert_eq!(next.next().to_bytes(), first.to_bytes());
    }

    #[test]
    fn what_another_version_has_written_is_made_anew() {
        let directory = Directory::new("other-state");
        let good = Secrets::random().to_bytes();
        keep(&directory.0, &Secrets::random()).unwrap();
        let fewer = good[..good.len() - KEY_BYTES].to_vec();
        let more = [&good[..], &[7; KEY_BYTES]].concat();
        let other_form = [&[FORM + 1], &good[1..]].concat();
        for bytes in [fewer, more, other_form] {
            fs::write(directory.0.join(SECRETS), &bytes).unwrap();
            assert_eq!(kept(&directory), None, "{bytes:?}");
        }
        keep(&directory.0, &Secrets::random()).unwrap();
        assert!(kept(&directory).is_some());
    }

    /// Who is not the superuser can give nothing away, but finds what others have.
    #[test]
    fn what_another_user_has_put_there_is_refused() {
        const NOBODY: u32 = 65534;
        let foreign = |path: &Path| match read(path) {
            Err(StateError::Foreign(path, user)) => (path, user),
            other => panic!("{other:?}"),
        };
        if own_user() != 0 {
            let passwords = Path::new("/etc/passwd");
            return assert_eq!(foreign(passwords), (passwords.to_owned(), 0));
        }
        let directory = Directory::new("planted-state");
        keep(&directory.0, &Secrets::random()).unwrap();
        let path = directory.0.join(SECRETS);
        std::os::unix::fs::chown(&path, Some(NOBODY), None).unwrap();
        assert_eq!(foreign(&path), (path.clone(), NOBODY));
        keep(&directory.0, &Secrets::random()).unwrap();
        assert!(kept(&directory).is_some());
        std::os::unix::fs::chown(&directory.0, Some(NOBODY), None).unwrap();
        for path in [&path, &directory.0.join("what is not there")] {
            assert_eq!(foreign(path), (directory.0.clone(), NOBODY));
        }
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let directory = Directory::new("damaged-state");
        let good = Secrets::random().to_bytes();
        keep(&directory.0, &Secrets::random()).unwrap();
        let path = directory.0.join(SECRETS);
        let longer = [&good[..], &[0]].concat();
        let no_generation = [&[FORM, 2], &good[2..]].concat();
        for bytes in [&[], &good[..64], &good[1..], &longer, &no_generation] {
            fs::write(&path, bytes).unwrap();
            assert!(matches!(secrets(&directory.0), Err(StateError::Damaged(_))), "{bytes:?}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(secrets(&directory.0), Err(StateError::Open(_))));
        let inside = path.join("below");
        assert!(matches!(secrets(&inside), Err(StateError::Io(..))));
    }
}
