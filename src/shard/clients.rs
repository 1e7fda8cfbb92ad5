//! How many sessions each client has on the whole relay: those from one address, and those that show one
//! token. Each shard counts what begins and ends on it and tells its neighbours, so all of them know the
//! sums as they were a moment ago and decide by themselves. What begins on several shards in that moment may
//! exceed a bound by as many as there are other shards.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::access::TokenDigest;
use crate::source::{ClientBounds, Source};

/// Whose sessions are counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Client {
    Source(Source),
    Token(TokenDigest),
}

#[derive(Debug)]
pub struct Clients {
    me: usize,
    bounds: ClientBounds,
    /// Sessions of each client, as far as is known here; nobody has none.
    counts: BTreeMap<Client, u32>,
    /// By neighbour, by how much the counts have changed here since it was told; nothing is by zero.
    untold: Vec<BTreeMap<Client, i32>>,
}

impl Clients {
    pub fn new(bounds: ClientBounds, me: usize, shards: usize) -> Clients {
        let untold = (0..shards).map(|_| BTreeMap::new()).collect();
        Clients { me, bounds, counts: BTreeMap::new(), untold }
    }

    /// As what somebody at an address is counted, if he is.
    pub fn client_at(&self, ip: IpAddr) -> Option<Client> {
        self.bounds.source_at(ip).map(Client::Source)
    }

    /// How many sessions more a client may have.
    pub fn room(&self, client: Client) -> usize {
        let count = self.counts.get(&client).copied().unwrap_or(0);
        let most = match client {
            Client::Source(_) => self.bounds.per_source,
            Client::Token(_) => self.bounds.per_token,
        };
        most.saturating_sub(count) as usize
    }

    /// The same for somebody at an address, who may not be counted at all.
    pub fn room_at(&self, ip: IpAddr) -> usize {
        self.client_at(ip).map_or(usize::MAX, |client| self.room(client))
    }

    /// A session begins here, or ends.
    pub fn begin(&mut self, client: Client) {
        self.changed_here(client, 1);
    }

    pub fn end(&mut self, client: Client) {
        self.changed_here(client, -1);
    }

    fn changed_here(&mut self, client: Client, by: i32) {
        self.changed(client, by);
        for (shard, untold) in self.untold.iter_mut().enumerate() {
            if shard != self.me {
                let change = untold.entry(client).or_default();
                *change += by;
                if *change == 0 {
                    untold.remove(&client);
                }
            }
        }
    }

    /// Sessions have begun or ended, here or on a neighbour that says so.
    pub fn changed(&mut self, client: Client, by: i32) {
        let count = self.counts.entry(client).or_default();
        *count =
            count.checked_add_signed(by).expect("who ends has begun, and is told in that order");
        if *count == 0 {
            self.counts.remove(&client);
        }
    }

    /// The next thing that a neighbour has not been told.
    pub fn take_untold(&mut self, shard: usize) -> Option<(Client, i32)> {
        self.untold[shard].pop_first()
    }

    pub fn has_untold(&self, shard: usize) -> bool {
        !self.untold[shard].is_empty()
    }

    /// Clients that have sessions.
    pub fn count(&self) -> usize {
        self.counts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn bounds(per_source: u32, exempt: &[&str]) -> ClientBounds {
        let exempt = exempt.iter().map(|net| net.parse().unwrap()).collect();
        ClientBounds { per_source, exempt, ..ClientBounds::default() }
    }

    /// Tells neighbours all that they do not know.
    fn tell(shards: &mut [Clients]) {
        for from in 0..shards.len() {
            for to in 0..shards.len() {
                while let Some((client, by)) = shards[from].take_untold(to) {
                    shards[to].changed(client, by);
                }
            }
        }
    }

    #[test]
    fn a_client_has_room_up_to_its_bound_and_again_when_sessions_end() {
        let mut clients = Clients::new(bounds(2, &["10.9.0.0/16"]), 0, 1);
        let (one, other) = (ip("10.0.0.1"), ip("10.0.0.2"));
        let client = clients.client_at(one).unwrap();
        clients.begin(client);
        assert_eq!(clients.room_at(one), 1);
        clients.begin(client);
        assert_eq!((clients.room_at(one), clients.room_at(other)), (0, 2));
        assert_eq!(clients.room_at(ip("10.9.0.1")), usize::MAX);
        // More than there may be, when neighbours were told late.
        clients.begin(client);
        assert_eq!(clients.room_at(one), 0);
        (0..3).for_each(|_| clients.end(client));
        assert_eq!((clients.room_at(one), clients.count()), (2, 0));
    }

    #[test]
    fn shards_know_of_each_other_what_they_were_told() {
        let mut shards: Vec<Clients> =
            (0..3).map(|me| Clients::new(bounds(4, &[]), me, 3)).collect();
        let client = Client::Source(Source::V4(7));
        shards[0].begin(client);
        shards[0].begin(client);
        shards[2].begin(client);
        assert_eq!(shards.iter().map(|shard| shard.room(client)).collect::<Vec<_>>(), [2, 4, 3]);
        tell(&mut shards);
        assert!(shards.iter().all(|shard| shard.room(client) == 1));
        // What came and went meanwhile is no news.
        shards[1].begin(client);
        shards[1].end(client);
        assert!((0..3).all(|shard| !shards[1].has_untold(shard)));
        shards[0].end(client);
        shards[0].end(client);
        assert!(shards[0].has_untold(1) && !shards[0].has_untold(0));
        tell(&mut shards);
        assert!(shards.iter().all(|shard| shard.room(client) == 3 && shard.count() == 1));
        shards[2].end(client);
        tell(&mut shards);
        assert!(shards.iter().all(|shard| shard.count() == 0));
    }
}
