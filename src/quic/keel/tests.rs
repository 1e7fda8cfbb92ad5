//! Keel on a path with one queue.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;

const PACKET: u16 = 1452;
const STEP: Duration = Duration::from_millis(1);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A path with one queue, and a sender that has so much to send, behind a window.
struct Path {
    keel: Keel,
    started: Instant,
    now: Instant,
    bytes_per_second: f64,
    base: Duration,
    /// One packet of so many is lost behind the queue.
    lost_one_in: u64,
    /// What waits for more than this is lost.
    queue: Duration,
    /// What waits for more than this is marked.
    marks_above: Duration,
    /// Bytes that the sender has in each millisecond, and what it has not sent of them.
    brings: f64,
    backlog: f64,
    busy_until: Instant,
    /// When each packet was sent, is acknowledged, and whether it is lost, or marked.
    flying: VecDeque<(Instant, Instant, bool, bool)>,
    sent: u64,
    delivered: u64,
    /// How long the packets of this millisecond had to wait.
    waits: Duration,
    /// The path loses everything.
    is_silent: bool,
    /// Somebody else fills the queue, and halves what is his when it is full.
    is_shared: bool,
}

impl Path {
    fn new(kbits: u64, base: Duration) -> Path {
        let now = Instant::now();
        Path {
            keel: Keel::new(now, now, PACKET),
            started: now,
            now,
            bytes_per_second: kbits as f64 * 125.0,
            base,
            lost_one_in: u64::MAX,
            queue: ms(500),
            marks_above: Duration::MAX,
            brings: f64::INFINITY,
            backlog: 0.0,
            busy_until: now,
            flying: VecDeque::new(),
            sent: 0,
            delivered: 0,
            waits: Duration::ZERO,
            is_silent: false,
            is_shared: false,
        }
    }

    /// A track of so many kilobits per second.
    fn brings(self, kbits: u64) -> Path {
        Path { brings: kbits as f64 / 8.0, ..self }
    }

    fn packets(&self) -> u64 {
        self.keel.window() / u64::from(PACKET)
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += STEP;
            self.acknowledge();
            self.send();
        }
    }

    fn in_flight(&self) -> u64 {
        self.flying.len() as u64 * u64::from(PACKET)
    }

    fn acknowledge(&mut self) {
        let is_app_limited = self.backlog < f64::from(PACKET);
        let (mut lost, mut acked, mut has_marks) = (0, 0, false);
        while let Some((sent, _, is_lost, is_marked)) =
            self.flying.pop_front_if(|(_, heard, ..)| *heard <= self.now)
        {
            if is_lost {
                lost += 1;
            } else {
                acked += 1;
                has_marks |= is_marked;
                self.keel.acked(sent, u64::from(PACKET));
            }
        }
        self.delivered += acked;
        if acked > 0 {
            let in_flight = self.in_flight() + lost * u64::from(PACKET);
            self.keel.acked_all(self.now, in_flight, is_app_limited);
        }
        if lost > 0 {
            self.keel.lost(lost * u64::from(PACKET), false);
        }
        if has_marks {
            self.keel.lost(0, false);
        }
    }

    fn send(&mut self) {
        let packet = u64::from(PACKET);
        self.backlog += self.brings;
        if self.is_shared {
            let millis = self.now.duration_since(self.started).as_millis() as u64;
            let theirs = self.queue / 2 + self.queue.mul_f64((millis % 2000) as f64 / 4000.0);
            self.busy_until = self.busy_until.max(self.now + theirs);
        }
        self.waits = self.busy_until.saturating_duration_since(self.now);
        while self.backlog >= f64::from(PACKET)
            && self.in_flight() + packet < self.keel.window_at(self.now)
        {
            self.backlog -= f64::from(PACKET);
            self.keel.sent(self.now, packet);
            self.sent += 1;
            let waits = self.busy_until.saturating_duration_since(self.now);
            let is_dropped = waits > self.queue;
            let is_lost =
                is_dropped || self.is_silent || self.sent.is_multiple_of(self.lost_one_in);
            if !is_dropped {
                let takes = Duration::from_secs_f64(f64::from(PACKET) / self.bytes_per_second);
                self.busy_until = self.busy_until.max(self.now) + takes;
            }
            let heard = if self.is_silent { ms(60_000) } else { Duration::ZERO };
            let heard = self.busy_until + self.base + heard;
            self.flying.push_back((self.now, heard, is_lost, waits > self.marks_above));
        }
    }

    /// The shortest wait in a time, and the share of the link that was used.
    fn look(&mut self, time: Duration) -> (Duration, f64) {
        let until = self.now + time;
        let (mut shortest, delivered) = (Duration::MAX, self.delivered);
        while self.now < until {
            self.run(STEP);
            shortest = shortest.min(self.waits);
        }
        let bytes = (self.delivered - delivered) as f64 * f64::from(PACKET);
        (shortest, bytes / time.as_secs_f64() / self.bytes_per_second)
    }
}

#[test]
fn what_is_lost_on_the_way_does_not_matter() {
    for lost_one_in in [100, 50, 20] {
        let mut path = Path { lost_one_in, ..Path::new(20_000, ms(80)).brings(3000) };
        path.run(ms(30_000));
        assert!(path.packets() >= 32, "{lost_one_in}: {}", path.packets());
        let mut path = Path { lost_one_in, ..Path::new(20_000, ms(80)) };
        path.run(ms(5000));
        let (_, used) = path.look(ms(10_000));
        assert!(used > 0.8, "one in {lost_one_in}: {used}");
    }
}

/// A full link of any rate is used, and no queue stands before it.
#[test]
fn no_queue_stands() {
    for kbits in [500, 1600, 5000, 20_000, 50_000] {
        for base in [10, 40, 80, 200] {
            let mut path = Path::new(kbits, ms(base));
            path.run(ms(5000));
            let packet = Duration::from_secs_f64(1452.0 / path.bytes_per_second);
            for _ in 0..10 {
                let (queue, used) = path.look(ms(1000));
                let most = ms(60) + 5 * packet;
                assert!(queue < most, "{kbits} kb/s {base} ms: {queue:?}");
                assert!(used > 0.75, "{kbits} kb/s {base} ms: {used}");
            }
        }
    }
}

/// What always remains of a queue would count as the path after a while, and another queue would
/// stand on it.
#[test]
fn no_queue_grows_in_minutes() {
    for (kbits, base) in [(800, 80), (1600, 80), (5000, 20)] {
        let mut path = Path::new(kbits, ms(base));
        path.run(ms(20_000));
        let (before, _) = path.look(ms(10_000));
        path.run(ms(120_000));
        let (queue, used) = path.look(ms(10_000));
        assert!(queue < before + ms(10), "{kbits} kb/s: {before:?} becomes {queue:?}");
        assert!(used > 0.95, "{kbits} kb/s: {used}");
    }
}

/// Also where it takes a second to send two packets too many.
#[test]
fn no_queue_stands_before_a_slow_link() {
    let mut path = Path { queue: ms(1000), ..Path::new(200, ms(80)) }.brings(250);
    path.run(ms(10_000));
    for _ in 0..10 {
        let (queue, used) = path.look(ms(2000));
        assert!(queue < ms(350), "{queue:?}");
        assert!(used > 0.9, "{used}");
    }
}

/// What a short queue has no room for is not sent for long.
#[test]
fn a_short_queue_loses_little() {
    for (kbits, queue) in [(1600, 50), (5000, 30), (8000, 20)] {
        let mut path = Path { queue: ms(queue), ..Path::new(kbits, ms(80)) };
        path.run(ms(4000));
        let (sent, delivered) = (path.sent, path.delivered);
        path.run(ms(20_000));
        let (sent, delivered) = (path.sent - sent, path.delivered - delivered);
        let lost = 1.0 - delivered as f64 / sent as f64;
        assert!(lost < 0.01, "{kbits} kb/s, {queue} ms: {lost}");
    }
}

/// Of a full link that is what it carries; of another one more than the track needs, but not much.
#[test]
fn what_a_link_has_shown_is_told() {
    let shown = |mut path: Path| {
        path.run(ms(20_000));
        path.keel.shown_bits() / 1000
    };
    for kbits in [1600, 5000, 20_000] {
        let full = shown(Path::new(kbits, ms(80)));
        assert!((kbits * 9 / 10..=kbits * 11 / 10).contains(&full), "{kbits}: {full}");
    }
    let almost = shown(Path::new(4000, ms(80)).brings(3000));
    assert!((3200..=4600).contains(&almost), "{almost}");
    // A link that is full no longer is not what it was.
    let mut wider = Path::new(1600, ms(80)).brings(2000);
    wider.run(ms(12_000));
    wider.bytes_per_second = 2_500_000.0;
    wider.run(ms(4000));
    let wider = wider.keel.shown_bits() / 1000;
    assert!(wider > 2000, "{wider}");
    let hardly = shown(Path::new(100_000, ms(10)).brings(300));
    assert!((300..=8000).contains(&hardly), "{hardly}");
}

/// Frames of a track show a link that they do not fill, up to four times what they need.
#[test]
fn bursts_show_a_link() {
    for base in [10, 40, 200] {
        let mut path = Path::new(4000, ms(base)).brings(0);
        let shown = |path: &mut Path, frames: u32| {
            for _ in 0..frames {
                path.backlog += 12_500.0;
                path.run(ms(33));
            }
            path.keel.shown_bits() / 1000
        };
        let narrow = shown(&mut path, 300);
        assert!((3200..=4400).contains(&narrow), "{base} ms: {narrow}");
        path.bytes_per_second = 2_500_000.0;
        let wide = shown(&mut path, 60);
        assert!((8000..=20_000).contains(&wide), "{base} ms: {wide}");
        // It does not carry the track any more.
        path.bytes_per_second = 200_000.0;
        let full = shown(&mut path, 60);
        assert!((1400..=1800).contains(&full), "{base} ms: {full}");
    }
}

/// Who needs less than the link carries is never held back, and never seen to need more.
#[test]
fn a_track_below_the_link_changes_nothing() {
    let mut path = Path::new(4000, ms(80)).brings(3000);
    path.run(ms(20_000));
    assert_eq!(path.packets(), 32);
    assert!(path.backlog <= f64::from(PACKET), "{}", path.backlog);
}

#[test]
fn the_window_follows_a_link_down_and_up() {
    let mut path = Path::new(20_000, ms(40)).brings(2000);
    path.run(ms(5000));
    path.bytes_per_second = 200_000.0;
    path.run(ms(1500));
    let (queue, used) = path.look(ms(3000));
    assert!(queue < ms(60) && used > 0.9, "{queue:?} {used}");
    path.bytes_per_second = 2_500_000.0;
    // The backlog of three seconds leaves quickly.
    path.run(ms(1500));
    assert!(path.backlog < f64::from(PACKET), "{}", path.backlog);
}

/// A way that has become longer is no queue: for a while it looks like that of others, which is
/// shared, and then it is the way.
#[test]
fn a_longer_way_is_believed() {
    let mut path = Path::new(20_000, ms(40)).brings(3000);
    path.run(ms(5000));
    path.base = ms(140);
    path.run(ms(2000));
    assert!(matches!(path.keel.mode, Mode::Shared { .. }), "{:?}", path.keel.mode);
    path.run(ms(5000));
    assert_eq!(path.keel.mode, Mode::Run);
    let (_, used) = path.look(ms(5000));
    assert!(used > 0.145, "{used}");
    assert!(path.backlog <= f64::from(PACKET), "{}", path.backlog);
}

/// The same where the window is of a few packets, which wait for each other for almost as long.
#[test]
fn a_link_is_used_again_when_its_way_has_become_longer() {
    for (kbits, track, before, after) in [
        (4000, 3000, 10, 40),
        (4000, 6000, 10, 40),
        (1600, 2000, 20, 60),
        (20_000, 3000, 5, 40),
        (20_000, 30_000, 5, 20),
    ] {
        let mut path = Path::new(kbits, ms(before)).brings(track);
        path.run(ms(7000));
        path.base = ms(after);
        path.run(ms(8000));
        let (_, used) = path.look(ms(10_000));
        let most = track.min(kbits) as f64 / kbits as f64;
        assert!(used > 0.95 * most, "{kbits}, {track}, {before} to {after} ms: {used}");
    }
}

/// Who fills the queue of a link and waits for losses does not push out a track.
#[test]
fn a_queue_of_others_is_shared() {
    let mut path = Path { queue: ms(150), ..Path::new(20_000, ms(40)).brings(3000) };
    path.run(ms(3000));
    path.is_shared = true;
    path.run(ms(3000));
    for second in 0..20 {
        let (_, used) = path.look(ms(1000));
        assert!(used > 0.1, "second {second}: {used}");
    }
    assert!(matches!(path.keel.mode, Mode::Shared { .. }), "{:?}", path.keel.mode);
    path.is_shared = false;
    path.run(ms(1000));
    assert_eq!(path.keel.mode, Mode::Run);
}

/// A silent path is sent one datagram each 50 ms, for a while.
#[test]
fn a_silent_path_is_knocked_at() {
    let mut path = Path::new(20_000, ms(40)).brings(3000);
    path.run(ms(5000));
    path.is_silent = true;
    path.run(ms(300));
    let full = path.sent;
    path.run(ms(1000));
    let knocks = path.sent - full;
    assert!((15..=20).contains(&knocks), "{knocks}");
    path.run(ms(1000));
    let full = path.sent;
    path.run(ms(1000));
    assert_eq!(path.sent, full);
}

/// What has waited for a path that held everything back was in no queue of ours.
#[test]
fn a_path_that_comes_back_is_as_it_was() {
    let mut path = Path::new(4000, ms(80)).brings(3000);
    path.run(ms(5000));
    path.busy_until = path.now + ms(500);
    for after in 0..700 {
        path.run(ms(1));
        assert_eq!(path.keel.mode, Mode::Run, "after {after} ms");
        assert!(path.packets() >= 32, "{}", path.packets());
    }
}

/// Marks count as a full link where we are what fills it.
#[test]
fn marks_are_heeded() {
    let mut path = Path::new(20_000, ms(40));
    path.run(ms(2000));
    let before = path.packets();
    path.keel.lost(0, false);
    path.run(ms(60));
    assert!(path.packets() < before, "{before}");

    let mut path = Path::new(20_000, ms(40)).brings(1000);
    path.run(ms(2000));
    path.keel.lost(0, false);
    path.run(ms(200));
    assert_eq!(path.packets(), 32);
}

/// A link that marks all the time is full all the time, and its queue stays where marks begin.
#[test]
fn marks_leave_a_link_full() {
    for (kbits, base) in [(1600, 80), (4000, 40), (20_000, 40)] {
        let marks_above = ms(15);
        let mut path = Path { marks_above, ..Path::new(kbits, ms(base)) };
        path.run(ms(3000));
        for second in 0..20 {
            let (queue, used) = path.look(ms(1000));
            let what = format!("{kbits} kb/s {base} ms, second {second}: {queue:?}, {used}");
            assert!(queue < ms(20) && used > 0.75, "{what}");
        }
    }
}

/// Whatever comes, in whatever order: a window is left, and it is a number.
#[test]
fn nothing_breaks_it() {
    let mut seed = 7_u64;
    let mut draw = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..50 {
        let started = Instant::now();
        let (mut keel, mut now) = (Keel::new(started, started, PACKET), started);
        for _ in 0..2000 {
            let scale = draw(18);
            now += Duration::from_micros(draw(1 << scale));
            match draw(5) {
                0 => keel.sent(now, draw(70_000)),
                1 => {
                    let bytes = draw(20_000).saturating_sub(5000);
                    keel.lost(bytes, bytes > 0 && draw(20) == 0);
                }
                2 => keel.set_packet_bytes(1200 + draw(300) as u16),
                _ => {
                    for _ in 0..draw(5) {
                        let sent = now - ms(draw(300)).min(now - started);
                        keel.acked(sent, 1 + draw(1500));
                    }
                    let in_flight = draw(100_000);
                    keel.acked_all(now, in_flight, draw(2) == 0);
                }
            }
            let packets = keel.window() / 1200;
            assert!((4..=1748).contains(&packets), "{packets}: {keel:?}");
        }
    }
}
