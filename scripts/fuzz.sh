#!/usr/bin/env bash
# Hostile bytes for the parts that read what strangers send, for as long as one likes.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'TEXT'
usage: scripts/fuzz.sh [TARGET [DURATION]]

Runs one target (wire, frames, session, churn, cursor, h3, paths, tokens, keys, patterns, ws, qmux), or all
of them one after the other (all), for so long each: seconds, or a number with s, m or h (60s). It needs one
core and a stable compiler, says now and then how far it is, and ends with one line per target: inputs,
findings, the slowest input in processor time (of conversations the slowest step) and the most memory held
for one.

An input is a finding at which the relay is at fault, or that takes more than 10 ms again and again. It
is kept in fuzz/crashes/, with a line that says how to run it again. The script fails if there are any.

Example: SEED=2 scripts/fuzz.sh session 60s

  SEED=NUMBER    other inputs (1)
  INPUTS=NUMBER  so many of each target at most

With a nightly compiler and cargo-fuzz the same targets run under libFuzzer:
  cargo run -p shardcast-fuzz -- --export fuzz/corpus
  cargo +nightly fuzz run --features cargo-fuzz session
TEXT
}

wrong() {
    usage >&2
    exit 2
}

case ${1-} in
-h | --help)
    usage
    exit
    ;;
esac
(($# <= 2)) || wrong
[[ ${2-60s} =~ ^([0-9]+)([smh]?)$ ]] || wrong
declare -A units=([s]=1 [m]=60 [h]=3600)
seconds=$((10#${BASH_REMATCH[1]} * units[${BASH_REMATCH[2]:-s}]))
options=(--seconds "$seconds" --seed "${SEED:-1}")
[[ -n ${INPUTS-} ]] && options+=(--inputs "$INPUTS")
[[ ${1:-all} != all ]] && options+=(--target "$1")
[[ -d $HOME/.cargo/bin ]] && PATH=$HOME/.cargo/bin:$PATH
cargo build --quiet --profile fuzz -p shardcast-fuzz
exec nice -n 19 target/fuzz/shardcast-fuzz "${options[@]}"
