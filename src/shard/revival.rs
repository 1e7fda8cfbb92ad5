//! A track that has ended and is asked for anew: something new comes, or what is held of the old one is all there is.

use std::time::Instant;

use super::Shard;
use super::tracks::Place;
use crate::limits::{REVIVAL_ANSWER_GRACE, REVIVAL_GRACE, TAIL_GRACE};
use crate::track::Feed;
use crate::track::content::Outcome;
use crate::wire::{BidiType, StreamCode};

impl Shard {
    /// The publisher of a track that had ended is asked anew, and is given some time.
    pub(super) fn expect_revival(&mut self, now: Instant, slot: usize) {
        let track = &mut self.tracks.slab[slot];
        if let (Some(before), Place::Home { serve, .. }) = (&mut track.before, &track.place)
            && serve.is_open()
        {
            let is_asked = BidiType::Track.supported(track.route.version);
            let grace = if is_asked { REVIVAL_ANSWER_GRACE } else { REVIVAL_GRACE };
            before.until.get_or_insert(now + grace);
        }
    }

    /// Where nothing new comes of a track that had ended, what is held of it is all there is. False
    /// if nothing is.
    pub(super) fn fall_back(&mut self, now: Instant, slot: usize) -> bool {
        let name = self.tracks.name(slot);
        let Some(before) = &mut self.tracks.slab[slot].before else { return false };
        let track = before.track;
        before.until = Some(now + TAIL_GRACE);
        let old = self.tracks.slot(track).map(|old| &self.tracks.slab[old].content);
        let feeds: Vec<Feed> = match old {
            // Some of it may still come.
            Some(content) if content.outcome.is_none() => return true,
            Some(content) if content.outcome == Some(Outcome::Ended) => {
                content.replay().chain(content.facts()).collect()
            }
            _ => Vec::new(),
        };
        self.tracks.slab[slot].before = None;
        if feeds.is_empty() {
            return false;
        }
        tracing::debug!(shard = self.me, track = ?self.tracks.slab[slot].key, "nothing new");
        // What of it is held was given to those who fetch.
        self.fail_fetches(now, slot, StreamCode::NOT_FOUND);
        let release = match self.tracks.slot(name).map(|slot| &mut self.tracks.slab[slot].place) {
            Some(Place::Home { serve, .. }) => serve.conclude(),
            _ => None,
        };
        if let Some((session, command)) = release {
            self.command(now, session, command);
        }
        self.feed_all(now, name, feeds);
        // There is one copy more of it now, which all who come find.
        if let Some(old) = self.tracks.slot(track)
            && !self.tracks.slab[old].is_used()
        {
            self.drop_track(now, old);
        }
        true
    }

    /// Something new has come of a track that had ended. Gives what was said of its end before.
    pub(super) fn note_revived(&mut self, slot: usize) -> Option<Feed> {
        let track = &mut self.tracks.slab[slot];
        let before = track.before.take()?;
        track.content.forget_fetched();
        before.end.map(Feed::Final)
    }
}
