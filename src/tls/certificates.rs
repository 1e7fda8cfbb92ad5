//! The certificates in use: one set for all shards and for HTTPS, and another one as soon as there is one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use super::pair::{Pair, Source};

/// Whoever begins a handshake is shown what is here then; who has one keeps what it was shown.
#[derive(Debug)]
pub struct Certificates {
    /// In the operator's order, one at least.
    pairs: ArcSwap<Vec<Pair>>,
}

impl Certificates {
    /// Of one pair at least.
    pub fn new(pairs: Vec<Pair>) -> Certificates {
        Certificates { pairs: ArcSwap::from_pointee(pairs) }
    }

    /// All at once, for every shard.
    pub fn replace(&self, pairs: Vec<Pair>) {
        self.pairs.store(Arc::new(pairs));
    }

    pub fn now(&self) -> Arc<Vec<Pair>> {
        self.pairs.load_full()
    }

    /// Of the first one, which who names no other is shown: its SHA-256.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.pairs.load()[0].fingerprint
    }

    /// Of the one that is shown to who names a host.
    pub fn fingerprint_for(&self, name: &str) -> [u8; 32] {
        choose(&self.pairs.load(), Some(name)).fingerprint
    }

    pub fn expires(&self) -> OffsetDateTime {
        self.pairs.load()[0].not_after
    }

    /// Nobody vouches for it: clients pin it.
    pub fn is_self_signed(&self) -> bool {
        self.pairs.load()[0].source == Source::Generated
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(choose(&self.pairs.load(), hello.server_name()).key.clone())
    }
}

/// The first that is for the name that the client dials, else the first.
fn choose<'a>(pairs: &'a [Pair], name: Option<&str>) -> &'a Pair {
    let name = match pairs {
        // Of one there is no choice.
        [_] => None,
        _ => name.and_then(|name| ServerName::try_from(name).ok()),
    };
    let named = name.and_then(|name| pairs.iter().find(|pair| pair.covers(&name)));
    named.unwrap_or(&pairs[0])
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    fn pair(names: &[&str]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let cert = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Pair::new(vec![cert.der().clone()], key, Source::Generated).unwrap()
    }

    #[test]
    fn the_first_that_is_for_the_name() {
        let pairs = [
            pair(&["a.example", "*.rooms.example"]),
            pair(&["b.example", "a.example"]),
            pair(&["10.0.0.1"]),
            pair(&["*.other.test"]),
        ];
        let table = [
            (Some("a.example"), 0),
            (Some("A.Example"), 0),
            (Some("b.example"), 1),
            (Some("one.rooms.example"), 0),
            (Some("x.one.rooms.example"), 0),
            (Some("c.other.test"), 3),
            (Some("elsewhere.test"), 0),
            (Some("a_b/c"), 0),
            (None, 0),
        ];
        for (name, expect) in table {
            let chosen = choose(&pairs, name);
            assert_eq!(chosen.fingerprint, pairs[expect].fingerprint, "{name:?}");
        }
        assert_eq!(choose(&pairs[3..], Some("other.test")).names, ["*.other.test"]);
    }

    #[test]
    fn all_are_replaced_at_once() {
        let (old, new) = ([pair(&["a.example"])], [pair(&["b.example"]), pair(&["a.example"])]);
        let first = new[0].fingerprint;
        let certificates = Certificates::new(old.into());
        let before = certificates.now();
        certificates.replace(new.into());
        assert_eq!((before.len(), certificates.now().len()), (1, 2));
        assert_eq!(certificates.fingerprint(), first);
    }
}
