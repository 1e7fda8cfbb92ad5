//! What every setting is called: in the file, as an argument, as a variable.

use clap::{Arg, ArgAction, Command};

use crate::text::nearest;

/// The settings by their names in the file, beside the fields of the arguments.
///
/// `a.b_c` is `--a-b-c` as well. The first one alone is shorter there.
pub(super) const SETTINGS: &[Setting] = &[
    setting("listen.bind", "listen"),
    setting("listen.tls.cert", "listen_tls_cert"),
    setting("listen.tls.key", "listen_tls_key"),
    setting("listen.tls.generate", "listen_tls_generate"),
    setting("listen.tls.root", "listen_tls_root"),
    setting("acme.domain", "acme_domain"),
    setting("acme.directory", "acme_directory"),
    setting("acme.contact", "acme_contact"),
    setting("acme.eab_kid", "acme_eab_kid"),
    setting("acme.eab_key", "acme_eab_key"),
    setting("acme.root", "acme_root"),
    setting("web.http.listen", "web_http_listen"),
    setting("web.https.listen", "web_https_listen"),
    setting("web.ws", "web_ws"),
    setting("internal.listen", "internal_listen"),
    setting("quic.congestion_control", "quic_congestion_control"),
    setting("auth.key", "auth_key"),
    setting("auth.key_dir", "auth_key_dir"),
    setting("auth.public", "auth_public"),
    setting("auth.public_subscribe", "auth_public_subscribe"),
    setting("auth.public_publish", "auth_public_publish"),
    setting("auth.url", "auth_url"),
    setting("auth.peer", "auth_peer"),
    setting("allow_origin", "allow_origin"),
    setting("allow_takeover", "allow_takeover"),
    setting("cluster.address", "cluster_address"),
    setting("cluster.connect", "cluster_connect"),
    setting("cluster.connect_api", "cluster_connect_api"),
    setting("cluster.node", "cluster_node"),
    setting("cluster.token", "cluster_token"),
    setting("cluster.id", "cluster_id"),
    setting("cluster.max_hops", "cluster_max_hops"),
    setting("connect.tls.root", "connect_tls_root"),
    setting("connect.tls.system_roots", "connect_tls_system_roots"),
    setting("connect.tls.fingerprint", "connect_tls_fingerprint"),
    setting("connect.tls.cert", "connect_tls_cert"),
    setting("connect.tls.key", "connect_tls_key"),
    setting("connect.tls.insecure", "connect_tls_insecure"),
    setting("connect.tls.host_name", "connect_tls_host_name"),
    setting("limit.remote", "limit_remote"),
    setting("limit.token", "limit_token"),
    setting("limit.exempt", "limit_exempt"),
    setting("drain_timeout", "drain_timeout"),
    setting("upgrade_timeout", "upgrade_timeout"),
    setting("linger", "linger"),
    setting("memory_max", "memory_max"),
    setting("cache.capacity", "cache_capacity"),
    setting("cache.duration", "cache_duration"),
    setting("shards", "shards"),
    setting("track_metrics", "track_metrics"),
    setting("state_dir", "state_dir"),
    setting("log.level", "log_level"),
    setting("log.format", "log_format"),
];

#[derive(Debug, PartialEq)]
pub(super) struct Setting {
    pub key: &'static str,
    /// What clap knows it by.
    pub id: &'static str,
}

const fn setting(key: &'static str, id: &'static str) -> Setting {
    Setting { key, id }
}

impl Setting {
    pub fn of(key: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    pub fn argument<'c>(&self, command: &'c Command) -> &'c Arg {
        let mut all = command.get_arguments();
        all.find(|arg| arg.get_id() == self.id).expect("every setting is an argument")
    }
}

/// Whether settings are in a table of this name.
pub(super) fn is_table(key: &str) -> bool {
    tables().any(|table| table == key)
}

/// The key or the table that somebody may have meant.
pub(super) fn nearest_key(key: &str) -> Option<&'static str> {
    nearest(key, SETTINGS.iter().map(|setting| setting.key).chain(tables()))
}

fn tables() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().flat_map(|Setting { key, .. }| key.match_indices('.').map(|(at, _)| &key[..at]))
}

pub(super) fn flag(argument: &Arg) -> String {
    format!("--{}", argument.get_long().expect("every setting has a long flag"))
}

pub(super) fn variable(argument: &Arg) -> String {
    argument.get_env().expect("every setting has a variable").to_string_lossy().into_owned()
}

pub(super) fn is_list(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Append)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::arguments::Args;
    use clap::CommandFactory;

    #[test]
    fn every_argument_is_in_the_file_by_the_rule() {
        let command = Args::command();
        let ids: Vec<&str> = SETTINGS.iter().map(|setting| setting.id).collect();
        let others = ["file", "help", "version"];
        for argument in command.get_arguments() {
            let id = argument.get_id().as_str();
            let times = ids.iter().filter(|known| **known == id).count();
            assert_eq!(times, usize::from(!others.contains(&id)), "{id}");
        }
        for setting in SETTINGS {
            let argument = setting.argument(&command);
            let (flag, variable) = (flag(argument), variable(argument));
            if setting.key != "listen.bind" {
                assert_eq!(flag, format!("--{}", setting.key.replace(['.', '_'], "-")));
            }
            let rest = variable.strip_prefix("MOQ_").or(variable.strip_prefix("SHARDCAST_"));
            let by_rule = flag.trim_start_matches('-').replace('-', "_").to_uppercase();
            assert_eq!(rest, Some(by_rule.as_str()));
        }
    }

    #[test]
    fn nearest_names() {
        for (text, expect) in [
            ("listen.bnd", Some("listen.bind")),
            ("listen.tls.certs", Some("listen.tls.cert")),
            ("listn", Some("listen")),
            ("auth.pubic", Some("auth.public")),
            ("cache.size", Some("cache")),
            ("log.lvel", Some("log.level")),
            ("shard", Some("shards")),
            ("xyz", None),
            ("", None),
        ] {
            assert_eq!(nearest_key(text), expect, "{text}");
        }
    }
}
