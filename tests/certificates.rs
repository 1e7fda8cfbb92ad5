//! Certificates of every kind that the relay takes, as released clients see them that verify: by a
//! chain that leads to a root they trust, over both transports.

#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod client;
    pub mod relay;
}

use std::path::{Path, PathBuf};

use moq_tokio::connect;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SignatureAlgorithm};
use support::client::{LITE_06, within};
use support::relay::Relay;

/// A root, an authority below it and a leaf below that, all with keys of one kind.
struct Chain {
    dir: PathBuf,
    root: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Chain {
    fn issue(name: &str, kind: &'static SignatureAlgorithm) -> Chain {
        let dir = std::env::temp_dir().join(format!("shardcast-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            std::fs::write(&path, text).expect("a file");
            path
        };
        let key = || KeyPair::generate_for(kind).expect("a key");
        let authority = || {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
        };
        let root_key = key();
        let root = authority().self_signed(&root_key).expect("a root");
        let root_issuer = Issuer::new(authority(), root_key);
        let middle_key = key();
        let mut middle_params = authority();
        middle_params.distinguished_name.push(rcgen::DnType::CommonName, "middle");
        let middle = middle_params.signed_by(&middle_key, &root_issuer).expect("an authority");
        let middle_issuer = Issuer::new(middle_params, middle_key);
        let leaf_key = key();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf = CertificateParams::new(names).expect("names");
        let leaf = leaf.signed_by(&leaf_key, &middle_issuer).expect("a leaf");
        Chain {
            root: write("root.pem", root.pem()),
            cert: write("chain.pem", leaf.pem() + &middle.pem()),
            key: write("key.pem", leaf_key.serialize_pem()),
            dir,
        }
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// What comes of a client's try that trusts the authorities in a file and nobody else.
async fn dial(relay: &Relay, root: &Path) -> Result<String, String> {
    let mut config = connect::Config::default();
    config.websocket.enabled = Some(false);
    config.tls.root = vec![root.to_owned()];
    config.tls.system_roots = Some(false);
    config.version = vec![LITE_06.parse().expect("a version")];
    config.once = Some(true);
    config.bind = Some(([127, 0, 0, 1], 0).into());
    let client = config.init(Default::default()).expect("client");
    let receives =
        moq_tokio::origin::spawn_config(moq_net::origin::Config::new(moq_net::Hop::random()));
    let client = client.with_subscriber(receives);
    let url: url::Url = relay.url().parse().expect("relay url");
    let connection = within("an answer", client.connect(url).established()).await;
    let connection = connection.map_err(|error| error.to_string())?;
    Ok(connection.version().expect("a version was negotiated").to_string())
}

async fn verified(name: &str, kind: &'static SignatureAlgorithm) {
    let chain = Chain::issue(name, kind);
    let stranger = Chain::issue(&format!("{name}-stranger"), kind);
    let relay = Relay::certified(&chain.cert, &chain.key).await;
    for way in [relay.clone(), relay.web()] {
        assert_eq!(dial(&way, &chain.root).await.as_deref(), Ok(LITE_06), "{}", way.url());
        let refusal = dial(&way, &stranger.root).await;
        assert!(refusal.is_err(), "{} is trusted by whom does not know it", way.url());
    }
    relay.stop().await.expect_success();
}

#[tokio::test]
async fn p256() {
    verified("p256", &rcgen::PKCS_ECDSA_P256_SHA256).await;
}

#[tokio::test]
async fn rsa() {
    verified("rsa", &rcgen::PKCS_RSA_SHA256).await;
}

#[tokio::test]
async fn ed25519() {
    verified("ed25519", &rcgen::PKCS_ED25519).await;
}
