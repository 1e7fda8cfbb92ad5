//! What settings mean together: the defaults that hang on others, and what does not go together.

use std::fmt;
use std::path::PathBuf;

use moq_pattern::Pattern;
use rustls::pki_types::ServerName;

use super::arguments::Args;
use super::auth_url::AuthUrl;
use super::error::ConfigError;
use super::place::Entry;
use super::rules::{AccessConfig, PublicRules};
use super::values::Web;
use super::{
    AcmeConfig, CacheConfig, ClusterConfig, Config, ConnectTls, ExternalAccount, IdentitySource,
    InternalConfig, ListSource, PairFiles, WebConfig, WebListen,
};
use crate::access;
use crate::origin::Origins;
use crate::route::Takeover;
use crate::source::ClientBounds;

/// Let's Encrypt.
const ACME_DEFAULT: &str = "https://acme-v02.api.letsencrypt.org/directory";

impl Args {
    /// What comes of them, and all that is wrong. Where anything is, a relay does not run with the rest.
    pub(super) fn check(self) -> (Config, Vec<ConfigError>) {
        let mut faults = Vec::new();
        let loopback = self.listen.ip().to_canonical().is_loopback();
        faults.extend(match (self.listen_tls_cert.len(), self.listen_tls_key.len()) {
            (1.., 0) => Some(ConfigError::CertWithoutKey),
            (0, 1..) => Some(ConfigError::KeyWithoutCert),
            (certs, keys) if certs != keys => Some(ConfigError::UnevenPairs { certs, keys }),
            (1.., _) if !self.listen_tls_generate.is_empty() => Some(ConfigError::TwoCertificates),
            _ => None,
        });
        let server = self.auth_url().unwrap_or_else(|fault| {
            faults.push(fault);
            None
        });
        // Who decides is known, and then nothing follows from who it is.
        let is_judged = self.auth_url.is_some();
        let mut access = AccessConfig {
            keys: self.auth_key.clone(),
            key_dir: self.auth_key_dir.clone(),
            public: PublicRules {
                both: self.auth_public.clone(),
                subscribe: self.auth_public_subscribe.clone(),
                publish: self.auth_public_publish.clone(),
            },
            server,
            client_roots: self.listen_tls_root.clone(),
            peers: self.auth_peer.clone(),
        };
        faults.extend(match (access.client_roots.is_empty(), access.peers.is_empty()) {
            (true, false) => Some(ConfigError::PeerWithoutRoot),
            (false, true) if !is_judged => Some(ConfigError::IdleRoot),
            _ => None,
        });
        let is_open = access.is_empty() && !is_judged;
        if !loopback {
            faults.extend(self.exposure(&access, is_open));
        }
        let (web, fault) = self.web(loopback);
        faults.extend(fault);
        for (flag, listen) in [("--web-http-listen", web.http), ("--web-https-listen", web.https)] {
            if let Some(WebListen::At(address)) = listen
                && !address.ip().to_canonical().is_loopback()
                && is_open
            {
                faults.push(ConfigError::WebExposed { flag, address });
            }
        }
        let of_web = [web.http, web.https].into_iter().flatten().map(|listen| match listen {
            WebListen::Same => self.listen,
            WebListen::At(address) => address,
        });
        let mut fixed = of_web.filter(|address| address.port() != 0);
        let same = fixed.find(|address| self.internal_listen == Some(*address));
        faults.extend(same.map(ConfigError::SameAddress));
        if access.is_empty() {
            access.public.both = vec![Pattern::all()];
        }

        let cluster = self.cluster(&mut faults);
        let acme = self.acme(web).unwrap_or_else(|fault| {
            faults.push(fault);
            None
        });
        let pairs = self.listen_tls_cert.into_iter().zip(self.listen_tls_key);
        let pairs: Vec<PairFiles> = pairs.map(|(cert, key)| PairFiles { cert, key }).collect();
        let identity = match (acme, pairs.is_empty(), self.listen_tls_generate.is_empty()) {
            (Some(acme), ..) => IdentitySource::Acme(acme),
            (None, false, _) => IdentitySource::Files(pairs),
            (None, true, false) => IdentitySource::Generated { hosts: self.listen_tls_generate },
            (None, true, true) => IdentitySource::Generated {
                hosts: vec![ServerName::try_from("localhost").expect("localhost is a DNS name")],
            },
        };
        let origins = match !loopback && self.allow_origin.is_empty() {
            true => Origins::All,
            false => Origins::Some { patterns: self.allow_origin, local: loopback },
        };
        let config = Config {
            listen: self.listen,
            web,
            internal: InternalConfig {
                listen: self.internal_listen,
                track_metrics: self.track_metrics as usize,
            },
            identity,
            access,
            origins,
            relays: self.cluster_address,
            cluster,
            bounds: ClientBounds {
                per_source: self.limit_remote.get(),
                per_token: self.limit_token.get(),
                exempt: self.limit_exempt,
            },
            takeover: match self.allow_takeover {
                true => Takeover::Allowed,
                false => Takeover::Refused,
            },
            linger: self.linger.into(),
            memory_max: self.memory_max,
            drain_timeout: self.drain_timeout.into(),
            upgrade_timeout: self.upgrade_timeout.into(),
            cache: CacheConfig {
                capacity: self.cache_capacity,
                duration: self.cache_duration.into(),
            },
            congestion_control: self.quic_congestion_control,
            state_dir: self.state_dir,
            shards: self.shards,
            log_level: self.log_level,
            log_format: self.log_format,
        };
        (config, faults)
    }

    /// There may be tokens in URLs, so that clap does not get to show them.
    fn cluster(&self, faults: &mut Vec<ConfigError>) -> ClusterConfig {
        let mut entry = |flag: &'static str, text: &String| match text.parse::<Entry>() {
            Ok(entry) => Some(entry),
            Err(reason) => {
                let shown = access::shown(text);
                faults.push(ConfigError::Peer { flag, shown, reason });
                None
            }
        };
        const CONNECT: &str = "--cluster-connect";
        let connect: Vec<Entry> =
            self.cluster_connect.iter().filter_map(|text| entry(CONNECT, text)).collect();
        let node = self.cluster_node.as_ref().and_then(|text| entry("--cluster-node", text));
        let connect = Entry::distinct(connect.into_iter().map(Ok)).unwrap_or_else(|reason| {
            let shown = self.cluster_connect.iter().map(|text| access::shown(text));
            faults.push(ConfigError::Peer { flag: CONNECT, shown: join(shown), reason });
            Vec::new()
        });
        let identity = match (&self.connect_tls_cert, &self.connect_tls_key) {
            (Some(cert), Some(key)) => Some(PairFiles { cert: cert.clone(), key: key.clone() }),
            (None, None) => None,
            _ => {
                faults.push(ConfigError::HalfIdentity);
                None
            }
        };
        let list = self.cluster_connect_api.as_ref().map(|text| match text.parse::<hyper::Uri>() {
            Ok(url) if matches!(url.scheme_str(), Some("http" | "https")) => ListSource::Url(url),
            _ => ListSource::File(text.strip_prefix("file://").unwrap_or(text).into()),
        });
        ClusterConfig {
            connect,
            list,
            node,
            token: self.cluster_token.clone(),
            id: self.cluster_id,
            max_hops: self.cluster_max_hops as usize,
            tls: ConnectTls {
                system_roots: self
                    .connect_tls_system_roots
                    .unwrap_or(self.connect_tls_root.is_empty()),
                roots: self.connect_tls_root.clone(),
                fingerprints: self.connect_tls_fingerprint.clone(),
                identity,
                is_insecure: self.connect_tls_insecure,
                host_name: self.connect_tls_host_name.clone(),
            },
        }
    }

    fn acme(&self, web: WebConfig) -> Result<Option<AcmeConfig>, ConfigError> {
        if self.acme_domain.is_empty() {
            let idle = [
                ("--acme-directory", self.acme_directory.is_some()),
                ("--acme-contact", !self.acme_contact.is_empty()),
                ("--acme-eab-kid", self.acme_eab_kid.is_some()),
                ("--acme-eab-key", self.acme_eab_key.is_some()),
                ("--acme-root", self.acme_root.is_some()),
            ];
            return match idle.into_iter().find(|(_, is_given)| *is_given) {
                Some((flag, _)) => Err(ConfigError::IdleAcme(flag)),
                None => Ok(None),
            };
        }
        let others = [
            ("--listen-tls-cert", !self.listen_tls_cert.is_empty()),
            ("--listen-tls-generate", !self.listen_tls_generate.is_empty()),
        ];
        if let Some((other, _)) = others.into_iter().find(|(_, is_given)| *is_given) {
            return Err(ConfigError::OrderedAndGiven { other });
        }
        if web.http.is_none() {
            return Err(ConfigError::AcmeWithout(
                "HTTP, where the authority looks for an answer: --web-http-listen '[::]:80'",
            ));
        }
        let Some(state_dir) = self.state_dir.clone() else {
            return Err(ConfigError::AcmeWithout(
                "a directory that keeps the certificate: --state-dir /var/lib/shardcast",
            ));
        };
        const KID: &str = "--acme-eab-kid";
        const KEY: &str = "--acme-eab-key FILE";
        let external = match (self.acme_eab_kid.clone(), self.acme_eab_key.clone()) {
            (Some(kid), Some(key)) => Some(ExternalAccount { kid, key }),
            (None, None) => None,
            (Some(_), None) => {
                return Err(ConfigError::HalfAccount { given: KID, missing: KEY });
            }
            (None, Some(_)) => {
                return Err(ConfigError::HalfAccount { given: KEY, missing: KID });
            }
        };
        Ok(Some(AcmeConfig {
            external,
            domains: self.acme_domain.clone(),
            directory: self.acme_directory.clone().unwrap_or_else(|| ACME_DEFAULT.to_owned()),
            contacts: self.acme_contact.clone(),
            root: self.acme_root.clone(),
            state_dir,
        }))
    }

    fn web(&self, loopback: bool) -> (WebConfig, Option<ConfigError>) {
        let on = |web: Web| match web {
            Web::Off => None,
            Web::On(listen) => Some(listen),
        };
        let http = self.web_http_listen.map_or(loopback.then_some(WebListen::Same), on);
        let https = self.web_https_listen.and_then(on);
        let address = |listen: Option<WebListen>| match listen? {
            WebListen::Same => Some(self.listen),
            WebListen::At(address) => Some(address).filter(|address| address.port() != 0),
        };
        let both = address(http).filter(|http| address(https) == Some(*http));
        (WebConfig { http, https, ws: self.web_ws }, both.map(ConfigError::TwoWebs))
    }

    /// There may be a password in it, so that clap does not get to show it.
    fn auth_url(&self) -> Result<Option<AuthUrl>, ConfigError> {
        let Some(text) = &self.auth_url else { return Ok(None) };
        let url = text
            .parse()
            .map_err(|reason| ConfigError::AuthUrl { shown: access::shown(text), reason })?;
        let others = [
            ("--auth-key", !self.auth_key.is_empty()),
            ("--auth-key-dir", self.auth_key_dir.is_some()),
            ("--auth-public", !self.auth_public.is_empty()),
            ("--auth-public-subscribe", !self.auth_public_subscribe.is_empty()),
            ("--auth-public-publish", !self.auth_public_publish.is_empty()),
        ];
        match others.into_iter().find(|(_, is_given)| *is_given) {
            Some((other, _)) => Err(ConfigError::TwoJudges { other }),
            None => Ok(Some(url)),
        }
    }

    /// The defaults are for one machine. Who opens the relay to others says with which
    /// certificate and to whom, so that nobody does it by changing an address alone.
    fn exposure(&self, access: &AccessConfig, is_open: bool) -> Option<ConfigError> {
        let named = !self.acme_domain.is_empty()
            || !self.listen_tls_cert.is_empty()
            || !self.listen_tls_generate.is_empty();
        let missing = match (named, is_open) {
            (true, false) => return None,
            (false, true) => "a certificate, and a key, public rules or an auth server",
            (false, false) => "a certificate (or --listen-tls-generate HOST for a test)",
            (true, true) => {
                "a key (or public rules: --auth-public 'anon/**', or an auth server: --auth-url URL)"
            }
        };
        let name = |file: &PathBuf| crate::access::shown_name(&file.to_string_lossy()).to_owned();
        let shown = |files: &[PathBuf]| join(files.iter().map(name));
        let (certs, keys) = (shown(&self.listen_tls_cert), shown(&self.listen_tls_key));
        let certificate = match named {
            true if !self.acme_domain.is_empty() => {
                format!("--acme-domain {}", join(&self.acme_domain))
            }
            true if !certs.is_empty() => {
                format!("--listen-tls-cert {certs} --listen-tls-key {keys}")
            }
            true => format!("--listen-tls-generate {}", join(self.hosts())),
            false => "--listen-tls-cert cert.pem --listen-tls-key key.pem".to_owned(),
        };
        let mut args = vec![format!("--listen '{}'", self.listen), certificate];
        let roots = access.client_roots.iter();
        args.extend(roots.map(|root| format!("--listen-tls-root {}", name(root))));
        args.extend(access.peers.iter().map(|name| format!("--auth-peer '{name}'")));
        args.extend(access.key_dir.iter().map(|dir| format!("--auth-key-dir {}", name(dir))));
        args.extend(access.keys.iter().map(|key| format!("--auth-key {}", name(key))));
        args.extend(access.server.iter().map(|url| format!("--auth-url {url}")));
        let PublicRules { both, subscribe, publish } = &access.public;
        for (kind, patterns) in [("", both), ("-subscribe", subscribe), ("-publish", publish)] {
            if !patterns.is_empty() {
                args.push(format!("--auth-public{kind} '{}'", join(patterns)));
            }
        }
        if is_open {
            args.push("--auth-key public.jwk".to_owned());
        }
        let file = self.file.iter().map(|file| format!("{} ", file.display()));
        let command = format!("shardcast {}{}", file.collect::<String>(), args.join(" "));
        Some(ConfigError::Exposed { listen: self.listen, missing, command })
    }

    fn hosts(&self) -> impl Iterator<Item = impl fmt::Display> {
        self.listen_tls_generate.iter().map(ServerName::to_str)
    }
}

pub(super) fn join(items: impl IntoIterator<Item = impl fmt::Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(",")
}
