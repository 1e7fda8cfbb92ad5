//! What an operator meets first, on real processes: it starts and says where, or it refuses in
//! one line that names the cause and the fix.

#[path = "support/process.rs"]
#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod process;
#[path = "support/seccomp.rs"]
#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod seccomp;

use std::io;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use process::{Process, shardcast, shardcast_under};
use rcgen::{CertificateParams, KeyPair};
use seccomp::Rule;

/// The promise to operators is one second; machines that run tests are shared.
const REFUSED_WITHIN: Duration = Duration::from_secs(3);
const LISTENING_WITHIN: Duration = Duration::from_secs(5);
const STOPPED_WITHIN: Duration = Duration::from_secs(5);

const ANY_PORT: &str = "127.0.0.1:0";

#[track_caller]
fn refuses(command: Command, code: i32, words: &[&str]) -> String {
    let about = format!("{command:?}");
    let ended = Process::spawn(command).ended(REFUSED_WITHIN);
    let stderr = &ended.stderr;
    assert_eq!(ended.code(), code, "{about}: {stderr}");
    assert_eq!(ended.stdout, "", "{about}");
    assert!(stderr.ends_with('\n'), "{about}: {stderr:?}");
    assert_eq!(stderr.lines().count(), 1, "{about}: {stderr}");
    assert!(stderr.starts_with("shardcast: "), "{about}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{about}: {stderr:?} lacks {word:?}");
    }
    ended.stderr
}

const FAILED: i32 = 1;
const USAGE: i32 = 2;

#[test]
fn refused_arguments() {
    let table: &[(&[&str], &[&str])] = &[
        (&["--listen", "0.0.0.0:0"], &["a certificate, and a key, public rules", "run: shardcast"]),
        (&["--listen", "[::]:0", "--auth-public", "anon/**"], &["needs a certificate", "run:"]),
        (
            &["--listen", "0.0.0.0:0", "--listen-tls-generate", "a.example"],
            &["needs a key", "--auth-public 'anon/**'", "--auth-key public.jwk"],
        ),
        (&["--listen-tls-cert", "cert.pem"], &["--listen-tls-key"]),
        (&["--listen-tls-key", "key.pem"], &["--listen-tls-cert"]),
        (&["--auth-public", "anon"], &["'anon'", "write anon/**"]),
        (&["--shards", "0"], &["--shards", "from 1 to 256"]),
        (&["--shards", "1000"], &["--shards", "from 1 to 256"]),
        (&["--shardz", "1"], &["as --shardz; write --shards instead", "--help"]),
        (&["--linger", "5"], &["--linger", "'5'", "write 5s or 5ms"]),
        (&["--cache-duration", "5M"], &["--cache-duration", "'5M'", "M is months"]),
        (&["--cache-capacity", "0"], &["--cache-capacity", "nothing or no bound"]),
        (&["--cache-capacity", "8Gb/s"], &["--cache-capacity", "'8Gb/s'", "GiB"]),
        (&["--cache-capacity", "150%"], &["--cache-capacity", "'150%'", "1% to 100%"]),
        (&["--cache-headroom", "10%"], &["--cache-headroom", "one bound", "--cache-capacity"]),
        (&["--web-http-listen", "8080"], &["--web-http-listen", "'8080'", "same or off"]),
        (
            &["--web-http-listen", "0.0.0.0:0"],
            &["a key, public rules or an auth server", "run: shardcast"],
        ),
        (&["--server-bind", "[::]:443"], &["--server-bind", "write --listen"]),
        (&["--auth-public-subscribe", "anon"], &["'anon'", "write anon/**"]),
        (&["--auth-api", "https://a.example"], &["--auth-api", "--auth-url URL"]),
        (&["--auth-url", "http://me:pw@a.example"], &["--auth-url http://a.example:", "https://"]),
        (&["--auth-url", "unix:///a", "--auth-key", "k"], &["--auth-key", "decides alone"]),
        (&["/nowhere/relay.toml"], &["cannot read /nowhere/relay.toml", "No such file"]),
        (&["relay.tml"], &["cannot read relay.tml", "or a command (check, doctor, token, top"]),
        (&["tokens"], &["no command tokens, and no file", "write shardcast token instead"]),
        (&["help"], &["no command help", "write shardcast --help instead"]),
        (&["--config", "relay.toml"], &["--config", "write it alone, as in shardcast relay.toml"]),
        (&["--listen", "one\ntwo"], &["--listen", "127.0.0.1:4443"]),
    ];
    for (args, words) in table {
        refuses(shardcast(args), USAGE, words);
    }
}

#[test]
fn refused_variables() {
    let table: &[(&str, &str, &[&str])] = &[
        ("MOQ_LISTEN", "0.0.0.0:0", &["0.0.0.0:0", "a certificate, and a key, public rules"]),
        ("MOQ_LISTEN", "here", &["'here'", "--listen"]),
        ("MOQ_AUTH_PUBLIC", "anon", &["'anon'", "write anon/**"]),
        ("MOQ_LISTEN_TLS_CERT", "cert.pem", &["--listen-tls-key"]),
        ("SHARDCAST_SHARDS", "0", &["--shards", "from 1 to 256"]),
        ("MOQ_LOG_LEVEL", "loud", &["'loud'", "debug"]),
        ("SHARDCAST_LINGER", "soon", &["'soon'", "--linger", "5m"]),
        ("MOQ_CACHE_CAPACITY", "lots", &["'lots'", "--cache-capacity", "8GiB"]),
        ("MOQ_CACHE_DURATION", "30", &["'30'", "--cache-duration", "write 30s"]),
        ("MOQ_CACHE_HEADROOM", "2GiB", &["MOQ_CACHE_HEADROOM", "--cache-capacity"]),
        ("MOQ_CACHE_SIZE", "2GiB", &["MOQ_CACHE_SIZE", "no such setting"]),
        ("MOQ_WEB_HTTP_LISTEN", "on", &["'on'", "--web-http-listen", "same or off"]),
        ("MOQ_WEB_WS", "maybe", &["'maybe'", "--web-ws", "on or off"]),
        ("RUST_LOG", "shardcast=loud", &["RUST_LOG", "info"]),
        ("MOQ_SERVER_BIND", "[::]:443", &["MOQ_SERVER_BIND", "MOQ_LISTEN"]),
        ("MOQ_AUTH_URL", "http://a.example", &["--auth-url", "https://"]),
    ];
    for (name, value, words) in table {
        let mut command = shardcast(&[]);
        command.env(name, value);
        refuses(command, USAGE, words);
    }
}

#[test]
fn refused_keys() {
    let files = Files::new("keys");
    let half = files.write("half.jwk", r#"{"kty":"EC","alg":"ES256""#);
    let short = files.write("short.jwk", r#"{"kty":"oct","alg":"HS256","k":"c2hvcnQ"}"#);
    let secret =
        files.write("my-secret.jwk", r#"{"kty":"oct","alg":"XS1","k":"aGVyZSBpcyBhIHNlY3JldA"}"#);
    std::fs::create_dir(files.path("keys")).unwrap();
    let keys = files.path("keys").display().to_string();
    std::fs::copy(&secret, files.path("keys/my-secret.jwk")).unwrap();
    let [half, short, secret] = [half, short, secret].map(|path| path.display().to_string());
    let table: &[(&str, &str, &[&str])] = &[
        ("--auth-key", "/nowhere/root.jwk", &["/nowhere/root.jwk", "a file", "see --auth-key\n"]),
        ("--auth-key", &half, &["half.jwk", "JSON"]),
        ("--auth-key", &short, &["short.jwk", "fewer than 32 bytes"]),
        ("--auth-key", &secret, &["my-secret.jwk", "`alg`"]),
        (
            "--auth-key-dir",
            "/nowhere",
            &["cannot use /nowhere", "cannot be read", "a directory", "see --auth-key-dir\n"],
        ),
        ("--auth-key-dir", &keys, &["my-secret.jwk", "`alg`", "see --auth-key-dir\n"]),
    ];
    for (flag, path, words) in table {
        let line = refuses(shardcast(&["--listen", ANY_PORT, flag, path]), FAILED, words);
        assert!(!line.contains("aGVyZSBp"), "{line}");
    }
}

fn generate(files: &Files, args: &[&str]) {
    let mut command = shardcast(&["token", "generate"]);
    command.args(args).current_dir(&files.root);
    let ended = Process::spawn(command).ended(REFUSED_WITHIN);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
}

/// Once for each file, and what is said helps.
#[test]
fn keys_that_are_hardly_meant_are_a_warning() {
    let files = Files::new("remarks");
    std::fs::create_dir(files.path("keys")).unwrap();
    generate(&files, &["--out", "private.jwk"]);
    generate(&files, &["--id", "b", "--out", "keys/a.jwk"]);
    generate(&files, &["--id", "c", "--out", "secret.jwk", "--public", "keys/c.jwk"]);
    let relay = |key: &str| {
        let args = ["--listen", ANY_PORT, "--auth-key", key, "--auth-key-dir", "keys"];
        let mut command = shardcast(&args);
        command.current_dir(&files.root);
        let mut relay = Process::spawn(command);
        relay.listening(LISTENING_WITHIN);
        relay
    };
    let mut first = relay("private.jwk");
    let run = |line: &str| {
        let (_, command) = line.split_once("run: ").expect("a command");
        let (command, _) = command.split_once(", and give").unwrap_or((command, ""));
        let bin = Path::new(env!("CARGO_BIN_EXE_shardcast")).parent().unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env("PATH", path).current_dir(&files.root);
        let ended = Process::spawn(shell).ended(REFUSED_WITHIN);
        assert_eq!(ended.code(), 0, "{command}: {}", ended.stderr);
    };
    let of_file = first.stderr_line(" private.jwk: a private key", LISTENING_WITHIN);
    let of_directory = first.stderr_line(" keys/a.jwk: a private key", LISTENING_WITHIN);
    first.stderr_line(" keys/a.jwk: the key calls itself b", LISTENING_WITHIN);
    // What is new later is told then, and what was told is not.
    generate(&files, &["--id", "d", "--out", "keys/d.jwk"]);
    first.stderr_line(" keys/d.jwk: a private key", LISTENING_WITHIN);
    let ended = stops(first, libc::SIGTERM);
    for (words, times) in [(" private.jwk: ", 1), (" keys/a.jwk: ", 2), (" keys/d.jwk: ", 1)] {
        assert_eq!(ended.stderr.matches(words).count(), times, "{words}: {}", ended.stderr);
    }

    run(&of_file);
    run(&of_directory);
    std::fs::remove_file(files.path("keys/d.jwk")).unwrap();
    assert!(std::fs::read_to_string(files.path("a.secret.jwk")).unwrap().contains("\"d\""));
    let second = relay("private.public.jwk");
    let ended = stops(second, libc::SIGTERM);
    assert!(!ended.stderr.contains("a private key"), "{}", ended.stderr);
}

#[test]
fn refused_certificates() {
    let files = Files::new("certificates");
    let (cert, key) = files.issue("own");
    let (_, other_key) = files.issue("other");
    let garbage = files.write("garbage.pem", "this is not a certificate\n");
    let missing = files.path("missing.pem");

    let table: &[(&Path, &Path, &[&str])] = &[
        (&garbage, &key, &["no certificate in", "garbage.pem"]),
        (&cert, &garbage, &["no private key in", "garbage.pem"]),
        (&missing, &key, &["missing.pem", "No such file"]),
        (&cert, &missing, &["missing.pem", "No such file"]),
        (&files.root, &key, &["not a regular file"]),
        (&cert, &other_key, &["other.key.pem", "does not match", "own.cert.pem"]),
    ];
    for (cert, key, words) in table {
        refuses(with_files(cert, key), FAILED, words);
    }
}

/// Root reads everything, so this needs to be somebody else, and the binary within their reach.
#[test]
fn unreadable_key() {
    let files = Files::new("unreadable");
    let (cert, key) = files.issue("own");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o000)).unwrap();
    let args = file_args(&cert, &key);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let drop = ["--bounding-set=-dac_override,-dac_read_search"];
    refuses(
        without_capabilities(&drop, &args),
        FAILED,
        &["cannot read", "own.key.pem", "Permission denied"],
    );
}

#[test]
fn port_of_another_program() {
    let socket = UdpSocket::bind(ANY_PORT).unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    let words = [addr.as_str(), "in use", "--listen"];
    refuses(shardcast(&["--listen", &addr]), FAILED, &words);
}

/// Sockets of one user may share a port when both ask for it, and shards do ask: two relays would
/// then take each other's packets in silence.
#[test]
fn port_of_another_relay() {
    let mut first = Process::spawn(shardcast(&["--listen", ANY_PORT]));
    let addr = first.listening(LISTENING_WITHIN).to_string();
    let words = [addr.as_str(), "in use", "--listen"];
    refuses(shardcast(&["--listen", &addr]), FAILED, &words);
    refuses(shardcast(&["--listen", &addr, "--shards", "1"]), FAILED, &words);
    stops(first, libc::SIGTERM);
}

#[test]
fn too_few_open_files() {
    // Whoever may raise limits is not limited.
    let drop = ["--bounding-set=-sys_resource"];
    let mut command = without_capabilities(&drop, &["--listen", ANY_PORT]);
    limit(&mut command, libc::RLIMIT_NOFILE, 16);
    refuses(command, FAILED, &["open files", "16", "ulimit", "LimitNOFILE"]);
}

#[test]
fn too_little_locked_memory() {
    // Nor is who may ignore them.
    let drop = ["--bounding-set=-ipc_lock,-sys_resource"];
    let mut command = without_capabilities(&drop, &["--listen", ANY_PORT]);
    limit(&mut command, libc::RLIMIT_MEMLOCK, 64 << 10);
    refuses(command, FAILED, &["locked memory", "65536", "ulimit -l", "LimitMEMLOCK"]);
}

#[test]
fn too_little_address_space() {
    let mut command = shardcast(&["--listen", ANY_PORT, "--shards", "2"]);
    limit(&mut command, libc::RLIMIT_AS, 200 << 20);
    refuses(command, FAILED, &["address space", "209715200", "ulimit -v", "LimitAS", "MemoryMax"]);
}

/// As under container runtimes whose default profile leaves io_uring out.
#[test]
fn io_uring_forbidden() {
    let mut command = shardcast(&["--listen", ANY_PORT]);
    seccomp::refuse(&mut command, &[Rule::refuse(libc::SYS_io_uring_setup, libc::EPERM)]);
    refuses(command, FAILED, &["io_uring", "seccomp"]);
}

#[test]
fn affinity_is_honoured() {
    let core = *allowed_cores().last().expect("this test runs somewhere");
    let mut command = shardcast(&["--listen", ANY_PORT]);
    // SAFETY: one system call, as a forked child may do.
    unsafe { command.pre_exec(move || pin_to(core)) };
    let mut relay = Process::spawn(command);
    relay.listening(LISTENING_WITHIN);
    let line = welcome_line(&mut relay, "shards");
    assert_eq!(line, format!("1 on core {core}"));
    stops(relay, libc::SIGTERM);
}

#[test]
fn more_shards_than_cores() {
    let shards = allowed_cores().len() + 1;
    let mut relay =
        Process::spawn(shardcast(&["--listen", ANY_PORT, "--shards", &shards.to_string()]));
    relay.listening(LISTENING_WITHIN);
    let line = welcome_line(&mut relay, "shards");
    assert!(line.starts_with(&format!("{shards} on cores ")), "{line}");
    stops(relay, libc::SIGTERM);
}

#[test]
fn cache_is_shared_and_said() {
    let line = note_of_cache(shardcast(&["--listen", ANY_PORT, "--shards", "2"]));
    assert!(line.starts_with("cache: ") && line.ends_with(" per shard"), "{line}");
    assert!(line.contains(" (25% of "), "{line}");

    let settings = ["--shards=2", "--cache-capacity=64MiB", "--cache-duration=0", "--linger=0"];
    let line = note_of_cache(shardcast(&[&["--listen", ANY_PORT], &settings[..]].concat()));
    assert_eq!(line, "cache: 64.0 MiB, 32.0 MiB per shard");

    let mut command = shardcast(&["--listen", ANY_PORT, "--shards", "1"]);
    command.env("MOQ_CACHE_CAPACITY", "5%").env("MOQ_CACHE_DURATION", "2m");
    command.env("SHARDCAST_LINGER", "500ms");
    let line = note_of_cache(command);
    assert!(line.contains(" (5% of "), "{line}");
}

/// As the welcome and the log have it.
#[track_caller]
fn note_of_cache(command: Command) -> String {
    let mut relay = Process::spawn(command);
    relay.listening(LISTENING_WITHIN);
    let noted = relay.stdout_line(" cache: ", LISTENING_WITHIN);
    let logged = relay.stderr_line(" cache: ", LISTENING_WITHIN);
    let line = noted.trim_start().trim_start_matches("note").trim_start();
    assert!(logged.ends_with(line), "{logged:?} is not about {line:?}");
    stops(relay, libc::SIGTERM);
    line.to_owned()
}

#[test]
fn too_small_a_cache() {
    let args = ["--listen", ANY_PORT, "--shards", "3", "--cache-capacity", "2MiB"];
    let words = ["2.0 MiB", "682.7 KiB for each shard", "--cache-capacity 3MiB or more"];
    refuses(shardcast(&args), USAGE, &words);
    let args = ["--listen", ANY_PORT, "--shards", "2", "--memory-max", "8192"];
    let words = ["--memory-max is 8.0 KiB", "--memory-max 64MiB or more"];
    refuses(shardcast(&args), USAGE, &words);
}

#[test]
fn cache_larger_than_the_memory_is_a_warning() {
    let args = ["--listen", ANY_PORT, "--shards", "1", "--cache-capacity", "100%"];
    let mut relay = Process::spawn(shardcast(&args));
    relay.listening(LISTENING_WITHIN);
    let line = relay.stderr_line("lower --cache-capacity", LISTENING_WITHIN);
    assert!(line.contains("WARN"), "{line}");
    stops(relay, libc::SIGTERM);
}

#[test]
fn development_relay_welcomes() {
    let mut relay = Process::spawn(shardcast(&["--listen", ANY_PORT]));
    let addr = relay.listening(LISTENING_WITHIN);
    assert!(addr.ip().is_loopback() && addr.port() != 0, "{addr}");
    relay.stderr_line(&format!("listening addr={addr} kind=quic"), LISTENING_WITHIN);

    let cores: Vec<String> = allowed_cores().iter().map(usize::to_string).collect();
    let plural = if cores.len() == 1 { "" } else { "s" };
    let shards = format!("{} on core{plural} {}", cores.len(), cores.join(" "));
    assert_eq!(welcome_line(&mut relay, "shards"), shards);
    let sha256 = welcome_line(&mut relay, "sha256");
    assert_eq!(sha256.len(), 64, "{sha256}");
    assert!(sha256.bytes().all(|byte| byte.is_ascii_hexdigit()), "{sha256}");
    assert!(
        welcome_line(&mut relay, "certificate")
            .contains("self-signed for localhost 127.0.0.1 ::1, expires")
    );
    assert!(welcome_line(&mut relay, "access").ends_with("**"));
    relay.stdout_line("Ctrl-C", LISTENING_WITHIN);
    let welcome = relay.stdout();
    let dial = format!("moq --connect 'http://{addr}'");
    for word in [&addr.to_string(), dial.as_str(), "import ts", "export ts", "demo-video.sh"] {
        assert!(welcome.contains(word), "{welcome} lacks {word:?}");
    }
    // One screen, and no colours for a pipe.
    assert!(welcome.lines().count() <= 24, "{welcome}");
    assert!(!welcome.contains('\x1b'), "{welcome:?}");

    let ended = stops(relay, libc::SIGTERM);
    assert!(!ended.stderr.contains('\x1b'), "{:?}", ended.stderr);
}

#[test]
fn congestion_control_is_said_where_it_is_a_choice() {
    for (args, is_said) in [
        (&[][..], false),
        (&["--quic-congestion-control", "delay"], false),
        (&["--quic-congestion-control", "loss"], true),
    ] {
        let mut relay = Process::spawn(shardcast(&[&["--listen", ANY_PORT], args].concat()));
        relay.stdout_line("Ctrl-C", LISTENING_WITHIN);
        let welcome = relay.stdout();
        assert_eq!(welcome.contains("\n  congestion   loss "), is_said, "{welcome}");
        assert_eq!(welcome.contains("\n  congestion "), is_said, "{welcome}");
        stops(relay, libc::SIGTERM);
    }
}

#[test]
fn production_relay_welcomes() {
    let files = Files::new("production");
    let (cert, key) = files.issue("own");
    let mut relay = Process::spawn(with_files(&cert, &key));
    relay.listening(LISTENING_WITHIN);
    assert!(welcome_line(&mut relay, "certificate").contains("own.cert.pem, expires"));
    stops(relay, libc::SIGTERM);
}

#[test]
fn expired_certificate_is_a_warning() {
    let files = Files::new("expired");
    let (cert, key) = files.issue_until("old", (2020, 1, 1));
    let mut relay = Process::spawn(with_files(&cert, &key));
    relay.listening(LISTENING_WITHIN);
    relay.stderr_line("certificate has expired", LISTENING_WITHIN);
    stops(relay, libc::SIGTERM);
}

#[test]
fn interrupt_stops() {
    let mut relay = Process::spawn(shardcast(&["--listen", ANY_PORT]));
    relay.listening(LISTENING_WITHIN);
    stops(relay, libc::SIGINT);
}

/// As when the terminal closes, or an operator wants to know what came of new files.
#[test]
fn hangup_has_files_read_again() {
    let mut relay = Process::spawn(shardcast(&["--listen", ANY_PORT]));
    relay.listening(LISTENING_WITHIN);
    relay.signal(libc::SIGHUP);
    relay.stderr_line("certificates and keys are as they were", LISTENING_WITHIN);
    stops(relay, libc::SIGTERM);
}

/// Every line is an object, those past tracing too: here what a FILE is named that is no text for a terminal.
#[test]
fn a_log_in_json_is_one_all_through() {
    let args = ["--listen", ANY_PORT, "--log-format", "json"];
    let mut relay = Process::spawn(shardcast(&args));
    relay.stderr_line("\"message\":\"listening\"", LISTENING_WITHIN);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("its address").to_string();
    let refused = ["--listen", ANY_PORT, "--log-format", "json", "--web-http-listen", &taken];
    let refused = Process::spawn(shardcast(&refused)).ended(LISTENING_WITHIN);
    relay.signal(libc::SIGTERM);
    let ended = relay.ended(LISTENING_WITHIN);
    for line in ended.stderr.lines().chain(refused.stderr.lines()) {
        let line: serde_json::Value = serde_json::from_str(line).expect(line);
        for key in ["timestamp", "level", "message"] {
            assert!(line[key].is_string(), "{line}");
        }
    }
    assert!(refused.stderr.contains("is in use"), "{}", refused.stderr);
}

/// Again and again, without a pause, and without waiting for it.
#[test]
fn address_is_free_after_stop() {
    const TIMES: usize = 20;
    let mut relay = Process::spawn(shardcast(&["--listen", ANY_PORT]));
    let addr = relay.listening(LISTENING_WITHIN).to_string();
    for _ in 0..TIMES {
        stops(relay, libc::SIGTERM);
        UdpSocket::bind(&addr).expect("the port is free as soon as the process is gone");
        relay = Process::spawn(shardcast(&["--listen", &addr]));
        assert_eq!(relay.listening(LISTENING_WITHIN).to_string(), addr);
    }
    stops(relay, libc::SIGTERM);
}

/// Who has it for a moment is waited for.
#[test]
fn a_port_that_becomes_free_is_waited_for() {
    let holder = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let addr = holder.local_addr().expect("its address").to_string();
    let mut relay = Process::spawn(shardcast(&["--listen", &addr]));
    let begun = Instant::now();
    while !has_paused(relay.id()) {
        assert!(begun.elapsed() < LISTENING_WITHIN, "it waits for nothing: {}", relay.stderr());
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(holder);
    assert_eq!(relay.listening(LISTENING_WITHIN).to_string(), addr);
    stops(relay, libc::SIGTERM);
}

/// Whether the main thread of a relay that starts is in a call that only lets time pass: there is none but that from
/// one look at its port to the next.
fn has_paused(process: libc::pid_t) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{process}/syscall")).unwrap_or_default();
    let call = call.split(' ').next().and_then(|number| number.parse::<libc::c_long>().ok());
    call.is_some_and(|call| [libc::SYS_nanosleep, libc::SYS_clock_nanosleep].contains(&call))
}

/// What is for operators is not for everybody.
#[test]
fn operators_are_warned_where_others_can_ask() {
    for (listen, is_open) in [("127.0.0.1:0", false), ("0.0.0.0:0", true)] {
        let args = ["--listen", ANY_PORT, "--internal-listen", listen];
        let mut relay = Process::spawn(shardcast(&args));
        relay.stderr_line("kind=internal", LISTENING_WITHIN);
        relay.stderr_line("socket buffers", LISTENING_WITHIN);
        relay.signal(libc::SIGTERM);
        let ended = relay.ended(LISTENING_WITHIN);
        let warns = ended.stderr.contains("WARN") && ended.stderr.contains("--internal-listen");
        assert_eq!(warns, is_open, "{}", ended.stderr);
    }
}

#[test]
fn help_names_every_flag() {
    let ended = Process::spawn(shardcast(&["--help"])).ended(REFUSED_WITHIN);
    assert_eq!((ended.code(), ended.stderr.as_str()), (0, ""));
    let words = [
        "--listen <ADDR>",
        "--web-http-listen <ADDR>",
        "--web-https-listen <ADDR>",
        "--internal-listen <ADDR>",
        "MOQ_INTERNAL_LISTEN=",
        "--track-metrics <N>",
        "SHARDCAST_TRACK_METRICS=",
        "--listen-tls-cert <FILE>",
        "--listen-tls-key <FILE>",
        "--listen-tls-generate <HOST>",
        "--acme-domain <DOMAIN>",
        "--acme-directory <URL>",
        "--acme-contact <MAIL>",
        "--acme-eab-kid <KID>",
        "--acme-eab-key <FILE>",
        "--acme-root <FILE>",
        "SHARDCAST_ACME_DOMAIN=",
        "--auth-key <FILE>",
        "--auth-key-dir <DIR>",
        "MOQ_AUTH_KEY=",
        "MOQ_AUTH_KEY_DIR=",
        "--auth-public <PATTERN>",
        "--auth-public-subscribe <PATTERN>",
        "--auth-public-publish <PATTERN>",
        "MOQ_AUTH_PUBLIC_SUBSCRIBE=",
        "MOQ_AUTH_PUBLIC_PUBLISH=",
        "--allow-origin <ORIGIN>",
        "--allow-takeover",
        "--cluster-address <NETWORK>",
        "--cluster-connect <URL>",
        "--cluster-connect-api <URL|FILE>",
        "--connect-tls-root <FILE>",
        "MOQ_CLUSTER_CONNECT",
        "Cluster:",
        "--limit-remote <N>",
        "--limit-token <N>",
        "--limit-exempt <NETWORK>",
        "SHARDCAST_LIMIT_REMOTE=",
        "SHARDCAST_LIMIT_TOKEN=",
        "SHARDCAST_LIMIT_EXEMPT=",
        "SHARDCAST_ALLOW_TAKEOVER=",
        "SHARDCAST_CLUSTER_ADDRESS=",
        "--state-dir <DIR>",
        "SHARDCAST_ALLOW_ORIGIN=",
        "SHARDCAST_STATE_DIR=",
        "--linger <DURATION>",
        "--cache-capacity <SIZE>",
        "--cache-duration <DURATION>",
        "--shards <N>",
        "--log-level <LEVEL>",
        "--help",
        "--version",
        "MOQ_LISTEN=",
        "MOQ_WEB_HTTP_LISTEN=",
        "MOQ_WEB_HTTPS_LISTEN=",
        "MOQ_LISTEN_TLS_CERT=",
        "MOQ_LISTEN_TLS_KEY=",
        "MOQ_LISTEN_TLS_GENERATE=",
        "MOQ_AUTH_PUBLIC=",
        "Cache:",
        "SHARDCAST_LINGER=",
        "MOQ_CACHE_CAPACITY=",
        "MOQ_CACHE_DURATION=",
        "[default: 25%]",
        "SHARDCAST_SHARDS=",
        "MOQ_LOG_LEVEL=",
        "RUST_LOG",
        "shardcast COMMAND",
        "Commands, in the place of FILE",
        "\n  check ",
        "\n  token ",
        "Examples:",
    ];
    for word in words {
        assert!(ended.stdout.contains(word), "no {word:?} in {}", ended.stdout);
    }
}

#[test]
fn version_is_the_package() {
    let ended = Process::spawn(shardcast(&["--version"])).ended(REFUSED_WITHIN);
    let version = concat!("shardcast ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((ended.code(), ended.stdout.as_str()), (0, version));
}

#[track_caller]
fn stops(relay: Process, signal: libc::c_int) -> process::Ended {
    relay.signal(signal);
    let ended = relay.ended(STOPPED_WITHIN);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    ended
}

/// What the welcome says under one of its labels.
#[track_caller]
fn welcome_line(relay: &mut Process, label: &str) -> String {
    let line = relay.stdout_line(&format!("  {label} "), LISTENING_WITHIN);
    line.trim_start().trim_start_matches(label).trim().to_owned()
}

fn with_files(cert: &Path, key: &Path) -> Command {
    let args = file_args(cert, key);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    shardcast(&args)
}

fn file_args(cert: &Path, key: &Path) -> Vec<String> {
    let (cert, key) = (cert.display(), key.display());
    vec![
        format!("--listen={ANY_PORT}"),
        format!("--listen-tls-cert={cert}"),
        format!("--listen-tls-key={key}"),
    ]
}

/// Root keeps its capabilities across `exec` unless they leave the bounding set; anybody else has
/// none to begin with.
fn without_capabilities(drop: &[&str], args: &[&str]) -> Command {
    // SAFETY: no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return shardcast(args);
    }
    let wrapper = [&["setpriv", "--inh-caps=-all"], drop, &["--"]].concat();
    let probe = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").output();
    let dropped = probe.as_ref().is_ok_and(|output| output.status.success());
    assert!(dropped, "this test runs as root and cannot drop privileges: {wrapper:?}: {probe:?}");
    shardcast_under(&wrapper, args)
}

fn limit(command: &mut Command, resource: libc::__rlimit_resource_t, most: libc::rlim_t) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: one system call, as a forked child may do.
    unsafe { command.pre_exec(move || succeeded(libc::setrlimit(resource, &limit))) };
}

fn succeeded(code: libc::c_int) -> io::Result<()> {
    match code {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn allowed_cores() -> Vec<usize> {
    // SAFETY: the set is plain data, filled by the call before it is read.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        succeeded(libc::sched_getaffinity(0, size_of_val(&set), &mut set)).unwrap();
        let cores = 0..libc::CPU_SETSIZE as usize;
        cores.filter(|core| libc::CPU_ISSET(*core, &set)).collect()
    }
}

fn pin_to(core: usize) -> io::Result<()> {
    // SAFETY: the set is plain data, copied by the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        succeeded(libc::sched_setaffinity(0, size_of_val(&set), &set))
    }
}

/// Certificates in a directory of their own, removed at the end.
struct Files {
    root: PathBuf,
}

impl Files {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("shardcast-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        self.issue_until(name, (2099, 1, 1))
    }

    fn issue_until(&self, name: &str, (year, month, day): (i32, u8, u8)) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, month, day);
        let cert = params.self_signed(&key).unwrap();
        (
            self.write(&format!("{name}.cert.pem"), cert.pem()),
            self.write(&format!("{name}.key.pem"), key.serialize_pem()),
        )
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}
