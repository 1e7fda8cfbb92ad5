//! What arguments and variables become, and how they are refused.

use std::ffi::OsString;
use std::time::Duration;

use clap::CommandFactory;
use ipnet::IpNet;
use rustls::pki_types::ServerName;

use super::arguments::Args;
use super::checks::join;
use super::*;

/// `expect` is a summary of the configuration, or words of the refusal.
#[track_caller]
fn check(args: &str, expect: Result<&str, &[&str]>) {
    check_with(args, &[], expect);
}

#[track_caller]
fn check_with(args: &str, environment: &[&str], expect: Result<&str, &[&str]>) {
    let args = ["shardcast"].into_iter().chain(args.split_whitespace());
    let got = Config::parse(args.map(OsString::from), environment.iter().map(OsString::from));
    match (got, expect) {
        (Ok(Request::Run(config)), Ok(summary)) => assert_eq!(summarise(&config), summary),
        (Ok(Request::Show(text)), Ok(words)) => {
            let text = text.to_string();
            assert!(text.contains(words), "{text:?} lacks {words:?}");
        }
        (Err(error), Err(words)) => {
            let line = error.to_string();
            assert!(!line.contains('\n'), "more than one line: {line:?}");
            for word in words {
                assert!(line.contains(word), "{line:?} lacks {word:?}");
            }
        }
        (got, expect) => panic!("got {got:?}, expected {expect:?}"),
    }
}

fn summarise(config: &Config) -> String {
    let identity = match &config.identity {
        IdentitySource::Files(pairs) => {
            join(pairs.iter().map(|pair| format!("{}+{}", pair.cert.display(), pair.key.display())))
        }
        IdentitySource::Generated { hosts } => join(hosts.iter().map(ServerName::to_str)),
        IdentitySource::Acme(acme) => format!("acme:{}", join(&acme.domains)),
    };
    let shards = config.shards.map_or("auto".into(), |n| n.to_string());
    let AccessConfig { public, .. } = &config.access;
    let rules = [("", &public.both), ("sub:", &public.subscribe), ("pub:", &public.publish)];
    let rules = rules.iter().filter(|(_, patterns)| !patterns.is_empty());
    let rules = rules.map(|(kind, patterns)| format!("{kind}{}", join(*patterns)));
    let keys = config.access.key_places().into_iter();
    let server = config.access.server.iter().map(|url| format!("asks:{url}"));
    let keys = keys.map(|key| format!("key:{key}"));
    let peers = config.access.peers.iter().map(|name| format!("peer:{name}"));
    let access: Vec<String> = rules.chain(keys).chain(server).chain(peers).collect();
    let (listen, access, level) = (config.listen, access.join("+"), config.log_level);
    format!("{listen} {identity} {access} {shards} {level}")
}

#[test]
fn development_relay() {
    check("", Ok("127.0.0.1:4443 localhost ** auto INFO"));
    check("--listen [::1]:0", Ok("[::1]:0 localhost ** auto INFO"));
    check("--listen [::ffff:127.0.0.1]:1", Ok("[::ffff:127.0.0.1]:1 localhost ** auto INFO"));
    check("--shards 1", Ok("127.0.0.1:4443 localhost ** 1 INFO"));
    check("--shards=256 --log-level trace", Ok("127.0.0.1:4443 localhost ** 256 TRACE"));
    check("--auth-public anon/**", Ok("127.0.0.1:4443 localhost anon/** auto INFO"));
}

#[test]
fn operators_are_answered_where_they_want() {
    assert_eq!(parsed("").internal, InternalConfig::default());
    let internal = parsed("--internal-listen [::1]:9090 --track-metrics 1000").internal;
    let listen = Some("[::1]:9090".parse().unwrap());
    assert_eq!(internal, InternalConfig { listen, track_metrics: 1000 });
    let same = ["--internal-listen 127.0.0.1:4443", "--web-http-listen", "a port of its own"];
    check("--internal-listen 127.0.0.1:4443", Err(&same));
    check(
        "--internal-listen [::1]:9 --web-http-listen [::1]:9",
        Err(&["--internal-listen [::1]:9"]),
    );
    parsed("--internal-listen 127.0.0.1:4443 --web-http-listen off");
    parsed("--internal-listen 127.0.0.1:4443 --listen [::1]:4443");
    parsed("--internal-listen 127.0.0.1:0 --listen 127.0.0.1:0");
    check("--internal-listen 9090", Err(&["'9090'", "not an IP address with a port"]));
    check("--track-metrics 1001", Err(&["1001", "not in"]));
    check_with("", &["MOQ_INTERNAL_BIND"], Err(&["MOQ_INTERNAL_BIND", "unset it"]));
}

#[test]
fn production_relay() {
    check(
        "--listen 0.0.0.0:443 --listen-tls-cert c --listen-tls-key k --auth-public a/**,b/c/**",
        Ok("0.0.0.0:443 c+k a/**,b/c/** auto INFO"),
    );
    check(
        "--listen [::]:4443 --listen-tls-generate a.example --listen-tls-generate b.example,10.0.0.1 \
         --auth-public ** --auth-public x/**",
        Ok("[::]:4443 a.example,b.example,10.0.0.1 **,x/** auto INFO"),
    );
}

#[test]
fn who_may_do_what() {
    let here = "127.0.0.1:4443 localhost";
    for (args, access) in [
        // A key closes what is open without any.
        ("--auth-key a.jwk", "key:a.jwk"),
        ("--auth-key a.jwk,b.jwk --auth-key c.jwk", "key:a.jwk+key:b.jwk+key:c.jwk"),
        ("--auth-key-dir /keys --auth-key a", "key:a+key:/keys/"),
        ("--auth-public-subscribe ** --auth-key a", "sub:**+key:a"),
        ("--auth-public-publish in/*,x/**/y", "pub:in/*,x/**/y"),
        ("--auth-url https://me:pw@auth.example/x?y", "asks:https://auth.example/x"),
        ("--auth-url unix:///run/a.sock", "asks:unix:///run/a.sock"),
        ("--auth-public anon/** --auth-public-subscribe live/cam-*", "anon/**+sub:live/cam-*"),
    ] {
        check(args, Ok(&format!("{here} {access} auto INFO")));
    }
    check("--auth-public-subscribe anon", Err(&["'anon'", "write anon/**"]));
    check("--auth-public-publish /a/**", Err(&["'/a/**'", "not a pattern"]));
    check("--auth-public a/b**", Err(&["'a/b**'", "not a pattern"]));
    check(
        "--auth-url http://me:pw@far.example",
        Err(&["--auth-url http://far.example: tokens would"]),
    );
    check("--auth-url auth.sock", Err(&["--auth-url auth.sock", "unix:///run/auth.sock"]));
    for other in ["--auth-key a", "--auth-key-dir a", "--auth-public-subscribe **"] {
        let name = other.split(' ').next().unwrap();
        check(&format!("--auth-url https://a/ {other}"), Err(&[name, "decides alone"]));
    }
    check("--auth-key-dir a --auth-key-dir b", Err(&["multiple times"]));
}

#[test]
fn what_everybody_may_is_said() {
    for (args, words) in [
        ("", "anyone may publish and watch **"),
        ("--auth-key a", "nobody may do anything without a token"),
        ("--auth-key a --auth-public-subscribe a/**,b/**", "anyone may watch a/** b/**"),
        (
            "--auth-public a/** --auth-public-publish b/** --auth-public-subscribe c/**",
            "anyone may publish and watch a/**, watch c/**, publish b/**",
        ),
    ] {
        assert_eq!(parsed(args).access.public.to_string(), words, "{args:?}");
    }
}

#[test]
fn beyond_loopback_is_a_decision() {
    check(
        "--listen 0.0.0.0:4443",
        Err(&[
            "a certificate, and a key, public rules or an auth server",
            "run: shardcast --listen '0.0.0.0:4443' --listen-tls-cert cert.pem \
             --listen-tls-key key.pem --auth-key public.jwk",
        ]),
    );
    check(
        "--listen [::]:1 --auth-key a --auth-key b --auth-key-dir d --auth-public-subscribe **",
        Err(&["--auth-key-dir d --auth-key a --auth-key b --auth-public-subscribe '**'"]),
    );
    for who in ["--auth-key a", "--auth-key-dir a", "--auth-public-publish a/**"] {
        parsed(&format!("--listen [::]:1 --listen-tls-generate a.example {who}"));
    }
    check(
        "--listen [::]:1 --auth-public live/**",
        Err(&["needs a certificate (or", "--listen '[::]:1'", "--auth-public 'live/**'"]),
    );
    check(
        "--listen [::]:1 --listen-tls-cert /c --listen-tls-key /k",
        Err(&["needs a key (or", "--listen-tls-cert /c --listen-tls-key /k"]),
    );
    check(
        "--listen 10.0.0.1:1 --listen-tls-generate a.example",
        Err(&["needs a key (or", "--listen-tls-generate a.example"]),
    );
}

#[test]
fn certificates_that_are_ordered() {
    let open = "--listen [::]:443 --web-http-listen [::]:80 --auth-public a/**";
    let acme = |args: &str| {
        let identity = parsed(&format!("{open} --state-dir /s {args}")).identity;
        let IdentitySource::Acme(acme) = identity else { panic!("got {identity:?}") };
        acme
    };
    let config = acme("--acme-domain Relay.example.com,b.example.com --acme-contact ops@a.example");
    assert_eq!(config.domains, ["relay.example.com", "b.example.com"]);
    assert_eq!(config.contacts, ["mailto:ops@a.example"]);
    assert_eq!(config.directory, "https://acme-v02.api.letsencrypt.org/directory");
    assert_eq!(config.certificate(), std::path::Path::new("/s/acme-certificate.pem"));
    let config = acme("--acme-domain a.example --acme-directory https://ca/dir --acme-root r.pem");
    assert_eq!((config.directory.as_str(), config.root), ("https://ca/dir", Some("r.pem".into())));

    let wrong = |args: &str, words: &[&str]| check(&format!("{open} {args}"), Err(words));
    let config = acme("--acme-domain a.example --acme-eab-kid k --acme-eab-key eab.key");
    let external = config.external.expect("it is given");
    assert_eq!((external.kid.as_str(), external.key.to_str()), ("k", Some("eab.key")));
    for (one, other) in [("--acme-eab-kid", "--acme-eab-key"), ("--acme-eab-key", "--acme-eab-kid")]
    {
        let half = format!("--state-dir s --acme-domain a.example {one} x");
        wrong(&half, &[one, "is given without", other]);
        wrong(
            &format!("--listen-tls-generate b.example {one} x"),
            &[one, "is given without --acme-domain"],
        );
    }
    wrong("--acme-domain a.example", &["--acme-domain needs a directory", "--state-dir"]);
    let both = "--state-dir s --acme-domain a.example --listen-tls-generate b.example";
    wrong(both, &["--acme-domain and --listen-tls-generate are both given"]);
    wrong(
        "--listen-tls-generate b.example --acme-contact a@b",
        &["--acme-contact is given without"],
    );
    for name in ["*.a.example", "10.0.0.1", "localhost", "a_b/c.example"] {
        wrong(&format!("--acme-domain {name}"), &[name, "full DNS name without wildcards"]);
    }
    for url in ["http://ca/dir", "ca", "https://"] {
        wrong(&format!("--acme-directory {url}"), &[url, "not an https:// URL"]);
    }
    wrong("--acme-contact ops", &["'ops'", "write ops@example.com"]);
    check(
        "--listen [::]:443 --auth-public a/** --state-dir s --acme-domain a.example",
        Err(&["--acme-domain needs HTTP", "--web-http-listen '[::]:80'"]),
    );
    check(
        "--listen [::]:443 --acme-domain a.example",
        Err(&["a key (or", "--acme-domain a.example"]),
    );
}

#[test]
fn https_is_on_request() {
    let web = |args: &str| parsed(args).web;
    let at = |text: &str| Some(WebListen::At(text.parse().unwrap()));
    assert_eq!(web("").https, None);
    assert_eq!(web("--web-https-listen 127.0.0.1:443").https, at("127.0.0.1:443"));
    let both = web("--web-http-listen off --web-https-listen same");
    assert_eq!(both, WebConfig { http: None, https: Some(WebListen::Same), ws: true });
    for (args, expect) in [("on", true), ("true", true), ("off", false), ("false", false)] {
        assert_eq!(web(&format!("--web-ws {args}")).ws, expect);
    }
    let both = web("--web-http-listen 127.0.0.1:0 --web-https-listen 127.0.0.1:0");
    assert_eq!((both.http, both.https), (at("127.0.0.1:0"), at("127.0.0.1:0")));
    for one_port in ["--web-https-listen same", "--web-https-listen 127.0.0.1:4443"] {
        check(one_port, Err(&["both at 127.0.0.1:4443", "--web-http-listen off"]));
    }
    check("--web-https-listen 0.0.0.0:1", Err(&["--web-https-listen 0.0.0.0:1", "a key, public"]));
    check("--web-https-listen 443", Err(&["'443'", "same or off"]));
}

#[track_caller]
fn check_web(args: &str, expect: Option<WebListen>) {
    let args = ["shardcast"].into_iter().chain(args.split_whitespace());
    let request = Config::parse(args.map(OsString::from), []);
    let Ok(Request::Run(config)) = request else { panic!("got {request:?}") };
    assert_eq!(config.web, WebConfig { http: expect, https: None, ws: true });
}

#[test]
fn http_is_beside_a_development_relay_and_elsewhere_on_request() {
    let at = |text: &str| Some(WebListen::At(text.parse().unwrap()));
    check_web("", Some(WebListen::Same));
    check_web("--listen [::1]:0", Some(WebListen::Same));
    check_web("--web-http-listen off", None);
    check_web("--web-http-listen 127.0.0.1:8080", at("127.0.0.1:8080"));
    let open = "--listen [::]:1 --listen-tls-cert c --listen-tls-key k --auth-public a/**";
    check_web(open, None);
    check_web(&format!("{open} --web-http-listen same"), Some(WebListen::Same));
    check_web(&format!("{open} --web-http-listen [::]:80"), at("[::]:80"));
    check_web("--web-http-listen 0.0.0.0:80 --auth-public a/**", at("0.0.0.0:80"));
}

#[test]
fn how_many_sessions_a_client_may_have() {
    assert_eq!(parsed("").bounds, ClientBounds::default());
    let args = "--limit-remote 20 --limit-token 1 --limit-exempt 10.0.7.9/24,192.0.2.1";
    let bounds = parsed(args).bounds;
    assert_eq!((bounds.per_source, bounds.per_token), (20, 1));
    let exempt: Vec<String> = bounds.exempt.iter().map(IpNet::to_string).collect();
    assert_eq!(exempt, ["10.0.7.0/24", "192.0.2.1/32"]);
    for wrong in ["0", "-1", "many"] {
        check(&format!("--limit-remote={wrong}"), Err(&["--limit-remote", "from 1 to"]));
    }
    check("--limit-token=0", Err(&["--limit-token", "from 1 to"]));
    check("--limit-exempt proxy", Err(&["'proxy'", "write 10.0.7.1, 10.0.7.0/24"]));
}

#[test]
fn http_out_of_range() {
    check("--web-http-listen 8080", Err(&["'8080'", "--web-http-listen", "same or off"]));
    check("--web-http-listen on", Err(&["'on'", "127.0.0.1:8080"]));
    check(
        "--web-http-listen 0.0.0.0:8080",
        Err(&[
            "--web-http-listen 0.0.0.0:8080",
            "a key, public rules or an auth server",
            "--auth-key public.jwk",
        ]),
    );
    check("--web-https-cert c", Err(&["--web-https-cert", "--listen-tls-cert"]));
    check("--web-https-root c", Err(&["--web-https-root", "tokens"]));
    check("--web-ws maybe", Err(&["--web-ws", "write on or off"]));
    check_with("", &["MOQ_WEB_HTTPS_CERT"], Err(&["MOQ_WEB_HTTPS_CERT", "--listen-tls-cert"]));
    check_with("", &["MOQ_WEB_PORT"], Err(&["MOQ_WEB_PORT", "unset it"]));
}

#[test]
fn certificates_come_in_pairs() {
    check("--listen-tls-cert c", Err(&["without --listen-tls-key"]));
    check("--listen-tls-key k", Err(&["without --listen-tls-cert"]));
    check("--listen-tls-cert a,b --listen-tls-key k", Err(&["2 --listen-tls-cert and 1 --list"]));
    check("--listen-tls-cert a,b --listen-tls-key k,l", Ok("127.0.0.1:4443 a+k,b+l ** auto INFO"));
    check(
        "--listen-tls-cert c --listen-tls-key k --listen-tls-generate localhost",
        Err(&["both given"]),
    );
}

#[test]
fn certificates_of_clients() {
    let here = "127.0.0.1:4443 localhost";
    let root = "--listen-tls-root ca.pem";
    check(&format!("{root} --auth-peer a,b"), Ok(&format!("{here} peer:a+peer:b auto INFO")));
    check(
        &format!("{root},old.pem --auth-peer a --auth-public x/**"),
        Ok(&format!("{here} x/**+peer:a auto INFO")),
    );
    let server = "--auth-url http://localhost:1/";
    let asks = "asks:http://localhost:1/";
    check(&format!("{root} {server}"), Ok(&format!("{here} {asks} auto INFO")));
    check(
        &format!("{root} {server} --auth-peer a"),
        Ok(&format!("{here} {asks}+peer:a auto INFO")),
    );
    check("--auth-peer a", Err(&["--auth-peer is given without --listen-tls-root"]));
    check(&format!("{root} --auth-peer="), Err(&["--auth-peer"]));
    for wildcard in ["*", "*.example", "a,*.example"] {
        let exact = ["--auth-peer", "a wildcard", "names of relays are exact"];
        check(&format!("{root} --auth-peer {wildcard}"), Err(&exact));
    }
    for others in ["", "--auth-public **", "--auth-key k"] {
        let idle = ["nobody asks for certificates", "--auth-peer NAME", "--auth-url URL"];
        check(&format!("{root} {others}"), Err(&idle));
    }
    check(
        &format!("--listen [::]:443 {root} --auth-peer a"),
        Err(&["needs a certificate (or", "--listen-tls-root ca.pem --auth-peer 'a'"]),
    );
    check(
        &format!("--listen [::]:443 --listen-tls-generate x.example {root} --auth-peer a"),
        Ok("[::]:443 x.example peer:a auto INFO"),
    );
    check("--server-tls-root ca.pem", Err(&["write --listen-tls-root (MOQ_LISTEN_TLS_ROOT)"]));
}

#[test]
fn values_out_of_range() {
    check("--shards 0", Err(&["'0'", "--shards", "from 1 to 256"]));
    check("--shards 1000", Err(&["'1000'", "from 1 to 256"]));
    check("--shards -1", Err(&["-1"]));
    check("--shards two", Err(&["'two'", "from 1 to 256"]));
    check("--listen localhost:4443", Err(&["'localhost:4443'", "write 127.0.0.1:4443"]));
    check("--listen 4443", Err(&["'4443'", "write 127.0.0.1:4443"]));
    check("--log-level loud", Err(&["'loud'", "possible values: error, warn, info"]));
    check("--listen-tls-generate a_b/c", Err(&["'a_b/c'", "host name"]));
    check("--auth-public anon", Err(&["'anon'", "write anon/**"]));
}

#[track_caller]
fn parsed(args: &str) -> Config {
    let args = ["shardcast"].into_iter().chain(args.split_whitespace());
    let request = Config::parse(args.map(OsString::from), []);
    let Ok(Request::Run(config)) = request else { panic!("got {request:?}") };
    *config
}

#[test]
fn who_is_believed() {
    let config = parsed("");
    assert_eq!((config.takeover, config.relays.len()), (Takeover::Refused, 0));
    let config = parsed("--allow-takeover --cluster-address 10.0.7.1,10.0.8.9/24,2001:db8::1/64");
    assert_eq!(config.takeover, Takeover::Allowed);
    let networks = config.relays.iter().map(IpNet::to_string).collect::<Vec<_>>();
    assert_eq!(networks, ["10.0.7.1/32", "10.0.8.0/24", "2001:db8::/64"]);
    check("--cluster-address relay-2", Err(&["'relay-2'", "write 10.0.7.1, 10.0.7.0/24"]));
    check("--cluster-address 10.0.7.0/33", Err(&["'10.0.7.0/33'"]));
}

#[track_caller]
fn check_cache(args: &str, linger_ms: u64, capacity: Capacity, duration_ms: u64) {
    let config = parsed(args);
    assert_eq!(config.linger, Duration::from_millis(linger_ms));
    let duration = Duration::from_millis(duration_ms);
    assert_eq!(config.cache, CacheConfig { capacity, duration });
}

#[test]
fn cache() {
    use Capacity::{Bytes, Percent};
    check_cache("", 5000, Percent(25.0), 30_000);
    check_cache("--linger 0", 0, Percent(25.0), 30_000);
    check_cache("--linger 0s --cache-duration 0", 0, Percent(25.0), 0);
    check_cache(
        "--linger 1500ms --cache-capacity 8GiB --cache-duration=5m",
        1500,
        Bytes(8 << 30),
        300_000,
    );
    check_cache("--cache-capacity 75% --cache-duration 1h", 5000, Percent(75.0), 3_600_000);
    // What the existing relay takes, spaces aside.
    check_cache("--cache-duration 1m30s --linger 2.5s", 2500, Percent(25.0), 90_000);
    check_cache("--cache-duration 30days", 5000, Percent(25.0), 2_592_000_000);
}

#[test]
fn memory() {
    assert_eq!(parsed("").memory_max, None);
    assert_eq!(parsed("--memory-max 256MiB").memory_max, Some(Capacity::Bytes(256 << 20)));
    assert_eq!(parsed("--memory-max 80%").memory_max, Some(Capacity::Percent(80.0)));
    check("--memory-max 0", Err(&["'0'", "--memory-max"]));
    check("--memory-max much", Err(&["'much'", "write 8GiB, 512MB"]));
}

#[test]
fn cache_out_of_range() {
    check("--linger 5", Err(&["'5'", "--linger", "without its unit; write 5s or 5ms"]));
    check("--linger=-5s", Err(&["'-5s'", "not a duration; write 500ms, 30s, 5m or 1h"]));
    check("--linger soon", Err(&["'soon'", "not a duration"]));
    check("--linger=", Err(&["--linger"]));
    check("--cache-duration 30", Err(&["'30'", "--cache-duration", "30s or 30ms"]));
    check("--cache-duration 30S", Err(&["'30S'", "not a duration"]));
    check("--cache-duration 5M", Err(&["'5M'", "longer than 30days", "M is months"]));
    check("--linger 99999999999999999999s", Err(&["not a duration"]));
    check("--cache-capacity 0", Err(&["'0'", "--cache-capacity", "nothing or no bound"]));
    check("--cache-capacity 8PB", Err(&["'8PB'", "\"PB\" is not a unit", "GiB"]));
    check("--cache-capacity 101%", Err(&["'101%'", "write 1% to 100%"]));
    check("--cache-capacity lots", Err(&["'lots'", "not a size; write 8GiB"]));
}

#[test]
fn origins() {
    let some = |local, patterns: &[&str]| Origins::Some {
        patterns: patterns.iter().map(|text| text.parse().unwrap()).collect(),
        local,
    };
    assert_eq!(parsed("").origins, some(true, &[]));
    assert_eq!(parsed("--allow-origin null").origins, some(true, &["null"]));
    let open = "--listen [::]:1 --listen-tls-cert c --listen-tls-key k --auth-public a/**";
    assert_eq!(parsed(open).origins, Origins::All);
    let named = format!("{open} --allow-origin https://a.example,https://*.b.example");
    assert_eq!(parsed(&named).origins, some(false, &["https://a.example", "https://*.b.example"]));
    check("--allow-origin a.example", Err(&["'a.example'", "write https://app.example"]));
}

#[test]
fn congestion_control() {
    for (args, expect) in [
        ("", CongestionControl::Delay),
        ("--quic-congestion-control loss", CongestionControl::Loss),
        ("--quic-congestion-control=delay", CongestionControl::Delay),
    ] {
        assert_eq!(parsed(args).congestion_control, expect, "{args:?}");
    }
    let named = ["'bbr'", "--quic-congestion-control", "loss, delay"];
    check("--quic-congestion-control bbr", Err(&named));
}

#[test]
fn unknown_words() {
    check("--lisen 127.0.0.1:1", Err(&["--lisen; write --listen instead", "--help"]));
    check("relay.toml", Err(&["cannot read relay.toml", "No such file", "TOML file"]));
    check("/dev/zero", Err(&["cannot read /dev/zero", "more than 1048576 bytes"]));
    check("one.toml two.toml", Err(&["'two.toml'"]));
    check("--listen", Err(&["a value is required", "--listen"]));
    check("--listen 127.0.0.1:1 --listen 127.0.0.1:2", Err(&["multiple times"]));
}

#[test]
fn names_of_the_existing_relay() {
    check("--server-bind [::]:443", Err(&["--server-bind", "--listen (MOQ_LISTEN)"]));
    check("--server-bind=[::]:443", Err(&["--server-bind is", "--listen (MOQ_LISTEN)"]));
    check("--tls-cert c", Err(&["--tls-cert", "--listen-tls-cert"]));
    check("--tls-key k", Err(&["--tls-key", "--listen-tls-key"]));
    check("--tls-generate localhost", Err(&["--tls-generate", "--listen-tls-generate"]));
    check("--runtime-workers 4", Err(&["--runtime-workers", "--shards"]));
    check("--auth-api https://a", Err(&["--auth-api", "--auth-url URL"]));
    check("--cache-headroom 10%", Err(&["--cache-headroom", "--cache-capacity SIZE"]));
    check("--cluster-linger 5s", Err(&["--cluster-linger", "--linger is about viewers"]));
    check("--file relay.toml", Err(&["--file", "shardcast relay.toml"]));
}

#[test]
fn variables_of_the_existing_relay() {
    let default = "127.0.0.1:4443 localhost ** auto INFO";
    check_with("", &["MOQ_SERVER_BIND"], Err(&["MOQ_SERVER_BIND", "MOQ_LISTEN"]));
    check_with("", &["MOQ_AUTH_KEY", "MOQ_AUTH_KEY_DIR"], Ok(default));
    check_with("", &["MOQ_AUTH_DOMAIN"], Err(&["MOQ_AUTH_DOMAIN", "unset it"]));
    check_with("", &["MOQ_LISTEN_TLS_ROT"], Err(&["write MOQ_LISTEN_TLS_ROOT instead"]));
    check_with("", &["MOQ_CACHE_HEADROOM"], Err(&["MOQ_CACHE_HEADROOM", "--cache-capacity"]));
    check_with("", &["MOQ_CACHE_SIZE"], Err(&["MOQ_CACHE_SIZE", "unset it"]));
    check_with("", &["MOQ_CLUSTER_LINGER"], Err(&["MOQ_CLUSTER_LINGER", "remove it"]));
    check_with("", &["MOQ_CACHE_CAPACITY", "MOQ_CACHE_DURATION"], Ok(default));
    // Variables of clients on the same machine are none of our business.
    check_with("", &["MOQ_CONNECT", "MOQ_BACKOFF_MAX", "PATH"], Ok(default));
    check_with("", &["MOQ_LISTEN", "MOQ_AUTH_PUBLIC", "MOQ_LOG_LEVEL"], Ok(default));
}

#[test]
fn relays_to_dial() {
    let told = |args: &str| {
        let args = ["shardcast"].into_iter().chain(args.split_whitespace()).map(OsString::from);
        let Ok(Request::Run(told)) = Told::read(args, []) else {
            panic!("{args:?}", args = "refused")
        };
        told
    };
    let cluster = told(
        "--cluster-connect moqt://b:1/?cost=5&jwt=SECRET,https://c --cluster-connect-api /etc/list \
         --cluster-node moqt://a --cluster-id 7 --connect-tls-cert c --connect-tls-key k",
    );
    assert!(cluster.faults.is_empty(), "{:?}", cluster.faults);
    let shown: Vec<String> = cluster.stated.iter().map(ToString::to_string).collect();
    assert!(
        !shown.join("").contains("SECRET") && !format!("{:?}", cluster.config).contains("SECRET")
    );
    let cluster = cluster.config.cluster;
    assert_eq!(cluster.connect.len(), 2);
    assert_eq!(cluster.connect[0].target(None), "/?jwt=SECRET");
    assert_eq!(cluster.list, Some(ListSource::File("/etc/list".into())));
    assert!(cluster.tls.system_roots && cluster.tls.identity.is_some() && cluster.id == Some(7));
    assert_eq!(cluster.max_hops, 32);
    assert_eq!(told("--cluster-max-hops 3").config.cluster.max_hops, 3);
    check("--cluster-max-hops 33", Err(&["33 is not in 1..=32"]));
    let tls = told("--connect-tls-root r").config.cluster.tls;
    assert!(!tls.system_roots);
    assert!(
        told("--connect-tls-root r --connect-tls-system-roots").config.cluster.tls.system_roots
    );
    let list = told("--cluster-connect-api https://api/relays").config.cluster.list;
    assert!(matches!(list, Some(ListSource::Url(_))));
    for (args, key, words) in [
        ("--cluster-connect wss://b?jwt=SECRET", "cluster.connect", "wss"),
        ("--cluster-connect moqt://b,moqt://b?cost=1", "cluster.connect", "differ"),
        ("--cluster-node b", "cluster.node", "moqt://HOST"),
        ("--connect-tls-cert c", "connect.tls.cert", "--connect-tls-key"),
    ] {
        let faults = told(args).faults;
        assert_eq!(faults.iter().filter_map(ConfigError::key).collect::<Vec<_>>(), [key]);
        let said = faults[0].to_string();
        assert!(said.contains(words) && !said.contains("SECRET"), "{said}");
    }
    for (args, words) in [
        ("--connect-tls-fingerprint 12", "64 digits"),
        ("--cluster-id 0", "--cluster-id"),
        ("--connect-url moqt://b", "--cluster-connect URL"),
    ] {
        check(args, Err(&[words]));
    }
}

#[test]
fn help_and_version() {
    check("--version", Ok(concat!("shardcast ", env!("CARGO_PKG_VERSION"))));
    check("-V", Ok("shardcast "));
    check("--help", Ok("A production relay"));
    for arg in Args::command().get_arguments().filter(|arg| !arg.is_positional()) {
        check("--help", Ok(arg.get_long().expect("every argument has a long name")));
        assert!(arg.get_help().is_some(), "{arg} does not say what it is for");
        if let Some(variable) = arg.get_env() {
            check("--help", Ok(&format!("[env: {}", variable.display())));
        }
    }
}

#[test]
fn all_that_is_wrong_is_told() {
    let told = |args: &str| {
        let args = ["shardcast"].into_iter().chain(args.split_whitespace()).map(OsString::from);
        let Ok(Request::Run(told)) = Told::read(args, []) else { panic!("nothing is run") };
        let keys: Vec<&str> = told.faults.iter().filter_map(ConfigError::key).collect();
        keys.join(" ")
    };
    assert_eq!(told("--auth-public **"), "");
    assert_eq!(
        told(
            "--listen [::]:1 --listen-tls-cert c --auth-peer edge --internal-listen [::1]:9 \
             --web-http-listen [::1]:9 --web-https-listen [::1]:9"
        ),
        "listen.tls.cert auth.peer web.https.listen internal.listen"
    );
    // What is wrong with who decides does not make it nobody.
    assert_eq!(
        told("--listen [::]:1 --listen-tls-generate a.example --listen-tls-root r --auth-url x"),
        "auth.url"
    );
    assert_eq!(told("--auth-url x --listen [::]:1"), "auth.url listen.bind");

    let variables = ["MOQ_AUTH_KYE", "PATH", "MOQ_STATS_ENABLED"].map(OsString::from);
    let args = ["shardcast", "--auth-peer", "edge"].map(OsString::from);
    let Ok(Request::Run(told)) = Told::read(args, variables) else { panic!("nothing is run") };
    let said: Vec<String> = told.faults.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("write MOQ_AUTH_KEY instead"), "{said:?}");
    assert!(said[1].contains("MOQ_STATS_ENABLED"), "{said:?}");
}

#[test]
fn a_key_in_the_place_of_a_file_is_not_shown() {
    let key = r#"{"kty":"oct","k":"SECRET"}"#;
    for key in [key, "eyJrdHkiOiJvY3QifQ-SECRET"] {
        let args = ["shardcast", "--listen", "[::]:1", "--auth-key", key, "--auth-key-dir", key];
        let args = args.map(OsString::from);
        let Ok(Request::Run(told)) = Told::read(args, []) else { panic!("nothing is run") };
        let stated = told.stated.iter().map(ToString::to_string);
        let faults = told.faults.iter().map(ToString::to_string);
        let places = told.config.access.key_places();
        let said: Vec<String> = stated.chain(faults).chain(places).collect();
        let said = said.join("\n");
        assert!(!said.contains("SECRET") && !said.contains("kty"), "{said}");
        assert!(said.matches("a key, not a file's name").count() >= 6, "{said}");
    }
}
