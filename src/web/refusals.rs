//! Who is turned away over HTTP: said in the log as shards say theirs, and counted by why.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::access::{self, Refusal};
use crate::log::{self, Quota};
use crate::observe::Tally;
use crate::source::Source;

#[derive(Debug, Default)]
pub struct Refusals(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    quota: Quota,
    /// Has sources told apart in a way that they cannot foresee.
    salt: RandomState,
    counts: Tally,
}

impl Refusals {
    /// Somebody may not have what it asks for.
    pub(super) fn note(&self, remote: SocketAddr, path: &str, refusal: &Refusal) {
        self.note_for(remote, path, refusal.name(), &refusal.to_string());
    }

    /// The same for what is no matter of tokens.
    pub(super) fn note_for(
        &self,
        remote: SocketAddr,
        path: &str,
        name: &'static str,
        reason: &str,
    ) {
        let unsaid = {
            let mut said = self.lock();
            said.counts.note(name);
            let ip = remote.ip().to_canonical();
            let source = (!ip.is_loopback()).then(|| said.salt.hash_one(Source::of(ip)));
            said.quota.take(Instant::now(), source)
        };
        let Some(unsaid) = unsaid else { return };
        if unsaid > 0 {
            tracing::info!(unsaid, "clients of HTTP were refused too often to say");
        }
        let path = access::shown(path);
        let (path, reason) = (log::shortened(&path), log::shortened(reason));
        let transport = "http";
        tracing::info!(%remote, transport, path, reason, "refused");
    }

    pub fn counts(&self) -> Tally {
        self.lock().counts.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PEER_LINES_BURST;

    #[test]
    fn every_refusal_is_counted_whether_it_is_said_or_not() {
        let refusals = Refusals::default();
        let remote = "192.0.2.1:1".parse().unwrap();
        (0..PEER_LINES_BURST + 10)
            .for_each(|_| refusals.note(remote, "/announced/x", &Refusal::NotPublic));
        refusals.note_for(remote, "/", "origin", "not from there");
        let counts = refusals.counts();
        let rows: Vec<_> = counts.rows().collect();
        assert_eq!(rows, [("not_public", PEER_LINES_BURST + 10), ("origin", 1)]);
    }
}
