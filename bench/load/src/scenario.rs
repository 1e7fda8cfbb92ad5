//! What to do to the relay: read from TOML, overridden by arguments, checked once.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shardcast::limits::{FRAME_BYTES_MAX, GROUP_BYTES_MAX, GROUP_FRAMES_MAX};

use crate::frames::STAMP_BYTES;

/// The scenarios that a bare name stands for.
pub const BUILT_IN: [(&str, &str); 9] = [
    ("chat", include_str!("../../scenarios/chat.toml")),
    ("video", include_str!("../../scenarios/video.toml")),
    ("hd", include_str!("../../scenarios/hd.toml")),
    ("audio", include_str!("../../scenarios/audio.toml")),
    ("rooms", include_str!("../../scenarios/rooms.toml")),
    ("meeting", include_str!("../../scenarios/meeting.toml")),
    ("announce", include_str!("../../scenarios/announce.toml")),
    ("fetch", include_str!("../../scenarios/fetch.toml")),
    ("idle", include_str!("../../scenarios/idle.toml")),
];

/// Whoever sends more has no relay left to measure.
const RATE_MAX: f64 = 100_000.0;

/// Of anything: more than one client can hold, and far from overflowing a product of two.
const COUNT_MAX: u32 = 100_000;

/// One scenario. Counts that a file does not mention are 0, and nobody of the kind takes part.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    #[serde(skip)]
    pub name: String,
    /// One sentence for people.
    pub description: String,

    /// Connections that publish.
    pub publishers: u32,
    pub broadcasts_per_publisher: u32,
    /// The tracks of each broadcast; a file need not list them where all are alike.
    pub tracks: Vec<Track>,
    /// Instead of the list: how many there are, and what one is like.
    pub tracks_per_broadcast: Option<u32>,
    pub rate: Option<f64>,
    pub frame_bytes: Option<u32>,
    pub frames_per_group: Option<u32>,
    /// What publishers state in TRACK_INFO and viewers in SUBSCRIBE.
    pub max_age_ms: u64,

    /// Each watches every track of one broadcast.
    pub viewers: u32,
    pub viewers_per_connection: u32,

    /// Connections that each publish one broadcast and watch those of the next ones.
    pub users: u32,
    pub watched_per_user: u32,

    /// Connections that ask for all announcements.
    pub listeners: u32,
    /// Broadcasts that end, and are announced again after the gap.
    pub churn_per_s: f64,
    pub churn_gap_ms: u64,

    /// Connections that fetch past groups.
    pub fetchers: u32,
    /// Of all fetchers together.
    pub fetches_per_s: f64,
    /// How many groups back the oldest fetched one may be.
    pub fetch_depth: u32,

    /// Connections that do nothing.
    pub idle: u32,
}

/// What one track is like.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Track {
    /// Frames per second; may be fractional.
    pub rate: f64,
    pub frame_bytes: u32,
    pub frames_per_group: u32,
    /// What publishers state in TRACK_INFO and viewers in SUBSCRIBE.
    pub priority: u8,
}

impl Default for Track {
    fn default() -> Track {
        Track { rate: 0.0, frame_bytes: 300, frames_per_group: 1, priority: 128 }
    }
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            name: String::new(),
            description: String::new(),
            publishers: 0,
            broadcasts_per_publisher: 1,
            tracks: Vec::new(),
            tracks_per_broadcast: None,
            rate: None,
            frame_bytes: None,
            frames_per_group: None,
            max_age_ms: 1000,
            viewers: 0,
            viewers_per_connection: 1,
            users: 0,
            watched_per_user: 1,
            listeners: 0,
            churn_per_s: 0.0,
            churn_gap_ms: 500,
            fetchers: 0,
            fetches_per_s: 0.0,
            fetch_depth: 8,
            idle: 0,
        }
    }
}

/// What arguments change in a scenario.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Instead of what the scenario says")]
pub struct Overrides {
    /// How many watch: viewers, or whichever of users, listeners and idle the scenario has
    #[arg(long, value_name = "N")]
    pub viewers: Option<u32>,
    /// Viewers that share one connection
    #[arg(long, value_name = "N")]
    pub viewers_per_connection: Option<u32>,
    /// How many of the others each user watches
    #[arg(long, value_name = "N")]
    pub watched_per_user: Option<u32>,
    /// Connections that publish
    #[arg(long, value_name = "N")]
    pub publishers: Option<u32>,
    /// Broadcasts of each publisher
    #[arg(long, value_name = "N")]
    pub broadcasts_per_publisher: Option<u32>,
    /// Tracks of each broadcast
    #[arg(long, value_name = "N")]
    pub tracks_per_broadcast: Option<u32>,
    /// Frames per second of each track
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// Bytes of each frame's payload
    #[arg(long, value_name = "N")]
    pub frame_bytes: Option<u32>,
    /// Frames of each group
    #[arg(long, value_name = "N")]
    pub frames_per_group: Option<u32>,
    /// Max age that publishers and viewers state, in milliseconds
    #[arg(long, value_name = "MS")]
    pub max_age_ms: Option<u64>,
    /// Broadcasts per second that end and are announced again
    #[arg(long, value_name = "N")]
    pub churn_per_s: Option<f64>,
    /// Fetches per second
    #[arg(long, value_name = "N")]
    pub fetches_per_s: Option<f64>,
}

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ScenarioError {
    #[error(
        "there is no scenario `{name}`: choose one of {names}, or give the path of a TOML file",
        names = names()
    )]
    Unknown { name: String },
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("{file}: {reason}")]
    NotToml { file: String, reason: String },
    #[error("{file}: `{key}` {reason}")]
    Invalid { file: String, key: &'static str, reason: String },
}

/// The key at fault and what is wrong with it.
type Fault = (&'static str, String);

fn must(holds: bool, key: &'static str, reason: String) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err((key, reason)) }
}

fn names() -> String {
    let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

impl Scenario {
    /// By name, or from the file at a path.
    pub fn load(name_or_path: &str, overrides: &Overrides) -> Result<Scenario, ScenarioError> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            return Scenario::parse(name, name, text, overrides);
        }
        let path = Path::new(name_or_path);
        if path.extension().is_none() && path.components().count() == 1 && !path.exists() {
            return Err(ScenarioError::Unknown { name: name_or_path.to_owned() });
        }
        let text = std::fs::read_to_string(path).map_err(|error| ScenarioError::Unreadable {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Scenario::parse(&name, name_or_path, &text, overrides)
    }

    /// `file` is what errors call the text.
    fn parse(
        name: &str,
        file: &str,
        text: &str,
        overrides: &Overrides,
    ) -> Result<Scenario, ScenarioError> {
        let mut scenario: Scenario =
            toml::from_str(text).map_err(|error| ScenarioError::NotToml {
                file: file.to_owned(),
                reason: error.to_string().trim_end().to_owned(),
            })?;
        scenario.name = name.to_owned();
        scenario.apply(overrides);
        scenario.spell_out().and_then(|()| scenario.check()).map_err(|(key, reason)| {
            ScenarioError::Invalid { file: file.to_owned(), key, reason }
        })?;
        Ok(scenario)
    }

    fn apply(&mut self, overrides: &Overrides) {
        fn set<T: Copy>(field: &mut T, value: Option<T>) {
            *field = value.unwrap_or(*field);
        }
        set(self.watchers_mut(), overrides.viewers);
        set(&mut self.viewers_per_connection, overrides.viewers_per_connection);
        set(&mut self.watched_per_user, overrides.watched_per_user);
        set(&mut self.publishers, overrides.publishers);
        set(&mut self.broadcasts_per_publisher, overrides.broadcasts_per_publisher);
        self.tracks_per_broadcast = overrides.tracks_per_broadcast.or(self.tracks_per_broadcast);
        self.rate = overrides.rate.or(self.rate);
        self.frame_bytes = overrides.frame_bytes.or(self.frame_bytes);
        self.frames_per_group = overrides.frames_per_group.or(self.frames_per_group);
        set(&mut self.max_age_ms, overrides.max_age_ms);
        set(&mut self.churn_per_s, overrides.churn_per_s);
        set(&mut self.fetches_per_s, overrides.fetches_per_s);
    }

    /// The most that a search may try.
    pub const WATCHERS_MAX: u32 = COUNT_MAX;

    /// The same with another number of those that watch.
    pub fn with_watchers(&self, watchers: u32) -> Scenario {
        let mut scenario = self.clone();
        *scenario.watchers_mut() = watchers;
        scenario
    }

    pub fn watchers(&self) -> u32 {
        *self.clone().watchers_mut()
    }

    /// Whose number a search varies: the kind of client that the scenario is about.
    fn watchers_mut(&mut self) -> &mut u32 {
        if self.users > 0 {
            &mut self.users
        } else if self.listeners > 0 {
            &mut self.listeners
        } else if self.idle > 0 {
            &mut self.idle
        } else {
            &mut self.viewers
        }
    }

    pub fn broadcasts(&self) -> u32 {
        self.publishers * self.broadcasts_per_publisher + self.users
    }

    /// Whether anything is sent on the tracks.
    pub fn has_content(&self) -> bool {
        self.tracks.iter().any(|track| track.rate > 0.0)
    }

    /// Lists the tracks of a broadcast where they are only said to be alike.
    fn spell_out(&mut self) -> Result<(), Fault> {
        if !self.tracks.is_empty() {
            for (is_said, key) in [
                (self.tracks_per_broadcast.is_some(), "tracks_per_broadcast"),
                (self.rate.is_some(), "rate"),
                (self.frame_bytes.is_some(), "frame_bytes"),
                (self.frames_per_group.is_some(), "frames_per_group"),
            ] {
                must(!is_said, key, "cannot be said where `tracks` lists each track".to_owned())?;
            }
            return Ok(());
        }
        let count = self.tracks_per_broadcast.unwrap_or(1);
        must(
            (1..=COUNT_MAX).contains(&count),
            "tracks_per_broadcast",
            format!("must be from 1 to {COUNT_MAX}, not {count}"),
        )?;
        let like = Track::default();
        let track = Track {
            rate: self.rate.unwrap_or(like.rate),
            frame_bytes: self.frame_bytes.unwrap_or(like.frame_bytes),
            frames_per_group: self.frames_per_group.unwrap_or(like.frames_per_group),
            priority: like.priority,
        };
        self.tracks = vec![track; count as usize];
        Ok(())
    }

    fn check(&self) -> Result<(), Fault> {
        let positive = |value: u32, key| must(value > 0, key, "must be at least 1".to_owned());
        let rate = |value: f64, key| {
            let is_rate = value.is_finite() && (0.0..=RATE_MAX).contains(&value);
            must(is_rate, key, format!("must be from 0 to {RATE_MAX} per second, not {value}"))
        };
        for (count, key) in [
            (self.publishers, "publishers"),
            (self.viewers, "viewers"),
            (self.users, "users"),
            (self.listeners, "listeners"),
            (self.fetchers, "fetchers"),
            (self.idle, "idle"),
            (self.fetch_depth, "fetch_depth"),
            (self.broadcasts_per_publisher, "broadcasts_per_publisher"),
        ] {
            must(count <= COUNT_MAX, key, format!("must be at most {COUNT_MAX}, not {count}"))?;
        }
        let broadcasts = u64::from(self.publishers) * u64::from(self.broadcasts_per_publisher)
            + u64::from(self.users);
        must(
            broadcasts * self.tracks.len() as u64 <= COUNT_MAX.into(),
            "tracks",
            format!("of all broadcasts together must be at most {COUNT_MAX}"),
        )?;
        positive(self.broadcasts_per_publisher, "broadcasts_per_publisher")?;
        positive(self.watched_per_user, "watched_per_user")?;
        positive(self.viewers_per_connection, "viewers_per_connection")?;
        positive(self.fetch_depth, "fetch_depth")?;
        rate(self.churn_per_s, "churn_per_s")?;
        rate(self.fetches_per_s, "fetches_per_s")?;

        let needs_content = self.has_content() || self.viewers + self.users + self.fetchers > 0;
        for track in &self.tracks {
            rate(track.rate, "rate")?;
            track.check()?;
            must(
                track.rate > 0.0 || !needs_content,
                "rate",
                "must be more than 0 where somebody watches or fetches, and for all or none"
                    .to_owned(),
            )?;
        }

        let publishes = self.publishers + self.users > 0;
        must(
            publishes || self.viewers + self.fetchers == 0,
            "publishers",
            "must be at least 1 where there are viewers or fetchers".to_owned(),
        )?;
        must(
            self.users == 0 || self.users > self.watched_per_user,
            "users",
            "must be more than `watched_per_user`: nobody watches themselves".to_owned(),
        )?;
        must(
            u64::from(self.users) * u64::from(self.watched_per_user) <= COUNT_MAX.into(),
            "watched_per_user",
            format!("times `users` must be at most {COUNT_MAX}"),
        )?;
        must(
            self.churn_per_s == 0.0 || self.listeners > 0 && self.publishers > 0,
            "churn_per_s",
            "needs `publishers` and `listeners`".to_owned(),
        )?;
        let gap = self.churn_gap_ms as f64 / 1000.0 * self.churn_per_s;
        must(
            self.churn_per_s == 0.0 || gap < f64::from(self.broadcasts()),
            "churn_gap_ms",
            "is so long that a broadcast would end again before it is back".to_owned(),
        )?;
        must(
            (self.fetches_per_s > 0.0) == (self.fetchers > 0),
            "fetches_per_s",
            "and `fetchers` need each other".to_owned(),
        )?;
        must(
            publishes || self.listeners + self.idle > 0,
            "viewers",
            "or another count must be more than 0: nobody would do anything".to_owned(),
        )
    }
}

impl Track {
    fn check(&self) -> Result<(), Fault> {
        let frame_max = FRAME_BYTES_MAX as u32;
        let bytes = self.frame_bytes;
        must(
            (STAMP_BYTES as u32..=frame_max).contains(&bytes),
            "frame_bytes",
            format!("must be from {STAMP_BYTES} (the stamp) to {frame_max}, not {bytes}"),
        )?;
        let frames = self.frames_per_group;
        must(
            (1..=GROUP_FRAMES_MAX).contains(&frames),
            "frames_per_group",
            format!("must be from 1 to {GROUP_FRAMES_MAX}, not {frames}"),
        )?;
        let group = u64::from(bytes) * u64::from(frames);
        must(
            group <= GROUP_BYTES_MAX,
            "frames_per_group",
            format!(
                "times `frame_bytes` is {group} bytes, and relays refuse more than {GROUP_BYTES_MAX}"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Scenario, String> {
        Scenario::parse("test", "test.toml", text, &Overrides::default())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_built_in_scenarios_are_valid() {
        for (name, _) in BUILT_IN {
            let scenario = Scenario::load(name, &Overrides::default()).unwrap();
            assert_eq!(scenario.name, name);
            assert!(!scenario.description.is_empty(), "{name}");
            assert!(scenario.watchers() > 0, "{name}");
        }
    }

    #[test]
    fn errors_name_the_file_and_the_key() {
        let table = [
            ("publishers = 1\nviewer = 3\n", "viewer"),
            ("publishers = \"many\"\n", "publishers"),
            ("publishers = 1\nviewers = 3\n", "rate"),
            ("publishers = 1\nviewers = 3\nrate = -1.0\n", "rate"),
            ("publishers = 1\nviewers = 3\nrate = nan\n", "rate"),
            ("viewers = 3\nrate = 1\n", "publishers"),
            ("publishers = 1\nviewers = 1\nrate = 1\nframe_bytes = 11\n", "frame_bytes"),
            ("publishers = 1\nviewers = 1\nrate = 1\nframes_per_group = 0\n", "frames_per_group"),
            (
                "publishers = 1\nviewers = 1\nrate = 1\nframes_per_group = 8000\nframe_bytes = 8000\n",
                "frames_per_group",
            ),
            (
                "publishers = 1\nviewers = 1\nrate = 1\ntracks_per_broadcast = 0\n",
                "tracks_per_broadcast",
            ),
            ("users = 1\nrate = 1\n", "users"),
            ("idle = 100001\n", "idle"),
            ("publishers = 1000\nbroadcasts_per_publisher = 1000\nlisteners = 1\n", "`tracks`"),
            ("users = 3\nwatched_per_user = 3\nrate = 1\n", "`users`"),
            ("users = 500\nwatched_per_user = 201\nrate = 1\n", "`watched_per_user`"),
            ("users = 2\n[[tracks]]\nrate = 1\n[[tracks]]\n", "rate"),
            ("publishers = 1\nlisteners = 1\n[[tracks]]\nrate = 1\n[[tracks]]\n", "rate"),
            ("users = 2\n[[tracks]]\nrate = 1\nframe_bytes = 11\n", "frame_bytes"),
            ("users = 2\n[[tracks]]\nrate = 1\nviewers = 1\n", "viewers"),
            ("users = 2\nframe_bytes = 80\n[[tracks]]\nrate = 1\n", "`frame_bytes`"),
            ("publishers = 1\nchurn_per_s = 5\n", "churn_per_s"),
            ("publishers = 1\nlisteners = 1\nchurn_per_s = 5\n", "churn_gap_ms"),
            ("publishers = 1\nrate = 1\nfetchers = 5\n", "fetches_per_s"),
            ("description = \"nothing\"\n", "viewers"),
        ];
        for (text, key) in table {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("test.toml: "), "{text}: {error}");
            assert!(error.contains(key), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_that_is_none_is_explained() {
        let error = Scenario::load("vidoe", &Overrides::default()).unwrap_err();
        assert!(error.to_string().contains("no scenario `vidoe`: choose one of chat, video"));
        let error = Scenario::load("no/such.toml", &Overrides::default()).unwrap_err();
        assert!(error.to_string().starts_with("cannot read no/such.toml: "), "{error}");
    }

    #[test]
    fn arguments_override() {
        let overrides = Overrides { viewers: Some(7), rate: Some(2.5), ..Overrides::default() };
        let chat = Scenario::load("chat", &overrides).unwrap();
        assert_eq!(chat.viewers, 7);
        assert_eq!(chat.tracks, [Track { rate: 2.5, ..Track::default() }]);
        let rooms = Scenario::load("rooms", &overrides).unwrap();
        assert_eq!((rooms.users, rooms.viewers), (7, 0));
        let many = Overrides { tracks_per_broadcast: Some(3), ..Overrides::default() };
        assert_eq!(Scenario::load("audio", &many).unwrap().tracks.len(), 3);
        let unlike = Scenario::load("meeting", &overrides).unwrap_err();
        assert!(unlike.to_string().starts_with("meeting: `rate` cannot"), "{unlike}");
        let invalid = Overrides { rate: Some(0.0), ..Overrides::default() };
        let error = Scenario::load("chat", &invalid).unwrap_err();
        assert!(error.to_string().starts_with("chat: `rate` must"), "{error}");
    }
}
