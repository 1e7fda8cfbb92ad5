//! Where another relay is, as the operator writes it, and what is said there: `moqt://b.example:4443/?cost=5`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::access;
use crate::limits::{PEERS_MAX, ROOT_BYTES_MAX};

/// What clients take where no port is named.
const PORT_DEFAULT: u16 = 443;

/// Before a scheme: every address of the name is a relay of its own.
const DNS: &str = "dns+";

/// How a relay is reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scheme {
    /// Raw QUIC.
    Moqt,
    /// WebTransport.
    Https,
}

/// What a relay is known by that is to be dialled: two that are alike are one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    pub scheme: Scheme,
    /// The name stands for as many relays as it has addresses.
    pub is_set: bool,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    /// Begins with a slash; there are no others beside each other, and none at the end.
    pub path: String,
}

impl Place {
    pub const WHOLE: &str = "/";

    /// Whether all that is there is meant, and not what is below a path.
    pub fn is_whole(&self) -> bool {
        self.path == Place::WHOLE
    }
}

/// A relay that there should be a link with.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    pub place: Place,
    /// What routes cost that cross the link.
    pub cost: Option<u64>,
    /// What is shown to be let in; else the token that is for all.
    token: Option<String>,
    /// What else is asked for.
    query: String,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadEntry {
    #[error("not a URL; write moqt://HOST:4443 or https://HOST:4443")]
    NotUrl,
    #[error(
        "relays are not dialled by {0}; write moqt://HOST:4443, https://HOST:4443 or dns+moqt://NAME:4443"
    )]
    Scheme(String),
    #[error("there is no host in it; write moqt://HOST:4443")]
    NoHost,
    #[error("there is a name or a password before the host, which nobody reads; remove it")]
    UserInfo,
    #[error("cost is a number from 0 to 4611686018427387903")]
    Cost,
    #[error("egress is another cost, and links have one; write the same or none")]
    Egress,
    #[error("{0} is written in the URL and beside it")]
    Twice(&'static str),
    #[error("the path is too long")]
    TooLong,
    #[error("two entries for {0} differ")]
    Conflict(Place),
    #[error("more than {PEERS_MAX} relays")]
    TooMany,
    #[error("it is another host")]
    Elsewhere,
    #[error("not a list of URLs and of objects with url, cost and token: {0}")]
    NotList(String),
    #[error("entry {number} of the list{url}: {fault}")]
    Item { number: usize, url: String, fault: Box<BadEntry> },
    #[error("not a URL or an object with url, cost and token: {0}")]
    NotItem(String),
}

/// An entry of a list, as the existing relay has them, where it is more than a URL.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    url: String,
    cost: Option<u64>,
    egress: Option<u64>,
    token: Option<String>,
}

impl FromStr for Entry {
    type Err = BadEntry;

    fn from_str(text: &str) -> Result<Entry, BadEntry> {
        let (is_set, rest) = match text.strip_prefix(DNS) {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let url: Url = rest.parse().map_err(|_| BadEntry::NotUrl)?;
        let scheme = match url.scheme() {
            "moqt" | "moql" => Scheme::Moqt,
            "https" => Scheme::Https,
            other => return Err(BadEntry::Scheme(other.to_owned())),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadEntry::UserInfo);
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(BadEntry::NoHost)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = url.path().split('/').filter(|segment| !segment.is_empty());
        let path = format!("/{}", path.collect::<Vec<_>>().join("/"));
        if path.len() > ROOT_BYTES_MAX {
            return Err(BadEntry::TooLong);
        }
        let (mut cost, mut egress, mut token) = (None, None, None);
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in url.query_pairs() {
            match &*name {
                "cost" => cost = Some(price(&value)?),
                "egress" => egress = Some(price(&value)?),
                "jwt" => token = Some(value.into_owned()),
                _ => drop(query.append_pair(&name, &value)),
            }
        }
        if egress.is_some() && egress != cost {
            return Err(BadEntry::Egress);
        }
        let port = url.port().unwrap_or(PORT_DEFAULT);
        let place = Place { scheme, is_set, host, port, path };
        Ok(Entry { place, cost, token, query: query.finish() })
    }
}

fn price(text: &str) -> Result<u64, BadEntry> {
    text.parse().ok().filter(|price| *price < 1 << 62).ok_or(BadEntry::Cost)
}

impl Entry {
    /// A list as a server or a file gives it: URLs, bare hosts, and objects. One bad entry makes the list bad.
    pub fn list(json: &[u8]) -> Result<Vec<Entry>, BadEntry> {
        let items: Vec<Value> =
            serde_json::from_slice(json).map_err(|error| BadEntry::NotList(error.to_string()))?;
        let entry = |(at, item): (usize, &Value)| {
            Entry::of(item).map_err(|fault| {
                let url = item.as_str().or_else(|| item.get("url")?.as_str());
                let url = url.map(|url| format!(", {}", access::shown(url))).unwrap_or_default();
                BadEntry::Item { number: at + 1, url, fault: Box::new(fault) }
            })
        };
        Entry::distinct(items.iter().enumerate().map(entry))
    }

    fn of(item: &Value) -> Result<Entry, BadEntry> {
        let object = match item.as_str() {
            Some(url) => Object { url: url.to_owned(), cost: None, egress: None, token: None },
            None => {
                Object::deserialize(item).map_err(|error| BadEntry::NotItem(error.to_string()))?
            }
        };
        let Object { url, cost, egress, token } = object;
        let url = if url.contains("://") { url } else { format!("https://{url}/") };
        let mut entry: Entry = url.parse()?;
        if egress.is_some() && egress != cost {
            return Err(BadEntry::Egress);
        }
        for (name, is_twice) in [
            ("cost", cost.is_some() && entry.cost.is_some()),
            ("token", token.is_some() && entry.token.is_some()),
        ] {
            if is_twice {
                return Err(BadEntry::Twice(name));
            }
        }
        if cost.is_some_and(|cost| cost >= 1 << 62) {
            return Err(BadEntry::Cost);
        }
        entry.cost = entry.cost.or(cost);
        entry.token = entry.token.or(token);
        Ok(entry)
    }

    /// Each relay once. What comes behind one too many is not looked at: a list may be of any length.
    pub fn distinct(
        entries: impl IntoIterator<Item = Result<Entry, BadEntry>>,
    ) -> Result<Vec<Entry>, BadEntry> {
        let mut distinct: Vec<Entry> = Vec::new();
        let mut known: BTreeMap<Place, usize> = BTreeMap::new();
        for entry in entries {
            let entry = entry?;
            match known.get(&entry.place) {
                Some(at) if distinct[*at] == entry => {}
                Some(_) => return Err(BadEntry::Conflict(entry.place)),
                None if distinct.len() == PEERS_MAX => return Err(BadEntry::TooMany),
                None => {
                    known.insert(entry.place.clone(), distinct.len());
                    distinct.push(entry);
                }
            }
        }
        Ok(distinct)
    }

    /// The names of what else is asked for.
    pub fn others(&self) -> Vec<String> {
        let query = form_urlencoded::parse(self.query.as_bytes());
        query.map(|(name, _)| name.into_owned()).collect()
    }

    /// Path and query that are dialled. There may be a token in it.
    pub fn target(&self, token_of_all: Option<&str>) -> String {
        let mut query = form_urlencoded::Serializer::new(self.query.clone());
        if let Some(token) = self.token.as_deref().or(token_of_all) {
            query.append_pair("jwt", token);
        }
        let query = query.finish();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}{mark}{query}", self.place.path)
    }

    /// The URL that a request for WebTransport is about, where it is by WebTransport.
    pub fn web(&self, token_of_all: Option<&str>) -> Option<Url> {
        let (host, port) = (self.place.bracketed(), self.place.port);
        let url = || format!("https://{host}:{port}{}", self.target(token_of_all)).parse().ok();
        if self.place.scheme == Scheme::Https { url() } else { None }
    }

    /// The same relay where it would have us go, or why that is not followed.
    pub fn redirected(&self, to: &str) -> Result<Entry, BadEntry> {
        let to: Entry = to.parse()?;
        if to.place.host != self.place.host || to.place.is_set {
            return Err(BadEntry::Elsewhere);
        }
        Ok(Entry { cost: self.cost, token: to.token.or(self.token.clone()), ..to })
    }
}

impl Place {
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

/// A token that stands in the path by mistake is not shown.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = if self.is_set { DNS } else { "" };
        let scheme = match self.scheme {
            Scheme::Moqt => "moqt",
            Scheme::Https => "https",
        };
        let path = access::shown(&self.path);
        write!(f, "{set}{scheme}://{}:{}{path}", self.bracketed(), self.port)
    }
}

/// What is in the query may be secret.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?}", self.place, self.cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parsed(text: &str) -> Entry {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_is_dialled_and_what_is_said_there() {
        for (text, place, target, cost) in [
            ("moqt://b.example:4443", "moqt://b.example:4443/", "/", None),
            ("moql://b.example", "moqt://b.example:443/", "/", None),
            ("https://b.example/?cost=5", "https://b.example:443/", "/", Some(5)),
            (
                "https://b.example:4443//eu//west/?jwt=a.b&cost=0#x",
                "https://b.example:4443/eu/west",
                "/eu/west?jwt=a.b",
                Some(0),
            ),
            ("moqt://[2001:db8::1]:4443/", "moqt://[2001:db8::1]:4443/", "/", None),
            (
                "moqt://10.0.0.1:4443/?x=1&cost=2&egress=2",
                "moqt://10.0.0.1:4443/",
                "/?x=1",
                Some(2),
            ),
            ("dns+moqt://relay.svc:4443/", "dns+moqt://relay.svc:4443/", "/", None),
        ] {
            let entry = parsed(text);
            assert_eq!(entry.place.to_string(), place, "{text}");
            assert_eq!((entry.target(None), entry.cost), (target.to_owned(), cost), "{text}");
            assert!(!format!("{entry:?}").contains("a.b"), "a token is not shown");
        }
        let entry = parsed("moqt://b.example/eyJa.b.c");
        assert_eq!(
            (entry.target(None).as_str(), entry.place.to_string().as_str()),
            ("/eyJa.b.c", "moqt://b.example:443/TOKEN?",)
        );
        let entry = parsed("https://[::1]:4443/eu");
        let url = entry.web(Some("t.t.t")).expect("by WebTransport");
        assert_eq!(url.as_str(), "https://[::1]:4443/eu?jwt=t.t.t");
        assert_eq!(entry.place.ip(), Some("::1".parse().unwrap()));
        assert_eq!(parsed("moqt://b/?cots=3&cost=3&jwt=t").others(), ["cots"]);
        let own = parsed("moqt://b/?jwt=own");
        assert_eq!((own.target(Some("all")), own.web(None)), ("/?jwt=own".to_owned(), None));
    }

    #[test]
    fn what_is_refused() {
        for (text, word) in [
            ("b.example", "moqt://HOST"),
            ("http://b.example", "by http"),
            ("wss://b.example", "by wss"),
            ("moqt://", "HOST"),
            ("moqt://me:pw@b", "password"),
            ("moqt://b/?cost=x", "cost"),
            ("moqt://b/?cost=4611686018427387904", "cost"),
            ("moqt://b/?cost=1&egress=2", "egress"),
        ] {
            let error = text.parse::<Entry>().expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn lists_of_the_existing_relay() {
        let list = br#"["https://a.example/", "b.example:4443", {"url": "moqt://c", "cost": 3, "egress": 3},
            {"url": "moqt://d/?cost=1", "token": "t"}, "https://a.example"]"#;
        let entries = Entry::list(list).expect("a list");
        let shown: Vec<String> = entries.iter().map(|entry| format!("{entry:?}")).collect();
        assert_eq!(
            shown,
            [
                "https://a.example:443/ at None",
                "https://b.example:4443/ at None",
                "moqt://c:443/ at Some(3)",
                "moqt://d:443/ at Some(1)",
            ]
        );
        assert_eq!(entries[3].target(None), "/?jwt=t");
        assert_eq!(Entry::list(b"[]"), Ok(vec![]));
        for (bad, word) in [
            (&br#"{"a": 1}"#[..], "not a list"),
            (br#"[7]"#, "entry 1 of the list: not a URL or an object"),
            (br#"[{"url": "moqt://a", "coost": 1}]"#, "entry 1 of the list, moqt://a: "),
            (br#"[{"url": "moqt://a", "coost": 1}]"#, "unknown field `coost`"),
            (
                br#"["moqt://a", "ftp://b"]"#,
                "entry 2 of the list, ftp://b: relays are not dialled by ftp",
            ),
            (br#"["moqt://a", "moqt://a/?cost=2"]"#, "moqt://a:443/ differ"),
            (br#"[{"url": "moqt://a?cost=1", "cost": 1}]"#, "cost is written"),
            (br#"[{"url": "moqt://a?jwt=x", "token": "y"}]"#, "token is written"),
        ] {
            let error = Entry::list(bad).expect_err("a bad list").to_string();
            assert!(error.contains(word) && !error.contains("jwt=x"), "{error}");
        }
        let many: Vec<String> = (0..=PEERS_MAX).map(|n| format!("\"moqt://r{n}\"")).collect();
        let many = format!("[{}]", many.join(","));
        assert_eq!(Entry::list(many.as_bytes()), Err(BadEntry::TooMany));
        // As many of the same as come, and no more of others than there may be.
        let of = |n: usize| Ok(parsed(&format!("moqt://r{n}")));
        let same = Entry::distinct((0..100_000).map(|n| of(n % PEERS_MAX)));
        assert_eq!(same.map(|entries| entries.len()), Ok(PEERS_MAX));
        let mut looked_at = 0;
        let others = (0..100_000).map(of).inspect(|_| looked_at += 1);
        assert_eq!(Entry::distinct(others), Err(BadEntry::TooMany));
        assert_eq!(looked_at, PEERS_MAX + 1);
    }

    #[test]
    fn a_peer_may_send_us_to_another_port_of_its_host_alone() {
        let entry = parsed("moqt://b.example:4443/eu?cost=7&jwt=t");
        let to = entry.redirected("moqt://b.example:5000/eu").expect("the same host");
        assert_eq!(format!("{to:?}"), "moqt://b.example:5000/eu at Some(7)");
        assert_eq!(to.target(None), "/eu?jwt=t");
        let long = format!("moqt://b.example/{}", "x".repeat(ROOT_BYTES_MAX));
        for (to, word) in [
            ("moqt://c.example:4443/eu", "another host"),
            ("dns+moqt://b.example", "another host"),
            ("http://b.example/", "by http"),
            ("file:///etc/passwd", "by file"),
            ("/eu", "not a URL"),
            ("moqt://me:pw@b.example/", "password"),
            (&long, "too long"),
        ] {
            let error = entry.redirected(to).expect_err(to).to_string();
            assert!(error.contains(word), "{to}: {error}");
        }
    }
}
