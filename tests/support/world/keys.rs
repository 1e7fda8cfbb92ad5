//! Keys and TLS of relays and peers, the same in every run.

#[path = "../trusting.rs"]
mod trusting;

use std::sync::{Arc, OnceLock};

use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use shardcast::quic::ALPN_HTTP3;
use shardcast::wire::*;

use trusting::trusting;

/// An Ed25519 key: its signatures are all of one length, unlike ECDSA's.
const ED25519_PKCS8: [u8; 48] =
    *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20\
    one seed for every world here...";

pub(super) fn server_tls(prefers: Option<Version>) -> Arc<rustls::ServerConfig> {
    let config = server_tls_of_all();
    match prefers {
        Some(version) => {
            let mut config = rustls::ServerConfig::clone(&config);
            // The server's order decides.
            config.alpn_protocols.insert(0, version.alpn().into());
            Arc::new(config)
        }
        None => config,
    }
}

fn server_tls_of_all() -> Arc<rustls::ServerConfig> {
    static CONFIG: OnceLock<Arc<rustls::ServerConfig>> = OnceLock::new();
    let make = || {
        let key = PrivateKeyDer::try_from(ED25519_PKCS8.to_vec()).expect("a PKCS #8 key");
        let pair = rcgen::KeyPair::try_from(&key).expect("an Ed25519 key");
        let mut params =
            rcgen::CertificateParams::new(vec!["relay.test".to_owned()]).expect("a valid name");
        params.serial_number = Some(vec![1].into());
        let certificate = params.self_signed(&pair).expect("a signature");
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a matching key");
        config.alpn_protocols = Protocol::ALL.map(|protocol| protocol.name().into()).to_vec();
        config.alpn_protocols.push(ALPN_HTTP3.to_vec());
        config.send_tls13_tickets = 0;
        Arc::new(config)
    };
    CONFIG.get_or_init(make).clone()
}

pub(super) fn client_tls(alpn: &[u8]) -> Arc<rustls::ClientConfig> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(trusting(&[SignatureScheme::ED25519]))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// One suite and one group, so that no message depends on a choice.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    use rustls::crypto::aws_lc_rs;
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(provider)
}
