//! A link between real sockets, from the command line.

mod args;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use shardcast_link::wire::{Total, Wire};

use args::Args;

const EXIT_FAILED: u8 = 1;

/// Set by a signal that asks for the end.
static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let args = Args::taken(Args::try_parse());
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shardcast-link: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let handler = stop as extern "C" fn(libc::c_int);
        // SAFETY: the handler stores a number and does nothing else.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
    let wire = Wire::new(args.listen, args.to, &args.options())
        .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    // A reader that has left is not a failure.
    let mut out = std::io::stdout();
    let _ = writeln!(out, "listening addr={} to={}", wire.address()?, args.to);
    let Total { to_relay, to_clients, clients } = wire.run(&STOP)?;
    let _ = writeln!(out, "to the relay: {to_relay}\nto {clients} clients: {to_clients}");
    Ok(())
}

extern "C" fn stop(_: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}
