//! Keys and tokens of crate `moq-auth`, and ours as that crate reads them.

use std::time::{Duration, UNIX_EPOCH};

use moq_auth::{KeyMaterial, Pattern};
use shardcast::access::{
    Algorithm, Claims, Form, Grant, KeyId, KeySet, Place, Refusal, SigningKey,
};

use crate::support::{NOW, file, one_key, path, token};

const ALGORITHMS: [(Algorithm, moq_auth::Algorithm); 12] = [
    (Algorithm::HS256, moq_auth::Algorithm::HS256),
    (Algorithm::HS384, moq_auth::Algorithm::HS384),
    (Algorithm::HS512, moq_auth::Algorithm::HS512),
    (Algorithm::ES256, moq_auth::Algorithm::ES256),
    (Algorithm::ES384, moq_auth::Algorithm::ES384),
    (Algorithm::EdDSA, moq_auth::Algorithm::EdDSA),
    (Algorithm::RS256, moq_auth::Algorithm::RS256),
    (Algorithm::RS384, moq_auth::Algorithm::RS384),
    (Algorithm::RS512, moq_auth::Algorithm::RS512),
    (Algorithm::PS256, moq_auth::Algorithm::PS256),
    (Algorithm::PS384, moq_auth::Algorithm::PS384),
    (Algorithm::PS512, moq_auth::Algorithm::PS512),
];

const EXPIRES: i64 = 4_102_444_800;

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Their claims, and what they are here.
fn claims(root: &str, publish: &[&str], subscribe: &[&str]) -> (moq_auth::Claims, Claims) {
    let (publish, subscribe) = (patterns(publish), patterns(subscribe));
    let theirs = moq_auth::Claims::default()
        .with_root(root)
        .with_publish(publish.clone())
        .with_subscribe(subscribe.clone())
        .with_expires(UNIX_EPOCH + Duration::from_secs(EXPIRES as u64));
    let grant =
        Grant::new(path(root), publish.into_iter().collect(), subscribe.into_iter().collect());
    (theirs, Claims { grant, expires: Some(EXPIRES), ..Claims::default() })
}

/// Subtrees, which they write as `put` and `get`, and what needs patterns.
fn documents() -> [(moq_auth::Claims, Claims); 2] {
    [
        claims("rooms/123", &["alice/**"], &["**"]),
        claims("", &["rooms/*/alice", "cam*"], &["**/chat", "rooms/1/**"]),
    ]
}

/// Theirs take seconds to make for RSA, so that all algorithms of a kind share one.
fn their_keys() -> Vec<(Algorithm, moq_auth::Key)> {
    let id = || Some(moq_auth::KeyId::decode("k1").unwrap());
    let rsa = moq_auth::Key::generate(moq_auth::Algorithm::RS256, id()).unwrap();
    let key = |theirs: moq_auth::Algorithm| {
        let mut jwk = match theirs {
            _ if theirs.to_string().starts_with(['R', 'P']) => rsa.export(),
            _ => moq_auth::Key::generate(theirs, id()).unwrap().export(),
        };
        jwk.algorithm = theirs;
        jwk.import().unwrap()
    };
    ALGORITHMS.into_iter().map(|(ours, theirs)| (ours, key(theirs))).collect()
}

#[test]
fn theirs_are_taken_here() {
    for (algorithm, key) in their_keys() {
        let public = match key.material {
            KeyMaterial::OCT { .. } => key.clone(),
            _ => key.to_public().unwrap(),
        };
        // As they write it to files, as JSON, and with the private half left in.
        let texts = [
            public.to_str().unwrap(),
            serde_json::to_string(&public).unwrap(),
            serde_json::to_string(&key).unwrap(),
        ];
        for (theirs, ours) in documents() {
            let token = key.sign(&theirs).unwrap();
            for text in &texts {
                let verified = one_key(text).verify(&token, NOW).map(|verified| verified.claims);
                assert_eq!(verified, Ok(ours.clone()), "{algorithm:?}");
            }
        }
    }
}

#[test]
fn ours_are_taken_there() {
    for (algorithm, _) in ALGORITHMS {
        let id = KeyId::parse("k1").unwrap();
        let key = SigningKey::generate(algorithm, Some(id), None).unwrap();
        let private = moq_auth::Key::from_str(&key.private_json()).unwrap();
        let there = match key.public_json() {
            Some(json) => moq_auth::Key::from_str(&shardcast::access::base64url(&json)).unwrap(),
            None => private.clone(),
        };
        let here = one_key(&key.public_json().unwrap_or(key.private_json()));
        for (theirs, ours) in documents() {
            for form in [Form::Prefixes, Form::Patterns] {
                let token = key.sign(&ours, form).unwrap();
                let read = there.verify(&token).unwrap();
                assert_eq!(
                    serde_json::to_value(read).unwrap(),
                    serde_json::to_value(&theirs).unwrap()
                );
                assert_eq!(here.verify(&token, NOW).unwrap().claims, ours);
            }
        }
        // The private half is whole: they sign with it, and so do we after reading it again.
        let (theirs, ours) = claims("a", &["b/**"], &[]);
        here.verify(&private.sign(&theirs).unwrap(), NOW).unwrap();
        let again = SigningKey::parse(key.private_json().as_bytes()).unwrap();
        here.verify(&again.sign(&ours, Form::Prefixes).unwrap(), NOW).unwrap();
    }
}

#[test]
fn what_they_make_is_signed_with_here() {
    for (algorithm, key) in their_keys() {
        let ours = SigningKey::parse(key.to_str().unwrap().as_bytes()).unwrap();
        let (_, claims) = claims("a", &["b/**"], &["**"]);
        let token = ours.sign(&claims, Form::Patterns).unwrap();
        key.verify(&token).unwrap_or_else(|error| panic!("{algorithm:?}: {error}"));
    }
}

#[test]
fn the_scope_of_a_key_means_the_same_on_both_sides() {
    let scope =
        Grant::new(path("demo"), patterns(&["live/**"]).into_iter().collect(), Default::default());
    let key = SigningKey::generate(Algorithm::HS256, None, Some(scope)).unwrap();
    let there = moq_auth::Key::from_str(&key.private_json()).unwrap();
    let here = one_key(&key.private_json());
    let free =
        SigningKey::parse(key.private_json().replace("\"scope\"", "\"x\"").as_bytes()).unwrap();
    for (root, publish, subscribe) in [
        ("demo", &["live/**"][..], &[][..]),
        ("demo/live", &["a"], &[]),
        ("", &["demo/live/*"], &[]),
        ("", &["demo/lively"], &[]),
        ("demo", &["**"], &[]),
        ("demo", &["live/**"], &["live/**"]),
        ("other", &["live/**"], &[]),
    ] {
        let (_, claims) = claims(root, publish, subscribe);
        let token = free.sign(&claims, Form::Patterns).unwrap();
        let ours = here.verify(&token, NOW).map(|_| ());
        assert_eq!(there.verify(&token).is_ok(), ours.is_ok(), "{claims:?}: {ours:?}");
        assert_eq!(key.sign(&claims, Form::Patterns).is_ok(), ours.is_ok());
    }
}

/// Whatever a token says, both sides take it or neither does.
#[test]
fn documents_are_read_as_they_read_them() {
    let jwk = crate::support::secret_jwk("");
    let here = one_key(&jwk);
    let there = moq_auth::Key::from_str(&jwk).unwrap();
    for claims in [
        r#"{"put":["a"]}"#,
        r#"{"put":"a","get":""}"#,
        r#"{"put":["/a//b/"]}"#,
        r#"{"put":["**"]}"#,
        r#"{"put":["a/*"]}"#,
        r#"{"put":[]}"#,
        r#"{"put":[],"publish":["a"]}"#,
        r#"{"get":null,"publish":["a"]}"#,
        r#"{"publish":null,"subscribe":["a"]}"#,
        r#"{"put":["a"],"get":null}"#,
        r#"{"publish":["a","a/**","b"],"subscribe":[""]}"#,
        r#"{"publish":"a"}"#,
        r#"{"publish":["/a"]}"#,
        r#"{"publish":["a/"]}"#,
        r#"{"publish":["a//b"]}"#,
        r#"{"publish":["a**"]}"#,
        r#"{"publish":["**/a/**"]}"#,
        r#"{"publish":[1]}"#,
        r#"{"publish":["a"],"root":null}"#,
        r#"{"publish":["a"],"root":"/x//y/"}"#,
        r#"{"publish":["a"],"exp":null,"iat":null,"nbf":null}"#,
        r#"{"publish":["a"],"exp":4102444800}"#,
        r#"{"publish":["a"],"exp":4102444800.5}"#,
        r#"{"publish":["a"],"exp":"4102444800"}"#,
        r#"{"publish":["a"],"exp":1}"#,
        r#"{"publish":["a"],"exp":-1}"#,
        r#"{"publish":["a"],"exp":99999999999999999999}"#,
        r#"{"publish":["a"],"nbf":1}"#,
        r#"{"publish":["a"],"nbf":4102444800}"#,
        r#"{"publish":["a"],"iat":4102444800}"#,
        r#"{"publish":["a"],"iss":"x","sub":"y","jti":{"z":[1]}}"#,
        r#"{"publish":["a"],"aud":"x"}"#,
        r#"{"publish":["a"],"cluster":true}"#,
        r#"{"publish":["a"],"Root":"x"}"#,
        r#"{"publish":["a"],"publish":["b"]}"#,
        r#"{"root":"a"}"#,
        r#"{}"#,
        r#"[]"#,
        r#"{"publish":["a"]} x"#,
    ] {
        let token = token(claims);
        let (ours, theirs) = (here.verify(&token, NOW), there.verify(&token));
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{claims}: {ours:?}, {theirs:?}");
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            assert_eq!(
                (ours.claims.grant.publish(), ours.claims.grant.subscribe()),
                (&theirs.publish, &theirs.subscribe)
            );
        }
    }
    // Stricter here on purpose: a root that is no path can never match, and says so at once.
    let root = token(r#"{"publish":["a"],"root":"a*"}"#);
    assert!(
        matches!(here.verify(&root, NOW), Err(Refusal::Claims(_))) && there.verify(&root).is_ok()
    );
    // And what an issuer notes for itself may be anything, where their library stumbles over some of it.
    let notes = token(r#"{"publish":["a"],"iss":1,"sub":{"x":[]},"jti":null}"#);
    assert!(here.verify(&notes, NOW).is_ok() && there.verify(&notes).is_err());
}

#[test]
fn a_set_of_theirs_loads() {
    let (old, new) = ("old", "new");
    let keys = [old, new].map(|id| {
        moq_auth::Key::generate(
            moq_auth::Algorithm::EdDSA,
            Some(moq_auth::KeyId::decode(id).unwrap()),
        )
        .unwrap()
    });
    let mut set = moq_auth::KeySet::default();
    set.keys.extend(keys.iter().map(|key| key.to_public().unwrap().into()));
    let here = KeySet::new(&[file("set.jwk", Place::File, set.to_str().unwrap())]).unwrap();
    let (theirs, _) = claims("a", &["b"], &[]);
    for (key, id) in keys.iter().zip([old, new]) {
        assert_eq!(here.verify(&key.sign(&theirs).unwrap(), NOW).unwrap().key.label(), id);
    }
}
