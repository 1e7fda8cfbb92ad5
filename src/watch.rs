//! What the process looks after while it runs: whether every shard turns.

use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::limits::HANGING_LOOKS_MAX;
use crate::mailbox::Outside;
use crate::shard::message::ToShard;

pub struct Watch {
    shards: Vec<Watched>,
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
    pub fn new(shards: Vec<Outside<ToShard>>) -> Watch {
        let watched = |shard| Watched { shard, answer: None, missed: 0 };
        Watch { shards: shards.into_iter().map(watched).collect() }
    }

    /// Looks once, and says what is new in the log. To be called every `WATCH_INTERVAL`.
    pub fn look(&mut self) -> Result<(), Hangs> {
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

    /// As of the last look.
    pub fn all_turn(&self) -> bool {
        self.shards.iter().all(|shard| shard.missed == 0)
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
    use crate::mailbox::{Post, mesh};

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
        Watch::new(posts.iter().map(Post::outside).collect())
    }

    #[test]
    fn a_shard_that_turns_again_in_time_is_not_lost() {
        let mut posts = mesh(2, 4);
        let mut watch = watch(&posts);
        for _ in 0..3 {
            for look in 0..HANGING_LOOKS_MAX {
                assert_eq!(watch.look(), Ok(()));
                assert_eq!(watch.all_turn(), look == 0);
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
}
