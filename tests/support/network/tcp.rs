//! A client's stream of bytes to the relay and back, on a link with a rate, latency and stalls: what comes is
//! cut anywhere, at times into single bytes, and there is room for little on the way.
//!
//! The relay's end is a socket of the kernel, of which this holds the other one: what the relay does with
//! sockets it does here. Time passes on the link alone.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::{Random, Weather};

/// Bytes on their way to the relay, and what one packet has of them.
const UP_BYTES: usize = 64 << 10;
const PACKET_BYTES: u64 = 1448;

/// What follows a loss: the sender waits before it says that again, and longer if that is lost too.
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// Packets may stick together, and do not always.
const GAP_NS: u64 = 200_000;

#[derive(Debug)]
pub enum Piece {
    /// The answer to the request that precedes all bytes: 101, or another status.
    Answer(Result<(), u16>),
    Bytes(Vec<u8>),
    End,
}

#[derive(Debug, Default)]
struct Way {
    pieces: VecDeque<(Instant, Piece)>,
    bytes: usize,
    /// When the last one has left, and arrives.
    left: Option<Instant>,
    arrives: Option<Instant>,
    /// So many bytes come one by one.
    single: u64,
    has_ended: bool,
}

#[derive(Debug)]
pub struct Tcp {
    random: Random,
    far: Option<UnixStream>,
    /// Bytes on their way to the client, at most, and in the relay's socket, about.
    window: usize,
    buffer: usize,
    up: Way,
    down: Way,
    /// The relay does not take what has arrived.
    is_full: bool,
    /// Nothing moves any more.
    is_silent: bool,
}

impl Way {
    fn put(
        &mut self,
        random: &mut Random,
        now: Instant,
        lost: u64,
        weather: &Weather,
        piece: Piece,
    ) {
        let rate = weather.down_bytes_per_second;
        let bytes = if let Piece::Bytes(bytes) = &piece { bytes.len() } else { 0 };
        let leaves = self.left.unwrap_or(now).max(now);
        let takes =
            rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) * bytes as u32 / rate);
        self.left = Some(leaves + takes);
        let jitter = random.below(weather.jitter.as_nanos() as u64 + GAP_NS);
        let mut late = Duration::from_nanos(jitter);
        if random.per_mille(lost) {
            late += RETRANSMISSION * random.pick(&[1, 1, 1, 1, 1, 3, 7]);
        }
        let at = (leaves + takes + weather.latency + late).max(self.arrives.unwrap_or(now));
        self.arrives = Some(at);
        self.bytes += bytes;
        self.pieces.push_back((at, piece));
    }

    fn end(&mut self, random: &mut Random, now: Instant, weather: &Weather) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.put(random, now, 0, weather, Piece::End);
        }
    }

    /// How many bytes come next in one piece.
    fn portion(&mut self, random: &mut Random) -> usize {
        if self.single > 0 {
            self.single -= 1;
            return 1;
        }
        if random.one_in(60) {
            self.single = random.below(30);
        }
        match random.below(6) {
            0 => 1 + random.below(20) as usize,
            1..3 => PACKET_BYTES as usize,
            _ => (PACKET_BYTES * (1 + random.below(20))) as usize,
        }
    }

    fn next(&self) -> Option<Instant> {
        self.pieces.front().map(|(at, _)| *at)
    }

    fn clear(&mut self) {
        self.pieces.clear();
        self.bytes = 0;
    }
}

impl Tcp {
    pub fn new(seed: u64) -> Tcp {
        let mut random = Random::new(seed);
        Tcp {
            window: random.pick(&[16 << 10, 64 << 10, 256 << 10]),
            buffer: random.pick(&[2 << 10, 16 << 10, 64 << 10]),
            random,
            far: None,
            up: Way::default(),
            down: Way::default(),
            is_full: false,
            is_silent: false,
        }
    }

    /// The relay's end.
    pub fn connect(&mut self) -> TcpStream {
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        far.set_nonblocking(true).expect("a socket that never waits");
        let bytes = self.buffer as libc::c_int;
        // SAFETY: one live int, of which the size is stated.
        let result = unsafe {
            libc::setsockopt(
                near.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_SNDBUF,
                (&raw const bytes).cast(),
                size_of_val(&bytes) as libc::socklen_t,
            )
        };
        assert_eq!(result, 0, "a socket has a size");
        self.far = Some(far);
        OwnedFd::from(near).into()
    }

    pub fn answer(&mut self, now: Instant, weather: &Weather, answer: Result<(), u16>) {
        self.down.put(&mut self.random, now, 0, weather, Piece::Answer(answer));
    }

    /// Bytes that the client may give it.
    pub fn room(&self) -> usize {
        UP_BYTES.saturating_sub(self.up.bytes)
    }

    pub fn send(&mut self, now: Instant, weather: &Weather, mut bytes: &[u8]) {
        let random = &mut self.random;
        let weather = Weather { down_bytes_per_second: None, ..*weather };
        while !bytes.is_empty() && !self.is_silent {
            let here = self.up.portion(random).min(bytes.len());
            let piece = Piece::Bytes(bytes[..here].to_vec());
            self.up.put(random, now, weather.lost_up, &weather, piece);
            bytes = &bytes[here..];
        }
    }

    /// The client says nothing more.
    pub fn end(&mut self, now: Instant, weather: &Weather) {
        self.up.end(&mut self.random, now, weather);
    }

    /// Takes what the relay has said, as far as there is room for it on the way. True if there was something.
    pub fn pull(&mut self, now: Instant, weather: &Weather) -> bool {
        let mut has_some = false;
        while !self.down.has_ended && !self.is_silent {
            let Some(far) = &mut self.far else { return has_some };
            let room = self.window.saturating_sub(self.down.bytes);
            let mut bytes = vec![0; self.down.portion(&mut self.random).min(room)];
            if bytes.is_empty() {
                break;
            }
            match far.read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Ok(0) | Err(_) => self.down.end(&mut self.random, now, weather),
                Ok(count) => {
                    bytes.truncate(count);
                    let piece = Piece::Bytes(bytes);
                    self.down.put(&mut self.random, now, weather.lost_down, weather, piece);
                }
            }
            has_some = true;
        }
        has_some
    }

    /// Gives the relay what has arrived. True if it was given something.
    pub fn deliver(&mut self, now: Instant, weather: &Weather) -> bool {
        let mut has_some = false;
        self.is_full = false;
        while !self.is_silent && self.up.next().is_some_and(|at| at <= now) {
            let (Some(far), Some((_, piece))) = (&mut self.far, self.up.pieces.front_mut()) else {
                break;
            };
            let Piece::Bytes(bytes) = piece else {
                // Whoever is gone hears nothing.
                let _ = far.shutdown(Shutdown::Write);
                self.up.pieces.pop_front();
                has_some = true;
                continue;
            };
            match far.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_full = true;
                    break;
                }
                Err(_) => {
                    self.up.clear();
                    self.down.end(&mut self.random, now, weather);
                    self.far = None;
                }
                Ok(count) => {
                    self.up.bytes -= count;
                    bytes.drain(..count);
                    if bytes.is_empty() {
                        self.up.pieces.pop_front();
                    }
                }
            }
            has_some = true;
        }
        has_some
    }

    /// The next piece that has arrived at the client.
    pub fn arrived(&mut self, now: Instant) -> Option<Piece> {
        if self.is_silent || self.down.next()? > now {
            return None;
        }
        let (_, piece) = self.down.pieces.pop_front()?;
        if let Piece::Bytes(bytes) = &piece {
            self.down.bytes -= bytes.len();
        }
        Some(piece)
    }

    pub fn next_arrival(&self) -> Option<Instant> {
        if self.is_silent {
            return None;
        }
        let up = self.up.next().filter(|_| !self.is_full && self.far.is_some());
        [up, self.down.next()].into_iter().flatten().min()
    }

    /// The client is gone: the link is dead, or breaks with whatever is on it.
    pub fn die(&mut self) {
        self.is_silent = true;
        if self.random.one_in(2) {
            self.far = None;
        }
    }
}
