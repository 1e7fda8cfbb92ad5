//! Who is let in and what they may do there, in the simulated world: tokens, rules for everybody, roles,
//! keys that are removed, sessions that end to the second, and how many there may be of one client.
//!
//! `SIM_SEEDS=2000` has more spies, `SIM_SEED=17` one of them.

mod support {
    #[path = "simulated.rs"]
    mod simulated;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod tokens;

    pub use simulated::*;
}

use std::time::Duration;

use shardcast::limits::{ROOT_BYTES_MAX, SESSIONS_CHECKED_PER_TURN};
use shardcast::wire::*;
use support::network::Random;
use support::peer::*;
use support::tokens::{Issuer, access};
use support::world::*;

use Version::{Lite01, Lite02, Lite03, Lite04, Lite05, Lite06};

const TRACK: &str = "video";

const UNAUTHORIZED: Option<u64> = Some(SessionCode::UNAUTHORIZED.0);

/// What a request is answered with for what its session may not watch.
const OUTSIDE: Option<End> = Some(End::Reset(StreamCode::SESSION_CLOSED.0));

/// The first second of a play that has not begun when it begins.
const SECOND: i64 = EPOCH.as_secs() as i64 + 1;

/// From the begin of that second to what is said on account of it: the way, and timers.
const SOON: Duration = Duration::from_millis(30);

/// One that dials a path with what follows it.
fn dials(version: Version, web: bool, shard: usize, target: &str) -> Spec {
    let spec = Spec::new(version, shard);
    let setup = Setup { path: Some(target.to_owned()), ..Setup::default() };
    let spec = Spec { setup, ..spec };
    if web { spec.web() } else { spec }
}

/// Lets one come, who may be refused.
fn come(w: &mut World, spec: Spec) -> usize {
    let peer = w.arrive(spec);
    w.run(ms(300));
    peer
}

/// Whether one was refused, and in no other way than clients understand.
fn is_refused(peer: &Peer) -> bool {
    match &peer.state {
        State::Up => false,
        State::Over(_, code) if *code == UNAUTHORIZED => true,
        State::Over(reason, None) if reason == "refused with 401" => true,
        state => panic!("{}: {state:?}", peer.name),
    }
}

/// Why, in the words that the peer is told.
fn reason(peer: &Peer) -> &str {
    match &peer.state {
        State::Over(reason, _) => reason,
        state => panic!("{}: {state:?}", peer.name),
    }
}

// ---- a model of grants, by brute force over segments ----

fn segments(path: &str) -> Vec<&str> {
    path.split('/').filter(|segment| !segment.is_empty()).collect()
}

fn matches(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => (0..=path.len()).any(|skip| matches(rest, &path[skip..])),
        (Some((first, rest)), Some((segment, others))) => {
            let fits = match first.split_once('*') {
                None => first == segment,
                Some((head, tail)) => {
                    segment.len() >= head.len() + tail.len()
                        && segment.starts_with(head)
                        && segment.ends_with(tail)
                }
            };
            fits && matches(rest, others)
        }
        _ => false,
    }
}

/// What somebody was granted, and where they are.
struct Model {
    root: &'static str,
    publish: Vec<&'static str>,
    subscribe: Vec<&'static str>,
    dialled: &'static str,
}

impl Model {
    fn may(&self, patterns: &[&str], path: &str) -> bool {
        let (root, dialled, path) = (segments(self.root), segments(self.dialled), segments(path));
        path.starts_with(&dialled)
            && path.strip_prefix(&root[..]).is_some_and(|rest| {
                patterns.iter().any(|pattern| matches(&segments(pattern), rest))
            })
    }

    fn may_subscribe(&self, path: &str) -> bool {
        self.may(&self.subscribe, path)
    }

    /// Whether its token lets it watch a path, if it has dialled another as well.
    fn has_by_token(&self, path: &str) -> bool {
        let (root, path) = (segments(self.root), segments(path));
        path.strip_prefix(&root[..]).is_some_and(|rest| {
            self.subscribe.iter().any(|pattern| matches(&segments(pattern), rest))
        })
    }

    fn may_publish(&self, path: &str) -> bool {
        self.may(&self.publish, path)
    }

    /// A whole path as the wire of this session has it; none where it has none.
    fn relative(&self, path: &str) -> Option<String> {
        let rest = segments(path);
        rest.strip_prefix(&segments(self.dialled)[..]).map(|rest| rest.join("/"))
    }
}

/// What is announced under the eyes of a spy. Some lie below others, some are hidden, and some begin with
/// what others are called.
const BROADCASTS: [&str; 12] =
    ["a", "a/b", "a/.h", "a/.h/b", "ab", "ab/a", "b", "b/a/b", "b/ab", ".h/a", "ba/a", "a/b/ab"];

/// Of these, the ones whose publisher may have nothing else.
const LONE: [&str; 2] = ["a/b", "b"];

/// Where nothing is announced, but above most of them.
const NOWHERE: [&str; 8] = ["c", "a/c", "a/a", "a/b/c", "ab/b", "ab/a/b", "b/a/c", "ba/a/b"];

const ROOTS: [&str; 7] = ["", "a", "b", "ab", "a/b", ".h", "b/a"];

const PATTERNS: [&str; 14] = [
    "**", "a/**", "b/**", "*", "a", "a/*", "**/b", "a*", "*b/**", "b/*/b", "a/**/b", ".h/**",
    "*/a", "*/c",
];

/// Seeds in an ordinary run.
const SPIES: u64 = 400;

fn seeds() -> Vec<u64> {
    let number =
        |name| std::env::var(name).ok().map(|text: String| text.parse().expect("a number"));
    match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SIM_SEEDS").unwrap_or(SPIES)).collect(),
    }
}

/// A spy asks for everything, in every way, whatever it was granted and wherever it dials; it learns what it
/// may know and nothing else. What it announces others hear of where it may publish, and nowhere else.
#[test]
fn spies_learn_nothing() {
    let (mut refused, mut hidden_from, mut shown, mut unheard, mut heard) = (0, 0, 0, 0, 0);
    let (mut unasked, mut asked) = (0, 0);
    let (mut covered, mut lone, mut above) = (0, 0, 0);
    let issuer = Issuer::fixed("spies");
    for seed in seeds() {
        let mut r = Random::new(seed);
        let pick = |r: &mut Random| -> Vec<&'static str> {
            (0..r.below(3)).map(|_| r.pick(&PATTERNS)).collect()
        };
        let mut model = Model {
            root: r.pick(&ROOTS),
            publish: pick(&mut r),
            subscribe: pick(&mut r),
            dialled: r.pick(&ROOTS),
        };
        if model.publish.is_empty() && model.subscribe.is_empty() {
            model.subscribe.push("**");
        }
        let version = r.pick(&[Lite03, Lite04, Lite05, Lite06]);
        let web = version < Lite05 || r.one_in(2);
        let shards = 1 + r.below(2) as usize;
        let mut w = World::with_access(Stage::new(seed, shards), access(&[&issuer], &[]));
        w.some_are_refused = true;
        let everything = issuer.dials("", "", &["**"], &["**"], None);

        let home = w.join(dials(Lite06, false, 0, &everything));
        let modest = w.join(dials(Lite06, false, 0, &issuer.dials("", "", &LONE, &[], None)));
        let tracks = BROADCASTS.map(|path| {
            let publisher = if LONE.contains(&path) { modest } else { home };
            w.peers[publisher].announce(path, &[], Cost::ZERO);
            w.track(publisher, path, TRACK)
        });
        let judge = w.join(dials(Lite06, false, shards - 1, &everything));
        w.run(ms(500));

        let target =
            issuer.dials(model.dialled, model.root, &model.publish, &model.subscribe, None);
        let spy = come(&mut w, dials(version, web, r.below(shards as u64) as usize, &target));
        let overlap = {
            let (root, dialled) = (segments(model.root), segments(model.dialled));
            root.starts_with(&dialled) || dialled.starts_with(&root)
        };
        if is_refused(&w.peers[spy]) {
            refused += 1;
            let all = BROADCASTS.iter().filter(|path| overlap && segments(path).len() <= 3);
            for path in all {
                assert!(
                    !model.may_publish(path) && !model.may_subscribe(path),
                    "seed {seed}: refused, and may use {path}"
                );
            }
            continue;
        }
        assert!(overlap, "seed {seed}: let in where its token has nothing to say");

        // Announcements: below every prefix that there is, and some that there are not.
        let prefixes = BROADCASTS.iter().chain(&ROOTS).chain(&NOWHERE);
        let prefixes: Vec<String> = prefixes.filter_map(|path| model.relative(path)).collect();
        let listens: Vec<(String, usize)> = prefixes
            .into_iter()
            .map(|prefix| {
                let listen = w.peers[spy].listen(&prefix, 0);
                w.run(ms(50));
                (prefix, listen)
            })
            .collect();
        let subs: Vec<(&str, Sub)> = BROADCASTS
            .iter()
            .filter_map(|path| {
                let relative = model.relative(path)?;
                w.run(ms(50));
                Some((*path, w.subscribe(spy, &relative, TRACK, live())))
            })
            .collect();
        let claimed = w.peers[spy].announce_streams().len();
        assert!(claimed <= model.publish.len() * 5, "seed {seed}: asked on {claimed} streams");
        w.run(ms(500));
        w.all_settled();
        for track in tracks {
            w.group(track, 0, &[10, 2000]);
        }
        w.run(ms(500));
        for (prefix, listen) in listens {
            let prefix = [segments(model.dialled), segments(&prefix)].concat();
            let is_shown = |path: &&&str| {
                let path = segments(path);
                path.strip_prefix(&prefix[..]).is_some_and(|rest| {
                    !rest.is_empty() && !rest.iter().any(|segment| segment.starts_with('.'))
                })
            };
            let listed = BROADCASTS.iter().filter(is_shown);
            let listed = listed.filter(|path| model.may_subscribe(path));
            let mut expect: Vec<String> =
                listed.map(|path| segments(path)[prefix.len()..].join("/")).collect();
            let covers = BROADCASTS.iter().filter(|path| prefix.starts_with(&segments(path)));
            let cover = covers.max_by_key(|path| segments(path).len());
            if let Some(cover) = cover.filter(|_| model.may_subscribe(&prefix.join("/"))) {
                // What is announced above claims it, if the one may claim it and the other may know.
                let count = match prefix.join("/") == *cover {
                    true => None,
                    false if LONE.contains(cover) => Some(&mut lone),
                    false if !model.has_by_token(cover) => Some(&mut above),
                    false => {
                        covered += 1;
                        None
                    }
                };
                match count {
                    None => expect.push(String::new()),
                    Some(count) => *count += 1,
                }
            }
            expect.sort();
            let listen = &w.peers[spy].listens[listen];
            assert_eq!(listen.live(), expect, "seed {seed}: below {prefix:?}");
            assert_eq!(listen.end, None, "seed {seed}");
        }
        for (path, sub) in subs {
            match model.may_subscribe(path) {
                true => {
                    shown += 1;
                    assert_eq!(w.got(sub), [0], "seed {seed}: {path}");
                }
                false => {
                    hidden_from += 1;
                    assert_eq!(w.sub(sub).end, OUTSIDE, "seed {seed}: {path}");
                    assert!(w.sub(sub).groups.is_empty(), "seed {seed}: {path}");
                }
            }
        }
        for path in BROADCASTS {
            let Some(relative) = model.relative(path) else { continue };
            // Older wires have neither.
            if version < Lite05 {
                break;
            }
            let fetch = w.fetch(spy, &relative, TRACK, whole(0));
            let info = w.peers[spy].ask(&relative, TRACK);
            w.run(ms(100));
            let may = model.may_subscribe(path);
            assert_eq!(w.outcome(fetch).0 > 0, may, "seed {seed}: {path}");
            let answer = w.peers[spy].infos[info].answer.expect("an answer");
            assert_eq!(answer.is_ok(), may, "seed {seed}: {path}");
            if !may {
                assert_eq!(w.outcome(fetch).1, OUTSIDE, "seed {seed}: {path}");
                assert_eq!(answer, Err(StreamCode::SESSION_CLOSED.0), "seed {seed}: {path}");
            }
        }

        // What the spy announces, below a name that nobody else has.
        let before = BROADCASTS.map(|path| path.to_owned()).to_vec();
        let listen = w.peers[judge].listen("", 0);
        let hidden = w.peers[judge].listen(".h", 0);
        let own: Vec<String> = ["a", "b", "ab", "a/b", "b/a", ".h"]
            .iter()
            .flat_map(|place| [format!("{place}/x"), format!("{place}/b"), format!("{place}/xb")])
            .chain(["x".to_owned(), "xb".to_owned(), "ax".to_owned()])
            .filter(|path| !before.contains(path))
            .collect();
        for path in &own {
            if let Some(relative) = model.relative(path) {
                w.peers[spy].announce(&relative, &[], Cost::ZERO);
            }
        }
        w.run(ms(1000));
        let mut told = w.peers[judge].listens[listen].live();
        let hidden = w.peers[judge].listens[hidden].live();
        told.extend(hidden.into_iter().map(|path| format!(".h/{path}")));
        for path in &own {
            let may = model.may_publish(path);
            let (yes, no) = (&mut heard, &mut unheard);
            *(if may { yes } else { no }) += 1;
            assert_eq!(told.contains(path), may, "seed {seed}: {path} in {told:?}");
        }
        // A name stands for all that is below it, as far as that is granted.
        w.asked(spy);
        for path in own.iter().filter(|path| model.may_publish(path)) {
            let below = format!("{path}/below");
            w.subscribe(judge, &below, &below, live());
            w.run(ms(50));
            let is_asked = w.asked(spy).iter().any(|asked| match asked {
                Asked::Track(track) | Asked::Subscribe(track, _) => *track == below,
                _ => false,
            });
            let may = model.may_publish(&below);
            let (yes, no) = (&mut asked, &mut unasked);
            *(if may { yes } else { no }) += 1;
            assert_eq!(is_asked, may, "seed {seed}: asked for {below}");
        }
        assert!(w.peers[spy].is_up(), "seed {seed}: what is not allowed is ignored");
        w.end();
    }
    if seeds().len() as u64 >= SPIES {
        let counts = [refused, hidden_from, shown, unheard, heard, unasked, asked];
        let counts = [&counts[..], &[covered, lone, above]].concat();
        assert!(counts.iter().all(|count| *count >= 10), "{counts:?}");
    }
}

/// A session ends when its token does, to the second, and what it announced as if it had closed. Nobody else
/// notices.
#[test]
fn a_token_ends_to_the_second() {
    let issuer = Issuer::fixed("exact");
    for (version, web) in [(Lite05, false), (Lite06, false), (Lite03, true), (Lite06, true)] {
        let mut w = World::with_access(Stage::new(3, 2), access(&[&issuer], &["**"]));
        let ends = SECOND + 3;
        let target = issuer.dials("/live", "live", &["**"], &["**"], Some(ends));
        let cam = w.join(dials(version, web, 0, &target));
        w.peers[cam].announce("cam", &[], Cost::ZERO);
        let track = w.track(cam, "cam", TRACK);
        let stays = issuer.dials("/live", "live", &["**"], &[], Some(ends + 1000));
        let other = w.join(dials(Lite06, false, 1, &stays));
        w.peers[other].announce("other", &[], Cost::ZERO);
        let kept = w.track(other, "other", TRACK);
        let ann = w.viewer(Lite06, 1);
        let listen = w.peers[ann].listen("", 0);
        let sub = w.subscribe(ann, "live/cam", TRACK, live());
        let good = w.subscribe(ann, "live/other", TRACK, live());
        w.run(ms(300));
        w.all_settled();
        assert_eq!(w.peers[ann].listens[listen].live(), ["live/cam", "live/other"]);
        w.group(track, 0, &[100]);
        let begins = w.started() + Duration::from_secs(ends as u64) - EPOCH;
        w.run(begins - w.now - ms(1));
        assert!(w.peers[cam].is_up(), "a millisecond before");
        assert_eq!((w.got(sub), w.sub(sub).end), (vec![0], None));
        w.run(ms(1) + SOON);
        assert_eq!(w.peers[cam].state, State::Over(reason(&w.peers[cam]).to_owned(), UNAUTHORIZED));
        assert!(reason(&w.peers[cam]).contains("expired"), "{}", reason(&w.peers[cam]));
        let lost_at = w.peers[cam].lost_at.expect("it is over");
        assert!(lost_at >= begins && lost_at < begins + SOON, "{:?}", lost_at - begins);
        w.run(ms(500));
        assert!(matches!(w.sub(sub).end, Some(End::Reset(_))), "{:?}", w.sub(sub).end);
        assert_eq!(w.peers[ann].listens[listen].live(), ["live/other"]);
        w.group(kept, 0, &[100]);
        w.run(ms(300));
        assert_eq!(w.got(good), [0]);
        // Who shows it again is refused.
        let again = come(&mut w, dials(version, web, 0, &target));
        assert!(is_refused(&w.peers[again]));
        w.end();
    }
}

#[test]
fn a_token_is_looked_at_in_the_second_in_which_it_is_shown() {
    let issuer = Issuer::fixed("seconds");
    let mut w = World::with_access(Stage::new(4, 1), access(&[&issuer], &[]));
    let shows = |expires| issuer.dials("", "", &["**"], &[], Some(expires));
    // A quarter of the second before has passed.
    for (expires, is_let_in) in [(SECOND - 2, false), (SECOND - 1, false), (SECOND + 1, true)] {
        let mut w = World::with_access(Stage::new(4, 1), access(&[&issuer], &[]));
        let peer = come(&mut w, dials(Lite06, false, 0, &shows(expires)));
        assert_eq!(is_refused(&w.peers[peer]), !is_let_in, "{expires}");
        w.end();
    }
    // One that is about to end lasts for what is left of it.
    let peer = w.join(dials(Lite06, true, 0, &shows(SECOND)));
    assert!(w.peers[peer].is_up());
    w.run(ms(700));
    assert!(is_refused(&w.peers[peer]));
    w.end();
}

/// Where somebody sets the clock, sessions end when it says so.
#[test]
fn a_clock_that_is_set_is_heeded() {
    let issuer = Issuer::fixed("clock");
    let shows = |expires| issuer.dials("", "", &["**"], &[], Some(expires));
    let mut w = World::with_access(Stage::new(5, 2), access(&[&issuer], &[]));
    let soon = w.join(dials(Lite06, false, 0, &shows(SECOND + 5)));
    let late = w.join(dials(Lite05, true, 1, &shows(SECOND + 5000)));
    let hour = Duration::from_secs(3600);
    w.set_clock(EPOCH + w.since_start() - hour);
    w.run(ms(10_000));
    assert!(w.peers[soon].is_up(), "it has another hour");
    for (peer, ends) in [(soon, SECOND + 5), (late, SECOND + 5000)] {
        w.set_clock(Duration::from_secs(ends as u64) - ms(500));
        w.run(ms(490));
        assert!(w.peers[peer].is_up());
        w.run(ms(10) + SOON);
        assert!(is_refused(&w.peers[peer]));
    }
    w.end();
}

/// Exactly the sessions of a key that is gone end, at once, however many there are; the others lose no frame.
#[test]
fn sessions_end_with_their_key() {
    let (gone, stays) = (Issuer::fixed("gone"), Issuer::fixed("stays"));
    let stage = Stage::new(6, 2);
    let mut w = World::with_access(stage, access(&[&gone, &stays], &["**"]));
    let watches = |issuer: &Issuer| issuer.dials("", "", &[], &["**"], None);
    let publishes = stays.dials("/live", "live", &["**"], &[], None);
    let cam = w.join(dials(Lite06, false, 0, &publishes));
    w.peers[cam].announce("cam", &[], Cost::ZERO);
    let track = w.track(cam, "cam", TRACK);
    let many = SESSIONS_CHECKED_PER_TURN + 60;
    let arrive = |w: &mut World, n: usize, target: Option<String>| {
        let version = [Lite05, Lite06][n % 2];
        let spec = match target {
            Some(target) => dials(version, n.is_multiple_of(3), n % stage.shards, &target),
            None => Spec::new(version, n % stage.shards),
        };
        w.arrive(spec)
    };
    let lost: Vec<usize> = (0..many).map(|n| arrive(&mut w, n, Some(watches(&gone)))).collect();
    let kept: Vec<usize> =
        (0..6).map(|n| arrive(&mut w, n, (n < 4).then(|| watches(&stays)))).collect();
    w.run(ms(1000));
    assert!(lost.iter().chain(&kept).all(|peer| w.peers[*peer].is_up()));
    let subs: Vec<Sub> =
        kept.iter().map(|peer| w.subscribe(*peer, "live/cam", TRACK, live())).collect();
    let theirs: Vec<Sub> =
        lost.iter().step_by(50).map(|peer| w.subscribe(*peer, "live/cam", TRACK, live())).collect();
    w.run(ms(300));
    w.all_settled();
    w.group(track, 0, &[2000, 100]);
    w.open_group(track, 1);
    w.run(ms(100));
    // A set in which it has another scope, or another name, is one without it as well; here it is not there.
    w.set_access(access(&[&stays], &["**"]));
    w.frame(track, 1, 3000);
    w.run(ms(100));
    for peer in &lost {
        let peer = &w.peers[*peer];
        assert_eq!(peer.state, State::Over(reason(peer).to_owned(), UNAUTHORIZED), "{}", peer.name);
        assert!(reason(peer).contains("key"), "{}", reason(peer));
    }
    assert!(kept.iter().all(|peer| w.peers[*peer].is_up()) && w.peers[cam].is_up());
    w.end_group(track, 1, End::Finished);
    w.group(track, 2, &[50]);
    w.run(ms(500));
    assert!(subs.iter().all(|sub| w.got_sorted(*sub) == [0, 1, 2]));
    assert!(theirs.iter().all(|sub| w.got(*sub).iter().all(|group| *group < 2)));
    let again = come(&mut w, dials(Lite06, false, 0, &watches(&gone)));
    assert!(is_refused(&w.peers[again]));
    // The same keys once more change nothing.
    w.set_access(access(&[&stays], &["**"]));
    w.run(ms(100));
    assert!(kept.iter().all(|peer| w.peers[*peer].is_up()));
    w.end();
}

/// A thousand sets of keys follow each other while a hundred clients come: nobody is refused whose key is in
/// all of them, and nobody leaves.
#[test]
fn keys_change_while_clients_come() {
    const SWAPS: usize = 1000;
    const CLIENTS: usize = 100;
    let stays = Issuer::fixed("stays");
    let others = [Issuer::fixed("one"), Issuer::fixed("two"), Issuer::fixed("three")];
    let sets = [
        access(&[&stays, &others[0]], &[]),
        access(&[&others[1], &stays], &[]),
        access(&[&stays], &[]),
        access(&[&others[2], &others[0], &stays], &[]),
    ];
    let mut w = World::with_access(Stage::new(11, 3), sets[0].clone());
    let target = stays.dials("", "", &["**"], &["**"], None);
    let mut peers = Vec::new();
    for swap in 0..SWAPS {
        if swap.is_multiple_of(SWAPS / CLIENTS) {
            let n = peers.len();
            let version = [Lite05, Lite06, Lite03][n % 3];
            peers.push(w.arrive(dials(version, n % 3 == 2 || n.is_multiple_of(2), n % 3, &target)));
        }
        w.run(Duration::from_micros(1700));
        w.set_access(sets[swap % sets.len()].clone());
    }
    w.run(ms(300));
    for peer in peers {
        assert!(w.peers[peer].is_up(), "{}: {:?}", w.peers[peer].name, w.peers[peer].state);
    }
    w.end();
}

/// A role for which there is no grant is refused, and one that has a grant takes what is for the other away.
#[test]
fn a_role_takes_what_is_for_it() {
    let issuer = Issuer::fixed("roles");
    let (both, publish, subscribe) = (Role::Both, Role::Publisher, Role::Subscriber);
    // What it says it is, what it is granted, and what it then may: publish and watch.
    type Row = (Role, bool, bool, Option<(bool, bool)>);
    let table: [Row; 9] = [
        (both, true, true, Some((true, true))),
        (both, true, false, Some((true, false))),
        (both, false, true, Some((false, true))),
        (publish, true, true, Some((true, false))),
        (publish, true, false, Some((true, false))),
        (publish, false, true, None),
        (subscribe, true, true, Some((false, true))),
        (subscribe, true, false, None),
        (subscribe, false, true, Some((false, true))),
    ];
    for ((role, may_publish, may_subscribe, expect), web) in
        table.into_iter().flat_map(|row| [false, true].map(|web| (row, web)))
    {
        let mut w = World::with_access(Stage::new(7, 2), access(&[&issuer], &[]));
        let everything = issuer.dials("", "", &["**"], &["**"], None);
        let home = w.join(dials(Lite06, false, 0, &everything));
        w.peers[home].announce("cam", &[], Cost::ZERO);
        let track = w.track(home, "cam", TRACK);
        let listen_home = w.peers[home].listen("", 0);
        let all = |may: bool| if may { &["**"][..] } else { &[] };
        let target = issuer.dials("", "", all(may_publish), all(may_subscribe), None);
        let mut spec = dials(Lite06, web, 1, &target);
        spec.setup.role = role;
        let who = format!("{role:?} {may_publish} {may_subscribe} {web}");
        let peer = come(&mut w, spec);
        let Some((publishes, watches)) = expect else {
            assert_eq!(
                w.peers[peer].state,
                State::Over(reason(&w.peers[peer]).to_owned(), UNAUTHORIZED)
            );
            w.end();
            continue;
        };
        w.peers[peer].announce("own", &[], Cost::ZERO);
        let listen = w.peers[peer].listen("", 0);
        let sub = w.subscribe(peer, "cam", TRACK, live());
        w.run(ms(500));
        w.all_settled();
        w.group(track, 0, &[1]);
        w.run(ms(500));
        assert_eq!(w.peers[peer].announce_streams().len(), usize::from(publishes), "{who}");
        assert_eq!(
            w.peers[home].listens[listen_home].live().len(),
            usize::from(publishes),
            "{who}"
        );
        assert_eq!(
            w.peers[peer].listens[listen].live().contains(&"cam".to_owned()),
            watches,
            "{who}"
        );
        match watches {
            true => assert_eq!(w.got(sub), [0], "{who}"),
            false => assert_eq!(w.sub(sub).end, OUTSIDE, "{who}"),
        }
        w.end();
    }
}

/// Where there is no token there are the rules for everybody, and where there is one there is nothing else.
#[test]
fn a_token_that_is_shown_is_never_ignored() {
    let (issuer, stranger) = (Issuer::fixed("issuer"), Issuer::fixed("stranger"));
    let good = issuer.token("rooms/1", &["**"], &["**"], None);
    let bad = stranger.token("", &["**"], &["**"], None);
    let table: [(&str, String, bool); 9] = [
        ("/anon", String::new(), true),
        ("/anon", "?jwt=".to_owned(), true),
        ("/anon", "?x=1".to_owned(), true),
        ("/anon", format!("?jwt={bad}"), false),
        ("/anon", "?jwt=x".to_owned(), false),
        // It is good, and grants nothing there.
        ("/anon", format!("?jwt={good}"), false),
        ("/rooms", format!("?jwt={good}"), true),
        ("/rooms/1/x", format!("?jwt={bad}&jwt={good}"), true),
        ("/rooms/12", format!("?jwt={good}"), false),
    ];
    for (version, web) in [(Lite05, false), (Lite06, false), (Lite03, true), (Lite05, true)] {
        let mut w = World::with_access(Stage::new(8, 1), access(&[&issuer], &["anon/**"]));
        for (path, query, is_let_in) in &table {
            let peer = come(&mut w, dials(version, web, 0, &format!("{path}{query}")));
            assert_eq!(is_refused(&w.peers[peer]), !is_let_in, "{version} {web} {path}{query}");
        }
        w.end();
    }
}

/// Versions that cannot say where they want to be are at the root, and may what everybody may.
#[test]
fn who_can_show_nothing_may_what_everybody_may() {
    for version in [Lite01, Lite02, Lite03, Lite04] {
        let issuer = Issuer::fixed("nobody");
        for (rules, is_let_in) in [(&["anon/**"][..], true), (&[], false)] {
            let mut w = World::with_access(Stage::new(9, 1), access(&[&issuer], rules));
            let peer = come(&mut w, Spec::new(version, 0));
            assert_eq!(is_refused(&w.peers[peer]), !is_let_in, "{version}");
            w.end();
        }
    }
}

/// The bound on the path of a session leaves tokens out.
#[test]
fn a_path_may_be_as_long_beside_a_token() {
    let issuer = Issuer::fixed("long");
    let segment = "x".repeat(ROOT_BYTES_MAX);
    let rooms: Vec<String> = (0..100).map(|n| format!("room-{n}/**")).collect();
    let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
    for (web, more, expect) in [(false, "", true), (true, "", true), (false, "x", false)] {
        let mut w = World::with_access(Stage::new(10, 1), access(&[&issuer], &[]));
        let path = format!("{segment}{more}");
        let target = issuer.dials(&path, &path, &["**"], &rooms, None);
        assert!(target.len() > 3 * ROOT_BYTES_MAX);
        let peer = w.arrive(dials(Lite06, web, 0, &target));
        w.run(ms(300));
        assert_eq!(w.peers[peer].is_up(), expect, "{:?}", w.peers[peer].state);
        w.end();
    }
}

// ---- how many sessions one client may have ----

const LATER: Option<u64> = Some(SessionCode::TOO_MANY_REQUESTS.0);

/// Whether one was told to try again later: before its handshake, or in the words of its transport.
fn is_put_off(peer: &Peer) -> bool {
    match &peer.state {
        State::Up => false,
        State::Over(reason, None) => {
            reason.contains("the server refused to accept") || reason == "refused with 429"
        }
        State::Over(_, code) if *code == LATER => true,
        state => panic!("{}: {state:?}", peer.name),
    }
}

fn limited(w: &World) -> u64 {
    (0..w.stage.shards).map(|shard| w.counters(shard).limited_clients_total).sum()
}

/// One more from an address than may be is put off, on whatever shard; nobody else is.
#[test]
fn one_address_has_so_many_sessions_on_all_shards() {
    for web in [false, true] {
        let mut w = World::new(Stage { per_source: 3, ..Stage::new(20, 4) });
        let spec = |shard, house| {
            let spec = Spec { house, ..Spec::new(Lite06, shard) };
            if web { spec.web() } else { spec }
        };
        let first = w.join(spec(0, None));
        let second = w.join(spec(1, Some(first)));
        w.join(spec(2, Some(first)));
        for shard in 0..4 {
            let peer = come(&mut w, spec(shard, Some(first)));
            assert!(is_put_off(&w.peers[peer]), "{web} {shard}");
        }
        assert_eq!(limited(&w), 4);
        w.join(spec(3, None));
        assert!(w.peers[first].is_up() && w.peers[second].is_up());
        w.close(second);
        w.run(ms(100));
        w.join(spec(3, Some(first)));
        let peer = come(&mut w, spec(1, Some(first)));
        assert!(is_put_off(&w.peers[peer]));
        w.end();
    }
}

/// Handshakes that were begun while there was room are put off when there is none at their end.
#[test]
fn two_who_come_at_once_do_not_both_get_the_last_place() {
    for web in [false, true] {
        let mut w = World::new(Stage { per_source: 1, ..Stage::new(21, 2) });
        let spec = |shard, house| {
            let spec = Spec { house, ..Spec::new(Lite05, shard) };
            if web { spec.web() } else { spec }
        };
        let first = w.arrive(spec(0, None));
        w.run(ms(1));
        let second = come(&mut w, spec(1, Some(first)));
        assert!(w.peers[first].is_up());
        match &w.peers[second].state {
            State::Over(reason, None) if web => assert_eq!(reason, "refused with 429"),
            State::Over(reason, code) if !web => {
                assert!(*code == LATER && reason.contains("--limit-remote"), "{reason}");
            }
            state => panic!("{state:?}"),
        }
        w.end();
    }
}

#[test]
fn an_address_that_stands_for_many_has_no_bound() {
    let exempt = Some("10.1.0.0/24".parse().unwrap());
    let mut w = World::new(Stage { per_source: 1, exempt, ..Stage::new(22, 2) });
    let first = w.join(Spec::new(Lite06, 0));
    for shard in [0, 1, 0] {
        w.join(Spec { house: Some(first), ..Spec::new(Lite06, shard) });
    }
    assert_eq!(limited(&w), 0);
    w.end();
}

/// The same token from everywhere, in every way in which it can be shown.
#[test]
fn one_token_opens_so_many_sessions() {
    let issuer = Issuer::fixed("issuer");
    let one = issuer.dials("/rooms/1", "rooms", &[], &["**"], None);
    let other = issuer.dials("/rooms/1", "rooms", &["**"], &["**"], None);
    let ways = [(Lite05, false), (Lite06, false), (Lite03, true), (Lite06, true)];
    for exempt in [None, Some("10.0.0.0/8".parse().unwrap())] {
        let stage = Stage { per_token: 2, exempt, ..Stage::new(23, 4) };
        let mut w = World::with_access(stage, access(&[&issuer], &["anon/**"]));
        let first = w.join(dials(Lite06, true, 0, &one));
        w.join(dials(Lite05, false, 1, &one));
        for (shard, (version, web)) in ways.into_iter().enumerate() {
            // At another path it is the same token.
            let elsewhere = one.replace("/rooms/1", "/rooms/2");
            let peer = come(&mut w, dials(version, web, shard, &elsewhere));
            assert!(is_put_off(&w.peers[peer]), "{version} {web}");
            let words = if web { "refused with 429" } else { "--limit-token" };
            assert!(reason(&w.peers[peer]).contains(words), "{}", reason(&w.peers[peer]));
            w.join(dials(version, web, shard, "/anon"));
        }
        w.join(dials(Lite06, false, 2, &other));
        assert_eq!(limited(&w), ways.len() as u64);
        w.close(first);
        w.run(ms(100));
        w.join(dials(Lite06, false, 3, &one));
        w.end();
    }
}
