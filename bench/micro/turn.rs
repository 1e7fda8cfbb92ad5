//! Whole turns of one shard, as its publisher and its viewers cause them.

use std::time::{Duration, Instant};

use criterion::Criterion;

use crate::stage::{CHAT, Stage, VIDEO};

pub fn all(criterion: &mut Criterion) {
    for (name, shape) in [("300B_group", CHAT), ("4096B_of_60", VIDEO)] {
        for viewers in [1, 100] {
            let mut stage = Stage::new(viewers, shape);
            criterion.bench_function(&format!("turn/frame_{name}_to_{viewers}"), |bencher| {
                bencher.iter_custom(|laps| laps_of(&mut stage, laps).0);
            });
            criterion.bench_function(&format!("turn/acks_{name}_of_{viewers}"), |bencher| {
                bencher.iter_custom(|laps| laps_of(&mut stage, laps).1);
            });
        }
    }
}

/// How long the relay's turns took, those with the frames and those with the acknowledgements.
fn laps_of(stage: &mut Stage, laps: u64) -> (Duration, Duration) {
    let (mut frames, mut acks) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..laps {
        stage.publish();
        let begin = Instant::now();
        stage.turns();
        frames += begin.elapsed();
        stage.deliver();
        let begin = Instant::now();
        stage.turns();
        acks += begin.elapsed();
    }
    (frames, acks)
}
