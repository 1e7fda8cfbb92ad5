//! One session as operators know it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Site;
use crate::access::{self, Certificate};
use crate::shard::entry::{QUIC, WEBSOCKET};
use crate::shard::report::SessionRow;
use crate::wire::{Path, Role};

#[derive(Debug)]
pub struct Row {
    pub shard: usize,
    pub slot: u32,
    pub generation: u32,
    pub id: String,
    pub transport: &'static str,
    pub is_secure: bool,
    pub alpn: &'static str,
    pub remote: SocketAddr,
    pub local: Option<SocketAddr>,
    pub server_name: Option<String>,
    pub tls: Option<Certificate>,
    pub path: Path,
    pub role: Role,
    pub started: Duration,
}

impl Row {
    pub fn new(site: &Site, shard: usize, row: SessionRow) -> Row {
        let SessionRow { slot, generation, transport, is_secure, protocol, remote, .. } = row;
        let instance = site.subject.instance & 0xffff_ffff_ffff;
        let port = site.subject.addr.port();
        Row {
            shard,
            slot,
            generation,
            id: row.lease.map_or_else(
                || format!("{instance:012x}{shard:04x}{slot:08x}{generation:08x}"),
                |lease| lease.to_string(),
            ),
            transport,
            is_secure,
            alpn: protocol,
            remote,
            local: row.local_ip.map(|ip| SocketAddr::new(ip, port)),
            server_name: row.server_name,
            tls: row.certificate.and_then(|der| Certificate::read(&der)),
            path: row.path,
            role: row.role,
            started: row.started,
        }
    }

    /// Whoever has said nothing else is neither.
    pub fn is_role(&self, role: Role) -> bool {
        self.role == role
    }

    /// By what it comes, as the contract of auth servers has it.
    pub fn carrier(&self) -> &'static str {
        if self.transport == WEBSOCKET { WEBSOCKET } else { QUIC }
    }

    pub fn json(&self) -> Value {
        let mut row = Map::new();
        let mut add = |name: &str, value: Value| row.insert(name.to_owned(), value);
        add("id", self.id.as_str().into());
        add("transport", self.carrier().into());
        // Those who dial a page's way come by QUIC too.
        if self.transport != self.carrier() {
            add(self.transport, true.into());
        }
        if self.transport == WEBSOCKET {
            add("scheme", if self.is_secure { "wss" } else { "ws" }.into());
        }
        add("alpn", self.alpn.into());
        add("remote", self.remote.to_string().into());
        add("path", access::shown(self.path.as_str()).into());
        add("started", self.started.as_secs().into());
        // As the log names it.
        add("shard", self.shard.into());
        add("conn", self.slot.into());
        if let Some(local) = self.local {
            add("local", local.to_string().into());
        }
        if let Some(name) = &self.server_name {
            add("server_name", name.as_str().into());
        }
        if let Some(tls) = &self.tls {
            add("tls", json!(tls));
        }
        match self.role {
            Role::Both => None,
            Role::Publisher => add("role", "publisher".into()),
            Role::Subscriber => add("role", "subscriber".into()),
        };
        Value::Object(row)
    }
}
