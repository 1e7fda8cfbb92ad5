//! Certificates that clients show, as files, and who issues them.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Issues certificates, in a directory that is removed at the end.
pub struct Authority {
    dir: PathBuf,
    /// Its own certificate.
    pub root: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A client's certificate and its key.
pub struct Card {
    pub cert: PathBuf,
    pub key: PathBuf,
    der: Vec<u8>,
    name: String,
    expires: SystemTime,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let dir = std::env::temp_dir().join(format!("shardcast-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "cluster");
        let cert = params.self_signed(&key).expect("a root");
        let root = dir.join("root.pem");
        std::fs::write(&root, cert.pem()).expect("a file");
        Authority { dir, root, issuer: Issuer::new(params, key) }
    }

    /// One with this common name, and these DNS names, for an hour.
    pub fn issue(&self, common: &str, dns: &[&str]) -> Card {
        self.issue_until(common, dns, SystemTime::now() + Duration::from_secs(3600))
    }

    pub fn issue_until(&self, common: &str, dns: &[&str], until: SystemTime) -> Card {
        let names: Vec<String> = dns.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params.not_after = until.into();
        let key = KeyPair::generate().expect("a key");
        let issued = params.signed_by(&key, &self.issuer).expect("a certificate");
        let write = |kind: &str, text: String| {
            let path = self.dir.join(format!("{common}-{kind}.pem"));
            std::fs::write(&path, text).expect("a file");
            path
        };
        // In whole seconds, as certificates have it.
        let expires = until.duration_since(SystemTime::UNIX_EPOCH).expect("a time after the epoch");
        Card {
            cert: write("cert", issued.pem()),
            key: write("key", key.serialize_pem()),
            der: issued.der().to_vec(),
            name: dns.first().unwrap_or(&common).to_string(),
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(expires.as_secs()),
        }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Card {
    /// What an auth server is to hear of it.
    pub fn facts(&self) -> moq_auth::Peer {
        let sum = digest::digest(&digest::SHA256, &self.der);
        moq_auth::Peer {
            name: self.name.clone(),
            fingerprint: sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
            expires: Some(self.expires),
            issuer: "CN=cluster".to_owned(),
        }
    }
}
