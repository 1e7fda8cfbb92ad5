//! What is looked for in a span of time and the one before, so that it is forgotten when it has been long ago.

/// How long the shortest round trip is looked for. All connections begin such spans together.
pub(super) const BASE_SPAN: f64 = 5.0;
/// The same of the highest rate.
const RATE_SPAN: f64 = 5.0;

/// The smallest of this span and the last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    pub last: f64,
    pub this: f64,
    ends: f64,
}

impl Base {
    /// A span that begins now and ends when those of all others do.
    pub fn begin(now: f64, last: f64, this: f64) -> Base {
        Base { last, this, ends: ((now / BASE_SPAN).floor() + 1.0) * BASE_SPAN }
    }

    pub fn is_over(&self, now: f64) -> bool {
        now >= self.ends
    }

    pub fn turn(&mut self, now: f64) {
        *self = Base::begin(now, self.this, f64::INFINITY);
    }

    pub fn get(&self) -> f64 {
        self.last.min(self.this)
    }
}

/// The largest of this span and the last, in bytes per second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    pub last: f64,
    pub this: f64,
    pub since: f64,
}

impl Rates {
    pub fn begin(since: f64) -> Rates {
        Rates { last: 0.0, this: 0.0, since }
    }

    pub fn note(&mut self, now: f64, rate: f64) {
        if now - self.since > RATE_SPAN {
            *self = Rates { last: self.this, this: 0.0, since: now };
        }
        self.this = self.this.max(rate);
    }

    pub fn get(&self) -> f64 {
        self.last.max(self.this)
    }
}

/// The shortest round trip of this span and the last, and what was sent at once up to there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quickest {
    last: (f64, f64),
    this: (f64, f64),
    since: f64,
}

const NEVER: (f64, f64) = (f64::INFINITY, 0.0);

impl Quickest {
    pub fn begin(since: f64) -> Quickest {
        Quickest { last: NEVER, this: NEVER, since }
    }

    pub fn note(&mut self, now: f64, rtt: f64, bytes: f64) {
        if now - self.since > RATE_SPAN {
            *self = Quickest { last: self.this, this: NEVER, since: now };
        }
        if rtt < self.this.0 {
            self.this = (rtt, bytes);
        }
    }

    pub fn get(&self) -> (f64, f64) {
        if self.last.0 < self.this.0 { self.last } else { self.this }
    }
}
