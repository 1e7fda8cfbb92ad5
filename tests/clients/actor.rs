//! A client in another language as a play sees it. It can be asked to call the functions of
//! `tests/clients/browser/page.js` or `tests/clients/actor.py`, whose names and words are the same,
//! or those of the pages in `tests/clients/restart` and `tests/clients/player`.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use bytes::Bytes;
use moq_net::{Timescale, Timestamp};
use tokio::sync::OnceCell;

use super::program::{Lines, Program, shown};
use crate::support::client::{Frames, Script, ScriptedGroup};
use crate::support::relay::Relay;

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/demo-venv/bin/python");
const PYTHON_ACTOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/actor.py");

/// Each browser of all plays, with pages of one folder. They are never dropped: they end when their standard
/// input does, with us.
static DRIVERS: [OnceCell<Driver>; 2] = [const { OnceCell::const_new() }; 2];

/// The folder of a certificate with which pages come by HTTPS. Set before the first page, if at all.
pub static CERTIFICATES: OnceLock<PathBuf> = OnceLock::new();

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Browser {
    Chromium,
    Firefox,
}

impl Browser {
    const fn name(self) -> &'static str {
        match self {
            Browser::Chromium => "chromium",
            Browser::Firefox => "firefox",
        }
    }

    const fn needs(self) -> &'static [&'static str] {
        match self {
            Browser::Chromium => &["/usr/bin/chromium", "/usr/bin/certutil"],
            Browser::Firefox => {
                &["/usr/bin/firefox-esr", "/usr/bin/certutil", "/usr/bin/pulseaudio"]
            }
        }
    }
}

/// Numbers for calls and pages.
static NEXT: AtomicUsize = AtomicUsize::new(1);

struct Driver {
    program: Mutex<Program>,
    answers: Lines,
}

pub struct Actor {
    name: String,
    driver: Means,
}

enum Means {
    Shared(&'static Driver),
    Own(Driver),
}

impl Actor {
    /// A page of its own in Chromium.
    pub async fn page() -> Actor {
        Actor::page_in(Browser::Chromium, "browser").await
    }

    /// The same in a browser, of a folder, which all pages of one process have in common.
    pub async fn page_in(browser: Browser, folder: &str) -> Actor {
        let driver = DRIVERS[browser as usize].get_or_init(|| start_browser(browser, folder)).await;
        let name = format!("{}{}", browser.name(), NEXT.fetch_add(1, Ordering::Relaxed));
        Actor { name, driver: Means::Shared(driver) }
    }

    /// The same in a window of its own; the query tells the page what it is.
    pub async fn window_in(browser: Browser, folder: &str, query: &str) -> Actor {
        let window = Actor::page_in(browser, folder).await;
        window.tell(format!("window ?{query}")).await;
        window
    }

    /// A Node process with the script of a folder's page.
    pub async fn node(folder: &str) -> Actor {
        let folder = clients(folder);
        let mut command = Command::new("node");
        command.args([format!("{CLIENTS}/browser/node.mjs"), folder]);
        let driver = Driver::start("node", command).ready().await;
        Actor { name: "node".to_owned(), driver: Means::Own(driver) }
    }

    /// A Python process.
    pub fn python() -> Actor {
        let mut command = Command::new(PYTHON);
        command.arg(PYTHON_ACTOR);
        let driver = Driver::start("python", command);
        Actor { name: "python".to_owned(), driver: Means::Own(driver) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Dials the relay by its URL, knowing the hash of its certificate. Returns what the client
    /// says of the session.
    pub async fn connect(&self, relay: &Relay, path: &str) -> Result<String, String> {
        let (url, sha256) = (format!("{}/{path}", relay.url()), certificate_hash(relay));
        self.ask(format!("connect('{url}','{sha256}')")).await
    }

    /// Calls a function of the actor, and returns what that came to.
    pub async fn ask(&self, call: impl Display) -> Result<String, String> {
        let driver = match &self.driver {
            Means::Shared(driver) => driver,
            Means::Own(driver) => driver,
        };
        driver.ask(&self.name, call).await
    }

    /// A call that must succeed.
    #[track_caller]
    pub fn tell(&self, call: impl Display) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        let call = call.to_string();
        async move {
            let answer = self.ask(&call).await;
            answer
                .unwrap_or_else(|error| panic!("{caller}: {} {}: {error}", self.name, shown(&call)))
        }
    }

    pub async fn publish(&self, track: &str, script: &Script) {
        for group in &script.groups {
            self.publish_group(track, script, group).await;
        }
    }

    pub async fn publish_group(&self, track: &str, script: &Script, group: &ScriptedGroup) {
        let mut frames = String::new();
        for (index, frame) in group.frames.iter().enumerate() {
            let payload = hex(&script.payload(group.sequence, index));
            let _ = write!(frames, "[{},'{payload}'],", frame.ticks);
        }
        self.tell(format!("write('{track}',{},[{frames}])", group.sequence)).await;
    }

    /// Reads until every group of the script arrived, in any order, and compares all of it.
    #[track_caller]
    pub fn expect(&self, script: &Script, timestamps: bool) -> impl Future<Output = ()> {
        let who = format!("{}: {}", std::panic::Location::caller(), self.name);
        async move {
            let mut missing: BTreeSet<u64> =
                script.groups.iter().map(|group| group.sequence).collect();
            while !missing.is_empty() {
                let sequence = self.reads(&who, script, timestamps).await;
                assert!(missing.remove(&sequence), "{who}: group {sequence} arrived twice");
            }
        }
    }

    /// Reads what was cached when it came, if anything, and then one group that was not.
    #[track_caller]
    pub fn reads_up_to(&self, script: &Script, last: u64) -> impl Future<Output = ()> {
        let who = format!("{}: {}", std::panic::Location::caller(), self.name);
        async move { while self.reads(&who, script, false).await != last {} }
    }

    /// Reads a group, compares it with the script and returns its sequence.
    async fn reads(&self, who: &str, script: &Script, timestamps: bool) -> u64 {
        let told = self.tell("group()").await;
        assert_ne!(told, "end", "{who}: the track ended");
        let (sequence, frames) = parse_group(&told);
        assert!(script.find(sequence).is_some(), "{who}: group {sequence} was never sent");
        script.compare_from(who, sequence, 0, &frames, timestamps);
        sequence
    }
}

impl Drop for Actor {
    /// Closes the page; a process ends by itself. Shows what the page had to say if the play fails.
    fn drop(&mut self) {
        let Means::Shared(driver) = &self.driver else { return };
        let Ok(mut program) = driver.program.lock() else { return };
        program.write(format!("- {} quit", self.name));
        if std::thread::panicking() {
            let console = program.stderr.so_far();
            let prefix = format!("{}: ", self.name);
            for line in console.iter().filter(|line| line.starts_with(&prefix)) {
                eprintln!("{}", shown(line));
            }
        }
    }
}

impl Driver {
    #[track_caller]
    fn start(name: &str, command: Command) -> Driver {
        let program = Program::start(name, command);
        let answers = program.stdout.clone();
        Driver { program: Mutex::new(program), answers }
    }

    async fn ready(self) -> Driver {
        self.answers.find(0, "it to start", |line| line.starts_with("0 ok")).await;
        self
    }

    async fn ask(&self, actor: &str, call: impl Display) -> Result<String, String> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        let call = call.to_string();
        let from = self.answers.count();
        self.program.lock().expect("no play panics here").write(format!("{number} {actor} {call}"));
        let answers = |line: &str| line.split_once(' ').is_some_and(|(first, _)| first == number);
        let what = format!("{actor} to answer {}", shown(&call));
        let line = self.answers.find(from, &what, answers).await;
        let mut words = line.splitn(3, ' ').skip(1);
        let (ok, text) = (words.next() == Some("ok"), words.next().unwrap_or("").to_owned());
        if ok { Ok(text) } else { Err(text) }
    }
}

async fn start_browser(browser: Browser, folder: &str) -> Driver {
    for needed in browser.needs() {
        assert!(Path::new(needed).exists(), "no {needed}; run scripts/setup.sh");
    }
    let mut command = Command::new("node");
    command.args([format!("{CLIENTS}/browser/driver.mjs"), clients(folder)]);
    command.arg(browser.name()).args(CERTIFICATES.get());
    Driver::start(browser.name(), command).ready().await
}

/// The folder of a page whose clients are there, and what runs it.
fn clients(folder: &str) -> String {
    for of in ["browser", folder] {
        let needed = format!("{CLIENTS}/{of}/node_modules");
        assert!(Path::new(&needed).exists(), "no {needed}; run scripts/setup.sh");
    }
    format!("{CLIENTS}/{folder}")
}

/// What the relay's HTTP server tells of its certificate, in hexadecimal.
pub fn certificate_hash(relay: &Relay) -> String {
    let mut answer = String::new();
    let mut http = TcpStream::connect(relay.address()).expect("HTTP on the port of QUIC");
    http.write_all(b"GET /certificate.sha256 HTTP/1.0\r\n\r\n").expect("a request");
    http.read_to_string(&mut answer).expect("an answer");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    body.trim().to_owned()
}

/// `SEQUENCE TICKS/SCALE:HEX …`, with one word per frame.
pub fn parse_group(told: &str) -> (u64, Frames) {
    let mut words = told.split(' ');
    let sequence = words.next().and_then(|word| word.parse().ok());
    let sequence = sequence.unwrap_or_else(|| panic!("no sequence in {:?}", shown(told)));
    (sequence, words.map(parse_frame).collect())
}

fn parse_frame(word: &str) -> (Timestamp, Bytes) {
    let parse = || {
        let (stamp, payload) = word.split_once(':')?;
        let (ticks, scale) = stamp.split_once('/')?;
        let scale = Timescale::new(scale.parse().ok()?).ok()?;
        // A client that stamps by its own clock does so between the ticks.
        let ticks = ticks.parse::<f64>().ok()? as u64;
        Some((Timestamp::new(ticks, scale).ok()?, unhex(payload)?))
    };
    parse().unwrap_or_else(|| panic!("not a frame: {:?}", shown(word)))
}

pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| DIGITS[digit as usize] as char).collect()
}

fn unhex(text: &str) -> Option<Bytes> {
    let digit = |letter: u8| (letter as char).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}
