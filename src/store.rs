//! What systemd keeps for the next process when this one ends, or crashes: its sockets, so that the port never
//! closes, and its secrets (sd_notify(3), `FDSTORE=1`; `FileDescriptorStoreMax=` of the unit). Where nobody
//! keeps anything nothing is kept.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use sd_notify::NotifyState;

use crate::estate::{Estate, Inherited, LISTENERS};
use crate::net::Rows;
use crate::net::steer::Generation;
use crate::notify;
use crate::state::Secrets;

/// What descriptors are called there. Colons are not allowed.
const UDP: &str = "udp-";
const TCP: &str = "tcp-";
const SECRETS: &str = "secrets-";

/// Whoever reads a descriptor that is called so finds this many bytes at most.
const SECRETS_BYTES_MAX: u64 = 1 << 10;

/// What the process before this one has left, if there was one and somebody has kept it. To be called once.
pub fn take() -> Inherited {
    let Ok(listed) = sd_notify::listen_fds_with_names() else { return Inherited::default() };
    // SAFETY: systemd has opened these for us, and nobody else here knows of them.
    let owned = listed.map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) }));
    sort(owned.collect())
}

/// Each by its name. What cannot be used is not kept for ever.
fn sort(kept: Vec<(String, OwnedFd)>) -> Inherited {
    let mut inherited = Inherited { is_kept: true, ..Inherited::default() };
    let mut udp = Vec::new();
    for (name, descriptor) in kept {
        if let Some(place) = name.strip_prefix(UDP).and_then(|place| place.parse::<usize>().ok()) {
            udp.push((place, descriptor));
        } else if let Some(listener) = name.strip_prefix(TCP) {
            inherited.listeners.push((listener.to_owned(), TcpListener::from(descriptor)));
        } else if name.starts_with(SECRETS) {
            inherited.secrets = read(descriptor).or(inherited.secrets);
        }
    }
    udp.sort_by_key(|(place, _)| *place);
    let is_whole = udp.iter().enumerate().all(|(at, (place, _))| at == *place);
    let sockets = udp.into_iter().map(|(_, socket)| socket).collect();
    inherited.rows = Some(sockets).filter(|_| is_whole).and_then(|all| Rows::adopt(all).ok());
    inherited
}

/// Has all kept that the next process needs of this one.
pub fn keep(estate: &Estate) {
    if !notify::is_heard() {
        return;
    }
    for (place, socket) in estate.rows.sockets().enumerate() {
        store(&format!("{UDP}{place}"), socket);
    }
    // Those from before may have been at other addresses.
    LISTENERS.iter().for_each(|name| forget(&format!("{TCP}{name}")));
    for (name, listener) in &*estate.listeners {
        store(&format!("{TCP}{name}"), listener.as_fd());
    }
    let of = |generation: Generation| format!("{SECRETS}{}", generation.bit());
    let generation = estate.secrets.generation;
    match sealed(&estate.secrets.to_bytes()) {
        Ok(secrets) => store(&of(generation), secrets.as_fd()),
        Err(error) => tracing::warn!(%error, "secrets cannot be kept for the next process"),
    }
    forget(&of(generation.other()));
}

/// So many UDP sockets are of no use any more. While they are kept their port is taken.
pub fn forget_sockets(count: usize) {
    (0..count).for_each(|place| forget(&format!("{UDP}{place}")));
}

fn store(name: &str, descriptor: BorrowedFd<'_>) {
    // Without a poll: systemd would let go of a socket that has an error to report.
    let states = [NotifyState::FdStore, NotifyState::FdName(name), NotifyState::Custom("FDPOLL=0")];
    notify::tell_with(&states, &[descriptor]);
}

fn forget(name: &str) {
    notify::tell_with(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)], &[]);
}

/// In memory that nobody can change any more, and that is in no file.
fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    const SEALS: libc::c_int =
        libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name ends with a zero; the descriptor that it returns is ours.
    let descriptor = unsafe { libc::memfd_create(c"shardcast".as_ptr(), flags) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fresh and owned by nobody else.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    file.write_all(bytes)?;
    // SAFETY: takes plain numbers.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) } {
        0 => Ok(file.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn read(secrets: OwnedFd) -> Option<Secrets> {
    let mut bytes = Vec::new();
    let mut file = File::from(secrets);
    file.rewind().ok()?;
    file.take(SECRETS_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Secrets::from_bytes(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<OwnedFd> {
        let rows = Rows::bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        rows.sockets().map(|socket| socket.try_clone_to_owned().unwrap()).collect()
    }

    #[test]
    fn descriptors_are_told_apart_by_name_in_any_order() {
        let secrets = Secrets::random().next();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let names = ["udp-0", "udp-1", "udp-2", "udp-3"].map(str::to_owned);
        let mut kept: Vec<_> = names.into_iter().zip(rows()).collect();
        kept.push(("tcp-http".to_owned(), listener.into()));
        kept.push(("secrets-1".to_owned(), sealed(&secrets.to_bytes()).unwrap()));
        kept.push(("of somebody else".to_owned(), File::open("/dev/null").unwrap().into()));
        kept.reverse();
        let inherited = sort(kept);
        assert_eq!(inherited.rows.unwrap().shards(), 2);
        assert_eq!(inherited.secrets.unwrap().to_bytes(), secrets.to_bytes());
        let [(name, listener)] = &inherited.listeners[..] else { panic!("one listener") };
        assert_eq!((name.as_str(), listener.local_addr().unwrap()), ("http", address));
    }

    #[test]
    fn rows_with_a_hole_are_none() {
        let names = ["udp-0", "udp-1", "udp-2", "udp-4"].map(str::to_owned);
        assert!(sort(names.into_iter().zip(rows()).collect()).rows.is_none());
        assert!(sort(Vec::new()).rows.is_none());
    }

    #[test]
    fn sealed_memory_cannot_be_written() {
        let mut file = File::from(sealed(b"as it is").unwrap());
        assert!(file.write_all(b"otherwise").is_err());
        assert!(file.set_len(1).is_err());
    }
}
