//! Trains that leave in one system call. Between two calls the shard's own code and data stay in the
//! processor's caches, which each visit to the kernel's network stack empties.

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use libc::{cmsghdr, iovec, mmsghdr, msghdr};
use socket2::SockAddr;

use super::{Ecn, Train};

/// Trains of one call. The first of them waits until the last is made.
pub(super) const TRAINS_MAX: usize = 16;

/// Room for two of the longest trains.
const ARENA_BYTES: usize = 128 << 10;

/// Room for the class of traffic, the length of a segment and the address to send from.
const CONTROL_BYTES: usize = 96;

pub(super) struct Batch {
    arena: Box<[u8]>,
    used: usize,
    trains: Vec<Queued>,
    /// So many of them have left.
    gone: usize,
}

struct Queued {
    destination: SocketAddr,
    source_ip: Option<IpAddr>,
    ecn: Option<Ecn>,
    segment_size: Option<usize>,
    start: usize,
    len: usize,
}

impl Batch {
    pub fn new() -> Batch {
        let arena = vec![0; ARENA_BYTES].into_boxed_slice();
        Batch { arena, used: 0, trains: Vec::with_capacity(TRAINS_MAX), gone: 0 }
    }

    pub fn has_room(&self, train: &Train<'_>) -> bool {
        self.trains.len() < TRAINS_MAX && self.used + train.contents.len() <= ARENA_BYTES
    }

    /// Takes a train for which there is room.
    pub fn push(&mut self, train: &Train<'_>) {
        let Train { destination, source_ip, ecn, contents, segment_size } = *train;
        let (start, len) = (self.used, contents.len());
        self.arena[start..start + len].copy_from_slice(contents);
        self.used += len;
        self.trains.push(Queued { destination, source_ip, ecn, segment_size, start, len });
    }

    /// The first train that has not left.
    pub fn first(&self) -> Option<Train<'_>> {
        let queued = self.trains.get(self.gone)?;
        Some(Train {
            destination: queued.destination,
            source_ip: queued.source_ip,
            ecn: queued.ecn,
            contents: &self.arena[queued.start..queued.start + queued.len],
            segment_size: queued.segment_size,
        })
    }

    /// Forgets the first train.
    pub fn pop(&mut self) {
        self.gone += 1;
        if self.gone == self.trains.len() {
            self.trains.clear();
            (self.gone, self.used) = (0, 0);
        }
    }

    /// Offers all trains to the kernel; says how many it took. An error is about the first.
    pub fn send(&self, socket: RawFd) -> io::Result<usize> {
        let trains = &self.trains[self.gone..];
        let addresses: [MaybeUninit<SockAddr>; TRAINS_MAX] =
            std::array::from_fn(|at| match trains.get(at) {
                Some(train) => MaybeUninit::new(train.destination.into()),
                None => MaybeUninit::uninit(),
            });
        let mut contents = [const { MaybeUninit::<iovec>::uninit() }; TRAINS_MAX];
        let mut controls = [const { MaybeUninit::<Control>::uninit() }; TRAINS_MAX];
        let mut messages = [const { MaybeUninit::<mmsghdr>::uninit() }; TRAINS_MAX];
        for (at, train) in trains.iter().enumerate() {
            let bytes = &self.arena[train.start..train.start + train.len];
            // The kernel only reads what these point to.
            let contents = contents[at]
                .write(iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
            // SAFETY: plain numbers and pointers, for which zero is a value.
            let mut header: msghdr = unsafe { zeroed() };
            // SAFETY: there is an address for every train.
            let address = unsafe { addresses[at].assume_init_ref() };
            header.msg_name = address.as_ptr().cast_mut().cast();
            header.msg_namelen = address.len();
            header.msg_iov = contents;
            header.msg_iovlen = 1;
            train.control(&mut header, controls[at].write(Control([0; CONTROL_BYTES])));
            messages[at].write(mmsghdr { msg_hdr: header, msg_len: 0 });
        }
        // SAFETY: as many messages as there are trains were written, and all that they point to
        // lives until the call returns.
        let taken =
            unsafe { libc::sendmmsg(socket, messages.as_mut_ptr().cast(), trains.len() as u32, 0) };
        if taken < 0 { Err(io::Error::last_os_error()) } else { Ok(taken as usize) }
    }
}

/// Aligned as the kernel's `struct cmsghdr` is.
#[repr(align(8))]
struct Control([u8; CONTROL_BYTES]);

impl Queued {
    /// Says with what this train is to be sent beside its contents.
    fn control(&self, header: &mut msghdr, control: &mut Control) {
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_BYTES as _;
        // SAFETY: `control` has room for a header at least.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
        let mut used = 0;
        let class = self.ecn.map_or(0, |ecn| libc::c_int::from(ecn.bits()));
        let (level, kind) = match self.destination.ip().to_canonical() {
            IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
            IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        put(header, &mut next, &mut used, level, kind, class);
        if let Some(size) = self.segment_size {
            put(header, &mut next, &mut used, libc::SOL_UDP, libc::UDP_SEGMENT, size as u16);
        }
        match self.source_ip {
            Some(IpAddr::V4(ip)) => {
                let ipi_spec_dst = libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
                let ipi_addr = libc::in_addr { s_addr: 0 };
                let from = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr };
                put(header, &mut next, &mut used, libc::IPPROTO_IP, libc::IP_PKTINFO, from);
            }
            Some(IpAddr::V6(ip)) => {
                let ipi6_addr = libc::in6_addr { s6_addr: ip.octets() };
                let from = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
                put(header, &mut next, &mut used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, from);
            }
            None => {}
        }
        header.msg_controllen = used as _;
    }
}

/// Appends one control message at `next`; `used` counts the bytes of all.
fn put<T: Copy>(
    header: &msghdr,
    next: &mut *mut cmsghdr,
    used: &mut usize,
    level: libc::c_int,
    kind: libc::c_int,
    value: T,
) {
    let len = size_of::<T>() as u32;
    // SAFETY: these two only compute.
    let (space, length) = unsafe { (libc::CMSG_SPACE(len), libc::CMSG_LEN(len)) };
    *used += space as usize;
    assert!(*used <= CONTROL_BYTES && !next.is_null(), "room for all control messages");
    // SAFETY: within `header`'s control bytes, which are aligned for a header, by the line above.
    unsafe {
        (**next).cmsg_level = level;
        (**next).cmsg_type = kind;
        (**next).cmsg_len = length as _;
        libc::CMSG_DATA(*next).cast::<T>().write_unaligned(value);
        *next = libc::CMSG_NXTHDR(header, *next);
    }
}
