//! The thread that keeps the links: it finds out which relays there should be and where they are, has shards
//! dial them, and says how they are.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::desk::{Command, Desk, Own, SAME_HOP};
use super::find::Finder;
use super::list::{List, Looked, list_in};
use super::said::Said;
use super::{Dial, Line, Listing, Mail, News, Order, Shown};
use crate::access;
use crate::config::{ClusterConfig, ConnectTls, Entry, ListSource};
use crate::files;
use crate::limits::{DIAL_TLS_LOOK, PEERS_MAX, TOKEN_FILE_BYTES_MAX};
use crate::log::shortened;
use crate::mailbox::Outside;
use crate::quic::{Callee, CongestionControl, Outgoing};
use crate::session::Call;
use crate::tls::{TlsError, outgoing};

/// How soon a shard is tried again whose lane is full.
const RETRY_AFTER: Duration = Duration::from_millis(1);

/// Without anything to wait for.
const LONG: Duration = Duration::from_secs(3600);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot dial other relays: {0}")]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Quic(String),
    #[error("cannot read {path}: {error}; see --cluster-token")]
    Token { path: String, error: io::Error },
    #[error(
        "cannot read the list of relays {path}: {error}; links would be lost, see --cluster-connect-api"
    )]
    List { path: String, error: String },
    #[error("cannot start the thread that keeps links: {0}; raise the limit of processes")]
    Thread(#[from] io::Error),
}

/// What the relay is, for whom it dials.
#[derive(Clone, Debug)]
pub struct About {
    pub hop: u64,
    /// Where its sockets are.
    pub local: SocketAddr,
    /// Another process of it is there, with links of its own.
    pub has_heritage: bool,
    pub congestion_control: CongestionControl,
    pub seed: u64,
}

/// What is ready before there are shards, so that a fault is found at the start.
pub struct Ready {
    config: ClusterConfig,
    about: About,
    outgoing: Outgoing,
    runtime: Runtime,
    line: Line,
    from: UnboundedReceiver<Mail>,
}

/// The thread, and the way to it.
pub struct Cluster {
    handle: Handle,
    thread: JoinHandle<()>,
}

/// The way to it, for those who want to know how links are.
#[derive(Clone, Debug)]
pub struct Handle(UnboundedSender<Mail>);

impl Handle {
    /// How it is with all relays that there should be links with.
    pub async fn shown(&self) -> Shown {
        let (line, shown) = oneshot::channel();
        // It ends after those who ask.
        let _ = self.0.send(Mail::Show(line));
        shown.await.unwrap_or_default()
    }

    /// The relay ends: nobody is dialled any more.
    pub fn leave(&self) {
        let _ = self.0.send(Mail::Leave);
    }

    /// Another process has taken over: links stay, and nobody is dialled until [`Handle::go_on`].
    pub fn rest(&self) {
        let _ = self.0.send(Mail::Rest);
    }

    /// That one is gone: whoever is lost is dialled again.
    pub fn go_on(&self) {
        let _ = self.0.send(Mail::GoOn);
    }
}

impl Ready {
    pub fn new(config: &ClusterConfig, about: About) -> Result<Ready, StartError> {
        let config = config.clone();
        let outgoing = outgoing_of(&config.tls, &about)?;
        if let Some(path) = &config.token {
            let bad = |error| StartError::Token { path: path.display().to_string(), error };
            token_in(path).map_err(bad)?;
        }
        // A relay that begins has time to wait for its list. One that goes on would lose what it has by that.
        if let Some(ListSource::File(path)) = config.list.as_ref().filter(|_| about.has_heritage) {
            let bad = |error: String| StartError::List {
                path: path.display().to_string(),
                error: access::shown(&error),
            };
            list_in(path).map_err(bad)?;
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (line, from) = Line::new();
        Ok(Ready { config, about, outgoing, runtime, line, from })
    }

    pub fn start<M>(self, shards: Vec<Outside<M>>) -> Result<Cluster, StartError>
    where
        M: From<Order> + Send + 'static,
    {
        let Ready { config, about, outgoing, runtime, line, from } = self;
        let handle = Handle(line.0.clone());
        let mut outboxes: Vec<VecDeque<M>> = shards.iter().map(|_| VecDeque::new()).collect();
        for outbox in &mut outboxes {
            outbox.push_back(Order::Report(line.clone()).into());
        }
        let keeper = Keeper {
            desk: Desk::new(own(&config, &about), shards.len(), about.seed),
            about,
            outgoing,
            outgoing_at: Instant::now(),
            to: line.0,
            shards,
            outboxes,
            listed: Vec::new(),
            list_fault: None,
            config,
        };
        let body = move || {
            runtime.block_on(keeper.run(from));
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("cluster".to_owned()).spawn(body)?;
        Ok(Cluster { handle, thread })
    }
}

impl Cluster {
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    pub fn stop(self) -> std::thread::Result<()> {
        let _ = self.handle.0.send(Mail::Stop);
        self.thread.join()
    }
}

struct Keeper<M> {
    config: ClusterConfig,
    about: About,
    desk: Desk,
    /// What relays are dialled with, and since when that is known.
    outgoing: Outgoing,
    outgoing_at: Instant,
    to: UnboundedSender<Mail>,
    shards: Vec<Outside<M>>,
    /// For each shard, while its lane is full.
    outboxes: Vec<VecDeque<M>>,
    /// The last good list.
    listed: Vec<Entry>,
    /// Why the list cannot be read now.
    list_fault: Option<String>,
}

impl<M: From<Order>> Keeper<M> {
    async fn run(mut self, mut from: UnboundedReceiver<Mail>) {
        let finder = Arc::new(Finder::new());
        if let Some(source) = self.config.list.clone() {
            let node = self.config.node.as_ref().map(|node| node.place.to_string());
            let (list, to) = (List::new(source, node), self.to.clone());
            tokio::spawn(look_at_list(list, self.config.tls.clone(), to));
        }
        self.want();
        loop {
            self.desk.expire(Instant::now().into_std());
            self.obey(&finder);
            self.post();
            self.say();
            let now = Instant::now();
            let desk = self.desk.deadline().map(Instant::from_std);
            let mail = self.outboxes.iter().any(|mail| !mail.is_empty()).then(|| now + RETRY_AFTER);
            let until = desk.into_iter().chain(mail).min().unwrap_or(now + LONG);
            // It cannot end: this thread has a sender of its own.
            let Ok(Some(mail)) = timeout_at(until, from.recv()).await else { continue };
            let mut next = Some(mail);
            while let Some(mail) = next {
                if matches!(mail, Mail::Stop) {
                    return;
                }
                self.take(mail);
                next = from.try_recv().ok();
            }
        }
    }

    fn take(&mut self, mail: Mail) {
        let now = Instant::now().into_std();
        match mail {
            Mail::News(news) => self.desk.hear(now, news),
            Mail::Found { place, found } => self.desk.found(now, &place, found),
            Mail::Listed(entries) => {
                self.listed = entries;
                self.want();
            }
            Mail::ListFault(fault) => self.list_fault = fault,
            Mail::Show(line) => {
                // Who has asked may have given up.
                let _ = line.send(self.shown());
            }
            Mail::Leave => self.desk.leave(),
            Mail::Rest => self.desk.rest(),
            Mail::GoOn => self.desk.go_on(),
            Mail::Stop => {}
        }
    }

    fn shown(&self) -> Shown {
        let list = self.config.list.as_ref().map(|source| Listing {
            from: source.shown(),
            relays: self.listed.len(),
            last_error: self.list_fault.clone(),
        });
        Shown { rows: self.desk.rows(), list }
    }

    fn want(&mut self) {
        let wanted = wanted(&self.config, &self.listed);
        self.desk.want(Instant::now().into_std(), &wanted);
    }

    fn obey(&mut self, finder: &Arc<Finder>) {
        while let Some(command) = self.desk.next_command() {
            match command {
                Command::Find(place) => {
                    let (finder, to) = (finder.clone(), self.to.clone());
                    tokio::spawn(async move {
                        let found = finder.find(&place).await;
                        // The thread may have ended.
                        let _ = to.send(Mail::Found { place, found });
                    });
                }
                Command::Dial { link, shard, address, entry } => match self.dial(address, &entry) {
                    Ok((callee, call)) => {
                        let outgoing = self.outgoing.clone();
                        let dial = Dial { link, outgoing, callee, call };
                        self.outboxes[shard].push_back(Order::Dial(Box::new(dial)).into());
                    }
                    Err(reason) => {
                        let down = News::Down { link, reason, is_denied: false };
                        self.desk.hear(Instant::now().into_std(), down);
                    }
                },
                Command::HangUp { link, shard } => {
                    self.outboxes[shard].push_back(Order::HangUp(link).into());
                }
            }
        }
    }

    /// Whom to dial and what to say there.
    fn dial(&mut self, address: SocketAddr, entry: &Entry) -> Result<(Callee, Call), String> {
        self.look_at_tls();
        let remote = reachable(self.about.local, address).ok_or_else(|| {
            format!("{address} cannot be reached from {}; see --listen", self.about.local)
        })?;
        let token = match &self.config.token {
            Some(path) => Some(token_in(path).map_err(|error| {
                format!("cannot read {}: {error}; see --cluster-token", path.display())
            })?),
            None => None,
        };
        let host = self.config.tls.host_name.as_ref();
        let server_name = host.map_or(entry.place.host.clone(), |host| host.to_str().into_owned());
        let web = entry.web(token.as_deref());
        let target = web.is_none().then(|| entry.target(token.as_deref()));
        Ok((Callee { remote, server_name, web }, Call { target, cost: entry.cost }))
    }

    /// Files of certificates may be others than before.
    fn look_at_tls(&mut self) {
        let now = Instant::now();
        if now < self.outgoing_at + DIAL_TLS_LOOK {
            return;
        }
        self.outgoing_at = now;
        match outgoing_of(&self.config.tls, &self.about) {
            Ok(outgoing) => self.outgoing = outgoing,
            Err(error) => {
                tracing::warn!(%error, "relays are dialled with the certificates from before");
            }
        }
    }

    fn post(&mut self) {
        for (shard, outbox) in self.shards.iter().zip(&mut self.outboxes) {
            while let Some(mail) = outbox.pop_front() {
                if let Err(back) = shard.send(mail) {
                    outbox.push_front(back);
                    break;
                }
            }
        }
    }

    /// There are few relays, and pauses: each line is worth one.
    fn say(&mut self) {
        while let Some(said) = self.desk.next_said() {
            match said {
                Said::Dialing { place, address } => {
                    tracing::info!(url = %place, %address, "dialing cluster peer");
                }
                Said::Up { place, hop } => tracing::info!(url = %place, hop, "cluster peer linked"),
                Said::Failed { place, error, retry_in, is_denied } => {
                    let error = in_a_line(&error);
                    match is_denied {
                        true => tracing::error!(
                            url = %place, error, ?retry_in,
                            "cluster peer does not let this relay in; will retry"
                        ),
                        false => tracing::warn!(
                            url = %place, error, ?retry_in,
                            "cluster peer error; will retry"
                        ),
                    }
                }
                Said::Over { place, error } => tracing::info!(
                    url = %place, error = in_a_line(&error),
                    "cluster peer is not dialled again: this relay ends, or another process has its place"
                ),
                // As it should be in a set and a list, and needless where it is named by itself.
                Said::Itself { place } if place.is_set => {
                    tracing::info!(url = %place, "cluster peer is this relay itself");
                }
                Said::Itself { place } => tracing::info!(
                    url = %place,
                    "cluster peer is this relay itself; name it with --cluster-node and it is not dialled"
                ),
                Said::SameHop { place, hop } => tracing::error!(
                    url = %place, cluster_id = hop,
                    "{SAME_HOP}; give each relay its own --cluster-id, or name this one with --cluster-node"
                ),
                Said::Unwanted { place, address } => {
                    let address = address.map(|address| address.to_string());
                    tracing::info!(url = %place, address, "cluster peer is not wanted any more");
                }
                Said::Yields { place, hop } => {
                    tracing::info!(url = %place, hop, "cluster peer is linked already");
                }
                Said::Leaves { place } => tracing::info!(url = %place, "cluster peer leaves"),
                Said::Redirected { place, to } => {
                    tracing::info!(url = %place, %to, "cluster peer leaves for another place");
                }
                Said::NotRedirected { place, error } => {
                    let error = error.to_string();
                    let error = shortened(&error);
                    tracing::warn!(
                        url = %place, error,
                        "cluster peer leaves for a place where it is not followed"
                    );
                }
                Said::NotFound { place, error } => {
                    tracing::warn!(url = %place, error, "cluster peers are not found; will retry");
                }
                Said::LeftOut { place, relays } => tracing::warn!(
                    url = place.map(|place| place.to_string()),
                    left_out = relays,
                    most = PEERS_MAX,
                    "more cluster peers than one relay dials: some are left out"
                ),
            }
        }
    }
}

/// Those that are named and those that are listed, but for this relay. Where both have one, what is named counts. How
/// many there may be is for the desk, which says what it leaves out.
fn wanted(config: &ClusterConfig, listed: &[Entry]) -> Vec<Entry> {
    let mut wanted = config.connect.clone();
    for entry in listed {
        if wanted.iter().all(|known| known.place != entry.place) {
            wanted.push(entry.clone());
        }
    }
    let is_own = |entry: &Entry| config.node.as_ref().is_some_and(|node| node.place == entry.place);
    wanted.retain(|entry| !is_own(entry));
    wanted
}

/// What a peer has said, as much of it as a line takes.
fn in_a_line(error: &str) -> String {
    let shown = shortened(error);
    let rest = if shown.len() < error.len() { "…" } else { "" };
    format!("{shown}{rest}")
}

async fn look_at_list(mut list: List, tls: ConnectTls, to: UnboundedSender<Mail>) {
    let mut told = None;
    loop {
        let with = || outgoing::asking(&tls).map_err(|error| error.to_string());
        let (looked, again) = list.look(with).await;
        let fault = match looked {
            Looked::Same => list.fault(),
            Looked::Bad(fault) => Some(fault),
            Looked::New(entries) => {
                tracing::info!(
                    list = list.shown(),
                    relays = entries.len(),
                    "the list of cluster peers is read"
                );
                if to.send(Mail::Listed(entries)).is_err() {
                    return;
                }
                None
            }
        };
        let fault = fault.as_deref().map(access::shown);
        // Once for each thing that is wrong.
        if fault != told {
            if let Some(fault) = &fault {
                tracing::warn!(
                    list = list.shown(), error = %fault,
                    "the list of cluster peers is not read; what was there before counts"
                );
            }
            told.clone_from(&fault);
            if to.send(Mail::ListFault(fault)).is_err() {
                return;
            }
        }
        tokio::time::sleep(again).await;
    }
}

fn outgoing_of(tls: &ConnectTls, about: &About) -> Result<Outgoing, StartError> {
    let tls: ClientConfig = outgoing::dialling(tls)?;
    Outgoing::new(&tls, about.congestion_control).map_err(StartError::Quic)
}

/// An id that the relay has given itself nobody else has. Of one that is named, whoever answers at the relay's
/// own address is the relay.
fn own(config: &ClusterConfig, about: &About) -> Own {
    let (is_named, local) = (config.id.is_some(), about.local);
    let is_at = move |address: SocketAddr| !is_named || is_own_address(local, address);
    Own { hop: about.hop, is_at: Box::new(is_at) }
}

/// Whether an address is one that the relay's sockets are at.
fn is_own_address(local: SocketAddr, address: SocketAddr) -> bool {
    let (own, ip) = (local.ip().to_canonical(), address.ip().to_canonical());
    // Nobody gets a socket at an address that is another machine's.
    let is_here = || UdpSocket::bind((ip, 0)).is_ok();
    address.port() == local.port() && (own == ip || own.is_unspecified() && is_here())
}

/// What is in a file with a token.
pub fn token_in(path: &std::path::Path) -> io::Result<String> {
    let bytes = files::read_regular(path, TOKEN_FILE_BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| io::Error::other("not UTF-8"))?;
    match text.trim() {
        "" => Err(io::Error::other("it is empty")),
        token => Ok(token.to_owned()),
    }
}

/// An address as the relay's sockets have it; none that they do not reach.
fn reachable(local: SocketAddr, address: SocketAddr) -> Option<SocketAddr> {
    match (local.ip(), address.ip().to_canonical()) {
        (IpAddr::V4(_), IpAddr::V4(ip)) => Some(SocketAddr::new(ip.into(), address.port())),
        (IpAddr::V4(_), IpAddr::V6(_)) => None,
        (IpAddr::V6(local), IpAddr::V4(ip)) => {
            let ip = ip.to_ipv6_mapped();
            local.is_unspecified().then(|| SocketAddr::new(ip.into(), address.port()))
        }
        (IpAddr::V6(_), IpAddr::V6(_)) => Some(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_are_named_and_listed_are_wanted_however_many_there_are() {
        let entry = |text: String| text.parse::<Entry>().expect("an entry");
        let named = |n: usize| entry(format!("moqt://r{n}"));
        let config = ClusterConfig {
            connect: (0..PEERS_MAX).map(named).collect(),
            node: Some(entry("moqt://own".to_owned())),
            ..ClusterConfig::default()
        };
        // Of two that are one relay what is named counts.
        let listed = ["moqt://r0/?cost=5", "moqt://own", "moqt://other"];
        let wanted = wanted(&config, &listed.map(|text| entry(text.to_owned())));
        assert_eq!(wanted.len(), PEERS_MAX + 1);
        assert_eq!((wanted[0].cost, wanted[PEERS_MAX].place.host.as_str()), (None, "other"));
    }

    #[test]
    fn its_own_addresses_are_known() {
        for (local, address, expect) in [
            ("0.0.0.0:4443", "127.0.0.1:4443", true),
            ("[::]:4443", "[::ffff:127.0.0.1]:4443", true),
            ("127.0.0.1:4443", "127.0.0.1:4443", true),
            // Another relay of this machine.
            ("127.0.0.1:4443", "127.0.0.1:5443", false),
            ("127.0.0.1:4443", "127.0.0.2:4443", false),
            // Of documentation, which nobody has.
            ("0.0.0.0:4443", "192.0.2.1:4443", false),
        ] {
            let is_own = is_own_address(local.parse().unwrap(), address.parse().unwrap());
            assert_eq!(is_own, expect, "{local} {address}");
        }
    }

    #[test]
    fn addresses_as_the_sockets_have_them() {
        for (local, address, expect) in [
            ("0.0.0.0:1", "10.0.0.1:4443", Some("10.0.0.1:4443")),
            ("0.0.0.0:1", "[::ffff:10.0.0.1]:4443", Some("10.0.0.1:4443")),
            ("0.0.0.0:1", "[2001:db8::1]:4443", None),
            ("[::]:1", "10.0.0.1:4443", Some("[::ffff:10.0.0.1]:4443")),
            ("[::]:1", "[2001:db8::1]:4443", Some("[2001:db8::1]:4443")),
            ("[::1]:1", "127.0.0.1:4443", None),
        ] {
            let address = reachable(local.parse().unwrap(), address.parse().unwrap());
            assert_eq!(address, expect.map(|text| text.parse().unwrap()), "{local}");
        }
    }
}
