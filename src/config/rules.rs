//! Who may do what, as far as settings say it.

use std::fmt;
use std::path::PathBuf;

use moq_pattern::Pattern;

use super::auth_url::AuthUrl;
use crate::access::{Grant, shown_name};
use crate::wire::Path;

/// Who may do what. There is an auth server, or a key, a rule or a relay.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AccessConfig {
    /// Files with keys that tokens are verified with, and a directory of them.
    pub keys: Vec<PathBuf>,
    pub key_dir: Option<PathBuf>,
    pub public: PublicRules,
    /// Who is asked instead.
    pub server: Option<AuthUrl>,
    /// Files with the certificates of who issues those of clients, and the names of relays in them.
    pub client_roots: Vec<PathBuf>,
    pub peers: Vec<String>,
}

/// The broadcast of examples.
pub const EXAMPLE: &str = "demo.hang";

const NEEDS_TOKEN: &str = "?jwt=TOKEN";

/// Where somebody who reads what the relay says publishes and watches a first broadcast.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Example {
    pub root: String,
    pub is_closed_to_publish: bool,
    pub is_closed_to_watch: bool,
}

/// What everybody may without a token: patterns of paths.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PublicRules {
    /// To publish and to watch.
    pub both: Vec<Pattern>,
    pub subscribe: Vec<Pattern>,
    pub publish: Vec<Pattern>,
}

impl AccessConfig {
    /// Whether clients may show tokens.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty() || self.key_dir.is_some()
    }

    /// Whether anybody at all is let in.
    pub(super) fn is_empty(&self) -> bool {
        let has_rules = self.public != PublicRules::default();
        !self.has_keys() && !has_rules && self.server.is_none() && self.peers.is_empty()
    }

    /// Who is let in, in words.
    pub fn words(&self) -> String {
        match &self.server {
            Some(url) => format!("{url} is asked who may do what"),
            None => self.public.to_string(),
        }
    }

    /// Who is let in by certificate, in words.
    pub fn peer_words(&self) -> Option<String> {
        let names = self.peers.join(" ");
        (!names.is_empty()).then(|| format!("may do everything with a certificate: {names}"))
    }

    /// Where the files are, for whoever reads what the relay says at its start.
    pub fn key_places(&self) -> Vec<String> {
        let name = |path: &PathBuf| shown_name(&path.to_string_lossy()).to_owned();
        let files = self.keys.iter().map(name);
        files.chain(self.key_dir.as_ref().map(|dir| format!("{}/", name(dir)))).collect()
    }
}

impl PublicRules {
    pub fn grant(&self) -> Grant {
        Grant::public(&self.both, &self.subscribe, &self.publish)
    }

    /// Where an example needs the fewest tokens, and none to watch before none to publish.
    pub fn example(&self) -> Example {
        let grant = self.grant();
        let at = |root: &str| {
            let root = Path::parse(root).ok()?;
            let broadcast = root.join(&Path::parse(EXAMPLE).ok()?).ok()?;
            Some(Example {
                root: root.to_string(),
                is_closed_to_publish: !grant.may_publish(&broadcast),
                is_closed_to_watch: !grant.may_subscribe(&broadcast),
            })
        };
        let rules = self.both.iter().chain(&self.subscribe).chain(&self.publish);
        let roots = [""].into_iter().chain(rules.map(Pattern::head));
        let closed = |example: &Example| (example.is_closed_to_watch, example.is_closed_to_publish);
        roots.filter_map(at).min_by_key(closed).expect("one broadcast at the root is a path")
    }
}

impl Example {
    /// What is dialled to publish, behind the first slash.
    pub fn publish(&self) -> String {
        Self::dialled(&self.root, self.is_closed_to_publish)
    }

    /// The same to watch.
    pub fn watch(&self) -> String {
        Self::dialled(&self.root, self.is_closed_to_watch)
    }

    fn dialled(root: &str, is_closed: bool) -> String {
        format!("{root}{}", if is_closed { NEEDS_TOKEN } else { "" })
    }

    /// What HTTP wants behind a path of what is to be watched.
    pub fn query(&self) -> &'static str {
        if self.is_closed_to_watch { NEEDS_TOKEN } else { "" }
    }
}

/// What everybody may, in words.
impl fmt::Display for PublicRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("publish and watch", &self.both),
            ("watch", &self.subscribe),
            ("publish", &self.publish),
        ];
        let kinds = kinds.iter().filter(|(_, patterns)| !patterns.is_empty());
        let said = kinds.map(|(may, patterns)| {
            let patterns: Vec<String> = patterns.iter().map(Pattern::to_string).collect();
            format!("{may} {}", patterns.join(" "))
        });
        match said.collect::<Vec<_>>() {
            none if none.is_empty() => f.write_str("nobody may do anything without a token"),
            said => write!(f, "anyone may {}", said.join(", ")),
        }
    }
}
