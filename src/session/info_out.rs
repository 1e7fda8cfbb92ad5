//! Answering the peer's questions what a track is like (spec §4.12).

use super::counts::Class;
use super::streams::{StreamId, Streams};
use super::{Context, Effect, Session, Use};
use crate::wire::{StreamCode, TrackInfo, TrackRequest};

impl Session {
    pub(super) fn info_requested<S: Streams>(
        &mut self,
        id: StreamId,
        request: TrackRequest,
        cx: &mut Context<'_, S>,
    ) -> Result<Use, StreamCode> {
        let broadcast = self.absolute(&request.broadcast, &request.track, cx)?;
        let track = request.track.into();
        cx.effects.push(Effect::InfoWanted { key: id, broadcast, track });
        Ok(Use::InfoRequest)
    }

    /// Answers a TRACK request.
    pub fn answer_info<S: Streams>(
        &mut self,
        key: StreamId,
        answer: Result<TrackInfo, StreamCode>,
        cx: &mut Context<'_, S>,
    ) {
        match self.inputs.get_mut(&key) {
            Some(stream) if matches!(stream.purpose, Use::InfoRequest) => {
                stream.purpose = Use::Draining;
            }
            _ => return,
        }
        match answer {
            Ok(info) => {
                let mut bytes = Vec::new();
                info.encode(self.version, &mut bytes);
                self.send(Class::TrackInfo, key, &bytes, true, cx);
            }
            Err(code) => {
                self.forget_input(key);
                self.refuse(key, code, cx);
            }
        }
    }
}
