//! Somebody outside of all shards who asks a relay for groups, as its HTTP does.

use std::sync::Arc;

use futures_lite::future::{block_on, poll_once};
use shardcast::shard::guest::{Line, Parcels, Unread};
use shardcast::shard::message::ToShard;
use shardcast::shard::names::GuestId;
use shardcast::shard::placement::home_of;
use shardcast::track;
use shardcast::track::group::GroupEnd;
use shardcast::wire::*;
use tokio::sync::Notify;

use super::World;

/// Somebody outside of all shards who asked for one group.
pub struct Guest {
    pub id: GuestId,
    home: usize,
    parcels: Parcels,
    cut: Arc<Notify>,
    /// Frames so far, and how it ended.
    frames: usize,
    end: Option<Result<(), StreamCode>>,
}

impl Guest {
    /// Whether it has been told to make room for others, and has not asked before.
    pub fn is_cut_off(&self) -> bool {
        block_on(poll_once(self.cut.notified())).is_some()
    }

    /// Frames that it has been given so far, and how that ended.
    pub fn outcome(&mut self) -> (usize, Option<Result<(), StreamCode>>) {
        while let Some(Some(parcel)) = block_on(poll_once(self.parcels.next())) {
            assert_eq!(self.end, None, "nothing follows the end");
            let pieces = match parcel.news {
                track::Fetched::Pieces(pieces) => pieces,
                track::Fetched::Failed(code) => {
                    self.end = Some(Err(code));
                    continue;
                }
            };
            for piece in pieces {
                self.frames += piece.marks.len();
                self.end = piece.ends.map(|end| match end {
                    GroupEnd::Finished => Ok(()),
                    GroupEnd::Capped => Err(StreamCode::INTERNAL),
                    GroupEnd::Aborted(code) => Err(code),
                });
            }
        }
        (self.frames, self.end)
    }
}

impl World {
    /// Somebody outside asks for a group of a track, or for its newest.
    pub fn guest(&mut self, path: &str, track: &str, group: Option<u64>) -> Guest {
        let unread = self.unread.clone();
        self.guest_with(path, track, group, &unread)
    }

    /// One of those who may leave no more unread than this.
    pub fn guest_with(
        &mut self,
        path: &str,
        track: &str,
        group: Option<u64>,
        unread: &Arc<Unread>,
    ) -> Guest {
        // Of the first relay.
        let home = home_of(path, track, self.stage.shards);
        let cut = Arc::new(Notify::new());
        let (line, parcels) = Line::new(unread, cut.clone());
        let guest = GuestId(self.guests);
        self.guests += 1;
        let broadcast = Path::parse(path).expect("a path");
        let track = track.into();
        self.tell(home, ToShard::FetchForGuest { guest, broadcast, track, group, line });
        Guest { id: guest, home, parcels, cut, frames: 0, end: None }
    }

    pub fn guest_settles(&mut self, guest: &Guest) {
        self.tell(guest.home, ToShard::GuestSettles { guest: guest.id });
    }

    pub fn guest_leaves(&mut self, guest: Guest) {
        self.tell(guest.home, ToShard::GuestLeaves { guest: guest.id });
    }
}
