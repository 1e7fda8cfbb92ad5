//! Why a relay does not start with what it was told, in one line each.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};

use super::auth_url::UrlError;
use super::names;
use super::place::BadEntry;
use crate::command;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0}; see shardcast --help")]
    Usage(String),
    #[error("{old} is the old name of a setting; write {new} instead")]
    Renamed { old: String, new: String },
    #[error("{name} asks for something this relay does not do: {instead}")]
    Unsupported { name: String, instead: &'static str },
    #[error(
        "there is no such setting as {name}; {}{remedy}, and see shardcast --help",
        meant(nearest)
    )]
    Unknown { name: String, nearest: Option<String>, remedy: &'static str },
    #[error(
        "cannot read {}: {reason}; give a TOML file, or flags alone, or a command ({})",
        path.display(),
        command::names()
    )]
    FileUnreadable { path: PathBuf, reason: String },
    #[error("{}", first(path, faults))]
    File { path: PathBuf, faults: Vec<Fault> },
    #[error("not TOML: {0}")]
    NotToml(String),
    #[error("{key} {reason}")]
    WrongKind { key: String, reason: String },
    #[error("--listen-tls-cert is given without --listen-tls-key; give both PEM files")]
    CertWithoutKey,
    #[error("--listen-tls-key is given without --listen-tls-cert; give both PEM files")]
    KeyWithoutCert,
    #[error(
        "{certs} --listen-tls-cert and {keys} --listen-tls-key are given; give each certificate its key, in \
         the same order"
    )]
    UnevenPairs { certs: usize, keys: usize },
    #[error(
        "--listen-tls-generate and --listen-tls-cert are both given; \
         keep the files for production or the generated certificate for tests"
    )]
    TwoCertificates,
    #[error(
        "--acme-domain and {other} are both given; keep the certificate that is ordered, or the other"
    )]
    OrderedAndGiven { other: &'static str },
    #[error("{0} is given without --acme-domain; name what a certificate is to be ordered for")]
    IdleAcme(&'static str),
    #[error("--acme-domain needs {0}")]
    AcmeWithout(&'static str),
    #[error(
        "{given} is given without {missing}; the authority gives both, for an account that it knows"
    )]
    HalfAccount { given: &'static str, missing: &'static str },
    #[error(
        "--listen {listen} can be reached from other machines, so it needs {missing}; run: {command}"
    )]
    Exposed { listen: SocketAddr, missing: &'static str, command: String },
    #[error("--auth-url {shown}: {reason}")]
    AuthUrl { shown: String, reason: UrlError },
    #[error(
        "--auth-url and {other} are both given; the server decides alone, so keep one of them (it is asked \
         about sessions without a token too)"
    )]
    TwoJudges { other: &'static str },
    #[error("{flag} {shown}: {reason}")]
    Peer { flag: &'static str, shown: String, reason: BadEntry },
    #[error("--connect-tls-cert and --connect-tls-key belong together; give both PEM files")]
    HalfIdentity,
    #[error(
        "--auth-peer is given without --listen-tls-root; give the certificate (PEM) of who issues those of peers"
    )]
    PeerWithoutRoot,
    #[error(
        "--listen-tls-root is given, and nobody asks for certificates: name the relays that come in by theirs \
         with --auth-peer NAME, or the server that decides about them with --auth-url URL"
    )]
    IdleRoot,
    #[error(
        "--internal-listen {0} is where HTTP for everybody is too (--web-http-listen, --web-https-listen); give it a \
         port of its own"
    )]
    SameAddress(SocketAddr),
    #[error(
        "{flag} {address} can be reached from other machines, so it needs a key, public rules or an auth server; \
         run: shardcast {flag} '{address}' --auth-key public.jwk"
    )]
    WebExposed { flag: &'static str, address: SocketAddr },
    #[error(
        "--web-http-listen and --web-https-listen are both at {0}; give one of them another address, or write \
         --web-http-listen off"
    )]
    TwoWebs(SocketAddr),
}

/// What is wrong on one line of the file.
#[derive(Debug)]
pub struct Fault {
    pub line: usize,
    pub error: ConfigError,
}

impl ConfigError {
    /// Which setting is about it; none where what is wrong says so itself.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::CertWithoutKey | Self::UnevenPairs { .. } => Some("listen.tls.cert"),
            Self::KeyWithoutCert => Some("listen.tls.key"),
            Self::TwoCertificates => Some("listen.tls.generate"),
            Self::OrderedAndGiven { .. } | Self::IdleAcme(_) | Self::AcmeWithout(_) => {
                Some("acme.domain")
            }
            Self::HalfAccount { given: "--acme-eab-kid", .. } => Some("acme.eab_kid"),
            Self::HalfAccount { .. } => Some("acme.eab_key"),
            Self::Exposed { .. } => Some("listen.bind"),
            Self::AuthUrl { .. } | Self::TwoJudges { .. } => Some("auth.url"),
            Self::Peer { flag: "--cluster-node", .. } => Some("cluster.node"),
            Self::Peer { .. } => Some("cluster.connect"),
            Self::HalfIdentity => Some("connect.tls.cert"),
            Self::PeerWithoutRoot => Some("auth.peer"),
            Self::IdleRoot => Some("listen.tls.root"),
            Self::SameAddress(_) => Some("internal.listen"),
            Self::WebExposed { flag: "--web-http-listen", .. } => Some("web.http.listen"),
            Self::WebExposed { .. } | Self::TwoWebs(_) => Some("web.https.listen"),
            Self::Usage(_)
            | Self::Renamed { .. }
            | Self::Unsupported { .. }
            | Self::Unknown { .. }
            | Self::FileUnreadable { .. }
            | Self::File { .. }
            | Self::NotToml(_)
            | Self::WrongKind { .. } => None,
        }
    }

    /// All that is wrong, where a file has several faults.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::File { path, faults } => {
                faults.iter().map(|fault| format!("{}:{fault}", path.display())).collect()
            }
            other => vec![other.to_string()],
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.error)
    }
}

fn meant(nearest: &Option<String>) -> String {
    match nearest {
        Some(table) if names::is_table(table) => format!("the nearest is the table {table}; "),
        Some(nearest) => format!("write {nearest} instead, or "),
        None => String::new(),
    }
}

/// Of a flag that is hardly anything but a slip, in the words of all settings that nobody knows.
pub(super) fn slip(error: &clap::Error) -> Option<ConfigError> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let name = text(ContextKind::InvalidArg)?;
    let nearest = Some(text(ContextKind::SuggestedArg)?);
    Some(ConfigError::Unknown { name, nearest, remedy: "remove it" })
}

fn first(path: &Path, faults: &[Fault]) -> String {
    let path = path.display();
    let (fault, rest) = faults.split_first().expect("a file is refused for its faults");
    match rest.len() {
        0 => format!("{path}:{fault}"),
        more => format!("{path}:{fault} (and {more} more: shardcast check {path})"),
    }
}

/// clap explains itself over several paragraphs; operators grep for one line.
pub(super) fn usage_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    let line = lines.join("; ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}
