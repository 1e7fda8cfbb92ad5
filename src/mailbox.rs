//! Mail between shards: one bounded lane per ordered pair, first in first out, never blocking.
//!
//! A shard collects mail in an outbox per neighbour and moves it across once per turn. It wakes
//! a neighbour at most once per turn, and only one that is parked. A shard with nothing to say
//! touches nothing that is shared.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering, fence},
    },
    task::Waker,
};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::limits::{LANE_MESSAGES, LANE_MESSAGES_MIN, LANES_MESSAGES_MAX};

/// Mail taken from one lane before the next lane has its turn.
const LANE_TAKE_MAX: usize = 32;

/// How much mail a lane has room for, with so many shards.
pub fn lane_capacity(shards: usize) -> usize {
    // One from each shard, and one from outside.
    (LANES_MESSAGES_MAX / (shards + 1)).clamp(LANE_MESSAGES_MIN, LANE_MESSAGES)
}

/// Joins `shards` shards by lanes of `lane_capacity` pieces of mail; one post per shard, in
/// shard order.
pub fn mesh<T: Send + 'static>(shards: usize, lane_capacity: usize) -> Vec<Post<T>> {
    assert!(shards > 0 && lane_capacity > 0);
    // Per receiver, one lane from each shard and a last one from outside.
    let lanes: Vec<Vec<_>> = (0..shards)
        .map(|_| (0..=shards).map(|_| crossbeam_channel::bounded(lane_capacity)).collect())
        .collect();
    let parked: Vec<Arc<Parked>> = lanes
        .iter()
        .map(|lanes: &Vec<(Sender<T>, Receiver<T>)>| {
            let inbox: Vec<_> = lanes.iter().map(|(_, inward)| inward.clone()).collect();
            Arc::new(Parked::new(move || inbox.iter().any(|lane| !lane.is_empty())))
        })
        .collect();
    (0..shards)
        .map(|shard| Post {
            outboxes: (0..shards)
                .map(|to| Outbox {
                    held: VecDeque::new(),
                    lane: lanes[to][shard].0.clone(),
                    neighbour: parked[to].clone(),
                })
                .collect(),
            held: 0,
            held_max: 0,
            inbox: lanes[shard].iter().map(|(_, inward)| inward.clone()).collect(),
            next_lane: 0,
            outside: Outside { lane: lanes[shard][shards].0.clone(), shard: parked[shard].clone() },
            lane_full_total: 0,
        })
        .collect()
}

/// One shard's end of every lane.
pub struct Post<T> {
    outboxes: Vec<Outbox<T>>,
    /// Mail in all outboxes together.
    held: usize,
    held_max: usize,
    inbox: Vec<Receiver<T>>,
    next_lane: usize,
    outside: Outside<T>,
    lane_full_total: u64,
}

struct Outbox<T> {
    held: VecDeque<T>,
    lane: Sender<T>,
    neighbour: Arc<Parked>,
}

/// What a flush left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flush {
    Clear,
    /// Some lane is full. Nobody tells when it drains, so flush again soon.
    Held,
}

impl<T> Post<T> {
    /// Appends to this shard's outbox for `to`; nothing crosses before the next flush.
    pub fn send(&mut self, to: usize, mail: T) {
        self.outboxes[to].held.push_back(mail);
        self.held += 1;
    }

    /// Puts mail into the lane to `to` at once, before what waits in the outbox: at most `max` pieces, and
    /// only what fits.
    pub fn send_first(&mut self, to: usize, max: usize, mut next: impl FnMut() -> Option<T>) {
        let outbox = &self.outboxes[to];
        for _ in 0..max {
            // Nobody else fills this lane.
            if outbox.lane.is_full() {
                self.lane_full_total += 1;
                break;
            }
            let Some(mail) = next() else { break };
            let _ = outbox.lane.try_send(mail);
        }
        outbox.neighbour.wake();
    }

    /// Moves as much mail as fits from each outbox into its lane, in order.
    pub fn flush(&mut self) -> Flush {
        if self.held == 0 {
            return Flush::Clear;
        }
        for outbox in &mut self.outboxes {
            let before = outbox.held.len();
            if outbox.push() == Flush::Held {
                self.lane_full_total += 1;
            }
            let moved = before - outbox.held.len();
            self.held -= moved;
            if moved > 0 {
                outbox.neighbour.wake();
            }
        }
        self.held_max = self.held_max.max(self.held);
        if self.held == 0 { Flush::Clear } else { Flush::Held }
    }

    /// Mail that waits in all outboxes together.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The most that a flush has left.
    pub fn held_max(&self) -> usize {
        self.held_max
    }

    /// Mail that waits for room in the lane to `to`.
    pub fn outbox_len(&self, to: usize) -> usize {
        self.outboxes[to].held.len()
    }

    /// Mail that waits in the lanes to this shard.
    pub fn waiting(&self) -> usize {
        self.inbox.iter().map(Receiver::len).sum()
    }

    /// Times that a flush found a lane full.
    pub fn lane_full_total(&self) -> u64 {
        self.lane_full_total
    }

    /// Takes up to `max` pieces of mail with their senders, lane after lane; mail from outside
    /// comes from the number of shards. True if more remains.
    pub fn take(&mut self, max: usize, into: &mut VecDeque<(usize, T)>) -> bool {
        let mut room = max;
        let mut empty_lanes = 0;
        while empty_lanes < self.inbox.len() {
            if room == 0 {
                return self.inbox.iter().any(|lane| !lane.is_empty());
            }
            let from = self.next_lane;
            let lane = &self.inbox[from];
            let quota = room.min(LANE_TAKE_MAX);
            let mut taken = 0;
            // Asked first because a failed receive costs a fence and this costs two loads.
            while taken < quota && !lane.is_empty() {
                let Ok(mail) = lane.try_recv() else { break };
                into.push_back((from, mail));
                taken += 1;
            }
            room -= taken;
            empty_lanes = if taken == 0 { empty_lanes + 1 } else { 0 };
            self.next_lane = (from + 1) % self.inbox.len();
        }
        false
    }

    /// This shard's own parking state.
    pub fn waker(&self) -> Arc<Parked> {
        self.outside.shard.clone()
    }

    /// For ordinary threads: a way to send to this shard.
    pub fn outside(&self) -> Outside<T> {
        self.outside.clone()
    }
}

impl<T> Outbox<T> {
    fn push(&mut self) -> Flush {
        while let Some(mail) = self.held.pop_front() {
            match self.lane.try_send(mail) {
                Ok(()) => {}
                // The neighbour is gone with everything in it; so is what it was told.
                Err(TrySendError::Disconnected(_)) => {}
                Err(TrySendError::Full(mail)) => {
                    self.held.push_front(mail);
                    return Flush::Held;
                }
            }
        }
        Flush::Clear
    }
}

/// A lane into a shard from ordinary threads. Clones share it.
pub struct Outside<T> {
    lane: Sender<T>,
    shard: Arc<Parked>,
}

impl<T> Outside<T> {
    /// Hands the mail back if the lane is full.
    pub fn send(&self, mail: T) -> Result<(), T> {
        self.lane.try_send(mail).map_err(TrySendError::into_inner)?;
        self.shard.wake();
        Ok(())
    }
}

impl<T> Clone for Outside<T> {
    fn clone(&self) -> Self {
        Self { lane: self.lane.clone(), shard: self.shard.clone() }
    }
}

/// Whether a shard sleeps, and how to wake it.
///
/// A wake cannot be lost: the shard announces that it is parked and then looks at its lanes; a
/// sender fills a lane and then looks whether the shard is parked. With a full fence between the
/// two steps on either side, at least one of them sees the other.
pub struct Parked {
    parked: AtomicBool,
    waker: Mutex<Option<Waker>>,
    mail_waits: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Parked {
    fn new(mail_waits: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            parked: AtomicBool::new(false),
            waker: Mutex::new(None),
            mail_waits: Box::new(mail_waits),
        }
    }

    /// For the shard: announces that it parks. False, and not parked, if mail waits already.
    pub fn park(&self, waker: &Waker) -> bool {
        self.register(waker);
        self.parked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if (self.mail_waits)() {
            self.unpark();
            return false;
        }
        true
    }

    /// For the shard: it runs again and needs no waking.
    pub fn unpark(&self) {
        // A sender that swaps the flag at this moment wakes once in vain, which is harmless.
        self.parked.store(false, Ordering::SeqCst);
    }

    /// For senders, after filling a lane: wakes the shard if it is parked.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed)
            && self.parked.swap(false, Ordering::SeqCst)
            && let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner)
        {
            waker.wake_by_ref();
        }
    }

    /// Keeps one clone for good: an executor may count live wakers in few bits.
    fn register(&self, waker: &Waker) {
        let mut registered = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !registered.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *registered = Some(waker.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::AtomicUsize,
        task::Wake,
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[derive(Default)]
    struct CountingWaker(AtomicUsize);

    impl Wake for CountingWaker {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct Unparker(thread::Thread);

    impl Wake for Unparker {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn take_all<T>(post: &mut Post<T>) -> Vec<(usize, T)> {
        let mut taken = VecDeque::new();
        while post.take(7, &mut taken) {}
        taken.into()
    }

    #[test]
    fn mail_crosses_at_the_flush_and_in_order() {
        let mut posts = mesh(2, 4);
        posts[0].send(1, "a");
        posts[0].send(1, "b");
        assert_eq!(posts[0].outbox_len(1), 2);
        assert_eq!(take_all(&mut posts[1]), []);
        assert_eq!(posts[0].flush(), Flush::Clear);
        assert_eq!(posts[0].outbox_len(1), 0);
        assert_eq!(take_all(&mut posts[1]), [(0, "a"), (0, "b")]);
    }

    #[test]
    fn a_full_lane_loses_nothing() {
        let mut posts = mesh(2, 4);
        (0..10).for_each(|n| posts[0].send(1, n));
        assert_eq!(posts[0].flush(), Flush::Held);
        assert_eq!(posts[0].outbox_len(1), 6);
        assert_eq!(posts[0].lane_full_total(), 1);
        let mut arrived = Vec::new();
        loop {
            arrived.extend(take_all(&mut posts[1]).into_iter().map(|(_, n)| n));
            if posts[0].flush() == Flush::Clear {
                break;
            }
        }
        arrived.extend(take_all(&mut posts[1]).into_iter().map(|(_, n)| n));
        assert_eq!(arrived, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_lane_does_not_hold_up_the_others() {
        let mut posts = mesh(3, 1);
        posts[0].send(1, 1);
        posts[0].send(1, 2);
        posts[0].send(2, 3);
        assert_eq!(posts[0].flush(), Flush::Held);
        assert_eq!(take_all(&mut posts[2]), [(0, 3)]);
        assert_eq!((posts[0].outbox_len(1), posts[0].outbox_len(2)), (1, 0));
    }

    #[test]
    fn what_goes_first_takes_the_room_that_there_is() {
        let mut posts = mesh(2, 4);
        (0..6).for_each(|n| posts[0].send(1, n));
        let mut first = 100..;
        posts[0].send_first(1, 3, || first.next());
        assert_eq!(posts[0].flush(), Flush::Held);
        posts[0].send_first(1, 3, || first.next());
        let arrived = |posts: &mut Vec<Post<i32>>| {
            take_all(&mut posts[1]).into_iter().map(|(_, n)| n).collect::<Vec<_>>()
        };
        assert_eq!(arrived(&mut posts), [100, 101, 102, 0]);
        posts[0].send_first(1, 3, || first.next());
        let _ = posts[0].flush();
        assert_eq!(arrived(&mut posts), [103, 104, 105, 1]);
        assert_eq!((posts[0].held(), posts[0].held_max()), (4, 5));
    }

    #[test]
    fn a_busy_lane_does_not_starve_the_others() {
        let mut posts = mesh(3, 1000);
        (0..1000).for_each(|n| posts[0].send(2, n));
        posts[1].send(2, 5000);
        let _ = (posts[0].flush(), posts[1].flush());
        let mut taken = VecDeque::new();
        assert!(posts[2].take(2 * LANE_TAKE_MAX, &mut taken));
        assert_eq!(taken.len(), 2 * LANE_TAKE_MAX);
        assert!(taken.contains(&(1, 5000)));
    }

    #[test]
    fn take_tells_whether_more_remains() {
        let mut posts = mesh(1, 8);
        (0..3).for_each(|n| posts[0].send(0, n));
        assert_eq!(posts[0].flush(), Flush::Clear);
        let mut taken = VecDeque::new();
        assert!(posts[0].take(2, &mut taken));
        assert!(!posts[0].take(1, &mut taken));
        assert!(!posts[0].take(1, &mut taken));
        assert_eq!(taken.len(), 3);
    }

    #[test]
    fn outside_mail_is_told_apart_and_wakes() {
        let mut posts = mesh(2, 1);
        let count = Arc::new(CountingWaker::default());
        let outside = posts[1].outside();
        assert!(posts[1].waker().park(&count.clone().into()));
        assert_eq!(outside.clone().send(1), Ok(()));
        assert_eq!(outside.send(2), Err(2));
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(take_all(&mut posts[1]), [(2, 1)]);
    }

    #[test]
    fn only_a_parked_neighbour_is_woken_and_once() {
        let mut posts = mesh(2, 8);
        let count = Arc::new(CountingWaker::default());
        let parked = posts[1].waker();
        let wakes = || count.0.load(Ordering::SeqCst);
        (0..3).for_each(|n| posts[0].send(1, n));
        let _ = posts[0].flush();
        assert!(!parked.park(&count.clone().into()), "mail waits");
        assert_eq!(wakes(), 0);
        take_all(&mut posts[1]);
        assert!(parked.park(&count.clone().into()));
        (0..3).for_each(|n| posts[0].send(1, n));
        let _ = posts[0].flush();
        posts[0].send(1, 9);
        let _ = posts[0].flush();
        assert_eq!(wakes(), 1);
    }

    #[test]
    fn wakers_do_not_pile_up() {
        let posts = mesh::<()>(1, 1);
        let count = Arc::new(CountingWaker::default());
        let waker = count.clone().into();
        let parked = posts[0].waker();
        for _ in 0..40_000 {
            assert!(parked.park(&waker));
            parked.unpark();
        }
        assert_eq!(Arc::strong_count(&count), 3);
    }

    /// Two shards that answer each other and sleep in between: a lost wake stops both.
    #[test]
    fn no_wake_is_lost() {
        const ROUNDS: usize = 100_000;
        const PATIENCE: Duration = Duration::from_secs(5);

        fn play(mut post: Post<usize>, me: usize, serves: bool) {
            let waker = Waker::from(Arc::new(Unparker(thread::current())));
            let parked = post.waker();
            let mut taken = VecDeque::new();
            let mut next = usize::from(!serves);
            if serves {
                post.send(1 - me, 0);
                next = 1;
            }
            let _ = post.flush();
            // Even numbers go one way and odd ones the other.
            let mut expected = if serves { 1 } else { 0 };
            while expected < ROUNDS {
                post.take(8, &mut taken);
                if let Some((_, ball)) = taken.pop_front() {
                    assert_eq!(ball, expected);
                    expected += 2;
                    next = next.max(ball + 1);
                    post.send(1 - me, next);
                    assert_eq!(post.flush(), Flush::Clear);
                } else if parked.park(&waker) {
                    let slept = Instant::now();
                    // The parking of threads keeps one token, so an early unpark is not lost.
                    thread::park_timeout(PATIENCE);
                    parked.unpark();
                    assert!(slept.elapsed() < PATIENCE, "wake {expected} was lost");
                }
            }
        }

        let mut posts = mesh(2, 4);
        let (two, one) = (posts.pop().unwrap(), posts.pop().unwrap());
        let players =
            [thread::spawn(move || play(one, 0, true)), thread::spawn(move || play(two, 1, false))];
        for player in players {
            player.join().unwrap();
        }
    }

    /// A flood through a narrow lane, against a receiver that sleeps whenever it can.
    #[test]
    fn a_flood_arrives_whole_and_in_order() {
        const MAIL: usize = 200_000;
        let mut posts = mesh(2, 16);
        let (mut receiver, mut sender) = (posts.pop().unwrap(), posts.pop().unwrap());
        let flood = thread::spawn(move || {
            for n in 0..MAIL {
                sender.send(1, n);
                if n % 5 == 0 {
                    while sender.flush() == Flush::Held {
                        thread::yield_now();
                    }
                }
            }
            while sender.flush() == Flush::Held {
                thread::yield_now();
            }
        });
        let waker = Waker::from(Arc::new(Unparker(thread::current())));
        let parked = receiver.waker();
        let mut taken = VecDeque::new();
        let mut expected = 0;
        while expected < MAIL {
            receiver.take(64, &mut taken);
            if taken.is_empty() && parked.park(&waker) {
                let slept = Instant::now();
                thread::park_timeout(Duration::from_secs(5));
                parked.unpark();
                assert!(slept.elapsed() < Duration::from_secs(5), "a wake was lost");
            }
            for (from, n) in taken.drain(..) {
                assert_eq!((from, n), (0, expected));
                expected += 1;
            }
        }
        flood.join().unwrap();
    }
}
