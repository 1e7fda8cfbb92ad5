//! A link between real sockets, in real time, on one thread: clients send to one address, and each of
//! them goes on to the relay from a port of its own. All share both directions.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::path::{Lost, Options, Path};

/// Each has a socket, for as long as the link stands. Datagrams of others are lost.
const CLIENTS_MAX: usize = 256;

/// Datagrams under way, 24 MB at most; others are lost. A link of 1 Gb/s and 100 ms has half as many.
const FLIGHTS_MAX: usize = 16_384;

/// A burst of a sender waits here while this thread does not run.
const SOCKET_BYTES: libc::c_int = 4 << 20;

/// How soon it ends when it shall.
const LOOK_EVERY: Duration = Duration::from_millis(100);

const TO_RELAY: usize = 0;
const TO_CLIENT: usize = 1;

/// What became of the datagrams of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub entered: u64,
    pub arrived: u64,
    pub bytes: u64,
    /// By the link.
    pub lost: u64,
    /// For lack of room in its queue.
    pub full: u64,
    pub too_large: u64,
    /// By this program: for lack of room, or by a socket that did not take them.
    pub ours: u64,
    /// How much later than meant the worst one was sent on.
    pub latest: Duration,
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { entered, arrived, bytes, lost, full, too_large, ours, latest } = self;
        let latest = latest.as_secs_f64() * 1000.0;
        write!(
            out,
            "{entered} entered, {arrived} arrived ({bytes} bytes), {lost} lost, {full} found the queue \
             full, {too_large} too large, {ours} lost by this program, late by {latest:.2} ms at most"
        )
    }
}

/// To the relay and to clients, with how many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub to_relay: Counts,
    pub to_clients: Counts,
    pub clients: usize,
}

struct Client {
    address: SocketAddr,
    /// To the relay.
    socket: UdpSocket,
}

/// In order of arrival, and of departure where that is the same.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    arrives: Instant,
    departure: u64,
    way: usize,
    client: usize,
    data: Vec<u8>,
}

pub struct Wire {
    listener: UdpSocket,
    relay: SocketAddr,
    clients: Vec<Client>,
    by_address: HashMap<SocketAddr, usize>,
    ends: Instant,
    paths: [Path; 2],
    flights: BinaryHeap<Reverse<Flight>>,
    departures: u64,
    counts: [Counts; 2],
}

impl Wire {
    /// The link stands from now on.
    pub fn new(listen: SocketAddr, relay: SocketAddr, options: &Options) -> io::Result<Wire> {
        let now = Instant::now();
        Ok(Wire {
            listener: socket(listen)?,
            relay,
            clients: Vec::new(),
            by_address: HashMap::new(),
            ends: now + options.lasts,
            paths: options.lay(now),
            flights: BinaryHeap::new(),
            departures: 0,
            counts: Default::default(),
        })
    }

    /// Where clients dial.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Until its time is over or it shall stop.
    pub fn run(mut self, stop: &AtomicBool) -> io::Result<Total> {
        sleep_precisely();
        let mut buf = vec![0; 1 << 16];
        let mut ready = Vec::new();
        while Instant::now() < self.ends && !stop.load(Ordering::Relaxed) {
            self.wait(&mut ready)?;
            // The listener is before the clients.
            if ready[0] {
                self.upwards(&mut buf);
            }
            for client in (0..ready.len() - 1).filter(|client| ready[client + 1]) {
                self.downwards(client, &mut buf);
            }
            self.deliver();
        }
        let [to_relay, to_clients] = self.counts;
        Ok(Total { to_relay, to_clients, clients: self.clients.len() })
    }

    /// Until something has come, or is to be sent on.
    fn wait(&self, ready: &mut Vec<bool>) -> io::Result<()> {
        let sockets =
            [&self.listener].into_iter().chain(self.clients.iter().map(|client| &client.socket));
        let asked = |socket: &UdpSocket| libc::pollfd {
            fd: socket.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let mut asked: Vec<libc::pollfd> = sockets.map(asked).collect();
        let now = Instant::now();
        let next = self.flights.peek().map_or(LOOK_EVERY, |Reverse(next)| next.arrives - now);
        let timeout = next.min(LOOK_EVERY);
        let timeout = libc::timespec { tv_sec: 0, tv_nsec: timeout.subsec_nanos().into() };
        // SAFETY: the array is as long as said, and both pointers are to what outlives the call.
        let code = unsafe {
            libc::ppoll(asked.as_mut_ptr(), asked.len() as _, &timeout, std::ptr::null())
        };
        let error = io::Error::last_os_error();
        if code < 0 && error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        ready.clear();
        ready.extend(asked.iter().map(|asked| code > 0 && asked.revents != 0));
        Ok(())
    }

    fn upwards(&mut self, buf: &mut [u8]) {
        while let Ok((size, address)) = self.listener.recv_from(buf) {
            let now = Instant::now();
            match self.client(address) {
                Some(client) => self.enter(now, TO_RELAY, client, &buf[..size]),
                None => self.counts[TO_RELAY].ours += 1,
            }
        }
    }

    fn downwards(&mut self, client: usize, buf: &mut [u8]) {
        // An error is that of something sent to a relay that is gone.
        while let Ok(size) = self.clients[client].socket.recv(buf) {
            self.enter(Instant::now(), TO_CLIENT, client, &buf[..size]);
        }
    }

    fn client(&mut self, address: SocketAddr) -> Option<usize> {
        if let Some(client) = self.by_address.get(&address) {
            return Some(*client);
        }
        if self.clients.len() == CLIENTS_MAX {
            return None;
        }
        let any = match self.relay {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = socket(any).ok()?;
        socket.connect(self.relay).ok()?;
        self.clients.push(Client { address, socket });
        self.by_address.insert(address, self.clients.len() - 1);
        Some(self.clients.len() - 1)
    }

    fn enter(&mut self, now: Instant, way: usize, client: usize, data: &[u8]) {
        let counts = &mut self.counts[way];
        counts.entered += 1;
        match self.paths[way].enter(now, data.len()) {
            Err(Lost::Link) => counts.lost += 1,
            Err(Lost::Queue) => counts.full += 1,
            Err(Lost::TooLarge) => counts.too_large += 1,
            Ok(_) if self.flights.len() == FLIGHTS_MAX => counts.ours += 1,
            Ok(arrives) => {
                self.departures += 1;
                let (departure, data) = (self.departures, data.to_vec());
                self.flights.push(Reverse(Flight { arrives, departure, way, client, data }));
            }
        }
    }

    /// Sends on what arrives now.
    fn deliver(&mut self) {
        while let Some(Reverse(next)) = self.flights.peek()
            && let Some(late) = Instant::now().checked_duration_since(next.arrives)
        {
            let Reverse(flight) = self.flights.pop().expect("it was looked at");
            let client = &self.clients[flight.client];
            let sent = match flight.way {
                TO_RELAY => client.socket.send(&flight.data),
                _ => self.listener.send_to(&flight.data, client.address),
            };
            let counts = &mut self.counts[flight.way];
            counts.latest = counts.latest.max(late);
            match sent {
                Ok(bytes) => {
                    counts.arrived += 1;
                    counts.bytes += bytes as u64;
                }
                // It would block, or nobody is there any more.
                Err(_) => counts.ours += 1,
            }
        }
    }
}

/// One that never blocks and has room for a burst.
fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    let bytes = SOCKET_BYTES;
    // As much as the host allows where it does not allow this.
    for option in [libc::SO_RCVBUF, libc::SO_RCVBUFFORCE, libc::SO_SNDBUF, libc::SO_SNDBUFFORCE] {
        // SAFETY: the option takes a number, which lives as long as the call.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const bytes).cast(),
                size_of_val(&bytes) as libc::socklen_t,
            );
        }
    }
    Ok(socket)
}

/// The kernel wakes sleepers up to 50 µs late unless told not to.
fn sleep_precisely() {
    // SAFETY: this option takes a number and no pointer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const HOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn client() -> UdpSocket {
        let socket = UdpSocket::bind(HOST).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    /// Two clients and one relay: each gets its own, not before its time, and whole.
    #[test]
    fn clients_are_told_apart_and_nothing_is_early() {
        const DELAY: Duration = Duration::from_millis(20);
        let relay = client();
        let options = Options::clean(100_000_000, DELAY);
        let wire = Wire::new(HOST, relay.local_addr().unwrap(), &options).unwrap();
        let address = wire.address().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || wire.run(&stop).unwrap()
        });
        let clients = [client(), client()];
        let mut buf = [0; 2000];
        let mut ports = Vec::new();
        for n in 0..10 {
            let client = &clients[n % 2];
            let start = Instant::now();
            client.send_to(&[n as u8; 1200], address).unwrap();
            let (size, from) = relay.recv_from(&mut buf).unwrap();
            assert!(start.elapsed() >= DELAY);
            assert_eq!(&buf[..size], [n as u8; 1200]);
            relay.send_to(&buf[..size], from).unwrap();
            let size = client.recv(&mut buf).unwrap();
            assert!(start.elapsed() >= 2 * DELAY);
            assert_eq!(&buf[..size], [n as u8; 1200]);
            ports.push(from.port());
        }
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 2);
        stop.store(true, Ordering::Relaxed);
        let total = thread.join().unwrap();
        for counts in [total.to_relay, total.to_clients] {
            let Counts { entered, arrived, bytes, .. } = counts;
            assert_eq!((entered, arrived, bytes), (10, 10, 12_000), "{counts}");
        }
        assert_eq!(total.clients, 2);
    }

    #[test]
    fn its_time_is_its_end() {
        let lasts = Duration::from_millis(50);
        let options = Options { lasts, ..Options::clean(1_000_000, lasts) };
        let start = Instant::now();
        let wire = Wire::new(HOST, HOST, &options).unwrap();
        assert_eq!(wire.run(&AtomicBool::new(false)).unwrap(), Total::default());
        assert!(start.elapsed() >= lasts);
    }
}
