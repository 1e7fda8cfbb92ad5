//! `shardcast doctor` on hosts that lack something each: it says so, what that costs and what mends it, and the
//! relay that starts there says the same.

mod support {
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod process;
    pub mod seccomp;
}

use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use support::process::{Process, shardcast, shardcast_under};
use support::seccomp::{self, Rule};

const ENDED_WITHIN: Duration = Duration::from_secs(15);
const LISTENING_WITHIN: Duration = Duration::from_secs(5);
const ANY_PORT: &str = "127.0.0.1:0";

/// The level and the name of what `setsockopt` sets, by the places of these arguments.
const RECEIVE_BUFFER: [(u32, i32); 2] = [(1, libc::SOL_SOCKET), (2, libc::SO_RCVBUF)];
const SEND_BUFFER: [(u32, i32); 2] = [(1, libc::SOL_SOCKET), (2, libc::SO_SNDBUF)];
const SEGMENT: [(u32, i32); 2] = [(1, libc::SOL_UDP), (2, libc::UDP_SEGMENT)];
const JOIN: [(u32, i32); 2] = [(1, libc::SOL_UDP), (2, libc::UDP_GRO)];

/// As on a host whose net.core.rmem_max and wmem_max are as the kernel has them.
const SMALL_BUFFERS: [Rule; 2] = [Rule::option(&RECEIVE_BUFFER, 0), Rule::option(&SEND_BUFFER, 0)];

struct Answer {
    code: i32,
    json: Value,
}

impl Answer {
    #[track_caller]
    fn of(mut command: Command) -> Answer {
        command.arg("--json");
        let ended = Process::spawn(command).ended(ENDED_WITHIN);
        let code = ended.code();
        let json = serde_json::from_str(&ended.stdout);
        let json =
            json.unwrap_or_else(|error| panic!("{error}: {} {}", ended.stdout, ended.stderr));
        let answer = Answer { code, json };
        let fails = answer.findings().iter().any(|finding| finding["grade"] == "fail");
        assert_eq!(code, i32::from(fails), "{}", answer.json);
        answer
    }

    fn findings(&self) -> &[Value] {
        self.json["findings"].as_array().expect("a list")
    }

    #[track_caller]
    fn says(&self, subject: &str, grade: &str, words: &[&str]) {
        let mut findings = self.findings().iter();
        let found = findings.find(|finding| finding["subject"] == subject);
        let found = found.unwrap_or_else(|| panic!("no {subject:?} in {}", self.json));
        assert_eq!(found["grade"], grade, "{found}");
        let text = found.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{found} lacks one of {words:?}");
        assert_eq!(found["costs"].is_string(), grade != "ok", "{found}");
    }
}

fn doctor(args: &[&str]) -> Command {
    shardcast(&[&["doctor"], args].concat())
}

#[test]
fn a_host_that_has_all() {
    let answer = Answer::of(doctor(&["--listen", ANY_PORT, "--internal-listen", ANY_PORT]));
    assert_eq!(answer.code, 0);
    for subject in [
        "io_uring",
        "cores",
        "locked memory",
        "open files",
        "memory",
        "use of memory",
        "UDP port",
        "segmentation",
        "joining",
        "UDP probe",
        "HTTP",
        "HTTP of operators",
        "certificate",
    ] {
        answer.says(subject, "ok", &[]);
    }
    // What differs from machine to machine.
    for subject in ["socket buffers", "clock", "memory nodes", "share of cores"] {
        let is_there = answer.findings().iter().any(|finding| finding["subject"] == subject);
        assert!(is_there, "{subject}: {}", answer.json);
    }

    // Every shard has its part in the probe.
    let ended =
        Process::spawn(doctor(&["--listen", "[::1]:0", "--shards", "5"])).ended(ENDED_WITHIN);
    assert_eq!((ended.code(), ended.stderr.as_str()), (0, ""));
    assert!(ended.stdout.contains("40 datagrams to [::1]:"), "{}", ended.stdout);
    assert!(
        ended.stdout.contains(" ok, ") && ended.stdout.contains(" 0 fail: "),
        "{}",
        ended.stdout
    );
}

#[test]
fn what_is_forbidden() {
    let refuse = |call| Rule::refuse(call, libc::EPERM);
    let table: &[(&[Rule], &str, &str, &[&str])] = &[
        (&[refuse(libc::SYS_io_uring_setup)], "io_uring", "fail", &["seccomp", "does not start"]),
        (&[refuse(libc::SYS_sched_setaffinity)], "cores", "fail", &["sched_setaffinity"]),
        (&SMALL_BUFFERS, "socket buffers", "warn", &["rmem_max=4194304", "of 4096 KiB"]),
        (&[Rule::option(&SEGMENT, libc::ENOPROTOOPT)], "segmentation", "warn", &["CPU"]),
        (&[Rule::option(&JOIN, libc::ENOPROTOOPT)], "joining", "warn", &["UDP_GRO"]),
        (
            &[refuse(libc::SYS_sendmsg), refuse(libc::SYS_sendmmsg)],
            "UDP probe",
            "fail",
            &["none came (Operation not permitted", "nft list"],
        ),
        (&[refuse(libc::SYS_connect)], "HTTP", "fail", &["cannot be reached", "firewall"]),
    ];
    for (rules, subject, grade, words) in table {
        let mut command = doctor(&["--listen", ANY_PORT]);
        seccomp::refuse(&mut command, rules);
        let answer = Answer::of(command);
        answer.says(subject, grade, words);
        let others = answer.findings().iter().filter(|finding| finding["subject"] != **subject);
        let failed: Vec<_> = others.filter(|finding| finding["grade"] == "fail").collect();
        assert!(failed.is_empty(), "{subject}: {failed:?}");
    }
}

/// Whoever may raise limits, or ignore them, is not limited.
#[test]
fn low_limits() {
    let table = [
        (libc::RLIMIT_MEMLOCK, 64 << 10, "locked memory", "LimitMEMLOCK"),
        (libc::RLIMIT_NOFILE, 16, "open files", "LimitNOFILE"),
        (libc::RLIMIT_AS, 200 << 20, "memory", "LimitAS"),
    ];
    for (resource, most, subject, words) in table {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        let drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-ipc_lock,-sys_resource", "--"];
        let args = ["doctor", "--listen", ANY_PORT, "--shards", "2"];
        // SAFETY: no preconditions.
        let mut command = match unsafe { libc::geteuid() } {
            0 => shardcast_under(&drop, &args),
            _ => shardcast(&args),
        };
        // SAFETY: one system call, as a forked child may do.
        unsafe {
            command.pre_exec(move || match libc::setrlimit(resource, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        Answer::of(command).says(subject, "fail", &[words, "does not start"]);
    }
}

/// What it is told to use, beside what it may.
#[test]
fn memory_that_is_not_there() {
    let of = |settings: &[&str]| {
        Answer::of(doctor(&[&["--listen", ANY_PORT, "--shards", "2"], settings].concat()))
    };
    let subject = "use of memory";
    of(&["--memory-max", "64MiB"]).says(subject, "ok", &["memory: 64.0 MiB", "per shard"]);
    let words = ["--memory-max is 1024.0 TiB", "the kernel may kill it", "lower --memory-max"];
    of(&["--memory-max", "1024TiB"]).says(subject, "warn", &words);
    let words = ["may grow to 64.0 MiB", "nobody new is let in", "lower --cache-capacity"];
    of(&["--memory-max", "64MiB", "--cache-capacity", "64MiB"]).says(subject, "warn", &words);
    let words = ["each shard needs 32.0 MiB", "--memory-max 64MiB or more", "does not start"];
    of(&["--memory-max", "63MiB"]).says(subject, "fail", &words);
    let words = ["--cache-capacity 2MiB or more", "does not start"];
    of(&["--cache-capacity", "1MiB"]).says(subject, "fail", &words);
}

#[test]
fn ports_that_are_taken() {
    let socket = UdpSocket::bind(ANY_PORT).expect("a port");
    let addr = socket.local_addr().expect("it is bound").to_string();
    let (me, code) = (format!("process {}", std::process::id()), 1);
    let answer = Answer::of(doctor(&["--listen", &addr, "--web-http-listen", "off"]));
    assert_eq!(answer.code, code);
    answer.says("UDP port", "fail", &["in use", &me]);

    let listener = TcpListener::bind(ANY_PORT).expect("a port");
    let taken = listener.local_addr().expect("it is bound").to_string();
    let answer = Answer::of(doctor(&["--listen", ANY_PORT, "--internal-listen", &taken]));
    answer.says("HTTP of operators", "fail", &["in use", &me]);
    answer.says("HTTP", "ok", &[]);

    let answer = Answer::of(doctor(&[
        "--listen",
        "192.0.2.1:4443",
        "--web-http-listen",
        "off",
        "--listen-tls-generate",
        "a.example",
        "--auth-public",
        "**",
    ]));
    answer.says("UDP port", "fail", &["not an address of this host"]);
    answer.says("certificate", "warn", &["a.example", "pin"]);
}

/// Its ports are taken, as they should be; what is looked at then is whether it answers.
#[test]
fn a_relay_that_runs() {
    let mut relay = Process::spawn(shardcast(&["--listen", ANY_PORT, "--shards", "2"]));
    let addr = relay.listening(LISTENING_WITHIN).to_string();
    relay.stderr_line("kind=http", LISTENING_WITHIN);
    let id = format!("process {}", relay.id());
    let answer = Answer::of(doctor(&["--listen", &addr]));
    answer.says("UDP port", "ok", &["shardcast", &id]);
    answer.says("UDP probe", "ok", &["answered"]);
    answer.says("HTTP", "ok", &[&id, "is well"]);

    // Before it is restarted for other addresses of the same port.
    let port = addr.rsplit(':').next().expect("a port");
    let wide = format!("[::]:{port}");
    let open = ["--listen-tls-generate", "localhost", "--auth-public", "a/**"];
    let told = [&["--listen", &wide, "--web-http-listen", "same"], &open[..]].concat();
    let answer = Answer::of(doctor(&told));
    answer.says("UDP port", "ok", &[&format!("has {addr}; {wide} is free when"), &id]);
    answer.says("UDP probe", "ok", &[&addr, "answered"]);
    answer.says("HTTP", "ok", &[&addr, "is well"]);

    relay.signal(libc::SIGSTOP);
    let answer = Answer::of(doctor(&["--listen", &addr]));
    answer.says("UDP probe", "fail", &["did not answer", "nobody reaches it"]);
    answer.says("HTTP", "fail", &["cannot be reached"]);
    relay.signal(libc::SIGCONT);
    relay.signal(libc::SIGTERM);
    assert_eq!(relay.ended(ENDED_WITHIN).code(), 0);
}

#[test]
fn settings_that_are_wrong() {
    for args in [&["--shardz"][..], &["/nowhere/relay.toml"], &["--listen", "0.0.0.0:0"]] {
        let ended = Process::spawn(doctor(args)).ended(ENDED_WITHIN);
        assert_eq!((ended.code(), ended.stdout.as_str()), (2, ""), "{args:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn help_is_its_own() {
    let ended = Process::spawn(doctor(&["--help"])).ended(ENDED_WITHIN);
    assert_eq!((ended.code(), ended.stderr.as_str()), (0, ""));
    for words in ["shardcast doctor [--json] [OPTIONS] [FILE]", "Exit codes: 0", "systemd-run"] {
        assert!(ended.stdout.contains(words), "{} lacks {words:?}", ended.stdout);
    }
}

#[test]
fn a_certificate_that_has_expired() {
    let root = std::env::temp_dir().join(format!("shardcast-doctor-{}", std::process::id()));
    std::fs::create_dir_all(&root).expect("a directory");
    let write = |name: &str, text: String| -> PathBuf {
        let path = root.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut params = CertificateParams::new(vec!["relay.example".to_owned()]).expect("names");
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let cert = write("cert.pem", params.self_signed(&key).expect("a certificate").pem());
    let key = write("key.pem", key.serialize_pem());
    let file = format!(
        "listen.bind = '{ANY_PORT}'\nlisten.tls.cert = '{}'\nlisten.tls.key = '{}'\n",
        cert.display(),
        key.display()
    );
    let file = write("relay.toml", file);
    let answer = Answer::of(doctor(&[file.to_str().expect("a name of ours")]));
    answer.says("certificate", "fail", &["relay.example", "EXPIRED 2020-01-01", "renew"]);
    std::fs::remove_dir_all(&root).expect("what was written");
}

#[test]
fn a_relay_says_it_at_its_start() {
    let mut command = shardcast(&["--listen", ANY_PORT]);
    seccomp::refuse(&mut command, &SMALL_BUFFERS);
    let mut relay = Process::spawn(command);
    relay.listening(LISTENING_WITHIN);
    let line = relay.stderr_line("sysctl -w net.core.rmem_max", LISTENING_WITHIN);
    assert!(line.contains("WARN") && line.contains("socket buffers: "), "{line}");
    relay.signal(libc::SIGTERM);
    assert_eq!(relay.ended(ENDED_WITHIN).code(), 0);

    let mut command = shardcast(&["--listen", ANY_PORT]);
    seccomp::refuse(&mut command, &[Rule::refuse(libc::SYS_sched_setaffinity, libc::EPERM)]);
    let ended = Process::spawn(command).ended(ENDED_WITHIN);
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.contains("sched_setaffinity"), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}
