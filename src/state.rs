//! What outlasts a process: the secrets by which clients of the relay that ran before are told that
//! it has forgotten them.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::quic::Keys;

/// In the directory of the state.
const RESET_KEYS: &str = "reset.key";

/// The file's owner, and nobody else.
const OWNER_ONLY: u32 = 0o600;

const KEY_BYTES: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("cannot keep state in {0}: {1}; see --state-dir")]
    Io(PathBuf, io::Error),
    #[error("{0} is not what this relay has written; remove it, and another one is made")]
    Damaged(PathBuf),
    #[error("{0} holds secrets and others may read it; run: chmod 600 {0}")]
    Open(PathBuf),
}

/// Keys of which those for connection IDs and resets are what they were before, if this directory has
/// them; else it has them from now on.
pub fn keys(directory: &Path) -> Result<Keys, StateError> {
    let path = directory.join(RESET_KEYS);
    let failed = |error| StateError::Io(path.clone(), error);
    let mut keys = Keys::random();
    let kept = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            write(directory, &path, &keys).map_err(failed)?;
            return Ok(keys);
        }
        Err(error) => return Err(failed(error)),
    };
    if kept.metadata().map_err(failed)?.mode() & 0o077 != 0 {
        return Err(StateError::Open(path));
    }
    let mut bytes = Vec::new();
    kept.take(2 * KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    let (cid, reset) = bytes.split_at_checked(KEY_BYTES).unwrap_or_default();
    match (cid.try_into(), reset.try_into()) {
        (Ok(cid), Ok(reset)) => (keys.cid, keys.reset) = (cid, reset),
        _ => return Err(StateError::Damaged(path)),
    }
    Ok(keys)
}

/// Whole or not at all.
fn write(directory: &Path, path: &Path, keys: &Keys) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(&fresh)?;
    file.write_all(&[keys.cid, keys.reset].concat())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
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

    #[test]
    fn what_is_made_once_is_found_again() {
        let directory = Directory::new("state");
        let path = directory.0.join(RESET_KEYS);
        let first = keys(&directory.0).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, OWNER_ONLY);
        let second = keys(&directory.0).unwrap();
        assert_eq!((first.cid, first.reset), (second.cid, second.reset));
        assert_ne!(first.token, second.token);
        fs::remove_file(&path).unwrap();
        assert_ne!(keys(&directory.0).unwrap().reset, first.reset);
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let directory = Directory::new("damaged-state");
        keys(&directory.0).unwrap();
        let path = directory.0.join(RESET_KEYS);
        for bytes in [0, 31, 63, 65, 1000] {
            fs::write(&path, vec![1; bytes]).unwrap();
            assert!(matches!(keys(&directory.0), Err(StateError::Damaged(_))), "{bytes} bytes");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(keys(&directory.0), Err(StateError::Open(_))));
        let inside = path.join("below");
        assert!(matches!(keys(&inside), Err(StateError::Io(..))));
    }
}
