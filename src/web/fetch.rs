//! One group over HTTP: asked of the track's home, and passed on as it comes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_lite::stream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::mail::hand_in;
use super::payload::Payloads;
use super::serve::{Cut, Remote};
use super::{Site, busy, refusal};
use crate::access::Refusal;
use crate::limits::{NEWEST_GRACE, REQUEST_NAME_BYTES_MAX, WEB_FETCH_TIMEOUT, WEB_FETCHES_MAX};
use crate::mailbox::Outside;
use crate::shard::guest::{Line, Load, Parcel, Parcels, Unread};
use crate::shard::message::ToShard;
use crate::shard::names::GuestId;
use crate::shard::placement::home_of;
use crate::track::Fetched;
use crate::track::group::GroupEnd;
use crate::wire::{Path, StreamCode, VARINT_MAX};

/// What all fetches share.
pub struct Fetches {
    places: Arc<Semaphore>,
    unread: Arc<Unread>,
    next_guest: AtomicU64,
}

impl Fetches {
    pub fn new(unread_bytes: usize) -> Fetches {
        Fetches {
            places: Arc::new(Semaphore::new(WEB_FETCHES_MAX)),
            unread: Unread::new(unread_bytes),
            next_guest: AtomicU64::new(0),
        }
    }
}

/// `/fetch/<broadcast>/<track>?group=N|latest`
pub async fn serve(
    State(site): State<Arc<Site>>,
    Extension(cut): Extension<Cut>,
    Extension(Remote(remote)): Extension<Remote>,
    UrlPath(path): UrlPath<String>,
    uri: Uri,
) -> Response {
    let mut wanted = match Wanted::parse(&path, uri.query()) {
        Ok(wanted) => wanted,
        Err(words) => return refusal(StatusCode::BAD_REQUEST, words),
    };
    match site.admit(&wanted.broadcast, uri.query(), remote).await {
        // An auth server may have put the client somewhere else than it has dialled.
        Ok(grant) if grant.may_subscribe(grant.root()) => wanted.broadcast = grant.root().clone(),
        Ok(_) => {
            let words = "the client may watch what is below this path, and not this broadcast";
            site.refusals.note_for(remote, uri.path(), Refusal::AsksOutside.name(), words);
            return refusal(StatusCode::UNAUTHORIZED, words);
        }
        Err(refused) => return site.turn_away(remote, &uri, &refused),
    }
    let Ok(place) = site.fetches.places.clone().try_acquire_owned() else {
        return busy("too many groups are fetched at once");
    };
    let deadline = Instant::now() + WEB_FETCH_TIMEOUT;
    let (mut visit, ask) = Visit::new(&site, wanted, place, cut);
    let first = async {
        hand_in(&visit.home, ask).await;
        visit.first().await
    };
    let first = timeout_at(deadline, first).await.unwrap_or(Err(Refused::InTime));
    match first {
        Ok(first) => {
            let rest = stream::unfold((first, visit), move |(ready, mut visit)| async move {
                let next = match ready {
                    Some(ready) => Ok(Some(ready)),
                    None => timeout_at(deadline, visit.next()).await.unwrap_or(Err(Broken)),
                };
                next.transpose().map(|next| (next, (None, visit)))
            });
            let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
            (kind, Body::from_stream(rest)).into_response()
        }
        Err(refused) => {
            let (status, words) = refused.explain();
            refusal(status, words)
        }
    }
}

/// What a URL asks for.
#[derive(Debug, PartialEq)]
pub struct Wanted {
    pub broadcast: Path,
    pub track: Arc<str>,
    /// None for the newest.
    pub group: Option<u64>,
}

impl Wanted {
    pub fn parse(path: &str, query: Option<&str>) -> Result<Wanted, &'static str> {
        let (broadcast, track) = path.rsplit_once('/').unwrap_or_default();
        if broadcast.is_empty() || track.is_empty() {
            return Err("write /fetch/BROADCAST/TRACK");
        }
        if path.len() > REQUEST_NAME_BYTES_MAX {
            return Err("the path is too long");
        }
        let broadcast = Path::parse(broadcast).map_err(|_| "this is not a path of a broadcast")?;
        let pairs = query.unwrap_or_default().split('&');
        let group = pairs.filter_map(|pair| pair.strip_prefix("group=")).next_back();
        let group = match group {
            None | Some("latest") => None,
            Some(number) => Some(parse_group(number).ok_or("write group=NUMBER or group=latest")?),
        };
        Ok(Wanted { broadcast, track: track.into(), group })
    }
}

fn parse_group(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|group| is_plain && *group <= VARINT_MAX)
}

/// Why there is no answer.
enum Refused {
    By(StreamCode),
    InTime,
    /// The relay ends.
    Gone,
}

impl Refused {
    fn explain(&self) -> (StatusCode, String) {
        let (status, words) = match self {
            Refused::InTime => {
                (StatusCode::GATEWAY_TIMEOUT, "nothing has come of the group in time")
            }
            Refused::Gone => (StatusCode::SERVICE_UNAVAILABLE, "the relay is stopping"),
            Refused::By(StreamCode::UNROUTABLE) => {
                (StatusCode::NOT_FOUND, "nobody has announced this broadcast")
            }
            Refused::By(StreamCode::NOT_FOUND) => {
                (StatusCode::NOT_FOUND, "the publisher has no such track or group")
            }
            Refused::By(StreamCode::OLD) => {
                (StatusCode::NOT_FOUND, "the group is older than its track keeps groups")
            }
            Refused::By(StreamCode::EVICTED | StreamCode::TOO_FAR_BEHIND) => {
                (StatusCode::SERVICE_UNAVAILABLE, "the relay has no room for the group now")
            }
            Refused::By(StreamCode::CONTROL_TIMEOUT | StreamCode::DELIVERY_TIMEOUT) => {
                (StatusCode::GATEWAY_TIMEOUT, "the publisher has not answered in time")
            }
            Refused::By(StreamCode::SESSION_CLOSED | StreamCode::GOING_AWAY) => {
                (StatusCode::BAD_GATEWAY, "the publisher has left")
            }
            Refused::By(code) => {
                return (StatusCode::BAD_GATEWAY, format!("the publisher has failed: {code}"));
            }
        };
        (status, words.to_owned())
    }
}

/// The group broke off after its first bytes.
#[derive(Debug, thiserror::Error)]
#[error("the group broke off")]
struct Broken;

/// One guest at the home of a track. However it ends, the home is told.
struct Visit {
    guest: GuestId,
    home: Outside<ToShard>,
    parcels: Parcels,
    payloads: Payloads,
    /// Payload that is here and has not been passed on, and whether more may come.
    ready: VecDeque<Bytes>,
    is_over: bool,
    /// Of the parcel that it came in.
    load: Option<Load>,
    waits_for_newest: bool,
    place: Option<OwnedSemaphorePermit>,
}

impl Visit {
    /// With what the home is to be told.
    fn new(
        site: &Site,
        wanted: Wanted,
        place: OwnedSemaphorePermit,
        Cut(cut): Cut,
    ) -> (Visit, ToShard) {
        let Wanted { broadcast, track, group } = wanted;
        let home = home_of(broadcast.as_str(), &track, site.shards.len());
        let home = site.shards[home].clone();
        let guest = GuestId(site.fetches.next_guest.fetch_add(1, Ordering::Relaxed));
        let (line, parcels) = Line::new(&site.fetches.unread, cut);
        let visit = Visit {
            guest,
            home,
            parcels,
            payloads: Payloads::default(),
            ready: VecDeque::new(),
            is_over: false,
            load: None,
            waits_for_newest: group.is_none(),
            place: Some(place),
        };
        let ask = ToShard::FetchForGuest { guest, broadcast, track, group, line };
        (visit, ask)
    }

    /// The first payload of the group; none of one that is over without any.
    async fn first(&mut self) -> Result<Option<Bytes>, Refused> {
        let mut parcel = None;
        if self.waits_for_newest {
            match timeout(NEWEST_GRACE, self.parcels.next()).await {
                Ok(received) => parcel = Some(received),
                Err(_) => {
                    hand_in(&self.home, ToShard::GuestSettles { guest: self.guest }).await;
                }
            }
        }
        loop {
            let received = match parcel.take() {
                Some(received) => received,
                None => self.parcels.next().await,
            };
            self.unpack(received.ok_or(Refused::Gone)?).map_err(Refused::By)?;
            if self.is_over || !self.ready.is_empty() {
                return Ok(self.pop());
            }
        }
    }

    /// The next payload; none at the end of the group.
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        while self.ready.is_empty() && !self.is_over {
            let parcel = self.parcels.next().await.ok_or(Broken)?;
            self.unpack(parcel).map_err(|_| Broken)?;
        }
        Ok(self.pop())
    }

    fn pop(&mut self) -> Option<Bytes> {
        let payload = self.ready.pop_front()?;
        if let Some(load) = &mut self.load {
            load.take(payload.len());
        }
        Some(payload)
    }

    fn unpack(&mut self, parcel: Parcel) -> Result<(), StreamCode> {
        self.load = Some(parcel.load);
        let pieces = match parcel.news {
            Fetched::Failed(code) => return Err(code),
            // The group is there no more.
            Fetched::Pieces(pieces) if pieces.is_empty() => return Err(StreamCode::EVICTED),
            Fetched::Pieces(pieces) => pieces,
        };
        for piece in pieces {
            let stripped = self.payloads.strip(piece.bytes, &mut self.ready);
            stripped.map_err(|_| StreamCode::INTERNAL)?;
            match piece.ends {
                None => {}
                Some(GroupEnd::Finished) if self.payloads.at_boundary() => self.is_over = true,
                Some(GroupEnd::Finished | GroupEnd::Capped) => return Err(StreamCode::WRONG_SIZE),
                Some(GroupEnd::Aborted(code)) => return Err(code),
            }
        }
        Ok(())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let leave = ToShard::GuestLeaves { guest: self.guest };
        if self.is_over {
            return;
        }
        if let Err(leave) = self.home.send(leave)
            && let Ok(runtime) = Handle::try_current()
        {
            // Until the home knows, this guest has not made room for another one.
            let (home, place) = (self.home.clone(), self.place.take());
            runtime.spawn(async move {
                hand_in(&home, leave).await;
                drop(place);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, query: Option<&str>, expect: Result<(&str, &str, Option<u64>), &str>) {
        let got = Wanted::parse(path, query);
        let expect = expect.map(|(broadcast, track, group)| Wanted {
            broadcast: Path::parse(broadcast).unwrap(),
            track: track.into(),
            group,
        });
        match (got, expect) {
            (Ok(got), Ok(expect)) => assert_eq!(got, expect),
            (Err(got), Err(words)) => assert!(got.contains(words), "{got:?} lacks {words:?}"),
            (got, expect) => panic!("got {got:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn what_a_url_asks_for() {
        check("live/cam/video", None, Ok(("live/cam", "video", None)));
        check("live//cam/video", Some(""), Ok(("live/cam", "video", None)));
        check("a/b", Some("group=latest"), Ok(("a", "b", None)));
        check("a/b", Some("jwt=x&group=7"), Ok(("a", "b", Some(7))));
        check("a/b", Some("group=1&group=2"), Ok(("a", "b", Some(2))));
        check("a/b", Some(&format!("group={VARINT_MAX}")), Ok(("a", "b", Some(VARINT_MAX))));
    }

    #[test]
    fn what_no_url_may_ask_for() {
        for path in ["video", "/video", "live/", "/", ""] {
            check(path, None, Err("/fetch/BROADCAST/TRACK"));
        }
        check("a/**/b", None, Err("not a path"));
        check(&"x/".repeat(40), None, Err("/fetch/BROADCAST"));
        check(&format!("{}x", "x/".repeat(40)), None, Err("not a path"));
        check(&format!("a/{}", "x".repeat(4096)), None, Err("too long"));
        for group in ["", "-1", "+1", "1x", "newest", "18446744073709551616"] {
            check("a/b", Some(&format!("group={group}")), Err("group=NUMBER"));
        }
        check("a/b", Some(&format!("group={}", VARINT_MAX + 1)), Err("group=NUMBER"));
    }
}
