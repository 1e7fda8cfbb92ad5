//! The page for whoever opens the relay in a browser.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::{About, Site, hex};

/// Where a browser has come to that names none.
const HTTP_PORT: u16 = 80;

/// Names in double braces stand for text.
const TEMPLATE: &str = include_str!("page.html");

/// Nothing from elsewhere, and no requests but to here.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'";

pub async fn landing(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    respond(StatusCode::OK, &site, &headers)
}

/// For everything that is not here.
pub async fn lost(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    respond(StatusCode::NOT_FOUND, &site, &headers)
}

fn respond(status: StatusCode, site: &Site, headers: &HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let page = render(&site.about, host);
    (status, [(header::CONTENT_SECURITY_POLICY, POLICY)], Html(page)).into_response()
}

/// The page as it is for a browser that came by this host.
fn render(about: &About, host: Option<&str>) -> String {
    let fallback = about.addr.to_string();
    let host = host.filter(|host| is_host(host)).unwrap_or(&fallback);
    let sha256 = hex(&about.fingerprint);
    let root = about.open_at.as_deref().unwrap_or_default();
    let below = if root.is_empty() { String::new() } else { format!("{root}/") };
    let at = about.expires;
    let (date, hour, minute) = (at.date(), at.hour(), at.minute());
    let values = [
        ("VERSION", env!("CARGO_PKG_VERSION").to_owned()),
        ("HOST", host.to_owned()),
        ("ADDR", about.addr.to_string()),
        ("SHA256", sha256),
        ("EXPIRES", format!("{date} {hour:02}:{minute:02} UTC")),
        ("ACCESS", about.access.clone()),
        ("CONNECT", connect(host, about)),
        ("BELOW", below),
    ];
    fill(TEMPLATE, &values)
}

/// How to dial: by the host that the browser used. A client finds the hash of a certificate that
/// nobody vouches for by itself, where HTTP is at the port of the QUIC listener.
fn connect(host: &str, about: &About) -> String {
    let path = about.open_at.as_deref().unwrap_or("?jwt=TOKEN");
    let (name, port) = match host.rsplit_once(':') {
        // The colons of an IPv6 address are in brackets.
        Some((name, port)) if !port.contains(']') => (name, port.parse().unwrap_or(HTTP_PORT)),
        _ => (host, HTTP_PORT),
    };
    let quic = about.addr.port();
    let (scheme, trust) = match about.is_self_signed {
        true if port == quic => ("http", String::new()),
        true => {
            let sha256 = hex(&about.fingerprint);
            ("moqt", format!(" \\\n      --connect-tls-fingerprint {sha256}"))
        }
        false => ("https", String::new()),
    };
    format!("moq --connect '{scheme}://{name}:{quic}/{path}'{trust}")
}

/// Nothing that a shell would read as more than a word.
fn is_host(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    !text.is_empty() && text.bytes().all(is_plain)
}

fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut page = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").expect("the template closes what it opens");
        let value = values.iter().find(|(known, _)| *known == name);
        let (_, value) = value.expect("the template names what there is");
        page.push_str(before);
        push_escaped(value, &mut page);
        rest = after;
    }
    page.push_str(rest);
    page
}

fn push_escaped(text: &str, page: &mut String) {
    for c in text.chars() {
        match c {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            c => page.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::origin::Origins;

    fn about(open_at: Option<&str>) -> About {
        About {
            addr: "127.0.0.1:4443".parse().unwrap(),
            fingerprint: [0xab; 32],
            expires: OffsetDateTime::UNIX_EPOCH,
            is_self_signed: true,
            origins: Origins::All,
            access: "anyone may do as anybody <b>".to_owned(),
            open_at: open_at.map(str::to_owned),
        }
    }

    #[track_caller]
    fn check(page: &str, words: &[&str]) {
        assert!(!page.contains("{{") && !page.contains("}}"), "{page}");
        for word in words {
            assert!(page.contains(word), "{word:?} is not on the page");
        }
    }

    #[test]
    fn the_page_says_what_runs_here() {
        let sha256 = "ab".repeat(32);
        let page = render(&about(Some("")), Some("relay.example:8080"));
        let dial = "moq --connect &#39;moqt://relay.example:4443/&#39; \\";
        let trust = format!("--connect-tls-fingerprint {sha256}");
        let curl = "curl http://relay.example:8080/announced";
        check(&page, &[dial, &trust, curl, "1970-01-01 00:00 UTC", env!("CARGO_PKG_VERSION")]);

        let page = render(&about(Some("")), Some("localhost:4443"));
        check(&page, &["moq --connect &#39;http://localhost:4443/&#39; \\\n"]);
        assert!(!page.contains("fingerprint "));

        let verified = About { is_self_signed: false, ..about(Some("anon")) };
        let page = render(&verified, Some("[::1]"));
        check(
            &page,
            &["https://[::1]:4443/anon&#39;", "anybody &lt;b&gt;", "fetch/anon/demo.hang"],
        );
        assert!(!page.contains("fingerprint "));

        let closed = render(&about(None), Some("[::1]"));
        check(&closed, &["[::1]:4443/?jwt=TOKEN&#39;", "/fetch/demo.hang"]);
    }

    #[test]
    fn nobody_writes_on_the_page() {
        for host in ["<script>", "a'b", "a b", "$(id)", ""] {
            let page = render(&about(Some("<b>")), Some(host));
            check(&page, &["127.0.0.1:4443", "&lt;b&gt;"]);
            assert!(
                !page.contains("<b>") && (host.is_empty() || !page.contains(&format!("//{host}")))
            );
        }
    }
}
