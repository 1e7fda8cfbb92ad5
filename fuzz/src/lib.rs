//! Hostile bytes for the parts of the relay that read what strangers send.
//!
//! A target is a function of bytes. It panics where the relay would be at fault: not only where
//! that panics itself, but where a property does not hold that the target's own file states. The
//! bytes come from three places: `cargo fuzz` (`fuzz_targets/`, nightly), the runner of this
//! package, which mutates seeds and keeps what behaves in a new way ([`runner`]), and a short
//! replay of both in every test run (below).

mod churn;
mod cursor;
mod frames;
mod h3;
pub mod heap;
mod honest;
mod keys;
mod link;
mod mutate;
mod paths;
mod patterns;
mod qmux;
mod random;
pub mod runner;
mod script;
mod session;
mod tokens;
mod trace;
mod wire;
mod ws;

use std::time::Duration;

use trace::{Trace, processor_time};

/// Something to be fuzzed.
pub struct Target {
    pub name: &'static str,
    run: fn(&[u8], &mut Trace),
    seeds: fn() -> Vec<Vec<u8>>,
    /// What was found worth keeping: a line of hex per input.
    corpus: &'static str,
    /// Whether inputs are [`script`]s, whose steps can be moved about.
    is_script: bool,
    /// Bytes that one byte of an input may make the target hold, its own bookkeeping included.
    bytes_per_byte: usize,
}

/// Bytes that a target may hold for whatever input: its fakes, and what has a least size.
const BYTES_AT_LEAST: usize = 64 << 10;

/// Bytes that one byte of an input may make a target hold, where it states nothing else: a varint
/// of one byte becomes a number of eight, in a vector that has grown to twice its length.
const BYTES_PER_BYTE: usize = 16;

pub const TARGETS: [Target; 12] = [
    Target {
        name: "wire",
        run: wire::run,
        seeds: wire::seeds,
        corpus: include_str!("../corpus/wire.txt"),
        is_script: false,
        bytes_per_byte: BYTES_PER_BYTE,
    },
    Target {
        name: "frames",
        run: frames::run,
        seeds: frames::seeds,
        corpus: include_str!("../corpus/frames.txt"),
        is_script: false,
        bytes_per_byte: frames::BYTES_PER_BYTE,
    },
    Target {
        name: "session",
        run: session::run,
        seeds: session::seeds,
        corpus: include_str!("../corpus/session.txt"),
        is_script: true,
        bytes_per_byte: session::BYTES_PER_BYTE,
    },
    Target {
        name: "churn",
        run: churn::run,
        seeds: churn::seeds,
        corpus: include_str!("../corpus/churn.txt"),
        is_script: true,
        bytes_per_byte: churn::BYTES_PER_BYTE,
    },
    Target {
        name: "cursor",
        run: cursor::run,
        seeds: cursor::seeds,
        corpus: include_str!("../corpus/cursor.txt"),
        is_script: true,
        bytes_per_byte: cursor::BYTES_PER_BYTE,
    },
    Target {
        name: "h3",
        run: h3::run,
        seeds: h3::seeds,
        corpus: include_str!("../corpus/h3.txt"),
        is_script: false,
        bytes_per_byte: h3::BYTES_PER_BYTE,
    },
    Target {
        name: "paths",
        run: paths::run,
        seeds: paths::seeds,
        corpus: include_str!("../corpus/paths.txt"),
        is_script: false,
        bytes_per_byte: BYTES_PER_BYTE,
    },
    Target {
        name: "tokens",
        run: tokens::run,
        seeds: tokens::seeds,
        corpus: include_str!("../corpus/tokens.txt"),
        is_script: false,
        bytes_per_byte: tokens::BYTES_PER_BYTE,
    },
    Target {
        name: "keys",
        run: keys::run,
        seeds: keys::seeds,
        corpus: include_str!("../corpus/keys.txt"),
        is_script: false,
        bytes_per_byte: keys::BYTES_PER_BYTE,
    },
    Target {
        name: "patterns",
        run: patterns::run,
        seeds: patterns::seeds,
        corpus: include_str!("../corpus/patterns.txt"),
        is_script: false,
        bytes_per_byte: patterns::BYTES_PER_BYTE,
    },
    Target {
        name: "ws",
        run: ws::run,
        seeds: ws::seeds,
        corpus: include_str!("../corpus/ws.txt"),
        is_script: false,
        bytes_per_byte: ws::BYTES_PER_BYTE,
    },
    Target {
        name: "qmux",
        run: qmux::run,
        seeds: qmux::seeds,
        corpus: include_str!("../corpus/qmux.txt"),
        is_script: true,
        bytes_per_byte: qmux::BYTES_PER_BYTE,
    },
];

impl Target {
    pub fn named(name: &str) -> Option<&'static Target> {
        const { &TARGETS }.iter().find(|target| target.name == name)
    }

    /// Seeds and corpus.
    fn inputs(&self) -> Vec<Vec<u8>> {
        let lines = self.corpus.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let corpus = lines.map(|line| unhex(line).expect("a line of hex"));
        (self.seeds)().into_iter().chain(corpus).collect()
    }

    fn check(&self, input: &[u8]) -> Ran {
        let (mut trace, begin) = (Trace::default(), processor_time());
        let held = heap::peak(|| (self.run)(input, &mut trace));
        let most = BYTES_AT_LEAST + self.bytes_per_byte * input.len();
        assert!(held <= most, "{held} bytes were held for {} of input", input.len());
        let took = trace.slowest_step().unwrap_or_else(|| processor_time() - begin);
        Ran { trace: trace.value(), held, took }
    }
}

/// What one input led to, the bytes that were held for it at most, and the processor time that it took, or
/// its slowest step.
struct Ran {
    trace: u64,
    held: usize,
    took: Duration,
}

/// Runs one input of the target of this name.
pub fn fuzz(target: &str, input: &[u8]) {
    Target::named(target).expect("a target of this name").check(input);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().filter(|c| *c != ' ').map(|c| Some(c.to_digit(16)? as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutated inputs beside those that are kept. All targets together take some seconds.
    const MUTATIONS: u64 = 20_000;

    #[track_caller]
    fn replay(name: &str, inputs: u64) {
        let target = Target::named(name).unwrap();
        let limits = runner::Limits { inputs, seconds: None, seed: 1, is_timed: false };
        assert_eq!(runner::run(target, &limits).findings, 0);
    }

    #[test]
    fn wire() {
        replay("wire", MUTATIONS);
    }

    #[test]
    fn frames() {
        replay("frames", MUTATIONS);
    }

    #[test]
    fn session() {
        replay("session", MUTATIONS);
    }

    #[test]
    fn churn() {
        // Two shards and six peers.
        replay("churn", MUTATIONS / 50);
    }

    #[test]
    fn cursor() {
        // Up to six viewers and a model of each.
        replay("cursor", MUTATIONS / 4);
    }

    #[test]
    fn h3() {
        replay("h3", MUTATIONS);
    }

    #[test]
    fn paths() {
        replay("paths", MUTATIONS);
    }

    #[test]
    fn tokens() {
        replay("tokens", MUTATIONS);
    }

    #[test]
    fn keys() {
        replay("keys", MUTATIONS);
    }

    #[test]
    fn patterns() {
        replay("patterns", MUTATIONS);
    }

    #[test]
    fn ws() {
        replay("ws", MUTATIONS);
    }

    #[test]
    fn qmux() {
        replay("qmux", MUTATIONS);
    }
}
