//! `shardcast check`: what a relay would be told, by whom, and whether its files are good. Starts nothing.
//!
//! * `certificates`: the relay's own, and those of who issues certificates of clients.
//! * `keys`: files of keys, each by itself and all together.

mod certificates;
mod keys;

use std::ffi::OsString;
use std::fmt::Display;
use std::process::ExitCode;

use clap::error::ErrorKind;
use time::OffsetDateTime;

use crate::access;
use crate::authority::{Ready, Roots};
use crate::cli::{EXIT_FAILED, EXIT_USAGE, print, say};
use crate::cluster;
use crate::config::{Config, IdentitySource, ListSource, Request, Stated, Told, WebListen};
use crate::host;
use crate::log;
use crate::shares::Shares;
use crate::state;
use crate::text::in_one_line;
use crate::tls::outgoing;

const HELP: &str = "\
Shows what a relay would be told with these arguments, variables and this file, and whether the files that it \
would use are good. Nothing is started, nothing is asked, and no address is taken: a relay may run beside it.

Usage: shardcast check [OPTIONS] [FILE]

OPTIONS and FILE are those of a relay: shardcast --help has them.

Standard output is a file that says the same: every setting, with who said it behind it (an argument, a \
variable, a line of the file, or nobody), and as comments what comes of them: certificates with their names and \
dates, each key with what its tokens may grant, addresses. A note is about what works, and is hardly meant.
Standard error has a line for everything that stands in the way, and says which setting is about it. Where a \
setting is wrong, the others are shown, and the files that they name are looked at.

Examples:
  Before a relay is restarted:
    shardcast check /etc/shardcast/shardcast.toml && systemctl restart shardcast

  What differs from the defaults:
    shardcast check /etc/shardcast/shardcast.toml | grep -v '# default$'

Exit codes: 0 a relay would take all of it; 1 a certificate, a key or another file is in the way; 2 a setting \
is wrong.
";

/// Takes the arguments of a relay behind its own name.
pub fn run(args: &[OsString]) -> ExitCode {
    let args = args.iter().take(1).chain(args.iter().skip(2)).cloned();
    let variables = std::env::vars_os().map(|(name, _)| name);
    let told = match Told::read(args, variables) {
        Ok(Request::Run(told)) => told,
        Ok(Request::Show(text)) => {
            match text.kind() {
                ErrorKind::DisplayHelp => print(HELP),
                _ => print(&text.to_string()),
            }
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            error.lines().iter().for_each(say);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let settings = told.stated.iter().map(|stated| format!("{stated}\n"));
    print(&settings.collect::<String>());
    let mut findings = Findings::new(&told.stated);
    for error in &told.faults {
        match error.key() {
            Some(key) => findings.fault(key, error),
            None => findings.faults.extend(error.lines()),
        }
    }
    if let Err(error) = log::filter(told.config.log_level) {
        findings.faults.push(error.to_string());
    }
    let (is_wrong, now) = (!findings.faults.is_empty(), OffsetDateTime::now_utc());
    match is_wrong {
        true => findings.look_at_files(&told.config, now),
        false => findings.look(&told.config, now),
    }
    print("\n");
    findings.facts.iter().for_each(|fact| print(&format!("# {}\n", in_one_line(fact))));
    findings.faults.iter().for_each(say);
    match is_wrong {
        true => ExitCode::from(EXIT_USAGE),
        false => ExitCode::from(if findings.faults.is_empty() { 0 } else { EXIT_FAILED }),
    }
}

/// What comes of the settings on this machine, and what stands in the way.
struct Findings<'a> {
    stated: &'a [Stated],
    facts: Vec<String>,
    faults: Vec<String>,
}

impl<'a> Findings<'a> {
    fn new(stated: &'a [Stated]) -> Findings<'a> {
        Findings { stated, facts: Vec::new(), faults: Vec::new() }
    }

    fn look(&mut self, config: &Config, now: OffsetDateTime) {
        let access = &config.access;
        self.fact("access", access.words());
        if let Some(words) = access.peer_words() {
            self.fact("peers", words);
        }
        if let IdentitySource::Generated { .. } = &config.identity {
            certificates::own(self, &config.identity, now);
        }
        self.look_at_files(config, now);
        if let Some(url) = access.server.clone()
            && let Err(error) = Ready::new(url, Roots::System, config.listen)
        {
            self.fault("auth.url", error);
        }
        self.look_at_memory(config);
        self.fact("quic", config.listen);
        for (name, listen) in [("http", config.web.http), ("https", config.web.https)] {
            match listen {
                None => self.fact(name, "nowhere"),
                Some(WebListen::Same) => self.fact(name, config.listen),
                Some(WebListen::At(address)) => self.fact(name, address),
            }
        }
        for entry in &config.cluster.connect {
            self.fact("dials", &entry.place);
            let others = entry.others();
            if !others.is_empty() {
                self.note(format!(
                    "{} is asked for {} too, which nobody but that relay may know; links know cost, egress and jwt",
                    entry.place,
                    others.join(", ")
                ));
            }
        }
        if let Some(list) = &config.cluster.list {
            self.fact("dials", format!("whom {} lists", list.shown()));
        }
        if let Some(address) = config.internal.listen {
            self.fact("operators", address);
        }
    }

    /// What is for what, on this machine.
    fn look_at_memory(&mut self, config: &Config) {
        let cores = host::choose_cores(config.shards.map(Into::into));
        let allowed = cores.and_then(|cores| Ok((host::allowed_memory(cores.len())?, cores.len())));
        // What is wrong with the machine the doctor says.
        let Ok((allowed, shards)) = allowed else { return };
        match Shares::of(config.memory_max, config.cache.capacity, allowed, shards) {
            Ok(shares) => {
                self.facts.extend(shares.notes);
                shares.warnings.iter().for_each(|warning| self.note(warning));
            }
            Err(error) => self.fault(error.key(), error),
        }
    }

    /// What settings name, whatever else is wrong with them.
    fn look_at_files(&mut self, config: &Config, now: OffsetDateTime) {
        let access = &config.access;
        keys::look(self, &access.keys, access.key_dir.as_deref());
        if let IdentitySource::Files(_) | IdentitySource::Acme(_) = &config.identity {
            certificates::own(self, &config.identity, now);
        }
        certificates::roots(self, &access.client_roots, now);
        if config.cluster.dials()
            && let Err(error) = outgoing::dialling(&config.cluster.tls)
        {
            self.fault("connect.tls.root", error);
        }
        if let Some(path) = &config.cluster.token
            && let Err(error) = cluster::token_in(path)
        {
            self.fault("cluster.token", format!("cannot read {}: {error}", path.display()));
        }
        if let Some(ListSource::File(path)) = &config.cluster.list
            && let Err(error) = cluster::list_in(path)
        {
            let error = access::shown(&error);
            self.fault("cluster.connect_api", format!("{}: {error}", path.display()));
        }
        if let Some(directory) = &config.state_dir
            && let Err(error) = state::look(directory)
        {
            self.fault("state_dir", error);
        }
    }

    fn fact(&mut self, what: &str, words: impl Display) {
        self.facts.push(format!("{what}: {words}"));
    }

    /// What works, and is hardly meant.
    fn note(&mut self, words: impl Display) {
        self.fact("note", words);
    }

    fn fault(&mut self, key: &str, words: impl Display) {
        let stated = self.stated.iter().find(|stated| stated.key == key);
        let source = &stated.expect("a setting").source;
        self.faults.push(format!("{key} ({source}): {words}"));
    }
}
