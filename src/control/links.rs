//! Links with other relays: which there should be, and how each is.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::Site;
use crate::cluster::Listing;
use crate::cluster::desk::Row;
use crate::observe::{Kind, Text};
use crate::shard::links::{LinkRow, With};
use crate::shard::report::Report;

use Kind::{Counter, Gauge};

/// What the desk says where there is a link, but not one of ours.
const YIELDING: &str = "yielding";
const ITSELF: &str = "itself";

/// A relay that there is to be a link with, as the desk has it, and as its shard does while it is up.
pub struct Link<'a> {
    row: &'a Row,
    shown: Option<&'a LinkRow>,
}

impl<'a> Link<'a> {
    pub fn all(rows: &'a [Row], reports: &'a [Option<Box<Report>>]) -> Vec<Link<'a>> {
        let shown = |row: &Row| {
            let mut links = reports.get(row.shard)?.as_ref()?.links.iter();
            let with = With::Dialled(row.link?);
            links.find(|shown| shown.with == with)
        };
        rows.iter().map(|row| Link { row, shown: shown(row) }).collect()
    }

    /// Whoever of the two has dialled.
    fn is_up(&self) -> bool {
        self.shown.is_some() || self.row.state == YIELDING
    }

    /// The address of the one of many; else the entry says who it is.
    fn address(&self) -> String {
        let address = self.row.address.filter(|_| self.row.place.is_set);
        address.map(|address| address.to_string()).unwrap_or_default()
    }

    fn json(&self, now: Instant) -> Value {
        let Row { place, address, state, link, hop, since, dials, last_error, shard } = self.row;
        let mut row = Map::new();
        let mut add = |name: &str, value: Value| row.insert(name.to_owned(), value);
        add("node", place.to_string().into());
        add("direction", "out".into());
        // As the existing relay has them: those that are up.
        let up = link.iter().filter(|_| self.shown.is_some());
        add("connections", up.map(|link| json!({ "id": link.0 })).collect());
        add("state", (*state).into());
        add("seconds", now.saturating_duration_since(*since).as_secs().into());
        add("dials", (*dials).into());
        add("shard", (*shard).into());
        if let Some(address) = address {
            add("address", address.to_string().into());
        }
        if let Some(hop) = hop {
            add("hop", (*hop).into());
        }
        if let Some(error) = last_error {
            add("last_error", error.as_str().into());
        }
        if let Some(shown) = self.shown {
            add_figures(&mut row, shown, now);
        }
        Value::Object(row)
    }
}

/// A relay of the cluster that has dialled this one.
fn guest_json(shard: usize, name: Option<&str>, shown: &LinkRow, now: Instant) -> Value {
    let mut row = Map::new();
    let mut add = |name: &str, value: Value| row.insert(name.to_owned(), value);
    let address = shown.remote.to_string();
    add("node", name.unwrap_or(&address).into());
    add("direction", "in".into());
    add("connections", json!([{}]));
    add("state", "up".into());
    add("seconds", now.saturating_duration_since(shown.began).as_secs().into());
    add("shard", shard.into());
    add("address", address.into());
    add("hop", shown.hop.into());
    add_figures(&mut row, shown, now);
    Value::Object(row)
}

fn add_figures(row: &mut Map<String, Value>, shown: &LinkRow, now: Instant) {
    let mut add = |name: &str, value: Value| row.insert(name.to_owned(), value);
    add("transport", shown.transport.into());
    add("alpn", shown.protocol.into());
    add("heard_ms", (now.saturating_duration_since(shown.heard_at).as_millis() as u64).into());
    add("rtt_ms", (shown.rtt.as_secs_f64() * 1e3).into());
    add("loss", (shown.loss as f64 / 1e6).into());
    add("routes", shown.routes.into());
    add("sent_bytes", shown.sent.into());
    add("received_bytes", shown.received.into());
}

/// Relays that there should be links with, and behind them those that have dialled this one.
pub async fn list(State(site): State<Arc<Site>>) -> Response {
    let (cluster, reports) = (site.cluster().await, site.reports().await);
    let (links, now) = (Link::all(&cluster.rows, &reports), Instant::now());
    let mut nodes: Vec<Value> = links.iter().map(|link| link.json(now)).collect();
    for (shard, report) in reports.iter().enumerate() {
        for shown in report.iter().flat_map(|report| &report.links) {
            if let With::Guest(name) = &shown.with {
                nodes.push(guest_json(shard, name.as_deref(), shown, now));
            }
        }
    }
    let mut shown = json!({ "nodes": nodes });
    if let Some(Listing { from, relays, last_error }) = &cluster.list {
        shown["list"] = json!({ "from": from, "relays": relays });
        if let Some(error) = last_error {
            shown["list"]["last_error"] = error.as_str().into();
        }
    }
    let text = shown.to_string() + "\n";
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

type Field = (&'static str, Kind, &'static str, fn(&LinkRow) -> f64);

const FIELDS: [Field; 5] = [
    ("shardcast_link_rtt_seconds", Gauge, "Round trip of a link.", |l| l.rtt.as_secs_f64()),
    (
        "shardcast_link_loss_ratio",
        Gauge,
        "Packets of a link that were lost on their way to the peer.",
        |l| l.loss as f64 / 1e6,
    ),
    ("shardcast_link_routes", Gauge, "Announcements of the peer of a link.", |l| l.routes as f64),
    ("shardcast_link_sent_bytes_total", Counter, "Bytes sent over a link since it is up.", |l| {
        l.sent as f64
    }),
    (
        "shardcast_link_received_bytes_total",
        Counter,
        "Bytes that came over a link since it is up.",
        |l| l.received as f64,
    ),
];

pub fn figures(links: &[Link<'_>], list: Option<&Listing>, guests: u64, text: &mut Text) {
    if let Some(list) = list {
        let help = "Whether the list of relays could be read when it was last looked at.";
        let is_read = u8::from(list.last_error.is_none());
        text.single("shardcast_cluster_list_up", Gauge, help, is_read);
    }
    let help = "Relays of the cluster that have dialled this one.";
    text.single("shardcast_guest_links", Gauge, help, guests);
    let named: Vec<(String, String)> =
        links.iter().map(|link| (link.row.place.to_string(), link.address())).collect();
    let labels = |at: usize| [("peer", named[at].0.as_str()), ("address", named[at].1.as_str())];
    let help = "Whether there is a link with a relay that is dialled, ours or its own.";
    text.family("shardcast_link_up", Gauge, help);
    for (at, link) in links.iter().enumerate().filter(|(_, link)| link.row.state != ITSELF) {
        text.sample(&labels(at), u8::from(link.is_up()));
    }
    text.family("shardcast_link_dials_total", Counter, "Times that a relay was dialled.");
    for (at, link) in links.iter().enumerate() {
        text.sample(&labels(at), link.row.dials);
    }
    for (name, kind, help, field) in FIELDS {
        text.family(name, kind, help);
        for (at, shown) in links.iter().enumerate().filter_map(|(at, l)| Some((at, l.shown?))) {
            text.sample(&labels(at), field(shown));
        }
    }
}
