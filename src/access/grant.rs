//! What may be done where: two sets of patterns at a root.

use moq_pattern::{Pattern, Patterns};

use super::refusal::Refusal;
use crate::wire::{Path, Role};

/// What may be published and what may be watched. The patterns are relative to the root; paths that are
/// asked about are whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    root: Path,
    publish: Patterns,
    subscribe: Patterns,
    /// Paths above the root that may be watched too, which cannot be asked for from there.
    above: Vec<Path>,
}

impl Grant {
    pub fn new(root: Path, publish: Patterns, subscribe: Patterns) -> Grant {
        Grant { root, publish, subscribe, above: Vec::new() }
    }

    /// What everybody may: both, only watch, only publish.
    pub fn public(both: &[Pattern], subscribe: &[Pattern], publish: &[Pattern]) -> Grant {
        let with = |patterns: &[Pattern]| both.iter().chain(patterns).cloned().collect();
        Grant::new(Path::root(), with(publish), with(subscribe))
    }

    /// Everything, for everybody.
    pub fn everything() -> Grant {
        Grant::everything_below(Path::root())
    }

    pub fn everything_below(root: Path) -> Grant {
        let all = Patterns::from(Pattern::all());
        Grant::new(root, all.clone(), all)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Relative to the root.
    pub fn publish(&self) -> &Patterns {
        &self.publish
    }

    /// Relative to the root.
    pub fn subscribe(&self) -> &Patterns {
        &self.subscribe
    }

    /// A pattern of it as one of whole paths.
    pub fn whole(&self, pattern: &Pattern) -> String {
        match (self.root.is_root(), pattern.as_str()) {
            (true, pattern) => format!("/{pattern}"),
            (false, "") => format!("/{}", self.root),
            (false, pattern) => format!("/{}/{pattern}", self.root),
        }
    }

    /// What may be done where, behind "may".
    pub fn words(&self) -> String {
        let kinds = [("publish", &self.publish), ("watch", &self.subscribe)];
        let kinds = kinds.iter().filter(|(_, patterns)| !patterns.is_empty());
        let said = kinds.map(|(may, patterns)| {
            let patterns: Vec<String> =
                patterns.iter().map(|pattern| self.whole(pattern)).collect();
            format!("{may} {}", patterns.join(" "))
        });
        said.collect::<Vec<_>>().join(" and ")
    }

    pub fn is_empty(&self) -> bool {
        self.publish.is_empty() && self.subscribe.is_empty()
    }

    /// What is left of it for a session at the path that was dialled, which is that session's root.
    pub fn at(&self, path: &Path) -> Result<Grant, Refusal> {
        let mut above = self.above.clone();
        let (publish, subscribe) = if let Some(rest) = path.strip_prefix(&self.root) {
            above.extend(path.ancestors().skip(1).filter(|path| self.may_subscribe(path)));
            (self.publish.rebase(rest.as_str()), self.subscribe.rebase(rest.as_str()))
        } else if let Some(rest) = self.root.strip_prefix(path) {
            let place =
                |patterns: &Patterns| patterns.rooted(rest.as_str()).map_err(|_| Refusal::TooDeep);
            above.retain(|above| path.has_prefix(above));
            (place(&self.publish)?, place(&self.subscribe)?)
        } else {
            return Err(Refusal::RootMismatch);
        };
        let grant = Grant { above, ..Grant::new(path.clone(), publish, subscribe) };
        if grant.is_empty() { Err(Refusal::NoAccess) } else { Ok(grant) }
    }

    /// What is left of it for a peer that says what it is.
    pub fn for_role(mut self, role: Role) -> Result<Grant, Refusal> {
        match role {
            Role::Both => {}
            Role::Publisher if self.publish.is_empty() => return Err(Refusal::MayNotPublish),
            Role::Subscriber if self.subscribe.is_empty() => return Err(Refusal::MayNotSubscribe),
            Role::Publisher => self.subscribe = Patterns::new(),
            Role::Subscriber => self.publish = Patterns::new(),
        }
        Ok(self)
    }

    /// Whether all that the other one grants is granted here: each pattern of it must be within one of
    /// these.
    pub fn covers(&self, other: &Grant) -> bool {
        let covers = |ours: &Patterns, theirs: &Patterns| {
            if let Some(rest) = other.root.strip_prefix(&self.root) {
                theirs.rooted(rest.as_str()).is_ok_and(|theirs| ours.covers(&theirs))
            } else if let Some(rest) = self.root.strip_prefix(&other.root) {
                ours.rooted(rest.as_str()).is_ok_and(|ours| ours.covers(theirs))
            } else {
                theirs.is_empty()
            }
        };
        covers(&self.publish, &other.publish) && covers(&self.subscribe, &other.subscribe)
    }

    pub fn may_publish(&self, path: &Path) -> bool {
        self.matches(&self.publish, path)
    }

    pub fn may_subscribe(&self, path: &Path) -> bool {
        self.matches(&self.subscribe, path)
    }

    /// Whether somebody who asked for what is below a prefix is told of a path there. Relays are told of
    /// hidden ones too.
    pub fn may_hear_of(&self, path: &Path, asked: &Path, is_relay: bool) -> bool {
        path.has_prefix(asked) && (is_relay || !is_hidden(path, asked)) && self.may_subscribe(path)
    }

    /// Whether somebody who asked for what is below a prefix is told that something announced above
    /// covers it: that is news of a path above, too.
    pub fn may_hear_of_cover(&self, cover: &Path, asked: &Path, is_relay: bool) -> bool {
        let may_watch = is_relay || self.may_subscribe(cover) || self.above.contains(cover);
        may_watch && self.may_subscribe(asked)
    }

    /// Whether all that lies below a path may be published, and the path itself.
    pub fn may_publish_all_below(&self, path: &Path) -> bool {
        let Some(rest) = path.strip_prefix(&self.root) else { return false };
        let subtree = Pattern::subtree(rest.as_str());
        subtree.is_ok_and(|subtree| self.publish.covers(&Patterns::from(subtree)))
    }

    /// Whether everything at and below the root may be watched.
    pub fn may_subscribe_all(&self) -> bool {
        self.subscribe.covers(&Patterns::from(Pattern::all()))
    }

    /// The paths below which a publisher can have what it may publish, and none of them below another.
    /// What it announces there is still to be looked at: requests on the wire are prefixes.
    pub fn publish_heads(&self) -> Vec<Path> {
        // A head that would be too deep is below no path that there can be.
        let head = |pattern: &Pattern| self.root.join(&Path::parse(pattern.head()).ok()?).ok();
        let mut heads: Vec<Path> = self.publish.iter().filter_map(head).collect();
        heads.sort_by_key(|head| head.segments().count());
        let mut outermost: Vec<Path> = Vec::new();
        for head in heads {
            if !outermost.iter().any(|outer| head.has_prefix(outer)) {
                outermost.push(head);
            }
        }
        outermost
    }

    fn matches(&self, patterns: &Patterns, path: &Path) -> bool {
        let Some(rest) = below(path.as_str(), self.root.as_str()) else { return false };
        patterns.iter().any(|pattern| match pattern.as_prefix() {
            // Most patterns are subtrees, and this looks at no segment.
            Some(prefix) => below(rest, prefix).is_some(),
            None => pattern.matches(rest),
        })
    }
}

/// Whether a path has a segment with a `.` in front below a prefix: it is not listed there, and whoever
/// knows its name may ask for it.
pub fn is_hidden(path: &Path, prefix: &Path) -> bool {
    below(path.as_str(), prefix.as_str())
        .is_some_and(|rest| rest.split('/').any(|segment| segment.starts_with('.')))
}

/// What remains of a path below a prefix, by whole segments.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix)?;
    match rest.is_empty() || prefix.is_empty() {
        true => Some(rest),
        false => rest.strip_prefix('/'),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("an empty pattern; write ** for everything, or anon/** for anon and all below it")]
    Empty,
    #[error("one path and nothing below it; write {0}")]
    NoWildcard(Pattern),
    #[error("not a pattern: {0}; write anon/** for anon and all below it")]
    Invalid(moq_pattern::InvalidPattern),
}

/// One of the operator's rules for everybody. A path without a wildcard is refused: what was a prefix
/// once would be one broadcast now.
pub fn rule(text: &str) -> Result<Pattern, RuleError> {
    let pattern: Pattern = text.parse().map_err(RuleError::Invalid)?;
    if text.is_empty() {
        return Err(RuleError::Empty);
    }
    let subtree = Pattern::subtree(text).map_err(RuleError::Invalid);
    match pattern.is_literal() {
        true => Err(RuleError::NoWildcard(subtree?)),
        false => Ok(pattern),
    }
}
