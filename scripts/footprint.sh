#!/usr/bin/env bash
# What things cost in memory, and idle connections in time: the table of README.md, measured on the relay as it is
# released. Takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'TEXT'
usage: scripts/footprint.sh

Builds the relay as it is released and measures what things cost in memory, and idle connections in time: a line
for each.

Example: scripts/footprint.sh
TEXT
}

case ${1-} in
'') ;;
--help | -h) usage && exit ;;
*) usage >&2 && exit 2 ;;
esac

cargo build --release
export SHARDCAST_BIN="$PWD/target/release/shardcast"
cargo test --test footprint -- --ignored --nocapture --test-threads 1 | grep -o 'figure:.*'
