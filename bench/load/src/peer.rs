//! One connection: its part in the plan, and which of its streams is what.

use std::ops::Range;

use bytes::Bytes;
use quinn_proto::{ConnectionError, Dir, StreamId};
use rustc_hash::FxHashMap;
use shardcast::wire::{
    AnnounceRequest, BidiType, CONTROL_MESSAGE_BYTES_MAX, DecodeError, Fetch, Preferences,
    ProbeLevel, Setup, StreamCode, Subscribe, TrackRequest, UniType, decode_varint, encode_varint,
    split_message,
};

use crate::fetcher::{Fetcher, Reply, Wanted};
use crate::listener::Listener;
use crate::plan::Part;
use crate::publisher::{Publisher, refuse};
use crate::quic::{Happening, Link, ReadEnd};
use crate::shared::Shared;
use crate::viewer::{Answers, Group, Viewer};

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not begun.
    Planned,
    Connecting,
    Up,
    Lost,
}

pub struct Peer {
    pub part: Part,
    pub state: State,
    /// Where the connection is, once it was begun.
    pub slot: usize,
    pub begun_at: u64,
    pub publisher: Option<Publisher>,
    pub viewer: Option<Viewer>,
    pub listener: Option<Listener>,
    pub fetcher: Option<Fetcher>,
    streams: FxHashMap<StreamId, Stream>,
}

/// What a stream is, if there is still something to read on it.
enum Stream {
    Group(Group),
    /// Opened by the relay; what it asks has not arrived yet.
    Request(Vec<u8>),
    /// We tell what is announced.
    ServedAnnounce,
    /// We serve a subscription; the begin of an update.
    ServedSubscription(Vec<u8>),
    /// We have answered and there is nothing more to hear but the end.
    Answered,
    Subscription(Answers),
    Announcements,
    Reply(Reply),
}

/// What a connection has to say of itself.
#[derive(Debug)]
pub enum News {
    Connected,
    Lost(ConnectionError),
}

impl Peer {
    /// `accounts` are those of its viewers, `hop` what it is called if it publishes.
    pub fn new(index: usize, part: Part, accounts: Range<u32>, hop: u64, shared: &Shared) -> Peer {
        let publisher = part.is_publisher().then(|| {
            let first = shared.plan.tracks(part.publishes.start).start;
            let end = shared.plan.tracks(part.publishes.end).start;
            Publisher::new(hop, part.publishes.clone(), first..end)
        });
        let viewer = (!part.watches.is_empty()).then(|| Viewer::new(index as u32, accounts));
        Peer {
            state: State::Planned,
            slot: 0,
            begun_at: 0,
            publisher,
            viewer,
            listener: part.listens.then(Listener::default),
            fetcher: part.fetches.then(Fetcher::default),
            part,
            streams: FxHashMap::default(),
        }
    }

    pub fn handle(
        &mut self,
        link: &mut Link,
        happening: Happening,
        shared: &mut Shared,
        now: u64,
    ) -> Option<News> {
        match happening {
            Happening::Connected => {
                self.state = State::Up;
                self.say_hello(link, shared);
                if let Some(listener) = &self.listener
                    && let Some(id) = listener.ask(link, shared)
                {
                    self.streams.insert(id, Stream::Announcements);
                }
                return Some(News::Connected);
            }
            Happening::Lost(reason) => {
                self.state = State::Lost;
                self.streams.clear();
                if let Some(viewer) = &mut self.viewer {
                    viewer.lost(shared, now, &reason.to_string());
                }
                return Some(News::Lost(reason));
            }
            Happening::Opened(id) => {
                let stream = match id.dir() {
                    Dir::Uni => Stream::Group(Group::new(shared.version)),
                    Dir::Bi => Stream::Request(Vec::new()),
                };
                self.read(link, id, stream, shared, now);
            }
            Happening::Readable(id) => {
                // Not there if it was read to its end already.
                if let Some(stream) = self.streams.remove(&id) {
                    self.read(link, id, stream, shared, now);
                }
            }
            Happening::Stopped(id) => {
                if let Some(publisher) = &mut self.publisher {
                    publisher.stopped(id);
                }
            }
            Happening::Available(Dir::Uni) => {
                if let Some(publisher) = &mut self.publisher {
                    publisher.send_waiting(link, shared);
                }
            }
            Happening::Available(Dir::Bi) => {
                if let Some(fetcher) = &mut self.fetcher {
                    while let Some((id, reply)) = fetcher.fetch_waiting(link, shared) {
                        self.streams.insert(id, Stream::Reply(reply));
                    }
                }
            }
        }
        None
    }

    fn say_hello(&self, link: &mut Link, shared: &Shared) {
        let Some(stream) = link.open(Dir::Uni) else { return };
        let setup = Setup {
            probe: ProbeLevel::None,
            path: shared.root.clone(),
            role: self.part.role(),
            cost: None,
            hop: self.publisher.as_ref().map_or(0, Publisher::hop),
        };
        let mut out = Vec::new();
        encode_varint(UniType::Setup as u64, &mut out);
        setup.encode(&mut out);
        link.send(stream, &mut [Bytes::from(out)], true);
    }

    pub fn subscribe(&mut self, link: &mut Link, account: u32, shared: &mut Shared, now: u64) {
        let Some(viewer) = &mut self.viewer else { return };
        if let Some((id, answers)) = viewer.subscribe(link, account, shared, now) {
            self.streams.insert(id, Stream::Subscription(answers));
        }
    }

    pub fn fetch(&mut self, link: &mut Link, wanted: Wanted, shared: &mut Shared) {
        let Some(fetcher) = &mut self.fetcher else { return };
        if let Some((id, reply)) = fetcher.fetch(link, wanted, shared) {
            self.streams.insert(id, Stream::Reply(reply));
        }
    }

    /// Reads what there is, and keeps the stream if more may come.
    fn read(
        &mut self,
        link: &mut Link,
        id: StreamId,
        mut stream: Stream,
        shared: &mut Shared,
        now: u64,
    ) {
        let goes_on = match &mut stream {
            Stream::Group(group) => match &mut self.viewer {
                Some(viewer) => viewer.read_group(link, id, group, shared, now),
                // The relay's SETUP, which says nothing that we need.
                None => link.read(id, |_| ()) == ReadEnd::Pending,
            },
            Stream::Subscription(answers) => {
                let viewer = self.viewer.as_mut().expect("it has subscribed");
                viewer.read_answers(link, id, answers, shared, now)
            }
            Stream::Announcements => {
                let listener = self.listener.as_mut().expect("it has asked");
                listener.read(link, id, shared, now)
            }
            Stream::Reply(reply) => reply.read(link, id, shared, now),
            Stream::Answered => link.read(id, |_| ()) == ReadEnd::Pending,
            Stream::Request(bytes) => {
                let end = link.read(id, |more| bytes.extend_from_slice(more));
                let bytes = std::mem::take(bytes);
                match self.serve(link, id, bytes, end == ReadEnd::Pending, shared) {
                    Ok(Some(next)) => {
                        stream = next;
                        true
                    }
                    Ok(None) => false,
                    Err(_) => {
                        refuse(link, id, StreamCode::MALFORMED_TRACK);
                        false
                    }
                }
            }
            Stream::ServedAnnounce => {
                let goes_on = link.read(id, |_| ()) == ReadEnd::Pending;
                if let (false, Some(publisher)) = (goes_on, &mut self.publisher) {
                    publisher.unannounced(link, id);
                }
                goes_on
            }
            Stream::ServedSubscription(bytes) => {
                let end = link.read(id, |more| bytes.extend_from_slice(more));
                let publisher = self.publisher.as_mut().expect("it serves a subscription");
                while let Ok(Some((body, used))) = split_message(bytes, CONTROL_MESSAGE_BYTES_MAX) {
                    if let Ok(preferences) = Preferences::decode_update(shared.version, body) {
                        publisher.update(id, preferences);
                    }
                    bytes.drain(..used);
                }
                if end != ReadEnd::Pending {
                    publisher.unsubscribed(link, id);
                }
                end == ReadEnd::Pending
            }
        };
        if goes_on {
            self.streams.insert(id, stream);
        }
    }

    /// Answers a request of the relay once it is there as a whole; what the stream is then, if
    /// more may come on it.
    fn serve(
        &mut self,
        link: &mut Link,
        id: StreamId,
        bytes: Vec<u8>,
        is_open: bool,
        shared: &mut Shared,
    ) -> Result<Option<Stream>, DecodeError> {
        let more = |bytes| Ok(is_open.then_some(Stream::Request(bytes)));
        let Some((kind, start)) = decode_varint(&bytes) else { return more(bytes) };
        let message = split_message(&bytes[start..], CONTROL_MESSAGE_BYTES_MAX)?;
        let Some((body, _)) = message else { return more(bytes) };
        let Some(publisher) = &mut self.publisher else {
            // Whoever publishes nothing is asked all the same, and has nothing to say.
            return Ok(Some(Stream::Request(Vec::new())).filter(|_| is_open));
        };
        Ok(match BidiType::from_u64(kind) {
            Some(BidiType::Announce) => {
                let request = AnnounceRequest::decode(shared.version, body)?;
                publisher.serve_announce(link, id, request, shared);
                Some(Stream::ServedAnnounce)
            }
            Some(BidiType::Track) => {
                publisher.serve_track(link, id, &TrackRequest::decode(body)?, shared);
                is_open.then_some(Stream::Answered)
            }
            Some(BidiType::Subscribe) => {
                let subscribe = Subscribe::decode(shared.version, body)?;
                let is_served = publisher.serve_subscribe(link, id, subscribe, shared);
                is_served.then(|| Stream::ServedSubscription(Vec::new()))
            }
            Some(BidiType::Fetch) => {
                publisher.serve_fetch(link, id, &Fetch::decode(shared.version, body)?, shared);
                is_open.then_some(Stream::Answered)
            }
            _ => {
                refuse(link, id, StreamCode::CANCEL);
                None
            }
        })
    }
}
