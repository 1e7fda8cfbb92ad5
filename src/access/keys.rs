//! The keys that tokens are verified with.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use jsonwebtoken::DecodingKey;
use serde_json::value::RawValue;

use super::algorithm::Algorithm;
use super::grant::Grant;
use super::json::{self, Members};
use super::jwk::{Jwk, KeyFault, Numbers, json_of};
use super::key_id::KeyId;
use super::remark::{Place, Remark};
use crate::files;
use crate::limits::{KEY_FILE_BYTES_MAX, KEYS_BYTES_MAX, KEYS_MAX, KEYS_TRIED_MAX};

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
    pub place: Place,
    pub fault: KeyFault,
}

/// What a key is and what it may grant: the same in two sets if both are the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyIdentity([u8; 32]);

/// What a session remembers of the key that vouched for it, and of how its token has found that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voucher {
    key: KeyIdentity,
    /// Of the name that the token has for it.
    named: Option<NameSum>,
}

type NameSum = [u8; 16];

/// A key without what is private in it.
#[derive(Clone)]
pub struct Key {
    algorithm: Algorithm,
    label: String,
    scope: Option<Grant>,
    identity: KeyIdentity,
    verifier: DecodingKey,
    /// The file that it is in.
    path: Arc<Path>,
}

/// An immutable value; another takes its place when files change.
#[derive(Default)]
pub struct KeySet {
    named: HashMap<KeyId, Key>,
    tried: Vec<Key>,
    /// Each key with the name that tokens have for it, or with none where they need not have one.
    found: HashSet<(KeyIdentity, Option<NameSum>)>,
    remarks: Vec<Remark>,
}

impl Key {
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The name that it is found by, or else its own, or else its file's: for the log.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What is to be remembered of it whose token has named it so, or not at all.
    pub fn voucher(&self, named: Option<&KeyId>) -> Voucher {
        Voucher { key: self.identity, named: named.map(name_sum) }
    }

    /// The most that its tokens may grant.
    pub fn scope(&self) -> Option<&Grant> {
        self.scope.as_ref()
    }

    pub(super) fn verifier(&self) -> &DecodingKey {
        &self.verifier
    }

    pub(super) fn new(jwk: &Jwk, path: &Path, label: String) -> Result<Key, KeyFault> {
        Ok(Key {
            algorithm: jwk.algorithm,
            label,
            scope: jwk.scope.clone(),
            identity: KeyIdentity::of(jwk),
            verifier: jwk.verifier()?,
            path: path.into(),
        })
    }
}

impl KeyIdentity {
    fn of(jwk: &Jwk) -> KeyIdentity {
        let mut context = digest::Context::new(&digest::SHA256);
        // With its length, so that no two lists of parts are one text.
        let mut add = |part: &[u8]| {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        };
        add(jwk.algorithm.name().as_bytes());
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

fn name_sum(id: &KeyId) -> NameSum {
    let sum = digest::digest(&digest::SHA256, id.as_str().as_bytes());
    sum.as_ref()[..16].try_into().expect("SHA-256 has more")
}

impl KeySet {
    /// All or nothing: the first file that is bad is the error.
    pub fn new(files: &[KeyFile]) -> Result<KeySet, KeyError> {
        let mut set = KeySet::default();
        for file in files {
            let (path, place) = (&file.path, file.place);
            let fault = |fault| KeyError { path: path.clone(), place, fault };
            set.add(file).map_err(fault)?;
            if set.named.len() + set.tried.len() > KEYS_MAX {
                return Err(fault(KeyFault::TooMany(KEYS_MAX)));
            }
            if set.tried.len() > KEYS_TRIED_MAX {
                return Err(fault(KeyFault::TooManyUnnamed(KEYS_TRIED_MAX)));
            }
        }
        set.note_found();
        Ok(set)
    }

    fn note_found(&mut self) {
        let named = self.named.iter().map(|(id, key)| (key.identity, Some(name_sum(id))));
        let tried = self.tried.iter().map(|key| (key.identity, None));
        self.found = named.chain(tried).collect();
    }

    /// What is left of it where files are gone: keys that are removed count as such whatever is wrong with
    /// others. None where no file is.
    pub fn without(&self, is_gone: impl Fn(&Path) -> bool) -> Option<KeySet> {
        let gone: HashSet<&Path> =
            self.keys().map(|key| &*key.path).filter(|at| is_gone(at)).collect();
        if gone.is_empty() {
            return None;
        }
        let stays = |key: &&Key| !gone.contains(&*key.path);
        let named = self.named.iter().filter(|(_, key)| stays(key));
        let mut left = KeySet {
            named: named.map(|(id, key)| (id.clone(), key.clone())).collect(),
            tried: self.tried.iter().filter(stays).cloned().collect(),
            remarks: self.remarks.clone(),
            ..KeySet::default()
        };
        left.note_found();
        Some(left)
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub fn len(&self) -> usize {
        self.named.len() + self.tried.len()
    }

    /// Whether a key that vouched for somebody is here still, as it was, and its token would find it.
    pub fn holds(&self, Voucher { key, named }: Voucher) -> bool {
        self.found.contains(&(key, None)) || (named.is_some() && self.found.contains(&(key, named)))
    }

    /// In no order.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.named.values().chain(&self.tried)
    }

    /// What its operator hardly means.
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
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
            None => {
                let jwk = Jwk::parse(members)?;
                self.add_one(file, &jwk)?;
                self.remark_private(file, jwk.is_private());
                Ok(())
            }
        }
    }

    fn add_set(&mut self, file: &KeyFile, keys: &RawValue) -> Result<(), KeyFault> {
        let keys: Vec<&RawValue> = json::read(keys, "keys", "a list")?;
        let count = keys.len();
        let mut has_private = false;
        for (index, key) in keys.into_iter().enumerate() {
            let in_set = |fault| KeyFault::InSet { index, fault: Box::new(fault) };
            let members =
                Members::parse(key.get().as_bytes()).map_err(|fault| in_set(fault.into()))?;
            let jwk = Jwk::parse(members).map_err(in_set)?;
            has_private |= jwk.is_private();
            match &jwk.id {
                _ if count == 1 => self.add_one(file, &jwk).map_err(in_set)?,
                Some(id) => self.add_named(file, &jwk, id.clone()).map_err(in_set)?,
                None => return Err(KeyFault::SetUnnamed),
            }
        }
        self.remark_private(file, has_private);
        if count == 0 { Err(KeyFault::SetEmpty) } else { Ok(()) }
    }

    fn add_one(&mut self, file: &KeyFile, jwk: &Jwk) -> Result<(), KeyFault> {
        let stem = file.path.file_stem().unwrap_or_default().to_string_lossy();
        match file.place {
            Place::Directory => {
                let name = KeyId::parse(&stem).map_err(KeyFault::FileName)?;
                if let Some(kid) = jwk.id.clone().filter(|kid| *kid != name) {
                    self.remarks.push(Remark::OtherName { path: file.path.clone(), kid });
                }
                self.add_named(file, jwk, name)
            }
            Place::File => {
                let label = jwk.id.as_ref().map_or(stem.into_owned(), KeyId::to_string);
                self.tried.push(Key::new(jwk, &file.path, label)?);
                Ok(())
            }
        }
    }

    fn remark_private(&mut self, file: &KeyFile, is_private: bool) {
        if is_private {
            self.remarks.push(Remark::Private { path: file.path.clone(), place: file.place });
        }
    }

    fn add_named(&mut self, file: &KeyFile, jwk: &Jwk, id: KeyId) -> Result<(), KeyFault> {
        let key = Key::new(jwk, &file.path, id.to_string())?;
        match self.named.insert(id.clone(), key) {
            Some(_) => Err(KeyFault::NameTaken(id)),
            None => Ok(()),
        }
    }
}

/// The files, and of the directory what ends in `.jwk` and does not begin with a dot.
pub fn find_key_files(
    files: &[PathBuf],
    directory: Option<&Path>,
) -> Result<Vec<(PathBuf, Place)>, KeyError> {
    let mut found: Vec<(PathBuf, Place)> =
        files.iter().map(|path| (path.clone(), Place::File)).collect();
    if let Some(directory) = directory {
        let unreadable = |error: std::io::Error| KeyError {
            path: directory.to_owned(),
            place: Place::Directory,
            fault: KeyFault::NoDirectory(error.to_string()),
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
    Ok(found)
}

pub fn read_key_files(
    files: &[PathBuf],
    directory: Option<&Path>,
) -> Result<Vec<KeyFile>, KeyError> {
    let mut left = KEYS_BYTES_MAX;
    let mut read = Vec::new();
    for (path, place) in find_key_files(files, directory)? {
        let file = match read_key_file(path.clone(), place) {
            // It was removed after it was listed.
            Err(_) if place == Place::Directory && is_gone(&path) => continue,
            file => file?,
        };
        let Some(rest) = left.checked_sub(file.bytes.len() as u64) else {
            return Err(KeyError { path, place, fault: KeyFault::AllTooLarge(KEYS_BYTES_MAX) });
        };
        left = rest;
        read.push(file);
    }
    Ok(read)
}

/// A link to what is not there is there itself.
pub fn is_gone(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

pub fn read_key_file(path: PathBuf, place: Place) -> Result<KeyFile, KeyError> {
    // The key itself, as JSON or in base64url, in the place of its file's name: it would be shown.
    let name = path.as_os_str().as_encoded_bytes();
    if name.starts_with(b"{") || name.starts_with(b"eyJ") {
        return Err(KeyError { path: "a key".into(), place, fault: KeyFault::NotAName });
    }
    match files::read_regular(&path, KEY_FILE_BYTES_MAX) {
        Ok(bytes) => Ok(KeyFile { path, place, bytes }),
        Err(error) => Err(KeyError { path, place, fault: KeyFault::Unreadable(error.to_string()) }),
    }
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
