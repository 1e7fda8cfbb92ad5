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
mod search;
mod shared;
mod tls;
mod viewer;

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use core_affinity::CoreId;
use quinn_proto::crypto::rustls::QuicClientConfig;

use args::{Args, ArgsError};
use quic::Target;
use report::{Lines, Live, Probe, Verdict};
use run::{Outcome, Run, Settings};
use scenario::Scenario;
use search::Search;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let prepared = match prepare(&args) {
        Ok(prepared) => prepared,
        Err(error) => return fail(EXIT_USAGE, &*error),
    };
    let result = if args.find_max { find_max(&args, prepared) } else { measure(&args, prepared) };
    match result {
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
    if args.find_max && !scenario.has_content() && scenario.churn_per_s == 0.0 {
        return Err(ArgsError::NothingToFind(scenario.name).into());
    }
    let address = args.address()?;
    let settings = Settings {
        version: args.version.into(),
        root: args.url.root.clone(),
        ramp: args.ramp,
        warmup: args.warmup(),
        duration: args.duration(),
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
        Some(_) if args.writes_to_stdout() => Lines::to_stdout(),
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

fn measure(args: &Args, mut prepared: Prepared) -> Result<ExitCode, Box<dyn Error>> {
    let Prepared { scenario, settings, lines, .. } = &mut prepared;
    lines.write(&report::start_line(scenario, settings, &args.url.text))?;
    let run = Run::new(settings.clone(), scenario.clone(), target(args, &prepared))?;
    let Prepared { scenario, settings, lines, .. } = &mut prepared;
    let mut live = Live::new(args.quiet, settings.duration, String::new(), lines);
    let outcome = run.run(&mut live);
    let failed = live.failed.take();
    drop(live);
    if let Some(error) = failed {
        return Err(format!("cannot write JSON lines: {error}").into());
    }
    let outcome = outcome?;
    lines.write(&report::total_line(scenario, settings, &outcome))?;
    tell(args, report::summary(scenario, settings, &outcome).trim_end());
    let (offered, arrived) = offered_and_arrived(&outcome);
    Ok(if arrived > 0 || offered == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

fn find_max(args: &Args, mut prepared: Prepared) -> Result<ExitCode, Box<dyn Error>> {
    let start = report::start_line(&prepared.scenario, &prepared.settings, &args.url.text);
    prepared.lines.write(&start)?;
    let mut search = Search::new(prepared.scenario.watchers(), Scenario::WATCHERS_MAX);
    while let Some(viewers) = search.next() {
        let scenario = prepared.scenario.with_watchers(viewers);
        let mut unwritten = Lines::none();
        let title = format!("{viewers} viewers: ");
        let settings = prepared.settings.clone();
        let mut live = Live::new(args.quiet, settings.duration, title, &mut unwritten);
        let result = Run::new(settings, scenario, target(args, &prepared))
            .and_then(|run| run.run(&mut live));
        drop(live);
        let result = match result {
            Err(error) if !error.is_overload() => return Err(error.into()),
            result => result.map(|outcome| judge(args, &prepared.settings, &outcome)),
        };
        let probe = Probe { viewers, result };
        prepared.lines.write(&probe.line())?;
        tell(args, &probe.text());
        search.tried(probe.is_good());
    }
    let answer = search.answer();
    prepared.lines.write(&report::max_line(answer))?;
    let p99 = humantime::format_duration(args.max_p99);
    let loss = args.max_loss;
    tell(args, &format!("{answer} viewers are served with p99 within {p99} and {loss} % lost"));
    Ok(if answer > 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

fn judge(args: &Args, settings: &Settings, outcome: &Outcome) -> Verdict {
    let measure = &outcome.measure;
    let latencies = [&measure.frames.total, &measure.announcements.total];
    let p99_us = latencies.map(|latency| latency.value_at_quantile(0.99)).into_iter().max();
    let p99_us = p99_us.expect("there are two");
    let (offered, arrived) = offered_and_arrived(outcome);
    let lost = offered.saturating_sub(arrived);
    let is_good = measure.errors == 0
        && u128::from(p99_us) <= args.max_p99.as_micros()
        && lost as f64 <= offered as f64 * args.max_loss / 100.0;
    let seconds = settings.duration.as_secs_f64();
    let relay_share = outcome.relay.as_ref().map(|used| used.cpu_ns() as f64 / 1e9 / seconds);
    let load_share = report::load_share(settings, outcome);
    Verdict { p99_us, lost, is_good, load_share, relay_share }
}

/// Of frames, announcements and fetches together.
fn offered_and_arrived(outcome: &Outcome) -> (u64, u64) {
    let Outcome { balance, measure, .. } = outcome;
    let offered = [balance.offered, measure.announcements_expected, measure.fetches_expected];
    let (heard, fetched) = (&measure.announcements.total, &measure.fetches.total);
    let arrived = [balance.offered - balance.lost_frames, heard.len(), fetched.len()];
    (offered.iter().sum(), arrived.iter().sum())
}

fn target(args: &Args, prepared: &Prepared) -> Target {
    Target {
        address: prepared.address,
        server_name: args.url.host.clone(),
        crypto: prepared.crypto.clone(),
    }
}

/// Says something to people, who have stderr where stdout belongs to a program.
fn tell(args: &Args, text: &str) {
    // A reader that has left, as in `| head -1`, is not a failure.
    let _ = match args.writes_to_stdout() {
        true => writeln!(std::io::stderr(), "{text}"),
        false => writeln!(std::io::stdout(), "{text}"),
    };
}

fn fail(code: u8, error: &dyn Error) -> ExitCode {
    eprintln!("shardcast-load: {error}");
    ExitCode::from(code)
}
