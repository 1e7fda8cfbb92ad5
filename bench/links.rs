//! What one viewer gets over links that lose, delay and narrow, with each congestion control: the
//! whole relay in the simulated world, so that it is exact and takes no time.
//! `cargo bench --bench links` prints the table of `docs/PERFORMANCE.md`.

#[path = "../tests/support"]
mod support {
    #[allow(dead_code, reason = "a part of what all plays share")]
    pub mod http3;
    #[allow(dead_code, reason = "a part of what all plays share")]
    pub mod network;
    #[allow(dead_code, reason = "a part of what all plays share")]
    pub mod peer;
    #[allow(dead_code, reason = "a part of what all plays share")]
    pub mod world;
}

use std::time::{Duration, Instant};

use shardcast::quic::CongestionControl;
use shardcast::wire::Version;
use support::network::Weather;
use support::peer::{End, Spec};
use support::world::{Stage, World, live, ms};

/// Each link and track is played with these seeds.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=8;
/// What the publisher sends, and from where on it counts: the viewer comes a moment before.
const PLAYED: Duration = Duration::from_secs(20);
const JOINED_AFTER: Duration = Duration::from_millis(1500);
const COUNTED_AFTER: Duration = Duration::from_secs(4);
/// What is then still under way may come.
const PATIENCE: Duration = Duration::from_secs(4);

struct Track {
    name: &'static str,
    frames_per_second: u32,
    frame_bytes: usize,
    frames_per_group: u32,
}

const TRACKS: [Track; 3] = [
    Track {
        name: "60/s × 4096 B", frames_per_second: 60, frame_bytes: 4096, frames_per_group: 60
    },
    Track {
        name: "30/s × 12.5 kB",
        frames_per_second: 30,
        frame_bytes: 12_500,
        frames_per_group: 30,
    },
    Track {
        name: "20/s × 300 B, a group each",
        frames_per_second: 20,
        frame_bytes: 300,
        frames_per_group: 1,
    },
];

fn main() {
    let links = links();
    println!(
        "{:42} {:28} {:6} {:>8} {:>8} {:>9} {:>8}",
        "link (bandwidth, one way, loss, jitter)",
        "track",
        "",
        "p50 ms",
        "p99 ms",
        "missing",
        "first"
    );
    for track in &TRACKS {
        for (link, weather) in &links {
            for control in CongestionControl::ALL {
                let seen: Vec<Seen> =
                    SEEDS.map(|seed| play(seed, *weather, track, control)).collect();
                println!("{link:42} {:28} {:6} {}", track.name, control.name(), summary(&seen));
            }
        }
    }
}

fn links() -> Vec<(&'static str, Weather)> {
    let link = |kbytes_per_second: u32, latency, loss_per_mille, jitter| Weather {
        latency: ms(latency),
        jitter: ms(jitter),
        lost_down: loss_per_mille,
        lost_up: loss_per_mille,
        down_bytes_per_second: Some(kbytes_per_second * 1000),
        ..Weather::FAIR
    };
    vec![
        ("20 Mb/s, 20 ms", link(2500, 20, 0, 0)),
        ("20 Mb/s, 20 ms, 1 %, 3 ms", link(2500, 20, 10, 3)),
        ("8 Mb/s, 40 ms, 2 %, 10 ms", link(1000, 40, 20, 10)),
        ("20 Mb/s, 100 ms, 0.5 %, 5 ms", link(2500, 100, 5, 5)),
        ("20 Mb/s, 100 ms, 5 %, 5 ms", link(2500, 100, 50, 5)),
        ("4 Mb/s, 40 ms, 2 ms jitter", link(500, 40, 0, 2)),
        ("1.6 Mb/s, 40 ms, 2 ms jitter", link(200, 40, 0, 2)),
    ]
}

/// What came of one play.
struct Seen {
    /// Of each frame that came, in milliseconds.
    latencies: Vec<f64>,
    missing: usize,
    /// From asking to the first frame, in milliseconds.
    first: f64,
}

fn play(seed: u64, weather: Weather, track: &Track, control: CongestionControl) -> Seen {
    let stage = Stage { congestion_control: control, ..Stage::new(seed, 1) };
    let mut world = World::new(stage);
    let camera = world.publisher(Version::Lite06, 0, "live/cam", "video");
    let started = world.now;
    let gap = Duration::from_secs(1) / track.frames_per_second;
    let mut sent = Vec::new();
    let mut asked = None;
    for n in 0..(PLAYED.as_secs() as u32 * track.frames_per_second) {
        let (group, frame) = (u64::from(n / track.frames_per_group), n % track.frames_per_group);
        if frame == 0 {
            world.open_group(camera, group);
        }
        world.frame(camera, group, track.frame_bytes);
        sent.push((group, frame as usize, world.now));
        if frame + 1 == track.frames_per_group {
            world.end_group(camera, group, End::Finished);
        }
        if asked.is_none() && world.now >= started + JOINED_AFTER {
            let viewer = world.join(Spec { weather, ..Spec::new(Version::Lite06, 0) });
            asked = Some((world.now, world.subscribe(viewer, "live/cam", "video", live())));
        }
        world.run(gap);
    }
    world.run(PATIENCE);

    let (joined, subscription) = asked.expect("the play is longer than that");
    let late = |from, to: Instant| to.duration_since(from).as_secs_f64() * 1e3;
    let mut seen = Seen { latencies: Vec::new(), missing: 0, first: f64::INFINITY };
    for (group, frame, sent) in sent {
        let came = world.came(subscription, group, frame);
        if let Some(came) = came {
            seen.first = seen.first.min(late(joined, came));
        }
        if sent >= started + COUNTED_AFTER {
            match came {
                Some(came) => seen.latencies.push(late(sent, came)),
                None => seen.missing += 1,
            }
        }
    }
    seen
}

fn summary(plays: &[Seen]) -> String {
    let mut latencies: Vec<f64> = plays.iter().flat_map(|seen| seen.latencies.clone()).collect();
    let mut firsts: Vec<f64> = plays.iter().map(|seen| seen.first).collect();
    latencies.sort_by(f64::total_cmp);
    firsts.sort_by(f64::total_cmp);
    let missing: usize = plays.iter().map(|seen| seen.missing).sum();
    let share = 100.0 * missing as f64 / (missing + latencies.len()) as f64;
    let of = |values: &[f64], percent: usize| {
        values.get(values.len() * percent / 100).copied().unwrap_or(f64::NAN)
    };
    format!(
        "{:8.0} {:8.0} {share:7.1} % {:8.0}",
        of(&latencies, 50),
        of(&latencies, 99),
        of(&firsts, 50)
    )
}
