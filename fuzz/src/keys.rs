//! Files of keys. The input is such a file, as JSON or in base64url.
//!
//! * Whatever is wrong with it is said in one short line.
//! * A key that loads is found where it was given, and written again it is the same key.
//! * What its private half signs, its public half verifies.

use shardcast::access::{
    Claims, Form, Grant, KeyFile, KeySet, Place, SignError, SigningKey, base64url,
};
use shardcast::wire::Path;

use crate::trace::Trace;

/// A number of a key is there as text, as bytes and as the library has it; an RSA key is taken apart.
pub const BYTES_PER_BYTE: usize = 64;

const NOW: i64 = 1_795_748_116;

pub fn run(input: &[u8], trace: &mut Trace) {
    for place in [Place::File, Place::Directory] {
        match load(input, place) {
            Ok(keys) => {
                assert!(!keys.is_empty());
                trace.note((0, keys.len().min(4)));
            }
            Err(error) => {
                let words = error.to_string();
                assert!(words.len() < 250 && !words.contains(char::is_control), "{words}");
                trace.note((1, std::mem::discriminant(&error.fault)));
            }
        }
    }
    match SigningKey::parse(input) {
        Ok(key) => signing(&key, trace),
        Err(fault) => trace.note((2, std::mem::discriminant(&fault))),
    }
}

fn load(bytes: &[u8], place: Place) -> Result<KeySet, shardcast::access::KeyError> {
    KeySet::new(&[KeyFile { path: "k.jwk".into(), place, bytes: bytes.to_vec() }])
}

fn signing(key: &SigningKey, trace: &mut Trace) {
    let private = key.private_json();
    let again = SigningKey::parse(private.as_bytes()).expect("what was written is a key");
    assert_eq!(again.private_json(), private);
    let in_base64 = SigningKey::parse(base64url(&private).as_bytes());
    assert_eq!(in_base64.expect("so it is in base64url").private_json(), private);
    let everything = ["**".parse().expect("a pattern")];
    let everything = Grant::new(
        Path::root(),
        everything.iter().cloned().collect(),
        everything.iter().cloned().collect(),
    );
    let claims = Claims { grant: everything, ..Claims::default() };
    let token = key.sign(&claims, Form::Prefixes);
    trace.note((3, key.algorithm().name(), token.as_ref().err().map(std::mem::discriminant)));
    let public = key.public_json().unwrap_or(private);
    match (token, load(public.as_bytes(), Place::File)) {
        (Ok(token), Ok(keys)) => {
            let verified = keys.verify(&token, NOW).map(|verified| verified.claims);
            assert_eq!(verified, Ok(claims));
        }
        (Err(error), _) => assert_eq!(error, SignError::ScopeExceeded),
        // A key may be for signing alone, and then relays have no use for it.
        (_, Err(error)) => trace.note((4, std::mem::discriminant(&error.fault))),
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    // Pairs that protect nothing, so that private halves are read too.
    let texts = [
        include_str!("../../tests/access/tokens/HS256.jwk"),
        include_str!("../../tests/access/tokens/ES256.pub.jwk"),
        include_str!("../../tests/access/tokens/EdDSA.pub.jwk"),
        include_str!("../../tests/access/tokens/RS256.pub.jwk"),
        include_str!("../pairs/ES384.jwk"),
        include_str!("../pairs/EdDSA.jwk"),
        include_str!("../pairs/RS256.jwk"),
    ];
    let mut seeds: Vec<String> = texts.iter().map(|text| text.trim().to_owned()).collect();
    seeds.push(base64url(texts[0]));
    seeds.push(format!("{{\"keys\":[{},{}]}}", texts[0].trim(), texts[4].trim()));
    let secret = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldCE";
    seeds.extend([
        format!(r#"{{"kty":"oct","alg":"HS512","k":"{secret}=","kid":"a-b_1","use":"sig"}}"#),
        format!(r#"{{"kty":"oct","alg":"HS384","k":"{secret}","scope":{{"root":"a","put":["b"]}}}}"#),
        format!(
            r#"{{"kty":"oct","alg":"HS256","k":"{secret}","scope":{{"publish":["**"],"subscribe":["**"]}}}}"#
        ),
        format!(r#"{{"kty":"oct","alg":"HS256","k":"{secret}","key_ops":["sign"],"scope":null}}"#),
        r#"{"keys":[]}"#.to_owned(),
        r#"{"kty":"oct","alg":"none","k":"AA"}"#.to_owned(),
    ]);
    seeds.into_iter().map(String::into_bytes).collect()
}
