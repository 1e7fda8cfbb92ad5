//! Text into values, one kind each. What is refused says what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use ipnet::IpNet;
use rustls::pki_types::ServerName;

use super::WebListen;
use crate::limits::SETTING_DURATION_MAX;
use crate::limits::SHARDS_MAX;
use crate::log::Format;
use crate::quic::CongestionControl;

/// What the command line says of HTTP.
#[derive(Debug, Clone, Copy)]
pub(super) enum Web {
    Off,
    On(WebListen),
}

pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "not an IP address with a port; write 127.0.0.1:4443, 0.0.0.0:4443 or [::]:4443".to_owned()
    })
}

pub(super) fn parse_web(text: &str) -> Result<Web, String> {
    match text {
        "off" => Ok(Web::Off),
        "same" => Ok(Web::On(WebListen::Same)),
        _ => text.parse().map(|address| Web::On(WebListen::At(address))).map_err(|_| {
            "not an IP address with a port; write 127.0.0.1:8080, [::]:8080, same or off".to_owned()
        }),
    }
}

/// The existing relay has true and false.
pub(super) fn parse_switch(text: &str) -> Result<bool, &'static str> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err("write on or off"),
    }
}

pub(super) fn parse_network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let address = text.parse::<IpAddr>().map(IpNet::from);
    let network = address.or_else(|_| text.parse::<IpNet>());
    network.map(|network| network.trunc()).map_err(|_| {
        "not an address or a network, without a port; write 10.0.7.1, 10.0.7.0/24 or 2001:db8::/64"
            .to_owned()
    })
}

pub(super) fn parse_host(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_owned())
        .map_err(|_| "not a host name or IP address; write relay.example.com".to_owned())
}

pub(super) fn parse_peer(text: &str) -> Result<String, &'static str> {
    match text {
        "" => Err("no name; write that of a relay, as it is in its certificate"),
        _ if text.contains('*') => Err(
            "a wildcard, and names of relays are exact: write each of them, as in relay-1.example,relay-2.example",
        ),
        name => Ok(name.to_owned()),
    }
}

pub(super) fn parse_fingerprint(text: &str) -> Result<[u8; 32], &'static str> {
    const WORDS: &str = "not a SHA-256 in hex, which has 64 digits";
    let digits: Vec<char> = text.trim().chars().filter(|digit| *digit != ':').collect();
    let nibbles: Option<Vec<u8>> =
        digits.iter().map(|digit| digit.to_digit(16).map(|nibble| nibble as u8)).collect();
    let nibbles = nibbles.filter(|nibbles| nibbles.len() == 64).ok_or(WORDS)?;
    let bytes: Vec<u8> = nibbles.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    bytes.try_into().map_err(|_| WORDS)
}

/// A name that an authority finds by itself.
pub(super) fn parse_domain(text: &str) -> Result<String, String> {
    match ServerName::try_from(text) {
        Ok(ServerName::DnsName(name)) if text.contains('.') => Ok(name.as_ref().to_lowercase()),
        _ => Err("not a full DNS name without wildcards; write relay.example.com".to_owned()),
    }
}

pub(super) fn parse_https(text: &str) -> Result<String, String> {
    let url = text.parse::<hyper::Uri>().ok();
    let url = url.filter(|url| url.scheme_str() == Some("https") && url.host().is_some());
    url.map(|_| text.to_owned())
        .ok_or_else(|| "not an https:// URL; write https://acme.example/directory".to_owned())
}

/// As a URL.
pub(super) fn parse_contact(text: &str) -> Result<String, String> {
    let address = text.trim().trim_start_matches("mailto:");
    let is_one = address.split('@').filter(|part| !part.is_empty()).count() == 2
        && !address.contains(|c: char| c.is_whitespace() || c.is_control());
    match is_one {
        true => Ok(format!("mailto:{address}")),
        false => Err("not a mail address; write ops@example.com".to_owned()),
    }
}

pub(super) fn parse_sessions(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("not a number from 1 to {}", u32::MAX))
}

pub(super) fn sessions(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("a default that lets somebody in")
}

pub(super) fn parse_shards(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .ok()
        .filter(|shards: &NonZeroUsize| shards.get() <= SHARDS_MAX)
        .ok_or_else(|| format!("not a number from 1 to {SHARDS_MAX}"))
}

pub(super) fn parse_duration(text: &str) -> Result<humantime::Duration, String> {
    let text = text.trim();
    let Ok(duration) = text.parse::<humantime::Duration>() else {
        return Err(match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => format!("a number without its unit; write {text}s or {text}ms"),
            false => "not a duration; write 500ms, 30s, 5m or 1h".to_owned(),
        });
    };
    if *duration > SETTING_DURATION_MAX {
        let most = humantime::format_duration(SETTING_DURATION_MAX);
        return Err(format!("longer than {most} (m is minutes, M is months)"));
    }
    Ok(duration)
}

pub(super) fn congestion_parser() -> impl TypedValueParser<Value = CongestionControl> {
    PossibleValuesParser::new(CongestionControl::ALL.map(CongestionControl::name)).map(|name| {
        let named = CongestionControl::ALL.into_iter().find(|control| control.name() == name);
        named.expect("one of the names")
    })
}

pub(super) fn format_parser() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new([Format::Text, Format::Json].map(Format::name)).map(|name| match name
        .as_str()
    {
        "json" => Format::Json,
        _ => Format::Text,
    })
}

pub(super) fn level_parser() -> impl TypedValueParser<Value = tracing::Level> {
    PossibleValuesParser::new(["error", "warn", "info", "debug", "trace"])
        .map(|name| name.parse().expect("the names are tracing's own"))
}
