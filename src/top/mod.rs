//! `shardcast top`: what a relay does, looked at from a terminal. It asks what answers operators there
//! (`--internal-listen`), as whoever sits there could.
//!
//! * `client`: one request over HTTP.
//! * `figures`: the text for Prometheus, read again.
//! * `sample`: all that is asked at once.
//! * `view`: two samples into text.
//! * `screen`: the terminal, and how it is left as it was.

mod client;
mod figures;
mod sample;
mod screen;
mod view;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::cli::{self, EXIT_FAILED, EXIT_USAGE, say};
use crate::limits::TRACKS_PAUSE;
use client::Target;
use sample::{AskError, Sample};
use screen::{Screen, Woken};

/// Wide enough for a snapshot, which no terminal cuts off.
const SNAPSHOT_WIDTH: usize = 100;

/// Tracks in a snapshot.
const SNAPSHOT_TRACKS: usize = 20;

#[derive(Parser)]
#[command(
    name = "shardcast top",
    bin_name = "shardcast top",
    about = "What a relay does: tracks, viewers, rates, latency and shards, once a second",
    after_help = "The relay has to be started with --internal-listen. q or Ctrl-C ends this.\n\n\
                  Exit codes: 0 done; 1 nobody answers; 2 the command line is wrong."
)]
struct Args {
    /// Where the relay answers operators: its --internal-listen, as an address with a port or as a URL
    #[arg(
        value_name = "URL",
        env = "MOQ_INTERNAL_LISTEN",
        default_value = "http://127.0.0.1:9090"
    )]
    target: Target,

    /// Print one snapshot and end. Its rates are of one interval
    #[arg(long)]
    once: bool,

    /// How often to look
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("standard output is no terminal; write --once for a snapshot")]
    NoTerminal,
    #[error("the terminal cannot be used: {0}")]
    Terminal(#[from] io::Error),
}

/// Does what the arguments say, which are meant for this tool.
pub fn run(args: &[OsString]) -> ExitCode {
    let args: Args = match cli::arguments(args) {
        Ok(args) => args,
        Err(end) => return end,
    };
    match if args.once { once(&args) } else { watch(&args) } {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(failure.to_string());
            ExitCode::from(match failure {
                Failure::NoTerminal => EXIT_USAGE,
                Failure::Ask(_) | Failure::Terminal(_) => EXIT_FAILED,
            })
        }
    }
}

fn once(args: &Args) -> Result<(), Failure> {
    let before = Sample::take(&args.target, SNAPSHOT_TRACKS)?;
    std::thread::sleep(args.interval);
    let now = Sample::take(&args.target, SNAPSHOT_TRACKS)?;
    let page = view::page(&args.target, Some(&before), &now, SNAPSHOT_WIDTH);
    cli::print(&(page.join("\n") + "\n"));
    Ok(())
}

fn watch(args: &Args) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return Err(Failure::NoTerminal);
    }
    let mut now = Sample::take(&args.target, screen::lines_of())?;
    let mut before = None;
    // Why there is nothing newer.
    let mut fault: Option<AskError> = None;
    let mut due = Instant::now() + args.interval;
    let mut screen = Screen::open()?;
    loop {
        let (width, height) = screen.size();
        let mut page = view::page(&args.target, before.as_ref(), &now, width);
        if let Some(fault) = &fault {
            let secs = now.at.elapsed().as_secs();
            page.insert(0, view::cut(&format!("{fault} (for {secs} s)"), width));
        }
        screen.draw(&page[..page.len().min(height)])?;
        match screen.wait(due)? {
            Woken::Quit => return Ok(()),
            Woken::Resized => {}
            Woken::Due => {
                match Sample::take(&args.target, height) {
                    Ok(newer) => {
                        before = Some(std::mem::replace(&mut now, newer));
                        fault = None;
                    }
                    Err(error) => fault = Some(error),
                }
                due = Instant::now() + args.interval;
            }
        }
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval: humantime::Duration = text.parse().map_err(|_| "write 1s or 500ms".to_owned())?;
    match *interval >= TRACKS_PAUSE {
        true => Ok(*interval),
        false => Err("a relay says something new every 500ms at most".to_owned()),
    }
}
