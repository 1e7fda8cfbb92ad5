//! Numbers that nobody can guess who does not run this relay, and that are the same for the same things.

use aws_lc_rs::hmac;

use crate::source::Source;

/// What a number stands for: two of different kinds are never the same.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// The address of a peer.
    Address,
    /// What a peer publishes itself.
    Own,
    /// What a peer passes on.
    PassedOn,
}

#[derive(Clone, Debug)]
pub struct Secret(hmac::Key);

impl Secret {
    pub fn new(bytes: &[u8; 32]) -> Secret {
        Secret(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// For where a peer is.
    pub fn of_source(&self, source: Source) -> u64 {
        match source {
            Source::V4(address) => self.number(Kind::Address, &address.to_be_bytes()),
            Source::V6(network) => self.number(Kind::Address, &network.to_be_bytes()),
        }
    }

    /// For a hop that a peer at an address names.
    pub fn of_hop(&self, kind: Kind, at: u64, hop: u64) -> u64 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&at.to_be_bytes());
        bytes[8..].copy_from_slice(&hop.to_be_bytes());
        self.number(kind, &bytes)
    }

    /// Not zero, and small enough for peers that count in 53 bits.
    fn number(&self, kind: Kind, of: &[u8]) -> u64 {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&[kind as u8]);
        context.update(of);
        let tag = context.sign();
        let first = tag.as_ref()[..8].try_into().expect("a tag is longer than its prefix");
        (u64::from_be_bytes(first) >> 11).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_of_what_they_are_of() {
        let secret = Secret::new(&[1; 32]);
        let at = |text: &str| Source::of(text.parse().unwrap());
        let of = |text: &str| secret.of_source(at(text));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::2:0:0:7"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), Secret::new(&[2; 32]).of_source(at("192.0.2.1")));
        let hops = [
            secret.of_hop(Kind::Own, 1, 7),
            secret.of_hop(Kind::PassedOn, 1, 7),
            secret.of_hop(Kind::Own, 2, 7),
            secret.of_hop(Kind::Own, 1, 8),
        ];
        for (at, hop) in hops.iter().enumerate() {
            assert!(*hop < 1 << 53 && !hops[..at].contains(hop));
        }
    }
}
