//! Single groups: found in the cache, asked for upstream or at the home, and passed on as they
//! come (spec §4.13).

use std::sync::Arc;
use std::time::Instant;

use super::Shard;
use super::message::ToShard;
use super::names::TrackKey;
use super::tracks::{At, Change, Fetcher, Place, Purpose, Track, Who};
use crate::limits::OUTBOX_FETCH_MAX;
use crate::route::Route;
use crate::session::streams::StreamId;
use crate::track::content::{Content, Outcome};
use crate::track::fetch::{Ask, Asker, FetchId, Stage};
use crate::track::group::{GroupEnd, Piece};
use crate::track::serve::PullCommand;
use crate::track::{Fetched, PullRef, TrackRef};
use crate::wire::{Path, StreamCode};

impl Shard {
    /// A peer asks for one group.
    pub(super) fn fetch_for_peer(
        &mut self,
        now: Instant,
        conn: usize,
        key: StreamId,
        (broadcast, name): (Path, Arc<str>),
        ask: Ask,
    ) {
        match self.copy_for(conn, key, broadcast, name, Purpose::Other) {
            Some(slot) => self.fetch(now, slot, Who::Peer { conn, key }, ask),
            None => self.refuse(now, conn, key, StreamCode::UNROUTABLE),
        }
    }

    /// A mirror asks for one group.
    pub(super) fn fetch_for_mirror(
        &mut self,
        now: Instant,
        key: &Arc<TrackKey>,
        route: &Arc<Route>,
        (mirror, fetch): (TrackRef, FetchId),
        ask: Ask,
    ) {
        let slot = self.meet_mirror(key, route, mirror, Purpose::Other);
        self.fetch(now, slot, Who::Mirror { mirror, fetch }, ask);
    }

    /// Answers from what is here, or asks for it.
    pub(super) fn fetch(&mut self, now: Instant, slot: usize, who: Who, ask: Ask) {
        let name = self.tracks.name(slot);
        self.inherit(now, slot, &ask);
        let track = &mut self.tracks.slab[slot];
        if let Some(arrival) = track.content.get_group(ask.group, ask.frame_start) {
            track.content.touch(arrival, now);
            let fetch = track.fetches.join_open(ask.group, arrival);
            return self.read_group(now, slot, who, arrival, fetch);
        }
        let is_past_end = track.content.end.is_some_and(|end| ask.group >= end);
        let refusal = match track.content.outcome {
            Some(Outcome::Failed(code)) => Some(code),
            _ => is_past_end.then_some(StreamCode::NOT_FOUND),
        };
        if let Some(code) = refusal {
            self.refuse_fetch(now, who, code);
            return self.note_use(now, name);
        }
        let fetch = track.fetches.join(ask);
        let stage = track.fetches.get(fetch).map(|fetch| fetch.stage);
        if let Some(Stage::Open(arrival)) = stage {
            return self.read_group(now, slot, who, arrival, Some(fetch));
        }
        track.fetchers.push(Fetcher { who, at: At::Waiting(fetch) });
        if stage == Some(Stage::Sent) {
            self.join_sent(now, slot, fetch, ask.asker);
        }
        self.steer(now, slot);
    }

    /// Somebody else waits for what was asked for: it may be his turn before that of who asked first.
    fn join_sent(&mut self, now: Instant, slot: usize, fetch: FetchId, asker: Asker) {
        self.say_further_up(
            (now, slot),
            |mirror| ToShard::JoinFetch { mirror, fetch, asker },
            |pull| PullCommand::JoinFetch { pull, fetch, asker },
        );
    }

    /// The same at a mirror.
    pub(super) fn mirror_joins(
        &mut self,
        now: Instant,
        slot: usize,
        (mirror, fetch): (TrackRef, FetchId),
        asker: Asker,
    ) {
        let track = &self.tracks.slab[slot];
        let who = Who::Mirror { mirror, fetch };
        self.visits.fetchers += track.fetchers.len() as u32;
        let fetcher = track.fetchers.iter().find(|fetcher| fetcher.who == who);
        if let Some(At::Waiting(fetch)) = fetcher.map(|fetcher| fetcher.at)
            && track.fetches.get(fetch).is_some_and(|fetch| fetch.stage == Stage::Sent)
        {
            self.join_sent(now, slot, fetch, asker);
        }
    }

    /// As long as nothing new has come of a track that had ended, groups of the old one are given.
    fn inherit(&mut self, now: Instant, slot: usize, ask: &Ask) {
        let Track { before, content, .. } = &self.tracks.slab[slot];
        let Some(before) = before else { return };
        if content.get_group(ask.group, ask.frame_start).is_some() {
            return;
        }
        let Some(old) = self.tracks.slot(before.track) else { return };
        let old = &self.tracks.slab[old].content;
        let arrival = old.get_group(ask.group, ask.frame_start);
        let group = arrival.and_then(|arrival| old.group(arrival));
        let Some(group) = group.filter(|group| group.end == Some(GroupEnd::Finished)) else {
            return;
        };
        let pieces: Vec<Piece> = group.replay().collect();
        let Some(opening) = pieces.first().and_then(|piece| piece.opens) else { return };
        let arrival = self.tracks.with_content(slot, |content| {
            let arrival = content.open_fetched(ask.group, opening, now);
            for piece in pieces {
                content.append(arrival, piece, now);
            }
            arrival
        });
        self.tracks.note_group(slot, arrival, now);
    }

    /// Somebody reads a group that is here, and what a fetch still brings of it.
    fn read_group(
        &mut self,
        now: Instant,
        slot: usize,
        who: Who,
        arrival: u64,
        fetch: Option<FetchId>,
    ) {
        let at = At::Reading { arrival, fetch };
        self.tracks.slab[slot].fetchers.push(Fetcher { who, at });
        self.note_use(now, self.tracks.name(slot));
        self.begin(now, slot, who, arrival);
    }

    pub(super) fn refuse_fetch(&mut self, now: Instant, who: Who, code: StreamCode) {
        match who {
            Who::Peer { conn, key } => {
                self.detach(conn, key);
                self.with_session(now, conn, |session, cx| session.fail_fetch(key, code, cx));
            }
            Who::Mirror { mirror, fetch } => {
                let news = Fetched::Failed(code);
                self.post
                    .send(usize::from(mirror.shard), ToShard::FetchFed { mirror, fetch, news });
            }
            Who::Guest(guest) => self.guests.refuse(guest, code),
        }
    }

    /// The group that somebody waits for is here, or begins to be.
    fn begin(&mut self, now: Instant, slot: usize, who: Who, arrival: u64) {
        match who {
            Who::Peer { conn, key } => {
                self.with_session(now, conn, |session, cx| session.begin_fetch(key, arrival, cx));
                self.serve(now, slot, &[(conn, key)]);
            }
            Who::Mirror { .. } | Who::Guest(_) => {
                let group = self.tracks.slab[slot].content.group(arrival);
                let pieces = group.map_or_else(Vec::new, |group| group.replay().collect());
                self.pass_on(now, slot, who, Fetched::Pieces(pieces));
            }
        }
    }

    /// Tells a mirror or a guest what has come of a group. A shard that does not keep up with its
    /// mail is spared the rest: live groups go first.
    fn pass_on(&mut self, now: Instant, slot: usize, who: Who, news: Fetched) {
        let is_last = match &news {
            Fetched::Pieces(pieces) => pieces.last().is_none_or(|piece| piece.ends.is_some()),
            Fetched::Failed(_) => true,
        };
        let is_over = match who {
            Who::Peer { .. } => return,
            Who::Mirror { mirror, fetch } => {
                let shard = usize::from(mirror.shard);
                let is_spared =
                    !news.is_failure() && self.post.outbox_len(shard) > OUTBOX_FETCH_MAX;
                self.counters.dropped_groups_total += u64::from(is_spared);
                self.counters.dropped_fetches_total += u64::from(is_spared);
                let news = match is_spared {
                    true => Fetched::Failed(StreamCode::TOO_FAR_BEHIND),
                    false => news,
                };
                self.post.send(shard, ToShard::FetchFed { mirror, fetch, news });
                is_spared
            }
            Who::Guest(guest) => !self.guests.tell(guest, news),
        };
        if is_over || is_last {
            self.forget_fetcher(now, slot, who);
        }
    }

    /// Takes somebody off the list of those who wait or read. A fetch without readers is given up,
    /// and what has come of it is of no use to anybody.
    pub(super) fn forget_fetcher(&mut self, now: Instant, slot: usize, who: Who) {
        let name = self.tracks.name(slot);
        let track = &mut self.tracks.slab[slot];
        self.visits.fetchers += track.fetchers.len() as u32;
        let Some(at) = track.fetchers.iter().position(|fetcher| fetcher.who == who) else { return };
        if let Who::Guest(guest) = who {
            self.guests.forget(guest, name);
        }
        let fetch = match track.fetchers.swap_remove(at).at {
            At::Waiting(fetch) | At::Reading { fetch: Some(fetch), .. } => fetch,
            At::Newest | At::Reading { fetch: None, .. } => return,
        };
        let Some(lost) = track.fetches.leave(fetch) else { return };
        if let Stage::Open(arrival) = lost.stage {
            self.tracks.with_content(slot, |content| content.evict(arrival, false));
        }
        if lost.stage != Stage::Unsent {
            self.abandon(now, slot, fetch);
        }
    }

    /// Tells the publisher, or the home, that nobody waits for a fetch any more.
    fn abandon(&mut self, now: Instant, slot: usize, fetch: FetchId) {
        self.say_further_up(
            (now, slot),
            |mirror| ToShard::LeaveFetch { mirror, fetch },
            |pull| PullCommand::Abandon { pull, fetch },
        );
    }

    /// Says something of what was asked for to who was asked: the home by mail, the publisher's session
    /// by a command.
    fn say_further_up(
        &mut self,
        (now, slot): (Instant, usize),
        mail: impl FnOnce(TrackRef) -> ToShard,
        command: impl FnOnce(PullRef) -> PullCommand,
    ) {
        let name = self.tracks.name(slot);
        match &self.tracks.slab[slot].place {
            Place::Mirror { home, .. } => self.post.send(*home, mail(name)),
            Place::Home { serve, .. } => {
                if let (true, Some(route)) = (serve.is_open(), serve.route()) {
                    let (session, pull) = (route.session, serve.pull());
                    self.command(now, session, command(pull));
                }
            }
        }
    }

    /// A mirror has given up a fetch.
    pub(super) fn leave_fetch(&mut self, now: Instant, slot: usize, who: Who) {
        self.forget_fetcher(now, slot, who);
        self.note_use(now, self.tracks.name(slot));
    }

    /// A mirror is gone, with all its fetches.
    pub(super) fn mirror_gone(&mut self, now: Instant, mirror: TrackRef) {
        let Some(slot) = self.tracks.remove_mirror(mirror) else { return };
        let is_its = |who: &Who| matches!(who, Who::Mirror { mirror: its, .. } if *its == mirror);
        let fetchers = &self.tracks.slab[slot].fetchers;
        self.visits.fetchers += fetchers.len() as u32;
        let whose: Vec<Who> = fetchers.iter().map(|fetcher| fetcher.who).filter(is_its).collect();
        for who in whose {
            self.forget_fetcher(now, slot, who);
        }
        self.steer(now, slot);
    }

    /// Asks the home for what this mirror's readers wait for.
    pub(super) fn send_fetches(&mut self, slot: usize) {
        let mirror = self.tracks.name(slot);
        let track = &mut self.tracks.slab[slot];
        let Place::Mirror { home, .. } = track.place else { return };
        let unsent: Vec<(FetchId, Ask)> =
            track.fetches.unsent().map(|(id, fetch)| (id, fetch.ask)).collect();
        for (fetch, ask) in unsent {
            track.fetches.set_stage(fetch, Stage::Sent);
            let (key, route) = (track.key.clone(), track.route.clone());
            self.post.send(home, ToShard::Fetch { key, route, mirror, fetch, ask });
        }
    }

    /// News of a fetch for a track at home here.
    pub(super) fn fetch_pulled(
        &mut self,
        now: Instant,
        pull: PullRef,
        fetch: FetchId,
        news: Fetched,
    ) {
        let Some(slot) = self.current(pull) else { return };
        // What a publisher that leaves has refused, the next one is asked for.
        if !self.is_to_move(slot) {
            self.fetched(now, slot, fetch, news);
        }
        if let Some(slot) = self.tracks.slot(pull.track)
            && self.is_to_move(slot)
        {
            self.move_track(now, slot);
        }
    }

    /// News of a fetch, from the publisher's session at the home or from the home at a mirror.
    pub(super) fn fetched(&mut self, now: Instant, slot: usize, fetch: FetchId, news: Fetched) {
        let name = self.tracks.name(slot);
        let pieces = match news {
            Fetched::Failed(code) => return self.fail_fetch(now, slot, fetch, code),
            Fetched::Pieces(pieces) => pieces,
        };
        let stage = self.tracks.slab[slot].fetches.get(fetch).map(|fetch| fetch.stage);
        let first = pieces.first().and_then(|piece| Some((piece.sequence, piece.opens?)));
        let (arrival, is_new) = match (stage, first) {
            (Some(Stage::Open(arrival)), _) => (arrival, false),
            (Some(Stage::Sent), Some((sequence, opening))) => {
                let open = |content: &mut Content| content.open_fetched(sequence, opening, now);
                let arrival = self.tracks.with_content(slot, open);
                self.tracks.note_group(slot, arrival, now);
                self.tracks.slab[slot].fetches.set_stage(fetch, Stage::Open(arrival));
                (arrival, true)
            }
            _ => return self.counters.stale_mail_total += 1,
        };
        for piece in &pieces {
            self.counters.frames_total += piece.marks.len() as u64;
            let piece = piece.clone();
            self.tracks.with_content(slot, |content| content.append(arrival, piece, now));
        }
        if pieces.last().is_some_and(|piece| piece.ends.is_some()) {
            self.end_fetch(slot, fetch);
        }
        if is_new {
            self.begin_waiting(now, slot, fetch, arrival);
        } else {
            for piece in pieces {
                self.forward_piece(now, slot, arrival, &piece);
            }
        }
        if let Some(slot) = self.tracks.slot(name) {
            self.tracks.note_grown(slot, arrival);
            self.note_use(now, name);
        }
    }

    /// Those who wait for a fetch read a group from here on, and what the fetch, if it is not over,
    /// still brings of it.
    fn begin_waiting(&mut self, now: Instant, slot: usize, id: FetchId, arrival: u64) {
        let name = self.tracks.name(slot);
        let mut begun = Vec::new();
        let track = &mut self.tracks.slab[slot];
        let fetch = track.fetches.get(id).map(|_| id);
        self.visits.fetchers += track.fetchers.len() as u32;
        for fetcher in &mut track.fetchers {
            if fetcher.at == At::Waiting(id) {
                fetcher.at = At::Reading { arrival, fetch };
                begun.push(fetcher.who);
            }
        }
        for who in begun {
            if let Some(slot) = self.tracks.slot(name) {
                self.begin(now, slot, who, arrival);
            }
        }
    }

    /// A group has grown: guests, and mirrors with readers of it, are told.
    pub(super) fn forward_piece(&mut self, now: Instant, slot: usize, arrival: u64, piece: &Piece) {
        let reads = |at: At| matches!(at, At::Reading { arrival: its, .. } if its == arrival);
        let fetchers = self.tracks.slab[slot].fetchers.iter();
        self.visits.fetchers += fetchers.len() as u32;
        let is_told = |who: &Who| !matches!(who, Who::Peer { .. });
        let told: Vec<Who> =
            fetchers.filter(|f| reads(f.at)).map(|f| f.who).filter(is_told).collect();
        for who in told {
            self.pass_on(now, slot, who, Fetched::Pieces(vec![piece.clone()]));
        }
    }

    /// Nothing more comes of a fetch; those who read its group go on without it.
    fn end_fetch(&mut self, slot: usize, id: FetchId) {
        let track = &mut self.tracks.slab[slot];
        track.fetches.remove(id);
        self.visits.fetchers += track.fetchers.len() as u32;
        for fetcher in &mut track.fetchers {
            if let At::Reading { fetch, .. } = &mut fetcher.at
                && *fetch == Some(id)
            {
                *fetch = None;
            }
        }
    }

    /// The live feed has brought a group that fetches may wait for.
    pub(super) fn settle_fetches(&mut self, now: Instant, slot: usize, group: u64, arrival: u64) {
        let name = self.tracks.name(slot);
        for id in self.tracks.slab[slot].fetches.of_group(group).to_vec() {
            let Some(slot) = self.tracks.slot(name) else { return };
            let track = &self.tracks.slab[slot];
            let Some(fetch) = track.fetches.get(id).copied() else { continue };
            let held = track.content.group(arrival);
            let is_served = held.is_some_and(|group| group.serves_from(fetch.ask.frame_start));
            if matches!(fetch.stage, Stage::Open(_)) || !is_served {
                continue;
            }
            if fetch.stage == Stage::Sent {
                self.abandon(now, slot, id);
            }
            self.end_fetch(slot, id);
            self.begin_waiting(now, slot, id, arrival);
        }
    }

    /// A fetch has come to nothing: those who wait for it hear why, and those who read what has
    /// come of it find it cut off.
    pub(super) fn fail_fetch(&mut self, now: Instant, slot: usize, id: FetchId, code: StreamCode) {
        let name = self.tracks.name(slot);
        let track = &mut self.tracks.slab[slot];
        let Some(fetch) = track.fetches.get(id) else { return };
        if let Stage::Open(arrival) = fetch.stage {
            track.content.abort(arrival, code);
            self.end_fetch(slot, id);
            return self.tracks.note_changed(slot, Change::All);
        }
        track.fetches.remove(id);
        self.visits.fetchers += track.fetchers.len() as u32;
        let waits = |fetcher: &mut Fetcher| fetcher.at == At::Waiting(id);
        let refused: Vec<Fetcher> = track.fetchers.extract_if(.., waits).collect();
        for fetcher in refused {
            self.refuse_fetch(now, fetcher.who, code);
        }
        self.note_use(now, name);
    }

    /// All fetches of a track have come to nothing.
    pub(super) fn fail_fetches(&mut self, now: Instant, slot: usize, code: StreamCode) {
        let name = self.tracks.name(slot);
        for id in self.tracks.slab[slot].fetches.ids() {
            if let Some(slot) = self.tracks.slot(name) {
                self.fail_fetch(now, slot, id, code);
            }
        }
        if let Some(slot) = self.tracks.slot(name) {
            self.refuse_newest(now, slot, code);
        }
    }

    /// Tells mirrors and guests of groups that they read and that have been cut off or have left.
    pub(super) fn report_lost_groups(&mut self, now: Instant, slot: usize) {
        let track = &self.tracks.slab[slot];
        let lost = |fetcher: &Fetcher| {
            let At::Reading { arrival, .. } = fetcher.at else { return None };
            let code = match track.content.group(arrival).map(|group| group.end) {
                None => StreamCode::OLD,
                Some(Some(GroupEnd::Aborted(code))) => code,
                Some(_) => return None,
            };
            (!matches!(fetcher.who, Who::Peer { .. })).then_some((fetcher.who, code))
        };
        self.visits.fetchers += track.fetchers.len() as u32;
        let lost: Vec<(Who, StreamCode)> = track.fetchers.iter().filter_map(lost).collect();
        for (who, code) in lost {
            self.pass_on(now, slot, who, Fetched::Failed(code));
        }
    }
}
