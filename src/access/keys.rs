//! The keys that tokens are verified with.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use jsonwebtoken::DecodingKey;
use serde_json::value::RawValue;

use super::algorithm::Algorithm;
use super::grant::Grant;
use super::json::{self, Members};
use super::jwk::{Jwk, KeyFault, KeyId, Numbers, json_of};

/// Bytes of one file of keys: a set of a thousand RSA keys.
const KEY_FILE_BYTES_MAX: u64 = 1 << 20;

/// Keys in all: a directory with one for each of many customers.
const KEYS_MAX: usize = 65_536;

/// Of all files together: a set is in memory twice while it is read.
const KEYS_BYTES_MAX: u64 = 64 << 20;

/// Keys that are tried with a token which does not name one: a stranger's token costs so many
/// verifications.
const KEYS_TRIED_MAX: usize = 8;

/// Where a file of keys was given, which decides how tokens find the keys in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// By `--auth-key`. One key is tried with every token of its algorithm, whatever name that has; of a
    /// set, a token names its key.
    File,
    /// In `--auth-key-dir`. One key has the name of its file; of a set, a token names its key.
    Directory,
}

/// A file of keys that was read.
#[derive(Clone)]
pub struct KeyFile {
    pub path: PathBuf,
    pub place: Place,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct KeyError {
    pub path: PathBuf,
    pub fault: KeyFault,
}

/// What a session remembers of the key that vouched for it. A key has the same one in two sets if what it
/// is, what it may grant and how tokens find it is the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyIdentity([u8; 32]);

/// A key without what is private in it.
pub struct Key {
    algorithm: Algorithm,
    label: String,
    scope: Option<Grant>,
    identity: KeyIdentity,
    verifier: DecodingKey,
}

/// An immutable value; another takes its place when files change.
#[derive(Default)]
pub struct KeySet {
    named: HashMap<KeyId, Key>,
    tried: Vec<Key>,
    identities: HashSet<KeyIdentity>,
}

impl Key {
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The name that it is found by, or else its own, or else its file's: for the log.
    pub fn label(&self) -> &str {
        &self.label
    }

    pub fn identity(&self) -> KeyIdentity {
        self.identity
    }

    /// The most that its tokens may grant.
    pub fn scope(&self) -> Option<&Grant> {
        self.scope.as_ref()
    }

    pub(super) fn verifier(&self) -> &DecodingKey {
        &self.verifier
    }

    pub(super) fn new(jwk: &Jwk, found_by: Option<&KeyId>, label: String) -> Result<Key, KeyFault> {
        Ok(Key {
            algorithm: jwk.algorithm,
            label,
            scope: jwk.scope.clone(),
            identity: KeyIdentity::of(jwk, found_by),
            verifier: jwk.verifier()?,
        })
    }
}

impl KeyIdentity {
    fn of(jwk: &Jwk, found_by: Option<&KeyId>) -> KeyIdentity {
        let mut context = digest::Context::new(&digest::SHA256);
        // With its length, so that no two lists of parts are one text.
        let mut add = |part: &[u8]| {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        };
        add(jwk.algorithm.name().as_bytes());
        add(found_by.map_or("", KeyId::as_str).as_bytes());
        match &jwk.numbers {
            Numbers::Secret { k } => add(k),
            Numbers::Ec { x, y, .. } => {
                add(x);
                add(y);
            }
            Numbers::Ed { x, .. } => add(x),
            Numbers::Rsa { n, e, .. } => {
                add(n);
                add(e);
            }
        }
        if let Some(scope) = &jwk.scope {
            add(scope.root().as_str().as_bytes());
            for patterns in [scope.publish(), scope.subscribe()] {
                add(&(patterns.len() as u64).to_be_bytes());
                patterns.iter().for_each(|pattern| add(pattern.as_str().as_bytes()));
            }
        }
        let sum = context.finish();
        KeyIdentity(sum.as_ref().try_into().expect("SHA-256 is 32 bytes"))
    }
}

impl KeySet {
    /// All or nothing: the first file that is bad is the error.
    pub fn new(files: &[KeyFile]) -> Result<KeySet, KeyError> {
        let mut set = KeySet::default();
        for file in files {
            let fault = |fault| KeyError { path: file.path.clone(), fault };
            set.add(file).map_err(fault)?;
            if set.named.len() + set.tried.len() > KEYS_MAX {
                return Err(fault(KeyFault::TooMany(KEYS_MAX)));
            }
            if set.tried.len() > KEYS_TRIED_MAX {
                return Err(fault(KeyFault::TooManyUnnamed(KEYS_TRIED_MAX)));
            }
        }
        let keys = set.named.values().chain(&set.tried);
        set.identities = keys.map(Key::identity).collect();
        Ok(set)
    }

    pub fn is_empty(&self) -> bool {
        self.identities.is_empty()
    }

    pub fn len(&self) -> usize {
        self.named.len() + self.tried.len()
    }

    /// Whether a key that vouched for somebody is here still, as it was.
    pub fn holds(&self, identity: KeyIdentity) -> bool {
        self.identities.contains(&identity)
    }

    pub(super) fn named(&self, id: &KeyId) -> Option<&Key> {
        self.named.get(id)
    }

    pub(super) fn tried(&self) -> &[Key] {
        &self.tried
    }

    fn add(&mut self, file: &KeyFile) -> Result<(), KeyFault> {
        if file.bytes.len() as u64 > KEY_FILE_BYTES_MAX {
            return Err(KeyFault::TooLarge(KEY_FILE_BYTES_MAX));
        }
        let json = json_of(&file.bytes)?;
        let mut members = Members::parse(&json)?;
        match members.take("keys") {
            Some(keys) => self.add_set(file, keys),
            None => self.add_one(file, &Jwk::parse(members)?),
        }
    }

    fn add_set(&mut self, file: &KeyFile, keys: &RawValue) -> Result<(), KeyFault> {
        let keys: Vec<&RawValue> = json::read(keys, "keys", "a list")?;
        let count = keys.len();
        for (index, key) in keys.into_iter().enumerate() {
            let in_set = |fault| KeyFault::InSet { index, fault: Box::new(fault) };
            let members =
                Members::parse(key.get().as_bytes()).map_err(|fault| in_set(fault.into()))?;
            let jwk = Jwk::parse(members).map_err(in_set)?;
            match &jwk.id {
                _ if count == 1 => self.add_one(file, &jwk).map_err(in_set)?,
                Some(id) => self.add_named(&jwk, id.clone()).map_err(in_set)?,
                None => return Err(KeyFault::SetUnnamed),
            }
        }
        if count == 0 { Err(KeyFault::SetEmpty) } else { Ok(()) }
    }

    fn add_one(&mut self, file: &KeyFile, jwk: &Jwk) -> Result<(), KeyFault> {
        let stem = file.path.file_stem().unwrap_or_default().to_string_lossy();
        match file.place {
            Place::Directory => {
                self.add_named(jwk, KeyId::parse(&stem).map_err(KeyFault::FileName)?)
            }
            Place::File => {
                let label = jwk.id.as_ref().map_or(stem.into_owned(), KeyId::to_string);
                self.tried.push(Key::new(jwk, None, label)?);
                Ok(())
            }
        }
    }

    fn add_named(&mut self, jwk: &Jwk, id: KeyId) -> Result<(), KeyFault> {
        let key = Key::new(jwk, Some(&id), id.to_string())?;
        match self.named.insert(id.clone(), key) {
            Some(_) => Err(KeyFault::NameTaken(id)),
            None => Ok(()),
        }
    }
}

/// Reads the files, and of the directory what ends in `.jwk` and does not begin with a dot.
pub fn read_key_files(
    files: &[PathBuf],
    directory: Option<&Path>,
) -> Result<Vec<KeyFile>, KeyError> {
    let mut found: Vec<(PathBuf, Place)> =
        files.iter().map(|path| (path.clone(), Place::File)).collect();
    if let Some(directory) = directory {
        let unreadable = |error: std::io::Error| KeyError {
            path: directory.to_owned(),
            fault: KeyFault::Unreadable(error.to_string()),
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let is_dotfile =
                path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
            if path.extension().is_some_and(|end| end == "jwk") && !is_dotfile {
                paths.push(path);
            }
        }
        paths.sort();
        found.extend(paths.into_iter().map(|path| (path, Place::Directory)));
    }
    let mut left = KEYS_BYTES_MAX;
    let mut read = Vec::new();
    for (path, place) in found {
        let file = match read_key_file(path.clone(), place) {
            // It was removed after it was listed.
            Err(_) if place == Place::Directory && is_gone(&path) => continue,
            file => file?,
        };
        let Some(rest) = left.checked_sub(file.bytes.len() as u64) else {
            return Err(KeyError { path, fault: KeyFault::AllTooLarge(KEYS_BYTES_MAX) });
        };
        left = rest;
        read.push(file);
    }
    Ok(read)
}

/// A link to what is not there is there itself.
fn is_gone(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn read_key_file(path: PathBuf, place: Place) -> Result<KeyFile, KeyError> {
    // The key itself, as JSON or in base64url, in the place of its file's name: it would be shown.
    let name = path.as_os_str().as_encoded_bytes();
    if name.starts_with(b"{") || name.starts_with(b"eyJ") {
        return Err(KeyError { path: "a key".into(), fault: KeyFault::NotAName });
    }
    match read_regular(&path) {
        Ok(bytes) => Ok(KeyFile { path, place, bytes }),
        Err(error) => Err(KeyError { path, fault: KeyFault::Unreadable(error.to_string()) }),
    }
}

/// Of a FIFO even opening it would wait for somebody who writes, perhaps for ever.
fn read_regular(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    // One byte more than there may be says that there are too many.
    file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, place) = (&self.path, self.place);
        f.debug_struct("KeyFile").field("path", path).field("place", &place).finish_non_exhaustive()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (label, algorithm) = (&self.label, self.algorithm);
        f.debug_struct("Key")
            .field("label", label)
            .field("algorithm", &algorithm)
            .finish_non_exhaustive()
    }
}

/// Of a shared secret it is a hash, which is nobody's business either.
impl fmt::Debug for KeyIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyIdentity")
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.named.values()).entries(&self.tried).finish()
    }
}
