//! The list of relays that changes: a file that is looked at, or a server that is asked.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{CACHE_CONTROL, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use tokio::time::timeout;

use crate::config::{Entry, ListSource};
use crate::files;
use crate::limits::{
    LIST_ANSWER_MAX, LIST_ASKED_AFTER, LIST_ASKED_AFTER_MAX, LIST_BYTES_MAX, LIST_FILE_LOOK,
};
use crate::tls::outgoing;

/// What became of a look.
pub enum Looked {
    Same,
    New(Vec<Entry>),
    Bad(String),
}

pub struct List {
    source: ListSource,
    /// This relay, as the server knows it.
    node: Option<String>,
    /// What was there last, good or bad.
    seen: Option<Vec<u8>>,
    /// What is wrong with that.
    fault: Option<String>,
    tag: Option<HeaderValue>,
}

impl List {
    pub fn new(source: ListSource, node: Option<String>) -> List {
        List { source, node, seen: None, fault: None, tag: None }
    }

    /// Where it is, without what may be secret.
    pub fn shown(&self) -> String {
        self.source.shown()
    }

    /// What is wrong with what it said last.
    pub fn fault(&self) -> Option<String> {
        self.fault.clone()
    }

    /// What has changed, and when to look again. `tls` is what servers are asked with.
    pub async fn look(
        &mut self,
        tls: impl FnOnce() -> Result<ClientConfig, String>,
    ) -> (Looked, Duration) {
        let (read, again) = match self.source.clone() {
            ListSource::File(path) => {
                let read = read_file(&path).map_err(|error| error.to_string());
                (read.map(Some), LIST_FILE_LOOK)
            }
            ListSource::Url(url) => match tls() {
                Ok(tls) => self.ask(&url, tls).await,
                Err(error) => (Err(error), LIST_ASKED_AFTER),
            },
        };
        let looked = match read {
            Ok(None) => Looked::Same,
            Ok(Some(bytes)) if bytes.len() > LIST_BYTES_MAX => Looked::Bad("it is too long".into()),
            Ok(Some(bytes)) if self.seen.as_ref() == Some(&bytes) => Looked::Same,
            Ok(Some(bytes)) => {
                let entries = Entry::list(&bytes).map_err(|error| error.to_string());
                self.seen = Some(bytes);
                self.fault = entries.as_ref().err().cloned();
                entries.map_or_else(Looked::Bad, Looked::New)
            }
            Err(error) => Looked::Bad(error),
        };
        (looked, again)
    }

    async fn ask(
        &mut self,
        url: &Uri,
        tls: ClientConfig,
    ) -> (Result<Option<Vec<u8>>, String>, Duration) {
        let asked = timeout(LIST_ANSWER_MAX, self.get(url, tls)).await;
        let late = |_| Err(format!("it has not answered within {LIST_ANSWER_MAX:?}"));
        match asked.unwrap_or_else(late) {
            Ok((bytes, again)) => (Ok(bytes), again),
            Err(error) => (Err(error), LIST_ASKED_AFTER),
        }
    }

    async fn get(
        &mut self,
        url: &Uri,
        tls: ClientConfig,
    ) -> Result<(Option<Vec<u8>>, Duration), String> {
        let connector: HttpsConnector<HttpConnector> = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        let client =
            legacy::Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
        let mut request = Request::get(asked_for(url, self.node.as_deref()));
        if let Some(tag) = &self.tag {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
        let answer = client.request(request).await.map_err(|error| outgoing::words(&error))?;
        let again = asked_after(answer.headers());
        match answer.status() {
            StatusCode::NOT_MODIFIED => return Ok((None, again)),
            StatusCode::OK => {}
            status => return Err(format!("it answers {status}")),
        }
        let tag = answer.headers().get(ETAG).cloned();
        let body = Limited::new(answer.into_body(), LIST_BYTES_MAX).collect().await;
        let body = body.map_err(|error| outgoing::words(&*error))?;
        self.tag = tag;
        Ok((Some(body.to_bytes().to_vec()), again))
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    files::read_regular(path, LIST_BYTES_MAX as u64)
}

/// What a list that is a file says, for whoever looks before there is a relay.
pub fn list_in(path: &Path) -> Result<Vec<Entry>, String> {
    let bytes = read_file(path).map_err(|error| error.to_string())?;
    Entry::list(&bytes).map_err(|error| error.to_string())
}

/// The URL with the name of this relay.
fn asked_for(url: &Uri, node: Option<&str>) -> String {
    let url = url.to_string();
    let Some(node) = node else { return url };
    let node: String = form_urlencoded::byte_serialize(node.as_bytes()).collect();
    let mark = if url.contains('?') { '&' } else { '?' };
    format!("{url}{mark}node={node}")
}

/// When it wants to be asked again.
fn asked_after(headers: &HeaderMap) -> Duration {
    let said = headers.get_all(CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
    let ages = said.flat_map(|value| value.split(',')).filter_map(|word| {
        let seconds = word.trim().strip_prefix("max-age=")?;
        seconds.parse().ok().map(Duration::from_secs)
    });
    ages.max().unwrap_or_default().clamp(LIST_ASKED_AFTER, LIST_ASKED_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_is_asked_and_how_often() {
        let url = |text: &'static str| Uri::from_static(text);
        assert_eq!(asked_for(&url("http://api/list"), None), "http://api/list");
        assert_eq!(
            asked_for(&url("http://api/list?a=1"), Some("moqt://b:1/")),
            "http://api/list?a=1&node=moqt%3A%2F%2Fb%3A1%2F"
        );
        for (says, after) in [
            (None, LIST_ASKED_AFTER),
            (Some("no-cache"), LIST_ASKED_AFTER),
            (Some("max-age=1"), LIST_ASKED_AFTER),
            (Some("public, max-age=90"), Duration::from_secs(90)),
            (Some("max-age=99999999"), LIST_ASKED_AFTER_MAX),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(says.map(|says| (CACHE_CONTROL, HeaderValue::from_static(says))));
            assert_eq!(asked_after(&headers), after, "{says:?}");
        }
    }

    #[tokio::test]
    async fn a_file_is_news_when_it_changes_and_bad_ones_are_told_once() {
        let path = std::env::temp_dir().join(format!("shardcast-list-{}", std::process::id()));
        let mut list = List::new(ListSource::File(path.clone()), None);
        let mut look = async || {
            let (looked, again) = list.look(|| Err("no TLS".to_owned())).await;
            assert_eq!(again, LIST_FILE_LOOK);
            match looked {
                Looked::Same => "same".to_owned(),
                Looked::New(entries) => format!("{entries:?}"),
                Looked::Bad(error) => error,
            }
        };
        assert!(look().await.contains("No such file"));
        std::fs::write(&path, r#"["moqt://b"]"#).expect("a file");
        assert_eq!(look().await, "[moqt://b:443/ at None]");
        assert_eq!(look().await, "same");
        std::fs::write(&path, "[7]").expect("a file");
        assert!(look().await.contains("entry 1 of the list"));
        assert_eq!(look().await, "same");
        std::fs::write(&path, "[]").expect("a file");
        assert_eq!(look().await, "[]");
        std::fs::remove_file(&path).expect("it is there");
    }
}
