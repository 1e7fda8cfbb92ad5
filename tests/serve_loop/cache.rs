//! The cache, and who holds up whom.

use super::*;

/// The longest time a frame of a live track took to a viewer, of frames made every few ms.
fn live_delay(s: &mut Scene, sub: Sub, groups: std::ops::Range<u64>) -> Duration {
    let mut made = Vec::new();
    for sequence in groups.clone() {
        s.w.open_group(s.cam, sequence);
        for _ in 0..10 {
            s.w.frame(s.cam, sequence, 1000);
            made.push(s.w.now);
            s.w.run(ms(4));
        }
        s.w.end_group(s.cam, sequence, End::Finished);
    }
    s.w.run(ms(1000));
    let came = groups.flat_map(|sequence| s.w.sub(sub).groups[&sequence].came.clone());
    let came: Vec<_> = came.collect();
    assert_eq!(came.len(), made.len(), "{:?}: frames are missing", s.place);
    came.into_iter().zip(made).map(|(came, made)| came - made).max().expect("frames")
}

/// Past groups that are large, and a live viewer of what follows them.
fn heavy(version: Version, place: Place) -> (Scene, Sub) {
    let setup = Setup { hop: 7, ..Setup::default() };
    let spec = Spec { setup, is_swift: true, ..Spec::new(version, place.publisher) };
    let mut s = scene_with(Stage::new(1, place.shards), spec, place);
    for sequence in 0..64 {
        s.w.group(s.cam, sequence, &[30_000, 1, 30_000]);
    }
    let ann = s.viewer(Lite06, 0);
    let sub = s.subscribe(ann, range(100, None));
    s.w.run(SOON);
    s.w.all_settled();
    (s, sub)
}

fn dropped(s: &Scene) -> u64 {
    (0..s.place.shards).map(|shard| s.w.counters(shard).dropped_groups_total).sum()
}

#[test]
fn sixty_four_fetches_do_not_hold_up_what_is_live() {
    for version in FETCHABLE {
        for place in PLACES {
            let (mut s, sub) = heavy(version, place);
            let before = live_delay(&mut s, sub, 100..105);
            let viewers = [0, 1, 2, 3].map(|nth| s.viewer(FETCHABLE[nth % 2], nth));
            let gets: Vec<Get> =
                (0..64).map(|group| s.fetch(viewers[group as usize % 4], whole(group))).collect();
            let during = live_delay(&mut s, sub, 105..125);
            assert!(during <= before + ms(2), "{place:?}: {before:?}, then {during:?}");
            s.outcomes(&gets, (3, DONE));
            assert_eq!((s.w.got(sub).len(), dropped(&s)), (25, 0), "{place:?}");
            s.w.end();
        }
    }
}

#[test]
fn a_viewer_that_fetches_sees_what_is_live_first() {
    for version in FETCHABLE {
        for place in PLACES {
            let (mut s, sub) = heavy(version, place);
            let before = live_delay(&mut s, sub, 100..105);
            let gets: Vec<Get> = (0..14).map(|group| s.fetch(sub.peer, whole(group))).collect();
            let during = live_delay(&mut s, sub, 105..125);
            // What the congestion window has taken already is ahead.
            assert!(during <= before + WAY, "{place:?}: {before:?}, then {during:?}");
            s.outcomes(&gets, (3, DONE));
            assert_eq!((s.w.got(sub).len(), dropped(&s)), (25, 0), "{place:?}");
            s.w.end();
        }
    }
}

#[test]
fn one_who_does_not_read_for_a_minute_costs_the_others_nothing() {
    let mut s = scene(Lite06, APART);
    s.w.groups_expire = true;
    s.w.source(s.cam).info.max_age_ms = 5000;
    let bob = s.watch(Lite05, 0);
    let slow = s.watch(Lite05, 1);
    s.w.peers[slow.peer].read_groups(false);
    // 10 Mb/s: a group a second of 25 frames.
    let mut next = 0;
    let mut film = |s: &mut Scene, seconds: u64| {
        for _ in 0..seconds {
            s.w.open_group(s.cam, next);
            for _ in 0..25 {
                s.w.frame(s.cam, next, 50_000);
                s.w.run(ms(40));
            }
            s.w.end_group(s.cam, next, End::Finished);
            next += 1;
        }
    };
    film(&mut s, 60);
    assert!(s.w.got(slow).len() < 10, "{:?}", s.w.got(slow));
    s.w.peers[slow.peer].read_groups(true);
    film(&mut s, 10);
    s.w.run(ms(1000));
    assert_eq!(s.w.got(bob), (0..70).collect::<Vec<_>>());
    let known = s.w.sub(slow);
    assert_eq!(known.end, None, "it is behind, not gone");
    let late = [reset(StreamCode::OLD), reset(StreamCode::TOO_FAR_BEHIND)];
    for (sequence, seen) in &known.groups {
        assert!(seen.end == DONE || late.contains(&seen.end), "group {sequence}: {:?}", seen.end);
    }
    let got = s.w.got_sorted(slow);
    assert!(got.ends_with(&[62, 63, 64, 65, 66, 67, 68, 69]), "{got:?}");
    s.w.end();
}

/// A group that never ended is given up for its age where its publisher's news comes in. Elsewhere other groups
/// may have left the cache, by which it would be younger.
#[test]
fn a_group_that_is_given_up_for_its_age_is_so_on_every_shard() {
    for version in VERSIONS {
        let place = place(2, 1, 0, 1);
        let cache = CacheBounds { bytes: CACHE_BYTES, duration: ms(2000) };
        let mut s = scene_on(Stage { cache, ..Stage::new(1, 2) }, Lite06, place);
        s.w.groups_expire = true;
        s.w.source(s.cam).info.max_age_ms = 1000;
        let there = s.watch(version, 0);
        let here = s.watch(version, 1);
        let fan = s.viewer(Lite06, 1);
        let group = |s: &mut Scene, sequence, timestamp| {
            s.w.open_group(s.cam, sequence);
            s.w.frame_at(s.cam, sequence, timestamp, 100);
            s.w.run(SOON);
        };
        group(&mut s, 0, 0);
        for sequence in [1, 2] {
            group(&mut s, sequence, 1000 * sequence);
            s.w.end_group(s.cam, sequence, End::Finished);
        }
        // At home somebody asks for the group after it again and again.
        for _ in 0..6 {
            s.w.run(ms(1000));
            let get = s.fetch(fan, whole(1));
            s.w.run(SOON);
            assert_eq!(s.w.outcome(get), (1, DONE));
        }
        group(&mut s, 3, 11_500);
        s.w.frame_at(s.cam, 0, 11_500, 100);
        s.w.end_group(s.cam, 0, End::Finished);
        s.w.run(SOON);
        for sub in [here, there] {
            let seen = &s.w.sub(sub).groups[&0];
            assert_eq!((seen.frames.len(), seen.end), (1, reset(StreamCode::OLD)), "{version}");
        }
        s.w.end();
    }
}

fn small_cache(shards: usize, bytes: u64) -> Stage {
    let duration = ms(4000);
    Stage { cache: CacheBounds { bytes, duration }, linger: ms(1000), ..Stage::new(1, shards) }
}

/// What a group of 40 KB takes, with its frames' share.
const GROUP_BYTES: u64 = 44_000;

impl Scene {
    fn large_groups(&mut self, sequences: std::ops::Range<u64>) {
        for sequence in sequences {
            self.w.group(self.cam, sequence, &[10_000, 10_000, 10_000, 10_000]);
            self.w.run(ms(60));
        }
    }

    #[track_caller]
    fn assert_cache(&self, at_most: u64) {
        let bytes: Vec<u64> = self.w.held().iter().map(|held| held.cache_bytes).collect();
        assert!(bytes.iter().all(|bytes| *bytes <= at_most), "{bytes:?} above {at_most}");
    }
}

#[test]
fn a_full_cache_keeps_the_newest_group_of_each_live_track() {
    everywhere(|version, place| {
        let mut s = scene_on(small_cache(place.shards, 5 * GROUP_BYTES), version, place);
        let quiet = s.w.track(s.cam.peer, PATH, "quiet");
        let ann = s.viewer(Lite06, 0);
        let sub = s.subscribe(ann, live());
        let other = s.w.subscribe(ann, PATH, "quiet", live());
        s.w.run(SOON);
        s.w.all_settled();
        s.w.group(quiet, 0, &[40_000]);
        s.w.run(ms(60));
        for sequence in 0..20 {
            s.large_groups(sequence..sequence + 1);
            s.assert_cache(7 * GROUP_BYTES);
        }
        assert_eq!(s.w.got(sub), (0..20).collect::<Vec<_>>(), "{place:?}");
        assert_eq!(s.w.got(other), [0]);
        let held = s.w.held().iter().map(|held| held.cache_bytes).max();
        assert!(held > Some(3 * GROUP_BYTES), "it is a cache after all: {held:?}");

        s.w.asked(s.cam.peer);
        let bob = s.viewer(Lite05, 1);
        let newest = [s.w.fetch(bob, PATH, "quiet", whole(0)), s.fetch(bob, whole(19))];
        s.check(&[]);
        assert_eq!(newest.map(|get| s.w.outcome(get)), [(1, DONE), (4, DONE)], "{place:?}");
        // Gone, so fetched; and then there.
        for _ in 0..2 {
            let get = s.fetch(bob, whole(3));
            s.check(&[s.fetches(whole(3))]);
            assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
            let get = s.fetch(bob, whole(3));
            s.check(&[]);
            assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
            let next = s.w.source(s.cam).groups.len() as u64;
            s.large_groups(next..next + 10);
            s.assert_cache(7 * GROUP_BYTES);
        }
        s.w.end();
    });
}

#[test]
fn fetched_groups_stay_within_the_bounds_of_the_cache() {
    everywhere(|version, place| {
        let mut s = scene_on(small_cache(place.shards, 5 * GROUP_BYTES), version, place);
        (0..40).for_each(|group| s.w.group(s.cam, group, &[20_000, 20_000]));
        let viewers = [0, 1, 2].map(|nth| s.viewer(FETCHABLE[nth % 2], nth));
        for group in 0..40 {
            let get = s.fetch(viewers[group as usize % 3], whole(group));
            s.w.run(ms(150));
            assert_eq!(s.w.outcome(get), (2, DONE), "{place:?}");
            s.assert_cache(6 * GROUP_BYTES);
        }
        s.w.end();
    });
}

#[test]
fn who_reads_a_group_that_is_evicted_is_told_so() {
    everywhere(|version, place| {
        let mut s = scene_on(small_cache(place.shards, 8 * GROUP_BYTES), version, place);
        let live_one = s.watch(Lite06, 0);
        s.w.group(s.cam, 0, &[100_000, 100_000]);
        s.w.run(ms(300));
        assert_eq!(s.w.got(live_one), [0]);
        let shard = place.viewer;
        let slow = s.w.join(Spec { window: 20_000, ..Spec::new(Lite06, shard) });
        s.w.peers[slow].read_groups(false);
        let get = s.fetch(slow, whole(0));
        s.w.run(SOON);
        s.large_groups(1..20);
        s.assert_cache(10 * GROUP_BYTES);
        s.w.peers[slow].read_groups(true);
        // A round trip, and what fills a small window.
        s.w.run(ms(100));
        let (_, end) = s.w.outcome(get);
        assert_eq!(end, reset(StreamCode::EVICTED), "{place:?}");
        assert_eq!(s.w.got(live_one), (0..20).collect::<Vec<_>>(), "{place:?}");
        s.w.end();
    });
}

#[test]
fn who_reads_a_group_that_makes_room_for_a_larger_one_is_told_so() {
    everywhere(|version, place| {
        let mut s = scene_on(small_cache(place.shards, 20_000), version, place);
        let live_one = s.watch(Lite06, 0);
        s.w.group(s.cam, 0, &[8000]);
        s.w.run(SOON);
        assert_eq!(s.w.got(live_one), [0]);
        let slow = s.w.join(Spec { window: 2000, ..Spec::new(Lite06, place.viewer) });
        s.w.peers[slow].read_groups(false);
        let get = s.fetch(slow, whole(0));
        s.w.run(SOON);
        // So large that to let go of the one is not enough.
        s.w.group(s.cam, 1, &[100_000]);
        s.w.run(ms(300));
        s.w.peers[slow].read_groups(true);
        s.w.run(ms(500));
        assert_eq!(s.w.outcome(get).1, reset(StreamCode::EVICTED), "{place:?}");
        s.w.end();
    });
}

#[test]
fn what_is_too_large_for_the_cache_is_whole_or_cut_off_for_all() {
    everywhere(|version, place| {
        let mut s = scene_on(small_cache(place.shards, 10_000), version, place);
        let subs = [0, 1, 2].map(|nth| s.watch(FETCHABLE[nth % 2], nth));
        let (ann, bob) = (subs[0].peer, subs[1].peer);
        for sequence in 0..3 {
            s.w.open_group(s.cam, sequence);
            s.w.frame(s.cam, sequence, 8000);
            s.w.run(SOON);
            let gets = [ann, bob].map(|peer| s.fetch(peer, whole(sequence)));
            for _ in 0..4 {
                s.w.run(SOON);
                s.w.frame(s.cam, sequence, 8000);
            }
            s.w.end_group(s.cam, sequence, End::Finished);
            s.w.run(SOON);
            let is_told = |end| end == DONE || end == reset(StreamCode::EVICTED);
            for sub in subs {
                let end = s.w.sub(sub).groups.get(&sequence).and_then(|seen| seen.end);
                assert!(is_told(end), "{place:?} group {sequence}: {end:?}");
            }
            for get in gets {
                let (_, end) = s.w.outcome(get);
                assert!(is_told(end), "{place:?} fetch of {sequence}: {end:?}");
            }
        }
        s.w.end();
    });
}

#[test]
fn what_the_home_lets_go_of_does_not_stay_open_elsewhere() {
    everywhere(|version, place| {
        let mut s = scene_on(small_cache(place.shards, 30_000), version, place);
        let sub = s.watch(Lite06, 0);
        s.w.open_group(s.cam, 0);
        s.w.frame(s.cam, 0, 8000);
        s.w.run(SOON);
        let bob = s.viewer(Lite05, 0);
        let get = s.fetch(bob, whole(0));
        // Something large that has its home there as well, and no viewer anywhere else.
        let large = homed("live/large", place.home, place.shards);
        s.w.peers[s.cam.peer].announce("live/large", &[], Cost::ZERO);
        let film = s.w.track(s.cam.peer, "live/large", &large);
        s.w.run(SOON);
        let ann = s.w.viewer(Lite06, place.home);
        let other = s.w.subscribe(ann, "live/large", &large, live());
        s.w.run(SOON);
        s.w.open_group(film, 0);
        for _ in 0..5 {
            s.w.frame(film, 0, 8000);
            s.w.run(SOON);
        }
        s.w.end_group(film, 0, End::Finished);
        s.w.run(SOON);
        for _ in 0..2 {
            s.w.frame(s.cam, 0, 100);
            s.w.run(SOON);
        }
        s.w.end_group(s.cam, 0, End::Finished);
        s.w.run(SOON);
        let (_, fetched) = s.w.outcome(get);
        let ends = [s.w.sub(sub).groups[&0].end, s.w.sub(other).groups[&0].end, fetched];
        let is_told = |end: &Option<End>| *end == DONE || *end == reset(StreamCode::EVICTED);
        assert!(ends.iter().all(is_told), "{place:?}: {ends:?}");
        s.w.end();
    });
}

#[test]
fn a_group_that_pauses_is_of_use_to_those_who_wait_for_it() {
    everywhere(|version, place| {
        let mut s = scene_on(small_cache(place.shards, CACHE_BYTES), version, place);
        let subs = [0, 1].map(|nth| s.watch(FETCHABLE[nth], nth));
        s.w.open_group(s.cam, 0);
        s.w.frame(s.cam, 0, 10);
        let other = s.w.track(s.cam.peer, PATH, "other");
        s.w.open_group(other, 0);
        s.w.frame(other, 0, 10);
        s.w.run(SOON);
        let viewers = [0, 1, 2].map(|nth| s.viewer(FETCHABLE[nth % 2], nth));
        let gets = viewers.map(|viewer| s.w.fetch(viewer, PATH, "other", whole(0)));
        for count in 1..4 {
            // Longer than the cache keeps what nobody asks for.
            s.w.run(s.w.stage.cache.duration * 2);
            s.outcomes(&gets, (count, None));
            s.w.frame(s.cam, 0, 10);
            s.w.frame(other, 0, 10);
            s.w.run(SOON);
        }
        s.w.end_group(s.cam, 0, End::Finished);
        s.w.end_group(other, 0, End::Finished);
        s.w.run(SOON);
        s.outcomes(&gets, (4, DONE));
        for sub in subs {
            assert_eq!(s.w.got(sub), [0], "{place:?}");
        }
        s.w.end();
    });
}

#[test]
fn what_nobody_asks_for_leaves_the_cache_in_time() {
    everywhere(|version, place| {
        let (linger, duration) = (ms(2000), ms(7000));
        let cache = CacheBounds { bytes: CACHE_BYTES, duration };
        let stage = Stage { linger, cache, ..Stage::new(1, place.shards) };
        let mut s = scene_on(stage, version, place);
        let sub = s.watch(Lite06, 0);
        s.large_groups(0..3);
        s.w.leave(sub);
        s.w.run(linger + SOON);
        let bytes = |s: &Scene| s.w.held().iter().map(|held| held.cache_bytes).sum::<u64>();
        assert!(bytes(&s) >= 120_000, "{place:?}: {}", bytes(&s));
        // Used once more, and only that one.
        s.w.run(ms(3000));
        let bob = s.viewer(Lite05, 0);
        let get = s.fetch(bob, whole(1));
        s.w.run(SOON);
        assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
        s.w.run(ms(3500));
        assert!((40_000..100_000).contains(&bytes(&s)), "{place:?}: {}", bytes(&s));
        s.w.run(duration + linger);
        assert_eq!(bytes(&s), 0, "{place:?}");
        let get = s.fetch(bob, whole(1));
        s.w.asked(s.cam.peer);
        s.check(&[s.asks(), s.fetches(whole(1))]);
        assert_eq!(s.w.outcome(get), (4, DONE), "{place:?}");
        s.w.end();
    });
}

/// However soon after their time groups are asked for: what is named as the first one comes.
#[test]
fn a_viewer_is_not_told_to_begin_with_what_is_leaving_the_cache() {
    everywhere(|version, place| {
        for late in [0, 3, 6, 9, 12, 15] {
            let duration = ms(7000);
            let cache = CacheBounds { bytes: CACHE_BYTES, duration };
            let mut s = scene_on(Stage { cache, ..Stage::new(1, place.shards) }, version, place);
            s.watch(Lite06, 0);
            s.groups(0..2);
            let made_at = s.w.now;
            s.w.run(ms(3000));
            s.groups(2..4);
            let bob = s.viewer(Lite06, 0);
            s.w.run(made_at + duration - s.w.now + ms(late));
            let sub = s.subscribe(bob, live());
            s.w.run(SOON);
            let first = s.w.got_sorted(sub).first().copied();
            let start = s.w.sub(sub).start;
            assert!(first.is_some() && start == first, "{late} {place:?}: {start:?} {first:?}");
            assert!(late < 6 || first == Some(2), "{late} {place:?}: {first:?}");
            s.w.end();
        }
    });
}
