//! The peer asks us to move elsewhere (spec §4.16): nothing new is asked of it, what it brings goes
//! on, and its own requests are served as before.

use super::streams::{StreamId, Streams};
use super::{Context, Effect, Session, Step, Stream, Use};
use crate::wire::{CONTROL_MESSAGE_BYTES_MAX, Goaway, StreamCode, split_message};

impl Session {
    pub(super) fn take_goaway<S: Streams>(
        &mut self,
        id: StreamId,
        stream: &mut Stream,
        cx: &mut Context<'_, S>,
    ) -> Step {
        let taken = split_message(&stream.buf, CONTROL_MESSAGE_BYTES_MAX);
        match taken.and_then(|taken| taken.map(|(body, _)| Goaway::decode(body)).transpose()) {
            Ok(None) => Step::Wait,
            // Where it would have us go is of no use: routes are found by their announcements.
            Ok(Some(_)) => {
                stream.buf.clear();
                stream.purpose = Use::Draining;
                self.finish(id, cx);
                self.is_leaving = true;
                self.unasked.clear();
                cx.effects.push(Effect::Leaving);
                self.refuse_unsent(cx);
                Step::Wait
            }
            Err(_) => {
                self.refuse(id, StreamCode::CANCEL, cx);
                Step::Forget
            }
        }
    }
}
