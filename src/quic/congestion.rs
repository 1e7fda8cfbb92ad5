//! Congestion control: cubic, and a way around it for a connection's last word.
//!
//! To quinn-proto a CONNECTION_CLOSE that data waits in front of is itself data. A client that has
//! fallen behind would never hear why it is sent away, and wait until it times out.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn_proto::congestion::{
    Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig,
};
use quinn_proto::{Connection, RttEstimator};

/// Wide enough that nothing is paced either.
const NO_LIMIT: u64 = u64::MAX;

#[derive(Debug, Default)]
pub struct Congestion {
    cubic: Arc<CubicConfig>,
}

impl ControllerFactory for Congestion {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let cubic = Cubic::new(self.cubic.clone(), now, current_mtu);
        Box::new(Yielding { cubic, yields: Arc::default() })
    }
}

/// From now on nothing holds back what this connection sends, which is little: it is to be closed.
pub fn yield_to_last_word(connection: &Connection) {
    let copy = connection.congestion_state().clone_box().into_any();
    if let Ok(controller) = copy.downcast::<Yielding>() {
        controller.yields.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct Yielding {
    cubic: Cubic,
    /// Shared by all copies, because a connection hands out nothing else.
    yields: Arc<AtomicBool>,
}

impl Controller for Yielding {
    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        match self.yields.load(Ordering::Relaxed) {
            true => NO_LIMIT,
            false => self.cubic.window(),
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
