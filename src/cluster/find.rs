//! Where relays are by their names: as this machine resolves any other name, or with all that DNS says of one.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::Instant;

use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{ResolverBuilder, TokioResolver};
use tokio::time::timeout;

use super::desk::{Found, Known};
use crate::config::Place;
use crate::limits::{FIND_MAX, NAME_TTL_MAX};

/// How it is made who is asked.
type Build = dyn Fn() -> Result<TokioResolver, NetError> + Send + Sync;

/// Asks whom the machine asks.
pub struct Finder {
    /// Made when it is first needed, and as long as it cannot be each time anew: a machine may be set up while the
    /// relay is there already.
    dns: OnceLock<TokioResolver>,
    build: Box<Build>,
}

impl Finder {
    /// With the servers of `/etc/resolv.conf`.
    pub fn new() -> Finder {
        Finder::built_by(|| remembering_briefly(TokioResolver::builder_tokio()?).build())
    }

    fn built_by(
        build: impl Fn() -> Result<TokioResolver, NetError> + Send + Sync + 'static,
    ) -> Finder {
        Finder { dns: OnceLock::new(), build: Box::new(build) }
    }

    fn dns(&self) -> Result<&TokioResolver, String> {
        if let Some(dns) = self.dns.get() {
            return Ok(dns);
        }
        let dns = (self.build)().map_err(|error| format!("DNS is not set up: {error}"))?;
        Ok(self.dns.get_or_init(|| dns))
    }

    pub async fn find(&self, place: &Place) -> Found {
        let found = async {
            match place.is_set {
                true => self.all_of(&place.host, place.port).await,
                false => {
                    let found = tokio::net::lookup_host((place.host.as_str(), place.port)).await;
                    let addresses = found.map_err(|error| error.to_string())?.collect();
                    Ok(Known { addresses, ttl: NAME_TTL_MAX, fault: None })
                }
            }
        };
        let late = |_| Err(format!("no answer within {FIND_MAX:?}"));
        timeout(FIND_MAX, found).await.unwrap_or_else(late)
    }

    /// Every address: of the hosts and ports that `_moq._udp` names, or of the name itself.
    async fn all_of(&self, name: &str, port: u16) -> Found {
        let dns = self.dns()?;
        let services = match dns.srv_lookup(format!("_moq._udp.{name}")).await {
            Ok(services) => services,
            Err(error) if is_nothing(&error) => {
                let (addresses, until) = addresses(dns, name).await?;
                let all = addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
                let ttl = until.saturating_duration_since(Instant::now());
                return Ok(Known { addresses: all, ttl, fault: None });
            }
            Err(error) => return Err(error.to_string()),
        };
        let mut until = services.valid_until();
        let (mut all, mut fault) = (Vec::new(), None::<String>);
        for record in services.answers() {
            let RData::SRV(service) = &record.data else { continue };
            match addresses(dns, &service.target.to_utf8()).await {
                Ok((found, known_until)) => {
                    until = until.min(known_until);
                    all.extend(found.into_iter().map(|ip| SocketAddr::new(ip, service.port)));
                }
                // Those that are known are of use, and the others looked for soon. Of all faults it is the same one
                // each time, in whatever order they come.
                Err(error) => {
                    until = Instant::now();
                    let said = format!("{}: {error}", service.target);
                    fault = fault.into_iter().chain([said]).min();
                }
            }
        }
        let ttl = until.saturating_duration_since(Instant::now());
        Ok(Known { addresses: all, ttl, fault })
    }
}

/// What is asked again after so long is not to be answered from memory, neither that there is nothing.
fn remembering_briefly(
    mut builder: ResolverBuilder<TokioRuntimeProvider>,
) -> ResolverBuilder<TokioRuntimeProvider> {
    let options = builder.options_mut();
    options.positive_max_ttl = Some(NAME_TTL_MAX);
    options.negative_max_ttl = Some(NAME_TTL_MAX);
    builder
}

/// None where the name has none.
async fn addresses(dns: &TokioResolver, name: &str) -> Result<(Vec<IpAddr>, Instant), String> {
    let mut all = Vec::new();
    let mut until = Instant::now() + NAME_TTL_MAX;
    for kind in [RecordType::A, RecordType::AAAA] {
        match dns.lookup(name, kind).await {
            Ok(found) => {
                until = until.min(found.valid_until());
                let ips = found.answers().iter().filter_map(|record| record.data.ip_addr());
                all.extend(ips);
            }
            Err(error) if is_nothing(&error) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok((all, until))
}

fn is_nothing(error: &NetError) -> bool {
    error.is_no_records_found() || error.is_nx_domain()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};

    use super::*;
    use crate::config::Entry;

    const A: u16 = 1;
    const AAAA: u16 = 28;
    const SRV: u16 = 33;
    /// Of a name that the server fails at.
    const BROKEN: u16 = 0;

    /// What a server of names has: name, type, seconds and bytes of records.
    type Zone = Vec<(&'static str, u16, u32, Vec<u8>)>;

    /// The wire form of a name.
    fn wire(name: &str) -> Vec<u8> {
        let labels = name.split('.').filter(|label| !label.is_empty());
        let labels = labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
        labels.chain([0]).collect()
    }

    /// Answers questions until the process ends.
    fn serve(zone: Zone) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("an address");
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((read, from)) = socket.recv_from(&mut question) {
                let question = &question[..read];
                let end =
                    12 + question[12..].iter().position(|byte| *byte == 0).expect("a name") + 1;
                let (name, kind) = (&question[12..end], &question[end..end + 2]);
                let kind = u16::from_be_bytes(kind.try_into().expect("two bytes"));
                let is_name = |known: &str| wire(known) == name.to_ascii_lowercase();
                let records: Vec<_> =
                    zone.iter().filter(|(known, is, ..)| is_name(known) && *is == kind).collect();
                let is_known = zone.iter().any(|(known, ..)| is_name(known));
                let mut answer = question[..2].to_vec();
                let is_broken = zone.iter().any(|(known, is, ..)| is_name(known) && *is == BROKEN);
                // Recursive, with no error, with that of a server that fails or the one that there is no such name.
                let code = if is_broken {
                    0x82
                } else if is_known {
                    0x80
                } else {
                    0x83
                };
                answer.extend([0x81, code, 0, 1]);
                answer.extend((records.len() as u16).to_be_bytes());
                answer.extend([0; 4]);
                answer.extend(&question[12..end + 4]);
                for (_, kind, ttl, data) in records {
                    answer.extend([0xc0, 12]);
                    answer.extend([&kind.to_be_bytes()[..], &[0, 1], &ttl.to_be_bytes()].concat());
                    answer.extend((data.len() as u16).to_be_bytes());
                    answer.extend(data);
                }
                let _ = socket.send_to(&answer, from);
            }
        });
        address
    }

    fn service(port: u16, target: &str) -> Vec<u8> {
        [&[0, 1, 0, 1][..], &port.to_be_bytes(), &wire(target)].concat()
    }

    /// In the place of whom the machine asks.
    fn asking(server: SocketAddr) -> Result<TokioResolver, NetError> {
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port();
        let server = NameServerConfig::new(server.ip(), true, vec![connection]);
        let config = ResolverConfig::from_parts(None, vec![], vec![server]);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        remembering_briefly(builder).build()
    }

    #[tokio::test]
    async fn every_address_of_a_name_and_every_service_under_it() {
        let v4 = |last: u8| Ipv4Addr::new(10, 0, 0, last).octets().to_vec();
        let v6 = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets().to_vec();
        let server = serve(vec![
            ("pods.svc", A, 30, v4(1)),
            ("pods.svc", A, 30, v4(2)),
            ("pods.svc", AAAA, 9, v6),
            ("_moq._udp.nomad.svc", SRV, 40, service(5001, "n1.svc")),
            ("_moq._udp.nomad.svc", SRV, 40, service(5002, "n2.svc")),
            ("n1.svc", A, 20, v4(3)),
            ("n2.svc", A, 50, v4(4)),
            ("empty.svc", 16, 5, vec![0]),
            ("_moq._udp.half.svc", SRV, 3600, service(5003, "broken.svc")),
            ("_moq._udp.half.svc", SRV, 3600, service(5004, "n3.svc")),
            ("broken.svc", BROKEN, 0, vec![]),
            ("n3.svc", A, 3600, v4(5)),
            ("_moq._udp.broken.svc", SRV, 3600, service(5003, "broken.svc")),
        ]);
        let resolver = asking(server).expect("a resolver");
        let services = resolver.srv_lookup("_moq._udp.half.svc").await.expect("services");
        let until = services.valid_until().saturating_duration_since(Instant::now());
        assert!(until <= NAME_TTL_MAX, "{until:?}: others would not be found before");
        let finder = Finder::built_by(move || asking(server));
        let find = async |name: &str| {
            let entry: Entry = format!("dns+moqt://{name}:4443").parse().expect("an entry");
            let mut known = finder.find(&entry.place).await.expect("an answer");
            known.addresses.sort();
            let shown: Vec<String> = known.addresses.iter().map(SocketAddr::to_string).collect();
            (shown.join(" "), known.ttl)
        };
        // What counts for the shortest time decides.
        let is_about = |ttl: Duration, seconds: u64| {
            let ends = Duration::from_secs(seconds);
            assert!(ttl <= ends && ttl + Duration::from_secs(2) >= ends, "{ttl:?} {seconds}");
        };
        let (found, ttl) = find("pods.svc").await;
        assert_eq!(found, "10.0.0.1:4443 10.0.0.2:4443 [2001:db8::7]:4443");
        is_about(ttl, 9);
        let (found, ttl) = find("nomad.svc").await;
        assert_eq!(found, "10.0.0.3:5001 10.0.0.4:5002");
        is_about(ttl, 20);
        // A service that cannot be looked up takes the others from nobody, and is looked for again soon.
        let (found, ttl) = find("half.svc").await;
        assert_eq!((found.as_str(), ttl), ("10.0.0.5:5004", Duration::ZERO));
        let broken: Entry = "dns+moqt://broken.svc:4443".parse().expect("an entry");
        let known = finder.find(&broken.place).await.expect("an answer");
        assert!(known.addresses.is_empty() && known.fault.is_some(), "{known:?}");
        assert_eq!(find("empty.svc").await.0, "");
        assert_eq!(find("nowhere.svc").await.0, "");
    }

    #[tokio::test]
    async fn names_are_found_as_soon_as_dns_is_set_up() {
        let server = serve(vec![("pods.svc", A, 30, Ipv4Addr::new(10, 0, 0, 1).octets().to_vec())]);
        let times = Arc::new(AtomicUsize::new(0));
        let counted = times.clone();
        let finder = Finder::built_by(move || match counted.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err(NetError::from("no file")),
            _ => asking(server),
        });
        let entry: Entry = "dns+moqt://pods.svc:4443".parse().expect("an entry");
        let expect: Vec<SocketAddr> = vec!["10.0.0.1:4443".parse().expect("an address")];
        assert_eq!(times.load(Ordering::Relaxed), 0, "nobody has asked");
        for is_set_up in [false, false, true, true] {
            match finder.find(&entry.place).await {
                Ok(known) => assert!(is_set_up && known.addresses == expect, "{known:?}"),
                Err(error) => assert!(!is_set_up && error.contains("not set up"), "{error}"),
            }
        }
        assert_eq!(times.load(Ordering::Relaxed), 3, "what there is stays");
    }

    #[tokio::test]
    async fn a_host_is_found_as_everywhere_on_this_machine() {
        let entry: Entry = "moqt://localhost:4443".parse().expect("an entry");
        let found = Finder::new().find(&entry.place).await.expect("an answer").addresses;
        assert!(found.contains(&"127.0.0.1:4443".parse().unwrap()), "{found:?}");
        let entry: Entry = "moqt://nowhere.invalid:4443".parse().expect("an entry");
        assert!(Finder::new().find(&entry.place).await.is_err());
    }
}
