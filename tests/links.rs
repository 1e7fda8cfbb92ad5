//! Links that lose, delay, narrow, reorder or fall silent, in the simulated world: what a viewer behind
//! one gets, with the figures of `docs/SPECIFICATION.md`. `-- --nocapture` prints them.

#[path = "support/simulated.rs"]
mod support;

use std::time::{Duration, Instant};

use quinn_proto::Dir;
use shardcast::limits::{HANDSHAKE_TIMEOUT, IDLE_TIMEOUT};
use shardcast::quic::CongestionControl;
use shardcast::wire::*;
use shardcast_link::link::Link;
use support::network::Weather;
use support::peer::*;
use support::world::*;

const PATH: &str = "live/cam";
const TRACK: &str = "video";

use Version::Lite06;

const SEEDS: std::ops::RangeInclusive<u64> = 1..=3;

/// A track as a camera makes it, and who watches it over some link.
struct Show {
    w: World,
    cam: Track,
    viewer: usize,
    sub: Sub,
    /// When each frame was made.
    made: Vec<(u64, usize, Instant)>,
    next: u64,
}

impl Show {
    fn new(stage: Stage, weather: Weather, wanted: Preferences) -> Show {
        Show::behind(stage, weather, None, wanted)
    }

    /// The viewer is behind a bottleneck.
    fn behind(stage: Stage, weather: Weather, link: Option<Link>, wanted: Preferences) -> Show {
        let mut w = World::new(stage);
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let link = link.map(|link| w.network.lay(w.now, link));
        let weather = Weather { link, ..weather };
        let viewer = w.join(Spec { weather, ..Spec::new(Lite06, 1 % stage.shards) });
        let sub = w.subscribe(viewer, PATH, TRACK, wanted);
        w.run(ms(1000));
        w.all_settled();
        Show { w, cam, viewer, sub, made: Vec::new(), next: 0 }
    }

    /// One group in equal steps, with a look after each.
    fn group(&mut self, frames: usize, bytes: usize, gap: Duration, mut look: impl FnMut(&Show)) {
        let sequence = self.next;
        self.next += 1;
        self.w.open_group(self.cam, sequence);
        for frame in 0..frames {
            let timestamp = sequence * 1000 + 1000 * frame as u64 / frames as u64;
            self.w.frame_at(self.cam, sequence, timestamp, bytes);
            if frame + 1 == frames {
                self.w.end_group(self.cam, sequence, End::Finished);
            }
            self.made.push((sequence, frame, self.w.now));
            self.w.run(gap);
            look(self);
        }
    }

    /// How late each frame was that came.
    fn latencies(&self) -> Vec<Duration> {
        let late = |(group, frame, made): &(u64, usize, Instant)| {
            self.w.came(self.sub, *group, *frame).map(|came| came - *made)
        };
        let mut latencies: Vec<Duration> = self.made.iter().filter_map(late).collect();
        latencies.sort_unstable();
        latencies
    }

    /// Groups that were whole so soon after their last frame.
    fn whole_within(&self, time: Duration) -> usize {
        let groups = &self.w.sub(self.sub).groups;
        let is_soon = |sequence: &u64| {
            let made = self.made.iter().rfind(|(group, ..)| group == sequence).expect("made");
            let seen = &groups[sequence];
            let ended = seen.ended_at.filter(|_| seen.end == Some(End::Finished));
            ended.is_some_and(|at| at - made.2 <= time)
        };
        groups.keys().filter(|sequence| is_soon(sequence)).count()
    }

    fn is_up(&self) -> bool {
        self.w.peers[self.viewer].is_up()
    }

    fn weather(&mut self, weather: Weather) {
        self.w.peers[self.viewer].spec.weather = weather;
    }
}

/// A link that carries a quarter of a track: what comes is whole or reset, and what comes is new.
#[test]
fn a_link_at_a_quarter_of_the_bitrate_carries_what_is_new() {
    const GROUPS: u64 = 40;
    const FRAMES: usize = 25;
    /// 1 Mb/s.
    const FRAME_BYTES: usize = 5000;
    /// The link is known, and its queue full, after some groups.
    const SETTLED: u64 = 6;
    let narrow = Weather {
        latency: ms(20),
        down_bytes_per_second: Some((FRAMES * FRAME_BYTES / 4) as u32),
        ..Weather::FAIR
    };
    for weather in [narrow, Weather { latency: ms(20), ..Weather::FAIR }] {
        let is_narrow = weather.down_bytes_per_second.is_some();
        let wanted = Preferences { max_age_ms: 2000, ..live() };
        let mut show = Show::new(Stage::new(1, 2), weather, wanted);
        show.w.groups_expire = true;
        let mut oldest = 0;
        for _ in 0..GROUPS {
            show.group(FRAMES, FRAME_BYTES, ms(40), |show| {
                let live = show.next - 1;
                let newest = show.w.sub(show.sub).groups.keys().next_back().copied();
                if live >= SETTLED {
                    oldest = oldest.max(live - newest.expect("something came"));
                }
            });
        }
        show.w.run(ms(10_000));
        let groups = &show.w.sub(show.sub).groups;
        let whole = show.w.got(show.sub).len() as u64;
        let reset = groups.values().filter(|seen| matches!(seen.end, Some(End::Reset(_)))).count();
        assert_eq!(whole + reset as u64, groups.len() as u64, "a group has no end");
        println!(
            "narrow: {is_narrow}: {GROUPS} groups, {whole} whole, {reset} reset, {} never begun; the \
             newest was {oldest} groups behind at most",
            GROUPS - groups.len() as u64
        );
        assert!(oldest <= 2, "{oldest} groups behind");
        // Otherwise the link was not what it is to be.
        assert_eq!(whole < GROUPS, is_narrow);
        show.w.end();
    }
}

/// Random loss at 20 ± 5 ms: every group comes whole in the end, with either congestion control, and how
/// soon.
#[test]
fn what_a_link_loses_is_sent_again() {
    const GROUPS: u64 = 10;
    let fair = Weather { latency: ms(20), ..Weather::FAIR };
    let lossy = [10, 50, 100].map(|per_mille| Weather {
        latency: ms(15),
        jitter: ms(10),
        lost_up: per_mille,
        lost_down: per_mille,
        ..Weather::FAIR
    });
    for control in CongestionControl::ALL {
        for weather in [fair].into_iter().chain(lossy) {
            let what = format!("{} at {} %", control.name(), weather.lost_down as f64 / 10.0);
            let (mut latencies, mut soon) = (Vec::new(), 0);
            for seed in SEEDS {
                let stage = Stage { congestion_control: control, ..Stage::new(seed, 2) };
                let mut show = Show::new(stage, weather, live());
                for _ in 0..GROUPS {
                    // 2 Mb/s.
                    show.group(60, 4096, Duration::from_secs(1) / 60, |_| {});
                }
                let all = |w: &World| w.got(show.sub).len() as u64 == GROUPS;
                let have_come = show.w.run_until(Duration::from_secs(120), all);
                assert!(have_come, "{what}, seed {seed}: {:?}", show.w.got(show.sub));
                show.w.run(ms(1000));
                latencies.extend(show.latencies());
                soon += show.whole_within(ms(1000));
                show.w.end();
            }
            latencies.sort_unstable();
            let p99 = latencies[latencies.len() * 99 / 100];
            println!(
                "{what}: all whole, {soon} of {} within a second; frames late by {:.3?} (median) and \
                 {p99:.3?} (p99)",
                GROUPS * SEEDS.count() as u64,
                latencies[latencies.len() / 2]
            );
            // Otherwise the link was not what it is to be.
            assert_eq!(p99 > ms(60), weather.lost_down > 0, "{what}");
        }
    }
}

/// Fifty clients, one after the other, over a link that loses three datagrams in ten both ways. A
/// handshake has five seconds, and who has had no luck dials again.
#[test]
fn handshakes_pass_a_link_that_loses_three_in_ten() {
    const CLIENTS: usize = 50;
    const ALL_WITHIN: Duration = Duration::from_secs(300);
    let weather = Weather { latency: ms(15), lost_up: 300, lost_down: 300, ..Weather::FAIR };
    for seed in 1..=10 {
        let mut w = World::new(Stage::new(seed, 2));
        let (begun, mut dials, mut slowest) = (w.now, 0, Duration::ZERO);
        for client in 0..CLIENTS {
            let came = w.now;
            loop {
                dials += 1;
                let peer = w.arrive(Spec { weather, ..Spec::new(Lite06, client % 2) });
                let is_up = w.run_until(HANDSHAKE_TIMEOUT, |w| w.peers[peer].is_up());
                w.close(peer);
                if is_up {
                    break;
                }
            }
            slowest = slowest.max(w.now - came);
        }
        let took = w.now - begun;
        println!(
            "seed {seed}: {CLIENTS} clients in {took:.1?}, {dials} dials, the slowest {slowest:.1?}"
        );
        assert!(took <= ALL_WITHIN, "{took:?}");
        assert!(slowest > ms(500), "nothing was lost");
        w.run(LOSS_NOTICED);
        w.end();
    }
}

/// A link that is dead for a while, in the middle of a track: the session goes on and lacks nothing, or both
/// sides know that it is over.
#[test]
fn a_link_that_falls_silent_goes_on_or_ends() {
    const EDGE: Duration = Duration::from_millis(100);
    /// Each try comes after twice the time of the one before: between half of the idle timeout and all of it
    /// there is one, and what is left of a longer silence may see none.
    const TRIED_WITHIN: Duration = Duration::from_secs(5);
    let dead = Weather { lost_up: 1000, lost_down: 1000, ..Weather::FAIR };
    let ends = [ms(1000), IDLE_TIMEOUT / 2, IDLE_TIMEOUT + EDGE, 2 * IDLE_TIMEOUT];
    for silence in ends {
        let mut show = Show::new(Stage::new(1, 2), Weather::FAIR, live());
        let connections = show.w.held()[1].connections;
        show.group(1, 1000, EDGE, |_| {});
        show.weather(dead);
        for _ in 0..silence.as_millis() / EDGE.as_millis() {
            show.group(1, 1000, EDGE, |_| {});
        }
        show.weather(Weather::FAIR);
        let (back, all) = (show.w.now, show.next as usize);
        let has_all = show.w.run_until(TRIED_WITHIN, |w| w.got(show.sub).len() == all);
        let after = show.w.now - back;
        if silence < IDLE_TIMEOUT {
            assert!(has_all && show.is_up(), "after {silence:?}");
            println!("silence of {silence:?}: it goes on, whole again after {after:?}");
            show.group(1, 1000, EDGE, |_| {});
            assert_eq!(show.w.got(show.sub).len(), all + 1);
        } else {
            assert_eq!(show.w.held()[1].connections, connections - 1, "after {silence:?}");
            // The client finds out when it says something, or by its own idle timeout, which is 30 s.
            show.w.run(ms(30_000));
            let state = &show.w.peers[show.viewer].state;
            assert!(matches!(state, State::Over(_, None)), "after {silence:?}: {state:?}");
            println!("silence of {silence:?}: it ends: {state:?}");
        }
        show.w.end();
    }
}

/// Datagrams that overtake each other or come twice: nothing is lost, and nothing comes twice.
#[test]
fn what_overtakes_or_comes_twice_does_no_harm() {
    const GROUPS: u64 = 200;
    for seed in SEEDS {
        let fair = Weather { latency: ms(20), ..Weather::FAIR };
        // Late by more than a group lasts.
        let rough = Weather { jitter: ms(40), doubled: 20, ..fair };
        let twice = Weather { doubled: 1000, ..fair };
        let [all, some, doubled] = [fair, rough, twice].map(|weather| {
            let mut show = Show::new(Stage::new(seed, 2), weather, live());
            for _ in 0..GROUPS {
                show.group(3, 2000, ms(10), |_| {});
            }
            let all = |w: &World| w.got(show.sub).len() as u64 == GROUPS;
            assert!(show.w.run_until(Duration::from_secs(60), all), "seed {seed}, {weather:?}");
            show.w.run(ms(1000));
            let mut arrivals = show.w.sub(show.sub).arrivals.clone();
            let is_in_order = arrivals.is_sorted();
            arrivals.sort_unstable();
            assert_eq!(arrivals, (0..GROUPS).collect::<Vec<_>>());
            assert_eq!(show.w.got_sorted(show.sub), arrivals);
            let count = show.w.peers[show.viewer].datagrams_in;
            show.w.end();
            (count, is_in_order)
        });
        println!("seed {seed}: datagrams, and whether groups came in order: {all:?}, {some:?}");
        assert!(all.1 && !some.1, "nothing was overtaken");
        assert!(doubled.0 > all.0 * 3 / 2, "nothing came twice");
    }
}

/// Of a second of video.
const FRAMES: usize = 30;

/// Megabits per second as bytes per second.
const fn mbit(rate: f64) -> u64 {
    (rate * 125_000.0) as u64
}

/// A viewer behind a bottleneck of this kind, of a track that is made for so long at this rate and is live.
/// Says how long the viewer's datagrams waited there.
fn behind(control: CongestionControl, link: Link, rate: f64, lasts: Duration) -> Bottleneck {
    let stage = Stage { congestion_control: control, ..Stage::new(1, 1) };
    let wanted = Preferences { max_age_ms: 2000, ..live() };
    let mut show =
        Show::behind(stage, Weather { latency: ms(20), ..Weather::FAIR }, Some(link), wanted);
    show.w.groups_expire = true;
    let bytes = mbit(rate) as usize / FRAMES;
    for _ in 0..lasts.as_secs() {
        show.group(FRAMES, bytes, Duration::from_secs(1) / FRAMES as u32, |_| {});
    }
    let waited = &show.w.network.waited;
    let mut waits: Vec<Duration> = waited.iter().map(|(_, waited)| waited.time).collect();
    waits.sort_unstable();
    let seen = Bottleneck {
        wait50: waits[waits.len() / 2],
        wait95: waits[waits.len() * 95 / 100],
        lost: waited.iter().filter(|(_, waited)| waited.is_lost).count(),
        marked: waited.iter().filter(|(_, waited)| waited.is_marked).count(),
        came: show.latencies().len(),
    };
    show.w.run(ms(15_000));
    show.w.end();
    seen
}

#[derive(Clone, Copy, Debug)]
struct Bottleneck {
    wait50: Duration,
    wait95: Duration,
    lost: usize,
    marked: usize,
    /// Frames that came.
    came: usize,
}

/// A link that carries a fraction of a track for five seconds, and then the track again: the window that was
/// left of a few packets grows, although these wait for each other and for their acknowledgement.
#[test]
fn a_link_that_is_wide_again_is_used_again() {
    const LASTS: u64 = 20;
    for (wide, narrow) in [(4.0, 0.2), (4.0, 0.5), (20.0, 1.6)] {
        let rates = [(0, wide), (5, narrow), (10, wide)];
        let rate = rates.map(|(at, rate)| (Duration::from_secs(at), mbit(rate))).to_vec();
        let link = Link { rate, ..Link::of(mbit(wide), ms(500)) };
        let came = CongestionControl::ALL.map(|control| {
            let seen = behind(control, link.clone(), 3.0, Duration::from_secs(LASTS));
            println!("{wide} to {narrow} Mb/s and back, {}: {seen:.1?}", control.name());
            seen.came
        });
        // All of 15 seconds, but for half of one that it takes to come back.
        let least = FRAMES * (LASTS as usize - 5) - FRAMES / 2;
        assert!(came[1] >= least, "{wide} to {narrow} Mb/s: {came:?} frames, of {least}");
    }
}

/// A queue that marks what finds it too long (RFC 3168) is kept shorter for that by either control, and loses
/// nothing. What is sent can be marked to the end, or it would be lost.
#[test]
fn a_queue_that_marks_is_short_and_loses_nothing() {
    const LASTS: Duration = Duration::from_secs(12);
    let plain = Link::of(mbit(4.0), ms(500));
    let marking = Link { marks_above: Some(ms(10)), ..plain.clone() };
    for control in CongestionControl::ALL {
        let [plain, marking] =
            [&plain, &marking].map(|link| behind(control, link.clone(), 6.0, LASTS));
        let what = format!("{}: {plain:.1?}, with marks {marking:.1?}", control.name());
        println!("{what}");
        assert!(plain.marked == 0 && marking.marked > 50 && marking.lost == 0, "{what}");
        assert!(marking.wait50 < plain.wait50 && marking.wait95 < ms(40), "{what}");
        // Cubic believes in every mark that the link is full, and leaves most of it idle.
        let is_used = marking.came * 10 > plain.came * 8;
        assert!(is_used || control == CongestionControl::Loss, "{what}");
    }
}

// ---- what viewers are told of their link ----

/// A player with a choice of two renditions. It takes the larger one if four fifths of what it was told last
/// are enough for that, as the released player does.
struct Player {
    w: World,
    tracks: [Track; 2],
    viewer: usize,
    probe: u64,
    sub: Sub,
    /// Megabits per second. One that is not finite is never made.
    rates: [f64; 2],
    /// Which it took, and when; the last is the present one.
    taken: Vec<(Duration, usize)>,
    /// What it was told, in megabits per second, and when.
    told: Vec<(Duration, f64)>,
    frames: usize,
}

impl Player {
    const NAMES: [&'static str; 2] = ["low", "high"];
    /// The first frame of a group is so many times as large as the others.
    const FIRST: usize = 6;

    fn join(link: Link, latency: Duration, rates: [f64; 2]) -> Player {
        let congestion_control = CongestionControl::Delay;
        let mut w = World::new(Stage { congestion_control, ..Stage::new(1, 1) });
        w.groups_expire = true;
        let low = w.publisher(Lite06, 0, PATH, Player::NAMES[0]);
        let tracks = [low, w.track(low.peer, PATH, Player::NAMES[1])];
        let link = w.network.lay(w.now, link);
        let weather = Weather { latency, link: Some(link), ..Weather::FAIR };
        let viewer = w.join(Spec { weather, ..Spec::new(Lite06, 0) });
        let probe = w.raw(viewer, Dir::Bi, &[BidiType::Probe as u8], false);
        let sub = w.subscribe(viewer, PATH, Player::NAMES[0], Player::wanted());
        let taken = vec![(w.since_start(), 0)];
        Player { w, tracks, viewer, probe, sub, rates, taken, told: Vec::new(), frames: 0 }
    }

    fn wanted() -> Preferences {
        Preferences { max_age_ms: 2000, ..live() }
    }

    /// Both are live for so many seconds.
    fn play(&mut self, seconds: usize) {
        for _ in 0..seconds * FRAMES {
            let (group, frame) = (self.frames / FRAMES, self.frames % FRAMES);
            self.frames += 1;
            let at = self.w.since_start().as_millis() as u64;
            let made = self.tracks.into_iter().zip(self.rates);
            for (track, rate) in made.filter(|(_, rate)| rate.is_finite()) {
                if frame == 0 {
                    self.w.open_group(track, group as u64);
                }
                let bytes = mbit(rate) as usize / (FRAMES + Player::FIRST - 1);
                let times = if frame == 0 { Player::FIRST } else { 1 };
                self.w.frame_at(track, group as u64, at, bytes * times);
                if frame + 1 == FRAMES {
                    self.w.end_group(track, group as u64, End::Finished);
                }
            }
            self.w.run(Duration::from_secs(1) / FRAMES as u32);
            self.listen();
        }
    }

    /// Takes what it is told to.
    fn listen(&mut self) {
        let now = self.w.since_start();
        let mut rest = &self.w.peers[self.viewer].raws[&self.probe].received[..];
        let mut reports = Vec::new();
        while let Some((report, used)) = Probe::take(Lite06, rest).expect("a report") {
            reports.push(report.bitrate as f64 / 1e6);
            rest = &rest[used..];
        }
        self.told.extend(reports.drain(self.told.len()..).map(|rate| (now, rate)));
        let Some((_, told)) = self.told.last() else { return };
        let takes = usize::from(0.8 * told >= self.rates[1]);
        if self.taken.last().is_some_and(|(_, taken)| *taken != takes) {
            self.w.leave(self.sub);
            let name = Player::NAMES[takes];
            self.sub = self.w.subscribe(self.viewer, PATH, name, Player::wanted());
            self.taken.push((now, takes));
        }
    }
}

/// A player settles on what its link carries within five seconds of joining, and of every change of the
/// link, and then changes its mind no more.
#[test]
fn a_player_that_goes_by_what_it_is_told_settles() {
    const SETTLES_WITHIN: Duration = Duration::from_secs(5);
    /// Of a change, from when the link is laid.
    const STEP: u64 = 15;
    const RATES: [f64; 2] = [0.8, 2.5];
    let changes = [(0, 20.0, 1), (STEP, 1.6, 0), (2 * STEP, 20.0, 1)];
    let links: [&[(u64, f64, usize)]; 4] =
        [&[(0, 1.6, 0)], &[(0, 4.0, 1)], &[(0, 20.0, 1)], &changes];
    for latency in [5, 20, 100] {
        for steps in links {
            let rate = steps.iter().map(|(at, rate, _)| (Duration::from_secs(*at), mbit(*rate)));
            let link = Link { rate: rate.collect(), ..Link::of(1, ms(500)) };
            let mut player = Player::join(link, ms(latency), RATES);
            player.play(3 * STEP as usize);
            println!("{latency} ms {steps:?}: {:.1?}, told {:.1?}", player.taken, player.told);
            let joined = player.taken[0].0;
            for (nth, (from, _, settles_on)) in steps.iter().enumerate() {
                let settled = Duration::from_secs(*from).max(joined) + SETTLES_WITHIN;
                let until =
                    steps.get(nth + 1).map_or(Duration::MAX, |next| Duration::from_secs(next.0));
                let before = player.taken.iter().rfind(|(at, _)| *at <= settled);
                assert_eq!(before.expect("it has joined").1, *settles_on, "{latency} ms {steps:?}");
                let is_swing = |(at, _): &(Duration, usize)| *at > settled && *at < until;
                assert!(!player.taken.iter().any(is_swing), "{latency} ms {steps:?}");
            }
        }
    }
}

/// What is told of a link follows from what it has carried, and how fast: of one that a track almost fills
/// what it is, and of one with hardly anything on it nothing great.
#[test]
fn what_is_told_of_a_link_is_what_it_has_shown() {
    /// Until then a frame or two have shown it.
    const SHOWN_AFTER: Duration = Duration::from_secs(4);
    for latency in [5, 20, 40, 100] {
        for (link, rate, least, most) in [
            (4.0, 3.0, 3.2, 4.4),
            (4.0, 0.3, 0.3, 8.0),
            (1000.0, 0.3, 0.3, 8.0),
            (1000.0, 0.05, 0.05, 8.0),
        ] {
            let link_laid = Link::of(mbit(link), ms(500));
            let mut player = Player::join(link_laid, ms(latency), [rate, f64::INFINITY]);
            player.play(20);
            println!("{link} Mb/s, {latency} ms, a track of {rate}: {:.1?}", player.told);
            let told = player.told.iter().filter(|(at, _)| *at >= SHOWN_AFTER);
            let is_fair = |(_, told): &(Duration, f64)| (least..=most).contains(told);
            assert!(
                told.clone().count() > 0 && told.clone().all(is_fair),
                "{link} {latency} {rate}"
            );
        }
    }
}

// ---- joining ----

/// Somebody joins in the middle of a group: the first frame comes with the second round trip at the latest.
#[test]
fn a_viewer_that_joins_sees_something_soon() {
    for (latency, most) in [(20, 110), (100, 450)] {
        let congestion_control = CongestionControl::Delay;
        let mut w = World::new(Stage { congestion_control, ..Stage::new(1, 1) });
        w.groups_expire = true;
        let cam = w.publisher(Lite06, 0, PATH, TRACK);
        let wanted = Preferences { max_age_ms: 2000, ..live() };
        let near = w.viewer(Lite06, 0);
        w.subscribe(near, PATH, TRACK, wanted);
        w.run(ms(500));
        let link = w.network.lay(w.now, Link::of(mbit(20.0), ms(100)));
        let weather = Weather { latency: ms(latency), link: Some(link), ..Weather::FAIR };
        let viewer = w.arrive(Spec { weather, ..Spec::new(Lite06, 0) });
        let mut joined = None;
        for n in 0..3 * FRAMES {
            let (group, frame) = ((n / FRAMES) as u64, n % FRAMES);
            if frame == 0 {
                w.open_group(cam, group);
            }
            w.frame_at(cam, group, (1000 * n / FRAMES) as u64, mbit(3.0) as usize / FRAMES);
            if frame + 1 == FRAMES {
                w.end_group(cam, group, End::Finished);
            }
            let until = w.now + Duration::from_secs(1) / FRAMES as u32;
            if joined.is_none() && w.run_until(until - w.now, |w| w.peers[viewer].is_up()) {
                joined = Some((w.now, w.subscribe(viewer, PATH, TRACK, wanted)));
            }
            w.run(until - w.now);
        }
        let (joined, sub) = joined.expect("it has joined");
        let came = w.sub(sub).groups.values().flat_map(|seen| seen.came.iter());
        let first = *came.min().expect("something came") - joined;
        println!("{latency} ms: the first frame after {first:.1?}");
        assert!(first > ms(2 * latency) && first <= ms(most), "{latency} ms: {first:?}");
    }
}

// ---- others ----

/// What viewers behind one bottleneck get.
#[derive(Debug)]
struct Crowd {
    /// Jain's index: 1 if all got the same.
    jain: f64,
    wait95: Duration,
    /// Share of the frames that did not come within a second.
    late: f64,
    /// What a download beside got, in megabits per second.
    beside: f64,
}

/// Viewers who share what is too little for them get the same, and no more than a short queue stands.
#[test]
fn viewers_share_a_bottleneck_fairly() {
    for (viewers, rate) in [(2, 3.0), (8, 12.0), (32, 48.0)] {
        let seen = crowd(CongestionControl::Delay, viewers, Link::of(mbit(rate), ms(500)), false);
        println!("{viewers} viewers on {rate} Mb/s: {seen:.3?}");
        assert!(seen.jain >= 0.97 && seen.wait95 <= ms(80), "{viewers}: {seen:?}");
        // A quarter does not fit.
        assert!(seen.late > 0.15 && seen.late < 0.30, "{viewers}: {seen:?}");
    }
}

/// A download that waits for losses fills the queue, and neither pushes the other out.
#[test]
fn a_viewer_and_a_download_share_a_bottleneck() {
    let [loss, delay] = CongestionControl::ALL.map(|control| {
        let seen = crowd(control, 1, Link::of(mbit(5.0), ms(150)), true);
        println!("{} beside a download: {seen:.3?}", control.name());
        seen
    });
    assert!(delay.late <= 0.3 && delay.late < loss.late / 2.0, "{delay:?}, by loss {loss:?}");
    assert!(delay.beside >= 2.0, "{delay:?}");
}

/// A track of 2 Mb/s, and maybe a download through the same bottleneck.
fn crowd(control: CongestionControl, viewers: usize, link: Link, has_beside: bool) -> Crowd {
    const LASTS: usize = 12;
    const COUNTED: usize = 4;
    let mut w = World::new(Stage { congestion_control: control, ..Stage::new(1, 1) });
    w.groups_expire = true;
    let cam = w.publisher(Lite06, 0, PATH, TRACK);
    let link = w.network.lay(w.now, link);
    let weather = Weather { latency: ms(20), link: Some(link), ..Weather::FAIR };
    let wanted = Preferences { max_age_ms: 2000, ..live() };
    let subs: Vec<Sub> = (0..viewers)
        .map(|_| {
            let viewer = w.join(Spec { weather, ..Spec::new(Lite06, 0) });
            w.subscribe(viewer, PATH, TRACK, wanted)
        })
        .collect();
    let download = has_beside.then(|| w.network.download(w.now, link, ms(20)));
    let (mut made, mut counted) = (Vec::new(), w.now);
    for group in 0..LASTS {
        if group == COUNTED {
            counted = w.now;
        }
        w.open_group(cam, group as u64);
        for frame in 0..60 {
            w.frame_at(cam, group as u64, (1000 * group + 1000 * frame / 60) as u64, 4096);
            made.push((group as u64, frame, w.now));
            w.run(Duration::from_secs(1) / 60);
        }
        w.end_group(cam, group as u64, End::Finished);
    }
    let ended = w.now;
    w.run(ms(1000));
    made.retain(|(.., at)| *at >= counted);
    let fresh = |sub: &Sub| {
        let is_fresh = |(group, frame, at): &&(u64, usize, Instant)| {
            w.came(*sub, *group, *frame).is_some_and(|came| came - *at < ms(1000))
        };
        made.iter().filter(is_fresh).count() as f64
    };
    let shares: Vec<f64> = subs.iter().map(fresh).collect();
    let (sum, squares) = (shares.iter().sum::<f64>(), shares.iter().map(|s| s * s).sum::<f64>());
    let waited = w.network.waited.iter().filter(|(_, waited)| waited.at >= counted);
    let mut waits: Vec<Duration> = waited.map(|(_, waited)| waited.time).collect();
    waits.sort_unstable();
    let downloaded = download.map_or(&[][..], |download| w.network.downloaded(download));
    let counts = |(at, _): &&(Instant, usize)| *at >= counted && *at < ended;
    let bytes: usize = downloaded.iter().filter(counts).map(|(_, bytes)| bytes).sum();
    Crowd {
        jain: sum * sum / (viewers as f64 * squares),
        wait95: waits[waits.len() * 95 / 100],
        late: 1.0 - sum / (viewers * made.len()) as f64,
        beside: bytes as f64 * 8e-6 / (ended - counted).as_secs_f64(),
    }
}

// ---- several tracks ----

/// Sound as it may be sent.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Sound {
    GroupPerFrame,
    GroupPerSecond,
}

/// A link that holds the sound of a show and little of its picture: the sound comes whole and fresh, for it
/// comes first, and the picture has what is left.
#[test]
fn sound_comes_before_the_picture() {
    for sound in [Sound::GroupPerFrame, Sound::GroupPerSecond] {
        for latency in [40, 100] {
            let seen = sound_and_picture(CongestionControl::Delay, sound, 0.2, latency);
            println!("{sound:?}, {latency} ms: {seen:.1?}");
            assert!(seen.missing == 0 && seen.worst <= ms(1000), "{sound:?} {latency}: {seen:?}");
            assert!(seen.pictures >= 30, "{sound:?} {latency}: {seen:?}");
        }
    }
}

#[derive(Debug)]
struct Heard {
    /// Of those after two seconds.
    missing: usize,
    worst: Duration,
    /// Frames of the picture that came within two seconds.
    pictures: usize,
}

fn sound_and_picture(control: CongestionControl, sound: Sound, rate: f64, latency: u64) -> Heard {
    const SOUNDS: u64 = 20;
    const PICTURES: u64 = 20;
    const LASTS: u64 = 20;
    let mut w = World::new(Stage { congestion_control: control, ..Stage::new(1, 1) });
    w.groups_expire = true;
    let picture =
        w.publisher_like(Spec { is_swift: true, ..Spec::new(Lite06, 0).hop(7) }, PATH, "video");
    let track = w.track(picture.peer, PATH, "audio");
    let link = w.network.lay(w.now, Link::of(mbit(rate), ms(1000)));
    let weather = Weather { latency: ms(latency), link: Some(link), ..Weather::FAIR };
    let viewer = w.join(Spec { weather, ..Spec::new(Lite06, 0) });
    let wanted = Preferences { max_age_ms: 2000, priority: 60, ..live() };
    let seen = w.subscribe(viewer, PATH, "video", wanted);
    let heard = w.subscribe(viewer, PATH, "audio", Preferences { priority: 80, ..wanted });
    w.run(ms(500));
    let mut made = Vec::new();
    let mut shown = Vec::new();
    for n in 0..LASTS * SOUNDS {
        let at = 1000 * n / SOUNDS;
        let (second, nth) = (n / SOUNDS, n % SOUNDS);
        if nth == 0 {
            w.open_group(picture, second);
        }
        w.frame_at(picture, second, at, mbit(1.0) as usize / PICTURES as usize);
        shown.push((second, nth as usize, w.now));
        if nth + 1 == PICTURES {
            w.end_group(picture, second, End::Finished);
        }
        match sound {
            Sound::GroupPerFrame => {
                w.open_group(track, n);
                w.frame_at(track, n, at, 300);
                w.end_group(track, n, End::Finished);
            }
            Sound::GroupPerSecond => {
                if nth == 0 {
                    w.open_group(track, second);
                }
                w.frame_at(track, second, at, 300);
                if nth + 1 == SOUNDS {
                    w.end_group(track, second, End::Finished);
                }
            }
        }
        made.push((n, w.now));
        w.run(Duration::from_secs(1) / SOUNDS as u32);
    }
    w.run(ms(3000));
    let when = |n: u64| match sound {
        Sound::GroupPerFrame => w.came(heard, n, 0),
        Sound::GroupPerSecond => w.came(heard, n / SOUNDS, (n % SOUNDS) as usize),
    };
    let counted = made.iter().skip(2 * SOUNDS as usize);
    let lates: Vec<Option<Duration>> = counted.map(|(n, at)| Some(when(*n)? - *at)).collect();
    let mut latencies: Vec<Duration> = lates.iter().flatten().copied().collect();
    latencies.sort_unstable();
    let is_soon = |(group, frame, at): &&(u64, usize, Instant)| {
        w.came(seen, *group, *frame).is_some_and(|came| came - *at < ms(2000))
    };
    Heard {
        missing: lates.len() - latencies.len(),
        worst: *latencies.last().expect("something came"),
        pictures: shown.iter().filter(is_soon).count(),
    }
}

/// What all of these plays look for does not come by itself.
#[test]
fn without_a_publisher_nothing_comes() {
    let mut w = World::new(Stage::new(1, 2));
    let cam = w.publisher(Lite06, 0, "another/cam", TRACK);
    let viewer = w.viewer(Lite06, 1);
    let sub = w.subscribe(viewer, PATH, TRACK, live());
    w.run(ms(300));
    w.group(cam, 0, &[1000]);
    w.run(ms(10_000));
    assert!(w.sub(sub).groups.is_empty());
    assert_eq!(w.sub(sub).end, Some(End::Reset(StreamCode::UNROUTABLE.0)));
    w.end();
}
