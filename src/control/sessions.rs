//! Who is there: a list, and that some leave. What sessions were let in with is never shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Site;
use super::filter::Filter;
use super::row::Row;
use crate::limits::SESSIONS_CHECKED_PER_TURN;
use crate::mailbox::Outside;
use crate::reload::Ask;
use crate::shard::message::ToShard;
use crate::web::mail::ask;

/// `GET /sessions`
pub(super) async fn list(State(site): State<Arc<Site>>, uri: Uri) -> Response {
    match Filter::parse(uri.query()) {
        Ok(filter) => {
            let meant = site.meant(&filter).await;
            let rows: Vec<Value> = meant.rows.iter().map(Row::json).collect();
            let mut list = json!({ "sessions": rows });
            // Who is with that one is not in the list.
            if let Some(before) = *site.subject.before.borrow() {
                list["before"] = json!(before);
            }
            answer(StatusCode::OK, &list)
        }
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

/// `POST /sessions/revalidate`: keys are looked at now, and those sessions whose key or time is over end. The
/// auth server is asked of those that it has let in.
pub(super) async fn revalidate(State(site): State<Arc<Site>>, uri: Uri) -> Response {
    let filter = match Filter::parse(uri.query()) {
        Ok(filter) => filter,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let mut meant = site.meant(&filter).await;
    let (looked, answer) = oneshot::channel();
    if site.subject.files.send(Ask::Look(Some(looked))).is_ok() {
        let _ = answer.await;
    }
    meant.tell(&site.subject.shards, |sessions, done| ToShard::Check { sessions, done }).await;
    meant.answer()
}

/// `POST /sessions/kick`: those sessions end.
pub(super) async fn kick(State(site): State<Arc<Site>>, uri: Uri) -> Response {
    let filter = match Filter::parse(uri.query()) {
        Ok(filter) if filter.is_empty() => {
            let words = "name whom, as in /sessions/kick?remote=10.0.7.1; for all, path=**";
            return (StatusCode::BAD_REQUEST, words).into_response();
        }
        Ok(filter) => filter,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let mut meant = site.meant(&filter).await;
    meant.tell(&site.subject.shards, |sessions, done| ToShard::Kick { sessions, done }).await;
    let sessions = meant.rows.len();
    if sessions > 0 {
        tracing::info!(sessions, filter = uri.query(), "closed by the operator");
    }
    meant.answer()
}

pub(super) fn answer(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

impl Site {
    /// The sessions that are meant, of all shards that answer.
    async fn meant(&self, filter: &Filter) -> Meant {
        let _one_at_a_time = self.rows.lock().await;
        let mut meant = Meant::default();
        for (at, shard) in self.subject.shards.iter().enumerate() {
            let mut next = Some(0);
            while let Some(from) = next {
                let page = ask(shard, |line| ToShard::Sessions { from, line }).await;
                let Some(page) = page else {
                    meant.silent.insert(at);
                    break;
                };
                next = page.next;
                let page = page.sessions.into_iter().map(|row| Row::new(self, at, row));
                meant.rows.extend(page.filter(|row| filter.fits(row)));
            }
        }
        meant
    }
}

/// Sessions that something is to be done with.
#[derive(Default)]
struct Meant {
    rows: Vec<Row>,
    /// Shards that did not answer: of sessions there nobody knows.
    silent: BTreeSet<usize>,
}

impl Meant {
    /// Tells shards of them, so many at once as one turn may see to. Those are left of which a shard has said that it
    /// is done.
    async fn tell(
        &mut self,
        shards: &[Outside<ToShard>],
        mail: impl Fn(Vec<(u32, u32)>, oneshot::Sender<()>) -> ToShard,
    ) {
        let mut by_shard: BTreeMap<usize, Vec<Row>> = BTreeMap::new();
        for row in std::mem::take(&mut self.rows) {
            by_shard.entry(row.shard).or_default().push(row);
        }
        for (shard, rows) in by_shard {
            let mut told = 0;
            for some in rows.chunks(SESSIONS_CHECKED_PER_TURN) {
                let sessions: Vec<_> = some.iter().map(|row| (row.slot, row.generation)).collect();
                if ask(&shards[shard], |done| mail(sessions, done)).await.is_none() {
                    self.silent.insert(shard);
                    break;
                }
                told += some.len();
            }
            self.rows.extend(rows.into_iter().take(told));
        }
    }

    fn answer(&self) -> Response {
        let (status, said) = self.said();
        answer(status, &said)
    }

    fn said(&self) -> (StatusCode, Value) {
        let ids: Vec<&str> = self.rows.iter().map(|row| row.id.as_str()).collect();
        match (self.silent.is_empty(), ids.is_empty()) {
            (true, true) => (StatusCode::OK, json!({ "ids": ids })),
            (true, false) => (StatusCode::ACCEPTED, json!({ "ids": ids })),
            (false, _) => {
                let said = json!({ "ids": ids, "silent_shards": self.silent });
                (StatusCode::SERVICE_UNAVAILABLE, said)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use super::*;
    use crate::mailbox::{Post, mesh};
    use crate::wire::{Path, Role};

    fn row(shard: usize, slot: u32) -> Row {
        Row {
            shard,
            slot,
            generation: 0,
            id: format!("{shard}-{slot}"),
            transport: "quic",
            is_secure: true,
            alpn: "moq-lite-06",
            remote: "10.0.7.1:999".parse().unwrap(),
            local: None,
            server_name: None,
            tls: None,
            path: Path::root(),
            role: Role::Both,
            started: Duration::ZERO,
        }
    }

    /// Does what it is asked first, and then stands still.
    async fn turns_once(mut post: Post<ToShard>) {
        let mut inbox = VecDeque::new();
        while inbox.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            post.take(1, &mut inbox);
        }
        let Some((_, ToShard::Kick { done, .. })) = inbox.pop_front() else { panic!("no kick") };
        done.send(()).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_shard_does_not_answer_for_is_not_said_to_be_done() {
        let posts = mesh(3, 16);
        let shards: Vec<_> = posts.iter().map(Post::outside).collect();
        for post in posts.into_iter().take(2) {
            tokio::spawn(turns_once(post));
        }
        let more = SESSIONS_CHECKED_PER_TURN as u32 + 1;
        let mut rows = vec![row(0, 0), row(2, 0)];
        rows.extend((0..more).map(|slot| row(1, slot)));
        let mut meant = Meant { rows, ..Meant::default() };
        meant.tell(&shards, |sessions, done| ToShard::Kick { sessions, done }).await;
        let left: Vec<_> = meant.rows.iter().map(|row| (row.shard, row.slot)).collect();
        let of_one = (0..more - 1).map(|slot| (1, slot));
        assert_eq!(left, [(0, 0)].into_iter().chain(of_one).collect::<Vec<_>>());
        let (status, said) = meant.said();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(said["silent_shards"], json!([1, 2]));
        assert_eq!(said["ids"].as_array().unwrap().len(), left.len());
    }

    #[test]
    fn what_all_shards_have_done_is_said() {
        let none = Meant::default();
        assert_eq!(none.said(), (StatusCode::OK, json!({ "ids": [] })));
        let one = Meant { rows: vec![row(1, 7)], ..Meant::default() };
        assert_eq!(one.said(), (StatusCode::ACCEPTED, json!({ "ids": ["1-7"] })));
    }
}
