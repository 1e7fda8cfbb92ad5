//! Streams of a peer: what is on them, and what becomes of its bytes.

use std::collections::{BTreeSet, VecDeque};

use bytes::{Buf, Bytes, BytesMut};
use quinn_proto::Dir;
use shardcast::wire::*;

use super::conn::Written;
use super::serving::Asked;
use super::{End, Peer};

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Use {
    /// By WebTransport: it is not known yet what for; SETTINGS; the session itself.
    Head,
    Control,
    Session,
    UniNew,
    RelaySetup,
    SessionStream,
    Group {
        subscription: usize,
        sequence: u64,
    },
    Ignored,
    BidiNew,
    AnnounceServed,
    TrackAsked,
    FetchAsked,
    Upstream,
    Listen(usize),
    Info(usize),
    Answers(usize),
    Fetch(usize),
    Raw,
}

#[derive(Debug)]
pub(super) struct Input {
    pub(super) purpose: Use,
    pub(super) buf: BytesMut,
}

#[derive(Debug, Default)]
pub(super) struct Output {
    chunks: VecDeque<Bytes>,
    fin: bool,
}

impl Peer {
    pub(super) fn accept(&mut self, readable: &mut BTreeSet<u64>) {
        for (dir, purpose) in [(Dir::Uni, Use::UniNew), (Dir::Bi, Use::BidiNew)] {
            while let Some(id) = self.conn.accept(dir) {
                let purpose = if self.web.is_some() { Use::Head } else { purpose };
                self.inputs.insert(id, Input { purpose, buf: BytesMut::new() });
                readable.insert(id);
            }
        }
    }

    pub(super) fn read_all(&mut self, mut readable: BTreeSet<u64>) {
        if self.reads_groups {
            readable.append(&mut self.unread);
        }
        // Groups first: what a FIN on a control stream says of them can be judged only then.
        let is_uni = |id: &u64| id & 2 != 0;
        let (uni, bidi): (Vec<u64>, Vec<u64>) = readable.into_iter().partition(is_uni);
        for id in uni.into_iter().chain(bidi) {
            if self.reads_groups || !self.is_content(id) {
                self.read(id);
            } else {
                self.unread.insert(id);
            }
        }
    }

    fn is_content(&self, id: u64) -> bool {
        // The relay's SETTINGS and SETUP are its first streams, and no content.
        let ahead = u64::from(self.web.is_some()) + u64::from(self.version >= Version::Lite05);
        let is_setup = id / 4 < ahead;
        let is_fetch =
            self.inputs.get(&id).is_some_and(|input| matches!(input.purpose, Use::Fetch(_)));
        is_fetch || (id & 2 != 0 && !is_setup)
    }

    fn read(&mut self, id: u64) {
        let Some(mut input) = self.inputs.remove(&id) else { return };
        let Some(end) = self.conn.read(id, &mut input.buf) else { return };
        let end = end.map(|end| match end {
            End::Finished => End::Finished,
            End::Reset(with) => End::Reset(self.meant(id, with)),
        });
        while self.step(id, &mut input, end) {}
        match end {
            None => drop(self.inputs.insert(id, input)),
            Some(end) => self.input_ended(id, input, end),
        }
    }

    pub(super) fn open(&mut self, dir: Dir, purpose: Use) -> u64 {
        let id = self.try_open(dir).expect("the relay grants a stream");
        if dir == Dir::Bi {
            self.inputs.insert(id, Input { purpose, buf: BytesMut::new() });
        }
        id
    }

    /// A stream of the session, if the relay grants one.
    pub(super) fn try_open(&mut self, dir: Dir) -> Option<u64> {
        let id = self.open_plain(dir)?;
        if let Some(prefix) = self.stream_prefix(dir) {
            self.send(id, &prefix, false);
        }
        Some(id)
    }

    pub(super) fn send(&mut self, id: u64, bytes: &[u8], fin: bool) {
        self.is_dirty = true;
        let output = self.outputs.entry(id).or_default();
        if !bytes.is_empty() {
            output.chunks.push_back(Bytes::copy_from_slice(bytes));
        }
        output.fin |= fin;
        self.flush(id);
    }

    pub(super) fn flush(&mut self, id: u64) {
        let Some(output) = self.outputs.get_mut(&id) else { return };
        while let Some(chunk) = output.chunks.front_mut() {
            match self.conn.write(id, chunk) {
                Written::Taken(taken) if taken == chunk.len() => drop(output.chunks.pop_front()),
                Written::Taken(taken) => chunk.advance(taken),
                Written::Blocked => return,
                Written::Gone => {
                    self.outputs.remove(&id);
                    return;
                }
            }
        }
        if output.fin {
            self.conn.finish(id);
            self.outputs.remove(&id);
        }
    }

    pub(super) fn reset(&mut self, id: u64, with: u64) {
        self.outputs.remove(&id);
        let with = self.sent(with);
        self.conn.reset(id, with);
    }

    pub(super) fn stop(&mut self, id: u64, with: u64) {
        let with = self.sent(with);
        self.conn.stop(id, with);
    }

    pub(super) fn refuse(&mut self, id: u64, with: u64) {
        self.reset(id, with);
        self.stop(id, with);
    }

    /// Takes one message; true if there may be another.
    fn step(&mut self, id: u64, input: &mut Input, end: Option<End>) -> bool {
        match input.purpose {
            Use::Head => self.take_head(id, input),
            Use::Control => self.take_control(&mut input.buf),
            Use::Session => self.take_session(&mut input.buf),
            Use::UniNew => self.take_uni(id, input),
            Use::RelaySetup => self.take_relay_setup(input),
            Use::SessionStream => self.take_server_setup(&mut input.buf),
            Use::Group { subscription, sequence } => {
                self.take_frames(subscription, sequence, &mut input.buf);
                false
            }
            Use::BidiNew => self.take_request(id, input),
            Use::Upstream => self.take_update(id, &mut input.buf),
            Use::Listen(index) => self.take_announcement(index, &mut input.buf),
            Use::Info(index) => self.take_info(id, index, &mut input.buf, end),
            Use::Answers(index) => self.take_answer(index, &mut input.buf),
            Use::Fetch(index) => {
                let known = &mut self.fetches[index];
                known.is_touched = true;
                known.seen.take_frames(self.version, self.now, &mut input.buf);
                false
            }
            Use::Raw => {
                if let Some(raw) = self.raws.get_mut(&id) {
                    raw.received.extend_from_slice(&input.buf);
                }
                input.buf.clear();
                false
            }
            Use::AnnounceServed | Use::TrackAsked | Use::FetchAsked => {
                if !input.buf.is_empty() {
                    self.fault(format!("bytes after the request on stream {id}"));
                    input.buf.clear();
                }
                false
            }
            Use::Ignored => {
                input.buf.clear();
                false
            }
        }
    }

    fn take_uni(&mut self, id: u64, input: &mut Input) -> bool {
        let Some((kind, used)) = decode_varint(&input.buf) else { return false };
        match UniType::from_u64(kind) {
            Some(UniType::Setup) if self.version >= Version::Lite05 => {
                if self.relay_setup.is_some() {
                    self.fault("a second SETUP".to_owned());
                }
                input.buf.advance(used);
                input.purpose = Use::RelaySetup;
                true
            }
            Some(UniType::Group) => {
                let header = match GroupHeader::take(self.version, &input.buf[used..]) {
                    Ok(Some((header, more))) => {
                        input.buf.advance(used + more);
                        header
                    }
                    Ok(None) => return false,
                    Err(error) => {
                        self.fault(format!("group header: {error}"));
                        return false;
                    }
                };
                input.purpose = self.group_began(id, header);
                true
            }
            _ => {
                self.fault(format!("unidirectional stream of type {kind}"));
                input.purpose = Use::Ignored;
                true
            }
        }
    }

    fn take_request(&mut self, id: u64, input: &mut Input) -> bool {
        let Some((kind, head)) = decode_varint(&input.buf) else { return false };
        let kind = BidiType::from_u64(kind).filter(|kind| kind.supported(self.version));
        let taken = split_message(&input.buf[head..], CONTROL_MESSAGE_BYTES_MAX);
        let (body, used) = match taken {
            Ok(Some((body, used))) => (Bytes::copy_from_slice(body), head + used),
            Ok(None) => return false,
            Err(error) => {
                self.fault(format!("request: {error}"));
                return false;
            }
        };
        input.buf.advance(used);
        let purpose = match kind {
            Some(BidiType::Announce) => self.announce_asked(id, &body),
            Some(BidiType::Track) => self.track_asked(id, &body),
            Some(BidiType::Subscribe) => self.subscribe_asked(id, &body),
            Some(BidiType::Fetch) => self.fetch_asked(id, &body),
            kind => Err(format!("request {kind:?}")),
        };
        match purpose {
            Ok(purpose) => input.purpose = purpose,
            Err(what) => {
                self.fault(what);
                input.purpose = Use::Ignored;
            }
        }
        true
    }

    fn input_ended(&mut self, id: u64, input: Input, end: End) {
        let is_clean = input.buf.is_empty();
        match input.purpose {
            Use::Control => self.critical_ended("the control stream"),
            Use::Session => self.critical_ended("the session's stream"),
            Use::UniNew | Use::Head if end == End::Finished => {
                self.fault(format!("stream {id} ended before its header"));
            }
            Use::RelaySetup => self.fault("SETUP cut short".to_owned()),
            Use::Group { subscription, sequence } => {
                self.log.push(format!("GROUP {subscription} {sequence} {end:?}"));
                if end == End::Finished && !is_clean {
                    self.fault(format!("FIN within a frame of group {sequence}"));
                }
                let known = &mut self.subscriptions[subscription];
                known.touched.insert(sequence);
                if let Some(seen) = known.groups.get_mut(&sequence) {
                    (seen.end, seen.ended_at) = (Some(end), Some(self.now));
                }
            }
            Use::Upstream => {
                self.log.push(format!("UNSUBSCRIBE {end:?}"));
                let Some(upstream) = self.upstreams.remove(&id) else { return };
                self.told(Asked::Unsubscribe);
                for group in upstream.groups.values().filter(|group| !group.is_closed) {
                    if let Some(stream) = group.stream {
                        self.reset(stream, StreamCode::CANCEL.0);
                    }
                }
                if !upstream.fin_sent {
                    self.send(id, &[], true);
                }
            }
            Use::AnnounceServed => drop(self.feeds.remove(&id)),
            Use::Listen(index) => {
                self.log.push(format!("announce stream {index} {end:?}"));
                self.listens[index].end = Some(end);
            }
            Use::Info(index) => {
                if let End::Reset(with) = end {
                    self.log.push(format!("TRACK {index} refused {with}"));
                    self.infos[index].answer.get_or_insert(Err(with));
                }
            }
            Use::Answers(index) => {
                self.log.push(format!("subscription {index} {end:?}"));
                let known = &mut self.subscriptions[index];
                known.end = Some(end);
                known.has_ended = true;
                let has_left = known.has_left;
                known.touched.extend(known.groups.keys().copied());
                let open: Vec<u64> =
                    known.groups.iter().filter(|(_, g)| g.end.is_none()).map(|(s, _)| *s).collect();
                let lacks_end = self.version >= Version::Lite05 && known.track_end.is_none();
                if end == End::Finished && !has_left {
                    if !open.is_empty() && self.reads_groups {
                        self.fault(format!(
                            "FIN of subscription {index} with groups {open:?} open"
                        ));
                    }
                    if lacks_end {
                        self.fault(format!("FIN of subscription {index} without END"));
                    }
                }
                // Answered, or the relay would hold the stream for ever.
                if !has_left {
                    self.send(id, &[], true);
                }
            }
            Use::FetchAsked => self.fetch_ended(id, end),
            Use::Fetch(index) => {
                self.log.push(format!("fetch {index} {end:?}"));
                if end == End::Finished && !is_clean {
                    self.fault(format!("FIN within a frame of fetch {index}"));
                }
                let known = &mut self.fetches[index];
                known.is_touched = true;
                (known.seen.end, known.seen.ended_at) = (Some(end), Some(self.now));
                // The released clients differ in how they say that they are done.
                match self.version {
                    Version::Lite06 => self.reset(id, StreamCode::CANCEL.0),
                    _ => self.send(id, &[], true),
                }
            }
            Use::Raw => {
                if let Some(raw) = self.raws.get_mut(&id) {
                    raw.end = Some(end);
                }
            }
            Use::SessionStream => self.fault(format!("the session stream ended: {end:?}")),
            Use::Head | Use::UniNew | Use::BidiNew | Use::TrackAsked | Use::Ignored => {}
        }
    }

    pub(super) fn stopped(&mut self, id: u64, with: u64) {
        self.log.push(format!("stream {id} stopped {with}"));
        if let Some(raw) = self.raws.get_mut(&id) {
            raw.stopped = Some(with);
        }
        self.fetch_ended(id, End::Reset(with));
        self.reset(id, StreamCode::CANCEL.0);
        self.group_closed(id);
    }

    pub(super) fn send_nonempty(&mut self, id: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.send(id, bytes, false);
        }
    }
}
