//! Where the auth server is.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use hyper::header::HeaderValue;

use crate::access::shown;

/// `https://…`, `http://…` on this machine, or `unix:///path`.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthUrl {
    pub place: AuthPlace,
    shown: String,
}

#[derive(Clone, PartialEq, Eq)]
pub enum AuthPlace {
    Web {
        uri: Uri,
        /// Of a name and a password in the URL.
        authorization: Option<HeaderValue>,
    },
    Unix(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error(
        "not a URL; write https://auth.example/, unix:///run/auth.sock or http://127.0.0.1:4440"
    )]
    Malformed,
    #[error(
        "tokens would cross the network for all to read; write https://, or http:// on this machine alone"
    )]
    Insecure,
}

impl FromStr for AuthUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<AuthUrl, UrlError> {
        let shown = shown(text);
        if let Some(path) = text.strip_prefix("unix://") {
            let place = AuthPlace::Unix(path.into());
            let is_path = path.starts_with('/') && path.len() > 1;
            return if is_path { Ok(AuthUrl { place, shown }) } else { Err(UrlError::Malformed) };
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed)?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(UrlError::Malformed)?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_this_machine(host) => {}
            Some("http") => return Err(UrlError::Insecure),
            _ => return Err(UrlError::Malformed),
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        if !is_host_and_port(host, place) {
            return Err(UrlError::Malformed);
        }
        let authorization = user.map(|user| {
            let text = format!("Basic {}", STANDARD.encode(user));
            let mut value = HeaderValue::from_str(&text).expect("base64 is a header's value");
            value.set_sensitive(true);
            value
        });
        Ok(AuthUrl { place: AuthPlace::Web { uri, authorization }, shown })
    }
}

/// Whether nothing stands behind a host but a port that there is: the library takes more.
fn is_host_and_port(host: &str, text: &str) -> bool {
    let is_host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        None => true,
        Some(address) => address.is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()),
    };
    let is_port = match text.strip_prefix(host) {
        None => false,
        Some("") => true,
        Some(rest) => {
            let port = rest.strip_prefix(':').map(str::parse::<u16>);
            port.is_some_and(|port| port.is_ok_and(|port| port > 0))
        }
    };
    is_host && is_port
}

fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

impl AuthUrl {
    pub fn is_https(&self) -> bool {
        matches!(&self.place, AuthPlace::Web { uri, .. } if uri.scheme_str() == Some("https"))
    }
}

/// Without what is secret in it.
impl fmt::Display for AuthUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.shown)
    }
}

impl fmt::Debug for AuthUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AuthUrl").field(&self.shown).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_keep_secrets_are_taken() {
        for (text, expect) in [
            ("https://auth.example/moq?key=x", Ok("https://auth.example/moq")),
            ("https://me:secret@auth.example:8443", Ok("https://auth.example:8443")),
            ("http://127.0.0.1:4440", Ok("http://127.0.0.1:4440")),
            ("http://[::1]:4440/x", Ok("http://[::1]:4440/x")),
            ("http://localhost/", Ok("http://localhost/")),
            ("unix:///run/auth.sock", Ok("unix:///run/auth.sock")),
            ("http://auth.example", Err(UrlError::Insecure)),
            ("http://localhost@auth.example", Err(UrlError::Insecure)),
            ("http://10.0.0.1:1", Err(UrlError::Insecure)),
            ("http://localhost.example", Err(UrlError::Insecure)),
            ("http://[::1]evil/", Err(UrlError::Malformed)),
            ("http://[::1]evil:80/", Err(UrlError::Malformed)),
            ("https://[auth.example]/", Err(UrlError::Malformed)),
            ("https://auth.example:99999/", Err(UrlError::Malformed)),
            ("https://auth.example:0/", Err(UrlError::Malformed)),
            ("https://auth.example:/", Err(UrlError::Malformed)),
            ("ftp://localhost", Err(UrlError::Malformed)),
            ("unix://run/auth.sock", Err(UrlError::Malformed)),
            ("unix:///", Err(UrlError::Malformed)),
            ("auth.example", Err(UrlError::Malformed)),
            ("/x", Err(UrlError::Malformed)),
            ("https://", Err(UrlError::Malformed)),
            ("", Err(UrlError::Malformed)),
        ] {
            let got = text.parse::<AuthUrl>().map(|url| url.to_string());
            assert_eq!(got, expect.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn a_password_becomes_a_header_and_is_not_shown() {
        let url: AuthUrl = "https://me:secret@auth.example/".parse().unwrap();
        let AuthPlace::Web { authorization: Some(header), .. } = &url.place else {
            panic!("{url:?}")
        };
        assert_eq!(header, "Basic bWU6c2VjcmV0");
        assert!(!format!("{url:?} {url}").contains("secret"));
    }
}
