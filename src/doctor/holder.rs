//! Who has a port, as far as /proc tells this user.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// The name of our process, as the kernel has it.
pub const RELAY: &str = "shardcast";

/// A process that has a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub id: u32,
    pub name: String,
    /// Where it has the port.
    pub at: IpAddr,
}

impl Holder {
    /// What it has of an address that is asked for.
    pub fn has(&self, address: SocketAddr) -> String {
        let Holder { id, name, at } = self;
        match *at == address.ip() {
            true => format!("{address} is that of {name}, process {id}"),
            false => {
                let theirs = SocketAddr::new(*at, address.port());
                format!(
                    "{name}, process {id}, has {theirs}; {address} is free when that is restarted"
                )
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Udp,
    Tcp,
}

/// State of a TCP socket that listens, as the kernel writes it. UDP sockets have none that matters.
const LISTENS: &str = "0A";

/// A process that has this port; a relay, if one of them is: systemd keeps sockets of services too. Processes of
/// others cannot be looked into without privileges.
pub fn of(kind: Kind, port: u16) -> Option<Holder> {
    let tables = match kind {
        Kind::Udp => ["/proc/net/udp", "/proc/net/udp6"],
        Kind::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
    };
    let read = |table: &str| fs::read_to_string(table).unwrap_or_default();
    let sockets: Vec<(String, IpAddr)> =
        tables.iter().flat_map(|table| sockets(kind, port, &read(table))).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let holders = ids.filter_map(|id: u32| {
        let process = Path::new("/proc").join(id.to_string());
        let mut files = fs::read_dir(process.join("fd")).ok()?.flatten();
        let at = files.find_map(|file| {
            let target = fs::read_link(file.path()).ok()?;
            let mut sockets = sockets.iter();
            Some(sockets.find(|(socket, _)| target.as_os_str() == socket.as_str())?.1)
        })?;
        let name = fs::read_to_string(process.join("comm")).ok()?.trim().to_owned();
        Some(Holder { id, name, at })
    });
    let holders: Vec<Holder> = holders.collect();
    let relay = holders.iter().position(|holder| holder.name == RELAY);
    holders.into_iter().nth(relay.unwrap_or_default())
}

/// The sockets of a port in a table of /proc/net, by what a descriptor of theirs leads to, and their addresses.
fn sockets(kind: Kind, port: u16, table: &str) -> Vec<(String, IpAddr)> {
    let port = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let ours = rows.filter(|row| {
        let local = row.get(1).is_some_and(|local| local.ends_with(&port));
        local && (kind == Kind::Udp || row.get(3) == Some(&LISTENS))
    });
    let named = ours.filter_map(|row| {
        let at = address(row.get(1)?.split(':').next()?)?;
        Some((format!("socket:[{}]", row.get(9)?), at))
    });
    named.collect()
}

/// As the kernel writes it: words of four bytes, which are in the order of the network, as numbers of this machine.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    if text.len() == 8 {
        return Some(word(0)?.into());
    }
    let words = [word(0)?, word(8)?, word(16)?, word(24)?];
    let bytes: [u8; 16] = words.concat().try_into().ok()?;
    Some(Ipv6Addr::from(bytes).into())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn ports_of_this_process() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let (udp, tcp) =
            (socket.local_addr().unwrap().port(), listener.local_addr().unwrap().port());
        for (kind, port, at) in [(Kind::Udp, udp, "127.0.0.1"), (Kind::Tcp, tcp, "::1")] {
            let holder = of(kind, port).expect("this process");
            assert_eq!((holder.id, holder.at), (std::process::id(), at.parse().unwrap()));
        }
        drop((socket, listener));
        assert_eq!(of(Kind::Udp, udp), None);
        assert_eq!(of(Kind::Tcp, tcp), None);
    }

    #[test]
    fn a_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1151 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 123 1\n\
            1: 0100007F:1151 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 124 1\n\
            2: 0100007F:1152 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 125 1\n";
        let names = |kind| -> Vec<String> {
            sockets(kind, 0x1151, table).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(Kind::Tcp), ["socket:[123]"]);
        assert_eq!(names(Kind::Udp), ["socket:[123]", "socket:[124]"]);
        assert!(sockets(Kind::Udp, 1, table).is_empty());
    }
}
