//! What sessions count: plain cells that all sessions of a shard share.

use crate::access::Refusal;
use crate::observe::{Histogram, Tally};
use crate::wire::StreamCode;

/// What passes in one direction: what peers are sent, or what they send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Payload of frames, without what frames them.
    pub bytes: u64,
    pub frames: u64,
    pub groups: u64,
    /// Groups that went as datagrams, which count as groups too.
    pub datagrams: u64,
    /// What a viewer was not sent any more because it was too old for him.
    pub stale_bytes: u64,
    pub stale_frames: u64,
    pub stale_groups: u64,
    pub fetches: u64,
    pub announces_started: u64,
    pub announces_ended: u64,
    pub subscriptions_opened: u64,
    pub subscriptions_closed: u64,
    /// Broadcasts of which a session subscribes to some tracks, however many.
    pub viewers_opened: u64,
    pub viewers_closed: u64,
}

impl Traffic {
    pub fn add(&mut self, other: &Traffic) {
        let Traffic {
            bytes,
            frames,
            groups,
            datagrams,
            stale_bytes,
            stale_frames,
            stale_groups,
            fetches,
            announces_started,
            announces_ended,
            subscriptions_opened,
            subscriptions_closed,
            viewers_opened,
            viewers_closed,
        } = other;
        self.bytes += bytes;
        self.frames += frames;
        self.groups += groups;
        self.datagrams += datagrams;
        self.stale_bytes += stale_bytes;
        self.stale_frames += stale_frames;
        self.stale_groups += stale_groups;
        self.fetches += fetches;
        self.announces_started += announces_started;
        self.announces_ended += announces_ended;
        self.subscriptions_opened += subscriptions_opened;
        self.subscriptions_closed += subscriptions_closed;
        self.viewers_opened += viewers_opened;
        self.viewers_closed += viewers_closed;
    }
}

/// What control bytes are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Session,
    Announce,
    TrackInfo,
    Subscribe,
    Fetch,
    Probe,
    Goaway,
    Other,
}

impl Class {
    pub const ALL: [Class; 8] = [
        Class::Session,
        Class::Announce,
        Class::TrackInfo,
        Class::Subscribe,
        Class::Fetch,
        Class::Probe,
        Class::Goaway,
        Class::Other,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Class::Session => "session",
            Class::Announce => "announce",
            Class::TrackInfo => "track_info",
            Class::Subscribe => "subscribe",
            Class::Fetch => "fetch",
            Class::Probe => "probe",
            Class::Goaway => "goaway",
            Class::Other => "other",
        }
    }
}

/// Bytes of control messages, by what they are about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control([u64; Class::ALL.len()]);

impl Control {
    pub fn note(&mut self, class: Class, bytes: usize) {
        self.0[class as usize] += bytes as u64;
    }

    pub fn of(&self, class: Class) -> u64 {
        self.0[class as usize]
    }

    pub fn add(&mut self, other: &Control) {
        self.0.iter_mut().zip(other.0).for_each(|(bytes, more)| *bytes += more);
    }
}

#[derive(Clone, Debug)]
pub struct Counts {
    /// What peers are sent, and what they send.
    pub sent: Traffic,
    pub received: Traffic,
    pub control_sent: Control,
    pub control_received: Control,
    pub sessions_closed: u64,
    /// Times that peers were told of another way to what they know already.
    pub announces_changed: u64,
    /// Announcements of peers that had come through this relay: those tell it what it has told them.
    pub announces_reflected: u64,
    /// Sessions that have begun, by transport.
    pub transports: Tally,
    /// Clients that were not let in and sessions that had to leave, by why.
    pub refusals: Tally,
    /// Groups that viewers were not sent to their end, by why.
    pub cut_groups: Tally,
    /// From SUBSCRIBE to the first stream of a group for it, in microseconds.
    pub first_group: Histogram,
    /// From the begin of a session to the first of all its groups.
    pub join: Histogram,
}

impl Default for Counts {
    fn default() -> Counts {
        const KNOWN: [StreamCode; 4] =
            [StreamCode::OLD, StreamCode::EVICTED, StreamCode::TOO_FAR_BEHIND, StreamCode::CANCEL];
        Counts {
            sent: Traffic::default(),
            received: Traffic::default(),
            control_sent: Control::default(),
            control_received: Control::default(),
            sessions_closed: 0,
            announces_changed: 0,
            announces_reflected: 0,
            transports: Tally::of([]),
            refusals: Tally::of(Refusal::NAMES),
            cut_groups: Tally::of(KNOWN.map(why)),
            first_group: Histogram::default(),
            join: Histogram::default(),
        }
    }
}

impl Counts {
    pub fn note_cut(&mut self, code: StreamCode) {
        self.cut_groups.note(why(code));
    }
}

/// A code that a publisher has made up has no row of its own: there would be as many as he likes.
fn why(code: StreamCode) -> &'static str {
    code.name().unwrap_or("other")
}
