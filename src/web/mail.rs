//! Mail to the shards.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use crate::limits::SHARD_ANSWER_MAX;
use crate::mailbox::Outside;
use crate::shard::message::ToShard;

/// How soon a full lane is tried again. It is full only while its shard works through it.
const RETRY_AFTER: Duration = Duration::from_millis(1);

/// Waits for room in the lane.
pub async fn hand_in(shard: &Outside<ToShard>, mut mail: ToShard) {
    while let Err(back) = shard.send(mail) {
        mail = back;
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// What one shard says to a question, if it answers.
pub async fn ask<T>(
    shard: &Outside<ToShard>,
    mail: impl FnOnce(oneshot::Sender<T>) -> ToShard,
) -> Option<T> {
    let (line, answer) = oneshot::channel();
    let asked = async {
        hand_in(shard, mail(line)).await;
        answer.await.ok()
    };
    timeout(SHARD_ANSWER_MAX, asked).await.ok().flatten()
}

/// What each shard says to one question, all of them within the time that one has.
pub async fn ask_all<T>(
    shards: &[Outside<ToShard>],
    mail: impl Fn(oneshot::Sender<T>) -> ToShard,
) -> Vec<Option<T>> {
    let ask = |shard: &Outside<ToShard>| {
        let (line, answer) = oneshot::channel();
        // A lane that is full of what others ask is as good as no answer.
        let _ = shard.send(mail(line));
        answer
    };
    let asked: Vec<_> = shards.iter().map(ask).collect();
    let deadline = Instant::now() + SHARD_ANSWER_MAX;
    let mut answers = Vec::with_capacity(asked.len());
    for answer in asked {
        answers.push(timeout_at(deadline, answer).await.ok().and_then(Result::ok));
    }
    answers
}
