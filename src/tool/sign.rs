//! `shardcast token sign`.

use std::path::PathBuf;

use clap::ValueEnum;
use moq_pattern::{Pattern, Patterns};

use super::files::{Place, read_signing_key};
use super::moment::{self, Moment};
use super::{Failure, parse_pattern, parse_root, say};
use crate::access::{Claims, Grant, SigningKey};
use crate::wire::Path;

const EXAMPLES: &str = "\
Patterns:
  alice           alice and nothing else
  alice/**        alice and all below it
  rooms/*/chat    one segment of any name
  cam*            one segment that begins so
  **              everything, from --root on

Examples:
  A camera that publishes one broadcast and watches nothing, for a year:
    shardcast token sign --key private.jwk --publish live/cam1 --expires 365d

  A guest of room 123, who publishes below alice and watches the whole room, for this evening:
    shardcast token sign --key private.jwk --root rooms/123 --publish 'alice/**' --subscribe '**' \\
        --expires 2027-01-31T23:00:00+01:00

  A token for a URL, without showing it:
    URL=\"https://RELAY:4443/live?jwt=$(shardcast token sign --key private.jwk --publish 'live/**')\"

The path of the URL that a client dials is the root of its session: it may lie above --root or below it, and \
what the token grants there remains.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The key that signs: the file of generate --out
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// The path that all patterns are below [default: everything]
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true, value_parser = parse_root)]
    root: Path,

    /// What may be published, a pattern below --root. Repeat it
    #[arg(long, value_name = "PATTERN", value_parser = parse_pattern)]
    publish: Vec<Pattern>,

    /// What may be watched, a pattern below --root. Repeat it
    #[arg(long, value_name = "PATTERN", value_parser = parse_pattern)]
    subscribe: Vec<Pattern>,

    /// When sessions with this token end, and begin no more: 1d or 90m from now, 2027-01-31T18:00:00Z, or
    /// unix seconds [default: never]
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    expires: Option<Moment>,

    /// From when on the token is taken, likewise [default: at once]
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    not_before: Option<Moment>,

    /// How the grants are written
    #[arg(long, value_enum, default_value_t = Form::Auto)]
    form: Form,

    /// Where the token goes, for its owner alone [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// As prefixes where those say all, else as patterns
    Auto,
    /// As put and get, which every verifier reads, old ones too; only what is a whole subtree fits
    Prefixes,
    /// As publish and subscribe
    Patterns,
}

pub fn run(args: Args, now: i64) -> Result<(), Failure> {
    if args.publish.is_empty() && args.subscribe.is_empty() {
        return Err(Failure::Usage(
            "a token without a grant lets nobody in; add --publish PATTERN or --subscribe PATTERN, as in \
             --publish 'live/**'"
                .to_owned(),
        ));
    }
    let key = read_signing_key(&args.key)?;
    let publish: Patterns = args.publish.into_iter().collect();
    let subscribe: Patterns = args.subscribe.into_iter().collect();
    let no_subtree = publish.iter().chain(&subscribe).find(|pattern| pattern.as_prefix().is_none());
    if let (Form::Prefixes, Some(pattern)) = (args.form, no_subtree) {
        return Err(Failure::Usage(format!("--form prefixes cannot say '{pattern}'")));
    }
    let form = match args.form {
        Form::Auto | Form::Prefixes => crate::access::Form::Prefixes,
        Form::Patterns => crate::access::Form::Patterns,
    };
    let claims = Claims {
        grant: Grant::new(args.root, publish, subscribe),
        expires: args.expires.map(|moment| moment.seconds(now)),
        issued: Some(now),
        not_before: args.not_before.map(|moment| moment.seconds(now)),
    };
    check_times(&claims, now)?;
    let token = key.sign(&claims, form)?;
    Place::of(args.out.as_deref()).put_secret(&token).map_err(Failure::TokenFile)?;
    notes(&claims.grant).into_iter().for_each(say);
    if claims.expires.is_none() {
        say(warning(&key));
    }
    Ok(())
}

/// What is granted as it is said, and hardly meant.
fn notes(grant: &Grant) -> Vec<String> {
    let mut notes = Vec::new();
    for (flag, patterns) in [("publish", grant.publish()), ("subscribe", grant.subscribe())] {
        for pattern in patterns {
            notes.extend(note(flag, grant, patterns, pattern));
        }
    }
    notes
}

fn note(flag: &str, grant: &Grant, all: &Patterns, pattern: &Pattern) -> Option<String> {
    let (text, root) = (pattern.as_str(), grant.root().as_str());
    let below = text.strip_prefix(root).filter(|_| !root.is_empty());
    if let Some(rest) = below.filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        let (whole, rest) = (grant.whole(pattern), rest.trim_start_matches('/'));
        return Some(format!(
            "--{flag} begins below --root, so '{text}' is {whole}; write --{flag} '{rest}' if {} is meant",
            if rest.is_empty() { format!("/{root}") } else { format!("/{root}/{rest}") }
        ));
    }
    let is_literal = Pattern::literal(text).is_ok() && !text.is_empty();
    let with_all_below = format!("{text}/**");
    let is_said = all.iter().any(|other| other.as_str() == with_all_below);
    (is_literal && !is_said).then(|| {
        format!(
            "--{flag} '{text}' is {text} alone, and nothing below it; '{with_all_below}' is both"
        )
    })
}

fn check_times(claims: &Claims, now: i64) -> Result<(), Failure> {
    let Some(expires) = claims.expires else { return Ok(()) };
    if expires <= now {
        let when = moment::shown(expires, now);
        return Err(Failure::Usage(format!(
            "--expires is over: {when}; write 1d for a day from now"
        )));
    }
    match claims.not_before.is_some_and(|from| from >= expires) {
        true => Err(Failure::Usage("--not-before is not before --expires".to_owned())),
        false => Ok(()),
    }
}

fn warning(key: &SigningKey) -> String {
    let key = key.id().map_or("its key".to_owned(), |id| format!("key {id}"));
    format!("this token never expires, and ends only with {key}; --expires 1d ends it by itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(root: &str, publish: &[&str], expect: &[&[&str]]) {
        let publish = publish.iter().map(|text| parse_pattern(text).unwrap()).collect();
        let grant = Grant::new(parse_root(root).unwrap(), publish, Patterns::default());
        let notes = notes(&grant);
        assert_eq!(notes.len(), expect.len(), "{notes:?}");
        for (note, words) in notes.iter().zip(expect) {
            for word in *words {
                assert!(note.contains(word), "{note:?} lacks {word:?}");
            }
        }
    }

    #[test]
    fn what_is_hardly_meant_is_said() {
        check("", &["alice"], &[&["alice alone, and nothing below it", "'alice/**' is both"]]);
        check("rooms/123", &["alice", "bob/**"], &[&["'alice/**'"]]);
        check(
            "rooms/123",
            &["rooms/123/alice/**"],
            &[&["/rooms/123/rooms/123/alice/**", "--publish 'alice/**'", "/rooms/123/alice/** is"]],
        );
        check("rooms/123", &["rooms/123"], &[&["/rooms/123/rooms/123;", "--publish ''"]]);
        for fine in ["alice/**", "**", "rooms/1234/**", "a*", "*/b", ""] {
            check("rooms/123", &[fine], &[]);
        }
    }

    #[test]
    fn a_slash_in_front_is_named() {
        let refused = parse_pattern("/alice/**").unwrap_err();
        assert!(
            refused.contains("no slash in front") && refused.contains("'alice/**'"),
            "{refused}"
        );
    }
}
