//! What a shard knows of time: how long turns and mail take, and when that came which it sends.

use std::time::Instant;

use tokio::sync::oneshot;

use super::message::ToShard;
use super::report::{Report, Times};
use crate::limits::{MAIL_STAMP_INTERVAL, OUTBOX_DATAGRAM_MAX};
use crate::mailbox::Post;
use crate::observe::Tick;

/// Those who wait for a report, each with how many tracks it wants to hear of.
type Asked = Vec<(usize, oneshot::Sender<Box<Report>>)>;

pub(super) struct Timing {
    pub times: Times,
    /// When mail to each neighbour was last stamped.
    stamped: Vec<Instant>,
    /// By neighbour, the time of what it was last sent, and of what it sends.
    dated: Vec<Option<Tick>>,
    came: Vec<Tick>,
    pub asked: Asked,
}

impl Timing {
    pub fn new(started: Instant, shards: usize) -> Timing {
        Timing {
            times: Times::default(),
            stamped: vec![started; shards],
            dated: vec![None; shards],
            came: vec![Tick::default(); shards],
            asked: Vec::new(),
        }
    }

    /// Adds a stamp to mail that is about to leave, now and then: a sample of how long it takes costs no piece
    /// of mail anything, and wakes nobody who would not be woken.
    pub fn stamp(&mut self, now: Instant, tick: Tick, post: &mut Post<ToShard>) {
        if post.held() == 0 {
            return;
        }
        for (shard, stamped) in self.stamped.iter_mut().enumerate() {
            // Where mail does not move, those stamps tell that are on their way.
            let is_moving = (1..OUTBOX_DATAGRAM_MAX).contains(&post.outbox_len(shard));
            if is_moving && now >= *stamped + MAIL_STAMP_INTERVAL {
                *stamped = now;
                post.send(shard, ToShard::Posted { at: tick });
            }
        }
    }

    /// Content is about to be sent to a neighbour that came at this time.
    pub fn date(&mut self, to: usize, came: Tick, post: &mut Post<ToShard>) {
        if self.dated[to] != Some(came) {
            self.dated[to] = Some(came);
            post.send(to, ToShard::Came(came));
        }
    }

    pub fn heard(&mut self, from: usize, came: Tick) {
        self.came[from] = came;
    }

    /// When that came which a neighbour sends.
    pub fn came(&self, from: usize) -> Tick {
        self.came[from]
    }

    pub fn delivered(&mut self, now: Tick, at: Tick) {
        self.times.mail.record(now.since(at));
    }

    pub fn note_asked(&mut self, tracks: usize, line: oneshot::Sender<Box<Report>>) {
        self.asked.push((tracks, line));
    }
}
