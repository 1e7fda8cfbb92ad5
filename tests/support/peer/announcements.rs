//! Announcements: what a peer claims to the relay, and what it hears of others.

use std::collections::BTreeMap;

use bytes::{Buf, BytesMut};
use quinn_proto::Dir;
use shardcast::wire::*;

use super::streams::Use;
use super::{End, Peer};

#[derive(Debug)]
pub(super) struct AnnounceServed {
    prefix: Path,
    ids: BTreeMap<Path, u64>,
    next_id: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Claim {
    hops: Vec<u64>,
    cost: Cost,
}

/// An Announce stream of this peer.
#[derive(Debug)]
pub struct Listen {
    pub ok: Option<AnnounceOk>,
    /// Its ANNOUNCE_INIT has come, where there is one.
    has_init: bool,
    /// Announcements until the initial set was complete.
    initial_left: u64,
    live: BTreeMap<Path, (Hops, Cost)>,
    ids: BTreeMap<u64, Path>,
    next_id: u64,
    /// "+path hops cost", "~path hops cost", "-path" and "." for the end of the initial set.
    pub heard: Vec<String>,
    pub end: Option<End>,
}

impl Peer {
    pub fn announce(&mut self, path: &str, hops: &[u64], cost: Cost) {
        self.is_dirty = true;
        let path = Path::parse(path).expect("a valid path");
        self.claims.insert(path.clone(), Claim { hops: hops.to_vec(), cost });
        let feeds: Vec<u64> = self.feeds.keys().copied().collect();
        for feed in feeds {
            self.tell_claim(feed, &path);
        }
    }

    pub fn unannounce(&mut self, path: &str) {
        self.is_dirty = true;
        let path = Path::parse(path).expect("a valid path");
        self.claims.remove(&path);
        let feeds: Vec<u64> = self.feeds.keys().copied().collect();
        for feed in feeds {
            self.tell_claim(feed, &path);
        }
    }

    /// Where a broadcast comes from in the first place, if that has a name.
    pub fn origin(&self, path: &str) -> Option<u64> {
        let claim = self.claims.get(&Path::parse(path).ok()?)?;
        let first = claim.hops.first().copied().unwrap_or(self.spec.setup.hop);
        (first != 0).then_some(first)
    }

    fn chain(&self, claim: &Claim) -> Hops {
        let mut hops = Hops::from_slice(&claim.hops).expect("a valid chain");
        if self.version <= Version::Lite04 {
            hops.push(self.spec.setup.hop).expect("room for one more");
        }
        hops
    }

    fn tell_claim(&mut self, feed: u64, path: &Path) {
        let mut bytes = Vec::new();
        let claim = self.claims.get(path).cloned();
        let chain = claim.as_ref().map(|claim| self.chain(claim));
        let Some(served) = self.feeds.get_mut(&feed) else { return };
        let Some(suffix) = path.strip_prefix(&served.prefix) else { return };
        let known = served.ids.get(&suffix).copied();
        let announce = match (claim, known) {
            (None, None) => return,
            (None, Some(id)) => {
                served.ids.remove(&suffix);
                match self.version {
                    Version::Lite06 => Announce::End { id },
                    _ => Announce::Ended { suffix },
                }
            }
            (Some(claim), None) => {
                served.ids.insert(suffix.clone(), served.next_id);
                served.next_id += 1;
                Announce::Start { suffix, hops: chain.unwrap_or_default(), cost: claim.cost }
            }
            (Some(claim), Some(id)) => match self.version {
                Version::Lite06 => {
                    Announce::Restart { id, hops: chain.unwrap_or_default(), cost: claim.cost }
                }
                Version::Lite05 => Announce::Restart05 { suffix, hops: chain.unwrap_or_default() },
                _ => return,
            },
        };
        announce.encode(self.version, &mut bytes);
        self.send(feed, &bytes, false);
    }

    pub fn listen(&mut self, prefix: &str, exclude_hop: u64) -> usize {
        let id = self.open(Dir::Bi, Use::Listen(self.listens.len()));
        let request =
            AnnounceRequest { prefix: Path::parse(prefix).expect("a valid prefix"), exclude_hop };
        let mut bytes = vec![BidiType::Announce as u8];
        request.encode(self.version, &mut bytes);
        self.send(id, &bytes, false);
        self.listens.push(Listen {
            ok: None,
            has_init: false,
            initial_left: 0,
            live: BTreeMap::new(),
            ids: BTreeMap::new(),
            next_id: 0,
            heard: Vec::new(),
            end: None,
        });
        self.listens.len() - 1
    }

    /// The stream on which the relay takes an answer of this peer, by hand.
    pub fn announce_streams(&self) -> Vec<u64> {
        self.feeds.keys().copied().collect()
    }

    pub(super) fn announce_asked(&mut self, id: u64, body: &[u8]) -> Result<Use, String> {
        let request = AnnounceRequest::decode(self.version, body).map_err(|e| e.to_string())?;
        self.log.push(format!("ANNOUNCE_REQUEST {}", request.prefix));
        let covered: Vec<Path> =
            self.claims.keys().filter(|path| path.has_prefix(&request.prefix)).cloned().collect();
        if self.version >= Version::Lite05 {
            let mut bytes = Vec::new();
            let active = covered.len() as u64;
            AnnounceOk { hop: self.spec.setup.hop, active }.encode(&mut bytes);
            self.send(id, &bytes, false);
        }
        let prefix = request.prefix;
        if self.version <= Version::Lite02 {
            let relative = covered.iter().filter_map(|path| path.strip_prefix(&prefix));
            let suffixes: Vec<Path> = relative.collect();
            let mut bytes = Vec::new();
            AnnounceInit { suffixes: suffixes.clone() }.encode(&mut bytes);
            self.send(id, &bytes, false);
            let ids = suffixes.into_iter().zip(0..).collect();
            self.feeds.insert(id, AnnounceServed { prefix, ids, next_id: 0 });
            return Ok(Use::AnnounceServed);
        }
        self.feeds.insert(id, AnnounceServed { prefix, ids: BTreeMap::new(), next_id: 0 });
        covered.iter().for_each(|path| self.tell_claim(id, path));
        Ok(Use::AnnounceServed)
    }

    pub(super) fn take_announcement(&mut self, index: usize, buf: &mut BytesMut) -> bool {
        if self.version >= Version::Lite05 && self.listens[index].ok.is_none() {
            return match AnnounceOk::take(buf) {
                Ok(Some((ok, used))) => {
                    buf.advance(used);
                    self.log.push(format!("{index}: {ok:?}"));
                    let listen = &mut self.listens[index];
                    listen.initial_left = ok.active;
                    if ok.active == 0 {
                        listen.heard.push(".".to_owned());
                    }
                    listen.ok = Some(ok);
                    true
                }
                Ok(None) => false,
                Err(error) => {
                    self.fault(format!("ANNOUNCE_OK: {error}"));
                    false
                }
            };
        }
        if self.version <= Version::Lite02 && !self.listens[index].has_init {
            return match AnnounceInit::take(buf) {
                Ok(Some((init, used))) => {
                    buf.advance(used);
                    self.log.push(format!("{index}: {init:?}"));
                    if let Err(what) = self.listens[index].begin(self.version, init) {
                        self.fault(format!("announce stream {index}: {what}"));
                    }
                    true
                }
                Ok(None) => false,
                Err(error) => {
                    self.fault(format!("ANNOUNCE_INIT: {error}"));
                    false
                }
            };
        }
        match Announce::take(self.version, buf) {
            Ok(Some((announce, used))) => {
                buf.advance(used);
                self.log.push(format!("{index}: {announce:?}"));
                if let Err(what) = self.listens[index].hear(self.version, announce) {
                    self.fault(format!("announce stream {index}: {what}"));
                }
                true
            }
            Ok(None) => false,
            Err(error) => {
                self.fault(format!("announcement: {error}"));
                false
            }
        }
    }
}

impl Listen {
    fn begin(&mut self, version: Version, init: AnnounceInit) -> Result<(), String> {
        self.has_init = true;
        self.initial_left = init.suffixes.len() as u64;
        if self.initial_left == 0 {
            self.heard.push(".".to_owned());
        }
        init.suffixes.into_iter().try_for_each(|suffix| {
            let (hops, cost) = (Hops::new(), Cost::ZERO);
            self.hear(version, Announce::Start { suffix, hops, cost })
        })
    }

    fn hear(&mut self, version: Version, announce: Announce) -> Result<(), String> {
        let show = |sign: char, path: &Path, hops: &Hops, cost: Cost| {
            let mut text = format!("{sign}{path}");
            if version >= Version::Lite04 {
                text += &format!(" {:?}", hops.as_slice());
            }
            if version >= Version::Lite06 {
                text += &format!(" {}", cost.warm);
            }
            text
        };
        match announce {
            Announce::Start { suffix, hops, cost } => {
                let known = self.live.insert(suffix.clone(), (hops.clone(), cost));
                let is_restart = version == Version::Lite05 && known.is_some();
                if known.as_ref() == Some(&(hops.clone(), cost)) {
                    return Err(format!("{suffix} announced again with nothing new"));
                }
                if known.is_some() && !is_restart {
                    return Err(format!("{suffix} announced twice"));
                }
                if version >= Version::Lite06 {
                    self.ids.insert(self.next_id, suffix.clone());
                    self.next_id += 1;
                }
                if is_restart {
                    self.heard.push(show('~', &suffix, &hops, cost));
                } else {
                    self.heard.push(show('+', &suffix, &hops, cost));
                }
                if self.initial_left > 0 {
                    self.initial_left -= 1;
                    if self.initial_left == 0 {
                        self.heard.push(".".to_owned());
                    }
                }
            }
            Announce::Restart { id, hops, cost } => {
                let suffix = self.ids.get(&id).ok_or(format!("RESTART of id {id}"))?;
                let known = self.live.insert(suffix.clone(), (hops.clone(), cost));
                if known.as_ref() == Some(&(hops.clone(), cost)) {
                    return Err(format!("RESTART of {suffix} with nothing new"));
                }
                self.heard.push(show('~', suffix, &hops, cost));
            }
            Announce::End { id } => {
                let suffix = self.ids.remove(&id).ok_or(format!("END of id {id}"))?;
                self.live.remove(&suffix);
                self.heard.push(format!("-{suffix}"));
            }
            Announce::Ended { suffix } => {
                if self.live.remove(&suffix).is_none() {
                    return Err(format!("{suffix} ended, which was not live"));
                }
                self.heard.push(format!("-{suffix}"));
            }
            Announce::Restart05 { .. } | Announce::Unknown => {
                return Err(format!("{announce:?}, which nobody sends"));
            }
        }
        if self.initial_left > 0 && self.heard.last().is_some_and(|last| !last.starts_with('+')) {
            return Err("a change within the initial set".to_owned());
        }
        Ok(())
    }

    /// What is live now, by suffix.
    pub fn live(&self) -> Vec<String> {
        self.live.keys().map(|path| path.as_str().to_owned()).collect()
    }
}
