//! Arguments → configuration → shards → wait for a signal, or for a part that fails. Or the operator's tool.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use shardcast::config::{Config, IdentitySource, Request};
use shardcast::limits::{
    END_MAX, HANGING_LOOKS_MAX, LAST_WORDS_MAX, LOG_FLUSH_MAX, WATCH_INTERVAL,
};
use shardcast::log;
use shardcast::memory::Allocator;
use shardcast::relay::{self, Running};
use shardcast::rt;
use shardcast::tool;
use shardcast::watch::Hangs;
use time::OffsetDateTime;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

const EXIT_FAILED: u8 = 1;
/// What clap and most tools use for a wrong command line.
const EXIT_USAGE: u8 = 2;
/// 128 + SIGINT, as a shell reports it.
const EXIT_AT_ONCE: i32 = 130;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if tool::is_meant(&args) {
        return tool::run(&args);
    }
    let code = match begin(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            // File names and arguments may hold anything, line breaks included.
            let line = error.to_string().replace(char::is_control, " ");
            log::line(&format!("shardcast: {line}"));
            ExitCode::from(code)
        }
    };
    log::flush();
    code
}

type Error = Box<dyn std::error::Error>;

/// The error goes with the exit code.
fn begin(args: Vec<OsString>) -> Result<(), (u8, Error)> {
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
    run(&config, notices, &noticed).map_err(|error| (EXIT_FAILED, error))
}

/// What ends a relay that runs.
enum Notice {
    Signal(&'static str),
    /// A thread of this name panicked, and said so.
    Panic(String),
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
    notices: mpsc::Sender<Notice>,
    noticed: &mpsc::Receiver<Notice>,
) -> Result<(), Error> {
    let running = relay::start(config)?;
    let _ = NOTICES.set(notices);
    // A welcome that nobody reads any more is not a reason to stop.
    let _ = welcome(&mut std::io::stdout().lock(), config, &running);
    tracing::info!(addr = %running.addr(), kind = %"quic", "listening");
    if let Some(addr) = running.http_addr() {
        tracing::info!(%addr, kind = %"http", "listening");
    }
    for note in running.notes() {
        tracing::info!("{note}");
    }

    let mut watch = running.watch();
    let lost = loop {
        let since = Instant::now();
        match noticed.recv_timeout(WATCH_INTERVAL) {
            Ok(Notice::Signal(signal)) => {
                tracing::info!(%signal, "shutdown requested; closing every session");
                return Ok(running.stop()?);
            }
            Ok(Notice::Panic(thread)) => break Lost::Panic(thread),
            Err(_) => {
                let still = since.elapsed();
                if still > 2 * WATCH_INTERVAL {
                    tracing::warn!(
                        ?still,
                        "the process stood still: stopped, suspended or without a core"
                    );
                }
                if let Err(Hangs(shard)) = watch.look() {
                    break Lost::Hangs(shard);
                }
            }
        }
    };
    running.leave(match &lost {
        Lost::Panic(thread) => relay::shard_of(thread),
        Lost::Hangs(shard) => Some(*shard),
    });
    Err(lost.into())
}

#[derive(Debug, thiserror::Error)]
#[error("RUST_LOG is not a log filter: {0}; write for example RUST_LOG=info,shardcast=debug")]
struct BadFilter(String);

fn start_logging(config: &Config) -> Result<(), BadFilter> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => {
            EnvFilter::try_new(text).map_err(|error| BadFilter(error.to_string()))?
        }
        // The executor's own debug lines are about its files, not about the relay.
        _ => EnvFilter::new(format!("{},glommio=warn", config.log_level)),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log::Lines)
        .fmt_fields(log::fields())
        .with_ansi(std::io::stderr().is_terminal())
        .init();
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
        end_at_once(EXIT_FAILED.into());
    }));
    Ok(())
}

/// Ends the process without running anything of ours, whose state is not to be trusted.
fn end_at_once(code: i32) -> ! {
    // SAFETY: no preconditions.
    unsafe { libc::_exit(code) }
}

/// SIGINT, SIGTERM and SIGHUP, taken by one thread. A terminal that closes is no reason to end, and
/// of what others read anew on SIGHUP this relay reads keys when they change, and all else once.
struct Signals {
    set: libc::sigset_t,
}

impl Signals {
    /// From the first signal on, the process ends in time.
    fn take_over(self, notices: mpsc::Sender<Notice>) -> std::io::Result<()> {
        let set = self.set;
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let name = loop {
                match Self::next(&set) {
                    libc::SIGHUP => Self::ignore(),
                    libc::SIGINT => break "SIGINT",
                    _ => break "SIGTERM",
                }
            };
            // Nobody listens if the start failed, and then the process is about to end.
            let _ = notices.send(Notice::Signal(name));
            let code = match Self::next_within(&set, END_MAX) {
                true => EXIT_AT_ONCE,
                false => {
                    log::line("shardcast: the relay did not end in time");
                    log::flush();
                    i32::from(EXIT_FAILED)
                }
            };
            end_at_once(code);
        })?;
        Ok(())
    }

    /// Call while there is one thread.
    fn block() -> std::io::Result<Signals> {
        // SAFETY: sigemptyset initialises the set before anything reads it.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGINT);
            libc::sigaddset(&mut set, libc::SIGTERM);
            libc::sigaddset(&mut set, libc::SIGHUP);
            match libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) {
                0 => Ok(Signals { set }),
                code => Err(std::io::Error::from_raw_os_error(code)),
            }
        }
    }

    fn next(set: &libc::sigset_t) -> libc::c_int {
        let mut signal = 0;
        // SAFETY: both point to live values. It fails only for a set with invalid signals.
        let code = unsafe { libc::sigwait(set, &mut signal) };
        assert_eq!(code, 0, "sigwait of SIGINT, SIGTERM and SIGHUP");
        signal
    }

    fn ignore() {
        tracing::info!(
            "SIGHUP is ignored: keys are read when their files change, and nothing else is read anew; restart the relay for that"
        );
    }

    /// Whether somebody is impatient, and says so in time.
    fn next_within(set: &libc::sigset_t, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = libc::timespec {
                tv_sec: left.as_secs() as libc::time_t,
                tv_nsec: left.subsec_nanos().into(),
            };
            // SAFETY: both point to live values, and nothing is to be written.
            match unsafe { libc::sigtimedwait(set, std::ptr::null_mut(), &left) } {
                libc::SIGHUP => Self::ignore(),
                signal if signal > 0 => return true,
                _ => {}
            }
            // A process that is stopped and continued has its wait cut short.
            if Instant::now() >= deadline {
                return false;
            }
        }
    }
}

/// One screen: what runs here, and what to type next.
fn welcome(out: &mut impl Write, config: &Config, running: &Running) -> std::io::Result<()> {
    let addr = running.addr();
    let version = env!("CARGO_PKG_VERSION");
    writeln!(
        out,
        "shardcast {version} listens on {addr} (WebTransport and QUIC, moq-lite 01 to 06)\n"
    )?;
    let cores: Vec<String> = running.cores().iter().map(usize::to_string).collect();
    let (shards, cores) = (cores.len(), cores.join(" "));
    let plural = if shards == 1 { "" } else { "s" };
    writeln!(out, "  shards       {shards} on core{plural} {cores}")?;
    let expires = expiry(running.expires());
    let hosts = match &config.identity {
        IdentitySource::Files { cert, .. } => {
            writeln!(out, "  certificate  {}, {expires}", cert.display())?;
            Vec::new()
        }
        IdentitySource::Generated { hosts } => {
            let hosts: Vec<_> = hosts.iter().map(|host| host.to_str().into_owned()).collect();
            writeln!(out, "  certificate  self-signed for {}, {expires}", hosts.join(" "))?;
            hosts
        }
    };
    let sha256 = hex(running.fingerprint());
    writeln!(out, "  sha256       {sha256}")?;
    writeln!(out, "  access       {}", config.access.words())?;
    if let Some(words) = config.access.peer_words() {
        writeln!(out, "  peers        {words}")?;
    }
    for place in config.access.key_places() {
        writeln!(out, "  key          {place}, for tokens in URLs: ?jwt=TOKEN")?;
    }
    if let Some(http) = running.http_addr() {
        // An unspecified address cannot be dialled.
        let url = match http.ip().is_unspecified() {
            true => format!("http://HOST:{}", http.port()),
            false => format!("http://{http}"),
        };
        writeln!(out, "  http         {url}  (or: curl {url}/announced)")?;
    }
    for note in running.notes() {
        writeln!(out, "  note         {note}")?;
    }

    // The first rule that is open decides where the example publishes.
    let path = match config.access.public.example_root() {
        None => "/?jwt=TOKEN".to_owned(),
        Some("") => String::new(),
        Some(prefix) => format!("/{prefix}"),
    };
    // The shortest way to trust: the hash is found where HTTP is at the same address, pinned by hand
    // elsewhere, and not needed if the certificate is somebody's.
    let is_local = addr.ip().to_canonical().is_loopback();
    let (scheme, host, trust) = match hosts.first() {
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
    let watched = if config.access.public.shows_all() { "" } else { &path };
    let connect = |path: &str| {
        let url = format!("{scheme}://{host}:{}{path}", addr.port());
        format!("moq --connect '{url}'{trust} --broadcast demo.hang")
    };
    writeln!(out, "\nPublish a file (moq: cargo install moq-cli):")?;
    writeln!(
        out,
        "  ffmpeg -re -stream_loop -1 -i in.mp4 -c copy -f mpegts -pes_payload_size 0 - | \\\n    \
         {} import ts",
        connect(&path)
    )?;
    writeln!(out, "Watch it:\n  {} export ts | ffplay -", connect(watched))?;
    writeln!(out, "Both at once, with a test picture:\n  scripts/demo-video.sh")?;
    writeln!(out, "\nCtrl-C stops the relay.")?;
    out.flush()
}

fn expiry(at: OffsetDateTime) -> String {
    let days = (at - OffsetDateTime::now_utc()).whole_days();
    let (date, hour, minute) = (at.date(), at.hour(), at.minute());
    match at > OffsetDateTime::now_utc() {
        true => format!("expires {date} {hour:02}:{minute:02} UTC (in {days} days)"),
        false => format!("EXPIRED {date} {hour:02}:{minute:02} UTC"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
