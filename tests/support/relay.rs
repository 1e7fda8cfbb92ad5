//! The built relay as a process of its own: started on a free port, its log read line by line, and
//! asked to leave at the end of every play.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{MutexGuard, watch};

/// How long the relay may take to say that it listens, or anything else it is expected to say.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take to end after being asked to, with every session closed properly.
const LEAVE_MAX: Duration = Duration::from_secs(10);

/// Lines of the relay's log that a failed play shows.
const LOG_TAIL_LINES: usize = 60;

/// One relay at a time: each pins a thread per shard, and plays that share cores time out instead
/// of failing for a reason.
static STAGE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// One session at a time is being accepted, so that the next line about one is about this one.
static DOOR: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub struct Relay {
    process: Child,
    reader: Option<JoinHandle<()>>,
    log: Log,
    address: SocketAddr,
    shards: usize,
    _stage: MutexGuard<'static, ()>,
}

impl Relay {
    pub async fn start(shards: usize) -> Self {
        let stage = STAGE.lock().await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardcast"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text == "RUST_LOG" || text.starts_with("MOQ_") || text.starts_with("SHARDCAST_") {
                command.env_remove(&name);
            }
        }
        let mut process = command
            .args(["--listen", "127.0.0.1:0"])
            .args(["--shards", &shards.to_string()])
            .args(["--listen-tls-generate", "localhost"])
            .args(["--auth-public", "**"])
            .args(["--log-level", "debug"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the relay's binary");

        let log = Log::default();
        let stderr = process.stderr.take().expect("a pipe");
        let writer = log.clone();
        // The pipe is read to its end whatever the play does: a full pipe would stop the relay.
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n') {
                let Ok(line) = line else { break };
                writer.push(String::from_utf8_lossy(&line).into_owned());
            }
            writer.close();
        });

        let mut relay = Self {
            process,
            reader: Some(reader),
            log,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            shards,
            _stage: stage,
        };
        let line = relay
            .wait_for_log("the relay to listen", |line| {
                line.contains("listening") && field(line, "kind") == Some("quic")
            })
            .await;
        let address = field(&line, "addr").expect("addr=…");
        relay.address = address.parse().expect("addr=IP:PORT");
        relay
    }

    pub fn url(&self) -> String {
        format!("moqt://{}", self.address)
    }

    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The first line, from the start of the log on, that satisfies the predicate.
    pub async fn wait_for_log(&self, what: &str, predicate: impl Fn(&str) -> bool) -> String {
        self.log.wait_from(0, what, predicate).await
    }

    /// Call before dialling: the session accepted next is the one dialled.
    pub async fn accepting(&self) -> Accepting<'_> {
        let door = DOOR.lock().await;
        Accepting { log: &self.log, from: self.log.len(), _door: door }
    }
}

/// A session that is about to be accepted.
pub struct Accepting<'a> {
    log: &'a Log,
    from: usize,
    _door: MutexGuard<'static, ()>,
}

impl Accepting<'_> {
    /// The shard that accepted the session.
    pub async fn shard(self, version: &str) -> usize {
        let line = self
            .log
            .wait_from(self.from, "the relay to report the session", |line| {
                line.contains("negotiated") && field(line, "transport") == Some("quic")
            })
            .await;
        assert_eq!(field(&line, "version"), Some(version), "{line}");
        let shard = field(&line, "shard").unwrap_or_else(|| panic!("no shard= in: {line}"));
        shard.parse().unwrap_or_else(|_| panic!("no number in shard= of: {line}"))
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
    /// The number of lines, or `None` once there will be no more.
    grown: Arc<watch::Sender<Option<usize>>>,
}

impl Default for Log {
    fn default() -> Self {
        Self { lines: Default::default(), grown: Arc::new(watch::Sender::new(Some(0))) }
    }
}

impl Log {
    fn push(&self, line: String) {
        let mut lines = self.lines.lock().expect("log");
        lines.push(line);
        self.grown.send_replace(Some(lines.len()));
    }

    fn close(&self) {
        self.grown.send_replace(None);
    }

    fn len(&self) -> usize {
        self.lines.lock().expect("log").len()
    }

    async fn wait_from(&self, from: usize, what: &str, predicate: impl Fn(&str) -> bool) -> String {
        let mut grown = self.grown.subscribe();
        let mut read = from;
        let search = async {
            loop {
                let more = grown.borrow_and_update().is_some();
                let fresh: Vec<String> = self.lines.lock().expect("log")[read..].to_vec();
                read += fresh.len();
                if let Some(line) = fresh.into_iter().find(|line| predicate(line)) {
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
        let lines = self.lines.lock().expect("log");
        let from = lines.len().saturating_sub(LOG_TAIL_LINES);
        eprintln!("--- the relay's last lines, {from} before them");
        for line in &lines[from..] {
            eprintln!("{line}");
        }
    }
}

impl Drop for Relay {
    /// SIGTERM, and a proper end: a relay that a play has upset does not get away with it.
    fn drop(&mut self) {
        let pid = self.process.id() as libc::pid_t;
        // SAFETY: kill takes no pointers, and the child is not reaped yet, so the id is its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let deadline = Instant::now() + LEAVE_MAX;
        let status = loop {
            match self.process.try_wait().expect("the child is ours") {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => break None,
                // std offers no wait with a deadline, so this one polls.
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        if status.is_none() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let proper = status.is_some_and(|status| status.success());
        if std::thread::panicking() || !proper {
            self.log.show_tail();
        }
        if !std::thread::panicking() {
            assert!(proper, "the relay ended with {status:?} after SIGTERM");
        }
    }
}
