//! When a certificate is ordered: when the authority suggests it (RFC 9773), else at two thirds of the life of the
//! one before, and after a failure later and later. Not all relays at once.

use std::time::Duration;

use rustls::pki_types::ServerName;
use time::OffsetDateTime;

use crate::limits::{ACME_RETRY_MAX, ACME_RETRY_MIN};
use crate::tls::{Pair, Source};

/// Beyond two thirds of its life, at most such a part of it.
const SPREAD: f64 = 1.0 / 20.0;

/// From an order that succeeded to the next one. What is due before is so because a clock, a file or the authority is
/// wrong, and what would be ordered is no better: Let's Encrypt gives five certificates of the same names, and then
/// one in 34 hours.
pub const AGAIN_AFTER: Duration = Duration::from_secs(36 * 60 * 60);

/// When another one than this is to be ordered: long ago, if it is not what the authority is to give.
pub fn due(pair: &Pair, domains: &[String]) -> OffsetDateTime {
    let covers = |domain: &String| {
        ServerName::try_from(domain.as_str()).is_ok_and(|domain| pair.covers(&domain))
    };
    if pair.source == Source::Generated || !domains.iter().all(covers) {
        return OffsetDateTime::UNIX_EPOCH;
    }
    let life = pair.not_after - pair.not_before;
    pair.not_before + life * (2.0 / 3.0 + share(pair) * SPREAD)
}

/// The first moment of the next order, where one succeeded then. Half of a life at most: its own time comes later, and
/// some live for a day.
pub fn again(pair: &Pair, succeeded_at: OffsetDateTime) -> OffsetDateTime {
    let half = (pair.not_after - pair.not_before).unsigned_abs() / 2;
    succeeded_at + half.min(AGAIN_AFTER)
}

/// Of its own, and the same after a restart.
fn share(pair: &Pair) -> f64 {
    f64::from(pair.fingerprint[0]) / 256.0
}

/// The same where the authority suggests a time for it; none if that is of no use.
pub fn suggested(
    pair: &Pair,
    start: OffsetDateTime,
    end: OffsetDateTime,
) -> Option<OffsetDateTime> {
    let at = start + (end - start) * share(pair);
    (start <= end && at < pair.not_after).then_some(at)
}

/// From so many failures in a row to the next try.
pub fn pause(failures: u32) -> Duration {
    let doubled = ACME_RETRY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let mut random = [0];
    aws_lc_rs::rand::fill(&mut random).expect("the system has entropy");
    let more = doubled.min(ACME_RETRY_MAX).mul_f64(f64::from(random[0]) / 1024.0);
    doubled.min(ACME_RETRY_MAX) + Duration::from_secs(more.as_secs())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    fn pair(names: &[&str], source: Source) -> Pair {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        params.not_after = params.not_before + Duration::from_secs(9_000_000);
        let cert = params.self_signed(&key).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Pair::new(vec![cert.der().clone()], key, source).unwrap()
    }

    #[test]
    fn at_two_thirds_of_its_life() {
        let file = Source::File("acme-certificate.pem".into());
        let domains = ["a.example".to_owned(), "b.example".to_owned()];
        let held = pair(&["a.example", "b.example"], file.clone());
        for (share, at) in [(0, 7_000_000), (128, 7_225_000), (255, 7_448_242)] {
            let held = Pair { fingerprint: [share; 32], ..held.clone() };
            assert_eq!(due(&held, &domains).unix_timestamp(), at, "{share}");
        }
        for other in
            [pair(&["a.example"], file), pair(&["a.example", "b.example"], Source::Generated)]
        {
            assert_eq!(due(&other, &domains), OffsetDateTime::UNIX_EPOCH);
        }
    }

    #[test]
    fn not_soon_after_one_that_succeeded_and_never_late_for_that() {
        let domains = ["a.example".to_owned()];
        let held = pair(&["a.example"], Source::File("acme-certificate.pem".into()));
        let at = held.not_before;
        assert_eq!(again(&held, at), at + AGAIN_AFTER);
        for seconds in [12, 24 * 60 * 60, 6 * 24 * 60 * 60] {
            let not_after = at + Duration::from_secs(seconds);
            let held = Pair { not_after, fingerprint: [0; 32], ..held.clone() };
            assert!(at < again(&held, at) && again(&held, at) < due(&held, &domains), "{seconds}");
        }
    }

    #[test]
    fn when_the_authority_suggests_it() {
        let at = |second| OffsetDateTime::UNIX_EPOCH + Duration::from_secs(second);
        let pair = pair(&["a.example"], Source::File("acme-certificate.pem".into()));
        let pair = Pair { fingerprint: [64; 32], ..pair };
        for (start, end, expect) in [
            (5_000_000, 5_000_400, Some(5_000_100)),
            (0, 400, Some(100)),
            (7, 7, Some(7)),
            (400, 0, None),
            (10_000_000, 10_000_001, None),
        ] {
            assert_eq!(suggested(&pair, at(start), at(end)), expect.map(at), "{start} to {end}");
        }
    }

    #[test]
    fn later_after_each_failure() {
        let within = |failures, least: Duration| {
            let pause = pause(failures);
            assert!(least <= pause && pause <= least.mul_f64(1.25), "{failures}: {pause:?}");
        };
        for (failures, times) in [(1, 1), (2, 2), (3, 4), (6, 32)] {
            within(failures, ACME_RETRY_MIN * times);
        }
        for failures in [20, u32::MAX] {
            within(failures, ACME_RETRY_MAX);
        }
    }
}
