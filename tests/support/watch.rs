//! A released client publishes a track in real time, another one watches it, over whatever is between:
//! how late each frame came.

use std::convert::Infallible;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use moq_net::{Hop, Timestamp, origin, track};
use moq_tokio::{Client, Connection, connect};
use tokio::task::JoinSet;
use tokio::time::Instant;
use url::Url;

const TRACK: &str = "video";

/// What a viewer asks for, and a publisher keeps.
const MAX_AGE: Duration = Duration::from_secs(2);

/// What is then still under way is of use to nobody.
const PATIENCE: Duration = Duration::from_secs(2);

/// For a handshake over a bad link, and whatever else comes before the first frame.
const START_WITHIN: Duration = Duration::from_secs(20);

/// Why nothing could be measured.
pub type Failure = Box<dyn Error + Send + Sync>;

/// A track of equal frames, a group of them each second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Video {
    pub frames_per_second: u32,
    pub frame_bytes: usize,
}

impl Video {
    /// 2 Mb/s.
    pub const M2: Video = Video { frames_per_second: 60, frame_bytes: 4096 };
    /// 3 Mb/s.
    pub const M3: Video = Video { frames_per_second: 30, frame_bytes: 12_500 };

    /// When each frame is made, after the first.
    fn made(self, index: u64) -> Duration {
        Duration::from_secs(1) * index as u32 / self.frames_per_second
    }
}

/// How late the frames were that count.
#[derive(Clone, Debug)]
pub struct Seen {
    pub made: usize,
    /// Of those that came, in ascending order.
    pub late: Vec<Duration>,
}

impl Seen {
    /// The share of all frames that came so soon.
    pub fn within(&self, time: Duration) -> f64 {
        self.soon(time).len() as f64 / self.made as f64
    }

    /// A quantile of those that came so soon.
    pub fn quantile(&self, q: f64, time: Duration) -> Option<Duration> {
        let soon = self.soon(time);
        let at = (soon.len() as f64 * q) as usize;
        soon.get(at.min(soon.len().checked_sub(1)?)).copied()
    }

    fn soon(&self, time: Duration) -> &[Duration] {
        &self.late[..self.late.partition_point(|late| *late <= time)]
    }
}

/// Publishes at one address and watches at the other, under a path of its own. Frames count that are
/// made once `warmup` is over, and until `lasts` is.
pub async fn watch(
    publish: &Url,
    watch: &Url,
    path: &str,
    video: Video,
    warmup: Duration,
    lasts: Duration,
) -> Result<Seen, Failure> {
    let origin = moq_tokio::origin::spawn_config(origin::Config::new(Hop::random()));
    let publisher = session(publish, |client| client.with_publisher(&origin)).await?;
    let broadcast = origin.create_broadcast(path)?;
    let track = broadcast.create_track(TRACK, track::Info::default().with_max_age(MAX_AGE))?;
    broadcast.announce(Default::default())?;

    let received = moq_tokio::origin::spawn_config(origin::Config::new(Hop::random()));
    let views = received.consume();
    let mut announced = views.announced();
    let viewer = session(watch, |client| client.with_subscriber(received)).await?;
    // Others may be there too.
    loop {
        let next = soon("its announcement", announced.next()).await?;
        if next.ok_or("the viewer's session is over")?.prefix.as_str() == path {
            break;
        }
    }
    let shelf = soon("the broadcast", views.request_broadcast(path)).await??.track(TRACK)?;
    let wanted = track::Subscription::default().with_max_age(MAX_AGE);
    let subscriber = soon("the track", shelf.subscribe(wanted)).await??;

    let start = Instant::now();
    let came = Came::default();
    let mut tasks = JoinSet::new();
    tasks.spawn(film(track, video, start));
    tasks.spawn(look(subscriber, came.clone()));
    tokio::select! {
        () = tokio::time::sleep_until(start + warmup + lasts + PATIENCE) => {}
        ended = tasks.join_next() => match ended.expect("there are two")? {
            Err(failure) => return Err(failure),
        },
    }
    for (client, connection) in [publisher, viewer] {
        if !connection.connected() {
            return Err("a session has ended".into());
        }
        connection.abort(moq_net::Error::Cancel);
        soon("a client to close", client.close()).await?;
    }
    let is_counted = |made: Duration| (warmup..warmup + lasts).contains(&made);
    let made = (0..).map(|index| video.made(index));
    let made =
        made.take_while(|made| *made < warmup + lasts).filter(|made| is_counted(*made)).count();
    let came = came.lock().expect("no task panics");
    let counted = came.iter().filter(|(index, _)| is_counted(video.made(*index)));
    let mut late: Vec<Duration> =
        counted.map(|(index, at)| at.duration_since(start + video.made(*index))).collect();
    late.sort_unstable();
    Ok(Seen { made, late })
}

/// The index of each frame that has come, and when.
type Came = Arc<Mutex<Vec<(u64, Instant)>>>;

/// A client and its connection, which ends with either of them.
async fn session(
    url: &Url,
    part: impl FnOnce(Client) -> Client,
) -> Result<(Client, Connection), Failure> {
    let mut config = connect::Config::default();
    config.websocket.enabled = Some(false);
    config.tls.insecure = Some(true);
    // A session that ends is a finding.
    config.once = Some(true);
    config.bind = Some(([127, 0, 0, 1], 0).into());
    config.version = vec!["moq-lite-06".parse()?];
    let client = part(config.init(Default::default())?);
    let connection = soon("a session", client.connect(url.clone()).established()).await??;
    Ok((client, connection))
}

async fn soon<T>(what: &str, event: impl Future<Output = T>) -> Result<T, String> {
    let event = tokio::time::timeout(START_WITHIN, event).await;
    event.map_err(|_| format!("waited {START_WITHIN:?} for {what}"))
}

/// Makes each frame at its time, and a group of those of each second.
async fn film(track: track::Producer, video: Video, start: Instant) -> Result<Infallible, Failure> {
    let mut group = None;
    for index in 0.. {
        tokio::time::sleep_until(start + video.made(index)).await;
        let mut payload = vec![0x55; video.frame_bytes];
        payload[..8].copy_from_slice(&index.to_be_bytes());
        if index.is_multiple_of(video.frames_per_second.into())
            && let Some(ended) = group.replace(track.append_group()?)
        {
            ended.finish()?;
        }
        let group = group.as_mut().expect("the first frame begins one");
        let at = Timestamp::from_micros(video.made(index).as_micros() as u64)?;
        group.write_frame(at, Bytes::from(payload))?;
    }
    unreachable!("there are more frames than anybody can make")
}

/// Reads all groups at once: none waits for one before it.
async fn look(mut subscriber: track::Subscriber, came: Came) -> Result<Infallible, Failure> {
    while let Some(mut group) = subscriber.recv_group().await? {
        let came = came.clone();
        tokio::spawn(async move {
            // A group that is given up is none of those that came.
            while let Ok(Some(frame)) = group.read_frame().await {
                let now = Instant::now();
                let index = frame.payload.first_chunk().expect("a frame of ours");
                came.lock().expect("no task panics").push((u64::from_be_bytes(*index), now));
            }
        });
    }
    Err("the track has ended".into())
}
