//! What listeners are told while publishers of one name follow each other, in the simulated world:
//! listeners of every version on every shard, at the broadcast and at a prefix below it.

#[path = "support/simulated.rs"]
mod support;

use std::time::Duration;

use shardcast::limits::{ANNOUNCE_ENDED_GAP, ROUTE_CHANGE_HOLD, ROUTES_BESIDE_MIN};
use shardcast::wire::*;
use support::peer::*;
use support::world::*;

const PATH: &str = "live/cam";
const BELOW: &str = "live/cam/low";

const SHARDS: usize = 3;

use Version::{Lite05, Lite06};

/// Whatever is on its way or held has arrived, and two publishers that stand beside each other are known
/// everywhere.
const SOON: Duration = ROUTE_CHANGE_HOLD.saturating_add(ROUTES_BESIDE_MIN);

/// A publisher with hop 7, and those who listen.
struct Scene {
    w: World,
    older: usize,
    /// Where others join.
    shard: usize,
    listeners: Vec<Listener>,
}

#[derive(Clone, Copy)]
struct Listener {
    version: Version,
    peer: usize,
    listen: usize,
    suffix: &'static str,
}

impl Scene {
    fn new(version: Version, shard: usize) -> Scene {
        let mut w = World::new(Stage::new(1, SHARDS));
        let older = w.join(Spec::new(version, 0).hop(7));
        w.peers[older].announce(PATH, &[], Cost::ZERO);
        w.run(SOON);
        let mut listeners = Vec::new();
        for (shard, version) in (0..SHARDS).flat_map(|shard| Version::ALL.map(|v| (shard, v))) {
            let peer = w.viewer(version, shard);
            for (prefix, suffix) in [("live", "cam"), (BELOW, "")] {
                let listen = w.peers[peer].listen(prefix, 0);
                listeners.push(Listener { version, peer, listen, suffix });
            }
        }
        w.run(SOON);
        Scene { w, older, shard, listeners }
    }

    fn wait(&mut self) {
        self.w.run(SOON);
    }

    /// A session that has announced nothing yet.
    fn join(&mut self, hop: u64) -> usize {
        self.w.join(Spec::new(Lite06, self.shard).hop(hop))
    }

    fn announce(&mut self, peer: usize) {
        self.w.peers[peer].announce(PATH, &[], Cost::ZERO);
    }

    /// Over `peer`, another relay.
    fn announce_for(&mut self, peer: usize, hop: u64) {
        self.w.peers[peer].announce(PATH, &[hop], Cost::ZERO);
    }

    fn withdraw(&mut self, peer: usize) {
        self.w.peers[peer].unannounce(PATH);
    }

    /// The next broadcast of a publisher, in the same write as the end of the last one.
    fn replace(&mut self, peer: usize) {
        self.withdraw(peer);
        self.announce(peer);
    }

    /// Its silence is noticed.
    fn notice(&mut self) {
        self.w.run(LOSS_NOTICED);
    }

    /// Who comes now is shown what the others were told last.
    #[track_caller]
    fn check_newcomer(&mut self) {
        let known = *self.listeners.last().expect("every scene has some");
        let last = self.heard(&known).pop().expect("it heard of the first one");
        let peer = self.w.viewer(known.version, 0);
        let listen = self.w.peers[peer].listen(BELOW, 0);
        self.wait();
        let heard = self.heard(&Listener { peer, listen, ..known });
        let shown = last.strip_prefix(['+', '~']).map(|what| format!("+{what}"));
        assert_eq!(heard, Vec::from_iter(shown));
    }

    fn heard(&self, listener: &Listener) -> Vec<String> {
        let mut heard = self.w.peers[listener.peer].listens[listener.listen].heard.clone();
        heard.retain(|text| text != ".");
        heard
    }
}

/// What a version makes of it: `+7` is a broadcast over this chain, `-` its end, `~8` another one
/// in its place, and `=7,9` the same one over another chain.
fn wording(version: Version, suffix: &str, told: &[&str]) -> Vec<String> {
    let mut words = Vec::new();
    for word in told {
        let (sign, chain) = word.split_at(1);
        let chain = chain.replace(',', ", ");
        let says = |sign: &str| match version {
            Version::Lite04 => format!("{sign}{suffix} [{chain}, {HOP}]"),
            Version::Lite05 => format!("{sign}{suffix} [{chain}]"),
            Version::Lite06 => format!("{sign}{suffix} [{chain}] 1"),
            _ => format!("{sign}{suffix}"),
        };
        let end = format!("-{suffix}");
        match sign {
            "+" => words.push(says("+")),
            "-" => words.push(end),
            _ if version >= Lite05 => words.push(says("~")),
            "~" => words.extend([end, says("+")]),
            _ => {}
        }
    }
    words
}

/// Plays it with the others on the shard of the first publisher and on another one.
#[track_caller]
fn play(run: impl Fn(&mut Scene), expect: &[&str]) {
    play_either(run, &[expect]);
}

/// Where two pieces of news may come in one turn or in two, and in any order.
#[track_caller]
fn play_either(run: impl Fn(&mut Scene), expect: &[&[&str]]) {
    for shard in 0..2 {
        let mut s = Scene::new(Lite06, shard);
        run(&mut s);
        s.wait();
        for listener in &s.listeners {
            let Listener { version, suffix, .. } = *listener;
            let heard = s.heard(listener);
            let mut told = expect.iter().map(|told| wording(version, suffix, told));
            let name = &s.w.peers[listener.peer].name;
            assert!(
                told.any(|told| told == heard),
                "others on shard {shard}: {name} hears {heard:?} of {suffix:?}, not {expect:?}"
            );
        }
        s.check_newcomer();
        s.w.end();
    }
}

// ---- the same session ----

#[test]
fn a_session_that_announces_its_name_again_has_another_broadcast() {
    let later = |s: &mut Scene| {
        s.withdraw(s.older);
        s.wait();
        s.announce(s.older);
    };
    play(later, &["+7", "-", "+7"]);
    play(|s| s.replace(s.older), &["+7", "-", "+7"]);
    // Nothing is told of one that nobody could have seen.
    let twice = |s: &mut Scene| {
        s.replace(s.older);
        s.replace(s.older);
    };
    play(twice, &["+7", "-", "+7"]);
    let thrice = |s: &mut Scene| {
        twice(s);
        s.wait();
        s.replace(s.older);
    };
    play(thrice, &["+7", "-", "+7", "-", "+7"]);
    let in_the_end = |s: &mut Scene| {
        s.replace(s.older);
        s.withdraw(s.older);
    };
    play(in_the_end, &["+7", "-"]);
}

#[test]
fn a_route_that_changes_restarts_what_it_leads_to() {
    let another_chain =
        |s: &mut Scene, hops: &[u64]| s.w.peers[s.older].announce(PATH, hops, Cost::ZERO);
    let origin = |s: &mut Scene| {
        another_chain(s, &[3]);
        s.wait();
        another_chain(s, &[4, 3]);
    };
    play(origin, &["+7", "~3,7", "~4,3,7"]);
    // A relay that comes to another way to what it shows.
    let way = |s: &mut Scene| {
        let relay = s.join(9);
        s.announce_for(relay, 3);
        s.withdraw(s.older);
        s.wait();
        s.w.peers[relay].announce(PATH, &[3, 5], Cost::ZERO);
    };
    play_either(way, &[&["+7", "~3,9", "=3,5,9"], &["+7", "-", "+3,9", "=3,5,9"]]);
}

/// Publishers of every version, some of which nobody knows by name.
#[test]
fn whoever_replaces_its_broadcast_is_heard() {
    for version in Version::ALL {
        let mut s = Scene::new(version, 1);
        s.replace(s.older);
        s.wait();
        for listener in &s.listeners {
            let heard = s.heard(listener);
            let signs: Vec<_> = heard.iter().map(|text| &text[..1]).collect();
            assert_eq!(signs, ["+", "-", "+"], "{version}: {heard:?}");
            assert!(listener.version < Version::Lite04 || heard[0] == heard[2], "{heard:?}");
        }
        s.w.end();
    }
}

// ---- another session ----

#[test]
fn a_session_that_follows_another_has_another_broadcast() {
    // At once, however the news cross.
    for hop in [7, 8] {
        let closes = |s: &mut Scene| {
            let newer = s.join(hop);
            s.w.close(s.older);
            s.announce(newer);
        };
        let comes = |s: &mut Scene| {
            let newer = s.join(hop);
            s.announce(newer);
            s.w.close(s.older);
        };
        let withdraws = |s: &mut Scene| {
            let newer = s.join(hop);
            s.announce(newer);
            s.withdraw(s.older);
        };
        let told: &[&[&str]] = match hop {
            7 => &[&["+7", "-", "+7"]],
            _ => &[&["+7", "~8"], &["+7", "-", "+8"]],
        };
        play_either(closes, told);
        play_either(comes, told);
        play_either(withdraws, told);
    }
    // Later.
    for (hop, next) in [(7, "+7"), (8, "+8")] {
        let closed = |s: &mut Scene| {
            s.w.close(s.older);
            s.wait();
            let newer = s.join(hop);
            s.announce(newer);
        };
        play(closed, &["+7", "-", next]);
        let killed = |s: &mut Scene| {
            s.w.kill(s.older);
            s.notice();
            let newer = s.join(hop);
            s.announce(newer);
        };
        play(killed, &["+7", "-", next]);
    }
}

#[test]
fn another_origin_takes_a_name_over_while_the_first_one_is_there() {
    let takes_over = |s: &mut Scene| {
        let newer = s.join(8);
        s.announce(newer);
        s.wait();
        newer
    };
    let closes = |s: &mut Scene| {
        takes_over(s);
        s.w.close(s.older);
    };
    play(closes, &["+7", "~8"]);
    // It is dead, and nobody knows it yet.
    let is_dead = |s: &mut Scene| {
        s.w.kill(s.older);
        takes_over(s);
        s.notice();
    };
    play(is_dead, &["+7", "~8"]);
    let gives_back = |s: &mut Scene| {
        let newer = takes_over(s);
        s.w.close(newer);
    };
    play(gives_back, &["+7", "~8", "~7"]);
    let dies = |s: &mut Scene| {
        let newer = takes_over(s);
        s.w.kill(newer);
        s.notice();
    };
    play(dies, &["+7", "~8", "~7"]);
    let is_announced_again = |s: &mut Scene| {
        takes_over(s);
        s.replace(s.older);
    };
    play(is_announced_again, &["+7", "~8", "~7"]);
    let both = |s: &mut Scene| {
        let newer = takes_over(s);
        s.replace(s.older);
        s.replace(newer);
    };
    play_either(both, &[&["+7", "~8", "-", "+8"], &["+7", "~8", "~7", "~8"], &["+7", "~8", "~7"]]);
    // Too brief for any turn to see it.
    let comes_and_goes = |s: &mut Scene| {
        let newer = s.join(8);
        s.announce(newer);
        s.withdraw(newer);
    };
    play(comes_and_goes, &["+7"]);
}

#[test]
fn the_same_origin_goes_on_over_another_session() {
    // To its viewers it is one broadcast, whichever session brings it.
    for hops in [&[][..], &[7]] {
        let hop = if hops.is_empty() { 7 } else { 9 };
        let comes = |s: &mut Scene| {
            let newer = s.join(hop);
            s.w.peers[newer].announce(PATH, hops, Cost::ZERO);
            s.wait();
            newer
        };
        let closes = |s: &mut Scene| {
            comes(s);
            s.w.close(s.older);
        };
        let is_dead = |s: &mut Scene| {
            s.w.kill(s.older);
            comes(s);
            s.notice();
        };
        let leaves = |s: &mut Scene| {
            let newer = comes(s);
            s.w.close(newer);
        };
        let both = |s: &mut Scene| {
            let newer = comes(s);
            s.w.close(newer);
            s.w.close(s.older);
        };
        let goes_on: &[&str] = if hop == 7 { &["+7"] } else { &["+7", "=7,9"] };
        play(closes, goes_on);
        play(is_dead, goes_on);
        play(leaves, &["+7"]);
        play_either(both, &[&["+7", "-"], &["+7", "=7,9", "-"]]);
    }
}

/// A relay beside the publisher brings the same broadcast, until it hears of the end.
#[test]
fn a_broadcast_that_its_publisher_replaces_is_over_on_every_way() {
    let scene = |s: &mut Scene| {
        let relay = s.join(9);
        s.announce_for(relay, 7);
        s.wait();
        relay
    };
    let follows = |s: &mut Scene, relay: usize| {
        s.wait();
        s.withdraw(relay);
        s.announce_for(relay, 7);
    };
    let at_once = |s: &mut Scene| {
        let relay = scene(s);
        s.replace(s.older);
        follows(s, relay);
    };
    play(at_once, &["+7", "-", "+7"]);
    let later = |s: &mut Scene| {
        let relay = scene(s);
        s.withdraw(s.older);
        s.wait();
        s.announce(s.older);
        follows(s, relay);
    };
    play(later, &["+7", "-", "+7"]);
    // It was only its way to us that failed.
    let lost = |s: &mut Scene| {
        scene(s);
        s.w.close(s.older);
        s.wait();
        let again = s.join(7);
        s.announce(again);
    };
    play(lost, &["+7", "=7,9", "=7"]);
    // The relay has nothing to end but its own way.
    let way = |s: &mut Scene| {
        let relay = scene(s);
        s.withdraw(relay);
        s.announce_for(relay, 7);
    };
    play(way, &["+7"]);
}

// ---- in any order ----

/// What ends on one shard and begins on another is heard of by others in either order. Nobody may
/// lose a track because of it and not hear that there is another broadcast.
#[test]
fn who_loses_a_track_hears_why() {
    for seed in 0..300 {
        let mut w = World::new(Stage::new(seed, SHARDS));
        let mut pick = |count: u64| w.random.below(count) as usize;
        let (here, there, hop) = (pick(3), pick(3), 7 + pick(2) as u64);
        let home = if pick(2) == 0 { here } else { pick(3) };
        let ends_first = pick(2) == 0;
        let pause = Duration::from_micros(pick(2000) as u64);
        let stalls = [0; SHARDS].map(|_| Duration::from_micros(pick(6000) as u64));
        let track = homed(PATH, home, SHARDS);
        let older = w.publisher_like(Spec::new(Lite06, here).hop(7), PATH, &track).peer;
        let newer = w.join(Spec::new(Lite06, there).hop(hop));
        w.track(newer, PATH, &track);
        let viewers = (0..SHARDS).flat_map(|shard| Version::ALL.map(|version| (version, shard)));
        let mut watching = Vec::new();
        for (version, shard) in viewers {
            let viewer = w.viewer(version, shard);
            let listen = w.peers[viewer].listen("", 0);
            watching.push((viewer, listen, w.subscribe(viewer, PATH, &track, live())));
        }
        w.run(SOON);
        for (shard, time) in stalls.into_iter().enumerate() {
            w.stall(shard, time);
        }
        let announce = |w: &mut World| w.peers[newer].announce(PATH, &[], Cost::ZERO);
        if ends_first {
            w.close(older);
            w.run(pause);
            announce(&mut w);
        } else {
            announce(&mut w);
            w.run(pause);
            w.close(older);
        }
        w.run(SOON);
        for (viewer, listen, sub) in watching {
            let heard = &w.peers[viewer].listens[listen].heard;
            let is_told = heard.iter().filter(|text| text.starts_with(['+', '~'])).count() > 1;
            let end = w.sub(sub).end;
            assert!(end.is_none() || is_told, "seed {seed}: {end:?} and {heard:?}");
            assert_eq!(w.peers[viewer].listens[listen].live(), [PATH], "seed {seed}");
        }
        w.end();
    }
}

// ---- when ----

/// What viewers wait for comes at once; another way to what they know waits a little, for more to come.
#[test]
fn a_new_path_and_its_end_are_told_at_once_and_changes_together() {
    let mut w = World::new(Stage::new(1, SHARDS));
    let cam = w.join(Spec::new(Lite06, 0).hop(7));
    let other = w.join(Spec::new(Lite06, 1).hop(8));
    let viewers: Vec<_> = (0..SHARDS).map(|shard| w.viewer(Lite06, shard)).collect();
    for &viewer in &viewers {
        w.peers[viewer].listen("", 0);
    }
    w.run(SOON);
    let check = |w: &mut World, time: Duration, expect: &[&str]| {
        w.run(time);
        for &viewer in &viewers {
            let mut heard = std::mem::take(&mut w.peers[viewer].listens[0].heard);
            heard.retain(|text| text != ".");
            assert_eq!(heard, expect, "{}", w.peers[viewer].name);
        }
    };
    // Two ways through the network.
    let at_once = ms(20);
    let held = ROUTE_CHANGE_HOLD - ms(20);
    w.peers[cam].announce(PATH, &[], Cost::ZERO);
    check(&mut w, at_once, &["+live/cam [7] 1"]);
    for price in 1..=20 {
        w.peers[cam].announce(PATH, &[], Cost { warm: price, cold: price });
        w.run(ms(10));
    }
    check(&mut w, held - ms(200), &[]);
    check(&mut w, ms(40), &["~live/cam [7] 21"]);
    // A cheaper one, which goes before it was told of.
    w.peers[other].announce(PATH, &[], Cost::ZERO);
    check(&mut w, at_once, &[]);
    w.peers[other].unannounce(PATH);
    check(&mut w, SOON, &[]);
    w.peers[other].announce(PATH, &[], Cost::ZERO);
    check(&mut w, held, &[]);
    check(&mut w, ms(40), &["~live/cam [8] 1"]);
    // Where what was told is gone, who is left is told at once.
    w.peers[other].unannounce(PATH);
    check(&mut w, at_once, &["~live/cam [7] 21"]);
    w.peers[cam].announce(PATH, &[9], Cost::ZERO);
    w.run(ms(10));
    w.peers[cam].unannounce(PATH);
    check(&mut w, at_once, &["-live/cam"]);
    // A moment after that, for clients that would take it for what has ended.
    w.peers[cam].announce(PATH, &[], Cost::ZERO);
    check(&mut w, at_once, &[]);
    check(&mut w, ANNOUNCE_ENDED_GAP, &["+live/cam [7] 1"]);
    check(&mut w, SOON, &[]);
    w.end();
}
