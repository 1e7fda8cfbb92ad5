//! Connection IDs. Eight bytes: the first names the shard, four are random, three are a keyed
//! check of those five, by which we know an ID of our own that we have forgotten.

use std::time::Duration;

use aws_lc_rs::hmac;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};

/// The same on every shard, because a short header does not tell its ID's length.
pub const CID_LEN: usize = 8;

/// One byte of the ID names the shard.
pub const SHARDS_MAX: usize = 256;

/// Random part, shard byte included.
const NONCE_LEN: usize = 5;

/// One forged ID in 2^24 passes, which bounds the stateless resets that noise can make us send.
const CHECK_LEN: usize = CID_LEN - NONCE_LEN;

/// Keep the two uses of the one key apart.
const NONCE_DOMAIN: u8 = 0;
const CHECK_DOMAIN: u8 = 1;

/// Generates the connection IDs of one shard.
///
/// The random part is a keyed hash of a counter rather than a fast generator's output: whoever
/// sees some IDs of a connection must not learn the others (RFC 9000 §5.1). The same seed and
/// key give the same IDs, so that a simulation replays.
pub struct ShardCids {
    shard: u8,
    shards: usize,
    key: hmac::Key,
    seed: u64,
    generated: u64,
}

impl ShardCids {
    /// `key` is common to all shards, and best kept across restarts: it lets a restarted relay
    /// tell the peers of its former self that their connections are gone. `seed` must be fresh
    /// from the system's entropy at every start of a real relay.
    pub fn new(shard: usize, shards: usize, key: &[u8; 32], seed: u64) -> Self {
        assert!(shard < shards && shards <= SHARDS_MAX, "shard {shard} of {shards}");
        Self {
            shard: shard as u8,
            shards,
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            seed,
            generated: 0,
        }
    }

    fn check(&self, nonce: &[u8]) -> [u8; CHECK_LEN] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[CHECK_DOMAIN]);
        context.update(nonce);
        let tag = context.sign();
        tag.as_ref()[..CHECK_LEN].try_into().expect("a tag is longer than its prefix")
    }

    fn nonce(&mut self) -> [u8; NONCE_LEN] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[NONCE_DOMAIN, self.shard]);
        context.update(&self.seed.to_be_bytes());
        context.update(&self.generated.to_be_bytes());
        self.generated += 1;
        let tag = context.sign();
        let (spread, random) = tag.as_ref().split_at(size_of::<u32>());
        let spread = u32::from_be_bytes(spread.try_into().expect("split at four")) as usize;
        // Every value of the byte that names this shard, equally often.
        let values = (u8::MAX as usize - self.shard as usize) / self.shards + 1;
        let mut nonce = [0; NONCE_LEN];
        nonce[0] = (self.shard as usize + self.shards * (spread % values)) as u8;
        nonce[1..].copy_from_slice(&random[..NONCE_LEN - 1]);
        nonce
    }
}

impl ConnectionIdGenerator for ShardCids {
    fn generate_cid(&mut self) -> ConnectionId {
        let nonce = self.nonce();
        let mut cid = [0; CID_LEN];
        cid[..NONCE_LEN].copy_from_slice(&nonce);
        cid[NONCE_LEN..].copy_from_slice(&self.check(&nonce));
        ConnectionId::new(&cid)
    }

    /// Another shard's ID is refused although its check holds: it belongs to a connection that
    /// may be alive there, which a stateless reset from here would end.
    fn validate(&self, cid: &ConnectionId) -> Result<(), InvalidCid> {
        let cid: &[u8; CID_LEN] = (**cid).try_into().map_err(|_| InvalidCid)?;
        let (nonce, check) = cid.split_at(NONCE_LEN);
        let ours = usize::from(nonce[0]) % self.shards == usize::from(self.shard);
        if ours && self.check(nonce) == check { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        CID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn generate(cids: &mut ShardCids, count: usize) -> Vec<ConnectionId> {
        (0..count).map(|_| cids.generate_cid()).collect()
    }

    #[test]
    fn the_first_byte_names_the_shard() {
        for shards in [1, 2, 3, 4, 7, 64, 255, 256] {
            for shard in [0, shards / 2, shards - 1] {
                let mut cids = ShardCids::new(shard, shards, &KEY, 1);
                for cid in generate(&mut cids, 200) {
                    assert_eq!(cid.len(), CID_LEN);
                    assert_eq!(usize::from(cid[0]) % shards, shard);
                    cids.validate(&cid).unwrap();
                }
            }
        }
    }

    #[test]
    fn the_first_byte_takes_every_value_of_its_shard() {
        let mut cids = ShardCids::new(2, 3, &KEY, 1);
        let seen: HashSet<u8> = generate(&mut cids, 5000).iter().map(|cid| cid[0]).collect();
        assert_eq!(seen, (0..=255).filter(|byte| byte % 3 == 2).collect());
    }

    #[test]
    fn the_steering_rule_finds_the_shard_of_an_id() {
        let mut cids = ShardCids::new(1, 4, &KEY, 9);
        let cid = cids.generate_cid();
        let datagram = [&[0x40][..], &cid, &[0; 20]].concat();
        assert_eq!(crate::net::steer::shard_of(&datagram, 4), Some(1));
    }

    #[test]
    fn ids_differ_between_calls_seeds_and_keys_and_replay_by_seed() {
        let ids = |key: &[u8; 32], seed| generate(&mut ShardCids::new(0, 4, key, seed), 1000);
        let one = ids(&KEY, 1);
        assert_eq!(one.iter().collect::<HashSet<_>>().len(), one.len());
        assert_eq!(one, ids(&KEY, 1));
        assert_ne!(one, ids(&KEY, 2));
        assert_ne!(one, ids(&[8; 32], 1));
    }

    #[test]
    fn foreign_ids_are_refused() {
        let mut cids = ShardCids::new(0, 2, &KEY, 1);
        let cid = cids.generate_cid();
        for bit in 0..CID_LEN * 8 {
            let mut forged: [u8; CID_LEN] = (*cid).try_into().unwrap();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(cids.validate(&ConnectionId::new(&forged)).is_err(), "bit {bit}");
        }
        assert!(cids.validate(&ConnectionId::new(&cid[..7])).is_err());
        let neighbour = ShardCids::new(1, 2, &KEY, 1).generate_cid();
        assert!(cids.validate(&neighbour).is_err());
        let stranger = ShardCids::new(0, 2, &[8; 32], 1).generate_cid();
        assert!(cids.validate(&stranger).is_err());
    }

    #[test]
    fn a_restarted_relay_knows_its_former_ids() {
        let cid = ShardCids::new(3, 4, &KEY, 1).generate_cid();
        ShardCids::new(3, 4, &KEY, 99).validate(&cid).unwrap();
        // With another number of shards the kernel steers it elsewhere, and that shard knows it.
        let home = usize::from(cid[0]) % 3;
        ShardCids::new(home, 3, &KEY, 99).validate(&cid).unwrap();
    }
}
