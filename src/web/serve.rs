//! TCP connections that ask one thing each: taken, bounded in number and time, and answered by the routes
//! of a listener.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::uri::Scheme;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_lite::future;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::heads::{Head, Heads};
use crate::limits::{
    ACCEPT_PAUSE, FAULT_LINE_INTERVAL, WEB_CONNECTION_TIME_MAX, WEB_CONNECTIONS_MAX,
    WEB_HANDSHAKE_TIMEOUT, WEB_HEAD_BYTES_MAX, WEB_HEAD_TIMEOUT,
};
use crate::source::ClientBounds;

/// Connections that one listener could not take, and requests that were turned away, by why.
#[derive(Debug, Default)]
pub struct Accepts {
    /// They were gone, the process had too little of something, or it was something else.
    pub connection: AtomicU64,
    pub exhausted: AtomicU64,
    pub unknown: AtomicU64,
    stalled_since: Mutex<Option<Instant>>,
}

impl Accepts {
    /// Since when connections wait because none can be taken.
    pub fn stalled(&self) -> Duration {
        self.stalled_since().map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn stalled_since(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.stalled_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn took(&self) {
        *self.stalled_since() = None;
    }

    /// Whether it is for want of something.
    fn failed(&self, error: &std::io::Error) -> bool {
        let class = match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => &self.exhausted,
            Some(libc::ECONNABORTED | libc::ECONNRESET | libc::EPERM | libc::EPROTO) => {
                &self.connection
            }
            _ => &self.unknown,
        };
        class.fetch_add(1, Ordering::Relaxed);
        let is_exhausted = std::ptr::eq(class, &self.exhausted);
        if is_exhausted {
            self.stalled_since().get_or_insert_with(Instant::now);
        }
        is_exhausted
    }
}

/// Room for connections, which listeners may share.
#[derive(Clone)]
pub struct Room {
    places: Arc<Semaphore>,
    heads: Arc<Heads>,
    /// Which addresses are counted.
    bounds: Arc<ClientBounds>,
}

impl Room {
    pub fn new(bounds: ClientBounds) -> Room {
        let places = Arc::new(Semaphore::new(WEB_CONNECTIONS_MAX));
        Room { places, heads: Arc::default(), bounds: Arc::new(bounds) }
    }
}

/// Whether connections are taken, or left to another process that has the same listener.
pub type Gate = watch::Receiver<bool>;

/// The next connection that is this process's to take.
async fn next(
    listener: &tokio::net::TcpListener,
    gate: &mut Gate,
) -> std::io::Result<(TcpStream, SocketAddr)> {
    loop {
        if gate.wait_for(|is_open| *is_open).await.is_err() {
            // Nobody is left who could open it.
            future::pending::<()>().await;
        }
        let taken = async { Some(listener.accept().await) };
        let closed = async {
            let _ = gate.changed().await;
            None
        };
        if let Some(taken) = future::or(taken, closed).await {
            return taken;
        }
    }
}

/// Takes connections for as long as it is polled, over TLS if there is something to take them with.
pub async fn accept(
    listener: tokio::net::TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    (room, mut gate): (Room, Gate),
    accepts: Arc<Accepts>,
) {
    let Room { places, heads, bounds } = room;
    let mut told_at: Option<Instant> = None;
    loop {
        let (stream, remote) = match next(&listener, &mut gate).await {
            Ok(accepted) => {
                accepts.took();
                accepted
            }
            Err(error) => {
                let is_ours = accepts.failed(&error);
                if is_ours && told_at.is_none_or(|at| at.elapsed() >= FAULT_LINE_INTERVAL) {
                    told_at = Some(Instant::now());
                    tracing::warn!(
                        %error,
                        "HTTP connections wait because none can be accepted: raise the limit of open files \
                         (`ulimit -n`, LimitNOFILE=)"
                    );
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let cut = Cut::default();
        let source = bounds.source_at(remote.ip());
        let Some(head) = heads.begin(source, cut.0.clone()) else { continue };
        let place = places.clone().acquire_owned().await.expect("it is never closed");
        let router = TowerToHyperService::new(router.clone());
        let scheme = if tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let connection =
            Connection { head, cut: cut.clone(), remote: Remote(remote), scheme, router };
        let tls = tls.clone();
        tokio::spawn(async move {
            let served = serve(stream, tls, connection);
            let _ = timeout(WEB_CONNECTION_TIME_MAX, future::or(served, cut.0.notified())).await;
            drop(place);
        });
    }
}

/// What cuts a connection off, whatever it does. Every request carries its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Cut(pub(super) Arc<Notify>);

/// Where a request comes from. Every request carries it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote(pub(super) SocketAddr);

/// The routes, as one connection has them.
struct Connection {
    head: Head,
    cut: Cut,
    remote: Remote,
    /// As clients write it.
    scheme: Scheme,
    router: TowerToHyperService<Router>,
}

impl Service<hyper::Request<Incoming>> for Connection {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, mut request: hyper::Request<Incoming>) -> Self::Future {
        self.head.end();
        request.extensions_mut().insert(self.cut.clone());
        request.extensions_mut().insert(self.remote);
        request.extensions_mut().insert(self.scheme.clone());
        let answer = self.router.call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(header::CONNECTION, close);
            }
            Ok(answer)
        })
    }
}

/// What TLS makes of a connection is given on as it is: it can be taken apart into the socket and the state of
/// TLS again.
async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, connection: Connection) {
    // Frames are passed on as they come.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return answer(stream, connection).await };
    match timeout(WEB_HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => answer(stream, connection).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// One request, so that every connection has an end that can be foretold.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Connection,
) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(WEB_HEAD_TIMEOUT)
        .max_buf_size(WEB_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), connection)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection broke off");
    }
}
