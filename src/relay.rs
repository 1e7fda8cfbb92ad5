//! Start-up: host, certificate, sockets, shards; and the end.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use time::OffsetDateTime;

use crate::config::Config;
use crate::host::{self, HostError};
use crate::limits::{CACHE_DURATION_DEFAULT, LANE_MESSAGES, LINGER_DEFAULT};
use crate::net::{self, BindError, Socket};
use crate::quic::{Config as QuicConfig, Keys};
use crate::rt::{self, Next, Parking, ShardThread};
use crate::session::Policy;
use crate::shard::mailbox::{self, Outside, Post};
use crate::shard::message::ToShard;
use crate::shard::{CacheBounds, Setting, Shard};
use crate::tls::{Identity, TlsError};
use crate::wire::{Path, Version};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Executor(#[from] rt::StartError),
    #[error("{0}")]
    Quic(String),
    #[error("{pattern:?} is not a pattern of paths: {fault}")]
    Pattern { pattern: String, fault: crate::wire::Fault },
}

#[derive(Debug, thiserror::Error)]
pub enum StopError {
    #[error("shard {0} did not end cleanly; its last log lines say more")]
    Shard(usize),
}

/// A relay that runs.
pub struct Running {
    addr: SocketAddr,
    cores: Vec<usize>,
    fingerprint: [u8; 32],
    expires: OffsetDateTime,
    notes: Vec<String>,
    shards: Vec<(ShardThread, Outside<ToShard>)>,
    /// Every socket once more. When one of the group closes, the kernel hands its datagrams to
    /// other shards; so all close together, at the end.
    _sockets: Vec<OwnedFd>,
}

/// The protocols offered in TLS, in the relay's order of preference.
fn alpn() -> Vec<&'static [u8]> {
    let versions = [Version::Lite06, Version::Lite05, Version::Lite04, Version::Lite03];
    versions.iter().map(|version| version.alpn().as_bytes()).collect()
}

/// Starts every shard, or says in one line why that cannot be.
pub fn start(config: &Config) -> Result<Running, StartError> {
    let cores = host::choose_cores(config.shards.map(Into::into))?;
    let report = host::check(cores.len())?;
    let identity = Identity::load(&config.identity, &alpn())?;
    let quic =
        QuicConfig::new(identity.config.clone(), Keys::random()).map_err(StartError::Quic)?;
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).expect("the system has entropy at start-up");
    let (hop, seed) =
        (u128::from_le_bytes(random) as u64, (u128::from_le_bytes(random) >> 64) as u64);
    let policy = Arc::new(Policy { hop: (hop >> 11).max(1), public: public(config)? });
    let sockets = net::bind_group(config.listen, cores.len())?;
    let addr = sockets[0].local_address();
    let mut notes = report.remarks;
    notes.extend(buffer_note(&sockets[0]));

    let keep = |socket: &Socket| socket.as_fd().try_clone_to_owned();
    let kept: Result<Vec<OwnedFd>, _> = sockets.iter().map(keep).collect();
    let kept = kept.map_err(|error| BindError::Other { address: addr, error })?;

    let started = Instant::now();
    let posts = mailbox::mesh(cores.len(), LANE_MESSAGES);
    let mut shards = Vec::new();
    for (shard, (post, socket)) in posts.into_iter().zip(sockets).enumerate() {
        let outside = post.outside();
        let setting = Setting {
            shard,
            shards: cores.len(),
            quic: quic.clone(),
            policy: policy.clone(),
            seed,
            started,
            linger: LINGER_DEFAULT,
            cache: CacheBounds { bytes: 1 << 30, duration: CACHE_DURATION_DEFAULT },
        };
        let thread = rt::spawn_on(cores[shard], &format!("shard-{shard}"), move || {
            run(setting, post, socket)
        })?;
        shards.push((thread, outside));
    }
    let Identity { fingerprint, expires, .. } = identity;
    Ok(Running { addr, cores, fingerprint, expires, notes, shards, _sockets: kept })
}

async fn run(setting: Setting, post: Post<ToShard>, mut socket: Socket) {
    let me = setting.shard;
    let parking = match Parking::new(&socket, post.waker()) {
        Ok(parking) => parking,
        Err(error) => {
            // A relay without one of its shards would leave its share of the clients hanging.
            eprintln!("shardcast: shard {me} cannot watch its socket: {error}");
            std::process::exit(1);
        }
    };
    let mut shard = Shard::new(setting, post);
    rt::pump(parking, |now| {
        let next = shard.turn(now, &mut socket);
        if next == Next::Stop {
            let counts = shard.counters();
            let sent = socket.counts();
            tracing::info!(
                shard = me,
                sessions = counts.sessions_total,
                frames = counts.frames_total,
                datagrams_received = sent.received_datagrams_total,
                datagrams_sent = sent.sent_datagrams_total,
                trains_sent = sent.sent_trains_total,
                misrouted_datagrams = counts.misrouted_datagrams_total,
                dropped_groups = counts.dropped_groups_total,
                evicted_groups = counts.evicted_groups_total,
                stale_mail = counts.stale_mail_total,
                "shard ended"
            );
        }
        next
    })
    .await;
}

fn public(config: &Config) -> Result<Vec<Path>, StartError> {
    let parse = |pattern: &crate::config::Pattern| {
        Path::parse(pattern.prefix())
            .map_err(|fault| StartError::Pattern { pattern: pattern.to_string(), fault })
    };
    config.public.iter().map(parse).collect()
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

    /// Closes every session and waits for every shard.
    pub fn stop(self) -> Result<(), StopError> {
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
        match ended.iter().position(Result::is_err) {
            Some(shard) => Err(StopError::Shard(shard)),
            None => Ok(()),
        }
    }
}
