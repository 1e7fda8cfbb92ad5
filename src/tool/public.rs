//! `shardcast token public`.

use std::path::PathBuf;

use super::files::Place;
use super::{Failure, say};
use crate::access::{self, KeyError, KeyFile, base64url, public_half, read_key_file};

const EXAMPLES: &str = "\
Examples:
  What a relay needs of a key that signs:
    shardcast token public --key private.jwk --out public.jwk
    shardcast --auth-key public.jwk

The name of the key (kid) and what its tokens may grant (scope) stay. HS256, HS384 and HS512 have no public \
half: relays need the key itself.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The private key, or a set of them
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// Where its public half goes [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Write the JSON of keys in base64url, as moq auth does; every tool reads both
    #[arg(long)]
    base64: bool,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let KeyFile { path, place, bytes } = read_key_file(args.key, access::Place::File)?;
    let json =
        public_half(&bytes).map_err(|fault| KeyError { path: path.clone(), place, fault })?;
    let json = if args.base64 { base64url(&json) } else { json };
    let out = Place::of(args.out.as_deref());
    out.put_public(&json).map_err(Failure::KeyFile)?;
    if let Place::File(file) = out {
        let (key, file) = (path.display(), file.display());
        say(format!(
            "the public half of {key} is in {file}, for relays: shardcast --auth-key {file}"
        ));
    }
    Ok(())
}
