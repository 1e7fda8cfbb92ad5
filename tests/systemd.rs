//! What systemd makes of the relay: what it is told, read from a socket as its own, and the unit, by its own
//! tools.

#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod held;
    pub mod process;
}

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use shardcast::limits::{END_MAX, WATCH_INTERVAL};
use support::held::Held;
use support::process::{Process, shardcast};

const TOLD_WITHIN: Duration = Duration::from_secs(10);
const ENDED_WITHIN: Duration = Duration::from_secs(10);

/// What the unit's watchdog would have; from one sign of life to the next is half of it at most.
const WATCHDOG: Duration = Duration::from_secs(6);

/// Where systemd would listen, in a directory of its own.
struct Manager {
    root: PathBuf,
    socket: UnixDatagram,
}

impl Manager {
    fn new(name: &str) -> Manager {
        let root = std::env::temp_dir().join(format!("shardcast-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("a directory");
        let socket = UnixDatagram::bind(root.join("notify")).expect("a socket");
        Manager { root, socket }
    }

    fn starts(&self, args: &[&str]) -> Process {
        let mut command = shardcast(args);
        command.env("NOTIFY_SOCKET", self.root.join("notify"));
        command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        Process::spawn(command)
    }

    /// What it is told next, line by line. What it is to keep is let go of.
    fn told(&self, within: Duration) -> Option<Vec<String>> {
        let told = self.hears(within)?;
        if told.iter().any(|line| line.starts_with("FDSTORE")) {
            return self.told(within);
        }
        Some(told)
    }

    fn hears(&self, within: Duration) -> Option<Vec<String>> {
        let mut text = [0; 4096];
        self.socket.set_read_timeout(Some(within)).expect("a time");
        let len = self.socket.recv(&mut text).ok()?;
        let text = String::from_utf8(text[..len].to_vec()).expect("text");
        Some(text.lines().map(str::to_owned).collect())
    }

    #[track_caller]
    fn is_told(&self, line: &str, within: Duration) -> Vec<String> {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let told = self.told(left.max(Duration::from_millis(1)));
            let told = told.unwrap_or_else(|| panic!("not told {line} in {within:?}"));
            if told.iter().any(|told| told == line) {
                return told;
            }
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

#[test]
fn ready_alive_and_leaving() {
    let manager = Manager::new("ready");
    let mut relay = manager.starts(&["--listen", "127.0.0.1:0", "--shards", "1"]);
    let told = manager.told(TOLD_WITHIN).expect("the first word");
    assert_eq!(told[0], "READY=1");
    // By then everything is bound.
    let addr = relay.listening(TOLD_WITHIN);
    assert_eq!(told[1], format!("STATUS=1 shard at {addr}"));
    let mut http = TcpStream::connect(addr).expect("HTTP");
    http.write_all(b"GET /health HTTP/1.0\r\n\r\n").expect("a request");
    let mut answer = String::new();
    http.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with("ok\n"), "{answer}");

    for _ in 0..3 {
        assert_eq!(manager.told(WATCHDOG / 2).expect("a sign of life"), ["WATCHDOG=1"]);
    }
    relay.signal(libc::SIGTERM);
    let told = manager.is_told("STOPPING=1", TOLD_WITHIN);
    let extension = told.iter().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="));
    let extension = extension.expect("how long that may take").parse().expect("a number");
    assert!(Duration::from_micros(extension) >= END_MAX, "{told:?}");
    assert_eq!(relay.ended(ENDED_WITHIN).code(), 0);
}

#[test]
fn a_shard_that_hangs_is_not_alive() {
    let manager = Manager::new("alive");
    let relay = manager.starts(&["--listen", "127.0.0.1:0", "--shards", "2"]);
    manager.is_told("WATCHDOG=1", TOLD_WITHIN);
    let shard = Held::hold(relay.id(), "shard-1");
    // It may have answered the last question, and the one before is not asked for at once.
    let quiet_from = Instant::now() + 2 * WATCH_INTERVAL;
    let quiet_until = quiet_from + 2 * WATCH_INTERVAL;
    while let Some(left) = quiet_until.checked_duration_since(Instant::now()) {
        let told = manager.told(left.max(Duration::from_millis(1)));
        assert!(told.is_none() || Instant::now() < quiet_from, "{told:?}");
    }
    shard.let_go();
    manager.is_told("WATCHDOG=1", TOLD_WITHIN);
    relay.signal(libc::SIGTERM);
    assert_eq!(relay.ended(ENDED_WITHIN).code(), 0);
}

#[test]
fn who_does_not_start_is_not_ready() {
    let manager = Manager::new("refused");
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("it is bound").to_string();
    let relay = manager.starts(&["--listen", &addr]);
    assert_eq!(relay.ended(ENDED_WITHIN).code(), 1);
    assert_eq!(manager.told(Duration::from_millis(1)), None);
}

/// The journal reads in front of each line how much it matters, and `journalctl -p warning` shows the rest.
#[test]
fn the_journal_is_told_how_much_a_line_matters() {
    let args = ["--listen", "127.0.0.1:0", "--internal-listen", "0.0.0.0:0", "--shards", "1"];
    let said = |more: &[&str], name: fn(u64, u64) -> String| {
        let mut relay = Process::with_journal(shardcast(&[&args[..], more].concat()), name);
        relay.stderr_line("cache:", TOLD_WITHIN);
        relay.signal(libc::SIGTERM);
        let ended = relay.ended(ENDED_WITHIN);
        assert_eq!(ended.code(), 0);
        let is_read = ended.stderr.starts_with('<');
        assert_eq!(ended.stdout.is_empty(), is_read, "a welcome is for who sits there");
        ended.stderr.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let of_json = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("an object");
        line["level"].as_str().expect("a level").to_owned()
    };
    let of_text = |line: &str| line.split_whitespace().nth(1).expect("a level").to_owned();
    for (format, level) in [("text", &of_text as &dyn Fn(&str) -> String), ("json", &of_json)] {
        let lines = said(&["--log-format", format], |device, inode| format!("{device}:{inode}"));
        let mut levels = BTreeSet::new();
        for line in lines {
            let (priority, rest) = line.split_at(3);
            let level = level(rest);
            assert_eq!(priority, if level == "WARN" { "<4>" } else { "<6>" }, "{line}");
            levels.insert(level);
        }
        assert_eq!(levels, ["INFO", "WARN"].map(str::to_owned).into());
        // Somebody else's variable, that this one has inherited.
        for line in said(&["--log-format", format], |device, inode| format!("{device}:1{inode}")) {
            assert!(!line.starts_with('<'), "{line}");
        }
    }
    let wrong = shardcast(&["--linger", "soon"]);
    let wrong = Process::with_journal(wrong, |device, inode| format!("{device}:{inode}"));
    let ended = wrong.ended(ENDED_WITHIN);
    assert_eq!(ended.code(), 2);
    assert!(ended.stderr.starts_with("<3>shardcast: "), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/shardcast.service");
    std::fs::read_to_string(path).expect("the unit")
}

/// `systemd-analyze` on the unit with our binary where the package has it.
fn analyzed(name: &str, args: &[&str]) -> String {
    let root = std::env::temp_dir().join(format!("shardcast-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&root).expect("a directory");
    let path = root.join("shardcast.service");
    let unit = unit().replace("/usr/bin/shardcast", env!("CARGO_BIN_EXE_shardcast"));
    std::fs::write(&path, unit).expect("a file");
    let output = Command::new("systemd-analyze").args(args).arg(&path).output();
    let output = output.expect("systemd-analyze: scripts/setup.sh installs it");
    std::fs::remove_dir_all(&root).expect("what was written");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{args:?}: {text}");
    text
}

#[test]
fn the_unit_is_one() {
    let said = analyzed("verify", &["verify", "--man=no", "--recursive-errors=no"]);
    assert!(!said.contains("shardcast"), "{said}");
}

#[test]
fn the_unit_is_tight() {
    // In tenths; most services have more than nine.
    let said = analyzed("security", &["security", "--offline=yes", "--no-pager", "--threshold=20"]);
    println!("{said}");
    assert!(said.contains("Overall exposure level"), "{said}");
}

/// What the unit says of times fits what the relay does.
#[test]
fn the_unit_knows_our_times() {
    let unit = unit();
    let seconds = |key: &str| {
        let value = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let value = value.and_then(|value| value.strip_suffix('s')?.parse().ok());
        Duration::from_secs(value.unwrap_or_else(|| panic!("no {key} in seconds")))
    };
    assert!(seconds("TimeoutStopSec") > 2 * END_MAX);
    assert!(seconds("WatchdogSec") >= 4 * WATCH_INTERVAL);
    // The relay ends by itself where a shard hangs, and says which; the watchdog is for the rest.
    let hangs = WATCH_INTERVAL * shardcast::limits::HANGING_LOOKS_MAX;
    assert!(seconds("WatchdogSec") > hangs + shardcast::limits::LAST_WORDS_MAX);
}
