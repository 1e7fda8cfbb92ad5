//! Guests, who are outside of all shards.

use super::*;

/// What a guest waits with for the newest group.
fn newest() -> Preferences {
    Preferences { priority: 0, max_age_ms: 0, ..live() }
}

impl Scene {
    fn guest(&mut self, group: Option<u64>) -> Guest {
        let track = self.track.clone();
        self.w.guest(PATH, &track, group)
    }

    fn guests(&self) -> usize {
        self.w.held().iter().map(|held| held.guests).sum()
    }
}

#[test]
fn guests_share_a_fetch_with_viewers_and_the_cache() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..3);
        let mut one = s.guest(Some(1));
        let ann = s.viewer(Lite05, 0);
        let two = s.fetch(ann, whole(1));
        s.check(&[s.asks(), s.fetches(Want { priority: 0, ..whole(1) })]);
        assert_eq!((one.outcome(), s.w.outcome(two)), ((4, Some(Ok(()))), (4, DONE)));
        let mut again = s.guest(Some(1));
        let mut unknown = s.w.guest("live/nobody", "video", Some(1));
        s.check(&[]);
        assert_eq!(again.outcome(), (4, Some(Ok(()))));
        assert_eq!(unknown.outcome(), (0, Some(Err(StreamCode::UNROUTABLE))));
        let mut missing = s.guest(Some(9));
        s.w.run(SOON);
        assert_eq!(missing.outcome(), (0, Some(Err(StreamCode::NOT_FOUND))));
        assert_eq!(s.guests(), 0);
        s.w.end();
    });
}

#[test]
fn the_newest_group_is_subscribed_to_until_it_is_known() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        let mut one = s.guest(None);
        s.check(&[s.asks(), s.subscribes(newest())]);
        assert_eq!((one.outcome(), s.guests()), ((0, None), 1));
        s.w.open_group(s.cam, 7);
        s.w.frame(s.cam, 7, 100);
        s.check(&[s.pauses(0, 7)]);
        assert_eq!(one.outcome(), (1, None));
        // It is the newest that this relay knows, but the publisher may have others by now.
        let mut two = s.guest(None);
        s.check(&[Asked::Update(newest())]);
        assert_eq!(two.outcome(), (0, None));
        s.w.guest_settles(&two);
        s.check(&[s.pauses(0, 7)]);
        assert_eq!(two.outcome(), (1, None));
        s.w.frame(s.cam, 7, 100);
        s.w.end_group(s.cam, 7, End::Finished);
        s.check(&[]);
        assert_eq!((one.outcome(), two.outcome()), ((2, Some(Ok(()))), (2, Some(Ok(())))));
        // Where somebody watches there is no doubt.
        let viewer = s.watch(Lite06, 0);
        s.groups(8..10);
        s.w.run(SOON);
        s.w.asked(s.cam.peer);
        let mut three = s.guest(None);
        s.check(&[]);
        assert_eq!((three.outcome(), s.guests()), ((4, Some(Ok(()))), 0));
        s.w.leave(viewer);
        s.w.end();
    });
}

#[test]
fn a_guest_that_leaves_leaves_nothing_behind() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.pace(1);
        s.groups(0..2);
        let fetching = s.guest(Some(0));
        s.check(&[s.asks(), s.fetches(Want { priority: 0, ..whole(0) })]);
        s.w.guest_leaves(fetching);
        s.check(&[Asked::FetchEnded(0, End::Reset(StreamCode::CANCEL.0))]);
        let track = homed("live/other", place.home, place.shards);
        let other = s.w.track(s.cam.peer, "live/other", &track);
        s.w.peers[s.cam.peer].announce("live/other", &[], Cost::ZERO);
        s.w.run(SOON);
        let waiting = s.w.guest("live/other", &track, None);
        s.check(&[Asked::Track(track.clone()), Asked::Subscribe(track.clone(), newest())]);
        s.w.guest_leaves(waiting);
        s.check(&[s.pauses(0, 0)]);
        let reading = s.w.guest("live/other", &track, None);
        s.w.run(SOON);
        s.w.open_group(other, 3);
        s.w.frame(other, 3, 100);
        s.w.run(SOON);
        assert_eq!(s.guests(), 1);
        s.w.guest_leaves(reading);
        s.w.run(SOON);
        assert_eq!(s.guests(), 0);
        s.w.end();
    });
}

#[test]
fn a_track_that_ends_or_fails_is_over_for_guests_too() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        let mut none = s.guest(None);
        s.w.run(SOON);
        s.w.close(s.cam.peer);
        s.w.run(SOON);
        assert!(matches!(none.outcome(), (0, Some(Err(_)))), "{place:?}");
        assert_eq!(s.guests(), 0);
        s.w.end();
    });
}

/// Those who read nothing make room for others, and the home holds nothing for them.
#[test]
fn guests_that_do_not_read_are_cut_off() {
    everywhere(|version, place| {
        let mut s = scene(version, place);
        s.groups(0..1);
        let unread = shardcast::shard::guest::Unread::new(4000);
        let track = s.track.clone();
        let one = s.w.guest_with(PATH, &track, Some(0), &unread);
        s.w.run(SOON);
        let mut two = s.w.guest_with(PATH, &track, Some(0), &unread);
        s.w.run(SOON);
        assert!(one.is_cut_off() && !two.is_cut_off(), "{place:?}");
        assert_eq!((two.outcome(), s.guests()), ((4, Some(Ok(()))), 0));
        // What was read makes room.
        let mut three = s.w.guest_with(PATH, &track, Some(0), &unread);
        s.w.run(SOON);
        assert_eq!(three.outcome(), (4, Some(Ok(()))));
        assert!(!two.is_cut_off());
        // Nobody has room for what is more than there is.
        let little = shardcast::shard::guest::Unread::new(100);
        let mut four = s.w.guest_with(PATH, &track, Some(0), &little);
        s.w.run(SOON);
        assert_eq!(four.outcome(), (0, Some(Err(StreamCode::TOO_FAR_BEHIND))));
        s.w.end();
    });
}
