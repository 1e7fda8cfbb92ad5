//! What operators ask of a relay that runs, over HTTP of its own, on a thread beside the shards: figures for
//! Prometheus, whether it is well and takes clients, and who is there. It outlives the shards, so that the
//! end of a relay can be watched.
//!
//! Nobody has to show a token here: whoever reaches the listener is an operator. Pages of the web are not.

mod filter;
mod links;
mod metrics;
mod proc;
mod row;
mod sessions;
mod tracks;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_lite::future;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::cluster;
use crate::estate::Before;
use crate::gauge::Gauge;
use crate::limits::SHARD_ANSWER_MAX;
use crate::mailbox::Outside;
use crate::net::Rows;
use crate::observe::Text;
use crate::origin::Origins;
use crate::reload::Ask;
use crate::shard::message::ToShard;
use crate::shard::report::Report;
use crate::source::ClientBounds;
use crate::tls::Certificates;
use crate::wall::Wall;
use crate::web::mail::ask_all;
use crate::web::serve::{Accepts, Gate, Room, accept};
use crate::web::tracks::Asker;
use crate::web::{Refusals, be_modest, health, refusal};

/// What there is to tell of.
pub struct Subject {
    pub shards: Vec<Outside<ToShard>>,
    /// Has files of keys looked at.
    pub files: Sender<Ask>,
    /// Of this run of the relay, for the names of its sessions.
    pub instance: u64,
    /// The address of the QUIC listener.
    pub addr: SocketAddr,
    /// Tracks that have figures of their own.
    pub track_metrics: usize,
    /// What clients are shown.
    pub certificates: Arc<Certificates>,
    /// The time of day at the begin.
    pub started: Wall,
    pub gauge: Arc<Gauge>,
    /// The sockets of all shards, of this process and of another one.
    pub rows: Arc<Rows>,
    /// The process before this one, while it is there.
    pub before: watch::Receiver<Option<Before>>,
    /// What became of connections to the public HTTP.
    pub web: Option<Arc<Accepts>>,
    /// Whom that has turned away.
    pub web_refusals: Option<Arc<Refusals>>,
    /// Who keeps links with other relays, if there are to be any.
    pub cluster: Option<cluster::Handle>,
}

struct Site {
    subject: Subject,
    begun: Instant,
    checks: mpsc::UnboundedSender<health::Asker>,
    /// One at a time asks shards for figures, and one for sessions.
    reports: Mutex<()>,
    rows: Mutex<()>,
    tracks: Asker,
    is_leaving: watch::Receiver<bool>,
    /// What it may be asked by: addresses, and names that nobody else can make lead here.
    hosts: Origins,
    accepts: Arc<Accepts>,
}

/// The listener for operators that runs.
pub struct Internal {
    addr: SocketAddr,
    thread: JoinHandle<()>,
    is_leaving: watch::Sender<bool>,
    /// Dropped to stop it.
    stop: oneshot::Sender<Infallible>,
}

impl Internal {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// No more clients are to be sent here.
    pub fn say_leaving(&self) {
        self.is_leaving.send_replace(true);
    }

    pub fn stop(self) -> std::thread::Result<()> {
        drop(self.stop);
        self.thread.join()
    }
}

/// Answers what comes to `listener`, which does not block, while the gate is open.
pub fn start(listener: TcpListener, gate: Gate, subject: Subject) -> io::Result<Internal> {
    let addr = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let (stop, stopped) = oneshot::channel::<Infallible>();
    let (leaving, is_leaving) = watch::channel(false);
    let body = move || {
        be_modest();
        let (checks, asked) = mpsc::unbounded_channel();
        runtime.spawn(health::answer(subject.shards.clone(), asked));
        let hosts = Origins::Some { patterns: Vec::new(), local: true };
        let accepts = Arc::<Accepts>::default();
        let tracks = Asker::new(subject.shards.clone());
        let site = Arc::new(Site {
            subject,
            tracks,
            begun: Instant::now(),
            checks,
            reports: Mutex::default(),
            rows: Mutex::default(),
            is_leaving,
            hosts,
            accepts: accepts.clone(),
        });
        let stopped = async {
            let _ = stopped.await;
        };
        runtime.block_on(future::or(
            stopped,
            accept(
                listener,
                None,
                router(site),
                (Room::new(ClientBounds::default()), gate),
                accepts,
            ),
        ));
    };
    let thread = std::thread::Builder::new().name("internal".to_owned()).spawn(body)?;
    Ok(Internal { addr, thread, is_leaving: leaving, stop })
}

fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/metrics", get(figures))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/tracks", get(tracks::list))
        .route("/nodes", get(links::list))
        .route("/sessions", get(sessions::list))
        .route("/sessions/revalidate", post(sessions::revalidate))
        .route("/sessions/kick", post(sessions::kick))
        .fallback(lost)
        .layer(from_fn_with_state(site.clone(), rules))
        .with_state(site)
}

/// Pages that a browser shows are not operators, on whatever machine it runs. It says that a page asks, or
/// where it would say nothing the page goes by the name that is asked for. What its user asks comes of no page.
async fn rules(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let is_of_page = headers.contains_key(header::ORIGIN)
        || headers.get_all("sec-fetch-site").into_iter().any(|site| site != "none");
    if is_of_page {
        return refusal(
            StatusCode::FORBIDDEN,
            "this is for operators, and not for pages of the web",
        );
    }
    let host = headers.get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()));
    if !site.hosts.permit_host(host.as_deref()) {
        return refusal(
            StatusCode::FORBIDDEN,
            "this is for operators, and not for pages of the web; ask for an address, or a name \
             without dots",
        );
    }
    next.run(request).await
}

async fn lost(uri: Uri) -> Response {
    let words = format!(
        "there is no {}; there are /metrics, /health, /ready, /tracks, /nodes and /sessions",
        uri.path()
    );
    refusal(StatusCode::NOT_FOUND, words)
}

async fn health(State(site): State<Arc<Site>>) -> Response {
    health::ask(&site.checks).await
}

/// Whether clients are to be sent here.
async fn ready(State(site): State<Arc<Site>>) -> Response {
    let is_leaving = *site.is_leaving.borrow();
    if is_leaving {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "the relay is leaving");
    }
    // An idle relay has not looked for seconds.
    if site.subject.gauge.look(Instant::now()) {
        return refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "memory is short, and nobody new is let in",
        );
    }
    health::ask(&site.checks).await
}

async fn figures(State(site): State<Arc<Site>>) -> Response {
    let reports = site.reports().await;
    let text = metrics::text(&site, &reports, &site.cluster().await);
    ([(header::CONTENT_TYPE, Text::CONTENT_TYPE)], text).into_response()
}

impl Site {
    /// What shards have counted; none of one that does not answer.
    async fn reports(&self) -> Vec<Option<Box<Report>>> {
        let _one_at_a_time = self.reports.lock().await;
        let tracks = self.subject.track_metrics;
        ask_all(&self.subject.shards, |line| ToShard::Report { tracks, line }).await
    }

    /// How it is with relays that there should be links with.
    async fn cluster(&self) -> cluster::Shown {
        let Some(cluster) = &self.subject.cluster else { return cluster::Shown::default() };
        timeout(SHARD_ANSWER_MAX, cluster.shown()).await.unwrap_or_default()
    }
}
