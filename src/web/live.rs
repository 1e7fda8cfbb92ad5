//! What is watched, broadcast by broadcast, for the page of a relay on one's own machine: what it shows beside
//! each name it reckons from two answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::serve::Remote;
use super::tracks::Tracks;
use super::{Site, listing, refusal};
use crate::access::Grant;
use crate::limits::LIVE_BROADCASTS_MAX;
use crate::wire::Path;

#[derive(Debug, Serialize, PartialEq)]
struct Live {
    /// When that was so.
    millis: u64,
    broadcasts: BTreeMap<String, Broadcast>,
}

#[derive(Debug, Default, Serialize, PartialEq)]
struct Broadcast {
    /// Of the track that has the most.
    viewers: u64,
    /// What has come since its tracks are here.
    bytes: u64,
}

pub(super) async fn live(
    State(site): State<Arc<Site>>,
    Extension(Remote(remote)): Extension<Remote>,
    uri: Uri,
) -> Response {
    if !site.about.is_for_development() {
        let words = "figures are for operators here: see --internal-listen";
        return refusal(StatusCode::NOT_FOUND, words);
    }
    let grant = match site.admit(&Path::root(), uri.query(), remote).await {
        Ok(grant) => grant,
        Err(refused) => return site.turn_away(remote, &uri, &refused),
    };
    let live = Live::of(&*site.tracks.ask().await, &grant);
    let body = serde_json::to_string(&live).expect("names and numbers are JSON");
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

impl Live {
    /// The first ones by name of those that somebody may hear of.
    fn of(tracks: &Tracks, grant: &Grant) -> Live {
        let mut broadcasts = BTreeMap::<String, Broadcast>::new();
        for ((path, _), figures) in &tracks.rows {
            let Some(name) = listing::shown(path, grant.root(), grant) else { continue };
            if broadcasts.len() == LIVE_BROADCASTS_MAX && !broadcasts.contains_key(name.as_str()) {
                break;
            }
            let broadcast = broadcasts.entry(name.as_str().to_owned()).or_default();
            broadcast.viewers = broadcast.viewers.max(figures.viewers);
            broadcast.bytes += figures.bytes;
        }
        Live { millis: tracks.at.as_millis() as u64, broadcasts }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::access::rule;
    use crate::web::tracks::Figures;

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn tracks(rows: &[(&str, &str, u64, u64)]) -> Tracks {
        let rows = rows.iter().map(|(broadcast, track, viewers, bytes)| {
            let figures = Figures { viewers: *viewers, groups: 1, bytes: *bytes };
            ((path(broadcast), Arc::from(*track)), figures)
        });
        Tracks { at: Duration::from_millis(2500), rows: rows.collect() }
    }

    #[test]
    fn whoever_looks_sees_what_he_may() {
        let tracks = tracks(&[
            ("a", "audio", 3, 10),
            ("a", "video", 2, 900),
            ("a/.hidden", "x", 1, 1),
            ("b/c", "x", 0, 7),
            ("line\nbreak", "x", 1, 1),
        ]);
        let all = Grant::new(
            Path::root(),
            Default::default(),
            [rule("**").unwrap()].into_iter().collect(),
        );
        let json = serde_json::to_string(&Live::of(&tracks, &all)).unwrap();
        let expect = r#"{"millis":2500,"broadcasts":{"a":{"viewers":3,"bytes":910},"b/c":{"viewers":0,"bytes":7}}}"#;
        assert_eq!(json, expect);
        let some =
            Grant::new(path("b"), Default::default(), [rule("**").unwrap()].into_iter().collect());
        let live = Live::of(&tracks, &some);
        assert_eq!(live.broadcasts.keys().collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn there_are_only_so_many() {
        let names: Vec<String> = (0..LIVE_BROADCASTS_MAX + 5).map(|n| format!("{n:05}")).collect();
        let rows: Vec<_> =
            names.iter().flat_map(|n| [(n.as_str(), "a", 1, 1), (n.as_str(), "b", 1, 1)]).collect();
        let all = Grant::new(
            Path::root(),
            Default::default(),
            [rule("**").unwrap()].into_iter().collect(),
        );
        let live = Live::of(&tracks(&rows), &all);
        assert_eq!(live.broadcasts.len(), LIVE_BROADCASTS_MAX);
        assert!(live.broadcasts.values().all(|broadcast| broadcast.bytes == 2));
    }
}
