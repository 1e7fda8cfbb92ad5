//! Floods and slow clients over TCP, with real processes: whoever dribbles, says half of something or too much of
//! it, or never reads, is sent away with the right code and in time, or holds a bounded share. Whoever behaves
//! meanwhile, over QUIC and in WebSockets, loses nothing.

mod support {
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod client;
    pub mod flow;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod relay;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod show;
}
#[allow(dead_code, reason = "each play needs a part of what all plays share")]
#[path = "mux/support.rs"]
mod mux;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mux::{bytes, generous, masked, message, take_sent};
use shardcast::limits::{
    MUX_FRAME_BYTES_MAX, MUX_IDLE_TIMEOUT, SEND_WINDOW_BYTES, SETUP_TIMEOUT, STREAMS_UNI_START,
    WEB_HEAD_TIMEOUT,
};
use shardcast::mux::ws::Opcode;
use shardcast::mux::{Frame, Wire};
use shardcast::session::streams::StreamId;
use shardcast::wire::*;
use support::client::{LITE_05, LITE_06, Peer, Role};
use support::relay::Relay;
use support::show::{Show, TRACK};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

const PATH: &str = "live/cam";

/// What a machine with other things to do adds to a time.
const GRACE: Duration = Duration::from_secs(2);

/// How long a flood lasts.
const FLOOD: Duration = Duration::from_secs(3);

/// Viewers of both kinds, and a publisher over QUIC.
async fn show(relay: &Relay) -> Show {
    let viewers = [
        (LITE_06, relay.clone()),
        (LITE_05, relay.web()),
        (LITE_05, relay.websocket()),
        (LITE_06, relay.websocket()),
    ];
    Show::with_viewers(relay, PATH, viewers).await
}

/// Bytes that a process has in memory.
fn rss(relay: &Relay) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes << 10
}

fn request(address: SocketAddr) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: qmux-02.moq-lite-05\r\n\r\n"
    )
}

fn said(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut said = Vec::new();
    for frame in frames {
        let mut payload = Vec::new();
        frame.encode(&mut payload);
        said.extend(message(&payload));
    }
    said
}

/// Parameters, and the SETUP of lite-05.
fn introduction() -> Vec<u8> {
    said(&[Frame::Parameters(generous()), bytes(2, &[1, 1, 0], true)])
}

/// A client that was let in.
struct Client {
    stream: TcpStream,
    heard: Vec<u8>,
}

/// How a connection ended: the code in qmux, the status in the WebSocket's Close, and after how long.
#[derive(Debug)]
struct Ended {
    code: Option<u64>,
    status: Option<u16>,
    after: Duration,
}

impl Client {
    async fn enter(address: SocketAddr) -> Client {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(request(address).as_bytes()).await.expect("a request");
        let mut heard = Vec::new();
        let end = loop {
            let end = heard.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if let Some(end) = end {
                break end + 4;
            }
            let count = stream.read_buf(&mut heard).await.expect("an answer");
            assert_ne!(count, 0, "{:?}", String::from_utf8_lossy(&heard));
        };
        assert!(heard.starts_with(b"HTTP/1.1 101 "), "{:?}", String::from_utf8_lossy(&heard));
        heard.drain(..end);
        Client { stream, heard }
    }

    async fn introduced(address: SocketAddr) -> Client {
        let mut client = Client::enter(address).await;
        client.says(&introduction()).await;
        client
    }

    async fn says(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the relay listens");
    }

    /// Says something again and again for a while, and reads nothing. False if the relay has hung up.
    async fn floods(&mut self, mut next: impl FnMut() -> Vec<u8>) -> bool {
        let until = Instant::now() + FLOOD;
        while Instant::now() < until {
            let bytes = next();
            match timeout(FLOOD, self.stream.write_all(&bytes)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return false,
                Err(_) => return true,
            }
        }
        true
    }

    /// Reads until the relay has nothing more to say.
    async fn ended(mut self, within: Duration) -> Ended {
        let begun = Instant::now();
        let reads = async {
            loop {
                match self.stream.read_buf(&mut self.heard).await {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let is_over = timeout(within + GRACE, reads).await.is_ok();
        assert!(is_over, "it goes on after {:?}", begun.elapsed());
        let mut ended = Ended { code: None, status: None, after: begun.elapsed() };
        let mut rest = &self.heard[..];
        while let Some((opcode, mut payload, used)) = take_sent(rest) {
            rest = &rest[used..];
            if opcode == Opcode::Close as u8 {
                ended.status = payload.first_chunk().map(|status| u16::from_be_bytes(*status));
            }
            while opcode == Opcode::Binary as u8 && !payload.is_empty() {
                if let Frame::Close { code, .. } =
                    Frame::take(Wire::Qmux02, &mut payload).expect("frames of ours")
                {
                    ended.code = Some(code);
                }
            }
        }
        ended
    }
}

/// A byte each second is no request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_dribble_are_cut_off() {
    const DRIBBLERS: usize = 24;
    let relay = Relay::start(2).await;
    let show = show(&relay).await;
    let address = relay.address();
    let mut dribblers = JoinSet::new();
    for _ in 0..DRIBBLERS {
        dribblers.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            let begun = Instant::now();
            let mut seconds = interval(Duration::from_secs(1));
            let mut answer = Vec::new();
            for byte in request(address).bytes() {
                tokio::select! {
                    biased;
                    read = stream.read_buf(&mut answer) => match read {
                        Ok(0) | Err(_) => return begun.elapsed(),
                        Ok(_) => continue,
                    },
                    _ = seconds.tick() => {}
                }
                if stream.write_all(&[byte]).await.is_err() {
                    return begun.elapsed();
                }
            }
            panic!("a request of {} bytes was waited for", request(address).len());
        });
    }
    // Others come in meanwhile.
    let late = Peer::connect(&relay.websocket(), LITE_06, Role::Viewer).await;
    while let Some(after) = dribblers.join_next().await {
        let after = after.expect("it was cut off");
        assert!(after <= WEB_HEAD_TIMEOUT + GRACE, "{after:?}");
    }
    late.leave().await;
    show.close().await;
    relay.stop().await.expect_success();
}

/// Each says less than it has to: nothing, no SETUP, half a frame, half a message, and nothing more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_too_little_is_sent_away_in_time() {
    let relay = Relay::start(2).await;
    let show = show(&relay).await;
    let address = relay.address();
    let parameters = said(&[Frame::Parameters(generous())]);
    let half = parameters[..parameters.len() / 2].to_vec();
    let setup = |rest: &[u8]| [&introduction()[..], rest].concat();
    let part = masked(Opcode::Binary as u8, false, &[0; 100], [7; 4]);
    let (soon, late) = (SETUP_TIMEOUT, MUX_IDLE_TIMEOUT);
    let cases = [
        ("nothing", Vec::new(), soon),
        ("half of its parameters", half.clone(), soon),
        ("no SETUP", parameters, soon),
        ("a SETUP and nothing more", setup(&[]), late),
        ("a header and no frame", setup(&[0x82]), late),
        ("half a frame", setup(&half), late),
        ("a part of a message", setup(&part), late),
    ];
    let mut clients = JoinSet::new();
    for (what, says, deadline) in cases {
        for _ in 0..4 {
            let says = says.clone();
            clients.spawn(async move {
                let mut client = Client::enter(address).await;
                client.says(&says).await;
                (what, deadline, client.ended(deadline).await)
            });
        }
    }
    while let Some(ended) = clients.join_next().await {
        let (what, deadline, ended) = ended.expect("it is sent away");
        assert_eq!(ended.code, Some(SessionCode::CONTROL_TIMEOUT.0), "{what}: {ended:?}");
        assert!(matches!(ended.status, Some(1000 | 1001)), "{what}: {ended:?}");
        assert!(ended.after + GRACE >= deadline, "{what}: {ended:?}");
    }
    show.close().await;
    relay.stop().await.expect_success();
}

/// What is allowed, as fast as it goes, from clients that read no answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_what_is_allowed_hold_nothing() {
    /// Of each client: what the kernel and a turn take in, and an answer or two.
    const HELD_MAX: u64 = 1 << 20;
    let relay = Relay::start(2).await;
    let show = show(&relay).await;
    let address = relay.address();
    let before = rss(&relay);
    let mut clients = JoinSet::new();
    for kind in 0..8 {
        clients.spawn(async move {
            let mut client = Client::introduced(address).await;
            let mut sequence = 0;
            let mut next = move || match kind % 4 {
                0 => masked(Opcode::Ping as u8, true, &[b'p'; 125], [1; 4]).repeat(100),
                1 => {
                    let pings = (0..200).flat_map(|_| {
                        sequence += 1;
                        said(&[Frame::Ping(sequence)])
                    });
                    pings.collect()
                }
                // Of a stream that is over, and of one that never had a byte.
                2 => {
                    let over = Frame::Reset { id: StreamId(2), code: 1, final_size: 0 };
                    let never = Frame::Reset { id: StreamId(6), code: 1, final_size: 0 };
                    said(&[over, never]).repeat(100)
                }
                // PADDING, a byte in each part, with empty parts between.
                _ => {
                    let mut parts = masked(Opcode::Binary as u8, false, &[0], [3; 4]);
                    for _ in 0..500 {
                        parts.extend(masked(0, false, &[0], [3; 4]));
                        parts.extend(masked(0, false, &[], [3; 4]));
                    }
                    parts.extend(masked(0, true, &[0], [3; 4]));
                    parts
                }
            };
            assert!(client.floods(&mut next).await, "flood {kind} was cut off");
            client
        });
    }
    let clients = clients.join_all().await;
    let grown = rss(&relay).saturating_sub(before);
    println!("{} clients hold {} KiB", clients.len(), grown >> 10);
    assert!(grown <= clients.len() as u64 * HELD_MAX, "{grown} bytes");
    drop(clients);
    show.close().await;
    relay.stop().await.expect_success();
}

/// What is not allowed ends at once, and says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_what_is_not_allowed_end_at_once() {
    let relay = Relay::start(2).await;
    let show = show(&relay).await;
    let address = relay.address();
    let resets = |count: u64| -> Vec<u8> {
        let ids = (0..count).map(|index| StreamId(index << 2 | 2));
        ids.flat_map(|id| said(&[Frame::Reset { id, code: 1, final_size: 0 }])).collect()
    };
    let large = vec![0; MUX_FRAME_BYTES_MAX + 1];
    let parts = [
        masked(Opcode::Binary as u8, false, &large[..MUX_FRAME_BYTES_MAX / 2], [0; 4]),
        masked(0, true, &large[MUX_FRAME_BYTES_MAX / 2..], [0; 4]),
    ];
    let cases = [
        ("resets of streams that there may not be", resets(64 * STREAMS_UNI_START), 1002),
        ("a message that is too large", masked(Opcode::Binary as u8, true, &large, [0; 4]), 1009),
        ("one in parts", parts.concat(), 1009),
        ("a ping that is too long", masked(Opcode::Ping as u8, true, &[0; 126], [0; 4]), 1002),
        ("pings that do not count up", said(&[Frame::Ping(7), Frame::Ping(7)]), 1002),
        ("text", masked(Opcode::Text as u8, true, b"hello", [0; 4]), 1003),
    ];
    for round in 0..5 {
        for (what, says, status) in &cases {
            let mut client = Client::introduced(address).await;
            client.says(says).await;
            let ended = client.ended(Duration::ZERO).await;
            let told = (ended.code, ended.status);
            assert_eq!(told, (Some((*status).into()), Some(*status)), "{what}, {round}");
        }
    }
    show.close().await;
    relay.stop().await.expect_success();
}

/// They watch, and read nothing: each holds its share at most, however long the track goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_never_read_hold_a_window_each() {
    const READERS: usize = 40;
    let relay = Relay::start(2).await;
    let show = show(&relay).await;
    let address = relay.address();
    let before = rss(&relay);
    let mut readers = Vec::new();
    for id in 0..READERS {
        let mut client = Client::introduced(address).await;
        let mut request = vec![BidiType::Subscribe as u8];
        let broadcast = Path::parse(PATH).expect("a path");
        let (group_start, group_end, frame_start, frame_end) = (None, None, 0, None);
        let preferences = Preferences {
            priority: 128,
            max_age_ms: 60_000,
            group_start,
            group_end,
            frame_start,
            frame_end,
        };
        Subscribe { id: id as u64, broadcast, track: TRACK.to_owned(), preferences }
            .encode(Version::Lite05, &mut request);
        client.says(&said(&[bytes(0, &request, false)])).await;
        readers.push(client);
    }
    // They live, as far as anybody hears.
    for _ in 0..4 {
        sleep(Duration::from_secs(2)).await;
        for reader in &mut readers {
            reader.says(&masked(Opcode::Pong as u8, true, &[], [0; 4])).await;
        }
    }
    let grown = rss(&relay).saturating_sub(before);
    println!("{READERS} readers hold {} KiB", grown >> 10);
    assert!(grown <= READERS as u64 * SEND_WINDOW_BYTES, "{grown} bytes");
    // What they were sent is there.
    for reader in &mut readers {
        let mut sent = vec![0; 10_000];
        let read = reader.stream.read_exact(&mut sent);
        timeout(GRACE, read).await.expect("it was sent much").expect("it was sent much");
    }
    drop(readers);
    show.close().await;
    relay.deserted().await;
    relay.stop().await.expect_success();
}
