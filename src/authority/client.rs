//! One POST to the auth server: over TLS, in the clear on this machine, or over a Unix socket. Connections
//! are kept and used again.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::desk::Outcome;
use crate::config::{AuthPlace, AuthUrl};
use crate::limits::{
    AUTHORITY_ANSWER_BYTES_MAX, AUTHORITY_CONNECTION_IDLE, AUTHORITY_REQUESTS_MAX,
};
use crate::tls::outgoing;

/// Who vouches for the server's certificate.
pub enum Roots {
    /// Whom this machine trusts, or the file that `SSL_CERT_FILE` names.
    System,
    These(RootCertStore),
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no root certificates are found on this machine, and nobody can vouch for {0}; install \
         ca-certificates, or name a PEM file in SSL_CERT_FILE"
    )]
    NoRoots(String),
    #[error("cannot set TLS up: {0}")]
    Tls(#[from] rustls::Error),
}

#[derive(Clone)]
pub struct Client {
    way: Way,
    uri: Uri,
    authorization: Option<HeaderValue>,
}

#[derive(Clone)]
enum Way {
    Web(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
    Unix(legacy::Client<Socket, Full<Bytes>>),
}

impl Client {
    pub fn new(url: &AuthUrl, roots: Roots) -> Result<Client, ClientError> {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.pool_timer(hyper_util::rt::TokioTimer::new());
        builder.pool_idle_timeout(AUTHORITY_CONNECTION_IDLE);
        builder.pool_max_idle_per_host(AUTHORITY_REQUESTS_MAX);
        match &url.place {
            AuthPlace::Unix(path) => {
                let way = Way::Unix(builder.build(Socket(path.clone())));
                let uri = Uri::from_static("http://localhost/");
                Ok(Client { way, uri, authorization: None })
            }
            AuthPlace::Web { uri, authorization } => {
                let tls = tls(url, roots)?;
                let connector = HttpsConnectorBuilder::new()
                    .with_tls_config(tls)
                    .https_or_http()
                    .enable_http1()
                    .build();
                let way = Way::Web(builder.build(connector));
                Ok(Client { way, uri: uri.clone(), authorization: authorization.clone() })
            }
        }
    }

    pub async fn post(&self, body: Vec<u8>, within: Duration) -> Outcome {
        let mut request = Request::post(self.uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .expect("all of it is checked");
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let answered = async {
            let answer = match &self.way {
                Way::Web(client) => client.request(request).await,
                Way::Unix(client) => client.request(request).await,
            };
            let answer = answer.map_err(|error| outgoing::words(&error))?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), AUTHORITY_ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| outgoing::words(&*error))?;
            Ok((status, body.to_bytes().to_vec()))
        };
        let late = |_| Err(format!("it has not answered within {within:.0?}"));
        timeout(within, answered).await.unwrap_or_else(late)
    }
}

fn tls(url: &AuthUrl, roots: Roots) -> Result<ClientConfig, ClientError> {
    let roots = match roots {
        Roots::These(roots) => roots,
        Roots::System => match url.is_https() {
            true => {
                outgoing::system_roots().ok_or_else(|| ClientError::NoRoots(url.to_string()))?
            }
            false => RootCertStore::empty(),
        },
    };
    Ok(outgoing::config(roots)?)
}

/// Dials a Unix socket, whatever the request's URL says.
#[derive(Clone)]
struct Socket(PathBuf);

impl tower_service::Service<Uri> for Socket {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<TokioIo<UnixStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { UnixStream::connect(path).await.map(TokioIo::new) })
    }
}
