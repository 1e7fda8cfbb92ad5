//! The thread that asks the auth server. It has its own, because HTTP may be off and is worth less.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustc_hash::FxHashMap;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, timeout_at};

use super::client::{Client, ClientError, Roots};
use super::desk::{Desk, LeaseId};
use super::{Asker, Handle, Leased, Mail, random};
use crate::config::AuthUrl;
use crate::limits::{AUTHORITY_LAST_WORDS, FAULT_LINE_INTERVAL};
use crate::mailbox::Outside;

/// How soon a shard is tried again whose lane is full.
const RETRY_AFTER: Duration = Duration::from_millis(1);

/// Without anything to wait for.
const LONG: Duration = Duration::from_secs(3600);

/// The thread, and the way to it.
pub struct Authority {
    handle: Handle,
    thread: JoinHandle<()>,
}

/// What is ready before there are shards, so that a fault is found at the start.
pub struct Ready {
    client: Client,
    runtime: Runtime,
    handle: Handle,
    from: UnboundedReceiver<Mail>,
    url: AuthUrl,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("cannot start the thread that asks the auth server: {0}; raise the limit of processes")]
    Thread(#[from] io::Error),
}

impl Ready {
    pub fn new(url: AuthUrl, roots: Roots, local: SocketAddr) -> Result<Ready, StartError> {
        let client = Client::new(&url, roots)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, from) = Handle::new(local);
        Ok(Ready { client, runtime, handle, from, url })
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// From now on whoever asks is answered.
    pub fn start<M>(self, shards: Vec<Outside<M>>) -> Result<Authority, StartError>
    where
        M: From<Leased> + Send + 'static,
    {
        let Ready { client, runtime, handle, from, url } = self;
        let post = Postman::new(client, url, handle.to.clone(), shards);
        let body = move || runtime.block_on(post.run(from));
        let thread = std::thread::Builder::new().name("auth".to_owned()).spawn(body)?;
        Ok(Authority { handle, thread })
    }
}

impl Authority {
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Once the shards have ended: the server is told of the end of all sessions, if it takes that soon.
    pub fn stop(self) -> std::thread::Result<()> {
        self.handle.send(Mail::Stop);
        self.thread.join()
    }
}

struct Postman<M> {
    client: Client,
    url: AuthUrl,
    to: UnboundedSender<Mail>,
    shards: Vec<Outside<M>>,
    desk: Desk,
    askers: FxHashMap<LeaseId, Asker>,
    /// For each shard, while its lane is full.
    outboxes: Vec<VecDeque<M>>,
    told_at: Option<Instant>,
    /// When the thread ends at last, once it is to end.
    ends_at: Option<Instant>,
}

impl<M: From<Leased>> Postman<M> {
    fn new(
        client: Client,
        url: AuthUrl,
        to: UnboundedSender<Mail>,
        shards: Vec<Outside<M>>,
    ) -> Postman<M> {
        let outboxes = shards.iter().map(|_| VecDeque::new()).collect();
        Postman {
            client,
            url,
            to,
            shards,
            desk: Desk::default(),
            askers: FxHashMap::default(),
            outboxes,
            told_at: None,
            ends_at: None,
        }
    }

    async fn run(mut self, mut from: UnboundedReceiver<Mail>) {
        loop {
            self.desk.expire(Instant::now().into_std());
            self.start_posts();
            self.tell_news();
            self.tell_trouble();
            let now = Instant::now();
            if self.ends_at.is_some_and(|at| at <= now || self.desk.is_idle()) {
                return;
            }
            let desk = self.desk.deadline().map(Instant::from_std);
            let mail = self.outboxes.iter().any(|mail| !mail.is_empty()).then(|| now + RETRY_AFTER);
            let until =
                desk.into_iter().chain(mail).chain(self.ends_at).min().unwrap_or(now + LONG);
            // It cannot end: this thread has a sender of its own.
            if let Ok(Some(mail)) = timeout_at(until, from.recv()).await {
                self.take(mail);
                while let Ok(mail) = from.try_recv() {
                    self.take(mail);
                }
            }
        }
    }

    fn take(&mut self, mail: Mail) {
        let now = Instant::now().into_std();
        match mail {
            Mail::Ask { lease, asker, facts } => {
                self.askers.insert(lease, asker);
                self.desk.ask(now, lease, facts);
            }
            Mail::End { lease, reason, moved } => {
                self.askers.remove(&lease);
                self.desk.end(now, lease, reason, moved);
            }
            Mail::Check(lease) => self.desk.check(lease),
            Mail::Answered { ticket, outcome } => {
                let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let [jitter, ..] = random();
                let jitter = f64::from(jitter) / 255.0;
                self.desk.answered((now, unix.as_secs() as i64), ticket, outcome, jitter);
            }
            Mail::Stop => {
                self.desk.end_all(now);
                self.ends_at = Some(Instant::now() + AUTHORITY_LAST_WORDS);
            }
        }
    }

    fn start_posts(&mut self) {
        while let Some(post) = self.desk.next_post(Instant::now().into_std()) {
            let (client, to) = (self.client.clone(), self.to.clone());
            tokio::spawn(async move {
                let outcome = client.post(post.body, post.timeout).await;
                // The thread may have ended.
                let _ = to.send(Mail::Answered { ticket: post.ticket, outcome });
            });
        }
    }

    fn tell_news(&mut self) {
        while let Some((lease, news)) = self.desk.next_news() {
            match self.askers.get(&lease) {
                Some(Asker::Session(session)) => {
                    let mail = Leased { session: *session, lease, news: Box::new(news) };
                    self.outboxes[usize::from(session.shard)].push_back(mail.into());
                }
                Some(Asker::Request(_)) => {
                    let Some(Asker::Request(asker)) = self.askers.remove(&lease) else { continue };
                    // Who has hung up says so too.
                    let _ = asker.send(news);
                }
                None => {}
            }
        }
        for (shard, outbox) in self.shards.iter().zip(&mut self.outboxes) {
            while let Some(mail) = outbox.pop_front() {
                if let Err(back) = shard.send(mail) {
                    outbox.push_front(back);
                    break;
                }
            }
        }
    }

    fn tell_trouble(&mut self) {
        let now = Instant::now();
        if self.told_at.is_some_and(|at| now < at + FAULT_LINE_INTERVAL) {
            return;
        }
        let (trouble, lost) = (self.desk.take_trouble(), self.desk.take_lost_ends());
        let url = &self.url;
        if let Some(error) = &trouble {
            tracing::warn!(%url, error, "the auth server fails: who comes now is told to try again later");
        }
        if lost > 0 {
            tracing::warn!(%url, lost, "the auth server does not hear of the end of sessions");
        }
        if trouble.is_some() || lost > 0 {
            self.told_at = Some(now);
        }
    }
}
