//! Arguments, environment and file, parsed once into checked types.
//!
//! Nothing downstream checks a setting again: a [`Config`] that exists can be run as it is,
//! as far as its words alone can tell.
//!
//! * `arguments`: every setting as an argument, with its variable and its default.
//! * `names`: what every setting is called, in the file and elsewhere.
//! * `file`: what the file says, on which line, and what is wrong with it.
//! * `merge`: which of them counts, and where it came from.
//! * `values`, `capacity`: text into values, one kind each.
//! * `checks`: what settings mean together.
//! * `rules`: who may do what, as far as settings say it.
//! * `auth_url`, `place`: where an auth server is, and where other relays are.
//! * `foreign`: what other relays take and this one does not.
//! * `error`: why a relay does not start with what it was told.

mod arguments;
mod auth_url;
mod capacity;
mod checks;
mod error;
mod file;
mod foreign;
mod merge;
mod names;
mod place;
mod rules;
#[cfg(test)]
mod tests;
mod values;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::ServerName;

use crate::log::Format;
use crate::origin::Origins;
use crate::quic::CongestionControl;
use crate::route::Takeover;
use crate::source::ClientBounds;

pub use auth_url::{AuthPlace, AuthUrl, UrlError};
pub use capacity::{Capacity, CapacityError};
pub use error::{ConfigError, Fault};
use foreign::{foreign_variables, refuse_foreign_flags};
use merge::Merged;
pub use merge::{Source, Stated};
pub use place::{BadEntry, Entry, Place, Scheme};
pub use rules::{AccessConfig, EXAMPLE, Example, PublicRules};

/// Everything the relay was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// UDP address of the QUIC listener. Port 0 asks the kernel to choose.
    pub listen: SocketAddr,
    pub web: WebConfig,
    pub internal: InternalConfig,
    pub identity: IdentitySource,
    pub access: AccessConfig,
    /// The pages of browsers that may use the relay.
    pub origins: Origins,
    /// Where the other relays of the cluster are.
    pub relays: Vec<IpNet>,
    pub cluster: ClusterConfig,
    /// How many sessions one client may have.
    pub bounds: ClientBounds,
    /// To whom a path belongs that several broadcasts claim.
    pub takeover: Takeover,
    /// How long an upstream subscription that nobody needs is kept; zero closes it at once.
    pub linger: Duration,
    /// How long sessions have to move elsewhere when the relay is told to end.
    pub drain_timeout: Duration,
    /// None: all that the process may use.
    pub memory_max: Option<Capacity>,
    /// How long they have to move to the process that has taken over.
    pub upgrade_timeout: Duration,
    pub cache: CacheConfig,
    pub congestion_control: CongestionControl,
    /// Where secrets are kept that outlast the process; none for nowhere.
    pub state_dir: Option<PathBuf>,
    /// None: one shard per core this process may use.
    pub shards: Option<NonZeroUsize>,
    pub log_level: tracing::Level,
    pub log_format: Format,
}

/// Which other relays are dialled, and how.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterConfig {
    pub connect: Vec<Entry>,
    /// A list that changes.
    pub list: Option<ListSource>,
    /// This relay itself, in lists.
    pub node: Option<Entry>,
    /// A file with what is shown where an entry says nothing else.
    pub token: Option<PathBuf>,
    /// The hop id; another one at every start if there is none.
    pub id: Option<u64>,
    /// The longest chain that is taken, or told to anybody with this relay behind it.
    pub max_hops: usize,
    pub tls: ConnectTls,
}

impl ClusterConfig {
    /// Whether anybody is to be dialled.
    pub fn dials(&self) -> bool {
        !self.connect.is_empty() || self.list.is_some()
    }
}

/// Where a list of relays is.
#[derive(Clone, PartialEq)]
pub enum ListSource {
    File(PathBuf),
    Url(hyper::Uri),
}

/// There may be a password in it.
impl std::fmt::Debug for ListSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

impl ListSource {
    /// Without what may be secret.
    pub fn shown(&self) -> String {
        match self {
            ListSource::File(path) => path.display().to_string(),
            ListSource::Url(url) => crate::access::shown(&url.to_string()),
        }
    }
}

/// Whom the relay believes that it dials, and what it shows there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnectTls {
    pub roots: Vec<PathBuf>,
    /// Whether those count whom this machine trusts.
    pub system_roots: bool,
    /// Those who show one of these are believed, and nobody else.
    pub fingerprints: Vec<[u8; 32]>,
    pub identity: Option<PairFiles>,
    pub is_insecure: bool,
    /// The name in certificates, instead of the one that is dialled.
    pub host_name: Option<ServerName<'static>>,
}

/// Where HTTP is served, as it is and over TLS; none for nowhere. And whether sessions may begin there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WebConfig {
    pub http: Option<WebListen>,
    pub https: Option<WebListen>,
    pub ws: bool,
}

/// Where it is served, on TCP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WebListen {
    /// At the address and port of the QUIC listener, which clients expect.
    Same,
    At(SocketAddr),
}

/// What operators are told of a relay that runs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct InternalConfig {
    /// Where that is served; none for nowhere.
    pub listen: Option<SocketAddr>,
    /// Tracks of which there are figures one by one.
    pub track_metrics: usize,
}

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum IdentitySource {
    /// One pair at least; of the first is whoever names no other.
    Files(Vec<PairFiles>),
    Generated {
        hosts: Vec<ServerName<'static>>,
    },
    /// An authority is asked for it.
    Acme(AcmeConfig),
}

/// Of whom a certificate is ordered, and for which names.
#[derive(Debug, Clone, PartialEq)]
pub struct AcmeConfig {
    /// DNS names; one at least.
    pub domains: Vec<String>,
    /// URL of the authority's directory.
    pub directory: String,
    /// URLs of who is told when something is wrong.
    pub contacts: Vec<String>,
    /// An account that the authority knows already.
    pub external: Option<ExternalAccount>,
    /// Who vouches for the authority's server; none for whom this machine trusts.
    pub root: Option<PathBuf>,
    pub state_dir: PathBuf,
}

/// What an account of ACME is bound to: a name, and the file of its key.
#[derive(Debug, Clone, PartialEq)]
pub struct ExternalAccount {
    pub kid: String,
    pub key: PathBuf,
}

impl AcmeConfig {
    /// Where the certificate and its key are kept.
    pub fn certificate(&self) -> PathBuf {
        self.state_dir.join("acme-certificate.pem")
    }

    pub fn files(&self) -> PairFiles {
        PairFiles { cert: self.certificate(), key: self.certificate() }
    }

    pub fn hosts(&self) -> Vec<ServerName<'static>> {
        let hosts = self.domains.iter().map(|domain| ServerName::try_from(domain.clone()));
        hosts.map(|host| host.expect("it was parsed as one")).collect()
    }
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq)]
pub struct PairFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What the whole relay may keep of groups.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheConfig {
    pub capacity: Capacity,
    /// How long a group is kept that nobody asks for.
    pub duration: Duration,
}

/// What the command line asked for: to run with what it says, or to be shown.
#[derive(Debug)]
pub enum Request<T = Box<Config>> {
    Run(T),
    /// `--help` or `--version`, ready to `print()`.
    Show(clap::Error),
}

/// What is said of every setting, and what comes of it.
#[derive(Debug)]
pub struct Told {
    pub stated: Vec<Stated>,
    /// What a relay would run with, as far as nothing is wrong.
    pub config: Box<Config>,
    pub faults: Vec<ConfigError>,
}

impl Config {
    /// Reads `args` (program name first). clap itself reads the values of our own variables from
    /// the process; `environment` names every variable that is set, to refuse foreign ones.
    pub fn parse(
        args: impl IntoIterator<Item = OsString>,
        environment: impl IntoIterator<Item = OsString>,
    ) -> Result<Request, ConfigError> {
        match Told::read(args, environment)? {
            Request::Run(told) => match told.faults.into_iter().next() {
                None => Ok(Request::Run(told.config)),
                Some(fault) => Err(fault),
            },
            Request::Show(text) => Ok(Request::Show(text)),
        }
    }
}

impl Told {
    /// As [`Config::parse`], for whoever wants to know why.
    pub fn read(
        args: impl IntoIterator<Item = OsString>,
        environment: impl IntoIterator<Item = OsString>,
    ) -> Result<Request<Told>, ConfigError> {
        let args: Vec<OsString> = args.into_iter().collect();
        refuse_foreign_flags(&args)?;
        let mut faults = foreign_variables(environment);
        Ok(match merge::merge(args)? {
            Request::Run(Merged { args, stated, fault }) => {
                let (config, together) = args.check();
                faults.extend(fault);
                // Without what is wrong by itself, settings may go together less well than with it.
                if faults.is_empty() {
                    faults = together;
                }
                Request::Run(Told { stated, config: Box::new(config), faults })
            }
            Request::Show(text) => Request::Show(text),
        })
    }
}
