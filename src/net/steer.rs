//! Which shard a datagram belongs to: as a classic-BPF program that the kernel runs for the
//! SO_REUSEPORT group, and as the same rule in Rust.
//!
//! The rule: the first byte of the destination connection ID, modulo the number of shards. In a
//! short header (RFC 9000 §17.3) the ID starts at byte 1; in a long header (§17.2) at byte 6,
//! behind the version and the ID's length. A client's first flight carries an ID of its own
//! choice at random, and repeats it until we answer, so a handshake stays on one shard.

use std::{io, os::fd::AsRawFd};

/// Set in the first byte of a long header.
const LONG_HEADER: u8 = 0x80;
const SHORT_HEADER_CID_OFFSET: usize = 1;
const LONG_HEADER_CID_OFFSET: usize = 6;

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

/// Attaches the program to the whole group that `socket` is a member of.
///
/// The program answers with an index in the order in which the group's sockets were bound, so
/// it must come after the last bind, and the group must not change afterwards.
pub(super) fn attach(socket: &impl AsRawFd, shards: usize) -> io::Result<()> {
    let mut program = program(u32::try_from(shards).expect("shards fit one byte"));
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
fn program(shards: u32) -> [libc::sock_filter; 7] {
    const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    [
        op(LOAD_BYTE, 0),
        // Not a long header: skip two.
        libc::sock_filter {
            jf: 2,
            ..op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, LONG_HEADER.into())
        },
        op(LOAD_BYTE, LONG_HEADER_CID_OFFSET as u32),
        op(libc::BPF_JMP | libc::BPF_JA, 1),
        op(LOAD_BYTE, SHORT_HEADER_CID_OFFSET as u32),
        op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, shards),
        op(libc::BPF_RET | libc::BPF_A, 0),
    ]
}

fn op(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};

    use super::*;
    use crate::net::{Datagrams, bind_group};

    /// Where the kernel puts each datagram is where the model says.
    #[track_caller]
    fn check(address: &str, shards: usize, datagrams: impl Iterator<Item = Vec<u8>>) {
        let address: SocketAddr = address.parse().unwrap();
        let mut group = bind_group(address, shards).unwrap();
        let target = group[0].local_address();
        let client = UdpSocket::bind((address.ip(), 0)).unwrap();
        for sent in datagrams {
            client.send_to(&sent, target).unwrap();
            let mut arrived = Vec::new();
            for (shard, socket) in group.iter_mut().enumerate() {
                socket.receive(&mut |received| arrived.push((shard, received.data.to_vec())));
            }
            let expected = shard_of(&sent, shards).unwrap_or(0);
            assert_eq!(arrived, [(expected, sent)], "{shards} shards");
        }
    }

    fn short_header(first: u8, cid: u8) -> Vec<u8> {
        vec![first, cid, 0xa5, 0x5a, 3, 4, cid ^ 0x55]
    }

    fn long_header(first: u8, cid: u8) -> Vec<u8> {
        vec![first, cid ^ 0x55, 0, 0, 1, 8, cid, 7, 7]
    }

    #[test]
    fn kernel_and_model_agree_on_every_cid_byte() {
        for shards in 1..=4 {
            for address in ["127.0.0.1:0", "[::1]:0"] {
                check(address, shards, (0..=255).map(|cid| short_header(0x40, cid)));
                check(address, shards, (0..=255).map(|cid| long_header(0xc0, cid)));
            }
        }
    }

    #[test]
    fn kernel_and_model_agree_on_every_first_byte() {
        for shards in 1..=4 {
            let cid = 0x9d;
            check("127.0.0.1:0", shards, (0..=255).map(|first| short_header(first, cid)));
            check("127.0.0.1:0", shards, (0..=255).map(|first| long_header(first, cid)));
        }
    }

    #[test]
    fn kernel_and_model_agree_on_truncated_datagrams() {
        for shards in 1..=4 {
            check("127.0.0.1:0", shards, (0..=255).map(|first| vec![first]));
            for length in 1..9 {
                let cut = |mut datagram: Vec<u8>| {
                    datagram.truncate(length);
                    datagram
                };
                check("127.0.0.1:0", shards, (0..8).map(|cid| cut(short_header(0x40, cid))));
                check("127.0.0.1:0", shards, (0..8).map(|cid| cut(long_header(0xc0, cid))));
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
}
