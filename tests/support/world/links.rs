//! More than one relay in a world, and links between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use shardcast::cluster::{Dial, Line, LinkId, Mail, News};
use shardcast::quic::{Callee, Controllers, Outgoing};
use shardcast::session::Call;
use shardcast::shard::message::ToShard;
use tokio::sync::mpsc::UnboundedReceiver;

use super::super::network::Weather;
use super::super::peer::address_of;
use super::keys::client_tls;
use super::{HOP, World};

pub fn hop_of(relay: usize) -> u64 {
    HOP + relay as u64
}

/// What a relay says of its links, and the weather between it and others.
pub struct Links {
    news: UnboundedReceiver<Mail>,
    said: Vec<News>,
}

/// Between relays.
#[derive(Default)]
pub struct Ways {
    weather: BTreeMap<(usize, usize), Weather>,
    cut: Vec<(usize, usize)>,
    last: u64,
}

impl Links {
    pub fn new() -> (Line, Links) {
        let (line, news) = Line::new();
        (line, Links { news, said: Vec::new() })
    }
}

fn outgoing(controllers: Controllers) -> Outgoing {
    static TLS: OnceLock<std::sync::Arc<rustls::ClientConfig>> = OnceLock::new();
    let tls = TLS.get_or_init(|| client_tls(b""));
    Outgoing::with_controllers(tls, controllers).expect("a suitable TLS configuration")
}

fn in_order(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl World {
    /// Where a shard is: those of a relay are behind those of the relays before it.
    pub fn core_of(&self, relay: usize, shard: usize) -> usize {
        relay * self.stage.shards + shard
    }

    pub(super) fn relay_at(&self, address: SocketAddr) -> Option<usize> {
        (0..self.stage.relays).find(|relay| address_of(*relay) == address)
    }

    /// What datagrams meet between two relays; nothing, if they are cut off from each other.
    pub(super) fn way(&self, from: usize, to: usize) -> Option<Weather> {
        let pair = in_order(from, to);
        let weather = self.ways.weather.get(&pair).copied().unwrap_or(Weather::FAIR);
        (!self.ways.cut.contains(&pair)).then_some(weather)
    }

    /// Has a shard of one relay dial another one.
    pub fn dial(&mut self, from: usize, shard: usize, to: usize, call: Call) -> LinkId {
        self.dial_with(from, shard, to, call, None)
    }

    /// The same by WebTransport.
    pub fn dial_web(&mut self, from: usize, shard: usize, to: usize, call: Call) -> LinkId {
        let target = call.target.clone().unwrap_or_default();
        let url = format!("https://relay.test:4433{target}").parse().expect("a URL");
        self.dial_with(from, shard, to, Call { target: None, ..call }, Some(url))
    }

    fn dial_with(
        &mut self,
        from: usize,
        shard: usize,
        to: usize,
        call: Call,
        web: Option<url::Url>,
    ) -> LinkId {
        self.ways.last += 1;
        let link = LinkId(self.ways.last);
        let remote = address_of(to);
        let callee = Callee { remote, server_name: "relay.test".to_owned(), web };
        let outgoing = outgoing(self.stage.congestion_control.controllers());
        let core = self.core_of(from, shard);
        self.tell(core, ToShard::Dial(Box::new(Dial { link, outgoing, callee, call })));
        link
    }

    pub fn unlink(&mut self, from: usize, link: LinkId) {
        for shard in 0..self.stage.shards {
            let core = self.core_of(from, shard);
            self.tell(core, ToShard::HangUp(link));
        }
    }

    /// Two relays that are linked, by a call of the first.
    pub fn link(&mut self, from: usize, to: usize) -> LinkId {
        let link = self.dial(from, 0, to, Call::default());
        assert!(self.is_up_within(from, link, Duration::from_secs(5)), "{:?}", self.said(from));
        link
    }

    /// Lets time pass until a link is up.
    pub fn is_up_within(&mut self, from: usize, link: LinkId, time: Duration) -> bool {
        let step = Duration::from_millis(10);
        let until = self.now + time;
        while self.now < until {
            let is_it = |news: &News| matches!(news, News::Up { link: is, .. } if *is == link);
            if self.said(from).iter().any(is_it) {
                return true;
            }
            self.run(step);
        }
        false
    }

    /// All that a relay has said of its links.
    pub fn said(&mut self, relay: usize) -> &[News] {
        let links = &mut self.links[relay];
        while let Ok(mail) = links.news.try_recv() {
            if let Mail::News(news) = mail {
                links.said.push(news);
            }
        }
        &links.said
    }

    /// No datagram passes between two relays from now on, or all do again.
    pub fn cut(&mut self, one: usize, other: usize, is_cut: bool) {
        let pair = in_order(one, other);
        self.ways.cut.retain(|cut| *cut != pair);
        if is_cut {
            self.ways.cut.push(pair);
        }
    }

    /// A relay is gone without a word: none of its shards ever has a turn again.
    pub fn kill_relay(&mut self, relay: usize) {
        for shard in 0..self.stage.shards {
            let core = self.core_of(relay, shard);
            self.stall(core, Duration::from_secs(1 << 30));
        }
        let since = self.since_start();
        self.history.note(since, format_args!("relay {relay} is killed"));
    }

    /// Another process in the place of one that is gone, which has its name and knows nothing of it.
    pub fn return_relay(&mut self, relay: usize) {
        self.lives += 1;
        let life = (relay, self.lives);
        let times = (self.started, self.now);
        let (cores, outsides, links) =
            self.founding.relay(&self.stage, life, &mut self.random, times);
        for (shard, (core, outside)) in cores.into_iter().zip(outsides).enumerate() {
            let at = self.core_of(relay, shard);
            (self.cores[at], self.outsides[at]) = (core, outside);
        }
        self.links[relay] = links;
        let since = self.since_start();
        self.history.note(since, format_args!("relay {relay} is back"));
    }

    pub fn set_way(&mut self, one: usize, other: usize, weather: Weather) {
        self.ways.weather.insert(in_order(one, other), weather);
    }

    pub(super) fn unlink_all(&mut self) {
        for relay in 0..self.stage.relays {
            for link in 1..=self.ways.last {
                self.unlink(relay, LinkId(link));
            }
        }
    }
}
