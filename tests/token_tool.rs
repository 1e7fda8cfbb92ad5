//! `shardcast token` as operators use it: real processes, real files, and what crate `moq-auth` and npm
//! `@moq/token` make of what it writes, and it of what they write.

#[allow(dead_code, reason = "this needs a part of what the plays with processes share")]
#[path = "support/process.rs"]
mod process;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use process::shardcast;

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const REFUSED: i32 = 3;

const ALGORITHMS: [&str; 12] = [
    "HS256", "HS384", "HS512", "ES256", "ES384", "EdDSA", "RS256", "RS384", "RS512", "PS256",
    "PS384", "PS512",
];

/// 2100-01-01.
const EXPIRES: &str = "4102444800";

const NPM_TOOL: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/token/node_modules/.bin/moq-token");

/// A directory that is removed at the end, in which all commands run.
struct Desk(PathBuf);

#[derive(Debug)]
struct Done {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Desk {
    fn new(name: &str) -> Desk {
        let path =
            std::env::temp_dir().join(format!("shardcast-tool-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Desk(path)
    }

    fn run(&self, mut command: Command, input: &str) -> Done {
        command.current_dir(&self.0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; run scripts/setup.sh"));
        // Who reads nothing has closed it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Done {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn token_with(&self, args: &[&str], input: &str) -> Done {
        let mut command = shardcast(&["token"]);
        command.args(args);
        self.run(command, input)
    }

    fn token(&self, args: &[&str]) -> Done {
        self.token_with(args, "")
    }

    /// What it prints where all goes well.
    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        let done = self.token(args);
        assert_eq!(done.code, 0, "{args:?}: {done:?}");
        done.stdout.trim_end().to_owned()
    }

    #[track_caller]
    fn fails(&self, args: &[&str], input: &str, code: i32, words: &[&str]) -> Done {
        let done = self.token_with(args, input);
        assert_eq!(done.code, code, "{args:?}: {done:?}");
        assert_eq!(done.stderr.lines().count(), 1, "{args:?}: {done:?}");
        assert!(done.stderr.starts_with("shardcast: "), "{args:?}: {done:?}");
        for word in words {
            assert!(done.stderr.contains(word), "{args:?}: {done:?} lacks {word:?}");
        }
        done
    }

    #[track_caller]
    fn npm(&self, args: &[&str], input: &str) -> String {
        let mut command = Command::new("node");
        command.arg(NPM_TOOL).args(args);
        let done = self.run(command, input);
        assert_eq!(done.code, 0, "{args:?}: {done:?}");
        done.stdout.trim_end().to_owned()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.0.join(name)).unwrap().permissions().mode() & 0o777
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A key in `NAME.jwk`, and what verifies its tokens.
    fn generate(&self, algorithm: &str, name: &str, more: &[&str]) -> String {
        let private = format!("{name}.jwk");
        let mut args = vec!["generate", "--algorithm", algorithm, "--id", name, "--out", &private];
        let public = format!("{name}.pub.jwk");
        if !algorithm.starts_with("HS") {
            args.extend(["--public", &public]);
        }
        args.extend(more);
        self.done(&args);
        if algorithm.starts_with("HS") { private } else { public }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn their_key(desk: &Desk, name: &str) -> moq_auth::Key {
    moq_auth::Key::from_file(desk.0.join(name)).unwrap()
}

/// The room, alice who publishes, everybody who watches.
const GRANT: [&str; 6] = ["--root", "rooms/123", "--publish", "alice/**", "--subscribe", "**"];

#[test]
fn crate_moq_auth_reads_what_is_written_here() {
    let desk = Desk::new("to-crate");
    for (at, algorithm) in ALGORITHMS.iter().enumerate() {
        // In both ways to write a key.
        let more: &[&str] = if at % 2 == 0 { &[] } else { &["--base64"] };
        let public = desk.generate(algorithm, algorithm, more);
        let private = format!("{algorithm}.jwk");
        let key = their_key(&desk, &public);
        assert_eq!(key.kid.as_ref().map(ToString::to_string).as_deref(), Some(*algorithm));
        for form in ["auto", "prefixes", "patterns"] {
            let sign = ["sign", "--key", &private, "--expires", EXPIRES, "--form", form];
            let token = desk.done(&[&sign[..], &GRANT].concat());
            let claims = key.verify(&token).unwrap();
            assert_eq!(claims.root, "rooms/123");
            let granted = |text: &str| text.parse::<moq_auth::Pattern>().unwrap().into();
            assert_eq!((claims.publish, claims.subscribe), (granted("alice/**"), granted("**")));
            let expires = claims.expires.unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
            assert_eq!(expires.as_secs().to_string(), EXPIRES);
        }
        // They sign with it, and we verify that.
        let theirs = moq_auth::Claims::default()
            .with_root("a")
            .with_publish(["x*/**".parse().unwrap(), "".parse().unwrap()]);
        let token = their_key(&desk, &private).sign(&theirs).unwrap();
        let shown = desk.token_with(&["verify", "--key", &public], &token);
        assert_eq!(shown.code, 0, "{shown:?}");
        for line in
            ["root        /a\n", "publish     /a\n", "publish     /a/x*/**\n", "valid       yes\n"]
        {
            assert!(shown.stdout.contains(line), "{shown:?} lacks {line:?}");
        }
    }
}

#[test]
fn crate_moq_auth_writes_what_is_read_here() {
    let desk = Desk::new("from-crate");
    for algorithm in
        [moq_auth::Algorithm::HS384, moq_auth::Algorithm::ES256, moq_auth::Algorithm::EdDSA]
    {
        let key = moq_auth::Key::generate(algorithm, None).unwrap();
        let name = format!("{algorithm}.jwk");
        key.to_file(desk.0.join(&name)).unwrap();
        let token = desk.done(&["sign", "--key", &name, "--publish", "cam", "--expires", "1h"]);
        assert_eq!(
            key.verify(&token).unwrap().publish,
            "cam".parse::<moq_auth::Pattern>().unwrap().into()
        );
        desk.write("it.jwt", &token);
        desk.done(&["verify", "--key", &name, "--in", "it.jwt"]);
    }
}

#[test]
fn npm_moq_token_reads_what_is_written_here() {
    let desk = Desk::new("to-npm");
    for algorithm in ["HS256", "HS512", "ES256", "ES384", "EdDSA", "RS256", "PS512"] {
        let public = desk.generate(algorithm, algorithm, &[]);
        let private = format!("{algorithm}.jwk");
        let sign = ["sign", "--key", &private, "--expires", EXPIRES];
        let token = desk.done(&[&sign[..], &GRANT].concat());
        let claims = desk.npm(&["verify", "--key", &public, "--root", "rooms/123"], &token);
        for word in ["rooms/123", "alice", EXPIRES] {
            assert!(claims.contains(word), "{algorithm}: {claims}");
        }
        // They sign with it, and we verify that.
        let token = desk.npm(&["sign", "--key", &private, "--root", "a", "--publish", "b"], "");
        let shown = desk.token_with(&["verify", "--key", &public], &token);
        assert!(shown.code == 0 && shown.stdout.contains("publish     /a/b/**\n"), "{shown:?}");
    }
}

#[test]
fn npm_moq_token_writes_what_is_read_here() {
    let desk = Desk::new("from-npm");
    for (algorithm, more) in
        [("HS256", None), ("ES384", Some("--base64")), ("RS512", None), ("EdDSA", Some("--base64"))]
    {
        let (private, public) = (format!("{algorithm}.jwk"), format!("{algorithm}.pub.jwk"));
        let mut args = vec!["generate", "--algorithm", algorithm, "--id", "k1", "--key", &private];
        if algorithm != "HS256" {
            args.extend(["--public", &public]);
        }
        args.extend(more);
        desk.npm(&args, "");
        let verifier = if algorithm == "HS256" { &private } else { &public };
        let token = desk.npm(
            &[
                "sign",
                "--key",
                &private,
                "--root",
                "rooms/123",
                "--publish",
                "alice",
                "--subscribe",
                "",
            ],
            "",
        );
        let shown =
            desk.token_with(&["verify", "--key", verifier, "--at", "/rooms/123/bob"], &token);
        assert_eq!(shown.code, 0, "{shown:?}");
        for line in [
            format!("key         k1 ({algorithm})\n"),
            "publish     /rooms/123/alice/**\n".to_owned(),
            "subscribe   /rooms/123/**\n".to_owned(),
            "dialled     /rooms/123/bob (names on the wire begin below it)\n".to_owned(),
            "publish     there nothing\n".to_owned(),
            "subscribe   there /rooms/123/bob/**\n".to_owned(),
        ] {
            assert!(shown.stdout.contains(&line), "{shown:?} lacks {line:?}");
        }
        // And tokens made here with their key are theirs too.
        let token = desk.done(&["sign", "--key", &private, "--publish", "x/**", "--expires", "1d"]);
        let claims = desk.npm(&["verify", "--key", verifier], &token);
        assert!(claims.contains("x"), "{claims}");
    }
}

/// The claims of a token as they are written.
fn payload(token: &str) -> serde_json::Value {
    use base64::Engine;
    let payload = token.split('.').nth(1).unwrap();
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    serde_json::from_slice(&json).unwrap()
}

#[test]
fn what_prefixes_can_say_is_said_with_prefixes() {
    let desk = Desk::new("forms");
    desk.generate("HS256", "k", &[]);
    let sign = |more: &[&str]| payload(&desk.done(&[&["sign", "--key", "k.jwk"], more].concat()));
    let claims = sign(&GRANT);
    assert_eq!(
        (&claims["root"], &claims["put"], &claims["get"]),
        (&"rooms/123".into(), &["alice"][..].into(), &[""][..].into())
    );
    assert!(claims["iat"].is_i64() && claims["exp"].is_null() && claims["nbf"].is_null());
    let claims = sign(&[&GRANT[..], &["--form", "patterns"]].concat());
    assert_eq!(
        (&claims["publish"], &claims["subscribe"]),
        (&["alice/**"][..].into(), &["**"][..].into())
    );
    assert!(claims["put"].is_null() && claims["get"].is_null());
    let claims = sign(&[&GRANT[..], &["--publish", "cam"]].concat());
    assert_eq!(
        (&claims["publish"], &claims["subscribe"]),
        (&["alice/**", "cam"][..].into(), &["**"][..].into())
    );
    let one = desk.token(&["sign", "--key", "k.jwk", "--publish", "cam", "--expires", "1d"]);
    let note = "shardcast: --publish 'cam' is cam alone, and nothing below it; 'cam/**' is both\n";
    assert_eq!((one.code, &*one.stderr), (0, note));
    let args = ["sign", "--key", "k.jwk", "--publish", "cam", "--form", "prefixes"];
    desk.fails(&args, "", USAGE, &["--form prefixes", "'cam'"]);
    let times = ["--publish", "a", "--expires", "2100-01-01T00:00:00Z", "--not-before", "0"];
    let claims = sign(&times);
    assert_eq!((&claims["exp"], &claims["nbf"]), (&4_102_444_800_i64.into(), &0.into()));
    let claims = sign(&["--publish", "a", "--expires", "1d", "--not-before", "1h"]);
    let seconds = |name: &str| claims[name].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!((seconds("exp"), seconds("nbf")), (86_400, 3600));
}

#[test]
fn files_of_secrets_are_for_their_owner_and_none_is_overwritten() {
    let desk = Desk::new("files");
    desk.generate("ES256", "k", &[]);
    let sign = ["sign", "--key", "k.jwk", "--publish", "**", "--out", "it.jwt", "--expires", "1d"];
    assert_eq!(desk.done(&sign), "");
    assert_eq!((desk.mode("k.jwk"), desk.mode("it.jwt")), (0o600, 0o600));
    assert_eq!(desk.mode("k.pub.jwk") & 0o044, 0o044, "others may verify");
    assert!(!desk.read("k.pub.jwk").contains("\"d\""));
    let before: Vec<String> = desk.names().iter().map(|name| desk.read(name)).collect();
    desk.fails(&sign, "", FAILED, &["no token: it.jwt is there already"]);
    let both = ["generate", "--out", "k.jwk", "--public", "new.jwk"];
    desk.fails(&both, "", FAILED, &["no key: k.jwk is there already"]);
    // Not half a pair either.
    let both = ["generate", "--out", "new.jwk", "--public", "k.pub.jwk"];
    desk.fails(&both, "", FAILED, &["no key: k.pub.jwk is there already"]);
    let half = ["public", "--key", "k.jwk", "--out", "k.pub.jwk"];
    desk.fails(&half, "", FAILED, &["no key: k.pub.jwk is there already"]);
    desk.fails(&["generate", "--out", "no/k.jwk"], "", FAILED, &["no/k.jwk", "No such file"]);
    assert_eq!(desk.names(), ["it.jwt", "k.jwk", "k.pub.jwk"]);
    assert_eq!(desk.names().iter().map(|name| desk.read(name)).collect::<Vec<_>>(), before);
    // To standard output it is one line, whatever else is said.
    let key = desk.token(&["generate", "--algorithm", "HS256"]);
    assert!(key.code == 0 && key.stdout.lines().count() == 1 && key.stderr.is_empty(), "{key:?}");
    let other = desk.done(&["generate", "--out", "-", "--algorithm", "HS256"]);
    assert_ne!(other, key.stdout.trim_end());
    let public = desk.done(&["generate", "--out", "new.jwk", "--public", "-"]);
    assert!(public.contains("\"key_ops\":[\"verify\"]") && !public.contains("\"d\""), "{public}");
}

#[test]
fn who_is_refused_is_told_why() {
    let desk = Desk::new("refused");
    let public = desk.generate("ES256", "k", &["--scope-root", "demo", "--scope-publish", "**"]);
    desk.generate("ES256", "other", &[]);
    let sign = |key: &str, more: &[&str]| desk.done(&[&["sign", "--key", key], more].concat());
    let good = sign("k.jwk", &["--publish", "demo/x", "--expires", "1d"]);
    let verify = ["verify", "--key", &public];
    let shown =
        desk.token_with(&verify, &format!("\n https://relay.example/demo?x=1&jwt={good}\n"));
    assert!(shown.code == 0 && shown.stderr.is_empty(), "{shown:?}");
    let at = |path| ["verify", "--key", &public, "--at", path];
    assert!(desk.token_with(&at("/demo/x"), &good).stdout.contains("publish     there /demo/x\n"));
    let elsewhere =
        desk.fails(&at("/else"), &good, REFUSED, &["at which the token grants nothing"]);
    assert!(elsewhere.stdout.contains("publish     /demo/x\n"), "{elsewhere:?}");
    let last = "valid       no: the client dialled a path at which the token grants nothing\n";
    assert!(elsewhere.stdout.ends_with(last), "{elsewhere:?}");
    // A whole URL says where it leads, unless somebody asks for another place.
    let url = format!("https://relay.example/demo/x?jwt={good}");
    let there = desk.token_with(&verify, &url);
    assert!(there.stdout.contains("dialled     /demo/x (") && there.code == 0, "{there:?}");
    let wrong = url.replace("/demo/x", "/else");
    desk.fails(&verify, &wrong, REFUSED, &["at which the token grants nothing"]);
    assert!(desk.token_with(&at("/demo"), &wrong).stdout.contains("dialled     /demo ("));

    let later = sign("k.jwk", &["--publish", "demo/x", "--not-before", "1d"]);
    desk.fails(&verify, &later, REFUSED, &["not valid before 2", "Z"]);
    let stranger = sign("other.jwk", &["--publish", "demo/x"]);
    let unknown = desk.fails(&verify, &stranger, REFUSED, &["not signed with a key of this relay"]);
    assert!(unknown.stdout.starts_with("valid       no: the token is not signed"), "{unknown:?}");
    assert!(unknown.stderr.contains("it names other, which is not here"), "{unknown:?}");
    desk.fails(&verify, "a.b.c", REFUSED, &["is not a JWT"]);
    desk.fails(&verify, &good[..good.len() - 1], REFUSED, &[]);

    // An expired one says what it said. Its issuer was another program.
    let key = their_key(&desk, "other.jwk");
    let claims = moq_auth::Claims::default()
        .with_publish(["a".parse().unwrap()])
        .with_expires(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000));
    let old = key.sign(&claims).unwrap();
    let when = ["expired at 1970-01-01T00:16:40Z"];
    let expired = desk.fails(&["verify", "--key", "other.pub.jwk"], &old, REFUSED, &when);
    assert!(expired.stdout.contains("expires     1970-01-01T00:16:40Z"), "{expired:?}");

    // By their names in a directory.
    fs::create_dir(desk.0.join("keys")).unwrap();
    fs::rename(desk.0.join(&public), desk.0.join("keys/k.jwk")).unwrap();
    assert_eq!(desk.token_with(&["verify", "--key-dir", "keys"], &good).code, 0);
    let unknown = ["verify", "--key-dir", "keys"];
    desk.fails(&unknown, &stranger, REFUSED, &["key other, which this relay does not have"]);
}

#[test]
fn what_cannot_be_made_is_refused() {
    let desk = Desk::new("usage");
    let public =
        desk.generate("EdDSA", "k", &["--scope-root", "demo", "--scope-publish", "live/**"]);
    let sign = |more: &[&str], code: i32, words: &[&str]| {
        desk.fails(&[&["sign", "--key", "k.jwk"], more].concat(), "", code, words);
    };
    sign(
        &[],
        USAGE,
        &["--publish PATTERN or --subscribe PATTERN", "see shardcast token sign --help"],
    );
    sign(&["--root", "demo"], USAGE, &["--publish 'live/**'"]);
    sign(&["--publish", "demo/**"], FAILED, &["more than the key may"]);
    sign(
        &["--publish", "demo/live/a", "--expires", "3600"],
        USAGE,
        &["--expires is over", "1970", "1d"],
    );
    sign(
        &["--publish", "demo/live/a", "--expires", "1d", "--not-before", "2d"],
        USAGE,
        &["--not-before"],
    );
    sign(&["--publish", "demo/live/a", "--expires", "soon"], USAGE, &["'soon'", "1d or 90m"]);
    sign(&["--publish", "/a"], USAGE, &["'/a'", "no slash in front", "write 'a'"]);
    sign(&["--root", "a/*", "--publish", "b"], USAGE, &["'a/*'", "without wildcards"]);
    let deep = vec!["demo/live/a-rather-long-name-for-one-of-many"; 129];
    let many: Vec<String> =
        deep.iter().enumerate().map(|(at, name)| format!("{name}/{at}")).collect();
    let many: Vec<&str> = many.iter().flat_map(|name| ["--publish", name]).collect();
    sign(&many, FAILED, &["more than 128 patterns"]);
    sign(&many[..2 * 128], FAILED, &["relays take 8192"]);

    let sign = ["sign", "--key", &public, "--publish", "demo/live/a"];
    desk.fails(&sign, "", FAILED, &["k.pub.jwk", "may not sign"]);
    let sign = ["sign", "--key", "none.jwk", "--publish", "a"];
    desk.fails(&sign, "", FAILED, &["none.jwk", "No such file"]);
    let generate = |more: &[&str], words: &[&str]| {
        desk.fails(&[&["generate"], more].concat(), "", USAGE, words);
    };
    generate(&["--algorithm", "ES512"], &["'ES512'", "ES384"]);
    generate(&["--algorithm", "HS256", "--out", "h.jwk", "--public", "p.jwk"], &["no public half"]);
    generate(&["--public", "-"], &["name a file with --out"]);
    generate(&["--scope-root", "a", "--out", "h.jwk"], &["--scope-publish"]);
    generate(&["--id", "../k"], &["'../k'", "letters"]);
    desk.fails(&["verify"], "", USAGE, &["--key"]);
    desk.fails(&["verify", "--key", &public], " \n", FAILED, &["standard input is empty"]);
    desk.fails(&["verify", "--key", &public], &"x".repeat(70_000), FAILED, &["is not a token"]);
    assert_eq!(desk.names(), ["k.jwk", "k.pub.jwk"]);
    for help in [
        &["--help"][..],
        &["generate", "--help"],
        &["public", "--help"],
        &["sign", "--help"],
        &["verify", "--help"],
    ] {
        assert!(desk.done(help).contains("shardcast token "), "{help:?}");
    }
    desk.fails(&[], "", USAGE, &["shardcast token --help"]);
}

#[test]
fn a_public_half_is_what_was_written_with_the_key() {
    let desk = Desk::new("halves");
    for algorithm in ["ES256", "ES384", "EdDSA", "RS256"] {
        let scope = ["--scope-root", "demo", "--scope-publish", "**"];
        let public = desk.generate(algorithm, algorithm, &scope);
        let private = format!("{algorithm}.jwk");
        let half = desk.done(&["public", "--key", &private]);
        assert_eq!(half, desk.read(&public).trim_end(), "{algorithm}");
        // Of a public key it is the same.
        assert_eq!(desk.done(&["public", "--key", &public]), half);
    }
    let out = ["public", "--key", "ES256.jwk", "--out", "half.jwk", "--base64"];
    let done = desk.token(&out);
    let said = "shardcast: the public half of ES256.jwk is in half.jwk, for relays: shardcast --auth-key half.jwk\n";
    assert_eq!((done.code, &*done.stdout, &*done.stderr), (0, "", said));
    assert_eq!(desk.mode("half.jwk") & 0o044, 0o044, "others may verify");
    let sign = ["sign", "--key", "ES256.jwk", "--publish", "demo/x", "--expires", "1d"];
    let token = desk.done(&sign);
    assert_eq!(desk.token_with(&["verify", "--key", "half.jwk"], &token).code, 0);

    desk.write(
        "set.jwk",
        &format!("{{\"keys\":[{},{}]}}", desk.read("ES256.jwk"), desk.read("RS256.jwk")),
    );
    let halves = desk.done(&["public", "--key", "set.jwk"]);
    let sign = ["sign", "--key", "set.jwk", "--publish", "a"];
    desk.fails(&sign, "", FAILED, &["set.jwk: a set", "one key signs"]);
    let expect =
        ["ES256.pub.jwk", "RS256.pub.jwk"].map(|name| desk.read(name).trim_end().to_owned());
    assert_eq!(halves, format!("{{\"keys\":[{}]}}", expect.join(",")));

    desk.generate("HS256", "shared", &[]);
    let words = ["shared.jwk: a shared secret has no public half"];
    desk.fails(&["public", "--key", "shared.jwk"], "", FAILED, &words);
    desk.write(
        "mixed.jwk",
        &format!("{{\"keys\":[{},{}]}}", desk.read("ES256.jwk"), desk.read("shared.jwk")),
    );
    desk.fails(&["public", "--key", "mixed.jwk"], "", FAILED, &["keys[1]: a shared secret"]);
}

/// What is said beside a new key is typed, and does what it says.
#[test]
fn what_to_do_with_a_key_is_said() {
    let desk = Desk::new("advice");
    fs::create_dir(desk.0.join("keys")).unwrap();
    let said = |args: &[&str], lines: &[&str]| {
        let done = desk.token(&[&["generate", "--id", "k-1"], args].concat());
        assert_eq!(done.code, 0, "{done:?}");
        let said: Vec<&str> =
            done.stderr.lines().map(|line| line.strip_prefix("shardcast: ").unwrap()).collect();
        assert_eq!(said, lines);
        let token = said.last().unwrap().strip_prefix("to sign a token: shardcast token ").unwrap();
        let words = token.split(' ').map(|word| word.trim_matches('\'')).collect::<Vec<_>>();
        desk.done(&words)
    };
    said(
        &["--out", "a.jwk", "--public", "a.pub.jwk"],
        &[
            "key k-1 is in a.jwk; who has that file can let anybody in everywhere",
            "relays need a.pub.jwk: shardcast --auth-key a.pub.jwk",
            "to sign a token: shardcast token sign --key a.jwk --publish 'live/**' --expires 1d",
        ],
    );
    // Found by its name.
    said(
        &["--out", "b.jwk", "--public", "keys/k-1.jwk"],
        &[
            "key k-1 is in b.jwk; who has that file can let anybody in everywhere",
            "relays need keys/k-1.jwk: shardcast --auth-key-dir keys",
            "to sign a token: shardcast token sign --key b.jwk --publish 'live/**' --expires 1d",
        ],
    );
    let token = said(
        &[
            &["--out", "c.jwk", "--public", "keys/other.jwk", "--scope-root", "customers/7"][..],
            &["--scope-publish", "in/**", "--scope-publish", "up", "--scope-subscribe", "**"],
        ]
        .concat(),
        &[
            "key k-1 is in c.jwk; who has that file can let others publish /customers/7/in/** \
             /customers/7/up and watch /customers/7/** and nothing else",
            "relays need keys/other.jwk: shardcast --auth-key keys/other.jwk",
            "to sign a token: shardcast token sign --key c.jwk --root customers/7 --publish 'in/**' \
             --publish 'up' --subscribe '**' --expires 1d",
        ],
    );
    assert_eq!(desk.token_with(&["verify", "--key", "keys/other.jwk"], &token).code, 0);
    said(
        &["--out", "d.jwk", "--scope-subscribe", "live/**"],
        &[
            "key k-1 is in d.jwk; who has that file can let others watch /live/** and nothing else",
            "relays need its public half: shardcast token public --key d.jwk --out d.public.jwk",
            "to sign a token: shardcast token sign --key d.jwk --subscribe 'live/**' --expires 1d",
        ],
    );
    said(
        &["--out", "e.jwk", "--algorithm", "HS256"],
        &[
            "key k-1 is in e.jwk; who has that file can let anybody in everywhere",
            "relays need the same file: shardcast --auth-key e.jwk",
            "to sign a token: shardcast token sign --key e.jwk --publish 'live/**' --expires 1d",
        ],
    );
}

/// Whatever is given in a wrong place, and whatever is wrong with a key.
#[test]
fn no_secret_is_ever_shown() {
    let desk = Desk::new("secrets");
    desk.generate("HS256", "k", &[]);
    let key = desk.read("k.jwk");
    let json: serde_json::Value = serde_json::from_str(&key).unwrap();
    let secret = json["k"].as_str().unwrap();
    let token = desk.done(&["sign", "--key", "k.jwk", "--publish", "**", "--expires", "1d"]);
    let signature = token.rsplit('.').next().unwrap();
    let encoded = moq_auth::Key::from_str(&key).unwrap().to_str().unwrap();
    desk.write("short.jwk", &key.replace(secret, &secret[..20]));
    desk.write("broken.jwk", &key.replace("oct", "RSA"));
    desk.write("cut.jwk", &key[..key.len() - 3]);
    let url = format!("https://relay.example/?jwt={token}");
    let table: &[(&[&str], i32)] = &[
        (&["verify", "--key", "k.jwk", &token], USAGE),
        (&[&token], USAGE),
        (&["verify", &url], USAGE),
        (&["verify", "--key", &key], FAILED),
        (&["verify", "--key", &encoded], FAILED),
        (&["sign", "--key", &key, "--publish", "a"], FAILED),
        (&["sign", "--key", "short.jwk", "--publish", "a"], FAILED),
        (&["sign", "--key", "broken.jwk", "--publish", "a"], FAILED),
        (&["verify", "--key", "cut.jwk"], FAILED),
    ];
    for (args, code) in table {
        let done = desk.fails(args, "", *code, &[]);
        for shown in [&done.stdout, &done.stderr] {
            assert!(!shown.contains(&secret[..20]) && !shown.contains(signature), "{shown}");
            assert!(!shown.contains(&encoded[..40]), "{shown}");
        }
    }
    // What verify prints is what the token says, and not the token.
    let shown = desk.token_with(&["verify", "--key", "k.jwk"], &token);
    assert!(shown.code == 0 && !shown.stdout.contains(signature), "{shown:?}");
}
