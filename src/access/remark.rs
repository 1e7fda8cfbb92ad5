//! What can be used as it is, and is hardly what its operator means.

use std::fmt;
use std::path::{Path, PathBuf};

use super::key_id::KeyId;

/// Where a file of keys was given, which decides how tokens find the keys in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// By `--auth-key`. One key is tried with every token of its algorithm, whatever name that has; of a
    /// set, a token names its key.
    File,
    /// In `--auth-key-dir`. One key has the name of its file; of a set, a token names its key.
    Directory,
}

impl Place {
    pub fn flag(self) -> &'static str {
        match self {
            Place::File => "--auth-key",
            Place::Directory => "--auth-key-dir",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Remark {
    /// A key in a directory is found by the name of its file, and what its tokens name is another one.
    OtherName { path: PathBuf, kid: KeyId },
    /// Whoever gets at the file can let anybody in, and the public half would do.
    Private { path: PathBuf, place: Place },
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherName { path, kid } => {
                let (path, name) = (path.display(), stem(path));
                write!(
                    f,
                    "{path}: the key calls itself {kid} (kid), and counts for tokens that name {name}; \
                     if tokens name {kid}, rename the file to {kid}.jwk"
                )
            }
            Self::Private { path, place } => {
                let (shown, name) = (path.display(), stem(path));
                write!(f, "{shown}: a private key, and its public half is enough for a relay; ")?;
                match place {
                    Place::File => {
                        let public = path.with_file_name(format!("{name}.public.jwk"));
                        let public = public.display();
                        write!(
                            f,
                            "run: shardcast token public --key {shown} --out {public}, and give that to \
                             --auth-key"
                        )
                    }
                    // At no time is the key away: its sessions would end.
                    Place::Directory => {
                        let new = path.with_extension("new");
                        let new = new.display();
                        write!(
                            f,
                            "run: cp {shown} {name}.secret.jwk && shardcast token public --key {shown} \
                             --out {new} && mv {new} {shown}"
                        )
                    }
                }
            }
        }
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
