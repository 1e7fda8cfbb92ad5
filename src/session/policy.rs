//! What all sessions of a relay have in common, and who the peer of each is to us.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::origin::Origins;
use crate::route::{Takeover, Trust};
use crate::secret::Secret;
use crate::source::Source;
use crate::wire::HOPS_MAX;

/// What all sessions of a relay have in common.
#[derive(Clone, Debug)]
pub struct Policy {
    /// This relay's hop id.
    pub hop: u64,
    /// The longest chain that is taken, and as many hops as those have that are told it.
    pub max_hops: usize,
    /// The pages of browsers that may use the relay.
    pub origins: Origins,
    /// Where the other relays of the cluster are.
    pub relays: Vec<IpNet>,
    pub takeover: Takeover,
    pub secret: Secret,
}

impl Policy {
    /// No page is refused, and nobody is a relay.
    pub fn open(hop: u64, secret: Secret) -> Policy {
        Policy {
            hop,
            max_hops: HOPS_MAX,
            origins: Origins::All,
            relays: Vec::new(),
            takeover: Takeover::Refused,
            secret,
        }
    }

    /// How far a peer at an address is believed.
    pub fn trust(&self, ip: IpAddr) -> Trust {
        let ip = ip.to_canonical();
        match self.relays.iter().any(|network| network.contains(&ip)) {
            true => Trust::Relay,
            false => Trust::Stranger { at: self.secret.of_source(Source::of(ip)) },
        }
    }
}

/// Who the peer of a session is to us. The numbers are random and not zero.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    pub trust: Trust,
    /// Who the peer is as long as it does not say; never on the wire.
    pub identity: u64,
    /// First hop given to broadcasts whose publisher has no name.
    pub stamp: u64,
}
