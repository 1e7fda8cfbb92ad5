//! Browsers that trust the authority of the relay's certificate, and pages that come by HTTPS, from which only
//! `wss` is allowed: the released elements publish and watch.

#[allow(dead_code, reason = "each test needs a part of what all share")]
mod clients {
    pub mod actor;
    pub mod program;
    pub mod tab;
}
#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod client;
    pub mod relay;
}

use std::path::PathBuf;
use std::sync::LazyLock;

use clients::actor;
use clients::tab::{Publisher, Viewer, Way};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use support::relay::Relay;

const NAME: &str = "show.hang";

const SHARDS: usize = 2;

/// Of some more than twenty that cameras have, on a machine that plays several of them.
const FPS: u32 = 15;

/// An authority, and a certificate that it has issued, in files of a folder.
static ISSUED: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("secure");
    std::fs::create_dir_all(&folder).expect("a directory");
    let mut params = CertificateParams::new(vec![]).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = params.self_signed(&key).expect("a certificate");
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])
        .expect("names");
    // Browsers take none that is good for longer than this, whoever has issued it.
    params.not_before = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
    params.not_after = params.not_before + time::Duration::days(90);
    let cert = params.signed_by(&key, &issuer).expect("a certificate");
    let files = [("ca", authority.pem()), ("cert", cert.pem()), ("key", key.serialize_pem())];
    for (name, text) in files {
        std::fs::write(folder.join(format!("{name}.pem")), text).expect("a file");
    }
    actor::CERTIFICATES.set(folder.clone()).expect("set once");
    folder
});

async fn start() -> (Relay, Way) {
    let [cert, key] = ["cert", "key"].map(|name| ISSUED.join(format!("{name}.pem")));
    let [cert, key] = [&cert, &key].map(|file| file.to_str().expect("a path of ours"));
    let tls = ["--listen-tls-cert", cert, "--listen-tls-key", key];
    let https = ["--web-http-listen", "off", "--web-https-listen", "same"];
    let relay = Relay::prepared(SHARDS, &[&tls[..], &https].concat(), |_| {}).await;
    let way = Way::by_secure_socket(&relay);
    (relay, way)
}

/// Each way publishes and the other watches.
async fn a_camera_is_seen(relay: Relay, [one, other]: [Way; 2]) {
    for (from, to) in [(&one, &other), (&other, &one)] {
        let publisher = Publisher::open(from, NAME, "&pixels=230400").await;
        publisher.on_air().await;
        let viewer = Viewer::open(to, NAME).await;
        viewer.sees(&publisher, viewer.0.opened()).await;
        viewer.hears(&publisher, viewer.0.opened()).await;
        viewer.sees_smoothly(FPS, 2).await;
        for tab in [&publisher.0, &viewer.0] {
            assert_eq!(tab.errors().await, "");
        }
        viewer.0.close().await;
        publisher.0.close().await;
        relay.deserted().await;
    }
}

#[tokio::test]
async fn a_camera_is_seen_in_chromium() {
    let (relay, way) = start().await;
    a_camera_is_seen(relay, [way.clone(), way]).await;
}

#[tokio::test]
async fn a_camera_is_seen_in_firefox_and_in_chromium() {
    let (relay, way) = start().await;
    a_camera_is_seen(relay, [way.clone(), way.firefox()]).await;
}
