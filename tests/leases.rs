//! Sessions that an auth server decides about, in the simulated world: the play is the server.

#[path = "support/simulated.rs"]
mod support;

use std::time::Duration;

use shardcast::access::{Admission, Grant, Refusal};
use shardcast::authority::contract::{Facts, Moved};
use shardcast::authority::desk::LeaseId;
use shardcast::authority::{Asker, Handle, Leased, Mail, News};
use shardcast::limits::ENTRY_TIMEOUT;
use shardcast::route::SessionRef;
use shardcast::shard::message::ToShard;
use shardcast::wire::*;
use support::peer::*;
use support::world::*;
use tokio::sync::mpsc::UnboundedReceiver;

use Version::{Lite02, Lite03, Lite05, Lite06};

const TRACK: &str = "video";

/// The first second of a play that has not begun when it begins.
const SECOND: i64 = EPOCH.as_secs() as i64 + 1;

const SOON: Duration = Duration::from_millis(30);

/// What the relay tells the server.
struct Server(UnboundedReceiver<Mail>);

struct Asked {
    lease: LeaseId,
    session: SessionRef,
    facts: Box<Facts>,
}

impl Server {
    fn new(shards: usize) -> (World, Server) {
        Server::on(Stage::new(5, shards))
    }

    fn on(stage: Stage) -> (World, Server) {
        let (handle, from) = Handle::new("127.0.0.1:4443".parse().unwrap());
        (World::with_authority(stage, handle), Server(from))
    }

    /// What it was asked, once.
    #[track_caller]
    fn asked(&mut self) -> Asked {
        match self.0.try_recv().expect("a question") {
            Mail::Ask { lease, asker: Asker::Session(session), facts } => {
                Asked { lease, session, facts }
            }
            _ => panic!("it is no question of a session"),
        }
    }

    #[track_caller]
    fn told_of_end(&mut self, of: LeaseId) -> (String, Moved) {
        match self.0.try_recv().expect("an end") {
            Mail::End { lease, reason, moved } if lease == of => (reason.into_owned(), moved),
            _ => panic!("it is not the end of this lease"),
        }
    }

    #[track_caller]
    fn expect_silence(&mut self) {
        assert!(self.0.try_recv().is_err(), "something is said");
    }
}

impl Asked {
    fn answer(&self, w: &mut World, news: News) {
        let (session, lease) = (self.session, self.lease);
        w.tell(
            usize::from(session.shard),
            ToShard::Leased(Leased { session, lease, news: Box::new(news) }),
        );
        w.run(ms(300));
    }

    fn admit(&self, w: &mut World, publish: &str, subscribe: &str, expires: Option<i64>) {
        let set = |text: &str| text.parse().into_iter().collect();
        let grant = Grant::new(Path::parse("rooms/7").unwrap(), set(publish), set(subscribe));
        self.answer(w, News::Admitted(Admission { grant, expires, ..Admission::default() }));
    }
}

/// Whoever judges what viewers see hears where the server has put one.
fn is_moved(w: &mut World, peer: usize) {
    w.peers[peer].spec.setup.path = Some("/rooms/7".to_owned());
}

fn dials(version: Version, web: bool, target: &str) -> Spec {
    let setup = Setup { path: Some(target.to_owned()), ..Setup::default() };
    let spec = Spec { setup, ..Spec::new(version, 0) };
    if web { spec.web() } else { spec }
}

fn come(w: &mut World, server: &mut Server, spec: Spec) -> (usize, Asked) {
    let peer = w.arrive(spec);
    w.run(ms(500));
    (peer, server.asked())
}

#[track_caller]
fn expect_over(w: &World, peer: usize, code: SessionCode, words: &str) {
    let State::Over(reason, got) = &w.peers[peer].state else { panic!("it is not over") };
    assert!(*got == Some(code.0) && reason.contains(words), "{got:?} {reason}");
}

const KINDS: [(Version, bool); 6] = [
    (Lite02, false),
    (Lite03, false),
    (Lite05, false),
    (Lite06, false),
    (Lite03, true),
    (Lite06, true),
];

/// What it asks for meanwhile waits with it, and it is somewhere else than it has dialled.
#[test]
fn a_session_waits_for_its_answer() {
    for (version, web) in KINDS {
        let (mut w, mut server) = Server::new(2);
        let (cam, asked) = come(&mut w, &mut server, dials(version, web, "/room?jwt=a.b.c"));
        let says_path = web || version >= Lite05;
        let path = if says_path { "/room" } else { "" };
        assert_eq!(asked.facts.dialled.path_text(), path, "{version} {web}");
        assert_eq!(asked.facts.dialled.query(), says_path.then_some("jwt=a.b.c"));
        assert_eq!(asked.facts.alpn, Some(version.alpn()));
        w.peers[cam].announce("cam", &[], Cost::ZERO);
        w.run(Duration::from_secs(8));
        assert!(w.peers[cam].is_up());
        server.expect_silence();
        asked.admit(&mut w, "cam", "**", None);
        is_moved(&mut w, cam);
        let (viewer, asked_too) = come(&mut w, &mut server, dials(Lite06, false, "/x"));
        let listen = w.peers[viewer].listen("", 0);
        asked_too.admit(&mut w, "", "**", None);
        is_moved(&mut w, viewer);
        assert_eq!(w.peers[viewer].listens[listen].live(), ["cam"], "{version} {web}");
        let track = w.track(cam, "cam", TRACK);
        let sub = w.subscribe(viewer, "cam", TRACK, live());
        w.run(ms(300));
        w.group(track, 0, &[100]);
        w.run(ms(300));
        assert_eq!(w.got(sub), [0]);
        // Outside of the grant nothing is to be had, as with a token.
        w.peers[cam].announce("other", &[], Cost::ZERO);
        w.run(ms(300));
        assert_eq!(w.peers[viewer].listens[listen].live(), ["cam"]);
        w.kill(cam);
        w.run(Duration::from_secs(16));
        let (_, moved) = server.told_of_end(asked.lease);
        assert!(moved.sent > 1000 && moved.received > 1000, "{moved:?}");
        server.expect_silence();
    }
}

#[test]
fn whoever_is_not_admitted_is_told_in_its_way() {
    for (version, web) in KINDS {
        for (refusal, code, words) in [
            (
                Refusal::ByServer("no such room".to_owned()),
                SessionCode::UNAUTHORIZED,
                "no such room",
            ),
            (Refusal::ServerAway, SessionCode(566), "try again later"),
        ] {
            let (mut w, mut server) = Server::new(2);
            let (peer, asked) = come(&mut w, &mut server, dials(version, web, "/room"));
            asked.answer(&mut w, News::Over(refusal));
            expect_over(&w, peer, code, words);
            server.told_of_end(asked.lease);
            server.expect_silence();
        }
    }
}

#[test]
fn nobody_waits_for_ever() {
    let (mut w, mut server) = Server::new(1);
    let (peer, asked) = come(&mut w, &mut server, dials(Lite06, false, "/room"));
    w.run(ENTRY_TIMEOUT - ms(700));
    assert!(w.peers[peer].is_up());
    w.run(ms(700) + SOON);
    expect_over(&w, peer, SessionCode(566), "try again later");
    server.told_of_end(asked.lease);
    // An answer that comes later finds nobody.
    asked.admit(&mut w, "**", "**", None);
    server.expect_silence();
}

#[test]
fn a_lease_ends_in_its_second_which_may_be_another_one() {
    let (mut w, mut server) = Server::new(2);
    let (short, first) = come(&mut w, &mut server, dials(Lite06, false, "/room?n=1"));
    first.admit(&mut w, "**", "**", Some(SECOND + 3));
    let (long, second) = come(&mut w, &mut server, dials(Lite05, true, "/room?n=2"));
    second.admit(&mut w, "**", "**", Some(SECOND + 3));
    second.answer(&mut w, News::Until(Some(SECOND + 6)));
    let begins = |second: i64| Duration::from_secs(second as u64) - EPOCH;
    w.run(begins(SECOND + 3) - w.since_start() - ms(1));
    assert!(w.peers[short].is_up());
    w.run(ms(1) + SOON);
    expect_over(&w, short, SessionCode::UNAUTHORIZED, "expired");
    assert_eq!(server.told_of_end(first.lease).0, "expired");
    w.run(begins(SECOND + 6) - w.since_start() - ms(1));
    assert!(w.peers[long].is_up());
    w.run(ms(1) + SOON);
    expect_over(&w, long, SessionCode::UNAUTHORIZED, "expired");
    assert_eq!(server.told_of_end(second.lease).0, "expired");
}

#[test]
fn a_session_ends_when_the_server_says_so() {
    let (mut w, mut server) = Server::new(2);
    let (cam, asked) = come(&mut w, &mut server, dials(Lite06, true, "/room?n=1"));
    asked.admit(&mut w, "**", "**", None);
    w.peers[cam].announce("cam", &[], Cost::ZERO);
    let (viewer, other) = come(&mut w, &mut server, dials(Lite06, false, "/room?n=2"));
    other.admit(&mut w, "", "**", None);
    let listen = w.peers[viewer].listen("", 0);
    w.run(ms(300));
    assert_eq!(w.peers[viewer].listens[listen].live(), ["cam"]);
    asked.answer(&mut w, News::Over(Refusal::Narrowed));
    expect_over(&w, cam, SessionCode::UNAUTHORIZED, "less than before");
    server.told_of_end(asked.lease);
    assert_eq!(w.peers[viewer].listens[listen].live(), [""; 0]);
    assert!(w.peers[viewer].is_up());
}

/// Whoever shows a token that as many show as may is not asked about.
#[test]
fn one_token_has_so_many_leases() {
    let (mut w, mut server) = Server::on(Stage { per_token: 1, ..Stage::new(5, 2) });
    let (first, asked) = come(&mut w, &mut server, dials(Lite06, true, "/room?jwt=a.b.c"));
    asked.admit(&mut w, "**", "**", None);
    for web in [false, true] {
        let peer = w.arrive(dials(Lite05, web, "/room?jwt=a.b.c"));
        w.run(ms(500));
        expect_over(&w, peer, SessionCode::TOO_MANY_REQUESTS, "--limit-token");
        server.expect_silence();
    }
    let (_, other) = come(&mut w, &mut server, dials(Lite06, false, "/room?jwt=a.b.d"));
    other.admit(&mut w, "**", "**", None);
    w.close(first);
    w.run(ms(300));
    server.told_of_end(asked.lease);
    let (_, again) = come(&mut w, &mut server, dials(Lite06, false, "/room?jwt=a.b.c"));
    again.admit(&mut w, "**", "**", None);
}
