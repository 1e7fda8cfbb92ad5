//! HTTPS to the authority.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use bytes::Bytes;
use http_body_util::Limited;
use hyper::Request;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use tokio::time::timeout;

use crate::limits::{ACME_ANSWER_BYTES_MAX, ACME_ANSWER_MAX};
use crate::tls::{TlsError, outgoing};

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no root certificates are found on this machine, and nobody can vouch for the authority; install \
         ca-certificates"
    )]
    NoRoots,
    #[error("{0}")]
    Tls(#[from] TlsError),
}

#[derive(Clone)]
pub struct Client(legacy::Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>);

impl Client {
    /// Whoever is in the file vouches for the authority, or whom this machine trusts.
    pub fn new(root: Option<&Path>) -> Result<Client, ClientError> {
        let roots = match root {
            Some(path) => outgoing::roots_in(path)?,
            None => outgoing::system_roots().ok_or(ClientError::NoRoots)?,
        };
        let tls = outgoing::config(roots).map_err(TlsError::from)?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        Ok(Client(legacy::Client::builder(TokioExecutor::new()).build(connector)))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let answer = self.0.request(request);
        Box::pin(async move {
            let failed = |words: String| instant_acme::Error::Other(words.into());
            let late = |_| failed(format!("{host} has not answered within {ACME_ANSWER_MAX:?}"));
            let answer = timeout(ACME_ANSWER_MAX, answer).await.map_err(late)?;
            let answer =
                answer.map_err(|error| failed(format!("{host}: {}", outgoing::words(&error))))?;
            Ok(answer.map(|body| Limited::new(body, ACME_ANSWER_BYTES_MAX)).into())
        })
    }
}
