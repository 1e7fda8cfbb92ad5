//! From HTTP to a session: a WebSocket is agreed on here (RFC 6455 §4), its client is let in by the shard
//! that has the fewest connections, and that then has the socket.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use aws_lc_rs::digest;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::mail::{ask, ask_all, hand_in};
use super::serve::Remote;
use super::{Site, busy, refusal};
use crate::limits::{LOADS_AGE_MAX, WEB_PROTOCOLS_MAX};
use crate::mailbox::Outside;
use crate::mux::Wire;
use crate::shard::entry::{Knock, Newcomer};
use crate::shard::message::ToShard;
use crate::shard::pipes::Caller;
use crate::tcp::Handover;
use crate::wire::Protocol;

/// What every server adds to a client's key before it answers with the sum (RFC 6455 §1.3).
const KEY_TAIL: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const VERSION: &str = "13";

/// In our order, newest first; each as clients prefix it, too.
const WIRES: [(&str, Wire); 3] =
    [("qmux-02", Wire::Qmux02), ("qmux-01", Wire::Qmux01), ("qmux-00", Wire::Qmux00)];

/// What is spoken from here on.
#[derive(Clone, Debug, PartialEq)]
struct Agreed {
    /// As the client has offered it.
    name: String,
    wire: Wire,
    protocol: Protocol,
}

/// Whether a request asks for another protocol than HTTP, and that is WebSocket. What the connection is not
/// said to do is meant for somebody else on the way (RFC 9110 §7.8).
pub fn is_wanted(headers: &HeaderMap) -> bool {
    let lists = |name, what| in_list(headers, name).any(|member| member.eq_ignore_ascii_case(what));
    lists(header::UPGRADE, "websocket") && lists(header::CONNECTION, "upgrade")
}

/// Whoever stands between may take what is about no host, or about two, for something else (RFC 9112 §3.2).
fn has_one_host(headers: &HeaderMap) -> bool {
    headers.get_all(header::HOST).into_iter().count() == 1
}

/// Its bytes would be taken for the first messages.
fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// The members of a list that may be in several fields.
fn in_list(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let fields = headers.get_all(name).into_iter();
    let lists = fields.filter_map(|field| field.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim)
}

/// The first of ours that the client offers: a version of moq-lite on a draft of qmux or, without a version,
/// the draft alone, and then a SETUP tells.
fn agree(headers: &HeaderMap) -> Option<Agreed> {
    let offered: Vec<&str> =
        in_list(headers, header::SEC_WEBSOCKET_PROTOCOL).take(WEB_PROTOCOLS_MAX).collect();
    let with_version = Protocol::ALL.into_iter().flat_map(|protocol| {
        WIRES.map(|(name, wire)| (format!("{name}.{}", protocol.name()), wire, protocol))
    });
    let alone = WIRES.map(|(name, wire)| (name.to_owned(), wire, Protocol::Legacy));
    with_version
        .chain(alone)
        .find(|(name, ..)| offered.contains(&name.as_str()))
        .map(|(name, wire, protocol)| Agreed { name, wire, protocol })
}

/// What proves that the request was read by a server of WebSockets.
fn accept_of(key: &[u8]) -> String {
    let sum = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &[key, KEY_TAIL].concat());
    BASE64_STANDARD.encode(sum)
}

/// Answers a request for a WebSocket at whatever path.
pub(super) async fn serve(site: &Site, mut request: Request) -> Response {
    let Site { shards, loads, refusals, .. } = site;
    let remote = request.extensions().get().map(|Remote(remote)| *remote);
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (Some(remote), Some(upgrade)) = (remote, upgrade) else {
        return refusal(StatusCode::BAD_REQUEST, "this connection cannot become a WebSocket");
    };
    let headers = request.headers();
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    if version.is_none_or(|version| version != VERSION) {
        let refused = refusal(StatusCode::UPGRADE_REQUIRED, "only WebSocket version 13");
        return ([(header::SEC_WEBSOCKET_VERSION, VERSION)], refused).into_response();
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let key = key.filter(|key| BASE64_STANDARD.decode(key).is_ok_and(|key| key.len() == 16));
    let is_http1 = request.version() == Version::HTTP_11 && request.method() == Method::GET;
    let (Some(key), true) = (key, is_http1 && has_one_host(headers) && !has_body(headers)) else {
        return refusal(StatusCode::BAD_REQUEST, "this is no request for a WebSocket");
    };
    let Some(agreed) = agree(headers) else {
        let words =
            "no protocol in common: moq-lite over WebSocket is qmux-02.moq-lite-06 and the like";
        refusals.note_for(remote, request.uri().path(), "protocol", words);
        return refusal(StatusCode::BAD_REQUEST, words);
    };
    let accept = accept_of(key);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let caller = Caller {
        remote,
        local_ip: None,
        server_name: host.map(|host| without_port(host).to_ascii_lowercase()),
        certificate: None,
    };
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let Some(shard) = loads.least(shards).await else {
        return busy("no shard answers, or the relay is stopping");
    };
    let (protocol, wire) = (agreed.protocol, agreed.wire);
    let shard = shards[shard].clone();
    let knock =
        |line| ToShard::Knock(Box::new(Knock { target, protocol, caller: caller.clone(), line }));
    let entry = match ask(&shard, knock).await {
        Some(Ok(entry)) => entry,
        Some(Err((status, words))) => return refusal(status.code(), words),
        None => return busy("a shard does not answer, or the relay is stopping"),
    };
    tokio::spawn(async move {
        let handover = match upgrade.await.map(hand_over) {
            Ok(Some(handover)) => handover,
            // The client has left before it was answered.
            _ => return,
        };
        let newcomer = Newcomer { handover, caller, wire, protocol, entry };
        hand_in(&shard, ToShard::TakeOver(Box::new(newcomer))).await;
    });
    let stated = [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, accept.as_str()),
        (header::SEC_WEBSOCKET_PROTOCOL, agreed.name.as_str()),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, stated, Body::empty()).into_response()
}

/// The socket, and what the client has said behind its request.
fn hand_over(upgraded: Upgraded) -> Option<Handover> {
    let (stream, tls, early) = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(plain) => (plain.io.into_inner(), None, plain.read_buf),
        Err(upgraded) => {
            let parts = upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>().ok()?;
            let (stream, tls) = parts.io.into_inner().into_inner();
            (stream, Some(Box::new(tls)), parts.read_buf)
        }
    };
    Some(Handover { stream: stream.into_std().ok()?, tls, early: early.into() })
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// How many connections each shard has, as was known a moment ago.
#[derive(Default)]
pub struct Loads {
    known: Mutex<Option<(Instant, Vec<usize>)>>,
}

impl Loads {
    /// The shard with the fewest connections, which is about to get one more.
    async fn least(&self, shards: &[Outside<ToShard>]) -> Option<usize> {
        if self.fresh().is_none() {
            let loads = loads(shards).await;
            *self.lock() = Some((Instant::now(), loads));
        }
        let mut known = self.lock();
        let (_, loads) = known.as_mut()?;
        let least = (0..loads.len()).min_by_key(|shard| loads[*shard])?;
        if loads[least] == usize::MAX {
            *known = None;
            return None;
        }
        loads[least] += 1;
        Some(least)
    }

    fn fresh(&self) -> Option<Instant> {
        let known = self.lock().as_ref().map(|(at, _)| *at);
        known.filter(|at| at.elapsed() < LOADS_AGE_MAX)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Vec<usize>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of one that does not answer, as many as nobody has.
async fn loads(shards: &[Outside<ToShard>]) -> Vec<usize> {
    let loads = ask_all(shards, |line| ToShard::Load { line }).await;
    loads.into_iter().map(|load| load.unwrap_or(usize::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Version as Moq;

    fn headers(fields: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, field.parse().unwrap());
        }
        headers
    }

    #[track_caller]
    fn check(fields: &[&str], expect: Option<(&str, Wire, Protocol)>) {
        let agreed = agree(&headers(fields));
        let agreed =
            agreed.as_ref().map(|agreed| (agreed.name.as_str(), agreed.wire, agreed.protocol));
        assert_eq!(agreed, expect, "{fields:?}");
    }

    #[test]
    fn what_released_clients_offer_is_agreed_on_in_our_order() {
        let lite = |version| Protocol::Version(version);
        // @moq/net 0.3.4
        let newest = "qmux-02.moq-lite-05, qmux-01.moq-lite-05, qmux-00.moq-lite-05, qmux-02.moq-lite-04, \
                      qmux-01.moq-lite-04, qmux-02.moql, qmux-01.moqt-20, qmux-02, qmux-01, webtransport";
        check(&[newest], Some(("qmux-02.moq-lite-05", Wire::Qmux02, lite(Moq::Lite05))));
        // @moq/publish 0.2.17
        let publisher = "qmux-01, qmux-00, webtransport";
        check(&[publisher], Some(("qmux-01", Wire::Qmux01, Protocol::Legacy)));
        // Native ones, and fields of their own.
        let native = ["qmux-00.moq-lite-03", "qmux-00.moq-lite-06,qmux-01.moq-lite-06"];
        check(&native, Some(("qmux-01.moq-lite-06", Wire::Qmux01, lite(Moq::Lite06))));
        check(&["qmux-00", "qmux-00.moql"], Some(("qmux-00.moql", Wire::Qmux00, Protocol::Legacy)));
        for nothing in
            [&[][..], &[""], &["webtransport"], &["moq-lite-05"], &["qmux-03.moq-lite-05"]]
        {
            check(nothing, None);
        }
    }

    #[test]
    fn the_answer_to_a_key_is_that_of_the_standard() {
        assert_eq!(accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn hosts_are_known_without_their_port() {
        for (host, name) in [
            ("relay.example", "relay.example"),
            ("a:443", "a"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(without_port(host), name);
        }
    }
}
