//! How a peer comes in: it says who it is and where it wants to be, the shard says with what it may be there.

use std::time::Instant;

use super::streams::Streams;
use super::{Context, Effect, Session};
use crate::access::{Admission, BadTarget, Grant, Refusal, Target};
use crate::limits::ENTRY_TIMEOUT;
use crate::route::Trust;
use crate::wire::{Path, SessionCode, Setup};

/// What a session was let in with. By default with nothing.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    pub admission: Admission,
    /// When that ends.
    pub ends_at: Option<Instant>,
}

impl Pass {
    /// Everything, for good.
    pub fn unlimited() -> Pass {
        let grant = Grant::everything();
        Pass { admission: Admission { grant, ..Admission::default() }, ends_at: None }
    }
}

impl Session {
    /// What it was let in with.
    pub fn pass(&self) -> &Pass {
        &self.pass
    }

    pub(super) fn root(&self) -> &Path {
        self.pass.admission.grant.root()
    }

    /// Where the peer wants to be by the URL that it has dialled. Where the transport has none it says so
    /// itself, or wants to be at the root.
    pub fn set_dialled(&mut self, target: Target) {
        self.dialled = target;
    }

    /// The peer has said who it is, and perhaps where it wants to be.
    pub(super) fn introduced<S: Streams>(&mut self, setup: Setup, cx: &mut Context<'_, S>) {
        self.setup_deadline = None;
        // Where both name a path, the one in SETUP counts (spec §1.8).
        let target = match &setup.path {
            Some(path) => Some(Target::parse(path)),
            None if self.is_admitted => None,
            None => Some(Ok(std::mem::take(&mut self.dialled))),
        };
        let role = setup.role;
        self.setup = Some(setup);
        match target {
            None => self.ready(cx),
            Some(Ok(target)) => {
                self.entry_deadline = Some(cx.now + ENTRY_TIMEOUT);
                cx.effects.push(Effect::Arrived { target, role });
            }
            Some(Err(fault)) => {
                let reason = match fault {
                    BadTarget::Malformed => "malformed path in SETUP",
                    BadTarget::TooLong => "the session's path is too long",
                };
                self.fail(SessionCode::PROTOCOL_VIOLATION, reason, cx);
            }
        }
    }

    /// Lets the peer in where it wants to be.
    pub fn admit<S: Streams>(&mut self, pass: Pass, cx: &mut Context<'_, S>) {
        (self.pass, self.is_admitted) = (pass, true);
        self.entry_deadline = None;
        self.ready(cx);
    }

    /// The peer may not be here, or no longer.
    pub fn turn_away<S: Streams>(&mut self, refusal: &Refusal, cx: &mut Context<'_, S>) {
        let code = match refusal {
            Refusal::ServerAway => SessionCode::BAD_GATEWAY,
            Refusal::AddressFull | Refusal::TokenFull => SessionCode::TOO_MANY_REQUESTS,
            _ => SessionCode::UNAUTHORIZED,
        };
        self.fail(code, refusal.to_string(), cx);
    }

    /// What the peer was let in with ends in another second.
    pub fn extend(&mut self, expires: Option<i64>, ends_at: Option<Instant>) {
        self.pass.admission.expires = expires;
        self.pass.ends_at = ends_at;
    }

    /// The clock was set: what the peer was let in with ends at another time.
    pub fn set_end(&mut self, ends_at: Option<Instant>) {
        self.pass.ends_at = ends_at;
    }

    /// Who the peer is and what it may do has become known: requests are served from here on.
    fn ready<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        let Some(setup) = self.setup.take() else { return };
        let admission = &mut self.pass.admission;
        match std::mem::take(&mut admission.grant).for_role(setup.role) {
            Ok(grant) => admission.grant = grant,
            Err(refusal) => return self.turn_away(&refusal, cx),
        }
        if admission.is_relay {
            self.trust = Trust::Relay;
        }
        self.price = match self.trust {
            Trust::Relay => setup.cost.unwrap_or(1),
            // Nobody has himself preferred.
            Trust::Stranger { .. } => setup.cost.unwrap_or(1).max(1),
        };
        if setup.hop != 0 {
            self.identity = setup.hop;
        }
        self.is_ready = true;
        cx.effects.push(Effect::Ready);
        self.unasked = self.pass.admission.grant.publish_heads();
        self.ask_for_announcements(cx);
        for id in std::mem::take(&mut self.held) {
            self.opened(id, cx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Play;
    use super::*;

    #[test]
    fn who_is_let_in_as_a_relay_is_believed() {
        let stranger = Trust::Stranger { at: 1 };
        for (is_relay, expect) in [(false, stranger), (true, Trust::Relay)] {
            let mut play = Play::new();
            (play.session.trust, play.session.setup) = (stranger, Some(Setup::default()));
            let mut pass = Pass::unlimited();
            pass.admission.is_relay = is_relay;
            play.with(|session, cx| session.admit(pass, cx));
            assert_eq!(play.session.trust, expect);
        }
    }
}
