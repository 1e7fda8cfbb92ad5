//! `shardcast token generate`.

use std::path::PathBuf;

use moq_pattern::Pattern;

use super::files::Place;
use super::{Failure, parse_pattern, parse_root, say};
use crate::access::{Algorithm, Grant, KeyId, SigningKey, base64url};
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
    out.put_secret(&written(key.private_json()))?;
    if let (Some(place), Some(public_key)) = (&public, &public_key)
        && let Err(failure) = place.put_public(public_key)
    {
        // Without its other half it would only be in the way.
        out.take_back();
        return Err(failure);
    }
    if let Place::File(path) = &out {
        let path = path.display();
        say(format!("key {id} is in {path}; who has that file can let anybody in"));
    }
    if let Some(Place::File(path)) = &public {
        let path = path.display();
        say(format!("relays need {path}: shardcast --auth-key {path}"));
    }
    Ok(())
}

fn make_up_id() -> Result<KeyId, Failure> {
    let mut bytes = [0; ID_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| crate::access::KeyFault::NoRandomness)?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(KeyId::parse(&digits).expect("digits are allowed"))
}
