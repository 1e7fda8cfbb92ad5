//! quinn-proto held by hand: one endpoint and a slab of connections per shard, a list of those
//! with something to do, a wheel of timers, a budget of the memory that they may take; and what
//! WebTransport puts between a connection and its session. The only folder that names quinn-proto.

mod budget;
mod cid;
mod congestion;
mod conn;
mod counts;
mod crypto;
mod endpoint;
mod handshakes;
mod keel;
mod lost;
mod streams;
mod timers;
pub mod trains;
mod web;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn_proto::{
    AckFrequencyConfig, ClientConfig, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig,
    VarInt,
};

pub use budget::{Allowance, Budget};
pub use congestion::{CongestionControl, Controllers};
pub use conn::{ALPN_HTTP3, Conn};
pub use counts::{Counts, Handshakes};
pub use endpoint::{Arrival, Endpoint, Goodbye};
pub use timers::Timers;

use crate::h3::request::Request;
use crate::limits::*;
use crate::net::steer::{Generation, PROCESS_VERSION};
use crate::session::streams::StreamId;
use crate::wire::Protocol;
use cid::ShardCids;
use url::Url;

/// The round trip that is assumed before it is measured.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// What happened on a connection.
#[derive(Debug)]
pub enum Event {
    /// The handshake is complete; the protocol that was agreed on.
    Connected {
        alpn: Vec<u8>,
    },
    /// A WebTransport client wants a session: [`Conn::accept`] or [`Conn::refuse`] answers.
    Requested(Request),
    Opened(StreamId),
    Readable(StreamId),
    Writable(StreamId),
    Finished(StreamId),
    Stopped(StreamId),
    /// The peer grants more streams; true for unidirectional ones.
    Available {
        uni: bool,
    },
    Datagram(Bytes),
    Lost {
        reason: String,
        cause: Cause,
    },
}

/// Why a connection is lost, as far as it matters to anybody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// TLS could not be agreed upon, by one of the two.
    Tls,
    /// The peer does not let this relay in.
    Denied,
    Other,
}

/// Secrets that all shards share: a packet may reach another shard than its connection's, and a
/// restarted relay with the same secrets can tell its peers that it has forgotten them.
#[derive(Clone)]
pub struct Keys {
    pub cid: [u8; 32],
    pub reset: [u8; 32],
    pub token: [u8; 32],
}

impl Keys {
    pub fn random() -> Keys {
        let fill = || {
            let mut key = [0; 32];
            aws_lc_rs::rand::fill(&mut key).expect("the system has entropy at start-up");
            key
        };
        Keys { cid: fill(), reset: fill(), token: fill() }
    }
}

/// What the endpoints of all shards have in common.
#[derive(Clone)]
pub struct Config {
    keys: Keys,
    generation: Generation,
    is_shared: bool,
    server: Arc<ServerConfig>,
}

impl Config {
    pub fn new(
        tls: Arc<rustls::ServerConfig>,
        keys: Keys,
        congestion_control: CongestionControl,
    ) -> Result<Config, String> {
        Config::with_controllers(tls, keys, congestion_control.controllers())
    }

    /// As [`Config::new`], for programs that measure what other controllers would do.
    pub fn with_controllers(
        tls: Arc<rustls::ServerConfig>,
        keys: Keys,
        controllers: Controllers,
    ) -> Result<Config, String> {
        let crypto = crypto::Server::new(tls)
            .map_err(|error| format!("the TLS configuration does not suit QUIC: {error}"))?;
        let master = aws_lc_rs::hkdf::Salt::new(aws_lc_rs::hkdf::HKDF_SHA256, &[]);
        let token_key = master.extract(&keys.token);
        let mut server = ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
        server.transport_config(Arc::new(transport(controllers)));
        server.max_incoming(HANDSHAKES_MAX);
        // Packets that wait for their connection to be accepted: ours are accepted at once.
        server.incoming_buffer_size(0);
        server.incoming_buffer_size_total(0);
        let (generation, is_shared) = (Generation::default(), false);
        Ok(Config { keys, generation, is_shared, server: Arc::new(server) })
    }

    /// For a process of a generation, whether or not one of the other is there too.
    pub fn of(self, generation: Generation, is_shared: bool) -> Config {
        Config { generation, is_shared, ..self }
    }

    /// Public, as [`Config::server`] is, for the program that measures what this stack costs without
    /// a relay on it: it must have the same connections.
    pub fn endpoint(&self, shard: usize, shards: usize, seed: u64) -> EndpointConfig {
        self.endpoint_with(self.cids(shard, shards, seed), shard, seed)
    }

    fn endpoint_with(&self, cids: ShardCids, shard: usize, seed: u64) -> EndpointConfig {
        let reset = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &self.keys.reset);
        let mut config = EndpointConfig::new(Arc::new(reset));
        config.cid_generator(move || Box::new(cids.clone()));
        // No pause between resets, of which many may be due in one turn: those who were connected to a
        // relay that crashed all speak when it is back. Only who knows an ID of ours can ask for one, and
        // it is smaller than what asks.
        config.min_reset_interval(Duration::ZERO);
        let mut rng_seed = [0; 32];
        rng_seed[..8].copy_from_slice(&seed.to_le_bytes());
        rng_seed[8] = shard as u8;
        config.rng_seed(Some(rng_seed));
        config
    }

    fn cids(&self, shard: usize, shards: usize, seed: u64) -> ShardCids {
        ShardCids::new(shard, shards, &self.keys.cid, seed).of(self.generation, self.is_shared)
    }

    pub fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }
}

/// With what connections begin that this relay dials.
#[derive(Clone)]
pub struct Outgoing {
    direct: ClientConfig,
    web: ClientConfig,
    /// For a process of this generation at our own address.
    process: Option<Generation>,
}

impl Outgoing {
    /// `tls` says whom to believe and what to show. Protocols are added here: all that need no introduction
    /// of the old kind.
    pub fn new(
        tls: &rustls::ClientConfig,
        congestion_control: CongestionControl,
    ) -> Result<Outgoing, String> {
        Outgoing::with_controllers(tls, congestion_control.controllers())
    }

    pub fn with_controllers(
        tls: &rustls::ClientConfig,
        controllers: Controllers,
    ) -> Result<Outgoing, String> {
        let mut transport = transport(controllers);
        transport.send_window(LINK_SEND_WINDOW_BYTES);
        let transport = Arc::new(transport);
        let client = |alpn: Vec<Vec<u8>>| {
            let mut tls = tls.clone();
            tls.alpn_protocols = alpn;
            let crypto = quinn_proto::crypto::rustls::QuicClientConfig::try_from(tls)
                .map_err(|error| format!("the TLS configuration does not suit QUIC: {error}"))?;
            let mut client = ClientConfig::new(Arc::new(crypto));
            client.transport_config(transport.clone());
            Ok::<_, String>(client)
        };
        let direct = dialled_protocols().map(|name| name.as_bytes().to_vec());
        let web = client(vec![ALPN_HTTP3.to_vec()])?;
        Ok(Outgoing { direct: client(direct.collect())?, web, process: None })
    }
}

impl Outgoing {
    /// For the other process at our own address, which has this generation: every packet says so.
    pub fn to_process(mut self, generation: Generation) -> Outgoing {
        self.direct.version(PROCESS_VERSION);
        Outgoing { process: Some(generation), ..self }
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outgoing")
    }
}

/// What this relay speaks with those whom it dials, in its order of preference.
fn dialled_protocols() -> impl Iterator<Item = &'static str> {
    let spoken = Protocol::ALL.into_iter().filter(|protocol| *protocol != Protocol::Legacy);
    spoken.map(Protocol::name)
}

/// Whom to dial, and how.
#[derive(Clone, Debug)]
pub struct Callee {
    pub remote: SocketAddr,
    /// The name that its certificate is to have.
    pub server_name: String,
    /// By WebTransport, and there this is asked for; else by raw QUIC.
    pub web: Option<Url>,
}

fn transport(controllers: Controllers) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("ten seconds fit a varint");
    // Asked of peers that know the extension, as every quinn does. What comes out of order is
    // acknowledged at once, as without it.
    let mut ack_frequency = AckFrequencyConfig::default();
    ack_frequency
        .ack_eliciting_threshold(varint(ACK_ELICITING_THRESHOLD))
        .reordering_threshold(varint(1));
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(varint(STREAMS_BIDI_START))
        .max_concurrent_uni_streams(varint(STREAMS_UNI_START))
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(RECEIVE_WINDOW_START.into())
        .send_window(SEND_WINDOW_BYTES)
        .initial_rtt(INITIAL_RTT)
        .congestion_controller_factory(controllers)
        .ack_frequency_config(Some(ack_frequency))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES);
    transport
}

fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}
