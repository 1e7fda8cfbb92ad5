//! What a peer is like when it joins.

use shardcast::mux::Wire;
use shardcast::wire::*;

use super::super::network::Weather;
use super::web::Manner;

/// What a peer is like when it joins.
#[derive(Clone, Debug)]
pub struct Spec {
    pub version: Version,
    /// By WebTransport instead of raw QUIC.
    pub web: Option<Manner>,
    /// In a WebSocket, on this draft of qmux.
    pub ws: Option<Wire>,
    /// The relay that it dials, and the shard that its first flight names, or that it is handed to.
    pub relay: usize,
    pub shard: usize,
    pub weather: Weather,
    pub setup: Setup,
    /// Sent instead of `setup` or the legacy one, type and all; nothing if empty.
    pub raw_setup: Option<Vec<u8>>,
    /// Requests and group streams that it lets the relay open, and bytes that it takes unread.
    pub bidi_streams: u32,
    pub uni_streams: u32,
    pub window: u32,
    /// Sends as fast as it can from the beginning.
    pub is_swift: bool,
    /// As a publisher: says FIN right behind END instead of after the last acknowledgement.
    pub is_hasty: bool,
    /// Writes what comes to its mind; nobody looks at what it gets.
    pub is_rude: bool,
    /// As a publisher: does as the released players do. Every subscription is a run of its own, with
    /// numbers from 0, which is given as it comes: neither bounds nor updates are heeded.
    pub is_player: bool,
    /// In the house of this peer, at the same address.
    pub house: Option<usize>,
}

impl Spec {
    pub fn new(version: Version, shard: usize) -> Spec {
        Spec {
            version,
            web: None,
            relay: 0,
            ws: None,
            shard,
            weather: Weather::FAIR,
            setup: Setup::default(),
            raw_setup: None,
            bidi_streams: 1000,
            uni_streams: 1000,
            window: 8 << 20,
            is_swift: false,
            is_hasty: false,
            is_rude: false,
            is_player: false,
            house: None,
        }
    }

    pub fn hop(mut self, hop: u64) -> Spec {
        self.setup.hop = hop;
        self
    }

    pub fn web(self) -> Spec {
        Spec { web: Some(Manner::default()), ..self }
    }

    pub fn ws(self, wire: Wire) -> Spec {
        Spec { ws: Some(wire), ..self }
    }

    /// Does not wait for the answer to its request.
    pub fn eager_web(self) -> Spec {
        Spec { web: Some(Manner { is_eager: true, is_second: false }), ..self }
    }
}
