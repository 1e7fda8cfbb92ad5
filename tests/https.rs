//! HTTPS beside the relay: the real binary, with the certificates that QUIC has, and clients that verify them.

#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod client;
    pub mod http;
    pub mod relay;
}

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use shardcast::limits::{WEB_CONNECTIONS_MAX, WEB_HANDSHAKE_TIMEOUT};
use support::client::{LITE_06, Peer, Role, Script, within};
use support::http::{Answer, Exchange};
use support::relay::Relay;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const NAME: &str = "localhost";

/// A certificate and its key in files, which are removed at the end.
struct Files {
    dir: PathBuf,
    der: CertificateDer<'static>,
}

impl Files {
    fn issue(name: &str) -> Files {
        let dir = std::env::temp_dir().join(format!("shardcast-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let mut files = Files { dir, der: Vec::new().into() };
        files.renew();
        files
    }

    fn renew(&mut self) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
        let cert = params.self_signed(&key).expect("a certificate");
        self.der = cert.der().clone();
        for (path, text) in
            [(self.path("cert"), cert.pem()), (self.path("key"), key.serialize_pem())]
        {
            std::fs::write(path.with_extension("new"), text).expect("a file");
            std::fs::rename(path.with_extension("new"), path).expect("it takes its place");
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pem"))
    }

    fn sha256(&self) -> String {
        let sum = digest::digest(&digest::SHA256, &self.der);
        sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    async fn relay(&self) -> Relay {
        let [cert, key] = ["cert", "key"].map(|name| self.path(name).display().to_string());
        let https = ["--web-https-listen", "127.0.0.1:0"];
        let tls = ["--listen-tls-cert", &cert, "--listen-tls-key", &key];
        Relay::prepared(2, &[&https[..], &tls].concat(), |_| {}).await
    }

    /// Of clients that trust this certificate, and speak these protocols.
    fn client(&self, alpn: &[&[u8]]) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions");
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }

    async fn dial(
        &self,
        address: SocketAddr,
        alpn: &[&[u8]],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::new(self.client(alpn)));
        let stream = TcpStream::connect(address).await?;
        connector.connect(ServerName::try_from(NAME).expect("a name"), stream).await
    }

    async fn get(&self, address: SocketAddr, target: &str) -> Answer {
        let stream = self.dial(address, &[b"h2", b"http/1.1"]).await.expect("it is trusted");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let request = format!("GET {target} HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
        let answer = Exchange::over(stream, &request).await.finish().await;
        answer.unwrap_or_else(|| panic!("no answer to GET {target}"))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn https(relay: &Relay) -> SocketAddr {
    let line = relay.says("kind=https").await;
    let (_, rest) = line.split_once("addr=").expect("an address");
    rest.split_whitespace().next().and_then(|addr| addr.parse().ok()).expect("an address")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_public_routes_over_tls() {
    let mut files = Files::issue("https");
    let relay = files.relay().await;
    let address = https(&relay).await;
    files.get(address, "/health").await.expect(200, "ok\n");
    files.get(address, "/certificate.sha256").await.expect(200, &files.sha256());
    let page = files.get(address, "/").await;
    assert!(page.text().contains(&format!("curl https://{NAME}/health")), "{}", page.text());
    assert_eq!(files.get(address, "/nothing").await.status, 404);

    let publisher = Peer::connect(&relay, LITE_06, Role::Publisher).await;
    let mut channel = publisher.announce("live/cam", &["video"]);
    let script = Script::new(7, 1, 1, &[10, 200_000, 5]);
    channel.publish("video", &script);
    let listed = async {
        while files.get(address, "/announced").await.text() != "live/cam\n" {
            tokio::task::yield_now().await;
        }
    };
    within("the broadcast to be listed", listed).await;
    let group = files.get(address, "/fetch/live/cam/video?group=1").await;
    let expect: Vec<u8> = (0..3).flat_map(|index| script.payload(1, index)).collect();
    assert!(group.status == 200 && group.is_whole && group.body == expect, "{}", group.body.len());

    // Whoever comes is shown the certificate of now; whoever is there is not disturbed.
    let before = files.dial(address, &[]).await.expect("it is trusted");
    files.renew();
    relay.says(&format!("sha256={}", files.sha256())).await;
    files.get(address, "/certificate.sha256").await.expect(200, &files.sha256());
    let request = format!("GET /health HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    let answer = Exchange::over(before, &request).await.finish().await.expect("an answer");
    answer.expect(200, "ok\n");
    relay.stop().await.expect_success();
}

/// A client of many programs, as it is used there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_library() {
    let files = Files::issue("https-library");
    let relay = files.relay().await;
    let address = https(&relay).await;
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(files.client(&[]))
        .https_only()
        .with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(
            ServerName::try_from(NAME).expect("a name"),
        ))
        .enable_http1()
        .build();
    let client: legacy::Client<_, Empty<bytes::Bytes>> =
        legacy::Client::builder(TokioExecutor::new()).build(connector);
    for _ in 0..3 {
        let url = format!("https://{address}/certificate.sha256").parse().expect("a URL");
        let answer = within("an answer", client.get(url)).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(body, files.sha256());
    }
    relay.stop().await.expect_success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_http_over_tls_ends() {
    let files = Files::issue("https-strangers");
    let relay = files.relay().await;
    let address = https(&relay).await;
    // HTTP/2 alone, and no TLS at all.
    let error = files.dial(address, &[b"h2"]).await.expect_err("it is not spoken");
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    let mut plain = TcpStream::connect(address).await.expect("a connection");
    plain.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it is taken");
    let mut answer = Vec::new();
    let _ = within("an end", plain.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    // A client that does not trust the certificate says so, and the relay goes on.
    let stranger = Files::issue("https-stranger");
    assert!(stranger.dial(address, &[]).await.is_err());
    files.get(address, "/health").await.expect(200, "ok\n");
    relay.stop().await.expect_success();
}

/// Whoever says nothing is not waited for, and as many of them as there is room for keep nobody out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_shakes_hands_keeps_nobody_out() {
    let files = Files::issue("https-silent");
    let relay = files.relay().await;
    let address = https(&relay).await;
    let begun = Instant::now();
    let mut silent = TcpStream::connect(address).await.expect("a connection");
    let end = within("the relay to give it up", silent.read(&mut [0])).await;
    assert!(matches!(end, Ok(0)), "{end:?}");
    let took = begun.elapsed();
    assert!(took + Duration::from_millis(50) > WEB_HANDSHAKE_TIMEOUT, "{took:?}");

    let mut crowd = Vec::new();
    for _ in 0..2 * WEB_CONNECTIONS_MAX {
        crowd.push(TcpStream::connect(address).await.expect("a connection"));
    }
    let begun = Instant::now();
    files.get(address, "/health").await.expect(200, "ok\n");
    assert!(begun.elapsed() < WEB_HANDSHAKE_TIMEOUT, "{:?}", begun.elapsed());
    relay.stop().await.expect_success();
}
