//! A publisher and viewers, with groups flowing, for plays that do something else meanwhile.

use super::client::{
    LITE_06, Peer, Role as Part, VERSIONS, View, carries_ends, carries_timestamps,
};
use super::flow::{Flow, prologue};
use super::relay::Relay;

/// Fixes every payload and all noise. Printed by each drill, so a failure can be repeated.
pub const SEED: u64 = 0x5eed_0000_d411_1500;

pub const TRACK: &str = "video";

/// A publisher and a viewer of every version, with groups flowing: what no drill may harm.
pub struct Show {
    path: &'static str,
    publisher: Peer,
    pub flow: Flow,
    pub audience: Vec<(String, Peer, View)>,
}

impl Show {
    pub async fn open(relay: &Relay, path: &'static str) -> Show {
        println!("seed {SEED:#x}");
        Show::with_viewers(relay, path, VERSIONS.map(|version| (version, relay.clone()))).await
    }

    /// With viewers who dial what they are given.
    pub async fn with_viewers(
        relay: &Relay,
        path: &'static str,
        viewers: impl IntoIterator<Item = (&'static str, Relay)>,
    ) -> Show {
        let publisher = Peer::connect(relay, LITE_06, Part::Publisher).await;
        let mut channel = publisher.announce(path, &[TRACK]);
        let prologue = prologue(SEED, 0);
        channel.publish(TRACK, &prologue);
        let mut audience = Vec::new();
        for (number, (version, dialled)) in viewers.into_iter().enumerate() {
            let mut viewer = Peer::connect(&dialled, version, Part::Viewer).await;
            let who = format!("viewer {number} ({version}, shard {})", viewer.shard);
            viewer.sees(path).await;
            let mut view = viewer.subscribe(path, TRACK).await.expect("subscription");
            view.expect(&who, &prologue, carries_timestamps(version)).await;
            audience.push((who, viewer, view));
        }
        let flow = Flow::start(channel, TRACK, SEED, 1);
        Show { path, publisher, flow, audience }
    }

    /// Ends the track and the broadcast; everybody has heard all of it, and that it was all.
    pub async fn close(mut self) {
        // Whatever the drill did has had its effect on a few groups too.
        self.flow.more(10).await;
        let (mut channel, said) = self.flow.end().await;
        channel.finish(TRACK);
        for (who, viewer, view) in &mut self.audience {
            view.expect(who, &said, carries_timestamps(viewer.version)).await;
            if carries_ends(viewer.version) {
                view.expect_end(who).await;
            }
        }
        println!("{} groups, nothing lost", said.groups.len());
        self.publisher.leave().await;
        for (_, viewer, _) in &mut self.audience {
            viewer.loses(self.path).await;
        }
    }
}
