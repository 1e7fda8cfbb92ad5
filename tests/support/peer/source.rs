//! A track as its publisher has it: the truth that viewers are compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use shardcast::wire::*;

use super::{AGES, End, Peer};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    pub timestamp: u64,
    pub payload: Bytes,
}

#[derive(Clone, Debug, Default)]
pub struct Group {
    pub frames: Vec<Frame>,
    pub end: Option<End>,
}

/// A track as its publisher has it: the truth that viewers are compared with.
#[derive(Debug)]
pub struct Source {
    /// Publishers of one film have the same frames.
    pub film: u64,
    pub path: String,
    /// From the root of the relay.
    pub absolute: Path,
    pub track: String,
    pub info: TrackInfo,
    /// Answers every request with this code.
    pub refuses: Option<u64>,
    /// Answers every FETCH with this code.
    pub refuses_fetch: Option<u64>,
    /// Says nothing to requests of this type.
    pub never_answers: Option<BidiType>,
    /// Of each fetched group it gives this many frames, and no end; all of it if None.
    pub fetch_pace: Option<usize>,
    /// Takes nothing but priorities from updates, as the released players do.
    pub heeds_no_update: bool,
    pub groups: BTreeMap<u64, Group>,
    /// In the order in which the groups were opened.
    pub order: Vec<u64>,
    /// Groups of one frame that were sent as datagrams, each as often as it was sent.
    pub datagrams: Vec<(u64, Frame)>,
    /// Exclusive, once the track is finished.
    pub end: Option<u64>,
    /// When the relay has last subscribed to it.
    pub subscribed_at: Option<Instant>,
    /// The relay has moved the bounds of a subscription, or has subscribed again: what it holds
    /// may have gaps.
    pub bounds_moved: bool,
    /// Groups that it brought up to a frame only, for the relay wanted no more.
    pub capped: BTreeSet<u64>,
    /// Groups and the frames up to which the relay once wanted them: one that has no more may look
    /// as if it had been cut off.
    pub once_capped: BTreeSet<(u64, usize)>,
    /// When it has given up what it owed.
    pub broken: Vec<Instant>,
    /// Groups, and what a FETCH of them failed with here or may fail with for its slowness.
    pub failed: BTreeSet<(u64, u64)>,
}

impl Peer {
    pub fn add_source(&mut self, film: u64, path: &str, track: &str) -> usize {
        let absolute = self.absolute(path);
        self.sources.push(Source {
            film,
            path: path.to_owned(),
            absolute,
            track: track.to_owned(),
            info: TrackInfo { priority: 9, max_age_ms: AGES, timescale: 1000 },
            refuses: None,
            refuses_fetch: None,
            never_answers: None,
            fetch_pace: None,
            heeds_no_update: false,
            groups: BTreeMap::new(),
            order: Vec::new(),
            datagrams: Vec::new(),
            end: None,
            subscribed_at: None,
            bounds_moved: false,
            capped: BTreeSet::new(),
            once_capped: BTreeSet::new(),
            broken: Vec::new(),
            failed: BTreeSet::new(),
        });
        self.sources.len() - 1
    }

    /// The run of a track that a player gives to a new subscription: another one, unless it has been
    /// given to nobody.
    pub(super) fn player_source(&mut self, last: usize) -> usize {
        let Source { film, path, track, subscribed_at, end, .. } = &self.sources[last];
        if subscribed_at.is_none() && end.is_none() {
            return last;
        }
        let (film, path, track) = (*film, path.clone(), track.clone());
        for group in self.sources[last].groups.values_mut() {
            group.end.get_or_insert(End::Reset(StreamCode::CANCEL.0));
        }
        let film = film >> 48 << 48 | (self.sources.len() as u64) << 40;
        self.add_source(film, &path, &track)
    }

    pub(super) fn source_of(&self, path: &Path, track: &str) -> Option<usize> {
        let is_meant = |source: &Source| source.path == path.as_str() && source.track == track;
        // The last run is the present one.
        self.sources.iter().rposition(is_meant)
    }
}

impl Frame {
    pub(super) fn encode(&self, version: Version, previous: &mut u64, out: &mut Vec<u8>) {
        let delta = timestamp_delta(*previous, self.timestamp);
        let timestamp_delta = delta.expect("timestamps of a play are small");
        let size = self.payload.len() as u64;
        FrameHeader { timestamp_delta, size }.encode(version, out);
        out.extend_from_slice(&self.payload);
        *previous = self.timestamp;
    }
}

impl Source {
    /// The number here of the newest group that begins with these frames.
    pub fn number_of(&self, frames: &[Frame]) -> Option<u64> {
        let is_it = |group: &Group| {
            let mut pairs = frames.iter().zip(&group.frames);
            frames.len() <= group.frames.len() && pairs.all(|(a, b)| a.payload == b.payload)
        };
        let mut newest_first = self.groups.iter().rev();
        newest_first.find(|(_, group)| is_it(group)).map(|(sequence, _)| *sequence)
    }

    /// Spec §4.10: how far the newest timestamp is ahead of the group right after this one.
    pub fn is_old(&self, sequence: u64, max_age_ms: u64) -> bool {
        let Some((_, next)) = self.groups.range(sequence + 1..).next() else { return false };
        // That means none but the newest (spec §4.7).
        if max_age_ms == 0 {
            return true;
        }
        let newest = self.groups.values().next_back().expect("there is a next one");
        let (Some(begins), Some(newest)) =
            (next.frames.first(), newest.frames.iter().map(|frame| frame.timestamp).max())
        else {
            return false;
        };
        let age = newest.saturating_sub(begins.timestamp) * 1000 / self.info.timescale;
        age >= max_age_ms.min(self.info.max_age_ms)
    }
}

/// Whether a range that somebody asked for holds a group.
pub fn covers(wanted: &Preferences, sequence: u64) -> bool {
    wanted.group_start.is_none_or(|first| sequence >= first)
        && wanted.group_end.is_none_or(|last| sequence <= last)
}
