//! Start-up: host, certificate, sockets, shards; and the end.

mod bind;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::access::{Access, KeyError, KeySet};
use crate::acme::{self, Acme};
use crate::authority::{self, Authority, Roots};
use crate::cluster::{self, Cluster};
use crate::config::{AcmeConfig, Config, IdentitySource};
use crate::control::{self, Internal, Subject};
use crate::doctor;
use crate::drain::Drain;
use crate::estate::{self, Estate, Inherited};
use crate::gauge::{Gauge, Keeper};
use crate::host::finding::{Finding, Grade};
use crate::host::{self, HostError};
use crate::keyring::{self, Keyring};
use crate::limits::{FAULT_LINE_INTERVAL, LAST_WORDS_MAX, UPGRADE_PROVEN_AFTER};
use crate::log;
use crate::mailbox::{self, Outside, Post};
use crate::net::{BindError, Fault, Socket};
use crate::quic::{ALPN_HTTP3, Config as QuicConfig};
use crate::reload::{Ask, Files, Reload};
use crate::rt::{self, Next, Parking, ShardThread};
use crate::secret::Secret;
use crate::session::Policy;
use crate::shard::message::ToShard;
use crate::shard::{CacheBounds, Setting, Shard};
use crate::shares::{ShareError, Shares};
use crate::state::{self, Secrets, StateError};
use crate::tcp;
use crate::tls::{self, Certificates, Identity, TlsError};
use crate::wall::Wall;
use crate::watch::Watch;
use crate::web::{self, Web};
use crate::wire::Protocol;
use bind::{Bound, bind, copies};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Shares(#[from] ShareError),
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
    #[error(
        "the relay that runs has {} shard{} at {}, and this one would have {} at {}: that takes a restart",
        before.1, if before.1 == 1 { "" } else { "s" }, before.0, after.1, after.0
    )]
    Moved { before: (SocketAddr, usize), after: (SocketAddr, usize) },
    #[error(transparent)]
    Executor(#[from] rt::StartError),
    #[error("{0}")]
    Quic(String),
    #[error("cannot use {}: {}; see {}", .0.path.display(), .0.fault, .0.place.flag())]
    Keys(#[from] KeyError),
    #[error("cannot start the thread that looks at files: {0}; raise the limit of processes")]
    Reload(std::io::Error),
    #[error("cannot start the thread that gives memory back: {0}; raise the limit of processes")]
    Keeper(std::io::Error),
    #[error("{0}; see --auth-url")]
    Authority(#[from] authority::StartError),
    #[error(transparent)]
    Acme(#[from] acme::StartError),
    #[error(transparent)]
    Cluster(#[from] cluster::StartError),
    #[error(
        "cannot start what answers operators: {0}; raise the limits of open files and processes"
    )]
    Internal(std::io::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum StopError {
    #[error("shard {0} did not end cleanly; its last log lines say more")]
    Shard(usize),
    #[error("HTTP did not end cleanly; the last log lines say more")]
    Web,
    #[error("the thread that orders certificates did not end cleanly; the last log lines say more")]
    Acme,
    #[error("the thread that gives memory back did not end cleanly; the last log lines say more")]
    Keeper,
    #[error("the thread that looks at files did not end cleanly; the last log lines say more")]
    Reload,
    #[error(
        "the thread that asks the auth server did not end cleanly; the last log lines say more"
    )]
    Authority,
    #[error("what answers operators did not end cleanly; the last log lines say more")]
    Internal,
    #[error("the thread that keeps links did not end cleanly; the last log lines say more")]
    Cluster,
}

/// A relay that runs.
pub struct Running {
    addr: SocketAddr,
    cores: Vec<usize>,
    certificates: Arc<Certificates>,
    notes: Vec<String>,
    findings: Vec<Finding>,
    keeper: Keeper,
    shards: Vec<(ShardThread, Outside<ToShard>)>,
    web: Option<Web>,
    reload: Reload,
    acme: Option<Acme>,
    authority: Option<Authority>,
    cluster: Option<Cluster>,
    internal: Option<Internal>,
    /// Has every socket once more, and those of the process that comes after this one. When one of the group
    /// closes, the kernel hands its datagrams to other shards; so all close together, at the end.
    estate: Estate,
}

/// From one look at the time of day to the next, while the shard turns.
const WALL_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Tells apart the hop ids of two processes of which one takes over from the other, where the operator has named
/// one for the relay; the highest bit that all peers count.
const HOP_OF_HEIR: u64 = 1 << 52;

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

/// Starts every shard, or says in one line why that cannot be. Nobody comes to it as long as the process from
/// which it inherits is there: see [`Estate::take_over`].
pub fn start(config: &Config, mut inherited: Inherited) -> Result<Running, StartError> {
    let cores = host::choose_cores(config.shards.map(Into::into))?;
    let report = host::check(cores.len())?;
    let shares =
        Shares::of(config.memory_max, config.cache.capacity, report.memory_bytes, cores.len())?;
    let secrets = match (inherited.secrets.take(), &config.state_dir) {
        (None, Some(directory)) => state::secrets(directory)?,
        (known, _) => known,
    };
    let secrets = secrets.map_or_else(Secrets::random, Secrets::next);
    let (source, roots) = (&config.identity, &config.access.client_roots);
    let Identity { config: quic_tls, certificates, keeper } =
        Identity::load_with(source, roots, &alpn(), &secrets.tickets)?;
    let acme = match &config.identity {
        IdentitySource::Acme(config) => Some(acme::Ready::new(config)?),
        _ => None,
    };
    let (keyring, keys) = keyring(config)?;
    keyring::tell(keys.remarks());
    let access = Arc::new(Access {
        keys: Arc::new(keys),
        public: config.access.public.grant(),
        relays: config.access.peers.clone(),
    });
    let quic = QuicConfig::new(quic_tls, secrets.keys.clone(), config.congestion_control);
    let quic = quic.map_err(StartError::Quic)?.of(secrets.generation, inherited.is_shared);
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).expect("the system has entropy at start-up");
    let (hop, seed) =
        (u128::from_le_bytes(random) as u64, (u128::from_le_bytes(random) >> 64) as u64);
    let policy = Arc::new(policy(config, &inherited, &secrets, hop));
    let Bound { rows, http, https } = bind(config, cores.len(), &mut inherited)?;
    let sockets = rows.serve(secrets.generation)?;
    if !inherited.is_shared {
        rows.steer(secrets.generation, false)?;
    }
    let internal = config.internal.listen.map(|address| {
        let inherited = inherited.listener(estate::INTERNAL, address);
        inherited.map_or_else(|| web::listen(address, "--internal-listen"), Ok)
    });
    let internal = internal.transpose()?;
    let listeners = copies(&http, &https, &internal).map_err(StartError::Web)?;
    let addr = sockets[0].local_address();
    let mut findings = report.findings;
    findings.extend(doctor::socket(&sockets[0]));
    findings.extend(shares.warnings);
    findings.retain(|finding| finding.grade != Grade::Ok);
    let mut notes = Vec::from_iter(buffer_note(&sockets[0]));
    notes.extend(shares.notes);
    if let (IdentitySource::Acme(acme), Some(http)) = (&config.identity, &http) {
        notes.extend(acme_notes(acme, http));
    }

    let authority = config.access.server.clone();
    let authority = authority.map(|url| authority::Ready::new(url, Roots::System, addr));
    let authority = authority.transpose()?;

    let about = cluster::About {
        hop: policy.hop,
        local: addr,
        has_heritage: inherited.is_shared,
        congestion_control: config.congestion_control,
        seed: u64::from_le_bytes(random[..8].try_into().expect("eight bytes")),
    };
    let cluster = config.cluster.dials().then(|| cluster::Ready::new(&config.cluster, about));
    let cluster = cluster.transpose()?;

    let started = Instant::now();
    let gauge = Arc::new(Gauge::new(shares.max, host::meter().ok(), started));
    let wall = Wall::new(started, unix_time());
    let setting = |shard| Setting {
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
        cache: CacheBounds { bytes: shares.cache, duration: config.cache.duration },
        memory: shares.peers,
        routes: shares.routes,
        bounds: config.bounds.clone(),
    };
    let shards = start_shards(&cores, sockets, &gauge, setting)?;
    let about = web::About {
        addr,
        certificates: certificates.clone(),
        access: config.access.words(),
        example: config.access.public.example(),
        origins: policy.origins.clone(),
        has_websockets: config.web.ws,
        unread_bytes: shares.unread as usize,
    };
    let outsides: Vec<_> = shards.iter().map(|(_, outside)| outside.clone()).collect();
    let (access, for_web) = watch::channel(access);
    let asked = authority.as_ref().map(authority::Ready::handle);
    let https = https.map(|listener| {
        Ok::<_, TlsError>((listener, tls::https(&certificates, &secrets.tickets)?))
    });
    let (gate, is_open) = watch::channel(false);
    let (before, known_before) = watch::channel(None);
    let estate = Estate {
        rows: Arc::new(rows),
        secrets,
        listeners: Arc::new(listeners),
        shards: outsides.clone(),
        gate,
        before,
        state_dir: config.state_dir.clone(),
        hop: policy.hop,
        certificates: certificates.clone(),
        congestion_control: config.congestion_control,
    };
    let (https, bounds) = (https.transpose()?, config.bounds.clone());
    let listeners = web::Listeners { http, https, bounds, gate: is_open.clone() };
    let web = match listeners {
        web::Listeners { http: None, https: None, .. } => None,
        _ => {
            let challenges = acme.as_ref().map(acme::Ready::challenges).unwrap_or_default();
            Some(web::start(listeners, about, challenges, (for_web, asked), outsides.clone()))
        }
    };
    let web = web.transpose().map_err(StartError::Web)?;
    let authority = authority.map(|ready| ready.start(outsides.clone())).transpose()?;
    let cluster = cluster.map(|ready| ready.start(outsides.clone())).transpose()?;
    let files = Files { certificates: keeper, keys: keyring, access, shards: outsides.clone() };
    let reload = Reload::start(files).map_err(StartError::Reload)?;
    let acme = acme.map(|ready| ready.start(certificates.clone(), reload.asks())).transpose()?;
    let internal = internal.map(|listener| {
        let subject = Subject {
            shards: outsides,
            files: reload.asks(),
            instance: seed,
            addr,
            track_metrics: config.internal.track_metrics,
            certificates: certificates.clone(),
            started: wall,
            gauge: gauge.clone(),
            rows: estate.rows.clone(),
            before: known_before,
            web: web.as_ref().map(|web| web.accepts().clone()),
            web_refusals: web.as_ref().map(|web| web.refusals().clone()),
            cluster: cluster.as_ref().map(Cluster::handle),
        };
        control::start(listener, is_open, subject)
    });
    let internal = internal.transpose().map_err(StartError::Internal)?;
    let keeper = Keeper::start(gauge).map_err(StartError::Keeper)?;
    if !inherited.is_shared {
        estate.keep()?;
        match inherited.is_kept {
            true => estate.be_alone()?,
            false => estate.take_over(false)?,
        }
    }
    Ok(Running {
        addr,
        cores,
        certificates,
        notes,
        findings,
        keeper,
        shards,
        web,
        reload,
        acme,
        authority,
        cluster,
        internal,
        estate,
    })
}

/// What all sessions have in common. A hop id that was drawn counts where the operator has named none.
fn policy(config: &Config, inherited: &Inherited, secrets: &Secrets, drawn: u64) -> Policy {
    Policy {
        hop: match config.cluster.id.unwrap_or((drawn >> 11).max(1)) {
            // Routes that have come by the process before this one are not our own.
            hop if inherited.hop == Some(hop) => (hop ^ HOP_OF_HEIR).max(1),
            hop => hop,
        },
        max_hops: config.cluster.max_hops,
        origins: config.origins.clone(),
        relays: config.relays.clone(),
        takeover: config.takeover,
        secret: Secret::new(&secrets.hops),
    }
}

/// Starts a shard on each core, with its mailbox and its socket, and waits until all of them stand.
fn start_shards(
    cores: &[usize],
    sockets: Vec<Socket>,
    gauge: &Arc<Gauge>,
    setting: impl Fn(usize) -> Setting,
) -> Result<Vec<(ShardThread, Outside<ToShard>)>, rt::StartError> {
    let posts = mailbox::mesh(cores.len(), mailbox::lane_capacity(cores.len()));
    let mut starting = Vec::new();
    for (shard, (post, socket)) in posts.into_iter().zip(sockets).enumerate() {
        let outside = post.outside();
        let (setting, gauge) = (setting(shard), gauge.clone());
        let thread = rt::spawn_on(cores[shard], &format!("{SHARD_THREAD}{shard}"), move || {
            run(setting, post, socket, gauge)
        })?;
        starting.push((thread, outside));
    }
    starting.into_iter().map(|(thread, outside)| Ok((thread.wait()?, outside))).collect()
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

async fn run(setting: Setting, post: Post<ToShard>, mut socket: Socket, gauge: Arc<Gauge>) {
    let me = setting.shard;
    let ring = Parking::new(&socket, post.waker());
    let (mut parking, poll) = match ring.and_then(|ring| Ok((ring, tcp::Poll::new()?))) {
        Ok(both) => both,
        Err(error) => {
            // A relay without one of its shards would leave its share of the clients hanging.
            log::line(&format!("shardcast: shard {me} cannot watch its sockets: {error}"));
            log::flush();
            std::process::exit(1);
        }
    };
    let mut shard = Shard::new(setting, post);
    parking.watch_beside(shard.open_pipes(poll));
    let mut told_at: Option<Instant> = None;
    let mut looked_at = Instant::now();
    rt::pump(parking, |now| {
        if now >= looked_at + WALL_LOOK_INTERVAL {
            looked_at = now;
            shard.set_wall(now, unix_time());
        }
        shard.set_short(gauge.look(now));
        let next = shard.turn(now, &mut socket);
        let (is_asked, ended) = (shard.is_asked(), Instant::now());
        shard.turned(now, ended, || socket.counts());
        if is_asked {
            shard.note_reported(ended.elapsed());
        }
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

/// Who is asked for the certificate, and where it looks for an answer.
fn acme_notes(acme: &AcmeConfig, http: &TcpListener) -> Vec<String> {
    let (domains, directory) = (acme.domains.join(" "), &acme.directory);
    let mut notes = vec![format!("certificates for {domains} are ordered from {directory}")];
    if let Ok(at) = http.local_addr()
        && at.port() != 80
    {
        notes.push(format!(
            "the authority looks for an answer on port 80 of {domains}: something has to lead it to {at}"
        ));
    }
    notes
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

    /// What another process needs that takes over.
    pub fn estate(&self) -> &Estate {
        &self.estate
    }

    /// Where HTTP is served, if it is.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.web.as_ref().and_then(Web::http)
    }

    /// Where it is served over TLS, if it is.
    pub fn https_addr(&self) -> Option<SocketAddr> {
        self.web.as_ref().and_then(Web::https)
    }

    /// Where operators are answered, if they are.
    pub fn internal_addr(&self) -> Option<SocketAddr> {
        self.internal.as_ref().map(Internal::addr)
    }

    /// The core of each shard, in shard order.
    pub fn cores(&self) -> &[usize] {
        &self.cores
    }

    /// What clients are shown, now and later.
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// Has certificates and keys read at once.
    pub fn read_again(&self) {
        // It ends after us, or has panicked and said so.
        let _ = self.reload.asks().send(Ask::Look(None));
        if let Some(acme) = &self.acme {
            acme.try_again();
        }
    }

    /// What the host granted, and what it did not.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What of this host is not as a relay needs it.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What looks after the relay from now on.
    pub fn watch(&self) -> Watch {
        let shards = self.shards.iter().map(|(_, outside)| outside.clone());
        Watch::new(shards.collect())
    }

    /// Asks every session to move elsewhere. Until the relay is stopped all of them are served.
    pub fn drain(&self, until: Instant) -> Drain {
        if let Some(internal) = &self.internal {
            internal.say_leaving();
        }
        if let Some(cluster) = &self.cluster {
            cluster.handle().leave();
        }
        Drain::begin(self.estate.shards.clone(), until)
    }

    /// The same where clients are at another process already, and come to this one again if that fails.
    pub fn hand_over(&self, until: Instant) -> Drain {
        if let Some(cluster) = &self.cluster {
            // What would answer its dials goes to that process.
            cluster.handle().rest();
        }
        let proven = Instant::now() + UPGRADE_PROVEN_AFTER;
        Drain::begin(self.estate.shards.clone(), until).stays_until(proven)
    }

    /// That process is gone, and this one goes on.
    pub fn take_back(&self) {
        self.estate.stay();
        if let Some(cluster) = &self.cluster {
            cluster.handle().go_on();
        }
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
        if let Some(internal) = &self.internal {
            internal.say_leaving();
        }
        // First, so that it asks no shard that has ended.
        let is_web_fine = self.web.is_none_or(|web| web.stop().is_ok());
        let is_acme_fine = self.acme.is_none_or(|acme| acme.stop().is_ok());
        let is_cluster_fine = self.cluster.is_none_or(|cluster| cluster.stop().is_ok());
        let is_reload_fine = self.reload.stop().is_ok();
        let is_keeper_fine = self.keeper.stop().is_ok();
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
        // And operators see all of that.
        let is_internal_fine = self.internal.is_none_or(|internal| internal.stop().is_ok());
        match ended.iter().position(Result::is_err) {
            Some(shard) => Err(StopError::Shard(shard)),
            None if !is_web_fine => Err(StopError::Web),
            None if !is_acme_fine => Err(StopError::Acme),
            None if !is_reload_fine => Err(StopError::Reload),
            None if !is_keeper_fine => Err(StopError::Keeper),
            None if !is_authority_fine => Err(StopError::Authority),
            None if !is_internal_fine => Err(StopError::Internal),
            None if !is_cluster_fine => Err(StopError::Cluster),
            None => Ok(()),
        }
    }
}
