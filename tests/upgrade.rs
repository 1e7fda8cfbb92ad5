//! One process takes over from another: real ones, whose program is replaced, fails, hangs and dies at every
//! step, with clients that stay where they are.

#[allow(dead_code, reason = "each test needs a part of what all share")]
mod clients {
    pub mod actor;
    pub mod program;
}
#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod camera;
    pub mod client;
    pub mod http;
    pub mod init;
    pub mod manager;
    pub mod process;
    pub mod raw;
    pub mod relay;
}

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use clients::actor::{Actor, Browser};
use moq_net::{Hop, Timestamp, origin, track};
use moq_tokio::{Connection, connect};
use quinn_proto::Dir;
use serde_json::Value;
use shardcast::limits::{END_MAX, UPGRADE_PROVEN_AFTER, UPGRADE_STEP_MAX};
use shardcast::wire::{Setup, UniType, Version};
use support::camera::{TRACK, is_group, subscribe, viewing_at};
use support::client::{PATIENCE, within};
use support::http::get;
use support::init::Init;
use support::manager::Manager;
use support::process::{Process, shardcast, without_settings};
use support::raw::Raw;
use tokio::sync::watch;
use tokio::task::JoinSet;

const LISTENS_WITHIN: Duration = Duration::from_secs(10);

/// From a word of a client to the answer that its connection is forgotten.
const TOLD_WITHIN: Duration = Duration::from_millis(100);

/// Processes pin threads, and plays measure time.
static STAGE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A relay with a program of its own, and all processes that come of it.
struct Play {
    directory: PathBuf,
    first: Process,
    address: SocketAddr,
    /// Those that have taken over, the newest last.
    heirs: Vec<libc::pid_t>,
    _stage: tokio::sync::MutexGuard<'static, ()>,
}

impl Play {
    async fn begin(name: &str, settings: &str) -> Play {
        let stage = STAGE.lock().await;
        let name = format!("shardcast-upgrade-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("a directory");
        fs::copy(env!("CARGO_BIN_EXE_shardcast"), directory.join("shardcast")).expect("a copy");
        set(&directory, settings);
        let mut first = Self::starts(&directory);
        let address = first.listening(LISTENS_WITHIN);
        first.stderr_line("sessions and windows", LISTENS_WITHIN);
        Play { directory, first, address, heirs: Vec::new(), _stage: stage }
    }

    fn starts(directory: &Path) -> Process {
        let mut command = Command::new(directory.join("shardcast"));
        without_settings(&mut command);
        command.env("RUNTIME_DIRECTORY", directory.join("run")).arg(directory.join("relay.toml"));
        command.args(["--auth-public", "**", "--state-dir"]).arg(directory.join("state"));
        Process::spawn(command)
    }

    /// At the same address, as whoever supervises it does.
    fn begins_again(&mut self, settings: &str) {
        self.sets(&format!("listen.bind = '{}'\n{settings}", self.address));
        self.first = Self::starts(&self.directory);
        self.first.listening(LISTENS_WITHIN);
    }

    /// The next process finds these settings.
    fn sets(&self, settings: &str) {
        set(&self.directory, settings);
    }

    fn asks(&self, args: &[&str]) -> Command {
        let mut command = shardcast(&["upgrade"]);
        command.args(args).env("RUNTIME_DIRECTORY", self.directory.join("run"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Where operators are answered.
    fn internal(&mut self) -> SocketAddr {
        let line = self.first.stderr_line("kind=internal", LISTENS_WITHIN);
        let address = line.split("addr=").nth(1).and_then(|rest| rest.split(' ').next());
        address.expect("an address").parse().expect("an address")
    }

    /// What the kernel has dropped at all sockets of the relay since the first process has bound them.
    fn kernel_drops(&self) -> u64 {
        let port = format!(":{:04X}", self.address.port());
        let table = fs::read_to_string("/proc/net/udp").expect("a table");
        let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ours: Vec<u64> = rows
            .filter(|row| row[1].ends_with(&port))
            .map(|row| row.last().expect("a number").parse().expect("a number"))
            .collect();
        assert_eq!(ours.len(), 4, "two rows of two sockets");
        ours.iter().sum()
    }

    /// The process that has taken over.
    #[track_caller]
    fn upgrades(&mut self) -> libc::pid_t {
        let heir = self.has_another(&["--wait"]);
        self.heirs.push(heir);
        heir
    }

    /// The process that is to take over.
    #[track_caller]
    fn begins_an_upgrade(&self) -> libc::pid_t {
        self.has_another(&[])
    }

    #[track_caller]
    fn has_another(&self, args: &[&str]) -> libc::pid_t {
        let Output { status, stdout, stderr } = self.asks(args).output().expect("it runs");
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{stderr}{}", self.first.stderr());
        process_in(&stdout)
    }

    /// What is said instead, in one line.
    #[track_caller]
    fn is_refused(&self) -> String {
        Self::refuses(self.asks(&["--wait"]))
    }

    #[track_caller]
    fn refuses(mut asks: Command) -> String {
        let Output { status, stderr, .. } = asks.output().expect("it runs");
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        stderr
    }

    /// Another program has the place of the relay's.
    fn replace(&self, program: &str) {
        let path = self.directory.join("shardcast");
        let _ = fs::rename(&path, self.directory.join("shardcast.good"));
        fs::write(&path, program).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("a mode");
    }

    fn restore(&self) {
        let good = self.directory.join("shardcast.good");
        fs::rename(good, self.directory.join("shardcast")).expect("it is there");
    }

    /// Somebody who stays where he is, whatever he is asked. He has been answered: before the end of his handshake
    /// is acknowledged he repeats that, and a packet of a handshake is no reason for a stateless reset.
    async fn client(&self) -> Client {
        let raw = Raw::introduced(self.address, Version::Lite06).await;
        let client = Client { raw };
        client.is_served().await;
        client
    }

    /// New clients and requests find somebody.
    async fn serves(&self) {
        self.client().await.raw.close().await;
        let answer = get(self.address, "/health").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn set(directory: &Path, settings: &str) {
    let bind = match settings.contains("listen.bind") {
        true => "",
        false => "listen.bind = '127.0.0.1:0'\n",
    };
    fs::write(directory.join("relay.toml"), bind.to_owned() + settings).expect("a file");
}

/// The process that a line of `shardcast upgrade` is about.
#[track_caller]
fn process_in(said: &str) -> libc::pid_t {
    let id = said.strip_prefix("process ").and_then(|rest| rest.split(' ').next());
    id.and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{said:?}"))
}

struct Client {
    raw: Raw,
}

impl Client {
    /// He says something, if nothing that he had said before has been answered yet, and is told that his
    /// connection is forgotten.
    async fn is_told(&self) {
        let said = Instant::now();
        self.raw.try_open(Dir::Bi, &subscribe(Version::Lite06, "nobody/has"), false);
        let lost = self.raw.lost("somebody who is forgotten").await;
        assert!(lost.reason.contains("reset"), "{lost:?}");
        let took = lost.at.saturating_duration_since(said);
        println!("told after {took:?}");
        assert!(took < TOLD_WITHIN, "{took:?}");
    }

    /// For something that nobody has.
    async fn asks(&self) -> u64 {
        self.raw.open(Dir::Bi, &subscribe(Version::Lite06, "nobody/has"), false).await
    }

    /// He is answered.
    async fn is_served(&self) {
        let asked = self.asks().await;
        self.raw.stream_until("an answer", asked, |stream| stream.end.is_some()).await;
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        for heir in &self.heirs {
            let program = fs::read_link(format!("/proc/{heir}/exe"));
            if program.is_ok_and(|program| program.starts_with(&self.directory)) {
                // SAFETY: takes plain numbers; its program is one of this play's own.
                unsafe { libc::kill(*heir, libc::SIGKILL) };
            }
        }
        if std::thread::panicking() {
            eprintln!("{}", self.first.stderr());
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Whether a process is there, and not only its name.
fn lives(process: libc::pid_t) -> bool {
    let mut status = String::new();
    let file = fs::File::open(format!("/proc/{process}/stat"));
    file.is_ok_and(|mut file| file.read_to_string(&mut status).is_ok())
        && !status.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

async fn is_gone(process: libc::pid_t, within: Duration) {
    let begun = Instant::now();
    while lives(process) {
        assert!(begun.elapsed() < within, "process {process} is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn signal(process: libc::pid_t, signal: libc::c_int) {
    // SAFETY: takes plain numbers; the process is one of a play that lasts.
    assert_eq!(unsafe { libc::kill(process, signal) }, 0, "process {process} is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_after_the_other_takes_over() {
    for shards in [1, 2] {
        let mut play = Play::begin("chain", &format!("shards = {shards}")).await;
        let mut before = play.first.id();
        for _ in 0..3 {
            play.serves().await;
            let begun = Instant::now();
            let heir = play.upgrades();
            play.serves().await;
            let said = play.is_refused();
            assert!(said.contains("this process is new"), "{said}");
            is_gone_or_waited(&mut play.first, before).await;
            // Nobody is left to stay for but the new process.
            assert!(begun.elapsed() >= UPGRADE_PROVEN_AFTER, "{:?}", begun.elapsed());
            before = heir;
            // It has to have heard that.
            play.first.stderr_lines(
                "the process before this one is gone",
                play.heirs.len(),
                LISTENS_WITHIN,
            );
        }
        signal(before, libc::SIGTERM);
        is_gone(before, LISTENS_WITHIN).await;
        let said = play.first.stderr();
        assert!(!said.contains(" WARN "), "nothing is out of order: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_serves_its_own_clients_while_both_live() {
    let mut play = Play::begin("both", "shards = 2").await;
    let mut old = Vec::new();
    for _ in 0..4 {
        old.push(play.client().await);
    }
    let heir = play.upgrades();
    let new = play.client().await;
    for client in old.iter().chain([&new]) {
        client.is_served().await;
    }
    let said = play.is_refused();
    assert!(said.contains("still has sessions"), "{said}");
    // The last that leaves takes the process with it.
    while let Some(client) = old.pop() {
        client.is_served().await;
        assert!(lives(play.first.id()));
        client.raw.close().await;
    }
    assert!(play.first.left(LISTENS_WITHIN).success());
    new.is_served().await;
    assert!(lives(heir));
    play.upgrades();
    play.serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_has_taken_over_and_dies_is_replaced_by_the_one_before() {
    let mut play = Play::begin("dies", "shards = 2").await;
    let stays = play.client().await;
    for _ in 0..3 {
        let heir = play.upgrades();
        let moved = play.client().await;
        signal(heir, libc::SIGKILL);
        play.first.stderr_lines("this one goes on", play.heirs.len(), LISTENS_WITHIN);
        moved.is_told().await;
        stays.is_served().await;
        play.serves().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stayed_with_a_process_that_is_killed_is_told() {
    let mut play = Play::begin("killed", "shards = 2").await;
    let mut stay = Vec::new();
    for _ in 0..8 {
        stay.push(play.client().await);
    }
    play.upgrades();
    let moved = play.client().await;
    signal(play.first.id(), libc::SIGKILL);
    play.first.left(LISTENS_WITHIN);
    for client in &stay {
        client.is_told().await;
    }
    moved.is_served().await;
    play.first.stderr_lines("the process before this one is gone", 1, LISTENS_WITHIN);
    play.upgrades();
    play.serves().await;
}

/// A service manager signals every process of a service. Who has not moved has its time all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_to_both_is_one_wish() {
    const LESS: &str = "have less time";
    for newer_first in [true, false] {
        let mut play = Play::begin("both", "shards = 1\ndrain_timeout = '60s'").await;
        let stays = play.client().await;
        let heir = play.upgrades();
        if newer_first {
            signal(heir, libc::SIGTERM);
            play.first.stderr_lines(LESS, 1, LISTENS_WITHIN);
            signal(play.first.id(), libc::SIGTERM);
            play.first.stderr_lines(LESS, 2, LISTENS_WITHIN);
        } else {
            signal(play.first.id(), libc::SIGTERM);
            play.first.stderr_lines(LESS, 1, LISTENS_WITHIN);
            signal(heir, libc::SIGTERM);
            play.first.stderr_lines("draining sessions", 1, LISTENS_WITHIN);
        }
        stays.is_served().await;
        // Were it gone, systemd would tell the older one once more.
        assert!(lives(heir));
        stays.raw.close().await;
        assert!(play.first.left(END_MAX).success());
        is_gone(heir, END_MAX).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_end_when_the_newer_one_is_told_to_and_one_when_the_older_is() {
    let settings = "shards = 2\ndrain_timeout = '100ms'";
    let mut play = Play::begin("ends", settings).await;
    let _stays = play.client().await;
    let heir = play.upgrades();
    signal(heir, libc::SIGTERM);
    is_gone(heir, END_MAX).await;
    assert!(play.first.left(END_MAX).success());
    drop(play);

    let mut play = Play::begin("ends", settings).await;
    let _stays = play.client().await;
    let heir = play.upgrades();
    signal(play.first.id(), libc::SIGTERM);
    assert!(play.first.left(END_MAX).success());
    assert!(lives(heir));
    play.serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_do_not_move_are_closed_in_time() {
    let mut play = Play::begin("timeout", "shards = 1\nupgrade_timeout = '6s'").await;
    let stays = play.client().await;
    let begun = Instant::now();
    play.upgrades();
    assert!(play.first.left(END_MAX + Duration::from_secs(6)).success());
    assert!(begun.elapsed() >= Duration::from_secs(6));
    stays.raw.lost("somebody who has not moved").await;
    play.serves().await;
}

/// Speaks as a new process does up to a step, and then ends there and then or hangs.
fn stops(at: Step, and: &str) -> String {
    let [go, commit, serving] = [Step::Go, Step::Commit, Step::Serving].map(|step| at >= step);
    format!(
        "#!/usr/bin/env python3
import ctypes, json, socket, struct, time
line = socket.socket(fileno=0)
offer = json.loads(line.recv(1 << 16))['Offer']
_, sockets, _, _ = socket.recv_fds(line, 64, 253)
if {go}:
    line.send(b'\"Ready\"')
    assert line.recv(64) == b'\"Go\"'
if {commit}:
    # Everything to the first socket of the other row.
    program = ctypes.create_string_buffer(struct.pack('=HBBI', 0x06, 0, 0, offer['sockets'] // 2))
    description = struct.pack('HL', 1, ctypes.addressof(program))
    socket.socket(fileno=sockets[0]).setsockopt(socket.SOL_SOCKET, 51, description)
if {serving}:
    line.send(b'\"Serving\"')
{and}
",
        go = python(go),
        commit = python(commit),
        serving = python(serving),
    )
}

#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Step {
    Offer,
    Go,
    Commit,
    Serving,
}

fn python(is_so: bool) -> &'static str {
    if is_so { "True" } else { "False" }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_fails_changes_nothing() {
    let mut play = Play::begin("fails", "shards = 2").await;
    let stays = play.client().await;
    const HANGS: &str = "time.sleep(60)";
    let (ended, late) = ("ended before it took over", "does not take over within");
    let programs = [
        ("#!/bin/sh\nexit 1\n".to_owned(), "ended before it took over (exit status: 1)"),
        ("#!/bin/sh\nkill -9 $$\n".to_owned(), "ended before it took over (signal: 9 (SIGKILL))"),
        ("#!/bin/sh\nexec sleep 60\n".to_owned(), late),
        ("no program at all".to_owned(), "cannot start"),
        (
            "#!/usr/bin/env python3\nimport os\nos.write(0, b'something else')\n".to_owned(),
            "is not understood",
        ),
        (stops(Step::Offer, ""), ended),
        (stops(Step::Go, ""), ended),
        (stops(Step::Go, HANGS), late),
        (stops(Step::Commit, ""), ended),
        (stops(Step::Commit, HANGS), late),
    ];
    for (program, words) in programs {
        play.replace(&program);
        let begun = Instant::now();
        let asks = play.asks(&["--wait"]);
        let refused = tokio::task::spawn_blocking(|| Play::refuses(asks));
        // HTTP is answered meanwhile, whatever the new one does.
        let mut longest = Duration::ZERO;
        while !refused.is_finished() {
            let asked = Instant::now();
            assert_eq!(get(play.address, "/health").await.status, 200);
            longest = longest.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let said = refused.await.expect("one line");
        println!("{said}: after {:?}, HTTP within {longest:?}", begun.elapsed());
        assert!(said.contains(words), "{said}");
        assert!(begun.elapsed() < UPGRADE_STEP_MAX + Duration::from_secs(2), "{said}");
        assert!(longest < Duration::from_secs(1), "{longest:?}");
        stays.is_served().await;
        play.serves().await;
        play.restore();
    }
    play.upgrades();
    stays.is_served().await;
    play.serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_upgrade_at_a_time() {
    let mut play = Play::begin("twice", "shards = 1").await;
    play.replace("#!/bin/sh\nexec sleep 60\n");
    let sleeper = play.begins_an_upgrade();
    let said = play.is_refused();
    assert!(said.contains("another upgrade is under way"), "{said}");
    signal(sleeper, libc::SIGKILL);
    play.first.stderr_lines("nothing has changed", 1, LISTENS_WITHIN);
    play.restore();
    play.upgrades();
    play.serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_a_restart_is_said() {
    let mut play = Play::begin("moved", "shards = 2").await;
    let stays = play.client().await;
    let other = format!("shards = 2\nlisten.bind = '127.0.0.1:{}'", play.address.port() ^ 1);
    let table = [
        ("shards = 1", "2 shards at", "that takes a restart"),
        (&other, "and this one would have 2 at", "that takes a restart"),
        ("shards = 'many'", "shards", "many"),
        ("[web.http]\nlisten = '192.0.2.1:80'", "192.0.2.1", "is not an address of this host"),
    ];
    for (settings, words, more) in table {
        play.sets(settings);
        let said = play.is_refused();
        assert!(said.contains(words) && said.contains(more), "{said}");
        stays.is_served().await;
        play.serves().await;
    }
    // A listener for HTTP may come and go.
    play.sets(&format!("shards = 2\n{INTERNAL}"));
    play.upgrades();
    play.internal();
    play.serves().await;
}

/// The next process would have no links, where the list of relays is gone: nothing changes until it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_relays_that_is_gone_is_a_reason() {
    let list =
        std::env::temp_dir().join(format!("shardcast-list-of-relays-{}", std::process::id()));
    fs::write(&list, "[]").expect("a file");
    let settings = format!("shards = 1\ncluster.connect_api = '{}'", list.display());
    let mut play = Play::begin("list", &settings).await;
    let stays = play.client().await;
    fs::remove_file(&list).expect("it was there");
    let said = play.is_refused();
    assert!(said.contains("cannot read the list of relays"), "{said}");
    assert!(said.contains("--cluster-connect-api"), "{said}");
    stays.is_served().await;
    play.serves().await;
    fs::write(&list, "[]").expect("a file");
    play.upgrades();
    play.serves().await;
    fs::remove_file(&list).expect("it was there");
}

/// Nobody but the relay's user and root may ask, whatever the mode of the socket is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_else_may_not_ask() {
    // SAFETY: no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        println!("not root, who alone can be somebody else: not played");
        return;
    }
    let play = Play::begin("other", "shards = 1").await;
    let asks = || {
        let mut asks = Command::new("setpriv");
        asks.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        asks.arg(play.directory.join("shardcast")).args(["upgrade", "--wait"]);
        asks.env("RUNTIME_DIRECTORY", play.directory.join("run"));
        asks
    };
    let said = Play::refuses(asks());
    assert!(said.contains("Permission denied") && said.contains("by this user?"), "{said}");
    let socket = play.directory.join("run/control.sock");
    fs::set_permissions(socket, Permissions::from_mode(0o666)).expect("a mode");
    let said = Play::refuses(asks());
    assert!(said.contains("does not answer this user"), "{said}");
    assert!(!play.first.stderr().contains("is to take over"), "{}", play.first.stderr());
}

/// Secrets that cannot be kept are found before anything has changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_directory_that_is_gone_is_made_again_or_is_a_reason() {
    let mut play = Play::begin("state", "shards = 1").await;
    let stays = play.client().await;
    let state = play.directory.join("state");
    fs::remove_dir_all(&state).expect("it was there");
    fs::write(&state, "no directory").expect("a file");
    let said = play.is_refused();
    assert!(said.contains("cannot keep state in") && said.contains("--state-dir"), "{said}");
    stays.is_served().await;
    play.serves().await;
    fs::remove_file(&state).expect("it was there");
    play.upgrades();
    assert!(state.join("secrets.key").exists());
    stays.is_served().await;
    play.serves().await;
    // Where nobody can be asked that is said too.
    fs::remove_dir_all(play.directory.join("run")).expect("it was there");
    let said = play.is_refused();
    assert!(said.contains("no relay answers in"), "{said}");
}

/// The older process is killed while the newer one starts: that one does not stay in its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_in_the_midst_leaves_nothing_behind() {
    let settings = "shards = 2";
    let mut play = Play::begin("midst", settings).await;
    let good = play.directory.join("shardcast.good");
    // Before the new process has read what it is given, and while it dials the old one.
    for is_dialled in [false, true] {
        play.replace(&format!("#!/bin/sh\nsleep 1\nexec {} \"$@\"\n", good.display()));
        let heir = play.begins_an_upgrade();
        let old = play.first.id();
        if is_dialled {
            signal(old, libc::SIGSTOP);
            let begun = Instant::now();
            while !has_thread(heir, "shard-1") {
                assert!(begun.elapsed() < LISTENS_WITHIN, "it has shards");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        signal(old, libc::SIGKILL);
        let killed = Instant::now();
        play.first.left(LISTENS_WITHIN);
        // It sleeps for a second.
        is_gone(heir, Duration::from_secs(3)).await;
        println!("gone after {:?}", killed.elapsed());
        play.restore();
        play.begins_again(settings);
        play.serves().await;
    }
}

fn has_thread(process: libc::pid_t, name: &str) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return false };
    let named = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("comm"));
    threads.flatten().filter_map(|thread| named(thread).ok()).any(|comm| comm.trim() == name)
}

/// Nobody has a session, and still nobody is turned away: the older process is there for as long as the newer one
/// has yet to prove itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_that_fails_with_its_first_clients_is_no_outage() {
    let mut play = Play::begin("proof", "shards = 2").await;
    for round in 1..=2 {
        let heir = play.upgrades();
        let first = play.client().await;
        signal(heir, libc::SIGKILL);
        play.first.stderr_lines("this one goes on", round, LISTENS_WITHIN);
        first.is_told().await;
        play.serves().await;
    }
    play.replace(&stops(Step::Serving, ""));
    let Output { status, .. } = play.asks(&["--wait"]).output().expect("it runs");
    assert!(status.success(), "it has taken over");
    play.first.stderr_lines("this one goes on", 3, LISTENS_WITHIN);
    play.serves().await;
    play.restore();
    let heir = play.upgrades();
    assert!(play.first.left(LISTENS_WITHIN).success());
    assert!(lives(heir));
    play.serves().await;
}

/// Whom the older process still has is said by the newer one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_what_the_process_before_still_has() {
    let mut play = Play::begin("seen", &format!("shards = 2\n{INTERNAL}")).await;
    let internal = play.internal();
    let mut stay = vec![play.client().await, play.client().await, play.client().await];
    assert!(before(internal).await.is_none());
    play.upgrades();
    let old = play.first.id();
    while let Some(client) = stay.pop() {
        let sessions = stay.len() as u64 + 1;
        let left = within("what is left", async {
            loop {
                let left = before(internal).await;
                if let Some(left) = left.filter(|left| left["sessions"] == sessions) {
                    return left;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        assert_eq!(left["process"], old);
        assert!((1..=600).contains(&left["seconds"].as_u64().expect("a number")), "{left}");
        assert_eq!(figure(internal, "shardcast_upgrade_sessions").await, sessions);
        assert_eq!(figure(internal, "shardcast_upgrade_process").await, old as u64);
        let said = play.is_refused();
        assert!(said.contains("still has sessions"), "{said}");
        client.raw.close().await;
    }
    assert!(play.first.left(LISTENS_WITHIN).success());
    play.first.stderr_lines("the process before this one is gone", 1, LISTENS_WITHIN);
    assert!(before(internal).await.is_none());
    for name in ["process", "sessions", "seconds"] {
        assert_eq!(figure(internal, &format!("shardcast_upgrade_{name}")).await, 0);
    }
}

const INTERNAL: &str = "[internal]\nlisten = '127.0.0.1:0'\n";

async fn before(internal: SocketAddr) -> Option<Value> {
    let answer = get(internal, "/sessions").await;
    let mut list: Value = serde_json::from_str(answer.text()).expect("JSON");
    list.get_mut("before").map(Value::take)
}

/// The sum of all rows of a name.
async fn figure(internal: SocketAddr, name: &str) -> u64 {
    let answer = get(internal, "/metrics").await;
    let rows = answer
        .text()
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let values: Vec<u64> =
        rows.map(|row| row.rsplit(' ').next().expect("a value").parse().expect("whole")).collect();
    assert!(!values.is_empty(), "{name} is not there");
    values.iter().sum()
}

/// Of a relay that has a number in chains of hops two processes have two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_of_one_number_have_two() {
    let mut play = Play::begin("hops", "shards = 1\n[cluster]\nid = 7").await;
    let mut known = Vec::new();
    for _ in 0..3 {
        known.push(hop(play.address).await);
        let before = play.heirs.last().copied().unwrap_or(play.first.id());
        play.upgrades();
        is_gone_or_waited(&mut play.first, before).await;
        let gone = "the process before this one is gone";
        play.first.stderr_lines(gone, play.heirs.len(), LISTENS_WITHIN);
    }
    assert_eq!(known, [7, 7 | 1 << 52, 7]);
}

/// What the relay calls itself towards a client.
async fn hop(relay: SocketAddr) -> u64 {
    let client = Raw::introduced(relay, Version::Lite06).await;
    // Its kind, how long it is, and itself.
    let is_setup = |_: u64, bytes: &[u8]| match bytes {
        [kind, length, rest @ ..] => {
            *kind == UniType::Setup as u8 && rest.len() >= *length as usize
        }
        _ => false,
    };
    let id = client.accepted("SETUP", is_setup).await;
    let setup = client.stream(id).received;
    let setup = Setup::decode(&setup[2..2 + setup[1] as usize]).expect("a SETUP");
    client.close().await;
    setup.hop
}

#[test]
fn whoever_asks_nobody_is_told() {
    for (args, words) in [
        (&["upgrade"][..], "Give its --state-dir"),
        (&["upgrade", "--state-dir", "/nowhere"], "no relay answers in /nowhere"),
    ] {
        let mut command = shardcast(args);
        let output = command.env_remove("RUNTIME_DIRECTORY").output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words), "{said}");
    }
    let mut command = shardcast(&["--listen", "127.0.0.1:0"]);
    command.env("SHARDCAST_PREDECESSOR", "1").stdin(Stdio::null());
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("there is no relay that has started this one"), "{said}");
}

/// A directory is one relay's: a second one would have `shardcast upgrade` replace the wrong one.
#[test]
fn two_relays_have_no_directory_in_common() {
    let directory = std::env::temp_dir().join(format!("shardcast-common-{}", std::process::id()));
    let dir = directory.to_str().expect("a path of ours");
    let args = ["--listen", "127.0.0.1:0", "--shards", "1", "--state-dir", dir];
    let mut first = Process::spawn(shardcast(&args));
    first.listening(LISTENS_WITHIN);
    let output = shardcast(&args).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let process = format!("process {}, a relay, has {dir} already", first.id());
    assert!(said.contains(&process), "{said}");
    // Where one was killed nothing is in the way.
    first.signal(libc::SIGKILL);
    first.ended(LISTENS_WITHIN);
    Process::spawn(shardcast(&args)).listening(LISTENS_WITHIN);
    let _ = fs::remove_dir_all(&directory);
}

/// What systemd keeps: the next process has the port before anybody else could, and tells those of a process
/// that was killed that it has forgotten them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_killed_goes_on_with_the_same_sockets() {
    let _stage = STAGE.lock().await;
    const SHARDS: usize = 2;
    const KEPT: usize = 2 * SHARDS + 2;
    let mut manager = Manager::new("store");
    let mut listen = "127.0.0.1:0".to_owned();
    let mut before: Vec<Client> = Vec::new();
    for round in 0..4 {
        let shards = SHARDS.to_string();
        let args = ["--listen", &listen, "--auth-public", "**", "--shards", &shards];
        manager.told.clear();
        let begun = Instant::now();
        let mut relay = Process::spawn(manager.command(&args));
        let address = relay.listening(LISTENS_WITHIN);
        assert!(round == 0 || address.to_string() == listen, "the same port");
        listen = address.to_string();
        // They may have said something before it was there.
        for client in &before {
            client.is_told().await;
        }
        println!("round {round}: after {:?}", begun.elapsed());
        before.clear();
        for _ in 0..8 {
            let client = Client { raw: Raw::introduced(address, Version::Lite06).await };
            client.is_served().await;
            before.push(client);
        }
        assert_eq!(get(address, "/health").await.status, 200);
        manager.is_told("READY=1", LISTENS_WITHIN);
        manager.hears_out(Duration::from_millis(100));
        let kept: Vec<&str> = manager.kept.keys().map(String::as_str).collect();
        let secrets = format!("secrets-{}", round % 2);
        assert!(kept.len() == KEPT && kept.contains(&secrets.as_str()), "{kept:?}");
        assert!(!manager.polls, "without a poll");
        relay.signal(libc::SIGKILL);
        relay.ended(LISTENS_WITHIN);
        // Nobody else can have it meanwhile.
        assert!(std::net::UdpSocket::bind(address).is_err());
    }
    // With another number of shards it begins anew, at the same port.
    let args = ["--listen", &listen, "--auth-public", "**", "--shards", "1"];
    let mut relay = Process::spawn(manager.command(&args));
    manager.told.clear();
    manager.is_told("READY=1", LISTENS_WITHIN);
    assert_eq!(relay.listening(LISTENS_WITHIN).to_string(), listen);
    manager.hears_out(Duration::from_millis(100));
    assert_eq!(manager.kept.keys().filter(|name| name.starts_with("udp-")).count(), 2);
}

// ---- what is published ----

const PATH: &str = "live/cam";

/// Of 60 frames in a second; each is a group.
const FRAME: Duration = Duration::from_micros(16_667);

/// Released clients, who do as they are asked: one publishes all the time, the others watch. Each sees every
/// group once, through ten processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_and_its_viewers_go_through_ten_processes() {
    const UPGRADES: usize = 10;
    let mut play = Play::begin("flow", &format!("shards = 2\n{INTERNAL}")).await;
    let internal = play.internal();
    let url = format!("moqt://{}", play.address);
    let publisher = Native::publishes(&url, PATH, 1);
    let viewers = [Native::watches(&url), Native::watches(&url), Native::watches(&url)];
    for viewer in &viewers {
        viewer.sees_more(10).await;
    }
    let mut before = play.first.id();
    for round in 0..UPGRADES {
        let heir = play.upgrades();
        // All move, and with the last of them the process before is gone.
        is_gone_or_waited(&mut play.first, before).await;
        for viewer in &viewers {
            viewer.sees_more(10).await;
        }
        println!("upgrade {round}: process {before} is gone, {heir} has everybody");
        assert_eq!(play.kernel_drops(), 0);
        before = heir;
        play.first.stderr_lines("the process before this one is gone", round + 1, LISTENS_WITHIN);
    }
    // What the relay says of it, of all ten processes.
    assert_eq!(figure(internal, "shardcast_kernel_drops_total").await, 0);
    for viewer in &viewers {
        has_all(viewer, &publisher, UPGRADES).await;
    }
}

/// Whoever stays has all that the publisher brings, who has moved, and the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stays_has_what_those_bring_who_have_moved() {
    // With the same number in chains of hops, as far as the settings go.
    let mut play = Play::begin("stays", "shards = 2\n[cluster]\nid = 7").await;
    let url = format!("moqt://{}", play.address);
    let publisher = Native::publishes(&url, PATH, 1);
    let stays = viewing_at(play.address, PATH).await;
    let first = play.upgrades();
    assert!(lives(first));
    let moves = Native::watches(&url);
    moves.sees_more(60).await;
    // The publisher has left the older process by now, or does so in the midst of what follows.
    let until = publisher.seen.borrow().last + 12 * 60;
    publisher.seen.subscribe().wait_for(|seen| seen.last >= until).await.expect("it goes on");
    let begun = first_group(&stays).await;
    for group in begun..until {
        stays.accepted(&format!("group {group}"), is_group(group)).await;
    }
    assert!(lives(play.first.id()), "somebody is still there");
    moves.seen.borrow().is_whole(0);
    // Nobody had to go: it is the older process that ends with the last.
    assert!(stays.is_open());
    stays.close().await;
    assert!(play.first.left(LISTENS_WITHIN).success());
    moves.sees_more(60).await;
    moves.seen.borrow().is_whole(0);
}

/// A relay that has dialled this one follows it from process to process: its viewers have every group once, and
/// nobody waits for the end of the older process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_goes_where_its_relay_goes() {
    const UPGRADES: usize = 3;
    let mut play = Play::begin("linked", "shards = 2").await;
    let hub = format!("moqt://{}", play.address);
    let edge = shardcast(&[
        "--listen",
        "127.0.0.1:0",
        "--auth-public",
        "**",
        "--shards",
        "2",
        "--cluster-connect",
        &hub,
        "--connect-tls-insecure",
    ]);
    let mut edge = Process::spawn(edge);
    let url = format!("moqt://{}", edge.listening(LISTENS_WITHIN));
    edge.stderr_line("cluster peer linked", LISTENS_WITHIN);
    let publisher = Native::publishes(&hub, PATH, 1);
    let viewer = Native::watches(&url);
    viewer.sees_more(10).await;
    let mut before = play.first.id();
    for round in 0..UPGRADES {
        let heir = play.upgrades();
        is_gone_or_waited(&mut play.first, before).await;
        before = heir;
        viewer.sees_more(60).await;
        edge.stderr_lines("cluster peer linked", round + 2, LISTENS_WITHIN);
    }
    // The viewer does not move: its relay does, and that asks for nothing twice.
    has_all(&viewer, &publisher, 0).await;
}

/// A relay that has dialled others is upgraded: the older process keeps its links for who is still there, and ends
/// with the last of those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_dials_is_gone_when_its_sessions_have_moved() {
    const UPGRADES: usize = 3;
    let hub = shardcast(&["--listen", "127.0.0.1:0", "--auth-public", "**", "--shards", "2"]);
    let mut hub = Process::spawn(hub);
    let url = format!("moqt://{}", hub.listening(LISTENS_WITHIN));
    let linked = format!("shards = 2\nconnect.tls.insecure = true\ncluster.connect = '{url}'");
    let mut play = Play::begin("dials", &linked).await;
    play.first.stderr_line("cluster peer linked", LISTENS_WITHIN);
    let publisher = Native::publishes(&url, PATH, 1);
    let viewer = Native::watches(&format!("moqt://{}", play.address));
    viewer.sees_more(10).await;
    let mut before = play.first.id();
    for _ in 0..UPGRADES {
        let heir = play.upgrades();
        is_gone_or_waited(&mut play.first, before).await;
        before = heir;
        viewer.sees_more(60).await;
    }
    has_all(&viewer, &publisher, UPGRADES).await;
}

/// A browser does not do as it is asked and stays where it is: it has every group all the same, by one connection,
/// until its time is over. Then it dials again by itself. `UPGRADES=10` has that so many times, in a row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_misses_nothing_until_its_time_is_over() {
    const FRAMES: usize = 30;
    const CROWD: usize = 8;
    let upgrades = std::env::var("UPGRADES").map_or(1, |said| said.parse().expect("a number"));
    let timeout = Duration::from_secs(14);
    let mut play = Play::begin("browser", "shards = 2\nupgrade_timeout = '14s'").await;
    let url = format!("moqt://{}", play.address);
    let publisher = Native::publishes(&url, PATH, FRAMES);
    let _crowd: Vec<Native> = (0..CROWD).map(|_| Native::watches(&url)).collect();
    let page = Actor::page_in(Browser::Chromium, "restart").await;
    page.tell(format!("watch('0.3.4','http://{}/')", play.address)).await;
    page.tell(format!("hears('{PATH}',0)")).await;
    let mut before = play.first.id();
    for round in 0..upgrades {
        page.tell(format!("forgets('{PATH}')")).await;
        let begun = Instant::now();
        let heir = play.upgrades();
        // Meanwhile the publisher goes to the new process, and leaves the old one.
        tokio::time::sleep_until((begun + timeout - Duration::from_secs(1)).into()).await;
        assert!(lives(before));
        let misses = page.tell(format!("misses('{PATH}')")).await;
        println!("upgrade {round}: {misses}");
        let mut said = misses.split(' ');
        assert_eq!(said.next(), Some((round + 1).to_string().as_str()), "one connection each time");
        let [first, last] =
            [said.next(), said.next()].map(|number| number.expect("one").parse::<u64>());
        let (first, last) = (first.expect("a number"), last.expect("a number"));
        assert!(last - first > 60 * 10, "{misses}");
        // This client leaves a group for a newer one whose begin comes with its last frame, upgrade or not.
        let missing = said.next().expect("those").split(',').filter(|number| !number.is_empty());
        let missing: Vec<u64> = missing.map(|number| number.parse().expect("a number")).collect();
        let is_last = |number: &u64| number % FRAMES as u64 == FRAMES as u64 - 1;
        assert!(missing.iter().all(is_last), "{missing:?}");
        is_gone_or_waited(&mut play.first, before).await;
        before = heir;
        let ended = publisher.seen.borrow().count;
        page.tell(format!("hears('{PATH}',{})", ended + 60)).await;
    }
}

/// What is published by now comes, in whatever order, and [`Seen::is_whole`].
async fn has_all(viewer: &Native, publisher: &Native, moves: usize) {
    let published = publisher.seen.borrow().last;
    let mut seen = viewer.seen.subscribe();
    let all = seen.wait_for(|seen| seen.missing(published).is_empty());
    // What is missing for good is told by the assertion.
    let _ = tokio::time::timeout(PATIENCE, all).await;
    assert!(viewer.seen.borrow().last >= published, "the last group has not come");
    viewer.seen.borrow().is_whole(moves);
}

async fn is_gone_or_waited(first: &mut Process, process: libc::pid_t) {
    match first.id() == process {
        true => assert!(first.left(LEFT_WITHIN).success()),
        false => is_gone(process, LEFT_WITHIN).await,
    }
}

/// Released clients keep a session for ten seconds after they were asked to move.
const LEFT_WITHIN: Duration = Duration::from_secs(15);

/// What somebody has published or seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    count: u64,
    last: u64,
    /// By number, how often. They come on streams of their own, in whatever order.
    groups: BTreeMap<u64, u32>,
    /// Groups that were cut off.
    cut: usize,
    /// An end of the track.
    faults: u64,
}

impl Seen {
    /// What has not come between the first that came and this one.
    fn missing(&self, upto: u64) -> Vec<u64> {
        let first = self.groups.keys().next().copied().unwrap_or(upto);
        (first..=upto).filter(|group| !self.groups.contains_key(group)).collect()
    }

    /// Every group from the first on came whole and once, but for the last ones that may be on their way. What comes
    /// while the released client goes from one session to another it has twice now and then: it asks the new session
    /// from a group on that it has had whole by then, and hands out what follows again (or the begin of a group without
    /// a frame, and then its second copy). A relay that sent anything twice would do so at each move. What is older
    /// than the newest that it has then, and still on its way, it asks nobody for: on links or machines that are in
    /// trouble such a group is missing.
    #[track_caller]
    fn is_whole(&self, moves: usize) {
        let missing = self.missing(self.last.saturating_sub(10));
        let twice: Vec<_> = self.groups.iter().filter(|(_, times)| **times > 1).collect();
        println!("groups up to {}", self.last);
        assert!(missing.is_empty(), "missing {missing:?}, twice {twice:?}");
        let is_rare = twice.len() + self.cut <= moves.div_ceil(5);
        assert!(is_rare, "twice {twice:?}, {} cut off in {moves} moves", self.cut);
        assert_eq!(self.faults, 0);
    }
}

/// A released client that dials again by itself.
struct Native {
    seen: watch::Sender<Seen>,
    _acts: JoinSet<()>,
    _connection: Connection,
}

impl Native {
    fn client() -> moq_tokio::Client {
        let mut config = connect::Config::default();
        config.websocket.enabled = Some(false);
        config.tls.insecure = Some(true);
        config.bind = Some(([127, 0, 0, 1], 0).into());
        config.init(Default::default()).expect("a client")
    }

    /// With so many frames in a group.
    fn publishes(url: &str, path: &'static str, frames: usize) -> Native {
        let origin = moq_tokio::origin::spawn_config(origin::Config::new(Hop::random()));
        let url: url::Url = url.parse().expect("a URL");
        let connection = Native::client().with_publisher(&origin).connect(url);
        let (seen, mut acts) = (watch::Sender::default(), JoinSet::new());
        acts.spawn(publish(origin, path, frames, seen.clone()));
        Native { seen, _acts: acts, _connection: connection }
    }

    fn watches(url: &str) -> Native {
        let origin = moq_tokio::origin::spawn_config(origin::Config::new(Hop::random()));
        let views = origin.consume();
        let url: url::Url = url.parse().expect("a URL");
        let connection = Native::client().with_subscriber(origin).connect(url);
        let (seen, mut acts) = (watch::Sender::default(), JoinSet::new());
        acts.spawn(see(views, seen.clone()));
        Native { seen, _acts: acts, _connection: connection }
    }

    async fn sees_more(&self, groups: u64) {
        let mut seen = self.seen.subscribe();
        let until = seen.borrow().count + groups;
        within("more groups", seen.wait_for(|seen| seen.count >= until)).await.expect("it is kept");
    }
}

/// Every frame says how many there were before it, and a group begins with its first.
async fn publish(origin: origin::Producer, path: &str, frames: usize, seen: watch::Sender<Seen>) {
    let broadcast = origin.create_broadcast(path).expect("a broadcast");
    let info = track::Info::default().with_max_age(Duration::from_secs(60));
    let track = broadcast.create_track(TRACK, info).expect("a track");
    broadcast.announce(Default::default()).expect("announced");
    let mut ticks = tokio::time::interval(FRAME);
    loop {
        ticks.tick().await;
        let mut group = track.append_group().expect("a group");
        let sequence = group.sequence;
        for frame in 0..frames {
            if frame > 0 {
                ticks.tick().await;
            }
            let number = seen.borrow().count;
            group.write_frame(Timestamp::now(), format!("{number:1000}")).expect("a frame");
            seen.send_modify(|seen| (seen.count, seen.last) = (number + 1, sequence));
        }
        group.finish().expect("the end of a group");
    }
}

async fn see(views: origin::Consumer, seen: watch::Sender<Seen>) {
    let mut announced = views.announced();
    while announced
        .next()
        .await
        .is_some_and(|update| !update.kind.is_active() || update.prefix.as_str() != PATH)
    {}
    let broadcast = views.request_broadcast(PATH).await.expect("it is there");
    let track = broadcast.track(TRACK).expect("a track");
    let patient = track::Subscription::default().with_max_age(Duration::from_secs(60));
    let mut groups = track.subscribe(patient).await.expect("a subscription");
    while let Ok(Some(mut group)) = groups.recv_group().await {
        let sequence = group.sequence;
        let mut frames = 0;
        while let Ok(Some(_)) = group.read_frame().await {
            frames += 1;
        }
        seen.send_modify(|seen| {
            match frames {
                1 => *seen.groups.entry(sequence).or_default() += 1,
                _ => seen.cut += 1,
            }
            (seen.count, seen.last) = (seen.count + 1, seen.last.max(sequence));
        });
    }
    println!("the track is over");
    seen.send_modify(|seen| seen.faults += 1);
}

/// The first group that somebody was brought.
async fn first_group(viewer: &Raw) -> u64 {
    (0..).find(|group| viewer.has_accepted(is_group(*group))).expect("some")
}

/// systemd is told which process is the service's, and by that one from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_manager_follows() {
    let _stage = STAGE.lock().await;
    let mut manager = Manager::new("follows");
    let state = manager.root.join("state");
    let state = state.to_str().expect("a path of ours");
    let args =
        ["--listen", "127.0.0.1:0", "--auth-public", "**", "--shards", "2", "--state-dir", state];
    let mut relay = Process::spawn(manager.command(&args));
    let address = relay.listening(LISTENS_WITHIN);
    manager.is_told("READY=1", LISTENS_WITHIN);
    let stays = Client { raw: Raw::introduced(address, Version::Lite06).await };
    manager.hears_out(Duration::from_millis(100));
    manager.told.clear();

    let mut asks = shardcast(&["upgrade", "--wait", "--state-dir", state]);
    let output = asks.env_remove("RUNTIME_DIRECTORY").output().expect("it runs");
    let heir = process_in(&String::from_utf8_lossy(&output.stdout));
    let status = format!("STATUS=2 shards at {address}");
    manager.is_told(&status, LISTENS_WITHIN);
    manager.hears_out(Duration::from_millis(100));
    assert_eq!(manager.told, [&format!("MAINPID={heir}"), "READY=1", "READY=1", &status]);
    assert!(manager.kept.contains_key("secrets-1"), "{:?}", manager.kept);
    assert!(!manager.kept.contains_key("secrets-0"), "{:?}", manager.kept);

    // Without it the older one is the service again.
    manager.told.clear();
    signal(heir, libc::SIGKILL);
    let main = format!("MAINPID={}", relay.id());
    manager.is_told(&main, LISTENS_WITHIN);
    manager.is_told(&status, LISTENS_WITHIN);
    manager.hears_out(Duration::from_millis(100));
    assert!(manager.kept.contains_key("secrets-0"), "{:?}", manager.kept);
    stays.is_served().await;
    relay.signal(libc::SIGTERM);
    manager.is_told("STOPPING=1", LISTENS_WITHIN);
}

/// A real systemd has the unit of the package reload, restart and crash: it follows the process that is the
/// service's, back to the older one too, and clients of one that is gone are told at once by the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_systemd_upgrades_restarts_and_starts_again() {
    let _stage = STAGE.lock().await;
    let Some(init) = Init::boot("service") else {
        println!("no systemd, or no namespaces for one: not played");
        return;
    };
    let port = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr();
    let address = port.expect("an address");
    let settings = format!(
        "shards = 2\ndrain_timeout = '0s'\nlisten.bind = '{address}'\nauth.public = ['**']\n"
    );
    init.writes("/etc/shardcast/shardcast.toml", &settings);
    // So that a watchdog that hears nothing is seen to act.
    let hasty = "[Service]\nWatchdogSec=5s\nRestartSec=0\n";
    init.writes("/etc/systemd/system/shardcast.service.d/test.conf", hasty);
    init.succeeds(&["systemctl", "daemon-reload"]);
    let client = || async { Client { raw: Raw::introduced(address, Version::Lite06).await } };
    init.succeeds(&["systemctl", "start", "shardcast"]);
    let first = init.property("MainPID");
    let stays = client().await;

    // Another process is the service's, and whoever stays is served.
    init.succeeds(&["systemctl", "reload", "shardcast"]);
    let second = init.property("MainPID");
    assert_ne!(first, second);
    let moved = client().await;
    for client in [&stays, &moved] {
        client.is_served().await;
    }
    // That one fails, and the older one is the service's again: heard by the watchdog, and upgraded.
    init.succeeds(&["kill", "-9", &second]);
    init.has("MainPID", &first, LISTENS_WITHIN);
    moved.is_told().await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    stays.is_served().await;
    assert_eq!([init.property("ActiveState"), init.property("NRestarts")], ["active", "0"]);
    init.succeeds(&["systemctl", "reload", "shardcast"]);
    let third = init.property("MainPID");
    let moved = client().await;
    stays.raw.close().await;
    // The older one leaves, and the service goes on: heard by the watchdog too.
    while init.runs(&["kill", "-0", &first]).status.success() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(7)).await;
    moved.is_served().await;
    assert_eq!([init.property("MainPID"), init.property("NRestarts")], [third.as_str(), "0"]);
    let kept = (2 * 2 + 1 + 1).to_string();
    assert_eq!(init.property("NFileDescriptorStore"), kept, "sockets, a listener and secrets");

    // Restarts, and crashes between: the next process has the same sockets, and tells who speaks to one that has
    // crashed. One that is told to end says goodbye itself.
    let mut before = moved;
    for crashes in [false, true, true, false] {
        let process = init.property("MainPID");
        let begun = Instant::now();
        match crashes {
            true => init.succeeds(&["kill", "-9", &process]),
            false => init.succeeds(&["systemctl", "restart", "shardcast"]),
        };
        while init.property("MainPID") == process || init.property("ActiveState") != "active" {
            assert!(begun.elapsed() < LISTENS_WITHIN, "it begins again");
        }
        println!("crashes {crashes}: begins again within {:?}", begun.elapsed());
        match crashes {
            true => before.is_told().await,
            false => drop(before.raw.lost("who was with one that has ended").await),
        }
        before = client().await;
        before.is_served().await;
    }
    assert_eq!(init.property("NFileDescriptorStore"), kept);
    init.succeeds(&["systemctl", "stop", "shardcast"]);
}

/// With many shards too: from the start of the program to the first client who is in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_of_64_shards_is_there_at_once() {
    const WITHIN: Duration = Duration::from_millis(300);
    let _stage = STAGE.lock().await;
    let mut took: Vec<Duration> = Vec::new();
    // Others may be at work on this machine.
    while took.len() < 10 && took.last().is_none_or(|took| *took > WITHIN) {
        let args = ["--listen", "127.0.0.1:0", "--auth-public", "**", "--shards", "64"];
        let begun = Instant::now();
        let mut relay =
            Process::spawn(shardcast(&[&args[..], &["--cache-capacity", "1GiB"]].concat()));
        let address = relay.listening(LISTENS_WITHIN);
        let client = Raw::introduced(address, Version::Lite06).await;
        took.push(begun.elapsed());
        client.close().await;
    }
    println!("{took:?}");
    assert!(took.last().is_some_and(|took| *took <= WITHIN), "{took:?}");
}

/// The port is there again at once, however the process before ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_stops_and_starts_two_hundred_times() {
    let _stage = STAGE.lock().await;
    let mut address = "127.0.0.1:0".to_owned();
    for round in 0..200 {
        let args = ["--listen", &address, "--auth-public", "**", "--shards", "2"];
        let mut relay =
            Process::spawn(shardcast(&[&args[..], &["--drain-timeout", "0s"]].concat()));
        address = relay.listening(LISTENS_WITHIN).to_string();
        relay.signal(if round % 2 == 0 { libc::SIGTERM } else { libc::SIGKILL });
        relay.ended(END_MAX);
    }
}
