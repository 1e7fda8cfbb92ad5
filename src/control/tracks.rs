//! What is watched: tracks one by one, those with the most viewers first.

use std::cmp::Reverse;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Site;
use super::sessions::answer;
use crate::limits::{TRACKS_LISTED_DEFAULT, TRACKS_LISTED_MAX};
use crate::web::tracks::Tracks;

/// `GET /tracks`
pub(super) async fn list(State(site): State<Arc<Site>>, uri: Uri) -> Response {
    let Some(limit) = limit(uri.query().unwrap_or_default()) else {
        let words = format!("write /tracks?limit=N, of 1 to {TRACKS_LISTED_MAX}");
        return (StatusCode::BAD_REQUEST, words).into_response();
    };
    let tracks = site.tracks.ask().await;
    answer(StatusCode::OK, &shown(&tracks, limit))
}

fn limit(query: &str) -> Option<usize> {
    if query.is_empty() {
        return Some(TRACKS_LISTED_DEFAULT);
    }
    let limit = query.strip_prefix("limit=")?.parse().ok()?;
    (1..=TRACKS_LISTED_MAX).contains(&limit).then_some(limit)
}

fn shown(tracks: &Tracks, limit: usize) -> Value {
    let mut rows: Vec<_> = tracks.rows.iter().collect();
    rows.sort_by_key(|(_, figures)| Reverse((figures.viewers, figures.bytes)));
    rows.truncate(limit);
    let rows = rows.into_iter().map(|((broadcast, track), figures)| {
        json!({
            "broadcast": broadcast.as_str(),
            "track": &**track,
            "viewers": figures.viewers,
            "groups": figures.groups,
            "bytes": figures.bytes,
        })
    });
    json!({
        "millis": tracks.at.as_millis() as u64,
        "total": tracks.rows.len(),
        "tracks": rows.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::web::tracks::Figures;
    use crate::wire::Path;

    #[test]
    fn those_with_the_most_viewers_are_shown() {
        let mut tracks = Tracks { at: Duration::from_millis(1500), ..Tracks::default() };
        for (broadcast, track, viewers, bytes) in
            [("a", "audio", 3, 10), ("a", "video", 3, 900), ("b", "x", 0, 9000), ("c", "x", 70, 1)]
        {
            let key = (Path::parse(broadcast).unwrap(), Arc::from(track));
            tracks.rows.insert(key, Figures { viewers, groups: 1, bytes });
        }
        let value = shown(&tracks, 3);
        assert_eq!((&value["millis"], &value["total"]), (&json!(1500), &json!(4)));
        let rows = value["tracks"].as_array().unwrap().iter();
        let names = rows.map(|row| (row["broadcast"].as_str(), row["track"].as_str()));
        let expect = [("c", "x"), ("a", "video"), ("a", "audio")];
        assert_eq!(names.collect::<Vec<_>>(), expect.map(|(a, b)| (Some(a), Some(b))));
    }

    #[test]
    fn a_limit_is_a_number_of_tracks() {
        for (query, expect) in [
            ("", Some(TRACKS_LISTED_DEFAULT)),
            ("limit=1", Some(1)),
            ("limit=1000", Some(1000)),
            ("limit=0", None),
            ("limit=1001", None),
            ("limit=", None),
            ("limit=-1", None),
            ("limit=5&x=1", None),
            ("x=1", None),
        ] {
            assert_eq!(limit(query), expect, "{query}");
        }
    }
}
