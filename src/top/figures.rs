//! The text for Prometheus, read again.

use std::collections::HashMap;

type Labels = Vec<(String, String)>;

/// Samples by their names.
#[derive(Debug, Default)]
pub struct Figures(HashMap<String, Vec<(Labels, f64)>>);

/// How many values were below some bounds; the last bound is infinite.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets(Vec<(f64, f64)>);

impl Figures {
    /// None where it is something else.
    pub fn parse(text: &str) -> Option<Figures> {
        let mut figures = Figures::default();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (name, labels, value) = sample(line)?;
            figures.0.entry(name).or_default().push((labels, value));
        }
        Some(figures)
    }

    /// Of all rows that have these labels, together; none where there is no such row.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut rows = self.rows(name, labels).map(|(_, value)| value).peekable();
        rows.peek()?;
        Some(rows.sum())
    }

    /// The same, and nothing where there is no such row.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or(0.0)
    }

    /// The values that a label has in a family, and what is counted there.
    pub fn by(&self, name: &str, label: &str) -> Vec<(&str, f64)> {
        let rows = self.0.get(name).into_iter().flatten();
        let named = rows.filter_map(|(labels, value)| Some((value_of(labels, label)?, *value)));
        named.collect()
    }

    /// A histogram over all rows that have these labels.
    pub fn buckets(&self, name: &str, labels: &[(&str, &str)]) -> Buckets {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (labels, value) in self.rows(&format!("{name}_bucket"), labels) {
            let Some(Ok(end)) = value_of(labels, "le").map(str::parse::<f64>) else { continue };
            match buckets.iter_mut().find(|(known, _)| *known == end) {
                Some((_, below)) => *below += value,
                None => buckets.push((end, value)),
            }
        }
        Buckets(buckets)
    }

    fn rows<'a>(
        &'a self,
        name: &str,
        wanted: &'a [(&str, &str)],
    ) -> impl Iterator<Item = (&'a Labels, f64)> {
        let rows = self.0.get(name).into_iter().flatten();
        let fits = |labels: &Labels| {
            wanted.iter().all(|(name, value)| value_of(labels, name) == Some(value))
        };
        rows.filter(move |(labels, _)| fits(labels)).map(|(labels, value)| (labels, *value))
    }
}

impl Buckets {
    /// What has come since an earlier look.
    pub fn since(&self, earlier: &Buckets) -> Buckets {
        let of = |end: f64| earlier.0.iter().find(|(known, _)| *known == end);
        let since = |(end, below): &(f64, f64)| {
            (*end, (below - of(*end).map_or(0.0, |(_, below)| *below)).max(0.0))
        };
        Buckets(self.0.iter().map(since).collect())
    }

    /// Which value this part of all is below, as Prometheus reckons it; none where there is none at all.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let all = self.0.last().map(|(_, all)| *all).filter(|all| *all > 0.0)?;
        let rank = part * all;
        let (mut begin, mut before) = (0.0, 0.0);
        for (end, below) in &self.0 {
            if *below >= rank {
                // What is above all bounds is at least at the last one.
                if end.is_infinite() || *below == before {
                    return Some(begin);
                }
                return Some(begin + (end - begin) * (rank - before) / (below - before));
            }
            (begin, before) = (*end, *below);
        }
        None
    }
}

fn value_of<'a>(labels: &'a Labels, name: &str) -> Option<&'a str> {
    labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.trim_start_matches(',').split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((label.to_owned(), value));
            rest = after;
        }
        rest = &rest[1..];
    }
    Some((name.to_owned(), labels, rest.trim().parse().ok()?))
}

/// Up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c => c,
            }),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Histogram, Kind, Text};

    #[test]
    fn what_is_written_is_read() {
        let mut text = Text::default();
        text.family("viewers", Kind::Gauge, "Viewers.");
        let odd = "a\"} 9\nb\\";
        text.sample(&[("shard", "0"), ("track", odd)], 3);
        text.sample(&[("shard", "1"), ("track", "x")], 0.5);
        text.single("up", Kind::Gauge, "Up.", 1);
        let figures = Figures::parse(&text.finish()).unwrap();
        assert_eq!(figures.find("viewers", &[]), Some(3.5));
        assert_eq!(figures.find("viewers", &[("track", odd)]), Some(3.0));
        assert_eq!(figures.find("viewers", &[("track", "y")]), None);
        assert_eq!(figures.by("viewers", "shard"), [("0", 3.0), ("1", 0.5)]);
        assert_eq!((figures.sum("up", &[]), figures.sum("down", &[])), (1.0, 0.0));
        for text in ["<html>", "a{b=\"c} 1", "a{b} 1", "a b"] {
            assert!(Figures::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn quantiles_are_within_their_buckets() {
        let mut histogram = Histogram::default();
        let figures = |histogram: &Histogram| {
            let mut text = Text::default();
            text.family("turn_seconds", Kind::Histogram, "Turns.");
            text.histogram(&[("shard", "0")], histogram);
            text.histogram(&[("shard", "1")], histogram);
            Figures::parse(&text.finish()).unwrap().buckets("turn_seconds", &[])
        };
        let none = figures(&histogram);
        assert_eq!(none.quantile(0.5), None);
        histogram.record_times(100, 99);
        histogram.record(5000);
        let some = figures(&histogram);
        let middle = some.quantile(0.5).unwrap();
        assert!((96e-6..128e-6).contains(&middle), "{middle}");
        let last = some.quantile(0.995).unwrap();
        assert!((4096e-6..6144e-6).contains(&last), "{last}");
        // What has come since is what counts.
        histogram.record_times(20, 50);
        let since = figures(&histogram).since(&some);
        assert!((16e-6..24e-6).contains(&since.quantile(0.99).unwrap()), "{since:?}");
        assert_eq!(some.since(&some).quantile(0.5), None);
        histogram = Histogram::default();
        histogram.record(1 << 40);
        assert_eq!(figures(&histogram).quantile(0.5), Some(16.777216));
    }
}
