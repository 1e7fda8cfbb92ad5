//! Runs targets on a stable compiler: the inputs that are kept, then mutations of them. What behaves
//! in a way that was not seen before joins those that are mutated.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{fs, io, panic, thread};

use clap::Parser;

use crate::mutate::mutate;
use crate::random::Random;
use crate::{TARGETS, Target, hex, unhex};

/// Inputs that are mutated; with all that behave differently by some bit it would be most of them.
const POOL_MAX: usize = 5000;

/// An input that takes longer is one that hangs.
const HANG: Duration = Duration::from_secs(10);

/// Processor time that an input may take, of a conversation one step, again and again, where it is measured
/// at all.
const SLOW: Duration = Duration::from_millis(10);

/// How often an input is run again that was slow, to know that it is.
const SLOW_TRIES: usize = 4;

/// More of them would only be more of the same.
const FINDINGS_MAX: u64 = 10;

/// From one line that says how far a run is to the next; longer runs say it less often.
const PROGRESS_MIN: Duration = Duration::from_secs(5);
const PROGRESS_MAX: Duration = Duration::from_secs(60);

/// Fuzzes the parts of shardcast that read what strangers send.
#[derive(Parser)]
#[command(name = "shardcast-fuzz")]
struct Options {
    /// Target to run, and again for more of them; all of them, one after the other, without any
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// How long to run each target
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
    /// How many inputs to run of each target at most
    #[arg(long, value_name = "COUNT", default_value_t = u64::MAX, hide_default_value = true)]
    inputs: u64,
    /// The same seed runs the same inputs
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Run the input in this file and nothing else: bytes, or a line of hex
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Write the kept inputs to DIR/TARGET, a file each, as `cargo fuzz` wants them
    #[arg(long, value_name = "DIR")]
    export: Option<PathBuf>,
}

/// Where a run ends, and what it looks for.
pub struct Limits {
    pub inputs: u64,
    pub seconds: Option<u64>,
    pub seed: u64,
    /// Whether an input that takes too long is a finding.
    pub is_timed: bool,
}

/// What a run has come to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub inputs: u64,
    /// Inputs at which the relay is at fault.
    pub findings: u64,
    /// The most processor time that one took, of conversations one step.
    pub slowest: Duration,
    /// The most bytes that were held at once for one.
    pub largest: usize,
}

/// What is being run, for whoever has to tell of it.
struct Running {
    target: &'static str,
    input: Vec<u8>,
    since: Instant,
}

static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

pub fn main() -> ExitCode {
    let options = Options::parse();
    match start(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("{words}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Options) -> Result<(), String> {
    let named = |name: &String| Target::named(name).ok_or_else(|| no_target(name));
    let mut targets: Vec<&Target> = options.target.iter().map(named).collect::<Result<_, _>>()?;
    if targets.is_empty() {
        targets = const { &TARGETS }.iter().collect();
    }
    if let Some(dir) = &options.export {
        return targets.iter().try_for_each(|target| export(target, dir));
    }
    if let Some(file) = &options.replay {
        let [target] = targets[..] else { return Err("name the --target to replay".to_owned()) };
        return replay(target, file);
    }
    thread::spawn(watch);
    let Options { inputs, seconds, seed, .. } = *options;
    let limits = Limits { inputs, seconds: Some(seconds), seed, is_timed: true };
    let findings: u64 = targets.iter().map(|target| run(target, &limits).findings).sum();
    if findings == 0 { Ok(()) } else { Err(format!("{findings} findings, kept in fuzz/crashes")) }
}

fn no_target(name: &str) -> String {
    let names = TARGETS.map(|target| target.name).join(", ");
    format!("there is no target {name}: there are {names}")
}

fn replay(target: &'static Target, file: &Path) -> Result<(), String> {
    let bytes = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let line = std::str::from_utf8(&bytes).ok().and_then(|text| unhex(text.trim()));
    let input = line.unwrap_or(bytes);
    let mut summary = Summary::default();
    check(target, &input, true, &mut summary);
    println!("{:8} {}", target.name, summary.line());
    if summary.findings == 0 { Ok(()) } else { Err("it is a finding".to_owned()) }
}

fn export(target: &Target, dir: &Path) -> Result<(), String> {
    let dir = dir.join(target.name);
    let write = || -> io::Result<()> {
        fs::create_dir_all(&dir)?;
        let inputs = target.inputs();
        inputs
            .iter()
            .enumerate()
            .try_for_each(|(n, input)| fs::write(dir.join(format!("{n:04}")), input))
    };
    write().map_err(|error| format!("{}: {error}", dir.display()))
}

/// Runs a target to a limit.
pub fn run(target: &'static Target, limits: &Limits) -> Summary {
    let (mut random, mut summary) = (Random::new(limits.seed), Summary::default());
    let (start, mut shown) = (Instant::now(), Instant::now());
    let mut pool = target.inputs();
    let mut known = HashSet::new();
    for input in &pool {
        known.extend(check(target, input, limits.is_timed, &mut summary));
    }
    let kept = pool.len();
    let is_over = |summary: &Summary| {
        summary.findings == FINDINGS_MAX
            || summary.inputs >= limits.inputs.saturating_add(kept as u64)
            || limits.seconds.is_some_and(|seconds| start.elapsed().as_secs() >= seconds)
    };
    while !is_over(&summary) {
        let input = mutate(&pool, target.is_script, &mut random);
        let trace = check(target, &input, limits.is_timed, &mut summary);
        if trace.is_some_and(|trace| known.insert(trace)) {
            if pool.len() == POOL_MAX {
                // Those that are kept stay.
                pool.swap_remove(kept + random.below(POOL_MAX - kept));
            }
            pool.push(input);
        }
        if shown.elapsed() >= (start.elapsed() / 20).clamp(PROGRESS_MIN, PROGRESS_MAX) {
            shown = Instant::now();
            let rate = summary.inputs as f64 / start.elapsed().as_secs_f64();
            println!("{:8} ... {}, {rate:.0} inputs/s", target.name, summary.line());
        }
    }
    println!("{:8} {}, in {} s", target.name, summary.line(), start.elapsed().as_secs());
    summary
}

/// Runs one input: what it led to, if that is as it should be.
fn check(
    target: &'static Target,
    input: &[u8],
    is_timed: bool,
    summary: &mut Summary,
) -> Option<u64> {
    let since = Instant::now();
    set_running(Some(Running { target: target.name, input: input.to_vec(), since }));
    let outcome = panic::catch_unwind(|| target.check(input));
    let mut took = outcome.as_ref().map_or(Duration::ZERO, |ran| ran.took);
    for _ in 0..SLOW_TRIES {
        // What interrupts this thread, or what its caches lack, is not the input's fault.
        if is_timed && took > SLOW / 4 {
            took = took.min(target.check(input).took);
        }
    }
    summary.inputs += 1;
    summary.slowest = summary.slowest.max(took);
    summary.largest = summary.largest.max(outcome.as_ref().map_or(0, |ran| ran.held));
    let is_slow = is_timed && took > SLOW;
    match &outcome {
        Err(_) => tell("The input that did this"),
        Ok(_) if is_slow => tell(&format!("An input that takes {took:?}")),
        Ok(_) => set_running(None),
    }
    summary.findings += u64::from(is_slow || outcome.is_err());
    outcome.ok().map(|ran| ran.trace)
}

fn set_running(running: Option<Running>) {
    *RUNNING.lock().expect("nobody panics with it") = running;
}

/// Notices an input that hangs.
fn watch() {
    loop {
        thread::sleep(HANG / 10);
        let running = RUNNING.lock().expect("nobody panics with it");
        if running.as_ref().is_some_and(|running| running.since.elapsed() > HANG) {
            drop(running);
            tell(&format!("The input that takes more than {HANG:?}"));
            std::process::exit(1);
        }
    }
}

/// Keeps the input that runs and says how to run it again.
fn tell(what: &str) {
    let Ok(mut running) = RUNNING.lock() else { return };
    let Some(Running { target, input, .. }) = running.take() else { return };
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("crashes");
    let file = dir.join(format!("{target}-{:016x}", Random::new(sum(&input)).next()));
    match fs::create_dir_all(&dir).and_then(|()| fs::write(&file, hex(&input) + "\n")) {
        Ok(()) => eprintln!(
            "{what} is in {file}; to run it again:\n  \
             cargo run --profile fuzz -p shardcast-fuzz -- \
             --target {target} --replay {file}\n\
             To have every test run it, add the line to fuzz/corpus/{target}.txt.",
            file = file.display()
        ),
        Err(error) => eprintln!("{what}, which cannot be written ({error}): {}", hex(&input)),
    }
}

fn sum(input: &[u8]) -> u64 {
    input.iter().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

impl Summary {
    fn line(&self) -> String {
        format!(
            "{} inputs, {} findings, slowest {:.1} ms, largest allocation {} KiB",
            self.inputs,
            self.findings,
            self.slowest.as_secs_f64() * 1000.0,
            self.largest.div_ceil(1024)
        )
    }
}
