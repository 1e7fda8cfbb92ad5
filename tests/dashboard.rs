//! The dashboard that is in the package, held against a scrape of the real binary: it asks for nothing that
//! there is not.

#[allow(dead_code, reason = "this needs a part of what all plays share")]
mod support {
    pub mod http;
    pub mod relay;
}

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use support::http::get;
use support::relay::Relay;

const DASHBOARD: &str = include_str!("../packaging/grafana.json");

/// What Prometheus adds to every series.
const ADDED: [&str; 2] = ["job", "instance"];

/// What Grafana has without any plugin.
const STOCK: [&str; 5] = ["row", "stat", "timeseries", "heatmap", "table"];

const COLUMNS: u64 = 24;

/// The names of all series, each with its labels.
type Series = BTreeMap<String, BTreeSet<String>>;

/// Reads a scrape, where every sample follows what is said of its family.
fn series(text: &str) -> Series {
    let mut series = Series::new();
    let mut helped = BTreeSet::new();
    let mut family = (String::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and words");
            assert!(help.len() > 5 && help.ends_with('.'), "{line}");
            assert!(helped.insert(name.to_owned()), "{name} is there twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a kind");
            assert!(helped.contains(name), "{name} has no help");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            family = (name.to_owned(), kind.to_owned());
        } else {
            let end = line.find(['{', ' ']).expect("a name");
            let (name, kind) = (&line[..end], family.1.as_str());
            let suffix = name.strip_prefix(family.0.as_str());
            let is_its = match suffix {
                Some("") => kind != "histogram",
                Some("_bucket" | "_sum" | "_count") => kind == "histogram",
                _ => false,
            };
            assert!(is_its, "{line} is of no family: {family:?}");
            let labels = series.entry(name.to_owned()).or_default();
            let quotes = line[end..].split('"').step_by(2);
            let names = quotes.filter_map(|before| before.strip_suffix('='));
            labels.extend(names.map(|name| name.trim_start_matches(['{', ',']).to_owned()));
        }
    }
    series
}

/// What a query names: series, each with the labels that are asked of it; labels that are left; and functions.
#[derive(Debug, Default)]
struct Query {
    series: Vec<(String, Vec<String>)>,
    left: Option<BTreeSet<String>>,
    functions: BTreeSet<String>,
}

impl Query {
    /// As far as the queries of the dashboard go: each series has braces, and each `by` is followed by its labels.
    fn parse(text: &str) -> Query {
        let mut query = Query::default();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "_:$".contains(c);
            if !c.is_ascii_alphabetic() {
                // A number may have letters behind it, as a duration has.
                let more = c.is_ascii_digit() || c == '[';
                let end = rest.find(|c| !(more && (is_name(c) || "[].".contains(c))));
                rest = &rest[end.unwrap_or(rest.len()).max(c.len_utf8())..];
                continue;
            }
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            let after = after.trim_start();
            let within = |close| &after[1..after.find(close).expect("it is closed")];
            match after.chars().next() {
                Some('{') => {
                    let matchers = within('}').split("\", ").map(|matcher| {
                        let end = matcher.find(['=', '!']).expect("a label and what it is");
                        matcher[..end].to_owned()
                    });
                    query.series.push((name.to_owned(), matchers.collect()));
                    rest = &after[within('}').len() + 2..];
                }
                Some('(') if name == "by" => {
                    let labels = within(')').split(',').map(|label| label.trim().to_owned());
                    query.left.get_or_insert_default().extend(labels);
                    rest = &after[within(')').len() + 2..];
                }
                _ => {
                    query.functions.insert(name.to_owned());
                    rest = after;
                }
            }
        }
        query
    }
}

#[test]
fn queries_are_read() {
    let text = "8 * histogram_quantile(0.99, sum by (le, shard) (rate(a_bucket{job=~\"$job\", by=\"x\"}[$__rate_interval]))) > 0";
    let query = Query::parse(text);
    assert_eq!(query.series, [("a_bucket".to_owned(), vec!["job".to_owned(), "by".to_owned()])]);
    let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(names(query.left.as_ref().expect("some are left")), "le shard");
    assert_eq!(names(&query.functions), "histogram_quantile rate sum");
    assert_eq!(names(&Query::parse("up + 1").functions), "up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_asks_for_what_there_is() {
    // Nobody is there, but there is a link to be told of, and a list of more that is not there.
    let link = ["--cluster-connect", "moqt://127.0.0.1:9", "--connect-tls-insecure"];
    let listed = ["--cluster-connect-api", "/nowhere/list.json"];
    let more = [&["--internal-listen", "127.0.0.1:0"][..], &link, &listed].concat();
    let relay = Relay::prepared(1, &more, |_| {}).await;
    let scrape = get(relay.internal().await, "/metrics").await;
    let series = series(scrape.text());
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");

    let known = |text: &str, query: &Query| {
        for (name, labels) in &query.series {
            let found = series.get(name).unwrap_or_else(|| panic!("no {name}, in {text}"));
            for label in labels.iter().filter(|label| !ADDED.contains(&label.as_str())) {
                assert!(found.contains(label), "{name} has no {label}, in {text}");
            }
            for left in query.left.iter().flatten().filter(|left| !ADDED.contains(&left.as_str())) {
                assert!(found.contains(left), "{name} has no {left}, in {text}");
            }
        }
        assert!(!query.series.is_empty(), "nothing is asked for in {text}");
    };
    for page in [include_str!("../README.md"), include_str!("../docs/OPERATIONS.md")] {
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        let words = page.split(|c| !is_name(c));
        let names = words.filter(|word| {
            ["shardcast_", "moq_relay_"]
                .iter()
                .any(|begin| word.starts_with(begin) && word.len() > begin.len())
        });
        for name in names {
            let is_there =
                series.contains_key(name) || series.contains_key(&format!("{name}_bucket"));
            assert!(is_there, "{name} is told of, and is not there");
        }
    }
    let (mut ids, mut taken, mut asked) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        let kind = panel["type"].as_str().expect("a type");
        assert!(STOCK.contains(&kind), "{title}: {kind} is a plugin");
        assert!(
            ids.insert(panel["id"].as_u64().expect("a number")),
            "{title} has another's number"
        );
        let place = |side: &str| panel["gridPos"][side].as_u64().expect("a place");
        assert!(place("x") + place("w") <= COLUMNS, "{title} is too wide");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{title} is where another one is");
            }
        }
        if kind == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().expect("targets") {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let text = target["expr"].as_str().expect("a query");
            let query = Query::parse(text);
            known(text, &query);
            const FUNCTIONS: [&str; 6] =
                ["sum", "max", "min", "count", "rate", "histogram_quantile"];
            for function in &query.functions {
                assert!(FUNCTIONS.contains(&function.as_str()), "{function} in {text}");
            }
            for (name, labels) in &query.series {
                assert_eq!(labels[..2], ADDED, "{text}");
                let is_counter = name.ends_with("_total") || name.ends_with("_bucket");
                let is_difference = text.contains(") - sum(");
                assert_eq!(text.contains("rate("), is_counter && !is_difference, "{text}");
                asked.insert(name.clone());
            }
            // What a legend names has to be left of the series.
            let legend = target["legendFormat"].as_str().expect("a legend");
            for named in legend.split("{{").skip(1) {
                let named = named.split_once("}}").expect("it is closed").0;
                let is_left = match &query.left {
                    Some(left) => left.contains(named),
                    None => {
                        ADDED.contains(&named)
                            || query.series.iter().all(|(name, _)| series[name].contains(named))
                    }
                };
                assert!(is_left, "{title}: no {named} is left of {text}");
            }
        }
    }
    let mut names = BTreeSet::new();
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        let name = variable["name"].as_str().expect("a name");
        names.insert(name);
        if name == "datasource" {
            assert_eq!(
                (&variable["type"], &variable["query"]),
                (&"datasource".into(), &"prometheus".into())
            );
            continue;
        }
        let text = variable["definition"].as_str().expect("a query");
        assert_eq!(variable["query"]["query"], text);
        let inside = text.strip_prefix("label_values(").and_then(|text| text.strip_suffix(')'));
        let (selector, label) = inside.and_then(|text| text.rsplit_once(", ")).expect("two words");
        let metric = selector.split('{').next().expect("a name");
        assert!(series.contains_key(metric) && label == name, "{text}");
    }
    assert_eq!(names, BTreeSet::from(["datasource", "instance", "job"]));
    // What somebody who looks for the first time wants to see.
    for wanted in [
        "moq_relay_sessions_opened_total",
        "moq_relay_viewers_opened_total",
        "shardcast_tracks",
        "moq_relay_bytes_total",
        "shardcast_added_seconds_bucket",
        "shardcast_busy_seconds_total",
        "shardcast_dropped_groups_total",
        "shardcast_cache_bytes",
        "shardcast_cache_bytes_max",
        "shardcast_refusals_total",
        "moq_relay_draining_sessions",
        "shardcast_kernel_drops_total",
        "shardcast_rtt_seconds_bucket",
        "shardcast_loss_ratio_bucket",
        "shardcast_certificate_days_left",
    ] {
        assert!(asked.contains(wanted), "{wanted} is not shown");
    }
}
