//! Where connections come from, as far as an address can tell.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::limits::{SESSIONS_PER_SOURCE_DEFAULT, SESSIONS_PER_TOKEN_DEFAULT};

/// One address of IPv4, or a network of IPv6, of which one host may have every address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
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

/// How many sessions one client may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientBounds {
    pub per_source: u32,
    pub per_token: u32,
    /// Addresses that stand for many: of proxies. Those of loopback are never counted.
    pub exempt: Vec<IpNet>,
}

impl Default for ClientBounds {
    fn default() -> ClientBounds {
        ClientBounds {
            per_source: SESSIONS_PER_SOURCE_DEFAULT,
            per_token: SESSIONS_PER_TOKEN_DEFAULT,
            exempt: Vec::new(),
        }
    }
}

impl ClientBounds {
    /// As what somebody at an address is counted, if he is.
    pub fn source_at(&self, ip: IpAddr) -> Option<Source> {
        let ip = ip.to_canonical();
        let is_exempt = ip.is_loopback() || self.exempt.iter().any(|net| net.contains(&ip));
        (!is_exempt).then(|| Source::of(ip))
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

    #[test]
    fn loopback_and_named_networks_are_not_counted() {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let exempt = ["10.0.7.0/24", "2001:db8::/48"].map(|net| net.parse().unwrap()).to_vec();
        let bounds = ClientBounds { exempt, ..ClientBounds::default() };
        for exempt in
            ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "10.0.7.9", "::ffff:10.0.7.9"]
        {
            assert_eq!(bounds.source_at(ip(exempt)), None, "{exempt}");
        }
        assert_eq!(bounds.source_at(ip("2001:db8:0:9::1")), None);
        for counted in ["10.0.8.1", "128.0.0.1", "2001:db8:1::1", "::2"] {
            assert_eq!(bounds.source_at(ip(counted)), Some(Source::of(ip(counted))));
        }
    }
}
