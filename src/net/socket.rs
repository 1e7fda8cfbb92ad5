//! One UDP socket of the group that shares the relay's port, driven by quinn-udp: recvmmsg with
//! GRO inwards, sendmmsg with GSO outwards.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use bytes::BytesMut;
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Type};

use super::batch::Batch;
use super::steer::{self, Generation, Steering};
use super::{Datagrams, Ecn, Received, Sent, Train};

/// Asked of the kernel in each direction. A shard that is away for 10 ms at 3 Gb/s misses 4 MB.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// GRO trains taken by one recvmmsg: the largest batch that quinn-udp has.
const RECEIVE_TRAINS_MAX: usize = 32;

/// Trains asked for first: each costs the same preparation whether it comes or not, and a shard
/// with little to do finds one or two.
const RECEIVE_TRAINS_FEW: usize = 4;

/// Room for the longest train that the kernel joins.
const TRAIN_BYTES_MAX: usize = 1 << 16;

const _: () = assert!(RECEIVE_TRAINS_MAX <= quinn_udp::BATCH_SIZE);

/// Binds one socket per shard to `address`, in shard order, and steers datagrams between them: for whoever
/// has no process before or behind it.
pub fn bind_group(address: SocketAddr, shards: usize) -> Result<Vec<Socket>, BindError> {
    let (sockets, bound) = bind(address, shards)?;
    let explain = |error| BindError::explain(address, error);
    if shards > 1 {
        let steering = Steering { shards, current: Generation::default(), is_shared: false };
        steer::attach(&sockets[0], steering)
            .map_err(|error| BindError::Steering { address: bound, error })?;
    }
    sockets.into_iter().map(|socket| Socket::new(socket, bound).map_err(explain)).collect()
}

/// Binds so many sockets to one address, in an order that the group keeps.
///
/// The first socket binds without SO_REUSEPORT, which fails if anybody at all holds the port,
/// even a relay of the same user with a group of its own. Only then is the port opened to the
/// other sockets. With port 0 they take the port that the first one got.
pub(super) fn bind(
    address: SocketAddr,
    count: usize,
) -> Result<(Vec<socket2::Socket>, SocketAddr), BindError> {
    assert!(count > 0, "a relay has at least one shard");
    let explain = |error| BindError::explain(address, error);

    let first = open(address).map_err(explain)?;
    first.bind(&address.into()).map_err(explain)?;
    let bound = first.local_addr().map_err(explain)?.as_socket().expect("an IP socket");
    let mut sockets = vec![first];
    if count > 1 {
        share_port(&sockets[0]).map_err(explain)?;
        for _ in 1..count {
            let next = open(address).map_err(explain)?;
            share_port(&next).map_err(explain)?;
            next.bind(&bound.into()).map_err(explain)?;
            sockets.push(next);
        }
    }
    Ok((sockets, bound))
}

fn open(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // One unspecified IPv6 address serves both families whatever the host's default is.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // The kernel grants less than asked without an error; `buffer_bytes` tells.
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    Ok(socket)
}

fn share_port(socket: &socket2::Socket) -> io::Result<()> {
    set_option(socket, libc::SO_REUSEPORT, 1)
}

fn drive(socket: &socket2::Socket) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(UdpSockRef::from(socket))?;
    // quinn-udp asks for receive times, which we do not use, and its buffer for control messages
    // is too short for them beside the stride, the address and ECN: of a joined train, ECN was
    // cut off.
    set_option(socket, libc::SO_TIMESTAMPNS, 0)?;
    Ok(state)
}

fn set_option(socket: &socket2::Socket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the option's value is an int that outlives the call.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One shard's socket.
pub struct Socket {
    socket: socket2::Socket,
    state: UdpSocketState,
    local_address: SocketAddr,
    /// One slot per train of a batch, allocated once.
    slots: Box<[u8]>,
    batch: Batch,
    counts: SocketCounts,
    /// The last that nobody has asked for.
    fault: Option<Fault>,
}

/// A train that the kernel refused to send.
#[derive(Debug)]
pub struct Fault {
    pub destination: SocketAddr,
    pub error: io::Error,
}

/// What a socket has seen. Plain counters, read by their shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketCounts {
    pub received_trains_total: u64,
    pub received_datagrams_total: u64,
    pub received_bytes_total: u64,
    pub receive_batches_total: u64,
    pub receive_errors_total: u64,
    /// Empty, or from port 0, which cannot be answered.
    pub refused_datagrams_total: u64,
    pub sent_trains_total: u64,
    pub sent_datagrams_total: u64,
    pub sent_bytes_total: u64,
    pub lost_trains_total: u64,
}

/// Datagrams that the kernel has dropped because a socket of ours was full; it counts in 32 bits.
pub fn kernel_drops(socket: &impl AsRawFd) -> io::Result<u32> {
    /// `SK_MEMINFO_VARS` of the kernel, and which of them this is.
    const VARS: usize = 9;
    const DROPS: usize = 8;
    let mut vars = [0u32; VARS];
    let mut len = size_of_val(&vars) as libc::socklen_t;
    // SAFETY: both point to live values, and the kernel writes no more than `len` bytes.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            vars.as_mut_ptr().cast(),
            &mut len,
        )
    };
    if status == 0 { Ok(vars[DROPS]) } else { Err(io::Error::last_os_error()) }
}

/// Buffer sizes that the kernel granted, comparable with `SOCKET_BUFFER_BYTES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferBytes {
    pub receive: usize,
    pub send: usize,
}

impl Socket {
    pub(super) fn new(socket: socket2::Socket, local_address: SocketAddr) -> io::Result<Self> {
        let state = drive(&socket)?;
        Ok(Self {
            socket,
            state,
            local_address,
            slots: vec![0; RECEIVE_TRAINS_MAX * TRAIN_BYTES_MAX].into_boxed_slice(),
            batch: Batch::new(),
            counts: SocketCounts::default(),
            fault: None,
        })
    }

    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    pub fn counts(&self) -> SocketCounts {
        self.counts
    }

    /// The last train that was refused since somebody asked.
    pub fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    /// What the kernel granted. It reports twice the usable size, the rest being its own
    /// bookkeeping.
    pub fn buffer_bytes(&self) -> io::Result<BufferBytes> {
        Ok(BufferBytes {
            receive: self.socket.recv_buffer_size()? / 2,
            send: self.socket.send_buffer_size()? / 2,
        })
    }

    /// Whether the kernel joins datagrams of one sender (GRO).
    pub fn joins_datagrams(&self) -> bool {
        self.state.gro_segments() > 1
    }

    /// Takes up to `most` trains from the kernel; says how many came.
    fn take(&mut self, most: usize, deliver: &mut dyn FnMut(Received)) -> usize {
        let mut metas = [RecvMeta::default(); RECEIVE_TRAINS_MAX];
        let mut slots = self.slots.chunks_exact_mut(TRAIN_BYTES_MAX);
        let mut slots: [IoSliceMut<'_>; RECEIVE_TRAINS_MAX] =
            std::array::from_fn(|_| IoSliceMut::new(slots.next().expect("one slot per train")));
        let socket = UdpSockRef::from(&self.socket);
        let trains = match self.state.recv(socket, &mut slots[..most], &mut metas[..most]) {
            Ok(trains) => trains,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return 0,
            Err(_) => {
                self.counts.receive_errors_total += 1;
                return 0;
            }
        };
        self.counts.receive_batches_total += 1;
        for (slot, meta) in slots.iter().zip(&metas).take(trains) {
            // Port 0 cannot be answered: the send would fail with EINVAL.
            if meta.len == 0 || meta.addr.port() == 0 {
                self.counts.refused_datagrams_total += 1;
                continue;
            }
            let stride = meta.stride.clamp(1, meta.len);
            self.counts.received_trains_total += 1;
            self.counts.received_bytes_total += meta.len as u64;
            self.counts.received_datagrams_total += meta.len.div_ceil(stride) as u64;
            for datagram in slot[..meta.len].chunks(stride) {
                deliver(Received {
                    remote: meta.addr,
                    local_ip: meta.dst_ip,
                    ecn: meta.ecn.and_then(|ecn| Ecn::from_bits(ecn as u8)),
                    // Memory of its own: a byte that waits for those before it must not hold a train.
                    data: BytesMut::from(datagram),
                });
            }
        }
        trains
    }

    /// Sends the first train of the batch by itself, after the kernel has found fault with it.
    ///
    /// Anything but a full buffer costs this train only: the peer may be gone, the datagram too
    /// long for the path, the route withdrawn. None of it concerns the other connections.
    fn send_first(&mut self) -> io::Result<()> {
        let Some(train) = self.batch.first() else { return Ok(()) };
        let transmit = Transmit {
            destination: train.destination,
            ecn: train.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn.bits())),
            contents: train.contents,
            segment_size: train.segment_size,
            src_ip: train.source_ip,
        };
        match self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
            Ok(()) => self.note_sent(1),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(error) => {
                self.counts.lost_trains_total += 1;
                // quinn-udp stops segmenting for good on EINVAL as well as on EIO. EIO speaks of
                // the device, but EINVAL of this train's addresses, and a peer must not be able to
                // turn segmentation off for all others.
                if error.raw_os_error() == Some(libc::EINVAL)
                    && let Ok(state) = drive(&self.socket)
                {
                    self.state = state;
                }
                // One that is too long is how the path's limit is found out.
                if error.raw_os_error() != Some(libc::EMSGSIZE) {
                    self.fault = Some(Fault { destination: train.destination, error });
                }
                self.batch.pop();
            }
        }
        Ok(())
    }

    /// The first trains of the batch have left.
    fn note_sent(&mut self, trains: usize) {
        for _ in 0..trains {
            let Some(train) = self.batch.first() else { return };
            let segment = train.segment_size.unwrap_or(train.contents.len()).max(1);
            self.counts.sent_trains_total += 1;
            self.counts.sent_datagrams_total += train.contents.len().div_ceil(segment) as u64;
            self.counts.sent_bytes_total += train.contents.len() as u64;
            self.batch.pop();
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Datagrams for Socket {
    fn receive(&mut self, deliver: &mut dyn FnMut(Received)) -> bool {
        self.take(RECEIVE_TRAINS_FEW, deliver) == RECEIVE_TRAINS_FEW
            && self.take(RECEIVE_TRAINS_MAX, deliver) == RECEIVE_TRAINS_MAX
    }

    fn send(&mut self, train: &Train<'_>) -> Sent {
        if train.contents.is_empty() || train.destination.port() == 0 {
            self.counts.lost_trains_total += 1;
            return Sent::Lost;
        }
        if !self.batch.has_room(train) {
            self.flush();
        }
        if !self.batch.has_room(train) {
            return Sent::Blocked;
        }
        self.batch.push(train);
        Sent::Taken
    }

    fn flush(&mut self) -> bool {
        while self.batch.first().is_some() {
            let sent = match self.batch.send(self.socket.as_raw_fd()) {
                Ok(trains) => {
                    self.note_sent(trains);
                    Ok(())
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
                Err(_) => self.send_first(),
            };
            if sent.is_err() {
                return true;
            }
        }
        false
    }

    fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }
}

/// Why the relay could not take its address, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "UDP {0} is in use: stop the program that holds it (`ss -ulpn`) or choose another address \
         with --listen"
    )]
    PortTaken(SocketAddr),
    #[error(
        "{} is not an address of this host: choose one that `ip address` lists, or `[::]` for all",
        .0.ip()
    )]
    NoSuchAddress(SocketAddr),
    #[error(
        "not permitted to bind UDP port {}: choose a port from 1024 up, or grant CAP_NET_BIND_SERVICE",
        .0.port()
    )]
    NotPermitted(SocketAddr),
    #[error("this host has no support for the address family of {}: choose the other one", .0.ip())]
    FamilyNotSupported(SocketAddr),
    #[error(
        "the kernel refused to steer {address} between shards ({error}): run a kernel, and where there is a \
         seccomp profile one of those, that allows SO_ATTACH_REUSEPORT_CBPF"
    )]
    Steering { address: SocketAddr, error: io::Error },
    #[error("cannot bind UDP {address}: {error}")]
    Other { address: SocketAddr, error: io::Error },
}

impl BindError {
    pub(super) fn explain(address: SocketAddr, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EADDRINUSE) => Self::PortTaken(address),
            Some(libc::EADDRNOTAVAIL) => Self::NoSuchAddress(address),
            Some(libc::EACCES | libc::EPERM) => Self::NotPermitted(address),
            Some(libc::EAFNOSUPPORT) => Self::FamilyNotSupported(address),
            _ => Self::Other { address, error },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, UdpSocket},
        time::{Duration, Instant},
    };

    use super::super::batch::TRAINS_MAX;
    use super::*;

    fn bind_one(address: &str) -> Socket {
        bind_group(address.parse().unwrap(), 1).unwrap().pop().unwrap()
    }

    fn receive_some(socket: &mut Socket) -> Vec<Received> {
        let mut arrived = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(5);
        while arrived.is_empty() && Instant::now() < deadline {
            socket.receive(&mut |received| arrived.push(received));
        }
        arrived
    }

    fn train(destination: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> Train<'_> {
        Train { destination, source_ip: None, ecn: Some(Ecn::Ect0), contents, segment_size }
    }

    fn send(socket: &mut Socket, train: &Train<'_>) {
        assert_eq!(socket.send(train), Sent::Taken);
        assert!(!socket.flush(), "the kernel has room");
    }

    /// More trains than leave in one call, with some among them that cannot be sent, to receivers of
    /// both families: each of the others gets there once, in order.
    #[test]
    fn a_batch_leaves_as_its_trains() {
        let mut sender = bind_one("[::]:0");
        let mut receivers = [bind_one("127.0.0.1:0"), bind_one("[::1]:0")];
        let mapped = |address: SocketAddr| match address {
            SocketAddr::V4(v4) => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
            v6 => v6,
        };
        let to = [0, 1].map(|at| mapped(receivers[at].local_address()));
        for n in 0..100u8 {
            let contents = [n; 1500];
            let segment_size = n.is_multiple_of(2).then_some(500);
            let train = train(to[usize::from(n) % 7 % 2], &contents, segment_size);
            assert_eq!(sender.send(&train), Sent::Taken);
            if n.is_multiple_of(10) {
                assert_eq!(sender.send(&Train { segment_size: Some(1), ..train }), Sent::Taken);
            }
        }
        assert!(!sender.flush());
        assert_eq!(sender.counts().lost_trains_total, 10);
        assert_eq!(sender.counts().sent_trains_total, 100);
        for (at, receiver) in receivers.iter_mut().enumerate() {
            let mut got = Vec::new();
            while receiver
                .receive(&mut |received| got.push((received.data[0], received.data.len())))
            {
            }
            let mine = (0..100u8).filter(|n| usize::from(*n) % 7 % 2 == at);
            let expect: Vec<_> = mine
                .flat_map(|n| match n.is_multiple_of(2) {
                    true => vec![(n, 500); 3],
                    false => vec![(n, 1500)],
                })
                .collect();
            assert_eq!(got, expect);
        }
    }

    #[test]
    fn a_train_arrives_as_its_datagrams() {
        check_train("127.0.0.1:0");
        check_train("[::1]:0");
    }

    #[track_caller]
    fn check_train(address: &str) {
        let (mut sender, mut receiver) = (bind_one(address), bind_one(address));
        let contents: Vec<u8> = (0..2500).map(|n| n as u8).collect();
        send(&mut sender, &train(receiver.local_address(), &contents, Some(1200)));
        let arrived = receive_some(&mut receiver);
        let lengths: Vec<_> = arrived.iter().map(|received| received.data.len()).collect();
        assert_eq!(lengths, [1200, 1200, 100]);
        let bytes: Vec<u8> = arrived.iter().flat_map(|received| received.data.to_vec()).collect();
        assert_eq!(bytes, contents);
        // The last one alone does not keep the memory of the others.
        let held: Vec<_> = arrived.iter().map(|received| received.data.capacity()).collect();
        assert_eq!(held, lengths);
        assert_eq!(arrived[0].remote, sender.local_address());
        assert_eq!(arrived[0].local_ip, Some(receiver.local_address().ip()));
        assert!(arrived.iter().all(|received| received.ecn == Some(Ecn::Ect0)));
        // The kernel joined it, or the steps above have tested nothing of GRO.
        assert_eq!(receiver.counts().received_trains_total, 1);
        assert_eq!(sender.counts().sent_datagrams_total, 3);
        assert_eq!(receiver.counts().received_datagrams_total, 3);
    }

    /// Trains that leave in one call, and datagrams that come in one, have each the bits that they were
    /// sent with: who validates ECN (RFC 9000 §13.4.2) counts them one by one.
    #[test]
    fn every_datagram_of_a_batch_has_its_own_ecn() {
        const KINDS: [Option<Ecn>; 4] = [Some(Ecn::Ect0), Some(Ecn::Ce), None, Some(Ecn::Ect1)];
        for (from, to) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:0", "[::1]:0")] {
            let (mut sender, mut receiver) = (bind_one(from), bind_one(to));
            let destination = receiver.local_address();
            let mut expect = Vec::new();
            // As many as leave in one call.
            for n in 0..TRAINS_MAX as u8 {
                let ecn = KINDS[usize::from(n) % KINDS.len()];
                let contents = [n; 3000];
                // Some alone, some as trains, all of one length: what could be joined is.
                let (datagrams, segment_size) =
                    if n % 3 == 0 { (1, None) } else { (3, Some(1000)) };
                let contents = &contents[..1000 * datagrams];
                let train = Train { ecn, ..train(destination, contents, segment_size) };
                assert_eq!(sender.send(&train), Sent::Taken);
                expect.extend(vec![(n, 1000, ecn); datagrams]);
            }
            assert!(!sender.flush());
            let mut got = Vec::new();
            let deadline = Instant::now() + Duration::from_secs(5);
            while got.len() < expect.len() && Instant::now() < deadline {
                receiver.receive(&mut |received| {
                    got.push((received.data[0], received.data.len(), received.ecn));
                });
            }
            assert_eq!(got, expect);
        }
    }

    #[test]
    fn a_batch_is_bounded_and_says_that_more_waits() {
        let (mut sender, mut receiver) = (bind_one("127.0.0.1:0"), bind_one("127.0.0.1:0"));
        let batch = RECEIVE_TRAINS_FEW + RECEIVE_TRAINS_MAX;
        for _ in 0..batch + 1 {
            send(&mut sender, &train(receiver.local_address(), b"x", None));
        }
        let mut arrived = 0;
        assert!(receiver.receive(&mut |_| arrived += 1));
        assert_eq!(arrived, batch);
        assert!(!receiver.receive(&mut |_| arrived += 1));
        assert_eq!(arrived, batch + 1);
    }

    #[test]
    fn an_unspecified_ipv6_address_serves_both_families() {
        let mut socket = bind_one("[::]:0");
        let port = socket.local_address().port();
        for ip in ["127.0.0.1", "::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            let client = UdpSocket::bind((ip, 0)).unwrap();
            client.send_to(b"ping", (ip, port)).unwrap();
            let arrived = receive_some(&mut socket);
            let answer =
                Train { source_ip: arrived[0].local_ip, ..train(arrived[0].remote, b"pong", None) };
            send(&mut socket, &answer);
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut buffer = [0; 16];
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from.ip()), (&b"pong"[..], ip));
        }
    }

    #[test]
    fn a_port_held_by_another_group_is_refused() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let mut address: SocketAddr = address.parse().unwrap();
            let group = bind_group(address, 3).unwrap();
            address.set_port(group[0].local_address().port());
            for shards in [1, 3] {
                let refused = bind_group(address, shards).err();
                assert!(matches!(refused, Some(BindError::PortTaken(_))), "{refused:?}");
            }
            drop(group);
            bind_group(address, 3).unwrap();
        }
    }

    #[test]
    fn bind_errors_name_cause_and_fix() {
        let refused = bind_group("192.0.2.1:4443".parse().unwrap(), 2).err().unwrap();
        assert_eq!(
            refused.to_string(),
            "192.0.2.1 is not an address of this host: choose one that `ip address` lists, or \
             `[::]` for all"
        );
        let refused = BindError::explain(
            "127.0.0.1:443".parse().unwrap(),
            io::Error::from_raw_os_error(libc::EACCES),
        );
        assert!(refused.to_string().contains("CAP_NET_BIND_SERVICE"));
    }

    /// An impossible train must not take segmentation away from everybody else.
    #[test]
    fn a_lost_train_harms_nobody_else() {
        let mut socket = bind_one("127.0.0.1:0");
        let segments = socket.max_segments();
        assert!(segments > 1, "this host cannot segment");
        let port_zero = "127.0.0.1:0".parse().unwrap();
        assert_eq!(socket.send(&train(port_zero, b"x", None)), Sent::Lost);
        let other = bind_one("127.0.0.1:0").local_address();
        // A length that no UDP datagram has, and more segments than the kernel takes.
        send(&mut socket, &train(other, &[0; 65_530], None));
        send(&mut socket, &train(other, &[0; 2000], Some(1)));
        assert_eq!(socket.counts().lost_trains_total, 3);
        assert_eq!(socket.max_segments(), segments);
        // Nobody listens there any more: the ICMP answer is not our concern.
        for _ in 0..3 {
            send(&mut socket, &train(other, b"x", None));
            assert!(!socket.receive(&mut |_| unreachable!()));
        }
        assert_eq!(socket.counts().lost_trains_total, 3);
    }

    #[test]
    fn empty_datagrams_are_refused() {
        let mut socket = bind_one("127.0.0.1:0");
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"", socket.local_address()).unwrap();
        client.send_to(b"x", socket.local_address()).unwrap();
        let arrived = receive_some(&mut socket);
        assert_eq!(arrived.len(), 1);
        assert_eq!(socket.counts().refused_datagrams_total, 1);
    }

    #[test]
    fn granted_buffers_are_told() {
        let granted = bind_one("127.0.0.1:0").buffer_bytes().unwrap();
        assert!((1..=SOCKET_BUFFER_BYTES).contains(&granted.receive));
        assert!((1..=SOCKET_BUFFER_BYTES).contains(&granted.send));
    }
}
