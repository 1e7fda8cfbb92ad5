//! The relay under a virtual clock: shards, mail and QUIC as they are, network and peers as a
//! seed makes them. Every play is exact: the same seed gives the same history.

mod support {
    pub mod network;
    pub mod peer;
    pub mod world;
}

use shardcast::wire::*;
use support::peer::*;
use support::world::*;

const PATH: &str = "live/cam";

const VERSIONS: [Version; 4] =
    [Version::Lite03, Version::Lite04, Version::Lite05, Version::Lite06];

#[test]
fn a_group_reaches_a_viewer_wherever_publisher_home_and_viewer_live() {
    for shards in 1..=3 {
        for at in 0..shards {
            for home in 0..shards {
                let mut w = World::new(Stage::new(1, shards));
                let track = homed(PATH, home, shards);
                let cam = w.publisher(Version::Lite06, at, PATH, &track);
                let ann = w.viewer(Version::Lite06, shards - 1);
                let sub = w.subscribe(ann, PATH, &track, live());
                w.run(ms(200));
                w.all_settled();
                w.group(cam, 0, &[10, 0, 2000, 7]);
                w.group(cam, 1, &[1, 300 << 10]);
                w.run(ms(1000));
                w.finish(cam, 2);
                w.run(ms(1000));
                assert_eq!(w.got(sub), [0, 1], "shards {shards} publisher {at} home {home}");
                assert_eq!(w.sub(sub).end, Some(End::Finished));
                w.end();
            }
        }
    }
}
