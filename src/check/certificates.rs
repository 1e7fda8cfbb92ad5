//! The relay's own certificate, and those of who issues certificates of clients.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::Findings;
use crate::acme;
use crate::config::{AcmeConfig, IdentitySource, PairFiles};
use crate::tls::{self, Identity, Pair, TlsError};

/// Whoever renews by hand has this long, and whoever has it done has been late for two weeks.
const SOON: Duration = Duration::days(14);

/// What browsers take by its hash is valid for no longer.
const PINNED_VALID_MAX: Duration = Duration::days(14);

/// The mode of a file that everybody may read.
const OTHERS_READ: u32 = 0o004;

/// Each pair by itself: all that are bad are told.
pub fn own(findings: &mut Findings<'_>, source: &IdentitySource, now: OffsetDateTime) {
    match source {
        IdentitySource::Generated { hosts } => match load(source) {
            Ok(pair) => {
                let hosts: Vec<_> = hosts.iter().map(|host| host.to_str()).collect();
                let (hosts, expiry) = (hosts.join(" "), tls::expiry(pair.not_after));
                findings.fact("certificate", format!("self-signed for {hosts}, {expiry}"));
            }
            Err(error) => findings.fault("listen.tls.generate", error),
        },
        IdentitySource::Acme(acme) => ordered(findings, acme),
        IdentitySource::Files(pairs) => {
            for files in pairs {
                match load(&IdentitySource::Files(vec![files.clone()])) {
                    Ok(pair) => look(findings, files, &pair, now),
                    Err(error) => findings.fault(setting(files, &error), error),
                }
            }
        }
    }
}

/// What cannot be used of what is kept does no harm: another one is ordered.
fn ordered(findings: &mut Findings<'_>, acme: &AcmeConfig) {
    let (domains, directory) = (acme.domains.join(" "), &acme.directory);
    let kept = match load(&IdentitySource::Files(vec![acme.files()])) {
        Ok(pair) => format!("there is one, which {}", tls::expiry(pair.not_after)),
        Err(_) => "there is none yet".to_owned(),
    };
    findings.fact("certificate", format!("ordered for {domains} from {directory}; {kept}"));
    if let Some(external) = &acme.external {
        findings
            .fact("account", format!("bound to {}, by {}", external.kid, external.key.display()));
        note_if_open(findings, &external.key);
    }
    if let Err(error) = acme::Ready::new(acme) {
        let setting = match error {
            acme::StartError::External(_) => "acme.eab_key",
            _ => "acme.root",
        };
        findings.fault(setting, error);
    }
}

fn load(source: &IdentitySource) -> Result<Pair, TlsError> {
    let identity = Identity::load(source, &[], &[])?;
    Ok(identity.certificates.now()[0].clone())
}

fn note_if_open(findings: &mut Findings<'_>, key: &Path) {
    if fs::metadata(key).is_ok_and(|file| file.mode() & OTHERS_READ != 0) {
        let key = key.display();
        findings.note(format!("everybody on this machine may read {key}: chmod o= {key}"));
    }
}

/// Which of the two files is meant.
fn setting(files: &PairFiles, error: &TlsError) -> &'static str {
    match error.path() == Some(&files.key) && files.cert != files.key {
        true => "listen.tls.key",
        false => "listen.tls.cert",
    }
}

fn look(findings: &mut Findings<'_>, files: &PairFiles, pair: &Pair, now: OffsetDateTime) {
    const KEY: &str = "listen.tls.cert";
    let shown = files.cert.display();
    let chain = &pair.key.cert;
    let read: Vec<X509Certificate<'_>> = chain.iter().filter_map(read).collect();
    if read.len() < chain.len() {
        return findings.fault(KEY, format!("{shown} has a certificate that cannot be read"));
    }
    let (leaf, issuers) = read.split_first().expect("a chain has a certificate");
    let (names, from, until) = (&pair.names, pair.not_before, pair.not_after);
    let named = match names.is_empty() {
        true => "no name".to_owned(),
        false => names.join(" "),
    };
    let certificate = format!("{shown}, for {named}, issued by {}", leaf.issuer());
    findings.fact("certificate", format!("{certificate}, {}", tls::expiry(until)));
    note_if_open(findings, &files.key);

    if until <= now {
        let expiry = tls::expiry(until);
        findings.fault(KEY, format!("{shown}: {expiry}; clients refuse it, get a new one"));
    } else if from > now {
        findings.fault(
            KEY,
            format!("{shown} is not valid before {from}; clients refuse it until then"),
        );
    } else if until - now < SOON {
        findings.note(format!("{shown} {}; put a new one in its place", tls::expiry(until)));
    }
    if names.is_empty() {
        findings.note(format!(
            "{shown} names no host (subject alternative name); clients that verify refuse it"
        ));
    }
    if leaf.issuer() == leaf.subject() {
        let pinned = match until - from > PINNED_VALID_MAX {
            true => ", and browsers cannot: it is valid for more than 14 days",
            false => "",
        };
        findings.note(format!(
            "{shown} is self-signed: clients must pin its SHA-256 or skip verification{pinned}"
        ));
    }
    for (at, issuer) in issuers.iter().enumerate() {
        let of = issuer.subject();
        if read[at].issuer() != of {
            findings.note(format!(
                "{shown}: certificate {} ({of}) is not that of who issued the one before it; clients that \
                 verify may not find a way",
                at + 2
            ));
        }
        if validity(issuer).1 <= now {
            let expiry = tls::expiry(validity(issuer).1);
            findings.fault(KEY, format!("{shown}: certificate {} ({of}): {expiry}", at + 2));
        }
    }
}

/// Each file by itself: all that are bad are told.
pub fn roots(findings: &mut Findings<'_>, files: &[PathBuf], now: OffsetDateTime) {
    const KEY: &str = "listen.tls.root";
    for path in files {
        let chain = match tls::roots(path) {
            Ok(chain) => chain,
            Err(error) => {
                findings.fault(KEY, error);
                continue;
            }
        };
        for root in chain.iter().filter_map(read) {
            let (shown, expires) = (path.display(), validity(&root).1);
            let words = format!("{shown}, {}, {}", root.subject(), tls::expiry(expires));
            findings.fact("certificates of clients", words);
            if expires <= now {
                findings
                    .note(format!("{shown} has expired, and whom it issued to is let in still"));
            }
        }
    }
}

fn read<'a>(der: &'a CertificateDer<'static>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().map(|(_, read)| read)
}

fn validity(read: &X509Certificate<'_>) -> (OffsetDateTime, OffsetDateTime) {
    let validity = read.validity();
    (validity.not_before.to_datetime(), validity.not_after.to_datetime())
}
