//! HTTP beside the relay, on TCP, for people, for scripts and for clients that want to pin the
//! certificate.
//!
//! One thread of its own serves it, and asks the shards by mail. No shard ever waits for it: they
//! answer through lines that take at once what they take at all. Whatever a client costs is bounded
//! here: connections, heads, time, groups at once, bytes that it does not read.

mod fetch;
mod heads;
mod health;
mod listen;
mod listing;
mod mail;
mod page;
pub mod payload;

pub use fetch::Wanted;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures_lite::{future, stream};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::access::{Access, Grant, Refusal, Target, Token};
use crate::authority::contract::{Facts, Moved, Transport};
use crate::authority::{self, Asker, News};
use crate::limits::{
    FAULT_LINE_INTERVAL, WEB_CONNECTION_TIME_MAX, WEB_CONNECTIONS_MAX, WEB_HEAD_BYTES_MAX,
    WEB_HEAD_TIMEOUT, WEB_LISTINGS_MAX,
};
use crate::origin::Origins;
use crate::shard::mailbox::Outside;
use crate::shard::message::ToShard;
use crate::wire::{Path, Role};

use heads::{Head, Heads};

pub use listen::{ListenError, listen};

/// How much less than a shard the thread is worth to the scheduler where both want the same core,
/// as `nice` counts it: about a tenth.
const NICENESS: libc::c_int = 10;

/// Before the next try where the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What clients are told of this relay.
#[derive(Clone, Debug)]
pub struct About {
    /// The address of the QUIC listener.
    pub addr: SocketAddr,
    pub fingerprint: [u8; 32],
    pub expires: OffsetDateTime,
    /// Nobody vouches for the certificate: clients pin it.
    pub is_self_signed: bool,
    /// What everybody may, in words, and a path at which that is both to publish and to watch.
    pub access: String,
    pub open_at: Option<String>,
    /// The pages of browsers that may ask.
    pub origins: Origins,
}

/// HTTP that runs.
pub struct Web {
    addr: SocketAddr,
    thread: JoinHandle<()>,
    /// Dropped to stop it.
    stop: oneshot::Sender<Infallible>,
}

struct Site {
    about: About,
    access: watch::Receiver<Arc<Access>>,
    authority: Option<authority::Handle>,
    shards: Vec<Outside<ToShard>>,
    checks: mpsc::UnboundedSender<health::Asker>,
    listings: mpsc::UnboundedSender<listing::Asker>,
    /// Places for those who read one.
    readers: Arc<Semaphore>,
    fetches: fetch::Fetches,
}

impl Site {
    /// What the sender of a request may watch who wants to be at a path.
    async fn admit(
        &self,
        path: &Path,
        query: Option<&str>,
        remote: SocketAddr,
    ) -> Result<Grant, Refusal> {
        self.grant(path, query, remote).await?.for_role(Role::Subscriber)
    }

    async fn grant(
        &self,
        path: &Path,
        query: Option<&str>,
        remote: SocketAddr,
    ) -> Result<Grant, Refusal> {
        if let Some(authority) = &self.authority {
            return ask(authority, path, query, remote).await;
        }
        let token = query.and_then(|query| Token::find_in(&format!("?{query}")));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let access = self.access.borrow().clone();
        let admission = access.admit(path, token.as_ref().map(Token::as_str), now as i64)?;
        Ok(admission.grant)
    }
}

/// The auth server is told of a session that is over when it has begun.
async fn ask(
    authority: &authority::Handle,
    path: &Path,
    query: Option<&str>,
    remote: SocketAddr,
) -> Result<Grant, Refusal> {
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    let dialled = Target::parse(&format!("/{path}{query}")).map_err(|_| Refusal::NoAccess)?;
    let facts = Facts {
        transport: Transport::Http,
        remote,
        local: authority.local(),
        server_name: None,
        alpn: None,
        tls: None,
        dialled,
        role: Role::Both,
    };
    let (asker, news) = oneshot::channel();
    let lease = authority.ask(Asker::Request(asker), facts);
    let news = news.await;
    authority.end(lease, "closed", Moved::default());
    match news {
        Ok(News::Admitted(admission)) => Ok(admission.grant),
        Ok(News::Over(refusal)) => Err(refusal),
        Ok(News::Until(_)) | Err(_) => Err(Refusal::ServerAway),
    }
}

/// Serves what comes to `listener`, which does not block.
pub fn start(
    listener: TcpListener,
    about: About,
    (access, authority): (watch::Receiver<Arc<Access>>, Option<authority::Handle>),
    shards: Vec<Outside<ToShard>>,
) -> io::Result<Web> {
    let addr = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let (stop, stopped) = oneshot::channel();
    let body = move || {
        // SAFETY: no preconditions. Zero is this thread, and a refusal changes nothing.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
        let (listings, asked) = mpsc::unbounded_channel();
        runtime.spawn(listing::answer(shards.clone(), asked));
        let (checks, asked) = mpsc::unbounded_channel();
        runtime.spawn(health::answer(shards.clone(), asked));
        let fetches = fetch::Fetches::new();
        let readers = Arc::new(Semaphore::new(WEB_LISTINGS_MAX));
        let site =
            Arc::new(Site { about, access, authority, shards, checks, listings, readers, fetches });
        let stopped = async {
            let _ = stopped.await;
        };
        runtime.block_on(future::or(stopped, accept(listener, router(site))));
    };
    let thread = std::thread::Builder::new().name("web".to_owned()).spawn(body)?;
    Ok(Web { addr, thread, stop })
}

impl Web {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Cuts every connection off.
    pub fn stop(self) -> std::thread::Result<()> {
        drop(self.stop);
        self.thread.join()
    }
}

async fn accept(listener: tokio::net::TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(WEB_CONNECTIONS_MAX));
    let heads = Arc::new(Heads::default());
    let mut told_at: Option<Instant> = None;
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                let is_ours = matches!(
                    error.raw_os_error(),
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
                );
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
        if places.available_permits() == 0 {
            heads.drop_oldest();
        }
        let place = places.clone().acquire_owned().await.expect("it is never closed");
        let cut = Cut::default();
        let head = heads.begin(cut.0.clone());
        let router = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let served = serve(
                stream,
                Connection { head, cut: cut.clone(), remote: Remote(remote), router },
            );
            let _ = timeout(WEB_CONNECTION_TIME_MAX, future::or(served, cut.0.notified())).await;
            drop(place);
        });
    }
}

/// What cuts a connection off, whatever it does. Every request carries its own.
#[derive(Clone, Debug, Default)]
struct Cut(Arc<Notify>);

/// Where a request comes from. Every request carries it.
#[derive(Clone, Copy, Debug)]
struct Remote(SocketAddr);

/// The routes, as one connection has them.
struct Connection {
    head: Head,
    cut: Cut,
    remote: Remote,
    router: TowerToHyperService<Router>,
}

impl Service<hyper::Request<Incoming>> for Connection {
    type Response = Response;
    type Error = Infallible;
    type Future = <TowerToHyperService<Router> as Service<hyper::Request<Incoming>>>::Future;

    fn call(&self, mut request: hyper::Request<Incoming>) -> Self::Future {
        self.head.end();
        request.extensions_mut().insert(self.cut.clone());
        request.extensions_mut().insert(self.remote);
        self.router.call(request)
    }
}

/// One request, so that every connection has an end that can be foretold.
async fn serve(stream: TcpStream, connection: Connection) {
    // Frames are passed on as they come.
    let _ = stream.set_nodelay(true);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(WEB_HEAD_TIMEOUT)
        .max_buf_size(WEB_HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), connection)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection broke off");
    }
}

fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(page::landing))
        .route("/health", get(health))
        .route("/certificate.sha256", get(certificate))
        .route("/announced", get(announced))
        .route("/announced/", get(announced))
        .route("/announced/{*prefix}", get(announced))
        .route("/fetch/{*path}", get(fetch::serve))
        .fallback(page::lost)
        .layer(from_fn_with_state(site.clone(), rules))
        .with_state(site)
}

/// What holds for every request and every response.
async fn rules(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let is_permitted =
        request.headers().get_all(header::ORIGIN).into_iter().all(|origin| {
            site.about.origins.permit(Some(&String::from_utf8_lossy(origin.as_bytes())))
        });
    let host =
        request.headers().get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()));
    let is_ours = site.about.origins.permit_host(host.as_deref());
    let asked_for = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let asked_to = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD).cloned();
    let mut response = match *request.method() {
        _ if !is_permitted => refusal(
            StatusCode::FORBIDDEN,
            "pages of this origin may not use this relay; see shardcast --help of --allow-origin",
        ),
        _ if !is_ours => refusal(
            StatusCode::FORBIDDEN,
            "this relay is for this machine and goes by none but its names; see shardcast --help of \
             --allow-origin",
        ),
        _ if wants_websocket(request.headers()) => {
            let remote = request.extensions().get().map(|Remote(remote)| *remote);
            no_websocket(&site, request.uri(), remote).await
        }
        Method::GET | Method::HEAD => next.run(request).await,
        // A page of another origin asks whether it may.
        Method::OPTIONS if asked_to.is_some() => StatusCode::NO_CONTENT.into_response(),
        _ => {
            let refused = refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
            ([(header::ALLOW, "GET, HEAD")], refused).into_response()
        }
    };
    let headers = response.headers_mut();
    let stated = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
        (header::CACHE_CONTROL, "no-store"),
        // What publishers send is theirs: no browser is to guess that it is a page of ours.
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in stated {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Some(asked_for) = asked_for {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked_for);
    }
    response
}

/// Whether a request asks for another protocol than HTTP, and that is WebSocket.
fn wants_websocket(headers: &HeaderMap) -> bool {
    let upgrades = headers.get_all(header::UPGRADE).into_iter();
    let protocols =
        upgrades.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
    protocols.map(str::trim).any(|protocol| protocol.eq_ignore_ascii_case("websocket"))
}

/// A client that looks for another way to the relay is told at once that this is none. If it may not come in
/// at all it is told that, and looks for no other: those who try both give up only when both say so.
async fn no_websocket(site: &Site, uri: &Uri, remote: Option<SocketAddr>) -> Response {
    if let (Ok(path), Some(remote)) = (Path::parse(uri.path()), remote)
        && let Err(refused) = site.grant(&path, uri.query(), remote).await
    {
        return turned_away(&refused);
    }
    refusal(StatusCode::BAD_REQUEST, "there are no WebSockets here")
}

/// Whether every shard turns.
async fn health(State(site): State<Arc<Site>>) -> Response {
    let (asker, hanging) = oneshot::channel();
    let _ = site.checks.send(asker);
    match hanging.await.as_deref() {
        Ok([]) => "ok\n".into_response(),
        Ok(hanging) => {
            let hanging: Vec<String> = hanging.iter().map(usize::to_string).collect();
            let words = format!("no answer from shard {}", hanging.join(" "));
            refusal(StatusCode::SERVICE_UNAVAILABLE, words)
        }
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "the relay is stopping"),
    }
}

/// What clients pin: nothing but the hash.
async fn certificate(State(site): State<Arc<Site>>) -> String {
    hex(&site.about.fingerprint)
}

async fn announced(
    State(site): State<Arc<Site>>,
    Extension(Remote(remote)): Extension<Remote>,
    prefix: Option<UrlPath<String>>,
    uri: Uri,
) -> Response {
    let prefix = prefix.map_or_else(String::new, |UrlPath(prefix)| prefix);
    let Ok(prefix) = Path::parse(&prefix) else {
        return refusal(StatusCode::BAD_REQUEST, "this is not a path of broadcasts");
    };
    let grant = match site.admit(&prefix, uri.query(), remote).await {
        Ok(grant) => grant,
        Err(refused) => return turned_away(&refused),
    };
    // An auth server may have put the client somewhere else than it has dialled.
    let prefix = grant.root().clone();
    let (asker, listing) = oneshot::channel();
    let _ = site.listings.send(asker);
    let Ok(listing) = listing.await else {
        return busy("a shard does not answer, or the relay is stopping");
    };
    let Ok(place) = site.readers.clone().try_acquire_owned() else {
        return busy("too many read what is announced");
    };
    let lines = listing::Lines::new(listing, prefix, grant);
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    let lines = lines.map(move |line| {
        let _held_to_the_end = &place;
        Ok::<_, Infallible>(line)
    });
    let body = Body::from_stream(stream::iter(lines));
    (kind, body).into_response()
}

/// Clients try again where that may help.
fn turned_away(refused: &Refusal) -> Response {
    let status = match refused {
        Refusal::ServerAway => StatusCode::BAD_GATEWAY,
        _ => StatusCode::UNAUTHORIZED,
    };
    refusal(status, refused)
}

/// A refusal that may be none a little later.
fn busy(words: &'static str) -> Response {
    let refused = refusal(StatusCode::SERVICE_UNAVAILABLE, words);
    ([(header::RETRY_AFTER, "1")], refused).into_response()
}

/// One line that says who erred.
fn refusal(status: StatusCode, words: impl std::fmt::Display) -> Response {
    (status, format!("{words}\n")).into_response()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
