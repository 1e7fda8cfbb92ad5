//! What a play has publishers make, and who is owed it from then on.

use std::time::Instant;

use bytes::Bytes;
use shardcast::mux::Wire;
use shardcast::wire::*;

use super::super::network::{Random, Weather};
use super::super::peer::{Asked, End, Frame, Group, Source, Spec, Subscription};
use super::{World, ms};

/// A datagram of no more than this fits the smallest packet, whatever precedes it there.
const DATAGRAM_BYTES_SURE: usize = 1000;

/// A track of a publisher.
#[derive(Clone, Copy, Debug)]
pub struct Track {
    pub peer: usize,
    pub source: usize,
}

impl World {
    /// A publisher of one track, announced and known everywhere.
    pub fn publisher(&mut self, version: Version, shard: usize, path: &str, track: &str) -> Track {
        let hop = 7 + self.peers.len() as u64;
        self.publisher_like(Spec::new(version, shard).hop(hop), path, track)
    }

    pub fn publisher_like(&mut self, spec: Spec, path: &str, track: &str) -> Track {
        let peer = self.join(spec);
        self.peers[peer].announce(path, &[], Cost::ZERO);
        let track = self.track(peer, path, track);
        self.run(ms(100));
        track
    }

    pub fn track(&mut self, peer: usize, path: &str, track: &str) -> Track {
        let sources = self.peers[peer].sources.len() as u64;
        let film = (peer as u64) << 48 | sources << 40;
        Track { peer, source: self.peers[peer].add_source(film, path, track) }
    }

    /// The publisher begins another run of a track, as the released players do for each
    /// subscription: subscriptions from now on get groups of that alone, whatever their numbers.
    pub fn rerun(&mut self, track: Track) -> Track {
        let Source { path, track: name, .. } = &self.peers[track.peer].sources[track.source];
        let (path, name) = (path.clone(), name.clone());
        self.note(track.peer, "begins another run");
        self.unsettle(track.peer);
        self.track(track.peer, &path, &name)
    }

    /// The present run of a track.
    pub fn current(&self, track: Track) -> Track {
        let sources = &self.peers[track.peer].sources;
        let Source { path, track: name, .. } = &sources[track.source];
        let is_it = |source: &Source| source.path == *path && source.track == *name;
        let last = sources.iter().rposition(is_it);
        Track { source: last.expect("the track itself is one"), ..track }
    }

    /// Another way to the publisher of a broadcast, one hop longer: whatever is made for the one is
    /// there at the other. The same track of it.
    pub fn second_way(&mut self, track: Track, spec: Spec) -> Track {
        let first_hop = self.peers[track.peer].spec.setup.hop;
        let path = self.source(track).path.clone();
        let peer = self.arrive(spec);
        self.peers[peer].announce(&path, &[first_hop], Cost::ZERO);
        let mut same = track;
        for at in 0..self.peers[track.peer].sources.len() {
            let known = &self.peers[track.peer].sources[at];
            if known.path != path {
                continue;
            }
            let Source { film, info, end, .. } = *known;
            let (groups, order) = (known.groups.clone(), known.order.clone());
            let datagrams = known.datagrams.clone();
            let name = known.track.clone();
            let source = self.peers[peer].add_source(film, &path, &name);
            let print = self.source(Track { peer, source });
            (print.info, print.groups, print.order, print.end) = (info, groups, order, end);
            print.datagrams = datagrams;
            if at == track.source {
                same = Track { peer, source };
            }
        }
        same
    }

    /// Everyone who has this film, wherever it was said.
    pub fn prints(&self, track: Track) -> Vec<Track> {
        let film = self.peers[track.peer].sources[track.source].film;
        let sources = |peer: usize| 0..self.peers[peer].sources.len();
        let all = (0..self.peers.len()).flat_map(|peer| sources(peer).map(move |at| (peer, at)));
        all.filter(|(peer, at)| self.peers[*peer].sources[*at].film == film)
            .map(|(peer, source)| Track { peer, source })
            .collect()
    }

    pub fn source(&mut self, track: Track) -> &mut Source {
        let peer = &mut self.peers[track.peer];
        peer.is_dirty = true;
        &mut peer.sources[track.source]
    }

    pub fn open_group(&mut self, track: Track, sequence: u64) {
        let name = self.source(track).track.clone();
        self.note(track.peer, &format!("opens group {sequence} of {name}"));
        for print in self.prints(track) {
            let source = self.source(print);
            source.groups.insert(sequence, Group::default());
            source.order.push(sequence);
        }
        let film = self.source(track).film;
        self.owe(track, sequence, |_, known| {
            known.owed.insert((film, sequence));
        });
    }

    /// Whoever is known everywhere to want a group of this number is owed it.
    fn owe(&mut self, track: Track, sequence: u64, owe: impl Fn(&Spec, &mut Subscription)) {
        let Source { film, path, track: name, .. } = &self.peers[track.peer].sources[track.source];
        let film = *film;
        let (path, name) = (self.peers[track.peer].absolute(path), name.clone());
        for peer in &mut self.peers {
            let root = peer.absolute("");
            for known in &mut peer.subscriptions {
                let is_same = known.track == name
                    && root.join(&Path::parse(&known.path).expect("valid")).ok().as_ref()
                        == Some(&path);
                if is_same && known.settled == Some(film) && known.covers(film, sequence) {
                    owe(&peer.spec, known);
                }
            }
        }
    }

    /// A whole group of one frame, as a datagram. It may be sent more than once.
    pub fn datagram(&mut self, track: Track, sequence: u64, size: usize) {
        let mut payload = vec![0; size];
        let film = self.source(track).film;
        Random::new(film ^ sequence << 16 ^ 0xda7a).fill(&mut payload);
        let frame = Frame { timestamp: sequence * 1000 + 7, payload: payload.into() };
        let prints = self.prints(track);
        let mut is_sent = false;
        for print in &prints {
            let publisher = &mut self.peers[print.peer];
            is_sent |= publisher.send_datagram(print.source, sequence, &frame)
                && loses_no_datagram(&publisher.spec);
        }
        // Of several ways nobody knows which one the relay is about to leave.
        let is_small = size <= DATAGRAM_BYTES_SURE;
        let is_sure = is_sent && is_small && prints.len() == 1 && self.stage.is_sure();
        if is_sure {
            self.owe(track, sequence, |viewer, known| {
                if loses_no_datagram(viewer) && known.end.is_none() {
                    known.owed_datagrams.insert(sequence);
                }
            });
        }
    }

    pub fn frame_at(&mut self, track: Track, sequence: u64, timestamp: u64, size: usize) {
        for print in self.prints(track) {
            let source = self.source(print);
            let film = source.film;
            let group = source.groups.get_mut(&sequence).expect("it was opened");
            let mut payload = vec![0; size];
            let index = group.frames.len() as u64;
            Random::new(film ^ sequence << 16 ^ index).fill(&mut payload);
            group.frames.push(Frame { timestamp, payload: Bytes::from(payload) });
        }
    }

    /// A frame at the time it would have in a film with reordered frames: some steps lead back.
    pub fn frame(&mut self, track: Track, sequence: u64, size: usize) {
        let index = self.source(track).groups[&sequence].frames.len() as u64;
        let back = if index % 3 == 2 { 60 } else { 0 };
        self.frame_at(track, sequence, sequence * 1000 + index * 40 - back, size);
    }

    pub fn end_group(&mut self, track: Track, sequence: u64, end: End) {
        for print in self.prints(track) {
            let group = self.source(print).groups.get_mut(&sequence).expect("it was opened");
            group.end = Some(end);
        }
    }

    /// A whole group at once.
    pub fn group(&mut self, track: Track, sequence: u64, sizes: &[usize]) {
        self.open_group(track, sequence);
        sizes.iter().for_each(|size| self.frame(track, sequence, *size));
        self.end_group(track, sequence, End::Finished);
    }

    /// No group at or above `end` will follow.
    pub fn finish(&mut self, track: Track, end: u64) {
        let name = self.source(track).track.clone();
        self.note(track.peer, &format!("ends {name} at {end}"));
        for print in self.prints(track) {
            self.source(print).end = Some(end);
        }
    }

    /// Resets what the relay has subscribed to, or says FIN without END. Groups stay open, or are
    /// reset too.
    pub fn break_off(&mut self, track: Track, end: End, cuts_groups: bool) {
        self.note(track.peer, "breaks off");
        self.unsettle(track.peer);
        self.peers[track.peer].break_subscriptions(track.source, end, cuts_groups);
    }

    /// Content that was under way from this publisher may be lost with it.
    pub fn unsettle(&mut self, publisher: usize) {
        let absolute =
            |source: &Source| (self.peers[publisher].absolute(&source.path), source.track.clone());
        let lost: Vec<(Path, String)> =
            self.peers[publisher].sources.iter().map(absolute).collect();
        for peer in &mut self.peers {
            let root = peer.absolute("");
            for known in &mut peer.subscriptions {
                let path = root.join(&Path::parse(&known.path).expect("valid")).expect("not deep");
                if lost.contains(&(path, known.track.clone())) {
                    known.owed.clear();
                    known.owed_datagrams.clear();
                    known.settled = None;
                }
            }
        }
    }

    /// What the relay has asked of a publisher since this was last looked at.
    pub fn asked(&mut self, peer: usize) -> Vec<Asked> {
        self.asked_when(peer).into_iter().map(|(_, asked)| asked).collect()
    }

    pub fn asked_when(&mut self, peer: usize) -> Vec<(Instant, Asked)> {
        std::mem::take(&mut self.peers[peer].asked)
    }
}

/// Whether every datagram gets there: the wire has some, and the network loses none.
fn loses_no_datagram(spec: &Spec) -> bool {
    let Weather { lost_up, lost_down, down_bytes_per_second, .. } = spec.weather;
    let is_fair = (lost_up, lost_down, down_bytes_per_second) == (0, 0, None);
    is_fair && spec.version >= Version::Lite05 && spec.ws != Some(Wire::Qmux00)
}
