//! Who is there: a list, and that some leave. What sessions were let in with is never shown.

use std::collections::BTreeMap;
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
use crate::reload::Ask;
use crate::shard::message::ToShard;

/// `GET /sessions`
pub(super) async fn list(State(site): State<Arc<Site>>, uri: Uri) -> Response {
    match Filter::parse(uri.query()) {
        Ok(filter) => {
            let rows: Vec<Value> = site.rows(&filter).await.iter().map(Row::json).collect();
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
    let rows = site.rows(&filter).await;
    let (looked, answer) = oneshot::channel();
    if site.subject.files.send(Ask::Look(Some(looked))).is_ok() {
        let _ = answer.await;
    }
    site.tell(&rows, |sessions, done| ToShard::Check { sessions, done }).await;
    ids(&rows)
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
    let rows = site.rows(&filter).await;
    site.tell(&rows, |sessions, done| ToShard::Kick { sessions, done }).await;
    if !rows.is_empty() {
        tracing::info!(sessions = rows.len(), filter = uri.query(), "closed by the operator");
    }
    ids(&rows)
}

fn ids(rows: &[Row]) -> Response {
    let status = if rows.is_empty() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    answer(status, &json!({ "ids": ids }))
}

pub(super) fn answer(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

impl Site {
    /// The sessions that are meant, of all shards that answer.
    async fn rows(&self, filter: &Filter) -> Vec<Row> {
        let _one_at_a_time = self.rows.lock().await;
        let mut rows = Vec::new();
        for shard in 0..self.subject.shards.len() {
            let mut next = Some(0);
            while let Some(from) = next {
                let page = self.ask(shard, |line| ToShard::Sessions { from, line }).await;
                let Some(page) = page else { break };
                next = page.next;
                let page = page.sessions.into_iter().map(|row| Row::new(self, shard, row));
                rows.extend(page.filter(|row| filter.fits(row)));
            }
        }
        rows
    }

    /// Tells shards of sessions, so many at once as one turn may see to.
    async fn tell(
        &self,
        rows: &[Row],
        mail: impl Fn(Vec<(u32, u32)>, oneshot::Sender<()>) -> ToShard,
    ) {
        let mut by_shard: BTreeMap<usize, Vec<(u32, u32)>> = BTreeMap::new();
        for row in rows {
            by_shard.entry(row.shard).or_default().push((row.slot, row.generation));
        }
        for (shard, sessions) in by_shard {
            for some in sessions.chunks(SESSIONS_CHECKED_PER_TURN) {
                self.ask(shard, |done| mail(some.to_vec(), done)).await;
            }
        }
    }
}
