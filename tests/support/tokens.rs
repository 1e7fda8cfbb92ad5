//! Keys and tokens for plays.

use std::fs;
use std::path::PathBuf;

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
    Access { keys: keys.into(), public: Grant::public(&[], &rules, &[]), ..Access::default() }
}

/// A secret of 48 bytes.
fn base64_of(name: &str) -> String {
    let letters = name.bytes().filter(u8::is_ascii_alphanumeric).cycle().take(64);
    letters.map(char::from).collect()
}

/// A directory of keys, removed at the end.
pub struct Keys(PathBuf);

impl Keys {
    pub fn new(name: &str, issuers: &[(&str, &Issuer)]) -> Keys {
        let path = std::env::temp_dir().join(format!("shardcast-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory");
        let keys = Keys(path);
        issuers.iter().for_each(|(name, issuer)| keys.write(name, issuer.jwk()));
        keys
    }

    /// Puts a whole file in the place of the one before.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let fresh = self.0.join(".fresh");
        fs::write(&fresh, bytes)
            .and_then(|()| fs::rename(&fresh, self.file(name)))
            .expect("a file");
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.file(name)).expect("a file");
    }

    pub fn file(&self, name: &str) -> String {
        format!("{}/{name}.jwk", self.path())
    }

    pub fn path(&self) -> &str {
        self.0.to_str().expect("a path of ours")
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
