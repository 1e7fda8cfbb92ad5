//! The watching half of a connection: subscriptions, and the groups that come of them.

use std::ops::Range;

use bytes::Bytes;
use quinn_proto::{Dir, StreamId};
use shardcast::wire::{
    BidiType, Preferences, StreamCode, Subscribe, SubscribeResponse, Version, encode_varint,
};

use crate::clock::MILLISECOND;
use crate::frames::{Item, Malformed, Reader};
use crate::quic::{Link, ReadEnd};
use crate::shared::{Action, Refusal, Shared};

/// From a refusal to the next try.
const RETRY_NS: u64 = 100 * MILLISECOND;

pub struct Viewer {
    peer: u32,
    pub accounts: Range<u32>,
    /// By subscribe id.
    subscriptions: Vec<Subscription>,
}

#[derive(Clone, Copy)]
struct Subscription {
    account: u32,
    is_live: bool,
}

/// A group stream that is not read to its end.
pub struct Group {
    reader: Reader,
    /// Known once the header has been read.
    account: Option<u32>,
    /// Frames from the first one of the group on; a group that begins later is never complete.
    frames: u64,
    is_from_start: bool,
    first: u64,
    last: u64,
}

/// What the answers on a subscribe stream are kept in.
pub struct Answers {
    id: u64,
    bytes: Vec<u8>,
}

impl Viewer {
    pub fn new(peer: u32, accounts: Range<u32>) -> Viewer {
        Viewer { peer, accounts, subscriptions: Vec::new() }
    }

    /// Opens a subscription. None if it has to be tried again, which is on the agenda then.
    pub fn subscribe(
        &mut self,
        link: &mut Link,
        account: u32,
        shared: &mut Shared,
        now: u64,
    ) -> Option<(StreamId, Answers)> {
        let Some(stream) = link.open(Dir::Bi) else {
            self.retry(account, shared, now);
            return None;
        };
        let id = self.subscriptions.len() as u64;
        let track = shared.measure.accounts[account as usize].track as usize;
        let broadcast = shared.plan.broadcast_of(track);
        let subscribe = Subscribe {
            id,
            broadcast: shared.plan.paths[broadcast as usize].clone(),
            track: shared.plan.track_name(track),
            preferences: Preferences {
                priority: shared.plan.track(track).priority,
                max_age_ms: shared.max_age_ms,
                group_start: None,
                group_end: None,
                frame_start: 0,
                frame_end: None,
            },
        };
        let mut out = Vec::new();
        encode_varint(BidiType::Subscribe as u64, &mut out);
        subscribe.encode(shared.version, &mut out);
        link.send(stream, &mut [Bytes::from(out)], false);
        self.subscriptions.push(Subscription { account, is_live: true });
        shared.subscribed(now);
        Some((stream, Answers { id, bytes: Vec::new() }))
    }

    fn retry(&self, account: u32, shared: &mut Shared, now: u64) {
        let action = Action::Subscribe { peer: self.peer, account };
        shared.agenda.add(now + RETRY_NS, action);
    }

    /// Reads what the relay says of a subscription; false if that is over.
    pub fn read_answers(
        &mut self,
        link: &mut Link,
        stream: StreamId,
        answers: &mut Answers,
        shared: &mut Shared,
        now: u64,
    ) -> bool {
        let end = link.read(stream, |bytes| answers.bytes.extend_from_slice(bytes));
        let account = self.subscriptions[answers.id as usize].account;
        while let Ok(Some((answer, used))) = SubscribeResponse::take(shared.version, &answers.bytes)
        {
            answers.bytes.drain(..used);
            if let SubscribeResponse::Start { .. } = answer {
                shared.measure.accounts[account as usize].is_served = true;
            }
        }
        let code = match end {
            ReadEnd::Pending => return true,
            ReadEnd::Finished => None,
            ReadEnd::Reset(code) => Some(StreamCode::from_raw_quic(code)),
        };
        link.send(stream, &mut [], true);
        self.subscriptions[answers.id as usize].is_live = false;
        let track = shared.measure.accounts[account as usize].track as usize;
        let broadcast = &shared.plan.paths[shared.plan.broadcast_of(track) as usize];
        let what = format!("the subscription of {broadcast} {}", shared.plan.track_name(track));
        shared.measure.error(now, || match code {
            Some(code) => format!("{what} was reset: {code}"),
            None => format!("{what} was ended"),
        });
        shared.refused(now, Refusal { what, code: code.unwrap_or(StreamCode::CANCEL) });
        self.retry(account, shared, now);
        false
    }

    /// Reads a group; false if that is over.
    pub fn read_group(
        &mut self,
        link: &mut Link,
        stream: StreamId,
        group: &mut Group,
        shared: &mut Shared,
        now: u64,
    ) -> bool {
        let mut fault = Ok(());
        let mut is_unwanted = false;
        let end = link.read(stream, |bytes| {
            let read = group.reader.push(bytes, &mut |item| match item {
                Item::Group(header) => {
                    let subscription = self.subscriptions.get(header.subscribe_id as usize);
                    group.account = subscription.filter(|sub| sub.is_live).map(|sub| sub.account);
                    group.is_from_start = header.frame_start == 0;
                    is_unwanted = group.account.is_none();
                    if let Some(account) = group.account {
                        shared.measure.accounts[account as usize].is_served = true;
                    }
                }
                Item::Frame(stamp) => {
                    let (Some(account), Some(stamp)) = (group.account, stamp) else { return };
                    shared.measure.frame(account as usize, stamp.intended, now);
                    if group.frames == 0 {
                        group.first = stamp.intended;
                    }
                    group.last = stamp.intended;
                    group.frames += 1;
                }
            });
            fault = fault.and(read);
        });
        if fault == Err(Malformed) || is_unwanted {
            link.stop(stream, StreamCode::CANCEL.0);
            return false;
        }
        match end {
            ReadEnd::Pending => true,
            ReadEnd::Finished => {
                self.finished(group, shared, now);
                false
            }
            ReadEnd::Reset(_) => {
                shared.measure.reset(now);
                false
            }
        }
    }

    fn finished(&self, group: &Group, shared: &mut Shared, now: u64) {
        let Some(account) = group.account else { return };
        if !group.reader.is_at_boundary() {
            shared.measure.error(now, || "a group ended within a frame".to_owned());
            return;
        }
        let track = shared.measure.accounts[account as usize].track as usize;
        let frames = u64::from(shared.plan.track(track).frames_per_group);
        if group.is_from_start && group.frames == frames {
            shared.measure.group(account as usize, group.first, group.last, now);
        }
    }

    /// The connection is gone, and so is every subscription.
    pub fn lost(&mut self, shared: &mut Shared, now: u64, reason: &str) {
        shared.unsubscribed += self.subscriptions.iter().filter(|sub| sub.is_live).count();
        shared.unsubscribed_since = now;
        shared.measure.error(now, || format!("a viewer's connection was lost: {reason}"));
    }
}

impl Group {
    pub fn new(version: Version) -> Group {
        Group {
            reader: Reader::of_stream(version),
            account: None,
            frames: 0,
            is_from_start: false,
            first: 0,
            last: 0,
        }
    }
}
