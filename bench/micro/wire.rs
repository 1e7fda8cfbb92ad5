//! Messages to bytes and back.

use std::hint::black_box;

use criterion::Criterion;
use shardcast::wire::{
    Announce, Cost, FrameHeader, GroupHeader, Hops, Path, Subscribe, Version, split_message,
};

use crate::content::{BROADCAST, FRAME_INTERVAL_MS, WANTED};

const VERSION: Version = Version::Lite06;

pub fn all(criterion: &mut Criterion) {
    let frame = FrameHeader { timestamp_delta: FRAME_INTERVAL_MS as i64, size: 4096 };
    let encode = |out: &mut Vec<u8>| black_box(frame).encode(VERSION, out);
    both(criterion, "frame", encode, |bytes| FrameHeader::take(VERSION, bytes).is_some());

    let group = GroupHeader { subscribe_id: 3, sequence: 20_000, frame_start: 0 };
    let encode = |out: &mut Vec<u8>| black_box(group).encode(VERSION, out);
    both(criterion, "group", encode, |bytes| {
        matches!(GroupHeader::take(VERSION, bytes), Ok(Some(_)))
    });

    let broadcast = Path::parse(BROADCAST).expect("a path");
    let subscribe = Subscribe { id: 3, broadcast, track: "video".to_owned(), preferences: WANTED };
    both(
        criterion,
        "subscribe",
        |out| black_box(&subscribe).encode(VERSION, out),
        |bytes| {
            let Ok(Some((body, _))) = split_message(bytes, bytes.len()) else { return false };
            Subscribe::decode(VERSION, body).is_ok()
        },
    );

    let announce = Announce::Start {
        suffix: Path::parse(BROADCAST).expect("a path"),
        hops: Hops::from_slice(&[1 << 40, 1 << 50, 7]).expect("a short chain"),
        cost: Cost::ZERO,
    };
    both(
        criterion,
        "announce",
        |out| black_box(&announce).encode(VERSION, out),
        |bytes| matches!(Announce::take(VERSION, bytes), Ok(Some(_))),
    );
}

fn both(
    criterion: &mut Criterion,
    name: &str,
    encode: impl Fn(&mut Vec<u8>),
    decode: impl Fn(&[u8]) -> bool,
) {
    let mut out = Vec::with_capacity(256);
    criterion.bench_function(&format!("wire/encode_{name}"), |bencher| {
        bencher.iter(|| {
            out.clear();
            encode(black_box(&mut out));
        });
    });
    criterion.bench_function(&format!("wire/decode_{name}"), |bencher| {
        bencher.iter(|| assert!(decode(black_box(&out))));
    });
}
