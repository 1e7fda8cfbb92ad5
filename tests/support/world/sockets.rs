//! Peers in WebSockets: how they are let in, and their bytes on the way. What HTTP does before is beside the
//! shards, and here it takes the time that it takes on the network.

use std::os::fd::RawFd;
use std::time::Instant;

use shardcast::mux::Wire;
use shardcast::shard::entry::{Answer, Knock, Newcomer};
use shardcast::shard::message::ToShard;
use shardcast::shard::pipes::Caller;
use shardcast::tcp::Handover;
use shardcast::wire::{Protocol, Version};
use tokio::sync::oneshot;

use super::super::network::Weather;
use super::super::network::tcp::{Piece, Tcp};
use super::super::peer::{Spec, State};
use super::World;

/// A client's connection.
pub(super) struct Socket {
    peer: usize,
    /// Among those of all relays.
    shard: usize,
    wire: Wire,
    phase: Phase,
    tcp: Tcp,
}

enum Phase {
    /// Its request arrives then.
    Dials(Instant),
    Knocks(oneshot::Receiver<Answer>),
    /// This is on its way to the shard.
    Enters(ToShard),
    /// It is in, or turned away.
    Over,
}

impl World {
    pub(super) fn dial_ws(&mut self, peer: usize, wire: Wire) {
        let Spec { relay, shard, weather, .. } = self.peers[peer].spec;
        let shard = relay * self.stage.shards + shard;
        // A connection, and a request on it.
        let phase = Phase::Dials(self.now + 3 * weather.latency);
        let tcp = Tcp::new(self.random.next());
        self.cores[shard].has_sockets = true;
        self.sockets.push(Socket { peer, shard, wire, phase, tcp });
    }

    fn caller(&self, peer: usize) -> Caller {
        let remote = self.peers[peer].address;
        Caller { remote, local_ip: None, server_name: None, certificate: None }
    }

    fn weather(&self, peer: usize) -> Weather {
        self.peers[peer].spec.weather
    }

    pub(super) fn next_bytes(&self) -> Option<Instant> {
        let next = self.sockets.iter().filter_map(|socket| {
            let dials = match socket.phase {
                // What does not fit its lane waits for the shard.
                Phase::Dials(at) => Some(at).filter(|at| *at > self.now),
                _ => None,
            };
            [dials, socket.tcp.next_arrival()].into_iter().flatten().min()
        });
        next.min()
    }

    /// Passes on what has arrived, to shards and to clients.
    pub(super) fn deliver_bytes(&mut self) {
        for index in 0..self.sockets.len() {
            self.let_in(index);
            let Socket { peer, shard, .. } = self.sockets[index];
            let (now, weather) = (self.now, self.weather(peer));
            let tcp = &mut self.sockets[index].tcp;
            if tcp.deliver(now, &weather) {
                self.cores[shard].looks = true;
                self.peers[peer].is_dirty = true;
            }
            while let Some(piece) = tcp.arrived(now) {
                let peer = &mut self.peers[peer];
                match piece {
                    Piece::Answer(answer) => peer.answered(now, answer),
                    Piece::Bytes(bytes) => peer.bytes(now, &bytes),
                    Piece::End => peer.ended(),
                }
                self.cores[shard].looks |= tcp.pull(now, &weather);
            }
        }
    }

    /// A client asks for a session, is let in, and its connection is handed over.
    fn let_in(&mut self, index: usize) {
        let Socket { peer, shard, wire, ref mut phase, ref mut tcp } = self.sockets[index];
        let version = self.peers[peer].version;
        let protocol = match version {
            Version::Lite01 | Version::Lite02 => Protocol::Legacy,
            version => Protocol::Version(version),
        };
        match std::mem::replace(phase, Phase::Over) {
            _ if self.peers[peer].state == State::Killed => {}
            Phase::Dials(at) if at <= self.now => {
                let root = self.peers[peer].spec.setup.path.as_deref().unwrap_or("");
                let target = format!("/{}", root.trim_start_matches('/'));
                let (line, answer) = oneshot::channel();
                let knock = Knock { target, protocol, caller: self.caller(peer), line };
                let is_told = self.outsides[shard].send(ToShard::Knock(Box::new(knock))).is_ok();
                let phase = if is_told { Phase::Knocks(answer) } else { Phase::Dials(at) };
                self.sockets[index].phase = phase;
            }
            Phase::Knocks(mut line) => match line.try_recv() {
                Ok(Ok(entry)) => {
                    let stream = tcp.connect();
                    let handover = Handover { stream, tls: None, early: Vec::new() };
                    let caller = self.caller(peer);
                    let newcomer = Newcomer { handover, caller, wire, protocol, entry };
                    self.sockets[index].phase =
                        Phase::Enters(ToShard::TakeOver(Box::new(newcomer)));
                    let weather = self.weather(peer);
                    self.sockets[index].tcp.answer(self.now, &weather, Ok(()));
                    self.let_in(index);
                }
                Ok(Err((status, _))) => {
                    let weather = self.peers[peer].spec.weather;
                    tcp.answer(self.now, &weather, Err(status.code().as_u16()));
                }
                Err(oneshot::error::TryRecvError::Empty) => *phase = Phase::Knocks(line),
                Err(oneshot::error::TryRecvError::Closed) => {}
            },
            Phase::Enters(mail) => {
                if let Err(mail) = self.outsides[shard].send(mail) {
                    *phase = Phase::Enters(mail);
                }
            }
            waits => *phase = waits,
        }
    }

    /// What a peer has to say leaves on its connection.
    pub(super) fn turn_socket(&mut self, index: usize) {
        let socket = self.sockets.iter_mut().find(|socket| socket.peer == index);
        let Some(Socket { tcp, .. }) = socket else { return };
        let peer = &mut self.peers[index];
        let (now, weather) = (self.now, peer.spec.weather);
        peer.set_room(tcp.room());
        peer.turn(now, |bytes, _| tcp.send(now, &weather, &bytes));
        if peer.is_done() {
            tcp.end(now, &weather);
        }
    }

    /// A shard has had a turn: what it has said is on its way.
    pub(super) fn drain_sockets(&mut self, shard: usize) {
        self.cores[shard].looks = true;
        for socket in self.sockets.iter_mut().filter(|socket| socket.shard == shard) {
            let weather = self.peers[socket.peer].spec.weather;
            socket.tcp.pull(self.now, &weather);
        }
    }

    /// Nothing comes of a peer's connection any more.
    pub(super) fn kill_socket(&mut self, peer: usize) {
        let socket = self.sockets.iter_mut().find(|socket| socket.peer == peer);
        if let Some(Socket { shard, tcp, .. }) = socket {
            tcp.die();
            self.cores[*shard].looks = true;
        }
    }
}

/// Whether what a shard's ring watches beside its UDP socket would wake it.
pub(super) fn is_readable(descriptor: RawFd) -> bool {
    let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: one live entry, and it does not wait.
    unsafe { libc::poll(&mut poll, 1, 0) > 0 }
}
