//! HTTP beside the relay, on TCP, for people, for scripts and for clients that want to pin the
//! certificate.
//!
//! One thread of its own serves it, and asks the shards by mail. No shard ever waits for it: they
//! answer through lines that take at once what they take at all. Whatever a client costs is bounded
//! here: connections, heads, time, groups at once, bytes that it does not read.

mod fetch;
mod heads;
pub(crate) mod health;
mod listen;
mod listing;
mod live;
pub(crate) mod mail;
mod page;
pub mod payload;
mod questions;
mod refusals;
pub(crate) mod serve;
pub(crate) mod tracks;
mod upgrade;

pub use fetch::Wanted;
pub use refusals::Refusals;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures_lite::stream;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_rustls::TlsAcceptor;

use crate::access::{Access, Grant, Refusal, Target, Token};
use crate::acme::Challenges;
use crate::authority::contract::{Facts, Moved, Transport};
use crate::authority::{self, Asker, News};
use crate::config::Example;
use crate::limits::WEB_LISTINGS_MAX;
use crate::mailbox::Outside;
use crate::origin::Origins;
use crate::shard::message::ToShard;
use crate::source::ClientBounds;
use crate::text::hex;
use crate::tls::Certificates;
use crate::wire::{Path, Role};

use questions::Questions;
use serve::{Accepts, Gate, Remote, Room, accept};

pub use listen::{ListenError, listen};

/// How much less than a shard the thread is worth to the scheduler where both want the same core,
/// as `nice` counts it: about a tenth.
const NICENESS: libc::c_int = 10;

/// What clients are told of this relay.
#[derive(Clone, Debug)]
pub struct About {
    /// The address of the QUIC listener.
    pub addr: SocketAddr,
    /// What clients are shown who dial it.
    pub certificates: Arc<Certificates>,
    /// What everybody may, in words.
    pub access: String,
    pub example: Example,
    /// The pages of browsers that may ask.
    pub origins: Origins,
    /// Sessions may begin over HTTP.
    pub has_websockets: bool,
    /// What clients may leave unread of groups, all together.
    pub unread_bytes: usize,
}

/// Where HTTP is served: as it is, and over TLS; one of them at least.
pub struct Listeners {
    pub http: Option<TcpListener>,
    pub https: Option<(TcpListener, Arc<rustls::ServerConfig>)>,
    /// Which addresses have shares of the room.
    pub bounds: ClientBounds,
    pub gate: Gate,
}

/// HTTP that runs.
pub struct Web {
    http: Option<SocketAddr>,
    https: Option<SocketAddr>,
    thread: JoinHandle<()>,
    /// Dropped to stop it.
    stop: oneshot::Sender<Infallible>,
    accepts: Arc<Accepts>,
    refusals: Arc<Refusals>,
}

struct Site {
    /// For the authority that the certificate is ordered from.
    challenges: Challenges,
    about: About,
    access: watch::Receiver<Arc<Access>>,
    authority: Option<authority::Handle>,
    shards: Vec<Outside<ToShard>>,
    checks: mpsc::UnboundedSender<health::Asker>,
    listings: mpsc::UnboundedSender<listing::Asker>,
    /// Places for those who read one.
    readers: Arc<Semaphore>,
    fetches: fetch::Fetches,
    tracks: tracks::Asker,
    loads: upgrade::Loads,
    refusals: Arc<Refusals>,
    questions: Arc<Questions>,
    bounds: ClientBounds,
}

/// Why a client is not let in.
enum Kept {
    Out(Refusal),
    /// Too many wait to be decided about.
    Waiting,
}

impl From<Refusal> for Kept {
    fn from(refusal: Refusal) -> Kept {
        Kept::Out(refusal)
    }
}

impl About {
    /// Nobody but who sits at this machine comes here.
    fn is_for_development(&self) -> bool {
        self.addr.ip().to_canonical().is_loopback()
    }
}

impl Site {
    /// Says why to whom it is about, and to the operator. Clients try again where that may help.
    fn turn_away(&self, remote: SocketAddr, uri: &Uri, kept: &Kept) -> Response {
        let Kept::Out(refused) = kept else {
            return busy("too many wait for the auth server; try again");
        };
        self.refusals.note(remote, uri.path(), refused);
        let status = match refused {
            Refusal::ServerAway => StatusCode::BAD_GATEWAY,
            _ => StatusCode::UNAUTHORIZED,
        };
        refusal(status, refused)
    }

    /// What the sender of a request may watch who wants to be at a path.
    async fn admit(
        &self,
        path: &Path,
        query: Option<&str>,
        remote: SocketAddr,
    ) -> Result<Grant, Kept> {
        Ok(self.grant(path, query, remote).await?.for_role(Role::Subscriber)?)
    }

    async fn grant(
        &self,
        path: &Path,
        query: Option<&str>,
        remote: SocketAddr,
    ) -> Result<Grant, Kept> {
        if let Some(authority) = &self.authority {
            let source = self.bounds.source_at(remote.ip());
            let waits = self.questions.begin(source).ok_or(Kept::Waiting)?;
            let (authority, path) = (authority.clone(), path.clone());
            let query = query.map(str::to_owned);
            // To its end, even for a client that hangs up: what has begun at the server ends there too, and who
            // asks again waits for that.
            let asked = tokio::spawn(async move {
                let grant = ask(&authority, &path, query.as_deref(), remote).await;
                drop(waits);
                grant
            });
            return Ok(asked.await.unwrap_or(Err(Refusal::ServerAway))?);
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

/// Serves what comes to the listeners, which do not block.
pub fn start(
    listeners: Listeners,
    about: About,
    challenges: Challenges,
    (access, authority): (watch::Receiver<Arc<Access>>, Option<authority::Handle>),
    shards: Vec<Outside<ToShard>>,
) -> io::Result<Web> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let Listeners { http, https, bounds, gate } = listeners;
    let http = http.map(|listener| (listener, None));
    let https = https.map(|(listener, tls)| (listener, Some(TlsAcceptor::from(tls))));
    let taken = [http, https].map(|listener| {
        let Some((listener, tls)) = listener else { return Ok(None) };
        let addr = listener.local_addr()?;
        io::Result::Ok(Some((addr, tokio::net::TcpListener::from_std(listener)?, tls)))
    });
    let [http, https] = taken;
    let taken = [http?, https?];
    let [http, https] = taken.each_ref().map(|taken| taken.as_ref().map(|(addr, ..)| *addr));
    drop(entered);
    let (stop, stopped) = oneshot::channel();
    let accepts = Arc::<Accepts>::default();
    let counted = accepts.clone();
    let refusals = Arc::<Refusals>::default();
    let noted = refusals.clone();
    let body = move || {
        be_modest();
        let (listings, asked) = mpsc::unbounded_channel();
        runtime.spawn(listing::answer(shards.clone(), asked));
        let (checks, asked) = mpsc::unbounded_channel();
        runtime.spawn(health::answer(shards.clone(), asked));
        let fetches = fetch::Fetches::new(about.unread_bytes);
        let readers = Arc::new(Semaphore::new(WEB_LISTINGS_MAX));
        let tracks = tracks::Asker::new(shards.clone());
        let loads = upgrade::Loads::default();
        let refusals = noted;
        let site = Arc::new(Site {
            challenges,
            about,
            access,
            authority,
            shards,
            checks,
            listings,
            readers,
            fetches,
            tracks,
            loads,
            refusals,
            questions: Arc::default(),
            bounds: bounds.clone(),
        });
        let room = Room::new(bounds);
        for (_, listener, tls) in taken.into_iter().flatten() {
            let router = router(site.clone());
            let entry = (room.clone(), gate.clone());
            runtime.spawn(accept(listener, tls, router, entry, counted.clone()));
        }
        // What was spawned ends with the runtime.
        let _ = runtime.block_on(stopped);
    };
    let thread = std::thread::Builder::new().name("web".to_owned()).spawn(body)?;
    Ok(Web { http, https, thread, stop, accepts, refusals })
}

/// This thread gives way to shards.
pub(crate) fn be_modest() {
    // SAFETY: no preconditions. Zero is this thread, and a refusal changes nothing.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

impl Web {
    pub fn accepts(&self) -> &Arc<Accepts> {
        &self.accepts
    }

    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    pub fn https(&self) -> Option<SocketAddr> {
        self.https
    }

    /// Cuts every connection off.
    pub fn stop(self) -> std::thread::Result<()> {
        drop(self.stop);
        self.thread.join()
    }
}

fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(page::landing))
        .route("/health", get(health))
        .route("/certificate.sha256", get(certificate))
        .route("/live.json", get(live::live))
        .route("/announced", get(announced))
        .route("/announced/", get(announced))
        .route("/announced/{*prefix}", get(announced))
        .route("/fetch/{*path}", get(fetch::serve))
        .fallback(page::lost)
        .layer(from_fn_with_state(site.clone(), rules))
        // By whatever name the authority knows this relay.
        .route("/.well-known/acme-challenge/{token}", get(challenge))
        .with_state(site)
}

async fn challenge(State(site): State<Arc<Site>>, UrlPath(token): UrlPath<String>) -> Response {
    let refused = || refusal(StatusCode::NOT_FOUND, "there is no such challenge");
    site.challenges.answer(&token).map_or_else(refused, IntoResponse::into_response)
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
    let remote = request.extensions().get().map(|Remote(remote)| *remote);
    let uri = request.uri().clone();
    let forbidden = |words: &'static str| {
        if let Some(remote) = remote {
            site.refusals.note_for(remote, uri.path(), "origin", words);
        }
        refusal(StatusCode::FORBIDDEN, words)
    };
    let mut response = match *request.method() {
        _ if !is_permitted => forbidden(
            "pages of this origin may not use this relay; see shardcast --help of --allow-origin",
        ),
        _ if !is_ours => forbidden(
            "this relay is for this machine and goes by none but its names; see shardcast --help of \
             --allow-origin",
        ),
        _ if upgrade::is_wanted(request.headers()) && site.about.has_websockets => {
            return upgrade::serve(&site, request).await;
        }
        _ if upgrade::is_wanted(request.headers()) => no_websocket(&site, &uri, remote).await,
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

/// A client that looks for another way to the relay is told at once that this is none. If it may not come in
/// at all it is told that, and looks for no other: those who try both give up only when both say so.
async fn no_websocket(site: &Site, uri: &Uri, remote: Option<SocketAddr>) -> Response {
    if let (Ok(path), Some(remote)) = (Path::parse(uri.path()), remote)
        && let Err(refused) = site.grant(&path, uri.query(), remote).await
    {
        return site.turn_away(remote, uri, &refused);
    }
    const WORDS: &str = "there are no WebSockets here: --web-ws is off";
    if let Some(remote) = remote {
        site.refusals.note_for(remote, uri.path(), "no_websockets", WORDS);
    }
    refusal(StatusCode::BAD_REQUEST, WORDS)
}

/// Whether every shard turns.
async fn health(State(site): State<Arc<Site>>) -> Response {
    health::ask(&site.checks).await
}

/// What clients pin: nothing but the hash.
async fn certificate(State(site): State<Arc<Site>>) -> String {
    hex(&site.about.certificates.fingerprint())
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
        Err(refused) => return site.turn_away(remote, &uri, &refused),
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

/// A refusal that may be none a little later.
fn busy(words: &'static str) -> Response {
    let refused = refusal(StatusCode::SERVICE_UNAVAILABLE, words);
    ([(header::RETRY_AFTER, "1")], refused).into_response()
}

/// One line that says who erred.
pub(crate) fn refusal(status: StatusCode, words: impl std::fmt::Display) -> Response {
    (status, format!("{words}\n")).into_response()
}
