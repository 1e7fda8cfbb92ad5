//! Guests: whoever is no peer and asks from outside of all shards. One wants a single group, which
//! it is given through a line that takes at once whatever it takes at all; or a page of what is
//! announced.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rustc_hash::FxHashMap;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::Shard;
use super::message::TrackKey;
use super::tracks::{At, Fetcher, Place, Purpose, Who};
use crate::limits::LISTING_PAGE_PATHS;
use crate::track::fetch::{Ask, Asker};
use crate::track::group::Piece;
use crate::track::{Fetched, TrackRef};
use crate::wire::{Path, StreamCode};

/// Names a guest among all that this relay ever has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GuestId(pub u64);

/// What guests have been given and have not taken yet, all together.
#[derive(Debug)]
pub struct Unread {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl Unread {
    pub fn new(bytes_max: usize) -> Arc<Unread> {
        Arc::new(Unread { bytes: AtomicUsize::new(0), bytes_max })
    }
}

/// The way from a shard to one guest.
#[derive(Debug)]
pub struct Line {
    to: UnboundedSender<Parcel>,
    unread: Arc<Unread>,
}

/// What a guest is given.
#[derive(Debug)]
pub struct Parcel {
    pub news: Fetched,
    pub load: Load,
}

/// Counts as unread while it lives.
#[derive(Debug)]
pub struct Load {
    bytes: usize,
    unread: Arc<Unread>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.unread.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Line {
    pub fn new(unread: &Arc<Unread>) -> (Line, UnboundedReceiver<Parcel>) {
        let (to, parcels) = unbounded_channel();
        (Line { to, unread: unread.clone() }, parcels)
    }

    /// False if it is the last that the guest hears: it is gone, or guests read too little, which
    /// it is told instead.
    fn send(&self, news: Fetched) -> bool {
        let bytes = match &news {
            Fetched::Pieces(pieces) => pieces.iter().map(weight).sum(),
            Fetched::Failed(_) => 0,
        };
        let before = self.unread.bytes.fetch_add(bytes, Ordering::Relaxed);
        let load = Load { bytes, unread: self.unread.clone() };
        let fits = before + bytes <= self.unread.bytes_max;
        let news = if fits { news } else { Fetched::Failed(StreamCode::TOO_FAR_BEHIND) };
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
    pub paths: Vec<Path>,
    pub is_last: bool,
}

impl PageLine {
    pub fn new() -> (PageLine, oneshot::Receiver<Page>) {
        let (page, receiver) = oneshot::channel();
        (PageLine(page), receiver)
    }

    pub fn answer<'a>(self, mut paths: impl Iterator<Item = &'a Path>) {
        let page = paths.by_ref().take(LISTING_PAGE_PATHS).cloned().collect();
        // Nobody listens any more where HTTP has ended before the shards.
        let _ = self.0.send(Page { paths: page, is_last: paths.next().is_none() });
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
        let key = Arc::new(TrackKey { broadcast, name, origin: route.origin(), avoid: None });
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
