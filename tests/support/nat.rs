//! A NAT between one client and the relay: everything that the client sends leaves from a port of
//! the NAT, which changes on command. The client notices nothing of it.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::client::within;

/// Datagrams of the client that are kept as samples: those of its handshake, and the newest.
const OVERHEARD_FIRST: usize = 8;
const OVERHEARD_MAX: usize = 256;

const DATAGRAM_BYTES_MAX: usize = 65_535;

pub struct Nat {
    address: SocketAddr,
    orders: mpsc::UnboundedSender<Order>,
    overheard: Arc<Mutex<VecDeque<Vec<u8>>>>,
    task: JoinHandle<()>,
}

enum Order {
    Rebind { done: oneshot::Sender<u16>, forgets: bool },
    Inject(Vec<u8>),
}

impl Nat {
    /// A NAT whose other side is the relay.
    pub async fn before(relay: SocketAddr) -> Nat {
        let inner = bind().await;
        let address = inner.local_addr().expect("a bound socket");
        let (orders, taken) = mpsc::unbounded_channel();
        let overheard = Arc::<Mutex<VecDeque<Vec<u8>>>>::default();
        let wire = Wire {
            inner,
            outer: connect(relay).await,
            former: None,
            forgotten: Vec::new(),
            client: None,
            relay,
            overheard: overheard.clone(),
            rebinding: None,
        };
        let task = tokio::spawn(wire.run(taken));
        Nat { address, orders, overheard, task }
    }

    /// Where the client dials.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends from a new port from now on, which is returned once the relay has sent to it. The old
    /// port still leads to the client.
    #[track_caller]
    pub fn rebind(&self) -> impl Future<Output = u16> {
        self.change_port(false)
    }

    /// As `rebind`, but what the relay sends to the old port is lost. A client that only listens
    /// falls silent then, until it keeps the connection alive.
    #[track_caller]
    pub fn rebind_and_forget(&self) -> impl Future<Output = u16> {
        self.change_port(true)
    }

    #[track_caller]
    fn change_port(&self, forgets: bool) -> impl Future<Output = u16> {
        let (done, port) = oneshot::channel();
        self.order(Order::Rebind { done, forgets });
        let port = within("the relay to follow its client to a new port", port);
        async { port.await.expect("the NAT runs") }
    }

    /// Sends to the relay as if the client had.
    pub fn inject(&self, datagram: Vec<u8>) {
        self.order(Order::Inject(datagram));
    }

    /// The first and the newest datagrams that the client has sent.
    pub fn overheard(&self) -> Vec<Vec<u8>> {
        self.overheard.lock().expect("samples").iter().cloned().collect()
    }

    fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn bind() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port")
}

async fn connect(relay: SocketAddr) -> UdpSocket {
    let socket = bind().await;
    socket.connect(relay).await.expect("loopback has a route");
    socket
}

struct Wire {
    inner: UdpSocket,
    outer: UdpSocket,
    /// Where the relay sends until it has heard of the newest port.
    former: Option<UdpSocket>,
    /// Kept open, so that nobody else gets their ports, and never read.
    forgotten: Vec<UdpSocket>,
    client: Option<SocketAddr>,
    relay: SocketAddr,
    overheard: Arc<Mutex<VecDeque<Vec<u8>>>>,
    rebinding: Option<oneshot::Sender<u16>>,
}

impl Wire {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut buf = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Rebind { done, forgets }) => {
                        self.forgotten.extend(self.former.take());
                        let fresh = connect(self.relay).await;
                        let old = std::mem::replace(&mut self.outer, fresh);
                        if forgets {
                            self.forgotten.push(old);
                        } else {
                            self.former = Some(old);
                        }
                        self.rebinding = Some(done);
                    }
                    Some(Order::Inject(datagram)) => drop(self.outer.try_send(&datagram)),
                    None => return,
                },
                _ = self.inner.readable() => self.upwards(&mut buf),
                _ = self.outer.readable() => {
                    let port = self.outer.local_addr().expect("a bound socket").port();
                    if self.downwards(&self.outer, &mut buf) > 0
                        && let Some(done) = self.rebinding.take()
                    {
                        let _ = done.send(port);
                    }
                }
                _ = readable(&self.former) => {
                    let former = self.former.as_ref().expect("it was readable");
                    self.downwards(former, &mut buf);
                }
            }
        }
    }

    /// A full socket loses a datagram here, as anywhere on a path.
    fn upwards(&mut self, buf: &mut [u8]) {
        while let Ok((size, client)) = self.inner.try_recv_from(buf) {
            self.client = Some(client);
            let mut overheard = self.overheard.lock().expect("samples");
            if overheard.len() == OVERHEARD_MAX {
                overheard.remove(OVERHEARD_FIRST);
            }
            overheard.push_back(buf[..size].to_vec());
            let _ = self.outer.try_send(&buf[..size]);
        }
    }

    fn downwards(&self, from: &UdpSocket, buf: &mut [u8]) -> usize {
        let mut count = 0;
        while let Ok(size) = from.try_recv(buf) {
            count += 1;
            if let Some(client) = self.client {
                let _ = self.inner.try_send_to(&buf[..size], client);
            }
        }
        count
    }
}

async fn readable(socket: &Option<UdpSocket>) {
    match socket {
        Some(socket) => drop(socket.readable().await),
        None => std::future::pending().await,
    }
}
