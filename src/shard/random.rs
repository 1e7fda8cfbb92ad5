//! Numbers by which the shard tells peers apart.

/// A small generator for identities, which need to be different rather than secret.
pub(super) struct SplitMix(u64);

impl SplitMix {
    /// Started from a mixed state: neighbouring states give the same numbers, one step apart.
    pub fn new(seed: u64, shard: usize) -> SplitMix {
        SplitMix(SplitMix(seed ^ (shard as u64) << 48).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A hop id: not zero, and small enough for peers that count in 53 bits.
    pub fn hop(&mut self) -> u64 {
        (self.next() >> 11).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::SplitMix;

    #[test]
    fn shards_never_share_an_identity() {
        for seed in 0..64 {
            let mut seen = std::collections::HashSet::new();
            for shard in 0..4 {
                let mut random = SplitMix::new(seed, shard);
                assert!((0..64).all(|_| seen.insert(random.hop())), "seed {seed} shard {shard}");
            }
        }
    }
}
