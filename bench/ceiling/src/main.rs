//! What quinn-proto, the pump and the sockets of shardcast cost by themselves: a fan-out that reads
//! the head of each group stream and copies everything behind it to every viewer of the track.
//!
//!     shardcast-ceiling --listen 127.0.0.1:4443 --cpu 0
//!
//! It serves what `shardcast-load` does, as the relay would, so that one client measures both. What
//! it leaves out is what makes a relay: no frames, no cache, no viewer that joins late, no
//! priorities, no expiry, no announcements to viewers, one shard.

mod conn;
mod endpoint;
mod head;
mod limits;
mod server;
mod tracks;

#[cfg(test)]
mod play;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use shardcast::config::IdentitySource;
use shardcast::host;
use shardcast::limits::TURN_INTERVAL_MIN;
use shardcast::mailbox::{Post, mesh};
use shardcast::net::{Socket, bind_group};
use shardcast::quic::{Config, CongestionControl, Keys};
use shardcast::rt::{self, Next, Parking};
use shardcast::tls::Identity;
use shardcast::wire::Version;

use server::{Server, Stop};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const EXIT_FAILED: u8 = 1;

/// A bare fan-out on shardcast's own stack, to compare the relay with.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// UDP address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4443")]
    listen: SocketAddr,
    /// Core to run on; the first that this process may use by default
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "shardcast-ceiling: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    // Before there is another thread, which would inherit the mask as it was.
    let signals = block_signals()?;
    host::check(1)?;
    let cpu = match args.cpu {
        Some(cpu) => cpu,
        None => host::choose_cores(Some(1))?[0],
    };
    let quic = quic_config()?;
    let socket = bind_group(args.listen, 1)?.pop().ok_or("no socket")?;
    let addr = socket.local_address();
    let post = mesh(1, 1).pop().ok_or("no post")?;
    let outside = post.outside();
    let thread = rt::spawn_on(cpu, "ceiling", move || serve(quic, post, socket))?.wait()?;
    // In the words of the relay's log, for those who wait for it.
    writeln!(io::stderr(), "INFO shardcast_ceiling: listening addr={addr} kind=quic")?;

    wait(&signals);
    // The lane is full only if it was told before.
    let _ = outside.send(Stop);
    thread.join().map_err(|_| "it did not end cleanly")?;
    Ok(())
}

fn quic_config() -> Result<Config, Box<dyn std::error::Error>> {
    let source = IdentitySource::Generated { hosts: vec!["localhost".try_into()?] };
    let alpn = [Version::Lite06, Version::Lite05].map(|version| version.alpn().as_bytes());
    let identity = Identity::load(&source, &[], &alpn)?;
    Ok(Config::new(identity.config, Keys::random(), CongestionControl::default())?)
}

async fn serve(quic: Config, post: Post<Stop>, mut socket: Socket) {
    let parking = match Parking::new(&socket, post.waker()) {
        Ok(parking) => parking,
        Err(error) => {
            let _ = writeln!(io::stderr(), "shardcast-ceiling: cannot watch the socket: {error}");
            std::process::exit(EXIT_FAILED.into());
        }
    };
    let mut seed = [0; 8];
    aws_lc_rs::rand::fill(&mut seed).expect("the system has entropy at start-up");
    let mut server = Server::new(&quic, u64::from_le_bytes(seed), post);
    rt::pump(parking, |now| {
        let next = server.turn(now, &mut socket);
        if next == Next::Stop {
            let _ = writeln!(io::stderr(), "{:?} {:?}", server.counters(), socket.counts());
        }
        (next, TURN_INTERVAL_MIN)
    });
}

fn block_signals() -> io::Result<libc::sigset_t> {
    // SAFETY: sigemptyset initialises the set before anything reads it.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGINT);
        libc::sigaddset(&mut set, libc::SIGTERM);
        match libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) {
            0 => Ok(set),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }
}

fn wait(signals: &libc::sigset_t) {
    let mut signal = 0;
    // SAFETY: both point to live values. It fails only for a set with invalid signals.
    let code = unsafe { libc::sigwait(signals, &mut signal) };
    assert_eq!(code, 0, "sigwait of SIGINT and SIGTERM");
}
