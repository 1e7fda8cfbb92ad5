//! How a peer comes in: it says who it is and where it wants to be, the shard says with what it may be there.

use std::time::Instant;

use super::counts::Class;
use super::streams::Streams;
use super::{Context, Effect, Session, Step, Stream, Use};
use crate::access::{Admission, BadTarget, Grant, Refusal, Target};
use crate::limits::ENTRY_TIMEOUT;
use crate::route::Trust;
use crate::wire::{
    CONTROL_MESSAGE_BYTES_MAX, Path, ProbeLevel, Role, SessionCode, Setup, UniType, Version,
    encode_varint, split_message,
};

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

/// What a relay says that dials its peer, and holds of the link. All else is the same at both ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Where it wants to be, path and query, if its transport has no URL. There may be a token in it.
    pub target: Option<String>,
    /// What routes cost that cross the link, if that is not the peer's to say.
    pub cost: Option<u64>,
}

impl Call {
    /// What of it is said in SETUP: path and price.
    pub(super) fn says(&self) -> (Option<String>, Option<u64>) {
        (self.target.clone(), self.cost)
    }
}

impl Session {
    /// This relay has dialled the peer, and believes it. To be said before [`Session::start`].
    pub fn dial(&mut self, call: Call) {
        self.pass = Pass::unlimited();
        self.pass.admission.is_relay = true;
        self.is_admitted = true;
        self.trust = Trust::Relay;
        self.call = Some(call);
    }

    /// The peer is the other process of this relay. To be said before it is let in, or the session begins.
    pub fn be_twin(&mut self) {
        self.is_twin = true;
        self.stay();
    }

    /// Whether the peer is one that this relay has dialled.
    pub fn is_dialled(&self) -> bool {
        self.call.is_some()
    }

    /// Whoever dials asks without knowing who is there, where that is to be known at all (spec §1.7).
    pub(super) fn asks_at_once(&self) -> bool {
        self.is_dialled() && self.version >= Version::Lite05
    }

    /// What it was let in with.
    pub fn pass(&self) -> &Pass {
        &self.pass
    }

    /// What the peer has said that it is.
    pub fn role(&self) -> Role {
        self.role
    }

    pub(super) fn root(&self) -> &Path {
        self.pass.admission.grant.root()
    }

    /// Where the peer wants to be by the URL that it has dialled. Where the transport has none it says so
    /// itself, or wants to be at the root.
    pub fn set_dialled(&mut self, target: Target) {
        self.dialled = target;
    }

    /// Sends our SETUP as soon as the peer grants a stream for it.
    pub(super) fn send_setup<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        if !self.owes_setup {
            return;
        }
        let Some(id) = cx.streams.open_uni() else { return };
        self.owes_setup = false;
        let mut bytes = Vec::new();
        encode_varint(UniType::Setup as u64, &mut bytes);
        let (hop, probe) = (self.policy.hop, ProbeLevel::Report);
        let (path, cost) = self.call.as_ref().map_or((None, None), Call::says);
        Setup { hop, probe, path, cost, role: Role::Both }.encode(&mut bytes);
        self.send(Class::Session, id, &bytes, true, cx);
    }

    pub(super) fn take_setup<S: Streams>(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_, S>,
    ) -> Step {
        let setup = match split_message(&stream.buf, CONTROL_MESSAGE_BYTES_MAX) {
            Ok(Some((body, _))) => Setup::decode(body),
            Ok(None) => return Step::Wait,
            Err(fault) => Err(fault),
        };
        stream.buf.clear();
        stream.purpose = Use::Draining;
        match setup {
            Ok(setup) => self.introduced(setup, cx),
            Err(_) => self.fail(SessionCode::PROTOCOL_VIOLATION, "malformed SETUP", cx),
        }
        Step::Wait
    }

    /// The peer has said who it is, and perhaps where it wants to be.
    pub(super) fn introduced<S: Streams>(&mut self, mut setup: Setup, cx: &mut Context<'_, S>) {
        self.setup_deadline = None;
        if let Some(call) = &self.call {
            // Path and role are the dialler's to say, and so is the price if it has one.
            let cost = call.cost.or(setup.cost);
            setup = Setup { path: None, role: Role::Both, cost, ..setup };
        }
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
        if self.failure().is_none() {
            cx.counts.refusals.note(refusal.name());
        }
        let code = match refusal {
            Refusal::ServerAway => SessionCode::BAD_GATEWAY,
            Refusal::AddressFull | Refusal::TokenFull | Refusal::NoMemory => {
                SessionCode::TOO_MANY_REQUESTS
            }
            _ => SessionCode::UNAUTHORIZED,
        };
        self.fail(code, refusal.to_string(), cx);
    }

    /// What the peer was let in with ends in another second.
    pub fn extend(&mut self, expires: Option<i64>, ends_at: Option<Instant>) {
        self.pass.admission.expires = expires;
        self.pass.ends_at = ends_at;
    }

    /// How far the peer is believed.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// This side has no use for the session any more.
    pub fn leave<S: Streams>(&mut self, reason: &'static str, cx: &mut Context<'_, S>) {
        self.fail(SessionCode::NO_ERROR, reason, cx);
    }

    /// The operator wants the peer to leave.
    pub fn kick<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        // By WebSocket released clients take no code for final that comes once they are let in; so none does.
        self.fail(SessionCode::NO_ERROR, "closed by the operator", cx);
    }

    /// The clock was set: what the peer was let in with ends at another time.
    pub fn set_end(&mut self, ends_at: Option<Instant>) {
        self.pass.ends_at = ends_at;
    }

    /// Who the peer is and what it may do has become known: requests are served from here on.
    fn ready<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        let Some(setup) = self.setup.take() else { return };
        self.role = setup.role;
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
        self.send_goaway(cx);
        if !self.asks_at_once() {
            self.unasked = self.pass.admission.grant.publish_heads();
        }
        self.ask_for_announcements(cx);
        for id in std::mem::take(&mut self.held) {
            self.opened(id, cx);
        }
        self.hear(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Play;
    use super::*;
    use crate::limits::ANNOUNCEMENTS_PER_PEER_MAX;

    /// What a dialler says with its first streams: SETUP (spec §1.7), and ANNOUNCE_REQUEST at once where it may.
    #[test]
    fn a_dialler_introduces_itself_and_asks_for_everything() {
        let call = Call { target: Some("/room?jwt=abc".to_owned()), cost: Some(100) };
        // Probe 1, path, cost 100, hop 7, as vectors 5 to 7 of the spec have them one by one.
        let setup = b"\x01\x1a\x04\x01\x01\x01\x02\x0d/room?jwt=abc\x04\x02\x40\x64\x05\x01\x07";
        let without_hop: &[u8] = &[1, 1, 0];
        let with_hop: &[u8] = &[1, 2, 0, 7];
        for (version, setup, request) in [
            (Version::Lite06, Some(&setup[..]), without_hop),
            (Version::Lite05, Some(&setup[..]), with_hop),
            (Version::Lite04, None, with_hop),
            (Version::Lite03, None, without_hop),
        ] {
            let play = Play::dialling(version, call.clone());
            let mut told = play.link.told.values().map(Vec::as_slice);
            // Bidirectional streams have the lower ids here.
            assert_eq!(told.next(), Some(request), "{version}");
            assert_eq!(told.next(), setup, "{version}");
            assert_eq!((told.next(), play.session.trust()), (None, Trust::Relay));
        }
    }

    #[test]
    fn a_relay_may_announce_more_than_a_peer_and_is_heard_once_it_is_known() {
        const COUNT: usize = 2 * ANNOUNCEMENTS_PER_PEER_MAX + 10;
        let mut play = Play::dialling(Version::Lite06, Call::default());
        let request = *play.link.told.keys().next().expect("what was asked for");
        // ANNOUNCE_OK, and many of ANNOUNCE_START.
        let mut says = vec![2, 9, 0];
        for number in 0..COUNT {
            let suffix = format!("{number:05}");
            says.extend([0, 10, 5]);
            says.extend(suffix.bytes());
            says.extend([1, 7, 1, 1]);
        }
        play.link.says = says.clone();
        play.with(|session, cx| session.readable(request, cx));
        assert!(!play.link.says.is_empty(), "nothing is read of who is not known");
        play.opens(3, &[1, 1, 0]);
        play.link.says = says;
        play.with(|session, cx| session.readable(request, cx));
        assert_eq!(play.session.announcements, COUNT);
    }

    #[test]
    fn the_price_of_a_link_is_the_diallers_then_the_peers_then_one() {
        const COST_9: &[u8] = &[1, 4, 1, 4, 1, 9];
        const NOTHING: &[u8] = &[1, 1, 0];
        // A path and a role are not the peer's to say: it is believed to publish all the same.
        const PATH_AND_ROLE: &[u8] = &[1, 8, 2, 2, 2, b'/', b'x', 3, 1, 2];
        for (cost, says, price) in [
            (Some(0), COST_9, 0),
            (None, COST_9, 9),
            (None, NOTHING, 1),
            (Some(4), PATH_AND_ROLE, 4),
        ] {
            let mut play = Play::dialling(Version::Lite06, Call { target: None, cost });
            assert!(!play.session.is_ready);
            play.opens(3, says);
            assert!(play.session.is_ready && play.session.root().is_root());
            assert!(play.session.pass().admission.grant.may_publish_all_below(&Path::root()));
            assert_eq!(play.session.price, price);
        }
    }

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

    #[test]
    fn the_operator_hears_once_that_somebody_asks_for_what_he_may_not() {
        let mut play = Play::new();
        let root = Path::parse("live").unwrap();
        let publish = moq_pattern::Patterns::from(moq_pattern::Pattern::all());
        let grant = Grant::new(root.clone(), publish, Default::default());
        play.session.pass.admission.grant = grant;
        for (round, path) in ["cam", "mic"].into_iter().enumerate() {
            let path = Path::parse(path).unwrap();
            let effects = play.with(|session, cx| {
                assert!(session.absolute(&path, "video", cx).is_err());
            });
            let denied = effects.into_iter().map(|effect| match effect {
                Effect::Denied { path, refusal } => (path, refusal),
                other => panic!("{other:?}"),
            });
            let path = root.join(&path).unwrap();
            let expect = (round == 0).then_some((path, Refusal::AsksOutside));
            assert_eq!(denied.collect::<Vec<_>>(), Vec::from_iter(expect));
        }
    }
}
