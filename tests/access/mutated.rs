//! What nobody means to send: tokens, keys, patterns and addresses with bytes changed, from fixed seeds.

use std::time::{Duration, Instant};

use moq_pattern::{Pattern, Patterns};
use shardcast::access::{
    Access, Algorithm, Form, Grant, KeySet, Place, SigningKey, base64url, rule, shown, token_in,
};
use shardcast::wire::Path;

use crate::support::{NOW, file, one_key, path, secret_jwk, token};

/// Longer than any input may take by far, on a machine that does other things too.
const LONGEST: Duration = Duration::from_secs(2);

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.roll(of.len())]
    }

    /// A few changes of bytes: pieces that mean something, pieces taken from elsewhere, less, other.
    fn change(&mut self, text: &str, pieces: &[&str]) -> String {
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..=self.roll(4) {
            let at = self.roll(bytes.len() + 1);
            let until = (at + self.roll(12)).min(bytes.len());
            match self.roll(5) {
                0 => drop(bytes.splice(at..at, self.pick(pieces).bytes())),
                1 => drop(bytes.splice(at..until, self.pick(pieces).bytes())),
                2 => drop(bytes.drain(at..until)),
                3 => {
                    let piece = bytes[at..until].to_vec();
                    let to = self.roll(bytes.len() + 1);
                    drop(bytes.splice(to..to, piece));
                }
                _ if at < bytes.len() => bytes[at] ^= 1 << self.roll(8),
                _ => {}
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn timed<T>(input: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = run();
    assert!(start.elapsed() < LONGEST, "{:?} for {input}", start.elapsed());
    done
}

const CLAIMS: [&str; 5] = [
    r#"{"root":"rooms/123","put":["alice"],"get":[""],"exp":4102444800,"iat":1795748086}"#,
    r#"{"put":"a","get":"b/c","nbf":0}"#,
    r#"{"publish":["a/*/b","**/c","d*e"],"subscribe":["","**"],"exp":null}"#,
    r#"{"iss":{"x":[1,{"y":null}]},"sub":1,"jti":"z","publish":["x/**/y"]}"#,
    r#"{"root":"","subscribe":["\u0061/\ud83d\ude00"]}"#,
];

const PIECES: [&str; 24] = [
    "\"",
    ",",
    ":",
    "{",
    "}",
    "[",
    "]",
    "null",
    "*",
    "**",
    "/",
    "//",
    "\\u0000",
    "\\",
    "1e400",
    "-1",
    "\"put\":[\"x\"],",
    "\"aud\":1,",
    "[[[[[[[[[[[[[[[[[[[[[[[[",
    "9223372036854775808",
    ".",
    "\u{fffd}",
    "=",
    "%00",
];

#[test]
fn claims() {
    let key = SigningKey::parse(secret_jwk("").as_bytes()).unwrap();
    let keys = one_key(&secret_jwk(""));
    let mut dice = Dice(0x5eed);
    let mut taken = 0;
    for _ in 0..20_000 {
        let claims = dice.pick(&CLAIMS);
        let changed = dice.change(claims, &PIECES);
        let Ok(verified) = timed(&changed, || keys.verify(&token(&changed), NOW)) else { continue };
        taken += 1;
        let claims = verified.claims;
        assert!(!claims.grant.is_empty());
        for form in [Form::Prefixes, Form::Patterns] {
            let again = key.sign(&claims, form).unwrap();
            assert_eq!(keys.verify(&again, NOW).unwrap().claims, claims, "{changed}");
        }
    }
    assert!(taken > 500, "{taken}");
}

#[test]
fn tokens() {
    let keys: Vec<KeySet> =
        [Algorithm::HS256, Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256]
            .iter()
            .map(|algorithm| {
                let key = SigningKey::generate(*algorithm, None, None).unwrap();
                one_key(&key.public_json().unwrap_or(key.private_json()))
            })
            .collect();
    let vectors = [
        include_str!("tokens/HS256.jwt").trim(),
        include_str!("tokens/ES256.jwt").trim(),
        include_str!("tokens/EdDSA.jwt").trim(),
        include_str!("tokens/RS256.jwt").trim(),
    ];
    let ours = KeySet::new(&[
        file("a.jwk", Place::File, include_str!("tokens/HS256.jwk")),
        file("b.jwk", Place::File, include_str!("tokens/ES256.pub.jwk")),
        file("c.jwk", Place::File, include_str!("tokens/EdDSA.pub.jwk")),
        file("d.jwk", Place::File, include_str!("tokens/RS256.pub.jwk")),
    ])
    .unwrap();
    let mut dice = Dice(0x70_6b656e);
    for _ in 0..10_000 {
        let vector = dice.pick(&vectors);
        let changed = dice.change(vector, &[&PIECES[..], &vectors[..]].concat());
        let is_same = vectors.contains(&changed.as_str());
        assert_eq!(timed(&changed, || ours.verify(&changed, NOW)).is_ok(), is_same, "{changed}");
        for keys in &keys {
            assert!(timed(&changed, || keys.verify(&changed, NOW)).is_err());
        }
    }
}

#[test]
fn files_of_keys() {
    let scoped =
        secret_jwk(r#","kid":"k","scope":{"root":"a","put":["b"]},"key_ops":["sign","verify"]"#);
    let rsa = SigningKey::generate(Algorithm::RS256, None, None).unwrap().private_json();
    let ec = SigningKey::generate(Algorithm::ES384, None, None).unwrap().private_json();
    let ed = SigningKey::generate(Algorithm::EdDSA, None, None).unwrap().private_json();
    let set = format!("{{\"keys\":[{scoped},{ec}]}}");
    let encoded = base64url(&scoped);
    let texts = [scoped.as_str(), &rsa, &ec, &ed, &set, &encoded];
    let mut dice = Dice(0x006b_6579);
    let mut taken = 0;
    for _ in 0..5_000 {
        let text = dice.pick(&texts);
        let changed = dice.change(text, &PIECES);
        for place in [Place::File, Place::Directory] {
            let files = [file("k.jwk", place, &changed)];
            match timed(&changed, || KeySet::new(&files)) {
                Ok(keys) => taken += keys.len(),
                Err(error) => assert!(error.to_string().len() < 250, "{error}"),
            }
        }
        let _ = timed(&changed, || SigningKey::parse(changed.as_bytes()));
    }
    assert!(taken > 100, "{taken}");
}

#[test]
fn patterns_and_addresses() {
    let patterns = ["anon/**", "*/chat", "a*b/**/c", "**", "a/b/c/d/e/f/g"];
    let targets = ["https://me:pw@relay.example/a?jwt=x.y.z&b#c", "/demo?jwt=a.b.c", "a://?#@/"];
    let marks =
        ["*", "**", "/", "?", "#", "@", "://", "jwt=", "&", "a", "é", ".", "a/a/a/a/a/a/a/a/"];
    let mut dice = Dice(0x7061_7468);
    for _ in 0..20_000 {
        let pattern = dice.pick(&patterns);
        let changed = dice.change(pattern, &marks);
        if let Ok(pattern) = rule(&changed) {
            let grant = Grant::public(&[pattern], &[], &[]);
            if let Ok(at) = Path::parse(&dice.change("a/b/c", &marks)) {
                let session = timed(&changed, || grant.at(&at));
                let granted = session.as_ref().is_ok_and(|session| session.may_publish(&at));
                assert_eq!(granted, grant.may_publish(&at), "{changed} {at}");
            }
        }
        let target = dice.pick(&targets);
        let changed = dice.change(target, &marks);
        let line = shown(&changed);
        assert!(!line.contains(['?', '#']), "{changed}");
        if let Some(token) = token_in(&changed) {
            assert!(!token.is_empty() && !token.contains(['&', '#']));
        }
    }
}

/// The worst that an issuer can sign and a client can dial.
#[test]
fn the_longest_grant_at_the_deepest_path() {
    let tail = "/a*".repeat(20);
    let texts: Vec<String> = (0..70).map(|at| format!("\"**{tail}/{at:02}*\"")).collect();
    let claims = format!(r#"{{"publish":[{}]}}"#, texts.join(","));
    let access = Access { keys: one_key(&secret_jwk("")).into(), ..Access::default() };
    let token = token(&claims);
    let deepest = path(&"a/".repeat(31));
    let grant = timed("the longest", || access.admit(&deepest, Some(&token), NOW)).unwrap().grant;
    assert!(grant.publish().len() > 1000);
    timed("a question", || grant.may_publish(&path(&"a/".repeat(32))));
    timed("heads", || grant.publish_heads());
    let all: Patterns = Pattern::all().into();
    let scope = Grant::new(deepest, all, Patterns::new());
    assert!(timed("a scope", || scope.covers(&grant)));
}

/// JSON as deep as it can be within a token, in a header that nobody signed and in claims.
#[test]
fn nesting_without_end() {
    let keys = one_key(&secret_jwk(""));
    let deep = |open: &str, count: usize| open.repeat(count);
    for nested in [deep("[", 5_000), deep("{\"a\":", 1_000), "[".repeat(2_000) + &"]".repeat(2_000)]
    {
        for text in [
            nested.clone(),
            format!("{{\"kid\":{nested}}}"),
            format!("{{\"alg\":\"HS256\",\"x\":{nested}}}"),
        ] {
            let header = format!("{}.e30.AA", base64url(&text));
            assert!(timed("a header", || keys.verify(&header, NOW)).is_err());
        }
        for name in ["put", "publish", "root", "exp", "x"] {
            let claims = format!("{{\"{name}\":{nested}}}");
            assert!(timed("claims", || keys.verify(&token(&claims), NOW)).is_err());
        }
        let jwk = format!("{{\"keys\":{nested}}}");
        assert!(timed("a set", || KeySet::new(&[file("a.jwk", Place::File, jwk)])).is_err());
    }
}
