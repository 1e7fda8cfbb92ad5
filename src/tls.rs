//! The relay's certificate: read from PEM files or made in memory, and the one rustls
//! configuration that all shards share. Knows no QUIC and no moq.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use time::{Duration, OffsetDateTime};

use crate::config::IdentitySource;

/// Browsers pin a certificate by its hash only if it is valid for at most 14 days in total.
const GENERATED_VALID: Duration = Duration::days(13);

/// A client whose clock is a little behind must not find the certificate "not yet valid".
const GENERATED_BACKDATED: Duration = Duration::hours(1);

const _: () = assert!(
    GENERATED_VALID.whole_seconds() + GENERATED_BACKDATED.whole_seconds()
        <= Duration::days(14).whole_seconds()
);

/// Who the relay is towards its clients.
#[derive(Clone)]
pub struct Identity {
    /// TLS 1.3 only, without 0-RTT. One for all shards: a ticket issued by one is taken by any. There are none
    /// where clients may show certificates: each connection is to show its own, as it is then.
    pub config: Arc<ServerConfig>,
    /// SHA-256 of the leaf certificate's DER, what clients pin.
    pub fingerprint: [u8; 32],
    pub expires: OffsetDateTime,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {reason}; give a file this user may read", path.display())]
    Unreadable { path: PathBuf, reason: std::io::Error },
    #[error("{} is not PEM: {reason}; give the file as its issuer wrote it", path.display())]
    NotPem { path: PathBuf, reason: String },
    #[error(
        "no certificate in {}; give the PEM file with -----BEGIN CERTIFICATE-----",
        path.display()
    )]
    NoCertificate { path: PathBuf },
    #[error("no private key in {}; give the PEM file with -----BEGIN PRIVATE KEY-----", path.display())]
    NoKey { path: PathBuf },
    #[error("the first certificate in {} is malformed: {reason}; issue it again", path.display())]
    BadCertificate { path: PathBuf, reason: String },
    #[error("cannot use the key in {}: {reason}; use a P-256, RSA or Ed25519 key", path.display())]
    BadKey { path: PathBuf, reason: String },
    #[error(
        "the key in {} does not match the first certificate in {}; give the key it was issued \
         for, and put the server's own certificate before its issuers",
        key.display(),
        cert.display()
    )]
    KeyMismatch { cert: PathBuf, key: PathBuf },
    #[error(
        "cannot verify clients with {}: {reason}; give --listen-tls-root the certificate of who issues theirs",
        path.display()
    )]
    BadRoot { path: PathBuf, reason: String },
    #[error("cannot make a certificate: {0}; give files with --listen-tls-cert instead")]
    Generate(String),
}

impl Identity {
    /// `alpn` is offered in this order, and the server's order decides. Clients may show certificates that
    /// were issued by who is in the files of `roots`, if there are any.
    pub fn load(
        source: &IdentitySource,
        roots: &[PathBuf],
        alpn: &[&[u8]],
    ) -> Result<Self, TlsError> {
        let clients = client_verifier(roots)?;
        match source {
            IdentitySource::Files { cert, key } => Self::from_files(cert, key, clients, alpn),
            IdentitySource::Generated { hosts } => Self::generate(hosts, clients, alpn),
        }
    }

    fn from_files(
        cert: &Path,
        key: &Path,
        clients: ClientVerifier,
        alpn: &[&[u8]],
    ) -> Result<Self, TlsError> {
        let chain = read_chain(cert)?;
        let private = read_key(key)?;
        let bad_certificate =
            |reason: String| TlsError::BadCertificate { path: cert.to_owned(), reason };
        let validity = Validity::of(&chain[0])
            .ok_or_else(|| bad_certificate("its validity cannot be read".to_owned()))?;
        let fingerprint = fingerprint(&chain[0]);
        let config = server_config(chain, private, clients, alpn).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::KeyMismatch { cert: cert.to_owned(), key: key.to_owned() }
            }
            rustls::Error::InvalidCertificate(reason) => bad_certificate(format!("{reason:?}")),
            other => TlsError::BadKey { path: key.to_owned(), reason: other.to_string() },
        })?;
        validity.warn_unless_current(cert, OffsetDateTime::now_utc());
        Ok(Self { config, fingerprint, expires: validity.not_after })
    }

    fn generate(
        hosts: &[ServerName<'static>],
        clients: ClientVerifier,
        alpn: &[&[u8]],
    ) -> Result<Self, TlsError> {
        let failed = |error: &dyn fmt::Display| TlsError::Generate(error.to_string());
        let names = alternative_names(hosts).map_err(|error| failed(&error))?;
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = names;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "shardcast");
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let now = OffsetDateTime::now_utc();
        params.not_before = now - GENERATED_BACKDATED;
        params.not_after = now + GENERATED_VALID;

        // P-256 because browsers pin no other kind.
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|error| failed(&error))?;
        let leaf = params.self_signed(&key).map_err(|error| failed(&error))?;
        let leaf = leaf.der().clone();
        let fingerprint = fingerprint(&leaf);
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Self {
            config: server_config(vec![leaf], private, clients, alpn)
                .map_err(|error| failed(&error))?,
            fingerprint,
            expires: now + GENERATED_VALID,
        })
    }
}

/// What looks at the certificates of clients; none where they are not asked for any.
type ClientVerifier = Option<Arc<dyn ClientCertVerifier>>;

/// Whoever shows no certificate comes in without one; one that is bad ends the handshake.
fn client_verifier(roots: &[PathBuf]) -> Result<ClientVerifier, TlsError> {
    let Some(last) = roots.last() else { return Ok(None) };
    let bad = |path: &PathBuf, reason: String| TlsError::BadRoot { path: path.clone(), reason };
    let mut store = RootCertStore::empty();
    for path in roots {
        for root in read_chain(path)? {
            store.add(root).map_err(|error| bad(path, error.to_string()))?;
        }
    }
    let provider = Arc::new(provider::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
    let verifier = verifier.allow_unauthenticated().build();
    Ok(Some(verifier.map_err(|error| bad(last, error.to_string()))?))
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: ClientVerifier,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    // Named here and not installed for the process: what runs does not depend on who came first.
    let provider = Arc::new(provider::default_provider());
    let has_tickets = clients.is_none();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let config = match clients {
        Some(verifier) => config.with_client_cert_verifier(verifier),
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_single_cert(chain, key)?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // Early data could be replayed, and a replayed SUBSCRIBE costs us a fan-out.
    config.max_early_data_size = 0;
    // Stateless tickets rather than the session cache, which is a lock that all shards would take.
    match has_tickets {
        true => config.ticketer = provider::Ticketer::new()?,
        false => config.send_tls13_tickets = 0,
    }
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

fn alternative_names(hosts: &[ServerName<'static>]) -> Result<Vec<rcgen::SanType>, rcgen::Error> {
    let mut names = Vec::new();
    for host in hosts {
        match host {
            ServerName::DnsName(name) => {
                names.push(rcgen::SanType::DnsName(name.as_ref().try_into()?));
                // Whoever dials localhost may as well dial its address.
                if name.as_ref().eq_ignore_ascii_case("localhost") {
                    names.push(rcgen::SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
                    names.push(rcgen::SanType::IpAddress(Ipv6Addr::LOCALHOST.into()));
                }
            }
            ServerName::IpAddress(address) => {
                names.push(rcgen::SanType::IpAddress(IpAddr::from(*address)));
            }
            // The enum is open to new kinds; configuration makes only these two.
            _ => {}
        }
    }
    Ok(names)
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| not_pem(path, &error))?;
    match chain.is_empty() {
        true => Err(TlsError::NoCertificate { path: path.to_owned() }),
        false => Ok(chain),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey { path: path.to_owned() },
        error => not_pem(path, &error),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|reason| TlsError::Unreadable { path: path.to_owned(), reason })
}

/// The library prints marker lines as lists of byte values.
fn not_pem(path: &Path, error: &pem::Error) -> TlsError {
    let reason = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no -----END line".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a -----BEGIN line is broken".to_owned(),
        other => other.to_string(),
    };
    TlsError::NotPem { path: path.to_owned(), reason }
}

fn fingerprint(leaf: &CertificateDer<'_>) -> [u8; 32] {
    digest::digest(&digest::SHA256, leaf).as_ref().try_into().expect("SHA-256 is 32 bytes")
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Validity {
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Validity {
    /// RFC 5280 §4.1. The only field of its own certificate that the relay needs.
    fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate, _) = der_value(certificate)?;
        let (_, mut fields, _) = der_value(certificate)?;
        if fields.first() == Some(&DER_VERSION) {
            fields = der_value(fields)?.2;
        }
        // serialNumber, signature, issuer
        for _ in 0..3 {
            fields = der_value(fields)?.2;
        }
        let (_, validity, _) = der_value(fields)?;
        let (kind, text, rest) = der_value(validity)?;
        let not_before = der_time(kind, text)?;
        let (kind, text, _) = der_value(rest)?;
        let not_after = der_time(kind, text)?;
        Some(Self { not_before, not_after })
    }

    /// Only a warning: a relay that stays down helps nobody, and clients that pin do not mind.
    fn warn_unless_current(&self, path: &Path, now: OffsetDateTime) {
        let path = path.display();
        if now > self.not_after {
            let since = self.not_after;
            tracing::warn!(%path, %since, "certificate has expired; clients will refuse it");
        } else if now < self.not_before {
            let until = self.not_before;
            tracing::warn!(%path, %until, "certificate is not valid yet; clients will refuse it");
        }
    }
}

const DER_VERSION: u8 = 0xa0;
const DER_UTC_TIME: u8 = 0x17;
const DER_GENERALIZED_TIME: u8 = 0x18;

/// Splits one element off: its tag, its contents and what follows it.
fn der_value(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = input.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((tag, value, rest))
}

/// `YYMMDDHHMMSSZ`, with the century from RFC 5280 §4.1.2.5.1, or `YYYYMMDDHHMMSSZ`.
fn der_time(tag: u8, text: &[u8]) -> Option<OffsetDateTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        DER_UTC_TIME => {
            let year: i32 = text.get(..2)?.parse().ok()?;
            (year + if year < 50 { 2000 } else { 1900 }, text.get(2..)?)
        }
        DER_GENERALIZED_TIME => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let field = |at: usize| -> Option<u8> { rest.get(at..at + 2)?.parse().ok() };
    let month = time::Month::try_from(field(0)?).ok()?;
    let date = time::Date::from_calendar_date(year, month, field(2)?).ok()?;
    let time = time::Time::from_hms(field(4)?, field(6)?, field(8)?).ok()?;
    (rest.len() == 10).then(|| OffsetDateTime::new_utc(date, time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    const ALPN: &[&[u8]] = &[b"moq-lite-06", b"moq-lite-05"];

    /// A directory of its own per test, removed at the end.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("shardcast-tls-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn issue(key: &KeyPair) -> rcgen::Certificate {
        let params = CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
        params.self_signed(key).unwrap()
    }

    fn p256() -> KeyPair {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
    }

    fn pem(label: &str, der: &[u8]) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in der.chunks(3) {
            let word = chunk
                .iter()
                .enumerate()
                .fold(0u32, |word, (i, byte)| word | u32::from(*byte) << (16 - 8 * i));
            for i in 0..4 {
                text.push(match i <= chunk.len() {
                    true => char::from(ALPHABET[(word >> (18 - 6 * i) & 63) as usize]),
                    false => '=',
                });
            }
        }
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    /// The old formats are what PKCS#8 wraps: version, algorithm, then the key as octets.
    fn unwrap_pkcs8(der: &[u8]) -> &[u8] {
        let (_, fields, _) = der_value(der).unwrap();
        let (_, _, fields) = der_value(fields).unwrap();
        let (_, _, fields) = der_value(fields).unwrap();
        der_value(fields).unwrap().1
    }

    #[track_caller]
    fn check_files(cert: impl AsRef<[u8]>, key: impl AsRef<[u8]>, expect: Result<(), &[&str]>) {
        let at = std::panic::Location::caller();
        let dir = Dir::new(&format!("{}-{}", at.line(), at.column()));
        let cert = dir.write("cert.pem", cert);
        let key = dir.write("key.pem", key);
        let got = Identity::load(&IdentitySource::Files { cert, key }, &[], ALPN);
        match (got, expect) {
            (Ok(identity), Ok(())) => check_config(&identity.config),
            (Err(error), Err(words)) => check_words(&error, words),
            (Ok(_), Err(words)) => panic!("loaded, expected {words:?}"),
            (Err(error), Ok(())) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn check_words(error: &TlsError, words: &[&str]) {
        let line = error.to_string();
        assert!(!line.contains('\n'), "more than one line: {line:?}");
        for word in words {
            assert!(line.contains(word), "{line:?} lacks {word:?}");
        }
    }

    #[track_caller]
    fn check_config(config: &Arc<ServerConfig>) {
        assert_eq!(config.alpn_protocols, ALPN);
        assert_eq!(config.max_early_data_size, 0);
        assert!(config.ticketer.enabled());
        // The consumer has its own opinion on what QUIC needs.
        quinn_proto::crypto::rustls::QuicServerConfig::try_from(config.clone()).unwrap();
    }

    #[test]
    fn clients_that_may_show_certificates_get_no_tickets() {
        let dir = Dir::new("roots");
        let load = |text: &str| {
            let source = IdentitySource::Generated { hosts: Vec::new() };
            Identity::load(&source, &[dir.write("root.pem", text)], ALPN)
        };
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&p256()).unwrap().pem();
        let config = load(&root).unwrap().config;
        assert!(!config.ticketer.enabled() && config.send_tls13_tickets == 0);
        assert!(!config.session_storage.can_cache());
        quinn_proto::crypto::rustls::QuicServerConfig::try_from(config).unwrap();

        let refused = |text: &str| load(text).err().expect("nobody is vouched for with that");
        check_words(&refused(""), &["no certificate in", "root.pem"]);
        check_words(&refused(&p256().serialize_pem()), &["no certificate in", "root.pem"]);
        let none = pem("CERTIFICATE", b"?");
        let words = ["cannot verify clients with", "root.pem", "--listen-tls-root"];
        check_words(&refused(&none), &words);
    }

    #[test]
    fn every_kind_of_key() {
        let p256 = p256();
        let der = p256.serialize_der();
        check_files(issue(&p256).pem(), p256.serialize_pem(), Ok(()));
        check_files(issue(&p256).pem(), pem("EC PRIVATE KEY", unwrap_pkcs8(&der)), Ok(()));

        let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let der = rsa.serialize_der();
        check_files(issue(&rsa).pem(), rsa.serialize_pem(), Ok(()));
        check_files(issue(&rsa).pem(), pem("RSA PRIVATE KEY", unwrap_pkcs8(&der)), Ok(()));

        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        check_files(issue(&ed25519).pem(), ed25519.serialize_pem(), Ok(()));
    }

    #[test]
    fn chains() {
        let (leaf, issuer) = (p256(), p256());
        let (own, other) = (issue(&leaf).pem(), issue(&issuer).pem());
        check_files(format!("{own}{other}"), leaf.serialize_pem(), Ok(()));
        // Both halves in one file, as some issuers hand them out.
        let both = format!("{}{own}", leaf.serialize_pem());
        check_files(&both, &both, Ok(()));
        check_files(
            format!("{other}{own}"),
            leaf.serialize_pem(),
            Err(&["does not match the first certificate", "cert.pem", "key.pem"]),
        );
    }

    #[test]
    fn refused_files() {
        let key = p256();
        let (cert, key_pem) = (issue(&key).pem(), key.serialize_pem());
        check_files("", &key_pem, Err(&["no certificate in", "cert.pem"]));
        check_files(&key_pem, &key_pem, Err(&["no certificate in", "cert.pem"]));
        check_files(&cert, &cert, Err(&["no private key in", "key.pem"]));
        check_files(&cert, [0xff, 0, 1], Err(&["no private key in", "key.pem"]));
        check_files(&cert, p256().serialize_pem(), Err(&["does not match"]));
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        check_files(&cert, ed25519.serialize_pem(), Err(&["does not match"]));
        check_files(&cert[..cert.len() / 2], &key_pem, Err(&["is not PEM", "cert.pem", "END"]));
        check_files(
            &cert,
            pem("PRIVATE KEY", b"?"),
            Err(&["cannot use the key", "key.pem", "P-256"]),
        );
        check_files(pem("CERTIFICATE", b"?"), &key_pem, Err(&["malformed", "cert.pem"]));
    }

    #[test]
    fn unreadable_file() {
        let cert = PathBuf::from("/nonexistent/cert.pem");
        let source = IdentitySource::Files { key: cert.clone(), cert };
        let error = Identity::load(&source, &[], ALPN).err().expect("there is no such file");
        check_words(&error, &["cannot read /nonexistent/cert.pem", "No such file"]);
    }

    #[test]
    fn expired_but_loaded() {
        let key = p256();
        let mut params = CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
        let cert = params.self_signed(&key).unwrap().pem();
        check_files(cert, key.serialize_pem(), Ok(()));
    }

    #[test]
    fn generated() {
        let hosts = ["localhost", "relay.example", "10.1.2.3"];
        let hosts = hosts.map(|host| ServerName::try_from(host).unwrap()).to_vec();
        let identity = Identity::load(&IdentitySource::Generated { hosts }, &[], ALPN).unwrap();
        check_config(&identity.config);
        let left = identity.expires - OffsetDateTime::now_utc();
        assert!(left > Duration::days(12) && left <= Duration::days(13));
    }

    #[test]
    fn generated_names() {
        let hosts = ["localhost", "10.1.2.3"];
        let hosts = hosts.map(|host| ServerName::try_from(host).unwrap());
        let names = alternative_names(&hosts).unwrap();
        let address = |text: &str| rcgen::SanType::IpAddress(text.parse().unwrap());
        let localhost = rcgen::SanType::DnsName("localhost".try_into().unwrap());
        let expect = [localhost, address("127.0.0.1"), address("::1"), address("10.1.2.3")];
        assert_eq!(names, expect);
    }

    #[test]
    fn two_generated_identities_differ() {
        let hosts = vec![ServerName::try_from("localhost").unwrap()];
        let source = IdentitySource::Generated { hosts };
        let fingerprint = || Identity::load(&source, &[], ALPN).unwrap().fingerprint;
        assert_ne!(fingerprint(), fingerprint());
    }

    /// Dates on both sides of 2050, where certificates change their notation.
    #[test]
    fn validity_is_read_back() {
        for (from, to) in [(1999, 2000), (2026, 2027), (2049, 2050), (2050, 2999)] {
            let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(from, 2, 28);
            params.not_after = rcgen::date_time_ymd(to, 12, 31) + Duration::seconds(86_399);
            let expect = Validity { not_before: params.not_before, not_after: params.not_after };
            let cert = params.self_signed(&p256()).unwrap();
            assert_eq!(Validity::of(cert.der()), Some(expect));
        }
    }

    #[test]
    fn cut_certificates_have_no_validity() {
        let cert = issue(&p256());
        for end in 0..cert.der().len() {
            assert_eq!(Validity::of(&cert.der()[..end]), None);
        }
    }
}
