//! The serve loop of a track at its home: when to ask a publisher, when to subscribe, when to
//! change, pause and end the subscription, what to fetch beside it, and who goes on when a
//! publisher fails (spec §5).
//!
//! A plain state machine: demand, fetches and news of the feed go in, commands to the publisher's
//! session come out.

mod command;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::{SmallVec, smallvec};

use super::content::Content;
use super::demand::{Demand, Position};
use super::fetch::{Ask, FetchId, Fetches, Stage};
use super::group::{Likeness, Piece};
use super::seen::Seen;
use super::splice::Splice;
use super::{Feed, PullRef, TrackRef};
use crate::limits::{LIFTED_MAX_AGE, MISSING_GRACE_MAX, MISSING_GRACE_MIN, RESUME_GRACE};
use crate::route::{Route, RouteId, SessionRef};
use crate::wire::{BidiType, Path, Preferences, StreamCode, Version};
pub use command::{Act, Need, PullCommand};
use trial::{Trial, Untold};

#[derive(Debug, PartialEq)]
enum Upstream {
    /// Nobody has been asked.
    None,
    /// The publisher has been asked what the track is like.
    Asked,
    /// The track is known, and no subscription is open.
    Known,
    /// Subscribed, with these preferences.
    Active(Preferences),
    /// The same with nobody interested; the stream is kept for those who return.
    Paused,
    /// The publisher has ended the track, and may still owe some of it.
    Ending,
    /// The publisher has finished the track. Its groups can still be fetched.
    Finished,
    /// The track has ended, and its publisher gives no more of it. It is asked for nothing but single groups.
    Concluded,
}

/// Routes that are remembered to have failed once.
const FORGIVEN_MAX: usize = 64;

/// Where a subscription goes on that another publisher began.
#[derive(Debug)]
struct Resume {
    /// The merged start that the first publisher was asked for; while it is the same, what readers
    /// want begins at `from`.
    start: Option<Position>,
    from: Position,
    /// The frame from which that group is asked for: the last one that is held shows whose it is.
    frame_in_common: u64,
    /// How the first publisher failed: for groups that nobody completes.
    code: StreamCode,
    /// When a publisher that has brought nothing is asked where it is instead: it may have begun
    /// another run, which is still far from there.
    lift_at: Option<Instant>,
    is_lifted: bool,
}

#[derive(Debug)]
pub struct ServeLoop {
    track: TrackRef,
    /// Tells the commands and news of one publisher from those of the one before.
    attempt: u32,
    /// The publisher was asked for groups before it was known what the track is like.
    has_wished: bool,
    /// It has brought something that was not here.
    has_brought: bool,
    upstream: Upstream,
    /// The route that is asked, or was asked last.
    route: Option<Arc<Route>>,
    /// Routes that have failed those who are waiting: they are not asked again.
    tried: Vec<RouteId>,
    /// Routes that had failed before another one went on: they are asked again, last of all.
    forgiven: Vec<RouteId>,
    /// Why, in the most definite words so far.
    refusal: Option<StreamCode>,
    resume: Option<Resume>,
    trial: Option<Trial>,
    /// Whether all publishers of this run have told when its frames are, in the same units: then a
    /// frame is known by its timestamp too.
    are_timed: bool,
    /// Whether the present one does.
    is_timed: bool,
    /// Groups that this feed has brought, whichever publisher it was.
    seen: Seen,
    /// Groups that the present publisher has to complete.
    splices: BTreeMap<u64, Splice>,
    /// Fetches that only the live feed can still answer, with the end of their grace once a later
    /// group has come.
    held: BTreeMap<FetchId, Instant>,
}

impl ServeLoop {
    pub fn new(track: TrackRef) -> ServeLoop {
        ServeLoop {
            track,
            attempt: 0,
            has_wished: false,
            has_brought: false,
            upstream: Upstream::None,
            route: None,
            tried: Vec::new(),
            forgiven: Vec::new(),
            refusal: None,
            resume: None,
            trial: None,
            are_timed: true,
            is_timed: true,
            seen: Seen::default(),
            splices: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// The name under which the present publisher's session knows this track.
    pub fn pull(&self) -> PullRef {
        PullRef { track: self.track, attempt: self.attempt }
    }

    /// The route that the track was last asked for.
    pub fn route(&self) -> Option<&Arc<Route>> {
        self.route.as_ref()
    }

    /// Routes that have failed this track.
    pub fn failed(&self) -> Vec<RouteId> {
        [&self.tried[..], &self.forgiven[..]].concat()
    }

    /// Whether anything is open upstream.
    pub fn is_open(&self) -> bool {
        !matches!(self.upstream, Upstream::None | Upstream::Concluded)
    }

    /// Whether a subscription is.
    pub fn is_subscribed(&self) -> bool {
        matches!(self.upstream, Upstream::Active(_) | Upstream::Paused)
    }

    /// Whether the publisher was asked for what follows, and has brought nothing so far.
    pub fn awaits_news(&self) -> bool {
        let is_asked =
            matches!(self.upstream, Upstream::Asked | Upstream::Known | Upstream::Active(_));
        is_asked && !self.has_brought
    }

    /// Whether a subscription brings every group from this one on, so that the newest group that it
    /// has brought is the newest there is.
    pub fn follows(&self, group: u64) -> bool {
        let Upstream::Active(sent) = &self.upstream else { return false };
        sent.group_end.is_none() && sent.group_start.is_none_or(|start| start <= group)
    }

    /// When [`ServeLoop::steer`] has something to do even if nothing happens.
    pub fn deadline(&self, fetches: &Fetches) -> Option<Instant> {
        let held = self.held.iter().filter(|(id, _)| fetches.is_unsent(**id));
        let splices = self.splices.values().filter_map(|splice| splice.begin_by);
        let lift_at = self.resume.as_ref().and_then(|resume| resume.lift_at);
        let times = held.map(|(_, deadline)| *deadline).chain(splices).chain(lift_at);
        let untold = self.trial.as_ref().and_then(|trial| trial.untold.until);
        times.chain(untold).min()
    }

    /// Whether the publisher is asked where it is, and not to go on where another one stopped.
    pub fn is_lifted(&self) -> bool {
        self.resume.as_ref().is_some_and(|resume| resume.is_lifted)
    }

    /// Whether all has come that will where the publisher is lost now: it had said its last word,
    /// in versions that have none about what that was.
    pub fn ends_if_lost(&self) -> bool {
        let version = self.route.as_ref().map(|route| route.version);
        self.upstream == Upstream::Ending && version <= Some(Version::Lite04)
    }

    /// Takes note of news of the feed, and gives what is to be told to readers.
    pub fn admit(&mut self, now: Instant, feed: Feed, content: &Content) -> SmallVec<[Feed; 1]> {
        if self.is_undecided() {
            return self.weigh(now, feed, content);
        }
        self.take(now, feed, content)
    }

    fn take(&mut self, now: Instant, feed: Feed, content: &Content) -> SmallVec<[Feed; 1]> {
        match feed {
            Feed::Info(info) if self.upstream == Upstream::Asked => {
                self.upstream = Upstream::Known;
                let has_times = self.route.as_ref().is_some_and(|r| r.version >= Version::Lite05);
                let settled = content.info.map_or(info.timescale, |info| info.timescale);
                self.is_timed = has_times && settled == info.timescale;
                self.are_timed &= self.is_timed;
            }
            Feed::Ending if matches!(self.upstream, Upstream::Active(_) | Upstream::Paused) => {
                self.upstream = Upstream::Ending;
            }
            Feed::Ended => {
                self.upstream = Upstream::Finished;
                // Older publishers do not say where; a mirror may not have seen it.
                let end = content.end.is_none().then(|| Feed::Final(content.arrived_end()));
                return end.into_iter().chain([feed]).collect();
            }
            Feed::Piece(piece) => {
                self.forgive();
                if piece.opens.is_none() {
                    let told = self.splice(piece);
                    self.has_brought |= !told.is_empty();
                    return told;
                }
                let likeness = match self.trial {
                    Some(_) => content.likeness(&piece, self.are_timed),
                    None => Likeness::Unknown,
                };
                let mut told = self.try_group(now, piece.sequence, likeness, content);
                self.hurry_below(piece.sequence, now + grace(content));
                told.extend(self.splice(piece));
                self.has_brought |= told.iter().any(|feed| matches!(feed, Feed::Piece(_)));
                return told;
            }
            Feed::Datagram(datagram) => {
                let mut told = self.try_group(now, datagram.sequence, Likeness::Unclear, content);
                self.seen.insert(datagram.sequence);
                self.has_brought = true;
                told.push(Feed::Datagram(datagram));
                return told;
            }
            Feed::Start(start) => return self.start(now, start, content),
            Feed::Final(end) if self.ends_run(end) => {
                return self.begin_run(None).into_iter().chain([feed]).collect();
            }
            _ => {}
        }
        smallvec![feed]
    }

    /// The track goes on. Whoever failed it before may be asked again when this publisher fails.
    fn forgive(&mut self) {
        self.forgiven.append(&mut self.tried);
        self.forgiven.truncate(FORGIVEN_MAX);
        self.refusal = None;
    }

    fn splice(&mut self, piece: Piece) -> SmallVec<[Feed; 1]> {
        let sequence = piece.sequence;
        let Some(splice) = self.splices.get_mut(&sequence) else {
            // Readers may have had it, even if it is not here any more.
            if piece.opens.is_some() && !self.seen.insert(sequence) {
                return SmallVec::new();
            }
            return smallvec![Feed::Piece(piece)];
        };
        let grafted = splice.graft(&piece);
        if grafted.is_err() || piece.ends.is_some() {
            self.splices.remove(&sequence);
        }
        match grafted {
            Ok(piece) => piece.into_iter().map(Feed::Piece).collect(),
            Err(code) => smallvec![Feed::cut_off(sequence, code)],
        }
    }

    /// A later group has come; those before it, if they come at all, do so soon.
    fn hurry_below(&mut self, sequence: u64, deadline: Instant) {
        for splice in self.splices.range_mut(..sequence).map(|(_, splice)| splice) {
            if !splice.has_begun {
                splice.begin_by = Some(splice.begin_by.map_or(deadline, |by| by.min(deadline)));
            }
        }
    }

    /// For groups that nobody completes.
    fn abort_code(&self) -> StreamCode {
        self.resume.as_ref().map_or(StreamCode::CANCEL, |resume| resume.code)
    }

    /// Groups that the present publisher should have begun to complete by now.
    fn give_up_due(&mut self, now: Instant) -> Vec<Act> {
        let code = self.abort_code();
        let is_due = |_: &u64, splice: &mut Splice| splice.begin_by.is_some_and(|by| by <= now);
        let due: Vec<u64> =
            self.splices.extract_if(.., is_due).map(|(sequence, _)| sequence).collect();
        due.into_iter().map(|sequence| Act::Tell(Feed::cut_off(sequence, code))).collect()
    }

    /// The present publisher will not complete groups below `start`. A relay knows that only of what it has: where
    /// its other viewers began later, it asks for more because of this one.
    fn give_up_below(&mut self, now: Instant, start: u64) -> SmallVec<[Feed; 1]> {
        if self.route.as_ref().is_some_and(|route| route.is_linked) {
            self.hurry_below(start, now + RESUME_GRACE);
            return SmallVec::new();
        }
        let code = self.abort_code();
        let kept = self.splices.split_off(&start);
        let lost = std::mem::replace(&mut self.splices, kept);
        lost.into_keys().map(|sequence| Feed::cut_off(sequence, code)).collect()
    }

    /// The publisher's session has given the track up. Another one may go on where it stopped:
    /// [`ServeLoop::steer`] finds out. Gives what is lost at once.
    pub fn lost(
        &mut self,
        code: StreamCode,
        need: &Need,
        content: &Content,
        fetches: &mut Fetches,
    ) -> Vec<Act> {
        let mut acts = Vec::new();
        for id in fetches.ids() {
            match fetches.get(id).map(|fetch| fetch.stage) {
                Some(Stage::Open(_)) => acts.push(Act::FailFetch(id, code)),
                _ => fetches.set_stage(id, Stage::Unsent),
            }
        }
        self.upstream = Upstream::None;
        self.trial = None;
        self.splices.clear();
        self.held.clear();
        if let Some(route) = &self.route {
            self.forgiven.retain(|id| *id != route.id);
            self.tried.push(route.id);
        }
        // A definite refusal says more than whatever else went wrong (spec §4.17).
        let is_definite =
            |code: &StreamCode| matches!(*code, StreamCode::NOT_FOUND | StreamCode::UNROUTABLE);
        if is_definite(&code) || !self.refusal.is_some_and(|code| is_definite(&code)) {
            self.refusal = Some(code);
        }
        match need.demand {
            Some(demand) => {
                for group in content.unfinished() {
                    self.splices.insert(group.sequence, Splice::new(group.seam()));
                }
                let lowest = content.unfinished().min_by_key(|group| group.sequence);
                let frame_in_common = lowest.map_or(0, |group| group.seam().frame_in_common());
                let from = match lowest {
                    Some(group) => Some((group.sequence, group.seam().frame())),
                    // Viewers may want to begin later than the first publisher got.
                    None => {
                        let wanted = demand.start.map_or(0, |(group, _)| group);
                        let next = self.seen.end();
                        (next > 0).then_some((next.max(wanted), 0))
                    }
                };
                self.resume = from.map(|from| Resume {
                    start: demand.start,
                    from,
                    frame_in_common,
                    code,
                    lift_at: None,
                    is_lifted: false,
                });
            }
            None => {
                self.end_feed();
                acts.push(Act::Tell(Feed::Closed(code)));
            }
        }
        acts
    }

    /// Does what demand, fetches and content call for now. `route` finds a publisher to ask that
    /// is not among those named.
    pub fn steer<'a>(
        &mut self,
        now: Instant,
        need: &Need,
        content: &Content,
        fetches: &mut Fetches,
        (broadcast, name): (&Path, &Arc<str>),
        route: impl Fn(&[RouteId]) -> Option<&'a Arc<Route>>,
    ) -> Vec<Act> {
        if content.has_failed() {
            return Vec::new();
        }
        let settled = self.settle_due(now, content);
        if !settled.is_empty() {
            // What is wanted of another run goes by its numbers, when readers know of it.
            return settled.into_iter().map(Act::Tell).collect();
        }
        let mut acts = self.give_up_due(now);
        let is_ended = content.outcome.is_some();
        if self.upstream == Upstream::Concluded {
            if !is_ended || fetches.is_empty() {
                return acts;
            }
            // What is not here any more.
            self.upstream = Upstream::None;
        }
        let demand = need.demand.filter(|_| !is_ended);
        let is_wanted = need.info || demand.is_some() || !fetches.is_empty();
        if self.upstream == Upstream::None {
            if !is_wanted {
                self.tried.clear();
                self.forgiven.clear();
                self.refusal = None;
                return acts;
            }
            let fresh = route(&self.failed());
            let Some(route) = fresh.or_else(|| route(&self.tried)) else {
                return vec![Act::Fail(self.refusal.unwrap_or(StreamCode::UNROUTABLE))];
            };
            self.attempt += 1;
            self.upstream = Upstream::Asked;
            (self.has_wished, self.has_brought) = (false, false);
            self.route = Some(route.clone());
            let (broadcast, track) = (broadcast.clone(), name.clone());
            let timescale = content.info.map(|info| info.timescale);
            let ask = PullCommand::Ask { pull: self.pull(), broadcast, track, timescale };
            acts.push(Act::Command(route.session, ask));
        }
        let Some(route) = self.route.clone() else { return acts };
        if self.upstream != Upstream::Asked {
            acts.extend(self.steer_subscription(now, demand, content, &route));
            self.steer_fetches(now, content, fetches, &route, &mut acts);
        } else if let Some(demand) = demand.filter(|_| route.is_linked && content.info.is_none())
            && !std::mem::replace(&mut self.has_wished, true)
        {
            // A copy that nothing was in before is told nothing new by what the track is like.
            let wanted = demand.upstream(u64::MAX, route.version);
            let wish = PullCommand::Wish { pull: self.pull(), wanted };
            acts.push(Act::Command(route.session, wish));
        }
        acts
    }

    fn steer_subscription(
        &mut self,
        now: Instant,
        demand: Option<Demand>,
        content: &Content,
        route: &Route,
    ) -> Vec<Act> {
        let pull = self.pull();
        self.lift_due(now, demand, content);
        let wanted = demand.and_then(|demand| self.wanted(demand, content, route.version));
        let (next, command) = match (&self.upstream, wanted) {
            (Upstream::Active(sent), Some(wanted)) if *sent == wanted => return Vec::new(),
            // Whoever wished for it has left.
            (Upstream::Known, None) if std::mem::take(&mut self.has_wished) => {
                (Upstream::Paused, PullCommand::Pause { pull, wanted: quiet(0, content) })
            }
            (Upstream::Known, Some(wanted)) => {
                self.begin_trial(now, content);
                (Upstream::Active(wanted), PullCommand::Want { pull, wanted })
            }
            (Upstream::Active(_) | Upstream::Paused, Some(wanted)) => {
                if let (Some(trial), Some(start)) = (&mut self.trial, wanted.group_start) {
                    trial.asked_from = trial.asked_from.min(start);
                }
                (Upstream::Active(wanted), PullCommand::Want { pull, wanted })
            }
            (Upstream::Active(sent), None) if route.version >= Version::Lite03 => {
                let wanted = quiet(sent.max_age_ms, content);
                self.resume = None;
                if let Some(trial) = &mut self.trial {
                    trial.untold = Untold::default();
                }
                (Upstream::Paused, PullCommand::Pause { pull, wanted })
            }
            // Older publishers cannot be told to wait.
            (Upstream::Active(_), None) => {
                let release = self.release().into_iter().map(|(to, what)| Act::Command(to, what));
                let closed = Feed::Closed(StreamCode::CANCEL);
                return release.chain([Act::Tell(closed)]).collect();
            }
            (Upstream::Known, None) => return self.forget_splices(),
            _ => return Vec::new(),
        };
        self.upstream = next;
        vec![Act::Command(route.session, command)]
    }

    /// A publisher that was asked to go on has brought nothing so far: where is it? Readers who named a start that
    /// nothing has reached do not want to know. Where they name none any more it is asked too: whoever is asked for
    /// all that it has may begin with what was here and is gone, which looks like another run.
    fn lift_due(&mut self, now: Instant, demand: Option<Demand>, content: &Content) {
        let Some(resume) = &mut self.resume else { return };
        let is_due = resume.lift_at.take_if(|at| *at <= now).is_some();
        let Some(Demand { start, .. }) = demand else { return };
        let is_reached = start.is_none_or(|(group, _)| group < content.arrived_end());
        let is_unproven = self.trial.as_ref().is_none_or(|trial| !trial.is_proven);
        let lets_go = start.is_none() && resume.start.is_some() && is_unproven;
        if !(is_due && is_reached || lets_go && content.arrived_end() > 0) {
            return;
        }
        (resume.lift_at, resume.is_lifted) = (None, true);
        if let Some(trial) = &mut self.trial {
            trial.asked_from = trial.known_end;
        }
    }

    /// Nobody is interested any more in what another publisher was to complete.
    fn forget_splices(&mut self) -> Vec<Act> {
        let Some(resume) = self.resume.take_if(|_| !self.splices.is_empty()) else {
            return Vec::new();
        };
        self.end_feed();
        vec![Act::Tell(Feed::Closed(resume.code))]
    }

    /// The preferences to state upstream; none where all that is wanted is here.
    fn wanted(&self, demand: Demand, content: &Content, version: Version) -> Option<Preferences> {
        let max_age_ms = content.info.map_or(0, |info| info.max_age_ms);
        let mut wanted = demand.upstream(max_age_ms, version);
        if self.is_lifted() {
            // Its newest groups tell. One that is only late still owes what it was asked for.
            return Some(Preferences {
                max_age_ms: wanted.max_age_ms.min(LIFTED_MAX_AGE.as_millis() as u64),
                group_start: None,
                frame_start: 0,
                ..wanted
            });
        }
        if let Some(resume) = self.resume.as_ref().filter(|r| r.start == demand.start) {
            let (group, frame) = resume.from;
            wanted.group_start = Some(group);
            let frame_start = resume.frame_in_common;
            wanted.frame_start = if version >= Version::Lite06 { frame_start } else { 0 };
            let end = wanted.group_end.map(|group| (group, wanted.frame_end.unwrap_or(u64::MAX)));
            if end.is_some_and(|end| end < (group, frame)) {
                return None;
            }
        }
        Some(wanted)
    }

    fn steer_fetches(
        &mut self,
        now: Instant,
        content: &Content,
        fetches: &mut Fetches,
        route: &Route,
        acts: &mut Vec<Act>,
    ) {
        self.held.retain(|id, _| fetches.is_unsent(*id));
        let unsent: Vec<(FetchId, Ask)> =
            fetches.unsent().map(|(id, fetch)| (id, fetch.ask)).collect();
        let pull = self.pull();
        for (fetch, ask) in unsent {
            if content.end.is_some_and(|end| ask.group >= end) {
                acts.push(Act::FailFetch(fetch, StreamCode::NOT_FOUND));
            } else if BidiType::Fetch.supported(route.version) {
                fetches.set_stage(fetch, Stage::Sent);
                let command = PullCommand::Fetch { pull, fetch, ask };
                acts.push(Act::Command(route.session, command));
            } else if !self.may_come(now, fetch, ask.group, content) {
                acts.push(Act::FailFetch(fetch, StreamCode::NOT_FOUND));
            }
        }
    }

    /// Whether the live feed can still bring a group that its publisher cannot be asked for.
    fn may_come(&mut self, now: Instant, fetch: FetchId, group: u64, content: &Content) -> bool {
        let is_behind = content.feed_start.is_some_and(|start| group < start);
        if !matches!(self.upstream, Upstream::Active(_) | Upstream::Ending) || is_behind {
            return false;
        }
        if content.newest().is_none_or(|newest| newest < group) {
            self.held.remove(&fetch);
            return true;
        }
        now < *self.held.entry(fetch).or_insert(now + grace(content))
    }

    /// A later feed has nothing to do with this one.
    fn end_feed(&mut self) {
        self.resume = None;
        self.trial = None;
        self.splices.clear();
        self.held.clear();
        self.seen = Seen::default();
    }

    /// What is known of the track is all there is: nobody is asked what follows.
    pub fn conclude(&mut self) -> Option<(SessionRef, PullCommand)> {
        let release = self.release();
        self.upstream = Upstream::Concluded;
        release
    }

    /// The upstream is given up; what is to be told to the session, if anything is open there.
    pub fn release(&mut self) -> Option<(SessionRef, PullCommand)> {
        if !self.is_open() {
            return None;
        }
        self.upstream = Upstream::None;
        self.end_feed();
        let session = self.route.as_ref()?.session;
        Some((session, PullCommand::Release { pull: self.pull() }))
    }
}

/// How long a group may be missing after a later one has come (spec §5.4).
fn grace(content: &Content) -> Duration {
    let max_age = content.info.map_or(Duration::ZERO, |i| Duration::from_millis(i.max_age_ms));
    max_age.clamp(MISSING_GRACE_MIN, MISSING_GRACE_MAX)
}

/// What keeps a subscription open and brings nothing.
fn quiet(max_age_ms: u64, content: &Content) -> Preferences {
    Preferences {
        priority: 0,
        max_age_ms,
        group_start: None,
        group_end: Some(content.newest().unwrap_or(0)),
        frame_start: 0,
        frame_end: None,
    }
}
