//! An auth server that says what a play wants said, or what the reference server says, and remembers what it
//! was asked.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use moq_auth::{Event, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

/// Longer than anything that a play waits for may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

type Answer = (StatusCode, String);
type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Opinion = dyn Fn(Request) -> Answering + Send + Sync;

#[derive(Clone)]
pub struct Judge {
    answer: Arc<Mutex<Arc<Opinion>>>,
    asked: Arc<watch::Sender<Vec<Request>>>,
    /// Headers of the last question.
    pub headers: Arc<Mutex<HeaderMap>>,
    connections: Arc<AtomicUsize>,
}

impl Judge {
    pub fn new(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Judge {
        let judge = Judge {
            answer: Arc::new(Mutex::new(Arc::new(|_| unreachable!("it is set below")))),
            asked: Arc::default(),
            headers: Arc::default(),
            connections: Arc::default(),
        };
        judge.says(answer);
        judge
    }

    /// The reference server, with its policy.
    pub fn by(policy: moq_auth::serve::Policy) -> Judge {
        let judge = Judge::new(|_| unreachable!("it is set below"));
        let server = moq_auth::serve::Server::new(policy).unwrap();
        *judge.answer.lock().unwrap() = Arc::new(move |request| {
            let server = server.clone();
            Box::pin(async move {
                match server.answer(&request).await {
                    Ok(Some(grant)) => (StatusCode::OK, serde_json::to_string(&grant).unwrap()),
                    Ok(None) => (StatusCode::NO_CONTENT, String::new()),
                    Err(refusal) => (StatusCode::FORBIDDEN, refusal.to_string()),
                }
            })
        });
        judge
    }

    /// From now on it says this.
    pub fn says(&self, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) {
        *self.answer.lock().unwrap() =
            Arc::new(move |request| Box::pin(std::future::ready(answer(&request))));
    }

    /// From now on it says nothing.
    pub fn hangs(&self) {
        *self.answer.lock().unwrap() = Arc::new(|_| Box::pin(std::future::pending()));
    }

    fn router(&self) -> Router {
        let judge = self.clone();
        let answer = async move |headers: HeaderMap, body: Bytes| {
            assert_eq!(headers[header::CONTENT_TYPE], "application/json");
            let request: Request = serde_json::from_slice(&body).unwrap();
            *judge.headers.lock().unwrap() = headers;
            judge.asked.send_modify(|asked| asked.push(request.clone()));
            let answer = judge.answer.lock().unwrap().clone();
            answer(request).await
        };
        Router::new().route("/", post(answer.clone())).route("/moq/auth", post(answer))
    }

    /// On loopback.
    pub async fn at_http(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let judge = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(judge.clone().serve(stream));
            }
        });
        at
    }

    pub async fn at_socket(&self, path: &PathBuf) {
        let listener = UnixListener::bind(path).unwrap();
        let judge = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(judge.clone().serve(stream));
            }
        });
    }

    pub async fn at_https(&self, tls: rustls::ServerConfig) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let judge = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, judge) = (acceptor.clone(), judge.clone());
                tokio::spawn(async move {
                    // Who does not believe us hangs up.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        judge.serve(stream).await;
                    }
                });
            }
        });
        at
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let service = TowerToHyperService::new(self.router());
        let http = hyper::server::conn::http1::Builder::new();
        let _ = http.serve_connection(TokioIo::new(stream), service).await;
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Waits for a question, which may have come already.
    pub async fn was_asked(&self, what: &str, is_it: impl Fn(&Request) -> bool) -> Request {
        let mut asked = self.asked.subscribe();
        let found = async {
            let all = asked.wait_for(|all| all.iter().any(&is_it)).await.unwrap();
            all.iter().find(|request| is_it(request)).unwrap().clone()
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("never asked {what}: {:?}", *self.asked.borrow()))
    }

    /// Waits until it was asked so often in all.
    pub async fn was_asked_more(&self, count: usize) {
        let mut asked = self.asked.subscribe();
        let all = asked.wait_for(|all| all.len() >= count);
        tokio::time::timeout(PATIENCE, all).await.expect("it is asked again").unwrap();
    }

    pub async fn was_told_of_end(&self, id: &str) -> (String, moq_auth::Bytes) {
        let is_end =
            |request: &Request| request.id == id && matches!(request.event, Event::End { .. });
        match self.was_asked("of an end", is_end).await.event {
            Event::End { reason, bytes, .. } => (reason.to_string(), bytes),
            _ => unreachable!("it was looked for"),
        }
    }

    pub fn asked(&self) -> Vec<Request> {
        self.asked.borrow().clone()
    }
}

pub fn grants(json: &str) -> impl Fn(&Request) -> Answer + use<> {
    let json = json.to_owned();
    move |request| match request.event {
        Event::End { .. } => (StatusCode::NO_CONTENT, String::new()),
        _ => (StatusCode::OK, json.clone()),
    }
}
