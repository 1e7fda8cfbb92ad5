//! Arguments and environment, parsed once into checked types.
//!
//! Nothing downstream checks a setting again: a [`Config`] that exists can be run as it is,
//! as far as its words alone can tell.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser};
use ipnet::IpNet;
use moq_pattern::Pattern;
use rustls::pki_types::ServerName;

use crate::access::{self, Grant};
use crate::authority::url::{AuthUrl, UrlError};
use crate::limits::{
    CACHE_DURATION_DEFAULT, CACHE_MEMORY_PERCENT_DEFAULT, LINGER_DEFAULT,
    SESSIONS_PER_SOURCE_DEFAULT, SESSIONS_PER_TOKEN_DEFAULT, SETTING_DURATION_MAX,
};
use crate::origin::{OriginPattern, Origins};
use crate::quic::CongestionControl;
use crate::quic::cid::SHARDS_MAX;
use crate::route::Takeover;
use crate::shard::clients::ClientBounds;

const LISTEN_DEFAULT: &str = "127.0.0.1:4443";

/// Everything the relay was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// UDP address of the QUIC listener. Port 0 asks the kernel to choose.
    pub listen: SocketAddr,
    /// Where HTTP is served; none for nowhere.
    pub web: Option<WebListen>,
    pub identity: IdentitySource,
    pub access: AccessConfig,
    /// The pages of browsers that may use the relay.
    pub origins: Origins,
    /// Where the other relays of the cluster are.
    pub relays: Vec<IpNet>,
    /// How many sessions one client may have.
    pub bounds: ClientBounds,
    /// To whom a path belongs that several broadcasts claim.
    pub takeover: Takeover,
    /// How long an upstream subscription that nobody needs is kept; zero closes it at once.
    pub linger: Duration,
    pub cache: CacheConfig,
    pub congestion_control: CongestionControl,
    /// Where secrets are kept that outlast the process; none for nowhere.
    pub state_dir: Option<PathBuf>,
    /// None: one shard per core this process may use.
    pub shards: Option<NonZeroUsize>,
    pub log_level: tracing::Level,
}

/// Who may do what. There is an auth server, or a key, a rule or a relay.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AccessConfig {
    /// Files with keys that tokens are verified with, and a directory of them.
    pub keys: Vec<PathBuf>,
    pub key_dir: Option<PathBuf>,
    pub public: PublicRules,
    /// Who is asked instead.
    pub server: Option<AuthUrl>,
    /// Files with the certificates of who issues those of clients, and the names of relays in them.
    pub client_roots: Vec<PathBuf>,
    pub peers: Vec<String>,
}

/// What everybody may without a token: patterns of paths.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PublicRules {
    /// To publish and to watch.
    pub both: Vec<Pattern>,
    pub subscribe: Vec<Pattern>,
    pub publish: Vec<Pattern>,
}

/// Where HTTP is served, on TCP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WebListen {
    /// At the address and port of the QUIC listener, which clients expect.
    Same,
    At(SocketAddr),
}

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum IdentitySource {
    Files { cert: PathBuf, key: PathBuf },
    Generated { hosts: Vec<ServerName<'static>> },
}

/// What the whole relay may keep of groups.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheConfig {
    pub capacity: Capacity,
    /// How long a group is kept that nobody asks for.
    pub duration: Duration,
}

/// What the command line asked for.
#[derive(Debug)]
pub enum Request {
    Run(Box<Config>),
    /// `--help` or `--version`, ready to `print()`.
    Show(clap::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0}; see shardcast --help")]
    Usage(String),
    #[error("{old} is the old name of a setting; write {new} instead")]
    Renamed { old: &'static str, new: &'static str },
    #[error("{name} asks for something this relay does not do: {instead}")]
    Unsupported { name: String, instead: &'static str },
    #[error("--listen-tls-cert is given without --listen-tls-key; give both PEM files")]
    CertWithoutKey,
    #[error("--listen-tls-key is given without --listen-tls-cert; give both PEM files")]
    KeyWithoutCert,
    #[error(
        "--listen-tls-generate and --listen-tls-cert are both given; \
         keep the files for production or the generated certificate for tests"
    )]
    TwoCertificates,
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
        "--web-http-listen {0} can be reached from other machines, so it needs a key, public rules or an auth server; \
         run: shardcast --web-http-listen '{0}' --auth-key public.jwk"
    )]
    WebExposed(SocketAddr),
}

impl AccessConfig {
    /// Whether clients may show tokens.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty() || self.key_dir.is_some()
    }

    /// Whether anybody at all is let in.
    fn is_empty(&self) -> bool {
        let has_rules = self.public != PublicRules::default();
        !self.has_keys() && !has_rules && self.server.is_none() && self.peers.is_empty()
    }

    /// Who is let in, in words.
    pub fn words(&self) -> String {
        match &self.server {
            Some(url) => format!("{url} is asked who may do what"),
            None => self.public.to_string(),
        }
    }

    /// Who is let in by certificate, in words.
    pub fn peer_words(&self) -> Option<String> {
        let names = self.peers.join(" ");
        (!names.is_empty()).then(|| format!("may do everything with a certificate: {names}"))
    }

    /// Where the files are, for whoever reads what the relay says at its start.
    pub fn key_places(&self) -> Vec<String> {
        let files = self.keys.iter().map(|file| file.display().to_string());
        files.chain(self.key_dir.as_ref().map(|dir| format!("{}/", dir.display()))).collect()
    }
}

impl PublicRules {
    pub fn grant(&self) -> Grant {
        Grant::public(&self.both, &self.subscribe, &self.publish)
    }

    /// Where an example can both publish and watch, if that is anywhere.
    pub fn example_root(&self) -> Option<&str> {
        self.both.first().map(Pattern::head)
    }

    /// Whether everybody may watch everything.
    pub fn shows_all(&self) -> bool {
        self.both.iter().chain(&self.subscribe).any(|pattern| *pattern == Pattern::all())
    }
}

/// What everybody may, in words.
impl fmt::Display for PublicRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("publish and watch", &self.both),
            ("watch", &self.subscribe),
            ("publish", &self.publish),
        ];
        let kinds = kinds.iter().filter(|(_, patterns)| !patterns.is_empty());
        let said = kinds.map(|(may, patterns)| {
            let patterns: Vec<String> = patterns.iter().map(Pattern::to_string).collect();
            format!("{may} {}", patterns.join(" "))
        });
        match said.collect::<Vec<_>>() {
            none if none.is_empty() => f.write_str("nobody may do anything without a token"),
            said => write!(f, "anyone may {}", said.join(", ")),
        }
    }
}

impl Config {
    /// Reads `args` (program name first). clap itself reads the values of our own variables from
    /// the process; `environment` names every variable that is set, to refuse foreign ones.
    pub fn parse(
        args: impl IntoIterator<Item = OsString>,
        environment: impl IntoIterator<Item = OsString>,
    ) -> Result<Request, ConfigError> {
        let args: Vec<OsString> = args.into_iter().collect();
        refuse_foreign_flags(&args)?;
        refuse_foreign_variables(environment)?;
        let parsed = Args::command()
            .try_get_matches_from(args)
            .and_then(|matches| Args::from_arg_matches(&matches));
        match parsed {
            Ok(args) => args.check().map(|config| Request::Run(Box::new(config))),
            Err(shown) if !shown.use_stderr() => Ok(Request::Show(shown)),
            Err(error) => Err(ConfigError::Usage(usage_line(&error))),
        }
    }
}

const INTRO: &str = "\
A relay for Media over QUIC Lite: publishers send a broadcast once, shardcast fans it out to \
every viewer. One pinned io_uring executor per core, nothing shared between them.

Without arguments it is a development relay: it listens on 127.0.0.1:4443 with a certificate \
generated for localhost and lets anyone on this machine publish and watch anything. HTTP is at the \
same address: open http://127.0.0.1:4443 to see what is announced.";

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

Clients show a token in their URL: https://relay.example/rooms/123?jwt=TOKEN. What it grants is below its \
root; names on the wire are relative to the path of the URL. Files of keys are read again when they change, \
and sessions whose key is gone are closed.

Arguments win over variables. Logs go to standard error; RUST_LOG, when set, replaces --log-level.
SIGINT and SIGTERM close every session and exit with 0, or with 1 after 8s if something hangs; a \
second signal exits at once with 130. SIGHUP is ignored.";

#[derive(Debug, Parser)]
#[command(
    name = "shardcast",
    version,
    about = "A relay for Media over QUIC Lite",
    long_about = INTRO,
    after_help = EXAMPLES,
    disable_help_flag = true,
    disable_version_flag = true
)]
struct Args {
    /// UDP address to listen on for QUIC; [::]:4443 is every address, IPv6 and IPv4
    #[arg(
        long,
        env = "MOQ_LISTEN",
        value_name = "ADDR",
        default_value = LISTEN_DEFAULT,
        value_parser = parse_listen,
        help_heading = "Network"
    )]
    listen: SocketAddr,

    /// TCP address for HTTP (/health, /announced, /fetch, /certificate.sha256): an address, `same`
    /// for that of --listen, or `off` [default: same on loopback, else off]
    #[arg(
        long,
        env = "MOQ_WEB_HTTP_LISTEN",
        value_name = "ADDR",
        value_parser = parse_web,
        help_heading = "Network"
    )]
    web_http_listen: Option<Web>,

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
    quic_congestion_control: CongestionControl,

    /// Certificate chain, PEM, the server's own certificate first; needs --listen-tls-key
    #[arg(long, env = "MOQ_LISTEN_TLS_CERT", value_name = "FILE", help_heading = "Certificate")]
    listen_tls_cert: Option<PathBuf>,

    /// Private key of that certificate, PEM: P-256, RSA or Ed25519
    #[arg(long, env = "MOQ_LISTEN_TLS_KEY", value_name = "FILE", help_heading = "Certificate")]
    listen_tls_key: Option<PathBuf>,

    /// Make a self-signed certificate for this host, in memory, valid for 13 days; clients must
    /// pin its SHA-256 or skip verification. Repeat it, or separate hosts with commas
    #[arg(
        long,
        env = "MOQ_LISTEN_TLS_GENERATE",
        value_name = "HOST",
        value_delimiter = ',',
        value_parser = parse_host,
        help_heading = "Certificate"
    )]
    listen_tls_generate: Vec<ServerName<'static>>,

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
    listen_tls_root: Vec<PathBuf>,

    /// Key that tokens (JWT) are verified with: a file with a public JWK, or a shared secret, or a set of
    /// keys. What is in it counts as soon as it changes. Repeat it, or separate files with commas
    #[arg(
        long,
        env = "MOQ_AUTH_KEY",
        value_name = "FILE",
        value_delimiter = ',',
        help_heading = "Access"
    )]
    auth_key: Vec<PathBuf>,

    /// Directory of such keys: the one with which a token is verified that names key NAME (kid) is
    /// DIR/NAME.jwk
    #[arg(long, env = "MOQ_AUTH_KEY_DIR", value_name = "DIR", help_heading = "Access")]
    auth_key_dir: Option<PathBuf>,

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
    auth_public: Vec<Pattern>,

    /// Where anyone may watch without a token
    #[arg(
        long,
        env = "MOQ_AUTH_PUBLIC_SUBSCRIBE",
        value_name = "PATTERN",
        value_delimiter = ',',
        value_parser = access::rule,
        help_heading = "Access"
    )]
    auth_public_subscribe: Vec<Pattern>,

    /// Where anyone may publish without a token
    #[arg(
        long,
        env = "MOQ_AUTH_PUBLIC_PUBLISH",
        value_name = "PATTERN",
        value_delimiter = ',',
        value_parser = access::rule,
        help_heading = "Access"
    )]
    auth_public_publish: Vec<Pattern>,

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
    auth_url: Option<String>,

    /// A relay of this cluster, by the name in its certificate: the first DNS name, else the common name, else
    /// the SHA-256; needs --listen-tls-root. It may do everything, hears of hidden paths, and its announcements
    /// are believed as with --cluster-address. An auth server is not asked about it. Repeat it, or separate
    /// names with commas
    #[arg(
        long,
        env = "SHARDCAST_AUTH_PEER",
        value_name = "NAME",
        value_delimiter = ',',
        value_parser = clap::builder::NonEmptyStringValueParser::new(),
        help_heading = "Access"
    )]
    auth_peer: Vec<String>,

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
    allow_origin: Vec<OriginPattern>,

    /// Let the newest publisher of a path have it, as moq-relay does; who watches the one before stays with
    /// it while it lives. Otherwise who announced it first keeps it while its session lives, and the others
    /// wait
    #[arg(
        long,
        env = "SHARDCAST_ALLOW_TAKEOVER",
        value_parser = clap::builder::BoolishValueParser::new(),
        help_heading = "Access"
    )]
    allow_takeover: bool,

    /// Whose announcements are believed as those of a relay of this cluster, by address: 10.0.7.1,
    /// 10.0.7.0/24, 2001:db8::/64. What it says of others counts: who published first, over which relays it
    /// came and at what price. Nobody is by default, and nobody is dialled. Repeat it, or separate networks
    /// with commas
    #[arg(
        long,
        env = "SHARDCAST_CLUSTER_ADDRESS",
        value_name = "NETWORK",
        value_delimiter = ',',
        value_parser = parse_network,
        help_heading = "Access"
    )]
    cluster_address: Vec<IpNet>,

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
    limit_remote: NonZeroU32,

    /// Sessions at once that show one and the same token, on the whole relay
    #[arg(
        long,
        env = "SHARDCAST_LIMIT_TOKEN",
        value_name = "N",
        default_value_t = sessions(SESSIONS_PER_TOKEN_DEFAULT),
        value_parser = parse_sessions,
        help_heading = "Access"
    )]
    limit_token: NonZeroU32,

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
    limit_exempt: Vec<IpNet>,

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
    linger: humantime::Duration,

    /// How much the cache may hold: 8GiB, 512MB, or a percentage of the memory this process may
    /// use (the machine's, or its cgroup's limit). Every shard has an equal share
    #[arg(
        long,
        env = "MOQ_CACHE_CAPACITY",
        value_name = "SIZE",
        default_value_t = Capacity::Percent(CACHE_MEMORY_PERCENT_DEFAULT),
        help_heading = "Cache"
    )]
    cache_capacity: Capacity,

    /// How long a group is kept that nobody asks for; the newest group of a live track always is
    #[arg(
        long,
        env = "MOQ_CACHE_DURATION",
        value_name = "DURATION",
        default_value_t = CACHE_DURATION_DEFAULT.into(),
        value_parser = parse_duration,
        help_heading = "Cache"
    )]
    cache_duration: humantime::Duration,

    /// Number of shards, 1 to 256 [default: one per core this process may use]
    #[arg(
        long,
        env = "SHARDCAST_SHARDS",
        value_name = "N",
        value_parser = parse_shards,
        help_heading = "Runtime"
    )]
    shards: Option<NonZeroUsize>,

    /// Directory for secrets that outlast the process, made if it is not there: clients of a relay
    /// that crashed then hear at once that it is back, and not only after their idle timeout
    #[arg(long, env = "SHARDCAST_STATE_DIR", value_name = "DIR", help_heading = "Runtime")]
    state_dir: Option<PathBuf>,

    /// How much to log; a released build has no trace, and takes it for debug
    #[arg(
        long,
        env = "MOQ_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info",
        value_parser = level_parser(),
        help_heading = "Runtime"
    )]
    log_level: tracing::Level,

    /// Print this help
    #[arg(long, short, action = clap::ArgAction::HelpLong, help_heading = "About")]
    help: Option<bool>,

    /// Print the version
    #[arg(long, short = 'V', action = clap::ArgAction::Version, help_heading = "About")]
    version: Option<bool>,
}

/// What the command line says of HTTP.
#[derive(Debug, Clone, Copy)]
enum Web {
    Off,
    On(WebListen),
}

impl Args {
    fn check(self) -> Result<Config, ConfigError> {
        let loopback = self.listen.ip().to_canonical().is_loopback();
        match (&self.listen_tls_cert, &self.listen_tls_key) {
            (Some(_), None) => return Err(ConfigError::CertWithoutKey),
            (None, Some(_)) => return Err(ConfigError::KeyWithoutCert),
            (Some(_), Some(_)) if !self.listen_tls_generate.is_empty() => {
                return Err(ConfigError::TwoCertificates);
            }
            _ => {}
        }
        let mut access = AccessConfig {
            keys: self.auth_key.clone(),
            key_dir: self.auth_key_dir.clone(),
            public: PublicRules {
                both: self.auth_public.clone(),
                subscribe: self.auth_public_subscribe.clone(),
                publish: self.auth_public_publish.clone(),
            },
            server: self.auth_url()?,
            client_roots: self.listen_tls_root.clone(),
            peers: self.auth_peer.clone(),
        };
        match (access.client_roots.is_empty(), access.peers.is_empty()) {
            (true, false) => return Err(ConfigError::PeerWithoutRoot),
            (false, true) if access.server.is_none() => return Err(ConfigError::IdleRoot),
            _ => {}
        }
        if !loopback {
            self.refuse_exposure(&access)?;
        }
        let web = match self.web_http_listen {
            None => loopback.then_some(WebListen::Same),
            Some(Web::Off) => None,
            Some(Web::On(listen)) => Some(listen),
        };
        if let Some(WebListen::At(address)) = web
            && !address.ip().to_canonical().is_loopback()
            && access.is_empty()
        {
            return Err(ConfigError::WebExposed(address));
        }
        if access.is_empty() {
            access.public.both = vec![Pattern::all()];
        }

        let identity = match (self.listen_tls_cert, self.listen_tls_key) {
            (Some(cert), Some(key)) => IdentitySource::Files { cert, key },
            _ if self.listen_tls_generate.is_empty() => IdentitySource::Generated {
                hosts: vec![ServerName::try_from("localhost").expect("localhost is a DNS name")],
            },
            _ => IdentitySource::Generated { hosts: self.listen_tls_generate },
        };
        let origins = match !loopback && self.allow_origin.is_empty() {
            true => Origins::All,
            false => Origins::Some { patterns: self.allow_origin, local: loopback },
        };
        Ok(Config {
            listen: self.listen,
            web,
            identity,
            access,
            origins,
            relays: self.cluster_address,
            bounds: ClientBounds {
                per_source: self.limit_remote.get(),
                per_token: self.limit_token.get(),
                exempt: self.limit_exempt,
            },
            takeover: match self.allow_takeover {
                true => Takeover::Allowed,
                false => Takeover::Refused,
            },
            linger: self.linger.into(),
            cache: CacheConfig {
                capacity: self.cache_capacity,
                duration: self.cache_duration.into(),
            },
            congestion_control: self.quic_congestion_control,
            state_dir: self.state_dir,
            shards: self.shards,
            log_level: self.log_level,
        })
    }

    /// There may be a password in it, so that clap does not get to show it.
    fn auth_url(&self) -> Result<Option<AuthUrl>, ConfigError> {
        let Some(text) = &self.auth_url else { return Ok(None) };
        let url = text
            .parse()
            .map_err(|reason| ConfigError::AuthUrl { shown: access::shown(text), reason })?;
        let others = [
            ("--auth-key", !self.auth_key.is_empty()),
            ("--auth-key-dir", self.auth_key_dir.is_some()),
            ("--auth-public", !self.auth_public.is_empty()),
            ("--auth-public-subscribe", !self.auth_public_subscribe.is_empty()),
            ("--auth-public-publish", !self.auth_public_publish.is_empty()),
        ];
        match others.into_iter().find(|(_, is_given)| *is_given) {
            Some((other, _)) => Err(ConfigError::TwoJudges { other }),
            None => Ok(Some(url)),
        }
    }

    /// The defaults are for one machine. Who opens the relay to others says with which
    /// certificate and to whom, so that nobody does it by changing an address alone.
    fn refuse_exposure(&self, access: &AccessConfig) -> Result<(), ConfigError> {
        let named = self.listen_tls_cert.is_some() || !self.listen_tls_generate.is_empty();
        let missing = match (named, access.is_empty()) {
            (true, false) => return Ok(()),
            (false, true) => "a certificate, and a key, public rules or an auth server",
            (false, false) => "a certificate (or --listen-tls-generate HOST for a test)",
            (true, true) => {
                "a key (or public rules: --auth-public 'anon/**', or an auth server: --auth-url URL)"
            }
        };
        let certificate = match (&self.listen_tls_cert, &self.listen_tls_key) {
            (Some(cert), Some(key)) => {
                format!("--listen-tls-cert {} --listen-tls-key {}", cert.display(), key.display())
            }
            _ if named => format!("--listen-tls-generate {}", join(self.hosts())),
            _ => "--listen-tls-cert cert.pem --listen-tls-key key.pem".to_owned(),
        };
        let mut args = vec![format!("--listen '{}'", self.listen), certificate];
        let roots = access.client_roots.iter();
        args.extend(roots.map(|root| format!("--listen-tls-root {}", root.display())));
        args.extend(access.peers.iter().map(|name| format!("--auth-peer '{name}'")));
        args.extend(access.key_dir.iter().map(|dir| format!("--auth-key-dir {}", dir.display())));
        args.extend(access.keys.iter().map(|key| format!("--auth-key {}", key.display())));
        args.extend(access.server.iter().map(|url| format!("--auth-url {url}")));
        let PublicRules { both, subscribe, publish } = &access.public;
        for (kind, patterns) in [("", both), ("-subscribe", subscribe), ("-publish", publish)] {
            if !patterns.is_empty() {
                args.push(format!("--auth-public{kind} '{}'", join(patterns)));
            }
        }
        if access.is_empty() {
            args.push("--auth-key public.jwk".to_owned());
        }
        let command = format!("shardcast {}", args.join(" "));
        Err(ConfigError::Exposed { listen: self.listen, missing, command })
    }

    fn hosts(&self) -> impl Iterator<Item = impl fmt::Display> {
        self.listen_tls_generate.iter().map(ServerName::to_str)
    }
}

fn join(items: impl IntoIterator<Item = impl fmt::Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(",")
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "not an IP address with a port; write 127.0.0.1:4443, 0.0.0.0:4443 or [::]:4443".to_owned()
    })
}

fn parse_web(text: &str) -> Result<Web, String> {
    match text {
        "off" => Ok(Web::Off),
        "same" => Ok(Web::On(WebListen::Same)),
        _ => text.parse().map(|address| Web::On(WebListen::At(address))).map_err(|_| {
            "not an IP address with a port; write 127.0.0.1:8080, [::]:8080, same or off".to_owned()
        }),
    }
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let address = text.parse::<IpAddr>().map(IpNet::from);
    let network = address.or_else(|_| text.parse::<IpNet>());
    network.map(|network| network.trunc()).map_err(|_| {
        "not an address or a network, without a port; write 10.0.7.1, 10.0.7.0/24 or 2001:db8::/64"
            .to_owned()
    })
}

fn parse_host(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_owned())
        .map_err(|_| "not a host name or IP address; write relay.example.com".to_owned())
}

fn parse_sessions(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("not a number from 1 to {}", u32::MAX))
}

fn sessions(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("a default that lets somebody in")
}

fn parse_shards(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .ok()
        .filter(|shards: &NonZeroUsize| shards.get() <= SHARDS_MAX)
        .ok_or_else(|| format!("not a number from 1 to {SHARDS_MAX}"))
}

fn parse_duration(text: &str) -> Result<humantime::Duration, String> {
    let text = text.trim();
    let Ok(duration) = text.parse::<humantime::Duration>() else {
        return Err(match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => format!("a number without its unit; write {text}s or {text}ms"),
            false => "not a duration; write 500ms, 30s, 5m or 1h".to_owned(),
        });
    };
    if *duration > SETTING_DURATION_MAX {
        let most = humantime::format_duration(SETTING_DURATION_MAX);
        return Err(format!("longer than {most} (m is minutes, M is months)"));
    }
    Ok(duration)
}

fn congestion_parser() -> impl TypedValueParser<Value = CongestionControl> {
    PossibleValuesParser::new(CongestionControl::ALL.map(CongestionControl::name)).map(|name| {
        let named = CongestionControl::ALL.into_iter().find(|control| control.name() == name);
        named.expect("one of the names")
    })
}

fn level_parser() -> impl TypedValueParser<Value = tracing::Level> {
    PossibleValuesParser::new(["error", "warn", "info", "debug", "trace"])
        .map(|name| name.parse().expect("the names are tracing's own"))
}

/// clap explains itself over several paragraphs; operators grep for one line.
fn usage_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    let line = lines.join("; ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    match error.kind() {
        ErrorKind::UnknownArgument if !line.contains("'-") => {
            format!("{line}: there is no configuration file, every setting is a flag or a variable")
        }
        _ => line.to_owned(),
    }
}

/// How much the cache of the whole relay may hold: `8GiB`, `512MB`, `1500000000`, or `75%` of the
/// memory that this process may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Capacity {
    /// Never zero.
    Bytes(u64),
    /// Above 0, at most 100.
    Percent(f64),
}

impl Capacity {
    /// The capacity where the process may use `memory` bytes.
    pub fn bytes(self, memory: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (memory as f64 * percent / 100.0) as u64,
        }
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapacityError {
    #[error("not a size; write 8GiB, 512MB, 1500000000 or 25%")]
    NotASize,
    #[error(
        "{0:?} is not a unit; write KiB, MiB, GiB or TiB, KB, MB, GB or TB, or % of the memory"
    )]
    Unit(String),
    #[error("more than there is; write 1% to 100%")]
    MoreThanAll,
    #[error(
        "0 may mean no cache or no bound, and there is neither; write 64MiB for a small cache or \
         75% for a large one"
    )]
    Zero,
}

impl FromStr for Capacity {
    type Err = CapacityError;

    fn from_str(text: &str) -> Result<Self, CapacityError> {
        let text = text.trim();
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, unit) = text.split_at(text.find(|c| !is_number(c)).unwrap_or(text.len()));
        let number: f64 = number.parse().map_err(|_| CapacityError::NotASize)?;
        let unit = unit.trim_start();
        let factor = match unit.to_ascii_lowercase().as_str() {
            "%" if number == 0.0 => return Err(CapacityError::Zero),
            "%" if number > 100.0 => return Err(CapacityError::MoreThanAll),
            "%" => return Ok(Self::Percent(number)),
            "" | "b" => 1.0,
            "k" | "kb" => 1e3,
            "m" | "mb" => 1e6,
            "g" | "gb" => 1e9,
            "t" | "tb" => 1e12,
            "kib" | "ki" => (1u64 << 10) as f64,
            "mib" | "mi" => (1u64 << 20) as f64,
            "gib" | "gi" => (1u64 << 30) as f64,
            "tib" | "ti" => (1u64 << 40) as f64,
            _ => return Err(CapacityError::Unit(unit.to_owned())),
        };
        match (number * factor) as u64 {
            0 => Err(CapacityError::Zero),
            bytes => Ok(Self::Bytes(bytes)),
        }
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Flags and variables of the existing relay, so that its users are told the new word and not
/// just "unknown".
struct Foreign {
    names: &'static [&'static str],
    instead: Instead,
}

enum Instead {
    /// The same setting has another name here.
    Write(&'static str),
    /// There is no such setting; this is what to know.
    Know(&'static str),
}

const OLD_SERVER: &str = "the auth server of older relays is asked in another way; remove it and use --auth-url URL, --auth-key FILE or --auth-public PATTERN";

const FOREIGN: &[Foreign] = &[
    Foreign {
        names: &["--server-bind", "--bind", "MOQ_SERVER_BIND"],
        instead: Instead::Write("--listen (MOQ_LISTEN)"),
    },
    Foreign {
        names: &["--tls-cert", "--server-tls-cert", "MOQ_SERVER_TLS_CERT"],
        instead: Instead::Write("--listen-tls-cert (MOQ_LISTEN_TLS_CERT)"),
    },
    Foreign {
        names: &["--tls-key", "--server-tls-key", "MOQ_SERVER_TLS_KEY"],
        instead: Instead::Write("--listen-tls-key (MOQ_LISTEN_TLS_KEY)"),
    },
    Foreign {
        names: &["--tls-generate", "--server-tls-generate", "MOQ_SERVER_TLS_GENERATE"],
        instead: Instead::Write("--listen-tls-generate (MOQ_LISTEN_TLS_GENERATE)"),
    },
    Foreign {
        names: &["--runtime-workers", "MOQ_RUNTIME_WORKERS"],
        instead: Instead::Write("--shards (SHARDCAST_SHARDS)"),
    },
    Foreign {
        names: &["--runtime-io-uring", "--runtime-pin", "MOQ_RUNTIME_IO_URING", "MOQ_RUNTIME_PIN"],
        instead: Instead::Know("shards are always pinned and always on io_uring; remove it"),
    },
    Foreign {
        names: &["--auth-api", "--auth-public-api", "MOQ_AUTH_API", "MOQ_AUTH_PUBLIC_API"],
        instead: Instead::Know(OLD_SERVER),
    },
    Foreign {
        names: &["--server-tls-root", "MOQ_SERVER_TLS_ROOT"],
        instead: Instead::Write("--listen-tls-root (MOQ_LISTEN_TLS_ROOT)"),
    },
    Foreign {
        names: &["--cache-headroom", "MOQ_CACHE_HEADROOM"],
        instead: Instead::Know("the cache has one bound; remove it and use --cache-capacity SIZE"),
    },
    Foreign {
        names: &["--cluster-linger", "MOQ_CLUSTER_LINGER"],
        instead: Instead::Know(
            "a broadcast ends with its last publisher; remove it (--linger is about viewers)",
        ),
    },
    Foreign {
        names: &[
            "--web-https-listen",
            "--web-https-cert",
            "--web-https-key",
            "--web-https-root",
            "MOQ_WEB_HTTPS_LISTEN",
            "MOQ_WEB_HTTPS_CERT",
            "MOQ_WEB_HTTPS_KEY",
            "MOQ_WEB_HTTPS_ROOT",
        ],
        instead: Instead::Know(
            "HTTP is served without TLS; remove it, and put a TLS proxy before --web-http-listen",
        ),
    },
    Foreign {
        names: &["--web-ws", "MOQ_WEB_WS"],
        instead: Instead::Know("there are no WebSockets here; remove it"),
    },
    Foreign {
        names: &["--file"],
        instead: Instead::Know("every setting is a flag or a variable, see shardcast --help"),
    },
];

fn refuse_foreign(used: &str) -> Result<(), ConfigError> {
    for row in FOREIGN {
        // The table's own spelling lives as long as the error does.
        if let Some(old) = row.names.iter().find(|name| **name == used) {
            return Err(match row.instead {
                Instead::Write(new) => ConfigError::Renamed { old, new },
                Instead::Know(instead) => {
                    ConfigError::Unsupported { name: used.to_owned(), instead }
                }
            });
        }
    }
    Ok(())
}

fn refuse_foreign_flags(args: &[OsString]) -> Result<(), ConfigError> {
    for arg in args.iter().skip(1).filter_map(|arg| arg.to_str()) {
        let name = arg.split_once('=').map_or(arg, |(name, _)| name);
        refuse_foreign(name)?;
    }
    Ok(())
}

/// A variable cannot be mistyped on purpose the way a flag can: one that once kept a relay closed
/// would be ignored in silence and leave it open. So whole families are ours or refused.
fn refuse_foreign_variables(
    environment: impl IntoIterator<Item = OsString>,
) -> Result<(), ConfigError> {
    const FAMILIES: &[&str] =
        &["MOQ_LISTEN", "MOQ_SERVER_", "MOQ_WEB_", "MOQ_AUTH_", "MOQ_RUNTIME_", "MOQ_CACHE_"];
    let command = Args::command();
    let is_ours = |name: &str| {
        command.get_arguments().any(|arg| arg.get_env().is_some_and(|variable| variable == name))
    };
    for name in environment {
        let Some(name) = name.to_str() else { continue };
        refuse_foreign(name)?;
        if FAMILIES.iter().any(|family| name.starts_with(family)) && !is_ours(name) {
            return Err(ConfigError::Unsupported {
                name: name.to_owned(),
                instead: "there is no such setting; unset it, and see shardcast --help",
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expect` is a summary of the configuration, or words of the refusal.
    #[track_caller]
    fn check(args: &str, expect: Result<&str, &[&str]>) {
        check_with(args, &[], expect);
    }

    #[track_caller]
    fn check_with(args: &str, environment: &[&str], expect: Result<&str, &[&str]>) {
        let args = ["shardcast"].into_iter().chain(args.split_whitespace());
        let got = Config::parse(args.map(OsString::from), environment.iter().map(OsString::from));
        match (got, expect) {
            (Ok(Request::Run(config)), Ok(summary)) => assert_eq!(summarise(&config), summary),
            (Ok(Request::Show(text)), Ok(words)) => {
                let text = text.to_string();
                assert!(text.contains(words), "{text:?} lacks {words:?}");
            }
            (Err(error), Err(words)) => {
                let line = error.to_string();
                assert!(!line.contains('\n'), "more than one line: {line:?}");
                for word in words {
                    assert!(line.contains(word), "{line:?} lacks {word:?}");
                }
            }
            (got, expect) => panic!("got {got:?}, expected {expect:?}"),
        }
    }

    fn summarise(config: &Config) -> String {
        let identity = match &config.identity {
            IdentitySource::Files { cert, key } => format!("{}+{}", cert.display(), key.display()),
            IdentitySource::Generated { hosts } => join(hosts.iter().map(ServerName::to_str)),
        };
        let shards = config.shards.map_or("auto".into(), |n| n.to_string());
        let AccessConfig { public, .. } = &config.access;
        let rules = [("", &public.both), ("sub:", &public.subscribe), ("pub:", &public.publish)];
        let rules = rules.iter().filter(|(_, patterns)| !patterns.is_empty());
        let rules = rules.map(|(kind, patterns)| format!("{kind}{}", join(*patterns)));
        let keys = config.access.key_places().into_iter();
        let server = config.access.server.iter().map(|url| format!("asks:{url}"));
        let keys = keys.map(|key| format!("key:{key}"));
        let peers = config.access.peers.iter().map(|name| format!("peer:{name}"));
        let access: Vec<String> = rules.chain(keys).chain(server).chain(peers).collect();
        let (listen, access, level) = (config.listen, access.join("+"), config.log_level);
        format!("{listen} {identity} {access} {shards} {level}")
    }

    #[test]
    fn development_relay() {
        check("", Ok("127.0.0.1:4443 localhost ** auto INFO"));
        check("--listen [::1]:0", Ok("[::1]:0 localhost ** auto INFO"));
        check("--listen [::ffff:127.0.0.1]:1", Ok("[::ffff:127.0.0.1]:1 localhost ** auto INFO"));
        check("--shards 1", Ok("127.0.0.1:4443 localhost ** 1 INFO"));
        check("--shards=256 --log-level trace", Ok("127.0.0.1:4443 localhost ** 256 TRACE"));
        check("--auth-public anon/**", Ok("127.0.0.1:4443 localhost anon/** auto INFO"));
    }

    #[test]
    fn production_relay() {
        check(
            "--listen 0.0.0.0:443 --listen-tls-cert c --listen-tls-key k --auth-public a/**,b/c/**",
            Ok("0.0.0.0:443 c+k a/**,b/c/** auto INFO"),
        );
        check(
            "--listen [::]:4443 --listen-tls-generate a.example --listen-tls-generate b.example,10.0.0.1 \
             --auth-public ** --auth-public x/**",
            Ok("[::]:4443 a.example,b.example,10.0.0.1 **,x/** auto INFO"),
        );
    }

    #[test]
    fn who_may_do_what() {
        let here = "127.0.0.1:4443 localhost";
        for (args, access) in [
            // A key closes what is open without any.
            ("--auth-key a.jwk", "key:a.jwk"),
            ("--auth-key a.jwk,b.jwk --auth-key c.jwk", "key:a.jwk+key:b.jwk+key:c.jwk"),
            ("--auth-key-dir /keys --auth-key a", "key:a+key:/keys/"),
            ("--auth-public-subscribe ** --auth-key a", "sub:**+key:a"),
            ("--auth-public-publish in/*,x/**/y", "pub:in/*,x/**/y"),
            ("--auth-url https://me:pw@auth.example/x?y", "asks:https://auth.example/x"),
            ("--auth-url unix:///run/a.sock", "asks:unix:///run/a.sock"),
            ("--auth-public anon/** --auth-public-subscribe live/cam-*", "anon/**+sub:live/cam-*"),
        ] {
            check(args, Ok(&format!("{here} {access} auto INFO")));
        }
        check("--auth-public-subscribe anon", Err(&["'anon'", "write anon/**"]));
        check("--auth-public-publish /a/**", Err(&["'/a/**'", "not a pattern"]));
        check("--auth-public a/b**", Err(&["'a/b**'", "not a pattern"]));
        check(
            "--auth-url http://me:pw@far.example",
            Err(&["--auth-url http://far.example: tokens would"]),
        );
        check("--auth-url auth.sock", Err(&["--auth-url auth.sock", "unix:///run/auth.sock"]));
        for other in ["--auth-key a", "--auth-key-dir a", "--auth-public-subscribe **"] {
            let name = other.split(' ').next().unwrap();
            check(&format!("--auth-url https://a/ {other}"), Err(&[name, "decides alone"]));
        }
        check("--auth-key-dir a --auth-key-dir b", Err(&["multiple times"]));
    }

    #[test]
    fn what_everybody_may_is_said() {
        for (args, words) in [
            ("", "anyone may publish and watch **"),
            ("--auth-key a", "nobody may do anything without a token"),
            ("--auth-key a --auth-public-subscribe a/**,b/**", "anyone may watch a/** b/**"),
            (
                "--auth-public a/** --auth-public-publish b/** --auth-public-subscribe c/**",
                "anyone may publish and watch a/**, watch c/**, publish b/**",
            ),
        ] {
            assert_eq!(parsed(args).access.public.to_string(), words, "{args:?}");
        }
    }

    #[test]
    fn beyond_loopback_is_a_decision() {
        check(
            "--listen 0.0.0.0:4443",
            Err(&[
                "a certificate, and a key, public rules or an auth server",
                "run: shardcast --listen '0.0.0.0:4443' --listen-tls-cert cert.pem \
                 --listen-tls-key key.pem --auth-key public.jwk",
            ]),
        );
        check(
            "--listen [::]:1 --auth-key a --auth-key b --auth-key-dir d --auth-public-subscribe **",
            Err(&["--auth-key-dir d --auth-key a --auth-key b --auth-public-subscribe '**'"]),
        );
        for who in ["--auth-key a", "--auth-key-dir a", "--auth-public-publish a/**"] {
            parsed(&format!("--listen [::]:1 --listen-tls-generate a.example {who}"));
        }
        check(
            "--listen [::]:1 --auth-public live/**",
            Err(&["needs a certificate (or", "--listen '[::]:1'", "--auth-public 'live/**'"]),
        );
        check(
            "--listen [::]:1 --listen-tls-cert /c --listen-tls-key /k",
            Err(&["needs a key (or", "--listen-tls-cert /c --listen-tls-key /k"]),
        );
        check(
            "--listen 10.0.0.1:1 --listen-tls-generate a.example",
            Err(&["needs a key (or", "--listen-tls-generate a.example"]),
        );
    }

    #[track_caller]
    fn check_web(args: &str, expect: Option<WebListen>) {
        let args = ["shardcast"].into_iter().chain(args.split_whitespace());
        let request = Config::parse(args.map(OsString::from), []);
        let Ok(Request::Run(config)) = request else { panic!("got {request:?}") };
        assert_eq!(config.web, expect);
    }

    #[test]
    fn http_is_beside_a_development_relay_and_elsewhere_on_request() {
        let at = |text: &str| Some(WebListen::At(text.parse().unwrap()));
        check_web("", Some(WebListen::Same));
        check_web("--listen [::1]:0", Some(WebListen::Same));
        check_web("--web-http-listen off", None);
        check_web("--web-http-listen 127.0.0.1:8080", at("127.0.0.1:8080"));
        let open = "--listen [::]:1 --listen-tls-cert c --listen-tls-key k --auth-public a/**";
        check_web(open, None);
        check_web(&format!("{open} --web-http-listen same"), Some(WebListen::Same));
        check_web(&format!("{open} --web-http-listen [::]:80"), at("[::]:80"));
        check_web("--web-http-listen 0.0.0.0:80 --auth-public a/**", at("0.0.0.0:80"));
    }

    #[test]
    fn how_many_sessions_a_client_may_have() {
        assert_eq!(parsed("").bounds, ClientBounds::default());
        let args = "--limit-remote 20 --limit-token 1 --limit-exempt 10.0.7.9/24,192.0.2.1";
        let bounds = parsed(args).bounds;
        assert_eq!((bounds.per_source, bounds.per_token), (20, 1));
        let exempt: Vec<String> = bounds.exempt.iter().map(IpNet::to_string).collect();
        assert_eq!(exempt, ["10.0.7.0/24", "192.0.2.1/32"]);
        for wrong in ["0", "-1", "many"] {
            check(&format!("--limit-remote={wrong}"), Err(&["--limit-remote", "from 1 to"]));
        }
        check("--limit-token=0", Err(&["--limit-token", "from 1 to"]));
        check("--limit-exempt proxy", Err(&["'proxy'", "write 10.0.7.1, 10.0.7.0/24"]));
    }

    #[test]
    fn http_out_of_range() {
        check("--web-http-listen 8080", Err(&["'8080'", "--web-http-listen", "same or off"]));
        check("--web-http-listen on", Err(&["'on'", "127.0.0.1:8080"]));
        check(
            "--web-http-listen 0.0.0.0:8080",
            Err(&[
                "--web-http-listen 0.0.0.0:8080",
                "a key, public rules or an auth server",
                "--auth-key public.jwk",
            ]),
        );
        check("--web-https-listen [::]:443", Err(&["--web-https-listen", "TLS proxy"]));
        check("--web-ws true", Err(&["--web-ws", "WebSockets"]));
        check_with("", &["MOQ_WEB_HTTPS_CERT"], Err(&["MOQ_WEB_HTTPS_CERT", "TLS proxy"]));
        check_with("", &["MOQ_WEB_PORT"], Err(&["MOQ_WEB_PORT", "unset it"]));
    }

    #[test]
    fn certificates_come_in_pairs() {
        check("--listen-tls-cert c", Err(&["without --listen-tls-key"]));
        check("--listen-tls-key k", Err(&["without --listen-tls-cert"]));
        check(
            "--listen-tls-cert c --listen-tls-key k --listen-tls-generate localhost",
            Err(&["both given"]),
        );
    }

    #[test]
    fn certificates_of_clients() {
        let here = "127.0.0.1:4443 localhost";
        let root = "--listen-tls-root ca.pem";
        check(&format!("{root} --auth-peer a,b"), Ok(&format!("{here} peer:a+peer:b auto INFO")));
        check(
            &format!("{root},old.pem --auth-peer a --auth-public x/**"),
            Ok(&format!("{here} x/**+peer:a auto INFO")),
        );
        let server = "--auth-url http://localhost:1/";
        let asks = "asks:http://localhost:1/";
        check(&format!("{root} {server}"), Ok(&format!("{here} {asks} auto INFO")));
        check(
            &format!("{root} {server} --auth-peer a"),
            Ok(&format!("{here} {asks}+peer:a auto INFO")),
        );
        check("--auth-peer a", Err(&["--auth-peer is given without --listen-tls-root"]));
        check(&format!("{root} --auth-peer="), Err(&["--auth-peer"]));
        for others in ["", "--auth-public **", "--auth-key k"] {
            let idle = ["nobody asks for certificates", "--auth-peer NAME", "--auth-url URL"];
            check(&format!("{root} {others}"), Err(&idle));
        }
        check(
            &format!("--listen [::]:443 {root} --auth-peer a"),
            Err(&["needs a certificate (or", "--listen-tls-root ca.pem --auth-peer 'a'"]),
        );
        check(
            &format!("--listen [::]:443 --listen-tls-generate x.example {root} --auth-peer a"),
            Ok("[::]:443 x.example peer:a auto INFO"),
        );
        check("--server-tls-root ca.pem", Err(&["write --listen-tls-root (MOQ_LISTEN_TLS_ROOT)"]));
    }

    #[test]
    fn values_out_of_range() {
        check("--shards 0", Err(&["'0'", "--shards", "from 1 to 256"]));
        check("--shards 1000", Err(&["'1000'", "from 1 to 256"]));
        check("--shards -1", Err(&["-1"]));
        check("--shards two", Err(&["'two'", "from 1 to 256"]));
        check("--listen localhost:4443", Err(&["'localhost:4443'", "write 127.0.0.1:4443"]));
        check("--listen 4443", Err(&["'4443'", "write 127.0.0.1:4443"]));
        check("--log-level loud", Err(&["'loud'", "possible values: error, warn, info"]));
        check("--listen-tls-generate a_b/c", Err(&["'a_b/c'", "host name"]));
        check("--auth-public anon", Err(&["'anon'", "write anon/**"]));
    }

    #[track_caller]
    fn parsed(args: &str) -> Config {
        let args = ["shardcast"].into_iter().chain(args.split_whitespace());
        let request = Config::parse(args.map(OsString::from), []);
        let Ok(Request::Run(config)) = request else { panic!("got {request:?}") };
        *config
    }

    #[test]
    fn who_is_believed() {
        let config = parsed("");
        assert_eq!((config.takeover, config.relays.len()), (Takeover::Refused, 0));
        let config =
            parsed("--allow-takeover --cluster-address 10.0.7.1,10.0.8.9/24,2001:db8::1/64");
        assert_eq!(config.takeover, Takeover::Allowed);
        let networks = config.relays.iter().map(IpNet::to_string).collect::<Vec<_>>();
        assert_eq!(networks, ["10.0.7.1/32", "10.0.8.0/24", "2001:db8::/64"]);
        check("--cluster-address relay-2", Err(&["'relay-2'", "write 10.0.7.1, 10.0.7.0/24"]));
        check("--cluster-address 10.0.7.0/33", Err(&["'10.0.7.0/33'"]));
    }

    #[track_caller]
    fn check_cache(args: &str, linger_ms: u64, capacity: Capacity, duration_ms: u64) {
        let config = parsed(args);
        assert_eq!(config.linger, Duration::from_millis(linger_ms));
        let duration = Duration::from_millis(duration_ms);
        assert_eq!(config.cache, CacheConfig { capacity, duration });
    }

    #[test]
    fn cache() {
        use Capacity::{Bytes, Percent};
        check_cache("", 5000, Percent(25.0), 30_000);
        check_cache("--linger 0", 0, Percent(25.0), 30_000);
        check_cache("--linger 0s --cache-duration 0", 0, Percent(25.0), 0);
        check_cache(
            "--linger 1500ms --cache-capacity 8GiB --cache-duration=5m",
            1500,
            Bytes(8 << 30),
            300_000,
        );
        check_cache("--cache-capacity 75% --cache-duration 1h", 5000, Percent(75.0), 3_600_000);
        // What the existing relay takes, spaces aside.
        check_cache("--cache-duration 1m30s --linger 2.5s", 2500, Percent(25.0), 90_000);
        check_cache("--cache-duration 30days", 5000, Percent(25.0), 2_592_000_000);
    }

    #[test]
    fn cache_out_of_range() {
        check("--linger 5", Err(&["'5'", "--linger", "without its unit; write 5s or 5ms"]));
        check("--linger=-5s", Err(&["'-5s'", "not a duration; write 500ms, 30s, 5m or 1h"]));
        check("--linger soon", Err(&["'soon'", "not a duration"]));
        check("--linger=", Err(&["--linger"]));
        check("--cache-duration 30", Err(&["'30'", "--cache-duration", "30s or 30ms"]));
        check("--cache-duration 30S", Err(&["'30S'", "not a duration"]));
        check("--cache-duration 5M", Err(&["'5M'", "longer than 30days", "M is months"]));
        check("--linger 99999999999999999999s", Err(&["not a duration"]));
        check("--cache-capacity 0", Err(&["'0'", "--cache-capacity", "no cache or no bound"]));
        check("--cache-capacity 8PB", Err(&["'8PB'", "\"PB\" is not a unit", "GiB"]));
        check("--cache-capacity 101%", Err(&["'101%'", "write 1% to 100%"]));
        check("--cache-capacity lots", Err(&["'lots'", "not a size; write 8GiB"]));
    }

    #[test]
    fn origins() {
        let some = |local, patterns: &[&str]| Origins::Some {
            patterns: patterns.iter().map(|text| text.parse().unwrap()).collect(),
            local,
        };
        assert_eq!(parsed("").origins, some(true, &[]));
        assert_eq!(parsed("--allow-origin null").origins, some(true, &["null"]));
        let open = "--listen [::]:1 --listen-tls-cert c --listen-tls-key k --auth-public a/**";
        assert_eq!(parsed(open).origins, Origins::All);
        let named = format!("{open} --allow-origin https://a.example,https://*.b.example");
        assert_eq!(
            parsed(&named).origins,
            some(false, &["https://a.example", "https://*.b.example"])
        );
        check("--allow-origin a.example", Err(&["'a.example'", "write https://app.example"]));
    }

    #[test]
    fn congestion_control() {
        for (args, expect) in [
            ("", CongestionControl::Delay),
            ("--quic-congestion-control loss", CongestionControl::Loss),
            ("--quic-congestion-control=delay", CongestionControl::Delay),
        ] {
            assert_eq!(parsed(args).congestion_control, expect, "{args:?}");
        }
        let named = ["'bbr'", "--quic-congestion-control", "loss, delay"];
        check("--quic-congestion-control bbr", Err(&named));
    }

    #[test]
    fn unknown_words() {
        check("--lisen 127.0.0.1:1", Err(&["'--lisen'", "similar", "'--listen'", "--help"]));
        check("relay.toml", Err(&["'relay.toml'", "no configuration file"]));
        check("--listen", Err(&["a value is required", "--listen"]));
        check("--listen 127.0.0.1:1 --listen 127.0.0.1:2", Err(&["multiple times"]));
    }

    #[test]
    fn names_of_the_existing_relay() {
        check("--server-bind [::]:443", Err(&["--server-bind", "--listen (MOQ_LISTEN)"]));
        check("--server-bind=[::]:443", Err(&["--server-bind is", "--listen (MOQ_LISTEN)"]));
        check("--tls-cert c", Err(&["--tls-cert", "--listen-tls-cert"]));
        check("--tls-key k", Err(&["--tls-key", "--listen-tls-key"]));
        check("--tls-generate localhost", Err(&["--tls-generate", "--listen-tls-generate"]));
        check("--runtime-workers 4", Err(&["--runtime-workers", "--shards"]));
        check("--auth-api https://a", Err(&["--auth-api", "--auth-url URL"]));
        check("--cache-headroom 10%", Err(&["--cache-headroom", "--cache-capacity SIZE"]));
        check("--cluster-linger 5s", Err(&["--cluster-linger", "--linger is about viewers"]));
        check("--file relay.toml", Err(&["--file", "flag or a variable"]));
    }

    #[test]
    fn variables_of_the_existing_relay() {
        let default = "127.0.0.1:4443 localhost ** auto INFO";
        check_with("", &["MOQ_SERVER_BIND"], Err(&["MOQ_SERVER_BIND", "MOQ_LISTEN"]));
        check_with("", &["MOQ_AUTH_KEY", "MOQ_AUTH_KEY_DIR"], Ok(default));
        check_with("", &["MOQ_AUTH_DOMAIN"], Err(&["MOQ_AUTH_DOMAIN", "unset it"]));
        check_with("", &["MOQ_LISTEN_TLS_ROT"], Err(&["MOQ_LISTEN_TLS_ROT", "unset it"]));
        check_with("", &["MOQ_CACHE_HEADROOM"], Err(&["MOQ_CACHE_HEADROOM", "--cache-capacity"]));
        check_with("", &["MOQ_CACHE_SIZE"], Err(&["MOQ_CACHE_SIZE", "unset it"]));
        check_with("", &["MOQ_CLUSTER_LINGER"], Err(&["MOQ_CLUSTER_LINGER", "remove it"]));
        check_with("", &["MOQ_CACHE_CAPACITY", "MOQ_CACHE_DURATION"], Ok(default));
        // Variables of clients on the same machine are none of our business.
        check_with("", &["MOQ_CONNECT", "MOQ_BACKOFF_MAX", "PATH"], Ok(default));
        check_with("", &["MOQ_LISTEN", "MOQ_AUTH_PUBLIC", "MOQ_LOG_LEVEL"], Ok(default));
    }

    #[test]
    fn help_and_version() {
        check("--version", Ok(concat!("shardcast ", env!("CARGO_PKG_VERSION"))));
        check("-V", Ok("shardcast "));
        check("--help", Ok("A production relay"));
        for arg in Args::command().get_arguments() {
            check("--help", Ok(arg.get_long().expect("every argument has a long name")));
            assert!(arg.get_help().is_some(), "{arg} does not say what it is for");
            if let Some(variable) = arg.get_env() {
                check("--help", Ok(&format!("[env: {}", variable.display())));
            }
        }
    }

    #[track_caller]
    fn check_capacity(text: &str, expect: Result<Capacity, CapacityError>) {
        let got = text.parse::<Capacity>();
        assert_eq!(got, expect, "{text:?}");
        if let Ok(capacity) = got {
            assert_eq!(capacity.to_string().parse(), Ok(capacity), "{text:?} shown as {capacity}");
        }
    }

    #[test]
    fn capacities() {
        use Capacity::{Bytes, Percent};
        check_capacity("1500000000", Ok(Bytes(1_500_000_000)));
        check_capacity("1", Ok(Bytes(1)));
        check_capacity("64B", Ok(Bytes(64)));
        for (unit, bytes) in [("KB", 1000), ("MB", 1_000_000), ("GB", 1_000_000_000)] {
            check_capacity(&format!("3{unit}"), Ok(Bytes(3 * bytes)));
        }
        for (unit, bytes) in [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)] {
            check_capacity(&format!("3{unit}"), Ok(Bytes(3 * bytes)));
        }
        check_capacity("2TB", Ok(Bytes(2_000_000_000_000)));
        check_capacity("2TiB", Ok(Bytes(2 << 40)));
        check_capacity("2kB", Ok(Bytes(2000)));
        check_capacity("8G", Ok(Bytes(8_000_000_000)));
        check_capacity("2gib", Ok(Bytes(2 << 30)));
        check_capacity("2Gi", Ok(Bytes(2 << 30)));
        check_capacity(" 1.5 GiB ", Ok(Bytes(3 << 29)));
        check_capacity("99999999999999999999TiB", Ok(Bytes(u64::MAX)));
        check_capacity("75%", Ok(Percent(75.0)));
        check_capacity("12.5 %", Ok(Percent(12.5)));
        check_capacity("100%", Ok(Percent(100.0)));
        check_capacity("100.1%", Err(CapacityError::MoreThanAll));
        for zero in ["0", "0%", "0GiB", "0.0", "0.0001KB"] {
            check_capacity(zero, Err(CapacityError::Zero));
        }
        for garbage in ["", " ", "%", "GiB", ".", "1.2.3", "-1GiB", "inf", "nan%", "½GiB"] {
            check_capacity(garbage, Err(CapacityError::NotASize));
        }
        for unit in ["PB", "Gb/s", "GiB 1", "e9", "%%"] {
            check_capacity(&format!("8{unit}"), Err(CapacityError::Unit(unit.to_owned())));
        }
    }

    #[test]
    fn capacity_of_this_memory() {
        assert_eq!(Capacity::Bytes(5).bytes(3), 5);
        assert_eq!(Capacity::Percent(25.0).bytes(4 << 30), 1 << 30);
        assert_eq!(Capacity::Percent(100.0).bytes(24_683_656 << 10), 24_683_656 << 10);
    }
}
