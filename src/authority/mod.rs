//! An auth server of the operator's: it is asked who may do what, and keeps being asked while they do it.
//!
//! * [`contract`]: what it is asked and what it answers, values ⇄ JSON.
//! * [`desk`]: all leases as one state machine. Time and randomness come in as arguments.
//! * `client`: one POST over HTTP, whatever lies below it.
//! * `thread`: the thread on which all that runs.
//!
//! Shards ask by a channel and go on; the answer comes by mail. HTTP asks by the same channel and waits.

mod client;
pub mod contract;
pub mod desk;
mod thread;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use tokio::sync::{mpsc, oneshot};

use crate::access::{Admission, Refusal};
use crate::route::SessionRef;
use contract::{Facts, Moved};
use desk::{LeaseId, Outcome, Ticket};

pub use client::{ClientError, Roots};
pub use thread::{Authority, Ready, StartError};

/// What somebody who asked is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The first thing that is said, if it is not [`News::Over`].
    Admitted(Admission),
    /// It ends in another second than was said before, or by itself never.
    Until(Option<i64>),
    /// It has not begun, or ends now.
    Over(Refusal),
}

/// What the shard of a session is told.
#[derive(Debug)]
pub struct Leased {
    pub session: SessionRef,
    pub lease: LeaseId,
    pub news: Box<News>,
}

/// Who asks.
pub enum Asker {
    /// Its shard is told by mail.
    Session(SessionRef),
    /// It is told once, and over soon after.
    Request(oneshot::Sender<News>),
}

/// What the thread is told.
pub enum Mail {
    Ask {
        lease: LeaseId,
        asker: Asker,
        facts: Box<Facts>,
    },
    /// The session is over.
    End {
        lease: LeaseId,
        reason: Cow<'static, str>,
        moved: Moved,
    },
    /// Whether the session may go on is to be asked now.
    Check(LeaseId),
    Answered {
        ticket: Ticket,
        outcome: Outcome,
    },
    Stop,
}

/// The way to the thread, for all who ask.
#[derive(Clone)]
pub struct Handle {
    to: mpsc::UnboundedSender<Mail>,
    local: SocketAddr,
}

impl Handle {
    /// With the other end of it. What waits there is bounded by what sessions there can be: the thread takes
    /// all of it at once, and what waits behind it is bounded by the desk.
    pub fn new(local: SocketAddr) -> (Handle, mpsc::UnboundedReceiver<Mail>) {
        let (to, from) = mpsc::unbounded_channel();
        (Handle { to, local }, from)
    }

    /// Where the relay listens.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// [`Handle::end`] is to follow, whatever is answered.
    pub fn ask(&self, asker: Asker, facts: Facts) -> LeaseId {
        let lease = LeaseId(u128::from_ne_bytes(random()));
        self.send(Mail::Ask { lease, asker, facts: Box::new(facts) });
        lease
    }

    pub fn end(&self, lease: LeaseId, reason: impl Into<Cow<'static, str>>, moved: Moved) {
        self.send(Mail::End { lease, reason: reason.into(), moved });
    }

    /// Somebody wants to know whether the session may go on.
    pub fn check(&self, lease: LeaseId) {
        self.send(Mail::Check(lease));
    }

    fn send(&self, mail: Mail) {
        // The thread ends after all who ask, and then there is nobody to answer.
        let _ = self.to.send(mail);
    }
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness: TLS needs it too");
    bytes
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}
