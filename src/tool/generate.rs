//! `shardcast token generate`.

use std::path::{Path as FilePath, PathBuf};

use moq_pattern::Pattern;

use super::files::Place;
use super::{Failure, parse_pattern, parse_root, say};
use crate::access::{Algorithm, Grant, KeyId, SigningKey, base64url};
use crate::text::hex;
use crate::wire::Path;

/// Bytes of a name that is made up: nobody has the same by chance.
const ID_BYTES: usize = 8;

const EXAMPLES: &str = "\
Examples:
  A pair of keys, and a relay that takes tokens of it:
    shardcast token generate --out private.jwk --public public.jwk
    shardcast --auth-key public.jwk

  One of several keys, which a relay finds by their names in a directory:
    shardcast token generate --id customer-7 --out customer-7.secret.jwk \\
        --public /etc/shardcast/keys/customer-7.jwk
    shardcast --auth-key-dir /etc/shardcast/keys

  A key for somebody who may let others in below customers/7 and nowhere else:
    shardcast token generate --out customer-7.secret.jwk --public customer-7.jwk \\
        --scope-root customers/7 --scope-publish '**' --scope-subscribe '**'

Files are made for their owner alone (0600) where they hold a secret, and never overwritten. With HS256, \
HS384 and HS512 there is one secret for both sides: whoever can verify can sign.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How tokens are signed: ES256, ES384, EdDSA, RS256 to RS512, PS256 to PS512, HS256 to HS512
    #[arg(long, value_name = "NAME", default_value_t = Algorithm::ES256)]
    algorithm: Algorithm,

    /// What tokens call the key (kid): letters, digits, - and _ [default: made up]
    #[arg(long, value_name = "NAME", value_parser = KeyId::parse)]
    id: Option<KeyId>,

    /// Where the key goes that signs, which is to be kept secret [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Where the public half goes, with which relays verify
    #[arg(long, value_name = "FILE")]
    public: Option<PathBuf>,

    /// What tokens of this key may grant at most to publish, a pattern below --scope-root. Repeat it
    #[arg(long, value_name = "PATTERN", alias = "publish", value_parser = parse_pattern)]
    scope_publish: Vec<Pattern>,

    /// The same to watch. With neither, tokens of this key may grant anything
    #[arg(long, value_name = "PATTERN", alias = "subscribe", value_parser = parse_pattern)]
    scope_subscribe: Vec<Pattern>,

    /// The path that these patterns are below
    #[arg(long, value_name = "PATH", alias = "root", value_parser = parse_root)]
    scope_root: Option<Path>,

    /// Write the JSON of keys in base64url, as moq auth does; every tool reads both
    #[arg(long)]
    base64: bool,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let (out, public) = (args.out.as_deref(), args.public.as_deref());
    let (out, public) = (Place::of(out), public.map(|path| Place::of(Some(path))));
    if let (Place::Output, Some(Place::Output)) = (&out, &public) {
        return Err(Failure::Usage(
            "both keys to standard output cannot be told apart; name a file with --out".to_owned(),
        ));
    }
    let grants = !(args.scope_publish.is_empty() && args.scope_subscribe.is_empty());
    if args.scope_root.is_some() && !grants {
        return Err(Failure::Usage(
            "--scope-root alone allows nothing; add --scope-publish or --scope-subscribe"
                .to_owned(),
        ));
    }
    let scope = grants.then(|| {
        Grant::new(
            args.scope_root.unwrap_or_else(Path::root),
            args.scope_publish.into_iter().collect(),
            args.scope_subscribe.into_iter().collect(),
        )
    });
    let id = args.id.map_or_else(make_up_id, Ok)?;
    let key = SigningKey::generate(args.algorithm, Some(id.clone()), scope)?;
    let written = |json: String| if args.base64 { base64url(&json) } else { json };
    let public_key = key.public_json().map(written);
    if public.is_some() && public_key.is_none() {
        return Err(Failure::Usage(format!(
            "{} has one secret for both sides and no public half; leave --public out, and give relays the \
             key itself",
            args.algorithm
        )));
    }
    out.put_secret(&written(key.private_json())).map_err(Failure::KeyFile)?;
    if let (Some(place), Some(public_key)) = (&public, &public_key)
        && let Err(error) = place.put_public(public_key)
    {
        // Without its other half it would only be in the way.
        out.take_back();
        return Err(Failure::KeyFile(error));
    }
    if let Place::File(secret) = &out {
        say(format!("key {id} is in {}; who has that file can {}", secret.display(), power(&key)));
    }
    if let Some(advice) = for_relays(&id, &out, &public, public_key.is_some()) {
        say(advice);
    }
    if let Place::File(secret) = &out {
        say(format!("to sign a token: {}", signing(secret, &key)));
    }
    Ok(())
}

/// What a key is good for.
fn power(key: &SigningKey) -> String {
    match key.scope() {
        None => "let anybody in everywhere".to_owned(),
        Some(scope) => format!("let others {} and nothing else", scope.words()),
    }
}

/// How relays get at what they verify with.
fn for_relays(
    id: &KeyId,
    out: &Place<'_>,
    public: &Option<Place<'_>>,
    has_public: bool,
) -> Option<String> {
    match (public, out) {
        (Some(Place::File(path)), _) => {
            Some(format!("relays need {}: shardcast {}", path.display(), taking(id, path)))
        }
        (Some(Place::Output), _) | (None, Place::Output) => None,
        (None, Place::File(path)) if has_public => {
            let (shown, public) = (path.display(), path.with_extension("public.jwk"));
            let public = public.display();
            Some(format!(
                "relays need its public half: shardcast token public --key {shown} --out {public}"
            ))
        }
        (None, Place::File(path)) => {
            Some(format!("relays need the same file: shardcast {}", taking(id, path)))
        }
    }
}

/// A file that bears the name of its key lies where keys are found by name, if it lies in a directory.
fn taking(id: &KeyId, path: &FilePath) -> String {
    let is_named = path.file_name().is_some_and(|name| name == format!("{id}.jwk").as_str());
    let directory = path.parent().filter(|parent| is_named && !parent.as_os_str().is_empty());
    match directory {
        Some(directory) => format!("--auth-key-dir {}", directory.display()),
        None => format!("--auth-key {}", path.display()),
    }
}

/// The next thing to type.
fn signing(secret: &FilePath, key: &SigningKey) -> String {
    let mut command = format!("shardcast token sign --key {}", secret.display());
    match key.scope() {
        None => command += " --publish 'live/**'",
        Some(scope) => {
            if !scope.root().is_root() {
                command += &format!(" --root {}", scope.root());
            }
            for (flag, patterns) in [("publish", scope.publish()), ("subscribe", scope.subscribe())]
            {
                for pattern in patterns.iter() {
                    command += &format!(" --{flag} '{pattern}'");
                }
            }
        }
    }
    command + " --expires 1d"
}

fn make_up_id() -> Result<KeyId, Failure> {
    let mut bytes = [0; ID_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| crate::access::KeyFault::NoRandomness)?;
    Ok(KeyId::parse(&hex(&bytes)).expect("digits are allowed"))
}
