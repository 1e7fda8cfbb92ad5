//! A connection that asks for all announcements and hears of every change.

use bytes::Bytes;
use quinn_proto::{Dir, StreamId};
use shardcast::wire::{
    Announce, AnnounceOk, AnnounceRequest, BidiType, Path, StreamCode, encode_varint,
};

use crate::quic::{Link, ReadEnd};
use crate::shared::Shared;

#[derive(Default)]
pub struct Listener {
    bytes: Vec<u8>,
    has_begun: bool,
    /// By announcement id: the broadcast, if it is one of ours.
    announced: Vec<Option<u32>>,
    /// Broadcasts of ours that are announced now.
    pub live: usize,
}

impl Listener {
    /// Asks for everything; None without a stream, which a new connection always has.
    pub fn ask(&self, link: &mut Link, shared: &Shared) -> Option<StreamId> {
        let stream = link.open(Dir::Bi)?;
        let mut out = Vec::new();
        encode_varint(BidiType::Announce as u64, &mut out);
        AnnounceRequest { prefix: Path::root(), exclude_hop: 0 }.encode(shared.version, &mut out);
        link.send(stream, &mut [Bytes::from(out)], false);
        Some(stream)
    }

    /// Reads what is announced; false if the stream is over.
    pub fn read(
        &mut self,
        link: &mut Link,
        stream: StreamId,
        shared: &mut Shared,
        now: u64,
    ) -> bool {
        let end = link.read(stream, |bytes| self.bytes.extend_from_slice(bytes));
        let mut at = 0;
        while let Some((change, used)) = self.next(&self.bytes[at..], shared) {
            at += used;
            match change {
                Some(change) => self.heard(change, shared, now),
                None => self.has_begun = true,
            }
        }
        self.bytes.drain(..at);
        if end == ReadEnd::Pending {
            return true;
        }
        shared.measure.error(now, || match end {
            ReadEnd::Reset(code) => {
                format!("an announce stream was reset: {}", StreamCode::from_raw_quic(code))
            }
            _ => "an announce stream was ended".to_owned(),
        });
        false
    }

    /// The next message, which is none of the changes where it is ANNOUNCE_OK.
    fn next(&self, bytes: &[u8], shared: &Shared) -> Option<(Option<Announce>, usize)> {
        if !self.has_begun {
            let (_, used) = AnnounceOk::take(bytes).ok()??;
            return Some((None, used));
        }
        let (change, used) = Announce::take(shared.version, bytes).ok()??;
        Some((Some(change), used))
    }

    fn heard(&mut self, change: Announce, shared: &mut Shared, now: u64) {
        match change {
            Announce::Start { suffix, .. } => {
                let broadcast = shared.plan.broadcast_at(suffix.as_str());
                self.announced.push(broadcast);
                if let Some(broadcast) = broadcast {
                    self.live += 1;
                    let intended = shared.changed[broadcast as usize].announced;
                    shared.measure.heard(intended, now);
                }
            }
            Announce::End { id } => {
                let broadcast = self.announced.get_mut(id as usize).and_then(Option::take);
                self.ended(broadcast, shared, now);
            }
            Announce::Ended { suffix } => {
                let broadcast = shared.plan.broadcast_at(suffix.as_str());
                self.ended(broadcast, shared, now);
            }
            Announce::Restart { .. } | Announce::Restart05 { .. } | Announce::Unknown => {}
        }
    }

    fn ended(&mut self, broadcast: Option<u32>, shared: &mut Shared, now: u64) {
        if let Some(broadcast) = broadcast {
            self.live = self.live.saturating_sub(1);
            shared.measure.heard(shared.changed[broadcast as usize].ended, now);
        }
    }
}
