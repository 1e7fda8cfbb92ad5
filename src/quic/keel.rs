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
#[cfg(test)]
mod tests;

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
