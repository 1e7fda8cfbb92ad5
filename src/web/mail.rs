//! Mail to the shards.

use std::time::Duration;

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
