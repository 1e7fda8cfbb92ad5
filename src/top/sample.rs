//! All that is asked at once.

use std::io;
use std::time::Instant;

use serde::Deserialize;

use super::client::Target;
use super::figures::Figures;

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("nobody answers at {target}: {error}; is the relay started with --internal-listen?")]
    Nobody { target: String, error: io::Error },
    #[error("what answers at {target} is not a relay's --internal-listen: {path} {what}")]
    Other { target: String, path: &'static str, what: &'static str },
}

#[derive(Debug)]
pub struct Sample {
    pub at: Instant,
    pub figures: Figures,
    pub tracks: Tracks,
    pub nodes: Vec<Node>,
    /// Why no clients are to be sent there.
    pub unready: Option<String>,
}

/// As `/tracks` says them.
#[derive(Debug, Deserialize)]
pub struct Tracks {
    /// When that was so.
    pub millis: u64,
    pub total: usize,
    pub tracks: Vec<Track>,
}

/// As `/nodes` says them.
#[derive(Debug, Deserialize)]
struct Nodes {
    nodes: Vec<Node>,
}

/// A link with another relay, or one that there should be.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    pub node: String,
    /// `in` where that relay has dialled.
    #[serde(default)]
    pub direction: String,
    pub address: Option<String>,
    pub state: String,
    /// How long ago it was last heard.
    pub heard_ms: Option<u64>,
    pub rtt_ms: Option<f64>,
    pub loss: Option<f64>,
    pub routes: Option<u64>,
    pub sent_bytes: Option<u64>,
    pub received_bytes: Option<u64>,
    pub last_error: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Track {
    pub broadcast: String,
    pub track: String,
    pub viewers: u64,
    pub bytes: u64,
}

impl Sample {
    /// With so many tracks at most.
    pub fn take(target: &Target, tracks: usize) -> Result<Sample, AskError> {
        let get = |path: &str| {
            let nobody = |error| AskError::Nobody { target: target.to_string(), error };
            target.get(path).map_err(nobody)
        };
        let other = |path, what| AskError::Other { target: target.to_string(), path, what };
        let (status, text) = get("/metrics")?;
        let at = Instant::now();
        let figures = Figures::parse(&text).filter(|_| status == 200);
        let figures = figures.ok_or_else(|| other("/metrics", "has no figures"))?;
        let (status, text) = get(&format!("/tracks?limit={}", tracks.clamp(1, 1000)))?;
        let tracks = serde_json::from_str(&text).ok().filter(|_| status == 200);
        let tracks = tracks.ok_or_else(|| other("/tracks", "has no tracks"))?;
        let (status, text) = get("/nodes")?;
        let nodes = serde_json::from_str(&text).ok().filter(|_| status == 200);
        let Nodes { nodes } = nodes.ok_or_else(|| other("/nodes", "has no links"))?;
        let (status, words) = get("/ready")?;
        let unready = (status != 200).then(|| words.trim().to_owned());
        Ok(Sample { at, figures, tracks, nodes, unready })
    }
}

impl Tracks {
    /// What a track has brought a second since an earlier look, in bytes.
    pub fn rate(&self, track: &Track, earlier: &Tracks) -> Option<f64> {
        let seconds =
            self.millis.checked_sub(earlier.millis).filter(|millis| *millis > 0)? as f64 / 1000.0;
        let is_it =
            |known: &&Track| (&known.broadcast, &known.track) == (&track.broadcast, &track.track);
        let before = earlier.tracks.iter().find(is_it)?.bytes;
        Some(track.bytes.saturating_sub(before) as f64 / seconds)
    }
}
