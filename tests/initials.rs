//! Clients that never mean to connect, under a virtual clock: they forge Initial packets, whose
//! keys anybody can derive, break one connection twice, prove their address and say no more. Whoever
//! comes after them gets in. A relay without memory for more, or with as many of one
//! address as may be, refuses those who come, and one that ends tells everybody.

#[allow(dead_code, unused_imports, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod forger;
    pub mod http3;
    pub mod network;
    pub mod peer;
}

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shardcast::access::Access;
use shardcast::limits::{
    CACHE_DURATION_DEFAULT, HANDSHAKE_TIMEOUT, HANDSHAKES_BEFORE_RETRY, HANDSHAKES_MAX,
    IDLE_TIMEOUT, INITIALS_BURST, KEEP_ALIVE, LAST_WORDS_GRACE, LAST_WORDS_MAX, LINGER_DEFAULT,
    SESSION_BYTES, SESSIONS_SHARE_OPEN, TIMER_SLACK, TIMER_TICK,
};
use shardcast::mailbox::{Outside, mesh};
use shardcast::quic::{Config as QuicConfig, CongestionControl, Keys};
use shardcast::secret::Secret;
use shardcast::session::Policy;
use shardcast::shard::message::ToShard;
use shardcast::shard::{CacheBounds, Held, Next, Setting, Shard};
use shardcast::source::ClientBounds;
use shardcast::wall::Wall;
use shardcast::wire::Version;
use support::forger::{Forger, PING, RETRY};
use support::network::Port;
use support::peer::{Peer, Spec, State};

/// A count that leaks instead of wrapping would shut the door within as many.
const ROUNDS: usize = 5000;
const _: () = assert!(ROUNDS > HANDSHAKES_MAX);

/// A ClientHello and its answer, then what completes the handshake.
const TRIPS: usize = 2;

/// A Retry costs its client one more.
const TRIPS_WITH_RETRY: usize = TRIPS + 1;

const NAME: &str = "relay.test";

/// HANDSHAKE_DONE, which no client may send, and nobody in an Initial (RFC 9000 §12.4).
const ILLEGAL: &[u8] = &[0x1e];

/// No frame at all, which no packet may have (RFC 9000 §12.4).
const EMPTY: &[u8] = &[];

/// A long header's bits that must be zero once they are unprotected (RFC 9000 §17.2).
const RESERVED: u8 = 0x0c;

/// What a connection that is closed already can still be broken by: the bits, the frames.
const BREAKS: [(u8, &[u8]); 2] = [(RESERVED, PING), (0, EMPTY)];

/// One shard, and all that a client can see of it.
struct Relay {
    shard: Shard,
    outside: Outside<ToShard>,
    port: Port,
    now: Instant,
    client_tls: Arc<rustls::ClientConfig>,
    guests: usize,
    forgers: usize,
}

impl Relay {
    fn new() -> Relay {
        Relay::with_memory(1 << 40)
    }

    /// One whose peers may make it hold so many bytes.
    fn with_memory(memory: u64) -> Relay {
        Relay::with(memory, ClientBounds::default())
    }

    fn with(memory: u64, bounds: ClientBounds) -> Relay {
        let identity = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a valid name");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = identity.signing_key.serialize_der().try_into().expect("a PKCS #8 key");
        let mut server_tls = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![identity.cert.der().clone()], key)
            .expect("a matching key");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(identity.cert.der().clone()).expect("a certificate");
        let mut client_tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        server_tls.alpn_protocols = vec![Version::Lite06.alpn().into()];
        client_tls.alpn_protocols = server_tls.alpn_protocols.clone();
        // Every guest is a stranger: a ticket would show that it was here before.
        client_tls.resumption = rustls::client::Resumption::disabled();

        let keys = Keys { cid: [1; 32], reset: [2; 32], token: [3; 32] };
        let quic = QuicConfig::new(Arc::new(server_tls), keys, CongestionControl::default())
            .expect("a suitable configuration");
        let policy = Arc::new(Policy::open(1000, Secret::new(&[4; 32])));
        let now = Instant::now();
        let setting = Setting {
            shard: 0,
            shards: 1,
            quic,
            policy,
            access: Arc::new(Access::open()),
            authority: None,
            seed: 1,
            started: now,
            wall: Wall::new(now, Duration::ZERO),
            linger: LINGER_DEFAULT,
            cache: CacheBounds { bytes: 1 << 20, duration: CACHE_DURATION_DEFAULT },
            memory,
            routes: u64::MAX,
            bounds,
        };
        let post = mesh(1, 1).pop().expect("one shard has one post");
        let outside = post.outside();
        Relay {
            outside,
            shard: Shard::new(setting, post),
            port: Port::new(1),
            now,
            client_tls: Arc::new(client_tls),
            guests: 0,
            forgers: 0,
        }
    }

    /// Lets time pass, with as many turns as the shard asks for.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            match self.shard.turn(self.now, &mut self.port) {
                Next::More => {}
                Next::Until(at) if at <= until => self.now = self.now.max(at),
                _ => break,
            }
        }
        self.now = until;
    }

    /// What the relay answers to one datagram. It gets turns of its own, because quinn-proto
    /// tells of two errors as one if nobody asks in between.
    fn answers(&mut self, client: SocketAddr, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.port.sent.clear();
        self.port.deliver(client, datagram, None);
        self.pass(Duration::ZERO);
        let sent = self.port.sent.drain(..).filter(|(to, ..)| *to == client);
        sent.map(|(_, datagram, _)| datagram).collect()
    }

    fn guest(&mut self) -> Peer {
        let spec = Spec::new(Version::Lite06, 0);
        let index = self.guests;
        self.guests += 1;
        Peer::join(index, spec, self.client_tls.clone(), index as u64, 1, self.now)
    }

    /// An honest client comes, and leaves when its session is up. Returns how often it had to
    /// speak for that: once more than usual if it was sent back to prove its address.
    fn admits(&mut self) -> usize {
        self.admits_among(|_| {})
    }

    /// The same with others who do something before each time that it speaks.
    fn admits_among(&mut self, mut others: impl FnMut(&mut Relay)) -> usize {
        let sessions = self.shard.counters().sessions_total;
        let mut guest = self.guest();
        let mut trips = 0;
        while self.shard.counters().sessions_total == sessions {
            others(self);
            let answers = self.trip(&mut guest);
            trips += 1;
            assert!(!answers.is_empty(), "no session after {trips} trips: {:?}", guest.state);
            answers.iter().for_each(|answer| guest.datagram(self.now, answer, None));
        }
        assert!(guest.is_up(), "{:?}", guest.state);
        guest.close(self.now, 0);
        self.trip(&mut guest);
        trips
    }

    /// What a guest has to say, and what it is told in return.
    fn trip(&mut self, guest: &mut Peer) -> Vec<Vec<u8>> {
        let mut flight = Vec::new();
        guest.turn(self.now, |datagram, _| flight.push(datagram));
        flight.iter().flat_map(|datagram| self.answers(guest.address, datagram)).collect()
    }

    fn live(&self) -> usize {
        self.shard.held().connections
    }

    /// A forger begins a handshake that will never go on, and proves its address where that is asked
    /// for.
    fn begin_proven(&mut self, address: SocketAddr) {
        let mut forger = Forger::new(self.forgers);
        forger.address = address;
        self.forgers += 1;
        let answers = self.answers(address, &forger.initial(0, 0, PING));
        if let Some(retry) = answers.iter().find(|answer| answer[0] & 0xf0 == RETRY) {
            forger.heed(retry);
            self.answers(address, &forger.initial(1, 0, PING));
        }
    }

    /// A forger's first packet begins a handshake that will never go on.
    fn begin(&mut self) -> Forger {
        let forger = Forger::new(self.forgers);
        self.forgers += 1;
        // Whoever is due to go, goes first: timers may wait for company, such as this packet.
        self.pass(Duration::ZERO);
        let live = self.live();
        assert!(!self.answers(forger.address, &forger.initial(0, 0, PING)).is_empty());
        assert_eq!(self.live(), live + 1, "a PING in an Initial is a client like any other");
        forger
    }

    /// The forger has its connection closed, and then breaks what is left of it. The answers
    /// show that both packets were for a connection, and that it was there.
    fn break_twice(&mut self, forger: &Forger, (bits, frames): (u8, &[u8])) {
        assert!(!self.answers(forger.address, &forger.initial(1, 0, ILLEGAL)).is_empty());
        assert!(!self.answers(forger.address, &forger.initial(2, bits, frames)).is_empty());
    }

    /// Nothing stays of those who are gone.
    fn ends(mut self) {
        self.pass(IDLE_TIMEOUT);
        assert_eq!(self.shard.held(), Held::default());
    }
}

#[test]
fn a_connection_that_is_lost_twice_was_one_handshake() {
    for last in BREAKS {
        let mut relay = Relay::new();
        assert_eq!(relay.admits(), TRIPS);
        for _ in 0..ROUNDS {
            let forger = relay.begin();
            relay.break_twice(&forger, last);
            relay.pass(Duration::from_millis(1));
        }
        assert_eq!(relay.admits(), TRIPS);
        relay.ends();
    }
}

#[test]
fn a_crowd_of_handshakes_sends_guests_to_prove_their_address_and_leaves_no_trace() {
    for last in BREAKS {
        let mut relay = Relay::new();
        let mut forgers: Vec<Forger> =
            (0..HANDSHAKES_BEFORE_RETRY).map(|_| relay.begin()).collect();
        assert_eq!(relay.admits(), TRIPS_WITH_RETRY);
        // Whoever is lost twice makes room for one, not for two.
        relay.break_twice(&forgers.swap_remove(0), last);
        assert_eq!(relay.admits(), TRIPS);
        forgers.push(relay.begin());
        assert_eq!(relay.admits(), TRIPS_WITH_RETRY);
        forgers.iter().for_each(|forger| relay.break_twice(forger, last));
        assert_eq!(relay.admits(), TRIPS);
        relay.ends();
    }
}

#[test]
fn one_address_that_floods_locks_nobody_out() {
    let mut relay = Relay::new();
    let flood = |relay: &mut Relay, count| {
        (0..count).for_each(|_| relay.begin_proven(([10, 3, 0, 1], 5000).into()));
    };
    flood(&mut relay, HANDSHAKES_MAX + 500);
    assert_eq!(relay.live(), HANDSHAKES_MAX);
    for _ in 0..10 {
        assert_eq!(relay.admits_among(|relay| flood(relay, 50)), TRIPS_WITH_RETRY);
    }
    relay.ends();
}

/// However many they are, no more of them are read than leave time for others; who has been answered is.
#[test]
fn more_first_packets_than_can_be_read_are_as_good_as_lost() {
    const MORE: usize = 500;
    let mut relay = Relay::new();
    let mut known = Forger::new(900);
    (0..HANDSHAKES_BEFORE_RETRY).for_each(|_| drop(relay.begin()));
    let retry = relay.answers(known.address, &known.initial(0, 0, PING)).pop().expect("a Retry");
    known.heed(&retry);
    let left = INITIALS_BURST as usize - HANDSHAKES_BEFORE_RETRY - 1;
    for number in 0..left + MORE {
        let forger = Forger::new(1000 + number);
        let answers = relay.answers(forger.address, &forger.initial(0, 0, PING));
        assert_eq!(answers.is_empty(), number >= left, "{number}");
    }
    assert_eq!(relay.shard.counters().dropped_initials_total, MORE as u64);
    let live = relay.live();
    relay.answers(known.address, &known.initial(1, 0, PING));
    assert_eq!(relay.live(), live + 1);
    relay.pass(Duration::from_millis(1));
    assert_eq!(relay.admits(), TRIPS_WITH_RETRY);
    relay.ends();
}

#[test]
fn a_handshake_has_an_end_whatever_comes_meanwhile() {
    let mut relay = Relay::new();
    let forger = relay.begin();
    let seconds = HANDSHAKE_TIMEOUT.as_secs() as u32;
    for second in 1..seconds {
        relay.pass(Duration::from_secs(1));
        assert!(!relay.answers(forger.address, &forger.initial(second, 0, PING)).is_empty());
    }
    relay.pass(Duration::from_secs(1) + TIMER_SLACK + TIMER_TICK);
    assert_eq!(relay.live(), 0);
    relay.ends();
}

/// As behind one address of a company, or in a load test.
#[test]
fn a_thousand_of_one_address_get_in_at_once() {
    const GUESTS: usize = 1000;
    let mut relay = Relay::new();
    let mut guests: Vec<Peer> = (0..GUESTS).map(|_| relay.guest()).collect();
    for (index, guest) in guests.iter_mut().enumerate() {
        guest.address = ([127, 0, 0, 1], 5000 + index as u16).into();
    }
    for _ in 0..TRIPS_WITH_RETRY {
        for guest in &mut guests {
            let answers = relay.trip(guest);
            answers.iter().for_each(|answer| guest.datagram(relay.now, answer, None));
        }
    }
    assert!(guests.iter().all(Peer::is_up));
    assert_eq!(relay.shard.counters().sessions_total, GUESTS as u64);
    assert!(relay.shard.held().connections == GUESTS);
}

/// Of an address that may have two sessions more, two handshakes are in progress. Who forges it gets no
/// further than a Retry then, and displaces nobody who is there; who is there displaces what was forged.
#[test]
fn handshakes_of_an_address_are_as_many_as_its_sessions_may_be() {
    const MOST: u32 = 2;
    let bounds = ClientBounds { per_source: MOST, ..ClientBounds::default() };
    let mut relay = Relay::with(1 << 40, bounds);
    let at = |port| SocketAddr::from(([10, 7, 0, 1], port));
    let forge = |relay: &mut Relay, count: usize| {
        for _ in 0..count {
            let mut forger = Forger::new(relay.forgers);
            forger.address = at(9000);
            relay.forgers += 1;
            relay.answers(forger.address, &forger.initial(0, 0, PING));
        }
    };
    forge(&mut relay, 50);
    assert_eq!(relay.live(), MOST as usize);
    (8000..8010).for_each(|port| relay.begin_proven(at(port)));
    assert_eq!(relay.live(), MOST as usize, "who has proven it displaces the oldest");
    for port in [1, 2] {
        let mut guest = relay.guest();
        guest.address = at(port);
        for trip in 0.. {
            if guest.is_up() {
                // The first is let in though all places are taken, the second when one of its own is.
                assert_eq!(trip, TRIPS_WITH_RETRY);
                break;
            }
            forge(&mut relay, 50);
            let answers = relay.trip(&mut guest);
            assert!(!answers.is_empty(), "{:?}", guest.state);
            answers.iter().for_each(|answer| guest.datagram(relay.now, answer, None));
        }
    }
    let limited = relay.shard.counters().limited_clients_total;
    let why = relay.lets_in(at(3)).map(drop).unwrap_err();
    assert!(why.contains(REFUSED), "{why}");
    assert!(relay.shard.counters().limited_clients_total > limited);
    // Not even a forger's handshake is begun any more.
    let live = relay.live();
    forge(&mut relay, 5);
    assert_eq!(relay.live(), live);
    relay.lets_in(([10, 7, 0, 2], 1).into()).unwrap();
    relay.pass(KEEP_ALIVE);
    relay.ends();
}

/// What is sent to who is refused: clients take it for a reason to dial again.
const REFUSED: &str = "the server refused to accept a new connection";

impl Relay {
    /// A guest from this address who is let in, or told why not.
    fn lets_in(&mut self, address: SocketAddr) -> Result<Peer, String> {
        let mut guest = self.guest();
        guest.address = address;
        for _ in 0..TRIPS_WITH_RETRY + 1 {
            let answers = self.trip(&mut guest);
            answers.iter().for_each(|answer| guest.datagram(self.now, answer, None));
        }
        match &guest.state {
            State::Up => Ok(guest),
            State::Over(why, None) => Err(why.clone()),
            state => panic!("{state:?}"),
        }
    }

    fn is_refused(&mut self, address: SocketAddr) -> bool {
        let refused = self.shard.counters().refused_clients_total;
        match self.lets_in(address) {
            Ok(_) => false,
            Err(why) => {
                assert!(why.contains(REFUSED), "{why}");
                assert!(self.shard.counters().refused_clients_total > refused);
                true
            }
        }
    }
}

/// The n-th of all that fit is let in, the next one is refused, and let in once somebody has left.
#[test]
fn who_finds_no_memory_is_refused_until_somebody_leaves() {
    const GUESTS: u8 = 16;
    let at = |host: u8| SocketAddr::from(([10, 4, 0, host], 5000));
    let mut relay = Relay::with_memory(u64::from(GUESTS) * SESSION_BYTES);
    let mut guests: Vec<Peer> = (0..GUESTS).map(|host| relay.lets_in(at(host)).unwrap()).collect();
    assert_eq!(relay.shard.held().granted_bytes, u64::from(GUESTS) * SESSION_BYTES);
    for host in GUESTS..2 * GUESTS {
        assert!(relay.is_refused(at(host)));
    }
    assert_eq!(relay.live(), usize::from(GUESTS), "nobody who is there is harmed");

    guests[0].close(relay.now, 0);
    relay.trip(&mut guests[0]);
    // A connection that was closed lingers for three probe timeouts (RFC 9000 §10.2).
    relay.pass(Duration::from_secs(2));
    assert_eq!(relay.live(), usize::from(GUESTS) - 1);
    guests.push(relay.lets_in(at(GUESTS)).unwrap());
    assert!(relay.is_refused(at(GUESTS + 1)));
    // The relay's own ping starts the idle timeout anew.
    relay.pass(KEEP_ALIVE);
    relay.ends();
}

/// One address that takes what it can get leaves something to those who come later.
#[test]
fn one_address_does_not_take_all_memory() {
    const GUESTS: u64 = 80;
    let mut relay = Relay::with_memory(GUESTS * SESSION_BYTES);
    let crowd = |port: u16| SocketAddr::from(([10, 4, 0, 1], 5000 + port));
    let open = (GUESTS as f64 * SESSIONS_SHARE_OPEN) as u16;
    (0..open).for_each(|port| _ = relay.lets_in(crowd(port)).unwrap());
    for host in 0..(GUESTS as u16 - open) as u8 {
        assert!(relay.is_refused(crowd(open)));
        // Who has one does not get another while others have none.
        relay.lets_in(([10, 5, 0, host], 5000).into()).unwrap();
    }
    assert!(relay.is_refused(([10, 6, 0, 1], 5000).into()), "there is no more");
    // The relay's own ping starts the idle timeout anew.
    relay.pass(KEEP_ALIVE);
    relay.ends();
}

/// A relay that ends while its socket takes next to nothing: it goes on for as long as something
/// leaves, so that nobody has to find out by himself.
#[test]
fn everybody_is_told_of_the_end_through_a_narrow_socket() {
    const GUESTS: usize = 100;
    /// Of a thousand trains.
    const BLOCKED: u64 = 900;
    let mut relay = Relay::new();
    for _ in 0..GUESTS {
        let mut guest = relay.guest();
        for _ in 0..TRIPS {
            let answers = relay.trip(&mut guest);
            answers.iter().for_each(|answer| guest.datagram(relay.now, answer, None));
        }
    }
    relay.pass(Duration::from_secs(1));
    relay.port.sent.clear();
    relay.port.blocked = BLOCKED;
    relay.outside.send(ToShard::Stop).expect("room for mail");
    let (begun, mut turns) = (relay.now, 0);
    let ended = loop {
        turns += 1;
        match relay.shard.turn(relay.now, &mut relay.port) {
            Next::More => {}
            Next::Until(at) => relay.now = at,
            Next::Stop => break relay.now,
            Next::Idle => panic!("it waits for nothing after {turns} turns"),
        }
    };
    let told: BTreeSet<SocketAddr> = relay.port.sent.iter().map(|(to, ..)| *to).collect();
    assert_eq!(told.len(), GUESTS, "after {turns} turns");
    assert!(ended - begun > LAST_WORDS_GRACE && ended - begun < LAST_WORDS_MAX);

    // One that takes nothing at all holds nobody up.
    let mut relay = Relay::new();
    relay.begin();
    relay.port.blocked = 1000;
    relay.outside.send(ToShard::Stop).expect("room for mail");
    let begun = relay.now;
    while let Next::Until(at) = relay.shard.turn(relay.now, &mut relay.port) {
        relay.now = at;
    }
    assert!(relay.now - begun <= LAST_WORDS_GRACE + Duration::from_millis(1));
}
