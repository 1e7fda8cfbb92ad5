//! What looks at the certificates of clients: it vouches for those that were issued by who is in the
//! operator's files, as they are now.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::TlsError;
use super::pair::Pem;
use crate::files::Sum;

type Verifier = Arc<dyn ClientCertVerifier>;

/// Whoever shows no certificate comes in without one; one that is bad ends the handshake.
#[derive(Debug)]
pub struct Clients {
    verifier: ArcSwap<Verifier>,
}

impl Clients {
    pub fn new(verifier: Verifier) -> Clients {
        Clients { verifier: ArcSwap::from_pointee(verifier) }
    }

    pub fn replace(&self, verifier: Verifier) {
        self.verifier.store(Arc::new(verifier));
    }
}

/// The files of those who issue certificates of clients.
pub fn read(roots: &[PathBuf]) -> Result<(Sum, Vec<Pem>), TlsError> {
    let read: Vec<Pem> = roots.iter().map(|path| Pem::read(path)).collect::<Result<_, _>>()?;
    Ok((Pem::sum(&read), read))
}

/// Of one file at least.
pub fn verifier(roots: &[Pem]) -> Result<Verifier, TlsError> {
    let bad = |file: &Pem, reason: String| TlsError::BadRoot { path: file.path.clone(), reason };
    let mut store = RootCertStore::empty();
    for file in roots {
        for root in file.chain()? {
            store.add(root).map_err(|error| bad(file, error.to_string()))?;
        }
    }
    let provider = Arc::new(provider::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
    let verifier = verifier.allow_unauthenticated().build();
    verifier.map_err(|error| bad(&roots[0], error.to_string()))
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// Clients are not told who is believed: that may change while they read it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verifier.load().verify_client_cert(leaf, others, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.load().verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.load().verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.load().supported_verify_schemes()
    }
}
