//! Mail between shards.

use std::collections::VecDeque;
use std::thread;

use criterion::Criterion;
use shardcast::limits::{LANE_MESSAGES, MAIL_PER_TURN};
use shardcast::mailbox::{Flush, Post, mesh};
use shardcast::shard::message::ToShard;
use shardcast::track::Feed;

use crate::content::{frame, whole};
use crate::home::MIRROR;

/// Longer than an answer takes from a thread that runs.
const LOOKS_BEFORE_YIELD: u32 = 1000;

/// Both ends on one thread: what the lanes cost without cache misses between cores.
pub fn hop(criterion: &mut Criterion) {
    for batch in [1, 64] {
        let mut posts = mesh::<ToShard>(2, LANE_MESSAGES);
        let mut taken = VecDeque::new();
        for _ in 0..batch {
            taken.push_back((0, fed()));
        }
        criterion.bench_function(&format!("mailbox/hop_of_{batch}"), |bencher| {
            bencher.iter(|| {
                // The mail of the round before, so that making it is not measured.
                for (_, mail) in taken.drain(..) {
                    posts[0].send(1, mail);
                }
                assert_eq!(posts[0].flush(), Flush::Clear);
                posts[1].take(MAIL_PER_TURN, &mut taken);
                assert_eq!(taken.len(), batch);
            });
        });
    }
}

/// There and back between two threads that do nothing but look at their mail.
pub fn round_trip(criterion: &mut Criterion) {
    let [mut here, mut there] =
        mesh::<ToShard>(2, LANE_MESSAGES).try_into().ok().expect("two posts");
    let other = thread::spawn(move || {
        let mut taken = VecDeque::new();
        loop {
            take(&mut there, &mut taken);
            for (_, mail) in taken.drain(..) {
                match mail {
                    ToShard::Stop => return,
                    mail => there.send(0, mail),
                }
            }
            assert_eq!(there.flush(), Flush::Clear);
        }
    });
    let mut taken = VecDeque::new();
    criterion.bench_function("mailbox/round_trip_between_threads", |bencher| {
        let mut mail = Some(fed());
        bencher.iter(|| {
            here.send(1, mail.take().expect("it has come back"));
            assert_eq!(here.flush(), Flush::Clear);
            take(&mut here, &mut taken);
            mail = taken.pop_front().map(|(_, mail)| mail);
        });
    });
    here.send(1, ToShard::Stop);
    assert_eq!(here.flush(), Flush::Clear);
    other.join().expect("it ends when told");
}

fn fed() -> ToShard {
    let feeds = [Feed::Piece(whole(0, 0, &frame(4096)))].into();
    ToShard::Fed { mirror: MIRROR, feeds }
}

fn take(post: &mut Post<ToShard>, into: &mut VecDeque<(usize, ToShard)>) {
    let mut looks = 0;
    while into.is_empty() {
        post.take(MAIL_PER_TURN, into);
        looks += 1;
        // The other thread may be without a core.
        if looks % LOOKS_BEFORE_YIELD == 0 {
            thread::yield_now();
        }
    }
}
