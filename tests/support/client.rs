//! A released client as the plays in `interop.rs` use it: one `Peer` is one QUIC connection with
//! its own origins, so nothing reaches a viewer except over the wire.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use moq_net::{
    Error, Hop, Timescale, Timestamp, announce, broadcast, group,
    origin::{self, Consumer, Producer},
    track,
};
use moq_tokio::{Client, Connection, connect};
use tokio::sync::mpsc;

use super::relay::Relay;

/// Longer than any answer a relay on the same machine may take; a test that waits this long fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Long enough that no group of a play is ever too old to be delivered.
pub const MAX_AGE: Duration = Duration::from_secs(60);

/// Tries before a connection is declared impossible to steer: (3/4)^96 is one in 10^12.
const STEER_TRIES_MAX: usize = 96;

pub const LITE_03: &str = "moq-lite-03";
pub const LITE_04: &str = "moq-lite-04";
pub const LITE_05: &str = "moq-lite-05";
pub const LITE_06: &str = "moq-lite-06";
pub const VERSIONS: [&str; 4] = [LITE_03, LITE_04, LITE_05, LITE_06];

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
}

impl Peer {
    /// Connects wherever the client's random connection id leads.
    pub async fn connect(relay: &Relay, version: &'static str, role: Role) -> Self {
        let mut config = connect::Config::default();
        config.tls.insecure = Some(true);
        config.version = vec![version.parse().expect("a version the client knows")];
        // A session that ends is a finding, not something to paper over by dialling again.
        config.once = Some(true);
        // One address family: the relay listens on 127.0.0.1 only.
        config.bind = Some(([127, 0, 0, 1], 0).into());

        // An application usually keeps one identity for both directions. Where the wire lets the
        // relay tell sessions apart by itself, two identities make it prove that it does: with one,
        // the client would drop its own broadcast whoever sent it.
        let hop = Hop::random();
        let other = match version {
            LITE_04 | LITE_05 => hop,
            _ => Hop::random(),
        };
        let publishes = moq_tokio::origin::spawn_config(origin::Config::new(hop));
        let receives = moq_tokio::origin::spawn_config(origin::Config::new(other));
        let views = receives.consume();
        let announced = views.announced();

        let client = config.init(Default::default()).expect("client");
        let client = match role {
            Role::Publisher => client.with_publisher(&publishes),
            Role::Viewer => client.with_subscriber(receives),
            Role::Both => client.with_publisher(&publishes).with_subscriber(receives),
        };

        let accepted = relay.accepting().await;
        let url: url::Url = relay.url().parse().expect("relay url");
        let connection = within("the session", client.connect(url).established())
            .await
            .unwrap_or_else(|error| panic!("{version} session: {error}"));
        let negotiated = connection.version().expect("a version was negotiated");
        assert_eq!(negotiated.to_string(), version, "negotiated version");
        let shard = accepted.shard(version).await;

        Self { version, shard, publishes, views, announced, connection, client }
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
        for _ in 0..STEER_TRIES_MAX {
            let peer = Self::connect(relay, version, role).await;
            if peer.shard == shard {
                return peer;
            }
            peer.leave().await;
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
        let broadcast = within("the broadcast", self.views.request_broadcast(path)).await?;
        let preferences = track::Subscription::default().with_max_age(max_age);
        let pending = broadcast.track(track)?.subscribe(preferences);
        let subscriber = within("track information", pending).await?;
        Ok(View::new(subscriber))
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
        let sequence = scripted.sequence;
        let mut group = self.track(name).create_group(group::Info { sequence }).expect("group");
        for (index, frame) in scripted.frames.iter().enumerate() {
            let payload = script.payload(sequence, index);
            group.write_frame(frame.timestamp(), payload).expect("frame");
        }
        group
    }

    pub fn finish(&mut self, name: &str) {
        self.track(name).finish().expect("finish track");
    }

    /// Retracts the announcement while the connection stays.
    pub fn close(self) {
        self.broadcast.close();
    }
}

/// A subscription as its viewer holds it. Dropping it unsubscribes.
pub struct View {
    info: track::Info,
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
        Self { info, heard, reader }
    }

    pub async fn next(&mut self, what: &str) -> Heard {
        let heard = within(what, self.heard.recv()).await;
        heard.expect("the reader ends with the track")
    }

    /// The next group in arrival order, read to its end. `None` is the end of the track.
    pub async fn group(&mut self, who: &str) -> Option<(u64, Frames)> {
        let mut frames = Frames::new();
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
            let Some((sequence, frames)) = self.group(who).await else {
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
pub struct Script {
    pub seed: u64,
    pub groups: Vec<ScriptedGroup>,
}

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

    pub fn payload(&self, sequence: u64, index: usize) -> Bytes {
        let group = self.groups.iter().find(|group| group.sequence == sequence);
        let size = group.expect("a scripted group").frames[index].size;
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
        for (group, frames) in self.groups.iter().zip(received.values()) {
            let mut at = format!("group {}", group.sequence);
            if frames.len() != group.frames.len() {
                let counts = (group.frames.len(), frames.len());
                return Some(format!("{at}: {} frames arrived as {}", counts.0, counts.1));
            }
            for (index, (frame, (timestamp, bytes))) in group.frames.iter().zip(frames).enumerate()
            {
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
