//! The real binary as a child process: its output collected, its end awaited with a limit.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// `shardcast` with none of the surrounding settings.
pub fn shardcast(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardcast"));
    command.args(args);
    without_settings(&mut command);
    command
}

/// The same, started by another program: `["setpriv", "--bounding-set=-ipc_lock"]`.
pub fn shardcast_under(wrapper: &[&str], args: &[&str]) -> Command {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(env!("CARGO_BIN_EXE_shardcast")).args(args);
    without_settings(&mut command);
    command
}

pub fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text == "RUST_LOG" || text.starts_with("MOQ_") || text.starts_with("SHARDCAST_") {
            command.env_remove(&name);
        }
    }
}

/// A child that is killed when the test lets go of it.
pub struct Process {
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// How a child ended and all that it said.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    #[track_caller]
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = Output::collect(child.stdout.take().expect("piped"));
        let stderr = Output::collect(child.stderr.take().expect("piped"));
        Self { child, stdout, stderr }
    }

    /// As systemd starts a service: what it says is read from a socket, which `name` makes a variable of by
    /// the socket's device and inode.
    #[track_caller]
    pub fn with_journal(mut command: Command, name: impl Fn(u64, u64) -> String) -> Self {
        let (journal, stderr) = UnixStream::pair().expect("two sockets");
        let stderr = OwnedFd::from(stderr);
        let socket =
            File::from(stderr.try_clone().expect("a socket")).metadata().expect("a socket");
        command.env("JOURNAL_STREAM", name(socket.dev(), socket.ino()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = Output::collect(child.stdout.take().expect("piped"));
        Self { child, stdout, stderr: Output::collect(journal) }
    }

    /// Waits until the relay says that it listens.
    #[track_caller]
    pub fn listening(&mut self, limit: Duration) -> SocketAddr {
        let line = self.stderr_line("listening addr=", limit);
        let addr = line
            .split_once("addr=")
            .and_then(|(_, rest)| rest.split_whitespace().next())
            .and_then(|addr| addr.parse().ok());
        addr.unwrap_or_else(|| panic!("no address in {line:?}"))
    }

    /// Waits for a line on standard error that contains `words`.
    #[track_caller]
    pub fn stderr_line(&mut self, words: &str, limit: Duration) -> String {
        self.line(|process| &mut process.stderr, words, limit)
    }

    /// Waits for a line on standard output that contains `words`. The two streams are two pipes:
    /// what was written first may be seen last.
    #[track_caller]
    pub fn stdout_line(&mut self, words: &str, limit: Duration) -> String {
        self.line(|process| &mut process.stdout, words, limit)
    }

    #[track_caller]
    fn line(&mut self, of: fn(&mut Self) -> &mut Output, words: &str, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        loop {
            // Asked first: all output of a child that has ended is then seen below.
            let ended = self.child.try_wait().expect("wait for our own child");
            if ended.is_some() {
                self.stdout.finish();
                self.stderr.finish();
            }
            let text = of(self).text();
            let mut lines = text.lines();
            if let Some(line) = lines.find(|line| line.contains(words)) {
                return line.to_owned();
            }
            let said = format!("{}{}", self.stdout.text(), self.stderr.text());
            if let Some(status) = ended {
                panic!("ended ({status}) without {words:?}: {said}");
            }
            assert!(Instant::now() < deadline, "no {words:?} in {limit:?}: {said}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub fn id(&self) -> libc::pid_t {
        self.child.id() as libc::pid_t
    }

    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: the child is not yet reaped, so its id is still its own.
        let code = unsafe { libc::kill(self.id(), signal) };
        assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
    }

    /// Waits for its end, which need not be that of what it says: others may have its pipes.
    #[track_caller]
    pub fn left(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for our own child") {
                return status;
            }
            assert!(start.elapsed() < limit, "still runs after {limit:?}: {}", self.stderr.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until it, or who has its pipe, has said something so many times.
    #[track_caller]
    pub fn stderr_lines(&self, words: &str, times: usize, limit: Duration) {
        let start = Instant::now();
        while self.stderr.text().lines().filter(|line| line.contains(words)).count() < times {
            assert!(start.elapsed() < limit, "no {words:?} in {limit:?}: {}", self.stderr.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    #[track_caller]
    pub fn ended(mut self, limit: Duration) -> Ended {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait for our own child") {
                break status;
            }
            let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
            assert!(start.elapsed() < limit, "still runs after {limit:?}: {stdout}{stderr}");
            std::thread::sleep(Duration::from_millis(5));
        };
        self.stdout.finish();
        self.stderr.finish();
        Ended { status, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// The exit code; a signal that killed it fails the test.
    #[track_caller]
    pub fn code(&self) -> i32 {
        let killed_by = self.status.signal();
        self.status
            .code()
            .unwrap_or_else(|| panic!("killed by signal {killed_by:?}: {}", self.stderr))
    }
}

/// A pipe read by a thread, so that a child with much to say never blocks.
struct Output {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn collect(pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let mut text = sink.lock().expect("no reader panics");
                text.push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
    }

    fn text(&self) -> String {
        self.text.lock().expect("no reader panics").clone()
    }
}
