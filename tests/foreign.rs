//! Released clients that are no part of this build judge the relay: moq-clock, which knows nothing
//! newer than lite-04, Python, and whatever speaks HTTP.

#[allow(dead_code, reason = "each test needs a part of what all share")]
mod clients {
    pub mod actor;
    pub mod program;
}
#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod client;
    pub mod relay;
}

use std::process::Command;

use clients::actor::{Actor, certificate_hash, parse_group};
use clients::program::Program;
use support::client::*;
use support::relay::Relay;

/// Fixes every payload.
const SEED: u64 = 0x5eed_ca57_0000_000c;

const PATH: &str = "live/cam";
const TRACK: &str = "video";

const SHARDS: usize = 2;

const SIZES: [usize; 6] = [0, 1, 300, 4096, 64 << 10, 1 << 20];

const MOQ_CLOCK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/bin/moq-clock");

/// Ten groups of these fit the window of a connection that is new.
const SMALL_SIZES: [usize; 3] = [0, 1, 300];
const LATE_VIEWERS: usize = 4;

/// Each ends, and the next one begins at once.
const SHOWS: u64 = 5;

/// Seconds of the publisher's clock that the other one must print.
const CLOCK_LINES: usize = 3;

#[tokio::test]
async fn the_clock_over_webtransport() {
    clock(&Relay::start(SHARDS).await.web()).await;
}

#[tokio::test]
async fn the_clock_over_raw_quic() {
    clock(&Relay::start(SHARDS).await).await;
}

/// One process publishes its clock, another prints it.
async fn clock(relay: &Relay) {
    let accepted = relay.accepting().await;
    let publisher = moq_clock(relay, "publish");
    accepted.shard(LITE_04).await;
    let accepted = relay.accepting().await;
    let viewer = moq_clock(relay, "subscribe");
    accepted.shard(LITE_04).await;

    let mut seconds = Vec::new();
    while seconds.len() < CLOCK_LINES {
        let line = viewer.stdout.find(seconds.len(), "the next second", |_| true).await;
        seconds.push(second(&line));
    }
    // A slow publisher may pass over some of them.
    assert!(seconds.is_sorted_by(|a, b| a < b), "{seconds:?}");
    assert!(publisher.stdout.so_far().is_empty(), "only the viewer prints");
}

fn moq_clock(relay: &Relay, role: &str) -> Program {
    let mut command = Command::new(MOQ_CLOCK);
    command
        .args(["--url", &relay.url()])
        .args(["--broadcast", PATH])
        .args(["--client-bind", "127.0.0.1:0"])
        .arg("--tls-disable-verify")
        .arg(role);
    Program::start(role, command)
}

/// Such as 2026-11-25 21:00:57, which sorts as time goes.
#[track_caller]
fn second(line: &str) -> String {
    let shape: String =
        line.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
    assert_eq!(shape, "0000-00-00 00:00:00", "{line}");
    line.to_owned()
}

/// Python publishes and watches, over both transports, and fetches what is past.
#[tokio::test]
async fn python_to_python() {
    let raw = Relay::start(SHARDS).await;
    for (published, watched) in [(raw.clone(), raw.web()), (raw.web(), raw.clone())] {
        println!("{} to {}", published.url(), watched.url());
        let (publisher, viewer) = (Actor::python(), Actor::python());
        publisher.connect(&published, "").await.expect("a session");
        viewer.connect(&watched, "").await.expect("a session");
        let (first, script) = (Script::new(SEED, 0, 1, &SIZES), Script::new(SEED, 1, 2, &SIZES));

        publisher.tell(format!("announce('{PATH}','{TRACK}')")).await;
        publisher.publish(TRACK, &first).await;
        assert_eq!(viewer.tell("hear()").await, format!("{PATH} up"));
        // This client asks for nothing before it reads.
        viewer.tell(format!("subscribe('{PATH}','{TRACK}')")).await;
        viewer.expect(&first, true).await;
        publisher.publish(TRACK, &script).await;
        viewer.expect(&script, true).await;

        let (sequence, frames) =
            parse_group(&viewer.tell(format!("fetchGroup('{PATH}','{TRACK}',1)")).await);
        script.compare_from("fetched", sequence, 0, &frames, true);
        publisher.tell(format!("send('{TRACK}',9000,'c0ffee')")).await;
        assert_eq!(viewer.tell("receive()").await, "3 9000/90000:c0ffee");

        publisher.tell(format!("finish('{TRACK}')")).await;
        assert_eq!(viewer.tell("group()").await, "end");
        publisher.tell("leave()").await;
        assert_eq!(viewer.tell("hear()").await, format!("{PATH} down"));
    }
}

/// Who joins late and asks for the past gets all of it, reading in sequence order.
#[tokio::test]
async fn python_reads_the_past_in_sequence_order() {
    let raw = Relay::start(SHARDS).await;
    let plays = [raw.clone(), raw.web()].map(|relay| [(relay.clone(), false), (relay, true)]);
    for (relay, has_ended) in plays.into_iter().flatten() {
        println!("{}, ended: {has_ended}", relay.url());
        let (publisher, early) = (Actor::python(), Actor::python());
        publisher.connect(&relay, "").await.expect("a session");
        early.connect(&relay, "").await.expect("a session");
        publisher.tell(format!("announce('{PATH}','{TRACK}')")).await;
        assert_eq!(early.tell("hear()").await, format!("{PATH} up"));
        early.tell(format!("subscribe('{PATH}','{TRACK}')")).await;
        let past = Script::new(SEED, 0, 10, &SMALL_SIZES);
        publisher.publish(TRACK, &past).await;
        // Thus the relay holds it.
        early.expect(&past, true).await;
        if has_ended {
            publisher.tell(format!("finish('{TRACK}')")).await;
            assert_eq!(early.tell("group()").await, "end");
        }
        // They are at either shard.
        for _ in 0..LATE_VIEWERS {
            let late = Actor::python();
            late.connect(&relay, "").await.expect("a session");
            assert_eq!(late.tell("hear()").await, format!("{PATH} up"));
            late.tell(format!("subscribePast('{PATH}','{TRACK}')")).await;
            for group in &past.groups {
                let (sequence, frames) = parse_group(&late.tell("next()").await);
                assert_eq!(sequence, group.sequence);
                past.compare_from("late", sequence, 0, &frames, true);
            }
            late.tell("leave()").await;
        }
    }
}

/// Who follows the announcements sees every show of a name, however soon it begins.
#[tokio::test]
async fn python_hears_that_one_show_ends_and_the_next_begins() {
    let raw = Relay::start(SHARDS).await;
    for relay in [raw.clone(), raw.web()] {
        println!("{}", relay.url());
        let (publisher, viewer) = (Actor::python(), Actor::python());
        publisher.connect(&relay, "").await.expect("a session");
        viewer.connect(&relay, "").await.expect("a session");
        publisher.tell(format!("announce('{PATH}','{TRACK}')")).await;
        for show in 0..SHOWS {
            // The client may make one word of both.
            let mut told = viewer.tell("hear()").await;
            if told == format!("{PATH} down") {
                told = viewer.tell("hear()").await;
            }
            assert_eq!(told, format!("{PATH} up"), "show {show}");
            let script = Script::new(SEED + show, 0, 1, &SIZES);
            publisher.publish(TRACK, &script).await;
            viewer.tell(format!("subscribe('{PATH}','{TRACK}')")).await;
            viewer.expect(&script, true).await;
            publisher.tell(format!("replace('{PATH}','{TRACK}')")).await;
        }
    }
}

/// What an operator types, with a broadcast there.
#[tokio::test]
async fn curl_asks_what_is_there() {
    let relay = Relay::start(SHARDS).await;
    let publisher = Actor::python();
    publisher.connect(&relay, "").await.expect("a session");
    assert_eq!(curl(&relay, "/announced").await, "", "nothing is announced");

    publisher.tell(format!("announce('{PATH}','{TRACK}')")).await;
    publisher.tell(format!("write('{TRACK}',0,[[0,'68656c6c6f20'],[3000,'776f726c64']])")).await;
    let mut viewer = Peer::connect(&relay, LITE_06, Role::Viewer).await;
    viewer.sees(PATH).await;

    assert_eq!(curl(&relay, "/health").await, "ok");
    assert_eq!(curl(&relay, "/certificate.sha256").await.trim(), certificate_hash(&relay));
    assert_eq!(curl(&relay, "/announced").await, PATH);
    assert_eq!(curl(&relay, &format!("/fetch/{PATH}/{TRACK}?group=0")).await, "hello world");
}

/// The lines of the answer.
async fn curl(relay: &Relay, path: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--http1.1"]);
    command.arg(format!("http://{}{path}", relay.address()));
    let mut curl = Program::start("curl", command);
    let status = curl.ended().await;
    let (told, error) = (curl.stdout.so_far(), curl.stderr.so_far());
    assert!(status.success(), "{path}: {error:?}");
    told.join("\n")
}
