//! Where a process is asked to have another one take over: a unix socket for its own user, in a directory that
//! the next process finds too.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::limits::{PORT_WAIT, PORT_WAIT_MAX};

const SOCKET: &str = "control.sock";

/// The socket's owner, and nobody else.
const OWNER_ONLY: u32 = 0o600;

/// The directory that systemd makes for the process (`RuntimeDirectory=`), else the one where it keeps its state.
pub fn directory(state_dir: Option<&Path>) -> Option<PathBuf> {
    let runtime = std::env::var_os("RUNTIME_DIRECTORY");
    let runtime = runtime.filter(|directories| !directories.is_empty());
    // Of several the first is the relay's.
    let first = |directories: std::ffi::OsString| {
        let text = directories.to_string_lossy().into_owned();
        PathBuf::from(text.split(':').next().unwrap_or_default())
    };
    runtime.map(first).or_else(|| state_dir.map(Path::to_owned))
}

/// Takes the place, from a process that has had it before if there is one.
pub fn listen(directory: &Path) -> io::Result<UnixListener> {
    fs::create_dir_all(directory)?;
    let fresh = directory.join(format!("{SOCKET}.{}", std::process::id()));
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(OWNER_ONLY))?;
    listener.set_nonblocking(true)?;
    fs::rename(&fresh, directory.join(SOCKET))?;
    Ok(listener)
}

/// Two relays have one place.
#[derive(Debug, thiserror::Error)]
#[error(
    "process {process}, a relay, has {directory} already: give each its own --state-dir (in a unit RuntimeDirectory=), \
     or replace that one with: shardcast upgrade"
)]
pub struct Taken {
    directory: PathBuf,
    process: libc::pid_t,
}

/// Waits until nobody else has the place: whoever has just ended, as it may be, lets go of it.
pub fn wait_until_free(directory: &Path) -> Result<(), Taken> {
    let begun = Instant::now();
    while let Ok(stream) = connect(directory) {
        if begun.elapsed() >= PORT_WAIT_MAX {
            let process = peer_of(&stream).map_or(0, |peer| peer.pid);
            return Err(Taken { directory: directory.to_owned(), process });
        }
        drop(stream);
        std::thread::sleep(PORT_WAIT);
    }
    Ok(())
}

pub fn connect(directory: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(directory.join(SOCKET))
}

/// Whether whoever is at the other end may ask: the relay's own user, and root.
pub fn may_ask(stream: &UnixStream) -> bool {
    // SAFETY: no preconditions.
    let own = unsafe { libc::geteuid() };
    peer_of(stream).is_some_and(|peer| [0, own].contains(&peer.uid))
}

/// Who is at the other end.
fn peer_of(stream: &UnixStream) -> Option<libc::ucred> {
    let mut peer = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: libc::gid_t::MAX };
    let mut len = size_of_val(&peer) as libc::socklen_t;
    // SAFETY: both point to live values, and the kernel writes no more than `len` bytes.
    let status = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    (status == 0).then_some(peer)
}
