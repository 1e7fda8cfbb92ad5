//! A child process of a play: its output read line by line, ended with the play.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::sync::watch;

/// Longer than the limits of the clients themselves, which then say what they waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Lines that a failed play shows of each output.
const TAIL_LINES: usize = 40;

/// No line that is shown is longer: a frame in hexadecimal may have two million letters.
const SHOWN_BYTES_MAX: usize = 300;

pub struct Program {
    name: String,
    child: Child,
    input: ChildStdin,
    pub stdout: Lines,
    pub stderr: Lines,
}

impl Program {
    /// Panics with one line if there is no such program: the play cannot be acted then.
    #[track_caller]
    pub fn start(name: &str, mut command: Command) -> Program {
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if text == "RUST_LOG" || text.starts_with("MOQ_") || text.starts_with("SHARDCAST_") {
                command.env_remove(&variable);
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("{:?}: {error}; run scripts/setup.sh", command.get_program())
        });
        let input = child.stdin.take().expect("piped");
        let stdout = Lines::of(child.stdout.take().expect("piped"));
        let stderr = Lines::of(child.stderr.take().expect("piped"));
        Program { name: name.to_owned(), child, input, stdout, stderr }
    }

    /// A line on its standard input. What became of it shows in its output.
    pub fn write(&mut self, line: impl Display) {
        let _ = writeln!(self.input, "{line}");
    }

    pub fn terminate(&self) {
        // SAFETY: kill takes no pointers, and the child is not reaped yet, so the id is its own.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        self.stdout.ended(&self.name).await;
        self.stderr.ended(&self.name).await;
        self.child.wait().expect("our own child")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            for (output, lines) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
                let lines = lines.so_far();
                for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
                    eprintln!("{} {output}: {}", self.name, shown(line));
                }
            }
        }
    }
}

/// The beginning of a line, for people.
pub fn shown(line: &str) -> &str {
    &line[..line.floor_char_boundary(SHOWN_BYTES_MAX)]
}

/// What one output has said so far, and a way to await what it says next.
#[derive(Clone)]
pub struct Lines {
    said: watch::Receiver<Said>,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    /// The pipe is read to its end whatever the play does: a full pipe would stop the child.
    fn of(pipe: impl Read + Send + 'static) -> Lines {
        let (writer, said) = watch::channel(Said::default());
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                writer.send_modify(|said| said.lines.push(line));
            }
            writer.send_modify(|said| said.ended = true);
        });
        Lines { said }
    }

    pub fn so_far(&self) -> Vec<String> {
        self.said.borrow().lines.clone()
    }

    pub fn count(&self) -> usize {
        self.said.borrow().lines.len()
    }

    /// The first line from number `from` on that is wanted.
    pub async fn find(&self, from: usize, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut said = self.said.clone();
        let mut read = from;
        let mut found = None;
        let search = said.wait_for(|said| {
            found = said.lines[read..].iter().find(|line| wanted(line)).cloned();
            read = said.lines.len();
            found.is_some() || said.ended
        });
        let searched = tokio::time::timeout(PATIENCE, search).await.is_ok();
        assert!(searched, "waited {PATIENCE:?} for {what}");
        found.unwrap_or_else(|| panic!("the output ended before {what}"))
    }

    async fn ended(&self, name: &str) {
        let mut said = self.said.clone();
        let end = said.wait_for(|said| said.ended);
        let ended = tokio::time::timeout(PATIENCE, end).await.is_ok();
        assert!(ended, "waited {PATIENCE:?} for {name} to end");
    }
}
