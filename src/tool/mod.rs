//! `shardcast token`: keys and tokens for operators, so that nobody needs a second program to begin.
//!
//! * `generate`, `public`, `sign`, `verify`: one command each.
//! * `files`: keys and tokens in files, which are never overwritten.
//! * `moment`: times as people write and read them.
//!
//! What is printed is for pipes: a key, a token, or what a token says. What is said beside it goes to
//! standard error, and no secret is in it.

mod files;
mod generate;
mod moment;
mod public;
mod sign;
mod verify;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use moq_pattern::Pattern;

use crate::access::{KeyError, KeyFault, Refusal, SignError};
use crate::cli::{EXIT_FAILED, EXIT_USAGE, say};
use crate::wire::Path;

/// A token that lets nobody in, so that scripts can tell it from a file that is missing.
const EXIT_REFUSED: u8 = 3;

const INTRO: &str = "\
Who may publish and who may watch is said by tokens. You sign them with a key of yours, clients show \
them as ?jwt=TOKEN in the URL that they dial, and a relay verifies them with the public half of that \
key. The tools of moq-relay (moq auth, moq-token, @moq/token) read what this one writes, and the other \
way round.";

const EXAMPLES: &str = "\
From nothing to a publisher with a token, and viewers without:
  shardcast token generate --out private.jwk --public public.jwk
  shardcast --auth-key public.jwk --auth-public-subscribe '**'
  shardcast token sign --key private.jwk --publish 'live/**' --expires 1d

The last one prints a token; its client dials https://RELAY:4443/live?jwt=TOKEN.
See shardcast token sign --help for what a token may say.

Exit codes: 0 done; 1 a file or a key is in the way; 2 the command line is wrong; 3 the token that was to \
be verified lets nobody in.";

#[derive(Parser)]
#[command(
    name = "shardcast token",
    bin_name = "shardcast token",
    about = "Keys and tokens: who may publish and who may watch",
    long_about = INTRO,
    after_help = EXAMPLES,
    disable_help_subcommand = true
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key to sign tokens with, and the public half for relays
    Generate(generate::Args),
    /// Write the public half of a key, which relays need
    Public(public::Args),
    /// Sign a token: who shows it may do what it says
    Sign(sign::Args),
    /// Show what a token says, and whether a relay with these keys takes it
    Verify(verify::Args),
}

/// Why a command has not done what it was asked for.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Keys(#[from] KeyError),
    #[error("no key: {0}")]
    Key(#[from] KeyFault),
    #[error("no token: {0}")]
    Sign(#[from] SignError),
    #[error("no key: {0}")]
    KeyFile(files::FileError),
    #[error("no token: {0}")]
    TokenFile(files::FileError),
    #[error("cannot write what was asked for: {0}")]
    Output(io::Error),
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => EXIT_USAGE,
            Failure::Refused(_) => EXIT_REFUSED,
            _ => EXIT_FAILED,
        }
    }
}

/// Does what the arguments say, which are those of the whole program.
pub fn run(args: &[OsString]) -> ExitCode {
    let arguments = args.iter().skip(1).cloned();
    let done = match Args::try_parse_from(arguments) {
        Ok(Args { command }) => obey(command),
        Err(shown) if !shown.use_stderr() => {
            // A reader that has left, as in `--help | head -1`, is not a failure.
            let _ = shown.print();
            Ok(())
        }
        Err(error) => Err(Failure::Usage(usage_line(&error))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let help = match &failure {
                Failure::Usage(_) => format!("; see {} --help", named_command(args)),
                _ => String::new(),
            };
            say(format!("{failure}{help}"));
            ExitCode::from(failure.exit_code())
        }
    }
}

/// The command that was named, as far as there is one of that name.
fn named_command(args: &[OsString]) -> String {
    let command = Args::command();
    let word = args.get(2).and_then(|word| word.to_str()).unwrap_or_default();
    let name = command.find_subcommand(word).map_or(String::new(), |_| format!(" {word}"));
    format!("shardcast token{name}")
}

fn obey(command: Command) -> Result<(), Failure> {
    match command {
        Command::Generate(args) => generate::run(args),
        Command::Public(args) => public::run(args),
        Command::Sign(args) => sign::run(args, now()),
        Command::Verify(args) => verify::run(args, now()),
    }
}

/// In unix seconds.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

fn write(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush())
}

/// Of a command line that is wrong. An argument that nobody expects is not repeated: it may be a token or
/// a key.
fn usage_line(error: &clap::Error) -> String {
    let unexpected = error.get(ContextKind::InvalidArg).map(ToString::to_string);
    match error.kind() {
        ErrorKind::InvalidSubcommand => "write generate, public, sign or verify after token".to_owned(),
        ErrorKind::UnknownArgument if unexpected.is_some_and(|it| !it.starts_with('-')) => {
            "an argument that belongs to no flag; a token is read from standard input, or from the file of \
             --in"
                .to_owned()
        }
        _ => {
            let text = error.to_string();
            let lines = text.lines().map(str::trim);
            let lines = lines.take_while(|line| !line.starts_with("Usage:"));
            let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("For more"));
            let line = lines.collect::<Vec<_>>().join(" ");
            line.strip_prefix("error: ").unwrap_or(&line).to_owned()
        }
    }
}

fn parse_root(text: &str) -> Result<Path, &'static str> {
    const NO_ROOT: &str = "not a path without wildcards; write rooms/123, or '' for everything";
    Pattern::literal(text).map_err(|_| NO_ROOT)?;
    Path::parse(text).map_err(|_| NO_ROOT)
}

fn parse_pattern(text: &str) -> Result<Pattern, String> {
    text.parse().map_err(|_| match text.trim_start_matches('/') {
        rest if rest.len() < text.len() => {
            format!("patterns begin below the root and have no slash in front; write '{rest}'")
        }
        _ => "not a pattern; write alice/** for alice and all below it, alice for that alone, ** for everything"
            .to_owned(),
    })
}
