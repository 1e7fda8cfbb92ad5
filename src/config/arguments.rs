//! The command line: every setting as an argument, with its variable, its default and what it is for.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use clap::Parser;
use ipnet::IpNet;
use moq_pattern::Pattern;
use rustls::pki_types::ServerName;

use super::Capacity;
use super::values::{
    Web, congestion_parser, format_parser, level_parser, parse_contact, parse_domain,
    parse_duration, parse_fingerprint, parse_host, parse_https, parse_listen, parse_network,
    parse_peer, parse_sessions, parse_shards, parse_switch, parse_web, sessions,
};
use crate::access;
use crate::command;
use crate::limits::{
    CACHE_DURATION_DEFAULT, CACHE_MEMORY_PERCENT_DEFAULT, DRAIN_TIMEOUT_DEFAULT, LINGER_DEFAULT,
    SESSIONS_PER_SOURCE_DEFAULT, SESSIONS_PER_TOKEN_DEFAULT, TRACK_METRICS_MAX,
    UPGRADE_TIMEOUT_DEFAULT,
};
use crate::log::Format;
use crate::origin::OriginPattern;
use crate::quic::CongestionControl;
use crate::wire::HOPS_MAX;

const LISTEN_DEFAULT: &str = "127.0.0.1:4443";

const INTRO: &str = "\
A relay for Media over QUIC Lite: publishers send a broadcast once, shardcast fans it out to \
every viewer. One pinned io_uring executor per core, nothing shared between them.

Without arguments it is a development relay: it listens on 127.0.0.1:4443 with a certificate \
generated for localhost and lets anyone on this machine publish and watch anything. HTTP is at the \
same address: open http://127.0.0.1:4443 to see what is announced.";

const USAGE: &str = "\
shardcast [OPTIONS] [FILE]
       shardcast COMMAND ...";

const EXAMPLES: &str = "\
Examples:
  A development relay on this machine:
    shardcast

  A production relay on every address, where who has a token publishes and everybody watches:
    shardcast --listen '[::]:4443' \\
        --listen-tls-cert /etc/shardcast/cert.pem --listen-tls-key /etc/shardcast/key.pem \\
        --auth-key /etc/shardcast/public.jwk --auth-public-subscribe '**'

  One from the environment, open below anon/ only, on four cores:
    MOQ_LISTEN='[::]:4443' MOQ_LISTEN_TLS_CERT=cert.pem MOQ_LISTEN_TLS_KEY=key.pem \\
        MOQ_AUTH_PUBLIC='anon/**' SHARDCAST_SHARDS=4 shardcast

  Keys and tokens, without a second program:
    shardcast token --help

  What it does, in a terminal, where it has --internal-listen 127.0.0.1:9090:
    shardcast top 127.0.0.1:9090

  All of it in a file, looked at before it is used:
    shardcast check /etc/shardcast/shardcast.toml
    shardcast /etc/shardcast/shardcast.toml

Clients show a token in their URL: https://relay.example/rooms/123?jwt=TOKEN. What it grants is below its \
root; names on the wire are relative to the path of the URL. Files of keys and certificates are read again when \
they change, and sessions whose key is gone are closed.

Arguments win over variables, and variables over the file. Logs go to standard error; RUST_LOG, when set, replaces --log-level.
SIGINT and SIGTERM ask every session to move elsewhere (GOAWAY), close what is left after --drain-timeout \
and exit with 0, or with 1 if something hangs for 8s; a second signal closes all at once, and a third one \
exits at once with 130. SIGHUP has certificates and keys read again.";

#[derive(Debug, Parser)]
#[command(
    name = "shardcast",
    version,
    about = "A relay for Media over QUIC Lite",
    long_about = INTRO,
    override_usage = USAGE,
    after_help = format!("{}\n{EXAMPLES}", command::help()),
    disable_help_flag = true,
    disable_version_flag = true
)]
pub(super) struct Args {
    /// TOML file with settings; arguments and variables win over what is in it. packaging/shardcast.toml has
    /// them all, and `shardcast check FILE` shows what comes of it
    #[arg(value_name = "FILE", help_heading = "File")]
    pub(super) file: Option<PathBuf>,

    /// UDP address to listen on for QUIC; [::]:4443 is every address, IPv6 and IPv4
    #[arg(
        long,
        env = "MOQ_LISTEN",
        value_name = "ADDR",
        default_value = LISTEN_DEFAULT,
        value_parser = parse_listen,
        help_heading = "Network"
    )]
    pub(super) listen: SocketAddr,

    /// TCP address for HTTP (/health, /announced, /fetch, /certificate.sha256): an address, `same`
    /// for that of --listen, or `off` [default: same on loopback, else off]
    #[arg(
        long,
        env = "MOQ_WEB_HTTP_LISTEN",
        value_name = "ADDR",
        value_parser = parse_web,
        help_heading = "Network"
    )]
    pub(super) web_http_listen: Option<Web>,

    /// TCP address for the same over TLS, with the certificates of the QUIC listener: an address, `same` for
    /// that of --listen, or `off` [default: off]
    #[arg(
        long,
        env = "MOQ_WEB_HTTPS_LISTEN",
        value_name = "ADDR",
        value_parser = parse_web,
        help_heading = "Network"
    )]
    pub(super) web_https_listen: Option<Web>,

    /// Whether sessions may begin over HTTP too, as WebSockets, at any path: on or off. Browsers without
    /// WebTransport need that, and whoever is behind a network that carries no UDP
    #[arg(
        long,
        env = "MOQ_WEB_WS",
        value_name = "on|off",
        default_value = "on",
        action = clap::ArgAction::Set,
        value_parser = parse_switch,
        help_heading = "Network"
    )]
    pub(super) web_ws: bool,

    /// TCP address for operators, over HTTP: /metrics for Prometheus, /health, /ready, /sessions. Whoever
    /// reaches it may read all that and close sessions, so it belongs on loopback or into a network of
    /// operators
    #[arg(
        long,
        env = "MOQ_INTERNAL_LISTEN",
        value_name = "ADDR",
        value_parser = parse_listen,
        help_heading = "Operation"
    )]
    pub(super) internal_listen: Option<SocketAddr>,

    /// How long sessions have to move elsewhere when the relay is told to end: they are asked to (GOAWAY), and
    /// closed then; 0s closes them at once
    #[arg(
        long,
        env = "MOQ_DRAIN_TIMEOUT",
        value_name = "DURATION",
        default_value_t = DRAIN_TIMEOUT_DEFAULT.into(),
        value_parser = parse_duration,
        help_heading = "Operation"
    )]
    pub(super) drain_timeout: humantime::Duration,

    /// How long sessions have to move to the process that has taken over (shardcast upgrade): they are asked to,
    /// served meanwhile, and closed then. Browsers stay until that
    #[arg(
        long,
        env = "SHARDCAST_UPGRADE_TIMEOUT",
        value_name = "DURATION",
        default_value_t = UPGRADE_TIMEOUT_DEFAULT.into(),
        value_parser = parse_duration,
        help_heading = "Operation"
    )]
    pub(super) upgrade_timeout: humantime::Duration,

    /// How many tracks have figures of their own in /metrics, the first ones by name; at most 1000
    #[arg(
        long,
        env = "SHARDCAST_TRACK_METRICS",
        value_name = "N",
        default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(..=TRACK_METRICS_MAX as u64),
        help_heading = "Operation"
    )]
    pub(super) track_metrics: u64,

    /// What a connection takes for a sign that its path is full: `delay` is a queue that stands, and bears
    /// links that lose packets or are narrower than the track; `loss` is CUBIC, as everything else has it
    #[arg(
        long,
        env = "MOQ_QUIC_CONGESTION_CONTROL",
        value_name = "FAMILY",
        default_value = CongestionControl::default().name(),
        value_parser = congestion_parser(),
        help_heading = "Network"
    )]
    pub(super) quic_congestion_control: CongestionControl,

    /// Certificate chain, PEM, the server's own certificate first; needs --listen-tls-key. Of several, each
    /// with its key, clients are shown the first that is for the name they dial, else the first. Files are
    /// read again when they change. Repeat it, or separate files with commas
    #[arg(
        long,
        env = "MOQ_LISTEN_TLS_CERT",
        value_name = "FILE",
        value_delimiter = ',',
        help_heading = "Certificate"
    )]
    pub(super) listen_tls_cert: Vec<PathBuf>,

    /// Private key of that certificate, PEM: P-256, RSA or Ed25519
    #[arg(
        long,
        env = "MOQ_LISTEN_TLS_KEY",
        value_name = "FILE",
        value_delimiter = ',',
        help_heading = "Certificate"
    )]
    pub(super) listen_tls_key: Vec<PathBuf>,

    /// Make a self-signed certificate for this host, in memory, valid for 13 days and made anew after 12;
    /// clients must pin its SHA-256 or skip verification. Repeat it, or separate hosts with commas
    #[arg(
        long,
        env = "MOQ_LISTEN_TLS_GENERATE",
        value_name = "HOST",
        value_delimiter = ',',
        value_parser = parse_host,
        help_heading = "Certificate"
    )]
    pub(super) listen_tls_generate: Vec<ServerName<'static>>,

    /// Name for which a certificate is ordered by ACME, and renewed in time: whoever gives it
    /// agrees to the terms of the authority, Let's Encrypt by default. It looks for an answer at
    /// http://DOMAIN/.well-known/acme-challenge/ on port 80, so --web-http-listen has to be there, or where
    /// something leads port 80 to; and --state-dir keeps the certificate. Repeat it, or separate names with
    /// commas
    #[arg(
        long,
        env = "SHARDCAST_ACME_DOMAIN",
        value_name = "DOMAIN",
        value_delimiter = ',',
        value_parser = parse_domain,
        help_heading = "Certificate"
    )]
    pub(super) acme_domain: Vec<String>,

    /// Directory of the ACME authority [default: https://acme-v02.api.letsencrypt.org/directory]
    #[arg(
        long,
        env = "SHARDCAST_ACME_DIRECTORY",
        value_name = "URL",
        value_parser = parse_https,
        help_heading = "Certificate"
    )]
    pub(super) acme_directory: Option<String>,

    /// Whom the authority may write to, by mail; counts when the account is made, with the first order. Repeat
    /// it, or separate addresses with commas
    #[arg(
        long,
        env = "SHARDCAST_ACME_CONTACT",
        value_name = "MAIL",
        value_delimiter = ',',
        value_parser = parse_contact,
        help_heading = "Certificate"
    )]
    pub(super) acme_contact: Vec<String>,

    /// An account with the authority that there is already, as it calls that (External Account Binding): ZeroSSL,
    /// Google and others want one. With --acme-eab-key; counts when the account is made, with the first order
    #[arg(long, env = "SHARDCAST_ACME_EAB_KID", value_name = "KID", help_heading = "Certificate")]
    pub(super) acme_eab_kid: Option<String>,

    /// Key that the authority has given with --acme-eab-kid, in base64 as it has written it
    #[arg(long, env = "SHARDCAST_ACME_EAB_KEY", value_name = "FILE", help_heading = "Certificate")]
    pub(super) acme_eab_key: Option<PathBuf>,

    /// Certificate (PEM) of who vouches for the authority's own server, where that is one of yours; else
    /// those count that this machine trusts
    #[arg(long, env = "SHARDCAST_ACME_ROOT", value_name = "FILE", help_heading = "Certificate")]
    pub(super) acme_root: Option<PathBuf>,

    /// Certificate (PEM) of who issues those of clients, which may then show one. A bad one ends the handshake,
    /// and who shows none comes in as before. It counts for --auth-peer, and an auth server is told of it.
    /// There is no TLS resumption then. Repeat it, or separate files with commas
    #[arg(
        long,
        env = "MOQ_LISTEN_TLS_ROOT",
        value_name = "FILE",
        value_delimiter = ',',
        help_heading = "Certificate"
    )]
    pub(super) listen_tls_root: Vec<PathBuf>,

    /// Key that tokens (JWT) are verified with: a file with a public JWK, or a shared secret, or a set of
    /// keys. What is in it counts as soon as it changes. Repeat it, or separate files with commas
    #[arg(
        long,
        env = "MOQ_AUTH_KEY",
        value_name = "FILE",
        value_delimiter = ',',
        help_heading = "Access"
    )]
    pub(super) auth_key: Vec<PathBuf>,

    /// Directory of such keys: the one with which a token is verified that names key NAME (kid) is
    /// DIR/NAME.jwk
    #[arg(long, env = "MOQ_AUTH_KEY_DIR", value_name = "DIR", help_heading = "Access")]
    pub(super) auth_key_dir: Option<PathBuf>,

    /// Where anyone may publish and watch without a token: ** is everything, anon/** is anon and all below
    /// it, rooms/*/chat has one segment of any name. Repeat it, or separate patterns with commas
    #[arg(
        long,
        env = "MOQ_AUTH_PUBLIC",
        value_name = "PATTERN",
        value_delimiter = ',',
        value_parser = access::rule,
        help_heading = "Access"
    )]
    pub(super) auth_public: Vec<Pattern>,

    /// Where anyone may watch without a token
    #[arg(
        long,
        env = "MOQ_AUTH_PUBLIC_SUBSCRIBE",
        value_name = "PATTERN",
        value_delimiter = ',',
        value_parser = access::rule,
        help_heading = "Access"
    )]
    pub(super) auth_public_subscribe: Vec<Pattern>,

    /// Where anyone may publish without a token
    #[arg(
        long,
        env = "MOQ_AUTH_PUBLIC_PUBLISH",
        value_name = "PATTERN",
        value_delimiter = ',',
        value_parser = access::rule,
        help_heading = "Access"
    )]
    pub(super) auth_public_publish: Vec<Pattern>,

    /// Auth server that is asked who may do what, as moq-relay asks its: https://auth.example/,
    /// unix:///run/auth.sock, or http:// on this machine. It decides alone: there are no keys and no public
    /// rules then. Whoever cannot be asked about is not let in
    #[arg(
        long,
        env = "MOQ_AUTH_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Access"
    )]
    pub(super) auth_url: Option<String>,

    /// A relay of this cluster, by the name in its certificate: the first DNS name, else the common name, else
    /// the SHA-256; needs --listen-tls-root. It may do everything, hears of hidden paths, and its announcements
    /// are believed as with --cluster-address. An auth server is not asked about it. Repeat it, or separate
    /// names with commas
    #[arg(
        long,
        env = "SHARDCAST_AUTH_PEER",
        value_name = "NAME",
        value_delimiter = ',',
        value_parser = parse_peer,
        help_heading = "Access"
    )]
    pub(super) auth_peer: Vec<String>,

    /// Which web pages may use the relay, by their origin: https://app.example, https://*.app.example
    /// or *, which is all. On loopback pages of this machine always may, and others if they are named;
    /// elsewhere all may until some are named. Repeat it, or separate origins with commas
    #[arg(
        long,
        env = "SHARDCAST_ALLOW_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ',',
        help_heading = "Access"
    )]
    pub(super) allow_origin: Vec<OriginPattern>,

    /// Let the newest publisher of a path have it, as moq-relay does; who watches the one before stays with
    /// it while it lives. Otherwise who announced it first keeps it while its session lives, and the others
    /// wait
    #[arg(
        long,
        env = "SHARDCAST_ALLOW_TAKEOVER",
        value_name = "BOOL",
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new(),
        help_heading = "Access"
    )]
    pub(super) allow_takeover: bool,

    /// Whose announcements are believed as those of a relay of this cluster, by address: 10.0.7.1,
    /// 10.0.7.0/24, 2001:db8::/64. What it says of others counts: who published first, over which relays it
    /// came and at what price. Nobody is by default. Repeat it, or separate networks with commas
    #[arg(
        long,
        env = "SHARDCAST_CLUSTER_ADDRESS",
        value_name = "NETWORK",
        value_delimiter = ',',
        value_parser = parse_network,
        help_heading = "Access"
    )]
    pub(super) cluster_address: Vec<IpNet>,

    /// Another relay that there is to be a link with: moqt://HOST:4443 by raw QUIC, https://HOST:4443 by
    /// WebTransport, dns+moqt://NAME:4443 for every address of a name (SRV, A, AAAA). ?cost=N is what routes
    /// cost that cross the link, ?jwt=TOKEN what is shown there. It is dialled for ever, and believed as with
    /// --cluster-address. In the file an entry may be a table with url, cost and token. Repeat it, or separate
    /// URLs with commas
    #[arg(
        long,
        env = "MOQ_CLUSTER_CONNECT",
        value_name = "URL",
        value_delimiter = ',',
        hide_env_values = true,
        help_heading = "Cluster"
    )]
    pub(super) cluster_connect: Vec<String>,

    /// A list of such relays that changes: a file, looked at every two seconds, or an http(s) URL, asked every
    /// 30 seconds: a JSON array of URLs and of objects with url, cost and token. A bad list changes nothing
    #[arg(
        long,
        env = "MOQ_CLUSTER_CONNECT_API",
        value_name = "URL|FILE",
        hide_env_values = true,
        help_heading = "Cluster"
    )]
    pub(super) cluster_connect_api: Option<String>,

    /// The URL of this relay in such lists, which is not dialled; --cluster-connect-api is told it as ?node=
    #[arg(long, env = "MOQ_CLUSTER_NODE", value_name = "URL", help_heading = "Cluster")]
    pub(super) cluster_node: Option<String>,

    /// File with the token that is shown to relays whose entry has none; read again when they are dialled
    #[arg(long, env = "MOQ_CLUSTER_TOKEN", value_name = "FILE", help_heading = "Cluster")]
    pub(super) cluster_token: Option<PathBuf>,

    /// What this relay is known by in chains of hops, another number on each; by default another one at every
    /// start
    #[arg(
        long,
        env = "MOQ_CLUSTER_ID",
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..1 << 53),
        help_heading = "Cluster"
    )]
    pub(super) cluster_id: Option<u64>,

    /// The most hops of a chain that is taken from others; what would be longer with this relay is told to nobody
    #[arg(
        long,
        env = "MOQ_CLUSTER_MAX_HOPS",
        value_name = "N",
        default_value_t = HOPS_MAX as u64,
        value_parser = clap::value_parser!(u64).range(1..=HOPS_MAX as u64),
        help_heading = "Cluster"
    )]
    pub(super) cluster_max_hops: u64,

    /// Certificate (PEM) of who issues those of relays that are dialled, instead of whom this machine trusts.
    /// Repeat it, or separate files with commas
    #[arg(
        long,
        env = "MOQ_CONNECT_TLS_ROOT",
        value_name = "FILE",
        value_delimiter = ',',
        help_heading = "Cluster"
    )]
    pub(super) connect_tls_root: Vec<PathBuf>,

    /// Whether those count too whom this machine trusts [default: true without --connect-tls-root]
    #[arg(
        long,
        env = "MOQ_CONNECT_TLS_SYSTEM_ROOTS",
        value_name = "BOOL",
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new(),
        help_heading = "Cluster"
    )]
    pub(super) connect_tls_system_roots: Option<bool>,

    /// SHA-256 of a certificate, in hex: who shows it is believed, and nobody else. Repeat it, or separate them
    /// with commas
    #[arg(
        long,
        env = "MOQ_CONNECT_TLS_FINGERPRINT",
        value_name = "HEX",
        value_delimiter = ',',
        value_parser = parse_fingerprint,
        help_heading = "Cluster"
    )]
    pub(super) connect_tls_fingerprint: Vec<[u8; 32]>,

    /// Certificate chain (PEM) that this relay shows to those that it dials; needs --connect-tls-key
    #[arg(long, env = "MOQ_CONNECT_TLS_CERT", value_name = "FILE", help_heading = "Cluster")]
    pub(super) connect_tls_cert: Option<PathBuf>,

    /// Private key of that certificate
    #[arg(long, env = "MOQ_CONNECT_TLS_KEY", value_name = "FILE", help_heading = "Cluster")]
    pub(super) connect_tls_key: Option<PathBuf>,

    /// Believe whoever answers. For tests: anybody on the way may read and change what crosses the link
    #[arg(
        long,
        env = "MOQ_CONNECT_TLS_INSECURE",
        value_name = "BOOL",
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new(),
        help_heading = "Cluster"
    )]
    pub(super) connect_tls_insecure: bool,

    /// The name in the certificates of relays that are dialled, instead of the host of their URL
    #[arg(
        long,
        env = "MOQ_CONNECT_TLS_HOST_NAME",
        value_name = "HOST",
        value_parser = parse_host,
        help_heading = "Cluster"
    )]
    pub(super) connect_tls_host_name: Option<ServerName<'static>>,

    /// Sessions at once from one address, of IPv6 from one /64, on the whole relay. More are told to try
    /// again later. Loopback has no bound
    #[arg(
        long,
        env = "SHARDCAST_LIMIT_REMOTE",
        value_name = "N",
        default_value_t = sessions(SESSIONS_PER_SOURCE_DEFAULT),
        value_parser = parse_sessions,
        help_heading = "Access"
    )]
    pub(super) limit_remote: NonZeroU32,

    /// Sessions at once that show one and the same token, on the whole relay
    #[arg(
        long,
        env = "SHARDCAST_LIMIT_TOKEN",
        value_name = "N",
        default_value_t = sessions(SESSIONS_PER_TOKEN_DEFAULT),
        value_parser = parse_sessions,
        help_heading = "Access"
    )]
    pub(super) limit_token: NonZeroU32,

    /// Where --limit-remote does not count: the addresses of proxies, which stand for many. Repeat it, or
    /// separate networks with commas
    #[arg(
        long,
        env = "SHARDCAST_LIMIT_EXEMPT",
        value_name = "NETWORK",
        value_delimiter = ',',
        value_parser = parse_network,
        help_heading = "Access"
    )]
    pub(super) limit_exempt: Vec<IpNet>,

    /// How long the subscription to a publisher is kept, paused, after the last viewer of its
    /// track has left; 0 closes it at once
    #[arg(
        long,
        env = "SHARDCAST_LINGER",
        value_name = "DURATION",
        default_value_t = LINGER_DEFAULT.into(),
        value_parser = parse_duration,
        help_heading = "Cache"
    )]
    pub(super) linger: humantime::Duration,

    /// How much memory the process may use: 8GiB, 512MB, or a percentage of what it may by its cgroup or, where
    /// that has no limit, of the machine's. The cache, what peers are granted and how much may be announced follow
    /// from it. Near it nobody new is let in and the cache shrinks [default: 100%]
    #[arg(long, env = "SHARDCAST_MEMORY_MAX", value_name = "SIZE", help_heading = "Memory")]
    pub(super) memory_max: Option<Capacity>,

    /// How much the cache may hold: 8GiB, 512MB, or a percentage of --memory-max. Every shard has an equal
    /// share
    #[arg(
        long,
        env = "MOQ_CACHE_CAPACITY",
        value_name = "SIZE",
        default_value_t = Capacity::Percent(CACHE_MEMORY_PERCENT_DEFAULT),
        help_heading = "Cache"
    )]
    pub(super) cache_capacity: Capacity,

    /// How long a group is kept that nobody asks for; the newest group of a live track always is
    #[arg(
        long,
        env = "MOQ_CACHE_DURATION",
        value_name = "DURATION",
        default_value_t = CACHE_DURATION_DEFAULT.into(),
        value_parser = parse_duration,
        help_heading = "Cache"
    )]
    pub(super) cache_duration: humantime::Duration,

    /// Number of shards, 1 to 256 [default: one per core this process may use]
    #[arg(
        long,
        env = "SHARDCAST_SHARDS",
        value_name = "N",
        value_parser = parse_shards,
        help_heading = "Runtime"
    )]
    pub(super) shards: Option<NonZeroUsize>,

    /// Directory for secrets that outlast the process, made if it is not there: clients of a relay
    /// that crashed then hear at once that it is back, and not only after their idle timeout. Also where
    /// shardcast upgrade finds the relay
    #[arg(long, env = "SHARDCAST_STATE_DIR", value_name = "DIR", help_heading = "Runtime")]
    pub(super) state_dir: Option<PathBuf>,

    /// How much to log; a released build has no trace, and takes it for debug
    #[arg(
        long,
        env = "MOQ_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info",
        value_parser = level_parser(),
        help_heading = "Runtime"
    )]
    pub(super) log_level: tracing::Level,

    /// How the log is written: `text`, or `json`, one object per line
    #[arg(
        long,
        env = "SHARDCAST_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = Format::default().name(),
        value_parser = format_parser(),
        help_heading = "Log"
    )]
    pub(super) log_format: Format,

    /// Print this help
    #[arg(long, short, action = clap::ArgAction::HelpLong, help_heading = "About")]
    help: Option<bool>,

    /// Print the version
    #[arg(long, short = 'V', action = clap::ArgAction::Version, help_heading = "About")]
    version: Option<bool>,
}
