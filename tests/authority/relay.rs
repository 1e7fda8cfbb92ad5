//! The relay as a process, an auth server that it asks, and released clients.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use moq_auth::serve::{Keys, Policy};
use moq_auth::{Event, Permissions};
use moq_tokio::{Connection, connect};
use shardcast::access::{Algorithm, Claims, Form, Grant, SigningKey};
use shardcast::limits::WEB_CONNECTIONS_MAX;

use crate::cards::{Authority, Card};
use crate::judge::{Judge, PATIENCE, grants};
use crate::process::{Ended, Process, shardcast};

const SOON: Duration = Duration::from_secs(10);

/// A relay on loopback that asks whoever is at this address.
fn relay(judge: SocketAddr) -> (Process, SocketAddr) {
    relay_with(judge, &[])
}

fn relay_with(judge: SocketAddr, more: &[&str]) -> (Process, SocketAddr) {
    let url = format!("http://{judge}/");
    let args = ["--listen", "127.0.0.1:0", "--shards", "2", "--auth-url", &url];
    let at_once = ["--drain-timeout", "0s"];
    let mut process = Process::spawn(shardcast(&[&args[..], &at_once, more].concat()));
    let at = process.listening(SOON);
    (process, at)
}

/// Where it answers operators.
fn internal(relay: &mut Process) -> SocketAddr {
    let line = relay.stderr_line("kind=internal", SOON);
    line.split_once("addr=").unwrap().1.split(' ').next().unwrap().parse().unwrap()
}

fn stopped(relay: Process) -> Ended {
    relay.signal(libc::SIGTERM);
    relay.ended(SOON)
}

/// A session of a released client, or what it says of why there is none.
async fn dial(url: String) -> Result<Connection, String> {
    dial_showing(None, url).await
}

/// The same with a certificate.
async fn dial_showing(card: Option<&Card>, url: String) -> Result<Connection, String> {
    let mut config = connect::Config::default();
    config.websocket.enabled = Some(false);
    config.tls.insecure = Some(true);
    config.tls.cert = card.map(|card| card.cert.clone());
    config.tls.key = card.map(|card| card.key.clone());
    config.once = Some(true);
    config.bind = Some(([127, 0, 0, 1], 0).into());
    let origin =
        moq_tokio::origin::spawn_config(moq_net::origin::Config::new(moq_net::Hop::random()));
    let client = config.init(Default::default()).unwrap().with_publisher(&origin);
    let dialled = client.connect(url.parse::<url::Url>().unwrap()).established();
    let dialled = tokio::time::timeout(PATIENCE, dialled).await.expect("an answer");
    dialled.map_err(|error| error.to_string())
}

async fn ended(connection: Connection) -> String {
    let end = tokio::time::timeout(PATIENCE, connection.closed()).await.expect("an end");
    format!("{end:?}")
}

fn http(relay: SocketAddr, target: &str) -> (u16, String) {
    ask(relay, "GET", target)
}

fn ask(relay: SocketAddr, method: &str, target: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(relay).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{method} {target} HTTP/1.0\r\nhost: {relay}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn unix() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// A key in a file for the reference server, removed at the end.
struct KeyFile {
    path: std::path::PathBuf,
    key: SigningKey,
}

impl KeyFile {
    fn new(name: &str) -> KeyFile {
        let key = SigningKey::generate(Algorithm::ES256, None, None).unwrap();
        let path =
            std::env::temp_dir().join(format!("shardcast-{name}-{}.jwk", std::process::id()));
        std::fs::write(&path, key.public_json().unwrap()).unwrap();
        KeyFile { path, key }
    }

    fn token(&self, pattern: &str, expires: i64) -> String {
        let publish = [pattern.parse().unwrap()].into_iter().collect();
        let grant = Grant::new(shardcast::wire::Path::root(), publish, Default::default());
        let claims = Claims { grant, expires: Some(expires), ..Claims::default() };
        self.key.sign(&claims, Form::Prefixes).unwrap()
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[tokio::test]
async fn the_reference_server_lets_in_whom_it_knows() {
    let file = KeyFile::new("reference");
    let mut policy = Policy::default();
    policy.keys = Some(Keys::File(file.path.clone()));
    policy.public = Permissions {
        publish: Default::default(),
        subscribe: ["anon/**".parse().unwrap()].into_iter().collect(),
    };
    let judge = Judge::by(policy);
    let (relay, at) = relay(judge.at_http().await);
    let token = file.token("live/**", unix() + 3600);
    for scheme in ["moqt", "https"] {
        let url = format!("{scheme}://{at}/live/cam?jwt={token}&n={scheme}");
        let session = dial(url).await.unwrap();
        let is_it = |request: &moq_auth::Request| {
            request.query.as_ref().is_some_and(|query| query.ends_with(scheme))
        };
        let asked = judge.was_asked("of the session", is_it).await;
        assert_eq!((asked.path.as_str(), &asked.event), ("/live/cam", &Event::Connect));
        assert_eq!(asked.transport, moq_auth::Transport::Quic);
        assert_eq!(asked.local, Some(at));
        assert_eq!(asked.role, Some(moq_auth::Role::Publisher));
        assert!(
            asked.remote.unwrap().ip().is_loopback()
                && asked.alpn.unwrap().starts_with("moq-lite-0")
        );
        drop(session);
        let (_, bytes) = judge.was_told_of_end(&asked.id).await;
        assert!(bytes.sent > 1000 && bytes.received > 1000, "{bytes:?}");
    }
    // Somebody who may only watch wants to publish; a path that nobody may be at; no token for it.
    for path in [
        "anon".to_owned(),
        format!("else?jwt={token}"),
        "live/cam".to_owned(),
        "live/cam?jwt=a.b.c".to_owned(),
    ] {
        for scheme in ["moqt", "https"] {
            let refused = dial(format!("{scheme}://{at}/{path}")).await;
            let refused = match refused {
                Ok(session) => ended(session).await,
                Err(error) => error,
            };
            assert!(refused.to_lowercase().contains("unauthorized"), "{path}: {refused}");
        }
    }
    let (status, listing) =
        tokio::task::spawn_blocking(move || http(at, "/announced/anon")).await.unwrap();
    assert_eq!((status, listing.as_str()), (200, ""));
    let (status, words) =
        tokio::task::spawn_blocking(move || http(at, "/announced/live")).await.unwrap();
    assert_eq!(status, 401);
    assert!(words.contains("the auth server refuses: nothing is granted at"), "{words}");
    let said = stopped(relay);
    assert_eq!(said.code(), 0, "{said:?}");
    assert!(!said.stderr.contains(&token) && !said.stdout.contains(&token), "{said:?}");
}

#[tokio::test]
async fn a_session_ends_when_the_server_says_so() {
    let judge = Judge::new(grants("{}"));
    let (relay, at) = relay(judge.at_http().await);
    let every_second =
        format!(r#"{{"publish":["**"],"expires":{},"revalidate":1}}"#, unix() + 3600);
    for (now, reason) in [
        ((StatusCode::FORBIDDEN, "gone".to_owned()), "refused"),
        (
            (StatusCode::OK, format!(r#"{{"publish":["a"],"expires":{}}}"#, unix() + 3600)),
            "grant narrowed",
        ),
        ((StatusCode::OK, r#"{"publish":["**"],"expires":1}"#.to_owned()), "invalid"),
    ] {
        judge.says(grants(&every_second));
        let before = judge.asked().len();
        let session = dial(format!("moqt://{at}/live?n={before}")).await.unwrap();
        let query = format!("n={before}");
        let is_check = |request: &moq_auth::Request| {
            request.event == Event::Revalidate && request.query.as_deref() == Some(&query)
        };
        let id = judge.was_asked("again", is_check).await.id;
        judge.says(move |request| match request.event {
            Event::End { .. } => (StatusCode::NO_CONTENT, String::new()),
            _ => now.clone(),
        });
        let end = ended(session).await;
        assert!(end.to_lowercase().contains("unauthorized"), "{end}");
        assert_eq!(judge.was_told_of_end(&id).await.0, reason);
    }
    // To the second.
    let until = unix() + 3;
    judge.says(grants(&format!(r#"{{"publish":["**"],"expires":{until}}}"#)));
    let session = dial(format!("moqt://{at}/last")).await.unwrap();
    let id = judge.was_asked("of it", |request| request.path == "/last").await.id;
    let end = ended(session).await;
    assert_eq!(unix(), until, "{end}");
    assert_eq!(judge.was_told_of_end(&id).await.0, "expired");
    drop(relay);
}

/// At once, and of those who are meant; the operator knows them by the names that the server knows.
#[tokio::test]
async fn the_server_is_asked_again_when_the_operator_wants_that() {
    let everything = r#"{"publish":["**"],"root":"elsewhere"}"#;
    let judge = Judge::new(grants(everything));
    let more = ["--internal-listen", "127.0.0.1:0"];
    let (mut relay, at) = relay_with(judge.at_http().await, &more);
    let internal = internal(&mut relay);
    let operator = async |method: &'static str, target: String| {
        let asked = tokio::task::spawn_blocking(move || ask(internal, method, &target));
        let (status, body) = asked.await.unwrap();
        (status, serde_json::from_str::<serde_json::Value>(&body).unwrap())
    };
    let mut sessions = Vec::new();
    for (scheme, room) in [("moqt", "a"), ("https", "b"), ("moqt", "c")] {
        let session = dial(format!("{scheme}://{at}/rooms/{room}?jwt=secret")).await.unwrap();
        let path = format!("/rooms/{room}");
        let id = judge.was_asked("of it", |request| request.path == path).await.id;
        sessions.push((id, session));
    }
    let ids = |sessions: &[(String, Connection)]| {
        let mut ids: Vec<String> = sessions.iter().map(|(id, _)| id.clone()).collect();
        ids.sort();
        ids
    };
    let listed = async |target: &str| {
        let (status, list) = operator("GET", target.to_owned()).await;
        assert_eq!(status, 200, "{list}");
        assert!(!list.to_string().contains("secret"), "{list}");
        let rows = list["sessions"].as_array().unwrap().iter();
        let mut ids: Vec<String> = rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    // Where they have dialled, and not where the server has put them.
    assert_eq!(listed("/sessions?path=rooms/*").await, ids(&sessions));
    let checks = || {
        let asked = judge.asked().into_iter();
        let checks = asked.filter(|request| request.event == Event::Revalidate);
        checks.map(|request| request.id).collect::<Vec<_>>()
    };
    assert_eq!(checks(), [""; 0]);

    // Nothing has changed.
    let (status, told) = operator("POST", "/sessions/revalidate?transport=quic".to_owned()).await;
    assert_eq!((status, told["ids"].as_array().unwrap().len()), (202, 3), "{told}");
    // What is asked follows what is answered.
    let before = 3;
    judge.was_asked_more(before + 3).await;
    let mut checked = checks();
    checked.sort();
    assert_eq!(checked, ids(&sessions));
    assert_eq!(listed("/sessions").await, ids(&sessions));

    // One is to go, and others are not asked about.
    judge.says(|request| match request.event {
        Event::End { .. } => (StatusCode::NO_CONTENT, String::new()),
        _ => (StatusCode::FORBIDDEN, "banned".to_owned()),
    });
    let (gone, session) = sessions.remove(1);
    let (status, told) = operator("POST", format!("/sessions/revalidate?id={gone}")).await;
    assert_eq!((status, &told["ids"]), (202, &serde_json::json!([gone])));
    let end = ended(session).await;
    assert!(end.to_lowercase().contains("unauthorized"), "{end}");
    assert_eq!(judge.was_told_of_end(&gone).await.0, "refused");
    assert_eq!(checks().len(), 4);
    assert_eq!(listed("/sessions").await, ids(&sessions));
    let (_, figures) =
        tokio::task::spawn_blocking(move || http(internal, "/metrics")).await.unwrap();
    assert!(figures.contains("shardcast_refusals_total{reason=\"by_server\"} 1\n"), "{figures}");
    let (status, told) = operator("POST", format!("/sessions/revalidate?id={gone}")).await;
    assert_eq!((status, &told["ids"]), (200, &serde_json::json!([])));
    let said = tokio::task::spawn_blocking(|| stopped(relay)).await.unwrap();
    assert_eq!(said.code(), 0, "{said:?}");
}

#[tokio::test]
async fn a_server_that_fails_keeps_nobody_from_trying_again() {
    let judge = Judge::new(|_| (StatusCode::INTERNAL_SERVER_ERROR, String::new()));
    let (mut relay, at) = relay(judge.at_http().await);
    for scheme in ["moqt", "https"] {
        let refused = match dial(format!("{scheme}://{at}/live")).await {
            Ok(session) => ended(session).await,
            Err(error) => error,
        };
        // The code of the reference for 502.
        assert!(refused.contains("502") || refused.contains("566"), "{refused}");
    }
    let (status, _) = tokio::task::spawn_blocking(move || http(at, "/announced/")).await.unwrap();
    assert_eq!(status, 502);
    relay.stderr_line("the auth server fails", SOON);
    // One that is admitted lives on without it.
    judge.says(grants(&format!(
        r#"{{"publish":["**"],"expires":{},"revalidate":1}}"#,
        unix() + 3600
    )));
    let session = dial(format!("moqt://{at}/live?n=1")).await.unwrap();
    let is_check = |request: &moq_auth::Request| request.event == Event::Revalidate;
    let id = judge.was_asked("again", is_check).await.id;
    judge.says(|_| (StatusCode::INTERNAL_SERVER_ERROR, String::new()));
    let before = judge.asked().len();
    judge.was_asked_more(before + 2).await;
    assert!(!judge.asked().iter().any(|request| matches!(request.event, Event::End { .. })));
    // The relay ends, and says so.
    judge.says(grants(r#"{"publish":["**"]}"#));
    let said = tokio::task::spawn_blocking(|| stopped(relay)).await.unwrap();
    assert_eq!(said.code(), 0, "{said:?}");
    let (reason, _) = judge.was_told_of_end(&id).await;
    assert_eq!(reason, "shutdown");
    drop(session);
}

#[tokio::test]
async fn it_hears_of_certificates() {
    let cards = Authority::new("facts");
    let (known, relays) = (cards.issue("user", &["user.example"]), cards.issue("edge", &["edge0"]));
    let mut policy = Policy::default();
    policy.mtls = Permissions {
        publish: ["**".parse().unwrap()].into_iter().collect(),
        subscribe: Default::default(),
    };
    let judge = Judge::by(policy);
    let root = cards.root.to_str().unwrap();
    let args =
        ["--listen-tls-root", root, "--auth-peer", "edge0", "--internal-listen", "127.0.0.1:0"];
    let (mut process, at) = relay_with(judge.at_http().await, &args);
    let internal = internal(&mut process);
    for scheme in ["moqt", "https"] {
        let url = format!("{scheme}://{at}/room");
        let before = judge.asked().len();
        let _session = dial_showing(Some(&known), url.clone()).await.unwrap();
        // Who has none is refused, and who is a relay is not asked about.
        let refused = match dial(url.clone()).await {
            Ok(session) => ended(session).await,
            Err(error) => error,
        };
        assert!(refused.to_lowercase().contains("unauthorized"), "{refused}");
        let _relay = dial_showing(Some(&relays), url.clone()).await.unwrap();
        // But with a token: that is for the server to judge.
        let with_token = dial_showing(Some(&relays), format!("{url}?jwt=a.b.c")).await;
        let refused = match with_token {
            Ok(session) => ended(session).await,
            Err(error) => error,
        };
        assert!(refused.to_lowercase().contains("unauthorized"), "{refused}");
        let asked = judge.asked();
        let asked = asked[before..].iter().filter(|asked| asked.event == Event::Connect);
        let tls = asked.map(|asked| asked.tls.clone()).collect::<Vec<_>>();
        assert_eq!(tls, [Some(known.facts()), None, Some(relays.facts())], "{scheme}");
        // And so does the operator.
        let list = tokio::task::spawn_blocking(move || {
            http(internal, "/sessions?tls.name=user.example&tls.issuer=CN%3Dcluster").1
        });
        let list: serde_json::Value = serde_json::from_str(&list.await.unwrap()).unwrap();
        let shown: Vec<moq_auth::Peer> = list["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| serde_json::from_value(row["tls"].clone()).unwrap())
            .collect();
        assert!(!shown.is_empty() && shown.iter().all(|tls| *tls == known.facts()), "{list}");
    }
}

/// Requests that wait for an auth server leave room for others, who are told to come again or need no
/// answer of its.
#[test]
fn a_server_that_does_not_answer_keeps_http_from_nobody() {
    const CLIENTS: usize = 2 * WEB_CONNECTIONS_MAX;
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (_relay, at) = relay(mute.local_addr().unwrap());
    let waiting: Vec<_> = (0..CLIENTS)
        .map(|n| {
            use std::io::Write;
            let mut stream = std::net::TcpStream::connect(at).unwrap();
            write!(stream, "GET /fetch/a/b?n={n} HTTP/1.0\r\nhost: {at}\r\n\r\n").unwrap();
            stream
        })
        .collect();
    assert_eq!(http(at, "/health"), (200, "ok\n".to_owned()));
    let (status, words) = http(at, "/fetch/a/b");
    assert_eq!(status, 503, "{words}");
    assert!(words.contains("too many wait for the auth server"), "{words}");
    drop(waiting);
}
