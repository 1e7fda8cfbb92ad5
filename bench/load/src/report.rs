//! What is told: a live display, JSON lines for programs, and a summary for people.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use hdrhistogram::{Counter, Histogram};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::clock::SECOND;
use crate::measure::Measure;
use crate::run::{Outcome, RunError, Settings, Stage, Used, Watch};
use crate::scenario::Scenario;

/// From this share of its core on, the client may be what is measured.
const BUSY_SHARE: f64 = 0.85;

/// From this lag on, in microseconds, others on its core have kept it waiting.
const LAG_US_MAX: u64 = 10_000;

/// Where JSON lines go, if anywhere.
pub struct Lines(Option<Box<dyn Write>>);

impl Lines {
    pub fn none() -> Lines {
        Lines(None)
    }

    pub fn to_stdout() -> Lines {
        Lines(Some(Box::new(io::stdout())))
    }

    pub fn to_file(path: &Path) -> io::Result<Lines> {
        Ok(Lines(Some(Box::new(File::create(path)?))))
    }

    pub fn write(&mut self, line: &Value) -> io::Result<()> {
        let Some(out) = &mut self.0 else { return Ok(()) };
        writeln!(out, "{line}")?;
        out.flush()
    }
}

pub fn start_line(scenario: &Scenario, settings: &Settings, url: &str) -> Value {
    json!({
        "type": "start",
        "scenario": scenario.name,
        "version": version(settings),
        "url": url,
        "duration_s": settings.duration.as_secs_f64(),
        "warmup_s": settings.warmup.as_secs_f64(),
        "seed": settings.seed,
        "publishers": scenario.publishers + scenario.users,
        "viewers": scenario.watchers(),
        "tracks": scenario.tracks,
    })
}

fn version(settings: &Settings) -> &'static str {
    // What follows "moq-lite-".
    settings.version.alpn().rsplit('-').next().expect("a string has a last piece")
}

fn second_line(second: usize, measure: &Measure, relay_cpu_share: Option<f64>) -> Value {
    let frames = &measure.frames.seconds[second];
    let mut line = Map::new();
    line.insert("type".into(), "second".into());
    line.insert("second".into(), second.into());
    line.insert("delivered".into(), frames.len().into());
    insert_latency(&mut line, "latency_us", frames);
    let announcements = &measure.announcements.seconds[second];
    if !announcements.is_empty() {
        line.insert("announcements".into(), announcements.len().into());
        insert_latency(&mut line, "latency_us", announcements);
    }
    let fetches = &measure.fetches.seconds[second];
    if !fetches.is_empty() {
        line.insert("fetched_groups".into(), fetches.len().into());
        insert_latency(&mut line, "fetch_latency_us", fetches);
    }
    if let Some(share) = relay_cpu_share {
        line.insert("relay_cpu_share".into(), rounded(share));
    }
    Value::Object(line)
}

/// Absent where there is none.
fn insert_latency<T: Counter>(line: &mut Map<String, Value>, key: &str, latency: &Histogram<T>) {
    if latency.is_empty() {
        return;
    }
    let quantile = |quantile| latency.value_at_quantile(quantile);
    line.insert(
        key.to_owned(),
        json!({
            "p50": quantile(0.5),
            "p90": quantile(0.9),
            "p99": quantile(0.99),
            "p999": quantile(0.999),
            "max": latency.max(),
            "mean": rounded(latency.mean()),
        }),
    );
}

pub fn total_line(scenario: &Scenario, settings: &Settings, outcome: &Outcome) -> Value {
    let seconds = settings.duration.as_secs_f64();
    let Outcome { measure, balance, .. } = outcome;
    let mut line = Map::new();
    let mut insert = |key: &str, value: Value| {
        line.insert(key.to_owned(), value);
    };
    insert("type", "total".into());
    insert("scenario", scenario.name.as_str().into());
    insert("version", version(settings).into());
    insert("duration_s", seconds.into());
    insert("viewers", scenario.watchers().into());
    insert("publishers", (scenario.publishers + scenario.users).into());
    insert("connections", outcome.connections.into());
    if balance.offered > 0 {
        insert("offered", balance.offered.into());
        insert("offered_per_s", rounded(balance.offered as f64 / seconds));
        insert("delivered", balance.delivered.into());
        insert("delivered_per_s", rounded(balance.delivered as f64 / seconds));
        insert("lost_groups", balance.lost_groups.into());
        insert("lost_frames", balance.lost_frames.into());
        insert("late_groups", measure.late_groups.into());
        insert("resets", measure.resets.into());
    }
    insert("errors", measure.errors.into());
    insert_latency(&mut line, "latency_us", &measure.frames.total);
    if measure.announcements_expected > 0 {
        let heard = measure.announcements.total.len();
        line.insert("announcements".into(), heard.into());
        let lost = measure.announcements_expected.saturating_sub(heard);
        line.insert("lost_announcements".into(), lost.into());
        insert_latency(&mut line, "latency_us", &measure.announcements.total);
    }
    if measure.fetches_expected > 0 {
        let fetched = measure.fetches.total.len();
        line.insert("fetched_groups".into(), fetched.into());
        let lost = measure.fetches_expected.saturating_sub(fetched);
        line.insert("lost_fetches".into(), lost.into());
        insert_latency(&mut line, "fetch_latency_us", &measure.fetches.total);
    }
    let mut load = Map::new();
    load.insert("cpu_s".into(), rounded(outcome.load_cpu.as_secs_f64()));
    load.insert("cpu_share".into(), rounded(load_share(settings, outcome)));
    insert_latency(&mut load, "send_lag_us", &measure.lag.total);
    line.insert("load".into(), load.into());
    if let Some(used) = &outcome.relay {
        line.insert("relay".into(), relay_value(settings, outcome, used));
    }
    Value::Object(line)
}

fn relay_value(settings: &Settings, outcome: &Outcome, used: &Used) -> Value {
    let seconds = |ns: u64| ns as f64 / SECOND as f64;
    let cpu_s = seconds(used.cpu_ns());
    let thread = |thread: &crate::proc::Thread| {
        json!({
            "name": thread.name,
            "cpu_s": rounded(seconds(thread.cpu_ns)),
            "voluntary_switches": thread.voluntary_switches,
            "involuntary_switches": thread.involuntary_switches,
        })
    };
    let sum = |count: fn(&crate::proc::Thread) -> u64| used.threads.iter().map(count).sum::<u64>();
    let mut relay = Map::new();
    relay.insert("cpu_s".into(), rounded(cpu_s));
    relay.insert("cpu_share".into(), rounded(cpu_s / settings.duration.as_secs_f64()));
    let per = |count: u64| (count > 0).then(|| rounded(cpu_s * 1e6 / count as f64));
    if let Some(cost) = per(outcome.balance.delivered) {
        relay.insert("cpu_us_per_copy".into(), cost);
    }
    if let Some(cost) = per(outcome.measure.announcements.total.len()) {
        relay.insert("cpu_us_per_announcement".into(), cost);
    }
    relay.insert("rss_kib".into(), used.rss_kib.into());
    relay.insert("rss_kib_per_connection".into(), rounded(rss_per_connection(outcome, used)));
    relay.insert("voluntary_switches".into(), sum(|thread| thread.voluntary_switches).into());
    relay.insert("involuntary_switches".into(), sum(|thread| thread.involuntary_switches).into());
    relay.insert("threads".into(), used.threads.iter().map(thread).collect());
    Value::Object(relay)
}

/// One try of a search.
pub struct Probe {
    pub viewers: u32,
    pub result: Result<Verdict, RunError>,
}

/// What a try has shown.
pub struct Verdict {
    pub p99_us: u64,
    pub lost: u64,
    pub is_good: bool,
    pub load_share: f64,
    pub relay_share: Option<f64>,
}

impl Probe {
    pub fn is_good(&self) -> bool {
        self.result.as_ref().is_ok_and(|verdict| verdict.is_good)
    }

    pub fn line(&self) -> Value {
        let mut line = json!({ "type": "probe", "viewers": self.viewers });
        match &self.result {
            Ok(verdict) => {
                line["p99_us"] = verdict.p99_us.into();
                line["lost_frames"] = verdict.lost.into();
                line["load_cpu_share"] = rounded(verdict.load_share);
                if let Some(share) = verdict.relay_share {
                    line["relay_cpu_share"] = rounded(share);
                }
            }
            Err(error) => line["reason"] = error.to_string().into(),
        }
        line["ok"] = self.is_good().into();
        line
    }

    pub fn text(&self) -> String {
        let viewers = self.viewers;
        match &self.result {
            Ok(verdict) => {
                let end = if verdict.is_good { "good" } else { "too many" };
                let p99 = milliseconds(verdict.p99_us);
                let mut text = format!("{viewers:>6} viewers: p99 {p99} ms, {} lost", verdict.lost);
                if let Some(share) = verdict.relay_share {
                    write!(text, ", relay {:.0} %", 100.0 * share).expect("it is a string");
                }
                if verdict.load_share > BUSY_SHARE {
                    let share = 100.0 * verdict.load_share;
                    write!(text, ", this client {share:.0} %").expect("it is a string");
                }
                format!("{text}: {end}")
            }
            Err(error) => format!("{viewers:>6} viewers: {error}"),
        }
    }
}

pub fn max_line(viewers: u32) -> Value {
    json!({ "type": "max", "viewers": viewers })
}

pub fn load_share(settings: &Settings, outcome: &Outcome) -> f64 {
    outcome.load_cpu.as_secs_f64() / settings.duration.as_secs_f64()
}

fn rss_per_connection(outcome: &Outcome, used: &Used) -> f64 {
    used.rss_kib.saturating_sub(used.rss_kib_before) as f64 / outcome.connections as f64
}

/// Three decimals are more than any of this is worth.
fn rounded(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}

/// The table at the end.
pub fn summary(scenario: &Scenario, settings: &Settings, outcome: &Outcome) -> String {
    let seconds = settings.duration.as_secs_f64();
    let Outcome { measure, balance, .. } = outcome;
    let mut out = String::new();
    let mut row = |name: &str, value: String| {
        writeln!(out, "  {name:<14}{value}").expect("it is a string");
    };
    row(
        "measured",
        format!(
            "{} over moq-lite-{} for {seconds} s, {} connections",
            scenario.name,
            version(settings),
            outcome.connections
        ),
    );
    if balance.offered > 0 {
        let share = 100.0 * balance.delivered as f64 / balance.offered as f64;
        row(
            "delivered",
            format!(
                "{} of {} frames ({share:.2} %), {:.0} per second",
                balance.delivered,
                balance.offered,
                balance.delivered as f64 / seconds
            ),
        );
        row(
            "lost",
            format!(
                "{} groups, {} frames; {} groups late, {} reset",
                balance.lost_groups, balance.lost_frames, measure.late_groups, measure.resets
            ),
        );
        row("latency", latency_text(&measure.frames.total));
    }
    if measure.announcements_expected > 0 {
        let heard = measure.announcements.total.len();
        row("announced", format!("{heard} of {}", measure.announcements_expected));
        row("latency", latency_text(&measure.announcements.total));
    }
    if measure.fetches_expected > 0 {
        let fetched = measure.fetches.total.len();
        row("fetched", format!("{fetched} of {} groups", measure.fetches_expected));
        row("latency", latency_text(&measure.fetches.total));
    }
    if let Some(used) = &outcome.relay {
        let cpu_s = used.cpu_ns() as f64 / SECOND as f64;
        let mut text = format!("{:.1} % of a core", 100.0 * cpu_s / seconds);
        for (count, what) in
            [(balance.delivered, "copy"), (measure.announcements.total.len(), "announcement")]
        {
            if count > 0 {
                let cost = cpu_s * 1e6 / count as f64;
                write!(text, ", {cost:.2} µs per {what}").expect("it is a string");
            }
        }
        row("relay", text);
        row(
            "memory",
            format!(
                "{} KiB, {:.1} KiB per connection",
                used.rss_kib,
                rss_per_connection(outcome, used)
            ),
        );
    }
    let share = load_share(settings, outcome);
    let lag = measure.lag.total.value_at_quantile(0.99);
    row("this client", format!("{:.1} % of a core, sent within {lag} µs (p99)", 100.0 * share));
    if share > BUSY_SHARE {
        row("", "it was busy itself: latencies and losses may be its own".to_owned());
    } else if lag > LAG_US_MAX {
        row("", "it had to wait for its core, and latencies include that".to_owned());
    }
    if measure.errors > 0 {
        row("errors", measure.errors.to_string());
        for reason in &measure.reasons {
            row("", reason.clone());
        }
    }
    out
}

fn latency_text<T: Counter>(latency: &Histogram<T>) -> String {
    if latency.is_empty() {
        return "nothing arrived".to_owned();
    }
    let at = |quantile| milliseconds(latency.value_at_quantile(quantile));
    format!(
        "p50 {}, p90 {}, p99 {}, p99.9 {}, max {} ms",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        milliseconds(latency.max())
    )
}

pub fn milliseconds(us: u64) -> String {
    let decimals = if us < 10_000 { 2 } else { 1 };
    format!("{:.decimals$}", us as f64 / 1000.0)
}

/// Shows a measurement as it goes, and writes its seconds.
pub struct Live<'a> {
    bar: ProgressBar,
    shown: Option<Shown>,
    duration: Duration,
    /// What is measured, where there are several measurements.
    title: String,
    lines: &'a mut Lines,
    /// What the last second was like.
    last: String,
    /// A line could not be written; told at the end.
    pub failed: Option<io::Error>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Words,
    Bar,
}

impl<'a> Live<'a> {
    pub fn new(
        is_quiet: bool,
        duration: Duration,
        title: String,
        lines: &'a mut Lines,
    ) -> Live<'a> {
        let target = match is_quiet {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr_with_hz(10),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        let last = String::new();
        Live { bar, shown: None, duration, title, lines, last, failed: None }
    }

    fn show(&mut self, style: Shown) {
        if self.shown.replace(style) == Some(style) {
            return;
        }
        let template = match style {
            Shown::Words => "{spinner} {prefix}{msg}",
            Shown::Bar => "{prefix}measuring {bar:20} {pos}/{len} s  {msg}",
        };
        let template = ProgressStyle::with_template(template).expect("a valid template");
        self.bar.set_style(template.progress_chars("=> "));
        self.bar.set_prefix(self.title.clone());
    }

    fn say(&mut self, text: String) {
        self.show(Shown::Words);
        self.bar.set_message(text);
        self.bar.tick();
    }
}

impl Watch for Live<'_> {
    fn stage(&mut self, stage: Stage) {
        if self.bar.is_hidden() {
            return;
        }
        match stage {
            Stage::Connecting { made, planned } => self.say(format!("connecting {made}/{planned}")),
            Stage::Settling { missing: 0 } => self.say("settling".to_owned()),
            Stage::Settling { missing } => {
                self.say(format!("settling, {missing} subscriptions to go"));
            }
            Stage::Warming { left } => {
                self.say(format!("warming up, {:.1} s to go", left.as_secs_f64()));
            }
            Stage::Measuring { passed } => {
                self.show(Shown::Bar);
                self.bar.set_length(self.duration.as_secs_f64().ceil() as u64);
                self.bar.set_position(passed.as_secs());
                self.bar.set_message(self.last.clone());
            }
            Stage::Finishing => self.say("waiting for what is still on its way".to_owned()),
        }
    }

    fn second(&mut self, second: usize, measure: &Measure, relay_cpu_share: Option<f64>) {
        let line = second_line(second, measure, relay_cpu_share);
        if let Err(error) = self.lines.write(&line) {
            self.failed.get_or_insert(error);
        }
        let kinds = [
            ("frames", &measure.frames.seconds[second]),
            ("announcements", &measure.announcements.seconds[second]),
            ("fetches", &measure.fetches.seconds[second]),
        ];
        let kinds = kinds.into_iter().filter(|(_, latency)| !latency.is_empty());
        let texts: Vec<String> = kinds
            .map(|(what, latency)| {
                let at = |quantile| milliseconds(latency.value_at_quantile(quantile));
                format!("{}/s {what}, p50 {} p99 {} ms", latency.len(), at(0.5), at(0.99))
            })
            .collect();
        self.last = texts.join("; ");
        if let Some(share) = relay_cpu_share {
            write!(self.last, "; relay {:.0} %", 100.0 * share).expect("it is a string");
        }
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
