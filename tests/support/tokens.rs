//! Keys and tokens for plays.

use shardcast::access::{
    Access, Algorithm, Claims, Form, Grant, KeyFile, KeyId, KeySet, Place, SigningKey,
};
use shardcast::wire::Path;

/// Who makes tokens.
pub struct Issuer {
    key: SigningKey,
}

impl Issuer {
    /// One whose tokens are the same in every run.
    pub fn fixed(name: &str) -> Issuer {
        let secret = base64_of(name);
        let jwk = format!(r#"{{"kty":"oct","alg":"HS256","kid":"{name}","k":"{secret}"}}"#);
        Issuer { key: SigningKey::parse(jwk.as_bytes()).expect("a key") }
    }

    pub fn new(name: &str) -> Issuer {
        let id = KeyId::parse(name).expect("a name");
        let key = SigningKey::generate(Algorithm::ES256, Some(id), None);
        Issuer { key: key.expect("a key") }
    }

    /// What the relay has of it: the key as its file has it.
    pub fn jwk(&self) -> String {
        self.key.public_json().unwrap_or_else(|| self.key.private_json())
    }

    pub fn token(
        &self,
        root: &str,
        publish: &[&str],
        subscribe: &[&str],
        expires: Option<i64>,
    ) -> String {
        let patterns =
            |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a pattern")).collect();
        let root = Path::parse(root).expect("a root");
        let grant = Grant::new(root, patterns(publish), patterns(subscribe));
        let claims = Claims { grant, expires, ..Claims::default() };
        self.key.sign(&claims, Form::Prefixes).expect("a token")
    }

    /// Where a session is dialled with such a token.
    pub fn dials(
        &self,
        path: &str,
        root: &str,
        publish: &[&str],
        subscribe: &[&str],
        expires: Option<i64>,
    ) -> String {
        format!("{path}?jwt={}", self.token(root, publish, subscribe, expires))
    }
}

/// Who may do what, with the keys of these and rules for everybody to watch.
pub fn access(issuers: &[&Issuer], public_subscribe: &[&str]) -> Access {
    let files = issuers.iter().map(|issuer| KeyFile {
        path: format!("{}.jwk", issuer.key.id().expect("a name").as_str()).into(),
        place: Place::Directory,
        bytes: issuer.jwk().into_bytes(),
    });
    let keys = KeySet::new(&files.collect::<Vec<_>>()).expect("keys");
    let rules: Vec<_> = public_subscribe
        .iter()
        .map(|text| shardcast::access::rule(text).expect("a rule"))
        .collect();
    Access { keys: keys.into(), public: Grant::public(&[], &rules, &[]) }
}

/// A secret of 48 bytes.
fn base64_of(name: &str) -> String {
    let letters = name.bytes().filter(u8::is_ascii_alphanumeric).cycle().take(64);
    letters.map(char::from).collect()
}
