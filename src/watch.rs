//! What the process looks after while it runs: whether every shard turns, and whether memory runs
//! short.

use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::host;
use crate::limits::{HANGING_LOOKS_MAX, MEMORY_SHORT_PERCENT};
use crate::shard::mailbox::Outside;
use crate::shard::message::ToShard;

pub struct Watch {
    shards: Vec<Watched>,
    /// That the process may use.
    memory_bytes: u64,
    is_short: bool,
}

/// A shard that does not turn, and will not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hangs(pub usize);

struct Watched {
    shard: Outside<ToShard>,
    /// Of the last question, if it was not answered before the last look.
    answer: Option<oneshot::Receiver<()>>,
    /// Looks that found none. These are counted and not time: a process that was stopped as a whole is
    /// looked at no more often than it turned.
    missed: u32,
}

impl Watch {
    pub fn new(shards: Vec<Outside<ToShard>>, memory_bytes: u64) -> Watch {
        let watched = |shard| Watched { shard, answer: None, missed: 0 };
        Watch { shards: shards.into_iter().map(watched).collect(), memory_bytes, is_short: false }
    }

    /// Looks once, and says what is new in the log. To be called every `WATCH_INTERVAL`.
    pub fn look(&mut self) -> Result<(), Hangs> {
        if let Some(used) = host::used_memory()
            && self.has_become_short(used)
        {
            tracing::warn!(
                used,
                limit = self.memory_bytes,
                "memory runs short: lower --cache-capacity or give the relay more, or the kernel may \
                 kill it"
            );
        }
        for (shard, watched) in self.shards.iter_mut().enumerate() {
            let missed = watched.look();
            if missed == 1 {
                tracing::warn!(shard, "a shard does not turn: its clients and tracks wait");
            }
            if missed >= HANGING_LOOKS_MAX {
                return Err(Hangs(shard));
            }
            if missed == 0 && std::mem::take(&mut watched.missed) > 0 {
                tracing::info!(shard, "the shard turns again");
            }
            watched.missed = missed;
        }
        Ok(())
    }

    fn has_become_short(&mut self, used: u64) -> bool {
        let was_short = self.is_short;
        self.is_short = used >= self.memory_bytes / 100 * MEMORY_SHORT_PERCENT;
        self.is_short && !was_short
    }
}

impl Watched {
    /// Asks whether the shard turns; says how many looks in a row have found no answer.
    fn look(&mut self) -> u32 {
        let missed = match self.answer.as_mut().map(oneshot::Receiver::try_recv) {
            None | Some(Ok(())) => 0,
            Some(Err(TryRecvError::Empty)) => return self.missed + 1,
            // Its lane was full.
            Some(Err(TryRecvError::Closed)) => self.missed + 1,
        };
        let (turned, answer) = oneshot::channel();
        let _ = self.shard.send(ToShard::Turn { turned });
        self.answer = Some(answer);
        missed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::shard::mailbox::{Post, mesh};

    /// Answers what has come.
    fn turn(post: &mut Post<ToShard>) {
        let mut inbox = VecDeque::new();
        post.take(16, &mut inbox);
        for (_, mail) in inbox {
            let ToShard::Turn { turned } = mail else { panic!("{mail:?}") };
            let _ = turned.send(());
        }
    }

    fn watch(posts: &[Post<ToShard>]) -> Watch {
        Watch::new(posts.iter().map(Post::outside).collect(), u64::MAX)
    }

    #[test]
    fn a_shard_that_turns_again_in_time_is_not_lost() {
        let mut posts = mesh(2, 4);
        let mut watch = watch(&posts);
        for _ in 0..3 {
            for _ in 0..HANGING_LOOKS_MAX {
                assert_eq!(watch.look(), Ok(()));
                turn(&mut posts[0]);
            }
            turn(&mut posts[1]);
        }
    }

    #[test]
    fn a_shard_that_does_not_turn_is_lost() {
        // Whether there is room in its lane or not.
        for others in [0, 4] {
            let mut posts = mesh(2, 4);
            let mut watch = watch(&posts);
            assert_eq!(watch.look(), Ok(()));
            posts.iter_mut().for_each(turn);
            for _ in 0..others {
                posts[1].outside().send(ToShard::Stop).unwrap();
            }
            let looks = (0..).take_while(|_| {
                let look = watch.look();
                turn(&mut posts[0]);
                look == Ok(())
            });
            let looks = looks.count() as u32;
            assert!((HANGING_LOOKS_MAX - 1..=HANGING_LOOKS_MAX).contains(&looks), "{looks}");
            assert_eq!(watch.look(), Err(Hangs(1)));
        }
    }

    #[test]
    fn memory_that_runs_short_is_said_once() {
        let mut watch = Watch::new(Vec::new(), 1000);
        let said = [100, 899, 900, 990, 899, 950].map(|used| watch.has_become_short(used));
        assert_eq!(said, [false, false, true, false, false, true]);
    }
}
