//! What operators write in files, on real processes: the relay that comes of it, and `shardcast check`.

#[path = "support/process.rs"]
#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod process;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use process::{Process, shardcast};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType,
};
use time::OffsetDateTime;

const LISTENING_WITHIN: Duration = Duration::from_secs(5);
const ENDED_WITHIN: Duration = Duration::from_secs(5);

/// A directory of its own per test, removed at the end.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Files {
        let root = std::env::temp_dir().join(format!("shardcast-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("a directory");
        Files(root)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a name of ours").to_owned()
    }

    /// Paths of a certificate that is good until then, and of its key.
    fn issue(&self, name: &str, year: i32) -> (String, String) {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::new(vec!["relay.example".to_owned()]).expect("names");
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let cert = params.self_signed(&key).expect("a certificate").pem();
        (
            self.write(&format!("{name}.cert.pem"), &cert),
            self.write(&format!("{name}.key.pem"), &key.serialize_pem()),
        )
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Exit code, standard output, standard error.
fn ended(command: Command) -> (i32, String, String) {
    let ended = Process::spawn(command).ended(ENDED_WITHIN);
    (ended.code(), ended.stdout.clone(), ended.stderr)
}

#[track_caller]
fn has_line(text: &str, begin: &str, end: &str) {
    let is_there = text.lines().any(|line| line.starts_with(begin) && line.ends_with(end));
    assert!(is_there, "no line {begin:?} ... {end:?} in {text}");
}

#[test]
fn a_relay_from_a_file() {
    let files = Files::new("settings-relay");
    let (cert, key) = files.issue("own", 2099);
    let file = files.write(
        "relay.toml",
        &format!(
            "shards = 2\n[listen]\nbind = '127.0.0.1:0'\ntls.cert = ['{cert}']\ntls.key = ['{key}']\n\
             [web.http]\nlisten = 'off'\n[auth]\npublic = ['anon/**', 'live/**']\n\
             [cache]\ncapacity = '16MiB'\n[log]\nlevel = 'warn'\n"
        ),
    );
    // The file, two variables over it, and an argument over one of them.
    let mut command = shardcast(&[&file, "--shards", "1"]);
    command.env("SHARDCAST_SHARDS", "3").env("MOQ_LOG_LEVEL", "info");
    let mut relay = Process::spawn(command);
    let addr = relay.listening(LISTENING_WITHIN);
    assert_ne!(addr.port(), 4443);
    relay.stdout_line("Ctrl-C", LISTENING_WITHIN);
    let welcome = relay.stdout();
    for words in
        ["1 on core ", "own.cert.pem, expires", "anon/** live/**", "cache: 16.0 MiB, 16.0 MiB"]
    {
        assert!(welcome.contains(words), "{welcome} lacks {words:?}");
    }
    assert!(!welcome.contains("  http  "), "{welcome}");
    relay.signal(libc::SIGTERM);
    assert_eq!(relay.ended(ENDED_WITHIN).code(), 0);
}

#[test]
fn checked_settings_say_who_said_them() {
    let files = Files::new("settings-check");
    let (cert, key) = files.issue("own", 2099);
    let jwk = files.write(
        "own.jwk",
        r#"{"kty":"oct","alg":"HS256","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#,
    );
    let file = files.write(
        "relay.toml",
        &format!("[listen]\nbind = '[::]:4443'\ntls.cert = '{cert}'\ntls.key = '{key}'\n[auth]\nkey = '{jwk}'\n"),
    );
    let mut command = shardcast(&["check", &file, "--linger", "7s"]);
    command.env("MOQ_CACHE_DURATION", "1m");
    let (code, settings, faults) = ended(command);
    assert_eq!((code, faults.as_str()), (0, ""), "{settings}");
    has_line(&settings, "listen.bind = \"[::]:4443\" ", &format!("# {file}:2"));
    has_line(&settings, "listen.tls.key = ", &format!("# {file}:4"));
    has_line(&settings, "linger = \"7s\" ", "# argument --linger");
    has_line(&settings, "cache.duration = \"1m\" ", "# variable MOQ_CACHE_DURATION");
    has_line(&settings, "cache.capacity = \"25%\" ", "# default");
    has_line(&settings, "# shards is not set ", "# default");
    has_line(&settings, "# access: nobody may", "without a token");
    has_line(&settings, "# key: ", "own.jwk: own (HS256), may grant anything");
    has_line(&settings, "# certificate: ", " days)");
    has_line(&settings, "# quic: ", "[::]:4443");
    has_line(&settings, "# http: ", "nowhere");
    assert!(!settings.contains("AyM1Sys"), "{settings}");

    // It is a file that says the same.
    let again = files.write("again.toml", &settings);
    let (code, shown, faults) = ended(shardcast(&["check", &again]));
    assert_eq!((code, faults.as_str()), (0, ""), "{settings}");
    let values = |text: &str| {
        let said = |line: &str| line.rsplit_once(" # ").map_or(line, |(said, _)| said).to_owned();
        text.lines().map(said).collect::<Vec<_>>()
    };
    assert_eq!(values(&settings), values(&shown));
}

#[test]
fn what_stands_in_the_way_is_told() {
    let files = Files::new("settings-faults");
    let (cert, key) = files.issue("own", 2099);
    let (old_cert, old_key) = files.issue("old", 2020);
    let half = files.write("half.jwk", r#"{"kty":"EC","alg":"ES256""#);
    let check = |text: &str| ended(shardcast(&["check", &files.write("relay.toml", text)]));
    let list =
        files.write("list.json", r#"["moqt://a", {"url": "moqt://b?jwt=SECRET", "coost": 5}]"#);
    for (list, words) in [
        (list.as_str(), "list.json: entry 2 of the list, moqt://b: "),
        ("/nowhere/list.json", "/nowhere/list.json: No such file"),
    ] {
        let (code, _, faults) =
            check(&format!("cluster.connect_api = '{list}'\nconnect.tls.insecure = true\n"));
        assert_eq!(code, 1, "{faults}");
        assert!(faults.contains("cluster.connect_api (") && faults.contains(words), "{faults}");
        assert!(!faults.contains("SECRET"), "{faults}");
    }
    let links = "cluster.connect = 'moqt://b/?cots=3'\nconnect.tls.insecure = true\n";
    let (code, shown, faults) = check(links);
    assert_eq!(code, 0, "{faults}");
    has_line(&shown, "# note: moqt://b:443/ is asked for cots too", "");
    let (code, settings, faults) = check(&format!("listen.tls.cert = '{cert}'"));
    assert_eq!(code, 2);
    has_line(&settings, "listen.tls.cert = ", "relay.toml:1");
    assert!(faults.contains("--listen-tls-key"), "{faults}");

    let (code, _, faults) = check("listen.bind = '[::]:4443'\nauth.public = 'a/**'\n");
    assert_eq!(code, 2);
    let file = files.0.join("relay.toml");
    let command =
        format!("run: shardcast {} --listen '[::]:4443' --listen-tls-cert", file.display());
    assert!(faults.contains(&command), "{faults}");

    // All of them, not only the first, and by the names that they have in the file.
    let text = format!("auth.key = '{half}'\nauth.peer = 'edge'\n[listen.tls]\ncert = '{cert}'\n");
    let (code, settings, faults) = check(&text);
    assert_eq!((code, faults.lines().count()), (2, 3), "{faults}");
    has_line(&settings, "auth.peer = ", "relay.toml:2");
    for begin in [
        format!("listen.tls.cert ({}:4): --listen-tls-cert", file.display()),
        format!("auth.peer ({}:2): --auth-peer", file.display()),
        format!("auth.key ({}:1): {half}: ", file.display()),
    ] {
        assert!(faults.contains(&format!("shardcast: {begin}")), "{faults} lacks {begin}");
    }
    let (code, shown, faults) = check("auth.key = '{\"kty\":\"oct\",\"k\":\"SECRET\"}'\n");
    assert_eq!(code, 1);
    assert!(faults.contains("auth.key (") && !faults.contains("SECRET"), "{faults}");
    has_line(&shown, "auth.key = [\"a key, not a file's name\"", "relay.toml:1");
    assert!(!shown.contains("SECRET"), "{shown}");

    let text =
        format!("listen.tls.cert = '{cert}'\nlisten.tls.key = '{old_key}'\nauth.key = '{half}'\n");
    let (code, _, faults) = check(&text);
    assert_eq!((code, faults.lines().count()), (1, 2), "{faults}");
    let said = |words: &str| faults.lines().any(|line| line.contains(words));
    assert!(said(&format!("listen.tls.key ({}:2): the key in", file.display())), "{faults}");
    assert!(said(&format!("auth.key ({}:3): {half}: ", file.display())), "{faults}");

    let (code, settings, faults) =
        check(&format!("listen.tls.cert = '{old_cert}'\nlisten.tls.key = '{old_key}'\n"));
    assert_eq!((code, faults.lines().count()), (1, 1), "{faults}");
    assert!(faults.contains("EXPIRED 2020-01-01"), "{faults}");
    has_line(&settings, "# certificate: ", "00:00 UTC");

    let (code, _, faults) =
        check(&format!("listen.tls.cert = '{cert}'\nlisten.tls.key = '{key}'\n"));
    assert_eq!((code, faults.as_str()), (0, ""));
}

#[test]
fn what_is_ordered_is_looked_at() {
    let files = Files::new("settings-ordered");
    let (root, _) = files.issue("root", 2099);
    let key = files.write("eab.key", "YWJjZA==\n");
    let broken = files.write("broken.key", "no key!");
    let check = |key: &str, root: &str| {
        let state = files.0.display();
        ended(shardcast(&[
            "check",
            &files.write(
                "relay.toml",
                &format!(
                    "state_dir = '{state}'\nacme.domain = ['a.example']\nacme.root = '{root}'\n\
             acme.eab_kid = 'kid-1'\nacme.eab_key = '{key}'\n"
                ),
            ),
        ]))
    };
    let (code, facts, faults) = check(&key, &root);
    assert_eq!((code, faults.as_str()), (0, ""));
    has_line(&facts, "# certificate: ordered for a.example from https://acme-v02", "none yet");
    has_line(&facts, "# account: bound to kid-1, by ", "eab.key");
    has_line(&facts, "# note: everybody on this machine may read ", "eab.key");
    for (key, root, begin) in [
        (broken.as_str(), root.as_str(), "acme.eab_key ("),
        ("/nowhere/key", &root, "acme.eab_key ("),
        (&key, "/nowhere/root.pem", "acme.root ("),
    ] {
        let (code, _, faults) = check(key, root);
        assert_eq!((code, faults.lines().count()), (1, 1), "{faults}");
        assert!(faults.starts_with(&format!("shardcast: {begin}")), "{faults}");
    }
}

/// Certificates for this name, each issued by the next, the last by itself.
struct Chain(Vec<(CertificateParams, KeyPair)>);

impl Chain {
    fn new(names: &[&str]) -> Chain {
        let one = |name: &&str| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, *name);
            params.subject_alt_names.push(SanType::DnsName((*name).try_into().expect("a name")));
            params.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()));
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            (params, KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key"))
        };
        Chain(names.iter().map(one).collect())
    }

    fn valid(mut self, at: usize, from: OffsetDateTime, until: OffsetDateTime) -> Chain {
        (self.0[at].0.not_before, self.0[at].0.not_after) = (from, until);
        self
    }

    fn pem(&self, at: usize) -> String {
        let (params, key) = &self.0[at];
        let signed = match self.0.get(at + 1) {
            Some((by, by_key)) => params.signed_by(key, &Issuer::from_params(by, by_key)),
            None => params.self_signed(key),
        };
        signed.expect("a certificate").pem()
    }

    fn key(&self) -> String {
        self.0[0].1.serialize_pem()
    }
}

#[test]
fn certificates_are_looked_at() {
    let files = Files::new("settings-chain");
    let check = |certificate: &str, key: &str| {
        let cert = files.write("cert.pem", certificate);
        let key = files.write("key.pem", key);
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).expect("a mode");
        ended(shardcast(&["check", "--listen-tls-cert", &cert, "--listen-tls-key", &key]))
    };
    let notes = |facts: &str| {
        let notes = facts.lines().filter_map(|line| line.strip_prefix("# note: "));
        notes.map(str::to_owned).collect::<Vec<_>>()
    };
    let now = OffsetDateTime::now_utc();
    let day = |days| now + Duration::from_secs(86_400) * days;
    let good = || Chain::new(&["relay.example", "middle", "root"]).valid(0, now, day(90));

    let chain = good();
    let (code, facts, faults) = check(&[chain.pem(0), chain.pem(1)].concat(), &chain.key());
    assert_eq!((code, faults.as_str(), notes(&facts)), (0, "", vec![]), "{facts}");
    let begin = format!(
        "# certificate: {}, for relay.example 10.0.0.1, issued by CN=middle, expires ",
        files.0.join("cert.pem").display()
    );
    has_line(&facts, &begin, " days)");
    assert!(facts.contains("(in 89 days)"), "{facts}");

    // Those of issuers in a wrong order, and none of them left.
    let (code, facts, faults) = check(&[chain.pem(0), chain.pem(2)].concat(), &chain.key());
    assert_eq!((code, faults.as_str()), (0, ""));
    let [note] = &notes(&facts)[..] else { panic!("{facts}") };
    assert!(
        note.contains("certificate 2 (CN=root) is not that of who issued the one before"),
        "{note}"
    );
    let (code, _, faults) = check(&[chain.pem(1), chain.pem(0)].concat(), &chain.key());
    assert_eq!(code, 1);
    assert!(faults.contains("put the server's own certificate before its issuers"), "{faults}");

    let old = good().valid(1, rcgen::date_time_ymd(2019, 1, 1), rcgen::date_time_ymd(2020, 1, 1));
    let (code, _, faults) = check(&[old.pem(0), old.pem(1)].concat(), &old.key());
    assert_eq!(code, 1);
    assert!(faults.contains("certificate 2 (CN=middle): EXPIRED 2020-01-01"), "{faults}");

    let young = good().valid(0, rcgen::date_time_ymd(2090, 1, 1), rcgen::date_time_ymd(2091, 1, 1));
    let (code, _, faults) = check(&young.pem(0), &young.key());
    assert_eq!((code, faults.lines().count()), (1, 1), "{faults}");
    assert!(faults.contains("listen.tls.cert (argument --listen-tls-cert): "), "{faults}");
    assert!(faults.contains("is not valid before 2090-01-01"), "{faults}");

    let short = good().valid(0, now, day(13));
    let (code, facts, _) = check(&short.pem(0), &short.key());
    let [note] = &notes(&facts)[..] else { panic!("{facts}") };
    assert!(code == 0 && note.contains("(in 12 days); put a new one in its place"), "{note}");

    // What browsers take by its hash, and what they do not.
    for (days, is_too_long) in [(14, false), (15, true)] {
        let own = Chain::new(&["relay.example"]).valid(0, now, day(days));
        let (code, facts, _) = check(&own.pem(0), &own.key());
        let notes = notes(&facts);
        let note = notes.iter().find(|note| note.contains("self-signed")).expect("it is so");
        let said = note.contains("browsers cannot: it is valid for more than 14 days");
        assert_eq!((code, said), (0, is_too_long), "{note}");
    }
    let mut nameless = good();
    nameless.0[0].0.subject_alt_names.clear();
    let (code, facts, _) = check(&nameless.pem(0), &nameless.key());
    assert_eq!(code, 0);
    assert!(notes(&facts)[0].contains("names no host"), "{facts}");
    has_line(&facts, "# certificate: ", " days)");

    // Of several pairs each is told.
    let (own, own_key) = files.issue("own", 2099);
    let (_, other_key) = files.issue("other", 2099);
    let (old, old_key) = files.issue("old", 2020);
    let file = files.write(
        "pairs.toml",
        &format!(
            "[listen.tls]\ncert = ['{own}', '{old}', '{own}', '/nowhere.pem']\n\
             key = ['{own_key}', '{old_key}', '{other_key}', '{own_key}']\n"
        ),
    );
    let (code, facts, faults) = ended(shardcast(&["check", &file]));
    assert_eq!((code, faults.lines().count()), (1, 3), "{faults}");
    let said: Vec<&str> = faults.lines().collect();
    assert!(said[0].contains(&format!("listen.tls.cert ({file}:2): {old}: EXPIRED")), "{faults}");
    assert!(
        said[1].contains(&format!("listen.tls.key ({file}:3): the key in {other_key}")),
        "{faults}"
    );
    assert!(
        said[2].contains(&format!("listen.tls.cert ({file}:2): cannot read /nowhere.pem")),
        "{faults}"
    );
    assert_eq!(facts.matches("# certificate: ").count(), 2, "{facts}");

    // Whoever reads the key can be the relay.
    let cert = files.write("cert.pem", &chain.pem(0));
    let key = files.write("key.pem", &chain.key());
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).expect("a mode");
    let args = ["check", "--listen-tls-cert", &cert, "--listen-tls-key", &key];
    let (code, facts, _) = ended(shardcast(&args));
    assert_eq!(
        (code, &notes(&facts)[0]),
        (0, &format!("everybody on this machine may read {key}: chmod o= {key}"))
    );
}

#[test]
fn who_issues_certificates_of_clients_is_looked_at() {
    let files = Files::new("settings-roots");
    let root = Chain::new(&["cluster"]).valid(
        0,
        rcgen::date_time_ymd(2020, 1, 1),
        rcgen::date_time_ymd(2099, 1, 1),
    );
    let good = files.write("good.pem", &root.pem(0));
    let empty = files.write("empty.pem", "");
    let (code, facts, faults) =
        ended(shardcast(&["check", "--listen-tls-root", &good, "--auth-peer", "edge"]));
    assert_eq!((code, faults.as_str()), (0, ""));
    has_line(
        &facts,
        &format!("# certificates of clients: {good}, CN=cluster, expires 2099-01-01"),
        " days)",
    );
    has_line(&facts, "# peers: ", "edge");
    let all = format!("{good},{empty},/nowhere.pem");
    let mut command = shardcast(&["check", "--auth-peer", "edge"]);
    command.env("MOQ_LISTEN_TLS_ROOT", all);
    let (code, _, faults) = ended(command);
    assert_eq!((code, faults.lines().count()), (1, 2), "{faults}");
    let from = "listen.tls.root (variable MOQ_LISTEN_TLS_ROOT): ";
    assert!(faults.lines().all(|line| line.contains(from)), "{faults}");
    assert!(faults.contains("empty.pem") && faults.contains("/nowhere.pem"), "{faults}");

    let old = root.valid(0, rcgen::date_time_ymd(2019, 1, 1), rcgen::date_time_ymd(2020, 1, 1));
    let old = files.write("old.pem", &old.pem(0));
    let (code, facts, _) =
        ended(shardcast(&["check", "--listen-tls-root", &old, "--auth-peer", "edge"]));
    assert!(code == 0 && facts.contains("# note: ") && facts.contains("let in still"), "{facts}");
}

#[test]
fn each_key_is_looked_at() {
    let files = Files::new("settings-keys");
    std::fs::create_dir(files.0.join("keys")).expect("a directory");
    let generate = |args: &[&str]| {
        let mut command = shardcast(&["token", "generate"]);
        command.args(args).current_dir(&files.0);
        assert_eq!(ended(command).0, 0, "{args:?}");
    };
    let check = |args: &[&str]| {
        let mut command = shardcast(&["check"]);
        command.args(args).current_dir(&files.0);
        ended(command)
    };
    let (code, facts, _) = check(&["--auth-key-dir", "keys"]);
    assert_eq!(code, 0);
    has_line(&facts, "# note: no key is in keys yet", "NAME.jwk");

    let scope = ["--scope-root", "a", "--scope-publish", "b/**", "--scope-subscribe", "**"];
    generate(&[&["--id", "k", "--out", "k.jwk", "--public", "keys/k.jwk"][..], &scope].concat());
    generate(&[
        "--id",
        "other",
        "--out",
        "own.jwk",
        "--public",
        "keys/n.jwk",
        "--algorithm",
        "EdDSA",
    ]);
    let (code, facts, faults) = check(&["--auth-key", "own.jwk", "--auth-key-dir", "keys"]);
    assert_eq!((code, faults.as_str()), (0, ""));
    has_line(&facts, "# key: own.jwk: ", "other (EdDSA), may grant anything");
    has_line(
        &facts,
        "# key: keys/k.jwk: ",
        "k (ES256), may grant to publish /a/b/** and watch /a/** at most",
    );
    has_line(&facts, "# key: keys/n.jwk: ", "n (EdDSA), may grant anything");
    has_line(&facts, "# note: own.jwk: a private key", "--auth-key");
    has_line(&facts, "# note: keys/n.jwk: the key calls itself other", "other.jwk");

    // All that are bad, each with who named it.
    files.write("half.jwk", "{");
    files.write("keys/bad.jwk", "{}");
    let file = files.write("relay.toml", "[auth]\nkey = ['half.jwk', '/nowhere.jwk', 'own.jwk']\n");
    let (code, facts, faults) = check(&[&file, "--auth-key-dir", "keys"]);
    let said: Vec<&str> = faults.lines().collect();
    assert_eq!((code, said.len()), (1, 3), "{faults}");
    assert!(said[0].contains(&format!("auth.key ({file}:2): half.jwk: ")), "{faults}");
    assert!(
        said[1].contains(&format!("auth.key ({file}:2): /nowhere.jwk: cannot be read")),
        "{faults}"
    );
    assert!(
        said[2].contains("auth.key_dir (argument --auth-key-dir): keys/bad.jwk: no `kty`"),
        "{faults}"
    );
    has_line(&facts, "# key: own.jwk: ", "anything");

    // Good ones that do not go together.
    std::fs::remove_file(files.0.join("keys/bad.jwk")).expect("a file of ours");
    let set = |name: &str| {
        let key = std::fs::read_to_string(files.0.join("keys/k.jwk")).expect("a key");
        let other = key.replace("\"kid\":\"k\"", "\"kid\":\"m\"");
        files.write(name, &format!("{{\"keys\":[{key},{other}]}}"))
    };
    set("set.jwk");
    let (code, _, faults) = check(&["--auth-key", "set.jwk", "--auth-key-dir", "keys"]);
    assert_eq!((code, faults.lines().count()), (1, 1), "{faults}");
    assert!(faults.contains("another key is named k too"), "{faults}");
    let (code, _, faults) = check(&["--auth-key-dir", "nowhere"]);
    assert_eq!(code, 1);
    assert!(
        faults.contains("auth.key_dir (argument --auth-key-dir): nowhere: cannot be read"),
        "{faults}"
    );
}

#[test]
fn nothing_is_started_by_looking() {
    let files = Files::new("settings-idle");
    // Where another program is, with state that was never written.
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let addr = taken.local_addr().expect("an address").to_string();
    let state = files.0.join("state");
    let args = ["check", "--listen", &addr, "--state-dir", state.to_str().expect("a name of ours")];
    let (code, facts, faults) = ended(shardcast(&args));
    assert_eq!((code, faults.as_str()), (0, ""));
    has_line(&facts, "# quic: ", &addr);
    has_line(&facts, "# http: ", &addr);
    assert!(!state.exists());
    let operators = [&args[..], &["--internal-listen", "127.0.0.1:9"]].concat();
    has_line(&ended(shardcast(&operators)).1, "# operators: ", "127.0.0.1:9");

    std::fs::create_dir(&state).expect("a directory");
    files.write("state/secrets.key", "short");
    std::fs::set_permissions(state.join("secrets.key"), PermissionsExt::from_mode(0o600))
        .expect("a mode");
    let (code, _, faults) = ended(shardcast(&args));
    assert_eq!(code, 1);
    assert!(faults.contains("state_dir (argument --state-dir): "), "{faults}");
    assert_eq!(std::fs::read_to_string(state.join("secrets.key")).expect("it is there"), "short");

    let mut command = shardcast(&["check"]);
    command.env("RUST_LOG", "a=b=c");
    let (code, _, faults) = ended(command);
    assert_eq!((code, faults.lines().count()), (2, 1), "{faults}");
    assert!(faults.contains("RUST_LOG"), "{faults}");

    let (code, help, _) = ended(shardcast(&["check", "--help"]));
    assert_eq!(code, 0);
    for words in ["Usage: shardcast check [OPTIONS] [FILE]", "Exit codes: 0 ", "; 1 ", "; 2 "] {
        assert!(help.contains(words), "{help} lacks {words:?}");
    }
    let (code, version, _) = ended(shardcast(&["check", "--version"]));
    assert_eq!((code, version.starts_with("shardcast ")), (0, true));
    let (code, _, faults) = ended(shardcast(&["check", "--shardz", "1"]));
    assert!(code == 2 && faults.contains("--shardz; write --shards instead"), "{faults}");
}

/// A file of the existing relay: what is left to do is told line by line.
#[test]
fn a_file_with_faults() {
    let files = Files::new("settings-lines");
    let file = files.write(
        "relay.toml",
        "[listen]\nbind = '127.0.0.1:0'\ntls.generate = ['localhost']\n[server]\nbind = '[::]:443'\n\
         [auth]\npubic = '**'\n[stats]\nenabled = true\n[log]\nlevel = 'loud'\n",
    );
    let expect: &[(usize, &[&str])] = &[
        (5, &["server.bind", "write listen.bind instead"]),
        (7, &["auth.pubic; write auth.public instead, or remove it"]),
        (8, &["stats", "remove it"]),
        (11, &["'loud'", "'log.level'"]),
    ];
    let (code, settings, faults) = ended(shardcast(&["check", &file]));
    assert_eq!(code, 2);
    // What is right is shown.
    has_line(&settings, "listen.tls.generate = ", "relay.toml:3");
    assert_eq!(faults.lines().count(), expect.len(), "{faults}");
    for (fault, (line, words)) in faults.lines().zip(expect) {
        assert!(fault.starts_with(&format!("shardcast: {file}:{line}: ")), "{fault}");
        assert!(words.iter().all(|word| fault.contains(word)), "{fault} lacks one of {words:?}");
    }

    // A relay says the first, in one line, and where the others are.
    let (code, _, refusal) = ended(shardcast(&[&file]));
    assert_eq!((code, refusal.lines().count()), (2, 1), "{refusal}");
    assert!(refusal.starts_with(&format!("shardcast: {file}:5: server.bind")), "{refusal}");
    assert!(refusal.contains("and 3 more: shardcast check"), "{refusal}");
}

#[test]
fn the_sample_of_the_package_is_fine() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/shardcast.toml");
    let (code, settings, faults) = ended(shardcast(&["check", sample.to_str().expect("a path")]));
    assert_eq!((code, faults.as_str()), (0, ""));
    let (_, without, _) = ended(shardcast(&["check"]));
    let stated = |text: &str| {
        text.lines().take_while(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(stated(&settings), stated(&without));
    assert!(stated(&settings).iter().all(|line| line.ends_with("# default")), "{settings}");
}
