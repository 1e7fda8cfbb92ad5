//! Which socket a datagram belongs to: as a classic-BPF program that the kernel runs for the
//! SO_REUSEPORT group, and as the same rule in Rust.
//!
//! The shard is the first byte of the destination connection ID, modulo the number of shards. In a
//! short header (RFC 9000 §17.3) the ID starts at byte 1; in a long header (§17.2) at byte 6,
//! behind the version and the ID's length. A client's first flight carries an ID of its own
//! choice at random, and repeats it until we answer, so a handshake stays on one shard.
//!
//! The group may have two rows with a socket for every shard, one for each of the two processes of
//! which one takes over from the other. A bit of the ID's second byte says whose it is. While both
//! live, first flights, and 0-RTT with them, go to the newer one: their IDs are no process's. In
//! what follows them the ID is ours, and its process has it.

use std::{io, os::fd::AsRawFd};

/// Set in the first byte of a long header.
const LONG_HEADER: u8 = 0x80;
const SHORT_HEADER_CID_OFFSET: usize = 1;
const LONG_HEADER_CID_OFFSET: usize = 6;

/// In the first byte of a long header of QUIC version 1: what kind of packet it is, and from where on
/// its destination has an ID of ours (Handshake and Retry; below are Initial and 0-RTT).
const KIND: u8 = 0x30;
const KIND_WITH_OUR_ID: u8 = 0x20;

/// In the first byte of a version that is none of a released standard. Clients speak none of those; the two
/// processes do, with each other: by [`PROCESS_VERSION`] even the first packets of a connection name the process
/// that they are for.
const DRAFT: u8 = 0x80;
const VERSION_OFFSET: usize = 1;

/// The last draft of QUIC version 1, which is the same on the wire but for this number.
pub const PROCESS_VERSION: u32 = 0xff00_0022;

/// Which of two processes, of which one takes over from the other: each is of the other generation
/// than the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    #[default]
    Even,
    Odd,
}

impl Generation {
    /// Where connection IDs have it.
    const CID_BYTE: usize = 1;
    const CID_BIT: u8 = 1;

    /// Has a connection ID name it.
    pub fn mark(self, cid: &mut [u8]) {
        let byte = &mut cid[Self::CID_BYTE];
        *byte = *byte & !Self::CID_BIT | self.bit();
    }

    /// Of a connection ID.
    pub fn of(cid: &[u8]) -> Generation {
        match cid.get(Self::CID_BYTE).is_some_and(|byte| byte & Self::CID_BIT != 0) {
            false => Generation::Even,
            true => Generation::Odd,
        }
    }

    pub fn bit(self) -> u8 {
        match self {
            Generation::Even => 0,
            Generation::Odd => Self::CID_BIT,
        }
    }

    pub fn other(self) -> Generation {
        match self {
            Generation::Even => Generation::Odd,
            Generation::Odd => Generation::Even,
        }
    }

    /// The first socket of its row, in a group with rows of so many.
    fn row(self, shards: usize) -> usize {
        usize::from(self.bit()) * shards
    }
}

/// What the kernel is to do with datagrams for the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    pub shards: usize,
    /// Of the process that clients come to.
    pub current: Generation,
    /// The process before it is still there, and has what is for its connections.
    pub is_shared: bool,
}

impl Steering {
    /// Which socket of the group a datagram is given to; `None` if it is too short to tell, and then
    /// the first one has it.
    pub fn place_of(self, datagram: &[u8]) -> Option<usize> {
        let first = *datagram.first()?;
        let is_long = first & LONG_HEADER != 0;
        let cid_at = if is_long { LONG_HEADER_CID_OFFSET } else { SHORT_HEADER_CID_OFFSET };
        let cid = datagram.get(cid_at..)?;
        let shard = usize::from(*cid.first()?) % self.shards;
        let is_ours =
            !is_long || first & KIND >= KIND_WITH_OUR_ID || datagram[VERSION_OFFSET] & DRAFT != 0;
        let generation = match self.is_shared && is_ours {
            true => {
                cid.get(Generation::CID_BYTE)?;
                Generation::of(cid)
            }
            false => self.current,
        };
        Some(generation.row(self.shards) + shard)
    }
}

/// The shard that a datagram names; `None` if it is too short to name one.
///
/// The kernel gives a datagram that names no shard to shard 0: a load beyond the end makes a
/// classic-BPF program return 0. A train that the kernel joined (GRO) is steered as a whole by
/// its first datagram, so the rest of it may name another shard when one peer address carries
/// several connections.
pub fn shard_of(datagram: &[u8], shards: usize) -> Option<usize> {
    debug_assert!(shards > 0);
    let offset = if datagram.first()? & LONG_HEADER != 0 {
        LONG_HEADER_CID_OFFSET
    } else {
        SHORT_HEADER_CID_OFFSET
    };
    Some(usize::from(*datagram.get(offset)?) % shards)
}

/// Has the kernel steer so from now on, for the whole group that `socket` is a member of: what came
/// before stays where it is, and no datagram is lost or falls between.
///
/// The program answers with an index in the order in which the group's sockets were bound, so
/// it must come after the last bind, and the group must not change afterwards.
pub(super) fn attach(socket: &impl AsRawFd, steering: Steering) -> io::Result<()> {
    let mut program = program(steering);
    let description = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program before the call returns, and the length matches.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const description).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// For UDP the kernel runs the program with the payload at offset 0.
fn program(steering: Steering) -> Vec<libc::sock_filter> {
    let shards = u32::try_from(steering.shards).expect("shards fit one byte");
    let current = u32::from(steering.current.bit());
    let first_byte = load(0);
    match steering.is_shared {
        false => vec![
            first_byte,
            unless_set(LONG_HEADER, 2),
            load(LONG_HEADER_CID_OFFSET),
            skip(1),
            load(SHORT_HEADER_CID_OFFSET),
            modulo(shards),
            op(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, current * shards),
            answer(),
        ],
        true => vec![
            first_byte,
            unless_set(LONG_HEADER, 13),
            // A long header: the row into X, then the byte that names the shard.
            load(VERSION_OFFSET),
            if_set(DRAFT, 3),
            first_byte,
            and(KIND),
            unless_at_least(KIND_WITH_OUR_ID, 3),
            load(LONG_HEADER_CID_OFFSET + Generation::CID_BYTE),
            and(Generation::CID_BIT),
            skip(1),
            op(libc::BPF_LD | libc::BPF_IMM, current),
            times(shards),
            to_x(),
            load(LONG_HEADER_CID_OFFSET),
            skip(5),
            // A short one: the same.
            load(SHORT_HEADER_CID_OFFSET + Generation::CID_BYTE),
            and(Generation::CID_BIT),
            times(shards),
            to_x(),
            load(SHORT_HEADER_CID_OFFSET),
            modulo(shards),
            op(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X, 0),
            answer(),
        ],
    }
}

fn load(at: usize) -> libc::sock_filter {
    op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, at as u32)
}

fn skip(instructions: u32) -> libc::sock_filter {
    op(libc::BPF_JMP | libc::BPF_JA, instructions)
}

fn unless_set(bits: u8, skipped: u8) -> libc::sock_filter {
    let jump = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    libc::sock_filter { jf: skipped, ..op(jump, bits.into()) }
}

fn if_set(bits: u8, skipped: u8) -> libc::sock_filter {
    let jump = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    libc::sock_filter { jt: skipped, ..op(jump, bits.into()) }
}

fn unless_at_least(value: u8, skipped: u8) -> libc::sock_filter {
    let jump = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    libc::sock_filter { jf: skipped, ..op(jump, value.into()) }
}

fn and(bits: u8) -> libc::sock_filter {
    op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, bits.into())
}

fn times(factor: u32) -> libc::sock_filter {
    op(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, factor)
}

fn modulo(divisor: u32) -> libc::sock_filter {
    op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, divisor)
}

fn to_x() -> libc::sock_filter {
    op(libc::BPF_MISC | libc::BPF_TAX, 0)
}

fn answer() -> libc::sock_filter {
    op(libc::BPF_RET | libc::BPF_A, 0)
}

fn op(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};

    use super::Generation::{Even, Odd};
    use super::*;
    use crate::net::{Datagrams, Rows, Socket};

    /// Both rows of a group, and what is to be steered where.
    struct Group {
        rows: Rows,
        sockets: Vec<Socket>,
        client: UdpSocket,
        target: SocketAddr,
        shards: usize,
    }

    impl Group {
        /// `address` of the group, and where a client reaches it.
        fn bind(address: &str, from: &str, shards: usize) -> Group {
            let rows = Rows::bind(address.parse().unwrap(), shards).unwrap();
            let sockets = [Even, Odd].map(|row| rows.serve(row).unwrap());
            let from: SocketAddr = from.parse().unwrap();
            let target = SocketAddr::new(from.ip(), rows.address().port());
            let client = UdpSocket::bind(from).unwrap();
            Group { rows, sockets: sockets.into_iter().flatten().collect(), client, target, shards }
        }

        /// Where the kernel puts each datagram is where the model says, under every program.
        #[track_caller]
        fn check(&mut self, datagrams: &[Vec<u8>]) {
            for (current, is_shared) in [(Even, false), (Odd, false), (Even, true), (Odd, true)] {
                let steering = Steering { shards: self.shards, current, is_shared };
                self.rows.steer(current, is_shared).unwrap();
                for sent in datagrams {
                    self.client.send_to(sent, self.target).unwrap();
                    let mut arrived = Vec::new();
                    for (place, socket) in self.sockets.iter_mut().enumerate() {
                        socket.receive(&mut |received| {
                            arrived.push((place, received.data.to_vec()));
                        });
                    }
                    let place = steering.place_of(sent).unwrap_or(0);
                    assert_eq!(arrived, [(place, sent.clone())], "{steering:?}");
                    let shard = shard_of(sent, self.shards);
                    let agrees = steering
                        .place_of(sent)
                        .is_none_or(|place| Some(place % self.shards) == shard);
                    assert!(agrees, "{steering:?} {sent:?}");
                }
            }
        }
    }

    const ADDRESSES: [(&str, &str); 4] = [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("[::1]:0", "[::1]:0"),
        ("[::]:0", "127.0.0.1:0"),
        ("[::]:0", "[::1]:0"),
    ];

    fn short_header(first: u8, cid: [u8; 2]) -> Vec<u8> {
        vec![first, cid[0], cid[1], 0x5a, 3, 4, cid[0] ^ 0x55, !cid[1]]
    }

    fn long_header(first: u8, cid: [u8; 2]) -> Vec<u8> {
        vec![first, 0, !cid[1], 0, 1, 8, cid[0], cid[1], 7, 7]
    }

    /// Of the version in which two processes speak to each other.
    fn of_process(first: u8, cid: [u8; 2]) -> Vec<u8> {
        let mut datagram = long_header(first, cid);
        datagram[1..5].copy_from_slice(&PROCESS_VERSION.to_be_bytes());
        datagram
    }

    #[test]
    fn kernel_and_model_agree_on_every_cid() {
        let cids = || (0..=255u8).map(|byte| [byte, byte.rotate_left(3) ^ 0xa5]);
        for shards in 1..=4 {
            for (address, from) in ADDRESSES {
                let mut group = Group::bind(address, from, shards);
                group.check(&Vec::from_iter(cids().map(|cid| short_header(0x40, cid))));
                for kind in [0xc0, 0xd0, 0xe0, 0xf0] {
                    let some = cids().step_by(7);
                    group.check(&Vec::from_iter(some.clone().map(|cid| long_header(kind, cid))));
                    group.check(&Vec::from_iter(some.map(|cid| of_process(kind, cid))));
                }
            }
        }
    }

    #[test]
    fn kernel_and_model_agree_on_every_first_byte() {
        for shards in 1..=4 {
            let mut group = Group::bind("127.0.0.1:0", "127.0.0.1:0", shards);
            for cid in [[0x9d, 0x40], [0x9d, 0x41]] {
                group.check(&Vec::from_iter((0..=255).map(|first| short_header(first, cid))));
                group.check(&Vec::from_iter((0..=255).map(|first| long_header(first, cid))));
            }
        }
    }

    #[test]
    fn kernel_and_model_agree_on_truncated_datagrams() {
        for shards in 1..=4 {
            let mut group = Group::bind("127.0.0.1:0", "127.0.0.1:0", shards);
            group.check(&Vec::from_iter((0..=255).map(|first| vec![first])));
            for length in 1..10 {
                let cut = |mut datagram: Vec<u8>| {
                    datagram.truncate(length);
                    datagram
                };
                for first in [0x40, 0xc0, 0xe0] {
                    let cids = || (0..8).map(|cid| [cid, cid >> 1]);
                    group.check(&Vec::from_iter(cids().map(|cid| cut(short_header(first, cid)))));
                    group.check(&Vec::from_iter(cids().map(|cid| cut(long_header(first, cid)))));
                    group.check(&Vec::from_iter(cids().map(|cid| cut(of_process(first, cid)))));
                }
            }
        }
    }

    #[test]
    fn short_datagrams_name_no_shard() {
        assert_eq!(shard_of(&[], 4), None);
        assert_eq!(shard_of(&[0x40], 4), None);
        assert_eq!(shard_of(&[0xc0, 0, 0, 0, 1, 8], 4), None);
        assert_eq!(shard_of(&[0x40, 7], 4), Some(3));
        assert_eq!(shard_of(&[0xc0, 0, 0, 0, 1, 8, 6], 4), Some(2));
    }

    #[test]
    fn while_both_processes_live_each_has_its_own() {
        let shared = Steering { shards: 4, current: Odd, is_shared: true };
        let table = [
            // Those of the older one stay there, and first flights go to the newer one.
            (short_header(0x40, [6, 0]), 2),
            (short_header(0x40, [6, 1]), 4 + 2),
            (long_header(0xe0, [6, 0]), 2),
            (long_header(0xe0, [6, 1]), 4 + 2),
            (long_header(0xc0, [6, 0]), 4 + 2),
            (long_header(0xd0, [6, 0]), 4 + 2),
            // But for those of the processes themselves.
            (of_process(0xc0, [6, 0]), 2),
            (of_process(0xc0, [6, 1]), 4 + 2),
        ];
        for (datagram, place) in table {
            assert_eq!(shared.place_of(&datagram), Some(place), "{datagram:?}");
            let alone = Steering { is_shared: false, ..shared };
            assert_eq!(alone.place_of(&datagram), Some(4 + 2));
        }
    }
}
