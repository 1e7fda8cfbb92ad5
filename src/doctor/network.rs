//! Ports, and what comes through them: with sockets as the relay has them, or, where a relay runs, by asking it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Instant;

use super::holder::{self, Holder, Kind, RELAY};
use crate::host::finding::Finding;
use crate::limits::{DOCTOR_ANSWER_MAX, DOCTOR_PROBE_DATAGRAMS};
use crate::net::socket::SOCKET_BUFFER_BYTES;
use crate::net::{self, BindError, Datagrams, Socket, Train, steer};
use crate::web::{self, ListenError};

/// QUIC's smallest first datagram, and less than any path carries.
const PROBE_BYTES: usize = 1200;

/// A version that nobody speaks, of those that are reserved for that (RFC 9000 §15).
const NO_VERSION: [u8; 4] = [0x1a; 4];
const LONG_HEADER: u8 = 0xc0;
const SHORT_HEADER: u8 = 0x40;
const CID_BYTES: usize = 8;

/// Of the port for QUIC.
pub fn udp(address: SocketAddr, shards: usize) -> Vec<Finding> {
    const SUBJECT: &str = "UDP port";
    match net::bind_group(address, shards) {
        Ok(mut sockets) => {
            let mut findings = vec![Finding::ok(SUBJECT, format!("{address} is free"))];
            findings.extend(socket(&sockets[0]));
            findings.push(probe(&mut sockets));
            findings
        }
        Err(refusal @ BindError::PortTaken(_)) => match holder::of(Kind::Udp, address.port()) {
            Some(holder) if holder.name == RELAY => {
                let mut findings = vec![Finding::ok(SUBJECT, holder.has(address))];
                // Of a socket as its own.
                let like = SocketAddr::new(address.ip(), 0);
                findings.extend(net::bind_group(like, 1).iter().flat_map(|like| socket(&like[0])));
                let theirs = SocketAddr::new(holder.at, address.port());
                findings.push(ask(reachable(theirs), holder.id));
                findings
            }
            holder => vec![Finding::refused(SUBJECT, &held(&refusal, holder))],
        },
        Err(refusal) => vec![Finding::refused(SUBJECT, &refusal)],
    }
}

/// What the kernel grants to one of our sockets.
pub fn socket(socket: &Socket) -> Vec<Finding> {
    vec![buffers(socket), segmentation(socket.max_segments()), joining(socket.joins_datagrams())]
}

fn buffers(socket: &Socket) -> Finding {
    const SUBJECT: &str = "socket buffers";
    let granted = match socket.buffer_bytes() {
        Ok(granted) => granted,
        Err(error) => return Finding::refused(SUBJECT, &error),
    };
    let (receive, send) = (granted.receive >> 10, granted.send >> 10);
    let says = format!("{receive} KiB to receive, {send} KiB to send");
    match granted.receive.min(granted.send) < SOCKET_BUFFER_BYTES {
        false => Finding::ok(SUBJECT, says),
        true => Finding::warn(
            SUBJECT,
            format!("{says}, of {} KiB asked", SOCKET_BUFFER_BYTES >> 10),
            "what comes in a burst while a shard is busy is dropped, and clients take that for a bad link",
            format!(
                "`sysctl -w net.core.rmem_max={SOCKET_BUFFER_BYTES} net.core.wmem_max={SOCKET_BUFFER_BYTES}`, \
                 and the same into /etc/sysctl.d"
            ),
        ),
    }
}

fn segmentation(most: usize) -> Finding {
    const SUBJECT: &str = "segmentation";
    match most {
        2.. => Finding::ok(SUBJECT, format!("up to {most} datagrams leave by one call")),
        _ => Finding::warn(
            SUBJECT,
            "each datagram leaves by itself",
            "sending takes two to three times the CPU",
            "Linux 4.18 or later, and a seccomp profile that allows setsockopt UDP_SEGMENT",
        ),
    }
}

fn joining(is_on: bool) -> Finding {
    const SUBJECT: &str = "joining";
    match is_on {
        true => Finding::ok(SUBJECT, "datagrams of one sender come joined"),
        false => Finding::warn(
            SUBJECT,
            "each datagram comes by itself",
            "what publishers send takes more CPU",
            "Linux 5.0 or later, and a seccomp profile that allows setsockopt UDP_GRO",
        ),
    }
}

/// Sends datagrams to every shard's socket, as a client would, and sees what comes where.
fn probe(sockets: &mut [Socket]) -> Finding {
    const SUBJECT: &str = "UDP probe";
    let to = reachable(sockets[0].local_address());
    let mut client = match net::bind_group(SocketAddr::new(to.ip(), 0), 1) {
        Ok(client) => client,
        Err(refusal) => return Finding::refused(SUBJECT, &refusal),
    };
    let shards = sockets.len();
    let begun = Instant::now();
    for shard in 0..shards {
        let mut datagram = vec![0; PROBE_BYTES];
        (datagram[0], datagram[1]) = (SHORT_HEADER, shard as u8);
        for _ in 0..DOCTOR_PROBE_DATAGRAMS {
            let train = Train {
                destination: to,
                source_ip: None,
                ecn: None,
                contents: &datagram,
                segment_size: None,
            };
            let _ = client[0].send(&train);
        }
        client[0].flush();
    }
    let fault = client[0].take_fault();
    let sent = DOCTOR_PROBE_DATAGRAMS * shards;
    let (mut arrived, mut astray) = (0, 0);
    while arrived < sent && begun.elapsed() < DOCTOR_ANSWER_MAX {
        for (shard, socket) in sockets.iter_mut().enumerate() {
            socket.receive(&mut |received| {
                arrived += 1;
                astray += usize::from(steer::shard_of(&received.data, shards) != Some(shard));
            });
        }
        std::thread::yield_now();
    }
    let (took, reason) = (begun.elapsed(), fault.map(|fault| format!(" ({})", fault.error)));
    judge_probe(to, sent, arrived, astray, &reason.unwrap_or_default(), took)
}

fn judge_probe(
    to: SocketAddr,
    sent: usize,
    arrived: usize,
    astray: usize,
    reason: &str,
    took: std::time::Duration,
) -> Finding {
    const SUBJECT: &str = "UDP probe";
    match arrived {
        0 => Finding::fail(
            SUBJECT,
            format!("of {sent} datagrams from this host to {to} none came{reason}"),
            "nobody reaches the relay",
            "look at the firewall: `nft list ruleset`, `iptables -S INPUT`",
        ),
        _ if arrived < sent => Finding::warn(
            SUBJECT,
            format!("of {sent} datagrams from this host to {to} {arrived} came{reason}"),
            "QUIC sends again what is lost, later",
            "look at the firewall's limits, and at `nstat -az UdpRcvbufErrors`",
        ),
        _ if astray > 0 => Finding::warn(
            SUBJECT,
            format!("the kernel took {astray} of {sent} datagrams to another shard than they name"),
            "shards pass them on to each other, which takes CPU",
            "a kernel that runs SO_ATTACH_REUSEPORT_CBPF programs for UDP",
        ),
        _ => Finding::ok(
            SUBJECT,
            format!("{sent} datagrams to {to} came, each to its shard, in {} µs", took.as_micros()),
        ),
    }
}

/// Asks the relay that runs which versions of QUIC it speaks.
fn ask(relay: SocketAddr, id: u32) -> Finding {
    const SUBJECT: &str = "UDP probe";
    let begun = Instant::now();
    match versions(relay) {
        Ok(true) => Finding::ok(
            SUBJECT,
            format!("the relay at {relay} answered in {} µs", begun.elapsed().as_micros()),
        ),
        answer => Finding::fail(
            SUBJECT,
            match answer {
                Err(error) => format!("the relay at {relay} did not answer: {error}"),
                _ => format!("what the relay at {relay} answered is not QUIC"),
            },
            "nobody reaches it",
            format!(
                "look at the firewall (`nft list ruleset`), and whether its shards turn: `top -H -p {id}`"
            ),
        ),
    }
}

/// Whether what comes back for a version that nobody speaks is a list of those that are (RFC 9000 §17.2.1).
fn versions(relay: SocketAddr) -> std::io::Result<bool> {
    let socket = UdpSocket::bind(SocketAddr::new(unspecified(relay.ip()), 0))?;
    socket.connect(relay)?;
    socket.set_read_timeout(Some(DOCTOR_ANSWER_MAX))?;
    let ours = [0xd0; CID_BYTES];
    let mut ask = vec![LONG_HEADER];
    ask.extend(NO_VERSION);
    for id in [[0; CID_BYTES], ours] {
        ask.push(CID_BYTES as u8);
        ask.extend(id);
    }
    ask.resize(PROBE_BYTES, 0);
    uninterrupted(|| socket.send(&ask))?;
    let mut answer = [0; PROBE_BYTES];
    let len = uninterrupted(|| socket.recv(&mut answer))?;
    let mut expected = vec![0; 4];
    expected.push(CID_BYTES as u8);
    expected.extend(ours);
    Ok(answer[..len].get(1..).is_some_and(|rest| rest.starts_with(&expected)))
}

/// What comes of a call of the kernel's. One that has a time limit is not taken up again where this thread's own
/// rings, of sockets that were looked at before, have had something to do meanwhile.
fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// What a TCP port is for.
pub struct Port {
    subject: &'static str,
    flag: &'static str,
    is_tls: bool,
}

pub const HTTP: Port = Port { subject: "HTTP", flag: "--web-http-listen", is_tls: false };
pub const HTTPS: Port = Port { subject: "HTTPS", flag: "--web-https-listen", is_tls: true };
pub const INTERNAL: Port =
    Port { subject: "HTTP of operators", flag: "--internal-listen", is_tls: false };

/// Of a port for HTTP.
pub fn tcp(port: &Port, address: SocketAddr) -> Finding {
    let Port { subject, flag, is_tls } = *port;
    let listener = match web::listen(address, flag) {
        Ok(listener) => listener,
        Err(refusal @ ListenError::PortTaken { .. }) => {
            return match holder::of(Kind::Tcp, address.port()) {
                // Whether its certificate is good is another question.
                Some(holder) if holder.name == RELAY && is_tls => {
                    Finding::ok(subject, holder.has(address))
                }
                Some(holder) if holder.name == RELAY => health(subject, address, &holder),
                holder => Finding::refused(subject, &held(&refusal, holder)),
            };
        }
        Err(refusal) => return Finding::refused(subject, &refusal),
    };
    let to = match listener.local_addr() {
        Ok(bound) => reachable(bound),
        Err(error) => return Finding::refused(subject, &error),
    };
    match TcpStream::connect_timeout(&to, DOCTOR_ANSWER_MAX) {
        Ok(_) => Finding::ok(subject, format!("{address} is free, and reached from this host")),
        Err(error) => unreachable_from_here(subject, to, &error.to_string()),
    }
}

fn health(subject: &'static str, address: SocketAddr, holder: &Holder) -> Finding {
    let to = reachable(SocketAddr::new(holder.at, address.port()));
    match get_health(to) {
        Ok(status) if status.contains(" 200 ") => {
            Finding::ok(subject, format!("{}, which is well", holder.has(address)))
        }
        Ok(status) => Finding::fail(
            subject,
            format!("http://{to}/health says {status:?}"),
            "a shard does not turn, and its clients wait",
            format!("`curl http://{to}/health`, and the log of process {}", holder.id),
        ),
        Err(error) => unreachable_from_here(subject, to, &error.to_string()),
    }
}

fn unreachable_from_here(subject: &'static str, to: SocketAddr, reason: &str) -> Finding {
    Finding::fail(
        subject,
        format!("http://{to} cannot be reached from this host: {reason}"),
        "nobody is answered there",
        "look at the firewall: `nft list ruleset`, `iptables -S INPUT`",
    )
}

/// The first line of the answer.
fn get_health(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, DOCTOR_ANSWER_MAX)?;
    stream.set_read_timeout(Some(DOCTOR_ANSWER_MAX))?;
    stream.set_write_timeout(Some(DOCTOR_ANSWER_MAX))?;
    write!(stream, "GET /health HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(PROBE_BYTES as u64).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}

fn held(refusal: &dyn std::fmt::Display, holder: Option<Holder>) -> String {
    match holder {
        Some(Holder { id, name, .. }) => format!("{refusal}; it is {name}, process {id}"),
        // Processes of others are looked into by root alone.
        None => format!("{refusal}; as root this says which that is, and asks it if it is a relay"),
    }
}

/// Where a socket that is bound there can be reached on this host.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
