//! `shardcast doctor`: whether a relay with these settings would run on this host, and whether one that runs
//! can be reached: one finding after the other, each with what it costs and what mends it. What a start looks
//! at itself is looked at here by the same functions.

mod certificate;
mod holder;
mod network;
mod reader;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::error::ErrorKind;
use serde::Serialize;
use time::OffsetDateTime;

use crate::cli::{EXIT_FAILED, EXIT_USAGE, print, say};
use crate::config::{Config, Request, WebListen};
use crate::host;
use crate::host::finding::{Finding, Grade};
use crate::keyring::Keyring;
use crate::shares::{self, Shares};
use crate::text::in_one_line;

pub use network::socket;

const JSON: &str = "--json";

const HELP: &str = "\
Looks at this host, its network and the certificates for a relay that is told this: would it run, and would \
clients reach it? Where a relay has the ports already, that one is asked.

Usage: shardcast doctor [--json] [OPTIONS] [FILE]

OPTIONS and FILE are those of a relay: shardcast --help has them.

A line for each thing: ok, warn (it runs, and worse than it could) or fail (it does not start, or nobody reaches \
it), with what that costs and what mends it. --json says the same to programs. Exit codes: 0 where nothing fails, \
1 where something does, 2 for settings that are wrong.

Limits and rights are those of whoever asks. As the unit of the package has them:
  systemd-run --pipe -p DynamicUser=yes -p User=shardcast -p AmbientCapabilities=CAP_NET_BIND_SERVICE \\
      -p LimitMEMLOCK=infinity shardcast doctor /etc/shardcast/shardcast.toml
";

/// What `--json` prints.
#[derive(Serialize)]
struct Answer<'a> {
    findings: &'a [Finding],
    ok: usize,
    warn: usize,
    fail: usize,
}

/// Takes the arguments of a relay behind its own name, and `--json`.
pub fn run(args: &[OsString]) -> ExitCode {
    let wants_json = args.iter().any(|arg| arg == OsStr::new(JSON));
    let args =
        args.iter().take(1).chain(args.iter().skip(2)).filter(|arg| *arg != OsStr::new(JSON));
    let variables = std::env::vars_os().map(|(name, _)| name);
    let config = match Config::parse(args.cloned(), variables) {
        Ok(Request::Run(config)) => config,
        Ok(Request::Show(text)) => {
            let text = match text.kind() {
                ErrorKind::DisplayHelp => HELP.to_owned(),
                _ => text.to_string(),
            };
            print(&text);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            say(error.to_string());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let findings = examine(&config);
    let text = match wants_json {
        true => json(&findings),
        false => text(&findings),
    };
    print(&text);
    match count(&findings, Grade::Fail) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_FAILED),
    }
}

fn examine(config: &Config) -> Vec<Finding> {
    let (shards, mut findings) = match host::choose_cores(config.shards.map(Into::into)) {
        Ok(cores) => (cores.len(), Vec::new()),
        Err(refusal) => (1, vec![Finding::refused("shards", &refusal)]),
    };
    findings.extend(host::findings(shards).into_iter().map(|(subject, finding)| {
        finding.unwrap_or_else(|refusal| Finding::refused(subject, &refusal))
    }));
    // Where that cannot be known, the host has said why.
    if let Ok(allowed) = host::allowed_memory(shards) {
        findings.extend(memory(config, allowed, shards));
    }
    findings.extend(network::udp(config.listen, shards));
    let at = |listen: Option<WebListen>| match listen? {
        WebListen::Same => Some(config.listen),
        WebListen::At(address) => Some(address),
    };
    for (port, address) in [
        (&network::HTTP, at(config.web.http)),
        (&network::HTTPS, at(config.web.https)),
        (&network::INTERNAL, config.internal.listen),
    ] {
        findings.extend(address.map(|address| network::tcp(port, address)));
    }
    findings.extend(certificate::findings(config, OffsetDateTime::now_utc()));
    if config.access.has_keys() {
        findings.push(keys(config));
    }
    findings.extend(reader::findings(config));
    findings
}

/// What it would be for, as settings have it.
fn memory(config: &Config, allowed: u64, shards: usize) -> Vec<Finding> {
    match Shares::of(config.memory_max, config.cache.capacity, allowed, shards) {
        Ok(Shares { notes, warnings, .. }) if warnings.is_empty() => {
            vec![Finding::ok(shares::SUBJECT, notes.join("; "))]
        }
        Ok(shares) => shares.warnings,
        Err(refusal) => vec![Finding::refused(shares::SUBJECT, &refusal)],
    }
}

fn keys(config: &Config) -> Finding {
    match Keyring::open(config.access.keys.clone(), config.access.key_dir.clone()) {
        Ok(_) => Finding::ok("keys", config.access.key_places().join(" ")),
        Err(refusal) => Finding::refused("keys", &refusal),
    }
}

fn count(findings: &[Finding], grade: Grade) -> usize {
    findings.iter().filter(|finding| finding.grade == grade).count()
}

/// A line for each finding, and two more where something is to be done.
fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { subject, grade, says, costs, mend } in findings {
        text += &format!("{grade:<5} {subject:<18} {}\n", in_one_line(says));
        for (label, words) in [("costs", costs), ("mend", mend)] {
            if let Some(words) = words {
                text += &format!("      {label:>18} {}\n", in_one_line(words));
            }
        }
    }
    let [ok, warn, fail] =
        [Grade::Ok, Grade::Warn, Grade::Fail].map(|grade| count(findings, grade));
    let verdict = match (fail, warn) {
        (0, 0) => "a relay with these settings runs here",
        (0, _) => "a relay with these settings runs here, and worse than it could",
        _ => "a relay with these settings does not run here, or nobody reaches it",
    };
    text + &format!("\n{ok} ok, {warn} warn, {fail} fail: {verdict}\n")
}

fn json(findings: &[Finding]) -> String {
    let [ok, warn, fail] =
        [Grade::Ok, Grade::Warn, Grade::Fail].map(|grade| count(findings, grade));
    let answer = Answer { findings, ok, warn, fail };
    serde_json::to_string_pretty(&answer).expect("words and numbers are JSON") + "\n"
}
