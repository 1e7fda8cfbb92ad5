//! Datagrams: whole groups of one frame that nobody repeats when they are lost (spec §4.14).

use bytes::Bytes;

use super::streams::Streams;
use super::{Context, Effect, Session};
use crate::session::streams::StreamId;
use crate::track::{Datagram, Feed};
use crate::wire::{self, VARINT_MAX, Version, encode_varint};

impl Session {
    /// The peer sent one. What cannot be used is dropped: its loss was always possible.
    pub fn datagram<S: Streams>(&mut self, datagram: Bytes, cx: &mut Context<'_, S>) {
        if self.version < Version::Lite05 || self.failure.is_some() {
            return;
        }
        let Ok(datagram) = wire::Datagram::decode(datagram) else { return };
        let Some(&key) = self.pull_ids.get(&datagram.subscribe_id) else { return };
        let pull = &mut self.pulls[key];
        let timestamp = match pull.scale {
            Some(scale) => scale.apply(datagram.timestamp),
            None => Some(datagram.timestamp),
        };
        let Some(timestamp) = timestamp.filter(|timestamp| *timestamp <= VARINT_MAX) else {
            return;
        };
        let sequence = datagram.sequence;
        if !pull.note_datagram(sequence) {
            return;
        }
        // A copy: what was received keeps the whole packet alive.
        let payload = Bytes::copy_from_slice(&datagram.payload);
        let feed = Feed::Datagram(Datagram { sequence, timestamp, payload });
        cx.effects.push(Effect::Fed { pull: pull.name, feed });
    }

    /// Sends datagrams of a track to one subscription, as far as the peer's transport takes any.
    pub fn send_datagrams<S: Streams>(
        &mut self,
        key: StreamId,
        datagrams: &[Datagram],
        cx: &mut Context<'_, S>,
    ) {
        let Some(served) = self.served.get(&key) else { return };
        if self.version < Version::Lite05 {
            return;
        }
        let mut head = Vec::with_capacity(24);
        for datagram in datagrams.iter().filter(|datagram| served.wants(datagram.sequence)) {
            head.clear();
            encode_varint(served.id, &mut head);
            encode_varint(datagram.sequence, &mut head);
            encode_varint(datagram.timestamp, &mut head);
            cx.streams.send_datagram(&head, &datagram.payload);
        }
    }
}
