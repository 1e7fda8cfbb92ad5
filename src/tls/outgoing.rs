//! TLS of connections that the relay opens itself: who vouches for the servers; and why there is none.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};

use super::TlsError;
use super::pair::{PairPem, Pem};
use crate::config::ConnectTls;
use crate::text::hex;

/// Whom this machine trusts, or the file that `SSL_CERT_FILE` names; none where that is nobody.
pub fn system_roots() -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    (!roots.is_empty()).then_some(roots)
}

pub fn roots_in(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in Pem::read(path)?.chain()? {
        let bad = |reason: rustls::Error| TlsError::BadCertificate {
            path: path.to_owned(),
            reason: reason.to_string(),
        };
        roots.add(root).map_err(bad)?;
    }
    Ok(roots)
}

pub fn config(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(provider::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// What relays are dialled with: TLS 1.3 alone.
pub fn dialling(tls: &ConnectTls) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(provider::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let config = if tls.is_insecure || !tls.fingerprints.is_empty() {
        let known = (!tls.is_insecure).then(|| tls.fingerprints.clone());
        config.dangerous().with_custom_certificate_verifier(Arc::new(Pins { known, provider }))
    } else {
        config.with_root_certificates(roots(tls)?)
    };
    match &tls.identity {
        Some(files) => {
            let key = PairPem::read(files)?.pair()?.key;
            Ok(config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))))
        }
        None => Ok(config.with_no_client_auth()),
    }
}

/// What servers of lists are asked with: by those who vouch for relays.
pub fn asking(tls: &ConnectTls) -> Result<ClientConfig, TlsError> {
    let roots = match roots(tls) {
        Err(TlsError::NoRoots) => RootCertStore::empty(),
        roots => roots?,
    };
    let provider = Arc::new(provider::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots);
    match &tls.identity {
        Some(files) => {
            let key = PairPem::read(files)?.pair()?.key;
            Ok(config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))))
        }
        None => Ok(config.with_no_client_auth()),
    }
}

/// Who vouches for relays that are dialled.
fn roots(tls: &ConnectTls) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for path in &tls.roots {
        roots.extend(roots_in(path)?.roots);
    }
    if tls.system_roots {
        roots.extend(system_roots().into_iter().flat_map(|system| system.roots));
    }
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
}

/// Believes those who show one of these certificates; or, without any, whoever answers.
#[derive(Debug)]
struct Pins {
    known: Option<Vec<[u8; 32]>>,
    provider: Arc<CryptoProvider>,
}

/// Another certificate, with this SHA-256. Its name is [`faults::NOT_PINNED`].
///
/// [`faults::NOT_PINNED`]: super::faults::NOT_PINNED
#[derive(Debug, thiserror::Error)]
#[error("another certificate, with SHA-256 {0}")]
struct NotPinned(String);

impl ServerCertVerifier for Pins {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = digest::digest(&digest::SHA256, certificate);
        match &self.known {
            Some(known) if known.iter().all(|known| known != shown.as_ref()) => {
                let shown = NotPinned(hex(shown.as_ref()));
                Err(CertificateError::Other(OtherError(Arc::new(shown))).into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 alone is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// An error with its causes.
pub fn words(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words += &format!(": {error}");
        cause = error.source();
    }
    words
}
