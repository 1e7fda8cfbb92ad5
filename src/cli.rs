//! What the commands of this program have in common, seen from a shell: how they end, and what they say.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::text::in_one_line;

pub const EXIT_FAILED: u8 = 1;
/// What clap and most tools use for a wrong command line.
pub const EXIT_USAGE: u8 = 2;

/// Those of a command, which the arguments of the program name first. Where there is nothing to be done with
/// them that is said, and how the program ends.
pub fn arguments<A: Parser>(args: &[OsString]) -> Result<A, ExitCode> {
    A::try_parse_from(args.iter().skip(1)).map_err(|shown| {
        if !shown.use_stderr() {
            // A reader that has left, as in `--help | head -1`, is not a failure.
            let _ = shown.print();
            return ExitCode::SUCCESS;
        }
        let text = shown.to_string();
        let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        say(format!("{line}; see {} --help", A::command().get_name()));
        ExitCode::from(EXIT_USAGE)
    })
}

/// One line for whoever sits there, of whatever it is made.
pub fn say(line: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "shardcast: {}", in_one_line(line.as_ref()));
}

pub fn print(text: &str) {
    // A reader that has left, as in `--help | head -1`, has seen what it wanted.
    let _ = io::stdout().write_all(text.as_bytes());
}
