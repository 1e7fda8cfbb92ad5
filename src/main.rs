//! Settings → configuration → shards → wait for a signal, or for a part that fails. Or a tool of the operator.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{OnceLock, mpsc};
use std::time::Instant;

use shardcast::check;
use shardcast::cli::{EXIT_FAILED, EXIT_USAGE, say};
use shardcast::command::{self, Command};
use shardcast::config::{Config, EXAMPLE, IdentitySource, Request};
use shardcast::doctor;
use shardcast::drain::{Drain, Drained};
use shardcast::limits::{
    DRAIN_LOOK_INTERVAL, END_MAX, HANGING_LOOKS_MAX, LAST_WORDS_MAX, LOG_FLUSH_MAX,
    UPGRADE_TOLD_INTERVAL, WATCH_INTERVAL,
};
use shardcast::log;
use shardcast::memory::Allocator;
use shardcast::notify;
use shardcast::quic::CongestionControl;
use shardcast::relay::{self, Running, StartError};
use shardcast::rt;
use shardcast::signals::{self, Notice, Signals};
use shardcast::store;
use shardcast::text::{hex, in_one_line};
use shardcast::tls::{Source, expiry};
use shardcast::tool;
use shardcast::top;
use shardcast::upgrade::{self, Desk, Heir, Program};
use shardcast::watch::Hangs;
use time::OffsetDateTime;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(command) = command::meant(&args) {
        return run_command(command, &args);
    }
    if let Some(words) = command::slip(&args) {
        say(words);
        return ExitCode::from(EXIT_USAGE);
    }
    let heir = Heir::from_environment();
    let begun = match &heir {
        Ok(heir) => begin(args, heir.as_ref()),
        Err(error) => Err((EXIT_FAILED, error.to_string().into())),
    };
    let code = match begun {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            // File names and arguments may hold anything, line breaks included.
            let line = in_one_line(&error.to_string());
            log::line(&format!("shardcast: {line}"));
            if let Ok(Some(heir)) = &heir {
                heir.refuse(&line);
            }
            ExitCode::from(code)
        }
    };
    log::flush();
    code
}

/// Each takes the arguments of the program, its own name and that of the command first.
fn run_command(command: Command, args: &[OsString]) -> ExitCode {
    match command {
        Command::Check => check::run(args),
        Command::Doctor => doctor::run(args),
        Command::Token => tool::run(args),
        Command::Top => top::run(args),
        Command::Upgrade => upgrade::run(args),
    }
}

type Error = Box<dyn std::error::Error>;

/// The error goes with the exit code.
fn begin(args: Vec<OsString>, heir: Option<&Heir>) -> Result<(), (u8, Error)> {
    let failed = |error: std::io::Error| (EXIT_FAILED, error.into());
    let thread = |error| (EXIT_FAILED, rt::StartError::Thread(error).into());
    let (notices, noticed) = mpsc::channel();
    // Before the first thread: all inherit the mask, and a signal taken by a shard would interrupt
    // its ring.
    let signals = Signals::block().map_err(failed)?;
    signals.take_over(notices.clone()).map_err(thread)?;
    log::start().map_err(thread)?;
    let variables = std::env::vars_os().map(|(name, _)| name);
    let config = match Config::parse(args, variables) {
        Ok(Request::Run(config)) => config,
        Ok(Request::Show(text)) => {
            // A reader that has left, as in `--help | head -1`, is not a failure.
            let _ = text.print();
            return Ok(());
        }
        Err(error) => return Err((EXIT_USAGE, error.into())),
    };
    start_logging(&config).map_err(|error| (EXIT_USAGE, error.into()))?;
    run(&config, heir, notices, &noticed).map_err(|error| {
        let is_setting = matches!(error.downcast_ref(), Some(StartError::Shares(_)));
        (if is_setting { EXIT_USAGE } else { EXIT_FAILED }, error)
    })
}

/// Whom a thread that panics tells; nobody before the relay runs.
static NOTICES: OnceLock<mpsc::Sender<Notice>> = OnceLock::new();

/// A part of the relay is lost for good. The rest ends too: its supervisor starts a whole one.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(
        "thread {0} panicked, as said above: that is a fault of the relay, which ends; start it again and \
         report those lines"
    )]
    Panic(String),
    #[error(
        "shard {0} has not turned for {secs} seconds and the relay ends: start it again; a core that \
         others keep busy, or a fault of the relay, can cause this",
        secs = WATCH_INTERVAL.as_secs() * u64::from(HANGING_LOOKS_MAX)
    )]
    Hangs(usize),
}

fn run(
    config: &Config,
    heir: Option<&Heir>,
    notices: mpsc::Sender<Notice>,
    noticed: &mpsc::Receiver<Notice>,
) -> Result<(), Error> {
    let directory = upgrade::directory(config.state_dir.as_deref());
    let inherited = match heir {
        Some(heir) => {
            notify::hold();
            heir.inherit()?
        }
        None => {
            directory.as_deref().map_or(Ok(()), upgrade::wait_until_free)?;
            store::take()
        }
    };
    let running = relay::start(config, inherited)?;
    let estate = running.estate().clone();
    let desk = Desk::open(heir, estate, directory, Program::this()?, notices.clone())?;
    let _ = NOTICES.set(notices);
    signals::begin();
    // What to type next is of no use in a journal.
    if heir.is_none() && !log::is_read_by_journal() {
        // A welcome that nobody reads any more is not a reason to stop.
        let _ = welcome(&mut std::io::stdout().lock(), config, &running);
    }
    say_where(&running);
    for pair in running.certificates().now().iter() {
        pair.tell(OffsetDateTime::now_utc());
    }
    for note in running.notes() {
        tracing::info!("{note}");
    }
    for finding in running.findings() {
        tracing::warn!("{finding}");
    }

    tell_ready(&running);
    if let Some(time) = notify::hasty_watchdog() {
        tracing::warn!(
            ?time,
            "WatchdogSec= is too short: shards are looked at every {WATCH_INTERVAL:?}"
        );
    }

    let mut watch = running.watch();
    let mut watched_at = Instant::now();
    let mut drain: Option<Drain> = None;
    // And that is because another process has taken over.
    let mut is_handed_over = false;
    // By a signal to this process.
    let mut is_told_to_end = false;
    let mut told_at: Option<Instant> = None;
    let lost = loop {
        let pause = if drain.is_some() { DRAIN_LOOK_INTERVAL } else { WATCH_INTERVAL };
        match noticed.recv_timeout(pause) {
            Ok(Notice::End(cause)) => {
                desk.leave();
                match &mut drain {
                    None if signals::is_ending()
                        || (config.drain_timeout.is_zero() && !desk.is_beside()) =>
                    {
                        tracing::info!(cause, "shutdown requested; closing every session");
                        return end(running);
                    }
                    None => {
                        drain = Some(running.drain(Instant::now() + config.drain_timeout));
                        let within = humantime::format_duration(config.drain_timeout);
                        // The process before this one is waited for as well.
                        let ends = if desk.is_beside() { 2 } else { 1 };
                        let time = config.drain_timeout + ends * END_MAX;
                        notify::leaving(time, "asking every session to move");
                        tracing::info!(
                            cause,
                            %within,
                            "shutdown signal received; draining sessions (signal again to exit immediately)"
                        );
                    }
                    Some(drain) if !is_told_to_end => hurry(drain, cause, config),
                    Some(drain) => {
                        let open = drain.open();
                        // Before it is said: whoever has read that may signal once more.
                        signals::end_in_time();
                        tracing::warn!(open, "second shutdown signal; exiting immediately");
                        return end(running);
                    }
                }
                (is_told_to_end, is_handed_over) = (true, false);
            }
            Ok(Notice::EndWithNext) => {
                desk.leave();
                // Who signals both, as a service manager does, has one wish.
                if let Some(drain) = drain.as_mut().filter(|_| !is_told_to_end) {
                    hurry(drain, "the next process", config);
                }
                is_handed_over = false;
            }
            // Said once more when the process before is gone, which may not have come to say it.
            Ok(Notice::Main) => {
                if notify::speak() {
                    tell_ready(&running);
                }
            }
            Ok(Notice::HandedOver) if drain.is_none() => {
                is_handed_over = true;
                drain = Some(running.hand_over(Instant::now() + config.upgrade_timeout));
                let within = humantime::format_duration(config.upgrade_timeout);
                tracing::info!(%within, "sessions are asked to move to the next process");
            }
            Ok(Notice::TakenBack) if is_handed_over => {
                is_handed_over = false;
                drain = None;
                running.take_back();
                // Its secrets are kept again, and not those of the one that is gone.
                tell_ready(&running);
            }
            Ok(Notice::HandedOver | Notice::TakenBack) => {}
            Ok(Notice::Hangup) => {
                tracing::info!("SIGHUP: certificates and keys are read again, and nothing else is");
                running.read_again();
            }
            Ok(Notice::Panic(thread)) => break Lost::Panic(thread),
            Err(_) => {}
        }
        if let Some(drain) = &mut drain {
            let now = Instant::now();
            match drain.look(now) {
                Drained::NotYet => {
                    if told_at.is_none_or(|at| at.elapsed() >= UPGRADE_TOLD_INTERVAL) {
                        told_at = Some(Instant::now());
                        desk.say_left(drain.open(), drain.until());
                    }
                }
                // This is the service's main process: with it systemd would end the one before it at once.
                Drained::All { .. } | Drained::Late { .. }
                    if desk.is_beside() && now < drain.until() + END_MAX => {}
                Drained::All { moved } => {
                    tracing::info!(moved, "drain complete: every session left; exiting");
                    return end(running);
                }
                Drained::Late { moved, forced } => {
                    tracing::warn!(moved, forced, "drain deadline force-closed sessions; exiting");
                    return end(running);
                }
            }
        }
        let still = watched_at.elapsed();
        if still >= WATCH_INTERVAL {
            watched_at = Instant::now();
            if still > 3 * WATCH_INTERVAL {
                tracing::warn!(
                    ?still,
                    "the process stood still: stopped, suspended or without a core"
                );
            }
            if let Err(Hangs(shard)) = watch.look() {
                break Lost::Hangs(shard);
            }
            if watch.all_turn() {
                notify::alive();
            }
        }
    };
    running.leave(match &lost {
        Lost::Panic(thread) => relay::shard_of(thread),
        Lost::Hangs(shard) => Some(*shard),
    });
    Err(lost.into())
}

/// Where clients and operators find it.
fn say_where(running: &Running) {
    tracing::info!(addr = %running.addr(), kind = %"quic", "listening");
    if let Some(addr) = running.http_addr() {
        tracing::info!(%addr, kind = %"http", "listening");
    }
    if let Some(addr) = running.https_addr() {
        tracing::info!(%addr, kind = %"https", "listening");
    }
    if let Some(addr) = running.internal_addr() {
        tracing::info!(%addr, kind = %"internal", "listening");
        if !addr.ip().to_canonical().is_loopback() {
            tracing::warn!(
                "whoever reaches --internal-listen may read what sessions there are and close them: keep it to \
                 a network of operators"
            );
        }
    }
}

/// Who is asked to move already has no more time than who is asked when the relay ends.
fn hurry(drain: &mut Drain, cause: &str, config: &Config) {
    drain.hurry(Instant::now() + config.drain_timeout);
    let within = humantime::format_duration(config.drain_timeout);
    tracing::info!(
        cause,
        %within,
        "sessions that have not moved to the next process have less time (signal again to exit immediately)"
    );
}

/// Tells the service manager, and has it keep what the next process needs.
fn tell_ready(running: &Running) {
    let shards = running.cores().len();
    let plural = if shards == 1 { "" } else { "s" };
    notify::ready(&format!("{shards} shard{plural} at {}", running.addr()));
    store::keep(running.estate());
}

/// Closes every session that is left, soon and in any case.
fn end(running: Running) -> Result<(), Error> {
    signals::end_in_time();
    notify::leaving(END_MAX, "closing every session");
    Ok(running.stop()?)
}

fn start_logging(config: &Config) -> Result<(), log::BadFilter> {
    log::listen(log::filter(config.log_level)?, config.log_format);
    // A panic is told as everything else is: the hook of the standard library waits for a reader.
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        log::line(&format!("shardcast: thread '{name}' {panic}"));
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            log::line(&trace.to_string());
        }
        log::flush();
        if let Some(notices) = NOTICES.get()
            && notices.send(Notice::Panic(name.to_owned())).is_ok()
        {
            // The main thread ends the process, once the others have said goodbye.
            std::thread::sleep(LAST_WORDS_MAX + LOG_FLUSH_MAX);
        }
        signals::end_at_once(EXIT_FAILED.into());
    }));
    Ok(())
}

/// One screen: what runs here, and what to type next.
fn welcome(out: &mut impl Write, config: &Config, running: &Running) -> std::io::Result<()> {
    let addr = running.addr();
    let version = env!("CARGO_PKG_VERSION");
    let by_tcp = running.http_addr().or(running.https_addr()).filter(|_| config.web.ws);
    let websocket = by_tcp.map_or("", |_| ", WebSocket");
    writeln!(
        out,
        "shardcast {version} listens on {addr} (QUIC, WebTransport{websocket}; moq-lite 01 to 06)\n"
    )?;
    let cores: Vec<String> = running.cores().iter().map(usize::to_string).collect();
    let (shards, cores) = (cores.len(), cores.join(" "));
    let plural = if shards == 1 { "" } else { "s" };
    writeln!(out, "  shards       {shards} on core{plural} {cores}")?;
    let certificates = running.certificates().now();
    for pair in certificates.iter() {
        let expires = expiry(pair.not_after);
        match &pair.source {
            Source::File(cert) => writeln!(out, "  certificate  {}, {expires}", cert.display())?,
            Source::Generated => {
                writeln!(
                    out,
                    "  certificate  self-signed for {}, {expires}",
                    pair.names.join(" ")
                )?;
            }
        }
    }
    let first = &certificates[0];
    let sha256 = hex(&first.fingerprint);
    writeln!(out, "  sha256       {sha256}")?;
    writeln!(out, "  access       {}", config.access.words())?;
    if let Some(words) = config.access.peer_words() {
        writeln!(out, "  peers        {words}")?;
    }
    for entry in &config.cluster.connect {
        writeln!(out, "  dials        {}", entry.place)?;
    }
    if let Some(list) = &config.cluster.list {
        writeln!(out, "  dials        whom {} lists", list.shown())?;
    }
    for place in config.access.key_places() {
        writeln!(out, "  key          {place}, for tokens in URLs: ?jwt=TOKEN")?;
    }
    let control = config.congestion_control;
    if control != CongestionControl::default() {
        writeln!(out, "  congestion   {} (--quic-congestion-control)", control.name())?;
    }
    for (scheme, addr) in [("http", running.http_addr()), ("https", running.https_addr())] {
        let Some(addr) = addr else { continue };
        // An unspecified address cannot be dialled.
        let url = match addr.ip().is_unspecified() {
            true => format!("{scheme}://HOST:{}", addr.port()),
            false => format!("{scheme}://{addr}"),
        };
        let is_known = matches!(first.source, Source::File(_)) || scheme == "http";
        let trust = if is_known { "" } else { "-k " };
        writeln!(out, "  {scheme:<11}  {url}  (or: curl {trust}{url}/announced)")?;
        if config.web.ws {
            let url = url.replacen("http", "ws", 1);
            writeln!(
                out,
                "  websocket    {url}  (for clients without UDP, which find it by themselves)"
            )?;
        }
    }
    if let Some(internal) = running.internal_addr() {
        writeln!(
            out,
            "  operators    http://{internal}/metrics  /health  /ready  /nodes  /sessions"
        )?;
    }
    for note in running.notes() {
        writeln!(out, "  note         {note}")?;
    }

    let example = config.access.public.example();
    // The shortest way to trust: the hash is found where HTTP is at the same address, pinned by hand
    // elsewhere, and not needed if the certificate is somebody's.
    let is_local = addr.ip().to_canonical().is_loopback();
    let is_pinned = matches!(config.identity, IdentitySource::Generated { .. });
    let host = first.names.first().filter(|_| is_pinned);
    let (scheme, host, trust) = match host {
        _ if running.http_addr() == Some(addr) && is_local => {
            ("http", addr.ip().to_string(), String::new())
        }
        _ if is_local => ("moqt", addr.ip().to_string(), " --connect-tls-insecure".to_owned()),
        Some(host) => ("moqt", host.clone(), format!(" --connect-tls-fingerprint {sha256}")),
        None => ("https", "HOST".to_owned(), String::new()),
    };
    let host = match host.contains(':') {
        true => format!("[{host}]"),
        false => host,
    };
    let connect = |path: &str| {
        let slash = if path.is_empty() { "" } else { "/" };
        let url = format!("{scheme}://{host}:{}{slash}{path}", addr.port());
        format!("moq --connect '{url}'{trust} --broadcast {EXAMPLE}")
    };
    writeln!(out, "\nPublish a file (moq: cargo install moq-cli):")?;
    writeln!(
        out,
        "  ffmpeg -re -stream_loop -1 -i in.mp4 -c copy -f mpegts -pes_payload_size 0 - | \\\n    \
         {} import ts",
        connect(&example.publish())
    )?;
    writeln!(out, "Watch it:\n  {} export ts | ffplay -", connect(&example.watch()))?;
    writeln!(out, "Both at once, with a test picture:\n  scripts/demo-video.sh")?;
    writeln!(out, "\nCtrl-C stops the relay.")?;
    out.flush()
}
