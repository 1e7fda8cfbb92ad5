//! Certificates that change while the relay runs: whoever comes is shown the new one, nobody is refused
//! meanwhile, who is there stays, and what is bad changes nothing.

#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod client;
    pub mod http;
    pub mod raw;
    pub mod relay;
}

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::digest;
use rcgen::{CertificateParams, KeyPair};
use shardcast::wire::Version;
use support::http::get;
use support::raw::Raw;
use support::relay::Relay;

/// A directory with certificates, removed at the end.
struct Dir(PathBuf);

/// A certificate and its key, as text.
#[derive(Clone)]
struct Issued {
    der: Vec<u8>,
    cert: String,
    key: String,
}

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("shardcast-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory");
        Dir(path)
    }

    fn cert(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.pem"))
    }

    fn key(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.key"))
    }

    /// In place of what is there, one file after the other.
    fn put(&self, name: &str, issued: &Issued) {
        rename_into(&self.cert(name), &issued.cert);
        rename_into(&self.key(name), &issued.key);
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn rename_into(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    fs::write(&fresh, text).expect("a file");
    fs::rename(&fresh, path).expect("it takes its place");
}

fn issue(name: &str) -> Issued {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let cert = params.self_signed(&key).expect("a certificate");
    Issued { der: cert.der().to_vec(), cert: cert.pem(), key: key.serialize_pem() }
}

impl Issued {
    fn sha256(&self) -> String {
        let sum = digest::digest(&digest::SHA256, &self.der);
        sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What the relay says when it is in use.
    fn in_use(&self) -> String {
        format!("sha256={}", self.sha256())
    }
}

async fn shown(relay: &Relay, name: &str) -> Vec<u8> {
    let raw = Raw::connect_named(relay.address(), Version::Lite06, name).await;
    let certificate = raw.certificate();
    raw.close().await;
    certificate
}

fn warnings(relay: &Relay, words: &str) -> usize {
    relay.log().iter().filter(|line| line.contains("WARN") && line.contains(words)).count()
}

const UNUSABLE: &str = "certificates cannot be used";

/// Before the swap and after it.
const CLIENTS: usize = 100;
const AT_ONCE: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_while_it_is_swapped() {
    let dir = Dir::new("swapped");
    let (old, new) = (issue("old.example"), issue("new.example"));
    dir.put("relay", &old);
    let relay = Relay::certified(&dir.cert("relay"), &dir.key("relay")).await;
    let line = relay.says(&old.in_use()).await;
    assert!(
        line.contains("names=old.example") && line.contains("not_after=4096-01-01T00:00:00Z"),
        "{line}"
    );

    // Each keeps what it was shown, and begins after so many others were in.
    let come = Arc::new(AtomicUsize::new(0));
    let swapped_at = Arc::new(AtomicUsize::new(usize::MAX));
    let clients = (0..AT_ONCE).map(|_| {
        let (come, swapped_at) = (come.clone(), swapped_at.clone());
        let address = relay.address();
        tokio::spawn(async move {
            let mut mine = Vec::new();
            let enough = || swapped_at.load(Ordering::SeqCst).saturating_add(CLIENTS);
            while come.load(Ordering::SeqCst) < enough() {
                let is_after = swapped_at.load(Ordering::SeqCst) != usize::MAX;
                let raw = Raw::introduced(address, Version::Lite06).await;
                come.fetch_add(1, Ordering::SeqCst);
                mine.push((is_after, raw));
            }
            mine
        })
    });
    let clients: Vec<_> = clients.collect();
    while come.load(Ordering::SeqCst) < CLIENTS {
        tokio::task::yield_now().await;
    }
    dir.put("relay", &new);
    relay.says(&new.in_use()).await;
    swapped_at.store(come.load(Ordering::SeqCst), Ordering::SeqCst);

    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await.expect("a client that nobody refuses"));
    }
    let of_old = all.iter().filter(|(_, raw)| raw.certificate() == old.der).count();
    assert!(of_old >= CLIENTS && all.len() >= 2 * CLIENTS, "{of_old} of {}", all.len());
    for (is_after, raw) in &all {
        assert!(raw.is_open(), "a session ended");
        let shown = raw.certificate();
        assert!(shown == new.der || (!is_after && shown == old.der), "after: {is_after}");
    }
    assert_eq!(get(relay.address(), "/certificate.sha256").await.text(), new.sha256());
    assert_eq!(warnings(&relay, UNUSABLE), 0);
    drop(all);
    relay.stop().await.expect_success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_pair_changes_nothing_and_is_told() {
    let dir = Dir::new("bad-pair");
    let (old, new) = (issue("old.example"), issue("new.example"));
    dir.put("relay", &old);
    let relay = Relay::certified(&dir.cert("relay"), &dir.key("relay")).await;
    // The certificate is there, and its key is not.
    rename_into(&dir.cert("relay"), &new.cert);
    let line = relay.says(UNUSABLE).await;
    assert!(line.contains("does not match") && line.contains("relay.key"), "{line}");
    assert!(shown(&relay, "new.example").await == old.der, "another certificate");
    fs::remove_file(dir.key("relay")).expect("it was there");
    relay.says("No such file").await;
    assert!(shown(&relay, "new.example").await == old.der, "another certificate");
    rename_into(&dir.key("relay"), &new.key);
    relay.says(&new.in_use()).await;
    assert!(shown(&relay, "old.example").await == new.der, "another certificate");
    assert_eq!(warnings(&relay, UNUSABLE), 2);
    relay.stop().await.expect_success();
}

/// Who asks is answered, whatever was said before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hangup_reads_at_once() {
    let dir = Dir::new("hangup");
    let old = issue("old.example");
    dir.put("relay", &old);
    let relay = Relay::certified(&dir.cert("relay"), &dir.key("relay")).await;
    let hang_up = || {
        // SAFETY: kill takes no pointers, and the child is not reaped while the play has it.
        unsafe { libc::kill(relay.id(), libc::SIGHUP) };
    };
    hang_up();
    relay.says("certificates and keys are as they were").await;
    rename_into(&dir.cert("relay"), "nothing");
    for times in 1..=3 {
        hang_up();
        let line = relay.says_times("cannot", times).await;
        assert!(line.contains(UNUSABLE) && line.contains("no certificate in"), "{line}");
    }
    let new = issue("new.example");
    dir.put("relay", &new);
    hang_up();
    relay.says(&new.in_use()).await;
    assert!(shown(&relay, "new.example").await == new.der, "another certificate");
    relay.stop().await.expect_success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_name_has_its_certificate() {
    let dir = Dir::new("names");
    let (a, b, other) = (issue("a.example"), issue("*.b.example"), issue("x.b.example"));
    dir.put("a", &a);
    dir.put("b", &b);
    let files = |of: &dyn Fn(&str) -> PathBuf| {
        let files = ["a", "b"].map(|name| of(name).display().to_string());
        files.join(",")
    };
    let (certs, keys) = (files(&|name| dir.cert(name)), files(&|name| dir.key(name)));
    let args = ["--listen-tls-cert", &certs, "--listen-tls-key", &keys];
    let relay = Relay::prepared(2, &args, |_| {}).await;
    for (name, expect) in
        [("a.example", &a), ("x.b.example", &b), ("elsewhere.test", &a), ("127.0.0.1", &a)]
    {
        assert!(shown(&relay, name).await == expect.der, "{name}");
    }
    assert_eq!(get(relay.address(), "/certificate.sha256").await.text(), a.sha256());
    dir.put("b", &other);
    relay.says(&other.in_use()).await;
    for (name, expect) in [("a.example", &a), ("x.b.example", &other), ("y.b.example", &a)] {
        assert!(shown(&relay, name).await == expect.der, "{name}");
    }
    relay.stop().await.expect_success();
}

/// As Kubernetes changes what is mounted: all files at once, by one link to their directory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_may_be_swapped_as_a_whole() {
    let dir = Dir::new("links");
    let (old, new) = (issue("old.example"), issue("new.example"));
    for (version, issued) in [("v1", &old), ("v2", &new)] {
        let version = Dir(dir.0.join(version));
        fs::create_dir(&version.0).expect("a directory");
        version.put("tls", issued);
        std::mem::forget(version);
    }
    symlink("v1", dir.0.join("..data")).expect("a link");
    for file in ["tls.pem", "tls.key"] {
        symlink(format!("..data/{file}"), dir.0.join(file)).expect("a link");
    }
    let relay = Relay::certified(&dir.cert("tls"), &dir.key("tls")).await;
    assert!(shown(&relay, "localhost").await == old.der, "another certificate");
    symlink("v2", dir.0.join("..fresh")).expect("a link");
    fs::rename(dir.0.join("..fresh"), dir.0.join("..data")).expect("it takes its place");
    fs::remove_dir_all(dir.0.join("v1")).expect("it is not needed");
    relay.says(&new.in_use()).await;
    assert!(shown(&relay, "localhost").await == new.der, "another certificate");
    assert_eq!(warnings(&relay, UNUSABLE), 0);
    relay.stop().await.expect_success();
}
