//! Groups that flow without pause, so that whatever happens meanwhile happens under load.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::client::{Channel, Script, within};

/// A small frame, one of a datagram, one of several, and none at all.
const SIZES: [usize; 4] = [200, 1200, 6000, 0];

/// From one group to the next.
const PERIOD: Duration = Duration::from_millis(8);

/// The groups of a script are a second of presentation apart. Here they keep pace with the clock,
/// or those that wait for a moment would be too old to be delivered.
const SPEED: u64 = Duration::from_secs(1).as_millis() as u64 / PERIOD.as_millis() as u64;

fn script(seed: u64, first: u64, count: u64) -> Script {
    let mut script = Script::new(seed, first, count, &SIZES);
    for frame in script.groups.iter_mut().flat_map(|group| &mut group.frames) {
        frame.ticks /= SPEED;
    }
    script
}

/// The one group before those that flow. A viewer who has it is certainly subscribed, so nothing
/// later may pass it by.
pub fn prologue(seed: u64, sequence: u64) -> Script {
    script(seed, sequence, 1)
}

pub struct Flow {
    seed: u64,
    first: u64,
    published: watch::Receiver<u64>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Channel>,
}

impl Flow {
    /// Publishes groups from `first` on.
    pub fn start(mut channel: Channel, track: &'static str, seed: u64, first: u64) -> Flow {
        let (stop, mut stopped) = oneshot::channel();
        let (count, published) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for sequence in first.. {
                tokio::select! {
                    _ = ticks.tick() => {}
                    _ = &mut stopped => break,
                }
                let script = script(seed, sequence, 1);
                channel.publish_group(track, &script, &script.groups[0]);
                count.send_replace(sequence + 1 - first);
            }
            channel
        });
        Flow { seed, first, published, stop, task }
    }

    /// Groups published so far.
    pub fn count(&self) -> u64 {
        *self.published.borrow()
    }

    /// Waits until this many more groups were published.
    pub async fn more(&mut self, groups: u64) {
        let wanted = self.count() + groups;
        let reached = self.published.wait_for(|count| *count >= wanted);
        within("groups to be published", reached).await.expect("the flow goes on");
    }

    /// Stops, and tells all that was said.
    pub async fn end(self) -> (Channel, Script) {
        let _ = self.stop.send(());
        let channel = self.task.await.expect("the flow does not panic");
        let count = *self.published.borrow();
        (channel, script(self.seed, self.first, count))
    }
}
