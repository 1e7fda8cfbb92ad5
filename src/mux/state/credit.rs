//! What each side allows the other: streams, and with what a connection begins.

use rustc_hash::FxHashSet;

use crate::limits::{
    MUX_IDLE_TIMEOUT, RECEIVE_WINDOW_START, STREAM_WINDOW_BYTES, STREAMS_BIDI_START, STREAMS_MAX,
    STREAMS_UNI_START,
};
use crate::mux::Violation;
use crate::mux::frame::{Parameters, Wire};

/// Streams that the peer opens, of one kind.
#[derive(Debug)]
pub(super) struct Incoming {
    /// The first index that no stream has implied yet.
    end: u64,
    /// Those below that have not been seen: opening one opens all below.
    unseen: FxHashSet<u64>,
    pub(super) over: u64,
    /// Streams that it may have open, as it is and as it should be.
    pub(super) credit: u64,
    pub(super) wanted: u64,
    /// Streams that it may open in all, as it was told or is about to be.
    pub(super) max: u64,
    pub(super) owes_max: bool,
}

impl Incoming {
    pub(super) fn new(credit: u64) -> Incoming {
        Incoming {
            end: 0,
            unseen: FxHashSet::default(),
            over: 0,
            credit,
            wanted: credit,
            max: credit,
            owes_max: false,
        }
    }

    /// Whether a frame for a stream of this index opens it.
    pub(super) fn opens(&mut self, index: u64) -> Result<bool, Violation> {
        if index < self.end {
            return Ok(self.unseen.remove(&index));
        }
        if index >= self.max {
            return Err(Violation::protocol("stream limit exceeded"));
        }
        self.unseen.extend(self.end..index);
        self.end = index + 1;
        Ok(true)
    }

    /// Doubles what the peer may have open once half of it is.
    pub(super) fn raise(&mut self) {
        if self.credit < STREAMS_MAX && (self.end - self.over) * 2 >= self.credit {
            self.wanted = self.wanted.max((self.credit * 2).min(STREAMS_MAX));
        }
    }

    /// Lets the peer open more, once that is enough to be told.
    pub(super) fn replenish(&mut self) {
        let max = self.over + self.credit;
        if max - self.max >= (self.credit / 4).max(1) {
            self.max = max;
            self.owes_max = true;
        }
    }
}

/// Streams that we open, of one kind.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) next: u64,
    pub(super) max: u64,
    /// There was no credit for one; the session is to hear when there is.
    pub(super) is_refused: bool,
}

/// What we allow every peer when it begins.
pub(super) fn our_parameters(wire: Wire) -> Parameters {
    let stream = STREAM_WINDOW_BYTES.into();
    let parameters = Parameters {
        max_data: RECEIVE_WINDOW_START.into(),
        max_stream_data_bidi_local: stream,
        max_stream_data_bidi_remote: stream,
        max_stream_data_uni: stream,
        max_streams_bidi: STREAMS_BIDI_START,
        max_streams_uni: STREAMS_UNI_START,
        ..Parameters::default()
    };
    match wire.has_records() {
        true => Parameters {
            max_idle_timeout: MUX_IDLE_TIMEOUT.as_millis() as u64,
            max_datagram_frame_size: parameters.max_record_size,
            ..parameters
        },
        // Draft 00 has no records, and so no size of them.
        false => Parameters { max_record_size: 0, ..parameters },
    }
}
