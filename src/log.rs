//! The log: lines go by a bounded queue to a thread of its own, which writes them to standard error.
//! Whoever logs never waits for whoever reads: what finds no room is lost, and the log says so once it
//! can be written again.
//!
//! There is one for the whole process, as there is one standard error. Where that is the journal of systemd,
//! each line says in front how much it matters, as sd-daemon(3) has it: the journal takes that off again, of
//! JSON too.

use std::array::from_fn;
use std::fmt::{self, Debug, Write as _};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing::field::Field;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, FormatFields};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::bucket::Bucket;
use crate::limits::{
    LOG_BYTES_MAX, LOG_FLUSH_MAX, LOG_LINES_MAX, LOG_LOSS_INTERVAL, LOGGED_TEXT_BYTES_MAX,
    PEER_LINES_BURST, PEER_LINES_PER_SECOND, SOURCE_LINES_BURST, SOURCE_LINES_PER_SECOND,
    SOURCES_HEARD,
};

#[derive(Debug, thiserror::Error)]
#[error("RUST_LOG is not a log filter: {0}; write for example RUST_LOG=info,shardcast=debug")]
pub struct BadFilter(String);

static LOG: OnceLock<Arc<Log>> = OnceLock::new();

/// How lines are written, by default as text.
static FORMAT: OnceLock<Format> = OnceLock::new();

/// Whether the journal reads them.
static IS_JOURNAL: OnceLock<bool> = OnceLock::new();

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    /// One object per line.
    Json,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Json => "json",
        }
    }
}

/// Has tracing write here, in this format. Call once.
pub fn listen(filter: EnvFilter, format: Format) {
    let _ = FORMAT.set(format);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(format);
    match format {
        Format::Text => {
            log.fmt_fields(fields()).with_ansi(io::stderr().is_terminal()).init();
        }
        Format::Json => log.json().flatten_event(true).init(),
    }
}

/// What is logged: what RUST_LOG says, if it says anything.
pub fn filter(level: Level) -> Result<EnvFilter, BadFilter> {
    match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => {
            EnvFilter::try_new(text).map_err(|error| BadFilter(error.to_string()))
        }
        // The executor's own debug lines are about its files, not about the relay.
        _ => Ok(EnvFilter::new(format!("{level},glommio=warn"))),
    }
}

/// Starts the thread that writes. Before that, and where it cannot start, lines are written where they
/// are said. Call once.
pub fn start() -> io::Result<()> {
    let _ = IS_JOURNAL.set(is_journal());
    let (log, queue) = Log::new(LOG_LINES_MAX, LOG_BYTES_MAX);
    let log = Arc::new(log);
    let writer = log.clone();
    let body = move || writer.write(&queue, io::stderr());
    thread::Builder::new().name("log".to_owned()).spawn(body)?;
    let _ = LOG.set(log);
    Ok(())
}

/// Whether standard error is what systemd says that it is, as sd_journal_stream_fd(3) has it: what a service
/// starts may write elsewhere.
fn is_journal() -> bool {
    let said = std::env::var("JOURNAL_STREAM").ok();
    let said = said.as_deref().and_then(|said| said.split_once(':'));
    let stderr = io::stderr().as_fd().try_clone_to_owned();
    let Ok(stderr) = stderr.and_then(|stderr| File::from(stderr).metadata()) else { return false };
    said.is_some_and(|(device, inode)| {
        device.parse() == Ok(stderr.dev()) && inode.parse() == Ok(stderr.ino())
    })
}

/// Whether systemd has started this, and nobody sits before it.
pub fn is_read_by_journal() -> bool {
    IS_JOURNAL.get() == Some(&true)
}

/// What a line of this level begins with: a priority of syslog, if somebody reads that.
pub fn priority(level: Level) -> &'static str {
    match level {
        _ if !is_read_by_journal() => "",
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Says one line, or some, whatever the level of the log.
pub fn line(text: &str) {
    let format = FORMAT.get().copied().unwrap_or_default();
    let mut lines = Lines { format, level: Level::ERROR };
    // Nobody is left to tell of a failure.
    let _ = match format {
        Format::Json => lines.write_all(object("ERROR", text).as_bytes()),
        Format::Text => {
            text.lines().try_for_each(|line| lines.write_all(format!("{line}\n").as_bytes()))
        }
    };
}

/// A line as tracing writes those in JSON.
fn object(level: &str, text: &str) -> String {
    let mut now = String::new();
    // A clock before 1970 has no time to show.
    let _ = SystemTime.format_time(&mut format::Writer::new(&mut now));
    let line = serde_json::json!({
        "timestamp": now, "level": level, "message": text, "target": "shardcast",
    });
    format!("{line}\n")
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

impl MakeWriter<'_> for Format {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        Lines { format: *self, level: Level::INFO }
    }

    fn make_writer_for(&self, line: &Metadata<'_>) -> Lines {
        Lines { format: *self, level: *line.level() }
    }
}

/// What tracing writes to: lines of one level.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    format: Format,
    level: Level,
}

impl Write for Lines {
    /// One line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut whole = priority(self.level).as_bytes().to_vec();
        match self.format {
            Format::Text => whole.extend_from_slice(line),
            Format::Json => whole.extend_from_slice(escaped(line).as_bytes()),
        }
        match LOG.get() {
            Some(log) => log.take(whole),
            None => io::stderr().write_all(&whole)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// In JSON what a terminal would take for a command can stand as it is. Here it does not.
fn escaped(line: &[u8]) -> String {
    let mut escaped = String::with_capacity(line.len());
    for c in String::from_utf8_lossy(line).trim_end_matches('\n').chars() {
        match c.is_control() {
            // Nowhere but within a string.
            true => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => escaped.push(c),
        }
    }
    escaped.push('\n');
    escaped
}

/// How tracing writes what a line says: as it stands, but for what would make a terminal or a reader of
/// lines see something else. Much of it is text of peers.
fn fields() -> impl for<'a> FormatFields<'a> + 'static {
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
    /// By a hash of where they come from; none before the first of them.
    sources: Option<Box<[Bucket; SOURCES_HEARD]>>,
    /// Lines since the last one that was said.
    unsaid: u64,
}

impl Quota {
    /// Whether a line may be said, and how many were not before it. A source that causes many is bounded for
    /// itself, so that others are still heard; those whose hashes are alike share.
    pub fn take(&mut self, now: Instant, source: Option<u64>) -> Option<u64> {
        let mut of_source = source.map(|hash| {
            let at = hash as usize % SOURCES_HEARD;
            &mut self.sources.get_or_insert_with(|| from_fn(|_| Bucket::default()).into())[at]
        });
        let (rate, burst) = (SOURCE_LINES_PER_SECOND as f64, SOURCE_LINES_BURST as f64);
        let heard = |bucket: &mut Bucket| bucket.fill(rate, burst, now) >= 1.0;
        let left = self.lines.fill(PEER_LINES_PER_SECOND as f64, PEER_LINES_BURST as f64, now);
        if left < 1.0 || !of_source.as_deref_mut().is_none_or(heard) {
            self.unsaid += 1;
            return None;
        }
        self.lines.take(1.0);
        of_source.into_iter().for_each(|bucket| bucket.take(1.0));
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// What a peer wrote, as much of it as a line takes with what is escaped in it.
pub fn shortened(text: &str) -> &str {
    /// As in `\u{202e}`.
    const ESCAPED_BYTES: usize = 8;
    let mut room = LOGGED_TEXT_BYTES_MAX;
    for (at, c) in text.char_indices() {
        let plain = c.is_alphanumeric() || c.is_ascii_punctuation() || c == ' ';
        match room.checked_sub(if plain { c.len_utf8() } else { ESCAPED_BYTES }) {
            Some(left) => room = left,
            None => return &text[..at],
        }
    }
    text
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

    fn take(&self, line: Vec<u8>) {
        let len = line.len();
        let before = self.bytes.fetch_add(len, Ordering::Relaxed);
        let fits = before + len <= self.bytes_max;
        if !fits || self.entries.try_send(Entry::Line(line)).is_err() {
            self.bytes.fetch_sub(len, Ordering::Relaxed);
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
        const WORDS: &str = "lines were lost because standard error was not read";
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let line = match FORMAT.get() {
            Some(Format::Json) => object("WARN", &format!("{WORDS}: {lost}")),
            _ => {
                let mut line = String::new();
                // As tracing begins its lines; a clock before 1970 has no time to show.
                let _ = SystemTime.format_time(&mut format::Writer::new(&mut line));
                line + &format!("  WARN shardcast::log: {WORDS} lost={lost}\n")
            }
        };
        let line = format!("{}{line}", priority(Level::WARN));
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
            self.log.take(line.to_vec());
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
        assert!((0..PEER_LINES_BURST).all(|_| quota.take(now, None) == Some(0)));
        assert!((0..10).all(|_| quota.take(now, None).is_none()));
        now += Duration::from_secs(1);
        assert_eq!(quota.take(now, None), Some(10));
        assert!((1..PEER_LINES_PER_SECOND).all(|_| quota.take(now, None) == Some(0)));
        assert_eq!(quota.take(now, None), None);
        // However often it is asked for.
        let mut said = 0;
        for _ in 0..10_000 {
            now += Duration::from_micros(100);
            said += u64::from(quota.take(now, None).is_some());
        }
        assert!(said.abs_diff(PEER_LINES_PER_SECOND) <= 1, "{said}");
    }

    #[test]
    fn what_peers_wrote_is_cut_to_what_a_line_takes() {
        assert_eq!(shortened("live/cam"), "live/cam");
        assert_eq!(shortened(&"a".repeat(1000)).len(), LOGGED_TEXT_BYTES_MAX);
        for text in ["\x1b".repeat(1000), "\u{202e}".repeat(1000), "ä".repeat(1000)] {
            let shown = format!("{:?}", shortened(&text));
            assert!(shown.len() <= LOGGED_TEXT_BYTES_MAX + 2, "{shown}");
        }
    }

    #[test]
    fn a_source_that_causes_many_lines_does_not_silence_others() {
        let mut quota = Quota::default();
        let now = Instant::now();
        let loud = (0..PEER_LINES_BURST).filter(|_| quota.take(now, Some(1)).is_some()).count();
        assert_eq!(loud as u64, SOURCE_LINES_BURST);
        assert_eq!(quota.take(now, Some(2)), Some(PEER_LINES_BURST - SOURCE_LINES_BURST));
        assert_eq!(quota.take(now, None), Some(0));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told() {
        let scene = Scene::new(2, 1000);
        scene.hangs(b"first\n");
        (0..5).for_each(|n| scene.log.take(format!("{n}\n").into_bytes()));
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
        scene.log.take(vec![b'y'; 60]);
        scene.log.take(b"short\n".to_vec());
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
            scene.log.take(b"second\n".to_vec());
            let begun = Instant::now();
            scene.log.flush(patience);
            assert!(begun.elapsed() >= patience);
        }
        let scene = Scene::new(10, 1000);
        scene.lets.send(true).unwrap();
        scene.log.take(b"first\n".to_vec());
        scene.log.flush(Duration::from_secs(60));
        assert_eq!(scene.shown.try_recv().unwrap(), "first\n");
    }

    #[test]
    fn a_line_that_cannot_be_written_is_lost_and_told_of_later() {
        let scene = Scene::new(10, 1000);
        // The line, and the line that tells of it.
        scene.lets.send(false).unwrap();
        scene.lets.send(false).unwrap();
        scene.log.take(b"first\n".to_vec());
        scene.log.flush(Duration::from_secs(60));
        let shown = scene.lets(1);
        assert!(shown[0].ends_with(" lost=1\n"), "{shown:?}");
        scene.log.take(b"second\n".to_vec());
        assert_eq!(scene.lets(1), ["second\n"]);
    }
}
