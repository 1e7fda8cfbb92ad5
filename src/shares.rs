//! What the memory that the process may use is for: numbers alone. Each part has a bound that follows from the
//! whole, so that all of them at their most are about that.

use crate::config::Capacity;
use crate::host::finding::Finding;
use crate::limits::{
    CACHE_BYTES_PER_SHARD_MIN, MEMORY_BYTES_PER_SHARD_MIN, MEMORY_SHORT_SHARE,
    PEERS_BYTES_PER_SHARD_MIN, PEERS_MEMORY_SHARE, ROUTES_MEMORY_SHARE, SESSION_BYTES,
    WEB_UNREAD_BYTES_MAX, WEB_UNREAD_MEMORY_SHARE,
};
use crate::text::in_units;

/// What all this is called where findings have names.
pub const SUBJECT: &str = "use of memory";

#[derive(Debug, PartialEq, Eq)]
pub struct Shares {
    /// Of the whole process.
    pub max: u64,
    /// Of one shard: cached groups, what peers are granted, announced routes.
    pub cache: u64,
    pub peers: u64,
    pub routes: u64,
    /// What HTTP clients have not read.
    pub unread: u64,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// What is hardly meant.
    pub warnings: Vec<Finding>,
}

#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error(
        "a cache of {} leaves {} for each shard, and one group of video takes {}: write \
         --cache-capacity {}MiB or more",
        in_units(*.bytes),
        in_units(.bytes / *.shards as u64),
        in_units(CACHE_BYTES_PER_SHARD_MIN),
        (CACHE_BYTES_PER_SHARD_MIN * *.shards as u64) >> 20
    )]
    CacheTooSmall { bytes: u64, shards: usize },
    #[error(
        "--memory-max is {}, and each shard needs {}: write --memory-max {}MiB or more{}",
        in_units(*.bytes),
        in_units(MEMORY_BYTES_PER_SHARD_MIN),
        (MEMORY_BYTES_PER_SHARD_MIN * *.shards as u64) >> 20,
        if *.shards > 1 { ", or have fewer --shards" } else { "" }
    )]
    MemoryTooSmall { bytes: u64, shards: usize },
}

impl ShareError {
    /// The setting that is wrong.
    pub fn key(&self) -> &'static str {
        match self {
            ShareError::CacheTooSmall { .. } => "cache.capacity",
            ShareError::MemoryTooSmall { .. } => "memory_max",
        }
    }
}

impl Shares {
    /// `allowed` is what the process may use by its host; `max` and `cache` are as the operator has them.
    pub fn of(
        max: Option<Capacity>,
        cache: Capacity,
        allowed: u64,
        shards: usize,
    ) -> Result<Shares, ShareError> {
        let total = max.map_or(allowed, |max| max.bytes(allowed));
        let each = |bytes: u64| bytes / shards as u64;
        if max.is_some() && each(total) < MEMORY_BYTES_PER_SHARD_MIN {
            return Err(ShareError::MemoryTooSmall { bytes: total, shards });
        }
        let bytes = cache.bytes(total);
        if each(bytes) < CACHE_BYTES_PER_SHARD_MIN {
            return Err(ShareError::CacheTooSmall { bytes, shards });
        }
        let part = |of: u64, share: f64| (of as f64 * share) as u64;
        let left = each(total).saturating_sub(each(bytes));
        let peers = part(left, PEERS_MEMORY_SHARE).max(PEERS_BYTES_PER_SHARD_MIN);
        let of = match cache {
            Capacity::Bytes(_) => String::new(),
            Capacity::Percent(_) => format!(" ({cache} of {})", in_units(total)),
        };
        let (mut notes, mut warnings) = (Vec::new(), Vec::new());
        if max.is_some() {
            notes.push(format!("memory: {} at most", in_units(total)));
        }
        if total > allowed {
            warnings.push(Finding::warn(
                SUBJECT,
                format!(
                    "--memory-max is {}, and this process may use {}",
                    in_units(total),
                    in_units(allowed)
                ),
                "the kernel may kill it before it takes memory for short",
                "lower --memory-max, or raise the limit of the cgroup",
            ));
        }
        notes.push(format!("cache: {}{of}, {} per shard", in_units(bytes), in_units(each(bytes))));
        if bytes >= part(total, MEMORY_SHORT_SHARE) {
            warnings.push(Finding::warn(
                SUBJECT,
                format!(
                    "the cache may grow to {}, and this process may use {}",
                    in_units(bytes),
                    in_units(total)
                ),
                "memory is short whenever it is full, and nobody new is let in until it has shrunk",
                "lower --cache-capacity, or raise --memory-max",
            ));
        }
        let sessions = peers / SESSION_BYTES;
        let room = in_units(peers);
        notes.push(format!("sessions and windows: {room} per shard, for {sessions} sessions"));
        Ok(Shares {
            max: total,
            cache: each(bytes),
            peers,
            routes: part(each(total), ROUTES_MEMORY_SHARE),
            unread: part(total, WEB_UNREAD_MEMORY_SHARE).min(WEB_UNREAD_BYTES_MAX as u64),
            notes,
            warnings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn shares(cache: &str, allowed: u64, shards: usize) -> Result<Shares, ShareError> {
        Shares::of(None, cache.parse().unwrap(), allowed, shards)
    }

    /// `expect` is what one shard may cache and what is said of it, or the refusal.
    #[track_caller]
    fn check(cache: &str, allowed: u64, count: usize, expect: Result<(u64, &[&str]), &str>) {
        match (shares(cache, allowed, count), expect) {
            (Ok(shares), Ok((bytes, notes))) => {
                assert_eq!(shares.cache, bytes);
                assert_eq!(shares.notes[..shares.notes.len() - 1], *notes);
                assert_eq!(shares.warnings, []);
            }
            (Err(error), Err(line)) => assert_eq!(error.to_string(), line),
            (got, expect) => panic!("got {got:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn shards_share_the_cache() {
        check(
            "25%",
            24 * GIB,
            2,
            Ok((3 * GIB, &["cache: 6.0 GiB (25% of 24.0 GiB), 3.0 GiB per shard"])),
        );
        check("8GiB", 24 * GIB, 1, Ok((8 * GIB, &["cache: 8.0 GiB, 8.0 GiB per shard"])));
        check("3MiB", 24 * GIB, 3, Ok((1 << 20, &["cache: 3.0 MiB, 1.0 MiB per shard"])));
    }

    #[test]
    fn a_cache_larger_than_the_memory_is_said() {
        let warnings = |cache: &str| {
            let warnings = shares(cache, 2 * GIB, 2).unwrap().warnings;
            warnings.iter().map(Finding::to_string).collect::<Vec<_>>()
        };
        let says = "use of memory: the cache may grow to 2.0 GiB, and this process may use 2.0 GiB; memory is \
                    short whenever it is full, and nobody new is let in until it has shrunk; lower \
                    --cache-capacity, or raise --memory-max";
        assert_eq!(warnings("2GiB"), [says]);
        assert_eq!(warnings("100%"), [says]);
        assert_eq!(warnings("85%").len(), 1, "nothing is left for whoever fills it");
        assert!(warnings("84%").is_empty());
    }

    #[test]
    fn a_cache_that_holds_nothing_is_refused() {
        check(
            "3MB",
            24 * GIB,
            4,
            Err(
                "a cache of 2.9 MiB leaves 732.4 KiB for each shard, and one group of video takes \
                 1.0 MiB: write --cache-capacity 4MiB or more",
            ),
        );
        check(
            "8",
            24 * GIB,
            1,
            Err("a cache of 8 bytes leaves 8 bytes for each shard, and one group of video takes \
                 1.0 MiB: write --cache-capacity 1MiB or more"),
        );
    }

    #[test]
    fn peers_have_a_share_of_what_the_cache_leaves() {
        let mib = |allowed: u64, cache: u64, count| {
            let cache = Capacity::Bytes(cache * count as u64 * MIB);
            Shares::of(None, cache, allowed * MIB, count).unwrap().peers / MIB
        };
        assert_eq!(mib(24 << 10, 3 << 10, 2), 6 << 10);
        assert_eq!(mib(24 << 10, 12 << 10, 1), 8 << 10);
        assert_eq!(mib(1 << 10, 512, 2), PEERS_BYTES_PER_SHARD_MIN / MIB);
        assert_eq!(mib(1 << 10, 2 << 10, 1), PEERS_BYTES_PER_SHARD_MIN / MIB);
    }

    #[test]
    fn a_relay_that_would_let_nobody_in_is_refused() {
        let of = |max: &str, shards| {
            let cache = Capacity::Percent(25.0);
            let shares = Shares::of(Some(max.parse().unwrap()), cache, 24 * GIB, shards);
            shares.map_err(|error| (error.key(), error.to_string()))
        };
        let says = "--memory-max is 8.0 KiB, and each shard needs 32.0 MiB: write --memory-max 64MiB or \
                    more, or have fewer --shards";
        assert_eq!(of("8192", 2), Err(("memory_max", says.to_owned())));
        assert!(of("31MiB", 1).is_err_and(|(_, says)| says.ends_with("32MiB or more")));
        assert!(of("32MiB", 1).is_ok() && of("64MiB", 2).is_ok());
    }

    #[test]
    fn all_follows_from_the_most_that_the_process_may_use() {
        let of = |max: &str| {
            let cache = Capacity::Percent(25.0);
            Shares::of(Some(max.parse().unwrap()), cache, 24 * GIB, 2).unwrap()
        };
        let small = of("256MiB");
        assert_eq!((small.max, small.cache, small.peers), (256 * MIB, 32 * MIB, 64 * MIB));
        assert_eq!((small.routes, small.unread), (8 * MIB, 16 * MIB));
        let parts = 2 * (small.cache + small.peers + small.routes) + small.unread;
        assert!(parts <= small.max - 32 * MIB, "{parts}: nothing is left for what is always there");
        assert_eq!(small.notes[0], "memory: 256.0 MiB at most");
        assert_eq!(of("50%").max, 12 * GIB);
        assert_eq!(of("50%").unread, WEB_UNREAD_BYTES_MAX as u64);
        assert!(of("24GiB").warnings.is_empty());
        let large = of("48GiB").warnings;
        let [large] = &large[..] else { panic!("{large:?}") };
        assert!(
            large.to_string().contains("48.0 GiB, and this process may use 24.0 GiB"),
            "{large}"
        );
    }
}
