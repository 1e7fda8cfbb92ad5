//! The built relay as clients in other languages see it: its URLs, and the hash of its certificate.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;

use tokio::sync::MutexGuard;

use crate::clients::program::Program;

/// One relay at a time: each pins a thread per shard.
static STAGE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// One session at a time is being accepted, so that the next line about one is about this one.
static DOOR: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const SHARDS: usize = 2;

pub struct Relay {
    program: Program,
    address: SocketAddr,
    sha256: String,
    _stage: MutexGuard<'static, ()>,
}

impl Relay {
    /// One that anybody may use for anything.
    pub async fn start() -> Relay {
        Relay::start_with("**", free_address(), &[]).await
    }

    /// One that is open to the public where its path matches `pattern`.
    pub async fn public(pattern: &str) -> Relay {
        Relay::start_with(pattern, free_address(), &[]).await
    }

    /// One with an HTTP server, on the same port number: a client that is given an `http:` URL
    /// uses that for both.
    pub async fn with_http() -> Relay {
        let address = free_address();
        let listen = address.to_string();
        let relay = Relay::start_with("**", address, &["--web-http-listen", &listen]).await;
        relay.listens("http").await;
        relay
    }

    async fn start_with(public: &str, address: SocketAddr, more: &[&str]) -> Relay {
        let stage = STAGE.lock().await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardcast"));
        command
            .args(["--listen", &address.to_string()])
            .args(["--shards", &SHARDS.to_string()])
            .args(["--listen-tls-generate", "localhost"])
            .args(["--auth-public", public])
            .args(["--log-level", "info"])
            .args(more);
        let program = Program::start("relay", command);
        let is_hash = |line: &str| line.trim_start().starts_with("sha256");
        let hash = program.stdout.find(0, "the certificate's hash", is_hash).await;
        let sha256 = hash.split_whitespace().nth(1).expect("sha256 HASH").to_owned();
        let relay = Relay { program, address, sha256, _stage: stage };
        relay.listens("quic").await;
        relay
    }

    async fn listens(&self, kind: &str) {
        let listens = |line: &str| line.contains("listening") && field(line, "kind") == Some(kind);
        self.program.stderr.find(0, "the relay to listen", listens).await;
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Raw QUIC.
    pub fn url(&self) -> String {
        format!("moqt://{}", self.address)
    }

    /// WebTransport.
    pub fn https(&self, path: &str) -> String {
        format!("https://{}/{path}", self.address)
    }

    /// WebTransport for development: the client asks the HTTP server for the certificate's hash.
    pub fn http(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// In hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    pub fn shards(&self) -> usize {
        SHARDS
    }

    /// How many sessions it has accepted so far.
    pub fn sessions(&self) -> usize {
        let lines = self.program.stderr.so_far();
        lines.iter().filter(|line| line.contains("negotiated")).count()
    }

    /// The next line of its log about something.
    pub async fn says(&self, words: &[&str]) -> String {
        let what = format!("the relay to say {words:?}");
        let wanted = |line: &str| words.iter().all(|word| line.contains(word));
        self.program.stderr.find(0, &what, wanted).await
    }

    /// Call before dialling: the session accepted next is the one dialled.
    pub async fn accepting(&self) -> Accepting<'_> {
        let door = DOOR.lock().await;
        Accepting { relay: self, from: self.program.stderr.count(), _door: door }
    }

    /// Asks it to leave, and waits until it has.
    pub async fn stop(mut self) {
        self.program.terminate();
        let status = self.program.ended().await;
        assert!(status.success(), "the relay ended with {status} after SIGTERM");
    }
}

/// A session that is about to be accepted.
pub struct Accepting<'a> {
    relay: &'a Relay,
    from: usize,
    _door: MutexGuard<'static, ()>,
}

impl Accepting<'_> {
    /// The shard that accepted it.
    pub async fn shard(self, version: &str) -> usize {
        let is_about_it =
            |line: &str| line.contains("negotiated") && field(line, "version") == Some(version);
        let log = &self.relay.program.stderr;
        let line = log.find(self.from, "the relay to report the session", is_about_it).await;
        let shard = field(&line, "shard").and_then(|shard| shard.parse().ok());
        shard.unwrap_or_else(|| panic!("no shard in: {line}"))
    }
}

/// The last `name=value` of a log line: its own fields follow those of its spans.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(|c: char| c.is_whitespace() || c == '{' || c == '}' || c == ',')
        .filter_map(|word| word.split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value.trim_matches('"'))
        .next_back()
}

/// One that is free for UDP and for TCP.
fn free_address() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = tcp.local_addr().expect("a bound socket has one");
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
