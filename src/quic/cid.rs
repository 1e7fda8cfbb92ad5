//! Connection IDs. Eight bytes: the first names the shard, four are random but for the bit that is the
//! generation of their process, three are a keyed check of those five, by which we know an ID of our
//! own that we have forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};

use crate::limits::SHARDS_MAX;
use crate::net::steer::Generation;

/// The same on every shard, because a short header does not tell its ID's length.
pub const CID_LEN: usize = 8;

/// Random part, shard byte included.
const NONCE_LEN: usize = 5;

/// One forged ID in 2^24 passes, which bounds the stateless resets that noise can make us send.
const CHECK_LEN: usize = CID_LEN - NONCE_LEN;

/// Keep the uses of the one key apart.
const NONCE_DOMAIN: u8 = 0;
const CHECK_DOMAIN: u8 = 1;
const FIRST_DOMAIN: u8 = 2;

/// Generates the connection IDs of one shard.
///
/// The random part is a keyed hash of a counter rather than a fast generator's output: whoever
/// sees some IDs of a connection must not learn the others (RFC 9000 §5.1). The same seed and
/// key give the same IDs, so that a simulation replays.
#[derive(Clone)]
pub struct ShardCids {
    shard: u8,
    shards: usize,
    generation: Generation,
    /// The process of the other generation is there, and has connections. Common to the copies of one shard.
    is_shared: Arc<AtomicBool>,
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
            generation: Generation::default(),
            is_shared: Arc::default(),
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            seed,
            generated: 0,
        }
    }

    /// Those of a generation, whether or not a process of the other one is there too.
    pub fn of(self, generation: Generation, is_shared: bool) -> Self {
        self.share(is_shared);
        Self { generation, ..self }
    }

    /// Whether a process of the other generation is there. While it is, its IDs are none of ours; once it is
    /// gone they are as our own that we have forgotten.
    pub fn share(&self, is_shared: bool) {
        self.is_shared.store(is_shared, Ordering::Relaxed);
    }

    /// Whether an ID was made by a process of the other generation, for this shard.
    pub fn is_of_other(&self, cid: &ConnectionId) -> bool {
        self.generation_of(cid).is_some_and(|generation| generation != self.generation)
    }

    /// Of an ID of this shard, if a process that has our key has made it.
    ///
    /// Another shard's ID is refused although its check holds: it belongs to a connection that
    /// may be alive there, which a stateless reset from here would end.
    fn generation_of(&self, cid: &ConnectionId) -> Option<Generation> {
        let cid: &[u8; CID_LEN] = (**cid).try_into().ok()?;
        let (nonce, check) = cid.split_at(NONCE_LEN);
        let ours = usize::from(nonce[0]) % self.shards == usize::from(self.shard);
        (ours && self.check(nonce) == check).then(|| Generation::of(nonce))
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
        self.generation.mark(&mut nonce);
        nonce
    }
}

impl ShardCids {
    /// What a server that we dial is called before it has an ID of its own. It names no shard of anybody's.
    pub fn first_of_server(&mut self) -> ConnectionId {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[FIRST_DOMAIN, self.shard]);
        context.update(&self.seed.to_be_bytes());
        context.update(&self.generated.to_be_bytes());
        self.generated += 1;
        ConnectionId::new(&context.sign().as_ref()[..CID_LEN])
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

    /// Also an ID of a process of the other generation is refused, while that is there.
    fn validate(&self, cid: &ConnectionId) -> Result<(), InvalidCid> {
        match self.generation_of(cid) {
            Some(generation) if generation == self.generation => Ok(()),
            Some(_) if !self.is_shared.load(Ordering::Relaxed) => Ok(()),
            _ => Err(InvalidCid),
        }
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
    fn ids_name_their_generation_and_those_of_the_other_are_ours_when_it_is_gone() {
        use Generation::{Even, Odd};
        let of = |generation, is_shared| ShardCids::new(1, 4, &KEY, 5).of(generation, is_shared);
        for (mine, theirs) in [(Even, Odd), (Odd, Even)] {
            let mut cids = of(mine, true);
            for cid in generate(&mut cids, 200) {
                assert_eq!(Generation::of(&cid), mine);
                cids.validate(&cid).unwrap();
                assert!(!cids.is_of_other(&cid));
            }
            let copy = cids.clone();
            for cid in generate(&mut of(theirs, true), 200) {
                assert!(cids.is_of_other(&cid));
                cids.share(true);
                assert!(copy.validate(&cid).is_err());
                cids.share(false);
                copy.validate(&cid).unwrap();
            }
        }
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
