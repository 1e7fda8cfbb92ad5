//! An authority that issues certificates by ACME: Pebble of Let's Encrypt, with its own DNS, in which every name
//! is this machine.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;

use super::client::within;

pub type Https = HttpsConnector<HttpConnector>;

/// Its files are removed at the end, and what runs is stopped.
pub struct Pebble {
    dir: PathBuf,
    /// Who vouches for its own server.
    pub root: PathBuf,
    port: u16,
    management: u16,
    /// Where it looks for answers.
    pub http: u16,
    dns: u16,
    /// Seconds that a certificate lives.
    life: u64,
    /// Whom alone it makes an account for, and by which key.
    external: Option<(&'static str, &'static str)>,
    running: Vec<Child>,
}

impl Pebble {
    pub async fn start(name: &str, life: Duration) -> Pebble {
        Pebble::launch(name, life, None).await
    }

    /// One that makes accounts for who has one already, of this name and key.
    pub async fn bound(name: &str, life: Duration, kid: &'static str, key: &'static str) -> Pebble {
        Pebble::launch(name, life, Some((kid, key))).await
    }

    async fn launch(
        name: &str,
        life: Duration,
        external: Option<(&'static str, &'static str)>,
    ) -> Pebble {
        let dir = std::env::temp_dir().join(format!("shardcast-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a directory");
        let root = own_certificate(&dir);
        let [port, management, http, dns] = free_ports();
        let life = life.as_secs();
        let running = Vec::new();
        let mut pebble = Pebble { dir, root, port, management, http, dns, life, external, running };
        pebble.run().await;
        pebble
    }

    /// It forgets whom it knew.
    pub async fn restart(&mut self) {
        self.stop();
        self.run().await;
    }

    pub fn stop(&mut self) {
        for mut child in self.running.drain(..) {
            child.kill().expect("our own child");
            child.wait().expect("our own child");
        }
    }

    async fn run(&mut self) {
        let at = |port: u16| format!("127.0.0.1:{port}");
        let config = serde_json::json!({ "pebble": {
            "listenAddress": at(self.port),
            "managementListenAddress": at(self.management),
            "certificate": self.dir.join("server.pem"),
            "privateKey": self.dir.join("server.key"),
            "httpPort": self.http,
            "tlsPort": 1,
            "certificateValidityPeriod": self.life,
            "externalAccountBindingRequired": self.external.is_some(),
            "externalAccountMACKeys": self.external.into_iter().collect::<BTreeMap<_, _>>(),
        }});
        let path = self.dir.join("pebble.json");
        std::fs::write(&path, config.to_string()).expect("a file");
        let [dns, management] = [self.dns, free_ports::<1>()[0]].map(at);
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-dns01", &dns, "-management", &management, "-defaultIPv6", ""]);
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        let mut pebble = Command::new("pebble");
        pebble.args(["-config", path.to_str().expect("a path of ours"), "-dnsserver", &dns]);
        pebble.env("PEBBLE_VA_NOSLEEP", "1");
        for mut command in [names, pebble] {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let started = command.spawn();
            self.running.push(started.expect("pebble is installed: run scripts/setup.sh"));
        }
        for port in [self.port, self.management] {
            let up = async {
                while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            within("the authority", up).await;
        }
    }

    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// HTTPS to it.
    pub fn client<B>(&self) -> legacy::Client<Https, B>
    where
        B: hyper::body::Body + Send,
        B::Data: Send,
    {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.root).expect("PEM")).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions");
        let tls = tls.with_root_certificates(roots).with_no_client_auth();
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .build();
        legacy::Client::builder(TokioExecutor::new()).build(https)
    }

    /// How its own server is shown to clients.
    pub fn server(&self) -> rustls::ServerConfig {
        let pem = |name: &str| self.dir.join(name);
        let chain = CertificateDer::from_pem_file(pem("server.pem")).expect("PEM");
        let key = PrivateKeyDer::from_pem_file(pem("server.key")).expect("PEM");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .expect("a pair")
    }

    /// Who vouches for what it issues.
    pub async fn issuer(&self) -> CertificateDer<'static> {
        let client = self.client::<Empty<bytes::Bytes>>();
        let url = format!("https://localhost:{}/roots/0", self.management);
        let answer = client.get(url.parse().expect("a URL")).await.expect("an answer");
        let text = answer.into_body().collect().await.expect("a body").to_bytes();
        CertificateDer::from_pem_slice(&text).expect("PEM")
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// That nobody has at the moment.
fn free_ports<const N: usize>() -> [u16; N] {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let held = [(); N].map(|()| TcpListener::bind(any).expect("a free port"));
    held.map(|listener| listener.local_addr().expect("it is bound").port())
}

/// For its own server, and the file of who issued it.
fn own_certificate(dir: &Path) -> PathBuf {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).expect("a root");
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let server = params.signed_by(&key, &issuer).expect("a certificate");
    for (name, text) in [
        ("root.pem", root.pem()),
        ("server.pem", server.pem()),
        ("server.key", key.serialize_pem()),
    ] {
        std::fs::write(dir.join(name), text).expect("a file");
    }
    dir.join("root.pem")
}
