//! Broadcast paths (§2.2), and what a route carries beside its path: hops and cost (§2.1).

use std::fmt;
use std::sync::Arc;

use super::error::{DecodeError, Fault};
use super::varint::{Reader, VARINT_MAX, encode_bytes, encode_varint};

/// Segments in a path; the reference refuses deeper ones both ways.
pub const PATH_SEGMENTS_MAX: usize = 32;

/// Identities in a hop chain.
pub const HOPS_MAX: usize = 32;

// §2.2
/// A broadcast path or prefix in normal form: no leading, trailing or doubled `/`. The empty path
/// is the root. Cloning shares the text.
// The root is `None` rather than an empty `Arc<str>`: all of those share one reference count, and
// every core would write to it.
#[derive(Clone, Default, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct Path(Option<Arc<str>>);

impl Path {
    pub const fn root() -> Path {
        Path(None)
    }

    /// Normalises `raw`. Refuses more than [`PATH_SEGMENTS_MAX`] segments, and `*` or `**` as a
    /// segment: deployed peers read those as patterns.
    pub fn parse(raw: &str) -> Result<Path, Fault> {
        let mut depth = 0;
        let mut normal = true;
        for segment in raw.split('/') {
            match segment {
                "" => normal = false,
                "*" | "**" => return Err(Fault::InvalidValue),
                _ => depth += 1,
            }
            if depth > PATH_SEGMENTS_MAX {
                return Err(Fault::PathTooDeep);
            }
        }
        Ok(match depth {
            0 => Path::root(),
            _ if normal => Path(Some(Arc::from(raw))),
            _ => Path::from_segments(raw.split('/').filter(|segment| !segment.is_empty())),
        })
    }

    fn from_segments<'a>(segments: impl Iterator<Item = &'a str>) -> Path {
        let mut text = String::new();
        for segment in segments {
            if !text.is_empty() {
                text.push('/');
            }
            text.push_str(segment);
        }
        Path::from_normal(&text)
    }

    /// `text` must be in normal form already.
    fn from_normal(text: &str) -> Path {
        Path((!text.is_empty()).then(|| Arc::from(text)))
    }

    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    pub fn is_root(&self) -> bool {
        self.0.is_none()
    }

    /// The segments from the root down; none for the root.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.0.iter().flat_map(|text| text.split('/'))
    }

    /// Whether `prefix` is this path or an ancestor of it, by whole segments.
    pub fn has_prefix(&self, prefix: &Path) -> bool {
        self.after(prefix).is_some()
    }

    /// What remains of this path below `prefix`; the root if they are equal.
    pub fn strip_prefix(&self, prefix: &Path) -> Option<Path> {
        if prefix.is_root() {
            return Some(self.clone());
        }
        self.after(prefix).map(Path::from_normal)
    }

    fn after(&self, prefix: &Path) -> Option<&str> {
        let rest = self.as_str().strip_prefix(prefix.as_str())?;
        if prefix.is_root() || rest.is_empty() {
            return Some(rest);
        }
        rest.strip_prefix('/')
    }

    /// `suffix` below this path. Fails when the whole is too deep.
    pub fn join(&self, suffix: &Path) -> Result<Path, Fault> {
        if self.is_root() {
            return Ok(suffix.clone());
        }
        if suffix.is_root() {
            return Ok(self.clone());
        }
        if self.segments().count() + suffix.segments().count() > PATH_SEGMENTS_MAX {
            return Err(Fault::PathTooDeep);
        }
        Ok(Path::from_segments([self.as_str(), suffix.as_str()].into_iter()))
    }

    /// This path, then each path above it, down to the root.
    pub fn ancestors(&self) -> impl Iterator<Item = Path> + use<> {
        std::iter::successors(Some(self.clone()), |path| {
            let parent = path.as_str().rfind('/').unwrap_or(0);
            (!path.is_root()).then(|| Path::from_normal(&path.as_str()[..parent]))
        })
    }

    /// Whether the first segment begins with `.`. Of an announce suffix: hidden (§4.5).
    pub fn starts_hidden(&self) -> bool {
        self.as_str().starts_with('.')
    }

    /// Whether any segment begins with `.`.
    pub fn has_hidden_segment(&self) -> bool {
        self.segments().any(|segment| segment.starts_with('.'))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(self.as_str().as_bytes(), out);
    }
}

impl Reader<'_> {
    /// A path, normalised. See [`Path::parse`].
    pub fn path(&mut self) -> Result<Path, DecodeError> {
        let start = self.offset();
        Path::parse(self.string()?).map_err(|fault| DecodeError::new(fault, start))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

// §2.1, §4.4
/// The identities an announcement passed, the original publisher first. 0 stands for one without
/// an identity and may repeat; any other value appears once.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Hops(Vec<u64>);

impl Hops {
    pub const fn new() -> Hops {
        Hops(Vec::new())
    }

    /// A chain of `count` hops that hid their identity.
    pub fn anonymous(count: usize) -> Result<Hops, Fault> {
        if count > HOPS_MAX {
            return Err(Fault::HopsTooMany);
        }
        Ok(Hops(vec![0; count]))
    }

    pub fn from_slice(hops: &[u64]) -> Result<Hops, Fault> {
        let mut chain = Hops(Vec::with_capacity(hops.len().min(HOPS_MAX)));
        for &hop in hops {
            chain.push(hop)?;
        }
        Ok(chain)
    }

    pub fn as_slice(&self) -> &[u64] {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The original publisher.
    pub fn first(&self) -> Option<u64> {
        self.0.first().copied()
    }

    /// Whoever passed it on last.
    pub fn last(&self) -> Option<u64> {
        self.0.last().copied()
    }

    /// Whether `hop` is in the chain. 0 is nobody, so it never is.
    pub fn contains(&self, hop: u64) -> bool {
        hop != 0 && self.0.contains(&hop)
    }

    /// Whether any hop hid its identity.
    pub fn is_anonymous(&self) -> bool {
        self.0.contains(&0)
    }

    /// Appends the newest hop. Fails when the chain is full or `hop` is already in it.
    pub fn push(&mut self, hop: u64) -> Result<(), Fault> {
        self.insert(self.0.len(), hop)
    }

    /// Puts `hop` before the oldest. Fails as [`Hops::push`] does.
    pub fn insert_front(&mut self, hop: u64) -> Result<(), Fault> {
        self.insert(0, hop)
    }

    /// Has another original publisher. Fails when that is in the chain already.
    pub fn replace_first(&mut self, hop: u64) -> Result<(), Fault> {
        self.0.remove(0);
        self.insert_front(hop)
    }

    fn insert(&mut self, index: usize, hop: u64) -> Result<(), Fault> {
        if self.0.len() >= HOPS_MAX {
            return Err(Fault::HopsTooMany);
        }
        if self.contains(hop) {
            return Err(Fault::HopRepeated);
        }
        self.0.insert(index, hop);
        Ok(())
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Hops, DecodeError> {
        let count = Hops::decode_count(reader)?;
        let mut hops = Hops(Vec::with_capacity(count.min(reader.remaining())));
        for _ in 0..count {
            let start = reader.offset();
            hops.push(reader.varint()?).map_err(|fault| DecodeError::new(fault, start))?;
        }
        Ok(hops)
    }

    /// lite-03 says how many hops there were and not which.
    pub(super) fn decode_anonymous(reader: &mut Reader<'_>) -> Result<Hops, DecodeError> {
        let count = Hops::decode_count(reader)?;
        Ok(Hops(vec![0; count]))
    }

    fn decode_count(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
        let start = reader.offset();
        let count = reader.varint()?;
        if count > HOPS_MAX as u64 {
            return Err(DecodeError::new(Fault::HopsTooMany, start));
        }
        Ok(count as usize)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        encode_varint(self.0.len() as u64, out);
        for &hop in &self.0 {
            encode_varint(hop, out);
        }
    }
}

// §2.1, §4.5
/// The price of a route; the lower one wins, warm before cold.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cost {
    pub warm: u64,
    pub cold: u64,
}

impl Cost {
    pub const ZERO: Cost = Cost { warm: 0, cold: 0 };

    /// What a route learned over a link without prices (05 and older) counts as.
    pub const UNPRICED: Cost = Cost { warm: 0, cold: VARINT_MAX };

    /// Anything else is better, yet the route stays usable.
    pub const MAX: Cost = Cost { warm: VARINT_MAX, cold: VARINT_MAX };

    /// This cost after crossing a link of the given price.
    #[must_use]
    pub fn saturating_add(self, price: u64) -> Cost {
        Cost {
            warm: self.warm.saturating_add(price).min(VARINT_MAX),
            cold: self.cold.saturating_add(price).min(VARINT_MAX),
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Cost, DecodeError> {
        Ok(Cost { warm: reader.varint()?, cold: reader.varint()? })
    }

    pub(super) fn encode(self, out: &mut Vec<u8>) {
        encode_varint(self.warm.min(VARINT_MAX), out);
        encode_varint(self.cold.min(VARINT_MAX), out);
    }
}
