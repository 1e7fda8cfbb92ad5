//! A released client as the plays in `interop.rs` use it: one `Peer` is one QUIC connection with
//! its own origins, so nothing reaches a viewer except over the wire.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use moq_net::{
    Error, Hop, Timescale, Timestamp, announce, broadcast, group, kio,
    origin::{self, Consumer, Producer},
    stats, track,
};
use moq_tokio::{Client, Connection, connect};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::relay::Relay;

/// Longer than any answer a relay on the same machine may take; a test that waits this long fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A refusal that takes longer is somebody's time limit and not an answer.
pub const PROMPTLY: Duration = Duration::from_secs(2);

/// Long enough that no group of a play is ever too old to be delivered.
pub const MAX_AGE: Duration = Duration::from_secs(60);

/// Tries before a connection is declared impossible to steer: (3/4)^96 is one in 10^12.
const STEER_TRIES_MAX: usize = 96;

pub const LITE_01: &str = "moq-lite-01";
pub const LITE_02: &str = "moq-lite-02";
pub const LITE_03: &str = "moq-lite-03";
pub const LITE_04: &str = "moq-lite-04";
pub const LITE_05: &str = "moq-lite-05";
pub const LITE_06: &str = "moq-lite-06";
pub const VERSIONS: [&str; 6] = [LITE_01, LITE_02, LITE_03, LITE_04, LITE_05, LITE_06];

/// What TLS agrees on: 01 and 02 share a name and tell each other apart later.
fn protocol(version: &str) -> &str {
    if version <= LITE_02 { "moql" } else { version }
}

/// lite-05 is the first version whose frames carry a timestamp.
pub fn carries_timestamps(version: &str) -> bool {
    version >= LITE_05
}

/// Before lite-05 a subscription ends with a bare FIN, which a client believes only after every
/// group that might still come is too old to matter: nothing a play can await.
pub fn carries_ends(version: &str) -> bool {
    version >= LITE_05
}

/// Awaits `event`, and says what did not happen when it does not.
#[track_caller]
pub fn within<T>(what: impl Display, event: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, event).await {
            Ok(value) => value,
            Err(_) => panic!("{caller}: waited {PATIENCE:?} for {what}"),
        }
    }
}

/// One connected client. Dropping it closes the connection.
pub struct Peer {
    pub version: &'static str,
    /// The shard that owns this connection, as the relay's log tells it.
    pub shard: usize,
    publishes: Producer,
    views: Consumer,
    announced: announce::Consumer,
    connection: Connection,
    client: Client,
    counters: stats::Registry,
}

/// What a publisher was asked for so far, counted by its client as the requests came in: nothing
/// that a cache of the client answers is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Subscriptions that were opened.
    pub subscriptions: u64,
    /// How many of them are over.
    pub ended: u64,
    pub fetches: u64,
}

impl Peer {
    /// Connects wherever the client's random connection id leads.
    pub async fn connect(relay: &Relay, version: &'static str, role: Role) -> Self {
        Self::connect_as(relay, version, role, Hop::random()).await
    }

    /// Connects as a publisher of the given identity: two that share one publish the same content.
    pub async fn connect_as(relay: &Relay, version: &'static str, role: Role, hop: Hop) -> Self {
        let accepted = relay.accepting().await;
        let mut peer = Self::begin(config(relay, version), &relay.url(), version, role, hop).await;
        peer.shard = accepted.shard(protocol(version)).await;
        peer
    }

    /// Connects to a relay of whatever make, of whose shards nothing is known.
    pub async fn dial(url: &str, version: &'static str, role: Role) -> Self {
        Self::begin(config_of(url, version), url, version, role, Hop::random()).await
    }

    async fn begin(
        mut config: connect::Config,
        url: &str,
        version: &'static str,
        role: Role,
        hop: Hop,
    ) -> Self {
        // A session that ends is a finding, not something to paper over by dialling again.
        config.once = Some(true);

        // An application usually keeps one identity for both directions. Where the wire lets the
        // relay tell sessions apart by itself, two identities make it prove that it does: with one,
        // the client would drop its own broadcast whoever sent it.
        let other = match version {
            LITE_04 | LITE_05 => hop,
            _ => Hop::random(),
        };
        let publishes = moq_tokio::origin::spawn_config(origin::Config::new(hop));
        let receives = moq_tokio::origin::spawn_config(origin::Config::new(other));
        let views = receives.consume();
        // What is hidden is for the relay to hide.
        let announced = views.clone().with_hidden(true).announced();
        let shows = publishes.consume().with_hidden(true);

        let client = config.init(Default::default()).expect("client");
        let client = match role {
            Role::Publisher => client.with_publisher(shows),
            Role::Viewer => client.with_subscriber(receives),
            Role::Both => client.with_publisher(shows).with_subscriber(receives),
        };
        let counters = stats::Registry::new(stats::Config::new());
        let client = client.with_stats(counters.tier(stats::Tier::default()).session(""));

        let url: url::Url = url.parse().expect("relay url");
        let connection = within("the session", client.connect(url).established())
            .await
            .unwrap_or_else(|error| panic!("{version} session: {error}"));
        let negotiated = connection.version().expect("a version was negotiated");
        assert_eq!(negotiated.to_string(), version, "negotiated version");

        Self { version, shard: 0, publishes, views, announced, connection, client, counters }
    }

    /// Dials as applications do, who dial again when a session ends, and says why it is given up for good.
    pub async fn turned_away(relay: &Relay, version: &'static str) -> moq_tokio::Error {
        let receives = moq_tokio::origin::spawn_config(origin::Config::new(Hop::random()));
        let client = config(relay, version).init(Default::default()).expect("client");
        let url: url::Url = relay.url().parse().expect("relay url");
        let connection = client.with_subscriber(receives).connect(url);
        within("the end of dialling", connection.closed()).await.expect_err("it is given up")
    }

    /// Dials as applications do, who dial again where they are refused for now, until this is announced.
    pub async fn insists(relay: &Relay, version: &'static str, path: &str) {
        let receives = moq_tokio::origin::spawn_config(origin::Config::new(Hop::random()));
        let mut announced = receives.consume().announced();
        let client = config(relay, version).init(Default::default()).expect("client");
        let client = client.with_subscriber(receives);
        let url: url::Url = relay.url().parse().expect("relay url");
        let connection = client.connect(url);
        let update = within(format!("{path:?}"), announced.next()).await;
        assert_eq!(update.expect("announcements go on").prefix.as_str(), path);
        connection.abort(Error::Cancel);
        within("the endpoint to close", client.close()).await;
    }

    /// Why the session has ended.
    pub async fn ended(&self) -> moq_tokio::Error {
        within("the end of the session", self.connection.closed()).await.expect_err("a reason")
    }

    /// Connects until the relay's log says the connection landed on `shard`. The kernel steers by
    /// the client's first connection id, which is random, so this is a loop and not a request.
    pub async fn connect_on(
        relay: &Relay,
        version: &'static str,
        role: Role,
        shard: usize,
    ) -> Self {
        assert!(shard < relay.shards(), "shard {shard} does not exist");
        // By socket the shard with the fewest sessions is next: those that came elsewhere stay for so long. By
        // QUIC they leave, for one that is behind a NAT of its own has one address.
        let is_socket = relay.url().starts_with("ws");
        let mut elsewhere = Vec::new();
        for _ in 0..STEER_TRIES_MAX {
            let peer = Self::connect(relay, version, role).await;
            if peer.shard == shard {
                for other in elsewhere {
                    Self::leave(other).await;
                }
                return peer;
            }
            match is_socket {
                true => elsewhere.push(peer),
                false => peer.leave().await,
            }
        }
        panic!("no connection reached shard {shard} in {STEER_TRIES_MAX} tries");
    }

    /// Announces `path` with the given tracks already in place.
    pub fn announce(&self, path: &str, tracks: &[&str]) -> Channel {
        let broadcast = self.publishes.create_broadcast(path).expect("broadcast");
        let tracks = tracks
            .iter()
            .map(|name| {
                let info = track::Info::default().with_timescale(timescale()).with_max_age(MAX_AGE);
                let track = broadcast.create_track(*name, info).expect("track");
                (name.to_string(), track)
            })
            .collect();
        broadcast.announce(Default::default()).expect("announce");
        Channel { broadcast, tracks }
    }

    /// The next announcement is this path coming up.
    #[track_caller]
    pub fn sees(&mut self, path: &str) -> impl Future<Output = ()> {
        self.hears(path, true)
    }

    /// The next announcement is this path going away.
    #[track_caller]
    pub fn loses(&mut self, path: &str) -> impl Future<Output = ()> {
        self.hears(path, false)
    }

    #[track_caller]
    fn hears(&mut self, path: &str, active: bool) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        let what = format!("{path:?} to become active={active}");
        let version = self.version;
        let next = within(what, self.announced.next());
        let path = path.to_owned();
        async move {
            let update = next.await.expect("announcements go on");
            let heard = (update.prefix.as_str(), update.kind.is_active());
            assert_eq!(heard, (path.as_str(), active), "{version} at {caller}");
        }
    }

    /// Whatever other ways there are to it meanwhile, a path goes away.
    pub async fn loses_in_the_end(&mut self, path: &str) {
        loop {
            let next = within(format!("{path:?} to go away"), self.announced.next()).await;
            let update = next.expect("announcements go on");
            assert_eq!(update.prefix.as_str(), path);
            if !update.kind.is_active() {
                return;
            }
        }
    }

    /// Every path that comes up until all of `paths` have, in whatever order.
    pub async fn sees_all(&mut self, paths: &[&str]) {
        let mut missing: Vec<&str> = paths.to_vec();
        while !missing.is_empty() {
            let update = within(format!("{missing:?}"), self.announced.next())
                .await
                .expect("announcements go on");
            assert!(update.kind.is_active(), "{} went away", update.prefix);
            let known = missing.iter().position(|path| *path == update.prefix.as_str());
            missing.remove(known.unwrap_or_else(|| panic!("unexpected {}", update.prefix)));
        }
    }

    /// Asks for a track, patient with old groups.
    pub async fn subscribe(&self, path: &str, track: &str) -> Result<View, Error> {
        self.subscribe_within(path, track, MAX_AGE).await
    }

    /// As `subscribe`, with the viewer's own limit on how old a group may be.
    pub async fn subscribe_within(
        &self,
        path: &str,
        track: &str,
        max_age: Duration,
    ) -> Result<View, Error> {
        let preferences = track::Subscription::default().with_max_age(max_age);
        self.shelf(path, track).await?.subscribe(preferences).await
    }

    /// A track to subscribe to or to fetch from. Nothing is asked of the relay yet.
    pub async fn shelf(&self, path: &str, track: &str) -> Result<Shelf, Error> {
        let broadcast = within("the broadcast", self.views.request_broadcast(path)).await?;
        Ok(Shelf { track: broadcast.track(track)? })
    }

    /// Asks for a track that must be refused, and returns the reason. From 05 on the refusal
    /// answers the question about the track, before that it ends the subscription.
    pub async fn refused(&self, path: &str, track: &str) -> Error {
        match self.subscribe(path, track).await {
            Err(error) => error,
            Ok(mut view) => match view.next("a refusal").await {
                Heard::Failed(error) => error,
                heard => panic!("{}: {path} {track} was not refused: {heard:?}", self.version),
            },
        }
    }

    /// What the relay reports of the link, which it is asked for by this call.
    pub async fn reported_rate(&self) -> u64 {
        let mut reports = self.connection.recv_bandwidth();
        let rate = async {
            loop {
                if let Some(rate) = reports.peek() {
                    return rate.as_bps();
                }
                reports.changed().await.expect("the session lives");
            }
        };
        within("a report", rate).await
    }

    /// What this publisher was asked for so far.
    pub fn asked(&self) -> Asked {
        let sides = self.counters.snapshot().traffic();
        let sides = sides.iter().filter(|(_, side, _)| *side == stats::Role::Publisher);
        let mut asked = Asked { subscriptions: 0, ended: 0, fetches: 0 };
        for (_, _, counted) in sides {
            asked.subscriptions += counted.subscriptions_started;
            asked.ended += counted.subscriptions_ended;
            asked.fetches += counted.fetches;
        }
        asked
    }

    /// Closes the connection so that the relay hears of it at once.
    pub async fn leave(self) {
        // What is still owed to the relay is not waited for: leaving is abrupt, but not silent.
        self.connection.abort(Error::Cancel);
        within("the endpoint to close", self.client.close()).await;
    }

    /// The session is still up, from the client's point of view.
    pub fn connected(&self) -> bool {
        self.connection.connected()
    }
}

fn config(relay: &Relay, version: &'static str) -> connect::Config {
    let mut config = config_of(&relay.url(), version);
    if let Some([cert, key]) = relay.identity() {
        (config.tls.cert, config.tls.key) = (Some(cert.clone()), Some(key.clone()));
    }
    config
}

fn config_of(url: &str, version: &'static str) -> connect::Config {
    let mut config = connect::Config::default();
    // Who finds a hash takes no other certificate.
    config.tls.insecure = Some(!url.starts_with("http:"));
    config.version = vec![version.parse().expect("a version the client knows")];
    // One address family: the relay listens on 127.0.0.1 only.
    config.bind = Some(([127, 0, 0, 1], 0).into());
    // Only where a play wants it: a slow machine is no reason to go another way.
    config.websocket.enabled = Some(url.starts_with("ws"));
    config
}

#[derive(Clone, Copy, Debug)]
pub enum Role {
    Publisher,
    Viewer,
    Both,
}

/// A broadcast as its publisher holds it. Dropping it retracts the announcement.
pub struct Channel {
    broadcast: broadcast::Producer,
    tracks: BTreeMap<String, track::Producer>,
}

impl Channel {
    pub fn track(&mut self, name: &str) -> &mut track::Producer {
        self.tracks.get_mut(name).expect("a track of this broadcast")
    }

    /// Somebody wants the track: the relay subscribed.
    pub async fn wanted(&mut self, name: &str) {
        let used = self.track(name).demand();
        within("demand", used.used()).await.expect("the track lives");
    }

    /// Nobody wants the track: the relay gave its subscription up.
    pub async fn unwanted(&mut self, name: &str) {
        let used = self.track(name).demand();
        within("demand to end", used.unused()).await.expect("the track lives");
    }

    /// Waits until what all subscribers together want of the track is as described. `None` is no
    /// subscription at all.
    pub async fn asked_to(
        &mut self,
        what: &str,
        name: &str,
        wanted: impl Fn(Option<&track::Subscription>) -> bool,
    ) {
        let track = self.track(name);
        loop {
            let now = track.subscription();
            if wanted(now.as_ref()) {
                // What is seen here is no news to `asked_next`.
                let _ = track.poll_subscription_changed(&kio::Waiter::noop());
                return;
            }
            let changed = within(format!("{what}, not {now:?}"), track.subscription_changed());
            changed.await.expect("the track lives");
        }
    }

    /// As `asked_to`, with nothing else seen in between.
    pub async fn asked_next(
        &mut self,
        what: &str,
        name: &str,
        wanted: impl Fn(Option<&track::Subscription>) -> bool,
    ) {
        let changed = within(what, self.track(name).subscription_changed()).await;
        let now = changed.expect("the track lives");
        assert!(wanted(now.as_ref()), "{now:?} before {what}");
    }

    /// From now on a fetch of a group that the track does not hold is a question for the play,
    /// and no longer refused.
    pub fn archive(&mut self, name: &str) -> Archive {
        Archive { fetched: self.track(name).dynamic() }
    }

    pub fn publish(&mut self, name: &str, script: &Script) {
        for group in &script.groups {
            self.publish_group(name, script, group);
        }
    }

    pub fn publish_group(&mut self, name: &str, script: &Script, scripted: &ScriptedGroup) {
        let group = self.begin_group(name, script, scripted);
        group.finish().expect("finish group");
    }

    /// All frames of a group that is then left open.
    pub fn begin_group(
        &mut self,
        name: &str,
        script: &Script,
        scripted: &ScriptedGroup,
    ) -> group::Producer {
        let mut group = self.open_group(name, scripted.sequence);
        script.write(&mut group, 0..scripted.frames.len());
        group
    }

    /// A group without any frame yet.
    pub fn open_group(&mut self, name: &str, sequence: u64) -> group::Producer {
        self.track(name).create_group(group::Info { sequence }).expect("group")
    }

    pub fn finish(&mut self, name: &str) {
        self.track(name).finish().expect("finish track");
    }

    /// Retracts the announcement while the connection stays.
    pub fn close(self) {
        self.broadcast.close();
    }
}

/// Groups that a publisher does not hold in its track and brings when they are fetched.
pub struct Archive {
    fetched: track::Dynamic,
}

impl Archive {
    /// The next group that is fetched. Dropping the request refuses it.
    pub async fn request(&self) -> group::Request {
        let request = within("a fetch", self.fetched.requested_group()).await;
        request.expect("the track lives")
    }

    /// Answers every fetch with what the script says, and groups it does not know with NotFound.
    pub fn serve(self, script: Script) -> Serving {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok(request) = self.fetched.requested_group().await {
                let (sequence, first) = (request.sequence(), request.frame_start() as usize);
                log.lock().expect("no play panics here").push(sequence);
                let Some(scripted) = script.find(sequence) else {
                    request.reject(Error::NotFound);
                    continue;
                };
                let count = scripted.frames.len();
                let mut group = request.accept(None).expect("a group that nobody has made");
                script.write(&mut group, first.min(count)..count);
                group.finish().expect("finish group");
            }
        });
        Serving { asked, task }
    }
}

/// An archive that is open to all. Dropping it closes it.
pub struct Serving {
    asked: Arc<Mutex<Vec<u64>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Serving {
    /// The groups that were taken out so far, in ascending order, each as often as it was.
    pub fn asked(&self) -> Vec<u64> {
        let mut asked = self.asked.lock().expect("no play panics here").clone();
        asked.sort_unstable();
        asked
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until nobody wants the group any more that was fetched and is not answered yet.
pub async fn abandoned(request: &group::Request) {
    within("the fetch to be given up", kio::wait(|waiter| request.poll_unused(waiter))).await;
}

/// A track as a viewer addresses it. What one viewer has received is in its client's own cache, so
/// only what it has not got yet is asked of the relay.
#[derive(Clone)]
pub struct Shelf {
    track: track::Consumer,
}

impl Shelf {
    pub async fn subscribe(&self, preferences: track::Subscription) -> Result<View, Error> {
        let subscriber = within("track information", self.track.subscribe(preferences)).await?;
        Ok(View::new(subscriber))
    }

    /// A subscription that begins at a group and is patient from there on.
    pub async fn subscribe_from(&self, sequence: u64) -> Result<View, Error> {
        let start = track::Position::group(sequence);
        let patient = track::Subscription::default().with_max_age(MAX_AGE);
        self.subscribe(patient.with_start(start)).await
    }

    /// A subscription as the client has it, for what a [`View`] does not tell.
    pub async fn subscribe_plainly(&self) -> track::Subscriber {
        let preferences = track::Subscription::default().with_max_age(MAX_AGE);
        let subscriber = within("track information", self.track.subscribe(preferences)).await;
        subscriber.expect("a subscription")
    }

    /// A past group, open for reading as soon as anything of it is there.
    pub async fn open(&self, sequence: u64, frame_start: u64) -> Result<group::Consumer, Error> {
        let options = group::Fetch::default().with_frame_start(frame_start);
        within(format!("fetched group {sequence}"), self.track.fetch_group(sequence, options)).await
    }

    /// A past group from its first frame to its end.
    pub async fn fetch(&self, sequence: u64) -> Result<Frames, Error> {
        self.fetch_from(sequence, 0).await
    }

    /// A past group from one of its frames to its end.
    pub async fn fetch_from(&self, sequence: u64, frame_start: u64) -> Result<Frames, Error> {
        let mut group = self.open(sequence, frame_start).await?;
        read(&mut group, usize::MAX).await
    }

    /// Fetches every group of the script at once, from now on, and compares all of it.
    #[track_caller]
    pub fn expect(
        &self,
        who: &str,
        script: &Script,
        timestamps: bool,
    ) -> impl Future<Output = ()> + use<> {
        let caller = std::panic::Location::caller();
        let mut fetches = JoinSet::new();
        for group in &script.groups {
            let (shelf, sequence) = (self.clone(), group.sequence);
            fetches.spawn(async move { (sequence, shelf.fetch(sequence).await) });
        }
        let (script, who) = (script.clone(), who.to_owned());
        async move {
            let mut received = BTreeMap::new();
            while let Some(fetched) = fetches.join_next().await {
                let (sequence, frames) = fetched.expect("a fetch that does not panic");
                let frames = frames.unwrap_or_else(|error| {
                    panic!("{who} at {caller}: fetched group {sequence}: {error:?}")
                });
                received.insert(sequence, frames);
            }
            if let Some(difference) = script.difference(&received, timestamps) {
                panic!("{who} at {caller}: fetched {difference}");
            }
        }
    }

    /// A fetch that must fail, and soon: the reason is an answer, not a time limit of anybody.
    #[track_caller]
    pub fn refused(&self, sequence: u64) -> impl Future<Output = Error> + use<> {
        self.refused_from(sequence, 0)
    }

    #[track_caller]
    pub fn refused_from(
        &self,
        sequence: u64,
        frame_start: u64,
    ) -> impl Future<Output = Error> + use<> {
        let caller = std::panic::Location::caller();
        let shelf = self.clone();
        async move {
            let fetch = shelf.fetch_from(sequence, frame_start);
            let answer = tokio::time::timeout(PROMPTLY, fetch).await;
            match answer {
                Err(_) => panic!("{caller}: no refusal of group {sequence} within {PROMPTLY:?}"),
                Ok(Ok(frames)) => {
                    panic!("{caller}: group {sequence} has {} frames, no refusal", frames.len())
                }
                Ok(Err(error)) => error,
            }
        }
    }
}

/// The next frames of a group: so many of them, or all until its end.
pub async fn read(group: &mut group::Consumer, count: usize) -> Result<Frames, Error> {
    let what = format!("a frame of fetched group {}", group.sequence);
    let mut frames = Frames::new();
    while frames.len() < count {
        let Some(frame) = within(&what, group.read_frame()).await? else { break };
        frames.push((frame.timestamp, frame.payload));
    }
    Ok(frames)
}

/// A subscription as its viewer holds it. Dropping it unsubscribes.
pub struct View {
    info: track::Info,
    /// Frames of an unfinished group that were awaited and are still to be compared.
    begun: Frames,
    heard: mpsc::UnboundedReceiver<Heard>,
    reader: tokio::task::JoinHandle<()>,
}

/// Everything a viewer can be told about a track, in the order it is told.
#[derive(Debug)]
pub enum Heard {
    Frame(u64, Timestamp, Bytes),
    Complete(u64),
    Broken(u64, Error),
    Ended,
    Failed(Error),
}

pub type Frames = Vec<(Timestamp, Bytes)>;

impl View {
    /// The client sends SUBSCRIBE when its subscriber is first polled, and not before, so a task
    /// polls from now on: a play may then await the publisher's side without starving the viewer's.
    fn new(subscriber: track::Subscriber) -> Self {
        let info = subscriber.info().clone();
        let (told, heard) = mpsc::unbounded_channel();
        let reader = tokio::spawn(listen(subscriber, told));
        Self { info, begun: Frames::new(), heard, reader }
    }

    pub async fn next(&mut self, what: &str) -> Heard {
        let heard = within(what, self.heard.recv()).await;
        heard.expect("the reader ends with the track")
    }

    /// Waits until so many more frames of the group that is arriving are here. They are still to
    /// be read with the rest of it.
    pub async fn begins(&mut self, who: &str, frames: usize) {
        for _ in 0..frames {
            match self.next(&format!("a frame for {who}")).await {
                Heard::Frame(_, timestamp, payload) => self.begun.push((timestamp, payload)),
                heard => panic!("{who}: {heard:?} instead of a frame"),
            }
        }
    }

    /// The next group in arrival order, read to its end. `None` is the end of the track.
    pub async fn group(&mut self, who: &str) -> Option<(u64, Frames)> {
        let mut frames = std::mem::take(&mut self.begun);
        loop {
            match self.next(&format!("a group for {who}")).await {
                Heard::Frame(_, timestamp, payload) => frames.push((timestamp, payload)),
                Heard::Complete(sequence) => return Some((sequence, frames)),
                Heard::Broken(sequence, error) => panic!("{who}: group {sequence}: {error:?}"),
                Heard::Ended => return None,
                Heard::Failed(error) => panic!("{who}: the track failed: {error:?}"),
            }
        }
    }

    /// Reads until every group of the script arrived, in any order, and compares all of it.
    pub async fn expect(&mut self, who: &str, script: &Script, timestamps: bool) {
        let mut received = BTreeMap::new();
        while received.len() < script.groups.len() {
            let waits = format!("{who}, which has {:?}", received.keys());
            let Some((sequence, frames)) = self.group(&waits).await else {
                panic!("{who}: the track ended after groups {:?}", received.keys());
            };
            let twice = received.insert(sequence, frames);
            assert!(twice.is_none(), "{who}: group {sequence} arrived twice");
        }
        if let Some(difference) = script.difference(&received, timestamps) {
            panic!("{who}: {difference}");
        }
    }

    /// The track's end arrives as an end, not as an error.
    pub async fn expect_end(&mut self, who: &str) {
        match self.next("the end of the track").await {
            Heard::Ended => {}
            heard => panic!("{who}: {heard:?} instead of the end of the track"),
        }
    }

    /// The track's own properties, as the publisher stated them.
    pub fn info(&self) -> &track::Info {
        &self.info
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn listen(mut subscriber: track::Subscriber, told: mpsc::UnboundedSender<Heard>) {
    loop {
        let mut group = match subscriber.recv_group().await {
            Ok(Some(group)) => group,
            Ok(None) => return drop(told.send(Heard::Ended)),
            Err(error) => return drop(told.send(Heard::Failed(error))),
        };
        let sequence = group.sequence;
        loop {
            let heard = match group.read_frame().await {
                Ok(Some(frame)) => Heard::Frame(sequence, frame.timestamp, frame.payload),
                Ok(None) => Heard::Complete(sequence),
                Err(error) => Heard::Broken(sequence, error),
            };
            let more = matches!(heard, Heard::Frame(..));
            if told.send(heard).is_err() {
                return;
            }
            if !more {
                break;
            }
        }
    }
}

/// What a publisher says, known to the viewer in advance: contents follow from the seed.
#[derive(Clone)]
pub struct Script {
    pub seed: u64,
    pub groups: Vec<ScriptedGroup>,
}

#[derive(Clone)]
pub struct ScriptedGroup {
    pub sequence: u64,
    pub frames: Vec<ScriptedFrame>,
}

#[derive(Clone, Copy)]
pub struct ScriptedFrame {
    pub size: usize,
    pub ticks: u64,
}

/// 90 kHz, the clock of MPEG video: neither milliseconds nor microseconds by accident.
pub fn timescale() -> Timescale {
    Timescale::new(90_000).expect("a timescale above zero")
}

/// One frame at 30 per second.
const FRAME_TICKS: u64 = 3_000;

impl ScriptedFrame {
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::new(self.ticks, timescale()).expect("a timestamp in range")
    }
}

impl Script {
    /// Groups with sequences `first..first + count`, each with one frame of every size. Frames are
    /// in decode order, so their timestamps step back as B-frames do.
    pub fn new(seed: u64, first: u64, count: u64, sizes: &[usize]) -> Self {
        // I P B B P B B …: display positions 0 3 1 2 6 4 5 …
        let display = |index: u64| match index {
            0 => 0,
            _ if index % 3 == 1 => index + 2,
            _ => index - 1,
        };
        let groups = (first..first + count)
            .map(|sequence| ScriptedGroup {
                sequence,
                frames: sizes
                    .iter()
                    .enumerate()
                    .map(|(index, &size)| ScriptedFrame {
                        size,
                        ticks: (sequence * 30 + display(index as u64)) * FRAME_TICKS,
                    })
                    .collect(),
            })
            .collect();
        Self { seed, groups }
    }

    pub fn find(&self, sequence: u64) -> Option<&ScriptedGroup> {
        self.groups.iter().find(|group| group.sequence == sequence)
    }

    /// Some frames of a group that this script knows.
    pub fn write(&self, group: &mut group::Producer, frames: Range<usize>) {
        let scripted = self.find(group.sequence).expect("a scripted group");
        for index in frames {
            let payload = self.payload(scripted.sequence, index);
            group.write_frame(scripted.frames[index].timestamp(), payload).expect("frame");
        }
    }

    pub fn payload(&self, sequence: u64, index: usize) -> Bytes {
        let size = self.find(sequence).expect("a scripted group").frames[index].size;
        let mut random = SplitMix(self.seed ^ (sequence << 32) ^ (index as u64) << 16);
        let mut payload = Vec::with_capacity(size + 8);
        while payload.len() < size {
            payload.extend_from_slice(&random.next().to_le_bytes());
        }
        payload.truncate(size);
        payload.into()
    }

    /// The first thing that arrived other than said, in words: never a dump of a mebibyte.
    fn difference(&self, received: &BTreeMap<u64, Frames>, timestamps: bool) -> Option<String> {
        let said: Vec<u64> = self.groups.iter().map(|group| group.sequence).collect();
        let heard: Vec<u64> = received.keys().copied().collect();
        if said != heard {
            return Some(format!("groups {said:?} arrived as {heard:?}"));
        }
        let mut groups = self.groups.iter().zip(received.values());
        groups.find_map(|(group, frames)| self.difference_from(group, 0, frames, timestamps))
    }

    /// Compares the frames of a group from one of them on.
    #[track_caller]
    pub fn compare_from(
        &self,
        who: &str,
        sequence: u64,
        first: usize,
        frames: &Frames,
        timestamps: bool,
    ) {
        let group = self.find(sequence).expect("a scripted group");
        if let Some(difference) = self.difference_from(group, first, frames, timestamps) {
            panic!("{who}: {difference}");
        }
    }

    fn difference_from(
        &self,
        group: &ScriptedGroup,
        first: usize,
        frames: &Frames,
        timestamps: bool,
    ) -> Option<String> {
        let mut at = format!("group {}", group.sequence);
        let said = &group.frames[first..];
        if frames.len() != said.len() {
            return Some(format!("{at}: {} frames arrived as {}", said.len(), frames.len()));
        }
        for (offset, (frame, (timestamp, bytes))) in said.iter().zip(frames).enumerate() {
            let index = first + offset;
            let _ = write!(at, " frame {index}");
            let payload = self.payload(group.sequence, index);
            if payload.len() != bytes.len() {
                let sizes = (payload.len(), bytes.len());
                return Some(format!("{at}: {} bytes arrived as {}", sizes.0, sizes.1));
            }
            if let Some(byte) = payload.iter().zip(bytes).position(|(a, b)| a != b) {
                return Some(format!("{at}: byte {byte} differs"));
            }
            let said = (frame.ticks, timescale());
            let heard = (timestamp.value(), timestamp.scale());
            if timestamps && said != heard {
                return Some(format!("{at}: timestamp {said:?} arrived as {heard:?}"));
            }
            at.truncate(at.find(" frame").unwrap_or(at.len()));
        }
        None
    }
}

/// The smallest generator that fills a payload with something no bug would produce by itself.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
