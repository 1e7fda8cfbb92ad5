//! Where connections come from, as far as an address can tell.

use std::net::IpAddr;

/// One address of IPv4, or a network of IPv6, of which one host may have every address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    V4(u32),
    V6(u64),
}

impl Source {
    pub fn of(ip: IpAddr) -> Source {
        match ip.to_canonical() {
            IpAddr::V4(address) => Source::V4(address.to_bits()),
            IpAddr::V6(address) => Source::V6((address.to_bits() >> 64) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_are_one_source() {
        let at = |ip: &str| Source::of(ip.parse().unwrap());
        let is_one = |a, b| at(a) == at(b);
        assert!(is_one("10.0.0.1", "::ffff:10.0.0.1"));
        assert!(is_one("2001:db8::1", "2001:db8::ffff:0:0:2"));
        assert!(!is_one("2001:db8::1", "2001:db8:0:1::1"));
        assert!(!is_one("10.0.0.1", "10.0.0.2"));
        assert!(!is_one("::ffff:10.0.0.1", "::ffff:10.0.0.2"));
    }
}
