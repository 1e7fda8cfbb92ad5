//! The built relay as a process of its own: started on a free port, dialled directly or through
//! something in between, its log read line by line, and asked to leave at the end of every play.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{MutexGuard, watch};

/// How long the relay may take to say anything that it is expected to say.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take to notice a peer that died in silence: the idle timeout, our own ping, which
/// restarts it once, and some more.
const DEATH: Duration = Duration::from_secs(16);

/// Lines of the relay's log that a failed drill shows.
const LOG_TAIL_LINES: usize = 60;

/// One relay at a time: each pins a thread per shard, and drills measure time.
static STAGE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// One session at a time is being accepted, so that the next line about one is about this one.
static DOOR: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A way to one running relay. All handles speak of the same process.
#[derive(Clone)]
pub struct Relay {
    running: Arc<Running>,
    dialled: SocketAddr,
    scheme: &'static str,
    /// Path and query.
    target: String,
    /// What clients show that dial it: a certificate and its key, in files.
    identity: Option<[PathBuf; 2]>,
}

struct Running {
    process: Mutex<Child>,
    /// By the play, or kept from its end, so that this is none of a relay's.
    is_killed: AtomicBool,
    id: libc::pid_t,
    log: Log,
    /// Whether its log is read to the end.
    is_heard: bool,
    shards: usize,
    stage: Stage,
}

/// While somebody has it no other relay starts.
type Stage = Arc<MutexGuard<'static, ()>>;

/// How the relay ended.
pub struct Ended {
    pub status: ExitStatus,
    /// From the signal to the end of the process.
    pub took: Duration,
    pub log: Vec<String>,
}

impl Relay {
    pub async fn start(shards: usize) -> Relay {
        Relay::start_with(shards, "**", &[]).await
    }

    /// One of which only a part is public.
    pub async fn open_to(shards: usize, public: &str) -> Relay {
        Relay::start_with(shards, public, &[]).await
    }

    /// One with these arguments, and no rule for everybody but theirs.
    pub async fn guarded(shards: usize, args: &[&str]) -> Relay {
        Relay::start_with(shards, "", args).await
    }

    /// One where the newest publisher of a path has it.
    pub async fn of_the_newest(shards: usize) -> Relay {
        Relay::start_with(shards, "**", &["--allow-takeover"]).await
    }

    /// One that pages of this origin may use too.
    pub async fn allowing(shards: usize, origin: &str) -> Relay {
        Relay::start_with(shards, "**", &["--allow-origin", origin]).await
    }

    /// One whose cache holds so much.
    pub async fn caching(shards: usize, capacity: &str) -> Relay {
        Relay::start_with(shards, "**", &["--cache-capacity", capacity]).await
    }

    /// One that keeps its secrets in a directory, at an address where another one may have been before.
    pub async fn keeping(address: SocketAddr, directory: &Path) -> Relay {
        let directory = directory.to_str().expect("a path of ours");
        let address = address.to_string();
        Relay::start_with(2, "**", &["--listen", &address, "--state-dir", directory]).await
    }

    /// One that keeps a subscription upstream for so long after its last viewer.
    pub async fn lingering(shards: usize, linger: Duration) -> Relay {
        let linger = format!("{}ms", linger.as_millis());
        Relay::start_with(shards, "**", &["--linger", &linger]).await
    }

    /// One that has its certificate from files.
    pub async fn certified(cert: &Path, key: &Path) -> Relay {
        Relay::certified_at(SocketAddr::from(([127, 0, 0, 1], 0)), cert, key, Duration::ZERO).await
    }

    /// The same at an address, where another one may have been before. It lets its sessions move for so long.
    pub async fn certified_at(
        address: SocketAddr,
        cert: &Path,
        key: &Path,
        drain: Duration,
    ) -> Relay {
        let drain = format!("{}ms", drain.as_millis());
        let files = [cert, key].map(|file| file.to_str().expect("a path of ours"));
        let tls = ["--listen-tls-cert", files[0], "--listen-tls-key", files[1]];
        let address = address.to_string();
        let more = [&["--listen", &address, "--drain-timeout", &drain][..], &tls].concat();
        Relay::start_with(2, "**", &more).await
    }

    /// With more arguments than every relay of a play has.
    async fn start_with(shards: usize, public: &str, more: &[&str]) -> Relay {
        let stage = Arc::new(STAGE.lock().await);
        Relay::launch(stage, shards, public, more, true, |_| {}).await
    }

    /// Another one beside it, with rules for everybody.
    pub async fn beside(&self, shards: usize, more: &[&str]) -> Relay {
        Relay::launch(self.running.stage.clone(), shards, "**", more, true, |_| {}).await
    }

    /// One that something is done to before it starts.
    pub async fn prepared(
        shards: usize,
        more: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Relay {
        let stage = Arc::new(STAGE.lock().await);
        Relay::launch(stage, shards, "**", more, true, prepare).await
    }

    /// One whose log is read until it listens, and never again, though somebody could.
    pub async fn unheard(shards: usize) -> Relay {
        let stage = Arc::new(STAGE.lock().await);
        Relay::launch(stage, shards, "**", &[], false, |_| {}).await
    }

    async fn launch(
        stage: Stage,
        shards: usize,
        public: &str,
        more: &[&str],
        is_heard: bool,
        prepare: impl FnOnce(&mut Command),
    ) -> Relay {
        // Another build of it, such as the one for release.
        let given = std::env::var_os("SHARDCAST_BIN");
        let mut command =
            Command::new(given.unwrap_or_else(|| env!("CARGO_BIN_EXE_shardcast").into()));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text == "RUST_LOG" || text.starts_with("MOQ_") || text.starts_with("SHARDCAST_") {
                command.env_remove(&name);
            }
        }
        prepare(&mut command);
        let mut process = command
            .args(match more.contains(&"--listen") {
                true => &[][..],
                false => &["--listen", "127.0.0.1:0"],
            })
            .args(["--shards", &shards.to_string()])
            .args(match more.contains(&"--listen-tls-cert") || more.contains(&"--acme-domain") {
                true => &[][..],
                false => &["--listen-tls-generate", "localhost"],
            })
            .args(match public {
                "" => vec![],
                rules => vec!["--auth-public", rules],
            })
            .args(["--log-level", "info"])
            // Most plays end when they have seen what they came for.
            .args(match more.contains(&"--drain-timeout") {
                true => &[][..],
                false => &["--drain-timeout", "0s"],
            })
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the relay's binary");

        let log = Log::default();
        let stderr = process.stderr.take().expect("a pipe");
        let writer = log.clone();
        // The pipe is read to its end whatever the drill does, or not at all.
        std::thread::spawn(move || {
            let mut stderr = BufReader::new(stderr);
            let mut line = Vec::new();
            while stderr.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                let is_enough = !is_heard && text.contains("kind=http");
                writer.push(text);
                line.clear();
                if is_enough {
                    // A pipe that is closed would let the relay go on.
                    std::mem::forget(stderr);
                    return;
                }
            }
            writer.close();
        });

        let id = process.id() as libc::pid_t;
        let process = Mutex::new(process);
        let is_killed = AtomicBool::new(false);
        let running = Arc::new(Running { process, is_killed, id, log, is_heard, shards, stage });
        let is_listening =
            |line: &str| line.contains("listening") && field(line, "kind") == Some("quic");
        let line = running.log.wait_from(0, "the relay to listen", is_listening).await;
        let address = field(&line, "addr").expect("addr=…");
        let dialled = address.parse().expect("addr=IP:PORT");
        Relay { running, dialled, scheme: "moqt", target: String::new(), identity: None }
    }

    /// The same relay, dialled at another address.
    pub fn behind(&self, address: SocketAddr) -> Relay {
        Relay { dialled: address, ..self.clone() }
    }

    /// The same relay, dialled at a path, with what follows it.
    pub fn at(&self, target: &str) -> Relay {
        Relay { target: target.to_owned(), ..self.clone() }
    }

    /// The same relay, dialled by who shows a certificate.
    pub fn showing(&self, cert: &Path, key: &Path) -> Relay {
        Relay { identity: Some([cert.to_owned(), key.to_owned()]), ..self.clone() }
    }

    pub fn identity(&self) -> Option<&[PathBuf; 2]> {
        self.identity.as_ref()
    }

    /// The same relay, dialled by WebTransport.
    pub fn web(&self) -> Relay {
        Relay { scheme: "https", ..self.clone() }
    }

    /// The same, by a client that first asks over HTTP which certificate it has.
    pub fn found_over_http(&self) -> Relay {
        Relay { scheme: "http", ..self.clone() }
    }

    /// The same, by a client that knows no QUIC.
    pub fn websocket(&self) -> Relay {
        Relay { scheme: "ws", ..self.clone() }
    }

    /// The same over TLS, if it serves that.
    pub fn secure_websocket(&self) -> Relay {
        Relay { scheme: "wss", ..self.clone() }
    }

    pub fn address(&self) -> SocketAddr {
        self.dialled
    }

    /// Where HTTP is, as its log tells.
    pub fn address_of_http(&self) -> SocketAddr {
        let lines = self.log();
        let mut said = lines.iter().filter(|line| field(line, "kind") == Some("http"));
        let line = said.next().expect("it says so before all else");
        field(line, "addr").and_then(|addr| addr.parse().ok()).expect("addr=IP:PORT")
    }

    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.dialled, self.target)
    }

    pub fn shards(&self) -> usize {
        self.running.shards
    }

    /// The process id.
    pub fn id(&self) -> libc::pid_t {
        self.running.id
    }

    /// Call before dialling: the session accepted next is the one dialled.
    pub async fn accepting(&self) -> Accepting<'_> {
        let door = DOOR.lock().await;
        let log = &self.running.log;
        let transport = match self.scheme {
            "moqt" => "quic",
            "ws" | "wss" => "websocket",
            _ => "webtransport",
        };
        Accepting { log, from: log.lines().len(), transport, _door: door }
    }

    /// Everything the relay has said so far.
    pub fn log(&self) -> Vec<String> {
        self.running.log.lines()
    }

    /// How many sessions it has accepted so far.
    pub fn sessions(&self) -> usize {
        self.count("negotiated")
    }

    fn count(&self, word: &str) -> usize {
        let lines = self.log();
        lines.iter().filter(|line| line.split_whitespace().any(|found| found == word)).count()
    }

    /// How many of them it has seen end.
    pub fn departures(&self) -> usize {
        self.count("closed")
    }

    /// Waits until it has seen every session end.
    pub async fn deserted(&self) {
        self.sees(PATIENCE, || self.departures() >= self.sessions()).await;
    }

    /// Waits until it has seen one more session end than so many, which may have died in silence.
    pub async fn notices_departure(&self, before: usize) {
        self.sees(DEATH, || self.departures() > before).await;
    }

    async fn sees(&self, patience: Duration, it: impl Fn() -> bool) {
        let mut grown = self.running.log.grown.subscribe();
        let search = async {
            while !it() {
                grown.changed().await.expect("the log outlives its readers");
            }
        };
        let seen = tokio::time::timeout(patience, search).await;
        seen.unwrap_or_else(|_| panic!("waited {patience:?} for sessions to end"));
    }

    /// Asks it to leave, and starts another one at its address so long after it has.
    pub async fn restart(self, away: Duration) -> Relay {
        let stage = self.running.stage.clone();
        let (address, shards) = (self.dialled.to_string(), self.running.shards);
        self.stop().await.expect_success();
        tokio::time::sleep(away).await;
        Relay::launch(stage, shards, "**", &["--listen", &address], true, |_| {}).await
    }

    /// Where it answers operators.
    pub async fn internal(&self) -> SocketAddr {
        let line = self.says("kind=internal").await;
        let at = line.split_once("addr=").expect("an address").1;
        at.split_whitespace().next().and_then(|at| at.parse().ok()).expect("an address")
    }

    /// Waits until it has said something.
    pub async fn says(&self, words: &str) -> String {
        self.running.log.wait_from(0, words, |line| line.contains(words)).await
    }

    /// Waits until it has said something so many times, and returns the last of these lines.
    pub async fn says_times(&self, words: &str, times: usize) -> String {
        let said = || self.log().into_iter().filter(|line| line.contains(words)).nth(times - 1);
        self.sees(PATIENCE, || said().is_some()).await;
        said().expect("it was seen")
    }

    /// Waits until it has ended by itself.
    pub async fn ended(self) -> Ended {
        self.running.is_killed.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        self.running.log.ended().await;
        let status = self.running.process.lock().expect("process").wait().expect("our own child");
        Ended { status, took: begun.elapsed(), log: self.running.log.lines() }
    }

    /// Asks it to leave.
    pub fn terminate(&self) {
        // SAFETY: kill takes no pointers, and the child is not reaped yet, so the id is its own.
        unsafe { libc::kill(self.running.id, libc::SIGTERM) };
    }

    /// Asks it to leave, and waits until it has.
    pub async fn stop(self) -> Ended {
        let asked = Instant::now();
        self.terminate();
        if self.running.is_heard {
            // The process holds the only writing end, so the end of the log is its own.
            self.running.log.ended().await;
        } else {
            while self.running.try_wait().is_none() {
                assert!(asked.elapsed() < PATIENCE, "the relay does not end");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let took = asked.elapsed();
        let status = self.running.process.lock().expect("process").wait().expect("our own child");
        Ended { status, took, log: self.running.log.lines() }
    }

    /// The same of one that cannot end as a relay does.
    pub async fn stop_upset(self) -> Ended {
        self.running.is_killed.store(true, Ordering::Relaxed);
        self.stop().await
    }

    /// Ends it without a word to anybody, and waits until it is gone.
    pub async fn kill(self) {
        self.running.is_killed.store(true, Ordering::Relaxed);
        self.running.process.lock().expect("process").kill().expect("our own child");
        self.running.log.ended().await;
        self.running.process.lock().expect("process").wait().expect("our own child");
    }
}

impl Running {
    fn try_wait(&self) -> Option<ExitStatus> {
        self.process.lock().expect("process").try_wait().expect("our own child")
    }
}

impl Drop for Running {
    /// SIGTERM, and a proper end: a relay that a play has upset does not get away with it.
    fn drop(&mut self) {
        let mut process = self.process.lock().expect("process");
        if process.try_wait().expect("our own child").is_none() {
            // SAFETY: kill takes no pointers, and the child is not reaped yet, so the id is its own.
            unsafe { libc::kill(self.id, libc::SIGTERM) };
        }
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match process.try_wait().expect("our own child") {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => break None,
                // std offers no wait with a deadline, so this one polls.
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        if status.is_none() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let is_killed = self.is_killed.load(Ordering::Relaxed);
        let proper = is_killed || status.is_some_and(|status| status.success());
        if std::thread::panicking() || !proper {
            self.log.show_tail();
        }
        if !std::thread::panicking() {
            assert!(proper, "the relay ended with {status:?} after SIGTERM");
        }
    }
}

impl Ended {
    /// It left as a relay does that was asked to.
    #[track_caller]
    pub fn expect_success(&self) {
        let tail = self.log.len().saturating_sub(LOG_TAIL_LINES);
        assert!(self.status.success(), "{}\n{}", self.status, self.log[tail..].join("\n"));
    }

    /// A number that every shard states about itself at its end, by shard.
    #[track_caller]
    pub fn counts(&self, name: &str) -> Vec<u64> {
        let lines = self.log.iter().filter(|line| line.contains("shard ended"));
        let mut counts: Vec<(u64, u64)> =
            lines.map(|line| (number(line, "shard"), number(line, name))).collect();
        counts.sort_unstable();
        counts.into_iter().map(|(_, count)| count).collect()
    }
}

#[track_caller]
fn number(line: &str, name: &str) -> u64 {
    let value = field(line, name).and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("no number in {name}= of: {line}"))
}

/// A session that is about to be accepted.
pub struct Accepting<'a> {
    log: &'a Log,
    from: usize,
    transport: &'static str,
    _door: MutexGuard<'static, ()>,
}

impl Accepting<'_> {
    /// The shard that accepted the session. A session of the same version that did not come
    /// through this door may be taken for it, if it was accepted just before.
    pub async fn shard(self, version: &str) -> usize {
        let is_about_it = |line: &str| {
            line.contains("negotiated")
                && field(line, "version") == Some(version)
                && field(line, "transport") == Some(self.transport)
        };
        let line =
            self.log.wait_from(self.from, "the relay to report the session", is_about_it).await;
        number(&line, "shard") as usize
    }
}

/// The value of `name=value` in a log line. A span may carry a field of the same name, so the last
/// one counts: a line's own fields follow its spans.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(|c: char| c.is_whitespace() || c == '{' || c == '}' || c == ',')
        .filter_map(|word| word.split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value.trim_matches('"'))
        .next_back()
}

/// What the relay has said so far, and a way to await what it says next.
#[derive(Clone)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    /// Whether there can be more; touched at every line.
    grown: Arc<watch::Sender<bool>>,
}

impl Default for Log {
    fn default() -> Log {
        Log { lines: Arc::default(), grown: Arc::new(watch::Sender::new(true)) }
    }
}

impl Log {
    fn push(&self, line: String) {
        self.lines.lock().expect("log").push(line);
        self.grown.send_replace(true);
    }

    fn close(&self) {
        self.grown.send_replace(false);
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("log").clone()
    }

    async fn ended(&self) {
        let mut grown = self.grown.subscribe();
        let ended = tokio::time::timeout(PATIENCE, grown.wait_for(|more| !more)).await;
        ended.expect("the relay ends in time").expect("the log outlives its readers");
    }

    async fn wait_from(&self, from: usize, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut grown = self.grown.subscribe();
        let mut read = from;
        let search = async {
            loop {
                let more = *grown.borrow_and_update();
                let fresh = self.lines.lock().expect("log")[read..].to_vec();
                read += fresh.len();
                if let Some(line) = fresh.into_iter().find(|line| wanted(line)) {
                    return line;
                }
                assert!(more, "the relay ended while waiting for {what}");
                grown.changed().await.expect("the log outlives its readers");
            }
        };
        let found = tokio::time::timeout(PATIENCE, search).await;
        found.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"))
    }

    fn show_tail(&self) {
        let lines = self.lines();
        let from = lines.len().saturating_sub(LOG_TAIL_LINES);
        eprintln!("--- the relay's last lines, {from} before them");
        for line in &lines[from..] {
            eprintln!("{line}");
        }
    }
}
