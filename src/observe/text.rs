//! The text that Prometheus asks for, version 0.0.4.

use std::fmt::{Display, Write};

use super::{Histogram, Tally};
use crate::text::moves_a_cursor;

/// What may become of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only rises.
    Counter,
    Gauge,
    Histogram,
}

/// A label's name and value.
pub type Label<'a> = (&'a str, &'a str);

/// Families of samples, one after the other.
#[derive(Debug, Default)]
pub struct Text {
    out: String,
    family: &'static str,
}

impl Text {
    /// What it is served as.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Whatever follows is of this family.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.family = name;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    pub fn sample(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// A family of one value.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    /// A row for each word.
    pub fn tally(&mut self, label: &str, tally: &Tally) {
        for (word, count) in tally.rows() {
            self.sample(&[(label, word)], count);
        }
    }

    /// In seconds, or as parts of one.
    pub fn histogram(&mut self, labels: &[Label<'_>], histogram: &Histogram) {
        for (end, below) in histogram.cumulative() {
            let end = end.map_or_else(|| "+Inf".to_owned(), |end| in_units(end).to_string());
            self.line("_bucket", labels, Some(&end), below);
        }
        self.line("_sum", labels, None, in_units(histogram.sum()));
        self.line("_count", labels, None, histogram.count());
    }

    fn line(&mut self, suffix: &str, labels: &[Label<'_>], end: Option<&str>, value: impl Display) {
        let _ = write!(self.out, "{}{suffix}", self.family);
        let labels = labels.iter().copied().chain(end.map(|end| ("le", end)));
        let mut before = '{';
        for (name, value) in labels {
            let _ = write!(self.out, "{before}{name}=\"");
            escape(value, &mut self.out);
            self.out.push('"');
            before = ',';
        }
        if before == ',' {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    pub fn finish(self) -> String {
        self.out
    }
}

fn in_units(value: u64) -> f64 {
    value as f64 / Histogram::UNIT
}

/// What peers have chosen stays within its quotes, does nothing to a terminal, and is not the same as anything
/// else that they may choose: what is written with its number is so everywhere.
fn escape(value: &str, out: &mut String) {
    for (at, c) in value.char_indices() {
        match c {
            '\\' if value[at..].starts_with("\\u{") => out.push_str("\\\\u{5c}"),
            c if c != '\n' && moves_a_cursor(c) => {
                let _ = write!(out, "\\\\u{{{:x}}}", c as u32);
            }
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_follow_each_other() {
        let mut text = Text::default();
        text.family("frames_total", Kind::Counter, "Frames.\nOf C:\\media.");
        text.sample(&[("shard", "0"), ("role", "publisher")], 12u64);
        text.sample(&[("shard", "1"), ("role", "publisher")], 0u64);
        text.single("share", Kind::Gauge, "A part.", 0.25);
        text.family("refusals_total", Kind::Counter, "Refusals.");
        text.tally("reason", &Tally::of(["late"]));
        assert_eq!(
            text.finish(),
            "# HELP frames_total Frames.\\nOf C:\\\\media.\n\
             # TYPE frames_total counter\n\
             frames_total{shard=\"0\",role=\"publisher\"} 12\n\
             frames_total{shard=\"1\",role=\"publisher\"} 0\n\
             # HELP share A part.\n\
             # TYPE share gauge\n\
             share 0.25\n\
             # HELP refusals_total Refusals.\n\
             # TYPE refusals_total counter\n\
             refusals_total{reason=\"late\"} 0\n"
        );
    }

    #[test]
    fn what_peers_have_chosen_stays_within_its_quotes() {
        let mut text = Text::default();
        text.family("viewers", Kind::Gauge, "Viewers.");
        text.sample(&[("track", "a\"} 9\nb\\")], 1);
        let text = text.finish();
        assert_eq!(text.lines().last(), Some("viewers{track=\"a\\\"} 9\\nb\\\\\"} 1"));
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn what_peers_have_chosen_does_nothing_to_a_terminal() {
        let shown = |value: &str| {
            let mut out = String::new();
            escape(value, &mut out);
            out
        };
        assert_eq!(shown("a\x1b[2J\r\u{202e}ö\u{9b}"), r"a\\u{1b}[2J\\u{d}\\u{202e}ö\\u{9b}");
        assert_eq!(shown("a\nb"), r"a\nb");
        // Who writes that himself has another name.
        assert_eq!(shown(r"\u{1b}"), r"\\u{5c}u{1b}");
    }

    #[test]
    fn a_histogram_is_cumulative_and_in_seconds() {
        let mut histogram = Histogram::default();
        [3, 9, 9, 1500, 1 << 40].into_iter().for_each(|micros| histogram.record(micros));
        let mut text = Text::default();
        text.family("turn_seconds", Kind::Histogram, "Turns.");
        text.histogram(&[("shard", "0")], &histogram);
        let text = text.finish();
        let value = |line: &str| {
            let found = text.lines().find_map(|known| known.strip_prefix(line));
            found.unwrap_or_else(|| panic!("no {line} in {text}")).trim().to_owned()
        };
        assert_eq!(value("turn_seconds_bucket{shard=\"0\",le=\"0.000008\"}"), "1");
        assert_eq!(value("turn_seconds_bucket{shard=\"0\",le=\"0.000012\"}"), "3");
        assert_eq!(value("turn_seconds_bucket{shard=\"0\",le=\"0.001536\"}"), "4");
        assert_eq!(value("turn_seconds_bucket{shard=\"0\",le=\"16.777216\"}"), "4");
        assert_eq!(value("turn_seconds_bucket{shard=\"0\",le=\"+Inf\"}"), "5");
        assert_eq!(value("turn_seconds_count{shard=\"0\"}"), "5");
        assert_eq!(value("turn_seconds_sum{shard=\"0\"}"), "1099511.629297");
    }
}
