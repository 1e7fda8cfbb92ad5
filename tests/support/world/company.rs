//! Peers that come, move and go.

use shardcast::quic::ALPN_HTTP3;
use shardcast::wire::*;

use super::super::peer::{Peer, Spec, State};
use super::keys::client_tls;
use super::{World, ms};

impl World {
    /// A peer that has just begun its handshake.
    pub fn arrive(&mut self, spec: Spec) -> usize {
        let index = self.peers.len();
        let alpn = if spec.web.is_some() { ALPN_HTTP3 } else { spec.version.alpn().as_bytes() };
        let tls = client_tls(alpn);
        let (seed, ws) = (self.random.next(), spec.ws);
        let peer = Peer::join(index, spec, tls, seed, self.stage.shards, self.now);
        self.addresses.insert(peer.address, index);
        self.peers.push(peer);
        if let Some(wire) = ws {
            self.dial_ws(index, wire);
        }
        index
    }

    /// A peer whose session is up.
    pub fn join(&mut self, spec: Spec) -> usize {
        let index = self.arrive(spec);
        let is_up = self.run_until(ms(10_000), |world| world.peers[index].is_up());
        assert!(is_up, "{} cannot connect: {:?}", self.peers[index].name, self.peers[index].state);
        self.run(ms(50));
        index
    }

    pub fn viewer(&mut self, version: Version, shard: usize) -> usize {
        self.join(Spec::new(version, shard))
    }

    pub fn kill(&mut self, peer: usize) {
        self.note(peer, "is killed");
        self.unsettle(peer);
        self.peers[peer].state = State::Killed;
        self.kill_socket(peer);
        self.peers[peer].lost_at = Some(self.now);
    }

    pub fn close(&mut self, peer: usize) {
        self.note(peer, "closes");
        self.unsettle(peer);
        self.peers[peer].lost_at = Some(self.now);
        let now = self.now;
        self.peers[peer].close(now, 0);
    }

    /// Closes the connection without a word on the session that lies on it.
    pub fn hang_up(&mut self, peer: usize) {
        self.note(peer, "hangs up");
        self.unsettle(peer);
        self.peers[peer].lost_at = Some(self.now);
        let now = self.now;
        self.peers[peer].hang_up(now, 0);
    }

    /// The peer's datagrams come from another port from now on, and the old one is dead.
    pub fn rebind(&mut self, peer: usize) {
        let address = &mut self.peers[peer].address;
        self.addresses.remove(address);
        address.set_port(address.port() + 1);
        self.addresses.insert(*address, peer);
        self.note(peer, "moves");
    }

    pub(super) fn note(&mut self, peer: usize, what: &str) {
        let since = self.since_start();
        self.history.note(since, format_args!("{} {what}", self.peers[peer].name));
    }

    pub(super) fn close_all(&mut self, is_meant: impl Fn(&Peer) -> bool) {
        for peer in 0..self.peers.len() {
            if self.peers[peer].is_up() && is_meant(&self.peers[peer]) {
                self.close(peer);
            }
        }
    }
}
