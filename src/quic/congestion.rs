//! Congestion control: cubic or Keel, and a way around either for a connection's last word.
//!
//! To quinn-proto a CONNECTION_CLOSE that data waits in front of is itself data. A client that has
//! fallen behind would never hear why it is sent away, and wait until it times out.

use std::any::Any;
use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{
    Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig,
};

use super::keel::Keel;

/// Wide enough that nothing is paced either.
const NO_LIMIT: u64 = u64::MAX;

thread_local! {
    /// A controller is out of reach within its connection, but asked in the course of a call: when
    /// that is, and whether the connection is closing.
    static ASKED: Cell<Option<(Instant, bool)>> = const { Cell::new(None) };
    /// What it has said in the course of that call: the bytes that may leave before something is
    /// acknowledged. None where it was not asked, because there was nothing to send.
    static ROOM: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Lets a connection send what it likes in the course of this call, if it `is_closing`.
pub fn yielding<T>(now: Instant, is_closing: bool, send: impl FnOnce() -> T) -> T {
    ASKED.set(Some((now, is_closing)));
    ROOM.set(None);
    let sent = send();
    ASKED.set(None);
    sent
}

/// How many bytes may leave still after that call, if there are some that would.
pub fn room() -> Option<u64> {
    ROOM.get()
}

/// What a connection takes for a sign that its path is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CongestionControl {
    /// Lost packets: cubic (RFC 9438).
    Loss,
    /// Packets that all have to wait: [`Keel`].
    #[default]
    Delay,
}

impl CongestionControl {
    pub const ALL: [CongestionControl; 2] = [CongestionControl::Loss, CongestionControl::Delay];

    /// As operators write it.
    pub fn name(self) -> &'static str {
        match self {
            CongestionControl::Loss => "loss",
            CongestionControl::Delay => "delay",
        }
    }

    pub fn controllers(self) -> Controllers {
        Arc::new(Congestion { control: self, ..Congestion::default() })
    }
}

/// What makes the controllers of connections.
pub type Controllers = Arc<dyn ControllerFactory + Send + Sync>;

#[derive(Debug, Default)]
struct Congestion {
    control: CongestionControl,
    cubic: Arc<CubicConfig>,
    /// When the first connection began.
    epoch: OnceLock<Instant>,
}

impl ControllerFactory for Congestion {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        match self.control {
            CongestionControl::Loss => {
                Box::new(Yielding::new(Cubic::new(self.cubic.clone(), now, current_mtu)))
            }
            CongestionControl::Delay => {
                let epoch = *self.epoch.get_or_init(|| now);
                Box::new(Yielding::new(Keel::new(epoch, now, current_mtu)))
            }
        }
    }
}

impl Controller for Keel {
    fn on_sent(&mut self, now: Instant, bytes: u64, _: u64) {
        self.sent(now, bytes);
    }

    fn on_ack(&mut self, _: Instant, sent: Instant, bytes: u64, _: bool, _: &RttEstimator) {
        self.acked(sent, bytes);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, is_app_limited: bool, _: Option<u64>) {
        self.acked_all(now, in_flight, is_app_limited);
    }

    fn on_congestion_event(&mut self, _: Instant, _: Instant, is_persistent: bool, bytes: u64) {
        self.lost(bytes, is_persistent);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.set_packet_bytes(new_mtu);
    }

    fn window(&self) -> u64 {
        match ASKED.get() {
            Some((now, _)) => self.window_at(now),
            None => self.window(),
        }
    }

    /// The rate is what peers are told: nobody paces by it.
    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window();
        metrics.pacing_rate = Some(self.shown_bits());
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[derive(Clone)]
struct Yielding<C> {
    inner: C,
    /// Bytes that are on their way.
    in_flight: u64,
}

impl<C> Yielding<C> {
    fn new(inner: C) -> Yielding<C> {
        Yielding { inner, in_flight: 0 }
    }
}

impl<C: Controller + Clone + 'static> Controller for Yielding<C> {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.in_flight += bytes;
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.in_flight = in_flight;
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.in_flight = self.in_flight.saturating_sub(lost_bytes);
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        match ASKED.get() {
            Some((_, true)) => NO_LIMIT,
            Some((_, false)) => {
                let window = self.inner.window();
                ROOM.set(Some(window.saturating_sub(self.in_flight)));
                window
            }
            None => self.inner.window(),
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes which of its functions were called.
    #[derive(Clone, Default)]
    struct Witness {
        seen: Vec<&'static str>,
    }

    impl Controller for Witness {
        fn on_sent(&mut self, _: Instant, _: u64, _: u64) {
            self.seen.push("sent");
        }

        fn on_ack(&mut self, _: Instant, _: Instant, _: u64, _: bool, _: &RttEstimator) {
            self.seen.push("ack");
        }

        fn on_end_acks(&mut self, _: Instant, _: u64, _: bool, _: Option<u64>) {
            self.seen.push("end of acks");
        }

        fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, _: u64) {
            self.seen.push("congestion");
        }

        fn on_mtu_update(&mut self, _: u16) {
            self.seen.push("mtu");
        }

        fn window(&self) -> u64 {
            7
        }

        fn clone_box(&self) -> Box<dyn Controller> {
            Box::new(self.clone())
        }

        fn initial_window(&self) -> u64 {
            9
        }

        fn into_any(self: Box<Self>) -> Box<dyn Any> {
            self
        }
    }

    /// A controller that is not told of what was sent, or of the end of acknowledgements, never
    /// changes its window. (Of an acknowledgement only a connection can tell: nobody else can make
    /// an estimate of the round trip.)
    #[test]
    fn controllers_hear_of_everything() {
        let now = Instant::now();
        let mut yielding = Yielding::new(Witness::default());
        yielding.on_sent(now, 1, 2);
        yielding.on_end_acks(now, 3, false, None);
        yielding.on_congestion_event(now, now, false, 0);
        yielding.on_mtu_update(1400);
        assert_eq!(yielding.inner.seen, ["sent", "end of acks", "congestion", "mtu"]);
        assert_eq!((yielding.window(), yielding.initial_window()), (7, 9));
        assert_eq!((super::yielding(now, true, || yielding.window()), room()), (NO_LIMIT, None));
        assert_eq!((super::yielding(now, false, || yielding.window()), room()), (7, Some(4)));
        assert_eq!((super::yielding(now, false, || 0), room()), (0, None));
        assert_eq!(yielding.window(), 7);
    }
}
