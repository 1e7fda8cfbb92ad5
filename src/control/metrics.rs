//! The figures of a relay by name. Those that the existing relay has have its names and mean the same; they are
//! sums over all shards. All others begin with `shardcast_`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use time::OffsetDateTime;

use super::Site;
use super::links::{self, Link};
use super::proc::Process;
use crate::cluster::Shown;
use crate::estate::Before;
use crate::observe::{Histogram, Kind, Tally, Text};
use crate::session::{Class, Control, Traffic};
use crate::shard::entry::{QUIC, WEBSOCKET, WEBTRANSPORT};
use crate::shard::report::Report;
use crate::web::serve::Accepts;
use crate::wire::Path;

use Kind::{Counter, Gauge};

/// Nobody has another tier here.
const TIER: (&str, &str) = ("tier", "");

/// What peers are sent is what the relay publishes to them.
const SENT: &str = "publisher";
const RECEIVED: &str = "subscriber";

type Field = fn(&Traffic) -> u64;

const TRAFFIC: [(&str, &str, Field); 15] = [
    ("moq_relay_bytes_total", "Media payload bytes transferred.", |t| t.bytes),
    ("moq_relay_frames_total", "Media frames transferred.", |t| t.frames),
    ("moq_relay_groups_total", "Media groups transferred.", |t| t.groups),
    (
        "moq_relay_datagrams_total",
        "Single-frame groups carried over unreliable QUIC datagrams; a subset of groups.",
        |t| t.datagrams,
    ),
    (
        "moq_relay_stale_bytes_total",
        "Media payload bytes skipped after drifting beyond a subscriber's latency budget.",
        |t| t.stale_bytes,
    ),
    (
        "moq_relay_stale_frames_total",
        "Media frames skipped after drifting beyond a subscriber's latency budget.",
        |t| t.stale_frames,
    ),
    (
        "moq_relay_stale_groups_total",
        "Media groups skipped after drifting beyond a subscriber's latency budget.",
        |t| t.stale_groups,
    ),
    (
        "moq_relay_stale_datagrams_total",
        "Datagrams skipped after drifting beyond a subscriber's latency budget: none is kept so long.",
        |_| 0,
    ),
    ("moq_relay_fetches_total", "One-shot group fetches requested.", |t| t.fetches),
    ("moq_relay_announces_started_total", "Broadcast announces started.", |t| t.announces_started),
    (
        "moq_relay_announces_ended_total",
        "Broadcast announces ended; subtract from started for live announces.",
        |t| t.announces_ended,
    ),
    ("moq_relay_subscriptions_opened_total", "Track subscriptions opened.", |t| {
        t.subscriptions_opened
    }),
    (
        "moq_relay_subscriptions_closed_total",
        "Track subscriptions closed; subtract from opened for live subscriptions.",
        |t| t.subscriptions_closed,
    ),
    (
        "moq_relay_viewers_opened_total",
        "Distinct (broadcast, session) subscriptions opened.",
        |t| t.viewers_opened,
    ),
    (
        "moq_relay_viewers_closed_total",
        "Distinct (broadcast, session) subscriptions closed; subtract from opened for viewers.",
        |t| t.viewers_closed,
    ),
];

/// All figures, where shards have answered.
pub fn text(site: &Site, reports: &[Option<Box<Report>>], cluster: &Shown) -> String {
    let mut text = Text::default();
    about(site, &mut text);
    before(site, &mut text);
    let shards: Vec<(String, &Report)> = reports
        .iter()
        .enumerate()
        .filter_map(|(shard, report)| Some((shard.to_string(), &**report.as_ref()?)))
        .collect();
    text.family("shardcast_shard_up", Gauge, "Whether a shard has said what is below.");
    for (shard, report) in reports.iter().enumerate() {
        text.sample(&[("shard", &shard.to_string())], u8::from(report.is_some()));
    }
    traffic(&shards, &mut text);
    accepts(site, &mut text);
    clients(site, &shards, &mut text);
    delivery(&shards, &mut text);
    load(&shards, &mut text);
    sockets(site, &shards, &mut text);
    let guests = shards.iter().map(|(_, report)| report.now.guest_links as u64).sum();
    let links = Link::all(&cluster.rows, reports);
    links::figures(&links, cluster.list.as_ref(), guests, &mut text);
    if site.subject.track_metrics > 0 {
        tracks(&shards, site.subject.track_metrics, &mut text);
    }
    text.finish()
}

/// What runs here, and what the kernel knows of it.
fn about(site: &Site, text: &mut Text) {
    let subject = &site.subject;
    text.family("shardcast_build_info", Gauge, "Which relay this is; always 1.");
    text.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.single("shardcast_shards", Gauge, "Shards, each on a core.", subject.shards.len());
    let started = subject.started.unix(site.begun).as_secs_f64();
    let help = "Start time of the process since unix epoch in seconds.";
    text.single("process_start_time_seconds", Gauge, help, started);
    if let Some(process) = Process::look() {
        let help = "Total user and system CPU time spent in seconds.";
        text.single("process_cpu_seconds_total", Counter, help, process.cpu_seconds);
        let help = "Resident memory size in bytes.";
        text.single("process_resident_memory_bytes", Gauge, help, process.resident_bytes);
        text.single("process_open_fds", Gauge, "Number of open files.", process.open_files);
    }
    let gauge = &subject.gauge;
    let help = "Memory that is used, as it counts against the most that may be.";
    text.single("shardcast_memory_bytes", Gauge, help, gauge.used());
    text.single("shardcast_memory_bytes_max", Gauge, "Memory that may be used.", gauge.max());
    let help = "Whether so much of it is used that nobody is let in and the cache shrinks.";
    text.single("shardcast_memory_short", Gauge, help, u8::from(gauge.is_short()));
    let help = "How often that has become so.";
    text.single("shardcast_memory_shortages_total", Counter, help, gauge.shortages());
    let (pairs, now) = (subject.certificates.now(), OffsetDateTime::now_utc());
    let help = "When a certificate expires, since unix epoch in seconds.";
    text.family("shardcast_certificate_not_after_seconds", Gauge, help);
    for pair in pairs.iter() {
        let labels = [("certificate", &*pair.source.to_string())];
        text.sample(&labels, pair.not_after.unix_timestamp());
    }
    text.family("shardcast_certificate_days_left", Gauge, "Days until a certificate expires.");
    for pair in pairs.iter() {
        let labels = [("certificate", &*pair.source.to_string())];
        text.sample(&labels, (pair.not_after - now).as_seconds_f64() / 86_400.0);
    }
}

/// The process before this one.
fn before(site: &Site, text: &mut Text) {
    let before = *site.subject.before.borrow();
    let of = |field: fn(&Before) -> u64| before.as_ref().map_or(0, field);
    let help = "The process before this one by its id, while it still serves sessions; 0 where there is none.";
    text.single("shardcast_upgrade_process", Gauge, help, of(|before| before.process.into()));
    let help = "Sessions that it has.";
    text.single("shardcast_upgrade_sessions", Gauge, help, of(|before| before.sessions as u64));
    let help = "Until it ends, with whatever sessions it has then.";
    text.single("shardcast_upgrade_seconds", Gauge, help, of(|before| before.seconds));
}

/// What the existing relay counts too.
fn traffic(shards: &[(String, &Report)], text: &mut Text) {
    let (mut sent, mut received) = (Traffic::default(), Traffic::default());
    let (mut control_sent, mut control_received) = (Control::default(), Control::default());
    for (_, report) in shards {
        sent.add(&report.sessions.sent);
        received.add(&report.sessions.received);
        control_sent.add(&report.sessions.control_sent);
        control_received.add(&report.sessions.control_received);
    }
    for (name, help, field) in TRAFFIC {
        text.family(name, Counter, help);
        text.sample(&[TIER, ("role", SENT)], field(&sent));
        text.sample(&[TIER, ("role", RECEIVED)], field(&received));
    }
    let sum =
        |field: fn(&Report) -> u64| shards.iter().map(|(_, report)| field(report)).sum::<u64>();
    text.family("moq_relay_sessions_opened_total", Counter, "Connected sessions opened.");
    text.sample(&[TIER], sum(|report| report.counters.sessions_total));
    let help = "Connected sessions closed; subtract from opened for live sessions.";
    text.family("moq_relay_sessions_closed_total", Counter, help);
    text.sample(&[TIER], sum(|report| report.sessions.sessions_closed));
    let directions = [
        ("moq_relay_control_tx_bytes_total", "encoded for sending", &control_sent),
        ("moq_relay_control_rx_bytes_total", "decoded", &control_received),
    ];
    for (name, what, control) in directions {
        text.family(name, Counter, &format!("Control-message bytes {what}, by message class."));
        for class in Class::ALL {
            text.sample(&[TIER, ("class", class.name())], control.of(class));
        }
    }
    let help = "Sessions that were asked to leave and have not.";
    let leaving: usize = shards.iter().map(|(_, report)| report.now.parting).sum();
    text.single("moq_relay_draining_sessions", Gauge, help, leaving);
}

fn accepts(site: &Site, text: &mut Text) {
    let web = site.subject.web.as_ref().map(|accepts| ("web", accepts));
    let listeners: Vec<(&str, &Arc<Accepts>)> =
        web.into_iter().chain([("internal", &site.accepts)]).collect();
    let help = "Connections that a listener could not take, by why.";
    text.family("moq_relay_accept_failures_total", Counter, help);
    for (listener, accepts) in &listeners {
        let classes = [
            ("connection", &accepts.connection),
            ("exhausted", &accepts.exhausted),
            ("unknown", &accepts.unknown),
        ];
        for (class, count) in classes {
            let labels = [("listener", *listener), ("class", class)];
            text.sample(&labels, count.load(Ordering::Relaxed));
        }
    }
    let help = "How long connections have been waiting because none can be taken.";
    text.family("moq_relay_accept_stalled_seconds", Gauge, help);
    for (listener, accepts) in &listeners {
        text.sample(&[("listener", listener)], accepts.stalled().as_secs_f64());
    }
}

/// Who comes in, and who does not.
fn clients(site: &Site, shards: &[(String, &Report)], text: &mut Text) {
    gauges(shards, text, "shardcast_connections", "Connections.", |r| r.now.connections as u64);
    let help = "Handshakes in progress.";
    gauges(shards, text, "shardcast_handshakes", help, |r| r.now.handshakes as u64);
    let mut transports = Tally::of([QUIC, WEBTRANSPORT, WEBSOCKET]);
    let mut outcomes = Tally::of([]);
    let mut refusals = Tally::of([]);
    for (_, report) in shards {
        let handshakes = &report.quic.handshakes;
        for (outcome, count) in [
            ("completed", handshakes.completed),
            ("failed", handshakes.failed),
            ("timed_out", handshakes.timed_out),
            ("displaced", handshakes.displaced),
            ("no_memory", report.counters.refused_clients_total),
            ("address_full", report.counters.full_addresses_total),
            ("flood", report.counters.dropped_initials_total),
            ("retried", handshakes.retried),
        ] {
            outcomes.note_times(outcome, count);
        }
        refusals.add(&report.sessions.refusals);
        transports.add(&report.sessions.transports);
    }
    let help = "Sessions that have begun, by what carries them.";
    text.family("shardcast_sessions_total", Counter, help);
    text.tally("transport", &transports);
    if let Some(of_web) = &site.subject.web_refusals {
        refusals.add(&of_web.counts());
    }
    let help = "What became of clients' handshakes. Displaced ones made room for others, those of a \
                flood were not read, those of a full address came from one that has as many sessions as it \
                may, and who was retried had to prove its address and comes again.";
    text.family("shardcast_handshakes_total", Counter, help);
    text.tally("outcome", &outcomes);
    let help = "Sessions and requests over HTTP that were not let in, or had to leave, or went beyond what \
                they may, by why.";
    text.family("shardcast_refusals_total", Counter, help);
    text.tally("reason", &refusals);
    let help = "From a client's first datagram to the end of its handshake.";
    histogram(shards, text, "shardcast_handshake_seconds", help, |r| &r.quic.handshake_time);
    let help = "From the begin of a session to the first group that it is sent.";
    histogram(shards, text, "shardcast_join_seconds", help, |r| &r.sessions.join);
    let help = "From a subscription to the first group that is sent for it.";
    histogram(shards, text, "shardcast_first_group_seconds", help, |r| &r.sessions.first_group);
    let help = "Round trips: of each connection at its end, and of some at each scrape.";
    histogram(shards, text, "shardcast_rtt_seconds", help, |r| &r.quic.rtt);
    let help =
        "The part of a connection's packets that was lost: at its end, and of some at each scrape.";
    histogram(shards, text, "shardcast_loss_ratio", help, |r| &r.quic.loss);
}

/// How content passes, and what of it does not.
fn delivery(shards: &[(String, &Report)], text: &mut Text) {
    let help = "From when a shard takes what brought content to when the kernel has taken the first \
                of it, for each viewer and turn.";
    by_shard(shards, text, "shardcast_added_seconds", help, |r| &r.times.added);
    let help = "Time in which connections had something to send that had to wait: for congestion \
                control, behind what was not acknowledged, or for the kernel's buffers.";
    text.family("shardcast_held_seconds_total", Counter, help);
    for (shard, report) in shards {
        let quic = &report.quic;
        for (by, micros) in [
            ("congestion", quic.held_by_congestion),
            ("queue", quic.held_by_queue),
            ("socket", quic.held_by_socket),
        ] {
            let seconds = micros as f64 / Histogram::UNIT;
            text.sample(&[("shard", shard), ("by", by)], seconds);
        }
    }
    let mut cut = Tally::of([]);
    let mut dropped = Tally::of([]);
    for (_, report) in shards {
        cut.add(&report.sessions.cut_groups);
        let counters = &report.counters;
        let (fetched, datagrams) =
            (counters.dropped_fetches_total, counters.dropped_datagrams_total);
        dropped.note_times("live", counters.dropped_groups_total - fetched - datagrams);
        dropped.note_times("fetched", fetched);
        dropped.note_times("datagram", datagrams);
    }
    let help = "Groups that a viewer was not sent to their end, by why: old ones were too late for \
                him, and of what he has cancelled he wanted no more.";
    text.family("shardcast_cut_groups_total", Counter, help);
    for (reason, groups) in cut.rows() {
        text.sample(&[("reason", &reason.replace(' ', "_"))], groups);
    }
    let help = "Groups that were left out because a shard did not keep up with its mail, by what they were.";
    text.family("shardcast_dropped_groups_total", Counter, help);
    text.tally("kind", &dropped);
    gauges(shards, text, "shardcast_cache_bytes", "What groups take.", |r| r.now.cache_bytes);
    let help = "What groups may take.";
    gauges(shards, text, "shardcast_cache_bytes_max", help, |r| r.now.cache_room);
    let help = "Groups that left the cache for want of room or of interest.";
    counters(shards, text, "shardcast_evicted_groups_total", help, |r| {
        r.counters.evicted_groups_total
    });
    gauges(shards, text, "shardcast_tracks", "Tracks at home or mirrored.", |r| {
        r.now.tracks as u64
    });
    gauges(shards, text, "shardcast_routes", "Announced routes.", |r| r.now.routes as u64);
    let help =
        "Announcements that lead nowhere, for want of room or because their path is too long.";
    counters(shards, text, "shardcast_refused_routes_total", help, |r| {
        r.counters.refused_routes_total + r.counters.long_paths_total
    });
    let help = "Times that peers were told of another way to what they know already.";
    counters(shards, text, "shardcast_changed_announces_total", help, |r| {
        r.sessions.announces_changed
    });
    let help =
        "Announcements that have come through this relay before: other relays should make none.";
    counters(shards, text, "shardcast_reflected_announces_total", help, |r| {
        r.sessions.announces_reflected
    });
}

/// What shards do with their time and memory.
fn load(shards: &[(String, &Report)], text: &mut Text) {
    text.family(
        "shardcast_busy_seconds_total",
        Counter,
        "Time in turns; its rate is the busy share.",
    );
    for (shard, report) in shards {
        text.sample(&[("shard", shard)], report.times.busy as f64 / Histogram::UNIT);
    }
    by_shard(shards, text, "shardcast_turn_seconds", "How long turns take.", |r| &r.times.turns);
    let help = "From the turn that sent mail to a shard to the one that took it; a sample.";
    by_shard(shards, text, "shardcast_mail_seconds", help, |r| &r.times.mail);
    let help = "What it takes a shard to say what it has counted.";
    histogram(shards, text, "shardcast_report_seconds", help, |r| &r.times.reports);
    text.family(
        "shardcast_mail_waiting",
        Gauge,
        "Mail that waits: for the shard, and for room in others' lanes.",
    );
    for (shard, report) in shards {
        text.sample(&[("shard", shard), ("where", "in")], report.now.mail_in);
        text.sample(&[("shard", shard), ("where", "out")], report.now.mail_out);
    }
    let help = "Times that mail had to wait because a lane was full.";
    counters(shards, text, "shardcast_full_lanes_total", help, |r| r.counters.full_lanes_total);
    let help = "Mail for a session or a track that is gone.";
    counters(shards, text, "shardcast_stale_mail_total", help, |r| r.counters.stale_mail_total);
    let help = "What peers may make the shard hold, as they were granted it.";
    gauges(shards, text, "shardcast_granted_bytes", help, |r| r.now.granted_bytes);
    let help = "The most that they may be granted.";
    gauges(shards, text, "shardcast_granted_bytes_max", help, |r| r.now.granted_room);
    let help = "Clients of HTTP that wait for a group or receive one.";
    gauges(shards, text, "shardcast_guests", help, |r| r.now.guests as u64);
}

fn sockets(site: &Site, shards: &[(String, &Report)], text: &mut Text) {
    let help = "Datagrams that the kernel dropped because a shard's socket was full.";
    text.family("shardcast_kernel_drops_total", Counter, help);
    let rows = &site.subject.rows;
    for shard in 0..rows.shards() {
        if let Ok(drops) = rows.drops(shard) {
            text.sample(&[("shard", &shard.to_string())], drops);
        }
    }
    let help = "Datagrams that came.";
    counters(shards, text, "shardcast_datagrams_received_total", help, |r| {
        r.socket.received_datagrams_total
    });
    let help = "Datagrams that left.";
    counters(shards, text, "shardcast_datagrams_sent_total", help, |r| {
        r.socket.sent_datagrams_total
    });
    let help = "Bytes of datagrams that came.";
    counters(shards, text, "shardcast_udp_received_bytes_total", help, |r| {
        r.socket.received_bytes_total
    });
    let help = "Bytes of datagrams that left.";
    counters(shards, text, "shardcast_udp_sent_bytes_total", help, |r| r.socket.sent_bytes_total);
    let help = "Trains of datagrams that the kernel refused to send.";
    counters(shards, text, "shardcast_lost_trains_total", help, |r| r.socket.lost_trains_total);
    let help = "Datagrams of connections of another shard.";
    counters(shards, text, "shardcast_misrouted_datagrams_total", help, |r| {
        r.counters.misrouted_datagrams_total
    });
}

/// Tracks one by one, as far as the operator wants them: the first ones by name.
fn tracks(shards: &[(String, &Report)], most: usize, text: &mut Text) {
    let mut known: BTreeMap<(&Path, &str), [u64; 3]> = BTreeMap::new();
    for row in shards.iter().flat_map(|(_, report)| &report.tracks) {
        let [viewers, groups, bytes] = known.entry((&row.broadcast, &row.name)).or_default();
        *viewers += row.viewers as u64;
        *groups += row.groups;
        *bytes += row.bytes;
    }
    let families = [
        ("shardcast_track_viewers", Gauge, "Subscriptions to a track."),
        ("shardcast_track_groups_total", Counter, "Groups of a track that have come."),
        (
            "shardcast_track_bytes_total",
            Counter,
            "Bytes of a track that have come, with their framing.",
        ),
    ];
    for (at, (name, kind, help)) in families.into_iter().enumerate() {
        text.family(name, kind, help);
        for ((broadcast, track), values) in known.iter().take(most) {
            text.sample(&[("broadcast", broadcast.as_str()), ("track", track)], values[at]);
        }
    }
}

fn counters(
    shards: &[(String, &Report)],
    text: &mut Text,
    name: &'static str,
    help: &str,
    value: fn(&Report) -> u64,
) {
    text.family(name, Counter, help);
    each(shards, text, value);
}

fn gauges(
    shards: &[(String, &Report)],
    text: &mut Text,
    name: &'static str,
    help: &str,
    value: fn(&Report) -> u64,
) {
    text.family(name, Gauge, help);
    each(shards, text, value);
}

fn each(shards: &[(String, &Report)], text: &mut Text, value: fn(&Report) -> u64) {
    for (shard, report) in shards {
        text.sample(&[("shard", shard)], value(report));
    }
}

fn by_shard(
    shards: &[(String, &Report)],
    text: &mut Text,
    name: &'static str,
    help: &str,
    of: fn(&Report) -> &Histogram,
) {
    text.family(name, Kind::Histogram, help);
    for (shard, report) in shards {
        text.histogram(&[("shard", shard)], of(report));
    }
}

/// Of all shards together.
fn histogram(
    shards: &[(String, &Report)],
    text: &mut Text,
    name: &'static str,
    help: &str,
    of: fn(&Report) -> &Histogram,
) {
    let mut sum = Histogram::default();
    shards.iter().for_each(|(_, report)| sum.add(of(report)));
    text.family(name, Kind::Histogram, help);
    text.histogram(&[], &sum);
}
