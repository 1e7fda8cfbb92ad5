#!/usr/bin/env bash
# Where the time of the relay goes under a scenario: a flame graph and tables.
# scripts/measure/profiler.py does it; see there, or --help.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[[ " $* " == *' --help '* || " $* " == *' -h '* ]] || "$root/scripts/setup.sh" --minimal >&2
# A fresh shell may not have been told where rustup puts things.
[[ -d $HOME/.cargo/bin ]] && PATH=$HOME/.cargo/bin:$PATH

PYTHONPATH="$root/scripts" exec python3 -m measure.profiler "$@"
