//! One question and its answer, over HTTP in the clear, a Unix socket and TLS.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig};
use shardcast::access::{Refusal, Target};
use shardcast::authority::contract::{Facts, Moved, Transport};
use shardcast::authority::{Asker, Authority, News, Ready, Roots};
use shardcast::shard::message::ToShard;
use shardcast::wire::Role;
use tokio::sync::oneshot;

use crate::judge::{Judge, PATIENCE, grants};

const GRANT: &str = r#"{"publish":["cam/**"],"subscribe":["**"],"root":"rooms/7"}"#;

fn authority(url: &str, roots: RootCertStore) -> Authority {
    let local = "127.0.0.1:4443".parse().unwrap();
    let ready = Ready::new(url.parse().unwrap(), Roots::These(roots), local).unwrap();
    ready.start::<ToShard>(Vec::new()).unwrap()
}

async fn ask(authority: &Authority) -> News {
    let (asker, news) = oneshot::channel();
    let handle = authority.handle();
    let facts = Facts {
        transport: Transport::Http,
        remote: "203.0.113.9:4433".parse().unwrap(),
        local: handle.local(),
        server_name: None,
        alpn: None,
        tls: None,
        dialled: Target::parse("/room?jwt=a.b.c").unwrap(),
        role: Role::Both,
    };
    let lease = handle.ask(Asker::Request(asker), facts);
    let news = tokio::time::timeout(PATIENCE, news).await.expect("an answer").unwrap();
    handle.end(lease, "closed", Moved::default());
    news
}

#[track_caller]
fn expect_admitted(news: News) {
    let News::Admitted(admission) = news else { panic!("{news:?}") };
    let (root, expires) = (admission.grant.root().as_str(), admission.expires);
    assert_eq!((root, expires, admission.key), ("rooms/7", None, None));
}

fn away() -> News {
    News::Over(Refusal::ServerAway)
}

/// A socket in a directory for temporary files, removed at the end.
struct Socket(PathBuf);

impl Socket {
    fn new(name: &str) -> Socket {
        let path =
            std::env::temp_dir().join(format!("shardcast-{name}-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Socket(path)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A certificate for 127.0.0.1, and who vouches for it.
fn certificate() -> (ServerConfig, RootCertStore) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let cert = cert.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca_cert.der().clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    (config.with_single_cert(vec![cert.der().clone()], key).unwrap(), roots)
}

#[tokio::test]
async fn in_the_clear_on_this_machine() {
    let judge = Judge::new(grants(GRANT));
    let at = judge.at_http().await;
    let authority = authority(&format!("http://me:pw@{at}/moq/auth"), RootCertStore::empty());
    for _ in 0..5 {
        expect_admitted(ask(&authority).await);
    }
    let asked = judge.asked();
    assert_eq!((asked[0].path.as_str(), asked[0].query.as_deref()), ("/room", Some("jwt=a.b.c")));
    assert_eq!(asked[0].transport, moq_auth::Transport::Http);
    assert_eq!(judge.headers.lock().unwrap()["authorization"], "Basic bWU6cHc=");
    for request in asked.iter().filter(|request| request.event == moq_auth::Event::Connect) {
        assert_eq!(judge.was_told_of_end(&request.id).await.0, "closed");
    }
    // An end and the next question may be under way together, and no more.
    assert!(judge.connections() <= 2, "{} connections", judge.connections());
    tokio::task::spawn_blocking(|| authority.stop()).await.unwrap().unwrap();
}

#[tokio::test]
async fn over_a_socket() {
    let socket = Socket::new("way");
    let url = format!("unix://{}", socket.0.display());
    let authority = authority(&url, RootCertStore::empty());
    // It is there later than who asks.
    assert_eq!(ask(&authority).await, away());
    let judge = Judge::new(grants(GRANT));
    judge.at_socket(&socket.0).await;
    expect_admitted(ask(&authority).await);
    assert_eq!(judge.headers.lock().unwrap()["host"], "localhost");
}

#[tokio::test]
async fn over_tls_with_somebody_who_vouches() {
    let (tls, roots) = certificate();
    let judge = Judge::new(grants(GRANT));
    let at = judge.at_https(tls).await;
    let url = format!("https://{at}/");
    expect_admitted(ask(&authority(&url, roots)).await);
    // A stranger's certificate is nobody's.
    let (_, others) = certificate();
    assert_eq!(ask(&authority(&url, others)).await, away());
    // Nor is one for another name.
    let by_name = url.replace("127.0.0.1", "localhost");
    let (tls, roots) = certificate();
    let at = judge.at_https(tls).await;
    let by_name = by_name.replace(&url_port(&url), &at.port().to_string());
    assert_eq!(ask(&authority(&by_name, roots)).await, away());
    assert_eq!(judge.asked().iter().filter(|it| it.event == moq_auth::Event::Connect).count(), 1);
}

fn url_port(url: &str) -> String {
    url.trim_end_matches('/').rsplit(':').next().unwrap().to_owned()
}

#[tokio::test]
async fn what_is_no_answer_lets_nobody_in() {
    let judge =
        Judge::new(|_| (StatusCode::OK, format!("{{\"tier\":\"{}\"}}", "x".repeat(1 << 20))));
    let at = judge.at_http().await;
    let authority = authority(&format!("http://{at}"), RootCertStore::empty());
    assert_eq!(ask(&authority).await, away());
    // Wherever it would send us, nothing is asked there.
    judge.says(|_| (StatusCode::TEMPORARY_REDIRECT, String::new()));
    assert_eq!(ask(&authority).await, away());
    judge.says(|_| (StatusCode::FORBIDDEN, "not\u{1b}[31m you".to_owned()));
    let refusal = Refusal::ByServer("not [31m you".to_owned());
    assert_eq!(ask(&authority).await, News::Over(refusal));
    judge.says(grants(GRANT));
    expect_admitted(ask(&authority).await);
}

#[tokio::test]
async fn a_server_that_hangs_is_waited_for_ten_seconds() {
    let judge = Judge::new(grants(GRANT));
    judge.hangs();
    let at: SocketAddr = judge.at_http().await;
    let authority = authority(&format!("http://{at}"), RootCertStore::empty());
    let begun = std::time::Instant::now();
    assert_eq!(ask(&authority).await, away());
    let took = begun.elapsed().as_secs_f64();
    assert!((10.0..15.0).contains(&took), "{took}");
}
