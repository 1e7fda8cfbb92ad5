//! Telling the peer how fast we could send to it and how far away it is, on the Probe streams that
//! it opens (spec §3.8, §4.15).

use std::time::{Duration, Instant};

use super::counts::Class;
use super::streams::{Estimate, StreamId, Streams};
use super::{Context, Session, Step, Stream, Use};
use crate::limits::PROBE_STREAMS_PER_PEER_MAX;
use crate::wire::{Probe, StreamCode, Version};

/// Between two looks at the link.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A report that is as old as this is repeated, whatever the link is like.
const REPORT_AGE_MAX: Duration = Duration::from_secs(10);

/// The share by which something has to move to be news.
const NEWS: f64 = 0.25;

/// The weight of one look in the bitrate that is stated: what the link carries in about a second. From
/// one look to the next it jumps with every acknowledgement, which is news to nobody.
const LOOK_WEIGHT: f64 = 0.125;

/// The largest number that a JavaScript peer can read.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// What the peer was told last on one stream, and when.
#[derive(Debug, Default)]
pub(super) struct Reports {
    last: Option<(Instant, Probe)>,
}

/// All sessions look at about the same moments: a shard that sleeps is woken for all of them at once.
fn next_look<S>(cx: &Context<'_, S>) -> Instant {
    let every = LOOK_EVERY.as_millis() as u64;
    cx.now + Duration::from_millis(every - cx.arrival_ms % every)
}

/// What is believed of the link after another look.
fn smoothed(before: Estimate, now: Estimate) -> Estimate {
    let bitrate = match (before.bitrate, now.bitrate) {
        (Some(before), Some(now)) => {
            let step = (now as f64 - before as f64) * LOOK_WEIGHT;
            Some((before as f64 + step).round() as u64)
        }
        (_, now) => now,
    };
    Estimate { bitrate, ..now }
}

impl Session {
    pub(super) fn probe_requested<S: Streams>(
        &mut self,
        id: StreamId,
        stream: &mut Stream,
        cx: &mut Context<'_, S>,
    ) -> Step {
        if self.probes.len() == PROBE_STREAMS_PER_PEER_MAX {
            self.refuse(id, StreamCode::CANCEL, cx);
            return Step::Forget;
        }
        stream.purpose = Use::Probe;
        if self.probes.is_empty() {
            self.link = cx.streams.shown();
        }
        self.probes.insert(id, Reports::default());
        self.probe_deadline.get_or_insert(next_look(cx));
        self.report(id, cx);
        Step::Again
    }

    pub(super) fn forget_probe(&mut self, id: StreamId) {
        self.probes.remove(&id);
        if self.probes.is_empty() {
            self.probe_deadline = None;
        }
    }

    pub(super) fn probe_timeout<S: Streams>(&mut self, cx: &mut Context<'_, S>) {
        if self.probe_deadline.is_none_or(|deadline| deadline > cx.now) {
            return;
        }
        self.probe_deadline = Some(next_look(cx));
        self.link = smoothed(self.link, cx.streams.shown());
        let ids: Vec<StreamId> = self.probes.keys().copied().collect();
        for id in ids {
            self.report(id, cx);
        }
    }

    /// Looks at the link, and tells the peer if there is news. One that does not read what it was
    /// told is told no more until it has: the newest report is the one that counts.
    fn report<S: Streams>(&mut self, id: StreamId, cx: &mut Context<'_, S>) {
        let Some(reports) = self.probes.get_mut(&id) else { return };
        if self.unsent.contains_key(&id) {
            return;
        }
        let report = stated(self.link, self.version);
        if reports.is_due(report, cx.now) {
            reports.last = Some((cx.now, report));
            let mut bytes = Vec::new();
            report.encode(self.version, &mut bytes);
            self.send(Class::Probe, id, &bytes, false, cx);
        }
    }
}

/// An estimate as the wire has it, where 0 says that nothing is known.
fn stated(estimate: Estimate, version: Version) -> Probe {
    let measured = |number: u64| number.clamp(1, NUMBER_MAX);
    // lite-03 has no room for it.
    let rtt = estimate.rtt.filter(|_| version >= Version::Lite04);
    Probe {
        bitrate: estimate.bitrate.map_or(0, measured),
        rtt_ms: rtt.map_or(0, |rtt| measured(rtt.as_millis() as u64)),
    }
}

impl Reports {
    fn is_due(&self, report: Probe, now: Instant) -> bool {
        let is_nothing = report == Probe::default();
        let Some((at, last)) = self.last else { return !is_nothing };
        if is_nothing {
            return report != last;
        }
        let age = now.saturating_duration_since(at);
        age >= REPORT_AGE_MAX
            || has_moved(last.rtt_ms, report.rtt_ms, NEWS)
            || has_moved(last.bitrate, report.bitrate, NEWS * patience(age))
    }
}

/// The longer nothing was said, the less it takes: 1 at the first look, 0 at the greatest age.
fn patience(age: Duration) -> f64 {
    let left = REPORT_AGE_MAX.saturating_sub(age).as_secs_f64();
    (left / (REPORT_AGE_MAX - LOOK_EVERY).as_secs_f64()).min(1.0)
}

/// What appears or disappears has moved.
fn has_moved(before: u64, now: u64, share: f64) -> bool {
    if before == 0 || now == 0 {
        return before != now;
    }
    now != before && now.abs_diff(before) as f64 >= share * before as f64
}

#[cfg(test)]
mod tests {
    use super::super::fake::Play;
    use super::*;
    use crate::wire::BidiType;

    /// (milliseconds, bitrate, round trip in milliseconds), and what is reported then.
    type Look = (u64, Option<u64>, Option<u64>, Option<(u64, u64)>);

    #[track_caller]
    fn check(version: Version, looks: &[Look]) {
        let start = Instant::now();
        let mut reports = Reports::default();
        for &(ms, bitrate, rtt, expect) in looks {
            let now = start + Duration::from_millis(ms);
            let rtt = rtt.map(Duration::from_millis);
            let report = stated(Estimate { bitrate, rtt }, version);
            let is_due = reports.is_due(report, now);
            if is_due {
                reports.last = Some((now, report));
            }
            let told = is_due.then_some((report.bitrate, report.rtt_ms));
            assert_eq!(told, expect, "at {ms} ms");
        }
    }

    const ALL: [Version; 3] = [Version::Lite04, Version::Lite05, Version::Lite06];

    #[test]
    fn a_link_that_stays_the_same_is_reported_every_ten_seconds() {
        for version in ALL {
            let (rate, rtt) = (Some(1000), Some(20));
            check(
                version,
                &[
                    (0, rate, rtt, Some((1000, 20))),
                    (100, rate, rtt, None),
                    (9900, rate, rtt, None),
                    (10_000, rate, rtt, Some((1000, 20))),
                    (19_900, rate, rtt, None),
                    (20_000, rate, rtt, Some((1000, 20))),
                ],
            );
        }
    }

    #[test]
    fn it_takes_less_the_longer_nothing_was_said() {
        let rtt = Some(20);
        check(
            Version::Lite06,
            &[
                (0, Some(1000), rtt, Some((1000, 20))),
                (100, Some(1249), rtt, None),
                (200, Some(753), rtt, None),
                (300, Some(750), rtt, Some((750, 20))),
                // Half way to the ten seconds half of a quarter is news.
                (5300, Some(842), rtt, None),
                (5400, Some(844), rtt, Some((844, 20))),
                (15_300, Some(845), rtt, None),
                (15_400, Some(845), rtt, Some((845, 20))),
            ],
        );
        // Downwards and upwards alike; at once if it is a quarter.
        check(
            Version::Lite05,
            &[
                (0, Some(1000), rtt, Some((1000, 20))),
                (50, Some(1250), rtt, Some((1250, 20))),
                (100, Some(900), rtt, Some((900, 20))),
                (200, Some(1124), rtt, None),
                (300, Some(1125), rtt, Some((1125, 20))),
            ],
        );
    }

    #[test]
    fn the_round_trip_has_to_move_by_a_quarter_however_long_ago() {
        let rate = Some(1000);
        check(
            Version::Lite04,
            &[
                (0, rate, Some(20), Some((1000, 20))),
                (100, rate, Some(24), None),
                (9000, rate, Some(16), None),
                (9100, rate, Some(15), Some((1000, 15))),
                (9200, rate, Some(19), Some((1000, 19))),
                (9300, rate, Some(23), None),
            ],
        );
    }

    #[test]
    fn what_appears_or_disappears_is_news_and_nothing_is_said_once() {
        check(
            Version::Lite06,
            &[
                (0, None, None, None),
                (10_000, None, None, None),
                (10_100, None, Some(30), Some((0, 30))),
                (10_200, Some(5), Some(30), Some((5, 30))),
                (10_300, Some(5), None, Some((5, 0))),
                (10_400, None, None, Some((0, 0))),
                (10_500, None, None, None),
                (40_000, None, None, None),
                // A measured zero is not nothing.
                (40_100, Some(0), Some(0), Some((1, 1))),
                (50_100, Some(u64::MAX), Some(1), Some((NUMBER_MAX, 1))),
            ],
        );
    }

    #[test]
    fn lite_03_hears_of_no_round_trips() {
        check(
            Version::Lite03,
            &[
                (0, None, Some(30), None),
                (100, Some(8), Some(30), Some((8, 0))),
                (200, Some(8), Some(90), None),
                (300, None, Some(90), Some((0, 0))),
                (20_000, None, Some(20), None),
            ],
        );
    }

    // ---- a session with a peer that opens such streams ----

    impl Play {
        fn rate(&mut self, bitrate: u64) {
            let rtt = Some(Duration::from_millis(20));
            self.link.estimate = Estimate { bitrate: Some(bitrate), rtt };
        }

        /// Lets time pass, and looks whenever the session wants to.
        fn run(&mut self, ms: u64) {
            let until = self.now + Duration::from_millis(ms);
            while let Some(at) = self.session.deadline().filter(|at| *at <= until) {
                assert!(at > self.now, "time goes on");
                self.now = at;
                self.with(|session, cx| session.timeout(cx));
            }
            self.now = until;
        }

        /// The bitrates that were told on a stream since this was last looked at.
        fn told(&mut self, id: u64) -> Vec<u64> {
            let bytes = self.link.told.remove(&StreamId(id)).unwrap_or_default();
            let mut rest = &bytes[..];
            let mut rates = Vec::new();
            while let Some((probe, used)) = Probe::take(Version::Lite04, rest).unwrap() {
                rates.push(probe.bitrate);
                rest = &rest[used..];
            }
            rates
        }
    }

    const PROBE: [u8; 1] = [BidiType::Probe as u8];

    #[test]
    fn the_link_is_looked_at_while_somebody_asks() {
        let mut play = Play::new();
        assert_eq!(play.session.deadline(), None);
        play.rate(1000);
        play.opens(0, &PROBE);
        assert_eq!(play.told(0), [1000]);
        assert_eq!(play.session.deadline(), Some(play.now + LOOK_EVERY));
        play.rate(3000);
        play.run(99);
        assert!(play.told(0).is_empty());
        play.run(1);
        // An eighth of the way, and then another.
        assert_eq!(play.told(0), [1250]);
        play.run(200);
        assert_eq!(play.told(0), [1660]);
        play.rate(1661);
        // A second one has a time of its own for its reports.
        play.run(50);
        play.opens(4, &PROBE);
        play.run(9950);
        assert_eq!((play.told(0), play.told(4)), (vec![1660], vec![1660]));
        play.link.has_finished = true;
        for id in [0, 4] {
            play.with(|session, cx| session.readable(StreamId(id), cx));
        }
        assert_eq!(
            (play.session.deadline(), &play.link.done[..]),
            (None, &["finish"; 2].map(String::from)[..])
        );
    }

    #[test]
    fn who_does_not_read_gets_the_newest_report_in_the_end() {
        let mut play = Play::new();
        play.rate(1000);
        play.link.is_blocked = true;
        play.opens(0, &PROBE);
        for rate in [2000, 4000, 8000] {
            play.rate(rate);
            play.run(100);
        }
        play.link.is_blocked = false;
        play.with(|session, cx| session.writable(StreamId(0), cx));
        play.run(100);
        // What the link had come to, each look counting for an eighth.
        assert_eq!(play.told(0), [1000, 3012]);
        play.with(|session, cx| session.stopped(StreamId(0), cx));
        assert_eq!(
            (play.session.deadline(), &play.link.done[..]),
            (None, &["reset 1".to_owned()][..])
        );
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let mut play = Play::new();
        play.rate(1000);
        for nth in 0..PROBE_STREAMS_PER_PEER_MAX as u64 {
            play.opens(4 * nth, &PROBE);
        }
        assert!(play.link.done.is_empty());
        play.opens(400, &PROBE);
        assert_eq!((play.link.done.len(), play.told(400)), (2, vec![]));
        // A byte is one too many; and there is room again.
        play.link.says = vec![0];
        play.with(|session, cx| session.readable(StreamId(0), cx));
        assert_eq!(play.link.done, ["reset 1", "stop 1", "reset 1", "stop 1"]);
        play.opens(404, &PROBE);
        assert_eq!((play.link.done.len(), play.told(404)), (4, vec![1000]));
        play.opens(408, &[PROBE[0], 7]);
        assert_eq!(play.link.done.len(), 6);
    }
}
