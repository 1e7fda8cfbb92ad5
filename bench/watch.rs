//! What a viewer sees of a track over real sockets: a released client publishes it, another one watches
//! it, and either may be behind `shardcast-link`. Prints one line of JSON. `scripts/links.sh` uses it.

#[path = "../tests/support/watch.rs"]
mod watch;

use std::time::Duration;

use clap::{Parser, ValueEnum};
use url::Url;
use watch::{Failure, Seen, Video};

/// How late the frames of a track are that come over real sockets
///
/// A released client publishes the track at one address, another one watches it at the other and wants
/// nothing that is older than two seconds. Prints as JSON how many frames were made, which share of them
/// came within 200 ms and within a second, and quantiles in milliseconds, of those that came within a
/// second and of all that came.
#[derive(Debug, Parser)]
#[command(name = "watch", max_term_width = 100)]
struct Args {
    /// Where the track is published, as moqt://127.0.0.1:4443; any certificate is taken
    #[arg(long, value_name = "URL")]
    publish: Url,

    /// Where it is watched
    #[arg(long, value_name = "URL")]
    watch: Url,

    /// 60 frames of 4096 bytes per second, or 30 of 12,500; a group each second
    #[arg(long, value_enum, default_value = "2m")]
    track: Track,

    /// Seconds that are counted
    #[arg(long, default_value_t = 12, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    duration: u64,

    /// Seconds before that
    #[arg(long, default_value_t = 1, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    warmup: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Track {
    #[value(name = "2m")]
    M2,
    #[value(name = "3m")]
    M3,
}

const PATH: &str = "live/cam";

const SOON: Duration = Duration::from_millis(200);
const IN_TIME: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let video = match args.track {
        Track::M2 => Video::M2,
        Track::M3 => Video::M3,
    };
    let [warmup, lasts] = [args.warmup, args.duration].map(Duration::from_secs);
    let seen = watch::watch(&args.publish, &args.watch, PATH, video, warmup, lasts).await?;
    println!("{}", line(&seen));
    Ok(())
}

fn line(seen: &Seen) -> String {
    let quantiles = |time: Duration| {
        let quantile = |(name, q): (&str, f64)| match seen.quantile(q, time) {
            Some(late) => format!(r#""{name}":{:.1}"#, late.as_secs_f64() * 1000.0),
            None => format!(r#""{name}":null"#),
        };
        [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)].map(quantile).join(",")
    };
    format!(
        r#"{{"frames":{},"came":{},"within_200_ms":{:.4},"within_1_s":{:.4},"in_time_ms":{{{}}},"all_ms":{{{}}}}}"#,
        seen.made,
        seen.late.len(),
        seen.within(SOON),
        seen.within(IN_TIME),
        quantiles(IN_TIME),
        quantiles(Duration::MAX)
    )
}
