#!/usr/bin/env bash
# What viewers get, and publishers bring, over links that lose, narrow and fall silent: our relay with
# each congestion control beside moq-relay, with real sockets and released clients.
# scripts/measure/links.py does it; see there, or --help.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[[ " $* " == *' --help '* || " $* " == *' -h '* ]] || "$root/scripts/setup.sh" --minimal >&2
# A fresh shell may not have been told where rustup puts things.
[[ -d $HOME/.cargo/bin ]] && PATH=$HOME/.cargo/bin:$PATH

PYTHONPATH="$root/scripts" exec python3 -m measure.links "$@"
