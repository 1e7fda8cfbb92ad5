//! What a viewer by WebSocket costs a relay, and how far behind live one is whose link is narrower than
//! the track: released clients publish and watch over real sockets. Prints one line of JSON.
//! `scripts/sockets.sh` uses it.

mod narrow;

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use moq_net::{Hop, Timestamp, origin, track};
use moq_tokio::{Client, Connection, connect};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use url::Url;

const PATH: &str = "live/cam";
const TRACK: &str = "video";

/// For a handshake, and whatever else comes before the first frame.
const START_WITHIN: Duration = Duration::from_secs(20);

/// What is then still under way is of use to nobody.
const PATIENCE: Duration = Duration::from_secs(2);

type Failure = Box<dyn Error + Send + Sync>;

/// What viewers get of a track, how old it is, and what it costs the relay
///
/// One released client publishes the track, others watch it, each by a connection of its own. Prints as
/// JSON how many frames were made and came, the relay's CPU for each frame delivered, the shares of a core
/// that the relay and this program used, the age of frames as they came, and what became of groups.
#[derive(Debug, Parser)]
#[command(
    name = "sockets",
    max_term_width = 100,
    after_help = "example: sockets --url ws://127.0.0.1:4443 --scenario video --relay-pid $(pidof shardcast)"
)]
struct Args {
    /// The relay, as ws://127.0.0.1:4443 or moqt://127.0.0.1:4443; any certificate is taken
    #[arg(long, value_name = "URL")]
    url: Url,

    /// chat is 20 frames of 300 bytes per second, each a group; video is 60 of 4096, a group each second
    #[arg(long, value_enum, default_value = "video")]
    scenario: Scenario,

    /// How many watch
    #[arg(long, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    viewers: u32,

    /// The viewers' links pass so much, as 1600k or 2M bits per second; needs ws://IP:PORT
    #[arg(long, value_name = "RATE", value_parser = bits_per_second)]
    link: Option<f64>,

    /// The process whose CPU is measured
    #[arg(long, value_name = "PID")]
    relay_pid: Option<libc::pid_t>,

    /// Seconds that are measured
    #[arg(long, default_value_t = 4, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    duration: u64,

    /// Seconds before that
    #[arg(long, default_value_t = 2, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    warmup: u64,

    /// What viewers and publisher state: no older group is wanted
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    max_age_ms: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scenario {
    Chat,
    Video,
}

fn bits_per_second(text: &str) -> Result<f64, String> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1e3),
        None => text.strip_suffix('M').map_or((text, 1.0), |digits| (digits, 1e6)),
    };
    let rate = digits.parse::<f64>().map(|rate| rate * unit).ok();
    rate.filter(|rate| (1e3..=1e10).contains(rate)).ok_or("must be from 1k to 10000M".to_owned())
}

/// Equal frames at equal distances.
#[derive(Clone, Copy)]
struct Content {
    frames_per_second: u32,
    frame_bytes: usize,
    frames_per_group: u64,
}

impl Scenario {
    /// As bench/scenarios has them.
    fn content(self) -> Content {
        match self {
            Scenario::Chat => {
                Content { frames_per_second: 20, frame_bytes: 300, frames_per_group: 1 }
            }
            Scenario::Video => {
                Content { frames_per_second: 60, frame_bytes: 4096, frames_per_group: 60 }
            }
        }
    }
}

impl Content {
    /// When each frame is made, after the first.
    fn made(self, index: u64) -> Duration {
        Duration::from_secs(1) * index as u32 / self.frames_per_second
    }

    fn group(self, index: u64) -> u64 {
        index / self.frames_per_group
    }
}

/// What is measured: from when the first frame is made, frames from the first of these indices to before the
/// other, which begin groups.
#[derive(Clone, Copy)]
struct Span {
    content: Content,
    start: Instant,
    from: u64,
    to: u64,
}

impl Span {
    fn counts(self, index: u64) -> bool {
        (self.from..self.to).contains(&index)
    }
}

#[derive(Default)]
struct Came {
    /// All frames, whenever they were made.
    frames: u64,
    /// Of the frames that count.
    ages: Vec<Duration>,
    /// Groups that count of which anything came, and of which all did.
    begun: u64,
    whole: u64,
}

type Shared = Arc<Mutex<Came>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    println!("{}", run(&args).await?);
    Ok(())
}

async fn run(args: &Args) -> Result<String, Failure> {
    let content = args.scenario.content();
    let max_age = Duration::from_millis(args.max_age_ms);
    let mut watched = args.url.clone();
    if let Some(rate) = args.link {
        let relay = format!(
            "{}:{}",
            args.url.host_str().unwrap_or_default(),
            args.url.port().unwrap_or_default()
        );
        let begin = narrow::open(relay.parse()?, rate).await?;
        watched.set_port(Some(begin.port())).map_err(|()| "the URL takes no port")?;
    }

    let client = client(&args.url)?;
    let publishes = moq_tokio::origin::spawn_config(origin::Config::new(Hop::random()));
    let publisher = session(client.clone().with_publisher(&publishes), &args.url).await?;
    let broadcast = publishes.create_broadcast(PATH)?;
    let track = broadcast.create_track(TRACK, track::Info::default().with_max_age(max_age))?;
    broadcast.announce(Default::default())?;

    let mut sessions = vec![publisher];
    let mut subscribers = Vec::new();
    for _ in 0..args.viewers {
        let (session, subscriber) = view(&client, &watched, max_age).await?;
        sessions.push(session);
        subscribers.push(subscriber);
    }

    let per_second = u64::from(content.frames_per_second);
    let from = args.warmup * per_second;
    let to = from + args.duration * per_second;
    let span = Span { content, start: Instant::now(), from, to };
    let came = Shared::default();
    let mut tasks = JoinSet::new();
    tasks.spawn(film(track, span));
    for subscriber in subscribers {
        tasks.spawn(look(subscriber, span, came.clone()));
    }
    let used = tokio::select! {
        used = measure(args, span, &came) => used?,
        ended = tasks.join_next() => match ended.expect("somebody publishes")? {
            Err(failure) => return Err(failure),
        },
    };
    if sessions.iter().any(|session| !session.connected()) {
        return Err("a session has ended".into());
    }
    let mut came = came.lock().expect("no task panics");
    came.ages.sort_unstable();
    Ok(line(args, span, &came, &used))
}

/// What was used in the time that is measured.
struct Used {
    relay: Option<Duration>,
    own: Duration,
    time: Duration,
    delivered: u64,
}

async fn measure(args: &Args, span: Span, came: &Shared) -> Result<Used, Failure> {
    let relay = args.relay_pid.map(clock_of).transpose()?;
    let sample = || -> io::Result<_> {
        let relay = relay.map(read).transpose()?;
        let own = read(libc::CLOCK_PROCESS_CPUTIME_ID)?;
        Ok((relay, own, Instant::now(), came.lock().expect("no task panics").frames))
    };
    sleep_until(span.start + span.content.made(span.from)).await;
    let begun = sample()?;
    sleep_until(span.start + span.content.made(span.to)).await;
    let ended = sample()?;
    sleep_until(span.start + span.content.made(span.to) + PATIENCE).await;
    Ok(Used {
        relay: ended.0.zip(begun.0).map(|(ended, begun)| ended - begun),
        own: ended.1 - begun.1,
        time: ended.2 - begun.2,
        delivered: ended.3 - begun.3,
    })
}

/// The clock of what a process uses of CPUs: /proc has it in ticks of 10 ms only.
fn clock_of(process: libc::pid_t) -> Result<libc::clockid_t, Failure> {
    let mut clock = 0;
    // SAFETY: it writes one clock ID, for which there is room.
    match unsafe { libc::clock_getcpuclockid(process, &mut clock) } {
        0 => Ok(clock),
        _ => Err(format!("there is no process {process} to measure").into()),
    }
}

fn read(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes one time, for which there is room.
    match unsafe { libc::clock_gettime(clock, &mut time) } {
        0 => Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32)),
        _ => Err(io::Error::last_os_error()),
    }
}

fn client(url: &Url) -> Result<Client, Failure> {
    let mut config = connect::Config::default();
    config.websocket.enabled = Some(url.scheme().starts_with("ws"));
    config.tls.insecure = Some(true);
    // A session that ends is a finding.
    config.once = Some(true);
    config.bind = Some(([127, 0, 0, 1], 0).into());
    config.version = vec!["moq-lite-06".parse()?];
    Ok(config.init(Default::default())?)
}

async fn session(client: Client, url: &Url) -> Result<Connection, Failure> {
    Ok(soon("a session", client.connect(url.clone()).established()).await??)
}

/// A viewer in place.
async fn view(
    client: &Client,
    url: &Url,
    max_age: Duration,
) -> Result<(Connection, track::Subscriber), Failure> {
    let receives = moq_tokio::origin::spawn_config(origin::Config::new(Hop::random()));
    let views = receives.consume();
    let mut announced = views.announced();
    let session = session(client.clone().with_subscriber(receives), url).await?;
    soon("its announcement", announced.next()).await?.ok_or("a viewer's session is over")?;
    let shelf = soon("the broadcast", views.request_broadcast(PATH)).await??.track(TRACK)?;
    let wanted = track::Subscription::default().with_max_age(max_age);
    let subscriber = soon("the track", shelf.subscribe(wanted)).await??;
    Ok((session, subscriber))
}

async fn soon<T>(what: &str, event: impl Future<Output = T>) -> Result<T, String> {
    let event = tokio::time::timeout(START_WITHIN, event).await;
    event.map_err(|_| format!("waited {START_WITHIN:?} for {what}"))
}

/// Makes each frame at its time.
async fn film(track: track::Producer, span: Span) -> Result<Infallible, Failure> {
    let mut group = None;
    for index in 0.. {
        let made = span.content.made(index);
        sleep_until(span.start + made).await;
        let mut payload = vec![0x55; span.content.frame_bytes];
        payload[..8].copy_from_slice(&index.to_be_bytes());
        if group.is_none() {
            group = Some(track.append_group()?);
        }
        let under_way = group.as_mut().expect("there is one now");
        let at = Timestamp::from_micros(made.as_micros() as u64)?;
        under_way.write_frame(at, Bytes::from(payload))?;
        // With its last frame, and not with the first of the next group.
        if (index + 1) % span.content.frames_per_group == 0
            && let Some(whole) = group.take()
        {
            whole.finish()?;
        }
    }
    unreachable!("there are more frames than anybody can make")
}

/// Reads all groups at once: none waits for one before it.
async fn look(
    mut subscriber: track::Subscriber,
    span: Span,
    came: Shared,
) -> Result<Infallible, Failure> {
    while let Some(mut group) = subscriber.recv_group().await? {
        let came = came.clone();
        tokio::spawn(async move {
            let mut frames = 0;
            // A group that is given up is none of those that came whole.
            while let Ok(Some(frame)) = group.read_frame().await {
                let now = Instant::now();
                let index = frame.payload.first_chunk().expect("a frame of ours");
                let index = u64::from_be_bytes(*index);
                let mut came = came.lock().expect("no task panics");
                came.frames += 1;
                if span.counts(index) {
                    frames += 1;
                    came.ages.push(now - (span.start + span.content.made(index)));
                    came.begun += u64::from(frames == 1);
                    came.whole += u64::from(frames == span.content.frames_per_group);
                }
            }
        });
    }
    Err("the track has ended".into())
}

fn line(args: &Args, span: Span, came: &Came, used: &Used) -> String {
    let viewers = u64::from(args.viewers);
    let frames = (span.to - span.from) * viewers;
    let groups = (span.content.group(span.to) - span.content.group(span.from)) * viewers;
    let age = |q: f64| {
        let at = (came.ages.len() as f64 * q) as usize;
        let age = came.ages.get(at.min(came.ages.len().saturating_sub(1)));
        age.map_or("null".to_owned(), |age| format!("{:.2}", age.as_secs_f64() * 1000.0))
    };
    let share = |cpu: Duration| cpu.as_secs_f64() / used.time.as_secs_f64();
    let (relay, cost) = match used.relay {
        Some(cpu) => {
            let cost = cpu.as_secs_f64() * 1e6 / used.delivered as f64;
            (format!("{:.3}", share(cpu)), format!("{cost:.2}"))
        }
        None => ("null".to_owned(), "null".to_owned()),
    };
    format!(
        r#"{{"frames":{frames},"came":{},"relay_us_per_frame":{cost},"relay_cores":{relay},"client_cores":{:.3},"age_ms":{{"p50":{},"p99":{},"max":{}}},"groups":{{"made":{groups},"whole":{},"cut":{},"skipped":{}}}}}"#,
        came.ages.len(),
        share(used.own),
        age(0.5),
        age(0.99),
        age(1.0),
        came.whole,
        came.begun - came.whole,
        groups - came.begun,
    )
}
