#!/usr/bin/env bash
# The relay under a small load for hours, and whether its memory stays where it is.
# scripts/measure/soak.py does it; see there, or --help.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[[ " $* " == *' --help '* || " $* " == *' -h '* ]] || "$root/scripts/setup.sh" --minimal >&2
# A fresh shell may not have been told where rustup puts things.
[[ -d $HOME/.cargo/bin ]] && PATH=$HOME/.cargo/bin:$PATH

PYTHONPATH="$root/scripts" exec python3 -m measure.soak "$@"
