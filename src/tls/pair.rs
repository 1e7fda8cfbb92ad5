//! A certificate with its key, as it is read from PEM files or made in memory.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::InconsistentKeys;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::TlsError;
use crate::config::PairFiles;
use crate::files;
use crate::limits::{CHAIN_BYTES_MAX, CHAIN_CERTIFICATES_MAX};
use crate::text::hex;

/// Bytes of one file: all authorities of a system are a quarter of that.
const PEM_FILE_BYTES_MAX: u64 = 1 << 20;

/// What the relay shows to clients.
#[derive(Clone, Debug)]
pub struct Pair {
    pub key: Arc<CertifiedKey>,
    pub source: Source,
    /// SHA-256 of the leaf certificate's DER, what clients pin.
    pub fingerprint: [u8; 32],
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    /// For whom it was issued: DNS names and addresses.
    pub names: Vec<String>,
}

/// Where a pair comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The file of its certificate.
    File(PathBuf),
    /// Nobody vouches for it: clients pin it.
    Generated,
}

/// A file that was read.
pub struct Pem {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
}

impl Pem {
    pub fn read(path: &Path) -> Result<Pem, TlsError> {
        let unreadable = |reason| TlsError::Unreadable { path: path.to_owned(), reason };
        let bytes = files::read_regular(path, PEM_FILE_BYTES_MAX).map_err(unreadable)?;
        if bytes.len() as u64 > PEM_FILE_BYTES_MAX {
            return Err(unreadable(std::io::Error::other("more than a MiB")));
        }
        Ok(Pem { path: path.to_owned(), bytes })
    }

    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Pem>) -> files::Sum {
        files::sum(all.into_iter().map(|file| (&*file.path, &*file.bytes)))
    }

    /// One certificate at least.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        let chain = chain.map_err(|error| self.not_pem(&error))?;
        match chain.is_empty() {
            true => Err(TlsError::NoCertificate { path: self.path.clone() }),
            false => Ok(chain),
        }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsError::NoKey { path: self.path.clone() },
            error => self.not_pem(&error),
        })
    }

    /// The library prints marker lines as lists of byte values.
    fn not_pem(&self, error: &pem::Error) -> TlsError {
        let reason = match error {
            pem::Error::MissingSectionEnd { .. } => "a section has no -----END line".to_owned(),
            pem::Error::IllegalSectionStart { .. } => "a -----BEGIN line is broken".to_owned(),
            other => other.to_string(),
        };
        TlsError::NotPem { path: self.path.clone(), reason }
    }
}

/// The files of one pair.
pub struct PairPem {
    pub cert: Pem,
    pub key: Pem,
}

impl PairPem {
    pub fn read(files: &PairFiles) -> Result<PairPem, TlsError> {
        Ok(PairPem { cert: Pem::read(&files.cert)?, key: Pem::read(&files.key)? })
    }

    pub fn pair(&self) -> Result<Pair, TlsError> {
        let (cert, key) = (&self.cert.path, &self.key.path);
        let source = Source::File(cert.clone());
        Pair::new(self.cert.chain()?, self.key.key()?, source).map_err(|fault| match fault {
            Fault::KeyMismatch => TlsError::KeyMismatch { cert: cert.clone(), key: key.clone() },
            Fault::LongChain { count, bytes } => {
                TlsError::LongChain { path: cert.clone(), count, bytes }
            }
            Fault::BadCertificate(reason) => {
                TlsError::BadCertificate { path: cert.clone(), reason }
            }
            Fault::BadKey(reason) => TlsError::BadKey { path: key.clone(), reason },
        })
    }
}

/// Why a certificate and a key are no pair.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("the key does not match the certificate")]
    KeyMismatch,
    #[error("the chain has {count} certificates of {bytes} bytes, which clients do not take")]
    LongChain { count: usize, bytes: usize },
    #[error("the certificate is malformed: {0}")]
    BadCertificate(String),
    #[error("the key cannot be used: {0}")]
    BadKey(String),
}

impl Pair {
    /// Of a chain that is not empty, whose first certificate is the server's own.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        source: Source,
    ) -> Result<Pair, Fault> {
        let malformed = |reason: &dyn fmt::Display| Fault::BadCertificate(reason.to_string());
        let (count, bytes) = (chain.len(), chain.iter().map(|one| one.len()).sum());
        if count > CHAIN_CERTIFICATES_MAX || bytes > CHAIN_BYTES_MAX {
            return Err(Fault::LongChain { count, bytes });
        }
        let leaf = chain[0].clone();
        let (_, read) = X509Certificate::from_der(&leaf).map_err(|error| malformed(&error))?;
        ParsedCertificate::try_from(&leaf).map_err(|error| malformed(&error))?;
        let provider = provider::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Fault::KeyMismatch,
            other => Fault::BadKey(other.to_string()),
        })?;
        Ok(Pair {
            key: Arc::new(key),
            source,
            fingerprint: fingerprint(&leaf),
            not_before: read.validity().not_before.to_datetime(),
            not_after: read.validity().not_after.to_datetime(),
            names: names(&read),
        })
    }

    /// Whether a client that dials this name takes it for the relay's.
    pub fn covers(&self, name: &ServerName<'_>) -> bool {
        let leaf = ParsedCertificate::try_from(&self.key.cert[0]).expect("it was read before");
        rustls::client::verify_server_name(&leaf, name).is_ok()
    }

    /// Says that it is in use from now on.
    pub fn tell(&self, now: OffsetDateTime) {
        let (from, names, sha256) = (&self.source, self.names.join(","), hex(&self.fingerprint));
        let [not_before, not_after] = [self.not_before, self.not_after]
            .map(|date| date.format(&Rfc3339).unwrap_or_else(|_| date.to_string()));
        tracing::info!(%from, %names, %not_after, %sha256, "certificate in use");
        // Only a warning: a relay that stays down helps nobody, and clients that pin do not mind.
        if now > self.not_after {
            tracing::warn!(%from, %not_after, "certificate has expired; clients will refuse it");
        } else if now < self.not_before {
            tracing::warn!(%from, %not_before, "certificate is not valid yet; clients will refuse it");
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => path.display().fmt(f),
            Source::Generated => f.write_str("self-signed"),
        }
    }
}

fn fingerprint(leaf: &CertificateDer<'_>) -> [u8; 32] {
    digest::digest(&digest::SHA256, leaf).as_ref().try_into().expect("SHA-256 is 32 bytes")
}

fn names(read: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternatives)) = read.subject_alternative_name() else { return Vec::new() };
    let names = alternatives.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => {
                <[u8; 4]>::try_from(*bytes).ok().map(|v4| std::net::Ipv4Addr::from(v4).to_string())
            }
            _ => {
                <[u8; 16]>::try_from(*bytes).ok().map(|v6| std::net::Ipv6Addr::from(v6).to_string())
            }
        },
        _ => None,
    });
    names.collect()
}
