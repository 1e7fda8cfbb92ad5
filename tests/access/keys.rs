//! Files of keys: what is in them, how tokens find it, and what becomes of sessions when it changes.

use std::path::PathBuf;

use shardcast::access::{
    Access, Algorithm, Form, Grant, KeyFault, KeyFile, KeyId, KeySet, Place, Refusal, SigningKey,
    base64url, read_key_files,
};

use crate::support::{NOW, SECRET, file, one_key, path, secret_jwk, token, token_with};

fn load(files: &[KeyFile]) -> Result<KeySet, String> {
    KeySet::new(files).map_err(|error| error.to_string())
}

#[track_caller]
fn check(jwk: &str, words: &[&str]) {
    let error = load(&[file("/etc/keys/root.jwk", Place::File, jwk)]).expect_err(jwk);
    for word in words.iter().chain(&["/etc/keys/root.jwk: "]) {
        assert!(error.contains(word), "{error}");
    }
    assert!(error.len() < 250 && !error.contains('\n'), "{error}");
}

#[test]
fn a_bad_file_says_what_is_wrong() {
    let k = crate::support::base64url(SECRET);
    check("", &["neither a JWK"]);
    check("-----BEGIN PRIVATE KEY-----", &["PEM, and keys are JWK", "shardcast token generate"]);
    check(&base64url("[]"), &["neither a JWK"]);
    check("{", &["JSON object"]);
    check("{}", &["no `kty`"]);
    check(&secret_jwk(r#","kty":"oct""#), &["`kty` is there twice"]);
    check(r#"{"kty":"oct"}"#, &["no `alg`"]);
    check(r#"{"kty":"DSA","alg":"HS256"}"#, &["`kty`", "OKP"]);
    check(r#"{"kty":"oct","alg":"none"}"#, &["`alg`", "HS256"]);
    check(r#"{"kty":"EC","alg":"ES512"}"#, &["`alg`", "ES384"]);
    check(r#"{"kty":"oct","alg":"ES256"}"#, &["ES256", "`kty`"]);
    check(r#"{"kty":"oct","alg":"HS256"}"#, &["no `k`"]);
    check(r#"{"kty":"oct","alg":"HS256","k":7}"#, &["`k` is not a string"]);
    check(r#"{"kty":"oct","alg":"HS256","k":"a+b"}"#, &["`k` is not base64url"]);
    check(r#"{"kty":"oct","alg":"HS256","k":"c2hvcnQ"}"#, &["`k` has fewer than 32 bytes"]);
    check(&secret_jwk(r#","key_ops":["sign"]"#), &["verify", "`key_ops`"]);
    check(&secret_jwk(r#","key_ops":["verify","wrapKey"]"#), &["`key_ops`"]);
    check(&secret_jwk(r#","key_ops":"verify""#), &["`key_ops` is not a list"]);
    check(&secret_jwk(r#","kid":"../x""#), &["kid", "letters"]);
    check(&secret_jwk(r#","kid":"""#), &["kid", "empty"]);
    check(&secret_jwk(r#","scope":{}"#), &["`scope` allows nothing"]);
    check(&secret_jwk(r#","scope":{"put":["a"],"exp":1}"#), &["`scope`", "`exp`"]);
    check(&secret_jwk(r#","scope":{"put":["a"],"publish":["a"]}"#), &["`scope`", "mixed"]);
    check(&secret_jwk(r#","scope":{"put":["*"]}"#), &["`scope`", "\"*\""]);
    check(r#"{"kty":"EC","alg":"ES256","crv":"P-384"}"#, &["`crv` is not P-256"]);
    check(r#"{"kty":"EC","alg":"ES256","crv":"P-256","x":"AAAA","y":"AAAA"}"#, &["`x` has not 32"]);
    let off = format!(r#"{{"kty":"EC","alg":"ES256","crv":"P-256","x":"{k}","y":"{k}"}}"#);
    check(&off.replace(&k, &crate::support::base64url([7; 32])), &["no public key"]);
    check(r#"{"kty":"OKP","alg":"EdDSA","crv":"X25519","x":"AAAA"}"#, &["`crv` is not Ed25519"]);
    let small = crate::support::base64url([0xff; 128]);
    check(&format!(r#"{{"kty":"RSA","alg":"RS256","n":"{small}","e":"AQAB"}}"#), &["1024 bits"]);
    check(r#"{"keys":[]}"#, &["without a key"]);
    check(r#"{"keys":{}}"#, &["`keys` is not a list"]);
    let (one, two) = (secret_jwk(r#","kid":"a""#), secret_jwk(""));
    check(&format!(r#"{{"keys":[{one},{two}]}}"#), &["no `kid`"]);
    check(&format!(r#"{{"keys":[{one},{one}]}}"#), &["keys[1]", "named a"]);
    check(&format!(r#"{{"keys":[{one},{{}}]}}"#), &["keys[1]", "no `kty`"]);
    check(&"{".repeat((1 << 20) + 1), &["1048576 bytes"]);
}

#[test]
fn errors_and_debug_show_no_secret() {
    let key =
        SigningKey::generate(Algorithm::RS256, Some(KeyId::parse("k1").unwrap()), None).unwrap();
    let private = key.private_json();
    let members: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&private).unwrap();
    let (k, secret) = (crate::support::base64url(SECRET), secret_jwk(""));
    let files = [file("a.jwk", Place::File, &private), file("b.jwk", Place::File, &secret)];
    let set = KeySet::new(&files).unwrap();
    let access = Access { keys: set.into(), public: Grant::everything(), ..Access::default() };
    let admission = access.admit(&path(""), Some(&token(r#"{"put":[""]}"#)), NOW).unwrap();
    let mut shown = format!("{key:?} {files:?} {access:?} {admission:?}");
    for spoilt in [
        secret.replace("\"k\":\"", "\"k\":\"!"),
        secret.replace("\"k\":", "\"kk\":"),
        secret.replace(&format!("\"{k}\""), &format!("[\"{k}\"]")),
        secret.replace('}', ""),
        private.replace("\"d\":\"", "\"d\":\"!"),
    ] {
        shown += &load(&[file("c.jwk", Place::File, spoilt)]).unwrap_err();
    }
    for name in ["d", "p", "q", "dp", "dq", "qi"] {
        assert!(!shown.contains(members[name].as_str().unwrap()), "{name}");
    }
    assert!(!shown.contains(&k), "{shown}");
    // Nor as a list of bytes: of the secret, or of its text in a file.
    for bytes in [SECRET, k.as_bytes()] {
        let list = format!("{bytes:?}");
        assert!(!shown.contains(list.trim_matches(['[', ']'])), "{shown}");
    }
    assert!(shown.contains("k1") && shown.contains("a.jwk"));
}

#[test]
fn a_key_is_read_however_it_is_written() {
    let jwk = secret_jwk("");
    let padded = secret_jwk("").replace(&crate::support::base64url(SECRET), &{
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE.encode(SECRET)
    });
    assert!(padded.contains('='));
    let good = token(r#"{"put":["a"]}"#);
    for text in [
        jwk.clone(),
        format!("\n  {jwk}\r\n"),
        base64url(&jwk),
        format!("{}\n", base64url(&jwk)),
        padded,
        format!(r#"{{"keys":[{jwk}]}}"#),
        base64url(&format!(r#"{{"keys":[{jwk}]}}"#)),
        secret_jwk(r#","use":"sig","x5t":null,"ext":true,"key_ops":["verify"]"#),
    ] {
        assert!(one_key(&text).verify(&good, NOW).is_ok(), "{text}");
    }
}

#[test]
fn tokens_find_their_key() {
    let other = SigningKey::generate(Algorithm::HS256, None, None).unwrap().private_json();
    let ec = SigningKey::generate(Algorithm::ES256, None, None).unwrap().public_json().unwrap();
    let mine = secret_jwk("");
    let named =
        |kid: &str| token_with(&format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#), r#"{"put":["a"]}"#);
    let unnamed = token(r#"{"put":["a"]}"#);
    let label = |files: &[KeyFile], token: &str| {
        KeySet::new(files)
            .unwrap()
            .verify(token, NOW)
            .map(|verified| verified.key.label().to_owned())
    };
    let unknown = |kid: &str| Err(Refusal::KeyUnknown(KeyId::parse(kid).unwrap()));

    // By --auth-key: whichever fits, whatever the token names.
    let files = [
        file("other.jwk", Place::File, &other),
        file("ec.jwk", Place::File, &ec),
        file("mine.jwk", Place::File, &mine),
    ];
    assert_eq!(label(&files, &unnamed), Ok("mine".to_owned()));
    assert_eq!(label(&files, &named("anything")), Ok("mine".to_owned()));
    assert_eq!(label(&files[..2], &unnamed), Err(Refusal::Signature));
    // The name says more where it is not here, and where it is here and another key has it.
    let (gone, of_file) = (KeyId::parse("gone").unwrap(), KeyId::parse("other").unwrap());
    assert_eq!(label(&files[..2], &named("gone")), Err(Refusal::KeyAway(gone.clone())));
    assert_eq!(label(&files[1..2], &named("gone")), Err(Refusal::KeyAway(gone.clone())));
    assert_eq!(label(&files[..2], &named("other")), Err(Refusal::KeyOther(of_file)));
    let beside = [file("keys/a.jwk", Place::Directory, &mine), files[0].clone()];
    let refused = KeySet::new(&beside).unwrap().verify(&named("gone"), NOW).unwrap_err();
    assert_eq!((refused.name(), refused), ("key_unknown", Refusal::KeyAway(gone)));
    let (token, key) = (Algorithm::HS256, Algorithm::ES256);
    assert_eq!(label(&files[1..2], &unnamed), Err(Refusal::AlgorithmMismatch { token, key }));

    // In --auth-key-dir: the name of the file, whatever the key in it is named.
    let files = [
        file("keys/a.jwk", Place::Directory, secret_jwk(r#","kid":"z""#)),
        file("keys/b.jwk", Place::Directory, &other),
    ];
    assert_eq!(label(&files, &named("a")), Ok("a".to_owned()));
    let refused = Refusal::KeyOther(KeyId::parse("b").unwrap());
    assert_eq!(label(&files, &named("b")), Err(refused));
    assert_eq!(label(&files, &named("z")), unknown("z"));
    assert_eq!(label(&files, &named("A")), unknown("A"));
    assert_eq!(label(&files, &unnamed), Err(Refusal::KeyUnnamed));

    // Of a set: the names in it, wherever it lies.
    let set = format!("{{\"keys\":[{},{}]}}", secret_jwk(r#","kid":"a""#), {
        other.replacen('{', r#"{"kid":"b","#, 1)
    });
    for place in [Place::File, Place::Directory] {
        let files = [file("keys/set.jwk", place, &set)];
        assert_eq!(label(&files, &named("a")), Ok("a".to_owned()));
        assert_eq!(label(&files, &named("set")), unknown("set"));
        assert_eq!(label(&files, &unnamed), Err(Refusal::KeyUnnamed));
    }

    // Both: a name that is taken by another key does not keep a token from its own.
    let files =
        [file("keys/a.jwk", Place::Directory, &other), file("mine.jwk", Place::File, &mine)];
    assert_eq!(label(&files, &named("a")), Ok("mine".to_owned()));
    let twice = [file("keys/a.jwk", Place::Directory, &other), file("set.jwk", Place::File, &set)];
    assert_eq!(load(&twice).unwrap_err(), "set.jwk: keys[0]: another key is named a too");
    let bad_name = [file("keys/my key.jwk", Place::Directory, &mine)];
    assert!(load(&bad_name).unwrap_err().starts_with("keys/my key.jwk: the name of the file"));
}

#[test]
fn what_is_hardly_meant_is_remarked() {
    let remarks = |files: &[KeyFile]| -> Vec<String> {
        let set = KeySet::new(files).unwrap();
        set.remarks().iter().map(|remark| remark.to_string()).collect()
    };
    let key = |name: &str, algorithm| {
        SigningKey::generate(algorithm, Some(KeyId::parse(name).unwrap()), None).unwrap()
    };
    // In a directory the name of the file counts.
    let public = key("b", Algorithm::ES256).public_json().unwrap();
    let [one] = &remarks(&[file("/keys/a.jwk", Place::Directory, &public)])[..] else { panic!() };
    assert!(one.starts_with("/keys/a.jwk: the key calls itself b (kid)"), "{one}");
    assert!(
        one.ends_with("tokens that name a; if tokens name b, rename the file to b.jwk"),
        "{one}"
    );
    for (name, place) in [("b.jwk", Place::Directory), ("a.jwk", Place::File)] {
        assert_eq!(remarks(&[file(name, place, &public)]), [""; 0]);
    }
    assert_eq!(remarks(&[file("a.jwk", Place::Directory, secret_jwk(""))]), [""; 0], "no kid");

    for algorithm in [Algorithm::ES384, Algorithm::EdDSA, Algorithm::PS256] {
        let private = key("k", algorithm).private_json();
        for (place, command) in [
            (
                Place::File,
                "run: shardcast token public --key x/k.jwk --out x/k.public.jwk, and give that to --auth-key",
            ),
            (
                Place::Directory,
                "run: cp x/k.jwk k.secret.jwk && shardcast token public --key x/k.jwk --out x/k.new && mv x/k.new x/k.jwk",
            ),
        ] {
            let [one] = &remarks(&[file("x/k.jwk", place, &private)])[..] else { panic!() };
            assert!(one.starts_with("x/k.jwk: a private key") && one.ends_with(command), "{one}");
        }
        // Once for a set, whatever is in it.
        let set = format!("{{\"keys\":[{private},{}]}}", private.replace("\"k\"", "\"l\""));
        assert_eq!(remarks(&[file("set.jwk", Place::File, set)]).len(), 1);
    }
    let shared = key("k", Algorithm::HS512).private_json();
    assert_eq!(remarks(&[file("k.jwk", Place::File, shared)]), [""; 0]);
}

#[test]
fn a_token_without_a_name_costs_few_verifications() {
    let files = |count: usize| -> Vec<KeyFile> {
        (0..count).map(|at| file(&format!("{at}.jwk"), Place::File, secret_jwk(""))).collect()
    };
    assert_eq!(KeySet::new(&files(8)).unwrap().len(), 8);
    let error = KeySet::new(&files(9)).unwrap_err();
    assert_eq!((error.path, error.fault), ("8.jwk".into(), KeyFault::TooManyUnnamed(8)));
}

#[test]
fn an_admission_ends_with_its_key() {
    let other = SigningKey::generate(Algorithm::HS256, None, None).unwrap().private_json();
    let jwk = secret_jwk("");
    let set = |files: &[KeyFile]| Access {
        keys: KeySet::new(files).unwrap().into(),
        ..Access::default()
    };
    let by_name = |name: &str, jwk: &str| file(&format!("keys/{name}.jwk"), Place::Directory, jwk);
    let old = set(&[by_name("a", &jwk), by_name("b", &other)]);
    let mine = token_with(r#"{"alg":"HS256","kid":"a"}"#, r#"{"put":["x"]}"#);
    let admission = old.admit(&path(""), Some(&mine), NOW).unwrap();
    let check = |files: &[KeyFile]| admission.check(&set(files).keys, NOW);
    // It stays where the key is as it was, however its file is written now and whatever else changed.
    for text in [jwk.clone(), base64url(&jwk), secret_jwk(r#","kid":"b","ext":true"#)] {
        assert_eq!(check(&[by_name("a", &text)]), Ok(()));
    }
    assert_eq!(check(&[by_name("a", &jwk), by_name("c", &other)]), Ok(()));
    // Or in a set, or by itself: its token finds it there.
    let both = |first: &str| {
        let (mine, other) =
            (secret_jwk(&format!(r#","kid":"{first}""#)), secret_jwk(r#","kid":"z""#));
        file("keys.jwk", Place::File, format!(r#"{{"keys":[{mine},{other}]}}"#))
    };
    let alone = file("a.jwk", Place::File, &jwk);
    for begun in [&old, &set(&[both("a")]), &set(std::slice::from_ref(&alone))] {
        let admission = begun.admit(&path(""), Some(&mine), NOW).unwrap();
        for files in [[by_name("a", &jwk)], [both("a")], [alone.clone()]] {
            assert_eq!(admission.check(&set(&files).keys, NOW), Ok(()), "{files:?}");
        }
        assert_eq!(admission.check(&set(&[both("b")]).keys, NOW), Err(Refusal::KeyGone));
    }
    // Without a name in its token it has to be by itself.
    let unnamed = token_with(r#"{"alg":"HS256"}"#, r#"{"put":["x"]}"#);
    let tried = set(std::slice::from_ref(&alone)).admit(&path(""), Some(&unnamed), NOW).unwrap();
    assert_eq!(tried.check(&set(&[both("a")]).keys, NOW), Err(Refusal::KeyGone));
    // It ends where the key is gone, is another, has another name or may grant something else.
    for files in [
        vec![],
        vec![by_name("b", &other)],
        vec![by_name("a", &other)],
        vec![by_name("b", &jwk)],
        vec![by_name("a", &secret_jwk(r#","scope":{"put":["x"]}"#))],
    ] {
        assert_eq!(check(&files), Err(Refusal::KeyGone), "{files:?}");
    }
    let scoped = |scope: &str| by_name("a", &secret_jwk(&format!(r#","scope":{scope}"#)));
    let narrow = set(&[scoped(r#"{"put":["x"]}"#)]);
    let admission = narrow.admit(&path(""), Some(&mine), NOW).unwrap();
    let check = |scope: &str| admission.check(&set(&[scoped(scope)]).keys, NOW);
    assert_eq!(check(r#"{"publish":["x/**"]}"#), Ok(()));
    assert_eq!(check(r#"{"put":["x"],"get":["x"]}"#), Err(Refusal::KeyGone));
    assert_eq!(check(r#"{"get":["x"]}"#), Err(Refusal::KeyGone));
    assert_eq!(check(r#"{"root":"x","put":[""]}"#), Err(Refusal::KeyGone));
}

#[test]
fn a_key_that_cannot_sign_does_not() {
    let key = SigningKey::generate(Algorithm::ES384, None, None).unwrap();
    let fault = |text: &str| SigningKey::parse(text.as_bytes()).map(|_| ()).unwrap_err();
    let public = key.public_json().unwrap();
    assert_eq!(fault(&public), KeyFault::NotFor("sign"));
    assert_eq!(fault(&public.replace("[\"verify\"]", "[\"sign\"]")), KeyFault::NoPrivate);
    let other = SigningKey::generate(Algorithm::ES384, None, None).unwrap().private_json();
    let d = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap()["d"].clone();
    let swapped =
        key.private_json().replace(&d(&key.private_json()).to_string(), &d(&other).to_string());
    assert_eq!(fault(&swapped), KeyFault::Private);
    let nothing = SigningKey::generate(Algorithm::HS256, None, Some(Grant::default()));
    assert_eq!(nothing.map(|_| ()).unwrap_err(), KeyFault::ScopeEmpty);
    let claims = shardcast::access::Claims::default();
    let error = key.sign(&claims, Form::Prefixes).unwrap_err();
    assert_eq!(error, shardcast::access::SignError::Useless);
}

/// Of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        let path = std::env::temp_dir().join(format!("shardcast-access-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_are_read_from_where_they_are() {
    let directory = Directory::new();
    for name in ["b.jwk", "a.jwk", ".hidden.jwk", "c.jwk~", "notes.txt"] {
        std::fs::write(directory.0.join(name), secret_jwk("")).unwrap();
    }
    let single = directory.0.join("notes.txt");
    let files = read_key_files(std::slice::from_ref(&single), Some(&directory.0)).unwrap();
    let read: Vec<_> = files
        .iter()
        .map(|file| (file.path.file_name().unwrap().to_str().unwrap(), file.place))
        .collect();
    let expect =
        [("notes.txt", Place::File), ("a.jwk", Place::Directory), ("b.jwk", Place::Directory)];
    assert_eq!(read, expect);
    assert_eq!(KeySet::new(&files).unwrap().len(), 3);

    let gone = directory.0.join("gone.jwk");
    let error = read_key_files(std::slice::from_ref(&gone), None).unwrap_err();
    assert_eq!(error.path, gone);
    assert!(error.to_string().contains("cannot be read: "), "{error}");
    let error = read_key_files(&[], Some(&gone)).unwrap_err();
    assert_eq!(error.path, gone);
    std::fs::write(&single, vec![b'x'; (1 << 20) + 10]).unwrap();
    let files = read_key_files(&[single], None).unwrap();
    assert_eq!(KeySet::new(&files).unwrap_err().fault, KeyFault::TooLarge(1 << 20));
    assert!(read_key_files(&[], Some(&directory.0.join("a.jwk"))).is_err());
}

/// Whoever opens a FIFO waits for somebody who writes.
#[test]
fn what_is_no_regular_file_is_not_waited_for() {
    let directory = std::env::temp_dir().join(format!("shardcast-keys-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let fifo = directory.join("f.jwk");
    let name = std::ffi::CString::new(fifo.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the name ends with a zero byte and is only read.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let error = read_key_files(&[], Some(&directory)).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
    let error = read_key_files(&["/dev/zero".into()], None).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
    // So many files that are too large for keys, but for a byte each, are too large together.
    std::fs::remove_file(&fifo).unwrap();
    for nth in 0..65 {
        std::fs::write(directory.join(format!("{nth}.jwk")), vec![b' '; 1 << 20]).unwrap();
    }
    let error = read_key_files(&[], Some(&directory)).unwrap_err();
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(error.fault, KeyFault::AllTooLarge(64 << 20));
}
