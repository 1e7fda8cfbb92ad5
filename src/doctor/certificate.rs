//! What clients will think of the relay's certificates.

use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::config::{AcmeConfig, Config, IdentitySource};
use crate::host::finding::Finding;
use crate::tls::{self, Identity, Pair, Source};

const SUBJECT: &str = "certificate";

/// Whoever renews by hand has time to; whoever renews by a program, at two thirds of 90 days or later, has it
/// done by then.
const RENEWED_BEFORE: Duration = Duration::days(14);

/// One for each.
pub fn findings(config: &Config, now: OffsetDateTime) -> Vec<Finding> {
    let is_local = config.listen.ip().to_canonical().is_loopback();
    match Identity::load(&config.identity, &config.access.client_roots, &[]) {
        Err(refusal) => vec![Finding::refused(SUBJECT, &refusal)],
        Ok(identity) => {
            let pairs = identity.certificates.now();
            if let IdentitySource::Acme(acme) = &config.identity
                && identity.certificates.is_self_signed()
            {
                return vec![ordered(acme)];
            }
            pairs.iter().map(|pair| judge(pair, is_local, now)).collect()
        }
    }
}

fn judge(pair: &Pair, is_local: bool, now: OffsetDateTime) -> Finding {
    let Source::File(path) = &pair.source else {
        return generated(&pair.names, is_local);
    };
    let path = path.display();
    let says = format!("{path} for {}, {}", pair.names.join(" "), tls::expiry(pair.not_after));
    if pair.names.is_empty() {
        let says = format!("{path} names no host (subjectAltName)");
        return Finding::fail(SUBJECT, says, "clients refuse it", "have it issued for your host");
    }
    if pair.not_after <= now {
        let mend = "renew it; a relay that runs shows the new one by itself";
        return Finding::fail(SUBJECT, says, "clients refuse it", mend);
    }
    if pair.not_before > now {
        let says = format!("{path} is good from {} on", pair.not_before);
        let mend = "look at the clock of this host: `timedatectl`";
        return Finding::fail(SUBJECT, says, "clients refuse it until then", mend);
    }
    if pair.not_after - now < RENEWED_BEFORE {
        let mend = "renew it, and see why that did not happen by itself: `certbot renew --dry-run`";
        return Finding::warn(SUBJECT, says, "from then on clients refuse it", mend);
    }
    match missing_issuer(pair) {
        Some(issuer) => Finding::warn(
            SUBJECT,
            format!("{says}; in the file is nobody who issued it ({issuer})"),
            "clients that know only the root of that refuse it",
            "give the whole chain, which is fullchain.pem of most",
        ),
        None => Finding::ok(SUBJECT, says),
    }
}

fn generated(names: &[String], is_local: bool) -> Finding {
    let says = format!("made at the start for {}", names.join(" "));
    match is_local {
        true => Finding::ok(SUBJECT, says),
        false => Finding::warn(
            SUBJECT,
            says,
            "only clients that pin its hash, which is another after each start, come in",
            "one that is issued for your host: --listen-tls-cert fullchain.pem --listen-tls-key privkey.pem",
        ),
    }
}

fn ordered(acme: &AcmeConfig) -> Finding {
    Finding::warn(
        SUBJECT,
        format!("none yet for {}", acme.domains.join(" ")),
        "until it has one clients that verify refuse the relay",
        "start it: it orders one, and its log says what comes of that",
    )
}

/// Of a certificate that stands alone and was not issued by itself.
fn missing_issuer(pair: &Pair) -> Option<String> {
    let [leaf] = pair.key.cert.as_slice() else { return None };
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    (leaf.issuer() != leaf.subject()).then(|| leaf.issuer().to_string())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CertifiedIssuer, DnType, KeyPair};

    use rustls::pki_types::PrivateKeyDer;

    use super::*;
    use crate::host::finding::Grade;

    const NOW: i64 = 1_800_000_000;

    /// For these names, from so many days from now until so many.
    fn params(names: &[&str], days: (i64, i64)) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "leaf");
        let now = OffsetDateTime::from_unix_timestamp(NOW).unwrap();
        params.not_before = now + Duration::days(days.0);
        params.not_after = now + Duration::days(days.1);
        params
    }

    #[track_caller]
    fn check(chain: &[&rcgen::Certificate], key: &KeyPair, grade: Grade, words: &[&str]) {
        let chain = chain.iter().map(|cert| cert.der().clone()).collect();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let pair = Pair::new(chain, key, Source::File("cert.pem".into())).unwrap();
        let now = OffsetDateTime::from_unix_timestamp(NOW).unwrap();
        let finding = judge(&pair, false, now);
        assert_eq!(finding.grade, grade, "{finding}");
        let line = finding.to_string();
        assert!(words.iter().all(|word| line.contains(word)), "{line:?} lacks one of {words:?}");
    }

    #[test]
    fn dates_and_names() {
        let key = KeyPair::generate().unwrap();
        let issue = |names: &[&str], days| params(names, days).self_signed(&key).unwrap();
        let good = issue(&["a.example", "*.b.example", "192.0.2.1", "2001:db8::1"], (-1, 90));
        let names = ["for a.example *.b.example 192.0.2.1 2001:db8::1, "];
        check(&[&good], &key, Grade::Ok, &names);
        check(&[&issue(&["a.example"], (-90, 15))], &key, Grade::Ok, &[]);
        check(&[&issue(&["a.example"], (-90, 13))], &key, Grade::Warn, &["certbot"]);
        check(&[&issue(&["a.example"], (-90, -1))], &key, Grade::Fail, &["a.example", "renew"]);
        check(&[&issue(&["a.example"], (1, 90))], &key, Grade::Fail, &["timedatectl"]);
        check(&[&issue(&[], (-1, 90))], &key, Grade::Fail, &["subjectAltName"]);
    }

    #[test]
    fn chains() {
        let mut authority = params(&[], (-1, 900));
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "some authority");
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = params(&["a.example"], (-1, 90)).signed_by(&key, &authority).unwrap();
        check(&[&leaf], &key, Grade::Warn, &["some authority", "fullchain.pem"]);
        check(&[&leaf, authority.as_ref()], &key, Grade::Ok, &["a.example"]);
    }
}
