//! What other relays take and this one does not: told by name, and what to do instead.

use std::ffi::OsString;

use clap::CommandFactory;

use super::arguments::Args;
use super::error::ConfigError;
use super::names::{self, SETTINGS, Setting};
use crate::text::nearest;

/// Settings of the existing relay, so that its users are told the new word and not just "unknown".
struct Foreign {
    /// As keys of a file; `a.b_c` stands for `--a-b-c` and `MOQ_A_B_C` too, and `a.*` for `a` and all that
    /// begins with it.
    names: &'static [&'static str],
    instead: Instead,
}

enum Instead {
    /// The same setting has this key here.
    Write(&'static str),
    /// There is no such setting; this is what to know.
    Know(&'static str),
}

use Instead::{Know, Write};

const fn row(names: &'static [&'static str], instead: Instead) -> Foreign {
    Foreign { names, instead }
}

/// The first row that has a name counts.
const FOREIGN: &[Foreign] = &[
    row(&["server.bind", "server.listen", "bind"], Write("listen.bind")),
    row(&["tls.cert", "server.tls.cert"], Write("listen.tls.cert")),
    row(&["tls.key", "server.tls.key"], Write("listen.tls.key")),
    row(&["tls.generate", "server.tls.generate"], Write("listen.tls.generate")),
    row(
        &["server.quic.congestion_control", "client.quic.congestion_control"],
        Write("quic.congestion_control"),
    ),
    row(&["runtime.workers"], Write("shards")),
    row(
        &["runtime.io_uring", "runtime.pin"],
        Know("shards are always pinned and always on io_uring; remove it"),
    ),
    row(
        &["auth.api", "auth.auth_api", "auth.public_api"],
        Know(
            "the auth server of older relays is asked in another way; remove it and use --auth-url URL, --auth-key FILE or --auth-public PATTERN",
        ),
    ),
    row(&["server.tls.root"], Write("listen.tls.root")),
    row(
        &["auth.mtls_tier", "auth.tls.*"],
        Know("who comes in by certificate is named with --auth-peer NAME; remove it"),
    ),
    row(
        &["listen.version"],
        Know("every version of moq-lite from 01 to 06 is spoken, and none is left out; remove it"),
    ),
    row(&["listen.timeout"], Know("handshakes have five seconds; remove it")),
    row(
        &["listen.preferred_v4", "listen.preferred_v6"],
        Know("no other address is offered to clients; remove it"),
    ),
    row(
        &[
            "listen.lb_id",
            "listen.lb_nonce",
            "listen.quic_lb_id",
            "listen.quic_lb_nonce",
            "listen.load_balancer.*",
        ],
        Know("connection IDs name shards and cannot be read by a load balancer; remove it"),
    ),
    row(&["listen.tcp.*", "listen.unix.*"], Know("sessions come over QUIC alone; remove it")),
    row(&["iroh.*"], Know("sessions come over QUIC alone; remove it")),
    row(
        &[
            "connect.url",
            "connect.bind",
            "connect.race",
            "connect.resolution_delay",
            "connect.timeout",
            "connect.version",
            "connect.once",
            "connect.backoff.*",
            "connect.goaway.*",
            "connect.websocket.*",
            "client.*",
            "backoff.*",
            "goaway.*",
            "failover.*",
            "websocket.*",
        ],
        Know(
            "other relays are dialled with --cluster-connect URL, for ever, with pauses of up to ten seconds; remove it",
        ),
    ),
    row(
        &[
            "quic.max_streams",
            "quic.receive_window",
            "quic.stream_receive_window",
            "quic.send_window",
            "server.quic.*",
            "server.max_streams",
        ],
        Know("streams and windows follow from the memory that there is; remove it"),
    ),
    row(
        &["quic.idle_timeout", "quic.keep_alive"],
        Know("a connection is lost after ten seconds of silence; remove it"),
    ),
    row(
        &["quic.gso", "quic.mtu_discovery"],
        Know("it is always used where the host and the path allow it; remove it"),
    ),
    row(&["quic.qlog"], Know("no traces of connections are written; remove it")),
    row(
        &["cache.headroom"],
        Know(
            "the cache has one bound; remove it and use --cache-capacity SIZE, or --memory-max SIZE for all",
        ),
    ),
    row(
        &["cluster.linger"],
        Know("a broadcast ends with its last publisher; remove it (--linger is about viewers)"),
    ),
    row(
        &["cluster.lan.*", "cluster.mesh"],
        Know(
            "relays do not find each other by themselves; remove it and use --cluster-connect URL, or dns+moqt://NAME there",
        ),
    ),
    row(&["cluster.tier"], Know("nobody has another tier here; remove it")),
    row(
        &["web.https.cert", "web.https.key"],
        Know("HTTPS has the certificates of QUIC; remove it, and give them with --listen-tls-cert"),
    ),
    row(&["web.https.root"], Know("clients of HTTP show tokens and no certificates; remove it")),
    row(&["stats.*"], Know("no figures are published as broadcasts; remove it")),
    row(
        &["server.*"],
        Know("the names of these settings begin with listen here; see shardcast --help"),
    ),
    row(
        &["file", "config", "conf", "c"],
        Know("the file is an argument of its own; write it alone, as in shardcast relay.toml"),
    ),
];

impl Foreign {
    fn of(used: &str) -> Option<&'static Foreign> {
        let used = plain(used);
        let is_one = |name: &str| match name.strip_suffix(".*") {
            None => plain(name) == used,
            Some(family) => {
                let rest = used.strip_prefix(&plain(family));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            }
        };
        FOREIGN.iter().find(|row| row.names.iter().any(|name| is_one(name)))
    }

    fn refusal(&self, used: &str, write: impl FnOnce(&'static str) -> String) -> ConfigError {
        match self.instead {
            Write(key) => ConfigError::Renamed { old: used.to_owned(), new: write(key) },
            Know(instead) => ConfigError::Unsupported { name: used.to_owned(), instead },
        }
    }
}

/// Keys, flags and variables of one setting are alike but for this.
fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace(['.', '_'], "-")
}

/// Whether there are settings of others in a table of this name which have each a word of their own.
pub(super) fn is_table(key: &str) -> bool {
    let begin = format!("{key}.");
    FOREIGN
        .iter()
        .flat_map(|row| row.names)
        .any(|name| name.strip_prefix(&begin).is_some_and(|rest| rest != "*"))
}

pub(super) fn refuse_key(key: &str) -> Result<(), ConfigError> {
    let refusal = Foreign::of(key).map(|row| row.refusal(key, str::to_owned));
    refusal.map_or(Ok(()), Err)
}

pub(super) fn refuse_foreign_flags(args: &[OsString]) -> Result<(), ConfigError> {
    for arg in args.iter().skip(1).filter_map(|arg| arg.to_str()) {
        let name = arg.split_once('=').map_or(arg, |(name, _)| name);
        let Some(word) = name.strip_prefix("--").or(name.strip_prefix('-')) else { continue };
        if let Some(row) = Foreign::of(word) {
            return Err(row.refusal(name, flag_and_variable));
        }
    }
    Ok(())
}

fn flag_and_variable(key: &'static str) -> String {
    let command = Args::command();
    let setting = Setting::of(key).expect("what is to be written instead is a setting");
    let argument = setting.argument(&command);
    format!("{} ({})", names::flag(argument), names::variable(argument))
}

/// A variable cannot be mistyped on purpose the way a flag can: one that once kept a relay closed
/// would be ignored in silence and leave it open. So whole families are ours or refused.
pub(super) fn foreign_variables(
    environment: impl IntoIterator<Item = OsString>,
) -> Vec<ConfigError> {
    const FAMILIES: &[&str] = &[
        "MOQ_LISTEN",
        "MOQ_SERVER_",
        "MOQ_WEB_",
        "MOQ_AUTH_",
        "MOQ_RUNTIME_",
        "MOQ_INTERNAL_",
        "MOQ_CACHE_",
        "MOQ_CLUSTER_",
        "MOQ_QUIC_",
        "MOQ_LOG_",
    ];
    /// Of clients on the same machine, which are none of our business.
    const OF_CLIENTS: &[&str] =
        &["MOQ_CONNECT", "MOQ_CLIENT_", "MOQ_BACKOFF_", "MOQ_GOAWAY_", "MOQ_IROH_"];
    let command = Args::command();
    let settings = SETTINGS.iter().map(|setting| names::variable(setting.argument(&command)));
    let ours: Vec<String> = settings.collect();
    let begins = |name: &str, with: &[&str]| with.iter().any(|begin| name.starts_with(begin));
    let mut refused = Vec::new();
    for name in environment {
        let Some(name) = name.to_str() else { continue };
        if ours.iter().any(|ours| ours == name) || begins(name, OF_CLIENTS) {
            continue;
        }
        let foreign = name.strip_prefix("MOQ_").and_then(Foreign::of);
        if let Some(row) = foreign {
            refused.push(row.refusal(name, flag_and_variable));
            continue;
        }
        let nearest = nearest_variable(name, &ours);
        // With our own name begins what scripts say and what Kubernetes tells of a service of that name: only
        // what is like a setting is a slip.
        let is_slip = name.starts_with("SHARDCAST_") && nearest.is_some();
        if begins(name, FAMILIES) || is_slip {
            let name = name.to_owned();
            refused.push(ConfigError::Unknown { name, nearest, remedy: "unset it" });
        }
    }
    refused
}

/// That begin alike does not count.
fn nearest_variable(name: &str, ours: &[String]) -> Option<String> {
    let begin = name.find('_').map_or("", |at| &name[..=at]);
    let same = ours.iter().filter_map(|ours| ours.strip_prefix(begin));
    nearest(&name[begin.len()..], same).map(|rest| format!("{begin}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse_foreign_variables(environment: [OsString; 1]) -> Result<(), ConfigError> {
        foreign_variables(environment).pop().map_or(Ok(()), Err)
    }

    #[test]
    fn no_setting_of_ours_is_foreign() {
        for setting in SETTINGS {
            assert!(Foreign::of(setting.key).is_none(), "{}", setting.key);
        }
        for row in FOREIGN {
            if let Write(key) = row.instead {
                assert!(flag_and_variable(key).starts_with("--"), "{key}");
            }
        }
    }

    /// All that moq-relay 0.17.10 takes, as its help and its source say it.
    const UPSTREAM: &str = "\
listen.bind listen.version listen.timeout listen.preferred_v4 listen.preferred_v6 listen.lb_id listen.lb_nonce \
listen.quic_lb_id listen.quic_lb_nonce listen.load_balancer listen.tls.cert listen.tls.key \
listen.tls.generate listen.tls.root listen.tcp.bind listen.unix.bind listen.unix.allow.uid \
listen.unix.allow.gid listen.unix.allow.pid connect.url connect.bind connect.race \
connect.resolution_delay connect.timeout connect.version connect.once connect.tls.root \
connect.tls.system_roots connect.tls.fingerprint connect.tls.cert connect.tls.key connect.tls.insecure \
connect.tls.host_name connect.backoff.initial connect.goaway.redirect connect.websocket.enabled \
backoff.initial backoff.multiplier backoff.max backoff.timeout goaway.redirect goaway.handover \
quic.max_streams quic.gso quic.idle_timeout quic.keep_alive quic.mtu_discovery quic.congestion_control \
quic.receive_window quic.stream_receive_window quic.send_window quic.qlog runtime.workers runtime.pin \
runtime.io_uring web.http.listen web.https.listen web.https.cert web.https.key web.https.root web.ws \
internal.listen auth.url auth.public auth.public_subscribe auth.public_publish cluster.id \
cluster.max_hops cluster.connect cluster.connect_api cluster.node cluster.token cluster.tier cluster.lan \
cluster.lan.enabled cluster.lan.secret cluster.lan.app cluster.mesh cluster.linger cache.capacity \
cache.headroom cache.duration stats.enabled stats.prefix stats.interval stats.node stats.depth \
stats.linger iroh.enabled iroh.secret iroh.bind_v4 iroh.bind_v6 iroh.disable_relay log.level \
drain_timeout file";

    #[test]
    fn every_setting_of_the_existing_relay_is_ours_or_refused_by_name() {
        for key in UPSTREAM.split_whitespace() {
            let is_ours = Setting::of(key).is_some();
            let names_it = |refused: Result<(), ConfigError>, name: &str| match refused {
                Ok(()) => assert!(is_ours, "{name} is taken for nothing"),
                Err(error) => {
                    assert!(!is_ours, "{name} is refused: {error}");
                    assert!(error.to_string().contains(name), "{name}: {error}");
                    let is_known = !matches!(error, ConfigError::Unknown { .. });
                    assert!(is_known, "{name} has no reason: {error}");
                }
            };
            names_it(refuse_key(key), key);
            let flag = format!("--{}", plain(key));
            names_it(refuse_foreign_flags(&["shardcast".into(), flag.clone().into()]), &flag);
            let begins = key.split('.').next().expect("a word");
            // Variables of clients are left alone, and the listener's is shorter.
            if !["connect", "backoff", "goaway", "iroh"].contains(&begins) && key != "listen.bind" {
                let variable = format!("MOQ_{}", key.replace('.', "_").to_uppercase());
                names_it(refuse_foreign_variables([variable.clone().into()]), &variable);
            }
        }
    }

    #[test]
    fn whoever_names_the_file_by_a_flag_is_told_where_it_stands() {
        for flag in ["--config", "--config=relay.toml", "--conf", "-c", "--file"] {
            let refused = refuse_foreign_flags(&["shardcast".into(), flag.into()]);
            let says = refused.expect_err("it is no setting").to_string();
            assert!(says.contains("write it alone, as in shardcast relay.toml"), "{says}");
        }
        assert!(refuse_foreign_flags(&["shardcast".into(), "-V".into()]).is_ok());
    }

    #[test]
    fn variables_with_our_name() {
        let refused =
            |name: &str| refuse_foreign_variables([name.into()]).map_err(|e| e.to_string());
        let slip = refused("SHARDCAST_ALLOW_ORIGINS").expect_err("a slip");
        assert!(slip.contains("write SHARDCAST_ALLOW_ORIGIN instead, or unset it"), "{slip}");
        assert!(refused("SHARDCAST_SHARD").is_err());
        for others in [
            "SHARDCAST_BIN",
            "SHARDCAST_PGO_BIN",
            "SHARDCAST_PORT",
            "SHARDCAST_PORT_4443_UDP_ADDR",
            "SHARDCAST_SERVICE_HOST",
            "SHARDCAST_SERVICE_PORT",
            "SHARDCAST_SERVICE_PORT_QUIC",
        ] {
            assert_eq!(refused(others), Ok(()));
        }
    }
}
