//! The built relay behind links of real sockets that lose, narrow and fall silent, with released clients
//! on both ends: the bounds are what a machine that is busy with something else still keeps, and what
//! control by loss does not.

#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod relay;
    pub mod watch;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use shardcast_link::path::{Options, Outage};
use shardcast_link::wire::{Total, Wire};
use support::relay::Relay;
use support::watch::{Video, watch};
use url::Url;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The first window grows before anything is counted.
const WARMUP: Duration = ms(1000);
const LASTS: Duration = ms(6000);

/// Who is behind the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Behind {
    Viewer,
    Publisher,
}

struct Row {
    name: &'static str,
    link: Options,
    behind: Behind,
    /// So large a share of the frames comes so soon.
    share: f64,
    soon: Duration,
}

/// What comes so soon is all of it, or the 0.79 that a narrow link holds; with control by loss it is 0.34,
/// 0.64 and 0.11 before viewers.
fn rows() -> [Row; 4] {
    let rough = Options { loss: 0.02, jitter: ms(10), ..Options::clean(8_000_000, ms(40)) };
    let outage = Some(Outage { every: ms(2500), lasts: ms(600) });
    let silent = Options { loss: 0.005, outage, ..Options::clean(20_000_000, ms(20)) };
    let narrow = Options { queue: ms(500), ..Options::clean(1_600_000, ms(40)) };
    // Gentle, because there it is the client that controls.
    let uplink = Options { loss: 0.01, ..Options::clean(20_000_000, ms(20)) };
    let row = |name, link, behind, share, soon| Row { name, link, behind, share, soon };
    [
        row("rough", rough, Behind::Viewer, 0.8, ms(500)),
        row("silent", silent, Behind::Viewer, 0.85, ms(1000)),
        row("narrow", narrow, Behind::Viewer, 0.5, ms(500)),
        row("uplink", uplink, Behind::Publisher, 0.8, ms(1000)),
    ]
}

/// All at once: each link is little work, and so they share what the machine does meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_come_over_bad_links() {
    let delay = ["--quic-congestion-control", "delay"];
    let relay = Relay::prepared(2, &delay, |_| {}).await;
    let plays: Vec<_> = rows().map(|row| tokio::spawn(play(relay.clone(), row))).into();
    let mut faults = Vec::new();
    for play in plays {
        faults.extend(play.await.expect("a play that does not panic"));
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// What is wrong with a row.
async fn play(relay: Relay, row: Row) -> Option<String> {
    let Row { name, link, behind, share, soon } = row;
    let standing = Standing::before(&relay, &link);
    let url = |relay: &Relay| -> Url { relay.url().parse().expect("relay url") };
    let [direct, through] = [url(&relay), url(&standing.relay)];
    let (publish, view) = match behind {
        Behind::Viewer => (&direct, &through),
        Behind::Publisher => (&through, &direct),
    };
    let seen = watch(publish, view, name, Video::M2, WARMUP, LASTS).await;
    let total = standing.gone();
    let seen = match seen {
        Ok(seen) => seen,
        Err(failure) => return Some(format!("{name}: {failure}")),
    };
    println!(
        "{name}: {:.3} within {soon:?}, {:?}",
        seen.within(soon),
        seen.quantile(0.99, ms(1000))
    );
    let loaded = match behind {
        Behind::Viewer => total.to_clients,
        Behind::Publisher => total.to_relay,
    };
    // Otherwise the link was not what it is to be.
    assert!(loaded.lost > 0 || link.rate < 2_000_000, "{name}: {loaded}");
    let fault = || format!("{name}: {} within {soon:?}, not {share}; {loaded}", seen.within(soon));
    (seen.within(soon) < share).then(fault)
}

/// A link before the relay, until it is gone.
struct Standing {
    relay: Relay,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Total>,
}

impl Standing {
    fn before(relay: &Relay, options: &Options) -> Standing {
        let here = "127.0.0.1:0".parse().expect("an address");
        let wire = Wire::new(here, relay.address(), options).expect("a free port");
        let relay = relay.behind(wire.address().expect("a bound socket"));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || wire.run(&stopped).expect("sockets that work"));
        Standing { relay, stop, thread }
    }

    fn gone(self) -> Total {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}
