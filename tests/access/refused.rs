//! One test for each reason to refuse.

use jsonwebtoken::EncodingKey;
use shardcast::access::{
    Access, Algorithm, ClaimsFault, Form, Grant, JsonFault, KeyId, KeyIdFault, KeySet, Place,
    Refusal, SigningKey,
};
use shardcast::limits::TOKEN_BYTES_MAX;
use shardcast::wire::Role;

use crate::support::{NOW, base64url, file, one_key, path, secret_jwk, signed, token, token_with};

/// Of a token with these claims, by the key that signed it.
#[track_caller]
fn check(claims: &str, expect: Refusal) {
    let keys = one_key(&secret_jwk(""));
    assert_eq!(keys.verify(&token(claims), NOW).map(|verified| verified.claims), Err(expect));
}

/// Of a token with this header.
#[track_caller]
fn check_header(header: &str, expect: Result<(), Refusal>) {
    let keys = one_key(&secret_jwk(""));
    let token = token_with(header, r#"{"put":["a"]}"#);
    assert_eq!(keys.verify(&token, NOW).map(|_| ()), expect, "{header}");
}

fn patterns(texts: &[&str]) -> moq_pattern::Patterns {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn an_unknown_claim() {
    check(r#"{"put":["a"],"cluster":true}"#, ClaimsFault::Unknown("cluster".to_owned()).into());
    check(r#"{"put":["a"],"rooot":"x"}"#, ClaimsFault::Unknown("rooot".to_owned()).into());
}

#[test]
fn an_audience() {
    check(r#"{"put":["a"],"aud":"relay"}"#, ClaimsFault::Unknown("aud".to_owned()).into());
}

#[test]
fn both_forms_in_one() {
    for claims in [
        r#"{"put":["a"],"publish":["a"]}"#,
        r#"{"put":["a"],"subscribe":[]}"#,
        r#"{"get":[],"publish":["a"]}"#,
        r#"{"get":["a"],"subscribe":["a"]}"#,
    ] {
        check(claims, ClaimsFault::Mixed.into());
    }
}

#[test]
fn a_grant_that_is_null() {
    for name in ["put", "get", "publish", "subscribe"] {
        check(&format!(r#"{{"{name}":null}}"#), ClaimsFault::Null(name).into());
    }
    check(r#"{"put":["a"],"subscribe":null}"#, ClaimsFault::Null("subscribe").into());
}

#[test]
fn a_pattern_that_is_none() {
    for (claims, field, text) in [
        (r#"{"put":["**"]}"#, "put", "**"),
        (r#"{"get":["a/*"]}"#, "get", "a/*"),
        (r#"{"publish":["a/"]}"#, "publish", "a/"),
        (r#"{"subscribe":["ok","a*b*c"]}"#, "subscribe", "a*b*c"),
    ] {
        let keys = one_key(&secret_jwk(""));
        let refusal = keys.verify(&token(claims), NOW).unwrap_err();
        assert!(
            matches!(&refusal, Refusal::Claims(ClaimsFault::Pattern { field: f, text: t, .. })
                if (*f, t.as_str()) == (field, text)),
            "{refusal}"
        );
    }
}

#[test]
fn a_root_that_is_no_path() {
    let deep = format!(r#"{{"put":["a"],"root":"{}"}}"#, "x/".repeat(33));
    for claims in [r#"{"put":["a"],"root":"*"}"#, r#"{"put":["a"],"root":"a*"}"#, &deep] {
        check(claims, ClaimsFault::Root.into());
    }
}

#[test]
fn more_patterns_than_anybody_needs() {
    let claims = |count: usize| {
        let texts: Vec<String> = (0..count).map(|at| format!("\"{at}\"")).collect();
        format!(r#"{{"publish":[{}]}}"#, texts.join(","))
    };
    assert!(one_key(&secret_jwk("")).verify(&token(&claims(128)), NOW).is_ok());
    check(&claims(129), ClaimsFault::Many("publish").into());
}

#[test]
fn a_token_that_grants_nothing() {
    for claims in ["{}", r#"{"root":"a"}"#, r#"{"put":[],"get":[]}"#, r#"{"publish":[],"exp":1}"#] {
        let expect = match claims.contains("exp") {
            true => Refusal::Expired { at: 1 },
            false => Refusal::Useless,
        };
        check(claims, expect);
    }
}

#[test]
fn expired_by_one_second() {
    let keys = one_key(&secret_jwk(""));
    let token = token(&format!(r#"{{"put":["a"],"exp":{NOW}}}"#));
    assert!(keys.verify(&token, NOW - 1).is_ok());
    assert_eq!(keys.verify(&token, NOW).map(|_| ()), Err(Refusal::Expired { at: NOW }));
    assert_eq!(keys.verify(&token, NOW + 1).map(|_| ()), Err(Refusal::Expired { at: NOW }));
}

#[test]
fn too_early_by_one_second() {
    let keys = one_key(&secret_jwk(""));
    let token = token(&format!(r#"{{"put":["a"],"nbf":{NOW},"iat":{}}}"#, NOW + 1000));
    assert_eq!(keys.verify(&token, NOW - 1).map(|_| ()), Err(Refusal::TooEarly { from: NOW }));
    assert!(keys.verify(&token, NOW).is_ok());
}

#[test]
fn no_jwt_at_all() {
    let keys = one_key(&secret_jwk(""));
    let good = token(r#"{"put":["a"]}"#);
    assert!(keys.verify(&good, NOW).is_ok());
    let no_signature = good.rsplit_once('.').unwrap().0;
    for bad in [
        "",
        ".",
        "..",
        "a.b.c",
        no_signature,
        &format!("{good}.x"),
        &format!("{good}=="),
        &format!("{good}!"),
        &format!(" {good}"),
        &good.replace('.', "%2E"),
    ] {
        assert!(matches!(keys.verify(bad, NOW), Err(Refusal::Malformed(_))), "{bad}");
    }
    check("[]", ClaimsFault::Json(JsonFault::NotAnObject).into());
    check("{}{}", ClaimsFault::Json(JsonFault::NotAnObject).into());
    check(
        r#"{"put":["a"],"put":["b"]}"#,
        ClaimsFault::Json(JsonFault::Repeated("put".to_owned())).into(),
    );
    let wanted = "a whole number of seconds";
    let fault = JsonFault::Kind { name: "exp", wanted };
    check(r#"{"put":["a"],"exp":"4102444800"}"#, ClaimsFault::Json(fault).into());
}

#[test]
fn a_token_longer_than_any() {
    let keys = one_key(&secret_jwk(""));
    let with_room =
        |room: usize| token(&format!(r#"{{"put":["a"],"jti":"{}"}}"#, "x".repeat(room)));
    assert!(keys.verify(&with_room(5900), NOW).is_ok());
    let long = with_room(6200);
    assert!(long.len() > TOKEN_BYTES_MAX);
    assert_eq!(keys.verify(&long, NOW).map(|_| ()), Err(Refusal::TooLong(long.len())));
}

#[test]
fn a_name_that_leads_elsewhere() {
    for id in ["../x", "../../etc/passwd", "a/b", "..", ".", "a.jwk", "a\\u0000", "ä", " "] {
        let header = format!(r#"{{"alg":"HS256","kid":"{id}"}}"#);
        check_header(&header, Err(Refusal::KeyName(KeyIdFault::Characters)));
    }
    check_header(r#"{"alg":"HS256","kid":""}"#, Err(Refusal::KeyName(KeyIdFault::Empty)));
    let header = |length: usize| format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "x".repeat(length));
    check_header(&header(129), Err(Refusal::KeyName(KeyIdFault::TooLong)));
    // With one key by --auth-key the name is not compared.
    check_header(&header(128), Ok(()));
}

#[test]
fn no_algorithm_or_another_one() {
    for alg in ["none", "None", "ES512", "HS1", "hs256", ""] {
        check_header(&format!(r#"{{"alg":"{alg}"}}"#), Err(Refusal::AlgorithmUnknown));
    }
    let (token, key) = (Algorithm::HS512, Algorithm::HS256);
    check_header(r#"{"alg":"HS512"}"#, Err(Refusal::AlgorithmMismatch { token, key }));
    for header in ["{}", r#"{"alg":1}"#, r#"{"alg":null}"#, r#"{"alg":"HS256","alg":"none"}"#, "x"]
    {
        let got = one_key(&secret_jwk("")).verify(&token_with(header, "{}"), NOW).map(|_| ());
        assert!(matches!(got, Err(Refusal::Malformed(_))), "{header}: {got:?}");
    }
}

#[test]
fn extensions_that_must_be_understood() {
    check_header(r#"{"alg":"HS256","crit":["exp"]}"#, Err(Refusal::Critical));
    // Others may be ignored, and keys that a token brings along are.
    let header = r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AA"},"jku":"https://x","x5u":"y"}"#;
    check_header(header, Ok(()));
}

#[test]
fn a_public_key_taken_for_a_secret() {
    for algorithm in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256] {
        let public = SigningKey::generate(algorithm, None, None).unwrap().public_json().unwrap();
        let members: serde_json::Value = serde_json::from_str(&public).unwrap();
        let number = members.get("x").or(members.get("n")).unwrap().as_str().unwrap();
        let keys = one_key(&public);
        // Whatever of it is taken for the secret: the file, its text, the number.
        for secret in [public.as_bytes(), number.as_bytes(), &base64_bytes(number)] {
            let key = EncodingKey::from_secret(secret);
            let token = signed(
                r#"{"alg":"HS256"}"#,
                r#"{"put":[""]}"#,
                &key,
                jsonwebtoken::Algorithm::HS256,
            );
            let expect = Refusal::AlgorithmMismatch { token: Algorithm::HS256, key: algorithm };
            assert_eq!(keys.verify(&token, NOW).map(|_| ()), Err(expect));
            // And with a header that says what the key is for, the signature is none.
            let header = format!(r#"{{"alg":"{algorithm}"}}"#);
            let token = signed(&header, r#"{"put":[""]}"#, &key, jsonwebtoken::Algorithm::HS256);
            assert_eq!(keys.verify(&token, NOW).map(|_| ()), Err(Refusal::Signature));
        }
    }
}

fn base64_bytes(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()
}

#[test]
fn another_algorithm_of_the_same_key() {
    let rs256 = SigningKey::generate(Algorithm::RS256, None, None).unwrap();
    let claims = shardcast::access::Claims { grant: Grant::everything(), ..Default::default() };
    let token = rs256.sign(&claims, Form::Prefixes).unwrap();
    let public = rs256.public_json().unwrap();
    assert!(one_key(&public).verify(&token, NOW).is_ok());
    for other in ["RS384", "RS512", "PS256"] {
        let keys = one_key(&public.replace("RS256", other));
        let (token_alg, key) = (Algorithm::RS256, other.parse().unwrap());
        let expect = Refusal::AlgorithmMismatch { token: token_alg, key };
        assert_eq!(keys.verify(&token, NOW).map(|_| ()), Err(expect));
    }
}

#[test]
fn another_signature() {
    let keys = one_key(&secret_jwk(""));
    let good = token(r#"{"put":["a"]}"#);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let header = message.split_once('.').unwrap().0;
    let other = base64url(r#"{"put":["b"]}"#);
    for bad in [
        format!("{header}.{other}.{signature}"),
        format!("{message}."),
        format!("{message}.{}", base64url([0; 32])),
        format!("{message}.{}", base64url(&base64_bytes(signature)[..31])),
    ] {
        assert_eq!(keys.verify(&bad, NOW).map(|_| ()), Err(Refusal::Signature), "{bad}");
    }
    // What is in it is not looked at before the signature is.
    let unsigned = format!("{header}.{}.{signature}", base64url("nonsense"));
    assert_eq!(keys.verify(&unsigned, NOW).map(|_| ()), Err(Refusal::Signature));
}

#[test]
fn a_key_that_is_not_here() {
    let named = |files: &[&str]| {
        let files: Vec<_> =
            files.iter().map(|name| file(name, Place::Directory, secret_jwk(""))).collect();
        KeySet::new(&files).unwrap()
    };
    let with = |header: &str| token_with(header, r#"{"put":["a"]}"#);
    let keys = named(&["keys/a.jwk"]);
    assert_eq!(keys.verify(&with(r#"{"alg":"HS256","kid":"a"}"#), NOW).unwrap().key.label(), "a");
    let unknown = Refusal::KeyUnknown(KeyId::parse("b").unwrap());
    assert_eq!(keys.verify(&with(r#"{"alg":"HS256","kid":"b"}"#), NOW).map(|_| ()), Err(unknown));
    assert_eq!(keys.verify(&with(r#"{"alg":"HS256"}"#), NOW).map(|_| ()), Err(Refusal::KeyUnnamed));
    let none = named(&[]);
    assert_eq!(
        none.verify(&with(r#"{"alg":"HS256","kid":"a"}"#), NOW).map(|_| ()),
        Err(Refusal::NoKeys)
    );
}

#[test]
fn more_than_the_key_may_grant() {
    let scoped = secret_jwk(r#","scope":{"root":"demo","put":["live"]}"#);
    let keys = one_key(&scoped);
    for (claims, is_within) in [
        (r#"{"root":"demo","put":["live"]}"#, true),
        (r#"{"root":"demo/live","publish":["**"]}"#, true),
        (r#"{"publish":["demo/live/*/x"]}"#, true),
        (r#"{"publish":["demo/lively"]}"#, false),
        (r#"{"put":["demo"]}"#, false),
        (r#"{"root":"demo","put":["live"],"get":["live"]}"#, false),
        (r#"{"put":[""]}"#, false),
    ] {
        let expect = if is_within { Ok(()) } else { Err(Refusal::ScopeExceeded) };
        assert_eq!(keys.verify(&token(claims), NOW).map(|_| ()), expect, "{claims}");
    }
}

#[test]
fn a_path_above_below_and_beside_the_root() {
    let access = Access { keys: one_key(&secret_jwk("")).into(), ..Access::default() };
    let token = token(r#"{"root":"a/b","publish":["c","d/**"],"subscribe":["*/x"]}"#);
    let at = |dialled: &str| access.admit(&path(dialled), Some(&token), NOW).map(|in_| in_.grant);
    let grant = |root: &str, publish: &[&str], subscribe: &[&str]| {
        Ok(Grant::new(path(root), patterns(publish), patterns(subscribe)))
    };
    assert_eq!(at(""), grant("", &["a/b/c", "a/b/d/**"], &["a/b/*/x"]));
    assert_eq!(at("a"), grant("a", &["b/c", "b/d/**"], &["b/*/x"]));
    assert_eq!(at("a/b"), grant("a/b", &["c", "d/**"], &["*/x"]));
    assert_eq!(at("/a//b/"), at("a/b"));
    assert_eq!(at("a/b/c"), grant("a/b/c", &[""], &["x"]));
    assert_eq!(at("a/b/d/e"), grant("a/b/d/e", &["**"], &[]));
    assert_eq!(at("a/b/c/x"), grant("a/b/c/x", &[], &[""]));
    assert_eq!(at("a/b/c/y"), Err(Refusal::NoAccess));
    for beside in ["b", "a/c", "ab", "a/bc", "a/b2"] {
        assert_eq!(at(beside), Err(Refusal::RootMismatch), "{beside}");
    }
}

#[test]
fn what_would_be_deeper_than_paths_are() {
    let access = Access { keys: one_key(&secret_jwk("")).into(), ..Access::default() };
    let root = "x/".repeat(31);
    let token = token(&format!(r#"{{"root":"{root}","publish":["a/b"]}}"#));
    assert!(access.admit(&path(&root), Some(&token), NOW).is_ok());
    assert_eq!(access.admit(&path(""), Some(&token), NOW), Err(Refusal::TooDeep));
}

#[test]
fn a_bad_token_where_everything_is_public() {
    let access = Access {
        keys: one_key(&secret_jwk("")).into(),
        public: Grant::everything(),
        ..Access::default()
    };
    let anybody = access.admit(&path("a"), None, NOW).unwrap();
    assert_eq!((anybody.key, anybody.expires), (None, None));
    assert!(anybody.grant.may_publish(&path("a/b")));
    let expired = token(r#"{"put":[""],"exp":1}"#);
    assert_eq!(access.admit(&path("a"), Some(&expired), NOW), Err(Refusal::Expired { at: 1 }));
    let elsewhere = token(r#"{"put":["b"]}"#);
    assert_eq!(access.admit(&path("a"), Some(&elsewhere), NOW), Err(Refusal::NoAccess));
    // And with no key at all.
    let open = Access { public: Grant::everything(), ..Access::default() };
    let good = token(r#"{"put":[""]}"#);
    assert_eq!(open.admit(&path("a"), Some(&good), NOW), Err(Refusal::NoKeys));
}

#[test]
fn no_token_where_nothing_is_public() {
    let live: moq_pattern::Pattern = "live/**".parse().unwrap();
    let access = Access { public: Grant::public(&[], &[live], &[]), ..Access::default() };
    let grant = access.admit(&path("live/x"), None, NOW).unwrap().grant;
    assert!(grant.may_subscribe(&path("live/x/y")) && !grant.may_publish(&path("live/x/y")));
    assert_eq!(access.admit(&path("other"), None, NOW), Err(Refusal::NotPublic));
    assert_eq!(access.admit(&path("lively"), None, NOW), Err(Refusal::NotPublic));
    assert_eq!(Access::default().admit(&path(""), None, NOW), Err(Refusal::NotPublic));
}

#[test]
fn a_role_that_is_not_granted() {
    let grant = |publish: &[&str], subscribe: &[&str]| {
        Grant::new(path(""), patterns(publish), patterns(subscribe))
    };
    let both = grant(&["a"], &["b"]);
    assert_eq!(both.clone().for_role(Role::Both), Ok(both.clone()));
    assert_eq!(both.clone().for_role(Role::Publisher), Ok(grant(&["a"], &[])));
    assert_eq!(both.for_role(Role::Subscriber), Ok(grant(&[], &["b"])));
    assert_eq!(grant(&["a"], &[]).for_role(Role::Both), Ok(grant(&["a"], &[])));
    assert_eq!(grant(&[], &["b"]).for_role(Role::Publisher), Err(Refusal::MayNotPublish));
    assert_eq!(grant(&["a"], &[]).for_role(Role::Subscriber), Err(Refusal::MayNotSubscribe));
}

#[test]
fn each_refusal_is_one_line_that_is_short() {
    let keys = one_key(&secret_jwk(""));
    let huge = "\\n\\u001b".repeat(300);
    for claims in [
        format!(r#"{{"{huge}":1}}"#),
        format!(r#"{{"put":["*{huge}"]}}"#),
        format!(r#"{{"publish":["**{huge}"]}}"#),
        format!(r#"{{"root":"*{huge}"}}"#),
    ] {
        let line = keys.verify(&token(&claims), NOW).unwrap_err().to_string();
        assert!(line.len() < 300 && !line.contains(['\n', '\u{1b}']), "{line}");
    }
}
