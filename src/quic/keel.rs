//! Keel: the congestion control of live tracks, by the queue that stands.
//!
//! A live track is sent in bursts with pauses between them and mostly needs less than the link carries,
//! so nobody ever learns what that is. What can be learned is whether the link keeps up: if of all that
//! was acknowledged in a while nothing went without waiting, the bottleneck was busy all the time, and
//! what was acknowledged is our share of it. Then the window shrinks to what the path holds at that rate.
//! What is lost on the way is no sign of a full link: beside that only losses from a queue that is full
//! make it shrink, and more losses than a bad link has, over and over.
//!
//! A queue that remains although we hold back is that of others who wait for losses (CUBIC does): we
//! then share it with them as they do among themselves, until it is gone. Where nothing is lost
//! meanwhile, the path has become longer.
//!
//! A little of a queue always remains behind a window that is never too small. Before it is taken for a
//! part of the path, whoever fills a link lets it run empty for a moment: all connections of the relay at
//! the same time, for many may be behind one bottleneck.
//!
//! All of it follows from when packets were sent and acknowledged, and from their sizes. Times are in
//! seconds since the connection began, sizes in bytes.

mod spans;

use std::time::Instant;

use spans::{BASE_SPAN, Base, Quickest, Rates};

/// Windows, in packets: the first, the least, and what is left beside what the path holds, so that
/// acknowledgements that come together do not leave it idle.
const PACKETS_START: f64 = 32.0;
const PACKETS_MIN: f64 = 4.0;
const PACKETS_SLACK: f64 = 4.0;
/// The most: what a connection may have unacknowledged, twice.
const WINDOW_MAX: f64 = (2 << 20) as f64;

/// If the shortest round trip of this span was so much longer than that of the last one where the window was
/// what held us up, that may be a queue: we make sure.
const BASE_RISE: f64 = 0.003;

/// A packet has waited if it took longer than the shortest round trip by this share of it, within these.
const WAIT_SHARE: f64 = 0.25;
const WAIT_MIN: f64 = 0.010;
const WAIT_MAX: f64 = 0.025;
/// Packets that may wait without being a queue: the slack, and one that is on its way. Where many
/// share a link, the slack of all of them waits before it.
const PACKETS_WAITING: f64 = PACKETS_SLACK + 1.0;

/// A queue stands if nothing went without waiting for this long, or a round trip; where the window does
/// not hold us up, for this long or two.
const STANDS_AFTER: f64 = 0.060;
const STANDS_AFTER_UNLIMITED: f64 = 0.200;
/// Then it is ours if we send so many times as much as arrives, and two packets, within this.
const UNSERVED: f64 = 1.06;
const UNSERVED_WITHIN: f64 = 2.0;

/// What of the path is filled while the queue drains.
const DRAIN: f64 = 0.85;
/// How often in a row draining may leave more than this share of the queue before it is somebody else's.
const DRAINS_IN_VAIN: u32 = 2;
const DRAINED_SHARE: f64 = 0.5;

/// How long a queue is shared with others before it is taken for the path: longer each time, and
/// whenever something is lost.
const SHARED_SECONDS: f64 = 4.0;
const SHARED_SECONDS_MAX: f64 = 30.0;
const SHARED_BETA: f64 = 0.85;
const SHARED_LOSS: f64 = 0.01;

/// The window grows while packets wait for less than this share of what counts as waiting; by so many
/// packets in a round, which double from the least to the most.
const GROWS_BELOW: f64 = 0.5;
const STEP_MIN: f64 = 1.0;
const STEP_MAX: f64 = 8.0;
/// Or if they come in less than this share of the time that a full link took for the window.
const EASED: f64 = 0.75;

/// The share of losses beyond what the link always has that counts, in so many rounds in a row of so
/// many packets.
const LOSS: f64 = 0.05;
const LOSSY_ROUNDS: u32 = 2;
const LOSSY_ROUND_PACKETS: f64 = 10.0;
/// What a link is believed to lose always, at most.
const LOSS_ALWAYS_MAX: f64 = 0.3;
const LOSS_WEIGHT: f64 = 0.1;
/// Beside losses a third of the wait is a queue.
const LOSSY_WAIT_SHARE: f64 = 0.33;
const LOSSY_BACK: f64 = 0.9;
/// What a full queue loses makes the window no smaller than this share of it in a round.
const OVERFLOW_SHARE_MIN: f64 = 0.7;

/// When nothing is acknowledged for so long, or three round trips, the path was silent.
const SILENCE_MIN: f64 = 0.150;

/// A path that has been silent for two round trips, and this, is sent one datagram each so often until
/// so long after: whoever waits for the timer of lost packets, which doubles, is late by seconds.
const KNOCK_AFTER_MIN: f64 = 0.100;
const KNOCK_EVERY: f64 = 0.050;
const KNOCK_UNTIL: f64 = 2.0;

/// A rate is looked at over this long at least.
const RATE_ROUND_MIN: f64 = 0.050;

/// How long a full link is known to carry what it did then: longer than until it is next looked at.
const FULL_SECONDS: f64 = 2.2 * BASE_SPAN;
/// How much later than the quickest packets those come that so many others were sent before, at once, says
/// what the link carries at least. No clock tells it better than this.
const BURST_PACKETS: f64 = 3.0;
const BURST_WAIT_MIN: f64 = 0.003;
/// That is believed as far as the window allows it in a round trip, of this or more, and up to so many
/// times what was carried: short bursts pass many a link that carries less in the long run.
const SHOWN_ROUND_MIN: f64 = 0.050;
const SHOWN_TIMES: f64 = 4.0;

#[derive(Clone, Debug)]
pub struct Keel {
    epoch: Instant,
    packet: f64,
    window: f64,
    /// What the window was before the last loss: up to there it grows fast. The most before that.
    known: f64,
    mode: Mode,
    step: f64,
    /// Shortest round trips.
    base: Base,
    smoothed: f64,
    /// Since nothing went without waiting.
    high: Option<High>,
    round: Round,
    /// What was delivered when the link was last full, however long ago.
    full_rate: f64,
    /// Rounds in a row with losses that count, and the share that is always lost.
    lossy_rounds: u32,
    lost_always: f64,
    /// Drains in a row that were in vain, and the window before the first of them.
    in_vain: u32,
    window_before: f64,
    shared_for: f64,
    rates: Rates,
    /// When the link was last full, and whether it still may be.
    full_at: f64,
    is_full: bool,
    /// What has been carried since, in rounds and in bursts, if there were such.
    carried: Rates,
    bursts: Option<Rates>,
    /// What is acknowledged of what was last sent at once.
    burst_bytes: f64,
    quickest: Quickest,
    /// What the acknowledgement at hand brings: bytes, and when the newest of them were sent.
    batch_bytes: f64,
    batch_sent: Instant,
    sent_bytes: f64,
    in_flight: f64,
    acked_at: f64,
    /// When the path is silent, if nothing is acknowledged before.
    silent_from: f64,
    /// When something was last sent.
    sent_at: Instant,
    /// When the last silence of the path was over. What was sent before has met it.
    silent_until: f64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Mode {
    Run,
    /// Since when, at what rate, from what queue, to what shortest round trip.
    Drain {
        since: f64,
        rate: f64,
        queue: f64,
        shortest: f64,
    },
    Shared {
        since: f64,
        shortest: f64,
        /// Something was lost meanwhile.
        loses: bool,
        /// The window shrank in the last round: what was lost before that shows in this one.
        has_shrunk: bool,
    },
}

#[derive(Clone, Copy, Debug)]
struct High {
    since: f64,
    acked: f64,
    sent_before: f64,
    shortest: f64,
    is_limited: bool,
}

/// From an acknowledgement to that of what was sent right after it.
#[derive(Clone, Copy, Debug)]
struct Round {
    since: f64,
    acked: f64,
    lost: f64,
    shortest: f64,
    /// The window was what held us up.
    is_limited: bool,
    /// Somebody has marked congestion.
    is_marked: bool,
}

impl Round {
    fn new(since: f64) -> Round {
        let shortest = f64::INFINITY;
        Round { since, acked: 0.0, lost: 0.0, shortest, is_limited: false, is_marked: false }
    }
}

impl Keel {
    /// All connections of a relay have one `epoch`, which is not later than `now`.
    pub fn new(epoch: Instant, now: Instant, packet_bytes: u16) -> Keel {
        let packet = f64::from(packet_bytes);
        let since = now.saturating_duration_since(epoch).as_secs_f64();
        Keel {
            epoch,
            packet,
            window: PACKETS_START * packet,
            known: WINDOW_MAX,
            mode: Mode::Run,
            step: STEP_MIN,
            base: Base::begin(since, f64::INFINITY, f64::INFINITY),
            smoothed: 0.0,
            high: None,
            round: Round::new(since),
            full_rate: f64::INFINITY,
            lossy_rounds: 0,
            lost_always: 0.0,
            in_vain: 0,
            window_before: 0.0,
            shared_for: SHARED_SECONDS,
            rates: Rates::default(),
            full_at: since,
            is_full: false,
            carried: Rates::default(),
            bursts: None,
            burst_bytes: 0.0,
            quickest: Quickest::begin(since),
            batch_bytes: 0.0,
            batch_sent: now,
            sent_bytes: 0.0,
            in_flight: 0.0,
            acked_at: since,
            silent_from: since + KNOCK_AFTER_MIN,
            sent_at: now,
            silent_until: -1.0,
        }
    }

    pub fn window(&self) -> u64 {
        self.window as u64
    }

    /// The window at a time: on a path that is silent it opens for a datagram now and then.
    pub fn window_at(&self, now: Instant) -> u64 {
        let seconds = self.seconds(now);
        if seconds <= self.silent_from || seconds - self.acked_at >= KNOCK_UNTIL {
            return self.window();
        }
        match seconds - self.seconds(self.sent_at) >= KNOCK_EVERY {
            true => self.window.max(self.in_flight + 2.0 * self.packet) as u64,
            false => self.window(),
        }
    }

    /// What the path has shown that it carries, in bits per second. Who needs little of it never fills it,
    /// but sends bursts. Before there is either, the window is believed.
    pub fn shown_bits(&self) -> u64 {
        let carried = self.carried.get();
        let held = self.window / self.base.get().max(SHOWN_ROUND_MIN);
        let bytes = match self.bursts {
            Some(_) if self.is_full && self.acked_at - self.full_at < FULL_SECONDS => {
                self.full_rate
            }
            Some(bursts) => bursts.get().min(held.max(SHOWN_TIMES * carried)).max(carried),
            None => held.max(carried),
        };
        (8.0 * bytes) as u64
    }

    pub fn initial_window(&self) -> u64 {
        (PACKETS_START * self.packet) as u64
    }

    pub fn set_packet_bytes(&mut self, bytes: u16) {
        self.packet = f64::from(bytes);
        self.window = self.window.max(self.least());
    }

    pub fn sent(&mut self, now: Instant, bytes: u64) {
        self.sent_bytes += bytes as f64;
        self.in_flight += bytes as f64;
        self.sent_at = now;
    }

    /// A packet is acknowledged. Those of one acknowledgement come in the order of sending.
    pub fn acked(&mut self, sent: Instant, bytes: u64) {
        if self.batch_sent != sent {
            self.burst_bytes = 0.0;
        }
        self.burst_bytes += bytes as f64;
        self.batch_bytes += bytes as f64;
        self.batch_sent = sent;
    }

    /// That was all of one acknowledgement, and so much is in flight without it.
    pub fn acked_all(&mut self, now: Instant, in_flight: u64, is_app_limited: bool) {
        if self.batch_bytes == 0.0 {
            return;
        }
        let bytes = std::mem::take(&mut self.batch_bytes);
        self.in_flight = in_flight as f64;
        let sent = self.seconds(self.batch_sent);
        let now = self.seconds(now);
        let rtt = now - sent;
        self.base.this = self.base.this.min(rtt);
        self.round.acked += bytes;
        self.round.shortest = self.round.shortest.min(rtt);
        let before = in_flight as f64 + bytes;
        let is_limited = !is_app_limited && before >= 0.8 * self.window - 2.0 * self.packet;
        self.round.is_limited |= is_limited;
        let mut wait = rtt - self.base.get();
        if now - self.acked_at > (3.0 * self.smoothed).max(SILENCE_MIN)
            && before > 4.0 * self.packet
        {
            self.silent_until = now;
            self.high = None;
            self.known = self.known.max(4.0 * self.window).min(WINDOW_MAX);
        }
        self.acked_at = now;
        self.smoothed =
            if self.smoothed == 0.0 { rtt } else { self.smoothed + 0.125 * (rtt - self.smoothed) };
        self.silent_from = now + (2.0 * self.smoothed).max(KNOCK_AFTER_MIN);
        // It has waited for the path to come back, not in a queue.
        if sent < self.silent_until {
            wait = 0.0;
        }
        self.note_burst(now, rtt);
        let has_waited = wait > self.wait_threshold();
        let is_round = sent >= self.round.since;
        if let Mode::Drain { since, rate, queue, shortest } = self.mode {
            let shortest = rtt.min(shortest);
            self.mode = Mode::Drain { since, rate, queue, shortest };
            if sent >= since {
                self.drained(now, rate, queue, shortest);
            }
            return;
        }
        if !has_waited {
            self.in_vain = 0;
        }
        match self.mode {
            Mode::Shared { .. } if !has_waited => {
                self.mode = Mode::Run;
                self.high = None;
                self.shared_for = SHARED_SECONDS;
            }
            Mode::Shared { since, ref mut shortest, loses, .. } => {
                *shortest = shortest.min(rtt);
                let lasts = if loses { SHARED_SECONDS_MAX } else { self.shared_for };
                if now - since > lasts {
                    // So long is the path now.
                    self.base = Base::begin(now, *shortest, *shortest);
                    self.mode = Mode::Run;
                    self.high = None;
                    self.shared_for = (2.0 * self.shared_for).min(SHARED_SECONDS_MAX);
                } else if is_limited {
                    self.widen(self.packet * bytes / self.window);
                }
            }
            _ if !has_waited => self.high = None,
            _ => self.waited(now, rtt, bytes, is_limited),
        }
        if self.mode == Mode::Run && is_limited {
            self.grow(rtt, wait, bytes);
        }
        if is_round && !self.is_draining() {
            self.end_round(now, wait);
        }
    }

    /// Losses were noticed, or congestion was marked where none are lost.
    pub fn lost(&mut self, bytes: u64, is_persistent: bool) {
        if bytes == 0 {
            self.round.is_marked = true;
            return;
        }
        self.in_flight = (self.in_flight - bytes as f64).max(0.0);
        self.round.lost += bytes as f64;
        if is_persistent && !self.is_draining() {
            let known = if self.known < WINDOW_MAX { self.known } else { 0.0 };
            self.known = self.window.max(known);
            self.window = self.window.min(PACKETS_START * self.packet);
            self.high = None;
            self.round.lost = 0.0;
        }
    }

    fn note_burst(&mut self, now: f64, rtt: f64) {
        let (quickest, bytes) = self.quickest.get();
        if rtt < quickest - BURST_WAIT_MIN && self.bursts.is_some() {
            // All have waited for longer than it seemed.
            self.bursts = Some(Rates::begin(now));
        }
        // A short packet may have come behind another one.
        let others = self.burst_bytes - bytes.max(self.packet);
        if others >= BURST_PACKETS * self.packet && quickest.is_finite() {
            let bursts = self.bursts.get_or_insert(Rates::begin(now));
            bursts.note(now, others / (rtt - quickest).max(BURST_WAIT_MIN));
        }
        self.quickest.note(now, rtt, self.burst_bytes);
    }

    fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.epoch).as_secs_f64()
    }

    fn least(&self) -> f64 {
        PACKETS_MIN * self.packet
    }

    fn slack(&self) -> f64 {
        PACKETS_SLACK * self.packet
    }

    fn wait_threshold(&self) -> f64 {
        (self.base.get() * WAIT_SHARE).clamp(WAIT_MIN, WAIT_MAX)
    }

    /// What remains of a wait that is more than a lack of acknowledgements explains.
    fn stands(&self, queue: f64, rate: f64) -> bool {
        queue > self.wait_threshold() + PACKETS_WAITING * self.packet / rate.max(1.0)
    }

    fn is_draining(&self) -> bool {
        matches!(self.mode, Mode::Drain { .. })
    }

    fn widen(&mut self, bytes: f64) {
        self.window = (self.window + bytes).min(WINDOW_MAX);
    }

    /// A few packets that are sent together wait for each other, and their acknowledgement for more of
    /// them: a window that holds no more grows if they wait for less than when the link was full.
    fn grow(&mut self, rtt: f64, wait: f64, bytes: f64) {
        let is_calm = wait < GROWS_BELOW * self.wait_threshold();
        if is_calm && self.window < self.known {
            self.widen(bytes);
        } else if is_calm || rtt * self.full_rate < EASED * self.window {
            self.widen(self.step * self.packet * bytes / self.window);
        }
    }

    fn waited(&mut self, now: f64, rtt: f64, bytes: f64, is_limited: bool) {
        let fresh = High {
            since: now,
            acked: 0.0,
            sent_before: self.sent_bytes,
            shortest: rtt,
            is_limited: false,
        };
        let Some(high) = &mut self.high else {
            self.high = Some(fresh);
            return;
        };
        high.acked += bytes;
        high.shortest = high.shortest.min(rtt);
        high.is_limited |= is_limited;
        let high = *high;
        let lasts = now - high.since;
        let base = self.base.get();
        if lasts < base.max(STANDS_AFTER) {
            return;
        }
        let (rate, queue) = (high.acked / lasts, high.shortest - base);
        if !self.stands(queue, rate) {
            self.high = Some(fresh);
        } else if high.is_limited {
            self.drain(now, rate, queue, true);
        } else if lasts >= (2.0 * base).max(STANDS_AFTER_UNLIMITED) {
            let sent = self.sent_bytes - high.sent_before;
            if sent > UNSERVED * high.acked + 2.0 * self.packet {
                self.drain(now, rate, queue, false);
            } else if lasts >= UNSERVED_WITHIN {
                // The queue is somebody else's, and we get what we need.
                self.high = Some(fresh);
            }
        }
    }

    fn drain(&mut self, now: f64, rate: f64, queue: f64, is_limited: bool) {
        (self.is_full, self.full_at, self.full_rate) = (true, now, rate);
        self.carried = Rates { this: rate, ..Rates::begin(now) };
        self.bursts = Some(Rates::begin(now));
        let base = self.base.get();
        if self.in_vain == 0 {
            let held = rate * (base + queue) + self.slack();
            self.window_before = if is_limited { self.window } else { self.window.min(held) };
        }
        self.window = (DRAIN * rate * base).max(self.least());
        self.known = self.window;
        self.step = STEP_MIN;
        self.mode = Mode::Drain { since: now, rate, queue, shortest: f64::INFINITY };
    }

    /// What was sent since draining began is acknowledged.
    fn drained(&mut self, now: f64, rate: f64, queue: f64, shortest: f64) {
        let left = shortest - self.base.get();
        if self.base.is_over(now) {
            let before = self.base.get();
            self.base.turn(now);
            // What was sent together, for it was acknowledged together, waits for itself: for no longer
            // than the path has shown that it takes.
            let rate = rate.max(self.rates.get());
            if self.base.last < before + PACKETS_WAITING * self.packet / rate.max(1.0) {
                self.base.last = self.base.last.min(before);
            }
        }
        let is_in_vain = self.stands(left, rate) && left > DRAINED_SHARE * queue;
        self.in_vain = if is_in_vain { self.in_vain + 1 } else { 0 };
        let window = if self.in_vain >= DRAINS_IN_VAIN {
            self.in_vain = 0;
            self.mode = Mode::Shared { since: now, shortest, loses: false, has_shrunk: false };
            self.window_before.max(self.rates.get() * shortest)
        } else {
            self.mode = Mode::Run;
            rate * self.base.get() + self.slack()
        };
        self.window = window.clamp(self.least(), WINDOW_MAX);
        self.known = self.window;
        self.high = None;
        self.round = Round::new(now);
    }

    fn end_round(&mut self, now: f64, wait: f64) {
        let round = std::mem::replace(&mut self.round, Round::new(now));
        let lasted = (now - round.since).max(1e-3);
        let rate = round.acked / lasted.max(RATE_ROUND_MIN);
        self.rates.note(now, rate);
        self.carried.note(now, rate);
        if !round.is_limited {
            self.is_full = false;
        }
        let all = round.acked + round.lost;
        let share = if round.lost == 0.0 { 0.0 } else { round.lost / all };
        let is_lossy = |share_min: f64| {
            round.is_limited && round.lost >= 2.0 * self.packet && share > share_min
        };
        let base = self.base.get();
        let queue = round.shortest - base;
        if let Mode::Shared { loses, has_shrunk, .. } = &mut self.mode {
            let share_min = SHARED_LOSS.max(2.0 * self.lost_always);
            *loses |= share > share_min;
            let shrinks = !*has_shrunk && (is_lossy(share_min) || round.is_marked);
            *has_shrunk = shrinks;
            if shrinks {
                self.window = (SHARED_BETA * self.window).max(self.least());
                self.known = self.window;
            }
            return;
        }
        if self.base.is_over(now) {
            if round.is_limited && self.base.this > self.base.last + BASE_RISE {
                // However much is left, that says nothing of others.
                return self.drain(now, round.acked / lasted, f64::INFINITY, true);
            }
            self.base.turn(now);
        }
        if round.is_marked {
            self.step = STEP_MIN;
            if round.is_limited {
                return self.drain(now, round.acked / lasted, queue, true);
            }
        }
        if all < LOSSY_ROUND_PACKETS * self.packet {
            return;
        }
        let has_queue = queue > LOSSY_WAIT_SHARE * self.wait_threshold();
        if has_queue && round.is_limited && round.lost > 0.0 {
            let held = round.acked / lasted * base + self.slack();
            let least = held.max(OVERFLOW_SHARE_MIN * self.window);
            let kept = (self.window - round.lost).max(least);
            if kept < self.window {
                self.window = kept;
                self.known = kept;
            }
            self.step = STEP_MIN;
        }
        let is_lossy = is_lossy(LOSS + 2.0 * self.lost_always);
        self.lost_always += LOSS_WEIGHT * (share.min(LOSS_ALWAYS_MAX) - self.lost_always);
        if !is_lossy {
            self.lossy_rounds = 0;
            if round.is_limited {
                self.step = match wait < GROWS_BELOW * self.wait_threshold() {
                    true => (2.0 * self.step).min(STEP_MAX),
                    false => STEP_MIN,
                };
            }
            return;
        }
        self.step = STEP_MIN;
        self.lossy_rounds += 1;
        if self.lossy_rounds < LOSSY_ROUNDS {
            return;
        }
        if has_queue {
            self.lossy_rounds = 0;
            return self.drain(now, round.acked / lasted, queue, true);
        }
        self.known = (LOSSY_BACK * self.window).max(self.least());
        let kept = (self.window - round.lost).max(round.acked + self.slack()).max(self.least());
        self.window = self.window.min(kept);
    }
}

#[cfg(test)]
mod tests {
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
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
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
}
