//! Which sessions are meant, as the query of a request says it: each field that it names has to fit.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use moq_pattern::Pattern;

use super::row::Row;
use crate::wire::Role;

/// Digits of the name of a session.
const ID_DIGITS: usize = 32;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FilterError {
    #[error("unknown filter field: {0}")]
    Unknown(String),
    #[error("invalid {field}: {value}")]
    Invalid { field: &'static str, value: String },
}

#[derive(Debug)]
enum Condition {
    Id(String),
    Transport(String),
    Remote(IpNet),
    /// With its port, or not.
    LocalSocket(SocketAddr),
    Local(IpNet),
    ServerName(String),
    Alpn(String),
    Path(Pattern),
    Role(Role),
    TlsName(String),
    TlsFingerprint(String),
    TlsIssuer(String),
    /// What sessions of this relay do not have: a name of its node.
    Nothing,
}

/// All of these.
#[derive(Debug)]
pub struct Filter(Vec<Condition>);

impl Filter {
    pub fn parse(query: Option<&str>) -> Result<Filter, FilterError> {
        let fields = form_urlencoded::parse(query.unwrap_or("").as_bytes());
        fields.map(|(field, value)| condition(&field, &value)).collect::<Result<_, _>>().map(Filter)
    }

    /// Whether it names no field at all, and so everybody is meant.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn fits(&self, row: &Row) -> bool {
        self.0.iter().all(|condition| match condition {
            Condition::Id(id) => row.id == *id,
            Condition::Transport(name) => row.carrier() == name || row.transport == name,
            Condition::Remote(network) => network.contains(&row.remote.ip().to_canonical()),
            Condition::LocalSocket(address) => {
                row.local.is_some_and(|local| folded(local) == folded(*address))
            }
            Condition::Local(network) => {
                row.local.is_some_and(|local| network.contains(&local.ip().to_canonical()))
            }
            Condition::ServerName(name) => row.server_name.as_ref() == Some(name),
            Condition::Alpn(name) => row.alpn == name,
            Condition::Path(pattern) => pattern.matches(row.path.as_str()),
            Condition::Role(role) => row.is_role(*role),
            Condition::TlsName(name) => row.tls.as_ref().is_some_and(|tls| tls.is_named(name)),
            Condition::TlsFingerprint(hash) => {
                row.tls.as_ref().is_some_and(|tls| tls.fingerprint == *hash)
            }
            Condition::TlsIssuer(name) => row.tls.as_ref().is_some_and(|tls| tls.issuer == *name),
            Condition::Nothing => false,
        })
    }
}

fn condition(field: &str, value: &str) -> Result<Condition, FilterError> {
    let invalid = |field| FilterError::Invalid { field, value: value.to_owned() };
    match field {
        "id" => {
            let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            match value.len() == ID_DIGITS && value.bytes().all(is_digit) {
                true => Ok(Condition::Id(value.to_owned())),
                false => Err(invalid("id")),
            }
        }
        "transport" => Ok(Condition::Transport(value.to_owned())),
        "remote" => network(value).map(Condition::Remote).ok_or_else(|| invalid("remote")),
        "local" => match value.parse() {
            Ok(address) => Ok(Condition::LocalSocket(address)),
            Err(_) => network(value).map(Condition::Local).ok_or_else(|| invalid("local")),
        },
        "server_name" => Ok(Condition::ServerName(value.to_owned())),
        "alpn" => Ok(Condition::Alpn(value.to_owned())),
        "path" => value.parse().map(Condition::Path).map_err(|_| invalid("path")),
        "role" => match value {
            "publisher" => Ok(Condition::Role(Role::Publisher)),
            "subscriber" => Ok(Condition::Role(Role::Subscriber)),
            _ => Err(invalid("role")),
        },
        "tls.name" => Ok(Condition::TlsName(value.to_owned())),
        "tls.fingerprint" => Ok(Condition::TlsFingerprint(value.to_ascii_lowercase())),
        "tls.issuer" => Ok(Condition::TlsIssuer(value.to_owned())),
        "node" => Ok(Condition::Nothing),
        _ => Err(FilterError::Unknown(field.to_owned())),
    }
}

/// An address is a network of its own. An IPv4 address that is written as IPv6 is one.
fn network(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical().into());
    }
    let network: IpNet = text.parse().ok()?;
    const MAPPED_BITS: u8 = 96;
    let folded = match network.addr().to_canonical() {
        address @ IpAddr::V4(_) if network.addr().is_ipv6() => {
            IpNet::new(address, network.prefix_len().checked_sub(MAPPED_BITS)?).ok()?
        }
        _ => network,
    };
    Some(folded.trunc())
}

fn folded(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::access::Certificate;
    use crate::wire::Path;

    const ID: &str = "0123456789abcdef0000000100000002";

    fn row() -> Row {
        let tls = Certificate {
            name: "edge0.example".to_owned(),
            fingerprint: "0a".repeat(32),
            expires: 9,
            issuer: "CN=cluster".to_owned(),
        };
        Row {
            shard: 0,
            slot: 1,
            generation: 2,
            id: ID.to_owned(),
            transport: "quic",
            is_secure: true,
            alpn: "moq-lite-06",
            remote: "[::ffff:10.0.7.1]:999".parse().unwrap(),
            local: Some("[::ffff:10.0.0.1]:4443".parse().unwrap()),
            server_name: Some("relay.example".to_owned()),
            tls: Some(tls),
            path: Path::parse("rooms/12").unwrap(),
            role: Role::Publisher,
            started: Duration::from_secs(5),
        }
    }

    #[test]
    fn each_field_has_to_fit() {
        let (long, hash) = (format!("id={ID}"), format!("tls.fingerprint={}", "0A".repeat(32)));
        for query in [
            "",
            &long,
            &hash,
            "tls.name=Edge0.example&tls.issuer=CN%3Dcluster",
            "transport=quic",
            "remote=10.0.7.1",
            "remote=10.0.7.9/24",
            "remote=::ffff:10.0.7.1",
            "remote=::ffff:10.0.7.0/120",
            "local=10.0.0.1:4443",
            "local=10.0.0.0/8",
            "server_name=relay.example",
            "alpn=moq-lite-06",
            "path=rooms/*",
            "path=rooms%2F12&role=publisher",
            "role=publisher",
        ] {
            assert!(Filter::parse(Some(query)).unwrap().fits(&row()), "{query}");
        }
        let long = format!("id={}", ID.replace('2', "3"));
        for query in [
            &long,
            "transport=webtransport",
            "transport=websocket",
            "remote=10.0.7.2",
            "remote=2001:db8::/32",
            "local=10.0.0.1:4444",
            "server_name=",
            "alpn=h3",
            "path=rooms",
            "role=subscriber",
            "role=publisher&transport=unix",
            "node=a",
            "tls.name=a",
            "tls.fingerprint=a",
            "tls.issuer=a",
        ] {
            assert!(!Filter::parse(Some(query)).unwrap().fits(&row()), "{query}");
        }
    }

    #[test]
    fn what_is_no_filter_is_said() {
        for (query, words) in [
            ("paht=a", "unknown filter field: paht"),
            ("token=a", "unknown filter field: token"),
            ("transport=quic&query=jwt", "unknown filter field: query"),
            ("id=12", "invalid id: 12"),
            ("remote=relay", "invalid remote: relay"),
            ("remote=::ffff:10.0.7.0/64", "invalid remote: ::ffff:10.0.7.0/64"),
            ("local=:1", "invalid local: :1"),
            ("path=a/b**", "invalid path: a/b**"),
            ("role=both", "invalid role: both"),
        ] {
            assert_eq!(Filter::parse(Some(query)).unwrap_err().to_string(), words);
        }
    }
}
