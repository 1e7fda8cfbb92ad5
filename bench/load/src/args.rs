//! The command line, parsed once into checked values.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use shardcast::wire;

use crate::scenario::Overrides;
use crate::tls::Trust;

const EXAMPLES: &str = "\
Scenarios:
  chat      200 viewers of 20 messages per second, each a group of its own
  video     100 viewers of 60 frames per second, groups of a second
  hd        30 viewers of 12 Mb/s
  audio     200 viewers of 50 frames per second, groups of a tenth of a second
  rooms     500 users that each publish a broadcast and watch the next one's
  meeting   10 users that each send voice and picture and watch the nine others
  announce  2,000 broadcasts that come and go, and 100 that listen
  fetch     a live video beside a storm of fetches
  idle      1,000 connections that do nothing

Examples:
  What does one chat room cost? The relay is on core 0, we are on core 1:
    taskset -c 0 shardcast --listen 127.0.0.1:4443 &
    shardcast-load --cpu 1 --relay-pid $! chat

  The same at another size, for a program to read:
    shardcast-load --viewers 500 --rate 5 --quiet --json - chat

  How many viewers are too many?
    shardcast-load --find-max --max-p99 50ms --max-loss 0 video

  Another relay, elsewhere:
    shardcast-load --url moqt://relay.example:443 --tls-root ca.pem chat

Exit status: 0 measured, 1 the relay could not be loaded as asked, 2 wrong usage.";

/// Loads a moq-lite relay and measures what arrives.
///
/// Frames are sent on a schedule that is fixed in advance, and latency counts from the time that a
/// frame was to be sent: neither a slow relay nor a slow client slows the load down or hides its
/// delay. One thread does everything; its share of a core is reported beside the relay's.
#[derive(Debug, Parser)]
#[command(name = "shardcast-load", after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    /// What to do: one of the names below, or the path of a TOML file
    #[arg(value_name = "SCENARIO")]
    pub scenario: String,

    /// The relay, over raw QUIC
    #[arg(long, default_value = "moqt://127.0.0.1:4443", value_name = "URL")]
    pub url: Url,

    /// The version of moq-lite that is offered, and no other
    #[arg(long, value_enum, default_value = "06")]
    pub version: Version,

    /// Measure this process too, from /proc
    #[arg(long, value_name = "PID")]
    pub relay_pid: Option<u32>,

    /// The measured span [default: 10s, 4s for each probe of --find-max]
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub duration: Option<Duration>,

    /// What comes before it, when everybody is there; not measured [default: 3s, or 2s]
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub warmup: Option<Duration>,

    /// Search for the most viewers within the bounds, beginning with the scenario's number
    #[arg(long)]
    pub find_max: bool,

    /// With --find-max: the 99th percentile of latency that is still good
    #[arg(long, default_value = "50ms", value_parser = parse_duration, value_name = "TIME",
          requires = "find_max")]
    pub max_p99: Duration,

    /// With --find-max: the share of frames that may be lost, in percent
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", requires = "find_max")]
    pub max_loss: f64,

    /// Connections that are begun per second; not measured
    #[arg(long, default_value_t = 200.0, value_name = "N")]
    pub ramp: f64,

    /// UDP sockets that the connections share
    #[arg(long, default_value_t = 8, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub sockets: u16,

    /// Decides when within their interval tracks begin, and which groups are fetched
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,

    /// Pin this program to a core
    #[arg(long, value_name = "CORE")]
    pub cpu: Option<usize>,

    /// Write JSON lines to a file, or `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// No live display
    #[arg(long)]
    pub quiet: bool,

    /// Take any certificate; implied for loopback addresses
    #[arg(long)]
    pub tls_disable_verify: bool,

    /// Take certificates that these roots (PEM) have issued
    #[arg(long, value_name = "FILE", conflicts_with = "tls_disable_verify")]
    pub tls_root: Option<PathBuf>,

    #[command(flatten)]
    pub overrides: Overrides,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Version {
    #[value(name = "05")]
    Lite05,
    #[value(name = "06")]
    Lite06,
}

impl From<Version> for wire::Version {
    fn from(version: Version) -> wire::Version {
        match version {
            Version::Lite05 => wire::Version::Lite05,
            Version::Lite06 => wire::Version::Lite06,
        }
    }
}

/// Where the relay is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub text: String,
    pub host: String,
    pub port: u16,
    /// Path and query, if there are any.
    pub root: Option<String>,
}

impl std::str::FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Url, String> {
        let rest = text.strip_prefix("moqt://").or_else(|| text.strip_prefix("moql://"));
        let rest = rest.ok_or("must begin with moqt://: this is a client for raw QUIC")?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, root) = rest.split_at(end);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let port = port.map_or(Ok(443), |port| port.parse()).map_err(|_| "has no valid port")?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err("has no host".to_owned());
        }
        Ok(Url {
            text: text.to_owned(),
            host: host.to_owned(),
            port,
            root: (!matches!(root, "" | "/")).then(|| root.to_owned()),
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    #[error("cannot find {host}: {reason}")]
    NoAddress { host: String, reason: String },
    #[error(
        "{0} is not this machine: give --tls-root FILE with the roots of the relay's certificate, \
         or --tls-disable-verify"
    )]
    NoTrust(SocketAddr),
    #[error("--ramp must be more than 0")]
    Ramp,
    #[error("--duration must be more than 0")]
    Duration,
    #[error("--max-loss is a share in percent, from 0 to 100")]
    MaxLoss,
    #[error("{0} has nothing that could be late or lost: --find-max needs a scenario with content")]
    NothingToFind(String),
    #[error("this program may not run on core {0}, or there is none")]
    Cpu(usize),
}

impl Args {
    /// What clap cannot see.
    pub fn check(&self) -> Result<(), ArgsError> {
        if !self.ramp.is_finite() || self.ramp <= 0.0 {
            return Err(ArgsError::Ramp);
        }
        if self.duration().is_zero() {
            return Err(ArgsError::Duration);
        }
        if !(0.0..=100.0).contains(&self.max_loss) {
            return Err(ArgsError::MaxLoss);
        }
        Ok(())
    }

    pub fn duration(&self) -> Duration {
        self.duration.unwrap_or(Duration::from_secs(if self.find_max { 4 } else { 10 }))
    }

    pub fn warmup(&self) -> Duration {
        self.warmup.unwrap_or(Duration::from_secs(if self.find_max { 2 } else { 3 }))
    }

    /// Whether stdout belongs to a program.
    pub fn writes_to_stdout(&self) -> bool {
        self.json.as_ref().is_some_and(|path| path.as_os_str() == "-")
    }

    /// The relay's address; of several an IPv4 one, which more relays listen on.
    pub fn address(&self) -> Result<SocketAddr, ArgsError> {
        let Url { host, port, .. } = &self.url;
        let no_address = |reason: String| ArgsError::NoAddress { host: host.clone(), reason };
        let found = (host.as_str(), *port).to_socket_addrs();
        let found: Vec<_> = found.map_err(|error| no_address(error.to_string()))?.collect();
        let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
        first.copied().ok_or_else(|| no_address("it has no address".to_owned()))
    }

    pub fn trust(&self, address: SocketAddr) -> Result<Trust, ArgsError> {
        match &self.tls_root {
            Some(path) => Ok(Trust::Roots(path.clone())),
            None if self.tls_disable_verify || address.ip().is_loopback() => Ok(Trust::Anybody),
            None => Err(ArgsError::NoTrust(address)),
        }
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 10s or 500ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let table = [
            ("moqt://127.0.0.1:4443", "127.0.0.1", 4443, None),
            ("moql://localhost/", "localhost", 443, None),
            ("moqt://[::1]:5000/room?jwt=a/b", "::1", 5000, Some("/room?jwt=a/b")),
            ("moqt://[::1]", "::1", 443, None),
            ("moqt://relay.example?jwt=a", "relay.example", 443, Some("?jwt=a")),
        ];
        for (text, host, port, root) in table {
            let url: Url = text.parse().unwrap();
            assert_eq!((url.host.as_str(), url.port, url.root.as_deref()), (host, port, root));
        }
        for text in ["https://a", "127.0.0.1:4443", "moqt://", "moqt://a:b", "moqt://:1"] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_this_machine_is_trusted_as_it_is() {
        let args = |extra: &[&str]| {
            let base = ["shardcast-load", "chat"];
            Args::try_parse_from(base.iter().chain(extra)).unwrap()
        };
        let near: SocketAddr = "127.0.0.2:1".parse().unwrap();
        let far: SocketAddr = "192.0.2.1:1".parse().unwrap();
        assert_eq!(args(&[]).trust(near).unwrap(), Trust::Anybody);
        assert!(args(&[]).trust(far).is_err());
        assert_eq!(args(&["--tls-disable-verify"]).trust(far).unwrap(), Trust::Anybody);
        let roots = Trust::Roots("ca.pem".into());
        assert_eq!(args(&["--tls-root", "ca.pem"]).trust(near).unwrap(), roots);
    }
}
