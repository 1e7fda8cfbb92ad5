//! What the auth server is asked and what it answers: values ⇄ JSON, as moq-relay has it.
//!
//! Of an answer's members `publish`, `subscribe`, `root`, `expires` and `revalidate` count. `mounts` would
//! show paths at other places, which this relay does not do: such a grant is not honoured at all. `tier` and
//! `peer` are read over: nothing is counted by tier here, and which peers are relays the operator says.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use moq_pattern::Patterns;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::access::{Certificate, Grant, Target};
use crate::limits::PATTERNS_MAX;
use crate::limits::{AUTHORITY_REASON_BYTES_MAX, ROOT_BYTES_MAX};
use crate::text::in_one_line;
use crate::wire::{Path, Role};

/// What there is to know of somebody who wants to come in.
#[derive(Clone, PartialEq, Eq)]
pub struct Facts {
    pub transport: Transport,
    pub remote: SocketAddr,
    pub local: SocketAddr,
    pub server_name: Option<String>,
    pub alpn: Option<&'static str>,
    /// The certificate that it has shown.
    pub tls: Option<Certificate>,
    pub dialled: Target,
    pub role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Quic,
    WebSocket,
    Http,
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Connect,
    Revalidate,
    End { reason: String, duration: Duration, moved: Moved },
}

/// Bytes that a session has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Moved {
    pub sent: u64,
    pub received: u64,
}

/// One POST's body. The server knows the session by `id` in all that it is told of it.
pub fn question(id: &str, event: &Event, facts: &Facts) -> Vec<u8> {
    #[derive(Serialize)]
    struct Written<'a> {
        id: &'a str,
        event: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        duration: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<Moved>,
        node: &'static str,
        transport: Transport,
        remote: SocketAddr,
        local: SocketAddr,
        #[serde(skip_serializing_if = "Option::is_none")]
        server_name: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        alpn: Option<&'static str>,
        path: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        query: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        role: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tls: Option<&'a Certificate>,
    }

    let (event, end) = match event {
        Event::Connect => ("connect", None),
        Event::Revalidate => ("revalidate", None),
        Event::End { reason, duration, moved } => ("end", Some((reason, duration, *moved))),
    };
    let text = facts.dialled.path_text();
    let written = Written {
        id,
        event,
        reason: end.map(|(reason, ..)| reason.as_str()),
        duration: end.map(|(_, duration, _)| duration.as_secs_f64()),
        bytes: end.map(|(.., moved)| moved),
        node: "",
        transport: facts.transport,
        remote: facts.remote,
        local: facts.local,
        server_name: facts.server_name.as_deref(),
        alpn: facts.alpn,
        path: if text.is_empty() { "/" } else { text },
        query: facts.dialled.query(),
        role: match facts.role {
            Role::Both => None,
            Role::Publisher => Some("publisher"),
            Role::Subscriber => Some("subscriber"),
        },
        tls: facts.tls.as_ref(),
    };
    serde_json::to_vec(&written).expect("strings and numbers are JSON")
}

/// What is granted until when, and how often it is to be asked again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    pub grant: Grant,
    pub expires: Option<i64>,
    pub revalidate: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Granted(Terms),
    /// For what reason, as far as it says.
    Refused(String),
    /// A grant that cannot be honoured.
    Invalid(Fault),
    Unavailable(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("`revalidate` without `expires`")]
    Unbounded,
    #[error("`revalidate` is 0")]
    Ceaseless,
    #[error("`expires` is over; do the clocks differ?")]
    Expired,
    #[error("`mounts`, which this relay does not do")]
    Mounts,
}

/// Reads an answer to somebody who has dialled this path.
pub fn answer(status: u16, body: &[u8], dialled: &Path, now: i64) -> Answer {
    match status {
        200..300 => grant(body, dialled, now),
        401 | 403 => Answer::Refused(reason(body)),
        _ => Answer::Unavailable(format!("it answers with status {status}")),
    }
}

fn grant(body: &[u8], dialled: &Path, now: i64) -> Answer {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Written {
        publish: Vec<String>,
        subscribe: Vec<String>,
        root: Option<String>,
        mounts: BTreeMap<String, IgnoredAny>,
        expires: Option<i64>,
        revalidate: Option<u64>,
    }

    let Ok(written) = serde_json::from_slice::<Written>(body) else {
        return Answer::Unavailable("its answer is not a grant in JSON".to_owned());
    };
    let root = written.root.map_or_else(|| Some(dialled.clone()), |root| Path::parse(&root).ok());
    let Some(root) = root.filter(|root| root.as_str().len() <= ROOT_BYTES_MAX) else {
        return Answer::Unavailable("`root` of its grant is not a path".to_owned());
    };
    let (Some(publish), Some(subscribe)) =
        (patterns(&written.publish), patterns(&written.subscribe))
    else {
        return Answer::Unavailable("its grant has something that is not a pattern".to_owned());
    };
    let (grant, expires) = (Grant::new(root, publish, subscribe), written.expires);
    match written.revalidate {
        _ if grant.is_empty() => Answer::Refused("nothing is granted".to_owned()),
        Some(_) if expires.is_none() => Answer::Invalid(Fault::Unbounded),
        Some(0) => Answer::Invalid(Fault::Ceaseless),
        _ if expires.is_some_and(|at| at <= now) => Answer::Invalid(Fault::Expired),
        _ if !written.mounts.is_empty() => Answer::Invalid(Fault::Mounts),
        every => {
            Answer::Granted(Terms { grant, expires, revalidate: every.map(Duration::from_secs) })
        }
    }
}

fn patterns(texts: &[String]) -> Option<Patterns> {
    let patterns = texts.iter().map(|text| text.parse().ok());
    if texts.len() > PATTERNS_MAX { None } else { patterns.collect() }
}

/// The first line of a refusal, for people.
fn reason(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = in_one_line(text.lines().next().unwrap_or_default().trim());
    match line.is_empty() {
        true => "it says no more".to_owned(),
        false => line[..line.floor_char_boundary(AUTHORITY_REASON_BYTES_MAX)].to_owned(),
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { transport, remote, dialled, role, .. } = self;
        f.debug_struct("Facts")
            .field("transport", transport)
            .field("remote", remote)
            .field("dialled", dialled)
            .field("role", role)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_748_116;

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn facts() -> Facts {
        Facts {
            transport: Transport::Quic,
            remote: "203.0.113.9:4433".parse().unwrap(),
            local: "[::1]:443".parse().unwrap(),
            server_name: Some("relay.example".to_owned()),
            alpn: Some("moq-lite-06"),
            tls: Some(Certificate {
                name: "edge0".to_owned(),
                fingerprint: "ab".repeat(32),
                expires: 4_102_444_800,
                issuer: "CN=cluster".to_owned(),
            }),
            dialled: Target::parse("/demo//room?jwt=a.b.c&x").unwrap(),
            role: Role::Publisher,
        }
    }

    #[test]
    fn their_library_reads_what_is_asked() {
        let connect = question("00ff", &Event::Connect, &facts());
        let read: moq_auth::Request = serde_json::from_slice(&connect).unwrap();
        assert_eq!((read.id.as_str(), &read.event), ("00ff", &moq_auth::Event::Connect));
        assert_eq!(read.transport, moq_auth::Transport::Quic);
        assert_eq!(read.remote.map(|at| at.to_string()).as_deref(), Some("203.0.113.9:4433"));
        assert_eq!(read.local.map(|at| at.to_string()).as_deref(), Some("[::1]:443"));
        assert_eq!(read.server_name.as_deref(), Some("relay.example"));
        assert_eq!(read.alpn.as_deref(), Some("moq-lite-06"));
        assert_eq!(
            (read.path.as_str(), read.query.as_deref()),
            ("/demo//room", Some("jwt=a.b.c&x"))
        );
        assert_eq!(read.role, Some(moq_auth::Role::Publisher));
        assert!(read.token.is_none() && read.node.is_empty());
        let tls = moq_auth::Peer {
            name: "edge0".to_owned(),
            fingerprint: "ab".repeat(32),
            expires: Some(std::time::UNIX_EPOCH + Duration::from_secs(4_102_444_800)),
            issuer: "CN=cluster".to_owned(),
        };
        assert_eq!(read.tls, Some(tls));

        let moved = Moved { sent: 10, received: 20 };
        let duration = Duration::from_millis(1500);
        let end = Event::End { reason: "expired".to_owned(), duration, moved };
        let bare = Facts {
            transport: Transport::Http,
            dialled: Target::default(),
            role: Role::Both,
            server_name: None,
            alpn: None,
            tls: None,
            ..facts()
        };
        let read: moq_auth::Request = serde_json::from_slice(&question("1", &end, &bare)).unwrap();
        let theirs = moq_auth::Event::End {
            reason: "expired".into(),
            duration,
            bytes: moq_auth::Bytes { sent: 10, received: 20 },
        };
        assert_eq!((read.event, read.transport), (theirs, moq_auth::Transport::Http));
        assert_eq!((read.path.as_str(), read.query, read.role, read.alpn), ("/", None, None, None));
        assert_eq!(read.tls, None);
        let again: moq_auth::Request =
            serde_json::from_slice(&question("1", &Event::Revalidate, &bare)).unwrap();
        assert_eq!(again.event, moq_auth::Event::Revalidate);
    }

    #[test]
    fn what_their_library_answers_is_read() {
        let set =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Patterns>();
        let mut theirs = moq_auth::Grant::new(set(&["alice/**"]), set(&["**", "x*"]));
        theirs.expires = Some(std::time::UNIX_EPOCH + Duration::from_secs(4_102_444_800));
        theirs.revalidate = Some(Duration::from_secs(60));
        theirs.tier = Some("gold".to_owned());
        theirs.peer = true;
        let mut expect = Terms {
            grant: Grant::new(path("demo/room"), set(&["alice/**"]), set(&["**"])),
            expires: Some(4_102_444_800),
            revalidate: Some(Duration::from_secs(60)),
        };
        let read = |theirs: &moq_auth::Grant| {
            answer(200, &serde_json::to_vec(theirs).unwrap(), &path("demo/room"), NOW)
        };
        assert_eq!(read(&theirs), Answer::Granted(expect.clone()));
        theirs.root = Some("pid/7".to_owned());
        expect.grant = Grant::new(path("pid/7"), set(&["alice/**"]), set(&["**"]));
        assert_eq!(read(&theirs), Answer::Granted(expect));
        theirs.mounts.insert(".svc".to_owned(), ".svc/pid".to_owned());
        assert_eq!(read(&theirs), Answer::Invalid(Fault::Mounts));
    }

    #[test]
    fn every_other_answer_lets_nobody_in() {
        let unavailable = |words: &str| Answer::Unavailable(words.to_owned());
        let refused = |words: &str| Answer::Refused(words.to_owned());
        let (no_grant, no_pattern) =
            ("its answer is not a grant in JSON", "its grant has something that is not a pattern");
        let many = format!(r#"{{"publish":[{}"b"]}}"#, r#""a","#.repeat(PATTERNS_MAX));
        let long = format!(r#"{{"publish":["a"],"root":"{}"}}"#, "x".repeat(ROOT_BYTES_MAX + 1));
        for (status, body, expect) in [
            (200, "{}", refused("nothing is granted")),
            (201, r#"{"publish":[],"expires":1}"#, refused("nothing is granted")),
            (200, r#"{"publish":["a"],"revalidate":5}"#, Answer::Invalid(Fault::Unbounded)),
            (
                200,
                r#"{"publish":["a"],"revalidate":0,"expires":9999999999}"#,
                Answer::Invalid(Fault::Ceaseless),
            ),
            (200, r#"{"publish":["a"],"expires":1795748116}"#, Answer::Invalid(Fault::Expired)),
            (200, "", unavailable(no_grant)),
            (200, "ok", unavailable(no_grant)),
            (200, "[]", refused("nothing is granted")),
            (200, r#"{"publish":"a"}"#, unavailable(no_grant)),
            (200, r#"{"publish":null}"#, unavailable(no_grant)),
            (200, r#"{"publish":["a"],"expires":1e400}"#, unavailable(no_grant)),
            (
                200,
                r#"{"publish":["a"],"expires":9999999999,"revalidate":-1}"#,
                unavailable(no_grant),
            ),
            (200, r#"{"publish":["a**"]}"#, unavailable(no_pattern)),
            (200, &many, unavailable(no_pattern)),
            (
                200,
                r#"{"publish":["a"],"root":"**"}"#,
                unavailable("`root` of its grant is not a path"),
            ),
            (200, &long, unavailable("`root` of its grant is not a path")),
            (204, "", unavailable(no_grant)),
            (302, r#"{"publish":["a"]}"#, unavailable("it answers with status 302")),
            (404, r#"{"publish":["a"]}"#, unavailable("it answers with status 404")),
            (500, "", unavailable("it answers with status 500")),
            (401, "", refused("it says no more")),
            (403, "no\tsuch room\nsecond", refused("no such room")),
            (403, &"é".repeat(500), refused(&"é".repeat(AUTHORITY_REASON_BYTES_MAX / 2))),
        ] {
            assert_eq!(answer(status, body.as_bytes(), &path("a"), NOW), expect, "{status} {body}");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        assert!(!format!("{:?}", facts()).contains("jwt"));
    }
}
