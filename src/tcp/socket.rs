//! One TCP connection, with or without TLS.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use rustls::ServerConnection;

use crate::limits::{MUX_IDLE_TIMEOUT, TCP_UNSENT_BYTES};
use crate::session::streams::{Estimate, Link};

/// Records that are looked at for one piece of what the peer says: those of TLS itself say nothing to us.
const RECORDS_PER_READ: usize = 16;

/// A connection as it is handed over.
#[derive(Debug)]
pub struct Handover {
    pub stream: TcpStream,
    /// After its handshake.
    pub tls: Option<Box<ServerConnection>>,
    /// What came behind the bytes that were read, and is not for who has read those.
    pub early: Vec<u8>,
}

/// What reading has brought.
#[derive(Debug)]
pub enum Read {
    Bytes(usize),
    /// Nothing is there now.
    Nothing,
    /// The peer will say nothing more.
    End,
}

#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    tls: Option<Box<ServerConnection>>,
    early: Vec<u8>,
    /// What the kernel has not taken, from this byte on.
    unsent: Vec<u8>,
    unsent_from: usize,
    /// As far as is known.
    is_readable: bool,
    is_writable: bool,
    is_ending: bool,
    sent: u64,
    received: u64,
}

impl Socket {
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Takes a connection over. What the kernel is given stays little, for what it has cannot be dropped.
    pub fn new(handover: Handover) -> io::Result<Socket> {
        let Handover { stream, mut tls, early } = handover;
        stream.set_nonblocking(true)?;
        // None of these is there for other sockets than TCP's, and without them a connection works too.
        let _ = stream.set_nodelay(true);
        set(&stream, libc::TCP_NOTSENT_LOWAT, TCP_UNSENT_BYTES as libc::c_int);
        set(&stream, libc::TCP_USER_TIMEOUT, MUX_IDLE_TIMEOUT.as_millis() as libc::c_int);
        if let Some(tls) = &mut tls {
            // What is written here is bounded by whoever writes.
            tls.set_buffer_limit(None);
        }
        Ok(Socket {
            stream,
            tls,
            early,
            unsent: Vec::new(),
            unsent_from: 0,
            is_readable: true,
            is_writable: true,
            is_ending: false,
            sent: 0,
            received: 0,
        })
    }

    /// Bytes that were sent and received.
    pub fn moved(&self) -> (u64, u64) {
        (self.sent, self.received)
    }

    pub fn note_readable(&mut self, is_ending: bool) {
        self.is_readable = true;
        self.is_ending |= is_ending;
    }

    pub fn note_writable(&mut self) {
        self.is_writable = true;
    }

    /// Whether there may be something to read.
    pub fn is_readable(&self) -> bool {
        self.is_readable
    }

    /// Whether the kernel takes more, and all that was written before.
    pub fn takes_more(&self) -> bool {
        self.is_writable && !self.has_unsent()
    }

    pub fn has_unsent(&self) -> bool {
        self.unsent_from < self.unsent.len()
            || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Reads some of what the peer has said.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<Read> {
        if !self.early.is_empty() {
            let here = self.early.len().min(into.len());
            into[..here].copy_from_slice(&self.early[..here]);
            self.early.drain(..here);
            return Ok(Read::Bytes(here));
        }
        let read = match &mut self.tls {
            None => self.stream.read(into),
            Some(tls) => read_tls(tls, &mut self.stream, into),
        };
        match read {
            Ok(0) => {
                self.is_readable = false;
                Ok(Read::End)
            }
            Ok(bytes) => {
                self.received += bytes as u64;
                // Clients that wait for this before they say the rest wait for 40 ms less. The kernel forgets it.
                set(&self.stream, libc::TCP_QUICKACK, 1);
                // Less than there was room for is all there was, and whatever comes is told anew.
                if bytes < into.len() && self.tls.is_none() && !self.is_ending {
                    self.is_readable = false;
                }
                Ok(Read::Bytes(bytes))
            }
            Err(error) if is_for_later(&error) => {
                self.is_readable = false;
                Ok(Read::Nothing)
            }
            Err(error) => {
                self.is_readable = false;
                Err(error)
            }
        }
    }

    /// Takes all of some bytes, and gives the kernel what that takes. True if it has taken anything.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.sent += bytes.len() as u64;
        let mut taken = 0;
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(bytes)?;
        } else if self.takes_more() {
            taken = self.give(bytes)?;
            self.unsent.extend_from_slice(&bytes[taken..]);
        } else {
            self.unsent.extend_from_slice(bytes);
        }
        Ok(self.flush()? | (taken > 0))
    }

    /// Gives the kernel what it has not taken before. True if it has taken anything.
    pub fn flush(&mut self) -> io::Result<bool> {
        let mut has_taken = false;
        while self.is_writable && self.has_unsent() {
            if let Some(tls) = &mut self.tls {
                match tls.write_tls(&mut self.stream) {
                    Ok(_) => has_taken = true,
                    Err(error) if is_for_later(&error) => self.is_writable = false,
                    Err(error) => return Err(error),
                }
                continue;
            }
            let unsent = std::mem::take(&mut self.unsent);
            let taken = self.give(&unsent[self.unsent_from..]);
            self.unsent = unsent;
            let taken = taken?;
            self.unsent_from += taken;
            has_taken |= taken > 0;
        }
        if self.unsent_from == self.unsent.len() {
            (self.unsent, self.unsent_from) = (Vec::new(), 0);
        }
        Ok(has_taken)
    }

    /// How much the kernel takes; less than all means that it says when it takes more.
    fn give(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.write(bytes) {
            Ok(taken) => {
                self.is_writable = taken == bytes.len();
                Ok(taken)
            }
            Err(error) if is_for_later(&error) => {
                self.is_writable = false;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Says that nothing more comes from here.
    pub fn shut_down(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        // Whoever is gone hears nothing.
        let _ = self.flush();
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// What the kernel knows of the path; nothing of what is not TCP, or before there was a round trip.
    pub fn link(&self) -> Option<Link> {
        let mut info = Info::default();
        let mut length = size_of_val(&info) as libc::socklen_t;
        // SAFETY: as much room as is stated, and plain numbers in it.
        let result = unsafe {
            libc::getsockopt(
                self.stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &mut length,
            )
        };
        let Info { rtt_us, send_mss, send_cwnd, delivery_rate, .. } = info;
        if result != 0 || rtt_us == 0 {
            return None;
        }
        let rtt = Duration::from_micros(rtt_us.into());
        let window = u64::from(send_cwnd) * u64::from(send_mss);
        let bits = |bytes: f64| Some((bytes * 8.0).round() as u64);
        let estimate =
            Estimate { bitrate: bits(window as f64 / rtt.as_secs_f64()), rtt: Some(rtt) };
        let shown = match delivery_rate {
            0 => estimate,
            rate => Estimate { bitrate: bits(rate as f64), ..estimate },
        };
        Some(Link { rtt, window, estimate, shown })
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// Has the kernel treat a connection of TCP so.
fn set(stream: &TcpStream, option: libc::c_int, value: libc::c_int) {
    // SAFETY: one live int, of which the size is stated.
    unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        );
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn read_tls(
    tls: &mut ServerConnection,
    stream: &mut TcpStream,
    into: &mut [u8],
) -> io::Result<usize> {
    for _ in 0..RECORDS_PER_READ {
        match tls.reader().read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Some leave without the farewell of TLS; what is above has one of its own.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            read => return read,
        }
        if tls.read_tls(stream)? == 0 {
            return Ok(0);
        }
        if let Err(error) = tls.process_new_packets() {
            // What it has against the peer is told, if that still listens.
            let _ = tls.write_tls(stream);
            return Err(io::Error::other(error));
        }
    }
    // Somebody who only talks of TLS.
    Err(io::Error::other("too much of TLS, and nothing in it"))
}

/// `struct tcp_info` of the kernel, as far as it is read.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Info {
    bytes: [u8; 8],
    retransmit_timeout: u32,
    ack_timeout: u32,
    send_mss: u32,
    between: [u32; 12],
    rtt_us: u32,
    rtt_variation_us: u32,
    slow_start_threshold: u32,
    send_cwnd: u32,
    advertised_mss: u32,
    reordering: u32,
    receive_rtt: u32,
    receive_space: u32,
    retransmits: u32,
    rates: [u64; 4],
    segments: [u32; 6],
    delivery_rate: u64,
}

const _: () = assert!(std::mem::offset_of!(Info, send_mss) == 16);
const _: () = assert!(std::mem::offset_of!(Info, rtt_us) == 68);
const _: () = assert!(std::mem::offset_of!(Info, send_cwnd) == 80);
const _: () = assert!(std::mem::offset_of!(Info, delivery_rate) == 160);
