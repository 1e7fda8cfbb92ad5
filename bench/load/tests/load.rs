//! The built client against a relay in this process: what it says it measured is what was offered.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard};

use serde_json::Value;
use shardcast::config::{Config, Request};
use shardcast::estate::Inherited;
use shardcast::relay::{self, Running};

/// One relay at a time: each pins its thread to the first core.
static STAGE: Mutex<()> = Mutex::new(());

struct Relay {
    running: Option<Running>,
    url: String,
    _stage: MutexGuard<'static, ()>,
}

impl Relay {
    fn start(public: &str) -> Relay {
        // A play that has failed has left nothing behind that another could stumble over.
        let stage = STAGE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let listen = ["--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"];
        let args = [&["shardcast", "--auth-public", public], &listen[..]].concat();
        let args = args.into_iter().map(OsString::from);
        let Ok(Request::Run(config)) = Config::parse(args, []) else {
            panic!("a relay takes these arguments")
        };
        let running = relay::start(&config, Inherited::default()).unwrap();
        let url = format!("moqt://{}", running.addr());
        Relay { running: Some(running), url, _stage: stage }
    }

    /// Loads it and gives back how that ended.
    fn load(&self, args: &[&str]) -> Output {
        load(&[&["--url", &self.url, "--json", "-", "--ramp", "1000"], args].concat())
    }

    /// The JSON lines of a load that succeeds.
    #[track_caller]
    fn measure(&self, args: &[&str]) -> Vec<Value> {
        let output = self.load(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What the relay says of itself.
struct Figures(String);

impl Figures {
    fn of(relay: &Relay) -> Figures {
        let internal = relay.running.as_ref().and_then(|running| running.internal_addr());
        let internal: SocketAddr = internal.expect("it listens there");
        let mut http = TcpStream::connect(internal).unwrap();
        write!(http, "GET /metrics HTTP/1.1\r\nHost: {internal}\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        http.read_to_string(&mut text).unwrap();
        Figures(text)
    }

    /// The value of the first row that begins so.
    #[track_caller]
    fn row(&self, begin: &str) -> f64 {
        let row = self.0.lines().find(|line| line.starts_with(begin));
        let row = row.unwrap_or_else(|| panic!("no {begin} in {}", self.0));
        row.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// In microseconds, where the bucket of the only shard begins that so many in a hundred are up to.
    fn percentile(&self, family: &str, percent: f64) -> f64 {
        let rank = self.row(&format!("{family}_count")) * percent / 100.0;
        let bucket = format!("{family}_bucket");
        let mut begin = 0.0;
        for row in self.0.lines().filter(|line| line.starts_with(&bucket)) {
            let (labels, below) = row.rsplit_once(' ').unwrap();
            if below.parse::<f64>().unwrap() >= rank {
                break;
            }
            let end = labels.split("le=\"").nth(1).and_then(|end| end.split('"').next());
            begin = end.and_then(|end| end.parse::<f64>().ok()).unwrap() * 1e6;
        }
        begin
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let running = self.running.take().expect("it is stopped once");
        let stopped = running.stop();
        if !std::thread::panicking() {
            stopped.unwrap();
        }
    }
}

fn load(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardcast-load"));
    command.args(args).output().unwrap()
}

/// A total says that everything was delivered.
#[track_caller]
fn check_whole(total: &Value, offered: u64) {
    assert_eq!(total["type"], "total", "{total}");
    assert_eq!(total["offered"], offered, "{total}");
    assert_eq!(total["delivered"], offered, "{total}");
    for nothing in ["lost_groups", "lost_frames", "errors"] {
        assert_eq!(total[nothing], 0, "{nothing} in {total}");
    }
    let latency = &total["latency_us"];
    let (p50, max) = (latency["p50"].as_u64().unwrap(), latency["max"].as_u64().unwrap());
    assert!(0 < p50 && p50 <= max, "{total}");
}

const SHORT: [&str; 4] = ["--warmup", "300ms", "--duration", "2s"];

#[test]
fn a_chat_is_delivered_as_a_whole() {
    let relay = Relay::start("**");
    for version in ["06", "05"] {
        let args = ["--version", version, "--viewers", "5", "chat"];
        let lines = relay.measure(&[&SHORT[..], &args].concat());
        let kinds: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["start", "second", "second", "total"]);
        let total = &lines[3];
        check_whole(total, 2 * 20 * 5);
        assert_eq!(total["version"], version);
        assert_eq!(total["connections"], 6);
        let seconds = lines[1..3].iter().map(|line| line["delivered"].as_u64().unwrap());
        assert_eq!(seconds.sum::<u64>(), 200);
    }
}

/// What the relay says that it has sent, and how long it took over that.
#[test]
fn the_relay_has_counted_the_same() {
    let relay = Relay::start("**");
    let args = ["--warmup", "0ms", "--duration", "2s", "--viewers", "5", "chat"];
    let lines = relay.measure(&args);
    let total = lines.last().unwrap();
    check_whole(total, 2 * 20 * 5);
    let figures = Figures::of(&relay);
    let frames = |role| figures.row(&format!("moq_relay_frames_total{{tier=\"\",role=\"{role}\""));
    let delivered = total["delivered"].as_f64().unwrap();
    assert_eq!((frames("publisher"), frames("subscriber")), (delivered, delivered / 5.0));
    for (percent, key) in [(50.0, "p50"), (99.0, "p99")] {
        let relay = figures.percentile("shardcast_added_seconds", percent);
        let client = total["latency_us"][key].as_f64().unwrap();
        println!("{key}: {relay} us and more, of {client} us");
        assert!(0.0 < relay && relay <= client, "{key}: {relay} us of {client} us");
    }
}

#[test]
fn tracks_broadcasts_and_viewers_are_all_served() {
    let relay = Relay::start("**");
    let args = ["--publishers", "2", "--broadcasts-per-publisher", "2"];
    let more = ["--tracks-per-broadcast", "2", "--viewers", "6", "--viewers-per-connection", "3"];
    let lines = relay.measure(&[&SHORT[..], &args, &more, &["audio"]].concat());
    let total = lines.last().unwrap();
    check_whole(total, 2 * 50 * 2 * 6);
    assert_eq!(total["connections"], 4);
}

#[test]
fn users_publish_and_watch() {
    let relay = Relay::start("**");
    let lines = relay.measure(&[&SHORT[..], &["--viewers", "4", "--rate", "10", "rooms"]].concat());
    check_whole(lines.last().unwrap(), 2 * 10 * 4);
}

#[test]
fn tracks_that_differ_are_delivered_as_a_whole() {
    let relay = Relay::start("**");
    let fewer = ["--viewers", "3", "--watched-per-user", "2", "meeting"];
    let lines = relay.measure(&[&SHORT[..], &fewer].concat());
    check_whole(lines.last().unwrap(), 2 * (50 + 20) * 3 * 2);
}

#[test]
fn announcements_are_all_heard() {
    let relay = Relay::start("**");
    for version in ["06", "05"] {
        let fewer = ["--publishers", "2", "--broadcasts-per-publisher", "20"];
        let args = ["--version", version, "--viewers", "3", "--churn-per-s", "10", "announce"];
        // By then those that have ended first are back.
        let span = ["--warmup", "1s", "--duration", "2s"];
        let lines = relay.measure(&[&span[..], &fewer, &args].concat());
        let total = lines.last().unwrap();
        // Each of 10 per second ends and begins, and three hear of it.
        assert_eq!(total["announcements"], 2 * 10 * 2 * 3, "{total}");
        assert_eq!(total["lost_announcements"], 0, "{total}");
        assert!(total["latency_us"]["p99"].as_u64().unwrap() > 0, "{total}");
    }
}

#[test]
fn fetches_are_all_answered() {
    let relay = Relay::start("**");
    let args = ["--warmup", "2s", "--duration", "1s", "--viewers", "2", "--fetches-per-s", "20"];
    for version in ["06", "05"] {
        let lines = relay.measure(&[&args[..], &["--version", version, "fetch"]].concat());
        let total = lines.last().unwrap();
        check_whole(total, 30 * 2);
        assert_eq!((&total["fetched_groups"], &total["lost_fetches"]), (&20.into(), &0.into()));
        assert!(total["fetch_latency_us"]["p50"].as_u64().unwrap() > 0, "{total}");
    }
}

#[test]
fn the_relay_process_is_measured() {
    let relay = Relay::start("**");
    let pid = std::process::id().to_string();
    let args = ["--relay-pid", &pid, "--viewers", "20", "--rate", "100", "chat"];
    let lines = relay.measure(&[&SHORT[..], &args].concat());
    let used = &lines.last().unwrap()["relay"];
    assert!(used["cpu_s"].as_f64().unwrap() > 0.0, "{used}");
    assert!(used["cpu_us_per_copy"].as_f64().unwrap() > 0.0, "{used}");
    let threads = used["threads"].as_array().unwrap();
    assert!(threads.iter().any(|thread| thread["name"] == "shard-0"), "{used}");
}

#[test]
fn the_most_viewers_are_found() {
    let relay = Relay::start("**");
    // Nobody can lose nothing within no time: the search goes down to the end.
    let args = ["--find-max", "--max-p99", "0s", "--viewers", "2", "--rate", "50", "chat"];
    let output = relay.load(&[&["--warmup", "100ms", "--duration", "300ms"], &args[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let probes: Vec<_> = lines.iter().filter(|line| line["type"] == "probe").collect();
    let tried: Vec<_> = probes.iter().map(|line| line["viewers"].as_u64().unwrap()).collect();
    assert_eq!(tried, [2, 1]);
    assert!(probes.iter().all(|line| line["ok"] == false && line["lost_frames"] == 0));
    let expect: Value = serde_json::from_str(r#"{"type": "max", "viewers": 0}"#).unwrap();
    assert_eq!(lines.last(), Some(&expect));
}

/// `expect` is a part of the one line that it says.
#[track_caller]
fn check_failure(output: &Output, code: i32, expect: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(expect), "{stderr}");
}

#[test]
fn a_relay_that_is_not_there_is_named() {
    // Bound and never read, so that nothing answers and nobody else can have the port.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let output = load(&["--quiet", "--url", &format!("moqt://{address}"), "chat"]);
    check_failure(&output, 1, &format!("no answer from {address} within 5 s"));
}

#[test]
fn refusals_are_explained() {
    let relay = Relay::start("elsewhere/**");
    let output = relay.load(&["--viewers", "1", "chat"]);
    check_failure(&output, 1, "may load/chat/0 be published there?");
    drop(relay);

    let usage = [
        (&["nothing"][..], "no scenario `nothing`"),
        (&["--rate", "0", "chat"], "chat: `rate` must be more than 0"),
        (&["--url", "https://127.0.0.1", "chat"], "must begin with moqt://"),
        (&["--url", "moqt://192.0.2.1:1", "chat"], "--tls-root"),
        (&["--find-max", "idle"], "nothing that could be late"),
        (&["--rate", "5", "meeting"], "meeting: `rate` cannot be said"),
    ];
    for (args, expect) in usage {
        check_failure(&load(args), 2, expect);
    }
    let gone = load(&["--relay-pid", "4194305", "--url", "moqt://127.0.0.1:1", "chat"]);
    check_failure(&gone, 1, "there is no process 4194305");
}
