//! Groups of a track, and the cursors that read them.

use std::hint::black_box;
use std::time::Instant;

use criterion::Criterion;
use shardcast::track::Feed;
use shardcast::track::cursor::Cursor;
use shardcast::track::group::{GroupEnd, Piece};
use shardcast::wire::{TrackInfo, Version};

use crate::content::{FRAMES_PER_GROUP, INFO, WANTED, content, frame, nth, whole};

pub fn fan_out(criterion: &mut Criterion) {
    for size in [300, 4096] {
        let bytes = frame(size);
        for viewers in [1, 10, 100] {
            let now = Instant::now();
            let mut content = content(INFO, now);
            let join = || Cursor::join(&content, Version::Lite06, WANTED);
            let mut cursors: Vec<Cursor> = std::iter::repeat_with(join).take(viewers).collect();
            let mut sequence = 0;
            criterion.bench_function(&format!("cursor/fan_out_{size}B_to_{viewers}"), |bencher| {
                bencher.iter(|| {
                    let piece = whole(sequence, sequence * 1000, &bytes);
                    sequence += 1;
                    content.apply(Feed::Piece(piece), now);
                    let mut picks = 0;
                    for cursor in &mut cursors {
                        while let Some(pick) = cursor.pick(&content) {
                            black_box(pick);
                            picks += 1;
                        }
                    }
                    assert_eq!(picks, viewers);
                });
            });
        }
    }
}

pub fn append(criterion: &mut Criterion) {
    let bytes = frame(4096);
    for frames in [FRAMES_PER_GROUP, 8192] {
        let now = Instant::now();
        let mut content = content(INFO, now);
        let mut next = 0;
        criterion.bench_function(&format!("group/append_4096B_frames_{frames}"), |bencher| {
            bencher.iter(|| {
                let piece = nth(next, frames, &bytes);
                next += 1;
                black_box(content.apply(Feed::Piece(piece), now))
            });
        });
    }
}

/// Each new group expires one, so that their number stays.
pub fn held_groups(criterion: &mut Criterion) {
    let bytes = frame(300);
    for (name, ends) in [("whole", Some(GroupEnd::Finished)), ("unfinished", None)] {
        for held in [10, 100, 1000] {
            let now = Instant::now();
            let ticks_per_group = 100_000;
            let timescale = ticks_per_group * held / 10;
            let mut content = content(TrackInfo { timescale, ..INFO }, now);
            let mut cursor = Cursor::join(&content, Version::Lite06, WANTED);
            let mut sequence = 0;
            let mut add = || {
                let piece = whole(sequence, sequence * ticks_per_group, &bytes);
                sequence += 1;
                content.apply(Feed::Piece(Piece { ends, ..piece }), now);
                while let Some(pick) = cursor.pick(&content) {
                    black_box(pick);
                }
                content.groups().next().map(|(oldest, _)| sequence - oldest)
            };
            for _ in 0..2 * held {
                add();
            }
            assert_eq!(add(), Some(held + 1));
            criterion.bench_function(&format!("group/held_{name}_{held}"), |bencher| {
                bencher.iter(&mut add);
            });
        }
    }
}
