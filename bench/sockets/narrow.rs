//! A TCP link that passes so many bits per second to a client, and holds little itself.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

/// What the kernel may hold beyond either end, so that what waits does so at the relay.
const BUFFER_BYTES: u32 = 16 << 10;

/// What passes at once, as a packet does.
const PACKET_BYTES: usize = 1448;

/// What was not used of so long ago may still be: timers are a millisecond late.
const BURST: Duration = Duration::from_millis(10);

/// Where the link begins.
pub async fn open(to: SocketAddr, bits_per_second: f64) -> io::Result<SocketAddr> {
    let front = TcpSocket::new_v4()?;
    // Those that it accepts have it too.
    front.set_send_buffer_size(BUFFER_BYTES)?;
    front.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let front = front.listen(1)?;
    let address = front.local_addr()?;
    tokio::spawn(async move {
        while let Ok((client, _)) = front.accept().await {
            tokio::spawn(join(client, to, bits_per_second));
        }
    });
    Ok(address)
}

/// Until either end closes.
async fn join(client: TcpStream, to: SocketAddr, bits_per_second: f64) -> io::Result<()> {
    let relay = TcpSocket::new_v4()?;
    // Before it connects, for that is when it says how much it takes.
    relay.set_recv_buffer_size(BUFFER_BYTES)?;
    let relay = relay.connect(to).await?;
    relay.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let (mut from_client, to_client) = client.into_split();
    let (from_relay, mut to_relay) = relay.into_split();
    tokio::select! {
        end = tokio::io::copy(&mut from_client, &mut to_relay) => end.map(drop),
        end = pass(from_relay, to_client, bits_per_second) => end,
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    bits_per_second: f64,
) -> io::Result<()> {
    let mut packet = [0; PACKET_BYTES];
    let mut free = Instant::now();
    loop {
        let read = from.read(&mut packet).await?;
        if read == 0 {
            return Ok(());
        }
        let takes = Duration::from_secs_f64(read as f64 * 8.0 / bits_per_second);
        free = free.max(Instant::now() - BURST) + takes;
        tokio::time::sleep_until(free).await;
        to.write_all(&packet[..read]).await?;
    }
}
