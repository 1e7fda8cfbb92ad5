//! `shardcast top` as people use it: the real binary beside a real relay, in a snapshot and on a terminal.

#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod client;
    pub mod process;
    pub mod relay;
}

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use support::client::{LITE_06, Peer, Role, Script};
use support::process::{Ended, Process, shardcast};
use support::relay::Relay;

const SEED: u64 = 0x0b5e_0000_0000_0709;

const INTERNAL: [&str; 2] = ["--internal-listen", "127.0.0.1:0"];

const SOON: Duration = Duration::from_secs(20);

/// How a page begins: in the upper left.
const NEXT_PAGE: &str = "\x1b[H";

fn top(args: &[&str]) -> Command {
    shardcast(&[&["top"], args].concat())
}

fn ended(command: Command) -> Ended {
    Process::spawn(command).ended(SOON)
}

/// Columns of the line that begins with these words.
#[track_caller]
fn columns<'a>(page: &'a str, begin: &str) -> Vec<&'a str> {
    let line = page.lines().find(|line| line.starts_with(begin));
    let line = line.unwrap_or_else(|| panic!("no {begin:?} in {page}"));
    line.strip_prefix(begin).expect("found by it").split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_shows_what_is_going_on() {
    // Whoever names a track writes on no terminal.
    const ODD: &str = "vid\x1b[2Jeo";
    let relay = Relay::prepared(2, &INTERNAL, |_| {}).await;
    let address = relay.internal().await.to_string();
    let publisher = Peer::connect_on(&relay, LITE_06, Role::Publisher, 0).await;
    let mut channel = publisher.announce("live/cam", &["video", ODD]);
    let mut viewers = Vec::new();
    for viewer in 0..3 {
        let mut peer = Peer::connect_on(&relay, LITE_06, Role::Viewer, viewer % 2).await;
        peer.sees("live/cam").await;
        let view = peer.subscribe("live/cam", "video").await.expect("a subscription");
        viewers.push((peer, view));
    }
    let odd = viewers[0].0.subscribe("live/cam", ODD).await.expect("a subscription");
    channel.wanted("video").await;

    let script = Script::new(SEED, 0, 1000, &[2000]);
    let snapshot = tokio::task::spawn_blocking(move || ended(top(&["--once", &address])));
    let publishing = async {
        for group in &script.groups {
            channel.publish_group("video", &script, group);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = tokio::select! {
        seen = snapshot => seen.expect("it ends"),
        () = publishing => panic!("it takes twenty seconds"),
    };
    assert_eq!((seen.code(), seen.stderr.as_str()), (0, ""));
    let page = &seen.stdout;
    assert!(page.starts_with(concat!("shardcast ", env!("CARGO_PKG_VERSION"), " at http://127.0")));
    assert!(page.lines().next().expect("a title").ends_with(", ready"), "{page}");
    assert_eq!(columns(page, "sessions ")[..5], ["4", "viewers", "3", "tracks", "2"], "{page}");
    for begin in ["in   ", "shard ", "cache "] {
        columns(page, begin);
    }
    // Fifty groups a second or what a busy machine makes of it, and three times as many to viewers.
    let rates = columns(page, "in   ");
    let (came, unit) = (rates[0].parse::<f64>().expect("a rate"), rates[1]);
    assert!(unit == "kbit/s" && (80.0..=1000.0).contains(&came), "{page}");
    let frames = |at: usize| rates[at].parse::<f64>().expect("a rate");
    let (came, left) = (frames(2), frames(7));
    assert!(came > 5.0 && (2.5 * came..3.5 * came).contains(&left), "{page}");
    assert!(columns(page, "added  p50 ")[0].parse::<f64>().is_ok_and(|p50| p50 > 0.0), "{page}");
    for shard in ["0 ", "1 "] {
        let columns = columns(page, shard);
        let busy = columns[0].strip_suffix('%').and_then(|busy| busy.parse::<f64>().ok());
        assert!(busy.is_some_and(|busy| 0.0 < busy && busy < 100.0), "{page}");
    }
    let video = columns(page, "live/cam video");
    assert_eq!((video[0], video[2]), ("3", "kbit/s"), "{page}");
    assert!(video[1].parse::<f64>().is_ok_and(|rate| rate > 80.0), "{page}");
    assert_eq!(columns(page, "live/cam vid\u{fffd}[2Jeo")[0], "1", "{page}");
    assert!(!page.contains('\x1b') && page.lines().all(|line| line.chars().count() <= 100));
    drop((viewers, odd));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_cannot_be_asked_is_named() {
    let relay = Relay::prepared(1, &INTERNAL, |_| {}).await;
    let (internal, public) = (relay.internal().await.to_string(), relay.address().to_string());
    // Where nobody has listened for long.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let nobody = nobody.expect("a free port").to_string();
    for (args, code, words) in [
        (&["--once", &nobody][..], 1, "--internal-listen?"),
        (&[&nobody], 2, "write --once"),
        (&["--once", &public], 1, "not a relay's --internal-listen"),
        (&["--once", "9090"], 2, "not an address with a port"),
        (&["--once", "https://127.0.0.1:1"], 2, "without TLS"),
        (&["--interval", "1ms"], 2, "every 500ms at most"),
        (&["--twice"], 2, "shardcast top --help"),
        (&[&internal], 2, "write --once"),
    ] {
        let ended = ended(top(args));
        assert_eq!((ended.code(), ended.stdout.as_str()), (code, ""), "{args:?} {ended:?}");
        assert!(ended.stderr.contains(words) && ended.stderr.lines().count() == 1, "{ended:?}");
    }
    // As the relay itself is told it.
    let mut named = top(&["--once", "--interval", "500ms"]);
    named.env("MOQ_INTERNAL_LISTEN", &internal);
    let ended = ended(named);
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert!(ended.stdout.contains(&internal));
}

/// A terminal, and the program that runs there.
struct Terminal {
    ours: File,
    theirs: OwnedFd,
    before: Vec<u8>,
    child: Child,
    shown: String,
}

impl Terminal {
    fn start(mut command: Command) -> Terminal {
        let (mut ours, mut theirs) = (0, 0);
        let size = libc::winsize { ws_row: 30, ws_col: 90, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: two live numbers and a live size; no name and no settings are wanted.
        let code = unsafe { libc::openpty(&mut ours, &mut theirs, null_mut(), null_mut(), &size) };
        assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: they are open, and nobody else's.
        let (ours, theirs) = unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
        let before = settings(&theirs);
        let end = || Stdio::from(theirs.try_clone().expect("a descriptor"));
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("it starts");
        Terminal { ours, theirs, before, child, shown: String::new() }
    }

    /// Reads until it shows this.
    #[track_caller]
    fn shows(&mut self, words: &str) {
        self.shows_after(0, words);
    }

    /// The same behind what it has shown before.
    #[track_caller]
    fn shows_after(&mut self, from: usize, words: &str) {
        let deadline = Instant::now() + SOON;
        while !self.shown[from..].contains(words) {
            assert!(Instant::now() < deadline, "no {words:?} in {:?}", self.shown);
            self.read(Duration::from_millis(100));
        }
    }

    fn read(&mut self, wait: Duration) -> bool {
        let mut ready =
            libc::pollfd { fd: self.ours.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live entry.
        let count = unsafe { libc::poll(&mut ready, 1, wait.as_millis() as libc::c_int) };
        let mut bytes = [0; 4096];
        let read = if count > 0 { self.ours.read(&mut bytes).unwrap_or(0) } else { 0 };
        self.shown.push_str(&String::from_utf8_lossy(&bytes[..read]));
        read > 0
    }

    fn types(&mut self, keys: &[u8]) {
        self.ours.write_all(keys).expect("somebody reads");
    }

    /// It ends well, and leaves the terminal as it was.
    #[track_caller]
    fn leaves(mut self) {
        let deadline = Instant::now() + SOON;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end: {:?}", self.shown);
            self.read(Duration::from_millis(20));
        };
        while self.read(Duration::from_millis(20)) {}
        assert!(status.success(), "{status} {:?}", self.shown);
        assert!(self.shown.starts_with("\x1b[?1049h"), "{:?}", self.shown);
        assert!(self.shown.ends_with("\x1b[?25h\x1b[?1049l"), "{:?}", self.shown);
        assert_eq!(settings(&self.theirs), self.before);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a terminal is set.
fn settings(terminal: &OwnedFd) -> Vec<u8> {
    // SAFETY: plain numbers, for which zero is a value.
    let mut termios: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: a live structure.
    assert_eq!(unsafe { libc::tcgetattr(terminal.as_raw_fd(), &mut termios) }, 0);
    let flags = [termios.c_iflag, termios.c_oflag, termios.c_cflag, termios.c_lflag];
    flags.iter().flat_map(|flags| flags.to_ne_bytes()).chain(termios.c_cc).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_left_as_it_was() {
    let relay = Relay::prepared(1, &INTERNAL, |_| {}).await;
    let internal = relay.internal().await.to_string();
    tokio::task::spawn_blocking(move || {
        for way in [Some(&b"q"[..]), Some(b"Q"), Some(b"\x03"), None] {
            let mut terminal = Terminal::start(top(&["--interval", "500ms", &internal]));
            terminal.shows("viewers");
            assert_ne!(settings(&terminal.theirs), terminal.before);
            // Other keys are for nobody, arrows among them, and the next page comes.
            terminal.types(b"x\x1b[A");
            let first = terminal.shown.len();
            terminal.shows_after(first, NEXT_PAGE);
            match way {
                Some(keys) => terminal.types(keys),
                None => {
                    // SAFETY: a child of ours that runs.
                    let code =
                        unsafe { libc::kill(terminal.child.id() as libc::pid_t, libc::SIGTERM) };
                    assert_eq!(code, 0);
                }
            }
            terminal.leaves();
        }
    })
    .await
    .expect("it is as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_ends_is_missed() {
    let relay = Relay::prepared(1, &INTERNAL, |_| {}).await;
    let internal = relay.internal().await.to_string();
    let terminal = tokio::task::spawn_blocking(move || {
        let mut terminal = Terminal::start(top(&["--interval", "500ms", &internal]));
        terminal.shows("viewers");
        terminal
    });
    let mut terminal = terminal.await.expect("it starts");
    relay.stop().await.expect_success();
    tokio::task::spawn_blocking(move || {
        terminal.shows("nobody answers at");
        terminal.types(b"q");
        terminal.leaves();
    })
    .await
    .expect("it ends");
}
