//! The TCP socket for HTTP.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Type};

use crate::limits::WEB_BACKLOG;

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "TCP {0}, for HTTP, is in use: stop the program that holds it (`ss -tlpn`), or choose \
         another address with --web-http-listen, or none with --web-http-listen off"
    )]
    PortTaken(SocketAddr),
    #[error(
        "{}, for HTTP, is not an address of this host: choose one that `ip address` lists with \
         --web-http-listen, or `[::]` for all",
        .0.ip()
    )]
    NoSuchAddress(SocketAddr),
    #[error(
        "not permitted to bind TCP port {}, for HTTP: choose a port from 1024 up with \
         --web-http-listen, or grant CAP_NET_BIND_SERVICE",
        .0.port()
    )]
    NotPermitted(SocketAddr),
    #[error("cannot bind TCP {address}, for HTTP: {error}")]
    Other { address: SocketAddr, error: io::Error },
}

/// Port 0 asks the kernel to choose.
pub fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    open(address).map_err(|error| match error.raw_os_error() {
        Some(libc::EADDRINUSE) => ListenError::PortTaken(address),
        Some(libc::EADDRNOTAVAIL) => ListenError::NoSuchAddress(address),
        Some(libc::EACCES | libc::EPERM) => ListenError::NotPermitted(address),
        _ => ListenError::Other { address, error },
    })
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // As the UDP sockets do: one unspecified address serves both families.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Connections of the relay that ran before linger in the kernel and hold nothing back.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(WEB_BACKLOG as i32)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
