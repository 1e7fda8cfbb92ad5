//! What fails within a relay or around it, on real processes: a core, a shard, memory, descriptors, the
//! sending of datagrams. An operator is told in one line, whoever is not concerned loses nothing, and a
//! relay of which a part is lost for good ends. Publishers that are lost are in `drills.rs`.

mod support {
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod client;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod firewall;
    pub mod flow;
    pub mod held;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod http;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod process;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod raw;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod relay;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod show;
}

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use quinn_proto::Dir;
use shardcast::limits::{
    HANGING_LOOKS_MAX, LAST_WORDS_MAX, OUTBOX_LIVE_MAX, SHARD_ANSWER_MAX, WATCH_INTERVAL,
};
use shardcast::shard::placement::home_of;
use shardcast::wire::{AnnounceRequest, BidiType, Path, Version};
use support::client::{Heard, LITE_06, Peer, Role, Script, carries_timestamps};
use support::firewall::Firewall;
use support::held::Held;
use support::http::{Exchange, get};
use support::process::{Process, shardcast};
use support::raw::{Raw, Stream};
use support::relay::Relay;
use support::show::{SEED, Show, TRACK};
use tokio::io::AsyncReadExt;

/// How long anything may take that is expected at once.
const PATIENCE: Duration = Duration::from_secs(10);

// ---- shards ----

/// A relay with clients of which the last is on shard 1.
async fn relay_with_guests() -> (Process, Vec<Raw>) {
    /// (1/2)^64 is the chance that none of so many clients reaches it.
    const TRIES_MAX: usize = 64;
    let mut relay = Process::spawn(shardcast(&["--listen", "127.0.0.1:0", "--shards", "2"]));
    let address = relay.listening(PATIENCE);
    let mut guests = Vec::new();
    for number in 0..TRIES_MAX {
        guests.push(Raw::introduced(address, Version::Lite06).await);
        let line = relay.stderr_line(&format!(" remote={} ", guests[number].address()), PATIENCE);
        if line.contains("negotiated shard=1 ") {
            return (relay, guests);
        }
    }
    panic!("no client reached shard 1 in {TRIES_MAX} tries");
}

/// A fault of the relay that ends one shard ends the process, in words and with a code, and the clients of
/// the others are told.
#[cfg(target_arch = "x86_64")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_panics_ends_the_relay() {
    let (relay, mut guests) = relay_with_guests().await;
    let shard = Held::hold(relay.id(), "shard-0");
    let begun = Instant::now();
    shard.panic(relay.id());
    let lost = guests.pop().expect("a guest of shard 1").lost("the end of the relay").await;
    assert!(lost.code.is_some(), "closed, and not timed out: {lost:?}");
    let ended = relay.ended(LAST_WORDS_MAX + PATIENCE);
    println!("told after {:?}, gone after {:?}", lost.at - begun, begun.elapsed());
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("shardcast: thread 'shard-0' panicked at "), "{}", ended.stderr);
    let last = ended.stderr.lines().last().expect("a last line");
    assert!(last.starts_with("shardcast: thread shard-0 panicked, "), "{last}");
}

/// A shard whose core is taken away from it: the other one serves its viewers as if nothing were, no
/// more mail than said waits for it, `/health` names it, and it goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_stalls_holds_up_no_other() {
    /// At home on shard 1, where its publisher is too.
    const PATH: &str = "live/cam";
    /// Half of the stall at most, so that nobody has waited for its end.
    const LATE: Duration = Duration::from_secs(1);
    /// More turns than the lane and the outbox have room for.
    const GROUPS_MIN: u64 = 2 * OUTBOX_LIVE_MAX as u64 + 500;
    const GROWTH_MAX: u64 = 16 << 20;
    let relay = Relay::start(2).await;
    let track = (0..).map(|n| format!("video{n}")).find(|name| home_of(PATH, name, 2) == 1);
    let track = track.expect("some are at home there");
    let publisher = Peer::connect_on(&relay, LITE_06, Role::Publisher, 1).await;
    let mut channel = publisher.announce(PATH, &[&track]);
    let say = |sequence| Script::new(SEED, sequence, 1, &[100]);
    channel.publish(&track, &say(0));
    let mut views = Vec::new();
    for shard in [0, 1] {
        let mut viewer = Peer::connect_on(&relay, LITE_06, Role::Viewer, shard).await;
        viewer.sees(PATH).await;
        let mut view = viewer.subscribe(PATH, &track).await.expect("a subscription");
        view.expect("a viewer", &say(0), carries_timestamps(LITE_06)).await;
        views.push((viewer, view));
    }
    let memory = memory(relay.id());

    let stalled = Held::hold(relay.id(), "shard-0");
    let begun = Instant::now();
    let address = relay.address();
    let health = tokio::spawn(async move { get(address, "/health").await });
    let mut lags = Vec::new();
    while lags.len() < GROUPS_MIN as usize || !health.is_finished() {
        let sequence = lags.len() as u64 + 1;
        let said = Instant::now();
        channel.publish(&track, &say(sequence));
        let (heard, _) = views[1].1.group("the viewer on shard 1").await.expect("a group");
        assert_eq!(heard, sequence);
        lags.push(said.elapsed());
    }
    health.await.expect("an answer").refuses(503, "no answer from shard 0");
    relay.says("a shard does not turn").await;
    let stall = begun.elapsed();
    assert!(stall >= SHARD_ANSWER_MAX, "{stall:?}");
    let grown = self::memory(relay.id()).saturating_sub(memory);
    stalled.let_go();
    lags.sort_unstable();
    let (median, last) = (lags[lags.len() / 2], lags[lags.len() - 1]);
    println!(
        "{} groups in {stall:?}, after {median:?}, the latest after {last:?}; {} KiB more",
        lags.len(),
        grown >> 10
    );
    assert!(last <= LATE, "{last:?}");
    assert!(grown <= GROWTH_MAX, "{grown} bytes more");

    relay.says("the shard turns again").await;
    get(address, "/health").await.expect(200, "ok\n");
    let next = lags.len() as u64 + 1;
    channel.publish(&track, &say(next));
    // Of what has waited some is too old by now.
    loop {
        match views[0].1.next("the newest group on shard 0").await {
            Heard::Complete(sequence) if sequence == next => break,
            Heard::Frame(..) | Heard::Complete(_) | Heard::Broken(..) => {}
            heard => panic!("{heard:?} of a track that goes on"),
        }
    }
    channel.finish(&track);
    drop((views, publisher));
    let ended = relay.stop().await;
    ended.expect_success();
    let dropped: u64 = ended.counts("dropped_groups").iter().sum();
    println!("{dropped} groups were left out");
    assert!(dropped > 0 && ended.counts("full_lanes")[1] > 0, "it was no bound that held");
}

/// A shard that does not turn for longer than its clients wait is lost: the relay ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_stalls_for_good_ends_the_relay() {
    /// By then its clients have left, and before that it could have turned again.
    const HANGS: Duration = WATCH_INTERVAL.saturating_mul(HANGING_LOOKS_MAX - 1);
    let (relay, guests) = relay_with_guests().await;
    let _held = Held::hold(relay.id(), "shard-0");
    let begun = Instant::now();
    let ended = tokio::task::spawn_blocking(move || relay.ended(2 * HANGS)).await;
    let ended = ended.expect("it ends");
    println!("gone after {:?}", begun.elapsed());
    assert!(begun.elapsed() >= HANGS, "{:?}", begun.elapsed());
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    let last = ended.stderr.lines().last().expect("a last line");
    assert!(last.starts_with("shardcast: shard 0 has not turned for "), "{last}");
    let lost = guests.last().expect("a guest of shard 1").lost("the end of the relay").await;
    assert!(lost.code.is_some(), "closed, and not timed out: {lost:?}");
}

// ---- memory ----

/// No memory left: one line says so, and the process ends with a code. A cache within its bounds never
/// gets there, whatever passes through it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_is_exhausted_ends_the_relay() {
    const PATH: &str = "live/cam";
    const GROUP_BYTES: usize = 1 << 20;
    /// What the process may have beyond what it has at the begin.
    const ROOM: u64 = 48 << 20;
    const GROUPS: u64 = 2 * (ROOM >> 20);
    for (cache, is_enough) in [("8MiB", true), ("4GiB", false)] {
        let relay = Relay::prepared(2, &["--cache-capacity", cache], |_| {}).await;
        let publisher = Peer::connect(&relay, LITE_06, Role::Publisher).await;
        let mut channel = publisher.announce(PATH, &[TRACK]);
        let say = |sequence| Script::new(SEED, sequence, 1, &[GROUP_BYTES]);
        channel.publish(TRACK, &say(0));
        let mut viewer = Peer::connect(&relay, LITE_06, Role::Viewer).await;
        viewer.sees(PATH).await;
        let mut view = viewer.subscribe(PATH, TRACK).await.expect("a subscription");
        view.group("the viewer").await.expect("a group");
        limit(relay.id(), libc::RLIMIT_AS, address_space(relay.id()) + ROOM);
        let mut said = 0;
        let all = async {
            for sequence in 1..=GROUPS {
                channel.publish(TRACK, &say(sequence));
                view.group("the viewer").await.expect("a group");
                said = sequence;
            }
        };
        if is_enough {
            all.await;
            drop((view, viewer, publisher));
            relay.stop().await.expect_success();
            continue;
        }
        let ended = relay.clone();
        tokio::select! {
            _ = all => panic!("{GROUPS} groups of {GROUP_BYTES} bytes found room"),
            _ = ended.says("shardcast: no memory for ") => {}
        }
        println!("no memory after {said} groups");
        drop(ended);
        let ended = relay.ended().await;
        assert_eq!(ended.status.code(), Some(1), "{:?}", ended.status);
        let last = ended.log.last().expect("a last line");
        assert!(last.contains("--cache-capacity") && last.contains("MemoryMax"), "{last}");
    }
}

// ---- descriptors ----

/// No descriptors left: HTTP clients wait, the log says why, and nobody else notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_that_are_exhausted_cost_http_clients_alone() {
    /// So many connections are still taken.
    const ROOM: usize = 4;
    const CLIENTS: usize = 3 * ROOM;
    let relay = Relay::start(2).await;
    let mut show = Show::open(&relay, "live/cam").await;
    let files = std::fs::read_dir(format!("/proc/{}/fd", relay.id())).expect("a process of ours");
    let names = files.map(|file| file.expect("a file").file_name().into_string());
    let open: BTreeSet<u64> =
        names.map(|name| name.expect("a number").parse().expect("a number")).collect();
    let mut free = (0..).filter(|number| !open.contains(number));
    limit(relay.id(), libc::RLIMIT_NOFILE, free.nth(ROOM).expect("numbers go on"));

    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Exchange::begin(relay.address(), "GET /health HTTP/1.1\r\n").await);
    }
    let line = relay.says("HTTP connections wait").await;
    assert!(line.contains("LimitNOFILE"), "{line}");
    // Who comes now is served what flows, and HTTP is not.
    show.flow.more(10).await;
    let mut viewer = Peer::connect(&relay, LITE_06, Role::Viewer).await;
    viewer.sees("live/cam").await;
    let mut view = viewer.subscribe("live/cam", TRACK).await.expect("a subscription");
    view.group("who comes now").await.expect("a group");
    let mut waiting = Exchange::begin(relay.address(), "GET /health HTTP/1.1\r\n\r\n").await;
    assert!(waiting.stream.try_read(&mut [0]).is_err(), "it was answered");
    drop(clients);
    let mut answer = String::new();
    waiting.stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.ends_with("ok\n"), "{answer}");
    show.close().await;
    let lines = relay.log();
    let lines = lines.iter().filter(|line| line.contains("HTTP connections wait"));
    assert_eq!(lines.count(), 1, "one line in a while");
    relay.stop().await.expect_success();
}

// ---- sending ----

/// The kernel refuses to send, to one client or at all: what is lost is sent again, the log says why, and
/// whoever is not concerned notices nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_that_cannot_be_sent_count_as_lost() {
    /// A firewall, routes, memory of the kernel, and what a router said of an earlier datagram.
    const ERRORS: [libc::c_int; 7] = [
        libc::EPERM,
        libc::EACCES,
        libc::ENETUNREACH,
        libc::EHOSTUNREACH,
        libc::ECONNREFUSED,
        libc::ENOBUFS,
        libc::ENOMEM,
    ];
    /// Refusals at which a relay that tries again at once would arrive in no time.
    const REFUSALS_MAX: u64 = 1000;
    let relay = Relay::prepared(1, &[], Firewall::prepare).await;
    let firewall = Firewall::watch(relay.id());
    let victim = Raw::introduced(relay.address(), Version::Lite06).await;
    let mut show = Show::open(&relay, "live/cam").await;

    firewall.refuse(victim.address().port(), libc::EPERM);
    let stream = victim.open(Dir::Bi, &announce_request(), false).await;
    let line = relay.says("datagrams cannot be sent").await;
    assert!(line.contains("Operation not permitted") && line.contains("firewall"), "{line}");
    show.flow.more(50).await;
    println!("{} sends to one client refused", firewall.refused());
    assert!(victim.stream(stream).received.is_empty(), "it was to be cut off");
    firewall.allow();
    victim.stream_until("an answer", stream, is_answered).await;

    for error in ERRORS {
        let begun = Instant::now();
        firewall.refuse_all(error);
        let stream = victim.open(Dir::Bi, &announce_request(), false).await;
        while firewall.refused() == 0 {
            show.flow.more(1).await;
            assert!(begun.elapsed() < PATIENCE, "nothing is sent");
        }
        show.flow.more(20).await;
        let refused = firewall.allow();
        victim.stream_until("an answer", stream, is_answered).await;
        println!("errno {error}: {refused} sends refused, over after {:?}", begun.elapsed());
        assert!(refused < REFUSALS_MAX, "errno {error}: {refused} refused");
    }
    drop(victim);
    show.close().await;
    let lines = relay.log();
    let lines = lines.iter().filter(|line| line.contains("datagrams cannot be sent"));
    assert!(lines.count() <= 2, "one line in a while");
    let ended = relay.stop().await;
    ended.expect_success();
    assert!(ended.counts("trains_lost")[0] > 0);
}

fn is_answered(stream: &Stream) -> bool {
    !stream.received.is_empty()
}

fn announce_request() -> Vec<u8> {
    let mut request = vec![BidiType::Announce as u8];
    AnnounceRequest { prefix: Path::root(), exclude_hop: 0 }.encode(Version::Lite06, &mut request);
    request
}

// ---- what the kernel knows of a process ----

fn limit(process: libc::pid_t, resource: libc::__rlimit_resource_t, most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the kernel reads a live structure.
    let status = unsafe { libc::prlimit(process, resource, &limit, std::ptr::null_mut()) };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
}

fn memory(process: libc::pid_t) -> u64 {
    status(process, "VmRSS:")
}

fn address_space(process: libc::pid_t) -> u64 {
    status(process, "VmSize:")
}

fn status(process: libc::pid_t, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"));
    let status = status.expect("a process of ours");
    let line =
        status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of that name");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of KiB") << 10
}
