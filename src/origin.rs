//! Which pages of the web may use the relay. A browser says where a page comes from (`Origin`, RFC
//! 6454); other clients say nothing and are asked nothing.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// What is asked of the pages of browsers.
#[derive(Debug, Clone, PartialEq)]
pub enum Origins {
    All,
    Some {
        patterns: Vec<OriginPattern>,
        /// Also those that this machine serves.
        local: bool,
    },
}

/// One or many origins: `https://app.example`, `https://*.example`, `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginPattern(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an origin; write https://app.example, https://app.example:8443, https://*.example or *"
)]
pub struct NotAnOrigin;

impl Origins {
    /// Whether a client may use the relay that says this of its origin, or nothing.
    pub fn permit(&self, origin: Option<&str>) -> bool {
        let (Origins::Some { patterns, local }, Some(origin)) = (self, origin) else { return true };
        let origin = origin.to_ascii_lowercase();
        *local && is_local(&origin) || patterns.iter().any(|pattern| pattern.matches(&origin))
    }
}

impl Origins {
    /// Whether a client may ask for this host. A name of somebody else's may have been made to lead here, and
    /// then the browser takes the answer for its page's own: it states no origin.
    pub fn permit_host(&self, host: Option<&str>) -> bool {
        let (Origins::Some { local: true, .. }, Some(host)) = (self, host) else { return true };
        let host = host.to_ascii_lowercase();
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map_or("", |(name, _)| name),
            None => host.split_once(':').map_or(host.as_str(), |(name, _)| name),
        };
        // Nobody makes an address lead elsewhere, nor a name of one word.
        name.parse::<IpAddr>().is_ok()
            || (!name.is_empty() && !name.contains('.'))
            || ["http", "https"]
                .iter()
                .any(|scheme| self.permit(Some(&format!("{scheme}://{host}"))))
    }
}

impl OriginPattern {
    /// `origin` is in lower case.
    fn matches(&self, origin: &str) -> bool {
        match self.0.split_once('*') {
            None => self.0 == origin,
            Some((before, after)) => {
                let rest = origin.strip_prefix(before);
                rest.and_then(|rest| rest.strip_suffix(after)).is_some_and(|name| !name.is_empty())
            }
        }
    }
}

impl FromStr for OriginPattern {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        let text = text.trim().trim_end_matches('/').to_ascii_lowercase();
        // What a page says that comes from a file, and many others that would rather not say.
        if text == "*" || text == "null" {
            return Ok(Self(text));
        }
        let (scheme, authority) = text.split_once("://").ok_or(NotAnOrigin)?;
        let host = authority.strip_prefix("*.").unwrap_or(authority);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        let is_origin = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !scheme.is_empty()
            && !host.is_empty()
            && host.bytes().all(is_plain);
        is_origin.then_some(Self(text)).ok_or(NotAnOrigin)
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether this machine has served a page of this origin.
fn is_local(origin: &str) -> bool {
    let Some((_, authority)) = origin.split_once("://") else { return false };
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(host, _)| host),
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    let is_name = host == "localhost" || host.ends_with(".localhost");
    is_name || host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_of_this_machine_is_asked_by_its_names() {
        let patterns = vec!["https://app.example".parse().unwrap()];
        let origins = Origins::Some { patterns, local: true };
        for host in
            ["localhost:4443", "127.0.0.1", "[::1]:80", "10.1.2.3:80", "relay", "app.example"]
        {
            assert!(origins.permit_host(Some(host)), "{host}");
        }
        assert!(origins.permit_host(None));
        for host in ["evil.example:4443", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
            assert!(!origins.permit_host(Some(host)), "{host}");
        }
        assert!(Origins::All.permit_host(Some("evil.example")));
    }

    #[track_caller]
    fn check(patterns: &[&str], local: bool, permitted: &[&str], refused: &[&str]) {
        let patterns = patterns.iter().map(|text| text.parse().unwrap()).collect();
        let origins = Origins::Some { patterns, local };
        assert!(origins.permit(None));
        for origin in permitted {
            assert!(origins.permit(Some(origin)), "{origin}");
        }
        for origin in refused {
            assert!(!origins.permit(Some(origin)), "{origin}");
        }
    }

    const LOCAL: [&str; 6] = [
        "http://localhost",
        "http://LocalHost:3000",
        "https://app.localhost:8443",
        "http://127.0.0.1:8080",
        "http://127.1.2.3",
        "http://[::1]:5173",
    ];

    const FOREIGN: [&str; 9] = [
        "https://example.com",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://notlocalhost",
        "http://10.0.0.1",
        "http://[2001:db8::1]",
        "null",
        "",
        "localhost",
    ];

    #[test]
    fn pages_of_this_machine() {
        check(&[], true, &LOCAL, &FOREIGN);
        check(&[], false, &[], &LOCAL);
        assert!(Origins::All.permit(Some("null")) && Origins::All.permit(None));
    }

    #[test]
    fn pages_that_are_named() {
        check(&["*"], false, &FOREIGN[..6], &[]);
        check(&["null"], false, &["null"], &FOREIGN[..6]);
        let both = ["https://app.example/", "https://*.Example:8443"];
        check(
            &both,
            false,
            &["https://app.example", "https://a.example:8443", "https://a.b.example:8443"],
            &[
                "http://app.example",
                "https://app.example:1",
                "https://example:8443",
                "https://.example:8443x",
                "https://aexample:8443",
            ],
        );
    }

    #[test]
    fn what_is_no_origin() {
        for text in
            ["", "app.example", "https://", "https://*.", "https://a/b", "https://a b", "//a"]
        {
            assert_eq!(text.parse::<OriginPattern>(), Err(NotAnOrigin), "{text:?}");
        }
        for text in ["https://*.*.example", "https://a*.example"] {
            assert_eq!(text.parse::<OriginPattern>(), Err(NotAnOrigin), "{text:?}");
        }
    }
}
