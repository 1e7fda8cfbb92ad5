//! Start-up: host, certificate, sockets, shards; and the end.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use tokio::sync::watch;

use crate::access::{Access, KeyError, KeySet};
use crate::authority::{self, Authority, Roots};
use crate::config::{Capacity, Config, IdentitySource, WebListen};
use crate::host::{self, HostError};
use crate::keyring::{Keyring, Watcher};
use crate::limits::{
    CACHE_BYTES_PER_SHARD_MIN, FAULT_LINE_INTERVAL, LANE_MESSAGES, LAST_WORDS_MAX,
    PEERS_BYTES_PER_SHARD_MIN, PEERS_MEMORY_SHARE, SAME_PORT_TRIES_MAX,
};
use crate::log;
use crate::net::{self, BindError, Fault, Socket};
use crate::quic::{ALPN_HTTP3, Config as QuicConfig, Keys};
use crate::rt::{self, Next, Parking, ShardThread};
use crate::secret::Secret;
use crate::session::Policy;
use crate::shard::mailbox::{self, Outside, Post};
use crate::shard::message::ToShard;
use crate::shard::{CacheBounds, Setting, Shard};
use crate::state::{self, StateError};
use crate::tls::{Identity, TlsError};
use crate::wall::Wall;
use crate::watch::Watch;
use crate::web::{self, Web};
use crate::wire::Protocol;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(
        "a cache of {} leaves {} for each shard, and one group of video takes {}: write \
         --cache-capacity {}MiB or more",
        in_units(*.bytes),
        in_units(.bytes / *.shards as u64),
        in_units(CACHE_BYTES_PER_SHARD_MIN),
        (CACHE_BYTES_PER_SHARD_MIN * *.shards as u64) >> 20
    )]
    CacheTooSmall { bytes: u64, shards: usize },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Listen(#[from] web::ListenError),
    #[error(
        "cannot start HTTP: {0}; raise the limits of open files and processes, or turn it off \
             with --web-http-listen off"
    )]
    Web(std::io::Error),
    #[error(transparent)]
    Executor(#[from] rt::StartError),
    #[error("{0}")]
    Quic(String),
    #[error("cannot use the key in {}: {}; see --auth-key", .0.path.display(), .0.fault)]
    Keys(#[from] KeyError),
    #[error("cannot start the thread that looks at keys: {0}; raise the limit of processes")]
    KeyThread(std::io::Error),
    #[error("{0}; see --auth-url")]
    Authority(#[from] authority::StartError),
}

#[derive(Debug, thiserror::Error)]
pub enum StopError {
    #[error("shard {0} did not end cleanly; its last log lines say more")]
    Shard(usize),
    #[error("HTTP did not end cleanly; the last log lines say more")]
    Web,
    #[error("the thread that looks at keys did not end cleanly; the last log lines say more")]
    Keys,
    #[error(
        "the thread that asks the auth server did not end cleanly; the last log lines say more"
    )]
    Authority,
}

/// A relay that runs.
pub struct Running {
    addr: SocketAddr,
    cores: Vec<usize>,
    fingerprint: [u8; 32],
    expires: OffsetDateTime,
    notes: Vec<String>,
    memory_bytes: u64,
    shards: Vec<(ShardThread, Outside<ToShard>)>,
    web: Option<Web>,
    keys: Option<Watcher>,
    authority: Option<Authority>,
    /// Every socket once more. When one of the group closes, the kernel hands its datagrams to
    /// other shards; so all close together, at the end.
    _sockets: Vec<OwnedFd>,
}

/// From one look at the time of day to the next, while the shard turns.
const WALL_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What the name of a shard's thread begins with; its number follows.
const SHARD_THREAD: &str = "shard-";

/// The shard that a thread of this name runs.
pub fn shard_of(thread: &str) -> Option<usize> {
    thread.strip_prefix(SHARD_THREAD)?.parse().ok()
}

/// The protocols offered in TLS, in the relay's order of preference.
fn alpn() -> Vec<&'static [u8]> {
    let direct = Protocol::ALL.iter().map(|protocol| protocol.name().as_bytes());
    direct.chain([ALPN_HTTP3]).collect()
}

/// Starts every shard, or says in one line why that cannot be.
pub fn start(config: &Config) -> Result<Running, StartError> {
    let cores = host::choose_cores(config.shards.map(Into::into))?;
    let report = host::check(cores.len())?;
    let share = CacheShare::of(config.cache.capacity, report.memory_bytes, cores.len())?;
    let memory = peers_share(report.memory_bytes, share.bytes, cores.len());
    let identity = Identity::load(&config.identity, &config.access.client_roots, &alpn())?;
    let (keyring, keys) = keyring(config)?;
    let access = Arc::new(Access {
        keys: Arc::new(keys),
        public: config.access.public.grant(),
        relays: config.access.peers.clone(),
    });
    let keys = config.state_dir.as_deref().map_or_else(|| Ok(Keys::random()), state::keys)?;
    let quic = QuicConfig::new(identity.config.clone(), keys, config.congestion_control)
        .map_err(StartError::Quic)?;
    let (mut random, mut secret) = ([0; 16], [0; 32]);
    for bytes in [&mut random[..], &mut secret] {
        aws_lc_rs::rand::fill(bytes).expect("the system has entropy at start-up");
    }
    let (hop, seed) =
        (u128::from_le_bytes(random) as u64, (u128::from_le_bytes(random) >> 64) as u64);
    let policy = Arc::new(Policy {
        hop: (hop >> 11).max(1),
        origins: config.origins.clone(),
        relays: config.relays.clone(),
        takeover: config.takeover,
        secret: Secret::new(&secret),
    });
    let (sockets, listener) = bind(config, cores.len())?;
    let addr = sockets[0].local_address();
    let mut notes = report.remarks;
    notes.extend(buffer_note(&sockets[0]));
    notes.extend(share.notes);
    notes.push(format!("sessions and windows: {} per shard", in_units(memory)));

    let keep = |socket: &Socket| socket.as_fd().try_clone_to_owned();
    let kept: Result<Vec<OwnedFd>, _> = sockets.iter().map(keep).collect();
    let kept = kept.map_err(|error| BindError::Other { address: addr, error })?;

    let authority = config.access.server.clone();
    let authority = authority.map(|url| authority::Ready::new(url, Roots::System, addr));
    let authority = authority.transpose()?;

    let started = Instant::now();
    let wall = Wall::new(started, unix_time());
    let posts = mailbox::mesh(cores.len(), LANE_MESSAGES);
    let mut shards = Vec::new();
    for (shard, (post, socket)) in posts.into_iter().zip(sockets).enumerate() {
        let outside = post.outside();
        let setting = Setting {
            shard,
            shards: cores.len(),
            quic: quic.clone(),
            policy: policy.clone(),
            access: access.clone(),
            authority: authority.as_ref().map(authority::Ready::handle),
            seed,
            started,
            wall,
            linger: config.linger,
            cache: CacheBounds { bytes: share.bytes, duration: config.cache.duration },
            memory,
            bounds: config.bounds.clone(),
        };
        let thread = rt::spawn_on(cores[shard], &format!("{SHARD_THREAD}{shard}"), move || {
            run(setting, post, socket)
        })?;
        shards.push((thread, outside));
    }
    let Identity { fingerprint, expires, .. } = identity;
    let is_self_signed = matches!(config.identity, IdentitySource::Generated { .. });
    let about = web::About {
        addr,
        fingerprint,
        expires,
        is_self_signed,
        access: config.access.words(),
        open_at: config.access.public.example_root().map(str::to_owned),
        origins: policy.origins.clone(),
    };
    let outsides: Vec<_> = shards.iter().map(|(_, outside)| outside.clone()).collect();
    let (access, for_web) = watch::channel(access);
    let asked = authority.as_ref().map(authority::Ready::handle);
    let web = |listener| web::start(listener, about, (for_web, asked), outsides.clone());
    let web = listener.map(web);
    let web = web.transpose().map_err(StartError::Web)?;
    let authority = authority.map(|ready| ready.start(outsides.clone())).transpose()?;
    let keys = keyring.map(|keyring| Watcher::start(keyring, access, outsides));
    let keys = keys.transpose().map_err(StartError::KeyThread)?;
    let memory_bytes = report.memory_bytes;
    let _sockets = kept;
    Ok(Running {
        addr,
        cores,
        fingerprint,
        expires,
        notes,
        memory_bytes,
        shards,
        web,
        keys,
        authority,
        _sockets,
    })
}

/// The keys of tokens, and what looks for others, if tokens are taken at all.
fn keyring(config: &Config) -> Result<(Option<Keyring>, KeySet), KeyError> {
    if !config.access.has_keys() {
        return Ok((None, KeySet::default()));
    }
    let (files, directory) = (config.access.keys.clone(), config.access.key_dir.clone());
    let (keyring, keys) = Keyring::open(files, directory)?;
    Ok((Some(keyring), keys))
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The sockets of all shards and the listener for HTTP. Where both are to have the same port and
/// the kernel chooses it, one that is free for UDP may be taken for TCP.
fn bind(config: &Config, shards: usize) -> Result<(Vec<Socket>, Option<TcpListener>), StartError> {
    let mut tries = 1;
    loop {
        let sockets = net::bind_group(config.listen, shards)?;
        let address = match config.web {
            None => return Ok((sockets, None)),
            Some(WebListen::Same) => sockets[0].local_address(),
            Some(WebListen::At(address)) => address,
        };
        let is_chosen = config.web == Some(WebListen::Same) && config.listen.port() == 0;
        match web::listen(address) {
            Err(web::ListenError::PortTaken(_)) if is_chosen && tries < SAME_PORT_TRIES_MAX => {
                tries += 1;
            }
            listener => return Ok((sockets, Some(listener?))),
        }
    }
}

/// What one shard may cache, and what the operator should know about it.
#[derive(Debug)]
struct CacheShare {
    bytes: u64,
    notes: Vec<String>,
}

impl CacheShare {
    fn of(capacity: Capacity, memory_bytes: u64, shards: usize) -> Result<Self, StartError> {
        let bytes = capacity.bytes(memory_bytes);
        let share = bytes / shards as u64;
        if share < CACHE_BYTES_PER_SHARD_MIN {
            return Err(StartError::CacheTooSmall { bytes, shards });
        }
        let (cache, memory) = (in_units(bytes), in_units(memory_bytes));
        let of = match capacity {
            Capacity::Bytes(_) => String::new(),
            Capacity::Percent(_) => format!(" ({capacity} of {memory})"),
        };
        let mut notes = vec![format!("cache: {cache}{of}, {} per shard", in_units(share))];
        if bytes >= memory_bytes {
            notes.push(format!(
                "the cache may grow to {cache} and this process may use {memory}: lower \
                 --cache-capacity, or the kernel may kill it"
            ));
        }
        Ok(Self { bytes: share, notes })
    }
}

/// What the peers of one shard may make it hold, beside its share of the cache.
fn peers_share(memory_bytes: u64, cache_share: u64, shards: usize) -> u64 {
    let left = (memory_bytes / shards as u64).saturating_sub(cache_share);
    ((left as f64 * PEERS_MEMORY_SHARE) as u64).max(PEERS_BYTES_PER_SHARD_MIN)
}

fn in_units(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() as usize / 10).min(UNITS.len() - 1);
    let decimals = if unit == 0 { 0 } else { 1 };
    format!("{:.decimals$} {}", bytes as f64 / (1u64 << (10 * unit)) as f64, UNITS[unit])
}

async fn run(setting: Setting, post: Post<ToShard>, mut socket: Socket) {
    let me = setting.shard;
    let parking = match Parking::new(&socket, post.waker()) {
        Ok(parking) => parking,
        Err(error) => {
            // A relay without one of its shards would leave its share of the clients hanging.
            log::line(&format!("shardcast: shard {me} cannot watch its socket: {error}"));
            log::flush();
            std::process::exit(1);
        }
    };
    let mut shard = Shard::new(setting, post);
    let mut told_at: Option<Instant> = None;
    let mut looked_at = Instant::now();
    rt::pump(parking, |now| {
        if now >= looked_at + WALL_LOOK_INTERVAL {
            looked_at = now;
            shard.set_wall(now, unix_time());
        }
        let next = shard.turn(now, &mut socket);
        if let Some(Fault { destination, error }) = socket.take_fault()
            && told_at.is_none_or(|told_at| now >= told_at + FAULT_LINE_INTERVAL)
        {
            told_at = Some(now);
            let lost = socket.counts().lost_trains_total;
            tracing::warn!(
                shard = me, to = %destination, %error, lost,
                "datagrams cannot be sent, and count as lost: look at the firewall, routes and memory of \
                 this host"
            );
        }
        if next == Next::Stop {
            let counts = shard.counters();
            let sent = socket.counts();
            tracing::info!(
                shard = me,
                sessions = counts.sessions_total,
                refused_clients = counts.refused_clients_total,
                limited_clients = counts.limited_clients_total,
                dropped_initials = counts.dropped_initials_total,
                frames = counts.frames_total,
                datagrams_received = sent.received_datagrams_total,
                datagrams_sent = sent.sent_datagrams_total,
                trains_sent = sent.sent_trains_total,
                trains_lost = sent.lost_trains_total,
                misrouted_datagrams = counts.misrouted_datagrams_total,
                dropped_groups = counts.dropped_groups_total,
                evicted_groups = counts.evicted_groups_total,
                groups_looked_at = counts.groups_looked_at_total,
                full_lanes = counts.full_lanes_total,
                stale_mail = counts.stale_mail_total,
                "shard ended"
            );
        }
        (next, shard.pace(now))
    });
}

fn buffer_note(socket: &Socket) -> Option<String> {
    let granted = socket.buffer_bytes().ok()?;
    Some(format!(
        "socket buffers: {} KiB to receive, {} KiB to send",
        granted.receive >> 10,
        granted.send >> 10
    ))
}

impl Running {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where HTTP is served, if it is.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.web.as_ref().map(Web::addr)
    }

    /// The core of each shard, in shard order.
    pub fn cores(&self) -> &[usize] {
        &self.cores
    }

    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    pub fn expires(&self) -> OffsetDateTime {
        self.expires
    }

    /// What the host granted, and what it did not.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What looks after the relay from now on.
    pub fn watch(&self) -> Watch {
        let shards = self.shards.iter().map(|(_, outside)| outside.clone());
        Watch::new(shards.collect(), self.memory_bytes)
    }

    /// Has the shards but one, which is lost, close every session, and waits for them for a while. The
    /// process is to end then.
    pub fn leave(&self, lost: Option<usize>) {
        const PAUSE: Duration = Duration::from_millis(5);
        let mut others: Vec<_> = self.shards.iter().collect();
        if let Some(lost) = lost {
            others.remove(lost);
        }
        let deadline = Instant::now() + LAST_WORDS_MAX;
        let mut untold: Vec<_> = others.iter().map(|(_, outside)| outside).collect();
        while Instant::now() < deadline {
            untold.retain(|outside| outside.send(ToShard::Stop).is_err());
            if others.iter().all(|(thread, _)| thread.is_finished()) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Closes every session and waits for every shard.
    pub fn stop(self) -> Result<(), StopError> {
        // First, so that it asks no shard that has ended.
        let is_web_fine = self.web.is_none_or(|web| web.stop().is_ok());
        let are_keys_fine = self.keys.is_none_or(|keys| keys.stop().is_ok());
        for (thread, outside) in &self.shards {
            let mut mail = ToShard::Stop;
            // The lane is full only while its shard works through it.
            while let Err(back) = outside.send(mail) {
                if thread.is_finished() {
                    break;
                }
                mail = back;
                std::thread::yield_now();
            }
        }
        let ended = self.shards.into_iter().map(|(thread, _)| thread.join());
        let ended: Vec<_> = ended.collect();
        // Last, for it is told of the end of every session.
        let is_authority_fine = self.authority.is_none_or(|authority| authority.stop().is_ok());
        match ended.iter().position(Result::is_err) {
            Some(shard) => Err(StopError::Shard(shard)),
            None if !is_web_fine => Err(StopError::Web),
            None if !are_keys_fine => Err(StopError::Keys),
            None if !is_authority_fine => Err(StopError::Authority),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// `expect` is what one shard has and the notes, or the refusal.
    #[track_caller]
    fn check(capacity: &str, memory: u64, shards: usize, expect: Result<(u64, &[&str]), &str>) {
        match (CacheShare::of(capacity.parse().unwrap(), memory, shards), expect) {
            (Ok(share), Ok((bytes, notes))) => {
                assert_eq!(share.bytes, bytes);
                assert_eq!(share.notes, notes);
            }
            (Err(error), Err(line)) => assert_eq!(error.to_string(), line),
            (got, expect) => panic!("got {got:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn shards_share_the_cache() {
        check(
            "25%",
            24 * GIB,
            2,
            Ok((3 * GIB, &["cache: 6.0 GiB (25% of 24.0 GiB), 3.0 GiB per shard"])),
        );
        check("8GiB", 24 * GIB, 1, Ok((8 * GIB, &["cache: 8.0 GiB, 8.0 GiB per shard"])));
        check("3MiB", 24 * GIB, 3, Ok((1 << 20, &["cache: 3.0 MiB, 1.0 MiB per shard"])));
    }

    #[test]
    fn a_cache_larger_than_the_memory_is_said() {
        let says = "the cache may grow to 2.0 GiB and this process may use 2.0 GiB: lower \
                    --cache-capacity, or the kernel may kill it";
        check("2GiB", 2 * GIB, 1, Ok((2 * GIB, &["cache: 2.0 GiB, 2.0 GiB per shard", says])));
        let line = "cache: 2.0 GiB (100% of 2.0 GiB), 1.0 GiB per shard";
        check("100%", 2 * GIB, 2, Ok((GIB, &[line, says])));
    }

    #[test]
    fn a_cache_that_holds_nothing_is_refused() {
        check(
            "3MB",
            24 * GIB,
            4,
            Err(
                "a cache of 2.9 MiB leaves 732.4 KiB for each shard, and one group of video takes \
                 1.0 MiB: write --cache-capacity 4MiB or more",
            ),
        );
        check(
            "8",
            24 * GIB,
            1,
            Err("a cache of 8 bytes leaves 8 bytes for each shard, and one group of video takes \
                 1.0 MiB: write --cache-capacity 1MiB or more"),
        );
    }

    #[test]
    fn peers_have_a_share_of_what_the_cache_leaves() {
        let mib =
            |memory: u64, cache: u64, shards| peers_share(memory << 20, cache << 20, shards) >> 20;
        assert_eq!(mib(24 << 10, 3 << 10, 2), 6 << 10);
        assert_eq!(mib(24 << 10, 12 << 10, 1), 8 << 10);
        assert_eq!(mib(1 << 10, 512, 2), PEERS_BYTES_PER_SHARD_MIN >> 20);
        assert_eq!(mib(1 << 10, 2 << 10, 1), PEERS_BYTES_PER_SHARD_MIN >> 20);
    }

    #[test]
    fn sizes_are_readable() {
        let table = [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1536 << 10, "1.5 MiB"),
            (24_683_656 << 10, "23.5 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ];
        for (bytes, text) in table {
            assert_eq!(in_units(bytes), text);
        }
    }
}
