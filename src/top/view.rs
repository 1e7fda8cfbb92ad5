//! Two samples into a page of text: what is counted becomes rates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::client::Target;
use super::figures::{Buckets, Figures};
use super::sample::{Node, Sample, Tracks};
use crate::limits::KEEP_ALIVE;

/// Where nothing is known.
const UNKNOWN: &str = "-";

/// What peers are sent is what the relay publishes to them.
const SENT: &[(&str, &str)] = &[("role", "publisher")];
const RECEIVED: &[(&str, &str)] = &[("role", "subscriber")];

/// In front of what is wrong with a link.
const MARGIN: &str = "           ";

/// A link without traffic is heard more often.
const SILENCE: Duration = Duration::from_millis(KEEP_ALIVE.as_millis() as u64 + 1000);

/// Columns beside the names of tracks.
const TRACK_FIGURES: usize = 23;

/// One line each, none longer than `width`.
pub fn page(target: &Target, before: Option<&Sample>, now: &Sample, width: usize) -> Vec<String> {
    let span = Span { before, now };
    let mut lines = vec![title(target, now), String::new()];
    lines.extend(totals(&span));
    lines.push(String::new());
    lines.extend(shards(&span));
    lines.push(String::new());
    if !now.nodes.is_empty() {
        lines.extend(links(&span, width));
        lines.push(String::new());
    }
    lines.extend(tracks(before.map(|before| &before.tracks), &now.tracks, width));
    lines.iter().map(|line| cut(line.trim_end(), width)).collect()
}

/// What happened from one sample to the next.
struct Span<'a> {
    before: Option<&'a Sample>,
    now: &'a Sample,
}

impl Span<'_> {
    fn figures(&self) -> &Figures {
        &self.now.figures
    }

    /// By how much something has risen in a second.
    fn rate(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let before = self.before?;
        let seconds = (self.now.at - before.at).as_secs_f64();
        let risen = self.figures().find(name, labels)? - before.figures.sum(name, labels);
        // A relay that was started again counts from nothing.
        (seconds > 0.0 && risen >= 0.0).then(|| risen / seconds)
    }

    fn buckets(&self, name: &str, labels: &[(&str, &str)]) -> Buckets {
        let now = self.figures().buckets(name, labels);
        let before = self.before.map(|before| before.figures.buckets(name, labels));
        before.map_or_else(Buckets::default, |before| now.since(&before))
    }

    /// What is there: what has come, less what has gone.
    fn live(&self, what: &str, labels: &[(&str, &str)]) -> f64 {
        let of = |event| self.figures().sum(&format!("moq_relay_{what}_{event}_total"), labels);
        of("opened") - of("closed")
    }
}

fn title(target: &Target, now: &Sample) -> String {
    let figures = &now.figures;
    let versions = figures.by("shardcast_build_info", "version");
    let version = versions.first().map_or(UNKNOWN, |(version, _)| version);
    let up = figures.find("process_start_time_seconds", &[]).and_then(|started| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        now.checked_sub(Duration::try_from_secs_f64(started).ok()?)
    });
    let up = up.map_or_else(|| UNKNOWN.to_owned(), lasting);
    let state = now.unready.as_deref().map_or_else(|| "ready".to_owned(), plain);
    format!("shardcast {} at {target}, up {up}, {state}", plain(version))
}

fn totals(span: &Span<'_>) -> Vec<String> {
    let figures = span.figures();
    let bits = |labels| span.rate("moq_relay_bytes_total", labels).map(|bytes| 8.0 * bytes);
    let frames = |labels| amount(span.rate("moq_relay_frames_total", labels));
    let quantiles = |name: &str| {
        let buckets = span.buckets(name, &[]);
        format!("p50 {:<8} p99 {:<8}", time(buckets.quantile(0.5)), time(buckets.quantile(0.99)))
    };
    let risen = |name: &str| amount(span.rate(name, &[]));
    vec![
        format!(
            "sessions {:<10} viewers {:<10} tracks {:<10} routes {}",
            span.live("sessions", &[]),
            span.live("viewers", SENT),
            span.now.tracks.total,
            figures.sum("shardcast_routes", &[]) / figures.sum("shardcast_shards", &[]).max(1.0),
        ),
        format!(
            "in   {:<14} {:>8} frames/s     out  {:<14} {:>8} frames/s",
            rate(bits(RECEIVED)),
            frames(RECEIVED),
            rate(bits(SENT)),
            frames(SENT)
        ),
        format!(
            "added  {}   rtt  {}",
            quantiles("shardcast_added_seconds"),
            quantiles("shardcast_rtt_seconds")
        ),
        format!(
            "cache {} of {}   memory {}   cpu {}",
            size(figures.find("shardcast_cache_bytes", &[])),
            size(figures.find("shardcast_cache_bytes_max", &[])),
            size(figures.find("process_resident_memory_bytes", &[])),
            share(span.rate("process_cpu_seconds_total", &[])),
        ),
        format!(
            "a second: refused {}, dropped groups {}, stale groups {}, socket drops {}, evicted groups {}",
            risen("shardcast_refusals_total"),
            risen("shardcast_dropped_groups_total"),
            amount(span.rate("moq_relay_stale_groups_total", SENT)),
            risen("shardcast_kernel_drops_total"),
            risen("shardcast_evicted_groups_total"),
        ),
    ]
}

fn shards(span: &Span<'_>) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<6} {:>6} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "shard", "busy", "connections", "added p50", "p99", "turn p99", "mail p99", "cache"
    )];
    for (shard, is_up) in span.figures().by("shardcast_shard_up", "shard") {
        let labels = [("shard", shard)];
        if is_up == 0.0 {
            lines.push(format!("{shard:<6} does not answer"));
            continue;
        }
        let quantile = |name: &str, part| time(span.buckets(name, &labels).quantile(part));
        lines.push(format!(
            "{shard:<6} {:>6} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10}",
            share(span.rate("shardcast_busy_seconds_total", &labels)),
            span.figures().sum("shardcast_connections", &labels),
            quantile("shardcast_added_seconds", 0.5),
            quantile("shardcast_added_seconds", 0.99),
            quantile("shardcast_turn_seconds", 0.99),
            quantile("shardcast_mail_seconds", 0.99),
            size(span.figures().find("shardcast_cache_bytes", &labels)),
        ));
    }
    lines
}

/// With other relays. What is wrong with one has lines of its own.
fn links(span: &Span<'_>, width: usize) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<10} {:>8} {:>7} {:>7} {:>12} {:>12}  {}",
        "link", "rtt", "loss", "routes", "in", "out", "with"
    )];
    for node in &span.now.nodes {
        let is_it = |known: &&Node| (&known.node, &known.address) == (&node.node, &node.address);
        let before = span.before.and_then(|before| {
            let seconds = (span.now.at - before.at).as_secs_f64();
            Some((before.nodes.iter().find(is_it)?, seconds))
        });
        let bits = |of: fn(&Node) -> Option<u64>| {
            let (before, seconds) = before.as_ref()?;
            // One that was dialled again counts from nothing.
            let bytes = of(node)?.checked_sub(of(before)?)?;
            (*seconds > 0.0).then(|| 8.0 * bytes as f64 / seconds)
        };
        lines.push(plain(&format!(
            "{:<10} {:>8} {:>7} {:>7} {:>12} {:>12}  {}",
            node.state,
            time(node.rtt_ms.map(|ms| ms / 1e3)),
            share(node.loss),
            amount(node.routes.map(|routes| routes as f64)),
            rate(bits(|node| node.received_bytes)),
            rate(bits(|node| node.sent_bytes)),
            with(node),
        )));
        if let Some(error) = node.last_error.as_ref().filter(|_| node.state != "up") {
            lines.extend(broken(&plain(error), width));
        }
    }
    lines
}

/// Which relay it is: of those with one name, and of those that have dialled, by the address.
fn with(node: &Node) -> String {
    let is_in = node.direction == "in";
    let address = node.address.as_ref().filter(|address| **address != node.node);
    let address = address.filter(|_| is_in || node.node.starts_with("dns+"));
    let address = address.map(|address| format!(" at {address}")).unwrap_or_default();
    let silent = node.heard_ms.map(Duration::from_millis).filter(|heard| *heard > SILENCE);
    let silent = silent.map(|heard| format!(", silent for {}", lasting(heard)));
    let dials = if is_in { "from " } else { "" };
    format!("{dials}{}{address}{}", node.node, silent.unwrap_or_default())
}

/// A text in as many lines as it takes, behind its margin.
fn broken(text: &str, width: usize) -> Vec<String> {
    let room = width.saturating_sub(MARGIN.len()).max(20);
    let letters: Vec<char> = text.chars().collect();
    letters.chunks(room).map(|line| MARGIN.to_owned() + &String::from_iter(line)).collect()
}

fn tracks(before: Option<&Tracks>, now: &Tracks, width: usize) -> Vec<String> {
    let names = width.saturating_sub(TRACK_FIGURES).max(8);
    let mut lines = vec![format!("{:<names$} {:>8} {:>12}", "track", "viewers", "in")];
    for track in &now.tracks {
        let name = cut(&plain(&format!("{} {}", track.broadcast, track.track)), names);
        let came = before.and_then(|before| now.rate(track, before)).map(|bytes| 8.0 * bytes);
        lines.push(format!("{name:<names$} {:>8} {:>12}", track.viewers, rate(came)));
    }
    let more = now.total.saturating_sub(now.tracks.len());
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

/// Names are what peers like; on a terminal they are letters and nothing that moves a cursor.
fn plain(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ';
    text.chars().map(|c| if is_plain(c) { c } else { '\u{fffd}' }).collect()
}

pub fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Three digits and the unit that suits them.
fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut units = units.iter();
    let mut unit = *units.next().expect("there is a unit");
    for larger in units {
        if value < step {
            break;
        }
        (value, unit) = (value / step, *larger);
    }
    match value {
        _ if value >= 100.0 || value == value.trunc() => format!("{value:.0} {unit}"),
        10.0.. => format!("{value:.1} {unit}"),
        _ => format!("{value:.2} {unit}"),
    }
}

fn known(value: Option<f64>, shown: impl FnOnce(f64) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), shown)
}

fn rate(bits: Option<f64>) -> String {
    known(bits, |bits| scaled(bits, 1000.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s"]))
}

fn size(bytes: Option<f64>) -> String {
    known(bytes, |bytes| scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB"]))
}

fn time(seconds: Option<f64>) -> String {
    known(seconds, |seconds| scaled(seconds * 1e6, 1000.0, &["us", "ms", "s"]))
}

fn amount(value: Option<f64>) -> String {
    known(value, |value| format!("{value:.0}"))
}

fn share(value: Option<f64>) -> String {
    known(value, |value| format!("{:.1}%", 100.0 * value))
}

/// The two largest units.
fn lasting(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_unit_that_suits_them() {
        for (bits, shown) in [
            (0.0, "0 bit/s"),
            (999.0, "999 bit/s"),
            (1500.0, "1.50 kbit/s"),
            (12_340_000.0, "12.3 Mbit/s"),
            (4.56e12, "4560 Gbit/s"),
        ] {
            assert_eq!(rate(Some(bits)), shown);
        }
        assert_eq!((size(Some(1536.0)), size(None)), ("1.50 KiB".to_owned(), "-".to_owned()));
        assert_eq!([time(Some(31e-6)), time(Some(2.5))], ["31 us", "2.50 s"]);
        assert_eq!([share(Some(0.123)), amount(Some(3.4))], ["12.3%", "3"]);
        for (seconds, shown) in
            [(59, "59 s"), (61, "1 min 1 s"), (7300, "2 h 1 min"), (90_000, "1 d 1 h")]
        {
            assert_eq!(lasting(Duration::from_secs(seconds)), shown);
        }
    }

    #[test]
    fn a_link_is_named_so_that_it_can_be_told_from_others() {
        for (json, shown) in [
            (r#"{"node": "moqt://b:1/", "state": "up", "address": "10.0.0.1:1"}"#, "moqt://b:1/"),
            (
                r#"{"node": "dns+moqt://b:1/", "state": "up", "address": "10.0.0.1:1", "heard_ms": 4900}"#,
                "dns+moqt://b:1/ at 10.0.0.1:1",
            ),
            (
                r#"{"node": "b", "direction": "in", "state": "up", "address": "10.0.0.1:1", "heard_ms": 8000}"#,
                "from b at 10.0.0.1:1, silent for 8 s",
            ),
            (
                r#"{"node": "10.0.0.1:1", "direction": "in", "state": "up", "address": "10.0.0.1:1"}"#,
                "from 10.0.0.1:1",
            ),
        ] {
            let node: Node = serde_json::from_str(json).expect("a node");
            assert_eq!(with(&node), shown);
        }
    }

    #[test]
    fn what_is_wrong_is_shown_whole() {
        let text = "x".repeat(100) + "end";
        let lines = broken(&text, 60);
        assert!(lines.iter().all(|line| line.len() <= 60 && line.starts_with(MARGIN)), "{lines:?}");
        assert_eq!(lines.iter().map(|line| &line[MARGIN.len()..]).collect::<String>(), text);
    }

    #[test]
    fn names_do_nothing_to_a_terminal() {
        assert_eq!(plain("cam\x1b[2J\n\u{202e}ö 1"), "cam\u{fffd}[2J\u{fffd}\u{fffd}ö 1");
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
    }
}
