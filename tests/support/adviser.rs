//! What newer authorities have and Pebble of Debian has not: it stands before that one and says when certificates
//! are to be replaced (RFC 9773). All else is Pebble's.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::pebble::Pebble;

/// What it has been asked and told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// When this certificate is to be replaced.
    Asked(String),
    /// An order that was taken, and which certificate it is to replace.
    Ordered(Option<String>),
}

pub struct Adviser {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Adviser {
    /// Every certificate is to be replaced at once, as if something was wrong with all of them.
    pub async fn start(pebble: &Pebble) -> Adviser {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let desk = Arc::new(Desk {
            own: format!("https://localhost:{}", address.port()),
            pebble: pebble.directory().trim_end_matches("/dir").to_owned(),
            client: pebble.client(),
            heard: heard.clone(),
        });
        let acceptor = TlsAcceptor::from(Arc::new(pebble.server()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, desk) = (acceptor.clone(), desk.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let answer = service_fn(|request| {
                        let desk = desk.clone();
                        async move { Ok::<_, Infallible>(desk.answer(request).await) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    // Who leaves has heard what it wanted.
                    let _ = http.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Adviser { address, heard }
    }

    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.address.port())
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("heard").clone()
    }
}

struct Desk {
    own: String,
    pebble: String,
    client: legacy::Client<super::pebble::Https, Full<Bytes>>,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Desk {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        if let Some(id) = path.strip_prefix("/renewal/") {
            return self.advise(id);
        }
        let (mut head, body) = request.into_parts();
        let body = body.collect().await.expect("a whole request").to_bytes();
        let replaces = replaced(&body);
        head.uri = format!("{}{path}", self.pebble).parse().expect("a URL");
        let answer = self.client.request(Request::from_parts(head, Full::new(body))).await;
        let (mut head, body) = answer.expect("Pebble answers").into_parts();
        let mut body = body.collect().await.expect("a whole answer").to_bytes();
        let mut change = |name: &str, value: Value| {
            let mut changed: Value = serde_json::from_slice(&body).expect("JSON");
            changed[name] = value;
            body = changed.to_string().into();
        };
        match path.as_str() {
            "/dir" => change("renewalInfo", format!("{}/renewal", self.own).into()),
            // Pebble refuses one nonce in twenty, and what is refused is asked again.
            "/order-plz" if head.status.is_success() => {
                if let Some(replaces) = &replaces {
                    change("replaces", replaces.as_str().into());
                }
                self.heard.lock().expect("heard").push(Heard::Ordered(replaces));
            }
            _ => {}
        }
        head.headers.remove(CONTENT_LENGTH);
        Response::from_parts(head, Full::new(body))
    }

    fn advise(&self, id: &str) -> Response<Full<Bytes>> {
        self.heard.lock().expect("heard").push(Heard::Asked(id.to_owned()));
        let now = time::OffsetDateTime::now_utc();
        let at = |hours: i64| {
            let at = now + time::Duration::hours(hours);
            at.format(&time::format_description::well_known::Rfc3339).expect("a time")
        };
        let text = json!({ "suggestedWindow": { "start": at(-2), "end": at(-1) } });
        let answer = Response::builder().header(CONTENT_TYPE, "application/json");
        let answer = answer.header(RETRY_AFTER, "21600");
        answer.body(Full::new(text.to_string().into())).expect("an answer")
    }
}

/// What the payload of a signed message says that is to be replaced.
fn replaced(body: &[u8]) -> Option<String> {
    let message: Value = serde_json::from_slice(body).ok()?;
    let payload = URL_SAFE_NO_PAD.decode(message["payload"].as_str()?).ok()?;
    let payload: Value = serde_json::from_slice(&payload).ok()?;
    payload["replaces"].as_str().map(str::to_owned)
}
