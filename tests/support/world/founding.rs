//! How a relay of a world is made: its shards, the ways into them, and what it says of its links.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::time::Instant;

use shardcast::access::Access;
use shardcast::mailbox::{Outside, Parked, mesh};
use shardcast::quic::{Config as QuicConfig, Controllers, Keys};
use shardcast::secret::Secret;
use shardcast::session::Policy;
use shardcast::shard::message::ToShard;
use shardcast::shard::visits::Visits;
use shardcast::shard::{Setting, Shard};
use shardcast::source::ClientBounds;
use shardcast::wall::Wall;
use shardcast::{authority, tcp};

use super::super::network::{Port, Random};
use super::keys::server_tls;
use super::links::{Links, hop_of};
use super::{EPOCH, Stage};

/// Where relays are, and nobody else.
const RELAYS: &str = "10.0.0.0/16";

pub(super) struct Core {
    pub(super) relay: usize,
    pub(super) shard: Shard,
    pub(super) port: Port,
    pub(super) parked: Arc<Parked>,
    pub(super) flag: Arc<Flag>,
    pub(super) is_runnable: bool,
    /// What its ring watches beside its UDP socket, whether it has anything there, and whether that is to be
    /// looked at.
    pub(super) beside: RawFd,
    pub(super) has_sockets: bool,
    pub(super) looks: bool,
    pub(super) wakes_at: Option<Instant>,
    /// The host gives it no time before.
    pub(super) stalled_until: Instant,
    /// Turns after which it wanted another one at once.
    pub(super) busy_turns: u64,
    /// The turn that looked at most.
    pub(super) heaviest: Visits,
}

#[derive(Default)]
pub(super) struct Flag(pub(super) AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What every relay is made with.
pub(super) struct Founding {
    pub(super) controllers: Controllers,
    pub(super) access: Arc<Access>,
    pub(super) authority: Option<authority::Handle>,
}

impl Founding {
    /// The shards of a relay, the ways into them, and what it says of its links. It has had so many lives.
    pub(super) fn relay(
        &self,
        stage: &Stage,
        (relay, life): (usize, u8),
        random: &mut Random,
        (started, now): (Instant, Instant),
    ) -> (Vec<Core>, Vec<Outside<ToShard>>, Links) {
        let believed: &[&str] = if stage.trusts_all { &["0.0.0.0/0", "::/0"] } else { &[RELAYS] };
        let relays = believed.iter().map(|net| net.parse().expect("a network")).collect();
        let bounds = ClientBounds {
            per_source: stage.per_source,
            per_token: stage.per_token,
            exempt: stage.exempt.into_iter().collect(),
        };
        let number = relay as u8;
        let keys = Keys { cid: [1 + number; 32], reset: [2 + life; 32], token: [3; 32] };
        let tls = server_tls(stage.prefers);
        let quic = QuicConfig::with_controllers(tls, keys, self.controllers.clone())
            .expect("a suitable TLS configuration");
        let secret = Secret::new(&[4 + number; 32]);
        let takeover = stage.takeover;
        let policy = Arc::new(Policy { relays, takeover, ..Policy::open(hop_of(relay), secret) });
        let posts = mesh::<ToShard>(stage.shards, stage.lanes);
        let outsides: Vec<_> = posts.iter().map(|post| post.outside()).collect();
        let cores = posts.into_iter().enumerate().map(|(shard, post)| {
            let parked = post.waker();
            let setting = Setting {
                shard,
                shards: stage.shards,
                quic: quic.clone(),
                policy: policy.clone(),
                access: self.access.clone(),
                authority: self.authority.clone(),
                seed: stage.seed ^ (relay as u64) << 32 ^ u64::from(life) << 56,
                started: now,
                wall: Wall::new(now, EPOCH + (now - started)),
                linger: stage.linger,
                cache: stage.cache,
                memory: stage.memory,
                routes: stage.routes,
                bounds: bounds.clone(),
            };
            let mut port = Port::new(random.next());
            (port.blocked, port.refused) = (stage.blocked, stage.refused);
            let mut shard = Shard::new(setting, post);
            let beside = shard.open_pipes(tcp::Poll::new().expect("a descriptor"));
            Core {
                relay,
                shard,
                port,
                parked,
                flag: Arc::new(Flag::default()),
                is_runnable: true,
                beside,
                has_sockets: false,
                looks: false,
                wakes_at: None,
                stalled_until: now,
                busy_turns: 0,
                heaviest: Visits::default(),
            }
        });
        let cores = cores.collect();
        let (line, links) = Links::new();
        // Where there is one relay nobody keeps links.
        for shard in outsides.iter().filter(|_| stage.relays > 1) {
            let told = shard.send(ToShard::Links(line.clone()));
            assert!(told.is_ok(), "relay {relay}: the lane is empty");
        }
        (cores, outsides, links)
    }
}
