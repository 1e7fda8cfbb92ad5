//! What viewers get over links that lose, delay, narrow and change, with each congestion control: the
//! whole relay in the simulated world, so that it is exact and takes no time.
//!
//!     cargo bench --bench links                          the table of docs/PERFORMANCE.md
//!     cargo bench --bench links -- 1.6M delay none       rows with this in their names, these controls
//!     cargo bench --bench links -- seeds=2               fewer seeds
//!
//! Every figure is the median of what it is with each seed. Latencies are those of frames that come
//! within a second; the others, and those that never come, are late. The queue is the bottleneck's, as
//! the viewers' datagrams find it. A figure beyond its target is marked.

#[path = "../tests/support/simulated.rs"]
mod support;

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{BbrConfig, Controller, ControllerFactory};
use shardcast::quic::{CongestionControl, Controllers};
use shardcast::wire::{Preferences, Version};
use shardcast_link::link::{Link, Queue, Spell, What, exponential};
use support::network::{Random, Weather};
use support::peer::{End, Spec};
use support::world::{Stage, Sub, World, live, ms};

/// Each link and track is played with so many seeds, from 1 on.
const SEEDS: u64 = 8;
/// From where on it counts what the publisher sends: the viewers come a moment before.
const JOINED_AFTER: Duration = Duration::from_millis(1500);
const COUNTED_AFTER: Duration = Duration::from_secs(4);
/// What is then still under way may come.
const PATIENCE: Duration = Duration::from_secs(4);

/// What a viewer asks for, and what is of use to him.
const MAX_AGE_MS: u64 = 2000;
const LATE: f64 = 1000.0;
/// After something that held it up, a link is good again once frames come within so many milliseconds.
const BACK: f64 = 60.0;

/// Of a full datagram on the links here.
const PACKET: u64 = 1452;

struct Track {
    frames_per_second: u32,
    frame_bytes: usize,
    frames_per_group: u32,
    /// The first frame of a group is so many times as large.
    first: usize,
}

const fn track(frames_per_second: u32, frame_bytes: usize, frames_per_group: u32) -> Track {
    Track { frames_per_second, frame_bytes, frames_per_group, first: 1 }
}

const M2: Track = track(60, 4096, 60);
const M3: Track = track(30, 12_500, 30);
const M10: Track = track(30, 41_667, 30);
const KEYED: Track = Track { first: 8, ..track(30, 10_135, 30) };
const AUDIO: Track = track(20, 300, 1);

/// Figures that should not be exceeded, where there is one. Latencies in milliseconds.
#[derive(Clone, Copy)]
struct Target {
    p50: f64,
    p99: f64,
    late: f64,
    queue50: f64,
    queue95: f64,
    back: f64,
    first: f64,
    /// These should not be less.
    beside: f64,
    jain: f64,
}

const ANY: Target = Target {
    p50: f64::INFINITY,
    p99: f64::INFINITY,
    late: f64::INFINITY,
    queue50: f64::INFINITY,
    queue95: f64::INFINITY,
    back: f64::INFINITY,
    first: f64::INFINITY,
    beside: 0.0,
    jain: 0.0,
};

struct Row {
    name: &'static str,
    link: Link,
    weather: Weather,
    track: Track,
    lasts: Duration,
    viewers: usize,
    /// There is a download through the same bottleneck.
    beside: bool,
    /// When it is good again.
    back: Vec<Duration>,
    /// The link and its length allow one best window.
    has_oracle: bool,
    target: Target,
}

#[derive(Clone, Copy, PartialEq)]
enum Control {
    /// No controller.
    None,
    /// One window that is what the path holds and five packets.
    Oracle,
    /// quinn-proto's.
    Bbr,
    Ours(CongestionControl),
}

const CONTROLS: [Control; 5] = [
    Control::None,
    Control::Oracle,
    Control::Bbr,
    Control::Ours(CongestionControl::Loss),
    Control::Ours(CongestionControl::Delay),
];

impl Control {
    fn name(self) -> &'static str {
        match self {
            Control::None => "none",
            Control::Oracle => "oracle",
            Control::Bbr => "bbr",
            Control::Ours(control) => control.name(),
        }
    }

    fn controllers(self, row: &Row) -> Controllers {
        match self {
            Control::None => Arc::new(Fixed(u64::MAX)),
            Control::Oracle => {
                let rtt = 2 * row.weather.latency + row.weather.jitter;
                let held = row.link.rate[0].1 as f64 * rtt.as_secs_f64();
                Arc::new(Fixed(held as u64 + 5 * PACKET))
            }
            Control::Bbr => Arc::new(BbrConfig::default()),
            Control::Ours(control) => control.controllers(),
        }
    }
}

/// A window that nothing changes.
#[derive(Clone)]
struct Fixed(u64);

impl ControllerFactory for Fixed {
    fn build(self: Arc<Self>, _: Instant, _: u16) -> Box<dyn Controller> {
        Box::new(Fixed(self.0))
    }
}

impl Controller for Fixed {
    fn on_ack(&mut self, _: Instant, _: Instant, _: u64, _: bool, _: &RttEstimator) {}
    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, _: u64) {}
    fn on_mtu_update(&mut self, _: u16) {}

    fn window(&self) -> u64 {
        self.0
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.0
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let (mut controls, mut names, mut seeds) = (Vec::new(), Vec::new(), SEEDS);
    for word in &words {
        let control = CONTROLS.into_iter().find(|control| control.name() == word);
        match word.strip_prefix("seeds=") {
            Some(count) => seeds = count.parse().expect("seeds=NUMBER"),
            None if control.is_some() => controls.extend(control),
            None => names.push(word),
        }
    }
    if controls.is_empty() {
        controls.extend(CONTROLS);
    }
    println!(
        "{:38} {:6} {:>6} {:>6} {:>8} {:>6} {:>6} {:>6} {:>6} {:>7} {:>6}",
        "link (rate, one way, loss, jitter), track",
        "",
        "p50",
        "p99",
        "late",
        "queue",
        "95 %",
        "back",
        "first",
        "beside",
        "Jain"
    );
    // Rows are drawn from the seed too; all have the same names and targets.
    for (at, row) in rows(0).iter().enumerate() {
        if !names.is_empty() && !names.iter().any(|name| row.name.contains(name.as_str())) {
            continue;
        }
        for control in &controls {
            if *control == Control::Oracle && !row.has_oracle {
                continue;
            }
            let seen: Vec<Seen> =
                (1..=seeds).map(|seed| play(seed, &rows(seed)[at], *control)).collect();
            println!("{:38} {:6} {}", row.name, control.name(), summary(&seen, &row.target));
        }
    }
}

// ---- links ----

/// Kilobits per second as bytes per second.
const fn kbit(rate: u64) -> u64 {
    rate * 125
}

fn row(name: &'static str, kbits: u64, queue: u64, latency: u64, track: Track) -> Row {
    Row {
        name,
        link: Link::of(kbit(kbits), ms(queue)),
        weather: Weather { latency: ms(latency), ..Weather::FAIR },
        track,
        lasts: Duration::from_secs(20),
        viewers: 1,
        beside: false,
        back: Vec::new(),
        has_oracle: true,
        target: ANY,
    }
}

impl Row {
    /// Shares per mille.
    fn losing(mut self, share: u64, jitter: u64) -> Row {
        (self.weather.lost_down, self.weather.lost_up) = (share, share);
        self.weather.jitter = ms(jitter);
        self
    }

    fn changing(mut self, change: impl FnOnce(Link) -> Link) -> Row {
        self.link = change(self.link);
        self.has_oracle = false;
        self
    }

    fn beside(self) -> Row {
        Row { beside: true, has_oracle: false, ..self }
    }

    fn among(self, viewers: usize) -> Row {
        Row { viewers, has_oracle: false, ..self }
    }

    fn target(self, target: Target) -> Row {
        Row { target, ..self }
    }
}

/// Everything is lost for a while now and then (Gilbert and Elliott's chain, in time).
fn bad(seed: u64, every: Duration, lasts: Duration) -> impl FnOnce(Link) -> Link {
    let (mut gaps, mut times) = (Random::new(seed), Random::new(!seed));
    move |link| {
        let gap = || exponential(&mut gaps, every - lasts);
        let lasts = || exponential(&mut times, lasts);
        link.with_spells(What::Lost, Duration::from_secs(20), gap, lasts)
    }
}

fn rows(seed: u64) -> Vec<Row> {
    let random = &mut Random::new(seed ^ 0x11_4b);
    let second = Duration::from_secs(1);
    let p99 = |p99: f64| Target { p99, late: 0.0, ..ANY };
    let (mut gaps, mut times) = (Random::new(random.next()), Random::new(random.next()));
    let stalls = |link: Link| {
        let gap = || exponential(&mut gaps, 2 * second);
        let lasts = || ms(30) + exponential(&mut times, ms(40));
        link.with_spells(What::Stalled, 20 * second, gap, lasts)
    };
    let starlink = |link: Link| {
        let step = |n: u32| (15 * n * second, ms(if n.is_multiple_of(2) { 0 } else { 20 }));
        let handover = |n: u32| Spell {
            from: 15 * n * second,
            until: 15 * n * second + ms(80),
            what: What::Held,
            is_both_ways: true,
        };
        Link {
            detour: (0..4).map(step).collect(),
            spells: (1..4).map(handover).collect(),
            in_order: true,
            ..link
        }
    };
    let mut rate = kbit(8000) as f64;
    let walk = |n: u32| {
        let change = 0.75 + 0.5 * random.below(1 << 20) as f64 / (1 << 20) as f64;
        rate = (rate * change).clamp(kbit(2000) as f64, kbit(40_000) as f64);
        (n * ms(100), rate as u64)
    };
    let walk: Vec<(Duration, u64)> = (0..300).map(walk).collect();
    let down_up = |link: Link| {
        let rate = [(0, 20_000), (7, 1600), (13, 20_000)];
        Link { rate: rate.map(|(at, rate)| (at * second, kbit(rate))).to_vec(), ..link }
    };
    let out = |what: What| {
        move |link: Link| {
            let spell = |at: u32| Spell {
                from: at * second,
                until: at * second + ms(500),
                what,
                is_both_ways: true,
            };
            Link { spells: [6, 11, 16].map(spell).to_vec(), ..link }
        }
    };
    let out_ends: Vec<Duration> = [6, 11, 16].map(|at| at * second + ms(500)).to_vec();
    let lossy = |name, track| row(name, 8000, 100, 40, track).losing(20, 10);
    let far = |name, track| row(name, 20_000, 100, 100, track).losing(50, 5);
    vec![
        row("20M 20 ms, 2M", 20_000, 100, 20, M2).target(Target { p50: 24.2, ..p99(24.2) }),
        row("20M 20 ms, 3M", 20_000, 100, 20, M3).target(Target { first: 110.0, ..p99(30.0) }),
        row("20M 100 ms, 3M", 20_000, 100, 100, M3).target(Target { first: 450.0, ..p99(118.0) }),
        row("20M 20 ms 1 % 3 ms, 2M", 20_000, 100, 20, M2).losing(10, 3).target(p99(90.0)),
        lossy("8M 40 ms 2 % 10 ms, 2M", M2).target(p99(220.0)),
        lossy("8M 40 ms 2 % 10 ms, 3M", M3).target(p99(220.0)),
        far("20M 100 ms 5 % 5 ms, 2M", M2).target(p99(620.0)),
        far("20M 100 ms 5 % 5 ms, 3M", M3).target(p99(620.0)),
        row("20M 20 ms, bad 10 of 500 ms, 2M", 20_000, 100, 20, M2)
            .changing(bad(random.next(), ms(500), ms(10)))
            .target(p99(90.0)),
        row("20M 40 ms, bad 40 of 800 ms, 2M", 20_000, 100, 40, M2)
            .changing(bad(random.next(), ms(800), ms(40)))
            .target(p99(210.0)),
        row("Wi-Fi: stalls of 30 + 40 ms, 10 ms, 3M", 20_000, 100, 10, M3)
            .changing(stalls)
            .target(p99(130.0)),
        Row {
            lasts: 50 * second,
            ..row("Starlink: 40 ms, 1 %, handovers, 3M", 20_000, 100, 40, M3)
                .losing(10, 0)
                .changing(starlink)
                .target(p99(250.0))
        },
        row("LTE: 2–40M, 30 ms, 3M", 20_000, 500, 30, M3)
            .changing(|link| Link { rate: walk, ..link })
            .target(Target { queue95: 120.0, late: 15.0, ..ANY }),
        row("4M 40 ms 2 ms, 3M", 4000, 100, 40, M3).losing(0, 2).target(p99(80.0)),
        row("1.6M 40 ms, 2M", 1600, 500, 40, M2).losing(0, 2).target(Target {
            p50: 225.0,
            p99: 380.0,
            late: 22.5,
            queue50: 40.0,
            queue95: 75.0,
            ..ANY
        }),
        row("1.6M 40 ms, 3M", 1600, 500, 40, M3).losing(0, 2).target(Target { late: 49.0, ..ANY }),
        row("5M 50 ms, 10M", 5000, 500, 50, M10).target(Target {
            queue95: 60.0,
            late: 55.0,
            ..ANY
        }),
        row("1.6M 40 ms, buffer 50 ms, 2M", 1600, 50, 40, M2).target(Target { late: 27.0, ..ANY }),
        row("1.6M 40 ms, buffer of 8 packets, 2M", 1600, 0, 40, M2)
            .changing(|link| Link { queue: Queue::Bytes(8 * PACKET), ..link }),
        Row {
            back: vec![13 * second],
            ..row("20 → 1.6 → 20M 20 ms, 2M", 20_000, 500, 20, M2)
                .changing(down_up)
                .target(Target { queue95: 60.0, back: 100.0, ..ANY })
        },
        Row {
            back: out_ends.clone(),
            ..row("20M 20 ms, out 500 ms, kept, 2M", 20_000, 500, 20, M2)
                .changing(out(What::Held))
                .target(Target { back: 200.0, ..ANY })
        },
        Row {
            back: out_ends,
            ..row("20M 20 ms, out 500 ms, dropped, 2M", 20_000, 100, 20, M2)
                .changing(out(What::Lost))
                .target(Target { back: 150.0, ..ANY })
        },
        row("5M 20 ms, beside a download, 3M", 5000, 150, 20, M3).beside().target(Target {
            late: 15.0,
            beside: 2.0,
            ..ANY
        }),
        row("10M 20 ms, beside, queue 100, 3M", 10_000, 100, 20, M3)
            .beside()
            .target(Target { late: 16.0, ..ANY }),
        row("10M 20 ms, beside, queue 300, 3M", 10_000, 300, 20, M3)
            .beside()
            .target(Target { late: 40.0, ..ANY }),
        row("8 viewers on 12M 20 ms, 2M", 12_000, 500, 20, M2).among(8).target(Target {
            queue95: 80.0,
            jain: 0.97,
            ..ANY
        }),
        // The frames of all come at once, and the last has to wait for 13 ms.
        row("8 viewers on 20M 20 ms, 2M", 20_000, 100, 20, M2).among(8).target(p99(37.0)),
        row("2 viewers on 3M 20 ms, 2M", 3000, 500, 20, M2).among(2).target(Target {
            queue95: 80.0,
            jain: 0.97,
            ..ANY
        }),
        row("32 viewers on 48M 20 ms, 2M", 48_000, 500, 20, M2).among(32).target(Target {
            queue95: 80.0,
            jain: 0.97,
            ..ANY
        }),
        row("6M 50 ms, first frames × 8, 3M", 6000, 300, 50, KEYED).target(p99(200.0)),
        row("8M 40 ms 2 % 10 ms, audio", 8000, 100, 40, AUDIO).losing(20, 10).target(p99(190.0)),
    ]
}

// ---- plays ----

/// What came of one play. Latencies in milliseconds.
struct Seen {
    p50: f64,
    p99: f64,
    /// Per cent.
    late: f64,
    queue50: f64,
    queue95: f64,
    back: f64,
    first: f64,
    /// What the download got, in Mb/s.
    beside: f64,
    /// Of what viewers got (Jain's index: 1 if all got the same).
    jain: f64,
}

fn play(seed: u64, row: &Row, control: Control) -> Seen {
    let mut world = World::with_controllers(Stage::new(seed, 1), control.controllers(row));
    world.groups_expire = true;
    let camera = world.publisher(Version::Lite06, 0, "live/cam", "video");
    let wanted = Preferences { max_age_ms: MAX_AGE_MS, ..live() };
    // Somebody has the track already: the relay need not ask for it when those come who count.
    let near = world.viewer(Version::Lite06, 0);
    world.subscribe(near, "live/cam", "video", wanted);
    let started = world.now;
    let link = world.network.lay(started, row.link.clone());
    let weather = Weather { link: Some(link), ..row.weather };

    let (track, gap) = (&row.track, Duration::from_secs(1) / row.track.frames_per_second);
    let mut sent = Vec::new();
    let mut subs: Vec<(Instant, Sub)> = Vec::new();
    let mut download = None;
    for n in 0..(row.lasts.as_secs() as u32 * track.frames_per_second) {
        let (group, frame) = (u64::from(n / track.frames_per_group), n % track.frames_per_group);
        let is_first = frame == 0;
        if is_first {
            world.open_group(camera, group);
        }
        // Joining takes time; the camera does not wait.
        let due = started + n * gap;
        if due > world.now {
            world.run(due - world.now);
        }
        let bytes = track.frame_bytes * if is_first { track.first } else { 1 };
        let at = (world.now - started).as_millis() as u64;
        world.frame_at(camera, group, at, bytes);
        sent.push((group, frame as usize, world.now));
        if frame + 1 == track.frames_per_group {
            world.end_group(camera, group, End::Finished);
        }
        if subs.is_empty() && world.now >= started + JOINED_AFTER {
            let spec = Spec { weather, ..Spec::new(Version::Lite06, 0) };
            let viewers: Vec<usize> =
                (0..row.viewers).map(|_| world.arrive(spec.clone())).collect();
            let is_up = |world: &World| viewers.iter().all(|peer| world.peers[*peer].is_up());
            assert!(world.run_until(ms(10_000), is_up), "viewers connect");
            for viewer in viewers {
                subs.push((world.now, world.subscribe(viewer, "live/cam", "video", wanted)));
            }
            if row.beside {
                // When it begins is what tells one play from another.
                let later = Duration::from_millis(world.random.below(1000));
                world.run(later);
                download = Some(world.network.download(world.now, link, row.weather.latency));
            }
        }
    }
    world.run(PATIENCE);
    let counted = started + COUNTED_AFTER..started + row.lasts;

    let (mut latencies, mut first, mut backs, mut shares) = (vec![], vec![], vec![], vec![]);
    let mut late = 0;
    for (joined, sub) in &subs {
        let mut earliest = f64::INFINITY;
        let mut got = 0.0;
        let mut fresh: Vec<(Instant, bool)> = Vec::new();
        for (group, frame, sent) in &sent {
            // The way to the relay is not what is measured.
            let here = *sent + Weather::FAIR.latency;
            let millis = |from, to: Instant| to.saturating_duration_since(from).as_secs_f64() * 1e3;
            let latency = world.came(*sub, *group, *frame).map(|came| {
                earliest = earliest.min(millis(*joined, came));
                millis(here, came)
            });
            fresh.push((*sent, latency.is_some_and(|latency| latency <= BACK)));
            if !counted.contains(sent) {
                continue;
            }
            match latency.filter(|latency| *latency <= LATE) {
                Some(latency) => {
                    latencies.push(latency);
                    got += 1.0;
                }
                None => late += 1,
            }
        }
        first.push(earliest);
        shares.push(got);
        for back in &row.back {
            let back = started + *back;
            let after = fresh.iter().filter(|(sent, _)| *sent > back && *sent < back + ms(3000));
            let stale = after.rev().find(|(_, is_fresh)| !is_fresh);
            backs.push(stale.map_or(0.0, |(sent, _)| (*sent + gap - back).as_secs_f64() * 1e3));
        }
    }
    let all = latencies.len() + late;
    let mut waits: Vec<f64> = world
        .network
        .waited
        .iter()
        .filter(|(_, waited)| counted.contains(&waited.at))
        .map(|(_, waited)| waited.time.as_secs_f64() * 1e3)
        .collect();
    let beside = download.map_or(f64::NAN, |download| {
        let downloaded = world.network.downloaded(download).iter();
        let bytes: usize =
            downloaded.filter(|(at, _)| counted.contains(at)).map(|(_, bytes)| bytes).sum();
        bytes as f64 * 8e-6 / (counted.end - counted.start).as_secs_f64()
    });
    let (sum, squares) = (shares.iter().sum::<f64>(), shares.iter().map(|s| s * s).sum::<f64>());
    Seen {
        p50: percentile(&mut latencies, 50),
        p99: percentile(&mut latencies, 99),
        late: 100.0 * late as f64 / all as f64,
        queue50: percentile(&mut waits, 50),
        queue95: percentile(&mut waits, 95),
        back: percentile(&mut backs, 50),
        first: percentile(&mut first, 50),
        beside,
        jain: if subs.len() == 1 { f64::NAN } else { sum * sum / (shares.len() as f64 * squares) },
    }
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() * percent / 100).copied().unwrap_or(f64::NAN)
}

fn summary(plays: &[Seen], target: &Target) -> String {
    let column = |of: fn(&Seen) -> f64, decimals: usize, is_met: &dyn Fn(f64) -> bool| {
        let value = percentile(&mut plays.iter().map(of).collect::<Vec<_>>(), 50);
        match value.is_nan() {
            true => String::from("– "),
            false => format!("{value:.decimals$}{}", if is_met(value) { " " } else { "!" }),
        }
    };
    let below = |target: f64| move |value: f64| value <= target;
    let above = |target: f64| move |value: f64| value >= target;
    format!(
        "{:>6} {:>6} {:>8} {:>6} {:>6} {:>6} {:>6} {:>7} {:>6}",
        column(|seen| seen.p50, 0, &below(target.p50)),
        column(|seen| seen.p99, 0, &below(target.p99)),
        column(|seen| seen.late, 1, &below(target.late + 0.05)),
        column(|seen| seen.queue50, 0, &below(target.queue50)),
        column(|seen| seen.queue95, 0, &below(target.queue95)),
        column(|seen| seen.back, 0, &below(target.back)),
        column(|seen| seen.first, 0, &below(target.first)),
        column(|seen| seen.beside, 2, &above(target.beside)),
        column(|seen| seen.jain, 3, &above(target.jain)),
    )
}
