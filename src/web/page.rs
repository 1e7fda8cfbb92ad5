//! The page for whoever opens the relay in a browser.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::uri::Scheme;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::{About, Site};
use crate::config::{EXAMPLE, Example};
use crate::text::hex;

/// Where a browser has come to that names none.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// Names in double braces stand for text.
const TEMPLATE: &str = include_str!("page.html");

/// Nothing from elsewhere but the icon that is none, and no requests but to here.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'";

pub async fn landing(
    State(site): State<Arc<Site>>,
    Extension(scheme): Extension<Scheme>,
    headers: HeaderMap,
) -> Response {
    respond(StatusCode::OK, &site, &scheme, &headers)
}

/// For everything that is not here.
pub async fn lost(
    State(site): State<Arc<Site>>,
    Extension(scheme): Extension<Scheme>,
    headers: HeaderMap,
) -> Response {
    respond(StatusCode::NOT_FOUND, &site, &scheme, &headers)
}

fn respond(status: StatusCode, site: &Site, scheme: &Scheme, headers: &HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let page = render(&site.about, scheme, host);
    (status, [(header::CONTENT_SECURITY_POLICY, POLICY)], Html(page)).into_response()
}

/// The page as it is for a browser that came by this scheme and this host.
fn render(about: &About, scheme: &Scheme, host: Option<&str>) -> String {
    let fallback = about.addr.to_string();
    let host = host.filter(|host| is_host(host)).unwrap_or(&fallback);
    let sha256 = hex(&about.certificates.fingerprint());
    let Example { root, .. } = &about.example;
    let below = if root.is_empty() { String::new() } else { format!("{root}/") };
    let at = about.certificates.expires();
    let (date, hour, minute) = (at.date(), at.hour(), at.minute());
    let values = [
        ("LIVE", about.is_for_development().to_string()),
        ("VERSION", env!("CARGO_PKG_VERSION").to_owned()),
        ("HOST", host.to_owned()),
        ("BASE", format!("{scheme}://{host}")),
        ("ADDR", about.addr.to_string()),
        ("SHA256", sha256),
        ("EXPIRES", format!("{date} {hour:02}:{minute:02} UTC")),
        ("ACCESS", about.access.clone()),
        ("PUBLISH", connect(scheme, host, about, &about.example.publish())),
        ("WATCH", connect(scheme, host, about, &about.example.watch())),
        ("EXAMPLE", EXAMPLE.to_owned()),
        ("BELOW", below),
        ("QUERY", about.example.query().to_owned()),
    ];
    fill(TEMPLATE, &values)
}

/// How to dial: by the host that the browser used. A client finds the hash of a certificate that
/// nobody vouches for by itself, where HTTP is at the port of the QUIC listener.
fn connect(by: &Scheme, host: &str, about: &About, path: &str) -> String {
    let (name, port) = match host.rsplit_once(':') {
        // The colons of an IPv6 address are in brackets.
        Some((name, port)) if !port.contains(']') => (name, port.parse().ok()),
        _ => (host, None),
    };
    let is_plain = *by == Scheme::HTTP;
    let port = port.unwrap_or(if is_plain { HTTP_PORT } else { HTTPS_PORT });
    let quic = about.addr.port();
    let (scheme, trust) = match about.certificates.is_self_signed() {
        true if is_plain && port == quic => ("http", String::new()),
        true => {
            let sha256 = hex(&about.certificates.fingerprint());
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
    use crate::config::{IdentitySource, PublicRules};
    use crate::origin::Origins;
    use crate::tls::{Certificates, Identity, Pair, Source};

    fn certificates(source: Source) -> Arc<Certificates> {
        let made = IdentitySource::Generated { hosts: Vec::new() };
        let pair = Identity::load(&made, &[], &[]).unwrap().certificates.now()[0].clone();
        let not_after = OffsetDateTime::UNIX_EPOCH;
        let pair = Pair { source, fingerprint: [0xab; 32], not_after, ..pair };
        Arc::new(Certificates::new(vec![pair]))
    }

    fn about(rules: &[&str]) -> About {
        let both = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        about_rules(PublicRules { both, ..PublicRules::default() })
    }

    fn about_rules(rules: PublicRules) -> About {
        About {
            unread_bytes: 0,
            addr: "127.0.0.1:4443".parse().unwrap(),
            certificates: certificates(Source::Generated),
            origins: Origins::All,
            has_websockets: true,
            access: "anyone may do as anybody <b>".to_owned(),
            example: rules.example(),
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
        let page = render(&about(&["**"]), &Scheme::HTTP, Some("relay.example:8080"));
        let dial = "moq --connect &#39;moqt://relay.example:4443/&#39; \\";
        let trust = format!("--connect-tls-fingerprint {sha256}");
        let curl = "curl 'http://relay.example:8080/announced'";
        check(&page, &[dial, &trust, curl, "1970-01-01 00:00 UTC", env!("CARGO_PKG_VERSION")]);

        let page = render(&about(&["**"]), &Scheme::HTTP, Some("localhost:4443"));
        check(&page, &["moq --connect &#39;http://localhost:4443/&#39; \\\n"]);
        assert!(!page.contains("fingerprint "));

        let page = render(&about(&["**"]), &Scheme::HTTPS, Some("localhost:4443"));
        let curl = "curl 'https://localhost:4443/announced'";
        check(&page, &["moqt://localhost:4443/", &trust, curl]);
        let page = render(&about(&["**"]), &Scheme::HTTPS, Some("relay.example"));
        check(&page, &["moqt://relay.example:4443/", "curl https://relay.example/health"]);

        let of_somebody = certificates(Source::File("cert.pem".into()));
        let verified = About { certificates: of_somebody, ..about(&["anon/**"]) };
        let page = render(&verified, &Scheme::HTTP, Some("[::1]"));
        check(
            &page,
            &["https://[::1]:4443/anon&#39;", "anybody &lt;b&gt;", "fetch/anon/demo.hang"],
        );
        assert!(!page.contains("fingerprint "));
    }

    /// How often the page asks for a token, and where it publishes, watches and looks.
    #[test]
    fn tokens_are_asked_for_where_they_are_needed() {
        let rule = |text: &str| vec![text.parse().unwrap()];
        let closed = PublicRules::default();
        let watch = |text: &str| PublicRules { subscribe: rule(text), ..PublicRules::default() };
        let publish = |text: &str| PublicRules { publish: rule(text), ..PublicRules::default() };
        let both = |text: &str| PublicRules { both: rule(text), ..PublicRules::default() };
        let table = [
            (closed, "?jwt=TOKEN", "?jwt=TOKEN", "demo.hang/catalog.json?jwt=TOKEN"),
            (both("**"), "", "", "demo.hang/catalog.json"),
            (both("anon/**"), "anon", "anon", "anon/demo.hang/catalog.json"),
            (watch("**"), "?jwt=TOKEN", "", "demo.hang/catalog.json"),
            (watch("live/**"), "live?jwt=TOKEN", "live", "live/demo.hang/catalog.json"),
            (publish("in/**"), "in", "in?jwt=TOKEN", "in/demo.hang/catalog.json?jwt=TOKEN"),
            // Nothing that an example would be.
            (both("rooms/*/chat"), "?jwt=TOKEN", "?jwt=TOKEN", "demo.hang/catalog.json?jwt=TOKEN"),
            // What is open to both is the better one.
            (
                PublicRules { subscribe: rule("**"), ..both("a/**") },
                "a",
                "a",
                "a/demo.hang/catalog.json",
            ),
        ];
        for (rules, publish, watch, fetch) in table {
            let page = render(&about_rules(rules.clone()), &Scheme::HTTP, Some("localhost:4443"));
            let dial = |path: &str, way: &str| {
                format!("http://localhost:4443/{path}&#39; \\\n      --broadcast demo.hang {way}")
            };
            let fetch = format!("curl 'http://localhost:4443/fetch/{fetch}'");
            check(&page, &[&dial(publish, "import"), &dial(watch, "export"), &fetch]);
            let asks = page.contains("/announced?jwt=TOKEN'");
            assert_eq!(asks, watch.contains("TOKEN"), "{rules:?}");
        }
    }

    #[test]
    fn nobody_writes_on_the_page() {
        let evil = About {
            example: Example { root: "<b>".to_owned(), ..Example::default() },
            ..about(&[])
        };
        for host in ["<script>", "a'b", "a b", "$(id)", ""] {
            let page = render(&evil, &Scheme::HTTP, Some(host));
            check(&page, &["127.0.0.1:4443", "&lt;b&gt;"]);
            assert!(
                !page.contains("<b>") && (host.is_empty() || !page.contains(&format!("//{host}")))
            );
        }
    }
}
