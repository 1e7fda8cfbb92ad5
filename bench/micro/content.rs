//! Groups and pieces as a relay holds them.

use std::time::Instant;

use bytes::Bytes;
use shardcast::track::Feed;
use shardcast::track::content::Content;
use shardcast::track::group::{FrameMark, GroupEnd, Opening, Piece};
use shardcast::wire::{Preferences, TrackInfo, encode_varint, zigzag};

pub const BROADCAST: &str = "live/cam";
pub const FRAMES_PER_GROUP: u64 = 60;
pub const FRAME_INTERVAL_MS: u64 = 16;
/// Timestamps are milliseconds.
pub const INFO: TrackInfo = TrackInfo { priority: 0, max_age_ms: 10_000, timescale: 1000 };
pub const WANTED: Preferences = Preferences {
    priority: 1,
    max_age_ms: 10_000,
    group_start: None,
    group_end: None,
    frame_start: 0,
    frame_end: None,
};

/// A track whose feed has begun.
pub fn content(info: TrackInfo, now: Instant) -> Content {
    let mut content = Content::new(true);
    content.apply(Feed::Info(info), now);
    content.apply(Feed::Start(0), now);
    content
}

/// A frame of this payload as it is stored, one interval after the one before.
pub fn frame(size: usize) -> Bytes {
    let mut bytes = Vec::new();
    encode_varint(zigzag(FRAME_INTERVAL_MS as i64), &mut bytes);
    encode_varint(size as u64, &mut bytes);
    bytes.resize(bytes.len() + size, 7);
    bytes.into()
}

/// A whole group of one frame.
pub fn whole(sequence: u64, timestamp: u64, bytes: &Bytes) -> Piece {
    Piece {
        sequence,
        opens: Some(Opening::at(0)),
        bytes: bytes.clone(),
        marks: [FrameMark { start: 0, delta_len: 1, timestamp }].into(),
        ends: Some(GroupEnd::Finished),
    }
}

/// The `n`th frame of a track whose groups have `frames` each.
pub fn nth(n: u64, frames: u64, bytes: &Bytes) -> Piece {
    let (sequence, index) = (n / frames, n % frames);
    let start = index as u32 * bytes.len() as u32;
    let timestamp = n * FRAME_INTERVAL_MS;
    Piece {
        sequence,
        opens: (index == 0).then_some(Opening::at(0)),
        bytes: bytes.clone(),
        marks: [FrameMark { start, delta_len: 1, timestamp }].into(),
        ends: (index + 1 == frames).then_some(GroupEnd::Finished),
    }
}
