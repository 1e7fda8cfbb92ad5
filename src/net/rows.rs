//! The sockets at the relay's address: two rows with one for each shard. A process serves one row, and holds
//! both as long as it lives; the one that takes over from it serves the other one. So the group never
//! changes, and with it neither does what the kernel's answers mean: another process takes over by having
//! the kernel answer otherwise.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::socket::{self, BindError, Socket};
use super::steer::{self, Generation, Steering};
use super::{Datagrams, Received};

/// Every socket of the group, in the order in which they were bound.
pub struct Rows {
    address: SocketAddr,
    shards: usize,
    sockets: Vec<OwnedFd>,
}

impl Rows {
    /// Binds both rows. Nothing is steered yet.
    pub fn bind(address: SocketAddr, shards: usize) -> Result<Rows, BindError> {
        let (sockets, address) = socket::bind(address, 2 * shards)?;
        let sockets = sockets.into_iter().map(OwnedFd::from).collect();
        Ok(Rows { address, shards, sockets })
    }

    /// Those that another process has bound, in the order in which it did.
    pub fn adopt(sockets: Vec<OwnedFd>) -> io::Result<Rows> {
        let shards = sockets.len() / 2;
        let is_odd = || io::Error::other("not two sockets for each shard");
        let mut address = None;
        for socket in &sockets {
            let bound = socket2::SockRef::from(socket).local_addr()?;
            let bound = bound.as_socket().ok_or_else(is_odd)?;
            if *address.get_or_insert(bound) != bound {
                return Err(io::Error::other("sockets of several addresses"));
            }
        }
        match address {
            Some(address) if sockets.len() == 2 * shards => Ok(Rows { address, shards, sockets }),
            _ => Err(is_odd()),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn shards(&self) -> usize {
        self.shards
    }

    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd)
    }

    /// The row of a generation, ready to be used.
    pub fn serve(&self, row: Generation) -> Result<Vec<Socket>, BindError> {
        let open = |socket: &OwnedFd| Socket::new(socket.try_clone()?.into(), self.address);
        let opened = self.row(row).iter().map(open).collect::<io::Result<Vec<_>>>();
        opened.map_err(|error| BindError::explain(self.address, error))
    }

    /// Has the kernel give first flights to a generation, and everything else too unless the process of the
    /// other one is still there.
    pub fn steer(&self, current: Generation, is_shared: bool) -> Result<(), BindError> {
        let steering = Steering { shards: self.shards, current, is_shared };
        steer::attach(&self.sockets[0], steering)
            .map_err(|error| BindError::Steering { address: self.address, error })
    }

    /// Datagrams for a shard that the kernel has dropped because a socket was full, of this process and of those
    /// before and after it that had the same sockets.
    pub fn drops(&self, shard: usize) -> io::Result<u64> {
        let both = [&self.sockets[shard], &self.sockets[self.shards + shard]];
        both.into_iter().map(|socket| socket::kernel_drops(socket).map(u64::from)).sum()
    }

    /// What waits in the row of a process that is gone, by shard.
    pub fn left_behind(&self, row: Generation, take: &mut dyn FnMut(usize, Received)) {
        let Ok(sockets) = self.serve(row) else { return };
        for (shard, mut socket) in sockets.into_iter().enumerate() {
            while socket.receive(&mut |received| take(shard, received)) {}
        }
    }

    fn row(&self, row: Generation) -> &[OwnedFd] {
        let (even, odd) = self.sockets.split_at(self.shards);
        match row {
            Generation::Even => even,
            Generation::Odd => odd,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::Generation::{Even, Odd};
    use super::*;

    fn short_header(shard: u8, generation: Generation) -> Vec<u8> {
        vec![0x40, shard, generation.bit(), 0, 0]
    }

    /// What has come to a row, by shard and generation.
    fn arrived(rows: &Rows, row: Generation) -> Vec<(usize, Generation)> {
        let mut arrived = Vec::new();
        rows.left_behind(row, &mut |shard, received| {
            arrived.push((shard, Generation::of(&received.data[1..])));
        });
        arrived
    }

    #[test]
    fn a_process_takes_over_from_another_and_back() {
        let rows = Rows::bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let copies = rows.sockets().map(|socket| socket.try_clone_to_owned().unwrap());
        let next = Rows::adopt(copies.collect()).unwrap();
        assert_eq!((next.address(), next.shards()), (rows.address(), 2));
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let send = |generation| {
            for shard in 0..2 {
                client.send_to(&short_header(shard, generation), rows.address()).unwrap();
            }
        };
        rows.steer(Even, false).unwrap();
        send(Even);
        assert_eq!(arrived(&rows, Even), [(0, Even), (1, Even)]);
        next.steer(Odd, true).unwrap();
        send(Even);
        send(Odd);
        assert_eq!(arrived(&rows, Even), [(0, Even), (1, Even)]);
        assert_eq!(arrived(&next, Odd), [(0, Odd), (1, Odd)]);
        // The older one ends, and what is left for it is its heir's.
        send(Even);
        drop(rows);
        next.steer(Odd, false).unwrap();
        assert_eq!(arrived(&next, Even), [(0, Even), (1, Even)]);
        client.send_to(&short_header(1, Even), next.address()).unwrap();
        assert_eq!(arrived(&next, Odd), [(1, Even)]);
    }

    #[test]
    fn sockets_that_are_not_two_rows_are_refused() {
        let rows = Rows::bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let other = Rows::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let copy = |rows: &Rows| -> Vec<OwnedFd> {
            rows.sockets().map(|socket| socket.try_clone_to_owned().unwrap()).collect()
        };
        assert!(Rows::adopt(Vec::new()).is_err());
        assert!(Rows::adopt(copy(&rows).split_off(1)).is_err());
        let mixed = [copy(&rows), copy(&other)].into_iter().flatten();
        assert!(Rows::adopt(mixed.collect()).is_err());
    }
}
