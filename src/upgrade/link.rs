//! The link to the process before this one, over which each has what is published at the other: an ordinary session
//! between two relays, which begins at the address that both have.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use super::line::{Line, is_readable};
use crate::cluster::{Dial, LinkId};
use crate::config::ConnectTls;
use crate::estate::Estate;
use crate::limits::{UPGRADE_LINK_LOOK, UPGRADE_LINK_PAUSE, UPGRADE_LINK_WAIT_MAX};
use crate::net::steer::Generation;
use crate::quic::{Callee, Outgoing};
use crate::session::Call;
use crate::shard::links::HeirKey;
use crate::shard::message::ToShard;
use crate::tls::outgoing;

/// The shard that has it.
const SHARD: usize = 0;

/// A name for its certificate, which is known by its digest.
const SERVER_NAME: &str = "localhost";

/// SHA-256 of the certificate that the next process is shown when it dials this one.
pub fn shown(estate: &Estate) -> [u8; 32] {
    estate.certificates.fingerprint_for(SERVER_NAME)
}

/// As what two processes know each other.
#[derive(Clone)]
pub struct Pact {
    pub key: HeirKey,
    pub certificates: Vec<[u8; 32]>,
    /// Of the process before this one.
    pub generation: Generation,
}

pub struct Link {
    outgoing: Outgoing,
    callee: Callee,
    call: Call,
    to: Sender<Result<(), String>>,
    from: Receiver<Result<(), String>>,
    /// When it is dialled again, while it is down, and why it is.
    lost: Option<(Instant, String)>,
}

/// Why there is none.
pub enum LinkError {
    /// The process before this one is gone.
    Alone,
    Failed(String),
}

impl Link {
    /// Returns when it is up, or says why it is not. `line` leads to that process.
    pub fn open(pact: Pact, estate: &Estate, line: &Line) -> Result<Link, LinkError> {
        let tls = ConnectTls {
            roots: Vec::new(),
            system_roots: false,
            fingerprints: pact.certificates,
            identity: None,
            is_insecure: false,
            host_name: None,
        };
        let tls = outgoing::dialling(&tls).map_err(|error| LinkError::Failed(error.to_string()))?;
        let outgoing = Outgoing::new(&tls, estate.congestion_control).map_err(LinkError::Failed)?;
        let remote = reachable(estate.rows.address());
        let (to, from) = mpsc::channel();
        let link = Link {
            outgoing: outgoing.to_process(pact.generation),
            callee: Callee { remote, server_name: SERVER_NAME.to_owned(), web: None },
            call: Call { target: Some(format!("/?jwt={}", pact.key.as_str())), cost: None },
            to,
            from,
            lost: None,
        };
        link.dial(estate);
        let until = Instant::now() + UPGRADE_LINK_WAIT_MAX;
        while Instant::now() < until {
            match link.from.recv_timeout(UPGRADE_LINK_LOOK) {
                Ok(Ok(())) => return Ok(link),
                Ok(Err(reason)) => return Err(LinkError::Failed(reason)),
                // Nothing is said on the line by now: it has ended.
                Err(_)
                    if is_readable(&[line.as_fd()], Duration::ZERO).is_ok_and(|ready| ready[0]) =>
                {
                    return Err(LinkError::Alone);
                }
                Err(_) => {}
            }
        }
        Err(LinkError::Failed(format!("it is not up within {UPGRADE_LINK_WAIT_MAX:?}")))
    }

    /// Dials again if it was lost. To be called every `UPGRADE_LINK_PAUSE`, while that process is there.
    pub fn look(&mut self, estate: &Estate) {
        match self.from.try_recv() {
            Ok(Ok(())) => self.lost = None,
            Ok(Err(reason)) => self.lost = Some((Instant::now() + UPGRADE_LINK_PAUSE, reason)),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
        // Not if that process has ended by then, as it does in the end.
        if let Some((_, reason)) = self.lost.take_if(|(at, _)| *at <= Instant::now()) {
            tracing::warn!(
                reason,
                "the link to the process before this one is lost, and dialled again"
            );
            self.dial(estate);
        }
    }

    fn dial(&self, estate: &Estate) {
        let (outgoing, callee) = (self.outgoing.clone(), self.callee.clone());
        let dial = Dial { link: LinkId::BEFORE, outgoing, callee, call: self.call.clone() };
        if estate.shards[SHARD].send(ToShard::DialBefore(Box::new(dial), self.to.clone())).is_err()
        {
            let _ = self.to.send(Err("the shard has too much mail".to_owned()));
        }
    }
}

/// An unspecified address cannot be dialled. A socket that is for both families is reached by either.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
