//! Files of keys, read again when they change. A set that is whole takes the place of the one before, on
//! every shard; where a file is bad the one before stays, and the log says why.

use std::path::PathBuf;

use crate::access::{KeyError, KeyFile, KeySet, Remark, is_gone, read_key_files};
use crate::files::{self, Look, Seen, Sum};
use crate::limits::KEY_REMARKS_MAX;

/// Where keys are, and what was there at the last look.
pub struct Keyring {
    files: Vec<PathBuf>,
    directory: Option<PathBuf>,
    seen: Seen,
}

impl Keyring {
    /// With the keys of now.
    pub fn open(
        files: Vec<PathBuf>,
        directory: Option<PathBuf>,
    ) -> Result<(Keyring, KeySet), KeyError> {
        let read = read_key_files(&files, directory.as_deref())?;
        let keys = KeySet::new(&read)?;
        let seen = Seen::new(sum(&read));
        Ok((Keyring { files, directory, seen }, keys))
    }

    /// Reads the files again: other keys, or why there are none.
    pub fn look(&mut self, look: Look) -> Option<Result<KeySet, KeyError>> {
        let read = read_key_files(&self.files, self.directory.as_deref());
        let read = read.map(|read| (sum(&read), read));
        self.seen.look(read, |read| KeySet::new(&read), look)
    }
}

impl Keyring {
    /// Whether there are files that cannot be used.
    pub fn is_bad(&self) -> bool {
        self.seen.is_bad()
    }

    /// What is left of keys whose files are no more in the directory; none where all of them are, or where the
    /// directory itself cannot be looked at.
    pub fn without_removed(&mut self, keys: &KeySet) -> Option<KeySet> {
        let directory = self.directory.as_deref()?;
        std::fs::read_dir(directory).ok()?;
        let left = keys.without(|path| path.parent() == Some(directory) && is_gone(path))?;
        // Should they come back as they were, that is something new.
        self.seen.forget();
        Some(left)
    }
}

fn sum(read: &[KeyFile]) -> Sum {
    files::sum(read.iter().map(|file| (&*file.path, &*file.bytes)))
}

/// Says what is hardly meant of the keys that are new.
pub fn tell<'a>(remarks: impl IntoIterator<Item = &'a Remark>) {
    let mut remarks = remarks.into_iter();
    remarks.by_ref().take(KEY_REMARKS_MAX).for_each(|remark| tracing::warn!("{remark}"));
    let more = remarks.count();
    if more > 0 {
        tracing::warn!("and {more} more files of keys like these: shardcast check has them all");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

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

    fn look(keyring: &mut Keyring) -> Option<Result<KeySet, KeyError>> {
        keyring.look(Look { now: Instant::now(), is_asked: false })
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
        assert!(look(&mut keyring).is_none());
        directory.write("b.jwk", key());
        assert_eq!(count(look(&mut keyring)), 2);
        assert!(look(&mut keyring).is_none());
        // Of one length, and within whatever a file system takes for an instant.
        for _ in 0..5 {
            directory.write("b.jwk", key());
            assert_eq!(count(look(&mut keyring)), 2);
        }
        fs::rename(directory.0.join("b.jwk"), directory.0.join("c.jwk")).unwrap();
        assert_eq!(count(look(&mut keyring)), 2);
        fs::remove_file(directory.0.join("a.jwk")).unwrap();
        fs::remove_file(directory.0.join("c.jwk")).unwrap();
        assert_eq!(count(look(&mut keyring)), 0);
    }

    #[test]
    fn what_is_bad_is_told_once_and_changes_nothing() {
        let directory = Directory::new("bad-keyring");
        let good = key();
        directory.write("a.jwk", &good);
        let file = directory.0.join("a.jwk");
        let (mut keyring, _) = Keyring::open(vec![file.clone()], None).unwrap();
        directory.write("a.jwk", &good[..good.len() / 2]);
        assert!(look(&mut keyring).is_none(), "somebody may be writing it");
        let error = look(&mut keyring).expect("it stays so").expect_err("it is half a key");
        assert_eq!(error.path, file);
        assert!(look(&mut keyring).is_none(), "it was told");
        fs::remove_file(&file).unwrap();
        assert!(look(&mut keyring).is_none());
        let error = look(&mut keyring).expect("it stays so").expect_err("it is gone");
        assert!(matches!(error.fault, KeyFault::Unreadable(_)), "{error}");
        directory.write("a.jwk", &good);
        assert!(look(&mut keyring).is_none(), "the keys in use are there again");
        directory.write("a.jwk", key());
        assert_eq!(count(look(&mut keyring)), 1);
    }

    #[test]
    fn what_is_removed_counts_though_something_else_is_bad() {
        let directory = Directory::new("removed-keyring");
        let (a, b) = (key(), key());
        directory.write("a.jwk", &a);
        directory.write("b.jwk", &b);
        let (mut keyring, keys) = Keyring::open(Vec::new(), Some(directory.0.clone())).unwrap();
        directory.write("notes.jwk", "about keys");
        assert!(look(&mut keyring).is_none() && keyring.is_bad());
        assert!(keyring.without_removed(&keys).is_none());
        fs::remove_file(directory.0.join("b.jwk")).unwrap();
        let left = keyring.without_removed(&keys).expect("one is gone");
        let labels: Vec<_> = left.keys().map(|key| key.label().to_owned()).collect();
        assert_eq!(labels, ["a"]);
        // All is as it was, and that is news by now.
        directory.write("b.jwk", &b);
        fs::remove_file(directory.0.join("notes.jwk")).unwrap();
        assert_eq!(count(look(&mut keyring)), 2);
        assert!(!keyring.is_bad());
        // That nobody can look is no removal.
        fs::remove_dir_all(&directory.0).unwrap();
        assert!(look(&mut keyring).is_none() && keyring.without_removed(&left).is_none());
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
