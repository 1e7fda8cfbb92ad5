//! A certificate that nobody vouches for, made in memory, and made anew before browsers refuse it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use time::{Duration, OffsetDateTime};

use super::TlsError;
use super::pair::{Pair, Source};

/// Browsers pin a certificate by its hash only if it is valid for at most 14 days in total.
const VALID: Duration = Duration::days(13);

/// A client whose clock is a little behind must not find the certificate "not yet valid".
const BACKDATED: Duration = Duration::hours(1);

/// So long before its end another takes its place: for who was told the hash before, and connects later.
const RENEWED_BEFORE: Duration = Duration::days(1);

const _: () = assert!(
    VALID.whole_seconds() + BACKDATED.whole_seconds() <= Duration::days(14).whole_seconds()
);

pub fn pair(hosts: &[ServerName<'static>], now: OffsetDateTime) -> Result<Pair, TlsError> {
    let failed = |error: rcgen::Error| TlsError::Generate(error.to_string());
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = alternative_names(hosts).map_err(failed)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "shardcast");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = now - BACKDATED;
    params.not_after = now + VALID;

    // P-256 because browsers pin no other kind.
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let leaf = params.self_signed(&key).map_err(failed)?.der().clone();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Pair::new(vec![leaf], private, Source::Generated)
        .map_err(|error| TlsError::Generate(error.to_string()))
}

/// Whether its end is near; or, where somebody has set the clock back, its begin is ahead.
pub fn is_due(pair: &Pair, now: OffsetDateTime) -> bool {
    let is_past = now >= pair.not_after - RENEWED_BEFORE || now < pair.not_before;
    pair.source == Source::Generated && is_past
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let hosts = ["localhost", "10.1.2.3"];
        let hosts = hosts.map(|host| ServerName::try_from(host).unwrap());
        let pair = pair(&hosts, OffsetDateTime::now_utc()).unwrap();
        assert_eq!(pair.names, ["localhost", "127.0.0.1", "::1", "10.1.2.3"]);
    }

    /// Whoever looks finds one that browsers take, today and for a day.
    #[test]
    fn it_is_made_anew_before_browsers_refuse_it() {
        let begin = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let first = pair(&[], begin).unwrap();
        assert!(first.not_after - first.not_before <= Duration::days(14));
        for (after, expect) in [
            (Duration::ZERO, false),
            (Duration::days(12) - Duration::SECOND, false),
            (Duration::days(12), true),
            (Duration::days(400), true),
            (-BACKDATED, false),
            (-BACKDATED - Duration::SECOND, true),
        ] {
            assert_eq!(is_due(&first, begin + after), expect, "{after}");
        }
    }
}
