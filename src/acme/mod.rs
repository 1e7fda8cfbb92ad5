//! A certificate from an authority, by ACME (RFC 8555): ordered where there is none, and anew before its end, when
//! the authority suggests it (RFC 9773).
//! The authority finds the answer to its challenge over HTTP (HTTP-01). What it gives is written into the
//! directory of the state, from where it is read as certificates of the operator's are.

mod challenge;
mod client;
mod due;
mod external;
mod order;
mod store;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_lite::future;
use instant_acme::{Account, CertificateIdentifier};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::config::AcmeConfig;
use crate::limits::{
    ACME_ASK_MAX, ACME_ASK_MIN, ACME_ORDER_MAX, ACME_REASON_MAX, ACME_RETRY_MAX, ACME_WAIT_MAX,
};
use crate::reload::Ask;
use crate::state::StateError;
use crate::tls::{Certificates, Pair, TlsError, read_pair};

pub use challenge::Challenges;
use client::{Client, ClientError};
use external::{External, ExternalError};
use store::Store;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}; see --acme-root")]
    Client(#[from] ClientError),
    #[error("{0}")]
    External(#[from] ExternalError),
    #[error("cannot start the thread that orders certificates: {0}; raise the limit of processes")]
    Thread(#[from] io::Error),
}

/// Why an order came to nothing.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Protocol(#[from] instant_acme::Error),
    #[error("the authority offers no challenge over HTTP for {0}")]
    NoHttp(String),
    #[error("{domain}: {reason}")]
    Challenge { domain: String, reason: String },
    #[error("the authority refuses the order")]
    Refused,
    #[error("the authority has not finished it within {0:?}")]
    Late(Duration),
    #[error("{0}")]
    NoAdvice(String),
    #[error("{0}")]
    State(#[from] StateError),
    #[error("what the authority gave cannot be used: {0}")]
    Useless(#[from] TlsError),
}

/// What is ready before the relay is, so that a fault is found at the start.
pub struct Ready {
    config: AcmeConfig,
    client: Client,
    external: Option<External>,
    runtime: Runtime,
    challenges: Challenges,
}

/// The thread that orders.
pub struct Acme {
    thread: JoinHandle<()>,
    asks: mpsc::UnboundedSender<()>,
    /// Dropped to stop it.
    stop: oneshot::Sender<Infallible>,
}

impl Ready {
    pub fn new(config: &AcmeConfig) -> Result<Ready, StartError> {
        let client = Client::new(config.root.as_deref())?;
        let external = config.external.as_ref().map(External::read).transpose()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let challenges = Challenges::default();
        Ok(Ready { config: config.clone(), client, external, runtime, challenges })
    }

    /// What HTTP answers challenges with.
    pub fn challenges(&self) -> Challenges {
        self.challenges.clone()
    }

    /// From now on there is a certificate, or one is ordered; `files` has it read when there is one.
    pub fn start(
        self,
        certificates: Arc<Certificates>,
        files: Sender<Ask>,
    ) -> Result<Acme, StartError> {
        let (asks, asked) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let Ready { config, client, external, runtime, challenges } = self;
        let store = Store::new(&config);
        let orders = Orders {
            config,
            client,
            external,
            store,
            challenges,
            certificates,
            files,
            advice: Advice::default(),
            succeeded_at: None,
        };
        let stopped = async {
            let _ = stopped.await;
        };
        let body = move || {
            runtime.block_on(future::or(stopped, orders.run(asked)));
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("acme".to_owned()).spawn(body)?;
        Ok(Acme { thread, asks, stop })
    }
}

impl Acme {
    /// Has an order that failed tried again at once.
    pub fn try_again(&self) {
        // It ends after us, or has panicked and said so.
        let _ = self.asks.send(());
    }

    /// An order that is under way is given up.
    pub fn stop(self) -> thread::Result<()> {
        drop(self.stop);
        self.thread.join()
    }
}

struct Orders {
    config: AcmeConfig,
    client: Client,
    external: Option<External>,
    store: Store,
    challenges: Challenges,
    certificates: Arc<Certificates>,
    files: Sender<Ask>,
    advice: Advice,
    /// When this process last was given a certificate.
    succeeded_at: Option<OffsetDateTime>,
}

/// What the authority has said last of when a certificate is to be replaced.
#[derive(Default)]
struct Advice {
    /// The certificate, by its fingerprint.
    of: [u8; 32],
    /// What the authority knows it by, if it says anything.
    replaces: Option<CertificateIdentifier<'static>>,
    at: Option<OffsetDateTime>,
    /// When it is to be asked again.
    asked_until: Option<OffsetDateTime>,
    /// No order that it wants follows one that it wanted at once, whatever it says.
    held_until: Option<OffsetDateTime>,
}

impl Advice {
    /// When there is something to be done for a certificate that is due then.
    fn next_look(&self, now: OffsetDateTime, due: OffsetDateTime) -> OffsetDateTime {
        // For one that is due by its life nobody is asked, and when that was to be may be past.
        let asked = self.asked_until.filter(|asked| *asked > now);
        asked.map_or(due, |asked| due.min(asked))
    }
}

impl Orders {
    async fn run(mut self, mut asked: mpsc::UnboundedReceiver<()>) {
        let mut failures = 0;
        let mut retry_at = None;
        loop {
            let now = OffsetDateTime::now_utc();
            let (due, is_advised) = self.due(now).await;
            let due = retry_at.map_or(due, |retry_at| due.max(retry_at));
            if now < due {
                // The clock may be set meanwhile, or the machine sleep.
                let until = self.advice.next_look(now, due);
                let left = (until - now).unsigned_abs().min(ACME_WAIT_MAX);
                let is_asked = future::or(async { asked.recv().await.is_some() }, async {
                    sleep(left).await;
                    false
                });
                if is_asked.await {
                    retry_at = None;
                }
                continue;
            }
            tracing::info!(
                domains = self.config.domains.join(","),
                directory = self.config.directory,
                "a certificate is ordered"
            );
            let late = |_| Err(Fault::Late(ACME_ORDER_MAX));
            match timeout(ACME_ORDER_MAX, self.obtain()).await.unwrap_or_else(late) {
                Ok(()) => {
                    (failures, retry_at) = (0, None);
                    self.has_succeeded(OffsetDateTime::now_utc(), is_advised);
                }
                Err(error) => {
                    failures += 1;
                    let pause = due::pause(failures);
                    retry_at = Some(OffsetDateTime::now_utc() + pause);
                    let error: String = error.to_string().chars().take(ACME_REASON_MAX).collect();
                    tracing::warn!(
                        %error,
                        expires = %self.certificates.expires().date(),
                        again_in = ?pause,
                        "no certificate was to be had, and the one in use stays; SIGHUP has it tried at once"
                    );
                }
            }
        }
    }

    /// When another certificate is to be ordered than the one in use, and whether that is the authority's wish.
    async fn due(&mut self, now: OffsetDateTime) -> (OffsetDateTime, bool) {
        let pair = self.certificates.now()[0].clone();
        let due = due::due(&pair, &self.config.domains);
        // A clock that has been set back says nothing of how long ago that was.
        let succeeded_at = self.succeeded_at.filter(|at| *at <= now);
        let by_life = succeeded_at.map_or(due, |at| due.max(due::again(&pair, at)));
        // Also while that waits: the authority would have it replaced at once as well.
        if due <= now {
            return (by_life, false);
        }
        let is_known = self.advice.of == pair.fingerprint;
        if !is_known || self.advice.asked_until.is_none_or(|until| until <= now) {
            self.ask(&pair, now).await;
        }
        match (self.advice.at, self.advice.held_until) {
            (Some(at), Some(held)) => (at.max(held.min(by_life)), true),
            (Some(at), None) => (at, true),
            (None, _) => (by_life, false),
        }
    }

    /// There is another certificate, and as a rule it is in use.
    fn has_succeeded(&mut self, now: OffsetDateTime, is_advised: bool) {
        self.succeeded_at = Some(now);
        if is_advised {
            self.advice.held_until = Some(now + ACME_RETRY_MAX);
        }
        let pair = self.certificates.now()[0].clone();
        if due::due(&pair, &self.config.domains) <= now {
            let pause = (due::again(&pair, now) - now).unsigned_abs();
            tracing::warn!(
                again_in = ?pause,
                "a certificate was given, and the one in use is due for another all the same: is the time of day right?"
            );
        }
    }

    /// Asks the authority when it would have a certificate replaced.
    async fn ask(&mut self, pair: &Pair, now: OffsetDateTime) {
        if self.advice.of != pair.fingerprint {
            let held_until = self.advice.held_until;
            self.advice = Advice { of: pair.fingerprint, held_until, ..Advice::default() };
        }
        let (at, pause) = match self.advised(pair).await {
            Ok((replaces, at, pause)) => {
                self.advice.replaces = Some(replaces);
                (at, pause.clamp(ACME_ASK_MIN, ACME_ASK_MAX))
            }
            // Many say nothing, and what was said counts until something else is.
            Err(error) => {
                tracing::debug!(%error, "the authority suggests no time for a new certificate");
                (self.advice.at, ACME_RETRY_MAX)
            }
        };
        if at != self.advice.at
            && let Some(at) = at
        {
            let at = at.replace_nanosecond(0).ok().and_then(|at| at.format(&Rfc3339).ok());
            tracing::info!(at, "the authority suggests when the certificate is to be replaced");
        }
        (self.advice.at, self.advice.asked_until) = (at, Some(now + pause));
    }

    async fn advised(
        &self,
        pair: &Pair,
    ) -> Result<(CertificateIdentifier<'static>, Option<OffsetDateTime>, Duration), Fault> {
        let leaf = &pair.key.cert[0];
        let id = CertificateIdentifier::try_from(leaf).map_err(Fault::NoAdvice)?.into_owned();
        let account = self.kept_account().await?;
        let account = account.ok_or_else(|| Fault::NoAdvice("there is no account".to_owned()))?;
        let (info, pause) = account.renewal_info(&id).await?;
        let window = info.suggested_window;
        Ok((id, due::suggested(pair, window.start, window.end), pause))
    }

    /// Orders one, keeps it, and has it read.
    async fn obtain(&self) -> Result<(), Fault> {
        let account = self.account().await?;
        let got = match self.order(&account).await {
            Err(Fault::Protocol(error)) if order::is_unknown_account(&error) => {
                self.store.forget_account()?;
                let account = self.account().await?;
                self.order(&account).await?
            }
            got => got?,
        };
        // What cannot be used does not take the place of what can.
        read_pair(self.store.certificate(), got.clone().into_bytes())?;
        self.store.keep_certificate(&got)?;
        let (read, is_read) = oneshot::channel();
        if self.files.send(Ask::Look(Some(read))).is_ok() {
            let _ = is_read.await;
        }
        Ok(())
    }

    async fn order(&self, account: &Account) -> Result<String, Fault> {
        let is_known = self.advice.of == self.certificates.now()[0].fingerprint;
        let replaces = self.advice.replaces.as_ref().filter(|_| is_known);
        order::order(account, &self.config.domains, replaces, &self.challenges).await
    }

    async fn kept_account(&self) -> Result<Option<Account>, Fault> {
        let Some(credentials) = self.store.account()? else { return Ok(None) };
        let builder = Account::builder_with_http(Box::new(self.client.clone()));
        Ok(Some(builder.from_credentials(credentials).await?))
    }

    /// The one that is kept, or a new one.
    async fn account(&self) -> Result<Account, Fault> {
        if let Some(account) = self.kept_account().await? {
            return Ok(account);
        }
        let builder = Account::builder_with_http(Box::new(self.client.clone()));
        let contact: Vec<&str> = self.config.contacts.iter().map(String::as_str).collect();
        // Whoever names a domain is told so in the description of the setting.
        let asks = instant_acme::NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let directory = self.config.directory.clone();
        let external = self.external.as_ref().map(External::key);
        let (account, credentials) = builder.create(&asks, directory, external.as_ref()).await?;
        self.store.keep_account(&credentials)?;
        Ok(account)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::PrivateKeyDer;

    use super::due::AGAIN_AFTER;
    use super::*;
    use crate::tls::Source;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Who has a certificate that began that long ago and lives so long, and nobody to ask.
    fn orders(name: &str, now: OffsetDateTime, age: Duration, life: Duration) -> Orders {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = now - age;
        params.not_after = params.not_before + life;
        let cert = params.self_signed(&key).unwrap();
        let state_dir =
            std::env::temp_dir().join(format!("shardcast-orders-{name}-{}", std::process::id()));
        let root = state_dir.with_extension("pem");
        std::fs::write(&root, cert.pem()).expect("a file");
        let client = Client::new(Some(root.as_path())).expect("a client");
        std::fs::remove_file(&root).expect("it is there");
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let source = Source::File("acme-certificate.pem".into());
        let pair = Pair::new(vec![cert.der().clone()], key, source).unwrap();
        let config = AcmeConfig {
            domains: vec!["a.example".to_owned()],
            directory: "https://localhost/directory".to_owned(),
            contacts: Vec::new(),
            external: None,
            root: None,
            state_dir,
        };
        Orders {
            client,
            external: None,
            store: Store::new(&config),
            challenges: Challenges::default(),
            certificates: Arc::new(Certificates::new(vec![pair])),
            files: std::sync::mpsc::channel().0,
            advice: Advice::default(),
            succeeded_at: None,
            config,
        }
    }

    /// Whatever the authority says of it.
    #[tokio::test]
    async fn what_is_due_when_it_is_given_is_not_ordered_again_soon() {
        let now = OffsetDateTime::now_utc();
        let mut orders = orders("due", now, DAY * 80, DAY * 90);
        let (due, _) = orders.due(now).await;
        assert!(due <= now, "{due}");
        for is_advised in [false, true] {
            orders.has_succeeded(now, is_advised);
            orders.advice.at = Some(now - DAY);
            for later in [Duration::ZERO, Duration::from_secs(7 * 60 * 60), AGAIN_AFTER] {
                assert_eq!(orders.due(now + later).await, (now + AGAIN_AFTER, false), "{later:?}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_due_soon_after_it_is_given_waits_as_well() {
        let now = OffsetDateTime::now_utc();
        let mut orders = orders("soon", now, DAY * 59, DAY * 90);
        let pair = Pair { fingerprint: [0; 32], ..orders.certificates.now()[0].clone() };
        orders.certificates.replace(vec![pair]);
        let (due, _) = orders.due(now).await;
        assert!(now < due && due < now + AGAIN_AFTER, "{due}");
        orders.has_succeeded(now, false);
        assert_eq!(orders.due(now).await, (now + AGAIN_AFTER, false));
    }

    #[tokio::test]
    async fn what_lives_is_due_when_it_was() {
        let now = OffsetDateTime::now_utc();
        for (name, life) in [("long", DAY * 90), ("day", DAY), ("short", Duration::from_secs(12))] {
            let mut orders = orders(name, now, Duration::ZERO, life);
            let before = orders.due(now).await;
            orders.has_succeeded(now, false);
            assert_eq!(orders.due(now).await, before, "{name}");
        }
    }

    #[test]
    fn who_is_asked_about_nothing_is_not_waited_for() {
        let now = OffsetDateTime::now_utc();
        let advice = |asked_until| Advice { asked_until, ..Advice::default() };
        for (asked_until, next) in [
            (None, now + DAY),
            (Some(now + DAY * 2), now + DAY),
            (Some(now + DAY / 2), now + DAY / 2),
            (Some(now), now + DAY),
            (Some(now - DAY), now + DAY),
        ] {
            assert_eq!(advice(asked_until).next_look(now, now + DAY), next, "{asked_until:?}");
        }
    }
}
