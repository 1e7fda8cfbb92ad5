//! A process that is to take over, from its start until it serves.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::time::Instant;

use super::line::{FORM, Line, Word};
use super::link::{Link, LinkError, Pact};
use crate::estate::{Estate, Inherited};
use crate::limits::UPGRADE_STEP_MAX;
use crate::net::{BindError, Rows};
use crate::shard::links::HeirKey;
use crate::signals;
use crate::state::{Secrets, StateError};

/// Set where this program was started to take over, with the line for its standard input.
pub const VARIABLE: &str = "SHARDCAST_PREDECESSOR";

#[derive(Debug, thiserror::Error)]
pub enum HeirError {
    #[error(
        "{VARIABLE} is set, and there is no relay that has started this one: unset it, and see shardcast \
         upgrade --help"
    )]
    NoLine,
    #[error("the relay that has started this one is gone")]
    Alone,
    #[error("this process was told to end before it took over")]
    Ending,
    #[error(
        "the relay that runs and this program do not understand each other, for they are of different versions: \
         restart it instead"
    )]
    Foreign,
    #[error("nothing comes from the relay that has started this one: {0}")]
    Io(#[from] io::Error),
    #[error("there is no link to the process before this one: {0}")]
    Link(String),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Steering(#[from] BindError),
}

pub struct Heir {
    line: Line,
    /// What the link to the process before this one takes, once it has said that.
    pact: OnceLock<Pact>,
}

impl Heir {
    /// What this program is, if it was started as one. To be called once, before anything reads the standard input.
    pub fn from_environment() -> Result<Option<Heir>, HeirError> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let end = io::stdin().as_fd().try_clone_to_owned()?;
        let line = Line::from(end).ok_or(HeirError::NoLine)?;
        // Nobody is to take the line for a file of settings.
        let nothing = File::open("/dev/null")?;
        // SAFETY: both are open; that of the standard input belongs to nobody but the process.
        unsafe { libc::dup2(nothing.as_raw_fd(), libc::STDIN_FILENO) };
        Ok(Some(Heir { line, pact: OnceLock::new() }))
    }

    pub fn inherit(&self) -> Result<Inherited, HeirError> {
        let until = Instant::now() + UPGRADE_STEP_MAX;
        let offer = match self.line.hear(until) {
            Ok(Some(Word::Offer(offer))) if offer.form == FORM => offer,
            Ok(None) => return Err(HeirError::Alone),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error.into()),
            _ => return Err(HeirError::Foreign),
        };
        let count = offer.sockets + offer.listeners.len();
        let mut sockets = self.line.take(count, until)?;
        let listeners = sockets.split_off(offer.sockets).into_iter().map(TcpListener::from);
        let listeners = offer.listeners.into_iter().zip(listeners).collect();
        let secrets = Secrets::from_bytes(&offer.secrets).ok_or(HeirError::Foreign)?;
        let (key, certificates) = (HeirKey::new(offer.key), offer.certificates);
        let _ = self.pact.set(Pact { key, certificates, generation: secrets.generation });
        Ok(Inherited {
            secrets: Some(secrets),
            rows: Some(Rows::adopt(sockets)?),
            listeners,
            is_shared: true,
            is_kept: false,
            hop: Some(offer.hop),
        })
    }

    /// Says why this process ends before it has taken over.
    pub fn refuse(&self, reason: &str) {
        // Whoever has started it sees its end in any case.
        let _ = self.line.say(&Word::Refused(reason.to_owned()));
    }

    /// Takes over, when it is time. What is left is the line to the process before this one.
    pub(super) fn take_over(&self, estate: &Estate) -> Result<Link, HeirError> {
        let pact = self.pact.get().ok_or(HeirError::Foreign)?.clone();
        estate.can_keep()?;
        let link = Link::open(pact, estate, &self.line).map_err(|error| match error {
            LinkError::Alone => HeirError::Alone,
            LinkError::Failed(reason) => HeirError::Link(reason),
        })?;
        self.line.say(&Word::Ready)?;
        match self.line.hear(Instant::now() + UPGRADE_STEP_MAX)? {
            Some(Word::Go) => {}
            Some(_) => return Err(HeirError::Foreign),
            None => return Err(HeirError::Alone),
        }
        // A signal that has come was for this process, and what comes from now on is for the relay.
        signals::begin();
        if signals::is_ending() {
            return Err(HeirError::Ending);
        }
        estate.take_over(true)?;
        // Without it that process is gone, which the end of the line says too.
        let _ = self.line.say(&Word::Serving);
        Ok(link)
    }

    pub(super) fn line(&self) -> io::Result<Line> {
        self.line.try_clone()
    }
}

/// What the offer's descriptors are.
pub(super) fn descriptors(estate: &Estate) -> Vec<BorrowedFd<'_>> {
    let listeners = estate.listeners.iter().map(|(_, listener)| listener.as_fd());
    estate.rows.sockets().chain(listeners).collect()
}
