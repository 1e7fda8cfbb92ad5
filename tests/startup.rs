//! What an operator meets first, on real processes: it starts and says where, or it refuses in
//! one line that names the cause and the fix.

#[path = "support/process.rs"]
mod process;

use std::io;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use process::{Process, shardcast, shardcast_under};
use rcgen::{CertificateParams, KeyPair};

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
        (&["--shardz", "1"], &["'--shardz'", "'--shards'", "--help"]),
        (&["--linger", "5"], &["--linger", "'5'", "write 5s or 5ms"]),
        (&["--cache-duration", "5M"], &["--cache-duration", "'5M'", "M is months"]),
        (&["--cache-capacity", "0"], &["--cache-capacity", "no cache or no bound"]),
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
        (&["relay.toml"], &["'relay.toml'", "no configuration file"]),
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
        ("MOQ_WEB_WS", "true", &["MOQ_WEB_WS", "WebSockets"]),
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
    let [half, short, secret] = [half, short, secret].map(|path| path.display().to_string());
    let table: &[(&str, &str, &[&str])] = &[
        ("--auth-key", "/nowhere/root.jwk", &["/nowhere/root.jwk", "--auth-key"]),
        ("--auth-key", &half, &["half.jwk", "JSON"]),
        ("--auth-key", &short, &["short.jwk", "fewer than 32 bytes"]),
        ("--auth-key", &secret, &["my-secret.jwk", "`alg`"]),
        ("--auth-key-dir", "/nowhere", &["/nowhere", "cannot be read"]),
    ];
    for (flag, path, words) in table {
        let line = refuses(shardcast(&["--listen", ANY_PORT, flag, path]), FAILED, words);
        assert!(!line.contains("aGVyZSBp"), "{line}");
    }
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
        (&files.root, &key, &["Is a directory"]),
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
    // SAFETY: the filter is only two system calls, as a forked child may do.
    unsafe { command.pre_exec(forbid_io_uring) };
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
    refuses(shardcast(&args), FAILED, &words);
}

#[test]
fn cache_larger_than_the_memory_is_a_warning() {
    let args = ["--listen", ANY_PORT, "--shards", "1", "--cache-capacity", "100%"];
    let mut relay = Process::spawn(shardcast(&args));
    relay.listening(LISTENING_WITHIN);
    relay.stderr_line("lower --cache-capacity", LISTENING_WITHIN);
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
    assert!(welcome_line(&mut relay, "certificate").contains("self-signed for localhost, expires"));
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

/// As when the terminal closes, or an operator expects that something is read anew.
#[test]
fn hangup_is_ignored() {
    let mut relay = Process::spawn(shardcast(&["--listen", ANY_PORT]));
    relay.listening(LISTENING_WITHIN);
    relay.signal(libc::SIGHUP);
    relay.stderr_line("SIGHUP is ignored", LISTENING_WITHIN);
    stops(relay, libc::SIGTERM);
}

#[test]
fn address_is_free_after_stop() {
    let mut first = Process::spawn(shardcast(&["--listen", ANY_PORT]));
    let addr = first.listening(LISTENING_WITHIN).to_string();
    stops(first, libc::SIGTERM);
    let mut second = Process::spawn(shardcast(&["--listen", &addr]));
    assert_eq!(second.listening(LISTENING_WITHIN).to_string(), addr);
    stops(second, libc::SIGTERM);
}

#[test]
fn help_names_every_flag() {
    let ended = Process::spawn(shardcast(&["--help"])).ended(REFUSED_WITHIN);
    assert_eq!((ended.code(), ended.stderr.as_str()), (0, ""));
    let words = [
        "--listen <ADDR>",
        "--web-http-listen <ADDR>",
        "--listen-tls-cert <FILE>",
        "--listen-tls-key <FILE>",
        "--listen-tls-generate <HOST>",
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

fn forbid_io_uring() -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// The first field of what a filter sees.
    const SYSCALL_NUMBER: u32 = 0;
    const fn step(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code, jt, jf, k }
    }
    let mut steps = [
        step(LOAD, 0, 0, SYSCALL_NUMBER),
        step(IF_EQUAL, 0, 1, libc::SYS_io_uring_setup as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program outlives the call, which copies it.
    unsafe {
        succeeded(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        let mode = libc::SECCOMP_MODE_FILTER;
        succeeded(libc::prctl(libc::PR_SET_SECCOMP, mode, &program))
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
