//! The log: lines go by a bounded queue to a thread of its own, which writes them to standard error.
//! Whoever logs never waits for whoever reads: what finds no room is lost, and the log says so once it
//! can be written again.
//!
//! There is one for the whole process, as there is one standard error.

use std::fmt::{self, Debug, Write as _};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, FormatFields};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::bucket::Bucket;
use crate::limits::{
    LOG_BYTES_MAX, LOG_FLUSH_MAX, LOG_LINES_MAX, LOG_LOSS_INTERVAL, PEER_LINES_BURST,
    PEER_LINES_PER_SECOND,
};

static LOG: OnceLock<Arc<Log>> = OnceLock::new();

/// Starts the thread that writes. Before that, and where it cannot start, lines are written where they
/// are said. Call once.
pub fn start() -> io::Result<()> {
    let (log, queue) = Log::new(LOG_LINES_MAX, LOG_BYTES_MAX);
    let log = Arc::new(log);
    let writer = log.clone();
    let body = move || writer.write(&queue, io::stderr());
    thread::Builder::new().name("log".to_owned()).spawn(body)?;
    let _ = LOG.set(log);
    Ok(())
}

/// Says one line, whatever the level of the log.
pub fn line(text: &str) {
    // Nobody is left to tell of a failure.
    let _ = Lines.write_all(format!("{text}\n").as_bytes());
}

/// Waits until what was said so far is written, and no longer than the end of a process may wait for
/// that.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush(LOG_FLUSH_MAX);
    }
}

/// Writes one line past the queue, for a process that is about to end and may not allocate. Waits no
/// longer than [`flush`] for whoever reads.
pub fn last_line(line: &[u8]) {
    let mut stderr = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one such structure, which outlives the call.
    let ready = unsafe { libc::poll(&mut stderr, 1, LOG_FLUSH_MAX.as_millis() as libc::c_int) };
    if ready > 0 {
        // SAFETY: as many readable bytes. A pipe that is ready takes so few at once; nobody is left to
        // tell of a failure.
        unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
    }
}

/// What tracing writes to.
#[derive(Clone, Copy, Debug)]
pub struct Lines;

impl Write for Lines {
    /// One line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match LOG.get() {
            Some(log) => log.take(line),
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        Lines
    }
}

/// How tracing writes what a line says: as it stands, but for what would make a terminal or a reader of
/// lines see something else. Much of it is text of peers.
pub fn fields() -> impl for<'a> FormatFields<'a> + 'static {
    let field = |out: &mut format::Writer<'_>, field: &Field, value: &dyn Debug| {
        match field.name() {
            "message" => {}
            name => write!(out, "{name}=")?,
        }
        write!(Escaping(out), "{value:?}")
    };
    format::debug_fn(field).delimited(" ")
}

struct Escaping<W>(W);

impl<W: fmt::Write> fmt::Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let mut rest = part.chars();
            match rest.next_back() {
                Some(last) if last.is_control() => {
                    self.0.write_str(rest.as_str())?;
                    write!(self.0, "{}", last.escape_default())?;
                }
                _ => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// How much may be said of what others cause: so many lines at once, and so many a second after that.
#[derive(Debug, Default)]
pub struct Quota {
    lines: Bucket,
    /// Lines since the last one that was said.
    unsaid: u64,
}

impl Quota {
    /// Whether a line may be said, and how many were not before it.
    pub fn take(&mut self, now: Instant) -> Option<u64> {
        let left = self.lines.fill(PEER_LINES_PER_SECOND as f64, PEER_LINES_BURST as f64, now);
        if left < 1.0 {
            self.unsaid += 1;
            return None;
        }
        self.lines.take(1.0);
        Some(std::mem::take(&mut self.unsaid))
    }
}

enum Entry {
    Line(Vec<u8>),
    /// Somebody waits for all that was said before.
    Flush(Sender<()>),
}

struct Log {
    entries: Sender<Entry>,
    /// Of lines that wait.
    bytes: AtomicUsize,
    bytes_max: usize,
    /// Lines that nobody was told of.
    lost: AtomicU64,
}

impl Log {
    fn new(lines_max: usize, bytes_max: usize) -> (Log, Receiver<Entry>) {
        let (entries, queue) = bounded(lines_max);
        let log = Log { entries, bytes: AtomicUsize::new(0), bytes_max, lost: AtomicU64::new(0) };
        (log, queue)
    }

    fn take(&self, line: &[u8]) {
        let before = self.bytes.fetch_add(line.len(), Ordering::Relaxed);
        let fits = before + line.len() <= self.bytes_max;
        if !fits || self.entries.try_send(Entry::Line(line.to_vec())).is_err() {
            self.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let (written, done) = bounded(1);
        if self.entries.send_deadline(Entry::Flush(written), deadline).is_ok() {
            let _ = done.recv_deadline(deadline);
        }
    }

    /// Writes what is said, for as long as anybody may say something.
    fn write(&self, queue: &Receiver<Entry>, mut out: impl Write) {
        let mut told_at: Option<Instant> = None;
        for entry in queue {
            match entry {
                Entry::Line(line) => {
                    // What cannot be written is as lost as what found no room.
                    if out.write_all(&line).is_err() {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                    }
                    self.bytes.fetch_sub(line.len(), Ordering::Relaxed);
                }
                Entry::Flush(written) => {
                    let _ = written.try_send(());
                }
            }
            let is_due = queue.is_empty()
                || told_at.is_none_or(|told_at| told_at.elapsed() >= LOG_LOSS_INTERVAL);
            if is_due && self.lost.load(Ordering::Relaxed) > 0 {
                told_at = Some(Instant::now());
                self.tell_loss(&mut out);
            }
        }
    }

    fn tell_loss(&self, out: &mut impl Write) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let mut line = String::new();
        // As tracing begins its lines; a clock before 1970 has no time to show.
        let _ = SystemTime.format_time(&mut format::Writer::new(&mut line));
        line.push_str(&format!(
            "  WARN shardcast::log: lines were lost because standard error was not read lost={lost}\n"
        ));
        if out.write_all(line.as_bytes()).is_err() {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes one line whenever it is let, and shows it.
    struct Slow {
        lets: mpsc::Receiver<bool>,
        shown: mpsc::Sender<String>,
    }

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            if !self.lets.recv().unwrap_or(false) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.shown.send(String::from_utf8_lossy(line).into_owned()).unwrap();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Scene {
        log: &'static Log,
        lets: mpsc::Sender<bool>,
        shown: mpsc::Receiver<String>,
    }

    impl Scene {
        fn new(lines_max: usize, bytes_max: usize) -> Scene {
            let (log, queue) = Log::new(lines_max, bytes_max);
            let log: &'static Log = Box::leak(Box::new(log));
            let (lets, let_through) = mpsc::channel();
            let (show, shown) = mpsc::channel();
            thread::spawn(move || log.write(&queue, Slow { lets: let_through, shown: show }));
            Scene { log, lets, shown }
        }

        fn lets(&self, lines: usize) -> Vec<String> {
            (0..lines).for_each(|_| self.lets.send(true).unwrap());
            (0..lines).map(|_| self.shown.recv().unwrap()).collect()
        }

        /// Waits until the writer hangs in a line, and the rest waits behind it.
        fn hangs(&self, line: &[u8]) {
            self.log.take(line);
            while !self.log.entries.is_empty() {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn text_of_peers_stays_on_its_line() {
        let mut out = String::new();
        write!(Escaping(&mut out), "a\nb\x1b[31m\u{9b}\u{7f} ä/\u{200d}\r").unwrap();
        assert_eq!(out, "a\\nb\\u{1b}[31m\\u{9b}\\u{7f} ä/\u{200d}\\r");
    }

    #[test]
    fn what_others_cause_is_said_so_often_and_no_more() {
        let mut now = Instant::now();
        let mut quota = Quota::default();
        assert!((0..PEER_LINES_BURST).all(|_| quota.take(now) == Some(0)));
        assert!((0..10).all(|_| quota.take(now).is_none()));
        now += Duration::from_secs(1);
        assert_eq!(quota.take(now), Some(10));
        assert!((1..PEER_LINES_PER_SECOND).all(|_| quota.take(now) == Some(0)));
        assert_eq!(quota.take(now), None);
        // However often it is asked for.
        let mut said = 0;
        for _ in 0..10_000 {
            now += Duration::from_micros(100);
            said += u64::from(quota.take(now).is_some());
        }
        assert!(said.abs_diff(PEER_LINES_PER_SECOND) <= 1, "{said}");
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told() {
        let scene = Scene::new(2, 1000);
        scene.hangs(b"first\n");
        (0..5).for_each(|n| scene.log.take(format!("{n}\n").as_bytes()));
        let shown = scene.lets(4);
        assert_eq!(shown[0], "first\n");
        // Told at once, and then what had room.
        assert!(shown[1].ends_with(" lost=3\n"), "{shown:?}");
        assert_eq!(shown[2..], ["0\n", "1\n"]);
        scene.hangs(b"second\n");
        assert_eq!(scene.lets(1), ["second\n"]);
    }

    #[test]
    fn long_lines_take_the_room_of_many() {
        let scene = Scene::new(1000, 100);
        scene.hangs(&[b'x'; 60]);
        scene.log.take(&[b'y'; 60]);
        scene.log.take(b"short\n");
        let shown = scene.lets(3);
        assert!(shown[1].ends_with(" lost=1\n"), "{shown:?}");
        assert_eq!(shown[2], "short\n");
    }

    #[test]
    fn a_log_that_hangs_is_waited_for_no_longer_than_said() {
        let patience = Duration::from_millis(50);
        for room in [1, 1000] {
            let scene = Scene::new(room, 1000);
            scene.hangs(b"first\n");
            scene.log.take(b"second\n");
            let begun = Instant::now();
            scene.log.flush(patience);
            assert!(begun.elapsed() >= patience);
        }
        let scene = Scene::new(10, 1000);
        scene.lets.send(true).unwrap();
        scene.log.take(b"first\n");
        scene.log.flush(Duration::from_secs(60));
        assert_eq!(scene.shown.try_recv().unwrap(), "first\n");
    }

    #[test]
    fn a_line_that_cannot_be_written_is_lost_and_told_of_later() {
        let scene = Scene::new(10, 1000);
        // The line, and the line that tells of it.
        scene.lets.send(false).unwrap();
        scene.lets.send(false).unwrap();
        scene.log.take(b"first\n");
        scene.log.flush(Duration::from_secs(60));
        let shown = scene.lets(1);
        assert!(shown[0].ends_with(" lost=1\n"), "{shown:?}");
        scene.log.take(b"second\n");
        assert_eq!(scene.lets(1), ["second\n"]);
    }
}
