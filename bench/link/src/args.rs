//! The command line.

use std::net::SocketAddr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use shardcast_link::path::{Options, Outage, SPELLS_MAX};

const EXAMPLES: &str = "\
Examples:
  A relay on port 4443, watched over 8 Mb/s, 40 ms each way, 2 % loss and 10 ms of jitter:
    shardcast-link --listen 127.0.0.1:5000 --to 127.0.0.1:4443 \\
      --rate 8M --delay 40 --loss 2 --jitter 10
  The viewer then dials moqt://127.0.0.1:5000.

  Two in a hundred lost, everything for 10 ms on average and then nothing for a while:
    … --rate 20M --delay 20 --loss 2 --burst 10
  Silent for 600 ms every four seconds, and a queue of half a second:
    … --rate 20M --delay 20 --outage 4000:600 --queue 500

Ctrl-C, SIGTERM and the end of --for end it; it then prints what became of the datagrams.";

/// A bad link, for trying how something bears it
///
/// Stands between clients that send UDP to --listen and the address --to, and does to what passes,
/// both ways alike, what a link does: a queue that is served at a rate, a delay, losses, jitter and
/// times of silence. Each client goes on from a port of its own, and all share the link. Datagrams
/// of more than 1472 bytes fit no frame of it. Marks in IP headers are not carried on.
///
/// When bursts and outages come follows from the seed; which of the datagrams are lost and late
/// follows from the seed and their order.
#[derive(Debug, Parser)]
#[command(name = "shardcast-link", after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    /// Where clients send to; port 0 is any that is free, and is printed
    #[arg(long, value_name = "ADDR")]
    pub listen: SocketAddr,

    /// Where it leads
    #[arg(long, value_name = "ADDR")]
    pub to: SocketAddr,

    /// Bits per second of UDP payload, each way: 1600k, 8M, 1.5G
    #[arg(long, default_value = "1G", value_name = "BITS", value_parser = parse_rate)]
    rate: u64,

    /// From one end to the other, in milliseconds
    #[arg(long, default_value = "0", value_name = "MS", value_parser = parse_ms)]
    delay: Duration,

    /// What is lost by chance, each way, in percent
    #[arg(long, default_value = "0", value_name = "PERCENT", value_parser = parse_percent)]
    loss: f64,

    /// Lose it in bursts: everything for so many milliseconds on average, and then nothing until the
    /// share is right. 0 is no bursts, each datagram has its own luck
    #[arg(long, default_value = "0", value_name = "MS", value_parser = parse_ms)]
    burst: Duration,

    /// Each datagram is late by a random part of so many milliseconds, and may overtake others
    #[arg(long, default_value = "0", value_name = "MS", value_parser = parse_ms)]
    jitter: Duration,

    /// Jitter makes nothing overtake what left before it
    #[arg(long)]
    in_order: bool,

    /// What would wait longer for the link is lost, in milliseconds
    #[arg(long, default_value = "100", value_name = "MS", value_parser = parse_ms)]
    queue: Duration,

    /// Silence, both ways: 4000:600 loses everything for 600 ms every 4000 ms, first 4000 ms after
    /// the start
    #[arg(long, value_name = "EVERY:LASTS", value_parser = parse_outage)]
    outage: Option<Outage>,

    /// Seconds after which it ends
    #[arg(long = "for", default_value = "3600", value_name = "SECONDS", value_parser = parse_s)]
    lasts: Duration,

    /// Decides what happens by chance
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
}

impl Args {
    /// A command line that cannot be taken ends the program with its usage.
    pub fn taken(parsed: Result<Args, clap::Error>) -> Args {
        parsed.and_then(Args::checked).unwrap_or_else(|error| error.exit())
    }

    /// What clap cannot see.
    fn checked(self) -> Result<Args, clap::Error> {
        let loses_some = 0.0 < self.loss && self.loss < 1.0;
        let fault = if !self.burst.is_zero() && !loses_some {
            "--burst needs a --loss between 0 and 100"
        } else if self.options().spells() > SPELLS_MAX {
            "so many times of silence have no room: a shorter --for or a longer --burst"
        } else if self.listen.is_ipv4() != self.to.is_ipv4() {
            "--listen and --to are of two families"
        } else {
            return Ok(self);
        };
        Err(Args::command().error(ErrorKind::ValueValidation, fault))
    }

    pub fn options(&self) -> Options {
        Options {
            rate: self.rate,
            delay: self.delay,
            loss: self.loss,
            burst: self.burst,
            jitter: self.jitter,
            in_order: self.in_order,
            queue: self.queue,
            outage: self.outage,
            lasts: self.lasts,
            seed: self.seed,
        }
    }
}

/// Whole or fractional, and not beyond what makes sense of anything here.
fn number(text: &str, most: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
    match (0.0..=most).contains(&number) {
        true => Ok(number),
        false => Err(format!("must be from 0 to {most}")),
    }
}

/// A minute: nothing waits longer for anything.
fn parse_ms(text: &str) -> Result<Duration, String> {
    number(text, 60_000.0).map(|ms| Duration::from_secs_f64(ms / 1000.0))
}

/// Up to a week.
fn parse_s(text: &str) -> Result<Duration, String> {
    number(text, 604_800.0).map(Duration::from_secs_f64)
}

fn parse_percent(text: &str) -> Result<f64, String> {
    number(text, 100.0).map(|percent| percent / 100.0)
}

fn parse_rate(text: &str) -> Result<u64, String> {
    let units = [("k", 1e3), ("M", 1e6), ("G", 1e9)];
    let unit = units.iter().find_map(|(unit, of)| Some((text.strip_suffix(unit)?, *of)));
    let (digits, unit) = unit.unwrap_or((text, 1.0));
    let rate = number(digits, 1e11 / unit)? * unit;
    match rate >= 1000.0 {
        true => Ok(rate as u64),
        false => Err("must be at least 1k".to_owned()),
    }
}

fn parse_outage(text: &str) -> Result<Outage, String> {
    let (every, lasts) = text.split_once(':').ok_or("write EVERY:LASTS, as in 4000:600")?;
    let outage = Outage { every: parse_ms(every)?, lasts: parse_ms(lasts)? };
    match Duration::ZERO < outage.lasts && outage.lasts < outage.every {
        true => Ok(outage),
        false => Err("must last for some time, and end before the next".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &str) -> Result<Args, clap::Error> {
        let base = "shardcast-link --listen 127.0.0.1:0";
        let to = if words.contains("--to") { "" } else { "--to 127.0.0.1:4443" };
        let words = [base, to, words].join(" ");
        Args::try_parse_from(words.split_whitespace()).and_then(Args::checked)
    }

    #[test]
    fn every_option_is_taken() {
        let words = "--rate 1.6M --delay 40 --loss 2 --burst 2.5 --jitter 10 --in-order --queue 500 \
                     --outage 4000:600 --for 20 --seed 7";
        let ms = Duration::from_millis;
        let options = Options {
            rate: 1_600_000,
            delay: ms(40),
            loss: 0.02,
            burst: Duration::from_micros(2500),
            jitter: ms(10),
            in_order: true,
            queue: ms(500),
            outage: Some(Outage { every: ms(4000), lasts: ms(600) }),
            lasts: ms(20_000),
            seed: 7,
        };
        assert_eq!(parsed(words).unwrap().options(), options);
    }

    #[test]
    fn without_options_it_does_nothing() {
        let options = Options::clean(1_000_000_000, Duration::ZERO);
        assert_eq!(parsed("").unwrap().options(), options);
    }

    #[test]
    fn rates_have_units() {
        for (text, rate) in [("1600k", 1_600_000), ("8M", 8_000_000), ("1.5G", 1_500_000_000)] {
            assert_eq!(parse_rate(text), Ok(rate));
        }
        assert_eq!(parse_rate("64000"), Ok(64_000));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let wrong = [
            "--rate 0",
            "--rate 8m",
            "--rate 200G",
            "--loss 101",
            "--loss -1",
            "--loss nan",
            "--delay 70000",
            "--burst 10",
            "--burst 10 --loss 100",
            "--burst 0.01 --loss 50",
            "--outage 600",
            "--outage 600:600",
            "--outage 600:0",
            "--to [::1]:1",
        ];
        for words in wrong {
            let error = parsed(words).map(|args| args.options()).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{words}: {error}");
        }
    }
}
