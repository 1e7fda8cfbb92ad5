//! TCP sockets for HTTP.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Type};

use crate::limits::WEB_BACKLOG;

/// With the argument that has named the address.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "TCP {address}, for HTTP, is in use: stop the program that holds it (`ss -tlpn`), or choose \
         another address with {flag}{}",
        or_none(flag)
    )]
    PortTaken { address: SocketAddr, flag: &'static str },
    #[error(
        "{}, for HTTP, is not an address of this host: choose one that `ip address` lists with \
         {flag}, or `[::]` for all",
        address.ip()
    )]
    NoSuchAddress { address: SocketAddr, flag: &'static str },
    #[error(
        "not permitted to bind TCP port {}, for HTTP: choose a port from 1024 up with \
         {flag}, or grant CAP_NET_BIND_SERVICE",
        address.port()
    )]
    NotPermitted { address: SocketAddr, flag: &'static str },
    #[error("cannot bind TCP {address}, for {flag}: {error}")]
    Other { address: SocketAddr, flag: &'static str, error: io::Error },
}

/// One that may have come by itself may be turned off.
fn or_none(flag: &str) -> String {
    match flag {
        "--web-http-listen" => format!(", or none with {flag} off"),
        _ => String::new(),
    }
}

/// Port 0 asks the kernel to choose.
pub fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, ListenError> {
    open(address).map_err(|error| match error.raw_os_error() {
        Some(libc::EADDRINUSE) => ListenError::PortTaken { address, flag },
        Some(libc::EADDRNOTAVAIL) => ListenError::NoSuchAddress { address, flag },
        Some(libc::EACCES | libc::EPERM) => ListenError::NotPermitted { address, flag },
        _ => ListenError::Other { address, flag, error },
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
