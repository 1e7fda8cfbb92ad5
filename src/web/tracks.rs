//! Tracks one by one, read from shards page by page. However many ask, shards are asked once in a pause.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::mail::ask;
use crate::limits::TRACKS_PAUSE;
use crate::mailbox::Outside;
use crate::shard::message::ToShard;
use crate::wire::Path;

/// Of one track on all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub viewers: u64,
    /// What publishers have brought since it is here.
    pub groups: u64,
    pub bytes: u64,
}

/// All tracks, by broadcast and name.
#[derive(Debug, Default)]
pub struct Tracks {
    /// Since shards were first asked: what is told twice has the same time.
    pub at: Duration,
    pub rows: BTreeMap<(Path, Arc<str>), Figures>,
}

pub struct Asker {
    shards: Vec<Outside<ToShard>>,
    begun: Instant,
    last: Mutex<Option<Arc<Tracks>>>,
}

impl Asker {
    pub fn new(shards: Vec<Outside<ToShard>>) -> Asker {
        Asker { shards, begun: Instant::now(), last: Mutex::default() }
    }

    /// As they are now, or were a moment ago.
    pub async fn ask(&self) -> Arc<Tracks> {
        let mut last = self.last.lock().await;
        let at = self.begun.elapsed();
        if let Some(known) = &*last
            && at < known.at + TRACKS_PAUSE
        {
            return known.clone();
        }
        let mut tracks = Tracks { at, rows: BTreeMap::new() };
        for shard in &self.shards {
            add(shard, &mut tracks).await;
        }
        last.insert(Arc::new(tracks)).clone()
    }
}

/// Of a shard that does not answer there is nothing.
async fn add(shard: &Outside<ToShard>, tracks: &mut Tracks) {
    let mut after = None;
    loop {
        let page = ask(shard, |line| ToShard::Tracks { after, line }).await;
        let Some(page) = page else { return };
        for row in page.tracks {
            let figures = tracks.rows.entry((row.broadcast, row.name)).or_default();
            figures.viewers += row.viewers as u64;
            figures.groups += row.groups;
            figures.bytes += row.bytes;
        }
        after = page.last;
        if after.is_none() {
            return;
        }
    }
}
