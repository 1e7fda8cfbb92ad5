//! What peers may make a shard hold, in the simulated world: windows begin small and are in nobody's way,
//! and who gets no more goes on with what it has.

mod support {
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod http3;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod network;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod peer;
    #[allow(dead_code, reason = "each play needs a part of what all plays share")]
    pub mod world;
}

use std::time::Duration;

use shardcast::limits::*;
use shardcast::wire::*;
use support::network::Weather;
use support::peer::*;
use support::world::*;

const PATH: &str = "live/cam";
const TRACK: &str = "video";

use Version::Lite06;

const RTT: Duration = Duration::from_millis(100);
const FAR: Weather = Weather { latency: Duration::from_millis(50), ..Weather::FAIR };

/// A publisher and a viewer, on a shard with so much memory for them.
struct Show {
    w: World,
    cam: Track,
    sub: Sub,
    groups: u64,
}

impl Show {
    fn new(publisher: Spec, viewer: Spec, memory: u64) -> Show {
        let mut w = World::new(Stage { memory, ..Stage::new(1, 1) });
        let cam = w.publisher_like(publisher.hop(7), PATH, TRACK);
        let viewer = w.join(viewer);
        let sub = w.subscribe(viewer, PATH, TRACK, live());
        w.run(ms(500));
        w.all_settled();
        Show { w, cam, sub, groups: 0 }
    }

    /// How long a group of so many frames takes to be there whole.
    fn group(&mut self, sizes: &[usize]) -> Duration {
        let (sequence, made) = (self.groups, self.w.now);
        self.groups += 1;
        self.w.group(self.cam, sequence, sizes);
        let sub = self.sub;
        let is_whole = |w: &World| {
            let seen = w.sub(sub).groups.get(&sequence);
            seen.is_some_and(|seen| seen.end == Some(End::Finished))
        };
        assert!(self.w.run_until(ms(20_000), is_whole), "group {sequence} is not there");
        self.w.now - made
    }

    fn granted(&self) -> u64 {
        self.w.held()[0].granted_bytes
    }
}

fn spec(weather: Weather) -> Spec {
    Spec { weather, ..Spec::new(Lite06, 0) }
}

/// 2 MiB take a sender that begins with 14 KiB and doubles that in each round trip eight of them.
#[test]
fn the_first_group_of_a_publisher_far_away_waits_for_no_window() {
    let mut show = Show::new(spec(FAR), spec(Weather::FAIR), MEMORY_BYTES);
    let took = show.group(&[128 << 10; 16]);
    println!("{took:?}");
    assert!(took <= 8 * RTT + ms(50), "{took:?}");
    // And no more than it needs is granted.
    let sessions = 2 * SESSION_BYTES + (STREAMS_UNI_PUBLISHER - STREAMS_UNI_START) * STREAM_BYTES;
    assert!(show.granted() - sessions <= 8 << 20, "{}", show.granted());
    show.w.end();
}

/// 50 Mb/s of somebody who sends as fast as flow control has it.
#[test]
fn a_publisher_far_away_reaches_its_rate_within_a_few_round_trips() {
    let mut show =
        Show::new(Spec { is_swift: true, ..spec(FAR) }, spec(Weather::FAIR), MEMORY_BYTES);
    let first = show.group(&[128 << 10; 16]);
    println!("{first:?}");
    assert!(first <= 4 * RTT, "{first:?}");
    for _ in 0..20 {
        let took = show.group(&[125_000; 5]);
        assert!(took <= RTT, "{took:?}");
        show.w.run(RTT - ms(60));
    }
    show.w.end();
}

/// Where all is granted, nobody who is there loses anything but speed.
#[test]
fn who_gets_no_more_goes_on_with_what_it_has() {
    let mut show = Show::new(spec(FAR), spec(FAR), 2 * SESSION_BYTES + SESSION_BYTES / 2);
    let granted = show.granted();
    assert_eq!(granted, 2 * SESSION_BYTES);
    let took = show.group(&[128 << 10; 4]);
    println!("{took:?}");
    assert!(took <= 20 * RTT, "{took:?}");
    assert_eq!(show.granted(), granted);
    show.w.end();
}
