//! Guests: whoever is no peer and asks from outside of all shards. One wants a single group, which
//! it is given through a line that takes at once whatever it takes at all; or a page of what is
//! announced.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustc_hash::FxHashMap;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};

use super::Shard;
use super::names::{GuestId, TrackKey};
use super::tracks::{At, Fetcher, Place, Purpose, Who};
use crate::limits::LISTING_PAGE_PATHS;
use crate::track::fetch::{Ask, Asker};
use crate::track::group::Piece;
use crate::track::{Fetched, TrackRef};
use crate::wire::{Path, StreamCode};

/// What guests have been given and have not taken yet. All together may have so much; when it is more,
/// of those who have more than an equal share the one leaves that has taken nothing for the longest.
#[derive(Debug)]
pub struct Unread {
    bytes_max: usize,
    shares: Mutex<Shares>,
}

#[derive(Debug, Default)]
struct Shares {
    bytes: usize,
    /// Counts what guests take, and those who come.
    clock: u64,
    next_number: u64,
    by_number: BTreeMap<u64, Share>,
}

/// What one guest has not taken.
#[derive(Debug)]
struct Share {
    bytes: usize,
    /// When it last took something, or came.
    took_at: u64,
    /// What tells it that it has to leave.
    cut: Arc<Notify>,
}

impl Unread {
    pub fn new(bytes_max: usize) -> Arc<Unread> {
        Arc::new(Unread { bytes_max, shares: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shares {
    fn come(&mut self, cut: Arc<Notify>) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.clock += 1;
        self.by_number.insert(number, Share { bytes: 0, took_at: self.clock, cut });
        number
    }

    /// False if there is no room for so much more for this guest.
    fn give(&mut self, number: u64, bytes: usize, bytes_max: usize) -> bool {
        let Some(share) = self.by_number.get_mut(&number) else { return false };
        share.bytes += bytes;
        self.bytes += bytes;
        while self.bytes > bytes_max {
            let equal = bytes_max / self.by_number.len();
            let large = self.by_number.iter().filter(|(_, share)| share.bytes > equal);
            let slowest = large.min_by_key(|(_, share)| share.took_at);
            let (&slowest, _) = slowest.expect("not all have less than an equal share of too much");
            let cut = self.leave(slowest);
            if slowest == number {
                return false;
            }
            cut.into_iter().for_each(|cut| cut.notify_one());
        }
        true
    }

    fn take(&mut self, number: u64, bytes: usize) {
        self.clock += 1;
        if let Some(share) = self.by_number.get_mut(&number) {
            share.took_at = self.clock;
            share.bytes -= bytes;
            self.bytes -= bytes;
        }
    }

    fn leave(&mut self, number: u64) -> Option<Arc<Notify>> {
        let share = self.by_number.remove(&number)?;
        self.bytes -= share.bytes;
        Some(share.cut)
    }
}

/// The way from a shard to one guest.
#[derive(Debug)]
pub struct Line {
    to: UnboundedSender<Parcel>,
    number: u64,
    unread: Arc<Unread>,
}

/// What a guest is given.
#[derive(Debug)]
pub struct Parcel {
    pub news: Fetched,
    pub load: Load,
}

/// How much of a parcel is not taken.
#[derive(Debug)]
pub struct Load {
    bytes: usize,
    number: u64,
    unread: Arc<Unread>,
}

impl Load {
    /// The guest has taken so much of it.
    pub fn take(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.unread.lock().take(self.number, bytes);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.take(self.bytes);
    }
}

/// A guest's end of its line.
#[derive(Debug)]
pub struct Parcels {
    from: UnboundedReceiver<Parcel>,
    number: u64,
    unread: Arc<Unread>,
}

impl Parcels {
    /// None where the shard has ended.
    pub async fn next(&mut self) -> Option<Parcel> {
        self.from.recv().await
    }
}

impl Drop for Parcels {
    fn drop(&mut self) {
        self.unread.lock().leave(self.number);
    }
}

impl Line {
    /// `cut` is notified when the guest has to make room for others.
    pub fn new(unread: &Arc<Unread>, cut: Arc<Notify>) -> (Line, Parcels) {
        let (to, from) = unbounded_channel();
        let number = unread.lock().come(cut);
        let line = Line { to, number, unread: unread.clone() };
        (line, Parcels { from, number, unread: unread.clone() })
    }

    /// False if it is the last that the guest hears: it is gone, or guests read too little, which
    /// it is told instead.
    fn send(&self, news: Fetched) -> bool {
        let bytes = match &news {
            Fetched::Pieces(pieces) => pieces.iter().map(weight).sum(),
            Fetched::Failed(_) => 0,
        };
        let fits = self.unread.lock().give(self.number, bytes, self.unread.bytes_max);
        let (news, bytes) = match fits {
            true => (news, bytes),
            false => (Fetched::Failed(StreamCode::TOO_FAR_BEHIND), 0),
        };
        let load = Load { bytes, number: self.number, unread: self.unread.clone() };
        self.to.send(Parcel { news, load }).is_ok() && fits
    }
}

fn weight(piece: &Piece) -> usize {
    size_of::<Piece>() + piece.bytes.len()
}

/// The way back for one page of what is announced.
#[derive(Debug)]
pub struct PageLine(oneshot::Sender<Page>);

#[derive(Debug)]
pub struct Page {
    pub announced: Vec<Announced>,
    pub is_last: bool,
}

/// An announced path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announced {
    pub path: Path,
    /// It stands for all that lies below, which its publisher may have.
    pub is_whole: bool,
}

impl PageLine {
    pub fn new() -> (PageLine, oneshot::Receiver<Page>) {
        let (page, receiver) = oneshot::channel();
        (PageLine(page), receiver)
    }

    pub fn answer(self, mut announced: impl Iterator<Item = Announced>) {
        let page = announced.by_ref().take(LISTING_PAGE_PATHS).collect();
        // Nobody listens any more where HTTP has ended before the shards.
        let _ = self.0.send(Page { announced: page, is_last: announced.next().is_none() });
    }
}

/// The guests of one shard.
#[derive(Default)]
pub(super) struct Guests {
    here: FxHashMap<GuestId, Guest>,
    /// Tracks of which guests want something else than before, or nothing.
    changed: Vec<TrackRef>,
}

struct Guest {
    line: Line,
    track: TrackRef,
}

impl Guests {
    pub fn len(&self) -> usize {
        self.here.len()
    }

    pub fn have_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// False if it can be told no more.
    pub fn tell(&mut self, guest: GuestId, news: Fetched) -> bool {
        self.here.get(&guest).is_some_and(|guest| guest.line.send(news))
    }

    pub fn refuse(&mut self, guest: GuestId, code: StreamCode) {
        if let Some(guest) = self.here.remove(&guest) {
            guest.line.send(Fetched::Failed(code));
        }
    }

    pub fn forget(&mut self, guest: GuestId, track: TrackRef) {
        self.here.remove(&guest);
        self.changed.push(track);
    }
}

impl Shard {
    /// A guest asks for one group, the newest where none is named.
    pub(super) fn fetch_for_guest(
        &mut self,
        now: Instant,
        (guest, line): (GuestId, Line),
        (broadcast, name): (Path, Arc<str>),
        group: Option<u64>,
    ) {
        // Nothing flows through a guest: no route is hidden from it.
        let Some(route) = self.directory.resolve(&broadcast, 0).cloned() else {
            line.send(Fetched::Failed(StreamCode::UNROUTABLE));
            return;
        };
        let key = Arc::new(TrackKey { broadcast, name, origin: route.origin, avoid: None });
        let slot = self.tracks.get_or_make(&key, &route, &self.directory, Purpose::Other);
        let name = self.tracks.name(slot);
        self.guests.here.insert(guest, Guest { line, track: name });
        let who = Who::Guest(guest);
        if let Some(group) = group {
            return self.fetch(now, slot, who, ask(group));
        }
        let track = &mut self.tracks.slab[slot];
        track.fetchers.push(Fetcher { who, at: At::Newest });
        let newest = track.content.newest();
        let is_followed = match &track.place {
            Place::Home { serve, .. } => newest.is_some_and(|newest| serve.follows(newest)),
            Place::Mirror { .. } => false,
        };
        if is_followed || track.content.outcome.is_some() {
            self.show_newest(now, slot);
        }
        if let Some(slot) = self.tracks.slot(name) {
            self.steer(now, slot);
        }
    }

    /// The newest group is the newest that is held, or the last of a track that has ended: those
    /// who wait for it have it.
    pub(super) fn show_newest(&mut self, now: Instant, slot: usize) {
        let name = self.tracks.name(slot);
        let content = &self.tracks.slab[slot].content;
        let last = content.end.and_then(|end| end.checked_sub(1));
        let newest = content.newest().or(last);
        for who in self.take_waiting_for_newest(slot) {
            match (newest, self.tracks.slot(name)) {
                (Some(group), Some(slot)) => self.fetch(now, slot, who, ask(group)),
                _ => self.refuse_fetch(now, who, StreamCode::NOT_FOUND),
            }
        }
    }

    /// No newest group will come.
    pub(super) fn refuse_newest(&mut self, now: Instant, slot: usize, code: StreamCode) {
        for who in self.take_waiting_for_newest(slot) {
            self.refuse_fetch(now, who, code);
        }
    }

    fn take_waiting_for_newest(&mut self, slot: usize) -> Vec<Who> {
        let fetchers = &mut self.tracks.slab[slot].fetchers;
        let waiting = fetchers.extract_if(.., |fetcher| fetcher.at == At::Newest);
        let waiting: Vec<Who> = waiting.map(|fetcher| fetcher.who).collect();
        if !waiting.is_empty() {
            self.guests.changed.push(self.tracks.name(slot));
        }
        waiting
    }

    /// A guest has waited long enough for the newest group: nothing newer than what is held has
    /// come.
    pub(super) fn guest_settles(&mut self, now: Instant, guest: GuestId) {
        let Some(track) = self.guests.here.get(&guest).map(|guest| guest.track) else { return };
        if let Some(slot) = self.tracks.slot(track)
            && self.tracks.slab[slot].content.newest().is_some()
        {
            self.show_newest(now, slot);
        }
    }

    pub(super) fn guest_leaves(&mut self, now: Instant, guest: GuestId) {
        let Some(track) = self.guests.here.get(&guest).map(|guest| guest.track) else { return };
        if let Some(slot) = self.tracks.slot(track) {
            self.forget_fetcher(now, slot, Who::Guest(guest));
        }
    }

    /// What guests wanted and want no more is not asked for any longer.
    pub(super) fn follow_guests(&mut self, now: Instant) {
        for track in std::mem::take(&mut self.guests.changed) {
            if let Some(slot) = self.tracks.slot(track) {
                self.steer(now, slot);
            }
        }
    }
}

/// All of a group, after what viewers are waiting for.
fn ask(group: u64) -> Ask {
    // All of them together are as good as one viewer.
    Ask { group, frame_start: 0, priority: 0, asker: Asker(u64::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guests of whom each has been given something, in their order; who is cut off says so.
    struct Room {
        shares: Shares,
        cuts: Vec<Arc<Notify>>,
        bytes_max: usize,
    }

    impl Room {
        fn new(bytes_max: usize) -> Room {
            Room { shares: Shares::default(), cuts: Vec::new(), bytes_max }
        }

        fn come(&mut self, bytes: usize) -> bool {
            let cut = Arc::new(Notify::new());
            self.cuts.push(cut.clone());
            let number = self.shares.come(cut);
            self.shares.give(number, bytes, self.bytes_max)
        }

        #[track_caller]
        fn expect_here(&self, here: &[u64], bytes: usize) {
            assert_eq!(self.shares.by_number.keys().copied().collect::<Vec<_>>(), here);
            assert_eq!(self.shares.bytes, bytes);
        }
    }

    #[test]
    fn who_takes_nothing_for_the_longest_makes_room() {
        let mut room = Room::new(100);
        assert!(room.come(40) && room.come(40));
        room.shares.take(0, 5);
        assert!(room.come(40));
        room.expect_here(&[0, 2], 75);
        assert!(room.come(60));
        room.expect_here(&[2, 3], 100);
    }

    #[test]
    fn who_has_little_is_not_asked_to_make_room() {
        let mut room = Room::new(100);
        (0..10).for_each(|_| assert!(room.come(1)));
        assert!(room.come(60) && room.come(60));
        room.expect_here(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11], 70);
    }

    #[test]
    fn who_wants_more_than_there_is_gets_nothing() {
        let mut room = Room::new(100);
        assert!(room.come(10));
        assert!(!room.come(101));
        // Also the one that has more coming while it reads nothing.
        assert!(room.come(80));
        assert!(!room.shares.give(2, 30, 100));
        assert!(!room.shares.give(2, 1, 100));
        room.expect_here(&[0], 10);
        room.shares.take(2, 80);
        room.expect_here(&[0], 10);
    }
}
