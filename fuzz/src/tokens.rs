//! Tokens as strangers show them and as issuers sign them. The input is text of four lines: the header of
//! a token, its claims, the path that is dialled with it and one that is asked for.
//!
//! * What nobody has signed lets nobody in.
//! * What is signed lets somebody in only now, and grants something; written again it says the same.
//! * A session may do nothing that its token does not grant, and all of that below its root.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use shardcast::access::{
    Access, Form, Grant, KeyFile, KeySet, Place, SigningKey, Verified, token_in,
};
use shardcast::wire::Path;

use crate::trace::Trace;

/// A pattern with `**` becomes as many as it has segments at a root that is as deep.
pub const BYTES_PER_BYTE: usize = 256;

const NOW: i64 = 1_795_748_116;

const SECRET: &[u8] = b"a test secret of thirty-four bytes";

/// The secret, and a public key of which nobody here has the private half.
struct Keys {
    access: Access,
    signing: SigningKey,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let secret = format!(r#"{{"kty":"oct","alg":"HS256","k":"{}"}}"#, encode(SECRET));
    let public = include_str!("../../tests/access/tokens/ES256.pub.jwk");
    let file = |name: &str, text: &str| KeyFile {
        path: name.into(),
        place: Place::File,
        bytes: text.as_bytes().to_vec(),
    };
    let keys = KeySet::new(&[file("secret.jwk", &secret), file("public.jwk", public)]);
    Keys {
        access: Access { keys: keys.expect("both are keys").into(), ..Access::default() },
        signing: SigningKey::parse(secret.as_bytes()).expect("it is a key"),
    }
});

pub fn run(input: &[u8], trace: &mut Trace) {
    let text = String::from_utf8_lossy(input);
    let keys = &KEYS.access.keys;
    trace.note((
        0,
        keys.verify(&text, NOW).expect_err("nobody has signed it").to_string().len() / 8,
    ));
    let mut lines = text.splitn(4, '\n');
    let [header, claims, dialled, asked] = [(); 4].map(|()| lines.next().unwrap_or_default());
    if let Some(token) = token_in(dialled) {
        assert!(!token.is_empty() && !token.contains(['&', '#']) && dialled.contains(token));
        assert!(keys.verify(token, NOW).is_err());
    }
    let token = sign(header, claims);
    match keys.verify(&token, NOW) {
        Err(refusal) => {
            let words = refusal.to_string();
            assert!(words.len() < 250 && !words.contains(char::is_control), "{words}");
            trace.note((1, std::mem::discriminant(&refusal)));
        }
        Ok(verified) => {
            trace.note(2);
            let changed = format!("{token}A");
            assert!(keys.verify(&changed, NOW).is_err());
            signed(&verified);
            if let (Ok(dialled), Ok(asked)) = (Path::parse(dialled), Path::parse(asked)) {
                admitted(&token, &verified.claims.grant, (&dialled, &asked), trace);
            }
        }
    }
}

fn signed(verified: &Verified<'_>) {
    let claims = &verified.claims;
    assert!(!claims.grant.is_empty() && claims.expires.is_none_or(|at| at > NOW));
    assert!(claims.not_before.is_none_or(|from| from <= NOW));
    for form in [Form::Prefixes, Form::Patterns] {
        // With its longest names a pattern may be longer than what it was written as.
        let Ok(again) = KEYS.signing.sign(claims, form) else { continue };
        let again = KEYS.access.keys.verify(&again, NOW).map(|again| again.claims);
        assert_eq!(again.as_ref(), Ok(claims));
    }
}

fn admitted(token: &str, granted: &Grant, (dialled, asked): (&Path, &Path), trace: &mut Trace) {
    let session = match KEYS.access.admit(dialled, Some(token), NOW) {
        Ok(admission) => admission.grant,
        Err(refusal) => return trace.note((3, std::mem::discriminant(&refusal))),
    };
    assert!(!session.is_empty() && session.root() == dialled);
    for path in [asked, dialled] {
        let is_below = path.has_prefix(dialled);
        assert_eq!(session.may_publish(path), is_below && granted.may_publish(path), "{path}");
        assert_eq!(session.may_subscribe(path), is_below && granted.may_subscribe(path), "{path}");
        trace.note((4, session.may_publish(path), session.may_subscribe(path)));
    }
    for head in session.publish_heads() {
        assert!(head.has_prefix(dialled));
    }
}

fn sign(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = EncodingKey::from_secret(SECRET);
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    format!("{message}.{}", signature.expect("any secret signs"))
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn seeds() -> Vec<Vec<u8>> {
    const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
    let claims = [
        r#"{"root":"rooms/123","put":["alice"],"get":[""],"exp":4102444800,"iat":1795748086}"#,
        r#"{"put":"rooms/123","get":"b/c","nbf":0}"#,
        r#"{"publish":["rooms/*/b","**/alice","al*e"],"subscribe":["","**"],"exp":null}"#,
        r#"{"iss":{"x":[1,{"y":null}]},"sub":1,"jti":"z","publish":["rooms/**/alice"]}"#,
        r#"{"root":"","subscribe":["\u0061/\ud83d\ude00","rooms/**"]}"#,
        r#"{"publish":["a"],"exp":1795748116}"#,
        r#"{"publish":["a"],"nbf":1795748117}"#,
        r#"{"publish":["a"],"put":[]}"#,
        r#"{"publish":["a"],"aud":"x"}"#,
        r#"{"put":[],"get":[]}"#,
        r#"{"get":null}"#,
    ];
    let with = |claims: &&str| format!("{HEADER}\n{claims}\nrooms/123\nrooms/123/alice");
    let mut seeds: Vec<String> = claims.iter().map(with).collect();
    let headers = [
        r#"{"alg":"ES256","kid":"kid-ES256"}"#,
        r#"{"alg":"none"}"#,
        r#"{"alg":"HS256","kid":"../k"}"#,
        r#"{"alg":"HS256","crit":["x"]}"#,
    ];
    seeds.extend(headers.map(|header| format!("{header}\n{}\n/?jwt=a.b.c\nrooms", claims[0])));
    seeds.push(include_str!("../../tests/access/tokens/ES256.jwt").trim().replace('-', "_"));
    seeds.push(format!("{HEADER}\n{}\n\nrooms/123/alice/cam", claims[0]));
    seeds.push(format!("{HEADER}\n{}\nrooms/123/alice/cam\nrooms/123/alice/cam/a", claims[0]));
    seeds.into_iter().map(String::into_bytes).collect()
}
