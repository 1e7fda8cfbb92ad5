//! An open-loop load client for moq-lite relays: arguments → scenario → run → report.

mod args;
mod clock;
mod fetcher;
mod frames;
mod listener;
mod measure;
mod peer;
mod plan;
mod proc;
mod publisher;
mod quic;
mod report;
mod run;
mod scenario;
mod schedule;
mod shared;
mod tls;
mod viewer;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use core_affinity::CoreId;
use quinn_proto::crypto::rustls::QuicClientConfig;

use args::{Args, ArgsError};
use quic::Target;
use report::{Lines, Live};
use run::{Outcome, Run, RunError, Settings};
use scenario::Scenario;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let prepared = match prepare(&args) {
        Ok(prepared) => prepared,
        Err(error) => return fail(EXIT_USAGE, &*error),
    };
    match measure(&args, prepared) {
        Ok(code) => code,
        Err(error) => fail(EXIT_FAILED, &*error),
    }
}

/// Everything that can be wrong with the command line has been looked at.
struct Prepared {
    scenario: Scenario,
    settings: Settings,
    address: SocketAddr,
    crypto: Arc<QuicClientConfig>,
    lines: Lines,
}

fn prepare(args: &Args) -> Result<Prepared, Box<dyn Error>> {
    args.check()?;
    let scenario = Scenario::load(&args.scenario, &args.overrides)?;
    let address = args.address()?;
    let settings = Settings {
        version: args.version.into(),
        root: args.url.root.clone(),
        ramp: args.ramp,
        warmup: args.warmup,
        duration: args.duration,
        seed: args.seed,
        sockets: args.sockets.into(),
        relay_pid: args.relay_pid,
    };
    let tls = tls::client_config(&args.trust(address)?, settings.version.alpn())?;
    if let Some(core) = args.cpu
        && !core_affinity::set_for_current(CoreId { id: core })
    {
        return Err(ArgsError::Cpu(core).into());
    }
    sleep_precisely();
    let lines = match &args.json {
        None => Lines::none(),
        Some(path) if path.as_os_str() == "-" => Lines::to_stdout(),
        Some(path) => Lines::to_file(path)
            .map_err(|error| format!("cannot write --json {}: {error}", path.display()))?,
    };
    let crypto = Arc::new(QuicClientConfig::try_from(tls)?);
    Ok(Prepared { scenario, settings, address, crypto, lines })
}

/// The kernel wakes sleepers up to 50 µs late unless told not to, which would be our own latency.
fn sleep_precisely() {
    // SAFETY: this option takes a number and no pointer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

fn measure(args: &Args, prepared: Prepared) -> Result<ExitCode, Box<dyn Error>> {
    let Prepared { scenario, settings, address, crypto, mut lines } = prepared;
    lines.write(&report::start_line(&scenario, &settings, &args.url.text))?;
    let target = || Target { address, server_name: args.url.host.clone(), crypto: crypto.clone() };
    let outcome = one(args, &scenario, &settings, target(), &mut lines)?;
    lines.write(&report::total_line(&scenario, &settings, &outcome))?;
    let summary = report::summary(&scenario, &settings, &outcome);
    if args.json.as_ref().is_some_and(|path| path.as_os_str() == "-") {
        eprint!("{summary}");
    } else {
        print!("{summary}");
    }
    let is_delivered = outcome.balance.delivered > 0 || outcome.balance.offered == 0;
    Ok(if is_delivered { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

fn one(
    args: &Args,
    scenario: &Scenario,
    settings: &Settings,
    target: Target,
    lines: &mut Lines,
) -> Result<Outcome, Box<dyn Error>> {
    let mut live = Live::new(args.quiet, settings.duration, lines);
    let run = Run::new(settings.clone(), scenario.clone(), target)?;
    let outcome: Result<Outcome, RunError> = run.run(&mut live);
    if let Some(error) = live.failed.take() {
        return Err(format!("cannot write JSON lines: {error}").into());
    }
    Ok(outcome?)
}

fn fail(code: u8, error: &dyn Error) -> ExitCode {
    eprintln!("shardcast-load: {error}");
    ExitCode::from(code)
}
