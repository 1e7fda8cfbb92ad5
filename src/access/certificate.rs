//! What a client's certificate says of it. That it is good was found out in the handshake.

use crate::text::hex;
use aws_lc_rs::digest;
use serde::Serialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// The facts, in the words of the auth server's contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// The first DNS name for which it was issued, else its common name, else the fingerprint.
    pub name: String,
    /// SHA-256 of all of it, in hexadecimal.
    pub fingerprint: String,
    /// The last second in which it is valid.
    pub expires: i64,
    /// The distinguished name of who issued it.
    pub issuer: String,
}

impl Certificate {
    /// None where it is no certificate.
    pub fn read(der: &[u8]) -> Option<Certificate> {
        let (_, read) = X509Certificate::from_der(der).ok()?;
        let fingerprint = hex(digest::digest(&digest::SHA256, der).as_ref());
        Some(Certificate {
            name: name(&read).unwrap_or_else(|| fingerprint.clone()),
            fingerprint,
            expires: read.validity().not_after.timestamp(),
            issuer: read.issuer().to_string(),
        })
    }

    /// Whether this is its name. DNS names are the same in capitals.
    pub fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

fn name(read: &X509Certificate<'_>) -> Option<String> {
    let alternatives = read.subject_alternative_name().ok().flatten();
    let dns = alternatives.and_then(|names| {
        names.value.general_names.iter().find_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
    });
    let common = || read.subject().iter_common_name().next()?.as_str().ok();
    let name = dns.or_else(common).filter(|name| !name.is_empty());
    name.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair, SanType};

    use super::*;

    /// A certificate for these DNS names and this common name, from a CA of its own.
    fn issue(dns: &[&str], common: Option<&str>) -> rcgen::Certificate {
        let named = |common: Option<&str>| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            if let Some(common) = common {
                params.distinguished_name.push(DnType::CommonName, common);
            }
            params
        };
        let ca = Issuer::new(named(Some("cluster")), KeyPair::generate().unwrap());
        let mut params = named(common);
        params.not_after = time::OffsetDateTime::from_unix_timestamp(4_102_444_800).unwrap();
        params.subject_alt_names = [SanType::IpAddress([10, 0, 0, 1].into())].to_vec();
        let dns = dns.iter().map(|name| SanType::DnsName((*name).try_into().unwrap()));
        params.subject_alt_names.extend(dns);
        params.signed_by(&KeyPair::generate().unwrap(), &ca).unwrap()
    }

    #[test]
    fn what_it_says() {
        let issued = issue(&["edge0.example", "edge1.example"], Some("edge"));
        let read = Certificate::read(issued.der()).unwrap();
        let sum = digest::digest(&digest::SHA256, issued.der());
        let expect = Certificate {
            name: "edge0.example".to_owned(),
            fingerprint: sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
            expires: 4_102_444_800,
            issuer: "CN=cluster".to_owned(),
        };
        assert_eq!(read, expect);
        assert!(read.is_named("Edge0.example"));
        for other in ["edge1.example", "edge", "edge0", "edge0.example.", "", &read.fingerprint] {
            assert!(!read.is_named(other), "{other}");
        }
    }

    #[test]
    fn who_has_no_dns_name_has_another() {
        let name = |common| Certificate::read(issue(&[], common).der()).unwrap();
        assert_eq!(name(Some("edge")).name, "edge");
        for unnamed in [name(None), name(Some(""))] {
            assert_eq!((unnamed.name.len(), &unnamed.name), (64, &unnamed.fingerprint));
        }
    }

    #[test]
    fn what_is_cut_says_nothing() {
        let issued = issue(&["edge0.example"], None);
        for end in 0..issued.der().len() {
            assert_eq!(Certificate::read(&issued.der()[..end]), None, "{end} bytes");
        }
    }
}
