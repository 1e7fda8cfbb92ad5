//! Keys and tokens in files.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::access::{self, KeyError, KeyFile, SigningKey, read_key_file};
use crate::limits::TOKEN_BYTES_MAX;

/// The file's owner, and nobody else.
const SECRET: u32 = 0o600;
/// Everybody who gets to it, less what the umask takes.
const PUBLIC: u32 = 0o666;

/// Bytes of what holds a token: a URL, or lines around it.
const TOKEN_FILE_BYTES_MAX: u64 = 8 * TOKEN_BYTES_MAX as u64;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {0}: {1}")]
    Unreadable(String, io::Error),
    #[error("{0} is there already, and is not overwritten; remove it, or give another name")]
    Exists(PathBuf),
    #[error("cannot write {0}: {1}")]
    Unwritable(String, io::Error),
    #[error("{0} has more than {TOKEN_FILE_BYTES_MAX} bytes, and is not a token")]
    TooLarge(String),
    #[error("{0} is empty")]
    Empty(String),
}

/// Where a key or a token goes.
pub enum Place<'a> {
    /// Standard output.
    Output,
    File(&'a Path),
}

impl Place<'_> {
    /// Nothing, and `-`, is standard output.
    pub fn of(path: Option<&Path>) -> Place<'_> {
        match path.filter(|path| *path != Path::new("-")) {
            Some(path) => Place::File(path),
            None => Place::Output,
        }
    }

    /// A secret, which its owner alone may read.
    pub fn put_secret(&self, line: &str) -> Result<(), FileError> {
        self.put(line, SECRET)
    }

    pub fn put_public(&self, line: &str) -> Result<(), FileError> {
        self.put(line, PUBLIC)
    }

    fn put(&self, line: &str, mode: u32) -> Result<(), FileError> {
        let line = format!("{line}\n");
        let failed = |error| FileError::Unwritable("to standard output".to_owned(), error);
        match self {
            Place::Output => super::write(&line).map_err(failed),
            Place::File(path) => create(path, line.as_bytes(), mode),
        }
    }

    /// Makes it as if nothing had been put there.
    pub fn take_back(&self) {
        if let Place::File(path) = self {
            let _ = fs::remove_file(path);
        }
    }
}

fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::AlreadyExists => FileError::Exists(path.to_owned()),
        _ => FileError::Unwritable(path.display().to_string(), error),
    };
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| {
        let _ = fs::remove_file(path);
        failed(error)
    })
}

pub fn read_signing_key(path: &Path) -> Result<SigningKey, KeyError> {
    let KeyFile { path, place, bytes } = read_key_file(path.to_owned(), access::Place::File)?;
    SigningKey::parse(&bytes).map_err(|fault| KeyError { path, place, fault })
}

/// What holds the token: a file, or standard input.
pub fn read_token(path: Option<&Path>) -> Result<String, FileError> {
    let path = path.filter(|path| *path != Path::new("-"));
    let name = path.map_or("standard input".to_owned(), |path| path.display().to_string());
    let mut text = String::new();
    let read = match path {
        Some(path) => fs::File::open(path).and_then(|file| read_some(file, &mut text)),
        None => read_some(io::stdin().lock(), &mut text),
    };
    match read {
        Err(error) => Err(FileError::Unreadable(name, error)),
        Ok(_) if text.len() as u64 > TOKEN_FILE_BYTES_MAX => Err(FileError::TooLarge(name)),
        Ok(_) if text.trim().is_empty() => Err(FileError::Empty(name)),
        Ok(_) => Ok(text.trim().to_owned()),
    }
}

/// One byte more than there may be says that there are too many.
fn read_some(source: impl Read, text: &mut String) -> io::Result<usize> {
    source.take(TOKEN_FILE_BYTES_MAX + 1).read_to_string(text)
}
