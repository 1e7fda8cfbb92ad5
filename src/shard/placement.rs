//! Which shard a track is at home on, and which of several alike things it has.

/// FNV-1a, which is the same on every machine and in every release: tests and tools may rely on
/// where a track lives.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The home shard of a track of the broadcast at `path`.
pub fn home_of(path: &str, track: &str, shards: usize) -> usize {
    let hash = hash_of(path, track);
    // The low bits of FNV-1a are its weakest.
    ((hash ^ hash >> 32) % shards as u64) as usize
}

pub(super) fn hash_of(path: &str, track: &str) -> u64 {
    // 0xff is in no UTF-8 text, so no two pairs run into the same bytes.
    let bytes = path.bytes().chain([0xff]).chain(track.bytes());
    bytes.fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
}

#[cfg(test)]
mod tests {
    use super::home_of;

    #[test]
    fn homes_are_spread_and_stay() {
        let mut tracks = [0; 4];
        for room in 0..100 {
            for track in ["video", "audio", "chat", "catalog.json"] {
                tracks[home_of(&format!("room/{room}"), track, 4)] += 1;
            }
        }
        assert!(tracks.iter().all(|count| (70..130).contains(count)), "{tracks:?}");
        assert_eq!(home_of("room/1", "video", 1), 0);
        assert_ne!(home_of("a", "bc", 1 << 20), home_of("ab", "c", 1 << 20));
    }
}
