//! A download beside, through the same bottleneck.

use std::time::{Duration, Instant};

/// A download beside: somebody else's packets, as many at once as CUBIC (RFC 9438) has them, for ever.
#[derive(Debug)]
pub struct Bulk {
    pub link: usize,
    /// From the link to the one who downloads, and back to the server.
    pub latency: Duration,
    pub delivered: Vec<(Instant, usize)>,
    window: f64,
    threshold: f64,
    /// The window before the last loss, and when that was.
    peak: f64,
    lost_at: Option<Instant>,
    in_flight: u32,
}

/// What it hears of one of its packets.
#[derive(Debug)]
pub struct Heard {
    pub sent: Instant,
    pub is_lost: bool,
}

impl Bulk {
    pub const PACKET_BYTES: usize = 1452;
    const WINDOW_START: f64 = 10.0;
    const WINDOW_MIN: f64 = 2.0;
    const BETA: f64 = 0.7;
    const C: f64 = 0.4;

    pub fn new(link: usize, latency: Duration) -> Bulk {
        Bulk {
            link,
            latency,
            delivered: Vec::new(),
            window: Bulk::WINDOW_START,
            threshold: f64::INFINITY,
            peak: 0.0,
            lost_at: None,
            in_flight: 0,
        }
    }

    /// Whether it may send a packet, which it then has.
    pub fn sends(&mut self) -> bool {
        let sends = f64::from(self.in_flight) < self.window;
        self.in_flight += u32::from(sends);
        sends
    }

    pub fn hear(&mut self, now: Instant, heard: Heard) {
        self.in_flight -= 1;
        if !heard.is_lost {
            self.delivered.push((now, Bulk::PACKET_BYTES));
            self.grow(now, now - heard.sent);
        } else if self.lost_at.is_none_or(|lost_at| heard.sent > lost_at) {
            // What falls again before it is back where it was makes room (RFC 9438 §4.7).
            let shrinks = self.window < self.peak;
            self.peak = self.window * if shrinks { (1.0 + Bulk::BETA) / 2.0 } else { 1.0 };
            self.window = (self.window * Bulk::BETA).max(Bulk::WINDOW_MIN);
            self.threshold = self.window;
            self.lost_at = Some(now);
        }
    }

    fn grow(&mut self, now: Instant, rtt: Duration) {
        let Some(lost_at) = self.lost_at.filter(|_| self.window >= self.threshold) else {
            self.window += 1.0;
            return;
        };
        let (since, rtt) = ((now - lost_at).as_secs_f64(), rtt.as_secs_f64());
        let back = (self.peak * (1.0 - Bulk::BETA) / Bulk::C).cbrt();
        let cubic = Bulk::C * (since + rtt - back).powi(3) + self.peak;
        let alpha = 3.0 * (1.0 - Bulk::BETA) / (1.0 + Bulk::BETA);
        let reno = self.peak * Bulk::BETA + alpha * since / rtt;
        let target = cubic.max(reno).min(1.5 * self.window);
        self.window += ((target - self.window) / self.window).max(0.01 / self.window);
    }
}
