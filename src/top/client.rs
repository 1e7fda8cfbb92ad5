//! One request over HTTP to what answers operators, which is near.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Bytes of an answer: figures of a thousand tracks on 256 shards are less.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Where the relay answers operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As it was written: a name or an address, with a port.
    authority: String,
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Target, Self::Err> {
        const WRONG: &str = "not an address with a port; write http://127.0.0.1:9090";
        if text.starts_with("https://") {
            return Err("operators are answered without TLS; write http://");
        }
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':').ok_or(WRONG)?;
        let is_host = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        let is_bare = host.contains(':') && !host.starts_with('[');
        if host.is_empty() || !host.chars().all(is_host) || is_bare || port.parse::<u16>().is_err()
        {
            return Err(WRONG);
        }
        Ok(Target { authority: authority.to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

impl Target {
    /// Status and body.
    pub fn get(&self, path: &str) -> io::Result<(u16, String)> {
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.authority)?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or_else(broken)?, body.to_owned()))
    }

    /// A listener on every address is dialled on this machine.
    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for mut address in self.authority.to_socket_addrs()? {
            if address.ip().is_unspecified() {
                let loopback = if address.is_ipv4() { [127, 0, 0, 1].into() } else { LOOPBACK_6 };
                address = SocketAddr::new(loopback, address.port());
            }
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

const LOOPBACK_6: std::net::IpAddr = std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_addresses_or_urls() {
        for (text, shown) in [
            ("127.0.0.1:9090", "http://127.0.0.1:9090"),
            ("http://[::1]:9090/", "http://[::1]:9090"),
            ("[::]:9090", "http://[::]:9090"),
            ("relay-2.example:80", "http://relay-2.example:80"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
        }
        for text in ["", "9090", ":9090", "::1:9090", "relay", "a b:1", "a/b:1", "http://a:70000"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        assert!("https://a:1".parse::<Target>().unwrap_err().contains("without TLS"));
    }
}
