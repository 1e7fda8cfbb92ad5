//! Congestion control: cubic, and a way around it for a connection's last word.
//!
//! To quinn-proto a CONNECTION_CLOSE that data waits in front of is itself data. A client that has
//! fallen behind would never hear why it is sent away, and wait until it times out.

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{
    Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig,
};

/// Wide enough that nothing is paced either.
const NO_LIMIT: u64 = u64::MAX;

thread_local! {
    /// A controller is out of reach within its connection, but asked in the course of a call.
    static YIELDS: Cell<bool> = const { Cell::new(false) };
}

/// Lets a connection send what it likes in the course of this call, if it `is_closing`.
pub fn yielding<T>(is_closing: bool, send: impl FnOnce() -> T) -> T {
    YIELDS.set(is_closing);
    let sent = send();
    YIELDS.set(false);
    sent
}

#[derive(Debug, Default)]
pub struct Congestion {
    cubic: Arc<CubicConfig>,
}

impl ControllerFactory for Congestion {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Yielding(Cubic::new(self.cubic.clone(), now, current_mtu)))
    }
}

#[derive(Clone)]
struct Yielding(Cubic);

impl Controller for Yielding {
    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.0.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.0.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.0.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        match YIELDS.get() {
            true => NO_LIMIT,
            false => self.0.window(),
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.0.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.0.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
