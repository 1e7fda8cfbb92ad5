//! Strangers who claim what others publish: their paths, their names and what they are said to pass on.
//! Nobody is trusted here, and the first one keeps a path while it lives.

#[path = "support/simulated.rs"]
mod support;

use std::time::Duration;

use shardcast::limits::{CLAIM_GRACE_MIN, COPIES_PER_TRACK_MAX, ROUTE_CHANGE_HOLD};
use shardcast::route::Takeover;
use shardcast::wire::*;
use support::network::Weather;
use support::peer::*;
use support::world::*;

use Version::{Lite03, Lite04, Lite05, Lite06};

const PATH: &str = "live/cam";

/// What the publisher calls itself, and the stranger.
const HOP: u64 = 7;
const STRANGER: u64 = 9;

/// Whatever is on its way or held has arrived.
const SOON: Duration = ROUTE_CHANGE_HOLD.saturating_add(Duration::from_millis(150));

/// A publisher, somebody who watches it, and one who listens.
struct Scene {
    w: World,
    cam: Track,
    track: String,
    shards: usize,
    stay: Sub,
    listener: usize,
}

fn scene(publisher: Version, shards: usize) -> Scene {
    let stage = Stage { trusts_all: false, takeover: Takeover::Refused, ..Stage::new(1, shards) };
    let mut w = World::new(stage);
    let track = homed(PATH, shards - 1, shards);
    let cam = w.publisher_like(Spec::new(publisher, 0).hop(HOP), PATH, &track);
    let viewer = w.viewer(Lite06, shards / 2);
    let stay = w.subscribe(viewer, PATH, &track, live());
    let listener = w.viewer(Lite05, shards - 1);
    w.peers[listener].listen("", 0);
    w.run(SOON);
    let mut scene = Scene { w, cam, track, shards, stay, listener };
    scene.groups(cam, 0..3);
    scene
}

fn everywhere(play: impl Fn(Scene, Version)) {
    for shards in [1, 3] {
        for publisher in [Lite03, Lite04, Lite05, Lite06] {
            play(scene(publisher, shards), publisher);
        }
    }
}

impl Scene {
    fn groups(&mut self, track: Track, sequences: std::ops::Range<u64>) {
        for sequence in sequences {
            self.w.group(track, sequence, &[700, 30]);
            self.w.run(ms(20));
        }
    }

    /// Somebody who publishes the path over this chain.
    fn claim(&mut self, spec: Spec, chain: &[u64]) -> Track {
        let peer = self.w.join(spec);
        self.w.peers[peer].announce(PATH, chain, Cost::ZERO);
        let track = self.track.clone();
        let track = self.w.track(peer, PATH, &track);
        self.w.run(SOON);
        track
    }

    /// Somebody else who begins to watch.
    fn watch(&mut self) -> Sub {
        let viewer = self.w.viewer(Lite06, 0);
        let track = self.track.clone();
        let wanted = Preferences { max_age_ms: 0, ..live() };
        let sub = self.w.subscribe(viewer, PATH, &track, wanted);
        self.w.run(SOON);
        sub
    }

    /// Of whom the listener has heard, with a sign before it.
    fn heard(&mut self) -> Vec<String> {
        let mut heard = std::mem::take(&mut self.w.peers[self.listener].listens[0].heard);
        heard.retain(|text| text != ".");
        heard
    }
}

/// Whatever a stranger says of itself: the path stays with the one who has it.
#[test]
fn a_path_that_a_live_session_announces_is_not_taken() {
    everywhere(|mut s, publisher| {
        let before = s.heard();
        assert_eq!(before.len(), 1, "{publisher}: {before:?}");
        let named = |version| Spec::new(version, s.shards - 1).hop(STRANGER);
        let cheap = |spec: Spec| Spec { setup: Setup { cost: Some(0), ..spec.setup }, ..spec };
        let claims = [
            (named(Lite06), vec![]),
            (cheap(named(Lite06)), vec![]),
            (named(Lite05), vec![]),
            (named(Lite04), vec![]),
            (named(Lite06), vec![HOP]),
            (named(Lite05), vec![HOP]),
            // The name is there for everybody to hear.
            (named(Lite06).hop(HOP), vec![]),
            (named(Lite04).hop(HOP), vec![]),
            // Another one in the house.
            (Spec { house: Some(s.cam.peer), ..named(Lite06) }, vec![]),
        ];
        let claims = claims.map(|(spec, chain)| s.claim(spec, &chain));
        s.w.run(Duration::from_secs(3));
        let come = s.watch();
        s.groups(s.cam, 3..5);
        s.w.run(SOON);
        assert_eq!(s.w.got(come), [2, 3, 4], "{publisher}");
        assert_eq!(s.w.got(s.stay), [0, 1, 2, 3, 4], "{publisher}");
        assert_eq!(s.heard(), Vec::<String>::new(), "{publisher}");
        for claim in claims {
            assert!(s.w.asked(claim.peer).is_empty(), "{publisher}");
        }
        s.w.end();
    });
}

/// When it leaves, the next one has the path; who watched is told that it is over, and is not shown what
/// somebody else makes of it.
#[test]
fn nobody_is_spliced_to_a_stranger_who_claims_the_first_hop() {
    everywhere(|mut s, publisher| {
        for is_killed in [false, true] {
            let (w, track) = (scene(publisher, s.shards), s.track.clone());
            let mut s = std::mem::replace(&mut s, w);
            let spec = |hop| Spec::new(Lite06, s.shards - 1).hop(hop);
            let claims =
                [(spec(STRANGER), vec![HOP]), (spec(HOP), vec![]), (spec(STRANGER), vec![])];
            let claims = claims.map(|(spec, chain)| s.claim(spec, &chain));
            match is_killed {
                true => s.w.kill(s.cam.peer),
                false => s.w.close(s.cam.peer),
            }
            s.w.run(if is_killed { LOSS_NOTICED } else { SOON });
            for claim in claims {
                s.groups(claim, 3..5);
            }
            s.w.run(SOON);
            let stay = s.w.sub(s.stay);
            assert!(matches!(stay.end, Some(End::Reset(_))), "{publisher}: {:?}", stay.end);
            assert_eq!(s.w.got(s.stay), [0, 1, 2], "{publisher}");
            // In the order in which they came, and nobody has what it is not believed.
            let heard = s.heard();
            let last = heard.last().expect("there is somebody else");
            assert!(last.ends_with(&format!(", {STRANGER}]")), "{heard:?}");
            assert!(!last.contains(&format!("[{HOP},")), "{heard:?}");
            let come = s.watch();
            s.groups(claims[0], 5..7);
            s.w.run(SOON);
            assert!(s.w.got(come).ends_with(&[5, 6]), "{track} {:?}", s.w.got(come));
            s.w.end();
        }
    });
}

/// A publisher that is back in a new session goes on as soon as its old one does not answer: from the same
/// address under the same name even for who watches, and for who comes under any.
#[test]
fn who_is_back_from_the_same_address_goes_on_once_its_dead_session_is_found_out() {
    for hop in [HOP, HOP + 1] {
        everywhere(|mut s, publisher| {
            s.w.kill(s.cam.peer);
            s.w.run(ms(100));
            let spec = Spec::new(publisher, s.shards - 1).hop(hop);
            let house = Some(s.cam.peer);
            let next = s.claim(Spec { house, ..spec }, &[]);
            s.w.run(CLAIM_GRACE_MIN);
            let come = s.watch();
            s.groups(next, 3..6);
            s.w.run(SOON);
            let got = s.w.got(come);
            assert!(got.ends_with(&[3, 4, 5]), "{publisher} {hop}: {got:?}");
            // Who watched another broadcast hears at once that it is over.
            let end = s.w.sub(s.stay).end;
            if hop == HOP && publisher >= Lite04 {
                assert_eq!(s.w.got(s.stay), [0, 1, 2, 3, 4, 5], "{publisher}");
            } else {
                assert!(matches!(end, Some(End::Reset(_))), "{publisher} {hop}: {end:?}");
            }
            s.w.end();
        });
    }
}

/// A stranger that waits has the path while its owner is away, and not when it is back.
#[test]
fn who_was_only_away_comes_before_those_who_waited() {
    for is_killed in [false, true] {
        everywhere(|mut s, publisher| {
            let waits = s.claim(Spec::new(Lite06, 0).hop(20), &[]);
            let away = ms(1000);
            match is_killed {
                true => s.w.kill(s.cam.peer),
                false => s.w.close(s.cam.peer),
            }
            s.w.run(away);
            let house = Some(s.cam.peer);
            let next = Spec { house, ..Spec::new(publisher, s.shards - 1).hop(21) };
            let next = s.claim(next, &[]);
            s.w.run(2 * CLAIM_GRACE_MIN);
            let come = s.watch();
            s.groups(next, 3..6);
            s.w.run(SOON);
            assert!(s.w.got(come).ends_with(&[3, 4, 5]), "{publisher}: {:?}", s.w.got(come));
            // Nor when the dead session is lost.
            s.w.run(LOSS_NOTICED);
            let come = s.watch();
            s.groups(next, 6..8);
            s.w.run(SOON);
            assert!(s.w.got(come).ends_with(&[6, 7]), "{publisher}: {:?}", s.w.got(come));
            assert!(is_killed || s.w.asked(waits.peer).is_empty());
            s.w.end();
        });
    }
}

/// Neither does one that died while it waited have the path.
#[test]
fn who_is_dead_inherits_nothing() {
    everywhere(|mut s, publisher| {
        let spec = |s: &Scene, hop| Spec {
            house: Some(s.cam.peer),
            ..Spec::new(publisher, s.shards - 1).hop(hop)
        };
        let waits = spec(&s, 20);
        let waits = s.claim(waits, &[]);
        s.w.kill(waits.peer);
        s.w.run(ms(1500));
        s.w.kill(s.cam.peer);
        let next = spec(&s, 21);
        let next = s.claim(next, &[]);
        s.w.run(2 * CLAIM_GRACE_MIN);
        let come = s.watch();
        s.groups(next, 3..6);
        s.w.run(SOON);
        let got = s.w.got(come);
        assert!(got.ends_with(&[3, 4, 5]), "{publisher}: {got:?}");
        s.w.end();
    });
}

/// Who comes while it is not clear yet is given what turns out to be live.
#[test]
fn who_comes_while_a_path_is_claimed_waits_for_what_comes_of_it() {
    for is_dead in [false, true] {
        everywhere(|mut s, publisher| {
            let spec = Spec::new(publisher, s.shards - 1).hop(STRANGER);
            let next = s.w.join(Spec { house: Some(s.cam.peer), ..spec });
            let viewers = [0, s.shards - 1].map(|shard| s.w.viewer(Lite06, shard));
            if is_dead {
                s.w.kill(s.cam.peer);
                s.w.run(ms(100));
            }
            s.w.peers[next].announce(PATH, &[], Cost::ZERO);
            let track = s.track.clone();
            let next = s.w.track(next, PATH, &track);
            // The news is everywhere, and the answer not there.
            s.w.run(ms(14));
            let wanted = Preferences { max_age_ms: 0, ..live() };
            let subs = viewers.map(|viewer| s.w.subscribe(viewer, PATH, &track, wanted));
            s.w.run(CLAIM_GRACE_MIN + ms(100));
            s.groups(if is_dead { next } else { s.cam }, 3..6);
            s.w.run(SOON);
            for sub in subs {
                let got = s.w.got(sub);
                assert!(got.ends_with(&[3, 4, 5]), "{publisher}, dead: {is_dead}: {got:?}");
            }
            s.w.end();
        });
    }
}

/// One that was only cut off for a while has its path again, and whoever came between has not.
#[test]
fn who_was_silent_for_a_while_has_its_path_again() {
    everywhere(|mut s, publisher| {
        s.heard();
        let weather = s.w.peers[s.cam.peer].spec.weather;
        s.w.peers[s.cam.peer].spec.weather = Weather { lost_up: 1000, lost_down: 1000, ..weather };
        let house = Some(s.cam.peer);
        let other = Spec { house, ..Spec::new(Lite06, s.shards - 1).hop(STRANGER) };
        let other = s.claim(other, &[]);
        s.w.run(Duration::from_secs(1));
        assert!(s.heard().last().is_some_and(|text| text.contains("[9]")), "{publisher}");
        s.w.peers[s.cam.peer].spec.weather = weather;
        s.w.run(Duration::from_secs(4));
        assert!(s.heard().last().is_some_and(|text| !text.contains("[9]")), "{publisher}");
        let come = s.watch();
        s.groups(s.cam, 3..5);
        s.w.run(SOON);
        assert!(s.w.got(come).ends_with(&[3, 4]), "{publisher}: {:?}", s.w.got(come));
        // Who watched was told that it was over, and would have subscribed again.
        let end = s.w.sub(s.stay).end;
        assert!(matches!(end, Some(End::Reset(_))), "{publisher}: {end:?}");
        assert!(s.w.asked(other.peer).is_empty());
        s.w.end();
    });
}

/// Who would rather be the second choice says so, and the first one comes later.
#[test]
fn a_reserve_makes_way_for_who_is_none() {
    let mut s = scene(Lite06, 2);
    s.w.peers[s.cam.peer].announce(PATH, &[], Cost { warm: 5, cold: 5 });
    s.w.run(SOON);
    let main = s.claim(Spec::new(Lite06, 1).hop(STRANGER), &[]);
    let come = s.watch();
    s.groups(main, 0..2);
    s.w.run(SOON);
    assert!(s.w.got(come).ends_with(&[0, 1]));
    s.w.close(main.peer);
    s.w.run(SOON);
    let come = s.watch();
    s.groups(s.cam, 3..5);
    s.w.run(SOON);
    assert!(s.w.got(come).ends_with(&[3, 4]));
    s.w.end();
}

/// A stranger that says that everything passes through the viewers makes nobody pull it for each of them.
#[test]
fn forged_chains_make_no_copies() {
    for trusts_all in [false, true] {
        let shards = 2;
        let mut w = World::new(Stage { trusts_all, ..Stage::new(1, shards) });
        let track = homed(PATH, 1, shards);
        let cam = w.publisher_like(Spec::new(Lite06, 0).hop(HOP), PATH, &track);
        let names = 100..130;
        let chain: Vec<u64> = [HOP].into_iter().chain(names.clone()).collect();
        let forger = w.join(Spec::new(Lite06, 1).hop(STRANGER));
        w.peers[forger].announce(PATH, &chain, Cost { warm: 50, cold: 50 });
        w.run(SOON);
        let viewers: Vec<_> = names.map(|name| w.join(Spec::new(Lite06, 0).hop(name))).collect();
        let subs: Vec<_> =
            viewers.into_iter().map(|viewer| w.subscribe(viewer, PATH, &track, live())).collect();
        w.run(SOON);
        w.group(cam, 0, &[700]);
        w.run(SOON);
        let is_subscribe = |asked: &Asked| matches!(asked, Asked::Subscribe(..));
        let pulls = w.asked(cam.peer).iter().filter(|asked| is_subscribe(asked)).count();
        let served = subs.iter().filter(|sub| w.got(**sub) == [0]).count();
        // A relay may be right, and then only its own copy is fit for a peer that passes it on.
        let most = if trusts_all { COPIES_PER_TRACK_MAX } else { 1 };
        assert!(pulls <= most, "{pulls} copies");
        assert_eq!(served, if trusts_all { COPIES_PER_TRACK_MAX } else { subs.len() });
        w.end();
    }
}
