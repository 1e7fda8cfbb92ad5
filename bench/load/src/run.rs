//! One measurement from the first connection to the last account: the loop, and its stages.

use std::time::Duration;

use quinn_proto::ConnectionError;
use shardcast::wire::{Path, StreamCode, Version};

use crate::clock::{Clock, MILLISECOND, SECOND};
use crate::fetcher::Wanted;
use crate::measure::{Balance, Measure};
use crate::peer::{News, Peer, State};
use crate::plan::Plan;
use crate::proc::{ProcError, Sample, Thread, own_cpu_ns};
use crate::quic::{Quic, QuicError, Target};
use crate::scenario::Scenario;
use crate::schedule::{Beat, Random, Schedule, interval};
use crate::shared::{Action, Shared};

/// How long a connection may take, and how long the relay may take to let everybody in after the
/// last one was made.
const CONNECT_NS_MAX: u64 = 10 * SECOND;
/// How long the very first connection may take: there is nothing else to wait for.
const FIRST_CONNECT_NS_MAX: u64 = 5 * SECOND;
const SETTLE_NS_MAX: u64 = 15 * SECOND;

/// How long the relay may take to ask publishers what they announce.
const ASKED_NS_MAX: u64 = 5 * SECOND;

/// Nobody may have been refused for this long before content begins.
const QUIET_NS: u64 = 300 * MILLISECOND;

/// From the last preparation to the first frame.
const HEADSTART_NS: u64 = 50 * MILLISECOND;

/// How long frames that were offered within the span may take after its end.
const GRACE_NS: u64 = 2 * SECOND;

/// How long the relay is given to hear that we leave.
const FAREWELL_NS: u64 = 200 * MILLISECOND;

/// Users subscribe this many times faster than they connected.
const SUBSCRIBE_SPEED: f64 = 5.0;

/// The longest sleep, so that stages are looked at.
const SLEEP_NS_MAX: u64 = 50 * MILLISECOND;

/// From one look at the stage to the next.
const LOOK_NS: u64 = 20 * MILLISECOND;

/// How to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    pub version: Version,
    pub root: Option<String>,
    /// Connections per second.
    pub ramp: f64,
    pub warmup: Duration,
    pub duration: Duration,
    pub seed: u64,
    pub sockets: usize,
    pub relay_pid: Option<u32>,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Quic(#[from] QuicError),
    #[error(transparent)]
    Proc(#[from] ProcError),
    #[error(
        "no answer from {address} within {} s: is the relay running there, and is it UDP {}?",
        after.as_secs(), address.port()
    )]
    Unreachable { address: std::net::SocketAddr, after: Duration },
    #[error("{address} speaks QUIC but not {version} (it refused the ALPN): try another --version")]
    Version { address: std::net::SocketAddr, version: Version },
    #[error(
        "the relay at {address} refused a connection ({made} of {planned} were made): {reason}"
    )]
    Connection { address: std::net::SocketAddr, made: usize, planned: usize, reason: String },
    #[error(
        "{made} of {planned} connections were made, and then one had no answer within {} s: \
         lower --ramp or the number of connections",
        after.as_secs()
    )]
    Slow { made: usize, planned: usize, after: Duration },
    #[error(
        "the relay did not ask {count} of the publishers for their broadcasts: may {path} be published \
         there?"
    )]
    NotAsked { count: usize, path: Path },
    #[error("{count} subscriptions were refused until we gave up; the last: {what}: {code}")]
    Refused { count: usize, what: String, code: StreamCode },
    #[error("listeners heard of {heard} of {expected} broadcasts within {} s", after.as_secs())]
    Unheard { heard: usize, expected: usize, after: Duration },
    #[error("a publisher's connection was lost: {0}")]
    PublisherLost(String),
}

impl RunError {
    /// Whether fewer viewers could have been served.
    pub fn is_overload(&self) -> bool {
        match self {
            RunError::Quic(_)
            | RunError::Proc(_)
            | RunError::Unreachable { .. }
            | RunError::Version { .. }
            | RunError::NotAsked { .. } => false,
            RunError::Connection { .. }
            | RunError::Slow { .. }
            | RunError::Refused { .. }
            | RunError::Unheard { .. }
            | RunError::PublisherLost(_) => true,
        }
    }
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Connecting {
        made: usize,
        planned: usize,
    },
    /// Everybody is connected, and so many subscriptions are not there yet.
    Settling {
        missing: usize,
    },
    Warming {
        left: Duration,
    },
    Measuring {
        passed: Duration,
    },
    /// Frames that were offered in time may still arrive.
    Finishing,
}

/// Sees a measurement while it runs.
pub trait Watch {
    fn stage(&mut self, stage: Stage);
    /// A second of the span has passed, and one more for what arrives late.
    fn second(&mut self, second: usize, measure: &Measure, relay_cpu_share: Option<f64>);
}

/// What came of it.
pub struct Outcome {
    pub connections: usize,
    pub measure: Measure,
    pub balance: Balance,
    pub load_cpu: Duration,
    pub relay: Option<Used>,
}

/// What the relay used within the span.
pub struct Used {
    pub threads: Vec<Thread>,
    pub rss_kib: u64,
    pub rss_kib_before: u64,
}

impl Used {
    pub fn cpu_ns(&self) -> u64 {
        self.threads.iter().map(|thread| thread.cpu_ns).sum()
    }
}

pub struct Run {
    clock: Clock,
    quic: Quic,
    settings: Settings,
    scenario: Scenario,
    shared: Shared,
    peers: Vec<Peer>,
    random: Random,
    part: Part,
    /// Connections that were begun, and that were made.
    begun: usize,
    made: usize,
    connecting: Beat,
    fetches: u64,
    usage: Usage,
}

/// What the loop is at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Publishers,
    Others,
    Settling { since: u64 },
    Warming,
    Measuring,
    Finishing,
}

/// The relay and ourselves at certain moments.
#[derive(Default)]
struct Usage {
    before: Option<Sample>,
    start: Option<Sample>,
    end: Option<Sample>,
    last_second: Option<Sample>,
    own_start: u64,
    own_end: u64,
    shares: Vec<f64>,
    reported: usize,
}

impl Run {
    pub fn new(settings: Settings, scenario: Scenario, target: Target) -> Result<Run, RunError> {
        let clock = Clock::new();
        let plan = Plan::new(&scenario);
        let shared = Shared::new(settings.version, settings.root.clone(), &scenario, plan);
        // Other content than that of the last run must not pass for the same.
        let mut hops = Random::new(clock.now() ^ u64::from(std::process::id()));
        let mut peers = Vec::new();
        let mut accounts = 0;
        for (index, part) in shared.plan.parts.iter().enumerate() {
            let tracks = part.watches.iter().map(|&watched| shared.plan.tracks(watched).len());
            let count = tracks.sum::<usize>() as u32;
            let mine = accounts..accounts + count;
            accounts += count;
            let hop = 1 + hops.below((1 << 53) - 1);
            peers.push(Peer::new(index, part.clone(), mine, hop, &shared));
        }
        let usage =
            Usage { before: settings.relay_pid.map(Sample::take).transpose()?, ..Usage::default() };
        let quic = Quic::new(target, settings.sockets)?;
        Ok(Run {
            part: if shared.plan.publishers > 0 { Part::Publishers } else { Part::Others },
            connecting: Beat::new(clock.now(), settings.ramp),
            random: Random::new(settings.seed),
            clock,
            quic,
            settings,
            scenario,
            shared,
            peers,
            begun: 0,
            made: 0,
            fetches: 0,
            usage,
        })
    }

    pub fn run(mut self, watch: &mut dyn Watch) -> Result<Outcome, RunError> {
        let result = self.measure(watch);
        let farewell = self.farewell();
        result?;
        farewell?;
        let relay = match (&self.usage.before, &self.usage.start, &self.usage.end) {
            (Some(before), Some(start), Some(end)) => Some(Used {
                threads: end.since(start),
                rss_kib: end.rss_kib,
                rss_kib_before: before.rss_kib,
            }),
            _ => None,
        };
        Ok(Outcome {
            connections: self.peers.len(),
            balance: self.shared.measure.balance(self.shared.schedule.as_ref()),
            load_cpu: Duration::from_nanos(self.usage.own_end - self.usage.own_start),
            measure: self.shared.measure,
            relay,
        })
    }

    fn measure(&mut self, watch: &mut dyn Watch) -> Result<(), RunError> {
        let mut look_at = 0;
        loop {
            let now = self.clock.now();
            if now >= look_at {
                if self.look(now, watch)? {
                    return Ok(());
                }
                look_at = now + LOOK_NS;
            }
            let more = self.turn()?;
            if !more {
                self.sleep(look_at)?;
            }
        }
    }

    /// One lap; true if there is more to do at once.
    fn turn(&mut self) -> Result<bool, RunError> {
        let now = self.clock.now();
        let instant = self.clock.instant(now);
        let mut more = self.quic.receive(instant);
        self.quic.fire_timers(instant);
        while let Some(slot) = self.quic.next_with_events() {
            self.handle(slot)?;
        }
        self.connect(now)?;
        while let Some((intended, action)) = self.shared.agenda.due(now) {
            self.act(intended, action);
        }
        more |= self.quic.transmit(self.clock.instant(self.clock.now()));
        Ok(more)
    }

    fn sleep(&mut self, look_at: u64) -> Result<(), RunError> {
        let timer = self.quic.next_timer().map(|at| self.clock.nanos(at));
        let next = [timer, self.shared.agenda.next(), self.next_connect(), Some(look_at)];
        let next = next.into_iter().flatten().min().expect("there is always a next look");
        let left = next.saturating_sub(self.clock.now()).min(SLEEP_NS_MAX);
        self.quic.wait(Duration::from_nanos(left))?;
        Ok(())
    }

    fn handle(&mut self, slot: usize) -> Result<(), RunError> {
        let now = self.clock.now();
        while let Some(link) = self.quic.link(slot) {
            let Some(happening) = link.poll() else { break };
            let owner = link.owner;
            match self.peers[owner].handle(link, happening, &mut self.shared, now) {
                None => {}
                Some(News::Connected) => self.connected(owner, now),
                Some(News::Lost(reason)) => self.lost(owner, &reason)?,
            }
        }
        Ok(())
    }

    fn connected(&mut self, peer: usize, now: u64) {
        self.made += 1;
        let peer_of = &self.peers[peer];
        // Those who publish too wait until every broadcast is there.
        if peer_of.publisher.is_some() {
            return;
        }
        if let Some(viewer) = &peer_of.viewer {
            for account in viewer.accounts.clone() {
                let action = Action::Subscribe { peer: peer as u32, account };
                self.shared.agenda.add(now, action);
            }
        }
    }

    fn lost(&mut self, peer: usize, reason: &ConnectionError) -> Result<(), RunError> {
        let address = self.quic.address();
        let planned = self.peers.len();
        if matches!(self.part, Part::Publishers | Part::Others | Part::Settling { .. }) {
            if is_unknown_alpn(reason) {
                return Err(RunError::Version { address, version: self.settings.version });
            }
            let (made, reason) = (self.made, reason.to_string());
            return Err(RunError::Connection { address, made, planned, reason });
        }
        if self.peers[peer].publisher.is_some() {
            return Err(RunError::PublisherLost(reason.to_string()));
        }
        Ok(())
    }

    /// Begins the connections that are due.
    fn connect(&mut self, now: u64) -> Result<(), RunError> {
        while self.next_connect().is_some_and(|at| at <= now) {
            let peer = &mut self.peers[self.begun];
            let instant = self.clock.instant(now);
            peer.slot = self.quic.connect(instant, self.begun, peer.part.wants())?;
            peer.state = State::Connecting;
            peer.begun_at = now;
            self.begun += 1;
        }
        Ok(())
    }

    fn next_connect(&self) -> Option<u64> {
        let limit = match self.part {
            Part::Publishers => self.shared.plan.publishers,
            Part::Others => self.peers.len(),
            _ => return None,
        };
        (self.begun < limit).then(|| self.connecting.at(self.begun as u64))
    }

    /// Goes on to the next stage where it is time to; true at the end.
    fn look(&mut self, now: u64, watch: &mut dyn Watch) -> Result<bool, RunError> {
        let span = self.shared.measure.span();
        match self.part {
            Part::Publishers | Part::Others => {
                self.check_connecting(now)?;
                let planned = self.peers.len();
                watch.stage(Stage::Connecting { made: self.made, planned });
                let publishers = self.shared.plan.publishers;
                if self.part == Part::Publishers {
                    let is_asked = self.shared.asked_publishers == publishers;
                    if self.made == publishers && is_asked {
                        // As if the others had been due from now on.
                        self.connecting.first = now + HEADSTART_NS
                            - (self.begun as u64 * self.connecting.interval).min(now);
                        self.part = Part::Others;
                    }
                } else if self.made == planned {
                    self.subscribe_users(now);
                    self.part = Part::Settling { since: now };
                }
            }
            Part::Settling { since } => {
                watch.stage(Stage::Settling { missing: self.shared.unsubscribed });
                if self.is_settled(now, since)? {
                    self.begin(now);
                    self.part = Part::Warming;
                }
            }
            Part::Warming => {
                watch.stage(Stage::Warming { left: nanos(span.start.saturating_sub(now)) });
                if now >= span.start {
                    self.usage.start = self.sample()?;
                    self.usage.last_second = self.usage.start.clone();
                    self.usage.own_start = own_cpu_ns();
                    self.part = Part::Measuring;
                }
            }
            Part::Measuring => {
                watch.stage(Stage::Measuring { passed: nanos(now - span.start) });
                self.seconds(now, watch)?;
                if now >= span.end {
                    self.usage.end = self.sample()?;
                    self.usage.own_end = own_cpu_ns();
                    self.part = Part::Finishing;
                }
            }
            Part::Finishing => {
                watch.stage(Stage::Finishing);
                let schedule = self.shared.schedule.as_ref();
                let group = schedule.map_or(0, Schedule::group_ns_max);
                let is_over = now >= span.end + group + GRACE_NS;
                if is_over || self.shared.measure.is_complete(schedule) {
                    self.seconds(now + 2 * SECOND, watch)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn check_connecting(&self, now: u64) -> Result<(), RunError> {
        let patience = if self.made == 0 { FIRST_CONNECT_NS_MAX } else { CONNECT_NS_MAX };
        let after = nanos(patience);
        let is_overdue =
            |peer: &Peer| peer.state == State::Connecting && now > peer.begun_at + patience;
        if self.peers[..self.begun].iter().any(is_overdue) {
            let (made, planned) = (self.made, self.peers.len());
            let address = self.quic.address();
            return Err(match made {
                0 => RunError::Unreachable { address, after },
                _ => RunError::Slow { made, planned, after },
            });
        }
        let publishers = self.shared.plan.publishers;
        let asked = self.shared.asked_publishers;
        let last = self.connecting.at(publishers as u64) + ASKED_NS_MAX;
        if self.part == Part::Publishers && self.made == publishers && now > last {
            let path = self.shared.plan.paths[0].clone();
            return Err(RunError::NotAsked { count: publishers - asked, path });
        }
        Ok(())
    }

    /// Those who publish as well subscribe once every broadcast is there.
    fn subscribe_users(&mut self, now: u64) {
        let pace = Beat::new(now, self.settings.ramp * SUBSCRIBE_SPEED);
        let users = self.peers.iter().enumerate().filter(|(_, peer)| peer.publisher.is_some());
        let mut count = 0;
        for (index, peer) in users {
            for account in peer.viewer.iter().flat_map(|viewer| viewer.accounts.clone()) {
                let action = Action::Subscribe { peer: index as u32, account };
                self.shared.agenda.add(pace.at(count), action);
                count += 1;
            }
        }
    }

    /// Whether everybody is where content may begin.
    fn is_settled(&self, now: u64, since: u64) -> Result<bool, RunError> {
        let shared = &self.shared;
        let quiet_since = shared.unsubscribed_since.max(since);
        let broadcasts = shared.plan.paths.len();
        let listeners = self.peers.iter().filter_map(|peer| peer.listener.as_ref());
        let heard = listeners.map(|listener| listener.live).min();
        let has_heard = heard.is_none_or(|heard| heard >= broadcasts);
        if shared.unsubscribed == 0 && has_heard {
            return Ok(now >= quiet_since + QUIET_NS);
        }
        let pace = interval(self.settings.ramp * SUBSCRIBE_SPEED);
        let patience = SETTLE_NS_MAX + pace * shared.measure.accounts.len() as u64;
        if now < since + patience {
            return Ok(false);
        }
        let after = nanos(patience);
        match (&shared.refusal, heard) {
            (Some(refusal), _) if shared.unsubscribed > 0 => Err(RunError::Refused {
                count: shared.unsubscribed,
                what: refusal.what.clone(),
                code: refusal.code,
            }),
            (_, Some(heard)) if !has_heard => {
                Err(RunError::Unheard { heard, expected: broadcasts, after })
            }
            // The relay grants no streams to subscribe on.
            _ => Err(RunError::Refused {
                count: shared.unsubscribed,
                what: "no stream was granted".to_owned(),
                code: StreamCode::INTERNAL,
            }),
        }
    }

    /// Fixes when everything is to happen from here on.
    fn begin(&mut self, now: u64) {
        let start = now + HEADSTART_NS;
        let span_start = start + self.settings.warmup.as_nanos() as u64;
        let span_end = span_start + self.settings.duration.as_nanos() as u64;
        self.shared.measure.begin(span_start..span_end);
        let plan = &self.shared.plan;
        let tracks = plan.all_tracks();
        if self.scenario.has_content() && !tracks.is_empty() {
            let like = tracks.clone().map(|track| plan.track(track));
            let schedule = Schedule::new(start, like, &mut self.random);
            for track in tracks {
                let first = schedule.frames(track).at(0);
                self.shared.agenda.add(first, Action::Frame(track as u32));
            }
            self.shared.schedule = Some(schedule);
        }
        if self.scenario.churn_per_s > 0.0 {
            self.shared.agenda.add(start, Action::End { broadcast: 0 });
        }
        if self.scenario.fetches_per_s > 0.0 {
            self.shared.agenda.add(start, Action::Fetch);
        }
    }

    /// Reports the seconds that are over.
    fn seconds(&mut self, now: u64, watch: &mut dyn Watch) -> Result<(), RunError> {
        let start = self.shared.measure.span().start;
        let count = self.shared.measure.frames.seconds.len();
        let passed = ((now - start) / SECOND) as usize;
        while self.usage.shares.len() < passed.min(count) {
            let Some(sample) = self.sample()? else { break };
            let used = self.usage.last_second.as_ref().map(|last| sample.since(last));
            let used = used.unwrap_or_default().iter().map(|thread| thread.cpu_ns).sum::<u64>();
            self.usage.shares.push(used as f64 / SECOND as f64);
            self.usage.last_second = Some(sample);
        }
        while self.usage.reported < count && self.usage.reported + 1 < passed {
            let second = self.usage.reported;
            watch.second(second, &self.shared.measure, self.usage.shares.get(second).copied());
            self.usage.reported += 1;
        }
        Ok(())
    }

    fn sample(&self) -> Result<Option<Sample>, RunError> {
        Ok(self.settings.relay_pid.map(Sample::take).transpose()?)
    }

    fn act(&mut self, intended: u64, action: Action) {
        match action {
            Action::Frame(track) => self.send_frame(track as usize, intended),
            Action::Subscribe { peer, account } => {
                let now = self.clock.now();
                let peer = &mut self.peers[peer as usize];
                if peer.state != State::Up {
                    return;
                }
                if let Some(link) = self.quic.link(peer.slot) {
                    peer.subscribe(link, account, &mut self.shared, now);
                    self.quic.note_dirty(peer.slot);
                }
            }
            Action::End { broadcast } => self.end_broadcast(broadcast, intended),
            Action::Announce { broadcast } => self.change(broadcast, true, intended),
            Action::Fetch => self.fetch(intended),
        }
    }

    fn send_frame(&mut self, track: usize, intended: u64) {
        let shared = &mut self.shared;
        let schedule = shared.schedule.as_ref().expect("frames are due once content has begun");
        let number = shared.next_frames[track];
        let (_, place) = schedule.place(track, number);
        // Whatever group has begun within the span is finished.
        if place == 0 && intended >= shared.measure.span().end {
            return;
        }
        let next = schedule.frames(track).at(number + 1);
        shared.agenda.add(next, Action::Frame(track as u32));
        shared.measure.sent(intended, self.clock.now());
        // Before anything is sent: whoever asks for the next group means the one after this frame.
        shared.next_frames[track] = number + 1;
        let broadcast = shared.plan.broadcast_of(track);
        let peer = &mut self.peers[shared.plan.publisher_of(broadcast)];
        if let (Some(link), Some(publisher)) = (self.quic.link(peer.slot), &mut peer.publisher) {
            publisher.produce(link, track, number, shared);
            self.quic.note_dirty(peer.slot);
        }
    }

    fn end_broadcast(&mut self, broadcast: u32, intended: u64) {
        if intended >= self.shared.measure.span().end {
            return;
        }
        self.change(broadcast, false, intended);
        let gap = self.scenario.churn_gap_ms * MILLISECOND;
        self.shared.agenda.add(intended + gap, Action::Announce { broadcast });
        let next = (broadcast + 1) % self.shared.plan.paths.len() as u32;
        let at = intended + interval(self.scenario.churn_per_s);
        self.shared.agenda.add(at, Action::End { broadcast: next });
    }

    fn change(&mut self, broadcast: u32, is_live: bool, intended: u64) {
        let changed = &mut self.shared.changed[broadcast as usize];
        match is_live {
            true => changed.announced = intended,
            false => changed.ended = intended,
        }
        let now = self.clock.now();
        self.shared.measure.sent(intended, now);
        self.shared.measure.announced(intended, self.scenario.listeners.into());
        let peer = &mut self.peers[self.shared.plan.publisher_of(broadcast)];
        if let (Some(link), Some(publisher)) = (self.quic.link(peer.slot), &mut peer.publisher) {
            publisher.change(link, broadcast, is_live, &self.shared);
            self.quic.note_dirty(peer.slot);
        }
    }

    fn fetch(&mut self, intended: u64) {
        if intended >= self.shared.measure.span().end {
            return;
        }
        let at = intended + interval(self.scenario.fetches_per_s);
        self.shared.agenda.add(at, Action::Fetch);
        let track = self.random.below(self.shared.next_frames.len() as u64) as usize;
        // The newest but one of those that are complete: the relay has had time to get it.
        let frames = u64::from(self.shared.plan.track(track).frames_per_group);
        let Some(newest) = (self.shared.next_frames[track] / frames).checked_sub(2) else { return };
        let depth = u64::from(self.scenario.fetch_depth).min(newest + 1);
        let group = newest - self.random.below(depth);
        let fetchers = self.shared.plan.fetchers.clone();
        let peer = fetchers.start + (self.fetches % fetchers.len() as u64) as usize;
        self.fetches += 1;
        let peer = &mut self.peers[peer];
        if let Some(link) = self.quic.link(peer.slot) {
            peer.fetch(link, Wanted { intended, track, group }, &mut self.shared);
            self.quic.note_dirty(peer.slot);
        }
    }

    /// Closes everything, so that the relay need not wait for us to time out.
    fn farewell(&mut self) -> Result<(), RunError> {
        let now = self.clock.now();
        let instant = self.clock.instant(now);
        self.quic.close_all(instant);
        while self.clock.now() < now + FAREWELL_NS {
            let instant = self.clock.instant(self.clock.now());
            self.quic.receive(instant);
            self.quic.fire_timers(instant);
            while let Some(slot) = self.quic.next_with_events() {
                while self.quic.link(slot).is_some_and(|link| link.poll().is_some()) {}
            }
            self.quic.transmit(instant);
            self.quic.wait(Duration::from_millis(10))?;
        }
        Ok(())
    }
}

/// The TLS alert no_application_protocol.
fn is_unknown_alpn(reason: &ConnectionError) -> bool {
    const NO_APPLICATION_PROTOCOL: u8 = 120;
    let code = match reason {
        ConnectionError::TransportError(error) => error.code,
        ConnectionError::ConnectionClosed(close) => close.error_code,
        _ => return false,
    };
    code == quinn_proto::TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL)
}

fn nanos(ns: u64) -> Duration {
    Duration::from_nanos(ns)
}
