//! How long mail takes from one shard to another while both are busy: the relay's own pump, parking
//! and mailboxes, and turns that do nothing but take their time.

use std::collections::VecDeque;
use std::hint::spin_loop;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use shardcast::host::allowed_cores;
use shardcast::limits::{LANE_MESSAGES, MAIL_PER_TURN, TURN_INTERVAL_MIN};
use shardcast::mailbox::{Post, mesh};
use shardcast::net::bind_group;
use shardcast::rt::{Next, Parking, pump, spawn_on};

/// Measures mail between two busy shards, each on a core of its own.
///
/// Each works through turns of one length, as often as the load asks for and at random times, and
/// sends the other a piece of mail with every one of them. A delivery lasts from there to the turn
/// that finds it. A row takes as long as --duration.
#[derive(Parser)]
#[command(name = "shardcast-handover")]
struct Args {
    /// Share of its core that each shard works, in percent.
    #[arg(long, default_value_t = 70, value_parser = clap::value_parser!(u32).range(1..=95))]
    load: u32,

    /// Seconds that each row is measured for.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=60))]
    duration: u64,
}

/// Lengths of a turn, in microseconds. Those of a busy relay last half a millisecond
/// (`READERS_PER_TURN`, `SENDERS_PER_TURN`).
const TURNS_US: [u64; 5] = [100, 250, 500, 1000, 2000];

fn main() -> ExitCode {
    let args = Args::parse();
    let cores = allowed_cores();
    let [first, second, ..] = cores[..] else {
        eprintln!("shardcast-handover: two shards need two cores; `taskset -p $$` tells yours");
        return ExitCode::FAILURE;
    };
    println!("two shards on cores {first} and {second}, each {} % busy", args.load);
    println!(
        "{:>8} {:>10} {:>8} {:>8} {:>8}",
        "turn µs", "deliveries", "p50 µs", "p99 µs", "max µs"
    );
    for turn in TURNS_US {
        let plan = Plan {
            turn: Duration::from_micros(turn),
            load: args.load,
            duration: Duration::from_secs(args.duration),
        };
        match measure(plan, [first, second]) {
            Ok(delays) => println!(
                "{turn:>8} {:>10} {:>8} {:>8} {:>8}",
                delays.len(),
                delays.value_at_quantile(0.5),
                delays.value_at_quantile(0.99),
                delays.max()
            ),
            Err(error) => {
                eprintln!("shardcast-handover: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

#[derive(Clone, Copy)]
struct Plan {
    turn: Duration,
    load: u32,
    duration: Duration,
}

/// Delays in microseconds, in both directions.
fn measure(plan: Plan, cores: [usize; 2]) -> Result<Histogram<u64>, Box<dyn std::error::Error>> {
    let (report, reports) = std::sync::mpsc::channel();
    let mut shards = Vec::new();
    for (me, post) in mesh::<Instant>(2, LANE_MESSAGES).into_iter().enumerate() {
        let report = report.clone();
        let main = move || async move {
            let _ = report.send(run(plan, me, post).map_err(|error| error.to_string()));
        };
        shards.push(spawn_on(cores[me], "handover", main)?.wait()?);
    }
    let mut delays = Histogram::new(3)?;
    for shard in shards {
        shard.join().map_err(|_| "a shard panicked; see the message above")?;
        delays.add(reports.recv()??)?;
    }
    Ok(delays)
}

fn run(
    plan: Plan,
    me: usize,
    mut post: Post<Instant>,
) -> Result<Histogram<u64>, Box<dyn std::error::Error>> {
    // Nothing comes by it; a pump watches one.
    let socket = bind_group("127.0.0.1:0".parse()?, 1)?.pop().ok_or("no socket")?;
    let parking = Parking::new(&socket, post.waker())?;
    let mut delays = Histogram::new(3)?;
    let mut random = 1 + me as u64;
    let mut inbox = VecDeque::new();
    let end = Instant::now() + plan.duration;
    let mut due = Instant::now();
    pump(parking, |now| {
        post.take(MAIL_PER_TURN, &mut inbox);
        // Not the turn's `now`: it may have begun before the mail was sent.
        let found = Instant::now();
        for (_, sent) in inbox.drain(..) {
            delays.saturating_record((found - sent).as_micros() as u64);
        }
        let next = if now >= end {
            Next::Stop
        } else if now >= due {
            post.send(1 - me, Instant::now());
            let _ = post.flush();
            while now.elapsed() < plan.turn {
                spin_loop();
            }
            // From half to one and a half of what the load asks for on average.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let share = 0.5 + (random >> 11) as f64 / (1u64 << 53) as f64;
            due += plan.turn.mul_f64(share * 100.0 / f64::from(plan.load));
            Next::Until(due)
        } else {
            Next::Until(due)
        };
        (next, TURN_INTERVAL_MIN)
    });
    Ok(delays)
}
