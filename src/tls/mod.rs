//! The relay's certificates and the TLS configurations that they are in: read from PEM files or made in
//! memory, and read again when that is due. Knows no QUIC and no moq.

mod certificates;
mod clients;
pub mod faults;
mod generate;
pub mod outgoing;
mod pair;
mod tickets;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::config::{AcmeConfig, IdentitySource, PairFiles};
use crate::files::{Look, Seen, Sum};
use clients::Clients;
use pair::{PairPem, Pem};
use tickets::Tickets;

pub use certificates::Certificates;
pub use pair::{Pair, Source};

/// Who the relay is towards its clients.
pub struct Identity {
    /// TLS 1.3 only, without 0-RTT. One for all shards: a ticket issued by one is taken by any. There are none
    /// where clients may show certificates: each connection is to show its own, as it is then.
    pub config: Arc<ServerConfig>,
    /// What clients are shown by that configuration.
    pub certificates: Arc<Certificates>,
    /// Looks for others.
    pub keeper: Keeper,
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
    #[error(
        "{} has {count} certificates of {bytes} bytes, which clients do not take; give the server's own \
         and its issuers alone",
        path.display()
    )]
    LongChain { path: PathBuf, count: usize, bytes: usize },
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
    #[error(
        "no root certificates are found on this machine, and nobody can vouch for relays that are dialled; \
         install ca-certificates, or name a PEM file with --connect-tls-root"
    )]
    NoRoots,
    #[error("cannot make a certificate: {0}; give files with --listen-tls-cert instead")]
    Generate(String),
    #[error("the TLS library refuses its configuration: {0}")]
    Library(#[from] rustls::Error),
}

impl TlsError {
    /// The file that is to be another one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unreadable { path, .. }
            | Self::NotPem { path, .. }
            | Self::NoCertificate { path }
            | Self::NoKey { path }
            | Self::BadCertificate { path, .. }
            | Self::LongChain { path, .. }
            | Self::BadKey { path, .. }
            | Self::KeyMismatch { key: path, .. }
            | Self::BadRoot { path, .. } => Some(path),
            Self::NoRoots | Self::Generate(_) | Self::Library(_) => None,
        }
    }
}

impl Identity {
    /// `alpn` is offered in this order, and the server's order decides. Clients may show certificates that
    /// were issued by who is in the files of `roots`, if there are any.
    pub fn load(
        source: &IdentitySource,
        roots: &[PathBuf],
        alpn: &[&[u8]],
    ) -> Result<Self, TlsError> {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).expect("the system has entropy at start-up");
        Identity::load_with(source, roots, alpn, &secret)
    }

    /// The same, with the secret of which the keys of tickets are made.
    pub fn load_with(
        source: &IdentitySource,
        roots: &[PathBuf],
        alpn: &[&[u8]],
        secret: &[u8; 32],
    ) -> Result<Self, TlsError> {
        let now = OffsetDateTime::now_utc();
        let (sum, pairs) = match source {
            IdentitySource::Files(files) => {
                let (sum, read) = read_pairs(files)?;
                (sum, pairs(&read)?)
            }
            IdentitySource::Generated { hosts } => {
                (Sum::default(), vec![generate::pair(hosts, now)?])
            }
            IdentitySource::Acme(acme) => match kept(acme) {
                Some(kept) => kept,
                None => (Sum::default(), vec![generate::pair(&acme.hosts(), now)?]),
            },
        };
        let (roots_sum, clients) = match roots {
            [] => (Sum::default(), None),
            _ => {
                let (sum, read) = clients::read(roots)?;
                (sum, Some(Arc::new(Clients::new(clients::verifier(&read)?))))
            }
        };
        let certificates = Arc::new(Certificates::new(pairs));
        let tickets = Tickets::new(secret, "quic");
        let config = server_config(certificates.clone(), clients.clone(), alpn, tickets)?;
        let keeper = Keeper {
            source: source.clone(),
            certificates: certificates.clone(),
            seen: Seen::new(sum),
            clients: clients.map(|clients| KeptRoots {
                files: roots.to_vec(),
                clients,
                seen: Seen::new(roots_sum),
            }),
        };
        Ok(Self { config, certificates, keeper })
    }
}

/// Looks at where certificates are from, and has others in use when there are some.
pub struct Keeper {
    source: IdentitySource,
    certificates: Arc<Certificates>,
    seen: Seen,
    clients: Option<KeptRoots>,
}

/// Of who issues certificates of clients.
struct KeptRoots {
    files: Vec<PathBuf>,
    clients: Arc<Clients>,
    seen: Seen,
}

impl Keeper {
    /// Looks once, and says what is new in the log. Whether anything is.
    pub fn look(&mut self, look: Look, now: OffsetDateTime) -> bool {
        let is_new = self.look_at_pairs(look, now);
        self.clients.as_mut().is_some_and(|roots| roots.look(look)) || is_new
    }

    fn look_at_pairs(&mut self, look: Look, now: OffsetDateTime) -> bool {
        let (files, hosts) = match &self.source {
            IdentitySource::Files(files) => (files.clone(), Vec::new()),
            IdentitySource::Generated { hosts } => (Vec::new(), hosts.clone()),
            IdentitySource::Acme(acme) => {
                let files = Some(acme.files()).filter(|files| files.cert.exists());
                (files.into_iter().collect(), acme.hosts())
            }
        };
        let is_due = || generate::is_due(&self.certificates.now()[0], now);
        let fresh = match files.as_slice() {
            [] if !is_due() => return false,
            [] => {
                let pair = generate::pair(&hosts, now).map(|pair| (pair.fingerprint, pair));
                self.seen.look(pair, |pair| Ok(vec![pair]), look)
            }
            files => self.seen.look(read_pairs(files), |read| pairs(&read), look),
        };
        match fresh {
            None => false,
            Some(Ok(pairs)) => {
                self.certificates.replace(pairs);
                // Whoever has read that line finds it so.
                self.certificates.now().iter().for_each(|pair| pair.tell(now));
                true
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "certificates cannot be used, and those from before stay");
                true
            }
        }
    }
}

impl KeptRoots {
    fn look(&mut self, look: Look) -> bool {
        let read = clients::read(&self.files);
        match self.seen.look(read, |read| clients::verifier(&read), look) {
            None => false,
            Some(Ok(verifier)) => {
                self.clients.replace(verifier);
                tracing::info!("others vouch for clients: those who come are verified with them");
                true
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "clients cannot be verified with that, and who vouched for them still does");
                true
            }
        }
    }
}

/// The certificates of a file of those who issue certificates of clients, where clients can be verified with them.
pub fn roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = Pem::read(path)?;
    clients::verifier(std::slice::from_ref(&file))?;
    file.chain()
}

/// How long a certificate is good, in words.
pub fn expiry(at: OffsetDateTime) -> String {
    let days = (at - OffsetDateTime::now_utc()).whole_days();
    let (date, hour, minute) = (at.date(), at.hour(), at.minute());
    match at > OffsetDateTime::now_utc() {
        true => format!("expires {date} {hour:02}:{minute:02} UTC (in {days} days)"),
        false => format!("EXPIRED {date} {hour:02}:{minute:02} UTC"),
    }
}

/// What was ordered before, if that can be used.
fn kept(acme: &AcmeConfig) -> Option<(Sum, Vec<Pair>)> {
    let files = acme.files();
    if !files.cert.exists() {
        return None;
    }
    match read_pairs(&[files]).and_then(|(sum, read)| Ok((sum, pairs(&read)?))) {
        Ok(kept) => Some(kept),
        Err(error) => {
            tracing::warn!(%error, "the certificate that was ordered cannot be used; another one is");
            None
        }
    }
}

/// A chain and its key in one text.
pub fn read_pair(path: &Path, bytes: Vec<u8>) -> Result<Pair, TlsError> {
    let both = || Pem { path: path.to_owned(), bytes: bytes.clone() };
    PairPem { cert: both(), key: both() }.pair()
}

/// For HTTP over TCP: the same certificates, and nobody is asked for one.
pub fn https(
    certificates: &Arc<Certificates>,
    secret: &[u8; 32],
) -> Result<Arc<ServerConfig>, TlsError> {
    server_config(certificates.clone(), None, &[b"http/1.1"], Tickets::new(secret, "https"))
}

fn read_pairs(files: &[PairFiles]) -> Result<(Sum, Vec<PairPem>), TlsError> {
    let read: Vec<PairPem> = files.iter().map(PairPem::read).collect::<Result<_, _>>()?;
    Ok((Pem::sum(read.iter().flat_map(|pair| [&pair.cert, &pair.key])), read))
}

/// All or nothing: the first pair that is bad is the error.
fn pairs(read: &[PairPem]) -> Result<Vec<Pair>, TlsError> {
    read.iter().map(PairPem::pair).collect()
}

fn server_config(
    certificates: Arc<Certificates>,
    clients: Option<Arc<Clients>>,
    alpn: &[&[u8]],
    tickets: Tickets,
) -> Result<Arc<ServerConfig>, TlsError> {
    // Named here and not installed for the process: what runs does not depend on who came first.
    let provider = Arc::new(provider::default_provider());
    let has_tickets = clients.is_none();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let config = match clients {
        Some(verifier) => config.with_client_cert_verifier(verifier),
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_cert_resolver(certificates);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // Early data could be replayed, and a replayed SUBSCRIBE costs us a fan-out.
    config.max_early_data_size = 0;
    // Stateless tickets rather than the session cache, which is a lock that all shards would take.
    match has_tickets {
        true => config.ticketer = Arc::new(tickets),
        false => config.send_tls13_tickets = 0,
    }
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rcgen::{CertificateParams, KeyPair, SanType};
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::server::danger::ClientCertVerifier;
    use time::Duration;

    use super::*;
    use crate::limits::CHAIN_CERTIFICATES_MAX;

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

    /// Splits one element off: its contents and what follows it.
    fn der_value(input: &[u8]) -> (&[u8], &[u8]) {
        let (length, rest) = match input[1] {
            short @ 0..=0x7f => (usize::from(short), &input[2..]),
            long => {
                let (bytes, rest) = input[2..].split_at(usize::from(long & 0x7f));
                (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
        };
        rest.split_at(length)
    }

    /// The old formats are what PKCS#8 wraps: version, algorithm, then the key as octets.
    fn unwrap_pkcs8(der: &[u8]) -> &[u8] {
        let (fields, _) = der_value(der);
        let (_, fields) = der_value(fields);
        let (_, fields) = der_value(fields);
        der_value(fields).0
    }

    #[track_caller]
    fn check_files(cert: impl AsRef<[u8]>, key: impl AsRef<[u8]>, expect: Result<(), &[&str]>) {
        let at = std::panic::Location::caller();
        let dir = Dir::new(&format!("{}-{}", at.line(), at.column()));
        let cert = dir.write("cert.pem", cert);
        let key = dir.write("key.pem", key);
        let source = IdentitySource::Files(vec![PairFiles { cert, key }]);
        let got = Identity::load(&source, &[], ALPN);
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
    fn chains_are_what_clients_take() {
        let key = p256();
        let own = issue(&key).pem();
        let most = own.repeat(CHAIN_CERTIFICATES_MAX);
        check_files(&most, key.serialize_pem(), Ok(()));
        let words = ["cert.pem", "has 17 certificates", "clients do not take"];
        check_files(own + &most, key.serialize_pem(), Err(&words));
        // Few, and large.
        let mut params = CertificateParams::default();
        let names = (0..2000).map(|n| SanType::DnsName(format!("{n}.example").try_into().unwrap()));
        params.subject_alt_names = names.collect();
        let large = params.self_signed(&key).unwrap().pem();
        check_files(&large, key.serialize_pem(), Ok(()));
        check_files(large.repeat(3), key.serialize_pem(), Err(&["has 3 certificates of"]));
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
        let source = IdentitySource::Files(vec![PairFiles { key: cert.clone(), cert }]);
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
        let left = identity.certificates.expires() - OffsetDateTime::now_utc();
        assert!(left > Duration::days(12) && left <= Duration::days(13));
    }

    #[test]
    fn two_generated_identities_differ() {
        let hosts = vec![ServerName::try_from("localhost").unwrap()];
        let source = IdentitySource::Generated { hosts };
        let fingerprint = || Identity::load(&source, &[], ALPN).unwrap().certificates.fingerprint();
        assert_ne!(fingerprint(), fingerprint());
    }

    /// Dates on both sides of 2050, where certificates change their notation.
    #[test]
    fn validity_is_read_back() {
        for (from, to) in [(1999, 2000), (2026, 2027), (2049, 2050), (2050, 2999)] {
            let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(from, 2, 28);
            params.not_after = rcgen::date_time_ymd(to, 12, 31) + Duration::seconds(86_399);
            let (key, expect) = (p256(), (params.not_before, params.not_after));
            let pair = pair_of(params.self_signed(&key).unwrap().der(), &key).unwrap();
            assert_eq!((pair.not_before, pair.not_after), expect);
        }
    }

    #[test]
    fn cut_certificates_are_none() {
        let key = p256();
        let cert = issue(&key);
        assert_eq!(pair_of(cert.der(), &key).unwrap().names, ["relay.example"]);
        for end in 0..cert.der().len() {
            let cut = pair_of(&cert.der()[..end], &key);
            assert!(matches!(cut, Err(pair::Fault::BadCertificate(_))), "{end} bytes");
        }
    }

    fn pair_of(cert: &[u8], key: &KeyPair) -> Result<Pair, pair::Fault> {
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Pair::new(vec![cert.to_vec().into()], key, Source::Generated)
    }

    /// What a look finds, as who looks after the files sees it: the names in the first certificate.
    #[test]
    fn other_files_are_in_use_at_the_next_look() {
        let dir = Dir::new("kept");
        let write = |name: &str, subject: &str| {
            let key = p256();
            let params = CertificateParams::new(vec![subject.to_owned()]).unwrap();
            dir.write(&format!("{name}.pem"), params.self_signed(&key).unwrap().pem());
            dir.write(&format!("{name}.key"), key.serialize_pem());
        };
        let files = |name: &str| PairFiles {
            cert: dir.0.join(format!("{name}.pem")),
            key: dir.0.join(format!("{name}.key")),
        };
        write("a", "a.example");
        write("b", "b.example");
        let source = IdentitySource::Files(vec![files("a"), files("b")]);
        let Identity { certificates, mut keeper, .. } = Identity::load(&source, &[], ALPN).unwrap();
        let look = |keeper: &mut Keeper| {
            let look = Look { now: Instant::now(), is_asked: false };
            keeper.look(look, OffsetDateTime::now_utc())
        };
        let names = || -> Vec<String> {
            certificates.now().iter().map(|pair| pair.names.join(" ")).collect()
        };
        assert!(!look(&mut keeper));
        write("b", "c.example");
        assert!(look(&mut keeper) && names() == ["a.example", "c.example"]);
        // Of a pair of which only half is in place nothing is taken, nor of the others.
        write("b", "d.example");
        dir.write("a.key", p256().serialize_pem());
        for is_told in [false, true, false] {
            assert_eq!(look(&mut keeper), is_told);
            assert_eq!(names(), ["a.example", "c.example"]);
        }
        write("a", "e.example");
        assert!(look(&mut keeper) && names() == ["e.example", "d.example"]);
        assert!(!look(&mut keeper));
    }

    #[test]
    fn the_generated_one_is_made_anew() {
        let source = IdentitySource::Generated { hosts: Vec::new() };
        let Identity { certificates, mut keeper, .. } = Identity::load(&source, &[], ALPN).unwrap();
        let look = Look { now: Instant::now(), is_asked: true };
        let (begin, first) = (OffsetDateTime::now_utc(), certificates.fingerprint());
        assert!(!keeper.look(look, begin + Duration::days(11)));
        assert_eq!(certificates.fingerprint(), first);
        let later = begin + Duration::days(12);
        assert!(keeper.look(look, later));
        assert_ne!(certificates.fingerprint(), first);
        assert!(certificates.expires() >= later + Duration::days(13) - Duration::SECOND);
        assert!(!keeper.look(look, later));
    }

    #[test]
    fn other_roots_are_in_use_at_the_next_look() {
        let dir = Dir::new("kept-roots");
        let ca = || {
            let mut params = CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let (key, cert) = (p256(), params.clone());
            (cert.self_signed(&key).unwrap().pem(), rcgen::Issuer::new(params, key))
        };
        let ((old, old_issuer), (new, new_issuer)) = (ca(), ca());
        let client = |issuer: &rcgen::Issuer<'_, KeyPair>| {
            let params = CertificateParams::new(vec!["edge.example".to_owned()]).unwrap();
            params.signed_by(&p256(), issuer).unwrap()
        };
        let (of_old, of_new) = (client(&old_issuer), client(&new_issuer));
        let root = dir.write("root.pem", old);
        let source = IdentitySource::Generated { hosts: Vec::new() };
        let Identity { mut keeper, .. } = Identity::load(&source, &[root], ALPN).unwrap();
        let clients = keeper.clients.as_ref().unwrap().clients.clone();
        let takes = |cert: &rcgen::Certificate| {
            clients.verify_client_cert(cert.der(), &[], rustls::pki_types::UnixTime::now()).is_ok()
        };
        let look = Look { now: Instant::now(), is_asked: false };
        assert_eq!((takes(&of_old), takes(&of_new)), (true, false));
        dir.write("root.pem", "nothing");
        for is_told in [false, true] {
            assert_eq!(keeper.look(look, OffsetDateTime::now_utc()), is_told);
            assert!(takes(&of_old));
        }
        dir.write("root.pem", new);
        assert!(keeper.look(look, OffsetDateTime::now_utc()));
        assert_eq!((takes(&of_old), takes(&of_new)), (false, true));
    }
}
