//! `shardcast upgrade`: asks the relay that runs to hand over to a new process.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::desk::{BEGUN, DONE, FAILED, REQUEST};
use super::place;
use crate::cli::{self, EXIT_FAILED, say};
use crate::text::in_one_line;

#[derive(Parser)]
#[command(
    name = "shardcast upgrade",
    bin_name = "shardcast upgrade",
    about = "Have a new process take over from the relay that runs, so that nobody loses anything",
    after_help = "The relay that runs starts its program again, from the same path and with the same arguments, \
                  and the new process reads files of settings, certificates and keys anew. New clients are its \
                  own; those who are there are asked to move, and served until they have. The number of shards \
                  and the UDP address stay: to change those, restart the relay.\n\n\
                  If the new process cannot start, or does not within ten seconds, nothing has happened.\n\n\
                  Exit codes: 0 done; 1 it is not, and why; 2 the command line is wrong."
)]
struct Args {
    /// Wait until the new process serves, or why it does not; else only until it is started
    #[arg(long)]
    wait: bool,

    /// The --state-dir of the relay; under systemd its runtime directory comes first
    #[arg(long, env = "SHARDCAST_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Does what the arguments say, which are meant for this tool.
pub fn run(args: &[OsString]) -> ExitCode {
    let args: Args = match cli::arguments(args) {
        Ok(args) => args,
        Err(end) => return end,
    };
    match ask(&args) {
        Ok(said) => {
            cli::print(&(in_one_line(&said) + "\n"));
            ExitCode::SUCCESS
        }
        Err(reason) => {
            say(&reason);
            ExitCode::from(EXIT_FAILED)
        }
    }
}

const SILENT: &str = "the relay has ended, or does not answer this user";

fn ask(args: &Args) -> Result<String, String> {
    let directory = place::directory(args.state_dir.as_deref()).ok_or(
        "where is the relay? Give its --state-dir; one without it, and without a runtime directory of systemd, \
         cannot be upgraded this way",
    )?;
    let failed = |error: io::Error| {
        let directory = directory.display();
        format!(
            "no relay answers in {directory}: {error}; is it started with that --state-dir, by this user?"
        )
    };
    let mut stream = place::connect(&directory).map_err(failed)?;
    // It hangs up on whoever may not ask, and may be faster than what is said or heard here.
    writeln!(stream, "{REQUEST}").map_err(|_| SILENT)?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(|_| SILENT)?;
        if let Some(said) = line.strip_prefix(BEGUN).filter(|_| !args.wait) {
            return Ok(said.to_owned());
        }
        if let Some(said) = line.strip_prefix(DONE) {
            return Ok(said.to_owned());
        }
        if let Some(reason) = line.strip_prefix(FAILED) {
            return Err(reason.to_owned());
        }
    }
    Err(SILENT.to_owned())
}
