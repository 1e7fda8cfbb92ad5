//! Datagrams: whole groups of one frame that nobody repeats when they are lost (spec §4.14).

use std::time::Instant;

use bytes::Bytes;

use super::counts::Traffic;
use super::streams::{StreamId, Streams};
use super::{Context, Effect, Session};
use crate::bucket::Bucket;
use crate::limits::DATAGRAM_BURST_BYTES;
use crate::track::content::Run;
use crate::track::{Datagram, Feed};
use crate::wire::{self, VARINT_MAX, Version, encode_varint};

/// What part of the link datagrams may have while groups are under way. In a packet they come before
/// any stream, so more of them than the link carries would leave nothing for groups.
const SHARE: f64 = 0.5;

/// Takes `size` bytes of what may be sent beside groups if there are as many, on a link of `bitrate` bits
/// per second.
fn take_allowance(allowance: &mut Bucket, size: usize, bitrate: u64, now: Instant) -> bool {
    let per_second = bitrate as f64 / 8.0 * SHARE;
    let is_enough = size as f64 <= allowance.fill(per_second, DATAGRAM_BURST_BYTES as f64, now);
    if is_enough {
        allowance.take(size as f64);
    }
    is_enough
}

/// A datagram is a group of one frame.
fn note_datagram(traffic: &mut Traffic, payload: &[u8]) {
    traffic.datagrams += 1;
    traffic.groups += 1;
    traffic.frames += 1;
    traffic.bytes += payload.len() as u64;
}

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
        note_datagram(&mut cx.counts.received, &datagram.payload);
        // A copy: what was received keeps the whole packet alive.
        let payload = Bytes::copy_from_slice(&datagram.payload);
        let feed = Feed::Datagram(Datagram { sequence, timestamp, payload });
        cx.effects.push(Effect::Fed { pull: pull.name, feed });
    }

    /// Sends datagrams of a run of a track to one subscription, as far as the peer's transport takes any.
    pub fn send_datagrams<S: Streams>(
        &mut self,
        key: StreamId,
        run: Run,
        datagrams: &[Datagram],
        cx: &mut Context<'_, S>,
    ) {
        let Some(served) = self.served.get(&key) else { return };
        let shift = served.shift(run);
        if self.version < Version::Lite05 {
            return;
        }
        let is_idle = self.open_groups == 0 && self.fetches_out.is_empty();
        let bitrate = cx.streams.shown().bitrate;
        let (is_alone, bitrate) = (is_idle || bitrate.is_none(), bitrate.unwrap_or(0));
        let mut head = Vec::with_capacity(24);
        let wanted = datagrams
            .iter()
            .map(|datagram| ((datagram.sequence + shift).min(VARINT_MAX), datagram));
        for (number, datagram) in wanted.filter(|(number, _)| served.wants(*number)) {
            head.clear();
            encode_varint(served.id, &mut head);
            encode_varint(number, &mut head);
            encode_varint(datagram.timestamp, &mut head);
            let size = head.len() + datagram.payload.len();
            if is_alone || take_allowance(&mut self.allowance, size, bitrate, cx.now) {
                cx.streams.send_datagram(&head, &datagram.payload);
                note_datagram(&mut cx.counts.sent, &datagram.payload);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// How many datagrams of 1000 bytes get through of `count` in a second, on a link of 8 Mb/s.
    fn passed(count: u32) -> usize {
        let start = Instant::now();
        let mut allowance = Bucket::default();
        let at = |n: u32| start + Duration::from_secs(1) * n / count;
        (0..count).filter(|n| take_allowance(&mut allowance, 1000, 8_000_000, at(*n))).count()
    }

    #[test]
    fn datagrams_leave_half_of_the_link_to_groups() {
        // What needs less is let through, all of it.
        assert_eq!(passed(50), 50);
        assert_eq!(passed(499), 499);
        // A flood gets half, and the burst with which it begins.
        let burst = DATAGRAM_BURST_BYTES / 1000;
        for count in [2_000, 10_000, 1_000_000] {
            let passed = passed(count);
            assert!((499..=501).contains(&(passed - burst)), "{passed} of {count}");
        }
    }

    #[test]
    fn a_burst_after_a_pause_is_bounded() {
        let start = Instant::now();
        let mut allowance = Bucket::default();
        assert!(take_allowance(&mut allowance, 1, 8_000_000, start));
        let later = start + Duration::from_secs(3600);
        let passed =
            (0..1000).filter(|_| take_allowance(&mut allowance, 1000, 8_000_000, later)).count();
        assert_eq!(passed, DATAGRAM_BURST_BYTES / 1000);
    }
}
