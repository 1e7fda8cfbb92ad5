//! Content: groups, the cursors of those who read them, and the demand that brings them here.
//!
//! Knows groups and sequences, but no peer, no stream and no clock.

pub mod content;
pub mod cursor;
pub mod demand;
pub mod fetch;
pub mod group;
pub mod scan;
pub mod seen;
pub mod serve;
mod splice;

use bytes::Bytes;

use crate::wire::{StreamCode, TrackInfo};
use demand::Reach;
use group::{GroupEnd, Marks, Piece};

/// A track on one shard. The generation tells a slot's tenants apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TrackRef {
    pub shard: u16,
    pub slot: u32,
    pub generation: u32,
}

/// One attempt of a track's home to pull it from some session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PullRef {
    pub track: TrackRef,
    pub attempt: u32,
}

/// News of a track on its way from the publisher's session to its home, and from there to every
/// shard with viewers.
#[derive(Clone, Debug)]
pub enum Feed {
    /// The track exists; fixed for as long as this copy lives.
    Info(TrackInfo),
    /// The lowest group that the feed will bring.
    Start(u64),
    /// The exclusive end of the track.
    Final(u64),
    Piece(Piece),
    Datagram(Datagram),
    /// The live feed was closed for this reason; a later one may begin anywhere. What it brought
    /// stays, but nobody completes what it left unfinished.
    Closed(StreamCode),
    /// The publisher numbers its groups anew: those that come are none that came before. Nobody
    /// completes what was left unfinished, for this reason.
    NewRun(StreamCode),
    /// The publisher has ended the track. What it owes may still come, and who wants more than
    /// that is not served from here.
    Ending,
    /// A mirror has now been told all that readers there can see who reach no further than this.
    Synced(Reach),
    /// All groups that will come have come.
    Ended,
    /// The feed broke off, or never began.
    Failed(StreamCode),
}

impl Feed {
    /// Nobody continues a group.
    pub fn cut_off(sequence: u64, code: StreamCode) -> Feed {
        let ends = Some(GroupEnd::Aborted(code));
        Feed::Piece(Piece { sequence, opens: None, bytes: Bytes::new(), marks: Marks::new(), ends })
    }

    /// Nothing comes after this.
    pub fn is_over(&self) -> bool {
        matches!(self, Feed::Ended | Feed::Failed(_))
    }
}

/// A whole group of one frame that is passed on at once or never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub sequence: u64,
    /// Absolute, in units of the track's timescale.
    pub timestamp: u64,
    pub payload: Bytes,
}

/// News of one fetch, on the same way.
#[derive(Clone, Debug)]
pub enum Fetched {
    /// What has come of the group since the last of these. The first opens it.
    Pieces(Vec<Piece>),
    /// It did not begin, or broke off.
    Failed(StreamCode),
}

impl Fetched {
    pub fn is_failure(&self) -> bool {
        matches!(self, Fetched::Failed(_))
    }
}
