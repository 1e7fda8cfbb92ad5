//! The simulated network: datagrams in flight between clients and the shards of one relay, with
//! every fault drawn from a seed, and the relay's end of it as a shard sees it.

#[allow(dead_code, reason = "few plays have bottlenecks")]
mod bulk;
pub mod tcp;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bulk::{Bulk, Heard};
use bytes::BytesMut;
use shardcast::net::{Datagrams, Ecn, Received, Sent, Train, steer};
use shardcast_link::link::{Laid, Link};
pub use shardcast_link::random::Random;

/// What fits an Ethernet's frame; anything larger is lost, as on a real path.
const DATAGRAM_BYTES_MAX: usize = 1472;

/// What waits longer for a link is lost.
const QUEUE_MAX: Duration = Duration::from_millis(100);

/// Datagrams that one call of `receive` hands over, few enough that a burst takes several turns.
const RECEIVE_BATCH: usize = 16;

/// What waited at a link.
#[allow(dead_code, reason = "few plays have bottlenecks")]
#[derive(Clone, Copy, Debug)]
pub struct Waited {
    pub at: Instant,
    /// From its arrival to its last byte.
    pub time: Duration,
    pub is_lost: bool,
    pub is_marked: bool,
}

/// Everything that happened, folded into one number: two runs of a seed must agree on it.
#[derive(Debug)]
pub struct History {
    hash: u64,
    events: u64,
    prints: bool,
}

impl History {
    pub fn new() -> History {
        let prints = std::env::var_os("SIM_TRACE").is_some();
        History { hash: 0xcbf2_9ce4_8422_2325, events: 0, prints }
    }

    pub fn note(&mut self, since_start: Duration, what: fmt::Arguments<'_>) {
        if self.prints {
            eprintln!("{:>12.6} {what}", since_start.as_secs_f64());
        }
        self.events += 1;
        let _ = write!(self, "{}", since_start.as_nanos());
        let _ = self.write_fmt(what);
    }

    pub fn digest(&self) -> (u64, u64) {
        (self.hash, self.events)
    }
}

impl Write for History {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(())
    }
}

/// What happens to the datagrams of one client, or to its bytes on TCP: what is lost is late there. Shares are
/// per mille.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub latency: Duration,
    /// Every datagram is late by a random part of this, so they overtake each other.
    pub jitter: Duration,
    pub lost_up: u64,
    pub lost_down: u64,
    pub doubled: u64,
    /// What the link to the client carries, if that is bounded.
    pub down_bytes_per_second: Option<u32>,
    /// The bottleneck before the client, which others may share: [`Network::lay`] has made it.
    pub link: Option<usize>,
}

impl Weather {
    pub const FAIR: Weather = Weather {
        latency: Duration::from_millis(5),
        jitter: Duration::ZERO,
        lost_up: 0,
        lost_down: 0,
        doubled: 0,
        down_bytes_per_second: None,
        link: None,
    };
}

#[derive(Debug)]
pub struct Flight {
    /// A client's address on one side and a shard, chosen on departure, on the other.
    pub client: SocketAddr,
    pub to: To,
    pub data: Vec<u8>,
    pub ecn: Option<Ecn>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    Shard(usize),
    Client,
}

/// What arrives.
#[derive(Debug)]
enum Arriving {
    Flight(Flight),
    /// At the sender of a download beside.
    Heard(usize, Heard),
}

#[derive(Debug)]
struct Queued(Instant, u64, Arriving);

impl PartialEq for Queued {
    fn eq(&self, other: &Queued) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Queued) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Queued) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Datagrams under way.
#[derive(Debug)]
pub struct Network {
    flights: BinaryHeap<Reverse<Queued>>,
    departures: u64,
    random: Random,
    shards: usize,
    /// Until when links to clients are busy.
    busy: BTreeMap<SocketAddr, Instant>,
    /// Bottlenecks, and what waited there of whom.
    links: Vec<Laid>,
    #[allow(dead_code, reason = "few plays have bottlenecks")]
    pub waited: Vec<(SocketAddr, Waited)>,
    bulks: Vec<Bulk>,
    /// Share of datagrams that the host gives to a shard other than the one they name.
    pub strays: u64,
}

impl Network {
    pub fn new(seed: u64, shards: usize) -> Network {
        Network {
            flights: BinaryHeap::new(),
            departures: 0,
            random: Random::new(seed),
            shards,
            busy: BTreeMap::new(),
            links: Vec::new(),
            waited: Vec::new(),
            bulks: Vec::new(),
            strays: 0,
        }
    }

    fn pump(&mut self, now: Instant, index: usize) {
        let bulk = &mut self.bulks[index];
        while bulk.sends() {
            let left = self.links[bulk.link].pass(now, Bulk::PACKET_BYTES);
            // A loss shows by what was sent right before or after it.
            let empty_at = self.links[bulk.link].empty_at(now);
            let at = left.map_or(empty_at, |left| left.at) + 2 * bulk.latency;
            let heard = Heard { sent: now, is_lost: left.is_none_or(|left| left.is_lost) };
            self.departures += 1;
            let arriving = Arriving::Heard(index, heard);
            self.flights.push(Reverse(Queued(at, self.departures, arriving)));
        }
    }

    /// To the relay whose shards begin with `first`.
    pub fn upwards(
        &mut self,
        now: Instant,
        weather: &Weather,
        (client, first): (SocketAddr, usize),
        data: Vec<u8>,
        ecn: Option<Ecn>,
    ) {
        let mut shard = steer::shard_of(&data, self.shards).unwrap_or(0);
        if self.random.per_mille(self.strays) {
            shard = self.random.below(self.shards as u64) as usize;
        }
        let flight = Flight { client, to: To::Shard(first + shard), data, ecn };
        let now = match weather.link.map(|link| &self.links[link]) {
            Some(laid) => match laid.back(now) {
                Some(left) => left,
                None => return,
            },
            None => now,
        };
        self.depart(now, weather, weather.lost_up, flight);
    }

    pub fn downwards(
        &mut self,
        now: Instant,
        weather: &Weather,
        client: SocketAddr,
        data: &[u8],
        ecn: Option<Ecn>,
    ) {
        let (mut now, mut ecn) = (now, ecn);
        if let Some(rate) = weather.down_bytes_per_second {
            let busy = self.busy.entry(client).or_insert(now);
            if *busy > now + QUEUE_MAX {
                return;
            }
            *busy = (*busy).max(now) + Duration::from_secs(1) * data.len() as u32 / rate;
            now = *busy;
        }
        if let Some(link) = weather.link {
            let Some(left) = self.links[link].pass(now, data.len()) else { return };
            let time = left.at - now;
            let is_lost = left.is_lost || left.is_marked && ecn.is_none();
            if left.is_marked && !is_lost {
                ecn = Some(Ecn::Ce);
            }
            let is_marked = ecn == Some(Ecn::Ce);
            self.waited.push((client, Waited { at: left.at, time, is_lost, is_marked }));
            if is_lost {
                return;
            }
            now = left.at;
        }
        let flight = Flight { client, to: To::Client, data: data.to_vec(), ecn };
        self.depart(now, weather, weather.lost_down, flight);
    }

    fn depart(&mut self, now: Instant, weather: &Weather, lost: u64, flight: Flight) {
        if self.random.per_mille(lost) || flight.data.len() > DATAGRAM_BYTES_MAX {
            return;
        }
        if self.random.per_mille(weather.doubled) {
            let Flight { client, to, ref data, ecn } = flight;
            self.queue(now, weather, Flight { client, to, data: data.clone(), ecn });
        }
        self.queue(now, weather, flight);
    }

    fn queue(&mut self, now: Instant, weather: &Weather, flight: Flight) {
        let jitter = weather.jitter.as_nanos() as u64;
        let late = if jitter == 0 { 0 } else { self.random.below(jitter) };
        let late = Duration::from_nanos(late);
        let at = match weather.link.filter(|_| flight.to == To::Client) {
            Some(link) => self.links[link].arrives(now, weather.latency, late),
            None => now + weather.latency + late,
        };
        self.departures += 1;
        self.flights.push(Reverse(Queued(at, self.departures, Arriving::Flight(flight))));
    }

    pub fn next_arrival(&self) -> Option<Instant> {
        self.flights.peek().map(|Reverse(Queued(at, ..))| *at)
    }

    pub fn arrived(&mut self, now: Instant) -> Option<Flight> {
        while self.next_arrival()? <= now {
            match self.flights.pop()?.0.2 {
                Arriving::Flight(flight) => return Some(flight),
                Arriving::Heard(bulk, heard) => {
                    self.bulks[bulk].hear(now, heard);
                    self.pump(now, bulk);
                }
            }
        }
        None
    }
}

#[allow(dead_code, reason = "few plays have bottlenecks")]
impl Network {
    /// A bottleneck, for [`Weather::link`].
    pub fn lay(&mut self, now: Instant, link: Link) -> usize {
        self.links.push(Laid::new(link, now));
        self.links.len() - 1
    }

    /// Somebody else's download begins, through a bottleneck.
    pub fn download(&mut self, now: Instant, link: usize, latency: Duration) -> usize {
        self.bulks.push(Bulk::new(link, latency));
        self.pump(now, self.bulks.len() - 1);
        self.bulks.len() - 1
    }

    /// What a download beside has brought, and when.
    pub fn downloaded(&self, bulk: usize) -> &[(Instant, usize)] {
        &self.bulks[bulk].delivered
    }
}

/// A shard's socket.
#[derive(Debug)]
pub struct Port {
    pub inbox: VecDeque<Received>,
    pub sent: Vec<(SocketAddr, Vec<u8>, Option<Ecn>)>,
    random: Random,
    /// Shares of trains that find the socket's buffer full, or are refused by the host.
    pub blocked: u64,
    pub refused: u64,
}

impl Port {
    pub fn new(seed: u64) -> Port {
        Port {
            inbox: VecDeque::new(),
            sent: Vec::new(),
            random: Random::new(seed),
            blocked: 0,
            refused: 0,
        }
    }

    pub fn deliver(&mut self, remote: SocketAddr, data: &[u8], ecn: Option<Ecn>) {
        let data = BytesMut::from(data);
        self.inbox.push_back(Received { remote, local_ip: None, ecn, data });
    }
}

impl Datagrams for Port {
    fn receive(&mut self, deliver: &mut dyn FnMut(Received)) -> bool {
        for _ in 0..RECEIVE_BATCH {
            match self.inbox.pop_front() {
                Some(datagram) => deliver(datagram),
                None => return false,
            }
        }
        !self.inbox.is_empty()
    }

    fn send(&mut self, train: &Train<'_>) -> Sent {
        if self.random.per_mille(self.blocked) {
            return Sent::Blocked;
        }
        if self.random.per_mille(self.refused) {
            return Sent::Lost;
        }
        let segment = train.segment_size.unwrap_or(train.contents.len()).max(1);
        for datagram in train.contents.chunks(segment) {
            self.sent.push((train.destination, datagram.to_vec(), train.ecn));
        }
        Sent::Taken
    }

    fn max_segments(&self) -> usize {
        10
    }
}
