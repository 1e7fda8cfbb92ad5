//! `shardcast token verify`.

use std::fmt::Write as _;
use std::path::PathBuf;

use moq_pattern::Patterns;

use super::files::read_token;
use super::{Failure, moment, write};
use crate::access::{Claims, Grant, KeySet, Refusal, read_key_files, token_in};
use crate::text::in_one_line;
use crate::wire::Path;

const EXAMPLES: &str = "\
Examples:
  What the token in a file says, and whether a relay with this key takes it:
    shardcast token verify --key public.jwk --in alice.jwt

  The same of a URL that somebody dials, and what it allows there:
    shardcast token verify --key-dir /etc/shardcast/keys <<<\"$URL\"

Exit codes: 0 the token lets somebody in now; 3 it does not, and the last line says why; 1 a file or a key \
is in the way; 2 the command line is wrong.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A key that vouches for tokens, as for --auth-key of a relay. Repeat it
    #[arg(long, value_name = "FILE", required_unless_present = "key_dir")]
    key: Vec<PathBuf>,

    /// A directory of such keys, as for --auth-key-dir
    #[arg(long, value_name = "DIR")]
    key_dir: Option<PathBuf>,

    /// What holds the token, or a URL with it [default: standard input]
    #[arg(long = "in", value_name = "FILE")]
    token: Option<PathBuf>,

    /// The path that is dialled with it: what the token allows there, in whole paths [default: that of the
    /// URL that holds the token]
    #[arg(long, value_name = "PATH", value_parser = super::parse_root)]
    at: Option<Path>,
}

pub fn run(args: Args, now: i64) -> Result<(), Failure> {
    let keys = KeySet::new(&read_key_files(&args.key, args.key_dir.as_deref())?)?;
    let text = read_token(args.token.as_deref()).map_err(Failure::TokenFile)?;
    let token = token_in(&text).unwrap_or(&text);
    let at = args.at.or_else(|| path_of_url(&text));
    let vouched = match keys.vouched(token) {
        Ok(vouched) => vouched,
        Err(refusal) => {
            write(&line("valid", &no(&refusal))).map_err(Failure::Output)?;
            return Err(refusal.into());
        }
    };
    let (name, algorithm) = (vouched.key.label(), vouched.key.algorithm());
    let mut lines = format!("key         {name} ({algorithm})\n");
    lines += &describe(&vouched.claims, now);
    let admitted = vouched.check(now).and_then(|()| match &at {
        Some(path) => vouched.claims.grant.at(path).map(Some),
        None => Ok(None),
    });
    if let (Ok(Some(grant)), Some(path)) = (&admitted, &at) {
        // The empty path is what `/` dials.
        lines += &line("dialled", &format!("/{path} (names on the wire begin below it)"));
        lines += &list(grant, "there ");
    }
    lines += &line("valid", &admitted.as_ref().map_or_else(no, |_| "yes".to_owned()));
    write(&lines).map_err(Failure::Output)?;
    Ok(admitted.map(|_| ())?)
}

/// Where whoever has a whole URL dials.
fn path_of_url(text: &str) -> Option<Path> {
    let (_, rest) = text.split_once("://")?;
    let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
    let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
    Path::parse(rest.split_once('/').map_or("", |(_, path)| path)).ok()
}

fn no(refusal: &Refusal) -> String {
    format!("no: {refusal}")
}

fn describe(claims: &Claims, now: i64) -> String {
    let mut lines = line("root", &format!("/{}", claims.grant.root()));
    lines += &list(&claims.grant, "");
    for (name, at) in
        [("issued", claims.issued), ("not before", claims.not_before), ("expires", claims.expires)]
    {
        if let Some(at) = at {
            lines += &line(name, &moment::shown(at, now));
        }
    }
    if claims.expires.is_none() {
        lines += &line("expires", "never");
    }
    lines
}

/// What a grant allows, as patterns of whole paths.
fn list(grant: &Grant, before: &str) -> String {
    let texts = |patterns: &Patterns| match patterns.is_empty() {
        true => vec!["nothing".to_owned()],
        false => patterns.iter().map(|pattern| grant.whole(pattern)).collect(),
    };
    let mut lines = String::new();
    for (name, patterns) in [("publish", grant.publish()), ("subscribe", grant.subscribe())] {
        for text in texts(patterns) {
            lines += &line(name, &format!("{before}{text}"));
        }
    }
    lines
}

/// What issuers write may hold anything, and terminals obey some of it.
fn line(name: &str, text: &str) -> String {
    let mut line = String::new();
    let _ = writeln!(line, "{name:12}{}", in_one_line(text));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_where_they_lead() {
        for (text, expect) in [
            ("https://relay.example:4443/rooms/123?jwt=a.b.c", Some("rooms/123")),
            ("moqt://relay.example/rooms//7/#x?y", Some("rooms/7")),
            ("https://relay.example?jwt=a/b", Some("")),
            ("/rooms/123?jwt=a.b.c", None),
            ("a.b.c", None),
        ] {
            let path = path_of_url(text);
            assert_eq!(path.as_ref().map(Path::as_str), expect, "{text}");
        }
    }
}
