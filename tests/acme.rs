//! Certificates that are ordered: the real binary and an ACME authority of others, Pebble of Let's Encrypt.

mod support {
    pub mod adviser;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod client;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod http;
    pub mod pebble;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod raw;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod relay;
}

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use shardcast::wire::Version;
use support::adviser::{Adviser, Heard};
use support::http::{Exchange, get};
use support::pebble::Pebble;
use support::raw::Raw;
use support::relay::Relay;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

const DOMAINS: [&str; 2] = ["relay.example.test", "other.example.test"];

/// Long enough to be renewed by nobody here.
const LONG: Duration = Duration::from_secs(3600);

/// Where a relay keeps what it was given; removed at the end.
struct Kept(PathBuf);

impl Kept {
    fn new(name: &str) -> Kept {
        let path = std::env::temp_dir().join(format!("shardcast-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Kept(path)
    }

    fn account(&self) -> PathBuf {
        self.0.join("acme-account.json")
    }

    fn certificate(&self) -> PathBuf {
        self.0.join("acme-certificate.pem")
    }

    /// A relay that orders from there, with HTTP at this port.
    async fn relay(&self, pebble: &Pebble, http: u16) -> Relay {
        self.relay_of(pebble, &pebble.directory(), http, &[]).await
    }

    /// The same with another directory, and told more.
    async fn relay_of(&self, pebble: &Pebble, directory: &str, http: u16, told: &[&str]) -> Relay {
        let domains = DOMAINS.join(",");
        let [root, kept] = [&pebble.root, &self.0].map(|path| path.to_str().expect("of ours"));
        let http = format!("127.0.0.1:{http}");
        let acme = ["--acme-domain", &domains, "--acme-directory", directory, "--acme-root", root];
        let more = ["--state-dir", kept, "--acme-contact", "ops@example.com"];
        let web = ["--web-http-listen", &http, "--web-https-listen", "127.0.0.1:0"];
        Relay::prepared(2, &[&acme[..], &more, &web, told].concat(), |_| {}).await
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

async fn shown(relay: &Relay) -> Vec<u8> {
    let raw = Raw::connect_named(relay.address(), Version::Lite06, DOMAINS[0]).await;
    let certificate = raw.certificate();
    raw.close().await;
    certificate
}

/// A client that trusts the authority, and dials the relay by each name.
async fn trusted(relay: &Relay, issuer: CertificateDer<'static>) {
    let line = relay.says("kind=https").await;
    let (_, rest) = line.split_once("addr=").expect("an address");
    let address = rest.split_whitespace().next().and_then(|addr| addr.parse().ok());
    let address: SocketAddr = address.expect("an address");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(issuer).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions");
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    for domain in DOMAINS {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let name = ServerName::try_from(domain).expect("a name");
        let stream = TlsConnector::from(config.clone()).connect(name, stream).await;
        let request = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let answer = Exchange::over(stream.expect("it is trusted"), request).await.finish().await;
        answer.expect("an answer").expect(200, "ok\n");
    }
}

/// What the relay says when one that was ordered is in use.
const IN_USE: &str = "acme-certificate.pem";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_is_ordered_and_renewed_in_time() {
    let life = Duration::from_secs(12);
    let pebble = Pebble::start("pebble-renews", life).await;
    let kept = Kept::new("acme-renews");
    let relay = kept.relay(&pebble, pebble.http).await;
    let line = relay.says("certificate in use").await;
    assert!(line.contains("from=self-signed") && line.contains(&DOMAINS.join(",")), "{line}");
    let line = relay.says(IN_USE).await;
    assert!(line.contains("certificate in use"), "{line}");
    for domain in DOMAINS {
        assert!(line.contains(domain), "{line}");
    }
    trusted(&relay, pebble.issuer().await).await;
    for file in [kept.account(), kept.certificate()] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    // What was to be found is not there any more.
    let none = get(relay.address_of_http(), "/.well-known/acme-challenge/a").await;
    none.refuses(404, "there is no such challenge");

    let raw = Raw::introduced(relay.address(), Version::Lite06).await;
    let first = raw.certificate();
    let fresh = async {
        loop {
            let now = shown(&relay).await;
            if now != first {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let second = tokio::time::timeout(life, fresh).await.expect("it is renewed before its end");
    assert_ne!(first, second);
    assert!(raw.is_open() && raw.certificate() == first, "who is there stays");
    trusted(&relay, pebble.issuer().await).await;
    let orders = relay.log().iter().filter(|line| line.contains("is ordered domains")).count();
    assert_eq!(orders, 2, "{:#?}", relay.log());
    drop(raw);
    relay.stop().await.expect_success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_ordered_outlasts_the_process() {
    let mut pebble = Pebble::start("pebble-kept", LONG).await;
    let kept = Kept::new("acme-kept");
    let relay = kept.relay(&pebble, pebble.http).await;
    relay.says(IN_USE).await;
    let first = shown(&relay).await;
    let account = std::fs::read(kept.account()).expect("an account");
    relay.stop().await.expect_success();

    // Nobody is asked for another one.
    pebble.stop();
    let relay = kept.relay(&pebble, pebble.http).await;
    relay.says(IN_USE).await;
    assert!(shown(&relay).await == first, "it is the one from before");
    assert!(!relay.log().iter().any(|line| line.contains("is ordered domains")));
    relay.stop().await.expect_success();

    // A file that is no certificate is none, and the account is unknown to who has forgotten all.
    pebble.restart().await;
    std::fs::write(kept.certificate(), "nothing").expect("a file");
    let relay = kept.relay(&pebble, pebble.http).await;
    relay.says("certificate in use from=self-signed").await;
    relay.says(&format!("{IN_USE} names=")).await;
    assert!(shown(&relay).await != first, "it is another one");
    trusted(&relay, pebble.issuer().await).await;
    assert!(std::fs::read(kept.account()).expect("an account") != account);
    relay.stop().await.expect_success();
}

/// Where nothing leads port 80 to the relay, it says so, and tries again when it is told to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_fails_is_tried_again() {
    let pebble = Pebble::start("pebble-fails", LONG).await;
    let kept = Kept::new("acme-fails");
    let relay = kept.relay(&pebble, 0).await;
    relay.says(&format!("port 80 of {}", DOMAINS.join(" "))).await;
    let line = relay.says("no certificate was to be had").await;
    assert!(line.contains("example.test:") && line.contains("refused"), "{line}");
    let before = shown(&relay).await;

    let door = TcpListener::bind(("127.0.0.1", pebble.http)).await.expect("its port");
    let http = relay.address_of_http();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = door.accept().await {
            tokio::spawn(async move {
                let mut to = TcpStream::connect(http).await.expect("the relay");
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    // SAFETY: kill takes no pointers, and the child is not reaped while the play has it.
    unsafe { libc::kill(relay.id(), libc::SIGHUP) };
    relay.says(&format!("{IN_USE} names=")).await;
    assert!(shown(&relay).await != before);
    trusted(&relay, pebble.issuer().await).await;
    relay.stop().await.expect_success();
}

/// Some authorities make accounts for who has one with them already, and says so with a key of theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_bound_to_one_that_the_authority_knows() {
    const KID: &str = "kid-1";
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let pebble = Pebble::bound("pebble-bound", LONG, KID, KEY).await;
    let kept = Kept::new("acme-bound");
    let relay = kept.relay(&pebble, pebble.http).await;
    let line = relay.says("no certificate was to be had").await;
    assert!(line.contains("externalAccountBinding"), "{line}");
    relay.stop().await.expect_success();

    let file = kept.0.with_extension("key");
    let path = file.to_str().expect("of ours");
    let bound = async |kid: &'static str, key: &str| {
        std::fs::write(&file, key).expect("a file");
        let told = ["--acme-eab-kid", kid, "--acme-eab-key", path];
        kept.relay_of(&pebble, &pebble.directory(), pebble.http, &told).await
    };
    let relay = bound(KID, &KEY.to_lowercase()).await;
    let line = relay.says("no certificate was to be had").await;
    assert!(!line.contains(&KEY.to_lowercase()), "{line}");
    relay.stop().await.expect_success();
    let relay = bound(KID, &format!("{KEY}\n")).await;
    relay.says(&format!("{IN_USE} names=")).await;
    trusted(&relay, pebble.issuer().await).await;
    relay.stop().await.expect_success();

    // The account that is kept needs it no more. One of another name is another one.
    std::fs::remove_file(kept.certificate()).expect("it is kept");
    let relay = kept.relay(&pebble, pebble.http).await;
    relay.says(&format!("{IN_USE} names=")).await;
    relay.stop().await.expect_success();
    std::fs::remove_file(kept.certificate()).expect("it is kept");
    let relay = bound("kid-2", KEY).await;
    relay.says("no certificate was to be had").await;
    relay.stop().await.expect_success();
    std::fs::remove_file(file).expect("of ours");
}

/// Once, whatever it says: an authority that would have every certificate replaced at once is not asked for one
/// after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_is_replaced_when_the_authority_would_have_that() {
    let pebble = Pebble::start("pebble-advised", LONG).await;
    let adviser = Adviser::start(&pebble).await;
    let kept = Kept::new("acme-advised");
    let relay = kept.relay_of(&pebble, &adviser.directory(), pebble.http, &[]).await;
    relay.says_times(&format!("{IN_USE} names="), 2).await;
    trusted(&relay, pebble.issuer().await).await;
    relay.says_times("suggests when", 2).await;
    let heard = adviser.heard();
    let [Heard::Ordered(None), Heard::Asked(first), Heard::Ordered(Some(replaced)), rest @ ..] =
        &heard[..]
    else {
        panic!("{heard:?}")
    };
    assert_eq!(first, replaced);
    let [Heard::Asked(second)] = rest else { panic!("{rest:?}") };
    assert_ne!(first, second);
    relay.stop().await.expect_success();
    // Who starts again looks whether it is still wanted.
    let relay = kept.relay_of(&pebble, &adviser.directory(), pebble.http, &[]).await;
    relay.says("is ordered domains").await;
    relay.stop().await.expect_success();
    assert_eq!(adviser.heard()[heard.len()], Heard::Asked(second.clone()));
}
