//! What clients ask and announce, and what is asked of them: all that happens before content flows and
//! when it ends.

use bytes::{Buf, Bytes, BytesMut};
use quinn_proto::StreamId;
use shardcast::limits::{
    ANNOUNCED_BYTES_PER_PEER_MAX, ANNOUNCEMENTS_PER_PEER_MAX, REQUEST_NAME_BYTES_MAX,
};
use shardcast::wire::{
    Announce, AnnounceOk, AnnounceRequest, BidiType, CONTROL_MESSAGE_BYTES_MAX, Path, Preferences,
    Role, SessionCode, Setup, StreamCode, Subscribe, decode_varint, encode_varint, split_message,
};

use super::{Input, Refusal, Server};
use crate::conn::End;
use crate::endpoint::ConnRef;
use crate::tracks::{Name, Track, Viewer};

/// What is asked of publishers.
pub const WANTED: Preferences = Preferences {
    priority: 0,
    max_age_ms: 10_000,
    group_start: None,
    group_end: None,
    frame_start: 0,
    frame_end: None,
};

impl Server {
    pub(super) fn introduced(&mut self, name: ConnRef, setup: &Setup) -> Result<(), Refusal> {
        let Some(peer) = self.peers[name.slot].as_mut() else { return Ok(()) };
        if setup.role == Role::Subscriber || std::mem::replace(&mut peer.is_asked, true) {
            return Ok(());
        }
        let mut request = Vec::new();
        encode_varint(BidiType::Announce as u64, &mut request);
        AnnounceRequest { prefix: Path::root(), exclude_hop: 0 }.encode(peer.version, &mut request);
        let Some(conn) = self.endpoint.touch(name) else { return Ok(()) };
        let Some((stream, output)) = conn.open_bidi() else {
            return Err(Refusal(SessionCode::INTERNAL, "no stream for our requests"));
        };
        conn.write(output, &mut [request.into()]);
        conn.expect_groups();
        peer.inputs.insert(stream, Input::Announcements { buf: BytesMut::new(), has_ok: false });
        Ok(())
    }

    pub(super) fn announcements(
        &mut self,
        name: ConnRef,
        mut buf: BytesMut,
        mut has_ok: bool,
    ) -> Result<Input, Refusal> {
        if !has_ok && let Some((_, used)) = AnnounceOk::take(&buf)? {
            buf.advance(used);
            has_ok = true;
        }
        while has_ok && let Some((announce, used)) = Announce::take(self.version(name), &buf)? {
            buf.advance(used);
            self.announced(name, announce)?;
        }
        Ok(Input::Announcements { buf, has_ok })
    }

    fn announced(&mut self, name: ConnRef, announce: Announce) -> Result<(), Refusal> {
        let Some(peer) = self.peers[name.slot].as_mut() else { return Ok(()) };
        let paths: Vec<Path> = match announce {
            Announce::Start { suffix, .. } => {
                peer.announced_bytes += suffix.as_str().len();
                if peer.announced.len() >= ANNOUNCEMENTS_PER_PEER_MAX
                    || peer.announced_bytes > ANNOUNCED_BYTES_PER_PEER_MAX
                {
                    return Err(Refusal(SessionCode::INTERNAL, "too many announcements"));
                }
                peer.announced.insert(peer.starts, suffix.clone());
                peer.starts += 1;
                // Of two publishers the last one counts: the other may be one that died silently.
                let before = self.broadcasts.insert(suffix.clone(), name);
                if let Some(before) = before.filter(|before| *before != name) {
                    self.end_tracks(before, &suffix);
                }
                return Ok(());
            }
            Announce::End { id } => peer.announced.remove(&id).into_iter().collect(),
            Announce::Ended { suffix } => {
                let ended = peer.announced.extract_if(|_, path| *path == suffix);
                ended.map(|(_, path)| path).collect()
            }
            // The same publisher still brings it.
            Announce::Restart { .. } | Announce::Restart05 { .. } | Announce::Unknown => {
                return Ok(());
            }
        };
        peer.announced_bytes -= paths.iter().map(|path| path.as_str().len()).sum::<usize>();
        for path in paths {
            self.withdraw(name, &path);
        }
        Ok(())
    }

    /// A stream on which the client asks for something.
    pub(super) fn request(
        &mut self,
        name: ConnRef,
        stream: StreamId,
        bytes: Bytes,
        is_over: bool,
    ) -> Result<Option<Input>, Refusal> {
        let body = match decode_varint(&bytes) {
            None => Ok(None),
            Some((kind, used)) if kind == BidiType::Subscribe as u64 => {
                split_message(&bytes[used..], CONTROL_MESSAGE_BYTES_MAX)
            }
            // What else a relay serves is not measured here.
            Some(_) => {
                self.decline(name, stream, StreamCode::CANCEL);
                return Ok(None);
            }
        };
        match body? {
            None if is_over => {
                self.decline(name, stream, StreamCode::CANCEL);
                Ok(None)
            }
            None => Ok(Some(Input::Head(BytesMut::from(&bytes[..])))),
            Some((body, _)) => {
                let request = Subscribe::decode(self.version(name), body)?;
                match self.subscribe(name, stream, request) {
                    Ok(track) if is_over => self.leave(track, name, stream),
                    Ok(track) => return Ok(Some(Input::Subscription(track))),
                    Err(code) => self.decline(name, stream, code),
                }
                Ok(None)
            }
        }
    }

    /// Enters a viewer; returns the track's number.
    fn subscribe(
        &mut self,
        name: ConnRef,
        stream: StreamId,
        request: Subscribe,
    ) -> Result<u64, StreamCode> {
        let Subscribe { id, broadcast, track, .. } = request;
        if broadcast.as_str().len() + track.len() > REQUEST_NAME_BYTES_MAX {
            return Err(StreamCode::NOT_FOUND);
        }
        let wanted = Name { broadcast, track };
        let number = match self.tracks.find(&wanted) {
            Some(number) => number,
            None => self.pull(wanted)?,
        };
        let version = self.version(name);
        let conn = self.endpoint.touch(name).ok_or(StreamCode::INTERNAL)?;
        let output = conn.adopt(stream);
        let track = self.tracks.get(number).expect("it was found or has just been made");
        track.add(Viewer { conn: name, version, id, stream, output, has_begun: false });
        Ok(number)
    }

    /// Subscribes to a track at its publisher.
    fn pull(&mut self, name: Name) -> Result<u64, StreamCode> {
        let publisher = *self.broadcasts.get(&name.broadcast).ok_or(StreamCode::UNROUTABLE)?;
        let id = self.tracks.next_id();
        let mut request = Vec::new();
        encode_varint(BidiType::Subscribe as u64, &mut request);
        Subscribe {
            id,
            broadcast: name.broadcast.clone(),
            track: name.track.clone(),
            preferences: WANTED,
        }
        .encode(self.version(publisher), &mut request);
        let conn = self.endpoint.touch(publisher).ok_or(StreamCode::UNROUTABLE)?;
        // A viewer that is refused comes again.
        let (stream, output) = conn.open_bidi().ok_or(StreamCode::INTERNAL)?;
        conn.write(output, &mut [request.into()]);
        self.tracks.insert(Track::new(name, publisher, output));
        let peer = self.peers[publisher.slot].as_mut().expect("a broadcast goes with its peer");
        peer.inputs.insert(stream, Input::Answers(id));
        Ok(id)
    }

    pub(super) fn leave(&mut self, track: u64, name: ConnRef, stream: StreamId) {
        let (viewer, track) = self.tracks.leave(track, name, stream);
        if let Some(viewer) = viewer
            && let Some(conn) = self.endpoint.touch(name)
        {
            conn.end(viewer.output, End::Finish);
        }
        if let Some(track) = track {
            self.unsubscribe(&track);
        }
    }

    /// A publisher brings a track no longer.
    pub(super) fn track_over(&mut self, track: u64) {
        let Some(track) = self.tracks.remove(track) else { return };
        self.unsubscribe(&track);
        for viewer in track.into_viewers() {
            if let Some(conn) = self.endpoint.touch(viewer.conn) {
                conn.end(viewer.output, End::Finish);
            }
        }
    }

    fn unsubscribe(&mut self, track: &Track) {
        if let Some(conn) = self.endpoint.touch(track.publisher) {
            conn.end(track.output, End::Finish);
        }
    }
}
