//! Instructions of what every frame and every packet passes through, counted under callgrind: a
//! figure that a busy machine does not change, so that ten percent more are ten percent more.
//!
//!     scripts/hot-path.sh              counts, and compares with bench/hot_path.baseline
//!     scripts/hot-path.sh --update     writes that file
//!
//! The counts are those of one compiler, and with another processor the cryptography in a turn may
//! take other instructions: after a change of either, store them anew before anything else changes.
//! quinn-proto updates the keys of a connection once within its first thousand packets, when its seed
//! says so. Where that fell into a counted turn it would add as much as a dozen viewers for each such connection:
//! the seed in `stage.rs` is one with which none does.
//!
//! | Name | What is counted |
//! |---|---|
//! | `wire_frame_headers` | a thousand frame headers, encoded and decoded |
//! | `wire_group_headers` | a thousand heads of group streams, encoded and decoded |
//! | `mailbox_hop` | a thousand pieces of mail, each sent, flushed and taken by itself |
//! | `cursor_fan_out` | a group of one frame appended to a track and picked by every cursor |
//! | `turn_frame` | a shard's turns from a publisher's datagrams to those for all viewers |
//! | `turn_acks` | its turns when all viewers acknowledge that |

#[allow(dead_code, reason = "each program needs a part of it")]
#[path = "micro/content.rs"]
mod content;
#[allow(dead_code, reason = "each program needs a part of it")]
mod rig;
mod stage;

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Instant;

use gungraun::prelude::*;
use shardcast::limits::{LANE_MESSAGES, MAIL_PER_TURN};
use shardcast::mailbox::{Flush, Post, mesh};
use shardcast::shard::message::ToShard;
use shardcast::track::content::Content;
use shardcast::track::cursor::Cursor;
use shardcast::track::{Feed, TrackRef};
use shardcast::wire::{FrameHeader, GroupHeader, Version};

use content::{INFO, WANTED, content, frame, whole};
use stage::{CHAT, Shape, Stage, VIDEO};

const VERSION: Version = Version::Lite06;
const OPERATIONS: u64 = 1000;

#[library_benchmark]
#[bench::thousand(Vec::with_capacity(64))]
fn wire_frame_headers(mut out: Vec<u8>) {
    for n in 0..OPERATIONS {
        out.clear();
        FrameHeader { timestamp_delta: 16, size: black_box(4096 + n) }.encode(VERSION, &mut out);
        black_box(FrameHeader::take(VERSION, black_box(&out)));
    }
}

#[library_benchmark]
#[bench::thousand(Vec::with_capacity(64))]
fn wire_group_headers(mut out: Vec<u8>) {
    for sequence in 0..OPERATIONS {
        out.clear();
        GroupHeader { subscribe_id: 3, sequence: black_box(sequence), frame_start: 0 }
            .encode(VERSION, &mut out);
        let _ = black_box(GroupHeader::take(VERSION, black_box(&out)));
    }
}

type Mail = (Vec<Post<ToShard>>, VecDeque<(usize, ToShard)>);

fn posts() -> Mail {
    let mirror = TrackRef { shard: 1, slot: 0, generation: 1 };
    let feeds = [Feed::Piece(whole(0, 0, &frame(4096)))].into();
    (mesh(2, LANE_MESSAGES), [(0, ToShard::Fed { mirror, feeds })].into())
}

#[library_benchmark]
#[bench::thousand(posts())]
fn mailbox_hop(mail: Mail) -> Mail {
    let (mut posts, mut taken) = mail;
    for _ in 0..OPERATIONS {
        let (_, mail) = taken.pop_front().expect("it has come");
        posts[0].send(1, mail);
        assert_eq!(posts[0].flush(), Flush::Clear);
        posts[1].take(MAIL_PER_TURN, &mut taken);
    }
    (posts, taken)
}

fn readers(count: usize) -> (Content, Vec<Cursor>, Instant) {
    let now = Instant::now();
    let content = content(INFO, now);
    let cursors = (0..count).map(|_| Cursor::join(&content, VERSION, WANTED)).collect();
    (content, cursors, now)
}

#[library_benchmark]
#[bench::to_1(readers(1))]
#[bench::to_10(readers(10))]
#[bench::to_100(readers(100))]
fn cursor_fan_out(
    (mut content, mut cursors, now): (Content, Vec<Cursor>, Instant),
) -> (Content, Vec<Cursor>) {
    content.apply(Feed::Piece(whole(0, 0, &frame(300))), now);
    for cursor in &mut cursors {
        assert!(black_box(cursor.pick(&content)).is_some());
    }
    (content, cursors)
}

fn published(viewers: usize, shape: Shape) -> Stage {
    let mut stage = Stage::new(viewers, shape);
    stage.publish();
    stage
}

fn delivered(viewers: usize, shape: Shape) -> Stage {
    let mut stage = published(viewers, shape);
    stage.turns();
    stage.deliver();
    stage
}

#[library_benchmark]
#[bench::chat_to_100(published(100, CHAT))]
#[bench::video_to_100(published(100, VIDEO))]
fn turn_frame(mut stage: Stage) -> Stage {
    stage.turns();
    stage
}

#[library_benchmark]
#[bench::chat_of_100(delivered(100, CHAT))]
#[bench::video_of_100(delivered(100, VIDEO))]
fn turn_acks(mut stage: Stage) -> Stage {
    stage.turns();
    stage
}

library_benchmark_group!(
    name = hot_path,
    benchmarks = [
        wire_frame_headers,
        wire_group_headers,
        mailbox_hop,
        cursor_fan_out,
        turn_frame,
        turn_acks
    ]
);

gungraun::main!(library_benchmark_groups = hot_path);
